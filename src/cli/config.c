/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A parser of our own, and not inih: as distributions build it, it cuts the name of a section to 49
 * bytes without a word, and ours are paths; it takes lines of 200 bytes at most; and it tells its
 * caller neither the line of a setting, which is half of a useful message, nor that a section
 * begins, so that one without settings, or one that comes twice, would go unseen.
 */
#include "cli/config.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

static bool config_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Takes blanks off both ends, in place. */
static char *config_trim(char *s)
{
    while (config_blank(*s))
        s++;
    size_t n = strlen(s);
    while (n && config_blank(s[n - 1]))
        s[--n] = 0;
    return s;
}

/* Cuts a comment off that stands behind a blank. */
static void config_uncomment(char *s)
{
    for (char *p = s; *p; p++) {
        if ((*p == '#' || *p == ';') && (p == s || config_blank(p[-1]))) {
            *p = 0;
            return;
        }
    }
}

/* The value of a setting, without its quotes. NULL with words. */
static char *config_value(char *s, struct zc_error *err)
{
    s = config_trim(s);
    if (*s != '"') {
        config_uncomment(s);
        return config_trim(s);
    }
    char *end = strchr(++s, '"');
    if (!end) {
        zc_error_set(err, -EINVAL, "a '\"' is missing at the end of the value");
        return NULL;
    }
    *end++ = 0;
    config_uncomment(end);
    if (*config_trim(end)) {
        zc_error_set(err, -EINVAL, "there is something behind the value's closing '\"'");
        return NULL;
    }
    return s;
}

static int config_section(char *s, const struct zc_config_ops *ops, void *user, unsigned line,
                          struct zc_error *err)
{
    char *end = strrchr(s, ']');
    /* A ']' in a comment is none of the section's. */
    char *comment = end;
    while (comment && comment > s && !((*comment == '#' || *comment == ';') && comment[-1] == ' '))
        comment--;
    if (comment && comment > s) {
        *comment = 0;
        end = strrchr(s, ']');
    }
    if (!end)
        return zc_error_set(err, -EINVAL, "a section's name ends with ']'");
    *end++ = 0;
    config_uncomment(end);
    if (*config_trim(end))
        return zc_error_set(err, -EINVAL, "there is something behind the section's ']'");
    s = config_trim(s);
    if (!*s)
        return zc_error_set(err, -EINVAL, "the section has no name");
    return ops->section(user, s, line, err);
}

static int config_line(char *s, const struct zc_config_ops *ops, void *user, unsigned line,
                       bool *in_section, struct zc_error *err)
{
    s = config_trim(s);
    if (!*s || *s == '#' || *s == ';')
        return 0;
    if (*s == '[') {
        *in_section = true;
        return config_section(s + 1, ops, user, line, err);
    }
    char *eq = strchr(s, '=');
    if (!eq)
        return zc_error_set(err, -EINVAL, "'%.60s' is neither '[section]' nor 'name = value'", s);
    if (!*in_section)
        return zc_error_set(err, -EINVAL, "'%.60s' stands before the first section", s);
    *eq = 0;
    char *name = config_trim(s);
    if (!*name)
        return zc_error_set(err, -EINVAL, "there is no name before the '='");
    char *value = config_value(eq + 1, err);
    return value ? ops->setting(user, name, value, line, err) : -EINVAL;
}

int zc_config_parse(const char *file, const char *text, size_t n, const struct zc_config_ops *ops,
                    void *user, struct zc_error *err)
{
    const char *end = text + n;
    bool in_section = false;
    char buf[ZC_CONFIG_LINE_MAX];
    if (n >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) /* a byte order mark */
        text += 3;
    for (unsigned line = 1; text < end; line++) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        size_t len = (size_t)((nl ? nl : end) - text);
        int r = 0;
        if (len >= sizeof(buf))
            r = zc_error_set(err, -EINVAL, "the line is longer than %d bytes", ZC_CONFIG_LINE_MAX);
        else if (memchr(text, 0, len))
            r = zc_error_set(err, -EINVAL, "the line has a NUL byte: this is no text file");
        if (r == 0) {
            memcpy(buf, text, len);
            buf[len] = 0;
            r = config_line(buf, ops, user, line, &in_section, err);
        }
        if (r < 0) {
            zc_error_prefix(err, "%.300s:%u", file, line);
            return r;
        }
        text = nl ? nl + 1 : end;
    }
    return 0;
}

int zc_config_read(const char *file, const struct zc_config_ops *ops, void *user,
                   struct zc_error *err)
{
    struct stat st;
    zc_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        return zc_error_set(err, -errno, "cannot read '%.300s': %s", file, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return zc_error_set(err, -EISDIR, "cannot read '%.300s': it is a directory", file);
    zc_autofree char *text = malloc(ZC_CONFIG_MAX + 1);
    size_t n = 0;
    ssize_t got = 1;
    while (text && got > 0 && n <= ZC_CONFIG_MAX) {
        got = read(fd, text + n, ZC_CONFIG_MAX + 1 - n);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            n += (size_t)got;
    }
    if (!text)
        return zc_error_set(err, -ENOMEM, "no memory");
    if (got < 0)
        return zc_error_set(err, -errno, "cannot read '%.300s': %s", file, strerror(errno));
    if (n > ZC_CONFIG_MAX)
        return zc_error_set(err, -EFBIG, "'%.300s' is larger than 1 MiB", file);
    return zc_config_parse(file, text, n, ops, user, err);
}
