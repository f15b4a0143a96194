/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room share: directories in memory.
 *
 * A directory is a table of entries that only grows: an entry whose object was replaced or deleted
 * is marked gone and keeps its place, because the kernel may still hold its number. The whole table
 * goes when the kernel has forgotten all of it and nobody uses it.
 *
 * Locks, in order: vfs->lock (which directories exist), then one dir->lock (its entries, state,
 * waiters). Neither is held over a call into fetch, cache or backend, or over a callback.
 */
#ifndef ZC_VFS_INTERNAL_H
#define ZC_VFS_INTERNAL_H

#include "base/list.h"
#include "vfs/vfs.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>

#define VFS_ROOT_DIR 1u
/* For a listing of more entries than this no lookup waits: the name is asked for alone. */
#define VFS_BIG_DIR 4000u
/* Names asked for alone since the last listing, one for each so many entries, after which it is
 * made again. */
#define VFS_NAMES_A_SINGLE 500u
/* How long the store is asked for what is known from before. */
#define VFS_AGAIN_DEADLINE (15 * ZC_NS_PER_S)
/* How long the kernel may keep what is synthetic: sources come and go, and to ask again costs no
 * request to a store. */
#define VFS_SYNTHETIC_NS ZC_NS_PER_S

enum vfs_entry_flags { VFS_DIR = 1, VFS_GONE = 2, VFS_SEEN = 4 };

struct vfs_entry {
    const char *name;    /* in the directory's arena */
    const char *version; /* likewise; "" for a directory */
    uint64_t size;
    int64_t mtime_ns;
    uint32_t child; /* number of the directory this entry is, 0 while it is not in memory */
    union {
        uint32_t checked_s; /* vfs time at which the store last confirmed it */
        uint32_t gone_n;    /* with VFS_GONE: how many entries there were when it went */
    };
    uint32_t owner; /* index into vfs->owners: mode, uid, gid */
    uint16_t name_len;
    uint16_t flags;
};

enum vfs_dir_state { VFS_UNLISTED, VFS_LISTED };

/* A source in the file system. Removed ones are kept: directories may refer to them. */
struct zc_vfs_source {
    struct zc_list link;             /* vfs->sources or vfs->removed */
    struct zc_vfs_source_config cfg; /* its strings are those below */
    char *at, *identity;
    uint64_t at_hash; /* 0 for "" */
    struct zc_fetch_src *fetch;
    struct vfs_dir *root; /* pinned until removed; NULL for "" */
    /* What the store said of the root, for "": under vfs->root's lock. For others it is in the
       entry that shows it. */
    struct zc_attr root_attr;
    _Atomic uint32_t root_checked_s; /* vfs time at which it said so; 0: not yet */
    _Atomic uint32_t root_retry_s;   /* not to be asked before, since it failed */
    _Atomic bool root_asking;
    _Atomic bool removed; /* set under vfs->ops_lock */
    unsigned ops;         /* under way; under vfs->ops_lock */
    _Atomic uint64_t listings;
};

struct vfs_dir {
    uint32_t id;
    uint64_t serial;           /* numbers are given away again, serials never */
    uint32_t parent;           /* 0 for the root */
    uint32_t parent_index;     /* entry of this directory in its parent */
    struct zc_vfs_source *src; /* NULL: above all sources; its entries are synthetic or sources */
    char *path;                /* in the source, "" for its root; without a source: in the mount */
    uint64_t path_hash;
    _Atomic uint32_t pins;     /* uses that forbid to drop it; raised under vfs->lock */
    _Atomic uint64_t krefs;    /* the kernel's references to its entries */
    _Atomic uint32_t children; /* directories in memory whose parent this is */

    pthread_mutex_t lock;
    struct vfs_entry *entries;
    uint32_t n, cap; /* used, gone ones included */
    uint32_t live;
    uint32_t *index; /* open addressing: entry + 1, 0 = free; index_cap is a power of two */
    uint32_t index_cap;
    struct vfs_arena *arena;
    enum vfs_dir_state state;
    uint32_t listed_s;      /* vfs time of the listing */
    bool listing;           /* one is under way */
    bool tried_index;       /* the index was asked for a listing of an earlier mount */
    unsigned pages;         /* of the listing under way */
    unsigned singles;       /* names asked for alone since the last listing */
    struct zc_list waiters; /* struct vfs_wait */
};

