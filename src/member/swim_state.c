/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What alive, suspect and dead do to a member: SWIM's rules of incarnations as memberlist has them
 * (state.go), Lifeguard's suspicion (suspicion.go). What may be believed at once and what has to be
 * put to the node first is decided here too; swim_claim.c does the asking.
 *
 *                      its name has a number        foreign
 *   unknown, alive     ask                          ask
 *   alive, newer       believe; much newer: ask     ask
 *   gone, alive again  ask                          ask
 *   dead, alive still  tell it, so that it refutes  tell it, so that it refutes
 *   suspect            believe (it may refute)      ask
 *   dead               suspected: believe; or ask   ask
 *   left               ask                          ask
 *
 * A suspicion that nobody refuted is put to the node as well, before it counts as dead here.
 *
 * With a number in the name a message is either about this life of the node, in which incarnations
 * order all that was said, or about no node at all.
 */
#include "member/swim_priv.h"
#include "base/digest.h"

#include <math.h>
#include <string.h>

/* ---- incarnations ---- */

/* Whether `inc` is so far above `known` that nobody gets there by honest refutations. */
static bool is_far(uint32_t inc, uint32_t known)
{
    return inc > known && inc - known > INCARNATION_JUMP;
}

static bool clamp(struct zc_swim *s, bool impossible)
{
    s->stats.clamped += impossible;
    return impossible;
}

void state_refute(struct zc_swim *s, uint32_t accused)
{
    struct member *me = &s->members[s->self];
    s->stats.refuted++;
    if (accused >= INCARNATION_MAX - 1 || is_far(accused, me->incarnation)) {
        swim_rename(s);
        return;
    }
    me->incarnation = ZC_MAX(me->incarnation, accused) + 1;
    probe_health(s, 1);
    rumour_add(s, s->self, ZC_WIRE_ALIVE, NULL);
}

/* ---- alive ---- */

static void alive_self(struct zc_swim *s, const struct zc_wire_alive *a)
{
    const struct member *me = &s->members[s->self];
    const struct zc_swim_node *n = &me->node->pub;
    struct zc_swim_addr addr;
    if (s->leaving || a->incarnation < me->incarnation)
        return;
    bool same = addr_from_wire(a->addr, a->port, &addr) && zc_swim_addr_eq(&addr, &n->addr) &&
                a->meta.len == n->meta_len &&
                (a->meta.len == 0 || memcmp(a->meta.p, n->meta, n->meta_len) == 0) &&
                a->vsn.len == ZC_WIRE_VSN && memcmp(a->vsn.p, n->vsn, ZC_WIRE_VSN) == 0;
    if (a->incarnation > me->incarnation || !same)
        state_refute(s, a->incarnation);
}

static void alive_unknown(struct zc_swim *s, const struct zc_wire_alive *a)
{
    if (clamp(s, a->incarnation >= INCARNATION_MAX) || a->incarnation == 0)
        return;
    struct node *n = node_from_wire(s, a);
    if (!n) {
        s->stats.bad++;
        return;
    }
    uint32_t m = member_add(s, n, a->incarnation);
    if (m == NONE)
        return;
    s->members[m].tell = (uint8_t)s->tell;
    claim_make(s, m, ZC_SWIM_PENDING, a->incarnation, NULL, NULL);
}

void state_alive(struct zc_swim *s, const struct zc_wire_alive *a)
{
    uint32_t m = member_find(s, a->node);
    if (m == s->self) {
        alive_self(s, a);
        return;
    }
    if (m == NONE) {
        alive_unknown(s, a);
        return;
    }
    struct member *x = &s->members[m];
    bool gone = x->state == ZC_SWIM_DEAD || x->state == ZC_SWIM_LEFT;
    struct zc_swim_addr addr;
    if (!addr_from_wire(a->addr, a->port, &addr)) {
        s->stats.bad++;
        return;
    }
    bool moved = !zc_swim_addr_eq(&addr, &x->node->pub.addr);
    if (moved && !gone && x->state != ZC_SWIM_PENDING) {
        swim_event(s, ZC_SWIM_CONFLICT, m);
        return;
    }
    if (a->incarnation <= x->incarnation && !(moved && x->state == ZC_SWIM_LEFT)) {
        /* Others take it to be alive and we do not: as after a partition, when it may never have
           heard that it was declared dead here, and what it says of itself would be old news until
           it is forgotten. Let it hear of it, so that it can refute. */
        if (x->state == ZC_SWIM_DEAD && a->incarnation == x->incarnation && !moved)
            claim_make(s, m, ZC_SWIM_DEAD, x->incarnation, NULL, NULL);
        else if (s->merging && x->state == ZC_SWIM_ALIVE && a->incarnation == x->incarnation)
            rumour_known(s, m);
        return;
    }
    if (clamp(s, a->incarnation >= INCARNATION_MAX))
        return;
    /* The answer to the highest accusation that counts is one above it. Beyond that, what is in
       between may have passed us by: the node itself knows. */
    bool far = a->incarnation > 0 && is_far(a->incarnation - 1, x->incarnation);
    struct node *n = node_from_wire(s, a);
    if (!n) {
        s->stats.bad++;
        return;
    }
    if (x->state == ZC_SWIM_PENDING) { /* newer; the question stays the same */
        node_unref(s->pool, x->node);
        x->node = n;
        x->incarnation = a->incarnation;
    } else if (!gone && !far && !n->pub.foreign && !x->node->pub.foreign) {
        state_set_alive(s, m, n, a->incarnation);
    } else {
        claim_make(s, m, ZC_SWIM_ALIVE, a->incarnation, n, NULL);
    }
}

