/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Assembly: sources (daemon_source.c) -> cache -> fetch -> vfs -> fuse -> control socket. Sources
 * are asked before the cache is touched, so that a wrong key or bucket costs nothing. Taking apart
 * goes the other way round, after work in flight was told to fail: nothing that waits for a store
 * may hold an unmount up.
 *
 * Signals are blocked in every thread and taken by one that waits for them, so that no code here
 * has to be async-signal-safe. Until the cache is opened there is nothing to undo, and a signal
 * ends the process at once, whatever the source keeps it waiting for.
 */
#include "cli/daemon_cluster.h"

#include "base/buf.h"
#include "base/log.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* ------------------------------------------------------------------ the process */

static void daemon_process(void)
{
    /* Buffers of a megabyte come and go: glibc would map and unmap each, or keep as much free as
       its heaps had grown by, times eight arenas a core. */
    mallopt(M_MMAP_THRESHOLD, 32 << 20);
    mallopt(M_TRIM_THRESHOLD, 16 << 20);
    mallopt(M_ARENA_MAX, 4);

    struct rlimit rl;
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
        rl.rlim_cur = rl.rlim_max;
        setrlimit(RLIMIT_NOFILE, &rl);
    }
}

/* Lets the other nodes take over what this one owned, while it still serves: until the time is up,
   or another signal comes, which is also how the end of the mount shows itself here. Touches
   nothing that such an end frees. */
static void daemon_drain(int64_t time_ns, const sigset_t *set)
{
    int64_t end = zc_now_ns() + time_ns;
    zc_info("cluster: draining for %.1f s", (double)time_ns / 1e9);
    for (;;) {
        int64_t left = end - zc_now_ns();
        struct timespec ts = {.tv_sec = left / ZC_NS_PER_S, .tv_nsec = left % ZC_NS_PER_S};
        if (left <= 0 || sigtimedwait(set, NULL, &ts) > 0 || errno == EAGAIN)
            return;
    }
}

static void *daemon_signals(void *arg)
{
    struct zc_daemon *d = arg;
    bool drained = false;
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    for (;;) {
        int sig;
        if (sigwait(&set, &sig) != 0)
            continue;
        pthread_mutex_lock(&d->lock);
        bool ending = d->ending;
        if (!ending && d->nothing_to_undo)
            _exit(1);
        d->stop = true;
        /* While it serves, which ends under the lock, the cluster is there. */
        bool drains =
            sig == SIGTERM && !drained && !ending && d->exit_fuse && zc_daemon_cluster_drain(d);
        pthread_mutex_unlock(&d->lock);
        if (ending)
            return NULL;
        zc_info("signal %d: ending", sig);
        if (drains) {
            drained = true;
            daemon_drain(d->cfg->plan->o.drain_time, &set);
        }
        pthread_mutex_lock(&d->lock);
        ending = d->ending;
        if (!ending && d->exit_fuse)
            zc_fuse_exit(d->exit_fuse);
        pthread_mutex_unlock(&d->lock);
        if (ending)
            return NULL;
    }
}

static int daemon_signals_start(struct zc_daemon *d, struct zc_error *err)
{
    sigset_t set;
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGHUP, &ignore, NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    int r = pthread_create(&d->signals, NULL, daemon_signals, d);
    if (r != 0)
        return zc_error_set(err, -r, "cannot start a thread: %s", strerror(r));
    d->has_signals = true;
    return 0;
}

static void daemon_signals_end(struct zc_daemon *d)
{
    if (!d->has_signals)
        return;
    pthread_mutex_lock(&d->lock);
    d->ending = true;
    d->exit_fuse = NULL;
    pthread_mutex_unlock(&d->lock);
    pthread_kill(d->signals, SIGTERM);
    pthread_join(d->signals, NULL);
}

/* ------------------------------------------------------------------ assembly */

/* What df and mount(8) show, and status. */
static int daemon_name(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_plan *p = d->cfg->plan;
    zc_autobuf struct zc_buf b = {0};
    for (size_t i = 0; i < p->n; i++) {
        if (*p->s[i]->at)
            zc_buf_addf(&b, "%s/%s=", i ? " " : "", p->s[i]->at);
        struct zc_daemon_source *s = d->opened[i];
        zc_buf_adds(&b, s->be->url);
    }
    d->name = zc_buf_steal(&b);
    return d->name ? 0 : zc_error_set(err, -ENOMEM, "no memory");
}

struct daemon_opener {
    struct zc_daemon *d;
    size_t i; /* which of the plan's */
    pthread_t thread;
    bool started;
    int r;
    struct zc_error err;
};

