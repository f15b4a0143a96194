/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The operations. None of them waits for the network: what is not there yet is handed on with the
 * request, and whoever completes it replies. The mount is read-only for the kernel, so that it
 * answers writes with EROFS itself; what is missing in the table it answers with ENOSYS and does
 * not ask again (xattrs, access, flush).
 */
#include "base/log.h"
#include "fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#define TIMEOUT_FOREVER 3e8 /* seconds; ten years */

struct handle {
    struct zc_list link; /* fnode->handles */
    struct zc_fuse *f;
    struct zc_object *o; /* NULL when the loan keeps its bytes */
    struct fnode *n;
    struct zc_streams *streams; /* NULL when passed through */
    bool passed;
    _Atomic unsigned refs; /* the open itself, and reads that may outlive it */
};

static struct zc_fuse *ops_self(fuse_req_t req)
{
    return fuse_req_userdata(req);
}

static double ops_timeout(int64_t ns)
{
    return ns == ZC_TTL_INDEFINITE ? TIMEOUT_FOREVER : (double)ns / 1e9;
}

static void ops_stat(const struct zc_node *n, struct stat *st)
{
    *st = (struct stat){
        .st_ino = n->ino,
        .st_mode = n->mode | (n->kind == ZC_KIND_DIR ? S_IFDIR : S_IFREG),
        .st_nlink = n->kind == ZC_KIND_DIR ? 2 : 1,
        .st_uid = n->uid,
        .st_gid = n->gid,
        .st_size = (off_t)n->size,
        .st_blksize = 1 << 20,
        .st_blocks = (blkcnt_t)((n->size + 511) / 512),
    };
    st->st_mtim.tv_sec = n->mtime_ns / ZC_NS_PER_S;
    st->st_mtim.tv_nsec = n->mtime_ns % ZC_NS_PER_S;
    if (st->st_mtim.tv_nsec < 0) {
        st->st_mtim.tv_nsec += ZC_NS_PER_S;
        st->st_mtim.tv_sec--;
    }
    st->st_atim = st->st_ctim = st->st_mtim;
}

static void ops_entry(const struct zc_node *n, struct fuse_entry_param *e)
{
    *e = (struct fuse_entry_param){
        .ino = n->id,
        .generation = n->generation,
        .attr_timeout = ops_timeout(n->valid_ns),
        .entry_timeout = ops_timeout(n->valid_ns),
    };
    ops_stat(n, &e->attr);
}

/* errnos of the store and the network that POSIX readers know. Logged with words where they arose.
 */
static int ops_errno(int err)
{
    switch (-err) {
    case ENOENT:
    case ENOTDIR:
    case EISDIR:
    case ESTALE:
    case EACCES:
    case ENOMEM:
    case ENAMETOOLONG:
        return -err;
    default:
        return EIO;
    }
}

/* ------------------------------------------------------------------ names and attributes */

static void ops_init(void *userdata, struct fuse_conn_info *conn)
{
    struct zc_fuse *f = userdata;
    fuse_set_feature_flag(conn, FUSE_CAP_ASYNC_READ);
    fuse_set_feature_flag(conn, FUSE_CAP_PARALLEL_DIROPS);
    fuse_set_feature_flag(conn, FUSE_CAP_READDIRPLUS);
    fuse_set_feature_flag(conn, FUSE_CAP_READDIRPLUS_AUTO);
    fuse_set_feature_flag(conn, FUSE_CAP_SPLICE_WRITE);
    fuse_unset_feature_flag(conn, FUSE_CAP_SPLICE_READ);
    fuse_unset_feature_flag(conn, FUSE_CAP_AUTO_INVAL_DATA); /* a node's bytes never change */
    fuse_unset_feature_flag(conn, FUSE_CAP_FLOCK_LOCKS);
    fuse_unset_feature_flag(conn, FUSE_CAP_POSIX_LOCKS);
    conn->max_write = FUSE_REQUEST_MAX; /* of reads, too */
    /* Reads ahead of a reader. With several sources the limit must not be one that readers of a
       store that stands still can fill. */
    conn->max_background = f->cfg.several ? 16384 : 64;
    conn->congestion_threshold = f->cfg.several ? 12288 : 48;
    conn->time_gran = 1;
    conn->no_interrupt = 1; /* a read of a file is not interrupted */
    f->can_direct = fuse_set_feature_flag(conn, FUSE_CAP_DIRECT_IO_ALLOW_MMAP);
    if (atomic_load(&f->can_pass)) {
        if (fuse_set_feature_flag(conn, FUSE_CAP_PASSTHROUGH)) {
            conn->max_backing_stack_depth = 1;
        } else {
            fuse_pass_off(f, "this kernel has none (Linux 6.9 or newer has)");
        }
    }
    if (f->uring && !fuse_set_feature_flag(conn, FUSE_CAP_OVER_IO_URING)) {
        f->uring = false;
        atomic_store(&f->io_uring, "off: this kernel does not offer it (Linux 6.14 or newer does)");
    }
}

