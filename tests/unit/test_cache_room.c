/* SPDX-License-Identifier: Apache-2.0 */
/* Who goes when room is needed, and how much may be used. */
#include "cache/cache.h"

#include "base/log.h"
#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <sys/statvfs.h>

/* ------------------------------------------------------------------ room */

static void test_evicts_for_room(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 10 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *held;
    assert_int_equal(ct_put_all(c, 0, CT_CHUNK), 0);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(0, CT_CHUNK), &held), 1);
    for (unsigned n = 1; n < 100; n++) {
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
        assert_true(ct_stats(c).used <= cfg.size);
    }
    assert_true(zc_cache_has(c, ct_id(0, CT_CHUNK)));
    assert_true(ct_stats(c).evictions >= 90);
    assert_true(ct_good(held, 0, 0));
    zc_cobj_release(c, held);
    zc_cache_close(c);
}

/* Objects with odd low bits are another node's, or all while *user says so. */
static bool spare_odd(void *user, struct zc_objid id, uint64_t size)
{
    const bool *all = user;
    return *all || (id.id.lo & 1);
}

static unsigned spare_left(struct zc_cache *c, unsigned from, unsigned to, bool spare)
{
    bool all = false;
    unsigned left = 0;
    for (unsigned n = from; n < to; n++) {
        struct zc_objid id = ct_id(n, CT_CHUNK);
        left += spare_odd(&all, id, CT_CHUNK) == spare && zc_cache_has(c, id);
    }
    return left;
}

static void test_spare_go_first(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 40 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    bool all = false;
    for (unsigned n = 0; n < 20; n++) /* before anybody knows of others */
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
    assert_int_equal(ct_stats(c).spare_bytes, 0);
    zc_cache_on_spare(c, spare_odd, &all, 0);
    for (unsigned n = 20; n < 40; n++)
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
    unsigned own = spare_left(c, 0, 40, false), spare = spare_left(c, 0, 40, true);
    assert_true(own + spare >= 39 && own >= 8 && spare >= 8);
    assert_int_equal(ct_stats(c).spare_bytes, spare * CT_CHUNK);
    struct zc_cobj *held; /* what is open stays */
    unsigned open = 0;
    while (!(ct_id(open, CT_CHUNK).id.lo & 1))
        open++;
    assert_int_equal(zc_cache_hold_complete(c, ct_id(open, CT_CHUNK), &held), 1);
    for (unsigned n = 40; n < 40 + spare; n++)
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
    assert_int_equal(spare_left(c, 0, 40, false), own);
    assert_true(spare_left(c, 0, 40, true) < spare);
    assert_true(zc_cache_has(c, ct_id(open, CT_CHUNK)));
    zc_cobj_release(c, held);
    /* The others took it all over, and went away again. */
    all = true;
    zc_cache_ask_spare(c);
    assert_int_equal(ct_stats(c).spare_bytes, ct_stats(c).used);
    zc_cache_on_spare(c, NULL, NULL, 0);
    all = false;
    zc_cache_on_spare(c, spare_odd, &all, 0);
    assert_true(ct_stats(c).spare_bytes < ct_stats(c).used);
    zc_cache_close(c);
}

struct counted {
    unsigned n, spare;
    uint64_t bytes, size;
};

static int count_resident(void *user, const struct zc_cache_resident *r)
{
    struct counted *x = user;
    assert_true(r->path_len > 0 && r->source_len > 0);
    x->n++;
    x->spare += r->spare;
    x->bytes += r->bytes;
    x->size += r->size;
    return x->n == 1000 ? -EINTR : 0;
}

static void test_census(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    struct counted x = {0};
    bool all = false;
    assert_int_equal(zc_cache_census(c, count_resident, &x), 0);
    assert_int_equal(x.n, 0);
    zc_cache_on_spare(c, spare_odd, &all, 0);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(ct_put_all(c, n, CT_CHUNK - 100), 0);
    assert_int_equal(ct_hold(c, 50, 4 * CT_CHUNK, &o), 0); /* a part of it */
    assert_int_equal(ct_put(c, o, 50, 2), 0);
    assert_int_equal(zc_cache_evict(c, ct_id(3, CT_CHUNK - 100)), CT_CHUNK);
    assert_int_equal(zc_cache_census(c, count_resident, &x), 0);
    assert_int_equal(x.n, 20);
    assert_int_equal(x.bytes, 19 * (CT_CHUNK - 100) + CT_CHUNK);
    assert_int_equal(x.size, 19 * (CT_CHUNK - 100) + 4 * CT_CHUNK);
    unsigned spare = ct_id(50, 4 * CT_CHUNK).id.lo & 1;
    for (unsigned n = 0; n < 20; n++)
        spare += n != 3 && (ct_id(n, CT_CHUNK - 100).id.lo & 1);
    assert_int_equal(x.spare, spare);
    zc_cobj_release(c, o);
    x.n = 990;
    assert_int_equal(zc_cache_census(c, count_resident, &x), -EINTR);
    zc_cache_close(c);
}

