/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes ask each other's daemons, and how the answers of all become one. Who may ask is
 * settled before (cluster key, certificates): here a question is as good as one on the control
 * socket, and is decoded as that.
 *
 *     status  {"kept": [{"source","prefix"}...]}  figures of the node, and for each of "kept"
 *                                                 {"bytes","copy_bytes","objects"}
 *     free    {"paths": [...]}                    {"files","bytes","busy"}
 *     warm-start, warm-poll, warm-end             see cluster_warm.h
 *
 * Paths are those of the mount: nodes show their sources at the same places. "source" is the
 * identity of a source's data, "prefix" a path in it.
 */
#include "cli/cluster_status.h"
#include "cli/daemon_cluster.h"
#include "http/ctl_body.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define N(v) ((json_int_t)(v))
#define ANSWER_STATUS_MS 5000
#define ANSWER_FREE_MS 60000

/* ------------------------------------------------------------------ what is kept */

struct kept {
    struct zc_cluster *cluster;
    struct zc_kept_of *of;
    size_t n;
};

/* Bytes of a resident that this node keeps as their owner. Of one that is there in part it is not
   known which part: then those that it owns are counted first. */
static uint64_t kept_own(struct zc_cluster *c, const struct zc_cache_resident *r)
{
    struct zc_cluster_node first;
    uint64_t own = 0;
    for (uint64_t at = 0; at < r->size && own < r->bytes; at += ZC_CLUSTER_GROUP) {
        if (zc_cluster_rank(c, zc_cluster_key(r->id.id, at), &first, 1) == 1 && first.is_self)
            own += ZC_MIN(ZC_CLUSTER_GROUP, r->size - at);
    }
    return ZC_MIN(own, r->bytes);
}

static int kept_resident(void *user, const struct zc_cache_resident *r)
{
    struct kept *k = user;
    for (size_t i = 0; i < k->n; i++) {
        struct zc_kept_of *o = &k->of[i];
        if (!zc_kept_has(o, r))
            continue;
        uint64_t own = kept_own(k->cluster, r);
        o->bytes += own;
        o->copy_bytes += r->bytes - own;
        o->objects++;
    }
    return 0;
}

static json_t *kept_answer(struct zc_daemon *d, const json_t *list, struct zc_error *err)
{
    struct kept k = {.cluster = d->cluster};
    if (zc_kept_parse(list, &k.of, &k.n, err) < 0)
        return NULL;
    zc_autofree struct zc_kept_of *of = k.of;
    int r = k.n ? zc_cache_census(d->cache, kept_resident, &k) : 0;
    if (r < 0) {
        zc_error_set(err, r, "the index cannot be read: %s", strerror(-r));
        return NULL;
    }
    return zc_kept_json(of, k.n);
}

/* ------------------------------------------------------------------ figures of this node */

static json_t *answer_status(struct zc_daemon *d, const json_t *req, struct zc_error *err)
{
    struct zc_cache_stats cache = {0};
    struct zc_fetch_stats fetch = {0};
    struct zc_fuse_stats fuse = {0};
    uint64_t store = 0;
    json_t *kept = kept_answer(d, json_object_get(req, "kept"), err);
    if (!kept)
        return NULL;
    zc_cache_get_stats(d->cache, &cache);
    zc_fetch_get_stats(d->fetch, &fetch);
    zc_fuse_get_stats(d->fuse, &fuse);
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources)
        store += zc_list_entry(it, struct zc_daemon_source, link)->be->stats->bytes;
    pthread_mutex_unlock(&d->sources_lock);
    uint64_t peer = fetch.bytes_store > store ? fetch.bytes_store - store : 0;
    return json_pack("{s:s s:f s:{s:I s:I s:I s:I s:I} s:{s:I s:I} s:{s:I s:I s:I} s:o}", "version",
                     ZC_VERSION, "uptime_s", (double)(zc_now_ns() - d->started_ns) / 1e9, "cache",
                     "capacity_bytes", N(cache.capacity), "used_bytes", N(cache.used),
                     "spare_bytes", N(cache.spare_bytes), "objects", N(cache.objects), "evictions",
                     N(cache.evictions), "opens", "hits", N(fetch.hits), "misses", N(fetch.misses),
                     "bytes", "disk", N(fetch.bytes_hit), "peer", N(peer), "store", N(store),
                     "kept", kept);
}

static json_t *answer_free(struct zc_daemon *d, const char *body, size_t n, struct zc_error *err)
{
    struct zc_ctl_body req = {0};
    struct zc_free_stats s = {0};
    json_t *v = NULL;
    if (zc_ctl_body_parse(body, n, &req, err) < 0)
        return NULL;
    if (zc_vfs_drop(d->vfs, req.paths, req.n, &s, err) == 0)
        v = json_pack("{s:I s:I s:I}", "files", N(s.files), "bytes", N(s.bytes), "busy", N(s.busy));
    zc_ctl_body_free(&req);
    return v;
}

