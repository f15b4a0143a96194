/* SPDX-License-Identifier: Apache-2.0 */
/* See checked.h. */
#include "peer/checked.h"

#include <errno.h>
#include <string.h>

#define CHECKED_PART_SEED 0x7061727473756d73 /* of the parts' sums, which stay in this process */

struct peer_checked_chunk {
    struct zc_digest object, sum;
    uint32_t chunk;
    uint64_t parts[PEER_CHECKED_PARTS];
};

/* One chunk that is read, part by part. */
struct checked_read {
    struct zc_object *o;
    uint64_t start, end; /* of the chunk */
    uint64_t part;       /* bytes */
    uint8_t *bytes;      /* of a part */
    uint8_t *out;
    uint64_t off, len; /* what goes to out */
};

void peer_checked_init(struct peer_checked *k)
{
    pthread_mutex_init(&k->lock, NULL);
    k->slots = NULL;
}

void peer_checked_free(struct peer_checked *k)
{
    for (unsigned i = 0; k->slots && i < PEER_CHECKED_SLOTS; i++)
        free(k->slots[i]);
    free(k->slots);
    pthread_mutex_destroy(&k->lock);
}

static unsigned checked_slot(const struct peer_checked_chunk *of)
{
    return (unsigned)(zc_hash64(of->object.lo, &of->chunk, sizeof(of->chunk)) % PEER_CHECKED_SLOTS);
}

/* Fills in the parts' sums when the chunk was found right before. */
static bool checked_known(struct peer_checked *k, struct peer_checked_chunk *of)
{
    bool known = false;
    pthread_mutex_lock(&k->lock);
    const struct peer_checked_chunk *had = k->slots ? k->slots[checked_slot(of)] : NULL;
    if (had && zc_digest_eq(had->object, of->object) && had->chunk == of->chunk &&
        zc_digest_eq(had->sum, of->sum)) {
        *of = *had;
        known = true;
    }
    pthread_mutex_unlock(&k->lock);
    return known;
}

/* Without memory it is not remembered. */
static void checked_keep(struct peer_checked *k, const struct peer_checked_chunk *of)
{
    pthread_mutex_lock(&k->lock);
    if (!k->slots)
        k->slots = calloc(PEER_CHECKED_SLOTS, sizeof(*k->slots));
    struct peer_checked_chunk **slot = k->slots ? &k->slots[checked_slot(of)] : NULL;
    if (slot && !*slot)
        *slot = malloc(sizeof(**slot));
    if (slot && *slot)
        **slot = *of;
    pthread_mutex_unlock(&k->lock);
}

/* Reads part i; what was asked for of it is copied out. How long it is, or negative errno. */
static ssize_t checked_part(struct checked_read *r, unsigned i)
{
    uint64_t at = r->start + i * r->part, end = ZC_MIN(at + r->part, r->end);
    if (at >= r->end)
        return 0;
    ssize_t n = zc_object_read(r->o, r->bytes, at, end - at);
    if (n != (ssize_t)(end - at))
        return n < 0 ? n : -EIO;
    uint64_t from = ZC_MAX(at, r->off), to = ZC_MIN(end, r->off + r->len);
    if (from < to)
        memcpy(r->out + (from - r->off), r->bytes + (from - at), to - from);
    return n;
}

/* The parts of a chunk that was found right before. */
static int checked_again(struct checked_read *r, const struct peer_checked_chunk *of)
{
    for (uint64_t i = (r->off - r->start) / r->part; r->start + i * r->part < r->off + r->len;
         i++) {
        ssize_t n = checked_part(r, (unsigned)i);
        if (n < 0)
            return (int)n;
        if (zc_hash64(CHECKED_PART_SEED, r->bytes, (size_t)n) != of->parts[i])
            return -EBADMSG;
    }
    return 0;
}

static int checked_whole(struct checked_read *r, uint64_t seed, struct peer_checked_chunk *of)
{
    struct zc_hasher *h = zc_hasher_new(seed);
    ssize_t n = h ? 0 : -ENOMEM;
    for (unsigned i = 0; i < PEER_CHECKED_PARTS && n >= 0; i++) {
        n = checked_part(r, i);
        if (n <= 0)
            break;
        zc_hasher_add(h, r->bytes, (size_t)n);
        of->parts[i] = zc_hash64(CHECKED_PART_SEED, r->bytes, (size_t)n);
    }
    int e = n < 0 ? (int)n : zc_digest_eq(zc_hasher_digest(h), of->sum) ? 0 : -EBADMSG;
    zc_hasher_free(h);
    return e;
}

/* [off, off + len) lies in one chunk. */
static int checked_chunk(struct peer_checked *k, struct zc_object *o, uint64_t seed, uint8_t *buf,
                         uint64_t off, size_t len)
{
    uint64_t cs = zc_object_chunk_size(o);
    struct peer_checked_chunk of = {.object = zc_object_id(o).id, .chunk = (uint32_t)(off / cs)};
    int r = zc_object_sum(o, of.chunk, &of.sum);
    if (r < 0)
        return r;
    if (r == 0) {
        ssize_t n = zc_object_read(o, buf, off, len);
        return n == (ssize_t)len ? 0 : n < 0 ? (int)n : -EIO;
    }
    struct checked_read read = {.o = o,
                                .start = of.chunk * cs,
                                .part = (cs + PEER_CHECKED_PARTS - 1) / PEER_CHECKED_PARTS,
                                .out = buf,
                                .off = off,
                                .len = len};
    read.end = ZC_MIN(read.start + cs, zc_object_size(o));
    read.bytes = malloc(read.part);
    if (!read.bytes)
        return -ENOMEM;
    if (checked_known(k, &of)) {
        r = checked_again(&read, &of);
    } else {
        r = checked_whole(&read, seed, &of);
        if (r == 0)
            checked_keep(k, &of);
    }
    free(read.bytes);
    if (r == -EBADMSG)
        zc_object_bad(o, of.chunk);
    return r;
}

int peer_checked_read(struct peer_checked *k, struct zc_object *o, uint64_t seed, void *buf,
                      uint64_t off, size_t len)
{
    uint64_t cs = zc_object_chunk_size(o), end = off + len;
    for (uint64_t at = off; at < end;) {
        uint64_t to = ZC_MIN((at / cs + 1) * cs, end);
        int r = checked_chunk(k, o, seed, (uint8_t *)buf + (at - off), at, to - at);
        if (r < 0)
            return r;
        at = to;
    }
    return 0;
}

void peer_checked_forget(struct peer_checked *k, const struct zc_object *o, uint64_t off)
{
    struct peer_checked_chunk of = {.chunk = (uint32_t)(off / zc_object_chunk_size(o)),
                                    .object = zc_object_id(o).id};
    pthread_mutex_lock(&k->lock);
    struct peer_checked_chunk **slot = k->slots ? &k->slots[checked_slot(&of)] : NULL;
    if (slot) {
        free(*slot);
        *slot = NULL;
    }
    pthread_mutex_unlock(&k->lock);
}
