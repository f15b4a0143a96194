/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The references are written from their papers, for objects of any size, and kept small: LRU;
 * S3-FIFO (Yang and others, 2023: small queue of a tenth, main queue with a counter up to 3, ghosts
 * as many as the main queue holds); W-TinyLFU (Einziger and others, 2017: window of 1 %, segmented
 * LRU of 80 % protected, count-min sketch of four rows, halved after ten uses a resident).
 */
#include "policysim.h"

#include "cache/policy.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#define NONE UINT32_MAX

const char *const sim_names[SIM_KINDS] = {"zcache", "LRU", "S3-FIFO", "W-TinyLFU"};

struct queue {
    uint32_t head, tail, n;
    uint64_t bytes;
};

struct sim {
    enum sim_kind kind;
    const uint64_t *sizes;
    uint32_t n;
    uint64_t capacity;
    /* zcache */
    struct zc_policy *policy;
    uint64_t used, ahead;
    uint32_t *slot_of, *id_of, *free_slots, n_free;
    /* the others: which queue an object is in (0: none), and its links */
    uint8_t *in, *count;
    uint32_t *next, *prev;
    struct queue q[4];
    uint64_t *ghost, ghosts; /* S3-FIFO: when it became one */
    uint8_t *sketch;         /* W-TinyLFU */
    size_t sketch_n;
    uint64_t sketch_uses, sketch_period;
};

