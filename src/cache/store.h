/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The folder of one cache and the backing files in it. Knows nothing of chunks or budgets.
 *
 *     DIR/NAME/lock           held by flock(2) while a daemon uses the folder; text: pid, keep,
 * identity DIR/NAME/index.*        the index's DIR/NAME/objects/XX/HEX backing files
 *
 * NAME is the identity's hash in 16 hex digits; where a live daemon holds that, NAME-2 to NAME-9.
 *
 * Threads: store_open and store_close alone; the rest any.
 */
#ifndef ZC_CACHE_STORE_H
#define ZC_CACHE_STORE_H

#include "cache/cache.h"
#include <sys/stat.h>

struct store {
    char *path;        /* DIR/NAME */
    int dirfd, lockfd; /* of the folder; of its lock */
    int objects[256];  /* descriptors of objects/XX */
};

/* Makes or takes over a folder. Without keep, removes what dead daemons left there and in
   neighbours that were not to be kept; with keep, what is there stays. */
int store_open(const char *dir, const char *identity, bool keep, bool allow_tmpfs,
               struct store **out, struct zc_error *err);
/* Gives the folder back; removes it if asked. */
void store_close(struct store *s, bool remove);
/* Removes all backing files. */
int store_empty(struct store *s);

/* Descriptor of an object's backing file, or -errno. */
int store_file_open(struct store *s, struct zc_objid id, int flags);
/* Read-only, and only when the kernel knows the name already: -EAGAIN when it would have to read
   the disk, -EINVAL or -ENOSYS before Linux 5.12. */
int store_file_open_cached(struct store *s, struct zc_objid id);
/* 0, also when there is none. */
int store_file_unlink(struct store *s, struct zc_objid id);
/* Path for messages; out holds STORE_NAME_MAX bytes. Returns out. */
#define STORE_NAME_MAX 48
const char *store_file_name(struct zc_objid id, char out[STORE_NAME_MAX]);

/* Calls fn for each backing file; a return of 1 has it unlinked. What is no backing file goes. */
int store_scan(struct store *s, int (*fn)(void *user, struct zc_objid id, const struct stat *st),
               void *user);

/* Of the file system: bytes a user may still write, and all bytes. */
int store_space(struct store *s, uint64_t *avail, uint64_t *total);

#endif
