/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What this node is asked for most: so hot that others should give it, too.
 *
 * The heaviest keys are followed in a fixed table (Metwally, Agrawal and El Abbadi, "Efficient
 * Computation of Frequent and Top-k Elements in Data Streams", ICDT 2005), by bytes, which fade by
 * half in ten seconds. A key that makes up more than a twentieth of what was given is announced
 * with as many nodes as bring it below that, sixteen at most.
 */
#ifndef ZC_PEER_HEAT_H
#define ZC_PEER_HEAT_H

#include "base/base.h"

#include <pthread.h>

#define PEER_HEAT_KEYS 64
#define PEER_REPLICAS_MAX 16
#define PEER_REPLICAS_NS (30 * ZC_NS_PER_S) /* how long an announcement counts */
#define PEER_HEAT_SHARE 0.05
#define PEER_HEAT_LEAST (64.0 * 1024 * 1024) /* given lately: below that nothing is hot */

struct peer_heat {
    pthread_mutex_t lock;
    struct {
        uint64_t key;
        double bytes;
    } top[PEER_HEAT_KEYS];
    double total;
    int64_t at_ns; /* when all of it was last faded */
};

void peer_heat_init(struct peer_heat *h);
void peer_heat_free(struct peer_heat *h);
/* Bytes of the key are about to be given. Returns how many nodes are to give it: 1 when it is not
   hot. */
unsigned peer_heat_add(struct peer_heat *h, uint64_t key, uint64_t bytes, int64_t now_ns);

/* What others said is hot, by key, for half a minute: a small table in which a later one may push
   an earlier one out. */
#define PEER_HOT_SLOTS 256
struct peer_hot {
    pthread_mutex_t lock;
    struct {
        uint64_t key;
        unsigned replicas;
        int64_t until_ns;
    } slots[PEER_HOT_SLOTS];
};

void peer_hot_init(struct peer_hot *h);
void peer_hot_free(struct peer_hot *h);
void peer_hot_set(struct peer_hot *h, uint64_t key, unsigned replicas, int64_t now_ns);
/* How many nodes give it; 1 when nobody said so lately. */
unsigned peer_hot_get(struct peer_hot *h, uint64_t key, int64_t now_ns);

#endif