/* What waits for a listing. done is called without locks. */
struct vfs_wait {
    struct zc_list link;
    const char *name; /* NULL: wants the whole listing */
    void (*done)(struct vfs_wait *w, int err);
};

struct vfs_owner {
    uint32_t mode, uid, gid;
};

struct zc_vfs {
    struct zc_vfs_config cfg;
    uint64_t serials;       /* under lock */
    _Atomic uint64_t epoch; /* grows with each serial that ends, or that a node gets */
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    int64_t start_ns;

    pthread_rwlock_t lock;
    struct vfs_dir **dirs; /* by number */
    struct vfs_dir *root;  /* of them, never dropped */
    uint32_t dirs_n, dirs_cap;
    uint32_t *free_ids;
    uint32_t free_n;

    pthread_mutex_t sources_lock;    /* adding and removing; held while a removal waits */
    struct zc_list sources, removed; /* struct zc_vfs_source */

    pthread_mutex_t owners_lock;
    struct vfs_owner *owners;
    uint32_t owners_n;

    _Atomic uint64_t entries, dirs_live, lookups, listings, hidden;
    pthread_mutex_t ops_lock; /* a leaf: nothing is taken under it */
    pthread_cond_t ops_idle;
    struct zc_list ops; /* struct vfs_op */
    _Atomic bool ending;
};

/* An operation under way: a shutdown cancels its request and waits for its end. */
struct vfs_op {
    struct zc_list link;
    struct zc_vfs_source *src; /* NULL: none is asked */
    struct zc_req *req;        /* NULL: it ends with another one's help */
};

static inline uint64_t vfs_node(uint32_t dir, uint32_t index)
{
    return (uint64_t)dir << 32 | index;
}

/* The vfs's own clock, in seconds; never 0. */
uint32_t vfs_now_s(struct zc_vfs *v);

/* dir.c */
/* The directory that a node is or lies in, pinned; NULL when the node is none. */
struct vfs_dir *vfs_dir_of_node(struct zc_vfs *v, uint64_t node);
struct vfs_dir *vfs_dir_holding(struct zc_vfs *v, uint64_t node, uint32_t *index);
void vfs_dir_pin(struct vfs_dir *d);
void vfs_dir_unpin(struct zc_vfs *v, struct vfs_dir *d);
int vfs_dirs_init(struct zc_vfs *v);
void vfs_dirs_free(struct zc_vfs *v);
/* Under d->lock: */
uint32_t vfs_dir_find(struct vfs_dir *d, const char *name); /* UINT32_MAX: none */
/* Puts what the store says into the table. */
int vfs_dir_merge(struct zc_vfs *v, struct vfs_dir *d, const char *name, const struct zc_attr *a,
                  uint32_t *index);
void vfs_dir_mark_gone(struct zc_vfs *v, struct vfs_dir *d, uint32_t index);
void vfs_dir_sweep(struct zc_vfs *v,
                   struct vfs_dir *d); /* entries without VFS_SEEN are gone; clears VFS_SEEN */
void vfs_entry_node(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, struct zc_node *out);
/* Path of an entry, as d->path; caller frees. */
char *vfs_entry_path(const struct vfs_dir *d, const char *name);
/* The directory's path in the mount, or that of a name in it; caller frees. */
char *vfs_mount_path(const struct vfs_dir *d, const char *name);
/* Makes a directory at entry `name` of a synthetic one: a source's root, or with src NULL another
   synthetic one. Pinned. NULL without memory. */
struct vfs_dir *vfs_dir_make(struct zc_vfs *v, struct vfs_dir *parent, const char *name,
                             struct zc_vfs_source *src);
/* The directory at a synthetic one's entry `name`, NULL when there is none. */
struct vfs_dir *vfs_dir_child(struct zc_vfs *v, struct vfs_dir *parent, const char *name);
/* Takes it out of its parent and gives up the pin. True when the parent is empty then. */
bool vfs_dir_unmake(struct zc_vfs *v, struct vfs_dir *d);
struct vfs_dir *vfs_dir_parent(struct zc_vfs *v, struct vfs_dir *d);

