/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See wire.h. The tables below are the format: names and their order as memberlist writes them
 * (sorted by bytes), the place in the Go declaration for arrays. tests/unit/test_member_wire.c
 * holds bytes that real nodes sent.
 */
#include "member/wire.h"
#include "member/lzw.h"

#include <errno.h>
#include <string.h>

#define F(type, name, field, decl)                                                                 \
    {                                                                                              \
        name, offsetof(struct MSG, field), ZC_MP_##type, decl, sizeof(name) - 1, false             \
    }
#define OPT(type, name, field, decl)                                                               \
    {                                                                                              \
        name, offsetof(struct MSG, field), ZC_MP_##type, decl, sizeof(name) - 1, true              \
    }

#define MSG zc_wire_ping
static const struct zc_mp_field ping_fields[] = {
    F(STRING, "Node", node, 1),
    F(U32, "SeqNo", seq, 0),
    OPT(BYTES, "SourceAddr", source_addr, 2),
    OPT(STRING, "SourceNode", source_node, 4),
    OPT(U16, "SourcePort", source_port, 3),
};
#undef MSG
#define MSG zc_wire_indirect
static const struct zc_mp_field indirect_fields[] = {
    F(BOOL, "Nack", nack, 4),
    F(STRING, "Node", node, 3),
    F(U16, "Port", port, 2),
    F(U32, "SeqNo", seq, 0),
    OPT(BYTES, "SourceAddr", source_addr, 5),
    OPT(STRING, "SourceNode", source_node, 7),
    OPT(U16, "SourcePort", source_port, 6),
    F(BYTES, "Target", target, 1),
};
#undef MSG
#define MSG zc_wire_ack
static const struct zc_mp_field ack_fields[] = {
    F(BYTES, "Payload", payload, 1),
    F(U32, "SeqNo", seq, 0),
};
#undef MSG
#define MSG zc_wire_nack
static const struct zc_mp_field nack_fields[] = {
    F(U32, "SeqNo", seq, 0),
};
#undef MSG
#define MSG zc_wire_accuse
static const struct zc_mp_field accuse_fields[] = {
    F(STRING, "From", from, 2),
    F(U32, "Incarnation", incarnation, 0),
    F(STRING, "Node", node, 1),
};
#undef MSG
#define MSG zc_wire_alive
static const struct zc_mp_field alive_fields[] = {
    F(BYTES, "Addr", addr, 2), F(U32, "Incarnation", incarnation, 0),
    F(BYTES, "Meta", meta, 4), F(STRING, "Node", node, 1),
    F(U16, "Port", port, 3),   F(BYTES, "Vsn", vsn, 5),
};
static const struct zc_mp_field entry_fields[] = {
    F(BYTES, "Addr", addr, 1), F(U32, "Incarnation", incarnation, 4),
    F(BYTES, "Meta", meta, 3), F(STRING, "Name", node, 0),
    F(U16, "Port", port, 2),   F(U8, "State", state, 5),
    F(BYTES, "Vsn", vsn, 6),
};
#undef MSG
#define MSG zc_wire_push_pull
static const struct zc_mp_field push_pull_fields[] = {
    F(BOOL, "Join", join, 2),
    F(INT, "Nodes", nodes, 0),
    F(INT, "UserStateLen", user_len, 1),
};
#undef MSG
#define MSG zc_wire_compress
static const struct zc_mp_field compress_fields[] = {
    F(U8, "Algo", algo, 0),
    F(BYTES, "Buf", buf, 1),
};
#undef MSG
#define MSG zc_wire_user
static const struct zc_mp_field user_fields[] = {
    F(INT, "UserMsgLen", len, 0),
};
#undef MSG
#define MSG zc_wire_error
static const struct zc_mp_field error_fields[] = {
    F(STRING, "Error", text, 0),
};
#undef MSG

static int read_body(const uint8_t *p, size_t n, const struct zc_mp_field *fields, size_t count,
                     void *out)
{
    struct zc_mp_reader r = {p, p + n, false, false};
    return zc_mp_read(&r, fields, count, out) < 0 ? -EBADMSG : 0;
}

