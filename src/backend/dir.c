/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A local directory as a source.
 *
 * File system calls block (the directory may lie on a slow network file system), so they run on a
 * pool of threads of this source's own, started one by one as work comes in: nothing runs before
 * the first request, and a process may probe first and fork afterwards. Work waits in one queue for
 * each priority; a quarter of the threads never takes anything but demand, so that a warm run
 * cannot fill the pool.
 *
 * A version is "inode:mtime:ctime:size". Time stamps move in ticks of up to 10 ms (HZ=100), so a
 * file that was written a moment ago may be written again without a change of its version. A get
 * therefore lets the tick of the file's last change pass before it reads: what it reads then is the
 * last content that can carry this version, and a write after that is seen by the check that
 * follows each piece, before it is handed on. Clocks of other machines (a network file system's)
 * may be off by more; that is beyond what stat() can tell.
 */
#include "backend/dir.h"
#include "backend/dir_priv.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>

#define DIR_TICK_NS (10 * ZC_NS_PER_MS)

enum dir_job_kind { DIR_LIST, DIR_STAT, DIR_GET };

struct dir_job {
    struct zc_list link;
    enum dir_job_kind kind;
    struct zc_req *base;
    void *req;
};

/* ---- stat and get, on a worker ---- */

void dir_ended(struct dir_src *src, int err)
{
    /* What may be tried again is counted by who gives up. */
    if (err == -EACCES || err == -EIO)
        atomic_fetch_add(&src->stats.errors, 1);
    atomic_fetch_sub(&src->stats.in_flight, 1);
}

static void dir_stat_run(struct dir_worker *w, struct zc_stat_req *req)
{
    struct dir_src *src = w->src;
    struct stat st;
    bool hidden;
    char version[DIR_VERSION_BYTES];
    struct zc_attr attr;
    atomic_fetch_add(&src->stats.heads, 1);
    int r = dir_stat_path(src, req->path, &st, &hidden);
    if (r < 0) {
        r = dir_fail(src, &req->base.err, req->path, r);
    } else {
        dir_version(&st, version);
        dir_attr(&st, version, &attr);
    }
    dir_ended(src, r);
    req->done(req, r, r < 0 ? NULL : &attr);
}

static int dir_stop(const struct zc_req *base)
{
    if (atomic_load_explicit(&base->cancelled, memory_order_relaxed))
        return -ECANCELED;
    if (base->deadline_ns && zc_now_ns() >= base->deadline_ns)
        return -ETIMEDOUT;
    return 0;
}

static int dir_check_version(int fd, const char *version, struct stat *st)
{
    char now[DIR_VERSION_BYTES];
    if (fstat(fd, st) < 0)
        return -errno;
    if (S_ISDIR(st->st_mode))
        return -EISDIR;
    if (!S_ISREG(st->st_mode))
        return -ESTALE;
    dir_version(st, now);
    return strcmp(now, version) == 0 ? 0 : -ESTALE;
}

/* See the head of this file: waits at most two ticks, and only for a file that has just changed. */
static void dir_settle(const struct stat *st)
{
    int64_t age = zc_wall_ns() - ZC_MAX(dir_ns(&st->st_ctim), dir_ns(&st->st_mtim));
    if (age < -DIR_TICK_NS || age >= DIR_TICK_NS)
        return;
    struct timespec ts = {.tv_nsec = DIR_TICK_NS - age};
    while (nanosleep(&ts, &ts) < 0 && errno == EINTR)
        ;
}

/* *theirs: the error is what data() returned. */
static int dir_get(struct dir_worker *w, struct zc_get_req *req, bool *theirs)
{
    struct stat st;
    if (!w->block && !(w->block = aligned_alloc(4096, DIR_BLOCK)))
        return -ENOMEM;
    zc_autoclose int fd = dir_open(w->src, req->path, O_RDONLY | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return fd;
    int r = dir_check_version(fd, req->version, &st);
    if (r < 0)
        return r;
    dir_settle(&st);
    if (req->len > DIR_BLOCK)
        posix_fadvise(fd, (off_t)req->off, (off_t)req->len, POSIX_FADV_WILLNEED);
    for (uint64_t off = req->off, left = req->len; left > 0;) {
        if ((r = dir_stop(&req->base)) < 0)
            return r;
        ssize_t n = pread(fd, w->block, ZC_MIN(left, (uint64_t)DIR_BLOCK), (off_t)off);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            return -ESTALE; /* it is shorter than its version says */
        /* A reader may have the bytes as soon as they are handed on: not after a look at the end.
         */
        if ((r = dir_check_version(fd, req->version, &st)) < 0)
            return r;
        atomic_fetch_add(&w->src->stats.bytes, (uint64_t)n);
        if ((r = req->data(req, w->block, (size_t)n)) < 0) {
            *theirs = true;
            return r;
        }
        off += (uint64_t)n;
        left -= (uint64_t)n;
    }
    return 0;
}

static void dir_get_run(struct dir_worker *w, struct zc_get_req *req)
{
    bool theirs = false;
    atomic_fetch_add(&w->src->stats.gets, 1);
    int r = dir_get(w, req, &theirs);
    if (r < 0 && !theirs)
        r = dir_fail(w->src, &req->base.err, req->path, r);
    if (r == -ENOENT && !theirs) /* a version that was removed is none that there is */
        r = req->base.err.code = -ESTALE;
    dir_ended(w->src, r);
    req->done(req, r);
}

/* ---- the pool ---- */

/* Ends a request that was not run. */
static void dir_job_end(struct dir_src *src, struct dir_job *job, int err)
{
    dir_ended(src, err);
    zc_error_set(&job->base->err, err, "%s: %s", src->path, strerror(-err));
    if (job->kind == DIR_LIST) {
        struct zc_list_req *req = job->req;
        req->done(req, err, NULL, 0, NULL, 0);
    } else if (job->kind == DIR_STAT) {
        struct zc_stat_req *req = job->req;
        req->done(req, err, NULL);
    } else {
        struct zc_get_req *req = job->req;
        req->done(req, err);
    }
}

static void dir_job_run(struct dir_worker *w, struct dir_job *job)
{
    int r = dir_stop(job->base);
    if (r < 0)
        dir_job_end(w->src, job, r);
    else if (job->kind == DIR_LIST)
        dir_list_run(w, job->req);
    else if (job->kind == DIR_STAT)
        dir_stat_run(w, job->req);
    else
        dir_get_run(w, job->req);
}

/* Threads that may work on what nobody waits for. */
static unsigned dir_background_max(const struct dir_src *src)
{
    return src->max_threads > 1 ? src->max_threads - ZC_MAX(1u, src->max_threads / 4) : 1;
}

/* Locked. NULL when there is nothing that this thread may do now. */
static struct dir_job *dir_take(struct dir_src *src)
{
    for (int prio = 0; prio < ZC_PRIO_N; prio++) {
        if (prio != ZC_PRIO_DEMAND && src->background >= dir_background_max(src))
            break;
        struct zc_list *l = zc_list_pop_front(&src->queue[prio]);
        if (l) {
            src->queued--;
            return zc_list_entry(l, struct dir_job, link);
        }
    }
    return NULL;
}

static void *dir_thread(void *arg)
{
    struct dir_src *src = arg;
    struct dir_worker w = {.src = src};
    pthread_setname_np(pthread_self(), "zc-dir");
    pthread_mutex_lock(&src->lock);
    for (;;) {
        struct dir_job *job = dir_take(src);
        if (!job) {
            if (src->stop)
                break;
            src->idle++;
            pthread_cond_wait(&src->wake, &src->lock);
            src->idle--;
            continue;
        }
        /* The request is its owner's again once done() ran: what is needed later is read now. */
        bool background = job->base->prio != ZC_PRIO_DEMAND;
        src->background += background;
        pthread_mutex_unlock(&src->lock);
        dir_job_run(&w, job);
        free(job);
        pthread_mutex_lock(&src->lock);
        src->background -= background;
    }
    pthread_mutex_unlock(&src->lock);
    free(w.block);
    free(w.page);
    zc_buf_free(&w.names);
    return NULL;
}

/* Locked. One more thread if all are busy. Signals stay with the threads that want them. */
static int dir_grow(struct dir_src *src)
{
    if (src->idle > src->queued || src->n_threads == src->max_threads)
        return 0;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&src->threads[src->n_threads], NULL, dir_thread, src);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (r == 0)
        src->n_threads++;
    return src->n_threads > 0 ? 0 : -EAGAIN;
}

static void dir_submit(struct zc_backend *be, enum dir_job_kind kind, struct zc_req *base,
                       void *req)
{
    struct dir_src *src = zc_container_of(be, struct dir_src, be);
    atomic_fetch_add(&src->stats.in_flight, 1);
    struct dir_job *job = malloc(sizeof(*job));
    if (!job) {
        struct dir_job none = {.kind = kind, .base = base, .req = req};
        dir_job_end(src, &none, -EAGAIN);
        return;
    }
    *job = (struct dir_job){.kind = kind, .base = base, .req = req};
    assert(base->prio < ZC_PRIO_N);
    pthread_mutex_lock(&src->lock);
    int r = dir_grow(src);
    if (r == 0) {
        zc_list_push_back(&src->queue[base->prio], &job->link);
        src->queued++;
        pthread_cond_signal(&src->wake);
    }
    pthread_mutex_unlock(&src->lock);
    if (r < 0) {
        dir_job_end(src, job, r);
        free(job);
    }
}

/* ---- the op table ---- */

static void dir_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    dir_submit(be, DIR_LIST, &req->base, req);
}

