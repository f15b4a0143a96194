/* SPDX-License-Identifier: Apache-2.0 */
/* The life of an object, a disk that fails, many threads. */
#include "cache/cache.h"

#include "base/log.h"
#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* ------------------------------------------------------------------ the life of an object */

static void test_from_empty_to_complete(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    uint64_t size = 3 * CT_CHUNK + 100;
    struct zc_cobj *o, *o2;
    assert_false(zc_cache_has(c, ct_id(1, size)));
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o), 0);
    assert_int_equal(ct_hold(c, 1, size, &o), 0);
    assert_int_equal(zc_cobj_state(o), ZC_COBJ_PARTIAL);
    assert_int_equal(zc_cobj_chunks(o), 4);
    assert_int_equal(zc_cobj_chunk_len(o, 0), CT_CHUNK);
    assert_int_equal(zc_cobj_chunk_len(o, 3), 100);
    assert_int_equal(zc_cobj_chunk_len(o, 4), 0);
    for (unsigned i = 0; i < 4; i++) {
        unsigned chunk = (i + 2) % 4;
        assert_false(zc_cobj_has_chunk(o, chunk));
        assert_int_equal(ct_put(c, o, 1, chunk), i == 3);
        assert_true(zc_cobj_has_chunk(o, chunk));
    }
    assert_false(zc_cobj_has_chunk(o, 4));
    assert_int_equal(zc_cobj_state(o), ZC_COBJ_COMPLETE);
    assert_int_equal(ct_put(c, o, 1, 0), 0); /* once more: harmless */
    assert_true(zc_cache_has(c, ct_id(1, size)));
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o2), 1);
    assert_ptr_equal(o, o2); /* one struct for each object */
    zc_cobj_release(c, o2);
    zc_cobj_release(c, o);
    assert_int_equal(ct_check(c, 1, size), 1);
    struct zc_cache_stats st = ct_stats(c);
    assert_int_equal(st.objects, 1);
    assert_int_equal(st.complete, 1);
    assert_int_equal(st.used, 3 * CT_CHUNK + 4096);
    zc_cache_close(c);
}

static void test_complete_is_read_only(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    ct_put_all(c, 1, 100);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, 100), &o), 1);
    assert_int_equal(fcntl(zc_cobj_fd(o), F_GETFL) & O_ACCMODE, O_RDONLY);
    zc_cobj_release(c, o);
    zc_cache_close(c);
}

static void test_empty_object(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    for (int round = 0; round < 3; round++) {
        assert_int_equal(ct_hold(c, 1, 0, &o), 0);
        assert_int_equal(zc_cobj_state(o), ZC_COBJ_COMPLETE);
        assert_int_equal(zc_cobj_chunks(o), 0);
        zc_cobj_release(c, o);
        assert_true(zc_cache_has(c, ct_id(1, 0)));
        assert_int_equal(ct_stats(c).used, 4096);
        if (round == 1) {
            zc_cache_close(c);
            c = ct_open(&cfg);
        }
    }
    assert_int_equal(zc_cache_evict(c, ct_id(1, 0)), 4096);
    assert_int_equal(ct_stats(c).used, 0);
    zc_cache_close(c);
}

static void test_partial_stays(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    for (unsigned n = 10; n < 1000; n += 89) { /* above and below 64 chunks */
        uint64_t size = (n % 2 ? 10 : 100) * CT_CHUNK;
        assert_int_equal(ct_hold(c, n, size, &o), 0);
        assert_int_equal(ct_put(c, o, n, 1), 0);
        assert_int_equal(ct_put(c, o, n, 9), 0);
        zc_cobj_release(c, o);
        assert_false(zc_cache_has(c, ct_id(n, size)));
        assert_int_equal(zc_cache_hold_complete(c, ct_id(n, size), &o), 0);
    }
    for (int round = 0; round < 2; round++) {
        for (unsigned n = 10; n < 1000; n += 89) {
            uint64_t size = (n % 2 ? 10 : 100) * CT_CHUNK;
            assert_int_equal(ct_hold(c, n, size, &o), 0);
            for (uint32_t i = 0; i < zc_cobj_chunks(o); i++)
                assert_int_equal(zc_cobj_has_chunk(o, i), i == 1 || i == 9);
            assert_true(ct_good(o, n, 1));
            assert_true(ct_good(o, n, 9));
            zc_cobj_release(c, o);
        }
        assert_int_equal(ct_stats(c).used, 12 * 2 * CT_CHUNK);
        if (round == 0) {
            zc_cache_close(c);
            c = ct_open(&cfg);
        }
    }
    zc_cache_close(c);
}

