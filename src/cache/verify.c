/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking what an unclean end left. The index then says what should be there; an object is read
 * back and compared with its sums when it is first held, so that a mount does not wait for
 * terabytes to be read.
 */
#include "cache/cache_priv.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#define VERIFY_BLOCK ZC_MIB

static int verify_chunk(struct zc_cache *c, struct zc_objid id, int fd, uint64_t off, uint64_t len,
                        uint32_t chunk, struct zc_hasher *h, uint8_t *block)
{
    struct zc_digest want;
    int r = index_get_sum(c->index, id, chunk, &want);
    if (r <= 0)
        return r == -EBADMSG ? 0 : r;
    zc_hasher_reset(h, c->seed);
    for (uint64_t at = 0; at < len;) {
        ssize_t n = pread(fd, block, ZC_MIN(len - at, VERIFY_BLOCK), (off_t)(off + at));
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        zc_hasher_add(h, block, (size_t)n);
        at += (uint64_t)n;
    }
    atomic_fetch_add(&c->checked_chunks, 1);
    if (zc_digest_eq(want, zc_hasher_digest(h)))
        return 1;
    char name[STORE_NAME_MAX];
    atomic_fetch_add(&c->bad_chunks, 1);
    zc_warn("%s/%s: chunk %u is not what was written", c->store->path, store_file_name(id, name),
            chunk);
    return 0;
}

int verify_file(struct zc_cache *c, struct zc_objid id, int fd, uint64_t size, const uint64_t *bits)
{
    zc_autofree uint8_t *block = malloc(VERIFY_BLOCK);
    struct zc_hasher *h = zc_hasher_new(c->seed);
    int r = block && h ? 1 : -ENOMEM;
    uint32_t n = cache_nchunks(size, c->shift);
    for (uint32_t i = 0; i < n && r == 1; i++) {
        if (!bits || bits[i / 64] >> i % 64 & 1)
            r = verify_chunk(c, id, fd, (uint64_t)i << c->shift, cache_chunk_len(size, c->shift, i),
                             i, h, block);
    }
    zc_hasher_free(h);
    return r;
}

/* 1: the file is to go. Its record goes below, for it is not seen. */
static int verify_entry(void *user, struct zc_objid id, const struct stat *st)
{
    struct zc_cache *c = user;
    uint32_t n = table_find(&c->table, id);
    if (n == SLOT_NONE)
        return 1;
    struct slot *s = table_slot(&c->table, n);
    if ((uint64_t)st->st_size != s->size)
        return 1;
    if (!(s->flags & SLOT_COMPLETE)) {
        zc_autoclose int fd = store_file_open(c->store, id, O_RDWR);
        if (fd < 0 || cache_punch(fd, s->size, c->shift, slot_bits(s, c->shift)) < 0)
            return 1;
    }
    s->flags |= SLOT_SEEN;
    return 0;
}

int verify_folder(struct zc_cache *c)
{
    int r = store_scan(c->store, verify_entry, c);
    if (r < 0)
        return r;
    for (uint32_t n = 0; n < c->table.top; n++) {
        struct slot *s = table_slot(&c->table, n);
        if (!s->used || s->flags & SLOT_SEEN)
            continue;
        budget_give(c, s->bytes);
        cache_doom(c, n);
        cache_forget(c, n, true);
    }
    return 0;
}
