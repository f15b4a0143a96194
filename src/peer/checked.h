/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bytes that leave this node in pieces that are no whole chunk, whose recorded sum says nothing of
 * them: they are read together with the rest of their chunk and compared with its sum, so that what
 * the disk has made of them since is found here and gets no sum of its own.
 *
 * As a reader asks for one piece of a chunk after the other, the sums of the parts of a chunk that
 * was found right (a 64th each) are kept in memory; the pieces after the first are compared with
 * those, and cost what they are long.
 *
 * Threads: any. Blocks for the disk.
 */
#ifndef ZC_PEER_CHECKED_H
#define ZC_PEER_CHECKED_H

#include "fetch/fetch.h"

#include <pthread.h>

#define PEER_CHECKED_PARTS 64
#define PEER_CHECKED_SLOTS 4096 /* chunks remembered: about 600 bytes each */

struct peer_checked_chunk;

struct peer_checked {
    pthread_mutex_t lock;
    struct peer_checked_chunk **slots; /* by a hash of object and chunk; NULL before the first */
};

void peer_checked_init(struct peer_checked *k);
void peer_checked_free(struct peer_checked *k);
/* Reads [off, off + len), which is present. 0; -EBADMSG: a chunk is not what was recorded, and the
   cache has dropped it; -EAGAIN as zc_object_read; -EIO, -ENOMEM. A chunk that has no sum on record
   (yet) is read as it is. seed: of the recorded sums. */
int peer_checked_read(struct peer_checked *k, struct zc_object *o, uint64_t seed, void *buf,
                      uint64_t off, size_t len);
/* The next piece of the chunk at `off` is compared with the recorded sum again. */
void peer_checked_forget(struct peer_checked *k, const struct zc_object *o, uint64_t off);

#endif
