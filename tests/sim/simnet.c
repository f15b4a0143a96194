/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See simnet.h. A heap of events: packets and stream messages on their way, and wake-ups, one a
 * node. A node's number is in its address (10.a.b.c), so that delivery needs no table. Streams are
 * modelled as messages that are not lost but late: a round trip for the connection, a
 * retransmission where a packet would have been lost.
 */
#include "simnet.h"
#include "member/swim_priv.h"

#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum kind { PACKET, WAKE, REQUEST, REPLY, FAILED };

struct event {
    int64_t at;
    uint64_t order; /* among equal times */
    uint8_t *data;
    uint32_t n, from, to, life; /* life: of the one that asked, or that is woken */
    uint32_t id;
    uint8_t kind;
};

struct kept {
    uint8_t *data;
    uint32_t n, from;
};

struct sim {
    struct sim_config config;
    struct sim_node *nodes;
    struct zc_swim_pool *pool;
    struct event *heap;
    size_t heap_n, heap_cap;
    uint64_t order, random, handled;
    int64_t now;
    sim_watch *watch;
    void *watch_arg;
    struct kept *kept;
    size_t kept_n, kept_max;
};

/* ---- random numbers: splitmix64 ---- */

uint64_t sim_random(struct sim *s)
{
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

uint32_t sim_below(struct sim *s, uint32_t n)
{
    return (uint32_t)((sim_random(s) >> 32) * n >> 32);
}

double sim_unit(struct sim *s)
{
    return (double)(sim_random(s) >> 11) / 9007199254740992.0;
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->order < b->order);
}

static void push(struct sim *s, struct event e)
{
    if (s->heap_n == s->heap_cap) {
        s->heap_cap = s->heap_cap ? s->heap_cap * 2 : 1024;
        s->heap = realloc(s->heap, s->heap_cap * sizeof(e));
        assert(s->heap);
    }
    e.order = s->order++;
    size_t i = s->heap_n++;
    for (; i > 0 && before(&e, &s->heap[(i - 1) / 2]); i = (i - 1) / 2)
        s->heap[i] = s->heap[(i - 1) / 2];
    s->heap[i] = e;
}

static struct event pop(struct sim *s)
{
    struct event first = s->heap[0], last = s->heap[--s->heap_n];
    size_t i = 0;
    for (size_t c; (c = 2 * i + 1) < s->heap_n; i = c) {
        if (c + 1 < s->heap_n && before(&s->heap[c + 1], &s->heap[c]))
            c++;
        if (!before(&s->heap[c], &last))
            break;
        s->heap[i] = s->heap[c];
    }
    if (s->heap_n > 0)
        s->heap[i] = last;
    return first;
}

static uint8_t *copy(const uint8_t *p, size_t n)
{
    uint8_t *c = malloc(n ? n : 1);
    assert(c);
    if (n)
        memcpy(c, p, n);
    return c;
}

static int64_t delay(struct sim *s)
{
    const struct sim_config *c = &s->config;
    int64_t d = c->delay_min + (int64_t)(sim_unit(s) * (double)(c->delay_max - c->delay_min));
    if (c->tail > 0 && sim_unit(s) < c->tail)
        d += (int64_t)(sim_unit(s) * 9.0 * (double)c->delay_max);
    return d;
}

/* ---- addresses ---- */

static struct zc_swim_addr addr_of(uint32_t i)
{
    return (struct zc_swim_addr){
        .ip = {10, (uint8_t)(i >> 16), (uint8_t)(i >> 8), (uint8_t)i}, .len = 4, .port = 7946};
}

static uint32_t index_of(const struct sim *s, const struct zc_swim_addr *a)
{
    uint32_t i = (uint32_t)a->ip[1] << 16 | (uint32_t)a->ip[2] << 8 | a->ip[3];
    return a->len == 4 && a->ip[0] == 10 && i < s->config.nodes ? i : UINT32_MAX;
}

/* ---- what a core asks for ---- */

static void wake_later(struct sim_node *n)
{
    int64_t at = zc_swim_next(n->core);
    if (at < n->sim->now)
        at = n->sim->now;
    if (at >= n->wake)
        return;
    n->wake = at;
    push(n->sim, (struct event){.at = at, .kind = WAKE, .to = n->index, .life = n->life});
}

static uint64_t op_random(void *arg)
{
    return sim_random(((struct sim_node *)arg)->sim);
}

