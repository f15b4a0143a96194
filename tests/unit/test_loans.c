/* SPDX-License-Identifier: Apache-2.0 */
/* Loans of the cache. The borrower here keeps a descriptor for each loan, as the kernel does. */
#include "cache/cache.h"

#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define FILES 24
#define SIZE (2 * CT_CHUNK)

struct borrower {
    struct zc_cache *c;
    pthread_mutex_t lock[FILES];
    int fd[FILES]; /* -1: no loan */
    struct zc_cloan loan[FILES];
    unsigned uses[FILES];
    _Atomic unsigned recalls, reuses, wrong;
};

static void object_path(struct zc_cache *c, unsigned n, char out[400])
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, ct_id(n, SIZE).id);
    snprintf(out, 400, "%s/objects/%.2s/%s", ct_stats(c).dir, hex, hex);
}

static bool there(struct zc_cache *c, unsigned n)
{
    char path[400];
    object_path(c, n, path);
    return access(path, F_OK) == 0;
}

static void borrower_recall(void *user, uint64_t borrower)
{
    struct borrower *b = user;
    unsigned n = (unsigned)borrower - 1;
    pthread_mutex_lock(&b->lock[n]);
    b->recalls++;
    if (!there(b->c, n))
        b->wrong++; /* told too late */
    if (b->fd[n] < 0 || b->uses[n])
        b->wrong++; /* not ours, or taken under a reader's hands */
    if (b->fd[n] >= 0)
        close(b->fd[n]);
    b->fd[n] = -1;
    pthread_mutex_unlock(&b->lock[n]);
}

static struct borrower *borrower_new(struct zc_cache *c)
{
    struct borrower *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    b->c = c;
    for (unsigned n = 0; n < FILES; n++) {
        pthread_mutex_init(&b->lock[n], NULL);
        b->fd[n] = -1;
    }
    zc_cache_on_recall(c, borrower_recall, b);
    return b;
}

static void borrower_free(struct borrower *b)
{
    zc_cache_on_recall(b->c, NULL, NULL);
    for (unsigned n = 0; n < FILES; n++) {
        if (b->fd[n] >= 0)
            close(b->fd[n]);
        pthread_mutex_destroy(&b->lock[n]);
    }
    free(b);
}

/* Opens what is complete in the cache: by its loan, else anew, which makes one. False: a miss. */
static bool borrower_open(struct borrower *b, unsigned n)
{
    struct zc_cobj *o;
    bool ok = false;
    pthread_mutex_lock(&b->lock[n]);
    if (b->fd[n] >= 0 && zc_cache_reuse(b->c, &b->loan[n])) {
        b->uses[n]++;
        b->reuses++;
        ok = true;
    }
    pthread_mutex_unlock(&b->lock[n]);
    if (ok || zc_cache_hold_complete(b->c, ct_id(n, SIZE), &o) != 1)
        return ok;
    pthread_mutex_lock(&b->lock[n]);
    if (b->fd[n] < 0 && zc_cobj_lend(b->c, o, n + 1, &b->loan[n])) {
        b->fd[n] = dup(zc_cobj_fd(o));
        b->uses[n]++;
        ok = true;
    }
    pthread_mutex_unlock(&b->lock[n]);
    zc_cobj_release(b->c, o);
    return ok;
}

static bool borrower_good(struct borrower *b, unsigned n)
{
    uint8_t want[SIZE], got[SIZE];
    ct_fill(n, 0, want, SIZE);
    return pread(b->fd[n], got, SIZE, 0) == (ssize_t)SIZE && memcmp(want, got, SIZE) == 0;
}

static void borrower_close(struct borrower *b, unsigned n, bool keep)
{
    pthread_mutex_lock(&b->lock[n]);
    if (--b->uses[n] == 0) {
        if (!keep) {
            close(b->fd[n]);
            b->fd[n] = -1;
        }
        zc_cache_unused(b->c, &b->loan[n], keep);
    }
    pthread_mutex_unlock(&b->lock[n]);
}

/* ------------------------------------------------------------------ */

static void test_recalled_before_it_goes(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    assert_int_equal(ct_put_all(c, 1, SIZE), 0);
    assert_true(borrower_open(b, 1));
    assert_int_equal(zc_cache_evict(c, ct_id(1, SIZE)), -EBUSY);
    assert_true(borrower_open(b, 1));
    assert_int_equal(b->reuses, 1);
    borrower_close(b, 1, true);
    assert_int_equal(zc_cache_evict(c, ct_id(1, SIZE)), -EBUSY);
    borrower_close(b, 1, true);
    assert_int_equal(b->recalls, 0);
    assert_true(zc_cache_evict(c, ct_id(1, SIZE)) > 0);
    assert_int_equal(b->recalls, 1);
    assert_int_equal(b->fd[1], -1);
    assert_int_equal(ct_stats(c).used, 0);
    assert_false(zc_cache_reuse(c, &b->loan[1]));
    assert_false(borrower_open(b, 1));
    assert_int_equal(b->wrong, 0);
    borrower_free(b);
    zc_cache_close(c);
}

static void test_given_back_is_not_recalled(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    assert_int_equal(ct_put_all(c, 1, SIZE), 0);
    assert_true(borrower_open(b, 1));
    borrower_close(b, 1, false);
    assert_false(zc_cache_reuse(c, &b->loan[1]));
    assert_true(zc_cache_evict(c, ct_id(1, SIZE)) > 0);
    assert_int_equal(b->recalls, 0);
    borrower_free(b);
    zc_cache_close(c);
}

