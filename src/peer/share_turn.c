/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn: whom to ask for a part, when to ask the next one, too, and what follows when nobody is
 * being asked any more.
 */
#include "peer/share.h"

#include <errno.h>

#define SHARE_AGAIN_NS (50 * ZC_NS_PER_MS) /* until a second question is thought of again */
/* This node has no time itself: a timer of its own comes so late, or its thread waited for a
   processor for more than one part in so many. */
#define SHARE_LATE_NS (20 * ZC_NS_PER_MS)
#define SHARE_STARVED 64
/* One that waits for bytes itself, or has too much to do, is asked again so often and so soon. */
#define SHARE_PAUSES 20
#define SHARE_PAUSE_NS (25 * ZC_NS_PER_MS)
#define SHARE_SHORTS_MAX 8 /* answers to one part that gave less than a frame of it */

static bool op_may(struct share_op *op, const struct zc_cluster_node *n)
{
    return peer_health_may(&op->s->p->health, n->index, zc_now_ns());
}

/* Had this node itself no time since the turn began? Then it cannot say that another one is late:
   the answer may lie here unread. */
static bool op_starved(struct share_op *op)
{
    int64_t now = zc_now_ns();
    int64_t waited = zc_net_starved_ns(op->s->p->net, op->loop) - op->starved_ns;
    return now - op->hedge_ns > SHARE_LATE_NS || waited > (now - op->asked_ns) / SHARE_STARVED;
}

static void op_late_in(struct share_op *op, int64_t wait_ns, void (*fn)(struct share_op *op))
{
    op->hedge_ns = zc_now_ns() + wait_ns;
    peer_share_timer(op, wait_ns, fn);
}

/* No first word in a second, of any: all are given up. */
static void op_give_up(struct share_op *op)
{
    if (op->winner)
        return;
    op->gave_up = true;
    for (unsigned i = 0; i < op->n_tries; i++) {
        if (op->tries[i])
            peer_share_drop(op, i, true);
    }
}

/* ------------------------------------------------------------------ the next one, too */

/* Only looks: it may not be asked after all. */
static bool op_might(struct share_op *op, const struct zc_cluster_node *n)
{
    return !peer_health_is_aside(&op->s->p->health, n->index, zc_now_ns());
}

/* The next one that can be asked besides; NULL: there is none. */
static const struct zc_cluster_node *op_second(struct share_op *op)
{
    if (op->relayed) {
        while (op->next_refer < op->n_refer && !op_might(op, &op->refer[op->next_refer]))
            op->next_refer++;
        return op->next_refer < op->n_refer ? &op->refer[op->next_refer] : NULL;
    }
    while (op->next < op->n && !op->nodes[op->next].is_self && !op_might(op, &op->nodes[op->next]))
        op->next++;
    return op->next < op->n ? &op->nodes[op->next] : NULL;
}

/* Is a second question to be asked now? Not when this node itself is late, nor beyond the budget;
   but always when the one before was set aside meanwhile. */
static bool op_hedge_pays(struct share_op *op)
{
    struct peer_health *h = &op->s->p->health;
    const struct peer_attempt *last = op->tries[op->n_tries - 1];
    if (op->again || (last && peer_health_is_aside(h, last->node.index, zc_now_ns())))
        return true;
    return !op_starved(op) && peer_health_hedge(h);
}

static void op_hedge_in(struct share_op *op, int64_t wait_ns);

/* Those that were asked are late: the next one is asked, too. */
static void op_hedge(struct share_op *op)
{
    struct zc_peer *p = op->s->p;
    if (op->winner || op->gave_up || op->n_tries == SHARE_TRIES)
        return;
    const struct zc_cluster_node *n = op_second(op);
    if (!n)
        return;
    if (!op_hedge_pays(op) || (!n->is_self && !op_may(op, n))) {
        op_hedge_in(op, SHARE_AGAIN_NS);
        return;
    }
    peer_count(&p->hedges, !op->again);
    op->again = false;
    if (n->is_self) {
        op_give_up(op); /* this node is the next one */
        return;
    }
    if (peer_share_start(op, op->n_tries, n, op->relayed ? ZC_REACH_COMING : ZC_REACH_STORE) < 0)
        return;
    op->to[op->n_tries++] = op->next;
    *(op->relayed ? &op->next_refer : &op->next) += 1;
    op_hedge_in(op, peer_health_hedge_ns(&p->health, n->index));
}

static void op_hedge_in(struct share_op *op, int64_t wait_ns)
{
    op_late_in(op, wait_ns, op_hedge);
}

/* As long as those that were asked before it are silent it is the one to ask, and soon has the
   bytes. */
void peer_share_busy(struct share_op *op, unsigned i)
{
    op->busy = ZC_MIN(op->busy, op->to[i]);
    if (i == 0 || i + 1 != op->n_tries || op->winner || op->gave_up || ++op->pauses > SHARE_PAUSES)
        return;
    op->n_tries--;
    op->next = op->to[i];
    op->again = true;
    op_hedge_in(op, SHARE_PAUSE_NS);
}

