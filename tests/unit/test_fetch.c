/* SPDX-License-Identifier: Apache-2.0 */
/* Fetching, step by step: who asks, who waits, what fails, what is fetched ahead. */
#include "fetchtest.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#define BLOCK (CT_CHUNK / 64)

static void test_once_for_all_who_ask(void **state)
{
    struct ft_world w;
    struct ft_want x[8];
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v"), *same = ft_object(&w, "v");
    assert_ptr_equal(o, same);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(ft_want(o, &x[i], i * 4 * BLOCK, 4 * BLOCK, false), 0);
    /* What was asked for first, and the rest of its chunk. */
    assert_int_equal(w.s->n, 2);
    assert_int_equal(w.s->get[0]->off, 0);
    assert_int_equal(w.s->get[0]->len, 4 * BLOCK);
    assert_int_equal(w.s->get[1]->off, 4 * BLOCK);
    assert_int_equal(w.s->get[1]->len, CT_CHUNK - 4 * BLOCK);
    /* Each is told when its own bytes are there, not before and not later. */
    assert_int_equal(ft_feed(&w, 1, 4 * BLOCK - 1), 0);
    assert_int_equal(x[1].done, 0);
    assert_int_equal(ft_feed(&w, 1, 1), 0);
    assert_int_equal(x[1].done, 1);
    assert_int_equal(x[0].done, 0);
    ft_serve(&w, 0);
    assert_int_equal(x[0].done, 1);
    assert_int_equal(x[2].done, 0);
    assert_true(ft_good(o, 0, 4 * BLOCK));
    assert_int_equal(ft_want(o, &x[0], 100, 1000, false), 1);
    ft_serve(&w, 1);
    for (unsigned i = 1; i < 8; i++)
        assert_true(x[i].done == 1 && x[i].err == 0);
    assert_true(ft_good(o, 0, CT_CHUNK));
    assert_false(zc_object_complete(o));
    assert_int_equal(ft_want(o, &x[0], 0, FT_SIZE, false), 0);
    ft_serve_all(&w);
    assert_true(x[0].done == 1 && x[0].err == 0);
    assert_true(zc_object_complete(o) && ft_good(o, 0, FT_SIZE));
    assert_int_equal(w.s->n, 5);
    zc_object_close(o);
    zc_object_close(same);
    o = ft_object(&w, "v");
    assert_true(zc_object_complete(o) && ft_good(o, 0, FT_SIZE));
    assert_int_equal(w.s->n, 5);
    zc_object_close(o);
    ft_close(&w);
}

static void test_a_version_that_goes(void **state)
{
    struct ft_world w;
    struct ft_want first, rest, more;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    assert_int_equal(ft_want(o, &first, 0, BLOCK, false), 0);
    assert_int_equal(ft_want(o, &rest, 0, CT_CHUNK, false), 0);
    ft_serve(&w, 0);
    assert_int_equal(ft_feed(&w, 1, 9 * BLOCK), 0);
    ft_end(&w, 1, -ESTALE);
    assert_true(first.done == 1 && first.err == 0);
    assert_true(rest.done == 1 && rest.err == -ESTALE);
    assert_true(zc_object_stale(o));
    assert_true(ft_good(o, 0, 10 * BLOCK));
    assert_int_equal(ft_want(o, &more, 2 * CT_CHUNK, 10, false), -ESTALE);
    assert_int_equal(w.s->n, 2);
    /* The next version has nothing of it. */
    struct zc_object *next = ft_object(&w, "v2");
    assert_ptr_not_equal(o, next);
    assert_int_equal(ft_want(next, &more, 0, BLOCK, false), 0);
    ft_serve_all(&w);
    zc_object_close(o);
    zc_object_close(next);
    assert_int_equal(ct_stats(w.cache).objects, 1);
    ft_close(&w);
}