static void dir_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    dir_submit(be, DIR_STAT, &req->base, req);
}

static void dir_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    dir_submit(be, DIR_GET, &req->base, req);
}

static int dir_op_probe(struct zc_backend *be, struct zc_error *e)
{
    struct dir_src *src = zc_container_of(be, struct dir_src, be);
    int r = dir_root(src);
    if (r == -ENOENT)
        return zc_error_set(e, -ENOENT, "the source directory %s does not exist", src->path);
    if (r == -ENOTDIR)
        return zc_error_set(e, -ENOTDIR, "the source %s is not a directory", src->path);
    int fd = r < 0 ? r : dir_open(src, "", O_RDONLY | O_DIRECTORY);
    if (fd == -EACCES || fd == -EPERM)
        return zc_error_set(e, -EACCES, "the source directory %s is not readable by user %u",
                            src->path, (unsigned)geteuid());
    if (fd == -ENOSYS)
        return zc_error_set(
            e, -ENOSYS,
            "this system has no openat2 (Linux 5.6 or newer, and a sandbox that lets it "
            "pass): a directory cannot be a source here");
    if (fd < 0)
        return zc_error_set(e, fd, "the source directory %s cannot be opened: %s", src->path,
                            strerror(-fd));
    DIR *d = fdopendir(fd);
    if (!d) {
        r = -errno;
        close(fd);
        return zc_error_set(e, r, "the source directory %s: %s", src->path, strerror(-r));
    }
    errno = 0;
    r = readdir(d) || errno == 0 ? 0 : -errno;
    closedir(d);
    if (r < 0)
        return zc_error_set(e, r, "the source directory %s cannot be listed: %s", src->path,
                            strerror(-r));
    /* Names can be read with 'r' alone; attributes need 'x'. */
    struct stat st;
    bool hidden;
    if (dir_stat_path(src, "", &st, &hidden) == 0 &&
        faccessat(dir_root(src), ".", X_OK, AT_EACCESS) < 0 && errno == EACCES)
        return zc_error_set(e, -EACCES, "the source directory %s cannot be searched by user %u",
                            src->path, (unsigned)geteuid());
    return 0;
}

