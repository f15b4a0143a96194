/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes over time, and how often the store is asked for them. */
#include "namestest.h"
#include "unit.h"

#include <errno.h>
#include <stdio.h>

static void bits_follow_the_store(void **state)
{
    struct nt_names t;
    struct zc_node node;
    nt_new(&t, nt_believed);
    nt_put(&t.shop, "dir", NULL);
    nt_put(&t.shop, "file", "v");
    nt_listed(&t);
    assert_int_equal(nt_look(&t, "dir", &node), 0);
    assert_int_equal(node.mode, 0755);
    uint64_t dir = node.id;
    assert_int_equal(nt_look(&t, "file", &node), 0);
    uint64_t file = node.id;

    /* A version says nothing of owners and bits, and directories have none. */
    for (unsigned i = 0; i < 2; i++) {
        struct zc_attr *d = nt_find(&t.shop, "dir"), *f = nt_find(&t.shop, "file");
        d->mode = 0700 + i;
        d->uid = 31 + i;
        f->mode = 0600 + i;
        f->gid = 41 + i;
        nt_later(&t, 61);
        if (i == 0)
            nt_listed(&t); /* and once for each name alone */
        else
            t.w.v->root->state = VFS_UNLISTED;
        assert_int_equal(nt_look(&t, "dir", &node), 0);
        assert_int_equal(node.id, dir);
        assert_int_equal(node.mode, 0700 + i);
        assert_int_equal(node.uid, 31 + i);
        assert_int_equal(nt_look(&t, "file", &node), 0);
        assert_int_equal(node.id, file);
        assert_int_equal(node.mode, 0600 + i);
        assert_int_equal(node.gid, 41 + i);
    }
    nt_free(&t);
}

static void the_root_is_the_store_s(void **state)
{
    struct nt_names t;
    struct zc_node node;
    nt_new(&t, nt_believed);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.uid, 21);
    assert_int_equal(node.gid, 22);
    assert_int_equal(node.mtime_ns, 77);
    assert_true(node.valid_ns > 58 * ZC_NS_PER_S && node.valid_ns <= 60 * ZC_NS_PER_S);

    t.shop.root.mode = 0711;
    nt_later(&t, 50);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(t.shop.root_stats, 1);
    nt_later(&t, 11);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0711);
    assert_int_equal(t.shop.root_stats, 2);
    assert_true(t.shop.deadline_ns - zc_now_ns() < 6 * ZC_NS_PER_S);

    /* A store that is away: what was known, and not asked with each look. */
    t.shop.down = -ETIMEDOUT;
    t.shop.root.mode = 0755;
    nt_later(&t, 61);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
        assert_int_equal(node.mode, 0711);
    }
    assert_int_equal(t.shop.root_stats, 3);
    t.shop.down = 0;
    nt_later(&t, 11);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0755);
    nt_free(&t);
}

static void so_is_one_beside_others(void **state)
{
    struct nt_names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = nt_believed;
    cfg.at = "d/s";
    cfg.uid = 5;
    nt_new(&t, cfg);
    assert_int_equal(nt_look(&t, "d", &node), 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0555);
    assert_int_equal(t.shop.root_stats, 0);
    /* A look-up asks nobody, but leaves the kernel to ask for the attributes. */
    assert_int_equal(nt_look(&t, "d/s", &node), 0);
    assert_int_equal(node.valid_ns, 0);
    assert_int_equal(t.shop.root_stats, 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.uid, 5);
    assert_int_equal(node.gid, 22);
    assert_int_equal(nt_look(&t, "d/s", &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.valid_ns, VFS_SYNTHETIC_NS);
    t.shop.root.mode = 0750;
    nt_later(&t, 61);
    assert_int_equal(nt_look(&t, "d/s", &node), 0);
    assert_int_equal(node.valid_ns, 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0750);
    assert_int_equal(t.shop.root_stats, 2);
    nt_free(&t);
}

static void a_frozen_root_is_asked_once(void **state)
{
    struct nt_names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = nt_believed;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    cfg.dir_mode = 0751;
    nt_new(&t, cfg);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
        assert_int_equal(node.mode, 0751);
        assert_true(node.valid_ns == ZC_TTL_INDEFINITE);
        nt_later(&t, 1000);
    }
    assert_int_equal(t.shop.root_stats, 1);
    nt_free(&t);
}

/* ENOENT, which may be nt_believed for a time from `from` to `to` seconds. */
static void missing(struct nt_names *t, const char *name, int64_t from, int64_t to)
{
    struct zc_node node;
    assert_int_equal(nt_look(t, name, &node), -ENOENT);
    assert_in_range(node.valid_ns / ZC_NS_PER_S, from, to);
}

