/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See swim.h and swim_priv.h. Here: creation, time, and what is called from outside.
 *
 * Time: what happens once in each interval has a field of its own, what happens to one of many has
 * an entry in a heap. Entries are not taken out of the heap when they become void: they carry the
 * generation of what they belong to, and do nothing when that has gone.
 */
#include "member/swim_priv.h"

#include <assert.h>
#include <errno.h>
#include <math.h>
#include <string.h>

/* ---- small parts ---- */

uint64_t swim_random(struct zc_swim *s)
{
    return s->ops.random(s->arg);
}

uint32_t swim_random_below(struct zc_swim *s, uint32_t n)
{
    return (uint32_t)((swim_random(s) >> 32) * n >> 32);
}

bool zc_swim_addr_eq(const struct zc_swim_addr *a, const struct zc_swim_addr *b)
{
    return a->len == b->len && a->port == b->port && memcmp(a->ip, b->ip, a->len) == 0;
}

uint32_t slab_take(struct slab *l, size_t size)
{
    uint32_t i = l->free_head;
    if (l->count == l->used) { /* none is free */
        if (l->used == l->cap) {
            uint32_t cap = l->cap ? l->cap * 2 : 8;
            char *p = realloc(l->items, cap * size);
            if (!p)
                return NONE;
            l->items = p;
            l->cap = cap;
        }
        i = l->used++;
    } else {
        memcpy(&l->free_head, l->items + i * size, sizeof(l->free_head));
    }
    l->count++;
    memset(l->items + i * size, 0, size);
    return i;
}

void slab_give(struct slab *l, size_t size, uint32_t index)
{
    memcpy(l->items + index * size, &l->free_head, sizeof(l->free_head));
    l->free_head = index;
    if (--l->count > 0)
        return;
    l->used = 0;
    if (l->cap > 64) { /* a storm is over */
        free(l->items);
        l->items = NULL;
        l->cap = 0;
    }
}

static bool timer_before(const struct timer *a, const struct timer *b)
{
    return a->at < b->at;
}

void swim_timer(struct zc_swim *s, int64_t at, enum timer_kind kind, uint32_t index, uint32_t gen)
{
    if (s->timers_n == s->timers_cap) {
        size_t cap = s->timers_cap ? s->timers_cap * 2 : 16;
        struct timer *t = realloc(s->timers, cap * sizeof(*t));
        if (!t)
            return; /* the probe or suspicion is then ended by a later one, or by the table's bound
                     */
        s->timers = t;
        s->timers_cap = cap;
    }
    size_t i = s->timers_n++;
    struct timer t = {at, gen, index, (uint8_t)kind};
    for (; i > 0 && timer_before(&t, &s->timers[(i - 1) / 2]); i = (i - 1) / 2)
        s->timers[i] = s->timers[(i - 1) / 2];
    s->timers[i] = t;
}

static struct timer timer_pop(struct zc_swim *s)
{
    struct timer first = s->timers[0], last = s->timers[--s->timers_n];
    size_t i = 0, n = s->timers_n;
    for (size_t c; (c = 2 * i + 1) < n; i = c) {
        if (c + 1 < n && timer_before(&s->timers[c + 1], &s->timers[c]))
            c++;
        if (!timer_before(&s->timers[c], &last))
            break;
        s->timers[i] = s->timers[c];
    }
    if (n > 0)
        s->timers[i] = last;
    if (n == 0 && s->timers_cap > 64) {
        free(s->timers);
        s->timers = NULL;
        s->timers_cap = 0;
    }
    return first;
}

void swim_event(struct zc_swim *s, enum zc_swim_event_kind kind, uint32_t m)
{
    struct zc_swim_event e = {.kind = kind};
    if (m != NONE)
        member_view(s, m, &e.who);
    s->ops.event(s->arg, &e);
}

/* ---- configuration ---- */

void zc_swim_defaults_lan(struct zc_swim_config *c)
{
    *c = (struct zc_swim_config){
        .probe_interval = ZC_NS_PER_S,
        .probe_timeout = 500 * ZC_NS_PER_MS,
        .gossip_interval = 200 * ZC_NS_PER_MS,
        .push_pull_interval = 30 * ZC_NS_PER_S,
        .dead_time = 30 * ZC_NS_PER_S,
        .stream_timeout = 10 * ZC_NS_PER_S,
        .rejoin_interval = 30 * ZC_NS_PER_S,
        .push_pull_rate = 512,
        .indirect = 3,
        .gossip_nodes = 3,
        .retransmit_mult = 4,
        .retransmit_min = 8,
        .suspicion_mult = 4,
        .suspicion_max_mult = 6,
        .awareness_max = 8,
        .member_max = 20000,
        .packet_max = ZC_WIRE_PACKET_MAX,
    };
}

