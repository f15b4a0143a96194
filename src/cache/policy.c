/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Window and gaps: the eviction policy.
 *
 * Training reads a data set over and over, each item once an epoch, mostly in a new order. What is
 * worth most then is not what was used last (LRU hits on nothing in an order that repeats), nor
 * what was counted most: all items have equal counts, give or take those that this epoch has not
 * reached yet, and a sketch that is halved meanwhile makes these look old. So nothing is counted
 * here. What is measured is the gap: how many uses of anything lie between two uses of one object.
 *
 * - A newcomer enters a small window (FIFO, 1 % of the bytes). At its end it is compared with the
 * resident that was idle for longest (the main list is LRU), and one of the two goes. Ties stay.
 * - A newcomer without a known gap (never seen before, as far as the history of evicted keys tells)
 * goes: a scan passes through the window, however long it is. Its second pass is a workload like
 * any other.
 * - One that is known to come back is let in if the resident is dead, that is, idle for longer than
 * the gaps that are usual lately (the longest of a sample, but for one in 200: strays must not
 * count). While epochs go on no resident is ever dead: at any moment of an epoch those that wait
 * for their turn have been idle for just as long as the gaps of those whose turn it is, shuffled or
 * not. So a data set larger than the cache keeps its residents, and hits on capacity / size. When
 * the workload changes, the gaps are those of the new one, its second pass finds all of the old one
 * dead, and replaces it.
 * - Or if its average gap is GAIN times shorter than the resident has been idle (what a small new
 * data set, or a popular object, looks like). Within a factor of GAIN chance decides who looks
 * better, so that the resident stays. Sizes come in here: the worth of a byte is the rate of use
 * times (1 + 1 MiB / size), a request costing about as much as 1 MiB; its square root, since a gap
 * is a guess.
 * - If no gap lets anybody in for a very long time (16 times the number of residents: the history
 * does not reach so far), one newcomer in 16 replaces the most idle resident. So no state is for
 * ever.
 *
 * A use shortly after another one (a file opened twice by its reader) is one use.
 *
 * History: evicted keys with the time of their last use and their average gap, in buckets of eight,
 * the oldest replaced; 16 keys a resident, 8 bytes each, 16 MiB at the most. Where that holds fewer
 * than 8 keys a resident, one key in 2, 4, ... is remembered, picked by its hash, and a key that is
 * not picked is treated like the picked one that came before it.
 *
 * Capacity is what was held when room was needed last: the free-space floor of the disk may be
 * reached before the configured size, and the cache may evict ahead of need.
 *
 * Copies of what another node owns and can be asked for go before all else, because losing one
 * costs a way over the local network and not one to the store. Among themselves they are judged as
 * above, in queues of their own; gaps and history are common, so that one that becomes this node's
 * own, when the other node has gone, is not a newcomer.
 *
 * Measured by tests/unit/test_policy.c (5,000 residents of equal size; share of accesses that hit):
 *                                                this   LRU    S3-FIFO  W-TinyLFU
 *   epochs, data set 2 x capacity, shuffled      0.494  0.153  0.191    0.387
 *   the same order each time                     0.495  0.000  0.000    0.495
 *   epochs, data set 10 x capacity, shuffled     0.099  0.005  0.006    0.053
 *   3rd pass of a new data set 0.5 x after 2 x   0.975  1.000  1.000    0.073
 *   3rd pass of a new data set 2 x after 0.9 x   0.477  0.154  0.180    0.049
 *   working set 0.9 x, after a scan of 3 x       1.000  0.000  1.000    0.988
 *   Zipf 0.8, cache holds 10 % of the objects    0.575  0.461  0.550    0.558
 *   Zipf 1.0, cache holds 10 % of the objects    0.788  0.721  0.775    0.777
 * Memory: 24 bytes a slot, and the history. All calls are O(1), amortised where a table doubles.
 *
 * After: LIRS (Jiang and Zhang, 2002) for gaps against idleness, W-TinyLFU (Einziger, Friedman and
 * Manes, 2017) for the window in front of an admission, SHARDS (Waldspurger and others, 2015) for
 * picking keys by hash.
 */
