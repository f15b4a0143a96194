/* SPDX-License-Identifier: Apache-2.0 */
/* Listings that outlive the mount: their bytes, and what is made of them. */
#include "hexbytes.h"
#include "namestest.h"
#include "unit.h"

#include <errno.h>
#include <string.h>
#include <time.h>

/* docs/store.md; made by another implementation. */
#define KEPT_SOURCE "s3://bucket/prefix"
#define KEPT_ROOT_KEY "718e395d510fb2bcde5bfefbad4dbe52"
#define KEPT_SUB_KEY "a7b63b1232235563139f6e72dc2370c8"
#define KEPT_FILE                                                                                  \
    "00 0500 0600 48ab010000000000 15cd853dfe9c9717 ffffffff ffffffff ffffffff"                    \
    "612e6a7067 226574616722"
#define KEPT_DIR                                                                                   \
    "01 0300 0000 0000000000000000 ffffffffffffffff e8010000 e8030000 64000000"                    \
    "6e3031"

static struct zc_digest kept_key(const char *hex)
{
    struct zc_digest key;
    assert_int_equal(zc_digest_parse(hex, &key), 0);
    return key;
}

static void kept_new(struct nt_names *t)
{
    struct zc_vfs_source_config cfg = nt_believed;
    cfg.identity = KEPT_SOURCE;
    nt_new(t, cfg);
    t->w.v->cfg.keep_listings = true;
}

struct kept {
    unsigned pages, last; /* last: those that say so */
    uint8_t first[4096];
    size_t first_n;
};

static int on_kept(void *user, uint32_t page, const void *p, size_t n)
{
    struct kept *k = user;
    if (k->pages++ == 0) {
        k->first_n = ZC_MIN(n, sizeof(k->first));
        memcpy(k->first, p, k->first_n);
    }
    assert_true(n > 12 && n < 64 * ZC_KIB);
    k->last += memcmp(p, "ZLE", 4) == 0;
    assert_true(memcmp(p, "ZLE", 4) == 0 || memcmp(p, "ZL1", 4) == 0);
    return 0;
}

/* What the index has; it is written a moment later. */
static void kept_wait(struct nt_names *t, const char *key, struct kept *k, unsigned pages)
{
    for (unsigned i = 0; i < 1000; i++) {
        *k = (struct kept){0};
        zc_cache_get_listing(t->w.cache, kept_key(key), on_kept, k);
        if (k->pages >= pages)
            return;
        nanosleep(&(struct timespec){.tv_nsec = 10 * ZC_NS_PER_MS}, NULL);
    }
    fail_msg("no listing of %u pages is kept", pages);
}

static void a_kept_listing_has_these_bytes(void **state)
{
    struct nt_names t;
    struct kept k;
    kept_new(&t);
    *nt_put(&t.shop, "a.jpg", "x") = (struct zc_attr){
        .kind = ZC_KIND_FILE,
        .size = 109384,
        .mtime_ns = 1700000000123456789,
        .mode = ZC_ID_UNSET,
        .uid = ZC_ID_UNSET,
        .gid = ZC_ID_UNSET,
        .version = "\"etag\"",
    };
    *nt_put(&t.shop, "n01", NULL) = (struct zc_attr){
        .kind = ZC_KIND_DIR, .mtime_ns = -1, .mode = 0750, .uid = 1000, .gid = 100, .version = ""};
    int64_t before = zc_wall_ns();
    nt_listed(&t);
    int64_t after = zc_wall_ns();
    kept_wait(&t, KEPT_ROOT_KEY, &k, 1);
    assert_int_equal(k.pages, 1);
    assert_hex(k.first, 4, "5a4c4500");
    int64_t wall = 0;
    for (unsigned i = 0; i < 8; i++)
        wall |= (int64_t)k.first[4 + i] << 8 * i;
    assert_true(wall >= before && wall <= after);
    assert_hex(k.first + 12, k.first_n - 12, KEPT_FILE KEPT_DIR);

    struct vfs_dir sub = {.src = t.source, .path = "train/n01"};
    struct zc_digest key = vfs_listing_key(t.w.v, &sub), want = kept_key(KEPT_SUB_KEY);
    assert_memory_equal(&key, &want, sizeof(key));
    nt_free(&t);
}

