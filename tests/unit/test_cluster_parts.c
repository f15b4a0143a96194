/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a cluster is made of: descriptors (their bytes are part of what nodes say to each other),
 * the id on disk, the nodes behind what gossip says, and the pace at which a node takes on its
 * share.
 */
#include "cluster/desc.h"
#include "cluster/id.h"
#include "cluster/members.h"
#include "cluster/pace.h"
#include "ring/ring.h"

#include "unit.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct cluster_desc desc(unsigned i)
{
    struct cluster_desc d = {.ring_protocol = ZC_RING_PROTOCOL,
                             .peer_protocol = 3,
                             .weight = 40,
                             .nominal = 44,
                             .used = 20,
                             .port = 7947,
                             .started_ms = 1000 + i};
    memset(d.id, (int)(i + 1), sizeof(d.id));
    snprintf(d.name, sizeof(d.name), "gpu-%u", i);
    return d;
}

/* ------------------------------------------------------------------ descriptors */

static void test_desc_golden(void **state)
{
    static const uint8_t want[] = {
        'z', 'c', 1,   1, 3, 40, 44, 20, 1, 0x1f, 0x0b, 0, 0, 0, 0, 0, 0, 3,   0xe9, //
        2,   2,   2,   2, 2, 2,  2,  2,  2, 2,    2,    2, 2, 2, 2, 2, 5, 'g', 'p',
        'u', '-', '1', 7, 7, 7,  7,  7,  7, 7,    7,    7, 7, 7, 7, 7, 7, 7,   7,
        7,   7,   7,   7, 7, 7,  7,  7,  7, 7,    7,    7, 7, 7, 7, 7};
    struct cluster_desc d = desc(1), got;
    uint8_t out[ZC_DESC_MAX];
    d.has_spki = true;
    memset(d.spki, 7, sizeof(d.spki));
    assert_int_equal(cluster_desc_encode(out, &d), sizeof(want));
    assert_memory_equal(out, want, sizeof(want));
    assert_int_equal(cluster_desc_decode(want, sizeof(want), &got), 0);
    assert_memory_equal(&got, &d, sizeof(d));
}

static void test_desc_bounds(void **state)
{
    struct cluster_desc d = desc(1), got;
    uint8_t out[ZC_DESC_MAX], longer[ZC_DESC_MAX + 10] = {0};
    memset(d.name, 'x', ZC_NODE_NAME - 1);
    d.has_spki = true;
    size_t n = cluster_desc_encode(out, &d);
    assert_int_equal(n, ZC_DESC_MAX);
    for (size_t i = 0; i < n; i++) /* cut short anywhere */
        assert_int_equal(cluster_desc_decode(out, i, &got), -EBADMSG);
    memcpy(longer, out, n); /* what a later version adds */
    assert_int_equal(cluster_desc_decode(longer, sizeof(longer), &got), 0);
    static const struct {
        size_t at;
        uint8_t value;
    } bad[] = {{0, 'Z'}, {2, 2},   {5, 161}, {6, 161},  {7, 255},
               {35, 0},  {35, 64}, {36, 0},  {40, 200}, {50, ' '}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        uint8_t was = out[bad[i].at];
        out[bad[i].at] = bad[i].value;
        assert_int_equal(cluster_desc_decode(out, n, &got), -EBADMSG);
        out[bad[i].at] = was;
    }
    out[9] = out[10] = 0; /* no port */
    assert_int_equal(cluster_desc_decode(out, n, &got), -EBADMSG);
    assert_true(cluster_name_ok("a") && cluster_name_ok("node-7.example"));
    assert_false(cluster_name_ok("") || cluster_name_ok("a b") || cluster_name_ok("\xc3\xa4"));
    memset(longer, 'y', ZC_NODE_NAME);
    longer[ZC_NODE_NAME] = 0;
    assert_false(cluster_name_ok((char *)longer));
}

/* ------------------------------------------------------------------ the id */