static void ops_looked_up(void *user, int err, const struct zc_node *node)
{
    fuse_req_t req = user;
    struct zc_fuse *f = ops_self(req);
    struct fuse_entry_param e = {0};
    if (err == 0) {
        ops_entry(node, &e);
        if (fuse_reply_entry(req, &e) == -ENOENT) /* which ends req */
            zc_vfs_forget(f->vfs, node->id, 1);
    } else if (err == -ENOENT && node && node->valid_ns > 0) {
        e.entry_timeout =
            ops_timeout(node->valid_ns); /* ino 0: the kernel may remember that it is not there */
        fuse_reply_entry(req, &e);
    } else {
        fuse_reply_err(req, ops_errno(err));
    }
}

static void ops_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    zc_vfs_lookup(ops_self(req)->vfs, parent, name, ops_looked_up, req);
}

static void ops_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    zc_vfs_forget(ops_self(req)->vfs, ino, n);
    fuse_reply_none(req);
}

static void ops_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
    for (size_t i = 0; i < count; i++)
        zc_vfs_forget(ops_self(req)->vfs, forgets[i].ino, forgets[i].nlookup);
    fuse_reply_none(req);
}

static void ops_got_attr(void *user, int err, const struct zc_node *node)
{
    fuse_req_t req = user;
    struct stat st;
    if (err < 0) {
        fuse_reply_err(req, ops_errno(err));
        return;
    }
    ops_stat(node, &st);
    fuse_reply_attr(req, &st, ops_timeout(node->valid_ns));
}

static void ops_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    zc_vfs_getattr(ops_self(req)->vfs, ino, ops_got_attr, req);
}

static void ops_statfs(fuse_req_t req, fuse_ino_t ino)
{
    /* A store has no end. Large, but such that tools that multiply do not overflow. */
    struct statvfs s = {
        .f_bsize = 1 << 20,
        .f_frsize = 4096,
        .f_blocks = (fsblkcnt_t)1 << 40,
        .f_bfree = (fsblkcnt_t)1 << 39,
        .f_bavail = (fsblkcnt_t)1 << 39,
        .f_files = (fsfilcnt_t)1 << 40,
        .f_ffree = (fsfilcnt_t)1 << 39,
        .f_namemax = 255,
    };
    fuse_reply_statfs(req, &s);
}

/* ------------------------------------------------------------------ directories */

struct opendir_ctx {
    fuse_req_t req;
    struct fuse_file_info fi;
};

struct dir_handle {
    struct zc_list link; /* zc_fuse->dirs */
    struct zc_dirh *dh;
    _Atomic bool read; /* from its beginning */
};

static void dir_handle_free(struct zc_fuse *f, struct dir_handle *h)
{
    pthread_mutex_lock(&f->dirs_lock);
    zc_list_del(&h->link);
    pthread_mutex_unlock(&f->dirs_lock);
    zc_vfs_closedir(h->dh);
    free(h);
}

