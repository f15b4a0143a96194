/* SPDX-License-Identifier: Apache-2.0 */
/* /proc/self/mountinfo: which mounts are ours, and which of them a path lies in. */
#ifndef ZC_CLI_MNTINFO_H
#define ZC_CLI_MNTINFO_H

#include "base/base.h"
#include "base/error.h"

#include <sys/types.h>

#define ZC_FSTYPE "fuse.zcache"

struct zc_mnt {
    unsigned long long id;     /* of the mount; higher is younger as a rule */
    unsigned long long parent; /* the id of the one it is mounted on */
    unsigned major, minor;     /* of its file system */
    char *root;  /* which folder of the file system is mounted: "/" but for bind mounts */
    char *point; /* where */
    char *fstype;
    char *source;
    uid_t uid; /* who mounted it (FUSE's user_id=), 0 when it does not say */
};

struct zc_mnts {
    struct zc_mnt *m; /* in the kernel's order */
    size_t n;
};

/* Reads the text of a mountinfo file; lines that cannot be understood are passed over. */
int zc_mnts_parse(const char *text, struct zc_mnts *out);
int zc_mnts_read(struct zc_mnts *out, struct zc_error *err);
void zc_mnts_free(struct zc_mnts *m);

/* The mount that is seen at exactly this absolute path, or NULL. */
const struct zc_mnt *zc_mnts_at(const struct zc_mnts *m, const char *path);
/* The mount that this absolute path (no "..", ".", or double slashes) lies in, or NULL. */
const struct zc_mnt *zc_mnts_of(const struct zc_mnts *m, const char *path);
bool zc_mnt_is_ours(const struct zc_mnt *m);

/* Is `path` the folder `dir` or below it? Both absolute and clean. */
bool zc_path_below(const char *path, const char *dir);

#endif
