/* SPDX-License-Identifier: Apache-2.0 */
/* The wrappers (retry, limit, fault) around a source in memory. */
#include "backend/fault.h"
#include "backend/wrap.h"
#include "net/net.h"

#include "httptest.h"
#include "membackend.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* ---- requests that the test waits for ---- */

struct get {
    struct zc_get_req req;
    char path[64];
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned ended;
    int err;
    uint64_t got, wrong;
    int stop_with;
};

static int get_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct get *g = zc_container_of(req, struct get, req);
    for (size_t i = 0; i < n; i++)
        g->wrong += ((const unsigned char *)p)[i] != ht_byte(req->off + g->got + i);
    g->got += n;
    return g->stop_with;
}

static void get_done(struct zc_get_req *req, int err)
{
    struct get *g = zc_container_of(req, struct get, req);
    pthread_mutex_lock(&g->lock);
    g->err = err;
    g->ended++;
    pthread_cond_signal(&g->cond);
    pthread_mutex_unlock(&g->lock);
}

static struct get *get_new(const char *name, uint64_t size, uint64_t off, uint64_t len,
                           enum zc_prio prio)
{
    struct get *g = calloc(1, sizeof(*g));
    snprintf(g->path, sizeof(g->path), "o/%s/%llu", name, (unsigned long long)size);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->cond, NULL);
    g->req = (struct zc_get_req){.base = {.prio = prio},
                                 .path = g->path,
                                 .version = "v",
                                 .off = off,
                                 .len = len,
                                 .data = get_data,
                                 .done = get_done};
    return g;
}

static int get_wait(struct get *g)
{
    pthread_mutex_lock(&g->lock);
    while (!g->ended)
        pthread_cond_wait(&g->cond, &g->lock);
    assert_int_equal(g->ended, 1);
    pthread_mutex_unlock(&g->lock);
    assert_int_equal(g->wrong, 0);
    assert_null(g->req.base.priv[0]);
    assert_null(g->req.base.priv[1]);
    assert_null(g->req.base.priv[2]);
    return g->err;
}

static bool get_ended(struct get *g)
{
    pthread_mutex_lock(&g->lock);
    bool ended = g->ended;
    pthread_mutex_unlock(&g->lock);
    return ended;
}

static void get_free(struct get *g)
{
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->lock);
    free(g);
}

/* ---- retry ---- */

/* Errors for the first requests, in order; then none, or the last for ever. */
struct plan {
    struct zc_fault faults[16];
    unsigned n;
    bool for_ever;
    uint64_t storm; /* the last for so many requests */
};

static struct zc_fault plan_next(void *user, uint64_t n, enum zc_fault_op op, const char *path)
{
    struct plan *p = user;
    if (p->n && (n < p->n || n < p->storm || p->for_ever))
        return p->faults[ZC_MIN(n, (uint64_t)p->n - 1)];
    return (struct zc_fault){0};
}

struct fixture {
    struct zc_net *net;
    struct zc_backend *mem, *be;
    struct plan plan;
};

static void fixture_init(struct fixture *f, const struct zc_retry_config *cfg)
{
    struct zc_net_config net = {.loops = 2};
    struct zc_backend *fault;
    assert_int_equal(zc_net_new(&net, &f->net), 0);
    f->mem = mem_new();
    assert_int_equal(zc_fault_new(f->mem, f->net, plan_next, &f->plan, &fault), 0);
    assert_int_equal(zc_retry_new(fault, f->net, cfg, &f->be), 0);
}

static void fixture_free(struct fixture *f)
{
    zc_backend_free(f->be);
    zc_net_free(f->net);
}

static const struct zc_retry_config quick = {.attempts = 4,
                                             .base_ns = ZC_NS_PER_MS,
                                             .cap_ns = 4 * ZC_NS_PER_MS,
                                             .deadline_ns = 10 * ZC_NS_PER_S};

static int one_get(struct fixture *f, uint64_t size, uint64_t off, uint64_t len, uint64_t *got)
{
    struct get *g = get_new("a", size, off, len, ZC_PRIO_DEMAND);
    zc_backend_get(f->be, &g->req);
    int r = get_wait(g);
    if (got)
        *got = g->got;
    if (r < 0 && r != -ECANCELED)
        assert_true(g->req.base.err.text[0]);
    get_free(g);
    return r;
}

