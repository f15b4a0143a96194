/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node among others that do what real ones do not: lie, stand still, refer in circles, flood. Two
 * fake nodes own what the third, which is real, wants; behind it is a source in memory. Whatever
 * the fakes do, the bytes are right, in order, each once, and come within a bounded time.
 */
#include "cachetest.h"
#include "httptest.h"
#include "membackend.h"
#include "peer/heat.h"
#include "peer/wire.h"
#include "peer/peer.h"
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SIZE ((uint64_t)300000)
#define GRID ((uint64_t)65536)
#define IDENTITY "mem://test"

enum mode {
    GOOD,
    GOOD_FRAMES,
    SHORT_ANSWERS, /* less than was asked for, but right */
    BYTES,         /* one at a time */
    FLIPPED,
    FLIPPED_FRAMES,
    OTHER_OBJECT,
    OTHER_PLACE,
    SWAPPED_OBJECT, /* bytes of another object with their sums, under the right headers */
    SWAPPED_PLACE,  /* of another place */
    OTHER_FRAMES,   /* right bytes of another place, with their sums */
    TOO_MUCH,
    NO_SUMS,
    GARBAGE,
    CUT,
    CUT_FRAMES,
    STALLED,
    SILENT,
    LATE,
    TRICKLE, /* 25 KB a second */
    TICKS,
    BUSY,
    ABSENT,
    BROKEN,
    REFERS, /* to the other fake */
    REFERS_NOBODY,
    LONG_HEADERS,
    MODES
};

static const char *const mode_names[MODES] = {"good",          "good frames",      "short answers",
                                              "bytes",         "flipped",          "flipped frames",
                                              "other object",  "other place",      "swapped object",
                                              "swapped place", "other frames",     "too much",
                                              "no sums",       "garbage",          "cut",
                                              "cut frames",    "stalled",          "silent",
                                              "late",          "trickle",          "ticks",
                                              "busy",          "absent",           "broken",
                                              "refers",        "refers to nobody", "long headers"};

struct world;

struct fake {
    struct world *w;
    struct ht_server *ht;
    _Atomic int mode;
    unsigned node;           /* 1 or 2 */
    _Atomic unsigned doubts; /* how often it was told that its bytes were wrong */
};

struct world {
    char *dir;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct fake fakes[3]; /* [0] is not used */
    struct zc_cluster *cluster;
    struct zc_peer *peer;
    struct zc_backend *mem, *be;
    char path[64];
    struct zc_digest object;
    _Atomic bool end;
};

/* ------------------------------------------------------------------ fakes */

static uint64_t asked_number(const struct ht_request *req, const char *name)
{
    char key[32];
    snprintf(key, sizeof(key), "&%s=", name);
    const char *at = strstr(req->target, key);
    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

static void fake_wait(struct fake *f, int fd, int64_t ms)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    int64_t end = zc_now_ns() + ms * ZC_NS_PER_MS;
    while (!f->w->end && zc_now_ns() < end && poll(&p, 1, 20) == 0)
        ;
}

