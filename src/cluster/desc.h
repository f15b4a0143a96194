/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a node says of itself in the metadata of its membership: at most ZC_DESC_MAX bytes, of which
 * gossip carries up to 512. Integers are big endian.
 *
 *     0  'z' 'c'
 *     2  format, 1
 *     3  version of the ring (ZC_RING_PROTOCOL)
 *     4  version of what peers say to each other
 *     5  weight now, nominal weight, bytes in the cache as a weight: one byte each, ring/ring.h
 *     8  flags: 1 the key's digest follows
 *     9  port of the peer server, 2 bytes
 *    11  when the process started, 8 bytes, milliseconds since the epoch
 *    19  id, 16 bytes
 *    35  length of the name, its bytes: printable ASCII, for people
 *     -  flag 1: SHA-256 of its certificate's public key (SubjectPublicKeyInfo), 32 bytes
 *     -  whatever later versions add
 *
 * Pure: no I/O, no state.
 */
#ifndef ZC_CLUSTER_DESC_H
#define ZC_CLUSTER_DESC_H

#include "cluster/cluster.h"

#define ZC_DESC_HEAD 36
#define ZC_DESC_MAX (ZC_DESC_HEAD + ZC_NODE_NAME - 1 + ZC_NODE_SPKI)

struct cluster_desc {
    uint8_t ring_protocol, peer_protocol;
    uint8_t weight, nominal, used;
    bool has_spki;
    uint16_t port;
    uint64_t started_ms;
    uint8_t id[ZC_NODE_ID];
    char name[ZC_NODE_NAME]; /* 1 to 63 bytes */
    uint8_t spki[ZC_NODE_SPKI];
};

/* Bytes written. The fields must be such as decoding accepts. */
size_t cluster_desc_encode(uint8_t out[ZC_DESC_MAX], const struct cluster_desc *d);
/* -EBADMSG for what is no descriptor, such as the metadata of a foreign member. */
int cluster_desc_decode(const uint8_t *p, size_t n, struct cluster_desc *out);
/* Is it 1 to 63 bytes of printable ASCII? */
bool cluster_name_ok(const char *name);

#endif
