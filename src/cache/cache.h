/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cache on the local disk: backing files, the index beside them, and the budget.
 *
 * One cache belongs to one mount. Its folder, made under the configured directory:
 *     lock                flock'ed while a daemon uses it; holds that daemon's pid
 *     index.mdb           LMDB, see cache/index.h
 *     objects/XX/HEX      one backing file for each object version: its cached chunks at their own
 * offsets; HEX is the object's digest, XX its first byte
 *
 * An object is resident when at least one of its chunks is on disk. A chunk is recorded only after
 * its bytes were written and its sum is known; an object with all its chunks recorded is complete,
 * and its backing file then never changes again until it is unlinked, so that it may be handed to
 * the kernel.
 *
 * Threads: all functions may be called from any thread unless said otherwise. Only zc_cache_open,
 * zc_cache_close and zc_cache_verify wait long; the others take one lock for a short time and may
 * do one open(2), unlink(2) or a page of file I/O outside of it. The index has a writer thread of
 * its own.
 */
#ifndef ZC_CACHE_H
#define ZC_CACHE_H

#include "base/base.h"
#include "base/digest.h"
#include "base/error.h"

struct zc_cache;

struct zc_cache_config {
    const char *dir;      /* made if missing (0700) */
    const char *identity; /* names the folder below it: the canonical source(s) of the mount */
    uint64_t size;       /* hard limit in bytes; 0 = 90% of what is free above the floor at start */
    double free_ratio;   /* floor: this share of the file system stays free */
    uint64_t chunk_size; /* bytes; power of two, 64 KiB to 64 MiB */
    uint64_t seed;       /* of the content hashes */
    bool keep;           /* survive zc_cache_close */
    bool allow_tmpfs;
};

/* Opens or makes the folder, takes over what an earlier daemon left if cfg->keep (checking the sums
   of what was written shortly before an unclean end), else empties it. Errors come with words. */
int zc_cache_open(const struct zc_cache_config *cfg, struct zc_cache **out, struct zc_error *err);
/* No object may be open any more. Removes the folder unless keep. */
void zc_cache_close(struct zc_cache *c);

/* What the source calls an object, at one version. */
struct zc_objid {
    struct zc_digest id;
};
struct zc_objid zc_objid_of(const char *source, const char *path, const char *version,
                            uint64_t size);

/* ------------------------------------------------------------------ objects */

/* A resident object held open: it is not evicted while held. One struct for each object, counted.
 */
struct zc_cobj;

enum zc_cobj_state { ZC_COBJ_PARTIAL, ZC_COBJ_COMPLETE };

/* Is the object complete on disk? A hint that costs one look into a table. */
bool zc_cache_has(struct zc_cache *c, struct zc_objid id);
/* Is any of it resident? Likewise. */
bool zc_cache_has_some(struct zc_cache *c, struct zc_objid id);

/* Holds the object, making it (empty, partial, with a backing file) when it is not resident. `path`
   is kept in the index for those who look into the cache. -ENOSPC when the budget has no room for
   its first byte, -EIO and the like when the disk fails: the caller then goes on without the cache.
   Counts as one use. */
int zc_cache_hold(struct zc_cache *c, struct zc_objid id, const char *source, const char *path,
                  uint64_t size, struct zc_cobj **out);
/* Only an existing complete one; 0 when there is none (*out untouched), 1 when held. */
int zc_cache_hold_complete(struct zc_cache *c, struct zc_objid id, struct zc_cobj **out);
/* The same without a wait: -EAGAIN when the object is there but the disk must be read to open or
 * check it. */
int zc_cache_hold_quick(struct zc_cache *c, struct zc_objid id, struct zc_cobj **out);
void zc_cobj_release(struct zc_cache *c, struct zc_cobj *o);

/* Descriptor of the backing file, O_RDWR while partial; owned by the object, open as long as it is
 * held. */
int zc_cobj_fd(struct zc_cobj *o);
enum zc_cobj_state zc_cobj_state(struct zc_cobj *o);
bool zc_cobj_has_chunk(struct zc_cobj *o, uint32_t chunk);
/* Left by an unclean end, and too large to be checked before it was held: each chunk that was there
   must be checked before its bytes are used. */
bool zc_cobj_doubted(const struct zc_cobj *o);
/* Reads a chunk back. 1: it is what was written; 0: it is not; negative errno. Waits for the disk.
 */
int zc_cobj_check(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk);
/* All were checked, and are good. */
void zc_cobj_trust(struct zc_cache *c, struct zc_cobj *o);
uint32_t zc_cobj_chunks(const struct zc_cobj *o);
uint64_t zc_cobj_chunk_len(const struct zc_cobj *o, uint32_t chunk);

/* Reserves room for `bytes` more of this object before they are written; evicts others as needed.
   0, or -ENOSPC when everything else is open, or the floor is reached. */
int zc_cobj_reserve(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes);
/* Gives back what was reserved and not written. */
void zc_cobj_unreserve(struct zc_cache *c, struct zc_cobj *o, uint64_t bytes);

/* The chunk's bytes are written; records its sum. Returns 1 when that made the object complete,
 * else 0. */
int zc_cobj_commit(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk, struct zc_digest sum);

