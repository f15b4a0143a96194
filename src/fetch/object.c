/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects: the table of what is open or in flight, presence of blocks, waiters and reads.
 *
 * One object is shared by all opens of a version, so single flight needs no other machinery:
 * whoever wants a block that is absent marks it in flight under the object's lock, and everybody
 * else waits for that flight.
 */
#include "base/log.h"
#include "fetch/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

uint64_t fetch_full_mask(const struct zc_object *o, uint32_t chunk)
{
    uint64_t blocks = (fetch_chunk_len(o, chunk) + o->fetch->block - 1) / o->fetch->block;
    return blocks >= FETCH_BLOCKS ? UINT64_MAX : ((uint64_t)1 << blocks) - 1;
}

uint64_t fetch_mask(const struct zc_object *o, uint32_t chunk, uint64_t off, uint64_t len)
{
    uint64_t start = (uint64_t)chunk * o->fetch->cfg.chunk_size;
    uint64_t end = start + fetch_chunk_len(o, chunk);
    uint64_t from = ZC_MAX(off, start), to = ZC_MIN(off + len, end);
    if (from >= to)
        return 0;
    unsigned first = (unsigned)((from - start) / o->fetch->block);
    unsigned last = (unsigned)((to - 1 - start) / o->fetch->block);
    uint64_t upto = last == FETCH_BLOCKS - 1 ? UINT64_MAX : ((uint64_t)1 << (last + 1)) - 1;
    return upto & ~(((uint64_t)1 << first) - 1);
}

/* ------------------------------------------------------------------ table */

static struct zc_list *object_bucket(struct zc_fetch *f, struct zc_objid id)
{
    return &f->buckets[id.id.lo % FETCH_BUCKETS];
}

static struct zc_object *object_find(struct zc_fetch *f, struct zc_objid id)
{
    struct zc_list *b = object_bucket(f, id);
    zc_list_for_each (it, b) {
        struct zc_object *o = zc_list_entry(it, struct zc_object, hash_link);
        if (zc_digest_eq(o->id.id, id.id))
            return o;
    }
    return NULL;
}

void fetch_object_ref(struct zc_object *o)
{
    pthread_mutex_lock(&o->fetch->lock);
    o->refs++;
    pthread_mutex_unlock(&o->fetch->lock);
}

static void object_destroy(struct zc_object *o)
{
    struct zc_fetch *f = o->fetch;
    if (o->chunks) {
        uint64_t unused = 0;
        fetch_mem_drop(o);
        for (uint32_t c = 0; c < o->nchunks; c++) {
            if (o->chunks[c].reserved && !o->chunks[c].recorded)
                unused += fetch_chunk_len(o, c);
        }
        if (o->cobj && unused)
            zc_cobj_unreserve(f->cache, o->cobj, unused);
    }
    if (o->cobj && o->lost)
        zc_cobj_drop(f->cache, o->cobj);
    if (o->cobj)
        zc_cobj_release(f->cache, o->cobj);
    free(o->chunks);
    pthread_mutex_destroy(&o->lock);
    pthread_mutex_destroy(&o->setup);
    pthread_mutex_destroy(&o->check);
    free(o);
}

void fetch_object_unref(struct zc_object *o)
{
    struct zc_fetch *f = o->fetch;
    pthread_mutex_lock(&f->lock);
    assert(o->refs > 0);
    bool last = --o->refs == 0;
    if (last)
        zc_list_del(&o->hash_link);
    pthread_mutex_unlock(&f->lock);
    if (!last)
        return;
    object_destroy(o);
    pthread_mutex_lock(&f->lock);
    if (--f->live == 0)
        pthread_cond_broadcast(&f->idle);
    pthread_mutex_unlock(&f->lock);
}

void fetch_cancel(struct zc_object *o, const struct zc_fetch_src *src)
{
    pthread_mutex_lock(&o->lock);
    zc_list_for_each (it, &o->flights) {
        struct fetch_flight *fl = zc_list_entry(it, struct fetch_flight, link);
        if (!src || fl->src == src)
            zc_backend_cancel(fl->src->be, &fl->req.base);
    }
    pthread_mutex_unlock(&o->lock);
}

enum object_for {
    FOR_READER,
    FOR_READER_QUICK, /* only a complete one whose file opens without a wait; else 1 or -EAGAIN */
    FOR_NODE,         /* another one: no hit or miss of ours */
};

