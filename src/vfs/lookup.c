/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Lookups. A fresh listing answers at once, yes; and no, as long as it is younger than the time for
 * which a missing name is believed. Otherwise: the first name asked for in a directory is asked for
 * alone, the second one makes it a listing, and so does the first one after a listing whose time is
 * over. In a directory that is known to be big, or that turns out big while it is being listed,
 * names are always asked for alone. When that has cost about as much as a listing would, one is
 * made for those that come after, and nobody waits for it.
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

/* How long it is to be believed that a name is missing, which the store said at said_s. */
static int64_t lookup_negative_ns(struct zc_vfs *v, const struct vfs_dir *d, uint32_t said_s)
{
    if (!d->src)
        return 0; /* a source may come there */
    int64_t valid = vfs_valid_ns(v, d, said_s), negative = d->src->cfg.negative_ttl_ns;
    if (negative < 0 || negative == ZC_TTL_INDEFINITE)
        return valid;
    negative -= (int64_t)(vfs_now_s(v) - said_s) * ZC_NS_PER_S;
    return ZC_MIN(valid, ZC_MAX(negative, (int64_t)0));
}

bool vfs_dir_knows(struct zc_vfs *v, struct vfs_dir *d, const char *name)
{
    if (!d->src)
        return true;
    uint32_t i = vfs_dir_find(d, name);
    if (i != UINT32_MAX)
        return vfs_dir_fresh(v, d) || vfs_fresh(v, d, d->entries[i].checked_s);
    return d->state == VFS_LISTED && lookup_negative_ns(v, d, d->listed_s) > 0;
}

enum lookup_way { LOOKUP_LIST, LOOKUP_ALONE, LOOKUP_BOTH };

/* How to ask for a name. A name costs a store two requests, a listing one for each thousand names:
   about as much is spent on names alone before a listing. Under d->lock. */
static enum lookup_way lookup_way(struct zc_vfs *v, struct vfs_dir *d)
{
    if (d->src->cfg.ttl_ns == 0)
        return LOOKUP_ALONE;
    bool big = d->live > VFS_BIG_DIR;
    if (d->listing)
        return big ? LOOKUP_ALONE : LOOKUP_LIST;
    if (d->state == VFS_UNLISTED && v->cfg.keep_listings && !d->tried_index)
        return LOOKUP_LIST; /* it may be in the index */
    if (d->state == VFS_LISTED && !big && !vfs_dir_fresh(v, d))
        return LOOKUP_LIST;
    if (d->singles <= d->live / VFS_NAMES_A_SINGLE) {
        d->singles++;
        return LOOKUP_ALONE;
    }
    return big ? LOOKUP_BOTH : LOOKUP_LIST;
}

/* The answer that the table has now. Under d->lock. */
static int lookup_answer(struct zc_vfs *v, struct vfs_dir *d, const char *name,
                         struct zc_node *node)
{
    uint32_t i = vfs_dir_find(d, name);
    if (i == UINT32_MAX) {
        *node = (struct zc_node){.valid_ns = lookup_negative_ns(v, d, d->listed_s)};
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

/* An error that says nothing about the name. */
static bool lookup_away(int err)
{
    return err != -EACCES && err != -ESHUTDOWN && err != -ECANCELED;
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
        node.valid_ns = lookup_negative_ns(v, d, vfs_now_s(v));
    } else if (known == UINT32_MAX && vfs_dir_fresh(v, d) && lookup_away(err)) {
        /* The store cannot be reached: its last listing, without this name, still stands. */
        node.valid_ns = ZC_NS_PER_S;
        err = -ENOENT;
    } else if (known != UINT32_MAX && lookup_away(err)) {
        /* Likewise what it said of the name. */
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
    bool answered = true, again = false;
    enum lookup_way way = LOOKUP_LIST;
    int err = 0;
    if (vfs_dir_removed(d)) {
        err = -ESTALE;
    } else if (vfs_dir_knows(v, d, name)) {
        err = lookup_answer(v, d, name, &node);
    } else {
        answered = false;
        again = vfs_dir_fresh(v, d);
        way = lookup_way(v, d);
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
        l->stat = (struct zc_stat_req){
            .base = {.prio = ZC_PRIO_DEMAND,
                     .deadline_ns = again ? zc_now_ns() + VFS_AGAIN_DEADLINE : 0},
            .done = lookup_stat_done,
        };
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
    if (way == LOOKUP_BOTH)
        vfs_list(v, d, NULL);
    if (way != LOOKUP_LIST) {
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
