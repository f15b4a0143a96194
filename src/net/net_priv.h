/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the room share: net.c (the API), loop.c (a loop's thread), transfer.c (one
 * request on one curl handle).
 *
 * No locks: other threads reach a loop through its queue of posts only; all else belongs to the
 * loop's thread.
 */
#ifndef ZC_NET_PRIV_H
#define ZC_NET_PRIV_H

#include "base/list.h"
#include "net/net.h"
#include "net/timers.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdatomic.h>

#define NET_SWEEP_NS (100 * ZC_NS_PER_MS) /* how often stalls and deadlines are looked for */
#define NET_IDLE_MAX 128                  /* curl handles that a loop keeps for the next requests */
#define NET_HEADERS 24 /* request header lines that need no memory of their own */

enum net_post_kind { NET_POST_START, NET_POST_CANCEL, NET_POST_TIMER };

/* A message to a loop, embedded in what it is about. */
struct net_post {
    struct net_post *next;
    enum net_post_kind kind;
};

struct net_timer_post {
    struct net_post post;
    struct net_timer timer;
};

/* A curl handle with the options that no request changes; pooled by its loop. */
struct net_easy {
    struct zc_list link; /* loop->idle */
    CURL *curl;
    struct zc_http_priv *p; /* the request it serves, or NULL */
    char err[CURL_ERROR_SIZE];
    /* What was set last, so that equal options are not set again. */
    const char *method; /* points to a literal, or "" for any other method */
    long buffer, connect_ms;
    bool verbose;
    bool direct;
    bool ca_changed;        /* ca_bundle of a request is set */
    bool tls_changed;       /* what only some requests have: texts, pin, version */
    const char *ca_default; /* what curl was built with */
    const char *ca_path_default;
};

struct zc_http_priv {
    struct net_post start, cancel;
    atomic_uint refs; /* the request itself until done() returned, and a cancel that is queued */
    atomic_bool cancel_posted;
    struct net_loop *loop;
    /* The rest belongs to the loop. */
    struct zc_http *req;   /* NULL once done() was called */
    struct zc_list link;   /* loop->active or loop->waiting */
    struct net_easy *easy; /* while active */
    bool cancelled;
    int err;             /* what ends it early: from data(), a stall, a deadline */
    int64_t progress_ns; /* when bytes moved last; while it waits: when it came */
    size_t sent;         /* of the request's body */
    uint64_t received;   /* of the response's body */
    bool plain;          /* body bytes come as they are on the wire: length known, not chunked */
    const char *block;   /* what curl has received and will hand over next, in pieces */
    size_t block_len;
    const char *ahead; /* of that, what data() has had already */
    size_t ahead_len;
    struct curl_slist headers[NET_HEADERS];
    struct curl_slist *more; /* headers when they are more */
};

struct net_sock {
    bool ours;              /* opened by our callback, so that we learn of its end too */
    unsigned char in_epoll; /* events that epoll watches */
    unsigned char wanted;   /* events that curl wants */
};

struct net_loop {
    struct zc_net *net;
    pthread_t thread;
    int epfd, evfd;
    int schedfd;                      /* of the thread; -1: the kernel does not count */
    _Atomic(struct net_post *) posts; /* newest first; &net_sealed at the end */
    CURLM *multi;
    CURLSH *share;
    int64_t now_ns;
    int64_t curl_at_ns; /* when curl wants to be called; INT64_MAX: not at all */
    int64_t moved_ns;   /* when bytes of any request moved last */
    int64_t sweep_ns;   /* next look for stalls */
    struct net_timers timers;
    struct zc_list active, waiting, idle;
    unsigned n_active, n_idle;
    struct net_sock *socks; /* by descriptor */
    size_t n_socks;
};

struct zc_net {
    unsigned n_loops;
    unsigned per_loop; /* connections */
    atomic_bool closing;
    struct net_loop loops[];
};

/* loop.c */
int net_loop_init(struct net_loop *l, struct zc_net *net);
int net_loop_start(struct net_loop *l);
void net_loop_wake(struct net_loop *l);
/* 0, or -ESHUTDOWN when the loop has ended: the post was not taken. */
int net_loop_post(struct net_loop *l, struct net_post *post);
/* Frees what a loop that never started or whose thread was joined holds. */
void net_loop_fini(struct net_loop *l);
int64_t net_loop_starved_ns(struct net_loop *l);
/* For curl: a socket of this loop was opened, is to be closed. */
curl_socket_t net_loop_open_socket(void *loop, curlsocktype purpose, struct curl_sockaddr *addr);
int net_loop_close_socket(void *loop, curl_socket_t fd);

/* transfer.c */
/* Hands the request to curl; 0, or -errno (then the request is still waiting for its done()). */
int net_transfer_start(struct net_loop *l, struct zc_http_priv *p);
/* Takes it from curl again. result: what curl said. Returns done()'s err. */
int net_transfer_end(struct net_loop *l, struct zc_http_priv *p, CURLcode result);
struct net_easy *net_easy_new(struct net_loop *l);
void net_easy_free(struct net_easy *e);
void net_priv_unref(struct zc_http_priv *p);

#endif
