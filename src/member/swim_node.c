/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pool of descriptions, and the table of members (see swim_priv.h). Both find by hash with open
 * addressing and linear steps; what is taken out is closed up by moving back what follows.
 */
#include "member/swim_priv.h"
#include "base/digest.h"

#include <assert.h>
#include <string.h>

struct zc_swim_pool {
    struct node **slots;
    uint32_t cap, count;
};

#define HASH_SEED 0x7a63

/* ---- descriptions ---- */

struct zc_swim_pool *zc_swim_pool_new(void)
{
    struct zc_swim_pool *p = calloc(1, sizeof(*p));
    if (!p)
        return NULL;
    p->cap = 64;
    p->slots = calloc(p->cap, sizeof(struct node *));
    if (!p->slots) {
        free(p);
        return NULL;
    }
    return p;
}

void zc_swim_pool_free(struct zc_swim_pool *p)
{
    if (!p)
        return;
    assert(p->count == 0);
    free(p->slots);
    free(p);
}

struct zc_bytes node_name(const struct node *n)
{
    return (struct zc_bytes){(const uint8_t *)n->pub.name, n->pub.name_len};
}

bool name_is(const struct node *n, struct zc_bytes name)
{
    return n->pub.name_len == name.len && memcmp(n->pub.name, name.p, name.len) == 0;
}

static bool node_same(const struct zc_swim_node *a, const struct zc_swim_node *b)
{
    return zc_swim_addr_eq(&a->addr, &b->addr) && a->name_len == b->name_len &&
           a->meta_len == b->meta_len && memcmp(a->name, b->name, a->name_len) == 0 &&
           (a->meta_len == 0 || memcmp(a->meta, b->meta, a->meta_len) == 0) &&
           memcmp(a->vsn, b->vsn, sizeof(a->vsn)) == 0;
}

/* Whether the name ends as ours do, and the data begins as ours does (cluster/desc.h). */
static bool node_foreign(const struct zc_swim_node *n)
{
    if (n->meta_len < 3 || memcmp(n->meta, "zc", 2) != 0 || n->name_len < NONCE_DIGITS + 2 ||
        n->name[n->name_len - NONCE_DIGITS - 1] != '-')
        return true;
    for (int i = 0; i < NONCE_DIGITS; i++) {
        char c = n->name[n->name_len - 1 - i];
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return true;
    }
    return false;
}

static uint64_t node_key(const struct zc_swim_node *n)
{
    uint64_t h = zc_hash64(HASH_SEED, n->name, n->name_len);
    h = zc_hash64(h, n->addr.ip, n->addr.len);
    h = zc_hash64(h + n->addr.port, n->vsn, sizeof(n->vsn));
    return n->meta_len ? zc_hash64(h, n->meta, n->meta_len) : h;
}

static int pool_grow(struct zc_swim_pool *p)
{
    uint32_t cap = p->cap * 2;
    struct node **slots = calloc(cap, sizeof(struct node *));
    if (!slots)
        return -1;
    for (uint32_t i = 0; i < p->cap; i++) {
        if (!p->slots[i])
            continue;
        uint32_t at = (uint32_t)p->slots[i]->key & (cap - 1);
        while (slots[at])
            at = (at + 1) & (cap - 1);
        slots[at] = p->slots[i];
    }
    free(p->slots);
    p->slots = slots;
    p->cap = cap;
    return 0;
}

struct node *node_get(struct zc_swim_pool *p, const struct zc_swim_node *n)
{
    uint64_t key = node_key(n);
    if (p->count >= p->cap / 2 && pool_grow(p) < 0)
        return NULL;
    uint32_t at = (uint32_t)key & (p->cap - 1);
    for (; p->slots[at]; at = (at + 1) & (p->cap - 1))
        if (p->slots[at]->key == key && node_same(&p->slots[at]->pub, n))
            return node_ref(p->slots[at]);
    struct node *new = calloc(1, sizeof(*new) + n->name_len + 1 + n->meta_len);
    if (!new)
        return NULL;
    char *text = (char *)(new + 1);
    memcpy(text, n->name, n->name_len);
    if (n->meta_len)
        memcpy(text + n->name_len + 1, n->meta, n->meta_len);
    new->pub = *n;
    new->pub.name = text;
    new->pub.meta = (uint8_t *)text + n->name_len + 1;
    new->pub.foreign = node_foreign(&new->pub);
    new->hash = zc_hash64(HASH_SEED, n->name, n->name_len);
    new->key = key;
    new->refs = 1;
    p->slots[at] = new;
    p->count++;
    return new;
}

struct node *node_ref(struct node *n)
{
    if (n)
        n->refs++;
    return n;
}

