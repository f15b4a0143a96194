/* SPDX-License-Identifier: Apache-2.0 */
/* Peers' certificates, made and given, and handshakes of the network room with libmicrohttpd's TLS,
   which is GnuTLS's. */
#include "net/net.h"
#include "peer/tls.h"
#include "peer/trust.h"

#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/gnutls.h>
#include <microhttpd.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static const uint8_t id_a[16] = "0123456789abcdef", id_b[16] = "fedcba9876543210";
static const uint8_t key_1[32] = "thirty-two bytes, all of a key.";
static const uint8_t key_2[32] = "thirty-two bytes, all of a key!";

static struct zc_peer_tls derived(const uint8_t *one, const uint8_t *two, const uint8_t id[16])
{
    struct zc_peer_key keys[] = {{one, 32}, {two, 32}};
    struct zc_peer_tls t;
    struct zc_error err = {0};
    if (zc_peer_tls_derive(keys, two ? 2 : 1, id, NULL, &t, &err) < 0)
        fail_msg("%s", err.text);
    return t;
}

static X509 *parsed(const char *pem)
{
    BIO *b = BIO_new_mem_buf(pem, -1);
    X509 *c = PEM_read_bio_X509(b, NULL, NULL, NULL);
    BIO_free(b);
    assert_non_null(c);
    return c;
}

static int trusts(const struct zc_peer_tls *t, const char *pem)
{
    X509 *c = parsed(pem);
    uint8_t *der = NULL;
    int n = i2d_X509(c, &der);
    assert_true(n > 0);
    int r = zc_peer_tls_trusts(t, der, (size_t)n);
    OPENSSL_free(der);
    X509_free(c);
    return r;
}

static void sum_hex(const void *p, size_t n, char hex[65])
{
    uint8_t sum[32];
    assert_int_equal(EVP_Digest(p, n, sum, NULL, EVP_sha256(), NULL), 1);
    for (int i = 0; i < 32; i++)
        sprintf(hex + 2 * i, "%02x", sum[i]);
}

/* ------------------------------------------------------------------ made from a key */

static void one_key_is_one_authority(void **state)
{
    struct zc_peer_tls a = derived(key_1, NULL, id_a), b = derived(key_1, NULL, id_b);
    assert_string_equal(a.ca, b.ca);
    assert_string_not_equal(a.cert, b.cert);
    assert_string_not_equal(a.key, b.key);
    assert_int_equal(trusts(&a, b.cert), 0);
    assert_int_equal(trusts(&b, a.cert), 0);
    assert_int_equal(trusts(&a, a.cert), 0);
    /* Nodes of different versions must agree on it: never to change. */
    char hex[65];
    sum_hex(a.ca, strlen(a.ca), hex);
    assert_string_equal(hex, "093ab3326062e7b96e0bd371a682bae7fd5e93868cfa68479b095869727c6fca");
    zc_peer_tls_free(&a);
    zc_peer_tls_free(&b);
    assert_null(a.key);
}

static void a_node_has_a_new_key_at_each_start(void **state)
{
    struct zc_peer_tls a = derived(key_1, NULL, id_a), b = derived(key_1, NULL, id_a);
    assert_string_not_equal(a.key, b.key);
    assert_memory_not_equal(a.spki, b.spki, sizeof(a.spki));
    X509 *c = parsed(a.cert), *d = parsed(b.cert);
    assert_int_not_equal(ASN1_INTEGER_cmp(X509_get0_serialNumber(c), X509_get0_serialNumber(d)), 0);
    X509_free(c);
    X509_free(d);
    zc_peer_tls_free(&a);
    zc_peer_tls_free(&b);
}

