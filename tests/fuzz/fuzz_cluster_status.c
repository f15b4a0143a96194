/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes ask and tell each other for `zcache status --cluster`: bytes are a question to a node,
   and the answer of one, which is added up, sent to the one who asked, and printed. */
#include "cli/calls.h"
#include "cli/cluster_status.h"
#include "cli/cmd_status.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ID "00112233445566778899aabbccddeeff"

static void must(bool ok)
{
    if (!ok)
        __builtin_trap();
}

/* The keys of an index have no end but their length. */
static struct zc_cache_resident resident(char *block, const char *source, const char *path)
{
    struct zc_cache_resident r = {.source_len = strlen(source), .path_len = strlen(path)};
    memcpy(block, path, r.path_len);
    memcpy(block + r.path_len, source, r.source_len);
    r.path = block;
    r.source = block + r.path_len;
    return r;
}

static void question(const uint8_t *data, size_t size)
{
    static const char *const paths[] = {"", "a", "a/b", "ab"};
    struct zc_error err = {0};
    struct zc_kept_of *of;
    size_t n;
    json_t *v = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    int r = zc_kept_parse(json_object_get(v, "kept"), &of, &n, &err);
    must(r == 0 || (r < 0 && err.text[0]));
    for (size_t p = 0; r == 0 && p < ZC_ARRAY_SIZE(paths); p++) {
        char *block = malloc(strlen(paths[p]) + 1);
        struct zc_cache_resident of_path = resident(block, "s", paths[p]);
        for (size_t i = 0; i < n; i++) {
            bool all = strcmp(of[i].source, "s") == 0 && !of[i].prefix[0];
            bool has = zc_kept_has(&of[i], &of_path);
            must(has || !all);
            must(!has || strncmp(of[i].prefix, paths[p], strlen(of[i].prefix)) == 0);
            of[i].objects += has;
        }
        free(block);
    }
    if (r == 0) {
        json_t *told = zc_kept_json(of, n);
        must(json_array_size(told) == n);
        json_decref(told);
        free(of);
    }
    json_decref(v);
}

static void sums_are_sane(const json_t *out)
{
    size_t i;
    const json_t *row;
    json_array_foreach(json_object_get(out, "paths"), i, row)
    {
        double percent = json_number_value(json_object_get(row, "cached_percent"));
        must(percent >= 0 && percent <= 100);
        must(json_integer_value(json_object_get(row, "kept_bytes")) >= 0);
    }
    const char *name;
    json_t *room, *figure;
    json_object_foreach(json_object_get(out, "total"), name, room)
    {
        json_object_foreach(room, name, figure) must(json_integer_value(figure) >= 0);
    }
}

static void answer(const uint8_t *data, size_t size)
{
    struct zc_error err = {0};
    json_t *reply = NULL;
    int r = zc_call_reply((const char *)data, size, &reply, &err);
    must((r == 0) == (reply != NULL) && (r == 0) == !err.text[0]);
    for (const char *c = err.text; *c; c++)
        must((unsigned char)*c >= 0x20 && *c != 0x7f);
    json_t *members =
        json_pack("[{s:s s:s s:s s:s} {s:s s:s s:s}]", "id", ID, "standing", "in", "node", "a",
                  "state", "alive", "id", ID, "standing", "absent", "node", "b");
    json_t *rows = json_pack("[{s:s s:s s:i s:i} {s:s s:i s:i s:i s:i}]", "path", "/", "source",
                             "s3://b", "first", 0, "count", 1, "path", "/a", "files", 2, "bytes",
                             1000, "first", 1, "count", 2);
    json_t *sources = json_array(), *paths = json_array();
    struct zc_cluster_sums s = {.members = members, .total = json_object(), .rows = rows};
    /* As two nodes of which both say so: sums of large figures. */
    for (int i = 0; i < 2; i++)
        zc_cluster_sums_add(&s, ID, reply, err.text);
    zc_cluster_rows_split(rows, sources, paths);
    json_t *out = json_pack("{s:i s:s s:o s:o s:o s:o}", "nodes", 2, "ring", "0", "members",
                            members, "sources", sources, "paths", paths, "total", s.total);
    sums_are_sane(out);
    /* Who asked gets it as text, and reads it. */
    char *text = json_dumps(out, JSON_COMPACT);
    must(text);
    json_t *read = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    must(read);
    zc_status_cluster_print(read);
    json_decref(read);
    free(text);
    json_decref(out);
    json_decref(rows);
    json_decref(reply);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static FILE *shown;
    if (!shown)
        shown = freopen("/dev/null", "w", stdout);
    question(data, size);
    answer(data, size);
    return 0;
}
