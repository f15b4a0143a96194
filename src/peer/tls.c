/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See tls.h. Keys are Ed25519 (RFC 8032): any 32 bytes are a private key, and signatures are
 * deterministic, so that all nodes make the same authority to the byte. What is made here has no
 * end of its time (RFC 5280, 4.1.2.5): it depends on no clock, and ends with the cluster's key.
 */
#include "peer/tls.h"

#include <errno.h>
#include <openssl/bio.h>
#include <openssl/core_names.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509_vfy.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <string.h>

#define TLS_SEED 32
#define TLS_FILE_MAX (1L << 20)

void zc_peer_tls_free(struct zc_peer_tls *t)
{
    if (t->key)
        OPENSSL_cleanse(t->key, strlen(t->key));
    free(t->cert);
    free(t->key);
    free(t->ca);
    *t = (struct zc_peer_tls){0};
}

/* OpenSSL's last words. */
static const char *tls_why(char *buf, size_t n)
{
    unsigned long e = ERR_peek_last_error();
    snprintf(buf, n, "%s", "no reason given");
    if (e)
        ERR_error_string_n(e, buf, n);
    ERR_clear_error();
    return buf;
}

static char *tls_bio_text(BIO *b)
{
    char *p, *out = NULL;
    long n = BIO_get_mem_data(b, &p);
    if (n > 0)
        out = strndup(p, (size_t)n);
    BIO_free(b);
    return out;
}

static int tls_spki(X509 *cert, uint8_t out[ZC_PEER_SPKI])
{
    uint8_t *der = NULL;
    unsigned n = 0;
    int len = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    if (len <= 0)
        return -EIO;
    int ok = EVP_Digest(der, (size_t)len, out, &n, EVP_sha256(), NULL);
    OPENSSL_free(der);
    return ok == 1 && n == ZC_PEER_SPKI ? 0 : -EIO;
}

/* No terminal is asked for a passphrase. */
static int tls_no_password(char *buf, int size, int rw, void *user)
{
    return -1;
}

static EVP_PKEY *tls_read_key(const char *text)
{
    BIO *b = BIO_new_mem_buf(text, -1);
    EVP_PKEY *k = b ? PEM_read_bio_PrivateKey(b, NULL, tls_no_password, NULL) : NULL;
    BIO_free(b);
    return k;
}

/* ------------------------------------------------------------------ from the cluster's key */

static int tls_hkdf(const struct zc_peer_key *key, const char *what, uint8_t *out, size_t n)
{
    EVP_KDF *kdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *ctx = kdf ? EVP_KDF_CTX_new(kdf) : NULL;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, (char *)"SHA256", 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)key->p, key->n),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, (void *)what, strlen(what)),
        OSSL_PARAM_construct_end(),
    };
    int ok = ctx ? EVP_KDF_derive(ctx, out, n, params) : 0;
    EVP_KDF_CTX_free(ctx);
    EVP_KDF_free(kdf);
    return ok == 1 ? 0 : -EIO;
}

static bool tls_extension(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && X509_add_ext(cert, e, -1) == 1;
    X509_EXTENSION_free(e);
    return ok;
}

/* A certificate without extensions and signature. serial: 16 bytes. */
static X509 *tls_certificate(EVP_PKEY *key, const char *name, const char *issuer,
                             const uint8_t serial[16])
{
    X509 *c = X509_new();
    X509_NAME *subject = X509_NAME_new(), *by = X509_NAME_new();
    BIGNUM *number = BN_bin2bn(serial, 15, NULL); /* one byte less: it must not be negative */
    bool ok =
        c && subject && by && number && X509_set_version(c, X509_VERSION_3) == 1 &&
        BN_to_ASN1_INTEGER(number, X509_get_serialNumber(c)) &&
        ASN1_TIME_set_string_X509(X509_getm_notBefore(c), "19700101000000Z") == 1 &&
        ASN1_TIME_set_string_X509(X509_getm_notAfter(c), "99991231235959Z") == 1 &&
        X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0) &&
        X509_NAME_add_entry_by_txt(by, "CN", MBSTRING_ASC, (const uint8_t *)issuer, -1, -1, 0) &&
        X509_set_subject_name(c, subject) == 1 && X509_set_issuer_name(c, by) == 1 &&
        X509_set_pubkey(c, key) == 1;
    BN_free(number);
    X509_NAME_free(subject);
    X509_NAME_free(by);
    if (ok)
        return c;
    X509_free(c);
    return NULL;
}

struct tls_authority {
    EVP_PKEY *key;
    X509 *cert;
    char name[64];
};

static void tls_authority_free(struct tls_authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->cert);
}

