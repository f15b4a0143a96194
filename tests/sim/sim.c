/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim [--nodes N] [--seed S] [--long] [SCENARIO...]: membership of N nodes (default 1,000; --long:
 * 10,000) on a virtual clock. Prints what it measured, and the seed; fails when a figure is worse
 * than what the papers promise:
 *
 * SWIM (Das, Gupta and Motivala 2002). Section 3.1: a dead node is first probed after e/(e-1)
 * = 1.58 intervals on average. Section 4.1: a message reaches all within a number of gossip rounds
 * that grows with log N (each round more than doubles those that know it, the last ones wait a
 * little longer). Section 4.2: suspicion comes before death, and any node that lives can refute it.
 * Section 3: what a node sends does not grow with N.
 * Lifeguard (Dadgar, Phillips and Currey 2017): a suspicion that is confirmed lasts min = mult *
 * log10 N * interval, one that is not up to 6 times as long; nodes that are slow themselves do not
 * make healthy ones look dead.
 *
 * What none of them tells is how the parts of a split cluster meet again; see partition().
 *
 * All scenarios but the first ones change the network for a while and expect that all agree in the
 * end. All but the start begin with nodes that know each other, so that they can be run by name, in
 * processes of their own. 10,000 nodes take 6 GB. A failing seed runs again in just the same way.
 */
#include "simnet.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

struct run {
    struct sim *sim;
    uint32_t n;
    uint64_t seed;
    int failures;
    /* what the watch counts */
    uint32_t target;
    uint64_t joined, updated, gone, suspected, events;
    uint64_t false_dead; /* nodes that are up were declared dead */
    uint64_t false_healthy;
    int64_t first_suspect, first_gone, last;
    uint64_t hash; /* of all events, in order */
};

static void watch(void *arg, struct sim_node *at, const struct zc_swim_event *e, uint32_t about,
                  bool this_life)
{
    struct run *r = arg;
    int64_t now = sim_now(r->sim);
    r->events++;
    r->hash =
        (r->hash ^ (uint64_t)now ^ (uint64_t)e->kind << 56 ^ (uint64_t)at->index << 24 ^ about) *
        0x100000001b3u;
    if (e->kind == ZC_SWIM_GONE && e->who.state == ZC_SWIM_DEAD && this_life) {
        r->false_dead++;
        /* Neither who is said to be dead nor who says it is slow itself. */
        if (!at->slow && !sim_node(r->sim, about)->slow)
            r->false_healthy++;
    }
    r->suspected += e->kind == ZC_SWIM_SUSPECTED;
    if (about != r->target)
        return;
    if (e->kind == ZC_SWIM_JOINED)
        r->joined++;
    else if (e->kind == ZC_SWIM_UPDATED)
        r->updated++;
    else if (e->kind == ZC_SWIM_GONE)
        r->gone++;
    else if (e->kind != ZC_SWIM_SUSPECTED)
        return;
    if (e->kind == ZC_SWIM_SUSPECTED && r->first_suspect < 0)
        r->first_suspect = now;
    if (e->kind == ZC_SWIM_GONE && r->first_gone < 0)
        r->first_gone = now;
    if (e->kind != ZC_SWIM_SUSPECTED)
        r->last = now;
}

static void aim(struct run *r, uint32_t target)
{
    r->target = target;
    r->joined = r->updated = r->gone = r->suspected = 0;
    r->false_dead = r->false_healthy = 0;
    r->first_suspect = r->first_gone = r->last = -1;
}

static double seconds(int64_t ns)
{
    return (double)ns / (double)SIM_S;
}

static void check(struct run *r, const char *what, double value, double most)
{
    bool ok = value >= 0 && value <= most;
    printf("  %-4s %-52s %10.3f  (at most %.3f)\n", ok ? "ok" : "FAIL", what, value, most);
    r->failures += !ok;
}

/* ---- the papers' figures ---- */

static double interval(const struct run *r)
{
    return seconds(sim_settings(r->sim)->swim.probe_interval);
}

/* Rounds until a message has reached all: log2 N, with slack for those that come last. */
static double spread(const struct run *r)
{
    return (log2(r->n) + 6) * seconds(sim_settings(r->sim)->swim.gossip_interval);
}

