/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings: one at a time for each directory, page by page, merged into the table as they come.
 * Everybody who needs the listing waits in one queue; a lookup is answered as soon as its name has
 * come by.
 *
 * When the store cannot be reached, a listing that is too old is better than none: its files are
 * pinned to versions, so what is read of them is right or ESTALE. It then counts as fresh for a few
 * seconds more.
 */
#include "base/log.h"
#include "vfs/internal.h"

#include <errno.h>
#include <string.h>

/* How long an outdated listing may be used again after the store failed. */
#define LIST_STALE_OK_S 10

struct listing {
    struct vfs_op op;
    struct zc_list_req req;
    struct zc_vfs *v;
    struct vfs_dir *d; /* pinned */
    char *token;
    bool again; /* the directory has been listed before */
};

uint32_t vfs_now_s(struct zc_vfs *v)
{
    return (uint32_t)((zc_now_ns() - v->start_ns) / ZC_NS_PER_S) + 1;
}

int64_t vfs_valid_ns(struct zc_vfs *v, const struct vfs_dir *d, uint32_t checked_s)
{
    if (!d->src)
        return VFS_SYNTHETIC_NS;
    if (d->src->cfg.ttl_ns == ZC_TTL_INDEFINITE)
        return ZC_TTL_INDEFINITE;
    int64_t age = (int64_t)(vfs_now_s(v) - checked_s) * ZC_NS_PER_S;
    return ZC_MAX(d->src->cfg.ttl_ns - age, (int64_t)0);
}

bool vfs_fresh(struct zc_vfs *v, const struct vfs_dir *d, uint32_t checked_s)
{
    return vfs_valid_ns(v, d, checked_s) > 0;
}

bool vfs_dir_fresh(struct zc_vfs *v, struct vfs_dir *d)
{
    return d->state == VFS_LISTED && vfs_fresh(v, d, d->listed_s);
}

int vfs_op_begin(struct zc_vfs *v, struct vfs_op *op, struct zc_vfs_source *src, struct zc_req *req)
{
    op->src = src;
    op->req = req;
    pthread_mutex_lock(&v->ops_lock);
    int r = atomic_load(&v->ending) ? -ESHUTDOWN : src && src->removed ? -ESTALE : 0;
    if (r == 0) {
        zc_list_push_back(&v->ops, &op->link);
        if (src)
            src->ops++;
    }
    pthread_mutex_unlock(&v->ops_lock);
    return r;
}

void vfs_op_end(struct zc_vfs *v, struct vfs_op *op)
{
    pthread_mutex_lock(&v->ops_lock);
    zc_list_del(&op->link);
    bool idle = op->src && --op->src->ops == 0;
    if (idle || zc_list_empty(&v->ops))
        pthread_cond_broadcast(&v->ops_idle);
    pthread_mutex_unlock(&v->ops_lock);
}

void vfs_ops_cancel(struct zc_vfs *v, const struct zc_vfs_source *src)
{
    pthread_mutex_lock(&v->ops_lock);
    zc_list_for_each (it, &v->ops) {
        struct vfs_op *op = zc_list_entry(it, struct vfs_op, link);
        if (op->req && (!src || op->src == src))
            zc_backend_cancel(op->src->cfg.be, op->req);
    }
    pthread_mutex_unlock(&v->ops_lock);
}

void vfs_ops_wait(struct zc_vfs *v, const struct zc_vfs_source *src)
{
    pthread_mutex_lock(&v->ops_lock);
    while (src ? src->ops > 0 : !zc_list_empty(&v->ops))
        pthread_cond_wait(&v->ops_idle, &v->ops_lock);
    pthread_mutex_unlock(&v->ops_lock);
}

static void listing_wake(struct zc_list *ready, int err)
{
    struct zc_list *it;
    while ((it = zc_list_pop_front(ready))) {
        struct vfs_wait *w = zc_list_entry(it, struct vfs_wait, link);
        w->done(w, err);
    }
}

static void listing_end(struct listing *l, int err)
{
    struct zc_vfs *v = l->v;
    struct vfs_dir *d = l->d;
    struct zc_list ready = ZC_LIST_INIT(ready);

    pthread_mutex_lock(&d->lock);
    if (err == 0 || err == -ENOENT) {
        /* -ENOENT: the directory is gone, and all its names with it. */
        vfs_dir_sweep(v, d);
        d->state = VFS_LISTED;
        d->listed_s = vfs_now_s(v);
        err = 0;
    } else if (d->state == VFS_LISTED && err != -EACCES && err != -ESHUTDOWN && err != -ECANCELED) {
        zc_warn("%s/%s: the listing could not be renewed (%s); the old one is used",
                d->src->cfg.be->url, d->path,
                l->req.base.err.text[0] ? l->req.base.err.text : strerror(-err));
        uint32_t now = vfs_now_s(v);
        uint32_t ttl = (uint32_t)ZC_MIN(d->src->cfg.ttl_ns / ZC_NS_PER_S, (int64_t)UINT32_MAX);
        uint32_t keep = ZC_MIN(ttl, (uint32_t)LIST_STALE_OK_S);
        d->listed_s = ZC_MAX(d->listed_s, now + keep > ttl ? now + keep - ttl : 1);
        err = 0;
    }
    d->listing = false;
    d->singles = 0;
    zc_list_splice(&ready, &d->waiters);
    pthread_mutex_unlock(&d->lock);
    if (err == 0)
        vfs_persist(v, d);
    listing_wake(&ready, err);
    free(l->token);
    vfs_dir_unpin(v, d);
    vfs_op_end(v, &l->op);
    free(l);
}

