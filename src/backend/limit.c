/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At most so many requests in flight; the rest waits by priority.
 *
 * One thread at a time hands requests down (the pump), so that a store that fails on the spot does
 * not recurse once for each request that waits. A request that is cancelled while it waits is ended
 * by the next turn of the pump and not by the cancelling thread, which may hold locks that done()
 * takes; requests wait only while others are in flight, so that there is a next turn.
 *
 * What waits is patient as long as the source gives anything to anybody: a slow store is no dead
 * one. Once nothing has come for as long as a request may stand still, it ends here, and need not
 * wait until those before it have been given up one after the other. One timer looks for these; it
 * is set to the earliest of them, and finds them later than it thought when something came.
 */
#include "backend/wrap.h"

#include "base/list.h"
#include "net/net.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define LIMIT_REQUESTS 64
#define LIMIT_TURN 32 /* requests that one turn of the pump starts */

enum limit_kind { LIMIT_LIST, LIMIT_STAT, LIMIT_GET };

struct limit {
    struct zc_backend be;
    struct zc_backend *inner;
    struct zc_net *net; /* or NULL */
    unsigned most, most_background;
    _Atomic int64_t moved_ns; /* when the source gave anything to anybody */
    /* The wrapper's own, one for each op, as the thread that ended the last request may still be on
       its way out of the pump, and one for each timer. */
    atomic_uint refs;
    pthread_mutex_t lock; /* all below, and req->priv; not held over a call or callback */
    unsigned running, background;
    struct zc_list queue[ZC_PRIO_N];
    struct zc_list dropped; /* cancelled while waiting, or too late */
    int64_t timer_ns;       /* when a timer is due; INT64_MAX: none is */
    bool pumping;
};

struct limit_op {
    struct zc_list link; /* in a queue, or empty */
    struct limit *l;
    enum limit_kind kind;
    bool background;
    bool late;        /* waited for too long */
    bool ended;       /* under the lock */
    int64_t since_ns; /* submission */
    /* One until the end, one for each cancel under way, one while it is put in and one while it is
       handed down. */
    atomic_uint refs;
    union {
        struct zc_req *outer;
        struct zc_list_req *outer_list;
        struct zc_stat_req *outer_stat;
        struct zc_get_req *outer_get;
    };
    union {
        struct zc_req base;
        struct zc_list_req list;
        struct zc_stat_req stat;
        struct zc_get_req get;
    } in;
};

static struct limit *limit_of(struct zc_backend *be)
{
    return zc_container_of(be, struct limit, be);
}

