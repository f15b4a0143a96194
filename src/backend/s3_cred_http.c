/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question over HTTP, asked on the loops of the net room and waited for here, so that it can be
 * ended early: an unmount does not wait for a service that does not answer.
 */
#include "backend/s3_cred_priv.h"
#include "backend/s3_text.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/eventfd.h>

#define ASK_PAUSE_NS (100 * ZC_NS_PER_MS) /* before the second attempt; doubles */
#define ASK_SKEW_NS (60 * ZC_NS_PER_S)    /* less is the answer's way and a clock's whole seconds */
#define TOKEN_FILE_MAX ((size_t)64 << 10)

/* ---- the context ---- */

struct s3_ctx *s3_ctx_new(const struct s3_chain_config *cfg)
{
    struct s3_ctx *x = calloc(1, sizeof(*x));
    pthread_condattr_t attr;
    if (!x)
        return NULL;
    atomic_store(&x->refs, 1);
    pthread_mutex_init(&x->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&x->cond, &attr);
    pthread_condattr_destroy(&attr);
    x->net = cfg->net;
    x->explicit = cfg->explicit;
    x->named = cfg->named || cfg->explicit;
    x->profile = strdup(cfg->profile);
    x->region = cfg->region ? strdup(cfg->region) : NULL;
    x->ca_bundle = cfg->ca_bundle ? strdup(cfg->ca_bundle) : NULL;
    x->tls.ca_bundle = x->ca_bundle;
    x->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (!x->profile || (cfg->region && !x->region) || (cfg->ca_bundle && !x->ca_bundle) ||
        x->stop_fd < 0) {
        s3_ctx_unref(x);
        return NULL;
    }
    return x;
}

void s3_ctx_unref(struct s3_ctx *x)
{
    if (atomic_fetch_sub(&x->refs, 1) != 1)
        return;
    if (x->stop_fd >= 0)
        close(x->stop_fd);
    pthread_cond_destroy(&x->cond);
    pthread_mutex_destroy(&x->lock);
    free(x->profile);
    free(x->region);
    free(x->ca_bundle);
    free(x);
}

void s3_ctx_stop(struct s3_ctx *x)
{
    const uint64_t one = 1;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    if (x->http)
        zc_net_cancel(x->net, x->http);
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
    if (write(x->stop_fd, &one, sizeof(one)) < 0)
        return; /* it is readable already */
}

/* ---- one attempt ---- */

struct ask_try {
    struct zc_http http;
    struct s3_ctx *x;
    struct zc_buf body;
    int64_t date_ns;
    bool ended;
    int err;
};

static void ask_header(struct zc_http *http, const char *line, size_t n)
{
    struct ask_try *t = zc_container_of(http, struct ask_try, http);
    if (n > 6 && strncasecmp(line, "Date: ", 6) == 0 &&
        s3_text_date(line + 6, n - 6, &t->date_ns) < 0)
        t->date_ns = 0;
}

static int ask_data(struct zc_http *http, const void *p, size_t n)
{
    struct ask_try *t = zc_container_of(http, struct ask_try, http);
    return zc_buf_add(&t->body, p, n) < 0 ? -EBADMSG : 0;
}

static void ask_done(struct zc_http *http, int err)
{
    struct ask_try *t = zc_container_of(http, struct ask_try, http);
    struct s3_ctx *x = t->x;
    pthread_mutex_lock(&x->lock);
    t->err = err;
    t->ended = true;
    x->http = NULL;
    pthread_cond_broadcast(&x->cond);
    pthread_mutex_unlock(&x->lock);
}

static int ask_once(struct s3_ctx *x, struct s3_ask *a)
{
    struct ask_try t = {
        .http = {.method = a->method,
                 .url = a->url,
                 .headers = a->headers,
                 .tls = &x->tls,
                 .body = a->body,
                 .body_len = a->body ? strlen(a->body) : 0,
                 .connect_timeout_ns = a->timeout_ns,
                 .stall_ns = a->timeout_ns,
                 .deadline_ns = zc_now_ns() + a->timeout_ns,
                 .direct = a->direct,
                 .header = ask_header,
                 .data = ask_data,
                 .done = ask_done},
        .x = x,
        .body.max = S3_ASK_MAX,
    };
    pthread_mutex_lock(&x->lock);
    int r = x->stop ? -ECANCELED : zc_net_start(x->net, &t.http);
    if (r == 0)
        x->http = &t.http;
    while (r == 0 && !t.ended)
        pthread_cond_wait(&x->cond, &x->lock);
    pthread_mutex_unlock(&x->lock);
    if (r == 0)
        r = t.err;
    snprintf(a->why, sizeof(a->why), "%s", t.http.why[0] ? t.http.why : strerror(-r));
    if (r == 0) {
        int64_t skew = t.date_ns ? t.date_ns - zc_wall_ns() : 0;
        s3_ask_free(a);
        a->status = t.http.status;
        a->skew_ns = skew > ASK_SKEW_NS || skew < -ASK_SKEW_NS ? skew : 0;
        a->len = t.body.len;
        a->text = t.body.len ? zc_buf_steal(&t.body) : strdup("");
        if (!a->text)
            r = -ENOMEM;
    }
    if (t.body.p)
        OPENSSL_cleanse(t.body.p, t.body.cap);
    zc_buf_free(&t.body);
    return r;
}

bool s3_pause(struct s3_ctx *x, int64_t ns)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    ns += until.tv_nsec;
    until.tv_sec += ns / ZC_NS_PER_S;
    until.tv_nsec = ns % ZC_NS_PER_S;
    pthread_mutex_lock(&x->lock);
    while (!x->stop && pthread_cond_timedwait(&x->cond, &x->lock, &until) != ETIMEDOUT)
        ;
    bool on = !x->stop;
    pthread_mutex_unlock(&x->lock);
    return on;
}

