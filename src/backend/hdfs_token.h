/* SPDX-License-Identifier: Apache-2.0 */
/* Delegation tokens in files, as Hadoop hands them to jobs. */
#ifndef ZC_BACKEND_HDFS_TOKEN_H
#define ZC_BACKEND_HDFS_TOKEN_H

#include "base/base.h"
#include "base/error.h"

/* Whose token is wanted, since a file may have those of several clusters. Tokens name a nameservice
   ("ha-hdfs:zc") or the address of a NameNode, by name or number, of RPC or HTTP ("10.0.0.1:8020").
 */
struct hdfs_token_for {
    const char *name; /* nameservice or address, as the source has it */
    const char *const *hosts;
    size_t n_hosts; /* names and numbers of the NameNodes */
    const unsigned *ports;
    size_t n_ports; /* theirs, as far as known */
};

/* The token for HDFS in a file's bytes, as `delegation=` takes it: from a token file of Hadoop
   (HDTS, written as Writable, as YARN and `hdfs fetchdt` do), or the text itself. Of several tokens
   the one whose service is that nameservice or address, else the only one of that host, else the
   only one there is. -ENOENT: there is none for HDFS; -EBADMSG; -ENOTUNIQ with the services that
   are there in err. Caller frees. */
int hdfs_token_parse(const void *p, size_t n, const struct hdfs_token_for *who, char **out,
                     struct zc_error *err);

/* The token file of a source with these NameNodes. NULL when memory is short. */
struct hdfs_target;
struct hdfs_token_file;
struct hdfs_token_file *hdfs_token_file_new(const char *path, const struct hdfs_target *t);
void hdfs_token_file_free(struct hdfs_token_file *x);
/* The token that is in it now; one thread at a time. Blocks on the disk and on name services.
   -EACCES with words. Caller frees. */
int hdfs_token_file_read(struct hdfs_token_file *x, char **token, struct zc_error *err);

#endif