/* While it runs, the key stays what gossip says of it, whoever signs. */
static void a_node_keeps_its_key_when_keys_change(void **state)
{
    struct zc_peer_key keys[] = {{key_2, 32}, {key_1, 32}};
    struct zc_peer_tls a = derived(key_1, key_2, id_a), b;
    assert_int_equal(zc_peer_tls_derive(keys, 2, id_a, a.key, &b, NULL), 0);
    assert_string_equal(a.key, b.key);
    assert_memory_equal(a.spki, b.spki, sizeof(a.spki));
    assert_string_not_equal(a.ca, b.ca);
    struct zc_peer_tls two = derived(key_2, NULL, id_b);
    assert_int_equal(trusts(&two, b.cert), 0);
    assert_int_equal(trusts(&two, a.cert), -EACCES);
    zc_peer_tls_free(&b);
    assert_int_equal(zc_peer_tls_derive(keys, 2, id_a, "no key", &b, NULL), -EIO);
    zc_peer_tls_free(&a);
    zc_peer_tls_free(&two);
}

static void a_certificate_names_its_node(void **state)
{
    struct zc_peer_tls a = derived(key_1, NULL, id_a);
    X509 *c = parsed(a.cert);
    GENERAL_NAMES *names = X509_get_ext_d2i(c, NID_subject_alt_name, NULL, NULL);
    assert_int_equal(sk_GENERAL_NAME_num(names), 1);
    const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, 0);
    assert_int_equal(n->type, GEN_URI);
    assert_string_equal((const char *)ASN1_STRING_get0_data(n->d.uniformResourceIdentifier),
                        "urn:zcache:30313233343536373839616263646566");
    GENERAL_NAMES_free(names);
    uint8_t *der = NULL, sum[32];
    EVP_PKEY *key = X509_get_pubkey(c);
    int len = i2d_PUBKEY(key, &der);
    assert_int_equal(EVP_Digest(der, (size_t)len, sum, NULL, EVP_sha256(), NULL), 1);
    assert_memory_equal(sum, a.spki, 32);
    assert_int_equal(X509_check_ca(c), 0);
    OPENSSL_free(der);
    EVP_PKEY_free(key);
    X509_free(c);
    zc_peer_tls_free(&a);
}

static void another_key_is_not_trusted(void **state)
{
    struct zc_peer_tls a = derived(key_1, NULL, id_a), b = derived(key_2, NULL, id_b);
    assert_int_equal(trusts(&a, b.cert), -EACCES);
    assert_int_equal(trusts(&b, a.cert), -EACCES);
    assert_int_equal(trusts(&a, b.ca), -EACCES);
    /* An authority is no client. */
    assert_int_equal(trusts(&a, a.ca), -EACCES);
    zc_peer_tls_free(&a);
    zc_peer_tls_free(&b);
}

/* A key is added everywhere, then moved to the front, then the old one is taken away: who is one
   step ahead or behind is trusted. */
static void keys_can_be_changed(void **state)
{
    struct zc_peer_tls steps[] = {derived(key_1, NULL, id_a), derived(key_1, key_2, id_a),
                                  derived(key_2, key_1, id_a), derived(key_2, NULL, id_a)};
    for (int i = 0; i < 4; i++) {
        for (int j = 0; j < 4; j++) {
            bool one = i == 0 || j == 0, two = i == 3 || j == 3;
            if (i - j <= 1 && j - i <= 1)
                assert_int_equal(trusts(&steps[i], steps[j].cert), 0);
            if (one && two)
                assert_int_equal(trusts(&steps[i], steps[j].cert), -EACCES);
        }
    }
    for (int i = 0; i < 4; i++)
        zc_peer_tls_free(&steps[i]);
}

static void keys_of_all_lengths(void **state)
{
    for (size_t n = 16; n <= 32; n += 8) {
        struct zc_peer_key k = {key_1, n};
        struct zc_peer_tls a, b;
        assert_int_equal(zc_peer_tls_derive(&k, 1, id_a, NULL, &a, NULL), 0);
        b = derived(key_1, NULL, id_b);
        assert_int_equal(trusts(&b, a.cert), n == 32 ? 0 : -EACCES);
        zc_peer_tls_free(&a);
        zc_peer_tls_free(&b);
    }
    struct zc_error err = {0};
    struct zc_peer_tls t;
    assert_int_equal(zc_peer_tls_derive(NULL, 0, id_a, NULL, &t, &err), -EINVAL);
    assert_true(strlen(err.text) > 0);
}

