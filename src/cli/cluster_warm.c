/* SPDX-License-Identifier: Apache-2.0 */
/* See cluster_warm.h. The others are asked for figures once a second: a poll in between has the
   last ones. */
#include "cli/cluster_warm.h"
#include "http/ctl_body.h"

#include "base/list.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define WARM_ASK_NS ZC_NS_PER_S
#define WARM_ASK_MS 10000
#define WARM_SILENT_NS (60 * ZC_NS_PER_S)
#define WARM_JOBS_MAX 64
/* Polls in a row without an answer until a node's part is given up: one that stood still for some
   seconds goes on with its part meanwhile. */
#define WARM_MISSES 4

/* ------------------------------------------------------------------ figures */

/* The error may be cut in the middle of a character. */
json_t *zc_warm_json(const struct zc_warm_stats *s)
{
#define N(v) ((json_int_t)(v))
    return json_pack("{s:I s:I s:I s:I s:I s:I s:I s:I s:I s:b s:b s:o}", "files_found",
                     N(s->files_found), "bytes_found", N(s->bytes_found), "files_done",
                     N(s->files_done), "bytes_done", N(s->bytes_done), "files_hit", N(s->files_hit),
                     "bytes_hit", N(s->bytes_hit), "failed", N(s->failed), "gone", N(s->gone),
                     "mark", N(s->mark), "listed", s->listed, "finished", s->finished, "error",
                     zc_ctl_text(s->error));
#undef N
}

static uint64_t warm_number(const json_t *v, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(v, name));
    return i > 0 ? (uint64_t)i : 0;
}

void zc_warm_unjson(const json_t *v, struct zc_warm_stats *out)
{
    const char *error = json_string_value(json_object_get(v, "error"));
    *out = (struct zc_warm_stats){.files_found = warm_number(v, "files_found"),
                                  .bytes_found = warm_number(v, "bytes_found"),
                                  .files_done = warm_number(v, "files_done"),
                                  .bytes_done = warm_number(v, "bytes_done"),
                                  .files_hit = warm_number(v, "files_hit"),
                                  .bytes_hit = warm_number(v, "bytes_hit"),
                                  .failed = warm_number(v, "failed"),
                                  .gone = warm_number(v, "gone"),
                                  .listed = json_is_true(json_object_get(v, "listed")),
                                  .finished = json_is_true(json_object_get(v, "finished"))};
    snprintf(out->error, sizeof(out->error), "%s", error ? error : "");
}

/* ------------------------------------------------------------------ the asking side */

struct warm_remote {
    char job[40]; /* "": it did not begin, or has ended */
    struct zc_warm_stats stats;
    unsigned misses; /* polls in a row without an answer */
};

struct zc_cluster_warm {
    struct zc_calls calls;
    struct zc_warm *own;
    struct zc_call_to *to;
    struct warm_remote *remotes; /* of to[i] */
    size_t n;
    int64_t asked_ns;
};

static char *warm_job_body(const char *job)
{
    char *s;
    return asprintf(&s, "{\"job\":\"%s\"}", job) < 0 ? NULL : s;
}

static void remote_failed(struct warm_remote *r, const struct zc_error *err)
{
    r->job[0] = 0;
    r->stats.failed++;
    r->stats.listed = r->stats.finished = true;
    if (!r->stats.error[0])
        snprintf(r->stats.error, sizeof(r->stats.error), "%.290s", err->text);
}

