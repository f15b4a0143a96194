/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reference client: what libcurl reaches without a file system in between.
 *
 *     rawget range [OPTION...] URL [FILE]        one object in parallel ranges, into FILE if given
 *     rawget list [OPTION...] URL KEYS [DIR]     the objects URL/KEY for each line of KEYS, each
 * into DIR/KEY if given (folders are made beforehand) rawget ls URL ListObjectsV2 of bucket URL,
 * one page after another -k N     keep-alive connections (8) -t N     threads that share them (1)
 *         -p MIB   size of a range (8)
 *         -w KIB   bytes gathered before they are written, for range; 0: as curl hands them out (0)
 *         -H       hash nothing (otherwise XXH3-128 of each range or object)
 *
 * It prints one object of JSON. It is meant to be hard to beat: connections and handles are reused,
 * curl is driven by epoll, nothing is copied that need not be. Each thread has a multi handle and
 * its share of the connections; the work is taken from one counter. Requests are signed when the
 * AWS variables are set, so that the server does the same work for it as for anybody else.
 */
#include "sign.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

struct work {
    const char *url;
    size_t path_at; /* where the path begins in url */
    char **keys;    /* list: what to get; NULL for range */
    size_t count;   /* keys, or ranges */
    uint64_t size;  /* range: of the object */
    uint64_t part;
    size_t gather;
    bool hash;
    int out;   /* range: the file, list: the folder, or -1 */
    int conns; /* of one thread */
    _Atomic size_t next;
    _Atomic uint64_t bytes;
    _Atomic uint64_t sum; /* of all hashes, whatever their order */
};

struct conn {
    struct thread *t;
    CURL *easy;
    struct curl_slist *headers;
    size_t item;
    uint64_t at, want; /* range: where the next byte goes, bytes still to come */
    char *buf;
    size_t len, cap;
    XXH3_state_t *xxh;
};

struct thread {
    struct work *work;
    struct sign sign;
    CURLM *multi;
    int epoll;
    long timeout_ms;
    int active;
    struct conn *conns;
    pthread_t id;
};

