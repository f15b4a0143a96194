/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Opening and reading. MDB_NOSYNC without MDB_WRITEMAP: LMDB then writes with pwrite(2) and never
 * over pages that the last committed state uses, so what a killed process leaves in the page cache
 * is whole; what a lost page cache leaves is found by index_check.c. MDB_NOTLS, because readers are
 * short and come from any thread.
 *
 * The descriptor table of readers and the map are LMDB's own. The map is large and virtual; its
 * resident pages are given back now and then, for they count as this process's memory without being
 * worth it.
 */
#include "cache/index_priv.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define INDEX_MAP_SIZE (16 * ZC_GIB)
#define INDEX_READERS 512
#define INDEX_TRIM_BYTES (64 * ZC_MIB)

int index_errno(int rc)
{
    if (rc == 0)
        return 0;
    if (rc > 0)
        return -rc;
    switch (rc) {
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_MAP_FULL:
        return -ENOSPC;
    case MDB_READERS_FULL:
        return -EAGAIN;
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return -EBADMSG;
    default:
        return -EIO;
    }
}

int index_env_open(const char *path, uint64_t map_size, unsigned flags, MDB_env **out)
{
    MDB_env *env;
    int rc = mdb_env_create(&env);
    if (rc)
        return index_errno(rc);
    rc = mdb_env_set_mapsize(env, map_size);
    if (!rc)
        rc = mdb_env_set_maxdbs(env, 5);
    if (!rc)
        rc = mdb_env_set_maxreaders(env, INDEX_READERS);
    if (!rc)
        rc = mdb_env_open(env, path, MDB_NOSUBDIR | flags, 0600);
    if (rc) {
        mdb_env_close(env);
        return index_errno(rc);
    }
    *out = env;
    return 0;
}

int index_dbs_open(MDB_txn *txn, bool create, struct index_dbs *db)
{
    unsigned c = create ? MDB_CREATE : 0;
    int rc = mdb_dbi_open(txn, "obj", c, &db->obj);
    if (!rc)
        rc = mdb_dbi_open(txn, "loc", c, &db->loc);
    if (!rc)
        rc = mdb_dbi_open(txn, "sum", c | MDB_DUPSORT | MDB_DUPFIXED, &db->sum);
    if (!rc)
        rc = mdb_dbi_open(txn, "lst", c, &db->lst);
    if (!rc)
        rc = mdb_dbi_open(txn, "meta", c, &db->meta);
    return rc;
}

/* 1: made for these settings; 0: for others, or empty. */
static int index_meta_check(MDB_txn *txn, MDB_dbi meta, const struct rec_meta *want)
{
    MDB_val k = {.mv_size = strlen(REC_META_KEY), .mv_data = (void *)(uintptr_t)REC_META_KEY}, v;
    struct rec_meta m;
    int rc = mdb_get(txn, meta, &k, &v);
    if (rc == MDB_NOTFOUND)
        return 0;
    if (rc)
        return index_errno(rc);
    int r = rec_meta_decode(v.mv_data, v.mv_size, &m);
    if (r < 0)
        return r;
    return m.seed == want->seed && m.chunk_size == want->chunk_size;
}

static int index_meta_write(MDB_txn *txn, MDB_dbi meta, const struct rec_meta *m)
{
    uint8_t buf[REC_META_LEN];
    rec_meta_encode(buf, m);
    MDB_val k = {.mv_size = strlen(REC_META_KEY), .mv_data = (void *)(uintptr_t)REC_META_KEY};
    MDB_val v = {.mv_size = sizeof(buf), .mv_data = buf};
    return mdb_put(txn, meta, &k, &v, 0);
}

/* Opens the file and its databases; fresh: it was just made. 1: fit for use; 0: of other settings.
 */
