/* SPDX-License-Identifier: Apache-2.0 */
/* See health.h. */
#include "peer/health.h"

#include <string.h>

#define HEALTH_LATE 3 /* in a row */
#define HEALTH_FIRST_NS (250 * ZC_NS_PER_MS)
#define HEALTH_TRIAL_NS ZC_NS_PER_S /* a trial that nobody told the end of */

void peer_health_init(struct peer_health *h)
{
    memset(h, 0, sizeof(*h));
    pthread_mutex_init(&h->lock, NULL);
    h->hedges.tokens = h->directs.tokens = PEER_BURST;
}

void peer_health_free(struct peer_health *h)
{
    free(h->nodes);
    pthread_mutex_destroy(&h->lock);
}

/* Under the lock; NULL without memory: then nothing is known of it. */
static struct peer_node_health *health_of(struct peer_health *h, unsigned node)
{
    if (node >= h->n) {
        unsigned n = ZC_MAX(node + 1, h->n * 2);
        struct peer_node_health *more = realloc(h->nodes, n * sizeof(*more));
        if (!more)
            return NULL;
        memset(more + h->n, 0, (n - h->n) * sizeof(*more));
        h->nodes = more;
        h->n = n;
    }
    return &h->nodes[node];
}

static bool health_is_aside(const struct peer_node_health *n, int64_t now_ns)
{
    return (n->aside_ns && n->until_ns > now_ns) || n->slow_until_ns > now_ns;
}

bool peer_health_may(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    bool may = !n || (now_ns >= n->until_ns && now_ns >= n->slow_until_ns);
    if (may && n && n->aside_ns) {
        /* One finds out; the others wait for what it finds. */
        n->until_ns = now_ns + HEALTH_TRIAL_NS;
        n->trial = true;
    }
    pthread_mutex_unlock(&h->lock);
    return may;
}

static void health_smooth(int64_t *mean_ns, int64_t *dev_ns, int64_t took_ns)
{
    int64_t off = took_ns - *mean_ns;
    if (*mean_ns == 0) {
        *mean_ns = took_ns;
        *dev_ns = took_ns / 2;
    } else {
        *mean_ns += off / 8;
        *dev_ns += ((off < 0 ? -off : off) - *dev_ns) / 4;
    }
}

void peer_health_spoke(struct peer_health *h, unsigned node, int64_t took_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    health_smooth(&h->mean_ns, &h->dev_ns, took_ns);
    if (n) {
        health_smooth(&n->mean_ns, &n->dev_ns, took_ns);
        n->late = 0;
        n->aside_ns = n->until_ns = 0;
        n->trial = false;
    }
    pthread_mutex_unlock(&h->lock);
}

/* Under the lock. */
static void health_aside(struct peer_node_health *n, int64_t first_ns, int64_t most_ns,
                         int64_t now_ns)
{
    n->aside_ns = n->aside_ns ? ZC_MIN(n->aside_ns * 2, most_ns) : first_ns;
    n->until_ns = ZC_MAX(n->until_ns, now_ns + n->aside_ns);
    n->trial = false;
}

void peer_health_late(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    if (n && (++n->late >= HEALTH_LATE || n->trial))
        health_aside(n, PEER_ASIDE_NS, PEER_ASIDE_NS, now_ns);
    pthread_mutex_unlock(&h->lock);
}

void peer_health_failed(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    /* Many questions to one that dies fail at the same time: they are one failure. */
    if (n && (n->trial || now_ns >= n->until_ns))
        health_aside(n, HEALTH_FIRST_NS, PEER_ASIDE_NS, now_ns);
    pthread_mutex_unlock(&h->lock);
}

void peer_health_got(struct peer_health *h, unsigned node, size_t got)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    if (n)
        n->bytes += got;
    pthread_mutex_unlock(&h->lock);
}

