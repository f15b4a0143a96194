/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From what gossip says to the nodes of a view: reads descriptors, gives out indices, and settles
 * who is meant when two members have one id.
 *
 * That happens for some seconds when a node restarts, because its former life is not dead yet: the
 * one that started last counts. It lasts when a disk was copied with the id on it: then the one
 * that started last keeps the id, and the other one learns that it is a copy and draws another.
 *
 * Not synchronised.
 */
#ifndef ZC_CLUSTER_MEMBERS_H
#define ZC_CLUSTER_MEMBERS_H

#include "cluster/desc.h"
#include "cluster/view.h"

/* One member as gossip has it. */
struct cluster_seen {
    const char *name; /* in gossip: differs from life to life */
    uint8_t ip[16];   /* network order; 4 or 16 of them */
    uint8_t ip_len;
    uint16_t port; /* of gossip */
    enum zc_cluster_state state;
    bool self;
    int64_t since_ns; /* of this state; zc_now_ns() */
    const uint8_t *meta;
    size_t meta_len;
};

/* Which index an id has. Zero to begin with. */
struct cluster_indices {
    struct cluster_index {
        uint8_t id[ZC_NODE_ID];
        uint32_t index;
    } * sorted;
    unsigned n;
};
void cluster_indices_free(struct cluster_indices *x);
/* -ENOMEM; -ENOSPC past ZC_CLUSTER_NODES_MAX. */
int cluster_indices_of(struct cluster_indices *x, const uint8_t id[ZC_NODE_ID], uint32_t *index);

struct cluster_reading {
    struct zc_cluster_member *members; /* all that are seen, by name */
    unsigned n;
    struct cluster_view *view; /* of those that are alive or suspect and speak our versions */
    bool copied;               /* another member with this node's id started later */
};

/* peer_protocol: that of this node. -ENOMEM; -EINVAL when this node is not among those seen. */
int cluster_read(struct cluster_indices *x, const struct cluster_seen *seen, unsigned n,
                 uint8_t peer_protocol, struct cluster_reading *out);
void cluster_reading_free(struct cluster_reading *r);

#endif