static void listing_page(struct zc_list_req *req, int err, const struct zc_entry *entries, size_t n,
                         const char *next_token, unsigned skipped)
{
    struct listing *l = zc_container_of(req, struct listing, req);
    struct zc_vfs *v = l->v;
    struct vfs_dir *d = l->d;
    struct zc_list ready = ZC_LIST_INIT(ready);
    uint32_t index;

    if (err < 0) {
        listing_end(l, err);
        return;
    }
    atomic_fetch_add(&v->hidden, skipped);
    pthread_mutex_lock(&d->lock);
    for (size_t i = 0; i < n && err == 0; i++)
        err = vfs_dir_merge(v, d, entries[i].name, &entries[i].attr, &index);
    d->pages++;
    if (err == 0 && next_token) {
        /* Names that came by need not wait for the rest. (Another page may still turn a file into a
           directory; the listing as a whole then corrects it.) */
        zc_list_for_each_safe (it, tmp, &d->waiters) {
            struct vfs_wait *w = zc_list_entry(it, struct vfs_wait, link);
            if (w->name && (index = vfs_dir_find(d, w->name)) != UINT32_MAX &&
                (d->entries[index].flags & VFS_SEEN)) {
                zc_list_del(it);
                zc_list_push_back(&ready, it);
            }
        }
    }
    pthread_mutex_unlock(&d->lock);
    listing_wake(&ready, 0);
    if (err == 0 && next_token && l->token && strcmp(next_token, l->token) == 0) {
        zc_warn("%s: the store goes on with the same page for ever", d->path);
        err = -EBADMSG;
    }
    if (err < 0 || !next_token) {
        listing_end(l, err);
        return;
    }
    char *token = strdup(next_token);
    if (!token || atomic_load(&v->ending)) {
        int r = token ? -ESHUTDOWN : -ENOMEM;
        free(token);
        listing_end(l, r);
        return;
    }
    free(l->token);
    l->token = token;
    l->req.token = token;
    if (l->again) /* there may be hundreds of pages */
        l->req.base.deadline_ns = zc_now_ns() + VFS_AGAIN_DEADLINE;
    memset(l->req.base.priv, 0,
           sizeof(l->req.base.priv)); /* a new request, but for its cancelled flag */
    zc_backend_list(d->src->cfg.be, &l->req);
}

static int listing_start(struct zc_vfs *v, struct vfs_dir *d, bool again)
{
    struct listing *l = calloc(1, sizeof(*l));
    if (!l)
        return -ENOMEM;
    l->req = (struct zc_list_req){
        /* before a cancel can come */
        .base = {.prio = ZC_PRIO_DEMAND,
                 .deadline_ns = again ? zc_now_ns() + VFS_AGAIN_DEADLINE : 0},
        .path = d->path,
        .done = listing_page,
    };
    int r = vfs_op_begin(v, &l->op, d->src, &l->req.base);
    if (r < 0) {
        free(l);
        return r;
    }
    vfs_dir_pin(d);
    l->v = v;
    l->d = d;
    l->again = again;
    atomic_fetch_add(&v->listings, 1);
    atomic_fetch_add(&d->src->listings, 1);
    zc_backend_list(d->src->cfg.be, &l->req);
    return 0;
}

void vfs_list(struct zc_vfs *v, struct vfs_dir *d, struct vfs_wait *w)
{
    pthread_mutex_lock(&d->lock);
    bool restore =
        d->state == VFS_UNLISTED && !d->tried_index && !d->listing && v->cfg.keep_listings;
    d->tried_index = true;
    pthread_mutex_unlock(&d->lock);
    if (restore)
        vfs_restore(v, d);

    pthread_mutex_lock(&d->lock);
    if (w && !d->listing && (w->name ? vfs_dir_knows(v, d, w->name) : vfs_dir_fresh(v, d))) {
        pthread_mutex_unlock(&d->lock);
        w->done(w, 0);
        return;
    }
    if (w)
        zc_list_push_back(&d->waiters, &w->link);
    bool start = !d->listing, again = d->state == VFS_LISTED;
    if (start) {
        d->listing = true;
        d->pages = 0;
        for (uint32_t i = 0; i < d->n; i++)
            d->entries[i].flags &= (uint16_t)~VFS_SEEN;
    }
    pthread_mutex_unlock(&d->lock);
    if (!start)
        return;
    int r = listing_start(v, d, again);
    if (r < 0) {
        struct zc_list failed = ZC_LIST_INIT(failed);
        pthread_mutex_lock(&d->lock);
        d->listing = false;
        zc_list_splice(&failed, &d->waiters);
        pthread_mutex_unlock(&d->lock);
        listing_wake(&failed, r);
    }
}
