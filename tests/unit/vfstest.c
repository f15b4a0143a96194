/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "vfstest.h"

#include <stdio.h>
#include <string.h>

void vt_new(struct vt_world *w)
{
    char path[300];
    w->dir = ct_mkdir();
    snprintf(path, sizeof(path), "%s/cache", w->dir);
    struct zc_cache_config cc = ct_config(path);
    w->cache = ct_open(&cc);
    struct zc_fetch_config fc = {.chunk_size = CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&fc, w->cache, &w->fetch), 0);
    struct zc_vfs_config vc = {.uid = 7, .gid = 8, .dir_mode = ZC_ID_UNSET};
    assert_int_equal(zc_vfs_new(&vc, w->cache, w->fetch, &w->v), 0);
}

void vt_free(struct vt_world *w)
{
    zc_vfs_shutdown(w->v);
    zc_vfs_free(w->v);
    zc_fetch_free(w->fetch);
    zc_cache_close(w->cache);
    ct_rmdir(w->dir);
}

void vt_answer_set(struct vt_answer *a, int err, const struct zc_node *node, struct zc_dirh *dh)
{
    pthread_mutex_lock(&a->lock);
    a->err = err;
    if (node)
        a->node = *node;
    a->dh = dh;
    a->done = true;
    pthread_cond_signal(&a->cond);
    pthread_mutex_unlock(&a->lock);
}

int vt_answer_get(struct vt_answer *a)
{
    pthread_mutex_lock(&a->lock);
    while (!a->done)
        pthread_cond_wait(&a->cond, &a->lock);
    pthread_mutex_unlock(&a->lock);
    return a->err;
}

void vt_on_lookup(void *user, int err, const struct zc_node *node)
{
    vt_answer_set(user, err, node, NULL);
}

void vt_on_opendir(void *user, int err, struct zc_dirh *dh)
{
    vt_answer_set(user, err, NULL, dh);
}

int vt_walk(struct vt_world *w, const char *path, struct zc_node *out)
{
    struct zc_node node = {.id = ZC_NODE_ROOT};
    char copy[300], *save = NULL;
    snprintf(copy, sizeof(copy), "%s", path);
    for (char *n = strtok_r(copy, "/", &save); n; n = strtok_r(NULL, "/", &save)) {
        struct vt_answer a = VT_ANSWER;
        zc_vfs_lookup(w->v, node.id, n, vt_on_lookup, &a);
        int r = vt_answer_get(&a);
        node = a.node;
        if (r < 0) {
            *out = node;
            return r;
        }
    }
    *out = node;
    return 0;
}

int vt_attr(struct vt_world *w, uint64_t node, struct zc_node *out)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_getattr(w->v, node, vt_on_lookup, &a);
    int r = vt_answer_get(&a);
    *out = a.node;
    return r;
}

void vt_names(struct zc_dirh *dh, char *out)
{
    const char *name;
    struct zc_node n;
    *out = 0;
    for (uint64_t at = 0; zc_vfs_readdir(dh, at, false, &name, &n) == 1; at++) {
        if (name)
            strcat(strcat(out, name), " ");
    }
}

int vt_list(struct vt_world *w, uint64_t node, char *out)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_opendir(w->v, node, vt_on_opendir, &a);
    int r = vt_answer_get(&a);
    *out = 0;
    if (r < 0)
        return r;
    vt_names(a.dh, out);
    zc_vfs_closedir(a.dh);
    return 0;
}
