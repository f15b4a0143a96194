/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/mntinfo.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    zc_autofree char *text = strndup((const char *)data, size);
    struct zc_mnts m;
    if (!text || zc_mnts_parse(text, &m) < 0)
        return 0;
    for (size_t i = 0; i < m.n; i++) {
        if (!zc_mnts_at(&m, m.m[i].point) || !zc_mnts_of(&m, m.m[i].point))
            __builtin_trap();
        zc_mnt_is_ours(&m.m[i]);
    }
    zc_mnts_free(&m);
    return 0;
}
