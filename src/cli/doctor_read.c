/* SPDX-License-Identifier: Apache-2.0 */
/* A listing, a stat and a ranged read of a source, each waited for and timed. */
#include "cli/doctor.h"

#include "base/units.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#define READ_TIME_NS (30 * ZC_NS_PER_S)
#define READ_BYTES ZC_MIB
#define READ_DEPTH 8 /* folders that are gone down into to find a file */

/* What a request's done() tells who waits for it. */
struct read_wait {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended;
    int err;
};

#define READ_WAIT                                                                                  \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                        \
    }

static void read_ended(struct read_wait *w, int err)
{
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->ended = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

static int read_waited(struct read_wait *w)
{
    pthread_mutex_lock(&w->lock);
    while (!w->ended)
        pthread_cond_wait(&w->cond, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_cond_destroy(&w->cond);
    pthread_mutex_destroy(&w->lock);
    return w->err;
}

/* ------------------------------------------------------------------ listing */

struct read_list {
    struct zc_list_req req;
    struct read_wait wait;
    char *file, *dir; /* the first of each */
    struct zc_doc_found *found;
    size_t entries;
};

static void read_list_done(struct zc_list_req *req, int err, const struct zc_entry *entries,
                           size_t n, const char *next_token, unsigned skipped)
{
    struct read_list *l = zc_container_of(req, struct read_list, req);
    l->entries = n;
    for (size_t i = 0; err == 0 && i < n; i++) {
        const struct zc_attr *a = &entries[i].attr;
        char **at = a->kind == ZC_KIND_DIR ? &l->dir : &l->file;
        /* A file with bytes tells more than an empty one. */
        if (*at && (at == &l->dir || l->found->size > 0 || a->size == 0))
            continue;
        free(*at);
        *at = strndup(entries[i].name, 1024);
        if (at == &l->file) {
            l->found->size = a->size;
            snprintf(l->found->version, sizeof(l->found->version), "%s",
                     a->version ? a->version : "");
        }
    }
    read_ended(&l->wait, err);
}

static int read_list_one(struct zc_backend *be, const char *path, struct read_list *l,
                         struct zc_error *err)
{
    l->req = (struct zc_list_req){.base = {.deadline_ns = zc_now_ns() + READ_TIME_NS},
                                  .path = path,
                                  .max = 1000,
                                  .done = read_list_done};
    zc_backend_list(be, &l->req);
    int r = read_waited(&l->wait);
    if (r < 0)
        zc_error_set(err, r, "%s", l->req.base.err.text[0] ? l->req.base.err.text : strerror(-r));
    return r;
}

static char *read_join(const char *dir, const char *name)
{
    char *path;
    return asprintf(&path, "%s%s%s", dir, dir[0] ? "/" : "", name) < 0 ? NULL : path;
}

bool zc_doc_list(struct zc_doctor *d, struct zc_backend *be, struct zc_doc_found *out,
                 struct zc_error *err)
{
    char *at = strdup("");
    bool ok = true;
    for (int depth = 0; at && !out->path && depth < READ_DEPTH; depth++) {
        struct read_list l = {.wait = READ_WAIT, .found = out};
        int64_t start = zc_now_ns();
        int r = read_list_one(be, at, &l, err);
        double ms = zc_doc_ms(start);
        char *next = NULL;
        if (depth == 0) {
            out->entries = l.entries;
            ok = r == 0;
            if (ok && l.entries)
                zc_doc_step(d, "list", ZC_DOC_OK, ms, NULL, "%zu name%s in the first page",
                            l.entries, l.entries == 1 ? "" : "s");
            else if (ok)
                zc_doc_step(d, "list", ZC_DOC_WARNING, ms,
                            "check the source's prefix: a prefix that nothing has is an empty "
                            "directory",
                            "nothing is there");
        }
        if (r == 0 && l.file)
            out->path = read_join(at, l.file);
        else if (r == 0 && l.dir)
            next = read_join(at, l.dir);
        free(l.file);
        free(l.dir);
        free(at);
        at = next;
    }
    free(at);
    return ok;
}

/* ------------------------------------------------------------------ one file */

struct read_stat {
    struct zc_stat_req req;
    struct read_wait wait;
    uint64_t size;
    char version[ZC_VERSION_MAX + 1];
};

static void read_stat_done(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct read_stat *s = zc_container_of(req, struct read_stat, req);
    if (err == 0) {
        s->size = attr->size;
        snprintf(s->version, sizeof(s->version), "%s", attr->version ? attr->version : "");
    }
    read_ended(&s->wait, err);
}

struct read_get {
    struct zc_get_req req;
    struct read_wait wait;
    uint64_t got;
    int64_t first_ns; /* when the first byte came */
};

static int read_get_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct read_get *g = zc_container_of(req, struct read_get, req);
    if (!g->first_ns)
        g->first_ns = zc_now_ns();
    g->got += n;
    return 0;
}

static void read_get_done(struct zc_get_req *req, int err)
{
    struct read_get *g = zc_container_of(req, struct read_get, req);
    read_ended(&g->wait, err);
}

static bool read_range(struct zc_doctor *d, struct zc_backend *be, const struct zc_doc_found *f,
                       uint64_t size, const char *version, const char *fix)
{
    char a[32], b[32];
    uint64_t len = ZC_MIN(size, READ_BYTES);
    struct read_get g = {.req = {.base = {.deadline_ns = zc_now_ns() + READ_TIME_NS},
                                 .path = f->path,
                                 .version = version,
                                 .len = len,
                                 .data = read_get_data,
                                 .done = read_get_done},
                         .wait = READ_WAIT};
    if (len == 0) {
        zc_doc_step(d, "read", ZC_DOC_NOTE, -1, NULL, "%.200s is empty: nothing to read", f->path);
        return true;
    }
    int64_t start = zc_now_ns();
    zc_backend_get(be, &g.req);
    int r = read_waited(&g.wait);
    double ms = zc_doc_ms(start);
    if (r < 0) {
        zc_doc_step(d, "read", ZC_DOC_FAILED, ms, fix, "%s",
                    g.req.base.err.text[0] ? g.req.base.err.text : strerror(-r));
        return false;
    }
    zc_doc_step(d, "read", ZC_DOC_OK, ms, NULL, "%s of %.200s, first byte after %.1f ms, %s/s",
                zc_format_size(len, a, sizeof(a)), f->path,
                (double)(g.first_ns - start) / (double)ZC_NS_PER_MS,
                zc_format_size((uint64_t)((double)len * 1000 / ZC_MAX(ms, 0.001)), b, sizeof(b)));
    return true;
}

bool zc_doc_read(struct zc_doctor *d, struct zc_backend *be, const struct zc_doc_found *f,
                 const char *fix)
{
    char a[32];
    struct read_stat s = {.req = {.base = {.deadline_ns = zc_now_ns() + READ_TIME_NS},
                                  .path = f->path,
                                  .done = read_stat_done},
                          .wait = READ_WAIT};
    int64_t start = zc_now_ns();
    zc_backend_stat(be, &s.req);
    int r = read_waited(&s.wait);
    double ms = zc_doc_ms(start);
    if (r < 0) {
        zc_doc_step(d, "stat", ZC_DOC_FAILED, ms, fix, "%s",
                    s.req.base.err.text[0] ? s.req.base.err.text : strerror(-r));
        return false;
    }
    zc_doc_step(d, "stat", ZC_DOC_OK, ms, NULL, "%.200s has %s", f->path,
                zc_format_size(s.size, a, sizeof(a)));
    return read_range(d, be, f, s.size, s.version, fix);
}
