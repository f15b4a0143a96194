/* SPDX-License-Identifier: Apache-2.0 */
/* Wrappers: a backend that holds another and adds one behaviour. Freeing one frees what it holds.
 */
#ifndef ZC_BACKEND_WRAP_H
#define ZC_BACKEND_WRAP_H

#include "backend/backend.h"

struct zc_net;

struct zc_retry_config {
    unsigned attempts;   /* in all, of those that reach the store (AWS_MAX_ATTEMPTS in S3); 0: the
                            deadline alone ends it, and answers without sense (-EBADMSG) the tenth */
    int64_t base_ns;     /* first back-off; 0 = 50 ms; doubles, full jitter */
    int64_t cap_ns;      /* longest back-off; 0 = 5 s */
    int64_t deadline_ns; /* for requests without one: how long they may stand still; 0 = 60 s */
};
/* Retries -EAGAIN, -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH and -EBADMSG with
   exponential back-off and full jitter (Brooker, "Exponential Backoff And Jitter", 2015); a get
   goes on where its bytes ended, and counts its attempts and its time anew when it moved on. Where
   nothing answers (-ECONNREFUSED, -EHOSTUNREACH) only the deadline ends it. The last error, with
   words, is what the caller sees. probe() is tried three times within some seconds. */
int zc_retry_new(struct zc_backend *inner, struct zc_net *net, const struct zc_retry_config *cfg,
                 struct zc_backend **out);
/* How the source does, by what its last attempts came to. */
struct zc_retry_health {
    uint64_t failures; /* attempts that failed since one came through; 0: all is well */
    int64_t since_ns;  /* zc_now_ns() of the first of them */
    char text[300];    /* words of the last */
};
/* Of what zc_retry_new made. Any thread. */
void zc_retry_get_health(struct zc_backend *be, struct zc_retry_health *out);
/* Is this one of the errors above? */
bool zc_retry_useful(int err);

/* At most `requests` in flight (0 = 64); the rest waits by priority, first come first served within
   one. A part of them (a quarter, one at least) is kept free of warm and read-ahead, so that demand
   never waits for a slot that they hold. What waits longer than its stall_ns while nothing comes of
   those in flight ends with -ETIMEDOUT. net is for the timer of that; without one it ends when the
   next of them does. */
int zc_limit_new(struct zc_backend *inner, struct zc_net *net, unsigned requests,
                 struct zc_backend **out);

#endif
