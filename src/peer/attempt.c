/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to one node. Bytes are held back until the sum of their piece was checked: a piece
 * is a chunk where the node knew the sums before it sent anything, and a frame where it passes on
 * what is only just arriving.
 */
#include "peer/peer_priv.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define ATTEMPT_CONNECT_NS ZC_NS_PER_S
#define ATTEMPT_STALL_NS (2 * ZC_NS_PER_S) /* without a byte, ticks included */
#define ATTEMPT_SLOWEST (512 * ZC_KIB)     /* bytes a second, after some time to begin */
#define ATTEMPT_BEGIN_NS (30 * ZC_NS_PER_S)
#define ATTEMPT_NODATA_NS (10 * ZC_NS_PER_S) /* with ticks, or a trickle, only */

/* ------------------------------------------------------------------ where to */

int peer_url(struct zc_peer *p, const struct zc_cluster_node *to, struct zc_buf *url,
             struct zc_net_tls *tls, char pinned[64])
{
    static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    static const uint8_t none[ZC_NODE_SPKI];
    char host[INET6_ADDRSTRLEN] = "";
    bool six = to->addr.sa.sa_family == AF_INET6;
    const void *ip = six ? (const void *)&to->addr.in6.sin6_addr : &to->addr.in.sin_addr;
    if (!inet_ntop(six ? AF_INET6 : AF_INET, ip, host, sizeof(host)))
        return -EINVAL;
    const struct peer_trust *trust = atomic_load(&p->trust); /* its texts stay */
    zc_buf_addf(url, six ? "%s://[%s]:%u" : "%s://%s:%u", trust ? "https" : "http", host,
                (unsigned)ntohs(six ? to->addr.in6.sin6_port : to->addr.in.sin_port));
    *tls = (struct zc_net_tls){0};
    if (!trust)
        return url->failed ? -ENOMEM : 0;
    *tls = (struct zc_net_tls){.cert_pem = trust->tls.cert,
                               .key_pem = trust->tls.key,
                               .ca_pem = trust->tls.ca,
                               .tls13 = true,
                               .no_name = true};
    if (memcmp(to->spki, none, sizeof(none)) != 0) {
        /* What gossip says of the node is sealed with the cluster's key: nobody but the node of
           this id will do. */
        char *out = pinned + sprintf(pinned, "sha256//");
        for (unsigned i = 0; i < ZC_NODE_SPKI; i += 3) {
            unsigned left = ZC_NODE_SPKI - i;
            uint32_t v = (uint32_t)to->spki[i] << 16 |
                         (left > 1 ? (uint32_t)to->spki[i + 1] << 8 : 0) |
                         (left > 2 ? to->spki[i + 2] : 0);
            *out++ = b64[v >> 18];
            *out++ = b64[v >> 12 & 63];
            *out++ = left > 1 ? b64[v >> 6 & 63] : '=';
            *out++ = left > 2 ? b64[v & 63] : '=';
        }
        *out = 0;
        tls->pinned = pinned;
    }
    return url->failed ? -ENOMEM : 0;
}

/* ------------------------------------------------------------------ what comes */

static int attempt_deliver(void *user, const void *p, size_t n)
{
    struct peer_attempt *a = user;
    peer_count(&a->p->bytes_in, n);
    int r = a->ops->bytes(a, p, n);
    a->stopped = r < 0;
    return r;
}

static void attempt_header(struct zc_http *h, const char *line, size_t n)
{
    struct peer_attempt *a = h->user;
    if (a->spoke_ns)
        return; /* behind a body: the promise was made before it */
    if (peer_answer_line(&a->answer, line, n) < 0)
        a->bad = true;
}

static void attempt_spoke(struct peer_attempt *a)
{
    if (a->spoke_ns)
        return;
    a->spoke_ns = ZC_MAX(zc_now_ns() - a->started_ns, (int64_t)1);
    if (!a->doubts)
        peer_health_spoke(&a->p->health, a->node.index, a->spoke_ns);
}

/* Pieces of a hit may be large and the way narrow: what has come of one counts, too. */
static bool attempt_moves(struct peer_attempt *a)
{
    const struct peer_body *b = &a->body;
    uint64_t got = b->pos + (a->answer.state == PEER_STATE_HIT ? b->have : 0);
    int64_t now = zc_now_ns();
    a->moved_ns = ZC_MAX(a->moved_ns, b->data_ns);
    if (got >= a->moved + PEER_FRAME_MAX) {
        a->moved = got;
        a->moved_ns = now;
    }
    return now - a->moved_ns <= ATTEMPT_NODATA_NS;
}