/* The sum of a recorded chunk: 1; 0 when the index does not have it (yet); negative errno. */
int zc_cobj_sum(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk, struct zc_digest *sum);

/* The object must not be served again (version gone, or bytes found wrong): unlinked now, freed
 * when released. */
void zc_cobj_drop(struct zc_cache *c, struct zc_cobj *o);
/* This chunk is not what was written: counted, said, and the object dropped. */
void zc_cobj_bad(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk);

/* Loans. A complete object's backing file that somebody keeps open by other means than the hold
   (the kernel, for passthrough) is out on loan. While the loan is used the object stays, as if
   held; while it is not, it may be evicted, and before its file is unlinked, recall(user, borrower)
   is called without the cache's lock (other locks may be held by the thread that needs the room):
   when it returns nobody keeps the file open any more, or does so for readers that are open now
   (after zc_cobj_drop). recall NULL ends it; it then waits for calls that run. An object has one
   borrower at a time. */
void zc_cache_on_recall(struct zc_cache *c, void (*recall)(void *user, uint64_t borrower),
                        void *user);
/* Who borrowed, by a number that is never given twice, and where the cache finds it. */
struct zc_cloan {
    uint64_t borrower;
    uint32_t slot;
};
/* Lends what the caller holds; the loan is in use, and *out names it. False when it is not to be
   had. */
bool zc_cobj_lend(struct zc_cache *c, struct zc_cobj *o, uint64_t borrower, struct zc_cloan *out);
/* Use it again; counts as one use. False when it was or is being recalled, or the disk is not used
   at the moment. */
bool zc_cache_reuse(struct zc_cache *c, const struct zc_cloan *l);
/* Not in use now. keep: but still on loan, else given back. No effect on one that was recalled. */
void zc_cache_unused(struct zc_cache *c, const struct zc_cloan *l, bool keep);

/* Copies. What a live node of the cluster owns can be had from there again, so that it is evicted
   before all else. spare(user, id, size) tells whether all of an object is such; it is called under
   the cache's lock, for each new resident, and must only compute. `most` bounds what spare objects
   take together, unless they are open; 0: as much as there is. spare NULL ends it. */
void zc_cache_on_spare(struct zc_cache *c,
                       bool (*spare)(void *user, struct zc_objid id, uint64_t size), void *user,
                       uint64_t most);
/* Who owns what has changed: asks anew of all residents, a part of them at a time. */
void zc_cache_ask_spare(struct zc_cache *c);

/* Drops the object if it is resident and not held. Returns the bytes freed; -EBUSY when it is held.
 */
int64_t zc_cache_evict(struct zc_cache *c, struct zc_objid id);

/* Marks. Objects that were marked with a number (zc_cache_mark_new) are counted when they leave the
   cache, for whatever reason. The newer mark of an object holds. */
unsigned zc_cache_mark_new(struct zc_cache *c);
/* False: it is not resident. */
bool zc_cache_mark(struct zc_cache *c, struct zc_objid id, unsigned number);
/* How many have left so far; -1: the number is none, or was given out too long ago. */
int64_t zc_cache_marked_gone(struct zc_cache *c, unsigned number);

/* A write or read on the cache disk failed: counted; after a few the disk is bypassed for a while.
 */
void zc_cache_disk_error(struct zc_cache *c, int err);

/* ------------------------------------------------------------------ records of other rooms */

/* Listings are kept in the same index: opaque pages under a directory's digest. */
int zc_cache_put_listing(struct zc_cache *c, struct zc_digest dir, uint32_t page, const void *p,
                         size_t n);
/* Calls fn for each page in order, inside a read transaction; stops on a non-zero return and
 * returns it. */
int zc_cache_get_listing(struct zc_cache *c, struct zc_digest dir,
                         int (*fn)(void *user, uint32_t page, const void *p, size_t n), void *user);
void zc_cache_drop_listing(struct zc_cache *c, struct zc_digest dir);

/* ------------------------------------------------------------------ figures */

/* What is kept of one object. Strings are not NUL-terminated. */
struct zc_cache_resident {
    struct zc_objid id;
    const char *source, *path; /* as zc_cache_hold was told */
    size_t source_len, path_len;
    uint64_t size, bytes; /* of the object; of these on disk */
    bool spare;           /* see zc_cache_on_spare */
};
/* Calls fn for each resident object, from the index; takes about a second for a million of them. fn
   must not call the cache. Stops on a non-zero return and returns it. */
int zc_cache_census(struct zc_cache *c, int (*fn)(void *user, const struct zc_cache_resident *r),
                    void *user);

struct zc_cache_stats {
    uint64_t capacity;    /* bytes */
    uint64_t used;        /* bytes on disk, reserved ones included */
    uint64_t objects;     /* resident */
    uint64_t complete;    /* of these */
    uint64_t spare_bytes; /* of used: what a live node of the cluster owns, too */
    uint64_t evictions, evicted_bytes;
    uint64_t disk_errors, checked_chunks, bad_chunks;
    uint64_t duplicates; /* chunks whose sum was known under another place */
    bool bypassed;       /* the disk is not used at the moment */
    bool rebuilt;        /* the index was found damaged at start and made anew */
    const char *dir;
};
void zc_cache_get_stats(struct zc_cache *c, struct zc_cache_stats *out);

#endif