static int write_message(struct zc_buf *b, uint8_t type, const struct zc_mp_field *fields,
                         size_t count, const void *in)
{
    zc_buf_addc(b, (char)type);
    return zc_mp_write(b, fields, count, in);
}

#define READ(fields) read_body(p, n, fields, ZC_ARRAY_SIZE(fields), out)
#define WRITE(type, fields) write_message(b, type, fields, ZC_ARRAY_SIZE(fields), m)

int zc_wire_read_ping(const uint8_t *p, size_t n, struct zc_wire_ping *out)
{
    return READ(ping_fields);
}

int zc_wire_read_indirect(const uint8_t *p, size_t n, struct zc_wire_indirect *out)
{
    return READ(indirect_fields);
}

int zc_wire_read_ack(const uint8_t *p, size_t n, struct zc_wire_ack *out)
{
    return READ(ack_fields);
}

int zc_wire_read_nack(const uint8_t *p, size_t n, struct zc_wire_nack *out)
{
    return READ(nack_fields);
}

int zc_wire_read_accuse(const uint8_t *p, size_t n, struct zc_wire_accuse *out)
{
    return READ(accuse_fields);
}

int zc_wire_read_alive(const uint8_t *p, size_t n, struct zc_wire_alive *out)
{
    out->state = 0;
    return READ(alive_fields);
}

int zc_wire_read_compress(const uint8_t *p, size_t n, struct zc_wire_compress *out)
{
    return READ(compress_fields);
}

int zc_wire_read_error(const uint8_t *p, size_t n, struct zc_wire_error *out)
{
    return READ(error_fields);
}

int zc_wire_write_ping(struct zc_buf *b, const struct zc_wire_ping *m)
{
    return WRITE(ZC_WIRE_PING, ping_fields);
}

int zc_wire_write_indirect(struct zc_buf *b, const struct zc_wire_indirect *m)
{
    return WRITE(ZC_WIRE_INDIRECT, indirect_fields);
}

int zc_wire_write_ack(struct zc_buf *b, const struct zc_wire_ack *m)
{
    return WRITE(ZC_WIRE_ACK, ack_fields);
}

int zc_wire_write_nack(struct zc_buf *b, const struct zc_wire_nack *m)
{
    return WRITE(ZC_WIRE_NACK, nack_fields);
}

int zc_wire_write_suspect(struct zc_buf *b, const struct zc_wire_accuse *m)
{
    return WRITE(ZC_WIRE_SUSPECT, accuse_fields);
}

int zc_wire_write_dead(struct zc_buf *b, const struct zc_wire_accuse *m)
{
    return WRITE(ZC_WIRE_DEAD, accuse_fields);
}

int zc_wire_write_alive(struct zc_buf *b, const struct zc_wire_alive *m)
{
    return WRITE(ZC_WIRE_ALIVE, alive_fields);
}

int zc_wire_write_error(struct zc_buf *b, const char *text)
{
    struct zc_wire_error e = {{(const uint8_t *)text, strlen(text)}}, *m = &e;
    return WRITE(ZC_WIRE_ERROR, error_fields);
}

int zc_wire_write_push_pull(struct zc_buf *b, const struct zc_wire_push_pull *m)
{
    return WRITE(ZC_WIRE_PUSH_PULL, push_pull_fields);
}

int zc_wire_write_entry(struct zc_buf *b, const struct zc_wire_alive *m)
{
    return zc_mp_write(b, entry_fields, ZC_ARRAY_SIZE(entry_fields), m);
}

int zc_wire_next_push_pull(struct zc_mp_reader *r, struct zc_wire_push_pull *out)
{
    return zc_mp_read(r, push_pull_fields, ZC_ARRAY_SIZE(push_pull_fields), out);
}

