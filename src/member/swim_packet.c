/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a packet says. Compound and compress may lie within each other, as memberlist accepts it;
 * here they may do so DEPTH_MAX times, and inflate to INFLATED_MAX bytes in all.
 */
#include "member/swim_priv.h"

#include <string.h>

#define DEPTH_MAX 4
#define INFLATED_MAX ((size_t)256 << 10)

struct reading {
    struct zc_swim *s;
    const struct zc_swim_addr *from;
    size_t inflated; /* so far */
};

bool addr_from_wire(struct zc_bytes ip, uint16_t port, struct zc_swim_addr *out)
{
    if ((ip.len != 4 && ip.len != 16) || port == 0)
        return false;
    memset(out, 0, sizeof(*out));
    memcpy(out->ip, ip.p, ip.len);
    out->len = (uint8_t)ip.len;
    out->port = port;
    return true;
}

/* The known member that listens where the packet came from, which it says of itself as `name`, or
   NONE. */
static uint32_t from_member(struct zc_swim *s, const struct zc_swim_addr *from,
                            struct zc_bytes name)
{
    uint32_t m = member_find(s, name);
    return m != NONE && m != s->self && s->members[m].state != ZC_SWIM_PENDING &&
                   zc_swim_addr_eq(&s->members[m].node->pub.addr, from)
               ? m
               : NONE;
}

/* The answer goes where the question came from, not where it says: nobody else can be hit with it.
   Rumours go along for members, so that strangers cannot make us waste them; for a newcomer, which
   asks everybody and gets to know all else by exchanges, only what this node says of itself. */
static void on_ping(struct reading *r, const uint8_t *p, size_t n)
{
    struct zc_swim *s = r->s;
    struct zc_wire_ping m;
    if (zc_wire_read_ping(p, n, &m) < 0) {
        s->stats.bad++;
        return;
    }
    if (m.node.len > 0 && !name_is(s->members[s->self].node, m.node))
        return;
    struct zc_wire_ack ack = {.seq = m.seq};
    part_begin(s);
    zc_wire_write_ack(&s->parts, &ack);
    part_end(s);
    uint32_t from = from_member(s, r->from, m.source_node);
    bool newcomer = from != NONE && s->members[from].rumour != NONE;
    if (newcomer && s->members[s->self].rumour != NONE && !s->leaving) {
        rumour_write(s, &s->parts, s->self, ZC_WIRE_ALIVE, NULL);
        part_end(s);
    }
    part_send(s, r->from, from != NONE && !newcomer, false);
}

static void on_message(struct reading *r, const uint8_t *p, size_t n, int depth);

static void on_compound(struct reading *r, const uint8_t *p, size_t n, int depth)
{
    size_t at = 0;
    struct zc_bytes part;
    while (zc_wire_next_part(p, n, &at, &part))
        on_message(r, part.p, part.len, depth + 1);
}

static void on_compress(struct reading *r, const uint8_t *p, size_t n, int depth)
{
    zc_autobuf struct zc_buf plain = {.max = INFLATED_MAX - r->inflated};
    if (plain.max == 0 || zc_wire_decompress(p, n, &plain) < 0) {
        r->s->stats.bad++;
        return;
    }
    r->inflated += plain.len;
    on_message(r, (const uint8_t *)plain.p, plain.len, depth + 1);
}

static void on_accuse(struct zc_swim *s, const uint8_t *p, size_t n, bool dead)
{
    struct zc_wire_accuse m;
    if (zc_wire_read_accuse(p, n, &m) < 0)
        s->stats.bad++;
    else if (dead)
        state_dead(s, &m);
    else
        state_suspect(s, &m);
}

static void on_message(struct reading *r, const uint8_t *p, size_t n, int depth)
{
    struct zc_swim *s = r->s;
    if (n == 0 || depth > DEPTH_MAX) {
        s->stats.bad++;
        return;
    }
    uint8_t type = *p++;
    n--;
    switch (type) {
    case ZC_WIRE_PING:
        on_ping(r, p, n);
        return;
    case ZC_WIRE_INDIRECT: {
        struct zc_wire_indirect m;
        if (zc_wire_read_indirect(p, n, &m) == 0) {
            probe_relay(s, r->from, &m);
            return;
        }
        break;
    }
    case ZC_WIRE_ACK: {
        struct zc_wire_ack m;
        if (zc_wire_read_ack(p, n, &m) == 0) {
            probe_ack(s, m.seq, false);
            return;
        }
        break;
    }
    case ZC_WIRE_NACK: {
        struct zc_wire_nack m;
        if (zc_wire_read_nack(p, n, &m) == 0) {
            probe_nack(s, m.seq);
            return;
        }
        break;
    }
    case ZC_WIRE_SUSPECT:
    case ZC_WIRE_DEAD:
        on_accuse(s, p, n, type == ZC_WIRE_DEAD);
        return;
    case ZC_WIRE_ALIVE: {
        struct zc_wire_alive m;
        if (zc_wire_read_alive(p, n, &m) == 0) {
            state_alive(s, &m);
            return;
        }
        break;
    }
    case ZC_WIRE_COMPOUND:
        on_compound(r, p, n, depth);
        return;
    case ZC_WIRE_COMPRESS:
        on_compress(r, p, n, depth);
        return;
    case ZC_WIRE_USER:
        s->stats.user_messages++;
        return;
    default:
        break;
    }
    s->stats.bad++;
}

void zc_swim_packet(struct zc_swim *s, int64_t now, const struct zc_swim_addr *from,
                    const uint8_t *p, size_t n)
{
    swim_advance(s, now);
    s->stats.packets_in++;
    s->stats.bytes_in += n;
    struct reading r = {.s = s, .from = from};
    on_message(&r, p, n, 0);
    swim_prune(s);
}
