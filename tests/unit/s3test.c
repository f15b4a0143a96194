/* SPDX-License-Identifier: Apache-2.0 */
#include "s3test.h"

#include "base/log.h"
#include "unit.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- the server's side ---- */

static bool serve(void *user, int fd, const struct ht_request *req)
{
    struct s3t_fixture *f = user;
    pthread_mutex_lock(&f->lock);
    memcpy(f->last, req->head, strlen(req->head) + 1);
    pthread_mutex_unlock(&f->lock);
    f->asked++;
    return f->script(f, fd, req);
}

bool s3t_refuse(int fd, int status, const char *headers, const char *code, const char *more)
{
    char body[1000];
    int n = snprintf(
        body, sizeof(body),
        "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>because</Message>%s</Error>", code,
        more ? more : "");
    return ht_reply(fd, status, headers, body, (size_t)n);
}

bool s3t_empty_list(int fd)
{
    static const char body[] =
        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    return ht_reply(fd, 200, NULL, body, strlen(body));
}

bool s3t_has(const struct ht_request *req, const char *text)
{
    return strstr(req->target, text) != NULL;
}

static void s3t_range(const struct ht_request *req, uint64_t *first, uint64_t *last)
{
    char v[1024];
    unsigned long long a = 0, b = 0;
    const char *range = ht_header(req, "Range", v);
    assert_non_null(range);
    assert_int_equal(sscanf(range, "bytes=%llu-%llu", &a, &b), 2);
    *first = a;
    *last = b;
}

bool s3t_send_range(int fd, const struct ht_request *req, const char *headers, uint64_t total)
{
    uint64_t a, b;
    char h[500];
    s3t_range(req, &a, &b);
    zc_autofree unsigned char *body = malloc(b - a + 1);
    ht_fill(body, a, b - a + 1);
    snprintf(h, sizeof(h), "%sContent-Range: bytes %llu-%llu/%llu\r\n", headers,
             (unsigned long long)a, (unsigned long long)b, (unsigned long long)total);
    return ht_reply(fd, 206, h, body, b - a + 1);
}

/* ---- our side ---- */

void s3t_wait_init(struct s3t_wait *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
}

static void wait_end(struct s3t_wait *w, int err)
{
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->ended = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int s3t_wait_for(struct s3t_wait *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->ended)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->err;
}

struct s3t_get_call {
    struct zc_get_req req;
    struct s3t_wait w;
    uint64_t got, wrong;
    int stop_with;
};

static int on_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct s3t_get_call *g = zc_container_of(req, struct s3t_get_call, req);
    for (size_t i = 0; i < n; i++)
        g->wrong += ((const unsigned char *)p)[i] != ht_byte(req->off + g->got + i);
    g->got += n;
    return g->stop_with;
}

static void on_get(struct zc_get_req *req, int err)
{
    wait_end(&zc_container_of(req, struct s3t_get_call, req)->w, err);
}

int s3t_get_stopping(struct s3t_fixture *f, const char *path, const char *version, uint64_t off,
                     uint64_t len, int stop_with, char *words, uint64_t *got)
{
    struct s3t_get_call g = {.req = {.path = path,
                                     .version = version,
                                     .off = off,
                                     .len = len,
                                     .data = on_data,
                                     .done = on_get},
                             .stop_with = stop_with};
    s3t_wait_init(&g.w);
    zc_backend_get(f->be, &g.req);
    int r = s3t_wait_for(&g.w);
    assert_int_equal(g.wrong, 0);
    assert_true(g.got <= len);
    assert_null(g.req.base.priv[0]);
    if (r == 0)
        assert_int_equal(g.got, len);
    if (words)
        snprintf(words, 1000, "%s", g.req.base.err.text);
    if (got)
        *got = g.got;
    return r;
}

int s3t_get(struct s3t_fixture *f, const char *version, uint64_t off, uint64_t len, char *words)
{
    return s3t_get_stopping(f, "a/b", version, off, len, 0, words, NULL);
}

