/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Memory mode: chunks that the cache has no room for live in mapped memory until a few others were
 * needed after them. Reads go on at the store's speed when the cache disk is full or broken.
 *
 * The pool has a limit; read-ahead stays below it. A reader that waits may pass it, by the blocks
 * it asked for only, so that no read depends on another reader's progress.
 */
#include "fetch/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

static void mem_unmap(struct zc_fetch *f, struct fetch_chunk *ch, uint64_t len)
{
    munmap(ch->mem, len);
    ch->mem = NULL;
    ch->present = 0;
    zc_list_del(&ch->mem_link);
    f->mem_used -= len;
}

/* Does somebody wait for bytes of this chunk? Such a chunk must stay, or the wait would never end.
 */
static bool mem_awaited(struct zc_object *o, uint32_t chunk)
{
    return fetch_awaited(o, (uint64_t)chunk * o->fetch->cfg.chunk_size, fetch_chunk_len(o, chunk));
}

/* Under f->lock. */
static void mem_trim(struct zc_fetch *f, uint64_t want)
{
    zc_list_for_each_safe (it, tmp, &f->mem_list) {
        struct fetch_chunk *ch = zc_list_entry(it, struct fetch_chunk, mem_link);
        struct zc_object *o = ch->owner;
        uint32_t chunk = (uint32_t)(ch - o->chunks);
        if (f->mem_used + want <= f->cfg.memory)
            break;
        pthread_mutex_lock(&o->lock);
        if (!ch->inflight && !ch->mem_pins && !mem_awaited(o, chunk))
            mem_unmap(f, ch, fetch_chunk_len(o, chunk));
        pthread_mutex_unlock(&o->lock);
    }
}

void fetch_mem_trim(struct zc_fetch *f)
{
    pthread_mutex_lock(&f->lock);
    mem_trim(f, 0);
    pthread_mutex_unlock(&f->lock);
}

/* *on_disk: the blocks that were present in the file; they count as in flight until the caller has
   copied them, so that nobody else fetches them meanwhile. */
static int mem_get(struct zc_object *o, uint32_t chunk, bool must, uint64_t *on_disk)
{
    struct zc_fetch *f = o->fetch;
    struct fetch_chunk *ch = &o->chunks[chunk];
    uint64_t len = fetch_chunk_len(o, chunk);
    int r = 0;

    *on_disk = 0;
    pthread_mutex_lock(&f->lock);
    if (ch->mem) {
        zc_list_del(&ch->mem_link);
        zc_list_push_back(&f->mem_list, &ch->mem_link);
        goto out;
    }
    mem_trim(f, len);
    if (f->mem_used + len > f->cfg.memory && !must) {
        r = -EAGAIN;
        goto out;
    }
    uint8_t *mem = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mem == MAP_FAILED) {
        r = -ENOMEM;
        goto out;
    }
    pthread_mutex_lock(&o->lock);
    ch->mem = mem; /* from here on nobody announces what he wrote to the file */
    *on_disk = ch->present;
    ch->inflight |= ch->present;
    ch->present = 0;
    pthread_mutex_unlock(&o->lock);
    zc_list_push_back(&f->mem_list, &ch->mem_link);
    f->mem_used += len;
    f->mem_peak = ZC_MAX(f->mem_peak, f->mem_used);
out:
    pthread_mutex_unlock(&f->lock);
    return r;
}

/* Copies blocks of mem_get's on_disk from the file. */
static void mem_copy(struct zc_object *o, uint32_t chunk, uint64_t on_disk)
{
    struct fetch_chunk *ch = &o->chunks[chunk];
    uint64_t start = (uint64_t)chunk * o->fetch->cfg.chunk_size, copied = on_disk;
    uint64_t block = o->fetch->block, len = fetch_chunk_len(o, chunk);

    for (unsigned b = 0; b < FETCH_BLOCKS && (uint64_t)b * block < len; b++) {
        if (!(on_disk & (uint64_t)1 << b))
            continue;
        size_t n = (size_t)ZC_MIN(block, len - b * block);
        if (pread(zc_object_fd(o), ch->mem + b * block, n, (off_t)(start + b * block)) !=
            (ssize_t)n)
            copied &= ~((uint64_t)1 << b);
    }
    pthread_mutex_lock(&o->lock);
    ch->present |= copied;
    ch->inflight &= ~on_disk;
    pthread_mutex_unlock(&o->lock);
    fetch_wake(o, start, len, copied != on_disk);
}

int fetch_mem_get(struct zc_object *o, uint32_t chunk, bool must)
{
    uint64_t on_disk;
    int r = mem_get(o, chunk, must, &on_disk);
    assert(on_disk == 0); /* a chunk without room has nothing in the file */
    return r;
}

int fetch_mem_take_over(struct zc_object *o, uint32_t chunk)
{
    uint64_t on_disk;
    int r = mem_get(o, chunk, true, &on_disk);
    if (r == 0 && on_disk)
        mem_copy(o, chunk, on_disk);
    return r;
}

int fetch_mem_lose(struct zc_object *o, uint32_t chunk)
{
    struct fetch_chunk *ch = &o->chunks[chunk];
    uint64_t len = fetch_chunk_len(o, chunk), on_disk;
    pthread_mutex_lock(&o->setup); /* who looks for room sees all of this or nothing */
    int r = mem_get(o, chunk, true, &on_disk);
    bool unused = false;
    if (r == 0) {
        pthread_mutex_lock(&o->lock);
        unused = ch->reserved && !ch->recorded;
        ch->reserved = ch->recorded = false;
        ch->inflight &= ~on_disk;
        pthread_mutex_unlock(&o->lock);
    }
    if (unused)
        zc_cobj_unreserve(o->fetch->cache, o->cobj, len);
    pthread_mutex_unlock(&o->setup);
    if (r == 0 && on_disk)
        fetch_wake(o, (uint64_t)chunk * o->fetch->cfg.chunk_size, len, true);
    return r;
}

void fetch_mem_drop(struct zc_object *o)
{
    struct zc_fetch *f = o->fetch;
    pthread_mutex_lock(&f->lock);
    for (uint32_t c = 0; c < o->nchunks; c++) {
        if (o->chunks[c].mem)
            mem_unmap(f, &o->chunks[c], fetch_chunk_len(o, c));
    }
    pthread_mutex_unlock(&f->lock);
}
