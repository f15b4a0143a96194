/* SPDX-License-Identifier: Apache-2.0 */
#include "base/units.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Digits with at most one point, as a number; *end is what follows. strtod would also take hex,
   "inf" and the locale's comma. */
static int units_number(const char *s, long double *out, const char **end)
{
    long double v = 0, scale = 1;
    bool digit = false, point = false;
    for (;; s++) {
        if (isdigit((unsigned char)*s)) {
            digit = true;
            v = v * 10 + (*s - '0');
            if (point)
                scale *= 10;
        } else if (*s == '.' && !point) {
            point = true;
        } else {
            break;
        }
    }
    if (!digit)
        return -EINVAL;
    *out = v / scale;
    *end = s;
    return 0;
}

struct units_unit {
    const char *word;
    long double factor;
};

static int units_scaled(const char *s, const struct units_unit *units, size_t n, uint64_t *out)
{
    long double v;
    const char *unit;
    if (units_number(s, &v, &unit) < 0)
        return -EINVAL;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(unit, units[i].word) != 0)
            continue;
        v *= units[i].factor;
        if (v > (long double)INT64_MAX)
            return -ERANGE;
        *out = (uint64_t)(v + 0.5L);
        return 0;
    }
    return -EINVAL;
}

int zc_parse_size(const char *s, uint64_t *bytes)
{
    static const struct units_unit units[] = {
        {"B", 1},         {"KiB", 0x1p10L}, {"MiB", 0x1p20L}, {"GiB", 0x1p30L},
        {"TiB", 0x1p40L}, {"PiB", 0x1p50L}, {"KB", 1e3L},     {"MB", 1e6L},
        {"GB", 1e9L},     {"TB", 1e12L},    {"PB", 1e15L},
    };
    return units_scaled(s, units, ZC_ARRAY_SIZE(units), bytes);
}

int zc_parse_duration(const char *s, int64_t *ns)
{
    static const struct units_unit units[] = {
        {"ms", 1e6L}, {"s", 1e9L}, {"m", 60e9L}, {"h", 3600e9L}, {"d", 86400e9L},
    };
    uint64_t v;
    if (strcmp(s, "0") == 0) {
        *ns = 0;
        return 0;
    }
    int r = units_scaled(s, units, ZC_ARRAY_SIZE(units), &v);
    if (r == 0)
        *ns = (int64_t)v;
    return r;
}

int zc_parse_ratio(const char *s, double *ratio)
{
    long double v;
    const char *end;
    if (units_number(s, &v, &end) < 0)
        return -EINVAL;
    if (strcmp(end, "%") == 0)
        v /= 100;
    else if (*end)
        return -EINVAL;
    if (v > 1)
        return -ERANGE;
    *ratio = (double)v;
    return 0;
}

int zc_parse_uint(const char *s, uint64_t min, uint64_t max, uint64_t *out)
{
    uint64_t v = 0;
    if (!*s)
        return -EINVAL;
    for (; *s; s++) {
        if (!isdigit((unsigned char)*s))
            return -EINVAL;
        uint64_t d = (uint64_t)(*s - '0');
        if (v > (UINT64_MAX - d) / 10)
            return -ERANGE;
        v = v * 10 + d;
    }
    if (v < min || v > max)
        return -ERANGE;
    *out = v;
    return 0;
}

const char *zc_format_size(uint64_t bytes, char *buf, size_t n)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    double v = (double)bytes;
    size_t u = 0;
    while (v >= 1024 && u + 1 < ZC_ARRAY_SIZE(units)) {
        v /= 1024;
        u++;
    }
    if (u == 0)
        snprintf(buf, n, "%u B", (unsigned)bytes);
    else
        snprintf(buf, n, "%.1f %s", v, units[u]);
    return buf;
}
