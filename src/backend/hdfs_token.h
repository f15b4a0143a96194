/* SPDX-License-Identifier: Apache-2.0 */
/* Delegation tokens in files, as Hadoop hands them to jobs. */
#ifndef ZC_BACKEND_HDFS_TOKEN_H
#define ZC_BACKEND_HDFS_TOKEN_H

#include "base/base.h"

/* The token for HDFS in a file's bytes, as `delegation=` takes it: from a token file of Hadoop
   (HDTS, written as Writable, as YARN and `hdfs fetchdt` do), or the text itself. -ENOENT: there is
   none for HDFS; -EBADMSG. Caller frees. */
int hdfs_token_parse(const void *p, size_t n, char **out);

#endif
