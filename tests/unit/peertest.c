/* SPDX-License-Identifier: Apache-2.0 */
#include "peertest.h"

#include "peer/wire.h"
#include "unit.h"

#include <arpa/inet.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

#define PT_GRID ((uint64_t)65536)

const char *const pt_mode_names[FAKE_MODES] = {
    "good",          "good frames",      "short answers",
    "bytes",         "flipped",          "flipped frames",
    "other object",  "other place",      "swapped object",
    "swapped place", "other frames",     "too much",
    "no sums",       "garbage",          "cut",
    "cut frames",    "stalled",          "silent",
    "late",          "trickle",          "ticks",
    "busy",          "absent",           "broken",
    "refers",        "refers to nobody", "long headers"};

/* ------------------------------------------------------------------ fakes */

static uint64_t asked_number(const struct ht_request *req, const char *name)
{
    char key[32];
    snprintf(key, sizeof(key), "&%s=", name);
    const char *at = strstr(req->target, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void fake_wait(struct pt_fake *f, int fd, int64_t ms)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int64_t end = zc_now_ns() + ms * ZC_NS_PER_MS;
    while (!f->w->end && zc_now_ns() < end && poll(&p, 1, 20) == 0)
        ;
}

static bool fake_hit(struct pt_fake *f, int fd, uint64_t off, uint64_t len, enum pt_mode mode)
{
    struct zc_digest object = f->w->object;
    char head[8192], hex[ZC_DIGEST_HEX + 1];
    uint8_t *body = malloc(len + 100000);
    struct zc_digest bound = object;
    uint64_t shift = mode == FAKE_SWAPPED_PLACE ? PT_GRID : 0;
    bound.lo ^= mode == FAKE_SWAPPED_OBJECT;
    ht_fill(body, off + shift + (mode == FAKE_SWAPPED_OBJECT), len + 100000);
    if (mode == FAKE_SHORT_ANSWERS)
        len = ZC_MIN(len, (uint64_t)50000);
    if (mode == FAKE_BYTES)
        len = 1;
    if (mode == FAKE_OTHER_OBJECT)
        object.lo ^= 1;
    zc_digest_hex(hex, object);
    uint64_t told = mode == FAKE_OTHER_PLACE ? off + 1 : off;
    int n =
        snprintf(head, sizeof(head),
                 "Zcache-State: hit\r\nZcache-Object: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n"
                 "Zcache-Grid: %llu\r\n",
                 hex, (unsigned long long)told, (unsigned long long)(told + len - 1),
                 (unsigned long long)(PT_SIZE + 1), (unsigned long long)PT_GRID);
    if (mode != FAKE_NO_SUMS)
        n += snprintf(head + n, sizeof(head) - (size_t)n, "Zcache-Sums:");
    for (uint64_t at = off; mode != FAKE_NO_SUMS && at < off + len;) {
        uint64_t end = ZC_MIN((at / PT_GRID + 1) * PT_GRID, off + len);
        zc_digest_hex(hex, peer_hit_sum(zc_digest_of(CT_SEED, body + (at - off), end - at), bound,
                                        at + shift));
        n += snprintf(head + n, sizeof(head) - (size_t)n, " %s", hex);
        at = end;
    }
    if (mode != FAKE_NO_SUMS)
        n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
    if (mode == FAKE_FLIPPED)
        body[len / 2] ^= 4;
    bool ok;
    if (mode == FAKE_TOO_MUCH) {
        ok = ht_reply(fd, 206, head, body, len + 100000);
    } else if (mode == FAKE_TRICKLE) {
        char line[8400];
        int m =
            snprintf(line, sizeof(line), "HTTP/1.1 206 Status\r\nContent-Length: %llu\r\n%s\r\n",
                     (unsigned long long)len, head);
        ok = ht_write(fd, line, (size_t)m);
        for (uint64_t at = 0; ok && at < len; at += 5000) {
            ok = ht_write(fd, body + at, ZC_MIN(len - at, (uint64_t)5000));
            fake_wait(f, fd, 200);
        }
    } else if (mode == FAKE_CUT || mode == FAKE_STALLED) {
        char line[8400];
        int m =
            snprintf(line, sizeof(line), "HTTP/1.1 206 Status\r\nContent-Length: %llu\r\n%s\r\n",
                     (unsigned long long)len, head);
        ok = ht_write(fd, line, (size_t)m) && ht_write(fd, body, len * 2 / 3);
        if (mode == FAKE_STALLED)
            fake_wait(f, fd, 20000);
        ok = false;
    } else {
        ok = ht_reply(fd, 206, head, body, len);
    }
    free(body);
    return ok;
}

static bool fake_chunk(int fd, const void *p, size_t n)
{
    char line[32];
    int m = snprintf(line, sizeof(line), "%zx\r\n", n);
    return ht_write(fd, line, (size_t)m) && ht_write(fd, p, n) && ht_write(fd, "\r\n", 2);
}

static bool fake_frame(int fd, const struct peer_frame *frame, const uint8_t *p)
{
    uint8_t *all = malloc(PEER_FRAME_HEAD + frame->len);
    peer_frame_store(all, frame);
    if (frame->len)
        memcpy(all + PEER_FRAME_HEAD, p, frame->len);
    bool ok = fake_chunk(fd, all, PEER_FRAME_HEAD + frame->len);
    free(all);
    return ok;
}

static bool fake_frames(struct pt_fake *f, int fd, uint64_t off, uint64_t len, enum pt_mode mode)
{
    char head[1024], hex[ZC_DIGEST_HEX + 1];
    static uint8_t bytes[100000];
    uint8_t mine[sizeof(bytes)];
    zc_digest_hex(hex, f->w->object);
    int n =
        snprintf(head, sizeof(head),
                 "HTTP/1.1 206 Status\r\nTransfer-Encoding: chunked\r\nZcache-State: filling\r\n"
                 "Zcache-Object: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n\r\n",
                 hex, (unsigned long long)off, (unsigned long long)(off + len - 1),
                 (unsigned long long)(PT_SIZE + 1));
    struct peer_frame tick = {.kind = PEER_FRAME_TICK}, end = {.kind = PEER_FRAME_END};
    if (!ht_write(fd, head, (size_t)n) || !fake_frame(fd, &tick, NULL))
        return false;
    while (mode == FAKE_TICKS && !f->w->end) {
        fake_wait(f, fd, 200);
        if (!fake_frame(fd, &tick, NULL))
            return false;
    }
    for (uint64_t at = off; at < off + len;) {
        uint64_t take = ZC_MIN(sizeof(mine), off + len - at);
        uint64_t from = mode == FAKE_OTHER_FRAMES ? at + 7 : at;
        ht_fill(mine, from, take);
        struct peer_frame d = {.kind = PEER_FRAME_DATA,
                               .len = (uint32_t)take,
                               .sum =
                                   zc_digest_of(peer_frame_seed(f->w->object, from), mine, take)};
        if (mode == FAKE_FLIPPED_FRAMES)
            mine[take / 2] ^= 1;
        if (!fake_frame(fd, &d, mine))
            return false;
        if (mode == FAKE_CUT_FRAMES)
            return false;
        at += take;
    }
    return fake_frame(fd, &end, NULL) && ht_write(fd, "0\r\n\r\n", 5);
}

static bool fake_refer(struct pt_fake *f, int fd, bool nobody)
{
    char head[256], hex[ZC_DIGEST_HEX + 1];
    uint8_t id[ZC_NODE_ID] = {0};
    id[0] = nobody ? 99 : (uint8_t)(3 - f->node);
    zc_digest_hex(hex, zc_digest_load(id));
    snprintf(head, sizeof(head), "Zcache-Refer: %s\r\n", hex);
    return ht_reply(fd, 307, head, "", 0);
}

static bool fake_long_headers(int fd)
{
    char line[1100];
    memset(line, 'x', sizeof(line));
    memcpy(line, "X-Y: ", 5);
    memcpy(line + sizeof(line) - 2, "\r\n", 2);
    bool ok = ht_write(fd, "HTTP/1.1 206 Status\r\n", 21);
    for (int i = 0; i < 20000 && ok; i++)
        ok = ht_write(fd, line, sizeof(line));
    return false;
}

bool pt_answer(void *user, int fd, const struct ht_request *req)
{
    struct pt_fake *f = user;
    uint64_t off = asked_number(req, "off"), len = asked_number(req, "len");
    enum pt_mode mode = (enum pt_mode)f->mode;
    if (strstr(req->target, "&doubt=1")) {
        f->doubts++;
        return ht_reply(fd, 404, NULL, "gone", 4);
    }
    switch (mode) {
    case FAKE_GOOD_FRAMES:
    case FAKE_FLIPPED_FRAMES:
    case FAKE_OTHER_FRAMES:
    case FAKE_CUT_FRAMES:
    case FAKE_TICKS:
        return fake_frames(f, fd, off, len, mode);
    case FAKE_GARBAGE:
        ht_write(fd, "\x16\x03\x01 what is this\r\n\r\n", 21);
        return false;
    case FAKE_SILENT:
        fake_wait(f, fd, 20000);
        return false;
    case FAKE_LATE:
        fake_wait(f, fd, 375); /* after the first hedge, before the second */
        return fake_hit(f, fd, off, len, FAKE_GOOD);
    case FAKE_BUSY:
        return ht_reply(fd, 503, NULL, "busy", 4);
    case FAKE_ABSENT:
        return ht_reply(fd, 404, NULL, "no", 2);
    case FAKE_BROKEN:
        return ht_reply(fd, 500, NULL, "oh", 2);
    case FAKE_REFERS:
    case FAKE_REFERS_NOBODY:
        return fake_refer(f, fd, mode == FAKE_REFERS_NOBODY);
    case FAKE_LONG_HEADERS:
        return fake_long_headers(fd);
    default:
        return fake_hit(f, fd, off, len, mode);
    }
}

/* ------------------------------------------------------------------ the world */

static void world_cluster(struct pt_world *w)
{
    struct zc_cluster_node n[3] = {0};
    for (unsigned i = 0; i < 3; i++) {
        n[i].id[0] = (uint8_t)i;
        n[i].id[15] = i == 0; /* no id is all zeros */
        n[i].weight = n[i].nominal = 100;
        n[i].is_self = i == 0;
        n[i].addr.in =
            (struct sockaddr_in){.sin_family = AF_INET,
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                                 .sin_port = htons(i ? (uint16_t)ht_port(w->fakes[i].ht) : 1)};
    }
    assert_int_equal(zc_cluster_new_static(n, 3, &w->cluster), 0);
}

void pt_object(struct pt_world *w, unsigned first, unsigned second)
{
    static unsigned fresh;
    struct zc_cluster_node r[3];
    do {
        snprintf(w->path, sizeof(w->path), "o/n%u/%llu", fresh++, (unsigned long long)PT_SIZE);
        w->object = zc_objid_of(PT_IDENTITY, w->path, "v", PT_SIZE).id;
        zc_cluster_rank(w->cluster, zc_cluster_key(w->object, 0), r, 3);
    } while (r[0].id[0] != first || r[1].id[0] != second);
}

int pt_setup(void **state)
{
    struct pt_world *w = calloc(1, sizeof(*w));
    struct zc_error err = {0};
    w->dir = ct_mkdir();
    struct zc_cache_config cc = ct_config(w->dir);
    w->cache = ct_open(&cc);
    struct zc_fetch_config fc = {.chunk_size = CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&fc, w->cache, &w->fetch), 0);
    for (unsigned i = 1; i < 3; i++) {
        w->fakes[i].w = w;
        w->fakes[i].node = i;
        w->fakes[i].ht = ht_start(pt_answer, &w->fakes[i]);
    }
    world_cluster(w);
    struct sockaddr_in bind = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct zc_peer_config pc = {.cluster = w->cluster,
                                .fetch = w->fetch,
                                .seed = CT_SEED,
                                .bind = (struct sockaddr *)&bind};
    assert_int_equal(zc_peer_new(&pc, &w->peer, &err), 0);
    w->mem = mem_new();
    assert_int_equal(zc_peer_share(w->peer, w->mem, PT_IDENTITY, &w->be), 0);
    *state = w;
    return 0;
}

int pt_teardown(void **state)
{
    struct pt_world *w = *state;
    w->end = true;
    zc_fetch_shutdown(w->fetch);
    zc_peer_stop(w->peer);
    zc_fetch_free(w->fetch);
    zc_peer_free(w->peer);
    zc_backend_free(w->be);
    zc_cluster_free(w->cluster);
    for (unsigned i = 1; i < 3; i++)
        ht_stop(w->fakes[i].ht);
    zc_cache_close(w->cache);
    ct_rmdir(w->dir);
    free(w);
    return 0;
}

struct zc_peer_stats pt_stats(struct pt_world *w)
{
    struct zc_peer_stats s;
    zc_peer_get_stats(w->peer, &s);
    return s;
}
