/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon's files share. */
#ifndef ZC_CLI_DAEMON_INT_H
#define ZC_CLI_DAEMON_INT_H

#include "base/buf.h"
#include "base/list.h"
#include "cli/daemon.h"
#include "cli/place.h"
#include "cluster/cluster.h"
#include "http/ctl.h"
#include "net/net.h"
#include "peer/peer.h"
#include "vfs/vfs.h"

#include <pthread.h>

/* Of content hashes: a constant, so that all nodes may compare them. They find accidents; who means
   to deceive can make them. */
#define ZC_DAEMON_SEED 0

struct zc_daemon_source {
    struct zc_list link;               /* daemon->opening, then ->sources */
    const struct zc_plan_source *plan; /* the mount's, or own_plan */
    struct zc_plan_source *own_plan;   /* of one that was added to the running mount */
    struct zc_net *net;
    struct zc_backend *be;  /* with its retries */
    struct zc_backend *top; /* what the file system is given: be, or what shares it with peers */
    char *identity;         /* of its data in the cache */
    struct zc_vfs_source *vfs;
    int64_t since_ns;
    bool leaving; /* somebody removes it; under daemon->sources_lock */
};

struct zc_daemon {
    const struct zc_daemon_config *cfg;
    char *name; /* of what is mounted: the source, or all of them with their paths */
    pthread_mutex_t sources_lock;
    struct zc_list sources; /* struct zc_daemon_source */
    struct zc_list opening; /* those whose stores are being reached for */
    bool stopping;          /* nobody reaches for a store any more; under sources_lock */
    struct zc_list retired; /* those that were removed, but whose threads must not end yet */
    struct zc_daemon_source **opened; /* at the start, those of the plan that are not shown yet */
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_vfs *vfs;
    struct zc_fuse *fuse;
    struct zc_ctl *ctl;
    int64_t started_ns;

    struct zc_cluster *cluster; /* NULL: no node of one */
    struct zc_peer *peer;
    bool answers;                   /* other nodes' questions; under lock */
    struct zc_warm_jobs *warm_jobs; /* of other nodes */

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

/* A bucket as the options say. Everything in it is borrowed from them. */
struct zc_s3_config;
struct zc_s3_config zc_daemon_s3(const struct zc_source *src, const struct zc_mount_opts *o);
/* A store as the options say, without what is wrapped around it; does not reach for it yet. */
int zc_daemon_store(struct zc_net *net, const struct zc_source *src, const struct zc_mount_opts *o,
                    struct zc_backend **out, struct zc_error *err);

/* daemon_source.c */
/* Reaches for a source, so blocks; words begin with its path. Any thread, several at a time. */
int zc_daemon_source_open(struct zc_daemon *d, struct zc_plan_source *plan,
                          struct zc_daemon_source **out, struct zc_error *err);
/* Those that reach for a source give up soon with -ECANCELED, as do all who come after. */
void zc_daemon_sources_stop(struct zc_daemon *d);
/* Did its store answer, but with nothing? Then with words for who named it. */
bool zc_daemon_source_doubt(const struct zc_daemon_source *s, struct zc_error *words);
/* Shows it in the file system and the list of sources. */
int zc_daemon_source_show(struct zc_daemon *d, struct zc_daemon_source *s, struct zc_error *err);
/* One that the file system does not use (any more). */
void zc_daemon_source_close(struct zc_daemon_source *s);
/* On a running mount; both block. `take` is owned from the call on, whatever comes of it. err has
   words after a success too, where zc_daemon_source_doubt has some. */
int zc_daemon_source_add(struct zc_daemon *d, struct zc_plan_source *take, struct zc_error *err);
int zc_daemon_source_remove(struct zc_daemon *d, const char *at, bool force, struct zc_error *err);

extern const struct zc_ctl_ops zc_daemon_ctl_ops; /* user: the struct zc_daemon */

#endif
