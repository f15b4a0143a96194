/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects held open, from hold to release.
 *
 * The way of a slot: made BUSY by who opens or makes its file, HELD while somebody has the object,
 * then either nobody's (its chunks in the slot) or gone. All waiting for files is done in the BUSY
 * state without the lock; others who want that very object wait, nobody else does.
 *
 * A warm open is one look into the table, one open(2) and one fstat(2): the index is not asked.
 */
#include "cache/cache_priv.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

struct zc_objid zc_objid_of(const char *source, const char *path, const char *version,
                            uint64_t size)
{
    /* Digests of fixed length side by side: no choice of strings can shift a byte from one to the
     * next. */
    uint8_t buf[3 * ZC_DIGEST_BYTES + 8];
    zc_digest_store(buf, zc_digest_of(0, source, strlen(source)));
    zc_digest_store(buf + 16, zc_digest_of(0, path, strlen(path)));
    zc_digest_store(buf + 32, zc_digest_of(0, version, strlen(version)));
    for (int i = 0; i < 8; i++)
        buf[48 + i] = (uint8_t)(size >> (8 * i));
    return (struct zc_objid){zc_digest_of(0, buf, sizeof(buf))};
}

uint64_t cache_chunk_len(uint64_t size, unsigned shift, uint32_t chunk)
{
    uint64_t off = (uint64_t)chunk << shift;
    return off >= size ? 0 : ZC_MIN(size - off, (uint64_t)1 << shift);
}

uint64_t cache_charge(uint64_t size, unsigned shift, const uint64_t *bits)
{
    uint32_t n = cache_nchunks(size, shift);
    uint64_t bytes = 0;
    if (n == 0)
        return CACHE_BLOCK; /* the inode */
    if (!bits)
        return cache_blocks(size);
    for (uint32_t i = 0; i < n; i++) {
        if (bits[i / 64] >> i % 64 & 1)
            bytes += cache_blocks(cache_chunk_len(size, shift, i));
    }
    return bytes;
}

int cache_punch(int fd, uint64_t size, unsigned shift, const uint64_t *bits)
{
    uint32_t n = cache_nchunks(size, shift);
    for (uint32_t i = 0; i < n;) {
        uint32_t from = i;
        while (i < n && !(bits[i / 64] >> i % 64 & 1))
            i++;
        if (i > from) {
            uint64_t off = (uint64_t)from << shift;
            uint64_t end = i == n ? cache_blocks(size) : (uint64_t)i << shift;
            if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off,
                          (off_t)(end - off)) < 0)
                return -errno;
        }
        i++;
    }
    return 0;
}

void cache_doom(struct zc_cache *c, uint32_t slot)
{
    struct slot *s = table_slot(&c->table, slot);
    s->flags |= SLOT_BUSY | SLOT_DYING;
    zc_policy_remove(c->policy, slot);
}

void cache_forget(struct zc_cache *c, uint32_t slot, bool recorded)
{
    struct slot *s = table_slot(&c->table, slot);
    if (s->flags & SLOT_COMPLETE)
        c->complete--;
    else if (!(s->flags & SLOT_HELD) && cache_nchunks(s->size, c->shift) > 64)
        free(s->u.words);
    if (s->flags & SLOT_DOUBTED)
        c->doubted--;
    mark_gone(c, s);
    if (recorded)
        index_del_obj(c->index, s->id);
    table_remove(&c->table, slot);
}

/* ------------------------------------------------------------------ making and freeing the struct
 */

static void cobj_free(struct zc_cobj *o)
{
    if (!o)
        return;
    if (o->fd >= 0)
        close(o->fd);
    free(o->source);
    free(o->path);
    free(o);
}

