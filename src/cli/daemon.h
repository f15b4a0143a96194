/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon: puts the rooms together for one mount, serves, and takes them apart again. */
#ifndef ZC_CLI_DAEMON_H
#define ZC_CLI_DAEMON_H

#include "cli/plan.h"

struct zc_daemon_config {
    const struct zc_plan *plan; /* finished and resolved */
    const char *mountpoint;     /* absolute, resolved */
    const char *cache_dir;      /* absolute */
};

/* Serves until unmounted or told to end by SIGTERM or SIGINT. Must be called in the process that is
   to serve, while it has one thread. ready() is called once the sources have answered and the mount
   is there, with words about what may not be meant, or ""; what it returns other than 0 ends the
   daemon. 0 after a clean end; else negative errno, with words, everything taken apart again. */
int zc_daemon_run(const struct zc_daemon_config *cfg, int (*ready)(void *user, const char *words),
                  void *user, struct zc_error *err);

#endif
