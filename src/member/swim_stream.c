/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: the exchange of all state (push/pull), which is how a node joins and how what gossip
 * missed is repaired; and the ping over TCP.
 *
 * A join is an exchange with three seeds: with one, the few messages that it gossips in its first
 * moments, when it knows next to nobody, may reach too few. An exchange soon after a join and after
 * many changes repairs what those moments lost; while members come in crowds, as when the parts of
 * a split cluster meet, there is one after each pause, and the pauses grow. Seeds that are no
 * members are tried again for ever, a single one at a time: that is what brings the parts of a
 * split cluster together again, since the dead are forgotten after a while.
 *
 * All state is N entries, and memberlist stretches the interval with log N only: with 1,000 nodes
 * it would be most of the traffic. Here an exchange has to keep within a rate, so that what a node
 * sends does not grow with N. Gossip alone reaches all but e^-T of the nodes, so that this costs
 * nothing but time to repair what was lost to more than chance, and for that there are the
 * exchanges after changes.
 */
#include "member/swim_priv.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define JOINS 3
#define ALONE_RETRY (2 * ZC_NS_PER_S)
#define SEED_TRIES 8
#define EXTRA_GAP (2 * ZC_NS_PER_S)
#define EXTRA_GAP_MAX (32 * ZC_NS_PER_S)
#define SYNC_SCALE_FROM 32.0 /* members; memberlist's pushPullScaleThreshold */

/* ---- what is sent ---- */

static void write_entry(const struct member *x, struct zc_buf *b)
{
    const struct zc_swim_node *n = &x->node->pub;
    struct zc_wire_alive e = {
        .node = node_name(x->node),
        .addr = addr_bytes(&n->addr),
        .port = n->addr.port,
        .meta = {n->meta, n->meta_len},
        .vsn = {n->vsn, ZC_WIRE_VSN},
        .incarnation = x->incarnation,
        .state = x->state,
    };
    zc_wire_write_entry(b, &e);
}

static int write_state(struct zc_swim *s, bool join, struct zc_buf *b)
{
    struct zc_wire_push_pull head = {
        .nodes = s->n_known, .user_len = (int64_t)s->user_len, .join = join};
    zc_wire_write_push_pull(b, &head);
    for (uint32_t m = 0; m < s->slots; m++)
        if (s->members[m].node && s->members[m].state != ZC_SWIM_PENDING)
            write_entry(&s->members[m], b);
    if (s->user_len > 0)
        zc_buf_add(b, s->user, s->user_len);
    s->state_size = b->len;
    return b->failed ? -ENOMEM : 0;
}

static struct stream *stream_find(struct zc_swim *s, uint32_t id)
{
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (s->streams[i].kind != STREAM_FREE && s->streams[i].id == id)
            return &s->streams[i];
    return NULL;
}

static struct stream *stream_take(struct zc_swim *s, enum stream_kind kind)
{
    for (size_t i = 0; i < STREAMS_MAX; i++)
        if (s->streams[i].kind == STREAM_FREE) {
            s->streams[i] = (struct stream){.id = ++s->stream_id, .kind = (uint8_t)kind};
            return &s->streams[i];
        }
    return NULL;
}

static unsigned streams_of(const struct zc_swim *s, enum stream_kind kind)
{
    unsigned n = 0;
    for (size_t i = 0; i < STREAMS_MAX; i++)
        n += s->streams[i].kind == kind;
    return n;
}

static bool exchange(struct zc_swim *s, const struct zc_swim_addr *to, enum stream_kind kind)
{
    struct stream *st = stream_take(s, kind);
    if (!st)
        return false;
    zc_autobuf struct zc_buf b = {.max = ZC_WIRE_STREAM_MAX};
    if (write_state(s, kind == STREAM_JOIN, &b) < 0) {
        st->kind = STREAM_FREE;
        return false;
    }
    s->stats.streams_out++;
    s->ops.stream(s->arg, st->id, to, (const uint8_t *)b.p, b.len,
                  s->now + s->config.stream_timeout);
    return true;
}

