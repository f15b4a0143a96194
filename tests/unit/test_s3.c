/* SPDX-License-Identifier: Apache-2.0 */
/* The S3 source against a scripted server: what it asks, and what it makes of strange answers. */
#include "backend/s3.h"
#include "backend/s3_priv.h"
#include "base/buf.h"
#include "base/log.h"
#include "net/net.h"

#include "httptest.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct fixture;
typedef bool script(struct fixture *, int fd, const struct ht_request *);

struct fixture {
    struct ht_server *server;
    struct zc_net *net;
    struct zc_backend *be;
    script *script;
    char url[64], credentials[64];
    pthread_mutex_t lock;
    char last[20000]; /* head of the last request */
    _Atomic unsigned asked;
    int step;
};

/* ---- the server's side ---- */

static bool serve(void *user, int fd, const struct ht_request *req)
{
    struct fixture *f = user;
    pthread_mutex_lock(&f->lock);
    memcpy(f->last, req->head, strlen(req->head) + 1);
    pthread_mutex_unlock(&f->lock);
    f->asked++;
    return f->script(f, fd, req);
}

static bool refuse(int fd, int status, const char *headers, const char *code, const char *more)
{
    char body[1000];
    int n = snprintf(
        body, sizeof(body),
        "<?xml version=\"1.0\"?><Error><Code>%s</Code><Message>because</Message>%s</Error>", code,
        more ? more : "");
    return ht_reply(fd, status, headers, body, (size_t)n);
}

static bool empty_list(int fd)
{
    static const char body[] =
        "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>";
    return ht_reply(fd, 200, NULL, body, strlen(body));
}

static bool has(const struct ht_request *req, const char *text)
{
    return strstr(req->target, text) != NULL;
}

static void range_of(const struct ht_request *req, uint64_t *first, uint64_t *last)
{
    char v[1024];
    unsigned long long a = 0, b = 0;
    const char *range = ht_header(req, "Range", v);
    assert_non_null(range);
    assert_int_equal(sscanf(range, "bytes=%llu-%llu", &a, &b), 2);
    *first = a;
    *last = b;
}

/* The range, out of an object of `total` bytes of the pattern. */
static bool send_range(int fd, const struct ht_request *req, const char *headers, uint64_t total)
{
    uint64_t a, b;
    char h[500];
    range_of(req, &a, &b);
    zc_autofree unsigned char *body = malloc(b - a + 1);
    ht_fill(body, a, b - a + 1);
    snprintf(h, sizeof(h), "%sContent-Range: bytes %llu-%llu/%llu\r\n", headers,
             (unsigned long long)a, (unsigned long long)b, (unsigned long long)total);
    return ht_reply(fd, 206, h, body, b - a + 1);
}

/* ---- our side ---- */

struct wait {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended;
    int err;
};

static void wait_init(struct wait *w)
{
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->cond, NULL);
}

static void wait_end(struct wait *w, int err)
{
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->ended = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static int wait_for(struct wait *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->ended)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    return w->err;
}

struct get {
    struct zc_get_req req;
    struct wait w;
    uint64_t got, wrong;
    int stop_with;
};

static int on_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct get *g = zc_container_of(req, struct get, req);
    for (size_t i = 0; i < n; i++)
        g->wrong += ((const unsigned char *)p)[i] != ht_byte(req->off + g->got + i);
    g->got += n;
    return g->stop_with;
}

static void on_get(struct zc_get_req *req, int err)
{
    wait_end(&zc_container_of(req, struct get, req)->w, err);
}

