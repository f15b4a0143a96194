/* SPDX-License-Identifier: Apache-2.0 */
/* Bodies of refusals. */
#include "backend/s3_xml.h"

#include <stdlib.h>
#include <string.h>

static void check(const char *s, size_t room)
{
    if (strnlen(s, room) == room || strpbrk(s, "\r\n"))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct s3_xml_error e;
    int r = s3_xml_error_parse(data, size, &e);
    check(e.code, sizeof(e.code));
    check(e.message, sizeof(e.message));
    check(e.region, sizeof(e.region));
    check(e.endpoint, sizeof(e.endpoint));
    if ((r == 0) != (e.code[0] != '\0'))
        abort();
    return 0;
}
