/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fetching: brings byte ranges of object versions from their source to the cache, once, however
 * many ask.
 *
 * An object that is open or in flight is one struct zc_object, shared by all who opened that
 * version. Ranges are tracked in blocks (1/64 of a chunk): a block is absent, in flight, or
 * present. A flight is one GET of consecutive blocks; its bytes are written to the backing file
 * straight from the network's buffer and hashed on the way. Waiters are woken as soon as their own
 * bytes are there, not when the flight ends. Where the cache has no room, the same flights write to
 * memory from a bounded pool instead.
 *
 * Threads: any. Callbacks come on the thread that completes the work (a network loop) or, when
 * there is nothing to wait for, not at all: the function's result says so.
 */
#ifndef ZC_FETCH_H
#define ZC_FETCH_H

#include "backend/backend.h"
#include "base/list.h"
#include "cache/cache.h"

struct zc_fetch;
struct zc_object;

struct zc_fetch_config {
    uint64_t chunk_size; /* the cache's */
    uint64_t ahead;      /* bytes fetched ahead of a sequential reader at most; 0 = 256 MiB */
    uint64_t memory;     /* bytes of the pool for data that the cache has no room for; 0 = 64 MiB */
    uint64_t seed;       /* of the content hashes: the cache's */
};

int zc_fetch_new(const struct zc_fetch_config *cfg, struct zc_cache *cache, struct zc_fetch **out);
/* No object may be open. */
void zc_fetch_free(struct zc_fetch *f);

uint64_t zc_fetch_chunk_size(const struct zc_fetch *f);

/* Makes what is in flight fail with -ESHUTDOWN and refuses new work: first step of an unmount. */
void zc_fetch_shutdown(struct zc_fetch *f);

/* ------------------------------------------------------------------ sources */

/* A source as this room knows it: whom to ask, and under which name its data is kept. */
struct zc_fetch_src;

/* identity: names the data in the cache; two sources with equal identities share what is cached.
   The room keeps the struct until zc_fetch_free, since objects may refer to it. */
int zc_fetch_src_new(struct zc_fetch *f, struct zc_backend *be, const char *identity,
                     struct zc_fetch_src **out);
const char *zc_fetch_src_identity(const struct zc_fetch_src *s);
/* Ends a source: no more is opened or asked of it, what is in flight is cancelled and waited for,
   so that its backend may be freed then. -EBUSY, and nothing done, while objects of it are open
   (those open for other nodes do not count, and go on as with `force`);
   with `force` these stay open: what is cached of them can be read, the rest is -ESTALE. */
int zc_fetch_src_close(struct zc_fetch_src *s, bool force);

struct zc_fetch_src_stats {
    uint64_t hits, misses; /* opens that found the object complete, and that did not */
    uint64_t bytes_hit;    /* sizes of the former: what the disk had */
    uint64_t bytes_store;  /* arrived from the store */
    uint64_t open;         /* objects */
};
void zc_fetch_src_get_stats(struct zc_fetch_src *s, struct zc_fetch_src_stats *out);

/* ------------------------------------------------------------------ objects */

/* Opens a version of an object. Blocks at most for an open(2) on the cache disk. -ESTALE: the
   source was closed. */
int zc_object_open(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                   const char *version, uint64_t size, struct zc_object **out);
/* The same when that needs no wait at all: 0 opened; 1: the object is not complete, use
   zc_object_open; -EAGAIN: it is, but the disk must be read to open it. */
int zc_object_open_quick(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                         const char *version, uint64_t size, struct zc_object **out);
void zc_object_close(struct zc_object *o);

/* All bytes are on disk: the object's backing file may be passed through. */
bool zc_object_complete(struct zc_object *o);
/* Likewise, or some thread is just entering the last of them into the index: a waiter may be told
   of the bytes before that. */
bool zc_object_kept(struct zc_object *o);
/* The backing file, or -1 while the object is kept in memory. Valid until close. */
int zc_object_fd(struct zc_object *o);
uint64_t zc_object_size(const struct zc_object *o);
/* Objects up to this size are one request. */
uint64_t zc_object_chunk_size(const struct zc_object *o);
/* The store said that this version is no more: all reads of missing bytes fail with -ESTALE. */
bool zc_object_stale(const struct zc_object *o);

struct zc_waiter {
    struct zc_list link; /* private */
    uint64_t off, len;   /* private */
    /* err 0: the bytes asked for are there. Called once, without locks held. */
    void (*done)(struct zc_waiter *w, int err);
};

