/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Directories in memory. About 120 bytes an entry: 48 of struct, the name and the version in an
 * arena of large blocks that never move (handles lend names out), and 8 of hash index.
 */
#include "vfs/internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#define ARENA_BLOCK ((size_t)16 << 10)
/* Directories that nobody needs are dropped once more entries than this are in memory. */
#define VFS_KEEP_ENTRIES 500000u

struct vfs_arena {
    struct vfs_arena *next;
    size_t used, size;
    char bytes[];
};

static const char *arena_add(struct vfs_dir *d, const char *s, size_t n)
{
    static const char empty[] = "";
    struct vfs_arena *a = d->arena;
    if (n == 0)
        return empty;
    if (!a || a->size - a->used < n + 1) {
        /* Small directories get small blocks: there may be a million of them. */
        size_t size = a ? ZC_MIN(a->size * 2, ARENA_BLOCK) : 256;
        size = ZC_MAX(size, n + 1);
        a = malloc(sizeof(*a) + size);
        if (!a)
            return NULL;
        a->next = d->arena;
        a->used = 0;
        a->size = size;
        d->arena = a;
    }
    char *p = a->bytes + a->used;
    memcpy(p, s, n);
    p[n] = '\0';
    a->used += n + 1;
    return p;
}

/* ------------------------------------------------------------------ names to entries */

static uint32_t dir_slot(const struct vfs_dir *d, const char *name, size_t len)
{
    return (uint32_t)zc_hash64(d->path_hash, name, len) & (d->index_cap - 1);
}

uint32_t vfs_dir_find(struct vfs_dir *d, const char *name)
{
    size_t len = strlen(name);
    if (!d->index_cap)
        return UINT32_MAX;
    for (uint32_t s = dir_slot(d, name, len); d->index[s]; s = (s + 1) & (d->index_cap - 1)) {
        const struct vfs_entry *e = &d->entries[d->index[s] - 1];
        if (!(e->flags & VFS_GONE) && e->name_len == len && memcmp(e->name, name, len) == 0)
            return d->index[s] - 1;
    }
    return UINT32_MAX;
}

static void dir_index_put(struct vfs_dir *d, uint32_t i)
{
    uint32_t s = dir_slot(d, d->entries[i].name, d->entries[i].name_len);
    while (d->index[s])
        s = (s + 1) & (d->index_cap - 1);
    d->index[s] = i + 1;
}

static int dir_grow(struct vfs_dir *d)
{
    if (d->n == d->cap) {
        uint32_t cap = d->cap ? d->cap + d->cap / 2 : 8;
        struct vfs_entry *e = realloc(d->entries, cap * sizeof(*e));
        if (!e)
            return -ENOMEM;
        d->entries = e;
        d->cap = cap;
    }
    if ((d->n + 1) * 4 >= d->index_cap * 3) {
        uint32_t cap = d->index_cap ? d->index_cap * 2 : 16;
        uint32_t *index = calloc(cap, sizeof(*index));
        if (!index)
            return -ENOMEM;
        free(d->index);
        d->index = index;
        d->index_cap = cap;
        for (uint32_t i = 0; i < d->n; i++) {
            if (!(d->entries[i].flags & VFS_GONE))
                dir_index_put(d, i);
        }
    }
    return 0;
}

/* The place in v->owners for these attributes; `now` is where they were before (0: nowhere), which
   also stands when there is no memory. */
static uint32_t dir_owner(struct zc_vfs *v, const struct zc_attr *a, uint32_t now)
{
    struct vfs_owner o = {.mode = a->mode, .uid = a->uid, .gid = a->gid};
    uint32_t i;
    pthread_mutex_lock(&v->owners_lock);
    bool same = memcmp(&v->owners[now], &o, sizeof(o)) == 0;
    for (i = same ? now + 1 : v->owners_n; i-- > 0;) {
        if (memcmp(&v->owners[i], &o, sizeof(o)) == 0)
            break;
    }
    if (i == UINT32_MAX) {
        struct vfs_owner *p = realloc(v->owners, (v->owners_n + 1) * sizeof(*p));
        if (p) {
            v->owners = p;
            v->owners[v->owners_n] = o;
            i = v->owners_n++;
        } else {
            i = now;
        }
    }
    pthread_mutex_unlock(&v->owners_lock);
    return i;
}

