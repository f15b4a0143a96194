/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parser of our own and not getopt_long: it takes no abbreviations (which break when an option is
 * added), says what is wrong with a value in words, and serves -o strings from the same table.
 */
#include "cli/opt.h"

#include "base/units.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define OPT_WIDTH 100
#define OPT_INDENT 34

/* mount(8)'s words that are for it or for others, or true of every mount of ours. */
static const char *const opt_generic[] = {
    "defaults",   "ro",          "_netdev",     "auto",       "noauto",   "nofail",
    "user",       "nouser",      "users",       "nosuid",     "nodev",    "noatime",
    "relatime",   "norelatime",  "strictatime", "nodiratime", "diratime", "lazytime",
    "nolazytime", "nosymfollow", "async",       "silent",     "loud",
};
/* Those that say something which would not be done. */
static const struct {
    const char *word, *why;
} opt_refused[] = {
    {"suid", "set-user-ID programs are never run from a zcache mount"},
    {"dev", "a zcache mount has no device files"},
    {"remount", "a zcache mount cannot be changed while it is mounted; unmount it first"},
    {"sync", "the mount is read-only, there is nothing to write at once"},
    {"dirsync", "the mount is read-only, there is nothing to write at once"},
};

/* ------------------------------------------------------------------ names */

/* Equal but for '_' in place of '-', as fstab's options like to be written. */
static bool opt_same(const char *name, const char *s, size_t n)
{
    if (strlen(name) != n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (name[i] != (s[i] == '_' ? '-' : s[i]))
            return false;
    }
    return true;
}

static const struct zc_opt *opt_find(struct zc_opt_table t, const char *s, size_t n, bool loose)
{
    for (size_t i = 0; i < t.n; i++) {
        const char *name = t.opts[i].name;
        if (loose ? opt_same(name, s, n) : strlen(name) == n && memcmp(name, s, n) == 0)
            return &t.opts[i];
    }
    return NULL;
}

/* Edit distance, for "did you mean"; names are short. */
static size_t opt_distance(const char *a, const char *b, size_t m)
{
    size_t row[64];
    size_t n = strlen(a);
    if (n >= ZC_ARRAY_SIZE(row) || m >= ZC_ARRAY_SIZE(row))
        return SIZE_MAX;
    for (size_t i = 0; i <= n; i++)
        row[i] = i;
    for (size_t j = 1; j <= m; j++) {
        size_t diag = row[0];
        row[0] = j;
        for (size_t i = 1; i <= n; i++) {
            size_t up = row[i];
            size_t best = ZC_MIN(row[i], row[i - 1]) + 1;
            row[i] = ZC_MIN(best, diag + (a[i - 1] != b[j - 1]));
            diag = up;
        }
    }
    return row[n];
}

static int opt_unknown(struct zc_opt_table t, const char *dashes, const char *s, size_t n,
                       struct zc_error *err)
{
    const char *best = NULL;
    size_t least = n / 3 + 1;
    for (size_t i = 0; i < t.n; i++) {
        size_t d = opt_distance(t.opts[i].name, s, n);
        if (d < least) {
            least = d;
            best = t.opts[i].name;
        }
    }
    if (best)
        return zc_error_set(err, -EINVAL, "unknown option '%s%.*s'; did you mean '%s%s'?", dashes,
                            (int)ZC_MIN(n, (size_t)100), s, dashes, best);
    return zc_error_set(err, -EINVAL, "unknown option '%s%.*s'", dashes,
                        (int)ZC_MIN(n, (size_t)100), s);
}

/* ------------------------------------------------------------------ values */

static int opt_bad(const struct zc_opt *o, const char *s, int r, const char *want,
                   struct zc_error *err)
{
    if (r == -ERANGE)
        return zc_error_set(err, -EINVAL, "--%s '%.100s' is out of range", o->name, s);
    return zc_error_set(err, -EINVAL, "--%s '%.100s' is not %s", o->name, s, want);
}

static int opt_ttl(const char *s, int64_t *out)
{
    uint64_t seconds;
    if (strcmp(s, "indefinite") == 0) {
        *out = INT64_MAX;
        return 0;
    }
    if (strcmp(s, "minimal") == 0) {
        *out = 0;
        return 0;
    }
    int r = zc_parse_uint(s, 0, (uint64_t)(INT64_MAX / ZC_NS_PER_S) - 1, &seconds);
    if (r == -EINVAL)
        return zc_parse_duration(s, out);
    if (r == 0)
        *out = (int64_t)seconds * ZC_NS_PER_S;
    return r;
}