static void get_goes_on_where_it_ended(void **state)
{
    struct fixture f = {.plan = {.faults = {{.err = -ECONNRESET, .after = 1500},
                                            {.err = -EAGAIN},
                                            {.err = -ETIMEDOUT, .after = 1},
                                            {.err = -EBADMSG, .after = 3000}},
                                 .n = 4}};
    uint64_t got;
    fixture_init(&f, &quick);
    assert_int_equal(one_get(&f, 10000, 100, 9000, &got), 0);
    assert_int_equal(got, 9000);
    assert_int_equal(f.be->stats->retries, 4);
    assert_int_equal(f.be->stats->errors, 0);
    fixture_free(&f);
}

static void what_cannot_succeed_is_not_tried_again(void **state)
{
    static const int errors[] = {-EACCES, -ENOENT, -ESTALE, -EIO,
                                 -EPROTO, -EISDIR, -ENOMEM, -ECANCELED};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(errors); i++) {
        struct fixture f = {.plan = {.faults = {{.err = errors[i]}}, .n = 1}};
        fixture_init(&f, &quick);
        assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), errors[i]);
        assert_int_equal(f.be->stats->retries, 0);
        fixture_free(&f);
    }
}

static void attempts_end(void **state)
{
    static const int errors[] = {-EAGAIN, -ETIMEDOUT, -ECONNRESET, -EBADMSG};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(errors); i++) {
        struct fixture f = {.plan = {.faults = {{.err = errors[i]}}, .n = 1, .for_ever = true}};
        fixture_init(&f, &quick);
        assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), errors[i]);
        assert_int_equal(f.be->stats->retries, 3);
        assert_int_equal(f.be->stats->errors, 1);
        fixture_free(&f);
    }
}

static void progress_counts_anew(void **state)
{
    struct fixture f = {
        .plan = {.faults = {{.err = -ECONNRESET, .after = 10}}, .n = 1, .for_ever = true}};
    uint64_t got;
    fixture_init(&f, &quick);
    assert_int_equal(one_get(&f, 1000, 0, 200, &got), 0);
    assert_int_equal(got, 200);
    assert_int_equal(f.be->stats->retries, 19);
    fixture_free(&f);
}

static void nobody_there_is_waited_for(void **state)
{
    struct zc_retry_config cfg = quick;
    struct fixture f = {.plan = {.faults = {{.err = -ECONNREFUSED}}, .n = 1, .for_ever = true}};
    cfg.deadline_ns = 300 * ZC_NS_PER_MS;
    fixture_init(&f, &cfg);
    int64_t t = zc_now_ns();
    assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), -ECONNREFUSED);
    t = zc_now_ns() - t;
    assert_true(t > 200 * ZC_NS_PER_MS && t < 5 * ZC_NS_PER_S);
    assert_true(f.be->stats->retries > cfg.attempts);
    fixture_free(&f);
}

static void a_deadline_is_a_deadline(void **state)
{
    struct fixture f = {.plan = {.faults = {{.err = -EHOSTUNREACH}}, .n = 1, .for_ever = true}};
    fixture_init(&f, &quick);
    struct get *g = get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    int64_t t = zc_now_ns();
    g->req.base.deadline_ns = t + 200 * ZC_NS_PER_MS;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(get_wait(g), -EHOSTUNREACH);
    assert_true(zc_now_ns() - t < 5 * ZC_NS_PER_S);
    get_free(g);
    g = get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    g->req.base.deadline_ns = zc_now_ns() - 1;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(get_wait(g), -ETIMEDOUT);
    get_free(g);
    fixture_free(&f);
}

