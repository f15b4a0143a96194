/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The eviction policy: what it promises of epochs, changes, scans and popular objects, in a seeded
 * simulation; its bounds; and random operations against a simple model. The first test prints the
 * table in policy.c's head.
 */
#include "cache/policy.h"
#include "policysim.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#define N 5000           /* objects of average size that the cache holds */
#define OBJECTS (15 * N) /* two data sets: one from 0, the other from SECOND on */
#define SECOND (12 * N)
#define MEAN 105000
#define NONE UINT32_MAX

enum sizes { EQUAL, LOGNORMAL, SIZES };
enum order { CYCLIC, SHUFFLED, ORDERS };

static const char *const size_names[] = {"equal", "log-normal"};
static const char *const order_names[] = {"same order", "shuffled"};

struct world {
    uint64_t sizes[OBJECTS];
    uint32_t order[OBJECTS];
    uint64_t capacity;
    uint64_t random;
};

static struct world *world_new(enum sizes how, uint32_t residents)
{
    struct world *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    w->random = 42;
    double sum = 0;
    for (size_t i = 0; i < OBJECTS; i++) {
        w->sizes[i] = MEAN;
        if (how == LOGNORMAL)
            w->sizes[i] = (uint64_t)(exp(sim_gauss(&w->random)) * MEAN / exp(0.5)) + 100;
        sum += (double)w->sizes[i];
    }
    w->capacity = (uint64_t)(sum / OBJECTS * residents);
    return w;
}

/* Reads objects base ... base + n - 1, each once. Share of hits. */
static double pass(struct world *w, struct sim *s, uint32_t base, uint32_t n, enum order order)
{
    assert_true(base + n <= OBJECTS);
    uint32_t hits = 0;
    for (uint32_t i = 0; i < n; i++)
        w->order[i] = base + i;
    for (uint32_t i = n; order == SHUFFLED && i > 1; i--) {
        uint32_t j = (uint32_t)(sim_random(&w->random) % i), t = w->order[i - 1];
        w->order[i - 1] = w->order[j];
        w->order[j] = t;
    }
    for (uint32_t i = 0; i < n; i++)
        hits += sim_use(s, w->order[i]);
    return (double)hits / n;
}

/* ---- popular objects ---- */

struct zipf {
    uint32_t n;
    double *sum;
};

static struct zipf zipf_new(uint32_t n, double alpha)
{
    struct zipf z = {.n = n, .sum = malloc(n * sizeof(double))};
    assert_non_null(z.sum);
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        z.sum[i] = sum += pow(i + 1, -alpha);
    return z;
}

