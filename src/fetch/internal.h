/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room share.
 *
 * Locks, in order: fetch->lock (table of objects, memory list), then object->lock (blocks,
 * waiters). Neither is held over I/O, over a call into the cache, or over a waiter's done(). Of the
 * calls into a backend only zc_backend_cancel comes under them: it keeps a flight from going while
 * it is cancelled, and takes leaf locks only, because it calls nobody back on this thread.
 */
#ifndef ZC_FETCH_INTERNAL_H
#define ZC_FETCH_INTERNAL_H

#include "base/list.h"
#include "fetch/fetch.h"

#include <pthread.h>
#include <stdatomic.h>

#define FETCH_BLOCKS 64 /* blocks of a chunk: one bit of a word each */
#define FETCH_BUCKETS 4096

struct fetch_chunk {
    uint64_t present; /* a bit a block */
    uint64_t inflight;
    bool doubted;  /* present, but to be checked before it is used */
    bool recorded; /* in the cache's index: its bytes are on disk for good */
    bool reserved; /* room in the cache is set aside for it */
    /* Memory mode: the chunk's bytes when the cache has no room for them; mapped, not on the heap,
       so that what is given back is given back. */
    uint8_t *mem;
    unsigned mem_pins;       /* copies out of mem under way */
    struct zc_list mem_link; /* fetch->mem_list; empty when mem is NULL */
    struct zc_object *owner; /* of a linked chunk */
};

struct zc_fetch_src {
    struct zc_list link; /* fetch->srcs */
    struct zc_fetch *fetch;
    struct zc_backend *be; /* not to be touched once closed */
    char *identity;
    uint64_t part_size;    /* bytes of one ahead-of-reader GET: whole chunks */
    uint64_t cut;          /* GETs do not cross multiples of it; 0: they may */
    _Atomic bool closed;   /* set under fetch->lock */
    unsigned flying;       /* flights; under fetch->lock, as the next one */
    unsigned open;         /* opens of its objects, but for those for other nodes */
    _Atomic unsigned lent; /* loans in use */
    _Atomic bool no_loans; /* closed, or about to be */
    _Atomic uint64_t hits, misses, bytes_hit, bytes_store;
};

struct zc_object {
    struct zc_fetch *fetch;
    struct zc_list hash_link; /* fetch->buckets */
    struct zc_objid id;
    unsigned refs;       /* opens and flights; under fetch->lock */
    unsigned opens;      /* likewise */
    unsigned node_opens; /* of these, for other nodes: they do not keep a source open */
    /* Who is asked for its bytes: the source that opened it first; when that one was closed, the
       next that opens it. Changed under fetch->lock. */
    struct zc_fetch_src *_Atomic src;
    const char *path, *version; /* in `names` */
    uint64_t size;
    uint32_t nchunks;
    _Atomic bool complete; /* every chunk recorded, backing file final; false again once the disk
                              has failed to give it back */
    _Atomic bool stale;
    _Atomic bool bad;        /* its backing file is not what was written, and dropped */
    _Atomic uint32_t doubts; /* chunks that are doubted; changed under the lock */
    bool lost;               /* the disk failed to give some of it back; under the lock */
    struct zc_cobj *cobj;    /* NULL: no cache for this object */

    pthread_mutex_t lock;
    struct fetch_chunk *chunks; /* NULL while complete from the start */
    struct zc_list waiters;
    struct zc_list flights;
    pthread_mutex_t
        setup; /* one flight of this object at a time finds room for its chunks; taken first */
    pthread_mutex_t check; /* one reader at a time checks what is doubted; taken before that */
    char names[];          /* path and version: an open costs one allocation, not three */
};

struct fetch_flight {
    struct zc_get_req req;
    struct zc_object *o;
    struct zc_fetch_src *src; /* whom it asks */
    struct zc_list link;      /* object->flights */
    uint64_t off, len;        /* block aligned, but for the object's end */
    uint64_t pos;             /* bytes of len that arrived */
    uint64_t announced;       /* bytes of len whose blocks are present */
    int64_t chunk;            /* where the last bytes went, -1 before the first */
    uint8_t *mem;             /* that chunk's memory when this flight came to it */
    struct zc_hasher *hasher;
    bool hashing; /* hasher has seen the chunk from its first byte */
};

