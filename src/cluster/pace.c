/* SPDX-License-Identifier: Apache-2.0 */
/* See pace.h. */
#include "cluster/pace.h"
#include "ring/ring.h"

/* What this node would have to pull if it took its whole share now. */
static bool pace_cold(const struct cluster_pace *p, const struct cluster_pace_others *o,
                      uint64_t used)
{
    double share = (double)p->capacity / ((double)p->capacity + o->capacity);
    return share * (double)o->used > (double)used + (double)ZC_PACE_COLD_BYTES;
}

uint8_t cluster_pace_weight(struct cluster_pace *p, const struct cluster_pace_others *others,
                            uint64_t used, int64_t now_ns)
{
    if (p->draining)
        return 0;
    if (p->blind && others->heard)
        p->step = 0;
    if (p->step == 0) {
        if (!others->known)
            return 0;
        p->blind = !others->heard;
        p->step = pace_cold(p, others, used) ? 1 : ZC_PACE_STEPS;
        p->next_ns = now_ns + ZC_PACE_STEP_NS;
    }
    while (p->step < ZC_PACE_STEPS && now_ns >= p->next_ns) {
        p->step++;
        p->next_ns += ZC_PACE_STEP_NS;
    }
    return zc_ring_weight(p->capacity / ZC_PACE_STEPS * p->step);
}

uint8_t cluster_pace_nominal(const struct cluster_pace *p)
{
    return zc_ring_weight(p->capacity);
}
