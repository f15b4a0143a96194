/* SPDX-License-Identifier: Apache-2.0 */
/* STS's XML. */
#include "backend/s3_cred_priv.h"

#include <errno.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_error why = {0};
    struct s3_fields f = {0};
    int r = s3_decode_sts((const char *)data, size, &f, &why);
    if (r == 0) {
        if (!s3_token_ok(f.id, 256) || !s3_token_ok(f.secret, 1024) || !f.expires_ns ||
            (f.token && !s3_token_ok(f.token, 16 << 10)))
            __builtin_trap();
        s3_fields_free(&f);
    } else if (f.id || f.secret || f.token || why.code != r) {
        __builtin_trap();
    }
    return 0;
}