int zc_wire_next_entry(struct zc_mp_reader *r, struct zc_wire_alive *out)
{
    return zc_mp_read(r, entry_fields, ZC_ARRAY_SIZE(entry_fields), out);
}

int zc_wire_next_user(struct zc_mp_reader *r, struct zc_wire_user *out)
{
    return zc_mp_read(r, user_fields, ZC_ARRAY_SIZE(user_fields), out);
}

/* ---- compound ---- */

int zc_wire_write_compound(struct zc_buf *b, const uint16_t *lens, size_t parts)
{
    if (parts > ZC_WIRE_PARTS_MAX)
        return -EINVAL;
    zc_buf_addc(b, ZC_WIRE_COMPOUND);
    zc_buf_addc(b, (char)parts);
    for (size_t i = 0; i < parts; i++) {
        zc_buf_addc(b, (char)(lens[i] >> 8));
        zc_buf_addc(b, (char)lens[i]);
    }
    return b->failed ? -EMSGSIZE : 0;
}

bool zc_wire_next_part(const uint8_t *p, size_t n, size_t *at, struct zc_bytes *part)
{
    if (n < 1 || n < 1 + 2 * (size_t)p[0])
        return false;
    size_t parts = p[0], body = 1 + 2 * parts;
    /* *at: low byte the number of the next part, above it the offset of its body. */
    size_t i = *at & 0xff, off = *at ? *at >> 8 : body;
    if (i >= parts)
        return false;
    size_t len = (size_t)p[1 + 2 * i] << 8 | p[2 + 2 * i];
    if (len > n - off)
        return false;
    part->p = p + off;
    part->len = len;
    *at = (off + len) << 8 | (i + 1);
    return true;
}

/* ---- compress ---- */

int zc_wire_write_compress(struct zc_buf *b, const uint8_t *in, size_t n, bool always)
{
    zc_autobuf struct zc_buf lzw = {.max = always ? 2 * n + 16 : n + 16};
    int r = zc_lzw_write(&lzw, in, n);
    if (r < 0)
        return always ? r : 0;
    struct zc_wire_compress c = {{(const uint8_t *)lzw.p, lzw.len}, 0}, *m = &c;
    size_t before = b->len;
    r = WRITE(ZC_WIRE_COMPRESS, compress_fields);
    if (r < 0)
        return r;
    if (!always && b->len - before >= n) {
        b->len = before;
        return 0;
    }
    return 1;
}

int zc_wire_decompress(const uint8_t *body, size_t n, struct zc_buf *b)
{
    struct zc_wire_compress c;
    if (zc_wire_read_compress(body, n, &c) < 0 || c.algo != 0)
        return -EBADMSG;
    return zc_lzw_read(b, c.buf.p, c.buf.len);
}

/* ---- CRC-32, IEEE 802.3, as in zlib ---- */

/* Half a byte at a time: packets have 1,400 bytes, and 16 words need no table made at start. */
static uint32_t crc32_ieee(const uint8_t *p, size_t n)
{
    static const uint32_t table[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4,
        0x4db26158, 0x5005713c, 0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c,
        0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c,
    };
    uint32_t crc = UINT32_MAX;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        crc = crc >> 4 ^ table[crc & 15];
        crc = crc >> 4 ^ table[crc & 15];
    }
    return ~crc;
}

void zc_wire_crc(uint8_t out[ZC_WIRE_CRC_BYTES], const uint8_t *p, size_t n)
{
    uint32_t crc = crc32_ieee(p, n);
    out[0] = ZC_WIRE_CRC;
    for (int i = 0; i < 4; i++)
        out[1 + i] = (uint8_t)(crc >> (24 - 8 * i));
}

int zc_wire_check_crc(const uint8_t **p, size_t *n)
{
    if (*n == 0 || **p != ZC_WIRE_CRC)
        return 0;
    uint8_t want[ZC_WIRE_CRC_BYTES];
    if (*n < ZC_WIRE_CRC_BYTES)
        return -EBADMSG;
    zc_wire_crc(want, *p + ZC_WIRE_CRC_BYTES, *n - ZC_WIRE_CRC_BYTES);
    if (memcmp(want, *p, ZC_WIRE_CRC_BYTES) != 0)
        return -EBADMSG;
    *p += ZC_WIRE_CRC_BYTES;
    *n -= ZC_WIRE_CRC_BYTES;
    return 0;
}

