/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The check covers the key, so that a value that ended up under another key is noticed too. The sum
 * database has none: its records are derived from loc, are made anew with it after an unclean end,
 * and whoever follows one compares the bytes' own sum.
 */
#include "cache/record.h"

#include <errno.h>

static void put16(uint8_t *p, uint16_t v)
{
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static void put32(uint8_t *p, uint32_t v)
{
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static void put64(uint8_t *p, uint64_t v)
{
    put32(p, (uint32_t)v);
    put32(p + 4, (uint32_t)(v >> 32));
}

static void put32be(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}

static uint16_t get16(const uint8_t *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static uint32_t get32(const uint8_t *p)
{
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static uint64_t get64(const uint8_t *p)
{
    return get32(p) | (uint64_t)get32(p + 4) << 32;
}

static uint32_t get32be(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* val[0..4) is the check's own place. `tail` follows val where the value is not in one piece. */
static uint32_t rec_check(const void *key, size_t key_len, const uint8_t *val, size_t val_len,
                          const void *tail, size_t tail_len)
{
    uint64_t h = zc_hash64(val_len + tail_len, key, key_len);
    h = zc_hash64(h, val + 4, val_len - 4);
    if (tail_len)
        h = zc_hash64(h, tail, tail_len);
    return (uint32_t)h;
}

/* A fuzzer would not find a value with the right check in a lifetime: in its builds any will do. */
static bool rec_checked(uint32_t is, uint32_t should)
{
#ifdef FUZZING_BUILD_MODE_UNSAFE_FOR_PRODUCTION
    return true;
#else
    return is == should;
#endif
}

void rec_obj_key(uint8_t out[REC_OBJ_KEY], struct zc_objid id)
{
    zc_digest_store(out, id.id);
}

size_t rec_obj_encode(uint8_t out[REC_OBJ_MAX], struct zc_objid id, const struct rec_obj *o)
{
    uint8_t key[REC_OBJ_KEY];
    size_t sl = ZC_MIN(o->source_len, (size_t)REC_STRING_MAX);
    size_t pl = ZC_MIN(o->path_len, (size_t)REC_STRING_MAX);
    out[4] = REC_FORMAT;
    out[5] = o->complete ? 1 : 0;
    put16(out + 6, (uint16_t)sl);
    put16(out + 8, (uint16_t)pl);
    put16(out + 10, 0);
    put32(out + 12, o->chunk_size);
    put64(out + 16, o->size);
    if (sl)
        memcpy(out + REC_OBJ_HEAD, o->source, sl);
    if (pl)
        memcpy(out + REC_OBJ_HEAD + sl, o->path, pl);
    size_t n = REC_OBJ_HEAD + sl + pl;
    rec_obj_key(key, id);
    put32(out, rec_check(key, sizeof(key), out, n, NULL, 0));
    return n;
}

int rec_obj_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_objid *id, struct rec_obj *out)
{
    const uint8_t *v = val;
    if (key_len != REC_OBJ_KEY || val_len < REC_OBJ_HEAD || val_len > REC_OBJ_MAX)
        return -EBADMSG;
    size_t sl = get16(v + 6), pl = get16(v + 8);
    uint32_t cs = get32(v + 12);
    if (v[4] != REC_FORMAT || v[5] > 1 || get16(v + 10) != 0 || sl > REC_STRING_MAX ||
        pl > REC_STRING_MAX || val_len != REC_OBJ_HEAD + sl + pl || cs == 0 ||
        (cs & (cs - 1)) != 0 ||
        !rec_checked(get32(v), rec_check(key, key_len, v, val_len, NULL, 0)))
        return -EBADMSG;
    id->id = zc_digest_load(key);
    *out = (struct rec_obj){
        .size = get64(v + 16),
        .chunk_size = cs,
        .complete = v[5] == 1,
        .source = (const char *)v + REC_OBJ_HEAD,
        .source_len = sl,
        .path = (const char *)v + REC_OBJ_HEAD + sl,
        .path_len = pl,
    };
    return 0;
}

void rec_loc_key(uint8_t out[REC_LOC_KEY], struct zc_objid id, uint32_t chunk)
{
    zc_digest_store(out, id.id);
    put32be(out + 16, chunk);
}

void rec_loc_encode(uint8_t out[REC_LOC_LEN], struct zc_objid id, uint32_t chunk,
                    const struct rec_loc *l)
{
    uint8_t key[REC_LOC_KEY];
    rec_loc_key(key, id, chunk);
    put32(out + 4, l->seen);
    zc_digest_store(out + 8, l->sum);
    put32(out, rec_check(key, sizeof(key), out, REC_LOC_LEN, NULL, 0));
}

int rec_loc_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_objid *id, uint32_t *chunk, struct rec_loc *out)
{
    const uint8_t *k = key, *v = val;
    if (key_len != REC_LOC_KEY || val_len != REC_LOC_LEN ||
        !rec_checked(get32(v), rec_check(key, key_len, v, val_len, NULL, 0)))
        return -EBADMSG;
    id->id = zc_digest_load(k);
    *chunk = get32be(k + 16);
    out->seen = get32(v + 4);
    out->sum = zc_digest_load(v + 8);
    return 0;
}

struct zc_digest zc_rec_loc_digest(struct zc_objid id, uint32_t chunk)
{
    uint8_t key[REC_LOC_KEY];
    rec_loc_key(key, id, chunk);
    return zc_digest_of(0, key, sizeof(key));
}

void rec_place_encode(uint8_t out[REC_PLACE_LEN], const struct rec_place *p)
{
    zc_digest_store(out, p->id.id);
    put32(out + 16, p->chunk);
    put32(out + 20, p->len);
}

int rec_place_decode(const void *val, size_t val_len, struct rec_place *out)
{
    const uint8_t *v = val;
    if (val_len != REC_PLACE_LEN)
        return -EBADMSG;
    out->id.id = zc_digest_load(v);
    out->chunk = get32(v + 16);
    out->len = get32(v + 20);
    return 0;
}

void rec_lst_key(uint8_t out[REC_LST_KEY], struct zc_digest dir, uint32_t page)
{
    zc_digest_store(out, dir);
    put32be(out + 16, page);
}

void rec_lst_head(uint8_t out[REC_LST_HEAD], struct zc_digest dir, uint32_t page, const void *p,
                  size_t n)
{
    uint8_t key[REC_LST_KEY];
    rec_lst_key(key, dir, page);
    put32(out + 4, REC_FORMAT);
    put32(out, rec_check(key, sizeof(key), out, REC_LST_HEAD, p, n));
}

int rec_lst_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_digest *dir, uint32_t *page, const void **p, size_t *n)
{
    const uint8_t *k = key, *v = val;
    if (key_len != REC_LST_KEY || val_len < REC_LST_HEAD || get32(v + 4) != REC_FORMAT ||
        !rec_checked(get32(v), rec_check(key, key_len, v, REC_LST_HEAD, v + REC_LST_HEAD,
                                         val_len - REC_LST_HEAD)))
        return -EBADMSG;
    *dir = zc_digest_load(k);
    *page = get32be(k + 16);
    *p = v + REC_LST_HEAD;
    *n = val_len - REC_LST_HEAD;
    return 0;
}

void rec_meta_encode(uint8_t out[REC_META_LEN], const struct rec_meta *m)
{
    put32(out + 4, REC_FORMAT);
    put64(out + 8, m->seed);
    put64(out + 16, m->chunk_size);
    put32(out, rec_check(REC_META_KEY, strlen(REC_META_KEY), out, REC_META_LEN, NULL, 0));
}

int rec_meta_decode(const void *val, size_t val_len, struct rec_meta *out)
{
    const uint8_t *v = val;
    if (val_len != REC_META_LEN || get32(v + 4) != REC_FORMAT ||
        !rec_checked(get32(v), rec_check(REC_META_KEY, strlen(REC_META_KEY), v, val_len, NULL, 0)))
        return -EBADMSG;
    out->seed = get64(v + 8);
    out->chunk_size = get64(v + 16);
    return 0;
}

static const char seal_magic[8] = {'z', 'c', 's', 'e', 'a', 'l', '0', '1'};

void rec_seal_encode(uint8_t out[REC_SEAL_LEN], const struct rec_seal *s)
{
    memcpy(out, seal_magic, 8);
    memcpy(out + 8, s->boot, 16);
    put64(out + 24, s->bytes);
    zc_digest_store(out + 32, s->sum);
    put64(out + 48, zc_hash64(0, out, 48));
}

int rec_seal_decode(const void *p, size_t n, struct rec_seal *out)
{
    const uint8_t *v = p;
    if (n != REC_SEAL_LEN || memcmp(v, seal_magic, 8) != 0 || get64(v + 48) != zc_hash64(0, v, 48))
        return -EBADMSG;
    memcpy(out->boot, v + 8, 16);
    out->bytes = get64(v + 24);
    out->sum = zc_digest_load(v + 32);
    return 0;
}
