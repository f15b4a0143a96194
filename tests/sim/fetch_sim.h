/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes that fetch from each other and from a store, in virtual time.
 *
 * Real: the client (peer/share*.c), what it knows of others (peer/health.c), who is sent to whom
 * (peer/referral.c), owners (cluster, ring). They are compiled into the simulator with its clock,
 * timers and questions in place of the network's. Modelled: the links, the store, processor time,
 * and those parts of the server and of fetch that say what is here and what is on its way.
 *
 * Links: 10 Gb/s each way and node, 0.2 ms there and back; a sender takes turns between its
 * connections in segments of 64 KiB, with at most 8 of one connection under way; a receiver takes
 * segments in the order in which they come. Connections exist already. Store: the first byte after
 * a log-normal time with a median of 30 ms and a 99th percentile of 121 ms, then 90 MB/s a request,
 * as many requests as one likes. Processors: two threads that receive and two that send, see
 * SIM_CPU_*.
 *
 * One simulation at a time and one thread: all state is in `sim`.
 */
#ifndef ZC_TESTS_FETCH_SIM_H
#define ZC_TESTS_FETCH_SIM_H

#include "peer/peer_priv.h"

#define SIM_NODES 64
#define SIM_CHUNKS 64
#define SIM_CHUNK ((uint64_t)4 << 20)
#define SIM_SEGMENT ((uint64_t)64 << 10)
#define SIM_WINDOW 8
#define SIM_HALF_RTT_NS 100000
#define SIM_SEGMENT_NS 52429 /* at 10 Gb/s */
#define SIM_SLOW_NS (500 * ZC_NS_PER_MS)
#define SIM_CPU_ASKED_NS 50000 /* a question looked at */
#define SIM_CPU_SAID_NS 30000  /* its answer */
#define SIM_CPU_OUT_NS 120000  /* a frame read, summed, encrypted */
#define SIM_CPU_IN_NS 150000   /* a frame decrypted, checked, written */
#define SIM_CPU_STORE_NS 40000 /* a segment from the store, decrypted and written */
#define SIM_SETTLE_NS 1000000  /* from the last byte to a chunk on record */
#define SIM_STORE_SEGMENT_NS ((int64_t)(SIM_SEGMENT * 1000 / 90))

enum { SIM_IN, SIM_OUT };

struct sim_flow {
    struct zc_list link; /* sim_node.turns */
    unsigned from, to;
    uint64_t queued; /* bytes that wait to be sent */
    unsigned under_way;
    bool closed;
    void (*arrived)(void *arg); /* a segment */
    void (*acked)(void *arg);
    void *arg;
};

struct sim_chunk { /* as one node has it */
    struct sim_node *node;
    unsigned number;
    bool in_flight, settled, reading;
    uint64_t present;
    int64_t asked_ns;
    struct zc_get_req req;
    char path[24];
    struct zc_list streams; /* to others, of what is arriving */
};

struct sim_node {
    unsigned number;
    bool dead, slow;
    struct zc_peer peer;
    struct zc_backend store, *share;
    struct zc_list children;
    struct peer_heat heat;
    struct sim_chunk chunks[SIM_CHUNKS];
    unsigned order[SIM_CHUNKS], n_order, next;
    struct zc_list turns;
    bool sending;
    int64_t sent_ns, received_ns; /* the link is free again */
    int64_t cpu_ns[2][2];         /* thread is free again */
};

struct sim_set { /* what is simulated */
    unsigned chunks, window;
    bool no_peers, no_referral, shuffled, strangers;
    unsigned dead, slow;
    uint64_t seed;
};

struct sim_result {
    unsigned gets, most, reads, failed;
    uint64_t hedges, referred, late, direct, asked, former;
    double p50, p99, last, total; /* ms */
};

struct sim {
    struct sim_set set;
    struct sim_node nodes[SIM_NODES];
    unsigned gets[SIM_CHUNKS], n_reads, failed;
    int64_t reads_ns[SIM_NODES * SIM_CHUNKS];
    int64_t last_ns; /* when the last chunk was read */
    uint64_t events;
};
extern struct sim sim;

/* ---- fetch_links.c: time, links, processors ---- */
int64_t sim_now(void);
void sim_after(int64_t delay_ns, zc_net_fn *fn, void *arg);
void sim_run(void); /* until nothing is left to happen */
/* Memory that lives until sim_reset. Zeroed. */
void *sim_alloc(size_t n);
void sim_reset(void);
uint64_t sim_random(uint64_t a, uint64_t b);
/* Some bytes from one node to another: they wait for at most one segment, and for what the
   receiver's link has before them. */
void sim_message(unsigned from, unsigned to, zc_net_fn *fn, void *arg);
/* A segment that comes from outside. */
void sim_from_store(unsigned to, zc_net_fn *fn, void *arg);
struct sim_flow *sim_flow(unsigned from, unsigned to, void (*arrived)(void *arg),
                          void (*acked)(void *arg), void *arg);
void sim_send(struct sim_flow *f, uint64_t n);
/* Then fn: one after the other on one thread. */
void sim_cpu(unsigned node, int which, unsigned key, int64_t cost_ns, zc_net_fn *fn, void *arg);

/* ---- fetch_server.c: a node's chunks, and what it answers ---- */
struct sim_stream;
struct sim_attempt {
    struct peer_attempt a;
    struct peer_request req;
    struct sim_node *asker, *asked;
    struct sim_chunk *chunk; /* the asked node's */
    struct sim_stream *stream;
    struct sim_flow *flow;
    uint64_t arrived, got;
    bool hit, over, closed; /* closed: the asked node knows that it is over */
    int status, err;        /* an answer without bytes */
};
void sim_read(struct sim_node *n);
void sim_server_asked(void *arg, bool ends);
void sim_server_closed(void *arg, bool ends);
void sim_store_init(struct sim_node *n);

/* ---- fetch_attempt.c: questions ---- */
void sim_attempt_spoke(void *arg, bool ends);
void sim_attempt_said(void *arg, bool ends);
void sim_attempt_segment(void *arg);

#endif