int vfs_dir_merge(struct zc_vfs *v, struct vfs_dir *d, const char *name, const struct zc_attr *a,
                  uint32_t *index)
{
    bool is_dir = a->kind == ZC_KIND_DIR;
    uint32_t i = vfs_dir_find(d, name);
    if (i != UINT32_MAX) {
        struct vfs_entry *e = &d->entries[i];
        bool was_dir = e->flags & VFS_DIR;
        /* A key that is both: the directory hides the file. */
        if (was_dir && !is_dir && (e->flags & VFS_SEEN)) {
            atomic_fetch_add(&v->hidden, 1);
            goto out;
        }
        if (was_dir == is_dir &&
            (is_dir || (e->size == a->size && strcmp(e->version, a->version) == 0))) {
            /* Owner and mode are not part of a version, and a directory has none. */
            e->owner = dir_owner(v, a, e->owner);
            e->mtime_ns = a->mtime_ns;
            e->checked_s = vfs_now_s(v);
            e->flags |= VFS_SEEN;
            goto out;
        }
        if (!was_dir && is_dir && (e->flags & VFS_SEEN))
            atomic_fetch_add(&v->hidden, 1);
        vfs_dir_mark_gone(v, d, i);
    }
    int r = dir_grow(d);
    if (r < 0)
        return r;
    i = d->n;
    size_t len = strlen(name);
    struct vfs_entry *e = &d->entries[i];
    *e = (struct vfs_entry){
        .name = arena_add(d, name, len),
        .version = arena_add(d, is_dir ? "" : a->version, is_dir ? 0 : strlen(a->version)),
        .size = is_dir ? 0 : a->size,
        .mtime_ns = a->mtime_ns,
        .checked_s = vfs_now_s(v),
        .owner = dir_owner(v, a, 0),
        .name_len = (uint16_t)len,
        .flags = (uint16_t)(VFS_SEEN | (is_dir ? VFS_DIR : 0)),
    };
    if (!e->name || !e->version)
        return -ENOMEM;
    d->n++;
    d->live++;
    dir_index_put(d, i);
    atomic_fetch_add_explicit(&v->entries, 1, memory_order_relaxed);
out:
    *index = i;
    return 0;
}

void vfs_dir_mark_gone(struct zc_vfs *v, struct vfs_dir *d, uint32_t index)
{
    struct vfs_entry *e = &d->entries[index];
    if (e->flags & VFS_GONE)
        return;
    e->flags |=
        VFS_GONE; /* stays in the hash index, where find passes over it, until that is made anew */
    e->gone_n = d->n;
    d->live--;
    atomic_fetch_add(&v->epoch, 1);
}

void vfs_dir_sweep(struct zc_vfs *v, struct vfs_dir *d)
{
    for (uint32_t i = 0; i < d->n; i++) {
        if (!(d->entries[i].flags & VFS_SEEN))
            vfs_dir_mark_gone(v, d, i);
        d->entries[i].flags &= (uint16_t)~VFS_SEEN;
    }
}

char *vfs_entry_path(const struct vfs_dir *d, const char *name)
{
    size_t a = strlen(d->path), b = strlen(name);
    char *p = malloc(a + b + 2);
    if (!p)
        return NULL;
    memcpy(p, d->path, a);
    if (a)
        p[a++] = '/';
    memcpy(p + a, name, b + 1);
    return p;
}

