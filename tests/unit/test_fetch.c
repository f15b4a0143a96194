/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching, step by step: a backend that does nothing by itself holds each GET until the test feeds
 * it bytes and ends it.
 */
#include "cachetest.h"
#include "fetch/fetch.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define SIZE (3 * CT_CHUNK + 5000)
#define BLOCK (CT_CHUNK / 64)
#define GETS 64

struct script {
    struct zc_backend be;
    struct zc_backend_stats stats;
    pthread_mutex_t lock;
    struct zc_get_req *get[GETS]; /* NULL once it has ended */
    uint64_t fed[GETS];
    unsigned n, cancels;
};

static struct script *script_of(struct zc_backend *be)
{
    return zc_container_of(be, struct script, be);
}

static int script_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void script_list(struct zc_backend *be, struct zc_list_req *req)
{
    req->done(req, -ENOSYS, NULL, 0, NULL, 0);
}

static void script_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    req->done(req, -ENOSYS, NULL);
}

static void script_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct script *s = script_of(be);
    pthread_mutex_lock(&s->lock);
    s->get[s->n++] = req;
    pthread_mutex_unlock(&s->lock);
}

static void script_cancel(struct zc_backend *be, struct zc_req *req)
{
    script_of(be)->cancels++;
}

static void script_free(struct zc_backend *be)
{
    struct script *s = script_of(be);
    pthread_mutex_destroy(&s->lock);
    free(be->url);
    free(s);
}

static const struct zc_backend_ops script_ops = {.name = "script",
                                                 .probe = script_probe,
                                                 .list = script_list,
                                                 .stat = script_stat,
                                                 .get = script_get,
                                                 .cancel = script_cancel,
                                                 .free = script_free};

struct world {
    char *dir;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_fetch_src *src;
    struct script *s;
};

static void world_open_at(struct world *w, char *take_dir, uint64_t cache_size)
{
    struct zc_cache_config cfg;
    *w = (struct world){.dir = take_dir, .s = calloc(1, sizeof(*w->s))};
    cfg = ct_config(w->dir);
    if (cache_size)
        cfg.size = cache_size;
    w->cache = ct_open(&cfg);
    struct zc_fetch_config f = {.chunk_size = CT_CHUNK, .memory = 4 * CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&f, w->cache, &w->fetch), 0);
    w->s->be =
        (struct zc_backend){.ops = &script_ops, .url = strdup("script:"), .stats = &w->s->stats};
    pthread_mutex_init(&w->s->lock, NULL);
    assert_int_equal(zc_fetch_src_new(w->fetch, &w->s->be, "script:", &w->src), 0);
}

static void world_open(struct world *w, uint64_t cache_size)
{
    world_open_at(w, ct_mkdir(), cache_size);
}

static void world_close(struct world *w)
{
    zc_fetch_free(w->fetch);
    zc_cache_close(w->cache);
    zc_backend_free(&w->s->be);
    ct_rmdir(w->dir);
}

static struct zc_object *world_object(struct world *w, const char *version)
{
    struct zc_object *o;
    assert_int_equal(zc_object_open(w->fetch, w->src, "a", version, SIZE, &o), 0);
    return o;
}

/* The next n bytes of GET number i, of the pattern of object 1. */
static int feed(struct world *w, unsigned i, uint64_t n)
{
    struct zc_get_req *req = w->s->get[i];
    uint8_t *p = malloc(n);
    ct_fill(1, req->off + w->s->fed[i], p, n);
    int r = req->data(req, p, n);
    free(p);
    if (r == 0)
        w->s->fed[i] += n;
    return r;
}

static void end(struct world *w, unsigned i, int err)
{
    struct zc_get_req *req = w->s->get[i];
    w->s->get[i] = NULL;
    req->done(req, err);
}

static void serve(struct world *w, unsigned i)
{
    assert_int_equal(feed(w, i, w->s->get[i]->len - w->s->fed[i]), 0);
    end(w, i, 0);
}