static void end_suspicion(struct zc_swim *s, struct member *x)
{
    if (x->suspicion == NONE)
        return;
    slab_give(&s->suspicions, sizeof(struct suspicion), x->suspicion);
    x->suspicion = NONE;
}

void state_set_alive(struct zc_swim *s, uint32_t m, struct node *n, uint32_t incarnation)
{
    struct member *x = &s->members[m];
    struct node *old = x->node;
    uint8_t was = x->state;
    bool same = n->pub.meta_len == old->pub.meta_len &&
                (n->pub.meta_len == 0 || memcmp(n->pub.meta, old->pub.meta, n->pub.meta_len) == 0);
    end_suspicion(s, x);
    claim_drop(s, m);
    x->node = n;
    x->incarnation = incarnation;
    member_set_state(s, m, ZC_SWIM_ALIVE);
    if (was != ZC_SWIM_PENDING || x->tell == TELL)
        rumour_add(s, m, ZC_WIRE_ALIVE, NULL);
    else if (x->tell == TELL_LATE)
        rumour_late(s, m);
    if (was != ZC_SWIM_ALIVE && was != ZC_SWIM_SUSPECT) {
        swim_event(s, ZC_SWIM_JOINED, m);
        stream_note_change(s);
    } else if (!same) {
        swim_event(s, ZC_SWIM_UPDATED, m);
    }
    node_unref(s->pool, old);
}

/* ---- suspect ---- */

/* Lifeguard: the more members confirm a suspicion, the shorter it lasts. What it lasts in all. */
static int64_t suspicion_time(const struct suspicion *p)
{
    if (p->k == 0)
        return p->min;
    double f = log(p->n + 1.0) / log(p->k + 1.0);
    double t = (double)p->max - f * (double)(p->max - p->min);
    int64_t ns = (int64_t)t / ZC_NS_PER_MS * ZC_NS_PER_MS;
    return ZC_MAX(ns, p->min);
}

static uint64_t name_hash(struct zc_bytes name)
{
    return zc_hash64(1, name.p, name.len);
}

/* True when this accuser is new and was wanted. */
static bool confirm(struct zc_swim *s, struct suspicion *p, uint32_t index, struct zc_bytes from)
{
    uint64_t h = name_hash(from);
    if (p->n >= p->k)
        return false;
    for (unsigned i = 0; i <= p->n; i++)
        if (p->from[i] == h)
            return false;
    p->from[++p->n] = h;
    p->gen = ++s->gen;
    swim_timer(s, p->start + suspicion_time(p), TIMER_SUSPICION, index, p->gen);
    return true;
}

void state_set_suspect(struct zc_swim *s, uint32_t m, uint32_t incarnation, struct node *from)
{
    struct member *x = &s->members[m];
    uint32_t i = slab_take(&s->suspicions, sizeof(struct suspicion));
    if (i == NONE) {
        node_unref(s->pool, from);
        return;
    }
    const struct node *accuser = from ? from : s->members[s->self].node;
    struct suspicion *p = slab_at(&s->suspicions, struct suspicion, i);
    int k = (int)s->config.suspicion_mult - 2, n = (int)s->n_known;
    double scale = ZC_MAX(1.0, log10((double)n));
    p->member = m;
    p->gen = ++s->gen;
    p->start = s->now;
    p->k = (uint8_t)(k < 0 || n - 2 < k ? 0 : k);
    p->min = (int64_t)(s->config.suspicion_mult * scale * (double)s->config.probe_interval);
    p->max = p->min * s->config.suspicion_max_mult;
    p->from[0] = name_hash(node_name(accuser));
    x->suspicion = i;
    x->incarnation = incarnation;
    member_set_state(s, m, ZC_SWIM_SUSPECT);
    swim_timer(s, s->now + suspicion_time(p), TIMER_SUSPICION, i, p->gen);
    rumour_add(s, m, ZC_WIRE_SUSPECT, from);
    swim_event(s, ZC_SWIM_SUSPECTED, m);
}

