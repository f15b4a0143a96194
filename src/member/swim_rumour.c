/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rumours: what is gossiped. There is one at most about each member (a newer one replaces it), and
 * it holds no bytes: what it says is written when it is sent, from what is known then. So a storm
 * of thousands costs 32 bytes each, and nothing old is told.
 *
 * Those sent least come first (SWIM, section 4.1), among these the one that waits longest: tiers by
 * how often something was sent, each a list. After rumour_limit() times a rumour is dropped; with
 * fewer than T = 8 times the share of nodes that never hear of it, s = e^(-T(1-s)), is 2 % and
 * more.
 */
#include "member/swim_priv.h"

#include <math.h>
#include <string.h>

#define PART_HEAD 2     /* bytes of a part's length in a compound */
#define MISFITS_MAX 16u /* that are looked at before a packet is held for full */
#define SMALLEST 48u    /* no rumour is shorter */
#define YOUNG 4u        /* times sent: of these there may be several packets at once ... */
#define BURST 8u        /* ... for each receiver in each round */
#define PACKETFUL 12u   /* more rumours than go into one */

static struct rumour *at(struct zc_swim *s, uint32_t i)
{
    return slab_at(&s->rumours, struct rumour, i);
}

unsigned rumour_limit(const struct zc_swim *s)
{
    unsigned t = s->config.retransmit_mult * (unsigned)ceil(log10(s->n_known + 1.0));
    return ZC_MAX(t, s->config.retransmit_min);
}

/* ---- the queue ---- */

/* Room for all tiers that there can be: 8 digits of members. */
static int tiers_make(struct zc_swim *s)
{
    if (s->tiers)
        return 0;
    uint32_t n = ZC_MAX(s->config.retransmit_mult * 8, s->config.retransmit_min) + 1;
    uint32_t *head = malloc(n * sizeof(*head)), *tail = malloc(n * sizeof(*tail));
    if (!head || !tail) {
        free(head);
        free(tail);
        return -1;
    }
    memset(head, 0xff, n * sizeof(*head));
    memset(tail, 0xff, n * sizeof(*tail));
    s->tier_head = head;
    s->tier_tail = tail;
    s->tiers = n;
    return 0;
}

static void tier_append(struct zc_swim *s, uint32_t i)
{
    struct rumour *r = at(s, i);
    uint32_t tier = ZC_MIN((uint32_t)r->sent, s->tiers - 1);
    r->prev = s->tier_tail[tier];
    r->next = NONE;
    if (r->prev == NONE)
        s->tier_head[tier] = i;
    else
        at(s, r->prev)->next = i;
    s->tier_tail[tier] = i;
}

static void tier_unlink(struct zc_swim *s, uint32_t i)
{
    struct rumour *r = at(s, i);
    uint32_t tier = ZC_MIN((uint32_t)r->sent, s->tiers - 1);
    if (r->prev == NONE)
        s->tier_head[tier] = r->next;
    else
        at(s, r->prev)->next = r->next;
    if (r->next == NONE)
        s->tier_tail[tier] = r->prev;
    else
        at(s, r->next)->prev = r->prev;
}

void rumour_drop(struct zc_swim *s, uint32_t m)
{
    uint32_t i = s->members[m].rumour;
    if (i == NONE)
        return;
    s->members[m].rumour = NONE;
    tier_unlink(s, i);
    node_unref(s->pool, at(s, i)->from);
    slab_give(&s->rumours, sizeof(struct rumour), i);
}

static void add(struct zc_swim *s, uint32_t m, uint8_t kind, struct node *from, unsigned sent)
{
    rumour_drop(s, m);
    uint32_t i = tiers_make(s) == 0 ? slab_take(&s->rumours, sizeof(struct rumour)) : NONE;
    if (i == NONE) { /* then the next exchange of all state tells it */
        node_unref(s->pool, from);
        return;
    }
    struct rumour *r = at(s, i);
    r->member = m;
    r->kind = kind;
    r->from = from;
    r->sent = (uint16_t)sent;
    s->members[m].rumour = i;
    tier_append(s, i);
    if (s->next_gossip == NEVER) {
        int64_t interval = s->config.gossip_interval;
        int64_t past = (s->now - s->gossip_phase) % interval;
        s->next_gossip = s->now + interval - (past < 0 ? past + interval : past);
    }
}

void rumour_add(struct zc_swim *s, uint32_t m, uint8_t kind, struct node *from)
{
    add(s, m, kind, from, 0);
}

void rumour_late(struct zc_swim *s, uint32_t m)
{
    add(s, m, ZC_WIRE_ALIVE, NULL, rumour_limit(s) / 2);
}

/* One of all who has not just heard it from here: most know it, and what chance has left out the
   exchanges repair. */
void rumour_known(struct zc_swim *s, uint32_t m)
{
    uint32_t i = s->members[m].rumour;
    if (i != NONE && at(s, i)->kind == ZC_WIRE_ALIVE && at(s, i)->sent >= YOUNG)
        rumour_drop(s, m);
}