/* All that is pending, and what that brings about. */
static void serve_all(struct world *w)
{
    for (unsigned i = 0; i < w->s->n; i++) {
        if (w->s->get[i])
            serve(w, i);
    }
}

struct want {
    struct zc_waiter w;
    unsigned done;
    int err;
};

static void want_done(struct zc_waiter *w, int err)
{
    struct want *x = zc_container_of(w, struct want, w);
    x->done++;
    x->err = err;
}

static int want(struct zc_object *o, struct want *x, uint64_t off, uint64_t len, bool exact)
{
    *x = (struct want){.w.done = want_done};
    return zc_object_want(o, off, len, exact, ZC_PRIO_DEMAND, &x->w);
}

static bool good(struct zc_object *o, uint64_t off, size_t len)
{
    uint8_t *got = malloc(len), *right = malloc(len);
    ct_fill(1, off, right, len);
    bool same = zc_object_read(o, got, off, len) == (ssize_t)len && memcmp(got, right, len) == 0;
    free(got);
    free(right);
    return same;
}

/* ------------------------------------------------------------------ */

static void test_once_for_all_who_ask(void **state)
{
    struct world w;
    struct want x[8];
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v"), *same = world_object(&w, "v");
    assert_ptr_equal(o, same);
    for (unsigned i = 0; i < 8; i++)
        assert_int_equal(want(o, &x[i], i * 4 * BLOCK, 4 * BLOCK, false), 0);
    /* What was asked for first, and the rest of its chunk. */
    assert_int_equal(w.s->n, 2);
    assert_int_equal(w.s->get[0]->off, 0);
    assert_int_equal(w.s->get[0]->len, 4 * BLOCK);
    assert_int_equal(w.s->get[1]->off, 4 * BLOCK);
    assert_int_equal(w.s->get[1]->len, CT_CHUNK - 4 * BLOCK);
    /* Each is told when its own bytes are there, not before and not later. */
    assert_int_equal(feed(&w, 1, 4 * BLOCK - 1), 0);
    assert_int_equal(x[1].done, 0);
    assert_int_equal(feed(&w, 1, 1), 0);
    assert_int_equal(x[1].done, 1);
    assert_int_equal(x[0].done, 0);
    serve(&w, 0);
    assert_int_equal(x[0].done, 1);
    assert_int_equal(x[2].done, 0);
    assert_true(good(o, 0, 4 * BLOCK));
    assert_int_equal(want(o, &x[0], 100, 1000, false), 1);
    serve(&w, 1);
    for (unsigned i = 1; i < 8; i++)
        assert_true(x[i].done == 1 && x[i].err == 0);
    assert_true(good(o, 0, CT_CHUNK));
    assert_false(zc_object_complete(o));
    assert_int_equal(want(o, &x[0], 0, SIZE, false), 0);
    serve_all(&w);
    assert_true(x[0].done == 1 && x[0].err == 0);
    assert_true(zc_object_complete(o) && good(o, 0, SIZE));
    assert_int_equal(w.s->n, 5);
    zc_object_close(o);
    zc_object_close(same);
    o = world_object(&w, "v");
    assert_true(zc_object_complete(o) && good(o, 0, SIZE));
    assert_int_equal(w.s->n, 5);
    zc_object_close(o);
    world_close(&w);
}

