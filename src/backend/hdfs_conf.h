/* SPDX-License-Identifier: Apache-2.0 */
/* Hadoop's configuration, as far as finding NameNodes takes it. */
#ifndef ZC_BACKEND_HDFS_CONF_H
#define ZC_BACKEND_HDFS_CONF_H

#include "backend/hdfs.h"

struct hdfs_conf;

/* An empty configuration; NULL when memory is short. */
struct hdfs_conf *hdfs_conf_new(void);
void hdfs_conf_free(struct hdfs_conf *c);
/* Adds the properties of one file; later ones win unless an earlier one is final. -EBADMSG with
   words that name the line; `name` is what to call the file. */
int hdfs_conf_parse(struct hdfs_conf *c, const char *xml, size_t n, const char *name,
                    struct zc_error *err);
/* Reads core-site.xml and hdfs-site.xml of a folder; one of them may be missing. Blocks on the
 * disk. */
int hdfs_conf_load(struct hdfs_conf *c, const char *dir, struct zc_error *err);
/* The property with ${...} filled in, NULL when there is none (or memory is short). Caller frees.
 */
char *hdfs_conf_get(const struct hdfs_conf *c, const char *name);
char *hdfs_conf_getf(const struct hdfs_conf *c, const char *fmt, ...) ZC_PRINTF(2, 3);

struct hdfs_addr {
    char *host; /* without brackets */
    char *url;  /* "http://host:port" */
    char *name; /* for people: "nn1 at host:port", "host:port" */
};

struct hdfs_target {
    struct hdfs_addr *nn; /* NameNodes or gateways, in the order to try them */
    size_t n;
    char *name; /* canonical authority: nameservice, or host:port (several with commas) */
    bool tls;
    bool kerberos; /* the configuration says so */
    bool guessed;  /* a name that no configuration has was taken for a host */
};

/* Who answers for the source. c may be empty. -EINVAL with words. */
int hdfs_resolve(const struct hdfs_conf *c, enum zc_hdfs_scheme scheme, const char *authority,
                 struct hdfs_target *out, struct zc_error *err);
void hdfs_target_free(struct hdfs_target *t);

/* Splits "host:port", "[::1]:port" or "host"; *port 0 when there is none. -EINVAL unless it is one.
 */
int hdfs_hostport(const char *s, size_t n, char **host, unsigned *port);

#endif
