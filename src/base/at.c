/* SPDX-License-Identifier: Apache-2.0 */
#include "base/at.h"

#include <errno.h>
#include <string.h>

static int at_bad(const char *at, const char *why, struct zc_error *err)
{
    return zc_error_set(err, -EINVAL, "'/%.200s' is no path to show a source at: %s", at, why);
}

int zc_at_check(const char *at, struct zc_error *err)
{
    if (strlen(at) > ZC_AT_MAX)
        return at_bad(at, "it is too long", err);
    for (const char *p = at; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 0 || (n == 1 && p[0] == '.') || (n == 2 && p[0] == '.' && p[1] == '.'))
            return at_bad(at, "it has an empty, '.' or '..' part", err);
        if (n > 255)
            return at_bad(at, "a part of it is longer than 255 bytes", err);
        p += n;
        if (*p && !*++p)
            return at_bad(at, "it ends with '/'", err);
    }
    return 0;
}

/* Is `low` the same as `high`, or below it? */
static bool at_below(const char *low, const char *high)
{
    size_t n = strlen(high);
    return n == 0 || (strncmp(low, high, n) == 0 && (low[n] == '/' || !low[n]));
}

bool zc_at_overlap(const char *a, const char *b)
{
    return at_below(a, b) || at_below(b, a);
}
