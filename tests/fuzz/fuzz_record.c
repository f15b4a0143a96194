/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Records of the index: first byte chooses the kind, the next 20 are the key, the rest is the
 * value. What decodes must encode to the same bytes, but for the check in front, which counts for
 * nothing in a fuzzer's build.
 */
#include "cache/record.h"

#include <stdlib.h>

#define KEY_MAX 20

static void check(bool same)
{
    if (!same)
        abort();
}

static void fuzz_obj(const uint8_t *key, const uint8_t *val, size_t n)
{
    struct zc_objid id;
    struct rec_obj o;
    uint8_t buf[REC_OBJ_MAX], k[REC_OBJ_KEY];
    if (rec_obj_decode(key, REC_OBJ_KEY, val, n, &id, &o) < 0)
        return;
    rec_obj_key(k, id);
    check(memcmp(k, key, sizeof(k)) == 0);
    check(rec_obj_encode(buf, id, &o) == n && memcmp(buf + 4, val + 4, n - 4) == 0);
}

static void fuzz_loc(const uint8_t *key, const uint8_t *val, size_t n)
{
    struct zc_objid id;
    struct rec_loc l;
    uint32_t chunk;
    uint8_t buf[REC_LOC_LEN];
    if (rec_loc_decode(key, REC_LOC_KEY, val, n, &id, &chunk, &l) < 0)
        return;
    rec_loc_encode(buf, id, chunk, &l);
    check(memcmp(buf + 4, val + 4, n - 4) == 0);
}

static void fuzz_lst(const uint8_t *key, const uint8_t *val, size_t n)
{
    struct zc_digest dir;
    uint32_t page;
    const void *p;
    size_t len;
    uint8_t head[REC_LST_HEAD];
    if (rec_lst_decode(key, REC_LST_KEY, val, n, &dir, &page, &p, &len) < 0)
        return;
    rec_lst_head(head, dir, page, p, len);
    check(memcmp(head + 4, val + 4, sizeof(head) - 4) == 0);
}

static void fuzz_rest(const uint8_t *val, size_t n)
{
    struct rec_place place;
    struct rec_meta meta;
    struct rec_seal seal;
    uint8_t buf[64];
    if (rec_place_decode(val, n, &place) == 0) {
        rec_place_encode(buf, &place);
        check(memcmp(buf, val, n) == 0);
    }
    if (rec_meta_decode(val, n, &meta) == 0) {
        rec_meta_encode(buf, &meta);
        check(memcmp(buf + 4, val + 4, n - 4) == 0);
    }
    if (rec_seal_decode(val, n, &seal) == 0) {
        rec_seal_encode(buf, &seal);
        check(memcmp(buf, val, n) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1 + KEY_MAX)
        return 0;
    const uint8_t *key = data + 1, *val = key + KEY_MAX;
    size_t n = size - 1 - KEY_MAX;
    switch (data[0] % 4) {
    case 0:
        fuzz_obj(key, val, n);
        break;
    case 1:
        fuzz_loc(key, val, n);
        break;
    case 2:
        fuzz_lst(key, val, n);
        break;
    case 3:
        fuzz_rest(val, n);
        break;
    }
    return 0;
}
