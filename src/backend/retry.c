/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tries again what may succeed later.
 *
 * Every request is wrapped in one of our own, so that a get can go on behind the bytes that its
 * caller has had already. Waiting between attempts is a timer of the network room; nothing blocks.
 *
 * What ends it: time. It runs from the submission, or from the last byte that arrived: a slow get
 * is not cut off, one that stands still is, whether it waits for its turn while nothing comes for
 * others either, for an answer, or for the next attempt. So an attempt is given what is left of it
 * as its stall_ns. A deadline that the caller set is a deadline.
 *
 * Attempts are counted where a person set a number (those that reached the store), and where the
 * store's answers make no sense: these seldom become better by waiting. A get that moved on counts
 * from the start again.
 *
 * Words: the first failure of an outage is told when it is tried again, and its end, and what is
 * given up for good says how long it stood still. All else is for who looks for details.
 *
 * Lock: one for the wrapper, for what a cancel looks at. Never held over a call into the inner
 * backend.
 */
#include "backend/wrap.h"

#include "base/log.h"
#include "net/net.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define RETRY_ODD 10 /* answers without sense, when no number of attempts is set */
#define RETRY_TELL_NS (30 * ZC_NS_PER_S) /* outages are told no more often than that */
#define RETRY_PROBES 3
#define RETRY_PROBE_NS (10 * ZC_NS_PER_S) /* no probe begins after that */

enum retry_kind { RETRY_LIST, RETRY_STAT, RETRY_GET };

struct retry {
    struct zc_backend be;
    struct zc_backend *inner;
    struct zc_net *net;
    struct zc_retry_config cfg;
    pthread_mutex_t lock; /* ops' waiting and req->priv */
    atomic_uint refs; /* the wrapper's own, and one for each op: a timer that has nothing to do any
                         more may outlive the wrapper */
    atomic_uint lane;
    _Atomic uint64_t seed;
    _Atomic uint64_t failures;     /* changed under the lock, as the rest of the health */
    struct zc_retry_health health; /* all but the failures */
    int64_t told_ns;               /* when a person was told of an outage, under the lock as well */
    bool told;                     /* of this one */
};

struct retry_op {
    struct retry *r;
    enum retry_kind kind;
    atomic_uint refs; /* one until the end, one for each timer, one for each cancel under way */
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
    bool waiting;         /* for a timer; under the lock */
    unsigned attempts;    /* that failed at the store since it last moved on */
    unsigned odd;         /* of these, answers without sense */
    unsigned rounds;      /* attempts of any kind since it last moved on: for the back-off */
    int64_t since_ns;     /* submission, its turn, or the last byte */
    uint64_t got;         /* bytes of a get that the caller has had */
    int64_t moved_ns;     /* when the last of them came */
    uint64_t got_before;  /* and when the attempt began */
    int theirs;           /* what the caller's data() returned */
    struct zc_error last; /* of the attempt before this one */
};

bool zc_retry_useful(int err)
{
    return err == -EAGAIN || err == -ETIMEDOUT || err == -ECONNREFUSED || err == -ECONNRESET ||
           err == -EHOSTUNREACH || err == -EBADMSG;
}

static int retry_op_probe(struct zc_backend *be, struct zc_error *err);

static struct retry *retry_of(struct zc_backend *be)
{
    return zc_container_of(be, struct retry, be);
}

