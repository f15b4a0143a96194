/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "cli/progress.h"

#include <string.h>

static void counts(void **state)
{
    char b[32];
    assert_string_equal(zc_format_count(0, b, sizeof(b)), "0");
    assert_string_equal(zc_format_count(999, b, sizeof(b)), "999");
    assert_string_equal(zc_format_count(1000, b, sizeof(b)), "1,000");
    assert_string_equal(zc_format_count(UINT64_MAX, b, sizeof(b)), "18,446,744,073,709,551,615");
    assert_string_equal(zc_format_time(187, b, sizeof(b)), "3:07");
    assert_string_equal(zc_format_time(7387, b, sizeof(b)), "2:03:07");
}

static void rate_of_the_last_seconds(void **state)
{
    struct zc_rate r = {0};
    assert_int_equal(zc_rate_now(&r), 0);
    for (int i = 0; i < 100; i++)
        zc_rate_add(&r, i * ZC_NS_PER_S, (uint64_t)i * 10000);
    assert_int_equal(zc_rate_now(&r), 10000);
    for (int i = 100; i < 120; i++)
        zc_rate_add(&r, i * ZC_NS_PER_S, 990000);
    assert_int_equal(zc_rate_now(&r), 0);
}

static void a_bar_fits_its_terminal(void **state)
{
    struct zc_progress p = {.files_found = 20000,
                            .bytes_found = 2 * ZC_GIB,
                            .files_done = 10000,
                            .bytes_done = ZC_GIB,
                            .listed = true,
                            .failed = 3};
    struct zc_rate r = {.n = 2, .at = {{0, 0}, {ZC_NS_PER_S, 100 * ZC_MIB}}};
    for (unsigned columns = 1; columns < 200; columns++) {
        zc_autobuf struct zc_buf b = {0};
        zc_progress_bar(&p, &r, columns, &b);
        assert_true(b.len < ZC_MAX(columns, 2u));
    }
    zc_autobuf struct zc_buf b = {0};
    zc_progress_bar(&p, &r, 120, &b);
    assert_string_equal(
        b.p,
        "[###############...............] 10,000 of 20,000 files, 1.0 GiB of 2.0 GiB, 100.0 MiB/s, "
        "0:10 left, 3 failed");
    zc_buf_free(&b);
    b = (struct zc_buf){0};
    p.listed = false; /* then there is no share to draw, and no time to tell */
    p.failed = 0;
    zc_progress_bar(&p, &r, 120, &b);
    assert_string_equal(b.p, "10,000 of at least 20,000 files, 1.0 GiB of at least 2.0 GiB, "
                             "100.0 MiB/s, still listing");
}

static void the_summary(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    struct zc_progress p = {.files_found = 2,
                            .bytes_found = 2 * ZC_MIB,
                            .files_done = 2,
                            .bytes_done = 2 * ZC_MIB,
                            .files_hit = 1,
                            .bytes_hit = ZC_MIB,
                            .listed = true};
    zc_progress_summary(&p, ZC_NS_PER_S, false, &b);
    assert_string_equal(
        b.p,
        "warmed 2 files, 2.0 MiB: fetched 1.0 MiB, there before 1.0 MiB, in 1.0 s (1.0 MiB/s)");
    zc_buf_free(&b);
    b = (struct zc_buf){0};
    p.failed = 1;
    p.gone = 1200;
    zc_progress_summary(&p, ZC_NS_PER_S, false, &b);
    assert_non_null(strstr(b.p, "; 1 failed; 1,200 left the cache again"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(counts),
        cmocka_unit_test(rate_of_the_last_seconds),
        cmocka_unit_test(a_bar_fits_its_terminal),
        cmocka_unit_test(the_summary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
