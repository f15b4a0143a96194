/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the S3 source share: s3.c (set-up, places, probe), s3_call.c (one signed HTTP
 * request), s3_words.c (what a failure means), s3_get.c, s3_stat.c and s3_list.c (the operations,
 * made of calls).
 *
 * Lock: s3->lock, for the calls in flight (cancel) and for the place; not held over a callback.
 */
#ifndef ZC_BACKEND_S3_PRIV_H
#define ZC_BACKEND_S3_PRIV_H

#include "backend/s3.h"
#include "backend/s3_cred.h"
#include "backend/s3_text.h"
#include "backend/s3_xml.h"
#include "net/net.h"

#include <stdatomic.h>

#define S3_HEADERS 12
#define S3_ERROR_BODY ((size_t)64 << 10)

/* Where requests go. Never changed: another region or style makes a new one. */
struct s3_place {
    struct s3_place *older; /* kept until the source ends: requests may still look at it */
    char *region;
    char *base;    /* "https://host:port" and "/bucket" in path style; keys follow after '/' */
    char *path;    /* the part of base that is path: "" or "/bucket" */
    char *host;    /* as the Host header has it */
    char *service; /* the endpoint without the bucket, for words */
    bool path_style;
};

struct s3 {
    struct zc_backend be;
    struct zc_backend_stats stats;
    struct zc_net *net;
    char *bucket;
    char *prefix;   /* "" or "a/b/" */
    char *endpoint; /* scheme://host[:port] as given, or NULL for AWS's */
    char *owner;    /* expected bucket owner, or NULL */
    char *ca_bundle;
    bool anonymous, requester_pays;
    unsigned max_attempts; /* 0: not said */
    int64_t probe_ns;
    struct zc_net_tls tls;
    struct s3_creds *creds;
    _Atomic(struct s3_place *) place;
    _Atomic int64_t skew_ns; /* the store's clock minus ours */
    atomic_uint lane;        /* for requests that name none */
    pthread_mutex_t lock;
    char refused[64]; /* the last refusal's code; under the lock */
};

/* What response headers said; empty when they said nothing. */
struct s3_answer {
    char etag[ZC_VERSION_MAX + 1];
    char region[64]; /* x-amz-bucket-region */
    char content_range[96];
    int64_t modified_ns; /* 0: not said */
    int64_t date_ns;     /* 0: not said */
};

enum s3_fix {
    S3_FIX_CLOCK = 1,
    S3_FIX_REGION = 2,
    S3_FIX_KEYS = 4,  /* were refused: newer ones */
    S3_FIX_AHEAD = 8, /* had expired before they were sent: newer ones */
};

/* One request to the store, sent again when something can be mended (clock, region, keys). Embedded
 * in an operation. */
struct s3_call {
    /* --- set by the operation --- */
    struct s3 *s3;
    const char *method;   /* a literal */
    const char *key;      /* object, or NULL: the bucket itself */
    const char *query;    /* canonical, or NULL */
    uint64_t off, len;    /* len > 0: a range */
    const char *if_match; /* ETag, or NULL */
    int64_t unmodified_s; /* If-Unmodified-Since, or 0 */
    uint64_t expect;
    unsigned lane;
    struct zc_req *req; /* cancelled, deadline, words */
    /* Body bytes of a 2xx answer. Negative: stops the call with this error, and the words are the
     * operation's. */
    int (*data)(struct s3_call *, const void *p, size_t n);
    /* err 0: a 2xx answer came whole; else as in backend.h, with words in `words`. */
    void (*done)(struct s3_call *, int err);

    /* --- readable in the callbacks --- */
    struct zc_http http;
    struct s3_answer answer;
    struct zc_error words;
    struct s3_xml_error xml; /* what the body of a refusal said */

    /* --- private --- */
    struct zc_buf text; /* URL and header lines */
    struct zc_buf body; /* of a refusal */
    const char *headers[S3_HEADERS + 1];
    struct s3_keys *keys; /* it was signed with */
    const struct s3_place *place;
    int64_t skew_ns;  /* of the clock that it was signed by */
    unsigned fixes;   /* what was mended already */
    int stopped;      /* what data() said */
    bool active;      /* in the net room's hands; under s3->lock */
    bool waiting;     /* for newer keys; under s3->lock */
    int64_t until_ns; /* no longer than that */
};

/* s3_call.c */
/* Ends in done(), perhaps before it returns. */
void s3_call_start(struct s3_call *c);
/* Under s3->lock. */
void s3_call_cancel(struct s3_call *c);
/* Frees what the call holds; after done(). */
void s3_call_free(struct s3_call *c);
static inline bool s3_ok(int status)
{
    return status == 200 || status == 206 || status == 204;
}

/* s3_words.c */
/* The errno of a refusal, or of a failure below HTTP (net_err < 0), with words for a person. */
int s3_words(struct s3_call *c, int net_err);
/* What the store thinks is wrong: the code of its answer's body, or what the status means without
 * one. */
const char *s3_words_code(const struct s3_call *c);

/* s3.c */
/* The key of a path: the prefix and it. Caller frees. */
char *s3_key(const struct s3 *s, const char *path);
/* Goes on in another region or style. 0 or -ENOMEM. */
int s3_move(struct s3 *s, const char *region, bool path_style);

/* The operations. */
void s3_op_get(struct zc_backend *be, struct zc_get_req *req);
void s3_op_stat(struct zc_backend *be, struct zc_stat_req *req);
void s3_op_list(struct zc_backend *be, struct zc_list_req *req);

/* An operation in req->priv: its calls, for cancel. */
struct s3_op {
    unsigned n;
    struct s3_call *calls[2];
};
/* Before the first call of an operation, and before its request's done(). */
void s3_op_begin(struct s3 *s, struct zc_req *req, struct s3_op *op);
void s3_op_end(struct s3 *s, struct zc_req *req, int err);

#endif