static void test_a_version_that_goes(void **state)
{
    struct world w;
    struct want first, rest, more;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(want(o, &first, 0, BLOCK, false), 0);
    assert_int_equal(want(o, &rest, 0, CT_CHUNK, false), 0);
    serve(&w, 0);
    assert_int_equal(feed(&w, 1, 9 * BLOCK), 0);
    end(&w, 1, -ESTALE);
    assert_true(first.done == 1 && first.err == 0);
    assert_true(rest.done == 1 && rest.err == -ESTALE);
    assert_true(zc_object_stale(o));
    assert_true(good(o, 0, 10 * BLOCK));
    assert_int_equal(want(o, &more, 2 * CT_CHUNK, 10, false), -ESTALE);
    assert_int_equal(w.s->n, 2);
    /* The next version has nothing of it. */
    struct zc_object *next = world_object(&w, "v2");
    assert_ptr_not_equal(o, next);
    assert_int_equal(want(next, &more, 0, BLOCK, false), 0);
    serve_all(&w);
    zc_object_close(o);
    zc_object_close(next);
    assert_int_equal(ct_stats(w.cache).objects, 1);
    world_close(&w);
}

static void test_a_failure_is_not_kept(void **state)
{
    static const struct {
        int end, seen;
        uint64_t fed;
    } ways[] = {{-EIO, -EIO, 0}, {-ETIMEDOUT, -ETIMEDOUT, 3 * BLOCK}, {0, -EBADMSG, 5 * BLOCK + 7}};
    struct world w;
    struct want x;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(ways); i++) {
        assert_int_equal(want(o, &x, 0, CT_CHUNK, false), 0);
        assert_int_equal(w.s->n, i + 1);
        if (ways[i].fed > w.s->get[i]->off)
            assert_int_equal(feed(&w, i, ways[i].fed - w.s->get[i]->off), 0);
        end(&w, i, ways[i].end);
        assert_true(x.done == 1 && x.err == ways[i].seen);
    }
    assert_int_equal(want(o, &x, 0, CT_CHUNK, false), 0);
    assert_int_equal(w.s->get[3]->off,
                     5 * BLOCK); /* what came whole before is not asked for again */
    serve_all(&w);
    assert_true(x.done == 1 && x.err == 0 && good(o, 0, CT_CHUNK));
    zc_object_close(o);
    world_close(&w);
}

static void test_random_readers_get_their_blocks(void **state)
{
    struct world w;
    struct want x;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(want(o, &x, 9 * BLOCK + 5, 10, true), 0);
    assert_int_equal(w.s->get[0]->off, 9 * BLOCK);
    assert_int_equal(w.s->get[0]->len, BLOCK);
    serve_all(&w);
    assert_true(good(o, 9 * BLOCK, BLOCK));
    assert_int_equal(want(o, &x, 30 * BLOCK, 15 * BLOCK, true), 0);
    serve_all(&w);
    assert_int_equal(w.s->n, 2);
    /* With this one it is a quarter of the chunk: the rest follows. */
    assert_int_equal(want(o, &x, 60 * BLOCK, 1, true), 0);
    serve_all(&w);
    assert_true(x.done == 1 && good(o, 0, CT_CHUNK));
    zc_object_close(o);
    world_close(&w);
}

/* The sum is that of the whole chunk, whichever of its pieces is the last to come. */
static void test_pieces_in_any_order_have_one_sum(void **state)
{
    for (unsigned first = 0; first < 2; first++) {
        struct world w;
        struct want x;
        struct zc_digest sum;
        uint8_t *chunk = malloc(CT_CHUNK);
        world_open(&w, 0);
        struct zc_object *o = world_object(&w, "v");
        assert_int_equal(want(o, &x, 0, 2 * BLOCK, false), 0);
        assert_int_equal(w.s->n, 2); /* what is waited for, and the rest */
        for (unsigned i = 0; i < 2; i++) {
            unsigned get = first ^ i;
            assert_int_equal(feed(&w, get, w.s->get[get]->len), 0);
        }
        serve_all(&w);
        assert_true(x.done == 1 && good(o, 0, CT_CHUNK));
        assert_int_equal(zc_object_read(o, chunk, 0, CT_CHUNK), CT_CHUNK);
        int r = 0; /* until the index's writer comes to it */
        for (unsigned i = 0; r == 0 && i < 5000; i++) {
            usleep(2000);
            r = zc_object_sum(o, 0, &sum);
        }
        assert_int_equal(r, 1);
        assert_true(zc_digest_eq(sum, zc_digest_of(CT_SEED, chunk, CT_CHUNK)));
        zc_object_close(o);
        world_close(&w);
        free(chunk);
    }
}

