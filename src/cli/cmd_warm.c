/* SPDX-License-Identifier: Apache-2.0 */
/* `zcache warm`: one request to the daemon of each mount named, at the same time; a mount whose
   list is too long for one request gets the next when the one before has ended. Progress goes to
   stderr, the summary to stdout. */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/paths.h"
#include "cli/progress.h"

#include "http/ctl_body.h"
#include <zcache/control.h>

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define WARM_LINE_NS (5 * ZC_NS_PER_S) /* between plain lines */
#define WARM_BAR_NS (ZC_NS_PER_S / 4)

struct warm_opts {
    uint64_t parallel;
    const char *list;
    bool cluster;
};

static const struct zc_opt warm_rows[] = {
    {"parallel", 'p', ZC_OPT_UINT, offsetof(struct warm_opts, parallel), "N",
     "Files fetched at the same time. Default: 64.", 1, ZC_CTL_PARALLEL_MAX},
    {"files-from", 'f', ZC_OPT_PATH, offsetof(struct warm_opts, list), "LIST",
     "Read paths from this file, one a line; - is the standard input."},
    {"cluster", 0, ZC_OPT_FLAG, offsetof(struct warm_opts, cluster), NULL,
     "On all nodes of the cluster: each fetches what it owns."},
};
const struct zc_opt_table zc_warm_table = {warm_rows, ZC_ARRAY_SIZE(warm_rows)};

struct warm_view {
    struct warm_job *jobs;
    size_t n;
    struct zc_rate rate;
    struct zc_progress sum;
    int64_t started_ns, shown_ns;
    bool terminal, finished_all;
};

/* One mount. */
struct warm_job {
    struct zc_progress before, now; /* requests that have ended, and the one that runs */
    bool finished;                  /* the daemon said so for the one that runs */
    uint64_t mark;                  /* by which the daemon knows the files of the one before */
    char *body;                     /* of the one that runs */
    char error[400];                /* first failure */
    bool more;                      /* requests follow this one */
};

static volatile sig_atomic_t warm_stop;

static void warm_interrupted(int sig)
{
    warm_stop = 1;
}

static uint64_t warm_number(const json_t *v, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(v, name));
    return i > 0 ? (uint64_t)i : 0;
}

static void warm_line(struct zc_call *c, const char *line, size_t n)
{
    struct warm_job *j = c->user;
    json_t *v = json_loadb(line, n, 0, NULL);
    if (!v)
        return;
    j->now = (struct zc_progress){
        .files_found = warm_number(v, "files_found"),
        .bytes_found = warm_number(v, "bytes_found"),
        .files_done = warm_number(v, "files_done"),
        .bytes_done = warm_number(v, "bytes_done"),
        .files_hit = warm_number(v, "files_hit"),
        .bytes_hit = warm_number(v, "bytes_hit"),
        .failed = warm_number(v, "failed"),
        .gone = warm_number(v, "gone"),
        .listed = json_is_true(json_object_get(v, "listed")),
    };
    j->mark = warm_number(v, "mark");
    j->finished = json_is_true(json_object_get(v, "finished"));
    const char *words = json_string_value(json_object_get(v, "error"));
    if (words && *words && !j->error[0])
        snprintf(j->error, sizeof(j->error), "%s", words);
    json_decref(v);
}

static void warm_sum(struct zc_progress *to, const struct zc_progress *p)
{
    to->files_found += p->files_found;
    to->bytes_found += p->bytes_found;
    to->files_done += p->files_done;
    to->bytes_done += p->bytes_done;
    to->files_hit += p->files_hit;
    to->bytes_hit += p->bytes_hit;
    to->failed += p->failed;
    to->gone += p->gone;
}

static void warm_total(struct warm_view *w)
{
    struct zc_progress sum = {.listed = true};
    for (size_t i = 0; i < w->n; i++) {
        warm_sum(&sum, &w->jobs[i].before);
        warm_sum(&sum, &w->jobs[i].now);
        sum.listed &= w->jobs[i].now.listed && !w->jobs[i].more;
    }
    w->sum = sum;
}

static unsigned warm_columns(void)
{
    struct winsize ws;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &ws) == 0 && ws.ws_col ? ws.ws_col : 80;
}

static bool warm_tick(void *user)
{
    struct warm_view *w = user;
    int64_t now = zc_now_ns();
    warm_total(w);
    zc_rate_add(&w->rate, now, w->sum.bytes_done - ZC_MIN(w->sum.bytes_hit, w->sum.bytes_done));
    if (now - w->shown_ns >= (w->terminal ? WARM_BAR_NS : WARM_LINE_NS)) {
        zc_autobuf struct zc_buf b = {0};
        w->shown_ns = now;
        if (w->terminal)
            zc_progress_bar(&w->sum, &w->rate, warm_columns(), &b);
        else
            zc_progress_line(&w->sum, &w->rate, &b);
        if (b.p)
            fprintf(stderr, w->terminal ? "\r%s\033[K" : "%s\n", b.p);
        fflush(stderr);
    }
    return warm_stop;
}

/* The request, with what tells the daemon that it goes on with another one's work. */
static char *warm_body(const char *body, uint64_t mark)
{
    char *s;
    if (!mark)
        return strdup(body);
    return asprintf(&s, "{\"mark\":%llu,%s", (unsigned long long)mark, body + 1) < 0 ? NULL : s;
}

