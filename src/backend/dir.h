/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A local directory as a source (file:///path). Blocking calls run on a small pool of I/O threads.
 * version = inode, mtime, ctime and size; a get checks it before its first and after its last byte.
 */
#ifndef ZC_BACKEND_DIR_H
#define ZC_BACKEND_DIR_H

#include "backend/backend.h"

struct zc_dir_config {
    const char *path; /* absolute */
    unsigned threads; /* 0 = 8 */
};

int zc_dirsrc_new(const struct zc_dir_config *cfg, struct zc_backend **out, struct zc_error *err);

#endif