static void test_without_room_it_lives_in_memory(void **state)
{
    struct world w;
    struct want x;
    struct zc_fetch_stats st;
    world_open(&w, CT_CHUNK / 2);
    struct zc_object *o = world_object(&w, "v");
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t off = 0; off < SIZE; off += CT_CHUNK) {
            uint64_t len = ZC_MIN(SIZE - off, (uint64_t)CT_CHUNK);
            int r = want(o, &x, off, len, false);
            assert_true(r == 0 || r == 1);
            serve_all(&w);
            assert_true(r == 1 || (x.done == 1 && x.err == 0));
            assert_true(good(o, off, len));
        }
    }
    assert_false(zc_object_in_file(o, 0, CT_CHUNK));
    assert_false(zc_object_complete(o));
    zc_fetch_get_stats(w.fetch, &st);
    assert_true(st.memory_peak > 0 && st.memory_peak <= 5 * CT_CHUNK);
    assert_true(ct_stats(w.cache).used <= CT_CHUNK / 2);
    zc_object_close(o);
    world_close(&w);
}

/* From now on the object's backing file cannot be read. */
static void break_file(struct zc_object *o)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && dup2(fd, zc_object_fd(o)) >= 0);
    close(fd);
}

static void read_all(struct world *w, struct zc_object *o)
{
    for (uint64_t off = 0; off < SIZE; off += 5000) {
        uint64_t len = ZC_MIN(SIZE - off, (uint64_t)5000);
        unsigned again = 0;
        while (!good(o, off, len)) { /* gone from memory, or from the disk */
            struct want x;
            assert_true(again++ < 4);
            int r = want(o, &x, off, len, true);
            serve_all(w);
            assert_true(r == 1 || (r == 0 && x.done == 1 && x.err == 0));
        }
    }
}

static void test_a_disk_that_cannot_read(void **state)
{
    for (int whole = 1; whole >= 0; whole--) {
        struct world w;
        struct want x;
        world_open(&w, 0);
        struct zc_object *o = world_object(&w, "v");
        assert_int_equal(want(o, &x, 0, whole ? SIZE : CT_CHUNK + CT_CHUNK / 2, true), 0);
        serve_all(&w);
        assert_int_equal(zc_object_complete(o), whole);
        if (whole) { /* as the next reader has it */
            zc_object_close(o);
            o = world_object(&w, "v");
            assert_true(zc_object_complete(o));
        }
        struct zc_object *other = world_object(&w, "v");
        unsigned gets = w.s->n;
        break_file(o);
        read_all(&w, o);
        read_all(&w, other);
        assert_true(w.s->n > gets);
        assert_true(ct_stats(w.cache).disk_errors > 0);
        assert_false(zc_object_complete(o));
        assert_int_equal(ct_stats(w.cache).objects, 0); /* nobody is handed that file again */
        zc_object_close(other);
        zc_object_close(o);
        assert_int_equal(ct_stats(w.cache).used, 0);
        world_close(&w);
    }
}

/* One bad place: the rest of the file is not fetched again, and the next open has a file that is
   whole. */
