/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `zcache mount` and mount.zcache. Everything that needs no network is checked in the command
 * itself; then it forks, and the child is the daemon from its first thread on (threads and LMDB do
 * not survive a fork). The command waits on a pipe: 'R' when the mount is there, 'E' and words when
 * it will not be.
 */
#include "cli/cli.h"
#include "cli/daemon.h"
#include "cli/place.h"
#include "cli/target.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* All that the daemon is told, and what of it has to be freed. */
struct mount_job {
    struct zc_plan plan;
    char *point, *cache_dir, *log_dir, *log_file;
    struct zc_daemon_config cfg;
};

static void mount_job_free(struct mount_job *j)
{
    zc_plan_free(&j->plan);
    free(j->point);
    free(j->cache_dir);
    free(j->log_dir);
    free(j->log_file);
}

/* ------------------------------------------------------------------ preparing */

static int mount_log_file(struct mount_job *j, struct zc_error *err)
{
    struct stat st;
    int r = zc_place_absolute(j->plan.o.log_directory, &j->log_dir, err);
    if (r < 0)
        return r;
    if (stat(j->log_dir, &st) < 0 || !S_ISDIR(st.st_mode))
        return zc_error_set(err, -ENOTDIR, "--log-directory '%s' is not an existing directory",
                            j->log_dir);
    /* One file a mount point: zcache-mnt-data.log. */
    if (asprintf(&j->log_file, "%s/zcache%.200s.log", j->log_dir, j->point) < 0) {
        j->log_file = NULL;
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    for (char *s = j->log_file + strlen(j->log_dir) + 1; *s; s++) {
        if (*s == '/' || (unsigned char)*s < 0x20)
            *s = '-';
    }
    return 0;
}

/* FUSE's helper would refuse it, with words that get lost. */
static int mount_allow_other(struct zc_error *err)
{
    char line[256];
    bool allowed = geteuid() == 0;
    FILE *f = allowed ? NULL : fopen("/etc/fuse.conf", "re");
    while (f && fgets(line, sizeof(line), f)) {
        line[strcspn(line, "\n \t#")] = 0;
        allowed |= strcmp(line, "user_allow_other") == 0;
    }
    if (f)
        fclose(f);
    return allowed ? 0
                   : zc_error_set(err, -EPERM,
                                  "--allow-other: only root may, unless /etc/fuse.conf has the "
                                  "line user_allow_other");
}

/* The daemon works from another folder. */
static int mount_cluster_files(struct mount_job *j, struct zc_error *err)
{
    struct zc_mount_opts *o = &j->plan.o;
    const struct {
        const char *name, **file;
    } files[] = {{"cluster-key", &o->cluster_key},
                 {"tls-cert", &o->tls_cert},
                 {"tls-key", &o->tls_key},
                 {"tls-ca", &o->tls_ca}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(files); i++) {
        char *path;
        if (!*files[i].file)
            continue;
        if (access(*files[i].file, R_OK) < 0)
            return zc_error_set(err, -errno, "cannot read --%s '%.300s': %s", files[i].name,
                                *files[i].file, strerror(errno));
        int r = zc_place_absolute(*files[i].file, &path, err);
        if (r < 0)
            return r;
        *files[i].file = zc_opt_own(&j->plan.args, path);
        if (!*files[i].file)
            return zc_error_set(err, -ENOMEM, "no memory");
    }
    return 0;
}

/* What can fail although the call was understood. */
static int mount_prepare(struct mount_job *j, const char *point, struct zc_error *err)
{
    const struct zc_mount_opts *o = &j->plan.o;
    int r = zc_target_point(point, &j->point, err);
    if (r < 0)
        return r;
    r = zc_place_check(j->point, err);
    if (r == 0 && o->allow_other)
        r = mount_allow_other(err);
    if (r < 0)
        return r;
    r = o->cache_dir ? zc_place_absolute(o->cache_dir, &j->cache_dir, err)
                     : zc_place_cache_default(&j->cache_dir, err);
    if (r < 0)
        return r;
    if (o->log_directory && (r = mount_log_file(j, err)) < 0)
        return r;
    r = mount_cluster_files(j, err);
    for (size_t i = 0; i < j->plan.n && r == 0; i++) {
        struct zc_plan_source *s = j->plan.s[i];
        r = zc_plan_source_resolve(s, err); /* the daemon works from another folder */
        if (r == 0)
            r = zc_place_overlap(j->point, j->cache_dir, s->src.path, j->log_dir, err);
        if (r < 0 && *s->at)
            zc_error_prefix(err, "/%.300s", s->at);
        if (r < 0 && s->line)
            zc_error_prefix(err, "%.300s:%u", j->plan.file, s->line);
    }
    if (r < 0)
        return r;
    zc_log_set_level((enum zc_log_level)o->log_level);
    j->cfg = (struct zc_daemon_config){
        .plan = &j->plan, .mountpoint = j->point, .cache_dir = j->cache_dir};
    return 0;
}

static int mount_open_log(struct mount_job *j, struct zc_error *err)
{
    if (!j->log_file && j->plan.o.foreground)
        return 0;
    int r = zc_log_open(j->log_file);
    return r < 0 ? zc_error_set(err, r, "cannot write the log '%s': %s", j->log_file, strerror(-r))
                 : 0;
}

/* ------------------------------------------------------------------ the daemon's process */

static int mount_say(int fd, char what, const char *words)
{
    char msg[sizeof(((struct zc_error *)0)->text) + 1] = {what};
    size_t n = words ? strlen(words) : 0;
    if (n)
        memcpy(msg + 1, words, n);
    ssize_t w;
    do
        w = write(fd, msg, n + 1);
    while (w < 0 && errno == EINTR);
    return w == (ssize_t)n + 1 ? 0 : -1;
}

static int mount_ready_pipe(void *user, const char *words)
{
    int *fd = user;
    int r = mount_say(*fd, 'R', words);
    close(*fd);
    *fd = -1;
    return r;
}

static int mount_ready_foreground(void *user, const char *words)
{
    return 0;
}

/* A daemon holds nothing of who started it: no terminal, no folder, no descriptors. */
static void mount_detach(int *keep)
{
    setsid();
    if (chdir("/") < 0)
        zc_warn("cannot change to '/': %s", strerror(errno));
    umask(027);
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3 && null >= 0; fd++)
        dup2(null, fd);
    if (*keep != 3)
        dup3(*keep, 3, O_CLOEXEC);
    *keep = 3;
    close_range(4, ~0U, 0);
}

