/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations and shares as a person writes them. */
#ifndef ZC_UNITS_H
#define ZC_UNITS_H

#include "base/base.h"

/* "100GiB", "8MiB", "512KiB", "1TiB", "4096B"; also KB, MB, GB, TB (powers of 1000) and fractions
   ("1.5GiB"). A bare number is refused (-EINVAL); past 2^63 - 1: -ERANGE. */
int zc_parse_size(const char *s, uint64_t *bytes);
/* "250ms", "60s", "5m", "2h", "7d" -> nanoseconds. A bare number is refused except "0". */
int zc_parse_duration(const char *s, int64_t *ns);
/* "0.1" or "10%" -> 0.1; outside [0, 1]: -ERANGE. */
int zc_parse_ratio(const char *s, double *ratio);
/* Whole decimal number in [min, max]. */
int zc_parse_uint(const char *s, uint64_t min, uint64_t max, uint64_t *out);
/* "1.5 GiB"; buf holds 24 bytes or more. Returns buf. */
const char *zc_format_size(uint64_t bytes, char *buf, size_t n);

#endif
