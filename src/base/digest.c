/* SPDX-License-Identifier: Apache-2.0 */
#include "base/digest.h"

#include <errno.h>
#ifdef ZC_XXH_DISPATCH
#include <xxh_x86dispatch.h> /* half the time of what the baseline's vectors take */
#else
#include <xxhash.h>
#endif

struct zc_hasher {
    XXH3_state_t *state;
};

static struct zc_digest digest_from(XXH128_hash_t h)
{
    return (struct zc_digest){.hi = h.high64, .lo = h.low64};
}

struct zc_digest zc_digest_of(uint64_t seed, const void *p, size_t n)
{
    return digest_from(XXH3_128bits_withSeed(p, n, seed));
}

struct zc_hasher *zc_hasher_new(uint64_t seed)
{
    struct zc_hasher *h = malloc(sizeof(*h));
    if (!h)
        return NULL;
    h->state = XXH3_createState();
    if (!h->state) {
        free(h);
        return NULL;
    }
    zc_hasher_reset(h, seed);
    return h;
}

void zc_hasher_reset(struct zc_hasher *h, uint64_t seed)
{
    XXH3_128bits_reset_withSeed(h->state, seed);
}

void zc_hasher_add(struct zc_hasher *h, const void *p, size_t n)
{
    XXH3_128bits_update(h->state, p, n);
}

struct zc_digest zc_hasher_digest(const struct zc_hasher *h)
{
    return digest_from(XXH3_128bits_digest(h->state));
}

void zc_hasher_free(struct zc_hasher *h)
{
    if (!h)
        return;
    XXH3_freeState(h->state);
    free(h);
}

void zc_digest_store(uint8_t out[ZC_DIGEST_BYTES], struct zc_digest d)
{
    XXH128_canonical_t c;
    XXH128_canonicalFromHash(&c, (XXH128_hash_t){.low64 = d.lo, .high64 = d.hi});
    memcpy(out, c.digest, ZC_DIGEST_BYTES);
}

struct zc_digest zc_digest_load(const uint8_t in[ZC_DIGEST_BYTES])
{
    XXH128_canonical_t c;
    memcpy(c.digest, in, ZC_DIGEST_BYTES);
    return digest_from(XXH128_hashFromCanonical(&c));
}

void zc_digest_hex(char out[ZC_DIGEST_HEX + 1], struct zc_digest d)
{
    static const char hex[] = "0123456789abcdef";
    uint8_t b[ZC_DIGEST_BYTES];
    zc_digest_store(b, d);
    for (size_t i = 0; i < ZC_DIGEST_BYTES; i++) {
        out[2 * i] = hex[b[i] >> 4];
        out[2 * i + 1] = hex[b[i] & 15];
    }
    out[ZC_DIGEST_HEX] = '\0';
}

static int digest_nibble(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

int zc_digest_parse(const char *s, struct zc_digest *out)
{
    uint8_t b[ZC_DIGEST_BYTES];
    for (size_t i = 0; i < ZC_DIGEST_BYTES; i++) {
        int h = digest_nibble(s[2 * i]);
        int l = h < 0 ? -1 : digest_nibble(s[2 * i + 1]);
        if (l < 0)
            return -EINVAL;
        b[i] = (uint8_t)(h << 4 | l);
    }
    *out = zc_digest_load(b);
    return 0;
}

uint64_t zc_hash64(uint64_t seed, const void *p, size_t n)
{
    return XXH3_64bits_withSeed(p, n, seed);
}