void node_unref(struct zc_swim_pool *p, struct node *n)
{
    if (!n || --n->refs > 0)
        return;
    uint32_t mask = p->cap - 1, hole = (uint32_t)n->key & mask;
    while (p->slots[hole] != n)
        hole = (hole + 1) & mask;
    p->slots[hole] = NULL;
    p->count--;
    for (uint32_t i = (hole + 1) & mask; p->slots[i]; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)p->slots[i]->key & mask;
        if (((i - home) & mask) < ((i - hole) & mask))
            continue; /* it would come before its home */
        p->slots[hole] = p->slots[i];
        p->slots[i] = NULL;
        hole = i;
    }
    free(n);
}

static bool name_ok(struct zc_bytes name)
{
    if (name.len == 0 || name.len > ZC_WIRE_NAME_MAX)
        return false;
    for (size_t i = 0; i < name.len; i++)
        if (name.p[i] < ' ' || name.p[i] == 0x7f)
            return false;
    return true;
}

struct node *node_from_wire(struct zc_swim *s, const struct zc_wire_alive *a)
{
    struct zc_swim_node n = {0};
    if (!name_ok(a->node) || !addr_from_wire(a->addr, a->port, &n.addr) ||
        a->meta.len > ZC_WIRE_META_MAX || a->vsn.len < ZC_WIRE_VSN)
        return NULL;
    n.name = (const char *)a->node.p;
    n.name_len = (uint8_t)a->node.len;
    n.meta = a->meta.p;
    n.meta_len = (uint16_t)a->meta.len;
    memcpy(n.vsn, a->vsn.p, ZC_WIRE_VSN);
    if (n.vsn[ZC_VSN_PMIN] == 0 || n.vsn[ZC_VSN_PMAX] < n.vsn[ZC_VSN_PMIN])
        return NULL;
    return node_get(s->pool, &n);
}

/* ---- members by name ---- */

uint32_t member_find(const struct zc_swim *s, struct zc_bytes name)
{
    if (s->names_cap == 0 || name.len == 0)
        return NONE;
    uint64_t hash = zc_hash64(HASH_SEED, name.p, name.len);
    uint32_t mask = s->names_cap - 1;
    for (uint32_t i = (uint32_t)hash & mask; s->names[i] != NONE; i = (i + 1) & mask) {
        const struct node *n = s->members[s->names[i]].node;
        if (n->hash == hash && name_is(n, name))
            return s->names[i];
    }
    return NONE;
}

static void names_put(const struct zc_swim *s, uint32_t *names, uint32_t cap, uint32_t m)
{
    uint32_t i = (uint32_t)s->members[m].node->hash & (cap - 1);
    while (names[i] != NONE)
        i = (i + 1) & (cap - 1);
    names[i] = m;
}

static int names_grow(struct zc_swim *s)
{
    uint32_t cap = s->names_cap ? s->names_cap * 2 : 16;
    uint32_t *names = malloc(cap * sizeof(uint32_t));
    if (!names)
        return -1;
    memset(names, 0xff, cap * sizeof(uint32_t));
    for (uint32_t i = 0; i < s->names_cap; i++)
        if (s->names[i] != NONE)
            names_put(s, names, cap, s->names[i]);
    free(s->names);
    s->names = names;
    s->names_cap = cap;
    return 0;
}

static void names_remove(struct zc_swim *s, uint32_t m)
{
    uint32_t mask = s->names_cap - 1, hole = (uint32_t)s->members[m].node->hash & mask;
    while (s->names[hole] != m)
        hole = (hole + 1) & mask;
    s->names[hole] = NONE;
    for (uint32_t i = (hole + 1) & mask; s->names[i] != NONE; i = (i + 1) & mask) {
        uint32_t home = (uint32_t)s->members[s->names[i]].node->hash & mask;
        if (((i - home) & mask) < ((i - hole) & mask))
            continue;
        s->names[hole] = s->names[i];
        s->names[i] = NONE;
        hole = i;
    }
}

/* ---- members ---- */

static uint32_t slot_take(struct zc_swim *s)
{
    if (s->free_slot != NONE) {
        uint32_t m = s->free_slot;
        s->free_slot = s->members[m].rumour;
        return m;
    }
    if (s->slots == s->slots_cap) {
        uint32_t cap = s->slots_cap ? s->slots_cap * 2 : 8;
        struct member *p = realloc(s->members, cap * sizeof(*p));
        if (!p)
            return NONE;
        s->members = p;
        s->slots_cap = cap;
    }
    return s->slots++;
}

