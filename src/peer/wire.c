/* SPDX-License-Identifier: Apache-2.0 */
/* See wire.h. */
#include "peer/wire.h"
#include "peer/heat.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ------------------------------------------------------------------ numbers */

static int wire_number(const char *s, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 19)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -EINVAL;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    if (v > INT64_MAX)
        return -EINVAL;
    *out = v;
    return 0;
}

/* Exactly 32 hex digits. */
static int wire_hex(const char *s, size_t n, struct zc_digest *out)
{
    char text[ZC_DIGEST_HEX + 1];
    if (n != ZC_DIGEST_HEX)
        return -EINVAL;
    memcpy(text, s, n);
    text[n] = 0;
    return zc_digest_parse(text, out);
}

/* ------------------------------------------------------------------ questions */

enum {
    SEEN_SOURCE = 1,
    SEEN_PATH = 2,
    SEEN_VERSION = 4,
    SEEN_SIZE = 8,
    SEEN_OFF = 16,
    SEEN_LEN = 32,
    SEEN_REACH = 64,
    SEEN_DIRECT = 128,
    SEEN_EXACT = 256,
    SEEN_PRIO = 512,
    SEEN_NODE = 1024,
    SEEN_DOUBT = 2048,
    SEEN_NEEDED = SEEN_SOURCE | SEEN_PATH | SEEN_VERSION | SEEN_SIZE | SEEN_OFF | SEEN_LEN,
};

static int request_text(char *out, size_t size, const char *value, size_t n)
{
    if (n >= size || memchr(value, 0, n))
        return -EINVAL;
    memcpy(out, value, n);
    out[n] = 0;
    return 0;
}

static int request_flag(bool *out, const char *value, size_t n)
{
    *out = n == 1 && *value == '1';
    return n == 1 && (*value == '0' || *value == '1') ? 0 : -EINVAL;
}

static int request_reach(enum zc_reach *out, const char *value, size_t n)
{
    if (n == 4 && memcmp(value, "held", 4) == 0)
        *out = ZC_REACH_HELD;
    else if (n == 6 && memcmp(value, "coming", 6) == 0)
        *out = ZC_REACH_COMING;
    else if (n == 5 && memcmp(value, "owner", 5) == 0)
        *out = ZC_REACH_OWNER;
    else
        return -EINVAL;
    return 0;
}

static int request_prio(enum zc_prio *out, const char *value, size_t n)
{
    uint64_t v;
    if (wire_number(value, n, &v) < 0 || v >= ZC_PRIO_N)
        return -EINVAL;
    *out = (enum zc_prio)v;
    return 0;
}

static int request_node(struct peer_request *r, const char *value, size_t n)
{
    struct zc_digest id;
    if (wire_hex(value, n, &id) < 0)
        return -EINVAL;
    zc_digest_store(r->node, id);
    r->has_node = true;
    return 0;
}

int peer_request_set(struct peer_request *r, const char *key, const char *value, size_t n)
{
    static const char *const names[] = {"source", "path",   "version", "size", "off",  "len",
                                        "reach",  "direct", "exact",   "prio", "node", "doubt"};
    unsigned i = 0;
    while (i < ZC_ARRAY_SIZE(names) && strcmp(key, names[i]) != 0)
        i++;
    if (i == ZC_ARRAY_SIZE(names))
        return 0;
    if (r->seen & 1U << i)
        return -EINVAL;
    r->seen |= 1U << i;
    switch (1U << i) {
    case SEEN_SOURCE:
        return request_text(r->source, sizeof(r->source), value, n);
    case SEEN_PATH:
        return request_text(r->path, sizeof(r->path), value, n);
    case SEEN_VERSION:
        return request_text(r->version, sizeof(r->version), value, n);
    case SEEN_SIZE:
        return wire_number(value, n, &r->size);
    case SEEN_OFF:
        return wire_number(value, n, &r->off);
    case SEEN_LEN:
        return wire_number(value, n, &r->len);
    case SEEN_REACH:
        return request_reach(&r->reach, value, n);
    case SEEN_DIRECT:
        return request_flag(&r->direct, value, n);
    case SEEN_EXACT:
        return request_flag(&r->exact, value, n);
    case SEEN_PRIO:
        return request_prio(&r->prio, value, n);
    case SEEN_DOUBT:
        return request_flag(&r->doubt, value, n);
    default:
        return request_node(r, value, n);
    }
}