void rumour_write(struct zc_swim *s, struct zc_buf *b, uint32_t m, uint8_t kind,
                  const struct node *from)
{
    const struct member *x = &s->members[m];
    const struct zc_swim_node *n = &x->node->pub;
    struct zc_wire_accuse a = {
        .node = node_name(x->node),
        .from = node_name(from ? from : s->members[s->self].node),
        .incarnation = x->incarnation,
    };
    struct zc_wire_alive alive = {
        .node = a.node,
        .addr = addr_bytes(&n->addr),
        .port = n->addr.port,
        .meta = {n->meta, n->meta_len},
        .vsn = {n->vsn, ZC_WIRE_VSN},
        .incarnation = x->incarnation,
    };
    if (kind == ZC_WIRE_ALIVE)
        zc_wire_write_alive(b, &alive);
    else if (kind == ZC_WIRE_SUSPECT)
        zc_wire_write_suspect(b, &a);
    else
        zc_wire_write_dead(b, &a);
}

/* ---- packets ---- */

void part_begin(struct zc_swim *s)
{
    zc_buf_reset(&s->parts);
    s->lens_n = 0;
}

/* What was written since the last part's end is a part. */
static size_t open_part(const struct zc_swim *s)
{
    size_t closed = 0;
    for (uint32_t i = 0; i < s->lens_n; i++)
        closed += s->lens[i];
    return s->parts.len - closed;
}

void part_end(struct zc_swim *s)
{
    size_t n = open_part(s);
    if (n > 0 && n <= UINT16_MAX && s->lens_n < ZC_WIRE_PARTS_MAX && !s->parts.failed)
        s->lens[s->lens_n++] = (uint16_t)n;
    else
        s->parts.len -= n;
}

/* Fills the packet with rumours, which it counts as sent. */
static void add_rumours(struct zc_swim *s)
{
    uint32_t taken[ZC_WIRE_PARTS_MAX];
    size_t n = 0, closed = s->parts.len;
    unsigned misfits = 0;
    for (uint32_t tier = 0; tier < s->tiers; tier++) {
        for (uint32_t i = s->tier_head[tier], next; i != NONE; i = next) {
            size_t used = 2 + closed + PART_HEAD * (size_t)(s->lens_n + 1);
            if (used + SMALLEST > s->config.packet_max || s->lens_n == ZC_WIRE_PARTS_MAX ||
                misfits == MISFITS_MAX)
                goto full;
            next = at(s, i)->next;
            rumour_write(s, &s->parts, at(s, i)->member, at(s, i)->kind, at(s, i)->from);
            size_t len = s->parts.len - closed;
            if (s->parts.failed || used + len > s->config.packet_max) {
                s->parts.len = closed;
                misfits++;
                continue;
            }
            s->lens[s->lens_n++] = (uint16_t)len;
            closed = s->parts.len;
            tier_unlink(s, i);
            taken[n++] = i;
        }
    }
full:;
    unsigned limit = rumour_limit(s);
    for (size_t k = 0; k < n; k++) {
        struct rumour *r = at(s, taken[k]);
        r->sent++;
        if (r->sent < limit) {
            tier_append(s, taken[k]);
            continue;
        }
        s->members[r->member].rumour = NONE;
        node_unref(s->pool, r->from);
        slab_give(&s->rumours, sizeof(struct rumour), taken[k]);
    }
}

void part_send(struct zc_swim *s, const struct zc_swim_addr *to, bool gossip, bool crc)
{
    if (gossip && s->rumours.count > 0)
        add_rumours(s);
    if (s->lens_n == 0 || s->parts.failed)
        return;
    const uint8_t *p = (const uint8_t *)s->parts.p;
    size_t n = s->parts.len;
    if (s->lens_n > 1) {
        zc_buf_reset(&s->out);
        zc_wire_write_compound(&s->out, s->lens, s->lens_n);
        zc_buf_add(&s->out, s->parts.p, s->parts.len);
        if (s->out.failed)
            return;
        p = (const uint8_t *)s->out.p;
        n = s->out.len;
    }
    s->stats.packets_out++;
    s->stats.bytes_out += n;
    s->ops.packet(s->arg, to, p, n, crc);
}

/* Packets for each receiver. One is enough for what happens now and then. When many come at once,
   what most have not heard of yet goes out faster: at most 15 * BURST packets a second. */
static unsigned burst(const struct zc_swim *s)
{
    unsigned young = 0;
    for (uint32_t tier = 0; tier < ZC_MIN(YOUNG, s->tiers); tier++)
        for (uint32_t i = s->tier_head[tier]; i != NONE && young < BURST * PACKETFUL; young++)
            i = slab_at(&s->rumours, struct rumour, i)->next;
    return ZC_MAX(young / PACKETFUL, 1u);
}

void rumour_round(struct zc_swim *s)
{
    uint32_t to[16];
    size_t n = member_pick(s, 1u << ZC_SWIM_ALIVE | 1u << ZC_SWIM_SUSPECT | 1u << ZC_SWIM_DEAD,
                           NONE, to, ZC_MIN((size_t)s->config.gossip_nodes, ZC_ARRAY_SIZE(to)));
    for (size_t i = 0; i < n && s->rumours.count > 0; i++) {
        const struct member *x = &s->members[to[i]];
        if (x->state == ZC_SWIM_DEAD && x->since + s->config.dead_time < s->now)
            continue;
        for (unsigned k = burst(s); k > 0 && s->rumours.count > 0; k--) {
            part_begin(s);
            part_send(s, &x->node->pub.addr, true, x->node->pub.vsn[ZC_VSN_PMAX] >= 5);
        }
    }
    if (s->rumours.count == 0)
        s->next_gossip = NEVER;
    else
        s->next_gossip = ZC_MAX(s->next_gossip, s->now) + s->config.gossip_interval;
}
