/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Checking what an unclean end left. The index then says what should be there; an object is read
 * back and compared with its sums when it is first held, so that a mount does not wait for
 * terabytes to be read. Nor does an open: of a large object each chunk is checked before its first
 * use.
 */
#include "cache/cache_priv.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioprio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#define VERIFY_BLOCK ZC_MIB
#define VERIFY_AT_ONCE_CHUNKS 16
#define VERIFY_AT_ONCE (64 * ZC_MIB)
#ifndef RWF_DONTCACHE
#define RWF_DONTCACHE 0x80 /* Linux 6.14 */
#endif

/* Reads like pread(2), and if gentle leaves the page cache as it was where the kernel can do that.
 */
static ssize_t verify_read(int fd, uint8_t *p, size_t n, off_t off, bool gentle)
{
    if (gentle) {
        ssize_t r =
            preadv2(fd, &(struct iovec){.iov_base = p, .iov_len = n}, 1, off, RWF_DONTCACHE);
        if (r >= 0 || (errno != EOPNOTSUPP && errno != EINVAL))
            return r;
    }
    return pread(fd, p, n, off);
}

/* What one reading back needs. */
struct verify {
    struct zc_cache *c;
    struct zc_objid id;
    int fd;
    uint64_t size;
    bool (*give_up)(struct zc_cache *c, void *user);
    void *user;
    struct zc_hasher *h;
    uint8_t *block;
};

static int verify_chunk(struct verify *v, uint32_t chunk)
{
    struct zc_cache *c = v->c;
    struct zc_digest want;
    uint64_t off = (uint64_t)chunk << c->shift, len = cache_chunk_len(v->size, c->shift, chunk);
    int r = index_get_sum(c->index, v->id, chunk, &want);
    if (r == 0) { /* it may be on its way there */
        index_flush(c->index);
        r = index_get_sum(c->index, v->id, chunk, &want);
    }
    if (r <= 0)
        return r == -EBADMSG ? 0 : r;
    zc_hasher_reset(v->h, c->seed);
    for (uint64_t at = 0; at < len;) {
        if (v->give_up && v->give_up(c, v->user))
            return -EAGAIN;
        ssize_t n = verify_read(v->fd, v->block, ZC_MIN(len - at, VERIFY_BLOCK), (off_t)(off + at),
                                v->give_up != NULL);
        if (n < 0)
            return -errno;
        if (n == 0)
            return 0;
        zc_hasher_add(v->h, v->block, (size_t)n);
        at += (uint64_t)n;
    }
    atomic_fetch_add(&c->checked_chunks, 1);
    if (zc_digest_eq(want, zc_hasher_digest(v->h)))
        return 1;
    char name[STORE_NAME_MAX];
    atomic_fetch_add(&c->bad_chunks, 1);
    zc_warn("%s/%s: chunk %u is not what was written", c->store->path, store_file_name(v->id, name),
            chunk);
    return 0;
}

bool verify_at_once(const struct zc_cache *c, uint64_t size)
{
    return size <= c->chunk_size ||
           (size <= VERIFY_AT_ONCE && size <= VERIFY_AT_ONCE_CHUNKS * c->chunk_size);
}

int zc_cobj_check(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk)
{
    zc_autofree uint8_t *block = malloc(VERIFY_BLOCK);
    struct verify v = {.c = c,
                       .id = o->id,
                       .fd = o->fd,
                       .size = o->size,
                       .h = zc_hasher_new(c->seed),
                       .block = block};
    int r = block && v.h ? verify_chunk(&v, chunk) : -ENOMEM;
    zc_hasher_free(v.h);
    return r;
}

bool zc_cobj_doubted(const struct zc_cobj *o)
{
    return o->doubted;
}

void zc_cobj_trust(struct zc_cache *c, struct zc_cobj *o)
{
    pthread_mutex_lock(&c->lock);
    if (o->doubted && o->slot != SLOT_NONE) {
        table_slot(&c->table, o->slot)->flags &= ~(uint32_t)SLOT_DOUBTED;
        c->doubted--;
    }
    o->doubted = false;
    pthread_mutex_unlock(&c->lock);
}

