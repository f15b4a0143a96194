/* SPDX-License-Identifier: Apache-2.0 */
/* The commands. Each is one file and one function; argv[0] is its name. They return the exit
 * status. */
#ifndef ZC_CLI_H
#define ZC_CLI_H

#include "cli/opt.h"
#include "cli/progress.h"
#include <jansson.h>

#define ZC_EXIT_OK 0
#define ZC_EXIT_FAIL 1  /* it was tried and did not work */
#define ZC_EXIT_USAGE 2 /* it was not understood */
#define ZC_EXIT_SIGINT 130

struct zc_command {
    const char *name;
    const char *usage;   /* what follows "zcache NAME" */
    const char *summary; /* one line */
    const char *detail;  /* a paragraph for --help */
    const struct zc_opt_table *table;
    int (*run)(int argc, char **argv);
};

/* NULL name at the end. */
extern const struct zc_command zc_commands[];

int zc_cli_main(int argc, char **argv);

int zc_cmd_mount(int argc, char **argv);
/* As mount(8) calls it: mount.zcache SOURCE DIR [-sfnv] [-o OPTIONS]. */
int zc_cmd_mount_helper(int argc, char **argv);
int zc_cmd_umount(int argc, char **argv);
int zc_cmd_warm(int argc, char **argv);
int zc_cmd_free(int argc, char **argv);
int zc_cmd_status(int argc, char **argv);
int zc_cmd_doctor(int argc, char **argv);
int zc_cmd_source(int argc, char **argv);

extern const struct zc_opt_table zc_umount_table, zc_warm_table, zc_free_table, zc_status_table,
    zc_source_cmd_table, zc_doctor_table;

/* Lines of `zcache status` for one of its sources. named: with its path, and all figures. */
void zc_status_source_rows(const json_t *source, bool named);

/* "zcache: words" to stderr. Returns the status it was given. */
int zc_cli_fail(int status, const char *fmt, ...) ZC_PRINTF(2, 3);
/* The same for a wrong call, with where to read on. */
int zc_cli_usage(const char *command, const struct zc_error *err);
/* Prints a command's help to stdout. */
int zc_cli_help(const char *command);
/* All of --help for one command; appended to out. */
void zc_cli_help_text(const struct zc_command *c, struct zc_buf *out);

#endif
