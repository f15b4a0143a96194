/* SPDX-License-Identifier: Apache-2.0 */
/* What the control socket asks of the daemon: figures, warm, free. All names of the JSON are set
   here; units are in the names (bytes, _s) where they are not counts. */
#include "cli/clusteropts.h"
#include "cli/daemon_cluster.h"
#include "http/ctl_body.h"

#include "backend/wrap.h"
#include "base/at.h"
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
    return json_pack("{s:o? s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:I s:b s:b s:b}", "dir",
                     s.dir ? zc_ctl_text(s.dir) : NULL, "capacity_bytes", N(s.capacity),
                     "used_bytes", N(s.used), "spare_bytes", N(s.spare_bytes), "objects",
                     N(s.objects), "complete", N(s.complete), "evictions", N(s.evictions),
                     "evicted_bytes", N(s.evicted_bytes), "disk_errors", N(s.disk_errors),
                     "checked_chunks", N(s.checked_chunks), "bad_chunks", N(s.bad_chunks),
                     "duplicate_chunks", N(s.duplicates), "bypassed", s.bypassed, "rebuilt",
                     s.rebuilt, "keep", d->cfg->plan->o.keep_cache);
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

/* Requests and bytes of all sources together; those that were removed are not in it. */
static json_t *status_backend(struct zc_daemon *d)
{
    uint64_t sum[8] = {0};
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        struct zc_backend_stats *s = zc_list_entry(it, struct zc_daemon_source, link)->be->stats;
        const uint64_t one[8] = {s->gets,    s->lists,  s->heads, s->others,
                                 s->retries, s->errors, s->bytes, s->in_flight};
        for (size_t i = 0; i < ZC_ARRAY_SIZE(sum); i++)
            sum[i] += one[i];
    }
    pthread_mutex_unlock(&d->sources_lock);
    const struct zc_plan *p = d->cfg->plan;
    return json_pack("{s:s s:I s:I s:I s:I s:I s:I s:I s:I}", "kind",
                     zc_plan_is_single(p) ? zc_scheme_name(p->s[0]->src.scheme) : "several", "gets",
                     N(sum[0]), "lists", N(sum[1]), "heads", N(sum[2]), "others", N(sum[3]),
                     "retries", N(sum[4]), "errors", N(sum[5]), "bytes", N(sum[6]), "in_flight",
                     N(sum[7]));
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
        /* 0 is a value where it may be given, and else says that there is none. */
        return *(const uint64_t *)at || t->min == 0 ? json_integer(N(*(const uint64_t *)at)) : NULL;
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

/* Every option of the table that has a value, by its own name: sizes in bytes, times in seconds. */
static json_t *status_table(struct zc_opt_table t, const struct zc_mount_opts *o)
{
    json_t *all = json_object();
    for (size_t i = 0; i < t.n; i++) {
        json_t *v = status_option(&t.opts[i], (const char *)o + t.opts[i].offset);
        if (v)
            json_object_set_new(all, t.opts[i].name, v);
    }
    return all;
}

static json_t *status_options(struct zc_daemon *d)
{
    static const char *const toggles[] = {[ZC_AUTO] = "auto", [ZC_ON] = "on", [ZC_OFF] = "off"};
    static const char *const replicate[] = {"local", "owner-only"};
    static const char *const levels[] = {"error", "warn", "info", "debug"};
    const struct zc_plan *p = d->cfg->plan;
    json_t *all = status_table(zc_mount_table, &p->o);
    if (zc_plan_is_single(p)) {
        json_t *own = status_table(zc_source_table, &p->s[0]->o);
        json_object_update(all, own);
        json_decref(own);
    }
    json_object_set_new(all, "passthrough", json_string(toggles[p->o.passthrough]));
    json_object_set_new(all, "io-uring", json_string(toggles[p->o.io_uring]));
    json_object_set_new(all, "log-level", json_string(levels[p->o.log_level]));
    if (zc_cluster_wanted(&p->o))
        json_object_set_new(all, "replicate", json_string(replicate[p->o.replicate]));
    json_object_set_new(all, "cache-dir", zc_ctl_text(d->cfg->cache_dir));
    json_object_set_new(all, "read-only", json_true());
    return all;
}

