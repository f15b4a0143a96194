/* SPDX-License-Identifier: Apache-2.0 */
/* The intrusive list, by cases and against an array that does the same. */
#include "base/list.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <string.h>

struct item {
    int n;
    struct zc_list link;
};

static int number(const struct zc_list *l)
{
    return zc_list_entry(l, struct item, link)->n;
}

/* The list holds these numbers, in both directions. */
static void holds(struct zc_list *head, const int *want, size_t n)
{
    size_t i = 0;
    zc_list_for_each (l, head) {
        assert_true(i < n);
        assert_int_equal(number(l), want[i]);
        i++;
    }
    assert_int_equal(i, n);
    for (struct zc_list *l = head->prev; l != head; l = l->prev)
        assert_int_equal(number(l), want[--i]);
    assert_int_equal(i, 0);
    assert_int_equal(zc_list_empty(head), n == 0);
}

#define HOLDS(head, ...)                                                                           \
    holds(head, (const int[]){__VA_ARGS__}, sizeof((const int[]){__VA_ARGS__}) / sizeof(int))

static void test_empty(void **state)
{
    struct zc_list a = ZC_LIST_INIT(a), b;
    zc_list_init(&b);
    holds(&a, NULL, 0);
    holds(&b, NULL, 0);
    assert_null(zc_list_pop_front(&a));
    zc_list_splice(&a, &b);
    holds(&a, NULL, 0);
}

static void test_order_of_pushes(void **state)
{
    struct zc_list head = ZC_LIST_INIT(head);
    struct item it[] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};
    zc_list_push_back(&head, &it[1].link);
    zc_list_push_back(&head, &it[2].link);
    zc_list_push_front(&head, &it[0].link);
    HOLDS(&head, 0, 1, 2);
    zc_list_insert(&it[0].link, &it[3].link);
    HOLDS(&head, 0, 3, 1, 2);
    assert_int_equal(number(zc_list_pop_front(&head)), 0);
    HOLDS(&head, 3, 1, 2);
}

static void test_delete_twice_does_no_harm(void **state)
{
    struct zc_list head = ZC_LIST_INIT(head);
    struct item it[] = {{.n = 0}, {.n = 1}, {.n = 2}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(it); i++)
        zc_list_push_back(&head, &it[i].link);
    zc_list_del(&it[1].link);
    zc_list_del(&it[1].link);
    assert_true(zc_list_empty(&it[1].link));
    HOLDS(&head, 0, 2);
    zc_list_push_front(&head, &it[1].link);
    HOLDS(&head, 1, 0, 2);
}

static void test_popped_item_is_unlinked(void **state)
{
    struct zc_list head = ZC_LIST_INIT(head);
    struct item it = {.n = 7};
    zc_list_push_back(&head, &it.link);
    assert_ptr_equal(zc_list_pop_front(&head), &it.link);
    assert_true(zc_list_empty(&it.link));
    assert_true(zc_list_empty(&head));
}

static void test_splice_moves_all(void **state)
{
    struct zc_list a = ZC_LIST_INIT(a), b = ZC_LIST_INIT(b);
    struct item it[] = {{.n = 0}, {.n = 1}, {.n = 2}, {.n = 3}};
    zc_list_push_back(&a, &it[0].link);
    zc_list_push_back(&a, &it[1].link);
    zc_list_push_back(&b, &it[2].link);
    zc_list_push_back(&b, &it[3].link);
    zc_list_splice(&a, &b);
    HOLDS(&a, 0, 1, 2, 3);
    holds(&b, NULL, 0);
    zc_list_splice(&a, &b);
    HOLDS(&a, 0, 1, 2, 3);
    zc_list_splice(&b, &a);
    HOLDS(&b, 0, 1, 2, 3);
    holds(&a, NULL, 0);
}

static void test_delete_while_walking(void **state)
{
    struct zc_list head = ZC_LIST_INIT(head);
    struct item it[6];
    for (int i = 0; i < 6; i++) {
        it[i].n = i;
        zc_list_push_back(&head, &it[i].link);
    }
    zc_list_for_each_safe (l, next, &head) {
        if (number(l) % 2 == 0)
            zc_list_del(l);
    }
    HOLDS(&head, 1, 3, 5);
    zc_list_for_each_safe (l, next, &head)
        zc_list_del(l);
    holds(&head, NULL, 0);
}

/* Random operations on two lists and on two arrays. */
static void test_against_arrays(void **state)
{
    enum { ITEMS = 12, STEPS = 50000 };
    struct zc_list head[2];
    struct item it[ITEMS];
    int model[2][ITEMS];
    size_t n[2] = {0, 0};
    int where[ITEMS];
    uint64_t random = 1;
    for (int i = 0; i < 2; i++)
        zc_list_init(&head[i]);
    for (int i = 0; i < ITEMS; i++) {
        it[i].n = i;
        where[i] = -1;
        zc_list_init(&it[i].link);
    }
    for (int step = 0; step < STEPS; step++) {
        random = random * 6364136223846793005u + 1442695040888963407u;
        int x = (int)(random >> 33) % ITEMS, q = (int)(random >> 50) & 1;
        int *m = model[q];
        switch ((random >> 55) % 6) {
        case 0:
        case 1:
            if (where[x] >= 0)
                break;
            if ((random >> 55) % 6 == 0) {
                zc_list_push_back(&head[q], &it[x].link);
                m[n[q]++] = x;
            } else {
                zc_list_push_front(&head[q], &it[x].link);
                memmove(m + 1, m, n[q]++ * sizeof(*m));
                m[0] = x;
            }
            where[x] = q;
            break;
        case 2:
        case 3:
            zc_list_del(&it[x].link);
            if (where[x] < 0)
                break;
            m = model[where[x]];
            for (size_t i = 0, *len = &n[where[x]]; i < *len; i++)
                if (m[i] == x) {
                    memmove(m + i, m + i + 1, (--*len - i) * sizeof(*m));
                    break;
                }
            where[x] = -1;
            break;
        case 4: {
            struct zc_list *l = zc_list_pop_front(&head[q]);
            assert_int_equal(l == NULL, n[q] == 0);
            if (!l)
                break;
            assert_int_equal(number(l), m[0]);
            where[m[0]] = -1;
            memmove(m, m + 1, --n[q] * sizeof(*m));
            break;
        }
        default:
            if (random >> 62)
                break;
            zc_list_splice(&head[q], &head[1 - q]);
            for (size_t i = 0; i < n[1 - q]; i++) {
                where[model[1 - q][i]] = q;
                m[n[q]++] = model[1 - q][i];
            }
            n[1 - q] = 0;
        }
        holds(&head[0], model[0], n[0]);
        holds(&head[1], model[1], n[1]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_order_of_pushes),
        cmocka_unit_test(test_delete_twice_does_no_harm),
        cmocka_unit_test(test_popped_item_is_unlinked),
        cmocka_unit_test(test_splice_moves_all),
        cmocka_unit_test(test_delete_while_walking),
        cmocka_unit_test(test_against_arrays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
