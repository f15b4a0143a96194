/* SPDX-License-Identifier: Apache-2.0 */
/* How many requests run at once, and what waits in vain, around a source in memory. */
#include "backend/wrap.h"
#include "net/net.h"

#include "httptest.h"
#include "membackend.h"
#include "unit.h"
#include "wraptest.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

/* ---- limit ---- */

static void limit_keeps_to_its_number(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct wt_get *g[100];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 8, &be), 0);
    for (int i = 0; i < 100; i++) {
        g[i] = wt_get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
        zc_backend_get(be, &g[i]->req);
    }
    assert_int_equal(mem_held(mem), 8);
    while (mem_release(mem, 1))
        assert_true(mem_held(mem) <= 8);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(wt_get_wait(g[i]), 0);
        assert_int_equal(g[i]->got, 100);
        wt_get_free(g[i]);
    }
    assert_int_equal(mem_most_held(mem), 8);
    zc_backend_free(be);
}

static void demand_finds_a_free_slot(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct wt_get *warm[20], *ahead, *demand[8];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 8, &be), 0);
    for (int i = 0; i < 20; i++) {
        warm[i] = wt_get_new("w", 100, 0, 100, ZC_PRIO_WARM);
        zc_backend_get(be, &warm[i]->req);
    }
    assert_int_equal(mem_held(mem), 6); /* a quarter is kept free */
    ahead = wt_get_new("a", 100, 0, 100, ZC_PRIO_AHEAD);
    zc_backend_get(be, &ahead->req);
    assert_int_equal(mem_held(mem), 6);
    for (int i = 0; i < 8; i++) {
        demand[i] = wt_get_new("d", 100, 0, 100, ZC_PRIO_DEMAND);
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
        assert_int_equal(wt_get_wait(warm[i]), 0);
        wt_get_free(warm[i]);
    }
    for (int i = 0; i < 8; i++) {
        assert_int_equal(wt_get_wait(demand[i]), 0);
        wt_get_free(demand[i]);
    }
    assert_int_equal(wt_get_wait(ahead), 0);
    wt_get_free(ahead);
    zc_backend_free(be);
}

static void one_slot_serves_everybody(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    assert_int_equal(zc_limit_new(mem, NULL, 1, &be), 0);
    for (int prio = 0; prio < ZC_PRIO_N; prio++) {
        struct wt_get *g = wt_get_new("a", 100, 0, 100, (enum zc_prio)prio);
        zc_backend_get(be, &g->req);
        assert_int_equal(wt_get_wait(g), 0);
        wt_get_free(g);
    }
    zc_backend_free(be);
}

static void what_waits_can_be_cancelled(void **state)
{
    struct zc_backend *mem = mem_new(), *be;
    struct wt_get *g[6];
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 2, &be), 0);
    for (int i = 0; i < 6; i++) {
        g[i] = wt_get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
        zc_backend_get(be, &g[i]->req);
    }
    zc_backend_cancel(be, &g[0]->req.base); /* in flight: the source lets it end */
    zc_backend_cancel(be, &g[3]->req.base); /* waits */
    zc_backend_cancel(be, &g[4]->req.base);
    assert_int_equal(mem_release(mem, 1), 1);
    assert_int_equal(wt_get_wait(g[0]), -ECANCELED);
    assert_int_equal(wt_get_wait(g[3]), -ECANCELED);
    assert_int_equal(wt_get_wait(g[4]), -ECANCELED);
    while (mem_release(mem, 1))
        ;
    assert_int_equal(wt_get_wait(g[1]), 0);
    assert_int_equal(wt_get_wait(g[2]), 0);
    assert_int_equal(wt_get_wait(g[5]), 0);
    assert_int_equal(mem_requests(mem), 4);
    for (int i = 0; i < 6; i++)
        wt_get_free(g[i]);
    zc_backend_free(be);
}