static double notice(const struct run *r)
{
    return M_E / (M_E - 1) * interval(r) + interval(r); /* until probed, and the probe itself */
}

static double suspicion(const struct run *r)
{
    return sim_settings(r->sim)->swim.suspicion_mult * fmax(1, log10(r->n)) * interval(r);
}

/* That gossip misses one node: SWIM's epidemic, e^-T after T transmissions by each. */
static double chance(const struct run *r)
{
    const struct zc_swim_config *c = &sim_settings(r->sim)->swim;
    return exp(-fmax(c->retransmit_mult * ceil(log10(r->n + 1.0)), c->retransmit_min));
}

/* Until a node has told each of its neighbours of `names` names: 150 bytes each, 15 packets a
   second, twice for what is sent in vain. */
static double queue(double names)
{
    return 2 * names * 150 / (15 * 1300.0);
}

/* ---- helpers ---- */

static void seeds_for(struct run *r, uint32_t i, uint32_t out[3])
{
    for (int k = 0; k < 3; k++)
        do
            out[k] = sim_below(r->sim, r->n);
        while (out[k] == i || !sim_node(r->sim, out[k])->core);
}

static void start(struct run *r, uint32_t i)
{
    uint32_t seeds[3];
    seeds_for(r, i, seeds);
    sim_start(r->sim, i, seeds, 3);
}

static uint32_t victim(struct run *r)
{
    uint32_t i;
    do
        i = sim_below(r->sim, r->n);
    while (!sim_node(r->sim, i)->core);
    return i;
}

static double agree(struct run *r, double most)
{
    int64_t t = sim_until(r->sim, sim_agreed, NULL, 100 * SIM_MS, (int64_t)(most * SIM_S));
    return t < 0 ? -1 : seconds(t);
}

struct nearly {
    uint64_t wrong;
};

static bool is_near(struct sim *sim, void *arg)
{
    uint64_t wrong = ((struct nearly *)arg)->wrong;
    return sim_wrong_at_least(sim) <= wrong && sim_wrong_views(sim) <= wrong;
}

/* But for what gossip misses of `names` names. */
static double nearly_agree(struct run *r, double most, double names)
{
    struct nearly n = {(uint64_t)ceil(10 * chance(r) * r->n * names)};
    int64_t t = sim_until(r->sim, is_near, &n, 100 * SIM_MS, (int64_t)(most * SIM_S));
    return t < 0 ? -1 : seconds(t);
}

/* ---- scenarios ---- */

/* All at once, each knowing the same three. */
static void mass_start(struct run *r)
{
    static const uint32_t first[3] = {0, 1, 2};
    for (uint32_t i = 0; i < r->n; i++)
        sim_start(r->sim, i, first, 3);
    check(r, "mass start: all see all, s", agree(r, 600), 3 + queue(r->n));
    sim_run(r->sim, 60 * SIM_S);
}

static void detection(struct run *r)
{
    unsigned rounds = r->n > 2000 ? 3 : 12;
    double noticed = 0, dead = 0, known = 0, worst = 0, came = 0, left = 0, missed = 0;
    for (unsigned i = 0; i < rounds; i++) {
        uint32_t x = victim(r);
        aim(r, x);
        int64_t t = sim_now(r->sim);
        sim_kill(r->sim, x);
        while (r->gone < r->n - 1 && sim_now(r->sim) - t < 60 * SIM_S)
            sim_run(r->sim, 20 * SIM_MS);
        noticed += seconds(r->first_suspect - t) / rounds;
        dead += seconds(r->first_gone - t) / rounds;
        known += seconds(r->last - t) / rounds;
        worst = fmax(worst, seconds(r->last - t));
        if (r->gone != r->n - 1)
            worst = -1;
        sim_run(r->sim, 5 * SIM_S);
        aim(r, x);
        t = sim_now(r->sim);
        start(r, x);
        sim_run(r->sim, 10 * SIM_S);
        came += seconds(r->last - t) / rounds;
        missed += (double)(r->n - 1) - (double)r->joined;
        aim(r, x);
        t = sim_now(r->sim);
        sim_leave(r->sim, x);
        sim_run(r->sim, 10 * SIM_S);
        left += seconds(r->last - t) / rounds;
        missed += (double)(r->n - 1) - (double)r->gone;
        sim_kill(r->sim, x);
        start(r, x);
        sim_run(r->sim, 10 * SIM_S);
    }
    /* The mean of `rounds` exponential times may be off by so much. */
    double slack = 2.0 * interval(r) * 1.58 / sqrt(rounds);
    printf("  kill: first suspicion %.2f s, first death %.2f s, all know %.2f s (means of %u)\n",
           noticed, dead, known, rounds);
    check(r, "kill: first suspicion, mean, s", noticed, notice(r) + slack);
    check(r, "kill: all know, mean, s", known, notice(r) + suspicion(r) + spread(r) + slack);
    /* Somebody may have missed that others suspect it. */
    check(r, "kill: all know, worst, s", worst,
          notice(r) + 4 * interval(r) + suspicion(r) * 6 + spread(r));
    check(r, "join: all know, mean, s", came, spread(r));
    check(r, "leave: all know, mean, s", left, spread(r));
    check(r, "joins and leaves that somebody missed", missed, 2 + 10 * chance(r) * r->n * rounds);
    check(r, "views that are wrong", (double)sim_wrong_views(r->sim), 2 + 10 * chance(r) * r->n);
}

