/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the room share. */
#ifndef ZC_FUSE_INTERNAL_H
#define ZC_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 317
#include <fuse_lowlevel.h>

#include "base/list.h"
#include "fuse/fuse.h"

#include <pthread.h>
#include <stdatomic.h>

#define FUSE_BUCKETS 1024

/*
 * An open node. The kernel has an inode in one mode at a time: all its opens pass through to one
 * backing file, or none does. So the mode is decided here, once for as long as the node is open.
 */
struct fnode {
    struct zc_list link;
    uint64_t node;
    unsigned passed, cached; /* opens of each kind; one of them is 0 */
    int backing_id;          /* 0: none */
    struct zc_list handles;  /* struct handle */
};

struct zc_fuse {
    struct zc_fuse_config cfg;
    struct zc_vfs *vfs;
    struct fuse_session *se;
    char *mountpoint;
    bool mounted;
    bool can_pass; /* settled by init, turned off when the kernel refuses a backing file */
    bool uring;
    char passthrough[160], io_uring[160]; /* for status */

    struct fnode_bucket {
        pthread_mutex_t lock;
        struct zc_list list;
    } buckets[FUSE_BUCKETS];

    pthread_mutex_t dirs_lock;
    struct zc_list dirs;          /* struct dir_handle */
    struct fuse_openers *openers; /* NULL without io_uring */
    _Atomic uint64_t opens, opens_passed, reads, read_bytes;
};

/* ops.c */
extern const struct fuse_lowlevel_ops fuse_ops;

/* An open that must wait for the cache disk, on a thread where it may. */
void fuse_open_waiting(fuse_req_t req, uint64_t node, const struct fuse_file_info *fi);

/* openers.c: threads for such opens. A ring has one thread for each core, and all requests of that
   core queue behind it; the classic loop has threads enough. */
int fuse_openers_new(unsigned threads, struct fuse_openers **out);
void fuse_openers_free(struct fuse_openers *p); /* after what is queued was done */
/* 0, or -ENOMEM. */
int fuse_openers_add(struct fuse_openers *p, fuse_req_t req, uint64_t node,
                     const struct fuse_file_info *fi);

/* node.c */
/* Counts an open of the node and keeps its handle. True: reply with *backing_id; false: through the
   daemon. fd < 0: not passable. */
bool fnode_open(struct zc_fuse *f, fuse_req_t req, uint64_t node, int fd, struct zc_list *handle,
                struct fnode **out, int *backing_id);
void fnode_close(struct zc_fuse *f, fuse_req_t req, struct fnode *n, struct zc_list *handle,
                 bool passed);
void fnodes_init(struct zc_fuse *f);
/* After the session: the handles that the kernel can close no more, one at a time; NULL when none
 * is left. */
struct zc_list *fnodes_left(struct zc_fuse *f);

/* ops.c: gives up what is still open after a forced end, when no release will come. */
void fuse_drop_handles(struct zc_fuse *f);

#endif
