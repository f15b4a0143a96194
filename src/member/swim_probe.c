/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Probing: one member in each interval, in a shuffled round, so that each is probed once in a round
 * (SWIM, section 4.3). First a ping; without an answer by the timeout, others are asked to ping in
 * our place, and a ping goes over TCP; who has not answered by the end of the interval is
 * suspected.
 *
 * Lifeguard's health score: a node that fails to hear from others, even from those that should tell
 * it that they failed too (nacks), gives everybody more time, because the fault may be its own.
 *
 * Sequence numbers are random, so that an ack of another time or life matches nothing.
 */
#include "member/swim_priv.h"

#include <string.h>

static struct probe *probe_take(struct zc_swim *s, enum probe_kind kind, int64_t end)
{
    uint32_t i = s->probe_free;
    if ((i == NONE && s->probes_used == PROBES_MAX) ||
        (kind == PROBE_RELAY && s->n_relays >= RELAYS_MAX))
        return NULL;
    if (i == NONE)
        i = s->probes_used++;
    else
        s->probe_free = s->probes[i].target;
    struct probe *p = &s->probes[i];
    memset(p, 0, sizeof(*p));
    p->kind = (uint8_t)kind;
    p->end = end;
    p->gen = ++s->gen;
    do
        p->seq = (uint32_t)swim_random(s) << PROBE_BITS | i;
    while (p->seq == 0);
    s->n_relays += kind == PROBE_RELAY;
    return p;
}

static void probe_free(struct zc_swim *s, struct probe *p)
{
    s->n_relays -= p->kind == PROBE_RELAY;
    p->kind = PROBE_FREE;
    p->gen = 0;
    p->target = s->probe_free;
    s->probe_free = (uint32_t)(p - s->probes);
}

static void probe_timer(struct zc_swim *s, struct probe *p, int64_t when)
{
    swim_timer(s, when, TIMER_PROBE, (uint32_t)(p - s->probes), p->gen);
}

static struct probe *probe_find(struct zc_swim *s, uint32_t seq)
{
    struct probe *p = &s->probes[seq & (PROBES_MAX - 1)];
    return p->kind != PROBE_FREE && p->seq == seq ? p : NULL;
}

void probe_health(struct zc_swim *s, int delta)
{
    int h = (int)s->health + delta, max = (int)s->config.awareness_max - 1;
    s->health = (unsigned)(h < 0 ? 0 : ZC_MIN(h, max));
}

void probe_fill_ping(const struct zc_swim *s, struct zc_wire_ping *p, uint32_t seq,
                     const struct node *to)
{
    const struct node *me = s->members[s->self].node;
    *p = (struct zc_wire_ping){
        .node = node_name(to),
        .seq = seq,
        .source_addr = addr_bytes(&me->pub.addr),
        .source_port = me->pub.addr.port,
        .source_node = node_name(me),
    };
}

/* ---- our own round ---- */

static void order_anew(struct zc_swim *s)
{
    s->order_n = s->order_at = 0;
    for (uint32_t m = 0; m < s->slots; m++)
        if (s->members[m].node && s->members[m].state != ZC_SWIM_PENDING)
            member_into_order(s, m);
}

/* The next member to probe, or NONE. */
static uint32_t next_target(struct zc_swim *s)
{
    for (uint32_t checked = 0; checked <= s->order_n + s->slots; checked++) {
        if (s->order_at >= s->order_n) {
            if (s->n_alive + s->n_suspect == 0)
                return NONE;
            order_anew(s);
        }
        uint32_t m = s->order[s->order_at++];
        const struct member *x = &s->members[m];
        if (m != s->self && x->node && (x->state == ZC_SWIM_ALIVE || x->state == ZC_SWIM_SUSPECT))
            return m;
    }
    return NONE;
}

void probe_next(struct zc_swim *s)
{
    const struct probe *last = s->last_probe != NONE ? &s->probes[s->last_probe] : NULL;
    if (last && last->kind == PROBE_MEMBER && last->end > s->now)
        return; /* poor health: it has more time */
    uint32_t m = next_target(s);
    if (m == NONE)
        return;
    const struct member *x = &s->members[m];
    int64_t interval = s->config.probe_interval * (int64_t)(s->health + 1);
    struct probe *p = probe_take(s, PROBE_MEMBER, s->now + interval);
    if (!p)
        return;
    s->last_probe = (uint32_t)(p - s->probes);
    p->target = m;
    p->check = x->incarnation;
    s->stats.probes++;
    struct zc_wire_ping ping;
    part_begin(s);
    probe_fill_ping(s, &ping, p->seq, x->node);
    zc_wire_write_ping(&s->parts, &ping);
    part_end(s);
    bool suspect = x->state == ZC_SWIM_SUSPECT;
    if (suspect) { /* it hears of it from us, so that it can refute at once */
        rumour_write(s, &s->parts, m, ZC_WIRE_SUSPECT, NULL);
        part_end(s);
    }
    part_send(s, &x->node->pub.addr, !suspect, suspect && x->node->pub.vsn[ZC_VSN_PMAX] >= 5);
    probe_timer(s, p, s->now + s->config.probe_timeout);
}