/* The name differs from key to key, so that a certificate finds the one that signed it. */
static int tls_authority_of(const struct zc_peer_key *key, struct tls_authority *a)
{
    uint8_t seed[TLS_SEED], serial[16];
    *a = (struct tls_authority){0};
    if (tls_hkdf(key, "zcache peer authority", seed, sizeof(seed)) < 0 ||
        tls_hkdf(key, "zcache peer authority serial", serial, sizeof(serial)) < 0)
        return -EIO;
    serial[0] |= 1; /* never zero */
    snprintf(a->name, sizeof(a->name), "zcache cluster %02x%02x%02x%02x", serial[1], serial[2],
             serial[3], serial[4]);
    a->key = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed, sizeof(seed));
    OPENSSL_cleanse(seed, sizeof(seed));
    a->cert = a->key ? tls_certificate(a->key, a->name, a->name, serial) : NULL;
    bool ok =
        a->cert &&
        tls_extension(a->cert, a->cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0") &&
        tls_extension(a->cert, a->cert, NID_key_usage, "critical,keyCertSign") &&
        tls_extension(a->cert, a->cert, NID_subject_key_identifier, "hash") &&
        X509_sign(a->cert, a->key, NULL) > 0;
    return ok ? 0 : -EIO;
}

static int tls_own(const struct tls_authority *a, const uint8_t id[16], const char *own,
                   struct zc_peer_tls *out)
{
    char name[64], alt[96];
    uint8_t serial[16];
    char hex[33];
    for (int i = 0; i < 16; i++)
        sprintf(hex + 2 * i, "%02x", id[i]);
    snprintf(name, sizeof(name), "zcache node %s", hex);
    snprintf(alt, sizeof(alt), "URI:urn:zcache:%s", hex);
    EVP_PKEY *key = own ? tls_read_key(own) : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    X509 *cert = NULL;
    if (key && RAND_bytes(serial, sizeof(serial)) == 1) {
        serial[0] |= 1;
        cert = tls_certificate(key, name, a->name, serial);
    }
    bool ok = cert && tls_extension(cert, a->cert, NID_basic_constraints, "critical,CA:FALSE") &&
              tls_extension(cert, a->cert, NID_key_usage, "critical,digitalSignature") &&
              tls_extension(cert, a->cert, NID_ext_key_usage, "serverAuth,clientAuth") &&
              tls_extension(cert, a->cert, NID_subject_alt_name, alt) &&
              tls_extension(cert, a->cert, NID_authority_key_identifier, "keyid") &&
              X509_sign(cert, a->key, NULL) > 0 && tls_spki(cert, out->spki) == 0;
    BIO *cert_bio = BIO_new(BIO_s_mem()), *key_bio = BIO_new(BIO_s_mem());
    ok = ok && cert_bio && key_bio && PEM_write_bio_X509(cert_bio, cert) == 1 &&
         PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) == 1;
    out->cert = cert_bio ? tls_bio_text(cert_bio) : NULL;
    out->key = key_bio ? tls_bio_text(key_bio) : NULL;
    X509_free(cert);
    EVP_PKEY_free(key);
    return ok && out->cert && out->key ? 0 : -EIO; /* the caller frees what there is */
}

int zc_peer_tls_derive(const struct zc_peer_key *keys, unsigned n, const uint8_t id[16],
                       const char *own, struct zc_peer_tls *out, struct zc_error *err)
{
    char why[256];
    BIO *all = BIO_new(BIO_s_mem());
    int r = n > 0 && all ? 0 : -EINVAL;
    *out = (struct zc_peer_tls){0};
    for (unsigned i = 0; i < n && r == 0; i++) {
        struct tls_authority a;
        r = tls_authority_of(&keys[i], &a);
        if (r == 0 && i == 0)
            r = tls_own(&a, id, own, out);
        if (r == 0 && PEM_write_bio_X509(all, a.cert) != 1)
            r = -EIO;
        tls_authority_free(&a);
    }
    out->ca = all ? tls_bio_text(all) : NULL;
    if (r == 0 && !out->ca)
        r = -ENOMEM;
    if (r < 0) {
        zc_peer_tls_free(out);
        zc_error_set(err, r, "cannot make a certificate from the cluster's key: %s",
                     tls_why(why, sizeof(why)));
    }
    return r;
}

/* ------------------------------------------------------------------ trust */

/* NULL when there is no certificate in it. */
static X509_STORE *tls_store(const char *ca)
{
    X509_STORE *store = X509_STORE_new();
    BIO *b = BIO_new_mem_buf(ca, -1);
    X509 *c;
    unsigned n = 0;
    while (store && b && (c = PEM_read_bio_X509(b, NULL, NULL, NULL))) {
        n += X509_STORE_add_cert(store, c) == 1;
        X509_free(c);
    }
    ERR_clear_error(); /* the end of the text */
    BIO_free(b);
    if (n > 0)
        return store;
    X509_STORE_free(store);
    return NULL;
}

/* X509_V_OK, or OpenSSL's number of what is wrong. An authority need not be a root: whoever is in
   the text is trusted, as curl has it. */