uint32_t member_add(struct zc_swim *s, struct node *n, uint32_t incarnation)
{
    if (s->n_known + s->n_pending >= s->config.member_max)
        s->stats.full++;
    else if (s->n_known + s->n_pending < s->names_cap / 2 || names_grow(s) == 0) {
        uint32_t m = slot_take(s);
        if (m != NONE) {
            s->members[m] = (struct member){
                .node = n,
                .since = s->now,
                .incarnation = incarnation,
                .rumour = NONE,
                .suspicion = NONE,
                .claim = NONE,
                .state = ZC_SWIM_PENDING,
            };
            names_put(s, s->names, s->names_cap, m);
            s->n_pending++;
            return m;
        }
    }
    node_unref(s->pool, n);
    return NONE;
}

static uint32_t *state_counter(struct zc_swim *s, uint8_t state)
{
    switch ((enum zc_swim_state)state) {
    case ZC_SWIM_ALIVE:
        return &s->n_alive;
    case ZC_SWIM_SUSPECT:
        return &s->n_suspect;
    case ZC_SWIM_PENDING:
        return &s->n_pending;
    default:
        return &s->n_dead;
    }
}

void member_set_state(struct zc_swim *s, uint32_t m, enum zc_swim_state state)
{
    struct member *x = &s->members[m];
    if (x->state == state)
        return;
    --*state_counter(s, x->state);
    ++*state_counter(s, (uint8_t)state);
    if (x->state == ZC_SWIM_PENDING) {
        s->n_known++;
        member_into_order(s, m);
    }
    x->state = (uint8_t)state;
    x->since = s->now;
    x->last_asked = false;
    if ((state == ZC_SWIM_DEAD || state == ZC_SWIM_LEFT) && s->next_reap == NEVER)
        s->next_reap = s->now + s->config.dead_time;
}

void member_drop(struct zc_swim *s, uint32_t m)
{
    struct member *x = &s->members[m];
    rumour_drop(s, m);
    claim_drop(s, m);
    if (x->suspicion != NONE)
        slab_give(&s->suspicions, sizeof(struct suspicion), x->suspicion);
    --*state_counter(s, x->state);
    if (x->state != ZC_SWIM_PENDING)
        s->n_known--;
    names_remove(s, m);
    node_unref(s->pool, x->node);
    x->node = NULL;
    x->rumour = s->free_slot;
    s->free_slot = m;
}

void member_reap(struct zc_swim *s)
{
    s->next_reap = NEVER;
    if (s->n_dead == 0)
        return;
    for (uint32_t m = 0; m < s->slots; m++) {
        struct member *x = &s->members[m];
        if (!x->node || (x->state != ZC_SWIM_DEAD && x->state != ZC_SWIM_LEFT) || m == s->self)
            continue;
        if (x->since + s->config.dead_time > s->now || x->claim != NONE)
            continue;
        /* One that is dead to this node alone would hear of it by chance only, once it is
           forgotten here: it is asked before that. */
        if (x->state == ZC_SWIM_DEAD && !x->last_asked) {
            x->last_asked = true;
            claim_make(s, m, ZC_SWIM_DEAD, x->incarnation, NULL, NULL);
        } else {
            member_drop(s, m);
        }
    }
    if (s->n_dead > 0)
        s->next_reap = s->now + s->config.dead_time / 4 + 1;
}

void member_view(const struct zc_swim *s, uint32_t m, struct zc_swim_view *out)
{
    const struct member *x = &s->members[m];
    out->node = &x->node->pub;
    out->state = x->state;
    out->incarnation = x->incarnation;
    out->since = x->since;
    out->self = m == s->self;
}

size_t member_pick(struct zc_swim *s, unsigned want, uint32_t except, uint32_t *out, size_t n)
{
    size_t got = 0;
    for (uint64_t tries = 3 * (uint64_t)s->slots; tries > 0 && got < n; tries--) {
        uint32_t m = swim_random_below(s, s->slots);
        const struct member *x = &s->members[m];
        if (!x->node || m == s->self || m == except || !(want & 1u << x->state))
            continue;
        size_t i = 0;
        while (i < got && out[i] != m)
            i++;
        if (i == got)
            out[got++] = m;
    }
    return got;
}

void member_into_order(struct zc_swim *s, uint32_t m)
{
    if (s->order_n == s->order_cap) {
        uint32_t cap = s->order_cap ? s->order_cap * 2 : 8;
        uint32_t *p = realloc(s->order, cap * sizeof(*p));
        if (!p)
            return; /* it gets its place when the order is made anew */
        s->order = p;
        s->order_cap = cap;
    }
    s->order[s->order_n++] = m;
    uint32_t at = swim_random_below(s, s->order_n);
    s->order[s->order_n - 1] = s->order[at];
    s->order[at] = m;
}
