/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the providers of credentials share. s3_cred_chain.c has their order and profiles that lead
 * to others; s3_cred_http.c one HTTP question; s3_cred_sts.c, s3_cred_sso.c, s3_cred_meta.c and
 * s3_cred_process.c a kind of source each; s3_cred_decode.c what they answer.
 *
 * All functions named s3_from_* block, run on the one thread that loads, and return 0 with keys, or
 * an error with words: -ENOENT: this source is not set up here; -EAGAIN: it does not answer for
 * now; others: it is set up and does not work. Words never hold a secret or a token.
 */
#ifndef ZC_BACKEND_S3_CRED_PRIV_H
#define ZC_BACKEND_S3_CRED_PRIV_H

#include "backend/s3_cred.h"
#include "backend/s3_profile.h"
#include "base/buf.h"
#include "net/net.h"

/* ---- what belongs to all providers of a source ---- */

struct s3_ctx {
    atomic_uint refs; /* one a provider */
    struct zc_net *net;
    char *profile;
    bool named;    /* the profile was asked for by an option or AWS_PROFILE */
    bool explicit; /* by an option: the environment's keys and web identity do not count */
    char *region;  /* option or environment; NULL: the profile's */
    char *ca_bundle;
    struct zc_net_tls tls;
    int64_t skew_ns;  /* STS's clock minus ours, once it has refused a signature for it */
    bool imds_worked; /* it gave keys before: silence is a failure, not "no such thing here" */
    /* An early end. */
    pthread_mutex_t lock;
    pthread_cond_t cond; /* on the monotonic clock */
    bool stop;
    int stop_fd;          /* readable once stop is set */
    struct zc_http *http; /* in flight */
};

struct s3_ctx *s3_ctx_new(const struct s3_chain_config *cfg);
void s3_ctx_unref(struct s3_ctx *x);
/* Ends what is waited for, now and from now on. Any thread. */
void s3_ctx_stop(struct s3_ctx *x);
/* Waits. False: stopped. */
bool s3_pause(struct s3_ctx *x, int64_t ns);

/* ---- one question over HTTP ---- */

#define S3_ASK_MAX ((size_t)256 << 10) /* bytes of an answer */

struct s3_ask {
    const char *method, *url;
    const char *const *headers; /* NULL at the end */
    const char *body;           /* or NULL */
    int64_t timeout_ns;         /* of one attempt */
    unsigned attempts;          /* while nobody answers, or "later" (429, 5xx) */
    bool direct;                /* around proxies */
    /* the answer */
    int status;
    char *text; /* NUL-terminated */
    size_t len;
    int64_t skew_ns; /* the server's clock minus ours, 0 when it does not say or is close */
    char why[256];   /* when there was none */
};

/* 0: an answer with some status. -ECANCELED, or what net.h says. */
int s3_ask(struct s3_ctx *x, struct s3_ask *a);
void s3_ask_free(struct s3_ask *a);
#define zc_autoask __attribute__((cleanup(s3_ask_free)))
static inline bool s3_ask_later(const struct s3_ask *a)
{
    return a->status == 429 || a->status >= 500;
}
/* Words for r < 0 of s3_ask: "NAME at URL does not answer (...)"; -EAGAIN, or -ECANCELED. */
int s3_ask_words(const struct s3_ask *a, int r, const char *name, struct zc_error *why);

/* "http://h:1/" + "/x": without a double slash. Caller frees. */
char *s3_url_join(const char *base, const char *path);
/* Scheme and host ("[::1]" without brackets) of an URL. 0, -EINVAL. */
int s3_url_parts(const char *url, bool *tls, char *host, size_t n);
/* May a container's credentials be asked for at this URL: https, or http that does not leave the
   machine (loopback, or the addresses that ECS and EKS use)? */
bool s3_container_url_ok(const char *url);
/* Could it go into a header line: 1 to max printable ASCII characters without blanks? */
bool s3_token_ok(const char *s, size_t max);
/* Reads a small file that holds a token; blanks around it are cut off. 0, -errno with words. */
int s3_token_file(const char *path, const char *what, char **out, struct zc_error *why);

