/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket asks of the daemon: figures, warm, free. All names of the JSON are set
   here; units are in the names (bytes, _s) where they are not counts. */
#include "cli/daemon_int.h"
#include "http/ctl_body.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

/* For json_pack("I"). */
#define N(v) ((json_int_t)(v))

/* ------------------------------------------------------------------ status */

static uint64_t status_field(const char *text, const char *name)
{
    const char *s = strstr(text, name);
    return s ? strtoull(s + strlen(name), NULL, 10) * 1024 : 0;
}

static json_t *status_memory(const struct zc_mount_opts *o)
{
    char text[4096];
    size_t n = 0;
    FILE *f = fopen("/proc/self/status", "re");
    if (f) {
        n = fread(text, 1, sizeof(text) - 1, f);
        fclose(f);
    }
    text[n] = 0;
    return json_pack("{s:I s:I s:I}", "rss_bytes", N(status_field(text, "\nVmRSS:")),
                     "peak_rss_bytes", N(status_field(text, "\nVmHWM:")), "target_bytes",
                     N(o->memory_target));
}

static json_t *status_cpu(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return json_pack("{s:f s:f}", "user_s",
                     (double)u.ru_utime.tv_sec + (double)u.ru_utime.tv_usec / 1e6, "system_s",
                     (double)u.ru_stime.tv_sec + (double)u.ru_stime.tv_usec / 1e6);
}

static json_t *status_cache(struct zc_daemon *d)
{
    struct zc_cache_stats s = {0};
    zc_cache_get_stats(d->cache, &s);
    return json_pack("{s:o? s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:b s:b s:b}", "dir",
                     s.dir ? zc_ctl_text(s.dir) : NULL, "capacity_bytes", N(s.capacity),
                     "used_bytes", N(s.used), "objects", N(s.objects), "complete", N(s.complete),
                     "evictions", N(s.evictions), "evicted_bytes", N(s.evicted_bytes),
                     "disk_errors", N(s.disk_errors), "checked_chunks", N(s.checked_chunks),
                     "bad_chunks", N(s.bad_chunks), "duplicate_chunks", N(s.duplicates), "bypassed",
                     s.bypassed, "rebuilt", s.rebuilt, "keep", d->cfg->o->keep_cache);
}

static json_t *status_fetch(struct zc_daemon *d)
{
    struct zc_fetch_stats s = {0};
    zc_fetch_get_stats(d->fetch, &s);
    return json_pack("{s:I s:I s:I s:I s:I s:I s:I}", "store_bytes", N(s.bytes_store), "hits",
                     N(s.hits), "misses", N(s.misses), "flights", N(s.flights), "stale", N(s.stale),
                     "memory_bytes", N(s.memory_used), "peak_memory_bytes", N(s.memory_peak));
}

static json_t *status_vfs(struct zc_daemon *d)
{
    struct zc_vfs_stats s = {0};
    zc_vfs_get_stats(d->vfs, &s);
    return json_pack("{s:I s:I s:I s:I s:I}", "dirs", N(s.dirs), "entries", N(s.entries), "lookups",
                     N(s.lookups), "listings", N(s.listings), "hidden", N(s.hidden));
}

static json_t *status_backend(struct zc_daemon *d)
{
    struct zc_backend_stats *s = d->backend->stats;
    return json_pack("{s:s s:I s:I s:I s:I s:I s:I s:I s:I}", "kind",
                     zc_scheme_name(d->cfg->src->scheme), "gets", N(s->gets), "lists", N(s->lists),
                     "heads", N(s->heads), "others", N(s->others), "retries", N(s->retries),
                     "errors", N(s->errors), "bytes", N(s->bytes), "in_flight", N(s->in_flight));
}

static json_t *status_option(const struct zc_opt *t, const void *at)
{
    switch (t->type) {
    case ZC_OPT_FLAG:
        return json_boolean(*(const bool *)at);
    case ZC_OPT_STRING:
    case ZC_OPT_PATH:
        return *(char *const *)at ? zc_ctl_text(*(char *const *)at) : NULL;
    case ZC_OPT_SIZE:
    case ZC_OPT_UINT:
        return *(const uint64_t *)at ? json_integer(N(*(const uint64_t *)at)) : NULL;
    case ZC_OPT_DURATION:
    case ZC_OPT_TTL: {
        int64_t ns = *(const int64_t *)at;
        if (ns == ZC_TTL_INDEFINITE)
            return json_string("indefinite");
        return ns < 0 ? NULL : json_real((double)ns / 1e9);
    }
    case ZC_OPT_RATIO:
        return json_real(*(const double *)at);
    case ZC_OPT_ID:
    case ZC_OPT_MODE: {
        char octal[16];
        uint32_t v = *(const uint32_t *)at;
        if (v == ZC_ID_UNSET)
            return NULL;
        snprintf(octal, sizeof(octal), "%04o", v);
        return t->type == ZC_OPT_ID ? json_integer(N(v)) : json_string(octal);
    }
    case ZC_OPT_CHOICE:
        return NULL; /* said by the caller: finish() changed the numbers */
    }
    return NULL;
}

