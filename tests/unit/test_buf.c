/* SPDX-License-Identifier: Apache-2.0 */
#include "base/buf.h"

#include "unit.h"
#include <errno.h>
#include <string.h>

static void test_grows_and_stays_terminated(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(zc_buf_addc(&b, (char)('a' + i % 26)), 0);
        assert_int_equal(b.len, i + 1);
        assert_int_equal(strlen(b.p), b.len);
    }
    assert_int_equal(zc_buf_add(&b, "\0x", 2), 0);
    assert_int_equal(b.len, 1002);
    assert_memory_equal(b.p + 1000, "\0x", 3);
}

static void test_adding_nothing(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_add(&b, NULL, 0), 0);
    assert_int_equal(b.len, 0);
    assert_string_equal(b.p, "");
}

static void test_ceiling_sticks(void **state)
{
    zc_autobuf struct zc_buf b = {.max = 8};
    assert_int_equal(zc_buf_adds(&b, "12345678"), 0);
    assert_int_equal(zc_buf_addc(&b, '9'), -EMSGSIZE);
    assert_string_equal(b.p, "12345678");
    assert_true(b.failed);
    /* A later append that would fit fails as well: a hole in the middle must not go unseen. */
    b.len = 0;
    assert_int_not_equal(zc_buf_addc(&b, 'x'), 0);
    zc_buf_reset(&b);
    assert_int_equal(zc_buf_adds(&b, "again"), 0);
    assert_string_equal(b.p, "again");
}

static void test_ceiling_does_not_overflow(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_adds(&b, "x"), 0);
    assert_int_equal(zc_buf_reserve(&b, SIZE_MAX), -EMSGSIZE);
    zc_autobuf struct zc_buf c = {0};
    assert_int_equal(zc_buf_adds(&c, "x"), 0);
    assert_int_equal(zc_buf_reserve(&c, SIZE_MAX - 1), -EMSGSIZE);
}

static void test_default_ceiling_is_64_mib(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_reserve(&b, (size_t)64 << 20), 0);
    zc_autobuf struct zc_buf c = {0};
    assert_int_equal(zc_buf_reserve(&c, ((size_t)64 << 20) + 1), -EMSGSIZE);
}

static void test_format(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_addf(&b, "%s=%d;", "a", 7), 0);
    assert_int_equal(zc_buf_addf(&b, "%0500d", 1), 0);
    assert_int_equal(b.len, 504);
    assert_int_equal(strncmp(b.p, "a=7;000", 7), 0);
    assert_int_equal(b.p[503], '1');
    b.max = 510;
    assert_int_equal(zc_buf_addf(&b, "%s", "1234567"), -EMSGSIZE);
    assert_int_equal(b.len, 504);
}

static void test_reserve_then_fill(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_reserve(&b, 100), 0);
    memset(b.p + b.len, 'z', 100);
    b.len += 100;
    assert_int_equal(zc_buf_adds(&b, "!"), 0);
    assert_int_equal(b.len, 101);
    assert_int_equal(b.p[100], '!');
}

static void test_urlenc(void **state)
{
    static const char all[] = "AZaz09-._~";
    zc_autobuf struct zc_buf b = {0};
    assert_int_equal(zc_buf_add_urlenc(&b, all, strlen(all), false), 0);
    assert_string_equal(b.p, all);
    zc_buf_reset(&b);
    assert_int_equal(zc_buf_add_urlenc(&b, "a b+c%/d", 8, true), 0);
    assert_string_equal(b.p, "a%20b%2Bc%25/d");
    zc_buf_reset(&b);
    assert_int_equal(zc_buf_add_urlenc(&b, "a/b", 3, false), 0);
    assert_string_equal(b.p, "a%2Fb");
    zc_buf_reset(&b);
    assert_int_equal(zc_buf_add_urlenc(&b, "\xc3\xa9\0\x7f!*'()", 9, false), 0);
    assert_string_equal(b.p, "%C3%A9%00%7F%21%2A%27%28%29");
    zc_buf_reset(&b);
    assert_int_equal(zc_buf_add_urlenc(&b, "", 0, false), 0);
    assert_string_equal(b.p, "");
}

static void test_steal(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    zc_autofree char *empty = zc_buf_steal(&b);
    assert_string_equal(empty, "");
    assert_int_equal(zc_buf_adds(&b, "text"), 0);
    zc_autofree char *s = zc_buf_steal(&b);
    assert_string_equal(s, "text");
    assert_null(b.p);
    assert_int_equal(b.len, 0);
    b.max = 1;
    assert_int_equal(zc_buf_adds(&b, "too long"), -EMSGSIZE);
    assert_null(zc_buf_steal(&b));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_grows_and_stays_terminated),
        cmocka_unit_test(test_adding_nothing),
        cmocka_unit_test(test_ceiling_sticks),
        cmocka_unit_test(test_ceiling_does_not_overflow),
        cmocka_unit_test(test_default_ceiling_is_64_mib),
        cmocka_unit_test(test_format),
        cmocka_unit_test(test_reserve_then_fill),
        cmocka_unit_test(test_urlenc),
        cmocka_unit_test(test_steal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
