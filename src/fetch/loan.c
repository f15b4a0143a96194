/* SPDX-License-Identifier: Apache-2.0 */
/* Loans: the cache's, with the opens that they stand for counted at the object's source. */
#include "fetch/loan.h"

#include "fetch/internal.h"

void zc_fetch_on_recall(struct zc_fetch *f, void (*recall)(void *user, uint64_t borrower),
                        void *user)
{
    zc_cache_on_recall(f->cache, recall, user);
}

bool zc_object_lend(struct zc_object *o, uint64_t borrower, struct zc_loan *out)
{
    struct zc_cloan at;
    if (!o->cobj || zc_object_stale(o) || !zc_cobj_lend(o->fetch->cache, o->cobj, borrower, &at))
        return false;
    *out = (struct zc_loan){.src = atomic_load(&o->src), .at = at, .size = zc_object_size(o)};
    atomic_fetch_add(&out->src->lent, 1);
    return true;
}

bool zc_loan_reuse(const struct zc_loan *l, bool idle)
{
    /* Counted first and asked then whether that is allowed; who closes the source forbids it first
       and looks at the count then: one of the two sees the other. */
    if (idle)
        atomic_fetch_add(&l->src->lent, 1);
    if (!atomic_load(&l->src->no_loans) && zc_cache_reuse(l->src->fetch->cache, &l->at)) {
        atomic_fetch_add_explicit(&l->src->hits, 1, memory_order_relaxed);
        atomic_fetch_add_explicit(&l->src->bytes_hit, l->size, memory_order_relaxed);
        return true;
    }
    if (idle)
        atomic_fetch_sub(&l->src->lent, 1);
    return false;
}

void zc_loan_unused(const struct zc_loan *l, bool keep)
{
    zc_cache_unused(l->src->fetch->cache, &l->at, keep);
    atomic_fetch_sub(&l->src->lent, 1);
}

void zc_loan_end(const struct zc_loan *l)
{
    zc_cache_unused(l->src->fetch->cache, &l->at, false);
}