static bool fake_hit(struct fake *f, int fd, uint64_t off, uint64_t len, enum mode mode)
{
    struct zc_digest object = f->w->object;
    char head[8192], hex[ZC_DIGEST_HEX + 1];
    uint8_t *body = malloc(len + 100000);
    struct zc_digest bound = object;
    uint64_t shift = mode == SWAPPED_PLACE ? GRID : 0;
    bound.lo ^= mode == SWAPPED_OBJECT;
    ht_fill(body, off + shift + (mode == SWAPPED_OBJECT), len + 100000);
    if (mode == SHORT_ANSWERS)
        len = ZC_MIN(len, (uint64_t)50000);
    if (mode == BYTES)
        len = 1;
    if (mode == OTHER_OBJECT)
        object.lo ^= 1;
    zc_digest_hex(hex, object);
    uint64_t told = mode == OTHER_PLACE ? off + 1 : off;
    int n =
        snprintf(head, sizeof(head),
                 "Zcache-State: hit\r\nZcache-Object: %s\r\nContent-Range: bytes %llu-%llu/%llu\r\n"
                 "Zcache-Grid: %llu\r\n",
                 hex, (unsigned long long)told, (unsigned long long)(told + len - 1),
                 (unsigned long long)(SIZE + 1), (unsigned long long)GRID);
    if (mode != NO_SUMS)
        n += snprintf(head + n, sizeof(head) - (size_t)n, "Zcache-Sums:");
    for (uint64_t at = off; mode != NO_SUMS && at < off + len;) {
        uint64_t end = ZC_MIN((at / GRID + 1) * GRID, off + len);
        zc_digest_hex(hex, peer_hit_sum(zc_digest_of(CT_SEED, body + (at - off), end - at), bound,
                                        at + shift));
        n += snprintf(head + n, sizeof(head) - (size_t)n, " %s", hex);
        at = end;
    }
    if (mode != NO_SUMS)
        n += snprintf(head + n, sizeof(head) - (size_t)n, "\r\n");
    if (mode == FLIPPED)
        body[len / 2] ^= 4;
    bool ok;
    if (mode == TOO_MUCH) {
        ok = ht_reply(fd, 206, head, body, len + 100000);
    } else if (mode == TRICKLE) {
        char line[8400];
        int m =
            snprintf(line, sizeof(line), "HTTP/1.1 206 Status\r\nContent-Length: %llu\r\n%s\r\n",
                     (unsigned long long)len, head);
        ok = ht_write(fd, line, (size_t)m);
        for (uint64_t at = 0; ok && at < len; at += 5000) {
            ok = ht_write(fd, body + at, ZC_MIN(len - at, (uint64_t)5000));
            fake_wait(f, fd, 200);
        }
    } else if (mode == CUT || mode == STALLED) {
        char line[8400];
        int m =
            snprintf(line, sizeof(line), "HTTP/1.1 206 Status\r\nContent-Length: %llu\r\n%s\r\n",
                     (unsigned long long)len, head);
        ok = ht_write(fd, line, (size_t)m) && ht_write(fd, body, len * 2 / 3);
        if (mode == STALLED)
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

static bool fake_frames(struct fake *f, int fd, uint64_t off, uint64_t len, enum mode mode)
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
                 (unsigned long long)(SIZE + 1));
    struct peer_frame tick = {.kind = PEER_FRAME_TICK}, end = {.kind = PEER_FRAME_END};
    if (!ht_write(fd, head, (size_t)n) || !fake_frame(fd, &tick, NULL))
        return false;
    while (mode == TICKS && !f->w->end) {
        fake_wait(f, fd, 200);
        if (!fake_frame(fd, &tick, NULL))
            return false;
    }
    for (uint64_t at = off; at < off + len;) {
        uint64_t take = ZC_MIN(sizeof(mine), off + len - at);
        uint64_t from = mode == OTHER_FRAMES ? at + 7 : at;
        ht_fill(mine, from, take);
        struct peer_frame d = {.kind = PEER_FRAME_DATA,
                               .len = (uint32_t)take,
                               .sum =
                                   zc_digest_of(peer_frame_seed(f->w->object, from), mine, take)};
        if (mode == FLIPPED_FRAMES)
            mine[take / 2] ^= 1;
        if (!fake_frame(fd, &d, mine))
            return false;
        if (mode == CUT_FRAMES)
            return false;
        at += take;
    }
    return fake_frame(fd, &end, NULL) && ht_write(fd, "0\r\n\r\n", 5);
}

static bool fake_refer(struct fake *f, int fd, bool nobody)
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

static bool fake_answer(void *user, int fd, const struct ht_request *req)
{
    struct fake *f = user;
    uint64_t off = asked_number(req, "off"), len = asked_number(req, "len");
    enum mode mode = (enum mode)f->mode;
    if (strstr(req->target, "&doubt=1")) {
        f->doubts++;
        return ht_reply(fd, 404, NULL, "gone", 4);
    }
    switch (mode) {
    case GOOD_FRAMES:
    case FLIPPED_FRAMES:
    case OTHER_FRAMES:
    case CUT_FRAMES:
    case TICKS:
        return fake_frames(f, fd, off, len, mode);
    case GARBAGE:
        ht_write(fd, "\x16\x03\x01 what is this\r\n\r\n", 21);
        return false;
    case SILENT:
        fake_wait(f, fd, 20000);
        return false;
    case LATE:
        fake_wait(f, fd, 375); /* after the first hedge, before the second */
        return fake_hit(f, fd, off, len, GOOD);
    case BUSY:
        return ht_reply(fd, 503, NULL, "busy", 4);
    case ABSENT:
        return ht_reply(fd, 404, NULL, "no", 2);
    case BROKEN:
        return ht_reply(fd, 500, NULL, "oh", 2);
    case REFERS:
    case REFERS_NOBODY:
        return fake_refer(f, fd, mode == REFERS_NOBODY);
    case LONG_HEADERS:
        return fake_long_headers(fd);
    default:
        return fake_hit(f, fd, off, len, mode);
    }
}

