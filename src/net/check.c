/* SPDX-License-Identifier: Apache-2.0 */
/*
 * By the system's resolver, a plain socket and OpenSSL itself and not by libcurl, which would say
 * "it failed" where this says what it saw: the certificate's name and dates also when they are what
 * is wrong.
 */
#include "net/check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

int zc_check_target(const char *url, struct zc_check_target *out)
{
    struct zc_check_target t = {.tls = strncasecmp(url, "https://", 8) == 0};
    if (!t.tls && strncasecmp(url, "http://", 7) != 0)
        return -EINVAL;
    const char *h = url + (t.tls ? 8 : 7), *end = h + strcspn(h, "/?#"), *rest;
    size_t n;
    if (*h == '[') {
        const char *close = memchr(h, ']', (size_t)(end - h));
        if (!close)
            return -EINVAL;
        h++;
        n = (size_t)(close - h);
        rest = close + 1;
    } else {
        rest = memchr(h, ':', (size_t)(end - h));
        rest = rest ? rest : end;
        n = (size_t)(rest - h);
    }
    if (n == 0 || n >= sizeof(t.host))
        return -EINVAL;
    memcpy(t.host, h, n);
    t.port = t.tls ? 443 : 80;
    if (rest < end) {
        unsigned port = 0;
        if (*rest++ != ':' || rest == end)
            return -EINVAL;
        for (; rest < end; rest++) {
            if (*rest < '0' || *rest > '9' || port > 6553)
                return -EINVAL;
            port = port * 10 + (unsigned)(*rest - '0');
        }
        if (port == 0 || port > 65535)
            return -EINVAL;
        t.port = port;
    }
    *out = t;
    return 0;
}

/* ---- proxies: as libcurl reads the environment ---- */

static bool check_no_proxy(const char *host)
{
    const char *list = getenv("no_proxy");
    size_t hn = strlen(host);
    if (!list)
        list = getenv("NO_PROXY");
    if (!list)
        return false;
    if (strcmp(list, "*") == 0)
        return true;
    while (*list) {
        list += strspn(list, ", ");
        size_t n = strcspn(list, ", ");
        const char *name = list;
        list += n;
        if (n && *name == '.') {
            name++;
            n--;
        }
        if (n && n <= hn && strncasecmp(host + hn - n, name, n) == 0 &&
            (n == hn || host[hn - n - 1] == '.'))
            return true;
    }
    return false;
}

void zc_check_proxy(const struct zc_check_target *t, char *proxy, size_t n, const char **variable)
{
    /* HTTP_PROXY in capitals is not read: a web server's clients could set it. */
    static const char *const plain[] = {"http_proxy", "all_proxy", "ALL_PROXY"};
    static const char *const tls[] = {"https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"};
    const char *const *names = t->tls ? tls : plain;
    size_t count = t->tls ? ZC_ARRAY_SIZE(tls) : ZC_ARRAY_SIZE(plain);
    proxy[0] = '\0';
    if (check_no_proxy(t->host))
        return;
    for (size_t i = 0; i < count; i++) {
        const char *v = getenv(names[i]);
        if (!v || !v[0])
            continue;
        snprintf(proxy, n, "%s%s", strstr(v, "://") ? "" : "http://", v);
        *variable = names[i];
        return;
    }
}

/* ---- name and connection ---- */

int zc_check_resolve(const struct zc_check_target *t, struct zc_check_addr out[ZC_CHECK_ADDRS],
                     struct zc_error *err)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *list = NULL;
    int n = 0, r = getaddrinfo(t->host, NULL, &hints, &list);
    if (r == EAI_NONAME || r == EAI_ADDRFAMILY) /* an address of a family that is not set up */
        r = getaddrinfo(t->host, NULL, &(struct addrinfo){.ai_socktype = SOCK_STREAM}, &list);
    if (r != 0)
        return zc_error_set(err, -EHOSTUNREACH, "%s",
                            r == EAI_SYSTEM ? strerror(errno) : gai_strerror(r));
    for (struct addrinfo *a = list; a && n < ZC_CHECK_ADDRS; a = a->ai_next) {
        struct zc_check_addr *o = &out[n];
        if (a->ai_addrlen > sizeof(o->sa) ||
            getnameinfo(a->ai_addr, a->ai_addrlen, o->text, sizeof(o->text), NULL, 0,
                        NI_NUMERICHOST) != 0)
            continue;
        memcpy(&o->sa, a->ai_addr, a->ai_addrlen);
        o->len = a->ai_addrlen;
        n++;
    }
    freeaddrinfo(list);
    return n ? n : zc_error_set(err, -EHOSTUNREACH, "the name has no address");
}