static void retry_release(struct retry *r)
{
    if (atomic_fetch_sub(&r->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&r->lock);
    free(r);
}

static void retry_unref(struct retry_op *op)
{
    struct retry *r = op->r;
    if (atomic_fetch_sub(&op->refs, 1) != 1)
        return;
    free(op);
    retry_release(r);
}

static int64_t retry_give_up_ns(const struct retry_op *op)
{
    const struct zc_req *o = op->outer;
    if (o->deadline_ns)
        return o->deadline_ns;
    return op->since_ns + (o->stall_ns ? o->stall_ns : op->r->cfg.deadline_ns);
}

/* ---- the end ---- */

/* Takes the request out of a cancel's reach. */
static void retry_leave(struct retry_op *op)
{
    pthread_mutex_lock(&op->r->lock);
    op->outer->priv[op->r->be.layer] = NULL;
    pthread_mutex_unlock(&op->r->lock);
}

/* What the last failure was, and what became of it. */
static void retry_give_up(struct retry_op *op, int err, const struct zc_error *why)
{
    zc_error_set(&op->outer->err, err,
                 "%.850s; given up, as nothing came for %.1f s (attempts: %u)",
                 why->text[0] ? why->text : strerror(-err),
                 (double)(zc_now_ns() - op->since_ns) / ZC_NS_PER_S, ZC_MAX(op->rounds, 1u));
    /* Who gets bytes tells of it by itself, and knows more. */
    if (op->kind == RETRY_LIST)
        zc_warn("%s/%s: no listing: %s", op->r->be.url, op->in.list.path, op->outer->err.text);
    else if (op->kind == RETRY_STAT)
        zc_warn("%s/%s: no look at it: %s", op->r->be.url, op->in.stat.path, op->outer->err.text);
}

static void retry_fail(struct retry_op *op, int err)
{
    /* An attempt that time ran out on tells less than the one before it. */
    bool before = err == -ETIMEDOUT && op->last.code && zc_now_ns() >= retry_give_up_ns(op);
    const struct zc_error *why = before ? &op->last : &op->in.base.err;
    if (before)
        err = op->last.code;
    if (op->theirs == 0 && zc_retry_useful(err))
        retry_give_up(op, err, why);
    else if (op->theirs == 0)
        op->outer->err = *why;
    if (zc_retry_useful(err))
        atomic_fetch_add_explicit(&op->r->be.stats->errors, 1, memory_order_relaxed);
    retry_leave(op);
    switch (op->kind) {
    case RETRY_LIST:
        op->outer_list->done(op->outer_list, err, NULL, 0, NULL, 0);
        break;
    case RETRY_STAT:
        op->outer_stat->done(op->outer_stat, err, NULL);
        break;
    case RETRY_GET:
        op->outer_get->done(op->outer_get, err);
        break;
    }
    retry_unref(op);
}

/* ---- health ---- */

/* An attempt ended. Any answer of the store will do: what there is not, or is refused, is its own
   affair. */
static void retry_note(struct retry *r, int err, const struct zc_error *why)
{
    bool bad = zc_retry_useful(err);
    bool over = false;
    uint64_t n = 0;
    int64_t since = 0;
    if (!bad && (err == -ECANCELED || atomic_load(&r->failures) == 0))
        return;
    pthread_mutex_lock(&r->lock);
    if (!bad) {
        n = atomic_exchange(&r->failures, 0);
        over = r->told;
        since = r->health.since_ns;
        r->told = false;
    } else {
        if (atomic_fetch_add(&r->failures, 1) == 0)
            r->health.since_ns = zc_now_ns();
        snprintf(r->health.text, sizeof(r->health.text), "%.299s",
                 why && why->text[0] ? why->text : strerror(-err));
    }
    pthread_mutex_unlock(&r->lock);
    if (over)
        zc_warn("%s answers again, after %" PRIu64 " failures in %.1f s", r->be.url, n,
                (double)(zc_now_ns() - since) / ZC_NS_PER_S);
}

void zc_retry_get_health(struct zc_backend *be, struct zc_retry_health *out)
{
    struct retry *r = retry_of(be);
    assert(be->ops->probe == retry_op_probe);
    pthread_mutex_lock(&r->lock);
    *out = r->health;
    out->failures = atomic_load(&r->failures);
    pthread_mutex_unlock(&r->lock);
}

/* ---- attempts ---- */

static void retry_submit(struct retry_op *op)
{
    struct retry *r = op->r;
    op->got_before = op->got;
    op->in.base.err.code = 0;
    op->in.base.err.text[0] = '\0';
    op->in.base.deadline_ns = op->outer->deadline_ns;
    op->in.base.stall_ns = ZC_MAX(retry_give_up_ns(op) - zc_now_ns(), (int64_t)1);
    op->in.base.begun_ns = 0;
    switch (op->kind) {
    case RETRY_LIST:
        zc_backend_list(r->inner, &op->in.list);
        break;
    case RETRY_STAT:
        zc_backend_stat(r->inner, &op->in.stat);
        break;
    case RETRY_GET:
        op->in.get.off = op->outer_get->off + op->got;
        op->in.get.len = op->outer_get->len - op->got;
        zc_backend_get(r->inner, &op->in.get);
        break;
    }
}

static void retry_fire(void *arg, bool net_ends)
{
    struct retry_op *op = arg;
    pthread_mutex_lock(&op->r->lock);
    bool mine = op->waiting;
    op->waiting = false;
    pthread_mutex_unlock(&op->r->lock);
    if (mine && (net_ends || atomic_load(&op->outer->cancelled)))
        retry_fail(op, zc_error_set(&op->in.base.err, -ECANCELED, "cancelled"));
    else if (mine)
        retry_submit(op);
    retry_unref(op);
}

/* A random number in [0, n]. */
static int64_t retry_random(struct retry *r, int64_t n)
{
    /* SplitMix64 (Steele, Lea, Flood, 2014). */
    uint64_t z = atomic_fetch_add(&r->seed, 0x9e3779b97f4a7c15u) + 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    z ^= z >> 31;
    return n > 0 ? (int64_t)(z % ((uint64_t)n + 1)) : 0;
}

static int64_t retry_backoff(struct retry_op *op)
{
    const struct zc_retry_config *cfg = &op->r->cfg;
    unsigned doublings = ZC_MIN(op->rounds - 1, 30u);
    int64_t most =
        cfg->base_ns > cfg->cap_ns >> doublings ? cfg->cap_ns : cfg->base_ns << doublings;
    return retry_random(op->r, most);
}

/* Is another attempt allowed after this failure? *delay_ns: when. */
static bool retry_again(struct retry_op *op, int err, int64_t *delay_ns)
{
    struct retry *r = op->r;
    int64_t now = zc_now_ns();
    if (op->theirs || !zc_retry_useful(err) || atomic_load(&op->outer->cancelled))
        return false;
    /* The first attempt may wait for its turn for long, as long as others get theirs. */
    if (op->rounds == 0)
        op->since_ns = ZC_MAX(op->since_ns, op->in.base.begun_ns);
    if (op->got > op->got_before) {
        op->attempts = op->odd = op->rounds = 0;
        op->since_ns = ZC_MAX(op->since_ns, op->moved_ns);
        if (op->got == op->outer_get->len)
            return false; /* there is nothing left to ask for */
    }
    op->rounds++;
    op->attempts += err != -ECONNREFUSED && err != -EHOSTUNREACH;
    op->odd += err == -EBADMSG;
    if (r->cfg.attempts ? op->attempts >= r->cfg.attempts : op->odd >= RETRY_ODD)
        return false;
    int64_t left = retry_give_up_ns(op) - now;
    if (left <= r->cfg.base_ns)
        return false;
    /* No time is given away: what comes back just before the end is still found. */
    *delay_ns = retry_backoff(op);
    if (*delay_ns >= left)
        *delay_ns = retry_random(r, left - 1);
    return true;
}

static void retry_tell(struct retry_op *op, int err, int64_t delay_ns)
{
    struct retry *r = op->r;
    const struct zc_error *why = &op->in.base.err;
    int64_t now = zc_now_ns();
    pthread_mutex_lock(&r->lock);
    bool tell = !r->told && (!r->told_ns || now - r->told_ns >= RETRY_TELL_NS);
    if (tell) {
        r->told = true;
        r->told_ns = now;
    }
    pthread_mutex_unlock(&r->lock);
    if (!why->text[0])
        zc_error_set(&op->in.base.err, err, "%s: %s", r->be.url, strerror(-err));
    if (tell)
        zc_warn("%s; it is tried again, for %.0f s at the most while nothing comes", why->text,
                (double)(retry_give_up_ns(op) - now) / ZC_NS_PER_S);
    else
        zc_debug("%s; it is tried again in %.3f s", why->text, (double)delay_ns / ZC_NS_PER_S);
}

static void retry_ended(struct retry_op *op, int err)
{
    struct retry *r = op->r;
    int64_t delay;
    if (op->theirs == 0 && !atomic_load(&op->outer->cancelled))
        retry_note(r, err, &op->in.base.err);
    if (!retry_again(op, err, &delay)) {
        if (atomic_load(&op->outer->cancelled) && zc_retry_useful(err))
            err = -ECANCELED;
        retry_fail(op, err);
        return;
    }
    atomic_fetch_add_explicit(&r->be.stats->retries, 1, memory_order_relaxed);
    retry_tell(op, err, delay);
    op->last = op->in.base.err;
    op->last.code = err;
    pthread_mutex_lock(&r->lock);
    op->waiting = true;
    bool cancelled = atomic_load(&op->outer->cancelled);
    pthread_mutex_unlock(&r->lock);
    atomic_fetch_add(&op->refs, 1);
    unsigned lane = atomic_fetch_add_explicit(&r->lane, 1, memory_order_relaxed);
    if (zc_net_timer(r->net, lane, cancelled ? 0 : delay, retry_fire, op) < 0)
        retry_fire(op, true);
}

static void retry_list_done(struct zc_list_req *in, int err, const struct zc_entry *entries,
                            size_t n, const char *next_token, unsigned skipped)
{
    struct retry_op *op = zc_container_of(in, struct retry_op, in.list);
    if (err < 0) {
        retry_ended(op, err);
        return;
    }
    retry_note(op->r, 0, NULL);
    retry_leave(op);
    op->outer_list->done(op->outer_list, 0, entries, n, next_token, skipped);
    retry_unref(op);
}

static void retry_stat_done(struct zc_stat_req *in, int err, const struct zc_attr *attr)
{
    struct retry_op *op = zc_container_of(in, struct retry_op, in.stat);
    if (err < 0) {
        retry_ended(op, err);
        return;
    }
    if (!in->unasked)
        retry_note(op->r, 0, NULL);
    retry_leave(op);
    op->outer_stat->done(op->outer_stat, 0, attr);
    retry_unref(op);
}

static int retry_get_data(struct zc_get_req *in, const void *p, size_t n)
{
    struct retry_op *op = zc_container_of(in, struct retry_op, in.get);
    op->got += n;
    op->moved_ns = zc_now_ns();
    op->theirs = op->outer_get->data(op->outer_get, p, n);
    return op->theirs;
}

static void retry_get_done(struct zc_get_req *in, int err)
{
    struct retry_op *op = zc_container_of(in, struct retry_op, in.get);
    if (err < 0) {
        retry_ended(op, err);
        return;
    }
    retry_note(op->r, 0, NULL);
    retry_leave(op);
    op->outer_get->done(op->outer_get, 0);
    retry_unref(op);
}

/* ---- the op table ---- */

static struct retry_op *retry_begin(struct retry *r, enum retry_kind kind, struct zc_req *outer)
{
    struct retry_op *op = calloc(1, sizeof(*op));
    if (!op) {
        zc_error_set(&outer->err, -ENOMEM, "%s: out of memory", r->be.url);
        return NULL;
    }
    op->r = r;
    atomic_fetch_add(&r->refs, 1);
    op->kind = kind;
    atomic_store_explicit(&op->refs, 1, memory_order_relaxed);
    op->outer = outer;
    op->since_ns = zc_now_ns();
    op->in.base.prio = outer->prio;
    return op;
}

/* From here on a cancel finds it. */
static void retry_go(struct retry_op *op)
{
    pthread_mutex_lock(&op->r->lock);
    op->outer->priv[op->r->be.layer] = op;
    if (atomic_load(&op->outer->cancelled))
        atomic_store(&op->in.base.cancelled, true);
    pthread_mutex_unlock(&op->r->lock);
    retry_submit(op);
}

static void retry_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct retry_op *op = retry_begin(retry_of(be), RETRY_LIST, &req->base);
    if (!op) {
        req->done(req, -ENOMEM, NULL, 0, NULL, 0);
        return;
    }
    op->outer_list = req;
    op->in.list.path = req->path;
    op->in.list.token = req->token;
    op->in.list.max = req->max;
    op->in.list.done = retry_list_done;
    retry_go(op);
}

