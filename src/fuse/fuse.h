/* SPDX-License-Identifier: Apache-2.0 */
/* The only user of libfuse: a session that shows a vfs at a mount point. */
#ifndef ZC_FUSE_H
#define ZC_FUSE_H

#include "vfs/vfs.h"

struct zc_fuse;

enum zc_toggle { ZC_AUTO, ZC_ON, ZC_OFF };

struct zc_fuse_config {
    struct zc_fetch *fetch;     /* the vfs's: asked back for what is kept */
    const char *mountpoint;     /* absolute, checked by the caller */
    const char *fsname;         /* shown as the device: the source */
    bool noexec;                /* programs in it cannot be run */
    bool allow_other;           /* needs root or user_allow_other in /etc/fuse.conf */
    enum zc_toggle passthrough; /* ZC_AUTO, or ZC_OFF */
    enum zc_toggle
        io_uring; /* ZC_AUTO: where the kernel has it switched on; ZC_ON: switch it on (root) */
    bool several; /* sources: requests to one may wait long, those to others must not */
    bool blocks;  /* threads that answer may stand still in the kernel: the source is a directory */
    unsigned max_threads; /* of the classic loop; 0 = 10 */
    uint64_t memory;      /* bytes that the request buffers may take at most */
    unsigned kept_files;  /* closed files that stay registered with the kernel at most; 0: none */
};

/* Mounts. Words on failure. Must be called in the process that will serve (after daemonising). */
int zc_fuse_new(const struct zc_fuse_config *cfg, struct zc_vfs *v, struct zc_fuse **out,
                struct zc_error *err);
/* Serves until unmounted or zc_fuse_exit(). 0, or negative errno. */
int zc_fuse_loop(struct zc_fuse *f);
/* Detaches the mount, unless something else is seen at its place by now; fails what is in flight,
   ends the loop. Any thread, but no signal handler. */
void zc_fuse_exit(struct zc_fuse *f);
/* Shuts the vfs down, unmounts if still mounted, frees. After zc_fuse_loop returned. */
void zc_fuse_free(struct zc_fuse *f);

struct zc_fuse_stats {
    const char *passthrough; /* "on", or why not: "off: --passthrough off", "off: kernel 5.10 has
                                none", ... */
    const char *io_uring;    /* likewise */
    uint64_t opens, opens_passthrough, reads, read_bytes;
    uint64_t opens_kept; /* of these, answered without the cache */
    uint64_t kept;       /* closed files that are registered with the kernel now */
};
void zc_fuse_get_stats(struct zc_fuse *f, struct zc_fuse_stats *out);

#endif