static int get_stopping(struct fixture *f, const char *path, const char *version, uint64_t off,
                        uint64_t len, int stop_with, char *words, uint64_t *got)
{
    struct get g = {.req = {.path = path,
                            .version = version,
                            .off = off,
                            .len = len,
                            .data = on_data,
                            .done = on_get},
                    .stop_with = stop_with};
    wait_init(&g.w);
    zc_backend_get(f->be, &g.req);
    int r = wait_for(&g.w);
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

static int get(struct fixture *f, const char *version, uint64_t off, uint64_t len, char *words)
{
    return get_stopping(f, "a/b", version, off, len, 0, words, NULL);
}

struct stat_call {
    struct zc_stat_req req;
    struct wait w;
    enum zc_kind kind;
    uint64_t size;
    int64_t mtime_ns;
    char version[ZC_VERSION_MAX + 1];
};

static void on_stat(struct zc_stat_req *req, int err, const struct zc_attr *a)
{
    struct stat_call *s = zc_container_of(req, struct stat_call, req);
    if (a) {
        s->kind = a->kind;
        s->size = a->size;
        s->mtime_ns = a->mtime_ns;
        strcpy(s->version, a->version);
    }
    wait_end(&s->w, err);
}

static int stat_of(struct fixture *f, const char *path, struct stat_call *s)
{
    *s = (struct stat_call){.req = {.path = path, .done = on_stat}};
    wait_init(&s->w);
    zc_backend_stat(f->be, &s->req);
    return wait_for(&s->w);
}

struct list_call {
    struct zc_list_req req;
    struct wait w;
    char text[2000]; /* a line an entry */
    char token[200];
    unsigned skipped;
};

static void on_list(struct zc_list_req *req, int err, const struct zc_entry *e, size_t n,
                    const char *next, unsigned skipped)
{
    struct list_call *l = zc_container_of(req, struct list_call, req);
    size_t at = 0;
    for (size_t i = 0; i < n; i++)
        at += (size_t)snprintf(l->text + at, sizeof(l->text) - at, "%s%s %llu %s\n", e[i].name,
                               e[i].attr.kind == ZC_KIND_DIR ? "/" : "",
                               (unsigned long long)e[i].attr.size, e[i].attr.version);
    snprintf(l->token, sizeof(l->token), "%s", next ? next : "");
    l->skipped = skipped;
    wait_end(&l->w, err);
}

static int list_of(struct fixture *f, const char *path, const char *token, struct list_call *l)
{
    *l = (struct list_call){.req = {.path = path, .token = token, .done = on_list}};
    wait_init(&l->w);
    zc_backend_list(f->be, &l->req);
    return wait_for(&l->w);
}

/* ---- fixtures ---- */

static void connect_with(struct fixture *f, struct zc_s3_config cfg)
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

static int setup_bare(void **state)
{
    static const char *const vars[] = {
        "AWS_PROFILE",         "AWS_REGION",    "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_S3", "AWS_CA_BUNDLE", "AWS_SESSION_TOKEN",  "AWS_MAX_ATTEMPTS",
        "AWS_ACCESS_KEY_ID",   "http_proxy"};
    struct fixture *f = calloc(1, sizeof(*f));
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

static int setup(void **state)
{
    int r = setup_bare(state);
    if (r == 0)
        connect_with(*state, (struct zc_s3_config){.prefix = "pre/fix"});
    return r;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->be)
        zc_backend_free(f->be);
    zc_net_free(f->net);
    ht_stop(f->server);
    unlink(f->credentials);
    pthread_mutex_destroy(&f->lock);
    free(f);
    return 0;
}

/* ---- requests ---- */

static bool script_object(struct fixture *f, int fd, const struct ht_request *req)
{
    return send_range(fd, req, "ETag: \"e1\"\r\n", 1000000);
}

static void a_get_is_signed_and_pinned(void **state)
{
    struct fixture *f = *state;
    f->script = script_object;
    assert_int_equal(get(f, "e\"e1\"", 100, 5000, NULL), 0);
    assert_non_null(strstr(f->last, "GET /bucket/pre/fix/a/b HTTP/1.1\r\n"));
    assert_non_null(strstr(f->last, "\r\nRange: bytes=100-5099\r\n"));
    assert_non_null(strstr(f->last, "\r\nIf-Match: \"e1\"\r\n"));
    assert_non_null(strstr(f->last, "\r\nAuthorization: AWS4-HMAC-SHA256 Credential=AKIDTEST/"));
    assert_non_null(strstr(
        f->last, "/us-east-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date,"));
    assert_non_null(strstr(f->last, "\r\nx-amz-content-sha256: e3b0c44298fc1c14"));
    assert_null(strstr(f->last, "Accept-Encoding"));
    assert_int_equal(f->be->stats->gets, 1);
    assert_int_equal(f->be->stats->bytes, 5000);
    assert_int_equal(f->be->stats->in_flight, 0);
    assert_string_equal(f->be->url, "s3://bucket/pre/fix");
}

static void keys_are_encoded_once(void **state)
{
    struct fixture *f = *state;
    f->script = script_object;
    assert_int_equal(get_stopping(f, "a b+c%25/\xc3\x9f?#&=~", "e\"e1\"", 0, 5, 0, NULL, NULL), 0);
    assert_non_null(
        strstr(f->last, "GET /bucket/pre/fix/a%20b%2Bc%2525/%C3%9F%3F%23%26%3D~ HTTP/1.1\r\n"));
}

static void options_become_headers(void **state)
{
    struct fixture *f = *state;
    setenv("AWS_SESSION_TOKEN", "the/token", 1);
    connect_with(f, (struct zc_s3_config){.requester_pays = true,
                                          .expected_bucket_owner = "123",
                                          .region = "eu-x-1"});
    f->script = script_object;
    assert_int_equal(get(f, "e\"e1\"", 0, 5, NULL), 0);
    assert_non_null(strstr(f->last, "GET /bucket/a/b HTTP/1.1\r\n"));
    assert_non_null(strstr(f->last, "\r\nx-amz-request-payer: requester\r\n"));
    assert_non_null(strstr(f->last, "\r\nx-amz-expected-bucket-owner: 123\r\n"));
    assert_non_null(strstr(f->last, "\r\nx-amz-security-token: the/token\r\n"));
    assert_non_null(strstr(
        f->last, "/eu-x-1/s3/aws4_request,SignedHeaders=host;x-amz-content-sha256;x-amz-date;"
                 "x-amz-expected-bucket-owner;x-amz-request-payer;x-amz-security-token,"));
}

static void anonymous_signs_nothing(void **state)
{
    struct fixture *f = *state;
    unsetenv("AWS_ACCESS_KEY_ID");
    connect_with(f, (struct zc_s3_config){.no_sign_request = true});
    f->script = script_object;
    assert_int_equal(get(f, "e\"e1\"", 0, 5, NULL), 0);
    assert_null(strstr(f->last, "Authorization"));
    assert_null(strstr(f->last, "x-amz-"));
}

static void configuration_is_checked(void **state)
{
    static const struct {
        struct zc_s3_config cfg;
        const char *env, *value, *words;
    } bad[] = {
        {{.endpoint_url = "ftp://x"}, NULL, NULL, "not a URL"},
        {{.endpoint_url = "http://"}, NULL, NULL, "not a URL"},
        {{.endpoint_url = "http://x?y"}, NULL, NULL, "scheme, host and port"},
        {{.endpoint_url = "http://u:p@x"}, NULL, NULL, "scheme, host and port"},
        {{.region = "eu west"}, NULL, NULL, "region"},
        {{.ca_bundle = "/nonexistent/ca.pem"}, NULL, NULL, "/nonexistent/ca.pem"},
        {{.profile = "nobody"}, NULL, NULL, "no profile 'nobody'"},
        {{0}, "AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        struct zc_s3_config cfg = bad[i].cfg;
        struct zc_error err = {0};
        struct zc_backend *be;
        cfg.bucket = "bucket";
        cfg.prefix = "";
        if (bad[i].env)
            setenv(bad[i].env, bad[i].value, 1);
        assert_true(zc_s3_new(f->net, &cfg, &be, &err) < 0);
        assert_non_null(strstr(err.text, bad[i].words));
        if (bad[i].env)
            unsetenv(bad[i].env);
    }
    setenv("AWS_MAX_ATTEMPTS", "7", 1);
    connect_with(f, (struct zc_s3_config){0});
    assert_int_equal(zc_s3_max_attempts(f->be), 7);
}

static void places(void **state)
{
    static const struct {
        const char *bucket, *endpoint, *region;
        bool path_style;
        const char *base, *host;
    } cases[] = {
        {"bkt", NULL, NULL, false, "https://bkt.s3.us-east-1.amazonaws.com",
         "bkt.s3.us-east-1.amazonaws.com"},
        {"bkt", NULL, "eu-west-1", false, "https://bkt.s3.eu-west-1.amazonaws.com",
         "bkt.s3.eu-west-1.amazonaws.com"},
        {"bkt", NULL, "cn-north-1", false, "https://bkt.s3.cn-north-1.amazonaws.com.cn",
         "bkt.s3.cn-north-1.amazonaws.com.cn"},
        {"bkt", NULL, NULL, true, "https://s3.us-east-1.amazonaws.com/bkt",
         "s3.us-east-1.amazonaws.com"},
        /* A wildcard certificate covers one label; upper case and '_' are no host name's. */
        {"b.kt", NULL, NULL, false, "https://s3.us-east-1.amazonaws.com/b.kt",
         "s3.us-east-1.amazonaws.com"},
        {"Bkt", NULL, NULL, false, "https://s3.us-east-1.amazonaws.com/Bkt",
         "s3.us-east-1.amazonaws.com"},
        {"b_kt", NULL, NULL, false, "https://s3.us-east-1.amazonaws.com/b_kt",
         "s3.us-east-1.amazonaws.com"},
        {"b.kt", "http://s3.example.org", NULL, false, "http://b.kt.s3.example.org",
         "b.kt.s3.example.org"},
        {"bkt", "https://s3.example.org:8443/", NULL, false, "https://bkt.s3.example.org:8443",
         "bkt.s3.example.org:8443"},
        /* The scheme's own port is no part of a Host header. */
        {"bkt", "https://s3.example.org:443", NULL, false, "https://bkt.s3.example.org",
         "bkt.s3.example.org"},
        {"bkt", "http://s3.example.org:80", NULL, true, "http://s3.example.org/bkt",
         "s3.example.org"},
        {"bkt", "https://s3.example.org/store//", NULL, true, "https://s3.example.org/store/bkt",
         "s3.example.org"},
        /* Addresses and bare names have no buckets below them. */
        {"bkt", "http://localhost:9000", NULL, false, "http://localhost:9000/bkt",
         "localhost:9000"},
        {"bkt", "http://minio:9000", NULL, false, "http://minio:9000/bkt", "minio:9000"},
        {"bkt", "http://10.0.0.1:9000", NULL, false, "http://10.0.0.1:9000/bkt", "10.0.0.1:9000"},
        {"bkt", "http://[::1]:9000", NULL, false, "http://[::1]:9000/bkt", "[::1]:9000"},
    };
    struct fixture *f = *state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_s3_config cfg = {.bucket = cases[i].bucket,
                                   .prefix = "",
                                   .endpoint_url = cases[i].endpoint,
                                   .region = cases[i].region,
                                   .force_path_style = cases[i].path_style};
        struct zc_backend *be;
        assert_int_equal(zc_s3_new(f->net, &cfg, &be, NULL), 0);
        const struct s3_place *p = atomic_load(&zc_container_of(be, struct s3, be)->place);
        assert_string_equal(p->base, cases[i].base);
        assert_string_equal(p->host, cases[i].host);
        zc_backend_free(be);
    }
    /* From the environment, unless told to ignore it. */
    struct zc_s3_config cfg = {.bucket = "bkt", .prefix = ""};
    struct zc_backend *be;
    setenv("AWS_ENDPOINT_URL", "http://all:1", 1);
    setenv("AWS_ENDPOINT_URL_S3", "http://s3:1", 1);
    setenv("AWS_DEFAULT_REGION", "r-2", 1);
    assert_int_equal(zc_s3_new(f->net, &cfg, &be, NULL), 0);
    const struct s3_place *p = atomic_load(&zc_container_of(be, struct s3, be)->place);
    assert_string_equal(p->base, "http://s3:1/bkt");
    assert_string_equal(p->region, "r-2");
    zc_backend_free(be);
    setenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "true", 1);
    assert_int_equal(zc_s3_new(f->net, &cfg, &be, NULL), 0);
    p = atomic_load(&zc_container_of(be, struct s3, be)->place);
    assert_string_equal(p->base, "https://bkt.s3.r-2.amazonaws.com");
    zc_backend_free(be);
    unsetenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
}

