/* SPDX-License-Identifier: Apache-2.0 */
/* See cluster_status.h. */
#include "cli/cluster_status.h"
#include "http/ctl_body.h"

#include <errno.h>
#include <string.h>

#define N(v) ((json_int_t)(v))
#define KEPT_MAX 1024

/* ------------------------------------------------------------------ the node that is asked */

int zc_kept_parse(const json_t *list, struct zc_kept_of **out, size_t *n, struct zc_error *err)
{
    size_t count = json_array_size(list);
    if (count > KEPT_MAX)
        return zc_error_set(err, -EINVAL, "more than %d paths at once", KEPT_MAX);
    zc_autofree struct zc_kept_of *of = calloc(count + 1, sizeof(*of));
    if (!of)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, i);
        of[i].source = json_string_value(json_object_get(v, "source"));
        of[i].prefix = json_string_value(json_object_get(v, "prefix"));
        if (!of[i].source || !of[i].prefix)
            return zc_error_set(err, -EINVAL, "\"kept\" needs \"source\" and \"prefix\"");
        of[i].source_len = strlen(of[i].source);
        of[i].prefix_len = strlen(of[i].prefix);
    }
    *out = zc_steal_ptr(&of);
    *n = count;
    return 0;
}

bool zc_kept_has(const struct zc_kept_of *of, const struct zc_cache_resident *r)
{
    return r->source_len == of->source_len && memcmp(r->source, of->source, of->source_len) == 0 &&
           r->path_len >= of->prefix_len && memcmp(r->path, of->prefix, of->prefix_len) == 0 &&
           (of->prefix_len == 0 || r->path_len == of->prefix_len || r->path[of->prefix_len] == '/');
}

json_t *zc_kept_json(const struct zc_kept_of *of, size_t n)
{
    json_t *out = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(out, json_pack("{s:I s:I s:I}", "bytes", N(of[i].bytes), "copy_bytes",
                                             N(of[i].copy_bytes), "objects", N(of[i].objects)));
    return out;
}

/* ------------------------------------------------------------------ the node that asks */

json_int_t zc_cluster_figure(const json_t *v, const char *room, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(room ? json_object_get(v, room) : v, name));
    return ZC_MAX(i, (json_int_t)0);
}

static void sums_add(json_t *to, const char *name, json_int_t n)
{
    json_int_t sum; /* of what other nodes say, which may be anything */
    if (__builtin_add_overflow(zc_cluster_figure(to, NULL, name), n, &sum))
        return;
    json_object_set_new(to, name, json_integer(sum));
}

/* What a node keeps of each row. */
static void sums_rows(json_t *rows, const json_t *status)
{
    size_t i;
    json_t *row;
    const json_t *kept = json_object_get(status, "kept");
    json_array_foreach(rows, i, row)
    {
        size_t first = (size_t)zc_cluster_figure(row, NULL, "first"),
               end = first + (size_t)zc_cluster_figure(row, NULL, "count");
        for (size_t k = first; k < end; k++) {
            const json_t *one = json_array_get(kept, k);
            sums_add(row, "kept_bytes", zc_cluster_figure(one, NULL, "bytes"));
            sums_add(row, "copy_bytes", zc_cluster_figure(one, NULL, "copy_bytes"));
        }
    }
}

static void sums_total(json_t *total, const json_t *status)
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
        sums_add(room, names[i][1], zc_cluster_figure(status, names[i][0], names[i][1]));
    }
}

/* Puts a node's own figures, or why there are none, to its row among the members. */
static void sums_member(json_t *members, const char *id, json_t *status, const char *error)
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

void zc_cluster_sums_add(struct zc_cluster_sums *s, const char *id, json_t *status,
                         const char *error)
{
    sums_member(s->members, id, status, error);
    if (!status)
        return;
    sums_total(s->total, status);
    sums_rows(s->rows, status);
}

void zc_cluster_rows_split(json_t *rows, json_t *sources, json_t *paths)
{
    size_t i;
    json_t *row;
    json_array_foreach(rows, i, row)
    {
        const json_t *bytes = json_object_get(row, "bytes");
        double all = (double)json_integer_value(bytes),
               kept = (double)zc_cluster_figure(row, NULL, "kept_bytes");
        json_object_del(row, "first");
        json_object_del(row, "count");
        if (bytes)
            json_object_set_new(row, "cached_percent",
                                json_real(all > 0 ? ZC_MIN(100 * kept / all, 100.0) : 100.0));
        json_array_append(bytes ? paths : sources, row);
    }
}