static uint32_t zipf_next(const struct zipf *z, uint64_t *random)
{
    double u = sim_uniform(random) * z->sum[z->n - 1];
    uint32_t lo = 0, hi = z->n - 1;
    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        if (z->sum[mid] < u)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

static double run_zipf(enum sim_kind kind, enum sizes how, double alpha, uint32_t residents)
{
    struct world *w = world_new(how, residents);
    struct sim *s = sim_new(kind, w->sizes, OBJECTS, w->capacity);
    struct zipf z = zipf_new(10 * N, alpha);
    uint32_t uses = z.n * 10, hits = 0;
    for (uint32_t i = 0; i < 2 * uses; i++)
        if (sim_use(s, zipf_next(&z, &w->random)) && i >= uses)
            hits++;
    free(z.sum);
    sim_free(s);
    free(w);
    return (double)hits / uses;
}

/* ---- the figures ---- */

/* Hits in the last of `passes` epochs of a data set of `times` the capacity. */
static double run_epochs(enum sim_kind kind, enum sizes how, enum order order, double times,
                         int passes)
{
    struct world *w = world_new(how, N);
    struct sim *s = sim_new(kind, w->sizes, OBJECTS, w->capacity);
    double hits = 0;
    for (int i = 0; i < passes; i++)
        hits = pass(w, s, 0, (uint32_t)(times * N), order);
    sim_free(s);
    free(w);
    return hits;
}

/* Five epochs of one data set, then another: hits in its 3rd and 4th pass, as a share of what is
 * reachable. */
static void run_change(enum sim_kind kind, enum sizes how, enum order order, double old,
                       double fresh, double *third, double *fourth)
{
    struct world *w = world_new(how, N);
    struct sim *s = sim_new(kind, w->sizes, OBJECTS, w->capacity);
    double best = fresh > 1 ? 1 / fresh : 1, hits[5];
    for (int i = 0; i < 5; i++)
        pass(w, s, 0, (uint32_t)(old * N), order);
    for (int i = 1; i < 5; i++)
        hits[i] = pass(w, s, SECOND, (uint32_t)(fresh * N), order);
    *third = hits[3] / best;
    *fourth = hits[4] / best;
    sim_free(s);
    free(w);
}

/* Hits of a working set right after everything else was read once. */
static double run_scan(enum sim_kind kind, enum sizes how, enum order order, double set,
                       double scan)
{
    struct world *w = world_new(how, N);
    struct sim *s = sim_new(kind, w->sizes, OBJECTS, w->capacity);
    for (int i = 0; i < 4; i++)
        pass(w, s, 0, (uint32_t)(set * N), order);
    pass(w, s, SECOND, (uint32_t)(scan * N), CYCLIC);
    double hits = pass(w, s, 0, (uint32_t)(set * N), order);
    sim_free(s);
    free(w);
    return hits;
}

static void test_table(void **state)
{
    double v[8][SIM_KINDS], fourth;
    static const char *const rows[8] = {
        "epochs, data set 2 x capacity, shuffled",    "the same order each time",
        "epochs, data set 10 x capacity, shuffled",   "3rd pass of a new data set 0.5 x after 2 x",
        "3rd pass of a new data set 2 x after 0.9 x", "working set 0.9 x, after a scan of 3 x",
        "Zipf 0.8, cache holds 10 % of the objects",  "Zipf 1.0, cache holds 10 % of the objects"};
    for (enum sim_kind k = 0; k < SIM_KINDS; k++) {
        v[0][k] = run_epochs(k, EQUAL, SHUFFLED, 2, 5);
        v[1][k] = run_epochs(k, EQUAL, CYCLIC, 2, 5);
        v[2][k] = run_epochs(k, EQUAL, SHUFFLED, 10, 5);
        run_change(k, EQUAL, SHUFFLED, 2, 0.5, &v[3][k], &fourth);
        run_change(k, EQUAL, SHUFFLED, 0.9, 2, &v[4][k], &fourth);
        v[4][k] /= 2; /* share of accesses, as in the other rows */
        v[5][k] = run_scan(k, EQUAL, SHUFFLED, 0.9, 3);
        v[6][k] = run_zipf(k, EQUAL, 0.8, N);
        v[7][k] = run_zipf(k, EQUAL, 1.0, N);
    }
    print_message("%-44s", "");
    for (enum sim_kind k = 0; k < SIM_KINDS; k++)
        print_message("%-10s", sim_names[k]);
    print_message("\n");
    for (size_t r = 0; r < ZC_ARRAY_SIZE(rows); r++) {
        print_message("%-44s", rows[r]);
        for (enum sim_kind k = 0; k < SIM_KINDS; k++)
            print_message("%-10.3f", v[r][k]);
        print_message("\n");
    }
}

/* cmocka's assertions show no numbers with a point. */
static void at_least(double value, double least, const char *fmt, ...) ZC_PRINTF(3, 4);
static void at_least(double value, double least, const char *fmt, ...)
{
    if (value >= least)
        return;
    va_list ap;
    va_start(ap, fmt);
    char what[200];
    vsnprintf(what, sizeof(what), fmt, ap);
    va_end(ap);
    fail_msg("%s: %.4f, wanted %.4f", what, value, least);
}

static void test_epochs_hit_on_their_share(void **state)
{
    for (enum sizes how = 0; how < SIZES; how++)
        for (enum order o = 0; o < ORDERS; o++)
            for (int passes = 3; passes <= 8; passes++) {
                at_least(run_epochs(SIM_ZCACHE, how, o, 2, passes), 0.47, "2 x, %s, %s, epoch %d",
                         size_names[how], order_names[o], passes);
                if (passes <= 5)
                    at_least(run_epochs(SIM_ZCACHE, how, o, 10, passes), 0.095,
                             "10 x, %s, %s, epoch %d", size_names[how], order_names[o], passes);
            }
}

static void test_new_workload_takes_over(void **state)
{
    static const double olds[] = {0.9, 2, 10}, news[] = {0.05, 0.1, 0.3, 0.5, 0.9, 2};
    for (enum sizes how = 0; how < SIZES; how++)
        for (enum order o = 0; o < ORDERS; o++)
            for (size_t i = 0; i < ZC_ARRAY_SIZE(olds); i++)
                for (size_t j = 0; j < ZC_ARRAY_SIZE(news); j++) {
                    double third, fourth;
                    run_change(SIM_ZCACHE, how, o, olds[i], news[j], &third, &fourth);
                    at_least(third, 0.9, "%g x -> %g x, %s, %s, 3rd pass", olds[i], news[j],
                             size_names[how], order_names[o]);
                    at_least(fourth, 0.97, "%g x -> %g x, %s, %s, 4th pass", olds[i], news[j],
                             size_names[how], order_names[o]);
                }
}

static void test_scan_flushes_nothing(void **state)
{
    for (enum sizes how = 0; how < SIZES; how++)
        for (enum order o = 0; o < ORDERS; o++) {
            at_least(run_scan(SIM_ZCACHE, how, o, 0.3, 3), 0.95, "set 0.3 x");
            at_least(run_scan(SIM_ZCACHE, how, o, 0.9, 3), 0.95, "set 0.9 x");
            at_least(run_scan(SIM_ZCACHE, how, o, 2, 3), 0.47, "epochs of 2 x");
        }
}

/* Another data set is read again and again beside a working set that stays in use: that one stays.
 */
static void test_set_in_use_survives_repeated_scans(void **state)
{
    struct world *w = world_new(EQUAL, N);
    struct sim *s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    uint32_t set = N / 2, scan = 3 * N, uses = 0, hits = 0;
    for (int i = 0; i < 3; i++)
        pass(w, s, 0, set, SHUFFLED);
    for (uint32_t i = 0; i < 5 * scan; i++) {
        sim_use(s, SECOND + i % scan);
        hits += sim_use(s, (uint32_t)(sim_random(&w->random) % set));
        uses++;
    }
    at_least((double)hits / uses, 0.97, "working set");
    sim_free(s);
    free(w);
}

/* A few uses of very old files must not pass for the gaps that are usual, and keep a dead data set
 * alive. */
static void test_strays_do_not_count(void **state)
{
    struct world *w = world_new(EQUAL, N);
    struct sim *s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    for (int i = 0; i < 4; i++)
        pass(w, s, 0, 10 * N, SHUFFLED);
    uint32_t hits = 0, set = N / 10 * 9;
    for (int p = 0; p < 3; p++) {
        hits = 0;
        for (uint32_t i = 0; i < set; i++) {
            hits += sim_use(s, SECOND + i);
            if (i % 500 == 0)
                sim_use(s, (uint32_t)(sim_random(&w->random) % (10 * N)));
        }
    }
    at_least((double)hits / set, 0.9, "third pass");
    sim_free(s);
    free(w);
}

static void test_popular_objects_stay(void **state)
{
    static const double alphas[] = {0.6, 0.8, 1.0, 1.2};
    for (enum sizes how = 0; how < SIZES; how++)
        for (size_t i = 0; i < ZC_ARRAY_SIZE(alphas); i++) {
            double ours = run_zipf(SIM_ZCACHE, how, alphas[i], N);
            double lru = run_zipf(SIM_LRU, how, alphas[i], N);
            double tiny = run_zipf(SIM_WTINYLFU, how, alphas[i], N);
            at_least(ours, lru, "LRU, Zipf %g, %s", alphas[i], size_names[how]);
            at_least(ours, tiny * 0.97, "W-TinyLFU, Zipf %g, %s", alphas[i], size_names[how]);
        }
}

/* Two readers of one data set, one behind the other: what the first one brings is soon used again.
 */
static void test_two_readers(void **state)
{
    struct world *w = world_new(EQUAL, N);
    struct sim *s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    uint32_t n = 2 * N, hits = 0, uses = 0;
    for (uint32_t i = 0; i < 8 * n; i++) {
        bool a = sim_use(s, i % n), b = sim_use(s, (i + n - N / 3) % n);
        if (i >= 4 * n) {
            hits += a + b;
            uses += 2;
        }
    }
    at_least((double)hits / uses, 0.47, "two readers");
    sim_free(s);
    free(w);
}

/* The disk's free-space floor comes before the configured size; and room is made ahead of need. */
static void test_capacity_is_what_is_met(void **state)
{
    struct world *w = world_new(EQUAL, N);
    struct sim *s = sim_new_told(w->sizes, OBJECTS, w->capacity, 4);
    double hits = 0;
    for (int i = 0; i < 4; i++)
        hits = pass(w, s, 0, 2 * N, SHUFFLED);
    at_least(hits, 0.47, "told four times as much");
    sim_free(s);
    s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    sim_evict_ahead(s, w->capacity / 50);
    for (int i = 0; i < 4; i++)
        hits = pass(w, s, 0, 2 * N, SHUFFLED);
    at_least(hits, 0.46, "2 %% evicted ahead");
    sim_free(s);
    free(w);
}

/* Files of 10 MiB and of 4 GiB in one data set of twice the capacity. */
static void test_sizes_far_apart(void **state)
{
    struct world *w = world_new(EQUAL, N);
    uint64_t total = 0;
    for (uint32_t i = 0; i < 8000; i++) {
        w->sizes[i] = i % 500 == 0 ? 4 * ZC_GIB : 105 * ZC_MIB / 10;
        total += w->sizes[i];
    }
    w->capacity = total / 2;
    struct sim *s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    double hits = 0;
    for (int i = 0; i < 6; i++)
        hits = pass(w, s, 0, 8000, SHUFFLED);
    at_least(hits, 0.45, "sizes far apart");
    sim_free(s);
    free(w);
}

/* More keys than the history holds: a sample decides. */
static void test_many_objects(void **state)
{
    uint32_t n = 600000;
    uint64_t *sizes = malloc(3 * (size_t)n * sizeof(*sizes)), random = 7;
    uint32_t *order = malloc(2 * (size_t)n * sizeof(*order)), hits = 0;
    assert_true(sizes && order);
    for (uint32_t i = 0; i < 3 * n; i++)
        sizes[i] = MEAN;
    struct sim *s = sim_new(SIM_ZCACHE, sizes, 3 * n, (uint64_t)n * MEAN);
    for (int p = 0; p < 6; p++) {
        uint32_t base = p < 3 ? 0 : 2 * n, m = p < 3 ? 2 * n : n * 9 / 10;
        for (uint32_t i = 0; i < m; i++)
            order[i] = base + i;
        for (uint32_t i = m; i > 1; i--) {
            uint32_t j = (uint32_t)(sim_random(&random) % i), t = order[i - 1];
            order[i - 1] = order[j];
            order[j] = t;
        }
        hits = 0;
        for (uint32_t i = 0; i < m; i++)
            hits += sim_use(s, order[i]);
        if (p == 2)
            at_least((double)hits / m, 0.47, "epochs");
    }
    at_least((double)hits / (n * 9 / 10), 0.9, "third pass of the next data set");
    sim_free(s);
    free(sizes);
    free(order);
}

/* A data set so large that the history ends before its pass does replaces one that nobody reads any
 * more. */
static void test_no_state_is_for_ever(void **state)
{
    uint32_t held = 100;
    struct world *w = world_new(EQUAL, held);
    struct sim *s = sim_new(SIM_ZCACHE, w->sizes, OBJECTS, w->capacity);
    for (int i = 0; i < 5; i++)
        pass(w, s, SECOND, held, SHUFFLED);
    double hits = 0;
    for (int i = 0; i < 6; i++)
        hits = pass(w, s, 0, SECOND, CYCLIC);
    at_least(hits, 0.5 * held / SECOND, "600 x");
    sim_free(s);
    free(w);
}

/* ---- bounds and the model ---- */

#define MODEL_SLOTS 4000

struct model {
    struct zc_policy *policy;
    uint8_t state[MODEL_SLOTS]; /* 0 free, 1 resident */
    uint8_t held[MODEL_SLOTS];
    uint64_t bytes[MODEL_SLOTS];
    uint64_t asked;
    uint32_t n, n_held;
};

static bool model_may_evict(void *user, uint32_t slot)
{
    struct model *m = user;
    m->asked++;
    assert_true(slot < MODEL_SLOTS);
    assert_int_equal(m->state[slot], 1);
    return !m->held[slot];
}

static void model_remove(struct model *m, uint32_t slot)
{
    zc_policy_remove(m->policy, slot);
    m->state[slot] = 0;
    m->n--;
    m->n_held -= m->held[slot];
    m->held[slot] = 0;
}

/* All that is left comes out, each once. */
static void model_drain(struct model *m)
{
    memset(m->held, 0, sizeof(m->held));
    m->n_held = 0;
    while (m->n > 0) {
        uint32_t v = zc_policy_victim(m->policy, model_may_evict, m);
        assert_true(v < MODEL_SLOTS);
        assert_int_equal(m->state[v], 1);
        model_remove(m, v);
    }
    assert_int_equal(zc_policy_victim(m->policy, model_may_evict, m), NONE);
}

static void test_random_operations(void **state)
{
    struct model *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t random = seed;
        uint64_t capacity = sim_random(&random) % (3000 * (uint64_t)MEAN);
        memset(m, 0, sizeof(*m));
        assert_int_equal(zc_policy_new(capacity, &m->policy), 0);
        uint32_t slots = seed % 3 ? MODEL_SLOTS : 7;
        for (int i = 0; i < 60000; i++) {
            uint32_t slot = (uint32_t)(sim_random(&random) % slots);
            uint64_t bytes = sim_random(&random) >> (20 + sim_random(&random) % 44);
            unsigned op = sim_random(&random) % 100;
            if (op < 40) {
                if (m->state[slot])
                    continue;
                uint64_t key = sim_random(&random) % (slots * 4);
                assert_int_equal(zc_policy_add(m->policy, slot, key, op < 20 ? 0 : bytes), 0);
                m->state[slot] = 1;
                m->n++;
                if (op < 38)
                    zc_policy_touch(m->policy, slot);
            } else if (op < 60) {
                if (m->state[slot])
                    zc_policy_touch(m->policy, slot);
            } else if (op < 70) {
                if (m->state[slot] && op < 66)
                    zc_policy_resize(m->policy, slot, bytes);
                else if (m->state[slot])
                    zc_policy_set_copy(m->policy, slot, op < 68);
                assert_int_equal(zc_policy_knows(m->policy, slot), m->state[slot]);
            } else if (op < 75) {
                if (m->state[slot])
                    model_remove(m, slot);
            } else if (op < 85) {
                if (m->state[slot]) {
                    m->n_held += m->held[slot] ? -1 : 1;
                    m->held[slot] ^= 1;
                }
            } else if (op < 99) {
                uint64_t before = m->asked;
                uint32_t v = zc_policy_victim(m->policy, model_may_evict, m);
                assert_true(m->asked - before < 10000);
                assert_int_equal(v == NONE, m->n_held == m->n);
                if (v != NONE) {
                    assert_true(v < slots);
                    assert_int_equal(m->state[v], 1);
                    assert_int_equal(m->held[v], 0);
                    if (op < 98)
                        model_remove(m, v);
                }
            } else if (sim_random(&random) % 50 == 0) {
                capacity = sim_random(&random) % (3000 * (uint64_t)MEAN);
                zc_policy_set_capacity(m->policy, capacity);
            }
        }
        model_drain(m);
        zc_policy_free(m->policy);
    }
    free(m);
}

