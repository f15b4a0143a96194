/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The daemon as a node. In the order in which things can be relied on: the ring of this node alone,
 * the peer server (whose key and port are announced), gossip. The end goes the other way round, so
 * that what is announced is there.
 */
#include "cli/daemon_cluster.h"
#include "cli/clusteropts.h"
#include "http/ctl_body.h"

#include "base/log.h"
#include "cluster/desc.h"
#include "ring/ring.h"
#include "member/member.h"
#include "peer/peer.h"

#include <errno.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>

#define CLUSTER_OWNER_ONLY 20 /* one part in so many of the cache for copies */
#define CLUSTER_SPARE_GROUPS 64

/* ------------------------------------------------------------------ what the other rooms ask */

static uint64_t cluster_used(void *user)
{
    struct zc_daemon *d = user;
    struct zc_cache_stats s;
    zc_cache_get_stats(d->cache, &s);
    return s.used;
}

/* Under the cache's lock. An object of several owners is spare when this node is none of them; of
   one with very many pieces it will be. */
static bool cluster_spare(void *user, struct zc_objid id, uint64_t size)
{
    struct zc_daemon *d = user;
    uint64_t groups = size / ZC_CLUSTER_GROUP + 1;
    for (uint64_t i = 0; i < ZC_MIN(groups, (uint64_t)CLUSTER_SPARE_GROUPS); i++) {
        if (!zc_cluster_spare(d->cluster, zc_cluster_key(id.id, i * ZC_CLUSTER_GROUP)))
            return false;
    }
    return true;
}

static void cluster_changed(void *user)
{
    struct zc_daemon *d = user;
    zc_cache_ask_spare(d->cache);
}

static bool cluster_mine(void *user, struct zc_objid id, uint64_t off)
{
    struct zc_daemon *d = user;
    struct zc_cluster_node first;
    return zc_cluster_rank(d->cluster, zc_cluster_key(id.id, off), &first, 1) == 0 || first.is_self;
}

struct zc_warm_part zc_daemon_part(struct zc_daemon *d)
{
    return (struct zc_warm_part){
        .mine = cluster_mine,
        .user = d,
        .piece = ZC_MAX(ZC_CLUSTER_GROUP, d->cfg->plan->o.chunk_size),
    };
}

/* ------------------------------------------------------------------ addresses and names */

static void cluster_name(const struct zc_mount_opts *o, char name[ZC_NODE_NAME])
{
    char host[256] = "";
    if (o->node_name) {
        snprintf(name, ZC_NODE_NAME, "%s", o->node_name);
        return;
    }
    gethostname(host, sizeof(host) - 1);
    host[ZC_NODE_NAME - 1] = 0;
    snprintf(name, ZC_NODE_NAME, "%s", cluster_name_ok(host) ? host : "node");
}

/* The address of this machine that faces `to`: the kernel's choice for a packet that is not sent.
 */
static bool address_towards(const struct sockaddr *to, socklen_t len, union zc_sockaddr *out)
{
    socklen_t n = sizeof(*out);
    zc_autoclose int fd = socket(to->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && connect(fd, to, len) == 0 && getsockname(fd, &out->sa, &n) == 0 &&
           !zc_sockaddr_is_any(out);
}

static bool address_towards_seeds(const char *join, int family, union zc_sockaddr *out)
{
    for (const char *next = join; next;) {
        char host[256];
        uint16_t port;
        struct addrinfo hints = {.ai_family = family, .ai_socktype = SOCK_DGRAM}, *list = NULL;
        bool found = false;
        next = zc_join_next(next, host, &port);
        if (!host[0] || getaddrinfo(host, "7946", &hints, &list) != 0)
            continue;
        for (struct addrinfo *a = list; a && !found; a = a->ai_next)
            found = address_towards(a->ai_addr, a->ai_addrlen, out);
        freeaddrinfo(list);
        if (found)
            return true;
    }
    return false;
}

/* Some address that is not loopback: for a first node, who has nobody to look towards. */
static bool address_any(int family, union zc_sockaddr *out)
{
    struct ifaddrs *list = NULL;
    bool found = false;
    if (getifaddrs(&list) < 0)
        return false;
    for (struct ifaddrs *i = list; i && !found; i = i->ifa_next) {
        if (!i->ifa_addr || i->ifa_addr->sa_family != family)
            continue;
        memcpy(out, i->ifa_addr,
               family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6));
        found = !zc_sockaddr_is_loopback(out) &&
                !(family == AF_INET6 && IN6_IS_ADDR_LINKLOCAL(&out->in6.sin6_addr));
    }
    freeifaddrs(list);
    return found;
}

