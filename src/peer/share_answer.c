/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to one node on behalf of a get: its first word, its bytes, its end.
 *
 * The first node that speaks is the one whose bytes are taken; the others are dropped, and those
 * that were asked before it were late. From then on it is looked at now and then whether the bytes
 * come fast enough.
 */
#include "peer/share.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* How often a body is looked at, and after how many looks it is too slow. */
#define SHARE_LOOK_NS (500 * ZC_NS_PER_MS)
#define SHARE_LOOKS 3
/* This node has no time itself: its thread waited for a processor for more than one part in so
   many. */
#define SHARE_STARVED_LOOK 4

void peer_share_drop(struct share_op *op, unsigned i, bool late)
{
    struct zc_peer *p = op->s->p;
    if (late) {
        peer_count(&p->late, 1);
        peer_health_late(&p->health, op->tries[i]->node.index, zc_now_ns());
    }
    peer_attempt_cancel(op->tries[i]);
}

/* ------------------------------------------------------------------ bytes */

static void op_look_in(struct share_op *op);

/* What comes, does it come fast enough? One that says that it waits itself is as fast as what it
   waits for, and when this node has no time nobody else is slow: but bytes that lie here unread are
   read fast, so that it takes a lot to make one look slow. */
static void op_look(struct share_op *op)
{
    struct peer_health *h = &op->s->p->health;
    struct peer_attempt *a = op->winner;
    if (!a)
        return;
    uint64_t came = peer_health_bytes(h, a->node.index) - op->looked_bytes;
    uint64_t least = PEER_SLOW_BYTES * SHARE_LOOK_NS / ZC_NS_PER_S;
    int64_t took = zc_now_ns() - op->asked_ns;
    int64_t waited = zc_net_starved_ns(op->s->p->net, op->loop) - op->starved_ns;
    bool starved = took > 2 * SHARE_LOOK_NS || waited > took / SHARE_STARVED_LOOK;
    bool slow = came < least && a->body.tick_ns < op->asked_ns && !starved;
    op->slow = slow ? op->slow + 1 : 0;
    if (op->slow >= SHARE_LOOKS && peer_health_slow(h, a->node.index, zc_now_ns())) {
        peer_count(&op->s->p->late, 1);
        peer_attempt_cancel(a); /* the turn ends, and the next one is asked for the rest */
        return;
    }
    op_look_in(op);
}

static void op_look_in(struct share_op *op)
{
    op->asked_ns = zc_now_ns();
    op->starved_ns = zc_net_starved_ns(op->s->p->net, op->loop);
    op->looked_bytes = peer_health_bytes(&op->s->p->health, op->winner->node.index);
    peer_share_timer(op, SHARE_LOOK_NS, op_look);
}

static bool op_speaks(struct peer_attempt *a)
{
    struct share_op *op = a->user;
    /* won: the other one has given all already, and this one's cancel is on its way. */
    if (share_cancelled(op) || op->winner || op->won || op->gave_up)
        return false;
    op->winner = a;
    if (a->answer.replicas > 1)
        peer_hot_set(&op->s->p->hot_keys, zc_cluster_key(op->object, op->part_off),
                     a->answer.replicas, zc_now_ns());
    op->turn++; /* the timers have nothing to do any more */
    bool late = true;
    for (unsigned i = 0; i < op->n_tries; i++) {
        if (op->tries[i] == a)
            late = false; /* those after it had less time */
        else if (op->tries[i])
            peer_share_drop(op, i, late);
    }
    op->slow = 0;
    op_look_in(op);
    return true;
}

static int op_bytes(struct peer_attempt *a, const void *p, size_t n)
{
    struct share_op *op = a->user;
    if (share_cancelled(op))
        return -ECANCELED;
    assert(a->off + a->body.pos == op->outer->off + op->got + n); /* never at another place */
    op->got += n;
    return op->theirs = op->outer->data(op->outer, p, n);
}

/* ------------------------------------------------------------------ the question */

