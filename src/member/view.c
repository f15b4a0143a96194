/* SPDX-License-Identifier: Apache-2.0 */
/* See driver.h. A view is one block: members, then their descriptions, then names and metadata. */
#include "member/driver.h"

#include <stdalign.h>
#include <string.h>

struct making {
    struct zc_member_view *v;
    struct zc_swim_node *nodes;
    char *text;
    size_t n, bytes;
};

static void measure(void *arg, const struct zc_swim_view *x)
{
    struct making *k = arg;
    k->n++;
    k->bytes += x->node->name_len + 1u + x->node->meta_len;
}

static void place(void *arg, const struct zc_swim_view *x)
{
    struct making *k = arg;
    struct zc_swim_node *n = &k->nodes[k->v->n];
    *n = *x->node;
    n->name = memcpy(k->text, x->node->name, x->node->name_len + 1u);
    k->text += x->node->name_len + 1u;
    n->meta = (uint8_t *)k->text;
    if (n->meta_len)
        memcpy(k->text, x->node->meta, n->meta_len);
    k->text += n->meta_len;
    k->v->members[k->v->n] = *x;
    k->v->members[k->v->n++].node = n;
}

struct zc_member_view *view_make(const struct zc_swim *core)
{
    struct making k = {0};
    zc_swim_each(core, measure, &k);
    size_t head = sizeof(*k.v) + k.n * sizeof(k.v->members[0]);
    _Static_assert(alignof(struct zc_swim_view) >= alignof(struct zc_swim_node), "nodes follow");
    k.v = malloc(head + k.n * sizeof(*k.nodes) + k.bytes);
    if (!k.v)
        return NULL;
    atomic_init(&k.v->refs, 1);
    k.v->n = 0;
    k.nodes = (struct zc_swim_node *)((char *)k.v + head);
    k.text = (char *)(k.nodes + k.n);
    zc_swim_each(core, place, &k);
    return k.v;
}

void zc_member_view_unref(struct zc_member_view *v)
{
    if (v && atomic_fetch_sub_explicit(&v->refs, 1, memory_order_acq_rel) == 1)
        free(v);
}

bool addr_from_sockaddr(const struct sockaddr_storage *ss, struct zc_swim_addr *out)
{
    memset(out, 0, sizeof(*out));
    if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *a = (const void *)ss;
        memcpy(out->ip, &a->sin_addr, 4);
        out->len = 4;
        out->port = ntohs(a->sin_port);
        return true;
    }
    if (ss->ss_family != AF_INET6)
        return false;
    const struct sockaddr_in6 *a = (const void *)ss;
    out->port = ntohs(a->sin6_port);
    out->len = IN6_IS_ADDR_V4MAPPED(&a->sin6_addr) ? 4 : 16;
    memcpy(out->ip, a->sin6_addr.s6_addr + 16 - out->len, out->len);
    return true;
}

socklen_t addr_to_sockaddr(const struct zc_swim_addr *a, bool ipv6, struct sockaddr_storage *out)
{
    static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};
    memset(out, 0, sizeof(*out));
    if (!ipv6) {
        struct sockaddr_in *o = (void *)out;
        bool is_mapped = a->len == 16 && memcmp(a->ip, mapped, sizeof(mapped)) == 0;
        if (a->len != 4 && !is_mapped)
            return 0;
        o->sin_family = AF_INET;
        o->sin_port = htons(a->port);
        memcpy(&o->sin_addr, a->ip + a->len - 4, 4);
        return sizeof(*o);
    }
    struct sockaddr_in6 *o = (void *)out;
    o->sin6_family = AF_INET6;
    o->sin6_port = htons(a->port);
    if (a->len == 4)
        memcpy(o->sin6_addr.s6_addr, mapped, sizeof(mapped));
    memcpy(o->sin6_addr.s6_addr + 16 - a->len, a->ip, a->len);
    return sizeof(*o);
}