static int cluster_advertise(const struct zc_mount_opts *o, const union zc_sockaddr *bind,
                             union zc_sockaddr *out, struct zc_error *err)
{
    uint16_t port = zc_sockaddr_port(bind);
    if (o->advertise)
        return zc_sockaddr_parse(o->advertise, port, out);
    *out = *bind;
    if (zc_sockaddr_is_any(bind) && !address_towards_seeds(o->join, bind->sa.sa_family, out) &&
        !address_any(bind->sa.sa_family, out))
        return zc_error_set(err, -EADDRNOTAVAIL,
                            "no address of this machine was found that other nodes could reach: "
                            "name one with --advertise");
    zc_sockaddr_set_port(out, port);
    return 0;
}

/* ------------------------------------------------------------------ beginning and end */

static int cluster_new(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    struct zc_cache_stats cache;
    zc_autofree char *id_file = NULL;
    char name[ZC_NODE_NAME];
    zc_cache_get_stats(d->cache, &cache);
    /* Beside the cache's folder, since the folder itself goes when the cache is not to be kept. */
    if (asprintf(&id_file, "%s.node", cache.dir) < 0) {
        id_file = NULL;
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    cluster_name(o, name);
    struct zc_cluster_config cfg = {
        .name = name,
        .id_file = id_file,
        .peer_protocol = ZC_PEER_PROTOCOL,
        .capacity = cache.capacity,
        .used = cluster_used,
        .changed = cluster_changed,
        .user = d,
    };
    int r = zc_cluster_new(&cfg, &d->cluster, err);
    if (r < 0)
        return r;
    zc_cache_on_spare(d->cache, cluster_spare, d,
                      o->replicate == ZC_REPLICATE_OWNER_ONLY ? cache.capacity / CLUSTER_OWNER_ONLY
                                                              : 0);
    return 0;
}

/* ------------------------------------------------------------------ peers */

static int cluster_answer(void *user, const char *op, const char *body, size_t n,
                          struct zc_buf *reply)
{
    struct zc_daemon *d = user;
    pthread_mutex_lock(&d->lock);
    bool answers = d->answers;
    pthread_mutex_unlock(&d->lock);
    if (answers)
        return zc_daemon_answer(d, op, body, n, reply);
    zc_buf_adds(reply, "{\"error\":\"the node is starting or ending\"}");
    return -EAGAIN;
}

static int cluster_ask(void *user, const struct zc_cluster_node *to, const char *op,
                       const char *body, size_t n, int timeout_ms, struct zc_buf *reply,
                       struct zc_error *err)
{
    return zc_peer_ask(user, to, op, body, n, timeout_ms, reply, err);
}

static unsigned cluster_keys(const struct zc_keyring *ring, struct zc_peer_key out[ZC_KEYRING_MAX])
{
    unsigned n = (unsigned)zc_keyring_count(ring);
    for (unsigned i = 0; i < n; i++)
        out[i].p = zc_keyring_key(ring, i, &out[i].n);
    return n;
}

/* Certificates from the keys of the gossip. */
static int cluster_derive(struct zc_daemon *d, struct zc_peer_tls *tls, struct zc_error *err)
{
    struct zc_peer_key keys[ZC_KEYRING_MAX];
    struct zc_cluster_node self;
    struct zc_keyring *ring;
    int r = zc_member_keys_load(d->cfg->plan->o.cluster_key, &ring, err);
    if (r < 0)
        return r;
    unsigned n = cluster_keys(ring, keys);
    zc_cluster_self(d->cluster, &self);
    r = zc_peer_tls_derive(keys, n, self.id, NULL, tls, err);
    zc_keyring_free(ring);
    return r;
}

/* Gossip has read the file of keys; the certificates follow. Some milliseconds on its thread. The
   lock is for the end, when the peers go before the gossip does. */
static void cluster_keys_taken(void *user, const struct zc_keyring *ring)
{
    struct zc_daemon *d = user;
    struct zc_peer_key keys[ZC_KEYRING_MAX];
    struct zc_cluster_node self;
    struct zc_error err = {0};
    unsigned n = cluster_keys(ring, keys);
    zc_cluster_self(d->cluster, &self);
    pthread_mutex_lock(&d->lock);
    int r = d->peer ? zc_peer_keys(d->peer, keys, n, self.id, &err) : 0;
    pthread_mutex_unlock(&d->lock);
    if (r < 0)
        zc_warn("cluster: %s; the former certificates stay", err.text);
    else if (r > 0)
        zc_info("cluster: certificates for data between nodes from these keys");
}

static int cluster_peers(struct zc_daemon *d, struct zc_peer_tls *tls, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    union zc_sockaddr bind;
    int r = 0;
    bool safe = o->tls_cert || o->cluster_key;
    zc_cluster_bind(o, &bind);
    zc_sockaddr_set_port(&bind, o->peer_port ? (uint16_t)o->peer_port
                                             : (uint16_t)(zc_sockaddr_port(&bind) + 1));
    if (o->tls_cert)
        r = zc_peer_tls_load(o->tls_cert, o->tls_key, o->tls_ca, tls, err);
    else if (o->cluster_key)
        r = cluster_derive(d, tls, err);
    if (r < 0)
        return r;
    struct zc_peer_config peer = {
        .cluster = d->cluster,
        .fetch = d->fetch,
        .seed = ZC_DAEMON_SEED,
        .bind = &bind.sa,
        .tls = safe ? tls : NULL,
        .answer = cluster_answer,
        .user = d,
    };
    return zc_peer_new(&peer, &d->peer, err);
}

static int cluster_gossip(struct zc_daemon *d, const struct zc_peer_tls *tls, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    union zc_sockaddr bind, advertise;
    char text[64], other[64];
    zc_cluster_bind(o, &bind);
    int r = cluster_advertise(o, &bind, &advertise, err);
    if (r < 0)
        return r;
    struct zc_member_config member = {.bind = &bind.sa,
                                      .advertise = &advertise.sa,
                                      .seeds = o->join,
                                      .key_file = o->cluster_key,
                                      .keys_taken = o->tls_cert ? NULL : cluster_keys_taken,
                                      .keys_user = d};
    struct zc_cluster_gossip g = {.member = &member,
                                  .peer_port = zc_peer_port(d->peer),
                                  .spki = tls->cert ? tls->spki : NULL};
    r = zc_cluster_start(d->cluster, &g, err);
    if (r == 0)
        zc_info("cluster: listening on %s, known to others as %s",
                zc_sockaddr_text(&bind, text, sizeof(text)),
                zc_sockaddr_text(&advertise, other, sizeof(other)));
    return r;
}

int zc_daemon_cluster_start(struct zc_daemon *d, struct zc_error *err)
{
    if (!zc_cluster_wanted(&d->cfg->plan->o))
        return 0;
    d->warm_jobs = zc_warm_jobs_new();
    if (!d->warm_jobs)
        return zc_error_set(err, -ENOMEM, "no memory");
    struct zc_peer_tls tls = {0};
    int r = cluster_new(d, err);
    if (r == 0)
        r = cluster_peers(d, &tls, err);
    if (r == 0)
        r = cluster_gossip(d, &tls, err);
    zc_peer_tls_free(&tls);
    return r;
}

void zc_daemon_cluster_ready(struct zc_daemon *d)
{
    pthread_mutex_lock(&d->lock);
    d->answers = true;
    pthread_mutex_unlock(&d->lock);
}

bool zc_daemon_cluster_drain(struct zc_daemon *d)
{
    return d->cluster && zc_cluster_drain(d->cluster);
}

void zc_daemon_cluster_hang_up(struct zc_daemon *d)
{
    zc_peer_hang_up(d->peer);
}

void zc_daemon_cluster_stop(struct zc_daemon *d)
{
    pthread_mutex_lock(&d->lock);
    d->answers = false;
    pthread_mutex_unlock(&d->lock);
    zc_peer_stop(d->peer);
    zc_warm_jobs_free(d->warm_jobs);
    d->warm_jobs = NULL;
}

bool zc_daemon_calls(struct zc_daemon *d, struct zc_calls *out)
{
    *out = (struct zc_calls){.cluster = d->cluster, .ask = cluster_ask, .user = d->peer};
    return d->peer != NULL;
}

void zc_daemon_cluster_free(struct zc_daemon *d)
{
    if (d->cache && d->cluster)
        zc_cache_on_spare(d->cache, NULL, NULL, 0);
    pthread_mutex_lock(&d->lock);
    struct zc_peer *peer = zc_steal_ptr(&d->peer);
    pthread_mutex_unlock(&d->lock);
    zc_peer_free(peer);
    if (d->cluster)
        zc_cluster_free(d->cluster);
    d->cluster = NULL;
}

/* ------------------------------------------------------------------ for people */

static json_t *cluster_peer(struct zc_daemon *d)
{
    struct zc_peer_stats s;
    zc_peer_get_stats(d->peer, &s);
#define N(v) ((json_int_t)(v))
    return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:i}", "asked",
                     N(s.asked), "bytes_in", N(s.bytes_in), "served", N(s.served), "bytes_out",
                     N(s.bytes_out), "referred", N(s.referred), "refused", N(s.refused), "hedges",
                     N(s.hedges), "late", N(s.late), "failed", N(s.failed), "bad_sums",
                     N(s.bad_sums), "direct", N(s.direct), "former", N(s.former), "hot", N(s.hot),
                     "replicas", N(s.replicas), "aside", (int)s.aside);
