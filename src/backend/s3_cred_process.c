/* SPDX-License-Identifier: Apache-2.0 */
/*
 * credential_process: a command of the profile prints keys as JSON. It is cut into words as a shell
 * would, but no shell runs it: nothing in it is expanded. It gets no descriptor of ours, its own
 * process group (so that what it starts ends with it), and a minute. Its output is read whole and
 * goes nowhere else; the last line of what it says on stderr is shown when it fails.
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html
 */
#include "backend/s3_cred_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#define PROCESS_TIME_NS (60 * ZC_NS_PER_S)
#define PROCESS_WORDS_MAX ((size_t)64 << 10)

extern char **environ;

/* ---- words ---- */

struct split {
    struct zc_buf word;
    char **argv;
    size_t n;
    bool open; /* a word has begun */
};

static int split_end(struct split *s)
{
    if (!s->open)
        return 0;
    char **more = reallocarray(s->argv, s->n + 2, sizeof(*more));
    if (!more)
        return -ENOMEM;
    s->argv = more;
    zc_buf_addc(&s->word, '\0');
    s->argv[s->n] = zc_buf_steal(&s->word);
    s->argv[s->n + 1] = NULL;
    s->open = false;
    return s->argv[s->n++] ? 0 : -ENOMEM;
}

static int split_all(struct split *s, const char *c)
{
    char quote = 0;
    for (; *c; c++) {
        int r = 0;
        if (quote == '\'' || (quote && *c != '\\')) {
            if (*c == quote)
                quote = 0;
            else
                r = zc_buf_addc(&s->word, *c);
        } else if (*c == '\\') {
            if (!c[1])
                return -EINVAL;
            /* In double quotes it stands for itself but before a quote or another one. */
            if (quote && c[1] != '"' && c[1] != '\\')
                r = zc_buf_addc(&s->word, '\\');
            if (r == 0)
                r = zc_buf_addc(&s->word, *++c);
            s->open = true;
        } else if (*c == '\'' || *c == '"') {
            quote = *c;
            s->open = true;
        } else if (*c == ' ' || *c == '\t' || *c == '\n' || *c == '\r') {
            r = split_end(s);
        } else {
            r = zc_buf_addc(&s->word, *c);
            s->open = true;
        }
        if (r < 0)
            return -ENOMEM;
    }
    return quote ? -EINVAL : split_end(s);
}

int s3_process_split(const char *command, char ***argv)
{
    struct split s = {0};
    int r = strlen(command) > PROCESS_WORDS_MAX ? -EINVAL : split_all(&s, command);
    zc_buf_free(&s.word);
    if (r == 0 && (s.n == 0 || !s.argv[0][0]))
        r = -EINVAL;
    if (r < 0) {
        s3_process_split_free(s.argv);
        return r;
    }
    *argv = s.argv;
    return 0;
}

void s3_process_split_free(char **argv)
{
    for (char **a = argv; a && *a; a++)
        free(*a);
    free(argv);
}

/* ---- running it ---- */

static int process_spawn(char **argv, int out, int err, pid_t *pid)
{
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawn_file_actions_init(&fa);
    posix_spawnattr_init(&at);
    int r = posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    r = r ? r : posix_spawn_file_actions_adddup2(&fa, out, 1);
    r = r ? r : posix_spawn_file_actions_adddup2(&fa, err, 2);
    r = r ? r : posix_spawn_file_actions_addclosefrom_np(&fa, 3);
    r = r ? r : posix_spawnattr_setsigmask(&at, &none);
    r = r ? r : posix_spawnattr_setsigdefault(&at, &all);
    r = r ? r : posix_spawnattr_setpgroup(&at, 0);
    r = r ? r
          : posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF |
                                              POSIX_SPAWN_SETPGROUP);
    r = r ? r : posix_spawnp(pid, argv[0], &fa, &at, argv, environ);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    return -r;
}

/* -1: at its end; 1: it has ended by a fault of ours or its size; 0: there may be more. */
static int process_read(int fd, struct zc_buf *b)
{
    for (;;) {
        if (zc_buf_reserve(b, 4096) < 0)
            return 1;
        ssize_t n = read(fd, b->p + b->len, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? 0 : 1;
        if (n == 0)
            return -1;
        b->len += (size_t)n;
    }
}

/* Reads both pipes until the process has ended: what it left running may hold them open. */
static int process_watch(struct s3_ctx *x, int pidfd, const int fds[2], struct zc_buf bufs[2])
{
    int64_t until = zc_now_ns() + PROCESS_TIME_NS;
    struct pollfd p[4] = {{.fd = fds[0], .events = POLLIN},
                          {.fd = fds[1], .events = POLLIN},
                          {.fd = pidfd, .events = POLLIN},
                          {.fd = x->stop_fd, .events = POLLIN}};
    for (;;) {
        int64_t left = until - zc_now_ns();
        if (left <= 0)
            return -ETIMEDOUT;
        int n = poll(p, 4, (int)(left / ZC_NS_PER_MS) + 1);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n <= 0)
            continue;
        if (p[3].revents)
            return -ECANCELED;
        for (int i = 0; i < 2; i++) {
            int r =
                p[i].fd >= 0 && (p[i].revents || p[2].revents) ? process_read(fds[i], &bufs[i]) : 0;
            if (r > 0)
                return -EMSGSIZE;
            if (r < 0)
                p[i].fd = -1;
        }
        if (p[2].revents)
            return 0;
    }
}