int64_t stream_sync_interval(const struct zc_swim *s)
{
    double n = s->n_known, scale = 1;
    if (n > SYNC_SCALE_FROM)
        scale = ceil(log2(n) - log2(SYNC_SCALE_FROM)) + 1;
    /* In each interval a node asks once and is asked once, on average. */
    double floor = 2.0 * (double)s->state_size / s->config.push_pull_rate * (double)ZC_NS_PER_S;
    return (int64_t)ZC_MAX(scale * (double)s->config.push_pull_interval, floor);
}

void stream_sync(struct zc_swim *s)
{
    uint32_t m;
    if (s->leaving || member_pick(s, 1u << ZC_SWIM_ALIVE, NONE, &m, 1) == 0)
        return;
    s->changes = 0;
    exchange(s, &s->members[m].node->pub.addr, STREAM_SYNC);
}

void stream_note_change(struct zc_swim *s)
{
    if (++s->changes < ZC_MAX(4u, s->n_known / 4) || s->next_extra != NEVER)
        return;
    stream_extra_in(s, EXTRA_GAP);
}

void stream_extra_in(struct zc_swim *s, int64_t gap)
{
    s->extra_gap = gap;
    s->next_extra = s->now + gap + (int64_t)(swim_random(s) % ((uint64_t)gap / 2 + 1));
}

void stream_extra(struct zc_swim *s)
{
    uint32_t changes = s->changes;
    s->next_extra = NEVER;
    stream_sync(s);
    /* An exchange in the middle of it repairs what was missed before, not what is missed after:
       there is another one as long as the last pause was not a quiet one. */
    if (s->extra_gap > 0 && changes >= ZC_MAX(4u, s->n_known / 16))
        stream_extra_in(s, ZC_MIN(2 * s->extra_gap, EXTRA_GAP_MAX));
}

void stream_ping(struct zc_swim *s, uint32_t m, uint32_t seq, int64_t deadline)
{
    struct stream *st = stream_take(s, STREAM_PING);
    if (!st)
        return;
    const struct node *to = s->members[m].node;
    struct zc_wire_ping ping;
    st->seq = seq;
    part_begin(s);
    probe_fill_ping(s, &ping, seq, to);
    zc_wire_write_ping(&s->parts, &ping);
    s->stats.streams_out++;
    s->ops.stream(s->arg, st->id, &to->pub.addr, (const uint8_t *)s->parts.p, s->parts.len,
                  deadline);
}

/* ---- joining ---- */

static bool is_self(const struct zc_swim *s, const struct zc_swim_addr *a)
{
    return zc_swim_addr_eq(a, &s->members[s->self].node->pub.addr);
}

static bool is_alone(const struct zc_swim *s)
{
    return s->n_alive + s->n_suspect <= 1;
}

static bool is_member(const struct zc_swim *s, const struct zc_swim_addr *a)
{
    for (uint32_t m = 0; m < s->slots; m++) {
        const struct member *x = &s->members[m];
        if (x->node && (x->state == ZC_SWIM_ALIVE || x->state == ZC_SWIM_SUSPECT) &&
            zc_swim_addr_eq(a, &x->node->pub.addr))
            return true;
    }
    return false;
}

static void set_rejoin(struct zc_swim *s)
{
    int64_t t =
        is_alone(s) ? ZC_MIN(s->config.rejoin_interval, ALONE_RETRY) : s->config.rejoin_interval;
    s->next_rejoin = s->now + t / 2 + (int64_t)(swim_random(s) % (uint64_t)t);
}

void stream_alone(struct zc_swim *s)
{
    if (s->seeds_n > 0 && !s->leaving)
        set_rejoin(s);
}

/* Opens exchanges with seeds that were not tried in this round. */
static void join_more(struct zc_swim *s)
{
    while (!s->leaving && streams_of(s, STREAM_JOIN) < s->joins_wanted &&
           s->seeds_tried < s->seeds_n) {
        const struct zc_swim_addr *to = &s->seeds[s->seeds_tried++];
        if (!is_self(s, to) && !exchange(s, to, STREAM_JOIN))
            break;
    }
}

static void shuffle_seeds(struct zc_swim *s)
{
    for (size_t i = s->seeds_n; i > 1; i--) {
        size_t j = swim_random_below(s, (uint32_t)i);
        struct zc_swim_addr t = s->seeds[i - 1];
        s->seeds[i - 1] = s->seeds[j];
        s->seeds[j] = t;
    }
    s->seeds_tried = 0;
    s->joins_wanted = JOINS;
}

