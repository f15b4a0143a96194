/* SPDX-License-Identifier: Apache-2.0 */
/* The request is wrapped in one of our own, as in retry.c; a get that is to stop half way stops
 * itself in data(). */
#include "backend/fault.h"

#include "net/net.h"

#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

struct fault {
    struct zc_backend be;
    struct zc_backend *inner;
    struct zc_net *net;
    zc_fault_plan *plan;
    void *user;
    pthread_mutex_t plan_lock;
    pthread_mutex_t lock; /* req->priv and waiting */
    atomic_uint refs;     /* the wrapper's own, and one for each op: a timer may outlive it */
    uint64_t n;           /* under plan_lock */
};

struct fault_op {
    struct fault *f;
    enum zc_fault_op kind;
    struct zc_fault fault;
    atomic_uint refs; /* one until the end, one for each timer, one for each cancel under way */
    bool waiting;
    bool bitten; /* the fault has ended the get */
    uint64_t got;
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

static struct fault *fault_of(struct zc_backend *be)
{
    return zc_container_of(be, struct fault, be);
}

static void fault_release(struct fault *f)
{
    if (atomic_fetch_sub(&f->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&f->lock);
    pthread_mutex_destroy(&f->plan_lock);
    free(f);
}

static void fault_unref(struct fault_op *op)
{
    struct fault *f = op->f;
    if (atomic_fetch_sub(&op->refs, 1) != 1)
        return;
    free(op);
    fault_release(f);
}

static void fault_leave(struct fault_op *op, int err)
{
    if (err < 0)
        op->outer->err = op->in.base.err;
    pthread_mutex_lock(&op->f->lock);
    op->outer->priv[op->f->be.layer] = NULL;
    pthread_mutex_unlock(&op->f->lock);
}

/* ---- on the way back ---- */

static void fault_list_done(struct zc_list_req *in, int err, const struct zc_entry *entries,
                            size_t n, const char *next_token, unsigned skipped)
{
    struct fault_op *op = zc_container_of(in, struct fault_op, in.list);
    fault_leave(op, err);
    op->outer_list->done(op->outer_list, err, entries, n, next_token, skipped);
    fault_unref(op);
}

static void fault_stat_done(struct zc_stat_req *in, int err, const struct zc_attr *attr)
{
    struct fault_op *op = zc_container_of(in, struct fault_op, in.stat);
    fault_leave(op, err);
    op->outer_stat->unasked = in->unasked;
    op->outer_stat->done(op->outer_stat, err, attr);
    fault_unref(op);
}

static int fault_get_data(struct zc_get_req *in, const void *p, size_t n)
{
    struct fault_op *op = zc_container_of(in, struct fault_op, in.get);
    struct zc_get_req *out = op->outer_get;
    uint64_t room = op->fault.err ? op->fault.after - op->got : UINT64_MAX;
    size_t take = (size_t)ZC_MIN((uint64_t)n, room);
    op->got += take;
    int r = take ? out->data(out, p, take) : 0;
    if (r < 0 || take == n)
        return r;
    op->bitten = true;
    return op->fault.err;
}

static void fault_get_done(struct zc_get_req *in, int err)
{
    struct fault_op *op = zc_container_of(in, struct fault_op, in.get);
    if (op->bitten)
        err = zc_error_set(&in->base.err, op->fault.err, "a planned fault after %llu bytes",
                           (unsigned long long)op->got);
    fault_leave(op, err);
    op->outer_get->done(op->outer_get, err);
    fault_unref(op);
}

/* ---- on the way there ---- */

static void fault_end(struct fault_op *op, int err)
{
    zc_error_set(&op->in.base.err, err, err == -ECANCELED ? "cancelled" : "a planned fault");
    if (op->kind == ZC_FAULT_LIST)
        fault_list_done(&op->in.list, err, NULL, 0, NULL, 0);
    else if (op->kind == ZC_FAULT_STAT)
        fault_stat_done(&op->in.stat, err, NULL);
    else
        fault_get_done(&op->in.get, err);
}

static void fault_pass(struct fault_op *op)
{
    struct fault *f = op->f;
    bool now = op->fault.err && (op->kind != ZC_FAULT_GET || op->fault.after == 0);
    if (atomic_load(&op->outer->cancelled))
        fault_end(op, -ECANCELED);
    else if (now)
        fault_end(op, op->fault.err);
    else if (op->kind == ZC_FAULT_LIST)
        zc_backend_list(f->inner, &op->in.list);
    else if (op->kind == ZC_FAULT_STAT)
        zc_backend_stat(f->inner, &op->in.stat);
    else
        zc_backend_get(f->inner, &op->in.get);
}

static void fault_fire(void *arg, bool net_ends)
{
    struct fault_op *op = arg;
    pthread_mutex_lock(&op->f->lock);
    bool mine = op->waiting;
    op->waiting = false;
    pthread_mutex_unlock(&op->f->lock);
    if (mine && net_ends)
        fault_end(op, -ECANCELED);
    else if (mine)
        fault_pass(op);
    fault_unref(op);
}

static struct fault_op *fault_begin(struct fault *f, enum zc_fault_op kind, struct zc_req *outer,
                                    const char *path)
{
    struct fault_op *op = calloc(1, sizeof(*op));
    if (!op)
        return NULL;
    op->f = f;
    atomic_fetch_add(&f->refs, 1);
    op->kind = kind;
    op->outer = outer;
    atomic_store(&op->refs, 1);
    op->in.base.prio = outer->prio;
    op->in.base.deadline_ns = outer->deadline_ns;
    pthread_mutex_lock(&f->plan_lock);
    op->fault = f->plan(f->user, f->n++, kind, path);
    pthread_mutex_unlock(&f->plan_lock);
    assert(op->fault.err <= 0);
    return op;
}

static void fault_go(struct fault_op *op)
{
    struct fault *f = op->f;
    bool wait = op->fault.delay_ns > 0 && f->net;
    pthread_mutex_lock(&f->lock);
    op->outer->priv[f->be.layer] = op;
    if (atomic_load(&op->outer->cancelled))
        atomic_store(&op->in.base.cancelled, true);
    op->waiting = wait;
    pthread_mutex_unlock(&f->lock);
    if (!wait) {
        fault_pass(op);
        return;
    }
    atomic_fetch_add(&op->refs, 1);
    if (zc_net_timer(f->net, 0, op->fault.delay_ns, fault_fire, op) < 0)
        fault_fire(op, true);
}

/* ---- the op table ---- */

static int fault_op_probe(struct zc_backend *be, struct zc_error *err)
{
    struct zc_backend *inner = fault_of(be)->inner;
    int r = zc_backend_probe(inner, err);
    be->empty = inner->empty;
    return r;
}

static void fault_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct fault_op *op = fault_begin(fault_of(be), ZC_FAULT_LIST, &req->base, req->path);
    if (!op) {
        req->done(req, -ENOMEM, NULL, 0, NULL, 0);
        return;
    }
    op->in.list.path = req->path;
    op->in.list.token = req->token;
    op->in.list.max = req->max;
    op->in.list.done = fault_list_done;
    fault_go(op);
}

static void fault_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct fault_op *op = fault_begin(fault_of(be), ZC_FAULT_STAT, &req->base, req->path);
    if (!op) {
        req->done(req, -ENOMEM, NULL);
        return;
    }
    op->in.stat.path = req->path;
    op->in.stat.done = fault_stat_done;
    fault_go(op);
}

