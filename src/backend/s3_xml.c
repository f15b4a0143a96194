/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Elements are told by their depth and name, so that an object's owner or checksum cannot be taken
 * for its key. The answer's encoding (encoding-type=url) may be told after the keys: they are
 * decoded at the end.
 */
#include "backend/s3_xml.h"

#include "backend/s3_text.h"

#include <errno.h>
#include <expat.h>
#include <string.h>

#define XML_LEAF_MAX ((size_t)16 << 10)
#define XML_TEXT_MAX ((size_t)64 << 20)
#define XML_DEPTH_MAX 16

enum xml_leaf {
    XML_NONE,
    XML_KEY,
    XML_ETAG,
    XML_SIZE,
    XML_MTIME,
    XML_PREFIX,
    XML_TRUNCATED,
    XML_TOKEN,
    XML_ENCODING,
};

enum xml_group { XML_TOP, XML_CONTENTS, XML_PREFIXES, XML_OTHER };

struct s3_xml_parser {
    XML_Parser expat;
    int depth;
    enum xml_group group;
    enum xml_leaf leaf;
    size_t leaf_at; /* in text */
    bool root, url_encoded;
    bool has_key;
    struct s3_xml_object object;
    int err;
};

static void xml_fail(struct s3_xml_list *l, int err)
{
    if (l->parser->err == 0)
        l->parser->err = err;
    XML_StopParser(l->parser->expat, XML_FALSE);
}

static enum xml_leaf xml_leaf_of(enum xml_group group, int depth, const char *name)
{
    static const struct {
        enum xml_group group;
        enum xml_leaf leaf;
        const char *name;
    } leaves[] = {
        {XML_CONTENTS, XML_KEY, "Key"},          {XML_CONTENTS, XML_ETAG, "ETag"},
        {XML_CONTENTS, XML_SIZE, "Size"},        {XML_CONTENTS, XML_MTIME, "LastModified"},
        {XML_PREFIXES, XML_PREFIX, "Prefix"},    {XML_TOP, XML_TRUNCATED, "IsTruncated"},
        {XML_TOP, XML_ENCODING, "EncodingType"}, {XML_TOP, XML_TOKEN, "NextContinuationToken"},
    };
    if (depth != (group == XML_TOP ? 2 : 3))
        return XML_NONE;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(leaves); i++)
        if (leaves[i].group == group && strcmp(leaves[i].name, name) == 0)
            return leaves[i].leaf;
    return XML_NONE;
}

static void XMLCALL xml_start(void *arg, const XML_Char *name, const XML_Char **attrs)
{
    struct s3_xml_list *l = arg;
    struct s3_xml_parser *p = l->parser;
    if (++p->depth > XML_DEPTH_MAX) {
        xml_fail(l, -EBADMSG);
        return;
    }
    if (p->depth == 1) {
        p->root = strcmp(name, "ListBucketResult") == 0;
        if (!p->root)
            xml_fail(l, -EBADMSG);
    } else if (p->depth == 2) {
        p->group = strcmp(name, "Contents") == 0         ? XML_CONTENTS
                   : strcmp(name, "CommonPrefixes") == 0 ? XML_PREFIXES
                                                         : XML_TOP;
        p->object = (struct s3_xml_object){0};
        p->has_key = false;
    }
    p->leaf = xml_leaf_of(p->group, p->depth, name);
    p->leaf_at = l->text.len;
}

static void XMLCALL xml_chars(void *arg, const XML_Char *s, int n)
{
    struct s3_xml_list *l = arg;
    struct s3_xml_parser *p = l->parser;
    if (p->leaf == XML_NONE)
        return;
    if (l->text.len - p->leaf_at + (size_t)n > XML_LEAF_MAX)
        xml_fail(l, -EBADMSG);
    else if (zc_buf_add(&l->text, s, (size_t)n) < 0)
        xml_fail(l, -ENOMEM);
}

static void *xml_grow(void *array, size_t n, size_t *cap, size_t size)
{
    if (n < *cap)
        return array;
    size_t more = *cap ? *cap * 2 : 256;
    array = reallocarray(array, more, size);
    if (array)
        *cap = more;
    return array;
}

