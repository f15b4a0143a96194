/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which residents are spare, because another node owns them: asked when they come, and of all when
 * the owners change. Asking once more when one is about to go would be exact, but owners change
 * seldom and all at once.
 */
#include "cache/cache_priv.h"

#define SPARE_BATCH 512 /* residents looked at under the lock in one go */

void spare_mark(struct zc_cache *c, uint32_t slot)
{
    const struct slot *s = table_slot(&c->table, slot);
    if (c->spare)
        zc_policy_set_copy(c->policy, slot, c->spare(c->spare_user, s->id, s->size));
}

void zc_cache_ask_spare(struct zc_cache *c)
{
    pthread_mutex_lock(&c->lock);
    for (uint32_t slot = 0; slot < c->table.top && c->spare; slot++) {
        const struct slot *s = table_slot(&c->table, slot);
        /* One that is being made is marked by who makes it, one that dies has left the policy. */
        if (s->used && !(s->flags & SLOT_DYING) && zc_policy_knows(c->policy, slot))
            spare_mark(c, slot);
        if (slot % SPARE_BATCH == SPARE_BATCH - 1) {
            pthread_mutex_unlock(&c->lock);
            pthread_mutex_lock(&c->lock);
        }
    }
    pthread_mutex_unlock(&c->lock);
}

void zc_cache_on_spare(struct zc_cache *c,
                       bool (*spare)(void *user, struct zc_objid id, uint64_t size), void *user,
                       uint64_t most)
{
    pthread_mutex_lock(&c->lock);
    c->spare = spare;
    c->spare_user = user;
    c->spare_most = most;
    pthread_mutex_unlock(&c->lock);
    zc_cache_ask_spare(c);
}

struct census {
    struct zc_cache *c;
    int (*fn)(void *user, const struct zc_cache_resident *r);
    void *user;
};

static int census_object(void *user, struct zc_objid id, const struct rec_obj *o)
{
    struct census *x = user;
    struct zc_cache_resident r = {.id = id,
                                  .source = o->source,
                                  .path = o->path,
                                  .source_len = o->source_len,
                                  .path_len = o->path_len,
                                  .size = o->size};
    pthread_mutex_lock(&x->c->lock);
    uint32_t slot = table_find(&x->c->table, id);
    if (slot != SLOT_NONE) {
        r.bytes = ZC_MIN(table_slot(&x->c->table, slot)->bytes, o->size);
        r.spare = zc_policy_is_copy(x->c->policy, slot);
    }
    pthread_mutex_unlock(&x->c->lock);
    return slot == SLOT_NONE ? 0 : x->fn(x->user, &r);
}

int zc_cache_census(struct zc_cache *c, int (*fn)(void *user, const struct zc_cache_resident *r),
                    void *user)
{
    struct census x = {.c = c, .fn = fn, .user = user};
    return index_get_objects(c->index, census_object, &x);
}