static void bytes_that_are_no_certificate(void **state)
{
    struct zc_peer_tls a = derived(key_1, NULL, id_a);
    X509 *c = parsed(a.cert);
    uint8_t *der = NULL;
    int n = i2d_X509(c, &der);
    for (int i = 0; i < n; i++)
        assert_int_equal(zc_peer_tls_trusts(&a, der, (size_t)i), -EACCES);
    /* Whatever bit is turned, it is not the certificate that was signed. */
    for (int i = 0; i < n; i++) {
        der[i] ^= 0x10;
        assert_int_equal(zc_peer_tls_trusts(&a, der, (size_t)n), -EACCES);
        der[i] ^= 0x10;
    }
    assert_int_equal(zc_peer_tls_trusts(&a, der, (size_t)n), 0);
    OPENSSL_free(der);
    X509_free(c);
    zc_peer_tls_free(&a);
}

/* ------------------------------------------------------------------ given as files */

struct issued {
    EVP_PKEY *key;
    X509 *cert;
};

/* A certificate by `by` (itself when NULL). usage: extended key usage, or NULL. */
static struct issued issue(const char *name, const struct issued *by, bool ca, const char *usage,
                           int from_s, int until_s)
{
    struct issued i = {EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256"), X509_new()};
    const struct issued *signer = by ? by : &i;
    X509_NAME *n = X509_get_subject_name(i.cert);
    X509V3_CTX ctx;
    X509_EXTENSION *e;
    X509_set_version(i.cert, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(i.cert), 77);
    X509_gmtime_adj(X509_getm_notBefore(i.cert), from_s);
    X509_gmtime_adj(X509_getm_notAfter(i.cert), until_s);
    X509_NAME_add_entry_by_txt(n, "CN", MBSTRING_ASC, (const uint8_t *)name, -1, -1, 0);
    X509_set_issuer_name(i.cert, X509_get_subject_name(signer->cert));
    X509_set_pubkey(i.cert, i.key);
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, signer->cert, i.cert, NULL, NULL, 0);
    e = X509V3_EXT_conf_nid(NULL, &ctx, NID_basic_constraints, ca ? "CA:TRUE" : "CA:FALSE");
    X509_add_ext(i.cert, e, -1);
    X509_EXTENSION_free(e);
    if (usage) {
        e = X509V3_EXT_conf_nid(NULL, &ctx, NID_ext_key_usage, usage);
        X509_add_ext(i.cert, e, -1);
        X509_EXTENSION_free(e);
    }
    assert_true(X509_sign(i.cert, signer->key, EVP_sha256()) > 0);
    return i;
}

static void issued_free(struct issued *i)
{
    EVP_PKEY_free(i->key);
    X509_free(i->cert);
}

struct folder {
    char path[64];
    char cert[100], key[100], ca[100];
};

static void folder_make(struct folder *f)
{
    strcpy(f->path, "/tmp/zcache-tls-XXXXXX");
    assert_non_null(mkdtemp(f->path));
    snprintf(f->cert, sizeof(f->cert), "%s/cert.pem", f->path);
    snprintf(f->key, sizeof(f->key), "%s/key.pem", f->path);
    snprintf(f->ca, sizeof(f->ca), "%s/ca.pem", f->path);
}

static void folder_remove(struct folder *f)
{
    unlink(f->cert);
    unlink(f->key);
    unlink(f->ca);
    assert_int_equal(rmdir(f->path), 0);
}

static void write_certs(const char *path, const struct issued *a, const struct issued *b)
{
    FILE *f = fopen(path, "w");
    assert_int_equal(PEM_write_X509(f, a->cert), 1);
    if (b)
        assert_int_equal(PEM_write_X509(f, b->cert), 1);
    fclose(f);
}

