/* SPDX-License-Identifier: Apache-2.0 */
/* Questions to other nodes: what peer/attempt.c does over HTTP, over the simulated links. */
#include "fetch_sim.h"

#include <errno.h>
#include <string.h>

static uint8_t zeros[SIM_CHUNK];

int zc_net_timer(struct zc_net *net, unsigned loop, int64_t delay_ns, zc_net_fn *fn, void *arg)
{
    sim_after(delay_ns, fn, arg);
    return 0;
}

/* The nodes of the model have processors of their own (sim_cpu). */
int64_t zc_net_starved_ns(struct zc_net *net, unsigned loop)
{
    return 0;
}

/* As in attempt.c: what the end of a question says of the node. */
static void attempt_account(struct sim_attempt *t, int err)
{
    struct peer_health *h = &t->asker->peer.health;
    bool ours = err == -ECANCELED;
    if (t->status && !t->a.spoke_ns && !ours) {
        t->a.spoke_ns = sim_now() - t->a.started_ns;
        peer_health_spoke(h, t->a.node.index, t->a.spoke_ns);
    }
    if (ours && !t->a.spoke_ns)
        peer_health_nothing(h, t->a.node.index);
    else if (!t->a.spoke_ns || err == -ECONNRESET)
        peer_health_failed(h, t->a.node.index, sim_now());
}

static void attempt_end(struct sim_attempt *t, int err)
{
    if (t->over)
        return;
    t->over = true;
    t->err = err;
    attempt_account(t, err);
    sim_message(t->asker->number, t->asked->number, sim_server_closed, t);
    t->a.ops->done(&t->a, err);
}

static void attempt_cancelled(void *arg, bool ends)
{
    attempt_end(arg, -ECANCELED);
}

void peer_attempt_cancel(struct peer_attempt *a)
{
    sim_after(0, attempt_cancelled, zc_container_of(a, struct sim_attempt, a));
}

void sim_attempt_spoke(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    if (t->over || t->a.spoke_ns)
        return;
    t->a.spoke_ns = sim_now() - t->a.started_ns;
    peer_health_spoke(&t->asker->peer.health, t->a.node.index, t->a.spoke_ns);
    if (!t->a.ops->speaks(&t->a))
        attempt_end(t, -ECANCELED);
}

static void attempt_ended(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    attempt_end(t, t->err);
}

/* An answer without bytes is here. */
void sim_attempt_said(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    t->err = t->status == 307   ? -EXDEV
             : t->status == 404 ? -ENOENT
             : t->status == 409 ? -EBUSY
                                : -ECONNRESET;
    sim_cpu(t->asker->number, SIM_IN, t->a.node.index, SIM_CPU_SAID_NS, attempt_ended, t);
}

static void attempt_piece(struct sim_attempt *t, uint64_t n)
{
    if (t->over)
        return;
    t->a.body.pos = t->got += n;
    if (t->a.ops->bytes(&t->a, zeros, n) < 0)
        attempt_end(t, -ECANCELED);
    else if (t->got == t->a.len)
        attempt_end(t, 0);
}

static void attempt_frame(void *arg, bool ends)
{
    attempt_piece(arg, PEER_FRAME_MAX);
}

static void attempt_whole(void *arg, bool ends)
{
    struct sim_attempt *t = arg;
    attempt_piece(t, t->a.len);
}

void sim_attempt_segment(void *arg)
{
    struct sim_attempt *t = arg;
    if (t->over)
        return;
    sim_attempt_spoke(t, false);
    t->arrived += SIM_SEGMENT;
    peer_health_got(&t->asker->peer.health, t->a.node.index, SIM_SEGMENT);
    if (t->hit && t->arrived == t->a.len)
        sim_cpu(t->asker->number, SIM_IN, t->a.node.index,
                SIM_CPU_IN_NS * (int64_t)(t->a.len / PEER_FRAME_MAX), attempt_whole, t);
    else if (!t->hit && t->arrived % PEER_FRAME_MAX == 0)
        sim_cpu(t->asker->number, SIM_IN, t->a.node.index, SIM_CPU_IN_NS, attempt_frame, t);
}

int peer_attempt_start(struct zc_peer *p, const struct zc_cluster_node *to,
                       const struct peer_request *req, struct zc_digest object, unsigned loop,
                       const struct peer_attempt_ops *ops, void *user, struct peer_attempt **out)
{
    struct sim_attempt *t = sim_alloc(sizeof(*t));
    t->a = (struct peer_attempt){.p = p,
                                 .ops = ops,
                                 .user = user,
                                 .node = *to,
                                 .object = object,
                                 .off = req->off,
                                 .len = req->len,
                                 .started_ns = sim_now()};
    t->req = *req;
    t->asker = zc_container_of(p, struct sim_node, peer);
    t->asked = &sim.nodes[to->index];
    t->chunk = &t->asked->chunks[strtoul(req->path, NULL, 10)];
    if (sim.set.no_referral)
        t->req.direct = true;
    *out = &t->a;
    peer_count(&p->asked, 1);
    sim_message(t->asker->number, to->index, sim_server_asked, t);
    return 0;
}
