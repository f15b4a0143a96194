/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers of WebHDFS and HttpFS. Nearly every failure is status 403, whatever it is about, so that
 * the name of the exception decides, and the status only where there is none.
 */
#include "backend/hdfs_json.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define JSON_FLAGS JSON_ALLOW_NUL

/* ---- failures ---- */

static const struct fault_row {
    const char *exception;
    int err;
    bool other_node, auth;
} fault_rows[] = {
    {"FileNotFoundException", -ENOENT, false, false},
    {"PathNotFoundException", -ENOENT, false, false},
    {"InvalidPathException", -ENOENT, false, false},
    {"UnresolvedPathException", -ENOENT, false, false},
    {"UnresolvedLinkException", -ENOENT, false, false},
    {"AccessControlException", -EACCES, false, false},
    {"AuthorizationException", -EACCES, false, false},
    {"ParentNotDirectoryException", -ENOTDIR, false, false},
    {"PathIsNotDirectoryException", -ENOTDIR, false, false},
    {"StandbyException", -EAGAIN, true, false},
    {"ObserverRetryOnActiveException", -EAGAIN, true, false},
    {"RetriableException", -EAGAIN, true, false},
    {"SafeModeException", -EAGAIN, true, false},
    {"ServerTooBusyException", -EAGAIN, false, false},
    {"ConnectException", -EAGAIN, true, false},
    {"ConnectTimeoutException", -EAGAIN, true, false},
    {"SocketTimeoutException", -EAGAIN, true, false},
    {"NoRouteToHostException", -EAGAIN, true, false},
    {"EOFException", -EAGAIN, true, false},
    {"BlockMissingException", -EAGAIN, false, false},
    {"CannotObtainBlockLengthException", -EAGAIN, false, false},
    {"ChecksumException", -EAGAIN, false, false},
    {"ReplicaNotFoundException", -EAGAIN, false, false},
    {"InvalidToken", -EACCES, false, true},
    {"InvalidEncryptionKeyException", -EAGAIN, false, false},
    {"SecurityException", -EACCES, false, true},
    {"AuthenticationException", -EACCES, false, true},
    {"UnsupportedOperationException", -ENOTSUP, false, false},
};

static void fault_by_message(int status, const char *message, struct hdfs_fault *out)
{
    if (strstr(message, "out of the range") || strstr(message, "out of range"))
        out->err = -ERANGE;
    else if (strstr(message, "parameter \"op\"") || strstr(message, "No enum constant"))
        out->err = -ENOTSUP;
    else if (strstr(message, "not allowed to impersonate"))
        out->err = -EACCES;
    else if (strstr(message, "No active and not excluded nodes") ||
             strstr(message, "Failed to find datanode") || strstr(message, "Could not obtain") ||
             status >= 500)
        out->err = -EAGAIN;
    else
        out->err = -EIO;
}

static void fault_by_status(int status, struct hdfs_fault *out)
{
    out->auth = status == 401;
    out->err = status == 401                    ? -EACCES
               : status == 404                  ? -ENOENT
               : status == 429 || status >= 500 ? -EAGAIN
                                                : -EIO;
    snprintf(out->text, sizeof(out->text), "%s (HTTP status %d)",
             status == 401   ? "the server wants a Kerberos login"
             : status == 404 ? "the server knows no such address; is WebHDFS switched on there?"
                             : "an answer that is none of WebHDFS's",
             status);
}

void hdfs_fault_of(int status, const char *body, size_t n, struct hdfs_fault *out)
{
    const char *exception = NULL, *message = "";
    memset(out, 0, sizeof(*out));
    json_t *doc = n ? json_loadb(body, n, JSON_FLAGS, NULL) : NULL;
    json_t *re = json_object_get(doc, "RemoteException");
    exception = json_string_value(json_object_get(re, "exception"));
    if (json_is_string(json_object_get(re, "message")))
        message = json_string_value(json_object_get(re, "message"));
    if (!exception) {
        fault_by_status(status, out);
        json_decref(doc);
        return;
    }
    const struct fault_row *row = NULL;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(fault_rows) && !row; i++) {
        if (strcmp(fault_rows[i].exception, exception) == 0)
            row = &fault_rows[i];
    }
    if (row) {
        out->err = row->err;
        out->other_node = row->other_node;
        out->auth = row->auth;
    } else {
        fault_by_message(status, message, out);
    }
    /* A standby, or one that starts, cannot check a token, and says that it is wrong. */
    if (out->auth &&
        (strstr(message, "StandbyException") || strstr(message, "RetriableException") ||
         strstr(message, "SafeModeException"))) {
        out->err = -EAGAIN;
        out->other_node = true;
        out->auth = false;
    }
    if (status == 401)
        out->auth = true;
    /* The first line: what follows is a stack of calls. */
    int len = (int)ZC_MIN(strcspn(message, "\r\n"), sizeof(out->text) - 1);
    if (len)
        snprintf(out->text, sizeof(out->text), "%.*s", len, message);
    else
        snprintf(out->text, sizeof(out->text), "%s", exception);
    json_decref(doc);
}

