/* SPDX-License-Identifier: Apache-2.0 */
/* The JSON that the control socket takes: {"paths":["a/b",...],"parallel":N,"cluster":true,
   "mark":N}. */
#ifndef ZC_HTTP_CTL_BODY_H
#define ZC_HTTP_CTL_BODY_H

#include "base/base.h"
#include "base/error.h"
#include <jansson.h>

struct zc_ctl_body {
    const char *
        *paths; /* relative, without slashes at the ends, "" for all; owned by this struct */
    size_t n;
    unsigned parallel; /* 0 when not given */
    bool cluster;      /* on all nodes of the cluster */
    unsigned mark;     /* of the job before, whose work this one goes on with; 0 when not given */
    json_t *root;      /* holds the bytes that paths point to */
};

/* Longest path taken, and the most that may be in flight. */
#define ZC_CTL_PATH_MAX 4096
#define ZC_CTL_PARALLEL_MAX 1024

/* -EINVAL with words for anything but such an object with at least one path. Freed with
   zc_ctl_body_free, which also takes a struct that was never filled (all zero). */
int zc_ctl_body_parse(const char *p, size_t n, struct zc_ctl_body *out, struct zc_error *err);
void zc_ctl_body_free(struct zc_ctl_body *b);

/* {"path":"/a/b","source":"s3://b/c","options":{"region":"x","force-path-style":true},"force":true}
 */
struct zc_ctl_option {
    const char *name, *value; /* value NULL: a flag that is on */
};
struct zc_ctl_source {
    const char *path;   /* relative, as paths above */
    const char *source; /* NULL when not given */
    struct zc_ctl_option *options;
    size_t n;
    bool force;
    json_t *root; /* holds the bytes that all point to */
};
#define ZC_CTL_OPTIONS_MAX 64

/* `add`: source is needed and options are taken, else force is. -EINVAL with words. */
int zc_ctl_source_parse(const char *p, size_t n, bool add, struct zc_ctl_source *out,
                        struct zc_error *err);
void zc_ctl_source_free(struct zc_ctl_source *s);

/* A JSON string of any bytes: those that are not UTF-8 are shown as '?'. New reference; NULL
 * without memory. */
json_t *zc_ctl_text(const char *s);

#endif
