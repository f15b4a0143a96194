/* SPDX-License-Identifier: Apache-2.0 */
/* `zcache status`: what the daemon tells, as it is or laid out for a person. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/cmd_status.h"
#include "cli/progress.h"
#include "cli/target.h"

#include "base/units.h"
#include <zcache/control.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct status_opts {
    bool json, cluster, cached;
};

static const struct zc_opt status_rows[] = {
    {"json", 0, ZC_OPT_FLAG, offsetof(struct status_opts, json), NULL,
     "Print one JSON object (without MOUNTPOINT: a list of them)."},
    {"cluster", 0, ZC_OPT_FLAG, offsetof(struct status_opts, cluster), NULL,
     "Ask all nodes of the cluster that the mount belongs to."},
    {"cached", 0, ZC_OPT_FLAG, offsetof(struct status_opts, cached), NULL,
     "With --cluster: tell how much of what is below MOUNTPOINT, or a path in it, is cached. Lists "
     "all of it."},
};
const struct zc_opt_table zc_status_table = {status_rows, ZC_ARRAY_SIZE(status_rows)};

/* ------------------------------------------------------------------ for a person */

static uint64_t num(const json_t *v, const char *room, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(json_object_get(v, room), name));
    return i > 0 ? (uint64_t)i : 0;
}

static bool flag(const json_t *v, const char *room, const char *name)
{
    return json_is_true(json_object_get(json_object_get(v, room), name));
}

static const char *text(const json_t *v, const char *name)
{
    const char *s = json_string_value(json_object_get(v, name));
    return s ? s : "";
}

#define ROW "  %-14s"
#define COUNT(v, room, name, buf) zc_format_count(num(v, room, name), buf, sizeof(buf))
#define SIZE(v, room, name, buf) zc_format_size(num(v, room, name), buf, sizeof(buf))

static void status_cache_rows(const json_t *v)
{
    char a[32], b[32], c[32];
    uint64_t capacity = num(v, "cache", "capacity_bytes"), used = num(v, "cache", "used_bytes");
    uint64_t hits = num(v, "fetch", "hits"), misses = num(v, "fetch", "misses");

    printf(ROW "%s%s\n", "cache", text(json_object_get(v, "cache"), "dir"),
           flag(v, "cache", "keep") ? ", kept when unmounted" : "");
    printf(ROW "%s of %s (%.1f%%), %s objects, %s of them complete\n", "",
           SIZE(v, "cache", "used_bytes", a), SIZE(v, "cache", "capacity_bytes", b),
           capacity ? 100.0 * (double)used / (double)capacity : 0.0,
           COUNT(v, "cache", "objects", c),
           zc_format_count(num(v, "cache", "complete"), (char[32]){0}, 32));
    printf(ROW "%s objects, %s\n", "evicted", COUNT(v, "cache", "evictions", a),
           SIZE(v, "cache", "evicted_bytes", b));
    if (hits + misses)
        printf(ROW "%.1f%% of opens (%s hits, %s misses)\n", "hit ratio",
               100.0 * (double)hits / (double)(hits + misses), zc_format_count(hits, a, sizeof(a)),
               zc_format_count(misses, b, sizeof(b)));
    if (num(v, "cache", "disk_errors") || flag(v, "cache", "bypassed"))
        printf(ROW "%s errors%s\n", "cache disk", COUNT(v, "cache", "disk_errors", a),
               flag(v, "cache", "bypassed") ? "; not used at the moment" : "");
    if (num(v, "cache", "bad_chunks"))
        printf(ROW "%s of %s checked had wrong bytes and were dropped\n", "bad chunks",
               COUNT(v, "cache", "bad_chunks", a), COUNT(v, "cache", "checked_chunks", b));
    if (flag(v, "cache", "rebuilt"))
        printf(ROW "was damaged at start, and made anew\n", "index");
}

/* One source that takes all of the mount. */
static bool status_is_single(const json_t *sources)
{
    return json_array_size(sources) == 1 &&
           strcmp(text(json_array_get(sources, 0), "path"), "/") == 0;
}

/* What was asked of a store; the caller ends the second line. */
static void status_requests(const char *label, const json_t *v)
{
    char a[32], b[32], c[32], d[32];
    printf(ROW "%s received; requests: %s get, %s list, %s head, %s other\n", label,
           SIZE(v, "backend", "bytes", a), COUNT(v, "backend", "gets", b),
           COUNT(v, "backend", "lists", c), COUNT(v, "backend", "heads", d),
           zc_format_count(num(v, "backend", "others"), (char[32]){0}, 32));
    printf(ROW "%s retries, %s errors, %s in flight", "", COUNT(v, "backend", "retries", a),
           COUNT(v, "backend", "errors", b), COUNT(v, "backend", "in_flight", c));
}

