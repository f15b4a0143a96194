/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include "unit.h"
#include <errno.h>
#include <string.h>

static void test_set_returns_its_code(void **state)
{
    struct zc_error e = {0};
    assert_int_equal(zc_error_set(&e, -ENOENT, "no bucket '%s'", "b"), -ENOENT);
    assert_int_equal(e.code, -ENOENT);
    assert_string_equal(e.text, "no bucket 'b'");
    assert_int_equal(zc_error_set(NULL, -EIO, "nobody listens"), -EIO);
}

static void test_prefix(void **state)
{
    struct zc_error e = {0};
    zc_error_set(&e, -EACCES, "refused");
    zc_error_prefix(&e, "s3://%s", "b");
    assert_string_equal(e.text, "s3://b: refused");
    assert_int_equal(e.code, -EACCES);
    zc_error_prefix(NULL, "nobody");
}

static void test_long_words_are_cut_not_overrun(void **state)
{
    struct zc_error e = {0};
    char big[5000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    zc_error_set(&e, -EIO, "%s", big);
    assert_int_equal(strlen(e.text), sizeof(e.text) - 1);
    zc_error_prefix(&e, "front");
    assert_int_equal(strncmp(e.text, "front: xxx", 10), 0);
    assert_true(strlen(e.text) < sizeof(e.text));
    zc_error_prefix(&e, "%s", big);
    assert_true(strlen(e.text) < sizeof(e.text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_set_returns_its_code),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_long_words_are_cut_not_overrun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
