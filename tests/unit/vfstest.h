/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the file system without FUSE: one with its cache, and answers that are waited for.
 */
#ifndef ZC_TESTS_VFSTEST_H
#define ZC_TESTS_VFSTEST_H

#include "cachetest.h"
#include "vfs/vfs.h"

#include <pthread.h>

struct vt_world {
    char *dir; /* cache/ and the sources */
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_vfs *v;
};

/* An empty file system. Ends the test when that fails. */
void vt_new(struct vt_world *w);
void vt_free(struct vt_world *w);

struct vt_answer {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool done;
    int err;
    struct zc_node node;
    struct zc_dirh *dh;
};
#define VT_ANSWER                                                                                  \
    {                                                                                              \
        .lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER                        \
    }

void vt_answer_set(struct vt_answer *a, int err, const struct zc_node *node, struct zc_dirh *dh);
/* Waits for it, and gives its err. */
int vt_answer_get(struct vt_answer *a);
/* Callbacks for the vfs; user is a struct vt_answer. */
void vt_on_lookup(void *user, int err, const struct zc_node *node);
void vt_on_opendir(void *user, int err, struct zc_dirh *dh);

/* Looks a path up, name by name. */
int vt_walk(struct vt_world *w, const char *path, struct zc_node *out);
int vt_attr(struct vt_world *w, uint64_t node, struct zc_node *out);
/* Names of an open directory, in its own order, with a blank after each. */
void vt_names(struct zc_dirh *dh, char *out);
/* The same of a node. */
int vt_list(struct vt_world *w, uint64_t node, char *out);

#endif
