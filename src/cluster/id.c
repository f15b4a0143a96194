/* SPDX-License-Identifier: Apache-2.0 */
/* See id.h. The file holds 32 hex digits and a newline, and is replaced by rename. */
#include "cluster/id.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define ID_TEXT (ZC_DIGEST_HEX + 1)

_Static_assert(ZC_NODE_ID == ZC_DIGEST_BYTES, "an id is written as a digest is");

static int id_read(const char *file, uint8_t id[ZC_NODE_ID])
{
    char text[ID_TEXT + 1] = {0};
    struct zc_digest d;
    zc_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, text, ID_TEXT);
    if (n < 0)
        return -errno;
    if (n != ID_TEXT || text[ZC_DIGEST_HEX] != '\n' || zc_digest_parse(text, &d) < 0)
        return -EBADMSG;
    zc_digest_store(id, d);
    return 0;
}

static int id_write(const char *file, const char *temporary, const char *text)
{
    zc_autoclose int fd =
        open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    ssize_t n = write(fd, text, ID_TEXT);
    int r = n < 0 ? -errno : n < ID_TEXT ? -ENOSPC : 0;
    if (r == 0 && (fsync(fd) < 0 || rename(temporary, file) < 0))
        r = -errno;
    if (r < 0)
        unlink(temporary);
    return r;
}

int cluster_id_renew(const char *file, uint8_t id[ZC_NODE_ID], struct zc_error *err)
{
    uint8_t drawn[ZC_NODE_ID];
    char text[ID_TEXT + 1];
    zc_autofree char *temporary = NULL;
    if (getrandom(drawn, sizeof(drawn), 0) != (ssize_t)sizeof(drawn))
        return zc_error_set(err, -EIO, "cannot draw an id for this node: %s", strerror(errno));
    if (asprintf(&temporary, "%s.new", file) < 0) {
        temporary = NULL;
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    zc_digest_hex(text, zc_digest_load(drawn));
    strcpy(text + ZC_DIGEST_HEX, "\n");
    int r = id_write(file, temporary, text);
    if (r < 0)
        return zc_error_set(err, r, "cannot keep this node's id in '%.300s': %s", file,
                            strerror(-r));
    memcpy(id, drawn, ZC_NODE_ID);
    return 0;
}

int cluster_id_load(const char *file, uint8_t id[ZC_NODE_ID], struct zc_error *err)
{
    int r = id_read(file, id);
    if (r == 0)
        return 0;
    if (r != -ENOENT && r != -EBADMSG)
        return zc_error_set(err, r, "cannot read this node's id in '%.300s': %s", file,
                            strerror(-r));
    return cluster_id_renew(file, id, err);
}
