/* SPDX-License-Identifier: Apache-2.0 */
#include "http/ctl_body.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_ctl_body b;
    struct zc_error err = {0};
    if (zc_ctl_body_parse((const char *)data, size, &b, &err) < 0) {
        json_decref(zc_ctl_text(err.text));
        return 0;
    }
    for (size_t i = 0; i < b.n; i++) {
        size_t n = strlen(b.paths[i]);
        if (n && (b.paths[i][0] == '/' || b.paths[i][n - 1] == '/'))
            __builtin_trap();
    }
    zc_ctl_body_free(&b);
    return 0;
}