static void xml_add_object(struct s3_xml_list *l)
{
    struct s3_xml_object *o = xml_grow(l->objects, l->n_objects, &l->objects_cap, sizeof(*o));
    if (!o) {
        xml_fail(l, -ENOMEM);
        return;
    }
    l->objects = o;
    l->objects[l->n_objects++] = l->parser->object;
}

static void xml_add_prefix(struct s3_xml_list *l, struct s3_xml_span span)
{
    struct s3_xml_span *s = xml_grow(l->prefixes, l->n_prefixes, &l->prefixes_cap, sizeof(*s));
    if (!s) {
        xml_fail(l, -ENOMEM);
        return;
    }
    l->prefixes = s;
    l->prefixes[l->n_prefixes++] = span;
}

static int xml_size(const char *s, size_t n, uint64_t *out)
{
    uint64_t v = 0;
    if (n == 0 || n > 18)
        return -EBADMSG;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -EBADMSG;
        v = v * 10 + (uint64_t)(s[i] - '0');
    }
    *out = v;
    return 0;
}

static void xml_leaf_end(struct s3_xml_list *l)
{
    struct s3_xml_parser *p = l->parser;
    struct s3_xml_span span = {p->leaf_at, l->text.len - p->leaf_at};
    const char *s = l->text.p ? l->text.p + span.at : "";
    bool keep = true;
    switch (p->leaf) {
    case XML_KEY:
        p->object.key = span;
        p->has_key = true;
        break;
    case XML_ETAG:
        p->object.etag = span;
        break;
    case XML_PREFIX:
        xml_add_prefix(l, span);
        break;
    case XML_TOKEN:
        l->token = span;
        break;
    case XML_SIZE:
        if (xml_size(s, span.len, &p->object.size) < 0)
            xml_fail(l, -EBADMSG);
        keep = false;
        break;
    case XML_MTIME:
        if (s3_text_date(s, span.len, &p->object.mtime_ns) < 0)
            p->object.mtime_ns = 0;
        keep = false;
        break;
    case XML_TRUNCATED:
        l->truncated = span.len == 4 && memcmp(s, "true", 4) == 0;
        keep = false;
        break;
    case XML_ENCODING:
        p->url_encoded = span.len == 3 && memcmp(s, "url", 3) == 0;
        keep = false;
        break;
    case XML_NONE:
        return;
    }
    if (!keep)
        l->text.len = p->leaf_at;
}

static void XMLCALL xml_end(void *arg, const XML_Char *name)
{
    struct s3_xml_list *l = arg;
    struct s3_xml_parser *p = l->parser;
    xml_leaf_end(l);
    p->leaf = XML_NONE;
    if (p->depth == 2 && p->group == XML_CONTENTS) {
        if (!p->has_key)
            xml_fail(l, -EBADMSG);
        else
            xml_add_object(l);
    }
    if (p->depth == 2)
        p->group = XML_TOP;
    if (l->n_objects + l->n_prefixes > S3_XML_KEYS_MAX)
        xml_fail(l, -EBADMSG);
    p->depth--;
}

static void XMLCALL xml_doctype(void *arg, const XML_Char *name, const XML_Char *sys,
                                const XML_Char *pub, int sub)
{
    xml_fail(arg, -EBADMSG);
}

int s3_xml_list_init(struct s3_xml_list *l)
{
    *l = (struct s3_xml_list){.text.max = XML_TEXT_MAX};
    l->parser = calloc(1, sizeof(*l->parser));
    if (l->parser)
        l->parser->expat = XML_ParserCreate("UTF-8");
    if (!l->parser || !l->parser->expat) {
        s3_xml_list_free(l);
        return -ENOMEM;
    }
    XML_SetUserData(l->parser->expat, l);
    XML_SetElementHandler(l->parser->expat, xml_start, xml_end);
    XML_SetCharacterDataHandler(l->parser->expat, xml_chars);
    XML_SetStartDoctypeDeclHandler(l->parser->expat, xml_doctype);
    return 0;
}

static int xml_feed(struct s3_xml_list *l, const void *p, size_t n, bool last)
{
    struct s3_xml_parser *x = l->parser;
    if (x->err == 0 && XML_Parse(x->expat, p, (int)n, last) != XML_STATUS_OK && x->err == 0)
        x->err = XML_GetErrorCode(x->expat) == XML_ERROR_NO_MEMORY ? -ENOMEM : -EBADMSG;
    return x->err;
}

