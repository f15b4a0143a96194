/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what a person writes to the HTTP addresses of NameNodes.
 *
 * webhdfs:// and swebhdfs:// name HTTP addresses themselves; hdfs:// names a nameservice or the
 * address of NameNode RPC, as Hadoop's own tools take it, and the cluster's configuration tells the
 * HTTP addresses.
 */
#include "backend/hdfs_conf.h"

#include "base/buf.h"
#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define RESOLVE_PORT 9870     /* dfs.namenode.http-address */
#define RESOLVE_PORT_TLS 9871 /* dfs.namenode.https-address */
#define RESOLVE_NN_MAX 32

int hdfs_hostport(const char *s, size_t n, char **host, unsigned *port)
{
    size_t hn;
    const char *h = s, *rest;
    if (n && s[0] == '[') {
        const char *end = memchr(s, ']', n);
        if (!end)
            return -EINVAL;
        h = s + 1;
        hn = (size_t)(end - h);
        rest = end + 1;
        if (strspn(h, "0123456789abcdefABCDEF:.") < hn)
            return -EINVAL;
    } else {
        const char *colon = memchr(s, ':', n);
        hn = colon ? (size_t)(colon - s) : n;
        rest = s + hn;
        for (size_t i = 0; i < hn; i++) {
            unsigned char c = (unsigned char)h[i];
            if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                  c == '-' || c == '.' || c == '_'))
                return -EINVAL;
        }
    }
    uint64_t p = 0;
    size_t left = (size_t)(s + n - rest);
    if (hn == 0 || hn > 253)
        return -EINVAL;
    if (left) {
        char text[8];
        if (rest[0] != ':' || left < 2 || left - 1 >= sizeof(text))
            return -EINVAL;
        memcpy(text, rest + 1, left - 1);
        text[left - 1] = 0;
        if (zc_parse_uint(text, 1, 65535, &p) < 0)
            return -EINVAL;
    }
    char *copy = strndup(h, hn);
    if (!copy)
        return -ENOMEM;
    *host = copy;
    *port = (unsigned)p;
    return 0;
}

void hdfs_target_free(struct hdfs_target *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->nn[i].host);
        free(t->nn[i].url);
        free(t->nn[i].name);
    }
    free(t->nn);
    free(t->name);
    memset(t, 0, sizeof(*t));
}

/* Adds an address; label NULL: it has no name but itself. Takes host, also on failure. */
static int target_add(struct hdfs_target *t, char *host, unsigned port, const char *label)
{
    struct hdfs_addr *nn =
        t->n < RESOLVE_NN_MAX ? reallocarray(t->nn, t->n + 1, sizeof(*nn)) : NULL;
    if (nn)
        t->nn = nn;
    struct hdfs_addr a = {.host = host};
    const char *open = strchr(host, ':') ? "[" : "", *close = *open ? "]" : "";
    if (!nn ||
        asprintf(&a.url, "http%s://%s%s%s:%u", t->tls ? "s" : "", open, host, close, port) < 0) {
        free(host);
        return -ENOMEM;
    }
    if (asprintf(&a.name, "%s%s%s%s%s:%u", label ? label : "", label ? " at " : "", open, host,
                 close, port) < 0) {
        free(a.url);
        free(host);
        return -ENOMEM;
    }
    t->nn[t->n++] = a;
    return 0;
}

static unsigned target_port(const struct hdfs_target *t)
{
    return t->tls ? RESOLVE_PORT_TLS : RESOLVE_PORT;
}

