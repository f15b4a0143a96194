/* SPDX-License-Identifier: Apache-2.0 */
/* A binary heap in an array. Timers are few (one for each request that waits for its next attempt)
   and are never taken back, so that nothing has to know its own place. */
#include "net/timers.h"

#include <errno.h>

static bool timers_before(const struct net_timer *a, const struct net_timer *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->seq < b->seq;
}

int net_timers_add(struct net_timers *t, int64_t at_ns, void (*fn)(void *, bool), void *arg)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 16;
        struct net_timer *heap = reallocarray(t->heap, cap, sizeof(*heap));
        if (!heap)
            return -ENOMEM;
        t->heap = heap;
        t->cap = cap;
    }
    struct net_timer new = {.at_ns = at_ns, .seq = t->seq++, .fn = fn, .arg = arg};
    size_t i = t->n++;
    while (i > 0 && timers_before(&new, &t->heap[(i - 1) / 2])) {
        t->heap[i] = t->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    t->heap[i] = new;
    return 0;
}

int64_t net_timers_next(const struct net_timers *t)
{
    return t->n ? t->heap[0].at_ns : INT64_MAX;
}

bool net_timers_take(struct net_timers *t, int64_t now_ns, struct net_timer *out)
{
    if (t->n == 0 || t->heap[0].at_ns > now_ns)
        return false;
    *out = t->heap[0];
    struct net_timer last = t->heap[--t->n];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= t->n)
            break;
        if (c + 1 < t->n && timers_before(&t->heap[c + 1], &t->heap[c]))
            c++;
        if (!timers_before(&t->heap[c], &last))
            break;
        t->heap[i] = t->heap[c];
        i = c;
    }
    if (t->n)
        t->heap[i] = last;
    return true;
}

void net_timers_free(struct net_timers *t)
{
    free(t->heap);
    *t = (struct net_timers){0};
}
