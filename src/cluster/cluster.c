/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See cluster.h. Each question takes a reference to the view of the moment under a lock that is
 * held for nothing else, and asks that.
 */
#include "cluster/view.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>

struct zc_cluster {
    pthread_mutex_t lock;
    struct cluster_view *view;
    unsigned index_end;
};

int zc_cluster_new_static(const struct zc_node *nodes, unsigned n, struct zc_cluster **out)
{
    if (n == 0 || n > ZC_CLUSTER_NODES_MAX)
        return -EINVAL;
    zc_autofree struct zc_node *numbered = malloc(n * sizeof(*numbered));
    zc_autofree struct zc_cluster *c = calloc(1, sizeof(*c));
    if (!numbered || !c)
        return -ENOMEM;
    memcpy(numbered, nodes, n * sizeof(*nodes));
    for (unsigned i = 0; i < n; i++)
        numbered[i].index = i;
    c->index_end = n;
    int r = cluster_view_new(numbered, n, &c->view);
    if (r < 0)
        return r;
    pthread_mutex_init(&c->lock, NULL);
    *out = zc_steal_ptr(&c);
    return 0;
}

void zc_cluster_free(struct zc_cluster *c)
{
    if (!c)
        return;
    cluster_view_unref(c->view);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static struct cluster_view *cluster_now(struct zc_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    struct cluster_view *v = cluster_view_ref(c->view);
    pthread_mutex_unlock(&c->lock);
    return v;
}

uint64_t zc_cluster_key(struct zc_digest object, uint64_t off)
{
    return object.lo ^ (off / ZC_CLUSTER_GROUP) * 0x9e3779b97f4a7c15;
}

unsigned zc_cluster_rank(struct zc_cluster *c, uint64_t key, struct zc_node *out, unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n = cluster_view_rank(v, key, out, max);
    cluster_view_unref(v);
    return n;
}

unsigned zc_cluster_former(struct zc_cluster *c, uint64_t key, struct zc_node *out, unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n = cluster_view_former(v, key, out, max);
    cluster_view_unref(v);
    return n;
}

bool zc_cluster_spare(struct zc_cluster *c, uint64_t key)
{
    struct cluster_view *v = cluster_now(c);
    bool spare = cluster_view_spare(v, key);
    cluster_view_unref(v);
    return spare;
}

uint64_t zc_cluster_digest(struct zc_cluster *c)
{
    struct cluster_view *v = cluster_now(c);
    uint64_t d = cluster_view_digest(v);
    cluster_view_unref(v);
    return d;
}

void zc_cluster_self(struct zc_cluster *c, struct zc_node *out)
{
    struct cluster_view *v = cluster_now(c);
    *out = *cluster_view_self(v);
    cluster_view_unref(v);
}

unsigned zc_cluster_count(struct zc_cluster *c)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n;
    cluster_view_nodes(v, &n);
    cluster_view_unref(v);
    return n;
}

unsigned zc_cluster_nodes(struct zc_cluster *c, struct zc_node *out, unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n;
    const struct zc_node *nodes = cluster_view_nodes(v, &n);
    n = ZC_MIN(n, max);
    memcpy(out, nodes, n * sizeof(*out));
    cluster_view_unref(v);
    return n;
}

unsigned zc_cluster_index_end(struct zc_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    unsigned end = c->index_end;
    pthread_mutex_unlock(&c->lock);
    return end;
}

bool zc_cluster_find(struct zc_cluster *c, const uint8_t id[ZC_NODE_ID], struct zc_node *out)
{
    struct cluster_view *v = cluster_now(c);
    const struct zc_node *n = cluster_view_find(v, id);
    if (n)
        *out = *n;
    cluster_view_unref(v);
    return n != NULL;
}
