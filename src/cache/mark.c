/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Marks: who brings objects into the cache learns how many of them have left it again.
 *
 * A resident has room for one number. What a number has lost is counted for the last MARKS numbers
 * that were given out: so nobody has to give one back, and one that is long out of use costs
 * nothing.
 */
#include "cache/cache_priv.h"

static struct cache_mark *mark_find(struct zc_cache *c, unsigned number)
{
    struct cache_mark *m = &c->marks[number % CACHE_MARKS];
    return number && m->number == number ? m : NULL;
}

unsigned zc_cache_mark_new(struct zc_cache *c)
{
    pthread_mutex_lock(&c->lock);
    if (++c->mark_last == 0)
        c->mark_last = 1;
    unsigned number = c->mark_last;
    c->marks[number % CACHE_MARKS] = (struct cache_mark){.number = c->mark_last};
    pthread_mutex_unlock(&c->lock);
    return number;
}

bool zc_cache_mark(struct zc_cache *c, struct zc_objid id, unsigned number)
{
    pthread_mutex_lock(&c->lock);
    uint32_t n = table_find(&c->table, id);
    struct slot *s = n == SLOT_NONE ? NULL : table_slot(&c->table, n);
    bool there = s && !(s->flags & SLOT_DYING);
    if (there)
        s->mark = (uint16_t)number;
    pthread_mutex_unlock(&c->lock);
    return there;
}

int64_t zc_cache_marked_gone(struct zc_cache *c, unsigned number)
{
    pthread_mutex_lock(&c->lock);
    struct cache_mark *m = mark_find(c, number);
    int64_t gone = m ? (int64_t)m->gone : -1;
    pthread_mutex_unlock(&c->lock);
    return gone;
}

void mark_gone(struct zc_cache *c, const struct slot *s)
{
    struct cache_mark *m = mark_find(c, s->mark);
    if (m)
        m->gone++;
}
