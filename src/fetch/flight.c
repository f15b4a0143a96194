/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Flights: one GET each, for a run of blocks that nobody else fetches.
 *
 * Bytes go from the network's buffer to the backing file with one pwrite and through the hash on
 * the way; the page cache is the only other copy, and the one that readers are served from. Blocks
 * are announced as soon as they are whole, and with them the waiters whose bytes are all there.
 *
 * When the cache disk refuses a write the chunk moves to memory (memory.c). A flight that notices
 * that its chunk moved under it ends its GET with -ERESTART and starts anew behind the last
 * announced block.
 */
#include "base/log.h"
#include "fetch/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#ifndef ERESTART
#define ERESTART 85
#endif

/* ------------------------------------------------------------------ waiters */

static void flight_wake(struct zc_list *ready, int err)
{
    struct zc_list *it;
    while ((it = zc_list_pop_front(ready))) {
        struct zc_waiter *w = zc_list_entry(it, struct zc_waiter, link);
        w->done(w, err);
    }
}

/* Moves waiters of [off, off + len) to `ready`: those that have all they want, or all of them.
 * Under o->lock. */
static void flight_collect(struct zc_object *o, uint64_t off, uint64_t len, bool all,
                           struct zc_list *ready)
{
    zc_list_for_each_safe (it, tmp, &o->waiters) {
        struct zc_waiter *w = zc_list_entry(it, struct zc_waiter, link);
        if (w->off >= off + len || w->off + w->len <= off)
            continue;
        if (all || fetch_present(o, w->off, w->len)) {
            zc_list_del(it);
            zc_list_push_back(ready, it);
        }
    }
}

bool fetch_awaited(const struct zc_object *o, uint64_t off, uint64_t len)
{
    zc_list_for_each (it, &o->waiters) {
        struct zc_waiter *w = zc_list_entry(it, struct zc_waiter, link);
        if (w->off < off + len && w->off + w->len > off)
            return true;
    }
    return false;
}

static bool flight_awaited(struct zc_object *o, uint64_t off, uint64_t len)
{
    pthread_mutex_lock(&o->lock);
    bool found = fetch_awaited(o, off, len);
    pthread_mutex_unlock(&o->lock);
    return found;
}

static void flight_fail_waiters(struct zc_object *o, uint64_t off, uint64_t len, int err)
{
    struct zc_list failed = ZC_LIST_INIT(failed);
    pthread_mutex_lock(&o->lock);
    flight_collect(o, off, len, true, &failed);
    pthread_mutex_unlock(&o->lock);
    flight_wake(&failed, err);
}

void fetch_wake(struct zc_object *o, uint64_t off, uint64_t len, bool lost)
{
    struct zc_list ready = ZC_LIST_INIT(ready);
    pthread_mutex_lock(&o->lock);
    flight_collect(o, off, len, false, &ready);
    pthread_mutex_unlock(&o->lock);
    flight_wake(&ready, 0);
    if (lost && flight_awaited(o, off, len))
        fetch_start(o, off, len, ZC_PRIO_DEMAND, 0);
}

/* ------------------------------------------------------------------ bytes arrive */

