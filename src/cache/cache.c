/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and closing, the state of the disk, listings, figures. Held objects: object.c; room:
 * budget.c.
 */
#include "cache/cache_priv.h"

#include "base/log.h"
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define DISK_WINDOW_NS (10 * ZC_NS_PER_S) /* so many errors (disk_errors_at) within: down */
#define DISK_DOWN_NS (30 * ZC_NS_PER_S)   /* for so long */
#define DISK_FULL_NS (2 * ZC_NS_PER_S)    /* no new chunks after ENOSPC */
#define LISTING_MAX (64 * ZC_MIB)

/* ------------------------------------------------------------------ opening */

struct load {
    struct zc_cache *c;
    bool doubted;
};

static int load_object(void *user, const struct index_object *o)
{
    struct load *l = user;
    struct zc_cache *c = l->c;
    uint32_t n;
    if (o->chunk_size != c->chunk_size)
        return -EBADMSG;
    bool complete = o->present == o->nchunks;
    int r = table_add(&c->table, o->id, &n);
    if (r < 0)
        return r;
    struct slot *s = table_slot(&c->table, n);
    s->size = o->size;
    if (complete) {
        s->flags |= SLOT_COMPLETE;
        c->complete++;
    } else if (o->nchunks <= 64) {
        s->u.word = o->bits[0];
    } else {
        size_t bytes = ((size_t)o->nchunks + 63) / 64 * sizeof(uint64_t);
        s->u.words = malloc(bytes);
        if (!s->u.words)
            return -ENOMEM;
        memcpy(s->u.words, o->bits, bytes);
    }
    s->bytes = cache_charge(o->size, c->shift, complete ? NULL : o->bits);
    c->used += s->bytes;
    if (l->doubted) {
        s->flags |= SLOT_DOUBTED;
        c->doubted++;
    }
    return zc_policy_add(c->policy, n, o->id.id.lo, s->bytes);
}

static void cache_empty_table(struct zc_cache *c)
{
    for (uint32_t n = 0; n < c->table.top; n++) {
        struct slot *s = table_slot(&c->table, n);
        if (s->used && !(s->flags & SLOT_COMPLETE) && cache_nchunks(s->size, c->shift) > 64)
            free(s->u.words);
    }
    table_free(&c->table);
}

/* Index and table; *found says what there was. */
static int cache_load(struct zc_cache *c, enum index_found *found, struct zc_error *err)
{
    struct index_config icfg = {.dir = c->store->path,
                                .meta = {.seed = c->seed, .chunk_size = c->chunk_size}};
    int r = index_open(&icfg, &c->index, found, err);
    if (r < 0)
        return r;
    if (*found == INDEX_NEW || *found == INDEX_DAMAGED)
        return 0;
    struct load l = {.c = c, .doubted = *found == INDEX_DOUBTED};
    r = index_load(c->index, load_object, &l);
    return r < 0 ? zc_error_set(err, r, "cannot read the cache index in %s: %s", c->store->path,
                                strerror(-r))
                 : 0;
}

static int cache_tables(struct zc_cache *c, struct zc_error *err)
{
    int r = table_init(&c->table);
    if (r == 0)
        r = zc_policy_new(c->capacity, &c->policy);
    return r < 0 ? zc_error_set(err, r, "out of memory") : 0;
}

static int cache_take_over(struct zc_cache *c, struct zc_error *err)
{
    enum index_found found = INDEX_NEW;
    int r = cache_tables(c, err);
    if (r == 0)
        r = cache_load(c, &found, err);
    if (r == -EBADMSG) { /* a record that cannot be: all of it goes */
        zc_autofree char *path = NULL;
        index_close(c->index, false, false);
        c->index = NULL;
        cache_empty_table(c);
        zc_policy_free(c->policy);
        c->policy = NULL;
        c->used = c->complete = c->doubted = 0;
        if (asprintf(&path, "%s/index.mdb", c->store->path) < 0) {
            path = NULL;
            return zc_error_set(err, -ENOMEM, "out of memory");
        }
        unlink(path);
        r = cache_tables(c, err);
        if (r == 0)
            r = cache_load(c, &found, err);
        found = INDEX_DAMAGED;
    }
    if (r < 0)
        return r;
    c->rebuilt = found == INDEX_DAMAGED;
    if (found == INDEX_NEW || found == INDEX_DAMAGED)
        r = store_empty(c->store);
    else if (found == INDEX_DOUBTED)
        r = verify_folder(c);
    return r < 0 ? zc_error_set(err, r,
                                "cannot take over the cache in %s: %s; name another --cache-dir",
                                c->store->path, strerror(-r))
                 : 0;
}

