/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The certificates of the moment. They change while connections are open and questions under way,
 * so that each set of them is made once, never changed, and kept as long as the room: there are a
 * few in a node's life, one for each change of the cluster's keys.
 */
#ifndef ZC_PEER_TRUST_H
#define ZC_PEER_TRUST_H

#include "peer/tls.h"

#include <gnutls/abstract.h>
#include <gnutls/gnutls.h>

#define PEER_TRUST_CHAIN 8

struct peer_trust {
    struct zc_peer_tls tls;
    /* The same for GnuTLS, which shows it. */
    gnutls_pcert_st chain[PEER_TRUST_CHAIN];
    unsigned n_chain;
    gnutls_privkey_t key;
    struct peer_trust *before;
};

/* Takes over what tls holds, in any case. -EINVAL, -ENOMEM with words. Freed by peer_trust_free,
   with all that were before it. */
int peer_trust_new(struct zc_peer_tls *tls, struct peer_trust **out, struct zc_error *err);
void peer_trust_free(struct peer_trust *t);
/* For a callback of GnuTLS that is asked what a server shows: points the rest to what t holds. 0.
 */
int peer_trust_show(struct peer_trust *t, gnutls_session_t session, gnutls_pcert_st **chain,
                    unsigned *n_chain, gnutls_privkey_t *key);

#endif