static void write_key(const char *path, const struct issued *i, const char *password)
{
    FILE *f = fopen(path, "w");
    assert_int_equal(PEM_write_PrivateKey(f, i->key, password ? EVP_aes_128_cbc() : NULL,
                                          (const uint8_t *)password,
                                          password ? (int)strlen(password) : 0, NULL, NULL),
                     1);
    fclose(f);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
}

static void load_fails(const struct folder *f, int code, const char *option, const char *words)
{
    struct zc_peer_tls t;
    struct zc_error err = {0};
    assert_int_equal(zc_peer_tls_load(f->cert, f->key, f->ca, &t, &err), code);
    assert_int_equal(err.code, code);
    if (!strstr(err.text, words) || !strstr(err.text, option) || !strstr(err.text, f->path))
        fail_msg("'%s' does not say '%s' and '%s'", err.text, option, words);
    assert_null(t.cert);
    assert_null(t.key);
    assert_null(t.ca);
    assert_int_equal(zc_peer_tls_load(f->cert, f->key, f->ca, &t, NULL), code);
}

static void load_works(const struct folder *f, const struct issued *leaf)
{
    struct zc_peer_tls t;
    struct zc_error err = {0};
    if (zc_peer_tls_load(f->cert, f->key, f->ca, &t, &err) < 0)
        fail_msg("%s", err.text);
    uint8_t *der = NULL;
    int n = i2d_X509(leaf->cert, &der);
    assert_int_equal(zc_peer_tls_trusts(&t, der, (size_t)n), 0);
    OPENSSL_free(der);
    zc_peer_tls_free(&t);
}

#define DAY (24 * 3600)

static void files_that_fit(void **state)
{
    struct folder f;
    folder_make(&f);
    struct issued root = issue("root", NULL, true, NULL, -DAY, DAY);
    struct issued middle = issue("middle", &root, true, NULL, -DAY, DAY);
    struct issued any = issue("any", &root, false, NULL, -DAY, DAY);
    struct issued both = issue("both", &root, false, "serverAuth,clientAuth", -DAY, DAY);
    struct issued below = issue("below", &middle, false, NULL, -DAY, DAY);
    struct issued own = issue("own", NULL, false, NULL, -DAY, DAY);
    struct {
        struct issued *leaf, *chain, *ca, *ca2;
    } good[] = {{&any, NULL, &root, NULL},        {&both, NULL, &root, NULL},
                {&any, NULL, &middle, &root},     {&below, NULL, &middle, &root},
                {&below, &middle, &middle, NULL}, {&own, NULL, &own, NULL}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(good); i++) {
        write_certs(f.cert, good[i].leaf, good[i].chain);
        write_key(f.key, good[i].leaf, NULL);
        write_certs(f.ca, good[i].ca, good[i].ca2);
        load_works(&f, good[i].leaf);
    }
    struct issued *all[] = {&root, &middle, &any, &both, &below, &own};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(all); i++)
        issued_free(all[i]);
    folder_remove(&f);
}

