/* SPDX-License-Identifier: Apache-2.0 */
/* What the room's files share. */
#ifndef ZC_CLUSTER_PRIV_H
#define ZC_CLUSTER_PRIV_H

#include "cluster/members.h"
#include "cluster/view.h"

#include <pthread.h>

struct cluster_live;

struct zc_cluster {
    pthread_mutex_t lock; /* guards what follows, for as long as a pointer is taken or put */
    struct cluster_view *view;
    struct cluster_view *settled; /* by whose ring nodes have had the time to get what they own;
                                     NULL: `view` */
    struct zc_cluster_member *members;
    unsigned n_members;
    unsigned index_end;
    struct cluster_live *live; /* NULL: it never changes */
};

/* Without a view yet. NULL when memory is short. */
struct zc_cluster *cluster_new(void);
/* Takes what was read; later questions are answered from it. */
void cluster_publish(struct zc_cluster *c, struct cluster_reading *take, unsigned index_end);
/* From now on who owns is taken to have what it owns. */
void cluster_settle(struct zc_cluster *c);
/* The digest of that ring; 0 before the first. */
uint64_t cluster_settled(struct zc_cluster *c);

#endif
