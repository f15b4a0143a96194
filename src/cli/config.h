/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration files: sections and settings, with the lines they stand in.
 *
 *     # a comment; so is what follows a blank and '#' or ';'
 *     [section]
 *     name = value
 *     name = "a value with # and blanks at its ends "
 */
#ifndef ZC_CLI_CONFIG_H
#define ZC_CLI_CONFIG_H

#include "base/base.h"
#include "base/error.h"

#define ZC_CONFIG_MAX ZC_MIB    /* bytes of a file */
#define ZC_CONFIG_LINE_MAX 8192 /* bytes of a line */

struct zc_config_ops {
    /* Strings live during the call. Negative ends the reading; the words get the line's number. */
    int (*section)(void *user, const char *name, unsigned line, struct zc_error *err);
    int (*setting)(void *user, const char *name, const char *value, unsigned line,
                   struct zc_error *err);
};

/* Reads a whole file's text; file: its name, for messages. -EINVAL with words that begin with
   "file:line: ", or what a callback returned. */
int zc_config_parse(const char *file, const char *text, size_t n, const struct zc_config_ops *ops,
                    void *user, struct zc_error *err);
/* The same from a file; -errno with words when it cannot be read. */
int zc_config_read(const char *file, const struct zc_config_ops *ops, void *user,
                   struct zc_error *err);

#endif
