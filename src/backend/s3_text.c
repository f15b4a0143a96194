/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Version tokens. An object's ETag proves its bytes: "e" and the ETag, quotes included. Stores
 * exist that have none (gateways over a file system, for files that were put there by hand): "t",
 * the seconds of its last modification and its size. Listings tell the time with milliseconds and
 * headers without, so that seconds are all that can be compared; a second overwrite within one
 * second that keeps the size goes unseen there.
 */
#include "backend/s3_text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- dates ---- */

static const char text_months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
static const char text_days[] = "SunMonTueWedThuFriSat";

static int text_digits(const char *s, size_t n)
{
    int v = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        v = v * 10 + (s[i] - '0');
    }
    return v;
}

static int64_t text_unix(int year, int mon, int day, int h, int m, int s)
{
    /* Days since the epoch of a date in the Gregorian calendar, years counted from March. */
    int64_t y = mon <= 2 ? year - 1 : year;
    int64_t doy = (153 * (mon + (mon > 2 ? -3 : 9)) + 2) / 5 + day - 1;
    int64_t days = y * 365 + y / 4 - y / 100 + y / 400 + doy - 719468;
    return ((days * 24 + h) * 60 + m) * 60 + s;
}

static int text_date_parts(const char *date[6], const size_t len[6], int mon, int64_t *out)
{
    int v[6];
    for (int i = 0; i < 6; i++) {
        v[i] = i == 1 && mon ? mon : text_digits(date[i], len[i]);
        if (v[i] < 0)
            return -EINVAL;
    }
    if (v[0] < 1970 || v[0] > 2261 || v[1] < 1 || v[1] > 12 || v[2] < 1 || v[2] > 31 || v[3] > 23 ||
        v[4] > 59 || v[5] > 60)
        return -EINVAL;
    *out = text_unix(v[0], v[1], v[2], v[3], v[4], v[5]);
    return 0;
}

int s3_text_date(const char *s, size_t n, int64_t *ns)
{
    static const size_t len[6] = {4, 2, 2, 2, 2, 2};
    int64_t sec, frac = 0;
    if (n >= 29 && s[3] == ',' && s[4] == ' ') {
        int mon = 0;
        for (int i = 0; i < 12; i++)
            if (memcmp(text_months + 3 * i, s + 8, 3) == 0)
                mon = i + 1;
        const char *p[6] = {s + 12, s + 8, s + 5, s + 17, s + 20, s + 23};
        if (!mon || n != 29 || memcmp(s + 25, " GMT", 4) != 0 || s[19] != ':' || s[22] != ':')
            return -EINVAL;
        if (text_date_parts(p, len, mon, &sec) < 0)
            return -EINVAL;
    } else {
        if (n < 20 || s[4] != '-' || s[7] != '-' || s[10] != 'T' || s[13] != ':' || s[16] != ':')
            return -EINVAL;
        const char *p[6] = {s, s + 5, s + 8, s + 11, s + 14, s + 17};
        if (text_date_parts(p, len, 0, &sec) < 0)
            return -EINVAL;
        size_t i = 19;
        if (s[i] == '.') {
            int64_t unit = ZC_NS_PER_S / 10;
            for (i++; i < n && s[i] >= '0' && s[i] <= '9'; i++, unit /= 10)
                frac += (s[i] - '0') * unit;
        }
        if (i + 1 != n || s[i] != 'Z')
            return -EINVAL;
    }
    *ns = sec * ZC_NS_PER_S + frac;
    return 0;
}

void s3_text_http_date(int64_t unix_s, char out[30])
{
    time_t t = (time_t)unix_s;
    struct tm tm;
    char text[80];
    if (!gmtime_r(&t, &tm))
        memset(&tm, 0, sizeof(tm));
    snprintf(text, sizeof(text), "%.3s, %02d %.3s %04d %02d:%02d:%02d GMT",
             text_days + (tm.tm_wday % 7) * 3, tm.tm_mday, text_months + (tm.tm_mon % 12) * 3,
             tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
    text[29] = '\0';
    memcpy(out, text, 30);
}

/* ---- ranges ---- */

static int text_number(const char **s, const char *end, uint64_t *out)
{
    const char *p = *s;
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9') {
        unsigned d = (unsigned)(*p++ - '0');
        if (v > (UINT64_MAX / 2 - d) / 10)
            return -EINVAL;
        v = v * 10 + d;
    }
    if (p == *s)
        return -EINVAL;
    *s = p;
    *out = v;
    return 0;
}

