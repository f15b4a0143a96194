/* SPDX-License-Identifier: Apache-2.0 */
/* See heat.h. */
#include "peer/heat.h"

#include "base/digest.h"

#include <math.h>
#include <string.h>

#define HEAT_HALF_S 10.0
#define HEAT_FADE_NS (ZC_NS_PER_S / 2)

void peer_heat_init(struct peer_heat *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
}

void peer_heat_free(struct peer_heat *h)
{
    pthread_mutex_destroy(&h->lock);
}

/* Under the lock. */
static void heat_fade(struct peer_heat *h, int64_t now_ns)
{
    if (h->at_ns && now_ns - h->at_ns < HEAT_FADE_NS)
        return;
    double left = h->at_ns ? exp2(-(double)(now_ns - h->at_ns) / 1e9 / HEAT_HALF_S) : 0;
    for (unsigned i = 0; i < PEER_HEAT_KEYS; i++)
        h->top[i].bytes *= left;
    h->total *= left;
    h->at_ns = now_ns;
}

unsigned peer_heat_add(struct peer_heat *h, uint64_t key, uint64_t bytes, int64_t now_ns)
{
    unsigned at = 0;
    pthread_mutex_lock(&h->lock);
    heat_fade(h, now_ns);
    for (unsigned i = 0; i < PEER_HEAT_KEYS; i++) {
        if (h->top[i].key == key && h->top[i].bytes > 0) {
            at = i;
            break;
        }
        if (h->top[i].bytes < h->top[at].bytes)
            at = i;
    }
    /* One that is new takes over what the lightest had: it may have been there as often. That it is
       believed heavier than it is does not matter among 64 of which twenty can be hot. */
    h->top[at].key = key;
    h->top[at].bytes += (double)bytes;
    h->total += (double)bytes;
    double share = h->top[at].bytes / h->total;
    bool hot = h->total >= PEER_HEAT_LEAST && share > PEER_HEAT_SHARE;
    pthread_mutex_unlock(&h->lock);
    return hot ? (unsigned)ZC_MIN(ceil(share / PEER_HEAT_SHARE), (double)PEER_REPLICAS_MAX) : 1;
}

void peer_hot_init(struct peer_hot *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
}

void peer_hot_free(struct peer_hot *h)
{
    pthread_mutex_destroy(&h->lock);
}

void peer_hot_set(struct peer_hot *h, uint64_t key, unsigned replicas, int64_t now_ns)
{
    unsigned i = (unsigned)(zc_hash64(0, &key, sizeof(key)) % PEER_HOT_SLOTS);
    pthread_mutex_lock(&h->lock);
    h->slots[i].key = key;
    h->slots[i].replicas = replicas;
    h->slots[i].until_ns = now_ns + PEER_REPLICAS_NS;
    pthread_mutex_unlock(&h->lock);
}

unsigned peer_hot_get(struct peer_hot *h, uint64_t key, int64_t now_ns)
{
    unsigned i = (unsigned)(zc_hash64(0, &key, sizeof(key)) % PEER_HOT_SLOTS);
    pthread_mutex_lock(&h->lock);
    bool there = h->slots[i].key == key && now_ns < h->slots[i].until_ns;
    unsigned n = there ? h->slots[i].replicas : 1;
    pthread_mutex_unlock(&h->lock);
    return n;
}
