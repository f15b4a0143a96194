/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words that go with a negative errno where a person will read them: which option, which
 * provider, what to do. Functions that can fail for a reason a user can mend take one as their
 * last parameter (may be NULL) and return its code.
 */
#ifndef ZC_ERROR_H
#define ZC_ERROR_H

#include "base/base.h"

struct zc_error {
    int code;        /* negative errno; 0 when nothing was set */
    char text[1000]; /* one sentence or two, without a newline at the end */
};

/* Fills *e (unless NULL) and returns code, which must be negative. */
int zc_error_set(struct zc_error *e, int code, const char *fmt, ...) ZC_PRINTF(3, 4);
/* Puts "prefix: " before the text. */
void zc_error_prefix(struct zc_error *e, const char *fmt, ...) ZC_PRINTF(2, 3);

#endif