static void die(const char *what, const char *why)
{
    fprintf(stderr, "rawget: %s: %s\n", what, why);
    exit(1);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void write_all(int fd, const char *p, size_t n, uint64_t at)
{
    while (n) {
        ssize_t r = pwrite(fd, p, n, (off_t)at);
        if (r < 0)
            die("write", strerror(errno));
        p += r;
        n -= (size_t)r;
        at += (uint64_t)r;
    }
}

/* ---- bodies ---- */

static void conn_flush(struct conn *c)
{
    write_all(c->t->work->out, c->buf, c->len, c->at);
    c->at += c->len;
    c->len = 0;
}

static size_t on_range(char *p, size_t one, size_t n, void *arg)
{
    struct conn *c = arg;
    struct work *w = c->t->work;
    if (n > c->want)
        die(w->url, "more bytes than asked for");
    c->want -= n;
    if (w->hash)
        XXH3_128bits_update(c->xxh, p, n);
    if (w->out < 0)
        return n;
    if (!w->gather) {
        write_all(w->out, p, n, c->at);
        c->at += n;
        return n;
    }
    size_t left = n;
    while (left) {
        size_t k = w->gather - c->len < left ? w->gather - c->len : left;
        memcpy(c->buf + c->len, p, k);
        c->len += k;
        p += k;
        left -= k;
        if (c->len == w->gather)
            conn_flush(c);
    }
    return n;
}

static size_t on_object(char *p, size_t one, size_t n, void *arg)
{
    struct conn *c = arg;
    if (c->len + n > c->cap) {
        c->cap = (c->len + n) * 2;
        c->buf = realloc(c->buf, c->cap);
        if (!c->buf)
            die("memory", strerror(ENOMEM));
    }
    memcpy(c->buf + c->len, p, n);
    c->len += n;
    return n;
}

static void finish_object(struct conn *c)
{
    struct work *w = c->t->work;
    if (w->hash) {
        XXH128_hash_t h = XXH3_128bits(c->buf, c->len);
        atomic_fetch_add(&w->sum, h.low64);
    }
    if (w->out >= 0) {
        int fd = openat(w->out, w->keys[c->item], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
        if (fd < 0)
            die(w->keys[c->item], strerror(errno));
        write_all(fd, c->buf, c->len, 0);
        close(fd);
    }
    atomic_fetch_add(&w->bytes, c->len);
}

static void finish_range(struct conn *c)
{
    struct work *w = c->t->work;
    if (c->want)
        die(w->url, "fewer bytes than asked for");
    if (c->len)
        conn_flush(c);
    if (w->hash)
        atomic_fetch_add(&w->sum, XXH3_128bits_digest(c->xxh).low64);
    uint64_t at = c->item * w->part;
    atomic_fetch_add(&w->bytes, w->size - at < w->part ? w->size - at : w->part);
}

/* ---- requests ---- */

static void conn_headers(struct conn *c, const char *path, const char *query)
{
    curl_slist_free_all(c->headers);
    c->headers = sign_get(&c->t->sign, path, query);
    curl_easy_setopt(c->easy, CURLOPT_HTTPHEADER, c->headers);
}

/* Starts the next piece of work on an idle connection, if there is one. */
static void conn_next(struct conn *c)
{
    struct work *w = c->t->work;
    c->item = atomic_fetch_add(&w->next, 1);
    if (c->item >= w->count)
        return;
    c->len = 0;
    if (w->keys) {
        char url[4096];
        snprintf(url, sizeof(url), "%s/%s", w->url, w->keys[c->item]);
        curl_easy_setopt(c->easy, CURLOPT_URL, url);
        conn_headers(c, url + w->path_at, "");
    } else {
        char range[64];
        c->at = c->item * w->part;
        c->want = w->size - c->at < w->part ? w->size - c->at : w->part;
        snprintf(range, sizeof(range), "%llu-%llu", (unsigned long long)c->at,
                 (unsigned long long)(c->at + c->want - 1));
        curl_easy_setopt(c->easy, CURLOPT_RANGE, range);
        XXH3_128bits_reset(c->xxh);
        conn_headers(c, w->url + w->path_at, "");
    }
    curl_multi_add_handle(c->t->multi, c->easy);
    c->t->active++;
}

static void thread_reap(struct thread *t)
{
    CURLMsg *m;
    int left;
    while ((m = curl_multi_info_read(t->multi, &left))) {
        if (m->msg != CURLMSG_DONE)
            continue;
        struct conn *c;
        long status;
        char *url;
        CURL *easy = m->easy_handle;
        curl_easy_getinfo(easy, CURLINFO_PRIVATE, (char **)&c);
        curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
        curl_easy_getinfo(easy, CURLINFO_EFFECTIVE_URL, &url);
        if (m->data.result != CURLE_OK)
            die(url, curl_easy_strerror(m->data.result));
        if (status != 206 && (status != 200 || !t->work->keys))
            die(url, "the server refuses");
        curl_multi_remove_handle(t->multi, easy);
        t->active--;
        if (t->work->keys)
            finish_object(c);
        else
            finish_range(c);
        conn_next(c);
    }
}

/* ---- curl on epoll ---- */

static int on_socket(CURL *easy, curl_socket_t fd, int what, void *arg, void *known)
{
    struct thread *t = arg;
    if (what == CURL_POLL_REMOVE) {
        epoll_ctl(t->epoll, EPOLL_CTL_DEL, fd, NULL);
        return 0;
    }
    struct epoll_event e = {.data.fd = fd};
    if (what & CURL_POLL_IN)
        e.events |= EPOLLIN;
    if (what & CURL_POLL_OUT)
        e.events |= EPOLLOUT;
    epoll_ctl(t->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &e);
    curl_multi_assign(t->multi, fd, t);
    return 0;
}

static int on_timer(CURLM *multi, long ms, void *arg)
{
    ((struct thread *)arg)->timeout_ms = ms;
    return 0;
}

static CURL *new_easy(const char *url, curl_write_callback on_data, void *arg)
{
    CURL *e = curl_easy_init();
    if (!e)
        die("curl", "cannot make a handle");
    curl_easy_setopt(e, CURLOPT_URL, url);
    curl_easy_setopt(e, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(e, CURLOPT_WRITEDATA, arg);
    curl_easy_setopt(e, CURLOPT_PRIVATE, arg);
    curl_easy_setopt(e, CURLOPT_BUFFERSIZE, 512L << 10);
    curl_easy_setopt(e, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(e, CURLOPT_PROXY, "");
    curl_easy_setopt(e, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    return e;
}

static void *thread_run(void *arg)
{
    struct thread *t = arg;
    struct work *w = t->work;
    sign_init(&t->sign, w->url);
    t->epoll = epoll_create1(EPOLL_CLOEXEC);
    t->multi = curl_multi_init();
    t->conns = calloc((size_t)w->conns, sizeof(*t->conns));
    if (t->epoll < 0 || !t->multi || !t->conns)
        die("start", strerror(errno));
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETFUNCTION, on_socket);
    curl_multi_setopt(t->multi, CURLMOPT_SOCKETDATA, t);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERFUNCTION, on_timer);
    curl_multi_setopt(t->multi, CURLMOPT_TIMERDATA, t);
    curl_multi_setopt(t->multi, CURLMOPT_MAXCONNECTS, (long)w->conns);
    t->timeout_ms = -1;
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = &t->conns[i];
        c->t = t;
        c->easy = new_easy(w->url, w->keys ? on_object : on_range, c);
        c->xxh = XXH3_createState();
        if (w->gather && !w->keys)
            c->buf = malloc(w->gather);
        conn_next(c);
    }
    int running;
    while (t->active) {
        struct epoll_event ev[64];
        int n = epoll_wait(t->epoll, ev, 64, (int)t->timeout_ms);
        if (n == 0 || t->timeout_ms == 0) {
            t->timeout_ms = -1;
            curl_multi_socket_action(t->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        }
        for (int i = 0; i < n; i++) {
            int how = (ev[i].events & (EPOLLIN | EPOLLHUP) ? CURL_CSELECT_IN : 0) |
                      (ev[i].events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
                      (ev[i].events & EPOLLERR ? CURL_CSELECT_ERR : 0);
            curl_multi_socket_action(t->multi, ev[i].data.fd, how, &running);
        }
        thread_reap(t);
    }
    for (int i = 0; i < w->conns; i++) {
        struct conn *c = &t->conns[i];
        curl_easy_cleanup(c->easy);
        curl_slist_free_all(c->headers);
        XXH3_freeState(c->xxh);
        free(c->buf);
    }
    curl_multi_cleanup(t->multi);
    close(t->epoll);
    free(t->conns);
    return NULL;
}

/* ---- the three commands ---- */

static void report(double began, const struct work *w, size_t objects)
{
    double took = seconds() - began;
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"objects\": %zu, \"cpu_s\": %.4f, \"sum\": "
           "\"%016llx\"}\n",
           took, (unsigned long long)w->bytes, objects,
           (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
               (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6,
           (unsigned long long)w->sum);
}

static void run_threads(struct work *w, int threads, int conns)
{
    struct thread *t = calloc((size_t)threads, sizeof(*t));
    if (!t)
        die("memory", strerror(ENOMEM));
    w->conns = (conns + threads - 1) / threads;
    for (int i = 0; i < threads; i++) {
        t[i].work = w;
        if (pthread_create(&t[i].id, NULL, thread_run, &t[i]) != 0)
            die("thread", strerror(errno));
    }
    for (int i = 0; i < threads; i++)
        pthread_join(t[i].id, NULL);
    free(t);
}

static size_t on_nothing(char *p, size_t one, size_t n, void *arg)
{
    return n;
}

/* The object's size, from the Content-Range of its first byte. */
static size_t on_size(char *p, size_t one, size_t n, void *arg)
{
    char line[256];
    snprintf(line, sizeof(line), "%.*s", (int)n, p);
    const char *slash = strchr(line, '/');
    if (strncasecmp(line, "content-range:", 14) == 0 && slash)
        *(uint64_t *)arg = strtoull(slash + 1, NULL, 10);
    return n;
}

static uint64_t object_size(const struct work *w)
{
    struct sign s;
    uint64_t size = 0;
    CURL *e = new_easy(w->url, on_nothing, NULL);
    sign_init(&s, w->url);
    struct curl_slist *h = sign_get(&s, w->url + w->path_at, "");
    curl_easy_setopt(e, CURLOPT_HTTPHEADER, h);
    curl_easy_setopt(e, CURLOPT_RANGE, "0-0");
    curl_easy_setopt(e, CURLOPT_HEADERFUNCTION, on_size);
    curl_easy_setopt(e, CURLOPT_HEADERDATA, &size);
    CURLcode r = curl_easy_perform(e);
    curl_slist_free_all(h);
    curl_easy_cleanup(e);
    if (r != CURLE_OK || !size)
        die(w->url, r != CURLE_OK ? curl_easy_strerror(r) : "no such object");
    return size;
}

/* Reads the keys and makes the folders that they lie in. */
static void read_keys(struct work *w, const char *file)
{
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t cap = 0, room = 0;
    ssize_t n;
    char last[4096] = "";
    if (!f)
        die(file, strerror(errno));
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n')
            line[--n] = '\0';
        if (w->count == room) {
            room = room ? room * 2 : 1024;
            w->keys = realloc(w->keys, room * sizeof(*w->keys));
        }
        if (!w->keys || !(w->keys[w->count++] = strdup(line)))
            die("memory", strerror(ENOMEM));
        char *slash = strrchr(line, '/');
        if (slash && w->out >= 0) {
            *slash = '\0';
            if (strcmp(last, line) != 0 && mkdirat(w->out, line, 0755) < 0 && errno != EEXIST)
                die(line, strerror(errno));
            snprintf(last, sizeof(last), "%s", line);
        }
    }
    free(line);
    fclose(f);
}

static void encode(char *out, const char *s)
{
    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;
        if ((c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') ||
            strchr("-._~", c))
            *out++ = (char)c;
        else
            out += sprintf(out, "%%%02X", c);
    }
    *out = '\0';
}

static void run_ls(struct work *w, const char *folder)
{
    double began = seconds();
    struct conn c = {0};
    struct sign s;
    size_t keys = 0;
    char token[3072] = "", prefix[3072] = "", url[8192], query[7000];
    c.easy = new_easy(w->url, on_object, &c);
    sign_init(&s, w->url);
    if (folder && strlen(folder) < sizeof(prefix) / 3)
        encode(prefix, folder);
    do {
        c.len = 0;
        snprintf(query, sizeof(query), "%s%s%slist-type=2%s%s",
                 token[0] ? "continuation-token=" : "", token,
                 folder ? (token[0] ? "&delimiter=%2F&" : "delimiter=%2F&") : (token[0] ? "&" : ""),
                 folder ? "&prefix=" : "", prefix);
        snprintf(url, sizeof(url), "%s?%s", w->url, query);
        struct curl_slist *h = sign_get(&s, w->url + w->path_at, query);
        curl_easy_setopt(c.easy, CURLOPT_URL, url);
        curl_easy_setopt(c.easy, CURLOPT_HTTPHEADER, h);
        CURLcode r = curl_easy_perform(c.easy);
        curl_slist_free_all(h);
        long status = 0;
        curl_easy_getinfo(c.easy, CURLINFO_RESPONSE_CODE, &status);
        if (r != CURLE_OK || status != 200)
            die(url, r != CURLE_OK ? curl_easy_strerror(r) : "the server refuses");
        on_object("", 1, 1, &c);
        for (char *p = c.buf; (p = strstr(p, "<Key>")); p += 5)
            keys++;
        w->bytes += c.len - 1;
        token[0] = '\0';
        char *t = strstr(c.buf, "<NextContinuationToken>");
        if (t) {
            t += strlen("<NextContinuationToken>");
            t[strcspn(t, "<")] = '\0';
            if (strlen(t) >= sizeof(token) / 3)
                die("continuation token", "too long");
            encode(token, t);
        }
    } while (token[0]);
    curl_easy_cleanup(c.easy);
    free(c.buf);
    report(began, w, keys);
}

int main(int argc, char **argv)
{
    struct work w = {.part = 8 << 20, .hash = true, .out = -1};
    int conns = 8, threads = 1, opt;
    const char *command = argc > 1 ? argv[1] : "";
    optind = 2;
    while ((opt = getopt(argc, argv, "k:t:p:w:H")) != -1) {
        switch (opt) {
        case 'k':
            conns = atoi(optarg);
            break;
        case 't':
            threads = atoi(optarg);
            break;
        case 'p':
            w.part = strtoull(optarg, NULL, 10) << 20;
            break;
        case 'w':
            w.gather = strtoull(optarg, NULL, 10) << 10;
            break;
        case 'H':
            w.hash = false;
            break;
        default:
            return 2;
        }
    }
    char **arg = argv + optind;
    int n = argc - optind;
    if (n < 1 || conns < 1 || threads < 1 || !w.part)
        die("usage", "rawget range|list|ls [-k N] [-t N] [-p MIB] [-w KIB] [-H] URL ...");
    curl_global_init(CURL_GLOBAL_ALL);
    w.url = arg[0];
    const char *host = strstr(w.url, "://");
    if (!host || !strchr(host + 3, '/'))
        die(w.url, "not a URL with a path");
    w.path_at = (size_t)(strchr(host + 3, '/') - w.url);

    double began = seconds();
    if (strcmp(command, "range") == 0) {
        if (n > 1 && (w.out = open(arg[1], O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) < 0)
            die(arg[1], strerror(errno));
        w.size = object_size(&w);
        w.count = (size_t)((w.size + w.part - 1) / w.part);
    } else if (strcmp(command, "list") == 0 && n > 1) {
        if (n > 2 && (w.out = open(arg[2], O_DIRECTORY | O_CLOEXEC)) < 0)
            die(arg[2], strerror(errno));
        read_keys(&w, arg[1]);
        began = seconds();
    } else if (strcmp(command, "ls") == 0) {
        run_ls(&w, n > 1 ? arg[1] : NULL);
        return 0;
    } else {
        die("usage", "rawget range|list|ls ...");
    }
    run_threads(&w, threads, conns);
    report(began, &w, w.keys ? w.count : 1);
    return 0;
}