int zc_cluster_warm_start(const struct zc_calls *calls, struct zc_warm *take_own,
                          const char *const *paths, size_t n, unsigned parallel,
                          struct zc_cluster_warm **out)
{
    struct zc_cluster_warm *w = calloc(1, sizeof(*w));
    json_t *list = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(paths[i]));
    json_t *req = json_pack("{s:o s:I}", "paths", list, "parallel", (json_int_t)parallel);
    zc_autofree char *body = req ? json_dumps(req, JSON_COMPACT) : NULL;
    json_decref(req);
    if (w)
        w->to = zc_calls_others(calls, &w->n);
    if (w && w->to)
        w->remotes = calloc(w->n + 1, sizeof(*w->remotes));
    if (!w || !body || !w->to || !w->remotes) {
        if (w)
            zc_calls_free(w->to, w->n);
        free(w);
        zc_warm_end(take_own);
        return -ENOMEM;
    }
    w->calls = *calls;
    w->own = take_own;
    for (size_t i = 0; i < w->n; i++)
        w->to[i].body = strdup(body);
    zc_calls_run(&w->calls, "warm-start", WARM_ASK_MS, w->to, w->n);
    for (size_t i = 0; i < w->n; i++) {
        const char *job = json_string_value(json_object_get(w->to[i].reply, "job"));
        if (job && strlen(job) < sizeof(w->remotes[i].job) &&
            strspn(job, "0123456789abcdef") == strlen(job))
            strcpy(w->remotes[i].job, job);
        else
            remote_failed(&w->remotes[i], &w->to[i].err);
        json_decref(w->to[i].reply);
        w->to[i].reply = NULL;
    }
    w->asked_ns = zc_now_ns();
    *out = w;
    return 0;
}

static void warm_ask(struct zc_cluster_warm *w)
{
    for (size_t i = 0; i < w->n; i++) {
        bool going = w->remotes[i].job[0] && !w->remotes[i].stats.finished;
        w->to[i].body = going ? warm_job_body(w->remotes[i].job) : NULL;
        if (!going)
            w->to[i].err.code = 0;
    }
    zc_calls_run(&w->calls, "warm-poll", WARM_ASK_MS, w->to, w->n);
    for (size_t i = 0; i < w->n; i++) {
        struct warm_remote *r = &w->remotes[i];
        if (w->to[i].reply) {
            zc_warm_unjson(w->to[i].reply, &r->stats);
            r->misses = 0;
        } else if (w->to[i].err.code && r->job[0] && !r->stats.finished &&
                   ++r->misses >= WARM_MISSES) {
            remote_failed(r, &w->to[i].err);
        }
        json_decref(w->to[i].reply);
        w->to[i].reply = NULL;
    }
    w->asked_ns = zc_now_ns();
}

void zc_cluster_warm_poll(struct zc_cluster_warm *w, int timeout_ms, struct zc_warm_stats *out)
{
    struct zc_warm_stats own;
    int64_t end = zc_now_ns() + timeout_ms * ZC_NS_PER_MS;
    for (bool first = true;; first = false) {
        int64_t now = zc_now_ns(), until = ZC_MIN(end, w->asked_ns + WARM_ASK_NS);
        if (now >= w->asked_ns + WARM_ASK_NS) {
            warm_ask(w);
            now = zc_now_ns();
            until = ZC_MIN(end, w->asked_ns + WARM_ASK_NS);
        }
        zc_warm_poll(w->own, 0, &own);
        *out = own;
        for (size_t i = 0; i < w->n; i++) {
            const struct zc_warm_stats *s = &w->remotes[i].stats;
            out->files_found += s->files_found;
            out->bytes_found += s->bytes_found;
            out->files_done += s->files_done;
            out->bytes_done += s->bytes_done;
            out->files_hit += s->files_hit;
            out->bytes_hit += s->bytes_hit;
            out->failed += s->failed;
            out->gone += s->gone;
            out->listed &= s->listed;
            out->finished &= s->finished;
            if (!out->error[0])
                memcpy(out->error, s->error, sizeof(out->error));
        }
        if (out->finished || (now >= end && !first))
            return;
        if (until > now)
            usleep((useconds_t)ZC_MIN((until - now) / 1000 + 1, (int64_t)100000));
    }
}

void zc_cluster_warm_end(struct zc_cluster_warm *w)
{
    for (size_t i = 0; i < w->n; i++)
        w->to[i].body = w->remotes[i].job[0] ? warm_job_body(w->remotes[i].job) : NULL;
    zc_calls_run(&w->calls, "warm-end", WARM_ASK_MS, w->to, w->n);
    zc_calls_free(w->to, w->n);
    free(w->remotes);
    zc_warm_end(w->own);
    free(w);
}

/* ------------------------------------------------------------------ the asked side */

struct warm_kept {
    struct zc_list link;
    char name[33];
    struct zc_warm *warm;
    int64_t heard_ns;
};