static void dir_op_free(struct zc_backend *be)
{
    struct dir_src *src = zc_container_of(be, struct dir_src, be);
    pthread_mutex_lock(&src->lock);
    src->stop = true;
    pthread_cond_broadcast(&src->wake);
    pthread_mutex_unlock(&src->lock);
    for (unsigned i = 0; i < src->n_threads; i++)
        pthread_join(src->threads[i], NULL);
    for (struct zc_list *l; (l = zc_list_pop_front(&src->cursors));)
        dir_cursor_free(zc_list_entry(l, struct dir_cursor, link));
    if (src->root >= 0)
        close(src->root);
    pthread_cond_destroy(&src->wake);
    pthread_mutex_destroy(&src->lock);
    free(src->threads);
    free(src->path);
    free(be->url);
    free(src);
}

static const struct zc_backend_ops dir_ops = {
    .name = "file",
    .probe = dir_op_probe,
    .list = dir_op_list,
    .stat = dir_op_stat,
    .get = dir_op_get,
    .free = dir_op_free,
};

int zc_dirsrc_new(const struct zc_dir_config *cfg, struct zc_backend **out, struct zc_error *err)
{
    if (cfg->path[0] != '/')
        return zc_error_set(err, -EINVAL, "a directory source needs an absolute path, not '%s'",
                            cfg->path);
    struct dir_src *src = calloc(1, sizeof(*src));
    if (!src)
        return zc_error_set(err, -ENOMEM, "out of memory");
    src->root = -1;
    src->max_threads = cfg->threads ? cfg->threads : 8;
    pthread_mutex_init(&src->lock, NULL);
    pthread_cond_init(&src->wake, NULL);
    for (int i = 0; i < ZC_PRIO_N; i++)
        zc_list_init(&src->queue[i]);
    zc_list_init(&src->cursors);
    src->threads = calloc(src->max_threads, sizeof(*src->threads));
    /* One name for one directory, however it was written; one that does not exist is probe()'s to
     * tell. */
    src->path = realpath(cfg->path, NULL);
    if (!src->path)
        src->path = strdup(cfg->path);
    zc_autobuf struct zc_buf url = {0};
    if (src->path) {
        zc_buf_adds(&url, "file://");
        zc_buf_add_urlenc(&url, src->path, strlen(src->path), true);
        src->be.url = zc_buf_steal(&url);
    }
    src->be.ops = &dir_ops;
    src->be.stats = &src->stats;
    src->be.part_size = 8 * ZC_MIB;
    src->be.part_limit = src->max_threads;
    if (!src->threads || !src->path || !src->be.url) {
        dir_op_free(&src->be);
        return zc_error_set(err, -ENOMEM, "out of memory");
    }
    *out = &src->be;
    return 0;
}
