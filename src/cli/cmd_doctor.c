/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `zcache doctor SOURCE`, or --config FILE, which looks at its sources one by one. The options are
 * those of mount that say how to reach a source: their rows here lead to the same fields, so that
 * what mounts with them is looked at with them, and the checks of mount refuse what would do
 * nothing.
 */
#include "cli/cli.h"
#include "cli/doctor.h"
#include "cli/plan.h"

#include "base/log.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

struct doctor_opts {
    struct zc_mount_opts mount;
    bool json;
};

#define AT(field) (offsetof(struct doctor_opts, mount) + offsetof(struct zc_mount_opts, field))

static const struct zc_opt doctor_rows[] = {
    {"json", 0, ZC_OPT_FLAG, offsetof(struct doctor_opts, json), NULL,
     "Print a JSON object for each source."},
    {"config", 0, ZC_OPT_PATH, AT(config), "FILE",
     "Look at the sources of this configuration file, or those named by their /PATH."},
    {"region", 0, ZC_OPT_STRING, AT(region), "REGION", "Region of the bucket.", .flags = ZC_OPT_S3},
    {"endpoint-url", 0, ZC_OPT_STRING, AT(endpoint_url), "URL", "Where the S3 service is.",
     .flags = ZC_OPT_S3},
    {"force-path-style", 0, ZC_OPT_FLAG, AT(force_path_style), NULL,
     "Name the bucket in the path of requests.", .flags = ZC_OPT_S3},
    {"profile", 0, ZC_OPT_STRING, AT(profile), "NAME", "Profile of the AWS configuration.",
     .flags = ZC_OPT_S3},
    {"no-sign-request", 0, ZC_OPT_FLAG, AT(no_sign_request), NULL,
     "Send requests without credentials.", .flags = ZC_OPT_S3},
    {"requester-pays", 0, ZC_OPT_FLAG, AT(requester_pays), NULL,
     "Agree to be charged for the requests.", .flags = ZC_OPT_S3},
    {"expected-bucket-owner", 0, ZC_OPT_STRING, AT(expected_bucket_owner), "ACCOUNT",
     "Fail unless this account owns the bucket.", .flags = ZC_OPT_S3},
    {"ca-bundle", 0, ZC_OPT_PATH, AT(ca_bundle), "FILE", "PEM file of the authorities to trust.",
     .flags = ZC_OPT_S3 | ZC_OPT_HDFS},
    {"no-verify-ssl", 0, ZC_OPT_FLAG, AT(no_verify_ssl), NULL,
     "Do not check the server's certificate.", .flags = ZC_OPT_S3 | ZC_OPT_HDFS},
    {"hadoop-conf", 0, ZC_OPT_PATH, AT(hadoop_conf), "DIR",
     "Folder of core-site.xml and hdfs-site.xml.", .flags = ZC_OPT_HDFS},
    {"hdfs-user", 0, ZC_OPT_STRING, AT(hdfs_user), "NAME",
     "Who to be on a cluster without Kerberos.", .flags = ZC_OPT_HDFS},
    {"hdfs-keytab", 0, ZC_OPT_PATH, AT(hdfs_keytab), "FILE",
     "Log in with Kerberos from this keytab.", .flags = ZC_OPT_HDFS},
    {"hdfs-principal", 0, ZC_OPT_STRING, AT(hdfs_principal), "NAME",
     "Log in with Kerberos as this principal.", .flags = ZC_OPT_HDFS},
    {"hdfs-token", 0, ZC_OPT_PATH, AT(hdfs_token), "FILE", "File with a delegation token.",
     .flags = ZC_OPT_HDFS},
    {"cache-dir", 0, ZC_OPT_PATH, AT(cache_dir), "DIR", "Folder of the cache, to be looked at."},
    {"free-space-ratio", 0, ZC_OPT_RATIO, AT(free_space_ratio), "SHARE",
     "Share of the cache's file system that is to stay free."},
    {"allow-tmpfs", 0, ZC_OPT_FLAG, AT(allow_tmpfs), NULL, "Let the cache lie in memory (tmpfs)."},
};
const struct zc_opt_table zc_doctor_table = {doctor_rows, ZC_ARRAY_SIZE(doctor_rows)};

