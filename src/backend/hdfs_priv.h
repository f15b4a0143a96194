/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the HDFS source share: hdfs.c (op table, listings, attributes), hdfs_get.c
 * (reads), hdfs_namenode.c (one question to the NameNodes), hdfs_nodes.c (DataNodes and where
 * blocks are), hdfs_auth.c (who we are), hdfs_gss.c (Kerberos), hdfs_ids.c (owners), hdfs_worker.c
 * (a thread for calls that block).
 *
 * Locks, none of which is held over a call that blocks: hdfs.lock (what an op has in flight), then
 * hdfs_auth.lock, then hdfs_worker.lock; each alone: hdfs_nodes.lock, hdfs_ids.lock.
 */
#ifndef ZC_BACKEND_HDFS_PRIV_H
#define ZC_BACKEND_HDFS_PRIV_H

#include "backend/hdfs.h"
#include "backend/hdfs_conf.h"
#include "backend/hdfs_json.h"
#include "base/buf.h"
#include "base/list.h"
#include "net/net.h"

#include <pthread.h>
#include <stdatomic.h>

/* Of one NameNode, where there is another to ask. */
#define HDFS_CONNECT_NS (4 * ZC_NS_PER_S)
#define HDFS_STALL_NS (10 * ZC_NS_PER_S)

#define HDFS_ANSWER_MAX ((size_t)64 << 20) /* bytes of a listing */
#define HDFS_SMALL_MAX                                                                             \
    ((size_t)4 << 20) /* bytes of another answer, and of a gateway's piece of a file */

/* ---- a thread for calls that block (name services, Kerberos) ---- */

struct hdfs_worker;
struct hdfs_job {
    struct zc_list link;
    void (*run)(struct hdfs_job *);
};

struct hdfs_worker *hdfs_worker_new(void);
/* run() is called on the worker's thread, one job at a time. -errno when there can be no thread. */
int hdfs_worker_post(struct hdfs_worker *w, struct hdfs_job *job);
/* Runs what is queued, waits for it a moment, and leaves a job that hangs (in a KDC's time-outs) to
   itself: that job must touch nothing that goes away. */
void hdfs_worker_free(struct hdfs_worker *w);

/* ---- owners ---- */

struct hdfs_ids;
struct hdfs_id {
    uint32_t uid, gid; /* ZC_ID_UNSET: no such name here */
};

struct hdfs_ids *hdfs_ids_new(void);
void hdfs_ids_free(struct hdfs_ids *ids);
/* What is remembered; false when the name services must be asked. Names may be NULL. */
bool hdfs_ids_known(struct hdfs_ids *ids, const char *owner, const char *group,
                    struct hdfs_id *out);
/* Asks them: blocks. */
struct hdfs_id hdfs_ids_find(struct hdfs_ids *ids, const char *owner, const char *group);

/* ---- Kerberos ---- */

struct hdfs_login {
    const char *keytab, *principal; /* or NULL */
    const char *cache;              /* name of a ticket cache in memory, used with a keytab */
};
/* The value of an Authorization header for HTTP@host. Blocks on the KDC. With words: -EACCES;
 * -EAGAIN when no KDC answers. Caller frees. */
int hdfs_gss_negotiate(const struct hdfs_login *l, const char *host, char **header,
                       struct zc_error *err);
/* Destroys a ticket cache in memory and what is in it. */
void hdfs_gss_forget(const char *cache);

/* ---- who we are ---- */

struct hdfs;
struct hdfs_auth;

/* Somebody who waits for a token. */
struct hdfs_wait {
    struct zc_list link;
    int64_t until_ns; /* -ETIMEDOUT comes then, give or take a quarter of a second */
    bool queued;
    bool late; /* that is what came: the login goes on */
    /* On the worker's thread or a loop's. */
    void (*done)(struct hdfs_wait *, int err);
};

int hdfs_auth_new(struct hdfs *h, const struct zc_hdfs_config *cfg, struct hdfs_auth **out,
                  struct zc_error *err);
