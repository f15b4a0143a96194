/* SPDX-License-Identifier: Apache-2.0 */
/* What WebHDFS and HttpFS answer, decoded. Pure: any thread, nothing blocks. */
#ifndef ZC_BACKEND_HDFS_JSON_H
#define ZC_BACKEND_HDFS_JSON_H

#include "base/base.h"

#include <jansson.h>

enum hdfs_type {
    HDFS_FILE,
    HDFS_DIR,
    HDFS_OTHER
}; /* OTHER: a symbolic link, or what is not known */

/* One FileStatus. The strings belong to the document. */
struct hdfs_file {
    const char *name; /* pathSuffix; "" for the path that was asked for */
    const char *owner, *group;
    enum hdfs_type type;
    uint64_t inode; /* fileId; 0 when the server tells none */
    uint64_t length;
    int64_t mtime_ms; /* as it is there; what can be shown is less */
    uint32_t mode;
    bool hidden; /* no path can show this name */
};

/* What went wrong, from a status that is no success and its body. */
struct hdfs_fault {
    int err; /* negative errno as in backend.h; -ERANGE: past the end of the file; -ENOTSUP: no such
                op */
    bool other_node; /* this NameNode cannot answer now; another may */
    bool auth;       /* the credentials were not taken */
    char text[400];  /* for people: the exception's message, or what else there is */
};

void hdfs_fault_of(int status, const char *body, size_t n, struct hdfs_fault *out);

/* Each gives -EBADMSG for what it does not understand. *doc is what the result points into:
 * json_decref. */
int hdfs_json_status(const char *body, size_t n, json_t **doc, struct hdfs_file *out);
/* LISTSTATUS_BATCH and LISTSTATUS alike; *remaining is 0 for the latter. *files: caller frees. */
int hdfs_json_list(const char *body, size_t n, json_t **doc, struct hdfs_file **files,
                   size_t *n_files, uint64_t *remaining);
/* The order in which a NameNode lists names: bytes, and those are signed there, so that what is no
   ASCII comes first. */
int hdfs_name_order(const char *a, const char *b);
/* Is this a page that may follow `after` (NULL: the first), and can the next one be asked for by
   its last name? Then a listing comes to an end, whatever the server does. */
bool hdfs_page_is_good(const struct hdfs_file *f, size_t n, uint64_t remaining, const char *after);
/* {"Token":{"urlString":...}}; caller frees. */
int hdfs_json_token(const char *body, size_t n, char **token);
/* {"long":...} */
int hdfs_json_long(const char *body, size_t n, int64_t *out);
/* Calls fn for each replica of each block: [off, off + len) of the file is at host:port (of HTTP; 0
 when it has none). tls: the port of HTTPS. What fn returns below 0 ends it. *file_length: as the
 NameNode has it now. */
typedef int hdfs_replica_fn(void *arg, size_t block, uint64_t off, uint64_t len, const char *host,
                            unsigned port);
int hdfs_json_blocks(const char *body, size_t n, bool tls, hdfs_replica_fn *fn, void *arg,
                     uint64_t *file_length);

/* Valid UTF-8 in which nothing was replaced (U+FFFD), which is what HDFS can be asked for. */
bool hdfs_name_is_text(const char *s, size_t n);

#endif