static void test_a_failure_is_not_kept(void **state)
{
    static const struct {
        int end, seen;
        uint64_t fed;
    } ways[] = {{-EIO, -EIO, 0}, {-ETIMEDOUT, -ETIMEDOUT, 3 * BLOCK}, {0, -EBADMSG, 5 * BLOCK + 7}};
    struct ft_world w;
    struct ft_want x;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(ways); i++) {
        assert_int_equal(ft_want(o, &x, 0, CT_CHUNK, false), 0);
        assert_int_equal(w.s->n, i + 1);
        if (ways[i].fed > w.s->get[i]->off)
            assert_int_equal(ft_feed(&w, i, ways[i].fed - w.s->get[i]->off), 0);
        ft_end(&w, i, ways[i].end);
        assert_true(x.done == 1 && x.err == ways[i].seen);
    }
    assert_int_equal(ft_want(o, &x, 0, CT_CHUNK, false), 0);
    assert_int_equal(w.s->get[3]->off,
                     5 * BLOCK); /* what came whole before is not asked for again */
    ft_serve_all(&w);
    assert_true(x.done == 1 && x.err == 0 && ft_good(o, 0, CT_CHUNK));
    zc_object_close(o);
    ft_close(&w);
}

static void test_random_readers_get_their_blocks(void **state)
{
    struct ft_world w;
    struct ft_want x;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    assert_int_equal(ft_want(o, &x, 9 * BLOCK + 5, 10, true), 0);
    assert_int_equal(w.s->get[0]->off, 9 * BLOCK);
    assert_int_equal(w.s->get[0]->len, BLOCK);
    ft_serve_all(&w);
    assert_true(ft_good(o, 9 * BLOCK, BLOCK));
    assert_int_equal(ft_want(o, &x, 30 * BLOCK, 15 * BLOCK, true), 0);
    ft_serve_all(&w);
    assert_int_equal(w.s->n, 2);
    /* With this one it is a quarter of the chunk: the rest follows. */
    assert_int_equal(ft_want(o, &x, 60 * BLOCK, 1, true), 0);
    ft_serve_all(&w);
    assert_true(x.done == 1 && ft_good(o, 0, CT_CHUNK));
    zc_object_close(o);
    ft_close(&w);
}

/* The sum is that of the whole chunk, whichever of its pieces is the last to come. */
static void test_pieces_in_any_order_have_one_sum(void **state)
{
    for (unsigned first = 0; first < 2; first++) {
        struct ft_world w;
        struct ft_want x;
        struct zc_digest sum;
        uint8_t *chunk = malloc(CT_CHUNK);
        ft_open(&w, 0);
        struct zc_object *o = ft_object(&w, "v");
        assert_int_equal(ft_want(o, &x, 0, 2 * BLOCK, false), 0);
        assert_int_equal(w.s->n, 2); /* what is waited for, and the rest */
        for (unsigned i = 0; i < 2; i++) {
            unsigned get = first ^ i;
            assert_int_equal(ft_feed(&w, get, w.s->get[get]->len), 0);
        }
        ft_serve_all(&w);
        assert_true(x.done == 1 && ft_good(o, 0, CT_CHUNK));
        assert_int_equal(zc_object_read(o, chunk, 0, CT_CHUNK), CT_CHUNK);
        int r = 0; /* until the index's writer comes to it */
        for (unsigned i = 0; r == 0 && i < 5000; i++) {
            usleep(2000);
            r = zc_object_sum(o, 0, &sum);
        }
        assert_int_equal(r, 1);
        assert_true(zc_digest_eq(sum, zc_digest_of(CT_SEED, chunk, CT_CHUNK)));
        zc_object_close(o);
        ft_close(&w);
        free(chunk);
    }
}