#undef N
}

static json_t *cluster_member(const struct zc_cluster_member *m)
{
    static const char *const states[] = {
        [ZC_CLUSTER_ALIVE] = "alive",
        [ZC_CLUSTER_SUSPECT] = "suspect",
        [ZC_CLUSTER_DEAD] = "dead",
        [ZC_CLUSTER_LEFT] = "left",
    };
    static const char *const standings[] = {
        [ZC_CLUSTER_IN] = "in",
        [ZC_CLUSTER_ABSENT] = "not here any more",
        [ZC_CLUSTER_FOREIGN] = "another program",
        [ZC_CLUSTER_OTHER_VERSION] = "another version of zcache",
        [ZC_CLUSTER_DOUBLE] = "has the id of another node",
        [ZC_CLUSTER_TOO_MANY] = "one node too many",
    };
    char id[ZC_DIGEST_HEX + 1], address[64];
    union zc_sockaddr a = {.in6 = m->node.addr.in6};
    zc_digest_hex(id, zc_digest_load(m->node.id));
#define N(v) ((json_int_t)(v))
    return json_pack("{s:o s:s s:s s:s s:b s:s s:s s:f s:I s:I s:f s:I}", "name",
                     zc_ctl_text(m->name), "node", m->node.name, "id", id, "address",
                     zc_sockaddr_text(&a, address, sizeof(address)), "self", m->node.is_self,
                     "state", states[m->state], "standing", standings[m->standing], "since_s",
                     (double)(zc_now_ns() - m->since_ns) / 1e9, "weight_bytes",
                     N(zc_ring_weight_bytes(m->node.weight)), "nominal_bytes",
                     N(zc_ring_weight_bytes(m->node.nominal)), "share_percent", 100 * m->share,
                     "used_bytes", N(m->used_bytes));
#undef N
}

json_t *zc_daemon_cluster_json(struct zc_daemon *d)
{
    struct zc_cluster_node self;
    char id[ZC_DIGEST_HEX + 1], ring[17];
    unsigned n;
    double share = 0;
    if (!d->peer)
        return NULL;
    zc_autofree struct zc_cluster_member *m = zc_cluster_members(d->cluster, &n);
    json_t *list = json_array();
    for (unsigned i = 0; i < n; i++) {
        json_array_append_new(list, cluster_member(&m[i]));
        if (m[i].node.is_self)
            share = m[i].share;
    }
    zc_cluster_self(d->cluster, &self);
    zc_digest_hex(id, zc_digest_load(self.id));
    snprintf(ring, sizeof(ring), "%016llx", (unsigned long long)zc_cluster_digest(d->cluster));
    return json_pack("{s:s s:s s:i s:s s:f s:o s:o}", "node", self.name, "id", id, "nodes",
                     (int)zc_cluster_count(d->cluster), "ring", ring, "share_percent", 100 * share,
                     "peer", cluster_peer(d), "members", list);
}
