/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A node's chunks, the store that they come from, and what the node answers about them: what
 * fetch/node.c, peer/server.c and peer/stream.c do, without the bytes.
 */
#include "fetch_sim.h"

#include <errno.h>
#include <math.h>
#include <string.h>

#define TICK_NS (250 * ZC_NS_PER_MS)

static uint8_t zeros[SIM_SEGMENT];

struct sim_stream {
    struct zc_list link; /* sim_chunk.streams */
    struct sim_attempt *t;
    struct peer_child *child;
    uint64_t pos, made, end;
    bool busy, over;
};

/* ------------------------------------------------------------------ the store */

struct store_get {
    struct sim_node *node;
    struct zc_get_req *req;
    uint64_t sent, got;
};

static void store_taken(void *arg, bool ends)
{
    struct store_get *g = arg;
    g->got += SIM_SEGMENT;
    if (g->req->data(g->req, zeros, SIM_SEGMENT) < 0)
        abort();
    if (g->got == g->req->len)
        g->req->done(g->req, 0);
}

static void store_received(void *arg, bool ends)
{
    struct store_get *g = arg;
    sim_cpu(g->node->number, SIM_IN, (unsigned)strtoul(g->req->path, NULL, 10), SIM_CPU_STORE_NS,
            store_taken, g);
}

static void store_sends(void *arg, bool ends)
{
    struct store_get *g = arg;
    sim_from_store(g->node->number, store_received, g);
    g->sent += SIM_SEGMENT;
    if (g->sent < g->req->len)
        sim_after(SIM_STORE_SEGMENT_NS, store_sends, g);
}

static double uniform(uint64_t a, uint64_t b)
{
    return ((double)(sim_random(a, b) >> 12) + 0.5) / 0x1p52;
}

static void store_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct store_get *g = sim_alloc(sizeof(*g));
    unsigned chunk = (unsigned)strtoul(req->path, NULL, 10), n = sim.gets[chunk]++;
    g->node = zc_container_of(be, struct sim_node, store);
    g->req = req;
    double normal =
        sqrt(-2 * log(uniform(chunk, 2 * n + 1))) * cos(2 * M_PI * uniform(chunk, 2 * n + 2));
    double ms = 30 * exp(normal * log(121.0 / 30) / 2.3263);
    sim_after((int64_t)(ms * 1e6) + SIM_STORE_SEGMENT_NS, store_sends, g);
}

static void store_free(struct zc_backend *be)
{
}

static const struct zc_backend_ops store_ops = {
    .name = "sim", .get = store_get, .free = store_free};

void sim_store_init(struct sim_node *n)
{
    n->store = (struct zc_backend){.ops = &store_ops};
}

/* ------------------------------------------------------------------ chunks */

static void stream_next(struct sim_stream *st);

static void chunk_settled(void *arg, bool ends)
{
    ((struct sim_chunk *)arg)->settled = true;
}

static void chunk_read(struct sim_chunk *c)
{
    c->reading = false;
    sim.reads_ns[sim.n_reads++] = sim_now() - c->asked_ns;
    sim.last_ns = sim_now() - ZC_NS_PER_S;
    sim_read(c->node);
}

static int chunk_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct sim_chunk *c = req->base.user;
    c->present += n;
    zc_list_for_each_safe (it, tmp, &c->streams)
        stream_next(zc_list_entry(it, struct sim_stream, link));
    if (c->present == SIM_CHUNK && c->reading)
        chunk_read(c);
    return 0;
}

static void chunk_done(struct zc_get_req *req, int err)
{
    struct sim_chunk *c = req->base.user;
    c->in_flight = false;
    if (err < 0 || c->present != SIM_CHUNK)
        sim.failed++;
    else
        sim_after(SIM_SETTLE_NS, chunk_settled, c);
}

static void chunk_fetch(struct sim_chunk *c, enum zc_reach reach)
{
    if (c->in_flight || c->present == SIM_CHUNK)
        return;
    c->in_flight = true;
    c->req = (struct zc_get_req){.base = {.user = c},
                                 .path = c->path,
                                 .version = "1",
                                 .len = SIM_CHUNK,
                                 .size = SIM_CHUNK,
                                 .owner = reach == ZC_REACH_STORE,
                                 .replica = reach == ZC_REACH_OWNER,
                                 .data = chunk_data,
                                 .done = chunk_done};
    zc_backend_get(sim.set.no_peers ? &c->node->store : c->node->share, &c->req);
}

void sim_read(struct sim_node *n)
{
    if (n->next == n->n_order)
        return;
    struct sim_chunk *c = &n->chunks[n->order[n->next++]];
    c->asked_ns = sim_now();
    c->reading = true;
    if (c->present == SIM_CHUNK)
        chunk_read(c);
    else
        chunk_fetch(c, ZC_REACH_HELD);
}

/* ------------------------------------------------------------------ answers */

static bool chunk_abroad(const struct sim_chunk *c, enum zc_reach reach)
{
    unsigned most = reach == ZC_REACH_STORE   ? ZC_ABROAD_NO
                    : reach == ZC_REACH_OWNER ? ZC_ABROAD_OWNER
                                              : ZC_ABROAD_OTHER;
    return c->in_flight && atomic_load(&c->req.abroad) > most;
}

static void server_says(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    sim_message(t->asked->number, t->asker->number,
                t->status ? sim_attempt_said : sim_attempt_spoke, t);
}

