/* SPDX-License-Identifier: Apache-2.0 */
#include "base/units.h"

#include "unit.h"
#include <errno.h>
#include <inttypes.h>
#include <locale.h>
#include <stdio.h>

static void test_sizes(void **state)
{
    static const struct {
        const char *s;
        uint64_t v;
    } good[] = {
        {"0B", 0},
        {"4096B", 4096},
        {"512KiB", 512 * ZC_KIB},
        {"8MiB", 8 * ZC_MIB},
        {"100GiB", 100 * ZC_GIB},
        {"1TiB", 1024 * ZC_GIB},
        {"1PiB", 1024 * 1024 * ZC_GIB},
        {"1KB", 1000},
        {"2MB", 2000000},
        {"3GB", 3000000000},
        {"1TB", 1000000000000},
        {"1PB", 1000000000000000},
        {"1.5GiB", 3 * ZC_GIB / 2},
        {".5KiB", 512},
        {"1.KiB", 1024},
        {"9223372036854775807B", INT64_MAX},
        {"4503599627370497B", 4503599627370497},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(good); i++) {
        uint64_t v = 1;
        if (zc_parse_size(good[i].s, &v) != 0 || v != good[i].v)
            fail_msg("%s -> %" PRIu64, good[i].s, v);
    }
}

static void test_sizes_refused(void **state)
{
    static const char *const bad[] = {
        "",     "100", "GiB",  "1 GiB", " 1GiB", "1GiB ", "-1GiB",  "+1GiB", "1gib",
        "1kib", "1G",  "1e3B", "0x10B", "infB",  "nanB",  "1,5GiB", "1..5B", ".B",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        uint64_t v = 77;
        if (zc_parse_size(bad[i], &v) != -EINVAL || v != 77)
            fail_msg("\"%s\" was taken", bad[i]);
    }
    uint64_t v = 77;
    assert_int_equal(zc_parse_size("9223372036854775808B", &v), -ERANGE);
    assert_int_equal(zc_parse_size("8192PiB", &v), -ERANGE);
    assert_int_equal(zc_parse_size("99999999999999999999999999999999999999PiB", &v), -ERANGE);
    assert_int_equal(v, 77);
}

static void test_durations(void **state)
{
    static const struct {
        const char *s;
        int64_t ns;
    } good[] = {
        {"0", 0},
        {"0s", 0},
        {"250ms", 250 * ZC_NS_PER_MS},
        {"60s", 60 * ZC_NS_PER_S},
        {"1.5s", 1500 * ZC_NS_PER_MS},
        {"5m", 300 * ZC_NS_PER_S},
        {"2h", 7200 * ZC_NS_PER_S},
        {"7d", 604800 * ZC_NS_PER_S},
    };
    static const char *const bad[] = {"", "5", "00", "s", "5 s", "5sec", "-5s", "5S", "1h30m"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(good); i++) {
        int64_t ns = -1;
        if (zc_parse_duration(good[i].s, &ns) != 0 || ns != good[i].ns)
            fail_msg("%s -> %" PRId64, good[i].s, ns);
    }
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        int64_t ns = 77;
        if (zc_parse_duration(bad[i], &ns) != -EINVAL || ns != 77)
            fail_msg("\"%s\" was taken", bad[i]);
    }
    int64_t ns;
    assert_int_equal(zc_parse_duration("999999999d", &ns), -ERANGE);
}

static void test_ratios(void **state)
{
    double v = 7;
    assert_int_equal(zc_parse_ratio("0.1", &v), 0);
    assert_float_equal(v, 0.1, 1e-12);
    assert_int_equal(zc_parse_ratio("10%", &v), 0);
    assert_float_equal(v, 0.1, 1e-12);
    assert_int_equal(zc_parse_ratio("0", &v), 0);
    assert_float_equal(v, 0, 0);
    assert_int_equal(zc_parse_ratio("1", &v), 0);
    assert_float_equal(v, 1, 0);
    assert_int_equal(zc_parse_ratio("100%", &v), 0);
    assert_float_equal(v, 1, 0);
    assert_int_equal(zc_parse_ratio("1.01", &v), -ERANGE);
    assert_int_equal(zc_parse_ratio("101%", &v), -ERANGE);
    assert_int_equal(zc_parse_ratio("-0.1", &v), -EINVAL);
    assert_int_equal(zc_parse_ratio("", &v), -EINVAL);
    assert_int_equal(zc_parse_ratio("%", &v), -EINVAL);
    assert_int_equal(zc_parse_ratio("0.1x", &v), -EINVAL);
    assert_float_equal(v, 1, 0);
}

static void test_numbers(void **state)
{
    uint64_t v = 77;
    assert_int_equal(zc_parse_uint("1", 1, 10, &v), 0);
    assert_int_equal(v, 1);
    assert_int_equal(zc_parse_uint("10", 1, 10, &v), 0);
    assert_int_equal(v, 10);
    assert_int_equal(zc_parse_uint("0", 1, 10, &v), -ERANGE);
    assert_int_equal(zc_parse_uint("11", 1, 10, &v), -ERANGE);
    assert_int_equal(zc_parse_uint("", 1, 10, &v), -EINVAL);
    assert_int_equal(zc_parse_uint("1x", 1, 10, &v), -EINVAL);
    assert_int_equal(zc_parse_uint(" 1", 1, 10, &v), -EINVAL);
    assert_int_equal(zc_parse_uint("-1", 1, 10, &v), -EINVAL);
    assert_int_equal(v, 10);
    assert_int_equal(zc_parse_uint("18446744073709551615", 0, UINT64_MAX, &v), 0);
    assert_true(v == UINT64_MAX);
    assert_int_equal(zc_parse_uint("18446744073709551616", 0, UINT64_MAX, &v), -ERANGE);
    assert_int_equal(zc_parse_uint("99999999999999999999999", 0, UINT64_MAX, &v), -ERANGE);
}

static void test_format(void **state)
{
    char b[24];
    assert_string_equal(zc_format_size(0, b, sizeof(b)), "0 B");
    assert_string_equal(zc_format_size(1023, b, sizeof(b)), "1023 B");
    assert_string_equal(zc_format_size(1024, b, sizeof(b)), "1.0 KiB");
    assert_string_equal(zc_format_size(3 * ZC_GIB / 2, b, sizeof(b)), "1.5 GiB");
    assert_string_equal(zc_format_size(UINT64_MAX, b, sizeof(b)), "16.0 EiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),     cmocka_unit_test(test_sizes_refused),
        cmocka_unit_test(test_durations), cmocka_unit_test(test_ratios),
        cmocka_unit_test(test_numbers),   cmocka_unit_test(test_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