/* ---- where a stream message ends ---- */

enum { SCAN_HEAD, SCAN_ENTRIES, SCAN_USER };

/* The message whose body is one struct. */
static int64_t scan_one(const struct zc_mp_reader *start, const uint8_t *base,
                        const struct zc_mp_field *fields, size_t n)
{
    struct zc_mp_reader r = *start;
    union {
        struct zc_wire_ping ping;
        struct zc_wire_ack ack;
        struct zc_wire_compress compress;
        struct zc_wire_error error;
    } any;
    int e = zc_mp_read(&r, fields, n, &any);
    return e == 0 ? r.p - base : e == -EAGAIN ? 0 : e;
}

/* The head: says how much follows. 1 when it is there. */
static int64_t scan_head(struct zc_wire_scan *s, const uint8_t *p, size_t n)
{
    struct zc_mp_reader r = {p + 1, p + n, false, false};
    struct zc_wire_push_pull head = {0};
    int64_t e;
    switch (p[0]) {
    case ZC_WIRE_PING:
        return scan_one(&r, p, ping_fields, ZC_ARRAY_SIZE(ping_fields));
    case ZC_WIRE_ACK:
        return scan_one(&r, p, ack_fields, ZC_ARRAY_SIZE(ack_fields));
    case ZC_WIRE_COMPRESS:
        return scan_one(&r, p, compress_fields, ZC_ARRAY_SIZE(compress_fields));
    case ZC_WIRE_ERROR:
        return scan_one(&r, p, error_fields, ZC_ARRAY_SIZE(error_fields));
    case ZC_WIRE_PUSH_PULL:
        e = zc_wire_next_push_pull(&r, &head);
        break;
    case ZC_WIRE_USER: {
        struct zc_wire_user user;
        e = zc_wire_next_user(&r, &user);
        head.user_len = user.len;
        break;
    }
    default:
        return -EBADMSG;
    }
    if (e < 0)
        return e == -EAGAIN ? 0 : e;
    if (head.nodes < 0 || head.user_len < 0)
        return -EBADMSG;
    /* An entry has a byte at the least. */
    if (head.nodes > (int64_t)ZC_WIRE_STREAM_MAX || head.user_len > (int64_t)ZC_WIRE_STREAM_MAX)
        return -EMSGSIZE;
    s->nodes = (uint64_t)head.nodes;
    s->user = (size_t)head.user_len;
    s->at = (size_t)(r.p - p);
    s->stage = SCAN_ENTRIES;
    return 0;
}

int64_t zc_wire_scan(struct zc_wire_scan *s, const uint8_t *p, size_t n)
{
    if (n == 0)
        return 0;
    int64_t done = 0;
    if (s->stage == SCAN_HEAD)
        done = scan_head(s, p, n);
    while (s->stage == SCAN_ENTRIES && s->nodes > 0) {
        struct zc_mp_reader r = {p + s->at, p + n, false, false};
        struct zc_wire_alive entry;
        int e = zc_wire_next_entry(&r, &entry);
        if (e == -EAGAIN)
            break;
        if (e < 0)
            return e;
        s->at = (size_t)(r.p - p);
        s->nodes--;
    }
    if (s->stage == SCAN_ENTRIES && s->nodes == 0)
        s->stage = SCAN_USER;
    if (s->stage == SCAN_USER) {
        if (s->at + s->user > ZC_WIRE_STREAM_MAX)
            return -EMSGSIZE;
        done = n - s->at >= s->user ? (int64_t)(s->at + s->user) : 0;
    }
    if (done == 0 && n > ZC_WIRE_STREAM_MAX)
        return -EMSGSIZE;
    return done;
}
