/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The queue of the index and its one writer thread.
 *
 * A record is copied into a flat buffer; the writer swaps the buffer for an empty one and applies
 * it in one transaction. It waits a moment for more before it does (INDEX_LINGER_NS), because a
 * commit costs as much as some hundred records. Records are applied in the order of their pushes,
 * and what one push wrote never ends up in two transactions, so that the index always is some
 * earlier state of what was pushed.
 *
 * When LMDB cannot write (disk full, I/O error) the batch is tried again for a while, then the
 * index gives up: it records nothing more and is thrown away when it is closed. Reading and caching
 * go on without it.
 */
#include "cache/index_priv.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define INDEX_LINGER_NS (50 * ZC_NS_PER_MS)
#define INDEX_SOFT_BYTES (4 * ZC_MIB)  /* apply at once */
#define INDEX_HARD_BYTES (32 * ZC_MIB) /* make callers wait */
#define INDEX_KEEP_BYTES (1 * ZC_MIB)  /* a larger buffer is freed after use */
#define INDEX_THROTTLE_NS (5 * ZC_NS_PER_S)
#define INDEX_TXN_RECORDS 4000
#define INDEX_TRIES 10
#define INDEX_RETRY_NS (500 * ZC_NS_PER_MS)

enum op_kind { OP_PUT_OBJ, OP_PUT_CHUNK, OP_DEL_OBJ, OP_PUT_LISTING, OP_DEL_LISTING };

struct op {
    uint32_t bytes; /* of this struct and what follows it, rounded up to 8 */
    uint32_t extra; /* bytes that follow */
    enum op_kind kind;
    uint32_t number; /* chunk or page */
    uint32_t len, seen;
    struct zc_digest id, sum;
};

static struct timespec writer_deadline(int64_t at)
{
    return (struct timespec){.tv_sec = at / ZC_NS_PER_S, .tv_nsec = at % ZC_NS_PER_S};
}

/* ------------------------------------------------------------------ pushing */

static int writer_push(struct zc_index *x, struct op *op, const void *extra, size_t n)
{
    size_t bytes = (sizeof(*op) + n + 7) & ~(size_t)7;
    int r = 0;
    if (n > UINT32_MAX / 2)
        return -EMSGSIZE;
    op->bytes = (uint32_t)bytes;
    op->extra = (uint32_t)n;
    pthread_mutex_lock(&x->lock);
    struct index_queue *q = &x->queue;
    bool idle = q->len == 0;
    if (x->broken) {
        r = -EIO;
    } else if (q->cap - q->len < bytes) {
        size_t cap = ZC_MAX(q->cap * 2, q->len + bytes + 64 * ZC_KIB);
        uint8_t *p = realloc(q->p, cap);
        if (p) {
            q->p = p;
            q->cap = cap;
        } else {
            r = -ENOMEM;
        }
    }
    if (r == 0) {
        memcpy(q->p + q->len, op, sizeof(*op));
        if (n)
            memcpy(q->p + q->len + sizeof(*op), extra, n);
        q->len += bytes;
        q->last = ++x->pushed;
        if (op->kind == OP_PUT_LISTING || op->kind == OP_DEL_LISTING)
            x->listing[op->id.lo % INDEX_LISTINGS] = x->pushed;
        if (idle || q->len >= INDEX_SOFT_BYTES)
            pthread_cond_signal(&x->wake);
    } else if (r == -ENOMEM && (op->kind == OP_DEL_OBJ || op->kind == OP_DEL_LISTING)) {
        x->broken = true; /* the index now speaks of what is no more */
    }
    pthread_mutex_unlock(&x->lock);
    return r;
}

int index_put_obj(struct zc_index *x, struct zc_objid id, const struct rec_obj *o)
{
    uint8_t buf[REC_OBJ_MAX];
    size_t n = rec_obj_encode(buf, id, o);
    struct op op = {.kind = OP_PUT_OBJ, .id = id.id};
    return writer_push(x, &op, buf, n);
}

int index_put_chunk(struct zc_index *x, struct zc_objid id, uint32_t chunk, uint32_t len,
                    struct zc_digest sum, const struct rec_obj *o)
{
    uint8_t buf[REC_OBJ_MAX];
    size_t n = o ? rec_obj_encode(buf, id, o) : 0;
    struct op op = {.kind = OP_PUT_CHUNK,
                    .id = id.id,
                    .number = chunk,
                    .len = len,
                    .sum = sum,
                    .seen = (uint32_t)(zc_wall_ns() / ZC_NS_PER_S)};
    return writer_push(x, &op, buf, n);
}