static void files_that_do_not_fit(void **state)
{
    struct folder f;
    folder_make(&f);
    struct issued root = issue("root", NULL, true, NULL, -DAY, DAY);
    struct issued other = issue("root", NULL, true, NULL, -DAY, DAY); /* of the same name */
    struct issued leaf = issue("leaf", &root, false, NULL, -DAY, DAY);
    struct issued old = issue("old", &root, false, NULL, -2 * DAY, -DAY);
    struct issued early = issue("early", &root, false, NULL, DAY, 2 * DAY);
    struct issued client = issue("client", &root, false, "clientAuth", -DAY, DAY);
    struct issued server = issue("server", &root, false, "serverAuth", -DAY, DAY);
    struct issued child = issue("child", &leaf, false, NULL, -DAY, DAY);

    load_fails(&f, -ENOENT, "--tls-cert", "No such file");
    write_certs(f.cert, &leaf, NULL);
    load_fails(&f, -ENOENT, "--tls-key", "No such file");
    write_key(f.key, &leaf, NULL);
    load_fails(&f, -ENOENT, "--tls-ca", "No such file");
    write_certs(f.ca, &root, NULL);
    load_works(&f, &leaf);

    write_text(f.ca, "nothing\n");
    load_fails(&f, -EINVAL, "--tls-ca", "no PEM certificate");
    write_certs(f.ca, &other, NULL);
    load_fails(&f, -EINVAL, "--tls-ca", "--tls-cert");
    write_certs(f.ca, &root, NULL);

    write_key(f.key, &root, NULL);
    load_fails(&f, -EINVAL, "--tls-key", "is not the key of");
    write_key(f.key, &leaf, "secret");
    load_fails(&f, -EINVAL, "--tls-key", "without a passphrase");
    write_text(f.key, "");
    load_fails(&f, -EINVAL, "--tls-key", "no PEM private key");
    write_text(f.cert, "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    load_fails(&f, -EINVAL, "--tls-cert", "no PEM certificate");

    struct {
        struct issued *leaf;
        const char *words;
    } bad[] = {{&old, "expired"},
               {&early, "not yet valid"},
               {&client, "good for both"},
               {&server, "good for both"},
               {&child, "intermediate"}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        write_certs(f.cert, bad[i].leaf, NULL);
        write_key(f.key, bad[i].leaf, NULL);
        load_fails(&f, -EINVAL, "--tls-cert", bad[i].words);
    }
    unlink(f.cert);
    mkdir(f.cert, 0700);
    load_fails(&f, -EINVAL, "--tls-cert", "cannot be read");
    rmdir(f.cert);
    struct issued *all[] = {&root, &other, &leaf, &old, &early, &client, &server, &child};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(all); i++)
        issued_free(all[i]);
    folder_remove(&f);
}

/* ------------------------------------------------------------------ handshakes */

struct server {
    struct MHD_Daemon *mhd;
    const struct zc_peer_tls *tls;
    struct peer_trust *trust; /* the same, as the peers' server shows it */
    _Atomic unsigned connections;
    pthread_mutex_t lock;
    X509 *shown; /* the last request's client certificate */
};

static void server_connection(void *cls, struct MHD_Connection *c, void **user,
                              enum MHD_ConnectionNotificationCode code)
{
    struct server *s = cls;
    s->connections += code == MHD_CONNECTION_NOTIFY_STARTED;
    *user = s;
}

