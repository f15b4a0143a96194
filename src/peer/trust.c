/* SPDX-License-Identifier: Apache-2.0 */
/* See trust.h. */
#include "peer/trust.h"

#include <errno.h>
#include <string.h>

static gnutls_datum_t trust_datum(char *text)
{
    return (gnutls_datum_t){.data = (unsigned char *)text, .size = (unsigned)strlen(text)};
}

/* GnuTLS's number of what went wrong, or 0. */
static int trust_import(struct peer_trust *t)
{
    gnutls_datum_t cert = trust_datum(t->tls.cert), key = trust_datum(t->tls.key);
    unsigned n = PEER_TRUST_CHAIN;
    int r = gnutls_pcert_list_import_x509_raw(t->chain, &n, &cert, GNUTLS_X509_FMT_PEM, 0);
    if (r < 0)
        return r;
    t->n_chain = n;
    r = gnutls_privkey_init(&t->key);
    return r < 0 ? r : gnutls_privkey_import_x509_raw(t->key, &key, GNUTLS_X509_FMT_PEM, NULL, 0);
}

int peer_trust_new(struct zc_peer_tls *tls, struct peer_trust **out, struct zc_error *err)
{
    struct peer_trust *t = calloc(1, sizeof(*t));
    if (!t) {
        zc_peer_tls_free(tls);
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    t->tls = *tls;
    *tls = (struct zc_peer_tls){0};
    int r = trust_import(t);
    if (r < 0) {
        peer_trust_free(t);
        return zc_error_set(err, r == GNUTLS_E_MEMORY_ERROR ? -ENOMEM : -EINVAL,
                            "GnuTLS does not take the certificate: %s", gnutls_strerror(r));
    }
    *out = t;
    return 0;
}

void peer_trust_free(struct peer_trust *t)
{
    while (t) {
        struct peer_trust *before = t->before;
        for (unsigned i = 0; i < t->n_chain; i++)
            gnutls_pcert_deinit(&t->chain[i]);
        if (t->key)
            gnutls_privkey_deinit(t->key);
        zc_peer_tls_free(&t->tls);
        free(t);
        t = before;
    }
}

int peer_trust_show(struct peer_trust *t, gnutls_session_t session, gnutls_pcert_st **chain,
                    unsigned *n_chain, gnutls_privkey_t *key)
{
    /* The names of authorities that libmicrohttpd knows are those of its start. */
    gnutls_certificate_send_x509_rdn_sequence(session, 1);
    *chain = t->chain;
    *n_chain = t->n_chain;
    *key = t->key;
    return 0;
}