static int index_attach(struct zc_index *x, const struct rec_meta *meta, bool fresh)
{
    MDB_txn *txn;
    int r = index_env_open(x->path, x->map_size,
                           MDB_NOTLS | MDB_NOSYNC | MDB_NOMETASYNC | MDB_NORDAHEAD, &x->env);
    if (r < 0)
        return r;
    r = index_errno(mdb_txn_begin(x->env, NULL, 0, &txn));
    if (r == 0) {
        r = index_errno(index_dbs_open(txn, fresh, &x->db));
        if (r == 0 && fresh)
            r = index_errno(index_meta_write(txn, x->db.meta, meta));
        if (r == 0)
            r = index_meta_check(txn, x->db.meta, meta);
        if (r == 1) {
            int c = index_errno(mdb_txn_commit(txn));
            r = c < 0 ? c : 1;
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (r == 1) {
        index_find_map(x);
    } else {
        mdb_env_close(x->env);
        x->env = NULL;
    }
    return r;
}

static int index_remove(const char *path)
{
    zc_autofree char *lock = NULL;
    if (asprintf(&lock, "%s-lock", path) < 0)
        return -ENOMEM;
    unlink(lock);
    return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

/* Decides what becomes of the file that is there. 1: attached. */
static int index_take_over(struct zc_index *x, const struct index_config *cfg,
                           enum index_found *found)
{
    struct stat st;
    bool same_boot = false;
    if (stat(x->path, &st) < 0) {
        *found = INDEX_NEW;
        index_seal_check(x->path, &same_boot); /* one without a file is of no use */
        return 0;
    }
    int r = index_seal_check(x->path, &same_boot);
    if (r == 1) {
        *found = same_boot ? INDEX_TRUSTED : INDEX_DOUBTED;
    } else if (r == 0) {
        *found = INDEX_DOUBTED;
        r = index_salvage(x->path, x->map_size);
        if (r == 0)
            r = 1;
    }
    if (r == 1)
        r = index_attach(x, &cfg->meta, false);
    if (r == 0)
        *found = INDEX_NEW;
    else if (r < 0)
        *found = INDEX_DAMAGED;
    return r;
}

int index_open(const struct index_config *cfg, struct zc_index **out, enum index_found *found,
               struct zc_error *err)
{
    struct zc_index *x = calloc(1, sizeof(*x));
    pthread_condattr_t attr;
    int r = 0;
    if (!x)
        return zc_error_set(err, -ENOMEM, "out of memory");
    x->map_size = cfg->map_size ? cfg->map_size : INDEX_MAP_SIZE;
    pthread_rwlock_init(&x->map, NULL);
    pthread_mutex_init(&x->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&x->wake, &attr);
    pthread_cond_init(&x->done, &attr);
    pthread_condattr_destroy(&attr);
    if (asprintf(&x->path, "%s/index.mdb", cfg->dir) < 0) {
        x->path = NULL;
        r = -ENOMEM;
    }
    if (r == 0) {
        zc_autofree char *lock = NULL;
        if (asprintf(&lock, "%s-lock", x->path) > 0)
            unlink(lock); /* the folder is ours: whatever a dead process left there is stale */
        r = index_take_over(x, cfg, found);
        if (r != 1) {
            if (r < 0)
                zc_warn("%s is damaged (%s): made anew; what it spoke of is fetched again", x->path,
                        strerror(-r));
            r = index_remove(x->path);
            if (r == 0)
                r = index_attach(x, &cfg->meta, true);
        }
    }
    if (r >= 0)
        r = index_writer_start(x);
    if (r < 0) {
        zc_error_set(err, r, "cannot make the cache index %s: %s (see --cache-dir)",
                     x->path ? x->path : "", strerror(-r));
        index_close(x, false, false);
        return r;
    }
    *out = x;
    return 0;
}

void index_close(struct zc_index *x, bool seal, bool trusted)
{
    if (!x)
        return;
    index_writer_stop(x);
    if (x->env)
        mdb_env_close(x->env);
    if (x->env && seal) {
        int r = x->broken ? -EIO : index_seal_write(x->path, trusted);
        if (r < 0) {
            zc_warn("%s: %s: not kept", x->path, strerror(-r));
            index_remove(x->path);
        }
    }
    pthread_cond_destroy(&x->wake);
    pthread_cond_destroy(&x->done);
    pthread_mutex_destroy(&x->lock);
    pthread_rwlock_destroy(&x->map);
    free(x->queue.p);
    free(x->path);
    free(x);
}

/* ------------------------------------------------------------------ reading */

/* Ends with index_read_end when it returned 0. */
static int index_read_begin(struct zc_index *x, MDB_txn **txn)
{
    pthread_rwlock_rdlock(&x->map);
    int rc = mdb_txn_begin(x->env, NULL, MDB_RDONLY, txn);
    if (rc)
        pthread_rwlock_unlock(&x->map);
    return index_errno(rc);
}

static void index_read_end(struct zc_index *x, MDB_txn *txn)
{
    mdb_txn_abort(txn);
    pthread_rwlock_unlock(&x->map);
}

/* Chunks of a partial object, by walking its locs. */
static int index_load_bits(MDB_cursor *cur, struct index_object *o, uint64_t **bits, size_t *cap)
{
    size_t words = ((size_t)o->nchunks + 63) / 64;
    if (words > *cap) {
        uint64_t *p = realloc(*bits, words * sizeof(*p));
        if (!p)
            return -ENOMEM;
        *bits = p;
        *cap = words;
    }
    memset(*bits, 0, words * sizeof(**bits));
    uint8_t first[REC_LOC_KEY];
    rec_loc_key(first, o->id, 0);
    MDB_val k = {.mv_size = sizeof(first), .mv_data = first}, v;
    int rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
    for (; rc == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
        struct zc_objid id;
        uint32_t chunk;
        struct rec_loc loc;
        int r = rec_loc_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &id, &chunk, &loc);
        if (r < 0)
            return r;
        if (!zc_digest_eq(id.id, o->id.id))
            break;
        if (chunk >= o->nchunks)
            return -EBADMSG;
        (*bits)[chunk / 64] |= (uint64_t)1 << chunk % 64;
        o->present++;
    }
    o->bits = *bits;
    return rc == MDB_NOTFOUND ? 0 : index_errno(rc);
}

int index_load(struct zc_index *x, int (*fn)(void *user, const struct index_object *o), void *user)
{
    MDB_txn *txn;
    MDB_cursor *objs = NULL, *locs = NULL;
    MDB_val k, v;
    zc_autofree uint64_t *bits = NULL;
    size_t cap = 0;
    int r = index_read_begin(x, &txn);
    if (r < 0)
        return r;
    int rc = mdb_cursor_open(txn, x->db.obj, &objs);
    if (!rc)
        rc = mdb_cursor_open(txn, x->db.loc, &locs);
    if (!rc)
        rc = mdb_cursor_get(objs, &k, &v, MDB_FIRST);
    for (; rc == 0 && r == 0; rc = mdb_cursor_get(objs, &k, &v, MDB_NEXT)) {
        struct rec_obj rec;
        struct index_object o = {0};
        r = rec_obj_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &o.id, &rec);
        if (r < 0)
            break;
        uint64_t n = rec.size / rec.chunk_size + (rec.size % rec.chunk_size != 0);
        if (n > UINT32_MAX) {
            r = -EBADMSG;
            break;
        }
        o.size = rec.size;
        o.chunk_size = rec.chunk_size;
        o.nchunks = (uint32_t)n;
        o.complete = rec.complete;
        if (rec.complete)
            o.present = o.nchunks;
        else
            r = index_load_bits(locs, &o, &bits, &cap);
        if (r == 0)
            r = fn(user, &o);
        index_touched(x, INDEX_FAULT_BYTES / 16 +
                             (uint64_t)(o.complete ? 0 : o.present) * REC_LOC_LEN * 2);
    }
    if (r == 0 && rc != MDB_NOTFOUND)
        r = index_errno(rc);
    if (locs)
        mdb_cursor_close(locs);
    if (objs)
        mdb_cursor_close(objs);
    index_read_end(x, txn);
    return r;
}

int index_get_sum(struct zc_index *x, struct zc_objid id, uint32_t chunk, struct zc_digest *sum)
{
    MDB_txn *txn;
    uint8_t key[REC_LOC_KEY];
    int r = index_read_begin(x, &txn);
    if (r < 0)
        return r;
    rec_loc_key(key, id, chunk);
    MDB_val k = {.mv_size = sizeof(key), .mv_data = key}, v;
    r = index_errno(mdb_get(txn, x->db.loc, &k, &v));
    if (r == 0) {
        struct zc_objid got;
        uint32_t c;
        struct rec_loc loc;
        r = rec_loc_decode(key, sizeof(key), v.mv_data, v.mv_size, &got, &c, &loc);
        if (r == 0) {
            *sum = loc.sum;
            r = 1;
        }
    } else if (r == -ENOENT) {
        r = 0;
    }
    index_read_end(x, txn);
    return r;
}

int index_get_places(struct zc_index *x, struct zc_digest sum,
                     int (*fn)(void *user, const struct rec_place *p), void *user)
{
    MDB_txn *txn;
    MDB_cursor *cur;
    uint8_t key[REC_SUM_KEY];
    int r = index_read_begin(x, &txn);
    if (r < 0)
        return r;
    zc_digest_store(key, sum);
    MDB_val k = {.mv_size = sizeof(key), .mv_data = key}, v;
    r = index_errno(mdb_cursor_open(txn, x->db.sum, &cur));
    if (r == 0) {
        int rc = mdb_cursor_get(cur, &k, &v, MDB_SET);
        for (; rc == 0 && r == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT_DUP)) {
            struct rec_place p;
            r = rec_place_decode(v.mv_data, v.mv_size, &p);
            if (r == 0)
                r = fn(user, &p);
        }
        if (r == 0 && rc != MDB_NOTFOUND)
            r = index_errno(rc);
        mdb_cursor_close(cur);
    }
    index_read_end(x, txn);
    return r;
}