/* ---- names ---- */

bool hdfs_name_is_text(const char *s, size_t n)
{
    const unsigned char *p = (const unsigned char *)s, *end = p + n;
    while (p < end) {
        unsigned c = *p++, more, least;
        if (c < 0x80) {
            if (c == 0)
                return false;
            continue;
        }
        if (c >= 0xc2 && c <= 0xdf) {
            more = 1, least = 0x80, c &= 0x1f;
        } else if (c >= 0xe0 && c <= 0xef) {
            more = 2, least = 0x800, c &= 0x0f;
        } else if (c >= 0xf0 && c <= 0xf4) {
            more = 3, least = 0x10000, c &= 0x07;
        } else {
            return false;
        }
        if ((size_t)(end - p) < more)
            return false;
        for (; more; more--) {
            if ((*p & 0xc0) != 0x80)
                return false;
            c = c << 6 | (*p++ & 0x3f);
        }
        if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff) || c == 0xfffd)
            return false;
    }
    return true;
}

static bool json_name_hidden(const char *s, size_t n)
{
    return n == 0 || n > 255 || strlen(s) != n || strcmp(s, ".") == 0 || strcmp(s, "..") == 0 ||
           memchr(s, '/', n) || !hdfs_name_is_text(s, n);
}

/* ---- numbers ---- */

static int json_u64(const json_t *o, const char *key, bool required, uint64_t *out)
{
    const json_t *v = json_object_get(o, key);
    if (!v && !required) {
        *out = 0;
        return 0;
    }
    if (!json_is_integer(v) || json_integer_value(v) < 0)
        return -EBADMSG;
    *out = (uint64_t)json_integer_value(v);
    return 0;
}

/* Octal digits; an extended bit ("0755+") of old servers ends the number. */
static uint32_t json_mode(const json_t *o)
{
    const char *s = json_string_value(json_object_get(o, "permission"));
    uint32_t mode = 0;
    if (!s || *s < '0' || *s > '7')
        return (uint32_t)-1;
    for (unsigned i = 0; i < 5 && *s >= '0' && *s <= '7'; i++, s++)
        mode = mode * 8 + (uint32_t)(*s - '0');
    return mode & 01777;
}

/* ---- statuses ---- */

static int json_file(const json_t *o, struct hdfs_file *f)
{
    const json_t *name = json_object_get(o, "pathSuffix");
    const char *type = json_string_value(json_object_get(o, "type"));
    const json_t *mtime = json_object_get(o, "modificationTime");
    if (!json_is_object(o) || !type || (name && !json_is_string(name)))
        return -EBADMSG;
    f->name = name ? json_string_value(name) : "";
    f->hidden = !name || json_name_hidden(f->name, json_string_length(name));
    f->type = strcmp(type, "FILE") == 0        ? HDFS_FILE
              : strcmp(type, "DIRECTORY") == 0 ? HDFS_DIR
                                               : HDFS_OTHER;
    f->owner = json_string_value(json_object_get(o, "owner"));
    f->group = json_string_value(json_object_get(o, "group"));
    f->mode = json_mode(o);
    if (json_u64(o, "fileId", false, &f->inode) < 0 ||
        json_u64(o, "length", f->type == HDFS_FILE, &f->length) < 0 ||
        (mtime ? !json_is_integer(mtime) : f->type == HDFS_FILE))
        return -EBADMSG;
    f->mtime_ms = json_integer_value(mtime); /* any at all: whoever owns a file may set it */
    return 0;
}

int hdfs_json_status(const char *body, size_t n, json_t **doc, struct hdfs_file *out)
{
    json_t *d = json_loadb(body, n, JSON_FLAGS, NULL);
    if (!d || json_file(json_object_get(d, "FileStatus"), out) < 0) {
        json_decref(d);
        return -EBADMSG;
    }
    *doc = d;
    return 0;
}