void zc_swim_defaults(struct zc_swim_config *c)
{
    zc_swim_defaults_lan(c);
    c->probe_interval = 500 * ZC_NS_PER_MS;
    c->probe_timeout = 200 * ZC_NS_PER_MS;
    c->suspicion_mult = 3;
    c->push_pull_interval = 15 * ZC_NS_PER_S;
}

static bool printable(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s <= ' ' || *s == 0x7f)
            return false;
    return true;
}

static bool config_ok(const struct zc_swim_config *c)
{
    size_t n = c->name ? strlen(c->name) : 0;
    return n > 0 && n <= NAME_BASE_MAX && printable(c->name) && c->addr.port != 0 &&
           (c->addr.len == 4 || c->addr.len == 16) && c->meta_len <= ZC_WIRE_META_MAX &&
           c->probe_interval > 0 && c->probe_timeout > 0 && c->probe_timeout <= c->probe_interval &&
           c->gossip_interval > 0 && c->push_pull_interval > 0 && c->dead_time > 0 &&
           c->stream_timeout > 0 && c->rejoin_interval > 0 && c->push_pull_rate > 0 &&
           c->gossip_nodes <= 16 && c->indirect <= 16 && c->retransmit_mult > 0 &&
           c->retransmit_mult <= 64 && c->retransmit_min <= 64 && c->suspicion_mult > 0 &&
           c->suspicion_mult <= CONFIRM_MAX + 2 && c->suspicion_max_mult > 0 &&
           c->awareness_max > 0 && c->member_max > 1 && c->member_max < (1u << 24) &&
           c->packet_max >= 1000 && c->packet_max <= ZC_WIRE_PACKET_MAX;
}

/* ---- this node ---- */

#define STANDSTILL 4 /* probe intervals; a timer is due in each */

/* Who stood still for long may be dead to others, who do not tell it once they have forgotten it,
   and takes them to be alive, so that it would not ask for long. */
void swim_advance(struct zc_swim *s, int64_t now)
{
    if (now - s->now > STANDSTILL * s->config.probe_interval)
        stream_extra_in(s, 0);
    s->now = ZC_MAX(s->now, now);
}

/* A name that no packet of another life carries. */
static void make_name(struct zc_swim *s, char out[NAME_BASE_MAX + NONCE_DIGITS + 2])
{
    static const char digits[] = "0123456789abcdef";
    uint64_t r = swim_random(s);
    size_t n = strlen(s->base);
    memcpy(out, s->base, n);
    out[n++] = '-';
    for (int i = 0; i < NONCE_DIGITS; i++, r >>= 4)
        out[n++] = digits[r & 15];
    out[n] = '\0';
}

/* The record of this node under a new name; its slot, or NONE. */
static uint32_t make_self(struct zc_swim *s, const uint8_t *meta, size_t meta_len)
{
    char name[NAME_BASE_MAX + NONCE_DIGITS + 2];
    make_name(s, name);
    struct zc_swim_node n = {
        .addr = s->config.addr,
        .name = name,
        .name_len = (uint8_t)strlen(name),
        .meta = meta,
        .meta_len = (uint16_t)meta_len,
        .vsn = {1, 5, 2, s->config.dmin, s->config.dmax, s->config.dcur},
    };
    struct node *node = node_get(s->pool, &n);
    if (!node)
        return NONE;
    uint32_t m = member_add(s, node, 1);
    if (m != NONE)
        member_set_state(s, m, ZC_SWIM_ALIVE);
    return m;
}

