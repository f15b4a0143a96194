/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/plan.h"

#include "base/at.h"
#include "cli/config.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PLAN_SOURCES_MAX 1000

void zc_plan_init(struct zc_plan *p)
{
    memset(p, 0, sizeof(*p));
    zc_mount_opts_init(&p->o);
}

void zc_plan_source_free(struct zc_plan_source *s)
{
    if (!s)
        return;
    zc_source_free(&s->src);
    zc_opt_args_free(&s->args);
    free(s->at);
    free(s->text);
    free(s);
}

void zc_plan_free(struct zc_plan *p)
{
    for (size_t i = 0; i < p->n; i++)
        zc_plan_source_free(p->s[i]);
    free(p->s);
    free(p->file);
    zc_opt_args_free(&p->args);
    memset(p, 0, sizeof(*p));
}

/* ------------------------------------------------------------------ sources */

static int source_new(const char *at, size_t n, struct zc_plan_source **out, struct zc_error *err)
{
    while (n && at[0] == '/') {
        at++;
        n--;
    }
    while (n && at[n - 1] == '/')
        n--;
    struct zc_plan_source *s = calloc(1, sizeof(*s));
    if (s)
        s->at = strndup(at, n);
    if (!s || !s->at) {
        free(s);
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    zc_mount_opts_init(&s->o);
    int r = zc_at_check(s->at, err);
    if (r < 0)
        zc_plan_source_free(s);
    else
        *out = s;
    return r;
}

static int source_set(struct zc_plan_source *s, const char *text, struct zc_error *err)
{
    s->text = strdup(text);
    if (!s->text)
        return zc_error_set(err, -ENOMEM, "no memory");
    return zc_source_parse(text, &s->src, err);
}

int zc_plan_source_new(const char *at, const char *text, struct zc_plan_source **out,
                       struct zc_error *err)
{
    struct zc_plan_source *s;
    int r = source_new(at, strlen(at), &s, err);
    if (r < 0)
        return r;
    r = source_set(s, text, err);
    if (r < 0)
        zc_plan_source_free(s);
    else
        *out = s;
    return r;
}

/* Where another source is named, for messages. */
static const char *source_where(const struct zc_plan_source *s, char *buf, size_t n)
{
    if (s->line)
        snprintf(buf, n, "line %u", s->line);
    else
        snprintf(buf, n, "the command line");
    return buf;
}

static int plan_add(struct zc_plan *p, struct zc_plan_source *take, struct zc_error *err)
{
    char where[32];
    int r = 0;
    for (size_t i = 0; i < p->n && r == 0; i++) {
        const struct zc_plan_source *s = p->s[i];
        if (!zc_at_overlap(s->at, take->at))
            continue;
        source_where(s, where, sizeof(where));
        if (strcmp(s->at, take->at) == 0)
            r = zc_error_set(err, -EEXIST, "'/%.200s' is taken already, in %s", s->at, where);
        else
            r = zc_error_set(err, -EEXIST, "'/%.200s' and '/%.200s' in %s overlap", take->at, s->at,
                             where);
    }
    if (r == 0 && p->n == PLAN_SOURCES_MAX)
        r = zc_error_set(err, -E2BIG, "there are more than %d sources", PLAN_SOURCES_MAX);
    struct zc_plan_source **all = r == 0 ? realloc(p->s, (p->n + 1) * sizeof(*all)) : NULL;
    if (!all) {
        zc_plan_source_free(take);
        return r < 0 ? r : zc_error_set(err, -ENOMEM, "no memory");
    }
    p->s = all;
    p->s[p->n++] = take;
    return 0;
}

int zc_plan_add_word(struct zc_plan *p, const char *word, struct zc_error *err)
{
    /* A path may have '=' in it: the source begins behind the last one before its scheme. */
    const char *scheme = strstr(word, "://"), *eq = NULL;
    for (const char *c = word; scheme ? c < scheme : *c && word[0] == '/'; c++)
        eq = *c == '=' ? c : eq;
    if (eq && word[0] != '/')
        return zc_error_set(err, -EINVAL, "'%.*s' is no path in the mount: write /%.*s=%.300s",
                            (int)(eq - word), word, (int)(eq - word), word, eq + 1);
    struct zc_plan_source *s;
    int r = source_new(word, eq ? (size_t)(eq - word) : 0, &s, err);
    if (r < 0)
        return r;
    r = source_set(s, eq ? eq + 1 : word, err);
    if (r < 0) {
        zc_plan_source_free(s);
        return r;
    }
    return plan_add(p, s, err);
}

/* ------------------------------------------------------------------ the configuration file */

struct plan_reader {
    struct zc_plan *p;
    struct zc_plan_source *at; /* whose section it is; NULL: [mount] */
};

static int plan_section_end(struct plan_reader *k, struct zc_error *err)
{
    if (k->at && !k->at->text)
        return zc_error_set(err, -EINVAL, "the section [/%.200s] before has no 'source = ...'",
                            k->at->at);
    return 0;
}

static int plan_section(void *user, const char *name, unsigned line, struct zc_error *err)
{
    struct plan_reader *k = user;
    struct zc_plan_source *s;
    int r = plan_section_end(k, err);
    if (r < 0)
        return r;
    k->at = NULL;
    if (strcmp(name, "mount") == 0) {
        if (k->p->mount_line)
            return zc_error_set(err, -EEXIST, "[mount] was in line %u already", k->p->mount_line);
        k->p->mount_line = line;
        return 0;
    }
    if (name[0] != '/')
        return zc_error_set(err, -EINVAL,
                            "[%.200s] is no section: there are [mount] and, for each source, its "
                            "path in the mount, such as [/data]",
                            name);
    r = source_new(name, strlen(name), &s, err);
    if (r < 0)
        return r;
    s->line = line;
    r = plan_add(k->p, s, err);
    if (r == 0)
        k->at = s;
    return r;
}

static int plan_no_path(const struct zc_opt *o, const char *value, struct zc_error *err)
{
    if (o->type == ZC_OPT_PATH && value[0] != '/')
        return zc_error_set(err, -EINVAL, "%s '%.200s' must begin with '/'", o->name, value);
    return 0;
}

static int plan_once(unsigned *seen, const char *name, unsigned line, struct zc_error *err)
{
    if (*seen)
        return zc_error_set(err, -EEXIST, "%s was given in line %u already", name, *seen);
    *seen = line;
    return 0;
}

static int plan_mount_setting(struct zc_plan *p, const char *name, const char *value, unsigned line,
                              struct zc_error *err)
{
    const struct zc_opt *o = zc_opt_find(zc_mount_table, name);
    if (!o && strcmp(name, "source") == 0)
        return zc_error_set(err, -EINVAL,
                            "source belongs into a section that is named by the path where it is "
                            "to be shown, such as [/data]");
    if (!o)
        return zc_opt_unknown(zc_mount_table, name, err);
    if (o->flags & ZC_OPT_NO_FILE)
        return zc_error_set(err, -EINVAL, "%s is for the command line only", o->name);
    size_t row = (size_t)(o - zc_mount_table.opts);
    int r = plan_once(&p->option_line[row], o->name, line, err);
    if (r == 0)
        r = plan_no_path(o, value, err);
    if (r < 0)
        return r;
    /* The command line has the last word; a wrong value is wrong all the same. */
    struct zc_mount_opts unused = p->o;
    bool given = p->args.given >> row & 1;
    return zc_opt_set(zc_mount_table, name, value, given ? &unused : &p->o, &p->args, err);
}

static int plan_source_setting(struct zc_plan_source *s, const char *name, const char *value,
                               unsigned line, struct zc_error *err)
{
    if (strcmp(name, "source") == 0) {
        if (s->text)
            return zc_error_set(err, -EEXIST, "the section has a source already");
        return source_set(s, value, err);
    }
    const struct zc_opt *o = zc_opt_find(zc_mount_table, name);
    if (!o)
        return zc_opt_unknown(zc_source_table, name, err);
    if (!(o->flags & ZC_OPT_SOURCE))
        return zc_error_set(err, -EINVAL,
                            o->flags & ZC_OPT_NO_FILE
                                ? "%s is for the command line only"
                                : "%s is an option of the mount: it belongs into [mount]",
                            o->name);
    int r = plan_once(&s->option_line[o - zc_mount_table.opts], o->name, line, err);
    if (r == 0)
        r = plan_no_path(o, value, err);
    return r < 0 ? r : zc_opt_set(zc_source_table, name, value, &s->o, &s->args, err);
}

static int plan_setting(void *user, const char *name, const char *value, unsigned line,
                        struct zc_error *err)
{
    struct plan_reader *k = user;
    return k->at ? plan_source_setting(k->at, name, value, line, err)
                 : plan_mount_setting(k->p, name, value, line, err);
}

int zc_plan_read(struct zc_plan *p, const char *file, struct zc_error *err)
{
    static const struct zc_config_ops ops = {.section = plan_section, .setting = plan_setting};
    struct plan_reader k = {.p = p};
    p->file = strdup(file);
    if (!p->file)
        return zc_error_set(err, -ENOMEM, "no memory");
    int r = zc_config_read(file, &ops, &k, err);
    if (r == 0 && (r = plan_section_end(&k, err)) < 0)
        zc_error_prefix(err, "%s:%u", file, k.at->line);
    if (r == 0 && p->n == 0)
        r = zc_error_set(err, -EINVAL,
                         "'%.300s' names no source: it has no section such as [/data]", file);
    return r;
}

/* ------------------------------------------------------------------ the whole */

/* Takes the mount's values for what it has none of its own; used: rows that mean something here. */
static void source_inherit(const struct zc_plan *p, struct zc_plan_source *s, bool alone,
                           uint64_t *used)
{
    struct zc_mount_opts own = s->o;
    uint64_t taken = 0;
    s->o = p->o;
    for (size_t i = 0; i < zc_source_table.n; i++) {
        const struct zc_opt *o = &zc_source_table.opts[i];
        bool mine = s->args.given >> i & 1, fits = alone || zc_source_opt_fits(o, s->src.scheme);
        if (mine || !fits)
            zc_opt_copy(o, &s->o, &own); /* its own, or the default that it began with */
        else
            taken |= p->args.given & (uint64_t)1 << i;
    }
    /* How to check certificates, said for all, is not said for those without any. */
    static const char *const tls[] = {"ca-bundle", "no-verify-ssl"};
    bool none = !zc_source_opts_tls(&s->o, &s->src);
    s->o.tls_if_any = !alone;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(tls) && !alone; i++) {
        const struct zc_opt *o = zc_opt_find(zc_source_table, tls[i]);
        uint64_t bit = (uint64_t)1 << (o - zc_source_table.opts);
        if (s->args.given & bit)
            s->o.tls_if_any = false;
        else if (none)
            zc_opt_copy(o, &s->o, &own);
        if (none)
            taken &= ~bit;
    }
    *used |= taken;
}

