/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options from one table: the command line, -o strings of mount(8), --help and the checks all read
 * it, and a test holds the man pages against it. A table row says where in the command's own struct
 * the value goes.
 */
#ifndef ZC_CLI_OPT_H
#define ZC_CLI_OPT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/error.h"

enum zc_opt_type {
    ZC_OPT_FLAG,     /* bool; takes no value */
    ZC_OPT_STRING,   /* const char * */
    ZC_OPT_PATH,     /* const char *; absolute or relative, not empty */
    ZC_OPT_SIZE,     /* uint64_t; "8MiB" */
    ZC_OPT_DURATION, /* int64_t; "60s" */
    ZC_OPT_TTL,      /* int64_t; seconds, a duration, "indefinite" (INT64_MAX) or "minimal" (0) */
    ZC_OPT_RATIO,    /* double; "0.1", "10%" */
    ZC_OPT_UINT,     /* uint64_t */
    ZC_OPT_ID,       /* uint32_t; a user's or group's number */
    ZC_OPT_MODE,     /* uint32_t; octal permission bits */
    ZC_OPT_CHOICE,   /* int; place of the word in `choices` */
};

#define ZC_OPT_S3 1u       /* means something for s3:// */
#define ZC_OPT_NO_O 2u     /* not to be given in an -o string */
#define ZC_OPT_HDFS 4u     /* means something for hdfs://, webhdfs:// and swebhdfs:// */
#define ZC_OPT_SOURCE 8u   /* each source may have its own */
#define ZC_OPT_NO_FILE 16u /* not to be given in a configuration file */
#define ZC_OPT_CLUSTER 32u /* means something for a node of a cluster */

struct zc_opt {
    const char *name; /* long name, without the dashes */
    char letter;      /* short name, or 0 */
    enum zc_opt_type type;
    size_t offset;       /* of the value in the command's struct */
    const char *arg;     /* what --help calls the value; NULL for a flag */
    const char *help;    /* one or two sentences */
    uint64_t min, max;   /* of the value, in bytes, nanoseconds or as it is; max 0: no limit */
    const char *choices; /* "auto|off" */
    unsigned flags;
};

#define ZC_OPT_ROWS 64
struct zc_opt_table {
    const struct zc_opt *opts;
    size_t n; /* at most ZC_OPT_ROWS */
};

/* What parsing found besides the values. Zero to begin with. */
struct zc_opt_args {
    uint64_t given;                /* bit i: row i of the table was given */
    const char *text[ZC_OPT_ROWS]; /* its value as it was written, NULL for a flag */
    bool help;                     /* -h, --help */
    bool rw;                       /* -o rw */
    bool noexec;                   /* -o noexec, which "user" of fstab means, too */
    char **pos; /* the arguments that are no options, in order; NULL at the end */
    size_t n_pos;
    char **own; /* copies that values point to */
    size_t n_own;
};

/* Reads argv[1] and on into *values, which holds the defaults before. Values point into argv or
   into args, so both must outlive them. -EINVAL with words. The table's commands take "-o LIST" too
   when `mount_o`. */
int zc_opt_parse(struct zc_opt_table t, bool mount_o, int argc, char **argv, void *values,
                 struct zc_opt_args *args, struct zc_error *err);
/* Reads one -o string: names from the table (with - or _), and mount(8)'s own words that change
   nothing here.
   `\,` stands for a comma in a value. sloppy: words that are not known are passed over. */
int zc_opt_parse_o(struct zc_opt_table t, const char *list, bool sloppy, void *values,
                   struct zc_opt_args *args, struct zc_error *err);
/* The row of that name, NULL when there is none. Names are taken with '_' for '-' too. */
const struct zc_opt *zc_opt_find(struct zc_opt_table t, const char *name);
/* Sets one option, of a file or a request. value: copied; of a flag NULL, or a word for yes or no.
   Words speak of the name without dashes. */
int zc_opt_set(struct zc_opt_table t, const char *name, const char *value, void *values,
               struct zc_opt_args *args, struct zc_error *err);
/* Words for a name that is not in the table, with the one that may have been meant. -EINVAL. */
int zc_opt_unknown(struct zc_opt_table t, const char *name, struct zc_error *err);
/* Gives a row the value that it has in `from`. */
void zc_opt_copy(const struct zc_opt *o, void *to, const void *from);
/* Takes a string over, to be freed with args. NULL without memory, the string freed. */
char *zc_opt_own(struct zc_opt_args *args, char *take);
void zc_opt_args_free(struct zc_opt_args *args);

/* Was this one given? */
bool zc_opt_given(struct zc_opt_table t, const struct zc_opt_args *args, const char *name);
/* The part of --help that lists the table. */
void zc_opt_help(struct zc_opt_table t, struct zc_buf *out);

#endif
