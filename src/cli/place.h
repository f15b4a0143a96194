/* SPDX-License-Identifier: Apache-2.0 */
/* Where a mount is to go and what lies there already; unmounting. */
#ifndef ZC_CLI_PLACE_H
#define ZC_CLI_PLACE_H

#include "base/base.h"
#include "base/error.h"

/* Checks that a mount can be made at `point` (absolute, resolved): an existing directory on which
   no mount of ours lives. A dead one of ours is taken away first. What others have mounted there is
   no obstacle: data disks and volumes of containers are mount points, too. Blocks, two seconds
   while an earlier daemon does not end. */
int zc_place_check(const char *point, struct zc_error *err);

/* Unmounts what is at `point`; detach: lazily. 0, -EBUSY when it is in use, else negative errno
 * with words. */
int zc_place_unmount(const char *point, bool detach, struct zc_error *err);

/* Refuses folders that lie in each other in a way that would make the daemon wait for itself.
   source_dir and log_dir may be NULL. */
int zc_place_overlap(const char *point, const char *cache_dir, const char *source_dir,
                     const char *log_dir, struct zc_error *err);

/* Absolute path of a folder that may not exist yet. Caller frees. */
int zc_place_absolute(const char *path, char **out, struct zc_error *err);

/* The cache's folder when none was named. Makes the folders above it. Caller frees. */
int zc_place_cache_default(char **out, struct zc_error *err);

#endif