static void test_without_room_it_lives_in_memory(void **state)
{
    struct ft_world w;
    struct ft_want x;
    struct zc_fetch_stats st;
    ft_open(&w, CT_CHUNK / 2);
    struct zc_object *o = ft_object(&w, "v");
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t off = 0; off < FT_SIZE; off += CT_CHUNK) {
            uint64_t len = ZC_MIN(FT_SIZE - off, (uint64_t)CT_CHUNK);
            int r = ft_want(o, &x, off, len, false);
            assert_true(r == 0 || r == 1);
            ft_serve_all(&w);
            assert_true(r == 1 || (x.done == 1 && x.err == 0));
            assert_true(ft_good(o, off, len));
        }
    }
    assert_false(zc_object_in_file(o, 0, CT_CHUNK));
    assert_false(zc_object_complete(o));
    zc_fetch_get_stats(w.fetch, &st);
    assert_true(st.memory_peak > 0 && st.memory_peak <= 5 * CT_CHUNK);
    assert_true(ct_stats(w.cache).used <= CT_CHUNK / 2);
    zc_object_close(o);
    ft_close(&w);
}

static void test_a_waiter_that_is_taken_out(void **state)
{
    struct ft_world w;
    struct ft_want stays, goes;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    assert_int_equal(ft_want(o, &stays, 0, BLOCK, false), 0);
    assert_int_equal(ft_want(o, &goes, 0, CT_CHUNK, false), 0);
    assert_true(zc_object_forget(o, &goes.w));
    assert_false(zc_object_forget(o, &goes.w));
    ft_serve_all(&w);
    assert_int_equal(goes.done, 0);
    assert_int_equal(stays.done, 1);
    zc_object_close(o);
    ft_close(&w);
}

static void *close_source(void *arg)
{
    struct ft_world *w = arg;
    assert_int_equal(zc_fetch_src_close(w->src, true), 0);
    return NULL;
}

static void test_a_source_that_is_closed(void **state)
{
    struct ft_world w;
    struct ft_want x, y;
    pthread_t t;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    assert_int_equal(zc_fetch_src_close(w.src, false), -EBUSY);
    assert_int_equal(ft_want(o, &x, 0, CT_CHUNK, false), 0);
    assert_int_equal(ft_feed(&w, 0, 7 * BLOCK), 0);
    pthread_create(&t, NULL, close_source, &w);
    while (!atomic_load(&w.s->get[0]->base.cancelled))
        sched_yield();
    ft_end(&w, 0, -ECANCELED); /* a reader waits for it, but there is nobody to ask any more */
    pthread_join(t, NULL);
    assert_true(x.done == 1 && x.err < 0);
    assert_int_equal(ft_want(o, &y, 3 * CT_CHUNK, 10, false), 0);
    assert_true(y.done == 1 && y.err == -ESTALE);
    assert_int_equal(ft_want(o, &y, BLOCK, BLOCK, false), 1);
    assert_true(ft_good(o, 0, 7 * BLOCK));
    assert_int_equal(w.s->n, 1);
    zc_object_close(o);
    ft_close(&w);
}

static void *shut_down(void *arg)
{
    zc_fetch_shutdown(((struct ft_world *)arg)->fetch);
    return NULL;
}

static void test_shutdown_ends_what_waits(void **state)
{
    struct ft_world w;
    struct ft_want x, y;
    pthread_t t;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    assert_int_equal(ft_want(o, &x, 0, CT_CHUNK, false), 0);
    pthread_create(&t, NULL, shut_down, &w);
    while (!atomic_load(&w.s->get[0]->base.cancelled))
        sched_yield();
    ft_end(&w, 0, -ECANCELED);
    pthread_join(t, NULL);
    assert_true(x.done == 1 && x.err == -ESHUTDOWN);
    assert_int_equal(ft_want(o, &y, CT_CHUNK, 10, false), 0);
    assert_true(y.done == 1 && y.err == -ESHUTDOWN);
    zc_object_close(o);
    ft_close(&w);
}

