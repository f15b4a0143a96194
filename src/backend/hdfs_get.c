/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads. A range is fetched as one piece from a DataNode, by the file's inode:
 *
 *   small:  where? -> bytes, held back -> still the same version? -> the bytes go to the reader
 *   large:  the same version? -> where? -> bytes go to the reader, but for the last few -> still
 * the same version? -> the last ones too
 *
 * What replaces a file has another inode, so that its bytes cannot come; what changes the same
 * inode (append, truncate) moves its length or time, which the look at the end sees. Holding the
 * last bytes back until then means that a read that fails late always has bytes left to fetch:
 * whoever retries it goes on from there. Through a gateway that tells no inodes a file is read by
 * name, and there every piece is small.
 *
 * "Where" is a remembered replica of the block, or the DataNode that the NameNode redirects to. Of
 * its Location only host, port and namenoderpcaddress are used: the NameNode normalises the path in
 * it, and its path would be that of another file. A DataNode that refuses, breaks off or is silent
 * for some seconds is remembered, and the rest of the piece comes from another.
 */
#include "backend/hdfs_priv.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GET_SMALL ((uint64_t)512 << 10) /* up to here all is held back */
#define GET_TAIL ((uint64_t)32 << 10)   /* of larger pieces, this */
#define GET_LOCATE                                                                                 \
    ((uint64_t)8 << 20) /* files from here on are worth the locations of their blocks */
#define GET_TRIES 6
#define GET_AUTH_TRIES 3
#define GET_ERROR_MAX ((size_t)16 << 10) /* bytes of an answer that is an error */

struct get {
    struct hdfs_op op;
    struct zc_get_req *req;
    struct hdfs_key key;
    uint64_t off, left; /* of the request: what has not been passed on */
    /* the piece */
    uint64_t len, got;  /* got: bytes that came, held ones included */
    uint64_t hold_from; /* of the piece: bytes from here on are held */
    struct zc_buf held;
    bool last_look; /* the look at the file is the one after the bytes */
    bool located;   /* locations were asked for */
    bool shrunk;    /* the DataNode has less than the version's length */
    int theirs;     /* what data() returned to stop */
    unsigned tries, auth_tries;
    struct hdfs_dn *dn, *avoid[GET_TRIES + 1];
    size_t n_avoid;
    int bad; /* the last failure of a DataNode */
    char why[300];
    struct zc_http http;
    struct zc_buf url, error;
    uint64_t gen;
};

static void get_next(struct get *g);
static void get_where(struct get *g);
static void get_from(struct get *g);
static void get_look(struct get *g, bool last);

static struct get *get_of(struct hdfs_op *op)
{
    return zc_container_of(op, struct get, op);
}

static void get_finish(struct get *g, int err)
{
    struct zc_get_req *req = g->req;
    struct hdfs *h = g->op.h;
    if (err < 0 && err != -ECANCELED && err != g->theirs)
        hdfs_op_fail(&g->op, err, err == -ESTALE ? "the file was replaced or changed" : NULL);
    if (err < 0 && err != -ECANCELED && err != -ESTALE)
        atomic_fetch_add(&h->stats.errors, 1);
    hdfs_op_leave(&g->op);
    hdfs_op_fini(&g->op);
    zc_buf_free(&g->held);
    zc_buf_free(&g->error);
    if (g->url.p)
        explicit_bzero(g->url.p, g->url.len);
    zc_buf_free(&g->url);
    free(g);
    atomic_fetch_sub(&h->stats.in_flight, 1);
    req->done(req, err);
}

static bool get_by_name(const struct get *g)
{
    return g->key.inode == 0;
}

static char *get_path(struct get *g)
{
    return get_by_name(g) ? hdfs_path(g->op.h, g->req->path) : hdfs_inode_path(g->key.inode);
}

/* ---- is it still the version? ---- */

static void get_looked(struct hdfs_op *op, int err)
{
    struct get *g = get_of(op);
    struct hdfs_file f;
    json_t *doc = NULL;
    if (err == 0)
        err = hdfs_json_status(op->call.body.p, op->call.body.len, &doc, &f);
    if (err == 0 && (f.type != HDFS_FILE || f.inode != g->key.inode || f.length != g->key.length ||
                     f.mtime_ms != g->key.mtime_ms))
        err = -ESTALE;
    json_decref(doc);
    if (err == -ENOENT || err == -ENOTDIR) {
        op->base->err = (struct zc_error){0};
        err = -ESTALE;
    }
    if (err < 0) {
        get_finish(g, err);
        return;
    }
    if (!g->last_look) {
        get_where(g);
        return;
    }
    if (g->shrunk) { /* and yet it is as long as it was: the DataNode is behind */
        hdfs_op_fail(op, -EAGAIN, "a DataNode sent less than the file's length");
        get_finish(g, -EAGAIN);
        return;
    }
    if (g->held.len) {
        int r = g->req->data(g->req, g->held.p, g->held.len);
        if (r < 0) {
            g->theirs = r;
            get_finish(g, r);
            return;
        }
    }
    g->off += g->len;
    g->left -= g->len;
    get_next(g);
}

