/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <syslog.h>

enum zc_log_level zc_log_level_now = ZC_LOG_WARN;
static int log_fd = STDERR_FILENO;
static bool log_to_syslog;

static const char *const level_words[] = {"error", "warn", "info", "debug"};

void zc_log_set_level(enum zc_log_level level)
{
    zc_log_level_now = level;
}

int zc_log_parse_level(const char *word, enum zc_log_level *out)
{
    for (size_t i = 0; i < ZC_ARRAY_SIZE(level_words); i++) {
        if (strcmp(word, level_words[i]) == 0) {
            *out = (enum zc_log_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

int zc_log_open(const char *path)
{
    if (!path) {
        openlog("zcache", LOG_PID, LOG_DAEMON);
        log_to_syslog = true;
        return 0;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (fd < 0)
        return -errno;
    if (log_fd != STDERR_FILENO)
        close(log_fd);
    log_fd = fd;
    log_to_syslog = false;
    return 0;
}

void zc_log_write(enum zc_log_level level, const char *fmt, ...)
{
    static const int priorities[] = {LOG_ERR, LOG_WARNING, LOG_INFO, LOG_DEBUG};
    char line[2048];
    struct timespec ts;
    struct tm tm;
    va_list ap;

    va_start(ap, fmt);
    if (log_to_syslog) {
        vsyslog(priorities[level], fmt, ap);
        va_end(ap);
        return;
    }
    clock_gettime(CLOCK_REALTIME, &ts);
    gmtime_r(&ts.tv_sec, &tm);
    size_t n = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
    n += (size_t)snprintf(line + n, sizeof(line) - n, ".%03ldZ %-5s ", ts.tv_nsec / 1000000,
                          level_words[level]);
    int m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    if (m > 0)
        n = ZC_MIN(n + (size_t)m, sizeof(line) - 2);
    /* A newline in a name or a server's words must not forge a line of its own. */
    for (size_t i = 0; i < n; i++) {
        if ((unsigned char)line[i] < 0x20)
            line[i] = ' ';
    }
    line[n++] = '\n';
    ssize_t w = write(log_fd, line, n);
    (void)w;
}
