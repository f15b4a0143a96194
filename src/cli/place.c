/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/place.h"

#include "base/log.h"
#include "cli/client.h"
#include "cli/target.h"
#include "http/ctl.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#define PLACE_ENDING_NS (2 * ZC_NS_PER_S)

extern char **environ;

/* ------------------------------------------------------------------ unmounting */

/* Users other than root unmount through FUSE's helper. It says what is wrong on stderr, which is
 * read here. */
static int place_fusermount(const char *point, bool detach, struct zc_error *err)
{
    const char *argv[] = {"fusermount3",         "-u", detach ? "-z" : "--", detach ? "--" : point,
                          detach ? point : NULL, NULL};
    posix_spawn_file_actions_t fa;
    char text[400] = "";
    size_t len = 0;
    int out[2], status = 0;
    pid_t pid;

    if (pipe2(out, O_CLOEXEC) < 0)
        return zc_error_set(err, -errno, "cannot make a pipe: %s", strerror(errno));
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_adddup2(&fa, out[1], STDERR_FILENO);
    int r = posix_spawnp(&pid, argv[0], &fa, NULL, (char **)argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    close(out[1]);
    if (r != 0) {
        close(out[0]);
        return zc_error_set(err, -r,
                            "cannot run fusermount3, which unmounts for users other than root: %s",
                            strerror(r));
    }
    for (ssize_t n;
         len < sizeof(text) - 1 && (n = read(out[0], text + len, sizeof(text) - 1 - len)) > 0;)
        len += (size_t)n;
    close(out[0]);
    text[len] = 0;
    text[strcspn(text, "\n")] = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return 0;
    if (strstr(text, "busy"))
        return zc_error_set(err, -EBUSY, "'%s' is in use", point);
    return zc_error_set(err, -EIO, "cannot unmount '%s': %s", point,
                        text[0] ? text : "fusermount3 failed");
}

int zc_place_unmount(const char *point, bool detach, struct zc_error *err)
{
    if (geteuid() != 0)
        return place_fusermount(point, detach, err);
    if (umount2(point, UMOUNT_NOFOLLOW | (detach ? MNT_DETACH : 0)) == 0)
        return 0;
    if (errno == EBUSY)
        return zc_error_set(err, -EBUSY, "'%s' is in use", point);
    return zc_error_set(err, -errno, "cannot unmount '%s': %s", point, strerror(errno));
}

/* ------------------------------------------------------------------ checking */

/* One of ours is mounted there: is it alive? 1 when it was dead and is gone now. */
static int place_ours(const struct zc_mnts *mnts, const struct zc_mnt *m, const char *point,
                      struct zc_error *err)
{
    struct statvfs st;
    zc_autofree char *sock = zc_target_socket(mnts, m, NULL);
    pid_t pid = sock ? zc_client_pid(sock) : 0;
    if (pid > 0)
        return zc_error_set(err, -EBUSY, "'%s' is a mount of zcache already (%s, process %d)",
                            point, m->source, (int)pid);
    /* Not stat(2), which the kernel answers from what it remembers. A daemon's rings end a little
       later than it does itself: what they held is cancelled. */
    if (statvfs(point, &st) == 0 ||
        (errno != ENOTCONN && errno != ECONNABORTED && errno != ECANCELED))
        return zc_error_set(err, -EBUSY, "'%s' is a mount of zcache already (%s)", point,
                            m->source);
    int r = zc_place_unmount(point, true, err);
    if (r < 0) {
        zc_error_prefix(err, "a dead mount of an earlier daemon is in the way");
        return r;
    }
    zc_warn("the mount at '%s' was dead (its daemon is gone): unmounted it", point);
    return 1;
}

/* No mount of ours is seen there, but a daemon may still serve one that was: unmounted lazily and
   read from, or below something that was mounted over it. One that is just ending is waited for. */
static int place_unseen(const char *point, struct zc_error *err)
{
    zc_autofree char *sock = zc_ctl_path(point);
    int64_t end = zc_now_ns() + PLACE_ENDING_NS;
    pid_t pid;
    if (!sock)
        return zc_error_set(err, -ENOMEM, "no memory");
    while ((pid = zc_client_pid(sock)) > 0) {
        if (zc_now_ns() >= end)
            return zc_error_set(err, -EBUSY,
                                "an earlier mount of zcache at '%s' is still in use (process %d), "
                                "unmounted lazily or hidden by another mount",
                                point, (int)pid);
        usleep(20 * 1000);
    }
    return 0;
}

int zc_place_check(const char *point, struct zc_error *err)
{
    struct stat st;
    for (;;) {
        struct zc_mnts mnts = {0};
        int r = zc_mnts_read(&mnts, err);
        if (r < 0)
            return r;
        const struct zc_mnt *m = zc_mnts_at(&mnts, point);
        r = m && zc_mnt_is_ours(m) ? place_ours(&mnts, m, point, err) : 0;
        zc_mnts_free(&mnts);
        if (r < 0)
            return r;
        if (r == 0)
            break;
    }
    if (stat(point, &st) < 0) {
        if (errno == ENOENT)
            return zc_error_set(err, -ENOENT, "the mount point '%s' does not exist", point);
        if (errno == ENOTCONN)
            return zc_error_set(err, -ENOTCONN,
                                "a dead mount of another file system is at '%s'; unmount it first",
                                point);
        return zc_error_set(err, -errno, "the mount point '%s' cannot be used: %s", point,
                            strerror(errno));
    }
    if (!S_ISDIR(st.st_mode))
        return zc_error_set(err, -ENOTDIR, "the mount point '%s' is not a directory", point);
    return place_unseen(point, err);
}

int zc_place_overlap(const char *point, const char *cache_dir, const char *source_dir,
                     const char *log_dir, struct zc_error *err)
{
    if (zc_path_below(cache_dir, point))
        return zc_error_set(err, -EINVAL, "the cache '%s' would lie in the mount '%s' itself",
                            cache_dir, point);
    if (log_dir && zc_path_below(log_dir, point))
        return zc_error_set(err, -EINVAL, "the log '%s' would lie in the mount '%s' itself",
                            log_dir, point);
    if (!source_dir)
        return 0;
    if (zc_path_below(source_dir, point))
        return zc_error_set(err, -EINVAL, "the mount '%s' would hide its own source '%s'", point,
                            source_dir);
    if (zc_path_below(point, source_dir))
        return zc_error_set(err, -EINVAL, "the mount '%s' would lie in its own source '%s'", point,
                            source_dir);
    if (zc_path_below(cache_dir, source_dir))
        return zc_error_set(err, -EINVAL, "the cache '%s' would lie in the source '%s' itself",
                            cache_dir, source_dir);
    return 0;
}

/* ------------------------------------------------------------------ folders */

int zc_place_absolute(const char *path, char **out, struct zc_error *err)
{
    char *v = realpath(path, NULL);
    if (!v) {
        /* The folder itself may be missing; the one above it then is not, or the text has to do. */
        zc_autofree char *copy = strdup(path);
        if (!copy)
            return zc_error_set(err, -ENOMEM, "no memory");
        for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/';)
            copy[--n] = 0;
        char *slash = strrchr(copy, '/');
        char *last = slash ? slash + 1 : copy;
        zc_autofree char *up = NULL;
        if (strcmp(last, "..") != 0 && strcmp(last, ".") != 0) {
            if (slash)
                *slash = 0;
            up = realpath(!slash ? "." : slash == copy ? "/" : copy, NULL);
        }
        if (up && asprintf(&v, "%s/%s", strcmp(up, "/") == 0 ? "" : up, last) < 0)
            v = NULL;
        if (!v)
            v = zc_path_clean(path);
    }
    if (!v)
        return zc_error_set(err, -EINVAL, "'%s': %s", path, strerror(errno));
    *out = v;
    return 0;
}

int zc_place_cache_default(char **out, struct zc_error *err)
{
    const char *xdg = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int n;
    if (geteuid() == 0)
        n = asprintf(&path, "/var/cache/zcache");
    else if (xdg && xdg[0] == '/')
        n = asprintf(&path, "%s/zcache", xdg);
    else if (home && home[0] == '/')
        n = asprintf(&path, "%s/.cache/zcache", home);
    else
        return zc_error_set(
            err, -ENOENT, "neither HOME nor XDG_CACHE_HOME is set: name a folder with --cache-dir");
    if (n < 0)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (char *s = path + 1; (s = strchr(s, '/')); s++) {
        *s = 0;
        mkdir(path, 0700); /* what fails here fails again, with words, when the cache is opened */
        *s = '/';
    }
    *out = path;
    return 0;
}