/* Every option that has a value, by its own name: sizes in bytes, times in seconds. */
static json_t *status_options(struct zc_daemon *d)
{
    static const char *const toggles[] = {[ZC_AUTO] = "auto", [ZC_ON] = "on", [ZC_OFF] = "off"};
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    const struct zc_mount_opts *o = d->cfg->o;
    json_t *all = json_object();
    for (size_t i = 0; i < zc_mount_table.n; i++) {
        const struct zc_opt *t = &zc_mount_table.opts[i];
        json_t *v = status_option(t, (const char *)o + t->offset);
        if (v)
            json_object_set_new(all, t->name, v);
    }
    json_object_set_new(all, "passthrough", json_string(toggles[o->passthrough]));
    json_object_set_new(all, "io-uring", json_string(toggles[o->io_uring]));
    json_object_set_new(all, "log-level", json_string(levels[o->log_level]));
    json_object_set_new(all, "cache-dir", zc_ctl_text(d->cfg->cache_dir));
    json_object_set_new(all, "read-only", json_true());
    return all;
}

static json_t *ctl_status(void *user)
{
    struct zc_daemon *d = user;
    struct zc_fuse_stats s = {0};
    zc_fuse_get_stats(d->fuse, &s);
    return json_pack(
        "{s:s s:i s:o s:o s:f s:b s:s s:s s:o s:o s:o s:{s:I s:I s:I s:I s:I s:I} s:o s:o s:o s:o}", //
        "version", ZC_VERSION, "pid", (int)getpid(), "source", zc_ctl_text(d->backend->url),
        "mountpoint", zc_ctl_text(d->cfg->mountpoint), "uptime_s",
        (double)(zc_now_ns() - d->started_ns) / 1e9, "read_only", 1, "passthrough",
        s.passthrough ? s.passthrough : "unknown", "io_uring", s.io_uring ? s.io_uring : "unknown",
        "cache", status_cache(d), "fetch", status_fetch(d), "vfs", status_vfs(d), "fuse", "opens",
        N(s.opens), "opens_passthrough", N(s.opens_passthrough), "opens_kept", N(s.opens_kept),
        "kept_files", N(s.kept), "reads", N(s.reads), "read_bytes",
        N(s.read_bytes), "backend", status_backend(d), "memory", status_memory(d->cfg->o), "cpu",
        status_cpu(), "options", status_options(d));
}

/* ------------------------------------------------------------------ warm and free */

static int ctl_warm_start(void *user, const char *const *paths, size_t n, unsigned parallel,
                          void **job, struct zc_error *err)
{
    struct zc_daemon *d = user;
    struct zc_warm *w;
    int r = zc_warm_start(d->vfs, paths, n, parallel, &w);
    if (r < 0)
        return zc_error_set(err, r, "cannot start warming: %s", strerror(-r));
    *job = w;
    return 0;
}

/* zc_warm_poll returns at each change, which is each file; a line is worth sending a few times a
 * second. */
static json_t *ctl_warm_poll(void *user, void *job, int timeout_ms)
{
    struct zc_warm_stats s;
    int64_t end = zc_now_ns() + timeout_ms * ZC_NS_PER_MS;
    for (;;) {
        int64_t left_ms = (end - zc_now_ns()) / ZC_NS_PER_MS;
        zc_warm_poll(job, left_ms > 0 ? (int)left_ms : 0, &s);
        if (s.finished || left_ms <= 0)
            break;
        usleep((useconds_t)ZC_MIN(left_ms, (int64_t)20) * 1000);
    }
    return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:b s:b s:o}", "files_found", N(s.files_found),
                     "bytes_found", N(s.bytes_found), "files_done", N(s.files_done), "bytes_done",
                     N(s.bytes_done), "files_hit", N(s.files_hit), "bytes_hit", N(s.bytes_hit),
                     "failed", N(s.failed), "listed", s.listed, "finished", s.finished, "error",
                     zc_ctl_text(s.error));
}

static void ctl_warm_end(void *user, void *job)
{
    zc_warm_end(job);
}

static json_t *ctl_free(void *user, const char *const *paths, size_t n, struct zc_error *err)
{
    struct zc_daemon *d = user;
    struct zc_free_stats s = {0};
    if (err->code == 0)
        err->code = -EIO;
    int r = zc_vfs_drop(d->vfs, paths, n, &s, err);
    if (r < 0) {
        if (!err->text[0])
            zc_error_set(err, r, "cannot free: %s", strerror(-r));
        return NULL;
    }
    return json_pack("{s:I s:I s:I}", "files", N(s.files), "bytes", N(s.bytes), "busy", N(s.busy));
}

const struct zc_ctl_ops zc_daemon_ctl_ops = {
    .status = ctl_status,
    .warm_start = ctl_warm_start,
    .warm_poll = ctl_warm_poll,
    .warm_end = ctl_warm_end,
    .free_paths = ctl_free,
};
