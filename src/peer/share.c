/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The client half: a backend that asks the owner before it asks the store.
 *
 * A get is cut where the owner may change (ZC_CLUSTER_GROUP; fetch is told to do so itself). For
 * each part the nodes are taken in the order of the ring: the owner, and when it is late, breaks,
 * or has nothing, those after it, who would own the part without it. The first that is this node
 * itself means that this one fetches the part, and so does the end of the list. What was passed on
 * stays passed on: whoever comes next goes on behind it.
 *
 * The next node is asked, too, while the ones before are only late, so that two silent ones cost
 * two hedges and not a second. One that says that it waits itself, or has no room, is asked again
 * soon: were it passed over, all who want the part would end at the store. Those that a referral
 * names are hedged like others, since any of them may be slow.
 *
 * A part that this node fetches as its owner may still lie with the one that owned it before, when
 * this node has only just joined: that one is asked for what it holds, as long as asking is worth
 * it.
 *
 * Threads: all that a get does with nodes happens on one loop of the peers' network, so that its
 * state needs no lock; while the store is asked nothing else goes on, and its callbacks have the
 * state to themselves. A cancel comes by that loop, too.
 */
#include "peer/peer_priv.h"

#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SHARE_RANKS 3
#define SHARE_FORMERS 2
#define SHARE_TRIES 3
#define SHARE_REFERS_MAX 8                 /* referrals of one part in a row */
#define SHARE_AGAIN_NS (50 * ZC_NS_PER_MS) /* until a second question is thought of again */
/* This node has no time itself: a timer of its own comes so late, or its thread waited for a
   processor for more than one part in so many. */
#define SHARE_LATE_NS (20 * ZC_NS_PER_MS)
#define SHARE_STARVED 64
/* One that waits for bytes itself, or has too much to do, is asked again so often and so soon. */
#define SHARE_PAUSES 20
#define SHARE_PAUSE_NS (25 * ZC_NS_PER_MS)
/* How often a body is looked at, and after how many looks it is too slow. */
#define SHARE_LOOK_NS (500 * ZC_NS_PER_MS)
#define SHARE_LOOKS 3
#define SHARE_STARVED_LOOK 4 /* as SHARE_STARVED */
#define SHARE_SHORTS_MAX 8   /* answers to one part that gave less than a frame of it */
#define SHARE_FORMER_LOW 0.02
#define SHARE_FORMER_SAMPLE 32

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

static struct share *share_of(struct zc_backend *be)
{
    return zc_container_of(be, struct share, be);
}

static void op_go(struct share_op *op);

static bool op_cancelled(const struct share_op *op)
{
    return atomic_load(&op->outer->base.cancelled);
}

