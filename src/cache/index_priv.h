/* SPDX-License-Identifier: Apache-2.0 */
/* What index.c (open, read), index_writer.c (queue and its thread) and index_check.c (seal,
 * salvage) share. */
#ifndef ZC_CACHE_INDEX_PRIV_H
#define ZC_CACHE_INDEX_PRIV_H

#include "cache/index.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdatomic.h>

#define INDEX_LISTINGS 256

struct index_dbs {
    MDB_dbi obj, loc, sum, lst, meta;
};

struct index_queue {
    uint8_t *p;
    size_t len, cap;
    uint64_t last; /* number of its last record */
};

struct zc_index {
    MDB_env *env;
    struct index_dbs db;
    char *path; /* of index.mdb */
    uint64_t map_size;
    /* Read-held around every transaction, write-held to grow the map: LMDB allows that only between
     * them. */
    pthread_rwlock_t map;

    pthread_mutex_t lock; /* all below; innermost, never held over LMDB */
    pthread_cond_t wake;  /* the writer's */
    pthread_cond_t done;  /* a batch was applied */
    struct index_queue queue;
    uint64_t pushed, applied; /* numbers of records */
    /* Numbers of the last pushed records that touched a listing, by the directory's digest. */
    uint64_t listing[INDEX_LISTINGS];
    bool urgent, stop, broken;
    bool started;
    pthread_t thread;

    _Atomic uint64_t duplicates;
    _Atomic(char *) map_at;   /* where LMDB's map lies; NULL: unknown */
    _Atomic uint64_t touched; /* about so many bytes became resident since index_trim */
};

/* LMDB's code -> negative errno. */
int index_errno(int rc);
/* env is closed by the caller. `flags` are added to MDB_NOSUBDIR. */
int index_env_open(const char *path, uint64_t map_size, unsigned flags, MDB_env **out);
int index_dbs_open(MDB_txn *txn, bool create, struct index_dbs *db);
/* Finds out where the map lies: after it was made or moved. */
void index_find_map(struct zc_index *x);
/* A look at one cold page of a file makes its neighbours resident, too (fault_around_bytes). */
#define INDEX_FAULT_BYTES (64 * ZC_KIB)
/* Counts bytes of the map that were looked at, and when that is much, drops its pages from this
   process's resident set; they stay in the page cache. */
void index_touched(struct zc_index *x, uint64_t bytes);

int index_writer_start(struct zc_index *x);
void index_writer_stop(struct zc_index *x);

/* 1: the seal at `path`.sum fits the file; 0: there is no seal; -EBADMSG: there is one that does
   not fit. Removes it. same_boot: sealed as trusted since the machine started. */
int index_seal_check(const char *path, bool *same_boot);
int index_seal_write(const char *path, bool trusted);
/* Has a child make a new file from the records of the old one. 0, or -EBADMSG and the like:
 * unreadable. */
int index_salvage(const char *path, uint64_t map_size);

#endif
