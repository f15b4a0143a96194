/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon's two files share. */
#ifndef ZC_CLI_DAEMON_INT_H
#define ZC_CLI_DAEMON_INT_H

#include "cli/daemon.h"
#include "http/ctl.h"
#include "net/net.h"
#include "vfs/vfs.h"

#include <pthread.h>

struct zc_daemon {
    const struct zc_daemon_config *cfg;
    struct zc_net *net;
    struct zc_backend *backend;
    char *identity; /* of its data */
    struct zc_vfs_source *source;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_vfs *vfs;
    struct zc_fuse *fuse;
    struct zc_ctl *ctl;
    int64_t started_ns;

    pthread_t signals; /* the thread that waits for them */
    bool has_signals;
    pthread_mutex_t lock;      /* guards what follows */
    struct zc_fuse *exit_fuse; /* to be ended by a signal; NULL while there is none */
    bool stop;                 /* a signal came */
    bool nothing_to_undo;      /* nothing was made yet that an end by _exit(2) would leave behind */
    bool ending;               /* the thread itself must end */
};

/* The source of an hdfs://, webhdfs:// or swebhdfs:// mount; does not reach for it yet. */
int zc_daemon_hdfs(struct zc_net *net, const struct zc_source *src, const struct zc_mount_opts *o,
                   struct zc_backend **out, struct zc_error *err);

extern const struct zc_ctl_ops zc_daemon_ctl_ops; /* user: the struct zc_daemon */

#endif