static void a_missing_name_has_its_own_time(void **state)
{
    struct nt_names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = nt_believed;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    cfg.negative_ttl_ns = 5 * ZC_NS_PER_S;
    nt_new(&t, cfg);
    nt_put(&t.shop, "there", "v");
    nt_listed(&t);
    nt_later(&t, 2);
    missing(&t, "new", 2, 3);
    assert_int_equal(t.shop.lists + t.shop.stats, 1);

    nt_put(&t.shop, "new", "v");
    nt_later(&t, 4);
    assert_int_equal(nt_look(&t, "there", &node), 0);
    assert_int_equal(t.shop.lists + t.shop.stats, 1);
    assert_int_equal(nt_look(&t, "new", &node), 0); /* alone */
    assert_int_equal(t.shop.stats, 1);
    assert_int_equal(t.shop.lists, 1);
    assert_true(node.valid_ns == ZC_TTL_INDEFINITE);

    /* The next one pays for a listing, which then stands for all. */
    missing(&t, "other", 4, 5);
    for (char name[] = "a"; *name < 'k'; ++*name)
        missing(&t, name, 4, 5);
    assert_int_equal(t.shop.stats, 1);
    assert_int_equal(t.shop.lists, 2);

    /* Away: the listing is still nt_believed, and not for longer than before. */
    t.shop.down = -ETIMEDOUT;
    nt_later(&t, 6);
    missing(&t, "other", 1, 1);
    assert_true(t.shop.deadline_ns - zc_now_ns() < 16 * ZC_NS_PER_S);
    assert_int_equal(nt_look(&t, "there", &node), 0);
    t.shop.down = 0;
    nt_put(&t.shop, "other", "v");
    assert_int_equal(nt_look(&t, "other", &node), 0);
    nt_free(&t);
}

static void frozen_data_are_not_asked_for(void **state)
{
    struct nt_names t;
    struct zc_vfs_source_config cfg = nt_believed;
    struct zc_node node;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    nt_new(&t, cfg);
    nt_put(&t.shop, "there", "v");
    nt_listed(&t);
    for (unsigned i = 0; i < 10; i++) {
        nt_later(&t, 100000);
        assert_int_equal(nt_look(&t, "new", &node), -ENOENT);
        assert_true(node.valid_ns == ZC_TTL_INDEFINITE);
        assert_int_equal(nt_look(&t, "there", &node), 0);
    }
    assert_int_equal(t.shop.lists, 1);
    assert_int_equal(t.shop.stats, 0);
    nt_free(&t);
}

static void a_big_directory_is_listed_again(void **state)
{
    struct nt_names t;
    struct zc_node node;
    char name[20];
    nt_new(&t, nt_believed);
    nt_put_many(&t.shop);
    nt_listed(&t);
    assert_int_equal(t.shop.pages, NT_MANY / NT_PAGE);
    unsigned first = t.shop.pages;
    nt_later(&t, 61);
    /* Alone, as often as a listing costs; then once more while that is made. */
    t.shop.hold = true;
    for (unsigned i = 0; i < NT_MANY / VFS_NAMES_A_SINGLE + 1; i++) {
        snprintf(name, sizeof(name), "f%u", i * 7);
        assert_int_equal(nt_look(&t, name, &node), 0);
        assert_null(t.shop.held);
    }
    unsigned alone = t.shop.stats;
    assert_int_equal(alone, NT_MANY / VFS_NAMES_A_SINGLE + 1);
    assert_int_equal(nt_look(&t, "f40000", &node), 0);
    assert_non_null(t.shop.held);
    assert_int_equal(nt_look(&t, "f40001", &node), 0); /* nobody waits */
    assert_int_equal(t.shop.stats, alone + 2);
    assert_int_equal(t.shop.lists, 2);
    t.shop.held->base.deadline_ns -= 10 * ZC_NS_PER_S; /* so long did the first page take */
    nt_release(&t.shop);
    assert_int_equal(t.shop.pages, 2 * first);
    /* Each page has its own time. */
    assert_true(t.shop.deadline_ns - zc_now_ns() > 10 * ZC_NS_PER_S);
    /* From now on nothing is asked, until it is too old again. */
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "f%u", i * 49);
        assert_int_equal(nt_look(&t, name, &node), 0);
    }
    assert_int_equal(t.shop.stats, alone + 2);
    assert_int_equal(t.shop.pages, 2 * first);
    nt_free(&t);
}