struct zc_swim *zc_swim_new(const struct zc_swim_config *c, const struct zc_swim_ops *ops,
                            void *arg, int64_t now)
{
    if (!config_ok(c))
        return NULL;
    struct zc_swim *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->config = *c;
    s->ops = *ops;
    s->arg = arg;
    s->now = now;
    s->self = s->free_slot = s->claim_head = s->claim_tail = NONE;
    s->probe_free = s->last_probe = NONE;
    memcpy(s->base, c->name, strlen(c->name));
    s->parts.max = s->out.max = ZC_MIB;
    s->own_pool = !c->pool;
    s->pool = c->pool ? c->pool : zc_swim_pool_new();
    s->self = s->pool ? make_self(s, c->meta, c->meta_len) : NONE;
    if (s->self == NONE) {
        zc_swim_free(s);
        return NULL;
    }
    s->config.name = NULL;
    s->config.meta = NULL;
    /* Every node has its own place in the interval. */
    s->next_probe = now + (int64_t)(swim_random(s) % (uint64_t)c->probe_interval);
    s->gossip_phase = (int64_t)(swim_random(s) % (uint64_t)c->gossip_interval);
    s->next_sync = now + (int64_t)(swim_random(s) % (uint64_t)c->push_pull_interval);
    s->next_rejoin = s->next_extra = s->next_reap = s->next_gossip = NEVER;
    rumour_add(s, s->self, ZC_WIRE_ALIVE, NULL);
    return s;
}

void zc_swim_free(struct zc_swim *s)
{
    if (!s)
        return;
    s->claim_head = s->claim_tail = NONE; /* so that none is asked any more */
    for (uint32_t m = 0; m < s->slots; m++)
        if (s->members[m].node)
            member_drop(s, m);
    if (s->own_pool)
        zc_swim_pool_free(s->pool);
    free(s->members);
    free(s->names);
    free(s->order);
    free(s->rumours.items);
    free(s->tier_head);
    free(s->tier_tail);
    free(s->suspicions.items);
    free(s->claims.items);
    free(s->timers);
    free(s->seeds);
    free(s->user);
    zc_buf_free(&s->parts);
    zc_buf_free(&s->out);
    free(s);
}

/* The old name says goodbye, as far as it is still believed; the new one starts afresh. */
void swim_rename(struct zc_swim *s)
{
    if (s->renamed_at && s->now - s->renamed_at < 10 * ZC_NS_PER_S)
        return;
    s->renamed_at = s->now;
    uint32_t old = s->self;
    struct node *was = s->members[old].node;
    uint32_t m = make_self(s, was->pub.meta, was->pub.meta_len);
    if (m == NONE)
        return;
    s->self = m;
    /* Its last word is about the incarnation that others may still believe in. */
    state_set_gone(s, old, s->members[old].incarnation, true, node_ref(was));
    rumour_add(s, m, ZC_WIRE_ALIVE, NULL);
    swim_event(s, ZC_SWIM_RENAMED, m);
    stream_note_change(s);
    stream_extra_in(s, 0);
}

int zc_swim_set_meta(struct zc_swim *s, int64_t now, const uint8_t *meta, size_t n)
{
    if (n > ZC_WIRE_META_MAX)
        return -EMSGSIZE;
    swim_advance(s, now);
    struct member *me = &s->members[s->self];
    struct zc_swim_node pub = me->node->pub;
    if (pub.meta_len == n && (n == 0 || memcmp(pub.meta, meta, n) == 0))
        return 0;
    pub.meta = meta;
    pub.meta_len = (uint16_t)n;
    struct node *node = node_get(s->pool, &pub);
    if (!node)
        return -ENOMEM;
    node_unref(s->pool, me->node);
    me->node = node;
    me->incarnation++;
    if (!s->leaving)
        rumour_add(s, s->self, ZC_WIRE_ALIVE, NULL);
    return 0;
}

int zc_swim_set_user_state(struct zc_swim *s, const uint8_t *p, size_t n)
{
    if (n > ZC_MIB)
        return -EMSGSIZE;
    uint8_t *copy = n ? malloc(n) : NULL;
    if (n && !copy)
        return -ENOMEM;
    if (n)
        memcpy(copy, p, n);
    free(s->user);
    s->user = copy;
    s->user_len = n;
    return 0;
}

void zc_swim_leave(struct zc_swim *s, int64_t now)
{
    swim_advance(s, now);
    if (s->leaving)
        return;
    s->leaving = true;
    s->leave_by = s->now + 2 * ZC_NS_PER_S;
    struct node *me = s->members[s->self].node;
    state_set_gone(s, s->self, s->members[s->self].incarnation, true, node_ref(me));
}

/* ---- time ---- */

