/* SPDX-License-Identifier: Apache-2.0 */
/* From a source and its options to what the HDFS room wants. */
#include "cli/daemon_int.h"

#include "backend/hdfs.h"

int zc_daemon_hdfs(struct zc_net *net, const struct zc_source *src, const struct zc_mount_opts *o,
                   struct zc_backend **out, struct zc_error *err)
{
    static const enum zc_hdfs_scheme schemes[] = {
        [ZC_SCHEME_HDFS] = ZC_HDFS_HDFS,
        [ZC_SCHEME_WEBHDFS] = ZC_HDFS_WEBHDFS,
        [ZC_SCHEME_SWEBHDFS] = ZC_HDFS_SWEBHDFS,
    };
    struct zc_hdfs_config cfg = {
        .scheme = schemes[src->scheme],
        .authority = src->authority,
        .path = src->prefix,
        .conf_dir = o->hadoop_conf,
        .user = o->hdfs_user,
        .keytab = o->hdfs_keytab,
        .principal = o->hdfs_principal,
        .token_file = o->hdfs_token,
        .ca_bundle = o->ca_bundle,
        .no_verify_ssl = o->no_verify_ssl,
        .tls_if_any = o->tls_if_any,
        .probe_ns = o->read_timeout,
    };
    return zc_hdfs_new(net, &cfg, out, err);
}
