/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The membership core, step by step: one core, a clock that the test turns, and members that are
 * only names, which answer pings when the test lets them.
 */
#include "unit.h"

#include "member/swim.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#define MS ZC_NS_PER_MS
#define S ZC_NS_PER_S
#define PEERS 8
#define JUMP (1u << 20)

static const uint8_t vsn[] = {1, 5, 2, 0, 0, 0};

struct bench {
    struct zc_swim *core;
    struct zc_swim_config config;
    int64_t now;
    uint64_t seed;
    bool answers[PEERS];   /* to pings, at once */
    bool nacks;            /* those asked to ping for us say that they got no answer */
    bool refutes[PEERS];   /* says that it lives, one above what it hears */
    unsigned pings[PEERS]; /* that it got */
    int64_t last_ping[PEERS];
    unsigned said[256];        /* messages sent, by type */
    uint32_t said_incarnation; /* in the last alive about itself */
    unsigned said_others;      /* alive about others */
    unsigned events[16];       /* by kind */
    int64_t gone_at;
    struct zc_buf later; /* answers: length, peer, packet; given after the step */
    unsigned streams, open[64];
};

static struct zc_swim_addr addr_of(unsigned i)
{
    return (struct zc_swim_addr){.ip = {10, 0, 0, (uint8_t)(i + 1)}, .len = 4, .port = 7946};
}

/* Names as zcache's nodes have them. */
static const char *name_of(unsigned i)
{
    static const char *const names[PEERS] = {
        "n0-000000000000", "n1-000000000001", "n2-000000000002", "n3-000000000003",
        "n4-000000000004", "n5-000000000005", "n6-000000000006", "n7-000000000007",
    };
    return names[i];
}

static struct zc_bytes text(const char *s)
{
    return (struct zc_bytes){(const uint8_t *)s, strlen(s)};
}

static const char *self_name(const struct bench *b)
{
    struct zc_swim_view v;
    zc_swim_self(b->core, &v);
    return v.node->name;
}

static uint32_t self_incarnation(const struct bench *b)
{
    struct zc_swim_view v;
    zc_swim_self(b->core, &v);
    return v.incarnation;
}

/* ---- what the core does ---- */

static uint64_t op_random(void *arg)
{
    struct bench *b = arg;
    uint64_t z = b->seed += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return (z ^ z >> 27) * 0x94d049bb133111ebu;
}

static void put_later(struct bench *b, unsigned peer, const struct zc_buf *p)
{
    uint16_t head[2] = {(uint16_t)p->len, (uint16_t)peer};
    zc_buf_add(&b->later, head, sizeof(head));
    zc_buf_add(&b->later, p->p, p->len);
}

static void heard(struct bench *b, unsigned peer, const uint8_t *p, size_t n)
{
    zc_autobuf struct zc_buf out = {.max = 4096};
    struct zc_wire_ping ping;
    struct zc_wire_indirect ind;
    struct zc_wire_accuse acc;
    struct zc_wire_alive alive;
    b->said[p[0]]++;
    switch (p[0]) {
    case ZC_WIRE_COMPOUND: {
        size_t at = 0;
        struct zc_bytes part;
        while (zc_wire_next_part(p + 1, n - 1, &at, &part))
            heard(b, peer, part.p, part.len);
        break;
    }
    case ZC_WIRE_PING:
        assert_int_equal(zc_wire_read_ping(p + 1, n - 1, &ping), 0);
        b->pings[peer]++;
        b->last_ping[peer] = b->now;
        if (b->answers[peer]) {
            zc_wire_write_ack(&out, &(struct zc_wire_ack){.seq = ping.seq});
            put_later(b, peer, &out);
        }
        break;
    case ZC_WIRE_INDIRECT:
        assert_int_equal(zc_wire_read_indirect(p + 1, n - 1, &ind), 0);
        if (b->nacks) {
            zc_wire_write_nack(&out, &(struct zc_wire_nack){.seq = ind.seq});
            put_later(b, peer, &out);
        }
        break;
    case ZC_WIRE_DEAD:
    case ZC_WIRE_SUSPECT:
        assert_int_equal(zc_wire_read_accuse(p + 1, n - 1, &acc), 0);
        if (b->refutes[peer] && acc.node.len == strlen(name_of(peer)) &&
            memcmp(acc.node.p, name_of(peer), acc.node.len) == 0) {
            struct zc_swim_addr a = addr_of(peer);
            zc_wire_write_alive(&out, &(struct zc_wire_alive){.node = acc.node,
                                                              .addr = {a.ip, 4},
                                                              .port = a.port,
                                                              .meta = text("zc\x01"),
                                                              .vsn = {vsn, sizeof(vsn)},
                                                              .incarnation = acc.incarnation + 1});
            put_later(b, peer, &out);
        }
        break;
    case ZC_WIRE_ALIVE:
        assert_int_equal(zc_wire_read_alive(p + 1, n - 1, &alive), 0);
        if (alive.node.len == strlen(self_name(b)) &&
            memcmp(alive.node.p, self_name(b), alive.node.len) == 0)
            b->said_incarnation = alive.incarnation;
        else
            b->said_others++;
        break;
    default:
        break;
    }
}