static int cache_set_limits(struct zc_cache *c, const struct zc_cache_config *cfg,
                            struct zc_error *err)
{
    uint64_t avail, total;
    int r = store_space(c->store, &avail, &total);
    if (r < 0)
        return zc_error_set(err, r, "%s: %s", c->store->path, strerror(-r));
    c->floor = (uint64_t)((double)total * cfg->free_ratio);
    c->capacity = cfg->size;
    if (c->capacity == 0) {
        /* what an earlier daemon left is room of ours */
        uint64_t mine = avail + c->used;
        c->capacity = mine > c->floor ? (mine - c->floor) / 10 * 9 : 0;
        if (c->capacity < c->chunk_size) {
            char has[24], keeps[24];
            return zc_error_set(
                err, -ENOSPC,
                "no room for a cache in %s: %s are free, and %s of them must stay so "
                "(--free-space-ratio); name another --cache-dir",
                cfg->dir, zc_format_size(avail, has, sizeof(has)),
                zc_format_size(c->floor, keeps, sizeof(keeps)));
        }
    }
    zc_policy_set_capacity(c->policy, c->capacity);
    /* A smaller size than last time, or less room: evict now. */
    if (budget_take(c, 0) == 0)
        pthread_mutex_unlock(&c->lock);
    return 0;
}

int zc_cache_open(const struct zc_cache_config *cfg, struct zc_cache **out, struct zc_error *err)
{
    if (cfg->chunk_size < 64 * ZC_KIB || cfg->chunk_size > 64 * ZC_MIB ||
        (cfg->chunk_size & (cfg->chunk_size - 1)) != 0)
        return zc_error_set(err, -EINVAL,
                            "the chunk size must be a power of two from 64KiB to 64MiB");
    struct zc_cache *c = calloc(1, sizeof(*c));
    if (!c)
        return zc_error_set(err, -ENOMEM, "out of memory");
    c->chunk_size = cfg->chunk_size;
    c->shift = (unsigned)__builtin_ctzll(cfg->chunk_size);
    c->seed = cfg->seed;
    c->keep = cfg->keep;
    c->capacity = cfg->size ? cfg->size : INT64_MAX;
    pthread_mutex_init(&c->lock, NULL);
    pthread_mutex_init(&c->disk_lock, NULL);
    pthread_cond_init(&c->changed, NULL);
    pthread_cond_init(&c->work, NULL);
    int r = store_open(cfg->dir, cfg->identity, cfg->keep, cfg->allow_tmpfs, &c->store, err);
    if (r == 0)
        r = cache_take_over(c, err);
    if (r == 0)
        r = cache_set_limits(c, cfg, err);
    if (r == 0) {
        r = budget_start(c);
        if (r == 0)
            r = verify_start(c);
        if (r < 0)
            zc_error_set(err, r, "cannot start a thread: %s", strerror(-r));
    }
    if (r < 0) {
        c->half_open = true;
        zc_cache_close(c);
        return r;
    }
    *out = c;
    return 0;
}

void zc_cache_close(struct zc_cache *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&c->lock);
    c->stop = true;
    pthread_cond_signal(&c->work);
    pthread_mutex_unlock(&c->lock);
    if (c->evictor_runs)
        pthread_join(c->evictor, NULL);
    if (c->verifier_runs)
        pthread_join(c->verifier, NULL);
    index_close(c->index, c->keep && !c->half_open, c->doubted == 0 && !c->untidy);
    cache_empty_table(c);
    zc_policy_free(c->policy);
    store_close(c->store, !c->keep);
    pthread_cond_destroy(&c->changed);
    pthread_cond_destroy(&c->work);
    pthread_mutex_destroy(&c->disk_lock);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

/* ------------------------------------------------------------------ the disk's state */