static void object_count(struct zc_fetch_src *src, uint64_t size, bool hit, enum object_for why)
{
    if (why == FOR_NODE)
        return;
    atomic_fetch_add_explicit(hit ? &src->hits : &src->misses, 1, memory_order_relaxed);
    if (hit)
        atomic_fetch_add_explicit(&src->bytes_hit, size, memory_order_relaxed);
}

/* An object whose source was closed under open handles goes on with the source that opens it now:
   it has the same identity, so the bytes are the same. Under fetch->lock. */
static void object_follow(struct zc_object *o, struct zc_fetch_src *src)
{
    struct zc_fetch_src *old = atomic_load(&o->src);
    if (old == src || !old->closed)
        return;
    old->open -= o->opens - o->node_opens;
    src->open += o->opens - o->node_opens;
    atomic_store(&o->src, src);
}

/* A complete object has chunks of its own again. */
static int object_split(struct zc_object *o, bool doubted)
{
    int r = 0;
    pthread_mutex_lock(&o->lock);
    if (!o->chunks) {
        struct fetch_chunk *chunks = calloc(o->nchunks, sizeof(*chunks));
        for (uint32_t c = 0; chunks && c < o->nchunks; c++) {
            zc_list_init(&chunks[c].mem_link);
            chunks[c].owner = o;
            chunks[c].present = fetch_full_mask(o, c);
            chunks[c].recorded = chunks[c].reserved = true;
            chunks[c].doubted = doubted;
        }
        o->doubts = chunks && doubted ? o->nchunks : 0;
        o->chunks = chunks;
        r = chunks ? 0 : -ENOMEM;
    }
    if (r == 0)
        atomic_store_explicit(&o->complete, false, memory_order_release);
    pthread_mutex_unlock(&o->lock);
    return r;
}

static int object_new(struct zc_fetch *f, struct zc_objid id, struct zc_fetch_src *src,
                      const char *path, const char *version, uint64_t size, enum object_for why,
                      struct zc_object **out)
{
    if (size / f->cfg.chunk_size >= UINT32_MAX)
        return -EFBIG; /* chunks are counted in 32 bits */
    size_t path_size = strlen(path) + 1, version_size = strlen(version) + 1;
    struct zc_object *o = calloc(1, sizeof(*o) + path_size + version_size);
    if (!o)
        return -ENOMEM;
    o->path = memcpy(o->names, path, path_size);
    o->version = memcpy(o->names + path_size, version, version_size);
    o->fetch = f;
    o->id = id;
    atomic_init(&o->src, src);
    o->size = size;
    o->refs = o->opens = 1;
    o->node_opens = why == FOR_NODE;
    o->nchunks = (uint32_t)((size + f->cfg.chunk_size - 1) / f->cfg.chunk_size);
    pthread_mutex_init(&o->lock, NULL);
    pthread_mutex_init(&o->setup, NULL);
    pthread_mutex_init(&o->check, NULL);
    zc_list_init(&o->hash_link);
    zc_list_init(&o->waiters);
    zc_list_init(&o->flights);

    int r = size == 0                 ? 1
            : why == FOR_READER_QUICK ? zc_cache_hold_quick(f->cache, id, &o->cobj)
                                      : zc_cache_hold_complete(f->cache, id, &o->cobj);
    if (r == 1) {
        bool doubted = o->cobj && zc_cobj_doubted(o->cobj);
        object_count(src, size, true, why);
        if (doubted && object_split(o, true) < 0) {
            object_destroy(o);
            return -ENOMEM;
        }
        atomic_store(&o->complete, !doubted);
        *out = o;
        return 0;
    }
    if (why == FOR_READER_QUICK) {
        object_destroy(o);
        return r == -EAGAIN ? -EAGAIN : 1;
    }
    object_count(src, size, false, why);
    o->chunks = calloc(o->nchunks, sizeof(*o->chunks));
    if (!o->chunks) {
        object_destroy(o);
        return -ENOMEM;
    }
    /* A cache that is full or broken costs the cache, never the read. */
    if (zc_cache_hold(f->cache, id, src->identity, path, size, &o->cobj) < 0)
        o->cobj = NULL;
    for (uint32_t c = 0; c < o->nchunks; c++) {
        struct fetch_chunk *ch = &o->chunks[c];
        zc_list_init(&ch->mem_link);
        ch->owner = o;
        if (o->cobj && zc_cobj_has_chunk(o->cobj, c)) {
            ch->present = fetch_full_mask(o, c);
            ch->recorded = ch->reserved = true;
            ch->doubted = zc_cobj_doubted(o->cobj);
            o->doubts += ch->doubted;
        }
    }
    if (o->cobj && zc_cobj_state(o->cobj) == ZC_COBJ_COMPLETE && !o->doubts)
        atomic_store(&o->complete, true);
    *out = o;
    return 0;
}