static void test_id(void **state)
{
    char dir[] = "/tmp/zc-id-XXXXXX", file[64];
    uint8_t a[ZC_NODE_ID], b[ZC_NODE_ID];
    struct zc_error err = {0};
    struct stat st;
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof(file), "%s/id", dir);
    assert_int_equal(cluster_id_load(file, a, &err), 0);
    assert_int_equal(cluster_id_load(file, b, &err), 0);
    assert_memory_equal(a, b, sizeof(a));
    assert_int_equal(stat(file, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(cluster_id_renew(file, b, &err), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(cluster_id_load(file, a, &err), 0);
    assert_memory_equal(a, b, sizeof(a));
    /* Half a file, or another's. */
    assert_int_equal(truncate(file, 20), 0);
    assert_int_equal(cluster_id_load(file, a, &err), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_int_equal(unlink(file), 0);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(cluster_id_load(file, a, &err), -ENOENT);
    assert_non_null(strstr(err.text, file));
}

/* ------------------------------------------------------------------ members */

#define MANY 8
struct gossip {
    struct cluster_seen seen[MANY];
    struct cluster_desc descs[MANY];
    uint8_t meta[MANY][ZC_DESC_MAX];
    char names[MANY][16];
};

/* All alive; this node is number 0. */
static void gossip_init(struct gossip *g)
{
    memset(g, 0, sizeof(*g));
    for (unsigned i = 0; i < MANY; i++) {
        g->descs[i] = desc(i);
        snprintf(g->names[i], sizeof(g->names[i]), "gossip-%u", i);
        g->seen[i] = (struct cluster_seen){.name = g->names[i],
                                           .ip = {10, 0, 0, (uint8_t)i},
                                           .ip_len = 4,
                                           .port = 7946,
                                           .self = i == 0,
                                           .since_ns = 5,
                                           .meta = g->meta[i]};
    }
}

static struct cluster_reading gossip_read(struct gossip *g, struct cluster_indices *x)
{
    struct cluster_reading r = {0};
    for (unsigned i = 0; i < MANY; i++)
        g->seen[i].meta_len = cluster_desc_encode(g->meta[i], &g->descs[i]);
    assert_int_equal(cluster_read(x, g->seen, MANY, 3, &r), 0);
    assert_int_equal(r.n, MANY);
    return r;
}

static void test_members(void **state)
{
    struct gossip g;
    struct cluster_indices x = {0};
    unsigned n;
    gossip_init(&g);
    struct cluster_reading r = gossip_read(&g, &x);
    const struct zc_cluster_node *nodes = cluster_view_nodes(r.view, &n);
    assert_int_equal(n, MANY);
    double shares = 0;
    for (unsigned i = 0; i < MANY; i++) {
        shares += r.members[i].share;
        assert_int_equal(r.members[i].standing, ZC_CLUSTER_IN);
        assert_string_equal(r.members[i].name, g.names[i]);
        assert_int_equal(r.members[i].used_bytes, zc_ring_weight_bytes(20));
        assert_int_equal(nodes[i].index, i);
        assert_string_equal(nodes[i].name, g.descs[i].name);
        assert_int_equal(nodes[i].addr.in.sin_family, AF_INET);
        assert_int_equal(ntohs(nodes[i].addr.in.sin_port), 7947);
        assert_int_equal(ntohl(nodes[i].addr.in.sin_addr.s_addr), 0x0a000000 + i);
    }
    assert_true(shares > 0.999999 && shares < 1.000001);
    assert_string_equal(cluster_view_self(r.view)->name, "gpu-0");
    cluster_reading_free(&r);

    /* Who is not to be counted, and why. */
    g.seen[1].state = ZC_CLUSTER_DEAD;
    g.seen[2].state = ZC_CLUSTER_LEFT;
    g.seen[3].state = ZC_CLUSTER_SUSPECT;
    g.descs[4].ring_protocol++;
    g.descs[5].peer_protocol++;
    g.seen[7].ip_len = 16;
    g.seen[7].ip[15] = 9;
    r = gossip_read(&g, &x);
    cluster_reading_free(&r);
    g.meta[6][0] = '{'; /* some other program's */
    assert_int_equal(cluster_read(&x, g.seen, MANY, 3, &r), 0);
    static const enum zc_cluster_standing want[MANY] = {ZC_CLUSTER_IN,
                                                        ZC_CLUSTER_ABSENT,
                                                        ZC_CLUSTER_ABSENT,
                                                        ZC_CLUSTER_IN,
                                                        ZC_CLUSTER_OTHER_VERSION,
                                                        ZC_CLUSTER_OTHER_VERSION,
                                                        ZC_CLUSTER_FOREIGN,
                                                        ZC_CLUSTER_IN};
    for (unsigned i = 0; i < MANY; i++)
        assert_int_equal(r.members[i].standing, want[i]);
    nodes = cluster_view_nodes(r.view, &n);
    assert_int_equal(n, 3);
    assert_true(nodes[1].suspect && !nodes[0].suspect);
    assert_int_equal(nodes[1].index, 3); /* as before */
    assert_int_equal(nodes[2].index, 7);
    assert_int_equal(nodes[2].addr.in6.sin6_family, AF_INET6);
    assert_int_equal(nodes[2].addr.in6.sin6_addr.s6_addr[15], 9);
    cluster_reading_free(&r);

    g.seen[0].self = false;
    assert_int_equal(cluster_read(&x, g.seen, MANY, 3, &r), -EINVAL);
    cluster_indices_free(&x);
}

/* A restart under the same id, and a copied disk. */
static void test_members_of_one_id(void **state)
{
    struct gossip g;
    struct cluster_indices x = {0};
    unsigned n;
    gossip_init(&g);
    memcpy(g.descs[3].id, g.descs[2].id, ZC_NODE_ID);
    memcpy(g.descs[4].id, g.descs[2].id, ZC_NODE_ID);
    g.descs[3].started_ms = 9000;
    struct cluster_reading r = gossip_read(&g, &x);
    assert_int_equal(r.members[2].standing, ZC_CLUSTER_DOUBLE);
    assert_int_equal(r.members[3].standing, ZC_CLUSTER_IN);
    assert_int_equal(r.members[4].standing, ZC_CLUSTER_DOUBLE);
    assert_false(r.copied);
    cluster_view_nodes(r.view, &n);
    assert_int_equal(n, MANY - 2);
    cluster_reading_free(&r);

    /* This node's own id: it counts for itself, and learns that it is the copy. */
    gossip_init(&g);
    memcpy(g.descs[5].id, g.descs[0].id, ZC_NODE_ID);
    memcpy(g.descs[6].id, g.descs[0].id, ZC_NODE_ID);
    g.descs[5].started_ms = g.descs[6].started_ms = 1;
    r = gossip_read(&g, &x);
    assert_int_equal(r.members[0].standing, ZC_CLUSTER_IN);
    assert_int_equal(r.members[5].standing, ZC_CLUSTER_DOUBLE);
    assert_false(r.copied);
    cluster_reading_free(&r);
    g.descs[6].started_ms = 9000;
    r = gossip_read(&g, &x);
    assert_int_equal(r.members[0].standing, ZC_CLUSTER_IN);
    assert_true(r.copied);
    cluster_reading_free(&r);
    g.seen[6].state = ZC_CLUSTER_DEAD;
    r = gossip_read(&g, &x);
    assert_false(r.copied);
    cluster_reading_free(&r);
    cluster_indices_free(&x);
}

/* ------------------------------------------------------------------ pace */

static void test_pace(void **state)
{
    const uint64_t capacity = 1024 * ZC_GIB;
    uint8_t full = zc_ring_weight(capacity);
    struct cluster_pace_others none = {0}, young = {true, true, ZC_GIB, 7.0 * (double)capacity},
                               rich = {true, true, 4000 * ZC_GIB, 7.0 * (double)capacity};
    /* Nothing before gossip was heard; then all at once where there is little to pull. */
    struct cluster_pace p = {.capacity = capacity};
    assert_int_equal(cluster_pace_nominal(&p), full);
    assert_int_equal(cluster_pace_weight(&p, &none, 0, 5), 0);
    assert_int_equal(cluster_pace_weight(&p, &young, 0, 10), full);
    assert_int_equal(cluster_pace_weight(&p, &rich, 0, 20), full); /* decided once */
    p.draining = true;
    assert_int_equal(cluster_pace_weight(&p, &rich, 0, 30), 0);
    assert_int_equal(cluster_pace_nominal(&p), full);

    /* Alone. */
    p = (struct cluster_pace){.capacity = capacity};
    none.known = true;
    assert_int_equal(cluster_pace_weight(&p, &none, 0, 0), full);
    /* Until somebody is heard: then it is decided again, once. */
    assert_int_equal(cluster_pace_weight(&p, &rich, 0, 5), zc_ring_weight(capacity / 8));
    assert_int_equal(cluster_pace_weight(&p, &rich, 0, 5 + ZC_PACE_STEP_NS),
                     zc_ring_weight(capacity / 4));

    /* Step by step to others that have a lot, in order, and never beyond. */
    p = (struct cluster_pace){.capacity = capacity};
    for (unsigned i = 1; i <= 2 * ZC_PACE_STEPS; i++) {
        int64_t now = 100 + (int64_t)(i - 1) * ZC_PACE_STEP_NS;
        uint8_t want =
            zc_ring_weight(capacity / ZC_PACE_STEPS * ZC_MIN(i, (unsigned)ZC_PACE_STEPS));
        assert_int_equal(cluster_pace_weight(&p, &rich, 0, now), want);
        assert_int_equal(cluster_pace_weight(&p, &rich, 0, now + ZC_PACE_STEP_NS - 1), want);
    }
    /* A late look takes all steps that were due. */
    p = (struct cluster_pace){.capacity = capacity};
    cluster_pace_weight(&p, &rich, 0, 0);
    assert_int_equal(cluster_pace_weight(&p, &rich, 0, 3 * ZC_PACE_STEP_NS),
                     zc_ring_weight(capacity / 2));

    /* A node that kept its cache has little to pull. */
    p = (struct cluster_pace){.capacity = capacity};
    assert_int_equal(cluster_pace_weight(&p, &rich, 500 * ZC_GIB, 0), full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_desc_golden),
        cmocka_unit_test(test_desc_bounds),
        cmocka_unit_test(test_id),
        cmocka_unit_test(test_members),
        cmocka_unit_test(test_members_of_one_id),
        cmocka_unit_test(test_pace),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
