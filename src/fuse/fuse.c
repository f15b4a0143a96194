/* SPDX-License-Identifier: Apache-2.0 */
/* The session: mounting, the loop, the end. */
#include "base/log.h"
#include "fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define URING_SWITCH "/sys/module/fuse/parameters/enable_uring"
#define FUSE_OPENERS 8

static void fuse_log_line(enum fuse_log_level level, const char *fmt, va_list ap)
{
    char line[512];
    int n = vsnprintf(line, sizeof(line), fmt, ap);
    if (n > 0 && (size_t)n < sizeof(line) && line[n - 1] == '\n')
        line[n - 1] = '\0';
    int e = errno; /* libfuse's callers look at it after it has said what failed */
    zc_log_at(level <= FUSE_LOG_ERR ? ZC_LOG_WARN : ZC_LOG_DEBUG, "libfuse: %s", line);
    errno = e;
}

bool fuse_pass_off(struct zc_fuse *f, const char *why, ...)
{
    va_list ap;
    if (!atomic_exchange(&f->can_pass, false))
        return false; /* whoever was first writes the words */
    int n = snprintf(f->pass_words, sizeof(f->pass_words), "off: ");
    va_start(ap, why);
    vsnprintf(f->pass_words + n, sizeof(f->pass_words) - (size_t)n, why, ap);
    va_end(ap);
    atomic_store(&f->passthrough, f->pass_words);
    return true;
}

static bool fuse_uring_switch(char want)
{
    zc_autoclose int fd = open(URING_SWITCH, (want ? O_WRONLY : O_RDONLY) | O_CLOEXEC);
    char c = want;
    if (fd < 0)
        return false;
    return want ? write(fd, &c, 1) == 1 : read(fd, &c, 1) == 1 && (c == 'Y' || c == '1');
}

/* libfuse would go on without it, and say so to its log alone. */
static int fuse_uring_try(void)
{
    struct io_uring_params p = {0};
    zc_autoclose int fd = (int)syscall(SYS_io_uring_setup, 1, &p);
    return fd < 0 ? -errno : 0;
}

/* Decides on io_uring; says why not. */
static int fuse_choose_uring(struct zc_fuse *f, struct zc_error *err)
{
    f->uring = false;
    if (f->cfg.io_uring == ZC_OFF) {
        atomic_store(&f->io_uring, "off: --io-uring off");
        return 0;
    }
    /* A request that waits keeps its place in its core's ring, and there are few: readers of a
       store that stands still would soon hold all of them. The device has no such limit. */
    if (f->cfg.several && f->cfg.io_uring == ZC_AUTO) {
        atomic_store(&f->io_uring,
                     "off: with several sources, one that stands still would take the rings' "
                     "places from the others; --io-uring on uses them all the same");
        return 0;
    }
    /* A place of a ring belongs to the thread that used it last, and what the kernel puts there
       next waits until that thread can be interrupted: not while it reads from a server that is
       gone. */
    if (f->cfg.blocks && f->cfg.io_uring == ZC_AUTO) {
        atomic_store(&f->io_uring,
                     "off: with a directory that stands still (a network file system), files of "
                     "the cache would wait for it, too; --io-uring on uses it all the same");
        return 0;
    }
#ifndef ZC_FUSE_URING_SAFE
    atomic_store(&f->io_uring, "off: this libfuse submits replies of other threads unsafely");
    if (f->cfg.io_uring == ZC_ON)
        return zc_error_set(
            err, -ENOTSUP,
            "--io-uring on: zcache was built with a libfuse that cannot do it safely; build with "
            "the bundled subproject (scripts/build), or pass --io-uring auto");
    return 0;
#else
    if (access(URING_SWITCH, F_OK) != 0) {
        atomic_store(&f->io_uring, "off: this kernel has none (Linux 6.14 or newer has)");
        if (f->cfg.io_uring == ZC_ON)
            return zc_error_set(err, -ENOTSUP,
                                "--io-uring on: this kernel has no FUSE over io_uring; "
                                "Linux 6.14 or newer has, or pass --io-uring auto");
        return 0;
    }
    if (!fuse_uring_switch(0)) {
        if (f->cfg.io_uring == ZC_AUTO) {
            atomic_store(&f->io_uring,
                         "off: switched off in the kernel; --io-uring on switches it on (root)");
            return 0;
        }
        if (!fuse_uring_switch('Y'))
            return zc_error_set(err, -EPERM,
                                "--io-uring on: cannot write Y to %s (%s); do that as root, or "
                                "pass --io-uring auto",
                                URING_SWITCH, strerror(errno));
        zc_info("switched FUSE over io_uring on in the kernel (%s)", URING_SWITCH);
    }
    int r = fuse_uring_try();
    if (r < 0) {
        snprintf(f->uring_words, sizeof(f->uring_words),
                 "off: the kernel refuses io_uring to this process (%s); see "
                 "/proc/sys/kernel/io_uring_disabled, and in a container its seccomp profile",
                 strerror(-r));
        atomic_store(&f->io_uring, f->uring_words);
        return f->cfg.io_uring == ZC_AUTO
                   ? 0
                   : zc_error_set(err, r, "--io-uring on: %s", f->uring_words + strlen("off: "));
    }
    f->uring = true;
    atomic_store(&f->io_uring, "on");
    return 0;
#endif
}