int s3_text_content_range(const char *s, size_t n, uint64_t *first, uint64_t *last, uint64_t *total)
{
    const char *end = s + n;
    uint64_t a, b, t = UINT64_MAX;
    if (n < 6 || strncasecmp(s, "bytes ", 6) != 0)
        return -EINVAL;
    s += 6;
    if (text_number(&s, end, &a) < 0 || s == end || *s++ != '-')
        return -EINVAL;
    if (text_number(&s, end, &b) < 0 || s == end || *s++ != '/')
        return -EINVAL;
    if (s < end && *s == '*')
        s++;
    else if (text_number(&s, end, &t) < 0)
        return -EINVAL;
    if (s != end || a > b || b >= t)
        return -EINVAL;
    *first = a;
    *last = b;
    *total = t;
    return 0;
}

/* ---- versions ---- */

static bool text_etag_ok(const char *s, size_t n)
{
    if (n == 0 || n > ZC_VERSION_MAX - 3)
        return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x21 || s[i] == 0x7f)
            return false;
    return true;
}

void s3_text_version(const char *etag, size_t n, int64_t mtime_ns, uint64_t size,
                     char out[ZC_VERSION_MAX + 1])
{
    if (text_etag_ok(etag, n)) {
        bool quoted = etag[n - 1] == '"';
        snprintf(out, ZC_VERSION_MAX + 1, "e%s%.*s%s", quoted ? "" : "\"", (int)n, etag,
                 quoted ? "" : "\"");
    } else if (mtime_ns > 0) {
        snprintf(out, ZC_VERSION_MAX + 1, "t%" PRId64 ":%" PRIu64, mtime_ns / ZC_NS_PER_S, size);
    } else {
        out[0] = '\0';
    }
}

int s3_text_version_parse(const char *version, const char **etag, int64_t *mtime_s, uint64_t *size)
{
    uint64_t t, n;
    *etag = NULL;
    if (version[0] == 'e' && version[1]) {
        *etag = version + 1;
        return 0;
    }
    const char *s = version + 1, *end = version + strlen(version);
    if (version[0] != 't' || text_number(&s, end, &t) < 0 || *s++ != ':' ||
        text_number(&s, end, &n) < 0 || *s)
        return -EINVAL;
    *mtime_s = (int64_t)t;
    *size = n;
    return 0;
}

/* ---- names ---- */

static int text_hex(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

size_t s3_text_urldecode(char *s, size_t n)
{
    size_t o = 0;
    for (size_t i = 0; i < n; i++) {
        int hi, lo;
        if (s[i] == '%' && n - i > 2 && (hi = text_hex(s[i + 1])) >= 0 &&
            (lo = text_hex(s[i + 2])) >= 0) {
            s[o++] = (char)(hi << 4 | lo);
            i += 2;
        } else {
            s[o++] = s[i] == '+' ? ' ' : s[i];
        }
    }
    return o;
}

bool s3_text_utf8(const char *str, size_t n)
{
    const unsigned char *s = (const unsigned char *)str, *end = s + n;
    while (s < end) {
        unsigned c = *s++, more, low = 0x80, high = 0xbf;
        if (c < 0x80)
            continue;
        if (c >= 0xc2 && c <= 0xdf)
            more = 1;
        else if (c >= 0xe0 && c <= 0xef)
            more = 2;
        else if (c >= 0xf0 && c <= 0xf4)
            more = 3;
        else
            return false;
        if (c == 0xe0)
            low = 0xa0;
        else if (c == 0xed)
            high = 0x9f;
        else if (c == 0xf0)
            low = 0x90;
        else if (c == 0xf4)
            high = 0x8f;
        for (; more; more--, low = 0x80, high = 0xbf)
            if (s == end || *s < low || *s++ > high)
                return false;
    }
    return true;
}

bool s3_text_name_ok(const char *s, size_t n)
{
    if (n == 0 || n > 255 || memchr(s, '/', n) || memchr(s, '\0', n))
        return false;
    if ((n == 1 && s[0] == '.') || (n == 2 && s[0] == '.' && s[1] == '.'))
        return false;
    return s3_text_utf8(s, n);
}
