/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One question to the NameNodes, and the ways of a request (op) that asks it.
 *
 * A question goes to the NameNode that answered last. One that is a standby, starts up, refuses the
 * connection or is silent for its share of the time hands it to the next; when all have been asked,
 * the question fails with what each of them said, and the retry wrapper asks again later, within
 * the reader's deadline. Credentials that are not taken are replaced, and the same NameNode is
 * asked again.
 */
#include "backend/hdfs_priv.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#define CALL_AUTH_TRIES 2
#define CALL_ALONE_STALL_NS (15 * ZC_NS_PER_S)
#define OP_DEADLINE_NS (60 * ZC_NS_PER_S) /* of requests that have none */

/* ---- ops ---- */

static void op_waited(struct hdfs_wait *w, int err)
{
    struct hdfs_op *op = zc_container_of(w, struct hdfs_op, wait);
    op->resume(op, hdfs_op_cancelled(op) ? -ECANCELED : err);
}

void hdfs_op_moved(struct hdfs_op *op)
{
    const struct zc_req *base = op->base;
    op->deadline_ns = base->deadline_ns ? base->deadline_ns
                      : base->stall_ns  ? zc_now_ns() + base->stall_ns
                                        : zc_now_ns() + OP_DEADLINE_NS;
}

int64_t hdfs_op_stall_ns(const struct hdfs_op *op, int64_t most_ns)
{
    return ZC_MAX(ZC_MIN(op->deadline_ns - zc_now_ns(), most_ns), ZC_NS_PER_MS);
}

void hdfs_op_init(struct hdfs_op *op, struct hdfs *h, struct zc_req *base, const char *path,
                  unsigned lane)
{
    op->h = h;
    op->base = base;
    op->path = path;
    op->lane = lane;
    hdfs_op_moved(op);
    op->wait.done = op_waited;
    base->err.code = 0;
    base->err.text[0] = 0;
    pthread_mutex_lock(&h->lock);
    base->priv[0] = op;
    pthread_mutex_unlock(&h->lock);
    atomic_fetch_add(&h->stats.in_flight, 1);
}

static void call_free(struct hdfs_call *c)
{
    free(c->path);
    free(c->args);
    free(c->location);
    zc_buf_free(&c->body);
    zc_buf_free(&c->said);
    if (c->url.p)
        explicit_bzero(c->url.p, c->url.len);
    zc_buf_free(&c->url);
}

void hdfs_op_leave(struct hdfs_op *op)
{
    pthread_mutex_lock(&op->h->lock);
    op->base->priv[0] = NULL;
    pthread_mutex_unlock(&op->h->lock);
}

void hdfs_op_fini(struct hdfs_op *op)
{
    call_free(&op->call);
}

bool hdfs_op_cancelled(const struct hdfs_op *op)
{
    return atomic_load_explicit(&op->base->cancelled, memory_order_relaxed);
}

void hdfs_op_cancel(struct hdfs *h, struct zc_req *base)
{
    /* Its end may not come from here: the caller may hold locks. Under the lock it cannot go. */
    pthread_mutex_lock(&h->lock);
    struct hdfs_op *op = base->priv[0];
    if (op && op->http)
        zc_net_cancel(h->net, op->http);
    else if (op)
        hdfs_auth_cancel(h->auth, &op->wait, op->lane);
    pthread_mutex_unlock(&h->lock);
}

/* A cancel sets its flag before it takes the lock: what is looked at and entered under the lock is
 * either seen by it, or sees it. */
int hdfs_op_start(struct hdfs_op *op, struct zc_http *http)
{
    struct hdfs *h = op->h;
    http->loop = op->lane;
    http->tls = &h->tls;
    pthread_mutex_lock(&h->lock);
    int r = hdfs_op_cancelled(op) ? -ECANCELED : 0;
    if (r == 0) {
        op->http = http;
        r = zc_net_start(h->net, http);
        if (r < 0)
            op->http = NULL;
    }
    pthread_mutex_unlock(&h->lock);
    return r;
}

