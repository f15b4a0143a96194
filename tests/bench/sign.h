/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signature version 4 for the reference client: just what a GET without extra headers needs. It is
 * the client's own, so that the bar does not move with the code that is measured against it.
 */
#ifndef BENCH_SIGN_H
#define BENCH_SIGN_H

#include <curl/curl.h>
#include <stddef.h>
#include <time.h>

struct sign {
    const char *access, *secret, *region; /* access NULL: requests go unsigned */
    char host[256];                       /* with the port, as the Host header says it */
    char day[9];                          /* the day that `key` is for */
    unsigned char key[32];
};

/* Reads AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_REGION, and the host out of the URL. */
void sign_init(struct sign *s, const char *url);
/* The headers of a GET of this path (encoded, from its '/') and query (encoded and sorted, or "").
   The caller frees the list; NULL when requests go unsigned. */
struct curl_slist *sign_get(struct sign *s, const char *path, const char *query);

#endif
