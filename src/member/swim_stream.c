/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: the exchange of all state (push/pull), which is how a node joins and how what gossip
 * missed is repaired; and the ping over TCP.
 *
 * A join is an exchange with three seeds: with one, the few messages that it gossips in its first
 * moments, when it knows next to nobody, may reach too few. An exchange soon after a join repairs
 * what those moments lost. When many come or go at once, as when a cluster starts or its parts meet
 * again, gossip tells it fast, but leaves out some by chance: once they are through, exchanges
 * repair that, with one random member after the other: two, and then as long as the last one had
 * something to repair, EXTRA_QUIET at most. Until they are through there are few, with pauses that
 * grow. Seeds that are no members are tried again for ever, a single one at a time: that is what
 * brings the parts of a split cluster together again, since the dead are forgotten after a while.
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
#define EXTRA_QUIET 6
#define BULK 16              /* entries of an exchange: so many names are no news */
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
    exchange(s, &s->members[m].node->pub.addr, STREAM_SYNC);
}

/* That many changes since the last look are many. */
static bool is_churn(const struct zc_swim *s)
{
    return s->changes >= ZC_MAX(4u, s->n_known / 16);
}

static void set_extra(struct zc_swim *s, int64_t gap)
{
    s->changes = s->repaired = 0;
    s->next_extra = s->now + gap + (int64_t)(swim_random(s) % ((uint64_t)gap / 2 + 1));
}

void stream_note_change(struct zc_swim *s)
{
    s->changes++;
    if (s->next_extra != NEVER || !is_churn(s))
        return;
    s->extra_done = 0;
    s->extra_gap = 2 * EXTRA_GAP;
    s->extra_from = s->now + s->extra_gap;
    set_extra(s, EXTRA_GAP);
}

void stream_extra_in(struct zc_swim *s, int64_t gap)
{
    s->extra_done = 1;
    s->extra_due = true;
    set_extra(s, gap);
}

/* Many still come and go: what is exchanged now repairs what was missed before, not what is missed
   after. */
static void extra_in_churn(struct zc_swim *s, bool due)
{
    s->extra_done = 0;
    if (due || s->now >= s->extra_from) {
        stream_sync(s);
        s->extra_gap = ZC_MIN(2 * ZC_MAX(s->extra_gap, EXTRA_GAP), EXTRA_GAP_MAX);
        s->extra_from = s->now + s->extra_gap;
    }
    set_extra(s, EXTRA_GAP);
}

void stream_extra(struct zc_swim *s)
{
    bool due = s->extra_due;
    s->next_extra = NEVER;
    s->extra_due = false;
    if (is_churn(s)) {
        extra_in_churn(s, due);
        return;
    }
    s->extra_gap = 0;
    /* One that found nothing may have met somebody who missed the same. */
    if (s->extra_done >= 2 && s->repaired == 0)
        return;
    stream_sync(s);
    if (++s->extra_done < EXTRA_QUIET)
        set_extra(s, EXTRA_GAP << (s->extra_done > 2 ? s->extra_done - 2 : 0));
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

static bool is_there(const struct zc_swim *s, uint32_t m, const struct zc_swim_addr *a)
{
    const struct member *x = &s->members[m];
    return x->node && (x->state == ZC_SWIM_ALIVE || x->state == ZC_SWIM_SUSPECT) &&
           zc_swim_addr_eq(a, &x->node->pub.addr);
}

static bool is_member(const struct zc_swim *s, struct seed *d)
{
    if (d->slot < s->slots && is_there(s, d->slot, &d->addr))
        return true;
    for (uint32_t m = 0; m < s->slots; m++)
        if (is_there(s, m, &d->addr)) {
            d->slot = m;
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
        const struct zc_swim_addr *to = &s->seeds[s->seeds_tried++].addr;
        if (!is_self(s, to) && !exchange(s, to, STREAM_JOIN))
            break;
    }
}

static void shuffle_seeds(struct zc_swim *s)
{
    for (size_t i = s->seeds_n; i > 1; i--) {
        size_t j = swim_random_below(s, (uint32_t)i);
        struct seed t = s->seeds[i - 1];
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
    struct seed *copy = n ? malloc(n * sizeof(*copy)) : NULL;
    if (n && !copy)
        return;
    for (size_t i = 0; i < n; i++)
        copy[i] = (struct seed){.addr = seeds[i], .slot = NONE};
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
        size_t first = swim_random_below(s, (uint32_t)s->seeds_n);
        for (size_t i = 0; i < ZC_MIN(s->seeds_n, (size_t)SEED_TRIES); i++) {
            struct seed *d = &s->seeds[(first + i) % s->seeds_n];
            if (is_self(s, &d->addr) || is_member(s, d))
                continue;
            exchange(s, &d->addr, STREAM_JOIN);
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
    uint8_t least[2] = {0, 0}, most[2] = {255, 255}, low[2] = {255, 255}, high[2] = {0, 0};
    struct zc_wire_alive e;
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
        if (e.vsn.len < ZC_WIRE_VSN)
            continue;
        for (int i = 0; i < 2; i++) {
            low[i] = ZC_MIN(low[i], e.vsn.p[3 * i + 2]);
            high[i] = ZC_MAX(high[i], e.vsn.p[3 * i + 2]);
            if (e.state != ZC_SWIM_ALIVE)
                continue;
            least[i] = ZC_MAX(least[i], e.vsn.p[3 * i]);
            most[i] = ZC_MIN(most[i], e.vsn.p[3 * i + 1]);
        }
    }
    if (head->user_len > r.end - r.p)
        return false;
    for (int i = 0; i < 2; i++)
        if (low[i] <= high[i] && (low[i] < least[i] || high[i] > most[i]))
            return false;
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
                        const struct zc_wire_push_pull *head, enum tell tell)
{
    uint32_t claims = s->claims.count;
    s->tell = tell;
    s->merging = true;
    for (int64_t k = 0; k < head->nodes; k++) {
        struct zc_wire_alive e;
        if (zc_wire_next_entry(r, &e) < 0)
            break;
        merge_entry(s, &e);
    }
    s->tell = TELL;
    s->merging = false;
    s->repaired += s->claims.count - ZC_MIN(s->claims.count, claims);
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
    struct zc_mp_reader r = {0};
    struct zc_wire_push_pull head;
    bool alone = is_alone(s);
    if (n > 0) /* else there may be no p to count from */
        r = (struct zc_mp_reader){p + 1, p + n, false, false};
    if (n == 0 || p[0] != ZC_WIRE_PUSH_PULL || check_state(s, &r, &head) < 0) {
        s->stats.bad++;
        if (was.kind == STREAM_JOIN)
            join_more(s);
        return;
    }
    enum tell tell = head.nodes <= BULK ? TELL : alone ? TELL_NOT : TELL_LATE;
    if (was.kind == STREAM_JOIN && s->joins_wanted > 0)
        s->joins_wanted--;
    note_connected(s);
    merge_state(s, &r, &head, tell);
    swim_prune(s);
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
            merge_state(s, &r, &head, head.nodes > BULK ? TELL_LATE : TELL);
    }
    if (e < 0)
        s->stats.bad++;
    return e;
}
