/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warming on all nodes: each fetches what it owns. One node is asked by the command; it does its
 * own part and has the others do theirs.
 *
 * Between nodes a job is four questions: warm-start {"paths","parallel"} -> {"job"}, warm-poll
 * {"job"} -> figures, warm-end {"job"}. A job whose asker is silent for a minute is ended.
 */
#ifndef ZC_CLI_CLUSTER_WARM_H
#define ZC_CLI_CLUSTER_WARM_H

#include "cli/calls.h"
#include "vfs/vfs.h"

/* ------------------------------------------------------------------ the asking side */

struct zc_cluster_warm;
/* take_own: this node's part, ended with the job. Asks the others to begin: blocks some seconds at
   most. */
int zc_cluster_warm_start(const struct zc_calls *calls, struct zc_warm *take_own,
                          const char *const *paths, size_t n, unsigned parallel,
                          struct zc_cluster_warm **out);
/* As zc_warm_poll, of all nodes together. A node that stops answering counts as a failure. */
void zc_cluster_warm_poll(struct zc_cluster_warm *w, int timeout_ms, struct zc_warm_stats *out);
void zc_cluster_warm_end(struct zc_cluster_warm *w);

/* The figures as JSON and back. */
json_t *zc_warm_json(const struct zc_warm_stats *s);
void zc_warm_unjson(const json_t *v, struct zc_warm_stats *out);

/* ------------------------------------------------------------------ the asked side */

struct zc_warm_jobs;
struct zc_warm_jobs *zc_warm_jobs_new(void);
/* Ends all. Nobody may be in a call. */
void zc_warm_jobs_free(struct zc_warm_jobs *j);
/* Keeps a job for its asker; {"job": ...}, or NULL without memory, the job ended. */
json_t *zc_warm_jobs_add(struct zc_warm_jobs *j, struct zc_warm *take);
/* {"job"} -> figures. NULL with words: there is none of that name. */
json_t *zc_warm_jobs_poll(struct zc_warm_jobs *j, const json_t *req, struct zc_error *err);
json_t *zc_warm_jobs_end(struct zc_warm_jobs *j, const json_t *req, struct zc_error *err);

#endif
