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
        uint32_t flags = table_slot(&c->table, slot)->flags;
        /* One that is being made is marked by who makes it, one that dies has left the policy. */
        if (flags && !(flags & SLOT_DYING) && zc_policy_knows(c->policy, slot))
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
