/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What nodes tell each other about what they keep, and how the answers of all become one. Both are
 * decoders of what another node sent, and stand alone so that they can be tried without one: any
 * JSON is a question and an answer, numbers may be anything, and what is missing is nothing.
 *
 * Threads: none of this blocks or locks; a tree is used by one thread at a time.
 */
#ifndef ZC_CLI_CLUSTER_STATUS_H
#define ZC_CLI_CLUSTER_STATUS_H

#include "base/base.h"
#include "base/error.h"
#include "cache/cache.h"

#include <jansson.h>

/* ------------------------------------------------------------------ the node that is asked */

/* A source, or a path in it, and what is kept of it (bytes). */
struct zc_kept_of {
    const char *source, *prefix; /* the question's */
    size_t source_len, prefix_len;
    uint64_t bytes, copy_bytes, objects;
};

/* From [{"source","prefix"}...]; NULL is an empty list. 0 and *out, which the caller frees and
   which points into `list`; -EINVAL or -ENOMEM with words. */
int zc_kept_parse(const json_t *list, struct zc_kept_of **out, size_t *n, struct zc_error *err);
bool zc_kept_has(const struct zc_kept_of *of, const struct zc_cache_resident *r);
/* The answer to the list: [{"bytes","copy_bytes","objects"}...]. New reference. */
json_t *zc_kept_json(const struct zc_kept_of *of, size_t n);

/* ------------------------------------------------------------------ the node that asks */

/* What is found out of all nodes: objects that the caller made, and to which each answer adds. */
struct zc_cluster_sums {
    json_t *members; /* the nodes as gossip has them, by "id": each gets its "status" or "error" */
    json_t *total;   /* figures of all */
    json_t *rows;    /* what is shown: objects with "first" and "count" of what was asked for */
};

/* A node's answer (kept by reference), or NULL and why there is none. */
void zc_cluster_sums_add(struct zc_cluster_sums *s, const char *id, json_t *status,
                         const char *error);
/* After the last answer: rows of sources, and of paths that were counted ("bytes"), with the part
   that is kept. */
void zc_cluster_rows_split(json_t *rows, json_t *sources, json_t *paths);
/* A figure of an answer, below `room` unless that is NULL; 0 when it is none, or negative. */
json_int_t zc_cluster_figure(const json_t *v, const char *room, const char *name);

#endif
