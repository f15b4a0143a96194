/* SPDX-License-Identifier: Apache-2.0 */
/* What lies between this machine and a server: name, connection, TLS, and whether it is HTTP that
 * answers. */
#include "cli/doctor.h"

#include "backend/s3_text.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define NET_TIME_NS (10 * ZC_NS_PER_S)
#define NET_CERT_SOON_S (14 * 86400) /* a certificate that ends sooner is worth a warning */

static void net_day(int64_t s, char out[32])
{
    struct tm tm;
    time_t t = (time_t)s;
    if (!gmtime_r(&t, &tm) || strftime(out, 32, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        snprintf(out, 32, "?");
}

/* ------------------------------------------------------------------ TLS */

static bool net_cert(struct zc_doctor *d, const struct zc_check_target *t,
                     const struct zc_check_tls *c, const struct zc_net_tls *tls, double ms,
                     const char *tls_fix)
{
    char from[32], until[32];
    int64_t now = zc_wall_ns() / ZC_NS_PER_S;
    /* Whoever does not check is told, and goes on. */
    enum zc_doc_result bad = tls->no_verify ? ZC_DOC_WARNING : ZC_DOC_FAILED;
    net_day(c->not_before_s, from);
    net_day(c->not_after_s, until);
    switch (c->cert) {
    case ZC_CERT_OK:
        break;
    case ZC_CERT_AUTHORITY:
        zc_doc_step(d, "TLS", bad, ms,
                    "pass --ca-bundle FILE (or set AWS_CA_BUNDLE) with the authority's certificate",
                    "the certificate of %s, '%s', is signed by '%s', which is not trusted (%s)",
                    t->host, c->subject, c->issuer, c->words);
        return tls->no_verify;
    case ZC_CERT_EXPIRED:
        zc_doc_step(d, "TLS", bad, ms,
                    "it must be renewed by whoever runs the server; if this machine's clock is "
                    "wrong, set it (timedatectl set-ntp true)",
                    "the certificate of %s, '%s', has expired on %s", t->host, c->subject, until);
        return tls->no_verify;
    case ZC_CERT_EARLY:
        zc_doc_step(d, "TLS", bad, ms,
                    "set this machine's clock (timedatectl set-ntp true), or the server's",
                    "the certificate of %s, '%s', is valid only from %s on", t->host, c->subject,
                    from);
        return tls->no_verify;
    case ZC_CERT_NAME:
        zc_doc_step(d, "TLS", bad, ms, tls_fix, "the certificate of %s is for other names: %s",
                    t->host, c->names[0] ? c->names : c->subject);
        return tls->no_verify;
    case ZC_CERT_OTHER:
        zc_doc_step(d, "TLS", bad, ms, "ask whoever runs the server",
                    "the certificate of %s, '%s', is not good: %s", t->host, c->subject, c->words);
        return tls->no_verify;
    }
    if (c->not_after_s - now < NET_CERT_SOON_S)
        zc_doc_step(d, "TLS", ZC_DOC_WARNING, ms, "it must be renewed by whoever runs the server",
                    "%s, '%s', ends soon: on %s", c->version, c->subject, until);
    else
        zc_doc_step(d, "TLS", ZC_DOC_OK, ms, NULL, "%s, '%s' signed by '%s', valid until %s",
                    c->version, c->subject, c->issuer, until);
    if (tls->no_verify)
        zc_doc_step(d, "TLS", ZC_DOC_WARNING, -1, "leave --no-verify-ssl out",
                    "the certificate is good, and --no-verify-ssl does not look at it");
    return true;
}

static bool net_tls(struct zc_doctor *d, int fd, const struct zc_check_target *t,
                    const struct zc_net_tls *tls, const char *tls_fix)
{
    struct zc_check_tls c;
    struct zc_error err = {0};
    int64_t start = zc_now_ns();
    int r = zc_check_tls(fd, t, tls, NET_TIME_NS, &c, &err);
    double ms = zc_doc_ms(start);
    if (r == 0)
        return net_cert(d, t, &c, tls, ms, tls_fix);
    if (r == -EINVAL)
        zc_doc_step(d, "TLS", ZC_DOC_FAILED, ms, "--ca-bundle wants a file of PEM certificates",
                    "%s", err.text);
    else if (strstr(err.text, "wrong version number") || strstr(err.text, "packet length"))
        zc_doc_step(d, "TLS", ZC_DOC_FAILED, ms, "write http:// and not https:// in the address",
                    "%s port %u does not speak TLS", t->host, t->port);
    else
        zc_doc_step(d, "TLS", ZC_DOC_FAILED, ms,
                    "is the port right? Something on the way may also cut TLS off",
                    "no TLS with %s port %u: %s", t->host, t->port, err.text);
    return false;
}

/* ------------------------------------------------------------------ the way there */

static int net_connect(struct zc_doctor *d, const struct zc_check_target *t,
                       const struct zc_check_addr *a, int n, const char *address_fix)
{
    char said[600] = "";
    size_t at = 0;
    int worst = 0;
    for (int i = 0; i < n; i++) {
        int64_t start = zc_now_ns();
        int fd = zc_check_connect(&a[i], t->port, NET_TIME_NS);
        double ms = zc_doc_ms(start);
        if (fd >= 0) {
            if (i)
                zc_doc_step(d, "connection", ZC_DOC_WARNING, ms,
                            "addresses that do not answer cost time at each new connection",
                            "to %s port %u, but not to %s", a[i].text, t->port, said);
            else
                zc_doc_step(d, "connection", ZC_DOC_OK, ms, NULL, "to %s port %u", a[i].text,
                            t->port);
            return fd;
        }
        worst = fd;
        int k = at < sizeof(said) ? snprintf(said + at, sizeof(said) - at, "%s%s (%s)",
                                             at ? ", " : "", a[i].text, strerror(-fd))
                                  : 0;
        at += k > 0 ? (size_t)k : 0;
        if (fd == -ETIMEDOUT && i >= 2)
            break; /* nobody waits for more than three */
    }
    zc_doc_step(d, "connection", ZC_DOC_FAILED, -1,
                worst == -ECONNREFUSED ? address_fix
                                       : "a firewall, a security group or a missing route may be "
                                         "in the way; or a proxy is needed (https_proxy)",
                "no connection to port %u of %s", t->port, said);
    return -1;
}

bool zc_doc_url(struct zc_doctor *d, const char *who, const char *url, const struct zc_net_tls *tls,
                const char *address_fix, const char *tls_fix)
{
    struct zc_check_target t, p;
    struct zc_check_addr addr[ZC_CHECK_ADDRS];
    struct zc_error err = {0};
    char proxy[400];
    const char *variable = "";
    if (zc_check_target(url, &t) < 0) {
        zc_doc_step(d, "address", ZC_DOC_FAILED, -1, address_fix, "%s: %s is not a URL", who, url);
        return false;
    }
    zc_check_proxy(&t, proxy, sizeof(proxy), &variable);
    bool by_proxy = proxy[0] && zc_check_target(proxy, &p) == 0;
    if (proxy[0])
        zc_doc_step(d, "proxy", ZC_DOC_NOTE, -1, NULL, "requests go by the proxy that %s names%s",
                    variable, by_proxy ? "" : ", which is none of HTTP's");
    if (proxy[0] && !by_proxy)
        return true;
    const struct zc_check_target *to = by_proxy ? &p : &t;
    int64_t start = zc_now_ns();
    int n = zc_check_resolve(to, addr, &err);
    double ms = zc_doc_ms(start);
    if (n < 0) {
        zc_doc_step(d, "name", ZC_DOC_FAILED, ms, by_proxy ? "check the proxy's name" : address_fix,
                    "%s: %s has no address: %s", who, to->host, err.text);
        return false;
    }
    zc_doc_step(d, "name", ZC_DOC_OK, ms, NULL, "%s: %s is %s%s", who, to->host, addr[0].text,
                n > 1 ? " and others" : "");
    zc_autoclose int fd =
        net_connect(d, to, addr, n, by_proxy ? "check the proxy's address" : address_fix);
    if (fd < 0)
        return false;
    return !t.tls || by_proxy || net_tls(d, fd, &t, tls, tls_fix);
}

/* ------------------------------------------------------------------ HTTP */

struct net_get {
    struct zc_http http;
    int64_t date_ns;
};

static void net_header(struct zc_http *http, const char *line, size_t n)
{
    struct net_get *g = http->user;
    if (n > 6 && strncasecmp(line, "Date: ", 6) == 0 &&
        s3_text_date(line + 6, n - 6, &g->date_ns) < 0)
        g->date_ns = 0;
}

int zc_doc_get(struct zc_doctor *d, const char *who, const char *url, const struct zc_net_tls *tls,
               int64_t *skew_ns, char **body)
{
    static const char *const headers[] = {"User-Agent: zcache/" ZC_VERSION, NULL};
    struct net_get g = {.http = {.method = "GET",
                                 .url = url,
                                 .headers = headers,
                                 .tls = tls,
                                 .deadline_ns = zc_now_ns() + NET_TIME_NS,
                                 .header = net_header}};
    char *text = NULL;
    int64_t start = zc_now_ns();
    g.http.user = &g;
    int r = zc_net_wait(d->net, &g.http, ZC_MIB, &text, NULL);
    double ms = zc_doc_ms(start);
    *skew_ns = INT64_MIN;
    if (r < 0) {
        bool silent = r == -ETIMEDOUT;
        zc_doc_step(d, "HTTP", ZC_DOC_FAILED, ms,
                    silent ? "it accepts connections and is silent: is it starting, overloaded, or "
                             "another service's port?"
                           : "is the port right, and http or https?",
                    "%s does not answer in HTTP: %s", who,
                    g.http.why[0] ? g.http.why : strerror(-r));
        return r;
    }
    if (g.date_ns)
        *skew_ns = g.date_ns + ZC_NS_PER_S / 2 - zc_wall_ns();
    /* Servers with TLS tell who comes without it. */
    if (strncasecmp(url, "http:", 5) == 0 && g.http.status == 400 &&
        (strcasestr(text, "HTTPS server") || strcasestr(text, "HTTPS port"))) {
        zc_doc_step(d, "HTTP", ZC_DOC_FAILED, ms, "write https:// and not http:// in the address",
                    "%s wants TLS", who);
        free(text);
        return -EPROTO;
    }
    zc_doc_step(d, "HTTP", ZC_DOC_OK, ms, NULL, "%s answers (status %d)", who, g.http.status);
    if (body)
        *body = text;
    else
        free(text);
    return g.http.status;
}

void zc_doc_clock(struct zc_doctor *d, int64_t skew_ns, const char *matters)
{
    double s = (double)skew_ns / 1e9, a = s < 0 ? -s : s;
    if (skew_ns == INT64_MIN)
        zc_doc_step(d, "clock", ZC_DOC_NOTE, -1, NULL, "the server does not tell the time");
    else if (a < 60)
        zc_doc_step(d, "clock", ZC_DOC_OK, -1, NULL, "within %.0f s of the server's",
                    a < 1 ? 1 : a);
    else
        zc_doc_step(d, "clock", ZC_DOC_WARNING, -1, "set the clock: timedatectl set-ntp true",
                    "this machine's clock is %.0f s %s the server's; %s", a,
                    s > 0 ? "behind" : "ahead of", matters);
}