/* A store that says "later" for longer than ten attempts take is waited for, and no longer. */
static void later_is_waited_for(void **state)
{
    struct zc_retry_config cfg = {
        .base_ns = ZC_NS_PER_MS, .cap_ns = 4 * ZC_NS_PER_MS, .deadline_ns = 60 * ZC_NS_PER_S};
    struct fixture f = {.plan = {.faults = {{.err = -EAGAIN}}, .n = 1, .storm = 40}};
    fixture_init(&f, &cfg);
    assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), 0);
    assert_int_equal(f.be->stats->retries, 40);
    fixture_free(&f);

    f.plan = (struct plan){.faults = {{.err = -EAGAIN}}, .n = 1, .for_ever = true};
    cfg.deadline_ns = ZC_NS_PER_S;
    fixture_init(&f, &cfg);
    int64_t t = zc_now_ns();
    assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), -EAGAIN);
    t = zc_now_ns() - t;
    assert_true(t > 900 * ZC_NS_PER_MS && t < 10 * ZC_NS_PER_S);
    assert_true(f.be->stats->retries > 10);
    fixture_free(&f);
}

/* No back-off, however long it is by then, gives away what is left of the time. */
static void back_off_ends_with_the_deadline(void **state)
{
    static const struct zc_retry_config cfg = {.base_ns = 20 * ZC_NS_PER_MS,
                                               .cap_ns = 1000 * ZC_NS_PER_S,
                                               .deadline_ns = 400 * ZC_NS_PER_MS};
    for (int i = 0; i < 4; i++) {
        struct fixture f = {.plan = {.faults = {{.err = -EAGAIN}}, .n = 1, .for_ever = true}};
        fixture_init(&f, &cfg);
        int64_t t = zc_now_ns();
        assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), -EAGAIN);
        t = zc_now_ns() - t;
        assert_true(t >= 380 * ZC_NS_PER_MS && t < 5 * ZC_NS_PER_S);
        fixture_free(&f);
    }
}

static void nonsense_is_not_waited_for(void **state)
{
    static const struct zc_retry_config cfg = {.base_ns = ZC_NS_PER_MS, .cap_ns = 4 * ZC_NS_PER_MS};
    struct fixture f = {.plan = {.faults = {{.err = -EBADMSG}}, .n = 1, .for_ever = true}};
    fixture_init(&f, &cfg);
    assert_int_equal(one_get(&f, 1000, 0, 1000, NULL), -EBADMSG);
    assert_int_equal(f.be->stats->retries, 9);
    fixture_free(&f);
}

/* A source that answers nothing: it ends what has stood still for as long as the request says. */
struct mute {
    struct zc_backend be;
    struct zc_backend_stats stats;
    int64_t stall_ns[4]; /* of the first attempts */
    unsigned n;
    uint64_t give; /* bytes at first */
};

static void mute_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct mute *m = zc_container_of(be, struct mute, be);
    unsigned char buf[64];
    if (m->n < ZC_ARRAY_SIZE(m->stall_ns))
        m->stall_ns[m->n] = req->base.stall_ns;
    assert_int_equal(req->base.deadline_ns, 0);
    if (m->n++ == 0 && m->give) {
        ht_fill(buf, req->off, m->give);
        req->data(req, buf, m->give);
    }
    usleep((useconds_t)(ZC_MIN(req->base.stall_ns, 50 * ZC_NS_PER_MS) / 1000) + 1);
    zc_error_set(&req->base.err, -ETIMEDOUT, "silence");
    req->done(req, -ETIMEDOUT);
}

static void mute_free(struct zc_backend *be)
{
}

static const struct zc_backend_ops mute_ops = {.get = mute_get, .free = mute_free};

/* Every attempt, the first one too, is told how long it may stand still: what is left. */
static void silence_ends_in_time(void **state)
{
    struct zc_retry_config cfg = {.base_ns = ZC_NS_PER_MS, .deadline_ns = 200 * ZC_NS_PER_MS};
    for (uint64_t give = 0; give <= 10; give += 10) {
        struct mute m = {.give = give};
        struct zc_net_config net_cfg = {.loops = 1};
        struct zc_net *net;
        struct zc_backend *be;
        m.be = (struct zc_backend){.ops = &mute_ops, .url = "mute:", .stats = &m.stats};
        assert_int_equal(zc_net_new(&net_cfg, &net), 0);
        assert_int_equal(zc_retry_new(&m.be, net, &cfg, &be), 0);
        struct get *g = get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
        int64_t t = zc_now_ns();
        zc_backend_get(be, &g->req);
        assert_int_equal(get_wait(g), -ETIMEDOUT);
        t = zc_now_ns() - t;
        assert_true(t >= 190 * ZC_NS_PER_MS && t < 5 * ZC_NS_PER_S);
        assert_int_equal(g->got, give);
        assert_true(m.stall_ns[0] > 0 && m.stall_ns[0] <= cfg.deadline_ns);
        assert_true(m.n > 1);
        assert_true(m.stall_ns[1] <= cfg.deadline_ns - 40 * ZC_NS_PER_MS);
        get_free(g);
        zc_backend_free(be);
        zc_net_free(net);
    }
}