static void test_a_bad_sector(void **state)
{
    struct world w;
    struct want x;
    uint8_t bytes[4];
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(want(o, &x, 0, SIZE, false), 0);
    serve_all(&w);
    zc_object_close(o);
    o = world_object(&w, "v");
    unsigned gets = w.s->n;
    int good_fd = dup(zc_object_fd(o));
    break_file(o);
    assert_int_equal(zc_object_read(o, bytes, CT_CHUNK, sizeof(bytes)), -EAGAIN);
    assert_true(dup2(good_fd, zc_object_fd(o)) >= 0);
    close(good_fd);
    read_all(&w, o);
    assert_true(w.s->n > gets);
    struct zc_fetch_stats st;
    zc_fetch_get_stats(w.fetch, &st);
    assert_int_equal(st.bytes_store, SIZE + CT_CHUNK);
    zc_object_close(o);
    o = world_object(&w, "v");
    assert_false(zc_object_complete(o));
    assert_int_equal(want(o, &x, 0, SIZE, false), 0);
    serve_all(&w);
    assert_true(zc_object_complete(o) && good(o, 0, SIZE));
    assert_int_equal(ct_stats(w.cache).objects, 1);
    zc_object_close(o);
    world_close(&w);
}

/* ------------------------------------------------------------------ after an unclean end */

#define LARGE (40 * CT_CHUNK) /* more than is checked at an open */
#define LONG (16384 * CT_CHUNK)

/* An object that the checker comes to before object `than`, and that keeps it busy: zeros without
   room on the disk. */
static void put_before(struct zc_cache *c, struct zc_objid than)
{
    uint8_t a[ZC_DIGEST_BYTES], b[ZC_DIGEST_BYTES], zeros[CT_CHUNK] = {0};
    struct zc_digest sum = zc_digest_of(CT_SEED, zeros, CT_CHUNK);
    struct zc_cobj *o;
    unsigned n = 0;
    zc_digest_store(b, than.id);
    do {
        zc_digest_store(a, ct_id(++n, LONG).id);
    } while (memcmp(a, b, sizeof(a)) >= 0);
    ct_hold(c, n, LONG, &o);
    for (uint32_t i = 0; i < LONG / CT_CHUNK; i++)
        zc_cobj_commit(c, o, i, sum);
    zc_cobj_release(c, o);
}

static struct zc_object *large_object(struct world *w)
{
    struct zc_object *o;
    assert_int_equal(zc_object_open(w->fetch, w->src, "a", "v", LARGE, &o), 0);
    return o;
}

/* A daemon that has all (or the first half) of an object is killed. */
static void killed_with(const char *dir, uint64_t bytes)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct world w;
        struct want x;
        world_open_at(&w, strdup(dir), 2 * LONG);
        struct zc_object *o = large_object(&w);
        put_before(w.cache, zc_object_id(o));
        want(o, &x, 0, bytes, false);
        serve_all(&w);
        struct zc_digest sum; /* until the index's writer is done with it */
        while (zc_object_sum(o, (uint32_t)(bytes / CT_CHUNK) - 1, &sum) != 1)
            usleep(10000);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

static void test_what_is_doubted_is_checked_when_used(void **state)
{
    for (unsigned round = 0; round < 4; round++) {
        bool whole = round & 1, hurt = round & 2;
        struct world w;
        struct want x;
        char *dir = ct_mkdir();
        killed_with(dir, whole ? LARGE : LARGE / 2);
        world_open_at(&w, dir, 2 * LONG);
        struct zc_object *o = large_object(&w);
        assert_false(zc_object_complete(o));
        assert_true(ct_stats(w.cache).bad_chunks == 0);
        if (hurt) {
            char path[300];
            snprintf(path, sizeof(path), "/proc/self/fd/%d", zc_object_fd(o));
            int fd = open(path, O_WRONLY | O_CLOEXEC);
            assert_int_equal(pwrite(fd, "x", 1, 7 * CT_CHUNK + 3), 1);
            close(fd);
        }
        assert_int_equal(zc_object_settled(o, 0, CT_CHUNK), 0);
        assert_int_equal(want(o, &x, 100, 100, true), 1);
        assert_true(good(o, 100, 100));
        assert_int_equal(w.s->n, 0);
        assert_int_equal(zc_object_settled(o, 0, 5 * CT_CHUNK), CT_CHUNK);
        for (uint64_t off = 0; off < LARGE; off += CT_CHUNK) {
            int r = want(o, &x, off, CT_CHUNK, false);
            serve_all(&w);
            assert_true(r == 1 || (r == 0 && x.done == 1 && x.err == 0));
            assert_true(good(o, off, CT_CHUNK));
        }
        struct zc_fetch_stats st;
        zc_fetch_get_stats(w.fetch, &st);
        assert_int_equal(st.bytes_store, (whole ? 0 : LARGE / 2) + (hurt ? CT_CHUNK : 0));
        assert_int_equal(ct_stats(w.cache).bad_chunks, hurt);
        assert_int_equal(zc_object_complete(o), !hurt);
        zc_object_close(o);
        o = large_object(&w); /* what was wrong is not in the cache any more */
        assert_int_equal(zc_object_complete(o), !hurt);
        assert_int_equal(want(o, &x, 0, LARGE, false), !hurt);
        serve_all(&w);
        assert_true(zc_object_complete(o) && good(o, 0, LARGE));
        zc_object_close(o);
        world_close(&w);
    }
}

