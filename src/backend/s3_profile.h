/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The files that AWS's tools share: credentials and config, with profiles.
 * https://docs.aws.amazon.com/sdkref/latest/guide/file-format.html
 */
#ifndef ZC_BACKEND_S3_PROFILE_H
#define ZC_BACKEND_S3_PROFILE_H

#include "base/base.h"
#include "base/error.h"

enum s3_setting {
    S3_SET_KEY_ID,
    S3_SET_SECRET,
    S3_SET_TOKEN,
    S3_SET_REGION,
    S3_SET_ENDPOINT, /* endpoint_url */
    S3_SET_CA_BUNDLE,
    S3_SET_MAX_ATTEMPTS,
    S3_SET_ADDRESSING_STYLE, /* s3.addressing_style */
    S3_SET_SERVICES,         /* names a [services] section */
    S3_SET_ROLE_ARN,
    S3_SET_CREDENTIAL_PROCESS,
    S3_SET_SSO, /* sso_session or sso_start_url */
    S3_SETTINGS,
};

struct s3_profile {
    char *v[S3_SETTINGS]; /* NULL: not set */
    bool found;           /* there is a section of that name */
};

/* One setting: section as it stands in the brackets, blanks trimmed; key in lower case, "s3.x" for
   one nested under "s3 ="; value without blanks around it. Not 0: stops. Strings live during the
   call. */
typedef int s3_ini_fn(void *arg, const char *section, const char *key, const char *value);
/* Reads a whole file's text. Each section is told once with key NULL. 0, -ENOMEM, or what fn
 * returned. */
int s3_ini_parse(const char *text, size_t n, s3_ini_fn *fn, void *arg);

/* Paths: AWS_SHARED_CREDENTIALS_FILE or ~/.aws/credentials, AWS_CONFIG_FILE or ~/.aws/config.
   Caller frees; NULL when memory is short. */
char *s3_profile_credentials_path(void);
char *s3_profile_config_path(void);

/* Adds what a file says of a profile to *p; what is set already stays. config: sections are called
   "profile NAME" (but "default") there. A file that does not exist says nothing. 0, or -errno with
   words. */
int s3_profile_read(const char *path, bool config, const char *name, struct s3_profile *p,
                    struct zc_error *err);
void s3_profile_free(struct s3_profile *p);

#endif