static int mount_child(struct mount_job *j, int fd)
{
    struct zc_error err = {0};
    mount_detach(&fd);
    int r = mount_open_log(j, &err);
    if (r == 0)
        r = zc_daemon_run(&j->cfg, mount_ready_pipe, &fd, &err);
    if (r < 0) {
        const char *words = err.text[0] ? err.text : strerror(-r);
        zc_err("%s", words);
        if (fd >= 0)
            mount_say(fd, 'E', words);
    }
    if (fd >= 0)
        close(fd);
    return r < 0 ? ZC_EXIT_FAIL : ZC_EXIT_OK;
}

/* ------------------------------------------------------------------ the command's process */

static volatile sig_atomic_t mount_child_pid;

/* Ctrl-C while the source does not answer: the daemon must not go on alone. */
static void mount_interrupted(int sig)
{
    if (mount_child_pid > 0)
        kill((pid_t)mount_child_pid, SIGTERM);
    _exit(128 + sig);
}

/* Each line of what the daemon has to say although it has mounted. */
static void mount_tell(char *words)
{
    char *rest;
    for (char *s = strtok_r(words, "\n", &rest); s; s = strtok_r(NULL, "\n", &rest))
        fprintf(stderr, "zcache: %s\n", s);
}

static int mount_wait(pid_t pid, int fd)
{
    char msg[sizeof(((struct zc_error *)0)->text) + 1];
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, msg + len, sizeof(msg) - 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        len += (size_t)n;
        if (msg[0] == 'R') {
            msg[len] = 0; /* what is shorter than PIPE_BUF comes in one piece */
            mount_tell(msg + 1);
            return ZC_EXIT_OK;
        }
        if (len == sizeof(msg) - 1)
            break;
    }
    msg[len] = 0;
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (len > 1)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", msg + 1);
    if (WIFSIGNALED(status))
        return zc_cli_fail(ZC_EXIT_FAIL, "the daemon died of signal %d (%s) before it had mounted",
                           WTERMSIG(status), strsignal(WTERMSIG(status)));
    return zc_cli_fail(ZC_EXIT_FAIL, "the daemon ended before it had mounted");
}

static int mount_fork(struct mount_job *j)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC) < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "cannot start the daemon: %s", strerror(errno));
    if (pid == 0) {
        close(fds[0]);
        return mount_child(j, fds[1]);
    }
    close(fds[1]);
    struct sigaction sa = {.sa_handler = mount_interrupted};
    mount_child_pid = pid;
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    int status = mount_wait(pid, fds[0]);
    close(fds[0]);
    return status;
}

static int mount_run(struct mount_job *j, const char *point)
{
    struct zc_error err = {0};
    if (mount_prepare(j, point, &err) < 0)
        return zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text);
    if (!j->plan.o.foreground)
        return mount_fork(j);
    int r = mount_open_log(j, &err);
    if (r == 0)
        r = zc_daemon_run(&j->cfg, mount_ready_foreground, NULL, &err);
    return r < 0 ? zc_cli_fail(ZC_EXIT_FAIL, "%s", err.text[0] ? err.text : strerror(-r))
                 : ZC_EXIT_OK;
}

/* ------------------------------------------------------------------ the two ways to call it */

/* The words are SOURCE, or /PATH=SOURCE of each. */
static int mount_understand(struct mount_job *j, char *const *words, size_t n, struct zc_error *err)
{
    int r = 0;
    for (size_t i = 0; i < n && r == 0; i++)
        r = zc_plan_add_word(&j->plan, words[i], err);
    if (r == 0 && j->plan.o.config)
        r = zc_plan_read(&j->plan, j->plan.o.config, err);
    if (r == 0 && j->plan.n == 0)
        r = zc_error_set(
            err, -EINVAL,
            "mount takes a SOURCE (or several as /PATH=SOURCE, or --config FILE) and a "
            "MOUNTPOINT");
    return r < 0 ? r : zc_plan_finish(&j->plan, geteuid(), err);
}

