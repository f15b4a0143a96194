/* SPDX-License-Identifier: Apache-2.0 */
#include "membackend.h"

#include "base/list.h"
#include "httptest.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define MEM_ORDER 64

struct mem {
    struct zc_backend be;
    struct zc_backend_stats stats;
    pthread_mutex_t lock;
    struct zc_list held;
    bool hold;
    unsigned n_held, most_held, requests, released;
    char order[MEM_ORDER][64];
};

struct mem_op {
    struct zc_list link;
    int kind;
    struct zc_req *base;
    const char *path;
    void *req;
};

static struct mem *mem_of(struct zc_backend *be)
{
    return zc_container_of(be, struct mem, be);
}

static void mem_get_run(struct zc_get_req *req)
{
    unsigned char buf[1000];
    uint64_t size = strtoull(strrchr(req->path, '/') + 1, NULL, 10);
    int err = strcmp(req->version, "v") == 0 ? 0 : -ESTALE;
    if (err == 0 && req->off + req->len > size)
        err = -EBADMSG;
    for (uint64_t at = 0; err == 0 && at < req->len;) {
        size_t n = (size_t)ZC_MIN(req->len - at, (uint64_t)sizeof(buf));
        ht_fill(buf, req->off + at, n);
        err = req->data(req, buf, n);
        at += n;
    }
    req->done(req, err);
}

static void mem_run(struct mem_op *op)
{
    int err = atomic_load(&op->base->cancelled) ? -ECANCELED : 0;
    struct zc_attr attr = {.kind = ZC_KIND_FILE, .size = 1, .version = "v"};
    struct zc_entry entry = {.name = "x", .attr = attr};
    op->base->priv[0] = NULL;
    if (op->kind == 0) {
        struct zc_list_req *req = op->req;
        req->done(req, err, &entry, err ? 0 : 1, NULL, 0);
    } else if (op->kind == 1) {
        struct zc_stat_req *req = op->req;
        req->done(req, err, err ? NULL : &attr);
    } else if (err) {
        struct zc_get_req *req = op->req;
        req->done(req, err);
    } else {
        mem_get_run(op->req);
    }
    free(op);
}

static void mem_submit(struct zc_backend *be, int kind, struct zc_req *base, const char *path,
                       void *req)
{
    struct mem *m = mem_of(be);
    struct mem_op *op = calloc(1, sizeof(*op));
    *op = (struct mem_op){.kind = kind, .base = base, .path = path, .req = req};
    pthread_mutex_lock(&m->lock);
    m->requests++;
    bool hold = m->hold;
    if (hold) {
        zc_list_push_back(&m->held, &op->link);
        m->n_held++;
        m->most_held = ZC_MAX(m->most_held, m->n_held);
    }
    pthread_mutex_unlock(&m->lock);
    if (!hold)
        mem_run(op);
}

static void mem_list(struct zc_backend *be, struct zc_list_req *req)
{
    mem_submit(be, 0, &req->base, req->path, req);
}

static void mem_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    mem_submit(be, 1, &req->base, req->path, req);
}

static void mem_get(struct zc_backend *be, struct zc_get_req *req)
{
    mem_submit(be, 2, &req->base, req->path, req);
}

static int mem_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void mem_free(struct zc_backend *be)
{
    struct mem *m = mem_of(be);
    pthread_mutex_destroy(&m->lock);
    free(be->url);
    free(m);
}

static const struct zc_backend_ops mem_ops = {.name = "mem",
                                              .probe = mem_probe,
                                              .list = mem_list,
                                              .stat = mem_stat,
                                              .get = mem_get,
                                              .free = mem_free};

struct zc_backend *mem_new(void)
{
    struct mem *m = calloc(1, sizeof(*m));
    m->be.ops = &mem_ops;
    m->be.url = strdup("mem:");
    m->be.stats = &m->stats;
    zc_list_init(&m->held);
    pthread_mutex_init(&m->lock, NULL);
    return &m->be;
}

void mem_hold(struct zc_backend *be, bool hold)
{
    struct mem *m = mem_of(be);
    pthread_mutex_lock(&m->lock);
    m->hold = hold;
    pthread_mutex_unlock(&m->lock);
}

unsigned mem_release(struct zc_backend *be, unsigned n)
{
    struct mem *m = mem_of(be);
    unsigned did = 0;
    for (; did < n; did++) {
        pthread_mutex_lock(&m->lock);
        struct zc_list *it = zc_list_pop_front(&m->held);
        struct mem_op *op = it ? zc_list_entry(it, struct mem_op, link) : NULL;
        if (op) {
            m->n_held--;
            snprintf(m->order[m->released % MEM_ORDER], 64, "%s", op->path);
            m->released++;
        }
        pthread_mutex_unlock(&m->lock);
        if (!op)
            break;
        mem_run(op);
    }
    return did;
}

static unsigned mem_read(struct zc_backend *be, const unsigned *n)
{
    struct mem *m = mem_of(be);
    pthread_mutex_lock(&m->lock);
    unsigned v = *n;
    pthread_mutex_unlock(&m->lock);
    return v;
}

unsigned mem_held(struct zc_backend *be)
{
    return mem_read(be, &mem_of(be)->n_held);
}

unsigned mem_requests(struct zc_backend *be)
{
    return mem_read(be, &mem_of(be)->requests);
}

unsigned mem_most_held(struct zc_backend *be)
{
    return mem_read(be, &mem_of(be)->most_held);
}

const char *mem_order(struct zc_backend *be, unsigned i)
{
    return mem_of(be)->order[i % MEM_ORDER];
}
