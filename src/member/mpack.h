/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The msgpack that memberlist speaks (github.com/hashicorp/memberlist v0.7.0 with go-msgpack
 * v2.1.5, default handle): the old specification, in which text and bytes are both "raw". What is
 * written is what a Go node writes, byte by byte; what is read is as liberal as a Go node is: maps
 * with keys in any order or arrays in the order of declaration, every width of integer, str8 and
 * bin, unknown keys.
 *
 * Messages are described by tables of fields, so that there is one decoder and one encoder for all.
 * Decoded text and bytes point into the input. Nothing here allocates but through struct zc_buf.
 * Any thread; no state.
 */
#ifndef ZC_MEMBER_MPACK_H
#define ZC_MEMBER_MPACK_H

#include "base/base.h"
#include "base/buf.h"

/* Bytes that belong to somebody else. */
struct zc_bytes {
    const uint8_t *p;
    size_t len;
};

enum zc_mp_type {
    ZC_MP_STRING, /* struct zc_bytes; empty is a raw of length 0 */
    ZC_MP_BYTES,  /* struct zc_bytes; empty is nil */
    ZC_MP_U8,
    ZC_MP_U16,
    ZC_MP_U32,
    ZC_MP_INT, /* int64_t; a Go int: written as a signed integer above 127 */
    ZC_MP_BOOL,
};

/* A field; a table holds them sorted by name, as they are written. */
struct zc_mp_field {
    const char *name;
    uint16_t offset; /* in the struct */
    uint8_t type;    /* enum zc_mp_type */
    uint8_t order;   /* place in the Go declaration, from 0: for structs sent as arrays */
    uint8_t name_len;
    bool omit_empty;
};

struct zc_mp_reader {
    const uint8_t *p, *end;
    bool more; /* the input ended early: more bytes could make it whole */
    bool bad;  /* it cannot become whole */
};

/* Reads one struct into *out, whose fields are zeroed first; absent ones stay zero. 0; -EAGAIN when
   the input ends early, -EBADMSG when it is no such struct. r->p is past it on success. */
int zc_mp_read(struct zc_mp_reader *r, const struct zc_mp_field *fields, size_t n, void *out);
/* Appends one struct as a map. 0, or -EMSGSIZE when the buffer cannot hold it and ten bytes more a
   field. */
int zc_mp_write(struct zc_buf *b, const struct zc_mp_field *fields, size_t n, const void *in);

#endif