void zc_status_source_rows(const json_t *s, bool named)
{
    char a[32], b[32], c[32];
    const json_t *health = json_object_get(s, "health");
    uint64_t hits = num(s, "fetch", "hits"), misses = num(s, "fetch", "misses");
    if (named)
        printf(ROW "%s\n", text(s, "path"), text(s, "source"));
    if (named && json_is_true(json_object_get(health, "ok")))
        printf(ROW "healthy\n", "");
    else if (!json_is_true(json_object_get(health, "ok")))
        printf(ROW "not answering for %s, %s failures: %s\n", named ? "" : "health",
               zc_format_time((uint64_t)json_real_value(json_object_get(health, "since_s")), a,
                              sizeof(a)),
               COUNT(s, "health", "failures", b), text(health, "error"));
    if (!named)
        return;
    status_requests("", s);
    printf("; %s hits, %s misses, %s files open\n", zc_format_count(hits, a, sizeof(a)),
           zc_format_count(misses, b, sizeof(b)), COUNT(s, "fetch", "open", c));
}

static void status_print(const json_t *v)
{
    char a[32], b[32], c[32], d[32];
    double up = json_real_value(json_object_get(v, "uptime_s"));
    const json_t *cpu = json_object_get(v, "cpu");

    const json_t *sources = json_object_get(v, "sources");
    bool several = json_is_array(sources) && !status_is_single(sources);
    if (several)
        printf("%zu sources at %s\n", json_array_size(sources), text(v, "mountpoint"));
    else
        printf("%s at %s\n", text(v, "source"), text(v, "mountpoint"));
    printf(ROW "zcache %s, process %d, up %s\n", "daemon", text(v, "version"),
           (int)json_integer_value(json_object_get(v, "pid")),
           zc_format_time((uint64_t)up, a, sizeof(a)));
    printf(ROW "%s\n", "passthrough", text(v, "passthrough"));
    printf(ROW "%s\n", "io_uring", text(v, "io_uring"));
    status_cache_rows(v);
    const json_t *cluster = json_object_get(v, "cluster");
    if (cluster && num(v, "cluster", "nodes") == 1 && *text(json_object_get(v, "options"), "join"))
        printf(ROW "this node, %s, alone: no other one is in sight\n", "cluster",
               text(cluster, "node"));
    else if (cluster)
        printf(ROW "%d nodes; this one, %s, owns %.1f%%\n", "cluster",
               (int)json_integer_value(json_object_get(cluster, "nodes")), text(cluster, "node"),
               json_number_value(json_object_get(cluster, "share_percent")));
    printf(ROW "%s, %s passed through; daemon answered %s reads, %s\n", "opens",
           COUNT(v, "fuse", "opens", a), COUNT(v, "fuse", "opens_passthrough", b),
           COUNT(v, "fuse", "reads", c), SIZE(v, "fuse", "read_bytes", d));
    status_requests("from source", v);
    printf("\n");
    printf(ROW "%s folders and %s names in memory, %s listings", "metadata",
           COUNT(v, "vfs", "dirs", a), COUNT(v, "vfs", "entries", b),
           COUNT(v, "vfs", "listings", c));
    if (num(v, "vfs", "hidden"))
        printf("; %s names cannot be shown", COUNT(v, "vfs", "hidden", d));
    printf("\n" ROW "%s, at most %s\n", "memory", SIZE(v, "memory", "rss_bytes", a),
           SIZE(v, "memory", "peak_rss_bytes", b));
    printf(ROW "%.2f s user, %.2f s system\n", "cpu",
           json_real_value(json_object_get(cpu, "user_s")),
           json_real_value(json_object_get(cpu, "system_s")));
    size_t i;
    json_t *s;
    json_array_foreach(sources, i, s) zc_status_source_rows(s, several);
}

/* ------------------------------------------------------------------ asking */

static json_t *status_of(const struct zc_mnts *mnts, const struct zc_mnt *m, struct zc_error *err)
{
    zc_autofree char *sock = zc_target_socket(mnts, m, err);
    return sock ? zc_client_json(sock, ZCACHE_CONTROL_STATUS, NULL, err) : NULL;
}

