/* SPDX-License-Identifier: Apache-2.0 */
/* Time, links and processors: see fetch_sim.h. */
#include "fetch_sim.h"

#include <string.h>

struct event {
    int64_t at_ns;
    uint64_t number; /* what was planned first comes first */
    zc_net_fn *fn;
    void *arg;
};

struct block {
    struct block *next;
    max_align_t bytes[];
};

struct sim sim;
static struct {
    int64_t now_ns;
    struct event *heap;
    size_t n, cap;
    uint64_t numbers;
    struct block *blocks;
} world;

/* The clock of everything that is compiled into the simulator. */
int clock_gettime(clockid_t which, struct timespec *ts)
{
    *ts = (struct timespec){.tv_sec = world.now_ns / ZC_NS_PER_S,
                            .tv_nsec = world.now_ns % ZC_NS_PER_S};
    return 0;
}

int64_t sim_now(void)
{
    return world.now_ns;
}

uint64_t sim_random(uint64_t a, uint64_t b)
{
    uint64_t both[2] = {a, b};
    return zc_hash64(sim.set.seed, both, sizeof(both));
}

void *sim_alloc(size_t n)
{
    struct block *b = calloc(1, sizeof(*b) + n);
    if (!b)
        abort();
    b->next = world.blocks;
    world.blocks = b;
    return b->bytes;
}

void sim_reset(void)
{
    while (world.blocks) {
        struct block *b = world.blocks;
        world.blocks = b->next;
        free(b);
    }
    free(world.heap);
    memset(&world, 0, sizeof(world));
    world.now_ns = ZC_NS_PER_S;
}

/* ------------------------------------------------------------------ events */

static bool before(const struct event *a, const struct event *b)
{
    return a->at_ns != b->at_ns ? a->at_ns < b->at_ns : a->number < b->number;
}

void sim_after(int64_t delay_ns, zc_net_fn *fn, void *arg)
{
    if (world.n == world.cap) {
        world.cap = world.cap ? 2 * world.cap : 4096;
        world.heap = realloc(world.heap, world.cap * sizeof(*world.heap));
        if (!world.heap)
            abort();
    }
    struct event e = {world.now_ns + delay_ns, world.numbers++, fn, arg};
    size_t i = world.n++;
    while (i > 0 && before(&e, &world.heap[(i - 1) / 2])) {
        world.heap[i] = world.heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    world.heap[i] = e;
}

static struct event next_event(void)
{
    struct event first = world.heap[0], last = world.heap[--world.n];
    size_t i = 0;
    for (;;) {
        size_t c = 2 * i + 1;
        if (c >= world.n)
            break;
        if (c + 1 < world.n && before(&world.heap[c + 1], &world.heap[c]))
            c++;
        if (!before(&world.heap[c], &last))
            break;
        world.heap[i] = world.heap[c];
        i = c;
    }
    world.heap[i] = last;
    return first;
}

void sim_run(void)
{
    while (world.n) {
        struct event e = next_event();
        world.now_ns = e.at_ns;
        sim.events++;
        e.fn(e.arg, false);
    }
}

/* ------------------------------------------------------------------ processors */

void sim_cpu(unsigned node, int which, unsigned key, int64_t cost_ns, zc_net_fn *fn, void *arg)
{
    int64_t *free_ns = &sim.nodes[node].cpu_ns[which][key % 2];
    *free_ns = ZC_MAX(*free_ns, world.now_ns) + cost_ns;
    sim_after(*free_ns - world.now_ns, fn, arg);
}

/* ------------------------------------------------------------------ links */

static void send_next(struct sim_node *n);

static void message_sent(void *arg, bool ends)
{
    struct event *e = arg;
    struct sim_node *to = &sim.nodes[e->number];
    sim_after(ZC_MAX(to->received_ns - world.now_ns, (int64_t)0), e->fn, e->arg);
}

void sim_message(unsigned from, unsigned to, zc_net_fn *fn, void *arg)
{
    struct event *e = sim_alloc(sizeof(*e));
    *e = (struct event){.number = to, .fn = fn, .arg = arg};
    int64_t wait = ZC_MAX(sim.nodes[from].sent_ns - world.now_ns, (int64_t)0);
    sim_after(wait + SIM_HALF_RTT_NS, message_sent, e);
}

/* When the last bit of a segment is through that begins to come a segment's time ago. */
static int64_t receive(struct sim_node *to)
{
    to->received_ns = ZC_MAX(world.now_ns, to->received_ns + SIM_SEGMENT_NS);
    return to->received_ns - world.now_ns;
}

void sim_from_store(unsigned to, zc_net_fn *fn, void *arg)
{
    sim_after(receive(&sim.nodes[to]), fn, arg);
}

static void flow_acked(void *arg, bool ends)
{
    struct sim_flow *f = arg;
    f->under_way--;
    f->acked(f->arg);
    send_next(&sim.nodes[f->from]);
}

static void flow_received(void *arg, bool ends)
{
    struct sim_flow *f = arg;
    f->arrived(f->arg);
    sim_after(SIM_HALF_RTT_NS, flow_acked, f);
}

static void flow_arrives(void *arg, bool ends)
{
    struct sim_flow *f = arg;
    sim_after(receive(&sim.nodes[f->to]), flow_received, f);
}

static void sent(void *arg, bool ends)
{
    struct sim_node *n = arg;
    n->sending = false;
    send_next(n);
}

/* The connections take turns. */
static void send_next(struct sim_node *n)
{
    if (n->sending)
        return;
    zc_list_for_each_safe (it, tmp, &n->turns) {
        struct sim_flow *f = zc_list_entry(it, struct sim_flow, link);
        if (f->closed || f->queued == 0) {
            zc_list_del(&f->link);
            continue;
        }
        if (f->under_way == SIM_WINDOW)
            continue;
        zc_list_del(&f->link);
        zc_list_push_back(&n->turns, &f->link);
        f->queued -= SIM_SEGMENT;
        f->under_way++;
        n->sending = true;
        n->sent_ns = world.now_ns + SIM_SEGMENT_NS;
        sim_after(SIM_SEGMENT_NS, sent, n);
        sim_after(SIM_SEGMENT_NS + SIM_HALF_RTT_NS, flow_arrives, f);
        return;
    }
}

struct sim_flow *sim_flow(unsigned from, unsigned to, void (*arrived)(void *arg),
                          void (*acked)(void *arg), void *arg)
{
    struct sim_flow *f = sim_alloc(sizeof(*f));
    *f = (struct sim_flow){.from = from, .to = to, .arrived = arrived, .acked = acked, .arg = arg};
    zc_list_init(&f->link);
    return f;
}

void sim_send(struct sim_flow *f, uint64_t n)
{
    f->queued += n;
    if (zc_list_empty(&f->link))
        zc_list_push_back(&sim.nodes[f->from].turns, &f->link);
    send_next(&sim.nodes[f->from]);
}