static void test_a_waiter_that_is_taken_out(void **state)
{
    struct world w;
    struct want stays, goes;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(want(o, &stays, 0, BLOCK, false), 0);
    assert_int_equal(want(o, &goes, 0, CT_CHUNK, false), 0);
    assert_true(zc_object_forget(o, &goes.w));
    assert_false(zc_object_forget(o, &goes.w));
    serve_all(&w);
    assert_int_equal(goes.done, 0);
    assert_int_equal(stays.done, 1);
    zc_object_close(o);
    world_close(&w);
}

static void *close_source(void *arg)
{
    struct world *w = arg;
    assert_int_equal(zc_fetch_src_close(w->src, true), 0);
    return NULL;
}

static void test_a_source_that_is_closed(void **state)
{
    struct world w;
    struct want x, y;
    pthread_t t;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(zc_fetch_src_close(w.src, false), -EBUSY);
    assert_int_equal(want(o, &x, 0, CT_CHUNK, false), 0);
    assert_int_equal(feed(&w, 0, 7 * BLOCK), 0);
    pthread_create(&t, NULL, close_source, &w);
    while (!atomic_load(&w.s->get[0]->base.cancelled))
        sched_yield();
    end(&w, 0, -ECANCELED); /* a reader waits for it, but there is nobody to ask any more */
    pthread_join(t, NULL);
    assert_true(x.done == 1 && x.err < 0);
    assert_int_equal(want(o, &y, 3 * CT_CHUNK, 10, false), 0);
    assert_true(y.done == 1 && y.err == -ESTALE);
    assert_int_equal(want(o, &y, BLOCK, BLOCK, false), 1);
    assert_true(good(o, 0, 7 * BLOCK));
    assert_int_equal(w.s->n, 1);
    zc_object_close(o);
    world_close(&w);
}

static void *shut_down(void *arg)
{
    zc_fetch_shutdown(((struct world *)arg)->fetch);
    return NULL;
}

static void test_shutdown_ends_what_waits(void **state)
{
    struct world w;
    struct want x, y;
    pthread_t t;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    assert_int_equal(want(o, &x, 0, CT_CHUNK, false), 0);
    pthread_create(&t, NULL, shut_down, &w);
    while (!atomic_load(&w.s->get[0]->base.cancelled))
        sched_yield();
    end(&w, 0, -ECANCELED);
    pthread_join(t, NULL);
    assert_true(x.done == 1 && x.err == -ESHUTDOWN);
    assert_int_equal(want(o, &y, CT_CHUNK, 10, false), 0);
    assert_true(y.done == 1 && y.err == -ESHUTDOWN);
    zc_object_close(o);
    world_close(&w);
}