/* ------------------------------------------------------------------ the world */

static void world_cluster(struct world *w)
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

/* An object whose owner is fake `first`, and whose second is fake `second` (0: this node). */
static void world_object(struct world *w, unsigned first, unsigned second)
{
    static unsigned fresh;
    struct zc_cluster_node r[3];
    do {
        snprintf(w->path, sizeof(w->path), "o/n%u/%llu", fresh++, (unsigned long long)SIZE);
        w->object = zc_objid_of(IDENTITY, w->path, "v", SIZE).id;
        zc_cluster_rank(w->cluster, zc_cluster_key(w->object, 0), r, 3);
    } while (r[0].id[0] != first || r[1].id[0] != second);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    struct zc_error err = {0};
    w->dir = ct_mkdir();
    struct zc_cache_config cc = ct_config(w->dir);
    w->cache = ct_open(&cc);
    struct zc_fetch_config fc = {.chunk_size = CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&fc, w->cache, &w->fetch), 0);
    for (unsigned i = 1; i < 3; i++) {
        w->fakes[i].w = w;
        w->fakes[i].node = i;
        w->fakes[i].ht = ht_start(fake_answer, &w->fakes[i]);
    }
    world_cluster(w);
    struct sockaddr_in bind = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct zc_peer_config pc = {.cluster = w->cluster,
                                .fetch = w->fetch,
                                .seed = CT_SEED,
                                .bind = (struct sockaddr *)&bind};
    assert_int_equal(zc_peer_new(&pc, &w->peer, &err), 0);
    w->mem = mem_new();
    assert_int_equal(zc_peer_share(w->peer, w->mem, IDENTITY, &w->be), 0);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
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

/* ------------------------------------------------------------------ gets */

struct got {
    struct zc_get_req req;
    uint64_t n;
    bool wrong;
    int err;
    bool done;
    pthread_mutex_t lock;
    pthread_cond_t cond;
};

static int got_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct got *g = zc_container_of(req, struct got, req);
    for (size_t i = 0; i < n; i++)
        g->wrong = g->wrong || ((const uint8_t *)p)[i] != ht_byte(g->req.off + g->n + i);
    g->n += n;
    return 0;
}

static void got_done(struct zc_get_req *req, int err)
{
    struct got *g = zc_container_of(req, struct got, req);
    pthread_mutex_lock(&g->lock);
    assert_false(g->done);
    g->err = err;
    g->done = true;
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->lock);
}

static void got_begin(struct world *w, struct got *g, uint64_t off, uint64_t len)
{
    *g = (struct got){.req = {.path = w->path,
                              .version = "v",
                              .off = off,
                              .len = len,
                              .size = SIZE,
                              .data = got_data,
                              .done = got_done}};
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->cond, NULL);
    zc_backend_get(w->be, &g->req);
}

/* How long it took; the seconds are what a hang is called one after. */
static double got_end(struct got *g, int seconds)
{
    int64_t began = zc_now_ns();
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    ts.tv_sec += seconds;
    pthread_mutex_lock(&g->lock);
    while (!g->done && pthread_cond_timedwait(&g->cond, &g->lock, &ts) == 0)
        ;
    assert_true(g->done);
    pthread_mutex_unlock(&g->lock);
    pthread_mutex_destroy(&g->lock);
    pthread_cond_destroy(&g->cond);
    return (double)(zc_now_ns() - began) / 1e9;
}

static void get_right(struct world *w, uint64_t off, uint64_t len)
{
    struct got g;
    got_begin(w, &g, off, len);
    got_end(&g, 60);
    assert_int_equal(g.err, 0);
    assert_false(g.wrong);
    assert_int_equal(g.n, len);
}

static struct zc_peer_stats stats(struct world *w)
{
    struct zc_peer_stats s;
    zc_peer_get_stats(w->peer, &s);
    return s;
}

static bool mode_lies(enum mode m)
{
    return (m >= FLIPPED && m <= NO_SUMS);
}