static void retry_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct retry_op *op = retry_begin(retry_of(be), RETRY_STAT, &req->base);
    if (!op) {
        req->done(req, -ENOMEM, NULL);
        return;
    }
    op->outer_stat = req;
    op->in.stat.path = req->path;
    op->in.stat.done = retry_stat_done;
    retry_go(op);
}

static void retry_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct retry_op *op = retry_begin(retry_of(be), RETRY_GET, &req->base);
    if (!op) {
        req->done(req, -ENOMEM);
        return;
    }
    op->outer_get = req;
    op->in.get.path = req->path;
    op->in.get.version = req->version;
    op->in.get.lane = req->lane;
    op->in.get.data = retry_get_data;
    op->in.get.done = retry_get_done;
    retry_go(op);
}

static void retry_op_cancel(struct zc_backend *be, struct zc_req *req)
{
    struct retry *r = retry_of(be);
    pthread_mutex_lock(&r->lock);
    struct retry_op *op = req->priv[be->layer];
    bool waiting = op && op->waiting;
    if (op)
        atomic_fetch_add(&op->refs, 1);
    pthread_mutex_unlock(&r->lock);
    if (!op)
        return;
    if (!waiting)
        zc_backend_cancel(r->inner, &op->in.base);
    else if (zc_net_timer(r->net, 0, 0, retry_fire, op) == 0)
        return; /* the timer has our reference */
    retry_unref(op);
}

