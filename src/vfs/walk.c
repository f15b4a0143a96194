/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Walks all files below some paths, with several directories being listed at a time, since a
 * listing costs a round trip and a data set has thousands of them. Depth first, so that few
 * directories are held.
 */
#include "vfs/internal.h"

#include <errno.h>
#include <string.h>

#define WALK_AHEAD 16 /* listings under way at a time */

struct walk;

struct walk_dir {
    struct vfs_wait wait;
    struct zc_list link; /* walk->todo, then walk->ready */
    struct walk *walk;
    struct vfs_dir *d; /* pinned */
    int err;
};

struct walk {
    struct zc_vfs *v;
    const struct vfs_walk_ops *ops;
    void *user;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct zc_list todo, ready;
    unsigned listing;
};

static void walk_listed(struct vfs_wait *w, int err)
{
    struct walk_dir *wd = zc_container_of(w, struct walk_dir, wait);
    struct walk *k = wd->walk;
    pthread_mutex_lock(&k->lock);
    wd->err = vfs_dir_error(wd->d, err);
    k->listing--;
    zc_list_push_back(&k->ready, &wd->link);
    pthread_cond_signal(&k->cond);
    pthread_mutex_unlock(&k->lock);
}

static int walk_push(struct walk *k, uint64_t node)
{
    struct vfs_dir *d = vfs_dir_of_node(k->v, node);
    struct walk_dir *wd = d ? calloc(1, sizeof(*wd)) : NULL;
    if (!wd) {
        if (d)
            vfs_dir_unpin(k->v, d);
        return -ENOMEM;
    }
    wd->walk = k;
    wd->d = d;
    wd->wait.done = walk_listed;
    zc_list_push_front(&k->todo, &wd->link);
    return 0;
}

static int walk_entries(struct walk *k, struct vfs_dir *d)
{
    int r = 0;
    pthread_mutex_lock(&d->lock);
    uint32_t n = d->n;
    pthread_mutex_unlock(&d->lock);
    for (uint32_t i = 0; i < n && r == 0; i++) {
        pthread_mutex_lock(&d->lock);
        uint16_t flags = d->entries[i].flags;
        uint64_t size = d->entries[i].size;
        pthread_mutex_unlock(&d->lock);
        if (flags & VFS_GONE)
            continue;
        r = flags & VFS_DIR ? walk_push(k, vfs_node(d->id, i)) : k->ops->file(k->user, d, i, size);
    }
    return r;
}

static void walk_drop(struct walk *k, struct walk_dir *wd)
{
    vfs_dir_unpin(k->v, wd->d);
    free(wd);
}

/* Lists and visits until nothing is left, or until an error, after which it only waits for what was
 * begun. */
static int walk_run(struct walk *k)
{
    int r = 0;
    for (;;) {
        struct zc_list *it;
        pthread_mutex_lock(&k->lock);
        while (r == 0 && k->listing < WALK_AHEAD && (it = zc_list_pop_front(&k->todo))) {
            k->listing++;
            pthread_mutex_unlock(&k->lock);
            struct walk_dir *wd = zc_list_entry(it, struct walk_dir, link);
            vfs_list(k->v, wd->d, &wd->wait);
            pthread_mutex_lock(&k->lock);
        }
        while (zc_list_empty(&k->ready) && k->listing)
            pthread_cond_wait(&k->cond, &k->lock);
        it = zc_list_pop_front(&k->ready);
        pthread_mutex_unlock(&k->lock);
        if (!it) /* nothing ready, nothing under way: todo is empty, or an error ends the walk */
            break;
        struct walk_dir *wd = zc_list_entry(it, struct walk_dir, link);
        if (wd->err < 0) {
            zc_autofree char *path = vfs_mount_path(wd->d, NULL);
            k->ops->failed(k->user, path ? path : "?", wd->err);
        } else if (r == 0) {
            r = walk_entries(k, wd->d);
        }
        walk_drop(k, wd);
    }
    struct zc_list *it;
    while ((it = zc_list_pop_front(&k->todo)))
        walk_drop(k, zc_list_entry(it, struct walk_dir, link));
    return r;
}

/* ------------------------------------------------------------------ the paths */

struct walk_lookup {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int err;
    struct zc_node node;
};

static void walk_looked_up(void *user, int err, const struct zc_node *node)
{
    struct walk_lookup *l = user;
    pthread_mutex_lock(&l->lock);
    l->err = err;
    if (err == 0)
        l->node = *node;
    l->done = true;
    pthread_cond_signal(&l->cond);
    pthread_mutex_unlock(&l->lock);
}

static int walk_lookup_sync(struct zc_vfs *v, uint64_t parent, const char *name,
                            struct zc_node *node)
{
    struct walk_lookup l = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    zc_vfs_lookup(v, parent, name, walk_looked_up, &l);
    pthread_mutex_lock(&l.lock);
    while (!l.done)
        pthread_cond_wait(&l.cond, &l.lock);
    pthread_mutex_unlock(&l.lock);
    *node = l.node;
    return l.err;
}

static int walk_path(struct walk *k, const char *path)
{
    struct zc_node node = {.id = ZC_NODE_ROOT, .kind = ZC_KIND_DIR};
    zc_autofree char *copy = strdup(path);
    char *save = NULL;
    int r = 0;
    if (!copy)
        return -ENOMEM;
    for (char *name = strtok_r(copy, "/", &save); name && r == 0;
         name = strtok_r(NULL, "/", &save)) {
        if (strcmp(name, ".") == 0)
            continue;
        struct zc_node next = {0};
        r = node.kind == ZC_KIND_DIR ? walk_lookup_sync(k->v, node.id, name, &next) : -ENOTDIR;
        zc_vfs_forget(k->v, node.id, 1);
        node = next;
    }
    if (r < 0) {
        k->ops->failed(k->user, path, r);
        return 0;
    }
    if (node.kind == ZC_KIND_DIR) {
        r = walk_push(k, node.id);
    } else {
        uint32_t index;
        struct vfs_dir *d = vfs_dir_holding(k->v, node.id, &index);
        r = d ? k->ops->file(k->user, d, index, node.size) : -ESTALE;
        if (d)
            vfs_dir_unpin(k->v, d);
    }
    zc_vfs_forget(k->v, node.id, 1);
    return r;
}

int vfs_walk(struct zc_vfs *v, const char *const *paths, size_t n, const struct vfs_walk_ops *ops,
             void *user)
{
    struct walk k = {.v = v,
                     .ops = ops,
                     .user = user,
                     .lock = PTHREAD_MUTEX_INITIALIZER,
                     .cond = PTHREAD_COND_INITIALIZER};
    zc_list_init(&k.todo);
    zc_list_init(&k.ready);
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++) {
        r = walk_path(&k, paths[i]);
        if (r == 0)
            r = walk_run(&k);
    }
    if (r < 0) {
        struct zc_list *it;
        while ((it = zc_list_pop_front(&k.todo)))
            walk_drop(&k, zc_list_entry(it, struct walk_dir, link));
    }
    return r;
}
