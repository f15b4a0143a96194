/* SPDX-License-Identifier: Apache-2.0 */
/* S3 (API version 2006-03-01) as a source: ListObjectsV2, HeadObject, ranged GetObject, SigV4. */
#ifndef ZC_BACKEND_S3_H
#define ZC_BACKEND_S3_H

#include "backend/backend.h"

struct zc_net;

struct zc_s3_config {
    const char *bucket;       /* required */
    const char *prefix;       /* "" or "a/b", no slash at either end */
    const char *endpoint_url; /* NULL: AWS's for the region; also from AWS_ENDPOINT_URL_S3,
                                 AWS_ENDPOINT_URL */
    const char *region;       /* NULL: AWS_REGION, AWS_DEFAULT_REGION, the profile's, us-east-1 */
    const char *profile;      /* NULL: AWS_PROFILE, "default" */
    const char *ca_bundle;    /* NULL: AWS_CA_BUNDLE, the system's */
    const char *expected_bucket_owner; /* or NULL */
    bool force_path_style; /* also chosen where the bucket's name does not fit into a host name */
    bool no_sign_request;
    bool requester_pays;
    bool no_verify_ssl;
};

int zc_s3_new(struct zc_net *net, const struct zc_s3_config *cfg, struct zc_backend **out,
              struct zc_error *err);

/* What AWS_MAX_ATTEMPTS or the profile's max_attempts say, for zc_retry_config; 0: nothing, or `be`
   is no S3 source (a wrapper, for instance: ask before wrapping). */
unsigned zc_s3_max_attempts(const struct zc_backend *be);

#endif
