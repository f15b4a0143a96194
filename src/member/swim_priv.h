/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The core's insides, shared by its files:
 *
 *   swim.c         creation, time, what is called from outside
 *   swim_node.c    the pool of descriptions, the table of members
 *   swim_state.c   what alive, suspect and dead do to a member; suspicion; refutation
 *   swim_claim.c   claims that are put to the node in question before they are believed
 *   swim_probe.c   probing, relaying probes, acks; health
 *   swim_rumour.c  the queue of rumours, and packets made of it
 *   swim_packet.c  what a packet says
 *   swim_stream.c  exchange of all state, joining
 *
 * Members have stable slots, so that rumours, claims and probes can name them by number.
 * Descriptions are counted by reference, and replaced, never changed.
 */
#ifndef ZC_MEMBER_SWIM_PRIV_H
#define ZC_MEMBER_SWIM_PRIV_H

#include "member/swim.h"

#define NONE UINT32_MAX
#define NEVER INT64_MAX

#define INCARNATION_MAX ((uint32_t)1 << 31)
#define INCARNATION_JUMP ((uint32_t)1 << 20)
#define RELAYS_MAX 240    /* probes in flight for others */
#define CLAIMS_AT_ONCE 64 /* that are being put to their nodes */
#define CLAIM_ASKS 4      /* pings for one claim */
#define PROBE_BITS 9      /* of a sequence number: the probe's index */
#define PROBES_MAX (1u << PROBE_BITS)
#define STREAMS_MAX 16
#define CONFIRM_MAX 8
#define NAME_BASE_MAX 200
#define NONCE_DIGITS 12

struct node {
    struct zc_swim_node pub; /* name and meta point behind this struct */
    uint64_t hash;           /* of the name */
    uint64_t key;            /* of all of it */
    uint32_t refs;
};

struct member {
    struct node *node; /* NULL: the slot is free */
    int64_t since;
    uint32_t incarnation;
    uint32_t rumour, suspicion, claim; /* indices, or NONE */
    uint8_t state;                     /* enum zc_swim_state */
    uint8_t tell;                      /* PENDING: enum tell, once it has answered */
    bool last_asked;                   /* dead, and asked once more whether it is */
};

/* How a name that was not known is passed on. */
enum tell {
    TELL,      /* it is news */
    TELL_LATE, /* after the news, and half as often: one of many of an exchange, which others have
                  as well */
    TELL_NOT,  /* those that this node has it from have told it */
};

/* A growing array of equal items with a list of free ones; the first four bytes of a free item are
   its link. Pointers into it hold until the next take. */
struct slab {
    char *items;
    uint32_t cap, used, free_head, count;
};

struct rumour {
    uint32_t prev, next; /* in its tier; NONE at the ends */
    uint32_t member;
    uint16_t sent;
    uint8_t kind;      /* ZC_WIRE_ALIVE, SUSPECT or DEAD */
    struct node *from; /* the accuser; NULL: alive */
};

struct suspicion {
    uint32_t member, gen;
    int64_t start, min, max;
    uint64_t from[CONFIRM_MAX + 1]; /* hashes of the accusers' names, the first one first */
    uint8_t k, n;                   /* confirmations wanted, had */
};

/* Something that is said of a member and not believed yet. */
struct claim {
    uint32_t member, gen;
    uint32_t next; /* in the line of those that wait for their turn */
    uint32_t step; /* names the timer that counts */
    uint32_t incarnation;
    struct node *node;         /* ALIVE: what it is said to be */
    struct node *from;         /* the accuser */
    uint32_t seqs[CLAIM_ASKS]; /* of its pings; 0: none */
    uint8_t state; /* what it is said to be: enum zc_swim_state; PENDING: there at all */
    uint8_t asked, acks;
    bool active;
};

enum probe_kind { PROBE_FREE, PROBE_MEMBER, PROBE_CLAIM, PROBE_RELAY };

struct probe {
    struct zc_swim_addr back; /* RELAY: who asked */
    int64_t end;
    uint32_t seq; /* the low PROBE_BITS: its index */
    uint32_t gen; /* 0: free */
    uint32_t
        target; /* MEMBER: slot; CLAIM: index; RELAY: their sequence number; FREE: the next one */
    uint32_t check; /* MEMBER: incarnation at the start; CLAIM: the claim's gen */
    uint8_t kind, nacks_wanted, nacks;
    bool asked_others, tcp_ok, nack;
};

enum timer_kind { TIMER_PROBE, TIMER_SUSPICION, TIMER_CLAIM };

struct timer {
    int64_t at;
    uint32_t gen, index;
    uint8_t kind;
};

/* An address by which the cluster can be found, and who had it when that was last looked up. */
struct seed {
    struct zc_swim_addr addr;
    uint32_t slot;
};

enum stream_kind { STREAM_FREE, STREAM_JOIN, STREAM_SYNC, STREAM_PING };