/* The member of that name, with a reference; NULL (which stands for this node) for a stranger's. */
static struct node *accuser_of(struct zc_swim *s, struct zc_bytes from)
{
    uint32_t m = member_find(s, from);
    return m == NONE || m == s->self ? NULL : node_ref(s->members[m].node);
}

/* Whether an accusation is news at all; answers it when it is about this node. */
static bool accusation_counts(struct zc_swim *s, const struct zc_wire_accuse *a, uint32_t m)
{
    if (m == NONE)
        return false;
    const struct member *x = &s->members[m];
    if (a->incarnation < x->incarnation) {
        /* Who says that of this node has missed what it said since. */
        if (m == s->self && !s->leaving && x->rumour == NONE)
            rumour_add(s, m, ZC_WIRE_ALIVE, NULL);
        return false;
    }
    if (m == s->self) {
        if (!s->leaving)
            state_refute(s, a->incarnation);
        return false;
    }
    return !clamp(s, a->incarnation >= INCARNATION_MAX || is_far(a->incarnation, x->incarnation));
}

void state_suspect(struct zc_swim *s, const struct zc_wire_accuse *a)
{
    uint32_t m = member_find(s, a->node);
    if (!accusation_counts(s, a, m))
        return;
    struct member *x = &s->members[m];
    if (x->suspicion != NONE) {
        struct suspicion *p = slab_at(&s->suspicions, struct suspicion, x->suspicion);
        if (confirm(s, p, x->suspicion, a->from))
            rumour_add(s, m, ZC_WIRE_SUSPECT, accuser_of(s, a->from));
        return;
    }
    if (x->state != ZC_SWIM_ALIVE)
        return;
    struct node *from = accuser_of(s, a->from);
    if (x->node->pub.foreign)
        claim_make(s, m, ZC_SWIM_SUSPECT, a->incarnation, NULL, from);
    else
        state_set_suspect(s, m, a->incarnation, from);
}

void state_suspect_own(struct zc_swim *s, uint32_t m, uint32_t incarnation)
{
    struct member *x = &s->members[m];
    if (incarnation < x->incarnation)
        return;
    if (x->suspicion != NONE) {
        struct suspicion *p = slab_at(&s->suspicions, struct suspicion, x->suspicion);
        if (confirm(s, p, x->suspicion, node_name(s->members[s->self].node)))
            rumour_add(s, m, ZC_WIRE_SUSPECT, NULL);
    } else if (x->state == ZC_SWIM_ALIVE) {
        state_set_suspect(s, m, incarnation, NULL);
    }
}

void state_suspicion_over(struct zc_swim *s, uint32_t index, uint32_t gen)
{
    if (index >= s->suspicions.used)
        return;
    struct suspicion *p = slab_at(&s->suspicions, struct suspicion, index);
    uint32_t m = p->member;
    if (p->gen != gen || m >= s->slots || s->members[m].suspicion != index)
        return;
    /* Its refutation may have been lost on the way here: one of the many members' views would be
       wrong now and then. So it has the last word; and again, if it answers but does not refute. */
    p->gen = ++s->gen;
    swim_timer(s, s->now + p->min, TIMER_SUSPICION, index, p->gen);
    claim_make(s, m, ZC_SWIM_DEAD, s->members[m].incarnation, NULL, NULL);
}

/* ---- dead, left ---- */

void state_set_gone(struct zc_swim *s, uint32_t m, uint32_t incarnation, bool left,
                    struct node *from)
{
    struct member *x = &s->members[m];
    end_suspicion(s, x);
    claim_drop(s, m);
    x->incarnation = incarnation;
    member_set_state(s, m, left ? ZC_SWIM_LEFT : ZC_SWIM_DEAD);
    if (left && !from)
        from = node_ref(x->node);
    rumour_add(s, m, ZC_WIRE_DEAD, from);
    if (m == s->self)
        return;
    swim_event(s, ZC_SWIM_GONE, m);
    stream_note_change(s);
    if (s->n_alive + s->n_suspect <= 1)
        stream_alone(s);
}

void state_dead(struct zc_swim *s, const struct zc_wire_accuse *a)
{
    uint32_t m = member_find(s, a->node);
    if (!accusation_counts(s, a, m))
        return;
    struct member *x = &s->members[m];
    bool left = name_is(x->node, a->from), foreign = x->node->pub.foreign;
    if (x->state == ZC_SWIM_PENDING) {
        if (!foreign)
            member_drop(s, m);
        return;
    }
    if (x->state == ZC_SWIM_DEAD || x->state == ZC_SWIM_LEFT)
        return;
    struct node *from = accuser_of(s, a->from);
    if (left || foreign || x->state == ZC_SWIM_ALIVE)
        claim_make(s, m, left ? ZC_SWIM_LEFT : ZC_SWIM_DEAD, a->incarnation, NULL, from);
    else
        state_set_gone(s, m, a->incarnation, false, from);
}