static void ops_dir_opened(void *user, int err, struct zc_dirh *dh)
{
    struct opendir_ctx *c = user;
    struct zc_fuse *f = ops_self(c->req);
    struct dir_handle *h = err < 0 ? NULL : malloc(sizeof(*h));
    if (err == 0 && !h) {
        zc_vfs_closedir(dh);
        err = -ENOMEM;
    }
    if (err < 0) {
        fuse_reply_err(c->req, ops_errno(err));
    } else {
        h->dh = dh;
        atomic_init(&h->read, false);
        pthread_mutex_lock(&f->dirs_lock);
        zc_list_push_back(&f->dirs, &h->link);
        pthread_mutex_unlock(&f->dirs_lock);
        c->fi.fh = (uint64_t)(uintptr_t)h;
        if (fuse_reply_open(c->req, &c->fi) == -ENOENT)
            dir_handle_free(f, h);
    }
    free(c);
}

static void ops_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct opendir_ctx *c = malloc(sizeof(*c));
    if (!c) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    c->req = req;
    c->fi = *fi;
    zc_vfs_opendir(ops_self(req)->vfs, ino, ops_dir_opened, c);
}

static void ops_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    dir_handle_free(ops_self(req), (struct dir_handle *)(uintptr_t)fi->fh);
    fuse_reply_err(req, 0);
}

static size_t ops_add_entry(fuse_req_t req, char *buf, size_t room, bool plus, const char *name,
                            const struct zc_node *node, uint64_t next)
{
    struct fuse_entry_param e;
    ops_entry(node, &e);
    return plus ? fuse_add_direntry_plus(req, buf, room, name, &e, (off_t)next)
                : fuse_add_direntry(req, buf, room, name, &e.attr, (off_t)next);
}

/* Offsets: 1 after ".", 2 after "..", then 3 + place in the directory's table. */
static void list_reply(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct zc_dirh *dh,
                       bool plus)
{
    struct zc_node node = {.kind = ZC_KIND_DIR};
    const char *name;
    uint64_t at = (uint64_t)off;
    size_t used = 0;
    zc_autofree char *buf = malloc(size);
    if (!buf) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    for (; at < 2; at++) {
        node.ino = ino; /* id 0: readdirplus takes no reference for these two */
        size_t n =
            ops_add_entry(req, buf + used, size - used, plus, at ? ".." : ".", &node, at + 1);
        if (n > size - used)
            goto out;
        used += n;
    }
    while (zc_vfs_readdir(dh, at - 2, false, &name, &node) == 1) {
        if (name) {
            size_t n = ops_add_entry(req, NULL, 0, plus, name, &node, at + 1);
            if (n > size - used)
                break;
            zc_vfs_readdir(dh, at - 2, plus, &name, &node);
            if (name)
                used += ops_add_entry(req, buf + used, size - used, plus, name, &node, at + 1);
        }
        at++;
    }
out:
    fuse_reply_buf(req, buf, used);
}

struct rewind_ctx {
    fuse_req_t req;
    fuse_ino_t ino;
    size_t size;
    bool plus;
};

static void ops_rewound(void *user, int err, struct zc_dirh *dh)
{
    struct rewind_ctx *c = user;
    if (err < 0)
        fuse_reply_err(c->req, ops_errno(err));
    else
        list_reply(c->req, c->ino, c->size, 0, dh, c->plus);
    free(c);
}

/* The kernel does not tell of rewinddir(3): it reads from the beginning again. */
static void ops_list(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi, bool plus)
{
    struct dir_handle *h = (struct dir_handle *)(uintptr_t)fi->fh;
    if (off > 0 || !atomic_exchange(&h->read, true)) {
        list_reply(req, ino, size, off, h->dh, plus);
        return;
    }
    struct rewind_ctx *c = malloc(sizeof(*c));
    if (!c) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *c = (struct rewind_ctx){.req = req, .ino = ino, .size = size, .plus = plus};
    zc_vfs_rewinddir(h->dh, ops_rewound, c);
}