static int object_open(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                       const char *version, uint64_t size, enum object_for why,
                       struct zc_object **out)
{
    struct zc_objid id = zc_objid_of(src->identity, path, version, size);
    struct zc_object *o, *fresh = NULL;
    int r;

    pthread_mutex_lock(&f->lock);
    for (;;) {
        if (f->shutdown || src->closed) {
            r = f->shutdown ? -ESHUTDOWN : -ESTALE;
            break;
        }
        o = object_find(f, id);
        if (o) {
            object_follow(o, src);
            o->refs++;
            o->opens++;
            if (why == FOR_NODE)
                o->node_opens++;
            else
                atomic_load(&o->src)->open++;
            object_count(src, size, atomic_load(&o->complete), why);
            *out = o;
            r = 0;
            break;
        }
        if (fresh) {
            zc_list_push_front(object_bucket(f, id), &fresh->hash_link);
            f->live++;
            if (why != FOR_NODE)
                src->open++;
            *out = zc_steal_ptr(&fresh);
            r = 0;
            break;
        }
        pthread_mutex_unlock(&f->lock);
        r = object_new(f, id, src, path, version, size, why, &fresh);
        pthread_mutex_lock(&f->lock);
        if (r != 0)
            break;
    }
    pthread_mutex_unlock(&f->lock);
    if (fresh)
        object_destroy(fresh); /* another thread was first */
    return r;
}

int zc_object_open(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                   const char *version, uint64_t size, struct zc_object **out)
{
    return object_open(f, src, path, version, size, FOR_READER, out);
}

int zc_object_open_quick(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                         const char *version, uint64_t size, struct zc_object **out)
{
    return object_open(f, src, path, version, size, FOR_READER_QUICK, out);
}

int zc_object_open_for_node(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                            const char *version, uint64_t size, struct zc_object **out)
{
    return object_open(f, src, path, version, size, FOR_NODE, out);
}

bool zc_object_is_known(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                        const char *version, uint64_t size)
{
    struct zc_objid id = zc_objid_of(src->identity, path, version, size);
    pthread_mutex_lock(&f->lock);
    bool open = object_find(f, id) != NULL;
    pthread_mutex_unlock(&f->lock);
    return open || zc_cache_has_some(f->cache, id);
}

static void object_close(struct zc_object *o, enum object_for why)
{
    struct zc_fetch *f = o->fetch;
    pthread_mutex_lock(&f->lock);
    bool last_open = --o->opens == 0;
    if (why == FOR_NODE)
        o->node_opens--;
    else
        atomic_load(&o->src)->open--;
    pthread_mutex_unlock(&f->lock);
    /* Nobody reads on: what was fetched ahead of the reader is not worth its bytes any more. */
    if (last_open && o->chunks && why == FOR_READER)
        fetch_cancel(o, NULL);
    fetch_object_unref(o);
}

void zc_object_close(struct zc_object *o)
{
    object_close(o, FOR_READER);
}

void zc_object_close_for_node(struct zc_object *o)
{
    object_close(o, FOR_NODE);
}

bool zc_object_complete(struct zc_object *o)
{
    return atomic_load_explicit(&o->complete, memory_order_acquire);
}

bool zc_object_kept(struct zc_object *o)
{
    if (zc_object_complete(o))
        return true;
    pthread_mutex_lock(&o->lock);
    bool kept = o->chunks != NULL;
    for (uint32_t c = 0; kept && c < o->nchunks; c++)
        kept = o->chunks[c].recorded && !o->chunks[c].mem;
    pthread_mutex_unlock(&o->lock);
    return kept;
}

int zc_object_fd(struct zc_object *o)
{
    return o->cobj ? zc_cobj_fd(o->cobj) : -1;
}

uint64_t zc_object_size(const struct zc_object *o)
{
    return o->size;
}

