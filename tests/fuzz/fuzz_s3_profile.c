/* SPDX-License-Identifier: Apache-2.0 */
/* Shared credentials and config files. */
#include "backend/s3_profile.h"

#include <stdlib.h>
#include <string.h>

struct seen {
    bool section;
};

static int setting(void *arg, const char *section, const char *key, const char *value)
{
    struct seen *s = arg;
    if (!section || (!key != !value))
        abort();
    if (!key)
        s->section = true;
    else if (!s->section || !key[0] || strlen(section) > 300 || strlen(key) > 600)
        abort();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct seen s = {0};
    zc_autofree char *text = malloc(size + 1);
    if (!text)
        return 0;
    memcpy(text, data, size);
    s3_ini_parse(text, size, setting, &s);
    return 0;
}
