/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The outer layers of memberlist's packets and streams: label, encryption, CRC (wire.h has what is
 * within). Whether a packet is encrypted can only be known from the configuration: with a key, what
 * is not encrypted with it is refused; without one, what is encrypted.
 *
 * The label is bound into the encryption in both directions of a stream, although only the side
 * that connects writes it.
 *
 * Used by one thread.
 */
#ifndef ZC_MEMBER_FRAME_H
#define ZC_MEMBER_FRAME_H

#include "member/crypt.h"
#include "member/wire.h"

#define ZC_FRAME_LABEL_MAX 255

struct zc_frame {
    struct zc_keyring *keys; /* NULL: not encrypted. Not owned. */
    char label[ZC_FRAME_LABEL_MAX + 1];
    size_t label_len; /* 0: no label */
    bool compress;    /* what is sent; what comes is always decompressed */
    struct zc_buf scratch;
};

/* -EINVAL when the label is too long. */
int zc_frame_init(struct zc_frame *f, const char *label, struct zc_keyring *keys, bool compress);
void zc_frame_free(struct zc_frame *f);
/* What wrapping adds to a packet at the most. */
size_t zc_frame_overhead(const struct zc_frame *f);

/* Wraps a packet's message(s); appends to b. `crc`: the receiver knows CRCs. */
int zc_frame_seal_packet(struct zc_frame *f, const uint8_t *p, size_t n, bool crc,
                         struct zc_buf *b);
/* Unwraps a packet; what is left is appended to b. -EBADMSG: not for us, forged or broken. */
int zc_frame_open_packet(struct zc_frame *f, const uint8_t *p, size_t n, struct zc_buf *b);

/* Wraps a stream message. `first`: this side has connected (it writes the label). */
int zc_frame_seal_stream(struct zc_frame *f, const uint8_t *p, size_t n, bool first,
                         struct zc_buf *b);

/* What arrived of a stream. Zeroed at first; zc_frame_stream_free when it ends. */
struct zc_frame_stream {
    struct zc_buf in;  /* the caller appends what it reads here */
    struct zc_buf out; /* the message, decompressed */
    struct zc_wire_scan scan;
};
/* Looks at what is in s->in; `first`: the other side has connected. 1 when the message is whole and
   in s->out; 0 when more is needed; -EBADMSG, -EMSGSIZE. */
int zc_frame_open_stream(struct zc_frame *f, struct zc_frame_stream *s, bool first);
void zc_frame_stream_free(struct zc_frame_stream *s);

#endif
