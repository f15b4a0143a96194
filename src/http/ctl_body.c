/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder of the control socket's requests, apart from the server so that it can be fuzzed.
 * Whoever may connect owns the daemon, so this guards against mistakes: a path that leaves the
 * mount, a member that this version does not know (silently ignored, it would look as if it had
 * worked), numbers out of range.
 */
#include "http/ctl_body.h"

#include <errno.h>
#include <string.h>

/* Points into s past leading slashes, cuts trailing ones off. NULL: a component that no path below
 * the mount has. */
static const char *body_path(char *s)
{
    while (*s == '/')
        s++;
    size_t n = strlen(s);
    while (n && s[n - 1] == '/')
        s[--n] = 0;
    for (const char *c = s; *c;) {
        size_t len = strcspn(c, "/");
        if (len == 0 || (len == 1 && c[0] == '.') || (len == 2 && c[0] == '.' && c[1] == '.'))
            return NULL;
        c += len;
        if (*c)
            c++;
    }
    return s;
}

static int body_paths(const json_t *list, struct zc_ctl_body *b, struct zc_error *err)
{
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n == 0)
        return zc_error_set(err, -EINVAL, "\"paths\" must be a list of one path or more");
    b->paths = calloc(n, sizeof(*b->paths));
    if (!b->paths)
        return zc_error_set(err, -ENOMEM, "no memory for %zu paths", n);
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, i);
        if (!json_is_string(v))
            return zc_error_set(err, -EINVAL, "\"paths\" must hold strings only");
        if (json_string_length(v) > ZC_CTL_PATH_MAX)
            return zc_error_set(err, -EINVAL, "a path is longer than %d bytes", ZC_CTL_PATH_MAX);
        /* The tree is ours alone, and a string only gets shorter. */
        const char *p = body_path((char *)json_string_value(v));
        if (!p)
            return zc_error_set(err, -EINVAL, "path '%.200s' has an empty, '.' or '..' component",
                                json_string_value(v));
        b->paths[i] = p;
    }
    b->n = n;
    return 0;
}

int zc_ctl_body_parse(const char *p, size_t n, struct zc_ctl_body *out, struct zc_error *err)
{
    struct zc_ctl_body b = {0};
    json_error_t je;
    int r = 0;

    b.root = json_loadb(p, n, JSON_REJECT_DUPLICATES, &je);
    if (!b.root)
        return zc_error_set(err, -EINVAL, "the request is not JSON: %s", je.text);
    if (!json_is_object(b.root)) {
        r = zc_error_set(err, -EINVAL, "the request must be a JSON object");
        goto fail;
    }
    const char *key;
    json_t *v;
    json_object_foreach(b.root, key, v)
    {
        if (strcmp(key, "paths") == 0) {
            r = body_paths(v, &b, err);
        } else if (strcmp(key, "parallel") == 0) {
            json_int_t i = json_integer_value(v);
            if (!json_is_integer(v) || i < 0 || i > ZC_CTL_PARALLEL_MAX)
                r = zc_error_set(err, -EINVAL, "\"parallel\" must be a number from 0 to %d",
                                 ZC_CTL_PARALLEL_MAX);
            else
                b.parallel = (unsigned)i;
        } else if (strcmp(key, "mark") == 0) {
            json_int_t i = json_integer_value(v);
            if (!json_is_integer(v) || i < 0 || i > UINT16_MAX)
                r = zc_error_set(err, -EINVAL, "\"mark\" must be a number from 0 to %d",
                                 UINT16_MAX);
            else
                b.mark = (unsigned)i;
        } else if (strcmp(key, "cluster") == 0) {
            if (!json_is_boolean(v))
                r = zc_error_set(err, -EINVAL, "\"cluster\" must be true or false");
            b.cluster = json_is_true(v);
        } else {
            r = zc_error_set(err, -EINVAL, "the request has a member '%.100s' that is not known",
                             key);
        }
        if (r < 0)
            goto fail;
    }
    if (!b.paths) {
        r = zc_error_set(err, -EINVAL, "the request names no paths");
        goto fail;
    }
    *out = b;
    return 0;
fail:
    zc_ctl_body_free(&b);
    return r;
}

