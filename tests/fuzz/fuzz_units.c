/* SPDX-License-Identifier: Apache-2.0 */
/* Sizes, durations, ratios and numbers from command lines and configuration files. */
#include "base/units.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t v;
    int64_t ns;
    double ratio;
    zc_autofree char *s = malloc(size + 1);
    if (!s)
        return 0;
    memcpy(s, data, size);
    s[size] = '\0';
    if (zc_parse_size(s, &v) == 0) {
        char buf[24];
        zc_format_size(v, buf, sizeof(buf));
        if (v > INT64_MAX)
            abort();
    }
    if (zc_parse_duration(s, &ns) == 0 && ns < 0)
        abort();
    if (zc_parse_ratio(s, &ratio) == 0 && !(ratio >= 0 && ratio <= 1))
        abort();
    if (zc_parse_uint(s, 3, 99, &v) == 0 && (v < 3 || v > 99))
        abort();
    return 0;
}
