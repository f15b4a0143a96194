/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Each call that the cache makes for memory or on a file fails once: number 0 of a run, number 1 of
 * the next, until a run comes to its end without. Whatever failed, no wrong byte may be served, in
 * that run or after the next open, and nothing may leak (the sanitizers see to that).
 *
 * The linker sends the calls through here (--wrap), so that no system call has to be broken for
 * real.
 */
#include "cache/cache.h"

#include "../unit/cachetest.h"
#include "../unit/unit.h"
#include "base/log.h"
#include <errno.h>
#include <lmdb.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>

enum kind { MEMORY, OPEN, UNLINK, TRUNCATE, PUNCH, STAT, READ, COMMIT, KINDS };
static const char *const kind_names[KINDS] = {"memory", "open", "unlink", "truncate",
                                              "punch",  "stat", "read",   "commit"};

static _Atomic int armed = -1;    /* kind that fails, or -1 */
static _Atomic long countdown;    /* calls until it does */
static _Atomic unsigned injected; /* how many did */

static bool fails(enum kind k)
{
    if (armed != (int)k || atomic_fetch_sub(&countdown, 1) != 0)
        return false;
    injected++;
    return true;
}

static void arm(int k, long n)
{
    countdown = n;
    injected = 0;
    armed = k;
}

#define WRAP_MEMORY(ret, name, params, args)                                                       \
    ret __real_##name params;                                                                      \
    ret __wrap_##name params;                                                                      \
    ret __wrap_##name params                                                                       \
    {                                                                                              \
        if (fails(MEMORY)) {                                                                       \
            errno = ENOMEM;                                                                        \
            return NULL;                                                                           \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }
WRAP_MEMORY(void *, malloc, (size_t n), (n))
WRAP_MEMORY(void *, calloc, (size_t n, size_t m), (n, m))
WRAP_MEMORY(void *, realloc, (void *p, size_t n), (p, n))
WRAP_MEMORY(char *, strdup, (const char *s), (s))

#define WRAP_IO(ret, kind, err, name, params, args)                                                \
    ret __real_##name params;                                                                      \
    ret __wrap_##name params;                                                                      \
    ret __wrap_##name params                                                                       \
    {                                                                                              \
        if (fails(kind)) {                                                                         \
            errno = err;                                                                           \
            return -1;                                                                             \
        }                                                                                          \
        return __real_##name args;                                                                 \
    }
WRAP_IO(int, OPEN, EIO, openat64, (int d, const char *p, int f, mode_t m), (d, p, f, m))
WRAP_IO(int, UNLINK, EIO, unlinkat, (int d, const char *p, int f), (d, p, f))
WRAP_IO(int, TRUNCATE, ENOSPC, ftruncate64, (int fd, off_t n), (fd, n))
WRAP_IO(int, PUNCH, EOPNOTSUPP, fallocate64, (int fd, int m, off_t o, off_t n), (fd, m, o, n))
WRAP_IO(int, STAT, EIO, fstat64, (int fd, struct stat *st), (fd, st))
WRAP_IO(ssize_t, READ, EIO, pread64, (int fd, void *p, size_t n, off_t o), (fd, p, n, o))
WRAP_IO(ssize_t, READ, EIO, preadv64v2, (int fd, const struct iovec *v, int n, off_t o, int f),
        (fd, v, n, o, f))

int __real_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn);
int __wrap_mdb_txn_commit(MDB_txn *txn)
{
    if (fails(COMMIT)) {
        mdb_txn_abort(txn);
        return ENOSPC;
    }
    return __real_mdb_txn_commit(txn);
}

/* ------------------------------------------------------------------ what is tried */

#define OBJECTS 12

static uint64_t object_size(unsigned n)
{
    return n == 0 ? 0 : n == 1 ? 66 * CT_CHUNK : n * 20000;
}

static void assert_right(struct zc_cache *c)
{
    for (unsigned n = 0; n < OBJECTS; n++) {
        struct zc_cobj *o;
        if (ct_hold(c, n, object_size(n), &o) < 0)
            continue;
        for (uint32_t i = 0; i < zc_cobj_chunks(o); i++)
            assert_true(!zc_cobj_has_chunk(o, i) || ct_good(o, n, i));
        zc_cobj_release(c, o);
    }
}