void hdfs_op_ended(struct hdfs_op *op)
{
    pthread_mutex_lock(&op->h->lock);
    op->http = NULL;
    pthread_mutex_unlock(&op->h->lock);
}

int hdfs_op_auth(struct hdfs_op *op, struct zc_buf *url, uint64_t *gen)
{
    struct hdfs *h = op->h;
    op->wait.until_ns = op->deadline_ns;
    pthread_mutex_lock(&h->lock);
    int r = hdfs_op_cancelled(op) ? -ECANCELED : hdfs_auth_query(h->auth, url, &op->wait, gen);
    pthread_mutex_unlock(&h->lock);
    /* With 0, op may be gone already. */
    if (r < 0 && r != -ECANCELED && r != -ENOMEM)
        hdfs_auth_why(h->auth, NULL, &op->base->err);
    return r;
}

int hdfs_op_fail(struct hdfs_op *op, int err, const char *text)
{
    if (err < 0 && err != -ECANCELED && op->base->err.code == 0)
        zc_error_set(&op->base->err, err, "%s%s%s: %s", op->h->be.url, *op->path ? "/" : "",
                     op->path, text && *text ? text : strerror(-err));
    return err;
}

/* ---- calls ---- */

static void call_try(struct hdfs_op *op);

static void call_finish(struct hdfs_op *op, int err)
{
    struct hdfs_call *c = &op->call;
    if (err == 0)
        atomic_store_explicit(&op->h->active, c->nn, memory_order_relaxed);
    c->done(op, err);
}

/* What a NameNode said, for when all of them fail; a cause that names itself outweighs "try again".
 */
static void call_note(struct hdfs_op *op, int err, const char *text)
{
    struct hdfs_call *c = &op->call;
    if (c->said.len < 600)
        zc_buf_addf(&c->said, "%s%s: %.200s", c->said.len ? "; " : "", op->h->target.nn[c->nn].name,
                    text);
    if (c->worst == 0 || c->worst == -EAGAIN)
        c->worst = err;
}

static void call_next(struct hdfs_op *op)
{
    struct hdfs_call *c = &op->call;
    size_t n = op->h->target.n;
    if (++c->tried < n && zc_now_ns() < op->deadline_ns) {
        c->nn = (unsigned)((c->nn + 1) % n);
        call_try(op);
        return;
    }
    /* Several that are all of no use now: not one network's fault, but a cluster that is changing
     * hands. */
    int err = n > 1 && c->worst != -EPROTO ? -EAGAIN : c->worst;
    call_finish(op, hdfs_op_fail(op, err, c->said.p));
}

/* The value of a header line, if it is the one of that name (with its colon). */
static const char *call_value(const char *line, size_t *n, const char *name)
{
    size_t len = strlen(name);
    if (*n < len || strncasecmp(line, name, len) != 0)
        return NULL;
    while (len < *n && (line[len] == ' ' || line[len] == '\t'))
        len++;
    *n -= len;
    return line + len;
}

static void call_header(struct zc_http *http, const char *line, size_t n)
{
    static const char negotiate[] = "negotiate";
    struct hdfs_call *c = http->user;
    const char *value;
    if (http->status == 307 && (value = call_value(line, &n, "location:"))) {
        free(c->location);
        c->location = n && n < 65536 ? strndup(value, n) : NULL;
    } else if (http->status == 401 && (value = call_value(line, &n, "www-authenticate:"))) {
        c->negotiate |=
            n >= sizeof(negotiate) - 1 && strncasecmp(value, negotiate, sizeof(negotiate) - 1) == 0;
    }
}

static int call_data(struct zc_http *http, const void *p, size_t n)
{
    struct hdfs_call *c = http->user;
    int r = zc_buf_add(&c->body, p, n);
    return r == -EMSGSIZE ? -EFBIG : r;
}

/* An answer that is no success. */
static void call_answer(struct hdfs_op *op)
{
    struct hdfs_call *c = &op->call;
    struct hdfs_fault *f = &c->fault;
    hdfs_fault_of(c->status, c->body.p, c->body.len, f);
    if (f->auth && c->auth_tries++ < CALL_AUTH_TRIES &&
        hdfs_auth_refused(op->h->auth, c->gen, c->negotiate)) {
        call_try(op);
    } else if (f->other_node) {
        call_note(op, f->err, f->text);
        call_next(op);
    } else {
        int err = f->err == -ERANGE ? -EIO : f->err;
        call_finish(op, err == -ENOTSUP ? err : hdfs_op_fail(op, err, f->text));
    }
}

