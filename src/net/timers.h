/* SPDX-License-Identifier: Apache-2.0 */
/* A heap of timers: earliest first, equal times in the order in which they were added. Not
 * synchronised. */
#ifndef ZC_NET_TIMERS_H
#define ZC_NET_TIMERS_H

#include "base/base.h"

struct net_timer {
    int64_t at_ns; /* zc_now_ns() value */
    uint64_t seq;
    void (*fn)(void *arg, bool cancelled);
    void *arg;
};

struct net_timers {
    struct net_timer *heap;
    size_t n, cap;
    uint64_t seq;
};

/* 0 or -ENOMEM. */
int net_timers_add(struct net_timers *t, int64_t at_ns, void (*fn)(void *, bool), void *arg);
/* When the earliest is due; INT64_MAX without one. */
int64_t net_timers_next(const struct net_timers *t);
/* Takes the earliest out if it is due at now_ns. */
bool net_timers_take(struct net_timers *t, int64_t now_ns, struct net_timer *out);
void net_timers_free(struct net_timers *t);

#endif