static void mount_note_rw(const struct mount_job *j)
{
    if (j->plan.args.rw)
        fputs("zcache: note: this version does not write; mounted read-only\n", stderr);
}

int zc_cmd_mount(int argc, char **argv)
{
    struct mount_job j = {0};
    struct zc_error err = {0};
    int status;

    zc_plan_init(&j.plan);
    struct zc_opt_args *args = &j.plan.args;
    if (zc_opt_parse(zc_mount_table, true, argc, argv, &j.plan.o, args, &err) < 0) {
        status = zc_cli_usage("mount", &err);
    } else if (args->help) {
        status = zc_cli_help("mount");
    } else if (args->n_pos < (j.plan.o.config ? 1 : 2)) {
        zc_error_set(&err, -EINVAL,
                     "mount takes a SOURCE (or several as /PATH=SOURCE, or --config FILE) and a "
                     "MOUNTPOINT, %zu given",
                     args->n_pos);
        status = zc_cli_usage("mount", &err);
    } else if (strstr(args->pos[args->n_pos - 1], "://")) {
        zc_error_set(&err, -EINVAL, "'%.300s' is a source; the MOUNTPOINT comes last",
                     args->pos[args->n_pos - 1]);
        status = zc_cli_usage("mount", &err);
    } else if (args->rw) {
        zc_error_set(&err, -EINVAL, "-o rw: this version mounts read-only");
        status = zc_cli_usage("mount", &err);
    } else if (mount_understand(&j, args->pos, args->n_pos - 1, &err) < 0) {
        status = zc_cli_usage("mount", &err);
    } else {
        status = mount_run(&j, args->pos[args->n_pos - 1]);
    }
    mount_job_free(&j);
    return status;
}

/* A group of the flags that mount(8) passes on: sloppy, fake, no mtab, verbose. */
static bool mount_helper_flags(const char *a)
{
    return a[0] == '-' && a[1] && strspn(a + 1, "sfnv") == strlen(a + 1);
}

/* With a configuration file, fstab's first field says nothing; it must be some word, though. */
static int mount_helper_understand(struct mount_job *j, char *source, struct zc_error *err)
{
    bool none = strcmp(source, "none") == 0 || strcmp(source, "zcache") == 0;
    if (j->plan.o.config && !none)
        return zc_error_set(err, -EINVAL,
                            "'%.200s' and -o config name sources both: write 'none' in place of "
                            "the first",
                            source);
    return mount_understand(j, &source, j->plan.o.config ? 0 : 1, err);
}

/* mount(8) says "rw" unless it was told "ro", also for "defaults"; so it is noted and not refused.
 */
int zc_cmd_mount_helper(int argc, char **argv)
{
    struct mount_job j = {0};
    struct zc_error err = {0};
    char *pos[2] = {NULL, NULL};
    size_t n_pos = 0;
    bool sloppy = false, fake = false;
    int status, r = 0;

    zc_plan_init(&j.plan);
    struct zc_opt_args *args = &j.plan.args;
    /* -s counts wherever it stands. */
    for (int i = 1; i < argc; i++)
        sloppy |= mount_helper_flags(argv[i]) && strchr(argv[i], 's');
    for (int i = 1; i < argc && r == 0; i++) {
        char *a = argv[i];
        bool has_value = i + 1 < argc;
        if (a[0] != '-' && n_pos < 2)
            pos[n_pos++] = a;
        else if (strcmp(a, "-o") == 0 && has_value)
            r = zc_opt_parse_o(zc_mount_table, argv[++i], sloppy, &j.plan.o, args, &err);
        else if (strcmp(a, "-t") == 0 && has_value)
            i++;
        else if (mount_helper_flags(a))
            fake |= strchr(a, 'f') != NULL;
        else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0)
            args->help = true;
        else
            r = zc_error_set(&err, -EINVAL,
                             "mount.zcache: '%s' is not understood; it is called by mount(8)", a);
    }
    if (args->help) {
        puts("Usage: mount.zcache SOURCE MOUNTPOINT [-sfnv] [-o OPTION[,OPTION=VALUE...]]\n"
             "Called by mount(8) for file systems of type zcache. The options are those of 'zcache "
             "mount --help'; with config=FILE the SOURCE is 'none'.");
        status = ZC_EXIT_OK;
    } else if (r == 0 && n_pos != 2) {
        zc_error_set(&err, -EINVAL, "mount.zcache takes a source and a mount point");
        status = zc_cli_usage("mount", &err);
    } else if (r < 0 || mount_helper_understand(&j, pos[0], &err) < 0) {
        status = zc_cli_usage("mount", &err);
    } else if (fake) {
        status = ZC_EXIT_OK;
    } else {
        mount_note_rw(&j);
        status = mount_run(&j, pos[1]);
    }
    mount_job_free(&j);
    return status;
}