int hdfs_name_order(const char *a, const char *b)
{
    while (*a && *a == *b) {
        a++;
        b++;
    }
    if (!*a || !*b)
        return (*a != 0) - (*b != 0);
    return (signed char)*a - (signed char)*b;
}

bool hdfs_page_is_good(const struct hdfs_file *f, size_t n, uint64_t remaining, const char *after)
{
    for (size_t i = 0; i < n; i++) {
        const char *last = i ? f[i - 1].name : after;
        if (last && hdfs_name_order(f[i].name, last) <= 0)
            return false;
    }
    return remaining == 0 || (n && !f[n - 1].hidden);
}

int hdfs_json_list(const char *body, size_t n, json_t **doc, struct hdfs_file **files,
                   size_t *n_files, uint64_t *remaining)
{
    json_t *d = json_loadb(body, n, JSON_FLAGS, NULL);
    json_t *page = json_object_get(d, "DirectoryListing");
    json_t *all =
        json_object_get(page ? json_object_get(page, "partialListing") : d, "FileStatuses");
    json_t *list = json_object_get(all, "FileStatus");
    uint64_t left = 0;
    if (!json_is_array(list) || (page && json_u64(page, "remainingEntries", true, &left) < 0)) {
        json_decref(d);
        return -EBADMSG;
    }
    size_t count = json_array_size(list);
    struct hdfs_file *f = calloc(count ? count : 1, sizeof(*f));
    int r = f ? 0 : -ENOMEM;
    for (size_t i = 0; i < count && r == 0; i++)
        r = json_file(json_array_get(list, i), &f[i]);
    if (r < 0) {
        free(f);
        json_decref(d);
        return r;
    }
    *doc = d;
    *files = f;
    *n_files = count;
    *remaining = left;
    return 0;
}

/* ---- tokens ---- */

int hdfs_json_token(const char *body, size_t n, char **token)
{
    json_t *d = json_loadb(body, n, JSON_FLAGS, NULL);
    const json_t *s = json_object_get(json_object_get(d, "Token"), "urlString");
    const char *text = json_string_value(s);
    int r = -EBADMSG;
    if (text && *text && strlen(text) < 8192 &&
        strspn(text, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=") ==
            json_string_length(s)) {
        char *copy = strdup(text);
        r = copy ? 0 : -ENOMEM;
        if (copy)
            *token = copy;
    }
    json_decref(d);
    return r;
}

int hdfs_json_long(const char *body, size_t n, int64_t *out)
{
    json_t *d = json_loadb(body, n, JSON_FLAGS, NULL);
    const json_t *v = json_object_get(d, "long");
    int r = json_is_integer(v) ? 0 : -EBADMSG;
    if (r == 0)
        *out = json_integer_value(v);
    json_decref(d);
    return r;
}

/* ---- blocks ---- */

static int json_block(const json_t *b, size_t i, bool tls, hdfs_replica_fn *fn, void *arg)
{
    uint64_t off, len, port;
    json_t *dns = json_object_get(b, "locations");
    if (json_u64(b, "startOffset", true, &off) < 0 ||
        json_u64(json_object_get(b, "block"), "numBytes", true, &len) < 0 ||
        off > INT64_MAX - len || !json_is_array(dns))
        return -EBADMSG;
    for (size_t k = 0; k < json_array_size(dns); k++) {
        const json_t *dn = json_array_get(dns, k);
        const char *host = json_string_value(json_object_get(dn, "hostName"));
        if (!host || !*host ||
            json_u64(dn, tls ? "infoSecurePort" : "infoPort", false, &port) < 0 || port > 65535)
            return -EBADMSG;
        int r = fn(arg, i, off, len, host, (unsigned)port);
        if (r < 0)
            return r;
    }
    return 0;
}

int hdfs_json_blocks(const char *body, size_t n, bool tls, hdfs_replica_fn *fn, void *arg,
                     uint64_t *file_length)
{
    json_t *d = json_loadb(body, n, JSON_FLAGS, NULL);
    const json_t *all = json_object_get(d, "LocatedBlocks");
    const json_t *blocks = json_object_get(all, "locatedBlocks");
    uint64_t length = 0;
    int r = json_is_array(blocks) ? json_u64(all, "fileLength", true, &length) : -EBADMSG;
    for (size_t i = 0; r == 0 && i < json_array_size(blocks); i++)
        r = json_block(json_array_get(blocks, i), i, tls, fn, arg);
    json_decref(d);
    if (r == 0)
        *file_length = length;
    return r;
}
