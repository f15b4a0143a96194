/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 128-bit digests: the content hash of chunks and the name of locs and objects.
 * XXH3-128 (https://github.com/Cyan4973/xxHash, doc/xxhash_spec.md), with a seed.
 * Serialised in XXH128's canonical form (big endian, high half first).
 */
#ifndef ZC_DIGEST_H
#define ZC_DIGEST_H

#include "base/base.h"
#include <string.h>
#include <sys/types.h>

struct zc_digest {
    uint64_t hi, lo;
};

struct zc_hasher; /* streaming state */

struct zc_digest zc_digest_of(uint64_t seed, const void *p, size_t n);
/* NULL when memory is short. */
struct zc_hasher *zc_hasher_new(uint64_t seed);
void zc_hasher_reset(struct zc_hasher *h, uint64_t seed);
void zc_hasher_add(struct zc_hasher *h, const void *p, size_t n);
struct zc_digest zc_hasher_digest(const struct zc_hasher *h);
void zc_hasher_free(struct zc_hasher *h);

#define ZC_DIGEST_BYTES 16
#define ZC_DIGEST_HEX 32
void zc_digest_store(uint8_t out[ZC_DIGEST_BYTES], struct zc_digest d);
struct zc_digest zc_digest_load(const uint8_t in[ZC_DIGEST_BYTES]);
/* Lower-case hex with a NUL. */
void zc_digest_hex(char out[ZC_DIGEST_HEX + 1], struct zc_digest d);
/* -EINVAL unless s starts with 32 hex digits. */
int zc_digest_parse(const char *s, struct zc_digest *out);

static inline bool zc_digest_eq(struct zc_digest a, struct zc_digest b)
{
    return a.hi == b.hi && a.lo == b.lo;
}

/* 64-bit hash of a name, for tables in memory. */
uint64_t zc_hash64(uint64_t seed, const void *p, size_t n);

#endif