int s3_ask(struct s3_ctx *x, struct s3_ask *a)
{
    int64_t pause = ASK_PAUSE_NS;
    for (unsigned i = 1;; i++, pause *= 2) {
        int r = ask_once(x, a);
        bool again = r < 0 ? r != -ECANCELED && r != -ESHUTDOWN && r != -EPROTO && r != -EBADMSG
                           : s3_ask_later(a);
        if (!again || i >= a->attempts)
            return r;
        if (!s3_pause(x, pause / 2 + s3_jitter(pause)))
            return -ECANCELED;
    }
}

void s3_ask_free(struct s3_ask *a)
{
    if (a->text)
        OPENSSL_cleanse(a->text, a->len);
    free(zc_steal_ptr(&a->text));
}

int s3_ask_words(const struct s3_ask *a, int r, const char *name, struct zc_error *why)
{
    if (r == -ECANCELED || r == -ESHUTDOWN)
        return zc_error_set(why, -ECANCELED, "cancelled");
    return zc_error_set(why, -EAGAIN, "%s at %.200s does not answer (%s)", name, a->url, a->why);
}

/* ---- addresses ---- */

char *s3_url_join(const char *base, const char *path)
{
    char *url;
    size_t n = strlen(base);
    while (n && base[n - 1] == '/')
        n--;
    return asprintf(&url, "%.*s%s%s", (int)n, base, path[0] == '/' ? "" : "/", path) < 0 ? NULL
                                                                                         : url;
}

int s3_url_parts(const char *url, bool *tls, char *host, size_t n)
{
    *tls = strncasecmp(url, "https://", 8) == 0;
    if (!*tls && strncasecmp(url, "http://", 7) != 0)
        return -EINVAL;
    const char *h = url + (*tls ? 8 : 7), *end;
    if (strchr(h, '\\') || memchr(h, '@', strcspn(h, "/?#")))
        return -EINVAL; /* readers of URLs do not agree on where that leads */
    for (const char *c = url; *c; c++)
        if ((unsigned char)*c <= 0x20 || *c == 0x7f)
            return -EINVAL;
    if (*h == '[') {
        end = strchr(++h, ']');
        if (!end || (end[1] && !strchr(":/?#", end[1])) ||
            strspn(h, "0123456789abcdefABCDEF:.") != (size_t)(end - h))
            return -EINVAL;
    } else {
        end = h + strcspn(h, ":/?#");
    }
    size_t len = (size_t)(end - h);
    if (len == 0 || len >= n)
        return -EINVAL;
    memcpy(host, h, len);
    host[len] = '\0';
    return 0;
}

bool s3_container_url_ok(const char *url)
{
    static const char *const known[] = {"169.254.170.2", "169.254.170.23", "fd00:ec2::23", "::1"};
    char host[256];
    bool tls;
    struct in_addr v4;
    struct in6_addr v6, k6;
    if (s3_url_parts(url, &tls, host, sizeof(host)) < 0)
        return false;
    if (tls || strcasecmp(host, "localhost") == 0)
        return true;
    if (inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127)
        return true;
    bool is6 = inet_pton(AF_INET6, host, &v6) == 1;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(known); i++)
        if (strcmp(host, known[i]) == 0 ||
            (is6 && inet_pton(AF_INET6, known[i], &k6) == 1 && memcmp(&v6, &k6, sizeof(v6)) == 0))
            return true;
    return false;
}

char *s3_service_url(const struct s3_profile *p, const char *env, enum s3_setting setting,
                     const char *fallback)
{
    const char *ignore = getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    const char *places[] = {getenv(env), getenv("AWS_ENDPOINT_URL"), p ? p->v[setting] : NULL,
                            p ? p->v[S3_SET_ENDPOINT] : NULL};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(places) && !(ignore && strcasecmp(ignore, "true") == 0);
         i++)
        if (places[i] && places[i][0])
            return strdup(places[i]);
    return strdup(fallback);
}

/* ---- tokens ---- */

bool s3_token_ok(const char *s, size_t max)
{
    size_t n = strnlen(s, max + 1);
    if (n == 0 || n > max)
        return false;
    for (; *s; s++)
        if (*s <= 0x20 || *s >= 0x7f)
            return false;
    return true;
}

int s3_token_file(const char *path, const char *what, char **out, struct zc_error *why)
{
    char *text = malloc(TOKEN_FILE_MAX + 1);
    size_t n = 0;
    ssize_t got = -1;
    if (!text)
        return zc_error_set(why, -ENOMEM, "out of memory");
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && n < TOKEN_FILE_MAX) {
        got = read(fd, text + n, TOKEN_FILE_MAX - n);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    int r = fd < 0 || got < 0 ? zc_error_set(why, -EACCES, "%s %.300s cannot be read: %s", what,
                                             path, strerror(errno))
                              : 0;
    while (n && (text[n - 1] == '\n' || text[n - 1] == '\r' || text[n - 1] == ' '))
        n--;
    text[n] = '\0';
    if (r == 0 && (strlen(text) != n || !s3_token_ok(text, TOKEN_FILE_MAX - 1)))
        r = zc_error_set(why, -EACCES, "%s %.300s %s", what, path,
                         n ? "does not hold one line of text" : "is empty");
    if (r < 0) {
        OPENSSL_cleanse(text, n);
        free(text);
        return r;
    }
    *out = text;
    return 0;
}
