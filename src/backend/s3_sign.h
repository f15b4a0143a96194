/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AWS Signature Version 4. Pure: no clock, no network, no state.
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
#ifndef ZC_BACKEND_S3_SIGN_H
#define ZC_BACKEND_S3_SIGN_H

#include "base/base.h"
#include "base/buf.h"

#define S3_SHA256_BYTES 32
#define S3_SHA256_HEX 64
/* SHA-256 of nothing, in hex: the payload hash of a GET, HEAD or list. */
extern const char s3_empty_hash[];

struct s3_sign_header {
    const char *name;  /* lower case */
    const char *value; /* without blanks around it */
};

struct s3_sign_request {
    const char *method;
    const char *path;  /* as it stands in the URL: percent-encoded once */
    const char *query; /* canonical: names and values encoded, sorted by name; "" without one */
    const struct s3_sign_header *headers; /* sorted by name */
    size_t n_headers;
    const char *payload; /* hash in hex, or UNSIGNED-PAYLOAD */
};

/* SHA-256 in hex, NUL-terminated. */
void s3_sign_hash(const void *p, size_t n, char hex[S3_SHA256_HEX + 1]);

/* 20130524T000000Z */
void s3_sign_date(int64_t unix_s, char out[17]);

/* The key for one day, region and service. date: its first 8 characters are used. 0 or -EIO. */
int s3_sign_key(const char *secret, const char *date, const char *region, const char *service,
                uint8_t key[S3_SHA256_BYTES]);

/* Value of the Authorization header. 0, -ENOMEM or -EIO. */
int s3_sign_authorization(const struct s3_sign_request *req, const char *date, const char *region,
                          const char *service, const char *key_id,
                          const uint8_t key[S3_SHA256_BYTES], struct zc_buf *out);

#endif