/* As names of a listing are: backends take no others. */
static bool request_path_ok(const char *path)
{
    for (const char *p = path;; p++) {
        size_t n = strcspn(p, "/");
        if (n == 0 || n > NAME_MAX || (n == 1 && *p == '.') || (n == 2 && memcmp(p, "..", 2) == 0))
            return false;
        p += n;
        if (!*p)
            return true;
    }
}

int peer_request_check(const struct peer_request *r)
{
    if ((r->seen & SEEN_NEEDED) != SEEN_NEEDED || !r->source[0] || !request_path_ok(r->path))
        return -EINVAL;
    return r->len > 0 && r->off < r->size && r->len <= r->size - r->off ? 0 : -EINVAL;
}

static void request_escape(struct zc_buf *b, const char *s)
{
    zc_buf_add_urlenc(b, s, strlen(s), true);
}

void peer_request_target(const struct peer_request *r, struct zc_buf *b)
{
    static const char *const reaches[] = {
        [ZC_REACH_HELD] = "held", [ZC_REACH_COMING] = "coming", [ZC_REACH_OWNER] = "owner"};
    zc_buf_adds(b, PEER_TARGET "?source=");
    request_escape(b, r->source);
    zc_buf_adds(b, "&path=");
    request_escape(b, r->path);
    zc_buf_adds(b, "&version=");
    request_escape(b, r->version);
    zc_buf_addf(b, "&size=%llu&off=%llu&len=%llu&prio=%d", (unsigned long long)r->size,
                (unsigned long long)r->off, (unsigned long long)r->len, (int)r->prio);
    if (r->reach != ZC_REACH_STORE)
        zc_buf_addf(b, "&reach=%s", reaches[r->reach]);
    if (r->direct)
        zc_buf_adds(b, "&direct=1");
    if (r->exact)
        zc_buf_adds(b, "&exact=1");
    if (r->doubt)
        zc_buf_adds(b, "&doubt=1");
    if (r->has_node) {
        char hex[ZC_DIGEST_HEX + 1];
        zc_digest_hex(hex, zc_digest_load(r->node));
        zc_buf_addf(b, "&node=%s", hex);
    }
}

/* ------------------------------------------------------------------ answers */

static bool answer_is(const char *line, size_t n, const char *name, const char **v, size_t *vn)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0)
        return false;
    *v = line + k + 1;
    *vn = n - k - 1;
    while (*vn && (**v == ' ' || **v == '\t')) {
        (*v)++;
        (*vn)--;
    }
    while (*vn && ((*v)[*vn - 1] == ' ' || (*v)[*vn - 1] == '\t'))
        (*vn)--;
    return true;
}

/* Digests, one space between two. Returns how many, or -EINVAL. */
static int answer_digests(const char *v, size_t n, unsigned max,
                          void (*put)(struct peer_answer *, unsigned, struct zc_digest),
                          struct peer_answer *a)
{
    unsigned i = 0;
    for (;; i++) {
        struct zc_digest d;
        if (i == max || n < ZC_DIGEST_HEX || wire_hex(v, ZC_DIGEST_HEX, &d) < 0)
            return -EINVAL;
        put(a, i, d);
        v += ZC_DIGEST_HEX;
        n -= ZC_DIGEST_HEX;
        if (n == 0)
            return (int)i + 1;
        if (*v != ' ')
            return -EINVAL;
        v++;
        n--;
    }
}

static void answer_put_sum(struct peer_answer *a, unsigned i, struct zc_digest d)
{
    a->sums[i] = d;
}

static void answer_put_refer(struct peer_answer *a, unsigned i, struct zc_digest d)
{
    zc_digest_store(a->refers[i], d);
}

/* "bytes 0-99/1000" */
static int answer_range(struct peer_answer *a, const char *v, size_t n)
{
    const char *dash = memchr(v, '-', n), *slash = memchr(v, '/', n);
    uint64_t first, last, size;
    if (n < 6 || memcmp(v, "bytes ", 6) != 0 || !dash || !slash || slash < dash)
        return -EINVAL;
    if (wire_number(v + 6, (size_t)(dash - v - 6), &first) < 0 ||
        wire_number(dash + 1, (size_t)(slash - dash - 1), &last) < 0 ||
        wire_number(slash + 1, (size_t)(v + n - slash - 1), &size) < 0)
        return -EINVAL;
    if (last < first || last >= size)
        return -EINVAL;
    a->off = first;
    a->len = last - first + 1;
    a->has_range = true;
    return 0;
}

