/* SPDX-License-Identifier: Apache-2.0 */
/* The nodes of one moment: who owns a key, who owned it before, whose copy is a spare one. */
#include "cluster/cluster.h"
#include "cluster/view.h"
#include "ring/ring.h"

#include "unit.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { N = 7, KEYS = 2000 };

static struct zc_cluster_node node(unsigned i)
{
    struct zc_cluster_node n = {.weight = 40, .nominal = 40, .is_self = i == 2};
    memset(n.id, (int)(i * 31 + 1), sizeof(n.id));
    snprintf(n.name, sizeof(n.name), "node%u", i);
    n.addr.in.sin_family = AF_INET;
    n.addr.in.sin_port = htons((uint16_t)(7000 + i));
    return n;
}

static struct zc_cluster *cluster_of(struct zc_cluster_node *nodes, unsigned n)
{
    struct zc_cluster *c = NULL;
    assert_int_equal(zc_cluster_new_static(nodes, n, &c), 0);
    return c;
}

static void test_rank(void **state)
{
    struct zc_cluster_node nodes[N], got[N + 1];
    unsigned first[N] = {0};
    for (unsigned i = 0; i < N; i++)
        nodes[i] = node(i);
    struct zc_cluster *c = cluster_of(nodes, N);
    assert_int_equal(zc_cluster_count(c), N);
    assert_int_equal(zc_cluster_index_end(c), N);
    zc_cluster_self(c, &got[0]);
    assert_string_equal(got[0].name, "node2");
    for (uint64_t key = 0; key < KEYS; key++) {
        assert_int_equal(zc_cluster_rank(c, key, got, N + 1), N);
        first[got[0].index]++;
        char name[ZC_NODE_NAME];
        snprintf(name, sizeof(name), "node%u", got[0].index);
        assert_string_equal(got[0].name, name);
        assert_int_equal(ntohs(got[0].addr.in.sin_port), 7000 + got[0].index);
        assert_int_equal(zc_cluster_spare(c, key), got[0].index != 2);
        struct zc_cluster_node one;
        assert_int_equal(zc_cluster_rank(c, key, &one, 1), 1);
        assert_int_equal(one.index, got[0].index);
        if (got[0].is_self) { /* who owned it before this node came: the second */
            assert_int_equal(zc_cluster_former(c, key, &one, 1), 1);
            assert_int_equal(one.index, got[1].index);
        }
    }
    for (unsigned i = 0; i < N; i++)
        assert_in_range(first[i], KEYS / N / 2, KEYS / N * 2);
    assert_int_equal(zc_cluster_nodes(c, got, 3), 3);
    assert_true(memcmp(got[0].id, got[1].id, ZC_NODE_ID) < 0);
    assert_true(zc_cluster_find(c, nodes[4].id, &got[0]));
    assert_int_equal(got[0].index, 4);
    nodes[4].id[0]++;
    assert_false(zc_cluster_find(c, nodes[4].id, &got[0]));
    zc_cluster_free(c);
    zc_cluster_free(NULL);
}

/* A node that drains owns nothing, and is the first to be asked for what it owned. */
static void test_drain(void **state)
{
    struct zc_cluster_node nodes[N], got[N], before[N];
    for (unsigned i = 0; i < N; i++)
        nodes[i] = node(i);
    struct zc_cluster *full = cluster_of(nodes, N);
    nodes[5].weight = 0;
    struct zc_cluster *c = cluster_of(nodes, N);
    assert_int_not_equal(zc_cluster_digest(full), zc_cluster_digest(c));
    unsigned moved = 0;
    for (uint64_t key = 0; key < KEYS; key++) {
        assert_int_equal(zc_cluster_rank(full, key, before, N), N);
        assert_int_equal(zc_cluster_rank(c, key, got, N), N - 1);
        for (unsigned i = 0; i < N - 1; i++)
            assert_int_not_equal(got[i].index, 5);
        if (before[0].index != 5) {
            assert_int_equal(got[0].index, before[0].index);
            continue;
        }
        moved++;
        assert_int_equal(got[0].index, before[1].index);
        if (got[0].is_self) {
            assert_int_equal(zc_cluster_former(c, key, got, 2), 2);
            assert_int_equal(got[0].index, 5);
            assert_int_equal(got[1].index, before[2].index);
        }
    }
    assert_in_range(moved, KEYS / N / 2, KEYS / N * 2);
    zc_cluster_free(full);
    zc_cluster_free(c);
}

