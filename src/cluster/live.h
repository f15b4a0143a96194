/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A cluster that lives: one thread reads what gossip has, makes views of it, and keeps what this
 * node says of itself up to date. Private to the room.
 */
#ifndef ZC_CLUSTER_LIVE_H
#define ZC_CLUSTER_LIVE_H

#include "cluster/cluster_priv.h"
#include "cluster/pace.h"

/* Leaves and frees; NULL is allowed. */
void cluster_live_end(struct cluster_live *l);

#endif
