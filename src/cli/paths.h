/* SPDX-License-Identifier: Apache-2.0 */
/* Paths for warm and free, from arguments or a list, sorted by mount into requests of bounded size.
 */
#ifndef ZC_CLI_PATHS_H
#define ZC_CLI_PATHS_H

#include "base/buf.h"
#include "cli/mntinfo.h"

#include <stdio.h>

/* One mount and what was named below it. */
struct zc_path_group {
    const struct zc_mnt *mnt;
    char *socket;
    char **bodies; /* JSON requests, each of at most ZC_PATHS_BODY bytes */
    size_t n_bodies;
    struct zc_buf open; /* the body being filled */
    size_t open_n;
};

struct zc_paths {
    struct zc_mnts mnts;
    struct zc_path_group *groups;
    size_t n;
    unsigned parallel; /* written into the requests when not 0 */
    bool cluster;      /* written into the requests */
};

#define ZC_PATHS_BODY (8 * ZC_MIB)

int zc_paths_init(struct zc_paths *p, unsigned parallel, bool cluster, struct zc_error *err);
/* Places one path. Words on failure: not in a mount, the daemon is not there, not UTF-8. */
int zc_paths_add(struct zc_paths *p, const char *path, struct zc_error *err);
/* Adds each line of the stream; empty lines are passed over. */
int zc_paths_add_list(struct zc_paths *p, FILE *f, const char *name, struct zc_error *err);
/* Ends the last request of each group. */
int zc_paths_finish(struct zc_paths *p, struct zc_error *err);
void zc_paths_free(struct zc_paths *p);

#endif
