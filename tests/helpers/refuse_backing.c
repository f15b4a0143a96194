/* SPDX-License-Identifier: Apache-2.0 */
/*
 * To be preloaded: the first ZC_REFUSE_TIMES calls that register a backing file with the kernel
 * (FUSE_DEV_IOC_BACKING_OPEN) fail with the error number ZC_REFUSE_ERRNO, as when the kernel is
 * short of memory, which no test can bring about without hurting its machine.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>

struct backing_map { /* struct fuse_backing_map of linux/fuse.h, which older systems lack */
    int32_t fd;
    uint32_t flags;
    uint64_t padding;
};

int ioctl(int fd, unsigned long request, ...)
{
    static _Atomic int refused;
    int (*next)(int, unsigned long, ...) =
        (int (*)(int, unsigned long, ...))dlsym(RTLD_NEXT, "ioctl");
    const char *times = getenv("ZC_REFUSE_TIMES"), *number = getenv("ZC_REFUSE_ERRNO");
    va_list ap;
    va_start(ap, request);
    void *arg = va_arg(ap, void *);
    va_end(ap);
    if (request == _IOW(229, 1, struct backing_map) && times && number &&
        atomic_fetch_add(&refused, 1) < atoi(times)) {
        errno = atoi(number);
        return -1;
    }
    return next(fd, request, arg);
}
