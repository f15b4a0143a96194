/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer whose bytes are still arriving: frames, each sent as soon as its bytes are here. While
 * there is nothing to send the connection is suspended, so that it costs no thread; a flight that
 * lands resumes it, and four times a second a timer does, to send a tick.
 *
 * Who waits here waits for bytes that come from the store (or, when the owner sent the asker here,
 * from wherever they come). What is on its way from another node is not waited for otherwise: that
 * node may be waiting for this one. As the flights may change while somebody waits, each tick looks
 * again.
 */
#include "peer/peer_priv.h"

#include <errno.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>

#define STREAM_TICK_NS (250 * ZC_NS_PER_MS)
#define STREAM_FILLING 128 /* at a time: each has memory for a frame */

struct peer_stream {
    struct zc_list link; /* server->streams */
    struct peer_server *s;
    struct MHD_Connection *conn;
    struct zc_object *o;
    struct peer_child *child;
    atomic_uint refs; /* the response's, the waiter's, the timer's */
    uint64_t off, end, pos;
    enum zc_reach reach;
    enum zc_prio prio;
    unsigned loop;
    struct zc_waiter waiter;
    uint8_t *frame;
    size_t have, sent; /* of the frame */

    pthread_mutex_t lock;
    bool waiting;   /* for [pos, piece) */
    bool ready;     /* it came, or failed with err */
    bool suspended; /* the connection */
    bool tick, timer;
    bool over; /* the last frame was made, or nobody receives any more */
    int err;
};

static void stream_unref(struct peer_stream *st)
{
    if (atomic_fetch_sub(&st->refs, 1) != 1)
        return;
    pthread_mutex_destroy(&st->lock);
    free(st->frame);
    free(st);
}

/* Under st->lock, with which it was suspended, too: whoever ends the server finds each connection
   either suspended or resumed, and none in between (MHD_stop_daemon aborts when one is left). */
static void stream_resume(struct peer_stream *st)
{
    if (st->suspended)
        MHD_resume_connection(st->conn);
    st->suspended = false;
}

static void stream_arrived(struct zc_waiter *w, int err)
{
    struct peer_stream *st = zc_container_of(w, struct peer_stream, waiter);
    pthread_mutex_lock(&st->lock);
    st->ready = true;
    st->err = err;
    stream_resume(st);
    pthread_mutex_unlock(&st->lock);
    stream_unref(st);
}

/* Where the frame ends that begins at pos. */
static uint64_t stream_piece(const struct peer_stream *st)
{
    return ZC_MIN((st->pos / PEER_FRAME_MAX + 1) * PEER_FRAME_MAX, st->end);
}

/* 1: the next piece is here; 0: it will be; negative: it will not. */
static int stream_want(struct peer_stream *st)
{
    pthread_mutex_lock(&st->lock);
    st->waiting = true;
    st->ready = false;
    st->err = 0;
    pthread_mutex_unlock(&st->lock);
    atomic_fetch_add(&st->refs, 1);
    int r = zc_object_want_for_node(st->o, st->pos, stream_piece(st) - st->pos, st->reach, st->prio,
                                    &st->waiter);
    if (r == 0)
        return 0;
    pthread_mutex_lock(&st->lock);
    st->waiting = false;
    pthread_mutex_unlock(&st->lock);
    stream_unref(st);
    return r;
}

/* ------------------------------------------------------------------ ticks */

/* The object is open for as long as the stream is not over. */
static void stream_ticks(void *arg, bool net_ends)
{
    struct peer_stream *st = arg;
    pthread_mutex_lock(&st->lock);
    st->timer = false;
    if (!st->over && st->suspended) {
        st->tick = true;
        if (zc_object_abroad(st->o, st->off, st->end - st->off, st->reach))
            st->err = -EBUSY; /* a circle */
        stream_resume(st);
    }
    pthread_mutex_unlock(&st->lock);
    stream_unref(st);
}

/* Under st->lock. */
static void stream_timer(struct peer_stream *st)
{
    if (st->timer)
        return;
    st->timer = true;
    atomic_fetch_add(&st->refs, 1);
    if (zc_net_timer(st->s->p->net, st->loop, STREAM_TICK_NS, stream_ticks, st) < 0) {
        st->timer = false;
        stream_unref(st);
    }
}

/* ------------------------------------------------------------------ frames */

static void stream_frame(struct peer_stream *st, enum peer_frame_kind kind, uint32_t len,
                         struct zc_digest sum)
{
    struct peer_frame f = {.len = len, .kind = kind, .sum = sum};
    peer_frame_store(st->frame, &f);
    st->have = PEER_FRAME_HEAD + len;
    st->sent = 0;
    if (kind == PEER_FRAME_END || kind == PEER_FRAME_FAILED) {
        pthread_mutex_lock(&st->lock);
        st->over = true;
        pthread_mutex_unlock(&st->lock);
    }
}

/* The piece is here. False: it is gone again. */
static bool stream_take(struct peer_stream *st)
{
    size_t n = (size_t)(stream_piece(st) - st->pos);
    uint8_t *bytes = st->frame + PEER_FRAME_HEAD;
    int r = peer_checked_read(&st->s->checked, st->o, st->s->p->cfg.seed, bytes, st->pos, n);
    if (r == -EAGAIN)
        return false;
    if (r < 0) {
        stream_frame(st, PEER_FRAME_FAILED, 0, (struct zc_digest){0});
        return true;
    }
    uint64_t seed = peer_frame_seed(zc_object_id(st->o).id, st->pos);
    stream_frame(st, PEER_FRAME_DATA, (uint32_t)n, zc_digest_of(seed, bytes, n));
    st->pos += n;
    peer_count(&st->s->p->bytes_out, n);
    return true;
}