static void limit_release(struct limit *l)
{
    if (atomic_fetch_sub(&l->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static void limit_unref(struct limit_op *op)
{
    struct limit *l = op->l;
    if (atomic_fetch_sub(&op->refs, 1) != 1)
        return;
    free(op);
    limit_release(l);
}

/* ---- in and out ---- */

/* Since when it stands still. */
static int64_t limit_still_ns(const struct limit_op *op)
{
    return ZC_MAX(op->since_ns, atomic_load_explicit(&op->l->moved_ns, memory_order_relaxed));
}

/* When a request that waits is too late; INT64_MAX: never. */
static int64_t limit_late_ns(const struct limit_op *op)
{
    const struct zc_req *in = &op->in.base;
    int64_t at = in->stall_ns ? limit_still_ns(op) + in->stall_ns : INT64_MAX;
    return in->deadline_ns ? ZC_MIN(at, in->deadline_ns) : at;
}

static void limit_moved(struct limit *l)
{
    atomic_store_explicit(&l->moved_ns, zc_now_ns(), memory_order_relaxed);
}

/* Locked. The next to go, or NULL. */
static struct limit_op *limit_next(struct limit *l)
{
    struct zc_list *it = zc_list_pop_front(&l->dropped);
    for (int prio = 0; !it && prio < ZC_PRIO_N && l->running < l->most; prio++) {
        if (prio != ZC_PRIO_DEMAND && l->background >= l->most_background)
            break;
        it = zc_list_pop_front(&l->queue[prio]);
    }
    if (!it)
        return NULL;
    struct limit_op *op = zc_list_entry(it, struct limit_op, link);
    l->running++;
    l->background += op->background;
    return op;
}

static void limit_late(struct limit *l, struct limit_op *op)
{
    const struct zc_req *in = &op->in.base;
    int64_t now = zc_now_ns();
    int r =
        in->deadline_ns && now >= in->deadline_ns
            ? zc_error_set(&op->in.base.err, -ETIMEDOUT,
                           "%s: the deadline has passed while it waited for its turn", l->be.url)
            : zc_error_set(&op->in.base.err, -ETIMEDOUT,
                           "%s: waited for its turn, and for %.1f s nothing came of the "
                           "requests before it",
                           l->be.url, (double)(now - limit_still_ns(op)) / ZC_NS_PER_S);
    switch (op->kind) {
    case LIMIT_LIST:
        op->in.list.done(&op->in.list, r, NULL, 0, NULL, 0);
        break;
    case LIMIT_STAT:
        op->in.stat.done(&op->in.stat, r, NULL);
        break;
    case LIMIT_GET:
        op->in.get.done(&op->in.get, r);
        break;
    }
}

static void limit_submit(struct limit *l, struct limit_op *op)
{
    if (op->late) {
        limit_late(l, op);
        return;
    }
    /* It has stood still in the queue for a part of its time, perhaps. */
    struct zc_req *in = &op->in.base;
    op->outer->begun_ns = limit_still_ns(op);
    if (in->stall_ns)
        in->stall_ns = ZC_MAX(op->outer->begun_ns + in->stall_ns - zc_now_ns(), (int64_t)1);
    /* A cancelled one comes back at once: the doorway sees to it. */
    switch (op->kind) {
    case LIMIT_LIST:
        zc_backend_list(l->inner, &op->in.list);
        break;
    case LIMIT_STAT:
        zc_backend_stat(l->inner, &op->in.stat);
        break;
    case LIMIT_GET:
        zc_backend_get(l->inner, &op->in.get);
        break;
    }
}

static void limit_pump(struct limit *l)
{
    struct limit_op *op;
    pthread_mutex_lock(&l->lock);
    if (l->pumping) {
        pthread_mutex_unlock(&l->lock);
        return;
    }
    l->pumping = true;
    /* As long as something runs, its end is the next turn, and this thread may go back to its own
     * work. */
    for (unsigned started = 0; (started < LIMIT_TURN || l->running == 0) && (op = limit_next(l));) {
        atomic_fetch_add(&op->refs, 1);
        pthread_mutex_unlock(&l->lock);
        limit_submit(l, op);
        pthread_mutex_lock(&l->lock);
        started += !op->ended;
        limit_unref(op); /* never the last one of l's: the caller holds an op too */
    }
    l->pumping = false;
    pthread_mutex_unlock(&l->lock);
}

/* ---- time ---- */

static void limit_on_timer(void *arg, bool net_ends);

/* Locked. */
static void limit_set_timer(struct limit *l, int64_t at_ns)
{
    if (!l->net || at_ns >= l->timer_ns)
        return;
    atomic_fetch_add(&l->refs, 1);
    if (zc_net_timer(l->net, 0, at_ns - zc_now_ns(), limit_on_timer, l) < 0)
        atomic_fetch_sub(&l->refs, 1); /* not the last: the caller is there */
    else
        l->timer_ns = at_ns;
}

static void limit_on_timer(void *arg, bool net_ends)
{
    struct limit *l = arg;
    int64_t now = zc_now_ns(), next = INT64_MAX;
    pthread_mutex_lock(&l->lock);
    /* One that was set before an earlier one finds nothing to do, most likely. */
    if (l->timer_ns <= now)
        l->timer_ns = INT64_MAX;
    for (int prio = 0; !net_ends && prio < ZC_PRIO_N; prio++) {
        zc_list_for_each_safe (it, tmp, &l->queue[prio]) {
            struct limit_op *op = zc_list_entry(it, struct limit_op, link);
            int64_t late = limit_late_ns(op);
            if (late > now) {
                next = ZC_MIN(next, late);
                continue;
            }
            op->late = true;
            zc_list_del(it);
            zc_list_push_back(&l->dropped, it);
        }
    }
    if (next < INT64_MAX)
        limit_set_timer(l, next);
    pthread_mutex_unlock(&l->lock);
    if (!net_ends)
        limit_pump(l);
    limit_release(l);
}

static struct limit_op *limit_begin(struct limit *l, enum limit_kind kind, struct zc_req *outer)
{
    struct limit_op *op = calloc(1, sizeof(*op));
    if (!op) {
        zc_error_set(&outer->err, -ENOMEM, "%s: out of memory", l->be.url);
        return NULL;
    }
    zc_list_init(&op->link);
    atomic_store_explicit(&op->refs, 1, memory_order_relaxed);
    op->l = l;
    atomic_fetch_add(&l->refs, 1);
    op->kind = kind;
    op->background = outer->prio != ZC_PRIO_DEMAND;
    op->outer = outer;
    op->in.base.prio = outer->prio;
    op->in.base.deadline_ns = outer->deadline_ns;
    op->in.base.stall_ns = outer->stall_ns;
    op->since_ns = zc_now_ns();
    return op;
}

static void limit_go(struct limit_op *op)
{
    struct limit *l = op->l;
    atomic_fetch_add(&op->refs, 1); /* another thread may pump it to its end */
    pthread_mutex_lock(&l->lock);
    op->outer->priv[l->be.layer] = op;
    if (atomic_load(&op->outer->cancelled))
        atomic_store(&op->in.base.cancelled, true);
    zc_list_push_back(&l->queue[op->in.base.prio], &op->link);
    limit_set_timer(l, limit_late_ns(op));
    pthread_mutex_unlock(&l->lock);
    limit_pump(l);
    limit_unref(op);
}

/* The request has ended below: its slot is free, and out of a cancel's reach. */
static void limit_leave(struct limit_op *op, int err)
{
    struct limit *l = op->l;
    if (err < 0)
        op->outer->err = op->in.base.err;
    if (err != -ECANCELED && !zc_retry_useful(err))
        limit_moved(l); /* an answer: the source is there */
    pthread_mutex_lock(&l->lock);
    op->outer->priv[l->be.layer] = NULL;
    op->ended = true;
    l->running--;
    l->background -= op->background;
    pthread_mutex_unlock(&l->lock);
}

/* ---- the op table ---- */

static void limit_list_done(struct zc_list_req *in, int err, const struct zc_entry *entries,
                            size_t n, const char *next_token, unsigned skipped)
{
    struct limit_op *op = zc_container_of(in, struct limit_op, in.list);
    struct limit *l = op->l;
    limit_leave(op, err);
    limit_pump(l);
    op->outer_list->done(op->outer_list, err, entries, n, next_token, skipped);
    limit_unref(op);
}

static void limit_stat_done(struct zc_stat_req *in, int err, const struct zc_attr *attr)
{
    struct limit_op *op = zc_container_of(in, struct limit_op, in.stat);
    struct limit *l = op->l;
    limit_leave(op, err);
    limit_pump(l);
    op->outer_stat->unasked = in->unasked;
    op->outer_stat->done(op->outer_stat, err, attr);
    limit_unref(op);
}

static int limit_get_data(struct zc_get_req *in, const void *p, size_t n)
{
    struct limit_op *op = zc_container_of(in, struct limit_op, in.get);
    limit_moved(op->l);
    return op->outer_get->data(op->outer_get, p, n);
}

static void limit_get_done(struct zc_get_req *in, int err)
{
    struct limit_op *op = zc_container_of(in, struct limit_op, in.get);
    struct limit *l = op->l;
    limit_leave(op, err);
    limit_pump(l); /* the store's work goes on while the caller's is done */
    op->outer_get->done(op->outer_get, err);
    limit_unref(op);
}

static int limit_op_probe(struct zc_backend *be, struct zc_error *err)
{
    struct zc_backend *inner = limit_of(be)->inner;
    int r = zc_backend_probe(inner, err);
    be->part_size = inner->part_size; /* it may have seen what it has to do with */
    be->empty = inner->empty;
    return r;
}

static void limit_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct limit_op *op = limit_begin(limit_of(be), LIMIT_LIST, &req->base);
    if (!op) {
        req->done(req, -ENOMEM, NULL, 0, NULL, 0);
        return;
    }
    op->in.list.path = req->path;
    op->in.list.token = req->token;
    op->in.list.max = req->max;
    op->in.list.done = limit_list_done;
    limit_go(op);
}

static void limit_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct limit_op *op = limit_begin(limit_of(be), LIMIT_STAT, &req->base);
    if (!op) {
        req->done(req, -ENOMEM, NULL);
        return;
    }
    op->in.stat.path = req->path;
    op->in.stat.done = limit_stat_done;
    limit_go(op);
}

static void limit_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct limit_op *op = limit_begin(limit_of(be), LIMIT_GET, &req->base);
    if (!op) {
        req->done(req, -ENOMEM);
        return;
    }
    op->in.get.path = req->path;
    op->in.get.version = req->version;
    op->in.get.off = req->off;
    op->in.get.len = req->len;
    op->in.get.lane = req->lane;
    op->in.get.data = limit_get_data;
    op->in.get.done = limit_get_done;
    limit_go(op);
}

