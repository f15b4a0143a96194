/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Many membership cores in one process on a virtual clock: a network that delays, reorders, loses,
 * doubles and cuts, as the seed says. One thread. The same seed gives the same run, event for
 * event.
 */
#ifndef ZC_TESTS_SIMNET_H
#define ZC_TESTS_SIMNET_H

#include "member/swim.h"

#define SIM_MS ZC_NS_PER_MS
#define SIM_S ZC_NS_PER_S

struct sim;

struct sim_node {
    struct zc_swim *core; /* NULL: down */
    struct sim *sim;
    uint32_t index, life; /* life: how often it was started */
    int64_t wake;         /* when a wake-up is queued */
    int group;            /* of a partition: packets pass within one only */
    bool deaf;            /* its process stands still: nothing arrives, no timer fires */
    bool slow;            /* a mark for the watch */
    uint64_t udp_bytes, tcp_bytes, packets;
};

/* Told of each event of each core. `about` is the node's number, or UINT32_MAX. */
typedef void sim_watch(void *arg, struct sim_node *at, const struct zc_swim_event *e,
                       uint32_t about, bool this_life);

struct sim_config {
    uint32_t nodes;
    uint64_t seed;
    double loss, duplicate;       /* shares of packets */
    int64_t delay_min, delay_max; /* one way, even */
    double tail;                  /* share of packets that take up to ten times delay_max */
    bool no_tcp_ping;             /* short streams fail, so that UDP is all that probes have */
    struct zc_swim_config swim;   /* without name, address, pool */
    size_t meta_len;
};

void sim_defaults(struct sim_config *c, uint32_t nodes, uint64_t seed);
struct sim *sim_new(const struct sim_config *c);
void sim_free(struct sim *s);

int64_t sim_now(const struct sim *s);
uint64_t sim_random(struct sim *s);
uint32_t sim_below(struct sim *s, uint32_t n);
double sim_unit(struct sim *s);
struct sim_node *sim_node(struct sim *s, uint32_t i);
struct sim_config *sim_settings(struct sim *s); /* loss and delay may be changed on the way */
void sim_set_watch(struct sim *s, sim_watch *watch, void *arg);

/* Starts node i (again, under a new name) with these nodes as seeds. */
void sim_start(struct sim *s, uint32_t i, const uint32_t *seeds, size_t n);
/* Starts all, as if they had known each other for long, each with three others as seeds. */
void sim_start_all(struct sim *s);
/* It is gone without a word. */
void sim_kill(struct sim *s, uint32_t i);
void sim_leave(struct sim *s, uint32_t i);
/* After a call into its core from outside. */
void sim_nudge(struct sim *s, uint32_t i);
/* Lets virtual time pass. */
void sim_run(struct sim *s, int64_t ns);
/* Runs until done() or the time is over; the time that it took, or -1. */
int64_t sim_until(struct sim *s, bool (*done)(struct sim *s, void *arg), void *arg, int64_t step,
                  int64_t most);

/* All that are up see exactly all that are up. */
bool sim_agreed(struct sim *s, void *unused);
/* Pairs (a, b) of nodes that are up for which a does not see b, or sees what is not up. */
uint64_t sim_wrong_views(struct sim *s);

/* No more than that, from what can be counted at once. */
uint64_t sim_wrong_at_least(struct sim *s);

/* Every packet delivered from now on is also kept, up to so many; sim_replay delivers kept ones
   again to random nodes, from their old senders' addresses. */
void sim_record(struct sim *s, size_t most);
size_t sim_replay(struct sim *s, size_t n);

struct sim_totals {
    uint64_t udp_bytes, tcp_bytes, packets, events;
};
/* Sums over all nodes since the last call. UDP and TCP as payload, unencrypted. */
void sim_take_totals(struct sim *s, struct sim_totals *out);

#endif
