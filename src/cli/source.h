/* SPDX-License-Identifier: Apache-2.0 */
/* SOURCE as a person writes it. */
#ifndef ZC_CLI_SOURCE_H
#define ZC_CLI_SOURCE_H

#include "base/base.h"
#include "base/error.h"

enum zc_scheme {
    ZC_SCHEME_S3,
    ZC_SCHEME_FILE,
    ZC_SCHEME_HDFS,
    ZC_SCHEME_WEBHDFS,
    ZC_SCHEME_SWEBHDFS
};

struct zc_source {
    enum zc_scheme scheme;
    char *bucket;    /* s3 */
    char *authority; /* hdfs: "host[:port]", a nameservice, or "" */
    char *prefix;    /* s3, hdfs: "" or "a/b", no slash at either end */
    char *path;      /* file: absolute, as written */
};

/* "s3://bucket[/prefix]", "file:///dir", "webhdfs://host:port[/path]" and the like. The text after
   the scheme is taken as it is: nothing is percent-decoded. -EINVAL with words. */
int zc_source_parse(const char *s, struct zc_source *out, struct zc_error *err);
void zc_source_free(struct zc_source *s);
/* "s3", "file", ... */
const char *zc_scheme_name(enum zc_scheme scheme);
static inline bool zc_scheme_is_hdfs(enum zc_scheme scheme)
{
    return scheme == ZC_SCHEME_HDFS || scheme == ZC_SCHEME_WEBHDFS || scheme == ZC_SCHEME_SWEBHDFS;
}

#endif
