/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ranged GetObject of a pinned version. The store is asked to refuse any other version (If-Match),
 * and the answer's own headers are checked before its first byte is passed on, because not every
 * store, cache or proxy in between honours the condition.
 */
#include "backend/s3_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

struct s3_get {
    struct s3_op op;
    struct s3_call call;
    struct zc_get_req *req;
    char *key;
    const char *etag;   /* of the pinned version, or NULL: */
    int64_t modified_s; /* its time and size */
    uint64_t size;
    uint64_t got;
    bool checked; /* the answer is what was asked for */
    bool enough;  /* stopped because the store sends more than was asked for */
    int theirs;   /* what the caller's data() returned */
};

static int get_stale(struct s3_get *g)
{
    return zc_error_set(&g->call.words, -ESTALE, "s3://%s/%.300s has changed in the store",
                        g->call.s3->bucket, g->key);
}

static int get_odd(struct s3_get *g, const char *what)
{
    return zc_error_set(&g->call.words, -EBADMSG, "s3://%s/%.300s: the store's answer %s",
                        g->call.s3->bucket, g->key, what);
}

static int get_check_version(struct s3_get *g, uint64_t total)
{
    const struct s3_answer *a = &g->call.answer;
    char version[ZC_VERSION_MAX + 1];
    if (g->etag) {
        if (!a->etag[0])
            return get_odd(g, "has no ETag, unlike its listing");
        s3_text_version(a->etag, strlen(a->etag), 0, 0, version);
        return strcmp(version, g->req->version) == 0 ? 0 : get_stale(g);
    }
    if (!a->modified_ns || total == UINT64_MAX)
        return get_odd(g, "has neither ETag nor Last-Modified");
    return a->modified_ns / ZC_NS_PER_S == g->modified_s && total == g->size ? 0 : get_stale(g);
}

static int get_check(struct s3_get *g)
{
    const struct s3_call *c = &g->call;
    const struct zc_get_req *req = g->req;
    uint64_t first, last, total;
    if (c->http.status == 206) {
        const char *range = c->answer.content_range;
        if (s3_text_content_range(range, strlen(range), &first, &last, &total) < 0)
            return get_odd(g, "has a Content-Range that cannot be understood");
        int r = get_check_version(g, total);
        if (r < 0)
            return r;
        if (first != req->off || last != req->off + req->len - 1)
            return get_odd(g, "is for another range than was asked for");
        return 0;
    }
    /* The whole object: as good as a range that starts it, when there is enough of it. */
    total = c->http.content_length < 0 ? UINT64_MAX : (uint64_t)c->http.content_length;
    int r = get_check_version(g, total);
    if (r < 0)
        return r;
    if (c->http.status != 200 || req->off != 0 || total < req->len)
        return get_odd(g, "is not the range that was asked for");
    return 0;
}

static int get_data(struct s3_call *c, const void *p, size_t n)
{
    struct s3_get *g = zc_container_of(c, struct s3_get, call);
    struct zc_get_req *req = g->req;
    if (!g->checked) {
        int r = get_check(g);
        if (r < 0)
            return r;
        g->checked = true;
    }
    size_t take = (size_t)ZC_MIN((uint64_t)n, req->len - g->got);
    if (take) {
        atomic_fetch_add_explicit(&c->s3->stats.bytes, take, memory_order_relaxed);
        g->got += take;
        g->theirs = req->data(req, p, take);
        if (g->theirs < 0)
            return g->theirs;
    }
    if (take < n) {
        g->enough = true;
        return -ECANCELED;
    }
    return 0;
}

static void get_done(struct s3_call *c, int err)
{
    struct s3_get *g = zc_container_of(c, struct s3_get, call);
    struct zc_get_req *req = g->req;
    if (g->enough)
        err = 0;
    else if (g->theirs < 0)
        err = g->theirs;
    else if (err == 0 && !g->checked)
        err = get_check(g); /* not a byte came */
    else if (err == -ESTALE || (err == -ENOENT && strcmp(c->xml.code, "NoSuchBucket") != 0))
        err = get_stale(g); /* there was such an object: that is how its version came to be known */
    if (err == 0 && g->got < req->len)
        err = zc_error_set(&c->words, -ECONNRESET, "s3://%s/%.300s: the answer ended early",
                           c->s3->bucket, g->key);
    if (err < 0 && g->theirs == 0)
        req->base.err = c->words;
    s3_op_end(c->s3, &req->base, err);
    s3_call_free(c);
    free(g->key);
    free(g);
    req->done(req, err);
}

static void get_fail(struct s3 *s, struct zc_get_req *req, int err, const char *why)
{
    zc_error_set(&req->base.err, err, "%s/%s: %s", s->be.url, req->path, why);
    req->done(req, err);
}

void s3_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    struct s3_get *g = calloc(1, sizeof(*g));
    char *key = g ? s3_key(s, req->path) : NULL;
    if (!key) {
        free(g);
        get_fail(s, req, -ENOMEM, "out of memory");
        return;
    }
    g->req = req;
    g->key = key;
    if (s3_text_version_parse(req->version, &g->etag, &g->modified_s, &g->size) < 0) {
        free(key);
        free(g);
        get_fail(s, req, -ESTALE, "its version is not one of this store's");
        return;
    }
    g->call.s3 = s;
    g->call.method = "GET";
    g->call.key = key;
    g->call.off = req->off;
    g->call.len = req->len;
    g->call.if_match = g->etag;
    g->call.unmodified_s = g->etag ? 0 : g->modified_s;
    g->call.expect = req->len;
    g->call.lane = req->lane;
    g->call.req = &req->base;
    g->call.data = get_data;
    g->call.done = get_done;
    g->op.n = 1;
    g->op.calls[0] = &g->call;
    s3_op_begin(s, &req->base, &g->op);
    s3_call_start(&g->call);
}