/* ------------------------------------------------------------------ telling */

static const char *const doc_words[] = {"ok", "-", "warning", "FAILED"};

void zc_doc_group(struct zc_doctor *d, const char *name)
{
    d->group = name;
    d->group_shown = false;
}

void zc_doc_step(struct zc_doctor *d, const char *step, enum zc_doc_result r, double ms,
                 const char *fix, const char *fmt, ...)
{
    char text[2000];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    d->failed += r == ZC_DOC_FAILED;
    d->warnings += r == ZC_DOC_WARNING;
    if (r != ZC_DOC_WARNING && r != ZC_DOC_FAILED)
        fix = NULL;
    if (d->json) {
        json_t *o = json_object();
        json_object_set_new(o, "group", json_string(d->group));
        json_object_set_new(o, "step", json_string(step));
        json_object_set_new(o, "result",
                            json_string(r == ZC_DOC_NOTE     ? "note"
                                        : r == ZC_DOC_FAILED ? "failed"
                                                             : doc_words[r]));
        json_object_set_new(o, "text", json_sprintf("%s", text));
        if (fix && fix[0])
            json_object_set_new(o, "fix", json_sprintf("%s", fix));
        if (ms >= 0)
            json_object_set_new(o, "ms", json_real((double)(int64_t)(ms * 1000) / 1000));
        json_array_append_new(d->steps, o);
        return;
    }
    if (!d->group_shown)
        printf("%s\n", d->group);
    d->group_shown = true;
    printf("  %-8s %-19s %s", doc_words[r], step, text);
    if (ms >= 0)
        printf(ms < 10 ? " (%.1f ms)" : " (%.0f ms)", ms);
    putchar('\n');
    if (fix && fix[0])
        printf("  %-8s %-19s -> %s\n", "", "", fix);
    fflush(stdout);
}

static void doctor_end(struct zc_doctor *d)
{
    if (d->json) {
        json_t *o = json_object();
        json_object_set_new(o, "source", json_sprintf("%s", d->source));
        json_object_set_new(o, "version", json_string(ZC_VERSION));
        json_object_set_new(o, "ok", json_boolean(d->failed == 0));
        json_object_set_new(o, "failed", json_integer(d->failed));
        json_object_set_new(o, "warnings", json_integer(d->warnings));
        json_object_set_new(o, "steps", d->steps);
        char *s = json_dumps(o, JSON_INDENT(2));
        puts(s ? s : "");
        free(s);
        json_decref(o);
        return;
    }
    if (d->failed)
        printf("\n%u failed, %u warning%s\n", d->failed, d->warnings, d->warnings == 1 ? "" : "s");
    else if (d->warnings)
        printf("\nit would mount; %u warning%s\n", d->warnings, d->warnings == 1 ? "" : "s");
    else
        printf("\nall is well\n");
}

/* ------------------------------------------------------------------ the command */

/* The checks of mount, on the rows that mount and doctor share. */
static int doctor_check(struct zc_mount_opts *o, const struct zc_opt_args *args,
                        const struct zc_source *src, struct zc_error *err)
{
    uint64_t given = 0;
    for (size_t i = 0; i < zc_source_table.n; i++)
        if (zc_opt_given(zc_doctor_table, args, zc_source_table.opts[i].name))
            given |= UINT64_C(1) << i;
    int r = zc_source_opts_finish(o, given, src, err);
    return r < 0 ? r : zc_mount_opts_finish(o, 0, geteuid(), err);
}

static int doctor_run(const struct zc_mount_opts *o, bool json, const struct zc_source *src,
                      const char *source)
{
    struct zc_net_config net = {.loops = 1};
    struct zc_doctor d = {
        .o = o, .src = src, .source = source, .json = json, .steps = json_array()};
    signal(SIGPIPE, SIG_IGN);
    zc_log_set_level(ZC_LOG_ERR);
    int r = zc_net_new(&net, &d.net);
    if (r < 0) {
        json_decref(d.steps);
        return zc_cli_fail(ZC_EXIT_FAIL, "cannot start the network's thread: %s", strerror(-r));
    }
    if (!d.json)
        printf("zcache %s looks at %s\n\n", ZC_VERSION, source);
    zc_doc_local(&d);
    if (src->scheme == ZC_SCHEME_S3)
        zc_doc_s3(&d);
    else if (zc_scheme_is_hdfs(src->scheme))
        zc_doc_hdfs(&d);
    else
        zc_doc_dir(&d);
    doctor_end(&d);
    if (!d.json)
        json_decref(d.steps);
    zc_net_free(d.net);
    return d.failed ? ZC_EXIT_FAIL : ZC_EXIT_OK;
}

