/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See ring.h. The draw of member i in a slot is u = mix64(hash_i ^ slotkey), in (0, 2^64), and its
 * score is -log2(u / 2^64) / weight: an exponential variable of that rate, so that the chance to
 * have the smallest one is proportional to the weight.
 *
 * The logarithm comes from a table of 4,097 values with linear interpolation, which is made here by
 * repeated squaring: libm's log() need not give the same last bit everywhere, and one different bit
 * would be a slot that two nodes ascribe to two owners. Its error is below 2e-8; it rises strictly,
 * so that for equal weights it does not matter at all.
 *
 * Scores are 128-bit integers on one scale for all rings. We do not scale them to the largest
 * weight that is there, although 64 bits would then do: rounding would depend on who is a member,
 * and with it, in rare slots, the order of two others.
 *
 * The memo is filled as slots are asked for, and is not carried from one ring to the next:
 * comparing 4 million slots with a newcomer costs more, at once, than most processes ever ask.
 */
#include "ring/ring.h"
#include "base/digest.h"

#include <stdatomic.h>
#include <string.h>

#define LOG_BITS 12 /* of the table's index */
#define LOG_ONE 44  /* log2 = 1 is 1 << LOG_ONE */

typedef unsigned __int128 u128;

struct zc_ring {
    atomic_uint refs;
    unsigned count;    /* that were given */
    unsigned weighted; /* those that have a weight: entries of the next three */
    uint64_t *hashes;
    u128 *rates; /* 1 / weight, times 2^(32 + 39) */
    uint32_t *places;
    u128 rate_min;
    uint64_t digest;
    double total;           /* of all weights, see ring_relative */
    uint8_t *weights;       /* in the order given */
    _Atomic uint16_t *memo; /* entry, plus 1; 0: not known yet */
    uint64_t log2[(1 << LOG_BITS) + 1];
};

static uint64_t ring_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
    x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
    return x ^ (x >> 31);
}

/* log2 of 1 + i / 2^LOG_BITS: a bit of the result for each squaring. */
static uint64_t ring_log_entry(uint64_t i)
{
    uint64_t x = ((uint64_t)1 << 63) | (i << (63 - LOG_BITS)), log = 0;
    for (int bit = LOG_ONE - 1; bit >= 0; bit--) {
        u128 sq = (u128)x * x >> 63;
        if (sq >> 64) {
            log |= (uint64_t)1 << bit;
            sq >>= 1;
        }
        x = (uint64_t)sq;
    }
    return log;
}

static void ring_log_fill(uint64_t *table)
{
    for (uint64_t i = 0; i < (uint64_t)1 << LOG_BITS; i++)
        table[i] = ring_log_entry(i);
    table[1 << LOG_BITS] = (uint64_t)1 << LOG_ONE;
}

/* -log2(u / 2^64), at least 1. */
static inline uint64_t ring_minus_log2(const uint64_t *table, uint64_t u)
{
    u |= 1;
    unsigned zeros = (unsigned)__builtin_clzll(u);
    uint64_t m = u << zeros;
    unsigned at = (unsigned)(m >> (63 - LOG_BITS)) & ((1 << LOG_BITS) - 1);
    uint64_t part = (m >> (63 - LOG_BITS - 31)) & 0x7fffffff;
    uint64_t log = table[at] + ((table[at + 1] - table[at]) * part >> 31);
    return ((uint64_t)(zeros + 1) << LOG_ONE) - log;
}

static inline uint64_t ring_slot_key(uint32_t slot)
{
    return ring_mix((uint64_t)slot + 0x9e3779b97f4a7c15);
}

/* Scores from `bar` on are too many. Most draws can be seen to be so without their logarithm: it is
   1 - u / 2^64 at least, and no weight divides it by more than the largest one. */
struct bar {
    u128 score;
    uint64_t log;
};

static inline void ring_bar_set(const struct zc_ring *r, struct bar *b, u128 score)
{
    u128 log = score / r->rate_min + 1;
    b->score = score;
    b->log = log >> 64 ? UINT64_MAX : (uint64_t)log;
}

