/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers: the nodes of a cluster read each byte from the store once, and give it to each other.
 *
 * Two halves. The client is a wrapper around a source's backend: a get of bytes that another node
 * owns goes to that node, and to the store only when it, and the one after it, do not come up with
 * them in time. The server gives bytes of the cache to others, and fetches for them what this node
 * owns: fetch's single flight is the lease, so that however many ask, the store is asked once.
 *
 * What another node says is never believed: bytes are passed on only after their sum was checked,
 * and a node's failure, whatever it is, only means that the next one is asked. In the end the store
 * is asked, and what it says is the truth.
 *
 * Bounds: the peer's first word is waited for some milliseconds (measured, see health.h), then the
 * next one is asked, too, and then the third; a second later all are given up. A body that comes
 * slowly, or stands still, is left for the next node after a second or two (see health.h).
 *
 * Threads: any, unless said otherwise. Nothing blocks but zc_peer_new, _stop, _free and _ask.
 */
#ifndef ZC_PEER_H
#define ZC_PEER_H

#include "backend/backend.h"
#include "base/buf.h"
#include "cluster/cluster.h"
#include "fetch/fetch.h"
#include "peer/tls.h"

#define ZC_PEER_PROTOCOL 2

struct zc_peer;

struct zc_peer_config {
    struct zc_cluster *cluster;
    struct zc_fetch *fetch;
    uint64_t seed;                 /* of the content hashes: the cache's */
    const struct sockaddr *bind;   /* where to listen; port 0: any that is free */
    const struct zc_peer_tls *tls; /* NULL: plain HTTP; copied */
    /* What another node's daemon asks of this one's: may block, comes on a thread of its own, some
       at a time. Leaves the answer's bytes in *reply. 0 or negative errno. */
    int (*answer)(void *user, const char *op, const char *body, size_t n, struct zc_buf *reply);
    void *user;
};

/* Listens and starts threads. Words on failure. */
int zc_peer_new(const struct zc_peer_config *cfg, struct zc_peer **out, struct zc_error *err);
/* The cluster's keys are others now: certificates are made from them, for the key that this node
   has had since its start and that the others know of. Connections that begin from now on are made
   with these; of open ones those are served on whose certificate is still trusted. Of a room whose
   certificates were made from keys. One call at a time. 1, 0 when nothing is new, or as
   zc_peer_tls_derive; then all stays as it was. */
int zc_peer_keys(struct zc_peer *p, const struct zc_peer_key *keys, unsigned n,
                 const uint8_t id[16], struct zc_error *err);
uint16_t zc_peer_port(const struct zc_peer *p);
/* Questions to others end now, and there are no more: nobody waits for a node that does not answer.
   After zc_fetch_shutdown. NULL is allowed. */
void zc_peer_hang_up(struct zc_peer *p);
/* The server ends: open answers break off, new ones are refused. After zc_fetch_shutdown, since an
   answer may wait for a flight, and before zc_fetch_free. */
void zc_peer_stop(struct zc_peer *p);
/* No wrapped source is in use any more. NULL is allowed. */
void zc_peer_free(struct zc_peer *p);

/* Wraps a source. identity: as fetch knows it. Freeing it frees inner. -ENOMEM. */
int zc_peer_share(struct zc_peer *p, struct zc_backend *inner, const char *identity,
                  struct zc_backend **out);

/* Asks another node's daemon, see zc_peer_config.answer. 0 and the bytes, or negative errno with
   words. Blocks for timeout_ms at most. */
int zc_peer_ask(struct zc_peer *p, const struct zc_cluster_node *to, const char *op,
                const char *body, size_t n, int timeout_ms, struct zc_buf *reply,
                struct zc_error *err);

struct zc_peer_stats {
    uint64_t asked, bytes_in;      /* questions to others, bytes that came from them */
    uint64_t served, bytes_out;    /* questions of others that got bytes, and these */
    uint64_t referred, refused;    /* questions of others sent on, and refused as too many */
    uint64_t hedges, late, failed; /* second questions; first words that came late; breaks */
    uint64_t bad_sums;             /* bytes or words of others that were wrong */
    uint64_t direct;               /* gets of bytes of others that went to the store */
    uint64_t former;               /* gets of own bytes that a former owner had */
    uint64_t hot;                  /* answers that named replicas */
    uint64_t replicas;             /* gets of what is hot that went to a replica */
    unsigned aside;                /* nodes not asked at the moment */
};
void zc_peer_get_stats(struct zc_peer *p, struct zc_peer_stats *out);

#endif