/* The HTTP address that belongs to a suffix of keys (".ns.nn1", ".ns", ""). 1 found, 0 not. */
static int resolve_keyed(const struct hdfs_conf *c, struct hdfs_target *t, const char *suffix,
                         const char *label, struct zc_error *err)
{
    zc_autofree char *http =
        hdfs_conf_getf(c, "dfs.namenode.http%s-address%s", t->tls ? "s" : "", suffix);
    zc_autofree char *rpc = hdfs_conf_getf(c, "dfs.namenode.rpc-address%s", suffix);
    zc_autofree char *host = NULL, *rpc_host = NULL;
    unsigned port = 0, rpc_port;
    if (rpc && *rpc && hdfs_hostport(rpc, strlen(rpc), &rpc_host, &rpc_port) < 0)
        return zc_error_set(err, -EINVAL,
                            "Hadoop's configuration: dfs.namenode.rpc-address%s '%.100s' is no "
                            "address",
                            suffix, rpc);
    if (http && *http && hdfs_hostport(http, strlen(http), &host, &port) < 0)
        return zc_error_set(err, -EINVAL,
                            "Hadoop's configuration: dfs.namenode.http%s-address%s '%.100s' is no "
                            "address",
                            t->tls ? "s" : "", suffix, http);
    /* "Any address" is where a daemon listens, not where it is to be found. */
    if ((!host || strcmp(host, "0.0.0.0") == 0) && rpc_host) {
        free(host);
        host = zc_steal_ptr(&rpc_host);
    }
    if (!host)
        return 0;
    int r = target_add(t, zc_steal_ptr(&host), port ? port : target_port(t), label);
    return r < 0 ? zc_error_set(err, r, "out of memory") : 1;
}

static bool resolve_in_list(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = list; s && *s;) {
        s += strspn(s, ", \t\r\n");
        size_t len = strcspn(s, ", \t\r\n");
        if (len == n && memcmp(s, word, n) == 0)
            return true;
        s += len;
    }
    return false;
}

/* The NameNodes of a nameservice. 1 found, 0 it is none. */
static int resolve_service(const struct hdfs_conf *c, struct hdfs_target *t, const char *ns,
                           struct zc_error *err)
{
    zc_autofree char *services = hdfs_conf_get(c, "dfs.nameservices");
    zc_autofree char *ids = hdfs_conf_getf(c, "dfs.ha.namenodes.%s", ns);
    char suffix[600];
    if (!resolve_in_list(services, ns) && !ids)
        return 0;
    if (!ids || !*ids) {
        snprintf(suffix, sizeof(suffix), ".%s", ns);
        int r = resolve_keyed(c, t, suffix, NULL, err);
        if (r == 0) /* one service, and keys without its name */
            r = resolve_keyed(c, t, "", NULL, err);
        if (r == 0)
            return zc_error_set(err, -EINVAL,
                                "Hadoop's configuration has no dfs.namenode.http-address for the "
                                "nameservice %s",
                                ns);
        return r;
    }
    for (const char *s = ids; *s;) {
        s += strspn(s, ", \t\r\n");
        size_t len = strcspn(s, ", \t\r\n");
        if (len == 0)
            break;
        char label[256];
        if (len >= sizeof(label) || strlen(ns) > 300)
            return zc_error_set(
                err, -EINVAL,
                "Hadoop's configuration: dfs.ha.namenodes.%.100s has a name that is "
                "too long",
                ns);
        memcpy(label, s, len);
        label[len] = 0;
        snprintf(suffix, sizeof(suffix), ".%s.%s", ns, label);
        int r = resolve_keyed(c, t, suffix, label, err);
        if (r < 0)
            return r;
        if (r == 0)
            return zc_error_set(err, -EINVAL,
                                "Hadoop's configuration has no dfs.namenode.http-address%s, though "
                                "dfs.ha.namenodes.%s names %s",
                                suffix, ns, label);
        s += len;
    }
    if (t->n == 0)
        return zc_error_set(err, -EINVAL, "Hadoop's configuration: dfs.ha.namenodes.%s is empty",
                            ns);
    return 1;
}

/* The host and port of NameNode RPC: its HTTP address where the configuration has it, else the
 * usual port. */
