/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes over gossip's sockets, without a key, so that nothing stops it: a packet, and the same
 * bytes as a stream that was opened to this node, and as the answer on one that it opened. The node
 * knows a few others, and time passes between, so that what was learned is used.
 */
#include "member/frame.h"
#include "member/swim.h"

#include <string.h>

struct fuzz {
    uint64_t random;
    uint32_t stream;
    bool open;
};

static uint64_t next_random(void *arg)
{
    struct fuzz *f = arg;
    return f->random = f->random * 6364136223846793005u + 1442695040888963407u;
}

static void packet(void *arg, const struct zc_swim_addr *to, const uint8_t *p, size_t n, bool crc)
{
    (void)arg, (void)to, (void)p, (void)crc;
    if (n > ZC_WIRE_PACKET_MAX)
        abort();
}

static void stream(void *arg, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
                   size_t n, int64_t deadline)
{
    (void)to, (void)p, (void)n, (void)deadline;
    struct fuzz *f = arg;
    f->stream = id;
    f->open = true;
}

static void event(void *arg, const struct zc_swim_event *e)
{
    (void)arg, (void)e;
}

static void look(void *arg, const struct zc_swim_view *v)
{
    unsigned *n = arg;
    if (strlen(v->node->name) != v->node->name_len || v->node->meta_len > ZC_WIRE_META_MAX)
        abort();
    ++*n;
}

/* Two members under names that the seeds use: alpha is known, beta's alive comes in seeds. */
static void introduce(struct zc_swim *s, int64_t now, const struct zc_swim_addr *from)
{
    zc_autobuf struct zc_buf b = {0};
    static const uint8_t vsn[ZC_WIRE_VSN] = {1, 5, 2};
    struct zc_wire_alive a = {.node = {(const uint8_t *)"alpha", 5},
                              .addr = {from->ip, 4},
                              .vsn = {vsn, sizeof(vsn)},
                              .incarnation = 1,
                              .port = 7946};
    zc_wire_write_alive(&b, &a);
    zc_swim_packet(s, now, from, (uint8_t *)b.p, b.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct zc_swim_ops ops = {next_random, packet, stream, event};
    struct zc_swim_addr from = {.ip = {127, 0, 7, 1}, .len = 4, .port = 7946};
    struct fuzz f = {.random = 1};
    struct zc_swim_config c;
    struct zc_frame frame;
    zc_swim_defaults(&c);
    c.name = "fuzz";
    c.addr = (struct zc_swim_addr){.ip = {127, 0, 7, 9}, .len = 4, .port = 7946};
    c.packet_max = 1300;
    struct zc_swim *s = zc_swim_new(&c, &ops, &f, 0);
    if (!s || zc_frame_init(&frame, "", NULL, false) < 0)
        abort();
    int64_t now = ZC_NS_PER_MS;
    introduce(s, now, &from);
    zc_swim_join(s, now, &from, 1);

    zc_autobuf struct zc_buf plain = {.max = ZC_WIRE_DATAGRAM_MAX};
    if (zc_frame_open_packet(&frame, data, size, &plain) == 0)
        zc_swim_packet(s, now, &from, (uint8_t *)plain.p, plain.len);

    struct zc_frame_stream in = {0};
    zc_autobuf struct zc_buf reply = {.max = ZC_WIRE_STREAM_MAX};
    zc_buf_add(&in.in, data, size);
    if (zc_frame_open_stream(&frame, &in, true) == 1) {
        zc_swim_serve(s, now, (uint8_t *)in.out.p, in.out.len, &reply);
        if (f.open)
            zc_swim_stream_reply(s, now, f.stream, (uint8_t *)in.out.p, in.out.len);
    }
    for (int i = 0; i < 40; i++)
        zc_swim_tick(s, now = ZC_MAX(now, ZC_MIN(zc_swim_next(s), now + ZC_NS_PER_S)));
    unsigned n = 0;
    zc_swim_each(s, look, &n);
    if (n < 1)
        abort();
    zc_frame_stream_free(&in);
    zc_frame_free(&frame);
    zc_swim_free(s);
    return 0;
}