static json_t *answer_warm(struct zc_daemon *d, const char *body, size_t n, struct zc_error *err)
{
    struct zc_ctl_body req = {0};
    struct zc_warm_part part = zc_daemon_part(d);
    struct zc_warm *w = NULL;
    if (zc_ctl_body_parse(body, n, &req, err) < 0)
        return NULL;
    int r = zc_warm_start(d->vfs, req.paths, req.n, req.parallel, &part, 0, &w);
    zc_ctl_body_free(&req);
    if (r < 0) {
        zc_error_set(err, r, "cannot start warming: %s", strerror(-r));
        return NULL;
    }
    json_t *v = zc_warm_jobs_add(d->warm_jobs, w);
    if (!v)
        zc_error_set(err, -EBUSY, "too many jobs, or no memory");
    return v;
}

static json_t *answer(struct zc_daemon *d, const char *op, const char *body, size_t n,
                      struct zc_error *err)
{
    if (strcmp(op, "free") == 0)
        return answer_free(d, body, n, err);
    if (strcmp(op, "warm-start") == 0)
        return answer_warm(d, body, n, err);
    json_error_t je;
    json_t *v = NULL, *req = json_loadb(body, n, JSON_REJECT_DUPLICATES, &je);
    if (!json_is_object(req))
        zc_error_set(err, -EINVAL, "the question is not a JSON object");
    else if (strcmp(op, "status") == 0)
        v = answer_status(d, req, err);
    else if (strcmp(op, "warm-poll") == 0)
        v = zc_warm_jobs_poll(d->warm_jobs, req, err);
    else if (strcmp(op, "warm-end") == 0)
        v = zc_warm_jobs_end(d->warm_jobs, req, err);
    else
        zc_error_set(err, -ENOSYS, "'%.40s' is nothing that this version answers", op);
    json_decref(req);
    return v;
}

int zc_daemon_answer(struct zc_daemon *d, const char *op, const char *body, size_t n,
                     struct zc_buf *reply)
{
    struct zc_error err = {0};
    json_t *v = answer(d, op, body, n, &err);
    int r = v ? 0 : err.code ? err.code : -ENOMEM;
    if (!v)
        v = json_pack("{s:o}", "error", zc_ctl_text(err.text[0] ? err.text : strerror(-r)));
    zc_autofree char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
    json_decref(v);
    return text && zc_buf_adds(reply, text) == 0 ? r : -ENOMEM;
}

/* ------------------------------------------------------------------ all nodes */

/* Sources, and paths in them, of which all nodes are asked what they keep. */
struct wanted {
    json_t *kept; /* [{"source","prefix"}...] */
    json_t *rows; /* what is shown: objects with "first" and "count" of kept */
};

static int wanted_add(struct wanted *w, const char *identity, const char *prefix)
{
    return json_array_append_new(w->kept, json_pack("{s:o s:o}", "source", zc_ctl_text(identity),
                                                    "prefix", zc_ctl_text(prefix)));
}

/* A path of the mount: in one source, or above several. */
static void wanted_path(struct zc_daemon *d, struct wanted *w, const char *path)
{
    size_t n = strlen(path);
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        const struct zc_daemon_source *s = zc_list_entry(it, struct zc_daemon_source, link);
        const char *at = s->plan->at;
        size_t at_len = strlen(at);
        if (n <= at_len && memcmp(at, path, n) == 0 && (n == 0 || !at[n] || at[n] == '/'))
            wanted_add(w, s->identity, "");
        else if (n > at_len && memcmp(path, at, at_len) == 0 && (!at_len || path[at_len] == '/'))
            wanted_add(w, s->identity, path + at_len + (at_len ? 1 : 0));
    }
    pthread_mutex_unlock(&d->sources_lock);
}

static int wanted_count(struct zc_daemon *d, struct wanted *w, const char *path,
                        struct zc_error *err)
{
    uint64_t files, bytes;
    size_t first = json_array_size(w->kept);
    char shown[ZC_CTL_PATH_MAX + 2];
    int r = zc_vfs_count(d->vfs, path, &files, &bytes, err);
    if (r < 0)
        return r;
    wanted_path(d, w, path);
    snprintf(shown, sizeof(shown), "/%s", path);
    json_array_append_new(w->rows,
                          json_pack("{s:o s:I s:I s:I s:I}", "path", zc_ctl_text(shown), "files",
                                    N(files), "bytes", N(bytes), "first", N(first), "count",
                                    N(json_array_size(w->kept) - first)));
    return 0;
}

/* The sources that lie below a path, by their own paths. */
static json_t *wanted_below(struct zc_daemon *d, const char *path)
{
    size_t n = strlen(path);
    json_t *below = json_array();
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        const char *at = zc_list_entry(it, struct zc_daemon_source, link)->plan->at;
        if (strlen(at) > n && memcmp(at, path, n) == 0 && (n == 0 || at[n] == '/'))
            json_array_append_new(below, json_string(at));
    }
    pthread_mutex_unlock(&d->sources_lock);
    return below;
}

