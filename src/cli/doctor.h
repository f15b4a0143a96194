/* SPDX-License-Identifier: Apache-2.0 */
/* `zcache doctor`: looks at each thing that a mount of a source needs, one after the other, and
   tells what it found. doctor_local.c looks at this machine, doctor_net.c at names, connections and
   TLS, doctor_s3.c, doctor_hdfs.c and doctor_dir.c at a kind of source each, doctor_read.c reads.
 */
#ifndef ZC_CLI_DOCTOR_H
#define ZC_CLI_DOCTOR_H

#include "backend/backend.h"
#include "cli/mountopts.h"
#include "cli/source.h"
#include "net/check.h"

#include <jansson.h>

enum zc_doc_result {
    ZC_DOC_OK,
    ZC_DOC_NOTE, /* a fact that is neither good nor bad */
    ZC_DOC_WARNING,
    ZC_DOC_FAILED,
};

struct zc_doctor {
    const struct zc_mount_opts *o;
    const struct zc_source *src;
    const char *source; /* as it was written */
    struct zc_net *net;
    bool json;
    json_t *steps;     /* with json */
    const char *group; /* what is being looked at: "this machine" */
    bool group_shown;
    unsigned failed, warnings;
};

/* Begins a group of steps. */
void zc_doc_group(struct zc_doctor *d, const char *name);
/* Tells one step: its name (a word or two), what was found, and how to mend it (NULL or "": nothing
   to mend; text with %). ms < 0: took no time worth telling. */
void zc_doc_step(struct zc_doctor *d, const char *step, enum zc_doc_result r, double ms,
                 const char *fix, const char *fmt, ...) ZC_PRINTF(6, 7);
static inline double zc_doc_ms(int64_t since_ns)
{
    return (double)(zc_now_ns() - since_ns) / (double)ZC_NS_PER_MS;
}

void zc_doc_local(struct zc_doctor *d);
void zc_doc_s3(struct zc_doctor *d);
void zc_doc_hdfs(struct zc_doctor *d);
void zc_doc_dir(struct zc_doctor *d);

/* Name, connection and TLS of an URL; who: "the store", "NameNode nn1". False: no use to go on. */
bool zc_doc_url(struct zc_doctor *d, const char *who, const char *url, const struct zc_net_tls *tls,
                const char *address_fix, const char *tls_fix);
/* One GET without credentials: the status, or -errno (told as a step when it fails). *skew_ns: the
   server's clock minus ours, INT64_MIN when it does not say. body: may be NULL; caller frees. */
int zc_doc_get(struct zc_doctor *d, const char *who, const char *url, const struct zc_net_tls *tls,
               int64_t *skew_ns, char **body);
/* A difference of clocks, which stops no mount; matters: what it means all the same. */
void zc_doc_clock(struct zc_doctor *d, int64_t skew_ns, const char *matters);

/* What a listing of the root found. */
struct zc_doc_found {
    char *path; /* of a file below it, or NULL */
    uint64_t size;
    char version[ZC_VERSION_MAX + 1];
    size_t entries;
};
/* Lists the root, and folders below it until a file is found.
   False, and words: the listing failed, which the caller tells. */
bool zc_doc_list(struct zc_doctor *d, struct zc_backend *be, struct zc_doc_found *out,
                 struct zc_error *err);
/* False: a step failed. fix: what to do then. */
bool zc_doc_read(struct zc_doctor *d, struct zc_backend *be, const struct zc_doc_found *f,
                 const char *fix);

#endif
