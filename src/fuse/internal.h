/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the room share. */
#ifndef ZC_FUSE_INTERNAL_H
#define ZC_FUSE_INTERNAL_H

#define FUSE_USE_VERSION 317
#include <fuse_lowlevel.h>

#include "base/list.h"
#include "fetch/loan.h"
#include "fuse/fuse.h"

#include <pthread.h>
#include <stdatomic.h>

#define FUSE_BUCKETS 32768

/* What the kernel asks for in one request. Half a MiB with its header fits into a pipe of the size
 * that anybody may have (fs.pipe-max-size), so that the answer need not be copied; and into a
 * processor's second cache, where an answer over io_uring is copied twice. */
#define FUSE_REQUEST_MAX (512 * ZC_KIB)

/*
 * An open node. The kernel has an inode in one mode at a time: all its opens pass through to one
 * backing file, or none does. So the mode is decided here, once for as long as the node is open.
 *
 * After its last close a node that was passed through stays for a while, idle: its backing file
 * stays registered with the kernel, on loan from the cache, and the next open is answered from
 * memory. The daemon itself keeps no descriptor for it.
 */
struct fnode {
    struct zc_list link;
    struct zc_list idle_link; /* zc_fuse->idle */
    uint64_t node;
    uint64_t serial;         /* zc_vfs_serial at the first open ... */
    uint64_t epoch;          /* ... and zc_vfs_epoch when it was last found to be the same */
    unsigned passed, cached; /* opens of each kind; one of them is 0, both in an idle node */
    int backing_id;          /* 0: none */
    uint64_t borrower;       /* our number for the loan; 0: none */
    struct zc_loan loan;
    struct zc_list handles; /* struct handle */
};

/* Empty pipes for replies. */
#define FUSE_PIPES 16
struct fuse_pipes {
    pthread_mutex_t lock;
    int fd[FUSE_PIPES][2];
    unsigned n;
};

struct zc_fuse {
    struct zc_fuse_config cfg;
    struct zc_vfs *vfs;
    struct fuse_session *se;
    char *mountpoint;
    unsigned major, minor; /* of the mount's device */
    uint64_t mount_id;     /* likewise, 0: the kernel has none */
    _Atomic bool can_pass; /* ends with fuse_pass_off */
    bool can_direct; /* settled by init: files in direct mode may be mapped, too (Linux 6.6) */
    bool uring;
    _Atomic(const char *) passthrough, io_uring; /* for status */
    char uring_words[240];
    char pass_words[160]; /* written once, before passthrough shows them */

    struct fnode_bucket {
        pthread_mutex_t lock;
        struct zc_list list;
    } buckets[FUSE_BUCKETS];
    _Atomic uint64_t borrowers; /* numbers given out */

    pthread_mutex_t idle_lock;
    struct zc_list idle; /* struct fnode, longest idle first */
    unsigned idle_n;

    pthread_mutex_t dirs_lock;
    struct zc_list dirs;          /* struct dir_handle */
    struct fuse_openers *openers; /* NULL without io_uring */
    struct fuse_pipes pipes;
    _Atomic bool ahead_raised;
    _Atomic uint64_t opens, opens_passed; /* but those that are kept */
    _Atomic uint64_t opens_kept, reads, read_bytes;
};

/* Passthrough is off from here on, for the reason that was given first; false when there was one
   before. Any thread. */
bool fuse_pass_off(struct zc_fuse *f, const char *why, ...) ZC_PRINTF(2, 3);

/* point.c */
/* Notes which device the mount is; right after it was made. 0, or negative errno. */
int fuse_point_note(struct zc_fuse *f);
/* Detaches the mount if it is what is seen at the mount point. False when it is, and may not be
   unmounted by this process. Before the session is destroyed; any thread; does not block. */
bool fuse_point_detach(struct zc_fuse *f);
/* Raises the mount's read-ahead; without the right to, the kernel's 128 KiB stay. When the first
   file is read through the daemon: the kernel's handshake (INIT) would lower it again. */
void fuse_read_ahead(struct zc_fuse *f);

/* ops.c */
extern const struct fuse_lowlevel_ops fuse_ops;

/* An open that must wait for the cache disk, on a thread where it may. */
void fuse_open_waiting(fuse_req_t req, uint64_t node, const struct fuse_file_info *fi);

/* openers.c: threads for such opens. A ring has one thread for each core, and all requests of that
   core queue behind it; the classic loop has threads enough. */
int fuse_openers_new(unsigned threads, struct fuse_openers **out);
/* Does what is queued, and takes no more: -ESHUTDOWN from then on. */
void fuse_openers_end(struct fuse_openers *p);
/* After fuse_openers_end, and when nobody can add any more. */
void fuse_openers_free(struct fuse_openers *p);
/* 0, -ENOMEM or -ESHUTDOWN. */
int fuse_openers_add(struct fuse_openers *p, fuse_req_t req, uint64_t node,
                     const struct fuse_file_info *fi);

/* pipes.c: replies with [off, off + len) of the file. False, and no reply, when not all of it is to
   be had in this way: the disk fails, or there is no pipe for it. */
bool fuse_reply_file(struct zc_fuse *f, fuse_req_t req, int fd, uint64_t off, size_t len);
void fuse_pipes_close(struct fuse_pipes *ps);

/* node.c. Locks: a bucket's, then the idle list's, or the cache's. */
enum fnode_mode {
    FNODE_FAILED, /* no memory */
    FNODE_DAEMON, /* reads come to the daemon */
    FNODE_PASSED, /* reply with *backing_id */
    FNODE_LENT,   /* likewise, and the object need not be kept open for it */
};
/* Counts an open of the node and keeps its handle. fd: of the complete object's backing file, else
   -1: not passable. */
enum fnode_mode fnode_open(struct zc_fuse *f, fuse_req_t req, uint64_t node, struct zc_object *o,
                           int fd, struct zc_list *handle, struct fnode **out, int *backing_id);
/* The same for a node that is on loan, open or idle; false, and nothing done, when it is not. */
bool fnode_open_lent(struct zc_fuse *f, uint64_t node, struct zc_list *handle, struct fnode **out,
                     int *backing_id);
void fnode_close(struct zc_fuse *f, struct fnode *n, struct zc_list *handle, bool passed);
void fnodes_init(struct zc_fuse *f);
/* Gives back what is idle: the last step before the session goes. The kernel would close the files
   some time after the end of the mount, and whoever unmounts the cache's disk next would find it
   busy. */
void fnodes_drop_idle(struct zc_fuse *f);
/* zc_fetch_on_recall's. */
void fnode_recall(void *user, uint64_t borrower);
/* After the session: the handles that the kernel can close no more, one at a time; NULL when none
 * is left, and all loans have ended. */
struct zc_list *fnodes_left(struct zc_fuse *f);

/* ops.c: gives up what is still open after a forced end, when no release will come. */
void fuse_drop_handles(struct zc_fuse *f);

#endif
