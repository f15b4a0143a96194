/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is to be mounted: the mount's options and its sources, from the command line, a
 * configuration file, or (one source) a request to a running daemon.
 *
 * An option that each source may have for itself (ZC_OPT_SOURCE) and that is given for the mount is
 * the default of all the sources that it means something for; it must mean something for one.
 */
#ifndef ZC_CLI_PLAN_H
#define ZC_CLI_PLAN_H

#include "cli/mountopts.h"
#include "cli/source.h"

struct zc_plan_source {
    char *at;   /* "" or "a/b" */
    char *text; /* the source as it was written */
    struct zc_source src;
    struct zc_mount_opts o;  /* after zc_plan_finish: its values, the mount's where it has none */
    struct zc_opt_args args; /* its own */
    unsigned line;           /* of the file; 0: it is not from one */
    unsigned option_line[ZC_OPT_ROWS]; /* by row */
};

struct zc_plan {
    struct zc_mount_opts o;
    struct zc_opt_args args;
    char *file;          /* the configuration file, NULL: none */
    unsigned mount_line; /* of its section [mount], 0: none */
    unsigned option_line[ZC_OPT_ROWS];
    struct zc_plan_source **s;
    size_t n;
};

void zc_plan_init(struct zc_plan *p);
void zc_plan_free(struct zc_plan *p);

/* Takes SOURCE, or /PATH=SOURCE. -EINVAL, -EEXIST with words. */
int zc_plan_add_word(struct zc_plan *p, const char *word, struct zc_error *err);
/* Reads a configuration file. What args says was given already, on the command line, stands. Words
   begin with "file:line: ". */
int zc_plan_read(struct zc_plan *p, const char *file, struct zc_error *err);
/* After all: checks options and their combinations, gives each source the mount's defaults. euid:
   whose rights the mount has. */
int zc_plan_finish(struct zc_plan *p, uid_t euid, struct zc_error *err);

/* One source by itself; its options are then set by zc_opt_set with zc_source_table, &s->o and
   &s->args. at: with or without slashes at its ends. */
int zc_plan_source_new(const char *at, const char *text, struct zc_plan_source **out,
                       struct zc_error *err);
void zc_plan_source_free(struct zc_plan_source *s);
/* Gives such a source the defaults of a finished plan, and checks it. */
int zc_plan_source_finish(const struct zc_plan *p, struct zc_plan_source *s, struct zc_error *err);
/* Makes its paths absolute, and looks whether they are there. */
int zc_plan_source_resolve(struct zc_plan_source *s, struct zc_error *err);

/* Does one source take all of the mount? */
static inline bool zc_plan_is_single(const struct zc_plan *p)
{
    return p->n == 1 && !*p->s[0]->at;
}

#endif
