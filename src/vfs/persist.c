/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings in the index, so that a remount with --keep-cache need not ask the store for what is
 * young enough, nor at all for a frozen data set.
 *
 * A page: "ZL1\0", or "ZLE\0" for the last one of a listing, wall time of the listing (u64, ns),
 * then entries until the end: u8 flags (1 directory), u16 name length, u16 version length, u64
 * size, i64 mtime (ns), u32 mode, u32 uid, u32 gid, name, version. Integers are little endian.
 * Pages are at most PAGE_BYTES and a little long. A listing without its last page was cut short by
 * a crash: not used.
 */
#include "base/buf.h"
#include "vfs/internal.h"

#include <endian.h>
#include <errno.h>
#include <string.h>

#define PAGE_BYTES ((size_t)60 << 10)
#define PAGE_MAGIC "ZL1"
#define PAGE_LAST "ZLE"

struct zc_digest vfs_listing_key(struct zc_vfs *v, const struct vfs_dir *d)
{
    uint64_t source = zc_hash64(1, d->src->identity, strlen(d->src->identity));
    return zc_digest_of(source, d->path, strlen(d->path));
}

static void put(struct zc_buf *b, uint64_t value, size_t bytes)
{
    uint64_t le = htole64(value);
    zc_buf_add(b, &le, bytes);
}

static uint64_t get(const uint8_t *p, size_t bytes)
{
    uint64_t le = 0;
    memcpy(&le, p, bytes);
    return le64toh(le);
}

#define ENTRY_FIXED 33

static void page_entry(struct zc_vfs *v, struct zc_buf *b, const struct vfs_entry *e)
{
    size_t vlen = strlen(e->version);
    struct vfs_owner o;
    pthread_mutex_lock(&v->owners_lock);
    o = v->owners[e->owner];
    pthread_mutex_unlock(&v->owners_lock);
    put(b, e->flags & VFS_DIR, 1);
    put(b, e->name_len, 2);
    put(b, vlen, 2);
    put(b, e->size, 8);
    put(b, (uint64_t)e->mtime_ns, 8);
    put(b, o.mode, 4);
    put(b, o.uid, 4);
    put(b, o.gid, 4);
    zc_buf_add(b, e->name, e->name_len);
    zc_buf_add(b, e->version, vlen);
}

