/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Written here because libcurl's own signer (CURLOPT_AWS_SIGV4) gets the query of a list wrong in
 * the versions that systems have today. A signature costs two hashes over less than a kilobyte: the
 * four-fold HMAC for the day's key is the caller's to keep.
 */
#include "backend/s3_sign.h"

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

const char s3_empty_hash[] = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

void s3_sign_date(int64_t unix_s, char out[17])
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    if (!gmtime_r(&t, &tm) || tm.tm_year < 0 || tm.tm_year > 8099)
        memset(&tm, 0, sizeof(tm));
    char text[80];
    snprintf(text, sizeof(text), "%04d%02d%02dT%02d%02d%02dZ", tm.tm_year + 1900, tm.tm_mon + 1,
             tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
    memcpy(out, text, 16);
    out[16] = '\0';
}

static int sign_hmac(const void *key, size_t key_len, const void *msg, size_t n,
                     uint8_t out[S3_SHA256_BYTES])
{
    unsigned len = 0;
    if (!HMAC(EVP_sha256(), key, (int)key_len, msg, n, out, &len) || len != S3_SHA256_BYTES)
        return -EIO;
    return 0;
}

static void sign_hex(const uint8_t in[S3_SHA256_BYTES], char out[S3_SHA256_HEX + 1])
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < S3_SHA256_BYTES; i++) {
        out[2 * i] = digits[in[i] >> 4];
        out[2 * i + 1] = digits[in[i] & 15];
    }
    out[S3_SHA256_HEX] = '\0';
}

void s3_sign_hash(const void *p, size_t n, char hex[S3_SHA256_HEX + 1])
{
    uint8_t hash[S3_SHA256_BYTES];
    SHA256(p, n, hash);
    sign_hex(hash, hex);
}

int s3_sign_key(const char *secret, const char *date, const char *region, const char *service,
                uint8_t key[S3_SHA256_BYTES])
{
    uint8_t k[S3_SHA256_BYTES];
    zc_autobuf struct zc_buf first = {0};
    zc_buf_adds(&first, "AWS4");
    zc_buf_adds(&first, secret);
    if (first.failed)
        return -ENOMEM;
    int r = sign_hmac(first.p, first.len, date, 8, k);
    if (r == 0)
        r = sign_hmac(k, sizeof(k), region, strlen(region), k);
    if (r == 0)
        r = sign_hmac(k, sizeof(k), service, strlen(service), k);
    if (r == 0)
        r = sign_hmac(k, sizeof(k), "aws4_request", 12, key);
    OPENSSL_cleanse(k, sizeof(k));
    OPENSSL_cleanse(first.p, first.len);
    return r;
}

static void sign_header_names(const struct s3_sign_request *req, struct zc_buf *out)
{
    for (size_t i = 0; i < req->n_headers; i++) {
        if (i)
            zc_buf_addc(out, ';');
        zc_buf_adds(out, req->headers[i].name);
    }
}

static void sign_canonical(const struct s3_sign_request *req, struct zc_buf *out)
{
    zc_buf_adds(out, req->method);
    zc_buf_addc(out, '\n');
    zc_buf_adds(out, req->path);
    zc_buf_addc(out, '\n');
    zc_buf_adds(out, req->query);
    zc_buf_addc(out, '\n');
    for (size_t i = 0; i < req->n_headers; i++) {
        zc_buf_adds(out, req->headers[i].name);
        zc_buf_addc(out, ':');
        zc_buf_adds(out, req->headers[i].value);
        zc_buf_addc(out, '\n');
    }
    zc_buf_addc(out, '\n');
    sign_header_names(req, out);
    zc_buf_addc(out, '\n');
    zc_buf_adds(out, req->payload);
}

int s3_sign_authorization(const struct s3_sign_request *req, const char *date, const char *region,
                          const char *service, const char *key_id,
                          const uint8_t key[S3_SHA256_BYTES], struct zc_buf *out)
{
    uint8_t hash[S3_SHA256_BYTES];
    char hex[S3_SHA256_HEX + 1];
    zc_autobuf struct zc_buf b = {0};
    if (zc_buf_reserve(&b, 1000) < 0)
        return -ENOMEM;
    sign_canonical(req, &b);
    if (b.failed)
        return -ENOMEM;
    if (!SHA256((const unsigned char *)b.p, b.len, hash))
        return -EIO;
    sign_hex(hash, hex);
    zc_buf_reset(&b);
    zc_buf_adds(&b, "AWS4-HMAC-SHA256\n");
    zc_buf_adds(&b, date);
    zc_buf_addc(&b, '\n');
    size_t scope = b.len;
    zc_buf_add(&b, date, 8);
    zc_buf_addc(&b, '/');
    zc_buf_adds(&b, region);
    zc_buf_addc(&b, '/');
    zc_buf_adds(&b, service);
    zc_buf_adds(&b, "/aws4_request");
    size_t scope_len = b.len - scope;
    zc_buf_addc(&b, '\n');
    zc_buf_adds(&b, hex);
    if (b.failed)
        return -ENOMEM;
    int r = sign_hmac(key, S3_SHA256_BYTES, b.p, b.len, hash);
    if (r < 0)
        return r;
    sign_hex(hash, hex);
    zc_buf_adds(out, "AWS4-HMAC-SHA256 Credential=");
    zc_buf_adds(out, key_id);
    zc_buf_addc(out, '/');
    zc_buf_add(out, b.p + scope, scope_len);
    zc_buf_adds(out, ",SignedHeaders=");
    sign_header_names(req, out);
    zc_buf_adds(out, ",Signature=");
    zc_buf_adds(out, hex);
    return out->failed ? -ENOMEM : 0;
}