static int resolve_rpc(const struct hdfs_conf *c, struct hdfs_target *t, const char *authority,
                       struct zc_error *err)
{
    zc_autofree char *rpc = hdfs_conf_get(c, "dfs.namenode.rpc-address");
    zc_autofree char *fs = hdfs_conf_get(c, "fs.defaultFS");
    const char *def = fs && strncmp(fs, "hdfs://", 7) == 0 ? fs + 7 : "";
    size_t def_len = strcspn(def, "/");
    bool ours = (rpc && strcasecmp(rpc, authority) == 0) ||
                (def_len == strlen(authority) && strncasecmp(def, authority, def_len) == 0);
    if (ours) {
        int r = resolve_keyed(c, t, "", NULL, err);
        if (r != 0)
            return r;
    }
    char *host;
    unsigned port;
    int r = hdfs_hostport(authority, strlen(authority), &host, &port);
    if (r == -EINVAL)
        return zc_error_set(
            err, r,
            "'%.200s' is neither a host with a port nor a nameservice that Hadoop's "
            "configuration knows (--hadoop-conf, HADOOP_CONF_DIR)",
            authority);
    t->guessed = !ours && r == 0 && port == 0;
    if (r == 0)
        r = target_add(t, host, target_port(t), NULL);
    return r < 0 ? zc_error_set(err, r, "out of memory") : 1;
}

/* "host:port", or several with commas. */
static int resolve_http(struct hdfs_target *t, const char *authority, struct zc_error *err)
{
    for (const char *s = authority;; s++) {
        size_t n = strcspn(s, ",");
        char *host;
        unsigned port;
        int r = hdfs_hostport(s, n, &host, &port);
        if (r == -EINVAL)
            return zc_error_set(err, r, "'%.*s' is no address of a NameNode; write host:port",
                                (int)ZC_MIN(n, (size_t)200), s);
        if (r == 0)
            r = target_add(t, host, port ? port : target_port(t), NULL);
        if (r < 0)
            return zc_error_set(err, r, "out of memory, or more than %d addresses", RESOLVE_NN_MAX);
        s += n;
        if (!*s)
            return 1;
    }
}

static int resolve_name(struct hdfs_target *t, const char *service, struct zc_error *err)
{
    zc_autobuf struct zc_buf b = {0};
    if (service)
        zc_buf_adds(&b, service);
    for (size_t i = 0; !service && i < t->n; i++)
        zc_buf_addf(&b, "%s%s", i ? "," : "", strstr(t->nn[i].url, "://") + 3);
    t->name = zc_buf_steal(&b);
    return t->name ? 0 : zc_error_set(err, -ENOMEM, "out of memory");
}

int hdfs_resolve(const struct hdfs_conf *c, enum zc_hdfs_scheme scheme, const char *authority,
                 struct hdfs_target *out, struct zc_error *err)
{
    struct hdfs_target t = {.tls = scheme == ZC_HDFS_SWEBHDFS};
    zc_autofree char *policy = hdfs_conf_get(c, "dfs.http.policy");
    zc_autofree char *auth = hdfs_conf_get(c, "hadoop.security.authentication");
    zc_autofree char *fs = NULL;
    int r = 0;

    t.kerberos = auth && strcasecmp(auth, "kerberos") == 0;
    if (scheme == ZC_HDFS_HDFS) {
        t.tls = policy && strcasecmp(policy, "HTTPS_ONLY") == 0;
        if (!*authority) {
            fs = hdfs_conf_get(c, "fs.defaultFS");
            if (!fs || strncmp(fs, "hdfs://", 7) != 0 || !fs[7] || fs[7] == '/')
                return zc_error_set(err, -EINVAL, "hdfs:/// stands for fs.defaultFS, which %s",
                                    fs ? "is no hdfs:// address in Hadoop's configuration"
                                       : "no configuration tells (--hadoop-conf, HADOOP_CONF_DIR)");
            fs[7 + strcspn(fs + 7, "/")] = 0;
            authority = fs + 7;
        }
    } else if (!*authority) {
        return zc_error_set(err, -EINVAL, "the source names no host; write %s://host:port/path",
                            t.tls ? "swebhdfs" : "webhdfs");
    }
    /* Hadoop takes nameservices with each of its schemes. */
    r = resolve_service(c, &t, authority, err);
    bool service = r == 1;
    if (r == 0)
        r = scheme == ZC_HDFS_HDFS ? resolve_rpc(c, &t, authority, err)
                                   : resolve_http(&t, authority, err);
    if (r == 1)
        r = resolve_name(&t, service || scheme == ZC_HDFS_HDFS ? authority : NULL, err);
    if (r < 0) {
        hdfs_target_free(&t);
        return r;
    }
    *out = t;
    return 0;
}
