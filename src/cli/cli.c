/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/cli.h"

#include "cli/mountopts.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

const struct zc_command zc_commands[] = {
    {"mount", "[OPTIONS] SOURCE... MOUNTPOINT", "show sources at a mount point",
     "SOURCE is s3://BUCKET[/PREFIX], hdfs://NAMESERVICE[/PATH], webhdfs://HOST:PORT[/PATH], "
     "swebhdfs:// or file:///DIR. Several are shown below paths of the mount: /PATH=SOURCE "
     "/PATH=SOURCE..., or in a configuration file (--config). Returns once the sources have "
     "answered and the mount is there; a daemon then serves it until it is unmounted. -o "
     "OPT[,OPT=VALUE...] takes the same options as "
     "mount(8) writes them.",
     &zc_mount_table, zc_cmd_mount},
    {"umount", "[OPTIONS] MOUNTPOINT...", "unmount, and wait until the cache is dropped",
     "Returns when the daemon has ended: its cache is then gone, unless the mount was made with "
     "--keep-cache.",
     &zc_umount_table, zc_cmd_umount},
    {"warm", "[OPTIONS] PATH... | -f LIST", "fetch files into the cache ahead of their use",
     "PATHs are files or folders in zcache mounts; of folders everything below is fetched. What is "
     "cached already "
     "is not fetched again. Ctrl-C ends it; what was fetched stays.",
     &zc_warm_table, zc_cmd_warm},
    {"free", "[OPTIONS] PATH...", "drop files from the cache",
     "The data stays in the source. Files that are open are left alone.", &zc_free_table,
     zc_cmd_free},
    {"status", "[OPTIONS] [MOUNTPOINT]", "show what a mount does and has done",
     "Without MOUNTPOINT: all mounts of zcache.", &zc_status_table, zc_cmd_status},
    {"source", "add|remove|list ... MOUNTPOINT ...", "change what sources a mount shows",
     "'source add [OPTIONS] MOUNTPOINT /PATH=SOURCE' shows another source at a path of a running "
     "mount; it takes the options that 'zcache mount' has for sources. 'source remove [--force] "
     "MOUNTPOINT /PATH' takes one away. 'source list [--json] MOUNTPOINT' lists them.",
     &zc_source_cmd_table, zc_cmd_source},
    {"doctor", "[OPTIONS] SOURCE | --config FILE",
     "look for what keeps a source from being mounted",
     "Walks from this machine over the network and the credentials to a read of one object, tells "
     "what it finds, and how to mend what is wrong. Takes the options of mount that say how to "
     "reach "
     "the source; mounts nothing and changes nothing.",
     &zc_doctor_table, zc_cmd_doctor},
    {NULL},
};

int zc_cli_fail(int status, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("zcache: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return status;
}

int zc_cli_usage(const char *command, const struct zc_error *err)
{
    fprintf(stderr, "zcache: %s\nTry 'zcache %s --help'.\n", err->text, command);
    return ZC_EXIT_USAGE;
}

void zc_cli_help_text(const struct zc_command *c, struct zc_buf *out)
{
    zc_buf_addf(out, "Usage: zcache %s %s\n\n", c->name, c->usage);
    size_t column = 0;
    for (const char *s = c->detail; *s;) {
        size_t n = strcspn(s, " ");
        if (column && column + 1 + n > 100) {
            zc_buf_addc(out, '\n');
            column = 0;
        } else if (column) {
            zc_buf_addc(out, ' ');
            column++;
        }
        zc_buf_add(out, s, n);
        column += n;
        s += n;
        s += strspn(s, " ");
    }
    zc_buf_adds(out, "\n\nOptions:\n");
    zc_opt_help(*c->table, out);
}

int zc_cli_help(const char *command)
{
    for (const struct zc_command *c = zc_commands; c->name; c++) {
        if (strcmp(c->name, command) != 0)
            continue;
        zc_autobuf struct zc_buf b = {0};
        zc_cli_help_text(c, &b);
        fputs(b.p ? b.p : "", stdout);
        return ZC_EXIT_OK;
    }
    return ZC_EXIT_USAGE;
}

static void cli_overview(FILE *f)
{
    fputs("Usage: zcache COMMAND ...\n\n"
          "Shows object stores as a local mount, and keeps what was read on the local "
          "disk.\n\nCommands:\n",
          f);
    for (const struct zc_command *c = zc_commands; c->name; c++)
        fprintf(f, "  zcache %-7s %-32s %s\n", c->name, c->usage, c->summary);
    fputs("\n  zcache COMMAND --help            options of a command\n"
          "  zcache --version                 version\n\n"
          "Example:\n"
          "  zcache mount s3://my-bucket/imagenet /mnt/data\n"
          "  zcache warm /mnt/data/train\n"
          "  zcache umount /mnt/data\n",
          f);
}

int zc_cli_main(int argc, char **argv)
{
    const char *self = argc ? argv[0] : "zcache";
    const char *slash = strrchr(self, '/');
    if (strcmp(slash ? slash + 1 : self, "mount.zcache") == 0)
        return zc_cmd_mount_helper(argc, argv);
    if (argc < 2) {
        cli_overview(stderr);
        return ZC_EXIT_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        if (argc > 2 && zc_cli_help(argv[2]) == ZC_EXIT_OK)
            return ZC_EXIT_OK;
        cli_overview(stdout);
        return ZC_EXIT_OK;
    }
    if (strcmp(word, "--version") == 0 || strcmp(word, "-V") == 0) {
        printf("zcache %s\n", ZC_VERSION);
        return ZC_EXIT_OK;
    }
    for (const struct zc_command *c = zc_commands; c->name; c++) {
        if (strcmp(c->name, word) == 0)
            return c->run(argc - 1, argv + 1);
    }
    zc_cli_fail(0, word[0] == '-' ? "unknown option '%s'" : "unknown command '%s'", word);
    fputs("Try 'zcache --help'.\n", stderr);
    return ZC_EXIT_USAGE;
}
