/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HDFS over WebHDFS as a source: NameNodes and DataNodes over HTTP, or an HttpFS gateway.
 *
 * A file is pinned as "fileId:mtime:length" and read by its inode (/.reserved/.inodes/fileId), so
 * that a file that took over its name can never be read in its place. A gateway that tells no file
 * ids is read by name, in pieces that are held back until a look at the file has shown that it is
 * still the same.
 */
#ifndef ZC_BACKEND_HDFS_H
#define ZC_BACKEND_HDFS_H

#include "backend/backend.h"

struct zc_net;

enum zc_hdfs_scheme {
    ZC_HDFS_HDFS,     /* hdfs://: nameservice or NameNode, resolved by Hadoop's configuration */
    ZC_HDFS_WEBHDFS,  /* webhdfs://: address of HTTP */
    ZC_HDFS_SWEBHDFS, /* swebhdfs://: the same with TLS */
};

struct zc_hdfs_config {
    enum zc_hdfs_scheme scheme;
    const char *authority; /* "host[:port]", several with commas, a nameservice, or "" with hdfs:
                              fs.defaultFS */
    const char *path;      /* "" or "a/b", no slash at either end */
    const char
        *conf_dir; /* folder of core-site.xml and hdfs-site.xml; NULL: HADOOP_CONF_DIR, else none */
    const char *user;       /* without Kerberos; NULL: HADOOP_USER_NAME, else who runs this */
    const char *keytab;     /* Kerberos: log in from it; NULL: the ticket cache */
    const char *principal;  /* Kerberos: log in as; NULL: what keytab or ticket cache has first */
    const char *token_file; /* a delegation token; NULL: HADOOP_TOKEN_FILE_LOCATION, else none */
    const char *ca_bundle;  /* TLS: authorities to trust; NULL: the system's */
    bool no_verify_ssl;
    bool tls_if_any;  /* these two are not meant for this source alone: no mistake where there is no
                         TLS */
    int64_t probe_ns; /* how long the first question may take; 0, or more than 30 s: 30 s */
};

/* -EINVAL and the like with words: an authority that is none, configuration that cannot be read.
   Does not reach for the network; probe() does. */
int zc_hdfs_new(struct zc_net *net, const struct zc_hdfs_config *cfg, struct zc_backend **out,
                struct zc_error *err);

/* ---- for who looks for faults (zcache doctor) ---- */

struct zc_hdfs_view {
    size_t n;              /* NameNodes or gateways */
    size_t active;         /* which of them answered last */
    bool kerberos;         /* the configuration says so */
    bool guessed;          /* the source's name is in no configuration, and was taken for a host */
    bool gateway;          /* HttpFS, once it is known */
    bool login_failed;     /* the last login did, or its credentials were not taken */
    const char *ca_bundle; /* or NULL; belongs to the source */
    const char *root;      /* "" or "/a/b" */
};
void zc_hdfs_look(struct zc_backend *be, struct zc_hdfs_view *out);
/* Of NameNode i: "http://host:port", and how to call it. Belong to the source. */
void zc_hdfs_look_namenode(struct zc_backend *be, size_t i, const char **url, const char **name);
/* DataNodes that reads have gone to so far: fn gets "host:port" and whether it failed last. */
typedef void zc_hdfs_node_fn(void *arg, const char *authority, bool bad);
void zc_hdfs_look_datanodes(struct zc_backend *be, zc_hdfs_node_fn *fn, void *arg);

#endif