static int fuse_args(struct zc_fuse *f, struct fuse_args *args)
{
    char opts[4096 + 256], name[4096];
    size_t n = 0;
    /* A comma or a backslash in the source's name would end the option. */
    for (const char *s = f->cfg.fsname; *s && n + 3 < sizeof(name); s++) {
        if (*s == ',' || *s == '\\')
            name[n++] = '\\';
        name[n++] = *s;
    }
    name[n] = '\0';
    snprintf(opts, sizeof(opts), "-oro,nosuid,nodev,default_permissions,subtype=zcache,fsname=%s",
             name);
    if (fuse_opt_add_arg(args, "zcache") || fuse_opt_add_arg(args, opts) ||
        (f->cfg.noexec && fuse_opt_add_arg(args, "-onoexec")) ||
        (f->cfg.allow_other && fuse_opt_add_arg(args, "-oallow_other")))
        return -ENOMEM;
    if (f->uring) {
        /* Each queue entry may hold one reply; there is a queue for each core. */
        uint64_t depth = (f->cfg.memory ? f->cfg.memory : 64 * ZC_MIB) / FUSE_REQUEST_MAX /
                         (unsigned)get_nprocs_conf();
        depth = ZC_MIN(ZC_MAX(depth, (uint64_t)4), (uint64_t)32);
        snprintf(opts, sizeof(opts), "-oio_uring,io_uring_q_depth=%u", (unsigned)depth);
        if (fuse_opt_add_arg(args, opts))
            return -ENOMEM;
    }
    return 0;
}

/* fusermount3 tells its reasons to a standard error that a daemon has not. */
static const char *fuse_mount_hint(const char *point)
{
    if (access("/dev/fuse", F_OK) < 0)
        return "there is no /dev/fuse: is the module fuse loaded, and in a container the device "
               "handed in?";
    if (geteuid() == 0)
        return "is that allowed here? A container needs the right to mount (CAP_SYS_ADMIN)";
    if (eaccess("/dev/fuse", R_OK | W_OK) < 0)
        return "this user may not open /dev/fuse";
    if (eaccess(point, W_OK) < 0)
        return "users other than root mount where they may write only";
    return "is fusermount3 installed, as set-user-id root?";
}

static int fuse_mount(struct zc_fuse *f, struct zc_error *err)
{
    if (fuse_session_mount(f->se, f->mountpoint) != 0)
        return zc_error_set(err, -EPERM, "cannot mount at %s: %s (%s)", f->mountpoint,
                            errno ? strerror(errno) : "see the log",
                            fuse_mount_hint(f->mountpoint));
    int r = fuse_point_note(f);
    if (r < 0) {
        fuse_session_unmount(f->se);
        return zc_error_set(err, r, "cannot look at the mount point %s: %s", f->mountpoint,
                            strerror(-r));
    }
    return 0;
}

