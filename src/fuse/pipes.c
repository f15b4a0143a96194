/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Replies from a backing file without a copy of ours: its pages go into a pipe, and from there to
 * the kernel.
 *
 * libfuse would splice from the file itself. But when the disk fails in the middle it sends what it
 * had until then, and a short answer to a read is the end of the file to the kernel: the reader
 * would see a file that is cut. So the pages are counted here, before anything is sent.
 */
#include "fuse/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIPE_PAGE 4096u

static void pipe_close(const int p[2])
{
    close(p[0]);
    close(p[1]);
}

static bool pipes_get(struct fuse_pipes *ps, int p[2])
{
    bool have = false;
    pthread_mutex_lock(&ps->lock);
    if (ps->n) {
        ps->n--;
        p[0] = ps->fd[ps->n][0];
        p[1] = ps->fd[ps->n][1];
        have = true;
    }
    pthread_mutex_unlock(&ps->lock);
    return have || pipe2(p, O_CLOEXEC | O_NONBLOCK) == 0;
}

static void pipes_put(struct fuse_pipes *ps, const int p[2])
{
    int left = 0;
    bool keep = ioctl(p[0], FIONREAD, &left) == 0 && left == 0;
    if (keep) {
        pthread_mutex_lock(&ps->lock);
        keep = ps->n < FUSE_PIPES;
        if (keep) {
            ps->fd[ps->n][0] = p[0];
            ps->fd[ps->n++][1] = p[1];
        }
        pthread_mutex_unlock(&ps->lock);
    }
    if (!keep)
        pipe_close(p);
}

/* All of it, or false. A range that does not begin with a page lies in one more than it has. */
static bool pipe_fill(const int p[2], int fd, off_t off, size_t len)
{
    int room = (int)(len + 2 * PIPE_PAGE);
    if (fcntl(p[1], F_GETPIPE_SZ) < room && fcntl(p[1], F_SETPIPE_SZ, room) < room)
        return false;
    while (len) {
        ssize_t n = splice(fd, &off, p[1], NULL, len, SPLICE_F_NONBLOCK);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return false;
        len -= (size_t)n;
    }
    return true;
}

bool fuse_reply_file(struct zc_fuse *f, fuse_req_t req, int fd, uint64_t off, size_t len)
{
    int p[2];
    if (len < 2 * PIPE_PAGE || !pipes_get(&f->pipes, p)) /* libfuse would copy so little anyway */
        return false;
    bool whole = pipe_fill(p, fd, (off_t)off, len);
    if (whole) {
        struct fuse_bufvec bv = FUSE_BUFVEC_INIT(len);
        bv.buf[0].flags = FUSE_BUF_IS_FD | FUSE_BUF_FD_RETRY;
        bv.buf[0].fd = p[0];
        fuse_reply_data(req, &bv, 0);
    }
    pipes_put(&f->pipes, p);
    return whole;
}

void fuse_pipes_close(struct fuse_pipes *ps)
{
    while (ps->n)
        pipe_close(ps->fd[--ps->n]);
    pthread_mutex_destroy(&ps->lock);
}