static struct zc_cobj *cobj_new(struct zc_cache *c, struct zc_objid id, uint64_t size,
                                bool complete, const char *source, const char *path)
{
    uint32_t nchunks = cache_nchunks(size, c->shift);
    size_t words = complete ? 0 : ((size_t)nchunks + 63) / 64;
    struct zc_cobj *o = calloc(1, sizeof(*o) + words * sizeof(o->bits[0]));
    if (!o)
        return NULL;
    o->id = id;
    o->size = size;
    o->slot = SLOT_NONE;
    o->nchunks = nchunks;
    o->shift = c->shift;
    o->fd = -1;
    o->refs = 1;
    o->state = complete ? ZC_COBJ_COMPLETE : ZC_COBJ_PARTIAL;
    o->present = complete ? nchunks : 0;
    if (!complete) {
        o->source = strdup(source);
        o->path = strdup(path);
        if (!o->source || !o->path) {
            cobj_free(o);
            return NULL;
        }
    }
    return o;
}

static void cobj_attach(struct zc_cache *c, struct zc_cobj *o, uint32_t slot)
{
    struct slot *s = table_slot(&c->table, slot);
    if (s->flags & SLOT_LENT)
        o->borrower = s->u.borrower;
    s->u.obj = o;
    s->flags = (s->flags & ~(uint32_t)(SLOT_BUSY | SLOT_WANTED)) | SLOT_HELD;
    o->slot = slot;
    pthread_cond_broadcast(&c->changed);
}

/* ------------------------------------------------------------------ holding what is there */

/* Opens the file of a resident that this thread made BUSY. 1: good; 0: not to be used any more. */
static int cobj_open(struct zc_cache *c, struct zc_cobj *o, bool doubted, bool quick)
{
    struct stat st;
    bool complete = o->state == ZC_COBJ_COMPLETE;
    if (quick) {
        o->fd = doubted ? -EAGAIN : store_file_open_cached(c->store, o->id);
        if (o->fd < 0)
            return -EAGAIN;
    } else {
        o->fd = store_file_open(c->store, o->id, complete ? O_RDONLY : O_RDWR);
    }
    if (o->fd < 0)
        return o->fd == -ENOENT ? 0 : o->fd;
    if (fstat(o->fd, &st) < 0)
        return -errno;
    if ((uint64_t)st.st_size != o->size)
        return 0;
    o->doubted = doubted && !verify_at_once(c, o->size);
    return doubted && !o->doubted
               ? verify_file(c, o->id, o->fd, o->size, complete ? NULL : (const uint64_t *)o->bits,
                             NULL, NULL)
               : 1;
}

/* The resident in `slot` is neither held nor busy. Called with the lock, returns with it: 1 held;
   0: it was of no use and is gone; negative: an error that says nothing about the object. */
static int hold_resident(struct zc_cache *c, uint32_t slot, const char *source, const char *path,
                         bool quick, struct zc_cobj **out)
{
    struct slot *s = table_slot(&c->table, slot);
    bool complete = s->flags & SLOT_COMPLETE, doubted = s->flags & SLOT_DOUBTED;
    struct zc_cobj *o = cobj_new(c, s->id, s->size, complete, source, path);
    if (!o)
        return -ENOMEM;
    if (!complete) {
        const uint64_t *bits = slot_bits(s, c->shift);
        for (uint32_t i = 0; i < (o->nchunks + 63) / 64; i++) {
            o->bits[i] = bits[i];
            o->present += (uint32_t)__builtin_popcountll(bits[i]);
        }
    }
    o->recorded = true;
    o->committed = s->bytes;
    s->flags |= SLOT_BUSY;
    pthread_mutex_unlock(&c->lock);
    int r = cobj_open(c, o, doubted, quick);
    if (r == -EIO)
        zc_cache_disk_error(c, r);
    pthread_mutex_lock(&c->lock);
    if (r == 1) {
        if (!complete && o->nchunks > 64)
            free(s->u.words);
        if (doubted && !o->doubted) {
            s->flags &= ~(uint32_t)SLOT_DOUBTED;
            c->doubted--;
        }
        cobj_attach(c, o, slot);
        *out = o;
        return 1;
    }
    if (r == 0 || r == -EIO) {
        char name[STORE_NAME_MAX];
        zc_warn("%s/%s is missing or damaged: dropped", c->store->path,
                store_file_name(o->id, name));
        budget_evict(c, slot);
    } else {
        s->flags &= ~(uint32_t)(SLOT_BUSY | SLOT_WANTED);
        pthread_cond_broadcast(&c->changed);
    }
    cobj_free(o);
    return r;
}