static void op_packet(void *arg, const struct zc_swim_addr *to, const uint8_t *p, size_t n,
                      bool crc)
{
    (void)crc;
    struct sim_node *me = arg;
    struct sim *s = me->sim;
    uint32_t t = index_of(s, to);
    assert(n <= ZC_WIRE_PACKET_MAX);
    me->udp_bytes += n;
    me->packets++;
    if (t == UINT32_MAX || sim_unit(s) < s->config.loss)
        return;
    int copies = 1 + (s->config.duplicate > 0 && sim_unit(s) < s->config.duplicate);
    while (copies--)
        push(s, (struct event){.at = s->now + delay(s),
                               .kind = PACKET,
                               .data = copy(p, n),
                               .n = (uint32_t)n,
                               .from = me->index,
                               .to = t});
}

static void op_stream(void *arg, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
                      size_t n, int64_t deadline)
{
    struct sim_node *me = arg;
    struct sim *s = me->sim;
    uint32_t t = index_of(s, to);
    int64_t at = s->now + delay(s) + delay(s) + delay(s);
    me->tcp_bytes += n;
    while (s->config.loss > 0 && sim_unit(s) < 2 * s->config.loss)
        at += 200 * SIM_MS;
    struct event e = {.at = at,
                      .kind = REQUEST,
                      .data = copy(p, n),
                      .n = (uint32_t)n,
                      .from = me->index,
                      .to = t,
                      .life = me->life,
                      .id = id};
    bool open = t != UINT32_MAX && s->nodes[t].core && s->nodes[t].group == me->group &&
                !s->nodes[t].deaf && at < deadline && !(s->config.no_tcp_ping && n < 200);
    if (!open) {
        free(e.data);
        e.data = NULL;
        e.kind = FAILED;
        e.at = deadline;
        e.to = me->index;
    }
    push(s, e);
}

static void op_event(void *arg, const struct zc_swim_event *e)
{
    struct sim_node *me = arg;
    struct sim *s = me->sim;
    if (!s->watch)
        return;
    uint32_t about = e->who.node ? index_of(s, &e->who.node->addr) : UINT32_MAX;
    bool this_life = false;
    if (about != UINT32_MAX && s->nodes[about].core) {
        struct zc_swim_view v;
        zc_swim_self(s->nodes[about].core, &v);
        this_life = v.node == e->who.node || strcmp(v.node->name, e->who.node->name) == 0;
    }
    s->watch(s->watch_arg, me, e, about, this_life);
}

/* ---- delivery ---- */

static void keep(struct sim *s, const struct event *e)
{
    if (s->kept_n >= s->kept_max)
        return;
    s->kept[s->kept_n++] = (struct kept){.data = copy(e->data, e->n), .n = e->n, .from = e->from};
}

static void deliver_packet(struct sim *s, struct event *e)
{
    struct sim_node *to = &s->nodes[e->to];
    if (!to->core || to->deaf || to->group != s->nodes[e->from].group)
        return;
    keep(s, e);
    struct zc_swim_addr from = addr_of(e->from);
    zc_swim_packet(to->core, s->now, &from, e->data, e->n);
    wake_later(to);
}

static void deliver_request(struct sim *s, struct event *e)
{
    struct sim_node *to = &s->nodes[e->to];
    zc_autobuf struct zc_buf reply = {.max = ZC_WIRE_STREAM_MAX};
    bool open = to->core && !to->deaf && to->group == s->nodes[e->from].group;
    bool ok = open && zc_swim_serve(to->core, s->now, e->data, e->n, &reply) == 0 && reply.len > 0;
    if (open)
        wake_later(to);
    to->tcp_bytes += reply.len;
    push(s, (struct event){.at = s->now + delay(s),
                           .kind = ok ? REPLY : FAILED,
                           .data = copy((uint8_t *)reply.p, reply.len),
                           .n = (uint32_t)reply.len,
                           .from = e->to,
                           .to = e->from,
                           .life = e->life,
                           .id = e->id});
}

static void handle(struct sim *s, struct event *e)
{
    struct sim_node *to = &s->nodes[e->to];
    switch ((enum kind)e->kind) {
    case PACKET:
        deliver_packet(s, e);
        break;
    case REQUEST:
        deliver_request(s, e);
        break;
    case WAKE:
        if (!to->core || to->life != e->life || to->wake != e->at)
            break; /* one that came sooner has taken its place */
        to->wake = INT64_MAX;
        if (to->deaf) {
            to->wake = s->now + 50 * SIM_MS;
            push(s, (struct event){.at = to->wake, .kind = WAKE, .to = e->to, .life = e->life});
            break;
        }
        zc_swim_tick(to->core, s->now);
        wake_later(to);
        break;
    case REPLY:
    case FAILED:
        if (!to->core || to->life != e->life)
            break;
        if (e->kind == REPLY)
            zc_swim_stream_reply(to->core, s->now, e->id, e->data, e->n);
        else
            zc_swim_stream_failed(to->core, s->now, e->id);
        wake_later(to);
        break;
    }
    free(e->data);
}