struct zc_fetch {
    struct zc_fetch_config cfg;
    struct zc_cache *cache;
    uint64_t block; /* bytes */
    pthread_mutex_t lock;
    struct zc_list buckets[FETCH_BUCKETS];
    struct zc_list srcs;       /* struct zc_fetch_src, closed ones too */
    struct zc_list mem_list;   /* chunks in memory, least recently used first */
    _Atomic uint64_t mem_used; /* changed under the lock, looked at without */
    uint64_t mem_peak;
    bool shutdown;
    unsigned live;   /* objects */
    unsigned flying; /* flights */
    pthread_cond_t idle;
    unsigned lane;
    _Atomic uint64_t flights, stale_seen, bytes_store;
};

/* object.c */
void fetch_object_ref(struct zc_object *o);
void fetch_object_unref(struct zc_object *o);
static inline uint64_t fetch_chunk_len(const struct zc_object *o, uint32_t chunk)
{
    uint64_t start = (uint64_t)chunk * o->fetch->cfg.chunk_size;
    return ZC_MIN(o->fetch->cfg.chunk_size, o->size - start);
}
/* Blocks of chunk that [off, off + len) of the object touches, as bits. */
uint64_t fetch_mask(const struct zc_object *o, uint32_t chunk, uint64_t off, uint64_t len);
/* All blocks of the chunk that exist. */
uint64_t fetch_full_mask(const struct zc_object *o, uint32_t chunk);

/* What is doubted of the range is checked; what is not good is absent then. Waits for the disk. 0,
   or negative errno when nothing can be said. */
int fetch_check(struct zc_object *o, uint64_t off, uint64_t len);

/* What the backing file has of the chunk is of no use: the object is not complete any more, and the
   chunk is fetched again, to memory. 0, or -ENOMEM. */
int fetch_lose(struct zc_object *o, uint32_t chunk);

/* Cancels the object's flights: all, or those that ask `src`. */
void fetch_cancel(struct zc_object *o, const struct zc_fetch_src *src);

/* Wakes those whose bytes are all there, of all who wait for some in the range. lost: blocks that
   counted as in flight did not come; they are fetched if somebody waits. Without locks. */
void fetch_wake(struct zc_object *o, uint64_t off, uint64_t len, bool lost);

/* Does anybody wait for bytes of the range? Under o->lock. */
bool fetch_awaited(const struct zc_object *o, uint64_t off, uint64_t len);

/* Is everything in the range present? Under o->lock. */
bool fetch_present(const struct zc_object *o, uint64_t off, uint64_t len);

/* flight.c */
enum { FETCH_OWNER = 1, FETCH_EXACT = 2, FETCH_REPLICA = 4 }; /* zc_get_req's flags */
/* Starts GETs for what is absent of the range. Called without locks. 0 or the first error. */
int fetch_start(struct zc_object *o, uint64_t off, uint64_t len, enum zc_prio prio, unsigned how);

/* memory.c: chunks without room in the cache. */
/* Gives the chunk memory if it has none. With `must` the limit may be passed (a reader waits). */
int fetch_mem_get(struct zc_object *o, uint32_t chunk, bool must);
/* Moves blocks that are on disk already to memory, after a write to the cache disk failed. */
int fetch_mem_take_over(struct zc_object *o, uint32_t chunk);
/* What the file has of the chunk cannot be read: it is absent, and is fetched to memory. */
int fetch_mem_lose(struct zc_object *o, uint32_t chunk);
/* Frees least recently used chunks until the pool is within its limit. */
void fetch_mem_trim(struct zc_fetch *f);
/* Frees all memory of an object that nobody refers to any more. */
void fetch_mem_drop(struct zc_object *o);

#endif