#include "cache/policy.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#define NONE UINT32_MAX
#define WINDOW_PART 100 /* of the capacity */
#define GAIN 8
#define REQUEST_WORTH ZC_MIB /* bytes that cost as much as a request */
#define NEAR_MIN 2u          /* uses of others between two uses that count */
#define NEAR_MAX 64u
#define TRICKLE 16        /* one newcomer in so many, after so many times the residents */
#define ASK_MAX 1024      /* questions to may_evict in one search */
#define GAPS 256          /* remembered */
#define GAPS_LEFT_OUT 200 /* one in so many */
#define GAPS_SLACK 32     /* one part in so many */
#define SEGMENT_BITS 14
#define SEGMENT ((uint32_t)1 << SEGMENT_BITS)

#define WAYS 8
#define HISTORY_MIN ((size_t)64 << 10)
#define HISTORY_MAX ((size_t)2 << 20)
#define KEYS_WANTED 16 /* remembered for each resident */
#define KEYS_NEEDED 8  /* below that: a sample of them */
#define USED_ONCE 255  /* gap code in the history */

enum place { FREE, WINDOW, MAIN };
enum part_of { OWN, COPY, PARTS };

struct slot {
    uint32_t hash;
    uint32_t size;       /* bytes; with the top bit set, units of 4 KiB */
    uint32_t prev, next; /* prev: towards the newest */
    uint32_t last;       /* clock at the last use that counted */
    uint8_t gap;         /* code of the average gap; 0: not known */
    uint8_t place;
    bool fresh;   /* the use that it was added for is still to be told */
    uint8_t copy; /* its part: OWN or COPY */
};
_Static_assert(sizeof(struct slot) == 24, "24 bytes a slot are promised");

struct queue {
    uint32_t newest, oldest;
    uint32_t n;
    uint64_t bytes;
    /* Where the next search goes on: those behind it were refused. It starts afresh from the oldest
       after as many searches as there were refusals, so that a refused one costs two questions at
       most for each search. */
    uint32_t hand, refused, searches;
};

struct ghost {
    uint32_t last;
    uint32_t tag; /* upper 24 bits of the hash, gap code; 0: empty */
};

/* Copies have queues of their own, and compete among themselves only. */
struct part {
    struct queue window, main;
    uint64_t capacity; /* see the head of this file */
    uint64_t credit;   /* bytes that newcomers won from residents and have not filled */
    bool pressed;      /* a victim was asked for since the last growth */
    bool filling;      /* there is room for all: newcomers need not prove themselves */
};

struct zc_policy {
    struct slot **segments; /* of SEGMENT slots each: no big copy while the cache grows */
    uint32_t n_segments;
    struct part parts[PARTS];
    uint32_t clock; /* uses; wraps, only differences count */
    uint64_t random;

    struct ghost *history;
    size_t n_history;  /* a power of two */
    unsigned sample;   /* one key in 2^sample is remembered */
    uint8_t neighbour; /* gap code of the last newcomer that was looked up */

    struct gap {
        uint32_t when, gap;
    } gaps[GAPS];          /* lately, a ring */
    uint32_t n_gaps;       /* ever written */
    uint32_t judged;       /* clock when the two below were found */
    uint32_t usual, among; /* nearly the longest gap lately, and of how many; 0 of 0: too few */
    uint32_t longest;      /* usual in the long run; fades */
};

static struct slot *slot_at(const struct zc_policy *p, uint32_t i)
{
    return &p->segments[i >> SEGMENT_BITS][i & (SEGMENT - 1)];
}

/* ---- codes ---- */

#define SIZE_UNITS ((uint32_t)1 << 31)

static uint32_t size_pack(uint64_t bytes)
{
    if (bytes < SIZE_UNITS)
        return (uint32_t)bytes;
    return SIZE_UNITS | (uint32_t)ZC_MIN((bytes >> 12) + 1, (uint64_t)SIZE_UNITS - 1);
}

static uint64_t size_of(const struct slot *s)
{
    return s->size & SIZE_UNITS ? (uint64_t)(s->size & ~SIZE_UNITS) << 12 : s->size;
}

/* A float of 5 bits exponent and 3 bits mantissa, exact below 16; never 0 nor USED_ONCE. */
static uint8_t gap_pack(uint64_t g)
{
    if (g < 8)
        return (uint8_t)ZC_MAX(g, (uint64_t)1);
    unsigned e = 63 - (unsigned)__builtin_clzll(g);
    unsigned code = (e - 2) << 3 | ((unsigned)(g >> (e - 3)) & 7);
    return (uint8_t)ZC_MIN(code, (unsigned)USED_ONCE - 1);
}

static uint64_t gap_of(uint8_t code)
{
    return code < 16 ? code : (uint64_t)(8 + (code & 7)) << ((code >> 3) - 1);
}

