/* SPDX-License-Identifier: Apache-2.0 */
/* `zcache source`: asks a running daemon to show another source, to take one away, or which it has.
 * The daemon checks the options again; here they are parsed so that a wrong one is refused before
 * anything is asked, and so that relative paths are made absolute. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/plan.h"
#include "cli/target.h"

#include <zcache/control.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct source_opts {
    bool force, json;
};

static const struct zc_opt remove_rows[] = {
    {"force", 0, ZC_OPT_FLAG, offsetof(struct source_opts, force), NULL,
     "Remove it although files of it are open: what is not cached of them fails with ESTALE."},
};
static const struct zc_opt list_rows[] = {
    {"json", 0, ZC_OPT_FLAG, offsetof(struct source_opts, json), NULL, "Print one JSON object."},
};
/* For --help: what its parts have of their own; add has zc_source_table. */
static const struct zc_opt source_rows[] = {
    {"force", 0, ZC_OPT_FLAG, 0, NULL,
     "remove: although files of it are open; what is not cached of them fails with ESTALE."},
    {"json", 0, ZC_OPT_FLAG, 0, NULL, "list: print one JSON object."},
};
const struct zc_opt_table zc_source_cmd_table = {source_rows, ZC_ARRAY_SIZE(source_rows)};

static const struct zc_opt_table remove_table = {remove_rows, ZC_ARRAY_SIZE(remove_rows)};
static const struct zc_opt_table list_table = {list_rows, ZC_ARRAY_SIZE(list_rows)};

/* Asks the daemon of the mount at or around `path`. */
static json_t *source_ask(const char *path, const char *what, const json_t *body,
                          struct zc_error *err)
{
    struct zc_mnts mnts = {0};
    struct zc_target t = {0};
    json_t *v = NULL;
    zc_autofree char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    zc_autofree char *point = NULL;
    if (body && !text) {
        zc_error_set(err, -ENOMEM, "no memory");
        return NULL;
    }
    if (zc_mnts_read(&mnts, err) == 0) {
        const struct zc_mnt *m =
            zc_target_point(path, &point, NULL) == 0 ? zc_mnts_at(&mnts, point) : NULL;
        if (m && zc_mnt_is_ours(m)) {
            zc_autofree char *sock = zc_target_socket(&mnts, m, err);
            v = sock ? zc_client_json(sock, what, text, err) : NULL;
        } else if (zc_target_find(&mnts, path, &t, err) == 0) {
            zc_error_set(err, -EINVAL, "'%s' is not a mount point, but lies in one: '%s'", path,
                         t.mnt->point);
            free(t.rel);
        }
    }
    zc_mnts_free(&mnts);
    return v;
}

static int source_fail(json_t *v, const struct zc_error *err)
{
    if (!v)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err->text);
    json_decref(v);
    return ZC_EXIT_OK;
}

/* ------------------------------------------------------------------ add */

/* The options that were given, as text. */
static json_t *add_options(const struct zc_plan_source *s, const struct zc_opt_args *args)
{
    json_t *all = json_object();
    for (size_t i = 0; i < zc_source_table.n; i++) {
        const struct zc_opt *row = &zc_source_table.opts[i];
        if (!(args->given >> i & 1))
            continue;
        const char *at = row->type == ZC_OPT_PATH
                             ? *(const char *const *)((const char *)&s->o + row->offset)
                             : args->text[i];
        json_object_set_new(all, row->name,
                            row->type == ZC_OPT_FLAG ? json_true() : json_string(at));
    }
    return all;
}

static int add_run(const struct zc_mount_opts *o, const struct zc_opt_args *args,
                   struct zc_error *err)
{
    struct zc_plan p;
    zc_plan_init(&p);
    int status = ZC_EXIT_USAGE, r = zc_plan_add_word(&p, args->pos[1], err);
    if (r == 0 && !*p.s[0]->at)
        r = zc_error_set(err, -EINVAL, "'%.300s' names no path: write /PATH=SOURCE", args->pos[1]);
    if (r == 0) {
        p.s[0]->o = *o;
        r = zc_source_opts_finish(o, args->given, &p.s[0]->src, err);
    }
    if (r < 0) {
        status = zc_cli_usage("source", err);
    } else if (zc_plan_source_resolve(p.s[0], err) < 0) {
        status = zc_cli_fail(ZC_EXIT_FAIL, "%s", err->text);
    } else {
        json_t *body = json_pack("{s:s s:s s:o}", "path", p.s[0]->at, "source", p.s[0]->text,
                                 "options", add_options(p.s[0], args));
        if (!body)
            zc_error_set(err, -EILSEQ, "'%.300s' is not UTF-8", args->pos[1]);
        json_t *v = body ? source_ask(args->pos[0], ZCACHE_CONTROL_SOURCE_ADD, body, err) : NULL;
        json_decref(body);
        const char *note = json_string_value(json_object_get(v, "note"));
        if (note)
            fprintf(stderr, "zcache: %s\n", note);
        status = source_fail(v, err);
    }
    zc_plan_free(&p);
    return status;
}

