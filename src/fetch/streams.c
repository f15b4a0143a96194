/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The access pattern of one handle. Several readers may interleave in one file (a DataLoader's
 * workers share a descriptor, parquet columns are read side by side), so up to eight positions are
 * remembered; a read that goes on at one of them, give or take what the kernel's read-ahead
 * reorders, belongs to that stream. What is fetched ahead of it grows with what it has read: who
 * looks at the head of a large file only has not asked the store for much more. A read that fits
 * none starts a stream with nothing ahead of it.
 */
#include "fetch/internal.h"

#define STREAMS_MAX 8
#define STREAMS_SLACK (2 * ZC_MIB)
#define STREAMS_FIRST (8 * ZC_MIB)
#define STREAMS_GAIN 8u /* bytes more ahead for each byte read */

struct stream {
    uint64_t begin;  /* where it began */
    uint64_t next;   /* where it goes on; 0 with used == 0: free */
    uint64_t window; /* bytes to have ahead; 0 while it may be a random read */
    uint64_t ahead;  /* end of what was asked for ahead */
    uint64_t used;   /* tick of its last read */
};

struct zc_streams {
    struct zc_object *o;
    pthread_mutex_t lock;
    uint64_t tick;
    struct stream s[STREAMS_MAX];
};

struct zc_streams *zc_streams_new(struct zc_object *o)
{
    struct zc_streams *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->o = o;
    pthread_mutex_init(&s->lock, NULL);
    return s;
}

void zc_streams_free(struct zc_streams *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static struct stream *streams_find(struct zc_streams *s, uint64_t off)
{
    for (size_t i = 0; i < STREAMS_MAX; i++) {
        struct stream *st = &s->s[i];
        if (st->used && off + STREAMS_SLACK >= st->next && off <= st->next + STREAMS_SLACK)
            return st;
    }
    return NULL;
}

bool zc_streams_note(struct zc_streams *s, uint64_t off, uint64_t len)
{
    pthread_mutex_lock(&s->lock);
    struct stream *st = streams_find(s, off);
    if (st) {
        /* Near, but not on: a random reader in a small region must not look like a stream. */
        bool on = off <= st->next && off + len > st->next;
        if (on || st->window) {
            st->next = ZC_MAX(st->next, off + len);
            if (on)
                st->window = ZC_MIN(STREAMS_FIRST + STREAMS_GAIN * (st->next - st->begin),
                                    s->o->fetch->cfg.ahead);
        } else {
            st->begin = off;
            st->next = off + len;
        }
    } else {
        st = &s->s[0];
        for (size_t i = 1; i < STREAMS_MAX; i++) {
            if (s->s[i].used < st->used)
                st = &s->s[i];
        }
        *st = (struct stream){
            .begin = off, .next = off + len, .window = off == 0 ? STREAMS_FIRST : 0};
    }
    st->used = ++s->tick;
    bool going_on = st->window != 0;
    pthread_mutex_unlock(&s->lock);
    return going_on;
}

void zc_streams_ahead(struct zc_streams *s, uint64_t off)
{
    struct zc_object *o = s->o;
    uint64_t cs = o->fetch->cfg.chunk_size, from = 0, to = 0;
    uint64_t part = atomic_load_explicit(&o->src, memory_order_relaxed)->part_size;
    if (zc_object_complete(o))
        return;
    pthread_mutex_lock(&s->lock);
    struct stream *st = streams_find(s, off);
    if (st && st->window) {
        uint64_t want = ZC_MIN(st->next + st->window, o->size);
        from = ZC_MAX(st->ahead, st->next);
        /* In whole parts, when at least one is missing from the window: few requests, each a good
         * size, and no rest that would be a request of its own. */
        if (want > from) {
            if (want == o->size || st->ahead == 0)
                to = ZC_MIN((want + cs - 1) / cs * cs, o->size);
            else if (want - from >= part)
                to = (from + (want - from) / part * part) / cs * cs;
            if (to)
                st->ahead = to;
        }
    }
    pthread_mutex_unlock(&s->lock);
    if (to > from)
        zc_object_prefetch(o, from, to - from, ZC_PRIO_AHEAD);
}
