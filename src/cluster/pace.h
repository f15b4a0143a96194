/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much of the ring a node takes on, over its life.
 *
 * A node that comes with an empty cache to others that have a lot in theirs would own a share that
 * it has to pull from them, all at once; it takes an eighth of its weight after another. Where
 * there is little to pull, which is how most clusters begin, it takes all of it at once: a ramp
 * would leave the work of the first minutes to those that came first. One that hears nobody begins
 * with all of it, and decides again when it does. A node that is about to leave owns nothing, and
 * still serves.
 *
 * Pure: the time is passed in.
 */
#ifndef ZC_CLUSTER_PACE_H
#define ZC_CLUSTER_PACE_H

#include "base/base.h"

#define ZC_PACE_STEPS 8
#define ZC_PACE_STEP_NS (20 * ZC_NS_PER_S)
/* What may be missing at once: some seconds of a 10 Gbit/s network. */
#define ZC_PACE_COLD_BYTES (4 * ZC_GIB)

struct cluster_pace {
    uint64_t capacity; /* bytes */
    bool draining;
    bool blind;      /* decided before anybody was heard */
    unsigned step;   /* eighths taken; 0: nothing decided yet */
    int64_t next_ns; /* when the next one is due */
};

/* The others, as far as they are in view. */
struct cluster_pace_others {
    bool heard;      /* there are some, or nobody to hear from */
    bool known;      /* gossip has been heard, or there is nobody to hear from */
    uint64_t used;   /* bytes in their caches */
    double capacity; /* bytes that their weights stand for */
};

/* The weight to announce now. used: bytes in this node's cache. */
uint8_t cluster_pace_weight(struct cluster_pace *p, const struct cluster_pace_others *others,
                            uint64_t used, int64_t now_ns);
uint8_t cluster_pace_nominal(const struct cluster_pace *p);

#endif