static void call_done(struct zc_http *http, int err)
{
    struct hdfs_call *c = http->user;
    struct hdfs_op *op = zc_container_of(c, struct hdfs_op, call);
    hdfs_op_ended(op);
    c->status = http->status;
    if (err == 0 && (c->status == 200 || c->status == 201 || c->status == 307)) {
        call_finish(op, 0);
    } else if (err == 0) {
        call_answer(op);
    } else if (err == -ECANCELED || err == -ENOMEM || err == -EFBIG || err == -EMSGSIZE) {
        call_finish(op, err == -EFBIG ? hdfs_op_fail(op, -EFBIG, "the answer is too large") : err);
    } else {
        call_note(op, err, http->why[0] ? http->why : strerror(-err));
        call_next(op);
    }
}

static void call_resume(struct hdfs_op *op, int err)
{
    if (err == 0) {
        call_try(op);
        return;
    }
    if (err != -ECANCELED)
        hdfs_auth_why(op->h->auth, &op->wait, &op->base->err);
    call_finish(op, hdfs_op_fail(op, err, NULL));
}

static void call_try(struct hdfs_op *op)
{
    struct hdfs *h = op->h;
    struct hdfs_call *c = &op->call;
    zc_buf_reset(&c->url);
    zc_buf_reset(&c->body);
    c->negotiate = false;
    free(zc_steal_ptr(&c->location));
    zc_buf_adds(&c->url, h->target.nn[c->nn].url);
    zc_buf_adds(&c->url, "/webhdfs/v1");
    zc_buf_adds(&c->url, c->path);
    zc_buf_adds(&c->url, "?op=");
    zc_buf_adds(&c->url, c->op);
    zc_buf_adds(&c->url, c->args ? c->args : "");
    op->resume = call_resume;
    int r = hdfs_op_auth(op, &c->url, &c->gen);
    if (r == 0)
        return;
    if (r > 0) {
        /* One that is silent leaves those behind it their share of the time. */
        bool alone = h->target.n == 1;
        int64_t left = ZC_MAX(op->deadline_ns - zc_now_ns(), (int64_t)0);
        int64_t share = ZC_MAX(left / (int64_t)(h->target.n - c->tried), ZC_NS_PER_MS);
        c->http = (struct zc_http){
            .method = c->method,
            .url = c->url.p,
            .expect = c->expect,
            .deadline_ns = op->base->deadline_ns,
            .connect_timeout_ns = alone ? 0 : ZC_MIN(share, HDFS_CONNECT_NS),
            .stall_ns =
                hdfs_op_stall_ns(op, alone ? CALL_ALONE_STALL_NS : ZC_MIN(share, HDFS_STALL_NS)),
            .header = call_header,
            .data = call_data,
            .done = call_done,
            .user = c,
        };
        atomic_fetch_add_explicit(c->counter, 1, memory_order_relaxed);
        r = hdfs_op_start(op, &c->http);
    }
    if (r < 0)
        call_finish(op, hdfs_op_fail(op, r, NULL));
}

void hdfs_call_start(struct hdfs_op *op, const char *name, char *path, char *args, size_t max,
                     _Atomic uint64_t *counter, void (*done)(struct hdfs_op *, int err))
{
    struct hdfs_call *c = &op->call;
    call_free(c);
    *c = (struct hdfs_call){
        .method = "GET",
        .op = name,
        .path = path,
        .args = args,
        .counter = counter,
        .done = done,
        .body = {.max = max},
        .nn = atomic_load_explicit(&op->h->active, memory_order_relaxed),
        .expect = max > HDFS_SMALL_MAX ? 256 * ZC_KIB : 0,
    };
    if (!path) {
        call_finish(op, -ENOMEM);
        return;
    }
    call_try(op);
}