/* Makes the next frame. False: there is nothing to send now; the connection was suspended. */
static bool stream_next(struct peer_stream *st)
{
    for (;;) {
        pthread_mutex_lock(&st->lock);
        bool tick = st->tick, waits = st->waiting && !st->ready && st->err == 0;
        int err = st->err;
        st->tick = false;
        if (waits && st->s->stopping) {
            waits = false;
            err = -ESHUTDOWN;
        } else if (waits && !tick) {
            st->suspended = true;
            stream_timer(st);
            MHD_suspend_connection(st->conn);
        }
        if (!waits && st->ready)
            st->waiting = false;
        pthread_mutex_unlock(&st->lock);
        if (tick && waits) {
            stream_frame(st, PEER_FRAME_TICK, 0, (struct zc_digest){0});
            return true;
        }
        if (waits)
            return false;
        if (err < 0) {
            stream_frame(st, PEER_FRAME_FAILED, 0, (struct zc_digest){0});
            return true;
        }
        if (st->pos == st->end) {
            stream_frame(st, PEER_FRAME_END, 0, (struct zc_digest){0});
            return true;
        }
        int r = stream_want(st);
        if (r < 0) {
            stream_frame(st, PEER_FRAME_FAILED, 0, (struct zc_digest){0});
            return true;
        }
        if (r == 1 && stream_take(st))
            return true;
    }
}

static ssize_t stream_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct peer_stream *st = cls;
    if (st->sent == st->have) {
        pthread_mutex_lock(&st->lock);
        bool over = st->over;
        pthread_mutex_unlock(&st->lock);
        if (over)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!stream_next(st))
            return 0;
    }
    size_t n = ZC_MIN(max, st->have - st->sent);
    memcpy(buf, st->frame + st->sent, n);
    st->sent += n;
    return (ssize_t)n;
}

static void stream_free(void *cls)
{
    struct peer_stream *st = cls;
    struct peer_server *s = st->s;
    pthread_mutex_lock(&s->lock);
    zc_list_del(&st->link);
    pthread_mutex_unlock(&s->lock);
    peer_child_free(s, st->child);
    pthread_mutex_lock(&st->lock);
    st->over = true;
    pthread_mutex_unlock(&st->lock);
    if (zc_object_forget(st->o, &st->waiter))
        stream_unref(st);
    /* Those that wait elsewhere for what is on its way keep it going by waits of their own. */
    zc_object_close_for_node(st->o);
    atomic_fetch_sub(&s->filling, 1);
    stream_unref(st);
}

/* ------------------------------------------------------------------ beginning */

static enum MHD_Result stream_refuse(struct MHD_Connection *conn, unsigned status)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_queue_response(conn, status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result stream_send(struct peer_stream *st)
{
    struct MHD_Response *r = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, PEER_FRAME_HEAD + PEER_FRAME_MAX, stream_read, st, stream_free);
    if (!r) {
        stream_free(st);
        return MHD_NO;
    }
    peer_answer_head(st->s, r, st->o, "filling", st->off, st->end - st->off);
    peer_count(&st->s->p->served, 1);
    enum MHD_Result ok = MHD_queue_response(st->conn, MHD_HTTP_PARTIAL_CONTENT, r);
    MHD_destroy_response(r);
    return ok;
}

int peer_stream_answer(struct peer_server *s, struct MHD_Connection *conn, struct zc_object *o,
                       const struct peer_request *r, struct peer_child *child)
{
    bool room = atomic_fetch_add(&s->filling, 1) < STREAM_FILLING;
    struct peer_stream *st = room ? calloc(1, sizeof(*st)) : NULL;
    if (st)
        st->frame = malloc(PEER_FRAME_HEAD + PEER_FRAME_MAX);
    if (!st || !st->frame) {
        free(st);
        atomic_fetch_sub(&s->filling, 1);
        peer_child_free(s, child);
        zc_object_close_for_node(o);
        peer_count(&s->p->refused, 1);
        return stream_refuse(conn, MHD_HTTP_SERVICE_UNAVAILABLE);
    }
    st->s = s;
    st->conn = conn;
    st->o = o;
    st->child = child;
    st->refs = 1;
    st->off = st->pos = r->off;
    st->end = r->off + r->len;
    st->reach = r->reach;
    st->prio = r->prio;
    st->loop = (unsigned)(r->off / PEER_FRAME_MAX);
    st->tick = true; /* the first word, at once */
    zc_list_init(&st->waiter.link);
    st->waiter.done = stream_arrived;
    pthread_mutex_init(&st->lock, NULL);
    pthread_mutex_lock(&s->lock);
    zc_list_push_back(&s->streams, &st->link);
    pthread_mutex_unlock(&s->lock);
    if (st->reach >= ZC_REACH_OWNER)
        zc_object_fetch_for_node(o, r->off, r->len, r->reach, r->prio, r->exact);
    int e = stream_want(st);
    if (e == 1)
        st->tick = false; /* the bytes are the first word */
    if (e < 0) {
        stream_free(st);
        return stream_refuse(conn, e == -EBUSY    ? MHD_HTTP_CONFLICT
                                   : e == -ENOENT ? MHD_HTTP_NOT_FOUND
                                                  : MHD_HTTP_INTERNAL_SERVER_ERROR);
    }
    return stream_send(st);
}

/* Those that it does not find suspended see `stopping` before they are. */
void peer_streams_end(struct peer_server *s)
{
    pthread_mutex_lock(&s->lock);
    zc_list_for_each (it, &s->streams) {
        struct peer_stream *st = zc_list_entry(it, struct peer_stream, link);
        pthread_mutex_lock(&st->lock);
        stream_resume(st);
        pthread_mutex_unlock(&st->lock);
    }
    pthread_mutex_unlock(&s->lock);
}
