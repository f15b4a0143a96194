/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See cluster.h. Each question takes a reference to the view of the moment under a lock that is
 * held for nothing else, and asks that.
 */
#include "cluster/cluster_priv.h"
#include "cluster/live.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct zc_cluster *cluster_new(void)
{
    struct zc_cluster *c = calloc(1, sizeof(*c));
    if (c)
        pthread_mutex_init(&c->lock, NULL);
    return c;
}

void cluster_publish(struct zc_cluster *c, struct cluster_reading *take, unsigned index_end)
{
    struct cluster_reading old;
    pthread_mutex_lock(&c->lock);
    old = (struct cluster_reading){.members = c->members, .n = c->n_members, .view = c->view};
    c->members = take->members;
    c->n_members = take->n;
    c->view = take->view;
    c->index_end = index_end;
    pthread_mutex_unlock(&c->lock);
    cluster_reading_free(&old);
    *take = (struct cluster_reading){0};
}

/* As if gossip had told of them. */
static int static_members(const struct zc_cluster_node *nodes, unsigned n,
                          struct cluster_reading *r)
{
    r->n = n;
    r->members = calloc(n, sizeof(*r->members));
    if (!r->members)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++) {
        struct zc_cluster_member *m = &r->members[i];
        m->node = nodes[i];
        m->state = nodes[i].suspect ? ZC_CLUSTER_SUSPECT : ZC_CLUSTER_ALIVE;
        snprintf(m->name, sizeof(m->name), "%s", nodes[i].name);
    }
    return 0;
}

int zc_cluster_new_static(const struct zc_cluster_node *nodes, unsigned n, struct zc_cluster **out)
{
    struct cluster_reading r = {0};
    if (n == 0 || n > ZC_CLUSTER_NODES_MAX)
        return -EINVAL;
    zc_autofree struct zc_cluster_node *numbered = malloc(n * sizeof(*numbered));
    if (!numbered)
        return -ENOMEM;
    memcpy(numbered, nodes, n * sizeof(*nodes));
    for (unsigned i = 0; i < n; i++)
        numbered[i].index = i;
    int e = cluster_view_new(numbered, n, &r.view);
    if (e == 0)
        e = static_members(numbered, n, &r);
    struct zc_cluster *c = e == 0 ? cluster_new() : NULL;
    if (!c) {
        cluster_reading_free(&r);
        return e ? e : -ENOMEM;
    }
    cluster_publish(c, &r, n);
    *out = c;
    return 0;
}

void zc_cluster_free(struct zc_cluster *c)
{
    if (!c)
        return;
    cluster_live_end(c->live);
    cluster_view_unref(c->view);
    cluster_view_unref(c->settled);
    free(c->members);
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

unsigned zc_cluster_rank(struct zc_cluster *c, uint64_t key, struct zc_cluster_node *out,
                         unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n = cluster_view_rank(v, key, out, max);
    cluster_view_unref(v);
    return n;
}

unsigned zc_cluster_former(struct zc_cluster *c, uint64_t key, struct zc_cluster_node *out,
                           unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n = cluster_view_former(v, key, out, max);
    cluster_view_unref(v);
    return n;
}

static struct cluster_view *cluster_settled_view(struct zc_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    struct cluster_view *v = cluster_view_ref(c->settled ? c->settled : c->view);
    pthread_mutex_unlock(&c->lock);
    return v;
}

void cluster_settle(struct zc_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    struct cluster_view *old = c->settled;
    c->settled = cluster_view_ref(c->view);
    pthread_mutex_unlock(&c->lock);
    cluster_view_unref(old);
}

uint64_t cluster_settled(struct zc_cluster *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t d = c->settled ? cluster_view_digest(c->settled) : 0;
    pthread_mutex_unlock(&c->lock);
    return d;
}

bool zc_cluster_spare(struct zc_cluster *c, uint64_t key)
{
    struct cluster_view *v = cluster_now(c), *settled = cluster_settled_view(c);
    bool spare = cluster_view_spare(v, settled, key);
    cluster_view_unref(v);
    cluster_view_unref(settled);
    return spare;
}

uint64_t zc_cluster_digest(struct zc_cluster *c)
{
    struct cluster_view *v = cluster_now(c);
    uint64_t d = cluster_view_digest(v);
    cluster_view_unref(v);
    return d;
}

void zc_cluster_self(struct zc_cluster *c, struct zc_cluster_node *out)
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

unsigned zc_cluster_nodes(struct zc_cluster *c, struct zc_cluster_node *out, unsigned max)
{
    struct cluster_view *v = cluster_now(c);
    unsigned n;
    const struct zc_cluster_node *nodes = cluster_view_nodes(v, &n);
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

bool zc_cluster_find(struct zc_cluster *c, const uint8_t id[ZC_NODE_ID],
                     struct zc_cluster_node *out)
{
    struct cluster_view *v = cluster_now(c);
    const struct zc_cluster_node *n = cluster_view_find(v, id);
    if (n)
        *out = *n;
    cluster_view_unref(v);
    return n != NULL;
}

struct zc_cluster_member *zc_cluster_members(struct zc_cluster *c, unsigned *n)
{
    pthread_mutex_lock(&c->lock);
    struct zc_cluster_member *m = malloc((c->n_members + 1) * sizeof(*m));
    if (m && c->n_members)
        memcpy(m, c->members, c->n_members * sizeof(*m));
    *n = m ? c->n_members : 0;
    pthread_mutex_unlock(&c->lock);
    return m;
}
