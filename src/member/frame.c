/* SPDX-License-Identifier: Apache-2.0 */
/* See frame.h. A stream's encrypted frame binds its own five head bytes, then the label. */
#include "member/frame.h"

#include <errno.h>
#include <string.h>

#define STREAM_HEAD 5                         /* type byte, length of what follows */
#define INFLATED_MAX (2 * ZC_WIRE_STREAM_MAX) /* a stream's message, decompressed */

int zc_frame_init(struct zc_frame *f, const char *label, struct zc_keyring *keys, bool compress)
{
    memset(f, 0, sizeof(*f));
    size_t n = label ? strlen(label) : 0;
    if (n > ZC_FRAME_LABEL_MAX)
        return -EINVAL;
    memcpy(f->label, label ? label : "", n);
    f->label_len = n;
    f->keys = keys;
    f->compress = compress;
    return 0;
}

void zc_frame_free(struct zc_frame *f)
{
    zc_buf_free(&f->scratch);
}

size_t zc_frame_overhead(const struct zc_frame *f)
{
    return (f->label_len ? 2 + f->label_len : 0) +
           (f->keys ? ZC_CRYPT_OVERHEAD + ZC_WIRE_CRC_BYTES : ZC_WIRE_CRC_BYTES);
}

static void add_label(const struct zc_frame *f, struct zc_buf *b)
{
    if (f->label_len == 0)
        return;
    zc_buf_addc(b, (char)ZC_WIRE_LABEL);
    zc_buf_addc(b, (char)f->label_len);
    zc_buf_add(b, f->label, f->label_len);
}

/* Takes the label off. 1; 0 when more bytes are needed to tell; -EBADMSG when it is another one. */
static int take_label(const struct zc_frame *f, const uint8_t **p, size_t *n)
{
    if (*n == 0)
        return 0;
    if (f->label_len == 0)
        return **p == ZC_WIRE_LABEL ? -EBADMSG : 1;
    if (**p != ZC_WIRE_LABEL || (*n > 1 && (*p)[1] != f->label_len))
        return -EBADMSG;
    if (*n < 2 + f->label_len)
        return 0;
    if (memcmp(*p + 2, f->label, f->label_len) != 0)
        return -EBADMSG;
    *p += 2 + f->label_len;
    *n -= 2 + f->label_len;
    return 1;
}

int zc_frame_seal_packet(struct zc_frame *f, const uint8_t *p, size_t n, bool crc, struct zc_buf *b)
{
    struct zc_buf *s = &f->scratch;
    zc_buf_reset(s);
    uint8_t head[ZC_WIRE_CRC_BYTES] = {0};
    if (crc)
        zc_buf_add(s, head, sizeof(head));
    int r = f->compress ? zc_wire_write_compress(s, p, n, false) : 0;
    if (r == 0)
        r = zc_buf_add(s, p, n);
    if (r < 0 || s->failed)
        return r < 0 ? r : -ENOMEM;
    if (crc)
        zc_wire_crc((uint8_t *)s->p, (uint8_t *)s->p + sizeof(head), s->len - sizeof(head));
    add_label(f, b);
    if (!f->keys)
        return zc_buf_add(b, s->p, s->len);
    return zc_crypt_seal(f->keys, (const uint8_t *)f->label, f->label_len, (const uint8_t *)s->p,
                         s->len, b);
}

int zc_frame_open_packet(struct zc_frame *f, const uint8_t *p, size_t n, struct zc_buf *b)
{
    if (take_label(f, &p, &n) != 1)
        return -EBADMSG;
    size_t before = b->len;
    int r = f->keys ? zc_crypt_open(f->keys, (const uint8_t *)f->label, f->label_len, p, n, b)
                    : zc_buf_add(b, p, n);
    if (r < 0)
        return r;
    const uint8_t *at = (const uint8_t *)b->p + before;
    size_t len = b->len - before;
    r = zc_wire_check_crc(&at, &len);
    if (r < 0) {
        b->len = before;
        return r;
    }
    memmove(b->p + before, at, len);
    b->len = before + len;
    return 0;
}

