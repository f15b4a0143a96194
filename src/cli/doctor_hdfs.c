/* SPDX-License-Identifier: Apache-2.0 */
/*
 * HDFS over WebHDFS: Hadoop's configuration, each NameNode by itself (a mount asks the second only
 * when the first fails, so that it may be down for long before anybody notices), what state it is
 * in, who we are, the path, and the DataNodes that a read goes to.
 */
#include "cli/daemon_int.h"
#include "cli/doctor.h"

#include "backend/hdfs.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct hdfs_seen {
    unsigned answered, active, standby;
};

/* One attribute of a bean of NameNode's JMX; NULL when it does not tell. Caller frees. */
static char *hdfs_bean(struct zc_doctor *d, const char *url, const struct zc_net_tls *tls,
                       const char *bean, const char *attribute)
{
    zc_autofree char *full = NULL, *body = NULL;
    char *value = NULL;
    if (asprintf(&full, "%s/jmx?qry=Hadoop:service=NameNode,name=%s", url, bean) < 0) {
        full = NULL;
        return NULL;
    }
    struct zc_http http = {
        .method = "GET", .url = full, .tls = tls, .deadline_ns = zc_now_ns() + 10 * ZC_NS_PER_S};
    size_t n = 0;
    if (zc_net_wait(d->net, &http, 16 * ZC_MIB, &body, &n) < 0 || http.status != 200)
        return NULL;
    json_t *doc = json_loadb(body, n, 0, NULL);
    const json_t *first = json_array_get(json_object_get(doc, "beans"), 0);
    const char *s = json_string_value(json_object_get(first, attribute));
    if (s)
        value = strdup(s);
    json_decref(doc);
    return value;
}

static void hdfs_state(struct zc_doctor *d, const char *name, const char *url,
                       const struct zc_net_tls *tls, struct hdfs_seen *seen)
{
    zc_autofree char *state = hdfs_bean(d, url, tls, "NameNodeStatus", "State");
    zc_autofree char *safe = hdfs_bean(d, url, tls, "NameNodeInfo", "Safemode");
    if (!state) {
        zc_doc_step(d, "state", ZC_DOC_NOTE, -1, NULL,
                    "%s does not tell its state (it is a gateway, or wants a login for that)",
                    name);
        return;
    }
    seen->active += strcmp(state, "active") == 0;
    seen->standby += strcmp(state, "standby") == 0;
    zc_doc_step(d, "state", ZC_DOC_OK, -1, NULL, "%s is %.40s", name, state);
    if (safe && safe[0])
        zc_doc_step(d, "safe mode", ZC_DOC_WARNING, -1,
                    "it leaves it by itself once its DataNodes have reported; else hdfs dfsadmin "
                    "-safemode leave",
                    "%s is in safe mode: %.200s", name, safe);
}

/* A NameNode or gateway by itself: does it answer, and is it the one that answers for the rest? */
static void hdfs_namenode(struct zc_doctor *d, struct zc_backend *be, size_t i,
                          const struct zc_net_tls *tls, struct hdfs_seen *seen)
{
    const char *url, *name;
    struct zc_hdfs_view v;
    zc_autofree char *ask = NULL;
    int64_t skew_ns;
    zc_hdfs_look(be, &v);
    zc_hdfs_look_namenode(be, i, &url, &name);
    if (asprintf(&ask, "%s/webhdfs/v1/?op=GETFILESTATUS", url) < 0) {
        ask = NULL;
        return;
    }
    if (!zc_doc_url(d, name, url, tls,
                    v.guessed ? "a nameservice needs --hadoop-conf DIR (or HADOOP_CONF_DIR); a "
                                "host needs its NameNode up"
                              : "is the NameNode up, and is that its HTTP address "
                                "(dfs.namenode.http-address)?",
                    "the address must be the name that the certificate is for"))
        return;
    int status = zc_doc_get(d, name, ask, tls, &skew_ns, NULL);
    if (status < 0)
        return;
    if (status == 404) {
        zc_doc_step(d, "WebHDFS", ZC_DOC_FAILED, -1,
                    "dfs.webhdfs.enabled may be false there, or that is another service's port",
                    "%s does not know WebHDFS", name);
        return;
    }
    if (seen->answered++ == 0)
        zc_doc_clock(d, skew_ns, "where there is Kerberos, tickets may look expired or too new");
    hdfs_state(d, name, url, tls, seen);
}

