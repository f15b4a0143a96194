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
    S3_SET_ENDPOINT,    /* endpoint_url */
    S3_SET_ENDPOINT_S3, /* of one service: from [services ...] */
    S3_SET_ENDPOINT_STS,
    S3_SET_ENDPOINT_SSO,
    S3_SET_ENDPOINT_OIDC,
    S3_SET_CA_BUNDLE,
    S3_SET_MAX_ATTEMPTS,
    S3_SET_ADDRESSING_STYLE, /* s3.addressing_style */
    S3_SET_SERVICES,         /* names a [services] section */
    S3_SET_ROLE_ARN,
    S3_SET_SOURCE_PROFILE,
    S3_SET_CREDENTIAL_SOURCE,
    S3_SET_EXTERNAL_ID,
    S3_SET_DURATION,
    S3_SET_SESSION_NAME, /* role_session_name */
    S3_SET_MFA_SERIAL,
    S3_SET_WEB_TOKEN_FILE, /* web_identity_token_file */
    S3_SET_STS_REGIONAL,   /* sts_regional_endpoints */
    S3_SET_CREDENTIAL_PROCESS,
    S3_SET_SSO_SESSION, /* names a [sso-session] section, which gives region and start URL */
    S3_SET_SSO_START_URL,
    S3_SET_SSO_REGION,
    S3_SET_SSO_ACCOUNT,
    S3_SET_SSO_ROLE,
    S3_SET_IMDS_ENDPOINT,
    S3_SET_IMDS_MODE,
    S3_SET_IMDS_TIMEOUT,
    S3_SET_IMDS_ATTEMPTS,
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
/* A path below the home folder: "/.aws/sso/cache". The same. */
char *s3_profile_home_path(const char *below);

/* Adds what a file says of a profile to *p; what is set already stays. config: sections are called
   "profile NAME" (but "default") there. A file that does not exist says nothing. 0, or -errno with
   words. */
int s3_profile_read(const char *path, bool config, const char *name, struct s3_profile *p,
                    struct zc_error *err);
/* Both files, credentials before config. */
int s3_profile_read_both(const char *name, struct s3_profile *p, struct zc_error *err);
void s3_profile_free(struct s3_profile *p);
#define zc_autoprofile __attribute__((cleanup(s3_profile_free)))

#endif