/* ------------------------------------------------------------------ sources */

static json_t *status_source(const struct zc_daemon_source *s)
{
    const struct zc_backend_stats *b = s->be->stats;
    struct zc_vfs_source_stats v;
    struct zc_retry_health h;
    char at[ZC_AT_MAX + 2];
    zc_vfs_source_get_stats(s->vfs, &v);
    zc_retry_get_health(s->be, &h);
    snprintf(at, sizeof(at), "/%s", s->plan->at);
    json_t *health = json_pack("{s:b s:I}", "ok", h.failures == 0, "failures", N(h.failures));
    if (health && h.failures) {
        json_object_set_new(health, "since_s", json_real((double)(zc_now_ns() - h.since_ns) / 1e9));
        json_object_set_new(health, "error", zc_ctl_text(h.text));
    }
    return json_pack(
        "{s:o s:o s:s s:f s:o s:{s:I s:I s:I s:I s:I s:I s:I s:I} s:{s:I s:I s:I s:I s:I} s:o}",
        "path", zc_ctl_text(at), "source", zc_ctl_text(s->be->url), "kind",
        zc_scheme_name(s->plan->src.scheme), "uptime_s", (double)(zc_now_ns() - s->since_ns) / 1e9,
        "health", health, "backend", "gets", N(b->gets), "lists", N(b->lists), "heads", N(b->heads),
        "others", N(b->others), "retries", N(b->retries), "errors", N(b->errors), "bytes",
        N(b->bytes), "in_flight", N(b->in_flight), "fetch", "hits", N(v.fetch.hits), "misses",
        N(v.fetch.misses), "store_bytes", N(v.fetch.bytes_store), "open", N(v.fetch.open),
        "listings", N(v.listings), "options", status_table(zc_source_table, &s->plan->o));
}

static json_t *status_sources(struct zc_daemon *d)
{
    json_t *list = json_array();
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources)
        json_array_append_new(list,
                              status_source(zc_list_entry(it, struct zc_daemon_source, link)));
    pthread_mutex_unlock(&d->sources_lock);
    return list;
}

static json_t *ctl_source_list(void *user)
{
    return json_pack("{s:o}", "sources", status_sources(user));
}

static int ctl_source_add(void *user, const struct zc_ctl_source *req, struct zc_error *err)
{
    struct zc_plan_source *s;
    int r = zc_plan_source_new(req->path, req->source, &s, err);
    if (r < 0)
        return r;
    for (size_t i = 0; i < req->n && r == 0; i++)
        r = zc_opt_set(zc_source_table, req->options[i].name, req->options[i].value, &s->o,
                       &s->args, err);
    if (r < 0) {
        zc_plan_source_free(s);
        return r;
    }
    return zc_daemon_source_add(user, s, err);
}

static int ctl_source_remove(void *user, const struct zc_ctl_source *req, struct zc_error *err)
{
    return zc_daemon_source_remove(user, req->path, req->force, err);
}

static json_t *ctl_status(void *user)
{
    struct zc_daemon *d = user;
    struct zc_fuse_stats s = {0};
    zc_fuse_get_stats(d->fuse, &s);
    return json_pack(
        "{s:s s:i s:o s:o s:f s:b s:s s:s s:o s:o s:o s:{s:I s:I s:I s:I s:I s:I} s:o "
        "s:o s:o s:o s:o s:o*}", //
        "version", ZC_VERSION, "pid", (int)getpid(), "source", zc_ctl_text(d->name), "mountpoint",
        zc_ctl_text(d->cfg->mountpoint), "uptime_s", (double)(zc_now_ns() - d->started_ns) / 1e9,
        "read_only", 1, "passthrough", s.passthrough ? s.passthrough : "unknown", "io_uring",
        s.io_uring ? s.io_uring : "unknown", "cache", status_cache(d), "fetch", status_fetch(d),
        "vfs", status_vfs(d), "fuse", "opens", N(s.opens), "opens_passthrough",
        N(s.opens_passthrough), "opens_kept", N(s.opens_kept), "kept_files", N(s.kept), "reads",
        N(s.reads), "read_bytes", N(s.read_bytes), "backend", status_backend(d), "memory",
        status_memory(&d->cfg->plan->o), "cpu", status_cpu(), "options", status_options(d),
        "sources", status_sources(d), "cluster", zc_daemon_cluster_json(d));
}