static void *daemon_opener(void *arg)
{
    struct daemon_opener *o = arg;
    o->r = zc_daemon_source_open(o->d, o->d->cfg->plan->s[o->i], &o->d->opened[o->i], &o->err);
    return NULL;
}

/* All at the same time: a store that is far away or slow to answer costs its own time only. The
   first of the plan that failed is told. */
static int daemon_open_sources(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_plan *p = d->cfg->plan;
    d->opened = calloc(p->n, sizeof(*d->opened));
    if (!d->opened)
        return zc_error_set(err, -ENOMEM, "no memory");
    struct daemon_opener *all = calloc(p->n, sizeof(*all));
    if (!all)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (size_t i = 0; i < p->n; i++) {
        all[i] = (struct daemon_opener){.d = d, .i = i};
        all[i].started = i > 0 && pthread_create(&all[i].thread, NULL, daemon_opener, &all[i]) == 0;
    }
    int r = 0;
    for (size_t i = 0; i < p->n; i++) {
        if (all[i].started)
            pthread_join(all[i].thread, NULL);
        else
            daemon_opener(&all[i]);
        if (all[i].r < 0 && r == 0)
            r = zc_error_set(err, all[i].r, "%s", all[i].err.text);
    }
    free(all);
    return r < 0 ? r : daemon_name(d, err);
}

static int daemon_cache(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    zc_autofree char *identity = NULL;
    /* Several sources come and go, and their paths change; the mount point remains. */
    const char *name = o->cache_name ? o->cache_name : d->cfg->mountpoint;
    if (!o->cache_name && zc_plan_is_single(d->cfg->plan))
        identity = strdup(d->opened[0]->identity);
    else if (asprintf(&identity, "%s %s", o->cache_name ? "named" : "sources at", name) < 0)
        identity = NULL;
    if (!identity)
        return zc_error_set(err, -ENOMEM, "no memory");
    struct zc_cache_config cache = {
        .dir = d->cfg->cache_dir,
        .identity = identity,
        .size = o->cache_size,
        .free_ratio = o->free_space_ratio,
        .chunk_size = o->chunk_size,
        .seed = ZC_DAEMON_SEED,
        .keep = o->keep_cache,
        .allow_tmpfs = o->allow_tmpfs,
    };
    return zc_cache_open(&cache, &d->cache, err);
}

static int daemon_vfs(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    struct zc_vfs_config vfs = {
        .uid = o->uid, .gid = o->gid, .dir_mode = o->dir_mode, .keep_listings = o->keep_cache};
    int r = zc_vfs_new(&vfs, d->cache, d->fetch, &d->vfs);
    if (r < 0)
        return zc_error_set(err, r, "cannot start the file system: %s", strerror(-r));
    for (size_t i = 0; i < d->cfg->plan->n && r == 0; i++) {
        r = zc_daemon_source_show(d, d->opened[i], err);
        if (r == 0)
            d->opened[i] = NULL; /* the list has it now */
    }
    return r;
}

static int daemon_rooms(struct zc_daemon *d, struct zc_error *err)
{
    const struct zc_mount_opts *o = &d->cfg->plan->o;
    /* A quarter each for bytes in flight that the cache has no room for and for the kernel's
       requests; the rest is for directories, connections and the heap's waste. */
    struct zc_fetch_config fetch = {
        .chunk_size = o->chunk_size,
        .memory = o->memory_target / 4,
        .seed = ZC_DAEMON_SEED,
    };
    int r = zc_fetch_new(&fetch, d->cache, &d->fetch);
    if (r < 0)
        return zc_error_set(err, r, "cannot start fetching: %s", strerror(-r));
    r = zc_daemon_cluster_start(d, err);
    if (r < 0)
        return r;
    r = daemon_vfs(d, err);
    if (r < 0)
        return r;

    struct zc_fuse_config fuse = {
        .mountpoint = d->cfg->mountpoint,
        .fsname = zc_plan_is_single(d->cfg->plan) ? d->name : "zcache",
        .noexec = d->cfg->plan->args.noexec,
        .allow_other = o->allow_other,
        .passthrough = (enum zc_toggle)o->passthrough,
        .io_uring = (enum zc_toggle)o->io_uring,
        .several = !zc_plan_is_single(d->cfg->plan),
        .blocks = d->cfg->plan->s[0]->src.scheme == ZC_SCHEME_FILE,
        .max_threads = (unsigned)o->max_threads,
        .memory = o->memory_target / 4,
        .fetch = d->fetch,
        .kept_files = (unsigned)o->open_cache_limit,
    };
    r = zc_fuse_new(&fuse, d->vfs, &d->fuse, err);
    if (r < 0)
        return r;

    zc_autofree char *path = zc_ctl_path(d->cfg->mountpoint);
    if (!path)
        return zc_error_set(err, -ENOMEM, "no memory");
    r = zc_ctl_new(path, &zc_daemon_ctl_ops, d, &d->ctl, err);
    if (r == 0)
        zc_daemon_cluster_ready(d);
    return r;
}

