/* SPDX-License-Identifier: Apache-2.0 */
/*
 * faultproxy LISTEN-PORT UPSTREAM-PORT: a plain HTTP/1.1 proxy on loopback that adds a delay to
 * each request and makes the mistakes that a real server cannot be told to make.
 *
 * One thread and one upstream connection for each client connection; bodies move by splice(2), so
 * that hundreds of keep-alive connections and thousands of requests a second cost next to nothing.
 * Hosts and signatures pass through untouched. Commands come as lines on standard input, each
 * answered by one line on standard output; the end of standard input ends the program.
 *
 *     delay MS                    before each request goes upstream
 *     rate BYTES                  bytes a second of each body; 0: no limit
 *     fault KIND EVERY TIMES SUBSTRING
 *                                 KIND at each EVERY-th request whose request line holds SUBSTRING
 * ("-": any), TIMES times at most (0: without end). Several may be set. swap FROM TO where FROM
 * occurs in a listing's body, TO is sent ("\n" for a newline) clear                       no
 * faults, no swaps, no delay, no rate stats                       one line of JSON: counts since
 * the start or the last reset reset                       counts start at 0
 *
 * Kinds: cut (whole head, half of the body, end of stream), reset (the same with a TCP reset), drop
 * (reset before the head), stall (half of the body, then silence), silent (no answer at all), flip
 * (one bit of the body), short (a body shorter than asked, announced as such), slowdown (503),
 * error (500), garbage (no HTTP), expired (400 ExpiredToken), skew (403 RequestTimeTooSkewed),
 * ignore-range (the Range header is taken out of the request).
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define HEAD_MAX 65536
#define LIST_MAX ((size_t)64 << 20)
#define FAULTS 16
#define SWAPS 8
#define STALL_S 120

enum kind {
    NONE,
    CUT,
    RESET,
    DROP,
    STALL,
    SILENT,
    FLIP,
    SHORT,
    SLOWDOWN,
    ERROR,
    GARBAGE,
    EXPIRED,
    SKEW,
    IGNORE_RANGE,
    KINDS
};

static const char *const kind_words[KINDS] = {"none",    "cut",     "reset", "drop",        "stall",
                                              "silent",  "flip",    "short", "slowdown",    "error",
                                              "garbage", "expired", "skew",  "ignore-range"};

struct fault {
    enum kind kind;
    uint64_t every, times, seen, done;
    char match[256];
};

struct swap {
    char from[1024], to[8192];
};

/* Requests of all connections since the last reset. */
static _Atomic uint64_t n_requests, n_gets, n_lists, n_heads, n_others, n_bytes, n_faults, n_conns;
static _Atomic uint64_t delay_ms, rate;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of the tables below */
static struct fault faults[FAULTS];
static struct swap swaps[SWAPS];
static unsigned n_swaps;
static uint16_t upstream_port;

struct head {
    char text[HEAD_MAX + 1]; /* with its empty line; then whatever of the body came along */
    size_t len;              /* of the head */
    size_t have;             /* in all */
};

struct conn {
    int client, server;
    int pipe[2];
    struct head req, res;
};

static void sleep_ns(int64_t ns)
{
    struct timespec t = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
    while (nanosleep(&t, &t) < 0 && errno == EINTR)
        ;
}

static int send_all(int fd, const void *p, size_t n)
{
    const char *c = p;
    while (n > 0) {
        ssize_t w = send(fd, c, n, MSG_NOSIGNAL);
        if (w <= 0)
            return -1;
        c += w;
        n -= (size_t)w;
    }
    return 0;
}

/* Next head from fd; bytes past it stay in h. 0, or -1 at the end of the stream or on nonsense. */
static int head_read(int fd, struct head *h)
{
    size_t rest = h->have - h->len;
    memmove(h->text, h->text + h->len, rest);
    h->have = rest;
    h->len = 0;
    for (;;) {
        h->text[h->have] = '\0';
        char *end = strstr(h->text, "\r\n\r\n");
        if (end) {
            h->len = (size_t)(end - h->text) + 4;
            return 0;
        }
        if (h->have == HEAD_MAX)
            return -1;
        ssize_t n = recv(fd, h->text + h->have, HEAD_MAX - h->have, 0);
        if (n <= 0)
            return -1;
        h->have += (size_t)n;
    }
}