static void failures_on_the_spot_do_not_recurse(void **state)
{
    enum { N = 20000 };
    struct zc_backend *mem = mem_new(), *be;
    struct wt_get **g = calloc(N, sizeof(*g));
    mem_hold(mem, true);
    assert_int_equal(zc_limit_new(mem, NULL, 1, &be), 0);
    for (int i = 0; i < N; i++) {
        g[i] =
            wt_get_new("a", 100, 90, i ? 20 : 5, ZC_PRIO_DEMAND); /* past the end: fails at once */
        zc_backend_get(be, &g[i]->req);
    }
    mem_hold(mem, false);
    mem_release(mem, 1);
    for (int i = 0; i < N; i++) {
        assert_int_equal(wt_get_wait(g[i]), i ? -EBADMSG : 0);
        wt_get_free(g[i]);
    }
    free(g);
    zc_backend_free(be);
}

/* ---- limit: what waits in vain ---- */

struct queue {
    struct zc_net *net;
    struct zc_backend *mem, *be;
    struct wt_get *g[20];
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
        q->g[i] = wt_get_new("a", 100, 0, 100, (enum zc_prio)(i % ZC_PRIO_N));
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
        n += wt_get_ended(q->g[i]);
    return n;
}

static void queue_free(struct queue *q)
{
    while (mem_release(q->mem, 20))
        ;
    for (int i = 0; i < 20; i++) {
        wt_get_wait(q->g[i]);
        wt_get_free(q->g[i]);
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
        if (!wt_get_ended(q.g[i]))
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
        assert_int_equal(wt_get_wait(q.g[i]), 0);
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

static void trickle_free(struct zc_backend *be)
{
}

static const struct zc_backend_ops trickle_ops = {.get = trickle_get, .free = trickle_free};

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
    struct wt_get *first = wt_get_new("a", 100, 0, 100, ZC_PRIO_DEMAND),
                  *second = wt_get_new("b", 100, 0, 100, ZC_PRIO_DEMAND);
    zc_backend_get(be, &first->req);
    zc_backend_get(be, &second->req);
    struct zc_get_req *req = t.first;
    for (uint64_t i = 0; i < req->len; i++) {
        unsigned char byte;
        usleep(25000);
        ht_fill(&byte, req->off + i, 1);
        assert_int_equal(req->data(req, &byte, 1), 0);
        assert_false(wt_get_ended(second));
    }
    req->done(req, 0);
    assert_int_equal(wt_get_wait(first), 0);
    assert_int_equal(wt_get_wait(second), 0);
    assert_int_equal(t.n, 3);
    wt_get_free(second);
    wt_get_free(first);
    zc_backend_free(be);
    zc_net_free(net);
}

/* A source whose get() comes back only when the wrapper around it is gone. */
struct lingering {
    struct zc_backend be;
    struct zc_backend *wrapper;
    struct wt_get *get;
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
    l.get = wt_get_new("a", 100, 0, 100, ZC_PRIO_DEMAND);
    assert_int_equal(zc_limit_new(&l.be, NULL, 1, &l.wrapper), 0);
    assert_int_equal(pthread_create(&thread, NULL, lingering_thread, &l), 0);
    pthread_mutex_lock(&l.lock);
    while (!l.asked)
        pthread_cond_wait(&l.cond, &l.lock);
    pthread_mutex_unlock(&l.lock);
    l.asked->done(l.asked, 0);
    assert_int_equal(wt_get_wait(l.get), 0);
    zc_backend_free(l.wrapper); /* nothing is under way any more, as far as its user can see */
    pthread_mutex_lock(&l.lock);
    l.gone = true;
    pthread_cond_signal(&l.cond);
    pthread_mutex_unlock(&l.lock);
    pthread_join(thread, NULL);
    wt_get_free(l.get);
    pthread_cond_destroy(&l.cond);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(limit_keeps_to_its_number),
        cmocka_unit_test(demand_finds_a_free_slot),
        cmocka_unit_test(one_slot_serves_everybody),
        cmocka_unit_test(what_waits_can_be_cancelled),
        cmocka_unit_test(failures_on_the_spot_do_not_recurse),
        cmocka_unit_test(what_waits_in_vain_ends),
        cmocka_unit_test(a_slow_source_is_waited_for),
        cmocka_unit_test(time_begins_with_the_turn),
        cmocka_unit_test(one_on_its_way_out_outlasts_the_wrapper),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