static void ops_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                        struct fuse_file_info *fi)
{
    ops_list(req, ino, size, off, fi, false);
}

static void ops_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                            struct fuse_file_info *fi)
{
    ops_list(req, ino, size, off, fi, true);
}

/* ------------------------------------------------------------------ open and release */

struct open_ctx {
    struct zc_waiter waiter;
    fuse_req_t req;
    uint64_t node;
    struct zc_object *o;
    struct fuse_file_info fi;
};

static void handle_unref(struct handle *h)
{
    if (atomic_fetch_sub(&h->refs, 1) != 1)
        return;
    zc_streams_free(h->streams);
    if (h->o)
        zc_object_close(h->o);
    free(h);
}

static void open_answer(fuse_req_t req, struct handle *h, struct fuse_file_info *fi)
{
    struct zc_fuse *f = h->f;
    struct fnode *n = h->n;
    bool passed = h->passed;
    if (!passed)
        fi->backing_id = 0;
    /* A node's bytes never change; but the kernel refuses the flag together with passthrough, where
       it then drops the pages that an earlier open through the daemon left. */
    fi->keep_cache = !passed;
    /* What is still being fetched goes from the backing file's pages to the reader. In pages of
       this mount as well every byte would be in memory twice, and be copied once more. */
    fi->direct_io = h->streams && f->can_direct;
    fi->noflush = 1;
    fi->fh = (uint64_t)(uintptr_t)h;
    if (fuse_reply_open(req, fi) ==
        -ENOENT) { /* the opener was interrupted: no release will come */
        fnode_close(f, n, &h->link, passed);
        handle_unref(h);
    }
}

