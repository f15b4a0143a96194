/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of one cache: which objects and chunks are on disk, by what sums, and the listings of
 * directories. LMDB below, which only this part knows (records: cache/record.h).
 *
 * It is a cache, so a commit is not forced to the disk. What that may cost is found at the next
 * open:
 *   - closed in order: index.sum holds the digest of the file. It fits: the file is used as it is.
 * It does not: somebody wrote into it, and it is thrown away.
 *   - not closed in order (killed, power lost): LMDB may crash on a damaged file, so a child
 * process reads every record, checks it, and writes a new file from what it read. The child dies,
 * or finds a bad record, or takes too long: the index is thrown away.
 *
 * Writes are queued in memory and applied by one thread, many in one transaction, in the order in
 * which they were pushed; a push never waits. Reads go to LMDB directly and see what was committed.
 *
 * Threads: any, but for index_open, index_load and index_close.
 */
#ifndef ZC_CACHE_INDEX_H
#define ZC_CACHE_INDEX_H

#include "cache/record.h"

struct zc_index;

struct index_config {
    const char *dir;      /* the cache's folder */
    struct rec_meta meta; /* an index made with others is of no use and is thrown away */
    uint64_t map_size;    /* first size of LMDB's map, 0 = 16 GiB; grows when it is full */
};

enum index_found {
    INDEX_NEW,     /* there was none, or one for other settings: made empty */
    INDEX_DAMAGED, /* there was one that could not be trusted: made empty */
    INDEX_DOUBTED, /* readable, but the files it speaks of must be checked before they are believed
                    */
    INDEX_TRUSTED, /* closed in order, and the machine has been up since */
};

/* Blocks. Forks a child after an unclean end, and starts the writer. */
int index_open(const struct index_config *cfg, struct zc_index **out, enum index_found *found,
               struct zc_error *err);
/* Applies what is queued and ends the writer. seal: writes index.sum; trusted: all objects in it
   were found good, so that the next open need not doubt them. */
void index_close(struct zc_index *x, bool seal, bool trusted);

struct index_object {
    struct zc_objid id;
    uint64_t size;
    uint32_t chunk_size, nchunks, present;
    bool complete;
    const uint64_t *bits; /* nchunks bits, valid during the call; NULL when complete */
};
/* Calls fn for each object. Stops on a non-zero return and returns it. -EBADMSG for an unreadable
 * record. */
int index_load(struct zc_index *x, int (*fn)(void *user, const struct index_object *o), void *user);

/* Waits while far too much is queued (seconds at the most). Call without locks before pushing. */
void index_throttle(struct zc_index *x);
/* Pushes. -ENOMEM, or -EIO when the index gave up on its disk: the caller must not rely on the
   record. A delete that fails so makes the whole index unfit to be read again, which index_close
   then sees to. */
/* A chunk, and with it, unless o is NULL, its object: both or neither. */
int index_put_chunk(struct zc_index *x, struct zc_objid id, uint32_t chunk, uint32_t len,
                    struct zc_digest sum, const struct rec_obj *o);
/* An object without chunks. */
int index_put_obj(struct zc_index *x, struct zc_objid id, const struct rec_obj *o);
int index_del_obj(struct zc_index *x, struct zc_objid id);
int index_put_listing(struct zc_index *x, struct zc_digest dir, uint32_t page, const void *p,
                      size_t n);
int index_del_listing(struct zc_index *x, struct zc_digest dir);
/* Waits until everything pushed before is committed (or given up). */
void index_flush(struct zc_index *x);

/* Sum of one chunk: 1, 0 when there is no record, negative errno. */
int index_get_sum(struct zc_index *x, struct zc_objid id, uint32_t chunk, struct zc_digest *sum);
/* Places of a sum: calls fn for each; stops on a non-zero return and returns it. */
int index_get_places(struct zc_index *x, struct zc_digest sum,
                     int (*fn)(void *user, const struct rec_place *p), void *user);
int index_get_listing(struct zc_index *x, struct zc_digest dir,
                      int (*fn)(void *user, uint32_t page, const void *p, size_t n), void *user);

/* Calls fn for each object's record, in a read transaction; what the record points to lives as long
   as the call. Stops on a non-zero return and returns it. */
int index_get_objects(struct zc_index *x,
                      int (*fn)(void *user, struct zc_objid id, const struct rec_obj *o),
                      void *user);

/* Chunks that were recorded while their sum was known under another place. */
uint64_t index_duplicates(struct zc_index *x);
/* The index gave up: nothing is recorded any more. */
bool index_broken(struct zc_index *x);

#endif
