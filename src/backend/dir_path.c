/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths of a directory source.
 *
 * All paths are resolved by openat2(RESOLVE_BENEATH) from a descriptor of the root: neither a link
 * nor a rename under way can lead out of it. Absolute links count as leading out, wherever they
 * point, for the kernel follows them from "/".
 */
#include "backend/dir_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

int dir_root(struct dir_src *src)
{
    int fd = atomic_load(&src->root);
    if (fd >= 0)
        return fd;
    int mine = open(src->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (mine < 0)
        return -errno;
    if (atomic_compare_exchange_strong(&src->root, &fd, mine))
        return mine;
    close(mine);
    return fd;
}

int dir_open(struct dir_src *src, const char *path, int flags)
{
    int root = dir_root(src);
    if (root < 0)
        return root;
    struct open_how how = {
        .flags = (uint64_t)(flags | O_CLOEXEC),
        .resolve = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS,
    };
    /* EAGAIN: a rename somewhere else raced with a ".." of a link, the kernel wants it tried again.
     */
    for (int i = 0; i < 32; i++) {
        long fd = syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
        if (fd >= 0)
            return (int)fd;
        if (errno != EAGAIN && errno != EINTR)
            return -errno;
    }
    return -EAGAIN;
}

static int dir_fstat_path(struct dir_src *src, const char *path, int flags, struct stat *st)
{
    zc_autoclose int fd = dir_open(src, path, O_PATH | flags);
    if (fd < 0)
        return fd;
    return fstat(fd, st) < 0 ? -errno : 0;
}

/* Is the directory `st`, reached by a link at `path`, one of the directories that `path` goes
   through? A walk would then go round in it, forty times before the kernel stops it. */
static bool dir_link_loops(struct dir_src *src, const char *path, const struct stat *st)
{
    char *p = strdup(path);
    if (!p)
        return true;
    bool loops = false;
    while (!loops && *p) {
        char *slash = strrchr(p, '/');
        *(slash ? slash : p) = '\0';
        struct stat up;
        if (dir_fstat_path(src, p, 0, &up) == 0)
            loops = up.st_ino == st->st_ino && up.st_dev == st->st_dev;
    }
    free(p);
    return loops;
}

int dir_stat_path(struct dir_src *src, const char *path, struct stat *st, bool *hidden)
{
    *hidden = false;
    int r = dir_fstat_path(src, path, O_NOFOLLOW, st);
    if (r == -EXDEV || r == -ELOOP) {
        *hidden = true;
        return -ENOENT;
    }
    if (r < 0)
        return r;
    if (S_ISLNK(st->st_mode)) {
        r = dir_fstat_path(src, path, 0, st);
        bool nowhere = r == -EXDEV || r == -ELOOP || r == -ENOENT || r == -ENOTDIR || r == -EACCES;
        if (nowhere || (r == 0 && S_ISDIR(st->st_mode) && dir_link_loops(src, path, st))) {
            *hidden = true;
            return -ENOENT;
        }
        if (r < 0)
            return r;
    }
    if (!S_ISREG(st->st_mode) && !S_ISDIR(st->st_mode)) {
        *hidden = true;
        return -ENOENT;
    }
    return 0;
}

int64_t dir_ns(const struct timespec *ts)
{
    return (int64_t)ts->tv_sec * ZC_NS_PER_S + ts->tv_nsec;
}

void dir_version(const struct stat *st, char out[DIR_VERSION_BYTES])
{
    snprintf(out, DIR_VERSION_BYTES, "%" PRIu64 ":%" PRId64 ":%" PRId64 ":%" PRIu64,
             (uint64_t)st->st_ino, dir_ns(&st->st_mtim), dir_ns(&st->st_ctim),
             (uint64_t)st->st_size);
}

void dir_attr(const struct stat *st, const char *version, struct zc_attr *out)
{
    bool dir = S_ISDIR(st->st_mode);
    *out = (struct zc_attr){
        .kind = dir ? ZC_KIND_DIR : ZC_KIND_FILE,
        .size = dir ? 0 : (uint64_t)st->st_size,
        .mtime_ns = dir_ns(&st->st_mtim),
        .mode = st->st_mode & 07777,
        .uid = st->st_uid,
        .gid = st->st_gid,
        .version = dir ? "" : version,
    };
}

int dir_fail(struct dir_src *src, struct zc_error *e, const char *path, int err)
{
    static const struct {
        int from, to;
    } map[] = {
        {ENOENT, ENOENT},         {ENAMETOOLONG, ENOENT},
        {EXDEV, ENOENT},          {ELOOP, ENOENT},
        {ENXIO, ENOENT},          {EACCES, EACCES},
        {EPERM, EACCES},          {ENOTDIR, ENOTDIR},
        {EISDIR, EISDIR},         {ESTALE, ESTALE},
        {ETIMEDOUT, ETIMEDOUT},   {ECONNREFUSED, ECONNREFUSED},
        {ECONNRESET, ECONNRESET}, {EHOSTUNREACH, EHOSTUNREACH},
        {EAGAIN, EAGAIN},         {EINTR, EAGAIN},
        {EMFILE, EAGAIN},         {ENFILE, EAGAIN},
        {ENOMEM, EAGAIN},         {ECANCELED, ECANCELED},
    };
    int code = EIO;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(map); i++)
        if (map[i].from == -err)
            code = map[i].to;
    const char *sep = *path ? "/" : "";
    if (code == ESTALE)
        return zc_error_set(e, -code, "%s%s%s was changed while it was in use", src->path, sep,
                            path);
    return zc_error_set(e, -code, "%s%s%s: %s", src->path, sep, path, strerror(-err));
}