static void op_packet(void *arg, const struct zc_swim_addr *to, const uint8_t *p, size_t n,
                      bool crc)
{
    (void)crc;
    assert_true(n <= ZC_WIRE_PACKET_MAX);
    assert_in_range(to->ip[3], 1, PEERS);
    heard(arg, to->ip[3] - 1u, p, n);
}

static void op_stream(void *arg, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
                      size_t n, int64_t deadline)
{
    struct bench *b = arg;
    (void)to;
    (void)p;
    (void)n;
    assert_true(deadline > b->now);
    assert_true(b->streams < ZC_ARRAY_SIZE(b->open));
    b->open[b->streams++] = id;
}

static void op_event(void *arg, const struct zc_swim_event *e)
{
    struct bench *b = arg;
    b->events[e->kind]++;
    if (e->kind == ZC_SWIM_GONE)
        b->gone_at = b->now;
}

/* ---- turning the clock ---- */

static void give(struct bench *b, unsigned from, const void *p, size_t n)
{
    struct zc_swim_addr a = addr_of(from);
    zc_swim_packet(b->core, b->now, &a, p, n);
}

/* What was answered arrives; streams lead nowhere. */
static void settle(struct bench *b)
{
    while (b->later.len > 0 || b->streams > 0) {
        zc_autobuf struct zc_buf now = b->later;
        b->later = (struct zc_buf){.max = ZC_MIB};
        unsigned ids[64], n = b->streams;
        memcpy(ids, b->open, sizeof(ids));
        b->streams = 0;
        for (size_t at = 0; at < now.len;) {
            uint16_t head[2];
            memcpy(head, now.p + at, sizeof(head));
            give(b, head[1], now.p + at + sizeof(head), head[0]);
            at += sizeof(head) + head[0];
        }
        for (unsigned i = 0; i < n; i++)
            zc_swim_stream_failed(b->core, b->now, ids[i]);
    }
}

static void pass(struct bench *b, int64_t ns)
{
    int64_t end = b->now + ns;
    settle(b);
    for (int64_t at; (at = zc_swim_next(b->core)) <= end;) {
        b->now = ZC_MAX(b->now, at);
        zc_swim_tick(b->core, b->now);
        settle(b);
    }
    b->now = end;
}

static void bench_new(struct bench *b, bool lan)
{
    static const struct zc_swim_ops ops = {op_random, op_packet, op_stream, op_event};
    memset(b, 0, sizeof(*b));
    b->later.max = ZC_MIB;
    b->now = 1000 * S;
    b->seed = 7;
    if (lan)
        zc_swim_defaults_lan(&b->config);
    else
        zc_swim_defaults(&b->config);
    b->config.name = "me";
    b->config.addr = addr_of(0);
    b->config.meta = (const uint8_t *)"zc\x01";
    b->config.meta_len = 3;
    b->core = zc_swim_new(&b->config, &ops, b, b->now);
    assert_non_null(b->core);
}