/* Each path, and where it is above sources each of these as well. */
static int wanted_paths(struct zc_daemon *d, struct wanted *w, const struct zc_ctl_body *req,
                        struct zc_error *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && req && i < req->n; i++) {
        size_t k;
        const json_t *at;
        json_t *below = wanted_below(d, req->paths[i]);
        r = wanted_count(d, w, req->paths[i], err);
        json_array_foreach(below, k, at)
        {
            if (r == 0)
                r = wanted_count(d, w, json_string_value(at), err);
        }
        json_decref(below);
    }
    return r;
}

static void wanted_sources(struct zc_daemon *d, struct wanted *w)
{
    char at[ZC_CTL_PATH_MAX + 2];
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        const struct zc_daemon_source *s = zc_list_entry(it, struct zc_daemon_source, link);
        snprintf(at, sizeof(at), "/%s", s->plan->at);
        json_array_append_new(w->rows, json_pack("{s:o s:o s:I s:I}", "path", zc_ctl_text(at),
                                                 "source", zc_ctl_text(s->be->url), "first",
                                                 N(json_array_size(w->kept)), "count", N(1)));
        wanted_add(w, s->identity, "");
    }
    pthread_mutex_unlock(&d->sources_lock);
}

json_t *zc_daemon_cluster_all(struct zc_daemon *d, const struct zc_ctl_body *req,
                              struct zc_error *err)
{
    struct zc_calls calls;
    struct wanted w = {.kept = json_array(), .rows = json_array()};
    json_t *out = NULL, *own = NULL, *question = NULL, *total = json_object();
    zc_autofree char *body = NULL;
    struct zc_call_to *to = NULL;
    struct zc_cluster_node self;
    size_t n = 0;
    char id[ZC_DIGEST_HEX + 1];
    if (!zc_daemon_calls(d, &calls)) {
        zc_error_set(err, -EINVAL, "this mount is no node of a cluster (--join)");
        goto end;
    }
    wanted_sources(d, &w);
    if (wanted_paths(d, &w, req, err) < 0)
        goto end;
    question = json_pack("{s:O}", "kept", w.kept);
    body = question ? json_dumps(question, JSON_COMPACT) : NULL;
    own = question ? answer_status(d, question, err) : NULL;
    to = zc_calls_others(&calls, &n);
    if (!body || !own || !to)
        goto end;
    for (size_t i = 0; i < n; i++)
        to[i].body = strdup(body);
    zc_calls_run(&calls, "status", ANSWER_STATUS_MS, to, n);
    out = zc_daemon_cluster_json(d);
    json_t *sources = json_array(), *paths = json_array();
    struct zc_cluster_sums sums = {
        .members = json_object_get(out, "members"), .total = total, .rows = w.rows};
    zc_cluster_self(d->cluster, &self);
    zc_digest_hex(id, zc_digest_load(self.id));
    zc_cluster_sums_add(&sums, id, own, NULL);
    for (size_t i = 0; i < n; i++) {
        zc_digest_hex(id, zc_digest_load(to[i].node.id));
        zc_cluster_sums_add(&sums, id, to[i].reply, to[i].err.text);
    }
    zc_cluster_rows_split(w.rows, sources, paths);
    json_object_set_new(out, "sources", sources);
    json_object_set_new(out, "paths", paths);
    json_object_set(out, "total", total);
end:
    zc_calls_free(to, n);
    json_decref(own);
    json_decref(question);
    json_decref(total);
    json_decref(w.kept);
    json_decref(w.rows);
    return out;
}

int zc_daemon_free_others(struct zc_daemon *d, const struct zc_ctl_body *req,
                          struct zc_free_stats *s, struct zc_error *err)
{
    struct zc_calls calls;
    size_t n;
    int r = 0;
    if (!zc_daemon_calls(d, &calls))
        return zc_error_set(err, -EINVAL, "this mount is no node of a cluster (--join)");
    json_t *paths = json_array();
    for (size_t i = 0; i < req->n; i++)
        json_array_append_new(paths, json_string(req->paths[i]));
    json_t *question = json_pack("{s:o}", "paths", paths);
    zc_autofree char *body = question ? json_dumps(question, JSON_COMPACT) : NULL;
    json_decref(question);
    struct zc_call_to *to = body ? zc_calls_others(&calls, &n) : NULL;
    if (!to)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (size_t i = 0; i < n; i++)
        to[i].body = strdup(body);
    zc_calls_run(&calls, "free", ANSWER_FREE_MS, to, n);
    for (size_t i = 0; i < n; i++) {
        s->files += (uint64_t)zc_cluster_figure(to[i].reply, NULL, "files");
        s->bytes += (uint64_t)zc_cluster_figure(to[i].reply, NULL, "bytes");
        s->busy += (uint64_t)zc_cluster_figure(to[i].reply, NULL, "busy");
        if (!to[i].reply && r == 0) {
            *err = to[i].err;
            r = err->code ? err->code : -ENOMEM;
        }
    }
    zc_calls_free(to, n);
    return r;
}
