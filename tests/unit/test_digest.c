/* SPDX-License-Identifier: Apache-2.0 */
/* Golden values: digests are on disk and on the wire, so that they may never change. Taken from
   another binding of the algorithm (Python's xxhash). */
#include "base/digest.h"

#include "unit.h"
#include <errno.h>

static void hex_is(struct zc_digest d, const char *want)
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, d);
    assert_string_equal(hex, want);
}

static void test_golden(void **state)
{
    hex_is(zc_digest_of(0, "", 0), "99aa06d3014798d86001c324468d497f");
    hex_is(zc_digest_of(0, "zcache", 6), "c98d9bd0265fdf8af8b893cbdc4bbdc7");
    hex_is(zc_digest_of(42, "zcache", 6), "857c96ae645cbbf388f27541952a71d0");
    uint8_t block[1 << 16];
    for (size_t i = 0; i < sizeof(block); i++)
        block[i] = (uint8_t)(i * 7 + (i >> 8));
    hex_is(zc_digest_of(0, block, sizeof(block)), "267bdd80b3f274499ae973f97c1f3eba");
    assert_true(zc_hash64(0, "zcache", 6) == 0x62a52163f541170d);
}

static void test_streaming_equals_whole(void **state)
{
    uint8_t data[10000];
    struct zc_hasher *h = zc_hasher_new(5);
    assert_non_null(h);
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (uint8_t)(i * 31);
    for (size_t step = 1; step <= sizeof(data); step = step * 3 + 1) {
        zc_hasher_reset(h, 9);
        for (size_t at = 0; at < sizeof(data); at += step)
            zc_hasher_add(h, data + at, ZC_MIN(step, sizeof(data) - at));
        assert_true(zc_digest_eq(zc_hasher_digest(h), zc_digest_of(9, data, sizeof(data))));
    }
    /* Asking does not end the stream. */
    zc_hasher_reset(h, 0);
    zc_hasher_add(h, data, 10);
    assert_true(zc_digest_eq(zc_hasher_digest(h), zc_digest_of(0, data, 10)));
    zc_hasher_add(h, data + 10, 10);
    assert_true(zc_digest_eq(zc_hasher_digest(h), zc_digest_of(0, data, 20)));
    zc_hasher_free(h);
    zc_hasher_free(NULL);
}

static void test_bytes(void **state)
{
    static const uint8_t want[ZC_DIGEST_BYTES] = {1, 2,  3,  4,  5,  6,  7,  8,
                                                  9, 10, 11, 12, 13, 14, 15, 16};
    struct zc_digest d = {.hi = 0x0102030405060708, .lo = 0x090a0b0c0d0e0f10};
    uint8_t got[ZC_DIGEST_BYTES];
    zc_digest_store(got, d);
    assert_memory_equal(got, want, sizeof(want));
    assert_true(zc_digest_eq(zc_digest_load(want), d));
    hex_is(d, "0102030405060708090a0b0c0d0e0f10");
}

static void test_parse(void **state)
{
    struct zc_digest d, kept = {.hi = 7, .lo = 7};
    assert_int_equal(zc_digest_parse("0102030405060708090a0b0c0d0e0f10.data", &d), 0);
    hex_is(d, "0102030405060708090a0b0c0d0e0f10");
    d = kept;
    assert_int_equal(zc_digest_parse("", &d), -EINVAL);
    assert_int_equal(zc_digest_parse("0102030405060708090a0b0c0d0e0f1", &d), -EINVAL);
    assert_int_equal(zc_digest_parse("0102030405060708090A0B0C0D0E0F10", &d), -EINVAL);
    assert_int_equal(zc_digest_parse("0102030405060708090a0b0c0d0e0f1g", &d), -EINVAL);
    assert_true(zc_digest_eq(d, kept));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_streaming_equals_whole),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_parse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
