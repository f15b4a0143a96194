/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room share.
 *
 * Locks: zc_peer->health.lock (table of nodes), peer_server->lock (who receives what),
 * peer_checked->lock (sums of parts),
 * peer_stream->lock, share->lock (what a cancel looks at), share_op->lock. Only peer_stream->lock
 * is taken under another one, peer_server->lock. Calls under locks: libmicrohttpd's to suspend and
 * resume, and zc_object_abroad, under peer_stream->lock; the cancel of a backend under
 * share_op->lock. All of these take locks of their own only, and call nobody back.
 */
#ifndef ZC_PEER_PRIV_H
#define ZC_PEER_PRIV_H

#include "base/list.h"
#include "net/net.h"
#include "peer/body.h"
#include "peer/checked.h"
#include "peer/health.h"
#include "peer/heat.h"
#include "peer/peer.h"
#include "peer/referral.h"
#include "peer/trust.h"
#include "peer/wire.h"

#include <pthread.h>
#include <stdatomic.h>

struct MHD_Daemon;
struct MHD_Connection;
struct peer_server;

struct zc_peer {
    struct zc_peer_config cfg;
    _Atomic(struct peer_trust *) trust; /* NULL without; the first one says whether there is any */
    struct zc_net *net;
    struct peer_health health;
    struct peer_hot hot_keys;
    struct peer_server *server;
    uint16_t port;
    _Atomic uint64_t asked, bytes_in, served, bytes_out, referred, refused, hedges, late, failed,
        bad_sums, direct, former, hot, replicas;
};

static inline void peer_count(_Atomic uint64_t *c, uint64_t n)
{
    atomic_fetch_add_explicit(c, n, memory_order_relaxed);
}

/* ---- client: one question to one node (attempt.c) ---- */

/* All on the loop that the attempt was started on. */
struct peer_attempt;
struct peer_attempt_ops {
    /* The node's first word is here, and promises bytes. false: nobody wants it any more. */
    bool (*speaks)(struct peer_attempt *);
    /* Bytes whose sum was right. 0 or negative errno to stop. */
    int (*bytes)(struct peer_attempt *, const void *p, size_t n);
    /* The last call; the attempt is freed after it. err: 0 when all that the answer promised came
       (see answer for how much that was), -ENOENT 404, -EBUSY 409 and 503, -EXDEV for a referral,
       -EBADMSG when anything was wrong, or what the network says. */
    void (*done)(struct peer_attempt *, int err);
};

struct peer_attempt {
    struct zc_http http;
    struct zc_peer *p;
    const struct peer_attempt_ops *ops;
    void *user;
    struct zc_cluster_node node;
    struct peer_answer answer;
    struct zc_digest object;
    uint64_t off, len; /* asked for */
    int64_t started_ns;
    int64_t spoke_ns; /* how long the first word took; 0: it did not come */
    bool bad;         /* anything was wrong */
    bool doubts;      /* what becomes of it says nothing about the node */
    bool stopped;     /* who wanted the bytes does not want them any more */
    struct zc_net_tls net_tls;
    char pinned[64];
    char *url;
    struct peer_body body; /* once it has spoken */
    uint64_t moved;        /* bytes that had come at moved_ns */
    int64_t moved_ns;
};

/* Starts a question for len bytes at off of the request's object. 0, or negative errno and nothing
   was started. The request is copied. */
int peer_attempt_start(struct zc_peer *p, const struct zc_cluster_node *to,
                       const struct peer_request *req, struct zc_digest object, unsigned loop,
                       const struct peer_attempt_ops *ops, void *user, struct peer_attempt **out);
/* done() follows with -ECANCELED. On the loop. */
void peer_attempt_cancel(struct peer_attempt *a);
/* "http://10.0.0.1:7947" and how to speak to it. pinned: room for the key's name. */
int peer_url(struct zc_peer *p, const struct zc_cluster_node *to, struct zc_buf *url,
             struct zc_net_tls *tls, char pinned[64]);

/* ---- server (server.c, stream.c) ---- */

int peer_server_new(struct zc_peer *p, struct peer_server **out, uint16_t *port,
                    struct zc_error *err);
void peer_server_free(struct peer_server *s);

struct peer_server {
    struct zc_peer *p;
    struct MHD_Daemon *mhd;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct zc_list children;
    struct peer_heat heat;
    struct peer_checked checked;
    struct zc_list streams; /* struct peer_stream that wait for their connection */
    unsigned asking;        /* threads of the ask half */
    _Atomic unsigned filling;
    _Atomic size_t bodies; /* bytes of questions that are coming in */
    _Atomic bool stopping;
};

void peer_child_free(struct peer_server *s, struct peer_child *c);
struct MHD_Response;
/* The headers that every answer with bytes has. */
void peer_answer_head(struct peer_server *s, struct MHD_Response *r, struct zc_object *o,
                      const char *state, uint64_t off, uint64_t len);

/* Answers with bytes as they come. Takes the object over. An MHD_Result. */
int peer_stream_answer(struct peer_server *s, struct MHD_Connection *conn, struct zc_object *o,
                       const struct peer_request *r, struct peer_child *child);
/* Wakes those that wait, so that they end; none waits any more. After `stopping` was set. */
void peer_streams_end(struct peer_server *s);

#endif