static struct run *run_new(uint32_t n, uint64_t seed)
{
    struct run *r = calloc(1, sizeof(*r));
    struct sim_config c;
    sim_defaults(&c, n, seed);
    r->n = n;
    r->seed = seed;
    r->sim = sim_new(&c);
    sim_set_watch(r->sim, watch, r);
    aim(r, UINT32_MAX);
    return r;
}

static int run_free(struct run *r)
{
    int failures = r->failures;
    sim_free(r->sim);
    free(r);
    return failures;
}

/* Bytes a second and node at rest. Exchanges of all state come at random times: of 1.5 a second of
   all nodes together there are 900, give or take 30. */
static double rest(struct run *r, double *udp)
{
    struct sim_totals t;
    double length = 600;
    sim_run(r->sim, 30 * SIM_S);
    sim_take_totals(r->sim, &t);
    sim_run(r->sim, (int64_t)length * SIM_S);
    sim_take_totals(r->sim, &t);
    *udp = (double)t.udp_bytes / length / r->n;
    return *udp + (double)t.tcp_bytes / length / r->n;
}

/* What a node sends does not grow with the number of nodes. */
static void load(struct run *r)
{
    double udp, udp_few = 0, all = rest(r, &udp), few = 0;
    for (uint32_t n = r->n / 10; n <= r->n / 3; n *= 3) {
        double u;
        struct run *small = run_new(ZC_MAX(50u, n), r->seed + n);
        sim_start_all(small->sim);
        double b = rest(small, &u);
        printf("  at rest, bytes/s and node: %5u nodes %4.0f (UDP %.0f)\n", small->n, b, u);
        if (few == 0) {
            few = b;
            udp_few = u;
        }
        r->failures += run_free(small);
    }
    printf("  at rest, bytes/s and node: %5u nodes %4.0f (UDP %.0f)\n", r->n, all, udp);
    check(r, "UDP bytes/s and node, of a tenth of the nodes'", udp / udp_few, 1.1);
    check(r, "all bytes/s and node, of a tenth of the nodes'", all / few, 1.25);
}

/*
 * A third of the nodes cannot reach the others for a while. They meet again when one tries a seed
 * on the other side: each of that third has one (of three, by chance) and does so once in
 * rejoin_interval; that nobody did is less likely than e^-10 after 30 / N of it. Then all have to
 * be told of all, the dead first that they are, and then the others that they are not. While a node
 * knows few it gossips little: one name in 3,000 does not get to where it should (e^-8). That is
 * repaired by the exchanges once no more many changes come.
 */
static void partition(struct run *r, double length, const char *name)
{
    char what[64];
    aim(r, UINT32_MAX);
    for (uint32_t i = 0; i < r->n; i++)
        sim_node(r->sim, i)->group = i % 3 == 0;
    sim_run(r->sim, (int64_t)(length * SIM_S));
    uint32_t out = (r->n + 2) / 3;
    uint64_t apart = 2 * (uint64_t)out * (r->n - out);
    snprintf(what, sizeof(what), "%s: views across that are left", name);
    /* Each half believes that the other one is dead, and vice versa. */
    check(r, what, fabs((double)apart - (double)r->false_dead), 2 + 10 * chance(r) * (double)apart);
    for (uint32_t i = 0; i < r->n; i++)
        sim_node(r->sim, i)->group = 0;
    snprintf(what, sizeof(what), "%s: one again, s", name);
    double rejoin = seconds(sim_settings(r->sim)->swim.rejoin_interval);
    check(r, what, agree(r, 300),
          rejoin * fmin(1.5, 30.0 / r->n) + 3 + 3 * (queue(r->n) + 2 * spread(r)));
    sim_run(r->sim, 60 * SIM_S);
}