static void test_nothing_written_leaves_nothing(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    unsigned before = ct_count(*state);
    assert_int_equal(ct_hold(c, 1, 5 * CT_CHUNK, &o), 0);
    assert_int_equal(zc_cobj_reserve(c, o, 2 * CT_CHUNK), 0);
    assert_int_equal(ct_stats(c).used, 2 * CT_CHUNK);
    zc_cobj_unreserve(c, o, CT_CHUNK);
    assert_int_equal(ct_stats(c).used, CT_CHUNK);
    zc_cobj_release(c, o);
    assert_int_equal(ct_stats(c).used, 0);
    assert_int_equal(ct_stats(c).objects, 0);
    assert_int_equal(ct_count(*state), before);
    zc_cache_close(c);
}

static void test_uncommitted_bytes_are_given_back(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    char path[400], *buf = calloc(1, CT_CHUNK);
    struct zc_cobj *o;
    struct stat st;
    assert_int_equal(ct_hold(c, 1, 4 * CT_CHUNK + 10, &o), 0);
    assert_int_equal(ct_put(c, o, 1, 1), 0);
    memset(buf, 'x', CT_CHUNK);
    for (unsigned i = 0; i < 5; i += 2) { /* written, never recorded; one of them the tail */
        size_t len = zc_cobj_chunk_len(o, i);
        assert_int_equal(zc_cobj_reserve(c, o, len), 0);
        assert_int_equal(pwrite(zc_cobj_fd(o), buf, len, (off_t)(i * CT_CHUNK)), len);
    }
    zc_cobj_unreserve(c, o, zc_cobj_chunk_len(o, 4));
    zc_cobj_release(c, o);
    ct_object_path(c, 1, 4 * CT_CHUNK + 10, path);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_size, 4 * CT_CHUNK + 10);
    assert_true((uint64_t)st.st_blocks * 512 <= CT_CHUNK);
    assert_int_equal(ct_stats(c).used, CT_CHUNK);
    assert_int_equal(ct_hold(c, 1, 4 * CT_CHUNK + 10, &o), 0);
    assert_true(ct_good(o, 1, 1));
    zc_cobj_release(c, o);
    free(buf);
    zc_cache_close(c);
}

static void test_drop_while_held(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *old, *new;
    ct_put_all(c, 1, 100);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, 100), &old), 1);
    assert_int_equal(zc_cache_evict(c, ct_id(1, 100)), -EBUSY);
    zc_cobj_drop(c, old);
    zc_cobj_drop(c, old); /* twice: harmless */
    assert_false(zc_cache_has(c, ct_id(1, 100)));
    assert_int_equal(ct_stats(c).objects, 0);
    assert_int_equal(ct_stats(c).used, 4096); /* the disk still holds it */
    assert_true(ct_good(old, 1, 0));
    assert_int_equal(ct_hold(c, 1, 100, &new), 0);
    assert_ptr_not_equal(new, old);
    assert_int_equal(zc_cobj_state(new), ZC_COBJ_PARTIAL);
    assert_int_equal(zc_cobj_reserve(c, old, 100), -ESTALE);
    assert_int_equal(ct_put(c, new, 1, 0), 1);
    zc_cobj_release(c, old);
    zc_cobj_release(c, new);
    assert_int_equal(ct_stats(c).used, 4096);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_int_equal(ct_check(c, 1, 100), 1);
    zc_cache_close(c);
}

static void test_drop_then_commit(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    assert_int_equal(ct_hold(c, 1, 2 * CT_CHUNK, &o), 0);
    assert_int_equal(ct_put(c, o, 1, 0), 0);
    assert_int_equal(zc_cobj_reserve(c, o, CT_CHUNK), 0);
    zc_cobj_drop(c, o);
    assert_int_equal(zc_cobj_commit(c, o, 1, zc_digest_of(0, "", 0)), 0);
    zc_cobj_release(c, o);
    assert_int_equal(ct_stats(c).used, 0);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).objects, 0);
    assert_int_equal(ct_hold(c, 1, 2 * CT_CHUNK, &o), 0);
    assert_false(zc_cobj_has_chunk(o, 0));
    zc_cobj_release(c, o);
    zc_cache_close(c);
}

