/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file, read as `zcache mount --config` reads it. */
#include "cli/config.h"
#include "cli/plan.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_plan p;
    struct zc_error err = {0};
    char path[64];
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        __builtin_trap();
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    zc_plan_init(&p);
    int r = zc_plan_read(&p, path, &err);
    if (r == 0)
        r = zc_plan_finish(&p, 0, &err);
    if (r < 0 && !err.text[0])
        __builtin_trap(); /* refused without a word */
    zc_plan_free(&p);
    close(fd);
    return 0;
}