static void test_ahead_of_a_reader(void **state)
{
    struct ft_world w;
    struct ft_want x;
    ft_open(&w, 0);
    struct zc_object *o = ft_object(&w, "v");
    zc_object_prefetch(o, 0, FT_SIZE, ZC_PRIO_AHEAD);
    assert_int_equal(w.s->n, 4);
    assert_int_equal(ft_want(o, &x, CT_CHUNK + 5, 10, false), 0);
    assert_int_equal(w.s->n, 4); /* on its way already */
    ft_serve(&w, 1);
    assert_int_equal(x.done, 1);
    ft_serve_all(&w);
    assert_true(zc_object_complete(o) && ft_good(o, 0, FT_SIZE));
    zc_object_close(o);
    ft_close(&w);
}

/* A reader of a file that comes in parts. */
static struct zc_streams *streams_open(struct ft_world *w, uint64_t part, uint64_t size,
                                       struct zc_object **o)
{
    struct zc_fetch_src *src;
    ft_open(w, 0);
    w->s->be.part_size = part;
    assert_int_equal(zc_fetch_src_new(w->fetch, &w->s->be, "parts:", &src), 0);
    assert_int_equal(zc_object_open(w->fetch, src, "a", "v", size, o), 0);
    return zc_streams_new(*o);
}

static void streams_close(struct ft_world *w, struct zc_streams *s, struct zc_object *o)
{
    zc_streams_free(s);
    for (unsigned i = 0; i < w->s->n; i++)
        ft_end(w, i, -ECANCELED);
    zc_object_close(o);
    ft_close(w);
}

/* However a reader's steps fall, what is fetched ahead of it comes in whole parts. */
static void test_ahead_in_whole_parts(void **state)
{
    const uint64_t part = 4 * ZC_MIB, size = 32 * ZC_MIB;
    struct ft_world w;
    struct zc_object *o;
    struct zc_streams *s = streams_open(&w, part, size, &o);
    unsigned first = 0; /* of those behind the window that a reader begins with */
    for (uint64_t off = 0; off < 31 * 100000; off += 100000) {
        zc_streams_note(s, off, 100000);
        zc_streams_ahead(s, off);
        first = first ? first : w.s->n;
    }
    assert_in_range(w.s->n, first + 2, FT_GETS);
    for (unsigned i = first; i + 1 < w.s->n; i++)
        assert_int_equal(w.s->get[i]->len, part);
    assert_int_equal(w.s->get[w.s->n - 1]->off + w.s->get[w.s->n - 1]->len, size);
    streams_close(&w, s, o);
}

/* Who reads the head of a large file only has the store asked for little more: 8 MiB, and eight
   times what was read, in whole parts. */
static void test_ahead_grows_with_what_was_read(void **state)
{
    const uint64_t part = 4 * ZC_MIB, step = 64 * ZC_KIB, size = 400 * ZC_MIB;
    struct ft_world w;
    struct zc_object *o;
    struct zc_streams *s = streams_open(&w, part, size, &o);
    uint64_t asked = 0;
    for (uint64_t off = 0; off < 2 * ZC_MIB; off += step) {
        zc_streams_note(s, off, step);
        zc_streams_ahead(s, off);
        asked = w.s->get[w.s->n - 1]->off + w.s->get[w.s->n - 1]->len;
        assert_true(asked <= off + step + 8 * ZC_MIB + 8 * (off + step) + part);
    }
    assert_true(asked >= 2 * ZC_MIB + 24 * ZC_MIB - part);
    streams_close(&w, s, o);
}

/* Readers that ask for everything in their own order while others serve: each byte comes once. */
struct crowd {
    struct ft_world *w;
    struct zc_object *o;
    _Atomic bool over;
    _Atomic unsigned wrong;
};

struct crowd_want {
    struct zc_waiter w;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int err;
};