static void bench_free(struct bench *b)
{
    zc_swim_free(b->core);
    zc_buf_free(&b->later);
}

/* ---- what members say ---- */

static void say_alive_as(struct bench *b, const char *name, unsigned at, uint32_t incarnation,
                         const char *meta)
{
    zc_autobuf struct zc_buf p = {.max = 4096};
    struct zc_swim_addr a = addr_of(at);
    zc_wire_write_alive(&p, &(struct zc_wire_alive){.node = text(name),
                                                    .addr = {a.ip, 4},
                                                    .port = a.port,
                                                    .meta = text(meta),
                                                    .vsn = {vsn, sizeof(vsn)},
                                                    .incarnation = incarnation});
    give(b, 7, p.p, p.len);
    settle(b);
}

static void say_alive(struct bench *b, unsigned who, uint32_t incarnation)
{
    say_alive_as(b, name_of(who), who, incarnation, "zc\x01");
}

static void say(struct bench *b, bool dead, const char *who, uint32_t incarnation, const char *from)
{
    zc_autobuf struct zc_buf p = {.max = 4096};
    struct zc_wire_accuse a = {text(who), text(from), incarnation};
    if (dead)
        zc_wire_write_dead(&p, &a);
    else
        zc_wire_write_suspect(&p, &a);
    give(b, 7, p.p, p.len);
    settle(b);
}

static int state_of(const struct bench *b, unsigned who)
{
    struct zc_swim_view v;
    return zc_swim_find(b->core, name_of(who), &v) ? (int)v.state : -1;
}

static uint32_t incarnation_of(const struct bench *b, unsigned who)
{
    struct zc_swim_view v;
    return zc_swim_find(b->core, name_of(who), &v) ? v.incarnation : 0;
}

/* Members 1 to n are there and answer. */
static void meet(struct bench *b, unsigned n)
{
    for (unsigned i = 1; i <= n; i++) {
        b->answers[i] = true;
        say_alive(b, i, 1);
        assert_int_equal(state_of(b, i), ZC_SWIM_ALIVE);
    }
    pass(b, 10 * S);
    memset(b->events, 0, sizeof(b->events));
    memset(b->pings, 0, sizeof(b->pings));
    memset(b->said, 0, sizeof(b->said));
}

/* ---- the tests ---- */

/* A name counts when its node has answered; until then nobody sees it. */
static void test_newcomers(void **state)
{
    (void)state;
    struct bench b;
    bench_new(&b, false);
    say_alive(&b, 1, 1);
    assert_int_equal(state_of(&b, 1), -1);
    pass(&b, 5 * S);
    assert_int_equal(b.pings[1], 4);
    struct zc_swim_stats st;
    zc_swim_stats(b.core, &st);
    assert_int_equal(st.pending, 0);
    assert_int_equal(b.events[ZC_SWIM_JOINED], 0);

    b.answers[1] = true;
    say_alive(&b, 1, 1);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(b.events[ZC_SWIM_JOINED], 1);

    b.answers[2] = true;
    say_alive(&b, 2, 0);
    say_alive(&b, 2, 1u << 31);
    say_alive(&b, 2, UINT32_MAX);
    assert_int_equal(state_of(&b, 2), -1);
    assert_int_equal(b.pings[2], 0);
    say_alive(&b, 2, (1u << 31) - 1); /* it will take another name when it hears of that */
    assert_int_equal(state_of(&b, 2), ZC_SWIM_ALIVE);
    bench_free(&b);
}

/* An ack of another question, or of another time, is none. */
static void test_acks_fit(void **state)
{
    (void)state;
    struct bench b;
    zc_autobuf struct zc_buf p = {.max = 4096};
    bench_new(&b, false);
    say_alive(&b, 1, 1);
    for (uint32_t seq = 0; seq < 1000; seq++) {
        zc_buf_reset(&p);
        zc_wire_write_ack(&p, &(struct zc_wire_ack){.seq = seq});
        give(&b, 1, p.p, p.len);
    }
    assert_int_equal(state_of(&b, 1), -1);
    bench_free(&b);
}

