/* SPDX-License-Identifier: Apache-2.0 */
/* See calls.h. Threads live as long as one round of questions: these are seldom, and each may wait.
 */
#include "cli/calls.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#define CALLS_THREADS 16
/* Answers become parts of other trees, which must still be read by those who asked: jansson reads
   2048 levels. */
#define CALL_DEPTH 16

struct round {
    const struct zc_calls *c;
    const char *op;
    int timeout_ms;
    struct zc_call_to *to;
    size_t n;
    atomic_size_t next;
};

struct zc_call_to *zc_calls_others(const struct zc_calls *c, size_t *n)
{
    unsigned count = zc_cluster_count(c->cluster);
    zc_autofree struct zc_cluster_node *nodes = calloc(count + 1, sizeof(*nodes));
    struct zc_call_to *to = calloc(count + 1, sizeof(*to));
    *n = 0;
    if (!nodes || !to) {
        free(to);
        return NULL;
    }
    count = zc_cluster_nodes(c->cluster, nodes, count);
    for (unsigned i = 0; i < count; i++) {
        if (!nodes[i].is_self)
            to[(*n)++].node = nodes[i];
    }
    return to;
}

void zc_calls_free(struct zc_call_to *to, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(to[i].body);
        json_decref(to[i].reply);
    }
    free(to);
}

/* Is it nested no deeper than so? */
static bool call_is_flat(const json_t *v, unsigned depth)
{
    size_t i;
    const char *key;
    json_t *in;
    bool flat = depth > 0;
    if (flat && json_is_array(v)) {
        json_array_foreach(v, i, in) flat = flat && call_is_flat(in, depth - 1);
    } else if (flat && json_is_object(v)) {
        json_object_foreach((json_t *)v, key, in) flat = flat && call_is_flat(in, depth - 1);
    }
    return flat;
}

int zc_call_reply(const char *p, size_t n, json_t **out, struct zc_error *err)
{
    json_error_t je;
    json_t *v = json_loadb(p, n, JSON_REJECT_DUPLICATES, &je);
    /* Alone; figures may have a member of that name, too. */
    const char *words =
        json_object_size(v) == 1 ? json_string_value(json_object_get(v, "error")) : NULL;
    int r = 0;
    if (!json_is_object(v) || !call_is_flat(v, CALL_DEPTH))
        r = zc_error_set(err, -EBADMSG, "its answer cannot be understood");
    else if (words)
        r = zc_error_set(err, -EREMOTEIO, "%s", *words ? words : "fails and does not say why");
    if (r == -EREMOTEIO && err) { /* they end on a terminal */
        for (char *c = err->text; *c; c++)
            *c = (unsigned char)*c < 0x20 || *c == 0x7f ? ' ' : *c;
    }
    if (r < 0)
        json_decref(v);
    else
        *out = v;
    return r;
}

static void calls_one(struct round *r, struct zc_call_to *to)
{
    zc_autobuf struct zc_buf reply = {.max = ZC_CALL_BODY_MAX};
    memset(&to->err, 0, sizeof(to->err));
    int e = r->c->ask(r->c->user, &to->node, r->op, to->body, strlen(to->body), r->timeout_ms,
                      &reply, &to->err);
    free(to->body);
    to->body = NULL;
    if (e == 0)
        e = zc_call_reply(reply.p ? reply.p : "", reply.len, &to->reply, &to->err);
    if (e < 0) {
        if (!to->err.text[0])
            zc_error_set(&to->err, e, "%s", strerror(-e));
        zc_error_prefix(&to->err, "node %s", to->node.name);
    }
}

static void *calls_main(void *arg)
{
    struct round *r = arg;
    for (size_t i; (i = atomic_fetch_add(&r->next, 1)) < r->n;) {
        if (r->to[i].body)
            calls_one(r, &r->to[i]);
    }
    return NULL;
}

void zc_calls_run(const struct zc_calls *c, const char *op, int timeout_ms, struct zc_call_to *to,
                  size_t n)
{
    struct round r = {.c = c, .op = op, .timeout_ms = timeout_ms, .to = to, .n = n};
    pthread_t threads[CALLS_THREADS];
    unsigned started = 0;
    while (started < CALLS_THREADS && started + 1 < n &&
           pthread_create(&threads[started], NULL, calls_main, &r) == 0)
        started++;
    calls_main(&r);
    for (unsigned i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
}