/* Does the entry come below the bar in this slot? */
static inline bool ring_below(const struct zc_ring *r, unsigned entry, uint64_t slot_key,
                              const struct bar *b, u128 *score)
{
    uint64_t u = ring_mix(r->hashes[entry] ^ slot_key);
    if (~u >> (64 - LOG_ONE) >= b->log)
        return false;
    *score = ring_minus_log2(r->log2, u) * r->rates[entry];
    return *score < b->score;
}

static const struct bar no_bar = {.score = ~(u128)0, .log = UINT64_MAX};

static uint64_t ring_load(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--)
        v = v << 8 | p[i];
    return v;
}

/* 2^(-(weight - 1) / 4) as an integer; exact in its steps of two. */
static u128 ring_rate(uint8_t weight)
{
    static const uint64_t quarter[4] = {0x100000000, 0xd744fccb, 0xb504f334, 0x9837f052};
    unsigned w = weight - 1u;
    return (u128)quarter[w & 3] << (39 - w / 4);
}

/* 2^(weight / 4) */
static double ring_relative(uint8_t weight)
{
    static const double quarter[4] = {1, 1.189207115002721, 1.4142135623730951, 1.681792830507429};
    if (weight == 0)
        return 0;
    double w = quarter[(weight - 1u) & 3];
    for (unsigned i = 0; i < (weight - 1u) / 4; i++)
        w *= 2;
    return w;
}

static int ring_by_id(const void *a, const void *b, void *arg)
{
    const struct zc_ring_member *m = arg;
    return memcmp(m[*(const uint32_t *)a].id, m[*(const uint32_t *)b].id, ZC_RING_ID);
}

/* By id, so that of two equal scores, should there ever be any, the same one wins everywhere. False
   when two are the same. */
static bool ring_fill(struct zc_ring *r, const struct zc_ring_member *members,
                      const uint32_t *order)
{
    struct zc_hasher *h = zc_hasher_new(ZC_RING_PROTOCOL);
    bool ok = h != NULL;
    for (unsigned i = 0; ok && i < r->count; i++) {
        const struct zc_ring_member *m = &members[order[i]];
        ok = m->weight <= ZC_RING_WEIGHT_MAX &&
             (i == 0 || memcmp(m->id, members[order[i - 1]].id, ZC_RING_ID) != 0);
        r->weights[order[i]] = m->weight;
        if (!ok || m->weight == 0)
            continue;
        zc_hasher_add(h, m->id, ZC_RING_ID);
        zc_hasher_add(h, &m->weight, 1);
        unsigned entry = r->weighted++;
        r->total += ring_relative(m->weight);
        r->hashes[entry] = ring_mix(ring_load(m->id) ^ ring_mix(ring_load(m->id + 8)));
        r->rates[entry] = ring_rate(m->weight);
        r->places[entry] = order[i];
        r->rate_min = entry ? ZC_MIN(r->rate_min, r->rates[entry]) : r->rates[entry];
    }
    if (ok)
        r->digest = zc_hasher_digest(h).lo;
    zc_hasher_free(h);
    return ok;
}

struct zc_ring *zc_ring_new(const struct zc_ring_member *members, unsigned count)
{
    if (count > ZC_RING_MEMBERS_MAX)
        return NULL;
    struct zc_ring *r = calloc(1, sizeof(*r));
    zc_autofree uint32_t *order = calloc(count + 1, sizeof(*order));
    if (!r)
        return NULL;
    atomic_init(&r->refs, 1);
    r->count = count;
    r->weights = calloc(count + 1, 1);
    r->hashes = calloc(count + 1, sizeof(*r->hashes));
    r->rates = calloc(count + 1, sizeof(*r->rates));
    r->places = calloc(count + 1, sizeof(*r->places));
    r->memo = calloc(ZC_RING_SLOTS, sizeof(*r->memo)); /* untouched pages cost nothing */
    if (!order || !r->weights || !r->hashes || !r->rates || !r->places || !r->memo) {
        zc_ring_unref(r);
        return NULL;
    }
    for (unsigned i = 0; i < count; i++)
        order[i] = i;
    qsort_r(order, count, sizeof(*order), ring_by_id, (void *)members);
    if (!ring_fill(r, members, order)) {
        zc_ring_unref(r);
        return NULL;
    }
    ring_log_fill(r->log2);
    return r;
}

