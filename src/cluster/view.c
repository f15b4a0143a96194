/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See view.h. While a node drains (weight 0, but a nominal one) there is a second ring, in which
 * such nodes still have their nominal weight: the first of it is who owned a key before.
 */
#include "cluster/view.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

struct cluster_view {
    atomic_uint refs;
    unsigned n, self;
    struct zc_ring *ring;
    struct zc_ring *before; /* NULL while nobody drains */
    struct zc_cluster_node nodes[];
};

static int view_by_id(const void *a, const void *b)
{
    const struct zc_cluster_node *x = a, *y = b;
    return memcmp(x->id, y->id, ZC_NODE_ID);
}

static int view_rings(struct cluster_view *v)
{
    zc_autofree struct zc_ring_member *m = calloc(v->n, sizeof(*m));
    bool drains = false;
    if (!m)
        return -ENOMEM;
    for (unsigned i = 0; i < v->n; i++) {
        memcpy(m[i].id, v->nodes[i].id, ZC_RING_ID);
        m[i].weight = v->nodes[i].weight;
        drains = drains || (v->nodes[i].weight == 0 && v->nodes[i].nominal > 0);
    }
    v->ring = zc_ring_new(m, v->n);
    if (v->ring && drains) {
        for (unsigned i = 0; i < v->n; i++)
            if (m[i].weight == 0)
                m[i].weight = v->nodes[i].nominal;
        v->before = zc_ring_new(m, v->n);
    }
    return v->ring && (v->before || !drains) ? 0 : -ENOMEM;
}

int cluster_view_new(const struct zc_cluster_node *nodes, unsigned n, struct cluster_view **out)
{
    if (n == 0 || n > ZC_CLUSTER_NODES_MAX)
        return -EINVAL;
    struct cluster_view *v = calloc(1, sizeof(*v) + n * sizeof(v->nodes[0]));
    if (!v)
        return -ENOMEM;
    atomic_init(&v->refs, 1);
    v->n = n;
    v->self = n;
    memcpy(v->nodes, nodes, n * sizeof(*nodes));
    qsort(v->nodes, n, sizeof(v->nodes[0]), view_by_id);
    int r = 0;
    for (unsigned i = 0; i < n; i++) {
        bool same = i > 0 && view_by_id(&v->nodes[i - 1], &v->nodes[i]) == 0;
        bool heavy = ZC_MAX(v->nodes[i].weight, v->nodes[i].nominal) > ZC_RING_WEIGHT_MAX;
        if (same || heavy || (v->nodes[i].is_self && v->self < n))
            r = -EINVAL;
        if (v->nodes[i].is_self)
            v->self = i;
    }
    if (v->self == n)
        r = -EINVAL;
    if (r == 0)
        r = view_rings(v);
    if (r < 0) {
        cluster_view_unref(v);
        return r;
    }
    *out = v;
    return 0;
}

struct cluster_view *cluster_view_ref(struct cluster_view *v)
{
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    return v;
}

void cluster_view_unref(struct cluster_view *v)
{
    if (!v || atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) != 1)
        return;
    zc_ring_unref(v->ring);
    zc_ring_unref(v->before);
    free(v);
}

unsigned cluster_view_rank(struct cluster_view *v, uint64_t key, struct zc_cluster_node *out,
                           unsigned max)
{
    uint32_t order[16];
    unsigned n = zc_ring_rank(v->ring, key, order, ZC_MIN(max, (unsigned)ZC_ARRAY_SIZE(order)));
    for (unsigned i = 0; i < n; i++)
        out[i] = v->nodes[order[i]];
    return n;
}

unsigned cluster_view_former(struct cluster_view *v, uint64_t key, struct zc_cluster_node *out,
                             unsigned max)
{
    uint32_t order[16];
    unsigned n = 0, got;
    if (max > 0 && v->before && zc_ring_rank(v->before, key, order, 1) == 1 &&
        v->nodes[order[0]].weight == 0 && order[0] != v->self)
        out[n++] = v->nodes[order[0]];
    got = zc_ring_rank(v->ring, key, order, ZC_ARRAY_SIZE(order));
    unsigned i = 0;
    while (i < got && order[i] != v->self)
        i++;
    /* A node that is not among the first owns nothing here: then all of them come after it. */
    for (i = i < got ? i + 1 : 0; i < got && n < max; i++)
        out[n++] = v->nodes[order[i]];
    return n;
}

bool cluster_view_spare(struct cluster_view *v, struct cluster_view *settled, uint64_t key)
{
    uint32_t first, was;
    if (zc_ring_rank(v->ring, key, &first, 1) != 1 || first == v->self || v->nodes[first].suspect)
        return false;
    return settled == v || (zc_ring_rank(settled->ring, key, &was, 1) == 1 &&
                            memcmp(v->nodes[first].id, settled->nodes[was].id, ZC_NODE_ID) == 0);
}

uint64_t cluster_view_digest(struct cluster_view *v)
{
    return zc_ring_digest(v->ring);
}

const struct zc_cluster_node *cluster_view_nodes(struct cluster_view *v, unsigned *n)
{
    *n = v->n;
    return v->nodes;
}

const struct zc_cluster_node *cluster_view_self(struct cluster_view *v)
{
    return &v->nodes[v->self];
}

const struct zc_cluster_node *cluster_view_find(struct cluster_view *v,
                                                const uint8_t id[ZC_NODE_ID])
{
    struct zc_cluster_node key;
    memcpy(key.id, id, ZC_NODE_ID);
    return bsearch(&key, v->nodes, v->n, sizeof(v->nodes[0]), view_by_id);
}

double cluster_view_share(struct cluster_view *v, unsigned node)
{
    return zc_ring_share(v->ring, node);
}