static void the_callers_own_error_goes_up(void **state)
{
    struct fixture f = {0};
    fixture_init(&f, &quick);
    struct get *g = get_new("a", 5000, 0, 5000, ZC_PRIO_DEMAND);
    g->stop_with = -EAGAIN;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(get_wait(g), -EAGAIN);
    assert_int_equal(f.be->stats->retries, 0);
    get_free(g);
    fixture_free(&f);
}

static void cancel_ends_the_back_off(void **state)
{
    static const struct zc_retry_config slow = {.base_ns = 100 * ZC_NS_PER_S,
                                                .cap_ns = 100 * ZC_NS_PER_S,
                                                .deadline_ns = 1000 * ZC_NS_PER_S};
    struct fixture f = {.plan = {.faults = {{.err = -EAGAIN}}, .n = 1, .for_ever = true}};
    fixture_init(&f, &slow);
    struct get *g = get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND),
               *left = get_new("b", 1, 0, 1, ZC_PRIO_DEMAND);
    int64_t t = zc_now_ns();
    zc_backend_get(f.be, &g->req);
    zc_backend_get(f.be, &left->req);
    usleep(20000);
    assert_false(get_ended(g));
    zc_backend_cancel(f.be, &g->req.base);
    assert_int_equal(get_wait(g), -ECANCELED);
    assert_true(zc_now_ns() - t < 10 * ZC_NS_PER_S);
    get_free(g);
    /* The end of the network ends it too. */
    zc_net_free(f.net);
    assert_int_equal(get_wait(left), -ECANCELED);
    get_free(left);
    zc_backend_free(f.be);
}

static void cancel_before_submission(void **state)
{
    struct fixture f = {0};
    fixture_init(&f, &quick);
    struct get *g = get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    zc_backend_cancel(f.be, &g->req.base);
    zc_backend_get(f.be, &g->req);
    assert_int_equal(get_wait(g), -ECANCELED);
    assert_int_equal(mem_requests(f.mem), 0);
    get_free(g);
    fixture_free(&f);
}

struct answer {
    struct zc_list_req list;
    struct zc_stat_req stat;
    _Atomic int ended, err, n;
};

static void on_list(struct zc_list_req *req, int err, const struct zc_entry *entries, size_t n,
                    const char *next, unsigned skipped)
{
    struct answer *a = zc_container_of(req, struct answer, list);
    a->err = err;
    a->n = (int)n;
    a->ended = 1;
}

static void on_stat(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct answer *a = zc_container_of(req, struct answer, stat);
    a->err = err;
    a->n = attr && strcmp(attr->version, "v") == 0;
    a->ended = 1;
}

static void lists_and_stats_are_tried_again(void **state)
{
    struct fixture f = {.plan = {.faults = {{.err = -EAGAIN}, {.err = -EAGAIN}}, .n = 2}};
    struct answer a = {.list = {.path = "d", .done = on_list},
                       .stat = {.path = "d", .done = on_stat}};
    fixture_init(&f, &quick);
    zc_backend_list(f.be, &a.list);
    while (!a.ended)
        usleep(1000);
    assert_int_equal(a.err, 0);
    assert_int_equal(a.n, 1);
    fixture_free(&f);

    fixture_init(&f, &quick);
    a.ended = a.n = 0;
    zc_backend_stat(f.be, &a.stat);
    while (!a.ended)
        usleep(1000);
    assert_int_equal(a.err, 0);
    assert_int_equal(a.n, 1);
    fixture_free(&f);
}

/* ---- limit ---- */