/* Average with what was known. */
static uint8_t gap_mix(uint8_t code, uint32_t gap)
{
    return gap_pack(code ? (gap_of(code) + gap) / 2 : gap);
}

/* Keys may be anything, so they are mixed (the finaliser of MurmurHash3, Appleby). */
static uint32_t hash_of(uint64_t key)
{
    key ^= key >> 33;
    key *= 0xff51afd7ed558ccdULL;
    key ^= key >> 33;
    key *= 0xc4ceb9fe1a85ec53ULL;
    key ^= key >> 33;
    return (uint32_t)key;
}

/* ---- queues ---- */

static struct queue *queue_of(struct zc_policy *p, const struct slot *s)
{
    struct part *t = &p->parts[s->copy];
    return s->place == MAIN ? &t->main : &t->window;
}

/* Residents that have proven themselves, and all of them. */
static uint32_t policy_mains(const struct zc_policy *p)
{
    return p->parts[OWN].main.n + p->parts[COPY].main.n;
}

static uint32_t policy_residents(const struct zc_policy *p)
{
    return policy_mains(p) + p->parts[OWN].window.n + p->parts[COPY].window.n;
}

static void queue_push(struct zc_policy *p, enum place place, uint32_t i)
{
    struct slot *s = slot_at(p, i);
    s->place = (uint8_t)place;
    struct queue *q = queue_of(p, s);
    s->prev = NONE;
    s->next = q->newest;
    if (q->newest != NONE)
        slot_at(p, q->newest)->prev = i;
    else
        q->oldest = i;
    q->newest = i;
    q->n++;
    q->bytes += size_of(s);
}

static void queue_unlink(struct zc_policy *p, uint32_t i)
{
    struct slot *s = slot_at(p, i);
    struct queue *q = queue_of(p, s);
    if (q->hand == i)
        q->hand = s->prev;
    if (s->prev != NONE)
        slot_at(p, s->prev)->next = s->next;
    else
        q->newest = s->next;
    if (s->next != NONE)
        slot_at(p, s->next)->prev = s->prev;
    else
        q->oldest = s->prev;
    q->n--;
    q->bytes -= size_of(s);
    s->place = FREE;
}

/* The oldest that may go, or NONE after a bounded number of refusals. */
static uint32_t queue_find(struct zc_policy *p, struct queue *q,
                           bool (*may_evict)(void *user, uint32_t slot), void *user)
{
    if (q->hand == NONE || q->searches >= q->refused) {
        q->hand = q->oldest;
        q->refused = q->searches = 0;
    }
    q->searches++;
    for (unsigned asked = 0; q->hand != NONE && asked < ASK_MAX; asked++) {
        if (may_evict(user, q->hand))
            return q->hand;
        q->hand = slot_at(p, q->hand)->prev;
        q->refused++;
    }
    return NONE;
}

/* ---- history ---- */

static bool history_keeps(const struct zc_policy *p, uint32_t hash)
{
    return p->sample == 0 || hash >> (32 - p->sample) == 0;
}

static struct ghost *history_bucket(const struct zc_policy *p, uint32_t hash)
{
    return &p->history[(hash & (p->n_history / WAYS - 1)) * WAYS];
}

static void history_put(struct zc_policy *p, uint32_t hash, uint32_t last, uint8_t code)
{
    struct ghost *b = history_bucket(p, hash), *to = b;
    for (int i = 0; i < WAYS; i++) {
        if (b[i].tag == 0 || b[i].tag >> 8 == hash >> 8) {
            to = &b[i];
            break;
        }
        if (p->clock - b[i].last > p->clock - to->last)
            to = &b[i];
    }
    *to = (struct ghost){.last = last, .tag = (hash & ~(uint32_t)255) | code};
}

/* Takes the key out: it is a resident now. */
static bool history_take(struct zc_policy *p, uint32_t hash, struct ghost *out)
{
    struct ghost *b = history_bucket(p, hash);
    for (int i = 0; i < WAYS; i++) {
        if (b[i].tag && b[i].tag >> 8 == hash >> 8) {
            *out = b[i];
            b[i].tag = 0;
            return true;
        }
    }
    return false;
}