static void rewound(struct nt_names *t, struct zc_dirh *dh)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_rewinddir(dh, vt_on_opendir, &a);
    assert_int_equal(vt_answer_get(&a), 0);
    assert_ptr_equal(a.dh, dh);
}

/* A store that pages in a circle fails the listing; it does not hold it up for ever. */
static void a_page_that_comes_again_ends_it(void **state)
{
    struct nt_names t;
    char name[20], *out = malloc(1 << 20);
    nt_new(&t, nt_believed);
    for (unsigned i = 0; i < 3 * NT_PAGE; i++) {
        snprintf(name, sizeof(name), "%05u", i);
        nt_put(&t.shop, name, "v");
    }
    t.shop.circles = true;
    assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, out), -EBADMSG);
    assert_int_equal(t.shop.pages, 2);
    t.shop.circles = false;
    assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, out), 0);
    assert_int_equal(t.shop.pages, 5);
    nt_free(&t);
    free(out);
}

static void an_open_directory_shows_each_name_once(void **state)
{
    struct nt_names t;
    struct zc_node node;
    const char *name;
    char text[100];
    nt_new(&t, nt_believed);
    nt_put(&t.shop, "a", "1");
    nt_put(&t.shop, "b", "1");
    nt_put(&t.shop, "c", "1");
    struct zc_dirh *first = nt_opened(&t);
    assert_int_equal(zc_vfs_readdir(first, 1, false, &name, &node), 1);
    uint64_t old = node.id;
    for (unsigned round = 0; round < 3; round++) {
        nt_put(&t.shop, "b", round & 1 ? "1" : "2");
        nt_later(&t, 61);
        nt_listed(&t);
        vt_names(first, text);
        assert_string_equal(text, "a b c ");
        assert_int_equal(zc_vfs_readdir(first, 1, true, &name, &node), 1);
        assert_string_equal(name, "b");
        assert_true(node.id != old);
        old = node.id;
        zc_vfs_forget(t.w.v, node.id, 1);
    }
    /* One that is opened now does not see what was there before as well. */
    struct zc_dirh *second = nt_opened(&t);
    vt_names(second, text);
    assert_string_equal(text, "a c b ");

    nt_put(&t.shop, "b", NULL); /* a directory now */
    nt_drop(&t.shop, "c");
    nt_put(&t.shop, "d", "1");
    nt_later(&t, 61);
    nt_listed(&t);
    vt_names(first, text);
    assert_string_equal(text, "a b ");
    vt_names(second, text);
    assert_string_equal(text, "a b ");
    nt_put(&t.shop, "c", "2"); /* back again: neither is it new to them, nor is it there twice */
    nt_later(&t, 61);
    nt_listed(&t);
    vt_names(first, text);
    assert_string_equal(text, "a b c ");
    rewound(&t, first);
    vt_names(first, text);
    assert_string_equal(text, "a b d c ");
    zc_vfs_closedir(first);
    zc_vfs_closedir(second);
    nt_free(&t);
}

static void rewinding_lists_again_when_it_is_time(void **state)
{
    struct nt_names t;
    char text[100];
    nt_new(&t, nt_believed);
    nt_put(&t.shop, "a", "1");
    struct zc_dirh *dh = nt_opened(&t);
    nt_put(&t.shop, "b", "1");
    rewound(&t, dh);
    vt_names(dh, text);
    assert_string_equal(text, "a ");
    nt_later(&t, 61);
    rewound(&t, dh);
    vt_names(dh, text);
    assert_string_equal(text, "a b ");
    assert_int_equal(t.shop.lists, 2);

    /* Closed while it waits. */
    struct vt_answer a = VT_ANSWER;
    nt_later(&t, 61);
    t.shop.hold = true;
    zc_vfs_rewinddir(dh, vt_on_opendir, &a);
    zc_vfs_closedir(dh);
    assert_false(a.done);
    nt_release(&t.shop);
    assert_int_equal(vt_answer_get(&a), 0);
    nt_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bits_follow_the_store),
        cmocka_unit_test(the_root_is_the_store_s),
        cmocka_unit_test(so_is_one_beside_others),
        cmocka_unit_test(a_frozen_root_is_asked_once),
        cmocka_unit_test(a_missing_name_has_its_own_time),
        cmocka_unit_test(frozen_data_are_not_asked_for),
        cmocka_unit_test(a_big_directory_is_listed_again),
        cmocka_unit_test(a_page_that_comes_again_ends_it),
        cmocka_unit_test(an_open_directory_shows_each_name_once),
        cmocka_unit_test(rewinding_lists_again_when_it_is_time),
    };
    return cmocka_run_group_tests_name("vfs_names", tests, NULL, NULL);
}
