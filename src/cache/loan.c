/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Loans: who keeps the file of a complete object open without holding the object.
 *
 * A loan is two bits and the borrower's number in the object's slot, so that taking it up again is
 * one look at the slot. It is recalled where room is made (budget.c).
 */
#include "cache/cache_priv.h"

void zc_cache_on_recall(struct zc_cache *c, void (*recall)(void *user, uint64_t borrower),
                        void *user)
{
    pthread_mutex_lock(&c->lock);
    c->recall = recall;
    c->recall_user = user;
    while (!recall && c->recalling)
        pthread_cond_wait(&c->changed, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

bool zc_cobj_lend(struct zc_cache *c, struct zc_cobj *o, uint64_t borrower, struct zc_cloan *out)
{
    bool lent = false;
    pthread_mutex_lock(&c->lock);
    if (c->recall && o->slot != SLOT_NONE && o->state == ZC_COBJ_COMPLETE && !o->doubted) {
        struct slot *s = table_slot(&c->table, o->slot);
        if (!(s->flags & (SLOT_BUSY | SLOT_LENT))) {
            s->flags |= SLOT_LENT | SLOT_USED;
            o->borrower = borrower;
            *out = (struct zc_cloan){.borrower = borrower, .slot = o->slot};
            lent = true;
        }
    }
    pthread_mutex_unlock(&c->lock);
    return lent;
}

/* The loan's slot, or NULL when it is not (or no more) lent to this one. Under the lock. The slot
   may be another object's by now; the borrower's number tells. */
static struct slot *loan_find(struct zc_cache *c, const struct zc_cloan *l)
{
    struct slot *s = table_slot(&c->table, l->slot);
    if (!(s->flags & SLOT_LENT) || (s->flags & SLOT_DYING))
        return NULL;
    return (s->flags & SLOT_HELD ? s->u.obj->borrower : s->u.borrower) == l->borrower ? s : NULL;
}

bool zc_cache_reuse(struct zc_cache *c, const struct zc_cloan *l)
{
    if (cache_bypassed(c))
        return false;
    pthread_mutex_lock(&c->lock);
    struct slot *s = loan_find(c, l);
    if (s) {
        s->flags |= SLOT_USED;
        zc_policy_touch(c->policy, l->slot);
    }
    pthread_mutex_unlock(&c->lock);
    return s != NULL;
}

void zc_cache_unused(struct zc_cache *c, const struct zc_cloan *l, bool keep)
{
    pthread_mutex_lock(&c->lock);
    struct slot *s = loan_find(c, l);
    if (s) {
        s->flags &= ~(uint32_t)(keep ? SLOT_USED : SLOT_USED | SLOT_LENT);
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}
