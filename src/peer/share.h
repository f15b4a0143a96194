/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the client half share: share.c (a get and its parts), share_turn.c (whom to ask
 * for a part, and when the next one, too), share_answer.c (one question of these, and what comes of
 * it).
 *
 * A turn begins when a node is asked for what the part still lacks, and ends when nobody is being
 * asked any more. All functions are called on the op's loop, or while the op is at the store, which
 * leaves it to one thread at a time just the same. None blocks.
 */
#ifndef ZC_PEER_SHARE_H
#define ZC_PEER_SHARE_H

#include "peer/peer_priv.h"

#define SHARE_RANKS 3
#define SHARE_TRIES 3
#define SHARE_REFERS_MAX 8 /* referrals of one part in a row */

struct share {
    struct zc_backend be;
    struct zc_backend *inner;
    struct zc_peer *p;
    char *identity;
    pthread_mutex_t lock; /* requests' priv, former */
    double former_rate;   /* of asking a former owner: how often it had the bytes */
    uint64_t former_ring; /* the ring that it is about */
    unsigned former_skipped;
    atomic_uint lane;
    _Atomic uint64_t random;
};

struct share_op {
    struct share *s;
    struct zc_get_req *outer;
    atomic_uint refs; /* one until the end, one for each timer and cancel under way */
    unsigned loop;
    struct zc_digest object;
    uint64_t size;
    uint64_t got; /* bytes that the caller has had */

    /* the present part */
    uint64_t part_off, part_end;
    struct zc_cluster_node nodes[SHARE_RANKS];
    unsigned n, next; /* the next one to be asked */
    bool former;      /* nodes are former owners: to be asked for what they hold */
    bool replica;     /* the first of them stands in for the owner, who comes next */
    bool direct;      /* no more referrals */
    unsigned refers, shorts;
    uint64_t got_before; /* when this turn began */
    struct zc_cluster_node refer[PEER_REFERS];
    unsigned n_refer, next_refer;

    struct peer_attempt *tries[SHARE_TRIES]; /* in the order in which they were asked */
    struct peer_attempt *winner;
    unsigned turn;                     /* timers of an earlier turn have nothing to say */
    unsigned n_tries, to[SHARE_TRIES]; /* which of nodes */
    bool gave_up, relayed;
    bool again;                   /* the next hedge asks one once more that was busy */
    int64_t hedge_ns;             /* when the next one is to be asked */
    int64_t asked_ns, starved_ns; /* when the turn began, and what the loop had waited by then;
                                     once there is a winner: when it was looked at last */
    uint64_t looked_bytes;        /* what its node had given then */
    unsigned slow;                /* looks in a row that found it slow */
    bool won, referred;           /* what came of the turn */
    int won_err;
    unsigned won_by, referred_by;
    unsigned busy, pauses; /* busy: the first of nodes that said so; n: none did */
    pthread_mutex_t lock;  /* a cancel of `in` against its end; at_store */
    bool at_store;
    _Atomic bool finished;
    int theirs; /* what the caller's data() returned */
    struct zc_get_req in;
};

static inline bool share_cancelled(const struct share_op *op)
{
    return atomic_load(&op->outer->base.cancelled);
}

/* ---- share.c ---- */

/* On the loop, nobody is being asked, and the caller wants more: the next part, or what is left of
   the present one. */
void peer_share_go(struct share_op *op);
/* Asks the store for what is left of the part. An error of its ends the get: it is the truth. */
void peer_share_store(struct share_op *op);
/* Ends the get. Nobody is being asked. The caller's reference is gone. */
void peer_share_finish(struct share_op *op, int err);
/* Calls fn on the loop later, unless the turn has changed or the op has ended by then. false: no
   memory, and no timer; the network's own limits remain. */
bool peer_share_timer(struct share_op *op, int64_t delay_ns, void (*fn)(struct share_op *op));
uint64_t peer_share_random(struct share *s);
/* What was found out about asking former owners. */
void peer_share_former_learn(struct share *s, bool had);

/* ---- share_turn.c ---- */

/* The next of those that can be asked, or the store. On the loop, with nobody being asked. */
void peer_share_ask(struct share_op *op);
/* The question with this number found a node that waits for the bytes itself, or has too much to
   do. */
void peer_share_busy(struct share_op *op, unsigned i);
/* Nobody is being asked any more. */
void peer_share_turn_ends(struct share_op *op);

/* ---- share_answer.c ---- */

/* Asks a node for what is left of the part, as tries[which]. 0, or negative errno and nothing was
   started. */
int peer_share_start(struct share_op *op, unsigned which, const struct zc_cluster_node *to,
                     enum zc_reach reach);
/* Nobody wants to hear from tries[i] any more. late: it should have spoken by now. */
void peer_share_drop(struct share_op *op, unsigned i, bool late);

#endif