int vfs_page_decode(const uint8_t *p, size_t n, int64_t *wall_ns,
                    int (*fn)(void *user, const char *name, const struct zc_attr *a), void *user)
{
    char name[256], version[ZC_VERSION_MAX + 1];
    if (n < 12 || (memcmp(p, PAGE_MAGIC, 4) != 0 && memcmp(p, PAGE_LAST, 4) != 0))
        return -EBADMSG;
    *wall_ns = (int64_t)get(p + 4, 8);
    p += 12;
    n -= 12;
    while (n) {
        if (n < ENTRY_FIXED)
            return -EBADMSG;
        size_t nlen = get(p + 1, 2), vlen = get(p + 3, 2);
        if (p[0] > 1 || nlen == 0 || nlen > 255 || vlen > ZC_VERSION_MAX ||
            n - ENTRY_FIXED < nlen + vlen)
            return -EBADMSG;
        struct zc_attr a = {
            .kind = p[0] ? ZC_KIND_DIR : ZC_KIND_FILE,
            .size = get(p + 5, 8),
            .mtime_ns = (int64_t)get(p + 13, 8),
            .mode = (uint32_t)get(p + 21, 4),
            .uid = (uint32_t)get(p + 25, 4),
            .gid = (uint32_t)get(p + 29, 4),
            .version = version,
        };
        p += ENTRY_FIXED;
        memcpy(name, p, nlen);
        name[nlen] = '\0';
        memcpy(version, p + nlen, vlen);
        version[vlen] = '\0';
        if (memchr(name, '/', nlen) || memchr(name, '\0', nlen) || memchr(version, '\0', vlen) ||
            strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
            return -EBADMSG;
        int r = fn(user, name, &a);
        if (r < 0)
            return r;
        p += nlen + vlen;
        n -= ENTRY_FIXED + nlen + vlen;
    }
    return 0;
}

void vfs_persist(struct zc_vfs *v, struct vfs_dir *d)
{
    if (!v->cfg.keep_listings || d->src->cfg.ttl_ns == 0)
        return;
    struct zc_digest key = vfs_listing_key(v, d);
    zc_autobuf struct zc_buf b = {0};
    uint64_t now = (uint64_t)zc_wall_ns();
    uint32_t page = 0, i = 0;
    bool more = true;

    zc_cache_drop_listing(v->cache, key);
    while (more) {
        zc_buf_reset(&b);
        zc_buf_add(&b, PAGE_MAGIC, 4);
        put(&b, now, 8);
        pthread_mutex_lock(&d->lock);
        for (; i < d->n && b.len < PAGE_BYTES; i++) {
            if (!(d->entries[i].flags & VFS_GONE))
                page_entry(v, &b, &d->entries[i]);
        }
        more = i < d->n;
        pthread_mutex_unlock(&d->lock);
        if (!more && !b.failed)
            memcpy(b.p, PAGE_LAST, 4);
        if (b.failed || zc_cache_put_listing(v->cache, key, page++, b.p, b.len) < 0)
            return;
    }
}

struct restore {
    struct zc_vfs *v;
    struct vfs_dir *d;
    int64_t wall;  /* when it was kept, of all pages */
    uint32_t next; /* page */
    bool whole;    /* the last page was there */
};

static int restore_entry(void *user, const char *name, const struct zc_attr *a)
{
    struct restore *r = user;
    uint32_t index;
    return vfs_dir_merge(r->v, r->d, name, a, &index);
}

/* A listing that is kept while it is dropped, or kept twice at a time, may have lost its first
   pages or be of two: it is none. */
static int restore_page(void *user, uint32_t page, const void *p, size_t n)
{
    struct restore *r = user;
    int64_t wall = 0;
    int err = vfs_page_decode(p, n, &wall, restore_entry, r);
    if (err < 0)
        return err;
    if (page != r->next || (page && wall != r->wall) || r->whole)
        return -EBADMSG;
    r->next++;
    r->wall = wall;
    r->whole = memcmp(p, PAGE_LAST, 4) == 0;
    return 0;
}

bool vfs_restore(struct zc_vfs *v, struct vfs_dir *d)
{
    struct restore r = {.v = v, .d = d};
    bool ok = false;
    /* The directory's lock is held over the index's read transaction: a page cache look-up, seldom
     * more. */
    pthread_mutex_lock(&d->lock);
    if (d->state == VFS_UNLISTED && !d->listing) {
        int err = zc_cache_get_listing(v->cache, vfs_listing_key(v, d), restore_page, &r);
        int64_t age = zc_wall_ns() - r.wall;
        ok = err == 0 && r.whole && age >= 0 &&
             (d->src->cfg.ttl_ns == ZC_TTL_INDEFINITE || age < d->src->cfg.ttl_ns);
        if (ok) {
            vfs_dir_sweep(v, d);
            d->state = VFS_LISTED;
            uint32_t now = vfs_now_s(v),
                     age_s = (uint32_t)ZC_MIN(age / ZC_NS_PER_S, (int64_t)now - 1);
            d->listed_s = now - age_s;
            for (uint32_t i = 0; i < d->n; i++) {
                if (!(d->entries[i].flags & VFS_GONE))
                    d->entries[i].checked_s = d->listed_s;
            }
        } else {
            for (uint32_t i = 0; i < d->n; i++)
                vfs_dir_mark_gone(v, d, i);
        }
    }
    pthread_mutex_unlock(&d->lock);
    return ok;
}
