/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Asking the other nodes' daemons to do something: JSON out, JSON back, several at a time. How it
 * travels is the peer room's business.
 */
#ifndef ZC_CLI_CALLS_H
#define ZC_CLI_CALLS_H

#include "base/buf.h"
#include "base/error.h"
#include "cluster/cluster.h"

#include <jansson.h>

#define ZC_CALL_BODY_MAX (16 * ZC_MIB)

struct zc_calls {
    struct zc_cluster *cluster;
    /* Blocks for timeout_ms at most. 0 and the answer's bytes in *reply, or negative errno with
       words. */
    int (*ask)(void *user, const struct zc_cluster_node *to, const char *op, const char *body,
               size_t n, int timeout_ms, struct zc_buf *reply, struct zc_error *err);
    void *user;
};

struct zc_call_to {
    struct zc_cluster_node node;
    char *body;          /* JSON; NULL: this one is not asked */
    json_t *reply;       /* an object, NULL on failure; the caller's */
    struct zc_error err; /* why there is none: words begin with the node's name */
};

/* The bytes of an answer. 0 and an object in *out, the caller's; -EBADMSG, or -EREMOTEIO and what
   the node said went wrong. */
int zc_call_reply(const char *p, size_t n, json_t **out, struct zc_error *err);
/* All other nodes in view, not asked yet. Caller frees with zc_calls_free. NULL, *n 0: none, or no
   memory. */
struct zc_call_to *zc_calls_others(const struct zc_calls *c, size_t *n);
void zc_calls_free(struct zc_call_to *to, size_t n);
/* Asks those that have a body, some at a time; returns when all have answered or failed. Bodies are
   freed. */
void zc_calls_run(const struct zc_calls *c, const char *op, int timeout_ms, struct zc_call_to *to,
                  size_t n);

#endif
