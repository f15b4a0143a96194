/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sources in the file system.
 *
 * A directory carries the source that it is of, so that nothing on the way of an open or a read has
 * to find out: where there is one source, it is the root directory's, and all is as if there were
 * no others. The directories above sources are tables like any other that are never listed, because
 * they are always fresh.
 *
 * A removed source leaves its struct and its directories behind until the kernel has forgotten
 * them; they answer -ESTALE, upon which the kernel looks the path up anew and finds nothing.
 */
#include "base/at.h"
#include "vfs/internal.h"

#include <string.h>
#include <time.h>

/* close(2) returns before the kernel has told us: an open file may be about to be closed. */
#define SOURCES_CLOSING_NS ZC_NS_PER_S

static int sources_fit(struct zc_vfs *v, const char *at, struct zc_error *err)
{
    int r = zc_at_check(at, err);
    if (r < 0)
        return r;
    zc_list_for_each (it, &v->sources) {
        const struct zc_vfs_source *s = zc_list_entry(it, struct zc_vfs_source, link);
        const char *url = s->cfg.be->url;
        if (!*s->at)
            return zc_error_set(err, -EEXIST,
                                "the mount shows %s as a whole: there is no place for another "
                                "source beside it",
                                url);
        if (strcmp(s->at, at) == 0)
            return zc_error_set(err, -EEXIST, "'/%s' is taken by %s", at, url);
        if (zc_at_overlap(s->at, at))
            return zc_error_set(err, -EEXIST, "'/%s' and '/%s', which is taken by %s, overlap", at,
                                s->at, url);
    }
    if (!*at && (!zc_list_empty(&v->sources) || !zc_list_empty(&v->removed)))
        return zc_error_set(err, -EEXIST, "'/' is taken: the mount shows several sources");
    return 0;
}

int zc_vfs_source_fits(struct zc_vfs *v, const char *at, struct zc_error *err)
{
    pthread_mutex_lock(&v->sources_lock);
    int r = sources_fit(v, at, err);
    pthread_mutex_unlock(&v->sources_lock);
    return r;
}

/* Gives up a directory that was made for a source, and those above it that are empty then. */
static void sources_prune(struct zc_vfs *v, struct vfs_dir *d)
{
    while (d != v->root) {
        struct vfs_dir *parent = vfs_dir_parent(v, d);
        if (!vfs_dir_unmake(v, d))
            return;
        d = parent;
    }
}

/* Makes the directories above a source, and the source's own. */
static int sources_place(struct zc_vfs *v, struct zc_vfs_source *s)
{
    struct vfs_dir *d = v->root;
    zc_autofree char *copy = strdup(s->at);
    char *save = NULL;
    if (!copy)
        return -ENOMEM;
    char *name = strtok_r(copy, "/", &save);
    while (name) {
        char *next = strtok_r(NULL, "/", &save);
        struct vfs_dir *child = vfs_dir_child(v, d, name);
        if (!child)
            child = vfs_dir_make(v, d, name, next ? NULL : s);
        if (!child) {
            if (d != v->root && d->live == 0)
                sources_prune(v, d);
            return -ENOMEM;
        }
        d = child;
        name = next;
    }
    s->root = d;
    return 0;
}

static void source_free(struct zc_vfs_source *s)
{
    free(s->at);
    free(s->identity);
    free(s);
}

int zc_vfs_source_add(struct zc_vfs *v, const struct zc_vfs_source_config *cfg,
                      struct zc_vfs_source **out, struct zc_error *err)
{
    struct zc_vfs_source *s = calloc(1, sizeof(*s));
    int r = s ? 0 : -ENOMEM;
    if (s) {
        s->cfg = *cfg;
        s->cfg.at = s->at = strdup(cfg->at);
        s->cfg.identity = s->identity = strdup(cfg->identity);
        s->root_attr = (struct zc_attr){.kind = ZC_KIND_DIR,
                                        .mode = ZC_ID_UNSET,
                                        .uid = ZC_ID_UNSET,
                                        .gid = ZC_ID_UNSET,
                                        .version = ""};
        r = s->at && s->identity ? 0 : -ENOMEM;
    }
    pthread_mutex_lock(&v->sources_lock);
    if (r == 0)
        r = sources_fit(v, s->at, err);
    if (r == 0) {
        s->at_hash = *s->at ? zc_hash64(0, s->at, strlen(s->at)) : 0;
        r = zc_fetch_src_new(v->fetch, s->cfg.be, s->identity, &s->fetch);
    }
    if (r == 0 && *s->at) {
        r = sources_place(v, s);
        if (r < 0)
            zc_fetch_src_close(s->fetch, true);
    } else if (r == 0) {
        /* Nobody uses the file system yet. */
        v->root->src = s;
        v->root->state = VFS_UNLISTED;
    }
    if (r == 0)
        zc_list_push_back(&v->sources, &s->link);
    pthread_mutex_unlock(&v->sources_lock);
    if (r < 0) {
        if (s)
            source_free(s);
        return r == -ENOMEM ? zc_error_set(err, r, "no memory") : r;
    }
    *out = s;
    return 0;
}

/* Ends what fetch has of it, once its files are closed. */
static int source_close(struct zc_vfs_source *s, bool force)
{
    int64_t until = zc_now_ns() + SOURCES_CLOSING_NS;
    const struct timespec pause = {.tv_nsec = 20 * ZC_NS_PER_MS};
    int r;
    while ((r = zc_fetch_src_close(s->fetch, force)) == -EBUSY && zc_now_ns() < until)
        nanosleep(&pause, NULL);
    return r;
}

int zc_vfs_source_remove(struct zc_vfs *v, struct zc_vfs_source *s, bool force,
                         struct zc_error *err)
{
    int r = 0;
    pthread_mutex_lock(&v->sources_lock);
    if (!*s->at)
        r = zc_error_set(err, -EINVAL, "the mount shows this source as a whole: unmount it");
    else if (source_close(s, force) < 0) {
        struct zc_fetch_src_stats st;
        zc_fetch_src_get_stats(s->fetch, &st);
        r = zc_error_set(err, -EBUSY,
                         "%llu of its files are open; close them, or remove it with --force",
                         (unsigned long long)st.open);
    }
    if (r == 0) {
        pthread_mutex_lock(&v->ops_lock);
        atomic_store(&s->removed, true);
        pthread_mutex_unlock(&v->ops_lock);
        vfs_ops_cancel(v, s);
        vfs_ops_wait(v, s);
        sources_prune(v, zc_steal_ptr(&s->root));
        zc_list_del(&s->link);
        zc_list_push_back(&v->removed, &s->link);
    }
    pthread_mutex_unlock(&v->sources_lock);
    return r;
}

const char *zc_vfs_source_at(const struct zc_vfs_source *s)
{
    return s->at;
}

void zc_vfs_source_get_stats(struct zc_vfs_source *s, struct zc_vfs_source_stats *out)
{
    zc_fetch_src_get_stats(s->fetch, &out->fetch);
    out->listings = atomic_load(&s->listings);
}

void vfs_sources_free(struct zc_vfs *v)
{
    struct zc_list *it;
    while ((it = zc_list_pop_front(&v->sources)) || (it = zc_list_pop_front(&v->removed)))
        source_free(zc_list_entry(it, struct zc_vfs_source, link));
}