static void daemon_teardown(struct zc_daemon *d)
{
    if (d->ctl)
        zc_ctl_stop(d->ctl);
    zc_daemon_sources_stop(d);
    if (d->vfs)
        zc_vfs_shutdown(d->vfs); /* and fetch's */
    zc_daemon_cluster_hang_up(d);
    zc_ctl_free(d->ctl);
    zc_daemon_cluster_stop(d);
    if (d->fuse)
        zc_fuse_free(d->fuse);
    if (d->vfs)
        zc_vfs_free(d->vfs);
    if (d->fetch)
        zc_fetch_free(d->fetch);
    zc_daemon_cluster_free(d);
    if (d->cache)
        zc_cache_close(d->cache);
    struct zc_list *it;
    while ((it = zc_list_pop_front(&d->sources)) || (it = zc_list_pop_front(&d->retired)))
        zc_daemon_source_close(zc_list_entry(it, struct zc_daemon_source, link));
    for (size_t i = 0; d->opened && i < d->cfg->plan->n; i++)
        zc_daemon_source_close(d->opened[i]);
    free(d->opened);
    free(d->name);
}

static int daemon_start(struct zc_daemon *d, struct zc_error *err)
{
    int r = daemon_signals_start(d, err);
    if (r < 0)
        return r;
    r = daemon_open_sources(d, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&d->lock);
    d->nothing_to_undo = false;
    pthread_mutex_unlock(&d->lock);
    r = daemon_cache(d, err);
    if (r < 0)
        return r;
    return daemon_rooms(d, err);
}

/* Sources in which nothing was found: a prefix that is mistyped looks no different. */
static int daemon_ready(struct zc_daemon *d, int (*ready)(void *user, const char *words),
                        void *user)
{
    struct zc_error words = {0};
    size_t n = 0;
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        const struct zc_daemon_source *s = zc_list_entry(it, struct zc_daemon_source, link);
        struct zc_error one = {0};
        if (!zc_daemon_source_doubt(s, &one))
            continue;
        zc_warn("%s", one.text);
        int len = snprintf(words.text + n, sizeof(words.text) - n, "%s%s", n ? "\n" : "", one.text);
        if (len < 0 || (size_t)len >= sizeof(words.text) - n)
            words.text[n] = 0; /* the log has all of them */
        else
            n += (size_t)len;
    }
    pthread_mutex_unlock(&d->sources_lock);
    return ready(user, words.text);
}

int zc_daemon_run(const struct zc_daemon_config *cfg, int (*ready)(void *user, const char *words),
                  void *user, struct zc_error *err)
{
    struct zc_daemon d = {.cfg = cfg, .started_ns = zc_now_ns(), .nothing_to_undo = true};
    pthread_mutex_init(&d.lock, NULL);
    pthread_mutex_init(&d.sources_lock, NULL);
    zc_list_init(&d.sources);
    zc_list_init(&d.opening);
    zc_list_init(&d.retired);
    daemon_process();

    int r = daemon_start(&d, err);
    if (r == 0) {
        pthread_mutex_lock(&d.lock);
        d.exit_fuse = d.fuse;
        bool stop = d.stop;
        pthread_mutex_unlock(&d.lock);
        if (stop)
            r = zc_error_set(err, -EINTR, "ended by a signal");
    }
    if (r == 0 && daemon_ready(&d, ready, user) != 0)
        r = zc_error_set(err, -EPIPE, "the command that mounts is gone");
    if (r == 0) {
        zc_info("%s is mounted at %s", d.name, cfg->mountpoint);
        r = zc_fuse_loop(d.fuse);
        if (r < 0)
            zc_error_set(err, r, "serving the mount failed: %s", strerror(-r));
        zc_info("%s at %s: unmounting", d.name, cfg->mountpoint);
    }
    pthread_mutex_lock(&d.lock);
    d.exit_fuse = NULL;
    pthread_mutex_unlock(&d.lock);
    daemon_teardown(&d);
    daemon_signals_end(&d);
    pthread_mutex_destroy(&d.lock);
    pthread_mutex_destroy(&d.sources_lock);
    return r;
}
