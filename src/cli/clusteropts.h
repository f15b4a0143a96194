/* SPDX-License-Identifier: Apache-2.0 */
/* The options of `zcache mount` that make it a node of a cluster: their checks. The rows are in the
   table of mountopts.c. */
#ifndef ZC_CLI_CLUSTEROPTS_H
#define ZC_CLI_CLUSTEROPTS_H

#include "cli/mountopts.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define ZC_GOSSIP_PORT 7946

enum zc_replicate { ZC_REPLICATE_LOCAL, ZC_REPLICATE_OWNER_ONLY };

union zc_sockaddr {
    struct sockaddr sa;
    struct sockaddr_in in;
    struct sockaddr_in6 in6;
};

/* "10.0.0.1", "10.0.0.1:7946", "::1", "[::1]:7946"; the port is `port` when none is written. No
   names are looked up. -EINVAL. */
int zc_sockaddr_parse(const char *text, uint16_t port, union zc_sockaddr *out);
uint16_t zc_sockaddr_port(const union zc_sockaddr *a);
void zc_sockaddr_set_port(union zc_sockaddr *a, uint16_t port);
/* "10.0.0.1:7946", "[::1]:7946"; buf holds 64 bytes. Returns buf. */
const char *zc_sockaddr_text(const union zc_sockaddr *a, char *buf, size_t n);
bool zc_sockaddr_is_loopback(const union zc_sockaddr *a);
bool zc_sockaddr_is_any(const union zc_sockaddr *a);

/* One of a list "HOST[:PORT],HOST[:PORT]": its host, and its port or `port`. Returns where the next
   begins, NULL after the last; host[0] is 0 when it is not understood. */
const char *zc_join_next(const char *list, char host[256], uint16_t *port);

/* Is it to be a node of a cluster? */
bool zc_cluster_wanted(const struct zc_mount_opts *o);
/* Refuses what would do nothing, and what would let anybody on the network in. Opens nothing.
   given: bit i for row i of zc_mount_table. -EINVAL with words. */
int zc_cluster_opts_finish(const struct zc_mount_opts *o, uint64_t given, struct zc_error *err);
/* Where to listen for gossip, as --bind says. */
void zc_cluster_bind(const struct zc_mount_opts *o, union zc_sockaddr *out);

#endif
