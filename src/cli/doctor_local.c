/* SPDX-License-Identifier: Apache-2.0 */
/* This machine: what mounting needs of it, and what makes a mount fast. */
#include "cli/doctor.h"

#include "base/units.h"
#include "cli/place.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <sys/vfs.h>

#define LOCAL_URING_SWITCH "/sys/module/fuse/parameters/enable_uring"
#define LOCAL_MEMLOCK (8 * ZC_MIB)
#define LOCAL_FILES 65536
#define LOCAL_FREE (1 * ZC_GIB)

static unsigned local_kernel(struct zc_doctor *d)
{
    struct utsname u;
    unsigned major = 0, minor = 0;
    if (uname(&u) < 0 || sscanf(u.release, "%u.%u", &major, &minor) != 2)
        return 0;
    unsigned v = major * 1000 + minor;
    zc_doc_step(d, "kernel", v >= 5004 ? ZC_DOC_OK : ZC_DOC_FAILED, -1,
                "zcache needs Linux 5.4 or newer", "Linux %.60s", u.release);
    return v;
}

static void local_fuse(struct zc_doctor *d)
{
    zc_autoclose int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd >= 0)
        zc_doc_step(d, "/dev/fuse", ZC_DOC_OK, -1, NULL, "can be opened");
    else if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
        zc_doc_step(d, "/dev/fuse", ZC_DOC_FAILED, -1,
                    "modprobe fuse; in a container, hand the device in: --device /dev/fuse "
                    "--cap-add SYS_ADMIN",
                    "is not there: %s", strerror(errno));
    else
        zc_doc_step(d, "/dev/fuse", ZC_DOC_FAILED, -1,
                    "chmod 666 /dev/fuse, or in a container --device /dev/fuse",
                    "cannot be opened: %s", strerror(errno));
}

static bool local_in_path(const char *name, char *found, size_t n)
{
    const char *path = getenv("PATH");
    for (path = path ? path : "/usr/bin:/bin"; *path;) {
        size_t len = strcspn(path, ":");
        snprintf(found, n, "%.*s/%s", (int)ZC_MIN(len, (size_t)1000), path, name);
        if (access(found, X_OK) == 0)
            return true;
        path += len;
        path += *path == ':';
    }
    return false;
}

static void local_helper(struct zc_doctor *d)
{
    char found[1200];
    struct stat st;
    bool root = geteuid() == 0;
    if (!local_in_path("fusermount3", found, sizeof(found)))
        zc_doc_step(d, "fusermount3", root ? ZC_DOC_NOTE : ZC_DOC_FAILED, -1,
                    "install the package fuse3: users other than root mount by it",
                    "is not in PATH%s", root ? "; root does not need it" : "");
    else if (!root && stat(found, &st) == 0 && (st.st_uid != 0 || !(st.st_mode & S_ISUID)))
        zc_doc_step(d, "fusermount3", ZC_DOC_FAILED, -1, "install the package fuse3 again",
                    "%.300s is not set-user-id root", found);
    else
        zc_doc_step(d, "fusermount3", ZC_DOC_OK, -1, NULL, "%.300s", found);
}

static void local_fast(struct zc_doctor *d, unsigned kernel)
{
    char on = 0;
    if (kernel < 6009)
        zc_doc_step(d, "passthrough", ZC_DOC_WARNING, -1,
                    "with Linux 6.9 or newer cached files are read without the daemon",
                    "this kernel has none");
    else if (geteuid() != 0)
        zc_doc_step(d, "passthrough", ZC_DOC_WARNING, -1,
                    "mount as root: then cached files are read without the daemon",
                    "the kernel has it, for root only");
    else
        zc_doc_step(d, "passthrough", ZC_DOC_OK, -1, NULL, "the kernel has it");
    zc_autoclose int fd = open(LOCAL_URING_SWITCH, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, &on, 1) != 1)
        zc_doc_step(d, "io_uring", ZC_DOC_NOTE, -1, NULL,
                    "the kernel has none for FUSE (Linux 6.14 or newer has): opens cost a little "
                    "more");
    else
        zc_doc_step(d, "io_uring", on == 'Y' ? ZC_DOC_OK : ZC_DOC_NOTE, -1, NULL,
                    on == 'Y' ? "switched on for FUSE"
                              : "switched off in the kernel; mount's --io-uring on switches it on "
                                "(root), and opens get cheaper");
}

static void local_limits(struct zc_doctor *d)
{
    struct rlimit rl;
    char a[32];
    if (getrlimit(RLIMIT_MEMLOCK, &rl) == 0 && geteuid() != 0 && rl.rlim_cur < LOCAL_MEMLOCK)
        zc_doc_step(d, "locked memory", ZC_DOC_WARNING, -1,
                    "ulimit -l 65536, LimitMEMLOCK= in a unit, or memlock in limits.conf",
                    "%s: too little for the rings of io_uring",
                    zc_format_size(rl.rlim_cur, a, sizeof(a)));
    else
        zc_doc_step(d, "locked memory", ZC_DOC_OK, -1, NULL, "%s",
                    rl.rlim_cur == RLIM_INFINITY ? "no limit"
                    : geteuid() == 0             ? "root has no limit"
                                                 : zc_format_size(rl.rlim_cur, a, sizeof(a)));
    if (getrlimit(RLIMIT_NOFILE, &rl) == 0)
        zc_doc_step(d, "open files", rl.rlim_max < LOCAL_FILES ? ZC_DOC_WARNING : ZC_DOC_OK, -1,
                    "raise the hard limit: LimitNOFILE= in a unit, nofile in limits.conf",
                    "at most %llu", (unsigned long long)rl.rlim_max);
    uint64_t memory = zc_cgroup_memory();
    if (memory)
        zc_doc_step(d, "memory", ZC_DOC_NOTE, -1, NULL, "the control group's limit is %s",
                    zc_format_size(memory, a, sizeof(a)));
}

