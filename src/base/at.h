/* SPDX-License-Identifier: Apache-2.0 */
/* Paths in a mount at which sources are shown: "" is all of it, "a/b" a directory in it. */
#ifndef ZC_AT_H
#define ZC_AT_H

#include "base/base.h"
#include "base/error.h"

#define ZC_AT_MAX 4000

/* Is this such a path? -EINVAL with words. */
int zc_at_check(const char *at, struct zc_error *err);
/* Are they the same, or is one in the other? */
bool zc_at_overlap(const char *a, const char *b);

#endif
