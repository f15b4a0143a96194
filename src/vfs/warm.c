/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warm, free and count. A warm job has two threads: one walks and counts, so that the job knows how
 * much there is; the other keeps `parallel` files in flight. A file is asked for in windows, so
 * that a huge one does not take all requests at once. What is in the cache already costs one look
 * into a table.
 *
 * What was found and is not begun yet holds its directory in memory. So the walker does not go
 * further ahead than WARM_AHEAD files for each that may be in flight, and with more than these the
 * totals are known late.
 */
#include "vfs/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define WARM_WINDOW (64 * ZC_MIB)
#define WARM_PARALLEL 64u
#define WARM_AHEAD 1024u

struct warm_item {
    struct vfs_dir *d; /* pinned */
    uint32_t index;
};

struct zc_warm {
    struct zc_vfs *v;
    char **paths;
    size_t npaths;
    unsigned parallel;
    struct zc_warm_part part; /* mine NULL: everything */
    pthread_t walker, driver;

    pthread_mutex_t lock;
    pthread_cond_t cond;     /* anything changed */
    pthread_cond_t room;     /* for the walker: the queue is half empty, or the job is cancelled */
    struct warm_item *items; /* a ring of `cap`: `queued` from `head` on */
    size_t head, queued, cap;
    unsigned in_flight;
    bool cancelled;
    int64_t gone_before; /* of its mark */
    struct zc_warm_stats stats;
};

struct warm_file {
    struct zc_waiter waiter;
    struct zc_warm *w;
    struct zc_object *o;
    struct warm_item item;
    struct zc_objid id;
    uint64_t pos;
    uint64_t bytes; /* of this job's part, so far */
    bool counts;    /* as a file: its beginning is of this job's part */
};

/* ------------------------------------------------------------------ a part of the work */

static uint64_t warm_window(const struct zc_warm *w)
{
    return w->part.mine ? w->part.piece : WARM_WINDOW;
}

static bool warm_mine(const struct zc_warm *w, struct zc_objid id, uint64_t off)
{
    return !w->part.mine || w->part.mine(w->part.user, id, off);
}

/* Bytes of an object that are to be fetched by this job. */
static uint64_t warm_mine_bytes(const struct zc_warm *w, struct zc_objid id, uint64_t size)
{
    uint64_t sum = 0;
    if (!w->part.mine)
        return size;
    for (uint64_t at = 0; at < size; at += w->part.piece)
        sum += warm_mine(w, id, at) ? ZC_MIN(w->part.piece, size - at) : 0;
    return sum;
}