static void op_unref(struct share_op *op)
{
    if (atomic_fetch_sub(&op->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&op->lock);
    free(op);
}

static uint64_t share_random(struct share *s)
{
    uint64_t x = atomic_fetch_add_explicit(&s->random, 0x9e3779b97f4a7c15, memory_order_relaxed);
    return zc_hash64(x, &x, sizeof(x));
}

static void op_finish(struct share_op *op, int err)
{
    struct zc_get_req *outer = op->outer;
    assert(!op->tries[0] && !op->tries[1]);
    op->finished = true;
    if (op->theirs < 0)
        err = op->theirs;
    pthread_mutex_lock(&op->s->lock);
    outer->base.priv[op->s->be.layer] = NULL;
    pthread_mutex_unlock(&op->s->lock);
    outer->done(outer, err);
    op_unref(op);
}

/* ------------------------------------------------------------------ the loop */

static void op_posted(void *arg, bool net_ends)
{
    struct share_op *op = arg;
    if (net_ends)
        op_finish(op, -ESHUTDOWN);
    else
        op_go(op);
}

/* Goes on on the op's loop. */
static void op_post(struct share_op *op, int64_t delay_ns)
{
    int r = zc_net_timer(op->s->p->net, op->loop, delay_ns, op_posted, op);
    if (r < 0)
        op_finish(op, r);
}

struct share_timer {
    struct share_op *op;
    unsigned turn;
    void (*fn)(struct share_op *op);
};

static void op_timer_fired(void *arg, bool net_ends)
{
    struct share_timer *t = arg;
    if (!net_ends && !t->op->finished && t->turn == t->op->turn)
        t->fn(t->op);
    op_unref(t->op);
    free(t);
}

/* Without memory for it there is no timer: the network's own limits remain. */
static void op_timer(struct share_op *op, int64_t delay_ns, void (*fn)(struct share_op *op))
{
    struct share_timer *t = malloc(sizeof(*t));
    if (!t)
        return;
    *t = (struct share_timer){.op = op, .turn = op->turn, .fn = fn};
    atomic_fetch_add(&op->refs, 1);
    if (zc_net_timer(op->s->p->net, op->loop, delay_ns, op_timer_fired, t) < 0) {
        op_unref(op);
        free(t);
    }
}

/* ------------------------------------------------------------------ the store */

static int op_store_data(struct zc_get_req *in, const void *p, size_t n)
{
    struct share_op *op = in->base.user;
    op->got += n;
    return op->theirs = op->outer->data(op->outer, p, n);
}

static void op_at_store(struct share_op *op, bool is)
{
    pthread_mutex_lock(&op->lock);
    op->at_store = is;
    pthread_mutex_unlock(&op->lock);
}

static void op_store_done(struct zc_get_req *in, int err)
{
    struct share_op *op = in->base.user;
    op_at_store(op, false); /* after this no cancel touches `in`, or the source */
    if (err < 0 || op->got == op->outer->len) {
        if (err < 0)
            op->outer->base.err = in->base.err;
        op_finish(op, err);
        return;
    }
    op_post(op, 0);
}

/* What the store says ends it: it is the truth. */
static void op_store(struct share_op *op)
{
    struct zc_get_req *outer = op->outer;
    atomic_store(&outer->abroad, ZC_ABROAD_NO);
    op->in = (struct zc_get_req){
        .base = {.prio = outer->base.prio, .deadline_ns = outer->base.deadline_ns, .user = op},
        .path = outer->path,
        .version = outer->version,
        .off = outer->off + op->got,
        .len = op->part_end - outer->off - op->got,
        .lane = outer->lane,
        .data = op_store_data,
        .done = op_store_done,
    };
    op_at_store(op, true);
    if (op_cancelled(op))
        atomic_store(&op->in.base.cancelled, true);
    zc_backend_get(op->s->inner, &op->in);
}

/* ------------------------------------------------------------------ nodes */

static void op_ask(struct share_op *op);
static struct peer_request *op_request(struct share_op *op, enum zc_reach reach);
static void op_hedge_in(struct share_op *op, int64_t wait_ns);
static void op_late_in(struct share_op *op, int64_t wait_ns, void (*fn)(struct share_op *op));

/* Nobody wants to hear from it any more. */
static void op_drop(struct share_op *op, unsigned i, bool late)
{
    struct zc_peer *p = op->s->p;
    if (late) {
        peer_count(&p->late, 1);
        peer_health_late(&p->health, op->tries[i]->node.index, zc_now_ns());
    }
    peer_attempt_cancel(op->tries[i]);
}

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
    op_late_in(op, SHARE_LOOK_NS, op_look);
}

static bool op_speaks(struct peer_attempt *a)
{
    struct share_op *op = a->user;
    /* won: the other one has given all already, and this one's cancel is on its way. */
    if (op_cancelled(op) || op->winner || op->won || op->gave_up)
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
            op_drop(op, i, late);
    }
    op->slow = 0;
    op_look_in(op);
    return true;
}

static int op_bytes(struct peer_attempt *a, const void *p, size_t n)
{
    struct share_op *op = a->user;
    if (op_cancelled(op))
        return -ECANCELED;
    assert(a->off + a->body.pos == op->outer->off + op->got + n); /* never at another place */
    op->got += n;
    return op->theirs = op->outer->data(op->outer, p, n);
}

