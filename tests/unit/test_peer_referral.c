/* SPDX-License-Identifier: Apache-2.0 */
/* Who is sent to whom: the first four receive, the others are spread over them evenly. */
#include "peer/referral.h"

#include "unit.h"
#include <string.h>

static const struct zc_digest one = {1, 2}, other = {1, 3};

static struct peer_request from(unsigned node, uint64_t off, uint64_t len)
{
    struct peer_request r = {.off = off, .len = len, .has_node = true};
    r.node[0] = (uint8_t)node;
    return r;
}

static void drop(struct zc_list *children)
{
    struct zc_list *it;
    while ((it = zc_list_pop_front(children)))
        free(zc_list_entry(it, struct peer_child, link));
}

/* Nodes 1 to n ask for the same bytes, and receive. */
static void fill(struct zc_list *children, unsigned n)
{
    for (unsigned i = 1; i <= n; i++) {
        struct peer_request r = from(i, 0, 100);
        struct peer_child *c;
        uint8_t refer[PEER_REFERS][ZC_NODE_ID];
        assert_int_equal(peer_referral_place(children, &r, one, &c, refer), 0);
        assert_non_null(c);
        assert_int_equal(c->node[0], i);
        assert_int_equal(c->end, 100);
    }
}

static void test_spread(void **state)
{
    struct zc_list children = ZC_LIST_INIT(children);
    unsigned first[PEER_CHILDREN + 1] = {0};
    fill(&children, PEER_CHILDREN);
    for (unsigned i = 0; i < 3 * PEER_CHILDREN; i++) {
        struct peer_request r = from(100 + i, 50, 100);
        struct peer_child *c;
        uint8_t refer[PEER_REFERS][ZC_NODE_ID];
        assert_int_equal(peer_referral_place(&children, &r, one, &c, refer), PEER_REFERS);
        assert_null(c);
        unsigned seen = 0;
        for (unsigned j = 0; j < PEER_REFERS; j++)
            seen |= 1U << refer[j][0];
        assert_int_equal(seen, 0x1e); /* each once */
        first[refer[0][0]]++;
    }
    for (unsigned i = 1; i <= PEER_CHILDREN; i++)
        assert_int_equal(first[i], 3);
    drop(&children);
}

/* Who receives other bytes, or asks itself, is nobody to be sent to. */
static void test_same_bytes_only(void **state)
{
    struct zc_list children = ZC_LIST_INIT(children);
    struct peer_child *c;
    uint8_t refer[PEER_REFERS][ZC_NODE_ID];
    fill(&children, PEER_CHILDREN);
    struct peer_request behind = from(9, 100, 50), again = from(2, 0, 100), asks = from(9, 0, 100);
    assert_int_equal(peer_referral_place(&children, &behind, one, &c, refer), 0);
    assert_non_null(c);
    assert_int_equal(peer_referral_place(&children, &asks, other, &c, refer), 0);
    assert_non_null(c);
    assert_int_equal(peer_referral_place(&children, &again, one, &c, refer), 0);
    assert_non_null(c);
    drop(&children);
}

static void test_direct(void **state)
{
    struct zc_list children = ZC_LIST_INIT(children);
    struct peer_child *c;
    uint8_t refer[PEER_REFERS][ZC_NODE_ID];
    fill(&children, PEER_CHILDREN);
    struct peer_request r = from(9, 0, 100);
    r.direct = true;
    assert_int_equal(peer_referral_place(&children, &r, one, &c, refer), 0);
    assert_non_null(c);
    /* The fifth receiver: it has not been named yet, as the others. The oldest comes first. */
    r = from(10, 0, 100);
    assert_int_equal(peer_referral_place(&children, &r, one, &c, refer), PEER_REFERS);
    assert_int_equal(refer[0][0], 1);
    /* One that goes is not named any more. */
    struct peer_child *gone = zc_list_entry(children.next, struct peer_child, link);
    zc_list_del(&gone->link);
    free(gone);
    assert_int_equal(peer_referral_place(&children, &r, one, &c, refer), PEER_REFERS);
    for (unsigned i = 0; i < PEER_REFERS; i++)
        assert_int_not_equal(refer[i][0], 1);
    drop(&children);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_spread),
        cmocka_unit_test(test_same_bytes_only),
        cmocka_unit_test(test_direct),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
