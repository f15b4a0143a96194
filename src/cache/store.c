/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Two daemons, or one that starts while another ends, may meet in one folder. The lock's inode
 * decides: a folder is removed only by who holds its lock, the lock goes last, and who gets a lock
 * looks whether it is still the one in the folder (a lock file that was unlinked meanwhile locks
 * nothing).
 */
#include "cache/store.h"

#include "base/log.h"

#include <dirent.h>
#include <errno.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

#define STORE_MAGIC "zcache 1\n"
#define STORE_TMPFS 0x01021994
#define STORE_RAMFS 0x858458f6
#define STORE_PLACES 9 /* NAME, NAME-2 ... NAME-9 */
#define STORE_DEPTH 4
#define STORE_WIPERS 7 /* threads that unlink, beside the caller */

/* ------------------------------------------------------------------ removing */

static int store_is_dots(const char *name)
{
    return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* Empties a directory, but for a file called `spare`. Takes fd. First error, but goes on. */
static int store_remove_tree(int take_fd, const char *spare, int depth)
{
    DIR *d = fdopendir(take_fd);
    int r = 0;
    if (!d) {
        r = -errno;
        close(take_fd);
        return r;
    }
    rewinddir(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (store_is_dots(e->d_name) || (spare && strcmp(e->d_name, spare) == 0))
            continue;
        if (unlinkat(dirfd(d), e->d_name, 0) == 0 || errno == ENOENT)
            continue;
        int err = -errno;
        if (errno == EISDIR && depth > 0) {
            int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
            err = sub < 0 ? -errno : store_remove_tree(sub, NULL, depth - 1);
            if (err == 0 && unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR) < 0)
                err = -errno;
        }
        if (err < 0 && r == 0)
            r = err;
    }
    closedir(d);
    return r;
}

/* ------------------------------------------------------------------ locking */

/* 1: `fd` is locked and is the folder's lock; 0: it is not any more; -EWOULDBLOCK: a daemon has it.
 */
static int store_lock(int folder, int fd)
{
    struct stat mine, named;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? -EWOULDBLOCK : -errno;
    if (fstat(fd, &mine) < 0)
        return -errno;
    if (fstatat(folder, "lock", &named, AT_SYMLINK_NOFOLLOW) < 0)
        return errno == ENOENT ? 0 : -errno;
    return mine.st_ino == named.st_ino && mine.st_dev == named.st_dev && named.st_nlink > 0;
}

/* Says what the holder said of the folder; false unless it is one of ours. */
static bool store_marker_read(int fd, bool *keep)
{
    char buf[256] = "";
    ssize_t n = pread(fd, buf, sizeof(buf) - 1, 0);
    if (n <= 0 || strncmp(buf, STORE_MAGIC, strlen(STORE_MAGIC)) != 0)
        return false;
    *keep = strstr(buf, "\nkeep 1\n") != NULL;
    return true;
}

static int store_marker_write(int fd, bool keep, const char *identity)
{
    zc_autofree char *text = NULL;
    int n = asprintf(&text, STORE_MAGIC "pid %ld\nkeep %d\nidentity %s\n", (long)getpid(), keep,
                     identity);
    if (n < 0) {
        text = NULL;
        return -ENOMEM;
    }
    if (ftruncate(fd, 0) < 0)
        return -errno;
    ssize_t w = pwrite(fd, text, (size_t)n, 0);
    return w == n ? 0 : w < 0 ? -errno : -ENOSPC;
}

/* 16 hex digits, and perhaps "-2" to "-9". */
static bool store_is_folder_name(const char *s)
{
    size_t n = strspn(s, "0123456789abcdef");
    return n == 16 &&
           (s[16] == '\0' || (s[16] == '-' && s[17] >= '2' && s[17] <= '9' && s[18] == '\0'));
}

/* Removes a folder that no daemon holds and that was not to be kept (or any that nobody holds, if
 * `all`). */
