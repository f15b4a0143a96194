/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may speak to peers: certificates, given as files or made from the cluster's key.
 *
 * From a key: every node makes the same certificate authority, byte for byte (an Ed25519 key drawn
 * from the cluster's key by HKDF-SHA256, RFC 5869), and signs with it a certificate for a key of
 * its own, which lives as long as the process. So one secret does for gossip and for data, and
 * whoever does not have it has no certificate. Several keys (while they are changed): the
 * authorities of all are trusted, the first one signs. The certificates are made anew when the keys
 * change; the node's own key stays.
 *
 * A peer is trusted for its certificate alone, which need not name its address: addresses of nodes
 * change, and which key is whose is said in gossip.
 *
 * Threads: any; a struct is only read after it was made.
 */
#ifndef ZC_PEER_TLS_H
#define ZC_PEER_TLS_H

#include "base/base.h"
#include "base/error.h"

#define ZC_PEER_SPKI 32

struct zc_peer_tls {
    char *cert, *key, *ca;      /* PEM, NUL-terminated; ca may hold several */
    uint8_t spki[ZC_PEER_SPKI]; /* SHA-256 of the certificate's public key (SubjectPublicKeyInfo) */
};

/* Reads files and checks that they fit together and are good for a server and a client now: words
   name the one at fault. Authorities between the node's and the root must be in the file of `ca`.
   Freed by zc_peer_tls_free. -ENOENT and what else open says, -EINVAL, -ENOMEM. */
int zc_peer_tls_load(const char *cert, const char *key, const char *ca, struct zc_peer_tls *out,
                     struct zc_error *err);
struct zc_peer_key {
    const uint8_t *p;
    size_t n;
};
/* keys: n cluster keys, the first of which signs. id: what the certificate names. own: the node's
   private key (PEM); NULL: a new one. -EINVAL without keys, -EIO with OpenSSL's words, -ENOMEM. */
int zc_peer_tls_derive(const struct zc_peer_key *keys, unsigned n, const uint8_t id[16],
                       const char *own, struct zc_peer_tls *out, struct zc_error *err);
/* Is this certificate (DER) one of a client that an authority has signed, and in its time? 0 or
   -EACCES. Some tens of microseconds for each authority. */
int zc_peer_tls_trusts(const struct zc_peer_tls *t, const void *der, size_t n);
/* Wipes the key, frees, and leaves an empty struct. */
void zc_peer_tls_free(struct zc_peer_tls *t);

#endif