void vfs_entry_node(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, struct zc_node *out)
{
    const struct vfs_entry *e = &d->entries[index];
    bool is_dir = e->flags & VFS_DIR;
    uint32_t checked_s = e->flags & VFS_GONE ? 1 : e->checked_s;
    struct vfs_owner o;
    pthread_mutex_lock(&v->owners_lock);
    o = v->owners[e->owner];
    pthread_mutex_unlock(&v->owners_lock);
    /* In a synthetic directory, an entry's own attributes say it all. */
    static const struct zc_vfs_source_config none = {
        .uid = ZC_ID_UNSET, .gid = ZC_ID_UNSET, .file_mode = ZC_ID_UNSET, .dir_mode = ZC_ID_UNSET};
    const struct zc_vfs_source_config *cfg = d->src ? &d->src->cfg : &none;
    uint32_t mode = is_dir ? cfg->dir_mode : cfg->file_mode;
    if (mode == ZC_ID_UNSET)
        mode = o.mode != ZC_ID_UNSET ? o.mode & 07777 : is_dir ? 0555 : 0444;
    uint32_t uid = cfg->uid != ZC_ID_UNSET ? cfg->uid
                   : o.uid != ZC_ID_UNSET  ? o.uid
                                           : (uint32_t)geteuid();
    uint32_t gid = cfg->gid != ZC_ID_UNSET ? cfg->gid
                   : o.gid != ZC_ID_UNSET  ? o.gid
                                           : (uint32_t)getegid();
    *out = (struct zc_node){
        .id = vfs_node(d->id, index),
        .generation = d->serial,
        .ino = zc_hash64(d->path_hash, e->name, e->name_len),
        .kind = is_dir ? ZC_KIND_DIR : ZC_KIND_FILE,
        .size = e->size,
        .mtime_ns = e->mtime_ns,
        .mode = mode,
        .uid = uid,
        .gid = gid,
        .valid_ns =
            vfs_valid_ns(v, d, d->state == VFS_LISTED ? ZC_MAX(d->listed_s, checked_s) : checked_s),
    };
}

/* ------------------------------------------------------------------ the table of directories */

static struct vfs_dir *dir_new(char *path, struct zc_vfs_source *src)
{
    struct vfs_dir *d = path ? calloc(1, sizeof(*d)) : NULL;
    if (!d) {
        free(path);
        return NULL;
    }
    d->path = path;
    d->src = src;
    d->path_hash = zc_hash64(src ? src->at_hash : 0, path, strlen(path));
    if (!src)
        d->state = VFS_LISTED; /* what is synthetic is all there is */
    pthread_mutex_init(&d->lock, NULL);
    zc_list_init(&d->waiters);
    return d;
}

static void dir_free(struct zc_vfs *v, struct vfs_dir *d)
{
    struct vfs_arena *a = d->arena;
    while (a) {
        struct vfs_arena *next = a->next;
        free(a);
        a = next;
    }
    atomic_fetch_sub(&v->entries, d->n);
    atomic_fetch_sub(&v->dirs_live, 1);
    free(d->entries);
    free(d->index);
    free(d->path);
    pthread_mutex_destroy(&d->lock);
    free(d);
}

/* Gives the directory a number. Under the write lock. */
static int dir_enter(struct zc_vfs *v, struct vfs_dir *d)
{
    if (v->free_n) {
        d->id = v->free_ids[--v->free_n];
    } else {
        if (v->dirs_n == v->dirs_cap) {
            uint32_t cap = v->dirs_cap ? v->dirs_cap * 2 : 64;
            struct vfs_dir **dirs = realloc(v->dirs, cap * sizeof(*dirs));
            if (!dirs)
                return -ENOMEM;
            v->dirs = dirs;
            uint32_t *ids = realloc(v->free_ids, cap * sizeof(*ids));
            if (!ids)
                return -ENOMEM;
            v->free_ids = ids;
            v->dirs_cap = cap;
        }
        d->id = v->dirs_n++;
    }
    d->serial = ++v->serials;
    atomic_fetch_add(&v->epoch, 1);
    v->dirs[d->id] = d;
    atomic_fetch_add(&v->dirs_live, 1);
    return 0;
}

