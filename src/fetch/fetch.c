/* SPDX-License-Identifier: Apache-2.0 */
/* The room's life: configuration, shutdown, figures. */
#include "fetch/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

int zc_fetch_new(const struct zc_fetch_config *cfg, struct zc_cache *cache, struct zc_fetch **out)
{
    struct zc_fetch *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->cfg = *cfg;
    if (!f->cfg.ahead)
        f->cfg.ahead = 256 * ZC_MIB;
    if (!f->cfg.memory)
        f->cfg.memory = 64 * ZC_MIB;
    f->cache = cache;
    f->block = f->cfg.chunk_size / FETCH_BLOCKS;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->idle, NULL);
    for (size_t i = 0; i < FETCH_BUCKETS; i++)
        zc_list_init(&f->buckets[i]);
    zc_list_init(&f->mem_list);
    zc_list_init(&f->srcs);
    *out = f;
    return 0;
}

uint64_t zc_fetch_chunk_size(const struct zc_fetch *f)
{
    return f->cfg.chunk_size;
}

void zc_fetch_shutdown(struct zc_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    f->shutdown = true;
    zc_list_for_each (it, &f->srcs)
        atomic_store(&zc_list_entry(it, struct zc_fetch_src, link)->closed, true);
    for (size_t i = 0; i < FETCH_BUCKETS; i++) {
        zc_list_for_each (it, &f->buckets[i]) {
            struct zc_object *o = zc_list_entry(it, struct zc_object, hash_link);
            fetch_cancel(o, NULL);
        }
    }
    while (f->flying)
        pthread_cond_wait(&f->idle, &f->lock);
    pthread_mutex_unlock(&f->lock);
}

void zc_fetch_free(struct zc_fetch *f)
{
    if (!f)
        return;
    pthread_mutex_lock(&f->lock);
    while (f->flying || f->live)
        pthread_cond_wait(&f->idle, &f->lock);
    pthread_mutex_unlock(&f->lock);
    struct zc_list *it;
    while ((it = zc_list_pop_front(&f->srcs))) {
        struct zc_fetch_src *s = zc_list_entry(it, struct zc_fetch_src, link);
        free(s->identity);
        free(s);
    }
    pthread_cond_destroy(&f->idle);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

/* ------------------------------------------------------------------ sources */

int zc_fetch_src_new(struct zc_fetch *f, struct zc_backend *be, const char *identity,
                     struct zc_fetch_src **out)
{
    struct zc_fetch_src *s = calloc(1, sizeof(*s));
    if (s)
        s->identity = strdup(identity);
    if (!s || !s->identity) {
        free(s);
        return -ENOMEM;
    }
    s->fetch = f;
    s->be = be;
    s->part_size = ZC_MAX(be->part_size, f->cfg.chunk_size);
    s->cut = be->cut;
    pthread_mutex_lock(&f->lock);
    zc_list_push_back(&f->srcs, &s->link);
    pthread_mutex_unlock(&f->lock);
    *out = s;
    return 0;
}

const char *zc_fetch_src_identity(const struct zc_fetch_src *s)
{
    return s->identity;
}

int zc_fetch_src_close(struct zc_fetch_src *s, bool force)
{
    struct zc_fetch *f = s->fetch;
    pthread_mutex_lock(&f->lock);
    atomic_store(&s->no_loans, true);
    if ((s->open || atomic_load(&s->lent)) && !force) {
        atomic_store(&s->no_loans, false);
        pthread_mutex_unlock(&f->lock);
        return -EBUSY;
    }
    atomic_store(&s->closed, true);
    for (size_t i = 0; i < FETCH_BUCKETS && s->flying; i++) {
        zc_list_for_each (it, &f->buckets[i])
            fetch_cancel(zc_list_entry(it, struct zc_object, hash_link), s);
    }
    while (s->flying)
        pthread_cond_wait(&f->idle, &f->lock);
    pthread_mutex_unlock(&f->lock);
    return 0;
}

void zc_fetch_src_get_stats(struct zc_fetch_src *s, struct zc_fetch_src_stats *out)
{
    pthread_mutex_lock(&s->fetch->lock);
    *out = (struct zc_fetch_src_stats){
        .hits = atomic_load(&s->hits),
        .misses = atomic_load(&s->misses),
        .bytes_hit = atomic_load(&s->bytes_hit),
        .bytes_store = atomic_load(&s->bytes_store),
        .open = s->open + atomic_load(&s->lent),
    };
    pthread_mutex_unlock(&s->fetch->lock);
}

void zc_fetch_get_stats(struct zc_fetch *f, struct zc_fetch_stats *out)
{
    uint64_t hits = 0, misses = 0, bytes_hit = 0;
    pthread_mutex_lock(&f->lock);
    zc_list_for_each (it, &f->srcs) {
        struct zc_fetch_src *s = zc_list_entry(it, struct zc_fetch_src, link);
        hits += atomic_load(&s->hits);
        misses += atomic_load(&s->misses);
        bytes_hit += atomic_load(&s->bytes_hit);
    }
    *out = (struct zc_fetch_stats){
        .bytes_store = atomic_load(&f->bytes_store),
        .bytes_hit = bytes_hit,
        .hits = hits,
        .misses = misses,
        .flights = atomic_load(&f->flights),
        .stale = atomic_load(&f->stale_seen),
        .memory_used = f->mem_used,
        .memory_peak = f->mem_peak,
    };
    pthread_mutex_unlock(&f->lock);
}
