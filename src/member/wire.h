/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memberlist's messages (github.com/hashicorp/memberlist v0.7.0, net.go): a type byte, then msgpack
 * (mpack.h), or for a few a binary form of their own. Here are the messages themselves and what may
 * wrap them inside the encryption: compound, compress, CRC. What comes outside of that (label,
 * AES-GCM) is frame.h's.
 *
 *     UDP: [label] [AES-GCM] [CRC] [compress] [compound] message
 *     TCP: [label] [AES-GCM frame] [compress] message
 *
 * Decoders bound every length; decoded text and bytes point into the input. No state, any thread.
 */
#ifndef ZC_MEMBER_WIRE_H
#define ZC_MEMBER_WIRE_H

#include "member/mpack.h"

enum zc_wire_type {
    ZC_WIRE_PING = 0,
    ZC_WIRE_INDIRECT = 1,
    ZC_WIRE_ACK = 2,
    ZC_WIRE_SUSPECT = 3,
    ZC_WIRE_ALIVE = 4,
    ZC_WIRE_DEAD = 5,
    ZC_WIRE_PUSH_PULL = 6,
    ZC_WIRE_COMPOUND = 7,
    ZC_WIRE_USER = 8,
    ZC_WIRE_COMPRESS = 9,
    ZC_WIRE_ENCRYPT = 10, /* TCP */
    ZC_WIRE_NACK = 11,
    ZC_WIRE_CRC = 12,
    ZC_WIRE_ERROR = 13, /* TCP */
    ZC_WIRE_LABEL = 244,
};

#define ZC_WIRE_META_MAX 512       /* of a node's own data */
#define ZC_WIRE_NAME_MAX 255       /* of a node's name; memberlist has no bound of its own */
#define ZC_WIRE_PACKET_MAX 1400    /* that is sent, all wrapping included */
#define ZC_WIRE_DATAGRAM_MAX 65536 /* that is read */
#define ZC_WIRE_PARTS_MAX 255      /* messages in a compound */
#define ZC_WIRE_STREAM_MAX ((size_t)20 << 20)

/* Versions: least and greatest protocol understood, the one spoken; the same of the delegate, which
   for us is the version of what zcache nodes say to each other. */
#define ZC_WIRE_VSN 6
enum { ZC_VSN_PMIN, ZC_VSN_PMAX, ZC_VSN_PCUR, ZC_VSN_DMIN, ZC_VSN_DMAX, ZC_VSN_DCUR };

struct zc_wire_ping {
    struct zc_bytes node; /* the name of who is meant; empty: whoever gets it */
    struct zc_bytes source_addr, source_node;
    uint32_t seq;
    uint16_t source_port;
};

struct zc_wire_indirect {
    struct zc_bytes node, target; /* whom to ping: name, address (4 or 16 bytes) */
    struct zc_bytes source_addr, source_node;
    uint32_t seq;
    uint16_t port, source_port;
    bool nack; /* tell when nothing came back */
};

struct zc_wire_ack {
    struct zc_bytes payload;
    uint32_t seq;
};

struct zc_wire_nack {
    uint32_t seq;
};

/* suspect and dead; dead with from equal to node: the node has left on purpose. */
struct zc_wire_accuse {
    struct zc_bytes node, from;
    uint32_t incarnation;
};

/* alive, and an entry of push/pull (where state counts, and the name's key is another). */
struct zc_wire_alive {
    struct zc_bytes node, addr, meta, vsn;
    uint32_t incarnation;
    uint16_t port;
    uint8_t state; /* enum zc_swim_state's first four; push/pull only */
};

struct zc_wire_push_pull {
    int64_t nodes, user_len;
    bool join;
};

struct zc_wire_compress {
    struct zc_bytes buf;
    uint8_t algo; /* 0: LZW */
};

struct zc_wire_user {
    int64_t len;
};

struct zc_wire_error {
    struct zc_bytes text;
};

/* Each reads the body that follows the type byte. 0; -EBADMSG, also for what ends early. Bytes
   after the body are ignored, as memberlist does. */
