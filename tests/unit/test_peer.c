/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node among others that do what real ones do not: lie, stand still, refer in circles. Whatever
 * the two fake nodes that own what it wants do, the bytes are right, in order, each once, and come
 * within a bounded time.
 */
#include "peertest.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

struct got {
    struct zc_get_req req;
    uint64_t n;
    bool wrong;
    int err;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static int got_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct got *g = zc_container_of(req, struct got, req);
    for (size_t i = 0; i < n; i++)
        g->wrong = g->wrong || ((const uint8_t *)p)[i] != ht_byte(g->req.off + g->n + i);
    g->n += n;
    return 0;
}

static void got_done(struct zc_get_req *req, int err)
{
    struct got *g = zc_container_of(req, struct got, req);
    pthread_mutex_lock(&g->lock);
    assert_false(g->done);
    g->err = err;
    g->done = true;
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->lock);
}

static void got_begin(struct pt_world *w, struct got *g, uint64_t off, uint64_t len)
{
    *g = (struct got){.req = {.path = w->path,
                              .version = "v",
                              .off = off,
                              .len = len,
                              .size = PT_SIZE,
                              .data = got_data,
                              .done = got_done}};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->cond, NULL);
    zc_backend_get(w->be, &g->req);
}

/* How long it took; the seconds are what a hang is called one after. */
static double got_end(struct got *g, int seconds)
{
    int64_t began = zc_now_ns();
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += seconds;
    pthread_mutex_lock(&g->lock);
    while (!g->done && pthread_cond_timedwait(&g->cond, &g->lock, &ts) == 0)
        ;
    assert_true(g->done);
    pthread_mutex_unlock(&g->lock);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->cond);
    return (double)(zc_now_ns() - began) / 1e9;
}

static void get_right(struct pt_world *w, uint64_t off, uint64_t len)
{
    struct got g;
    got_begin(w, &g, off, len);
    got_end(&g, 60);
    assert_int_equal(g.err, 0);
    assert_false(g.wrong);
    assert_int_equal(g.n, len);
}

static bool mode_lies(enum pt_mode m)
{
    return (m >= FAKE_FLIPPED && m <= FAKE_NO_SUMS);
}

/* The owner does each of it, the second is good. */
static void test_owner_of_each_kind(void **state)
{
    struct pt_world *w = *state;
    w->fakes[2].mode = FAKE_GOOD;
    for (int m = FAKE_GOOD; m < FAKE_MODES; m++) {
        print_message("owner: %s\n", pt_mode_names[m]);
        pt_teardown(state);
        pt_setup(state);
        w = *state;
        w->fakes[1].mode = m;
        w->fakes[2].mode = FAKE_GOOD;
        pt_object(w, 1, 2);
        get_right(w, 100, PT_SIZE - 200);
        struct zc_peer_stats s = pt_stats(w);
        assert_int_equal(mem_requests(w->mem), 0); /* the second had it */
        assert_int_equal(s.bad_sums, mode_lies((enum pt_mode)m));
        if (mode_lies((enum pt_mode)m)) {
            assert_int_equal(s.aside, 1);
            bool told = m == FAKE_FLIPPED || m == FAKE_SWAPPED_OBJECT || m == FAKE_SWAPPED_PLACE;
            for (int i = 0; i < 500 && told && !w->fakes[1].doubts; i++)
                usleep(10000);
            assert_int_equal(w->fakes[1].doubts, told);
            unsigned before = ht_requests(w->fakes[1].ht);
            get_right(w, 0, PT_SIZE);
            assert_int_equal(ht_requests(w->fakes[1].ht), before); /* not asked any more */
        }
        if (m == FAKE_TRICKLE) { /* left for the second one, and not asked for a while */
            assert_int_equal(s.late, 1);
            assert_int_equal(s.aside, 1);
            assert_int_equal(ht_requests(w->fakes[2].ht), 1);
        }
        if (m == FAKE_BYTES)
            assert_true(ht_requests(w->fakes[1].ht) < 20);
    }
}