/* ---- answers to a get ---- */

static bool script_answers(struct fixture *f, int fd, const struct ht_request *req)
{
    unsigned char body[200];
    ht_fill(body, 0, sizeof(body));
    switch (f->step) {
    case 0: /* the whole object instead of its start */
        return ht_reply(fd, 200, "ETag: \"e1\"\r\n", body, 200);
    case 1: /* another version, though the condition was sent */
        return send_range(fd, req, "ETag: \"e2\"\r\n", 1000);
    case 2:
        return refuse(fd, 412, NULL, "PreconditionFailed", NULL);
    case 3:
        return refuse(fd, 404, NULL, "NoSuchKey", NULL);
    case 4: /* another range */
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: bytes 1-100/1000\r\n", body, 100);
    case 5: /* a part of the range */
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: bytes 0-49/1000\r\n", body, 50);
    case 6:
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: rubbish\r\n", body, 100);
    case 7:
        return ht_reply(fd, 206, "Content-Range: bytes 0-99/1000\r\n", body, 100);
    case 8: /* headers promise what the body does not hold */
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: bytes 0-99/1000\r\n", body, 60);
    case 9: { /* connection lost in the body */
        static const char head[] = "HTTP/1.1 206 P\r\nETag: \"e1\"\r\nContent-Length: 100\r\n"
                                   "Content-Range: bytes 0-99/1000\r\n\r\n";
        return ht_write(fd, head, strlen(head)) && ht_write(fd, body, 60) && false;
    }
    case 10: /* the object is shorter than the range */
        return ht_reply(fd, 200, "ETag: \"e1\"\r\n", body, 50);
    case 11:
        return refuse(fd, 403, NULL, "InvalidObjectState", NULL);
    case 12:
        return refuse(fd, 503, NULL, "SlowDown", NULL);
    case 13:
        return refuse(fd, 416, NULL, "InvalidRange", NULL);
    case 14:
        return ht_reply(fd, 204, "ETag: \"e1\"\r\n", NULL, 0);
    case 15: /* a body nobody asked to be cut */
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: bytes 0-99/1000\r\n", body, 150);
    default:
        return refuse(fd, 500, NULL, "InternalError", NULL);
    }
}

