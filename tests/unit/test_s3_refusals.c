/* SPDX-License-Identifier: Apache-2.0 */
/* What the S3 source does about a refusal, and how it words it. */
#include "s3test.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- what can be mended ---- */

static bool script_clock(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    char v[1024], ours[32];
    time_t t = time(NULL) + 7200;
    struct tm tm;
    strftime(ours, sizeof(ours), "%Y%m%dT%H", gmtime_r(&t, &tm));
    const char *date = ht_header(req, "x-amz-date", v);
    if (date && strncmp(date, ours, 11) == 0)
        return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 200, "ETag: \"h\"\r\n", NULL, 5)
                                                : s3t_empty_list(fd);
    char h[100];
    strftime(h, sizeof(h), "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", gmtime_r(&t, &tm));
    return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 403, h, NULL, 0)
                                            : s3t_refuse(fd, 403, h, "RequestTimeTooSkewed", NULL);
}

static void the_stores_clock_counts(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_stat_call s;
    struct s3t_list_call l;
    f->script = script_clock;
    assert_int_equal(s3t_stat(f, "f", &s), 0);
    assert_true(f->asked <= 4);
    unsigned asked = f->asked;
    assert_int_equal(s3t_list(f, "", NULL, &l), 0);
    assert_int_equal(f->asked, asked + 1); /* known by now */
}

static bool script_clock_never(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    return s3t_refuse(fd, 403, "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n", "RequestTimeTooSkewed",
                      NULL);
}

static void a_clock_is_mended_once(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_list_call l;
    f->script = script_clock_never;
    assert_int_equal(s3t_list(f, "", NULL, &l), -EACCES);
    assert_int_equal(f->asked, 2);
    assert_non_null(strstr(l.req.base.err.text, "clock"));
}

static bool script_region(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    if (strstr(req->head, "/eu-west-9/s3/aws4_request"))
        return strcmp(req->method, "HEAD") == 0 ? ht_reply(fd, 200, "ETag: \"h\"\r\n", NULL, 5)
                                                : s3t_empty_list(fd);
    if (strcmp(req->method, "HEAD") == 0)
        return ht_reply(fd, f->step ? 301 : 400, "x-amz-bucket-region: eu-west-9\r\n", NULL, 0);
    return f->step ? s3t_refuse(fd, 301, "x-amz-bucket-region: eu-west-9\r\n", "PermanentRedirect",
                                NULL)
                   : s3t_refuse(fd, 400, NULL, "AuthorizationHeaderMalformed",
                                "<Region>eu-west-9</Region>");
}

static void the_region_is_followed(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_stat_call s;
    for (f->step = 0; f->step < 2; f->step++) {
        f->script = script_region;
        assert_int_equal(s3t_stat(f, "f", &s), 0);
        f->asked = 0;
        assert_int_equal(s3t_stat(f, "f", &s), 0);
        assert_int_equal(f->asked, 2);
        zc_backend_free(f->be);
        s3t_connect(f, (struct zc_s3_config){.prefix = "pre/fix"});
    }
}

static bool script_expired(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    if (strstr(req->head, "Credential=NEWKEY/"))
        return s3t_empty_list(fd);
    return s3t_refuse(fd, 400, NULL, "ExpiredToken", NULL);
}

static void put_keys(struct s3t_fixture *f, const char *id)
{
    char text[200];
    zc_autoclose int fd = open(f->credentials, O_WRONLY | O_TRUNC);
    int n = snprintf(text, sizeof(text),
                     "[default]\naws_access_key_id = %s\naws_secret_access_key = s\n", id);
    assert_int_equal(write(fd, text, (size_t)n), n);
}

static void newer_keys_are_found(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_list_call l;
    unsetenv("AWS_ACCESS_KEY_ID");
    put_keys(f, "OLD");
    s3t_connect(f, (struct zc_s3_config){0});
    f->script = script_expired;
    assert_int_equal(s3t_list(f, "", NULL, &l), -EACCES);
    assert_non_null(strstr(l.req.base.err.text, "expired"));
    assert_non_null(strstr(l.req.base.err.text, f->credentials));
    put_keys(f, "NEWKEY");
    assert_int_equal(s3t_list(f, "", NULL, &l), 0);
    f->asked = 0;
    assert_int_equal(s3t_list(f, "", NULL, &l), 0);
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

static bool script_refusal(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    const struct refusal *r = &refusals[f->step];
    if (!r->code)
        return ht_reply(fd, r->status, NULL, "Bad", 3);
    return s3t_refuse(fd, r->status, NULL, r->code, r->more);
}

static void refusals_are_told(void **state)
{
    struct s3t_fixture *f = *state;
    struct s3t_list_call l;
    f->script = script_refusal;
    for (f->step = 0; f->step < (int)ZC_ARRAY_SIZE(refusals); f->step++) {
        const struct refusal *r = &refusals[f->step];
        int err = s3t_list(f, "", NULL, &l);
        if (err != r->err || !strstr(l.req.base.err.text, r->words))
            print_message("%d %s: %d %s\n", r->status, r->code ? r->code : "", err,
                          l.req.base.err.text);
        assert_int_equal(err, r->err);
        assert_non_null(strstr(l.req.base.err.text, r->words));
    }
}

static bool script_list_empty(struct s3t_fixture *f, int fd, const struct ht_request *req)
{
    return s3t_empty_list(fd);
}

static void probe_asks_once(void **state)
{
    struct s3t_fixture *f = *state;
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_stores_clock_counts, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(a_clock_is_mended_once, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(the_region_is_followed, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(newer_keys_are_found, s3t_setup_bare, s3t_teardown),
        cmocka_unit_test_setup_teardown(refusals_are_told, s3t_setup, s3t_teardown),
        cmocka_unit_test_setup_teardown(probe_asks_once, s3t_setup, s3t_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
