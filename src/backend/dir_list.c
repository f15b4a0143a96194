/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listings of a directory source, page by page.
 *
 * A page's token is the directory offset (d_off) behind its last entry. The stream that a page was
 * read from stays open under (path, offset), and the next page goes on in it: a directory of a
 * million entries is read once. A token whose stream is gone (asked for twice, idle for a minute,
 * or pushed out by 64 younger ones) still works: a new stream seeks to the offset, as an NFS server
 * does. That is cheap on most file systems, and only slow on those that have to build the listing
 * anew for each stream.
 */
#include "backend/dir_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define LIST_CHECK 256 /* entries between two looks at the request's cancel flag */

void dir_cursor_free(struct dir_cursor *c)
{
    if (!c)
        return;
    if (c->stream)
        closedir(c->stream);
    free(c->path);
    free(c);
}

static struct dir_cursor *list_take(struct dir_src *src, const char *path, int64_t cookie)
{
    struct dir_cursor *found = NULL;
    pthread_mutex_lock(&src->lock);
    zc_list_for_each (l, &src->cursors) {
        struct dir_cursor *c = zc_list_entry(l, struct dir_cursor, link);
        if (c->cookie == cookie && strcmp(c->path, path) == 0) {
            zc_list_del(&c->link);
            src->n_cursors--;
            found = c;
            break;
        }
    }
    pthread_mutex_unlock(&src->lock);
    return found;
}

/* Gives a stream (or NULL) to the table, and closes what is too old or too much. */
static void list_put(struct dir_src *src, struct dir_cursor *c)
{
    struct zc_list gone = ZC_LIST_INIT(gone);
    int64_t now = zc_now_ns();
    pthread_mutex_lock(&src->lock);
    if (c) {
        c->used_ns = now;
        zc_list_push_back(&src->cursors, &c->link);
        src->n_cursors++;
    }
    while (!zc_list_empty(&src->cursors)) {
        struct dir_cursor *old = zc_list_entry(src->cursors.next, struct dir_cursor, link);
        if (src->n_cursors <= DIR_CURSORS && now - old->used_ns < DIR_CURSOR_IDLE_NS)
            break;
        zc_list_del(&old->link);
        zc_list_push_back(&gone, &old->link);
        src->n_cursors--;
    }
    pthread_mutex_unlock(&src->lock);
    for (struct zc_list *l; (l = zc_list_pop_front(&gone));)
        dir_cursor_free(zc_list_entry(l, struct dir_cursor, link));
}

static int list_open(struct dir_src *src, const char *path, struct dir_cursor **out)
{
    struct dir_cursor *c = calloc(1, sizeof(*c));
    if (!c)
        return -ENOMEM;
    zc_list_init(&c->link);
    c->path = strdup(path);
    int fd = c->path ? dir_open(src, path, O_RDONLY | O_DIRECTORY) : -ENOMEM;
    c->stream = fd < 0 ? NULL : fdopendir(fd);
    if (!c->stream) {
        int r = fd < 0 ? fd : -errno;
        if (fd >= 0)
            close(fd);
        dir_cursor_free(c);
        return r;
    }
    *out = c;
    return 0;
}

/* The stream that a request goes on in. A token is digits of this file's making; another one is an
 * error. */
static int list_resume(struct dir_src *src, const struct zc_list_req *req, struct dir_cursor **out)
{
    if (!req->token)
        return list_open(src, req->path, out);
    char *end;
    errno = 0;
    int64_t cookie = strtoll(req->token, &end, 10);
    if (errno || end == req->token || *end)
        return -EINVAL;
    *out = list_take(src, req->path, cookie);
    if (*out)
        return 0;
    int r = list_open(src, req->path, out);
    if (r < 0)
        return r;
    seekdir((*out)->stream, cookie);
    (*out)->cookie = cookie;
    return 0;
}