static void test_spare_needs_a_live_owner(void **state)
{
    struct zc_cluster_node nodes[N], got[1];
    for (unsigned i = 0; i < N; i++) {
        nodes[i] = node(i);
        nodes[i].suspect = i == 3;
    }
    struct zc_cluster *c = cluster_of(nodes, N);
    for (uint64_t key = 0; key < KEYS; key++) {
        assert_int_equal(zc_cluster_rank(c, key, got, 1), 1);
        assert_int_equal(zc_cluster_spare(c, key), got[0].index != 2 && got[0].index != 3);
    }
    zc_cluster_free(c);
}

/* What a newcomer owns it may not have yet, and what this node drains nobody else may. */
static void test_spare_needs_an_owner_of_some_time(void **state)
{
    struct zc_cluster_node nodes[N];
    struct cluster_view *was, *is, *drains;
    struct zc_cluster_node first, before;
    unsigned same = 0, moved = 0, mine = 0;
    for (unsigned i = 0; i < N; i++)
        nodes[i] = node(i);
    assert_int_equal(cluster_view_new(nodes, N - 1, &was), 0);
    assert_int_equal(cluster_view_new(nodes, N, &is), 0);
    nodes[2].weight = 0;
    assert_int_equal(cluster_view_new(nodes, N, &drains), 0);
    for (uint64_t key = 0; key < KEYS; key++) {
        cluster_view_rank(is, key, &first, 1);
        cluster_view_rank(was, key, &before, 1);
        bool spare = cluster_view_spare(is, was, key);
        if (memcmp(first.id, before.id, ZC_NODE_ID) != 0) {
            assert_false(spare);
            moved++;
        } else {
            assert_int_equal(spare, !first.is_self);
            same += spare;
        }
        assert_int_equal(cluster_view_spare(is, is, key), !first.is_self);
        assert_int_equal(cluster_view_spare(drains, is, key), !first.is_self);
        mine += first.is_self;
    }
    assert_true(same > KEYS / 2 && moved > KEYS / N / 2 && mine > KEYS / N / 2);
    cluster_view_unref(was);
    cluster_view_unref(is);
    cluster_view_unref(drains);
}

static void test_refused(void **state)
{
    struct zc_cluster *c = NULL;
    struct zc_cluster_node nodes[2] = {node(2), node(2)};
    assert_int_equal(zc_cluster_new_static(nodes, 0, &c), -EINVAL);
    assert_int_equal(zc_cluster_new_static(nodes, 2, &c), -EINVAL); /* one id twice */
    nodes[1] = node(1);
    nodes[1].is_self = true;
    assert_int_equal(zc_cluster_new_static(nodes, 2, &c), -EINVAL); /* two selves */
    nodes[0].is_self = nodes[1].is_self = false;
    assert_int_equal(zc_cluster_new_static(nodes, 2, &c), -EINVAL); /* none */
    nodes[0].is_self = true;
    nodes[1].weight = ZC_RING_WEIGHT_MAX + 1;
    assert_int_equal(zc_cluster_new_static(nodes, 2, &c), -EINVAL);
    assert_null(c);
}

static void test_groups(void **state)
{
    struct zc_digest a = {.hi = 1, .lo = 2}, b = {.hi = 1, .lo = 3};
    uint64_t key = zc_cluster_key(a, 0);
    assert_int_equal(zc_cluster_key(a, ZC_CLUSTER_GROUP - 1), key);
    assert_int_not_equal(zc_cluster_key(a, ZC_CLUSTER_GROUP), key);
    assert_int_not_equal(zc_cluster_key(b, 0), key);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rank),
        cmocka_unit_test(test_drain),
        cmocka_unit_test(test_spare_needs_a_live_owner),
        cmocka_unit_test(test_spare_needs_an_owner_of_some_time),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