static int tls_verify(const char *ca, X509 *cert, int purpose)
{
    X509_STORE *store = tls_store(ca);
    X509_STORE_CTX *ctx = store ? X509_STORE_CTX_new() : NULL;
    int r = X509_V_ERR_UNSPECIFIED;
    if (ctx && X509_STORE_set_flags(store, X509_V_FLAG_PARTIAL_CHAIN) == 1 &&
        X509_STORE_CTX_init(ctx, store, cert, NULL) == 1 &&
        X509_STORE_CTX_set_purpose(ctx, purpose) == 1)
        r = X509_verify_cert(ctx) == 1 ? X509_V_OK : X509_STORE_CTX_get_error(ctx);
    X509_STORE_CTX_free(ctx);
    X509_STORE_free(store);
    return r;
}

int zc_peer_tls_trusts(const struct zc_peer_tls *t, const void *der, size_t n)
{
    const uint8_t *p = der;
    X509 *cert = d2i_X509(NULL, &p, (long)n);
    bool ok = cert && tls_verify(t->ca, cert, X509_PURPOSE_SSL_CLIENT) == X509_V_OK;
    X509_free(cert);
    ERR_clear_error();
    return ok ? 0 : -EACCES;
}

/* ------------------------------------------------------------------ from files */

/* NULL, and why in *e. */
static char *tls_file(const char *path, const char *option, int *e, struct zc_error *err)
{
    FILE *f = fopen(path, "re");
    char *text = NULL;
    if (!f) {
        *e = zc_error_set(err, -errno, "--%s %s: %s", option, path, strerror(errno));
        return NULL;
    }
    size_t n = 0;
    text = calloc(1, TLS_FILE_MAX + 1);
    if (text)
        n = fread(text, 1, TLS_FILE_MAX, f);
    bool bad = !text || ferror(f) || n == TLS_FILE_MAX || strlen(text) != n;
    fclose(f);
    if (!bad)
        return text;
    *e = text ? -EINVAL : -ENOMEM;
    zc_error_set(err, *e, "--%s %s: cannot be read, or is not a PEM file", option, path);
    if (text)
        OPENSSL_cleanse(text, n);
    free(text);
    return NULL;
}

static X509 *tls_read_cert(const char *text)
{
    BIO *b = BIO_new_mem_buf(text, -1);
    X509 *c = b ? PEM_read_bio_X509(b, NULL, NULL, NULL) : NULL;
    BIO_free(b);
    return c;
}

static int tls_fits(const struct zc_peer_tls *t, X509 *cert, EVP_PKEY *key, const char *cert_file,
                    const char *key_file, const char *ca_file, struct zc_error *err)
{
    if (!cert)
        return zc_error_set(err, -EINVAL, "--tls-cert %s: there is no PEM certificate in it",
                            cert_file);
    if (!key)
        return zc_error_set(err, -EINVAL,
                            "--tls-key %s: there is no PEM private key in it that can be read "
                            "without a passphrase",
                            key_file);
    X509_STORE *store = tls_store(t->ca);
    X509_STORE_free(store);
    if (!store)
        return zc_error_set(err, -EINVAL, "--tls-ca %s: there is no PEM certificate in it",
                            ca_file);
    if (X509_check_private_key(cert, key) != 1)
        return zc_error_set(err, -EINVAL, "--tls-key %s is not the key of --tls-cert %s", key_file,
                            cert_file);
    int r = tls_verify(t->ca, cert, X509_PURPOSE_SSL_SERVER);
    if (r == X509_V_OK)
        r = tls_verify(t->ca, cert, X509_PURPOSE_SSL_CLIENT);
    if (r == X509_V_ERR_INVALID_PURPOSE)
        return zc_error_set(err, -EINVAL,
                            "--tls-cert %s: a node is server and client to others: the "
                            "certificate must be good for both (extended key usage)",
                            cert_file);
    if (r == X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY)
        return zc_error_set(err, -EINVAL,
                            "--tls-cert %s: nobody in --tls-ca %s has signed it (intermediate "
                            "authorities must be in there, too)",
                            cert_file, ca_file);
    if (r != X509_V_OK)
        return zc_error_set(err, -EINVAL, "--tls-cert %s: not good under --tls-ca %s: %s",
                            cert_file, ca_file, X509_verify_cert_error_string(r));
    return 0;
}

int zc_peer_tls_load(const char *cert_file, const char *key_file, const char *ca_file,
                     struct zc_peer_tls *out, struct zc_error *err)
{
    int r = 0;
    *out = (struct zc_peer_tls){0};
    out->cert = tls_file(cert_file, "tls-cert", &r, err);
    out->key = out->cert ? tls_file(key_file, "tls-key", &r, err) : NULL;
    out->ca = out->key ? tls_file(ca_file, "tls-ca", &r, err) : NULL;
    if (!out->ca) {
        zc_peer_tls_free(out);
        return r;
    }
    X509 *cert = tls_read_cert(out->cert);
    EVP_PKEY *key = tls_read_key(out->key);
    r = tls_fits(out, cert, key, cert_file, key_file, ca_file, err);
    if (r == 0 && tls_spki(cert, out->spki) < 0)
        r = zc_error_set(err, -EINVAL, "--tls-cert %s: its public key cannot be read", cert_file);
    X509_free(cert);
    EVP_PKEY_free(key);
    ERR_clear_error();
    if (r < 0)
        zc_peer_tls_free(out);
    return r;
}