/* Both do: the store is asked. */
static void test_all_of_each_kind(void **state)
{
    for (int m = FAKE_SHORT_ANSWERS; m < FAKE_MODES; m++) {
        if (m == FAKE_TICKS)
            continue; /* ten seconds each: one was waited for above */
        print_message("all: %s\n", pt_mode_names[m]);
        pt_teardown(state);
        pt_setup(state);
        struct pt_world *w = *state;
        w->fakes[1].mode = w->fakes[2].mode = m;
        pt_object(w, 1, 2);
        get_right(w, 0, PT_SIZE);
        /* One that says too much has said what is right before that. */
        bool gives = m == FAKE_SHORT_ANSWERS || m == FAKE_LATE || m == FAKE_TOO_MUCH;
        assert_int_equal(mem_requests(w->mem), gives ? 0 : 1);
    }
}

/* Nobody listens there. */
static void test_gone(void **state)
{
    struct pt_world *w = *state;
    pt_object(w, 1, 2);
    ht_stop(w->fakes[1].ht);
    ht_stop(w->fakes[2].ht);
    int64_t began = zc_now_ns();
    get_right(w, 0, PT_SIZE);
    assert_true(zc_now_ns() - began < 2 * ZC_NS_PER_S);
    assert_int_equal(pt_stats(w).aside, 2);
    get_right(w, 0, PT_SIZE);
    assert_int_equal(pt_stats(w).asked, 2);
    for (unsigned i = 1; i < 3; i++)
        w->fakes[i].ht = ht_start(pt_answer, &w->fakes[i]);
}

/* One that is set aside is tried again, and is as good as before. */
static void test_comes_back(void **state)
{
    struct pt_world *w = *state;
    pt_object(w, 1, 0);
    w->fakes[1].mode = FAKE_SILENT;
    for (int i = 0; i < 4; i++)
        get_right(w, 0, 1000);
    assert_int_equal(pt_stats(w).aside, 1);
    unsigned before = ht_requests(w->fakes[1].ht);
    get_right(w, 0, 1000);
    assert_int_equal(ht_requests(w->fakes[1].ht), before);
    w->fakes[1].mode = FAKE_GOOD;
    for (int i = 0; i < 80 && pt_stats(w).aside; i++) {
        usleep(100000);
        get_right(w, 0, 1000);
    }
    assert_int_equal(pt_stats(w).aside, 0);
    before = mem_requests(w->mem);
    get_right(w, 0, PT_SIZE);
    assert_int_equal(mem_requests(w->mem), before);
}

/* What this node owns is asked of nobody who has to fetch it. */
static void test_own(void **state)
{
    struct pt_world *w = *state;
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    pt_object(w, 0, 1);
    get_right(w, 0, PT_SIZE);
    assert_int_equal(mem_requests(w->mem), 1);
    w->fakes[1].mode = FAKE_GOOD; /* the former owner still has it */
    pt_object(w, 0, 1);
    get_right(w, 0, PT_SIZE);
    assert_int_equal(mem_requests(w->mem), 1);
    assert_int_equal(pt_stats(w).former, 1);
}

static void test_cancel(void **state)
{
    struct pt_world *w = *state;
    struct got g[8];
    pt_object(w, 1, 2);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_TICKS;
    for (int i = 0; i < 8; i++)
        got_begin(w, &g[i], 0, PT_SIZE);
    usleep(300000);
    for (int i = 0; i < 8; i++)
        zc_backend_cancel(w->be, &g[i].req.base);
    for (int i = 0; i < 8; i++) {
        got_end(&g[i], 5);
        assert_int_equal(g[i].err, -ECANCELED);
    }
    mem_hold(w->mem, true);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    got_begin(w, &g[0], 0, PT_SIZE);
    for (int i = 0; i < 200 && !mem_held(w->mem); i++)
        usleep(10000);
    zc_backend_cancel(w->be, &g[0].req.base);
    mem_hold(w->mem, false);
    mem_release(w->mem, 1);
    got_end(&g[0], 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(test_owner_of_each_kind),
        PT_TEST(test_all_of_each_kind),
        PT_TEST(test_gone),
        PT_TEST(test_comes_back),
        PT_TEST(test_own),
        PT_TEST(test_cancel),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