static int opt_choice(const struct zc_opt *o, const char *s, int *out)
{
    int i = 0;
    for (const char *c = o->choices; *c; i++) {
        size_t n = strcspn(c, "|");
        if (strlen(s) == n && memcmp(c, s, n) == 0) {
            *out = i;
            return 0;
        }
        c += n + (c[n] == '|');
    }
    return -EINVAL;
}

static int opt_mode(const char *s, uint32_t *out)
{
    uint32_t v = 0;
    size_t n = strlen(s);
    if (n == 0 || n > 5)
        return -EINVAL;
    for (; *s; s++) {
        if (*s < '0' || *s > '7')
            return -EINVAL;
        v = v * 8 + (uint32_t)(*s - '0');
    }
    if (v > 0777)
        return -ERANGE;
    *out = v;
    return 0;
}

static int opt_range(const struct zc_opt *o, const char *s, uint64_t v, struct zc_error *err)
{
    char lo[24], hi[24];
    if (v >= o->min && (o->max == 0 || v <= o->max))
        return 0;
    if (o->type == ZC_OPT_SIZE) {
        zc_format_size(o->min, lo, sizeof(lo));
        zc_format_size(o->max, hi, sizeof(hi));
    } else if (o->type == ZC_OPT_DURATION) {
        snprintf(lo, sizeof(lo), "%gs", (double)o->min / 1e9);
        snprintf(hi, sizeof(hi), "%gs", (double)o->max / 1e9);
    } else {
        snprintf(lo, sizeof(lo), "%llu", (unsigned long long)o->min);
        snprintf(hi, sizeof(hi), "%llu", (unsigned long long)o->max);
    }
    if (v < o->min)
        return zc_error_set(err, -EINVAL, "--%s '%.100s' is too small: %s is the least", o->name, s,
                            lo);
    return zc_error_set(err, -EINVAL, "--%s '%.100s' is too large: %s is the most", o->name, s, hi);
}

static int opt_store(const struct zc_opt *o, const char *s, void *values, struct zc_error *err)
{
    void *at = (char *)values + o->offset;
    uint64_t u = 0;
    int64_t ns = 0;
    uint32_t u32 = 0;
    int r = 0;

    switch (o->type) {
    case ZC_OPT_FLAG:
        *(bool *)at = true;
        return 0;
    case ZC_OPT_STRING:
    case ZC_OPT_PATH:
        if (!*s)
            return zc_error_set(err, -EINVAL, "--%s needs a value that is not empty", o->name);
        *(const char **)at = s;
        return 0;
    case ZC_OPT_SIZE:
        r = zc_parse_size(s, &u);
        if (r < 0)
            return opt_bad(o, s, r, "a size with a unit, such as 512MiB or 100GiB", err);
        r = opt_range(o, s, u, err);
        if (r == 0)
            *(uint64_t *)at = u;
        return r;
    case ZC_OPT_DURATION:
        r = zc_parse_duration(s, &ns);
        if (r < 0)
            return opt_bad(o, s, r, "a time with a unit, such as 500ms, 60s or 5m", err);
        r = opt_range(o, s, (uint64_t)ns, err);
        if (r == 0)
            *(int64_t *)at = ns;
        return r;
    case ZC_OPT_TTL:
        r = opt_ttl(s, at);
        return r < 0 ? opt_bad(o, s, r,
                               "a number of seconds, a time such as 5m, 'indefinite' or 'minimal'",
                               err)
                     : 0;
    case ZC_OPT_RATIO:
        r = zc_parse_ratio(s, at);
        if (r < 0)
            return opt_bad(o, s, r, "a share such as 0.1 or 10%", err);
        return 0;
    case ZC_OPT_UINT:
        r = zc_parse_uint(s, 0, UINT64_MAX, &u);
        if (r < 0)
            return opt_bad(o, s, r, "a whole number", err);
        r = opt_range(o, s, u, err);
        if (r == 0)
            *(uint64_t *)at = u;
        return r;
    case ZC_OPT_ID:
        r = zc_parse_uint(s, 0, UINT32_MAX - 1, &u);
        if (r < 0)
            return opt_bad(o, s, r, "a number of a user or group", err);
        *(uint32_t *)at = (uint32_t)u;
        return 0;
    case ZC_OPT_MODE:
        r = opt_mode(s, &u32);
        if (r < 0)
            return opt_bad(o, s, r, "permission bits in octal, such as 0644", err);
        *(uint32_t *)at = u32;
        return 0;
    case ZC_OPT_CHOICE:
        r = opt_choice(o, s, at);
        if (r < 0)
            return zc_error_set(err, -EINVAL, "--%s '%.100s' is not one of %s", o->name, s,
                                o->choices);
        return 0;
    }
    return -EINVAL;
}