static void test_incarnations(void **state)
{
    (void)state;
    struct bench b;
    struct zc_swim_stats st;
    bench_new(&b, false);
    meet(&b, 3);
    say_alive_as(&b, name_of(1), 1, 1, "zc\x01other");
    assert_int_equal(b.events[ZC_SWIM_UPDATED], 0);
    say_alive_as(&b, name_of(1), 1, 5, "zc\x01other");
    assert_int_equal(b.events[ZC_SWIM_UPDATED], 1);
    assert_int_equal(incarnation_of(&b, 1), 5);
    say_alive_as(&b, name_of(1), 1, 4, "zc\x01old");
    say(&b, false, name_of(1), 4, name_of(2));
    say(&b, true, name_of(1), 4, name_of(2));
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(b.events[ZC_SWIM_UPDATED], 1);
    assert_int_equal(b.pings[1], 0); /* none of that was worth a question */

    /* The highest accusation that counts can be refuted; nothing above it counts. */
    say(&b, false, name_of(1), 5 + JUMP + 1, name_of(2));
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    say(&b, false, name_of(1), 5 + JUMP, name_of(2));
    assert_int_equal(state_of(&b, 1), ZC_SWIM_SUSPECT);
    say_alive(&b, 1, 5 + JUMP + 1);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(incarnation_of(&b, 1), 5 + JUMP + 1);
    assert_int_equal(b.pings[1], 0);
    /* What was missed in between is asked for. */
    say_alive(&b, 1, 5 + 4 * JUMP);
    assert_int_equal(b.pings[1], 1);
    assert_int_equal(incarnation_of(&b, 1), 5 + 4 * JUMP);
    b.answers[1] = false;
    say_alive(&b, 1, 5 + 8 * JUMP);
    assert_int_equal(b.pings[1], 2);
    assert_int_equal(incarnation_of(&b, 1), 5 + 4 * JUMP);
    zc_swim_stats(b.core, &st);
    uint64_t clamped = st.clamped;
    say_alive(&b, 2, 1u << 31);
    say(&b, true, name_of(2), UINT32_MAX, name_of(3));
    zc_swim_stats(b.core, &st);
    assert_int_equal(st.clamped, clamped + 2);
    assert_int_equal(incarnation_of(&b, 2), 1);
    bench_free(&b);
}

/* Who has a name keeps it while it lives. */
static void test_name_conflict(void **state)
{
    (void)state;
    struct bench b;
    struct zc_swim_view v;
    bench_new(&b, false);
    meet(&b, 2);
    say_alive_as(&b, name_of(1), 5, 9, "zc\x01");
    assert_int_equal(b.events[ZC_SWIM_CONFLICT], 1);
    assert_int_equal(zc_swim_find(b.core, name_of(1), &v), 1);
    assert_int_equal(v.node->addr.ip[3], 2);
    assert_int_equal(v.incarnation, 1);
    /* Under one's own name, too: it is contradicted. */
    say_alive_as(&b, self_name(&b), 5, self_incarnation(&b), "zc\x01");
    pass(&b, S);
    assert_int_equal(self_incarnation(&b), 2);
    assert_int_equal(b.said_incarnation, 2);
    bench_free(&b);
}

