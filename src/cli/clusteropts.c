/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node that others can reach must have a key: whoever may speak to it could otherwise make it ask
 * them for data, and read what it has. Only the loopback addresses, which the machine's own users
 * reach, are let go without.
 */
#include "cli/clusteropts.h"
#include "cluster/desc.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ addresses */

static int port_parse(const char *s, uint16_t *out)
{
    unsigned long v = 0;
    size_t n = strlen(s);
    if (n == 0 || n > 5 || strspn(s, "0123456789") != n)
        return -EINVAL;
    v = strtoul(s, NULL, 10);
    if (v == 0 || v > 65535)
        return -EINVAL;
    *out = (uint16_t)v;
    return 0;
}

/* Cuts "HOST", "HOST:PORT", "[HOST]:PORT" and a bare "::1" apart. */
static int host_split(const char *text, size_t n, char *host, size_t host_size, uint16_t *port)
{
    const char *end = text + n, *rest = end, *from = text, *to = end;
    const char *colon = memchr(text, ':', n);
    if (n && *text == '[') {
        const char *close = memchr(text, ']', n);
        if (!close)
            return -EINVAL;
        from = text + 1;
        to = close;
        rest = close + 1;
    } else if (colon && !memchr(colon + 1, ':', (size_t)(end - colon - 1))) {
        to = rest = colon;
    }
    if (to == from || (size_t)(to - from) >= host_size)
        return -EINVAL;
    memcpy(host, from, (size_t)(to - from));
    host[to - from] = 0;
    if (rest == end)
        return 0;
    char digits[8] = {0};
    if (*rest != ':' || (size_t)(end - rest - 1) >= sizeof(digits))
        return -EINVAL;
    memcpy(digits, rest + 1, (size_t)(end - rest - 1));
    return port_parse(digits, port);
}

int zc_sockaddr_parse(const char *text, uint16_t port, union zc_sockaddr *out)
{
    char host[64];
    union zc_sockaddr a = {0};
    if (host_split(text, strlen(text), host, sizeof(host), &port) < 0)
        return -EINVAL;
    if (inet_pton(AF_INET, host, &a.in.sin_addr) == 1)
        a.in.sin_family = AF_INET;
    else if (inet_pton(AF_INET6, host, &a.in6.sin6_addr) == 1)
        a.in6.sin6_family = AF_INET6;
    else
        return -EINVAL;
    zc_sockaddr_set_port(&a, port);
    *out = a;
    return 0;
}

uint16_t zc_sockaddr_port(const union zc_sockaddr *a)
{
    return ntohs(a->sa.sa_family == AF_INET ? a->in.sin_port : a->in6.sin6_port);
}

void zc_sockaddr_set_port(union zc_sockaddr *a, uint16_t port)
{
    if (a->sa.sa_family == AF_INET)
        a->in.sin_port = htons(port);
    else
        a->in6.sin6_port = htons(port);
}

const char *zc_sockaddr_text(const union zc_sockaddr *a, char *buf, size_t n)
{
    char host[INET6_ADDRSTRLEN] = "?";
    if (a->sa.sa_family == AF_INET)
        inet_ntop(AF_INET, &a->in.sin_addr, host, sizeof(host));
    else if (a->sa.sa_family == AF_INET6)
        inet_ntop(AF_INET6, &a->in6.sin6_addr, host, sizeof(host));
    snprintf(buf, n, a->sa.sa_family == AF_INET6 ? "[%s]:%u" : "%s:%u", host,
             (unsigned)zc_sockaddr_port(a));
    return buf;
}

bool zc_sockaddr_is_loopback(const union zc_sockaddr *a)
{
    return a->sa.sa_family == AF_INET ? ntohl(a->in.sin_addr.s_addr) >> 24 == 127
                                      : IN6_IS_ADDR_LOOPBACK(&a->in6.sin6_addr);
}

bool zc_sockaddr_is_any(const union zc_sockaddr *a)
{
    return a->sa.sa_family == AF_INET ? a->in.sin_addr.s_addr == 0
                                      : IN6_IS_ADDR_UNSPECIFIED(&a->in6.sin6_addr);
}

