/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `zcache mount`: their table, defaults and checks. */
#ifndef ZC_CLI_MOUNTOPTS_H
#define ZC_CLI_MOUNTOPTS_H

#include "cli/opt.h"
#include "cli/source.h"
#include "fuse/fuse.h"

struct zc_mount_opts {
    /* S3 */
    const char *region, *endpoint_url, *profile, *expected_bucket_owner, *ca_bundle;
    bool force_path_style, no_sign_request, requester_pays, no_verify_ssl;
    bool tls_if_any; /* ca_bundle and no_verify_ssl were said for all sources, TLS or not */
    /* HDFS; ca_bundle and no_verify_ssl are for both */
    const char *hadoop_conf, *hdfs_user, *hdfs_keytab, *hdfs_principal, *hdfs_token;
    /* the mount; from uid to max_connections without max_threads also a source's own */
    const char *config;
    bool read_only, allow_other, foreground;
    uint32_t uid, gid, file_mode, dir_mode;      /* ZC_ID_UNSET: not given */
    int64_t metadata_ttl, negative_metadata_ttl; /* ns; negative -1: as metadata_ttl */
    int64_t read_timeout;                        /* ns */
    uint64_t max_threads, max_connections, open_cache_limit;
    uint64_t memory_target; /* bytes */
    int passthrough;        /* enum zc_toggle, after zc_mount_opts_finish */
    int io_uring;
    /* the cache */
    const char *cache_dir, *cache_name;
    uint64_t cache_size; /* bytes; 0: not given */
    uint64_t chunk_size;
    double free_space_ratio;
    bool keep_cache, allow_tmpfs;
    /* the cluster */
    const char *join, *node_name, *bind, *advertise, *cluster_key;
    const char *tls_cert, *tls_key, *tls_ca;
    uint64_t peer_port; /* 0: after the port of gossip */
    int replicate;      /* enum zc_replicate */
    int64_t drain_time; /* ns */
    /* the log */
    const char *log_directory;
    int log_level; /* enum zc_log_level */
};

extern const struct zc_opt_table zc_mount_table;
/* The rows of it that each source may have for itself: its beginning, with the same places. */
extern const struct zc_opt_table zc_source_table;

/* Defaults, before parsing. */
void zc_mount_opts_init(struct zc_mount_opts *o);
/* Refuses combinations in which an option of a source would do nothing, and values that no single
   check sees. given: as in zc_opt_args, of zc_source_table. -EINVAL with words. */
int zc_source_opts_finish(const struct zc_mount_opts *o, uint64_t given,
                          const struct zc_source *src, struct zc_error *err);
/* Does this row of zc_source_table mean something for such a source? */
bool zc_source_opt_fits(const struct zc_opt *o, enum zc_scheme scheme);
/* May the source be asked over TLS, as far as its options tell? */
bool zc_source_opts_tls(const struct zc_mount_opts *o, const struct zc_source *src);
/* The same for the mount's own options (given: of zc_mount_table); also turns choices into their
   enums and gives memory_target its default. euid: whose rights the mount has. */
int zc_mount_opts_finish(struct zc_mount_opts *o, uint64_t given, uid_t euid, struct zc_error *err);

/* Smallest memory limit of the control groups (v2) that this process is in; 0 when there is none.
 */
uint64_t zc_cgroup_memory(void);
/* What memory_target becomes when it is not given: 256 MiB, or half of `limit` where that is less,
   but 64 MiB at the least. limit 0: none. */
uint64_t zc_memory_default(uint64_t limit);

#endif