struct zc_ring *zc_ring_ref(struct zc_ring *r)
{
    atomic_fetch_add_explicit(&r->refs, 1, memory_order_relaxed);
    return r;
}

void zc_ring_unref(struct zc_ring *r)
{
    if (!r || atomic_fetch_sub_explicit(&r->refs, 1, memory_order_acq_rel) != 1)
        return;
    free(r->weights);
    free(r->hashes);
    free(r->rates);
    free(r->places);
    free(r->memo);
    free(r);
}

static uint32_t ring_first(struct zc_ring *r, uint32_t slot)
{
    uint16_t memo = atomic_load_explicit(&r->memo[slot], memory_order_relaxed);
    if (memo)
        return memo - 1u;
    uint64_t slot_key = ring_slot_key(slot);
    struct bar bar = no_bar;
    uint32_t owner = 0;
    for (unsigned i = 0; i < r->weighted; i++) {
        u128 score;
        if (ring_below(r, i, slot_key, &bar, &score)) {
            ring_bar_set(r, &bar, score);
            owner = i;
        }
    }
    atomic_store_explicit(&r->memo[slot], (uint16_t)(owner + 1), memory_order_relaxed);
    return owner;
}

#define RING_RANK_MAX 64

unsigned zc_ring_rank(struct zc_ring *r, uint64_t key, uint32_t *out, unsigned max)
{
    uint32_t slot = (uint32_t)(ring_mix(key) >> (64 - ZC_RING_SLOT_BITS));
    max = ZC_MIN(max, ZC_MIN(r->weighted, (unsigned)RING_RANK_MAX));
    if (max == 0)
        return 0;
    if (max == 1) {
        out[0] = r->places[ring_first(r, slot)];
        return 1;
    }
    u128 scores[RING_RANK_MAX];
    unsigned n = 0;
    uint64_t slot_key = ring_slot_key(slot);
    struct bar bar = no_bar;
    for (unsigned i = 0; i < r->weighted; i++) {
        u128 score;
        if (!ring_below(r, i, slot_key, &bar, &score))
            continue;
        unsigned at = n < max ? n++ : n - 1;
        for (; at > 0 && score < scores[at - 1]; at--) {
            scores[at] = scores[at - 1];
            out[at] = out[at - 1];
        }
        scores[at] = score;
        out[at] = r->places[i];
        if (n == max)
            ring_bar_set(r, &bar, scores[n - 1]);
    }
    return n;
}

void zc_ring_count(struct zc_ring *r, uint32_t *slots)
{
    memset(slots, 0, r->count * sizeof(*slots));
    for (uint32_t s = 0; r->weighted && s < ZC_RING_SLOTS; s++)
        slots[r->places[ring_first(r, s)]]++;
}

double zc_ring_share(const struct zc_ring *r, unsigned member)
{
    return r->total > 0 ? ring_relative(r->weights[member]) / r->total : 0;
}

unsigned zc_ring_size(const struct zc_ring *r)
{
    return r->count;
}

uint64_t zc_ring_digest(const struct zc_ring *r)
{
    return r->digest;
}

uint64_t zc_ring_weight_bytes(uint8_t weight)
{
    return (uint64_t)(ring_relative(ZC_MIN(weight, (uint8_t)ZC_RING_WEIGHT_MAX)) * (double)ZC_MIB);
}

uint8_t zc_ring_weight(uint64_t bytes)
{
    if (bytes == 0)
        return 0;
    uint8_t w = 1;
    /* The nearest one by ratio: w while bytes < 2^(1/8) of it, whose square is 2^(1/4). */
    while (w < ZC_RING_WEIGHT_MAX && (double)bytes > 1.0905077326652577 * ring_relative(w) * 0x1p20)
        w++;
    return w;
}