static int attempt_data(struct zc_http *h, const void *p, size_t n)
{
    struct peer_attempt *a = h->user;
    if (h->status != 206)
        return 0; /* words for people */
    peer_health_got(&a->p->health, a->node.index, n);
    if (!a->spoke_ns) {
        attempt_spoke(a);
        if (a->bad || peer_answer_check(&a->answer, a->object, a->off, a->len) < 0) {
            a->bad = true;
            return -EBADMSG;
        }
        if (!a->ops->speaks(a))
            return -ECANCELED;
        peer_body_init(&a->body, &a->answer, a->p->cfg.seed, attempt_deliver, a);
    }
    int r = peer_body_data(&a->body, p, n);
    if (r == 0 && !attempt_moves(a))
        r = -ETIMEDOUT;
    a->bad = a->bad || a->body.bad;
    return r;
}

/* ------------------------------------------------------------------ the end */

static int attempt_result(const struct peer_attempt *a, int err)
{
    if (a->bad)
        return -EBADMSG;
    if (err < 0)
        return err;
    switch (a->http.status) {
    case 206:
        if (!peer_body_whole(&a->body))
            return -ECONNRESET;
        return a->body.pos ? 0 : -EIO;
    case 307:
        return a->answer.n_refers ? -EXDEV : -EBADMSG;
    case 404:
        return -ENOENT;
    case 409:
    case 503:
        return -EBUSY;
    default:
        return -EIO;
    }
}

static void attempt_account(struct peer_attempt *a, int err)
{
    struct zc_peer *p = a->p;
    bool ours = a->stopped || err == -ECANCELED || err == -ENOMEM || err == -ESHUTDOWN;
    if (a->http.status && !a->spoke_ns && !ours)
        attempt_spoke(a);
    if (a->bad) {
        peer_count(&p->bad_sums, 1);
        peer_health_lied(&p->health, a->node.index, zc_now_ns());
    } else if (ours || a->spoke_ns) {
        if (ours && !a->spoke_ns)
            peer_health_nothing(&p->health, a->node.index);
        /* One that broke off in the middle is likely dead. */
        if (err == -ECONNRESET || err == -ETIMEDOUT)
            peer_health_failed(&p->health, a->node.index, zc_now_ns());
    } else {
        peer_health_failed(&p->health, a->node.index, zc_now_ns());
    }
    if (err < 0 && !ours && err != -ENOENT && err != -EBUSY && err != -EXDEV)
        peer_count(&p->failed, 1);
}

static void attempt_free(struct peer_attempt *a)
{
    free(a->url);
    peer_body_free(&a->body);
    free(a);
}

static void attempt_done(struct zc_http *h, int err)
{
    struct peer_attempt *a = h->user;
    err = attempt_result(a, err);
    if (!a->doubts)
        attempt_account(a, err);
    a->ops->done(a, err);
    attempt_free(a);
}

void peer_attempt_cancel(struct peer_attempt *a)
{
    zc_net_cancel(a->p->net, &a->http);
}

int peer_attempt_start(struct zc_peer *p, const struct zc_cluster_node *to,
                       const struct peer_request *req, struct zc_digest object, unsigned loop,
                       const struct peer_attempt_ops *ops, void *user, struct peer_attempt **out)
{
    zc_autobuf struct zc_buf url = {0};
    struct peer_attempt *a = calloc(1, sizeof(*a));
    if (!a)
        return -ENOMEM;
    *a = (struct peer_attempt){.p = p,
                               .ops = ops,
                               .user = user,
                               .node = *to,
                               .object = object,
                               .off = req->off,
                               .len = req->len,
                               .doubts = req->doubt,
                               .started_ns = zc_now_ns()};
    int r = peer_url(p, to, &url, &a->net_tls, a->pinned);
    peer_request_target(req, &url);
    a->url = r == 0 ? zc_buf_steal(&url) : NULL;
    if (!a->url) {
        attempt_free(a);
        return r < 0 ? r : -ENOMEM;
    }
    a->http = (struct zc_http){.method = "GET",
                               .url = a->url,
                               .tls = a->net_tls.cert_pem ? &a->net_tls : NULL,
                               .expect = req->len,
                               .connect_timeout_ns = ATTEMPT_CONNECT_NS,
                               .stall_ns = ATTEMPT_STALL_NS,
                               .deadline_ns = zc_now_ns() + ATTEMPT_BEGIN_NS +
                                              (int64_t)(req->len / ATTEMPT_SLOWEST) * ZC_NS_PER_S,
                               .direct = true,
                               .loop = loop,
                               .header = attempt_header,
                               .data = attempt_data,
                               .done = attempt_done,
                               .user = a};
    *out = a;
    peer_count(&p->asked, 1);
    r = zc_net_start(p->net, &a->http);
    if (r < 0)
        attempt_free(a);
    return r;
}
