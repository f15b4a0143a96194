/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "cli/source.h"

#include <errno.h>
#include <string.h>

static void s3_sources(void **state)
{
    static const struct {
        const char *url, *bucket, *prefix;
    } cases[] = {
        {"s3://my-bucket", "my-bucket", ""},
        {"s3://my-bucket/", "my-bucket", ""},
        {"s3://my.bucket/a/b", "my.bucket", "a/b"},
        {"s3://my-bucket/a/b///", "my-bucket", "a/b"},
        {"s3://Old_Bucket/x y+%20?#", "Old_Bucket", "x y+%20?#"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_source s;
        assert_int_equal(zc_source_parse(cases[i].url, &s, NULL), 0);
        assert_int_equal(s.scheme, ZC_SCHEME_S3);
        assert_string_equal(s.bucket, cases[i].bucket);
        assert_string_equal(s.prefix, cases[i].prefix);
        zc_source_free(&s);
    }
}

static void file_sources(void **state)
{
    struct zc_source s;
    assert_int_equal(zc_source_parse("file:///data/set 1", &s, NULL), 0);
    assert_int_equal(s.scheme, ZC_SCHEME_FILE);
    assert_string_equal(s.path, "/data/set 1");
    zc_source_free(&s);
}

static void hdfs_sources(void **state)
{
    static const struct {
        const char *url;
        enum zc_scheme scheme;
        const char *authority, *prefix;
    } cases[] = {
        {"hdfs:///data", ZC_SCHEME_HDFS, "", "data"},
        {"hdfs://nameservice/data/set/", ZC_SCHEME_HDFS, "nameservice", "data/set"},
        {"webhdfs://nn:9870", ZC_SCHEME_WEBHDFS, "nn:9870", ""},
        {"swebhdfs://nn:9871/a b", ZC_SCHEME_SWEBHDFS, "nn:9871", "a b"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_source s;
        assert_int_equal(zc_source_parse(cases[i].url, &s, NULL), 0);
        assert_int_equal(s.scheme, cases[i].scheme);
        assert_true(zc_scheme_is_hdfs(s.scheme));
        assert_string_equal(s.authority, cases[i].authority);
        assert_string_equal(s.prefix, cases[i].prefix);
        zc_source_free(&s);
    }
}

static void wrong_sources(void **state)
{
    static const struct {
        const char *url, *words;
    } cases[] = {
        {"", "no scheme"},
        {"bucket", "no scheme"},
        {"/data", "file:///its/whole/path"},
        {"://x", "no scheme"},
        {"ftp://nn/x",
         "unknown source scheme 'ftp'; there are s3, hdfs, webhdfs, swebhdfs and file"},
        {"webhdfs:///x", "names no host"},
        {"hdfs://nn/a/../b", "'..'"},
        {"S3://bucket", "unknown source scheme 'S3'"},
        {"s3://", "names no bucket"},
        {"s3:///key", "names no bucket"},
        {"s3://ab", "3 to 255"},
        {"s3://buck et/x", "letters, digits"},
        {"s3://-bucket", "begins and ends"},
        {"s3://a..b", "two dots"},
        {"s3://arn:aws:s3:eu-west-1:1:accesspoint/x", "ARN"},
        {"s3://bucket//a", "empty"},
        {"s3://bucket/a//b", "empty"},
        {"s3://bucket/a/../b", "'..'"},
        {"s3://bucket/./b", "'.'"},
        {"file://host/dir", "three slashes"},
        {"file://", "three slashes"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_source s;
        struct zc_error err = {0};
        assert_int_equal(zc_source_parse(cases[i].url, &s, &err), -EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("%s: '%s' has no '%s'", cases[i].url, err.text, cases[i].words);
    }
}

static void a_key_has_an_end(void **state)
{
    char url[1200] = "s3://bucket/";
    struct zc_source s;
    memset(url + 12, 'a', 1025);
    assert_int_equal(zc_source_parse(url, &s, NULL), -EINVAL);
    url[12 + 1024] = 0;
    assert_int_equal(zc_source_parse(url, &s, NULL), 0);
    zc_source_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(s3_sources),       cmocka_unit_test(file_sources),
        cmocka_unit_test(hdfs_sources),     cmocka_unit_test(wrong_sources),
        cmocka_unit_test(a_key_has_an_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
