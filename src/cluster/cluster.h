/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The nodes that share one cache, as this node sees them at the moment, and which of them owns a
 * piece of an object.
 *
 * Owning is a matter of whom to ask first, never of what is true: two nodes that see different
 * members ask different owners and get the same bytes. What is handed out here is therefore a copy
 * of one moment, and may be wrong about who is alive.
 *
 * Threads: all functions may be called from any thread and do not block, but for those that start
 * and end a cluster. None calls back.
 */
#ifndef ZC_CLUSTER_H
#define ZC_CLUSTER_H

#include "base/base.h"
#include "base/digest.h"
#include "base/error.h"

#include <netinet/in.h>
#include <sys/socket.h>

#define ZC_NODE_ID 16
#define ZC_NODE_NAME 64 /* bytes, with the NUL */
#define ZC_NODE_SPKI 32
#define ZC_CLUSTER_NODES_MAX 65000

/* Consecutive pieces of an object that have one owner: sequential readers then stay with one node,
   and the owner can read ahead. */
#define ZC_CLUSTER_GROUP ((uint64_t)32 << 20)

struct zc_cluster_node {
    uint8_t
        id[ZC_NODE_ID]; /* kept on the node's disk: the same after a restart, under another name */
    char name[ZC_NODE_NAME]; /* for people */
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } addr;          /* where its peer server listens */
    uint32_t index;  /* small and dense; of this id as long as this process lives: for tables */
    uint8_t weight;  /* now, see ring/ring.h; 0: owns nothing (drains, or only reads) */
    uint8_t nominal; /* when it neither joins nor leaves */
    bool is_self;
    bool suspect;               /* gossip doubts that it is alive */
    uint8_t spki[ZC_NODE_SPKI]; /* SHA-256 of its certificate's public key; zeros: it has none */
};

struct zc_cluster;

/* A cluster of this node and those that gossip tells of. */
struct zc_cluster_config {
    const char *name;      /* of this node; 1 to 63 printable characters without blanks */
    const char *id_file;   /* keeps this node's id */
    uint8_t peer_protocol; /* version of what peers say to each other: others' nodes are not ours */
    uint64_t capacity;     /* bytes that the cache may hold: the weight */
    /* Bytes in the cache. On the cluster's own thread. */
    uint64_t (*used)(void *user);
    /* Another ring than before: the cache may want to know whose copies are spare. On the cluster's
       own thread, at most once a second; may take a while. May be NULL. */
    void (*changed)(void *user);
    void *user;
};

/* Of this node alone, which owns everything until zc_cluster_start. Reads or makes the id file. */
int zc_cluster_new(const struct zc_cluster_config *cfg, struct zc_cluster **out,
                   struct zc_error *err);

struct zc_cluster_gossip {
    struct zc_member_config *member; /* where to listen, seeds, keys; see member/member.h */
    uint16_t peer_port;              /* where this node's peer server listens */
    const uint8_t *spki;             /* ZC_NODE_SPKI bytes, or NULL */
};

/* Starts to gossip, with a thread of its own. Waits a second or two for an answer from others, but
   is no failure without one. -errno with words when it cannot listen. */
int zc_cluster_start(struct zc_cluster *c, const struct zc_cluster_gossip *g, struct zc_error *err);
/* Announces that this node owns nothing any more: the first step of leaving. Does not wait; it goes
   on to be seen by others. False when there is nobody to take anything over. */
bool zc_cluster_drain(struct zc_cluster *c);

/* A cluster that never changes, of the nodes given (n > 0, distinct ids; index is set here, in
   their order). -EINVAL, -ENOMEM. */
int zc_cluster_new_static(const struct zc_cluster_node *nodes, unsigned n, struct zc_cluster **out);
/* Tells the others that this node leaves, for two seconds at most. Nobody may be in a call any
 * more. */
void zc_cluster_free(struct zc_cluster *c);

/* The key of the piece of an object in which `off` lies. object: zc_objid_of's digest, which is the
   same on all nodes. */
uint64_t zc_cluster_key(struct zc_digest object, uint64_t off);

/* The nodes that own the key, best first, at most `max`; this node included, suspects too. Returns
   how many: 0 when no node has a weight. Only the first one: some tens of nanoseconds. */
unsigned zc_cluster_rank(struct zc_cluster *c, uint64_t key, struct zc_cluster_node *out,
                         unsigned max);

/* Who may still hold what this node has to fetch as its owner, best first, without this node: the
   node that owned it and drains now, then those that come after this node. To be asked only for
   what they have. */
unsigned zc_cluster_former(struct zc_cluster *c, uint64_t key, struct zc_cluster_node *out,
                           unsigned max);

/* Is the copy of the key here a spare one, because another node that is not suspect owns it? Not
   while it has only just begun to own it (ten minutes, or since this node's start), or this node
   drains: the copy here may be the only one. */
bool zc_cluster_spare(struct zc_cluster *c, uint64_t key);

/* Of the members and weights behind zc_cluster_rank: differs when they differ. */
uint64_t zc_cluster_digest(struct zc_cluster *c);

/* This node. */
void zc_cluster_self(struct zc_cluster *c, struct zc_cluster_node *out);
/* Nodes in view, this one included, those without weight too. */
unsigned zc_cluster_count(struct zc_cluster *c);
/* Copies at most `max` of them, in the order of ids; returns how many. */
unsigned zc_cluster_nodes(struct zc_cluster *c, struct zc_cluster_node *out, unsigned max);
/* One past the largest index that was ever given out. */
unsigned zc_cluster_index_end(struct zc_cluster *c);
/* The node of this id; false when it is not in view. */
bool zc_cluster_find(struct zc_cluster *c, const uint8_t id[ZC_NODE_ID],
                     struct zc_cluster_node *out);

/* ------------------------------------------------------------------ for people */

enum zc_cluster_state { ZC_CLUSTER_ALIVE, ZC_CLUSTER_SUSPECT, ZC_CLUSTER_DEAD, ZC_CLUSTER_LEFT };

enum zc_cluster_standing {
    ZC_CLUSTER_IN,            /* one of zc_cluster_nodes */
    ZC_CLUSTER_ABSENT,        /* dead, or has left */
    ZC_CLUSTER_FOREIGN,       /* says nothing that zcache understands: another program */
    ZC_CLUSTER_OTHER_VERSION, /* of zcache, with another ring or peer protocol */
    ZC_CLUSTER_DOUBLE,        /* has the id of another one, which started later */
    ZC_CLUSTER_TOO_MANY
};

/* A member of the gossip, whether or not it is a node of ours. */
struct zc_cluster_member {
    struct zc_cluster_node node; /* what is not known of it is zero */
    char name[256];              /* in gossip */
    enum zc_cluster_state state;
    enum zc_cluster_standing standing;
    int64_t since_ns; /* of the state; zc_now_ns() */
    uint16_t gossip_port;
    uint64_t started_ms; /* since the epoch */
    uint64_t used_bytes; /* in its cache, roughly: gossip carries powers of 2^(1/4) */
    double share;        /* of all keys, expected from the weights */
};

/* A copy of what is known of all members, by name; caller frees. NULL when memory is short. Of a
   cluster made by zc_cluster_new_static: its nodes. */
struct zc_cluster_member *zc_cluster_members(struct zc_cluster *c, unsigned *n);

#endif