int verify_file(struct zc_cache *c, struct zc_objid id, int fd, uint64_t size, const uint64_t *bits,
                bool (*give_up)(struct zc_cache *c, void *user), void *user)
{
    zc_autofree uint8_t *block = malloc(VERIFY_BLOCK);
    struct verify v = {.c = c,
                       .id = id,
                       .fd = fd,
                       .size = size,
                       .give_up = give_up,
                       .user = user,
                       .h = zc_hasher_new(c->seed),
                       .block = block};
    int r = block && v.h ? 1 : -ENOMEM;
    uint32_t n = cache_nchunks(size, c->shift);
    for (uint32_t i = 0; i < n && r == 1; i++) {
        if (!bits || bits[i / 64] >> i % 64 & 1)
            r = verify_chunk(&v, i);
    }
    zc_hasher_free(v.h);
    return r;
}

/* ------------------------------------------------------------------ ahead of readers */

static bool verify_wanted(struct zc_cache *c, void *user)
{
    struct slot *s = user;
    pthread_mutex_lock(&c->lock);
    bool wanted = c->stop || s->flags & SLOT_WANTED;
    pthread_mutex_unlock(&c->lock);
    return wanted;
}

/* Called with the lock, returns with it, lets go of it meanwhile. */
static void verify_slot(struct zc_cache *c, uint32_t n)
{
    struct slot *s = table_slot(&c->table, n);
    struct zc_objid id = s->id;
    struct stat st;
    const uint64_t *bits = s->flags & SLOT_COMPLETE ? NULL : slot_bits(s, c->shift);
    s->flags |= SLOT_BUSY;
    pthread_mutex_unlock(&c->lock);
    int r;
    {
        zc_autoclose int fd = store_file_open(c->store, id, O_RDONLY);
        if (fd < 0)
            r = fd == -ENOENT ? 0 : fd;
        else if (fstat(fd, &st) < 0)
            r = -errno;
        else
            r = (uint64_t)st.st_size == s->size
                    ? verify_file(c, id, fd, s->size, bits, verify_wanted, s)
                    : 0;
    }
    pthread_mutex_lock(&c->lock);
    if (r == 0 || r == -EIO) {
        budget_evict(c, n);
        return;
    }
    if (r == 1) {
        s->flags &= ~(uint32_t)SLOT_DOUBTED;
        c->doubted--;
    }
    s->flags &= ~(uint32_t)(SLOT_BUSY | SLOT_WANTED);
    pthread_cond_broadcast(&c->changed);
}

static void *verify_main(void *arg)
{
    struct zc_cache *c = arg;
    /* lowest of everything; it is no harm if that is refused */
    syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_PRIO_VALUE(IOPRIO_CLASS_IDLE, 0));
    setpriority(PRIO_PROCESS, (id_t)syscall(SYS_gettid), 19);
    pthread_mutex_lock(&c->lock);
    for (uint32_t n = 0; n < c->table.top && c->doubted && !c->stop; n++) {
        uint32_t flags = table_slot(&c->table, n)->flags;
        if ((flags & (SLOT_DOUBTED | SLOT_BUSY | SLOT_HELD)) == SLOT_DOUBTED)
            verify_slot(c, n);
    }
    uint64_t left = c->doubted;
    pthread_mutex_unlock(&c->lock);
    zc_info("%s: checked after an unclean end: %llu chunks, %llu of them bad; %llu objects left",
            c->store->path, (unsigned long long)c->checked_chunks,
            (unsigned long long)c->bad_chunks, (unsigned long long)left);
    return NULL;
}

int verify_start(struct zc_cache *c)
{
    if (c->doubted == 0)
        return 0;
    int rc = pthread_create(&c->verifier, NULL, verify_main, c);
    c->verifier_runs = rc == 0;
    return -rc;
}

/* ------------------------------------------------------------------ at the start */

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
        index_throttle(c->index);
        budget_give(c, s->bytes);
        cache_doom(c, n);
        cache_forget(c, n, true);
    }
    return 0;
}
