/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is there: SWIM with Lifeguard, as memberlist does it, as a step function.
 *
 * The core has no clock, no socket and no thread. It is told what happens (the time, a packet, an
 * answer on a stream) and tells through struct zc_swim_ops what is to be done: packets to send,
 * streams to open, events. The socket thread (driver.h) drives it, and a simulation could. All
 * times are nanoseconds of one clock that never goes back.
 *
 * Sources: Das, Gupta and Motivala, "SWIM: Scalable Weakly-consistent Infection-style Process Group
 * Membership Protocol" (2002); Dadgar, Phillips and Currey, "Lifeguard: Local Health Awareness for
 * More Accurate Failure Detection" (2017); github.com/hashicorp/memberlist v0.7.0, whose packets
 * are spoken (wire.h) and whose rules of incarnations are kept.
 *
 * Where this is stricter than memberlist, so that neither a replayed packet nor a member's lie
 * changes anything:
 * - Names end in a number drawn at the start, so that old packets name nodes that are no more.
 * - What would change who is there is put to the node in question first: a name that is not known
 *   must answer a ping before it counts, and a node that is said to be dead or gone, unless it is
 *   suspect already, may refute. With foreign members (whose names carry no number) so is every
 * claim.
 * - Sequence numbers are drawn at random; answers go where the question came from, and carry gossip
 *   for known members only.
 * - Incarnations are clamped; one that cannot be refuted makes the node take a new name.
 *
 * Threads: one core is used by one thread at a time. Calls must not be made from within ops.
 */
#ifndef ZC_MEMBER_SWIM_H
#define ZC_MEMBER_SWIM_H

#include "member/wire.h"

struct zc_swim;
struct zc_swim_pool;

/* Where a node listens, for UDP and TCP. */
struct zc_swim_addr {
    uint8_t ip[16]; /* network order; the first len bytes count, the rest is 0 */
    uint8_t len;    /* 4 or 16 */
    uint16_t port;  /* host order */
};

bool zc_swim_addr_eq(const struct zc_swim_addr *a, const struct zc_swim_addr *b);

/* The first four as they are on the wire. */
enum zc_swim_state {
    ZC_SWIM_ALIVE,
    ZC_SWIM_SUSPECT,
    ZC_SWIM_DEAD,
    ZC_SWIM_LEFT,
    ZC_SWIM_PENDING, /* heard of, not yet heard from: shown to nobody */
};

/* What a node says of itself. Immutable. */
struct zc_swim_node {
    struct zc_swim_addr addr;
    const char *name; /* NUL-terminated; printable bytes only */
    const uint8_t *meta;
    uint16_t meta_len;
    uint8_t name_len;
    uint8_t vsn[ZC_WIRE_VSN];
    bool foreign; /* its name has no number of ours: plain memberlist */
};

struct zc_swim_view {
    const struct zc_swim_node *node; /* until the next call into the core */
    enum zc_swim_state state;
    uint32_t incarnation;
    int64_t since; /* of this state */
    bool self;
};

enum zc_swim_event_kind {
    ZC_SWIM_JOINED,    /* a member is there (again) */
    ZC_SWIM_UPDATED,   /* it says something else of itself */
    ZC_SWIM_SUSPECTED, /* it may be dead */
    ZC_SWIM_GONE,      /* it is dead or has left: state tells */
    ZC_SWIM_CONNECTED, /* the first exchange with another node since the start, or since being alone
                        */
    ZC_SWIM_RENAMED,   /* this node has a new name, because the old one was made unusable */
    ZC_SWIM_RETIRED,   /* after zc_swim_leave: all has been said */
    ZC_SWIM_CONFLICT,  /* two nodes claim one name; the one that was here first stays */
    ZC_SWIM_USER_STATE /* bytes that another node's user sent along; may be a replay */
};

struct zc_swim_event {
    enum zc_swim_event_kind kind;
    struct zc_swim_view who; /* node is NULL for CONNECTED, RETIRED, USER_STATE */
    const uint8_t *user;
    size_t user_len;
};

struct zc_swim_ops {
    /* 64 random bits; from a cryptographic generator where there are adversaries. */
    uint64_t (*random)(void *arg);
    /* Sends one packet, unwrapped; `crc`: the receiver knows CRCs. The bytes are lent for the call.
     */
    void (*packet)(void *arg, const struct zc_swim_addr *to, const uint8_t *p, size_t n, bool crc);
    /* Opens a stream, sends the bytes, reads one message; ends with zc_swim_stream_reply or
       zc_swim_stream_failed, at `deadline` at the latest, later than this call. */
    void (*stream)(void *arg, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
                   size_t n, int64_t deadline);
    void (*event)(void *arg, const struct zc_swim_event *e);
};