/* Some seconds at most, when a KDC or NameNode hangs. */
void hdfs_auth_free(struct hdfs_auth *a);
/* Adds "&user.name=..." or "&delegation=..." to an URL: 1, and *gen names the token. 0: one has to
   be obtained first; w->done() comes, at w->until_ns at the latest. -errno. */
int hdfs_auth_query(struct hdfs_auth *a, struct zc_buf *url, struct hdfs_wait *w, uint64_t *gen);
/* The server did not take what hdfs_auth_query gave as `gen`: a token will not be given again.
   negotiate: it offers a login by Kerberos. false: there is nothing else to give. */
bool hdfs_auth_refused(struct hdfs_auth *a, uint64_t gen, bool negotiate);
/* If it waits: done() comes with -ECANCELED on that lane's loop, and not from here. It waits on
   when there is no memory for that. The caller may hold hdfs.lock. */
void hdfs_auth_cancel(struct hdfs_auth *a, struct hdfs_wait *w, unsigned lane);
/* Words of the last login that failed; to w (or NULL), if it was sent off, of the one that goes on.
 */
void hdfs_auth_why(struct hdfs_auth *a, const struct hdfs_wait *w, struct zc_error *out);

/* ---- DataNodes and blocks ---- */

struct hdfs_nodes;

struct hdfs_dn {
    char *authority; /* "host:port" */
    _Atomic int64_t bad_until_ns;
    atomic_uint fails; /* in a row */
};

struct hdfs_key { /* a version of a file */
    uint64_t inode, length;
    int64_t mtime_ms;
};

struct hdfs_nodes *hdfs_nodes_new(void);
void hdfs_nodes_free(struct hdfs_nodes *n);
/* Calls fn for each, under the lock. */
void hdfs_nodes_each(struct hdfs_nodes *n, zc_hdfs_node_fn *fn, void *arg);
/* The node of an authority; lives as long as the source. NULL when memory is short. */
struct hdfs_dn *hdfs_node(struct hdfs_nodes *n, const char *authority, size_t len);
void hdfs_node_good(struct hdfs_dn *dn);
void hdfs_node_bad(struct hdfs_dn *dn);
bool hdfs_node_is_bad(const struct hdfs_dn *dn);
/* Block locations: which part of a file is asked for at once, around off. */
void hdfs_blocks_window(uint64_t off, uint64_t length, uint64_t *from, uint64_t *len);
/* Remembers the answer about the window around off. -errno; -ESTALE when the file has another
 * length. */
int hdfs_blocks_put(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off, bool tls,
                    const char *json, size_t len);
/* Forgets a file's. */
void hdfs_blocks_drop(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off);
/* A node that has the byte at off: a good one, else a bad one, never one of avoid[]. NULL: none.
 *known: the block is remembered. */
struct hdfs_dn *hdfs_blocks_pick(struct hdfs_nodes *n, const struct hdfs_key *key, uint64_t off,
                                 unsigned turn, struct hdfs_dn *const *avoid, size_t n_avoid,
                                 bool *known);

/* ---- the source ---- */

struct hdfs {
    struct zc_backend be;
    struct zc_backend_stats stats;
    struct zc_net *net;
    struct zc_net_tls tls;
    char *ca_bundle;
    struct hdfs_target target;
    char *root;           /* "" or "/a/b", as it is */
    atomic_uint active;   /* the NameNode that answered last */
    atomic_uint turn;     /* spreads reads over replicas */
    atomic_bool gateway;  /* HttpFS: OPEN answers with the data */
    atomic_bool no_batch; /* LISTSTATUS_BATCH is not to be had */
    atomic_bool refused;  /* the last question failed because of who asks */
    int64_t probe_ns;
    struct hdfs_worker *worker; /* listings and owners; hdfs_auth has its own */
    struct hdfs_ids *ids;
    struct hdfs_auth *auth;
    struct hdfs_nodes *nodes;
    pthread_mutex_t rpc_lock;
    char
        *rpc; /* namenoderpcaddress, as redirects carry it, percent-encoded; NULL until the first */