static void status_json(const json_t *v)
{
    zc_autofree char *s = json_dumps(v, JSON_INDENT(2));
    puts(s ? s : "");
}

/* The part of the mount that is to be counted, as a request. Caller frees. */
static char *status_cached_body(const char *rel, struct zc_error *err)
{
    json_t *v = json_pack("{s:[s]}", "paths", rel);
    char *body = v ? json_dumps(v, JSON_COMPACT) : NULL;
    json_decref(v);
    if (!body)
        zc_error_set(err, -EILSEQ, "'%.200s' is not UTF-8", rel);
    return body;
}

static int status_cluster(const struct zc_mnts *mnts, const char *path, const struct status_opts *o)
{
    struct zc_error err = {0};
    struct zc_target t = {0};
    if (zc_target_find(mnts, path, &t, &err) < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    zc_autofree char *rel = t.rel;
    zc_autofree char *sock = zc_target_socket(mnts, t.mnt, &err);
    zc_autofree char *body = o->cached && sock ? status_cached_body(rel, &err) : NULL;
    json_t *v = sock && !o->cached == !body
                    ? zc_client_json(sock, ZCACHE_CONTROL_CLUSTER, body, &err)
                    : NULL;
    if (!v)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    if (o->json)
        status_json(v);
    else
        zc_status_cluster_print(v);
    json_decref(v);
    return ZC_EXIT_OK;
}

static int status_one(const struct zc_mnts *mnts, const char *path, bool json)
{
    struct zc_error err = {0};
    struct zc_target t = {0};
    zc_autofree char *point = NULL;
    /* A mount point is looked for by its name first: a dead one cannot be looked at. */
    const struct zc_mnt *m =
        zc_target_point(path, &point, NULL) == 0 ? zc_mnts_at(mnts, point) : NULL;
    if (!m || !zc_mnt_is_ours(m)) {
        if (zc_target_find(mnts, path, &t, &err) < 0)
            return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
        m = t.mnt;
        free(t.rel);
    }
    json_t *v = status_of(mnts, m, &err);
    if (!v)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    if (json)
        status_json(v);
    else
        status_print(v);
    json_decref(v);
    return ZC_EXIT_OK;
}

static int status_all(const struct zc_mnts *mnts, bool json)
{
    json_t *list = json_array();
    int status = ZC_EXIT_OK;
    size_t shown = 0;
    for (size_t i = 0; i < mnts->n; i++) {
        struct zc_error err = {0};
        const struct zc_mnt *m = &mnts->m[i];
        if (!zc_mnt_is_ours(m) || zc_mnts_at(mnts, m->point) != m || strcmp(m->root, "/") != 0)
            continue;
        json_t *v = status_of(mnts, m, &err);
        if (!v) {
            status = zc_cli_fail(ZC_EXIT_FAIL, "%s: %s", m->point, err.text);
            continue;
        }
        if (!json) {
            if (shown++)
                putchar('\n');
            status_print(v);
        }
        json_array_append_new(list, v);
    }
    if (json)
        status_json(list);
    else if (!shown && status == ZC_EXIT_OK)
        puts("nothing is mounted by zcache");
    json_decref(list);
    return status;
}

int zc_cmd_status(int argc, char **argv)
{
    struct status_opts o = {0};
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    int status;
    if (zc_opt_parse(zc_status_table, false, argc, argv, &o, &args, &err) < 0) {
        status = zc_cli_usage("status", &err);
    } else if (args.help) {
        status = zc_cli_help("status");
    } else if (args.n_pos > 1) {
        zc_error_set(&err, -EINVAL, "status takes one MOUNTPOINT");
        status = zc_cli_usage("status", &err);
    } else if (o.cluster && args.n_pos == 0) {
        zc_error_set(&err, -EINVAL, "status --cluster takes a MOUNTPOINT");
        status = zc_cli_usage("status", &err);
    } else if (o.cached && !o.cluster) {
        zc_error_set(&err, -EINVAL, "--cached has no effect without --cluster");
        status = zc_cli_usage("status", &err);
    } else {
        struct zc_mnts mnts = {0};
        if (zc_mnts_read(&mnts, &err) < 0)
            status = zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
        else if (o.cluster)
            status = status_cluster(&mnts, args.pos[0], &o);
        else
            status =
                args.n_pos ? status_one(&mnts, args.pos[0], o.json) : status_all(&mnts, o.json);
        zc_mnts_free(&mnts);
    }
    zc_opt_args_free(&args);
    return status;
}