static void limit_keeps_to_its_number(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct get *g[100];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 8, &be), 0);
    for (int i = 0; i < 100; i++) {
        g[i] = get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
        zc_backend_get(be, &g[i]->req);
    }
    assert_int_equal(mem_held(mem), 8);
    while (mem_release(mem, 1))
        assert_true(mem_held(mem) <= 8);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(get_wait(g[i]), 0);
        assert_int_equal(g[i]->got, 100);
        get_free(g[i]);
    }
    assert_int_equal(mem_most_held(mem), 8);
    zc_backend_free(be);
}

static void demand_finds_a_free_slot(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct get *warm[20], *ahead, *demand[8];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 8, &be), 0);
    for (int i = 0; i < 20; i++) {
        warm[i] = get_new("w", 100, 0, 100, ZC_PRIO_WARM);
        zc_backend_get(be, &warm[i]->req);
    }
    assert_int_equal(mem_held(mem), 6); /* a quarter is kept free */
    ahead = get_new("a", 100, 0, 100, ZC_PRIO_AHEAD);
    zc_backend_get(be, &ahead->req);
    assert_int_equal(mem_held(mem), 6);
    for (int i = 0; i < 8; i++) {
        demand[i] = get_new("d", 100, 0, 100, ZC_PRIO_DEMAND);
        zc_backend_get(be, &demand[i]->req);
    }
    assert_int_equal(mem_held(mem), 8);
    /* As slots come free demand goes first, then read-ahead, then warm. */
    while (mem_release(mem, 1))
        ;
    for (unsigned i = 0; i < 6; i++)
        assert_string_equal(mem_order(mem, i), "o/w/100");
    for (unsigned i = 6; i < 14; i++)
        assert_string_equal(mem_order(mem, i), "o/d/100");
    assert_string_equal(mem_order(mem, 14), "o/a/100");
    for (int i = 0; i < 20; i++) {
        assert_int_equal(get_wait(warm[i]), 0);
        get_free(warm[i]);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(get_wait(demand[i]), 0);
        get_free(demand[i]);
    }
    assert_int_equal(get_wait(ahead), 0);
    get_free(ahead);
    zc_backend_free(be);
}

static void one_slot_serves_everybody(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    assert_int_equal(zc_limit_new(mem, NULL, 1, &be), 0);
    for (int prio = 0; prio < ZC_PRIO_N; prio++) {
        struct get *g = get_new("a", 100, 0, 100, (enum zc_prio)prio);
        zc_backend_get(be, &g->req);
        assert_int_equal(get_wait(g), 0);
        get_free(g);
    }
    zc_backend_free(be);
}

static void what_waits_can_be_cancelled(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct get *g[6];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 2, &be), 0);
    for (int i = 0; i < 6; i++) {
        g[i] = get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
        zc_backend_get(be, &g[i]->req);
    }
    zc_backend_cancel(be, &g[0]->req.base); /* in flight: the source lets it end */
    zc_backend_cancel(be, &g[3]->req.base); /* waits */
    zc_backend_cancel(be, &g[4]->req.base);
    assert_int_equal(mem_release(mem, 1), 1);
    assert_int_equal(get_wait(g[0]), -ECANCELED);
    assert_int_equal(get_wait(g[3]), -ECANCELED);
    assert_int_equal(get_wait(g[4]), -ECANCELED);
    while (mem_release(mem, 1))
        ;
    assert_int_equal(get_wait(g[1]), 0);
    assert_int_equal(get_wait(g[2]), 0);
    assert_int_equal(get_wait(g[5]), 0);
    assert_int_equal(mem_requests(mem), 4);
    for (int i = 0; i < 6; i++)
        get_free(g[i]);
    zc_backend_free(be);
}

static void failures_on_the_spot_do_not_recurse(void **state)
{
    enum { N = 20000 };
    struct zc_backend *mem = mem_new(), *be;
    struct get **g = calloc(N, sizeof(*g));
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 1, &be), 0);
    for (int i = 0; i < N; i++) {
        g[i] = get_new("a", 100, 90, i ? 20 : 5, ZC_PRIO_DEMAND); /* past the end: fails at once */
        zc_backend_get(be, &g[i]->req);
    }
    mem_hold(mem, false);
    mem_release(mem, 1);
    for (int i = 0; i < N; i++) {
        assert_int_equal(get_wait(g[i]), i ? -EBADMSG : 0);
        get_free(g[i]);
    }
    free(g);
    zc_backend_free(be);
}