void zc_ctl_body_free(struct zc_ctl_body *b)
{
    free(b->paths);
    json_decref(b->root);
    memset(b, 0, sizeof(*b));
}

/* ------------------------------------------------------------------ sources */

static int source_options(const json_t *list, struct zc_ctl_source *s, struct zc_error *err)
{
    size_t n = json_object_size(list);
    const char *key;
    json_t *v;
    if (!json_is_object(list) || n > ZC_CTL_OPTIONS_MAX)
        return zc_error_set(err, -EINVAL, "\"options\" must be an object of at most %d members",
                            ZC_CTL_OPTIONS_MAX);
    s->options = calloc(n ? n : 1, sizeof(*s->options));
    if (!s->options)
        return zc_error_set(err, -ENOMEM, "no memory");
    json_object_foreach((json_t *)list, key, v)
    {
        if (!json_is_string(v) && !json_is_true(v))
            return zc_error_set(err, -EINVAL, "option '%.100s' must be a string, or true", key);
        s->options[s->n++] = (struct zc_ctl_option){key, json_string_value(v)};
    }
    return 0;
}

static int source_text(const char *key, const json_t *v, const char **out, struct zc_error *err)
{
    if (!json_is_string(v) || json_string_length(v) > ZC_CTL_PATH_MAX)
        return zc_error_set(err, -EINVAL, "\"%s\" must be a string of at most %d bytes", key,
                            ZC_CTL_PATH_MAX);
    *out = json_string_value(v);
    return 0;
}

static int source_member(const char *key, const json_t *v, bool add, struct zc_ctl_source *s,
                         struct zc_error *err)
{
    if (strcmp(key, "path") == 0) {
        const char *text = NULL;
        int r = source_text(key, v, &text, err);
        if (r < 0)
            return r;
        s->path = body_path((char *)text); /* as above */
        if (!s->path)
            return zc_error_set(err, -EINVAL, "path '%.200s' has an empty, '.' or '..' component",
                                text);
        return 0;
    }
    if (add && strcmp(key, "source") == 0)
        return source_text(key, v, &s->source, err);
    if (add && strcmp(key, "options") == 0)
        return source_options(v, s, err);
    if (!add && strcmp(key, "force") == 0) {
        if (!json_is_boolean(v))
            return zc_error_set(err, -EINVAL, "\"force\" must be true or false");
        s->force = json_is_true(v);
        return 0;
    }
    return zc_error_set(err, -EINVAL, "the request has a member '%.100s' that is not known", key);
}

int zc_ctl_source_parse(const char *p, size_t n, bool add, struct zc_ctl_source *out,
                        struct zc_error *err)
{
    struct zc_ctl_source s = {0};
    json_error_t je;
    const char *key;
    json_t *v;
    int r = 0;

    s.root = json_loadb(p, n, JSON_REJECT_DUPLICATES, &je);
    if (!s.root)
        return zc_error_set(err, -EINVAL, "the request is not JSON: %s", je.text);
    if (!json_is_object(s.root))
        r = zc_error_set(err, -EINVAL, "the request must be a JSON object");
    json_object_foreach(s.root, key, v)
    {
        if (r == 0)
            r = source_member(key, v, add, &s, err);
    }
    if (r == 0 && (!s.path || (add && !s.source)))
        r = zc_error_set(err, -EINVAL, "the request names no %s", s.path ? "source" : "path");
    if (r < 0)
        zc_ctl_source_free(&s);
    else
        *out = s;
    return r;
}

void zc_ctl_source_free(struct zc_ctl_source *s)
{
    free(s->options);
    json_decref(s->root);
    memset(s, 0, sizeof(*s));
}

json_t *zc_ctl_text(const char *s)
{
    json_t *v = json_string(s);
    if (v)
        return v;
    char *t = strdup(s);
    if (!t)
        return NULL;
    for (char *c = t; *c; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    v = json_string(t);
    free(t);
    return v;
}
