/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `zcache umount`: the kernel unmounts, which ends the daemon; then waits for the daemon's process,
 * through a descriptor of it that was opened before, so that a number used again is never mistaken
 * for it.
 */
#include "cli/cli.h"
#include "cli/client.h"
#include "cli/holders.h"
#include "cli/place.h"
#include "cli/target.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define UMOUNT_HOLDERS 10

struct umount_opts {
    bool force, lazy;
    int64_t timeout;
};

static const struct zc_opt umount_rows[] = {
    {"force", 'f', ZC_OPT_FLAG, offsetof(struct umount_opts, force), NULL,
     "Unmount although it is in use: those who read from it get errors."},
    {"lazy", 'l', ZC_OPT_FLAG, offsetof(struct umount_opts, lazy), NULL,
     "Take the mount out of sight now, and end it when nobody uses it any more. Does not wait."},
    {"timeout", 0, ZC_OPT_DURATION, offsetof(struct umount_opts, timeout), "TIME",
     "How long to wait for the daemon to end. Default: 60s.", 0, 86400 * (uint64_t)ZC_NS_PER_S},
};
const struct zc_opt_table zc_umount_table = {umount_rows, ZC_ARRAY_SIZE(umount_rows)};

static int umount_busy(const char *point)
{
    zc_autobuf struct zc_buf b = {0};
    size_t n = zc_holders(point, UMOUNT_HOLDERS, &b);
    if (n == 0)
        return zc_cli_fail(
            ZC_EXIT_FAIL,
            "'%s' is in use by a process that cannot be seen from here, or has a mount "
            "in it; --force unmounts it all the same",
            point);
    zc_cli_fail(0, "'%s' is in use by %zu process%s; --force unmounts it all the same", point, n,
                n == 1 ? "" : "es");
    fputs(b.p, stderr);
    if (n > UMOUNT_HOLDERS)
        fprintf(stderr, "  and %zu more\n", n - UMOUNT_HOLDERS);
    return ZC_EXIT_FAIL;
}

/* Waits until the daemon is gone: its process where it can be watched, else its socket. */
static bool umount_wait(int pidfd, const char *sock, int64_t timeout_ns)
{
    int64_t end = zc_now_ns() + timeout_ns;
    struct stat st;
    if (pidfd >= 0) {
        struct pollfd p = {.fd = pidfd, .events = POLLIN};
        int r;
        do
            r = poll(&p, 1, (int)ZC_MAX((end - zc_now_ns()) / ZC_NS_PER_MS, (int64_t)0));
        while (r < 0 && errno == EINTR);
        return r > 0;
    }
    while (sock && stat(sock, &st) == 0) {
        if (zc_now_ns() >= end)
            return false;
        usleep(20 * 1000);
    }
    return true;
}

static int umount_run(const char *path, const struct umount_opts *o)
{
    struct zc_error err = {0};
    struct zc_mnts mnts = {0};
    zc_autofree char *point = NULL;
    if (zc_target_point(path, &point, &err) < 0 || zc_mnts_read(&mnts, &err) < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    const struct zc_mnt *m = zc_mnts_at(&mnts, point);
    if (!m || !zc_mnt_is_ours(m)) {
        zc_mnts_free(&mnts);
        return zc_cli_fail(ZC_EXIT_FAIL, "'%s' is not a mount of zcache", point);
    }
    zc_autofree char *sock = zc_target_socket(&mnts, m, NULL);
    uid_t owner = m->uid;
    zc_mnts_free(&mnts);
    if (geteuid() != 0 && geteuid() != owner)
        return zc_cli_fail(
            ZC_EXIT_FAIL, "'%s' was mounted by user %u, and only that user and root may unmount it",
            point, (unsigned)owner);
    pid_t pid = sock ? zc_client_pid(sock) : 0;
    zc_autoclose int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

    int r = zc_place_unmount(point, o->force || o->lazy, &err);
    if (r == -EBUSY)
        return umount_busy(point);
    if (r < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    if (o->lazy)
        return ZC_EXIT_OK;
    if (o->force && pidfd >= 0)
        syscall(SYS_pidfd_send_signal, pidfd, SIGTERM, NULL, 0);
    if (pid <= 0) { /* nobody answers there: its daemon was killed */
        if (sock)
            unlink(sock);
        return ZC_EXIT_OK;
    }
    if (!umount_wait(pidfd, sock, o->timeout))
        return zc_cli_fail(ZC_EXIT_FAIL,
                           "'%s' is unmounted, but its daemon (process %d) has not ended yet",
                           point, (int)pid);
    return ZC_EXIT_OK;
}

int zc_cmd_umount(int argc, char **argv)
{
    struct umount_opts o = {.timeout = 60 * ZC_NS_PER_S};
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    int status = ZC_EXIT_OK;
    if (zc_opt_parse(zc_umount_table, false, argc, argv, &o, &args, &err) < 0) {
        status = zc_cli_usage("umount", &err);
    } else if (args.help) {
        status = zc_cli_help("umount");
    } else if (args.n_pos == 0) {
        zc_error_set(&err, -EINVAL, "umount takes a MOUNTPOINT");
        status = zc_cli_usage("umount", &err);
    } else if (o.force && o.lazy) {
        zc_error_set(&err, -EINVAL,
                     "--force ends the daemon, --lazy leaves it to its readers: give one of them");
        status = zc_cli_usage("umount", &err);
    } else {
        for (size_t i = 0; i < args.n_pos; i++) {
            int s = umount_run(args.pos[i], &o);
            status = s ? s : status;
        }
    }
    zc_opt_args_free(&args);
    return status;
}
