/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the room; directory handles; open. */
#include "base/log.h"
#include "vfs/internal.h"

#include <errno.h>
#include <string.h>

int zc_vfs_new(const struct zc_vfs_config *cfg, struct zc_cache *cache, struct zc_fetch *fetch,
               struct zc_vfs **out)
{
    struct zc_vfs *v = calloc(1, sizeof(*v));
    if (!v)
        return -ENOMEM;
    v->cfg = *cfg;
    v->cache = cache;
    v->fetch = fetch;
    /* Far back, so that a listing kept from an earlier mount has an age on the same clock. */
    v->start_ns = zc_now_ns() - ((int64_t)1 << 30) * ZC_NS_PER_S;
    pthread_rwlock_init(&v->lock, NULL);
    pthread_mutex_init(&v->owners_lock, NULL);
    pthread_mutex_init(&v->ops_lock, NULL);
    pthread_cond_init(&v->ops_idle, NULL);
    pthread_mutex_init(&v->sources_lock, NULL);
    zc_list_init(&v->ops);
    zc_list_init(&v->sources);
    zc_list_init(&v->removed);
    v->owners = malloc(sizeof(*v->owners));
    if (v->owners) {
        v->owners[0] = (struct vfs_owner){ZC_ID_UNSET, ZC_ID_UNSET, ZC_ID_UNSET};
        v->owners_n = 1;
    }
    if (!v->owners || vfs_dirs_init(v) < 0) {
        zc_vfs_free(v);
        return -ENOMEM;
    }
    *out = v;
    return 0;
}

void zc_vfs_free(struct zc_vfs *v)
{
    if (!v)
        return;
    vfs_dirs_free(v);
    vfs_sources_free(v);
    pthread_mutex_destroy(&v->sources_lock);
    pthread_rwlock_destroy(&v->lock);
    pthread_mutex_destroy(&v->ops_lock);
    pthread_cond_destroy(&v->ops_idle);
    pthread_mutex_destroy(&v->owners_lock);
    free(v->owners);
    free(v);
}

void zc_vfs_shutdown(struct zc_vfs *v)
{
    pthread_mutex_lock(&v->ops_lock);
    atomic_store(&v->ending, true);
    pthread_mutex_unlock(&v->ops_lock);
    vfs_ops_cancel(v, NULL);
    zc_fetch_shutdown(v->fetch);
    vfs_ops_wait(v, NULL);
}

char *zc_vfs_path(struct zc_vfs *v, uint64_t node)
{
    uint32_t index;
    if (node == ZC_NODE_ROOT)
        return strdup("");
    struct vfs_dir *d = vfs_dir_holding(v, node, &index);
    if (!d)
        return NULL;
    pthread_mutex_lock(&d->lock);
    char *path = index < d->n ? vfs_mount_path(d, d->entries[index].name) : NULL;
    pthread_mutex_unlock(&d->lock);
    vfs_dir_unpin(v, d);
    return path;
}

/* ------------------------------------------------------------------ directory handles */

/*
 * A handle shows the first n entries of the table, those that were there when it was opened or
 * rewound. One that was replaced since then has gone, and its successor stands behind them: it is
 * shown in the place of the former one, so that each name comes once.
 */
struct zc_dirh {
    struct zc_vfs *v;
    struct vfs_dir *d; /* pinned */
    uint32_t n;        /* under d->lock */
    _Atomic unsigned refs;
};

/* Waits for a listing that is young enough. */
struct dirh_ask {
    struct vfs_op op;
    struct vfs_wait wait;
    struct zc_dirh *dh; /* a reference */
    bool opening;
    zc_vfs_opendir_fn *fn;
    void *user;
};

void zc_vfs_closedir(struct zc_dirh *dh)
{
    if (atomic_fetch_sub(&dh->refs, 1) != 1)
        return;
    vfs_dir_unpin(dh->v, dh->d);
    free(dh);
}