static void test_refutation(void **state)
{
    (void)state;
    struct bench b;
    struct zc_swim_stats st;
    bench_new(&b, false);
    meet(&b, 3);
    for (unsigned i = 0; i < 4; i++) {
        uint32_t was = self_incarnation(&b);
        say(&b, i & 1, self_name(&b), was + i, i & 2 ? self_name(&b) : name_of(1));
        assert_int_equal(self_incarnation(&b), was + i + 1);
        zc_swim_stats(b.core, &st);
        assert_int_equal(st.health, i + 1); /* it may be slow, if others say so */
        assert_int_equal(st.refuted, i + 1);
    }
    pass(&b, S);
    assert_int_equal(b.said_incarnation, self_incarnation(&b));
    pass(&b, 20 * S);
    zc_swim_stats(b.core, &st);
    assert_int_equal(st.health, 0);

    /* Who accuses it with what it has refuted long ago hears of that again, and that is all. */
    uint32_t inc = self_incarnation(&b);
    unsigned said = b.said[ZC_WIRE_ALIVE];
    say(&b, false, self_name(&b), 1, name_of(2));
    assert_int_equal(self_incarnation(&b), inc);
    pass(&b, 5 * S);
    assert_true(b.said[ZC_WIRE_ALIVE] > said);

    char old[64];
    snprintf(old, sizeof(old), "%s", self_name(&b));
    say(&b, true, self_name(&b), UINT32_MAX, name_of(2));
    assert_int_equal(b.events[ZC_SWIM_RENAMED], 1);
    assert_string_not_equal(old, self_name(&b));
    assert_int_equal(self_incarnation(&b), 1);
    say(&b, true, old, 7, name_of(2)); /* that name is nobody's now */
    assert_int_equal(self_incarnation(&b), 1);
    bench_free(&b);
}

/* How long a suspicion lasts with so many confirmations, from accusers that may be the same. */
static double suspected_for(bool lan, unsigned members, unsigned confirmed, bool same)
{
    struct bench b;
    bench_new(&b, lan);
    meet(&b, members - 1);
    b.answers[1] = false;
    int64_t began = b.now;
    say(&b, false, name_of(1), 1, name_of(2));
    assert_int_equal(state_of(&b, 1), ZC_SWIM_SUSPECT);
    for (unsigned i = 0; i < confirmed; i++)
        say(&b, false, name_of(1), 1, name_of(same ? 2 : 3 + i));
    while (b.gone_at == 0 && b.now - began < 100 * S)
        pass(&b, 10 * MS);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_DEAD);
    double t = (double)(b.gone_at - began) / (double)S;
    bench_free(&b);
    return t;
}

/* Lifeguard: min = mult * max(1, log10 n) * interval, 6 times that while nobody confirms. This node
   finds it silent, too, and so is one that confirms; the last word takes three fifths of
   probe_timeout and somewhat more. */
static void test_suspicion_times(void **state)
{
    (void)state;
    double last = 0.3;
    for (unsigned c = 0; c < 3; c++) { /* mult 3: one confirmation is wanted, min 1.5 s */
        double t = suspected_for(false, 5, c, false);
        assert_true(t >= 1.5 && t < 1.5 + (c ? last : 4 + last));
    }
    for (unsigned c = 1; c < 4; c++) { /* mult 4: two are wanted, min 4 s */
        double t = suspected_for(true, 6, c, false);
        double most = c >= 2 ? 4 + 2 * last : 24 - 20 * log(2) / log(3) + last;
        assert_true(t >= 4 && t < most);
    }
    /* The same accuser again confirms nothing: only this node's own probes do. */
    double once = suspected_for(true, 6, 0, false), thrice = suspected_for(true, 6, 3, true);
    assert_true(fabs(once - thrice) < 0.1);
    assert_true(once > 24 - 20 * log(2) / log(3) - 0.1);
    /* So few members that nobody could confirm. */
    double t = suspected_for(false, 2, 0, false);
    assert_true(t >= 1.5 && t < 1.5 + last);
}

/* Before it is dead it is asked; an answer is no refutation, but no death either. */
static void test_last_word(void **state)
{
    (void)state;
    struct bench b;
    bench_new(&b, false);
    meet(&b, 4);
    say(&b, false, name_of(1), 1, name_of(2));
    say(&b, false, name_of(1), 1, name_of(3));
    pass(&b, 30 * S);
    assert_int_equal(b.events[ZC_SWIM_GONE], 0);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_SUSPECT);
    b.refutes[1] = true;
    pass(&b, 3 * S);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(incarnation_of(&b, 1), 2);
    assert_int_equal(b.events[ZC_SWIM_GONE], 0);
    bench_free(&b);
}

