/* SPDX-License-Identifier: Apache-2.0 */
/* The mode of open nodes, and their backing files in the kernel. */
#include "base/log.h"
#include "fuse/internal.h"

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

/* linux/fuse.h, since 6.9; the headers of older systems lack it. */
#ifndef FUSE_DEV_IOC_BACKING_CLOSE
#define FUSE_DEV_IOC_BACKING_CLOSE _IOW(229, 2, uint32_t)
#endif

void fnodes_init(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_BUCKETS; i++) {
        pthread_mutex_init(&f->buckets[i].lock, NULL);
        zc_list_init(&f->buckets[i].list);
    }
    pthread_mutex_init(&f->idle_lock, NULL);
    zc_list_init(&f->idle);
}

static struct fnode_bucket *fnode_bucket(struct zc_fuse *f, uint64_t node)
{
    /* Fibonacci hashing (Knuth, The Art of Computer Programming 3, 6.4): numbers of directories and
       of places in them are small. */
    return &f->buckets[(node * 0x9E3779B97F4A7C15ULL >> 32) % FUSE_BUCKETS];
}

static struct fnode *fnode_find(struct fnode_bucket *b, uint64_t node)
{
    zc_list_for_each (it, &b->list) {
        struct fnode *n = zc_list_entry(it, struct fnode, link);
        if (n->node == node)
            return n;
    }
    return NULL;
}

static bool fnode_idle(const struct fnode *n)
{
    return n->passed == 0 && n->cached == 0;
}

/* ------------------------------------------------------------------ under the bucket's lock */

/* What the machine runs short of at the moment. */
static bool fnode_may_pass_later(int e)
{
    return e == ENOMEM || e == EMFILE || e == ENFILE || e == ENOSPC || e == EAGAIN || e == EINTR;
}

static void fnode_register(struct zc_fuse *f, fuse_req_t req, struct fnode *n, int fd)
{
    /* The call only takes a reference to the open file: it does not wait for a disk. */
    n->backing_id = fuse_passthrough_open(req, fd);
    if (n->backing_id > 0)
        return;
    int e = errno;
    n->backing_id = 0;
    if (!fnode_may_pass_later(e) &&
        fuse_pass_off(f, "the kernel refuses a backing file: %s%s", strerror(e),
                      e == ELOOP ? " (the cache directory lies on a stacked file system)" : ""))
        zc_warn("passthrough is %s", atomic_load(&f->passthrough));
}

/* libfuse's own call wants a request, which a recall has not. */
static void fnode_unregister(struct zc_fuse *f, struct fnode *n)
{
    uint32_t id = (uint32_t)n->backing_id;
    if (n->backing_id)
        ioctl(fuse_session_fd(f->se), FUSE_DEV_IOC_BACKING_CLOSE, &id);
    n->backing_id = 0;
}

static void fnode_borrow(struct zc_fuse *f, struct fnode_bucket *b, struct fnode *n,
                         struct zc_object *o)
{
    uint64_t number = atomic_fetch_add(&f->borrowers, 1) + 1;
    uint64_t borrower = number * FUSE_BUCKETS + (uint64_t)(b - f->buckets);
    if (f->cfg.kept_files && n->serial && zc_object_lend(o, borrower, &n->loan))
        n->borrower = borrower;
}

static void fnode_unlist(struct zc_fuse *f, struct fnode *n)
{
    pthread_mutex_lock(&f->idle_lock);
    zc_list_del(&n->idle_link);
    f->idle_n--;
    pthread_mutex_unlock(&f->idle_lock);
}

/* An idle node goes. */
static void fnode_drop(struct zc_fuse *f, struct fnode *n)
{
    fnode_unlist(f, n);
    fnode_unregister(f, n);
    zc_loan_end(&n->loan);
    zc_list_del(&n->link);
    free(n);
}

/* An idle node comes back, if it still stands for the same file and its loan can be used again. */
static struct fnode *fnode_wake(struct zc_fuse *f, struct fnode *n, bool stands)
{
    if (stands && zc_loan_reuse(&n->loan, true)) {
        fnode_unlist(f, n);
        return n;
    }
    fnode_drop(f, n);
    return NULL;
}

/* ------------------------------------------------------------------ open and close */

enum fnode_mode fnode_open(struct zc_fuse *f, fuse_req_t req, uint64_t node, struct zc_object *o,
                           int fd, struct zc_list *handle, struct fnode **out, int *backing_id)
{
    struct fnode_bucket *b = fnode_bucket(f, node);
    uint64_t epoch = zc_vfs_epoch(f->vfs); /* before the serial: it can only be too old */
    uint64_t serial = zc_vfs_serial(f->vfs, node);

    pthread_mutex_lock(&b->lock);
    struct fnode *n = fnode_find(b, node);
    if (n && fnode_idle(n))
        n = fnode_wake(f, n, n->serial == serial);
    if (!n) {
        n = calloc(1, sizeof(*n));
        if (!n) {
            pthread_mutex_unlock(&b->lock);
            return FNODE_FAILED;
        }
        n->node = node;
        n->serial = serial;
        n->epoch = epoch;
        zc_list_init(&n->handles);
        zc_list_push_front(&b->list, &n->link);
    }
    if (!n->backing_id && fd >= 0 && atomic_load(&f->can_pass) && n->cached == 0) {
        fnode_register(f, req, n, fd);
        if (n->backing_id)
            fnode_borrow(f, b, n, o);
    }
    enum fnode_mode mode = n->borrower ? FNODE_LENT : n->backing_id ? FNODE_PASSED : FNODE_DAEMON;
    if (n->backing_id)
        n->passed++;
    else
        n->cached++;
    zc_list_push_back(&n->handles, handle);
    *backing_id = n->backing_id;
    *out = n;
    pthread_mutex_unlock(&b->lock);
    return mode;
}

