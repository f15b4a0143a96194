/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where S3's keys come from: a list of providers, asked in order; the first that has keys wins. A
 * provider that has nothing says so in words, which the user sees when none has.
 *
 * Keys are immutable and counted by reference. They may expire: a request whose keys are too old,
 * or were refused as expired, asks for newer ones and goes on when they are there. Loading may
 * block (on the network, for providers to come), so that after the first time it runs on a thread
 * of its own.
 */
#ifndef ZC_BACKEND_S3_CRED_H
#define ZC_BACKEND_S3_CRED_H

#include "backend/s3_sign.h"
#include "base/base.h"
#include "base/error.h"

#include <pthread.h>
#include <stdatomic.h>

struct s3_keys {
    atomic_uint refs;
    char *id, *secret;
    char *token;        /* session token, or NULL */
    int64_t expires_ns; /* zc_wall_ns() value; 0: never */
    char *source; /* for words: "the environment", "profile 'x' in /home/u/.aws/credentials" */
    /* The signing key of the last day and region. */
    pthread_mutex_t lock;
    char scope[96];
    uint8_t signing[S3_SHA256_BYTES];
};

struct s3_provider {
    const char *name;
    /* May block. 0 and keys; -ENOENT and words: nothing here, the next provider is asked; any other
       error with words ends the search. */
    int (*load)(struct s3_provider *, struct s3_keys **out, struct zc_error *why);
    /* Would load() give something else by now? Quick. NULL: never. */
    bool (*changed)(struct s3_provider *);
    void (*free)(struct s3_provider *);
};

/* id, secret and source are copied, token may be NULL or "". NULL when memory is short. */
struct s3_keys *s3_keys_new(const char *id, const char *secret, const char *token,
                            int64_t expires_ns, const char *source);
void s3_keys_unref(struct s3_keys *k);
/* The signing key for this date (8 characters count) and region, cached. 0 or -errno. */
int s3_keys_signing(struct s3_keys *k, const char *date, const char *region,
                    uint8_t out[S3_SHA256_BYTES]);

struct s3_creds;
typedef void s3_creds_fn(void *arg, bool newer);

/* Takes the providers. */
int s3_creds_new(struct s3_provider **providers, size_t n, struct s3_creds **out);
/* Asks the providers; for the first time. Blocks. */
int s3_creds_load(struct s3_creds *c, struct zc_error *err);
/* Current keys with a reference, NULL when there are none. Starts renewing in the background when
 * they end soon. */
struct s3_keys *s3_creds_get(struct s3_creds *c);
/* `old` is of no use any more: fn(arg, true) once there are other keys, fn(arg, false) when there
   are none to be had. fn may run before this returns, or on another thread. */
void s3_creds_renew(struct s3_creds *c, const struct s3_keys *old, s3_creds_fn *fn, void *arg);
/* Waits for a renewal under way; nobody may wait for one. */
void s3_creds_free(struct s3_creds *c);

/* AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN. */
struct s3_provider *s3_provider_env(void);
/* Keys of a profile in the shared credentials file, then in the shared config file. explicit: the
   profile was asked for by name, so that its absence is an error. */
struct s3_provider *s3_provider_files(const char *profile, bool explicit);

#endif
