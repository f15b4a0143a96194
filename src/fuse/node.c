/* SPDX-License-Identifier: Apache-2.0 */
/* The mode of open nodes, and their backing files in the kernel. */
#include "base/log.h"
#include "fuse/internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

void fnodes_init(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_BUCKETS; i++) {
        pthread_mutex_init(&f->buckets[i].lock, NULL);
        zc_list_init(&f->buckets[i].list);
    }
}

static struct fnode_bucket *fnode_bucket(struct zc_fuse *f, uint64_t node)
{
    return &f->buckets[(node ^ node >> 32) % FUSE_BUCKETS];
}

bool fnode_open(struct zc_fuse *f, fuse_req_t req, uint64_t node, int fd, struct zc_list *handle,
                struct fnode **out, int *backing_id)
{
    struct fnode_bucket *b = fnode_bucket(f, node);
    struct fnode *n = NULL;
    bool pass = false;

    pthread_mutex_lock(&b->lock);
    zc_list_for_each (it, &b->list) {
        if (zc_list_entry(it, struct fnode, link)->node == node) {
            n = zc_list_entry(it, struct fnode, link);
            break;
        }
    }
    if (!n) {
        n = calloc(1, sizeof(*n));
        if (!n) {
            pthread_mutex_unlock(&b->lock);
            *out = NULL;
            return false;
        }
        n->node = node;
        zc_list_init(&n->handles);
        zc_list_push_front(&b->list, &n->link);
    }
    if (fd >= 0 && f->can_pass && n->cached == 0) {
        /* The call only takes a reference to the open file: it does not wait for a disk. */
        if (n->backing_id == 0)
            n->backing_id = fuse_passthrough_open(req, fd);
        pass = n->backing_id > 0;
        if (!pass) {
            n->backing_id = 0;
            if (f->can_pass) {
                int e = errno;
                f->can_pass = false;
                snprintf(f->passthrough, sizeof(f->passthrough),
                         "off: the kernel refuses a backing file: %s%s", strerror(e),
                         e == ELOOP ? " (the cache directory lies on a stacked file system)" : "");
                zc_warn("passthrough is %s", f->passthrough);
            }
        }
    }
    if (pass)
        n->passed++;
    else
        n->cached++;
    zc_list_push_back(&n->handles, handle);
    *backing_id = n->backing_id;
    pthread_mutex_unlock(&b->lock);
    *out = n;
    return pass;
}

void fnode_close(struct zc_fuse *f, fuse_req_t req, struct fnode *n, struct zc_list *handle,
                 bool passed)
{
    struct fnode_bucket *b = fnode_bucket(f, n->node);
    pthread_mutex_lock(&b->lock);
    zc_list_del(handle);
    if (passed)
        n->passed--;
    else
        n->cached--;
    bool last = n->passed == 0 && n->cached == 0;
    if (last || n->passed == 0) {
        if (n->backing_id)
            fuse_passthrough_close(req, n->backing_id);
        n->backing_id = 0;
    }
    if (last)
        zc_list_del(&n->link);
    pthread_mutex_unlock(&b->lock);
    if (last)
        free(n);
}

struct zc_list *fnodes_left(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_BUCKETS; i++) {
        while (!zc_list_empty(&f->buckets[i].list)) {
            struct fnode *n = zc_list_entry(f->buckets[i].list.next, struct fnode, link);
            struct zc_list *handle = zc_list_pop_front(&n->handles);
            if (handle)
                return handle;
            zc_list_del(&n->link);
            free(n);
        }
    }
    return NULL;
}
