/* SPDX-License-Identifier: Apache-2.0 */
/* What is tried again, and all wrappers (retry, limit, fault) together, around a source in memory.
 */
#include "backend/fault.h"
#include "backend/wrap.h"
#include "net/net.h"

#include "httptest.h"
#include "membackend.h"
#include "unit.h"
#include "wraptest.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

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
    struct wt_get *g = wt_get_new("a", size, off, len, ZC_PRIO_DEMAND);
    zc_backend_get(f->be, &g->req);
    int r = wt_get_wait(g);
    if (got)
        *got = g->got;
    if (r < 0 && r != -ECANCELED)
        assert_true(g->req.base.err.text[0]);
    wt_get_free(g);
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
    struct wt_get *g = wt_get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    int64_t t = zc_now_ns();
    g->req.base.deadline_ns = t + 200 * ZC_NS_PER_MS;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(wt_get_wait(g), -EHOSTUNREACH);
    assert_true(zc_now_ns() - t < 5 * ZC_NS_PER_S);
    wt_get_free(g);
    g = wt_get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    g->req.base.deadline_ns = zc_now_ns() - 1;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(wt_get_wait(g), -ETIMEDOUT);
    wt_get_free(g);
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
        struct wt_get *g = wt_get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
        int64_t t = zc_now_ns();
        zc_backend_get(be, &g->req);
        assert_int_equal(wt_get_wait(g), -ETIMEDOUT);
        t = zc_now_ns() - t;
        assert_true(t >= 190 * ZC_NS_PER_MS && t < 5 * ZC_NS_PER_S);
        assert_int_equal(g->got, give);
        assert_true(m.stall_ns[0] > 0 && m.stall_ns[0] <= cfg.deadline_ns);
        assert_true(m.n > 1);
        assert_true(m.stall_ns[1] <= cfg.deadline_ns - 40 * ZC_NS_PER_MS);
        wt_get_free(g);
        zc_backend_free(be);
        zc_net_free(net);
    }
}

static void the_callers_own_error_goes_up(void **state)
{
    struct fixture f = {0};
    fixture_init(&f, &quick);
    struct wt_get *g = wt_get_new("a", 5000, 0, 5000, ZC_PRIO_DEMAND);
    g->stop_with = -EAGAIN;
    zc_backend_get(f.be, &g->req);
    assert_int_equal(wt_get_wait(g), -EAGAIN);
    assert_int_equal(f.be->stats->retries, 0);
    wt_get_free(g);
    fixture_free(&f);
}

static void cancel_ends_the_back_off(void **state)
{
    static const struct zc_retry_config slow = {.base_ns = 100 * ZC_NS_PER_S,
                                                .cap_ns = 100 * ZC_NS_PER_S,
                                                .deadline_ns = 1000 * ZC_NS_PER_S};
    struct fixture f = {.plan = {.faults = {{.err = -EAGAIN}}, .n = 1, .for_ever = true}};
    fixture_init(&f, &slow);
    struct wt_get *g = wt_get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND),
                  *left = wt_get_new("b", 1, 0, 1, ZC_PRIO_DEMAND);
    int64_t t = zc_now_ns();
    zc_backend_get(f.be, &g->req);
    zc_backend_get(f.be, &left->req);
    usleep(20000);
    assert_false(wt_get_ended(g));
    zc_backend_cancel(f.be, &g->req.base);
    assert_int_equal(wt_get_wait(g), -ECANCELED);
    assert_true(zc_now_ns() - t < 10 * ZC_NS_PER_S);
    wt_get_free(g);
    /* The end of the network ends it too. */
    zc_net_free(f.net);
    assert_int_equal(wt_get_wait(left), -ECANCELED);
    wt_get_free(left);
    zc_backend_free(f.be);
}

static void cancel_before_submission(void **state)
{
    struct fixture f = {0};
    fixture_init(&f, &quick);
    struct wt_get *g = wt_get_new("a", 1000, 0, 1000, ZC_PRIO_DEMAND);
    zc_backend_cancel(f.be, &g->req.base);
    zc_backend_get(f.be, &g->req);
    assert_int_equal(wt_get_wait(g), -ECANCELED);
    assert_int_equal(mem_requests(f.mem), 0);
    wt_get_free(g);
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
    struct wt_get *g[400];
    unsigned cancelled = 0;
    cfg.attempts = 20;
    assert_int_equal(zc_net_new(&net_cfg, &net), 0);
    assert_int_equal(zc_fault_new(mem, net, zc_fault_by_chance, &chance, &fault), 0);
    assert_int_equal(zc_limit_new(fault, net, 16, &limit), 0);
    assert_int_equal(zc_retry_new(limit, net, &cfg, &be), 0);
    for (int i = 0; i < 400; i++) {
        g[i] = wt_get_new("a", 20000, (uint64_t)i * 7, 10000, (enum zc_prio)(i % ZC_PRIO_N));
        zc_backend_get(be, &g[i]->req);
        if (i % 50 == 49) {
            pthread_mutex_lock(&g[i - 20]->lock);
            if (!g[i - 20]->ended)
                zc_backend_cancel(be, &g[i - 20]->req.base);
            pthread_mutex_unlock(&g[i - 20]->lock);
        }
    }
    for (int i = 0; i < 400; i++) {
        int r = wt_get_wait(g[i]);
        if (r == -ECANCELED && i % 50 == 29) {
            cancelled++;
        } else {
            assert_int_equal(r, 0);
            assert_int_equal(g[i]->got, 10000);
        }
        wt_get_free(g[i]);
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
        cmocka_unit_test(right_bytes_by_chance),
        cmocka_unit_test(chance_is_the_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