int64_t zc_swim_next(const struct zc_swim *s)
{
    int64_t t = ZC_MIN(ZC_MIN(s->next_probe, s->next_gossip), ZC_MIN(s->next_sync, s->next_extra));
    t = ZC_MIN(t, ZC_MIN(s->next_rejoin, s->next_reap));
    if (s->leaving && !s->retired)
        t = ZC_MIN(t, s->leave_by);
    return s->timers_n > 0 ? ZC_MIN(t, s->timers[0].at) : t;
}

static void run_timers(struct zc_swim *s)
{
    while (s->timers_n > 0 && s->timers[0].at <= s->now) {
        struct timer t = timer_pop(s);
        switch ((enum timer_kind)t.kind) {
        case TIMER_PROBE:
            probe_timeout(s, t.index, t.gen);
            break;
        case TIMER_SUSPICION:
            state_suspicion_over(s, t.index, t.gen);
            break;
        case TIMER_CLAIM:
            claim_timeout(s, t.index, t.gen);
            break;
        }
    }
}

static bool timer_void(const struct zc_swim *s, const struct timer *t)
{
    switch ((enum timer_kind)t->kind) {
    case TIMER_PROBE:
        return s->probes[t->index].gen != t->gen;
    case TIMER_SUSPICION:
        return t->index >= s->suspicions.used ||
               slab_at(&s->suspicions, struct suspicion, t->index)->gen != t->gen;
    case TIMER_CLAIM:
        return t->index >= s->claims.used || !slab_at(&s->claims, struct claim, t->index)->active ||
               slab_at(&s->claims, struct claim, t->index)->step != t->gen;
    }
    return true;
}

void swim_prune(struct zc_swim *s)
{
    while (s->timers_n > 0 && timer_void(s, &s->timers[0]))
        timer_pop(s);
}

/* The next time after now; a time that was slept through does not come again. */
static int64_t following(const struct zc_swim *s, int64_t due, int64_t interval)
{
    due += interval;
    return due > s->now ? due : s->now + interval;
}

void zc_swim_tick(struct zc_swim *s, int64_t now)
{
    swim_advance(s, now);
    run_timers(s);
    if (s->next_probe <= s->now) {
        s->next_probe = following(s, s->next_probe, s->config.probe_interval);
        if (!s->leaving)
            probe_next(s);
    }
    if (s->next_gossip <= s->now)
        rumour_round(s);
    if (s->next_sync <= s->now) {
        /* Not all at once, although all may have started at once; and at any time as many as at
           any other. */
        double t = (double)stream_sync_interval(s);
        double u = (double)((swim_random(s) >> 11) + 1) / 9007199254740993.0;
        s->next_sync = s->now + (int64_t)ZC_MIN(-log(u) * t, 3 * t) + 1;
        stream_sync(s);
    }
    if (s->next_extra <= s->now)
        stream_extra(s);
    if (s->next_rejoin <= s->now)
        stream_rejoin(s);
    if (s->next_reap <= s->now)
        member_reap(s);
    swim_prune(s);
    bool said = s->rumours.count == 0 || s->n_alive + s->n_suspect == 0;
    if (s->leaving && !s->retired && (said || s->leave_by <= s->now)) {
        s->retired = true;
        swim_event(s, ZC_SWIM_RETIRED, NONE);
    }
}

/* ---- views ---- */

void zc_swim_each(const struct zc_swim *s, void (*fn)(void *arg, const struct zc_swim_view *v),
                  void *arg)
{
    for (uint32_t m = 0; m < s->slots; m++) {
        if (!s->members[m].node || s->members[m].state == ZC_SWIM_PENDING)
            continue;
        struct zc_swim_view v;
        member_view(s, m, &v);
        fn(arg, &v);
    }
}

int zc_swim_find(const struct zc_swim *s, const char *name, struct zc_swim_view *out)
{
    uint32_t m = member_find(s, (struct zc_bytes){(const uint8_t *)name, strlen(name)});
    if (m == NONE || s->members[m].state == ZC_SWIM_PENDING)
        return 0;
    member_view(s, m, out);
    return 1;
}

void zc_swim_self(const struct zc_swim *s, struct zc_swim_view *out)
{
    member_view(s, s->self, out);
}

void zc_swim_stats(const struct zc_swim *s, struct zc_swim_stats *out)
{
    *out = s->stats;
    out->members = s->n_alive + s->n_suspect;
    out->known = s->n_known;
    out->pending = s->n_pending;
    out->suspects = s->n_suspect;
    out->rumours = s->rumours.count;
    out->health = s->health;
}