uint64_t peer_health_bytes(struct peer_health *h, unsigned node)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    uint64_t bytes = n ? n->bytes : 0;
    pthread_mutex_unlock(&h->lock);
    return bytes;
}

bool peer_health_slow(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    bool leave = n && now_ns < n->slow_until_ns; /* as others of its answers were */
    if (n && !leave && now_ns >= h->slow_ns - (PEER_SLOW_BURST - 1) * PEER_SLOW_NS) {
        leave = true;
        h->slow_ns = ZC_MAX(h->slow_ns, now_ns) + PEER_SLOW_NS;
        /* One that did well for a while begins anew. */
        bool again = n->slow_ns && now_ns - n->slow_until_ns < 4 * n->slow_ns;
        n->slow_ns = again ? ZC_MIN(n->slow_ns * 2, PEER_SLOW_MAX_NS) : PEER_SLOW_NS;
        n->slow_until_ns = now_ns + n->slow_ns;
    }
    pthread_mutex_unlock(&h->lock);
    return leave;
}

void peer_health_lied(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    if (n)
        health_aside(n, PEER_LIAR_NS, PEER_LIAR_NS, now_ns);
    pthread_mutex_unlock(&h->lock);
}

void peer_health_nothing(struct peer_health *h, unsigned node)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    if (n && n->trial) {
        n->trial = false;
        n->until_ns = 0;
    }
    pthread_mutex_unlock(&h->lock);
}

int64_t peer_health_hedge_ns(struct peer_health *h, unsigned node)
{
    int64_t ns = PEER_HEDGE_MAX_NS, least = PEER_HEDGE_MIN_NS;
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    if (n && n->mean_ns) {
        ns = 4 * (n->mean_ns + 4 * n->dev_ns);
    } else if (h->mean_ns) {
        ns = 4 * (h->mean_ns + 4 * h->dev_ns);
        least = PEER_HEDGE_NEW_NS;
    }
    pthread_mutex_unlock(&h->lock);
    return ZC_MAX(ZC_MIN(ns, PEER_HEDGE_MAX_NS), least);
}

int64_t peer_health_usual_ns(struct peer_health *h, unsigned node)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    int64_t ns = n ? n->mean_ns : 0;
    pthread_mutex_unlock(&h->lock);
    return ns;
}

bool peer_health_is_aside(struct peer_health *h, unsigned node, int64_t now_ns)
{
    pthread_mutex_lock(&h->lock);
    struct peer_node_health *n = health_of(h, node);
    bool aside = n && health_is_aside(n, now_ns);
    pthread_mutex_unlock(&h->lock);
    return aside;
}

void peer_health_earn(struct peer_health *h)
{
    pthread_mutex_lock(&h->lock);
    h->hedges.tokens = ZC_MIN(h->hedges.tokens + 1.0 / PEER_SHARE, (double)PEER_BURST);
    h->directs.tokens = ZC_MIN(h->directs.tokens + 1.0 / PEER_SHARE, (double)PEER_BURST);
    pthread_mutex_unlock(&h->lock);
}

static bool health_take(struct peer_health *h, struct peer_bucket *b)
{
    pthread_mutex_lock(&h->lock);
    bool there = b->tokens >= 1;
    if (there)
        b->tokens -= 1;
    pthread_mutex_unlock(&h->lock);
    return there;
}

bool peer_health_hedge(struct peer_health *h)
{
    return health_take(h, &h->hedges);
}

int64_t peer_health_direct_ns(struct peer_health *h, uint64_t random)
{
    if (health_take(h, &h->directs))
        return 0;
    return (int64_t)(1 + random % 200) * ZC_NS_PER_MS;
}

unsigned peer_health_aside(struct peer_health *h, int64_t now_ns)
{
    unsigned aside = 0;
    pthread_mutex_lock(&h->lock);
    for (unsigned i = 0; i < h->n; i++)
        aside += health_is_aside(&h->nodes[i], now_ns);
    pthread_mutex_unlock(&h->lock);
    return aside;
}