int zc_fuse_new(const struct zc_fuse_config *cfg, struct zc_vfs *v, struct zc_fuse **out,
                struct zc_error *err)
{
    struct zc_fuse *f = calloc(1, sizeof(*f));
    struct fuse_args args = FUSE_ARGS_INIT(0, NULL);
    if (!f)
        return zc_error_set(err, -ENOMEM, "out of memory");
    f->cfg = *cfg;
    f->vfs = v;
    f->mountpoint = strdup(cfg->mountpoint);
    fnodes_init(f);
    pthread_mutex_init(&f->dirs_lock, NULL);
    pthread_mutex_init(&f->pipes.lock, NULL);
    zc_list_init(&f->dirs);
    fuse_set_log_func(fuse_log_line);
    atomic_init(&f->can_pass, true);
    atomic_init(&f->passthrough, "on");
    if (cfg->passthrough == ZC_OFF)
        fuse_pass_off(f, "--passthrough off");
    else if (geteuid() != 0)
        fuse_pass_off(f, "needs root (CAP_SYS_ADMIN)");
    int r = f->mountpoint ? fuse_choose_uring(f, err) : -ENOMEM;
    if (r == 0 && f->uring && fuse_openers_new(FUSE_OPENERS, &f->openers) < 0)
        r = zc_error_set(err, -ENOMEM, "cannot start threads");
    if (r == 0 && fuse_args(f, &args) < 0)
        r = zc_error_set(err, -ENOMEM, "out of memory");
    if (r == 0) {
        f->se = fuse_session_new(&args, &fuse_ops, sizeof(fuse_ops), f);
        if (!f->se)
            r = zc_error_set(err, -EINVAL, "libfuse refuses the session");
    }
    if (r == 0)
        r = fuse_mount(f, err);
    fuse_opt_free_args(&args);
    if (r < 0) {
        if (f->se)
            fuse_session_destroy(f->se);
        fuse_openers_end(f->openers);
        fuse_openers_free(f->openers);
        free(f->mountpoint);
        free(f);
        return r;
    }
    zc_fetch_on_recall(cfg->fetch, fnode_recall, f);
    *out = f;
    return 0;
}

int zc_fuse_loop(struct zc_fuse *f)
{
    struct fuse_loop_config *c = fuse_loop_cfg_create();
    struct sched_param normal = {0};
    if (!c)
        return -ENOMEM;
    /* The threads of the session start from this one. As batch threads they do not take the CPU
       from a reader who has just closed a file: they answer that when they answer his next open. */
    pthread_setschedparam(pthread_self(), SCHED_BATCH, &normal);
    fuse_loop_cfg_set_clone_fd(c, f->uring ? 0 : 1);
    fuse_loop_cfg_set_max_threads(c, f->cfg.max_threads ? f->cfg.max_threads : 10);
    int r = fuse_session_loop_mt(f->se, c);
    fuse_loop_cfg_destroy(c);
    /* What a thread is told that was taking a request when the mount ended, its last release. */
    if (r == -ECONNABORTED)
        r = 0;
    return r > 0 ? 0 : r;
}

void zc_fuse_exit(struct zc_fuse *f)
{
    fuse_point_detach(f); /* users other than root: fuse_detach does it in zc_fuse_free */
    zc_vfs_shutdown(f->vfs);
    fuse_session_exit(f->se);
}

/* Where it may, the daemon unmounts by itself, while the ring threads still run: libfuse's own way
   would take the device from under them, and go by the path alone. */
static void fuse_detach(struct zc_fuse *f)
{
    if (!fuse_point_detach(f))
        fuse_session_unmount(f->se); /* by fusermount3 */
}

void zc_fuse_free(struct zc_fuse *f)
{
    if (!f)
        return;
    /* Requests that wait for the store are answered before the session goes. Until then the rings
       bring new ones. */
    fuse_openers_end(f->openers);
    zc_vfs_shutdown(f->vfs);
    zc_fetch_on_recall(f->cfg.fetch, NULL, NULL);
    fnodes_drop_idle(f);
    fuse_detach(f);
    fuse_session_destroy(f->se);
    fuse_openers_free(f->openers);
    fuse_drop_handles(f);
    fuse_pipes_close(&f->pipes);
    free(f->mountpoint);
    free(f);
}

void zc_fuse_get_stats(struct zc_fuse *f, struct zc_fuse_stats *out)
{
    pthread_mutex_lock(&f->idle_lock);
    unsigned kept = f->idle_n;
    pthread_mutex_unlock(&f->idle_lock);
    uint64_t opens_kept = atomic_load(&f->opens_kept);
    *out = (struct zc_fuse_stats){
        .passthrough = atomic_load(&f->passthrough),
        .io_uring = atomic_load(&f->io_uring),
        .opens = atomic_load(&f->opens) + opens_kept,
        .opens_passthrough = atomic_load(&f->opens_passed) + opens_kept,
        .opens_kept = opens_kept,
        .kept = kept,
        .reads = atomic_load(&f->reads),
        .read_bytes = atomic_load(&f->read_bytes),
    };
}
