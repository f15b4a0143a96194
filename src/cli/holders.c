/* SPDX-License-Identifier: Apache-2.0 */
/* Reads links and maps under /proc by their text: a stat(2) on an open file would wait for the
 * mount in question. */
#include "cli/holders.h"

#include "cli/mntinfo.h"

#include <ctype.h>
#include <dirent.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

static bool holder_link(const char *link, const char *point, char *found, size_t n)
{
    ssize_t len = readlink(link, found, n - 1);
    if (len <= 0)
        return false;
    found[len] = 0;
    return zc_path_below(found, point);
}

static bool holder_maps(const char *pid, const char *point, char *found, size_t n)
{
    char path[64], line[PATH_MAX + 128];
    snprintf(path, sizeof(path), "/proc/%.20s/maps", pid);
    FILE *f = fopen(path, "re");
    bool hit = false;
    while (f && !hit && fgets(line, sizeof(line), f)) {
        char *s = strchr(line, '/');
        if (!s)
            continue;
        s[strcspn(s, "\n")] = 0;
        hit = zc_path_below(s, point);
        if (hit)
            snprintf(found, n, "%s", s);
    }
    if (f)
        fclose(f);
    return hit;
}

static bool holder_check(const char *pid, const char *point, char *found, size_t n)
{
    static const char *const links[] = {"cwd", "root", "exe"};
    char path[PATH_MAX];
    for (size_t i = 0; i < ZC_ARRAY_SIZE(links); i++) {
        snprintf(path, sizeof(path), "/proc/%.20s/%s", pid, links[i]);
        if (holder_link(path, point, found, n))
            return true;
    }
    snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
    DIR *d = opendir(path);
    bool hit = false;
    for (struct dirent *e; d && !hit && (e = readdir(d));) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/fd/%.20s", pid, e->d_name);
        hit = holder_link(path, point, found, n);
    }
    if (d)
        closedir(d);
    return hit || holder_maps(pid, point, found, n);
}

size_t zc_holders(const char *point, size_t max, struct zc_buf *out)
{
    size_t count = 0;
    DIR *d = opendir("/proc");
    for (struct dirent *e; d && (e = readdir(d));) {
        char found[PATH_MAX], path[64], comm[32] = "?";
        if (!isdigit((unsigned char)e->d_name[0]) || atoi(e->d_name) == getpid() ||
            !holder_check(e->d_name, point, found, sizeof(found)))
            continue;
        if (count++ >= max)
            continue;
        snprintf(path, sizeof(path), "/proc/%.20s/comm", e->d_name);
        FILE *f = fopen(path, "re");
        if (f && fgets(comm, sizeof(comm), f))
            comm[strcspn(comm, "\n")] = 0;
        if (f)
            fclose(f);
        zc_buf_addf(out, "  %s (%s): %s\n", e->d_name, comm, found);
    }
    if (d)
        closedir(d);
    return count;
}
