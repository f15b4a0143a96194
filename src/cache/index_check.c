/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Can the file that an earlier daemon left be believed? See the head of cache/index.h.
 *
 * The salvage reads with LMDB what may be anything, so it does that in a child that may crash, loop
 * or run out of memory without harm, and what it writes is a new file: pages that LMDB would trip
 * over later (a free list that names used pages) cannot survive. It says "good" by one byte over a
 * pipe.
 */
#include "cache/index_priv.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define CHECK_BLOCK ZC_MIB
#define SALVAGE_BATCH 50000 /* records in a transaction */
#define SALVAGE_MS 30000    /* time it may take, and more: */
#define SALVAGE_MS_PER_MIB 200

/* ------------------------------------------------------------------ seal */

static int seal_boot(uint8_t out[16])
{
    char text[64] = "", hex[33];
    size_t n = 0;
    struct zc_digest d;
    zc_autoclose int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, text, sizeof(text) - 1) < 32)
        return -EIO;
    for (const char *s = text; *s && n < 32; s++) {
        if (*s != '-' && *s != '\n')
            hex[n++] = *s;
    }
    hex[n] = '\0';
    if (zc_digest_parse(hex, &d) < 0)
        return -EIO;
    zc_digest_store(out, d);
    return 0;
}

/* The file's length and digest. read(2), not the map: a gigabyte must not become resident, and a
   file that is cut meanwhile must not kill us. */
static int seal_measure(const char *path, struct rec_seal *s)
{
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    zc_autofree uint8_t *block = malloc(CHECK_BLOCK);
    struct zc_hasher *h = zc_hasher_new(0);
    int r = fd < 0 ? -errno : block && h ? 0 : -ENOMEM;
    s->bytes = 0;
    while (r == 0) {
        ssize_t n = read(fd, block, CHECK_BLOCK);
        if (n < 0)
            r = -errno;
        if (n <= 0)
            break;
        zc_hasher_add(h, block, (size_t)n);
        s->bytes += (uint64_t)n;
    }
    if (r == 0)
        s->sum = zc_hasher_digest(h);
    zc_hasher_free(h);
    return r;
}

static char *seal_path(const char *path)
{
    /* index.mdb -> index.sum */
    size_t n = strlen(path);
    char *p = n > 4 ? strdup(path) : NULL;
    if (p)
        memcpy(p + n - 4, ".sum", 4);
    return p;
}

int index_seal_check(const char *path, bool *same_boot)
{
    struct rec_seal want, is;
    uint8_t buf[REC_SEAL_LEN + 1], boot[16];
    zc_autofree char *name = seal_path(path);
    if (!name)
        return -ENOMEM;
    zc_autoclose int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    ssize_t n = read(fd, buf, sizeof(buf));
    int r = n < 0 ? -errno : rec_seal_decode(buf, (size_t)n, &want);
    /* From here on the file may change: the seal goes before that. */
    if (unlink(name) < 0)
        return -errno;
    if (r < 0)
        return r;
    r = seal_measure(path, &is);
    if (r < 0)
        return r;
    if (is.bytes != want.bytes || !zc_digest_eq(is.sum, want.sum))
        return -EBADMSG;
    *same_boot = seal_boot(boot) == 0 && memcmp(boot, want.boot, sizeof(boot)) == 0;
    return 1;
}

int index_seal_write(const char *path, bool trusted)
{
    struct rec_seal s = {0};
    uint8_t buf[REC_SEAL_LEN];
    zc_autofree char *name = seal_path(path);
    if (!name)
        return -ENOMEM;
    if (trusted)
        seal_boot(s.boot); /* else, or without one: zeros, which never fit */
    int r = seal_measure(path, &s);
    if (r < 0)
        return r;
    rec_seal_encode(buf, &s);
    zc_autoclose int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, buf, sizeof(buf));
    if (n == (ssize_t)sizeof(buf))
        return 0;
    r = n < 0 ? -errno : -ENOSPC;
    unlink(name);
    return r;
}

/* ------------------------------------------------------------------ salvage, in the child */

struct salvage {
    MDB_env *from, *to;
    struct index_dbs fdb, tdb;
    MDB_txn *rd, *wr;
    unsigned written; /* records since the last commit */
};

static int salvage_put(struct salvage *s, MDB_dbi db, const void *key, size_t kn, const void *val,
                       size_t vn, unsigned flags)
{
    MDB_val k = {.mv_size = kn, .mv_data = (void *)(uintptr_t)key};
    MDB_val v = {.mv_size = vn, .mv_data = (void *)(uintptr_t)val};
    int rc = mdb_put(s->wr, db, &k, &v, flags);
    if (!rc && ++s->written >= SALVAGE_BATCH) {
        s->written = 0;
        rc = mdb_txn_commit(s->wr);
        s->wr = NULL;
        if (!rc)
            rc = mdb_txn_begin(s->to, NULL, 0, &s->wr);
    }
    return rc;
}

