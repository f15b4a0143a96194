/* SPDX-License-Identifier: Apache-2.0 */
/* Known signatures: the examples of S3's documentation and of AWS's test suite for Signature
 * Version 4. */
#include "backend/s3_cred.h"
#include "backend/s3_sign.h"

#include "unit.h"

#include <string.h>

#define SUITE_SECRET "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
#define SUITE_DATE "20150830T123600Z"
#define S3_SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define S3_DATE "20130524T000000Z"

static void suite(const char *method, const char *path, const char *query, const char *signature)
{
    const struct s3_sign_header headers[] = {{"host", "example.amazonaws.com"},
                                             {"x-amz-date", SUITE_DATE}};
    struct s3_sign_request req = {.method = method,
                                  .path = path,
                                  .query = query,
                                  .headers = headers,
                                  .n_headers = 2,
                                  .payload = s3_empty_hash};
    uint8_t key[S3_SHA256_BYTES];
    zc_autobuf struct zc_buf out = {0};
    assert_int_equal(s3_sign_key(SUITE_SECRET, SUITE_DATE, "us-east-1", "service", key), 0);
    assert_int_equal(
        s3_sign_authorization(&req, SUITE_DATE, "us-east-1", "service", "AKIDEXAMPLE", key, &out),
        0);
    assert_int_equal(
        strncmp(out.p,
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request,"
                "SignedHeaders=host;x-amz-date,Signature=",
                120),
        0);
    assert_string_equal(out.p + out.len - 64, signature);
}

static void test_suite(void **state)
{
    /* get-vanilla, get-vanilla-query-order-key-case, get-vanilla-utf8-query, get-unreserved,
     * post-vanilla */
    suite("GET", "/", "", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31");
    suite("GET", "/", "Param1=value1&Param2=value2",
          "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500");
    suite("GET", "/", "%E1%88%B4=bar",
          "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04");
    suite("GET", "/-._~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz", "",
          "07ef7494c76fa4850883e2b006601f940f8a34d404d0cfa977f52a65bbf5f24f");
    suite("POST", "/", "", "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b");
}

static void s3_example(const char *path, const char *query, bool range, const char *signature)
{
    struct s3_sign_header headers[4] = {{"host", "examplebucket.s3.amazonaws.com"}};
    size_t n = 1;
    if (range)
        headers[n++] = (struct s3_sign_header){"range", "bytes=0-9"};
    headers[n++] = (struct s3_sign_header){"x-amz-content-sha256", s3_empty_hash};
    headers[n++] = (struct s3_sign_header){"x-amz-date", S3_DATE};
    struct s3_sign_request req = {.method = "GET",
                                  .path = path,
                                  .query = query,
                                  .headers = headers,
                                  .n_headers = n,
                                  .payload = s3_empty_hash};
    struct s3_keys *k = s3_keys_new("AKIAIOSFODNN7EXAMPLE", S3_SECRET, NULL, 0, "test");
    for (int i = 0; i < 2; i++) { /* computed, then cached */
        uint8_t key[S3_SHA256_BYTES];
        zc_autobuf struct zc_buf out = {0};
        assert_int_equal(s3_keys_signing(k, S3_DATE, "us-east-1", key), 0);
        assert_int_equal(s3_sign_authorization(&req, S3_DATE, "us-east-1", "s3", k->id, key, &out),
                         0);
        assert_string_equal(out.p + out.len - 64, signature);
    }
    s3_keys_unref(k);
}

static void s3_documentation(void **state)
{
    s3_example("/test.txt", "", true,
               "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41");
    s3_example("/", "lifecycle=", false,
               "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543");
    s3_example("/", "max-keys=2&prefix=J", false,
               "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7");
}

static void keys_are_of_a_day_and_region(void **state)
{
    struct s3_keys *k = s3_keys_new("id", "secret", "", 0, "test");
    uint8_t a[S3_SHA256_BYTES], b[S3_SHA256_BYTES];
    assert_null(k->token);
    s3_keys_signing(k, "20130524T000000Z", "us-east-1", a);
    s3_keys_signing(k, "20130524T235959Z", "us-east-1", b);
    assert_memory_equal(a, b, sizeof(a));
    s3_keys_signing(k, "20130525T000000Z", "us-east-1", b);
    assert_memory_not_equal(a, b, sizeof(a));
    s3_keys_signing(k, "20130524T000000Z", "us-east-2", b);
    assert_memory_not_equal(a, b, sizeof(a));
    s3_keys_unref(k);
}

static void dates(void **state)
{
    char out[17];
    s3_sign_date(1369353600, out);
    assert_string_equal(out, S3_DATE);
    s3_sign_date(1440938160, out);
    assert_string_equal(out, SUITE_DATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_suite),
        cmocka_unit_test(s3_documentation),
        cmocka_unit_test(keys_are_of_a_day_and_region),
        cmocka_unit_test(dates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