/* What was found out about asking former owners. */
static void share_former_learn(struct share *s, bool had)
{
    pthread_mutex_lock(&s->lock);
    s->former_rate += ((had ? 1.0 : 0.0) - s->former_rate) / 64;
    pthread_mutex_unlock(&s->lock);
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

/* Nobody is being asked any more. */
static void op_turn_ends(struct share_op *op)
{
    bool won = op->won, referred = op->referred;
    op->won = op->referred = false;
    op->turn++;
    if (op_cancelled(op) || op->theirs < 0) {
        op_finish(op, op->theirs < 0 ? op->theirs : -ECANCELED);
        return;
    }
    bool whole = op->outer->off + op->got >= op->part_end; /* whatever came of it after that */
    if (whole || (won && op->won_err == 0)) {
        /* It may have given less than it was asked for: it is asked on, but not byte by byte. */
        op->shorts += !whole && op->got - op->got_before < PEER_FRAME_MAX;
        if (!op->relayed && op->shorts <= SHARE_SHORTS_MAX)
            op->next = op->won_by;
        op->n_refer = op->next_refer = 0;
        op_go(op);
        return;
    }
    if (referred && !op->relayed && op->refers <= SHARE_REFERS_MAX)
        op->next = op->referred_by; /* once more, when those that it named cannot help */
    else if (op->relayed && op->next_refer >= op->n_refer)
        op->direct = true;
    op_ask(op);
}

/* It waits for these bytes itself, or has too much to do. As long as those that were asked before
   it are silent it is the one to ask, and soon has them. */
static void op_busy(struct share_op *op, unsigned i)
{
    op->busy = ZC_MIN(op->busy, op->to[i]);
    if (i == 0 || i + 1 != op->n_tries || op->winner || op->gave_up || ++op->pauses > SHARE_PAUSES)
        return;
    op->n_tries--;
    op->next = op->to[i];
    op->again = true;
    op_hedge_in(op, SHARE_PAUSE_NS);
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
                op_drop(op, j, j < i);
        }
    } else if (err == -EBUSY && !op->relayed) {
        op_busy(op, i);
    }
    if (op->former && (won || err == -ENOENT)) {
        share_former_learn(op->s, won);
        peer_count(&op->s->p->former, won);
    }
    for (unsigned j = 0; j < op->n_tries; j++)
        left = left || op->tries[j];
    if (!left)
        op_turn_ends(op);
}

static const struct peer_attempt_ops op_attempt = {
    .speaks = op_speaks, .bytes = op_bytes, .done = op_done};

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

static int op_start(struct share_op *op, unsigned which, const struct zc_cluster_node *to,
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

/* No first word in a second, of any: all are given up. */
static void op_give_up(struct share_op *op)
{
    if (op->winner)
        return;
    op->gave_up = true;
    for (unsigned i = 0; i < op->n_tries; i++) {
        if (op->tries[i])
            op_drop(op, i, true);
    }
}

static bool op_may(struct share_op *op, const struct zc_cluster_node *n)
{
    return peer_health_may(&op->s->p->health, n->index, zc_now_ns());
}

static void op_hedge(struct share_op *op);

static void op_late_in(struct share_op *op, int64_t wait_ns, void (*fn)(struct share_op *op))
{
    op->hedge_ns = zc_now_ns() + wait_ns;
    op_timer(op, wait_ns, fn);
}

static void op_hedge_in(struct share_op *op, int64_t wait_ns)
{
    op_late_in(op, wait_ns, op_hedge);
}

/* The next one that can be asked besides; NULL: there is none. */
static const struct zc_cluster_node *op_second(struct share_op *op)
{
    if (op->relayed) {
        while (op->next_refer < op->n_refer && !op_may(op, &op->refer[op->next_refer]))
            op->next_refer++;
        return op->next_refer < op->n_refer ? &op->refer[op->next_refer] : NULL;
    }
    while (op->next < op->n && !op->nodes[op->next].is_self && !op_may(op, &op->nodes[op->next]))
        op->next++;
    return op->next < op->n ? &op->nodes[op->next] : NULL;
}

/* Had this node itself no time since the turn began? Then it cannot say that another one is late:
   the answer may lie here unread. */
static bool op_starved(struct share_op *op)
{
    int64_t now = zc_now_ns();
    int64_t waited = zc_net_starved_ns(op->s->p->net, op->loop) - op->starved_ns;
    return now - op->hedge_ns > SHARE_LATE_NS || waited > (now - op->asked_ns) / SHARE_STARVED;
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

/* Those that were asked are late: the next one is asked, too. */
static void op_hedge(struct share_op *op)
{
    struct zc_peer *p = op->s->p;
    if (op->winner || op->gave_up || op->n_tries == SHARE_TRIES)
        return;
    const struct zc_cluster_node *n = op_second(op);
    if (!n)
        return;
    if (!op_hedge_pays(op)) {
        op_hedge_in(op, SHARE_AGAIN_NS);
        return;
    }
    peer_count(&p->hedges, !op->again);
    op->again = false;
    if (n->is_self) {
        op_give_up(op); /* this node is the next one */
        return;
    }
    if (op_start(op, op->n_tries, n, op->relayed ? ZC_REACH_COMING : ZC_REACH_STORE) < 0)
        return;
    op->to[op->n_tries++] = op->next;
    *(op->relayed ? &op->next_refer : &op->next) += 1;
    op_hedge_in(op, peer_health_hedge_ns(&p->health, n->index));
}

/* A former owner is late, and what it may have the store has, too. */
static void op_held_late(struct share_op *op)
{
    if (op_starved(op))
        op_late_in(op, SHARE_AGAIN_NS, op_held_late);
    else
        op_give_up(op);
}

/* Nobody gave it. */
static void op_direct(struct share_op *op)
{
    struct zc_peer *p = op->s->p;
    peer_count(&p->direct, 1);
    op_store(op);
}

static void op_direct_fired(void *arg, bool net_ends)
{
    struct share_op *op = arg;
    if (net_ends || op_cancelled(op))
        op_finish(op, net_ends ? -ESHUTDOWN : -ECANCELED);
    else
        op_direct(op);
}

static void op_alone(struct share_op *op)
{
    int64_t wait = peer_health_direct_ns(&op->s->p->health, share_random(op->s));
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
    op_ask(op);
}

/* Nobody gave it, but somebody waits for it or will have time: as the store is to be asked once,
   that one is asked again. */
static void op_pause(struct share_op *op)
{
    unsigned before = atomic_load(&op->refs);
    op_timer(op, SHARE_PAUSE_NS, op_pause_ends);
    if (atomic_load(&op->refs) == before)
        op_alone(op);
}

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
    if (op_start(op, 0, to, reach) < 0)
        return false;
    op->n_tries = 1;
    op->turn++;
    op_late_in(op, hedge, reach == ZC_REACH_HELD ? op_held_late : op_hedge);
    op_timer(op, PEER_STATUS_NS, op_give_up);
    return true;
}

/* The next of those that can be asked, or the store. On the loop, with nobody being asked. */
static void op_ask(struct share_op *op)
{
    if (op_cancelled(op)) {
        op_finish(op, -ECANCELED);
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
            op_store(op);
            return;
        }
        enum zc_reach reach = op->former                      ? ZC_REACH_HELD
                              : op->replica && op->to[0] == 0 ? ZC_REACH_OWNER
                                                              : ZC_REACH_STORE;
        if (op_may(op, n) && op_ask_one(op, n, reach, false))
            return;
    }
    if (op->former)
        op_store(op);
    else if (op->busy < op->n && op->pauses++ < SHARE_PAUSES)
        op_pause(op);
    else
        op_alone(op);
}