/* The owner does each of it, the second is good. */
static void test_owner_of_each_kind(void **state)
{
    struct world *w = *state;
    w->fakes[2].mode = GOOD;
    for (int m = GOOD; m < MODES; m++) {
        print_message("owner: %s\n", mode_names[m]);
        teardown(state);
        setup(state);
        w = *state;
        w->fakes[1].mode = m;
        w->fakes[2].mode = GOOD;
        world_object(w, 1, 2);
        get_right(w, 100, SIZE - 200);
        struct zc_peer_stats s = stats(w);
        assert_int_equal(mem_requests(w->mem), 0); /* the second had it */
        assert_int_equal(s.bad_sums, mode_lies((enum mode)m));
        if (mode_lies((enum mode)m)) {
            assert_int_equal(s.aside, 1);
            bool told = m == FLIPPED || m == SWAPPED_OBJECT || m == SWAPPED_PLACE;
            for (int i = 0; i < 500 && told && !w->fakes[1].doubts; i++)
                usleep(10000);
            assert_int_equal(w->fakes[1].doubts, told);
            unsigned before = ht_requests(w->fakes[1].ht);
            get_right(w, 0, SIZE);
            assert_int_equal(ht_requests(w->fakes[1].ht), before); /* not asked any more */
        }
        if (m == TRICKLE) { /* left for the second one, and not asked for a while */
            assert_int_equal(s.late, 1);
            assert_int_equal(s.aside, 1);
            assert_int_equal(ht_requests(w->fakes[2].ht), 1);
        }
        if (m == BYTES)
            assert_true(ht_requests(w->fakes[1].ht) < 20);
    }
}

/* Both do: the store is asked. */
static void test_all_of_each_kind(void **state)
{
    for (int m = SHORT_ANSWERS; m < MODES; m++) {
        if (m == TICKS)
            continue; /* ten seconds each: one was waited for above */
        print_message("all: %s\n", mode_names[m]);
        teardown(state);
        setup(state);
        struct world *w = *state;
        w->fakes[1].mode = w->fakes[2].mode = m;
        world_object(w, 1, 2);
        get_right(w, 0, SIZE);
        /* One that says too much has said what is right before that. */
        bool gives = m == SHORT_ANSWERS || m == LATE || m == TOO_MUCH;
        assert_int_equal(mem_requests(w->mem), gives ? 0 : 1);
    }
}

/* Nobody listens there. */
static void test_gone(void **state)
{
    struct world *w = *state;
    world_object(w, 1, 2);
    ht_stop(w->fakes[1].ht);
    ht_stop(w->fakes[2].ht);
    int64_t began = zc_now_ns();
    get_right(w, 0, SIZE);
    assert_true(zc_now_ns() - began < 2 * ZC_NS_PER_S);
    assert_int_equal(stats(w).aside, 2);
    get_right(w, 0, SIZE);
    assert_int_equal(stats(w).asked, 2);
    for (unsigned i = 1; i < 3; i++)
        w->fakes[i].ht = ht_start(fake_answer, &w->fakes[i]);
}

/* One that is set aside is tried again, and is as good as before. */
static void test_comes_back(void **state)
{
    struct world *w = *state;
    world_object(w, 1, 0);
    w->fakes[1].mode = SILENT;
    for (int i = 0; i < 4; i++)
        get_right(w, 0, 1000);
    assert_int_equal(stats(w).aside, 1);
    unsigned before = ht_requests(w->fakes[1].ht);
    get_right(w, 0, 1000);
    assert_int_equal(ht_requests(w->fakes[1].ht), before);
    w->fakes[1].mode = GOOD;
    for (int i = 0; i < 80 && stats(w).aside; i++) {
        usleep(100000);
        get_right(w, 0, 1000);
    }
    assert_int_equal(stats(w).aside, 0);
    before = mem_requests(w->mem);
    get_right(w, 0, SIZE);
    assert_int_equal(mem_requests(w->mem), before);
}

/* What this node owns is asked of nobody who has to fetch it. */
static void test_own(void **state)
{
    struct world *w = *state;
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    world_object(w, 0, 1);
    get_right(w, 0, SIZE);
    assert_int_equal(mem_requests(w->mem), 1);
    w->fakes[1].mode = GOOD; /* the former owner still has it */
    world_object(w, 0, 1);
    get_right(w, 0, SIZE);
    assert_int_equal(mem_requests(w->mem), 1);
    assert_int_equal(stats(w).former, 1);
}