static int server_shows(gnutls_session_t session, const gnutls_datum_t *authorities, int n,
                        const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                        gnutls_pcert_st **chain, unsigned *n_chain, gnutls_privkey_t *key)
{
    const union MHD_ConnectionInfo *info = MHD_get_connection_info(
        gnutls_session_get_ptr(session), MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct server *s = info->socket_context;
    return peer_trust_show(s->trust, session, chain, n_chain, key);
}

static struct peer_trust *trust_of(const struct zc_peer_tls *tls)
{
    struct zc_peer_tls copy = {
        .cert = strdup(tls->cert), .key = strdup(tls->key), .ca = strdup(tls->ca)};
    struct peer_trust *t;
    assert_int_equal(peer_trust_new(&copy, &t, NULL), 0);
    return t;
}

static enum MHD_Result server_answer(void *cls, struct MHD_Connection *c, const char *url,
                                     const char *method, const char *version, const char *body,
                                     size_t *n, void **user)
{
    struct server *s = cls;
    unsigned count = 0;
    if (!*user) { /* an answer to the first call would end the connection */
        *user = s;
        return MHD_YES;
    }
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    const gnutls_datum_t *certs =
        info ? gnutls_certificate_get_peers((gnutls_session_t)info->tls_session, &count) : NULL;
    bool good = count > 0 && zc_peer_tls_trusts(s->tls, certs[0].data, certs[0].size) == 0;
    pthread_mutex_lock(&s->lock);
    X509_free(s->shown);
    s->shown = NULL;
    if (count > 0) {
        const uint8_t *p = certs[0].data;
        s->shown = d2i_X509(NULL, &p, (long)certs[0].size);
    }
    pthread_mutex_unlock(&s->lock);
    struct MHD_Response *r =
        MHD_create_response_from_buffer(2, (void *)(uintptr_t) "hi", MHD_RESPMEM_PERSISTENT);
    enum MHD_Result ok = MHD_queue_response(c, good ? 200 : 403, r);
    MHD_destroy_response(r);
    return ok;
}

/* tls NULL: plain HTTP. */
static void server_start(struct server *s, const struct zc_peer_tls *tls, const char *versions)
{
    struct sockaddr_in sa = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    struct MHD_OptionItem secure[] = {{MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)server_shows},
                                      {MHD_OPTION_HTTPS_MEM_TRUST, 0, tls ? tls->ca : NULL},
                                      {MHD_OPTION_HTTPS_PRIORITIES, 0, (void *)(uintptr_t)versions},
                                      {MHD_OPTION_END, 0, NULL}};
    *s = (struct server){
        .tls = tls, .trust = tls ? trust_of(tls) : NULL, .lock = PTHREAD_MUTEX_INITIALIZER};
    s->mhd = MHD_start_daemon(MHD_USE_AUTO_INTERNAL_THREAD | (tls ? MHD_USE_TLS : 0), 0, NULL, NULL,
                              server_answer, s, MHD_OPTION_SOCK_ADDR, &sa,
                              MHD_OPTION_NOTIFY_CONNECTION, server_connection, s, MHD_OPTION_ARRAY,
                              tls ? secure : none, MHD_OPTION_END);
    assert_non_null(s->mhd);
}

static void server_stop(struct server *s)
{
    MHD_stop_daemon(s->mhd);
    peer_trust_free(s->trust);
    X509_free(s->shown);
}

#define ONLY_13 "NORMAL:-VERS-ALL:+VERS-TLS1.3"
#define ONLY_12 "NORMAL:-VERS-ALL:+VERS-TLS1.2"

/* The status, or done()'s error. Reads nothing of tls afterwards. */
static int ask(struct zc_net *net, const struct server *s, const struct zc_net_tls *tls)
{
    char url[64];
    snprintf(url, sizeof(url), "%s://127.0.0.1:%u/", s->tls ? "https" : "http",
             MHD_get_daemon_info(s->mhd, MHD_DAEMON_INFO_BIND_PORT)->port);
    struct zc_http req = {.method = "GET", .url = url, .tls = tls, .direct = true};
    int r = zc_net_wait(net, &req, 100, NULL, NULL);
    return r < 0 ? r : req.status;
}

static struct zc_net_tls net_tls(const struct zc_peer_tls *t, const char *pinned)
{
    return (struct zc_net_tls){.ca_pem = t->ca,
                               .cert_pem = t->cert,
                               .key_pem = t->key,
                               .pinned = pinned,
                               .tls13 = true,
                               .no_name = true};
}

static void pin_of(const struct zc_peer_tls *t, char pin[64])
{
    strcpy(pin, "sha256//");
    EVP_EncodeBlock((uint8_t *)pin + 8, t->spki, 32);
}

static bool shown(struct server *s, const struct zc_peer_tls *who)
{
    X509 *c = who ? parsed(who->cert) : NULL;
    pthread_mutex_lock(&s->lock);
    bool same = c && s->shown ? X509_cmp(c, s->shown) == 0 : !c && !s->shown;
    pthread_mutex_unlock(&s->lock);
    X509_free(c);
    return same;
}

struct pair {
    struct zc_net *net;
    struct server server;
    struct zc_peer_tls a, b, stranger;
};

static int pair_setup(void **state)
{
    struct pair *p = calloc(1, sizeof(*p));
    struct zc_net_config cfg = {.loops = 1}; /* handles and connections are used again */
    p->a = derived(key_1, NULL, id_a);
    p->b = derived(key_1, key_2, id_b);
    p->stranger = derived(key_2, NULL, id_b);
    server_start(&p->server, &p->a, ONLY_13);
    *state = p;
    return zc_net_new(&cfg, &p->net);
}