struct stream {
    uint32_t id;
    uint32_t seq; /* PING: of the probe */
    uint8_t kind;
};

struct zc_swim {
    struct zc_swim_config config; /* name and meta are in self's node */
    struct zc_swim_ops ops;
    void *arg;
    int64_t now;
    char base[NAME_BASE_MAX + 1];

    /* members */
    struct zc_swim_pool *pool;
    bool own_pool;
    struct member *members;
    uint32_t slots, slots_cap, free_slot; /* a free slot's link is in `rumour` */
    uint32_t *names;                      /* open addressing: slot, or NONE */
    uint32_t names_cap;
    uint32_t n_known, n_alive, n_suspect, n_dead, n_pending; /* known: without pending */
    uint32_t self;

    /* probing */
    uint32_t *order; /* slots, shuffled */
    uint32_t order_n, order_cap, order_at;
    struct probe probes[PROBES_MAX];
    uint32_t probes_used, probe_free, n_relays; /* used: those above never were */
    uint32_t last_probe;                        /* the last one of our own round, or NONE */
    unsigned health;

    /* rumours: tiers by how often they were sent */
    struct slab rumours;
    uint32_t *tier_head, *tier_tail;
    uint32_t tiers;
    uint32_t lens_n;
    uint16_t lens[ZC_WIRE_PARTS_MAX];
    struct zc_buf parts, out;

    /* suspicion and claims */
    struct slab suspicions, claims;
    uint32_t claim_head, claim_tail, claims_active;
    uint32_t gen;

    /* time */
    struct timer *timers; /* a heap */
    size_t timers_n, timers_cap;
    int64_t next_probe, next_gossip, gossip_phase, next_sync, next_rejoin, next_extra, next_reap;
    uint32_t changes;    /* since next_extra was set */
    uint32_t repaired;   /* what exchanges brought since then */
    unsigned extra_done; /* exchanges since no more many come and go */
    bool extra_due;      /* one at next_extra in any case */
    int64_t extra_gap;   /* between exchanges while many come and go ... */
    int64_t extra_from;  /* ... and when the next one may be */
    enum tell tell;      /* of names not known, in what is being read */
    bool merging;        /* it is another one's state */
    size_t state_size;   /* bytes of the last one written */

    /* streams and seeds */
    struct stream streams[STREAMS_MAX];
    uint32_t stream_id;
    struct seed *seeds; /* shuffled */
    size_t seeds_n, seeds_tried;
    unsigned joins_wanted;
    bool connected;
    uint8_t *user;
    size_t user_len;

    bool leaving, retired;
    int64_t leave_by;
    int64_t renamed_at;
    struct zc_swim_stats stats;
};

/* ---- swim.c ---- */
uint64_t swim_random(struct zc_swim *s);
/* Takes note of the time. */
void swim_advance(struct zc_swim *s, int64_t now);
uint32_t swim_random_below(struct zc_swim *s, uint32_t n);
void swim_timer(struct zc_swim *s, int64_t at, enum timer_kind kind, uint32_t index, uint32_t gen);
/* Takes timers that have become void off the heap's top, so that nobody wakes up for them. */
void swim_prune(struct zc_swim *s);
void swim_event(struct zc_swim *s, enum zc_swim_event_kind kind, uint32_t member);
/* Takes an item; its index, or NONE when memory is short. */
uint32_t slab_take(struct slab *l, size_t size);
void slab_give(struct slab *l, size_t size, uint32_t index);
/* The node takes a new name: the old one was made unusable. */
void swim_rename(struct zc_swim *s);
#define slab_at(l, type, i) ((type *)(void *)((l)->items + (size_t)(i) * sizeof(type)))

/* ---- swim_node.c ---- */
/* The description in a message, from the pool, with a reference; NULL: refused or out of memory. */
struct node *node_from_wire(struct zc_swim *s, const struct zc_wire_alive *a);
struct node *node_get(struct zc_swim_pool *p, const struct zc_swim_node *n);
struct node *node_ref(struct node *n);
void node_unref(struct zc_swim_pool *p, struct node *n);
struct zc_bytes node_name(const struct node *n);
bool name_is(const struct node *n, struct zc_bytes name);

uint32_t member_find(const struct zc_swim *s, struct zc_bytes name);
/* A new member in state PENDING; takes the reference. NONE when there is no room. */
uint32_t member_add(struct zc_swim *s, struct node *n, uint32_t incarnation);
/* Forgets it. */
void member_drop(struct zc_swim *s, uint32_t m);
void member_set_state(struct zc_swim *s, uint32_t m, enum zc_swim_state state);
void member_view(const struct zc_swim *s, uint32_t m, struct zc_swim_view *out);
/* Random members for which `want` has their state's bit set, none twice, neither this node nor
   `except`. How many were found. */