/* The next loc, decoded; MDB_APPEND on the other side makes sure that keys ascend, so that this
 * ends. */
struct salvage_loc {
    MDB_cursor *cur;
    bool have;
    struct zc_objid id;
    uint32_t chunk;
    struct rec_loc loc;
    uint8_t key[REC_LOC_KEY], val[REC_LOC_LEN];
};

static int salvage_next_loc(struct salvage_loc *l, bool first)
{
    MDB_val k, v;
    uint8_t before[REC_LOC_KEY];
    memcpy(before, l->key, sizeof(before));
    l->have = false;
    int rc = mdb_cursor_get(l->cur, &k, &v, first ? MDB_FIRST : MDB_NEXT);
    if (rc)
        return rc == MDB_NOTFOUND ? 0 : rc;
    if (rec_loc_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &l->id, &l->chunk, &l->loc) < 0)
        return MDB_CORRUPTED;
    memcpy(l->key, k.mv_data, sizeof(l->key));
    memcpy(l->val, v.mv_data, sizeof(l->val));
    if (!first && memcmp(before, l->key, sizeof(before)) >= 0)
        return MDB_CORRUPTED;
    l->have = true;
    return 0;
}

/* One object and its chunks; locs of objects before it have none and are left out. */
static int salvage_object(struct salvage *s, struct salvage_loc *l, struct zc_objid id,
                          struct rec_obj *o)
{
    uint8_t key[REC_OBJ_KEY], buf[REC_OBJ_MAX], sum[REC_SUM_KEY], place[REC_PLACE_LEN];
    uint64_t nchunks = o->size / o->chunk_size + (o->size % o->chunk_size != 0), present = 0;
    int rc = 0;
    if (nchunks > UINT32_MAX)
        return MDB_CORRUPTED;
    rec_obj_key(key, id);
    while (rc == 0 && l->have && memcmp(l->key, key, sizeof(key)) < 0)
        rc = salvage_next_loc(l, false);
    while (rc == 0 && l->have && memcmp(l->key, key, sizeof(key)) == 0) {
        if (l->chunk >= nchunks)
            return MDB_CORRUPTED;
        rc = salvage_put(s, s->tdb.loc, l->key, sizeof(l->key), l->val, sizeof(l->val), MDB_APPEND);
        if (rc)
            return rc;
        uint64_t off = (uint64_t)l->chunk * o->chunk_size;
        zc_digest_store(sum, l->loc.sum);
        rec_place_encode(place, &(struct rec_place){.id = id,
                                                    .chunk = l->chunk,
                                                    .len = (uint32_t)ZC_MIN(
                                                        o->size - off, (uint64_t)o->chunk_size)});
        rc = salvage_put(s, s->tdb.sum, sum, sizeof(sum), place, sizeof(place), 0);
        present++;
        if (rc == 0)
            rc = salvage_next_loc(l, false);
    }
    if (rc || (present == 0 && nchunks > 0))
        return rc;
    o->complete = present == nchunks;
    size_t n = rec_obj_encode(buf, id, o);
    return salvage_put(s, s->tdb.obj, key, sizeof(key), buf, n, MDB_APPEND);
}

