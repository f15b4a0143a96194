/* SPDX-License-Identifier: Apache-2.0 */
/* The S3 source against a scripted server: what it asks, and what it makes of strange answers. */
#include "backend/s3_priv.h"
#include "base/buf.h"

#include "s3test.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

/* ---- requests ---- */

static bool script_object(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    return s3t_send_range(fd, req, "ETag: \"e1\"\r\n", 1000000);
}

static void a_get_is_signed_and_pinned(void **state)
{
    struct s3t_fixture *f = *state;
    f->script = script_object;
    assert_int_equal(s3t_get(f, "e\"e1\"", 100, 5000, NULL), 0);
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
    struct s3t_fixture *f = *state;
    f->script = script_object;
    assert_int_equal(s3t_get_stopping(f, "a b+c%25/\xc3\x9f?#&=~", "e\"e1\"", 0, 5, 0, NULL, NULL),
                     0);
    assert_non_null(
        strstr(f->last, "GET /bucket/pre/fix/a%20b%2Bc%2525/%C3%9F%3F%23%26%3D~ HTTP/1.1\r\n"));
}

static void options_become_headers(void **state)
{
    struct s3t_fixture *f = *state;
    setenv("AWS_SESSION_TOKEN", "the/token", 1);
    s3t_connect(f, (struct zc_s3_config){
                       .requester_pays = true, .expected_bucket_owner = "123", .region = "eu-x-1"});
    f->script = script_object;
    assert_int_equal(s3t_get(f, "e\"e1\"", 0, 5, NULL), 0);
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
    struct s3t_fixture *f = *state;
    unsetenv("AWS_ACCESS_KEY_ID");
    s3t_connect(f, (struct zc_s3_config){.no_sign_request = true});
    f->script = script_object;
    assert_int_equal(s3t_get(f, "e\"e1\"", 0, 5, NULL), 0);
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
    struct s3t_fixture *f = *state;
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
    s3t_connect(f, (struct zc_s3_config){0});
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
    struct s3t_fixture *f = *state;
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

static bool script_answers(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    unsigned char body[200];
    ht_fill(body, 0, sizeof(body));
    switch (f->step) {
    case 0: /* the whole object instead of its start */
        return ht_reply(fd, 200, "ETag: \"e1\"\r\n", body, 200);
    case 1: /* another version, though the condition was sent */
        return s3t_send_range(fd, req, "ETag: \"e2\"\r\n", 1000);
    case 2:
        return s3t_refuse(fd, 412, NULL, "PreconditionFailed", NULL);
    case 3:
        return s3t_refuse(fd, 404, NULL, "NoSuchKey", NULL);
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
        return s3t_refuse(fd, 403, NULL, "InvalidObjectState", NULL);
    case 12:
        return s3t_refuse(fd, 503, NULL, "SlowDown", NULL);
    case 13:
        return s3t_refuse(fd, 416, NULL, "InvalidRange", NULL);
    case 14:
        return ht_reply(fd, 204, "ETag: \"e1\"\r\n", NULL, 0);
    case 15: /* a body nobody asked to be cut */
        return ht_reply(fd, 206, "ETag: \"e1\"\r\nContent-Range: bytes 0-99/1000\r\n", body, 150);
    default:
        return s3t_refuse(fd, 500, NULL, "InternalError", NULL);
    }
}

static void odd_answers_are_seen(void **state)
{
    static const int expected[] = {0,        -ESTALE,  -ESTALE,     -ESTALE,     -EBADMSG, -EBADMSG,
                                   -EBADMSG, -EBADMSG, -ECONNRESET, -ECONNRESET, -EBADMSG, -EACCES,
                                   -EAGAIN,  -ESTALE,  -EBADMSG,    0,           -EAGAIN};
    struct s3t_fixture *f = *state;
    f->script = script_answers;
    for (f->step = 0; f->step < (int)ZC_ARRAY_SIZE(expected); f->step++) {
        char words[1000];
        int r = s3t_get(f, "e\"e1\"", 0, 100, words);
        if (r != expected[f->step])
            print_message("step %d: %d %s\n", f->step, r, words);
        assert_int_equal(r, expected[f->step]);
        assert_int_equal(r == 0, words[0] == '\0');
    }
    /* The whole object is no answer to a range that starts later. */
    f->step = 0;
    assert_int_equal(s3t_get(f, "e\"e1\"", 10, 100, NULL), -EBADMSG);
}

static void the_callers_error_stops_it(void **state)
{
    struct s3t_fixture *f = *state;
    uint64_t got;
    f->script = script_object;
    assert_int_equal(s3t_get_stopping(f, "a/b", "e\"e1\"", 0, 500000, -ENOSPC, NULL, &got),
                     -ENOSPC);
    assert_true(got < 500000);
}

static bool script_no_etag(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    char v[1024];
    assert_null(ht_header(req, "If-Match", v));
    assert_string_equal(ht_header(req, "If-Unmodified-Since", v), "Sun, 06 Nov 1994 08:49:38 GMT");
    return s3t_send_range(fd, req,
                          f->step == 1 ? "Last-Modified: Sun, 06 Nov 1994 08:49:38 GMT\r\n"
                                       : "Last-Modified: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
                          f->step == 2 ? 1001 : 1000);
}

static void without_etag_time_and_size_pin(void **state)
{
    struct s3t_fixture *f = *state;
    f->script = script_no_etag;
    assert_int_equal(s3t_get(f, "t784111777:1000", 5, 100, NULL), 0);
    f->step = 1;
    assert_int_equal(s3t_get(f, "t784111777:1000", 5, 100, NULL), -ESTALE);
    f->step = 2;
    assert_int_equal(s3t_get(f, "t784111777:1000", 5, 100, NULL), -ESTALE);
    assert_int_equal(s3t_get(f, "rubbish", 5, 100, NULL), -ESTALE);
}

/* ---- lists ---- */

#define KEY(k, more) "<Contents><Key>pre%2Ffix/d/" k "</Key><Size>5</Size>" more "</Contents>"
#define DIR(k) "<CommonPrefixes><Prefix>pre%2Ffix/d/" k "/</Prefix></CommonPrefixes>"

static bool script_list(struct s3t_fixture *f, int fd, const struct ht_request *req)
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
    if (!s3t_has(req, "continuation-token"))
        return ht_reply(fd, 200, NULL, first, strlen(first));
    assert_true(s3t_has(
        req,
        "?continuation-token=to%2Bken%2F%3D&delimiter=%2F&encoding-type=url&list-type=2&prefix="));
    return s3t_empty_list(fd);
}