static int opt_set(struct zc_opt_table t, const struct zc_opt *o, const char *s, void *values,
                   struct zc_opt_args *args, struct zc_error *err)
{
    int r = opt_store(o, s, values, err);
    if (r == 0) {
        args->given |= (uint64_t)1 << (o - t.opts);
        args->text[o - t.opts] = s;
    }
    return r;
}

/* ------------------------------------------------------------------ -o */

static bool opt_is_generic(const char *s, size_t n)
{
    for (size_t i = 0; i < ZC_ARRAY_SIZE(opt_generic); i++) {
        if (strlen(opt_generic[i]) == n && memcmp(opt_generic[i], s, n) == 0)
            return true;
    }
    /* For mount(8), systemd and people. */
    return (n > 2 && (memcmp(s, "x-", 2) == 0 || memcmp(s, "X-", 2) == 0)) ||
           (n > 8 && memcmp(s, "comment=", 8) == 0);
}

static int opt_one_o(struct zc_opt_table t, char *word, bool sloppy, void *values,
                     struct zc_opt_args *args, struct zc_error *err)
{
    size_t n = strcspn(word, "=");
    const char *value = word[n] ? word + n + 1 : NULL;

    if (opt_is_generic(word, strlen(word)))
        return 0;
    if (strcmp(word, "rw") == 0) {
        args->rw = true;
        return 0;
    }
    if (strcmp(word, "noexec") == 0 || strcmp(word, "exec") == 0) { /* the last one counts */
        args->noexec = word[0] == 'n';
        return 0;
    }
    for (size_t i = 0; i < ZC_ARRAY_SIZE(opt_refused); i++) {
        if (strcmp(word, opt_refused[i].word) == 0)
            return sloppy ? 0 : zc_error_set(err, -EINVAL, "-o %s: %s", word, opt_refused[i].why);
    }
    const struct zc_opt *o = opt_find(t, word, n, true);
    if (!o)
        return sloppy ? 0 : opt_unknown(t, "-o ", word, n, err);
    if (o->flags & ZC_OPT_NO_O)
        return zc_error_set(err, -EINVAL, "--%s cannot be given with -o", o->name);
    if (o->type == ZC_OPT_FLAG && value)
        return zc_error_set(err, -EINVAL, "-o %s takes no value", o->name);
    if (o->type != ZC_OPT_FLAG && !value)
        return zc_error_set(err, -EINVAL, "-o %s needs a value: %s=%s", o->name, o->name, o->arg);
    return opt_set(t, o, value, values, args, err);
}

static int opt_keep(struct zc_opt_args *args, char *take)
{
    char **p = realloc(args->own, (args->n_own + 1) * sizeof(*p));
    if (!p) {
        free(take);
        return -ENOMEM;
    }
    args->own = p;
    args->own[args->n_own++] = take;
    return 0;
}

