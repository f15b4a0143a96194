/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket of a daemon: HTTP/1.1 over a Unix socket, JSON bodies.
 *     GET  /v1/status                                -> one JSON object
 *     POST /v1/warm   {"paths":[...],"parallel":N}   -> a JSON line for each step of progress, the
 * last one with "finished":true; hanging up cancels the job
 *     POST /v1/free   {"paths":[...]}                -> one JSON object
 *     GET  /v1/cluster                               -> one JSON object
 *     POST /v1/cluster {"paths":[...]}               -> the same, with what is below the paths
 *     GET  /v1/sources                               -> one JSON object
 *     POST /v1/sources/add    {"path":"/a","source":"s3://b/c","options":{"region":"x"}} -> as
 * above POST /v1/sources/remove {"path":"/a","force":true}                                -> as
 * above Errors: status 400 or 500 and {"error":"words"}. Paths are relative to the mount. The room
 * knows nothing of the file system: it calls back, each call on a thread of its own, and may block.
 */
#ifndef ZC_HTTP_CTL_H
#define ZC_HTTP_CTL_H

#include "base/base.h"
#include "base/error.h"
#include <jansson.h>
#include <sys/types.h>

struct zc_ctl;
struct zc_ctl_source;
struct zc_ctl_body;

struct zc_ctl_ops {
    json_t *(*status)(void *user); /* new reference */
    int (*warm_start)(void *user, const struct zc_ctl_body *req, void **job, struct zc_error *err);
    /* Blocks up to timeout_ms; new reference to an object whose "finished" tells whether it was the
     * last. */
    json_t *(*warm_poll)(void *user, void *job, int timeout_ms);
    void (*warm_end)(void *user, void *job); /* cancels if needed, frees */
    json_t *(*free_paths)(void *user, const struct zc_ctl_body *req, struct zc_error *err);
    /* All nodes of the cluster; req: NULL, or paths to be counted. */
    json_t *(*cluster)(void *user, const struct zc_ctl_body *req, struct zc_error *err);
    json_t *(*source_list)(void *user); /* new reference */
    /* 0 with words in err: they are told, too. */
    int (*source_add)(void *user, const struct zc_ctl_source *req, struct zc_error *err);
    int (*source_remove)(void *user, const struct zc_ctl_source *req, struct zc_error *err);
};

/* Listens on the socket path (made anew, mode 0600; the folder is made 0700 when missing). */
int zc_ctl_new(const char *socket_path, const struct zc_ctl_ops *ops, void *user,
               struct zc_ctl **out, struct zc_error *err);
/* First step of an end, does not wait: takes the socket's name away, so that a new daemon can have
   it, and tells running jobs to end. */
void zc_ctl_stop(struct zc_ctl *c);
/* Waits until running jobs have ended, closes, frees. Also stops what was not stopped. */
void zc_ctl_free(struct zc_ctl *c);

/* Where the daemon of a mount point listens: <run dir>/zcache/<hash of the mount point>.sock, the
   run dir being /run for root, $XDG_RUNTIME_DIR or /tmp/zcache-UID for others. mountpoint:
   absolute, resolved. Caller frees. */
char *zc_ctl_path(const char *mountpoint);
/* The same for a daemon of another user, as far as it can be known: for root, who asks about a
 * user's mount. */
char *zc_ctl_path_of(uid_t uid, const char *mountpoint);

#endif