static void partitions(struct run *r)
{
    struct run *few = r;
    if (r->n > 500) { /* most of the processor time */
        few = run_new(300, r->seed + 3);
        sim_start_all(few->sim);
    }
    partition(few, 25 + suspicion(few) * 6, "partition, remembered");
    if (few != r)
        r->failures += run_free(few);
    partition(r, 150, "partition, forgotten");
}

/* A tenth dies and comes back under new names; then one after the other does. */
static void restarts(struct run *r)
{
    uint32_t tenth = ZC_MAX(1u, r->n / 10);
    for (uint32_t i = 0; i < tenth; i++)
        sim_kill(r->sim, i * 10 % r->n);
    sim_run(r->sim, SIM_S);
    for (uint32_t i = 0; i < tenth; i++)
        start(r, i * 10 % r->n);
    check(r, "a tenth restarts at once: all agree, s", nearly_agree(r, 300, tenth),
          notice(r) + 12 * interval(r) + suspicion(r) * 2 + spread(r) + 10 + r->n / 100.0);
    for (uint32_t i = 0; i < ZC_MIN(tenth, 30u); i++) {
        uint32_t x = victim(r);
        sim_kill(r->sim, x);
        sim_run(r->sim, 200 * SIM_MS);
        start(r, x);
        sim_run(r->sim, 200 * SIM_MS);
    }
    check(r, "rolling restart: all agree, s", nearly_agree(r, 300, tenth),
          notice(r) + 12 * interval(r) + suspicion(r) * 2 + spread(r) + 10);
}

/* Much delay, out of order, doubled, some lost; nobody is declared dead, the dead are. */
static void rough(struct run *r)
{
    struct sim_config *c = sim_settings(r->sim), was = *c;
    c->delay_min = SIM_MS;
    c->delay_max = 40 * SIM_MS;
    c->tail = 0.01;
    c->duplicate = 0.02;
    c->loss = 0.02;
    aim(r, UINT32_MAX);
    sim_run(r->sim, 120 * SIM_S);
    check(r, "rough network, 120 s: false deaths", (double)r->false_dead, 0);
    uint32_t x = victim(r);
    sim_kill(r->sim, x);
    check(r, "rough network, a kill: all agree, s", nearly_agree(r, 120, 1),
          notice(r) + 4 * interval(r) + suspicion(r) * 2 + spread(r) + 2);
    start(r, x);
    check(r, "rough network, a join: all agree, s", nearly_agree(r, 120, 1), spread(r) + 4);
    *c = was;
    sim_run(r->sim, 60 * SIM_S);
}

/* Lifeguard: one in twenty processes stands still for up to two seconds again and again. */
static void slow(struct run *r)
{
    uint32_t few = ZC_MAX(1u, r->n / 20);
    aim(r, UINT32_MAX);
    for (uint32_t i = 0; i < few; i++)
        sim_node(r->sim, i)->slow = true;
    for (int t = 0; t < 40; t++) {
        for (uint32_t i = 0; i < few; i++)
            sim_node(r->sim, i)->deaf = sim_below(r->sim, 2) == 0;
        sim_run(r->sim, SIM_S);
    }
    printf("  slow members, 40 s: %llu suspicions, slow ones declared dead %llu times\n",
           (unsigned long long)r->suspected,
           (unsigned long long)(r->false_dead - r->false_healthy));
    check(r, "slow members: healthy ones declared dead by such", (double)r->false_healthy, 0);
    for (uint32_t i = 0; i < few; i++) {
        sim_node(r->sim, i)->deaf = false;
        sim_node(r->sim, i)->slow = false;
    }
    /* What is suspected at the end, or found silent by one whose health multiplies its interval by
       up to awareness_max, may be suspected for as long as nobody confirms it. Who is dead to one
       node that slept through the refutation is asked again after dead_time. */
    const struct zc_swim_config *c = &sim_settings(r->sim)->swim;
    check(r, "slow members, awake: all agree, s", agree(r, 200),
          fmax(suspicion(r) * 6 + c->awareness_max * interval(r), seconds(c->dead_time) * 1.25) +
              2 * spread(r));
    sim_run(r->sim, 10 * SIM_S);
}