/* Value of a header, or NULL. */
static const char *head_get(const struct head *h, const char *name)
{
    size_t n = strlen(name);
    for (const char *l = h->text; l && l < h->text + h->len; l = strstr(l, "\r\n")) {
        l += l == h->text ? 0 : 2;
        if (strncasecmp(l, name, n) == 0 && l[n] == ':')
            return l + n + 1 + strspn(l + n + 1, " ");
    }
    return NULL;
}

static void head_drop(struct head *h, const char *name)
{
    const char *v = head_get(h, name);
    if (!v)
        return;
    char *start = (char *)v;
    while (start[-1] != '\n')
        start--;
    char *end = strstr(start, "\r\n") + 2;
    memmove(start, end, (size_t)(h->text + h->have - end));
    h->len -= (size_t)(end - start);
    h->have -= (size_t)(end - start);
}

static int connect_upstream(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons(upstream_port),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        close(fd);
        return -1;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Moves n bytes of a body from one socket to the other; `rest` bytes of it already lie in h. */
static int body_move(struct conn *c, int from, int to, struct head *h, uint64_t n)
{
    size_t held = h->have - h->len;
    if (held > n)
        held = n;
    if (held) {
        if (send_all(to, h->text + h->len, held) < 0)
            return -1;
        memmove(h->text + h->len, h->text + h->len + held, h->have - h->len - held);
        h->have -= held;
        n -= held;
    }
    while (n > 0) {
        uint64_t limit = atomic_load(&rate);
        size_t want = n > 1 << 20 ? 1 << 20 : (size_t)n;
        if (limit && want > 16384)
            want = 16384;
        ssize_t got = splice(from, NULL, c->pipe[1], NULL, want, SPLICE_F_MOVE | SPLICE_F_MORE);
        if (got <= 0)
            return -1;
        n -= (uint64_t)got;
        for (size_t left = (size_t)got; left > 0;) {
            ssize_t put = splice(c->pipe[0], NULL, to, NULL, left,
                                 SPLICE_F_MOVE | (n > 0 ? SPLICE_F_MORE : 0));
            if (put <= 0)
                return -1;
            left -= (size_t)put;
        }
        if (limit)
            sleep_ns((int64_t)((uint64_t)got * 1000000000 / limit));
    }
    return 0;
}

/* n bytes of the response's body into p. */
static int body_take(struct conn *c, char *p, size_t n)
{
    size_t held = c->res.have - c->res.len;
    if (held > n)
        held = n;
    memcpy(p, c->res.text + c->res.len, held);
    memmove(c->res.text + c->res.len, c->res.text + c->res.len + held,
            c->res.have - c->res.len - held);
    c->res.have -= held;
    while (held < n) {
        ssize_t got = recv(c->server, p + held, n - held, 0);
        if (got <= 0)
            return -1;
        held += (size_t)got;
    }
    return 0;
}

/* A whole chunked body, decoded. Caller frees. */
static char *body_take_chunked(struct conn *c, size_t *len)
{
    char *out = NULL;
    *len = 0;
    for (;;) {
        char line[64];
        size_t n = 0;
        do {
            if (n == sizeof(line) - 1 || body_take(c, line + n, 1) < 0)
                goto bad;
        } while (line[n++] != '\n');
        line[n] = '\0';
        size_t chunk = strtoul(line, NULL, 16);
        if (chunk > LIST_MAX - *len)
            goto bad;
        out = realloc(out, *len + chunk + 2);
        if (!out || body_take(c, out + *len, chunk) < 0 || body_take(c, line, 2) < 0)
            goto bad;
        *len += chunk;
        if (chunk == 0)
            return out;
    }
bad:
    free(out);
    return NULL;
}

static void hard_reset(int fd)
{
    struct linger l = {.l_onoff = 1, .l_linger = 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

/* Waits until the client hangs up, or for so long that a test would have given up. */
static void sit(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    poll(&p, 1, STALL_S * 1000);
}

static enum kind choose(const char *line)
{
    enum kind kind = NONE;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FAULTS && kind == NONE; i++) {
        struct fault *f = &faults[i];
        if (f->kind == NONE || (f->times && f->done >= f->times))
            continue;
        if (strcmp(f->match, "-") != 0 && !strstr(line, f->match))
            continue;
        if (++f->seen % f->every == 0) {
            f->done++;
            kind = f->kind;
        }
    }
    pthread_mutex_unlock(&lock);
    if (kind != NONE)
        atomic_fetch_add(&n_faults, 1);
    return kind;
}

static int answer(struct conn *c, int status, const char *reason, const char *code)
{
    char body[400], text[800];
    bool head = strncmp(c->req.text, "HEAD ", 5) == 0;
    int n = snprintf(body, sizeof(body),
                     "<?xml version=\"1.0\" "
                     "encoding=\"UTF-8\"?><Error><Code>%s</Code><Message>made by the fault "
                     "proxy</Message><RequestId>0</RequestId></Error>",
                     code);
    int m =
        snprintf(text, sizeof(text),
                 "HTTP/1.1 %d %s\r\nContent-Type: application/xml\r\nContent-Length: %d\r\n\r\n%s",
                 status, reason, n, head ? "" : body);
    return send_all(c->client, text, (size_t)m);
}

/* Answers that need no server: 1 the request is dealt with, 0 it is not, -1 end the connection. */
static int answer_alone(struct conn *c, enum kind kind)
{
    static const char garbage[] = "220 mail.example ready\r\n\r\n";
    switch (kind) {
    case SLOWDOWN:
        return answer(c, 503, "Slow Down", "SlowDown") < 0 ? -1 : 1;
    case ERROR:
        return answer(c, 500, "Internal Server Error", "InternalError") < 0 ? -1 : 1;
    case EXPIRED:
        return answer(c, 400, "Bad Request", "ExpiredToken") < 0 ? -1 : 1;
    case SKEW:
        return answer(c, 403, "Forbidden", "RequestTimeTooSkewed") < 0 ? -1 : 1;
    case GARBAGE:
        send_all(c->client, garbage, sizeof(garbage) - 1);
        return -1;
    case DROP:
        hard_reset(c->client);
        return -1;
    case SILENT:
        sit(c->client);
        return -1;
    default:
        return 0;
    }
}

/* A listing, whole, with every swap done. */
static int pass_listing(struct conn *c)
{
    const char *v = head_get(&c->res, "Content-Length");
    size_t n = v ? strtoul(v, NULL, 10) : 0;
    char *body;
    if (v) {
        if (n > LIST_MAX)
            return -1;
        body = malloc(n + 1);
        if (!body || body_take(c, body, n) < 0) {
            free(body);
            return -1;
        }
    } else {
        body = body_take_chunked(c, &n);
        if (!body)
            return -1;
    }
    pthread_mutex_lock(&lock);
    for (unsigned i = 0; i < n_swaps; i++) {
        char *at = memmem(body, n, swaps[i].from, strlen(swaps[i].from));
        size_t from = strlen(swaps[i].from), to = strlen(swaps[i].to);
        if (!at)
            continue;
        size_t off = (size_t)(at - body);
        char *grown = realloc(body, n + to + 1);
        if (!grown)
            break;
        body = grown;
        memmove(body + off + to, body + off + from, n - off - from);
        memcpy(body + off, swaps[i].to, to);
        n = n - from + to;
    }
    pthread_mutex_unlock(&lock);
    head_drop(&c->res, "Content-Length");
    head_drop(&c->res, "Transfer-Encoding");
    char length[64];
    int m = snprintf(length, sizeof(length), "Content-Length: %zu\r\n\r\n", n);
    int r = send_all(c->client, c->res.text, c->res.len - 2);
    if (r == 0)
        r = send_all(c->client, length, (size_t)m);
    if (r == 0)
        r = send_all(c->client, body, n);
    free(body);
    return r;
}

static int pass_faulty(struct conn *c, enum kind kind, uint64_t n)
{
    uint64_t half = n / 2;
    if (kind == SHORT) {
        char length[64];
        int m = snprintf(length, sizeof(length), "Content-Length: %llu\r\n\r\n",
                         (unsigned long long)half);
        head_drop(&c->res, "Content-Length");
        if (send_all(c->client, c->res.text, c->res.len - 2) < 0 ||
            send_all(c->client, length, (size_t)m) < 0)
            return -1;
        body_move(c, c->server, c->client, &c->res, half);
        return -1;
    }
    if (send_all(c->client, c->res.text, c->res.len) < 0)
        return -1;
    if (body_move(c, c->server, c->client, &c->res, half) < 0)
        return -1;
    if (kind == FLIP && n > 0) {
        char byte;
        if (body_take(c, &byte, 1) < 0)
            return -1;
        byte ^= 1;
        if (send_all(c->client, &byte, 1) < 0)
            return -1;
        return body_move(c, c->server, c->client, &c->res, n - half - 1);
    }
    if (kind == RESET)
        hard_reset(c->client);
    if (kind == STALL)
        sit(c->client);
    return -1;
}

static void count(const char *line)
{
    atomic_fetch_add(&n_requests, 1);
    if (strncmp(line, "HEAD ", 5) == 0)
        atomic_fetch_add(&n_heads, 1);
    else if (strncmp(line, "GET ", 4) != 0)
        atomic_fetch_add(&n_others, 1);
    else if (strstr(line, "list-type=2"))
        atomic_fetch_add(&n_lists, 1);
    else
        atomic_fetch_add(&n_gets, 1);
}

/* One request and its response. 0 to go on with the connection. */
static int serve(struct conn *c)
{
    char line[4096];
    if (head_read(c->client, &c->req) < 0)
        return -1;
    size_t n = strcspn(c->req.text, "\r");
    n = n < sizeof(line) ? n : sizeof(line) - 1;
    memcpy(line, c->req.text, n);
    line[n] = '\0';
    count(line);
    if (atomic_load(&delay_ms))
        sleep_ns((int64_t)atomic_load(&delay_ms) * 1000000);

    enum kind kind = choose(line);
    if (kind == IGNORE_RANGE)
        head_drop(&c->req, "Range");
    int alone = answer_alone(c, kind);
    if (alone)
        return alone < 0 ? -1 : 0;
    if (c->server < 0 && (c->server = connect_upstream()) < 0) {
        hard_reset(c->client); /* as if the server itself were gone */
        return -1;
    }
    const char *v = head_get(&c->req, "Content-Length");
    uint64_t body = v ? strtoull(v, NULL, 10) : 0;
    if (send_all(c->server, c->req.text, c->req.len) < 0 ||
        body_move(c, c->client, c->server, &c->req, body) < 0)
        return -1;
    if (head_read(c->server, &c->res) < 0) {
        hard_reset(c->client);
        return -1;
    }
    int status = atoi(c->res.text + 9);
    const char *chunked = head_get(&c->res, "Transfer-Encoding");
    const char *length = head_get(&c->res, "Content-Length");
    bool listing = strstr(line, "list-type=2") && status == 200;
    if (listing)
        return pass_listing(c);
    if (strncmp(line, "HEAD ", 5) == 0 || status == 204 || status == 304)
        return send_all(c->client, c->res.text, c->res.len);
    if (chunked && !length) { /* error bodies of some servers */
        size_t len;
        char *text = body_take_chunked(c, &len), lenline[64];
        if (!text)
            return -1;
        head_drop(&c->res, "Transfer-Encoding");
        int m = snprintf(lenline, sizeof(lenline), "Content-Length: %zu\r\n\r\n", len);
        int r = send_all(c->client, c->res.text, c->res.len - 2);
        if (r == 0)
            r = send_all(c->client, lenline, (size_t)m);
        if (r == 0)
            r = send_all(c->client, text, len);
        free(text);
        return r;
    }
    n = length ? strtoull(length, NULL, 10) : 0;
    atomic_fetch_add(&n_bytes, n);
    if (kind != NONE && kind != IGNORE_RANGE)
        return pass_faulty(c, kind, n);
    if (send(c->client, c->res.text, c->res.len, MSG_NOSIGNAL | (n ? MSG_MORE : 0)) !=
        (ssize_t)c->res.len)
        return -1;
    if (body_move(c, c->server, c->client, &c->res, n) < 0) {
        hard_reset(c->client);
        return -1;
    }
    const char *close_word = head_get(&c->res, "Connection");
    return close_word && strncasecmp(close_word, "close", 5) == 0 ? -1 : 0;
}

static void *conn_run(void *arg)
{
    struct conn *c = arg;
    if (pipe2(c->pipe, O_CLOEXEC) == 0) {
        fcntl(c->pipe[0], F_SETPIPE_SZ, 1 << 20);
        while (serve(c) == 0)
            ;
        close(c->pipe[0]);
        close(c->pipe[1]);
    }
    close(c->client);
    if (c->server >= 0)
        close(c->server);
    free(c);
    return NULL;
}

static void *accept_run(void *arg)
{
    int listener = *(int *)arg, one = 1;
    pthread_attr_t attr;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attr, 256 << 10);
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        atomic_fetch_add(&n_conns, 1);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        struct conn *c = calloc(1, sizeof(*c));
        pthread_t t;
        if (!c || (c->client = fd, c->server = -1, pthread_create(&t, &attr, conn_run, c) != 0)) {
            close(fd);
            free(c);
        }
    }
    return NULL;
}