uint64_t zc_object_chunk_size(const struct zc_object *o)
{
    return o->fetch->cfg.chunk_size;
}

bool zc_object_stale(const struct zc_object *o)
{
    return atomic_load(&o->stale);
}

/* ------------------------------------------------------------------ wanting and reading */

bool fetch_present(const struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    for (uint32_t c = (uint32_t)(off / cs); c < o->nchunks && (uint64_t)c * cs < off + len; c++) {
        uint64_t m = fetch_mask(o, c, off, len);
        if ((o->chunks[c].present & m) != m)
            return false;
    }
    return true;
}

/* A random reader that has asked for a quarter of a chunk will likely ask for the rest. Under
 * o->lock. */
static bool object_rest_pays(struct zc_object *o, uint32_t chunk)
{
    struct fetch_chunk *ch = &o->chunks[chunk];
    return __builtin_popcountll(ch->present | ch->inflight) * 4 >=
           __builtin_popcountll(fetch_full_mask(o, chunk));
}

/* The cache disk does not give back what it was given (err 0: it gives something else). The object
   leaves the cache, so that it is fetched anew by who opens it next, to other sectors; who has it
   open goes on with what can be read, and has this chunk fetched again, to memory. -EAGAIN: want it
   again. */
static ssize_t object_lost(struct zc_object *o, uint32_t chunk, int err)
{
    zc_warn("%s: the cache disk cannot read it back (%s): it is fetched again", o->path,
            err ? strerror(err) : "other bytes than were written");
    if (err)
        zc_cache_disk_error(o->fetch->cache, err);
    if (!o->doubts) /* else when it is closed: with it go the sums of what is still to be checked */
        zc_cobj_drop(o->fetch->cache, o->cobj);
    int r = fetch_lose(o, chunk);
    return r < 0 ? r : -EAGAIN;
}

int fetch_lose(struct zc_object *o, uint32_t chunk)
{
    pthread_mutex_lock(&o->lock);
    o->lost = true;
    pthread_mutex_unlock(&o->lock);
    int r = object_split(o, false);
    return r < 0 ? r : fetch_mem_lose(o, chunk);
}

static int object_check_chunk(struct zc_object *o, uint32_t c)
{
    pthread_mutex_lock(&o->lock);
    bool doubted = o->chunks[c].doubted;
    pthread_mutex_unlock(&o->lock);
    if (!doubted)
        return 0;
    int r = zc_cobj_check(o->fetch->cache, o->cobj, c);
    if (r == -ENOMEM)
        return r;
    if (r <= 0) {
        r = (int)object_lost(o, c, -r);
        if (r != -EAGAIN)
            return r;
    }
    pthread_mutex_lock(&o->lock);
    o->chunks[c].doubted = false;
    bool good = --o->doubts == 0 && !o->lost;
    pthread_mutex_unlock(&o->lock);
    if (good) {
        zc_cobj_trust(o->fetch->cache, o->cobj);
        if (zc_cobj_state(o->cobj) == ZC_COBJ_COMPLETE)
            atomic_store_explicit(&o->complete, true, memory_order_release);
    }
    return 0;
}

int fetch_check(struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    int r = 0;
    if (!o->doubts)
        return 0;
    pthread_mutex_lock(&o->check);
    for (uint32_t c = (uint32_t)(off / cs);
         r == 0 && c < o->nchunks && (uint64_t)c * cs < off + len; c++)
        r = object_check_chunk(o, c);
    pthread_mutex_unlock(&o->check);
    return r;
}

/* 1: all is there; 0: it is to be waited for; -ESTALE. Under o->lock. */
static int object_look(const struct zc_object *o, uint64_t off, uint64_t len)
{
    if (fetch_present(o, off, len))
        return 1;
    return atomic_load(&o->stale) ? -ESTALE : 0;
}

int zc_object_want(struct zc_object *o, uint64_t off, uint64_t len, bool exact, enum zc_prio prio,
                   struct zc_waiter *w)
{
    uint64_t cs = o->fetch->cfg.chunk_size;

