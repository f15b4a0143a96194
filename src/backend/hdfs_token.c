/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "HDTS", a version byte, a count, and for each token its alias, identifier, password, kind and
 * service, each with its length before it. The last four together, in base64 for URLs, are what
 * WebHDFS takes.
 */
#include "backend/hdfs_token.h"

#include <errno.h>
#include <string.h>

#define TOKEN_MAX ((size_t)6000)

struct token_in {
    const unsigned char *p, *end;
};

/* Hadoop's variable-length integer, for lengths. -1: cut short, negative or absurd. */
static int64_t token_vint(struct token_in *in)
{
    if (in->p == in->end)
        return -1;
    int first = (signed char)*in->p++;
    if (first >= -112)
        return first;
    int n = first >= -120 ? -112 - first : 0;
    if (n == 0 || n > 4 || in->end - in->p < n)
        return -1;
    int64_t v = 0;
    for (; n; n--)
        v = v << 8 | *in->p++;
    return v;
}

static bool token_bytes(struct token_in *in, const unsigned char **p, size_t *n)
{
    int64_t len = token_vint(in);
    if (len < 0 || len > in->end - in->p)
        return false;
    *p = in->p;
    *n = (size_t)len;
    in->p += len;
    return true;
}

static char *token_encode(const unsigned char *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    char *s = malloc((n + 2) / 3 * 4 + 1), *o = s;
    for (size_t i = 0; s && i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *o++ = digits[v >> 18];
        *o++ = digits[v >> 12 & 63];
        if (i + 1 < n)
            *o++ = digits[v >> 6 & 63];
        if (i + 2 < n)
            *o++ = digits[v & 63];
    }
    if (o)
        *o = 0;
    return s;
}

static bool token_is_hdfs(const unsigned char *kind, size_t n)
{
    static const char *const kinds[] = {"HDFS_DELEGATION_TOKEN", "WEBHDFS delegation",
                                        "SWEBHDFS delegation"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(kinds); i++) {
        if (strlen(kinds[i]) == n && memcmp(kinds[i], kind, n) == 0)
            return true;
    }
    return false;
}

static int token_parse_file(struct token_in in, char **out)
{
    int64_t count = token_vint(&in);
    const unsigned char *s;
    size_t n;
    if (count < 0)
        return -EBADMSG;
    for (; count; count--) {
        const unsigned char *kind;
        size_t kind_len;
        if (!token_bytes(&in, &s, &n)) /* alias */
            return -EBADMSG;
        const unsigned char *from = in.p;
        if (!token_bytes(&in, &s, &n) || !token_bytes(&in, &s, &n) ||
            !token_bytes(&in, &kind, &kind_len) || !token_bytes(&in, &s, &n))
            return -EBADMSG;
        if (!token_is_hdfs(kind, kind_len))
            continue;
        if ((size_t)(in.p - from) > TOKEN_MAX / 4 * 3)
            return -EBADMSG;
        char *t = token_encode(from, (size_t)(in.p - from));
        if (!t)
            return -ENOMEM;
        *out = t;
        return 0;
    }
    return -ENOENT;
}

int hdfs_token_parse(const void *data, size_t n, char **out)
{
    const unsigned char *p = data;
    if (n >= 5 && memcmp(p, "HDTS", 4) == 0)
        return p[4] == 0 ? token_parse_file((struct token_in){p + 5, p + n}, out) : -EBADMSG;
    while (n && strchr(" \t\r\n", p[n - 1]) && p[n - 1])
        n--;
    if (n < 16 || n > TOKEN_MAX)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++) {
        if (!p[i] ||
            !strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=", p[i]))
            return -EBADMSG;
    }
    char *t = strndup(data, n);
    if (!t)
        return -ENOMEM;
    *out = t;
    return 0;
}
