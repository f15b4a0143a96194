/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes say to each other about bytes, as HTTP/1.1 (RFC 9110, RFC 9112), so that plain tools
 * can ask, too.
 *
 * A question:
 *     GET /v1/data?source=ID&path=P&version=V&size=N&off=N&len=N[&reach=held|coming|owner]
 *                 [&direct=1]
 *                 [&exact=1][&prio=0|1|2][&node=HEX][&doubt=1]
 *     source, path, version and size name one version of an object, as zc_objid_of takes them.
 *     reach: the asked node is taken for the owner, and may fetch from the store (the default); or
 * it stands in for it, and may fetch from it; may only wait for what is on its way to it (it was
 *     named in a referral); or only give what it has. direct: no referral, please. doubt: bytes of
 *     this chunk came with a sum that did not fit: read it back.
 * Answers:
 *     206  Zcache-State: hit      the body is the bytes; the sums of their pieces came before them
 *          Zcache-State: filling  the body is frames, see below
 *     307  Zcache-Refer: HEX HEX  others that receive the same bytes and pass them on
 *     404  not here: no such source, or (reach) no such bytes
 *     409  this node takes another one for the owner, and waits for it itself
 *     503  busy
 *     Zcache-Replicas: N on a 206: so many nodes, in the ring's order, are to give this from now on
 * with Zcache-Object (the digest of what the question named) and Content-Range, which may be
 * shorter than what was asked for, on a 206. Pieces end where a multiple of Zcache-Grid in the
 * object does; Zcache-Sums has for each the XXH3-128 of its bytes, bound to the object and the
 * place (peer_hit_sum), so that a sum that was looked up for another object or chunk does not fit.
 *
 * Frames, all numbers little-endian: u32 length, u32 kind, 16 bytes of sum, then the bytes. A frame
 * of data carries the XXH3-128 of its bytes, seeded with where they belong (peer_frame_seed). A
 * tick says that the sender lives and waits itself; it comes at once and then four times a second.
 * The last frame is an end or a failure.
 *
 * Decoders take anything: what cannot be understood is -EBADMSG (-EINVAL for a question).
 */
#ifndef ZC_PEER_WIRE_H
#define ZC_PEER_WIRE_H

#include "base/base.h"
#include "base/buf.h"
#include "base/digest.h"
#include "cluster/cluster.h"
#include "fetch/fetch.h"

#define PEER_PROTOCOL 2
#define PEER_TARGET "/v1/data"
#define PEER_FRAME_HEAD 24
#define PEER_FRAME_MAX (256U << 10) /* bytes of data in one */
#define PEER_PIECES_MAX 64          /* in one answer with sums */
#define PEER_GRID_MAX (64U << 20)
#define PEER_REFERS 4
#define PEER_PATH_MAX 4096

/* Strings are NUL-terminated and belong to the caller's struct. */
struct peer_request {
    char source[PEER_PATH_MAX], path[PEER_PATH_MAX], version[ZC_VERSION_MAX + 1];
    uint64_t size, off, len;
    enum zc_reach reach;
    bool direct, exact, doubt, has_node;
    enum zc_prio prio;
    uint8_t node[ZC_NODE_ID]; /* who asks */
    unsigned seen;            /* private: a bit a field */
};

/* One parameter, unescaped. Unknown ones are let pass. -EINVAL: it makes no sense, or came twice.
 */
int peer_request_set(struct peer_request *r, const char *key, const char *value, size_t n);
/* After all: what is needed is there and fits together, the path is one that a source may have.
   -EINVAL. */
int peer_request_check(const struct peer_request *r);
/* Appends the target, escaped, for a URL. */
void peer_request_target(const struct peer_request *r, struct zc_buf *b);

enum peer_state { PEER_STATE_NONE, PEER_STATE_HIT, PEER_STATE_FILLING };

struct peer_answer {
    enum peer_state state;
    bool has_object, has_range;
    struct zc_digest object;
    uint64_t off, len; /* of the Content-Range */
    uint64_t grid;
    unsigned n_sums, n_refers;
    unsigned replicas; /* 0: not said */
    struct zc_digest sums[PEER_PIECES_MAX];
    uint8_t refers[PEER_REFERS][ZC_NODE_ID];
};

/* One header line "Name: value" of an answer; those of no interest are let pass. -EBADMSG. */
int peer_answer_line(struct peer_answer *a, const char *line, size_t n);
/* Is it a 206 that answers a question for `len` bytes of this object from `off` on? -EBADMSG. */
int peer_answer_check(const struct peer_answer *a, struct zc_digest object, uint64_t off,
                      uint64_t len);
/* Pieces of [off, off + len). grid > 0. */
uint64_t peer_pieces(uint64_t grid, uint64_t off, uint64_t len);

enum peer_frame_kind { PEER_FRAME_DATA, PEER_FRAME_TICK, PEER_FRAME_END, PEER_FRAME_FAILED };

struct peer_frame {
    uint32_t len; /* of the bytes that follow; 0 but for data */
    enum peer_frame_kind kind;
    struct zc_digest sum;
};
void peer_frame_store(uint8_t out[PEER_FRAME_HEAD], const struct peer_frame *f);
/* -EBADMSG. */
int peer_frame_load(const uint8_t in[PEER_FRAME_HEAD], struct peer_frame *f);
/* What Zcache-Sums says of a piece: the sum of its bytes, bound to where they belong. */
struct zc_digest peer_hit_sum(struct zc_digest sum, struct zc_digest object, uint64_t off);
/* Bytes of one place are not taken for another's. */
uint64_t peer_frame_seed(struct zc_digest object, uint64_t off);

#endif
