/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source: one mounted store prefix behind one op table. S3, HDFS, local directories, and the
 * wrappers (retry, limit, fault) all fill in the same table, so that a wrapper is a backend that
 * holds another. Callers go through the zc_backend_* doorways below, which check what they pass.
 *
 * Paths are relative to the source's root: UTF-8, no leading or trailing '/', "" is the root
 * itself.
 *
 * All data operations are asynchronous: submission never blocks and may come from any thread; the
 * callbacks of one request run one at a time on a thread of the backend's choosing (a network loop
 * or an I/O worker) and must not block on another request. A request struct belongs to the backend
 * from submission until its done() is entered. done() is called exactly once, also after a cancel,
 * and may run before the submitting call returns.
 *
 * Errors are negative errnos:
 *   -ENOENT    no such object        -ESTALE   the object is no longer the pinned version
 *   -EACCES    the store refuses     -ENOTDIR, -EISDIR as in POSIX
 *   -ETIMEDOUT, -ECONNREFUSED, -ECONNRESET, -EHOSTUNREACH, -EPROTO: the network, see net/net.h
 *   -EAGAIN    the store asks to slow down or is not ready (503, SlowDown, 5xx)
 *   -EBADMSG   an answer that cannot be understood
 *   -EIO       anything else         -ECANCELED after a cancel
 */
#ifndef ZC_BACKEND_H
#define ZC_BACKEND_H

#include "base/base.h"
#include "base/error.h"

struct zc_backend;

#define ZC_VERSION_MAX 255 /* bytes of a version token */
#define ZC_LAYERS 5        /* a store and what is wrapped around it */
#define ZC_ID_UNSET ((uint32_t)-1)

enum zc_kind { ZC_KIND_FILE, ZC_KIND_DIR };

struct zc_attr {
    enum zc_kind kind;
    uint64_t size;     /* bytes; 0 for a directory */
    int64_t mtime_ns;  /* since the epoch; 0 when the store has none (directories on S3) */
    uint32_t mode;     /* permission bits, or ZC_ID_UNSET when the store has none */
    uint32_t uid, gid; /* or ZC_ID_UNSET */
    /* What proves that the object is unchanged, as text that the backend alone understands and that
       get() takes back. Two equal tokens of one path mean equal bytes. "" for a directory. Lives as
       long as the callback that passes it. */
    const char *version;
};

struct zc_entry {
    const char *name; /* one path component, NUL-terminated, 1 to 255 bytes, never "." or ".." */
    struct zc_attr attr;
};

/* Who waits for it: higher ones overtake in the queue of a source's limit. */
enum zc_prio { ZC_PRIO_DEMAND, ZC_PRIO_AHEAD, ZC_PRIO_WARM, ZC_PRIO_N };

/* Fields that every request has. */
struct zc_req {
    enum zc_prio prio;
    int64_t deadline_ns; /* zc_now_ns() value; 0: none */
    int64_t stall_ns;    /* ends with -ETIMEDOUT when it stood still for so long: no byte came, and
                            while it waits for its turn none for any other; 0: the source's own */
    int64_t begun_ns;    /* set by a limit: since when it may stand still, by zc_now_ns() */
    _Atomic bool cancelled; /* set by zc_backend_cancel */
    struct zc_error err;    /* words for a failure, valid in done() */
    void *user;             /* the caller's */
    void *priv[ZC_LAYERS];  /* one for each layer of wrappers, NULL at submission: [0] innermost */
};

/* One page of a directory's direct children, in the store's order. */
struct zc_list_req {
    struct zc_req base;
    const char *path;  /* directory */
    const char *token; /* NULL for the first page, else next_token of the page before */
    unsigned max;      /* entries wanted at the most; 0 = the store's page size */
    /* err 0: n entries, valid during the call; next_token NULL after the last page. `skipped`
       counts names that no path can show. A directory that does not exist: -ENOENT from stores that
       know, an empty page from S3. */
    void (*done)(struct zc_list_req *, int err, const struct zc_entry *entries, size_t n,
                 const char *next_token, unsigned skipped);
};

