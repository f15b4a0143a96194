/* SPDX-License-Identifier: Apache-2.0 */
/* The bytes on disk. The expected ones were made by another program (Python's xxhash), not by this
 * code. */
#include "cache/record.h"

#include "unit.h"
#include <errno.h>
#include <stdio.h>

static struct zc_objid golden_id(void)
{
    return zc_objid_of("s3://bucket/prefix", "train/n01/a.jpg", "\"etag\"", 109384);
}

static size_t unhex(const char *hex, uint8_t *out)
{
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n; i++) {
        unsigned v;
        assert_int_equal(sscanf(hex + 2 * i, "%2x", &v), 1);
        out[i] = (uint8_t)v;
    }
    return n;
}

static void assert_bytes(const void *p, size_t n, const char *hex)
{
    uint8_t want[512];
    assert_int_equal(unhex(hex, want), n);
    assert_memory_equal(p, want, n);
}

static void test_objid_and_loc(void **state)
{
    uint8_t key[REC_LOC_KEY], d[ZC_DIGEST_BYTES];
    rec_obj_key(key, golden_id());
    assert_bytes(key, REC_OBJ_KEY, "d3217ec93c1bcbaa9d853eb7e3959d52");
    rec_loc_key(key, golden_id(), 258);
    assert_bytes(key, REC_LOC_KEY, "d3217ec93c1bcbaa9d853eb7e3959d5200000102");
    zc_digest_store(d, zc_rec_loc_digest(golden_id(), 258));
    assert_bytes(d, sizeof(d), "ac7e08e2cd5f110b6dca862388b57e73");
}

static void test_objid_tells_fields_apart(void **state)
{
    struct zc_objid a = zc_objid_of("ab", "c", "v", 1);
    assert_false(zc_digest_eq(a.id, zc_objid_of("a", "bc", "v", 1).id));
    assert_false(zc_digest_eq(a.id, zc_objid_of("ab", "cv", "", 1).id));
    assert_false(zc_digest_eq(a.id, zc_objid_of("ab", "c", "v", 2).id));
    assert_true(zc_digest_eq(a.id, zc_objid_of("ab", "c", "v", 1).id));
}

static void test_obj(void **state)
{
    uint8_t key[REC_OBJ_KEY], buf[REC_OBJ_MAX];
    struct rec_obj o = {.size = 109384,
                        .chunk_size = 4 << 20,
                        .complete = true,
                        .source = "s3://bucket/prefix",
                        .path = "train/n01/a.jpg",
                        .source_len = 18,
                        .path_len = 15},
                   got;
    struct zc_objid id;
    size_t n = rec_obj_encode(buf, golden_id(), &o);
    assert_bytes(
        buf, n,
        "f9b4f698010112000f0000000000400048ab01000000000073333a2f2f6275636b65742f707265666978"
        "747261696e2f6e30312f612e6a7067");
    rec_obj_key(key, golden_id());
    assert_int_equal(rec_obj_decode(key, sizeof(key), buf, n, &id, &got), 0);
    assert_true(zc_digest_eq(id.id, golden_id().id));
    assert_int_equal(got.size, 109384);
    assert_int_equal(got.chunk_size, 4 << 20);
    assert_true(got.complete);
    assert_int_equal(got.source_len, 18);
    assert_int_equal(got.path_len, 15);
    assert_memory_equal(got.path, "train/n01/a.jpg", 15);
    for (size_t i = 0; i < n; i++) { /* any one byte */
        buf[i] ^= 0x10;
        assert_int_equal(rec_obj_decode(key, sizeof(key), buf, n, &id, &got), -EBADMSG);
        buf[i] ^= 0x10;
    }
    for (size_t i = 0; i < n; i++) /* any shorter one */
        assert_int_equal(rec_obj_decode(key, sizeof(key), buf, i, &id, &got), -EBADMSG);
    key[3] ^= 1; /* under another key */
    assert_int_equal(rec_obj_decode(key, sizeof(key), buf, n, &id, &got), -EBADMSG);
}

static void test_obj_cuts_long_strings(void **state)
{
    uint8_t key[REC_OBJ_KEY], buf[REC_OBJ_MAX];
    static char path[2 * REC_STRING_MAX];
    struct zc_objid id;
    struct rec_obj o = {.chunk_size = 65536, .source = "", .path = path, .path_len = sizeof(path)},
                   got;
    memset(path, 'p', sizeof(path));
    size_t n = rec_obj_encode(buf, golden_id(), &o);
    rec_obj_key(key, golden_id());
    assert_int_equal(rec_obj_decode(key, sizeof(key), buf, n, &id, &got), 0);
    assert_int_equal(got.path_len, REC_STRING_MAX);
}

