/* SPDX-License-Identifier: Apache-2.0 */
/* A cache disk that cannot be read, and what an unclean end has left on it. */
#include "fetchtest.h"
#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* From now on the object's backing file cannot be read. */
static void break_file(struct zc_object *o)
{
    int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0 && dup2(fd, zc_object_fd(o)) >= 0);
    close(fd);
}

static void read_all(struct ft_world *w, struct zc_object *o)
{
    for (uint64_t off = 0; off < FT_SIZE; off += 5000) {
        uint64_t len = ZC_MIN(FT_SIZE - off, (uint64_t)5000);
        unsigned again = 0;
        while (!ft_good(o, off, len)) { /* gone from memory, or from the disk */
            struct ft_want x;
            assert_true(again++ < 4);
            int r = ft_want(o, &x, off, len, true);
            ft_serve_all(w);
            assert_true(r == 1 || (r == 0 && x.done == 1 && x.err == 0));
        }
    }
}

static void test_a_disk_that_cannot_read(void **state)
{
    for (int whole = 1; whole >= 0; whole--) {
        struct ft_world w;
        struct ft_want x;
        ft_open(&w, 0);
        struct zc_object *o = ft_object(&w, "v");
        assert_int_equal(ft_want(o, &x, 0, whole ? FT_SIZE : CT_CHUNK + CT_CHUNK / 2, true), 0);
        ft_serve_all(&w);
        assert_int_equal(zc_object_complete(o), whole);
        if (whole) { /* as the next reader has it */
            zc_object_close(o);
            o = ft_object(&w, "v");
            assert_true(zc_object_complete(o));
        }
        struct zc_object *other = ft_object(&w, "v");
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
        ft_close(&w);
    }
}

/* The object as who opens it once it is all there has it. */
static struct zc_object *reopened(struct ft_world *w)
{
    struct ft_want x;
    struct zc_object *o = ft_object(w, "v");
    assert_int_equal(ft_want(o, &x, 0, FT_SIZE, false), 0);
    ft_serve_all(w);
    zc_object_close(o);
    return ft_object(w, "v");
}

/* One bad place: the rest of the file is not fetched again, and the next open has a file that is
   whole. */
static void test_a_bad_sector(void **state)
{
    struct ft_world w;
    struct ft_want x;
    uint8_t bytes[4];
    ft_open(&w, 0);
    struct zc_object *o = reopened(&w);
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
    assert_int_equal(st.bytes_store, FT_SIZE + CT_CHUNK);
    zc_object_close(o);
    o = ft_object(&w, "v");
    assert_false(zc_object_complete(o));
    assert_int_equal(ft_want(o, &x, 0, FT_SIZE, false), 0);
    ft_serve_all(&w);
    assert_true(zc_object_complete(o) && ft_good(o, 0, FT_SIZE));
    assert_int_equal(ct_stats(w.cache).objects, 1);
    zc_object_close(o);
    ft_close(&w);
}

/* The disk gives other bytes than were written, and another node's question shows it: who reads
   here does not get them any more. */
static void test_a_chunk_that_is_shown_to_be_bad(void **state)
{
    struct ft_world w;
    struct ft_want x;
    ft_open(&w, 0);
    struct zc_object *o = reopened(&w);
    assert_true(zc_object_complete(o));
    char path[300];
    snprintf(path, sizeof(path), "/proc/self/fd/%d", zc_object_fd(o));
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_int_equal(pwrite(fd, "x", 1, CT_CHUNK + 3), 1);
    close(fd);
    assert_false(ft_good(o, CT_CHUNK, 100));
    zc_object_bad(o, 1);
    struct zc_object *other = ft_object(&w, "v");
    assert_false(zc_object_complete(other));
    assert_int_equal(ft_want(other, &x, CT_CHUNK, 100, true), 0);
    ft_serve_all(&w);
    assert_true(x.done == 1 && x.err == 0 && ft_good(other, CT_CHUNK, 100) && ft_good(o, 0, 100));
    zc_object_close(other);
    zc_object_close(o);
    assert_int_equal(ct_stats(w.cache).objects, 0);
    ft_close(&w);
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

static struct zc_object *large_object(struct ft_world *w)
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
        struct ft_world w;
        struct ft_want x;
        ft_open_at(&w, strdup(dir), 2 * LONG);
        struct zc_object *o = large_object(&w);
        put_before(w.cache, zc_object_id(o));
        ft_want(o, &x, 0, bytes, false);
        ft_serve_all(&w);
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
        struct ft_world w;
        struct ft_want x;
        char *dir = ct_mkdir();
        killed_with(dir, whole ? LARGE : LARGE / 2);
        ft_open_at(&w, dir, 2 * LONG);
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
        assert_int_equal(ft_want(o, &x, 100, 100, true), 1);
        assert_true(ft_good(o, 100, 100));
        assert_int_equal(w.s->n, 0);
        assert_int_equal(zc_object_settled(o, 0, 5 * CT_CHUNK), CT_CHUNK);
        for (uint64_t off = 0; off < LARGE; off += CT_CHUNK) {
            int r = ft_want(o, &x, off, CT_CHUNK, false);
            ft_serve_all(&w);
            assert_true(r == 1 || (r == 0 && x.done == 1 && x.err == 0));
            assert_true(ft_good(o, off, CT_CHUNK));
        }
        struct zc_fetch_stats st;
        zc_fetch_get_stats(w.fetch, &st);
        assert_int_equal(st.bytes_store, (whole ? 0 : LARGE / 2) + (hurt ? CT_CHUNK : 0));
        assert_int_equal(ct_stats(w.cache).bad_chunks, hurt);
        assert_int_equal(zc_object_complete(o), !hurt);
        zc_object_close(o);
        o = large_object(&w); /* what was wrong is not in the cache any more */
        assert_int_equal(zc_object_complete(o), !hurt);
        assert_int_equal(ft_want(o, &x, 0, LARGE, false), !hurt);
        ft_serve_all(&w);
        assert_true(zc_object_complete(o) && ft_good(o, 0, LARGE));
        zc_object_close(o);
        ft_close(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_disk_that_cannot_read),
        cmocka_unit_test(test_a_bad_sector),
        cmocka_unit_test(test_a_chunk_that_is_shown_to_be_bad),
        cmocka_unit_test(test_what_is_doubted_is_checked_when_used),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