/* 1: st holds what the entry shows; 0: it shows nothing; *hidden as in dir_stat_path. */
static int list_stat(struct dir_src *src, const struct dir_cursor *c, const struct dirent *d,
                     struct stat *st, bool *hidden)
{
    *hidden = true;
    if (strlen(d->d_name) > 255)
        return 0;
    switch (d->d_type) {
    case DT_BLK:
    case DT_CHR:
    case DT_FIFO:
    case DT_SOCK:
    case DT_WHT:
        return 0;
    }
    if (fstatat(dirfd(c->stream), d->d_name, st, AT_SYMLINK_NOFOLLOW) < 0) {
        *hidden = false;
        return errno == ENOENT ? 0 : -errno; /* removed since the name was read */
    }
    if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
        *hidden = false;
        return 1;
    }
    if (!S_ISLNK(st->st_mode))
        return 0;
    zc_autofree char *full = NULL;
    if (asprintf(&full, "%s%s%s", c->path, *c->path ? "/" : "", d->d_name) < 0) {
        full = NULL;
        return -ENOMEM;
    }
    int r = dir_stat_path(src, full, st, hidden);
    if (r == -ENAMETOOLONG)
        *hidden = true;
    return r == 0 ? 1 : r == -ENOENT || r == -ENAMETOOLONG ? 0 : r;
}

/* Strings of a page move while their buffer grows: entries hold offsets until the page is whole. */
static int list_add(struct dir_worker *w, size_t n, const char *name, const struct stat *st)
{
    char version[DIR_VERSION_BYTES];
    struct zc_entry *e = &w->page[n];
    dir_version(st, version);
    dir_attr(st, version, &e->attr);
    e->name = (const char *)w->names.len;
    int r = zc_buf_add(&w->names, name, strlen(name) + 1);
    if (r < 0)
        return r;
    if (e->attr.kind == ZC_KIND_DIR)
        return 0;
    e->attr.version = (const char *)w->names.len;
    return zc_buf_add(&w->names, version, strlen(version) + 1);
}

static void list_fix(struct dir_worker *w, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct zc_entry *e = &w->page[i];
        e->name = w->names.p + (size_t)e->name;
        if (e->attr.kind == ZC_KIND_FILE)
            e->attr.version = w->names.p + (size_t)e->attr.version;
    }
}

/* Fills the worker's page. *more: the page is full, and the directory may go on. */
static int list_read(struct dir_worker *w, struct zc_list_req *req, struct dir_cursor *c, size_t *n,
                     unsigned *skipped, bool *more)
{
    size_t want = req->max ? ZC_MIN(req->max, (unsigned)DIR_PAGE_MAX) : DIR_PAGE;
    if (!w->page && !(w->page = calloc(DIR_PAGE_MAX, sizeof(*w->page))))
        return -ENOMEM;
    zc_buf_reset(&w->names);
    *more = false;
    for (unsigned seen = 1;; seen++) {
        if (*n == want) {
            *more = true;
            return 0;
        }
        if (seen % LIST_CHECK == 0 && atomic_load(&req->base.cancelled))
            return -ECANCELED;
        errno = 0;
        const struct dirent *d = readdir(c->stream);
        if (!d)
            return errno ? -errno : 0;
        c->cookie = d->d_off;
        if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
            continue;
        struct stat st;
        bool hidden;
        int r = list_stat(w->src, c, d, &st, &hidden);
        if (r > 0 && (r = list_add(w, *n, d->d_name, &st)) == 0)
            *n += 1;
        else if (r < 0)
            return r;
        else
            *skipped += hidden;
    }
}

void dir_list_run(struct dir_worker *w, struct zc_list_req *req)
{
    struct dir_src *src = w->src;
    struct dir_cursor *c = NULL;
    size_t n = 0;
    unsigned skipped = 0;
    bool more = false;
    char token[24];
    atomic_fetch_add(&src->stats.lists, 1);
    int r = list_resume(src, req, &c);
    if (r == 0)
        r = list_read(w, req, c, &n, &skipped, &more);
    if (r < 0) {
        r = dir_fail(src, &req->base.err, req->path, r);
        n = 0;
    }
    list_fix(w, n);
    /* The stream goes back before the callback, which may ask for the next page at once. */
    bool go_on = r == 0 && more;
    if (go_on) {
        snprintf(token, sizeof(token), "%" PRId64, c->cookie);
    } else {
        dir_cursor_free(c);
        c = NULL;
    }
    list_put(src, c);
    dir_ended(src, r);
    req->done(req, r, w->page, n, go_on ? token : NULL, skipped);
}