void s3t_on_stat(struct zc_stat_req *req, int err, const struct zc_attr *a)
{
    struct s3t_stat_call *s = zc_container_of(req, struct s3t_stat_call, req);
    if (a) {
        s->kind = a->kind;
        s->size = a->size;
        s->mtime_ns = a->mtime_ns;
        strcpy(s->version, a->version);
    }
    wait_end(&s->w, err);
}

int s3t_stat(struct s3t_fixture *f, const char *path, struct s3t_stat_call *s)
{
    *s = (struct s3t_stat_call){.req = {.path = path, .done = s3t_on_stat}};
    s3t_wait_init(&s->w);
    zc_backend_stat(f->be, &s->req);
    return s3t_wait_for(&s->w);
}

static void on_list(struct zc_list_req *req, int err, const struct zc_entry *e, size_t n,
                    const char *next, unsigned skipped)
{
    struct s3t_list_call *l = zc_container_of(req, struct s3t_list_call, req);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(l->text + at, sizeof(l->text) - at, "%s%s %llu %s\n", e[i].name,
                               e[i].attr.kind == ZC_KIND_DIR ? "/" : "",
                               (unsigned long long)e[i].attr.size, e[i].attr.version);
    snprintf(l->token, sizeof(l->token), "%s", next ? next : "");
    l->skipped = skipped;
    wait_end(&l->w, err);
}

int s3t_list(struct s3t_fixture *f, const char *path, const char *token, struct s3t_list_call *l)
{
    *l = (struct s3t_list_call){.req = {.path = path, .token = token, .done = on_list}};
    s3t_wait_init(&l->w);
    zc_backend_list(f->be, &l->req);
    return s3t_wait_for(&l->w);
}

/* ---- fixtures ---- */

void s3t_connect(struct s3t_fixture *f, struct zc_s3_config cfg)
{
    struct zc_error err = {0};
    if (!cfg.bucket)
        cfg.bucket = "bucket";
    if (!cfg.prefix)
        cfg.prefix = "";
    if (!cfg.endpoint_url)
        cfg.endpoint_url = f->url;
    int r = zc_s3_new(f->net, &cfg, &f->be, &err);
    if (r < 0)
        print_message("%s\n", err.text);
    assert_int_equal(r, 0);
}

int s3t_setup_bare(void **state)
{
    static const char *const vars[] = {
        "AWS_PROFILE",         "AWS_REGION",    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN",  "AWS_MAX_ATTEMPTS",
        "AWS_ACCESS_KEY_ID",   "http_proxy"};
    struct s3t_fixture *f = calloc(1, sizeof(*f));
    struct zc_net_config net = {.loops = 2};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(vars); i++)
        unsetenv(vars[i]);
    setenv("AWS_CONFIG_FILE", "/nonexistent", 1);
    pthread_mutex_init(&f->lock, NULL);
    strcpy(f->credentials, "/tmp/zcache-s3-XXXXXX");
    int fd = mkstemp(f->credentials);
    if (fd < 0)
        return -1;
    close(fd);
    setenv("AWS_SHARED_CREDENTIALS_FILE", f->credentials, 1);
    setenv("AWS_ACCESS_KEY_ID", "AKIDTEST", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "secret", 1);
    f->server = ht_start(serve, f);
    snprintf(f->url, sizeof(f->url), "http://127.0.0.1:%u", ht_port(f->server));
    zc_log_set_level(ZC_LOG_ERR);
    *state = f;
    return zc_net_new(&net, &f->net);
}

int s3t_setup(void **state)
{
    int r = s3t_setup_bare(state);
    if (r == 0)
        s3t_connect(*state, (struct zc_s3_config){.prefix = "pre/fix"});
    return r;
}

int s3t_teardown(void **state)
{
    struct s3t_fixture *f = *state;
    if (f->be)
        zc_backend_free(f->be);
    zc_net_free(f->net);
    ht_stop(f->server);
    unlink(f->credentials);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}