static void test_cancel(void **state)
{
    struct world *w = *state;
    struct got g[8];
    world_object(w, 1, 2);
    w->fakes[1].mode = w->fakes[2].mode = TICKS;
    for (int i = 0; i < 8; i++)
        got_begin(w, &g[i], 0, SIZE);
    usleep(300000);
    for (int i = 0; i < 8; i++)
        zc_backend_cancel(w->be, &g[i].req.base);
    for (int i = 0; i < 8; i++) {
        got_end(&g[i], 5);
        assert_int_equal(g[i].err, -ECANCELED);
    }
    mem_hold(w->mem, true);
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    got_begin(w, &g[0], 0, SIZE);
    for (int i = 0; i < 200 && !mem_held(w->mem); i++)
        usleep(10000);
    zc_backend_cancel(w->be, &g[0].req.base);
    mem_hold(w->mem, false);
    mem_release(w->mem, 1);
    got_end(&g[0], 5);
}

/* ------------------------------------------------------------------ the server */

static int dial(struct world *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons(zc_peer_port(w->peer))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* The status of a raw request, 0 when the connection was closed without one. */
static int ask_raw(struct world *w, const char *text, size_t n)
{
    char buf[512] = {0};
    int fd = dial(w), status = 0;
    ht_write(fd, text, n);
    ssize_t got = recv(fd, buf, sizeof(buf) - 1, 0);
    close(fd);
    if (got > 12)
        sscanf(buf, "HTTP/1.1 %d", &status);
    return status;
}

static int ask_target(struct world *w, const char *target)
{
    char text[20000];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    return ask_raw(w, text, (size_t)n);
}

static void test_server_refuses(void **state)
{
    struct world *w = *state;
    assert_int_equal(ask_target(w, "/v1/data"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=10&off=0&len=11"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=10&off=10&len=1"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=-1&off=0&len=1"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&path=c&version=v&size=9&off=0&len=1"),
                     400);
    assert_int_equal(ask_target(w, "/v1/data?source=a%00b&path=b&version=v&size=9&off=0&len=1"),
                     400);
    assert_int_equal(
        ask_target(w, "/v1/data?source=a&path=b&version=v&size=9&off=0&len=1&reach=all"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=9&off=0&len=1&node=12"),
                     400);
    assert_int_equal(ask_target(w, "/v1/data?source=none&path=b&version=v&size=9&off=0&len=1"),
                     404);
    assert_int_equal(ask_target(w, "/../../etc/passwd"), 404);
    assert_int_equal(ask_target(w, "/v1/ask/status"), 404);
    ask_raw(w, "\0\1\2\3\r\n\r\n", 8);
    assert_int_equal(stats(w).served, 0);
}

/* Who is let in asks for what no listing has: refused, whatever a source would make of it. */
static void test_server_refuses_what_cannot_be(void **state)
{
    static const char *const paths[] = {"/etc/passwd", "o/n/10/", "o//n", "../n",
                                        "o/../n",      "o/n/..",  ".",    "o/./n"};
    static const char *const sizes[] = {"9223372036854775807", "4503599627370496",
                                        "281474976710657", "1152921504606846976"};
    struct world *w = *state;
    struct zc_fetch_src *src;
    char target[1024], name[301] = {0};
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    memset(name, 'n', sizeof(name) - 1);
    for (unsigned i = 0; i <= ZC_ARRAY_SIZE(paths); i++) {
        snprintf(target, sizeof(target),
                 "/v1/data?source=mem%%3A//test&path=%s&version=v&size=10&off=0&len=10",
                 i < ZC_ARRAY_SIZE(paths) ? paths[i] : name);
        assert_int_equal(ask_target(w, target), 400);
    }
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(sizes); i++) {
        snprintf(target, sizeof(target),
                 "/v1/data?source=mem%%3A//test&path=o/n/%s&version=v&size=%s&off=%llu&len=1",
                 sizes[i], sizes[i], strtoull(sizes[i], NULL, 10) - 1);
        assert_int_equal(ask_target(w, target), 404);
    }
    assert_int_equal(mem_requests(w->mem), 0);
}

/* How many folders of backing files had a file come or go since the call that begins. */
static unsigned changed_folders(struct world *w, bool begin)
{
    char line[600], n[32] = "";
    snprintf(line, sizeof(line),
             begin ? "sleep 0.05; touch '%s/began'; sleep 0.05; echo 0"
                   : "find '%s' -path '*objects*' -type d -newer '%s/began' | wc -l",
             w->dir, w->dir);
    FILE *p = popen(line, "r");
    assert_non_null(fgets(n, sizeof(n), p));
    pclose(p);
    return (unsigned)atoi(n);
}

/* Asks the real server for an object of the source in memory, as one that takes it for the owner.
 */
static void test_server_gives(void **state)
{
    struct world *w = *state;
    struct zc_fetch_src *src;
    char target[512];
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    world_object(w, 1, 2); /* it is not; it fetches all the same */
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=0&len=%llu&reach=held",
             w->path, (unsigned long long)SIZE, (unsigned long long)SIZE);
    assert_int_equal(changed_folders(w, true), 0);
    assert_int_equal(ask_target(w, target), 404);
    assert_int_equal(changed_folders(w, false), 0); /* nothing was made, and removed again */
    strrchr(target, '&')[0] = 0;
    assert_int_equal(ask_target(w, target), 206);
    unsigned before = (SIZE + CT_CHUNK - 1) / CT_CHUNK; /* it goes on when the asker has hung up */
    for (int i = 0; i < 1000 && mem_requests(w->mem) < before; i++)
        usleep(10000);
    usleep(300000);
    snprintf(target + strlen(target), sizeof(target) - strlen(target), "&reach=held");
    assert_int_equal(ask_target(w, target), 206); /* now it is here */
    assert_int_equal(mem_requests(w->mem), before);
}

