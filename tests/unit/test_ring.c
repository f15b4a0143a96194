/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ring's constants are part of what nodes say to each other, so that the owners below may never
 * change. They come from another implementation, with exact logarithms.
 */
#include "ring/ring.h"
#include "base/digest.h"

#include "unit.h"
#include <pthread.h>
#include <string.h>

static struct zc_ring_member member(unsigned i, uint8_t weight)
{
    struct zc_ring_member m = {.weight = weight};
    for (unsigned j = 0; j < ZC_RING_ID; j++)
        m.id[j] = (uint8_t)(i * 7 + j * 13 + 1);
    return m;
}

static struct zc_ring *ring_of(unsigned n, const uint8_t *weights, unsigned kinds)
{
    struct zc_ring_member m[300];
    for (unsigned i = 0; i < n; i++)
        m[i] = member(i, weights[i % kinds]);
    struct zc_ring *r = zc_ring_new(m, n);
    assert_non_null(r);
    return r;
}

static const uint8_t equal[] = {50};
static const uint8_t mixed[] = {42, 46, 50, 54};

static uint64_t owners_hash(struct zc_ring *r)
{
    struct zc_hasher *h = zc_hasher_new(0);
    assert_non_null(h);
    for (uint64_t key = 0; key < 1000000; key++) {
        uint32_t owner;
        assert_int_equal(zc_ring_rank(r, key, &owner, 1), 1);
        zc_hasher_add(h, &(uint8_t){(uint8_t)owner}, 1);
    }
    uint64_t lo = zc_hasher_digest(h).lo;
    zc_hasher_free(h);
    return lo;
}

static void test_golden(void **state)
{
    static const uint8_t equal_want[12][4] = {
        {0, 1, 3, 7}, {1, 6, 4, 2}, {6, 5, 2, 4}, {2, 4, 5, 7}, {2, 5, 3, 6}, {7, 4, 2, 0},
        {3, 6, 5, 7}, {5, 7, 4, 0}, {3, 0, 1, 6}, {6, 5, 7, 4}, {0, 4, 1, 3}, {3, 7, 2, 0},
    };
    static const uint8_t mixed_want[12][4] = {
        {3, 7, 1, 0}, {6, 1, 2, 7}, {6, 5, 2, 7}, {7, 2, 3, 5}, {2, 3, 5, 7}, {7, 2, 6, 3},
        {3, 6, 7, 5}, {5, 7, 3, 4}, {3, 7, 6, 1}, {6, 5, 7, 3}, {3, 0, 1, 7}, {3, 7, 2, 6},
    };
    struct zc_ring *e = ring_of(8, equal, 1), *m = ring_of(8, mixed, 4);
    for (uint64_t key = 0; key < 12; key++) {
        uint32_t got[4];
        assert_int_equal(zc_ring_rank(e, key, got, 4), 4);
        for (int i = 0; i < 4; i++)
            assert_int_equal(got[i], equal_want[key][i]);
        assert_int_equal(zc_ring_rank(m, key, got, 4), 4);
        for (int i = 0; i < 4; i++)
            assert_int_equal(got[i], mixed_want[key][i]);
    }
    assert_int_equal(owners_hash(e), 0xc44dc19e4167ca93);
    assert_int_equal(owners_hash(m), 0x20c36f32b05edf19);
    assert_int_equal(zc_ring_digest(e), 0xc8ac032fdf2850b8);
    assert_int_equal(zc_ring_digest(m), 0x847d534907bc1848);
    zc_ring_unref(e);
    zc_ring_unref(m);
}

/* The memo, the scan for one and the scan for many say the same. */
static void test_first_is_first(void **state)
{
    struct zc_ring *r = ring_of(100, mixed, 4);
    for (uint64_t key = 0; key < 20000; key++) {
        uint32_t one, again, many[64];
        assert_int_equal(zc_ring_rank(r, key, &one, 1), 1);
        assert_int_equal(zc_ring_rank(r, key, many, 64), 64);
        assert_int_equal(zc_ring_rank(r, key, &again, 1), 1);
        assert_int_equal(one, many[0]);
        assert_int_equal(one, again);
        for (int i = 1; i < 64; i++)
            for (int j = 0; j < i; j++)
                assert_int_not_equal(many[i], many[j]);
    }
    zc_ring_unref(r);
}

/* Any order of the same members gives the same map, and without one of them the rest moves up. */
static void test_order_and_absence(void **state)
{
    enum { N = 24, GONE = 5 };
    struct zc_ring_member m[N], turned[N], less[N - 1];
    for (unsigned i = 0; i < N; i++) {
        m[i] = member(i, mixed[i % 4]);
        turned[(i * 7 + 3) % N] = m[i];
    }
    memcpy(less, m, GONE * sizeof(m[0]));
    memcpy(less + GONE, m + GONE + 1, (N - GONE - 1) * sizeof(m[0]));
    struct zc_ring *a = zc_ring_new(m, N), *b = zc_ring_new(turned, N);
    struct zc_ring *c = zc_ring_new(less, N - 1);
    assert_true(a && b && c);
    assert_int_equal(zc_ring_digest(a), zc_ring_digest(b));
    assert_int_not_equal(zc_ring_digest(a), zc_ring_digest(c));
    for (uint64_t key = 0; key < 20000; key++) {
        uint32_t x[N], y[N], z[N];
        assert_int_equal(zc_ring_rank(a, key, x, N), N);
        assert_int_equal(zc_ring_rank(b, key, y, N), N);
        assert_int_equal(zc_ring_rank(c, key, z, N), N - 1);
        for (int i = 0, j = 0; i < N; i++) {
            assert_int_equal((x[i] * 7 + 3) % N, y[i]);
            if (x[i] != GONE)
                assert_int_equal(x[i] - (x[i] > GONE), z[j++]);
        }
    }
    zc_ring_unref(a);
    zc_ring_unref(b);
    zc_ring_unref(c);
}