static int doctor_one(struct doctor_opts *o, const struct zc_opt_args *args, struct zc_error *err)
{
    struct zc_source src = {0};
    int r = args->n_pos == 1
                ? zc_source_parse(args->pos[0], &src, err)
                : zc_error_set(err, -EINVAL, "doctor takes one SOURCE, %zu given", args->n_pos);
    if (r == 0)
        r = doctor_check(&o->mount, args, &src, err);
    int status =
        r < 0 ? zc_cli_usage("doctor", err) : doctor_run(&o->mount, o->json, &src, args->pos[0]);
    zc_source_free(&src);
    return status;
}

/* Is this source asked for? Without names all are. */
static bool doctor_named(const struct zc_plan_source *s, const struct zc_opt_args *args)
{
    for (size_t i = 0; i < args->n_pos; i++)
        if (args->pos[i][0] == '/' && strcmp(args->pos[i] + 1, s->at) == 0)
            return true;
    return args->n_pos == 0;
}

static int doctor_understand(const struct doctor_opts *o, const struct zc_opt_args *args,
                             struct zc_plan *p, struct zc_error *err)
{
    for (size_t i = 0; i < zc_doctor_table.n; i++) {
        const char *name = zc_doctor_table.opts[i].name;
        if (strcmp(name, "json") != 0 && strcmp(name, "config") != 0 &&
            zc_opt_given(zc_doctor_table, args, name))
            return zc_error_set(err, -EINVAL, "--%s: with --config the file says it", name);
    }
    int r = zc_plan_read(p, o->mount.config, err);
    if (r == 0)
        r = zc_plan_finish(p, geteuid(), err);
    for (size_t i = 0; i < args->n_pos && r == 0; i++) {
        size_t n = 0;
        while (n < p->n && (args->pos[i][0] != '/' || strcmp(args->pos[i] + 1, p->s[n]->at) != 0))
            n++;
        if (n == p->n)
            r = zc_error_set(err, -ENOENT, "%.300s has no section [%.300s]", o->mount.config,
                             args->pos[i]);
    }
    return r;
}

static int doctor_file(const struct doctor_opts *o, const struct zc_opt_args *args,
                       struct zc_error *err)
{
    struct zc_plan p;
    int status = ZC_EXIT_OK;
    zc_plan_init(&p);
    int r = doctor_understand(o, args, &p, err);
    if (r < 0)
        status = zc_cli_usage("doctor", err);
    for (size_t i = 0, shown = 0; i < p.n && r == 0; i++) {
        struct zc_plan_source *s = p.s[i];
        zc_autobuf struct zc_buf name = {0};
        if (!doctor_named(s, args))
            continue;
        zc_buf_addf(&name, "/%s=%s", s->at, s->text);
        if (shown++ && !o->json)
            putchar('\n');
        if (doctor_run(&s->o, o->json, &s->src, name.p ? name.p : s->text) != ZC_EXIT_OK)
            status = ZC_EXIT_FAIL;
    }
    zc_plan_free(&p);
    return status;
}

int zc_cmd_doctor(int argc, char **argv)
{
    struct doctor_opts o = {0};
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    int status;

    zc_mount_opts_init(&o.mount);
    if (zc_opt_parse(zc_doctor_table, false, argc, argv, &o, &args, &err) < 0) {
        status = zc_cli_usage("doctor", &err);
    } else if (args.help) {
        status = zc_cli_help("doctor");
    } else if (o.mount.config) {
        status = doctor_file(&o, &args, &err);
    } else {
        status = doctor_one(&o, &args, &err);
    }
    zc_opt_args_free(&args);
    return status;
}