/* The object is open and, if it is small, here: decide the mode and reply. */
static void open_reply(fuse_req_t req, uint64_t node, struct zc_object *o,
                       struct fuse_file_info *fi)
{
    struct zc_fuse *f = ops_self(req);
    bool complete = zc_object_complete(o);
    int fd = complete ? zc_object_fd(o) : -1;
    enum fnode_mode mode = FNODE_FAILED;
    struct handle *h = calloc(1, sizeof(*h));
    if (h) {
        h->f = f;
        h->o = o;
        atomic_init(&h->refs, 1);
        mode = fnode_open(f, req, node, o, fd, &h->link, &h->n, &fi->backing_id);
        h->passed = mode == FNODE_PASSED || mode == FNODE_LENT;
        if (mode == FNODE_DAEMON && !complete) {
            if (!atomic_exchange(&f->ahead_raised, true))
                fuse_read_ahead(f);
            h->streams = zc_streams_new(o);
            if (!h->streams) {
                fnode_close(f, h->n, &h->link, false);
                mode = FNODE_FAILED;
            }
        }
    }
    if (mode == FNODE_FAILED) {
        free(h);
        zc_object_close(o);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    if (mode == FNODE_LENT) {
        h->o = NULL;
        zc_object_close(o);
    }
    atomic_fetch_add_explicit(&f->opens, 1, memory_order_relaxed);
    if (h->passed)
        atomic_fetch_add_explicit(&f->opens_passed, 1, memory_order_relaxed);
    open_answer(req, h, fi);
}

/* The way of the second open and all later ones: no path, no disk. False: not on loan. */
static bool open_lent(fuse_req_t req, uint64_t node, struct fuse_file_info *fi)
{
    struct zc_fuse *f = ops_self(req);
    struct handle *h = calloc(1, sizeof(*h));
    if (!h)
        return false;
    h->f = f;
    h->passed = true;
    atomic_init(&h->refs, 1);
    if (!fnode_open_lent(f, node, &h->link, &h->n, &fi->backing_id)) {
        free(h);
        return false;
    }
    atomic_fetch_add_explicit(&f->opens_kept, 1, memory_order_relaxed);
    open_answer(req, h, fi);
    return true;
}

static void open_fetched(struct zc_waiter *w, int err)
{
    struct open_ctx *c = zc_container_of(w, struct open_ctx, waiter);
    if (err == 0) {
        open_reply(c->req, c->node, c->o, &c->fi);
    } else {
        if (err == -ESTALE)
            zc_vfs_stale(ops_self(c->req)->vfs, c->node);
        zc_object_close(c->o);
        fuse_reply_err(c->req, ops_errno(err));
    }
    free(c);
}

/* The object is open: a small one is fetched first, whole, in one request to the store. */
static void open_opened(fuse_req_t req, uint64_t node, struct zc_object *o,
                        struct fuse_file_info *fi)
{
    if (zc_object_complete(o) || zc_object_size(o) > zc_object_chunk_size(o)) {
        open_reply(req, node, o, fi);
        return;
    }
    struct open_ctx *c = calloc(1, sizeof(*c));
    if (!c) {
        zc_object_close(o);
        fuse_reply_err(req, ENOMEM);
        return;
    }
    c->req = req;
    c->node = node;
    c->o = o;
    c->fi = *fi;
    c->waiter.done = open_fetched;
    int r = zc_object_want(o, 0, zc_object_size(o), false, ZC_PRIO_DEMAND, &c->waiter);
    if (r != 0)
        open_fetched(&c->waiter, r < 0 ? r : 0);
}

void fuse_open_waiting(fuse_req_t req, uint64_t node, const struct fuse_file_info *info)
{
    struct fuse_file_info fi = *info;
    struct zc_object *o;
    int r = zc_vfs_open(ops_self(req)->vfs, node, &o);
    if (r < 0)
        fuse_reply_err(req, ops_errno(r));
    else
        open_opened(req, node, o, &fi);
}

static void ops_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct zc_fuse *f = ops_self(req);
    struct zc_object *o;
    if ((fi->flags & O_ACCMODE) != O_RDONLY) {
        fuse_reply_err(req, EROFS);
        return;
    }
    if (open_lent(req, ino, fi))
        return;
    if (!f->openers) {
        fuse_open_waiting(req, ino, fi);
        return;
    }
    int r = zc_vfs_open_quick(f->vfs, ino, &o);
    if (r == -EAGAIN)
        r = fuse_openers_add(f->openers, req, ino, fi);
    else if (r == 0)
        open_opened(req, ino, o, fi);
    if (r < 0)
        fuse_reply_err(req, ops_errno(r));
}

static void ops_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct handle *h = (struct handle *)(uintptr_t)fi->fh;
    fnode_close(h->f, h->n, &h->link, h->passed);
    fuse_reply_err(req, 0);
    handle_unref(h);
}

/* ------------------------------------------------------------------ read */

struct read_ctx {
    struct zc_waiter waiter;
    fuse_req_t req;
    uint64_t node;
    struct handle *h;
    uint64_t off;
    size_t len;
    unsigned again;
};

static void read_stale(struct read_ctx *c, int err)
{
    if (err == -ESTALE)
        zc_vfs_stale(c->h->f->vfs, c->node);
    fuse_reply_err(c->req, ops_errno(err));
}

/* Where the reply's bytes go when the request came over io_uring: the kernel's reader copies from
 * there. */
static bool read_payload(fuse_req_t req, char **payload, size_t *room)
{
#ifdef ZC_FUSE_URING_SAFE
    return fuse_req_is_uring(req) && fuse_req_get_payload(req, payload, room, NULL) == 0;
#else
    return false;
#endif
}