int index_del_obj(struct zc_index *x, struct zc_objid id)
{
    struct op op = {.kind = OP_DEL_OBJ, .id = id.id};
    return writer_push(x, &op, NULL, 0);
}

int index_put_listing(struct zc_index *x, struct zc_digest dir, uint32_t page, const void *p,
                      size_t n)
{
    struct op op = {.kind = OP_PUT_LISTING, .id = dir, .number = page};
    return writer_push(x, &op, p, n);
}

int index_del_listing(struct zc_index *x, struct zc_digest dir)
{
    struct op op = {.kind = OP_DEL_LISTING, .id = dir};
    return writer_push(x, &op, NULL, 0);
}

void index_throttle(struct zc_index *x)
{
    pthread_mutex_lock(&x->lock);
    if (x->queue.len >= INDEX_HARD_BYTES) {
        struct timespec until = writer_deadline(zc_now_ns() + INDEX_THROTTLE_NS);
        while (x->queue.len >= INDEX_HARD_BYTES && !x->broken &&
               pthread_cond_timedwait(&x->done, &x->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&x->lock);
}

void index_flush(struct zc_index *x)
{
    pthread_mutex_lock(&x->lock);
    uint64_t upto = x->pushed;
    while (x->applied < upto && !x->broken) {
        x->urgent = true;
        pthread_cond_signal(&x->wake);
        pthread_cond_wait(&x->done, &x->lock);
    }
    pthread_mutex_unlock(&x->lock);
}

bool index_broken(struct zc_index *x)
{
    pthread_mutex_lock(&x->lock);
    bool b = x->broken;
    pthread_mutex_unlock(&x->lock);
    return b;
}

/* ------------------------------------------------------------------ applying; LMDB's codes from
 * here on */

static MDB_val writer_val(void *p, size_t n)
{
    return (MDB_val){.mv_size = n, .mv_data = p};
}

/* Takes the place of one chunk out of its sum's. */
static int writer_del_place(struct zc_index *x, MDB_txn *txn, const MDB_val *key,
                            const MDB_val *val)
{
    struct rec_place place = {0};
    struct rec_loc loc;
    uint8_t sum[REC_SUM_KEY], buf[REC_PLACE_LEN];
    MDB_cursor *cur;
    if (rec_loc_decode(key->mv_data, key->mv_size, val->mv_data, val->mv_size, &place.id,
                       &place.chunk, &loc) < 0)
        return MDB_CORRUPTED;
    zc_digest_store(sum, loc.sum);
    rec_place_encode(buf, &place);
    int rc = mdb_cursor_open(txn, x->db.sum, &cur);
    if (rc)
        return rc;
    /* the length is not known here: the first place not before (objid, chunk, 0) is the one */
    MDB_val k = writer_val(sum, sizeof(sum)), v = writer_val(buf, sizeof(buf));
    rc = mdb_cursor_get(cur, &k, &v, MDB_GET_BOTH_RANGE);
    if (rc == 0 && v.mv_size == sizeof(buf) && memcmp(v.mv_data, buf, sizeof(buf) - 4) == 0)
        rc = mdb_cursor_del(cur, 0);
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int writer_put_chunk(struct zc_index *x, MDB_txn *txn, const struct op *op,
                            uint64_t *duplicates)
{
    struct zc_objid id = {op->id};
    uint8_t key[REC_LOC_KEY], val[REC_LOC_LEN], sum[REC_SUM_KEY], place[REC_PLACE_LEN];
    rec_loc_key(key, id, op->number);
    rec_loc_encode(val, id, op->number, &(struct rec_loc){.sum = op->sum, .seen = op->seen});
    MDB_val k = writer_val(key, sizeof(key)), v = writer_val(val, sizeof(val));
    int rc = mdb_put(txn, x->db.loc, &k, &v, MDB_NOOVERWRITE);
    if (rc == MDB_KEYEXIST) { /* v is the old one */
        rc = writer_del_place(x, txn, &k, &v);
        v = writer_val(val, sizeof(val));
        if (!rc)
            rc = mdb_put(txn, x->db.loc, &k, &v, 0);
    }
    if (rc)
        return rc;
    zc_digest_store(sum, op->sum);
    rec_place_encode(place, &(struct rec_place){.id = id, .chunk = op->number, .len = op->len});
    MDB_val sk = writer_val(sum, sizeof(sum)), sv = writer_val(place, sizeof(place)), old;
    rc = mdb_get(txn, x->db.sum, &sk, &old);
    if (rc == 0)
        (*duplicates)++;
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    rc = mdb_put(txn, x->db.sum, &sk, &sv, MDB_NODUPDATA);
    return rc == MDB_KEYEXIST ? 0 : rc;
}

/* All records whose keys share the 16 bytes that `first` begins with. A cursor's place after a
   delete at the end of a page is not to be relied on, so each step seeks anew. */
static int writer_del_range(struct zc_index *x, MDB_txn *txn, MDB_dbi db, uint8_t *first, size_t n)
{
    for (;;) {
        MDB_cursor *cur;
        MDB_val k = writer_val(first, n), v;
        int rc = mdb_cursor_open(txn, db, &cur);
        if (rc)
            return rc;
        rc = mdb_cursor_get(cur, &k, &v, MDB_SET_RANGE);
        bool ours = rc == 0 && k.mv_size == n && memcmp(k.mv_data, first, 16) == 0;
        if (ours && db == x->db.loc)
            rc = writer_del_place(x, txn, &k, &v);
        if (ours && !rc)
            rc = mdb_cursor_del(cur, 0);
        mdb_cursor_close(cur);
        if (!ours || rc)
            return rc == MDB_NOTFOUND ? 0 : rc;
    }
}

static int writer_del_obj(struct zc_index *x, MDB_txn *txn, const struct op *op)
{
    struct zc_objid id = {op->id};
    uint8_t key[REC_OBJ_KEY], first[REC_LOC_KEY];
    rec_obj_key(key, id);
    MDB_val k = writer_val(key, sizeof(key));
    int rc = mdb_del(txn, x->db.obj, &k, NULL);
    if (rc && rc != MDB_NOTFOUND)
        return rc;
    rec_loc_key(first, id, 0);
    return writer_del_range(x, txn, x->db.loc, first, sizeof(first));
}

static int writer_put_listing(struct zc_index *x, MDB_txn *txn, const struct op *op)
{
    uint8_t key[REC_LST_KEY];
    const uint8_t *p = (const uint8_t *)(op + 1);
    rec_lst_key(key, op->id, op->number);
    MDB_val k = writer_val(key, sizeof(key)), v = {.mv_size = REC_LST_HEAD + op->extra};
    int rc = mdb_put(txn, x->db.lst, &k, &v, MDB_RESERVE);
    if (rc)
        return rc;
    uint8_t *out = v.mv_data;
    rec_lst_head(out, op->id, op->number, p, op->extra);
    if (op->extra)
        memcpy(out + REC_LST_HEAD, p, op->extra);
    return 0;
}

static int writer_del_listing(struct zc_index *x, MDB_txn *txn, const struct op *op)
{
    uint8_t first[REC_LST_KEY];
    rec_lst_key(first, op->id, 0);
    return writer_del_range(x, txn, x->db.lst, first, sizeof(first));
}

static int writer_put_obj(struct zc_index *x, MDB_txn *txn, const struct op *op)
{
    uint8_t key[REC_OBJ_KEY];
    rec_obj_key(key, (struct zc_objid){op->id});
    MDB_val k = writer_val(key, sizeof(key));
    MDB_val v = writer_val((uint8_t *)(uintptr_t)(op + 1), op->extra);
    return mdb_put(txn, x->db.obj, &k, &v, 0);
}

static int writer_one(struct zc_index *x, MDB_txn *txn, const struct op *op, uint64_t *duplicates)
{
    int rc = 0;
    switch (op->kind) {
    case OP_PUT_OBJ:
        return writer_put_obj(x, txn, op);
    case OP_PUT_CHUNK:
        rc = writer_put_chunk(x, txn, op, duplicates);
        return rc || !op->extra ? rc : writer_put_obj(x, txn, op);
    case OP_DEL_OBJ:
        return writer_del_obj(x, txn, op);
    case OP_PUT_LISTING:
        return writer_put_listing(x, txn, op);
    case OP_DEL_LISTING:
        return writer_del_listing(x, txn, op);
    }
    return rc;
}

/* Applies records from *at on, as many as go into one transaction. */
static int writer_apply(struct zc_index *x, const struct index_queue *q, size_t *at,
                        uint64_t *duplicates)
{
    MDB_txn *txn;
    size_t next = *at;
    int rc = mdb_txn_begin(x->env, NULL, 0, &txn);
    if (rc)
        return rc;
    *duplicates = 0;
    for (unsigned n = 0; next < q->len && n < INDEX_TXN_RECORDS && rc == 0; n++) {
        const struct op *op = (const struct op *)(q->p + next);
        rc = writer_one(x, txn, op, duplicates);
        index_touched(x, 4 * INDEX_FAULT_BYTES); /* a leaf of each of three trees, and more */
        next += op->bytes;
    }
    if (rc) {
        mdb_txn_abort(txn);
        return rc;
    }
    rc = mdb_txn_commit(txn);
    if (rc == 0)
        *at = next;
    return rc;
}

static int writer_grow(struct zc_index *x)
{
    pthread_rwlock_wrlock(&x->map);
    int rc = mdb_env_set_mapsize(x->env, x->map_size * 2);
    if (!rc)
        x->map_size *= 2;
    index_find_map(x);
    pthread_rwlock_unlock(&x->map);
    return rc;
}

/* Waits after a failure. False when it is time to give up. */
static bool writer_patient(struct zc_index *x, int tries)
{
    pthread_mutex_lock(&x->lock);
    bool go_on = !x->stop && tries < INDEX_TRIES && x->queue.len < INDEX_HARD_BYTES;
    if (go_on) {
        struct timespec until = writer_deadline(zc_now_ns() + INDEX_RETRY_NS);
        while (!x->stop && pthread_cond_timedwait(&x->wake, &x->lock, &until) == 0)
            ;
    }
    pthread_mutex_unlock(&x->lock);
    return go_on;
}

static int writer_batch(struct zc_index *x, const struct index_queue *q)
{
    int tries = 0;
    for (size_t at = 0; at < q->len;) {
        uint64_t duplicates;
        pthread_rwlock_rdlock(&x->map);
        int rc = writer_apply(x, q, &at, &duplicates);
        pthread_rwlock_unlock(&x->map);
        if (rc == 0) {
            atomic_fetch_add_explicit(&x->duplicates, duplicates, memory_order_relaxed);
            tries = 0;
            continue;
        }
        if (rc == MDB_MAP_FULL && writer_grow(x) == 0)
            continue;
        if (tries++ == 0)
            zc_warn("%s: cannot be written: %s", x->path, mdb_strerror(rc));
        if (!writer_patient(x, tries))
            return index_errno(rc);
    }
    return 0;
}

static void *writer_main(void *arg)
{
    struct zc_index *x = arg;
    struct index_queue spare = {0};
    pthread_mutex_lock(&x->lock);
    for (;;) {
        while (x->queue.len == 0 && !x->stop)
            pthread_cond_wait(&x->wake, &x->lock);
        if (x->queue.len == 0)
            break;
        struct timespec until = writer_deadline(zc_now_ns() + INDEX_LINGER_NS);
        while (x->queue.len < INDEX_SOFT_BYTES && !x->urgent && !x->stop &&
               pthread_cond_timedwait(&x->wake, &x->lock, &until) == 0)
            ;
        struct index_queue q = x->queue;
        x->queue = spare;
        x->urgent = false;
        bool broken = x->broken;
        pthread_mutex_unlock(&x->lock);

        int r = broken ? 0 : writer_batch(x, &q);
        if (r < 0)
            zc_err("%s: given up (%s): what is cached now is not known to the next mount", x->path,
                   strerror(-r));
        spare = (struct index_queue){.p = q.p, .cap = q.cap};
        if (spare.cap > INDEX_KEEP_BYTES) {
            free(spare.p);
            spare = (struct index_queue){0};
        }

        pthread_mutex_lock(&x->lock);
        x->applied = q.last;
        if (r < 0) {
            x->broken = true;
            x->queue.len = 0;
        }
        pthread_cond_broadcast(&x->done);
    }
    pthread_mutex_unlock(&x->lock);
    free(spare.p);
    return NULL;
}

int index_writer_start(struct zc_index *x)
{
    int rc = pthread_create(&x->thread, NULL, writer_main, x);
    x->started = rc == 0;
    return -rc;
}

void index_writer_stop(struct zc_index *x)
{
    if (!x->started)
        return;
    pthread_mutex_lock(&x->lock);
    x->stop = true;
    pthread_cond_broadcast(&x->wake);
    pthread_mutex_unlock(&x->lock);
    pthread_join(x->thread, NULL);
    x->started = false;
}
