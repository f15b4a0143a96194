/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the ring promises, for 3 to 10,000 members with and without weights: each has its share, a
 * join and a leave move what they must and nothing else, and what a dead member owned falls to all
 * others alike. Random ids of a seed that is printed (ZC_SIM_SEED sets it).
 *
 * A slot falls to a member by chance, so that shares are binomial: bounds are those of chance, and
 * the sum of squares over all members (chi square) is what would show a bad hash. No stateless way
 * to place keys has less spread than that of the keys themselves.
 */
#include "base/digest.h"
#include "ring/ring.h"

#include "unit.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

#define TAIL 20 /* what is asserted is false by chance once in e^20 times, for each member */

/* Is a count of independent events, each as rare as it likes, too far from its mean? Bernstein. */
static bool far(double count, double mean, double clumps)
{
    double x = fabs(count - mean) / clumps, m = mean / clumps;
    return x > sqrt(2 * TAIL * m) + TAIL / 3.0 + 1;
}

static uint64_t seed;

struct world {
    unsigned n;
    bool weighted;
    unsigned keys; /* asked for; 0: all slots */
};

static const struct world worlds[] = {
    {3, false, 0},         {3, true, 0},         {8, false, 0},         {8, true, 0},
    {64, false, 0},        {64, true, 0},        {1000, false, 200000}, {1000, true, 200000},
    {10000, false, 40000}, {10000, true, 40000},
};

static uint64_t random_of(uint64_t a, uint64_t b)
{
    uint64_t both[2] = {a, b};
    return zc_hash64(seed, both, sizeof(both));
}

/* Members number `from` to `from + n - 1`. With weights: 1/4, 1/2, 1 and 2 times the middle one. */
static struct zc_ring_member *members(unsigned from, unsigned n, bool weighted)
{
    struct zc_ring_member *m = calloc(n, sizeof(*m));
    assert_non_null(m);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned j = 0; j < 2; j++)
            memcpy(m[i].id + 8 * j, &(uint64_t){random_of(from + i, j)}, 8);
        m[i].weight = weighted ? (uint8_t)(42 + 4 * ((from + i) % 4)) : 50;
    }
    return m;
}

static struct zc_ring *ring_of(const struct zc_ring_member *m, unsigned n)
{
    struct zc_ring *r = zc_ring_new(m, n);
    assert_non_null(r);
    return r;
}

static void test_shares(void **state)
{
    printf("%7s %9s %10s %10s %10s %10s\n", "members", "weights", "keys", "max/mean", "worst sd",
           "chi2/dof");
    for (size_t i = 0; i < ZC_ARRAY_SIZE(worlds); i++) {
        const struct world *w = &worlds[i];
        struct zc_ring_member *m = members(0, w->n, w->weighted);
        struct zc_ring *r = ring_of(m, w->n);
        uint32_t *got = calloc(w->n, sizeof(*got)), owner;
        assert_non_null(got);
        double total = w->keys ? w->keys : ZC_RING_SLOTS;
        if (w->keys == 0)
            zc_ring_count(r, got);
        for (unsigned k = 0; k < w->keys; k++) {
            assert_int_equal(zc_ring_rank(r, random_of(i, k), &owner, 1), 1);
            got[owner]++;
        }
        double sum = 0, most = 0, worst = 0, chi = 0;
        /* Keys that share a slot share its owner, which adds their part of all slots. */
        double clumps = 1 + (w->keys ? total / ZC_RING_SLOTS : 0);
        for (unsigned j = 0; j < w->n; j++) {
            double share = zc_ring_share(r, j), mean = share * total;
            double sd = sqrt(mean * (1 - share)), off = got[j] - mean;
            sum += share;
            most = fmax(most, got[j] / mean);
            worst = fmax(worst, fabs(off) / sd);
            chi += off * off / mean;
            assert_false(far(got[j], mean, clumps));
        }
        double dof = w->n - 1;
        printf("%7u %9s %10.0f %10.4f %10.2f %10.3f\n", w->n, w->weighted ? "1/4..2" : "equal",
               total, most, worst, chi / dof);
        assert_true(fabs(sum - 1) < 1e-9);
        /* Laurent and Massart's bounds of chi square. */
        assert_true(chi / clumps < dof + 2 * sqrt(dof * TAIL) + 2 * TAIL);
        assert_true(chi > dof - 2 * sqrt(dof * TAIL));
        zc_ring_unref(r);
        free(got);
        free(m);
    }
}

/* One more member: what moves, moves to it, is its share, and the one before is second. Read
   backwards, this is a leave. */
static void test_a_join_moves_its_share(void **state)
{
    printf("%7s %9s %12s %8s\n", "members", "weights", "moved/ideal", "stray");
    for (size_t i = 0; i < ZC_ARRAY_SIZE(worlds); i++) {
        const struct world *w = &worlds[i];
        struct zc_ring_member *m = members(0, w->n + 1, w->weighted);
        struct zc_ring *before = ring_of(m, w->n), *after = ring_of(m, w->n + 1);
        unsigned keys = w->n > 1000 ? 15000 : w->n > 64 ? 100000 : 500000;
        unsigned moved = 0, stray = 0;
        for (unsigned k = 0; k < keys; k++) {
            uint32_t was, now, two[2];
            uint64_t key = random_of(i, k);
            zc_ring_rank(before, key, &was, 1);
            zc_ring_rank(after, key, &now, 1);
            if (now == was)
                continue;
            stray += now != w->n;
            moved++;
            assert_int_equal(zc_ring_rank(after, key, two, 2), 2);
            assert_int_equal(two[0], now);
            assert_int_equal(two[1], was);
        }
        double share = zc_ring_share(after, w->n), mean = share * keys;
        printf("%7u %9s %12.4f %8u\n", w->n, w->weighted ? "1/4..2" : "equal", moved / mean, stray);
        assert_int_equal(stray, 0);
        assert_false(far(moved, mean, 1 + (double)keys / ZC_RING_SLOTS));
        zc_ring_unref(before);
        zc_ring_unref(after);
        free(m);
    }
}

