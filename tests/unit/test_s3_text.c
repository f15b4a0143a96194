/* SPDX-License-Identifier: Apache-2.0 */
/* Decoders of what S3's headers and XML say. */
#include "backend/s3_text.h"
#include "backend/s3_xml.h"

#include "unit.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* ---- headers ---- */

static int64_t date_of(const char *s)
{
    int64_t ns = 0;
    int r = s3_text_date(s, strlen(s), &ns);
    return r < 0 ? r : ns;
}

static void dates(void **state)
{
    assert_int_equal(date_of("Sun, 06 Nov 1994 08:49:37 GMT"), 784111777 * ZC_NS_PER_S);
    assert_int_equal(date_of("1994-11-06T08:49:37Z"), 784111777 * ZC_NS_PER_S);
    assert_int_equal(date_of("1994-11-06T08:49:37.5Z"), 784111777 * ZC_NS_PER_S + 500000000);
    assert_int_equal(date_of("1994-11-06T08:49:37.123456789123Z"),
                     784111777 * ZC_NS_PER_S + 123456789);
    assert_int_equal(date_of("2024-02-29T23:59:59.000Z"), 1709251199 * ZC_NS_PER_S);
    assert_int_equal(date_of("Thu, 01 Jan 1970 00:00:00 GMT"), 0);
    static const char *const bad[] = {"",
                                      "Sun, 06 Nov 1994 08:49:37",
                                      "Sun, 06 Foo 1994 08:49:37 GMT",
                                      "Sun, 06 Nov 1994 08:49:37 CET",
                                      "Sun, 06 Nov 1994 24:49:37 GMT",
                                      "Sun, 06 Nov 1894 08:49:37 GMT",
                                      "Sun, 0x Nov 1994 08:49:37 GMT",
                                      "1994-11-06",
                                      "1994-11-06T08:49:37",
                                      "1994-13-06T08:49:37Z",
                                      "1994-11-06T08:49:37.Zx",
                                      "2262-11-06T08:49:37Z",
                                      "1994-11-06 08:49:37Z"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(date_of(bad[i]), -EINVAL);
    char out[30];
    s3_text_http_date(784111777, out);
    assert_string_equal(out, "Sun, 06 Nov 1994 08:49:37 GMT");
}

static void ranges(void **state)
{
    uint64_t a, b, t;
    assert_int_equal(s3_text_content_range("bytes 0-99/1234", 15, &a, &b, &t), 0);
    assert_true(a == 0 && b == 99 && t == 1234);
    assert_int_equal(s3_text_content_range("bytes 5-5/*", 11, &a, &b, &t), 0);
    assert_true(a == 5 && b == 5 && t == UINT64_MAX);
    static const char *const bad[] = {"",
                                      "bytes",
                                      "bytes */10",
                                      "bytes 5-4/10",
                                      "bytes 0-9/9",
                                      "bytes 0-9/10x",
                                      "bytes 0-9",
                                      "bytes -9/10",
                                      "items 0-1/2",
                                      "bytes 0-99999999999999999999/*",
                                      "bytes 1-2/"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(s3_text_content_range(bad[i], strlen(bad[i]), &a, &b, &t), -EINVAL);
}

static void versions(void **state)
{
    char v[ZC_VERSION_MAX + 1], w[ZC_VERSION_MAX + 1], big[400];
    const char *etag;
    int64_t s;
    uint64_t n;
    s3_text_version("\"abc\"", 5, 5, 5, v);
    s3_text_version("abc", 3, 6, 6, w); /* a listing without the quotes */
    assert_string_equal(v, w);
    assert_int_equal(s3_text_version_parse(v, &etag, &s, &n), 0);
    assert_string_equal(etag, "\"abc\"");
    /* no ETag: milliseconds of a listing, seconds of a header */
    s3_text_version("", 0, 784111777 * ZC_NS_PER_S + 999000000, 42, v);
    s3_text_version("", 0, 784111777 * ZC_NS_PER_S, 42, w);
    assert_string_equal(v, w);
    assert_int_equal(s3_text_version_parse(v, &etag, &s, &n), 0);
    assert_null(etag);
    assert_true(s == 784111777 && n == 42);
    s3_text_version("", 0, 0, 42, v);
    assert_string_equal(v, "");
    /* what cannot be sent back as a header is no ETag */
    memset(big, 'x', sizeof(big));
    s3_text_version(big, sizeof(big), ZC_NS_PER_S, 1, v);
    assert_string_equal(v, "t1:1");
    s3_text_version("a\r\nX: y", 7, ZC_NS_PER_S, 1, v);
    assert_string_equal(v, "t1:1");
    s3_text_version(big, ZC_VERSION_MAX - 3, ZC_NS_PER_S, 1, v);
    assert_int_equal(strlen(v), ZC_VERSION_MAX);
    static const char *const bad[] = {"",    "e",     "x",   "t",    "t1",
                                      "t1:", "t1:2x", "t:2", "tx:2", "t-1:2"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(s3_text_version_parse(bad[i], &etag, &s, &n), -EINVAL);
}

static void names(void **state)
{
    char long_name[300];
    memset(long_name, 'a', sizeof(long_name));
    assert_true(s3_text_name_ok("a", 1));
    assert_true(s3_text_name_ok("...", 3));
    assert_true(s3_text_name_ok(" ", 1));
    assert_true(s3_text_name_ok("\xc3\x9f\xe2\x82\xac\xf0\x9f\x98\x80", 9));
    assert_true(s3_text_name_ok(long_name, 255));
    assert_false(s3_text_name_ok(long_name, 256));
    assert_false(s3_text_name_ok("", 0));
    assert_false(s3_text_name_ok(".", 1));
    assert_false(s3_text_name_ok("..", 2));
    assert_false(s3_text_name_ok("a/b", 3));
    assert_false(s3_text_name_ok("a\0b", 3));
    static const char *const bad[] = {"\x80",         "\xc3",         "\xc0\x80",
                                      "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                      "\xff",         "\xf0\x9f\x98"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_false(s3_text_name_ok(bad[i], strlen(bad[i])));
}

static void escapes(void **state)
{
    char s[] = "a+b%2B%2f%zz%4", t[] = "%00%C3%9F";
    size_t n = s3_text_urldecode(s, strlen(s));
    assert_int_equal(n, 10);
    assert_memory_equal(s, "a b+/%zz%4", 10);
    n = s3_text_urldecode(t, strlen(t));
    assert_int_equal(n, 3);
    assert_memory_equal(t, "\0\xc3\x9f", 3);
}

/* ---- lists ---- */

static int parse(struct s3_xml_list *l, const char *text, size_t step)
{
    assert_int_equal(s3_xml_list_init(l), 0);
    int r = 0;
    for (size_t n = strlen(text), at = 0; r == 0 && at < n; at += step)
        r = s3_xml_list_feed(l, text + at, ZC_MIN(step, n - at));
    return r < 0 ? r : s3_xml_list_end(l);
}

static void span_is(const struct s3_xml_list *l, struct s3_xml_span s, const char *text)
{
    assert_int_equal(s.len, strlen(text));
    assert_memory_equal(l->text.p + s.at, text, s.len);
}

static const char page[] =
    "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
    "<ListBucketResult "
    "xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>b</Name><Prefix>d/</Prefix>"
    "<MaxKeys>1000</MaxKeys><Delimiter>/</Delimiter><IsTruncated>true</IsTruncated>"
    "<Contents><Key>d/a%2Bb+c</Key><LastModified>1994-11-06T08:49:37.123Z</LastModified>"
    "<ETag>&quot;0cc175b9&quot;</ETag><ChecksumAlgorithm>CRC32</"
    "ChecksumAlgorithm><Size>9007199254740993</Size>"
    "<Owner><ID>75aa</ID><DisplayName>me</DisplayName><Key>wrong</Key></"
    "Owner><StorageClass>GLACIER</StorageClass>"
    "</Contents>\n"
    "<Contents><Key>d/z</Key><Size>0</Size></Contents>"
    "<CommonPrefixes><Prefix>d/sub/</Prefix></CommonPrefixes>"
    "<CommonPrefixes><Prefix>d/%C3%9F/</Prefix></CommonPrefixes>"
    "<NextContinuationToken>1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=</NextContinuationToken>"
    "<EncodingType>url</EncodingType></ListBucketResult>";

static void lists(void **state)
{
    static const size_t steps[] = {1, 7, 100000};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(steps); i++) {
        struct s3_xml_list l;
        assert_int_equal(parse(&l, page, steps[i]), 0);
        assert_int_equal(l.n_objects, 2);
        span_is(&l, l.objects[0].key, "d/a+b c");
        span_is(&l, l.objects[0].etag, "\"0cc175b9\"");
        assert_int_equal(l.objects[0].size, 9007199254740993);
        assert_int_equal(l.objects[0].mtime_ns, 784111777 * ZC_NS_PER_S + 123000000);
        span_is(&l, l.objects[1].key, "d/z");
        assert_int_equal(l.objects[1].etag.len, 0);
        assert_int_equal(l.n_prefixes, 2);
        span_is(&l, l.prefixes[0], "d/sub/");
        span_is(&l, l.prefixes[1], "d/\xc3\x9f/");
        assert_true(l.truncated);
        span_is(&l, l.token, "1ueGcxLPRx1Tr/XYExHnhbYLgveDs2J/wm36Hy4vbOwM=");
        s3_xml_list_free(&l);
    }
}

static void lists_that_are_none(void **state)
{
    static const char *const bad[] = {
        "",
        "<html><body>It works!</body></html>",
        "<Error><Code>AccessDenied</Code></Error>",
        "<ListBucketResult>",
        "<ListBucketResult><Contents><Size>1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>-1</Size></Contents></ListBucketResult>",
        "<ListBucketResult><Contents><Key>a</Key><Size>99999999999999999999</Size></Contents></"
        "ListBucketResult>",
        "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>",
        "<!DOCTYPE r [<!ENTITY a \"aaaa\"><!ENTITY b "
        "\"&a;&a;&a;\">]><ListBucketResult><Contents><Key>&b;</Key>"
        "</Contents></ListBucketResult>",
        "<ListBucketResult><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a><a>",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        struct s3_xml_list l;
        assert_int_equal(parse(&l, bad[i], 1000), -EBADMSG);
        s3_xml_list_free(&l);
    }
    zc_autobuf struct zc_buf b = {0};
    zc_buf_adds(&b, "<ListBucketResult><Contents><Key>");
    for (int i = 0; i < 2000; i++)
        zc_buf_adds(&b, "0123456789");
    zc_buf_adds(&b, "</Key></Contents></ListBucketResult>");
    struct s3_xml_list l;
    assert_int_equal(parse(&l, b.p, 1000), -EBADMSG);
    s3_xml_list_free(&l);
    zc_buf_reset(&b);
    zc_buf_adds(&b, "<ListBucketResult>");
    for (int i = 0; i <= S3_XML_KEYS_MAX; i++)
        zc_buf_adds(&b, "<Contents><Key>a</Key></Contents>");
    zc_buf_adds(&b, "</ListBucketResult>");
    assert_int_equal(parse(&l, b.p, 100000), -EBADMSG);
    s3_xml_list_free(&l);
}

/* ---- errors ---- */

static void errors(void **state)
{
    static const char text[] =
        "<?xml version=\"1.0\"?>\n<Error><Code>AuthorizationHeaderMalformed</Code>"
        "<Message>The region 'x' is\nwrong; expecting 'eu-west-1'</Message>"
        "<Region>eu-west-1</Region><RequestId>1</RequestId></Error>";
    struct s3_xml_error e;
    assert_int_equal(s3_xml_error_parse(text, strlen(text), &e), 0);
    assert_string_equal(e.code, "AuthorizationHeaderMalformed");
    assert_string_equal(e.message, "The region 'x' is wrong; expecting 'eu-west-1'");
    assert_string_equal(e.region, "eu-west-1");
    /* cut off: what came counts */
    assert_int_equal(s3_xml_error_parse(text, strlen(text) - 40, &e), 0);
    assert_string_equal(e.region, "eu-west-1");
    assert_int_equal(s3_xml_error_parse("", 0, &e), -EBADMSG);
    assert_int_equal(s3_xml_error_parse("nope", 4, &e), -EBADMSG);
    zc_autobuf struct zc_buf b = {0};
    zc_buf_adds(&b, "<Error><Code>C</Code><Message>");
    for (int i = 0; i < 100; i++)
        zc_buf_adds(&b, "0123456789");
    zc_buf_adds(&b, "</Message></Error>");
    assert_int_equal(s3_xml_error_parse(b.p, b.len, &e), 0);
    assert_int_equal(strlen(e.message), sizeof(e.message) - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dates),
        cmocka_unit_test(ranges),
        cmocka_unit_test(versions),
        cmocka_unit_test(names),
        cmocka_unit_test(escapes),
        cmocka_unit_test(lists),
        cmocka_unit_test(lists_that_are_none),
        cmocka_unit_test(errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
