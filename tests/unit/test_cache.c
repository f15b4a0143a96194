/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/cache.h"

#include "base/log.h"
#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

static void object_path(struct zc_cache *c, unsigned n, uint64_t size, char out[400])
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, ct_id(n, size).id);
    snprintf(out, 400, "%s/objects/%.2s/%s", ct_stats(c).dir, hex, hex);
}

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
    object_path(c, 1, 4 * CT_CHUNK + 10, path);
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
        object_path(c, n, 70000, path);
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

/* ------------------------------------------------------------------ folders */

static void test_without_keep_nothing_is_left(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.keep = false;
    struct zc_cache *c = ct_open(&cfg);
    ct_put_all(c, 1, 3 * CT_CHUNK);
    assert_true(ct_count(*state) > 0);
    zc_cache_close(c);
    assert_int_equal(ct_count(*state), 0);
}

static void test_two_mounts_of_one_source(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c[9], *more;
    struct zc_error err = {0};
    for (unsigned i = 0; i < 9; i++) {
        c[i] = ct_open(&cfg);
        ct_put_all(c[i], i, 100);
        assert_int_equal(ct_stats(c[i]).objects, 1);
    }
    assert_int_equal(zc_cache_open(&cfg, &more, &err), -EBUSY);
    assert_non_null(strstr(err.text, "--cache-dir"));
    for (unsigned i = 0; i < 9; i++)
        zc_cache_close(c[i]);
    for (unsigned i = 0; i < 9; i++) { /* and each is found again */
        c[i] = ct_open(&cfg);
        assert_int_equal(ct_check(c[i], i, 100), 1);
    }
    for (unsigned i = 0; i < 9; i++)
        zc_cache_close(c[i]);
}

static void crash_with(const struct zc_cache_config *cfg, unsigned from, unsigned n, uint64_t size)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct zc_cache *c = ct_open(cfg);
        for (unsigned i = from; i < from + n; i++)
            ct_put_all(c, i, size);
        usleep(200000); /* the index's writer is done with it */
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

static void test_sweeps_what_crashes_left(void **state)
{
    struct zc_cache_config one = ct_config(*state), two = ct_config(*state),
                           kept = ct_config(*state);
    one.keep = two.keep = false;
    one.identity = "s3://one";
    two.identity = "s3://two";
    kept.identity = "s3://kept";
    crash_with(&one, 0, 10, 100);
    crash_with(&two, 0, 10, 100);
    crash_with(&kept, 0, 10, 100);
    struct zc_cache *c = ct_open(&one); /* its own, and the other that was not to be kept */
    assert_int_equal(ct_stats(c).objects, 0);
    zc_cache_close(c);
    assert_true(ct_count(*state) > 0);
    c = ct_open(&kept);
    assert_int_equal(ct_stats(c).objects, 10);
    kept.keep = false;
    zc_cache_close(c);
    c = ct_open(&kept); /* opened without keep: emptied */
    assert_int_equal(ct_stats(c).objects, 0);
    zc_cache_close(c);
    assert_int_equal(ct_count(*state), 0);
}

static void expect_words(const struct zc_cache_config *cfg, int code, const char *words)
{
    struct zc_cache *c = NULL;
    struct zc_error err = {0};
    assert_int_equal(zc_cache_open(cfg, &c, &err), code);
    assert_null(c);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_refusals(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400];
    cfg.chunk_size = 100000;
    expect_words(&cfg, -EINVAL, "power of two");
    cfg.chunk_size = 32 * ZC_KIB;
    expect_words(&cfg, -EINVAL, "64KiB");
    cfg.chunk_size = CT_CHUNK;
    snprintf(path, sizeof(path), "%s/file", (char *)*state);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    cfg.dir = path;
    expect_words(&cfg, -ENOTDIR, "--cache-dir");
    snprintf(path, sizeof(path), "%s/file/below", (char *)*state);
    expect_words(&cfg, -ENOTDIR, "--cache-dir");
    cfg.dir = "/dev/shm/zcache-test-refused";
    cfg.allow_tmpfs = false;
    expect_words(&cfg, -EINVAL, "--allow-tmpfs");
    rmdir(cfg.dir);
}