/* Who mounts and is kept from it by his own limit is told which one that is. */
static void retry_probe_late(const struct retry *r, int e, int64_t took_ns, struct zc_error *err)
{
    if (!err || (e != -ETIMEDOUT && e != -EAGAIN) || took_ns < r->cfg.deadline_ns)
        return;
    size_t n = strlen(err->text);
    snprintf(err->text + n, sizeof(err->text) - n, "; given up after %.1f s (--read-timeout)",
             (double)took_ns / ZC_NS_PER_S);
}

/* A wrong endpoint must not take a minute to show itself. */
static int retry_op_probe(struct zc_backend *be, struct zc_error *err)
{
    struct retry *r = retry_of(be);
    int64_t began = zc_now_ns(), until = began + ZC_MIN(RETRY_PROBE_NS, r->cfg.deadline_ns);
    int e = -EAGAIN;
    for (int i = 0; i < RETRY_PROBES && zc_retry_useful(e) && zc_now_ns() < until; i++) {
        if (i) {
            struct timespec ts = {.tv_sec = i == 1 ? 0 : 1,
                                  .tv_nsec = i == 1 ? 250 * ZC_NS_PER_MS : 0};
            nanosleep(&ts, NULL);
            atomic_fetch_add_explicit(&be->stats->retries, 1, memory_order_relaxed);
        }
        e = zc_backend_probe(r->inner, err);
        retry_note(r, e, err);
    }
    retry_probe_late(r, e, zc_now_ns() - began, err);
    be->part_size = r->inner->part_size; /* it may have seen what it has to do with */
    be->empty = r->inner->empty;
    return e;
}

