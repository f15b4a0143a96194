/* SPDX-License-Identifier: Apache-2.0 */
#include "sign.h"

#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define UNSIGNED "UNSIGNED-PAYLOAD"
#define SIGNED_HEADERS "host;x-amz-content-sha256;x-amz-date"

static void sign_hmac(unsigned char out[32], const void *key, size_t key_len, const char *text)
{
    unsigned int n = 32;
    HMAC(EVP_sha256(), key, (int)key_len, (const unsigned char *)text, strlen(text), out, &n);
}

static void sign_hex(char out[65], const unsigned char *p)
{
    for (int i = 0; i < 32; i++)
        snprintf(out + 2 * i, 3, "%02x", p[i]);
}

void sign_init(struct sign *s, const char *url)
{
    memset(s, 0, sizeof(*s));
    s->access = getenv("AWS_ACCESS_KEY_ID");
    s->secret = getenv("AWS_SECRET_ACCESS_KEY");
    s->region = getenv("AWS_REGION");
    if (!s->secret)
        s->access = NULL;
    if (!s->region)
        s->region = "us-east-1";
    const char *p = strstr(url, "://");
    p = p ? p + 3 : url;
    snprintf(s->host, sizeof(s->host), "%.*s", (int)strcspn(p, "/"), p);
}

struct curl_slist *sign_get(struct sign *s, const char *path, const char *query)
{
    if (!s->access)
        return NULL;
    char date[17], text[8192], hash[65], scope[128], line[1024];
    unsigned char d[32];
    time_t now = time(NULL);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(date, sizeof(date), "%Y%m%dT%H%M%SZ", &tm);
    if (memcmp(s->day, date, 8) != 0) {
        char first[256];
        snprintf(s->day, sizeof(s->day), "%.8s", date);
        snprintf(first, sizeof(first), "AWS4%s", s->secret);
        sign_hmac(d, first, strlen(first), s->day);
        sign_hmac(d, d, 32, s->region);
        sign_hmac(d, d, 32, "s3");
        sign_hmac(s->key, d, 32, "aws4_request");
    }
    snprintf(scope, sizeof(scope), "%s/%s/s3/aws4_request", s->day, s->region);

    int n = snprintf(text, sizeof(text),
                     "GET\n%s\n%s\nhost:%s\nx-amz-content-sha256:" UNSIGNED
                     "\nx-amz-date:%s\n\n" SIGNED_HEADERS "\n" UNSIGNED,
                     path, query, s->host, date);
    if (n < 0 || (size_t)n >= sizeof(text)) {
        fprintf(stderr, "a request is too long to sign\n");
        exit(2);
    }
    SHA256((unsigned char *)text, (size_t)n, d);
    sign_hex(hash, d);
    snprintf(text, sizeof(text), "AWS4-HMAC-SHA256\n%s\n%s\n%s", date, scope, hash);
    sign_hmac(d, s->key, 32, text);
    sign_hex(hash, d);

    snprintf(line, sizeof(line),
             "Authorization: AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=" SIGNED_HEADERS
             ", Signature=%s",
             s->access, scope, hash);
    struct curl_slist *list = curl_slist_append(NULL, line);
    snprintf(line, sizeof(line), "x-amz-date: %s", date);
    list = curl_slist_append(list, line);
    return curl_slist_append(list, "x-amz-content-sha256: " UNSIGNED);
}