int vfs_dirs_init(struct zc_vfs *v)
{
    struct vfs_dir *root = dir_new(strdup(""), NULL);
    if (!root)
        return -ENOMEM;
    v->dirs_n = VFS_ROOT_DIR; /* number 0 is nobody's */
    v->dirs_cap = 64;
    v->dirs = calloc(v->dirs_cap, sizeof(*v->dirs));
    v->free_ids = calloc(v->dirs_cap, sizeof(*v->free_ids));
    if (!v->dirs || !v->free_ids) {
        dir_free(v, root);
        return -ENOMEM;
    }
    v->root = root;
    return dir_enter(v, root);
}

void vfs_dirs_free(struct zc_vfs *v)
{
    for (uint32_t i = 0; i < v->dirs_n; i++) {
        if (v->dirs[i])
            dir_free(v, v->dirs[i]);
    }
    free(v->dirs);
    free(v->free_ids);
}

struct vfs_dir *vfs_dir_parent(struct zc_vfs *v, struct vfs_dir *d)
{
    pthread_rwlock_rdlock(&v->lock);
    struct vfs_dir *parent = v->dirs[d->parent];
    pthread_rwlock_unlock(&v->lock);
    return parent;
}

char *vfs_mount_path(const struct vfs_dir *d, const char *name)
{
    const char *part[3] = {d->src ? d->src->at : "", d->path, name ? name : ""};
    char *path = malloc(strlen(part[0]) + strlen(part[1]) + strlen(part[2]) + 3), *p = path;
    for (size_t i = 0; path && i < ZC_ARRAY_SIZE(part); i++) {
        if (*part[i] && p != path)
            *p++ = '/';
        p = stpcpy(p, part[i]);
    }
    return path;
}

/* ------------------------------------------------------------------ synthetic ones */

struct vfs_dir *vfs_dir_make(struct zc_vfs *v, struct vfs_dir *parent, const char *name,
                             struct zc_vfs_source *src)
{
    struct zc_attr attr = vfs_root_attr(v, src, NULL);
    attr.mtime_ns = zc_wall_ns();
    uint32_t index;
    struct vfs_dir *d = dir_new(src ? strdup("") : vfs_entry_path(parent, name), src);
    if (!d)
        return NULL;
    pthread_rwlock_wrlock(&v->lock);
    pthread_mutex_lock(&parent->lock);
    int r = dir_enter(v, d);
    if (r == 0) {
        r = vfs_dir_merge(v, parent, name, &attr, &index);
        if (r < 0) {
            v->dirs[d->id] = NULL;
            v->free_ids[v->free_n++] = d->id;
        }
    } else {
        atomic_fetch_add(&v->dirs_live, 1); /* dir_free takes it off again */
    }
    if (r == 0) {
        d->parent = parent->id;
        d->parent_index = index;
        parent->entries[index].child = d->id;
        atomic_fetch_add(&parent->children, 1);
        vfs_dir_pin(d);
    }
    pthread_mutex_unlock(&parent->lock);
    pthread_rwlock_unlock(&v->lock);
    if (r < 0) {
        dir_free(v, d);
        return NULL;
    }
    return d;
}

struct vfs_dir *vfs_dir_child(struct zc_vfs *v, struct vfs_dir *parent, const char *name)
{
    struct vfs_dir *d = NULL;
    pthread_rwlock_rdlock(&v->lock);
    pthread_mutex_lock(&parent->lock);
    uint32_t i = vfs_dir_find(parent, name);
    if (i != UINT32_MAX)
        d = v->dirs[parent->entries[i].child]; /* pinned as long as it is not unmade */
    pthread_mutex_unlock(&parent->lock);
    pthread_rwlock_unlock(&v->lock);
    return d;
}

bool vfs_dir_unmake(struct zc_vfs *v, struct vfs_dir *d)
{
    struct vfs_dir *parent = vfs_dir_parent(v, d);
    pthread_mutex_lock(&parent->lock);
    vfs_dir_mark_gone(v, parent, d->parent_index);
    bool empty = parent->live == 0;
    pthread_mutex_unlock(&parent->lock);
    vfs_dir_unpin(v, d);
    return empty;
}

/* ------------------------------------------------------------------ nodes to directories */

void vfs_dir_pin(struct vfs_dir *d)
{
    atomic_fetch_add(&d->pins, 1);
}