/* ------------------------------------------------------------------ after an unclean end */

/* Of a cache that is not open. */
static void damage(const char *dir, unsigned n, uint64_t size)
{
    char path[400], hex[ZC_DIGEST_HEX + 1];
    struct zc_cache_config cfg = ct_config(dir);
    zc_digest_hex(hex, ct_id(n, size).id);
    snprintf(path, sizeof(path), "%s/%016llx/objects/%.2s/%s", dir,
             (unsigned long long)zc_hash64(0, cfg.identity, strlen(cfg.identity)), hex, hex);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "?", 1, (off_t)size - 1), 1);
    close(fd);
}

static void test_checks_after_a_crash(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    uint64_t size = CT_CHUNK + 17;
    struct zc_cobj *o;
    crash_with(&cfg, 0, 20, size);
    damage(*state, 3, size);
    damage(*state, 4, size);
    struct zc_cache *c = ct_open(&cfg);
    assert_false(ct_stats(c).rebuilt);
    assert_int_equal(ct_check(c, 3, size), 0);
    assert_int_equal(ct_hold(c, 4, size, &o), 0); /* made anew */
    assert_false(zc_cobj_has_chunk(o, 0));
    zc_cobj_release(c, o);
    assert_int_equal(ct_check(c, 5, size), 1);
    assert_true(zc_cache_has(c, ct_id(5, size)));
    struct zc_cache_stats st = ct_stats(c);
    assert_int_equal(st.bad_chunks, 2);
    assert_int_equal(st.objects, 18);
    assert_int_equal(st.used, 18 * (CT_CHUNK + 4096));
    zc_cache_close(c);
}

/* So large that reading it back takes many seconds: it is held at once, whoever stops stops at
   once, and each chunk is checked before it is used. The bytes are zeros that take no room. */
static void test_a_large_one_is_checked_in_pieces(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    enum { CHUNKS = 1000 };
    struct zc_cobj *o;
    cfg.chunk_size = 64 * ZC_MIB;
    cfg.size = 1ULL << 40;
    cfg.free_ratio = 0;
    uint64_t size = CHUNKS * cfg.chunk_size;
    pid_t pid = fork();
    if (pid == 0) {
        struct zc_cache *c = ct_open(&cfg);
        uint8_t *zeros = calloc(1, cfg.chunk_size);
        struct zc_digest sum = zc_digest_of(CT_SEED, zeros, cfg.chunk_size);
        ct_hold(c, 1, size, &o);
        for (uint32_t i = 0; i < CHUNKS; i++)
            zc_cobj_commit(c, o, i, sum);
        while (zc_cobj_sum(c, o, CHUNKS - 1, &sum) !=
               1) /* until the index's writer is done with it */
            usleep(10000);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    struct zc_cache *c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).complete, 1);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o), 1);
    assert_true(zc_cobj_doubted(o));
    assert_true(ct_stats(c).checked_chunks < CHUNKS / 2);
    assert_int_equal(zc_cobj_check(c, o, 0), 1);
    struct zc_cloan loan;
    assert_false(zc_cobj_lend(c, o, 1, &loan));
    zc_cobj_release(c, o);
    assert_false(zc_cache_has(c, ct_id(1, size)));
    uint64_t before = ct_stats(c).checked_chunks;
    assert_true(before < CHUNKS / 2);
    zc_cache_close(c);
    c = ct_open(&cfg); /* not all was checked: it is doubted again */
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o), 1);
    assert_true(zc_cobj_doubted(o));
    zc_cobj_trust(c, o);
    zc_cobj_release(c, o);
    assert_true(zc_cache_has(c, ct_id(1, size)));
    zc_cache_close(c);
}

/* Nobody asks, and still all are checked, the partial ones too; then the cache is as good as any.
 */