static void test_none_and_one(void **state)
{
    uint32_t got[3], slots[2];
    struct zc_ring *r = zc_ring_new(NULL, 0);
    assert_non_null(r);
    assert_int_equal(zc_ring_size(r), 0);
    assert_int_equal(zc_ring_rank(r, 1, got, 3), 0);
    assert_int_equal(zc_ring_rank(r, 1, got, 1), 0);
    zc_ring_unref(r);

    /* Weight 0 owns nothing, and does not change the digest. */
    struct zc_ring_member m[2] = {member(0, 0), member(1, 7)};
    r = zc_ring_new(m, 2);
    struct zc_ring *alone = zc_ring_new(m + 1, 1);
    assert_true(r && alone);
    assert_int_equal(zc_ring_size(r), 2);
    assert_int_equal(zc_ring_digest(r), zc_ring_digest(alone));
    for (uint64_t key = 0; key < 100; key++) {
        assert_int_equal(zc_ring_rank(r, key, got, 3), 1);
        assert_int_equal(got[0], 1);
        assert_int_equal(zc_ring_rank(r, key, got, 0), 0);
    }
    zc_ring_count(r, slots);
    assert_int_equal(slots[0], 0);
    assert_int_equal(slots[1], ZC_RING_SLOTS);
    assert_true(zc_ring_share(r, 0) == 0 && zc_ring_share(r, 1) == 1);
    zc_ring_unref(alone);
    zc_ring_unref(zc_ring_ref(r));
    zc_ring_unref(r);
    zc_ring_unref(NULL);
}

static void test_refused(void **state)
{
    struct zc_ring_member m[3] = {member(0, 1), member(1, 1), member(0, 2)};
    assert_null(zc_ring_new(m, 3));
    m[2] = member(2, ZC_RING_WEIGHT_MAX + 1);
    assert_null(zc_ring_new(m, 3));
    m[2].weight = ZC_RING_WEIGHT_MAX;
    struct zc_ring *r = zc_ring_new(m, 3);
    assert_non_null(r);
    uint32_t got[3]; /* 2^39.75 times the others' weight: the order of these two still counts */
    unsigned first[3] = {0};
    for (uint64_t key = 0; key < 1000; key++) {
        assert_int_equal(zc_ring_rank(r, key, got, 3), 3);
        assert_int_equal(got[0], 2);
        first[got[1]]++;
    }
    assert_in_range(first[0], 400, 600);
    assert_int_equal(first[0] + first[1], 1000);
    zc_ring_unref(r);
    assert_null(zc_ring_new(m, ZC_RING_MEMBERS_MAX + 1));
}

static void test_weights(void **state)
{
    assert_int_equal(zc_ring_weight(0), 0);
    assert_int_equal(zc_ring_weight(1), 1);
    assert_int_equal(zc_ring_weight(ZC_MIB), 1);
    assert_int_equal(zc_ring_weight(2 * ZC_MIB), 5);
    assert_int_equal(zc_ring_weight(ZC_GIB), 41);
    assert_int_equal(zc_ring_weight(1024 * ZC_GIB), 81);
    assert_int_equal(zc_ring_weight(UINT64_MAX), ZC_RING_WEIGHT_MAX);
    for (unsigned w = 1; w <= ZC_RING_WEIGHT_MAX; w++) {
        uint64_t bytes = zc_ring_weight_bytes((uint8_t)w);
        assert_int_equal(zc_ring_weight(bytes), w);
        assert_int_equal(zc_ring_weight((uint64_t)((double)bytes * 1.08)), w);
        assert_int_equal(zc_ring_weight((uint64_t)((double)bytes * 0.93)), w);
    }
    assert_int_equal(zc_ring_weight_bytes(0), 0);
    assert_int_equal(zc_ring_weight_bytes(41), ZC_GIB);
}

struct asker {
    struct zc_ring *ring;
    uint32_t owners[50000];
};

static void *ask(void *arg)
{
    struct asker *a = arg;
    for (uint64_t key = 0; key < ZC_ARRAY_SIZE(a->owners); key++)
        zc_ring_rank(a->ring, key, &a->owners[key], 1);
    return NULL;
}

static void test_threads(void **state)
{
    enum { THREADS = 4 };
    static struct asker askers[THREADS];
    pthread_t threads[THREADS];
    struct zc_ring *r = ring_of(50, equal, 1);
    for (int i = 0; i < THREADS; i++) {
        askers[i].ring = r;
        assert_int_equal(pthread_create(&threads[i], NULL, ask, &askers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        assert_memory_equal(askers[i].owners, askers[0].owners, sizeof(askers[0].owners));
    }
    zc_ring_unref(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),
        cmocka_unit_test(test_first_is_first),
        cmocka_unit_test(test_order_and_absence),
        cmocka_unit_test(test_none_and_one),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_weights),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