/* Keeps pace with the number of residents. Without memory for more it stays as it is. */
static void history_grow(struct zc_policy *p)
{
    size_t n = policy_residents(p);
    while (n * KEYS_NEEDED >> p->sample > HISTORY_MAX)
        p->sample++;
    if (n * KEYS_WANTED <= p->n_history || p->n_history >= HISTORY_MAX)
        return;
    struct ghost *old = p->history;
    size_t n_old = p->n_history;
    struct ghost *more = calloc(n_old * 2, sizeof(*more));
    if (!more)
        return;
    p->history = more;
    p->n_history = n_old * 2;
    for (size_t i = 0; i < n_old; i++) {
        /* The bucket's number holds the hash's low bits, which the tag has not. */
        uint32_t hash = (old[i].tag & ~(uint32_t)255) | ((uint32_t)(i / WAYS) & 255);
        if (old[i].tag)
            history_put(p, hash, old[i].last, (uint8_t)(old[i].tag & 255));
    }
    free(old);
}

/* ---- gaps lately ---- */

/* Uses that "lately" spans. */
static uint32_t gaps_span(const struct zc_policy *p)
{
    return ZC_MAX(policy_mains(p) / 8, 32u);
}

/* A gap was seen. A sample of them, spread over the span, is enough. */
static void gaps_add(struct zc_policy *p, uint32_t gap)
{
    const struct gap *last = &p->gaps[(p->n_gaps - 1) % GAPS];
    if (p->n_gaps > 0 && p->clock - last->when < gaps_span(p) / GAPS)
        return;
    p->gaps[p->n_gaps++ % GAPS] = (struct gap){.when = p->clock, .gap = gap};
}

/* Finds `usual` anew now and then: not the very longest, for a few gaps may belong to something
   else (an old file that somebody looks at, two keys of one hash), but the longest after one in a
   hundred was left out. */
static void gaps_judge(struct zc_policy *p)
{
    uint32_t span = gaps_span(p), n = 0, top[GAPS / GAPS_LEFT_OUT + 1] = {0};
    if (p->clock - p->judged < span / 8)
        return;
    p->judged = p->clock;
    uint32_t have = ZC_MIN(p->n_gaps, (uint32_t)GAPS);
    for (uint32_t i = 0; i < have; i++)
        n += p->clock - p->gaps[i].when <= span;
    uint32_t k = n / GAPS_LEFT_OUT;
    for (uint32_t i = 0; i < have; i++) {
        uint32_t g = p->gaps[i].gap;
        if (p->clock - p->gaps[i].when > span || g <= top[k])
            continue;
        uint32_t at = k;
        for (; at > 0 && top[at - 1] < g; at--)
            top[at] = top[at - 1];
        top[at] = g;
    }
    bool enough = n >= ZC_MAX(ZC_MIN(policy_mains(p) / 64, (uint32_t)GAPS / 4) >> p->sample, 8u);
    p->usual = enough ? top[k] : 0;
    p->among = enough ? n : 0;
    p->longest = ZC_MAX(p->longest - p->longest / 256, p->usual);
}

/* Idle for longer than what comes back nowadays? The longest of n gaps is short of the true limit
   by one part in n on average; the slack is three, and 1/48. */
static bool gaps_dead(const struct zc_policy *p, uint32_t idle)
{
    return p->among > 0 &&
           idle > (uint64_t)p->usual + p->usual / GAPS_SLACK + 3 * (uint64_t)p->usual / p->among;
}

/* ---- who goes ---- */

static double policy_weight(const struct slot *s)
{
    double bytes = (double)size_of(s) + 1;
    return bytes / (bytes + (double)REQUEST_WORTH);
}

static bool policy_chance(struct zc_policy *p)
{
    p->random ^= p->random << 13;
    p->random ^= p->random >> 7;
    p->random ^= p->random << 17;
    return (p->random >> 32) % TRICKLE == 0;
}

/* Does the newcomer replace the resident? */
static bool policy_replaces(struct zc_policy *p, struct slot *newcomer, const struct slot *resident)
{
    uint32_t idle = p->clock - resident->last;
    if (newcomer->gap) {
        if (gaps_dead(p, idle))
            return true;
        double gap = GAIN * (double)gap_of(newcomer->gap);
        return gap * gap * policy_weight(newcomer) <
               (double)idle * (double)idle * policy_weight(resident);
    }
    if (idle <= ZC_MAX((uint64_t)policy_mains(p) * TRICKLE, (uint64_t)p->longest * 2) ||
        !policy_chance(p))
        return false;
    newcomer->gap = gap_pack(idle);
    return true;
}

/* Bytes that the main queue should hold. */
static uint64_t part_share(const struct part *t)
{
    return t->capacity - t->capacity / WINDOW_PART;
}