    pthread_mutex_t lock; /* priv[0] of requests, hdfs_op.http, entering a wait for credentials */
};

struct hdfs_op;

/* One question to the NameNodes: asked of one after the other until one answers. */
struct hdfs_call {
    const char *method, *op;
    char *path; /* after /webhdfs/v1, percent-encoded; owned */
    char *args; /* "&name=value..." or NULL; owned */
    size_t max; /* bytes of the answer */
    uint64_t expect;
    _Atomic uint64_t *counter;
    /* err 0: status is 200, 201 or 307, body what came with it. */
    void (*done)(struct hdfs_op *, int err);

    int status;
    struct zc_buf body;
    char *location;
    struct hdfs_fault fault; /* of the last answer that was none */

    struct zc_http http;
    struct zc_buf url;
    unsigned nn, tried, auth_tries;
    bool negotiate; /* the last answer offered a login by Kerberos */
    uint64_t gen;
    int worst;          /* what to say when all have failed */
    struct zc_buf said; /* what each of them said */
};

/* A request on its way. One HTTP request at a time. */
struct hdfs_op {
    struct hdfs *h;
    struct zc_req *base;
    const char *path;                          /* of the request, for words */
    void (*finish)(struct hdfs_op *, int err); /* frees the op */
    void (*resume)(struct hdfs_op *, int err); /* after a wait for credentials */
    unsigned lane;
    int64_t deadline_ns;  /* the request's; without one, how long it may go on standing still */
    struct zc_http *http; /* in flight; under h->lock */
    struct hdfs_wait wait;
    struct hdfs_call call;
};

void hdfs_op_init(struct hdfs_op *op, struct hdfs *h, struct zc_req *base, const char *path,
                  unsigned lane);
void hdfs_op_fini(struct hdfs_op *op);
/* Bytes came: it may stand still from now on. */
void hdfs_op_moved(struct hdfs_op *op);
/* How long one HTTP request of it may: most_ns, or what is left. */
int64_t hdfs_op_stall_ns(const struct hdfs_op *op, int64_t most_ns);
/* The request is its caller's again after this. */
void hdfs_op_leave(struct hdfs_op *op);
void hdfs_op_cancel(struct hdfs *h, struct zc_req *base);
bool hdfs_op_cancelled(const struct hdfs_op *op);
/* Starts op->http; its done() must begin with hdfs_op_ended. */
int hdfs_op_start(struct hdfs_op *op, struct zc_http *http);
void hdfs_op_ended(struct hdfs_op *op);
/* hdfs_auth_query for this op: 1, or 0 and op->resume() comes, or -errno. */
int hdfs_op_auth(struct hdfs_op *op, struct zc_buf *url, uint64_t *gen);
/* Words for a failure, unless there are some. Returns err. */
int hdfs_op_fail(struct hdfs_op *op, int err, const char *text);

/* Asks. The call's path and args are taken over. done() may come before this returns. */
void hdfs_call_start(struct hdfs_op *op, const char *name, char *path, char *args, size_t max,
                     _Atomic uint64_t *counter, void (*done)(struct hdfs_op *, int err));

/* "/a/b" of the source as the path of an URL. NULL when memory is short. */
char *hdfs_path(const struct hdfs *h, const char *path);
char *hdfs_inode_path(uint64_t inode);
/* "fileId:mtime:length" */
#define HDFS_VERSION_BYTES 64
void hdfs_version(const struct hdfs_file *f, char out[HDFS_VERSION_BYTES]);
int hdfs_version_parse(const char *s, struct hdfs_key *out);
/* Host and port of a Location, and its namenoderpcaddress (as it stands there; may be NULL).
   Pointers into it. -EBADMSG. */
int hdfs_location(const char *location, bool tls, const char **authority, size_t *len,
                  const char **rpc, size_t *rpc_len);

void hdfs_get(struct hdfs *h, struct zc_get_req *req);

#endif