static void retry_op_free(struct zc_backend *be)
{
    struct retry *r = retry_of(be);
    zc_backend_free(r->inner);
    retry_release(r);
}

static const struct zc_backend_ops retry_ops = {
    .name = "retry",
    .probe = retry_op_probe,
    .list = retry_op_list,
    .stat = retry_op_stat,
    .get = retry_op_get,
    .cancel = retry_op_cancel,
    .free = retry_op_free,
};

int zc_retry_new(struct zc_backend *inner, struct zc_net *net, const struct zc_retry_config *cfg,
                 struct zc_backend **out)
{
    struct retry *r = calloc(1, sizeof(*r));
    if (!r)
        return -ENOMEM;
    assert(inner->layer + 1 < ZC_LAYERS);
    r->be = *inner;
    r->refs = 1;
    r->be.ops = &retry_ops;
    r->be.layer = inner->layer + 1;
    r->inner = inner;
    r->net = net;
    r->cfg.attempts = cfg->attempts;
    r->cfg.base_ns = cfg->base_ns ? cfg->base_ns : 50 * ZC_NS_PER_MS;
    r->cfg.cap_ns = cfg->cap_ns ? cfg->cap_ns : 5 * ZC_NS_PER_S;
    r->cfg.deadline_ns = cfg->deadline_ns ? cfg->deadline_ns : 60 * ZC_NS_PER_S;
    r->seed =
        (uint64_t)zc_wall_ns() ^ (uint64_t)(uintptr_t)r; /* so that nodes do not wait in step */
    pthread_mutex_init(&r->lock, NULL);
    *out = &r->be;
    return 0;
}