/* ---- decoders: s3_cred_decode.c ---- */

struct s3_fields {
    char *id, *secret, *token; /* token may be NULL */
    int64_t expires_ns;        /* 0: never */
};

enum s3_answer_kind {
    S3_ANSWER_METADATA,  /* IMDS: with a Code */
    S3_ANSWER_CONTAINER, /* ECS, EKS */
    S3_ANSWER_PROCESS,   /* credential_process, version 1 */
    S3_ANSWER_SSO,       /* GetRoleCredentials */
};

/* -EBADMSG with words, which quote at most an error's own words. */
int s3_decode_json(enum s3_answer_kind kind, const char *p, size_t n, struct s3_fields *out,
                   struct zc_error *why);
/* STS's answer to AssumeRole and AssumeRoleWithWebIdentity. */
int s3_decode_sts(const char *p, size_t n, struct s3_fields *out, struct zc_error *why);
void s3_fields_free(struct s3_fields *f);
/* "code: message" of a JSON answer that is an error; "" when it says nothing. */
void s3_decode_refusal(const char *p, size_t n, char *out, size_t size);
/* RFC 3339, with Z, "UTC" or an offset. -EINVAL. */
int s3_decode_time(const char *s, int64_t *ns);

/* A file of the SSO cache. */
struct s3_sso_token {
    char *access;
    int64_t expires_ns;
    char *client_id, *client_secret, *refresh; /* all or none */
    int64_t registration_ns;                   /* until when the client may refresh */
};
int s3_decode_sso_file(const char *p, size_t n, struct s3_sso_token *out, struct zc_error *why);
/* CreateToken's answer: fields that it does not have are NULL; lifetime in seconds. */
int s3_decode_sso_created(const char *p, size_t n, char **access, char **refresh, int64_t *life_s,
                          struct zc_error *why);
void s3_sso_token_free(struct s3_sso_token *t);

/* Keys of decoded fields; skew_ns is taken off their end. The fields are freed. */
int s3_fields_keys(struct s3_fields *f, int64_t skew_ns, const char *source, struct s3_keys **out,
                   struct zc_error *why);

/* ---- the sources ---- */

int s3_from_web_identity(struct s3_ctx *x, const struct s3_profile *p, const char *role,
                         const char *token_file, const char *session, struct s3_keys **out,
                         struct zc_error *why);
int s3_from_role(struct s3_ctx *x, const struct s3_profile *p, struct s3_keys *source,
                 struct s3_keys **out, struct zc_error *why);
int s3_from_sso(struct s3_ctx *x, const struct s3_profile *p, const char *profile,
                struct s3_keys **out, struct zc_error *why);
int s3_from_process(struct s3_ctx *x, const char *command, const char *profile,
                    struct s3_keys **out, struct zc_error *why);
int s3_from_container(struct s3_ctx *x, struct s3_keys **out, struct zc_error *why);
int s3_from_imds(struct s3_ctx *x, const struct s3_profile *p, struct s3_keys **out,
                 struct zc_error *why);
int s3_from_env(struct s3_keys **out, struct zc_error *why);
/* A profile's aws_access_key_id and so on; -ENOENT when it has none. where: a file, for words. */
int s3_from_static(const struct s3_profile *p, const char *profile, const char *where,
                   struct s3_keys **out, struct zc_error *why);

/* The endpoint of one of AWS's services: environment, profile, or fallback. Caller frees. */
char *s3_service_url(const struct s3_profile *p, const char *env, enum s3_setting setting,
                     const char *fallback);
/* Command line -> words as a shell would cut it, without one. NULL at the end. -EINVAL: an open
   quote. */
int s3_process_split(const char *command, char ***argv);
void s3_process_split_free(char **argv);

/* A number from 0 to n - 1: enough to keep clients from marching in step. */
static inline int64_t s3_jitter(int64_t n)
{
    uint64_t x = (uint64_t)zc_now_ns() * UINT64_C(0x9E3779B97F4A7C15);
    return n > 0 ? (int64_t)((x >> 20) % (uint64_t)n) : 0;
}

#endif
