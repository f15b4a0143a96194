/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file system without FUSE: nodes, directories, lookups, listings, warm and free. See
 * docs/SEMANTICS.md.
 *
 * A node is named by 64 bits: the number of its directory and its place in that directory's table,
 * so that no memory is kept for each node that the kernel knows. A node stands for one version of
 * one object for ever: when the object changes, its name gets a new node. So the kernel's pages of
 * a node never go stale.
 *
 * Threads: any. Calls that may need the store take a callback, which comes on the thread that has
 * the answer, or during the call.
 */
#ifndef ZC_VFS_H
#define ZC_VFS_H

#include "fetch/fetch.h"

struct zc_vfs;

#define ZC_TTL_INDEFINITE INT64_MAX

struct zc_vfs_config {
    uint32_t uid, gid;  /* of directories that no source has; ZC_ID_UNSET: the daemon's */
    uint32_t dir_mode;  /* their permission bits, or ZC_ID_UNSET: 0555 */
    bool keep_listings; /* write listings to the index, read them back at the next mount */
};

/* An empty file system: one directory. */
int zc_vfs_new(const struct zc_vfs_config *cfg, struct zc_cache *cache, struct zc_fetch *fetch,
               struct zc_vfs **out);
/* First step of an unmount: refuses new work, cancels what is in flight in fetch and in the store,
   and waits until all of it has called back. */
void zc_vfs_shutdown(struct zc_vfs *v);
/* After zc_vfs_shutdown, and after every handle was closed. */
void zc_vfs_free(struct zc_vfs *v);

/* ------------------------------------------------------------------ sources */

/*
 * A source is shown at a path. Paths do not overlap: none lies in another. The directories above
 * them are made as they are needed, go with the last source below them, and ask no store anything.
 * A source at "" is the whole file system: it must be the first and remains the only one.
 */
struct zc_vfs_source;

struct zc_vfs_source_config {
    const char *at;        /* "" or "a/b": what zc_at_check takes */
    struct zc_backend *be; /* stays the caller's, who frees it after zc_vfs_source_remove, or after
                              zc_vfs_shutdown */
    const char *identity;  /* names its data in the cache, see zc_fetch_src_new */
    int64_t ttl_ns; /* of listings and attributes; ZC_TTL_INDEFINITE: never asked again; 0: minimal,
                       every lookup and open asks the store */
    int64_t negative_ttl_ns; /* of "no such file", at most ttl_ns; -1 = ttl_ns */
    uint32_t uid, gid;       /* ZC_ID_UNSET: the store's own, else the daemon's */
    uint32_t file_mode,
        dir_mode; /* permission bits, or ZC_ID_UNSET: the store's own, else 0444 and 0555 */
};

/* Is there a place for a source at `at`? 0, or -EEXIST with words that name what is in the way.
   Any thread; the answer holds until somebody else adds. */
int zc_vfs_source_fits(struct zc_vfs *v, const char *at, struct zc_error *err);
/* Shows a source, from now on. -EEXIST, -EINVAL, -ENOMEM, with words. */
int zc_vfs_source_add(struct zc_vfs *v, const struct zc_vfs_source_config *cfg,
                      struct zc_vfs_source **out, struct zc_error *err);
/* Takes it away: its path is gone, and what was under way in it has ended with -ESTALE when this
   returns. Blocks for that, a second at the most when nothing is in flight. -EBUSY with words while
   files of it are open; with `force` those go on with what is cached of them, and else fail with
   -ESTALE. *s lives until zc_vfs_free, but is of no use any more. */
int zc_vfs_source_remove(struct zc_vfs *v, struct zc_vfs_source *s, bool force,
                         struct zc_error *err);
const char *zc_vfs_source_at(const struct zc_vfs_source *s);

struct zc_vfs_source_stats {
    struct zc_fetch_src_stats fetch;
    uint64_t listings; /* directories listed */
};
void zc_vfs_source_get_stats(struct zc_vfs_source *s, struct zc_vfs_source_stats *out);

/* ------------------------------------------------------------------ nodes */

#define ZC_NODE_ROOT ((uint64_t)1)

struct zc_node {         /* what lookup, getattr and readdirplus tell */
    uint64_t id;         /* node number */
    uint64_t generation; /* another one when the number stands for another file */
    uint64_t ino;        /* st_ino: stable over remounts */
    enum zc_kind kind;
    uint64_t size;
    int64_t mtime_ns;
    uint32_t mode; /* permission bits */
    uint32_t uid, gid;
    int64_t valid_ns; /* the kernel may keep it for so long */
};

/* err 0 and a node; -ENOENT with valid_ns in *node for how long the kernel may believe it. Each
   success adds one reference of the kernel's to the node, given back by zc_vfs_forget. */
typedef void zc_vfs_lookup_fn(void *user, int err, const struct zc_node *node);
void zc_vfs_lookup(struct zc_vfs *v, uint64_t parent, const char *name, zc_vfs_lookup_fn *fn,
                   void *user);