const char *zc_join_next(const char *list, char host[256], uint16_t *port)
{
    size_t n = strcspn(list, ",");
    *port = ZC_GOSSIP_PORT;
    if (host_split(list, n, host, 256, port) < 0 ||
        strspn(host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:%") !=
            strlen(host))
        host[0] = 0;
    return list[n] ? list + n + 1 : NULL;
}

/* ------------------------------------------------------------------ checks */

bool zc_cluster_wanted(const struct zc_mount_opts *o)
{
    return o->join || o->bind;
}

void zc_cluster_bind(const struct zc_mount_opts *o, union zc_sockaddr *out)
{
    if (!o->bind || zc_sockaddr_parse(o->bind, ZC_GOSSIP_PORT, out) < 0)
        zc_sockaddr_parse("0.0.0.0", ZC_GOSSIP_PORT, out);
}

static int cluster_check_addresses(const struct zc_mount_opts *o, struct zc_error *err)
{
    union zc_sockaddr bind, out;
    char host[256];
    uint16_t port;
    if (o->bind && zc_sockaddr_parse(o->bind, ZC_GOSSIP_PORT, &bind) < 0)
        return zc_error_set(err, -EINVAL,
                            "--bind '%.200s' is not an address of this machine, such as 10.0.0.7 "
                            "or [fd00::7]:7946",
                            o->bind);
    zc_cluster_bind(o, &bind);
    if (o->advertise && zc_sockaddr_parse(o->advertise, zc_sockaddr_port(&bind), &out) < 0)
        return zc_error_set(err, -EINVAL,
                            "--advertise '%.200s' is not an address, such as 10.0.0.7 or "
                            "[fd00::7]:7946",
                            o->advertise);
    if (o->advertise && zc_sockaddr_is_any(&out))
        return zc_error_set(
            err, -EINVAL, "--advertise '%.200s' is an address that nobody can reach", o->advertise);
    if (o->peer_port && o->peer_port == zc_sockaddr_port(&bind))
        return zc_error_set(err, -EINVAL,
                            "--peer-port %u is the port of --bind: give each one of its own",
                            (unsigned)o->peer_port);
    if (!o->peer_port && zc_sockaddr_port(&bind) == 65535)
        return zc_error_set(err, -EINVAL,
                            "--bind '%.200s' leaves no port after its own for the peers: name one "
                            "with --peer-port",
                            o->bind);
    for (const char *next = o->join; next;) {
        const char *at = next;
        next = zc_join_next(at, host, &port);
        if (!host[0])
            return zc_error_set(err, -EINVAL,
                                "--join '%.*s' is not HOST or HOST:PORT (several are separated by "
                                "commas)",
                                (int)ZC_MIN(strcspn(at, ","), (size_t)200), at);
    }
    return 0;
}

static int cluster_check_keys(const struct zc_mount_opts *o, struct zc_error *err)
{
    union zc_sockaddr bind;
    zc_cluster_bind(o, &bind);
    if (!o->cluster_key && !zc_sockaddr_is_loopback(&bind))
        return zc_error_set(err, -EINVAL,
                            "a node that others can reach needs --cluster-key FILE: make one with "
                            "'head -c 32 /dev/urandom | base64 > FILE', give it to all nodes, and "
                            "keep it secret (without a key, --bind 127.0.0.1 alone is possible)");
    if (!o->tls_cert != !o->tls_key || !o->tls_cert != !o->tls_ca)
        return zc_error_set(err, -EINVAL,
                            "--tls-cert, --tls-key and --tls-ca go together: --tls-%s is missing",
                            !o->tls_cert  ? "cert"
                            : !o->tls_key ? "key"
                                          : "ca");
    return 0;
}

int zc_cluster_opts_finish(const struct zc_mount_opts *o, uint64_t given, struct zc_error *err)
{
    for (size_t i = 0; i < zc_mount_table.n && !zc_cluster_wanted(o); i++) {
        const struct zc_opt *row = &zc_mount_table.opts[i];
        if ((given >> i & 1) && (row->flags & ZC_OPT_CLUSTER))
            return zc_error_set(err, -EINVAL,
                                "--%s has no effect without --join (or --bind, for the first node "
                                "of a cluster)",
                                row->name);
    }
    if (!zc_cluster_wanted(o))
        return 0;
    if (o->node_name && !cluster_name_ok(o->node_name))
        return zc_error_set(err, -EINVAL,
                            "--node-name '%.100s' is not 1 to %d letters, digits and signs",
                            o->node_name, ZC_NODE_NAME - 1);
    int r = cluster_check_addresses(o, err);
    return r < 0 ? r : cluster_check_keys(o, err);
}
