/* SPDX-License-Identifier: Apache-2.0 */
/* What is hot at its owner, and what a reader remembers of that. */
#include "peer/heat.h"
#include "unit.h"

static void test_heat(void **state)
{
    struct peer_heat h;
    struct peer_hot t;
    int64_t now = ZC_NS_PER_S;
    unsigned hot = 0;
    peer_heat_init(&h);
    /* Little was given: nothing is hot, however much of it. */
    assert_int_equal(peer_heat_add(&h, 1, 32 << 20, now), 1);
    /* A thousand keys of equal weight, and one that is a third of all. */
    for (uint64_t i = 0; i < 20000; i++) {
        unsigned cold = peer_heat_add(&h, 100 + i * 7919 % 1000, 1 << 20, now);
        if (i % 2 == 0)
            hot = peer_heat_add(&h, 1, 1 << 20, now);
        assert_true(i < 2000 || cold == 1);
        now += ZC_NS_PER_S / 1000;
    }
    assert_in_range(hot, 6, 8);
    /* It fades. */
    now += 120 * ZC_NS_PER_S;
    for (uint64_t i = 0; i < 200; i++)
        peer_heat_add(&h, 1000000 + i, 1 << 20, now);
    assert_int_equal(peer_heat_add(&h, 1, 1 << 20, now), 1);
    peer_heat_free(&h);

    peer_hot_init(&t);
    peer_hot_set(&t, 5, 4, now);
    assert_int_equal(peer_hot_get(&t, 5, now), 4);
    assert_int_equal(peer_hot_get(&t, 6, now), 1);
    assert_int_equal(peer_hot_get(&t, 5, now + PEER_REPLICAS_NS), 1);
    peer_hot_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_heat),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