/* ------------------------------------------------------------------ parts */

/* Is it worth asking a former owner? Always after the ring has changed; when they seldom have
   anything, now and then. */
static bool share_former_pays(struct share *s)
{
    uint64_t ring = zc_cluster_digest(s->p->cfg.cluster);
    pthread_mutex_lock(&s->lock);
    if (ring != s->former_ring) {
        s->former_ring = ring;
        s->former_rate = 1;
    }
    bool pays = s->former_rate > SHARE_FORMER_LOW || ++s->former_skipped >= SHARE_FORMER_SAMPLE;
    if (pays)
        s->former_skipped = 0;
    pthread_mutex_unlock(&s->lock);
    return pays;
}

/* What is hot is had from one of its replicas: of two that are drawn, the one that answers faster
   (Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 2001). A replica itself
   has it from the owner. */
static void op_replica(struct share_op *op, uint64_t key)
{
    struct zc_peer *p = op->s->p;
    struct zc_cluster_node r[PEER_REPLICAS_MAX];
    unsigned n = peer_hot_get(&p->hot_keys, key, zc_now_ns());
    /* Half of the nodes at most: replicas themselves ask the owner. */
    n = n > 1 ? ZC_MIN(n, (zc_cluster_count(p->cfg.cluster) + 1) / 2) : 1;
    n = n > 1 ? zc_cluster_rank(p->cfg.cluster, key, r, n) : 0;
    for (unsigned i = 0; i < n; i++) {
        if (r[i].is_self)
            return;
    }
    if (n < 2)
        return;
    uint64_t drawn = share_random(op->s);
    unsigned a = (unsigned)(drawn % n), b = (unsigned)(drawn / n % n);
    if (peer_health_usual_ns(&p->health, r[b].index) < peer_health_usual_ns(&p->health, r[a].index))
        a = b;
    if (a == 0)
        return;
    op->nodes[2] = op->nodes[1];
    op->nodes[1] = op->nodes[0];
    op->nodes[0] = r[a];
    op->n = ZC_MIN(op->n + 1, (unsigned)SHARE_RANKS);
    op->replica = true;
    peer_count(&p->replicas, 1);
}