/* Request number `round` of each group that has so many. False when none has. */
static bool warm_round(struct zc_paths *p, struct warm_view *w, size_t round, struct zc_error *err)
{
    size_t n = 0;
    struct zc_call *calls = calloc(p->n, sizeof(*calls));
    if (!calls)
        return false;
    for (size_t i = 0; i < p->n; i++) {
        struct zc_path_group *g = &p->groups[i];
        struct warm_job *j = &w->jobs[i];
        if (round >= g->n_bodies)
            continue;
        warm_sum(&j->before, &j->now);
        j->now = (struct zc_progress){0};
        j->finished = false;
        j->more = round + 1 < g->n_bodies;
        j->body = warm_body(g->bodies[round], j->mark);
        if (!j->body) {
            zc_error_set(err, -ENOMEM, "no memory");
            continue;
        }
        calls[n++] = (struct zc_call){.socket = g->socket,
                                      .path = ZCACHE_CONTROL_WARM,
                                      .body = j->body,
                                      .line = warm_line,
                                      .user = j};
    }
    if (n)
        zc_client_run(calls, n, warm_tick, w);
    for (size_t i = 0; i < n; i++) {
        struct warm_job *j = calls[i].user;
        if (calls[i].result < 0 && calls[i].result != -ECANCELED && !err->code)
            *err = calls[i].err;
        else if (calls[i].result == 0 && !j->finished && !err->code)
            zc_error_set(err, -ECONNRESET, "the daemon ended before it had finished");
        free(zc_steal_ptr(&j->body));
    }
    free(calls);
    return n > 0;
}

static int warm_run(struct zc_paths *p)
{
    struct zc_error err = {0};
    struct warm_view w = {.n = p->n, .started_ns = zc_now_ns(), .terminal = isatty(STDERR_FILENO)};
    struct sigaction sa = {.sa_handler = warm_interrupted, .sa_flags = SA_RESETHAND};
    w.shown_ns = w.started_ns;
    w.jobs = calloc(p->n, sizeof(*w.jobs));
    if (!w.jobs)
        return zc_cli_fail(ZC_EXIT_FAIL, "no memory");
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    for (size_t round = 0; !warm_stop && !err.code && warm_round(p, &w, round, &err); round++)
        ;
    warm_total(&w);
    if (w.terminal)
        fputs("\r\033[K", stderr);

    zc_autobuf struct zc_buf b = {0};
    zc_progress_summary(&w.sum, zc_now_ns() - w.started_ns, warm_stop, &b);
    puts(b.p ? b.p : "");
    int status = warm_stop ? ZC_EXIT_SIGINT : ZC_EXIT_OK;
    for (size_t i = 0; i < p->n; i++) {
        if (w.jobs[i].error[0] && !warm_stop && !err.code)
            status = zc_cli_fail(ZC_EXIT_FAIL, "%s: %s", p->groups[i].mnt->point, w.jobs[i].error);
        uint64_t gone = w.jobs[i].before.gone + w.jobs[i].now.gone;
        char n[32];
        if (gone && !warm_stop && !err.code)
            status =
                zc_cli_fail(ZC_EXIT_FAIL,
                            "%s: %s files left the cache again before the end: it is too small "
                            "for all (--cache-size, --free-space-ratio)",
                            p->groups[i].mnt->point, zc_format_count(gone, n, sizeof(n)));
    }
    if (w.sum.failed && status == ZC_EXIT_OK)
        status = ZC_EXIT_FAIL;
    if (err.code)
        status = zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    free(w.jobs);
    return status;
}

static int warm_read_list(struct zc_paths *p, const char *name, struct zc_error *err)
{
    if (strcmp(name, "-") == 0)
        return zc_paths_add_list(p, stdin, "standard input", err);
    FILE *f = fopen(name, "re");
    if (!f)
        return zc_error_set(err, -errno, "cannot read the list '%s': %s", name, strerror(errno));
    int r = zc_paths_add_list(p, f, name, err);
    fclose(f);
    return r;
}

static int warm_collect(const struct warm_opts *o, const struct zc_opt_args *args,
                        struct zc_paths *p, struct zc_error *err)
{
    int r = zc_paths_init(p, (unsigned)o->parallel, o->cluster, err);
    for (size_t i = 0; i < args->n_pos && r == 0; i++)
        r = zc_paths_add(p, args->pos[i], err);
    if (r == 0 && o->list)
        r = warm_read_list(p, o->list, err);
    if (r == 0)
        r = zc_paths_finish(p, err);
    if (r == 0 && p->n == 0)
        r = zc_error_set(err, -EINVAL, "the list '%s' names no paths", o->list);
    return r;
}

int zc_cmd_warm(int argc, char **argv)
{
    struct warm_opts o = {0};
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    int status;
    if (zc_opt_parse(zc_warm_table, false, argc, argv, &o, &args, &err) < 0) {
        status = zc_cli_usage("warm", &err);
    } else if (args.help) {
        status = zc_cli_help("warm");
    } else if (args.n_pos == 0 && !o.list) {
        zc_error_set(&err, -EINVAL, "warm takes PATHs, or a LIST of them with -f");
        status = zc_cli_usage("warm", &err);
    } else {
        struct zc_paths p = {0};
        status = warm_collect(&o, &args, &p, &err) < 0 ? zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text)
                                                       : warm_run(&p);
        zc_paths_free(&p);
    }
    zc_opt_args_free(&args);
    return status;
}