static void test_spare_bound(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 100 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    bool all = false;
    zc_cache_on_spare(c, spare_odd, &all, 5 * CT_CHUNK);
    for (unsigned n = 0; n < 60; n++) {
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
        assert_true(ct_stats(c).spare_bytes <= 6 * CT_CHUNK); /* one is open when it comes */
    }
    unsigned own = 0;
    for (unsigned n = 0; n < 60; n++)
        own += !(ct_id(n, CT_CHUNK).id.lo & 1);
    assert_int_equal(spare_left(c, 0, 60, false), own);
    assert_in_range(spare_left(c, 0, 60, true), 4, 6);
    zc_cache_close(c);
}

static void test_everything_open_is_enospc(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 4 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o[5];
    for (unsigned n = 0; n < 4; n++) {
        assert_int_equal(ct_hold(c, n, CT_CHUNK, &o[n]), 0);
        assert_int_equal(ct_put(c, o[n], n, 0), 1);
    }
    assert_int_equal(ct_hold(c, 4, CT_CHUNK, &o[4]), -ENOSPC);
    zc_cobj_release(c, o[0]);
    assert_int_equal(ct_hold(c, 4, 2 * CT_CHUNK, &o[4]), 0);
    assert_int_equal(ct_put(c, o[4], 4, 0), 0);
    assert_int_equal(ct_put(c, o[4], 4, 1), -ENOSPC);
    assert_int_equal(zc_cobj_reserve(c, o[4], 5 * CT_CHUNK),
                     -ENOSPC); /* more than there is at all */
    for (unsigned n = 1; n < 5; n++)
        zc_cobj_release(c, o[n]);
    assert_int_equal(ct_stats(c).used, 4 * CT_CHUNK);
    zc_cache_close(c);
}

static void test_floor(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c;
    struct zc_error err = {0};
    struct statvfs v;
    struct zc_cobj *o;
    cfg.free_ratio = 1.0;
    c = ct_open(&cfg); /* a size that was asked for stands; the floor rules */
    assert_int_equal(ct_hold(c, 1, 100, &o), -ENOSPC);
    zc_cache_close(c);

    cfg.size = 0;
    assert_int_equal(zc_cache_open(&cfg, &c, &err), -ENOSPC);
    assert_non_null(strstr(err.text, "--cache-dir"));

    assert_int_equal(statvfs(*state, &v), 0);
    uint64_t avail = (uint64_t)v.f_bavail * v.f_frsize;
    cfg.free_ratio = 0;
    c = ct_open(&cfg);
    assert_true(ct_stats(c).capacity > avail / 10 * 8);
    assert_true(ct_stats(c).capacity < avail);
    zc_cache_close(c);
}

static void test_floor_rises(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    struct zc_cobj *o;
    for (unsigned n = 0; n < 20; n++)
        ct_put_all(c, n, CT_CHUNK);
    zc_cache_close(c);
    cfg.free_ratio = 1.0;
    c = ct_open(&cfg); /* below the floor from the start: everything goes */
    assert_int_equal(ct_stats(c).used, 0);
    assert_int_equal(ct_stats(c).evictions, 20);
    assert_int_equal(ct_hold(c, 30, 100, &o), -ENOSPC);
    zc_cache_close(c);
}

static void test_smaller_size_at_remount(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 0; n < 20; n++)
        ct_put_all(c, n, CT_CHUNK);
    zc_cache_close(c);
    cfg.size = 5 * CT_CHUNK;
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).used, 5 * CT_CHUNK);
    assert_int_equal(ct_stats(c).objects, 5);
    zc_cache_close(c);
}

