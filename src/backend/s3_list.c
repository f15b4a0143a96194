/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One page of a directory: ListObjectsV2 with a delimiter. Keys that no path can show (an empty
 * part, "." or "..", more than 255 bytes, a NUL, not UTF-8) are skipped and counted. The key "dir/"
 * is the marker that some tools put there for the directory itself, and no entry. A name that is
 * both a file and a directory is the directory; when the two come in different pages the reader of
 * the pages sees both, and the directory wins there.
 */
#include "backend/s3_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define LIST_PAGE_MAX 1000

struct s3_list {
    struct s3_op op;
    struct s3_call call;
    struct s3_xml_list xml;
    struct zc_list_req *req;
    char *prefix; /* of the keys: "" or "a/b/" */
    char *query;
};

/* The entries that a page becomes. */
struct list_page {
    struct zc_entry *entries;
    size_t n;
    char *versions; /* ZC_VERSION_MAX + 1 bytes for each object, as needed */
    unsigned skipped;
};

static void list_free(struct s3_list *l)
{
    s3_call_free(&l->call);
    s3_xml_list_free(&l->xml);
    free(l->prefix);
    free(l->query);
    free(l);
}

/* The part of a key below the prefix, or NULL. The text has room for the NUL: a tag stood there, or
   the next text begins (then its own NUL is put when its turn is over), so that names are copied.
 */
static const char *list_below(const struct s3_list *l, struct s3_xml_span key, size_t *n)
{
    size_t skip = strlen(l->prefix);
    const char *s = l->xml.text.p + key.at;
    if (key.len < skip || memcmp(s, l->prefix, skip) != 0)
        return NULL;
    *n = key.len - skip;
    return s + skip;
}

static int list_by_name(const void *a, const void *b)
{
    return strcmp(((const struct zc_entry *)a)->name, ((const struct zc_entry *)b)->name);
}

static int list_dirs(struct s3_list *l, struct zc_buf *names, struct list_page *page)
{
    for (size_t i = 0; i < l->xml.n_prefixes; i++) {
        size_t n;
        const char *s = list_below(l, l->xml.prefixes[i], &n);
        if (!s || n == 0 || s[n - 1] != '/' || !s3_text_name_ok(s, n - 1)) {
            page->skipped++;
            continue;
        }
        page->entries[page->n++] = (struct zc_entry){
            .name = names->p + names->len,
            .attr = {.kind = ZC_KIND_DIR,
                     .mode = ZC_ID_UNSET,
                     .uid = ZC_ID_UNSET,
                     .gid = ZC_ID_UNSET,
                     .version = ""},
        };
        zc_buf_add(names, s, n - 1);
        zc_buf_addc(names, '\0');
    }
    return names->failed ? -ENOMEM : 0;
}

static int list_files(struct s3_list *l, struct zc_buf *names, struct list_page *page)
{
    size_t n_dirs = page->n;
    if (n_dirs && l->xml.n_objects)
        qsort(page->entries, n_dirs, sizeof(page->entries[0]), list_by_name);
    for (size_t i = 0; i < l->xml.n_objects; i++) {
        const struct s3_xml_object *o = &l->xml.objects[i];
        char version[ZC_VERSION_MAX + 1];
        size_t n;
        const char *s = list_below(l, o->key, &n);
        if (s && n == 0)
            continue; /* the directory's own marker */
        s3_text_version(o->etag.len ? l->xml.text.p + o->etag.at : "", o->etag.len, o->mtime_ns,
                        o->size, version);
        if (!s || !s3_text_name_ok(s, n) || !version[0]) {
            page->skipped++;
            continue;
        }
        struct zc_entry *e = &page->entries[page->n];
        *e = (struct zc_entry){
            .name = names->p + names->len,
            .attr = {.kind = ZC_KIND_FILE,
                     .size = o->size,
                     /* HEAD tells whole seconds: one object has one time. */
                     .mtime_ns = o->mtime_ns - o->mtime_ns % ZC_NS_PER_S,
                     .mode = ZC_ID_UNSET,
                     .uid = ZC_ID_UNSET,
                     .gid = ZC_ID_UNSET},
        };
        zc_buf_add(names, s, n);
        zc_buf_addc(names, '\0');
        e->attr.version = names->p + names->len;
        zc_buf_add(names, version, strlen(version) + 1);
        if (names->failed)
            return -ENOMEM;
        if (n_dirs && bsearch(e, page->entries, n_dirs, sizeof(*e), list_by_name))
            page->skipped++;
        else
            page->n++;
    }
    return 0;
}