static void test_lost_file_is_a_miss(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    char path[400];
    struct zc_cobj *o;
    for (unsigned n = 1; n <= 2; n++) {
        ct_put_all(c, n, 70000);
        ct_object_path(c, n, 70000, path);
        if (n == 1)
            assert_int_equal(unlink(path), 0);
        else
            assert_int_equal(truncate(path, 5), 0);
        assert_int_equal(zc_cache_hold_complete(c, ct_id(n, 70000), &o), 0);
        assert_int_equal(ct_stats(c).used, 0);
        assert_int_equal(ct_put_all(c, n, 70000), 0);
        assert_int_equal(ct_check(c, n, 70000), 1);
        assert_true(zc_cache_evict(c, ct_id(n, 70000)) > 0);
    }
    zc_cache_close(c);
}

/* ------------------------------------------------------------------ a bad disk */

static void test_disk_errors_bypass(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    ct_put_all(c, 1, 100);
    for (int i = 0; i < 5; i++)
        zc_cache_disk_error(c, -EMFILE); /* not the disk's */
    assert_false(ct_stats(c).bypassed);
    zc_cache_disk_error(c, -EIO);
    zc_cache_disk_error(c, EIO);
    assert_false(ct_stats(c).bypassed);
    assert_int_equal(ct_check(c, 1, 100), 1);
    zc_cache_disk_error(c, EIO);
    assert_true(ct_stats(c).bypassed);
    assert_false(zc_cache_has(c, ct_id(1, 100)));
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, 100), &o), 0);
    assert_int_equal(ct_hold(c, 1, 100, &o), -EIO);
    assert_int_equal(ct_stats(c).disk_errors, 8);
    zc_cache_close(c);
}

static void test_full_disk_still_reads(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    ct_put_all(c, 1, 100);
    for (int i = 0; i < 5; i++)
        zc_cache_disk_error(c, -ENOSPC);
    assert_false(ct_stats(c).bypassed);
    assert_int_equal(ct_check(c, 1, 100), 1);
    assert_int_equal(ct_hold(c, 2, 100, &o), -ENOSPC);
    zc_cache_close(c);
}

/* ------------------------------------------------------------------ threads */

struct crowd {
    struct zc_cache *c;
    unsigned seed;
    _Atomic unsigned *wrong;
};

static void *crowd_main(void *arg)
{
    struct crowd *w = arg;
    for (unsigned step = 0; step < 1500; step++) {
        unsigned n = (unsigned)rand_r(&w->seed) % 40;
        uint64_t size = n % 7 == 0 ? 3 * CT_CHUNK : n % 5 == 0 ? 0 : 1000 + n;
        struct zc_cobj *o;
        int r = ct_check(w->c, n, size);
        if (r < 0)
            (*w->wrong)++;
        if (r != 0)
            continue;
        if (ct_hold(w->c, n, size, &o) < 0)
            continue;
        for (uint32_t i = 0; i < zc_cobj_chunks(o); i++) {
            if (!zc_cobj_has_chunk(o, i))
                ct_put(w->c, o, n, i);
            else if (!ct_good(o, n, i))
                (*w->wrong)++;
        }
        if (rand_r(&w->seed) % 10 == 0)
            zc_cobj_drop(w->c, o);
        zc_cobj_release(w->c, o);
        if (rand_r(&w->seed) % 10 == 0)
            zc_cache_evict(w->c, ct_id((unsigned)rand_r(&w->seed) % 40, 1000));
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    _Atomic unsigned wrong = 0;
    pthread_t t[6];
    struct crowd w[6];
    cfg.size = 12 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned i = 0; i < 6; i++) {
        w[i] = (struct crowd){.c = c, .seed = i + 1, .wrong = &wrong};
        assert_int_equal(pthread_create(&t[i], NULL, crowd_main, &w[i]), 0);
    }
    for (unsigned i = 0; i < 6; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(wrong, 0);
    assert_true(ct_stats(c).used <= cfg.size);
    struct zc_cache_stats before = ct_stats(c);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).used, before.used);
    assert_int_equal(ct_stats(c).objects, before.objects);
    zc_cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_from_empty_to_complete),
        CT_TEST(test_complete_is_read_only),
        CT_TEST(test_empty_object),
        CT_TEST(test_partial_stays),
        CT_TEST(test_nothing_written_leaves_nothing),
        CT_TEST(test_uncommitted_bytes_are_given_back),
        CT_TEST(test_drop_while_held),
        CT_TEST(test_drop_then_commit),
        CT_TEST(test_lost_file_is_a_miss),
        CT_TEST(test_disk_errors_bypass),
        CT_TEST(test_full_disk_still_reads),
        CT_TEST(test_many_threads),
    };
    zc_log_set_level(ZC_LOG_ERR); /* damage is met on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
