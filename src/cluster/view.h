/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One moment of a cluster: the nodes and the ring of them. Immutable, counted by reference; a
 * change makes another one. Private to the room.
 */
#ifndef ZC_CLUSTER_VIEW_H
#define ZC_CLUSTER_VIEW_H

#include "cluster/cluster.h"
#include "ring/ring.h"

struct cluster_view;

/* Of these nodes, whose indices are set; `nodes` is copied. -EINVAL: two have the same id, none or
   more than one is_self; -ENOMEM. */
int cluster_view_new(const struct zc_cluster_node *nodes, unsigned n, struct cluster_view **out);
struct cluster_view *cluster_view_ref(struct cluster_view *v);
void cluster_view_unref(struct cluster_view *v); /* NULL is allowed */

/* As the functions of cluster.h of these names. */
unsigned cluster_view_rank(struct cluster_view *v, uint64_t key, struct zc_cluster_node *out,
                           unsigned max);
unsigned cluster_view_former(struct cluster_view *v, uint64_t key, struct zc_cluster_node *out,
                             unsigned max);
/* settled: an earlier view, or the same, in which the key must have had the same owner. */
bool cluster_view_spare(struct cluster_view *v, struct cluster_view *settled, uint64_t key);
uint64_t cluster_view_digest(struct cluster_view *v);
/* In the order of ids. */
const struct zc_cluster_node *cluster_view_nodes(struct cluster_view *v, unsigned *n);
const struct zc_cluster_node *cluster_view_self(struct cluster_view *v);
const struct zc_cluster_node *cluster_view_find(struct cluster_view *v,
                                                const uint8_t id[ZC_NODE_ID]);
/* The part of the keys that is the node's, of 1; node: a place in cluster_view_nodes. */
double cluster_view_share(struct cluster_view *v, unsigned node);

#endif