/* Replies when the bytes are there; -EAGAIN when they are gone again from memory. */
static int read_reply(struct read_ctx *c)
{
    struct zc_object *o = c->h->o;
    struct zc_fuse *f = c->h->f;
    uint64_t size = zc_object_size(o);
    size_t len = c->off < size ? (size_t)ZC_MIN((uint64_t)c->len, size - c->off) : 0;
    char *payload;
    size_t room;
    ssize_t n;

    if (len == 0) {
        fuse_reply_buf(c->req, NULL, 0);
        return 0;
    }
    if (f->uring && read_payload(c->req, &payload, &room)) {
        n = zc_object_read(o, payload, c->off, ZC_MIN(len, room));
        if (n >= 0)
            fuse_reply_buf(c->req, payload, (size_t)n);
    } else if (zc_object_in_file(o, c->off, len) &&
               fuse_reply_file(f, c->req, zc_object_fd(o), c->off, len)) {
        n = (ssize_t)len;
    } else {
        zc_autofree char *buf = malloc(len);
        n = buf ? zc_object_read(o, buf, c->off, len) : -ENOMEM;
        if (n >= 0)
            fuse_reply_buf(c->req, buf, (size_t)n);
    }
    if (n == -EAGAIN)
        return -EAGAIN;
    if (n < 0)
        fuse_reply_err(c->req, ops_errno((int)n));
    else
        atomic_fetch_add_explicit(&f->read_bytes, (uint64_t)n, memory_order_relaxed);
    return 0;
}

static void read_arrived(struct zc_waiter *w, int err);

/* Wants and replies until it is done or somebody else will go on. Owns c. */
static void read_step(struct read_ctx *c, int r)
{
    while (r >= 0) {
        if (r == 1) {
            if (read_reply(c) == 0)
                break;
            if (++c->again > 16) { /* memory is so short that bytes leave before they are read */
                r = -EIO;
                continue;
            }
        }
        r = zc_object_want(c->h->o, c->off, c->len, true, ZC_PRIO_DEMAND, &c->waiter);
        if (r == 0)
            return;
    }
    if (r < 0)
        read_stale(c, r);
    handle_unref(c->h);
    free(c);
}

static void read_arrived(struct zc_waiter *w, int err)
{
    read_step(zc_container_of(w, struct read_ctx, waiter), err < 0 ? err : 1);
}

static void ops_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off,
                     struct fuse_file_info *fi)
{
    struct handle *h = (struct handle *)(uintptr_t)fi->fh;
    /* The kernel reads the backing file itself, but takes readahead(2) and POSIX_FADV_WILLNEED for
       pages of this mount, which nobody would read. Without them nothing fails. */
    if (h->passed) {
        fuse_reply_err(req, EIO);
        return;
    }
    struct read_ctx *c = calloc(1, sizeof(*c));
    if (!c) {
        fuse_reply_err(req, ENOMEM);
        return;
    }
    atomic_fetch_add_explicit(&h->f->reads, 1, memory_order_relaxed);
    atomic_fetch_add(&h->refs, 2); /* for the read, and for this function */
    *c = (struct read_ctx){.req = req, .node = ino, .h = h, .off = (uint64_t)off, .len = size};
    c->waiter.done = read_arrived;
    bool stream = h->streams && zc_streams_note(h->streams, c->off, size);
    int r = zc_object_want(h->o, c->off, size, !stream, ZC_PRIO_DEMAND, &c->waiter);
    if (r != 0)
        read_step(c, r);
    if (stream)
        zc_streams_ahead(h->streams, (uint64_t)off + size);
    handle_unref(h);
}

void fuse_drop_handles(struct zc_fuse *f)
{
    struct zc_list *it;
    while ((it = fnodes_left(f)))
        handle_unref(zc_list_entry(it, struct handle, link));
    while ((it = zc_list_pop_front(&f->dirs)))
        dir_handle_free(f, zc_list_entry(it, struct dir_handle, link));
}

const struct fuse_lowlevel_ops fuse_ops = {
    .init = ops_init,
    .lookup = ops_lookup,
    .forget = ops_forget,
    .forget_multi = ops_forget_multi,
    .getattr = ops_getattr,
    .statfs = ops_statfs,
    .opendir = ops_opendir,
    .readdir = ops_readdir,
    .readdirplus = ops_readdirplus,
    .releasedir = ops_releasedir,
    .open = ops_open,
    .read = ops_read,
    .release = ops_release,
};