int index_get_listing(struct zc_index *x, struct zc_digest dir,
                      int (*fn)(void *user, uint32_t page, const void *p, size_t n), void *user)
{
    MDB_txn *txn;
    MDB_cursor *cur;
    uint8_t key[REC_LST_KEY];
    pthread_mutex_lock(&x->lock);
    bool pending = x->listing[dir.lo % INDEX_LISTINGS] > x->applied;
    pthread_mutex_unlock(&x->lock);
    if (pending)
        index_flush(x);
    int r = index_read_begin(x, &txn);
    if (r < 0)
        return r;
    rec_lst_key(key, dir, 0);
    MDB_val k = {.mv_size = sizeof(key), .mv_data = key}, v;
    r = index_errno(mdb_cursor_open(txn, x->db.lst, &cur));
    if (r == 0) {
        int rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
        for (; rc == 0 && r == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
            struct zc_digest d;
            uint32_t page;
            const void *p;
            size_t n;
            r = rec_lst_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &d, &page, &p, &n);
            if (r == 0 && !zc_digest_eq(d, dir))
                break;
            if (r == 0)
                r = fn(user, page, p, n);
            index_touched(x, v.mv_size + INDEX_FAULT_BYTES);
        }
        if (r == 0 && rc != 0 && rc != MDB_NOTFOUND)
            r = index_errno(rc);
        mdb_cursor_close(cur);
    }
    index_read_end(x, txn);
    return r;
}

