/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon as a node of a cluster: it begins and ends here, asks the other nodes' daemons, and
   answers theirs. */
#ifndef ZC_CLI_DAEMON_CLUSTER_H
#define ZC_CLI_DAEMON_CLUSTER_H

#include "cli/cluster_warm.h"
#include "cli/daemon_int.h"

/* With --join or --bind; after the cache and fetch are there. */
int zc_daemon_cluster_start(struct zc_daemon *d, struct zc_error *err);
/* All rooms are there: the others' questions are answered from now on. */
void zc_daemon_cluster_ready(struct zc_daemon *d);
/* Owns nothing any more; true when it is worth waiting for others. */
bool zc_daemon_cluster_drain(struct zc_daemon *d);
/* After the file system was shut down: nobody waits for the others any more. */
void zc_daemon_cluster_hang_up(struct zc_daemon *d);
/* The others' questions are refused, and what they had begun here ends: before the file system is
   freed. */
void zc_daemon_cluster_stop(struct zc_daemon *d);
void zc_daemon_cluster_free(struct zc_daemon *d);

/* Who asks the others. False when this is no node. */
bool zc_daemon_calls(struct zc_daemon *d, struct zc_calls *out);
/* Which pieces of files this node fetches when all share the work. */
struct zc_warm_part zc_daemon_part(struct zc_daemon *d);

/* "cluster" of the status: this node and who it sees. NULL when this is no node. */
json_t *zc_daemon_cluster_json(struct zc_daemon *d);
/* Of all nodes; req: paths to be counted, or NULL. NULL with words. */
json_t *zc_daemon_cluster_all(struct zc_daemon *d, const struct zc_ctl_body *req,
                              struct zc_error *err);
/* Has the others free, too, and adds what they did. -errno with words of the first that did not. */
int zc_daemon_free_others(struct zc_daemon *d, const struct zc_ctl_body *req,
                          struct zc_free_stats *s, struct zc_error *err);
/* What another node asks. Always leaves a JSON object in *reply; 0 or negative errno. */
int zc_daemon_answer(struct zc_daemon *d, const char *op, const char *body, size_t n,
                     struct zc_buf *reply);

#endif