static void hdfs_datanode(void *arg, const char *authority, bool bad)
{
    struct zc_doctor *d = arg;
    if (bad)
        zc_doc_step(d, "DataNode", ZC_DOC_WARNING, -1,
                    "can this machine resolve and reach it? It answers readers directly "
                    "(dfs.datanode.hostname, dfs.datanode.http.address)",
                    "%s did not answer", authority);
    else
        zc_doc_step(d, "DataNode", ZC_DOC_OK, -1, NULL, "%s answers", authority);
}

/* Logging in, the path, and a read. */
static void hdfs_source(struct zc_doctor *d, struct zc_backend *be)
{
    struct zc_error err = {0};
    struct zc_doc_found found = {0};
    struct zc_hdfs_view v;
    zc_doc_group(d, "file system");
    int64_t start = zc_now_ns();
    int r = zc_backend_probe(be, &err);
    double ms = zc_doc_ms(start);
    if (r < 0) {
        zc_hdfs_look(be, &v);
        zc_doc_step(d, v.login_failed ? "login" : "path", ZC_DOC_FAILED, ms,
                    v.login_failed ? "kinit (klist shows what there is), or pass --hdfs-keytab and "
                                     "--hdfs-principal, or --hdfs-token"
                    : r == -ENOENT ? "check the source's path"
                    : r == -EACCES ? "hdfs dfs -ls shows who may; on a cluster without Kerberos "
                                     "--hdfs-user says who you are"
                                   : NULL,
                    "%s", err.text);
        return;
    }
    zc_doc_step(d, "path", ZC_DOC_OK, ms, NULL, "%s", be->url);
    if (!zc_doc_list(d, be, &found, &err)) {
        zc_doc_step(d, "list", ZC_DOC_FAILED, -1,
                    err.code == -EACCES ? "hdfs dfs -ls shows who may; --hdfs-user says who you are"
                                        : NULL,
                    "%s", err.text);
    } else if (found.path) {
        zc_doc_read(d, be, &found,
                    "a read goes to a DataNode: see those below, and hdfs dfsadmin -report");
        zc_hdfs_look_datanodes(be, hdfs_datanode, d);
    }
    free(found.path);
}

void zc_doc_hdfs(struct zc_doctor *d)
{
    struct zc_backend *be = NULL;
    struct zc_error err = {0};
    struct zc_hdfs_view v;
    struct hdfs_seen seen = {0};
    zc_doc_group(d, "name nodes");
    if (zc_daemon_hdfs(d->net, d->src, d->o, &be, &err) < 0) {
        zc_doc_step(d, "configuration", ZC_DOC_FAILED, -1,
                    d->src->scheme == ZC_SCHEME_HDFS
                        ? "--hadoop-conf DIR (or HADOOP_CONF_DIR) with core-site.xml and "
                          "hdfs-site.xml"
                        : NULL,
                    "%s", err.text);
        return;
    }
    zc_hdfs_look(be, &v);
    const struct zc_net_tls tls = {.ca_bundle = v.ca_bundle, .no_verify = d->o->no_verify_ssl};
    unsigned failed = d->failed;
    for (size_t i = 0; i < v.n; i++)
        hdfs_namenode(d, be, i, &tls, &seen);
    if (v.n > 1 && seen.answered && !seen.active && seen.standby == seen.answered)
        zc_doc_step(d, "active", ZC_DOC_FAILED, -1, "hdfs haadmin -transitionToActive NODE",
                    "no NameNode is active");
    if (seen.answered || d->failed == failed)
        hdfs_source(d, be);
    zc_backend_free(be);
}