static void test_checks_by_itself(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    uint64_t size = CT_CHUNK + 17;
    struct zc_cobj *o;
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 50; n < 53; n++) {
        ct_hold(c, n, 100 * CT_CHUNK, &o);
        ct_put(c, o, n, 70);
        zc_cobj_release(c, o);
    }
    zc_cache_close(c);
    crash_with(&cfg, 0, 20, size);
    damage(*state, 3, size);
    c = ct_open(&cfg);
    /* 20 objects of two chunks, three of one */
    for (int i = 0; i < 500 && ct_stats(c).checked_chunks < 43; i++)
        usleep(10000);
    usleep(50000);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(zc_cache_has(c, ct_id(n, size)), n != 3);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).objects, 22);
    assert_int_equal(ct_check(c, 5, size), 1);
    assert_int_equal(ct_hold(c, 51, 100 * CT_CHUNK, &o), 0);
    assert_true(zc_cobj_has_chunk(o, 70) && ct_good(o, 51, 70));
    zc_cobj_release(c, o);
    assert_int_equal(ct_stats(c).checked_chunks, 0);
    zc_cache_close(c);
}

static void test_strays_after_a_crash(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400], stray[400];
    crash_with(&cfg, 0, 5, 100);
    struct zc_cache *c = ct_open(&cfg);
    object_path(c, 77, 100, stray);
    object_path(c, 1, 100, path);
    zc_cache_close(c); /* with objects not yet checked: doubted again */
    close(open(stray, O_WRONLY | O_CREAT, 0600));
    unlink(path);
    crash_with(&cfg, 5, 1, 100);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).objects, 5);
    assert_int_equal(ct_stats(c).used, 5 * 4096);
    assert_int_equal(access(stray, F_OK), -1);
    zc_cache_close(c);
}

static void test_clean_remount_checks_nothing(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 0; n < 10; n++)
        ct_put_all(c, n, 100);
    zc_cache_close(c);
    c = ct_open(&cfg);
    for (unsigned n = 0; n < 10; n++) {
        assert_true(zc_cache_has(c, ct_id(n, 100)));
        assert_int_equal(ct_check(c, n, 100), 1);
    }
    assert_int_equal(ct_stats(c).checked_chunks, 0);
    zc_cache_close(c);
}

static void test_damaged_index_is_rebuilt(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400];
    struct zc_cache *c = ct_open(&cfg);
    ct_put_all(c, 1, 100);
    snprintf(path, sizeof(path), "%s/index.mdb", ct_stats(c).dir);
    zc_cache_close(c);
    assert_int_equal(truncate(path, 5000), 0);
    c = ct_open(&cfg);
    struct zc_cache_stats st = ct_stats(c);
    assert_true(st.rebuilt);
    assert_int_equal(st.objects, 0);
    object_path(c, 1, 100, path);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(ct_put_all(c, 1, 100), 0);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_false(ct_stats(c).rebuilt);
    assert_int_equal(ct_check(c, 1, 100), 1);
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

static int setup(void **state)
{
    *state = ct_mkdir();
    return 0;
}

static int teardown(void **state)
{
    ct_rmdir(*state);
    return 0;
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_from_empty_to_complete),
        T(test_complete_is_read_only),
        T(test_empty_object),
        T(test_partial_stays),
        T(test_nothing_written_leaves_nothing),
        T(test_uncommitted_bytes_are_given_back),
        T(test_drop_while_held),
        T(test_drop_then_commit),
        T(test_lost_file_is_a_miss),
        T(test_evicts_for_room),
        T(test_spare_go_first),
        T(test_spare_bound),
        T(test_census),
        T(test_everything_open_is_enospc),
        T(test_floor),
        T(test_floor_rises),
        T(test_smaller_size_at_remount),
        T(test_random_calls),
        T(test_without_keep_nothing_is_left),
        T(test_two_mounts_of_one_source),
        T(test_sweeps_what_crashes_left),
        T(test_refusals),
        T(test_checks_after_a_crash),
        T(test_a_large_one_is_checked_in_pieces),
        T(test_checks_by_itself),
        T(test_evicts_ahead),
        T(test_strays_after_a_crash),
        T(test_clean_remount_checks_nothing),
        T(test_damaged_index_is_rebuilt),
        T(test_disk_errors_bypass),
        T(test_full_disk_still_reads),
        T(test_many_threads),
    };
    zc_log_set_level(ZC_LOG_ERR); /* damage is met on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
