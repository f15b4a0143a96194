/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where S3's keys come from: a list of providers, asked in order; the first that has keys wins. A
 * provider that has nothing says so in words, which the user sees when none has.
 *
 * Keys are immutable and counted by reference. They may expire: some time before, who asks for them
 * starts a renewal on a thread of its own and still gets the old ones, so that nobody waits. A
 * request whose keys have expired, or were refused as such, waits for newer ones. There is one
 * renewal at a time, and it asks the provider that gave the keys.
 */
#ifndef ZC_BACKEND_S3_CRED_H
#define ZC_BACKEND_S3_CRED_H

#include "backend/s3_sign.h"
#include "base/base.h"
#include "base/error.h"

#include <pthread.h>
#include <stdatomic.h>

struct zc_net;

struct s3_keys {
    atomic_uint refs;
    char *id, *secret;
    char *token;        /* session token, or NULL */
    int64_t expires_ns; /* zc_wall_ns() value, whatever their giver's clock says; 0: never */
    int64_t born_ns;    /* when they were made, by the same clock */
    int64_t early_ns;   /* how long before that they are renewed: a third of their life, about five
                           minutes at the most; a little different for each */
    char *source; /* for words: "the environment", "profile 'x' in /home/u/.aws/credentials" */
    /* The signing key of the last day and region. */
    pthread_mutex_t lock;
    char scope[96];
    uint8_t signing[S3_SHA256_BYTES];
};

struct s3_provider {
    const char *name;
    /* May block. 0 and keys; -ENOENT and words: nothing here, the next provider is asked; any other
       error with words ends the search; -EAGAIN: may be better later. One at a time. */
    int (*load)(struct s3_provider *, struct s3_keys **out, struct zc_error *why);
    /* Would load() give something else by now? Quick. NULL: never. */
    bool (*changed)(struct s3_provider *);
    bool dynamic; /* asking again may give other keys, whether or not these have an end */
    /* Ends a load() under way and those to come. Any thread. NULL: they are quick. */
    void (*stop)(struct s3_provider *);
    void (*free)(struct s3_provider *);
};

/* id, secret and source are copied, token may be NULL or "". NULL when memory is short. */
struct s3_keys *s3_keys_new(const char *id, const char *secret, const char *token,
                            int64_t expires_ns, const char *source);
void s3_keys_unref(struct s3_keys *k);
/* The signing key for this date (8 characters count) and region, cached. 0 or -errno. */
int s3_keys_signing(struct s3_keys *k, const char *date, const char *region,
                    uint8_t out[S3_SHA256_BYTES]);

/* Past their end, by our clock? (Providers tell ends by it, too.) */
bool s3_keys_expired(const struct s3_keys *k);

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
   are none to be had, or none until `until_ns` (zc_now_ns). fn may run before this returns, or on
   another thread. */
void s3_creds_renew(struct s3_creds *c, const struct s3_keys *old, int64_t until_ns,
                    s3_creds_fn *fn, void *arg);
/* Who waits by s3_creds_renew with this arg need not any more: fn(arg, false) comes soon, on a loop
   of net (lane says which). Nothing happens when nobody waits so. */
void s3_creds_cancel(struct s3_creds *c, struct zc_net *net, unsigned lane, void *arg);
/* Why the last renewal failed; code 0 when it did not. */
void s3_creds_why(struct s3_creds *c, struct zc_error *out);
/* Ends a renewal under way; nobody may wait for one. */
void s3_creds_free(struct s3_creds *c);

/* AWS's chain: environment, the profile's role, web identity, SSO, credentials file,
   credential_process, config file, container, instance metadata. */
#define S3_CHAIN_MAX 9
struct s3_chain_config {
    struct zc_net *net;
    const char *profile;   /* its name */
    bool named;            /* it was asked for, by whatever means: its absence is an error */
    bool explicit;         /* ... by an option: it goes before the environment */
    const char *region;    /* for STS; NULL: the profile's */
    const char *ca_bundle; /* or NULL */
};
/* Fills list with new providers; how many, or -ENOMEM. */
int s3_chain_new(const struct s3_chain_config *cfg, struct s3_provider *list[S3_CHAIN_MAX]);

#endif
