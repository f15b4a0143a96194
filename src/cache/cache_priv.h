/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What cache.c (open, close, figures), object.c (held objects), budget.c (room and eviction) and
 * verify.c (checks) share.
 *
 * Locks: zc_cache.lock covers the table, the policy, the budget and the counts of held objects;
 * index_push functions may be called under it (they take the index's own lock and never wait). No
 * file is touched under it: who needs to, marks the slot SLOT_BUSY, lets go of the lock, and wakes
 * `changed` afterwards.
 */
#ifndef ZC_CACHE_PRIV_H
#define ZC_CACHE_PRIV_H

#include "cache/index.h"
#include "cache/policy.h"
#include "cache/store.h"
#include "cache/table.h"

#include <pthread.h>
#include <stdatomic.h>

#define CACHE_MARKS 64
#define CACHE_BLOCK 4096 /* what a file takes on disk is counted in these */

struct zc_cobj {
    struct zc_objid id;
    uint64_t size;
    uint32_t slot; /* SLOT_NONE once dropped */
    uint32_t nchunks;
    int fd;
    unsigned shift; /* chunk size = 1 << shift */
    _Atomic int state;
    /* under the cache's lock: */
    uint32_t refs, present;
    bool recorded;           /* the index knows of it */
    _Atomic bool doubted;    /* as its slot was: the holder has the chunks checked that it uses */
    bool torn;               /* bytes may lie in chunks that are not recorded */
    uint64_t reserved;       /* charged, and not of a recorded chunk */
    uint64_t committed;      /* charged for recorded chunks */
    uint64_t borrower;       /* while the slot is LENT */
    char *source, *path;     /* until complete */
    _Atomic uint64_t bits[]; /* recorded chunks; none while complete from the start */
};

enum disk_state { DISK_NORMAL, DISK_UNSTABLE, DISK_DOWN };

struct zc_cache {
    struct store *store;
    struct zc_index *index;
    struct zc_policy *policy;
    uint64_t chunk_size, seed;
    unsigned shift;
    bool keep, rebuilt;
    bool half_open;      /* zc_cache_open failed: what is on disk is not told by the index */
    _Atomic bool untidy; /* a file could not be removed: the next open looks for such */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a slot is not BUSY any more, or room was made */
    struct table table;
    uint64_t capacity, used, evicting; /* evicting: of used, on its way out */
    uint64_t complete, doubted;
    uint64_t evictions, evicted_bytes;
    struct cache_mark {
        uint16_t number;
        uint64_t gone;
    } marks[CACHE_MARKS]; /* at number % CACHE_MARKS */
    uint16_t mark_last;
    /* The file system's free space above the floor, as estimated since it was last asked. */
    uint64_t floor;
    int64_t room, room_checked_ns;
    uint64_t room_since; /* reserved since then */
    uint64_t
        unwritten; /* reserved and not recorded: may not show in the file system's figures yet */
    int64_t full_until_ns;

    pthread_mutex_t disk_lock; /* these; innermost */
    enum disk_state disk;
    int64_t disk_errors_at[3];
    int64_t disk_quiet_ns; /* DISK_UNSTABLE ends then */
    _Atomic int64_t down_until_ns;

    _Atomic uint64_t disk_errors, checked_chunks, bad_chunks;

    /* Under `lock`. recalling: calls of it that have not returned. */
    void (*recall)(void *user, uint64_t borrower);
    void *recall_user;
    unsigned recalling;

    /* Under `lock`. */
    bool (*spare)(void *user, struct zc_objid id, uint64_t size);
    void *spare_user;
    uint64_t spare_most; /* bytes; 0: no bound */

    pthread_cond_t work; /* with `lock`: for the evictor */
    int64_t pressed_ns;  /* when somebody last had to evict for itself, or nearly so */
    uint64_t ahead;      /* bytes that the evictor then keeps free; 0: none runs */
    _Atomic bool stop;   /* written under `lock` */
    bool evictor_runs, verifier_runs;
    pthread_t evictor, verifier;
};

/* object.c */
static inline uint64_t cache_blocks(uint64_t bytes)
{
    return (bytes + CACHE_BLOCK - 1) & ~(uint64_t)(CACHE_BLOCK - 1);
}
uint64_t cache_chunk_len(uint64_t size, unsigned shift, uint32_t chunk);
static inline uint32_t cache_nchunks(uint64_t size, unsigned shift)
{
    return (uint32_t)((size >> shift) + ((size & (((uint64_t)1 << shift) - 1)) != 0));
}
/* What the chunks of an object are charged. bits: NULL for all. */
uint64_t cache_charge(uint64_t size, unsigned shift, const uint64_t *bits);
/* Under the lock: the resident is on its way out, nobody may use it; waiters wait for `changed`. */
void cache_doom(struct zc_cache *c, uint32_t slot);
/* Under the lock, after that: the slot is free, and the index forgets what it knew (if it was
 * recorded). */
void cache_forget(struct zc_cache *c, uint32_t slot, bool recorded);
/* Bits of a partial object that nobody holds. */
static inline uint64_t *slot_bits(struct slot *s, unsigned shift)
{
    return cache_nchunks(s->size, shift) > 64 ? s->u.words : &s->u.word;
}
/* Makes holes of the chunks that are not in bits. */
int cache_punch(int fd, uint64_t size, unsigned shift, const uint64_t *bits);
/* The disk has shown itself to be broken, and is left alone for a while. */
bool cache_bypassed(struct zc_cache *c);

/* mark.c */
/* A resident goes; under the lock. */
void mark_gone(struct zc_cache *c, const struct slot *s);

/* spare.c */
/* A new resident in the policy, under the lock. */
void spare_mark(struct zc_cache *c, uint32_t slot);

/* budget.c */
/* Charges bytes, evicting as needed. 0 with the lock held; -ENOSPC with the lock not held. Called
 * without it. */
int budget_take(struct zc_cache *c, uint64_t bytes);
/* Gives back; under the lock. */
void budget_give(struct zc_cache *c, uint64_t bytes);
/* Evicts spare objects beyond their bound. Called and returns with the lock held, lets go of it. */
void budget_trim(struct zc_cache *c);
/* Evicts a resident that is neither held nor busy: called and returns with the lock held, lets go
   of it. Bytes freed. */
uint64_t budget_evict(struct zc_cache *c, uint32_t slot);

/* A slot that was doomed: its file may go. Who borrowed it is told first. */
struct victim {
    uint32_t slot;
    bool lent;
    struct zc_objid id;
    uint64_t borrower;
};
/* Under the lock, after cache_doom. */
struct victim cache_victim(struct zc_cache *c, uint32_t slot);
/* Recalls it and unlinks its file; a failure is counted and remembered. Without the lock, before
 * cache_forget. */
void cache_unlink(struct zc_cache *c, const struct victim *v);

/* Starts the thread that evicts ahead of those who reserve. 0 or negative errno. */
int budget_start(struct zc_cache *c);

/* verify.c */
/* Reads the recorded chunks back. 1: all have their sums; 0: one has not; negative errno. bits:
   NULL for all. give_up (or NULL) is asked for each megabyte: true ends it with -EAGAIN; reading
   then is gentle on the page cache. */
int verify_file(struct zc_cache *c, struct zc_objid id, int fd, uint64_t size, const uint64_t *bits,
                bool (*give_up)(struct zc_cache *c, void *user), void *user);
/* Is so little checked before it is held, else chunk by chunk while it is? */
bool verify_at_once(const struct zc_cache *c, uint64_t size);
/* Starts the thread that checks what is doubted before somebody asks for it. 0 or negative errno.
 */
int verify_start(struct zc_cache *c);
/* After an unclean end: files that the index does not know go, and records without a file. */
int verify_folder(struct zc_cache *c);

#endif