/* 0 once the descriptor is ready, -ETIMEDOUT. */
static int check_wait(int fd, short events, int64_t until_ns)
{
    for (;;) {
        struct pollfd p = {.fd = fd, .events = events};
        int64_t left = until_ns - zc_now_ns();
        if (left <= 0)
            return -ETIMEDOUT;
        int n = poll(&p, 1, (int)(left / ZC_NS_PER_MS) + 1);
        if (n > 0)
            return 0;
        if (n < 0 && errno != EINTR)
            return -errno;
    }
}

int zc_check_connect(const struct zc_check_addr *a, unsigned port, int64_t timeout_ns)
{
    struct sockaddr_storage sa = a->sa;
    zc_autoclose int fd = socket(sa.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int err = 0;
    socklen_t len = sizeof(err);
    if (fd < 0)
        return -errno;
    if (sa.ss_family == AF_INET6)
        ((struct sockaddr_in6 *)&sa)->sin6_port = htons((uint16_t)port);
    else
        ((struct sockaddr_in *)&sa)->sin_port = htons((uint16_t)port);
    if (connect(fd, (struct sockaddr *)&sa, a->len) < 0 && errno != EINPROGRESS)
        return -errno;
    int r = check_wait(fd, POLLOUT, zc_now_ns() + timeout_ns);
    if (r == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &len) == 0)
        r = -err;
    return r < 0 ? r : zc_steal_fd(&fd);
}

/* ---- TLS ---- */

static int64_t check_time(const ASN1_TIME *t)
{
    struct tm tm;
    return ASN1_TIME_to_tm(t, &tm) == 1 ? (int64_t)timegm(&tm) : 0;
}

static void check_name(const X509_NAME *name, char *out, size_t n)
{
    out[0] = '\0';
    if (X509_NAME_get_text_by_NID((X509_NAME *)name, NID_commonName, out, (int)n) <= 0)
        X509_NAME_oneline(name, out, (int)n);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = '?';
}

static void check_names(const X509 *cert, char *out, size_t n)
{
    GENERAL_NAMES *list = X509_get_ext_d2i(cert, NID_subject_alt_name, NULL, NULL);
    size_t at = 0;
    out[0] = '\0';
    for (int i = 0; list && i < sk_GENERAL_NAME_num(list) && at < n; i++) {
        const GENERAL_NAME *g = sk_GENERAL_NAME_value(list, i);
        char text[260] = "";
        if (g->type == GEN_DNS)
            snprintf(text, sizeof(text), "%.*s", ASN1_STRING_length(g->d.dNSName),
                     (const char *)ASN1_STRING_get0_data(g->d.dNSName));
        else if (g->type == GEN_IPADD && ASN1_STRING_length(g->d.iPAddress) == 4)
            inet_ntop(AF_INET, ASN1_STRING_get0_data(g->d.iPAddress), text, sizeof(text));
        else if (g->type == GEN_IPADD && ASN1_STRING_length(g->d.iPAddress) == 16)
            inet_ntop(AF_INET6, ASN1_STRING_get0_data(g->d.iPAddress), text, sizeof(text));
        for (char *c = text; *c; c++)
            if ((unsigned char)*c <= 0x20 || *c == 0x7f)
                *c = '?';
        if (text[0]) {
            int k = snprintf(out + at, n - at, "%s%s", at ? ", " : "", text);
            at += k > 0 ? (size_t)k : 0;
        }
    }
    GENERAL_NAMES_free(list);
}