static void odd_answers_are_seen(void **state)
{
    static const int expected[] = {0,        -ESTALE,  -ESTALE,     -ESTALE,     -EBADMSG, -EBADMSG,
                                   -EBADMSG, -EBADMSG, -ECONNRESET, -ECONNRESET, -EBADMSG, -EACCES,
                                   -EAGAIN,  -ESTALE,  -EBADMSG,    0,           -EAGAIN};
    struct fixture *f = *state;
    f->script = script_answers;
    for (f->step = 0; f->step < (int)ZC_ARRAY_SIZE(expected); f->step++) {
        char words[1000];
        int r = get(f, "e\"e1\"", 0, 100, words);
        if (r != expected[f->step])
            print_message("step %d: %d %s\n", f->step, r, words);
        assert_int_equal(r, expected[f->step]);
        assert_int_equal(r == 0, words[0] == '\0');
    }
    /* The whole object is no answer to a range that starts later. */
    f->step = 0;
    assert_int_equal(get(f, "e\"e1\"", 10, 100, NULL), -EBADMSG);
}

static void the_callers_error_stops_it(void **state)
{
    struct fixture *f = *state;
    uint64_t got;
    f->script = script_object;
    assert_int_equal(get_stopping(f, "a/b", "e\"e1\"", 0, 500000, -ENOSPC, NULL, &got), -ENOSPC);
    assert_true(got < 500000);
}