static void store_sweep_one(int dir, const char *name, bool all)
{
    zc_autoclose int folder = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return;
    zc_autoclose int lock = openat(folder, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    bool keep = false;
    if (lock < 0) {
        if (errno == ENOENT) /* half removed, or just being made: then this fails */
            unlinkat(dir, name, AT_REMOVEDIR);
        return;
    }
    if (store_lock(folder, lock) != 1 || !store_marker_read(lock, &keep) || (keep && !all))
        return;
    int sub = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int r = sub < 0 ? -errno : store_remove_tree(sub, "lock", STORE_DEPTH);
    if (r == 0 && (unlinkat(folder, "lock", 0) < 0 || unlinkat(dir, name, AT_REMOVEDIR) < 0))
        r = -errno;
    if (r < 0)
        zc_warn("cannot remove the old cache %s: %s", name, strerror(-r));
    else
        zc_info("removed the old cache %s", name);
}

static void store_sweep(int dir)
{
    int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d) {
        if (fd >= 0)
            close(fd);
        return;
    }
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (store_is_folder_name(e->d_name))
            store_sweep_one(dir, e->d_name, false);
    }
    closedir(d);
}

/* ------------------------------------------------------------------ opening */

static int store_mkdir_all(const char *path)
{
    zc_autofree char *p = strdup(path);
    if (!p)
        return -ENOMEM;
    for (char *s = p + 1; *s; s++) {
        if (*s != '/')
            continue;
        *s = '\0';
        if (mkdir(p, 0700) < 0 && errno != EEXIST)
            return -errno;
        *s = '/';
    }
    return mkdir(p, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* The configured directory's descriptor, or -errno with words. */
static int store_open_dir(const char *dir, bool allow_tmpfs, struct zc_error *err)
{
    struct statfs fs;
    int r = store_mkdir_all(dir);
    if (r < 0)
        return zc_error_set(err, r,
                            "cannot make the cache directory %s: %s; name another with --cache-dir",
                            dir, strerror(-r));
    zc_autoclose int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstatfs(fd, &fs) < 0)
        return zc_error_set(
            err, -errno, "cannot use %s as the cache directory: %s; name another with --cache-dir",
            dir, strerror(errno));
    if (!allow_tmpfs && (fs.f_type == STORE_TMPFS || fs.f_type == (__fsword_t)STORE_RAMFS))
        return zc_error_set(
            err, -EINVAL,
            "%s lies in memory (tmpfs): a cache there takes what the job needs. Name a "
            "directory on a disk with --cache-dir, or say --allow-tmpfs",
            dir);
    return zc_steal_fd(&fd);
}

/* One try at one name. 1: it is ours; 0: try again (it vanished); -EWOULDBLOCK: a daemon has it. */
static int store_try(struct store *s, int dir, const char *name)
{
    if (mkdirat(dir, name, 0700) < 0 && errno != EEXIST)
        return -errno;
    zc_autoclose int folder = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (folder < 0)
        return errno == ENOENT ? 0 : -errno;
    zc_autoclose int lock = openat(folder, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (lock < 0)
        return errno == ENOENT ? 0 : -errno;
    int r = store_lock(folder, lock);
    if (r != 1)
        return r;
    s->dirfd = zc_steal_fd(&folder);
    s->lockfd = zc_steal_fd(&lock);
    return 1;
}

static int store_claim(struct store *s, int dir, const char *dirname, const char *identity)
{
    unsigned long long h = zc_hash64(0, identity, strlen(identity));
    for (int place = 1; place <= STORE_PLACES; place++) {
        char name[32];
        int r;
        if (place == 1)
            snprintf(name, sizeof(name), "%016llx", h);
        else
            snprintf(name, sizeof(name), "%016llx-%d", h, place);
        do
            r = store_try(s, dir, name);
        while (r == 0);
        if (r == -EWOULDBLOCK)
            continue;
        if (r < 0)
            return r;
        if (asprintf(&s->path, "%s/%s", dirname, name) < 0) {
            s->path = NULL;
            return -ENOMEM;
        }
        return 0;
    }
    return -EBUSY;
}

/* Without a journal, ext4 does not reuse the inodes of files deleted within the last minutes, and
   for each new file walks past all of those in its block group: a cache that evicts small files
   then spends ten times longer on a new one than it takes. The "top of hierarchies" flag has it put
   each of the folders below into a group of its own, so that the walks are short. File systems that
   do not know the flag refuse it. */
static void store_spread(int objects)
{
    int flags;
    if (ioctl(objects, FS_IOC_GETFLAGS, &flags) == 0 && !(flags & FS_TOPDIR_FL)) {
        flags |= FS_TOPDIR_FL;
        ioctl(objects, FS_IOC_SETFLAGS, &flags);
    }
}

static int store_open_objects(struct store *s)
{
    if (mkdirat(s->dirfd, "objects", 0700) < 0 && errno != EEXIST)
        return -errno;
    zc_autoclose int objects =
        openat(s->dirfd, "objects", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (objects < 0)
        return -errno;
    store_spread(objects);
    for (int i = 0; i < 256; i++) {
        char name[3];
        snprintf(name, sizeof(name), "%02x", i);
        s->objects[i] = openat(objects, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (s->objects[i] < 0 && errno == ENOENT) {
            if (mkdirat(objects, name, 0700) < 0)
                return -errno;
            s->objects[i] = openat(objects, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        }
        if (s->objects[i] < 0)
            return -errno;
    }
    return 0;
}

static void store_close_objects(struct store *s)
{
    for (int i = 0; i < 256; i++) {
        if (s->objects[i] >= 0)
            close(s->objects[i]);
        s->objects[i] = -1;
    }
}

struct wipe {
    struct store *store;
    _Atomic int next, error;
};

static void *wipe_main(void *arg)
{
    struct wipe *w = arg;
    for (int i; (i = atomic_fetch_add(&w->next, 1)) < 256;) {
        int fd = openat(w->store->objects[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = fd < 0 ? -errno : store_remove_tree(fd, NULL, 1);
        if (r < 0)
            w->error = r;
    }
    return NULL;
}

/* Unlinking a gigabyte that is in the page cache takes a good part of a second, so as many at once
   as there are processors. */
int store_empty(struct store *s)
{
    struct wipe w = {.store = s};
    pthread_t t[STORE_WIPERS];
    long cpus = sysconf(_SC_NPROCESSORS_ONLN);
    int n = 0, want = (int)ZC_MIN(cpus > 0 ? cpus - 1 : 0, (long)STORE_WIPERS);
    while (n < want && pthread_create(&t[n], NULL, wipe_main, &w) == 0)
        n++;
    wipe_main(&w);
    while (n > 0)
        pthread_join(t[--n], NULL);
    return w.error;
}

/* All but the lock. */
static int store_wipe(struct store *s)
{
    if (s->objects[255] >= 0)
        store_empty(s);
    store_close_objects(s);
    int fd = openat(s->dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : store_remove_tree(fd, "lock", STORE_DEPTH);
}

int store_open(const char *dir, const char *identity, bool keep, bool allow_tmpfs,
               struct store **out, struct zc_error *err)
{
    zc_autoclose int dirfd = store_open_dir(dir, allow_tmpfs, err);
    if (dirfd < 0)
        return dirfd;
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        return zc_error_set(err, -ENOMEM, "out of memory");
    s->dirfd = s->lockfd = -1;
    for (int i = 0; i < 256; i++)
        s->objects[i] = -1;
    int r = store_claim(s, dirfd, dir, identity);
    if (r == 0 && !keep) {
        if (faccessat(s->dirfd, "objects", F_OK, AT_SYMLINK_NOFOLLOW) == 0)
            store_open_objects(s); /* if that fails, the slow way does it */
        r = store_wipe(s);
    }
    if (r == 0)
        r = store_marker_write(s->lockfd, keep, identity);
    if (r == 0) {
        store_sweep(dirfd);
        r = store_open_objects(s);
    }
    if (r < 0) {
        if (r == -EBUSY)
            zc_error_set(err, r,
                         "%d mounts of this source already keep their caches under %s; name "
                         "another --cache-dir",
                         STORE_PLACES, dir);
        else
            zc_error_set(err, r, "cannot make a cache under %s: %s; name another --cache-dir", dir,
                         strerror(-r));
        store_close(s, !keep && r != -EBUSY);
        return r;
    }
    *out = s;
    return 0;
}

void store_close(struct store *s, bool remove)
{
    if (!s)
        return;
    if (remove && s->dirfd >= 0 && s->path) {
        int r = store_wipe(s);
        if (r == 0 && (unlinkat(s->dirfd, "lock", 0) < 0 || rmdir(s->path) < 0))
            r = -errno;
        if (r < 0)
            zc_warn("cannot remove the cache %s: %s", s->path, strerror(-r));
    }
    store_close_objects(s);
    if (s->lockfd >= 0)
        close(s->lockfd);
    if (s->dirfd >= 0)
        close(s->dirfd);
    free(s->path);
    free(s);
}

/* ------------------------------------------------------------------ files */

int store_file_open(struct store *s, struct zc_objid id, int flags)
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, id.id);
    int fd = openat(s->objects[id.id.hi >> 56], hex, flags | O_CLOEXEC | O_NOFOLLOW, 0600);
    return fd < 0 ? -errno : fd;
}

int store_file_open_cached(struct store *s, struct zc_objid id)
{
    char hex[ZC_DIGEST_HEX + 1];
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW, .resolve = RESOLVE_CACHED};
    zc_digest_hex(hex, id.id);
    long fd = syscall(SYS_openat2, s->objects[id.id.hi >> 56], hex, &how, sizeof(how));
    return fd < 0 ? -errno : (int)fd;
}

int store_file_unlink(struct store *s, struct zc_objid id)
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, id.id);
    return unlinkat(s->objects[id.id.hi >> 56], hex, 0) < 0 && errno != ENOENT ? -errno : 0;
}

const char *store_file_name(struct zc_objid id, char out[STORE_NAME_MAX])
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, id.id);
    snprintf(out, STORE_NAME_MAX, "objects/%.2s/%s", hex, hex);
    return out;
}

static int store_scan_dir(int fd, unsigned first,
                          int (*fn)(void *user, struct zc_objid id, const struct stat *st),
                          void *user)
{
    DIR *d = fdopendir(fd);
    if (!d) {
        int r = -errno;
        close(fd);
        return r;
    }
    int r = 0;
    for (struct dirent *e; r == 0 && (e = readdir(d)) != NULL;) {
        struct zc_objid id;
        struct stat st;
        if (store_is_dots(e->d_name))
            continue;
        bool ours = strlen(e->d_name) == ZC_DIGEST_HEX && zc_digest_parse(e->d_name, &id.id) == 0 &&
                    id.id.hi >> 56 == first &&
                    fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
                    S_ISREG(st.st_mode);
        int go = ours ? fn(user, id, &st) : 1;
        if (go == 1 && unlinkat(dirfd(d), e->d_name, 0) < 0)
            r = -errno;
        else if (go < 0)
            r = go;
    }
    closedir(d);
    return r;
}

int store_scan(struct store *s, int (*fn)(void *user, struct zc_objid id, const struct stat *st),
               void *user)
{
    for (unsigned i = 0; i < 256; i++) {
        int fd = openat(s->objects[i], ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r = fd < 0 ? -errno : store_scan_dir(fd, i, fn, user);
        if (r < 0)
            return r;
    }
    return 0;
}

int store_space(struct store *s, uint64_t *avail, uint64_t *total)
{
    struct statvfs v;
    if (fstatvfs(s->dirfd, &v) < 0)
        return -errno;
    *avail = (uint64_t)v.f_bavail * v.f_frsize;
    *total = (uint64_t)v.f_blocks * v.f_frsize;
    return 0;
}
