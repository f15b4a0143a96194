/* SPDX-License-Identifier: Apache-2.0 */
#include "http/ctl_body.h"

#include <string.h>

static void fuzz_source(const uint8_t *data, size_t size, bool add)
{
    struct zc_ctl_source s;
    struct zc_error err = {0};
    if (zc_ctl_source_parse((const char *)data, size, add, &s, &err) < 0) {
        if (!err.text[0])
            __builtin_trap();
        return;
    }
    size_t n = strlen(s.path);
    if ((n && (s.path[0] == '/' || s.path[n - 1] == '/')) || (add && !s.source))
        __builtin_trap();
    for (size_t i = 0; i < s.n; i++)
        n += strlen(s.options[i].name) + (s.options[i].value ? strlen(s.options[i].value) : 0);
    zc_ctl_source_free(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_source(data, size, true);
    fuzz_source(data, size, false);
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