static bool script_no_etag(struct fixture *f, int fd, const struct ht_request *req)
{
    char v[1024];
    assert_null(ht_header(req, "If-Match", v));
    assert_string_equal(ht_header(req, "If-Unmodified-Since", v), "Sun, 06 Nov 1994 08:49:38 GMT");
    return send_range(fd, req,
                      f->step == 1 ? "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
                                   : "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                      f->step == 2 ? 1001 : 1000);
}

static void without_etag_time_and_size_pin(void **state)
{
    struct fixture *f = *state;
    f->script = script_no_etag;
    assert_int_equal(get(f, "t784111777:1000", 5, 100, NULL), 0);
    f->step = 1;
    assert_int_equal(get(f, "t784111777:1000", 5, 100, NULL), -ESTALE);
    f->step = 2;
    assert_int_equal(get(f, "t784111777:1000", 5, 100, NULL), -ESTALE);
    assert_int_equal(get(f, "rubbish", 5, 100, NULL), -ESTALE);
}

/* ---- lists ---- */

#define KEY(k, more) "<Contents><Key>pre%2Ffix/d/" k "</Key><Size>5</Size>" more "</Contents>"
#define DIR(k) "<CommonPrefixes><Prefix>pre%2Ffix/d/" k "/</Prefix></CommonPrefixes>"

static bool script_list(struct fixture *f, int fd, const struct ht_request *req)
{
    static const char first[] =
        "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>to+ken/=</NextContinuationToken>" KEY(
            "", "<ETag>&quot;x&quot;</ETag>")      /* the directory's own marker */
        KEY("a%2Bb+c", "<ETag>&#34;e&#34;</ETag>") /* "a+b c" */
        KEY("noetag", "<LastModified>1994-11-06T08:49:37.500Z</LastModified>")
            KEY("both", "<ETag>b</ETag>") /* is a directory too */
        KEY("nothing", "")                /* nothing that proves a version */
        KEY("%FF%FE", "<ETag>b</ETag>") KEY("n%00l", "<ETag>b</ETag>")
            KEY("..", "<ETag>b</ETag>") "<Contents><Key>elsewhere</Key><Size>1</Size><ETag>b</"
                                        "ETag></Contents>" DIR("sub") DIR("both") DIR("") DIR(".")
                                            DIR("%C3%9F+%25") "</ListBucketResult>";
    if (!has(req, "continuation-token"))
        return ht_reply(fd, 200, NULL, first, strlen(first));
    assert_true(has(
        req,
        "?continuation-token=to%2Bken%2F%3D&delimiter=%2F&encoding-type=url&list-type=2&prefix="));
    return empty_list(fd);
}

static void pages_become_entries(void **state)
{
    struct fixture *f = *state;
    struct list_call l;
    f->script = script_list;
    assert_int_equal(list_of(f, "d", NULL, &l), 0);
    assert_non_null(
        strstr(f->last,
               "GET /bucket?delimiter=%2F&encoding-type=url&list-type=2&prefix=pre%2Ffix%2Fd%2F "));
    assert_string_equal(
        l.text, "both/ 0 \nsub/ 0 \n\xc3\x9f %/ 0 \na+b c 5 e\"e\"\nnoetag 5 t784111777:5\n");
    assert_string_equal(l.token, "to+ken/=");
    assert_int_equal(l.skipped, 8);
    assert_int_equal(list_of(f, "d", "to+ken/=", &l), 0);
    assert_string_equal(l.text, "");
    assert_string_equal(l.token, "");
}

static bool script_not_s3(struct fixture *f, int fd, const struct ht_request *req)
{
    static const char page[] = "<!DOCTYPE html><html><body>It works!</body></html>";
    return ht_reply(fd, 200, NULL, page, strlen(page));
}

static void a_web_server_is_no_store(void **state)
{
    struct fixture *f = *state;
    struct list_call l;
    struct stat_call s;
    f->script = script_not_s3;
    assert_int_equal(list_of(f, "", NULL, &l), -EBADMSG);
    assert_non_null(strstr(l.req.base.err.text, "--endpoint-url"));
    assert_int_equal(stat_of(f, "x", &s), -EBADMSG);
    assert_true(s.req.base.err.text[0]);
}

/* ---- stat ---- */

/* The path tells what is there: f file, d directory, b both, n nothing, x file that may not be
 * listed. */
static bool script_stat(struct fixture *f, int fd, const struct ht_request *req)
{
    static const char one[] =
        "<ListBucketResult><Contents><Key>k/x</Key><Size>1</Size></Contents></ListBucketResult>";
    bool head = strcmp(req->method, "HEAD") == 0;
    const char *at = strstr(req->target, head ? "fix/" : "fix%2F");
    assert_non_null(at);
    char what = at[head ? 4 : 6];
    if (head && strchr("fbx", what))
        return ht_reply(fd, 200, "ETag: \"h\"\r\nLast-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                        NULL, 77);
    if (head)
        return ht_reply(fd, what == 'p' ? 403 : 404, NULL, NULL, 0);
    assert_true(has(req, "list-type=2&max-keys=1&prefix="));
    if (what == 'x')
        return refuse(fd, 403, NULL, "AccessDenied", NULL);
    if (what == 's')
        return refuse(fd, 503, NULL, "SlowDown", NULL);
    return strchr("db", what) ? ht_reply(fd, 200, NULL, one, strlen(one)) : empty_list(fd);
}

static void stat_tells_files_and_directories(void **state)
{
    struct fixture *f = *state;
    struct stat_call s;
    f->script = script_stat;
    assert_int_equal(stat_of(f, "f", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_FILE);
    assert_int_equal(s.size, 77);
    assert_int_equal(s.mtime_ns, 784111777 * ZC_NS_PER_S);
    assert_string_equal(s.version, "e\"h\"");
    assert_int_equal(stat_of(f, "x", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_FILE);
    assert_int_equal(stat_of(f, "d", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_string_equal(s.version, "");
    assert_int_equal(stat_of(f, "b", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_int_equal(stat_of(f, "n", &s), -ENOENT);
    assert_int_equal(stat_of(f, "p", &s), -EACCES);
    assert_int_equal(stat_of(f, "s", &s), -EAGAIN);
    assert_int_equal(f->be->stats->heads, 7);
    assert_int_equal(f->be->stats->lists, 7);
    unsigned asked = f->asked;
    assert_int_equal(stat_of(f, "", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_int_equal(f->asked, asked);
}

/* ---- what can be mended ---- */

static bool script_clock(struct fixture *f, int fd, const struct ht_request *req)
{
    char v[1024], ours[32];
    time_t t = time(NULL) + 7200;
    struct tm tm;
    strftime(ours, sizeof(ours), "%Y%m%dT%H", gmtime_r(&t, &tm));
    const char *date = ht_header(req, "x-amz-date", v);
    if (date && strncmp(date, ours, 11) == 0)
        return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 200, "ETag: \"h\"\r\n", NULL, 5)
                                                : empty_list(fd);
    char h[100];
    strftime(h, sizeof(h), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime_r(&t, &tm));
    return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 403, h, NULL, 0)
                                            : refuse(fd, 403, h, "RequestTimeTooSkewed", NULL);
}

static void the_stores_clock_counts(void **state)
{
    struct fixture *f = *state;
    struct stat_call s;
    struct list_call l;
    f->script = script_clock;
    assert_int_equal(stat_of(f, "f", &s), 0);
    assert_true(f->asked <= 4);
    unsigned asked = f->asked;
    assert_int_equal(list_of(f, "", NULL, &l), 0);
    assert_int_equal(f->asked, asked + 1); /* known by now */
}

static bool script_clock_never(struct fixture *f, int fd, const struct ht_request *req)
{
    return refuse(fd, 403, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "RequestTimeTooSkewed", NULL);
}

static void a_clock_is_mended_once(void **state)
{
    struct fixture *f = *state;
    struct list_call l;
    f->script = script_clock_never;
    assert_int_equal(list_of(f, "", NULL, &l), -EACCES);
    assert_int_equal(f->asked, 2);
    assert_non_null(strstr(l.req.base.err.text, "clock"));
}

static bool script_region(struct fixture *f, int fd, const struct ht_request *req)
{
    if (strstr(req->head, "/eu-west-9/s3/aws4_request"))
        return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 200, "ETag: \"h\"\r\n", NULL, 5)
                                                : empty_list(fd);
    if (strcmp(req->method, "HEAD") == 0)
        return ht_reply(fd, f->step ? 301 : 400, "x-amz-bucket-region: eu-west-9\r\n", NULL, 0);
    return f->step
               ? refuse(fd, 301, "x-amz-bucket-region: eu-west-9\r\n", "PermanentRedirect", NULL)
               : refuse(fd, 400, NULL, "AuthorizationHeaderMalformed",
                        "<Region>eu-west-9</Region>");
}

static void the_region_is_followed(void **state)
{
    struct fixture *f = *state;
    struct stat_call s;
    for (f->step = 0; f->step < 2; f->step++) {
        f->script = script_region;
        assert_int_equal(stat_of(f, "f", &s), 0);
        f->asked = 0;
        assert_int_equal(stat_of(f, "f", &s), 0);
        assert_int_equal(f->asked, 2);
        zc_backend_free(f->be);
        connect_with(f, (struct zc_s3_config){.prefix = "pre/fix"});
    }
}

static bool script_expired(struct fixture *f, int fd, const struct ht_request *req)
{
    if (strstr(req->head, "Credential=NEWKEY/"))
        return empty_list(fd);
    return refuse(fd, 400, NULL, "ExpiredToken", NULL);
}

static void put_keys(struct fixture *f, const char *id)
{
    char text[200];
    zc_autoclose int fd = open(f->credentials, O_WRONLY | O_TRUNC);
    int n = snprintf(text, sizeof(text),
                     "[default]\naws_access_key_id = %s\naws_secret_access_key = s\n", id);
    assert_int_equal(write(fd, text, (size_t)n), n);
}

static void newer_keys_are_found(void **state)
{
    struct fixture *f = *state;
    struct list_call l;
    unsetenv("AWS_ACCESS_KEY_ID");
    put_keys(f, "OLD");
    connect_with(f, (struct zc_s3_config){0});
    f->script = script_expired;
    assert_int_equal(list_of(f, "", NULL, &l), -EACCES);
    assert_non_null(strstr(l.req.base.err.text, "expired"));
    assert_non_null(strstr(l.req.base.err.text, f->credentials));
    put_keys(f, "NEWKEY");
    assert_int_equal(list_of(f, "", NULL, &l), 0);
    f->asked = 0;
    assert_int_equal(list_of(f, "", NULL, &l), 0);
    assert_int_equal(f->asked, 1);
}

/* ---- words ---- */

static const struct refusal {
    int status;
    const char *code, *more;
    int err;
    const char *words;
} refusals[] = {
    {404, "NoSuchBucket", NULL, -ENOENT, "bucket bucket does not exist"},
    {403, "AccessDenied", NULL, -EACCES, "s3:ListBucket"},
    {403, "InvalidAccessKeyId", NULL, -EACCES, "AWS_ACCESS_KEY_ID"},
    {403, "SignatureDoesNotMatch", NULL, -EACCES, "AWS_SECRET_ACCESS_KEY"},
    {400, "ExpiredToken", NULL, -EACCES, "expired"},
    {301, "PermanentRedirect", "<Endpoint>b.s3-eu-x-1.example</Endpoint>", -EIO,
     "b.s3-eu-x-1.example"},
    {400, "AuthorizationHeaderMalformed", "<Region>us-east-1</Region>", -EIO, "--region us-east-1"},
    {307, "TemporaryRedirect", NULL, -EIO, "--endpoint-url"},
    {503, "SlowDown", NULL, -EAGAIN, "SlowDown"},
    {503, "NobodyKnowsThis", NULL, -EAGAIN, "NobodyKnowsThis"},
    {500, "InternalError", NULL, -EAGAIN, "because"},
    {429, "TooManyRequests", NULL, -EAGAIN, "429"},
    {400, "RequestTimeout", NULL, -EAGAIN, "RequestTimeout"},
    {400, "InvalidArgument", NULL, -EIO, "InvalidArgument: because"},
    {502, NULL, NULL, -EAGAIN, "502"},
    {504, NULL, NULL, -EAGAIN, "504"},
    {401, NULL, NULL, -EACCES, "refuses"},
    {405, NULL, NULL, -EIO, "405"},
};

static bool script_refusal(struct fixture *f, int fd, const struct ht_request *req)
{
    const struct refusal *r = &refusals[f->step];
    if (!r->code)
        return ht_reply(fd, r->status, NULL, "Bad", 3);
    return refuse(fd, r->status, NULL, r->code, r->more);
}

static void refusals_are_told(void **state)
{
    struct fixture *f = *state;
    struct list_call l;
    f->script = script_refusal;
    for (f->step = 0; f->step < (int)ZC_ARRAY_SIZE(refusals); f->step++) {
        const struct refusal *r = &refusals[f->step];
        int err = list_of(f, "", NULL, &l);
        if (err != r->err || !strstr(l.req.base.err.text, r->words))
            print_message("%d %s: %d %s\n", r->status, r->code ? r->code : "", err,
                          l.req.base.err.text);
        assert_int_equal(err, r->err);
        assert_non_null(strstr(l.req.base.err.text, r->words));
    }
}

static bool script_list_empty(struct fixture *f, int fd, const struct ht_request *req)
{
    return empty_list(fd);
}

static void probe_asks_once(void **state)
{
    struct fixture *f = *state;
    struct zc_error err = {0};
    f->script = script_list_empty;
    assert_int_equal(zc_backend_probe(f->be, &err), 0);
    assert_int_equal(f->asked, 1);
    assert_non_null(strstr(f->last, "&max-keys=1&prefix=pre%2Ffix%2F "));
    f->script = script_refusal;
    f->step = 0;
    assert_int_equal(zc_backend_probe(f->be, &err), -ENOENT);
    assert_non_null(strstr(err.text, "does not exist"));
}

/* ---- cancel ---- */

static bool script_silent(struct fixture *f, int fd, const struct ht_request *req)
{
    char c;
    while (read(fd, &c, 1) > 0)
        ;
    return false;
}

static void cancel_ends_both_calls_of_a_stat(void **state)
{
    struct fixture *f = *state;
    struct stat_call s = {.req = {.path = "f", .done = on_stat}};
    f->script = script_silent;
    wait_init(&s.w);
    zc_backend_stat(f->be, &s.req);
    while (f->asked < 2)
        usleep(1000);
    pthread_mutex_lock(&s.w.lock);
    zc_backend_cancel(f->be, &s.req.base);
    pthread_mutex_unlock(&s.w.lock);
    assert_int_equal(wait_for(&s.w), -ECANCELED);
    assert_int_equal(f->be->stats->in_flight, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_get_is_signed_and_pinned, setup, teardown),
        cmocka_unit_test_setup_teardown(keys_are_encoded_once, setup, teardown),
        cmocka_unit_test_setup_teardown(options_become_headers, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(anonymous_signs_nothing, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(configuration_is_checked, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(places, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(odd_answers_are_seen, setup, teardown),
        cmocka_unit_test_setup_teardown(the_callers_error_stops_it, setup, teardown),
        cmocka_unit_test_setup_teardown(without_etag_time_and_size_pin, setup, teardown),
        cmocka_unit_test_setup_teardown(pages_become_entries, setup, teardown),
        cmocka_unit_test_setup_teardown(a_web_server_is_no_store, setup, teardown),
        cmocka_unit_test_setup_teardown(stat_tells_files_and_directories, setup, teardown),
        cmocka_unit_test_setup_teardown(the_stores_clock_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(a_clock_is_mended_once, setup, teardown),
        cmocka_unit_test_setup_teardown(the_region_is_followed, setup, teardown),
        cmocka_unit_test_setup_teardown(newer_keys_are_found, setup_bare, teardown),
        cmocka_unit_test_setup_teardown(refusals_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(probe_asks_once, setup, teardown),
        cmocka_unit_test_setup_teardown(cancel_ends_both_calls_of_a_stat, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