int index_get_objects(struct zc_index *x,
                      int (*fn)(void *user, struct zc_objid id, const struct rec_obj *o),
                      void *user)
{
    MDB_txn *txn;
    MDB_cursor *cur;
    MDB_val k, v;
    index_flush(x);
    int r = index_read_begin(x, &txn);
    if (r < 0)
        return r;
    r = index_errno(mdb_cursor_open(txn, x->db.obj, &cur));
    if (r == 0) {
        int rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST);
        for (; rc == 0 && r == 0; rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
            struct zc_objid id;
            struct rec_obj o;
            r = rec_obj_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &id, &o);
            if (r == 0)
                r = fn(user, id, &o);
            index_touched(x, v.mv_size + INDEX_FAULT_BYTES);
        }
        if (r == 0 && rc != 0 && rc != MDB_NOTFOUND)
            r = index_errno(rc);
        mdb_cursor_close(cur);
    }
    index_read_end(x, txn);
    return r;
}

uint64_t index_duplicates(struct zc_index *x)
{
    return atomic_load_explicit(&x->duplicates, memory_order_relaxed);
}

/* LMDB does not tell, so the kernel is asked. */
void index_find_map(struct zc_index *x)
{
    struct stat st;
    zc_autofree char *line = NULL;
    size_t cap = 0;
    FILE *f = fopen("/proc/self/maps", "re");
    x->map_at = NULL;
    if (f && stat(x->path, &st) == 0) {
        while (getline(&line, &cap, f) > 0) {
            uintptr_t from;
            unsigned long inode;
            if (sscanf(line, "%" SCNxPTR "-%*x %*s %*s %*s %lu", &from, &inode) == 2 &&
                inode == st.st_ino && strstr(line, "index.mdb\n")) {
                x->map_at = (char *)from; // NOLINT: an address in text
                break;
            }
        }
    }
    if (f)
        fclose(f);
}

void index_touched(struct zc_index *x, uint64_t bytes)
{
    struct stat st;
    char *at = x->map_at;
    uint64_t sum = atomic_fetch_add_explicit(&x->touched, bytes, memory_order_relaxed) + bytes;
    if (sum < INDEX_TRIM_BYTES || !at)
        return;
    atomic_store_explicit(&x->touched, 0, memory_order_relaxed);
    if (stat(x->path, &st) == 0 && (uint64_t)st.st_size > INDEX_TRIM_BYTES)
        madvise(at, ZC_MIN((uint64_t)st.st_size, x->map_size), MADV_DONTNEED);
}
