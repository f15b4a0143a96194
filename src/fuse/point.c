/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mount at its point. A path is no proof that what is seen there is ours: the mount may have
 * been taken away while readers keep its file system alive, and then something else is seen, such
 * as the disk or the volume that was mounted there before. So the number of our device is noted
 * when the mount is made, and nothing is unmounted, or tuned, that has another one.
 */
#include "fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>

/* The kernel's read-ahead on files that are still being fetched. Many at a time, but a page fault
   in a mapped file asks for as much around it: less than what makes fetch take a random reader for
   one that will want the whole chunk. */
#define READ_AHEAD_KIB 768

/* Neither call asks the file system that is there, which may be our own and not serve yet, or no
   more. */
static int point_open(const struct zc_fuse *f)
{
    int fd = open(f->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* linux/stat.h, since 6.8; older kernels leave it out of the answer's mask. */
#ifndef STATX_MNT_ID_UNIQUE
#define STATX_MNT_ID_UNIQUE 0x4000u
#endif

/* *id: 0 where the kernel has no numbers of mounts that are never given out again. */
static int point_device(int fd, unsigned *major, unsigned *minor, uint64_t *id)
{
    struct statx st;
    if (statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_MNT_ID_UNIQUE, &st) < 0)
        return -errno;
    *major = st.stx_dev_major;
    *minor = st.stx_dev_minor;
    *id = st.stx_mask & STATX_MNT_ID_UNIQUE ? st.stx_mnt_id : 0;
    return 0;
}

int fuse_point_note(struct zc_fuse *f)
{
    zc_autoclose int fd = point_open(f);
    return fd < 0 ? fd : point_device(fd, &f->major, &f->minor, &f->mount_id);
}

/* A descriptor of our mount's root when that is what is seen, else -1. A device's number is given
   out again once its file system has ended, which the device tells by an error (but also when the
   connection was aborted and the mount stays): asked while the descriptor keeps from ending what it
   is of. The number of a mount is not, where the kernel has it. */
static int point_ours(const struct zc_fuse *f)
{
    struct pollfd p = {.fd = fuse_session_fd(f->se)};
    unsigned major = 0, minor = 0;
    uint64_t id = 0;
    zc_autoclose int fd = point_open(f);
    if (fd < 0 || point_device(fd, &major, &minor, &id) < 0 || major != f->major ||
        minor != f->minor || id != f->mount_id)
        return -1;
    if (id)
        return zc_steal_fd(&fd);
    return poll(&p, 1, 0) == 1 && (p.revents & POLLERR) ? -1 : zc_steal_fd(&fd);
}

bool fuse_point_detach(struct zc_fuse *f)
{
    char path[64];
    zc_autoclose int fd = point_ours(f);
    if (fd < 0)
        return true;
    /* By the descriptor: what takes our place from here on is not hit. */
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return umount2(path, MNT_DETACH) == 0;
}

void fuse_read_ahead(struct zc_fuse *f)
{
    char path[96];
    snprintf(path, sizeof(path), "/sys/class/bdi/%u:%u/read_ahead_kb", f->major, f->minor);
    FILE *out = fopen(path, "we");
    if (out) {
        fprintf(out, "%d\n", READ_AHEAD_KIB);
        fclose(out);
    }
}
