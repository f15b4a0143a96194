/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/source.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#define SOURCE_KEY_MAX 1024  /* bytes of an S3 key */
#define SOURCE_PATH_MAX 4096 /* of a path in HDFS */

static const char *const source_schemes[] = {
    [ZC_SCHEME_S3] = "s3",           [ZC_SCHEME_FILE] = "file",         [ZC_SCHEME_HDFS] = "hdfs",
    [ZC_SCHEME_WEBHDFS] = "webhdfs", [ZC_SCHEME_SWEBHDFS] = "swebhdfs",
};

/* AWS's rules of today are narrower (lower case, no '_', 63 characters); older buckets and other
   stores have names beyond them, which the S3 room then asks for in path style. */
static int source_check_bucket(const char *b, struct zc_error *err)
{
    size_t n = strlen(b);
    if (strncmp(b, "arn:", 4) == 0)
        return zc_error_set(err, -EINVAL,
                            "'%.200s' is an ARN; access points are not supported, name the bucket",
                            b);
    if (n < 3 || n > 255)
        return zc_error_set(err, -EINVAL,
                            "'%.100s' is not a bucket's name: it has 3 to 255 characters", b);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)b[i];
        if (!(isascii(c) && isalnum(c)) && c != '-' && c != '.' && c != '_')
            return zc_error_set(
                err, -EINVAL,
                "'%.100s' is not a bucket's name: it has letters, digits, '-', '.' and '_' only",
                b);
    }
    if (!isalnum((unsigned char)b[0]) || !isalnum((unsigned char)b[n - 1]) || strstr(b, ".."))
        return zc_error_set(
            err, -EINVAL,
            "'%.100s' is not a bucket's name: it begins and ends with a letter or digit and has "
            "no two dots in a row",
            b);
    return 0;
}

/* Trailing slashes are cut off; the rest must be a path that can be walked. */
static int source_check_prefix(char *p, const char *what, size_t most, struct zc_error *err)
{
    size_t n = strlen(p);
    while (n && p[n - 1] == '/')
        p[--n] = 0;
    if (n > most)
        return zc_error_set(err, -EINVAL, "the %s is longer than %zu bytes, the most there can be",
                            what, most);
    for (const char *c = p; *c;) {
        size_t len = strcspn(c, "/");
        if (len == 0 || (len == 1 && c[0] == '.') || (len == 2 && c[0] == '.' && c[1] == '.'))
            return zc_error_set(
                err, -EINVAL,
                "the %s '%.200s' has an empty, '.' or '..' part, which no path can show", what, p);
        c += len;
        if (*c)
            c++;
    }
    return 0;
}

static int source_s3(const char *rest, struct zc_source *out, struct zc_error *err)
{
    struct zc_source s = {.scheme = ZC_SCHEME_S3};
    size_t n = strcspn(rest, "/");
    if (n == 0)
        return zc_error_set(err, -EINVAL, "the source names no bucket; write s3://BUCKET[/PREFIX]");
    s.bucket = strndup(rest, n);
    s.prefix = strdup(rest[n] ? rest + n + 1 : "");
    if (!s.bucket || !s.prefix) {
        zc_source_free(&s);
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    int r = source_check_bucket(s.bucket, err);
    if (r == 0)
        r = source_check_prefix(s.prefix, "prefix", SOURCE_KEY_MAX, err);
    if (r < 0) {
        zc_source_free(&s);
        return r;
    }
    *out = s;
    return 0;
}

static int source_file(const char *rest, struct zc_source *out, struct zc_error *err)
{
    if (rest[0] != '/')
        return zc_error_set(
            err, -EINVAL,
            "a directory is named with its whole path and three slashes: file:///some/dir");
    struct zc_source s = {.scheme = ZC_SCHEME_FILE, .path = strdup(rest)};
    if (!s.path)
        return zc_error_set(err, -ENOMEM, "no memory");
    *out = s;
    return 0;
}

static int source_hdfs(enum zc_scheme scheme, const char *rest, struct zc_source *out,
                       struct zc_error *err)
{
    struct zc_source s = {.scheme = scheme};
    size_t n = strcspn(rest, "/");
    if (n == 0 && scheme != ZC_SCHEME_HDFS)
        return zc_error_set(err, -EINVAL, "the source names no host; write %s://HOST:PORT[/PATH]",
                            source_schemes[scheme]);
    s.authority = strndup(rest, n);
    s.prefix = strdup(rest + n + strspn(rest + n, "/"));
    int r = s.authority && s.prefix ? source_check_prefix(s.prefix, "path", SOURCE_PATH_MAX, err)
                                    : zc_error_set(err, -ENOMEM, "no memory");
    if (r < 0) {
        zc_source_free(&s);
        return r;
    }
    *out = s;
    return 0;
}

const char *zc_scheme_name(enum zc_scheme scheme)
{
    return source_schemes[scheme];
}

int zc_source_parse(const char *s, struct zc_source *out, struct zc_error *err)
{
    const char *sep = strstr(s, "://");
    if (!sep || sep == s) {
        if (s[0] == '/' || s[0] == '.')
            return zc_error_set(
                err, -EINVAL,
                "source '%.200s' has no scheme; for a directory write file:///its/whole/path", s);
        return zc_error_set(
            err, -EINVAL,
            "source '%.200s' has no scheme; write s3://BUCKET[/PREFIX], hdfs://NAMESERVICE[/PATH] "
            "or file:///DIR",
            s);
    }
    size_t n = (size_t)(sep - s);
    if (n == 2 && memcmp(s, "s3", 2) == 0)
        return source_s3(sep + 3, out, err);
    if (n == 4 && memcmp(s, "file", 4) == 0)
        return source_file(sep + 3, out, err);
    for (enum zc_scheme i = ZC_SCHEME_HDFS; i <= ZC_SCHEME_SWEBHDFS; i++) {
        if (strlen(source_schemes[i]) == n && memcmp(s, source_schemes[i], n) == 0)
            return source_hdfs(i, sep + 3, out, err);
    }
    return zc_error_set(
        err, -EINVAL,
        "unknown source scheme '%.*s'; there are s3, hdfs, webhdfs, swebhdfs and file",
        (int)ZC_MIN(n, (size_t)50), s);
}

void zc_source_free(struct zc_source *s)
{
    free(s->bucket);
    free(s->authority);
    free(s->prefix);
    free(s->path);
    memset(s, 0, sizeof(*s));
}