/* ---- limit: what waits in vain ---- */

struct queue {
    struct zc_net *net;
    struct zc_backend *mem, *be;
    struct get *g[20];
};

/* Two in flight at a source that holds all, and eighteen that wait. */
static void queue_init(struct queue *q, int64_t stall_ns, int64_t deadline_ns)
{
    struct zc_net_config net = {.loops = 1};
    assert_int_equal(zc_net_new(&net, &q->net), 0);
    q->mem = mem_new();
    mem_hold(q->mem, true);
    assert_int_equal(zc_limit_new(q->mem, q->net, 2, &q->be), 0);
    for (int i = 0; i < 20; i++) {
        q->g[i] = get_new("a", 100, 0, 100, (enum zc_prio)(i % ZC_PRIO_N));
        q->g[i]->req.base.stall_ns = stall_ns;
        q->g[i]->req.base.deadline_ns = deadline_ns;
        zc_backend_get(q->be, &q->g[i]->req);
    }
    assert_true(mem_held(q->mem) <= 2);
}

static unsigned queue_ended(struct queue *q)
{
    unsigned n = 0;
    for (int i = 0; i < 20; i++)
        n += get_ended(q->g[i]);
    return n;
}

static void queue_free(struct queue *q)
{
    while (mem_release(q->mem, 20))
        ;
    for (int i = 0; i < 20; i++) {
        get_wait(q->g[i]);
        get_free(q->g[i]);
    }
    zc_backend_free(q->be);
    zc_net_free(q->net);
}

/* Nothing comes of those in flight: what waits does not wait for their end. */
static void what_waits_in_vain_ends(void **state)
{
    struct queue q;
    int64_t t = zc_now_ns();
    queue_init(&q, 200 * ZC_NS_PER_MS, 0);
    unsigned held = mem_held(q.mem);
    while (queue_ended(&q) < 20 - held)
        usleep(2000);
    assert_true(zc_now_ns() - t >= 200 * ZC_NS_PER_MS);
    for (int i = 0; i < 20; i++) {
        if (!get_ended(q.g[i]))
            continue;
        assert_int_equal(q.g[i]->err, -ETIMEDOUT);
        assert_non_null(strstr(q.g[i]->req.base.err.text, "mem:: waited for its turn"));
    }
    assert_int_equal(mem_held(q.mem), held);
    assert_int_equal(mem_requests(q.mem), held);
    queue_free(&q);

    /* A deadline ends it too, whatever comes. */
    queue_init(&q, 0, zc_now_ns() + 200 * ZC_NS_PER_MS);
    held = mem_held(q.mem);
    while (queue_ended(&q) < 20 - held)
        usleep(2000);
    queue_free(&q);
}

/* A slow source is no dead one: one answer a while, and nobody is sent away. */
static void a_slow_source_is_waited_for(void **state)
{
    struct queue q;
    int64_t t = zc_now_ns();
    queue_init(&q, 3 * ZC_NS_PER_S, 0);
    for (unsigned n = 1; n <= 20; n++) {
        usleep(160000);
        assert_int_equal(mem_release(q.mem, 1), 1);
    }
    for (int i = 0; i < 20; i++)
        assert_int_equal(get_wait(q.g[i]), 0);
    assert_true(zc_now_ns() - t > 3 * ZC_NS_PER_S);
    queue_free(&q);
}

/* A source whose first get comes byte by byte, by the test's hand; the second is reset. */
struct trickle {
    struct zc_backend be;
    struct zc_backend_stats stats;
    _Atomic(struct zc_get_req *) first;
    unsigned n; /* one at a time: under a limit of one */
};

static void trickle_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct trickle *t = zc_container_of(be, struct trickle, be);
    unsigned char buf[100];
    switch (t->n++) {
    case 0:
        t->first = req;
        return;
    case 1:
        zc_error_set(&req->base.err, -ECONNRESET, "reset");
        req->done(req, -ECONNRESET);
        return;
    }
    ht_fill(buf, req->off, req->len);
    req->data(req, buf, req->len);
    req->done(req, 0);
}

static const struct zc_backend_ops trickle_ops = {.get = trickle_get, .free = mute_free};