static void op_part(struct share_op *op)
{
    struct zc_cluster *c = op->s->p->cfg.cluster;
    uint64_t at = op->outer->off + op->got, end = op->outer->off + op->outer->len;
    uint64_t key = zc_cluster_key(op->object, at);
    op->part_off = at;
    op->part_end = ZC_MIN((at / ZC_CLUSTER_GROUP + 1) * ZC_CLUSTER_GROUP, end);
    op->next = op->n_refer = op->next_refer = op->refers = op->shorts = 0;
    op->direct = op->former = op->replica = false;
    op->pauses = 0;
    op->n = op->busy = op->outer->owner ? 0 : zc_cluster_rank(c, key, op->nodes, SHARE_RANKS);
    if (op->n > 0 && !op->nodes[0].is_self) {
        peer_health_earn(&op->s->p->health);
        if (!op->outer->replica)
            op_replica(op, key);
        op->busy = op->n;
        return;
    }
    op->former = true;
    op->n = share_former_pays(op->s) ? zc_cluster_former(c, key, op->nodes, SHARE_FORMERS) : 0;
}

/* On the loop, nobody is being asked, and the caller wants more. */
static void op_go(struct share_op *op)
{
    if (op_cancelled(op)) {
        op_finish(op, -ECANCELED);
        return;
    }
    if (op->got == op->outer->len) {
        op_finish(op, 0);
        return;
    }
    if (op->part_end <= op->outer->off + op->got)
        op_part(op);
    op_ask(op);
}

/* ------------------------------------------------------------------ the backend */

static void share_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct share *s = share_of(be);
    if (zc_cluster_count(s->p->cfg.cluster) < 2) {
        zc_backend_get(s->inner, req);
        return;
    }
    struct share_op *op = calloc(1, sizeof(*op));
    if (!op) {
        req->done(req, -ENOMEM);
        return;
    }
    op->s = s;
    op->outer = req;
    op->refs = 1;
    pthread_mutex_init(&op->lock, NULL);
    op->loop = atomic_fetch_add_explicit(&s->lane, 1, memory_order_relaxed);
    op->size = req->size;
    op->object = zc_objid_of(s->identity, req->path, req->version, op->size).id;
    pthread_mutex_lock(&s->lock);
    req->base.priv[be->layer] = op;
    pthread_mutex_unlock(&s->lock);
    op_post(op, 0);
}

static void op_cancel_posted(void *arg, bool net_ends)
{
    struct share_op *op = arg;
    pthread_mutex_lock(&op->lock);
    if (op->at_store)
        zc_backend_cancel(op->s->inner, &op->in.base);
    pthread_mutex_unlock(&op->lock);
    if (!op->finished) {
        for (unsigned i = 0; i < SHARE_TRIES; i++) {
            if (op->tries[i])
                peer_attempt_cancel(op->tries[i]);
        }
    }
    op_unref(op);
}

static void share_cancel(struct zc_backend *be, struct zc_req *req)
{
    struct share *s = share_of(be);
    pthread_mutex_lock(&s->lock);
    struct share_op *op = req->priv[be->layer];
    if (op)
        atomic_fetch_add(&op->refs, 1);
    pthread_mutex_unlock(&s->lock);
    if (!op)
        zc_backend_cancel(s->inner, req);
    else if (zc_net_timer(s->p->net, op->loop, 0, op_cancel_posted, op) < 0)
        op_unref(op);
}

static int share_probe(struct zc_backend *be, struct zc_error *err)
{
    return zc_backend_probe(share_of(be)->inner, err);
}

static void share_list(struct zc_backend *be, struct zc_list_req *req)
{
    zc_backend_list(share_of(be)->inner, req);
}

static void share_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    zc_backend_stat(share_of(be)->inner, req);
}

static void share_free(struct zc_backend *be)
{
    struct share *s = share_of(be);
    zc_backend_free(s->inner);
    pthread_mutex_destroy(&s->lock);
    free(s->identity);
    free(s);
}

static const struct zc_backend_ops share_ops = {
    .name = "peer",
    .probe = share_probe,
    .list = share_list,
    .stat = share_stat,
    .get = share_get,
    .cancel = share_cancel,
    .free = share_free,
};

int zc_peer_share(struct zc_peer *p, struct zc_backend *inner, const char *identity,
                  struct zc_backend **out)
{
    struct share *s = calloc(1, sizeof(*s));
    if (s)
        s->identity = strdup(identity);
    if (!s || !s->identity) {
        free(s);
        return -ENOMEM;
    }
    assert(inner->layer + 1 < ZC_LAYERS);
    s->be = *inner;
    s->be.ops = &share_ops;
    s->be.layer = inner->layer + 1;
    s->be.cut = ZC_CLUSTER_GROUP;
    s->inner = inner;
    s->p = p;
    s->random = (uint64_t)zc_wall_ns() ^ (uint64_t)(uintptr_t)s;
    s->former_rate = 1;
    pthread_mutex_init(&s->lock, NULL);
    *out = &s->be;
    return 0;
}