bool cache_bypassed(struct zc_cache *c)
{
    int64_t until = atomic_load_explicit(&c->down_until_ns, memory_order_relaxed);
    if (until == 0)
        return false;
    int64_t now = zc_now_ns();
    if (now < until)
        return true;
    pthread_mutex_lock(&c->disk_lock);
    if (c->disk == DISK_DOWN && now >= c->down_until_ns) {
        c->disk = DISK_UNSTABLE;
        c->disk_quiet_ns = now + DISK_DOWN_NS;
        memset(c->disk_errors_at, 0, sizeof(c->disk_errors_at));
        zc_warn("cache disk %s: tried again", c->store->path);
    } else if (c->disk == DISK_UNSTABLE && now >= c->disk_quiet_ns) {
        c->disk = DISK_NORMAL;
        c->down_until_ns = 0;
        zc_warn("cache disk %s: normal again", c->store->path);
    }
    pthread_mutex_unlock(&c->disk_lock);
    return false;
}

void zc_cache_disk_error(struct zc_cache *c, int err)
{
    int64_t now = zc_now_ns();
    atomic_fetch_add(&c->disk_errors, 1);
    err = err < 0 ? -err : err;
    if (err == ENOMEM || err == EMFILE || err == ENFILE)
        return; /* a shortage of ours, the disk is not to blame */
    if (err == ENOSPC || err == EDQUOT) {
        /* Full is not broken: what is there can be read. Only nothing new for a moment. */
        pthread_mutex_lock(&c->lock);
        c->full_until_ns = now + DISK_FULL_NS;
        pthread_mutex_unlock(&c->lock);
        return;
    }
    pthread_mutex_lock(&c->disk_lock);
    size_t n = ZC_ARRAY_SIZE(c->disk_errors_at);
    memmove(c->disk_errors_at, c->disk_errors_at + 1, (n - 1) * sizeof(c->disk_errors_at[0]));
    c->disk_errors_at[n - 1] = now;
    bool many = c->disk_errors_at[0] != 0 && now - c->disk_errors_at[0] <= DISK_WINDOW_NS;
    if (many && c->disk != DISK_DOWN) {
        c->disk = DISK_DOWN;
        c->down_until_ns = now + DISK_DOWN_NS;
        zc_err("cache disk %s: down (%s): not used for %d s", c->store->path, strerror(err),
               (int)(DISK_DOWN_NS / ZC_NS_PER_S));
    } else if (c->disk == DISK_NORMAL) {
        c->disk = DISK_UNSTABLE;
        c->down_until_ns = now; /* so that cache_bypassed looks when it is quiet again */
        zc_warn("cache disk %s: unstable (%s)", c->store->path, strerror(err));
    }
    c->disk_quiet_ns = now + DISK_DOWN_NS;
    pthread_mutex_unlock(&c->disk_lock);
}

/* ------------------------------------------------------------------ listings */

int zc_cache_put_listing(struct zc_cache *c, struct zc_digest dir, uint32_t page, const void *p,
                         size_t n)
{
    if (n > LISTING_MAX)
        return -EMSGSIZE;
    index_throttle(c->index);
    return index_put_listing(c->index, dir, page, p, n);
}

int zc_cache_get_listing(struct zc_cache *c, struct zc_digest dir,
                         int (*fn)(void *user, uint32_t page, const void *p, size_t n), void *user)
{
    return index_get_listing(c->index, dir, fn, user);
}

void zc_cache_drop_listing(struct zc_cache *c, struct zc_digest dir)
{
    index_del_listing(c->index, dir);
}

/* ------------------------------------------------------------------ figures */

void zc_cache_get_stats(struct zc_cache *c, struct zc_cache_stats *out)
{
    pthread_mutex_lock(&c->lock);
    *out = (struct zc_cache_stats){
        .capacity = c->capacity,
        .used = c->used,
        .objects = c->table.count,
        .complete = c->complete,
        .spare_bytes = zc_policy_copy_bytes(c->policy),
        .evictions = c->evictions,
        .evicted_bytes = c->evicted_bytes,
        .rebuilt = c->rebuilt,
        .dir = c->store->path,
    };
    pthread_mutex_unlock(&c->lock);
    out->disk_errors = c->disk_errors;
    out->checked_chunks = c->checked_chunks;
    out->bad_chunks = c->bad_chunks;
    out->duplicates = index_duplicates(c->index);
    out->bypassed = cache_bypassed(c);
}