static int flight_hash_file(struct zc_object *o, uint32_t chunk, struct zc_hasher *h)
{
    uint64_t off = (uint64_t)chunk * o->fetch->cfg.chunk_size, left = fetch_chunk_len(o, chunk);
    size_t step = 256 * ZC_KIB;
    zc_autofree uint8_t *buf = malloc(step);
    if (!buf)
        return -ENOMEM;
    while (left) {
        ssize_t n = pread(zc_object_fd(o), buf, (size_t)ZC_MIN((uint64_t)step, left), (off_t)off);
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        zc_hasher_add(h, buf, (size_t)n);
        off += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return 0;
}

/* All blocks of the chunk are on disk and this thread has claimed it: record it with its sum. */
static void flight_record(struct fetch_flight *fl, uint32_t chunk)
{
    struct zc_object *o = fl->o;
    struct zc_fetch *f = o->fetch;
    uint64_t end = (uint64_t)chunk * f->cfg.chunk_size + fetch_chunk_len(o, chunk);
    int r = 0;
    if (!fl->hashing || fl->chunk != (int64_t)chunk || fl->off + fl->pos < end) {
        /* It came in pieces, of which this flight may have brought the first and be the last to
           tell: read it back, from the page cache most likely. */
        zc_hasher_reset(fl->hasher, f->cfg.seed);
        r = flight_hash_file(o, chunk, fl->hasher);
    }
    fl->hashing = false;
    if (r == 0)
        r = zc_cobj_commit(f->cache, o->cobj, chunk, zc_hasher_digest(fl->hasher));
    if (r == 1) {
        pthread_mutex_lock(&o->lock);
        bool good = o->doubts == 0 && !o->lost;
        pthread_mutex_unlock(&o->lock);
        if (good) /* else with the last doubt */
            atomic_store_explicit(&o->complete, true, memory_order_release);
        return;
    }
    if (r < 0) {
        zc_warn("%s: a fetched chunk could not be recorded in the cache: %s", o->path,
                strerror(-r));
        zc_cache_disk_error(f->cache, -r);
        pthread_mutex_lock(&o->lock);
        o->chunks[chunk].recorded = false;
        pthread_mutex_unlock(&o->lock);
    }
}

/* Announces what is whole of chunk `c` up to the flight's position. -ERESTART: the chunk moved to
   memory meanwhile, and what was written to the file is not there. */
static int flight_announce(struct fetch_flight *fl, uint32_t c)
{
    struct zc_object *o = fl->o;
    struct zc_fetch *f = o->fetch;
    struct fetch_chunk *ch = &o->chunks[c];
    uint64_t end = fl->off + fl->pos;
    struct zc_list ready = ZC_LIST_INIT(ready);

    if (end < o->size)
        end -= end % f->block;
    uint64_t from = fl->off + fl->announced;
    if (end <= from)
        return 0;
    uint64_t mask = fetch_mask(o, c, from, end - from);
    pthread_mutex_lock(&o->lock);
    if (ch->mem != fl->mem) {
        pthread_mutex_unlock(&o->lock);
        return -ERESTART;
    }
    ch->present |= mask;
    ch->inflight &= ~mask;
    fl->announced = end - fl->off;
    flight_collect(o, from, end - from, false, &ready);
    bool whole = !ch->mem && ch->reserved && !ch->recorded && ch->present == fetch_full_mask(o, c);
    if (whole)
        ch->recorded = true;
    pthread_mutex_unlock(&o->lock);
    if (whole)
        flight_record(fl, c);
    flight_wake(&ready, 0);
    return 0;
}

static int flight_store(struct fetch_flight *fl, uint32_t c, const uint8_t *p, uint64_t at,
                        size_t n)
{
    struct zc_object *o = fl->o;
    if (fl->mem) {
        memcpy(fl->mem + (at - (uint64_t)c * o->fetch->cfg.chunk_size), p, n);
        return 0;
    }
    while (n) {
        ssize_t w = pwrite(zc_object_fd(o), p, n, (off_t)at);
        if (w < 0 && errno == EINTR)
            continue;
        if (w <= 0) {
            int e = w < 0 ? errno : ENOSPC;
            zc_cache_disk_error(o->fetch->cache, e);
            int r = fetch_mem_take_over(o, c);
            if (r < 0) {
                uint64_t start = (uint64_t)c * o->fetch->cfg.chunk_size;
                flight_fail_waiters(o, start, fetch_chunk_len(o, c), r);
                return r;
            }
            return -ERESTART;
        }
        p += w;
        at += (uint64_t)w;
        n -= (size_t)w;
    }
    return 0;
}

static int flight_data(struct zc_get_req *req, const void *data, size_t n)
{
    struct fetch_flight *fl = zc_container_of(req, struct fetch_flight, req);
    struct zc_object *o = fl->o;
    uint64_t cs = o->fetch->cfg.chunk_size;
    const uint8_t *p = data;

    while (n) {
        uint64_t at = fl->off + fl->pos;
        uint32_t c = (uint32_t)(at / cs);
        size_t take = (size_t)ZC_MIN((uint64_t)n, (uint64_t)c * cs + fetch_chunk_len(o, c) - at);

        pthread_mutex_lock(&o->lock);
        uint8_t *mem = o->chunks[c].mem;
        pthread_mutex_unlock(&o->lock);
        if (fl->chunk != (int64_t)c) {
            fl->chunk = c;
            fl->mem = mem;
            fl->hashing = !mem && at == (uint64_t)c * cs;
            if (fl->hashing)
                zc_hasher_reset(fl->hasher, o->fetch->cfg.seed);
        } else if (fl->mem != mem) {
            return -ERESTART;
        }
        int r = flight_store(fl, c, p, at, take);
        if (r < 0)
            return r;
        if (fl->hashing)
            zc_hasher_add(fl->hasher, p, take);
        fl->pos += take;
        p += take;
        n -= take;
        atomic_fetch_add_explicit(&o->fetch->bytes_store, take, memory_order_relaxed);
        atomic_fetch_add_explicit(&fl->src->bytes_store, take, memory_order_relaxed);
        r = flight_announce(fl, c);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ------------------------------------------------------------------ the end of a flight */

static void flight_free(struct fetch_flight *fl)
{
    zc_hasher_free(fl->hasher);
    free(fl);
}

/* Clears the in-flight marks of [off, off + len). Under o->lock. */
static void flight_unmark(struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    for (uint32_t c = (uint32_t)(off / cs); c < o->nchunks && (uint64_t)c * cs < off + len; c++)
        o->chunks[c].inflight &= ~fetch_mask(o, c, off, len);
}

static void flight_landed(struct zc_fetch *f, struct zc_fetch_src *src)
{
    pthread_mutex_lock(&f->lock);
    f->flying--;
    if (--src->flying == 0)
        pthread_cond_broadcast(&f->idle);
    pthread_mutex_unlock(&f->lock);
}

static void flight_done(struct zc_get_req *req, int err)
{
    struct fetch_flight *fl = zc_container_of(req, struct fetch_flight, req);
    struct zc_object *o = fl->o;
    struct zc_fetch *f = o->fetch;
    struct zc_fetch_src *src = fl->src;
    uint64_t off = fl->off + fl->announced, len = fl->len - fl->announced;
    enum zc_prio prio = fl->req.base.prio;
    unsigned how = (req->owner ? FETCH_OWNER : 0) | (req->exact ? FETCH_EXACT : 0) |
                   (req->replica ? FETCH_REPLICA : 0);

    struct zc_list failed = ZC_LIST_INIT(failed);

    if (err == 0 && len)
        err = -EBADMSG; /* the backend broke its promise */
    /* At once: who comes when the marks are gone has a flight of his own, and waits for that. */
    pthread_mutex_lock(&o->lock);
    zc_list_del(&fl->link);
    bool awaited = err < 0 && fetch_awaited(o, off, len);
    bool again = err == -ERESTART || (err == -ECANCELED && awaited);
    flight_unmark(o, off, len);
    if (err < 0 && !again)
        flight_collect(o, off, len, true, &failed);
    pthread_mutex_unlock(&o->lock);

    if (err == -ESTALE && !atomic_exchange(&o->stale, true)) {
        atomic_fetch_add_explicit(&f->stale_seen, 1, memory_order_relaxed);
        zc_info("%s/%s changed in the store while it was open", src->identity, o->path);
        if (o->cobj)
            zc_cobj_drop(f->cache, o->cobj);
    } else if (err < 0 && err != -ESTALE && err != -ECANCELED && err != -ERESTART) {
        zc_warn("%s/%s: %s", src->identity, o->path,
                req->base.err.text[0] ? req->base.err.text : strerror(-err));
    }
    flight_wake(&failed, err);
    /* Somebody came while it was being cancelled, or its chunk moved: the rest is fetched anew. */
    if (again)
        fetch_start(o, off, len, awaited ? ZC_PRIO_DEMAND : prio, how);
    flight_free(fl);
    if (f->mem_used > f->cfg.memory)
        fetch_mem_trim(f);
    fetch_object_unref(o);
    flight_landed(f, src);
}

/* ------------------------------------------------------------------ the start of a flight */

/* Finds and marks the next run of absent blocks in [*off, end); false when there is none. Under
 * o->lock. */
static bool flight_next_run(struct zc_object *o, uint64_t *off, uint64_t end, uint64_t *run)
{
    uint64_t cs = o->fetch->cfg.chunk_size, block = o->fetch->block;
    const struct zc_fetch_src *src = atomic_load_explicit(&o->src, memory_order_relaxed);
    uint64_t part = src->part_size, cut = src->cut;
    uint64_t at = *off - *off % block, start = 0;
    *run = 0;
    while (at < end) {
        struct fetch_chunk *ch = &o->chunks[at / cs];
        uint64_t bit = (uint64_t)1 << (at % cs / block);
        bool absent = !((ch->present | ch->inflight) & bit);
        if (absent && *run == 0)
            start = at;
        if (!absent && *run)
            break;
        if (absent) {
            ch->inflight |= bit;
            *run += ZC_MIN(block, o->size - at);
            /* Parts end on chunk boundaries, so that each chunk is hashed as it comes. */
            if (*run >= part && (at + block) % cs == 0)
                break;
            if (cut && (at + block) % cut == 0)
                break;
        }
        at += block;
    }
    *off = start;
    return *run > 0;
}

/* Room for the chunks of a run: in the cache, else in memory. */
static int flight_room(struct zc_object *o, uint64_t off, uint64_t len, bool must)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    int r = 0;
    pthread_mutex_lock(&o->setup);
    for (uint32_t c = (uint32_t)(off / cs);
         r == 0 && c < o->nchunks && (uint64_t)c * cs < off + len; c++) {
        struct fetch_chunk *ch = &o->chunks[c];
        pthread_mutex_lock(&o->lock);
        bool in_memory = ch->mem, on_disk = ch->reserved && !in_memory, lost = o->lost;
        pthread_mutex_unlock(&o->lock);
        if (on_disk)
            continue;
        if (!in_memory && !lost && o->cobj &&
            zc_cobj_reserve(o->fetch->cache, o->cobj, fetch_chunk_len(o, c)) == 0) {
            pthread_mutex_lock(&o->lock);
            ch->reserved = true;
            pthread_mutex_unlock(&o->lock);
            continue;
        }
        r = fetch_mem_get(o, c, must);
    }
    pthread_mutex_unlock(&o->setup);
    return r;
}

static int flight_launch(struct zc_object *o, uint64_t off, uint64_t len, enum zc_prio prio,
                         unsigned how)
{
    struct zc_fetch *f = o->fetch;
    struct fetch_flight *fl = calloc(1, sizeof(*fl));
    if (fl)
        fl->hasher = zc_hasher_new(f->cfg.seed);
    if (!fl || !fl->hasher) {
        free(fl);
        return -ENOMEM;
    }
    pthread_mutex_lock(&f->lock);
    struct zc_fetch_src *src = o->src;
    if (f->shutdown || src->closed) {
        int r = f->shutdown ? -ESHUTDOWN : -ESTALE;
        pthread_mutex_unlock(&f->lock);
        flight_free(fl);
        return r;
    }
    o->refs++;
    f->flying++;
    src->flying++;
    unsigned lane = f->lane++;
    pthread_mutex_unlock(&f->lock);

    fl->o = o;
    fl->src = src;
    fl->off = off;
    fl->len = len;
    fl->chunk = -1;
    fl->req = (struct zc_get_req){
        .base = {.prio = prio},
        .path = o->path,
        .version = o->version,
        .off = off,
        .len = len,
        .lane = lane,
        .size = o->size,
        .owner = how & FETCH_OWNER,
        .exact = how & FETCH_EXACT,
        .replica = how & FETCH_REPLICA,
        .data = flight_data,
        .done = flight_done,
    };
    pthread_mutex_lock(&o->lock);
    zc_list_push_back(&o->flights, &fl->link);
    pthread_mutex_unlock(&o->lock);
    atomic_fetch_add_explicit(&f->flights, 1, memory_order_relaxed);
    if (src->closed) /* who closed it may not have seen this flight */
        zc_backend_cancel(src->be, &fl->req.base);
    zc_backend_get(src->be, &fl->req);
    return 0;
}

/* The run's marks go, and with them who waits for it. */
static void flight_give_up(struct zc_object *o, uint64_t off, uint64_t len, int err)
{
    struct zc_list failed = ZC_LIST_INIT(failed);
    pthread_mutex_lock(&o->lock);
    flight_unmark(o, off, len);
    flight_collect(o, off, len, true, &failed);
    pthread_mutex_unlock(&o->lock);
    flight_wake(&failed, err);
}

/* -EAGAIN is for who reads ahead. When a reader saw our marks and waits for them there is room: 0.
   Else the marks are gone. */
static int flight_no_room(struct zc_object *o, uint64_t off, uint64_t len, int err)
{
    pthread_mutex_lock(&o->lock);
    bool awaited = fetch_awaited(o, off, len);
    if (err == -EAGAIN && !awaited)
        flight_unmark(o, off, len);
    pthread_mutex_unlock(&o->lock);
    return err == -EAGAIN && awaited ? flight_room(o, off, len, true) : err;
}

int fetch_start(struct zc_object *o, uint64_t off, uint64_t len, enum zc_prio prio, unsigned how)
{
    uint64_t end = off + len, run;
    int first_error = 0;
    for (;;) {
        pthread_mutex_lock(&o->lock);
        bool more = flight_next_run(o, &off, end, &run);
        pthread_mutex_unlock(&o->lock);
        if (!more)
            return first_error;
        int r = flight_room(o, off, run, prio == ZC_PRIO_DEMAND);
        if (r < 0)
            r = flight_no_room(o, off, run, r);
        if (r == 0)
            r = flight_launch(o, off, run, prio, how);
        if (r < 0 && r != -EAGAIN)
            flight_give_up(o, off, run, r);
        if (r < 0 && first_error == 0)
            first_error = r;
        off += run;
        if (off >=
            end) /* a run may end inside the last block, which the next search would find again */
            return first_error;
    }
}