void sim_run(struct sim *s, int64_t ns)
{
    int64_t end = s->now + ns;
    while (s->heap_n > 0 && s->heap[0].at <= end) {
        struct event e = pop(s);
        s->now = e.at;
        s->handled++;
        handle(s, &e);
    }
    s->now = end;
}

int64_t sim_until(struct sim *s, bool (*done)(struct sim *s, void *arg), void *arg, int64_t step,
                  int64_t most)
{
    int64_t start = s->now;
    while (!done(s, arg)) {
        if (s->now - start >= most)
            return -1;
        sim_run(s, step);
    }
    return s->now - start;
}

/* ---- nodes ---- */

void sim_defaults(struct sim_config *c, uint32_t nodes, uint64_t seed)
{
    *c = (struct sim_config){
        .nodes = nodes,
        .seed = seed,
        .delay_min = 100 * 1000,
        .delay_max = SIM_MS,
        .meta_len = 64,
    };
    zc_swim_defaults(&c->swim);
}

struct sim *sim_new(const struct sim_config *c)
{
    struct sim *s = calloc(1, sizeof(*s));
    assert(s);
    s->config = *c;
    s->random = c->seed;
    s->now = SIM_S;
    s->nodes = calloc(c->nodes, sizeof(*s->nodes));
    s->pool = zc_swim_pool_new();
    assert(s->nodes && s->pool);
    for (uint32_t i = 0; i < c->nodes; i++) {
        s->nodes[i].sim = s;
        s->nodes[i].index = i;
    }
    return s;
}

void sim_free(struct sim *s)
{
    for (uint32_t i = 0; i < s->config.nodes; i++)
        zc_swim_free(s->nodes[i].core);
    for (size_t i = 0; i < s->heap_n; i++)
        free(s->heap[i].data);
    for (size_t i = 0; i < s->kept_n; i++)
        free(s->kept[i].data);
    zc_swim_pool_free(s->pool);
    free(s->kept);
    free(s->heap);
    free(s->nodes);
    free(s);
}

int64_t sim_now(const struct sim *s)
{
    return s->now;
}

struct sim_node *sim_node(struct sim *s, uint32_t i)
{
    return &s->nodes[i];
}

struct sim_config *sim_settings(struct sim *s)
{
    return &s->config;
}

void sim_set_watch(struct sim *s, sim_watch *watch, void *arg)
{
    s->watch = watch;
    s->watch_arg = arg;
}

void sim_start(struct sim *s, uint32_t i, const uint32_t *seeds, size_t n)
{
    static const struct zc_swim_ops ops = {op_random, op_packet, op_stream, op_event};
    struct sim_node *node = &s->nodes[i];
    assert(!node->core && n <= 16);
    char name[32];
    uint8_t meta[ZC_WIRE_META_MAX] = "zc\x01";
    struct zc_swim_config c = s->config.swim;
    snprintf(name, sizeof(name), "node%05u", i);
    memcpy(meta + 4, &i, sizeof(i));
    c.name = name;
    c.addr = addr_of(i);
    c.meta = meta;
    c.meta_len = s->config.meta_len;
    c.pool = s->pool;
    node->life++;
    node->wake = INT64_MAX;
    node->deaf = false;
    node->core = zc_swim_new(&c, &ops, node, s->now);
    assert(node->core);
    struct zc_swim_addr addrs[16];
    for (size_t k = 0; k < n; k++)
        addrs[k] = addr_of(seeds[k]);
    zc_swim_join(node->core, s->now, addrs, n);
    wake_later(node);
}

/* What joins, answers and gossip would have done, without the N^2 packets that they take. */
void sim_start_all(struct sim *s)
{
    uint32_t nodes = s->config.nodes;
    for (uint32_t i = 0; i < nodes; i++)
        sim_start(s, i, NULL, 0);
    for (uint32_t i = 0; i < nodes; i++) {
        struct zc_swim *me = s->nodes[i].core;
        rumour_drop(me, me->self);
        for (uint32_t k = 1; k < nodes; k++) {
            const struct zc_swim *other = s->nodes[(i + k) % nodes].core;
            struct node *n = node_ref(other->members[other->self].node);
            uint32_t m = member_add(me, n, other->members[other->self].incarnation);
            assert(m != NONE);
            member_set_state(me, m, ZC_SWIM_ALIVE);
        }
        struct zc_swim_addr seeds[3];
        for (int k = 0; k < 3; k++)
            seeds[k] = addr_of((i + 1 + sim_below(s, nodes - 1)) % nodes);
        zc_swim_join(me, s->now, seeds, 3);
        me->connected = true;
        me->state_size = (size_t)nodes * 170;
        double t = (double)stream_sync_interval(me);
        me->next_sync = s->now + (int64_t)(-log(1 - sim_unit(s)) * t);
        wake_later(&s->nodes[i]);
    }
}