static int pair_teardown(void **state)
{
    struct pair *p = *state;
    zc_net_free(p->net);
    server_stop(&p->server);
    zc_peer_tls_free(&p->a);
    zc_peer_tls_free(&p->b);
    zc_peer_tls_free(&p->stranger);
    free(p);
    return 0;
}

static void nodes_of_one_key_speak(void **state)
{
    struct pair *p = *state;
    char pin[64];
    pin_of(&p->a, pin);
    struct zc_net_tls tls = net_tls(&p->b, pin);
    for (int i = 0; i < 10; i++)
        assert_int_equal(ask(p->net, &p->server, &tls), 200);
    assert_true(shown(&p->server, &p->b));
    assert_int_equal(p->server.connections, 1);
}

static void strangers_do_not(void **state)
{
    struct pair *p = *state;
    struct zc_net_tls tls = net_tls(&p->stranger, NULL);
    assert_int_equal(ask(p->net, &p->server, &tls), -EPROTO); /* it does not trust the server */
    tls.ca_pem = p->a.ca;
    assert_int_equal(ask(p->net, &p->server, &tls), 403); /* and is not trusted */
    tls.cert_pem = tls.key_pem = NULL;
    assert_int_equal(ask(p->net, &p->server, &tls), 403);
    assert_true(shown(&p->server, NULL));
    tls = (struct zc_net_tls){0};
    assert_int_equal(ask(p->net, &p->server, &tls), -EPROTO); /* of the system's authorities */
    tls = net_tls(&p->b, NULL);
    tls.no_name = false;
    assert_int_equal(ask(p->net, &p->server, &tls), -EPROTO);
    tls.no_name = true;
    assert_int_equal(ask(p->net, &p->server, &tls), 200);
}

/* Nothing of a request stays with the connection or the handle for the next one. */
static void connections_are_not_mixed(void **state)
{
    struct pair *p = *state;
    char right[64], wrong[64];
    pin_of(&p->a, right);
    pin_of(&p->b, wrong);
    struct zc_net_tls good = net_tls(&p->b, right), bad = net_tls(&p->b, wrong);
    struct zc_net_tls same = net_tls(&p->a, right), blind = net_tls(&p->b, NULL);
    struct zc_net_tls bare = {.ca_pem = p->a.ca, .no_name = true};
    struct zc_net_tls plain = {0};
    zc_autofree char *cert = strdup(p->b.cert), *key = strdup(p->b.key), *ca = strdup(p->b.ca);
    struct zc_net_tls equal = {.ca_pem = ca,
                               .cert_pem = cert,
                               .key_pem = key,
                               .pinned = right,
                               .tls13 = true,
                               .no_name = true};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ask(p->net, &p->server, &good), 200);
        assert_true(shown(&p->server, &p->b));
        assert_int_equal(ask(p->net, &p->server, &bad), -EPROTO);
        assert_int_equal(ask(p->net, &p->server, &same), 200);
        assert_true(shown(&p->server, &p->a));
        assert_int_equal(ask(p->net, &p->server, &blind), 200);
        assert_true(shown(&p->server, &p->b));
        assert_int_equal(ask(p->net, &p->server, &bare), 403);
        assert_true(shown(&p->server, NULL));
        assert_int_equal(ask(p->net, &p->server, &plain), -EPROTO);
        assert_int_equal(ask(p->net, &p->server, &equal), 200);
        assert_true(shown(&p->server, &p->b));
    }
    /* One for each that may speak, and one for each try of the others. */
    assert_int_equal(p->server.connections, 4 + 3 * 2);
}

