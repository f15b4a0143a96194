/* SPDX-License-Identifier: Apache-2.0 */
/*
 * core-site.xml and hdfs-site.xml. Hadoop's rules that matter here: a later file wins unless the
 * earlier property is final; ${name} stands for another property, ${env.NAME} and ${env.NAME:-else}
 * for the environment.
 */
#include "backend/hdfs_conf.h"

#include "base/buf.h"
#include "base/log.h"

#include <errno.h>
#include <expat.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define CONF_FILE_MAX ((size_t)8 << 20)
#define CONF_TEXT_MAX ((size_t)64 << 10) /* of a name or a value */
#define CONF_PROPS_MAX 20000u
#define CONF_DEPTH 20 /* properties that name properties, as in Hadoop */

struct conf_prop {
    char *name, *value;
    bool final;
};

struct hdfs_conf {
    struct conf_prop *props;
    size_t n, cap;
};

struct hdfs_conf *hdfs_conf_new(void)
{
    return calloc(1, sizeof(struct hdfs_conf));
}

void hdfs_conf_free(struct hdfs_conf *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++) {
        free(c->props[i].name);
        free(c->props[i].value);
    }
    free(c->props);
    free(c);
}

static struct conf_prop *conf_find(const struct hdfs_conf *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++) {
        if (strcmp(c->props[i].name, name) == 0)
            return &c->props[i];
    }
    return NULL;
}

/* Takes both strings, also on failure. */
static int conf_set(struct hdfs_conf *c, char *name, char *value, bool final)
{
    struct conf_prop *p = conf_find(c, name);
    if (p) {
        free(name);
        if (p->final) {
            free(value);
            return 0;
        }
        free(p->value);
        p->value = value;
        p->final = final;
        return 0;
    }
    int r = c->n >= CONF_PROPS_MAX ? -E2BIG : 0;
    if (r == 0 && c->n == c->cap) {
        size_t cap = c->cap ? c->cap * 2 : 64;
        struct conf_prop *props = reallocarray(c->props, cap, sizeof(*props));
        if (props) {
            c->props = props;
            c->cap = cap;
        } else {
            r = -ENOMEM;
        }
    }
    if (r < 0) {
        free(name);
        free(value);
        return r;
    }
    c->props[c->n++] = (struct conf_prop){.name = name, .value = value, .final = final};
    return 0;
}

/* ---- XML ---- */

struct conf_parse {
    XML_Parser xml;
    struct hdfs_conf *conf;
    unsigned depth; /* of open elements */
    bool in_property;
    struct zc_buf text;
    char *name, *value;
    bool final, include;
    int err;
    const char *why;
};

static void conf_stop(struct conf_parse *p, int err, const char *why)
{
    if (p->err == 0) {
        p->err = err;
        p->why = why;
    }
    XML_StopParser(p->xml, XML_FALSE);
}

static void XMLCALL conf_on_start(void *user, const char *el, const char **atts)
{
    struct conf_parse *p = user;
    p->depth++;
    if (p->depth > 16) {
        conf_stop(p, -EBADMSG, "elements are nested too deeply");
        return;
    }
    if (p->depth == 1 && strcmp(el, "configuration") != 0) {
        conf_stop(p, -EBADMSG, "it does not begin with <configuration>");
        return;
    }
    const char *colon = strchr(el, ':');
    if (strcmp(colon ? colon + 1 : el, "include") == 0)
        p->include = true;
    if (p->depth == 2 && strcmp(el, "property") == 0) {
        p->in_property = true;
        p->final = false;
    }
    zc_buf_reset(&p->text);
}

static void XMLCALL conf_on_text(void *user, const char *s, int n)
{
    struct conf_parse *p = user;
    if (p->in_property && p->depth == 3 && zc_buf_add(&p->text, s, (size_t)n) < 0)
        conf_stop(p, -EBADMSG, "a name or value is too long");
}

/* The text without white space at its ends. */
static char *conf_text(struct conf_parse *p)
{
    const char *s = p->text.p ? p->text.p : "";
    s += strspn(s, " \t\r\n");
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1]))
        n--;
    return strndup(s, n);
}

static void XMLCALL conf_on_end(void *user, const char *el)
{
    struct conf_parse *p = user;
    if (p->in_property && p->depth == 3) {
        if (strcmp(el, "name") == 0) {
            free(p->name);
            p->name = conf_text(p);
        } else if (strcmp(el, "value") == 0) {
            free(p->value);
            p->value = conf_text(p);
        } else if (strcmp(el, "final") == 0) {
            zc_autofree char *t = conf_text(p);
            p->final = t && strcasecmp(t, "true") == 0;
        }
    } else if (p->in_property && p->depth == 2) {
        p->in_property = false;
        if (p->name && *p->name && p->value) {
            int r = conf_set(p->conf, zc_steal_ptr(&p->name), zc_steal_ptr(&p->value), p->final);
            if (r < 0)
                conf_stop(p, r, r == -E2BIG ? "there are too many properties" : "out of memory");
        }
        free(zc_steal_ptr(&p->name));
        free(zc_steal_ptr(&p->value));
    }
    p->depth--;
}

/* Nobody needs entities here, and some are made to fill memory. */
static void XMLCALL conf_on_entity(void *user, const char *name, int is_param, const char *value,
                                   int len, const char *base, const char *sys, const char *pub,
                                   const char *notation)
{
    conf_stop(user, -EBADMSG, "it declares entities, which are not read");
}

