/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes from hex, for golden values. Spaces are skipped. */
#ifndef ZC_TESTS_HEXBYTES_H
#define ZC_TESTS_HEXBYTES_H

#include "unit.h"

#include <stdio.h>
#include <string.h>

static inline size_t hex_bytes(const char *hex, uint8_t *out, size_t max)
{
    size_t n = 0;
    while (*hex) {
        unsigned v;
        if (*hex == ' ') {
            hex++;
            continue;
        }
        assert_int_equal(sscanf(hex, "%2x", &v), 1);
        assert_true(n < max);
        out[n++] = (uint8_t)v;
        hex += 2;
    }
    return n;
}

static inline void assert_hex(const void *p, size_t n, const char *hex)
{
    uint8_t want[4096];
    size_t k = hex_bytes(hex, want, sizeof(want));
    assert_int_equal(n, k);
    assert_memory_equal(p, want, k);
}

#endif