/* Says where: the line of the option, else of the source, else its path. */
static void source_say_where(const struct zc_plan *p, const struct zc_plan_source *s,
                             struct zc_error *err)
{
    unsigned line = s->line;
    for (size_t i = 0; i < zc_source_table.n && s->line; i++) {
        /* The words name the option that is wrong first, if they name one. */
        size_t n = strlen(zc_source_table.opts[i].name);
        if (s->option_line[i] && strncmp(err->text, "--", 2) == 0 &&
            strncmp(err->text + 2, zc_source_table.opts[i].name, n) == 0 && err->text[2 + n] != '-')
            line = s->option_line[i];
    }
    if (s->line)
        zc_error_prefix(err, "%.300s:%u", p->file, line);
    else if (*s->at)
        zc_error_prefix(err, "/%.200s", s->at);
}

static int source_finish(const struct zc_plan *p, struct zc_plan_source *s, bool alone,
                         uint64_t *used, struct zc_error *err)
{
    source_inherit(p, s, alone, used);
    uint64_t given = s->args.given | (alone ? p->args.given : 0);
    int r = zc_source_opts_finish(&s->o, given, &s->src, err);
    if (r < 0)
        source_say_where(p, s, err);
    return r;
}

int zc_plan_source_finish(const struct zc_plan *p, struct zc_plan_source *s, struct zc_error *err)
{
    uint64_t used = 0;
    return source_finish(p, s, false, &used, err);
}