/* A death or a leave that is said of a member that is not suspected is put to it. */
static void test_claims(void **state)
{
    (void)state;
    struct bench b;
    struct zc_swim_stats st;
    bench_new(&b, false);
    meet(&b, 4);
    b.refutes[1] = b.refutes[2] = true;
    say(&b, true, name_of(1), 1, name_of(3));
    say(&b, true, name_of(2), 1, name_of(2));
    pass(&b, 2 * S);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(state_of(&b, 2), ZC_SWIM_ALIVE);
    assert_int_equal(b.events[ZC_SWIM_GONE], 0);
    zc_swim_stats(b.core, &st);
    assert_true(st.challenges >= 2);
    /* One that leaves still answers, but contradicts nothing. */
    say(&b, true, name_of(3), 1, name_of(3));
    pass(&b, 2 * S);
    assert_int_equal(state_of(&b, 3), ZC_SWIM_LEFT);
    b.answers[4] = false;
    say(&b, true, name_of(4), 1, name_of(1));
    pass(&b, S);
    assert_int_equal(state_of(&b, 4), ZC_SWIM_DEAD);
    assert_int_equal(b.events[ZC_SWIM_GONE], 2);
    bench_free(&b);
}

/* The dead come back with a higher incarnation and an answer; they are asked before they are
   forgotten; who says that they live makes them hear that they do not. */
static void test_dead(void **state)
{
    (void)state;
    struct bench b;
    bench_new(&b, false);
    meet(&b, 4);
    for (unsigned i = 1; i <= 2; i++) {
        b.answers[i] = false;
        say(&b, true, name_of(i), 1, name_of(3));
    }
    pass(&b, S);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_DEAD);
    say_alive(&b, 1, 2);
    pass(&b, S);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_DEAD); /* it did not answer */
    b.answers[1] = true;
    say_alive(&b, 1, 2);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_ALIVE);
    assert_int_equal(b.events[ZC_SWIM_JOINED], 1);

    b.answers[2] = b.refutes[2] = true;
    say_alive(&b, 2, 1);
    pass(&b, S);
    assert_int_equal(state_of(&b, 2), ZC_SWIM_ALIVE);
    assert_int_equal(incarnation_of(&b, 2), 2);

    b.answers[1] = b.answers[2] = b.refutes[2] = false;
    say(&b, true, name_of(1), 2, name_of(3));
    say(&b, true, name_of(2), 2, name_of(3));
    pass(&b, 20 * S);
    b.answers[2] = b.refutes[2] = true;
    unsigned asked = b.pings[1];
    pass(&b, 30 * S);
    assert_true(b.pings[1] > asked);
    assert_int_equal(state_of(&b, 1), -1);
    assert_int_equal(state_of(&b, 2), ZC_SWIM_ALIVE);
    bench_free(&b);
}

/* Lifeguard's health: what fails here makes it give others more time, unless others say that they
   fail, too. */
static void test_health(void **state)
{
    (void)state;
    struct bench b;
    struct zc_swim_stats st;
    bench_new(&b, false);
    meet(&b, 5);
    b.answers[1] = false;
    b.nacks = true;
    pass(&b, 3 * S);
    zc_swim_stats(b.core, &st);
    assert_true(st.probes_failed > 0);
    assert_int_equal(st.health, 0);
    b.nacks = false;
    memset(b.answers, 0, sizeof(b.answers));
    pass(&b, 2 * S);
    zc_swim_stats(b.core, &st);
    assert_true(st.health > 1);
    pass(&b, 40 * S);
    zc_swim_stats(b.core, &st);
    assert_true(st.health <= b.config.awareness_max - 1);
    bench_free(&b);

    /* One member alone, that is silent and refutes: a probe in each interval, then in each second,
       third, ... of them. */
    bench_new(&b, false);
    meet(&b, 1);
    b.answers[1] = false;
    b.refutes[1] = true;
    zc_swim_stats(b.core, &st);
    uint64_t before = st.probes;
    pass(&b, 36 * b.config.probe_interval);
    zc_swim_stats(b.core, &st);
    assert_in_range(st.probes - before, 6, 10); /* 1 + 2 + ... + 8 = 36 */
    assert_int_equal(st.health, b.config.awareness_max - 1);
    bench_free(&b);
}