static void older_tls_is_refused(void **state)
{
    struct pair *p = *state;
    struct server old;
    server_start(&old, &p->a, ONLY_12);
    struct zc_net_tls tls = net_tls(&p->b, NULL);
    /* GnuTLS hangs up, with or without a word. */
    int r = ask(p->net, &old, &tls);
    assert_true(r == -EPROTO || r == -ECONNRESET);
    tls.tls13 = false;
    assert_int_equal(ask(p->net, &old, &tls), 200);
    tls.tls13 = true;
    r = ask(p->net, &old, &tls);
    assert_true(r == -EPROTO || r == -ECONNRESET);
    server_stop(&old);
}

/* The address sanitizer watches. */
static void texts_may_go_after_their_request(void **state)
{
    struct pair *p = *state;
    struct server open;
    server_start(&open, NULL, NULL);
    for (int i = 0; i < 3; i++) {
        struct zc_peer_tls t = derived(key_1, NULL, id_b);
        struct zc_net_tls tls = net_tls(&t, NULL);
        assert_int_equal(ask(p->net, &p->server, &tls), 200);
        zc_peer_tls_free(&t);
        assert_int_equal(ask(p->net, &open, NULL), 403);
        struct zc_net_tls system = {0};
        assert_int_equal(ask(p->net, &p->server, &system), -EPROTO);
    }
    server_stop(&open);
}

/* What people have: authorities and keys of other kinds, and one in between. */
static void certificates_of_ones_own_speak(void **state)
{
    struct pair *p = *state;
    struct folder f;
    folder_make(&f);
    struct issued root = issue("root", NULL, true, NULL, -DAY, DAY);
    struct issued middle = issue("middle", &root, true, NULL, -DAY, DAY);
    struct issued one = issue("one", &middle, false, "serverAuth,clientAuth", -DAY, DAY);
    struct issued two = issue("two", &middle, false, NULL, -DAY, DAY);
    struct zc_peer_tls a, b;
    write_certs(f.ca, &root, &middle);
    write_certs(f.cert, &one, &middle);
    write_key(f.key, &one, NULL);
    assert_int_equal(zc_peer_tls_load(f.cert, f.key, f.ca, &a, NULL), 0);
    write_certs(f.cert, &two, NULL);
    write_key(f.key, &two, NULL);
    assert_int_equal(zc_peer_tls_load(f.cert, f.key, f.ca, &b, NULL), 0);
    struct server s;
    server_start(&s, &a, ONLY_13);
    char pin[64];
    pin_of(&a, pin);
    struct zc_net_tls tls = net_tls(&b, pin), other = net_tls(&p->b, NULL);
    assert_int_equal(ask(p->net, &s, &tls), 200);
    assert_true(shown(&s, &b));
    assert_int_equal(ask(p->net, &s, &other), -EPROTO);
    tls = net_tls(&a, NULL);
    server_stop(&s);
    server_start(&s, &b, ONLY_13);
    assert_int_equal(ask(p->net, &s, &tls), 200);
    server_stop(&s);
    zc_peer_tls_free(&a);
    zc_peer_tls_free(&b);
    struct issued *all[] = {&root, &middle, &one, &two};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(all); i++)
        issued_free(all[i]);
    folder_remove(&f);
}

#define PAIR(fn) cmocka_unit_test_setup_teardown(fn, pair_setup, pair_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_key_is_one_authority),
        cmocka_unit_test(a_node_has_a_new_key_at_each_start),
        cmocka_unit_test(a_node_keeps_its_key_when_keys_change),
        cmocka_unit_test(a_certificate_names_its_node),
        cmocka_unit_test(another_key_is_not_trusted),
        cmocka_unit_test(keys_can_be_changed),
        cmocka_unit_test(keys_of_all_lengths),
        cmocka_unit_test(bytes_that_are_no_certificate),
        cmocka_unit_test(files_that_fit),
        cmocka_unit_test(files_that_do_not_fit),
        PAIR(nodes_of_one_key_speak),
        PAIR(strangers_do_not),
        PAIR(connections_are_not_mixed),
        PAIR(older_tls_is_refused),
        PAIR(texts_may_go_after_their_request),
        PAIR(certificates_of_ones_own_speak),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
