/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which member of a set owns a key: weighted rendezvous hashing over 2^22 slots, with a memo.
 *
 * A key belongs to a slot; in each slot every member draws a number from a hash of itself and the
 * slot, and the smallest number, divided by the member's weight, wins. So the set of members and
 * their weights are all there is to know: no history, no order of joins, no agreement. What
 * follows:
 * - A member that joins takes keys from all others in proportion, and nothing moves between these.
 *   In a slot that it took, the former owner comes second; when it goes, that one is first again.
 * - Passing over a dead member in the order of ranks gives the map without it. So who is alive may
 *   be known sooner, or otherwise, than who is a member.
 * - A change of one weight moves keys to or from that member only.
 *
 * Sources: Thaler and Ravishankar, "Using name-based mappings to increase hit rates" (1998); the
 * weights as in Schindelhauer and Schomaker, "Weighted distributed hash tables" (2005). The hash is
 * the finaliser of splitmix64 (Stafford's variant 13).
 *
 * All arithmetic is in integers, so that all machines of a cluster get the same owner: the
 * constants and the steps of ring.c are part of the protocol between nodes, and ZC_RING_PROTOCOL
 * counts their versions.
 *
 * Threads: a ring is immutable but for its memo, which is atomic: any number of threads may ask.
 */
#ifndef ZC_RING_H
#define ZC_RING_H

#include "base/base.h"

#define ZC_RING_PROTOCOL 1
#define ZC_RING_SLOT_BITS 22
#define ZC_RING_SLOTS ((uint32_t)1 << ZC_RING_SLOT_BITS)
#define ZC_RING_ID 16
#define ZC_RING_MEMBERS_MAX 65000
#define ZC_RING_WEIGHT_MAX 160

struct zc_ring_member {
    uint8_t id[ZC_RING_ID];
    /* The share of the keys is proportional to 2^(weight / 4); 0: none. See zc_ring_weight. */
    uint8_t weight;
};

struct zc_ring;

/* The ring of these members, with one reference, or NULL: memory is short, there are more than
   ZC_RING_MEMBERS_MAX, a weight is past its maximum, or two ids are equal. The order in which
   members are given plays no part in who owns what. Those of weight 0 are known, but own nothing.
 */
struct zc_ring *zc_ring_new(const struct zc_ring_member *members, unsigned count);
struct zc_ring *zc_ring_ref(struct zc_ring *r);
void zc_ring_unref(struct zc_ring *r); /* NULL is allowed */

/* The first `max` owners of the key, best first, as places in the array that zc_ring_new was given;
   returns how many: fewer than max when fewer members have a weight. The first one alone costs some
   nanoseconds when its slot was asked for before; anything else looks at each member once. */
unsigned zc_ring_rank(struct zc_ring *r, uint64_t key, uint32_t *out, unsigned max);

/* The parts of the keys that each member owns, in the order of zc_ring_new: counts each slot, which
   takes seconds of CPU for a thousand members. */
void zc_ring_count(struct zc_ring *r, uint32_t *slots);
/* The expected part, of 1, from the weight alone. */
double zc_ring_share(const struct zc_ring *r, unsigned member);

unsigned zc_ring_size(const struct zc_ring *r);
/* Equal for rings of equal members and weights; otherwise almost surely not. */
uint64_t zc_ring_digest(const struct zc_ring *r);

/* Bytes of cache as a weight: 1 + 4 log2(MiB), to the nearest, within 1 and ZC_RING_WEIGHT_MAX;
   0 for 0 bytes. And back. */
uint8_t zc_ring_weight(uint64_t bytes);
uint64_t zc_ring_weight_bytes(uint8_t weight);

#endif