int hdfs_conf_parse(struct hdfs_conf *c, const char *xml, size_t n, const char *name,
                    struct zc_error *err)
{
    struct conf_parse p = {.conf = c, .text = {.max = CONF_TEXT_MAX}};
    if (n > CONF_FILE_MAX)
        return zc_error_set(err, -EFBIG, "%s is too large for a configuration file", name);
    p.xml = XML_ParserCreate(NULL);
    if (!p.xml)
        return zc_error_set(err, -ENOMEM, "out of memory");
    XML_SetUserData(p.xml, &p);
    XML_SetElementHandler(p.xml, conf_on_start, conf_on_end);
    XML_SetCharacterDataHandler(p.xml, conf_on_text);
    XML_SetEntityDeclHandler(p.xml, conf_on_entity);
    int r = 0;
    if (XML_Parse(p.xml, xml, (int)n, 1) != XML_STATUS_OK) {
        r = p.err ? p.err : -EBADMSG;
        zc_error_set(err, r, "%s, line %lu: %s", name,
                     (unsigned long)XML_GetCurrentLineNumber(p.xml),
                     p.why ? p.why : XML_ErrorString(XML_GetErrorCode(p.xml)));
    } else if (p.include) {
        r = zc_error_set(err, -EBADMSG,
                         "%s includes other files (xi:include), which is not supported", name);
    }
    XML_ParserFree(p.xml);
    zc_buf_free(&p.text);
    free(p.name);
    free(p.value);
    return r;
}

/* ---- files ---- */

/* 1 read, 0 there is none. */
static int conf_load_file(struct hdfs_conf *c, const char *dir, const char *file,
                          struct zc_error *err)
{
    zc_autofree char *path = NULL;
    if (asprintf(&path, "%s/%s", dir, file) < 0) {
        path = NULL;
        return zc_error_set(err, -ENOMEM, "out of memory");
    }
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return zc_error_set(err, -errno, "%s cannot be read: %s", path, strerror(errno));
    zc_autobuf struct zc_buf b = {.max = CONF_FILE_MAX};
    for (;;) {
        if (zc_buf_reserve(&b, 64 << 10) < 0)
            return zc_error_set(err, -EFBIG, "%s is too large for a configuration file", path);
        ssize_t n = read(fd, b.p + b.len, 64 << 10);
        if (n < 0)
            return zc_error_set(err, -errno, "%s cannot be read: %s", path, strerror(errno));
        if (n == 0)
            break;
        b.len += (size_t)n;
    }
    int r = hdfs_conf_parse(c, b.p, b.len, path, err);
    return r < 0 ? r : 1;
}

int hdfs_conf_load(struct hdfs_conf *c, const char *dir, struct zc_error *err)
{
    int core = conf_load_file(c, dir, "core-site.xml", err);
    if (core < 0)
        return core;
    int hdfs = conf_load_file(c, dir, "hdfs-site.xml", err);
    if (hdfs < 0)
        return hdfs;
    if (!core && !hdfs)
        return zc_error_set(
            err, -ENOENT,
            "there is neither core-site.xml nor hdfs-site.xml in %s (--hadoop-conf, "
            "HADOOP_CONF_DIR)",
            dir);
    return 0;
}

/* ---- values ---- */

static int conf_expand(const struct hdfs_conf *c, const char *s, unsigned depth,
                       struct zc_buf *out);

/* What stands between ${ and }; 1 when it was known. */
static int conf_expand_one(const struct hdfs_conf *c, const char *name, size_t n, unsigned depth,
                           struct zc_buf *out)
{
    zc_autofree char *key = strndup(name, n);
    if (!key)
        return -ENOMEM;
    if (strncmp(key, "env.", 4) == 0) {
        char *els = strstr(key, ":-");
        if (!els)
            els = strchr(key, '-');
        const char *rest = NULL;
        if (els) {
            rest = els + (*els == ':' ? 2 : 1);
            *els = 0;
        }
        const char *v = getenv(key + 4);
        if (!v)
            v = rest;
        return v ? (zc_buf_adds(out, v) < 0 ? -ENOMEM : 1) : 0;
    }
    const struct conf_prop *p = conf_find(c, key);
    if (!p)
        return 0;
    int r = conf_expand(c, p->value, depth + 1, out);
    return r < 0 ? r : 1;
}

static int conf_expand(const struct hdfs_conf *c, const char *s, unsigned depth, struct zc_buf *out)
{
    if (depth > CONF_DEPTH)
        return -ELOOP;
    while (*s) {
        const char *at = strstr(s, "${"), *end = at ? strchr(at, '}') : NULL;
        if (!end)
            return zc_buf_adds(out, s);
        int r = zc_buf_add(out, s, (size_t)(at - s));
        if (r == 0)
            r = conf_expand_one(c, at + 2, (size_t)(end - at - 2), depth, out);
        if (r == 0) /* nobody knows it: it stays */
            r = zc_buf_add(out, at, (size_t)(end + 1 - at));
        if (r < 0)
            return r;
        s = end + 1;
    }
    return 0;
}

char *hdfs_conf_get(const struct hdfs_conf *c, const char *name)
{
    const struct conf_prop *p = conf_find(c, name);
    zc_autobuf struct zc_buf b = {.max = CONF_TEXT_MAX};
    if (!p || conf_expand(c, p->value, 0, &b) < 0 || zc_buf_adds(&b, "") < 0)
        return NULL;
    return zc_buf_steal(&b);
}

char *hdfs_conf_getf(const struct hdfs_conf *c, const char *fmt, ...)
{
    zc_autofree char *name = NULL;
    va_list ap;
    va_start(ap, fmt);
    if (vasprintf(&name, fmt, ap) < 0)
        name = NULL;
    va_end(ap);
    return name ? hdfs_conf_get(c, name) : NULL;
}
