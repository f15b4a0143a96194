/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See mpack.h. A value that no field wants is skipped by counting what is still open rather than by
 * recursion, so that nested input costs no stack; each step eats at least one byte of input.
 */
#include "member/mpack.h"

#include <errno.h>
#include <string.h>

#define FIELDS_MAX 64    /* keys in one struct that are looked at; ours have eight at the most */
#define VALUE_HEAD_MAX 9 /* bytes before raw, or of a number */

/* ---- reading ---- */

static const uint8_t *take(struct zc_mp_reader *r, size_t n)
{
    if (r->bad || r->more)
        return NULL;
    if ((size_t)(r->end - r->p) < n) {
        r->more = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

static uint64_t take_be(struct zc_mp_reader *r, size_t n)
{
    const uint8_t *p = take(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v = v << 8 | p[i];
    return v;
}

/* The type byte; 0xc1, which msgpack never uses, at the end of input. */
static uint8_t take_type(struct zc_mp_reader *r)
{
    const uint8_t *p = take(r, 1);
    return p ? *p : 0xc1;
}

static int64_t sign_extend(uint64_t v, unsigned bytes)
{
    unsigned shift = 64 - 8 * bytes;
    return (int64_t)(v << shift) >> shift;
}

static void fail(struct zc_mp_reader *r)
{
    if (!r->more)
        r->bad = true;
}

/* nil reads as zero, as with Go. */
static int64_t read_int(struct zc_mp_reader *r, int64_t min, int64_t max)
{
    uint8_t t = take_type(r);
    int64_t v = 0;
    if (t <= 0x7f) {
        v = t;
    } else if (t >= 0xe0) {
        v = (int8_t)t;
    } else if (t >= 0xcc && t <= 0xcf) {
        uint64_t u = take_be(r, (size_t)1 << (t - 0xcc));
        if (u > INT64_MAX)
            fail(r);
        else
            v = (int64_t)u;
    } else if (t >= 0xd0 && t <= 0xd3) {
        unsigned n = 1u << (t - 0xd0);
        v = sign_extend(take_be(r, n), n);
    } else if (t != 0xc0) {
        fail(r);
    }
    if (v < min || v > max)
        fail(r);
    return r->bad || r->more ? 0 : v;
}

static bool read_bool(struct zc_mp_reader *r)
{
    uint8_t t = take_type(r);
    if (t != 0xc0 && t != 0xc2 && t != 0xc3)
        fail(r);
    return t == 0xc3;
}

/* The length of raw, str or bin that starts with type byte t; -1 when it is none of them. */
static int64_t raw_length(struct zc_mp_reader *r, uint8_t t)
{
    if (t >= 0xa0 && t <= 0xbf)
        return t & 0x1f;
    switch (t) {
    case 0xd9:
    case 0xc4:
        return (int64_t)take_be(r, 1);
    case 0xda:
    case 0xc5:
        return (int64_t)take_be(r, 2);
    case 0xdb:
    case 0xc6:
        return (int64_t)take_be(r, 4);
    default:
        return -1;
    }
}

static struct zc_bytes read_raw(struct zc_mp_reader *r)
{
    struct zc_bytes out = {NULL, 0};
    uint8_t t = take_type(r);
    if (t == 0xc0)
        return out;
    int64_t n = t >= 0xa0 && t <= 0xbf ? t & 0x1f : raw_length(r, t);
    if (n < 0) {
        fail(r);
        return out;
    }
    out.p = take(r, (size_t)n);
    out.len = out.p ? (size_t)n : 0;
    return out;
}

static void skip(struct zc_mp_reader *r)
{
    uint64_t open = 1;
    while (open > 0 && !r->bad && !r->more) {
        open--;
        uint8_t t = take_type(r);
        int64_t n;
        if (t <= 0x7f || t >= 0xe0 || t == 0xc0 || t == 0xc2 || t == 0xc3)
            continue;
        if (t <= 0x8f)
            open += 2 * (uint64_t)(t & 0x0f);
        else if (t <= 0x9f)
            open += t & 0x0f;
        else if ((n = raw_length(r, t)) >= 0)
            take(r, (size_t)n);
        else if (t >= 0xcc && t <= 0xd3)
            take(r, (size_t)1 << (t < 0xd0 ? t - 0xcc : t - 0xd0));
        else if (t == 0xca || t == 0xcb)
            take(r, t == 0xca ? 4 : 8);
        else if (t >= 0xd4 && t <= 0xd8)
            take(r, 1 + ((size_t)1 << (t - 0xd4)));
        else if (t >= 0xc7 && t <= 0xc9)
            take(r, 1 + (size_t)take_be(r, (size_t)1 << (t - 0xc7)));
        else if (t == 0xdc || t == 0xdd)
            open += take_be(r, t == 0xdc ? 2 : 4);
        else if (t == 0xde || t == 0xdf)
            open += 2 * take_be(r, t == 0xde ? 2 : 4);
        else
            fail(r);
    }
}

static void read_field(struct zc_mp_reader *r, const struct zc_mp_field *f, void *out)
{
    void *at = (char *)out + f->offset;
    switch ((enum zc_mp_type)f->type) {
    case ZC_MP_STRING:
    case ZC_MP_BYTES:
        *(struct zc_bytes *)at = read_raw(r);
        break;
    case ZC_MP_U8:
        *(uint8_t *)at = (uint8_t)read_int(r, 0, UINT8_MAX);
        break;
    case ZC_MP_U16:
        *(uint16_t *)at = (uint16_t)read_int(r, 0, UINT16_MAX);
        break;
    case ZC_MP_U32:
        *(uint32_t *)at = (uint32_t)read_int(r, 0, UINT32_MAX);
        break;
    case ZC_MP_INT:
        *(int64_t *)at = read_int(r, INT64_MIN, INT64_MAX);
        break;
    case ZC_MP_BOOL:
        *(bool *)at = read_bool(r);
        break;
    }
}

static void clear_fields(const struct zc_mp_field *fields, size_t n, void *out)
{
    static const uint8_t sizes[] = {
        [ZC_MP_STRING] = sizeof(struct zc_bytes),
        [ZC_MP_BYTES] = sizeof(struct zc_bytes),
        [ZC_MP_U8] = 1,
        [ZC_MP_U16] = 2,
        [ZC_MP_U32] = 4,
        [ZC_MP_INT] = 8,
        [ZC_MP_BOOL] = sizeof(bool),
    };
    for (size_t i = 0; i < n; i++)
        memset((char *)out + fields[i].offset, 0, sizes[fields[i].type]);
}

static bool is_key(const struct zc_mp_field *f, struct zc_bytes key)
{
    return f->name_len == key.len && memcmp(f->name, key.p, key.len) == 0;
}

static void read_map(struct zc_mp_reader *r, uint64_t pairs, const struct zc_mp_field *fields,
                     size_t n, void *out)
{
    size_t f = 0;
    for (uint64_t i = 0; i < pairs && !r->bad && !r->more; i++) {
        struct zc_bytes key = read_raw(r);
        /* They nearly always come in the table's order. */
        size_t tried = 0;
        while (tried < n && !is_key(&fields[f], key)) {
            f = f + 1 < n ? f + 1 : 0;
            tried++;
        }
        if (tried < n)
            read_field(r, &fields[f], out);
        else
            skip(r);
    }
}

static void read_array(struct zc_mp_reader *r, uint64_t count, const struct zc_mp_field *fields,
                       size_t n, void *out)
{
    for (uint64_t i = 0; i < count && !r->bad && !r->more; i++) {
        size_t f = 0;
        while (f < n && fields[f].order != i)
            f++;
        if (f < n)
            read_field(r, &fields[f], out);
        else
            skip(r);
    }
}

int zc_mp_read(struct zc_mp_reader *r, const struct zc_mp_field *fields, size_t n, void *out)
{
    clear_fields(fields, n, out);
    uint8_t t = take_type(r);
    uint64_t count = 0;
    bool map = false;
    if (t >= 0x80 && t <= 0x8f) {
        map = true;
        count = t & 0x0f;
    } else if (t >= 0x90 && t <= 0x9f) {
        count = t & 0x0f;
    } else if (t == 0xde || t == 0xdf) {
        map = true;
        count = take_be(r, t == 0xde ? 2 : 4);
    } else if (t == 0xdc || t == 0xdd) {
        count = take_be(r, t == 0xdc ? 2 : 4);
    } else {
        fail(r);
    }
    if (count > FIELDS_MAX)
        fail(r);
    if (map)
        read_map(r, count, fields, n, out);
    else
        read_array(r, count, fields, n, out);
    if (r->bad || r->more)
        clear_fields(fields, n, out);
    return r->bad ? -EBADMSG : r->more ? -EAGAIN : 0;
}

/* ---- writing ---- */

/* Into room that was reserved: each returns the end of what it wrote. */

static char *put_be(char *to, uint8_t type, uint64_t v, unsigned bytes)
{
    *to++ = (char)type;
    for (unsigned i = 0; i < bytes; i++)
        *to++ = (char)(v >> (8 * (bytes - 1 - i)));
    return to;
}

static char *put_raw(char *to, const void *p, size_t n)
{
    if (n < 32)
        *to++ = (char)(0xa0 | n);
    else if (n <= UINT16_MAX)
        to = put_be(to, 0xda, n, 2);
    else
        to = put_be(to, 0xdb, n, 4);
    if (n > 0)
        memcpy(to, p, n);
    return to + n;
}

static char *put_uint(char *to, uint32_t v)
{
    if (v > UINT16_MAX)
        return put_be(to, 0xce, v, 4);
    if (v > UINT8_MAX)
        return put_be(to, 0xcd, v, 2);
    if (v > 0x7f)
        return put_be(to, 0xcc, v, 1);
    *to++ = (char)v;
    return to;
}

static char *put_int(char *to, int64_t v)
{
    if (v >= -32 && v <= 0x7f) {
        *to++ = (char)v;
        return to;
    }
    if (v >= INT8_MIN && v <= INT8_MAX)
        return put_be(to, 0xd0, (uint64_t)v, 1);
    if (v >= INT16_MIN && v <= INT16_MAX)
        return put_be(to, 0xd1, (uint64_t)v, 2);
    if (v >= INT32_MIN && v <= INT32_MAX)
        return put_be(to, 0xd2, (uint64_t)v, 4);
    return put_be(to, 0xd3, (uint64_t)v, 8);
}

static bool is_empty(const struct zc_mp_field *f, const void *at)
{
    switch ((enum zc_mp_type)f->type) {
    case ZC_MP_STRING:
    case ZC_MP_BYTES:
        return ((const struct zc_bytes *)at)->len == 0;
    case ZC_MP_U8:
        return *(const uint8_t *)at == 0;
    case ZC_MP_U16:
        return *(const uint16_t *)at == 0;
    case ZC_MP_U32:
        return *(const uint32_t *)at == 0;
    case ZC_MP_INT:
        return *(const int64_t *)at == 0;
    case ZC_MP_BOOL:
        return !*(const bool *)at;
    }
    return false;
}

static char *put_field(char *to, const struct zc_mp_field *f, const void *at)
{
    const struct zc_bytes *raw = at;
    switch ((enum zc_mp_type)f->type) {
    case ZC_MP_STRING:
        return put_raw(to, raw->p, raw->len);
    case ZC_MP_BYTES:
        if (raw->len > 0)
            return put_raw(to, raw->p, raw->len);
        *to++ = (char)0xc0;
        return to;
    case ZC_MP_U8:
        return put_uint(to, *(const uint8_t *)at);
    case ZC_MP_U16:
        return put_uint(to, *(const uint16_t *)at);
    case ZC_MP_U32:
        return put_uint(to, *(const uint32_t *)at);
    case ZC_MP_INT:
        return put_int(to, *(const int64_t *)at);
    case ZC_MP_BOOL:
        *to++ = *(const bool *)at ? (char)0xc3 : (char)0xc2;
        return to;
    }
    return to;
}

int zc_mp_write(struct zc_buf *b, const struct zc_mp_field *fields, size_t n, const void *in)
{
    size_t count = 0, bytes = 1;
    bool omit[FIELDS_MAX];
    for (size_t i = 0; i < n; i++) {
        const void *at = (const char *)in + fields[i].offset;
        omit[i] = fields[i].omit_empty && is_empty(&fields[i], at);
        if (omit[i])
            continue;
        count++;
        bytes += 2 * VALUE_HEAD_MAX + fields[i].name_len;
        if (fields[i].type == ZC_MP_STRING || fields[i].type == ZC_MP_BYTES)
            bytes += ((const struct zc_bytes *)at)->len;
    }
    if (zc_buf_reserve(b, bytes) < 0)
        return -EMSGSIZE;
    char *to = b->p + b->len;
    *to++ = (char)(0x80 | count);
    for (size_t i = 0; i < n; i++) {
        if (omit[i])
            continue;
        to = put_raw(to, fields[i].name, fields[i].name_len);
        to = put_field(to, &fields[i], (const char *)in + fields[i].offset);
    }
    *to = '\0';
    b->len = (size_t)(to - b->p);
    return 0;
}