/* A request that waited for long, while others got something, has all its time once its turn has
   come, and is tried again. */
static void time_begins_with_the_turn(void **state)
{
    struct zc_retry_config cfg = {
        .base_ns = ZC_NS_PER_MS, .cap_ns = 4 * ZC_NS_PER_MS, .deadline_ns = 2 * ZC_NS_PER_S};
    struct zc_net_config net_cfg = {.loops = 1};
    struct trickle t = {0};
    struct zc_net *net;
    struct zc_backend *limit, *be;
    t.be = (struct zc_backend){.ops = &trickle_ops, .url = "trickle:", .stats = &t.stats};
    assert_int_equal(zc_net_new(&net_cfg, &net), 0);
    assert_int_equal(zc_limit_new(&t.be, net, 1, &limit), 0);
    assert_int_equal(zc_retry_new(limit, net, &cfg, &be), 0);
    struct get *first = get_new("a", 100, 0, 100, ZC_PRIO_DEMAND),
               *second = get_new("b", 100, 0, 100, ZC_PRIO_DEMAND);
    zc_backend_get(be, &first->req);
    zc_backend_get(be, &second->req);
    struct zc_get_req *req = t.first;
    for (uint64_t i = 0; i < req->len; i++) {
        unsigned char byte;
        usleep(25000);
        ht_fill(&byte, req->off + i, 1);
        assert_int_equal(req->data(req, &byte, 1), 0);
        assert_false(get_ended(second));
    }
    req->done(req, 0);
    assert_int_equal(get_wait(first), 0);
    assert_int_equal(get_wait(second), 0);
    assert_int_equal(t.n, 3);
    get_free(second);
    get_free(first);
    zc_backend_free(be);
    zc_net_free(net);
}

/* A source whose get() comes back only when the wrapper around it is gone. */
struct lingering {
    struct zc_backend be;
    struct zc_backend *wrapper;
    struct get *get;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct zc_get_req *asked; /* under the lock, as the next */
    bool gone;
};

static void lingering_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct lingering *l = zc_container_of(be, struct lingering, be);
    pthread_mutex_lock(&l->lock);
    l->asked = req;
    pthread_cond_signal(&l->cond);
    while (!l->gone)
        pthread_cond_wait(&l->cond, &l->lock);
    pthread_mutex_unlock(&l->lock);
}

static void lingering_free(struct zc_backend *be)
{
}

static void *lingering_thread(void *arg)
{
    struct lingering *l = arg;
    zc_backend_get(l->wrapper, &l->get->req);
    return NULL;
}

static void one_on_its_way_out_outlasts_the_wrapper(void **state)
{
    static const struct zc_backend_ops ops = {.get = lingering_get, .free = lingering_free};
    struct zc_backend_stats stats = {0};
    struct lingering l = {.be = {.ops = &ops, .stats = &stats}, .lock = PTHREAD_MUTEX_INITIALIZER};
    pthread_t thread;
    pthread_cond_init(&l.cond, NULL);
    l.get = get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
    assert_int_equal(zc_limit_new(&l.be, NULL, 1, &l.wrapper), 0);
    assert_int_equal(pthread_create(&thread, NULL, lingering_thread, &l), 0);
    pthread_mutex_lock(&l.lock);
    while (!l.asked)
        pthread_cond_wait(&l.cond, &l.lock);
    pthread_mutex_unlock(&l.lock);
    l.asked->done(l.asked, 0);
    assert_int_equal(get_wait(l.get), 0);
    zc_backend_free(l.wrapper); /* nothing is under way any more, as far as its user can see */
    pthread_mutex_lock(&l.lock);
    l.gone = true;
    pthread_cond_signal(&l.cond);
    pthread_mutex_unlock(&l.lock);
    pthread_join(thread, NULL);
    get_free(l.get);
    pthread_cond_destroy(&l.cond);
}

/* ---- all of it ---- */

