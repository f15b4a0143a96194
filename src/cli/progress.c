/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/progress.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

#define RATE_STEP_NS (ZC_NS_PER_S / 2)
#define BAR_MAX 30

void zc_rate_add(struct zc_rate *r, int64_t now_ns, uint64_t bytes)
{
    unsigned cap = (unsigned)ZC_ARRAY_SIZE(r->at);
    if (r->n && now_ns - r->at[r->n - 1].ns < RATE_STEP_NS)
        return;
    if (r->n == cap) {
        memmove(r->at, r->at + 1, (cap - 1) * sizeof(r->at[0]));
        r->n--;
    }
    r->at[r->n].ns = now_ns;
    r->at[r->n++].bytes = bytes;
}

uint64_t zc_rate_now(const struct zc_rate *r)
{
    if (r->n < 2)
        return 0;
    double s = (double)(r->at[r->n - 1].ns - r->at[0].ns) / 1e9;
    uint64_t a = r->at[0].bytes, b = r->at[r->n - 1].bytes;
    return s > 0 && b > a ? (uint64_t)((double)(b - a) / s) : 0;
}

const char *zc_format_count(uint64_t n, char *buf, size_t size)
{
    char digits[24];
    int len = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)n);
    size_t w = 0;
    for (int i = 0; i < len && w + 2 < size; i++) {
        if (i && (len - i) % 3 == 0)
            buf[w++] = ',';
        buf[w++] = digits[i];
    }
    buf[w] = 0;
    return buf;
}

const char *zc_format_time(uint64_t seconds, char *buf, size_t n)
{
    if (seconds >= 3600)
        snprintf(buf, n, "%llu:%02u:%02u", (unsigned long long)(seconds / 3600),
                 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
    else
        snprintf(buf, n, "%u:%02u", (unsigned)(seconds / 60), (unsigned)(seconds % 60));
    return buf;
}

static uint64_t progress_left(const struct zc_progress *p, uint64_t rate)
{
    return rate && p->bytes_found > p->bytes_done ? (p->bytes_found - p->bytes_done) / rate : 0;
}

void zc_progress_line(const struct zc_progress *p, const struct zc_rate *r, struct zc_buf *out)
{
    char a[32], b[32], c[24], d[24], e[24], t[24];
    uint64_t rate = zc_rate_now(r);
    const char *least = p->listed ? "" : "at least ";
    zc_buf_addf(out, "%s of %s%s files, %s of %s%s, %s/s",
                zc_format_count(p->files_done, a, sizeof(a)), least,
                zc_format_count(p->files_found, b, sizeof(b)),
                zc_format_size(p->bytes_done, c, sizeof(c)), least,
                zc_format_size(p->bytes_found, d, sizeof(d)), zc_format_size(rate, e, sizeof(e)));
    if (p->listed && rate)
        zc_buf_addf(out, ", %s left", zc_format_time(progress_left(p, rate), t, sizeof(t)));
    else if (!p->listed)
        zc_buf_adds(out, ", still listing");
    if (p->failed)
        zc_buf_addf(out, ", %s failed", zc_format_count(p->failed, a, sizeof(a)));
}

void zc_progress_bar(const struct zc_progress *p, const struct zc_rate *r, unsigned columns,
                     struct zc_buf *out)
{
    zc_autobuf struct zc_buf text = {0};
    zc_progress_line(p, r, &text);
    if (!text.p)
        return;
    unsigned room = columns > text.len + 4 ? columns - (unsigned)text.len - 4 : 0;
    unsigned width = ZC_MIN(room, (unsigned)BAR_MAX);
    /* Until all is listed nobody knows which share of it is done. */
    if (width >= 5 && p->listed) {
        unsigned fill = p->bytes_found
                            ? (unsigned)((double)p->bytes_done / (double)p->bytes_found * width)
                            : width;
        zc_buf_addc(out, '[');
        for (unsigned i = 0; i < width; i++)
            zc_buf_addc(out, i < fill ? '#' : '.');
        zc_buf_adds(out, "] ");
    }
    zc_buf_add(out, text.p, columns ? ZC_MIN(text.len, (size_t)columns - 1) : text.len);
}

void zc_progress_summary(const struct zc_progress *p, int64_t took_ns, bool cancelled,
                         struct zc_buf *out)
{
    char a[32], b[32], c[24], d[24], e[24];
    uint64_t got = p->bytes_done - ZC_MIN(p->bytes_hit, p->bytes_done);
    double s = (double)took_ns / 1e9;
    zc_buf_addf(out, "%s %s files, %s: fetched %s, there before %s, in %.1f s (%s/s)",
                cancelled ? "cancelled after" : "warmed",
                zc_format_count(p->files_done, a, sizeof(a)),
                zc_format_size(p->bytes_done, c, sizeof(c)), zc_format_size(got, d, sizeof(d)),
                zc_format_size(p->bytes_done - got, e, sizeof(e)), s,
                zc_format_size(s > 0 ? (uint64_t)((double)got / s) : 0, b, sizeof(b)));
    if (p->failed)
        zc_buf_addf(out, "; %s failed", zc_format_count(p->failed, a, sizeof(a)));
    if (p->gone)
        zc_buf_addf(out, "; %s left the cache again", zc_format_count(p->gone, a, sizeof(a)));
}