/* NULL: no memory, or such a name cannot be asked for. */
static struct peer_request *op_request(struct share_op *op, enum zc_reach reach)
{
    struct share *s = op->s;
    struct zc_get_req *outer = op->outer;
    struct peer_request *r = calloc(1, sizeof(*r));
    if (!r || strlen(s->identity) >= sizeof(r->source) || strlen(outer->path) >= sizeof(r->path)) {
        free(r);
        return NULL;
    }
    *r = (struct peer_request){.size = op->size,
                               .off = outer->off + op->got,
                               .len = op->part_end - outer->off - op->got,
                               .reach = reach,
                               .direct = op->direct,
                               .exact = outer->exact,
                               .prio = outer->base.prio,
                               .has_node = true};
    struct zc_cluster_node self;
    zc_cluster_self(s->p->cfg.cluster, &self); /* it may take a new id */
    memcpy(r->node, self.id, sizeof(r->node));
    strcpy(r->source, s->identity);
    strcpy(r->path, outer->path);
    snprintf(r->version, sizeof(r->version), "%s", outer->version);
    return r;
}

static bool doubt_speaks(struct peer_attempt *a)
{
    return false;
}

static int doubt_bytes(struct peer_attempt *a, const void *p, size_t n)
{
    return -ECANCELED;
}

static void doubt_done(struct peer_attempt *a, int err)
{
}

static const struct peer_attempt_ops doubt_attempt = {
    .speaks = doubt_speaks, .bytes = doubt_bytes, .done = doubt_done};

/* A chunk came that is not what the node has on record of it. Likely its disk flipped a bit: the
   node is told, since it would send the same to all others. */
static void op_doubt(struct share_op *op, const struct peer_attempt *a)
{
    struct peer_attempt *other;
    struct peer_request *r = op_request(op, ZC_REACH_HELD);
    if (!r)
        return;
    r->off = a->off + a->body.pos;
    r->len = 1;
    r->doubt = true;
    peer_attempt_start(op->s->p, &a->node, r, op->object, op->loop, &doubt_attempt, NULL, &other);
    free(r);
}

static void op_referred(struct share_op *op, const struct peer_attempt *a)
{
    op->n_refer = op->next_refer = 0;
    for (unsigned i = 0; i < a->answer.n_refers; i++) {
        struct zc_cluster_node n;
        if (zc_cluster_find(op->s->p->cfg.cluster, a->answer.refers[i], &n) && !n.is_self)
            op->refer[op->n_refer++] = n;
    }
    /* Who refers although it was asked not to is not asked again. */
    op->refers = op->direct ? SHARE_REFERS_MAX + 1 : op->refers + 1;
    if (op->refers > SHARE_REFERS_MAX)
        op->n_refer = 0;
    op->direct = op->refers >= SHARE_REFERS_MAX || op->n_refer == 0;
}

static void op_done(struct peer_attempt *a, int err)
{
    struct share_op *op = a->user;
    if (a->body.bad && a->answer.state == PEER_STATE_HIT && a->body.pos < a->len)
        op_doubt(op, a);
    bool won = op->winner == a, left = false;
    unsigned i = 0;
    while (op->tries[i] != a)
        i++;
    op->tries[i] = NULL;
    if (won) {
        op->winner = NULL;
        op->won = true;
        op->won_err = err;
        op->won_by = op->to[i];
    } else if (err == -EXDEV && !op->winner && !op->won && !op->gave_up) {
        op->referred = op->gave_up = true;
        op->referred_by = op->to[i];
        op_referred(op, a);
        for (unsigned j = 0; j < op->n_tries; j++) {
            if (op->tries[j])
                peer_share_drop(op, j, j < i);
        }
    } else if (err == -EBUSY && !op->relayed) {
        peer_share_busy(op, i);
    }
    if (op->former && (won || err == -ENOENT)) {
        peer_share_former_learn(op->s, won);
        peer_count(&op->s->p->former, won);
    }
    for (unsigned j = 0; j < op->n_tries; j++)
        left = left || op->tries[j];
    if (!left)
        peer_share_turn_ends(op);
}

static const struct peer_attempt_ops op_attempt = {
    .speaks = op_speaks, .bytes = op_bytes, .done = op_done};

int peer_share_start(struct share_op *op, unsigned which, const struct zc_cluster_node *to,
                     enum zc_reach reach)
{
    struct peer_request *r = op_request(op, reach);
    int e = r ? peer_attempt_start(op->s->p, to, r, op->object, op->loop, &op_attempt, op,
                                   &op->tries[which])
              : -ENOMEM;
    if (e < 0)
        op->tries[which] = NULL;
    free(r);
    return e;
}