/* ------------------------------------------------------------------ the cache's folder */

static const char *local_fs(long type)
{
    static const struct {
        long type;
        const char *name;
    } names[] = {
        {0xEF53, "ext4"},      {0x58465342, "xfs"},     {0x9123683E, "btrfs"},
        {0x01021994, "tmpfs"}, {0x794C7630, "overlay"}, {0x6969, "NFS"},
        {0x65735546, "FUSE"},  {0xFF534D42, "CIFS"},    {0xFE534D42, "SMB"},
        {0x2FC12FC1, "zfs"},   {0x0BD00BD0, "Lustre"},  {0x00C36400, "Ceph"},
        {0x858458F6, "ramfs"}, {0xF2F52010, "f2fs"},    {0xCA451A4E, "bcachefs"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(names); i++)
        if ((unsigned long)names[i].type == (unsigned long)type)
            return names[i].name;
    return "of an unknown kind";
}

/* The folder itself, or the nearest one above it that is there. */
static int local_nearest(char *path, struct stat *st)
{
    while (stat(path, st) < 0) {
        char *slash = strrchr(path, '/');
        if (errno != ENOENT || !slash)
            return -errno;
        slash[slash == path] = '\0';
    }
    return 0;
}

static void local_space(struct zc_doctor *d, const char *dir)
{
    struct statvfs v;
    char a[32], b[32];
    if (statvfs(dir, &v) < 0)
        return;
    uint64_t all = (uint64_t)v.f_blocks * v.f_frsize, left = (uint64_t)v.f_bavail * v.f_frsize;
    uint64_t keep = (uint64_t)((double)all * d->o->free_space_ratio);
    uint64_t room = left > keep ? left - keep : 0;
    zc_format_size(room, a, sizeof(a));
    zc_format_size(keep, b, sizeof(b));
    zc_doc_step(d, "free space",
                room < d->o->chunk_size ? ZC_DOC_FAILED
                : room < LOCAL_FREE     ? ZC_DOC_WARNING
                                        : ZC_DOC_OK,
                -1,
                "free some, pass --cache-dir with another disk, or a smaller --free-space-ratio",
                "%s for the cache, beyond the %s that stay free", a, b);
}

static void local_cache(struct zc_doctor *d)
{
    zc_autofree char *want = NULL;
    struct zc_error err = {0};
    struct stat st;
    struct statfs fs;
    int r = d->o->cache_dir ? zc_place_absolute(d->o->cache_dir, &want, &err)
                            : zc_place_cache_default(&want, &err);
    if (r < 0) {
        zc_doc_step(d, "cache", ZC_DOC_FAILED, -1, "pass --cache-dir", "%s", err.text);
        return;
    }
    zc_autofree char *dir = strdup(want);
    if (!dir || (r = local_nearest(dir, &st)) < 0 || !S_ISDIR(st.st_mode)) {
        zc_doc_step(d, "cache", ZC_DOC_FAILED, -1, "pass --cache-dir with a folder", "%s: %s", want,
                    strerror(r < 0 ? -r : ENOTDIR));
        return;
    }
    if (access(dir, W_OK) < 0) {
        zc_doc_step(d, "cache", ZC_DOC_FAILED, -1,
                    "pass --cache-dir with a folder that you may write", "%s cannot be written: %s",
                    dir, strerror(errno));
        return;
    }
    const char *name = statfs(dir, &fs) == 0 ? local_fs((long)fs.f_type) : "?";
    bool memory = strcmp(name, "tmpfs") == 0 || strcmp(name, "ramfs") == 0;
    bool remote = strcmp(name, "NFS") == 0 || strcmp(name, "FUSE") == 0 ||
                  strcmp(name, "CIFS") == 0 || strcmp(name, "SMB") == 0 ||
                  strcmp(name, "Lustre") == 0 || strcmp(name, "Ceph") == 0;
    if (memory && !d->o->allow_tmpfs)
        zc_doc_step(d, "cache", ZC_DOC_FAILED, -1,
                    "pass --cache-dir with a folder on a disk, or --allow-tmpfs",
                    "%s lies in memory (%s)", want, name);
    else if (remote || strcmp(name, "overlay") == 0)
        zc_doc_step(d, "cache", ZC_DOC_WARNING, -1,
                    "pass --cache-dir with a folder on a local disk",
                    "%s is %s: cached files are read at its speed", want, name);
    else
        zc_doc_step(d, "cache", ZC_DOC_OK, -1, NULL, "%s, on %s", want, name);
    local_space(d, dir);
}

void zc_doc_local(struct zc_doctor *d)
{
    zc_doc_group(d, "this machine");
    unsigned kernel = local_kernel(d);
    local_fuse(d);
    local_helper(d);
    local_fast(d, kernel);
    local_limits(d);
    local_cache(d);
}