int zc_wire_read_ping(const uint8_t *p, size_t n, struct zc_wire_ping *out);
int zc_wire_read_indirect(const uint8_t *p, size_t n, struct zc_wire_indirect *out);
int zc_wire_read_ack(const uint8_t *p, size_t n, struct zc_wire_ack *out);
int zc_wire_read_nack(const uint8_t *p, size_t n, struct zc_wire_nack *out);
int zc_wire_read_accuse(const uint8_t *p, size_t n, struct zc_wire_accuse *out);
int zc_wire_read_alive(const uint8_t *p, size_t n, struct zc_wire_alive *out);
int zc_wire_read_compress(const uint8_t *p, size_t n, struct zc_wire_compress *out);
int zc_wire_read_error(const uint8_t *p, size_t n, struct zc_wire_error *out);

/* Each appends type byte and body. 0 or the buffer's error. */
int zc_wire_write_ping(struct zc_buf *b, const struct zc_wire_ping *m);
int zc_wire_write_indirect(struct zc_buf *b, const struct zc_wire_indirect *m);
int zc_wire_write_ack(struct zc_buf *b, const struct zc_wire_ack *m);
int zc_wire_write_nack(struct zc_buf *b, const struct zc_wire_nack *m);
int zc_wire_write_suspect(struct zc_buf *b, const struct zc_wire_accuse *m);
int zc_wire_write_dead(struct zc_buf *b, const struct zc_wire_accuse *m);
int zc_wire_write_alive(struct zc_buf *b, const struct zc_wire_alive *m);
int zc_wire_write_error(struct zc_buf *b, const char *text);
/* The head of a push/pull; then come its entries, which have no type byte, then the user state. */
int zc_wire_write_push_pull(struct zc_buf *b, const struct zc_wire_push_pull *m);
int zc_wire_write_entry(struct zc_buf *b, const struct zc_wire_alive *m);

/* Entries of a push/pull's body: the head first, then `nodes` entries, then the user state. -EAGAIN
   where the input ends early. */
int zc_wire_next_push_pull(struct zc_mp_reader *r, struct zc_wire_push_pull *out);
int zc_wire_next_entry(struct zc_mp_reader *r, struct zc_wire_alive *out);
int zc_wire_next_user(struct zc_mp_reader *r, struct zc_wire_user *out);

/* Compound: appends its head for `parts` messages of these lengths; the messages follow. */
int zc_wire_write_compound(struct zc_buf *b, const uint16_t *lens, size_t parts);
/* Walks the messages of a compound's body (after the type byte): *at is 0 for the first call and is
   moved on. False at the end, or where the next message is cut off. */
bool zc_wire_next_part(const uint8_t *p, size_t n, size_t *at, struct zc_bytes *part);

/* Wraps in[0..n) in a compress message, if `always` or when that is shorter: then 1, else 0 and
   nothing is appended; or the buffer's error. */
int zc_wire_write_compress(struct zc_buf *b, const uint8_t *in, size_t n, bool always);
/* Appends the message within a compress message's body. -EBADMSG; -EMSGSIZE beyond b's ceiling. */
int zc_wire_decompress(const uint8_t *body, size_t n, struct zc_buf *b);

/* CRC: 5 bytes that go before the message. */
#define ZC_WIRE_CRC_BYTES 5
void zc_wire_crc(uint8_t out[ZC_WIRE_CRC_BYTES], const uint8_t *p, size_t n);
/* Takes it off a whole packet when it is there. -EBADMSG when it does not fit. */
int zc_wire_check_crc(const uint8_t **p, size_t *n);

/*
 * Tells where an unencrypted stream message ends, of which more and more arrives. One at a time;
 * set to zero before the first call. What was understood is not read again, so that the cost is
 * linear in the length.
 */
struct zc_wire_scan {
    size_t at;
    uint64_t nodes; /* still to come */
    size_t user;    /* bytes of user state still to come */
    uint8_t stage;
};
/* The message's length once all of it is in p[0..n); 0 when more is needed; -EBADMSG when it is no
   stream message, -EMSGSIZE past ZC_WIRE_STREAM_MAX. */
int64_t zc_wire_scan(struct zc_wire_scan *s, const uint8_t *p, size_t n);

#endif