static void get_look(struct get *g, bool last)
{
    g->last_look = last;
    hdfs_call_start(&g->op, "GETFILESTATUS", get_path(g), NULL, HDFS_SMALL_MAX,
                    &g->op.h->stats.heads, get_looked);
}

/* ---- where are the bytes? ---- */

static void get_located(struct hdfs_op *op, int err)
{
    struct get *g = get_of(op);
    struct hdfs *h = op->h;
    if (err == 0)
        err = hdfs_blocks_put(h->nodes, &g->key, g->off + g->got, h->target.tls, op->call.body.p,
                              op->call.body.len);
    if (err == -ECANCELED || err == -EACCES || err == -EAGAIN) {
        get_finish(g, err);
    } else if (err == -ENOENT || err == -ESTALE) {
        op->base->err = (struct zc_error){0};
        get_finish(g, -ESTALE);
    } else {
        /* A server that has no such answer redirects all the same. */
        op->base->err = (struct zc_error){0};
        get_where(g);
    }
}

static void get_locate(struct get *g)
{
    char *args = NULL;
    uint64_t from, len;
    hdfs_blocks_window(g->off + g->got, g->key.length, &from, &len);
    if (asprintf(&args, "&offset=%" PRIu64 "&length=%" PRIu64, from, len) < 0) {
        get_finish(g, -ENOMEM);
        return;
    }
    g->located = true;
    hdfs_call_start(&g->op, "GET_BLOCK_LOCATIONS", get_path(g), args, HDFS_ANSWER_MAX,
                    &g->op.h->stats.others, get_located);
}

/* The gateway answers with the bytes. */
static void get_whole(struct get *g)
{
    struct hdfs_call *c = &g->op.call;
    struct hdfs *h = g->op.h;
    atomic_store(&h->gateway, true);
    atomic_fetch_add(&h->stats.bytes, c->body.len);
    if (c->body.len != g->len) {
        g->shrunk = true;
    } else {
        zc_buf_free(&g->held);
        g->held = c->body;
        c->body = (struct zc_buf){0};
        g->got = g->len;
    }
    get_look(g, true);
}

static void get_redirected(struct hdfs_op *op, int err)
{
    struct get *g = get_of(op);
    struct hdfs *h = op->h;
    const char *authority, *rpc;
    size_t len, rpc_len;
    if (err == -EFBIG && op->call.status == 200 && g->len > HDFS_SMALL_MAX) {
        atomic_store(&h->gateway, true);
        op->base->err = (struct zc_error){0};
        get_next(g); /* in smaller pieces */
        return;
    }
    if (err == -ENOENT) {
        op->base->err = (struct zc_error){0};
        err = -ESTALE;
    }
    if (err == -EIO && op->call.fault.err == -ERANGE) {
        op->base->err = (struct zc_error){0};
        g->shrunk = true;
        get_look(g, true);
        return;
    }
    if (err == 0 && op->call.status == 200) {
        get_whole(g);
        return;
    }
    if (err == 0 && (!op->call.location || hdfs_location(op->call.location, h->target.tls,
                                                         &authority, &len, &rpc, &rpc_len) < 0))
        err = hdfs_op_fail(op, -EBADMSG, "a redirect that leads to no DataNode");
    if (err == 0 && rpc) {
        char *copy = strndup(rpc, rpc_len), *old = copy;
        pthread_mutex_lock(&h->rpc_lock);
        if (copy && (!h->rpc || strcmp(h->rpc, copy) != 0)) {
            old = h->rpc;
            h->rpc = copy;
        }
        pthread_mutex_unlock(&h->rpc_lock);
        free(old);
    }
    if (err == 0 && !(g->dn = hdfs_node(h->nodes, authority, len)))
        err = -ENOMEM;
    if (err < 0) {
        get_finish(g, err);
        return;
    }
    /* The NameNode does not know yet that this one does not answer. */
    if (!g->located && !get_by_name(g) && hdfs_node_is_bad(g->dn))
        get_locate(g);
    else
        get_from(g);
}

