/* SPDX-License-Identifier: Apache-2.0 */
/*
 * "HDTS", a version byte, a count, and for each token its alias, identifier, password, kind and
 * service, each with its length before it. The last four together, in base64 for URLs, are what
 * WebHDFS takes.
 *
 * The alias is for those who write the file and tells nothing that the service does not.
 */
#include "backend/hdfs_token.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

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

/* ---- whose it is ---- */

struct token_text {
    const char *p;
    size_t n;
};

static bool token_text_is(struct token_text t, const char *s)
{
    return strlen(s) == t.n && strncasecmp(t.p, s, t.n) == 0;
}

/* "ha-hdfs:zc" and "ha-webhdfs:zc" are zc; addresses stay as they are. */
static struct token_text token_service(struct token_text t)
{
    const char *colon = t.n > 3 && memcmp(t.p, "ha-", 3) == 0 ? memchr(t.p, ':', t.n) : NULL;
    return colon ? (struct token_text){colon + 1, t.n - (size_t)(colon + 1 - t.p)} : t;
}

enum { TOKEN_OTHER, TOKEN_HOST, TOKEN_OURS, TOKEN_RANKS };

static unsigned token_rank(const struct hdfs_token_for *who, struct token_text service)
{
    struct token_text s = token_service(service), host = s;
    if (token_text_is(s, who->name))
        return TOKEN_OURS;
    uint64_t port = 0, unit = 1;
    while (host.n && host.p[host.n - 1] >= '0' && host.p[host.n - 1] <= '9' && unit < 100000) {
        port += unit * (unsigned)(host.p[--host.n] - '0');
        unit *= 10;
    }
    if (unit == 1 || host.n == 0 || host.p[host.n - 1] != ':')
        return TOKEN_OTHER;
    host.n--;
    if (host.n > 1 && host.p[0] == '[' && host.p[host.n - 1] == ']')
        host = (struct token_text){host.p + 1, host.n - 2};
    bool ours = false;
    for (size_t i = 0; i < who->n_hosts; i++)
        ours |= token_text_is(host, who->hosts[i]);
    if (!ours)
        return TOKEN_OTHER;
    for (size_t i = 0; i < who->n_ports; i++) {
        if (who->ports[i] == port)
            return TOKEN_OURS;
    }
    return TOKEN_HOST;
}

/* ---- files ---- */

struct token_found {
    const unsigned char *p; /* identifier, password, kind, service */
    size_t n, secret;       /* secret: bytes of the first two, which alone tell tokens apart */
    struct token_text service;
};

/* The next one for HDFS: 1, 0 at the end, -EBADMSG. */
static int token_next(struct token_in *in, int64_t *count, struct token_found *out)
{
    for (; *count; --*count) {
        const unsigned char *s, *kind, *service;
        size_t n, kind_len, service_len;
        if (!token_bytes(in, &s, &n)) /* alias */
            return -EBADMSG;
        const unsigned char *from = in->p;
        if (!token_bytes(in, &s, &n) || !token_bytes(in, &s, &n))
            return -EBADMSG;
        size_t secret = (size_t)(in->p - from);
        if (!token_bytes(in, &kind, &kind_len) || !token_bytes(in, &service, &service_len))
            return -EBADMSG;
        if (!token_is_hdfs(kind, kind_len))
            continue;
        if ((size_t)(in->p - from) > TOKEN_MAX / 4 * 3)
            return -EBADMSG;
        --*count;
        *out = (struct token_found){
            from, (size_t)(in->p - from), secret, {(const char *)service, service_len}};
        return 1;
    }
    return 0;
}

static void token_note(char *said, size_t size, struct token_text service)
{
    size_t len = strlen(said);
    for (size_t i = 0; i < service.n; i++) {
        if ((unsigned char)service.p[i] < ' ' || service.p[i] == 127)
            return;
    }
    snprintf(said + len, size - len, "%s%.*s", len ? ", " : "", (int)ZC_MIN(service.n, (size_t)100),
             service.p);
}

static int token_parse_file(struct token_in in, const struct hdfs_token_for *who, char **out,
                            struct zc_error *err)
{
    int64_t count = token_vint(&in);
    struct token_found t, first[TOKEN_RANKS] = {0};
    bool several[TOKEN_RANKS] = {false};
    char said[600] = "";
    int r;
    if (count < 0)
        return -EBADMSG;
    while ((r = token_next(&in, &count, &t)) > 0) {
        struct token_found *f = &first[token_rank(who, t.service)];
        /* The same token may stand there for each of a cluster's NameNodes. */
        if (!f->p)
            *f = t;
        else if (f->secret != t.secret || memcmp(f->p, t.p, t.secret) != 0)
            several[f - first] = true;
        token_note(said, sizeof(said), t.service);
    }
    if (r < 0)
        return r;
    const struct token_found *best = first[TOKEN_OURS].p   ? &first[TOKEN_OURS]
                                     : first[TOKEN_HOST].p ? &first[TOKEN_HOST]
                                                           : &first[TOKEN_OTHER];
    if (!best->p)
        return -ENOENT;
    if (best != &first[TOKEN_OURS] && several[best - first])
        return zc_error_set(err, -ENOTUNIQ, "%s", said);
    char *text = token_encode(best->p, best->n);
    if (!text)
        return -ENOMEM;
    *out = text;
    return 0;
}

int hdfs_token_parse(const void *data, size_t n, const struct hdfs_token_for *who, char **out,
                     struct zc_error *err)
{
    const unsigned char *p = data;
    if (n >= 5 && memcmp(p, "HDTS", 4) == 0)
        return p[4] == 0 ? token_parse_file((struct token_in){p + 5, p + n}, who, out, err)
                         : -EBADMSG;
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