unsigned probe_ask_others(struct zc_swim *s, uint32_t seq, uint32_t m, const struct node *node)
{
    uint32_t others[16];
    size_t n = member_pick(s, 1u << ZC_SWIM_ALIVE, m, others,
                           ZC_MIN((size_t)s->config.indirect, ZC_ARRAY_SIZE(others)));
    unsigned nacks = 0;
    const struct node *me = s->members[s->self].node;
    for (size_t i = 0; i < n; i++) {
        const struct zc_swim_node *to = &s->members[others[i]].node->pub;
        struct zc_wire_indirect ind = {
            .node = node_name(node),
            .target = addr_bytes(&node->pub.addr),
            .port = node->pub.addr.port,
            .seq = seq,
            .nack = to->vsn[ZC_VSN_PMAX] >= 4,
            .source_addr = addr_bytes(&me->pub.addr),
            .source_port = me->pub.addr.port,
            .source_node = node_name(me),
        };
        nacks += ind.nack;
        part_begin(s);
        zc_wire_write_indirect(&s->parts, &ind);
        part_end(s);
        part_send(s, &to->addr, true, false);
    }
    return nacks;
}

/* The member's part of a probe that was not answered in time. */
static void member_silent(struct zc_swim *s, struct probe *p)
{
    const struct member *x = &s->members[p->target];
    bool there = x->node && (x->state == ZC_SWIM_ALIVE || x->state == ZC_SWIM_SUSPECT);
    if (!p->asked_others && there && s->now < p->end) {
        p->asked_others = true;
        p->nacks_wanted = (uint8_t)probe_ask_others(s, p->seq, p->target, x->node);
        if (x->node->pub.vsn[ZC_VSN_PMAX] >= 3)
            stream_ping(s, p->target, p->seq, p->end);
        probe_timer(s, p, p->end);
        return;
    }
    uint32_t m = p->target, incarnation = p->check;
    int delta = p->nacks_wanted == 0 ? 1 : p->nacks_wanted - ZC_MIN(p->nacks, p->nacks_wanted);
    bool tcp_ok = p->tcp_ok;
    probe_free(s, p);
    if (!there)
        return;
    if (tcp_ok) {
        probe_health(s, -1);
        return;
    }
    probe_health(s, delta);
    s->stats.probes_failed++;
    state_suspect_own(s, m, incarnation);
}

void probe_timeout(struct zc_swim *s, uint32_t index, uint32_t gen)
{
    struct probe *p = &s->probes[index];
    if (p->gen != gen)
        return;
    switch ((enum probe_kind)p->kind) {
    case PROBE_MEMBER:
        member_silent(s, p);
        break;
    case PROBE_RELAY:
        if (p->nack) {
            struct zc_wire_nack nack = {.seq = p->target};
            part_begin(s);
            zc_wire_write_nack(&s->parts, &nack);
            part_end(s);
            part_send(s, &p->back, false, false);
        }
        probe_free(s, p);
        break;
    case PROBE_CLAIM: /* has no timer: the claim has one */
    case PROBE_FREE:
        break;
    }
}

/* ---- for claims and for others ---- */

uint32_t probe_claim(struct zc_swim *s, uint32_t index, uint32_t gen)
{
    struct probe *p = probe_take(s, PROBE_CLAIM, NEVER);
    if (!p)
        return 0;
    p->target = index;
    p->check = gen;
    return p->seq;
}

void probe_drop(struct zc_swim *s, uint32_t seq)
{
    struct probe *p = probe_find(s, seq);
    if (p)
        probe_free(s, p);
}

/* Only members are pinged for others: nobody can be made to send to a third party. */
void probe_relay(struct zc_swim *s, const struct zc_swim_addr *from,
                 const struct zc_wire_indirect *m)
{
    struct zc_swim_addr target;
    uint32_t t = member_find(s, m->node);
    struct probe *p = NULL;
    if (t != NONE && t != s->self && addr_from_wire(m->target, m->port, &target) &&
        zc_swim_addr_eq(&target, &s->members[t].node->pub.addr))
        p = probe_take(s, PROBE_RELAY, s->now + s->config.probe_timeout);
    if (!p)
        return;
    p->target = m->seq;
    p->back = *from;
    p->nack = m->nack;
    const struct node *to = s->members[t].node;
    struct zc_wire_ping ping;
    probe_fill_ping(s, &ping, p->seq, to);
    part_begin(s);
    zc_wire_write_ping(&s->parts, &ping);
    part_end(s);
    part_send(s, &to->pub.addr, s->members[t].state != ZC_SWIM_PENDING, false);
    probe_timer(s, p, p->end);
}

void probe_ack(struct zc_swim *s, uint32_t seq, bool tcp)
{
    struct probe *p = probe_find(s, seq);
    if (!p)
        return;
    uint32_t target = p->target, check = p->check;
    switch ((enum probe_kind)p->kind) {
    case PROBE_MEMBER:
        if (tcp) { /* counts at the end, when UDP had its time */
            p->tcp_ok = true;
            break;
        }
        probe_free(s, p);
        probe_health(s, -1);
        break;
    case PROBE_CLAIM:
        probe_free(s, p);
        claim_ack(s, target, check);
        break;
    case PROBE_RELAY: {
        struct zc_wire_ack ack = {.seq = target};
        struct zc_swim_addr back = p->back;
        probe_free(s, p);
        part_begin(s);
        zc_wire_write_ack(&s->parts, &ack);
        part_end(s);
        part_send(s, &back, false, false);
        break;
    }
    case PROBE_FREE:
        break;
    }
}

void probe_nack(struct zc_swim *s, uint32_t seq)
{
    struct probe *p = probe_find(s, seq);
    if (p && p->kind == PROBE_MEMBER && p->nacks < p->nacks_wanted)
        p->nacks++;
}