/* A cache that is large enough keeps some room ahead once it was short of it, and none before. */
static void test_evicts_ahead(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.size = 256 * CT_CHUNK; /* room ahead: 4 chunks */
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 0; n < 256; n++)
        assert_int_equal(ct_put_all(c, n, CT_CHUNK), 0);
    usleep(50000);
    assert_int_equal(ct_stats(c).used, cfg.size);
    assert_int_equal(ct_stats(c).evictions, 0);
    assert_int_equal(ct_put_all(c, 256, CT_CHUNK), 0);
    for (int i = 0; i < 500 && ct_stats(c).used > cfg.size - 2 * CT_CHUNK; i++)
        usleep(1000);
    usleep(10000);
    assert_in_range(ct_stats(c).used, cfg.size - 4 * CT_CHUNK, cfg.size - 2 * CT_CHUNK);
    zc_cache_close(c);
}

/* Random calls against a model of what is held; after each, what must always be true. */
static void test_random_calls(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    enum { OBJECTS = 60, STEPS = 6000 };
    struct {
        struct zc_cobj *o;
        unsigned refs;
        uint64_t size;
        bool dropped;
    } m[OBJECTS] = {0};
    unsigned seed = 4711;
    cfg.size = 40 * CT_CHUNK;
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 0; n < OBJECTS; n++)
        m[n].size =
            n == 0 ? 0 : (uint64_t)rand_r(&seed) % (n % 10 == 0 ? 80 * CT_CHUNK : 4 * CT_CHUNK);
    for (unsigned step = 0; step < STEPS; step++) {
        unsigned n = (unsigned)rand_r(&seed) % OBJECTS;
        struct zc_cobj *o = m[n].o, *got = NULL;
        switch (rand_r(&seed) % 8) {
        case 0:
        case 1:
            if (m[n].dropped)
                break;
            if (ct_hold(c, n, m[n].size, &got) == 0) {
                assert_true(!o || o == got);
                m[n].o = got;
                m[n].refs++;
            } else {
                assert_null(o);
            }
            break;
        case 2:
        case 3:
        case 4:
            if (o && zc_cobj_state(o) == ZC_COBJ_PARTIAL) {
                uint32_t chunk = (uint32_t)rand_r(&seed) % zc_cobj_chunks(o);
                int r = ct_put(c, o, n, chunk);
                assert_true(r >= 0 || r == -ENOSPC || (r == -ESTALE && m[n].dropped));
                if (r >= 0 && !m[n].dropped)
                    assert_true(zc_cobj_has_chunk(o, chunk));
            }
            break;
        case 5:
        case 6:
            if (o) {
                for (uint32_t i = 0; i < zc_cobj_chunks(o); i++)
                    assert_true(!zc_cobj_has_chunk(o, i) || ct_good(o, n, i));
                zc_cobj_release(c, o);
                if (--m[n].refs == 0) {
                    m[n].o = NULL;
                    m[n].dropped = false;
                }
            }
            break;
        case 7:
            if (o && rand_r(&seed) % 4 == 0) {
                zc_cobj_drop(c, o);
                m[n].dropped = true;
            } else if (!o) {
                assert_true(zc_cache_evict(c, ct_id(n, m[n].size)) >= 0);
            } else if (!m[n].dropped) {
                assert_int_equal(zc_cache_evict(c, ct_id(n, m[n].size)), -EBUSY);
            }
            break;
        }
        assert_true(ct_stats(c).used <= cfg.size);
        if (step % 1500 == 1499) {
            for (n = 0; n < OBJECTS; n++) {
                for (; m[n].refs; m[n].refs--)
                    zc_cobj_release(c, m[n].o);
                m[n].o = NULL;
                m[n].dropped = false;
            }
            struct zc_cache_stats before = ct_stats(c);
            zc_cache_close(c);
            c = ct_open(&cfg);
            struct zc_cache_stats after = ct_stats(c);
            assert_int_equal(before.used, after.used);
            assert_int_equal(before.objects, after.objects);
            assert_int_equal(before.complete, after.complete);
            for (n = 0; n < OBJECTS; n++)
                assert_true(ct_check(c, n, m[n].size) >= 0);
        }
    }
    zc_cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_evicts_for_room),
        CT_TEST(test_spare_go_first),
        CT_TEST(test_census),
        CT_TEST(test_spare_bound),
        CT_TEST(test_everything_open_is_enospc),
        CT_TEST(test_floor),
        CT_TEST(test_floor_rises),
        CT_TEST(test_smaller_size_at_remount),
        CT_TEST(test_evicts_ahead),
        CT_TEST(test_random_calls),
    };
    zc_log_set_level(ZC_LOG_ERR); /* damage is met on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