struct zc_swim_config {
    const char *name;         /* of the node, 1 to 200 printable bytes; a number is appended */
    struct zc_swim_addr addr; /* where others reach it */
    const uint8_t *meta;
    size_t meta_len;
    uint8_t dmin, dmax, dcur;    /* versions of what zcache nodes say to each other */
    int64_t probe_interval;      /* one member is probed in each */
    int64_t probe_timeout;       /* for an answer, before others are asked to try */
    int64_t gossip_interval;     /* between rounds of rumours, while there are any */
    int64_t push_pull_interval;  /* between exchanges of all state; see push_pull_rate */
    int64_t dead_time;           /* for how long the dead are remembered and gossiped to */
    int64_t stream_timeout;      /* for an exchange of all state */
    int64_t rejoin_interval;     /* between attempts to reach seeds that are no members now */
    unsigned push_pull_rate;     /* bytes a second that exchanges of all state may cost a node */
    unsigned indirect;           /* members asked to probe in our place */
    unsigned gossip_nodes;       /* receivers of rumours in a round */
    unsigned retransmit_mult;    /* a rumour is sent mult * ceil(log10(N + 1)) times ... */
    unsigned retransmit_min;     /* ... and so often at least */
    unsigned suspicion_mult;     /* suspicion lasts mult * max(1, log10 N) probe intervals ... */
    unsigned suspicion_max_mult; /* ... times so much while nobody confirms it */
    unsigned awareness_max;      /* bound of the health score, exclusive */
    unsigned member_max;         /* all that are remembered, the dead included */
    size_t packet_max; /* bytes of an unwrapped packet: ZC_WIRE_PACKET_MAX less the wrapping */
    struct zc_swim_pool *pool; /* NULL: one of its own; see below */
};

/* Timing and bounds that zcache uses: a dead node is known to all after 2.7 s (5 nodes), 3.8 s
 * (50). */
void zc_swim_defaults(struct zc_swim_config *c);
/* memberlist's DefaultLANConfig. */
void zc_swim_defaults_lan(struct zc_swim_config *c);

/* NULL when memory is short or the configuration is impossible. Strings and meta are copied. */
struct zc_swim *zc_swim_new(const struct zc_swim_config *c, const struct zc_swim_ops *ops,
                            void *arg, int64_t now);
void zc_swim_free(struct zc_swim *s);

/* When zc_swim_tick is to be called next; may change with every call. */
int64_t zc_swim_next(const struct zc_swim *s);
/* Does all that is due. */
void zc_swim_tick(struct zc_swim *s, int64_t now);
/* A packet came, unwrapped. */
void zc_swim_packet(struct zc_swim *s, int64_t now, const struct zc_swim_addr *from,
                    const uint8_t *p, size_t n);
/* The answer on a stream that ops->stream opened, or that there is none. */
void zc_swim_stream_reply(struct zc_swim *s, int64_t now, uint32_t id, const uint8_t *p, size_t n);
void zc_swim_stream_failed(struct zc_swim *s, int64_t now, uint32_t id);
/* Another node has opened a stream and sent this message. What is to be sent back is appended to
   reply; it may be nothing. -EBADMSG when the message makes no sense. */
int zc_swim_serve(struct zc_swim *s, int64_t now, const uint8_t *p, size_t n, struct zc_buf *reply);

#define ZC_SWIM_SEEDS_MAX 1024
/* The addresses by which the cluster can be found, own ones included or not: three of them are
   exchanged with at once, others when these fail. Seeds that are no members are tried again from
   time to time, so that the parts of a split cluster find each other. Replaces the former list. */
void zc_swim_join(struct zc_swim *s, int64_t now, const struct zc_swim_addr *seeds, size_t n);
/* Says something else of this node. -EMSGSIZE beyond ZC_WIRE_META_MAX. */
int zc_swim_set_meta(struct zc_swim *s, int64_t now, const uint8_t *meta, size_t n);
/* Bytes that go along with each exchange of all state; NULL, 0: none. -EMSGSIZE past 1 MiB. */
int zc_swim_set_user_state(struct zc_swim *s, const uint8_t *p, size_t n);
/* Tells the others that this node goes. RETIRED follows within two seconds; until then it answers.
 */
void zc_swim_leave(struct zc_swim *s, int64_t now);

/* Calls fn for each member but pending ones, this node included. fn must not call into the core. */
void zc_swim_each(const struct zc_swim *s, void (*fn)(void *arg, const struct zc_swim_view *v),
                  void *arg);
/* 1 and *out when the name is known (pending: 0). */
int zc_swim_find(const struct zc_swim *s, const char *name, struct zc_swim_view *out);
void zc_swim_self(const struct zc_swim *s, struct zc_swim_view *out);

struct zc_swim_stats {
    uint32_t members; /* alive and suspect, this one included */
    uint32_t known;   /* the dead included */
    uint32_t pending, suspects, rumours;
    uint32_t health;                                       /* Lifeguard's score; 0 is good */
    uint64_t packets_in, packets_out, bytes_in, bytes_out; /* unwrapped */
    uint64_t streams_out, streams_in;
    uint64_t bad; /* packets and messages that made no sense */
    uint64_t probes, probes_failed, refuted;
    uint64_t challenges;       /* claims that were put to the node in question */
    uint64_t claims_disproved; /* ... and turned out to be wrong */
    uint64_t clamped;          /* messages with impossible incarnations */
    uint64_t full;             /* members that were not taken for want of room */
    uint64_t user_messages;    /* dropped: nothing here uses them */
};
void zc_swim_stats(const struct zc_swim *s, struct zc_swim_stats *out);

/*
 * What nodes say of themselves, kept once for many cores in one process and thread: with 10,000
 * cores that know 10,000 nodes each, this is what makes it fit.
 */
struct zc_swim_pool *zc_swim_pool_new(void);
/* After the last core that uses it. */
void zc_swim_pool_free(struct zc_swim_pool *p);

#endif