/* As many as fit, all of them open. */
static struct model *model_all_open(void)
{
    struct model *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    assert_int_equal(zc_policy_new((uint64_t)MODEL_SLOTS * MEAN, &m->policy), 0);
    for (uint32_t i = 0; i < MODEL_SLOTS; i++) {
        assert_int_equal(zc_policy_add(m->policy, i, i, MEAN), 0);
        m->state[i] = m->held[i] = 1;
        m->n++;
    }
    return m;
}

/* Open files are asked about again and again only within bounds. */
static void test_refusals_cost_little(void **state)
{
    struct model *m = model_all_open();
    for (int i = 0; i < 100; i++)
        assert_int_equal(zc_policy_victim(m->policy, model_may_evict, m), NONE);
    assert_true(m->asked <= (uint64_t)100 * 2 * (MODEL_SLOTS + 1024));
    /* The oldest 3,000 stay open; 900 younger ones go. */
    for (uint32_t i = 3000; i < MODEL_SLOTS; i++)
        m->held[i] = 0;
    m->asked = 0;
    unsigned found = 0, calls = 0;
    for (; found < 900 && calls < 2000; calls++) {
        uint32_t v = zc_policy_victim(m->policy, model_may_evict, m);
        if (v == NONE)
            continue;
        assert_true(v >= 3000);
        model_remove(m, v);
        found++;
    }
    assert_int_equal(found, 900);
    assert_true(calls <= 910);
    assert_true(m->asked <= 20000);
    m->n_held = 3000;
    model_drain(m);
    zc_policy_free(m->policy);
    free(m);
}

