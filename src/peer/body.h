/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The body of an answer that promises bytes. They are held back until the sum of their piece was
 * checked: a piece is a chunk where the node knew the sums before it sent anything, and a frame
 * where it passes on what is only just arriving.
 *
 * Threads: one at a time.
 */
#ifndef ZC_PEER_BODY_H
#define ZC_PEER_BODY_H

#include "peer/wire.h"

struct peer_body {
    const struct peer_answer *answer; /* checked; lives as long as this */
    uint64_t seed;                    /* of the sums of pieces */
    int (*deliver)(void *user, const void *p, size_t n);
    void *user;
    uint64_t pos;    /* bytes delivered */
    int64_t data_ns; /* when that was last, or when it began */
    int64_t tick_ns; /* when it said last that it waits itself; 0: never */
    bool bad;        /* it is not what was promised */
    bool ended;      /* frames: the last one was seen */
    /* What is not whole yet. */
    uint8_t *piece;
    size_t have, cap;
    struct peer_frame frame;
    bool in_frame;
};

void peer_body_init(struct peer_body *b, const struct peer_answer *answer, uint64_t seed,
                    int (*deliver)(void *user, const void *p, size_t n), void *user);
/* The next bytes of it, cut anywhere. -EBADMSG (and bad), -EIO when the node says that it failed,
   -ENOMEM, or what deliver returned. */
int peer_body_data(struct peer_body *b, const void *p, size_t n);
/* Has all come that was promised? False before peer_body_init. */
bool peer_body_whole(const struct peer_body *b);
void peer_body_free(struct peer_body *b);

#endif