/* Flips a bit at `at` in the backing file of the only object. */
static void flip(struct world *w, off_t at)
{
    char path[512], line[600];
    uint8_t byte;
    snprintf(line, sizeof(line), "find '%s' -type f -size +200k -path '*objects*'", w->dir);
    FILE *p = popen(line, "r");
    assert_non_null(fgets(path, sizeof(path), p));
    pclose(p);
    path[strcspn(path, "\n")] = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static int ask_part(struct world *w, uint64_t off, uint64_t len, const char *more)
{
    char target[512];
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=%llu&len=%llu%s",
             w->path, (unsigned long long)SIZE, (unsigned long long)off, (unsigned long long)len,
             more);
    return ask_target(w, target);
}

/* What the disk has made of a chunk gets no sum that fits it, whatever part of it is asked for, and
   does not stay. */
static void test_server_finds_flipped_bits(void **state)
{
    struct world *w = *state;
    struct zc_fetch_src *src;
    struct zc_cache_stats cache;
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    for (int round = 0; round < 3; round++) {
        world_object(w, 0, 1);
        assert_int_equal(ask_part(w, 0, SIZE, ""), 206);
        for (int i = 0; i < 1000 && ask_part(w, 0, SIZE, "&reach=held") != 206; i++)
            usleep(10000);
        usleep(300000); /* the last one is on record, too */
        if (round == 1) /* a part that was looked at before it was flipped */
            assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 206);
        if (round == 2) {
            assert_int_equal(ask_part(w, 0, 1, "&doubt=1"), 200);
            flip(w, 30000);
            assert_int_equal(ask_part(w, 0, 1, "&doubt=1"), 404);
        } else {
            flip(w, 1010);
            assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 500);
        }
        zc_cache_get_stats(w->cache, &cache);
        assert_int_equal(cache.bad_chunks, round + 1);
        assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 404); /* it is gone */
        assert_int_equal(ask_part(w, 1000, 50, ""), 206);            /* and fetched anew */
        usleep(300000);
        zc_cache_evict(w->cache, zc_objid_of(IDENTITY, w->path, "v", SIZE));
    }
}

/* What other nodes receive does not keep a source from being removed. */
static void test_server_keeps_no_source(void **state)
{
    struct world *w = *state;
    struct zc_fetch_src *src;
    struct zc_fetch_src_stats s;
    struct zc_object *node, *reader, *again;
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    world_object(w, 0, 1);
    assert_int_equal(zc_object_open_for_node(w->fetch, src, w->path, "v", SIZE, &node), 0);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", SIZE, &reader), 0);
    assert_int_equal(zc_fetch_src_close(src, false), -EBUSY);
    zc_object_close(reader);
    assert_int_equal(zc_fetch_src_close(src, false), 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", SIZE, &reader), -ESTALE);
    /* The same source again: what is open goes on with it. */
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", SIZE, &again), 0);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 1);
    zc_object_close_for_node(node);
    zc_object_close(again);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 0);
}

