/* SPDX-License-Identifier: Apache-2.0 */
/* SOURCE as a person writes it. */
#ifndef ZC_CLI_SOURCE_H
#define ZC_CLI_SOURCE_H

#include "base/base.h"
#include "base/error.h"

enum zc_scheme { ZC_SCHEME_S3, ZC_SCHEME_FILE };

struct zc_source {
    enum zc_scheme scheme;
    char *bucket; /* s3 */
    char *prefix; /* s3: "" or "a/b", no slash at either end */
    char *path;   /* file: absolute, as written */
};

/* "s3://bucket[/prefix]" or "file:///dir". The text after the scheme is taken as it is: nothing is
   percent-decoded. -EINVAL with words. */
int zc_source_parse(const char *s, struct zc_source *out, struct zc_error *err);
void zc_source_free(struct zc_source *s);

#endif