struct zc_warm_jobs {
    pthread_mutex_t lock;
    struct zc_list jobs;
    unsigned n;
};

struct zc_warm_jobs *zc_warm_jobs_new(void)
{
    struct zc_warm_jobs *j = calloc(1, sizeof(*j));
    if (!j)
        return NULL;
    pthread_mutex_init(&j->lock, NULL);
    zc_list_init(&j->jobs);
    return j;
}

static void kept_free(struct warm_kept *k)
{
    zc_warm_end(k->warm);
    free(k);
}

void zc_warm_jobs_free(struct zc_warm_jobs *j)
{
    struct zc_list *it;
    if (!j)
        return;
    while ((it = zc_list_pop_front(&j->jobs)))
        kept_free(zc_list_entry(it, struct warm_kept, link));
    pthread_mutex_destroy(&j->lock);
    free(j);
}

/* Those whose asker is gone. */
static void jobs_sweep(struct zc_warm_jobs *j)
{
    struct zc_list silent;
    struct zc_list *it;
    zc_list_init(&silent);
    pthread_mutex_lock(&j->lock);
    zc_list_for_each_safe (at, tmp, &j->jobs) {
        struct warm_kept *k = zc_list_entry(at, struct warm_kept, link);
        if (zc_now_ns() - k->heard_ns > WARM_SILENT_NS) {
            zc_list_del(at);
            zc_list_push_back(&silent, at);
            j->n--;
        }
    }
    pthread_mutex_unlock(&j->lock);
    while ((it = zc_list_pop_front(&silent)))
        kept_free(zc_list_entry(it, struct warm_kept, link));
}

json_t *zc_warm_jobs_add(struct zc_warm_jobs *j, struct zc_warm *take)
{
    uint64_t random[2];
    struct warm_kept *k = calloc(1, sizeof(*k));
    jobs_sweep(j);
    if (!k || getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random)) {
        free(k);
        zc_warm_end(take);
        return NULL;
    }
    k->warm = take;
    k->heard_ns = zc_now_ns();
    snprintf(k->name, sizeof(k->name), "%016" PRIx64 "%016" PRIx64, random[0], random[1]);
    json_t *v = json_pack("{s:s}", "job", k->name);
    pthread_mutex_lock(&j->lock);
    bool room = v && j->n < WARM_JOBS_MAX;
    if (room) {
        zc_list_push_back(&j->jobs, &k->link);
        j->n++;
    }
    pthread_mutex_unlock(&j->lock);
    if (!room) {
        json_decref(v);
        kept_free(k);
        return NULL;
    }
    return v;
}

/* Takes it out of the list, so that nobody frees it meanwhile. */
static struct warm_kept *jobs_take(struct zc_warm_jobs *j, const json_t *req, struct zc_error *err)
{
    const char *name = json_string_value(json_object_get(req, "job"));
    struct warm_kept *found = NULL;
    pthread_mutex_lock(&j->lock);
    zc_list_for_each (it, &j->jobs) {
        struct warm_kept *k = zc_list_entry(it, struct warm_kept, link);
        if (name && strcmp(k->name, name) == 0) {
            found = k;
            zc_list_del(it);
            j->n--;
            break;
        }
    }
    pthread_mutex_unlock(&j->lock);
    if (!found)
        zc_error_set(err, -ENOENT, "there is no such job (any more)");
    return found;
}

json_t *zc_warm_jobs_poll(struct zc_warm_jobs *j, const json_t *req, struct zc_error *err)
{
    struct zc_warm_stats s;
    struct warm_kept *k = jobs_take(j, req, err);
    jobs_sweep(j);
    if (!k)
        return NULL;
    zc_warm_poll(k->warm, 0, &s);
    k->heard_ns = zc_now_ns();
    pthread_mutex_lock(&j->lock);
    zc_list_push_back(&j->jobs, &k->link);
    j->n++;
    pthread_mutex_unlock(&j->lock);
    return zc_warm_json(&s);
}

json_t *zc_warm_jobs_end(struct zc_warm_jobs *j, const json_t *req, struct zc_error *err)
{
    struct warm_kept *k = jobs_take(j, req, err);
    if (k)
        kept_free(k);
    return k ? json_object() : NULL;
}