/* ------------------------------------------------------------------ warm and free */

/* A job on this node, or on all. */
struct ctl_warm {
    struct zc_warm *own;
    struct zc_cluster_warm *all;
};

static int ctl_warm_start(void *user, const struct zc_ctl_body *req, void **job,
                          struct zc_error *err)
{
    struct zc_daemon *d = user;
    struct zc_calls calls;
    struct zc_warm_part part = {0};
    struct ctl_warm *w = calloc(1, sizeof(*w));
    if (!w)
        return zc_error_set(err, -ENOMEM, "no memory");
    if (req->cluster && !zc_daemon_calls(d, &calls)) {
        free(w);
        return zc_error_set(err, -EINVAL, "this mount is no node of a cluster (--join)");
    }
    if (req->cluster)
        part = zc_daemon_part(d);
    int r = zc_warm_start(d->vfs, req->paths, req->n, req->parallel, req->cluster ? &part : NULL,
                          req->mark, &w->own);
    if (r == 0 && req->cluster)
        r = zc_cluster_warm_start(&calls, w->own, req->paths, req->n, req->parallel, &w->all);
    if (r < 0) {
        free(w);
        return zc_error_set(err, r, "cannot start warming: %s", strerror(-r));
    }
    *job = w;
    return 0;
}

/* zc_warm_poll returns at each change, which is each file; a line is worth sending a few times a
 * second. */
static json_t *ctl_warm_poll(void *user, void *job, int timeout_ms)
{
    struct ctl_warm *w = job;
    struct zc_warm_stats s;
    int64_t end = zc_now_ns() + timeout_ms * ZC_NS_PER_MS;
    if (w->all) {
        zc_cluster_warm_poll(w->all, timeout_ms, &s);
        return zc_warm_json(&s);
    }
    for (;;) {
        int64_t left_ms = (end - zc_now_ns()) / ZC_NS_PER_MS;
        zc_warm_poll(w->own, left_ms > 0 ? (int)left_ms : 0, &s);
        if (s.finished || left_ms <= 0)
            break;
        usleep((useconds_t)ZC_MIN(left_ms, (int64_t)20) * 1000);
    }
    return zc_warm_json(&s);
}

static void ctl_warm_end(void *user, void *job)
{
    struct ctl_warm *w = job;
    if (w->all)
        zc_cluster_warm_end(w->all);
    else
        zc_warm_end(w->own);
    free(w);
}

static json_t *ctl_free(void *user, const struct zc_ctl_body *req, struct zc_error *err)
{
    struct zc_daemon *d = user;
    struct zc_free_stats s = {0};
    if (err->code == 0)
        err->code = -EIO;
    int r = zc_vfs_drop(d->vfs, req->paths, req->n, &s, err);
    if (r == 0 && req->cluster)
        r = zc_daemon_free_others(d, req, &s, err);
    if (r < 0) {
        if (!err->text[0])
            zc_error_set(err, r, "cannot free: %s", strerror(-r));
        return NULL;
    }
    return json_pack("{s:I s:I s:I}", "files", N(s.files), "bytes", N(s.bytes), "busy", N(s.busy));
}

static json_t *ctl_cluster(void *user, const struct zc_ctl_body *req, struct zc_error *err)
{
    return zc_daemon_cluster_all(user, req, err);
}

const struct zc_ctl_ops zc_daemon_ctl_ops = {
    .status = ctl_status,
    .warm_start = ctl_warm_start,
    .warm_poll = ctl_warm_poll,
    .warm_end = ctl_warm_end,
    .free_paths = ctl_free,
    .cluster = ctl_cluster,
    .source_list = ctl_source_list,
    .source_add = ctl_source_add,
    .source_remove = ctl_source_remove,
};