static void dirh_listed(struct vfs_wait *w, int err)
{
    struct dirh_ask *a = zc_container_of(w, struct dirh_ask, wait);
    struct zc_dirh *dh = a->dh;
    struct zc_vfs *v = dh->v;
    if (err == 0) {
        pthread_mutex_lock(&dh->d->lock);
        dh->n = dh->d->n;
        pthread_mutex_unlock(&dh->d->lock);
    }
    err = vfs_dir_error(dh->d, err);
    if (a->opening)
        vfs_op_end(v, &a->op); /* before the handle is given away: it may be closed at once */
    a->fn(a->user, err, err == 0 ? dh : NULL);
    if (!a->opening || err < 0)
        zc_vfs_closedir(dh);
    if (!a->opening)
        vfs_op_end(v, &a->op);
    free(a);
}

/* Takes the reference. */
static void dirh_ask(struct zc_dirh *dh, bool opening, zc_vfs_opendir_fn *fn, void *user)
{
    struct dirh_ask *a = calloc(1, sizeof(*a));
    int r = a ? vfs_op_begin(dh->v, &a->op, dh->d->src, NULL) : -ENOMEM;
    if (r < 0) {
        free(a);
        zc_vfs_closedir(dh);
        fn(user, r, NULL);
        return;
    }
    a->dh = dh;
    a->opening = opening;
    a->fn = fn;
    a->user = user;
    a->wait.done = dirh_listed;
    vfs_list(dh->v, dh->d, &a->wait);
}

void zc_vfs_opendir(struct zc_vfs *v, uint64_t node, zc_vfs_opendir_fn *fn, void *user)
{
    struct vfs_dir *d = vfs_dir_of_node(v, node);
    struct zc_dirh *dh = d ? calloc(1, sizeof(*dh)) : NULL;
    if (!dh) {
        if (d)
            vfs_dir_unpin(v, d);
        fn(user, d ? -ENOMEM : -ENOTDIR, NULL);
        return;
    }
    dh->v = v;
    dh->d = d;
    atomic_init(&dh->refs, 1);
    dirh_ask(dh, true, fn, user);
}

void zc_vfs_rewinddir(struct zc_dirh *dh, zc_vfs_opendir_fn *fn, void *user)
{
    atomic_fetch_add(&dh->refs, 1);
    dirh_ask(dh, false, fn, user);
}

int zc_vfs_readdir(struct zc_dirh *dh, uint64_t at, bool ref, const char **name,
                   struct zc_node *node)
{
    struct vfs_dir *d = dh->d;
    int r = 0;
    pthread_mutex_lock(&d->lock);
    if (at < dh->n) {
        const struct vfs_entry *e = &d->entries[at];
        if (e->flags & VFS_GONE) {
            uint32_t heir = e->gone_n >= dh->n ? vfs_dir_find(d, e->name) : UINT32_MAX;
            e = heir != UINT32_MAX ? &d->entries[heir] : NULL;
        }
        *name = e ? e->name : NULL;
        if (e)
            vfs_entry_node(dh->v, d, (uint32_t)(e - d->entries), node);
        if (ref && e)
            atomic_fetch_add(&d->krefs, 1);
        r = 1;
    }
    pthread_mutex_unlock(&d->lock);
    struct zc_vfs_source *s = r == 1 && *name ? vfs_source_at(dh->v, d, (uint32_t)node->id) : NULL;
    if (s)
        node->valid_ns = ZC_MIN(node->valid_ns, vfs_root_valid_ns(dh->v, s));
    return r;
}

/* ------------------------------------------------------------------ files */

/* What names an entry's object. */
struct vfs_name {
    char *path, *version;
    uint64_t size;
};

static void vfs_name_free(struct vfs_name *n)
{
    free(n->path);
    free(n->version);
}

