/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is at a path: S3 has objects only, so that a directory is there when some key lies below it.
 * Both are asked at the same time, the object by HeadObject and the directory by a list of one key;
 * a directory hides an object of the same name.
 */
#include "backend/s3_priv.h"

#include <errno.h>
#include <string.h>

struct s3_stat {
    struct s3_op op;
    struct s3_call head, list;
    struct s3_xml_list xml;
    struct zc_stat_req *req;
    char *key;
    char *query;
    atomic_uint left; /* calls that have not ended */
    int head_err, list_err;
    bool dir;
};

static void stat_free(struct s3_stat *st)
{
    s3_call_free(&st->head);
    s3_call_free(&st->list);
    s3_xml_list_free(&st->xml);
    free(st->key);
    free(st->query);
    free(st);
}

static int stat_file(struct s3_stat *st, struct zc_attr *attr, char version[ZC_VERSION_MAX + 1])
{
    const struct s3_call *c = &st->head;
    if (c->http.content_length < 0)
        return zc_error_set(&st->head.words, -EBADMSG,
                            "s3://%s/%.300s: the store does not tell its size", c->s3->bucket,
                            st->key);
    attr->kind = ZC_KIND_FILE;
    attr->size = (uint64_t)c->http.content_length;
    attr->mtime_ns = c->answer.modified_ns;
    s3_text_version(c->answer.etag, strlen(c->answer.etag), attr->mtime_ns, attr->size, version);
    if (!version[0])
        return zc_error_set(&st->head.words, -EBADMSG,
                            "s3://%s/%.300s: the store tells neither ETag nor time", c->s3->bucket,
                            st->key);
    return 0;
}

static void stat_finish(struct s3_stat *st)
{
    struct s3 *s = st->head.s3;
    struct zc_stat_req *req = st->req;
    char version[ZC_VERSION_MAX + 1] = "";
    struct zc_attr attr = {.kind = ZC_KIND_DIR,
                           .mode = ZC_ID_UNSET,
                           .uid = ZC_ID_UNSET,
                           .gid = ZC_ID_UNSET,
                           .version = version};
    int err = 0;
    if (st->list_err == 0 && st->dir) {
        ; /* a directory, whatever the object is */
    } else if (st->list_err < 0 && st->list_err != -EACCES && st->list_err != -ENOENT) {
        err = st->list_err; /* it may be a directory: there is no telling */
        req->base.err = st->list.words;
    } else if (st->head_err < 0) {
        err = st->head_err;
        req->base.err = st->head.words;
        /* No bucket, or no right to list: the list's words are the better ones. */
        if (err == -ENOENT && st->list_err < 0) {
            err = st->list_err;
            req->base.err = st->list.words;
        }
    } else {
        err = stat_file(st, &attr, version);
        if (err < 0)
            req->base.err = st->head.words;
    }
    s3_op_end(s, &req->base, err);
    req->done(req, err, err < 0 ? NULL : &attr);
    stat_free(st);
}

static void stat_call_ended(struct s3_stat *st)
{
    if (atomic_fetch_sub(&st->left, 1) == 1)
        stat_finish(st);
}

static void stat_head_done(struct s3_call *c, int err)
{
    struct s3_stat *st = zc_container_of(c, struct s3_stat, head);
    st->head_err = err;
    stat_call_ended(st);
}

static int stat_list_data(struct s3_call *c, const void *p, size_t n)
{
    struct s3_stat *st = zc_container_of(c, struct s3_stat, list);
    return s3_xml_list_feed(&st->xml, p, n);
}

static void stat_list_done(struct s3_call *c, int err)
{
    struct s3_stat *st = zc_container_of(c, struct s3_stat, list);
    if (err == 0)
        err = s3_xml_list_end(&st->xml);
    if (err == -EBADMSG && st->list.words.code == 0)
        zc_error_set(&st->list.words, err, "s3://%s/%.300s: the answer to a list is not S3's XML",
                     c->s3->bucket, st->key);
    st->list_err = err;
    st->dir = st->xml.n_objects + st->xml.n_prefixes > 0;
    stat_call_ended(st);
}

static int stat_build(struct s3_stat *st, struct s3 *s, const char *path)
{
    zc_autobuf struct zc_buf q = {0};
    st->key = s3_key(s, path);
    if (!st->key)
        return -ENOMEM;
    zc_buf_adds(&q, "encoding-type=url&list-type=2&max-keys=1&prefix=");
    zc_buf_add_urlenc(&q, st->key, strlen(st->key), false);
    zc_buf_adds(&q, "%2F");
    st->query = zc_buf_steal(&q);
    return st->query ? s3_xml_list_init(&st->xml) : -ENOMEM;
}

void s3_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    if (!req->path[0]) {
        /* The root is there as long as its bucket is; an empty prefix is an empty directory. */
        struct zc_attr root = {.kind = ZC_KIND_DIR,
                               .mode = ZC_ID_UNSET,
                               .uid = ZC_ID_UNSET,
                               .gid = ZC_ID_UNSET,
                               .version = ""};
        req->unasked = true;
        req->done(req, 0, &root);
        return;
    }
    struct s3_stat *st = calloc(1, sizeof(*st));
    int r = st ? stat_build(st, s, req->path) : -ENOMEM;
    if (r < 0) {
        if (st)
            stat_free(st);
        req->done(req,
                  zc_error_set(&req->base.err, r, "%s/%s: out of memory", s->be.url, req->path),
                  NULL);
        return;
    }
    st->req = req;
    st->left = 2;
    /* Both on one loop: they end one after the other. */
    unsigned lane = atomic_fetch_add_explicit(&s->lane, 1, memory_order_relaxed);
    st->head.s3 = st->list.s3 = s;
    st->head.lane = st->list.lane = lane;
    st->head.req = st->list.req = &req->base;
    st->head.method = "HEAD";
    st->head.key = st->key;
    st->head.done = stat_head_done;
    st->list.method = "GET";
    st->list.query = st->query;
    st->list.data = stat_list_data;
    st->list.done = stat_list_done;
    st->op.n = 2;
    st->op.calls[0] = &st->head;
    st->op.calls[1] = &st->list;
    s3_op_begin(s, &req->base, &st->op);
    s3_call_start(&st->head);
    s3_call_start(&st->list);
}
