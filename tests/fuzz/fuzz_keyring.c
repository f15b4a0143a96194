/* SPDX-License-Identifier: Apache-2.0 */
/* A key file's text: what is taken has at least one key, and no parse fails without a reason. */
#include "member/crypt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_keyring *ring = NULL;
    struct zc_error err = {0};
    int r = zc_keyring_parse((const char *)data, size, &ring, &err);
    if (r == 0 ? zc_keyring_count(ring) == 0 : ring != NULL || err.text[0] == '\0')
        abort();
    zc_keyring_free(ring);
    return 0;
}