/* One stands still until it is forgotten. It believes that nothing has happened. */
static void standstill(struct run *r)
{
    uint32_t x = victim(r);
    const struct zc_swim_config *c = &sim_settings(r->sim)->swim;
    aim(r, x);
    sim_node(r->sim, x)->deaf = true;
    sim_run(r->sim, c->dead_time * 2 + (int64_t)(suspicion(r) * 6) * SIM_S);
    check(r, "standstill: others that still see it", (double)(r->n - 1) - (double)r->gone, 0);
    sim_node(r->sim, x)->deaf = false;
    check(r, "standstill, awake: all agree, s", agree(r, 200), 1 + 2 * spread(r));
    sim_run(r->sim, 10 * SIM_S);
}

/* Packets of joins, deaths, leaves and former lives come again: nothing happens. */
static void replay(struct run *r)
{
    sim_record(r->sim, 300000);
    for (int i = 0; i < 10; i++) {
        uint32_t x = victim(r);
        if (i & 1)
            sim_leave(r->sim, x);
        sim_run(r->sim, (i & 1 ? 3 : 0) * SIM_S);
        sim_kill(r->sim, x);
        sim_run(r->sim, (i & 2 ? 10 : 1) * SIM_S);
        start(r, x);
        sim_run(r->sim, 2 * SIM_S);
    }
    agree(r, 100);
    sim_run(r->sim, 40 * SIM_S);
    r->events = 0;
    size_t done = 0;
    for (int i = 0; i < 60; i++) {
        done += sim_replay(r->sim, 2000);
        sim_run(r->sim, SIM_S / 2);
    }
    printf("  %zu packets replayed\n", done);
    check(r, "replay: events at any node", (double)r->events, 0);
    check(r, "replay: views that are wrong", (double)sim_wrong_views(r->sim), 0);
    sim_record(r->sim, 0);
}

/* Nodes whose own incarnation is another one than what somebody knows of them. */
static unsigned behind(struct run *r)
{
    unsigned n = 0;
    for (uint32_t j = 0; j < r->n; j++) {
        struct zc_swim_view self, v;
        zc_swim_self(sim_node(r->sim, j)->core, &self);
        for (uint32_t i = 0; i < r->n; i++)
            if (zc_swim_find(sim_node(r->sim, i)->core, self.node->name, &v) == 0 ||
                v.incarnation != self.incarnation) {
                n++;
                break;
            }
    }
    return n;
}

/* One that has the key lies: says of others that they left, are dead, with any incarnation. */
static void lies(struct run *r)
{
    static const uint32_t jumps[] = {
        0, 1, 1000, 1u << 20, (1u << 20) + 9, INT32_MAX, UINT32_MAX - 5};
    zc_autobuf struct zc_buf b = {0};
    aim(r, UINT32_MAX);
    for (int i = 0; i < 500; i++) {
        uint32_t x = victim(r), at = victim(r), liar = victim(r);
        struct zc_swim_view v, lie;
        zc_swim_self(sim_node(r->sim, x)->core, &v);
        zc_swim_self(sim_node(r->sim, liar)->core, &lie);
        struct zc_wire_accuse a = {
            .node = {(const uint8_t *)v.node->name, v.node->name_len},
            .from = {(const uint8_t *)v.node->name, v.node->name_len},
            .incarnation = v.incarnation + jumps[i % ZC_ARRAY_SIZE(jumps)],
        };
        if (i & 1)
            a.from = (struct zc_bytes){(const uint8_t *)lie.node->name, lie.node->name_len};
        zc_buf_reset(&b);
        zc_wire_write_dead(&b, &a);
        struct zc_swim_addr from = lie.node->addr;
        zc_swim_packet(sim_node(r->sim, at)->core, sim_now(r->sim), &from, (uint8_t *)b.p, b.len);
        sim_nudge(r->sim, at);
        sim_run(r->sim, 100 * SIM_MS);
    }
    check(r, "lies: deaths believed", (double)r->false_dead, 0);
    /* What is said of a node is put to it, and it refutes: a rumour there, one back. One that had
       to take another name is missed under the old one as if it had died. */
    check(r, "lies: all agree, s", agree(r, 100),
          notice(r) + 2 * interval(r) + suspicion(r) * 6 + 2 * spread(r));
    sim_run(r->sim, 10 * SIM_S);
    /* What gossip missed by chance may be among it. */
    check(r, "lies: nodes of which others know an old incarnation", (double)behind(r), r->n / 50.0);
}