static int count_page(void *user, uint32_t page, const void *p, size_t n)
{
    assert_int_equal(n, 5);
    assert_memory_equal(p, "hello", 5);
    return 0;
}

/* A bit of everything. Whether a call works is not asked; that it does no harm is. */
static void use(struct zc_cache *c)
{
    struct zc_cobj *o;
    struct zc_digest dir = zc_digest_of(0, "d", 1);
    for (unsigned n = 0; n < OBJECTS; n++) {
        if (ct_hold(c, n, object_size(n), &o) < 0)
            continue;
        for (uint32_t i = 0; i < zc_cobj_chunks(o); i++) {
            if (!zc_cobj_has_chunk(o, i) && (n + i) % 3)
                ct_put(c, o, n, i);
            else if (!zc_cobj_has_chunk(o, i) &&
                     zc_cobj_reserve(c, o, zc_cobj_chunk_len(o, i)) == 0)
                zc_cobj_unreserve(c, o, zc_cobj_chunk_len(o, i));
        }
        if (n == 5)
            zc_cobj_drop(c, o);
        zc_cobj_release(c, o);
    }
    zc_cache_put_listing(c, dir, 0, "hello", 5);
    zc_cache_get_listing(c, dir, count_page, NULL);
    zc_cache_evict(c, ct_id(4, object_size(4)));
    for (unsigned n = 0; n < OBJECTS; n++)
        assert_true(ct_check(c, n, object_size(n)) != -EILSEQ);
    assert_true(ct_stats(c).used <= ct_stats(c).capacity);
}

/* A process that has cached something, and dies. */
static void crash(const char *dir)
{
    struct zc_cache_config cfg = ct_config(dir);
    pid_t pid = fork();
    if (pid == 0) {
        struct zc_cache *c = ct_open(&cfg);
        for (unsigned n = 6; n < OBJECTS; n++)
            ct_put_all(c, n, object_size(n));
        usleep(100000);
        _exit(0);
    }
    waitpid(pid, NULL, 0);
}

static unsigned run_one(enum kind k, long n)
{
    char *dir = ct_mkdir();
    struct zc_cache_config cfg = ct_config(dir);
    struct zc_cache *c;
    if (n % 2 || k == READ) {
        crash(dir);
    } else {
        c = ct_open(&cfg);
        zc_cache_close(c);
    }
    cfg.size = 70 * CT_CHUNK; /* something is evicted */
    arm((int)k, n);
    if (zc_cache_open(&cfg, &c, NULL) == 0) {
        use(c);
        zc_cache_close(c);
    }
    unsigned hit = injected;
    arm(-1, 0);
    c = ct_open(&cfg); /* and after that */
    assert_right(c);
    use(c);
    zc_cache_close(c);
    ct_rmdir(dir);
    return hit;
}

static void run(enum kind k, long step)
{
    long n = 0;
#ifdef __SANITIZE_THREAD__
    step *= 3; /* there each run takes ten times as long; all of them have been done without it */
#endif
    unsigned missed =
        0; /* in a row: with and without a crash before it a run has more or fewer calls */
    for (; missed < 4; n += step)
        missed = run_one(k, n) ? 0 : missed + 1;
    print_message("%s: one of %ld calls failed, every %ld. of them\n", kind_names[k], n - 4 * step,
                  step);
    assert_true(n > 4 * step);
}

static void test_memory(void **state)
{
    run(MEMORY, 1);
}

static void test_open(void **state)
{
    run(OPEN, 23); /* hundreds of folders */
}

static void test_unlink(void **state)
{
    run(UNLINK, 1);
}

static void test_truncate(void **state)
{
    run(TRUNCATE, 1);
}

static void test_punch(void **state)
{
    run(PUNCH, 1);
}

static void test_stat(void **state)
{
    run(STAT, 1);
}

static void test_read(void **state)
{
    run(READ, 1);
}

static void test_commit(void **state)
{
    run(COMMIT, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_memory), cmocka_unit_test(test_open),
        cmocka_unit_test(test_unlink), cmocka_unit_test(test_truncate),
        cmocka_unit_test(test_punch),  cmocka_unit_test(test_stat),
        cmocka_unit_test(test_read),   cmocka_unit_test(test_commit),
    };
    zc_log_set_level(ZC_LOG_ERR);
    setenv("TMPDIR", "/dev/shm", 0); /* hundreds of caches are made and removed */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