static void test_one_borrower(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    struct zc_cloan l, l2;
    assert_int_equal(ct_put_all(c, 1, SIZE), 0);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, SIZE), &o), 1);
    assert_false(zc_cobj_lend(c, o, 2, &l)); /* nobody could recall it */
    struct borrower *b = borrower_new(c);
    assert_true(zc_cobj_lend(c, o, 2, &l));
    assert_false(zc_cobj_lend(c, o, 3, &l2));
    zc_cobj_release(c, o);
    struct zc_cloan other = {.borrower = 3, .slot = l.slot};
    assert_false(zc_cache_reuse(c, &other));
    zc_cache_unused(c, &other, false); /* not its own: no effect */
    assert_true(zc_cache_reuse(c, &l));
    /* Others hold and release it meanwhile; the loan survives that. */
    assert_int_equal(ct_check(c, 1, SIZE), 1);
    assert_true(zc_cache_reuse(c, &l));
    zc_cache_unused(c, &l, false);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, SIZE), &o), 1);
    assert_true(zc_cobj_lend(c, o, 3, &l2));
    zc_cache_unused(c, &l2, false);
    zc_cobj_release(c, o);
    /* A partial one is not lent. */
    assert_int_equal(ct_hold(c, 2, SIZE, &o), 0);
    assert_int_equal(ct_put(c, o, 2, 0), 0);
    assert_false(zc_cobj_lend(c, o, 4, &l));
    zc_cobj_release(c, o);
    borrower_free(b);
    zc_cache_close(c);
}

/* What is on loan is on the disk that just failed. */
static void test_not_from_a_broken_disk(void **state)
{
    zc_autofree char *dir = ct_mkdir();
    struct zc_cache_config cfg = ct_config(dir);
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    assert_int_equal(ct_put_all(c, 1, SIZE), 0);
    assert_true(borrower_open(b, 1));
    zc_cache_unused(c, &b->loan[1], true);
    assert_true(zc_cache_reuse(c, &b->loan[1]));
    zc_cache_unused(c, &b->loan[1], true);
    for (int i = 0; i < 3; i++)
        zc_cache_disk_error(c, -EIO);
    assert_true(ct_stats(c).bypassed);
    assert_false(zc_cache_reuse(c, &b->loan[1]));
    borrower_free(b);
    zc_cache_close(c);
    ct_rmdir(zc_steal_ptr(&dir));
}

static void test_room_comes_from_idle_ones(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 4 * SIZE;
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(ct_put_all(c, n, SIZE), 0);
        assert_true(borrower_open(b, n));
    }
    assert_int_equal(ct_put_all(c, 4, SIZE), -ENOSPC); /* all in use */
    borrower_close(b, 2, true);
    assert_int_equal(ct_put_all(c, 4, SIZE), 0);
    assert_int_equal(b->recalls, 1);
    assert_false(there(c, 2));
    for (unsigned n = 0; n < 4; n++) {
        if (n == 2)
            continue;
        assert_true(borrower_good(b, n));
        borrower_close(b, n, true);
    }
    assert_int_equal(b->wrong, 0);
    borrower_free(b);
    zc_cache_close(c);
}

static void test_dropped_in_use(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    struct zc_cobj *o;
    assert_int_equal(ct_put_all(c, 1, SIZE), 0);
    assert_true(borrower_open(b, 1));
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, SIZE), &o), 1);
    zc_cobj_drop(c, o);
    assert_int_equal(b->recalls, 1); /* even though it is in use: there will be no other chance */
    assert_false(there(c, 1));
    zc_cobj_release(c, o);
    zc_cache_unused(c, &b->loan[1], true);
    assert_int_equal(ct_stats(c).used, 0);
    borrower_free(b);
    zc_cache_close(c);
}

/* ------------------------------------------------------------------ */

struct crowd {
    struct borrower *b;
    unsigned seed;
};

static void *crowd_main(void *arg)
{
    struct crowd *w = arg;
    struct borrower *b = w->b;
    for (unsigned step = 0; step < 2000; step++) {
        unsigned n = (unsigned)rand_r(&w->seed) % FILES;
        if (borrower_open(b, n)) {
            if (!there(b->c, n) || !borrower_good(b, n))
                b->wrong++;
            borrower_close(b, n, rand_r(&w->seed) % 8 != 0);
        } else {
            ct_put_all(b->c, n, SIZE); /* makes room by evicting */
        }
        if (rand_r(&w->seed) % 16 == 0)
            zc_cache_evict(b->c, ct_id((unsigned)rand_r(&w->seed) % FILES, SIZE));
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    pthread_t t[6];
    struct crowd w[6];
    cfg.size = FILES / 2 * SIZE;
    struct zc_cache *c = ct_open(&cfg);
    struct borrower *b = borrower_new(c);
    for (unsigned i = 0; i < 6; i++) {
        w[i] = (struct crowd){.b = b, .seed = i + 1};
        assert_int_equal(pthread_create(&t[i], NULL, crowd_main, &w[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(b->wrong, 0);
    assert_true(b->recalls > 0);
    assert_true(b->reuses > 0);
    assert_true(ct_stats(c).used <= cfg.size);
    /* All of it can go: no loan was left in use. */
    for (unsigned n = 0; n < FILES; n++)
        assert_true(zc_cache_evict(c, ct_id(n, SIZE)) >= 0);
    assert_int_equal(ct_stats(c).used, 0);
    borrower_free(b);
    zc_cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_recalled_before_it_goes),
        CT_TEST(test_given_back_is_not_recalled),
        CT_TEST(test_one_borrower),
        CT_TEST(test_not_from_a_broken_disk),
        CT_TEST(test_room_comes_from_idle_ones),
        CT_TEST(test_dropped_in_use),
        CT_TEST(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
