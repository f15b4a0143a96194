/* SPDX-License-Identifier: Apache-2.0 */
/* See members.h. */
#include "cluster/members.h"

#include <errno.h>
#include <string.h>

void cluster_indices_free(struct cluster_indices *x)
{
    free(x->sorted);
    *x = (struct cluster_indices){0};
}

int cluster_indices_of(struct cluster_indices *x, const uint8_t id[ZC_NODE_ID], uint32_t *index)
{
    unsigned low = 0, high = x->n;
    while (low < high) {
        unsigned mid = low + (high - low) / 2;
        if (memcmp(x->sorted[mid].id, id, ZC_NODE_ID) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    if (low == x->n || memcmp(x->sorted[low].id, id, ZC_NODE_ID) != 0) {
        if (x->n == ZC_CLUSTER_NODES_MAX)
            return -ENOSPC;
        struct cluster_index *p = realloc(x->sorted, (x->n + 1) * sizeof(*p));
        if (!p)
            return -ENOMEM;
        x->sorted = p;
        memmove(p + low + 1, p + low, (x->n - low) * sizeof(*p));
        memcpy(p[low].id, id, ZC_NODE_ID);
        p[low].index = x->n++;
    }
    *index = x->sorted[low].index;
    return 0;
}

/* ------------------------------------------------------------------ one member */

static void member_address(struct zc_cluster_node *node, const struct cluster_seen *s,
                           uint16_t port)
{
    if (s->ip_len == 4) {
        node->addr.in.sin_family = AF_INET;
        node->addr.in.sin_port = htons(port);
        memcpy(&node->addr.in.sin_addr, s->ip, 4);
    } else {
        node->addr.in6.sin6_family = AF_INET6;
        node->addr.in6.sin6_port = htons(port);
        memcpy(&node->addr.in6.sin6_addr, s->ip, 16);
    }
}

static void member_read(struct zc_cluster_member *m, const struct cluster_seen *s,
                        uint8_t peer_protocol)
{
    struct cluster_desc d;
    m->state = s->state;
    m->since_ns = s->since_ns;
    m->gossip_port = s->port;
    strncpy(m->name, s->name, sizeof(m->name) - 1);
    member_address(&m->node, s, 0);
    m->node.is_self = s->self;
    m->node.suspect = s->state == ZC_CLUSTER_SUSPECT;
    if (cluster_desc_decode(s->meta, s->meta_len, &d) < 0) {
        m->standing = ZC_CLUSTER_FOREIGN;
        return;
    }
    memcpy(m->node.id, d.id, sizeof(d.id));
    memcpy(m->node.name, d.name, sizeof(d.name));
    memcpy(m->node.spki, d.spki, sizeof(d.spki));
    member_address(&m->node, s, d.port);
    m->node.weight = d.weight;
    m->node.nominal = d.nominal;
    m->used_bytes = zc_ring_weight_bytes(d.used);
    m->started_ms = d.started_ms;
    if (d.ring_protocol != ZC_RING_PROTOCOL || d.peer_protocol != peer_protocol)
        m->standing = ZC_CLUSTER_OTHER_VERSION;
    else if (s->state > ZC_CLUSTER_SUSPECT)
        m->standing = ZC_CLUSTER_ABSENT;
    else
        m->standing = ZC_CLUSTER_IN;
}

/* ------------------------------------------------------------------ all of them */

static int member_by_name(const void *a, const void *b)
{
    const struct zc_cluster_member *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* Of one id, who counts comes first. The same on all nodes, but that each counts itself. */
static int member_by_life(const void *a, const void *b)
{
    const struct zc_cluster_member *x = *(struct zc_cluster_member *const *)a,
                                   *y = *(struct zc_cluster_member *const *)b;
    int id = memcmp(x->node.id, y->node.id, ZC_NODE_ID);
    if (id != 0)
        return id;
    if (x->node.is_self != y->node.is_self)
        return x->node.is_self ? -1 : 1;
    if (x->started_ms != y->started_ms)
        return x->started_ms > y->started_ms ? -1 : 1;
    return strcmp(x->name, y->name);
}

static int read_view(struct cluster_indices *x, struct cluster_reading *r)
{
    zc_autofree struct zc_cluster_member **in = calloc(r->n + 1, sizeof(*in));
    zc_autofree struct zc_cluster_node *nodes = calloc(r->n + 1, sizeof(*nodes));
    unsigned n = 0, kept = 0;
    if (!in || !nodes)
        return -ENOMEM;
    for (unsigned i = 0; i < r->n; i++) {
        if (r->members[i].standing == ZC_CLUSTER_IN)
            in[n++] = &r->members[i];
    }
    qsort(in, n, sizeof(*in), member_by_life);
    for (unsigned i = 0; i < n; i++) {
        struct zc_cluster_member *m = in[i];
        if (i > 0 && memcmp(m->node.id, in[i - 1]->node.id, ZC_NODE_ID) == 0) {
            m->standing = ZC_CLUSTER_DOUBLE;
            for (unsigned k = i; k-- > 0 && !r->copied;)
                r->copied = in[k]->node.is_self &&
                            memcmp(m->node.id, in[k]->node.id, ZC_NODE_ID) == 0 &&
                            m->started_ms > in[k]->started_ms;
            continue;
        }
        int e = cluster_indices_of(x, m->node.id, &m->node.index);
        if (e == -ENOSPC) {
            m->standing = ZC_CLUSTER_TOO_MANY;
            continue;
        }
        if (e < 0)
            return e;
        nodes[kept++] = m->node;
    }
    return cluster_view_new(nodes, kept, &r->view);
}

int cluster_read(struct cluster_indices *x, const struct cluster_seen *seen, unsigned n,
                 uint8_t peer_protocol, struct cluster_reading *out)
{
    struct cluster_reading r = {.n = n};
    r.members = calloc(n + 1, sizeof(*r.members));
    if (!r.members)
        return -ENOMEM;
    for (unsigned i = 0; i < n; i++)
        member_read(&r.members[i], &seen[i], peer_protocol);
    qsort(r.members, n, sizeof(*r.members), member_by_name);
    int e = read_view(x, &r);
    for (unsigned i = 0; i < n && e == 0; i++) {
        unsigned count;
        const struct zc_cluster_node *nodes = cluster_view_nodes(r.view, &count);
        const struct zc_cluster_node *node = cluster_view_find(r.view, r.members[i].node.id);
        if (r.members[i].standing == ZC_CLUSTER_IN && node)
            r.members[i].share = cluster_view_share(r.view, (unsigned)(node - nodes));
    }
    if (e < 0) {
        cluster_reading_free(&r);
        return e;
    }
    *out = r;
    return 0;
}

void cluster_reading_free(struct cluster_reading *r)
{
    free(r->members);
    cluster_view_unref(r->view);
    *r = (struct cluster_reading){0};
}
