/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of the index: keys and values, and of the seal beside it. Pure: no I/O, no state.
 *
 * Integers are little endian, but for the chunk and page numbers in keys, which are big endian so
 * that they sort as numbers. Digests are in their canonical form (base/digest.h). Every value that
 * can be wrong without a checksum of the content noticing it carries a check: the low 32 bits of
 * XXH3-64 over the key and the rest of the value. Decoders return 0, or -EBADMSG for what they did
 * not write.
 *
 *   obj   key    objid 16
 *         value  check 4, format 1, flags 1, source length 2, path length 2, zero 2,
 *                chunk size 4, size 8, source, path
 *   loc   key    objid 16, chunk 4 (BE)
 *         value  check 4, seen 4 (seconds since the epoch), sum 16
 *   sum   key    sum 16
 *         value  objid 16, chunk 4, length 4 (several: MDB_DUPSORT)
 *   lst   key    directory 16, page 4 (BE)
 *         value  check 4, format 1, zero 3, the page as it was given
 *   meta  key    "meta"
 *         value  check 4, format 4, seed 8, chunk size 8
 *
 * A loc is named here by (objid, chunk) itself. Elsewhere it is 16 bytes, zc_rec_loc_digest: a
 * digest of just these two, and the objid is one of source, path, version and size; so each names
 * the same chunk, and the pair has two advantages here: an object's chunks lie side by side and go
 * with one range delete.
 */
#ifndef ZC_CACHE_RECORD_H
#define ZC_CACHE_RECORD_H

#include "cache/cache.h"

#define REC_FORMAT 1
/* Bytes of a source or a path; longer ones are cut, they only inform. */
#define REC_STRING_MAX 4096

struct rec_obj {
    uint64_t size;
    uint32_t chunk_size;
    bool complete;             /* every chunk has its loc */
    const char *source, *path; /* not NUL-terminated after decoding: point into the value */
    size_t source_len, path_len;
};
#define REC_OBJ_KEY 16
#define REC_OBJ_HEAD 24
#define REC_OBJ_MAX (REC_OBJ_HEAD + 2 * REC_STRING_MAX)
void rec_obj_key(uint8_t out[REC_OBJ_KEY], struct zc_objid id);
/* Bytes written to out. */
size_t rec_obj_encode(uint8_t out[REC_OBJ_MAX], struct zc_objid id, const struct rec_obj *o);
int rec_obj_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_objid *id, struct rec_obj *out);

struct rec_loc {
    struct zc_digest sum;
    uint32_t seen;
};
#define REC_LOC_KEY 20
#define REC_LOC_LEN 24
void rec_loc_key(uint8_t out[REC_LOC_KEY], struct zc_objid id, uint32_t chunk);
void rec_loc_encode(uint8_t out[REC_LOC_LEN], struct zc_objid id, uint32_t chunk,
                    const struct rec_loc *l);
int rec_loc_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_objid *id, uint32_t *chunk, struct rec_loc *out);
/* What the ring knows the chunk by. */
struct zc_digest zc_rec_loc_digest(struct zc_objid id, uint32_t chunk);

struct rec_place {
    struct zc_objid id;
    uint32_t chunk, len;
};
#define REC_SUM_KEY 16
#define REC_PLACE_LEN 24
void rec_place_encode(uint8_t out[REC_PLACE_LEN], const struct rec_place *p);
int rec_place_decode(const void *val, size_t val_len, struct rec_place *out);

#define REC_LST_KEY 20
#define REC_LST_HEAD 8
void rec_lst_key(uint8_t out[REC_LST_KEY], struct zc_digest dir, uint32_t page);
void rec_lst_head(uint8_t out[REC_LST_HEAD], struct zc_digest dir, uint32_t page, const void *p,
                  size_t n);
/* *p points into the value. */
int rec_lst_decode(const void *key, size_t key_len, const void *val, size_t val_len,
                   struct zc_digest *dir, uint32_t *page, const void **p, size_t *n);

struct rec_meta {
    uint64_t seed, chunk_size;
};
#define REC_META_KEY "meta"
#define REC_META_LEN 24
void rec_meta_encode(uint8_t out[REC_META_LEN], const struct rec_meta *m);
int rec_meta_decode(const void *val, size_t val_len, struct rec_meta *out);

/* index.sum: written when the index was closed in order. */
struct rec_seal {
    uint8_t boot[16];     /* /proc/sys/kernel/random/boot_id of then */
    uint64_t bytes;       /* of index.mdb */
    struct zc_digest sum; /* of these, seed 0 */
};
#define REC_SEAL_LEN 56
void rec_seal_encode(uint8_t out[REC_SEAL_LEN], const struct rec_seal *s);
int rec_seal_decode(const void *p, size_t n, struct rec_seal *out);

#endif