void zc_swim_join(struct zc_swim *s, int64_t now, const struct zc_swim_addr *seeds, size_t n)
{
    swim_advance(s, now);
    n = ZC_MIN(n, (size_t)ZC_SWIM_SEEDS_MAX);
    struct zc_swim_addr *copy = n ? malloc(n * sizeof(*copy)) : NULL;
    if (n && !copy)
        return;
    if (n)
        memcpy(copy, seeds, n * sizeof(*copy));
    free(s->seeds);
    s->seeds = copy;
    s->seeds_n = n;
    shuffle_seeds(s);
    if (n == 0) {
        s->next_rejoin = NEVER;
        return;
    }
    if (is_alone(s))
        join_more(s);
    set_rejoin(s);
}

void stream_rejoin(struct zc_swim *s)
{
    if (s->leaving || s->seeds_n == 0) {
        s->next_rejoin = NEVER;
        return;
    }
    if (is_alone(s)) {
        s->connected = false;
        shuffle_seeds(s);
        join_more(s);
    } else {
        for (int i = 0; i < SEED_TRIES; i++) {
            const struct zc_swim_addr *a = &s->seeds[swim_random_below(s, (uint32_t)s->seeds_n)];
            if (is_self(s, a) || is_member(s, a))
                continue;
            exchange(s, a, STREAM_JOIN);
            break;
        }
    }
    set_rejoin(s);
}

/* ---- what comes ---- */

/* All entries and what follows them are there, and everybody understands everybody: memberlist's
   verifyProtocol. */
static bool state_fits(const struct zc_swim *s, struct zc_mp_reader r,
                       const struct zc_wire_push_pull *head)
{
    uint8_t least[2] = {0, 0}, most[2] = {255, 255};
    struct zc_wire_alive e;
    struct zc_mp_reader again = r;
    for (uint32_t m = 0; m < s->slots; m++) {
        const struct member *x = &s->members[m];
        if (!x->node || x->state != ZC_SWIM_ALIVE)
            continue;
        for (int i = 0; i < 2; i++) {
            least[i] = ZC_MAX(least[i], x->node->pub.vsn[3 * i]);
            most[i] = ZC_MIN(most[i], x->node->pub.vsn[3 * i + 1]);
        }
    }
    for (int64_t k = 0; k < head->nodes; k++) {
        if (zc_wire_next_entry(&r, &e) < 0)
            return false;
        if (e.state != ZC_SWIM_ALIVE || e.vsn.len < ZC_WIRE_VSN)
            continue;
        for (int i = 0; i < 2; i++) {
            least[i] = ZC_MAX(least[i], e.vsn.p[3 * i]);
            most[i] = ZC_MIN(most[i], e.vsn.p[3 * i + 1]);
        }
    }
    if (head->user_len > r.end - r.p)
        return false;
    for (int64_t k = 0; k < head->nodes; k++) {
        if (zc_wire_next_entry(&again, &e) < 0)
            return false;
        for (int i = 0; e.vsn.len >= ZC_WIRE_VSN && i < 2; i++)
            if (e.vsn.p[3 * i + 2] < least[i] || e.vsn.p[3 * i + 2] > most[i])
                return false;
    }
    return true;
}

static void merge_entry(struct zc_swim *s, const struct zc_wire_alive *e)
{
    struct zc_bytes self = node_name(s->members[s->self].node);
    struct zc_wire_accuse a = {.node = e->node, .from = self, .incarnation = e->incarnation};
    switch (e->state) {
    case ZC_SWIM_ALIVE:
        state_alive(s, e);
        break;
    case ZC_SWIM_LEFT:
        a.from = e->node;
        state_dead(s, &a);
        break;
    case ZC_SWIM_SUSPECT:
    case ZC_SWIM_DEAD: /* never dead at second hand: the node gets its time to refute */
        state_suspect(s, &a);
        break;
    default:
        s->stats.bad++;
        break;
    }
}

/* A push/pull message's body, checked as a whole before any of it counts; r is left at its entries.
 */