    if (off >= o->size || len == 0 || zc_object_complete(o))
        return 1;
    len = ZC_MIN(len, o->size - off);
    int r = fetch_check(o, off, len);
    if (r < 0)
        return r;
    pthread_mutex_lock(&o->lock);
    r = object_look(o, off, len);
    pthread_mutex_unlock(&o->lock);
    if (r != 0)
        return r;
    /* As soon as others see the waiter they may call done(), which may close the object. */
    fetch_object_ref(o);
    pthread_mutex_lock(&o->lock);
    r = object_look(o, off, len);
    if (r != 0) {
        pthread_mutex_unlock(&o->lock);
        fetch_object_unref(o);
        return r;
    }
    w->off = off;
    w->len = len;
    zc_list_push_back(&o->waiters, &w->link);
    uint32_t first = (uint32_t)(off / cs), last = (uint32_t)((off + len - 1) / cs);
    bool rest = !exact || (first == last && object_rest_pays(o, first));
    pthread_mutex_unlock(&o->lock);

    /* The bytes asked for go out first, as a flight of their own where the rest of the chunk is
     * larger. */
    r = fetch_start(o, off, len, prio, rest ? 0 : FETCH_EXACT);
    if (rest && r == 0) {
        uint64_t from = (uint64_t)first * cs;
        uint64_t to = ZC_MIN((uint64_t)(last + 1) * cs, o->size);
        fetch_start(o, from, to - from, prio == ZC_PRIO_DEMAND ? ZC_PRIO_AHEAD : prio, 0);
    }
    fetch_object_unref(o);
    return 0; /* a failure of fetch_start has reached the waiter by done() */
}

void zc_object_prefetch(struct zc_object *o, uint64_t off, uint64_t len, enum zc_prio prio)
{
    if (off >= o->size || len == 0 || zc_object_complete(o) || atomic_load(&o->stale))
        return;
    fetch_start(o, off, ZC_MIN(len, o->size - off), prio, 0);
}

bool zc_object_forget(struct zc_object *o, struct zc_waiter *w)
{
    pthread_mutex_lock(&o->lock);
    bool queued = false;
    zc_list_for_each (it, &o->waiters) {
        if (it == &w->link) {
            queued = true;
            break;
        }
    }
    if (queued)
        zc_list_del(&w->link);
    pthread_mutex_unlock(&o->lock);
    return queued;
}

bool zc_object_in_file(struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    if (zc_object_fd(o) < 0)
        return false;
    if (zc_object_complete(o))
        return true;
    pthread_mutex_lock(&o->lock);
    bool ok = fetch_present(o, off, len);
    for (uint32_t c = (uint32_t)(off / cs); ok && c < o->nchunks && (uint64_t)c * cs < off + len;
         c++)
        ok = !o->chunks[c].mem;
    pthread_mutex_unlock(&o->lock);
    return ok;
}

/* The part of a read that lies in one chunk. */
static ssize_t object_read_chunk(struct zc_object *o, uint8_t *buf, uint64_t off, size_t len)
{
    struct zc_fetch *f = o->fetch;
    uint32_t c = (uint32_t)(off / f->cfg.chunk_size);
    uint64_t in = off - (uint64_t)c * f->cfg.chunk_size;
    len = ZC_MIN(len, (size_t)(fetch_chunk_len(o, c) - in));

    if (!zc_object_complete(o)) {
        struct fetch_chunk *ch = &o->chunks[c];
        pthread_mutex_lock(&o->lock);
        uint64_t m = fetch_mask(o, c, off, len);
        bool there = (ch->present & m) == m;
        uint8_t *mem = there ? ch->mem : NULL;
        if (mem)
            ch->mem_pins++;
        pthread_mutex_unlock(&o->lock);
        if (!there)
            return -EAGAIN;
        if (mem) {
            memcpy(buf, mem + in, len);
            pthread_mutex_lock(&o->lock);
            ch->mem_pins--;
            pthread_mutex_unlock(&o->lock);
            return (ssize_t)len;
        }
    }
    ssize_t n = pread(zc_object_fd(o), buf, len, (off_t)off);
    if (n > 0)
        return n;
    return object_lost(o, c, n < 0 ? errno : ENODATA); /* or it was cut by somebody else */
}

ssize_t zc_object_read(struct zc_object *o, void *buf, uint64_t off, size_t len)
{
    size_t done = 0;
    if (off >= o->size)
        return 0;
    len = (size_t)ZC_MIN((uint64_t)len, o->size - off);
    while (done < len) {
        ssize_t n = object_read_chunk(o, (uint8_t *)buf + done, off + done, len - done);
        if (n < 0)
            return n;
        done += (size_t)n;
    }
    return (ssize_t)done;
}
