/* SPDX-License-Identifier: Apache-2.0 */
/* The room's life, questions to other daemons, figures. */
#include "peer/peer_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define PEER_CONNECTIONS 512
#define PEER_ANSWER_MAX (16 * ZC_MIB)

static int peer_trust_copy(struct zc_peer *p, const struct zc_peer_tls *from, struct zc_error *err)
{
    struct zc_peer_tls tls = {
        .cert = strdup(from->cert), .key = strdup(from->key), .ca = strdup(from->ca)};
    struct peer_trust *t;
    memcpy(tls.spki, from->spki, sizeof(tls.spki));
    if (!tls.cert || !tls.key || !tls.ca) {
        zc_peer_tls_free(&tls);
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    int r = peer_trust_new(&tls, &t, err);
    if (r == 0)
        atomic_store(&p->trust, t);
    return r;
}

int zc_peer_keys(struct zc_peer *p, const struct zc_peer_key *keys, unsigned n,
                 const uint8_t id[16], struct zc_error *err)
{
    struct peer_trust *now = atomic_load(&p->trust), *t;
    struct zc_peer_tls tls;
    assert(now);
    int r = zc_peer_tls_derive(keys, n, id, now->tls.key, &tls, err);
    if (r < 0)
        return r;
    if (strcmp(tls.ca, now->tls.ca) == 0) { /* the same keys in the same order */
        zc_peer_tls_free(&tls);
        return 0;
    }
    r = peer_trust_new(&tls, &t, err);
    if (r < 0)
        return r;
    t->before = now;
    atomic_store(&p->trust, t);
    return 1;
}

int zc_peer_new(const struct zc_peer_config *cfg, struct zc_peer **out, struct zc_error *err)
{
    struct zc_peer *p = calloc(1, sizeof(*p));
    uint16_t port;
    if (!p)
        return zc_error_set(err, -ENOMEM, "no memory");
    p->cfg = *cfg;
    peer_health_init(&p->health);
    peer_hot_init(&p->hot_keys);
    int r = 0;
    if (cfg->tls)
        r = peer_trust_copy(p, cfg->tls, err);
    struct zc_net_config net = {.connections = PEER_CONNECTIONS};
    if (r == 0) {
        r = zc_net_new(&net, &p->net);
        if (r < 0)
            zc_error_set(err, r, "cannot start the network: %s", strerror(-r));
    }
    if (r == 0)
        r = peer_server_new(p, &p->server, &port, err);
    if (r < 0) {
        zc_peer_free(p);
        return r;
    }
    p->port = port;
    *out = p;
    return 0;
}

uint16_t zc_peer_port(const struct zc_peer *p)
{
    return p->port;
}

void zc_peer_hang_up(struct zc_peer *p)
{
    if (p)
        zc_net_stop(p->net);
}

void zc_peer_stop(struct zc_peer *p)
{
    if (!p)
        return;
    peer_server_free(p->server);
    p->server = NULL;
}

void zc_peer_free(struct zc_peer *p)
{
    if (!p)
        return;
    zc_peer_stop(p);
    if (p->net)
        zc_net_free(p->net);
    peer_health_free(&p->health);
    peer_hot_free(&p->hot_keys);
    peer_trust_free(atomic_load(&p->trust));
    free(p);
}

int zc_peer_ask(struct zc_peer *p, const struct zc_cluster_node *to, const char *op,
                const char *body, size_t n, int timeout_ms, struct zc_buf *reply,
                struct zc_error *err)
{
    zc_autobuf struct zc_buf url = {0};
    struct zc_net_tls tls;
    char pinned[64];
    char *text = NULL;
    size_t len = 0;
    int r = peer_url(p, to, &url, &tls, pinned);
    zc_buf_addf(&url, "/v1/ask/%s", op);
    if (r < 0 || url.failed)
        return zc_error_set(err, r < 0 ? r : -ENOMEM, "no memory");
    struct zc_http http = {.method = "POST",
                           .url = url.p,
                           .tls = tls.cert_pem ? &tls : NULL,
                           .body = body,
                           .body_len = n,
                           .connect_timeout_ns = ZC_NS_PER_S,
                           .stall_ns = (int64_t)timeout_ms * ZC_NS_PER_MS,
                           .deadline_ns = zc_now_ns() + (int64_t)timeout_ms * ZC_NS_PER_MS,
                           .direct = true};
    r = zc_net_wait(p->net, &http, PEER_ANSWER_MAX, &text, &len);
    if (r < 0)
        zc_error_set(err, r, "%s", http.why[0] ? http.why : strerror(-r));
    else if (http.status != 200 && http.status != 500)
        r = zc_error_set(err, -EIO, "answers with status %d: %.200s", http.status,
                         text ? text : "");
    else
        r = zc_buf_add(reply, text ? text : "", len);
    free(text);
    return r;
}

void zc_peer_get_stats(struct zc_peer *p, struct zc_peer_stats *out)
{
    *out = (struct zc_peer_stats){
        .asked = atomic_load(&p->asked),
        .bytes_in = atomic_load(&p->bytes_in),
        .served = atomic_load(&p->served),
        .bytes_out = atomic_load(&p->bytes_out),
        .referred = atomic_load(&p->referred),
        .refused = atomic_load(&p->refused),
        .hedges = atomic_load(&p->hedges),
        .late = atomic_load(&p->late),
        .failed = atomic_load(&p->failed),
        .bad_sums = atomic_load(&p->bad_sums),
        .direct = atomic_load(&p->direct),
        .former = atomic_load(&p->former),
        .hot = atomic_load(&p->hot),
        .replicas = atomic_load(&p->replicas),
        .aside = peer_health_aside(&p->health, zc_now_ns()),
    };
}