/* A slow node does what it is asked at once, but what it says comes late. */
static void server_say(struct sim_attempt *t, int status)
{
    t->status = status;
    sim_after(t->asked->slow ? SIM_SLOW_NS : 0, server_says, t);
}

static void stream_close(struct sim_stream *st)
{
    if (st->child) {
        zc_list_del(&st->child->link);
        free(st->child);
        st->child = NULL;
    }
    st->over = true;
    zc_list_del(&st->link);
}

static void stream_made(void *arg, bool ends)
{
    struct sim_stream *st = arg;
    st->busy = false;
    if (st->over)
        return;
    sim_send(st->t->flow, PEER_FRAME_MAX);
    st->made += PEER_FRAME_MAX;
    stream_next(st);
}

/* The next frame is made when the one before is on its way, and all its bytes are here. */
static void stream_next(struct sim_stream *st)
{
    if (st->over || st->busy || st->pos == st->end || st->t->flow->queued > PEER_FRAME_MAX ||
        st->t->chunk->present < st->pos + PEER_FRAME_MAX)
        return;
    st->busy = true;
    st->pos += PEER_FRAME_MAX;
    sim_cpu(st->t->asked->number, SIM_OUT, st->t->asker->number, SIM_CPU_OUT_NS, stream_made, st);
}

static void stream_acked(void *arg)
{
    struct sim_attempt *t = arg;
    struct sim_stream *st = t->stream;
    if (!st || st->over)
        return;
    if ((t->hit || st->made == st->end) && t->flow->queued == 0 && t->flow->under_way == 0)
        stream_close(st);
    else if (!t->hit)
        stream_next(st);
}

static void stream_begins(void *arg, bool ends)
{
    struct sim_stream *st = arg;
    st->busy = false;
    stream_next(st);
}

/* What came to be on its way from another node is not waited for. */
static void stream_tick(void *arg, bool ends)
{
    struct sim_stream *st = arg;
    if (st->over || st->pos == st->end)
        return;
    if (chunk_abroad(st->t->chunk, st->t->req.reach)) {
        stream_close(st);
        server_say(st->t, 500);
        return;
    }
    sim_after(TICK_NS, stream_tick, st);
}

static void server_stream(struct sim_attempt *t, struct peer_child *child)
{
    struct sim_stream *st = sim_alloc(sizeof(*st));
    *st = (struct sim_stream){.t = t,
                              .child = child,
                              .pos = t->a.off,
                              .made = t->a.off,
                              .end = t->a.off + t->a.len,
                              .busy = true};
    t->stream = st;
    t->flow = sim_flow(t->asked->number, t->asker->number, sim_attempt_segment, stream_acked, t);
    zc_list_push_back(&t->chunk->streams, &st->link);
    server_say(t, 0);
    sim_after(t->asked->slow ? SIM_SLOW_NS : 0, stream_begins, st);
    sim_after(TICK_NS, stream_tick, st);
}

static void hit_begins(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    if (!t->closed)
        sim_send(t->flow, t->a.len);
}

/* Bytes are about to be given. */
static void server_heat(struct sim_attempt *t)
{
    t->a.answer.replicas =
        peer_heat_add(&t->asked->heat, zc_cluster_key(t->a.object, t->a.off), t->a.len, sim_now());
}

static void server_hit(struct sim_attempt *t, struct peer_child *child)
{
    t->hit = true;
    t->stream = sim_alloc(sizeof(*t->stream));
    *t->stream = (struct sim_stream){.t = t, .child = child, .made = 1, .end = 1};
    zc_list_init(&t->stream->link);
    t->flow = sim_flow(t->asked->number, t->asker->number, sim_attempt_segment, stream_acked, t);
    sim_after(t->asked->slow ? SIM_SLOW_NS : 0, hit_begins, t);
}

static void server_answers(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    struct sim_chunk *c = t->chunk;
    struct peer_child *child;
    if (t->closed)
        return;
    if (c->settled && (t->req.reach == ZC_REACH_HELD)) {
        server_hit(t, NULL);
        return;
    }
    if (t->req.reach == ZC_REACH_HELD) {
        server_say(t, 404);
        return;
    }
    t->a.answer.n_refers =
        peer_referral_place(&t->asked->children, &t->req, t->a.object, &child, t->a.answer.refers);
    if (t->a.answer.n_refers) {
        peer_count(&t->asked->peer.referred, 1);
        server_say(t, 307);
        return;
    }
    if (c->settled) {
        server_heat(t);
        server_hit(t, child);
        return;
    }
    if (t->req.reach >= ZC_REACH_OWNER)
        chunk_fetch(c, t->req.reach);
    bool first = c->present >= t->a.off + PEER_FRAME_MAX;
    int no = first                                              ? 0
             : t->req.reach == ZC_REACH_COMING && !c->in_flight ? 404
             : chunk_abroad(c, t->req.reach)                    ? 409
                                                                : 0;
    if (no) {
        zc_list_del(&child->link);
        free(child);
        server_say(t, no);
        return;
    }
    server_heat(t);
    server_stream(t, child);
}

void sim_server_asked(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    if (!t->asked->dead)
        sim_cpu(t->asked->number, SIM_OUT, t->asker->number, SIM_CPU_ASKED_NS, server_answers, t);
}

void sim_server_closed(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    t->closed = true;
    if (t->flow && t->err < 0)
        t->flow->closed = true;
    if (t->stream && t->got < t->a.len)
        stream_close(t->stream);
}
