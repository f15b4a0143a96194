/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One look at each layer below HTTP, for a person who wants to know which of them is at fault:
 * name, connection, TLS. Requests do not go this way. All of it blocks and runs on the caller's
 * thread; nothing is kept.
 */
#ifndef ZC_NET_CHECK_H
#define ZC_NET_CHECK_H

#include "net/net.h"

#include <sys/socket.h>

struct zc_check_addr {
    struct sockaddr_storage sa;
    socklen_t len;
    char text[64]; /* "192.0.2.1", "2001:db8::1" */
};

#define ZC_CHECK_ADDRS 16

struct zc_check_target {
    bool tls;
    char host[256]; /* without brackets */
    unsigned port;
};

/* Where an URL leads: http or https, host, port. -EINVAL. */
int zc_check_target(const char *url, struct zc_check_target *out);
/* The proxy that requests for this URL would take by the environment, "" without one. */
void zc_check_proxy(const struct zc_check_target *t, char *proxy, size_t n, const char **variable);
/* Addresses of the host; how many at the most ZC_CHECK_ADDRS, or -EHOSTUNREACH with the resolver's
   words. */
int zc_check_resolve(const struct zc_check_target *t, struct zc_check_addr out[ZC_CHECK_ADDRS],
                     struct zc_error *err);
/* A connection within that time: the descriptor, or -errno. */
int zc_check_connect(const struct zc_check_addr *a, unsigned port, int64_t timeout_ns);

enum zc_check_cert {
    ZC_CERT_OK,
    ZC_CERT_AUTHORITY, /* nobody that is trusted has signed it */
    ZC_CERT_EXPIRED,
    ZC_CERT_EARLY, /* not valid yet */
    ZC_CERT_NAME,  /* for another host */
    ZC_CERT_OTHER,
};

struct zc_check_tls {
    char version[16];
    enum zc_check_cert cert;
    char words[200]; /* OpenSSL's, for cert */
    char subject[200], issuer[200];
    char names[300];      /* hosts that it is for */
    int64_t not_before_s; /* since the epoch */
    int64_t not_after_s;
};

/* A handshake on a connection (which it does not close), with the certificate looked at whatever is
   wrong with it. 0; -EPROTO with words: there was no handshake; -ETIMEDOUT; -EINVAL: the bundle of
   authorities cannot be read. */
int zc_check_tls(int fd, const struct zc_check_target *t, const struct zc_net_tls *tls,
                 int64_t timeout_ns, struct zc_check_tls *out, struct zc_error *err);

#endif
