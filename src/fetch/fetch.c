/* SPDX-License-Identifier: Apache-2.0 */
/* The room's life: configuration, shutdown, figures. */
#include "fetch/internal.h"

#include <assert.h>
#include <errno.h>

int zc_fetch_new(const struct zc_fetch_config *cfg, struct zc_cache *cache, struct zc_fetch **out)
{
    struct zc_fetch *f = calloc(1, sizeof(*f));
    if (!f)
        return -ENOMEM;
    f->cfg = *cfg;
    if (!f->cfg.part_size)
        f->cfg.part_size = 8 * ZC_MIB;
    f->cfg.part_size = ZC_MAX(f->cfg.part_size, f->cfg.chunk_size);
    if (!f->cfg.ahead)
        f->cfg.ahead = 128 * ZC_MIB;
    if (!f->cfg.memory)
        f->cfg.memory = 64 * ZC_MIB;
    f->cache = cache;
    f->block = f->cfg.chunk_size / FETCH_BLOCKS;
    pthread_mutex_init(&f->lock, NULL);
    pthread_cond_init(&f->idle, NULL);
    for (size_t i = 0; i < FETCH_BUCKETS; i++)
        zc_list_init(&f->buckets[i]);
    zc_list_init(&f->mem_list);
    *out = f;
    return 0;
}

void zc_fetch_shutdown(struct zc_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    f->shutdown = true;
    for (size_t i = 0; i < FETCH_BUCKETS; i++) {
        zc_list_for_each (it, &f->buckets[i]) {
            struct zc_object *o = zc_list_entry(it, struct zc_object, hash_link);
            pthread_mutex_lock(&o->lock);
            zc_list_for_each (fit, &o->flights)
                zc_backend_cancel(o->src, &zc_list_entry(fit, struct fetch_flight, link)->req.base);
            pthread_mutex_unlock(&o->lock);
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
    pthread_cond_destroy(&f->idle);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

void zc_fetch_get_stats(struct zc_fetch *f, struct zc_fetch_stats *out)
{
    pthread_mutex_lock(&f->lock);
    *out = (struct zc_fetch_stats){
        .bytes_store = atomic_load(&f->bytes_store),
        .hits = atomic_load(&f->hits),
        .misses = atomic_load(&f->misses),
        .flights = atomic_load(&f->flights),
        .stale = atomic_load(&f->stale_seen),
        .memory_used = f->mem_used,
        .memory_peak = f->mem_peak,
    };
    pthread_mutex_unlock(&f->lock);
}