/* ---- streams ---- */

static size_t stream_aad(const struct zc_frame *f, const uint8_t head[STREAM_HEAD],
                         uint8_t out[STREAM_HEAD + ZC_FRAME_LABEL_MAX])
{
    memcpy(out, head, STREAM_HEAD);
    memcpy(out + STREAM_HEAD, f->label, f->label_len);
    return STREAM_HEAD + f->label_len;
}

int zc_frame_seal_stream(struct zc_frame *f, const uint8_t *p, size_t n, bool first,
                         struct zc_buf *b)
{
    struct zc_buf *s = &f->scratch;
    zc_buf_reset(s);
    if (first)
        add_label(f, b);
    if (f->compress) { /* always, as memberlist does */
        int r = zc_wire_write_compress(s, p, n, true);
        if (r < 0)
            return r;
        p = (const uint8_t *)s->p;
        n = s->len;
    }
    if (!f->keys)
        return zc_buf_add(b, p, n);
    size_t payload = n + ZC_CRYPT_OVERHEAD;
    if (payload > ZC_WIRE_STREAM_MAX)
        return -EMSGSIZE;
    uint8_t aad[STREAM_HEAD + ZC_FRAME_LABEL_MAX];
    uint8_t head[STREAM_HEAD] = {ZC_WIRE_ENCRYPT, (uint8_t)(payload >> 24),
                                 (uint8_t)(payload >> 16), (uint8_t)(payload >> 8),
                                 (uint8_t)payload};
    int r = zc_buf_add(b, head, sizeof(head));
    if (r < 0)
        return r;
    return zc_crypt_seal(f->keys, aad, stream_aad(f, head, aad), p, n, b);
}

/* The plain message (perhaps compressed) in p[0..n) goes to s->out. */
static int stream_message(struct zc_frame_stream *s, const uint8_t *p, size_t n)
{
    int r;
    s->out.max = INFLATED_MAX;
    if (n > 0 && p[0] == ZC_WIRE_COMPRESS)
        r = zc_wire_decompress(p + 1, n - 1, &s->out);
    else
        r = zc_buf_add(&s->out, p, n);
    return r < 0 ? r : 1;
}

static int open_encrypted(struct zc_frame *f, struct zc_frame_stream *s, const uint8_t *p, size_t n)
{
    if (n > 0 && p[0] != ZC_WIRE_ENCRYPT)
        return -EBADMSG;
    if (n < STREAM_HEAD)
        return 0;
    size_t len = (size_t)p[1] << 24 | (size_t)p[2] << 16 | (size_t)p[3] << 8 | p[4];
    if (len > ZC_WIRE_STREAM_MAX)
        return -EMSGSIZE;
    if (n - STREAM_HEAD < len)
        return 0;
    uint8_t aad[STREAM_HEAD + ZC_FRAME_LABEL_MAX];
    zc_autobuf struct zc_buf plain = {.max = ZC_WIRE_STREAM_MAX};
    int r = zc_crypt_open(f->keys, aad, stream_aad(f, p, aad), p + STREAM_HEAD, len, &plain);
    return r < 0 ? r : stream_message(s, (const uint8_t *)plain.p, plain.len);
}

int zc_frame_open_stream(struct zc_frame *f, struct zc_frame_stream *s, bool first)
{
    const uint8_t *p = (const uint8_t *)s->in.p;
    size_t n = s->in.len;
    if (first) {
        int r = take_label(f, &p, &n);
        if (r != 1)
            return r;
    }
    if (f->keys)
        return open_encrypted(f, s, p, n);
    int64_t len = zc_wire_scan(&s->scan, p, n);
    if (len <= 0)
        return (int)len;
    return stream_message(s, p, (size_t)len);
}

void zc_frame_stream_free(struct zc_frame_stream *s)
{
    zc_buf_free(&s->in);
    zc_buf_free(&s->out);
}