static void test_loc(void **state)
{
    uint8_t key[REC_LOC_KEY], buf[REC_LOC_LEN];
    struct rec_loc l = {.sum = zc_digest_of(0, "hello", 5), .seen = 1790000000}, got;
    struct zc_objid id;
    uint32_t chunk;
    rec_loc_key(key, golden_id(), 258);
    rec_loc_encode(buf, golden_id(), 258, &l);
    assert_bytes(buf, sizeof(buf), "313e6101803bb16ab5e9c1ad071b3e7fc779cfaa5e523818");
    assert_int_equal(rec_loc_decode(key, sizeof(key), buf, sizeof(buf), &id, &chunk, &got), 0);
    assert_int_equal(chunk, 258);
    assert_int_equal(got.seen, 1790000000);
    assert_true(zc_digest_eq(got.sum, l.sum));
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 1;
        assert_int_equal(rec_loc_decode(key, sizeof(key), buf, sizeof(buf), &id, &chunk, &got),
                         -EBADMSG);
        buf[i] ^= 1;
    }
    key[19] ^= 1;
    assert_int_equal(rec_loc_decode(key, sizeof(key), buf, sizeof(buf), &id, &chunk, &got),
                     -EBADMSG);
}

static void test_place(void **state)
{
    uint8_t buf[REC_PLACE_LEN];
    struct rec_place p = {.id = golden_id(), .chunk = 258, .len = 109384}, got;
    rec_place_encode(buf, &p);
    assert_bytes(buf, sizeof(buf), "d3217ec93c1bcbaa9d853eb7e3959d520201000048ab0100");
    assert_int_equal(rec_place_decode(buf, sizeof(buf), &got), 0);
    assert_int_equal(got.chunk, 258);
    assert_int_equal(got.len, 109384);
    assert_int_equal(rec_place_decode(buf, sizeof(buf) - 1, &got), -EBADMSG);
}

static void test_lst(void **state)
{
    uint8_t key[REC_LST_KEY], buf[REC_LST_HEAD + 4];
    struct zc_digest dir = zc_digest_of(0, "train", 5), d;
    uint32_t page;
    const void *p;
    size_t n;
    rec_lst_key(key, dir, 3);
    assert_bytes(key, sizeof(key), "69c188b730d3cb9dd2071534f3c3bb9b00000003");
    rec_lst_head(buf, dir, 3, "page", 4);
    memcpy(buf + REC_LST_HEAD, "page", 4);
    assert_bytes(buf, sizeof(buf), "e6521c0f0100000070616765");
    assert_int_equal(rec_lst_decode(key, sizeof(key), buf, sizeof(buf), &d, &page, &p, &n), 0);
    assert_true(zc_digest_eq(d, dir));
    assert_int_equal(page, 3);
    assert_int_equal(n, 4);
    assert_memory_equal(p, "page", 4);
    buf[9] ^= 4;
    assert_int_equal(rec_lst_decode(key, sizeof(key), buf, sizeof(buf), &d, &page, &p, &n),
                     -EBADMSG);
    rec_lst_head(buf, dir, 3, NULL, 0); /* an empty page is one, too */
    assert_int_equal(rec_lst_decode(key, sizeof(key), buf, REC_LST_HEAD, &d, &page, &p, &n), 0);
    assert_int_equal(n, 0);
}

static void test_meta(void **state)
{
    uint8_t buf[REC_META_LEN];
    struct rec_meta m = {.seed = 0x1122334455667788, .chunk_size = 4 << 20}, got;
    rec_meta_encode(buf, &m);
    assert_bytes(buf, sizeof(buf), "37a2b7690100000088776655443322110000400000000000");
    assert_int_equal(rec_meta_decode(buf, sizeof(buf), &got), 0);
    assert_int_equal(got.seed, m.seed);
    assert_int_equal(got.chunk_size, m.chunk_size);
    buf[8] ^= 1;
    assert_int_equal(rec_meta_decode(buf, sizeof(buf), &got), -EBADMSG);
}

static void test_seal(void **state)
{
    uint8_t buf[REC_SEAL_LEN];
    struct rec_seal s = {.bytes = 5304320, .sum = zc_digest_of(0, "hello", 5)}, got;
    for (uint8_t i = 0; i < 16; i++)
        s.boot[i] = i;
    rec_seal_encode(buf, &s);
    assert_bytes(buf, sizeof(buf),
                 "7a637365616c3031000102030405060708090a0b0c0d0e0f00f0500000000000b5e9c1ad071b3e7f"
                 "c779cfaa5e5238184c2c9f53cb391e23");
    assert_int_equal(rec_seal_decode(buf, sizeof(buf), &got), 0);
    assert_int_equal(got.bytes, s.bytes);
    assert_memory_equal(got.boot, s.boot, 16);
    for (size_t i = 0; i < sizeof(buf); i++) {
        buf[i] ^= 0x80;
        assert_int_equal(rec_seal_decode(buf, sizeof(buf), &got), -EBADMSG);
        buf[i] ^= 0x80;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_objid_and_loc), cmocka_unit_test(test_objid_tells_fields_apart),
        cmocka_unit_test(test_obj),           cmocka_unit_test(test_obj_cuts_long_strings),
        cmocka_unit_test(test_loc),           cmocka_unit_test(test_place),
        cmocka_unit_test(test_lst),           cmocka_unit_test(test_meta),
        cmocka_unit_test(test_seal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
