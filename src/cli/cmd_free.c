/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/paths.h"

#include "base/units.h"
#include <zcache/control.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct free_opts {
    bool cluster;
};

static const struct zc_opt free_rows[] = {
    {"cluster", 0, ZC_OPT_FLAG, offsetof(struct free_opts, cluster), NULL,
     "On all nodes of the cluster."},
};
const struct zc_opt_table zc_free_table = {free_rows, ZC_ARRAY_SIZE(free_rows)};

static uint64_t free_number(const json_t *v, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(v, name));
    return i > 0 ? (uint64_t)i : 0;
}

static int free_run(struct zc_paths *p, struct zc_error *err)
{
    uint64_t files = 0, bytes = 0, busy = 0;
    char a[32], b[24], c[32];
    int r = 0;
    for (size_t i = 0; i < p->n && r == 0; i++) {
        for (size_t k = 0; k < p->groups[i].n_bodies && r == 0; k++) {
            json_t *v = zc_client_json(p->groups[i].socket, ZCACHE_CONTROL_FREE,
                                       p->groups[i].bodies[k], err);
            if (!v)
                r = err->code;
            files += free_number(v, "files");
            bytes += free_number(v, "bytes");
            busy += free_number(v, "busy");
            json_decref(v);
        }
    }
    printf("freed %s files, %s", zc_format_count(files, a, sizeof(a)),
           zc_format_size(bytes, b, sizeof(b)));
    if (busy)
        printf("; %s left, because they are open", zc_format_count(busy, c, sizeof(c)));
    putchar('\n');
    return r;
}

int zc_cmd_free(int argc, char **argv)
{
    struct free_opts o = {0};
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    int status = ZC_EXIT_OK, r = 0;
    if (zc_opt_parse(zc_free_table, false, argc, argv, &o, &args, &err) < 0) {
        status = zc_cli_usage("free", &err);
    } else if (args.help) {
        status = zc_cli_help("free");
    } else if (args.n_pos == 0) {
        zc_error_set(&err, -EINVAL, "free takes PATHs");
        status = zc_cli_usage("free", &err);
    } else {
        struct zc_paths p = {0};
        r = zc_paths_init(&p, 0, o.cluster, &err);
        for (size_t i = 0; i < args.n_pos && r == 0; i++)
            r = zc_paths_add(&p, args.pos[i], &err);
        if (r == 0)
            r = zc_paths_finish(&p, &err);
        if (r == 0)
            r = free_run(&p, &err);
        if (r < 0)
            status = zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
        zc_paths_free(&p);
    }
    zc_opt_args_free(&args);
    return status;
}