/* lookup.c */
/* Can the table answer for this name, yes or no? Under d->lock. */
bool vfs_dir_knows(struct zc_vfs *v, struct vfs_dir *d, const char *name);

/* listing.c */
/* Is the listing there and young enough? Under d->lock. */
bool vfs_dir_fresh(struct zc_vfs *v, struct vfs_dir *d);
/* Queues w (NULL: nobody waits) for the listing and starts one if none is under way. Takes d->lock
   itself. */
void vfs_list(struct zc_vfs *v, struct vfs_dir *d, struct vfs_wait *w);
/* Nanoseconds that something in d confirmed at checked_s stays valid. */
int64_t vfs_valid_ns(struct zc_vfs *v, const struct vfs_dir *d, uint32_t checked_s);
bool vfs_fresh(struct zc_vfs *v, const struct vfs_dir *d, uint32_t checked_s);
/* -ESHUTDOWN when the vfs is ending, -ESTALE when the source is removed. src may be NULL. */
int vfs_op_begin(struct zc_vfs *v, struct vfs_op *op, struct zc_vfs_source *src,
                 struct zc_req *req);
void vfs_op_end(struct zc_vfs *v, struct vfs_op *op);
static inline bool vfs_dir_removed(const struct vfs_dir *d)
{
    return d->src && atomic_load_explicit(&d->src->removed, memory_order_acquire);
}
/* What a reader is told of an operation in d that ended with err. */
static inline int vfs_dir_error(const struct vfs_dir *d, int err)
{
    return err == -ECANCELED && vfs_dir_removed(d) ? -ESTALE : err;
}
/* Cancels what is under way, of one source or (NULL) of all; waits for its end. */
void vfs_ops_cancel(struct zc_vfs *v, const struct zc_vfs_source *src);
void vfs_ops_wait(struct zc_vfs *v, const struct zc_vfs_source *src);
/* Where a directory's listing is kept in the index. */
struct zc_digest vfs_listing_key(struct zc_vfs *v, const struct vfs_dir *d);

/* attr.c */
/* Attributes of a source's root (s NULL: of a directory above sources) as they are shown, from what
   the store says (NULL: unknown). */
struct zc_attr vfs_root_attr(struct zc_vfs *v, const struct zc_vfs_source *s,
                             const struct zc_attr *known);
/* How long what is known of a source's root is to be believed; 0: getattr asks. */
int64_t vfs_root_valid_ns(struct zc_vfs *v, struct zc_vfs_source *s);
/* The source whose root entry `index` of a synthetic directory is; NULL: it is none. Takes locks.
 */
struct zc_vfs_source *vfs_source_at(struct zc_vfs *v, struct vfs_dir *d, uint32_t index);

/* sources.c */
void vfs_sources_free(struct zc_vfs *v);

/* walk.c: files below paths, for warm and free. */
struct vfs_walk_ops {
    /* A file: entry `index` of d, which is pinned during the call. Non-zero ends the walk. */
    int (*file)(void *user, struct vfs_dir *d, uint32_t index, uint64_t size);
    void (*failed)(void *user, const char *path, int err); /* a path that cannot be walked */
};
/* Blocks. Lists what is not listed, several directories at a time. 0, or what file() returned, or
 * -ENOMEM. */
int vfs_walk(struct zc_vfs *v, const char *const *paths, size_t n, const struct vfs_walk_ops *ops,
             void *user);
/* The object that an entry stands for. */
int vfs_entry_open(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, bool quick,
                   struct zc_object **out);
int vfs_entry_objid(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, struct zc_objid *out);

/* persist.c: listings in the index. */
void vfs_persist(struct zc_vfs *v, struct vfs_dir *d); /* called without locks, by a pinned user */
bool vfs_restore(struct zc_vfs *v,
                 struct vfs_dir *d); /* true when a listing young enough was there */
/* One page of the index's form into entries; for the fuzzer. */
int vfs_page_decode(const uint8_t *p, size_t n, int64_t *wall_ns,
                    int (*fn)(void *user, const char *name, const struct zc_attr *a), void *user);

#endif