/* However many are open: the only one that may go is found by one call, wherever it is. */
static void test_last_one_is_found(void **state)
{
    struct model *m = model_all_open();
    for (uint32_t i = 0; i < MODEL_SLOTS; i += 97) {
        uint32_t one = i * 17 % MODEL_SLOTS; /* 1,649 further on each time */
        m->held[one] = 0;
        assert_int_equal(zc_policy_victim(m->policy, model_may_evict, m), one);
        m->held[one] = 1;
    }
    model_drain(m);
    zc_policy_free(m->policy);
    free(m);
}

static void test_few_and_empty(void **state)
{
    struct model m = {0};
    assert_int_equal(zc_policy_new(0, &m.policy), 0);
    assert_int_equal(zc_policy_victim(m.policy, model_may_evict, &m), NONE);
    assert_int_equal(zc_policy_add(m.policy, 3999, 1, 0), 0);
    m.state[3999] = 1;
    m.n = 1;
    zc_policy_touch(m.policy, 3999);
    zc_policy_resize(m.policy, 3999, (uint64_t)1 << 45);
    assert_int_equal(zc_policy_victim(m.policy, model_may_evict, &m), 3999);
    zc_policy_resize(m.policy, 3999, 0);
    model_drain(&m);
    zc_policy_free(m.policy);
    zc_policy_free(NULL);
}