/* A former owner is late, and what it may have the store has, too. */
static void op_held_late(struct share_op *op)
{
    if (op_starved(op))
        op_late_in(op, SHARE_AGAIN_NS, op_held_late);
    else
        op_give_up(op);
}

/* ------------------------------------------------------------------ nobody gave it */

static void op_direct(struct share_op *op)
{
    struct zc_peer *p = op->s->p;
    peer_count(&p->direct, 1);
    peer_share_store(op);
}

static void op_direct_fired(void *arg, bool net_ends)
{
    struct share_op *op = arg;
    if (net_ends || share_cancelled(op))
        peer_share_finish(op, net_ends ? -ESHUTDOWN : -ECANCELED);
    else
        op_direct(op);
}

static void op_alone(struct share_op *op)
{
    int64_t wait = peer_health_direct_ns(&op->s->p->health, peer_share_random(op->s));
    op->next = op->n;
    /* Without memory for a timer it does not wait. */
    if (wait == 0 || zc_net_timer(op->s->p->net, op->loop, wait, op_direct_fired, op) < 0)
        op_direct(op);
}

static void op_pause_ends(struct share_op *op)
{
    op->turn++;
    op->next = op->busy;
    op->busy = op->n;
    peer_share_ask(op);
}

/* Nobody gave it, but somebody waits for it or will have time: as the store is to be asked once,
   that one is asked again. */
static void op_pause(struct share_op *op)
{
    if (!peer_share_timer(op, SHARE_PAUSE_NS, op_pause_ends))
        op_alone(op);
}

/* ------------------------------------------------------------------ turns */

static bool op_ask_one(struct share_op *op, const struct zc_cluster_node *to, enum zc_reach reach,
                       bool relayed)
{
    int64_t hedge = peer_health_hedge_ns(&op->s->p->health, to->index);
    op->asked_ns = zc_now_ns();
    op->starved_ns = zc_net_starved_ns(op->s->p->net, op->loop);
    op->gave_up = op->again = false;
    op->relayed = relayed;
    op->n_tries = 0;
    op->got_before = op->got;
    if (reach != ZC_REACH_HELD)
        atomic_store(&op->outer->abroad,
                     reach == ZC_REACH_STORE ? ZC_ABROAD_OWNER : ZC_ABROAD_OTHER);
    if (peer_share_start(op, 0, to, reach) < 0)
        return false;
    op->n_tries = 1;
    op->turn++;
    op_late_in(op, hedge, reach == ZC_REACH_HELD ? op_held_late : op_hedge);
    peer_share_timer(op, PEER_STATUS_NS, op_give_up);
    return true;
}

void peer_share_ask(struct share_op *op)
{
    if (share_cancelled(op)) {
        peer_share_finish(op, -ECANCELED);
        return;
    }
    while (op->next_refer < op->n_refer) {
        const struct zc_cluster_node *n = &op->refer[op->next_refer++];
        if (op_may(op, n) && op_ask_one(op, n, ZC_REACH_COMING, true))
            return;
    }
    while (op->next < op->n) {
        const struct zc_cluster_node *n = &op->nodes[op->next];
        op->to[0] = op->next++;
        if (n->is_self) {
            op->next = op->n;
            peer_share_store(op);
            return;
        }
        enum zc_reach reach = op->former                      ? ZC_REACH_HELD
                              : op->replica && op->to[0] == 0 ? ZC_REACH_OWNER
                                                              : ZC_REACH_STORE;
        if (op_may(op, n) && op_ask_one(op, n, reach, false))
            return;
    }
    if (op->former)
        peer_share_store(op);
    else if (op->busy < op->n && op->pauses++ < SHARE_PAUSES)
        op_pause(op);
    else
        op_alone(op);
}

void peer_share_turn_ends(struct share_op *op)
{
    bool won = op->won, referred = op->referred;
    op->won = op->referred = false;
    op->turn++;
    if (share_cancelled(op) || op->theirs < 0) {
        peer_share_finish(op, op->theirs < 0 ? op->theirs : -ECANCELED);
        return;
    }
    bool whole = op->outer->off + op->got >= op->part_end; /* whatever came of it after that */
    if (whole || (won && op->won_err == 0)) {
        /* It may have given less than it was asked for: it is asked on, but not byte by byte. */
        op->shorts += !whole && op->got - op->got_before < PEER_FRAME_MAX;
        if (!op->relayed && op->shorts <= SHARE_SHORTS_MAX)
            op->next = op->won_by;
        op->n_refer = op->next_refer = 0;
        peer_share_go(op);
        return;
    }
    if (referred && !op->relayed && op->refers <= SHARE_REFERS_MAX)
        op->next = op->referred_by; /* once more, when those that it named cannot help */
    else if (op->relayed && op->next_refer >= op->n_refer)
        op->direct = true;
    peer_share_ask(op);
}
