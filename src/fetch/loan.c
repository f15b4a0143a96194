/* SPDX-License-Identifier: Apache-2.0 */
/* Loans: the cache's, with the opens that they stand for counted at the object's source. */
#include "fetch/loan.h"

#include "fetch/internal.h"

void zc_fetch_on_recall(struct zc_fetch *f, void (*recall)(void *user, uint64_t borrower),
                        void *user)
{
    zc_cache_on_recall(f->cache, recall, user);
}

static void loan_count(struct zc_fetch_src *src, int n)
{
    pthread_mutex_lock(&src->fetch->lock);
    src->open += (unsigned)n;
    pthread_mutex_unlock(&src->fetch->lock);
}

bool zc_object_lend(struct zc_object *o, uint64_t borrower, struct zc_loan *out)
{
    if (!o->cobj || zc_object_stale(o) || !zc_cobj_lend(o->fetch->cache, o->cobj, borrower))
        return false;
    *out = (struct zc_loan){.src = atomic_load(&o->src), .id = o->id};
    loan_count(out->src, 1);
    return true;
}

bool zc_loan_reuse(const struct zc_loan *l, uint64_t borrower, bool idle)
{
    struct zc_fetch *f = l->src->fetch;
    if (atomic_load(&l->src->closed) || !zc_cache_reuse(f->cache, l->id, borrower))
        return false;
    if (idle)
        loan_count(l->src, 1);
    atomic_fetch_add_explicit(&f->hits, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&l->src->hits, 1, memory_order_relaxed);
    return true;
}

void zc_loan_unused(const struct zc_loan *l, uint64_t borrower, bool keep)
{
    zc_cache_unused(l->src->fetch->cache, l->id, borrower, keep);
    loan_count(l->src, -1);
}

void zc_loan_end(const struct zc_loan *l, uint64_t borrower)
{
    zc_cache_unused(l->src->fetch->cache, l->id, borrower, false);
}
