/* SPDX-License-Identifier: Apache-2.0 */
/* Words for a warm job: a bar on a terminal, a plain line now and then elsewhere, and a summary. */
#ifndef ZC_CLI_PROGRESS_H
#define ZC_CLI_PROGRESS_H

#include "base/base.h"
#include "base/buf.h"

/* Sums over all jobs. */
struct zc_progress {
    uint64_t files_found, bytes_found;
    uint64_t files_done, bytes_done;
    uint64_t files_hit, bytes_hit;
    uint64_t failed, gone;
    bool listed;
};

/* Rate over the last few seconds, from samples that are given as they come. */
struct zc_rate {
    struct {
        int64_t ns;
        uint64_t bytes;
    } at[16];
    unsigned n;
};
void zc_rate_add(struct zc_rate *r, int64_t now_ns, uint64_t bytes);
/* Bytes a second; 0 while it is not known. */
uint64_t zc_rate_now(const struct zc_rate *r);

/* "12,345" in a buffer of 32 bytes or more. */
const char *zc_format_count(uint64_t n, char *buf, size_t size);
/* "3:07" or "2:03:07". */
const char *zc_format_time(uint64_t seconds, char *buf, size_t n);
/* One line without a newline, at most `columns` wide with bar. */
void zc_progress_bar(const struct zc_progress *p, const struct zc_rate *r, unsigned columns,
                     struct zc_buf *out);
void zc_progress_line(const struct zc_progress *p, const struct zc_rate *r, struct zc_buf *out);
void zc_progress_summary(const struct zc_progress *p, int64_t took_ns, bool cancelled,
                         struct zc_buf *out);

#endif
