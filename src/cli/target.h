/* SPDX-License-Identifier: Apache-2.0 */
/* From a path that a person names to the mount it lies in, the path below that mount, and its
 * daemon's socket. */
#ifndef ZC_CLI_TARGET_H
#define ZC_CLI_TARGET_H

#include "cli/mntinfo.h"

/* Makes a path absolute and takes "//", "." and trailing slashes out, without asking the file
   system. ".." is left to the caller: NULL with errno EINVAL when there is one. Caller frees. */
char *zc_path_clean(const char *path);

/* The mount point that `path` names: absolute, links resolved, but for the last part, which may be
   a dead mount that cannot be looked at. Caller frees. */
int zc_target_point(const char *path, char **out, struct zc_error *err);

struct zc_target {
    const struct zc_mnt *mnt; /* points into the zc_mnts that was given */
    char *rel;                /* path below the mount, "" for all of it */
};

/* Which of our mounts does `path` lie in? Does not touch the mount itself where it can be helped.
   -ENODEV with words when in none. Caller frees out->rel. */
int zc_target_find(const struct zc_mnts *mnts, const char *path, struct zc_target *out,
                   struct zc_error *err);

/* The control socket of a mount's daemon; for a bind mount, that of the mount it was made from.
   NULL when there is none to be found, with words. Caller frees. */
char *zc_target_socket(const struct zc_mnts *mnts, const struct zc_mnt *m, struct zc_error *err);

#endif
