/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who receives bytes at the moment, and who is sent to whom for them.
 *
 * A node gives a piece to a few that ask at the same time, and names these to everybody who asks
 * while it does, so that one cold piece reaches n nodes over a tree of about log4(n) steps, and
 * what many want at once is not bound to one node's link. What was named is no promise: it may have
 * nothing by then, and the asker comes back.
 *
 * Nothing here knows of connections or locks: the caller serialises.
 */
#ifndef ZC_PEER_REFERRAL_H
#define ZC_PEER_REFERRAL_H

#include "base/digest.h"
#include "base/list.h"
#include "cluster/cluster.h"
#include "peer/wire.h"

#define PEER_CHILDREN 4 /* fan-out: more than so many receivers are sent to each other */

/* One who receives bytes, and to whom others can be sent. */
struct peer_child {
    struct zc_list link; /* of the caller's list */
    uint8_t node[ZC_NODE_ID];
    struct zc_digest object;
    uint64_t off, end;
    unsigned sent; /* how many were sent to it */
};

/* Where one that asks for [r->off, r->off + r->len) belongs, by r->node. Either it becomes a
   receiver: returns 0, *child is the last of `children` and the caller's to unlink and free (NULL
   without memory). Or it is sent to receivers of the same bytes: returns how many ids are in refer,
   the one first to which the fewest were sent, and *child is NULL. */
unsigned peer_referral_place(struct zc_list *children, const struct peer_request *r,
                             struct zc_digest object, struct peer_child **child,
                             uint8_t refer[PEER_REFERS][ZC_NODE_ID]);

#endif