static int check_state(struct zc_swim *s, struct zc_mp_reader *r, struct zc_wire_push_pull *head)
{
    if (zc_wire_next_push_pull(r, head) < 0 || head->nodes < 0 || head->user_len < 0 ||
        head->nodes > r->end - r->p || head->user_len > r->end - r->p)
        return -EBADMSG;
    return state_fits(s, *r, head) ? 0 : -EBADMSG;
}

static void merge_state(struct zc_swim *s, struct zc_mp_reader *r,
                        const struct zc_wire_push_pull *head)
{
    for (int64_t k = 0; k < head->nodes; k++) {
        struct zc_wire_alive e;
        if (zc_wire_next_entry(r, &e) < 0)
            return;
        merge_entry(s, &e);
    }
    if (head->user_len > 0) {
        struct zc_swim_event e = {
            .kind = ZC_SWIM_USER_STATE, .user = r->p, .user_len = (size_t)head->user_len};
        s->ops.event(s->arg, &e);
    }
}

static void note_connected(struct zc_swim *s)
{
    if (s->connected)
        return;
    s->connected = true;
    swim_event(s, ZC_SWIM_CONNECTED, NONE);
    stream_extra_in(s, EXTRA_GAP);
}

void zc_swim_stream_reply(struct zc_swim *s, int64_t now, uint32_t id, const uint8_t *p, size_t n)
{
    swim_advance(s, now);
    struct stream *st = stream_find(s, id);
    if (!st)
        return;
    struct stream was = *st;
    st->kind = STREAM_FREE;
    if (was.kind == STREAM_PING) {
        struct zc_wire_ack ack;
        if (n > 0 && p[0] == ZC_WIRE_ACK && zc_wire_read_ack(p + 1, n - 1, &ack) == 0 &&
            ack.seq == was.seq)
            probe_ack(s, ack.seq, true);
        return;
    }
    struct zc_mp_reader r = {p + (n > 0), p + n, false, false};
    struct zc_wire_push_pull head;
    if (n == 0 || p[0] != ZC_WIRE_PUSH_PULL || check_state(s, &r, &head) < 0) {
        s->stats.bad++;
        if (was.kind == STREAM_JOIN)
            join_more(s);
        return;
    }
    if (was.kind == STREAM_JOIN && s->joins_wanted > 0)
        s->joins_wanted--;
    note_connected(s);
    merge_state(s, &r, &head);
}

void zc_swim_stream_failed(struct zc_swim *s, int64_t now, uint32_t id)
{
    swim_advance(s, now);
    struct stream *st = stream_find(s, id);
    if (!st)
        return;
    bool join = st->kind == STREAM_JOIN;
    st->kind = STREAM_FREE;
    if (join)
        join_more(s);
}

static int serve_ping(struct zc_swim *s, const uint8_t *p, size_t n, struct zc_buf *reply)
{
    struct zc_wire_ping m;
    if (zc_wire_read_ping(p, n, &m) < 0)
        return -EBADMSG;
    if (m.node.len > 0 && !name_is(s->members[s->self].node, m.node))
        return 0;
    struct zc_wire_ack ack = {.seq = m.seq};
    return zc_wire_write_ack(reply, &ack);
}

int zc_swim_serve(struct zc_swim *s, int64_t now, const uint8_t *p, size_t n, struct zc_buf *reply)
{
    swim_advance(s, now);
    s->stats.streams_in++;
    int e = -EBADMSG;
    if (n > 0 && p[0] == ZC_WIRE_PING) {
        e = serve_ping(s, p + 1, n - 1, reply);
    } else if (n > 0 && p[0] == ZC_WIRE_USER) {
        s->stats.user_messages++;
        e = 0;
    } else if (n > 0 && p[0] == ZC_WIRE_PUSH_PULL) {
        struct zc_mp_reader r = {p + 1, p + n, false, false};
        struct zc_wire_push_pull head;
        e = check_state(s, &r, &head);
        /* What we know, as it was before. */
        if (e == 0)
            e = write_state(s, head.join, reply);
        if (e == 0)
            merge_state(s, &r, &head);
    }
    if (e < 0)
        s->stats.bad++;
    return e;
}