static void warm_count(struct zc_warm *w, bool file, uint64_t bytes, bool hit)
{
    pthread_mutex_lock(&w->lock);
    w->stats.files_done += file;
    w->stats.bytes_done += bytes;
    if (hit) {
        w->stats.files_hit += file;
        w->stats.bytes_hit += bytes;
    }
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

/* It is in the cache: whether it stays there is looked after from here on. Empty files are not
 * kept. */
static void warm_stays(struct zc_warm *w, struct zc_objid id, uint64_t size)
{
    if (size == 0 || zc_cache_mark(w->v->cache, id, w->stats.mark))
        return;
    pthread_mutex_lock(&w->lock);
    w->stats.gone++;
    pthread_mutex_unlock(&w->lock);
}

static void warm_fail(struct zc_warm *w, const char *path, const char *why)
{
    pthread_mutex_lock(&w->lock);
    if (w->stats.failed++ == 0)
        snprintf(w->stats.error, sizeof(w->stats.error), "%s: %s", path[0] ? path : ".", why);
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static void warm_fail_item(struct zc_warm *w, struct warm_item it, int err)
{
    zc_autofree char *path = zc_vfs_path(w->v, vfs_node(it.d->id, it.index));
    warm_fail(w, path ? path : "?",
              err == -ENOSPC   ? "the cache has no room for it (--cache-size, --free-space-ratio)"
              : err == -ESTALE ? "it changed in the store meanwhile"
                               : strerror(-err));
}

/* ------------------------------------------------------------------ one file */

static void warm_file_end(struct warm_file *f, int err)
{
    struct zc_warm *w = f->w;
    /* Of a part of an object there is no such proof: what the cache had no room for shows in what
       it evicts. */
    if (err == 0 && !w->part.mine && !zc_object_kept(f->o))
        err = -ENOSPC;
    if (err == -ESTALE)
        zc_vfs_stale(w->v, vfs_node(f->item.d->id, f->item.index));
    if (err < 0) {
        warm_fail_item(w, f->item, err);
    } else {
        warm_stays(w, f->id, zc_object_size(f->o));
        warm_count(w, f->counts, f->bytes, false);
    }
    zc_object_close(f->o);
    vfs_dir_unpin(w->v, f->item.d);
    free(f);
    pthread_mutex_lock(&w->lock);
    w->in_flight--;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static void warm_file_step(struct warm_file *f, int err)
{
    while (err == 0) {
        bool cancelled;
        pthread_mutex_lock(&f->w->lock);
        cancelled = f->w->cancelled;
        pthread_mutex_unlock(&f->w->lock);
        if (cancelled) {
            err = -ECANCELED;
            break;
        }
        uint64_t at = f->pos, window = warm_window(f->w);
        if (at >= zc_object_size(f->o))
            break;
        f->pos += window;
        if (!warm_mine(f->w, f->id, at))
            continue;
        f->bytes += ZC_MIN(window, zc_object_size(f->o) - at);
        int r = zc_object_want(f->o, at, window, false, ZC_PRIO_WARM, &f->waiter);
        if (r == 0)
            return; /* warm_arrived goes on */
        err = r < 0 ? r : 0;
    }
    warm_file_end(f, err);
}

static void warm_arrived(struct zc_waiter *waiter, int err)
{
    warm_file_step(zc_container_of(waiter, struct warm_file, waiter), err);
}

static void warm_item_start(struct zc_warm *w, struct warm_item it)
{
    struct zc_objid id;
    int r = vfs_entry_objid(w->v, it.d, it.index, &id);
    if (r == 0 && zc_cache_has(w->v->cache, id)) {
        pthread_mutex_lock(&it.d->lock);
        uint64_t size = it.d->entries[it.index].size;
        pthread_mutex_unlock(&it.d->lock);
        warm_stays(w, id, size);
        warm_count(w, warm_mine(w, id, 0), warm_mine_bytes(w, id, size), true);
        vfs_dir_unpin(w->v, it.d);
        return;
    }
    struct warm_file *f = r == 0 ? calloc(1, sizeof(*f)) : NULL;
    if (r == 0)
        r = f ? vfs_entry_open(w->v, it.d, it.index, false, &f->o) : -ENOMEM;
    if (r == 0 && zc_object_complete(f->o)) {
        warm_stays(w, id, zc_object_size(f->o));
        warm_count(w, warm_mine(w, id, 0), warm_mine_bytes(w, id, zc_object_size(f->o)), true);
        zc_object_close(f->o);
        free(f);
        vfs_dir_unpin(w->v, it.d);
        return;
    }
    if (r == 0 && zc_object_fd(f->o) < 0) {
        r = -ENOSPC;
        zc_object_close(f->o);
    }
    if (r < 0) {
        free(f);
        warm_fail_item(w, it, r);
        vfs_dir_unpin(w->v, it.d);
        return;
    }
    f->w = w;
    f->item = it;
    f->id = id;
    f->counts = warm_mine(w, id, 0);
    f->waiter.done = warm_arrived;
    pthread_mutex_lock(&w->lock);
    w->in_flight++;
    pthread_mutex_unlock(&w->lock);
    warm_file_step(f, 0);
}

/* ------------------------------------------------------------------ the job's threads */

static int warm_found(void *user, struct vfs_dir *d, uint32_t index, uint64_t size)
{
    struct zc_warm *w = user;
    struct zc_objid id = {0};
    int r = 0;
    bool file = true;
    if (w->part.mine) {
        r = vfs_entry_objid(w->v, d, index, &id);
        if (r < 0)
            return r == -ENOMEM ? r : 0; /* replaced meanwhile */
        file = warm_mine(w, id, 0);
        size = warm_mine_bytes(w, id, size);
        if (!file && size == 0)
            return 0;
    }
    pthread_mutex_lock(&w->lock);
    if (w->queued == w->cap) {
        while (w->queued > w->cap / 2 && !w->cancelled)
            pthread_cond_wait(&w->room, &w->lock);
    }
    if (w->cancelled)
        r = -ECANCELED;
    if (r == 0) {
        vfs_dir_pin(d);
        w->items[(w->head + w->queued++) % w->cap] = (struct warm_item){.d = d, .index = index};
        w->stats.files_found += file;
        w->stats.bytes_found += size;
        pthread_cond_broadcast(&w->cond);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

static void warm_walk_failed(void *user, const char *path, int err)
{
    warm_fail(user, path, strerror(-err));
}

static void *warm_walker(void *arg)
{
    static const struct vfs_walk_ops ops = {.file = warm_found, .failed = warm_walk_failed};
    struct zc_warm *w = arg;
    int r = vfs_walk(w->v, (const char *const *)w->paths, w->npaths, &ops, w);
    if (r < 0 && r != -ECANCELED)
        warm_fail(w, ".", strerror(-r));
    pthread_mutex_lock(&w->lock);
    w->stats.listed = true;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* The next of the queue; under the lock. */
static struct warm_item warm_take(struct zc_warm *w)
{
    struct warm_item it = w->items[w->head];
    w->head = (w->head + 1) % w->cap;
    if (--w->queued == w->cap / 2)
        pthread_cond_signal(&w->room);
    return it;
}

static void *warm_driver(void *arg)
{
    struct zc_warm *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        if (w->queued && (w->in_flight < w->parallel || w->cancelled)) {
            struct warm_item it = warm_take(w);
            bool cancelled = w->cancelled;
            pthread_mutex_unlock(&w->lock);
            if (cancelled)
                vfs_dir_unpin(w->v, it.d);
            else
                warm_item_start(w, it);
            pthread_mutex_lock(&w->lock);
            continue;
        }
        if (w->queued == 0 && w->stats.listed && w->in_flight == 0)
            break;
        pthread_cond_wait(&w->cond, &w->lock);
    }
    w->stats.finished = true;
    pthread_cond_broadcast(&w->cond);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

static void warm_free(struct zc_warm *w)
{
    for (size_t i = 0; i < w->npaths; i++)
        free(w->paths[i]);
    free(w->paths);
    free(w->items);
    pthread_mutex_destroy(&w->lock);
    pthread_cond_destroy(&w->cond);
    pthread_cond_destroy(&w->room);
    free(w);
}

int zc_warm_start(struct zc_vfs *v, const char *const *paths, size_t n, unsigned parallel,
                  const struct zc_warm_part *part, unsigned mark, struct zc_warm **out)
{
    struct zc_warm *w = calloc(1, sizeof(*w));
    if (!w)
        return -ENOMEM;
    w->v = v;
    w->parallel = parallel ? parallel : WARM_PARALLEL;
    if (part)
        w->part = *part;
    w->gone_before = zc_cache_marked_gone(v->cache, mark);
    if (w->gone_before < 0) {
        mark = zc_cache_mark_new(v->cache);
        w->gone_before = 0;
    }
    w->stats.mark = mark;
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_cond_init(&w->room, NULL);
    w->cap = (size_t)w->parallel * WARM_AHEAD;
    w->items = malloc(w->cap * sizeof(*w->items));
    w->paths = calloc(n ? n : 1, sizeof(*w->paths));
    for (size_t i = 0; w->paths && i < n; i++) {
        w->paths[i] = strdup(paths[i]);
        if (!w->paths[i])
            break;
        w->npaths++;
    }
    if (!w->items || !w->paths || w->npaths < n) {
        warm_free(w);
        return -ENOMEM;
    }
    int r = -pthread_create(&w->walker, NULL, warm_walker, w);
    if (r < 0) {
        warm_free(w);
        return r;
    }
    r = -pthread_create(&w->driver, NULL, warm_driver, w);
    if (r < 0) {
        pthread_mutex_lock(&w->lock);
        w->cancelled = true;
        pthread_cond_signal(&w->room);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->walker, NULL);
        while (w->queued)
            vfs_dir_unpin(v, warm_take(w).d);
        warm_free(w);
        return r;
    }
    *out = w;
    return 0;
}

void zc_warm_poll(struct zc_warm *w, int timeout_ms, struct zc_warm_stats *out)
{
    int64_t until = zc_now_ns() + timeout_ms * ZC_NS_PER_MS;
    struct timespec ts = {.tv_sec = until / ZC_NS_PER_S, .tv_nsec = until % ZC_NS_PER_S};
    pthread_mutex_lock(&w->lock);
    while (!w->stats.finished && pthread_cond_timedwait(&w->cond, &w->lock, &ts) != ETIMEDOUT) {
    }
    *out = w->stats;
    pthread_mutex_unlock(&w->lock);
    int64_t gone = zc_cache_marked_gone(w->v->cache, out->mark);
    if (gone > w->gone_before)
        out->gone += (uint64_t)(gone - w->gone_before);
}

void zc_warm_end(struct zc_warm *w)
{
    pthread_mutex_lock(&w->lock);
    w->cancelled = true;
    pthread_cond_broadcast(&w->cond);
    pthread_cond_signal(&w->room);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->walker, NULL);
    pthread_join(w->driver, NULL);
    warm_free(w);
}

/* ------------------------------------------------------------------ free */

struct drop {
    struct zc_vfs *v;
    struct zc_free_stats *out;
    struct zc_error *err;
    int failed;
};

static int drop_file(void *user, struct vfs_dir *d, uint32_t index, uint64_t size)
{
    struct drop *x = user;
    struct zc_objid id;
    if (atomic_load(&x->v->ending))
        return -ESHUTDOWN; /* the unmount waits for this */
    if (vfs_entry_objid(x->v, d, index, &id) < 0)
        return 0;
    int64_t n = zc_cache_evict(x->v->cache, id);
    if (n == -EBUSY) {
        x->out->busy++;
    } else if (n > 0) {
        x->out->files++;
        x->out->bytes += (uint64_t)n;
    }
    return 0;
}

static void drop_failed(void *user, const char *path, int err)
{
    struct drop *x = user;
    if (x->failed == 0)
        zc_error_set(x->err, err, "%s: %s", path[0] ? path : ".", strerror(-err));
    x->failed = err;
}

int zc_vfs_drop(struct zc_vfs *v, const char *const *paths, size_t n, struct zc_free_stats *out,
                struct zc_error *err)
{
    static const struct vfs_walk_ops ops = {.file = drop_file, .failed = drop_failed};
    struct drop x = {.v = v, .out = out, .err = err};
    *out = (struct zc_free_stats){0};
    int r = vfs_walk(v, paths, n, &ops, &x);
    return r < 0 ? zc_error_set(err, r, "the walk ended early: %s", strerror(-r)) : x.failed;
}

/* ------------------------------------------------------------------ count */

struct count {
    uint64_t files, bytes;
    struct zc_error *err;
    int failed;
};

static int count_file(void *user, struct vfs_dir *d, uint32_t index, uint64_t size)
{
    struct count *x = user;
    x->files++;
    x->bytes += size;
    return 0;
}

static void count_failed(void *user, const char *path, int err)
{
    struct count *x = user;
    if (x->failed == 0)
        zc_error_set(x->err, err, "%s: %s", path[0] ? path : ".", strerror(-err));
    x->failed = err;
}

int zc_vfs_count(struct zc_vfs *v, const char *path, uint64_t *files, uint64_t *bytes,
                 struct zc_error *err)
{
    static const struct vfs_walk_ops ops = {.file = count_file, .failed = count_failed};
    struct count x = {.err = err};
    int r = vfs_walk(v, &path, 1, &ops, &x);
    *files = x.files;
    *bytes = x.bytes;
    return r < 0 ? zc_error_set(err, r, "the walk ended early: %s", strerror(-r)) : x.failed;
}