static void limit_op_cancel(struct zc_backend *be, struct zc_req *req)
{
    struct limit *l = limit_of(be);
    pthread_mutex_lock(&l->lock);
    struct limit_op *op = req->priv[be->layer];
    if (op) {
        atomic_store(&op->in.base.cancelled, true);
        atomic_fetch_add(&op->refs, 1);
        if (!zc_list_empty(&op->link)) {
            zc_list_del(&op->link);
            zc_list_push_back(&l->dropped, &op->link);
        }
    }
    pthread_mutex_unlock(&l->lock);
    if (!op)
        return;
    zc_backend_cancel(l->inner, &op->in.base); /* does nothing for one that is not there yet */
    limit_unref(op);
}

static void limit_op_free(struct zc_backend *be)
{
    struct limit *l = limit_of(be);
    zc_backend_free(l->inner);
    limit_release(l);
}

static const struct zc_backend_ops limit_ops = {
    .name = "limit",
    .probe = limit_op_probe,
    .list = limit_op_list,
    .stat = limit_op_stat,
    .get = limit_op_get,
    .cancel = limit_op_cancel,
    .free = limit_op_free,
};

int zc_limit_new(struct zc_backend *inner, struct zc_net *net, unsigned requests,
                 struct zc_backend **out)
{
    struct limit *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    assert(inner->layer + 1 < ZC_LAYERS);
    l->be = *inner;
    l->be.ops = &limit_ops;
    l->be.layer = inner->layer + 1;
    l->inner = inner;
    l->net = net;
    l->timer_ns = INT64_MAX;
    atomic_store_explicit(&l->refs, 1, memory_order_relaxed);
    l->most = requests ? requests : LIMIT_REQUESTS;
    l->most_background = l->most > 1 ? l->most - ZC_MAX(l->most / 4, 1u) : 1;
    pthread_mutex_init(&l->lock, NULL);
    for (int i = 0; i < ZC_PRIO_N; i++)
        zc_list_init(&l->queue[i]);
    zc_list_init(&l->dropped);
    *out = &l->be;
    return 0;
}