static bool command_fault(const char *args)
{
    struct fault f = {0};
    char word[32];
    unsigned long long every, times;
    if (sscanf(args, "%31s %llu %llu %255[^\n]", word, &every, &times, f.match) != 4 || every == 0)
        return false;
    for (int k = 1; k < KINDS; k++) {
        if (strcmp(word, kind_words[k]) == 0)
            f.kind = (enum kind)k;
    }
    f.every = every;
    f.times = times;
    if (f.kind == NONE)
        return false;
    bool placed = false;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < FAULTS && !placed; i++) {
        if (faults[i].kind == NONE) {
            faults[i] = f;
            placed = true;
        }
    }
    pthread_mutex_unlock(&lock);
    return placed;
}

static bool command_swap(const char *args)
{
    struct swap s;
    if (sscanf(args, "%1023s %8191[^\n]", s.from, s.to) != 2)
        return false;
    pthread_mutex_lock(&lock);
    bool room = n_swaps < SWAPS;
    if (room)
        swaps[n_swaps++] = s;
    pthread_mutex_unlock(&lock);
    return room;
}

static bool command(char *line)
{
    unsigned long long v;
    if (sscanf(line, "delay %llu", &v) == 1) {
        atomic_store(&delay_ms, v);
    } else if (sscanf(line, "rate %llu", &v) == 1) {
        atomic_store(&rate, v);
    } else if (strncmp(line, "fault ", 6) == 0) {
        return command_fault(line + 6);
    } else if (strncmp(line, "swap ", 5) == 0) {
        return command_swap(line + 5);
    } else if (strcmp(line, "clear") == 0) {
        pthread_mutex_lock(&lock);
        memset(faults, 0, sizeof(faults));
        n_swaps = 0;
        pthread_mutex_unlock(&lock);
        atomic_store(&delay_ms, 0);
        atomic_store(&rate, 0);
    } else if (strcmp(line, "reset") == 0) {
        n_requests = n_gets = n_lists = n_heads = n_others = n_bytes = n_faults = n_conns = 0;
    } else {
        return false;
    }
    return true;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: faultproxy LISTEN-PORT UPSTREAM-PORT\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN); /* splice(2) has no MSG_NOSIGNAL */
    upstream_port = (uint16_t)atoi(argv[2]);
    int one = 1, listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_port = htons((uint16_t)atoi(argv[1])),
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(listener, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(listener, 1024) < 0) {
        perror("faultproxy: listen");
        return 1;
    }
    pthread_t t;
    if (pthread_create(&t, NULL, accept_run, &listener) != 0)
        return 1;
    puts("ready");
    fflush(stdout);
    char line[16384];
    while (fgets(line, sizeof(line), stdin)) {
        line[strcspn(line, "\n")] = '\0';
        if (strcmp(line, "stats") == 0)
            printf("{\"requests\":%llu,\"get\":%llu,\"list\":%llu,\"head\":%llu,\"other\":%llu,"
                   "\"bytes\":%llu,\"faults\":%llu,\"connections\":%llu}\n",
                   (unsigned long long)n_requests, (unsigned long long)n_gets,
                   (unsigned long long)n_lists, (unsigned long long)n_heads,
                   (unsigned long long)n_others, (unsigned long long)n_bytes,
                   (unsigned long long)n_faults, (unsigned long long)n_conns);
        else
            puts(command(line) ? "ok" : "what?");
        fflush(stdout);
    }
    return 0;
}