static void kept_put_page(struct nt_names *t, const char *magic, int64_t wall_ns, uint32_t number,
                          unsigned pages)
{
    uint8_t page[4096];
    struct kept k;
    memcpy(page, magic, 4);
    for (unsigned i = 0; i < 8; i++)
        page[4 + i] = (uint8_t)(wall_ns >> 8 * i);
    size_t n = 12 + hex_bytes(KEPT_FILE KEPT_DIR, page + 12, sizeof(page) - 12);
    assert_int_equal(zc_cache_put_listing(t->w.cache, kept_key(KEPT_ROOT_KEY), number, page, n), 0);
    kept_wait(t, KEPT_ROOT_KEY, &k, pages);
}

static void kept_put(struct nt_names *t, const char *magic, int64_t wall_ns)
{
    kept_put_page(t, magic, wall_ns, 0, 1);
}

/* Pages that were dropped while others were written: what is left is no listing. */
static void what_lost_a_page_is_no_listing(void **state)
{
    for (unsigned way = 0; way < 3; way++) {
        struct nt_names t;
        struct zc_node node;
        int64_t then = zc_wall_ns() - 30 * ZC_NS_PER_S;
        kept_new(&t);
        if (way > 0)
            kept_put_page(&t, "ZL1", way == 1 ? then : then - 1, 0, 1);
        kept_put_page(&t, "ZLE", then, way == 1 ? 2 : 1, way == 0 ? 1 : 2);
        assert_int_equal(nt_look(&t, "n01", &node), -ENOENT);
        assert_true(t.shop.lists + t.shop.stats > 0);
        nt_free(&t);
    }
}

static void these_bytes_are_a_listing(void **state)
{
    struct nt_names t;
    struct zc_node node;
    char text[100];
    for (unsigned way = 0; way < 2; way++) { /* a name first, or the folder */
        kept_new(&t);
        kept_put(&t, "ZLE", zc_wall_ns() - 30 * ZC_NS_PER_S);
        if (way == 1) {
            assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, text), 0);
            assert_string_equal(text, "a.jpg n01 ");
        }
        assert_int_equal(nt_look(&t, "a.jpg", &node), 0);
        assert_int_equal(node.size, 109384);
        assert_int_equal(node.mtime_ns, 1700000000123456789);
        assert_int_equal(node.mode, 0444);
        assert_in_range(node.valid_ns / ZC_NS_PER_S, 25, 30);
        assert_int_equal(nt_look(&t, "n01", &node), 0);
        assert_int_equal(node.kind, ZC_KIND_DIR);
        assert_int_equal(node.mode, 0750);
        assert_int_equal(node.uid, 1000);
        assert_int_equal(nt_look(&t, "none", &node), -ENOENT);
        assert_int_equal(t.shop.lists + t.shop.stats, 0);
        nt_free(&t);
    }
    /* One that is too old, and one without its last page. */
    for (unsigned way = 0; way < 2; way++) {
        kept_new(&t);
        kept_put(&t, way ? "ZL1" : "ZLE", zc_wall_ns() - (way ? 1 : 61) * ZC_NS_PER_S);
        assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, text), 0);
        assert_string_equal(text, "");
        assert_int_equal(t.shop.lists, 1);
        nt_free(&t);
    }
}

static void a_long_one_has_several_pages(void **state)
{
    struct nt_names t;
    struct kept k;
    kept_new(&t);
    nt_put_many(&t.shop);
    nt_listed(&t);
    unsigned pages = 0; /* of 60 KiB and a little */
    for (size_t i = 0, bytes = 12; i < NT_MANY; i++) {
        bytes += 33 + strlen(t.shop.entries[i].name) + 1;
        if (bytes >= 60 * ZC_KIB || i + 1 == NT_MANY) {
            pages++;
            bytes = 12;
        }
    }
    kept_wait(&t, KEPT_ROOT_KEY, &k, pages);
    assert_int_equal(k.pages, pages);
    assert_int_equal(k.last, 1);
    nt_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kept_listing_has_these_bytes),
        cmocka_unit_test(what_lost_a_page_is_no_listing),
        cmocka_unit_test(these_bytes_are_a_listing),
        cmocka_unit_test(a_long_one_has_several_pages),
    };
    return cmocka_run_group_tests_name("vfs_kept", tests, NULL, NULL);
}