uint64_t sim_random(uint64_t *state)
{
    uint64_t z = *state += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

double sim_uniform(uint64_t *state)
{
    return (double)(sim_random(state) >> 11) * 0x1p-53;
}

double sim_gauss(uint64_t *state)
{
    double u = sim_uniform(state) + 1e-300, v = sim_uniform(state);
    return sqrt(-2 * log(u)) * cos(2 * 3.14159265358979323846 * v);
}

static void *must(void *p)
{
    if (!p)
        abort();
    return p;
}

struct sim *sim_new_told(const uint64_t *sizes, uint32_t n, uint64_t capacity, double times)
{
    struct sim *s = must(calloc(1, sizeof(*s)));
    s->kind = SIM_ZCACHE;
    s->sizes = sizes;
    s->n = n;
    s->capacity = capacity;
    if (zc_policy_new((uint64_t)((double)capacity * times), &s->policy) < 0)
        abort();
    s->slot_of = must(malloc(n * sizeof(uint32_t)));
    s->id_of = must(malloc(n * sizeof(uint32_t)));
    s->free_slots = must(malloc(n * sizeof(uint32_t)));
    memset(s->slot_of, 0xff, n * sizeof(uint32_t));
    for (uint32_t i = n; i > 0; i--)
        s->free_slots[s->n_free++] = i - 1;
    return s;
}

struct sim *sim_new(enum sim_kind kind, const uint64_t *sizes, uint32_t n, uint64_t capacity)
{
    if (kind == SIM_ZCACHE)
        return sim_new_told(sizes, n, capacity, 1);
    struct sim *s = must(calloc(1, sizeof(*s)));
    s->kind = kind;
    s->sizes = sizes;
    s->n = n;
    s->capacity = capacity;
    s->in = must(calloc(n, 1));
    s->count = must(calloc(n, 1));
    s->next = must(malloc(n * sizeof(uint32_t)));
    s->prev = must(malloc(n * sizeof(uint32_t)));
    s->ghost = must(calloc(n, sizeof(uint64_t)));
    for (int i = 0; i < 4; i++)
        s->q[i] = (struct queue){.head = NONE, .tail = NONE};
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += (double)sizes[i];
    uint64_t residents = (uint64_t)((double)capacity / (sum / n));
    s->sketch_n = 1024;
    while (s->sketch_n < residents * 8)
        s->sketch_n *= 2;
    s->sketch = must(calloc(s->sketch_n, 1));
    s->sketch_period = residents * 10;
    return s;
}

void sim_free(struct sim *s)
{
    zc_policy_free(s->policy);
    free(s->slot_of);
    free(s->id_of);
    free(s->free_slots);
    free(s->in);
    free(s->count);
    free(s->next);
    free(s->prev);
    free(s->ghost);
    free(s->sketch);
    free(s);
}

void sim_evict_ahead(struct sim *s, uint64_t bytes)
{
    s->ahead = bytes;
}

/* ---- zcache ---- */

/* The object that is being opened is not evicted. */
static bool sim_may_evict(void *user, uint32_t slot)
{
    return slot != *(const uint32_t *)user;
}

static void sim_room(struct sim *s, uint32_t opened, uint64_t need)
{
    if (s->used + need <= s->capacity)
        return;
    while (s->used + need + s->ahead > s->capacity) {
        uint32_t v = zc_policy_victim(s->policy, sim_may_evict, &opened);
        assert(v != NONE);
        zc_policy_remove(s->policy, v);
        s->used -= s->sizes[s->id_of[v]];
        s->slot_of[s->id_of[v]] = NONE;
        s->free_slots[s->n_free++] = v;
    }
}

static bool zcache_use(struct sim *s, uint32_t id)
{
    if (s->slot_of[id] != NONE) {
        zc_policy_touch(s->policy, s->slot_of[id]);
        return true;
    }
    /* As the cache does it: the object first, then room for its bytes. */
    uint32_t slot = s->free_slots[--s->n_free];
    if (zc_policy_add(s->policy, slot, id, 0) < 0)
        abort();
    zc_policy_touch(s->policy, slot);
    s->slot_of[id] = slot;
    s->id_of[slot] = id;
    sim_room(s, slot, s->sizes[id]);
    s->used += s->sizes[id];
    zc_policy_resize(s->policy, slot, s->sizes[id]);
    return false;
}

/* ---- queues of the others ---- */

static void push(struct sim *s, unsigned q, uint32_t i)
{
    struct queue *l = &s->q[q];
    s->in[i] = (uint8_t)q;
    s->prev[i] = NONE;
    s->next[i] = l->head;
    if (l->head != NONE)
        s->prev[l->head] = i;
    else
        l->tail = i;
    l->head = i;
    l->n++;
    l->bytes += s->sizes[i];
}

static void drop(struct sim *s, uint32_t i)
{
    struct queue *l = &s->q[s->in[i]];
    if (s->prev[i] != NONE)
        s->next[s->prev[i]] = s->next[i];
    else
        l->head = s->next[i];
    if (s->next[i] != NONE)
        s->prev[s->next[i]] = s->prev[i];
    else
        l->tail = s->prev[i];
    l->n--;
    l->bytes -= s->sizes[i];
    s->in[i] = 0;
}

static void move(struct sim *s, unsigned q, uint32_t i)
{
    drop(s, i);
    push(s, q, i);
}

static bool lru_use(struct sim *s, uint32_t id)
{
    if (s->in[id]) {
        move(s, 1, id);
        return true;
    }
    while (s->q[1].bytes + s->sizes[id] > s->capacity)
        drop(s, s->q[1].tail);
    push(s, 1, id);
    return false;
}

enum { S3_SMALL = 1, S3_MAIN = 2 };

static void s3_evict(struct sim *s)
{
    if (s->q[S3_SMALL].bytes > s->capacity / 10 || s->q[S3_MAIN].n == 0) {
        uint32_t v = s->q[S3_SMALL].tail;
        if (s->count[v] > 1) {
            move(s, S3_MAIN, v);
            s->count[v] = 0;
        } else {
            drop(s, v);
            s->ghost[v] = ++s->ghosts;
        }
        return;
    }
    for (;;) {
        uint32_t v = s->q[S3_MAIN].tail;
        if (s->count[v] == 0) {
            drop(s, v);
            return;
        }
        s->count[v]--;
        move(s, S3_MAIN, v);
    }
}

static bool s3_use(struct sim *s, uint32_t id)
{
    if (s->in[id]) {
        s->count[id] = (uint8_t)ZC_MIN(s->count[id] + 1, 3);
        return true;
    }
    while (s->q[S3_SMALL].bytes + s->q[S3_MAIN].bytes + s->sizes[id] > s->capacity)
        s3_evict(s);
    bool ghost = s->ghost[id] && s->ghosts - s->ghost[id] <= s->q[S3_MAIN].n;
    s->count[id] = 0;
    push(s, ghost ? S3_MAIN : S3_SMALL, id);
    return false;
}

enum { TL_WINDOW = 1, TL_PROBATION = 2, TL_PROTECTED = 3 };

static uint8_t *tl_cell(struct sim *s, uint32_t id, unsigned row)
{
    uint64_t seed = (uint64_t)id * 4 + row;
    return &s->sketch[sim_random(&seed) & (s->sketch_n - 1)];
}

static unsigned tl_count(struct sim *s, uint32_t id)
{
    unsigned least = 255;
    for (unsigned row = 0; row < 4; row++)
        least = ZC_MIN(least, (unsigned)*tl_cell(s, id, row));
    return least;
}

static void tl_add(struct sim *s, uint32_t id)
{
    unsigned least = tl_count(s, id);
    for (unsigned row = 0; row < 4 && least < 15; row++)
        if (*tl_cell(s, id, row) == least)
            ++*tl_cell(s, id, row);
    if (++s->sketch_uses < s->sketch_period)
        return;
    for (size_t i = 0; i < s->sketch_n; i++)
        s->sketch[i] >>= 1;
    s->sketch_uses /= 2;
}

static bool tl_use(struct sim *s, uint32_t id)
{
    uint64_t window = s->capacity / 100, main = s->capacity - window;
    tl_add(s, id);
    if (s->in[id] == TL_WINDOW) {
        move(s, TL_WINDOW, id);
        return true;
    }
    if (s->in[id]) {
        move(s, TL_PROTECTED, id);
        while (s->q[TL_PROTECTED].bytes > main / 5 * 4)
            move(s, TL_PROBATION, s->q[TL_PROTECTED].tail);
        return true;
    }
    push(s, TL_WINDOW, id);
    while (s->q[TL_WINDOW].bytes > window && s->q[TL_WINDOW].n > 1) {
        uint32_t c = s->q[TL_WINDOW].tail;
        drop(s, c);
        bool in = true;
        while (in && s->q[TL_PROBATION].bytes + s->q[TL_PROTECTED].bytes + s->sizes[c] > main) {
            uint32_t v = s->q[s->q[TL_PROBATION].n ? TL_PROBATION : TL_PROTECTED].tail;
            in = v != NONE && tl_count(s, c) > tl_count(s, v);
            if (in)
                drop(s, v);
        }
        if (in)
            push(s, TL_PROBATION, c);
    }
    return false;
}

bool sim_use(struct sim *s, uint32_t id)
{
    if (s->sizes[id] > s->capacity)
        return false;
    switch (s->kind) {
    case SIM_ZCACHE:
        return zcache_use(s, id);
    case SIM_LRU:
        return lru_use(s, id);
    case SIM_S3FIFO:
        return s3_use(s, id);
    default:
        return tl_use(s, id);
    }
}