size_t member_pick(struct zc_swim *s, unsigned want, uint32_t except, uint32_t *out, size_t n);
/* Puts it into the order of probing, at a random place. */
void member_into_order(struct zc_swim *s, uint32_t m);
void member_reap(struct zc_swim *s);

/* ---- swim_state.c ---- */
/* `from` may be the name of anybody. */
void state_alive(struct zc_swim *s, const struct zc_wire_alive *a);
void state_suspect(struct zc_swim *s, const struct zc_wire_accuse *a);
void state_dead(struct zc_swim *s, const struct zc_wire_accuse *a);
/* What is known at first hand, or was put to the member before. n's reference is taken. */
void state_set_alive(struct zc_swim *s, uint32_t m, struct node *n, uint32_t incarnation);
void state_set_suspect(struct zc_swim *s, uint32_t m, uint32_t incarnation, struct node *from);
void state_set_gone(struct zc_swim *s, uint32_t m, uint32_t incarnation, bool left,
                    struct node *from);
void state_suspicion_over(struct zc_swim *s, uint32_t index, uint32_t gen);
/* Says that this node lives, with an incarnation above `accused`. */
void state_refute(struct zc_swim *s, uint32_t accused);
/* This node found that it does not answer. */
void state_suspect_own(struct zc_swim *s, uint32_t m, uint32_t incarnation);

/* ---- swim_claim.c ---- */
/* Puts it to the member. n (ALIVE, PENDING; else NULL) and from (may be NULL): references taken. */
void claim_make(struct zc_swim *s, uint32_t m, enum zc_swim_state state, uint32_t incarnation,
                struct node *n, struct node *from);
void claim_drop(struct zc_swim *s, uint32_t m);
void claim_ack(struct zc_swim *s, uint32_t index, uint32_t gen);
void claim_timeout(struct zc_swim *s, uint32_t index, uint32_t step);

/* ---- swim_probe.c ---- */
void probe_next(struct zc_swim *s);
void probe_timeout(struct zc_swim *s, uint32_t index, uint32_t gen);
/* The sequence number for a claim's ping; 0 when too many are on their way. */
uint32_t probe_claim(struct zc_swim *s, uint32_t index, uint32_t gen);
/* Its answer, should it come, means nothing any more. */
void probe_drop(struct zc_swim *s, uint32_t seq);
void probe_ack(struct zc_swim *s, uint32_t seq, bool tcp);
void probe_nack(struct zc_swim *s, uint32_t seq);
void probe_relay(struct zc_swim *s, const struct zc_swim_addr *from,
                 const struct zc_wire_indirect *m);
/* Asks some members to ping `node` (slot m) for us; how many will tell when they fail. */
unsigned probe_ask_others(struct zc_swim *s, uint32_t seq, uint32_t m, const struct node *node);
void probe_health(struct zc_swim *s, int delta);
void probe_fill_ping(const struct zc_swim *s, struct zc_wire_ping *p, uint32_t seq,
                     const struct node *to);

/* ---- swim_rumour.c ---- */
void rumour_add(struct zc_swim *s, uint32_t m, uint8_t kind, struct node *from);
/* As if it had been sent half as often as it is to be. */
void rumour_late(struct zc_swim *s, uint32_t m);
/* Another node knows that m is alive. */
void rumour_known(struct zc_swim *s, uint32_t m);
void rumour_drop(struct zc_swim *s, uint32_t m);
unsigned rumour_limit(const struct zc_swim *s);
void rumour_round(struct zc_swim *s);
/* A packet is made of parts: begin, any number of writes into s->parts each ended with part_end,
   then send. `gossip` fills it up with rumours. */
void part_begin(struct zc_swim *s);
void part_end(struct zc_swim *s);
void part_send(struct zc_swim *s, const struct zc_swim_addr *to, bool gossip, bool crc);
/* What a rumour of this kind would say now. */
void rumour_write(struct zc_swim *s, struct zc_buf *b, uint32_t m, uint8_t kind,
                  const struct node *from);

/* ---- swim_packet.c ---- */
bool addr_from_wire(struct zc_bytes ip, uint16_t port, struct zc_swim_addr *out);
static inline struct zc_bytes addr_bytes(const struct zc_swim_addr *a)
{
    return (struct zc_bytes){a->ip, a->len};
}

/* ---- swim_stream.c ---- */
void stream_sync(struct zc_swim *s);
void stream_rejoin(struct zc_swim *s);
/* Nobody else is left: the seeds are asked soon. */
void stream_alone(struct zc_swim *s);
void stream_ping(struct zc_swim *s, uint32_t m, uint32_t seq, int64_t deadline);
int64_t stream_sync_interval(const struct zc_swim *s);
/* A member came or went: when many do, all state is exchanged once they are through. */
void stream_note_change(struct zc_swim *s);
/* Exchanges it in `gap` to half as much again. */
void stream_extra_in(struct zc_swim *s, int64_t gap);
/* next_extra has come. */
void stream_extra(struct zc_swim *s);

#endif