static void test_ahead_of_a_reader(void **state)
{
    struct world w;
    struct want x;
    world_open(&w, 0);
    struct zc_object *o = world_object(&w, "v");
    zc_object_prefetch(o, 0, SIZE, ZC_PRIO_AHEAD);
    assert_int_equal(w.s->n, 4);
    assert_int_equal(want(o, &x, CT_CHUNK + 5, 10, false), 0);
    assert_int_equal(w.s->n, 4); /* on its way already */
    serve(&w, 1);
    assert_int_equal(x.done, 1);
    serve_all(&w);
    assert_true(zc_object_complete(o) && good(o, 0, SIZE));
    zc_object_close(o);
    world_close(&w);
}

/* However a reader's steps fall, what is fetched ahead of it comes in whole parts. */
static void test_ahead_in_whole_parts(void **state)
{
    const uint64_t part = 4 * ZC_MIB, size = 32 * ZC_MIB;
    struct world w;
    struct zc_fetch_src *src;
    struct zc_object *o;
    world_open(&w, 0);
    w.s->be.part_size = part;
    assert_int_equal(zc_fetch_src_new(w.fetch, &w.s->be, "parts:", &src), 0);
    assert_int_equal(zc_object_open(w.fetch, src, "a", "v", size, &o), 0);
    struct zc_streams *s = zc_streams_new(o);
    unsigned first = 0; /* of those behind the window that a reader begins with */
    for (uint64_t off = 0; off < 5 * 100000; off += 100000) {
        zc_streams_note(s, off, 100000);
        zc_streams_ahead(s, off);
        first = first ? first : w.s->n;
    }
    assert_in_range(w.s->n, first + 2, GETS);
    for (unsigned i = first; i + 1 < w.s->n; i++)
        assert_int_equal(w.s->get[i]->len, part);
    assert_int_equal(w.s->get[w.s->n - 1]->off + w.s->get[w.s->n - 1]->len, size);
    zc_streams_free(s);
    for (unsigned i = 0; i < w.s->n; i++)
        end(&w, i, -ECANCELED);
    zc_object_close(o);
    world_close(&w);
}

/* Readers that ask for everything in their own order while others serve: each byte comes once. */
struct crowd {
    struct world *w;
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
        uint64_t off = (uint64_t)rand_r(&seed) % (SIZE - 3000);
        x.done = false;
        int r = zc_object_want(c->o, off, 3000, i % 2, ZC_PRIO_DEMAND, &x.w);
        pthread_mutex_lock(&x.lock);
        while (r == 0 && !x.done)
            pthread_cond_wait(&x.cond, &x.lock);
        pthread_mutex_unlock(&x.lock);
        if (r < 0 || (r == 0 && x.err < 0) || !good(c->o, off, 3000))
            c->wrong++;
    }
    pthread_mutex_destroy(&x.lock);
    pthread_cond_destroy(&x.cond);
    return NULL;
}

static void *crowd_server(void *arg)
{
    struct crowd *c = arg;
    struct script *s = c->w->s;
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
        struct world w;
        pthread_t readers[4], servers[2];
        world_open(&w, 0);
        struct crowd c = {.w = &w, .o = world_object(&w, "v")};
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
        assert_true(w.s->stats.bytes <= SIZE);
        assert_true(zc_object_complete(c.o) && good(c.o, 0, SIZE));
        zc_object_close(c.o);
        world_close(&w);
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
        cmocka_unit_test(test_a_disk_that_cannot_read),
        cmocka_unit_test(test_a_bad_sector),
        cmocka_unit_test(test_what_is_doubted_is_checked_when_used),
        cmocka_unit_test(test_a_waiter_that_is_taken_out),
        cmocka_unit_test(test_a_source_that_is_closed),
        cmocka_unit_test(test_shutdown_ends_what_waits),
        cmocka_unit_test(test_ahead_of_a_reader),
        cmocka_unit_test(test_ahead_in_whole_parts),
        cmocka_unit_test(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
