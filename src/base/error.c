/* SPDX-License-Identifier: Apache-2.0 */
#include "base/error.h"

#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int zc_error_set(struct zc_error *e, int code, const char *fmt, ...)
{
    assert(code < 0);
    if (!e)
        return code;
    va_list ap;
    va_start(ap, fmt);
    e->code = code;
    vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    return code;
}

void zc_error_prefix(struct zc_error *e, const char *fmt, ...)
{
    if (!e)
        return;
    char old[sizeof(e->text)];
    memcpy(old, e->text, sizeof(old));
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(e->text, sizeof(e->text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(e->text) - 3)
        return;
    size_t left = sizeof(e->text) - (size_t)n;
    snprintf(e->text + n, left, ": %.*s", (int)left - 3, old);
}
