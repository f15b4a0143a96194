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
#include "cli/daemon_cluster.h"
#include "http/ctl_body.h"

#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define N(v) ((json_int_t)(v))
#define ANSWER_KEPT_MAX 1024
#define ANSWER_STATUS_MS 5000
#define ANSWER_FREE_MS 60000

/* ------------------------------------------------------------------ what is kept */

struct kept_of {
    const char *source, *prefix;
    size_t source_len, prefix_len;
    uint64_t bytes, copy_bytes, objects;
};

struct kept {
    struct zc_cluster *cluster;
    struct kept_of *of;
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
        struct kept_of *o = &k->of[i];
        if (r->source_len != o->source_len || memcmp(r->source, o->source, o->source_len) != 0 ||
            r->path_len < o->prefix_len || memcmp(r->path, o->prefix, o->prefix_len) != 0 ||
            (o->prefix_len && r->path_len > o->prefix_len && r->path[o->prefix_len] != '/'))
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
    struct kept k = {.cluster = d->cluster, .n = json_array_size(list)};
    if (k.n > ANSWER_KEPT_MAX) {
        zc_error_set(err, -EINVAL, "more than %d paths at once", ANSWER_KEPT_MAX);
        return NULL;
    }
    zc_autofree struct kept_of *of = calloc(k.n + 1, sizeof(*of));
    k.of = of;
    for (size_t i = 0; k.of && i < k.n; i++) {
        const json_t *v = json_array_get(list, i);
        k.of[i].source = json_string_value(json_object_get(v, "source"));
        k.of[i].prefix = json_string_value(json_object_get(v, "prefix"));
        if (!k.of[i].source || !k.of[i].prefix) {
            zc_error_set(err, -EINVAL, "\"kept\" needs \"source\" and \"prefix\"");
            return NULL;
        }
        k.of[i].source_len = strlen(k.of[i].source);
        k.of[i].prefix_len = strlen(k.of[i].prefix);
    }
    int r = !k.of ? -ENOMEM : k.n ? zc_cache_census(d->cache, kept_resident, &k) : 0;
    if (r < 0) {
        zc_error_set(err, r, "the index cannot be read: %s", strerror(-r));
        return NULL;
    }
    json_t *out = json_array();
    for (size_t i = 0; i < k.n; i++)
        json_array_append_new(out,
                              json_pack("{s:I s:I s:I}", "bytes", N(k.of[i].bytes), "copy_bytes",
                                        N(k.of[i].copy_bytes), "objects", N(k.of[i].objects)));
    return out;
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

static json_int_t number(const json_t *v, const char *room, const char *name)
{
    return json_integer_value(json_object_get(room ? json_object_get(v, room) : v, name));
}

static void all_add(json_t *to, const char *name, json_int_t n)
{
    json_int_t sum; /* of what other nodes say, which may be anything */
    if (__builtin_add_overflow(number(to, NULL, name), n, &sum))
        return;
    json_object_set_new(to, name, json_integer(sum));
}

/* What a node keeps of each row. */
static void rows_add(json_t *rows, const json_t *status)
{
    size_t i;
    json_t *row;
    const json_t *kept = json_object_get(status, "kept");
    json_array_foreach(rows, i, row)
    {
        size_t first = (size_t)number(row, NULL, "first"),
               end = first + (size_t)number(row, NULL, "count");
        for (size_t k = first; k < end; k++) {
            const json_t *one = json_array_get(kept, k);
            all_add(row, "kept_bytes", number(one, NULL, "bytes"));
            all_add(row, "copy_bytes", number(one, NULL, "copy_bytes"));
        }
    }
}

/* Sources first, then paths that were counted, with the part that is kept. */
static void rows_split(json_t *rows, json_t *sources, json_t *paths)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *bytes = json_object_get(row, "bytes");
        double all = (double)json_integer_value(bytes),
               kept = (double)number(row, NULL, "kept_bytes");
        json_object_del(row, "first");
        json_object_del(row, "count");
        if (bytes)
            json_object_set_new(row, "cached_percent",
                                json_real(all > 0 ? ZC_MIN(100 * kept / all, 100.0) : 100.0));
        json_array_append(bytes ? paths : sources, row);
    }
}

static void all_total(json_t *total, const json_t *status)
{
    static const char *const names[][2] = {
        {"cache", "capacity_bytes"}, {"cache", "used_bytes"}, {"cache", "spare_bytes"},
        {"cache", "objects"},        {"opens", "hits"},       {"opens", "misses"},
        {"bytes", "disk"},           {"bytes", "peer"},       {"bytes", "store"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(names); i++) {
        json_t *room = json_object_get(total, names[i][0]);
        if (!room) {
            room = json_object();
            json_object_set_new(total, names[i][0], room);
        }
        all_add(room, names[i][1], number(status, names[i][0], names[i][1]));
    }
}

/* Puts a node's own figures, or why there are none, to its row among the members. */
static void member_set(json_t *members, const char *id, json_t *status, const char *error)
{
    size_t i;
    json_t *m;
    json_array_foreach(members, i, m)
    {
        const char *mine = json_string_value(json_object_get(m, "id"));
        const char *standing = json_string_value(json_object_get(m, "standing"));
        if (!mine || strcmp(mine, id) != 0 || !standing || strcmp(standing, "in") != 0)
            continue;
        if (status)
            json_object_set(m, "status", status);
        else
            json_object_set_new(m, "error", zc_ctl_text(error));
    }
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
    json_t *members = json_object_get(out, "members"), *sources = json_array(),
           *paths = json_array();
    zc_cluster_self(d->cluster, &self);
    zc_digest_hex(id, zc_digest_load(self.id));
    member_set(members, id, own, NULL);
    all_total(total, own);
    rows_add(w.rows, own);
    for (size_t i = 0; i < n; i++) {
        zc_digest_hex(id, zc_digest_load(to[i].node.id));
        member_set(members, id, to[i].reply, to[i].err.text);
        if (to[i].reply) {
            all_total(total, to[i].reply);
            rows_add(w.rows, to[i].reply);
        }
    }
    rows_split(w.rows, sources, paths);
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
        s->files += (uint64_t)number(to[i].reply, NULL, "files");
        s->bytes += (uint64_t)number(to[i].reply, NULL, "bytes");
        s->busy += (uint64_t)number(to[i].reply, NULL, "busy");
        if (!to[i].reply && r == 0) {
            *err = to[i].err;
            r = err->code ? err->code : -ENOMEM;
        }
    }
    zc_calls_free(to, n);
    return r;
}