/* Bytes of all names and versions: reserved before, so that pointers into the buffer stay good. */
static size_t list_room(const struct s3_list *l)
{
    size_t room = 1;
    for (size_t i = 0; i < l->xml.n_prefixes; i++)
        room += l->xml.prefixes[i].len + 1;
    for (size_t i = 0; i < l->xml.n_objects; i++)
        room +=
            l->xml.objects[i].key.len + 1 + ZC_MAX(l->xml.objects[i].etag.len + 3, (size_t)48) + 1;
    return room;
}

static int list_page(struct s3_list *l, struct zc_buf *names, struct list_page *page)
{
    page->entries = calloc(l->xml.n_objects + l->xml.n_prefixes + 1, sizeof(*page->entries));
    if (!page->entries || zc_buf_reserve(names, list_room(l)) < 0)
        return -ENOMEM;
    int r = list_dirs(l, names, page);
    return r < 0 ? r : list_files(l, names, page);
}

static int list_data(struct s3_call *c, const void *p, size_t n)
{
    return s3_xml_list_feed(&zc_container_of(c, struct s3_list, call)->xml, p, n);
}

static void list_done(struct s3_call *c, int err)
{
    struct s3_list *l = zc_container_of(c, struct s3_list, call);
    struct zc_list_req *req = l->req;
    struct list_page page = {0};
    zc_autobuf struct zc_buf names = {.max = (size_t)256 << 20};
    zc_autofree char *token = NULL;
    if (err == 0)
        err = s3_xml_list_end(&l->xml);
    if (err == -EBADMSG && c->words.code == 0)
        zc_error_set(
            &c->words, err,
            "s3://%s/%.300s: the answer to a list is not S3's XML: is --endpoint-url right?",
            c->s3->bucket, l->prefix);
    if (err == 0)
        err = list_page(l, &names, &page);
    if (err == 0 && l->xml.truncated) {
        token = strndup(l->xml.text.p + l->xml.token.at, l->xml.token.len);
        err = token ? 0 : -ENOMEM;
    }
    if (err < 0)
        req->base.err = c->words;
    s3_op_end(c->s3, &req->base, err);
    list_free(l);
    if (err < 0)
        req->done(req, err, NULL, 0, NULL, 0);
    else
        req->done(req, 0, page.entries, page.n, token, page.skipped);
    free(page.entries);
}

/* Names and values in the order that signing asks for. */
static char *list_query(const struct s3_list *l)
{
    const struct zc_list_req *req = l->req;
    zc_autobuf struct zc_buf q = {0};
    if (req->token) {
        zc_buf_adds(&q, "continuation-token=");
        zc_buf_add_urlenc(&q, req->token, strlen(req->token), false);
        zc_buf_addc(&q, '&');
    }
    zc_buf_adds(&q, "delimiter=%2F&encoding-type=url&list-type=2");
    if (req->max)
        zc_buf_addf(&q, "&max-keys=%u", ZC_MIN(req->max, (unsigned)LIST_PAGE_MAX));
    zc_buf_adds(&q, "&prefix=");
    zc_buf_add_urlenc(&q, l->prefix, strlen(l->prefix), false);
    return zc_buf_steal(&q);
}

static int list_build(struct s3_list *l, struct s3 *s)
{
    if (l->req->path[0]) {
        zc_autofree char *key = s3_key(s, l->req->path);
        if (!key || asprintf(&l->prefix, "%s/", key) < 0) {
            l->prefix = NULL;
            return -ENOMEM;
        }
    } else if (!(l->prefix = strdup(s->prefix))) {
        return -ENOMEM;
    }
    l->query = list_query(l);
    return l->query ? s3_xml_list_init(&l->xml) : -ENOMEM;
}

void s3_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    struct s3_list *l = calloc(1, sizeof(*l));
    int r = -ENOMEM;
    if (l) {
        l->req = req;
        r = list_build(l, s);
    }
    if (r < 0) {
        if (l)
            list_free(l);
        req->done(req,
                  zc_error_set(&req->base.err, r, "%s/%s: out of memory", s->be.url, req->path),
                  NULL, 0, NULL, 0);
        return;
    }
    l->call.s3 = s;
    l->call.method = "GET";
    l->call.query = l->query;
    l->call.expect = 1; /* some hundred kilobytes at the most */
    l->call.lane = atomic_fetch_add_explicit(&s->lane, 1, memory_order_relaxed);
    l->call.req = &req->base;
    l->call.data = list_data;
    l->call.done = list_done;
    l->op.n = 1;
    l->op.calls[0] = &l->call;
    s3_op_begin(s, &req->base, &l->op);
    s3_call_start(&l->call);
}
