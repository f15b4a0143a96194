/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The network room: a few event loops, each a thread with one curl multi handle on epoll, and the
 * timers that go with them. Everything that speaks HTTP to stores and peers goes through here.
 *
 * Threads: zc_net_start, zc_net_post and zc_net_timer may be called from any thread. The callbacks
 * of one request or timer all run on the loop it was given to, one at a time, and must not block on
 * the network or on another request; they may write to a local file.
 */
#ifndef ZC_NET_H
#define ZC_NET_H

#include "base/base.h"
#include "base/error.h"

struct zc_net;

struct zc_net_config {
    unsigned loops;       /* threads; 0 = one for each core, 4 at most */
    unsigned connections; /* keep-alive connections held over all loops; 0 = 256 */
};

int zc_net_new(const struct zc_net_config *cfg, struct zc_net **out);
/* What is in flight ends with -ECANCELED, what is started later with -ESHUTDOWN. From any thread;
   does not wait. zc_net_free is still due. */
void zc_net_stop(struct zc_net *net);
/* Cancels what is in flight (their done callbacks run with -ECANCELED), joins the threads, frees.
 */
void zc_net_free(struct zc_net *net);
unsigned zc_net_loops(const struct zc_net *net);

/* What is the same for all requests to one store: made once, shared, freed after its last request.
   A connection is only used again by requests for which all of it has the same content. */
struct zc_net_tls {
    const char *ca_bundle;   /* file of PEM certificates, or NULL for the system's */
    const char *client_cert; /* PEM, or NULL */
    const char *client_key;
    /* The same three as PEM texts: each goes before its file, and with ca_pem nobody else is
       trusted. Needed until the request's done(). */
    const char *ca_pem, *cert_pem, *key_pem;
    const char *pinned; /* "sha256//BASE64": of the server's public key; NULL: any */
    bool tls13;         /* nothing older than TLS 1.3 */
    bool no_name;       /* whoever has a certificate that is trusted, whatever it is called */
    bool no_verify;
};

struct zc_http {
    /* --- set by the caller before zc_net_start; strings live until done() --- */
    const char *method; /* "GET", "HEAD", ... */
    const char *url;
    const char *const *headers;   /* "Name: value" lines, NULL at the end; may be NULL */
    const struct zc_net_tls *tls; /* may be NULL */
    const void *body;             /* request body or NULL */
    size_t body_len;
    uint64_t expect; /* bytes of the response's body, about; 0 = few. Sizes buffers, no more */
    int64_t connect_timeout_ns; /* 0 = 10 s */
    int64_t stall_ns;           /* give up when no byte came for so long, or while it waits for a
                                   connection, none on the loop; 0 = 15 s */
    int64_t deadline_ns;        /* zc_now_ns() value by which the request must be done; 0 = none */
    bool direct;                /* never by a proxy, whatever the environment says */
    unsigned loop;              /* which loop; taken modulo the number of loops */

    /* A response header line, without CR LF; the status line comes first. May be NULL. */
    void (*header)(struct zc_http *, const char *line, size_t n);
    /* Body bytes as they arrive. 0 to go on, negative errno to stop (done() then gets it). May be
     * NULL. */
    int (*data)(struct zc_http *, const void *p, size_t n);
    /* Last call, exactly once, after which the request belongs to its caller again.
       err: 0 when a complete response arrived (whatever its status); -ECANCELED; -ETIMEDOUT;
       -ECONNREFUSED, -ECONNRESET (also: body shorter than announced), -EHOSTUNREACH (name does not
       resolve), -EPROTO (TLS; `why` tells), -EBADMSG (not an HTTP answer), -ENOMEM, or what data()
       returned. */
    void (*done)(struct zc_http *, int err);
    void *user;

    /* --- readable in the callbacks --- */
    int status;             /* HTTP status; 0 until there is one */
    int64_t content_length; /* -1 when not announced */
    char why[256];          /* curl's words for err */

    /* --- private to the room --- */
    struct zc_http_priv *priv;
};

/* Never blocks. -ENOMEM, or -ESHUTDOWN after zc_net_free began (done() is then not called). */
int zc_net_start(struct zc_net *net, struct zc_http *req);
/* Asks for an early end; done() still comes, on the loop, with -ECANCELED unless it was done
   already. Must not be called after done() has run. */
void zc_net_cancel(struct zc_net *net, struct zc_http *req);

/* Runs fn(arg) on loop `loop` after delay_ns (0: as soon as the loop turns). fn also runs, with
   cancelled = true, when the net is freed first. -ENOMEM or -ESHUTDOWN: fn will not run. */
typedef void zc_net_fn(void *arg, bool cancelled);
int zc_net_timer(struct zc_net *net, unsigned loop, int64_t delay_ns, zc_net_fn *fn, void *arg);

/* How long the thread of this loop was ready to run while no processor was free for it, since it
   began, by the kernel's own count (/proc/PID/task/TID/schedstat); 0 where the kernel does not
   count. On that loop's thread only. */
int64_t zc_net_starved_ns(struct zc_net *net, unsigned loop);

/* Runs a request to its end and gives the body (NUL-terminated, caller frees; max bytes at the
   most). For small control operations; must not be called on a loop's thread. */
int zc_net_wait(struct zc_net *net, struct zc_http *req, size_t max, char **body, size_t *len);

#endif