static void get_redirect(struct get *g)
{
    char *args = NULL;
    if (asprintf(&args, "&offset=%" PRIu64 "&length=%" PRIu64, g->off + g->got, g->len - g->got) <
        0) {
        get_finish(g, -ENOMEM);
        return;
    }
    hdfs_call_start(&g->op, "OPEN", get_path(g), args, HDFS_SMALL_MAX, &g->op.h->stats.others,
                    get_redirected);
}

static void get_where(struct get *g)
{
    struct hdfs *h = g->op.h;
    bool known = false, rpc;
    pthread_mutex_lock(&h->rpc_lock);
    rpc = h->rpc != NULL;
    pthread_mutex_unlock(&h->rpc_lock);
    g->dn = NULL;
    if (rpc && !get_by_name(g))
        g->dn = hdfs_blocks_pick(h->nodes, &g->key, g->off + g->got,
                                 atomic_fetch_add_explicit(&h->turn, 1, memory_order_relaxed),
                                 g->avoid, g->n_avoid, &known);
    if (g->dn) {
        get_from(g);
    } else if (known && g->located) {
        /* All that have it were tried. */
        hdfs_blocks_drop(h->nodes, &g->key, g->off + g->got);
        get_finish(g, hdfs_op_fail(&g->op, g->bad ? g->bad : -EAGAIN, g->why));
    } else if (rpc && !get_by_name(g) && !g->located &&
               (known || g->tries || g->key.length >= GET_LOCATE)) {
        get_locate(g);
    } else {
        get_redirect(g);
    }
}

/* ---- the bytes ---- */

static int get_data(struct zc_http *http, const void *p, size_t n)
{
    struct get *g = http->user;
    if (http->status != 200) {
        if (g->error.len < GET_ERROR_MAX)
            zc_buf_add(&g->error, p, ZC_MIN(n, GET_ERROR_MAX - g->error.len));
        return 0;
    }
    if (n > g->len - g->got)
        return -EBADMSG; /* more than was asked for */
    atomic_fetch_add_explicit(&g->op.h->stats.bytes, n, memory_order_relaxed);
    hdfs_op_moved(&g->op);
    uint64_t pass = g->got < g->hold_from ? ZC_MIN((uint64_t)n, g->hold_from - g->got) : 0;
    if (pass) {
        int r = g->req->data(g->req, p, pass);
        if (r < 0) {
            g->theirs = r;
            return r;
        }
        g->got += pass;
    }
    if (n > pass) {
        int r = zc_buf_add(&g->held, (const char *)p + pass, n - pass);
        if (r < 0)
            return -ENOMEM;
        g->got += n - pass;
    }
    return 0;
}

/* From another DataNode, or not at all. `node`: the DataNode is to blame. */
static void get_elsewhere(struct get *g, int err, const char *why, bool node)
{
    if (node)
        hdfs_node_bad(g->dn);
    g->bad = err;
    snprintf(g->why, sizeof(g->why), "DataNode %.100s: %.180s", g->dn->authority, why);
    zc_debug("%s/%s: %s; the rest comes from another", g->op.h->be.url, g->req->path, g->why);
    if (g->n_avoid < ZC_ARRAY_SIZE(g->avoid))
        g->avoid[g->n_avoid++] = g->dn;
    if (++g->tries >= GET_TRIES || zc_now_ns() >= g->op.deadline_ns) {
        get_finish(g, hdfs_op_fail(&g->op, err, g->why));
        return;
    }
    atomic_fetch_add(&g->op.h->stats.retries, 1);
    get_where(g);
}

static void get_refused(struct get *g)
{
    struct hdfs_fault f;
    hdfs_fault_of(g->http.status, g->error.p, g->error.len, &f);
    if (f.auth && g->auth_tries++ < GET_AUTH_TRIES &&
        hdfs_auth_refused(g->op.h->auth, g->gen, false)) {
        get_from(g);
    } else if (f.err == -ENOENT) {
        get_finish(g, -ESTALE);
    } else if (f.err == -ERANGE) {
        g->shrunk = true;
        get_look(g, true);
    } else if (f.err == -EACCES) {
        get_finish(g, hdfs_op_fail(&g->op, f.err, f.text));
    } else {
        get_elsewhere(g, f.err == -ENOTSUP ? -EIO : f.err, f.text, false);
    }
}

