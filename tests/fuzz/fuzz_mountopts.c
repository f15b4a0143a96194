/* SPDX-License-Identifier: Apache-2.0 */
/* A line of fstab: what stands before the first newline is the source, what follows the -o string.
 */
#include "cli/mountopts.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    zc_autofree char *text = strndup((const char *)data, size);
    struct zc_source src = {0};
    struct zc_mount_opts o;
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    if (!text)
        return 0;
    char *list = strchr(text, '\n');
    if (list)
        *list++ = 0;
    zc_mount_opts_init(&o);
    if (zc_opt_parse_o(zc_mount_table, list ? list : text, size & 1, &o, &args, &err) == 0 &&
        zc_source_parse(text, &src, &err) == 0 &&
        zc_source_opts_finish(&o, args.given, &src, &err) == 0)
        zc_mount_opts_finish(&o, args.given, 0, &err);
    zc_source_free(&src);
    zc_opt_args_free(&args);
    return 0;
}
