/* SPDX-License-Identifier: Apache-2.0 */
/* A decoder that dies of three bytes that only a coverage-guided fuzzer finds soon. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size > 2 && data[0] == 'z' && data[1] == 'c' && data[2] == '!')
        abort();
    return 0;
}
