/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list for `zcache warm` may name a million files, and realpath(3) would look each of them up
 * through the mount. So a path is first placed by its text; only one that lies in no mount of ours
 * that way (a link leads there, or it has a "..") is resolved.
 */
#include "cli/target.h"

#include "base/buf.h"
#include "http/ctl.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

char *zc_path_clean(const char *path)
{
    zc_autobuf struct zc_buf b = {0};
    if (path[0] != '/') {
        zc_autofree char *cwd = getcwd(NULL, 0);
        if (!cwd)
            return NULL;
        zc_buf_adds(&b, strcmp(cwd, "/") == 0 ? "" : cwd);
    }
    while (*path) {
        size_t n = strcspn(path, "/");
        if (n == 2 && path[0] == '.' && path[1] == '.') {
            errno = EINVAL;
            return NULL;
        }
        if (n && !(n == 1 && path[0] == '.')) {
            zc_buf_addc(&b, '/');
            zc_buf_add(&b, path, n);
        }
        path += n;
        path += strspn(path, "/");
    }
    if (!b.len)
        zc_buf_addc(&b, '/');
    return zc_buf_steal(&b);
}

int zc_target_point(const char *path, char **out, struct zc_error *err)
{
    char real[PATH_MAX];
    if (!*path)
        return zc_error_set(err, -ENOENT, "the mount point is an empty name");
    zc_autofree char *copy = strdup(path);
    if (!copy)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/';)
        copy[--n] = 0;
    struct stat st;
    char *slash = strrchr(copy, '/');
    char *last = slash ? slash + 1 : copy;
    bool link = lstat(copy, &st) == 0 && S_ISLNK(st.st_mode);
    if (link || !*last || strcmp(last, ".") == 0 || strcmp(last, "..") == 0) {
        *out = realpath(copy, NULL);
        return *out ? 0 : zc_error_set(err, -errno, "'%s': %s", path, strerror(errno));
    }
    const char *dir = ".";
    if (slash) {
        *slash = 0;
        dir = slash == copy ? "/" : copy;
    }
    if (!realpath(dir, real))
        return zc_error_set(err, -errno, "'%s': %s", path, strerror(errno));
    if (asprintf(out, "%s/%s", strcmp(real, "/") == 0 ? "" : real, last) < 0)
        return zc_error_set(err, -ENOMEM, "no memory");
    return 0;
}

static bool target_set(const struct zc_mnts *mnts, const char *path, struct zc_target *out)
{
    const struct zc_mnt *m = zc_mnts_of(mnts, path);
    if (!m || !zc_mnt_is_ours(m))
        return false;
    const char *rest = path + strlen(m->point);
    while (*rest == '/')
        rest++;
    const char *root = m->root;
    while (*root == '/')
        root++;
    char *rel = NULL;
    if (asprintf(&rel, "%s%s%s", root, *root && *rest ? "/" : "", rest) < 0)
        return false;
    out->mnt = m;
    out->rel = rel;
    return true;
}

int zc_target_find(const struct zc_mnts *mnts, const char *path, struct zc_target *out,
                   struct zc_error *err)
{
    zc_autofree char *clean = zc_path_clean(path);
    if (clean && target_set(mnts, clean, out))
        return 0;
    zc_autofree char *real = realpath(path, NULL);
    if (!real)
        return zc_error_set(err, -errno, "'%s': %s", path, strerror(errno));
    if (target_set(mnts, real, out))
        return 0;
    return zc_error_set(err, -ENODEV, "'%s' is not in a zcache mount", path);
}

/* The run directory of a user who is logged in, which root looks into for that user's mounts. */
static char *target_user_socket(uid_t uid, const char *point)
{
    zc_autofree char *tmp = zc_ctl_path_of(uid, point);
    const char *base = tmp ? strrchr(tmp, '/') : NULL;
    char *path = NULL;
    if (base && asprintf(&path, "/run/user/%u/zcache%s", (unsigned)uid, base) < 0)
        return NULL;
    return path;
}

char *zc_target_socket(const struct zc_mnts *mnts, const struct zc_mnt *m, struct zc_error *err)
{
    struct stat st;
    bool denied = false;
    for (size_t i = 0; i < mnts->n; i++) {
        const struct zc_mnt *e = &mnts->m[i];
        if (e != m && (e->major != m->major || e->minor != m->minor || strcmp(e->root, "/") != 0))
            continue;
        char *try[] = {zc_ctl_path_of(m->uid, e->point), target_user_socket(m->uid, e->point)};
        char *found = NULL;
        for (size_t k = 0; k < ZC_ARRAY_SIZE(try); k++) {
            int r = try[k] ? stat(try[k], &st) : 0;
            denied |= r < 0 && errno == EACCES;
            if (!found && try[k] && r == 0 && S_ISSOCK(st.st_mode))
                found = try[k];
            else
                free(try[k]);
        }
        if (found)
            return found;
    }
    if (denied && m->uid != geteuid())
        zc_error_set(
            err, -EACCES,
            "the mount at '%s' belongs to user %u, and only that user and root may control it",
            m->point, (unsigned)m->uid);
    else
        zc_error_set(
            err, -ENOTCONN,
            "the daemon of the mount at '%s' does not answer: its control socket is missing",
            m->point);
    return NULL;
}