static void fault_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct fault_op *op = fault_begin(fault_of(be), ZC_FAULT_GET, &req->base, req->path);
    if (!op) {
        req->done(req, -ENOMEM);
        return;
    }
    op->in.get.path = req->path;
    op->in.get.version = req->version;
    op->in.get.off = req->off;
    op->in.get.len = req->len;
    op->in.get.lane = req->lane;
    op->in.get.data = fault_get_data;
    op->in.get.done = fault_get_done;
    fault_go(op);
}

static void fault_op_cancel(struct zc_backend *be, struct zc_req *req)
{
    struct fault *f = fault_of(be);
    pthread_mutex_lock(&f->lock);
    struct fault_op *op = req->priv[be->layer];
    bool waiting = op && op->waiting;
    if (op)
        atomic_fetch_add(&op->refs, 1);
    pthread_mutex_unlock(&f->lock);
    if (!op)
        return;
    zc_backend_cancel(f->inner, &op->in.base);
    if (!waiting || zc_net_timer(f->net, 0, 0, fault_fire, op) < 0)
        fault_unref(op);
}

static void fault_op_free(struct zc_backend *be)
{
    struct fault *f = fault_of(be);
    zc_backend_free(f->inner);
    fault_release(f);
}

static const struct zc_backend_ops fault_ops = {
    .name = "fault",
    .probe = fault_op_probe,
    .list = fault_op_list,
    .stat = fault_op_stat,
    .get = fault_op_get,
    .cancel = fault_op_cancel,
    .free = fault_op_free,
};

int zc_fault_new(struct zc_backend *inner, struct zc_net *net, zc_fault_plan *plan, void *user,
                 struct zc_backend **out)
{
    struct fault *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    assert(inner->layer + 1 < ZC_LAYERS);
    f->be = *inner;
    f->refs = 1;
    f->be.ops = &fault_ops;
    f->be.layer = inner->layer + 1;
    f->inner = inner;
    f->net = net;
    f->plan = plan;
    f->user = user;
    pthread_mutex_init(&f->plan_lock, NULL);
    pthread_mutex_init(&f->lock, NULL);
    *out = &f->be;
    return 0;
}

/* ---- chance ---- */

static uint64_t fault_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct zc_fault zc_fault_by_chance(void *user, uint64_t n, enum zc_fault_op op, const char *path)
{
    const struct zc_fault_chance *c = user;
    uint64_t a = fault_mix(c->seed + (n + 1) * 0x9e3779b97f4a7c15u), b = fault_mix(a + 1),
             d = fault_mix(b + 1);
    struct zc_fault f = {0};
    if (a % 1000 < c->per_mille && c->n_errors) {
        f.err = c->errors[b % c->n_errors];
        f.after = c->after_max ? d % (c->after_max + 1) : 0;
    }
    if (c->delay_max_ns > 0)
        f.delay_ns = (int64_t)(fault_mix(d + 1) % (uint64_t)(c->delay_max_ns + 1));
    return f;
}