static void right_bytes_by_chance(void **state)
{
    static const int errors[] = {-EAGAIN, -ECONNRESET, -ETIMEDOUT, -ECONNREFUSED, -EBADMSG};
    struct zc_fault_chance chance = {.seed = 42,
                                     .per_mille = 300,
                                     .errors = errors,
                                     .n_errors = 5,
                                     .after_max = 3000,
                                     .delay_max_ns = ZC_NS_PER_MS};
    struct zc_retry_config cfg = quick;
    struct zc_net_config net_cfg = {.loops = 2};
    struct zc_net *net;
    struct zc_backend *mem = mem_new(), *fault, *limit, *be;
    struct get *g[400];
    unsigned cancelled = 0;
    cfg.attempts = 20;
    assert_int_equal(zc_net_new(&net_cfg, &net), 0);
    assert_int_equal(zc_fault_new(mem, net, zc_fault_by_chance, &chance, &fault), 0);
    assert_int_equal(zc_limit_new(fault, net, 16, &limit), 0);
    assert_int_equal(zc_retry_new(limit, net, &cfg, &be), 0);
    for (int i = 0; i < 400; i++) {
        g[i] = get_new("a", 20000, (uint64_t)i * 7, 10000, (enum zc_prio)(i % ZC_PRIO_N));
        zc_backend_get(be, &g[i]->req);
        if (i % 50 == 49) {
            pthread_mutex_lock(&g[i - 20]->lock);
            if (!g[i - 20]->ended)
                zc_backend_cancel(be, &g[i - 20]->req.base);
            pthread_mutex_unlock(&g[i - 20]->lock);
        }
    }
    for (int i = 0; i < 400; i++) {
        int r = get_wait(g[i]);
        if (r == -ECANCELED && i % 50 == 29) {
            cancelled++;
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(g[i]->got, 10000);
        }
        get_free(g[i]);
    }
    print_message("%u cancelled, %llu retries\n", cancelled,
                  (unsigned long long)be->stats->retries);
    assert_true(be->stats->retries > 100);
    zc_backend_free(be);
    zc_net_free(net);
}

static void chance_is_the_seeds(void **state)
{
    static const int errors[] = {-EAGAIN, -ECONNRESET};
    struct zc_fault_chance a = {.seed = 7,
                                .per_mille = 100,
                                .errors = errors,
                                .n_errors = 2,
                                .after_max = 50},
                           b = a;
    unsigned failed = 0;
    b.seed = 8;
    unsigned differ = 0;
    for (uint64_t n = 0; n < 10000; n++) {
        struct zc_fault f = zc_fault_by_chance(&a, n, ZC_FAULT_GET, ""),
                        g = zc_fault_by_chance(&a, n, ZC_FAULT_GET, ""),
                        h = zc_fault_by_chance(&b, n, ZC_FAULT_GET, "");
        assert_memory_equal(&f, &g, sizeof(f));
        failed += f.err != 0;
        differ += f.err != h.err;
    }
    assert_in_range(failed, 800, 1200);
    assert_true(differ > 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(get_goes_on_where_it_ended),
        cmocka_unit_test(what_cannot_succeed_is_not_tried_again),
        cmocka_unit_test(attempts_end),
        cmocka_unit_test(progress_counts_anew),
        cmocka_unit_test(nobody_there_is_waited_for),
        cmocka_unit_test(a_deadline_is_a_deadline),
        cmocka_unit_test(later_is_waited_for),
        cmocka_unit_test(back_off_ends_with_the_deadline),
        cmocka_unit_test(nonsense_is_not_waited_for),
        cmocka_unit_test(silence_ends_in_time),
        cmocka_unit_test(the_callers_own_error_goes_up),
        cmocka_unit_test(cancel_ends_the_back_off),
        cmocka_unit_test(cancel_before_submission),
        cmocka_unit_test(lists_and_stats_are_tried_again),
        cmocka_unit_test(limit_keeps_to_its_number),
        cmocka_unit_test(demand_finds_a_free_slot),
        cmocka_unit_test(one_slot_serves_everybody),
        cmocka_unit_test(what_waits_can_be_cancelled),
        cmocka_unit_test(failures_on_the_spot_do_not_recurse),
        cmocka_unit_test(what_waits_in_vain_ends),
        cmocka_unit_test(a_slow_source_is_waited_for),
        cmocka_unit_test(time_begins_with_the_turn),
        cmocka_unit_test(one_on_its_way_out_outlasts_the_wrapper),
        cmocka_unit_test(right_bytes_by_chance),
        cmocka_unit_test(chance_is_the_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
