/* SPDX-License-Identifier: Apache-2.0 */
/* What dir.c (pool, stat, get), dir_path.c (paths) and dir_list.c (listings) share. */
#ifndef ZC_BACKEND_DIR_PRIV_H
#define ZC_BACKEND_DIR_PRIV_H

#include "backend/backend.h"
#include "base/buf.h"
#include "base/list.h"
#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define DIR_BLOCK ((size_t)1 << 20) /* bytes of a read and of a data() call */
#define DIR_PAGE 1000               /* entries of a page unless asked otherwise */
#define DIR_PAGE_MAX 4096           /* whatever is asked */
#define DIR_CURSORS 64              /* directory streams kept open between pages */
#define DIR_CURSOR_IDLE_NS (60 * ZC_NS_PER_S)
#define DIR_VERSION_BYTES 96

/* A directory stream between two pages. Belongs to the table, or to the worker that took it out. */
struct dir_cursor {
    struct zc_list link; /* in dir_src.cursors, oldest first */
    DIR *stream;
    char *path;
    int64_t cookie; /* d_off of the last entry that was delivered */
    int64_t used_ns;
};

struct dir_src {
    struct zc_backend be;
    struct zc_backend_stats stats;
    char *path;
    unsigned max_threads;
    _Atomic int root; /* O_PATH descriptor, or -1 until it could be opened */

    pthread_mutex_t lock; /* all below; never held over I/O or a callback */
    pthread_cond_t wake;
    struct zc_list queue[ZC_PRIO_N];
    pthread_t *threads;
    unsigned n_threads, idle, queued, background; /* background: workers on other than demand */
    bool stop;
    struct zc_list cursors;
    unsigned n_cursors;
};

/* A worker's own memory; each part is allocated when it is first needed. */
struct dir_worker {
    struct dir_src *src;
    char *block;           /* DIR_BLOCK bytes */
    struct zc_entry *page; /* DIR_PAGE_MAX entries */
    struct zc_buf names;   /* names and versions of the page */
};

/* The root's descriptor, opened now if it was not yet; -errno as the system gave it. */
int dir_root(struct dir_src *src);
/* Opens below the root: links and ".." that lead out of it fail with -EXDEV, absolute links too.
   -errno as the system gave it. */
int dir_open(struct dir_src *src, const char *path, int flags);
/* Attributes of what a path shows: links are followed inside the root. -ENOENT for what a source
   does not show: devices, fifos, sockets, links that leave the root, dangle, or lead back to a
   directory above themselves. *hidden tells these from names that do not exist. */
int dir_stat_path(struct dir_src *src, const char *path, struct stat *st, bool *hidden);
int64_t dir_ns(const struct timespec *ts);
void dir_version(const struct stat *st, char out[DIR_VERSION_BYTES]);
void dir_attr(const struct stat *st, const char *version, struct zc_attr *out);
/* System's errno (negative) -> backend.h's, with words for `path`. */
int dir_fail(struct dir_src *src, struct zc_error *e, const char *path, int err);

/* Before done(): what the counters say of it. */
void dir_ended(struct dir_src *src, int err);
void dir_list_run(struct dir_worker *w, struct zc_list_req *req);
void dir_cursor_free(struct dir_cursor *c);

#endif
