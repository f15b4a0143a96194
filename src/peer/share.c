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
#include "peer/share.h"

#include "cache/cache.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define SHARE_FORMERS 2
#define SHARE_FORMER_LOW 0.02
#define SHARE_FORMER_SAMPLE 32

static struct share *share_of(struct zc_backend *be)
{
    return zc_container_of(be, struct share, be);
}

static void op_unref(struct share_op *op)
{
    if (atomic_fetch_sub(&op->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&op->lock);
    free(op);
}

uint64_t peer_share_random(struct share *s)
{
    uint64_t x = atomic_fetch_add_explicit(&s->random, 0x9e3779b97f4a7c15, memory_order_relaxed);
    return zc_hash64(x, &x, sizeof(x));
}

void peer_share_finish(struct share_op *op, int err)
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
        peer_share_finish(op, -ESHUTDOWN);
    else
        peer_share_go(op);
}

/* Goes on on the op's loop. */
static void op_post(struct share_op *op, int64_t delay_ns)
{
    int r = zc_net_timer(op->s->p->net, op->loop, delay_ns, op_posted, op);
    if (r < 0)
        peer_share_finish(op, r);
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

bool peer_share_timer(struct share_op *op, int64_t delay_ns, void (*fn)(struct share_op *op))
{
    struct share_timer *t = malloc(sizeof(*t));
    if (!t)
        return false;
    *t = (struct share_timer){.op = op, .turn = op->turn, .fn = fn};
    atomic_fetch_add(&op->refs, 1);
    if (zc_net_timer(op->s->p->net, op->loop, delay_ns, op_timer_fired, t) < 0) {
        op_unref(op);
        free(t);
        return false;
    }
    return true;
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
        peer_share_finish(op, err);
        return;
    }
    op_post(op, 0);
}

void peer_share_store(struct share_op *op)
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
    if (share_cancelled(op))
        atomic_store(&op->in.base.cancelled, true);
    zc_backend_get(op->s->inner, &op->in);
}

/* ------------------------------------------------------------------ parts */

void peer_share_former_learn(struct share *s, bool had)
{
    pthread_mutex_lock(&s->lock);
    s->former_rate += ((had ? 1.0 : 0.0) - s->former_rate) / 64;
    pthread_mutex_unlock(&s->lock);
}

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
    uint64_t drawn = peer_share_random(op->s);
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

void peer_share_go(struct share_op *op)
{
    if (share_cancelled(op)) {
        peer_share_finish(op, -ECANCELED);
        return;
    }
    if (op->got == op->outer->len) {
        peer_share_finish(op, 0);
        return;
    }
    if (op->part_end <= op->outer->off + op->got)
        op_part(op);
    peer_share_ask(op);
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