void zc_vfs_forget(struct zc_vfs *v, uint64_t node, uint64_t n);
/* err 0 and the node, or -ESTALE. From memory, but for the root of a source, for which its store is
   asked when its time is over. Adds no reference. */
void zc_vfs_getattr(struct zc_vfs *v, uint64_t node, zc_vfs_lookup_fn *fn, void *user);

/* A directory handle: the names that were there when it was opened or rewound, but for those that
   are deleted since then. A file that is replaced meanwhile is shown once, old or new. */
struct zc_dirh;
typedef void zc_vfs_opendir_fn(void *user, int err, struct zc_dirh *dh);
void zc_vfs_opendir(struct zc_vfs *v, uint64_t node, zc_vfs_opendir_fn *fn, void *user);
/* As opening anew. dh is the same; NULL in case of an error, which leaves it as it was. It may be
   closed before the answer. */
void zc_vfs_rewinddir(struct zc_dirh *dh, zc_vfs_opendir_fn *fn, void *user);
void zc_vfs_closedir(struct zc_dirh *dh);
/* Entry number `at` (0 based, "." and ".." not included): 1 with name and node, 0 at the end. A
   place whose entry is gone has a NULL name: go on with the next. With ref, adds a reference as
   lookup does. The name lives until closedir. */
int zc_vfs_readdir(struct zc_dirh *dh, uint64_t at, bool ref, const char **name,
                   struct zc_node *node);

/* Opens a file node's version. -EISDIR, -ESTALE (the version is known to be gone: the kernel looks
 * up anew). */
int zc_vfs_open(struct zc_vfs *v, uint64_t node, struct zc_object **out);
/* The same without a wait for the cache disk: -EAGAIN when a cached file cannot be opened without.
   For threads that other requests queue behind. */
int zc_vfs_open_quick(struct zc_vfs *v, uint64_t node, struct zc_object **out);
/* A node's number may come to stand for another file when the kernel has forgotten it. Who
   remembers nodes for longer remembers this with it: as long as it is the same and not 0, the node
   stands for the same version of the same file. 0: no file, or its version is known to be gone. */
uint64_t zc_vfs_serial(struct zc_vfs *v, uint64_t node);
/* While this is what it was before a serial was asked for, that serial holds: no need to ask again.
 */
uint64_t zc_vfs_epoch(struct zc_vfs *v);
/* A read found that the node's version is gone: forget its listing, so that the next lookup sees
 * the new one. */
void zc_vfs_stale(struct zc_vfs *v, uint64_t node);
/* Path of a node below the mount, for messages. Caller frees. */
char *zc_vfs_path(struct zc_vfs *v, uint64_t node);

/* ------------------------------------------------------------------ warm and free */

struct zc_warm;
struct zc_warm_stats {
    uint64_t files_found,
        bytes_found;                 /* so far; final once `listed`, which of many files is late */
    uint64_t files_done, bytes_done; /* in the cache, whether fetched now or before */
    uint64_t files_hit, bytes_hit;   /* of these: were there before */
    uint64_t failed;
    uint64_t gone; /* of those done: left the cache again, pushed out by others or by later ones */
    unsigned mark; /* for the job that goes on with this one's work */
    bool listed, finished;
    char error[300]; /* first failure, in words */
};
/* A part of the work, for one of several nodes: the pieces for which mine() says yes. A file counts
   where its first piece does; what is found and done are the bytes of the part. */
struct zc_warm_part {
    bool (*mine)(void *user, struct zc_objid id, uint64_t off); /* any thread; only computes */
    void *user;
    uint64_t piece; /* bytes; pieces begin at multiples of it */
};
/* paths: relative to the mount, "" for all of it. parallel: files in flight, 0 = 64. part: NULL for
   all. mark: a former job's whose files are looked after, too, 0: none. */
int zc_warm_start(struct zc_vfs *v, const char *const *paths, size_t n, unsigned parallel,
                  const struct zc_warm_part *part, unsigned mark, struct zc_warm **out);
/* Blocks until something changed or timeout_ms passed; then fills *out. */
void zc_warm_poll(struct zc_warm *w, int timeout_ms, struct zc_warm_stats *out);
/* Cancels when not finished; waits for what is in flight; frees. */
void zc_warm_end(struct zc_warm *w);

struct zc_free_stats {
    uint64_t files, bytes; /* dropped from the cache */
    uint64_t busy;         /* files left because they are open */
};
/* Drops cached objects below the paths. Blocks (may list). */
int zc_vfs_drop(struct zc_vfs *v, const char *const *paths, size_t n, struct zc_free_stats *out,
                struct zc_error *err);

/* Files and bytes below the path. Blocks (may list). */
int zc_vfs_count(struct zc_vfs *v, const char *path, uint64_t *files, uint64_t *bytes,
                 struct zc_error *err);

struct zc_vfs_stats {
    uint64_t dirs, entries;     /* in memory */
    uint64_t lookups, listings; /* answered; directories listed */
    uint64_t hidden;            /* names of the store that no path can show */
};
void zc_vfs_get_stats(struct zc_vfs *v, struct zc_vfs_stats *out);

#endif
