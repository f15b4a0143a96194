/* SPDX-License-Identifier: Apache-2.0 */
/* Digests in hex: what parses must print as it was read. */
#include "base/digest.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_digest d;
    char hex[ZC_DIGEST_HEX + 1];
    zc_autofree char *s = malloc(size + 1);
    if (!s)
        return 0;
    if (size)
        memcpy(s, data, size);
    s[size] = '\0';
    if (zc_digest_parse(s, &d) == 0) {
        zc_digest_hex(hex, d);
        if (memcmp(hex, s, ZC_DIGEST_HEX) != 0)
            abort();
    }
    return 0;
}