static void add_entry(struct zc_buf *p, unsigned who, uint32_t incarnation, enum zc_swim_state st,
                      const uint8_t v[6])
{
    struct zc_swim_addr a = addr_of(who);
    zc_wire_write_entry(p, &(struct zc_wire_alive){.node = text(name_of(who)),
                                                   .addr = {a.ip, 4},
                                                   .port = a.port,
                                                   .meta = text("zc\x01"),
                                                   .vsn = {v, 6},
                                                   .incarnation = incarnation,
                                                   .state = (uint8_t)st});
}

/* An exchange of all state: the dead are suspected only, those that left are asked, who is not
   known is asked; what does not fit or ends early counts for nothing. */
static void test_push_pull(void **state)
{
    (void)state;
    static const uint8_t other[6] = {1, 5, 2, 3, 4, 3};
    struct bench b;
    zc_autobuf struct zc_buf p = {.max = 65536}, reply = {.max = 65536};
    bench_new(&b, false);
    meet(&b, 4);
    b.answers[5] = true;
    b.answers[3] = false;
    zc_wire_write_push_pull(&p, &(struct zc_wire_push_pull){.nodes = 5, .user_len = 3});
    add_entry(&p, 1, 1, ZC_SWIM_DEAD, vsn);
    add_entry(&p, 2, 1, ZC_SWIM_SUSPECT, vsn);
    add_entry(&p, 3, 1, ZC_SWIM_LEFT, vsn);
    add_entry(&p, 4, 9, ZC_SWIM_ALIVE, vsn);
    add_entry(&p, 5, 1, ZC_SWIM_ALIVE, vsn);
    zc_buf_add(&p, "abc", 3);
    for (size_t n = 0; n < p.len; n++) {
        zc_buf_reset(&reply);
        assert_int_equal(zc_swim_serve(b.core, b.now, (uint8_t *)p.p, n, &reply), -EBADMSG);
        assert_int_equal(reply.len, 0);
    }
    settle(&b);
    for (unsigned i = 1; i <= 4; i++)
        assert_int_equal(state_of(&b, i), ZC_SWIM_ALIVE);
    assert_int_equal(zc_swim_serve(b.core, b.now, (uint8_t *)p.p, p.len, &reply), 0);
    struct zc_mp_reader r = {(uint8_t *)reply.p + 1, (uint8_t *)reply.p + reply.len, false, false};
    struct zc_wire_push_pull head;
    assert_int_equal(zc_wire_next_push_pull(&r, &head), 0);
    assert_int_equal(head.nodes, 5); /* as it was before */
    settle(&b);
    assert_int_equal(state_of(&b, 1), ZC_SWIM_SUSPECT);
    assert_int_equal(state_of(&b, 2), ZC_SWIM_SUSPECT);
    assert_int_equal(incarnation_of(&b, 4), 9);
    assert_int_equal(state_of(&b, 5), ZC_SWIM_ALIVE);
    assert_int_equal(b.events[ZC_SWIM_USER_STATE], 1);
    pass(&b, S);
    assert_int_equal(state_of(&b, 3), ZC_SWIM_LEFT);

    /* Who speaks another version than the members stays outside. */
    zc_buf_reset(&p);
    zc_buf_reset(&reply);
    zc_wire_write_push_pull(&p, &(struct zc_wire_push_pull){.nodes = 1, .join = true});
    add_entry(&p, 6, 1, ZC_SWIM_ALIVE, other);
    b.answers[6] = true;
    assert_int_equal(zc_swim_serve(b.core, b.now, (uint8_t *)p.p, p.len, &reply), -EBADMSG);
    settle(&b);
    assert_int_equal(state_of(&b, 6), -1);
    bench_free(&b);
}