bool fnode_open_lent(struct zc_fuse *f, uint64_t node, struct zc_list *handle, struct fnode **out,
                     int *backing_id)
{
    struct fnode_bucket *b = fnode_bucket(f, node);
    uint64_t epoch = zc_vfs_epoch(f->vfs), serial = 0;
    bool lent = false;

    pthread_mutex_lock(&b->lock);
    struct fnode *n = fnode_find(b, node);
    if (n && n->epoch != epoch) { /* something changed, somewhere: not under this lock */
        pthread_mutex_unlock(&b->lock);
        serial = zc_vfs_serial(f->vfs, node);
        pthread_mutex_lock(&b->lock);
        n = fnode_find(b, node);
        if (n && n->serial == serial)
            n->epoch = epoch;
    }
    bool stands = n && n->serial && n->epoch == epoch;
    if (n && fnode_idle(n)) {
        n = fnode_wake(f, n, stands);
        lent = n != NULL;
    } else if (stands && n->borrower) {
        lent = zc_loan_reuse(&n->loan, false);
    }
    if (lent) {
        n->passed++;
        zc_list_push_back(&n->handles, handle);
        *backing_id = n->backing_id;
        *out = n;
    }
    pthread_mutex_unlock(&b->lock);
    return lent;
}

/* The one that is idle for the longest goes when there are too many. */
static void fnode_trim(struct zc_fuse *f, uint64_t node)
{
    struct fnode_bucket *b = fnode_bucket(f, node);
    pthread_mutex_lock(&b->lock);
    struct fnode *n = fnode_find(b, node);
    if (n && fnode_idle(n)) /* or woken meanwhile: then the next close finds another */
        fnode_drop(f, n);
    pthread_mutex_unlock(&b->lock);
}

void fnode_close(struct zc_fuse *f, struct fnode *n, struct zc_list *handle, bool passed)
{
    struct fnode_bucket *b = fnode_bucket(f, n->node);
    uint64_t longest = 0;
    pthread_mutex_lock(&b->lock);
    zc_list_del(handle);
    if (passed)
        n->passed--;
    else
        n->cached--;
    if (fnode_idle(n) && n->borrower) {
        pthread_mutex_lock(&f->idle_lock);
        zc_list_push_back(&f->idle, &n->idle_link);
        if (++f->idle_n > f->cfg.kept_files)
            longest = zc_list_entry(f->idle.next, struct fnode, idle_link)->node;
        pthread_mutex_unlock(&f->idle_lock);
        zc_loan_unused(&n->loan, true); /* from here on it may be recalled */
    } else if (fnode_idle(n)) {
        fnode_unregister(f, n);
        zc_list_del(&n->link);
        free(n);
    }
    pthread_mutex_unlock(&b->lock);
    if (longest)
        fnode_trim(f, longest);
}

void fnode_recall(void *user, uint64_t borrower)
{
    struct zc_fuse *f = user;
    struct fnode_bucket *b = &f->buckets[borrower % FUSE_BUCKETS];
    pthread_mutex_lock(&b->lock);
    zc_list_for_each_safe (it, tmp, &b->list) {
        struct fnode *n = zc_list_entry(it, struct fnode, link);
        if (n->borrower != borrower)
            continue;
        if (fnode_idle(n)) {
            fnode_drop(f, n);
        } else { /* readers have it open: it ends with the last of them */
            zc_loan_unused(&n->loan, false);
            n->borrower = 0;
        }
        break;
    }
    pthread_mutex_unlock(&b->lock);
}

void fnodes_drop_idle(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_BUCKETS; i++) {
        struct fnode_bucket *b = &f->buckets[i];
        pthread_mutex_lock(&b->lock);
        zc_list_for_each_safe (it, tmp, &b->list) {
            struct fnode *n = zc_list_entry(it, struct fnode, link);
            if (fnode_idle(n))
                fnode_drop(f, n);
        }
        pthread_mutex_unlock(&b->lock);
    }
}

struct zc_list *fnodes_left(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_BUCKETS; i++) {
        while (!zc_list_empty(&f->buckets[i].list)) {
            struct fnode *n = zc_list_entry(f->buckets[i].list.next, struct fnode, link);
            struct zc_list *handle = zc_list_pop_front(&n->handles);
            if (handle)
                return handle;
            if (n->borrower && fnode_idle(n))
                zc_loan_end(&n->loan);
            else if (n->borrower)
                zc_loan_unused(&n->loan, false);
            zc_list_del(&n->link);
            free(n);
        }
    }
    return NULL;
}