static int vfs_entry_name(struct vfs_dir *d, uint32_t index, struct vfs_name *out)
{
    int r = 0;
    pthread_mutex_lock(&d->lock);
    struct vfs_entry *e = index < d->n ? &d->entries[index] : NULL;
    if (!e || (e->flags & VFS_GONE)) {
        r = -ESTALE; /* the kernel then looks the name up anew */
    } else if (e->flags & VFS_DIR) {
        r = -EISDIR;
    } else {
        out->path = vfs_entry_path(d, e->name);
        out->version = strdup(e->version);
        out->size = e->size;
        if (!out->path || !out->version)
            r = -ENOMEM;
    }
    pthread_mutex_unlock(&d->lock);
    return r;
}

int vfs_entry_open(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, bool quick,
                   struct zc_object **out)
{
    __attribute__((cleanup(vfs_name_free))) struct vfs_name name = {0};
    int r = vfs_entry_name(d, index, &name);
    if (r < 0)
        return r;
    r = quick
            ? zc_object_open_quick(v->fetch, d->src->fetch, name.path, name.version, name.size, out)
            : 1;
    return r == 1 ? zc_object_open(v->fetch, d->src->fetch, name.path, name.version, name.size, out)
                  : r;
}

int vfs_entry_objid(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, struct zc_objid *out)
{
    __attribute__((cleanup(vfs_name_free))) struct vfs_name name = {0};
    int r = vfs_entry_name(d, index, &name);
    if (r == 0)
        *out = zc_objid_of(d->src->identity, name.path, name.version, name.size);
    return r;
}

static int vfs_open(struct zc_vfs *v, uint64_t node, bool quick, struct zc_object **out)
{
    uint32_t index;
    if (node == ZC_NODE_ROOT)
        return -EISDIR;
    struct vfs_dir *d = vfs_dir_holding(v, node, &index);
    if (!d)
        return -ESTALE;
    int r = vfs_entry_open(v, d, index, quick, out);
    vfs_dir_unpin(v, d);
    if (r == 0 && zc_object_stale(*out)) {
        zc_object_close(*out);
        zc_vfs_stale(v, node);
        r = -ESTALE;
    }
    return r;
}

uint64_t zc_vfs_serial(struct zc_vfs *v, uint64_t node)
{
    uint32_t index;
    uint64_t serial = 0;
    struct vfs_dir *d = node == ZC_NODE_ROOT ? NULL : vfs_dir_holding(v, node, &index);
    if (!d)
        return 0;
    pthread_mutex_lock(&d->lock);
    if (index < d->n && !(d->entries[index].flags & (VFS_DIR | VFS_GONE)))
        serial = d->serial;
    pthread_mutex_unlock(&d->lock);
    vfs_dir_unpin(v, d);
    return serial;
}

uint64_t zc_vfs_epoch(struct zc_vfs *v)
{
    return atomic_load(&v->epoch);
}

int zc_vfs_open(struct zc_vfs *v, uint64_t node, struct zc_object **out)
{
    return vfs_open(v, node, false, out);
}

int zc_vfs_open_quick(struct zc_vfs *v, uint64_t node, struct zc_object **out)
{
    return vfs_open(v, node, true, out);
}

void zc_vfs_stale(struct zc_vfs *v, uint64_t node)
{
    uint32_t index;
    struct vfs_dir *d = vfs_dir_holding(v, node, &index);
    if (!d)
        return;
    pthread_mutex_lock(&d->lock);
    if (index < d->n && !(d->entries[index].flags & (VFS_DIR | VFS_GONE))) {
        vfs_dir_mark_gone(v, d, index);
        /* The listing that named this version is wrong in one place at least. */
        if (!d->listing) {
            d->state = VFS_UNLISTED;
            d->singles = 0;
        }
    }
    pthread_mutex_unlock(&d->lock);
    zc_cache_drop_listing(v->cache, vfs_listing_key(v, d));
    vfs_dir_unpin(v, d);
}

void zc_vfs_get_stats(struct zc_vfs *v, struct zc_vfs_stats *out)
{
    *out = (struct zc_vfs_stats){
        .dirs = atomic_load(&v->dirs_live),
        .entries = atomic_load(&v->entries),
        .lookups = atomic_load(&v->lookups),
        .listings = atomic_load(&v->listings),
        .hidden = atomic_load(&v->hidden),
    };
}
