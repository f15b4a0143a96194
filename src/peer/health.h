/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the other nodes do, as this one sees them: whom to leave alone for a while, how long to wait
 * for a first word, and how much may be asked twice.
 *
 *   - Three first words in a row that came late, or one connection that was refused or broke, open
 *     the breaker: the node is skipped for a while that doubles up to 5 s, then one question is a
 *     trial. Wrong bytes set a node aside for a minute.
 *   - A second node is asked after four times the usual time of a first word (mean and deviation as
 *     in RFC 6298), at least 50 ms and at most 250 ms, and only while the budget lasts: one
 *     question in fifty, with a burst of 8 (Dean and Barroso, "The Tail at Scale", CACM 2013). That
 *     is enough for the breaker to open; once it is open, asking the next one costs nothing.
 *     What is asked twice may be read from the store twice, so that less than 50 ms does not pay: a
 *     machine with more to do than processors keeps anybody waiting for 10 ms now and then, and
 *     three such waits in a row set a node aside that does well.
 *     For the same reason one that is starved itself asks nobody twice (share_turn.c).
 *   - One whose bytes come at less than 1 MiB a second, all that it gives this node taken together,
 *     and who does not say (by ticks) that it waits itself, is left in the middle for the next one,
 *     and for 5 s, then twice as long, up to a minute. That may be this node's own link, or what
 *     many want at once, so that it happens a few times at once and then every five seconds at
 *     most: a narrow network must not make all nodes go to the store.
 *   - Bytes of others that no node gives come from the store, at the same rate; when that budget is
 *     used up each waits some time first, but none is refused.
 *
 * Gossip says who is there; this says within milliseconds what gossip finds out in seconds.
 */
#ifndef ZC_PEER_HEALTH_H
#define ZC_PEER_HEALTH_H

#include "base/base.h"

#include <pthread.h>

#define PEER_HEDGE_MIN_NS (50 * ZC_NS_PER_MS)
#define PEER_HEDGE_NEW_NS (100 * ZC_NS_PER_MS) /* at least, of one that said nothing yet */
#define PEER_HEDGE_MAX_NS (250 * ZC_NS_PER_MS)
#define PEER_STATUS_NS ZC_NS_PER_S /* without a first word for so long: given up */
#define PEER_ASIDE_NS (5 * ZC_NS_PER_S)
#define PEER_LIAR_NS (60 * ZC_NS_PER_S)
#define PEER_SLOW_BYTES ((uint64_t)1 << 20) /* a second */
#define PEER_SLOW_NS (5 * ZC_NS_PER_S)
#define PEER_SLOW_MAX_NS (60 * ZC_NS_PER_S)
#define PEER_SLOW_BURST 4
#define PEER_BURST 8
#define PEER_SHARE 50 /* one in so many */

struct peer_node_health {
    unsigned late;           /* in a row */
    int64_t aside_ns;        /* how long it was set aside last; 0: it does well */
    int64_t until_ns;        /* not to be asked before */
    bool trial;              /* one question is under way to find out */
    int64_t mean_ns, dev_ns; /* of its first words; 0: none yet */
    uint64_t bytes;          /* that came from it */
    int64_t slow_ns;         /* how long it was set aside last for what it gives being slow */
    int64_t slow_until_ns;
};

struct peer_bucket {
    double tokens;
};

struct peer_health {
    pthread_mutex_t lock;
    struct peer_node_health *nodes; /* by zc_cluster_node.index */
    unsigned n;
    int64_t mean_ns, dev_ns; /* of the first words of all */
    struct peer_bucket hedges, directs;
    int64_t slow_ns; /* when the next one may be left for being slow, but for the burst */
};

void peer_health_init(struct peer_health *h);
void peer_health_free(struct peer_health *h);

/* May it be asked now? A yes to one that was set aside is its trial. */
bool peer_health_may(struct peer_health *h, unsigned node, int64_t now_ns);
/* Its first word came after so long. */
void peer_health_spoke(struct peer_health *h, unsigned node, int64_t took_ns);
/* It did not come in time. */
void peer_health_late(struct peer_health *h, unsigned node, int64_t now_ns);
/* The connection was refused, or broke. */
void peer_health_failed(struct peer_health *h, unsigned node, int64_t now_ns);
/* Bytes came from it. */
void peer_health_got(struct peer_health *h, unsigned node, size_t n);
/* All that came from it so far. */
uint64_t peer_health_bytes(struct peer_health *h, unsigned node);
/* It gives bytes too slowly: sets it aside. False when it is to be borne with. */
bool peer_health_slow(struct peer_health *h, unsigned node, int64_t now_ns);
void peer_health_lied(struct peer_health *h, unsigned node, int64_t now_ns);
/* The trial ended without a word for or against it (cancelled). */
void peer_health_nothing(struct peer_health *h, unsigned node);
/* After how long another one is to be asked. Of a node that said nothing yet as of all others. */
int64_t peer_health_hedge_ns(struct peer_health *h, unsigned node);
/* How long its first word usually takes; 0: not known. */
int64_t peer_health_usual_ns(struct peer_health *h, unsigned node);
/* A get of bytes of others begins: earns its part of both budgets. */
void peer_health_earn(struct peer_health *h);
/* Is it set aside? */
bool peer_health_is_aside(struct peer_health *h, unsigned node, int64_t now_ns);
/* Takes a token; false: there is none. */
bool peer_health_hedge(struct peer_health *h);
/* 0, or how long to wait first: between one and 200 ms. */
int64_t peer_health_direct_ns(struct peer_health *h, uint64_t random);
/* Nodes set aside at the moment. */
unsigned peer_health_aside(struct peer_health *h, int64_t now_ns);

#endif