/* Finds and holds under the lock. 1: held; 0: not there (complete, if asked for so). */
static int hold_find(struct zc_cache *c, struct zc_objid id, bool only_complete, bool quick,
                     const char *source, const char *path, struct zc_cobj **out)
{
    for (;;) {
        uint32_t slot = table_find(&c->table, id);
        if (slot == SLOT_NONE)
            return 0;
        struct slot *s = table_slot(&c->table, slot);
        if (s->flags & SLOT_BUSY) {
            if (quick)
                return -EAGAIN;
            s->flags |= SLOT_WANTED;
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        if (only_complete && !(s->flags & SLOT_COMPLETE))
            return 0;
        if (s->flags & SLOT_HELD) {
            s->u.obj->refs++;
            *out = s->u.obj;
        } else {
            int r = hold_resident(c, slot, source, path, quick, out);
            if (r != 1)
                return r;
        }
        zc_policy_touch(c->policy, slot);
        return 1;
    }
}

int zc_cache_hold_complete(struct zc_cache *c, struct zc_objid id, struct zc_cobj **out)
{
    if (cache_bypassed(c))
        return 0;
    pthread_mutex_lock(&c->lock);
    int r = hold_find(c, id, true, false, NULL, NULL, out);
    pthread_mutex_unlock(&c->lock);
    return r;
}

int zc_cache_hold_quick(struct zc_cache *c, struct zc_objid id, struct zc_cobj **out)
{
    if (cache_bypassed(c))
        return 0;
    pthread_mutex_lock(&c->lock);
    int r = hold_find(c, id, true, true, NULL, NULL, out);
    pthread_mutex_unlock(&c->lock);
    return r;
}

bool zc_cache_has_some(struct zc_cache *c, struct zc_objid id)
{
    pthread_mutex_lock(&c->lock);
    bool some = table_find(&c->table, id) != SLOT_NONE;
    pthread_mutex_unlock(&c->lock);
    return some;
}

bool zc_cache_has(struct zc_cache *c, struct zc_objid id)
{
    if (cache_bypassed(c))
        return false;
    pthread_mutex_lock(&c->lock);
    uint32_t slot = table_find(&c->table, id);
    uint32_t flags = slot == SLOT_NONE ? 0 : table_slot(&c->table, slot)->flags;
    pthread_mutex_unlock(&c->lock);
    return (flags & (SLOT_COMPLETE | SLOT_DOUBTED | SLOT_DYING)) == SLOT_COMPLETE;
}

/* ------------------------------------------------------------------ holding what is new */

/* An empty backing file. What lies there under this name belongs to nobody; somebody may still read
   it, so that it is unlinked and not cut. */
static int cobj_create(struct zc_cache *c, struct zc_cobj *o)
{
    o->fd = store_file_open(c->store, o->id, O_RDWR | O_CREAT | O_EXCL);
    if (o->fd == -EEXIST) {
        int r = store_file_unlink(c->store, o->id);
        if (r < 0)
            return r;
        o->fd = store_file_open(c->store, o->id, O_RDWR | O_CREAT | O_EXCL);
    }
    if (o->fd < 0)
        return o->fd;
    if (o->size && ftruncate(o->fd, (off_t)o->size) < 0) {
        int r = -errno;
        store_file_unlink(c->store, o->id);
        return r;
    }
    return 0;
}

static struct rec_obj cobj_record(struct zc_cache *c, const struct zc_cobj *o, bool complete)
{
    return (struct rec_obj){.size = o->size,
                            .chunk_size = (uint32_t)c->chunk_size,
                            .complete = complete,
                            .source = o->source,
                            .path = o->path,
                            .source_len = strlen(o->source),
                            .path_len = strlen(o->path)};
}

/* Called with the lock, with CACHE_BLOCK charged; the object is in the table when it returns 1. */
static int hold_new(struct zc_cache *c, struct zc_objid id, const char *source, const char *path,
                    uint64_t size, struct zc_cobj **out)
{
    uint32_t slot;
    struct zc_cobj *o = cobj_new(c, id, size, false, source, path);
    int r = o ? table_add(&c->table, id, &slot) : -ENOMEM;
    if (r < 0) {
        cobj_free(o);
        return r;
    }
    struct slot *s = table_slot(&c->table, slot);
    s->size = size;
    s->flags = SLOT_BUSY;
    r = zc_policy_add(c->policy, slot, id.id.lo, 0);
    if (r < 0) {
        table_remove(&c->table, slot);
        cobj_free(o);
        return r;
    }
    spare_mark(c, slot);
    pthread_mutex_unlock(&c->lock);
    r = cobj_create(c, o);
    if (r < 0)
        zc_cache_disk_error(c, r);
    pthread_mutex_lock(&c->lock);
    if (r < 0) {
        s->flags |= SLOT_HELD; /* no bits hang on it */
        cache_doom(c, slot);
        cache_forget(c, slot, false);
        pthread_cond_broadcast(&c->changed);
        cobj_free(o);
        return r;
    }
    cobj_attach(c, o, slot);
    zc_policy_touch(c->policy, slot);
    if (size == 0) {
        struct rec_obj rec = cobj_record(c, o, true);
        o->recorded = index_put_obj(c->index, id, &rec) == 0;
        o->state = ZC_COBJ_COMPLETE;
        o->committed = s->bytes = CACHE_BLOCK;
        s->flags |= SLOT_COMPLETE;
        c->complete++;
        zc_policy_resize(c->policy, slot, s->bytes);
    }
    *out = o;
    return 1;
}

int zc_cache_hold(struct zc_cache *c, struct zc_objid id, const char *source, const char *path,
                  uint64_t size, struct zc_cobj **out)
{
    struct zc_cobj *o = NULL;
    if (cache_bypassed(c))
        return -EIO;
    if (size >> c->shift >= UINT32_MAX || size > INT64_MAX - c->chunk_size)
        return -EFBIG;
    index_throttle(c->index);
    pthread_mutex_lock(&c->lock);
    int r = hold_find(c, id, false, false, source, path, &o);
    if (r == 0) {
        pthread_mutex_unlock(&c->lock);
        r = budget_take(c, CACHE_BLOCK); /* for the first byte, or an empty file */
        if (r < 0)
            return r;
        r = hold_find(c, id, false, false, source, path, &o);
        bool made = r == 0;
        if (made)
            r = hold_new(c, id, source, path, size, &o);
        c->unwritten -= CACHE_BLOCK;
        if (r < 0 || !made || size > 0)
            budget_give(c, CACHE_BLOCK);
    }
    pthread_mutex_unlock(&c->lock);
    if (r < 0)
        return r;
    if (o->size != size) { /* the id has the size in it: a record that lied */
        zc_cobj_drop(c, o);
        zc_cobj_release(c, o);
        return -EIO;
    }
    *out = o;
    return 0;
}

/* ------------------------------------------------------------------ while held */

int zc_cobj_fd(struct zc_cobj *o)
{
    return o->fd;
}

enum zc_cobj_state zc_cobj_state(struct zc_cobj *o)
{
    return (enum zc_cobj_state)atomic_load_explicit(&o->state, memory_order_acquire);
}

bool zc_cobj_has_chunk(struct zc_cobj *o, uint32_t chunk)
{
    if (chunk >= o->nchunks)
        return false;
    if (zc_cobj_state(o) == ZC_COBJ_COMPLETE)
        return true;
    return atomic_load_explicit(&o->bits[chunk / 64], memory_order_acquire) >> chunk % 64 & 1;
}

uint32_t zc_cobj_chunks(const struct zc_cobj *o)
{
    return o->nchunks;
}

uint64_t zc_cobj_chunk_len(const struct zc_cobj *o, uint32_t chunk)
{
    return cache_chunk_len(o->size, o->shift, chunk);
}

static void cobj_resized(struct zc_cache *c, struct zc_cobj *o)
{
    if (o->slot == SLOT_NONE)
        return;
    struct slot *s = table_slot(&c->table, o->slot);
    s->bytes = o->committed + o->reserved;
    zc_policy_resize(c->policy, o->slot, s->bytes);
}

int zc_cobj_reserve(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes)
{
    bytes = cache_blocks(bytes);
    pthread_mutex_lock(&c->lock);
    bool dropped = o->slot == SLOT_NONE; /* nobody is evicted for it */
    pthread_mutex_unlock(&c->lock);
    int r = dropped ? -ESTALE : budget_take(c, bytes);
    if (r < 0)
        return r;
    if (o->slot == SLOT_NONE) { /* dropped meanwhile */
        budget_give(c, bytes);
        c->unwritten -= bytes;
        r = -ESTALE;
    } else {
        o->reserved += bytes;
        cobj_resized(c, o);
        budget_trim(c);
    }
    pthread_mutex_unlock(&c->lock);
    return r;
}

static void cobj_unreserve(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes)
{
    bytes = ZC_MIN(bytes, o->reserved);
    o->reserved -= bytes;
    c->unwritten -= bytes;
    budget_give(c, bytes);
    cobj_resized(c, o);
}

void zc_cobj_unreserve(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes)
{
    pthread_mutex_lock(&c->lock);
    cobj_unreserve(c, o, cache_blocks(bytes));
    o->torn = true; /* the caller may have written a part */
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* Moves a chunk from reserved to committed. */
static void cobj_charge(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes)
{
    uint64_t had = ZC_MIN(bytes, o->reserved);
    o->reserved -= had;
    c->unwritten -= had;
    o->committed += bytes;
    c->used += bytes - had; /* written without having been reserved */
    c->room -= (int64_t)(bytes - had);
    cobj_resized(c, o);
}

static int commit_locked(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk,
                         struct zc_digest sum)
{
    uint64_t bit = (uint64_t)1 << chunk % 64;
    if (o->slot == SLOT_NONE || o->state == ZC_COBJ_COMPLETE || (o->bits[chunk / 64] & bit))
        return 0;
    uint64_t len = cache_chunk_len(o->size, o->shift, chunk);
    bool last = o->present + 1 == o->nchunks;
    struct rec_obj rec = cobj_record(c, o, last);
    int r = index_put_chunk(c->index, o->id, chunk, (uint32_t)len, sum,
                            last || !o->recorded ? &rec : NULL);
    if (r == -ENOMEM) /* but an index that gave up (-EIO) does not keep this daemon from caching */
        return r;
    o->recorded = true;
    cobj_charge(c, o, cache_blocks(len));
    atomic_fetch_or_explicit(&o->bits[chunk / 64], bit, memory_order_release);
    o->present++;
    if (!last)
        return 0;
    atomic_store_explicit(&o->state, ZC_COBJ_COMPLETE, memory_order_release);
    table_slot(&c->table, o->slot)->flags |= SLOT_COMPLETE;
    c->complete++;
    return 1;
}

int zc_cobj_commit(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk, struct zc_digest sum)
{
    if (chunk >= o->nchunks)
        return -EINVAL;
    index_throttle(c->index);
    pthread_mutex_lock(&c->lock);
    int r = commit_locked(c, o, chunk, sum);
    pthread_mutex_unlock(&c->lock);
    return r;
}

int zc_cobj_sum(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk, struct zc_digest *sum)
{
    if (chunk >= o->nchunks)
        return -EINVAL;
    /* The index may still have what was evicted under this name before. */
    return zc_cobj_has_chunk(o, chunk) ? index_get_sum(c->index, o->id, chunk, sum) : 0;
}

/* ------------------------------------------------------------------ letting go */

void zc_cobj_drop(struct zc_cache *c, struct zc_cobj *o)
{
    pthread_mutex_lock(&c->lock);
    uint32_t slot = o->slot;
    if (slot != SLOT_NONE) {
        o->slot = SLOT_NONE; /* its bytes stay charged until the descriptor is closed */
        cache_doom(c, slot);
        struct victim v = cache_victim(c, slot);
        pthread_mutex_unlock(&c->lock);
        cache_unlink(c, &v);
        pthread_mutex_lock(&c->lock);
        cache_forget(c, slot, o->recorded);
        pthread_cond_broadcast(&c->changed);
    }
    pthread_mutex_unlock(&c->lock);
}

void zc_cobj_bad(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk)
{
    char name[STORE_NAME_MAX];
    atomic_fetch_add(&c->checked_chunks, 1);
    atomic_fetch_add(&c->bad_chunks, 1);
    zc_warn("%s/%s: chunk %u is not what was written: dropped", c->store->path,
            store_file_name(o->id, name), chunk);
    zc_cobj_drop(c, o);
}

/* The last holder of a partial object: bytes that no record speaks of go. Lets go of the lock
   meanwhile. False when nothing is left, or nothing that can be relied on. */
static bool release_partial(struct zc_cache *c, struct zc_cobj *o, struct slot *s)
{
    bool good = o->present > 0;
    s->flags |= SLOT_BUSY;
    if (good && (o->torn || o->reserved)) {
        pthread_mutex_unlock(&c->lock);
        int r = cache_punch(o->fd, o->size, o->shift, (const uint64_t *)o->bits);
        good = r == 0;
        pthread_mutex_lock(&c->lock);
    }
    cobj_unreserve(c, o, o->reserved);
    if (!good)
        return false;
    uint64_t *bits = &s->u.word;
    if (o->nchunks > 64) {
        bits = malloc((o->nchunks + 63) / 64 * sizeof(*bits));
        if (!bits)
            return false;
        s->u.words = bits;
    }
    for (uint32_t i = 0; i < (o->nchunks + 63) / 64; i++)
        bits[i] = o->bits[i];
    s->flags &= ~(uint32_t)(SLOT_BUSY | SLOT_WANTED | SLOT_HELD);
    return true;
}

void zc_cobj_release(struct zc_cache *c, struct zc_cobj *o)
{
    pthread_mutex_lock(&c->lock);
    if (--o->refs > 0) {
        pthread_mutex_unlock(&c->lock);
        return;
    }
    if (o->slot == SLOT_NONE) { /* dropped: the disk has the space back when the file is closed */
        pthread_mutex_unlock(&c->lock);
        close(zc_steal_fd(&o->fd));
        pthread_mutex_lock(&c->lock);
        c->unwritten -= o->reserved;
        budget_give(c, o->committed + o->reserved);
    } else if (o->state == ZC_COBJ_COMPLETE) {
        cobj_unreserve(c, o, o->reserved);
        struct slot *s = table_slot(&c->table, o->slot);
        s->flags &= ~(uint32_t)SLOT_HELD;
        s->u.borrower = o->borrower;
    } else {
        struct slot *s = table_slot(&c->table, o->slot);
        if (!release_partial(c, o, s)) {
            uint32_t slot = o->slot;
            cache_doom(c, slot);
            struct victim v = cache_victim(c, slot);
            pthread_mutex_unlock(&c->lock);
            cache_unlink(c, &v);
            pthread_mutex_lock(&c->lock);
            budget_give(c, o->committed);
            cache_forget(c, slot, o->recorded);
        }
    }
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
    cobj_free(o);
}

int64_t zc_cache_evict(struct zc_cache *c, struct zc_objid id)
{
    int64_t r = 0;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        uint32_t slot = table_find(&c->table, id);
        if (slot == SLOT_NONE)
            break;
        struct slot *s = table_slot(&c->table, slot);
        if (s->flags & SLOT_BUSY) {
            s->flags |= SLOT_WANTED;
            pthread_cond_wait(&c->changed, &c->lock);
            continue;
        }
        r = s->flags & (SLOT_HELD | SLOT_USED) ? -EBUSY : (int64_t)budget_evict(c, slot);
        break;
    }
    pthread_mutex_unlock(&c->lock);
    return r;
}