static void get_done(struct zc_http *http, int err)
{
    struct get *g = http->user;
    hdfs_op_ended(&g->op);
    if (g->theirs || err == -ECANCELED || err == -ENOMEM) {
        get_finish(g, g->theirs ? g->theirs : err);
    } else if (err < 0) {
        get_elsewhere(g, err, http->why[0] ? http->why : strerror(-err), true);
    } else if (http->status != 200) {
        get_refused(g);
    } else if (g->got < g->len) {
        hdfs_node_good(g->dn);
        g->shrunk = true;
        get_look(g, true);
    } else {
        hdfs_node_good(g->dn);
        get_look(g, true);
    }
}

static void get_resume(struct hdfs_op *op, int err)
{
    struct get *g = get_of(op);
    if (err < 0 && err != -ECANCELED)
        hdfs_auth_why(op->h->auth, &op->wait, &op->base->err);
    if (err < 0)
        get_finish(g, err);
    else
        get_from(g);
}

static void get_from(struct get *g)
{
    struct hdfs *h = g->op.h;
    /* Patience grows: a DataNode that is merely slow must not be given up for ever. */
    static const int64_t stall_s[] = {5, 8, 12}, connect_s[] = {3, 5, 10};
    unsigned i = ZC_MIN(g->tries, 2u);
    zc_autofree char *path = get_path(g);
    zc_buf_reset(&g->url);
    zc_buf_reset(&g->error);
    zc_buf_addf(&g->url, "http%s://%s/webhdfs/v1%s?op=OPEN", h->target.tls ? "s" : "",
                g->dn->authority, path ? path : "");
    g->op.resume = get_resume;
    int r = path ? hdfs_op_auth(&g->op, &g->url, &g->gen) : -ENOMEM;
    if (r == 0)
        return;
    if (r > 0) {
        pthread_mutex_lock(&h->rpc_lock);
        r = zc_buf_addf(&g->url, "&namenoderpcaddress=%s&offset=%" PRIu64 "&length=%" PRIu64,
                        h->rpc ? h->rpc : "", g->off + g->got, g->len - g->got);
        pthread_mutex_unlock(&h->rpc_lock);
    }
    if (r == 0) {
        g->http = (struct zc_http){
            .method = "GET",
            .url = g->url.p,
            .expect = g->len - g->got,
            .deadline_ns = g->req->base.deadline_ns, /* a slow read that has none is not cut off */
            .connect_timeout_ns = connect_s[i] * ZC_NS_PER_S,
            .stall_ns = hdfs_op_stall_ns(&g->op, stall_s[i] * ZC_NS_PER_S),
            .data = get_data,
            .done = get_done,
            .user = g,
        };
        atomic_fetch_add_explicit(&h->stats.gets, 1, memory_order_relaxed);
        r = hdfs_op_start(&g->op, &g->http);
    }
    if (r < 0)
        get_finish(g, r);
}

/* ---- pieces ---- */

static void get_next(struct get *g)
{
    struct hdfs *h = g->op.h;
    if (hdfs_op_cancelled(&g->op) || g->left == 0) {
        get_finish(g, g->left ? -ECANCELED : 0);
        return;
    }
    bool careful = get_by_name(g) || atomic_load_explicit(&h->gateway, memory_order_relaxed);
    g->len = careful ? ZC_MIN(g->left, (uint64_t)HDFS_SMALL_MAX) : g->left;
    g->hold_from = careful || g->len <= GET_SMALL ? 0 : g->len - GET_TAIL;
    g->got = 0;
    g->tries = g->auth_tries = 0;
    g->n_avoid = 0;
    g->located = g->shrunk = false;
    zc_buf_reset(&g->held);
    if (g->hold_from)
        get_look(g, false);
    else
        get_where(g);
}

void hdfs_get(struct hdfs *h, struct zc_get_req *req)
{
    struct hdfs_key key;
    int r = hdfs_version_parse(req->version, &key);
    struct get *g = r == 0 ? calloc(1, sizeof(*g)) : NULL;
    if (!g) {
        req->done(req, zc_error_set(&req->base.err, r < 0 ? r : -ENOMEM, "%s/%s: %s", h->be.url,
                                    req->path,
                                    r < 0 ? "a version that is none of HDFS's" : "out of memory"));
        return;
    }
    g->req = req;
    g->key = key;
    g->off = req->off;
    g->left = req->len;
    g->held.max = HDFS_SMALL_MAX;
    hdfs_op_init(&g->op, h, &req->base, req->path, req->lane);
    get_next(g);
}