struct zc_stat_req {
    struct zc_req base;
    const char *path;
    bool unasked; /* set by the source: the answer needed no question to the store, so that it says
                     nothing of its health */
    void (*done)(struct zc_stat_req *, int err, const struct zc_attr *attr);
};

/* Who fetches the bytes of a get at the moment. */
enum zc_abroad {
    ZC_ABROAD_NO,    /* this node */
    ZC_ABROAD_OWNER, /* the node that owns them */
    ZC_ABROAD_OTHER  /* one that has them from the owner itself */
};

/* Bytes [off, off + len) of one version of an object. */
struct zc_get_req {
    struct zc_req base;
    const char *path;
    const char *version; /* pinned: an object that is not this version ends in -ESTALE, whatever
                            came before */
    uint64_t off, len;   /* len > 0, off + len <= the size that came with the version */
    unsigned lane;       /* requests with an equal lane may share a loop or connection */
    /* For a source whose bytes other nodes may have (peer/peer.h); stores take no notice. */
    uint64_t size; /* of the object at this version */
    bool owner;   /* another node takes this one for the owner: not to be asked of an owner again */
    bool exact;   /* of a random reader: the bytes around are not likely to be wanted */
    bool replica; /* another node takes this one for a replica: to be had from the owner itself */
    _Atomic unsigned char abroad; /* enum zc_abroad, set by the source */
    /* Bytes in order, each exactly once also over retries. 0, or a negative errno to stop. */
    int (*data)(struct zc_get_req *, const void *p, size_t n);
    /* err 0: all len bytes were passed to data(). */
    void (*done)(struct zc_get_req *, int err);
};

/* Counters of one source; updated atomically, read at any time. */
struct zc_backend_stats {
    _Atomic uint64_t gets, lists, heads,
        others;                       /* requests that left this node, retries included */
    _Atomic uint64_t retries, errors; /* errors: requests that failed for good */
    _Atomic uint64_t bytes;           /* body bytes received by gets */
    _Atomic uint64_t in_flight;
};

struct zc_backend_ops {
    const char *name; /* "s3", "file", ... */
    /* First real answer of the source, with words for a person on failure. Blocks; required. */
    int (*probe)(struct zc_backend *, struct zc_error *);
    void (*list)(struct zc_backend *, struct zc_list_req *); /* required */
    void (*stat)(struct zc_backend *, struct zc_stat_req *); /* required */
    void (*get)(struct zc_backend *, struct zc_get_req *);   /* required */
    /* Ends a request early where that helps; the flag in the request is already set. Optional. */
    void (*cancel)(struct zc_backend *, struct zc_req *);
    /* Nothing is in flight any more. Wrappers free what they hold. Required. */
    void (*free)(struct zc_backend *);
};

/* Every backend embeds this as its first member. */
struct zc_backend {
    const struct zc_backend_ops *ops;
    char *url;           /* canonical source, e.g. "s3://bucket/prefix"; identity of its data */
    uint64_t part_size;  /* bytes a get should ask for at least when reading ahead */
    bool empty;          /* the probe saw nothing at all, where a mistyped name looks like that */
    uint64_t cut;        /* a get need not cross multiples of it; 0: it may */
    unsigned part_limit; /* gets in flight that the source stands */
    struct zc_backend_stats *stats; /* shared by a backend and its wrappers */
    unsigned layer; /* wrappers below this one, 0 for a store: its slot in zc_req.priv */
};

/* The doorways. They check arguments with assert, and that a deadline has not passed and nobody
 * cancelled. */
int zc_backend_probe(struct zc_backend *, struct zc_error *);
void zc_backend_list(struct zc_backend *, struct zc_list_req *);
void zc_backend_stat(struct zc_backend *, struct zc_stat_req *);
void zc_backend_get(struct zc_backend *, struct zc_get_req *);
/* From any thread, from before submission until done() returns (the caller sees to it that the
   request is not freed meanwhile). Calls no callback on this thread, so that locks which done()
   takes may be held. */
void zc_backend_cancel(struct zc_backend *, struct zc_req *);
void zc_backend_free(struct zc_backend *);

#endif