static void policy_admit(struct zc_policy *p, uint32_t i)
{
    struct part *t = &p->parts[slot_at(p, i)->copy];
    t->credit -= ZC_MIN(t->credit, size_of(slot_at(p, i)));
    queue_unlink(p, i);
    queue_push(p, MAIN, i);
}

/* Is there room in main for one that is known to come back: room that was won, or that has come
   about otherwise? Of the latter, 1/32 is left to the window: the cache may evict ahead of need,
   and if main were filled up at once after each time, it would turn over without a contest. */
static bool part_room(const struct part *t, uint64_t bytes)
{
    uint64_t share = part_share(t);
    return bytes <= t->credit || t->main.bytes + bytes <= share - share / 32;
}

/* After growth. A few at a time move on, so that no call takes long. */
static void policy_fill(struct zc_policy *p, struct part *t)
{
    t->pressed = false;
    t->capacity = ZC_MAX(t->capacity, t->window.bytes + t->main.bytes);
    uint64_t share = part_share(t);
    t->filling = t->filling || t->main.bytes < share - share / 8;
    for (int i = 0; i < 4 && t->filling && t->window.bytes > t->capacity - share; i++) {
        if (t->main.bytes + size_of(slot_at(p, t->window.oldest)) > share)
            t->filling = false;
        else
            policy_admit(p, t->window.oldest);
    }
}

/* ---- the interface ---- */

int zc_policy_new(uint64_t capacity, struct zc_policy **out)
{
    struct zc_policy *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->history = calloc(HISTORY_MIN, sizeof(*p->history));
    if (!p->history) {
        free(p);
        return -ENOMEM;
    }
    p->n_history = HISTORY_MIN;
    for (int i = 0; i < PARTS; i++) {
        struct part *t = &p->parts[i];
        t->window = t->main = (struct queue){.newest = NONE, .oldest = NONE, .hand = NONE};
        t->capacity = capacity;
        t->filling = true;
    }
    p->random = 0x9e3779b97f4a7c15ULL;
    *out = p;
    return 0;
}

void zc_policy_free(struct zc_policy *p)
{
    if (!p)
        return;
    for (uint32_t i = 0; i < p->n_segments; i++)
        free(p->segments[i]);
    free(p->segments);
    free(p->history);
    free(p);
}

void zc_policy_set_capacity(struct zc_policy *p, uint64_t capacity)
{
    p->parts[OWN].capacity = p->parts[COPY].capacity = capacity;
}

static int policy_reach(struct zc_policy *p, uint32_t slot)
{
    uint32_t need = (slot >> SEGMENT_BITS) + 1;
    if (need <= p->n_segments)
        return 0;
    struct slot **more = realloc(p->segments, need * sizeof(struct slot *));
    if (!more)
        return -ENOMEM;
    p->segments = more;
    while (p->n_segments < need) {
        p->segments[p->n_segments] = calloc(SEGMENT, sizeof(struct slot));
        if (!p->segments[p->n_segments])
            return -ENOMEM;
        p->n_segments++;
    }
    return 0;
}

int zc_policy_add(struct zc_policy *p, uint32_t slot, uint64_t key, uint64_t bytes)
{
    assert(slot != NONE);
    int r = policy_reach(p, slot);
    if (r < 0)
        return r;
    struct slot *s = slot_at(p, slot);
    assert(s->place == FREE);
    history_grow(p);
    p->clock++;
    gaps_judge(p);
    *s = (struct slot){
        .hash = hash_of(key), .size = size_pack(bytes), .last = p->clock, .fresh = true};
    struct ghost g;
    if (!history_keeps(p, s->hash)) {
        s->gap = p->neighbour;
    } else {
        if (history_take(p, s->hash, &g)) {
            uint8_t code = (uint8_t)(g.tag & 255);
            gaps_add(p, p->clock - g.last);
            s->gap = gap_mix(code == USED_ONCE ? 0 : code, p->clock - g.last);
        }
        p->neighbour = s->gap;
    }
    queue_push(p, WINDOW, slot);
    policy_fill(p, &p->parts[OWN]);
    return 0;
}

void zc_policy_resize(struct zc_policy *p, uint32_t slot, uint64_t bytes)
{
    struct slot *s = slot_at(p, slot);
    assert(s->place != FREE);
    struct queue *q = queue_of(p, s);
    uint64_t before = size_of(s);
    s->size = size_pack(bytes);
    q->bytes = q->bytes - before + size_of(s);
    if (size_of(s) > before)
        policy_fill(p, &p->parts[s->copy]);
}