static int answer_state(struct peer_answer *a, const char *v, size_t n)
{
    if (n == 3 && memcmp(v, "hit", 3) == 0)
        a->state = PEER_STATE_HIT;
    else if (n == 7 && memcmp(v, "filling", 7) == 0)
        a->state = PEER_STATE_FILLING;
    else
        return -EINVAL;
    return 0;
}

int peer_answer_line(struct peer_answer *a, const char *line, size_t n)
{
    const char *v;
    size_t vn;
    int r = 0;
    if (answer_is(line, n, "Zcache-State", &v, &vn)) {
        r = answer_state(a, v, vn);
    } else if (answer_is(line, n, "Zcache-Object", &v, &vn)) {
        r = wire_hex(v, vn, &a->object);
        a->has_object = r == 0;
    } else if (answer_is(line, n, "Content-Range", &v, &vn)) {
        r = answer_range(a, v, vn);
    } else if (answer_is(line, n, "Zcache-Grid", &v, &vn)) {
        r = wire_number(v, vn, &a->grid);
    } else if (answer_is(line, n, "Zcache-Sums", &v, &vn)) {
        r = answer_digests(v, vn, PEER_PIECES_MAX, answer_put_sum, a);
        a->n_sums = r > 0 ? (unsigned)r : 0;
    } else if (answer_is(line, n, "Zcache-Replicas", &v, &vn)) {
        uint64_t many;
        r = wire_number(v, vn, &many);
        a->replicas = r == 0 ? (unsigned)ZC_MIN(many, (uint64_t)PEER_REPLICAS_MAX) : 0;
    } else if (answer_is(line, n, "Zcache-Refer", &v, &vn)) {
        r = answer_digests(v, vn, PEER_REFERS, answer_put_refer, a);
        a->n_refers = r > 0 ? (unsigned)r : 0;
    }
    return r < 0 ? -EBADMSG : 0;
}

uint64_t peer_pieces(uint64_t grid, uint64_t off, uint64_t len)
{
    return (off + len - 1) / grid - off / grid + 1;
}

int peer_answer_check(const struct peer_answer *a, struct zc_digest object, uint64_t off,
                      uint64_t len)
{
    if (!a->has_object || !zc_digest_eq(a->object, object) || !a->has_range || a->off != off ||
        a->len > len)
        return -EBADMSG;
    if (a->state == PEER_STATE_FILLING)
        return 0;
    if (a->state != PEER_STATE_HIT || a->grid == 0 || a->grid > PEER_GRID_MAX)
        return -EBADMSG;
    return peer_pieces(a->grid, a->off, a->len) == a->n_sums ? 0 : -EBADMSG;
}

/* ------------------------------------------------------------------ frames */

static void frame_put32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> 8 * i);
}

static uint32_t frame_get32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

void peer_frame_store(uint8_t out[PEER_FRAME_HEAD], const struct peer_frame *f)
{
    frame_put32(out, f->len);
    frame_put32(out + 4, (uint32_t)f->kind);
    zc_digest_store(out + 8, f->sum);
}

int peer_frame_load(const uint8_t in[PEER_FRAME_HEAD], struct peer_frame *f)
{
    uint32_t kind = frame_get32(in + 4);
    f->len = frame_get32(in);
    f->sum = zc_digest_load(in + 8);
    if (kind > PEER_FRAME_FAILED || f->len > PEER_FRAME_MAX ||
        (f->len == 0) != (kind != PEER_FRAME_DATA))
        return -EBADMSG;
    f->kind = (enum peer_frame_kind)kind;
    return 0;
}

struct zc_digest peer_hit_sum(struct zc_digest sum, struct zc_digest object, uint64_t off)
{
    uint8_t bytes[2 * ZC_DIGEST_BYTES];
    zc_digest_store(bytes, sum);
    zc_digest_store(bytes + ZC_DIGEST_BYTES, object);
    return zc_digest_of(off, bytes, sizeof(bytes));
}

uint64_t peer_frame_seed(struct zc_digest object, uint64_t off)
{
    return object.hi ^ off * 0x9e3779b97f4a7c15;
}
