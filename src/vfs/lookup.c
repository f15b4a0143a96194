/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups. A fresh listing answers at once, yes or no. Otherwise: the first name asked for in a
 * directory is asked for alone, the second one makes it a listing; in a directory that is known to
 * be big, or that turns out big while it is being listed, names are always asked for alone.
 */
#include "vfs/internal.h"

#include <errno.h>
#include <string.h>

struct lookup {
    struct vfs_op op;
    struct vfs_wait wait;
    struct zc_stat_req stat;
    struct zc_vfs *v;
    struct vfs_dir *d; /* pinned */
    char *path;
    zc_vfs_lookup_fn *fn;
    void *user;
    char name[];
};

static int64_t lookup_negative_ns(const struct vfs_dir *d, int64_t valid)
{
    if (!d->src)
        return 0; /* a source may come there */
    return d->src->cfg.negative_ttl_ns >= 0 ? ZC_MIN(valid, d->src->cfg.negative_ttl_ns) : valid;
}

/* The answer that the table has now. Under d->lock. */
static int lookup_answer(struct zc_vfs *v, struct vfs_dir *d, const char *name,
                         struct zc_node *node)
{
    uint32_t i = vfs_dir_find(d, name);
    if (i == UINT32_MAX) {
        *node =
            (struct zc_node){.valid_ns = lookup_negative_ns(d, vfs_valid_ns(v, d, d->listed_s))};
        return -ENOENT;
    }
    vfs_entry_node(v, d, i, node);
    atomic_fetch_add(&d->krefs, 1);
    return 0;
}

static void lookup_reply(struct lookup *l, int err, const struct zc_node *node)
{
    l->fn(l->user, vfs_dir_error(l->d, err), node);
    vfs_dir_unpin(l->v, l->d);
    vfs_op_end(l->v, &l->op);
    free(l->path);
    free(l);
}

static void lookup_stat_done(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct lookup *l = zc_container_of(req, struct lookup, stat);
    struct zc_vfs *v = l->v;
    struct vfs_dir *d = l->d;
    struct zc_node node = {0};
    uint32_t index;

    pthread_mutex_lock(&d->lock);
    uint32_t known = vfs_dir_find(d, l->name);
    if (err == 0) {
        err = vfs_dir_merge(v, d, l->name, attr, &index);
        if (err == 0) {
            if (!d->listing)
                d->entries[index].flags &= (uint16_t)~VFS_SEEN;
            vfs_entry_node(v, d, index, &node);
            atomic_fetch_add(&d->krefs, 1);
        }
    } else if (err == -ENOENT) {
        if (known != UINT32_MAX)
            vfs_dir_mark_gone(v, d, known);
        node.valid_ns = lookup_negative_ns(d, d->src->cfg.ttl_ns);
    } else if (known != UINT32_MAX && err != -EACCES && err != -ESHUTDOWN && err != -ECANCELED) {
        /* The store cannot be reached: what it said last still stands. */
        vfs_entry_node(v, d, known, &node);
        node.valid_ns = ZC_NS_PER_S;
        atomic_fetch_add(&d->krefs, 1);
        err = 0;
    }
    pthread_mutex_unlock(&d->lock);
    lookup_reply(l, err, &node);
}

static void lookup_alone(struct lookup *l)
{
    l->path = vfs_entry_path(l->d, l->name);
    if (!l->path) {
        lookup_reply(l, -ENOMEM, NULL);
        return;
    }
    l->stat.path = l->path;
    zc_backend_stat(l->d->src->cfg.be, &l->stat);
}

static void lookup_listed(struct vfs_wait *w, int err)
{
    struct lookup *l = zc_container_of(w, struct lookup, wait);
    struct zc_node node = {0};
    if (err == 0) {
        pthread_mutex_lock(&l->d->lock);
        err = lookup_answer(l->v, l->d, l->name, &node);
        pthread_mutex_unlock(&l->d->lock);
    }
    lookup_reply(l, err, &node);
}

void zc_vfs_lookup(struct zc_vfs *v, uint64_t parent, const char *name, zc_vfs_lookup_fn *fn,
                   void *user)
{
    struct zc_node node = {0};
    size_t len = strlen(name);
    atomic_fetch_add_explicit(&v->lookups, 1, memory_order_relaxed);
    if (len > 255) {
        fn(user, -ENAMETOOLONG, NULL);
        return;
    }
    struct vfs_dir *d = vfs_dir_of_node(v, parent);
    if (!d) {
        fn(user, -ENOTDIR, NULL);
        return;
    }
    pthread_mutex_lock(&d->lock);
    bool answered = vfs_dir_fresh(v, d), alone = false;
    int err = 0;
    if (vfs_dir_removed(d)) {
        answered = true;
        err = -ESTALE;
    } else if (answered) {
        err = lookup_answer(v, d, name, &node);
    } else {
        uint32_t i = vfs_dir_find(d, name);
        if (i != UINT32_MAX && vfs_fresh(v, d, d->entries[i].checked_s)) {
            answered = true;
            err = lookup_answer(v, d, name, &node);
        } else if (d->src->cfg.ttl_ns == 0 || d->live > VFS_BIG_DIR) {
            alone = true;
        } else if (d->state == VFS_UNLISTED && !d->listing && d->singles == 0 &&
                   !(v->cfg.keep_listings && !d->tried_index)) {
            alone = true;
            d->singles++;
        }
    }
    pthread_mutex_unlock(&d->lock);
    if (answered) {
        struct zc_vfs_source *s =
            err == 0 && !d->src ? vfs_source_at(v, d, (uint32_t)node.id) : NULL;
        if (s)
            node.valid_ns = ZC_MIN(node.valid_ns, vfs_root_valid_ns(v, s));
        fn(user, err, &node);
        vfs_dir_unpin(v, d);
        return;
    }
    struct lookup *l = calloc(1, sizeof(*l) + len + 1);
    if (l) /* before a cancel can come */
        l->stat = (struct zc_stat_req){.base = {.prio = ZC_PRIO_DEMAND}, .done = lookup_stat_done};
    err = l ? vfs_op_begin(v, &l->op, d->src, &l->stat.base) : -ENOMEM;
    if (err < 0) {
        vfs_dir_unpin(v, d);
        free(l);
        fn(user, err, NULL);
        return;
    }
    memcpy(l->name, name, len + 1);
    l->v = v;
    l->d = d;
    l->fn = fn;
    l->user = user;
    if (alone) {
        lookup_alone(l);
        return;
    }
    l->wait.name = l->name;
    l->wait.done = lookup_listed;
    vfs_list(v, d, &l->wait);
}

void zc_vfs_forget(struct zc_vfs *v, uint64_t node, uint64_t n)
{
    uint32_t index;
    if (node == ZC_NODE_ROOT)
        return;
    struct vfs_dir *d = vfs_dir_holding(v, node, &index);
    if (!d)
        return;
    atomic_fetch_sub(&d->krefs, n);
    vfs_dir_unpin(v, d);
}
