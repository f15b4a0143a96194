/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An option that is accepted does something: what would have no effect is refused, since a silently
 * ignored option is found out in production.
 */
#include "cli/mountopts.h"
#include "cli/clusteropts.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define AT(field) offsetof(struct zc_mount_opts, field)
#define SECOND ((uint64_t)ZC_NS_PER_S)

static const struct zc_opt mount_rows[] = {
    /* What each source may have for itself comes first: zc_source_table is the beginning. */
    {"region", 0, ZC_OPT_STRING, AT(region), "REGION",
     "Region of the bucket. Default: AWS_REGION, AWS_DEFAULT_REGION, the profile's, us-east-1.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"endpoint-url", 0, ZC_OPT_STRING, AT(endpoint_url), "URL",
     "Where the S3 service is, such as https://s3.example.org:9000. Default: AWS_ENDPOINT_URL_S3, "
     "AWS_ENDPOINT_URL, "
     "Amazon's for the region.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"force-path-style", 0, ZC_OPT_FLAG, AT(force_path_style), NULL,
     "Name the bucket in the path of requests and not in the host's name.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"profile", 0, ZC_OPT_STRING, AT(profile), "NAME",
     "Profile of the AWS configuration and credentials files. Default: AWS_PROFILE, 'default'.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"no-sign-request", 0, ZC_OPT_FLAG, AT(no_sign_request), NULL,
     "Send requests without credentials, for public buckets.", .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"requester-pays", 0, ZC_OPT_FLAG, AT(requester_pays), NULL,
     "Agree to be charged for the requests.", .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"expected-bucket-owner", 0, ZC_OPT_STRING, AT(expected_bucket_owner), "ACCOUNT",
     "Fail unless this account owns the bucket.", .flags = ZC_OPT_SOURCE | ZC_OPT_S3},
    {"ca-bundle", 0, ZC_OPT_PATH, AT(ca_bundle), "FILE",
     "PEM file of the authorities to trust. Default: the system's; for S3, AWS_CA_BUNDLE before "
     "it.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3 | ZC_OPT_HDFS},
    {"no-verify-ssl", 0, ZC_OPT_FLAG, AT(no_verify_ssl), NULL,
     "Do not check the server's certificate. Anyone on the way can then read and change the data.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_S3 | ZC_OPT_HDFS},
    {"hadoop-conf", 0, ZC_OPT_PATH, AT(hadoop_conf), "DIR",
     "Folder of core-site.xml and hdfs-site.xml, for hdfs:// sources. Default: HADOOP_CONF_DIR.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_HDFS},
    {"hdfs-user", 0, ZC_OPT_STRING, AT(hdfs_user), "NAME",
     "Who to be on a cluster without Kerberos. Default: HADOOP_USER_NAME, who mounts.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_HDFS},
    {"hdfs-keytab", 0, ZC_OPT_PATH, AT(hdfs_keytab), "FILE",
     "Log in with Kerberos from this keytab. Default: the ticket cache (kinit).",
     .flags = ZC_OPT_SOURCE | ZC_OPT_HDFS},
    {"hdfs-principal", 0, ZC_OPT_STRING, AT(hdfs_principal), "NAME",
     "Log in with Kerberos as this principal. Default: what the keytab or ticket cache has first.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_HDFS},
    {"hdfs-token", 0, ZC_OPT_PATH, AT(hdfs_token), "FILE",
     "File with a delegation token, instead of a Kerberos login. Default: "
     "HADOOP_TOKEN_FILE_LOCATION.",
     .flags = ZC_OPT_SOURCE | ZC_OPT_HDFS},
    {"uid", 0, ZC_OPT_ID, AT(uid), "UID",
     "Show all files as this user's. Default: the store's, or who mounts.", .flags = ZC_OPT_SOURCE},
    {"gid", 0, ZC_OPT_ID, AT(gid), "GID",
     "Show all files as this group's. Default: the store's, or who mounts.",
     .flags = ZC_OPT_SOURCE},
    {"file-mode", 0, ZC_OPT_MODE, AT(file_mode), "MODE",
     "Permission bits of all files, octal. Default: the store's, or 0444.", .flags = ZC_OPT_SOURCE},
    {"dir-mode", 0, ZC_OPT_MODE, AT(dir_mode), "MODE",
     "Permission bits of all directories, octal. Default: the store's, or 0555.",
     .flags = ZC_OPT_SOURCE},
    {"metadata-ttl", 0, ZC_OPT_TTL, AT(metadata_ttl), "TIME",
     "How long listings and attributes are believed: seconds, a time such as 5m, 'indefinite' for "
     "data that does not "
     "change, or 'minimal'. Default: 60.",
     .flags = ZC_OPT_SOURCE},
    {"negative-metadata-ttl", 0, ZC_OPT_TTL, AT(negative_metadata_ttl), "TIME",
     "The same for names that were not found. Default: as --metadata-ttl.", .flags = ZC_OPT_SOURCE},
    {"max-connections", 0, ZC_OPT_UINT, AT(max_connections), "N",
     "Requests to the source in flight at once. Default: 64.", 1, 1024, .flags = ZC_OPT_SOURCE},
    {"read-timeout", 0, ZC_OPT_DURATION, AT(read_timeout), "TIME",
     "How long a read may wait while nothing comes of the source, retries included, before it "
     "fails. Default: 60s.",
     SECOND, 86400 * SECOND, .flags = ZC_OPT_SOURCE},

    /* The mount's own. */
    {"config", 0, ZC_OPT_PATH, AT(config), "FILE",
     "Configuration file with the sources and options of the mount, see zcache.conf(5).",
     .flags = ZC_OPT_NO_FILE},
    {"read-only", 0, ZC_OPT_FLAG, AT(read_only), NULL,
     "Mount read-only: the only mode of this version."},
    {"allow-other", 0, ZC_OPT_FLAG, AT(allow_other), NULL,
     "Let other users read the mount. Needs root, or user_allow_other in /etc/fuse.conf."},
    {"max-threads", 0, ZC_OPT_UINT, AT(max_threads), "N",
     "Threads that serve the kernel. Default: 10.", 1, 256},
    {"memory-target", 0, ZC_OPT_SIZE, AT(memory_target), "SIZE",
     "Memory that the daemon keeps to. Default: 256MiB, or half of the control group's limit where "
     "that is less.",
     64 * ZC_MIB, 64 * ZC_GIB},
    {"passthrough", 0, ZC_OPT_CHOICE, AT(passthrough), "auto|off",
     "Let the kernel read cached files straight from the cache disk, where it can (Linux 6.9 or "
     "later, root). "
     "Default: auto.",
     .choices = "auto|off"},
    {"io-uring", 0, ZC_OPT_CHOICE, AT(io_uring), "auto|on|off",
     "Talk to the kernel over io_uring: auto where it is switched on, on switches it on (root). "
     "Default: auto.",
     .choices = "auto|on|off"},
    {"open-cache-limit", 0, ZC_OPT_UINT, AT(open_cache_limit), "N",
     "Closed files that stay registered with the kernel, so that they open again without a look at "
     "the "
     "disk; each costs the kernel about 2 KiB. Default: 32768; 0 for none.",
     0, 1 << 24},
    {"cache-dir", 0, ZC_OPT_PATH, AT(cache_dir), "DIR",
     "Folder of the cache. Default: /var/cache/zcache for root, else $XDG_CACHE_HOME/zcache or "
     "~/.cache/zcache."},
    {"cache-name", 0, ZC_OPT_STRING, AT(cache_name), "NAME",
     "Name of the cache in its folder, by which --keep-cache finds it again. Default: the source; "
     "of several sources: the mount point."},
    {"cache-size", 0, ZC_OPT_SIZE, AT(cache_size), "SIZE",
     "Hard limit of the cache. Default: 90% of what is free above --free-space-ratio.", 1 * ZC_MIB,
     0},
    {"free-space-ratio", 0, ZC_OPT_RATIO, AT(free_space_ratio), "SHARE",
     "Share of the cache's file system that stays free. Default: 0.1."},
    {"chunk-size", 0, ZC_OPT_SIZE, AT(chunk_size), "SIZE",
     "Unit of caching; a power of two from 64KiB to 64MiB. Default: 4MiB.", 64 * ZC_KIB,
     64 * ZC_MIB},
    {"keep-cache", 0, ZC_OPT_FLAG, AT(keep_cache), NULL,
     "Keep the cache when unmounting, and take over what an earlier mount of the source kept."},
    {"allow-tmpfs", 0, ZC_OPT_FLAG, AT(allow_tmpfs), NULL, "Let the cache lie in memory (tmpfs)."},
    {"join", 0, ZC_OPT_STRING, AT(join), "HOST[:PORT],...",
     "Share the cache with the nodes of a cluster: some of its nodes, or a name that has the "
     "addresses of all. The port is 7946 unless given.",
     .flags = ZC_OPT_CLUSTER},
    {"bind", 0, ZC_OPT_STRING, AT(bind), "ADDRESS[:PORT]",
     "Address to listen on for the other nodes; alone, it begins a cluster. Default: 0.0.0.0:7946.",
     .flags = ZC_OPT_CLUSTER},
    {"advertise", 0, ZC_OPT_STRING, AT(advertise), "ADDRESS[:PORT]",
     "Address by which the others reach this node. Default: that of --bind, or of the interface "
     "towards them.",
     .flags = ZC_OPT_CLUSTER},
    {"peer-port", 0, ZC_OPT_UINT, AT(peer_port), "PORT",
     "Port for data between nodes (TCP). Default: the one after the port of --bind.", 1, 65535,
     .flags = ZC_OPT_CLUSTER},
    {"node-name", 0, ZC_OPT_STRING, AT(node_name), "NAME",
     "Name of this node for people. Default: the host's name.", .flags = ZC_OPT_CLUSTER},
    {"cluster-key", 0, ZC_OPT_PATH, AT(cluster_key), "FILE",
     "Keys of the cluster, base64, one a line, the first one for what is sent. Required unless "
     "--bind is a loopback address.",
     .flags = ZC_OPT_CLUSTER},
    {"tls-cert", 0, ZC_OPT_PATH, AT(tls_cert), "FILE",
     "This node's certificate (PEM), for data between nodes. Default: one made from the cluster's "
     "key.",
     .flags = ZC_OPT_CLUSTER},
    {"tls-key", 0, ZC_OPT_PATH, AT(tls_key), "FILE", "Its private key (PEM).",
     .flags = ZC_OPT_CLUSTER},
    {"tls-ca", 0, ZC_OPT_PATH, AT(tls_ca), "FILE",
     "Authorities that sign the nodes' certificates (PEM).", .flags = ZC_OPT_CLUSTER},
    {"replicate", 0, ZC_OPT_CHOICE, AT(replicate), "local|owner-only",
     "What a node keeps of other nodes' data that it read: local, all that there is room for; "
     "owner-only, a twentieth of its cache. Default: local.",
     .choices = "local|owner-only", .flags = ZC_OPT_CLUSTER},
    {"drain-time", 0, ZC_OPT_DURATION, AT(drain_time), "TIME",
     "How long to go on serving the other nodes after SIGTERM, so that they fetch what they take "
     "over. Default: 10s.",
     0, 3600 * SECOND, .flags = ZC_OPT_CLUSTER},
    {"log-directory", 0, ZC_OPT_PATH, AT(log_directory), "DIR",
     "Write the log to a file there. Default: the system log, or the terminal with --foreground."},
    {"log-level", 0, ZC_OPT_CHOICE, AT(log_level), "LEVEL",
     "error, warn, info or debug. Default: warn.", .choices = "error|warn|info|debug"},
    {"foreground", 'f', ZC_OPT_FLAG, AT(foreground), NULL, "Stay in the foreground.",
     .flags = ZC_OPT_NO_O | ZC_OPT_NO_FILE},
};

#define MOUNT_SOURCE_ROWS 22
const struct zc_opt_table zc_mount_table = {mount_rows, ZC_ARRAY_SIZE(mount_rows)};
const struct zc_opt_table zc_source_table = {mount_rows, MOUNT_SOURCE_ROWS};
_Static_assert(ZC_ARRAY_SIZE(mount_rows) <= ZC_OPT_ROWS,
               "zc_opt_args.given has a bit for each row");

void zc_mount_opts_init(struct zc_mount_opts *o)
{
    *o = (struct zc_mount_opts){
        .uid = ZC_ID_UNSET,
        .gid = ZC_ID_UNSET,
        .file_mode = ZC_ID_UNSET,
        .dir_mode = ZC_ID_UNSET,
        .metadata_ttl = 60 * ZC_NS_PER_S,
        .negative_metadata_ttl = -1,
        .read_timeout = 60 * ZC_NS_PER_S,
        .max_threads = 10,
        .open_cache_limit = 32768,
        .max_connections = 64,
        .chunk_size = 4 * ZC_MIB,
        .free_space_ratio = 0.1,
        .drain_time = 10 * ZC_NS_PER_S,
        .log_level = ZC_LOG_WARN,
    };
}

static int mount_check_s3(const struct zc_mount_opts *o, struct zc_error *err)
{
    bool http = o->endpoint_url && strncmp(o->endpoint_url, "http://", 7) == 0;
    if (o->endpoint_url && !http && strncmp(o->endpoint_url, "https://", 8) != 0)
        return zc_error_set(err, -EINVAL,
                            "--endpoint-url '%.200s' does not begin with http:// or https://",
                            o->endpoint_url);
    if (o->no_sign_request && o->profile)
        return zc_error_set(
            err, -EINVAL,
            "--profile names credentials, and --no-sign-request uses none: give one of them");
    if (o->no_sign_request && o->requester_pays)
        return zc_error_set(err, -EINVAL,
                            "--requester-pays needs credentials, and --no-sign-request uses none");
    if (o->no_verify_ssl && o->ca_bundle)
        return zc_error_set(err, -EINVAL,
                            "--ca-bundle has no effect with --no-verify-ssl: give one of them");
    if (http && (o->no_verify_ssl || o->ca_bundle))
        return zc_error_set(err, -EINVAL,
                            "--%s has no effect: the endpoint '%.200s' does not use TLS",
                            o->ca_bundle ? "ca-bundle" : "no-verify-ssl", o->endpoint_url);
    return 0;
}

static int mount_check_hdfs(const struct zc_mount_opts *o, enum zc_scheme scheme,
                            struct zc_error *err)
{
    if (scheme == ZC_SCHEME_WEBHDFS && (o->no_verify_ssl || o->ca_bundle))
        return zc_error_set(err, -EINVAL, "--%s has no effect: webhdfs:// does not use TLS",
                            o->ca_bundle ? "ca-bundle" : "no-verify-ssl");
    if (o->no_verify_ssl && o->ca_bundle)
        return zc_error_set(err, -EINVAL,
                            "--ca-bundle has no effect with --no-verify-ssl: give one of them");
    if (o->hdfs_user && (o->hdfs_keytab || o->hdfs_principal || o->hdfs_token))
        return zc_error_set(err, -EINVAL,
                            "--hdfs-user is for clusters without Kerberos; it does not go with "
                            "--%s",
                            o->hdfs_keytab      ? "hdfs-keytab"
                            : o->hdfs_principal ? "hdfs-principal"
                                                : "hdfs-token");
    if (o->hdfs_token && (o->hdfs_keytab || o->hdfs_principal))
        return zc_error_set(err, -EINVAL,
                            "--hdfs-token takes the place of a Kerberos login; it does not go "
                            "with --%s",
                            o->hdfs_keytab ? "hdfs-keytab" : "hdfs-principal");
    return 0;
}

static unsigned mount_scheme_flag(enum zc_scheme scheme)
{
    return scheme == ZC_SCHEME_S3 ? ZC_OPT_S3 : zc_scheme_is_hdfs(scheme) ? ZC_OPT_HDFS : 0;
}

bool zc_source_opt_fits(const struct zc_opt *o, enum zc_scheme scheme)
{
    unsigned for_whom = o->flags & (ZC_OPT_S3 | ZC_OPT_HDFS);
    return !for_whom || (for_whom & mount_scheme_flag(scheme));
}

int zc_source_opts_finish(const struct zc_mount_opts *o, uint64_t given,
                          const struct zc_source *src, struct zc_error *err)
{
    for (size_t i = 0; i < zc_source_table.n; i++) {
        if ((given >> i & 1) && !zc_source_opt_fits(&mount_rows[i], src->scheme))
            return zc_error_set(err, -EINVAL, "--%s has no effect on a %s:// source",
                                mount_rows[i].name, zc_scheme_name(src->scheme));
    }
    int r = src->scheme == ZC_SCHEME_S3      ? mount_check_s3(o, err)
            : zc_scheme_is_hdfs(src->scheme) ? mount_check_hdfs(o, src->scheme, err)
                                             : 0;
    if (r < 0)
        return r;
    if (o->negative_metadata_ttl >= 0 && o->metadata_ttl == 0 && o->negative_metadata_ttl > 0)
        return zc_error_set(err, -EINVAL,
                            "--negative-metadata-ttl has no effect with --metadata-ttl minimal, "
                            "which asks the store "
                            "each time");
    return 0;
}

bool zc_source_opts_tls(const struct zc_mount_opts *o, const struct zc_source *src)
{
    return src->scheme == ZC_SCHEME_S3
               ? !o->endpoint_url || strncmp(o->endpoint_url, "http://", 7) != 0
               : src->scheme != ZC_SCHEME_WEBHDFS;
}

int zc_mount_opts_finish(struct zc_mount_opts *o, uint64_t given, uid_t euid, struct zc_error *err)
{
    if (o->chunk_size & (o->chunk_size - 1))
        return zc_error_set(err, -EINVAL,
                            "--chunk-size must be a power of two, such as 1MiB or 4MiB");
    if (o->cache_size && o->cache_size < o->chunk_size)
        return zc_error_set(err, -EINVAL, "--cache-size is smaller than one chunk (--chunk-size)");
    if (o->free_space_ratio > 0.99)
        return zc_error_set(err, -EINVAL, "--free-space-ratio leaves no room for a cache");
    if (o->cache_dir && strchr(o->cache_dir, ':'))
        return zc_error_set(
            err, -EINVAL,
            "--cache-dir '%.200s': there can be one folder only, and no ':' in its name",
            o->cache_dir);

    static const enum zc_toggle passthrough[] = {ZC_AUTO, ZC_OFF},
                                io_uring[] = {ZC_AUTO, ZC_ON, ZC_OFF};
    o->passthrough = passthrough[o->passthrough];
    o->io_uring = io_uring[o->io_uring];
    if (o->io_uring == ZC_ON && euid != 0)
        return zc_error_set(err, -EINVAL,
                            "--io-uring on changes a setting of the kernel, which only root may");
    if (!o->memory_target)
        o->memory_target = zc_memory_default(zc_cgroup_memory());
    return zc_cluster_opts_finish(o, given, err);
}

/* ------------------------------------------------------------------ memory */

uint64_t zc_memory_default(uint64_t limit)
{
    uint64_t want = 256 * ZC_MIB;
    if (limit && limit / 2 < want)
        want = limit / 2;
    return ZC_MAX(want, 64 * ZC_MIB);
}

static bool mem_read(const char *path, char *buf, size_t n)
{
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    ssize_t got = read(fd, buf, n - 1);
    if (got <= 0)
        return false;
    buf[got] = 0;
    return true;
}

uint64_t zc_cgroup_memory(void)
{
    char groups[4096], path[4096 + 64], text[64];
    uint64_t least = 0;
    if (!mem_read("/proc/self/cgroup", groups, sizeof(groups)))
        return 0;
    char *own = strstr(groups, "0::/");
    if (!own || (own != groups && own[-1] != '\n'))
        return 0;
    own += 3;
    own[strcspn(own, "\n")] = 0;
    /* The limit of any group above counts too. */
    for (;;) {
        snprintf(path, sizeof(path), "/sys/fs/cgroup%s/memory.max",
                 strcmp(own, "/") == 0 ? "" : own);
        if (mem_read(path, text, sizeof(text)) && text[0] >= '0' && text[0] <= '9') {
            uint64_t v = strtoull(text, NULL, 10);
            least = least ? ZC_MIN(least, v) : v;
        }
        char *slash = strrchr(own, '/');
        if (!slash || strcmp(own, "/") == 0)
            return least;
        slash[slash == own] = 0;
    }
}