/* What a dead member owned falls to the others by their weights, and to whom rank 2 says. */
static void test_failover(void **state)
{
    enum { N = 64, DEAD = 9, KEYS = 1000000 };
    for (int weighted = 0; weighted < 2; weighted++) {
        struct zc_ring_member *m = members(0, N, weighted);
        struct zc_ring *r = ring_of(m, N);
        m[DEAD].weight = 0;
        struct zc_ring *without = ring_of(m, N);
        unsigned heirs[N] = {0}, all = 0;
        for (unsigned k = 0; k < KEYS; k++) {
            uint32_t two[2], heir, first;
            uint64_t key = random_of(7, k);
            zc_ring_rank(r, key, &first, 1);
            if (first != DEAD)
                continue;
            assert_int_equal(zc_ring_rank(r, key, two, 2), 2);
            assert_int_equal(zc_ring_rank(without, key, &heir, 1), 1);
            assert_int_equal(two[1], heir);
            heirs[heir]++;
            all++;
        }
        double worst = 0, most = 0;
        for (unsigned i = 0; i < N; i++) {
            double mean = all * zc_ring_share(without, i);
            if (i == DEAD)
                continue;
            worst = fmax(worst, fabs(heirs[i] - mean) / sqrt(mean));
            assert_false(far(heirs[i], mean, 1 + (double)KEYS / ZC_RING_SLOTS));
            most = fmax(most, heirs[i] / mean);
        }
        printf("64 members, %s: the fullest heir has %.3f of its part, %.2f sd off at worst\n",
               weighted ? "1/4..2" : "equal", most, worst);
        assert_int_equal(heirs[DEAD], 0);
        zc_ring_unref(r);
        zc_ring_unref(without);
        free(m);
    }
}

/* A change of one weight moves keys to or from that member only, and as many as it must. */
static void test_a_weight_changes(void **state)
{
    enum { N = 20, WHO = 4, KEYS = 200000 };
    struct zc_ring_member *m = members(0, N, false);
    struct zc_ring *last = ring_of(m, N);
    static const uint8_t steps[] = {51, 54, 53, 40, 20, 1, 0, 38, 42, 44, 46, 47, 48, 49, 50};
    for (size_t s = 0; s < sizeof(steps); s++) {
        uint8_t was_weight = m[WHO].weight;
        m[WHO].weight = steps[s];
        struct zc_ring *next = ring_of(m, N);
        unsigned moved = 0;
        for (unsigned k = 0; k < KEYS; k++) {
            uint32_t was, now;
            uint64_t key = random_of(8, k);
            zc_ring_rank(last, key, &was, 1);
            zc_ring_rank(next, key, &now, 1);
            if (was == now)
                continue;
            assert_int_equal(steps[s] > was_weight ? now : was, WHO);
            moved++;
        }
        double mean = fabs(zc_ring_share(next, WHO) - zc_ring_share(last, WHO)) * KEYS;
        assert_false(far(moved, mean, 1 + (double)KEYS / ZC_RING_SLOTS));
        zc_ring_unref(last);
        last = next;
    }
    zc_ring_unref(last);
    free(m);
}

/* Members come and go in any way, and the map is that of who is there. */
static void test_no_history(void **state)
{
    enum { ALL = 40, KEYS = 5000 };
    struct zc_ring_member *m = members(0, ALL, true), now[ALL];
    bool there[ALL] = {false};
    unsigned n = 0;
    for (unsigned step = 0; step < 60; step++) {
        unsigned who = (unsigned)(random_of(9, step) % ALL);
        there[who] = !there[who];
        n = 0;
        for (unsigned i = 0; i < ALL; i++)
            if (there[(i + step) % ALL])
                now[n++] = m[(i + step) % ALL];
        struct zc_ring *r = ring_of(now, n), *full = ring_of(m, ALL);
        for (unsigned k = 0; n > 0 && k < KEYS / 60; k++) {
            uint32_t owner, ranks[ALL], i = 0;
            uint64_t key = random_of(step, k);
            assert_int_equal(zc_ring_rank(r, key, &owner, 1), 1);
            assert_int_equal(zc_ring_rank(full, key, ranks, ALL), ALL);
            while (!there[ranks[i]])
                i++;
            assert_memory_equal(now[owner].id, m[ranks[i]].id, ZC_RING_ID);
        }
        zc_ring_unref(r);
        zc_ring_unref(full);
    }
    free(m);
}

int main(void)
{
    const char *given = getenv("ZC_SIM_SEED");
    seed = given ? strtoull(given, NULL, 0) : (uint64_t)zc_wall_ns();
    printf("ZC_SIM_SEED=%llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),     cmocka_unit_test(test_a_join_moves_its_share),
        cmocka_unit_test(test_failover),   cmocka_unit_test(test_a_weight_changes),
        cmocka_unit_test(test_no_history),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