/* Copies go before all that is not one, and what stops being one is as safe as the others. */
static void test_copies_go_first(void **state)
{
    enum { ALL = 300 };
    struct model *m = calloc(1, sizeof(*m));
    assert_non_null(m);
    assert_int_equal(zc_policy_new((uint64_t)ALL * MEAN, &m->policy), 0);
    for (uint32_t i = 0; i < ALL; i++) {
        assert_int_equal(zc_policy_add(m->policy, i, i, MEAN), 0);
        zc_policy_touch(m->policy, i);
        m->state[i] = 1;
        m->n++;
        if (i % 3 == 0)
            zc_policy_set_copy(m->policy, i, true);
    }
    for (uint32_t i = 0; i < ALL; i += 6) /* those that remain: 3, 9, 15 ... */
        zc_policy_set_copy(m->policy, i, false);
    assert_int_equal(zc_policy_copy_bytes(m->policy), 50 * (uint64_t)MEAN);
    m->held[3] = 1;
    m->n_held = 1;
    for (int i = 0; i < 49; i++) {
        uint32_t v = zc_policy_victim(m->policy, model_may_evict, m);
        assert_int_equal(v % 6, 3);
        model_remove(m, v);
    }
    assert_int_equal(zc_policy_copy_victim(m->policy, model_may_evict, m), NONE);
    for (int i = 0; i < ALL - 50; i++) {
        uint32_t v = zc_policy_victim(m->policy, model_may_evict, m);
        assert_true(v < ALL && v != 3);
        model_remove(m, v);
    }
    assert_int_equal(zc_policy_victim(m->policy, model_may_evict, m), NONE);
    model_drain(m);
    zc_policy_free(m->policy);
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_epochs_hit_on_their_share),
        cmocka_unit_test(test_new_workload_takes_over),
        cmocka_unit_test(test_scan_flushes_nothing),
        cmocka_unit_test(test_set_in_use_survives_repeated_scans),
        cmocka_unit_test(test_strays_do_not_count),
        cmocka_unit_test(test_popular_objects_stay),
        cmocka_unit_test(test_two_readers),
        cmocka_unit_test(test_capacity_is_what_is_met),
        cmocka_unit_test(test_sizes_far_apart),
        cmocka_unit_test(test_many_objects),
        cmocka_unit_test(test_no_state_is_for_ever),
        cmocka_unit_test(test_random_operations),
        cmocka_unit_test(test_copies_go_first),
        cmocka_unit_test(test_refusals_cost_little),
        cmocka_unit_test(test_last_one_is_found),
        cmocka_unit_test(test_few_and_empty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