int zc_plan_finish(struct zc_plan *p, uid_t euid, struct zc_error *err)
{
    bool alone = zc_plan_is_single(p) && !p->s[0]->line;
    uint64_t used = 0;
    for (size_t i = 0; i < p->n; i++) {
        int r = source_finish(p, p->s[i], alone, &used, err);
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < zc_source_table.n && !alone; i++) {
        const struct zc_opt *o = &zc_source_table.opts[i];
        if (!(p->args.given & ~used & (uint64_t)1 << i) || !(o->flags & (ZC_OPT_S3 | ZC_OPT_HDFS)))
            continue;
        int r = zc_error_set(err, -EINVAL, "--%s has no effect on any of the sources", o->name);
        if (p->option_line[i])
            zc_error_prefix(err, "%.300s:%u", p->file, p->option_line[i]);
        return r;
    }
    int r = zc_mount_opts_finish(&p->o, p->args.given, euid, err);
    if (r < 0 && p->mount_line && p->file)
        zc_error_prefix(err, "%.300s:%u", p->file, p->mount_line);
    return r;
}

/* ------------------------------------------------------------------ what must be there */

static int source_dir(struct zc_plan_source *s, struct zc_error *err)
{
    struct stat st;
    char *real = realpath(s->src.path, NULL);
    if (!real)
        return zc_error_set(err, -errno, "source '%s': %s", s->src.path, strerror(errno));
    free(s->src.path);
    s->src.path = real;
    if (stat(real, &st) == 0 && !S_ISDIR(st.st_mode))
        return zc_error_set(err, -ENOTDIR, "source '%s' is not a directory", real);
    return 0;
}

int zc_plan_source_resolve(struct zc_plan_source *s, struct zc_error *err)
{
    for (size_t i = 0; i < zc_source_table.n; i++) {
        const struct zc_opt *o = &zc_source_table.opts[i];
        const char **at = (const char **)((char *)&s->o + o->offset);
        if (o->type != ZC_OPT_PATH || !*at)
            continue;
        zc_autofree char *real = realpath(*at, NULL);
        if (!real || access(real, R_OK) < 0)
            return zc_error_set(err, -errno, "--%s '%s': %s", o->name, *at, strerror(errno));
        *at = zc_opt_own(&s->args, zc_steal_ptr(&real));
        if (!*at)
            return zc_error_set(err, -ENOMEM, "no memory");
    }
    return s->src.scheme == ZC_SCHEME_FILE ? source_dir(s, err) : 0;
}
