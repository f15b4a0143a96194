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
};

static struct zc_fault plan_next(void *user, uint64_t n, enum zc_fault_op op, const char *path)
{
    struct plan *p = user;
    if (p->n && (n < p->n || p->for_ever))
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
    assert_int_equal(zc_limit_new(mem, 8, &be), 0);
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
    assert_int_equal(zc_limit_new(mem, 8, &be), 0);
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
    assert_int_equal(zc_limit_new(mem, 1, &be), 0);
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
    assert_int_equal(zc_limit_new(mem, 2, &be), 0);
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
    assert_int_equal(zc_limit_new(mem, 1, &be), 0);
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
    assert_int_equal(zc_limit_new(&l.be, 1, &l.wrapper), 0);
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
    assert_int_equal(zc_limit_new(fault, 16, &limit), 0);
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
        cmocka_unit_test(the_callers_own_error_goes_up),
        cmocka_unit_test(cancel_ends_the_back_off),
        cmocka_unit_test(cancel_before_submission),
        cmocka_unit_test(lists_and_stats_are_tried_again),
        cmocka_unit_test(limit_keeps_to_its_number),
        cmocka_unit_test(demand_finds_a_free_slot),
        cmocka_unit_test(one_slot_serves_everybody),
        cmocka_unit_test(what_waits_can_be_cancelled),
        cmocka_unit_test(failures_on_the_spot_do_not_recurse),
        cmocka_unit_test(one_on_its_way_out_outlasts_the_wrapper),
        cmocka_unit_test(right_bytes_by_chance),
        cmocka_unit_test(chance_is_the_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
