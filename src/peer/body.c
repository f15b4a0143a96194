/* SPDX-License-Identifier: Apache-2.0 */
/* See body.h. */
#include "peer/body.h"

#include <errno.h>
#include <string.h>

static int body_bad(struct peer_body *b)
{
    b->bad = true;
    return -EBADMSG;
}

static int body_deliver(struct peer_body *b, const uint8_t *p, size_t n)
{
    b->pos += n;
    b->data_ns = zc_now_ns();
    return b->deliver(b->user, p, n);
}

/* Where the piece ends that begins at b->pos. */
static size_t hit_piece(const struct peer_body *b)
{
    uint64_t at = b->answer->off + b->pos, grid = b->answer->grid;
    return (size_t)ZC_MIN((at / grid + 1) * grid - at, b->answer->len - b->pos);
}

static int hit_check(struct peer_body *b, const uint8_t *p, size_t n)
{
    uint64_t i = (b->answer->off + b->pos) / b->answer->grid - b->answer->off / b->answer->grid;
    struct zc_digest sum =
        peer_hit_sum(zc_digest_of(b->seed, p, n), b->answer->object, b->answer->off + b->pos);
    if (!zc_digest_eq(sum, b->answer->sums[i]))
        return body_bad(b);
    return body_deliver(b, p, n);
}

/* Room for a piece of `want` bytes. */
static int body_room(struct peer_body *b, size_t want)
{
    if (b->cap >= want)
        return 0;
    uint8_t *more = realloc(b->piece, want);
    if (!more)
        return -ENOMEM;
    b->piece = more;
    b->cap = want;
    return 0;
}

static int hit_data(struct peer_body *b, const uint8_t *p, size_t n)
{
    while (n) {
        if (b->pos >= b->answer->len)
            return body_bad(b);
        size_t want = hit_piece(b);
        if (b->have == 0 && n >= want) {
            int r = hit_check(b, p, want);
            if (r < 0)
                return r;
            p += want;
            n -= want;
            continue;
        }
        if (body_room(b, want) < 0)
            return -ENOMEM;
        size_t take = ZC_MIN(n, want - b->have);
        memcpy(b->piece + b->have, p, take);
        b->have += take;
        p += take;
        n -= take;
        if (b->have == want) {
            int r = hit_check(b, b->piece, want);
            b->have = 0;
            if (r < 0)
                return r;
        }
    }
    return 0;
}

/* A frame is whole, its bytes at p. */
static int frame_take(struct peer_body *b, const uint8_t *p)
{
    struct zc_digest sum;
    switch (b->frame.kind) {
    case PEER_FRAME_TICK:
        b->tick_ns = zc_now_ns();
        return 0;
    case PEER_FRAME_END:
        b->ended = true;
        return 0;
    case PEER_FRAME_FAILED:
        return -EIO;
    default:
        break;
    }
    if (b->frame.len > b->answer->len - b->pos)
        return body_bad(b);
    sum =
        zc_digest_of(peer_frame_seed(b->answer->object, b->answer->off + b->pos), p, b->frame.len);
    if (!zc_digest_eq(sum, b->frame.sum))
        return body_bad(b);
    return body_deliver(b, p, b->frame.len);
}

static int frames_data(struct peer_body *b, const uint8_t *p, size_t n)
{
    while (n) {
        size_t want = b->in_frame ? b->frame.len : PEER_FRAME_HEAD;
        const uint8_t *whole = p;
        if (b->ended)
            return body_bad(b);
        if (b->have || n < want) {
            if (body_room(b, ZC_MAX(want, (size_t)PEER_FRAME_HEAD)) < 0)
                return -ENOMEM;
            size_t take = ZC_MIN(n, want - b->have);
            memcpy(b->piece + b->have, p, take);
            b->have += take;
            p += take;
            n -= take;
            if (b->have < want)
                return 0;
            whole = b->piece;
        } else {
            p += want;
            n -= want;
        }
        b->have = 0;
        if (!b->in_frame && peer_frame_load(whole, &b->frame) < 0)
            return body_bad(b);
        bool head = !b->in_frame;
        b->in_frame = head && b->frame.len > 0;
        if (b->in_frame)
            continue;
        int r = frame_take(b, whole);
        if (r < 0)
            return r;
    }
    return 0;
}

void peer_body_init(struct peer_body *b, const struct peer_answer *answer, uint64_t seed,
                    int (*deliver)(void *user, const void *p, size_t n), void *user)
{
    *b = (struct peer_body){
        .answer = answer, .seed = seed, .deliver = deliver, .user = user, .data_ns = zc_now_ns()};
}

int peer_body_data(struct peer_body *b, const void *p, size_t n)
{
    return b->answer->state == PEER_STATE_HIT ? hit_data(b, p, n) : frames_data(b, p, n);
}

bool peer_body_whole(const struct peer_body *b)
{
    return b->answer && (b->pos == b->answer->len || b->ended) && b->have == 0;
}

void peer_body_free(struct peer_body *b)
{
    free(b->piece);
    b->piece = NULL;
}