/* An hour in which one packet in twenty is lost, and TCP does not help. */
static void hour(struct run *r)
{
    uint32_t n = ZC_MIN(r->n, r->n > 2000 ? 1000u : 300u);
    struct run *h = run_new(n, r->seed + 2);
    sim_start_all(h->sim);
    sim_settings(h->sim)->loss = 0.05;
    sim_settings(h->sim)->no_tcp_ping = true;
    aim(h, UINT32_MAX);
    sim_run(h->sim, 3600 * SIM_S);
    printf("  an hour at 5 %% loss, %u nodes: %llu suspicions raised\n", n,
           (unsigned long long)h->suspected);
    check(h, "an hour at 5 % loss: false deaths", (double)h->false_dead, 0);
    sim_settings(h->sim)->loss = 0;
    check(h, "after it: all agree, s", agree(h, 60), 30);
    r->failures += run_free(h);
}

/* The same seed, the same events. */
static void again(struct run *r)
{
    uint64_t hash[2];
    for (int i = 0; i < 2; i++) {
        struct run *a = run_new(30, r->seed);
        mass_start(a);
        sim_settings(a->sim)->loss = 0.1;
        sim_run(a->sim, 100 * SIM_S);
        hash[i] = a->hash;
        r->failures += run_free(a);
    }
    check(r, "the same seed gives the same events", hash[0] != hash[1], 0);
}

static const struct {
    const char *name;
    void (*fn)(struct run *r);
    bool huge; /* also with more than 2,000 nodes, unless named */
} scenarios[] = {
    {"start", mass_start, true},
    {"detection", detection, true},
    {"load", load, true},
    {"rough", rough, true},
    {"slow", slow, true},
    {"standstill", standstill, true},
    {"partitions", partitions, true},
    {"restarts", restarts, true},
    {"replay", replay, true},
    {"lies", lies, true},
    {"hour", hour, true},
    {"again", again, true},
};

static bool wanted(const char *name, int argc, char **argv, bool huge, bool any)
{
    for (int i = 1; i < argc; i++)
        if (strcmp(argv[i], name) == 0)
            return true;
    return !any && huge;
}

int main(int argc, char **argv)
{
    uint32_t n = 1000;
    uint64_t seed = 20261123;
    bool any = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--nodes") == 0 && i + 1 < argc)
            n = (uint32_t)strtoul(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--long") == 0)
            n = 10000;
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else
            any = true;
    }
    if (n < 10 || n > 65000) {
        fprintf(stderr, "--nodes: 10 to 65000\n");
        return 2;
    }
    printf("%u nodes, seed %llu\n", n, (unsigned long long)seed);
    struct run *r = NULL;
    int failures = 0;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(scenarios); i++) {
        if (!wanted(scenarios[i].name, argc, argv, n <= 2000 || scenarios[i].huge, any))
            continue;
        clock_t began = clock();
        if (!r)
            r = run_new(n, seed);
        if (i > 0 && sim_now(r->sim) == SIM_S)
            sim_start_all(r->sim);
        int64_t from = sim_now(r->sim);
        scenarios[i].fn(r);
        printf("%s: %.0f s in %.1f s of processor time\n", scenarios[i].name,
               seconds(sim_now(r->sim) - from), (double)(clock() - began) / CLOCKS_PER_SEC);
        fflush(stdout);
        if (i == 0) { /* the others begin with nodes that know each other */
            failures += run_free(r);
            r = NULL;
        }
    }
    failures += r ? run_free(r) : 0;
    printf("%d figures out of bounds (seed %llu)\n", failures, (unsigned long long)seed);
    return failures > 0;
}