static void pages_become_entries(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_list_call l;
    f->script = script_list;
    assert_int_equal(s3t_list(f, "d", NULL, &l), 0);
    assert_non_null(
        strstr(f->last,
               "GET /bucket?delimiter=%2F&encoding-type=url&list-type=2&prefix=pre%2Ffix%2Fd%2F "));
    assert_string_equal(
        l.text, "both/ 0 \nsub/ 0 \n\xc3\x9f %/ 0 \na+b c 5 e\"e\"\nnoetag 5 t784111777:5\n");
    assert_string_equal(l.token, "to+ken/=");
    assert_int_equal(l.skipped, 8);
    assert_int_equal(s3t_list(f, "d", "to+ken/=", &l), 0);
    assert_string_equal(l.text, "");
    assert_string_equal(l.token, "");
}

static bool script_not_s3(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    static const char page[] = "<!DOCTYPE html><html><body>It works!</body></html>";
    return ht_reply(fd, 200, NULL, page, strlen(page));
}

static void a_web_server_is_no_store(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_list_call l;
    struct s3t_stat_call s;
    f->script = script_not_s3;
    assert_int_equal(s3t_list(f, "", NULL, &l), -EBADMSG);
    assert_non_null(strstr(l.req.base.err.text, "--endpoint-url"));
    assert_int_equal(s3t_stat(f, "x", &s), -EBADMSG);
    assert_true(s.req.base.err.text[0]);
}

/* ---- stat ---- */

/* The path tells what is there: f file, d directory, b both, n nothing, x file that may not be
 * listed. */
static bool script_stat(struct s3t_fixture *f, int fd, const struct ht_request *req)
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
    assert_true(s3t_has(req, "list-type=2&max-keys=1&prefix="));
    if (what == 'x')
        return s3t_refuse(fd, 403, NULL, "AccessDenied", NULL);
    if (what == 's')
        return s3t_refuse(fd, 503, NULL, "SlowDown", NULL);
    return strchr("db", what) ? ht_reply(fd, 200, NULL, one, strlen(one)) : s3t_empty_list(fd);
}

static void stat_tells_files_and_directories(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_stat_call s;
    f->script = script_stat;
    assert_int_equal(s3t_stat(f, "f", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_FILE);
    assert_int_equal(s.size, 77);
    assert_int_equal(s.mtime_ns, 784111777 * ZC_NS_PER_S);
    assert_string_equal(s.version, "e\"h\"");
    assert_int_equal(s3t_stat(f, "x", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_FILE);
    assert_int_equal(s3t_stat(f, "d", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_string_equal(s.version, "");
    assert_int_equal(s3t_stat(f, "b", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_int_equal(s3t_stat(f, "n", &s), -ENOENT);
    assert_int_equal(s3t_stat(f, "p", &s), -EACCES);
    assert_int_equal(s3t_stat(f, "s", &s), -EAGAIN);
    assert_int_equal(f->be->stats->heads, 7);
    assert_int_equal(f->be->stats->lists, 7);
    unsigned asked = f->asked;
    assert_int_equal(s3t_stat(f, "", &s), 0);
    assert_int_equal(s.kind, ZC_KIND_DIR);
    assert_int_equal(f->asked, asked);
}

/* ---- cancel ---- */

static bool script_silent(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    char c;
    while (read(fd, &c, 1) > 0)
        ;
    return false;
}

static void cancel_ends_both_calls_of_a_stat(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_stat_call s = {.req = {.path = "f", .done = s3t_on_stat}};
    f->script = script_silent;
    s3t_wait_init(&s.w);
    zc_backend_stat(f->be, &s.req);
    while (f->asked < 2)
        usleep(1000);
    pthread_mutex_lock(&s.w.lock);
    zc_backend_cancel(f->be, &s.req.base);
    pthread_mutex_unlock(&s.w.lock);
    assert_int_equal(s3t_wait_for(&s.w), -ECANCELED);
    assert_int_equal(f->be->stats->in_flight, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_get_is_signed_and_pinned, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(keys_are_encoded_once, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(options_become_headers, s3t_setup_bare, s3t_teardown),
        cmocka_unit_test_setup_teardown(anonymous_signs_nothing, s3t_setup_bare, s3t_teardown),
        cmocka_unit_test_setup_teardown(configuration_is_checked, s3t_setup_bare, s3t_teardown),
        cmocka_unit_test_setup_teardown(places, s3t_setup_bare, s3t_teardown),
        cmocka_unit_test_setup_teardown(odd_answers_are_seen, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(the_callers_error_stops_it, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(without_etag_time_and_size_pin, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(pages_become_entries, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(a_web_server_is_no_store, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(stat_tells_files_and_directories, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(cancel_ends_both_calls_of_a_stat, s3t_setup, s3t_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