static int salvage_objects(struct salvage *s)
{
    MDB_cursor *objs;
    MDB_val k, v;
    struct salvage_loc l = {0};
    int rc = mdb_cursor_open(s->rd, s->fdb.obj, &objs);
    if (!rc)
        rc = mdb_cursor_open(s->rd, s->fdb.loc, &l.cur);
    if (!rc)
        rc = salvage_next_loc(&l, true);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(objs, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(objs, &k, &v, MDB_NEXT)) {
        struct zc_objid id;
        struct rec_obj o;
        if (rec_obj_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &id, &o) < 0)
            return MDB_CORRUPTED;
        rc = salvage_object(s, &l, id, &o);
        if (rc)
            return rc;
    }
    while (rc == MDB_NOTFOUND && l.have) {
        int e = salvage_next_loc(&l, false);
        if (e)
            return e;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int salvage_listings(struct salvage *s)
{
    MDB_cursor *cur;
    MDB_val k, v;
    int rc = mdb_cursor_open(s->rd, s->fdb.lst, &cur);
    if (rc)
        return rc;
    for (rc = mdb_cursor_get(cur, &k, &v, MDB_FIRST); rc == 0;
         rc = mdb_cursor_get(cur, &k, &v, MDB_NEXT)) {
        struct zc_digest dir;
        uint32_t page;
        const void *p;
        size_t n;
        if (rec_lst_decode(k.mv_data, k.mv_size, v.mv_data, v.mv_size, &dir, &page, &p, &n) < 0)
            return MDB_CORRUPTED;
        rc = salvage_put(s, s->tdb.lst, k.mv_data, k.mv_size, v.mv_data, v.mv_size, MDB_APPEND);
        if (rc)
            return rc;
    }
    return rc == MDB_NOTFOUND ? 0 : rc;
}

static int salvage_meta(struct salvage *s)
{
    MDB_val k = {.mv_size = strlen(REC_META_KEY), .mv_data = (void *)(uintptr_t)REC_META_KEY}, v;
    struct rec_meta m;
    int rc = mdb_get(s->rd, s->fdb.meta, &k, &v);
    if (rc)
        return rc;
    if (rec_meta_decode(v.mv_data, v.mv_size, &m) < 0)
        return MDB_CORRUPTED;
    return salvage_put(s, s->tdb.meta, k.mv_data, k.mv_size, v.mv_data, v.mv_size, 0);
}

static int salvage_run(const char *from, const char *to, uint64_t map_size)
{
    struct salvage s = {0};
    struct stat st;
    if (stat(from, &st) < 0)
        return -errno;
    int r = index_env_open(from, ZC_MAX(map_size, (uint64_t)st.st_size),
                           MDB_RDONLY | MDB_NOLOCK | MDB_NOTLS, &s.from);
    if (r == 0)
        r = index_env_open(to, ZC_MAX(map_size, 2 * (uint64_t)st.st_size), MDB_NOLOCK | MDB_NOSYNC,
                           &s.to);
    if (r < 0)
        return r;
    int rc = mdb_txn_begin(s.from, NULL, MDB_RDONLY, &s.rd);
    if (!rc)
        rc = mdb_txn_begin(s.to, NULL, 0, &s.wr);
    if (!rc)
        rc = index_dbs_open(s.rd, false, &s.fdb);
    if (!rc)
        rc = index_dbs_open(s.wr, true, &s.tdb);
    if (!rc)
        rc = salvage_meta(&s);
    if (!rc)
        rc = salvage_objects(&s);
    if (!rc)
        rc = salvage_listings(&s);
    if (!rc) {
        rc = mdb_txn_commit(s.wr);
        s.wr = NULL;
    }
    return index_errno(rc); /* the process ends: nothing is closed */
}

static void salvage_child(const char *from, const char *to, uint64_t map_size, int say)
{
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(fatal); i++)
        signal(fatal[i], SIG_DFL);
    setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
    if (salvage_run(from, to, map_size) == 0 && write(say, "y", 1) == 1)
        _exit(0);
    _exit(1);
}

/* Waits for the child's word. */
static int salvage_wait(pid_t pid, int hear, uint64_t bytes)
{
    int64_t until =
        zc_now_ns() + (SALVAGE_MS + (int64_t)(bytes / ZC_MIB) * SALVAGE_MS_PER_MIB) * ZC_NS_PER_MS;
    char said = 0;
    for (;;) {
        int64_t left = (until - zc_now_ns()) / ZC_NS_PER_MS;
        struct pollfd pfd = {.fd = hear, .events = POLLIN};
        int n = left > 0 ? poll(&pfd, 1, (int)ZC_MIN(left, (int64_t)INT32_MAX)) : 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n > 0 && read(hear, &said, 1) < 0 && errno == EINTR)
            continue;
        break;
    }
    if (said != 'y')
        kill(pid, SIGKILL);
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    return said == 'y' ? 0 : -EBADMSG;
}

int index_salvage(const char *path, uint64_t map_size)
{
    zc_autofree char *fresh = NULL;
    struct stat st;
    int pipefd[2];
    if (asprintf(&fresh, "%s.new", path) < 0) {
        fresh = NULL;
        return -ENOMEM;
    }
    if (stat(path, &st) < 0)
        return -errno;
    if (unlink(fresh) < 0 && errno != ENOENT)
        return -errno;
    if (pipe2(pipefd, O_CLOEXEC) < 0)
        return -errno;
    pid_t pid = fork();
    if (pid == 0) {
        close(pipefd[0]);
        salvage_child(path, fresh, map_size, pipefd[1]);
    }
    int r = pid < 0 ? -errno : 0;
    close(pipefd[1]);
    if (r == 0)
        r = salvage_wait(pid, pipefd[0], (uint64_t)st.st_size);
    close(pipefd[0]);
    if (r == 0 && rename(fresh, path) < 0)
        r = -errno;
    if (r < 0)
        unlink(fresh);
    return r;
}
