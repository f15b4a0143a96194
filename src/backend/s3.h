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
    int64_t probe_ns; /* how long the first question may take; 0, or more than 30 s: 30 s */
};

int zc_s3_new(struct zc_net *net, const struct zc_s3_config *cfg, struct zc_backend **out,
              struct zc_error *err);

/* ---- for who looks for faults (zcache doctor) ---- */

struct zc_s3_view {
    char url[600]; /* where the bucket is asked for: "https://bucket.s3.eu-west-1.amazonaws.com" */
    char region[64];
    bool path_style;
    bool signed_requests;
    const char *ca_bundle;  /* or NULL; belongs to the source */
    int64_t skew_ns;        /* the store's clock minus ours, once it minded */
    char refused[64];       /* the code of the last refusal, "" when there was none */
    char key[64];           /* the access key's id, "" without one */
    char key_from[512];     /* in words */
    int64_t key_expires_ns; /* wall clock; 0: never */
};
/* As it is now; be is an S3 source itself, not a wrapper. */
void zc_s3_look(struct zc_backend *be, struct zc_s3_view *out);
/* Asks each source of credentials in turn, as zc_s3_new does, until one has keys or fails. fn gets
   its name, 0 or -errno (-ENOENT: it is not set up), and words. Blocks. 0 when there are keys. */
typedef void zc_s3_walk_fn(void *arg, const char *name, int err, const char *words);
int zc_s3_walk(struct zc_net *net, const struct zc_s3_config *cfg, zc_s3_walk_fn *fn, void *arg);

/* What AWS_MAX_ATTEMPTS or the profile's max_attempts say, for zc_retry_config; 0: nothing, or `be`
   is no S3 source (a wrapper, for instance: ask before wrapping). */
unsigned zc_s3_max_attempts(const struct zc_backend *be);

#endif