/* Wants bytes [off, off + len), clipped to the object's size. 1: present now (done is not called);
   0: done will be called; negative: failed already. Waits for the disk where an unclean end has
   left chunks that are to be checked. `exact` asks for no more than the blocks touched (random
   reads). */
int zc_object_want(struct zc_object *o, uint64_t off, uint64_t len, bool exact, enum zc_prio prio,
                   struct zc_waiter *w);
/* Starts fetching without waiting; skips what is there or on its way. */
void zc_object_prefetch(struct zc_object *o, uint64_t off, uint64_t len, enum zc_prio prio);
/* Takes a waiter out; true when done() will not be called any more. */
bool zc_object_forget(struct zc_object *o, struct zc_waiter *w);

/* Are these bytes to be had from the backing file (present, and not in memory instead)? */
bool zc_object_in_file(struct zc_object *o, uint64_t off, uint64_t len);
/* Copies present bytes out (from the file or from memory). Bytes copied, or negative errno; -EAGAIN
   when they are gone again from memory, or the disk failed to read them: want them anew. */
ssize_t zc_object_read(struct zc_object *o, void *buf, uint64_t off, size_t len);

/* ------------------------------------------------------------------ for other nodes */

/* The source of this identity that is open, or NULL. */
struct zc_fetch_src *zc_fetch_src_find(struct zc_fetch *f, const char *identity);
/* Is anything of it here, or on its way? Costs two looks into tables, and makes nothing. */
bool zc_object_is_known(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                        const char *version, uint64_t size);
/* As zc_object_open, but counted as neither hit nor miss, nor as open. */
int zc_object_open_for_node(struct zc_fetch *f, struct zc_fetch_src *src, const char *path,
                            const char *version, uint64_t size, struct zc_object **out);
/* What is being fetched goes on: the rest of a chunk will be asked for by somebody. */
void zc_object_close_for_node(struct zc_object *o);

/* What may be done for another node that asks. */
enum zc_reach {
    ZC_REACH_HELD,   /* nothing: what is here */
    ZC_REACH_COMING, /* wait for what is on its way, wherever from */
    ZC_REACH_OWNER,  /* have it from its owner, for which it stands in */
    ZC_REACH_STORE,  /* fetch it as its owner */
};
/* As zc_object_want. -ENOENT: it is not here (and not coming, or not to be fetched). -EBUSY: some
   of it is on its way from another node, which may be waiting for this one: two that each take the
   other for the owner must not wait in a circle. */
int zc_object_want_for_node(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach,
                            enum zc_prio prio, struct zc_waiter *w);
/* As zc_object_prefetch; reach: ZC_REACH_OWNER or ZC_REACH_STORE. */
void zc_object_fetch_for_node(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach,
                              enum zc_prio prio, bool exact);
/* Is some of it on its way from another node, so that who asks with this reach must not wait? May
   have changed by the next moment. */
bool zc_object_abroad(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach);
/* How many bytes from `off` on are in the backing file for good, `len` at the most: they do not
   change any more as long as somebody has the file open. */
uint64_t zc_object_settled(struct zc_object *o, uint64_t off, uint64_t len);
/* The recorded sum of a chunk: 1; 0 when there is none (yet); -EBADMSG after zc_object_bad;
   another negative errno. */
int zc_object_sum(struct zc_object *o, uint32_t chunk, struct zc_digest *sum);
/* The chunk's bytes on disk are not those of its sum: counted, and the cache drops the object.
   Until all who have it open have closed it no other node gets anything of it. */
void zc_object_bad(struct zc_object *o, uint32_t chunk);
struct zc_objid zc_object_id(const struct zc_object *o);

/* Per-handle memory of the access pattern; decides what to prefetch. */
struct zc_streams;
struct zc_streams *zc_streams_new(struct zc_object *o);
void zc_streams_free(struct zc_streams *s);
/* A reader asks for this range: notes it. True when it continues a stream (or starts the file),
   false when it looks random, so that zc_object_want should be exact. Any thread. */
bool zc_streams_note(struct zc_streams *s, uint64_t off, uint64_t len);
/* Starts what the stream at `off` will ask for next. Called after zc_object_want, which so goes
 * first. */
void zc_streams_ahead(struct zc_streams *s, uint64_t off);

struct zc_fetch_stats {
    uint64_t bytes_store;  /* arrived from the store */
    uint64_t bytes_hit;    /* sizes of objects that were complete when they were opened */
    uint64_t hits, misses; /* opens that found the object complete, and that did not */
    uint64_t flights, stale, memory_used, memory_peak;
};
void zc_fetch_get_stats(struct zc_fetch *f, struct zc_fetch_stats *out);

#endif