/* An option of the mount is known, but not for a source: that is another mistake than a wrong word.
 */
static void add_not_here(int argc, char **argv, struct zc_error *err)
{
    for (int i = 1; i < argc && strncmp(err->text, "unknown", 7) == 0; i++) {
        const struct zc_opt *o = NULL;
        if (strncmp(argv[i], "--", 2) != 0)
            continue;
        zc_autofree char *name = strndup(argv[i] + 2, strcspn(argv[i] + 2, "="));
        if (name && !zc_opt_find(zc_source_table, name))
            o = zc_opt_find(zc_mount_table, name);
        if (o)
            zc_error_set(err, -EINVAL,
                         "--%s is an option of the whole mount, which 'zcache mount' takes",
                         o->name);
    }
}

static int source_add(int argc, char **argv, struct zc_opt_args *args)
{
    struct zc_mount_opts o;
    struct zc_error err = {0};
    zc_mount_opts_init(&o);
    if (zc_opt_parse(zc_source_table, false, argc, argv, &o, args, &err) < 0) {
        add_not_here(argc, argv, &err);
        return zc_cli_usage("source", &err);
    }
    if (args->help)
        return zc_cli_help("source");
    if (args->n_pos != 2) {
        zc_error_set(&err, -EINVAL, "source add takes a MOUNTPOINT and /PATH=SOURCE, %zu given",
                     args->n_pos);
        return zc_cli_usage("source", &err);
    }
    if (strstr(args->pos[0], "://")) {
        zc_error_set(&err, -EINVAL, "'%.300s' is a source; the MOUNTPOINT comes first",
                     args->pos[0]);
        return zc_cli_usage("source", &err);
    }
    return add_run(&o, args, &err);
}

/* ------------------------------------------------------------------ remove and list */

static int source_remove(int argc, char **argv, struct zc_opt_args *args)
{
    struct source_opts o = {0};
    struct zc_error err = {0};
    if (zc_opt_parse(remove_table, false, argc, argv, &o, args, &err) < 0)
        return zc_cli_usage("source", &err);
    if (args->help)
        return zc_cli_help("source");
    if (args->n_pos != 2 || args->pos[1][0] != '/') {
        zc_error_set(&err, -EINVAL,
                     "source remove takes a MOUNTPOINT and the /PATH in it where the source is");
        return zc_cli_usage("source", &err);
    }
    json_t *body = json_pack("{s:s s:b}", "path", args->pos[1], "force", o.force);
    if (!body)
        zc_error_set(&err, -EILSEQ, "'%.300s' is not UTF-8", args->pos[1]);
    json_t *v = body ? source_ask(args->pos[0], ZCACHE_CONTROL_SOURCE_REMOVE, body, &err) : NULL;
    json_decref(body);
    return source_fail(v, &err);
}

static int source_list(int argc, char **argv, struct zc_opt_args *args)
{
    struct source_opts o = {0};
    struct zc_error err = {0};
    if (zc_opt_parse(list_table, false, argc, argv, &o, args, &err) < 0)
        return zc_cli_usage("source", &err);
    if (args->help)
        return zc_cli_help("source");
    if (args->n_pos != 1) {
        zc_error_set(&err, -EINVAL, "source list takes one MOUNTPOINT");
        return zc_cli_usage("source", &err);
    }
    json_t *v = source_ask(args->pos[0], ZCACHE_CONTROL_SOURCES, NULL, &err), *s;
    size_t i;
    if (v && o.json) {
        zc_autofree char *text = json_dumps(v, JSON_INDENT(2));
        puts(text ? text : "");
    } else if (v) {
        json_array_foreach(json_object_get(v, "sources"), i, s) zc_status_source_rows(s, true);
    }
    return source_fail(v, &err);
}

int zc_cmd_source(int argc, char **argv)
{
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    const char *word = argc > 1 ? argv[1] : "";
    int status;
    if (strcmp(word, "add") == 0) {
        status = source_add(argc - 1, argv + 1, &args);
    } else if (strcmp(word, "remove") == 0) {
        status = source_remove(argc - 1, argv + 1, &args);
    } else if (strcmp(word, "list") == 0) {
        status = source_list(argc - 1, argv + 1, &args);
    } else if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0) {
        status = zc_cli_help("source");
    } else {
        zc_error_set(&err, -EINVAL,
                     *word ? "source has no '%.100s': there are add, remove and list"
                           : "source needs one of add, remove and list%s",
                     word);
        status = zc_cli_usage("source", &err);
    }
    zc_opt_args_free(&args);
    return status;
}