int s3_xml_list_feed(struct s3_xml_list *l, const void *p, size_t n)
{
    const size_t step = (size_t)1 << 20;
    for (size_t at = 0; at < n; at += step) {
        int r = xml_feed(l, (const char *)p + at, ZC_MIN(step, n - at), false);
        if (r < 0)
            return r;
    }
    return 0;
}

static void xml_decode(struct s3_xml_list *l, struct s3_xml_span *s)
{
    if (s->len)
        s->len = s3_text_urldecode(l->text.p + s->at, s->len);
}

int s3_xml_list_end(struct s3_xml_list *l)
{
    int r = xml_feed(l, "", 0, true);
    if (r < 0)
        return r;
    if (!l->parser->root || (l->truncated && l->token.len == 0))
        return -EBADMSG;
    if (l->parser->url_encoded) {
        for (size_t i = 0; i < l->n_objects; i++)
            xml_decode(l, &l->objects[i].key);
        for (size_t i = 0; i < l->n_prefixes; i++)
            xml_decode(l, &l->prefixes[i]);
    }
    return 0;
}

void s3_xml_list_free(struct s3_xml_list *l)
{
    if (l->parser && l->parser->expat)
        XML_ParserFree(l->parser->expat);
    free(l->parser);
    free(l->objects);
    free(l->prefixes);
    zc_buf_free(&l->text);
    l->parser = NULL;
    l->objects = NULL;
    l->prefixes = NULL;
}

/* ---- errors ---- */

struct xml_error_parser {
    XML_Parser expat;
    struct s3_xml_error *out;
    int depth;
    char *at; /* field being filled */
    size_t room;
};

static void XMLCALL xml_error_start(void *arg, const XML_Char *name, const XML_Char **attrs)
{
    struct xml_error_parser *p = arg;
    struct s3_xml_error *e = p->out;
    const struct {
        const char *name;
        char *field;
        size_t size;
    } fields[] = {
        {"Code", e->code, sizeof(e->code)},
        {"Message", e->message, sizeof(e->message)},
        {"Region", e->region, sizeof(e->region)},
        {"Endpoint", e->endpoint, sizeof(e->endpoint)},
    };
    p->at = NULL;
    if (++p->depth > XML_DEPTH_MAX) {
        XML_StopParser(p->expat, XML_FALSE);
        return;
    }
    for (size_t i = 0; i < ZC_ARRAY_SIZE(fields); i++) {
        if (p->depth > 1 && strcmp(fields[i].name, name) == 0 && !fields[i].field[0]) {
            p->at = fields[i].field;
            p->room = fields[i].size - 1;
        }
    }
}

static void XMLCALL xml_error_chars(void *arg, const XML_Char *s, int n)
{
    struct xml_error_parser *p = arg;
    for (int i = 0; p->at && i < n && p->room > 0; i++, p->room--)
        *p->at++ = (unsigned char)s[i] < 0x20 || s[i] == 0x7f ? ' ' : s[i];
}

static void XMLCALL xml_error_end(void *arg, const XML_Char *name)
{
    struct xml_error_parser *p = arg;
    p->at = NULL;
    p->depth--;
}

static void XMLCALL xml_error_doctype(void *arg, const XML_Char *name, const XML_Char *sys,
                                      const XML_Char *pub, int sub)
{
    struct xml_error_parser *p = arg;
    XML_StopParser(p->expat, XML_FALSE);
}

int s3_xml_error_parse(const void *body, size_t n, struct s3_xml_error *out)
{
    *out = (struct s3_xml_error){0};
    struct xml_error_parser p = {.expat = XML_ParserCreate("UTF-8"), .out = out};
    if (!p.expat)
        return -EBADMSG;
    XML_SetUserData(p.expat, &p);
    XML_SetElementHandler(p.expat, xml_error_start, xml_error_end);
    XML_SetCharacterDataHandler(p.expat, xml_error_chars);
    XML_SetStartDoctypeDeclHandler(p.expat, xml_error_doctype);
    XML_Parse(p.expat, body, (int)ZC_MIN(n, (size_t)1 << 20), 1);
    XML_ParserFree(p.expat);
    return out->code[0] ? 0 : -EBADMSG;
}
