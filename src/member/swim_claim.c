/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Claims are put to the node in question before they are believed: it gets the claim and a ping
 * with a fresh number, encrypted with the cluster's key where there is one. So nothing that was
 * recorded earlier, and nothing that one member makes up, takes a node away or conjures one up:
 *
 *   there at all (PENDING)  believed with the answer; forgotten without
 *   ALIVE (back, or a foreign node's news)  believed with the answer, of foreign nodes with the
 *                           second one, so that they had time to contradict; forgotten without
 *   SUSPECT, DEAD           disproved by the answer; believed without
 *   LEFT                    a node that leaves still answers for a while but does not refute:
 *                           believed with the second answer, or without any
 *
 * A contradiction is an alive with a higher incarnation, which comes with the answer (members
 * attach rumours to acks) or by gossip, and replaces the claim or ends it.
 *
 * A claim costs at most CLAIM_ASKS pings; no more than CLAIMS_AT_ONCE are on their way, so that a
 * node that learns a thousand names at once does not drown itself in answers. Others stand in line.
 */
#include "member/swim_priv.h"

static void claim_next(struct zc_swim *s);

static struct claim *at(struct zc_swim *s, uint32_t i)
{
    return slab_at(&s->claims, struct claim, i);
}

static unsigned asks(const struct claim *c)
{
    return c->state == ZC_SWIM_PENDING ? CLAIM_ASKS : CLAIM_ASKS - 1;
}

static void set_timer(struct zc_swim *s, uint32_t i, int64_t delay)
{
    struct claim *c = at(s, i);
    c->step = ++s->gen;
    swim_timer(s, s->now + delay, TIMER_CLAIM, i, c->step);
}

static void write_claim(struct zc_swim *s, const struct claim *c)
{
    const struct member *x = &s->members[c->member];
    struct zc_bytes self = node_name(s->members[s->self].node), name = node_name(x->node);
    struct zc_wire_accuse a = {
        .node = name,
        .from = c->state == ZC_SWIM_LEFT ? name
                : c->from                ? node_name(c->from)
                                         : self,
        .incarnation = c->incarnation,
    };
    switch ((enum zc_swim_state)c->state) {
    case ZC_SWIM_PENDING:
        return;
    case ZC_SWIM_ALIVE: {
        const struct zc_swim_node *n = &c->node->pub;
        struct zc_wire_alive m = {
            .node = name,
            .addr = addr_bytes(&n->addr),
            .port = n->addr.port,
            .meta = {n->meta, n->meta_len},
            .vsn = {n->vsn, ZC_WIRE_VSN},
            .incarnation = c->incarnation,
        };
        zc_wire_write_alive(&s->parts, &m);
        break;
    }
    case ZC_SWIM_SUSPECT:
        zc_wire_write_suspect(&s->parts, &a);
        break;
    default:
        zc_wire_write_dead(&s->parts, &a);
        break;
    }
    part_end(s);
}

static void ask(struct zc_swim *s, uint32_t i)
{
    struct claim *c = at(s, i);
    const struct node *to = c->node ? c->node : s->members[c->member].node;
    int64_t wait = s->config.probe_timeout / 3;
    uint32_t seq = probe_claim(s, i, c->gen);
    c->seqs[c->asked++] = seq;
    s->stats.challenges++;
    if (seq != 0) {
        struct zc_wire_ping ping;
        part_begin(s);
        write_claim(s, c);
        probe_fill_ping(s, &ping, seq, to);
        zc_wire_write_ping(&s->parts, &ping);
        part_end(s);
        part_send(s, &to->pub.addr, false, to->pub.vsn[ZC_VSN_PMAX] >= 5);
        /* The way there may be closed to us alone. */
        if (c->state == ZC_SWIM_PENDING && c->asked == CLAIM_ASKS)
            probe_ask_others(s, seq, c->member, to);
    }
    if (c->state == ZC_SWIM_PENDING)
        wait = s->config.probe_timeout * (c->asked == CLAIM_ASKS ? 2 : 1) / 2;
    set_timer(s, i, wait);
}

static void drop_probes(struct zc_swim *s, struct claim *c)
{
    for (unsigned k = 0; k < c->asked; k++)
        if (c->seqs[k] != 0)
            probe_drop(s, c->seqs[k]);
    c->asked = 0;
}

/* Takes the claim away. Its references are the caller's when it took them out. */
static void release(struct zc_swim *s, uint32_t i)
{
    struct claim *c = at(s, i);
    if (c->member != NONE)
        s->members[c->member].claim = NONE;
    drop_probes(s, c);
    node_unref(s->pool, c->node);
    node_unref(s->pool, c->from);
    c->node = c->from = NULL;
    if (c->active) {
        s->claims_active--;
        c->active = false; /* its timers find nothing */
        slab_give(&s->claims, sizeof(struct claim), i);
    } else {
        c->member = NONE; /* it stays in the line, and is given back when its turn comes */
    }
}

static void claim_next(struct zc_swim *s)
{
    while (s->claims_active < CLAIMS_AT_ONCE && s->claim_head != NONE) {
        uint32_t i = s->claim_head;
        s->claim_head = at(s, i)->next;
        if (s->claim_head == NONE)
            s->claim_tail = NONE;
        if (at(s, i)->member == NONE) {
            slab_give(&s->claims, sizeof(struct claim), i);
            continue;
        }
        at(s, i)->active = true;
        s->claims_active++;
        ask(s, i);
    }
}

/* Of two claims with equal incarnations the graver one counts, as in SWIM. */
static bool outweighs(const struct claim *c, uint8_t state, uint32_t incarnation)
{
    return c->incarnation > incarnation || (c->incarnation == incarnation && c->state >= state);
}

void claim_make(struct zc_swim *s, uint32_t m, enum zc_swim_state state, uint32_t incarnation,
                struct node *n, struct node *from)
{
    uint32_t i = s->members[m].claim;
    bool new = i == NONE;
    if (new)
        i = slab_take(&s->claims, sizeof(struct claim));
    if (i == NONE || (!new &&outweighs(at(s, i), (uint8_t)state, incarnation))) {
        node_unref(s->pool, n);
        node_unref(s->pool, from);
        if (i == NONE && state == ZC_SWIM_PENDING)
            member_drop(s, m);
        return;
    }
    struct claim *c = at(s, i);
    node_unref(s->pool, c->node);
    node_unref(s->pool, c->from);
    drop_probes(s, c);
    c->member = m;
    c->gen = ++s->gen;
    c->state = (uint8_t)state;
    c->incarnation = incarnation;
    c->node = n;
    c->from = from;
    c->acks = 0;
    s->members[m].claim = i;
    if (new) {
        c->next = NONE;
        if (s->claim_tail == NONE)
            s->claim_head = i;
        else
            at(s, s->claim_tail)->next = i;
        s->claim_tail = i;
        claim_next(s);
    } else if (c->active) {
        ask(s, i);
    }
}

void claim_drop(struct zc_swim *s, uint32_t m)
{
    if (s->members[m].claim == NONE)
        return;
    release(s, s->members[m].claim);
    claim_next(s);
}

/* Ends it; if it is believed, it becomes what is known. */
static void conclude(struct zc_swim *s, uint32_t i, bool believed)
{
    struct claim c = *at(s, i);
    at(s, i)->node = at(s, i)->from = NULL; /* references go to whoever keeps them */
    release(s, i);
    if (!believed) {
        s->stats.claims_disproved++;
        node_unref(s->pool, c.node);
        node_unref(s->pool, c.from);
        if (c.state == ZC_SWIM_PENDING)
            member_drop(s, c.member);
        claim_next(s);
        return;
    }
    const struct member *x = &s->members[c.member];
    switch ((enum zc_swim_state)c.state) {
    case ZC_SWIM_PENDING:
        state_set_alive(s, c.member, node_ref(x->node), x->incarnation);
        node_unref(s->pool, c.from);
        break;
    case ZC_SWIM_ALIVE:
        state_set_alive(s, c.member, c.node, c.incarnation);
        node_unref(s->pool, c.from);
        break;
    case ZC_SWIM_SUSPECT:
        if (x->state == ZC_SWIM_ALIVE)
            state_set_suspect(s, c.member, c.incarnation, c.from);
        else
            node_unref(s->pool, c.from);
        break;
    default:
        if (x->state == ZC_SWIM_ALIVE || x->state == ZC_SWIM_SUSPECT)
            state_set_gone(s, c.member, c.incarnation, c.state == ZC_SWIM_LEFT, c.from);
        else
            node_unref(s->pool, c.from);
        break;
    }
    claim_next(s);
}

void claim_ack(struct zc_swim *s, uint32_t i, uint32_t gen)
{
    if (i >= s->claims.used || at(s, i)->gen != gen || !at(s, i)->active)
        return;
    struct claim *c = at(s, i);
    const struct member *x = &s->members[c->member];
    unsigned wanted = 1;
    if (c->state == ZC_SWIM_LEFT || (c->state == ZC_SWIM_ALIVE && x->node->pub.foreign))
        wanted = 2;
    c->acks++;
    if (c->acks >= wanted)
        conclude(s, i, c->state != ZC_SWIM_SUSPECT && c->state != ZC_SWIM_DEAD);
    else /* time to contradict */
        set_timer(s, i, s->config.probe_timeout / 4);
}

void claim_timeout(struct zc_swim *s, uint32_t i, uint32_t step)
{
    if (i >= s->claims.used || at(s, i)->step != step || !at(s, i)->active)
        return;
    struct claim *c = at(s, i);
    if (c->asked < asks(c))
        ask(s, i);
    else /* claims of life need an answer, others do not */
        conclude(s, i, c->acks > 0 || (c->state != ZC_SWIM_PENDING && c->state != ZC_SWIM_ALIVE));
}