static int process_run(struct s3_ctx *x, char **argv, struct zc_buf bufs[2], int *status)
{
    int out[2] = {-1, -1}, err[2] = {-1, -1}, r = 0;
    pid_t pid = -1;
    if (pipe2(out, O_CLOEXEC) < 0 || pipe2(err, O_CLOEXEC) < 0)
        r = -errno;
    if (r == 0)
        r = process_spawn(argv, out[1], err[1], &pid);
    if (out[1] >= 0)
        close(out[1]);
    if (err[1] >= 0)
        close(err[1]);
    if (r == 0) {
        int fds[2] = {out[0], err[0]};
        zc_autoclose int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
        r = pidfd < 0 ? -errno : 0;
        for (int i = 0; i < 2 && r == 0; i++)
            if (fcntl(fds[i], F_SETFL, O_NONBLOCK) < 0)
                r = -errno;
        if (r == 0)
            r = process_watch(x, pidfd, fds, bufs);
        kill(-pid, SIGKILL); /* it has ended itself, or has to */
        while (waitpid(pid, status, 0) < 0 && errno == EINTR)
            ;
    }
    if (out[0] >= 0)
        close(out[0]);
    if (err[0] >= 0)
        close(err[0]);
    return r;
}

/* The last line that says something, made fit for a message. */
static void process_said(struct zc_buf *b, char *out, size_t n)
{
    out[0] = '\0';
    if (!b->len)
        return;
    zc_buf_addc(b, '\0');
    size_t end = strlen(b->p);
    while (end && (unsigned char)b->p[end - 1] <= 0x20)
        b->p[--end] = '\0';
    const char *line = strrchr(b->p, '\n');
    snprintf(out, n, "%s", line ? line + 1 : b->p);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

static int process_answer(const char *name, int status, struct zc_buf bufs[2],
                          struct s3_fields *out, struct zc_error *why)
{
    char said[300];
    process_said(&bufs[1], said, sizeof(said));
    if (WIFSIGNALED(status))
        return zc_error_set(why, -EACCES, "credential_process (%.200s) died of signal %d", name,
                            WTERMSIG(status));
    if (WEXITSTATUS(status) != 0)
        return zc_error_set(why, -EACCES, "credential_process (%.200s) ended with status %d%s%s",
                            name, WEXITSTATUS(status), said[0] ? ": " : "", said);
    int r = s3_decode_json(S3_ANSWER_PROCESS, bufs[0].p ? bufs[0].p : "", bufs[0].len, out, why);
    if (r < 0)
        zc_error_prefix(why, "credential_process (%.200s)", name);
    return r < 0 ? -EACCES : 0;
}

int s3_from_process(struct s3_ctx *x, const char *command, const char *profile,
                    struct s3_keys **out, struct zc_error *why)
{
    struct zc_buf bufs[2] = {{.max = S3_ASK_MAX}, {.max = S3_ASK_MAX}};
    struct s3_fields f = {0};
    char source[400];
    char **argv;
    int status = 0;
    int r = s3_process_split(command, &argv);
    if (r < 0)
        return zc_error_set(why, -EINVAL,
                            "credential_process of profile '%.100s' cannot be cut into words: is a "
                            "quote left open?",
                            profile);
    r = process_run(x, argv, bufs, &status);
    if (r == -ECANCELED)
        zc_error_set(why, r, "cancelled");
    else if (r == -ETIMEDOUT)
        r = zc_error_set(why, -EAGAIN, "credential_process (%.200s) did not end within %d s",
                         argv[0], (int)(PROCESS_TIME_NS / ZC_NS_PER_S));
    else if (r == -EMSGSIZE)
        r = zc_error_set(why, -EACCES, "credential_process (%.200s) prints too much", argv[0]);
    else if (r < 0)
        r = zc_error_set(why, -EACCES, "credential_process (%.200s) cannot be started: %s", argv[0],
                         strerror(-r));
    else
        r = process_answer(argv[0], status, bufs, &f, why);
    if (r == 0 && f.expires_ns && f.expires_ns <= zc_wall_ns()) {
        s3_fields_free(&f);
        r = zc_error_set(why, -EACCES, "credential_process (%.200s) prints keys that have expired",
                         argv[0]);
    }
    if (r == 0) {
        snprintf(source, sizeof(source), "credential_process of profile '%.100s' (%.200s)", profile,
                 argv[0]);
        r = s3_fields_keys(&f, 0, source, out, why);
    }
    for (int i = 0; i < 2; i++) {
        if (bufs[i].p)
            OPENSSL_cleanse(bufs[i].p, bufs[i].cap);
        zc_buf_free(&bufs[i]);
    }
    s3_process_split_free(argv);
    return r;
}
