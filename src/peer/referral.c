/* SPDX-License-Identifier: Apache-2.0 */
/* See referral.h. */
#include "peer/referral.h"

#include <string.h>

/* Those that receive these bytes; the ones to whom the fewest were sent, best first. */
static unsigned referral_children(const struct zc_list *children, const struct peer_request *r,
                                  struct zc_digest object, struct peer_child *best[PEER_REFERS])
{
    unsigned n = 0, kept = 0;
    zc_list_for_each (it, children) {
        struct peer_child *c = zc_list_entry(it, struct peer_child, link);
        if (!zc_digest_eq(c->object, object) || r->off < c->off || r->off >= c->end ||
            memcmp(c->node, r->node, ZC_NODE_ID) == 0)
            continue;
        n++;
        unsigned i = kept < PEER_REFERS ? kept++ : kept;
        while (i > 0 && best[i - 1]->sent > c->sent) {
            if (i < PEER_REFERS)
                best[i] = best[i - 1];
            i--;
        }
        if (i < PEER_REFERS)
            best[i] = c;
    }
    return n;
}

unsigned peer_referral_place(struct zc_list *children, const struct peer_request *r,
                             struct zc_digest object, struct peer_child **child,
                             uint8_t refer[PEER_REFERS][ZC_NODE_ID])
{
    struct peer_child *best[PEER_REFERS];
    unsigned n = referral_children(children, r, object, best);
    *child = NULL;
    if (n >= PEER_CHILDREN && !r->direct) {
        n = ZC_MIN(n, (unsigned)PEER_REFERS);
        best[0]->sent++;
        for (unsigned i = 0; i < n; i++)
            memcpy(refer[i], best[i]->node, ZC_NODE_ID);
        return n;
    }
    struct peer_child *c = calloc(1, sizeof(*c));
    if (!c)
        return 0;
    memcpy(c->node, r->node, ZC_NODE_ID);
    c->object = object;
    c->off = r->off;
    c->end = r->off + r->len;
    zc_list_push_back(children, &c->link);
    *child = c;
    return 0;
}