int zc_opt_parse_o(struct zc_opt_table t, const char *list, bool sloppy, void *values,
                   struct zc_opt_args *args, struct zc_error *err)
{
    char *copy = strdup(list);
    if (!copy || opt_keep(args, copy) < 0)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (char *s = copy; *s;) {
        /* Cut one word out, taking the backslash away before a comma and a backslash. */
        char *word = s, *w = s;
        while (*s && *s != ',') {
            if (s[0] == '\\' && (s[1] == ',' || s[1] == '\\'))
                s++;
            *w++ = *s++;
        }
        bool more = *s == ',';
        *w = 0;
        if (more)
            s++;
        if (!*word)
            continue;
        int r = opt_one_o(t, word, sloppy, values, args, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ------------------------------------------------------------------ one by one */

const struct zc_opt *zc_opt_find(struct zc_opt_table t, const char *name)
{
    return opt_find(t, name, strlen(name), true);
}

int zc_opt_unknown(struct zc_opt_table t, const char *name, struct zc_error *err)
{
    return opt_unknown(t, "", name, strlen(name), err);
}

char *zc_opt_own(struct zc_opt_args *args, char *take)
{
    return take && opt_keep(args, take) == 0 ? take : NULL;
}

/* A flag that is said to be off: 1 on, 0 off, -EINVAL. */
static int opt_yes(const char *s)
{
    static const char *const words[] = {"no", "yes", "false", "true", "off", "on", "0", "1"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(words); i++) {
        if (strcasecmp(s, words[i]) == 0)
            return (int)i % 2;
    }
    return -EINVAL;
}

int zc_opt_set(struct zc_opt_table t, const char *name, const char *value, void *values,
               struct zc_opt_args *args, struct zc_error *err)
{
    const struct zc_opt *o = zc_opt_find(t, name);
    if (!o)
        return zc_opt_unknown(t, name, err);
    if (o->type == ZC_OPT_FLAG) {
        int yes = value ? opt_yes(value) : 1;
        if (yes < 0)
            return zc_error_set(err, -EINVAL, "%s '%.100s' is neither yes nor no", o->name, value);
        *(bool *)((char *)values + o->offset) = yes;
        args->given |= (uint64_t)1 << (o - t.opts);
        return 0;
    }
    char *copy = value ? zc_opt_own(args, strdup(value)) : NULL;
    if (!copy)
        return value ? zc_error_set(err, -ENOMEM, "no memory")
                     : zc_error_set(err, -EINVAL, "%s needs a value: %s", o->name, o->arg);
    int r = opt_set(t, o, copy, values, args, err);
    if (r < 0 && err && strncmp(err->text, "--", 2) == 0)
        memmove(err->text, err->text + 2, strlen(err->text + 2) + 1);
    return r;
}

void zc_opt_copy(const struct zc_opt *o, void *to, const void *from)
{
    static const size_t sizes[] = {
        [ZC_OPT_FLAG] = sizeof(bool),        [ZC_OPT_STRING] = sizeof(char *),
        [ZC_OPT_PATH] = sizeof(char *),      [ZC_OPT_SIZE] = sizeof(uint64_t),
        [ZC_OPT_DURATION] = sizeof(int64_t), [ZC_OPT_TTL] = sizeof(int64_t),
        [ZC_OPT_RATIO] = sizeof(double),     [ZC_OPT_UINT] = sizeof(uint64_t),
        [ZC_OPT_ID] = sizeof(uint32_t),      [ZC_OPT_MODE] = sizeof(uint32_t),
        [ZC_OPT_CHOICE] = sizeof(int),
    };
    memcpy((char *)to + o->offset, (const char *)from + o->offset, sizes[o->type]);
}

/* ------------------------------------------------------------------ the command line */

/* Value of a long or short option: what follows in the same word, or the next word. */
static const char *opt_value(const char *inline_value, int argc, char **argv, int *i)
{
    if (inline_value)
        return inline_value;
    return *i + 1 < argc ? argv[++*i] : NULL;
}

static int opt_long(struct zc_opt_table t, int argc, char **argv, int *i, void *values,
                    struct zc_opt_args *args, struct zc_error *err)
{
    const char *s = argv[*i] + 2;
    size_t n = strcspn(s, "=");
    const char *value = s[n] ? s + n + 1 : NULL;

    if (strcmp(s, "help") == 0) {
        args->help = true;
        return 0;
    }
    const struct zc_opt *o = opt_find(t, s, n, false);
    if (!o)
        return opt_unknown(t, "--", s, n, err);
    if (o->type == ZC_OPT_FLAG) {
        if (value)
            return zc_error_set(err, -EINVAL, "--%s takes no value", o->name);
        return opt_set(t, o, NULL, values, args, err);
    }
    value = opt_value(value, argc, argv, i);
    if (!value)
        return zc_error_set(err, -EINVAL, "--%s needs a value: %s", o->name, o->arg);
    return opt_set(t, o, value, values, args, err);
}

/* A group of short options: flags may stand together, one with a value ends the group. */
static int opt_short(struct zc_opt_table t, bool mount_o, int argc, char **argv, int *i,
                     void *values, struct zc_opt_args *args, struct zc_error *err)
{
    for (const char *s = argv[*i] + 1; *s; s++) {
        const struct zc_opt *o = NULL;
        for (size_t k = 0; k < t.n && !o; k++)
            o = t.opts[k].letter == *s ? &t.opts[k] : NULL;
        if (!o && *s == 'h') {
            args->help = true;
            continue;
        }
        if (!o && !(mount_o && *s == 'o'))
            return zc_error_set(err, -EINVAL, "unknown option '-%c'", *s);
        if (o && o->type == ZC_OPT_FLAG) {
            opt_set(t, o, NULL, values, args, err);
            continue;
        }
        char c = *s;
        const char *value = opt_value(s[1] ? s + 1 : NULL, argc, argv, i);
        if (!value)
            return zc_error_set(err, -EINVAL, "-%c needs a value", c);
        return o ? opt_set(t, o, value, values, args, err)
                 : zc_opt_parse_o(t, value, false, values, args, err);
    }
    return 0;
}

int zc_opt_parse(struct zc_opt_table t, bool mount_o, int argc, char **argv, void *values,
                 struct zc_opt_args *args, struct zc_error *err)
{
    bool only_pos = false;
    args->pos = calloc((size_t)argc + 1, sizeof(*args->pos));
    if (!args->pos)
        return zc_error_set(err, -ENOMEM, "no memory");
    for (int i = 1; i < argc; i++) {
        char *a = argv[i];
        int r = 0;
        if (only_pos || a[0] != '-' || !a[1])
            args->pos[args->n_pos++] = a;
        else if (strcmp(a, "--") == 0)
            only_pos = true;
        else if (a[1] == '-')
            r = opt_long(t, argc, argv, &i, values, args, err);
        else
            r = opt_short(t, mount_o, argc, argv, &i, values, args, err);
        if (r < 0)
            return r;
    }
    return 0;
}

void zc_opt_args_free(struct zc_opt_args *args)
{
    for (size_t i = 0; i < args->n_own; i++)
        free(args->own[i]);
    free(args->own);
    free(args->pos);
    memset(args, 0, sizeof(*args));
}

bool zc_opt_given(struct zc_opt_table t, const struct zc_opt_args *args, const char *name)
{
    const struct zc_opt *o = opt_find(t, name, strlen(name), false);
    return o && (args->given >> (o - t.opts) & 1);
}

/* ------------------------------------------------------------------ --help */

static void help_wrap(struct zc_buf *out, const char *text, size_t column)
{
    while (*text) {
        size_t n = strcspn(text, " ");
        if (column > OPT_INDENT && column + 1 + n > OPT_WIDTH) {
            zc_buf_addf(out, "\n%*s", OPT_INDENT, "");
            column = OPT_INDENT;
        } else if (column > OPT_INDENT) {
            zc_buf_addc(out, ' ');
            column++;
        }
        zc_buf_add(out, text, n);
        column += n;
        text += n;
        while (*text == ' ')
            text++;
    }
    zc_buf_addc(out, '\n');
}

static void help_row(struct zc_buf *out, char letter, const char *name, const char *arg,
                     const char *help)
{
    char head[80];
    int n =
        snprintf(head, sizeof(head), "  %c%c%c --%s%s%s", letter ? '-' : ' ', letter ? letter : ' ',
                 letter ? ',' : ' ', name, arg ? " " : "", arg ? arg : "");
    zc_buf_adds(out, head);
    if (n + 2 > OPT_INDENT)
        zc_buf_addf(out, "\n%*s", OPT_INDENT, "");
    else
        zc_buf_addf(out, "%*s", OPT_INDENT - n, "");
    help_wrap(out, help, OPT_INDENT);
}

void zc_opt_help(struct zc_opt_table t, struct zc_buf *out)
{
    for (size_t i = 0; i < t.n; i++)
        help_row(out, t.opts[i].letter, t.opts[i].name, t.opts[i].arg, t.opts[i].help);
    help_row(out, 'h', "help", NULL, "Show this and exit.");
}