static void crowd_done(struct zc_waiter *w, int err)
{
    struct crowd_want *x = zc_container_of(w, struct crowd_want, w);
    pthread_mutex_lock(&x->lock);
    x->done = true;
    x->err = err;
    pthread_cond_signal(&x->cond);
    pthread_mutex_unlock(&x->lock);
}

static void *crowd_reader(void *arg)
{
    struct crowd *c = arg;
    struct crowd_want x = {.w.done = crowd_done};
    unsigned seed = (unsigned)(uintptr_t)&x;
    pthread_mutex_init(&x.lock, NULL);
    pthread_cond_init(&x.cond, NULL);
    for (unsigned i = 0; i < 200; i++) {
        uint64_t off = (uint64_t)rand_r(&seed) % (FT_SIZE - 3000);
        x.done = false;
        int r = zc_object_want(c->o, off, 3000, i % 2, ZC_PRIO_DEMAND, &x.w);
        pthread_mutex_lock(&x.lock);
        while (r == 0 && !x.done)
            pthread_cond_wait(&x.cond, &x.lock);
        pthread_mutex_unlock(&x.lock);
        if (r < 0 || (r == 0 && x.err < 0) || !ft_good(c->o, off, 3000))
            c->wrong++;
    }
    pthread_mutex_destroy(&x.lock);
    pthread_cond_destroy(&x.cond);
    return NULL;
}

static void *crowd_server(void *arg)
{
    struct crowd *c = arg;
    struct ft_script *s = c->w->s;
    while (!c->over) {
        struct zc_get_req *req = NULL;
        unsigned i = 0;
        pthread_mutex_lock(&s->lock);
        for (; i < s->n && !req; i++)
            req = zc_steal_ptr(&s->get[i]);
        pthread_mutex_unlock(&s->lock);
        if (!req) {
            sched_yield();
            continue;
        }
        uint8_t p[700];
        uint64_t at = 0;
        int r = 0;
        while (r == 0 && at < req->len) {
            size_t n = (size_t)ZC_MIN(req->len - at, (uint64_t)sizeof(p));
            ct_fill(1, req->off + at, p, n);
            r = req->data(req, p, n);
            at += n;
        }
        c->w->s->stats.bytes += req->len;
        req->done(req, r);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    for (unsigned round = 0; round < 10; round++) {
        struct ft_world w;
        pthread_t readers[4], servers[2];
        ft_open(&w, 0);
        struct crowd c = {.w = &w, .o = ft_object(&w, "v")};
        for (unsigned i = 0; i < 2; i++)
            pthread_create(&servers[i], NULL, crowd_server, &c);
        for (unsigned i = 0; i < 4; i++)
            pthread_create(&readers[i], NULL, crowd_reader, &c);
        for (unsigned i = 0; i < 4; i++)
            pthread_join(readers[i], NULL);
        c.over = true;
        for (unsigned i = 0; i < 2; i++)
            pthread_join(servers[i], NULL);
        assert_int_equal(c.wrong, 0);
        assert_true(w.s->stats.bytes <= FT_SIZE);
        assert_true(zc_object_complete(c.o) && ft_good(c.o, 0, FT_SIZE));
        zc_object_close(c.o);
        ft_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_once_for_all_who_ask),
        cmocka_unit_test(test_a_version_that_goes),
        cmocka_unit_test(test_a_failure_is_not_kept),
        cmocka_unit_test(test_random_readers_get_their_blocks),
        cmocka_unit_test(test_pieces_in_any_order_have_one_sum),
        cmocka_unit_test(test_without_room_it_lives_in_memory),
        cmocka_unit_test(test_a_waiter_that_is_taken_out),
        cmocka_unit_test(test_a_source_that_is_closed),
        cmocka_unit_test(test_shutdown_ends_what_waits),
        cmocka_unit_test(test_ahead_of_a_reader),
        cmocka_unit_test(test_ahead_in_whole_parts),
        cmocka_unit_test(test_ahead_grows_with_what_was_read),
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