struct vfs_dir *vfs_dir_holding(struct zc_vfs *v, uint64_t node, uint32_t *index)
{
    uint32_t id = (uint32_t)(node >> 32);
    struct vfs_dir *d = NULL;
    pthread_rwlock_rdlock(&v->lock);
    if (id < v->dirs_n && v->dirs[id]) {
        d = v->dirs[id];
        vfs_dir_pin(d);
    }
    pthread_rwlock_unlock(&v->lock);
    *index = (uint32_t)node;
    return d;
}

struct vfs_dir *vfs_dir_of_node(struct zc_vfs *v, uint64_t node)
{
    struct vfs_dir *d = NULL;
    uint32_t index;

    if (node == ZC_NODE_ROOT) {
        pthread_rwlock_rdlock(&v->lock);
        d = v->dirs[VFS_ROOT_DIR];
        vfs_dir_pin(d);
        pthread_rwlock_unlock(&v->lock);
        return d;
    }
    struct vfs_dir *parent = vfs_dir_holding(v, node, &index);
    if (!parent)
        return NULL;
    char *path = NULL;
    pthread_mutex_lock(&parent->lock);
    bool is_dir = index < parent->n && (parent->entries[index].flags & VFS_DIR);
    uint32_t child = is_dir ? parent->entries[index].child : 0;
    if (is_dir && !child && parent->src)
        path = vfs_entry_path(parent, parent->entries[index].name);
    pthread_mutex_unlock(&parent->lock);

    if (child) {
        pthread_rwlock_rdlock(&v->lock);
        d = child < v->dirs_n ? v->dirs[child] : NULL;
        /* It may have been dropped, and its number given away, since the look at the parent. */
        if (d && d->parent == parent->id && d->parent_index == index)
            vfs_dir_pin(d);
        else
            d = NULL;
        pthread_rwlock_unlock(&v->lock);
        if (!d) {
            vfs_dir_unpin(v, parent);
            return vfs_dir_of_node(v, node);
        }
    } else if (path) {
        struct vfs_dir *fresh = dir_new(path, parent->src);
        pthread_rwlock_wrlock(&v->lock);
        pthread_mutex_lock(&parent->lock);
        child = parent->entries[index].child;
        if (child) {
            d = v->dirs[child];
        } else if (fresh && dir_enter(v, fresh) == 0) {
            d = zc_steal_ptr(&fresh);
            d->parent = parent->id;
            d->parent_index = index;
            parent->entries[index].child = d->id;
            atomic_fetch_add(&parent->children, 1);
        }
        if (d)
            vfs_dir_pin(d);
        pthread_mutex_unlock(&parent->lock);
        pthread_rwlock_unlock(&v->lock);
        if (fresh) {
            atomic_fetch_add(&v->dirs_live, 1); /* dir_free takes it off again */
            dir_free(v, fresh);
        }
    }
    vfs_dir_unpin(v, parent);
    return d;
}

static bool dir_unneeded(struct vfs_dir *d)
{
    return d->id != VFS_ROOT_DIR && atomic_load(&d->pins) == 0 && atomic_load(&d->krefs) == 0 &&
           atomic_load(&d->children) == 0;
}

void vfs_dir_unpin(struct zc_vfs *v, struct vfs_dir *d)
{
    uint32_t id = d->id;
    bool maybe = atomic_load(&v->entries) > VFS_KEEP_ENTRIES && atomic_load(&d->krefs) == 0;
    atomic_fetch_sub(&d->pins, 1);
    if (!maybe)
        return;
    pthread_rwlock_wrlock(&v->lock);
    d = v->dirs[id];
    if (d && dir_unneeded(d)) {
        struct vfs_dir *parent = v->dirs[d->parent];
        pthread_mutex_lock(&parent->lock);
        parent->entries[d->parent_index].child = 0;
        pthread_mutex_unlock(&parent->lock);
        atomic_fetch_sub(&parent->children, 1);
        v->dirs[id] = NULL;
        v->free_ids[v->free_n++] = id;
        dir_free(v, d);
    }
    pthread_rwlock_unlock(&v->lock);
}
