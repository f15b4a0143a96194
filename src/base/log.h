/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The log: one line an event, to stderr until zc_log_open() sends it elsewhere.
 * Any thread may log; a line is written with one write(2). It is the one mutable global.
 */
#ifndef ZC_LOG_H
#define ZC_LOG_H

#include "base/base.h"

enum zc_log_level { ZC_LOG_ERR, ZC_LOG_WARN, ZC_LOG_INFO, ZC_LOG_DEBUG };

/* Lines above this level are dropped. Default ZC_LOG_WARN. */
void zc_log_set_level(enum zc_log_level level);
/* "error", "warn", "info", "debug" -> level; -EINVAL for another word. */
int zc_log_parse_level(const char *word, enum zc_log_level *out);
/* Appends to `path` from now on, or to the system log when path is NULL. -errno on failure. */
int zc_log_open(const char *path);

void zc_log_write(enum zc_log_level level, const char *fmt, ...) ZC_PRINTF(2, 3);
extern enum zc_log_level zc_log_level_now;

#define zc_log_at(lvl, ...)                                                                        \
    do {                                                                                           \
        if ((lvl) <= zc_log_level_now)                                                             \
            zc_log_write((lvl), __VA_ARGS__);                                                      \
    } while (0)
#define zc_err(...) zc_log_at(ZC_LOG_ERR, __VA_ARGS__)
#define zc_warn(...) zc_log_at(ZC_LOG_WARN, __VA_ARGS__)
#define zc_info(...) zc_log_at(ZC_LOG_INFO, __VA_ARGS__)
#define zc_debug(...) zc_log_at(ZC_LOG_DEBUG, __VA_ARGS__)

#endif