static enum zc_check_cert check_verdict(long v)
{
    switch (v) {
    case X509_V_OK:
        return ZC_CERT_OK;
    case X509_V_ERR_CERT_HAS_EXPIRED:
        return ZC_CERT_EXPIRED;
    case X509_V_ERR_CERT_NOT_YET_VALID:
        return ZC_CERT_EARLY;
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
        return ZC_CERT_NAME;
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
    case X509_V_ERR_CERT_UNTRUSTED:
        return ZC_CERT_AUTHORITY;
    default:
        return ZC_CERT_OTHER;
    }
}

/* The handshake goes on whatever is found; the verdict is asked for afterwards. */
static int check_verify(int ok, X509_STORE_CTX *ctx)
{
    return 1;
}

static int check_handshake(SSL *ssl, int fd, int64_t until_ns, struct zc_error *err)
{
    for (;;) {
        ERR_clear_error();
        int r = SSL_connect(ssl);
        if (r == 1)
            return 0;
        int want = SSL_get_error(ssl, r);
        if (want == SSL_ERROR_WANT_READ || want == SSL_ERROR_WANT_WRITE) {
            r = check_wait(fd, want == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT, until_ns);
            if (r == 0)
                continue;
            return zc_error_set(err, r, "the handshake does not end");
        }
        const char *words = ERR_reason_error_string(ERR_peek_error());
        return zc_error_set(err, -EPROTO, "%s",
                            words ? words : "the connection was closed in the handshake");
    }
}

static int check_setup(SSL_CTX *ctx, SSL *ssl, int fd, const struct zc_check_target *t)
{
    unsigned char ip[16];
    bool is_ip = inet_pton(AF_INET, t->host, ip) == 1 || inet_pton(AF_INET6, t->host, ip) == 1;
    SSL_set_verify(ssl, SSL_VERIFY_PEER, check_verify);
    if (SSL_set_fd(ssl, fd) != 1)
        return -ENOMEM;
    if (is_ip)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), t->host) == 1 ? 0 : -ENOMEM;
    return SSL_set_tlsext_host_name(ssl, t->host) == 1 && SSL_set1_host(ssl, t->host) == 1
               ? 0
               : -ENOMEM;
}

int zc_check_tls(int fd, const struct zc_check_target *t, const struct zc_net_tls *tls,
                 int64_t timeout_ns, struct zc_check_tls *out, struct zc_error *err)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_client_method());
    SSL *ssl = NULL;
    int r = -ENOMEM;
    *out = (struct zc_check_tls){0};
    if (!ctx)
        return zc_error_set(err, r, "out of memory");
    bool trust = tls->ca_bundle ? SSL_CTX_load_verify_file(ctx, tls->ca_bundle) == 1
                                : SSL_CTX_set_default_verify_paths(ctx) == 1;
    if (!trust) {
        SSL_CTX_free(ctx);
        return zc_error_set(err, -EINVAL, "no certificate can be read from %s",
                            tls->ca_bundle ? tls->ca_bundle : "the system's folder");
    }
    ssl = SSL_new(ctx);
    r = ssl ? check_setup(ctx, ssl, fd, t) : -ENOMEM;
    if (r == 0)
        r = check_handshake(ssl, fd, zc_now_ns() + timeout_ns, err);
    else
        zc_error_set(err, r, "out of memory");
    X509 *cert = r == 0 ? SSL_get0_peer_certificate(ssl) : NULL;
    if (cert) {
        long v = SSL_get_verify_result(ssl);
        snprintf(out->version, sizeof(out->version), "%s", SSL_get_version(ssl));
        out->cert = check_verdict(v);
        snprintf(out->words, sizeof(out->words), "%s", X509_verify_cert_error_string(v));
        check_name(X509_get_subject_name(cert), out->subject, sizeof(out->subject));
        check_name(X509_get_issuer_name(cert), out->issuer, sizeof(out->issuer));
        check_names(cert, out->names, sizeof(out->names));
        out->not_before_s = check_time(X509_get0_notBefore(cert));
        out->not_after_s = check_time(X509_get0_notAfter(cert));
    }
    if (r == 0)
        SSL_shutdown(ssl);
    SSL_free(ssl);
    SSL_CTX_free(ctx);
    return r;
}