/* Hundreds who ask for nonsense or for nothing: one who asks for bytes gets them. */
static void test_server_flooded(void **state)
{
    struct world *w = *state;
    struct zc_fetch_src *src;
    char target[512];
    int idle[300];
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = ABSENT;
    world_object(w, 0, 1);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++) {
        idle[i] = dial(w);
        if (i % 2)
            ht_write(idle[i], "GET /v1/data?source=aaaaaaaaaaaaaa", 33);
    }
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=0&len=%llu", w->path,
             (unsigned long long)SIZE, (unsigned long long)SIZE);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask_target(w, target), 206);
    /* The first word came before the bytes did. */
    unsigned once = (SIZE + CT_CHUNK - 1) / CT_CHUNK;
    for (int i = 0; i < 1000 && mem_requests(w->mem) < once; i++)
        usleep(10000);
    usleep(100000);
    assert_int_equal(mem_requests(w->mem), once);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        close(idle[i]);
}

/* ------------------------------------------------------------------ heat */

static void test_heat(void **state)
{
    struct peer_heat h;
    struct peer_hot t;
    int64_t now = ZC_NS_PER_S;
    unsigned hot = 0;
    peer_heat_init(&h);
    /* Little was given: nothing is hot, however much of it. */
    assert_int_equal(peer_heat_add(&h, 1, 32 << 20, now), 1);
    /* A thousand keys of equal weight, and one that is a third of all. */
    for (uint64_t i = 0; i < 20000; i++) {
        unsigned cold = peer_heat_add(&h, 100 + i * 7919 % 1000, 1 << 20, now);
        if (i % 2 == 0)
            hot = peer_heat_add(&h, 1, 1 << 20, now);
        assert_true(i < 2000 || cold == 1);
        now += ZC_NS_PER_S / 1000;
    }
    assert_in_range(hot, 6, 8);
    /* It fades. */
    now += 120 * ZC_NS_PER_S;
    for (uint64_t i = 0; i < 200; i++)
        peer_heat_add(&h, 1000000 + i, 1 << 20, now);
    assert_int_equal(peer_heat_add(&h, 1, 1 << 20, now), 1);
    peer_heat_free(&h);

    peer_hot_init(&t);
    peer_hot_set(&t, 5, 4, now);
    assert_int_equal(peer_hot_get(&t, 5, now), 4);
    assert_int_equal(peer_hot_get(&t, 6, now), 1);
    assert_int_equal(peer_hot_get(&t, 5, now + PEER_REPLICAS_NS), 1);
    peer_hot_free(&t);
}

/* Is the connection closed by the server within so long? */
static bool hung_up(int fd, int seconds)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, seconds * 1000) == 1 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* Who connects and says nothing does not stay; who has asked something may. And no address has all
   connections. */
static void test_server_strangers(void **state)
{
    static int idle[1100];
    struct world *w = *state;
    int known = dial(w), stranger = dial(w);
    char buf[512];
    const char *text = "GET /v1/none HTTP/1.1\r\nHost: x\r\n\r\n";
    ht_write(known, text, strlen(text));
    assert_true(recv(known, buf, sizeof(buf), 0) > 12);
    assert_true(hung_up(stranger, 40));
    assert_false(hung_up(known, 3));
    close(stranger);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        idle[i] = dial(w);
    assert_true(hung_up(idle[ZC_ARRAY_SIZE(idle) - 1], 5));
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        close(idle[i]);
    close(known);
}

/* Bodies that nobody asked for, and questions to the daemon that are too long. */
static void test_server_bodies(void **state)
{
    struct world *w = *state;
    size_t n = (16 << 20) + 100000;
    char *text = malloc(n + 200);
    memset(text, 'x', n + 200);
    text[sprintf(text, "GET /v1/none HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n)] = 'x';
    assert_int_equal(ask_raw(w, text, n + 200), 404);
    text[sprintf(text, "POST /v1/ask/a HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n)] =
        'x';
    assert_int_equal(ask_raw(w, text, n + 200), 413);
    free(text);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_owner_of_each_kind),
        T(test_all_of_each_kind),
        T(test_gone),
        T(test_comes_back),
        T(test_own),
        T(test_cancel),
        T(test_server_refuses),
        T(test_server_refuses_what_cannot_be),
        T(test_server_gives),
        T(test_server_finds_flipped_bits),
        T(test_server_keeps_no_source),
        T(test_server_flooded),
        cmocka_unit_test(test_heat),
        T(test_server_strangers),
        T(test_server_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