bool zc_policy_knows(const struct zc_policy *p, uint32_t slot)
{
    return slot >> SEGMENT_BITS < p->n_segments && slot_at(p, slot)->place != FREE;
}

void zc_policy_set_copy(struct zc_policy *p, uint32_t slot, bool copy)
{
    struct slot *s = slot_at(p, slot);
    enum place place = (enum place)s->place;
    assert(place != FREE);
    if (s->copy == (copy ? COPY : OWN))
        return;
    queue_unlink(p, slot);
    s->copy = copy ? COPY : OWN;
    queue_push(p, place, slot);
    policy_fill(p, &p->parts[s->copy]);
}

bool zc_policy_is_copy(const struct zc_policy *p, uint32_t slot)
{
    return zc_policy_knows(p, slot) && slot_at(p, slot)->copy == COPY;
}

uint64_t zc_policy_copy_bytes(const struct zc_policy *p)
{
    return p->parts[COPY].window.bytes + p->parts[COPY].main.bytes;
}

void zc_policy_touch(struct zc_policy *p, uint32_t slot)
{
    struct slot *s = slot_at(p, slot);
    assert(s->place != FREE);
    uint32_t near = ZC_MAX(ZC_MIN(policy_residents(p) / 64, NEAR_MAX), NEAR_MIN);
    uint32_t gap = p->clock - s->last;
    /* Others may have been added between its own add and touch. */
    bool own = s->fresh && gap <= NEAR_MAX;
    s->fresh = false;
    if (own)
        return;
    p->clock++;
    gaps_judge(p);
    if (++gap <= near)
        return;
    gaps_add(p, gap);
    s->gap = gap_mix(s->gap, gap);
    s->last = p->clock;
    if (s->place == MAIN) {
        queue_unlink(p, slot);
        queue_push(p, MAIN, slot);
    }
}

void zc_policy_remove(struct zc_policy *p, uint32_t slot)
{
    struct slot *s = slot_at(p, slot);
    assert(s->place != FREE);
    queue_unlink(p, slot);
    if (history_keeps(p, s->hash))
        history_put(p, s->hash, s->last, s->gap ? s->gap : USED_ONCE);
}

/* One search; NONE also when only a part of the residents was asked. */
static uint32_t part_search(struct zc_policy *p, struct part *t,
                            bool (*may_evict)(void *user, uint32_t slot), void *user)
{
    uint64_t share = part_share(t);
    for (;;) {
        uint32_t w = queue_find(p, &t->window, may_evict, user);
        if (w == NONE)
            return queue_find(p, &t->main, may_evict, user);
        struct slot *newcomer = slot_at(p, w);
        if (newcomer->gap && part_room(t, size_of(newcomer))) {
            policy_admit(p, w);
            continue;
        }
        uint32_t m = queue_find(p, &t->main, may_evict, user);
        if (m == NONE)
            return w;
        /* Residents that grew have eaten up the window. */
        if (t->window.bytes < (t->capacity - share) / 4 && t->main.bytes > share)
            return m;
        if (!policy_replaces(p, newcomer, slot_at(p, m)))
            return w;
        t->credit += size_of(slot_at(p, m));
        return m;
    }
}

static uint32_t part_victim(struct zc_policy *p, struct part *t,
                            bool (*may_evict)(void *user, uint32_t slot), void *user)
{
    if (!t->pressed) {
        t->capacity = t->window.bytes + t->main.bytes;
        t->pressed = true;
    }
    uint64_t share = part_share(t);
    if (t->main.bytes >= share - share / 8)
        t->filling = false;
    /* Each search goes on behind what the one before was refused, to the end of its queue, and then
       begins at the oldest: so many ask everybody, wherever the hands stood. */
    uint32_t searches = ZC_MAX(t->main.n, t->window.n) / ASK_MAX + 2, victim;
    do
        victim = part_search(p, t, may_evict, user);
    while (victim == NONE && --searches > 0);
    return victim;
}

uint32_t zc_policy_copy_victim(struct zc_policy *p, bool (*may_evict)(void *user, uint32_t slot),
                               void *user)
{
    return p->parts[COPY].window.n + p->parts[COPY].main.n == 0
               ? NONE
               : part_victim(p, &p->parts[COPY], may_evict, user);
}

uint32_t zc_policy_victim(struct zc_policy *p, bool (*may_evict)(void *user, uint32_t slot),
                          void *user)
{
    uint32_t victim = zc_policy_copy_victim(p, may_evict, user);
    return victim != NONE ? victim : part_victim(p, &p->parts[OWN], may_evict, user);
}
