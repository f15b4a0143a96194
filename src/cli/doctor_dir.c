/* SPDX-License-Identifier: Apache-2.0 */
/* A directory as a source. */
#include "cli/doctor.h"

#include "backend/dir.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

void zc_doc_dir(struct zc_doctor *d)
{
    struct zc_error err = {0};
    struct zc_doc_found found = {0};
    struct zc_backend *be = NULL;
    struct stat st;
    const char *path = d->src->path;
    zc_doc_group(d, "directory");
    if (stat(path, &st) < 0 || !S_ISDIR(st.st_mode)) {
        int e = stat(path, &st) < 0 ? errno : ENOTDIR;
        zc_doc_step(d, "directory", ZC_DOC_FAILED, -1,
                    e == EACCES ? "its permissions, or those of a folder above, keep you out"
                                : "check the path: file:// is followed by the whole path",
                    "%s: %s", path, strerror(e));
        return;
    }
    struct zc_dir_config cfg = {.path = path};
    int r = zc_dirsrc_new(&cfg, &be, &err);
    if (r == 0)
        r = zc_backend_probe(be, &err);
    if (r < 0) {
        zc_doc_step(d, "directory", ZC_DOC_FAILED, -1,
                    r == -EACCES ? "its permissions keep you out" : NULL, "%s", err.text);
    } else {
        zc_doc_step(d, "directory", ZC_DOC_OK, -1, NULL, "%s", path);
        if (!zc_doc_list(d, be, &found, &err))
            zc_doc_step(d, "list", ZC_DOC_FAILED, -1, "its permissions keep you out", "%s",
                        err.text);
        else if (found.path)
            zc_doc_read(d, be, &found, "the file's permissions keep you out");
    }
    free(found.path);
    if (be)
        zc_backend_free(be);
}