/* The names that a joiner gets are no news to anybody; one that it hears of afterwards is. */
static void test_names_of_a_join(void **state)
{
    (void)state;
    struct bench b;
    zc_autobuf struct zc_buf p = {.max = 65536};
    struct zc_swim_stats st;
    struct zc_swim_addr seed = addr_of(1);
    enum { NAMES = 40 };
    bench_new(&b, false);
    for (unsigned i = 1; i < PEERS; i++)
        b.answers[i] = true;
    zc_wire_write_push_pull(&p, &(struct zc_wire_push_pull){.nodes = NAMES});
    for (unsigned i = 0; i < NAMES; i++) {
        char name[32];
        struct zc_swim_addr a = addr_of(1 + i % (PEERS - 1));
        snprintf(name, sizeof(name), "many-%012u", i);
        zc_wire_write_entry(&p, &(struct zc_wire_alive){.node = text(name),
                                                        .addr = {a.ip, 4},
                                                        .port = a.port,
                                                        .meta = text("zc\x01"),
                                                        .vsn = {vsn, sizeof(vsn)},
                                                        .incarnation = 1});
    }
    zc_swim_join(b.core, b.now, &seed, 1);
    assert_int_equal(b.streams, 1);
    b.streams = 0;
    zc_swim_stream_reply(b.core, b.now, b.open[0], (uint8_t *)p.p, p.len);
    pass(&b, 10 * S);
    zc_swim_stats(b.core, &st);
    assert_int_equal(st.members, NAMES + 1);
    assert_int_equal(b.said_others, 0);
    assert_true(b.said[ZC_WIRE_ALIVE] > 0); /* that it is there itself */
    say_alive(&b, 2, 1);
    pass(&b, 10 * S);
    assert_true(b.said_others >= b.config.retransmit_min);
    bench_free(&b);
}

static void test_leave(void **state)
{
    (void)state;
    struct bench b;
    zc_autobuf struct zc_buf p = {.max = 4096};
    bench_new(&b, false);
    meet(&b, 3);
    uint32_t inc = self_incarnation(&b);
    zc_swim_leave(b.core, b.now);
    pass(&b, S);
    assert_true(b.said[ZC_WIRE_DEAD] >= 8);
    say(&b, true, self_name(&b), inc, self_name(&b));
    say(&b, false, self_name(&b), inc, name_of(1));
    assert_int_equal(self_incarnation(&b), inc); /* it contradicts nothing any more */
    unsigned acks = b.said[ZC_WIRE_ACK];
    zc_wire_write_ping(&p, &(struct zc_wire_ping){.node = text(self_name(&b)), .seq = 5});
    give(&b, 1, p.p, p.len);
    assert_int_equal(b.said[ZC_WIRE_ACK], acks + 1);
    pass(&b, 2 * S);
    assert_int_equal(b.events[ZC_SWIM_RETIRED], 1);
    bench_free(&b);
}

/* What was said in a former life of a node is about a name that is nobody's. */
static void test_replay(void **state)
{
    (void)state;
    struct bench b;
    bench_new(&b, false);
    meet(&b, 3);
    for (int i = 0; i < 3; i++) {
        say(&b, true, "n1-0123456789ab", 1, "n1-0123456789ab");
        say(&b, false, "n1-0123456789ab", 1, name_of(2));
        say_alive_as(&b, "n1-0123456789ab", 6, 1, "zc\x01"); /* where nobody answers */
        say_alive_as(&b, name_of(2), 2, 1, "zc\x01");
        pass(&b, S);
    }
    struct zc_swim_stats st;
    zc_swim_stats(b.core, &st);
    assert_int_equal(st.known, 4);
    for (size_t i = 0; i < ZC_ARRAY_SIZE(b.events); i++)
        assert_int_equal(b.events[i], 0);
    bench_free(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_newcomers),    cmocka_unit_test(test_acks_fit),
        cmocka_unit_test(test_incarnations), cmocka_unit_test(test_name_conflict),
        cmocka_unit_test(test_refutation),   cmocka_unit_test(test_suspicion_times),
        cmocka_unit_test(test_last_word),    cmocka_unit_test(test_claims),
        cmocka_unit_test(test_dead),         cmocka_unit_test(test_health),
        cmocka_unit_test(test_push_pull),    cmocka_unit_test(test_leave),
        cmocka_unit_test(test_replay),       cmocka_unit_test(test_names_of_a_join),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
