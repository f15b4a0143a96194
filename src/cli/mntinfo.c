/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line of mountinfo, as proc(5) has it:
 *     36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
 * Fields are parted by single spaces; a blank, tab, newline or backslash in one is written as three
 * octal digits.
 */
#include "cli/mntinfo.h"

#include "base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

/* The next field, its octal escapes undone in place; NULL at the end of the line. */
static char *mnt_field(char **line)
{
    char *s = *line;
    if (!s || !*s)
        return NULL;
    char *end = strchr(s, ' ');
    if (end) {
        *end = 0;
        *line = end + 1;
    } else {
        *line = NULL;
    }
    char *w = s;
    for (char *r = s; *r;) {
        if (r[0] == '\\' && r[1] >= '0' && r[1] <= '3' && r[2] >= '0' && r[2] <= '7' &&
            r[3] >= '0' && r[3] <= '7') {
            *w++ = (char)((r[1] - '0') * 64 + (r[2] - '0') * 8 + (r[3] - '0'));
            r += 4;
        } else {
            *w++ = *r++;
        }
    }
    *w = 0;
    return s;
}

static uid_t mnt_user(const char *options)
{
    const char *s = strstr(options, "user_id=");
    unsigned long v = s ? strtoul(s + 8, NULL, 10) : 0;
    return v < UINT32_MAX ? (uid_t)v : 0;
}

static void mnt_free(struct zc_mnt *m)
{
    free(m->root);
    free(m->point);
    free(m->fstype);
    free(m->source);
}

/* 1 with *m filled, 0 for a line that is none, -ENOMEM. */
static int mnt_line(char *line, struct zc_mnt *m)
{
    char *id = mnt_field(&line), *parent = mnt_field(&line), *dev = mnt_field(&line);
    char *root = mnt_field(&line), *point = mnt_field(&line), *options = mnt_field(&line);
    if (!id || !parent || !dev || !root || !point || !options || point[0] != '/')
        return 0;
    char *f;
    while ((f = mnt_field(&line)) && strcmp(f, "-") != 0)
        ;
    char *type = mnt_field(&line), *source = mnt_field(&line), *super = mnt_field(&line);
    if (!f || !type)
        return 0;
    struct zc_mnt v = {.id = strtoull(id, NULL, 10), .parent = strtoull(parent, NULL, 10)};
    if (sscanf(dev, "%u:%u", &v.major, &v.minor) != 2)
        return 0;
    v.root = strdup(root);
    v.point = strdup(point);
    v.fstype = strdup(type);
    v.source = strdup(source ? source : "");
    v.uid = super ? mnt_user(super) : 0;
    if (!v.root || !v.point || !v.fstype || !v.source) {
        mnt_free(&v);
        return -ENOMEM;
    }
    *m = v;
    return 1;
}

int zc_mnts_parse(const char *text, struct zc_mnts *out)
{
    struct zc_mnts all = {0};
    size_t cap = 0;
    zc_autofree char *copy = strdup(text);
    if (!copy)
        return -ENOMEM;
    for (char *s = copy, *next; s; s = next) {
        next = strchr(s, '\n');
        if (next)
            *next++ = 0;
        if (all.n == cap) {
            cap = cap ? cap * 2 : 32;
            struct zc_mnt *p = realloc(all.m, cap * sizeof(*p));
            if (!p) {
                zc_mnts_free(&all);
                return -ENOMEM;
            }
            all.m = p;
        }
        int r = mnt_line(s, &all.m[all.n]);
        if (r < 0) {
            zc_mnts_free(&all);
            return r;
        }
        all.n += (size_t)r;
    }
    *out = all;
    return 0;
}

int zc_mnts_read(struct zc_mnts *out, struct zc_error *err)
{
    zc_autobuf struct zc_buf b = {0};
    zc_autoclose int fd = open("/proc/self/mountinfo", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return zc_error_set(err, -errno, "cannot read /proc/self/mountinfo: %s", strerror(errno));
    for (;;) {
        int r = zc_buf_reserve(&b, 64 * 1024);
        if (r < 0)
            return zc_error_set(err, r, "cannot read /proc/self/mountinfo: %s", strerror(-r));
        ssize_t n = read(fd, b.p + b.len, 64 * 1024);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return zc_error_set(err, -errno, "cannot read /proc/self/mountinfo: %s",
                                strerror(errno));
        b.len += (size_t)n;
        b.p[b.len] = 0;
        if (n == 0)
            break;
    }
    int r = zc_mnts_parse(b.p, out);
    return r < 0 ? zc_error_set(err, r, "cannot read /proc/self/mountinfo: %s", strerror(-r)) : 0;
}

void zc_mnts_free(struct zc_mnts *m)
{
    for (size_t i = 0; i < m->n; i++)
        mnt_free(&m->m[i]);
    free(m->m);
    memset(m, 0, sizeof(*m));
}

bool zc_path_below(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    while (n && dir[n - 1] == '/')
        n--;
    return strncmp(path, dir, n) == 0 && (path[n] == 0 || path[n] == '/');
}

/* Does another mount lie on the root of this one? A mount that was moved may be listed before the
   one that it covers. */
static bool mnts_covered(const struct zc_mnts *m, const struct zc_mnt *e)
{
    for (size_t i = 0; i < m->n; i++) {
        const struct zc_mnt *o = &m->m[i];
        if (o != e && o->parent == e->id && strcmp(o->point, e->point) == 0)
            return true;
    }
    return false;
}

const struct zc_mnt *zc_mnts_at(const struct zc_mnts *m, const char *path)
{
    const struct zc_mnt *last = NULL;
    for (size_t i = m->n; i-- > 0;) {
        if (strcmp(m->m[i].point, path) != 0)
            continue;
        if (!mnts_covered(m, &m->m[i]))
            return &m->m[i];
        if (!last)
            last = &m->m[i];
    }
    return last; /* a list in which they cover each other in a circle */
}

const struct zc_mnt *zc_mnts_of(const struct zc_mnts *m, const char *path)
{
    const struct zc_mnt *best = NULL;
    for (size_t i = m->n; i-- > 0;) {
        const struct zc_mnt *e = &m->m[i];
        if (zc_path_below(path, e->point) && (!best || strlen(e->point) > strlen(best->point)))
            best = e;
    }
    return best ? zc_mnts_at(m, best->point) : NULL;
}

bool zc_mnt_is_ours(const struct zc_mnt *m)
{
    return strcmp(m->fstype, ZC_FSTYPE) == 0;
}