void sim_kill(struct sim *s, uint32_t i)
{
    zc_swim_free(s->nodes[i].core);
    s->nodes[i].core = NULL;
}

void sim_leave(struct sim *s, uint32_t i)
{
    zc_swim_leave(s->nodes[i].core, s->now);
    wake_later(&s->nodes[i]);
}

void sim_nudge(struct sim *s, uint32_t i)
{
    wake_later(&s->nodes[i]);
}

/* ---- what they see ---- */

static uint32_t nodes_up(const struct sim *s)
{
    uint32_t up = 0;
    for (uint32_t i = 0; i < s->config.nodes; i++)
        up += s->nodes[i].core != NULL;
    return up;
}

bool sim_agreed(struct sim *s, void *unused)
{
    (void)unused;
    uint32_t up = nodes_up(s);
    for (uint32_t i = 0; i < s->config.nodes; i++) {
        struct zc_swim_stats st;
        if (!s->nodes[i].core)
            continue;
        zc_swim_stats(s->nodes[i].core, &st);
        if (st.members != up || st.suspects > 0)
            return false;
    }
    return sim_wrong_views(s) == 0;
}

struct viewing {
    struct sim *s;
    uint64_t right, wrong;
};

static void see(void *arg, const struct zc_swim_view *v)
{
    struct viewing *w = arg;
    if (v->state != ZC_SWIM_ALIVE && v->state != ZC_SWIM_SUSPECT)
        return;
    uint32_t i = index_of(w->s, &v->node->addr);
    struct zc_swim_view self;
    if (i != UINT32_MAX && w->s->nodes[i].core) {
        zc_swim_self(w->s->nodes[i].core, &self);
        if (self.node == v->node || strcmp(self.node->name, v->node->name) == 0) {
            w->right++;
            return;
        }
    }
    w->wrong++;
}

uint64_t sim_wrong_at_least(struct sim *s)
{
    uint64_t up = nodes_up(s), wrong = 0;
    for (uint32_t i = 0; i < s->config.nodes; i++) {
        struct zc_swim_stats st;
        if (!s->nodes[i].core)
            continue;
        zc_swim_stats(s->nodes[i].core, &st);
        wrong += st.members > up ? st.members - up : up - st.members;
    }
    return wrong;
}

uint64_t sim_wrong_views(struct sim *s)
{
    uint64_t up = nodes_up(s);
    struct viewing w = {.s = s};
    for (uint32_t i = 0; i < s->config.nodes; i++)
        if (s->nodes[i].core)
            zc_swim_each(s->nodes[i].core, see, &w);
    return w.wrong + up * up - w.right;
}

void sim_record(struct sim *s, size_t most)
{
    while (s->kept_n > most)
        free(s->kept[--s->kept_n].data);
    s->kept = realloc(s->kept, (most + 1) * sizeof(*s->kept));
    assert(s->kept);
    s->kept_max = most;
}

size_t sim_replay(struct sim *s, size_t n)
{
    size_t done = 0;
    size_t max = s->kept_max;
    s->kept_max = s->kept_n; /* what is replayed is not kept again */
    for (size_t k = 0; k < n && s->kept_n > 0; k++) {
        const struct kept *p = &s->kept[sim_random(s) % s->kept_n];
        uint32_t to = sim_below(s, s->config.nodes);
        if (!s->nodes[to].core)
            continue;
        struct zc_swim_addr from = addr_of(p->from);
        zc_swim_packet(s->nodes[to].core, s->now, &from, p->data, p->n);
        wake_later(&s->nodes[to]);
        done++;
    }
    s->kept_max = max;
    return done;
}

void sim_take_totals(struct sim *s, struct sim_totals *out)
{
    *out = (struct sim_totals){.events = s->handled};
    s->handled = 0;
    for (uint32_t i = 0; i < s->config.nodes; i++) {
        struct sim_node *n = &s->nodes[i];
        out->udp_bytes += n->udp_bytes;
        out->tcp_bytes += n->tcp_bytes;
        out->packets += n->packets;
        n->udp_bytes = n->tcp_bytes = n->packets = 0;
    }
}
