/* SPDX-License-Identifier: Apache-2.0 */
/* What a node says of itself: whatever decodes must encode to the same bytes, but for the flags and
   the end that later versions may use. */
#include "cluster/desc.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cluster_desc d, again;
    uint8_t out[ZC_DESC_MAX];
    if (cluster_desc_decode(data, size, &d) < 0)
        return 0;
    size_t n = cluster_desc_encode(out, &d);
    if (n > size || n > sizeof(out) || memcmp(out, data, 8) != 0 ||
        memcmp(out + 9, data + 9, n - 9) != 0)
        abort();
    if (cluster_desc_decode(out, n, &again) < 0 || strcmp(d.name, again.name) != 0)
        abort();
    return 0;
}
