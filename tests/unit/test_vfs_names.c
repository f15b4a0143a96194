/* SPDX-License-Identifier: Apache-2.0 */
/* Names and attributes over time, against a store in memory that counts what it is asked. The clock
   of the file system is moved on by hand. */
#include "hexbytes.h"
#include "unit.h"

#include "vfs/internal.h"
#include "vfstest.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PAGE 1000u /* entries of a page of a listing */

/* ------------------------------------------------------------------ a store in memory */

struct shop {
    struct zc_backend be;
    struct zc_backend_stats counters;
    struct zc_entry *entries; /* of the root; there is nothing below */
    unsigned n;
    struct zc_attr root;
    unsigned lists, pages, stats; /* asked so far; root_stats not among them */
    unsigned root_stats;
    int down;                 /* errno that requests end with, or 0 */
    bool circles;             /* gives its second page for ever */
    struct zc_list_req *held; /* a listing that waits */
    bool hold;
    int64_t deadline_ns; /* of the last request */
};

static struct shop *shop_of(struct zc_backend *be)
{
    return zc_container_of(be, struct shop, be);
}

static struct zc_attr *shop_find(struct shop *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i].attr;
    }
    return NULL;
}

/* Puts a file of this version, or a directory (NULL). */
static struct zc_attr *shop_put(struct shop *s, const char *name, const char *version)
{
    struct zc_attr *a = shop_find(s, name);
    if (!a) {
        s->entries = realloc(s->entries, (s->n + 1) * sizeof(*s->entries));
        s->entries[s->n].name = strdup(name);
        a = &s->entries[s->n++].attr;
    }
    *a = (struct zc_attr){.kind = version ? ZC_KIND_FILE : ZC_KIND_DIR,
                          .size = version ? 10 : 0,
                          .mtime_ns = 5,
                          .mode = 0755,
                          .uid = 11,
                          .gid = 12,
                          .version = version ? version : ""};
    return a;
}

static void shop_drop(struct shop *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->entries[i].name, name) == 0) {
            free((char *)s->entries[i].name);
            memmove(&s->entries[i], &s->entries[i + 1], (s->n - i - 1) * sizeof(*s->entries));
            s->n--;
            return;
        }
    }
}

static void shop_list_now(struct shop *s, struct zc_list_req *req)
{
    unsigned at = req->token ? (unsigned)strtoul(req->token, NULL, 10) : 0;
    char next[20];
    s->pages++;
    memset(req->base.priv, 0, sizeof(req->base.priv));
    if (s->down || *req->path || atomic_load(&req->base.cancelled)) {
        int err = s->down ? s->down : *req->path ? -ENOENT : -ECANCELED;
        req->done(req, err, NULL, 0, NULL, 0);
        return;
    }
    unsigned n = ZC_MIN(s->n - at, PAGE);
    snprintf(next, sizeof(next), "%u", s->circles && at ? at : at + n);
    req->done(req, 0, n ? s->entries + at : NULL, n, at + n < s->n ? next : NULL, 0);
}

static void shop_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct shop *s = shop_of(be);
    s->lists += !req->token;
    s->deadline_ns = req->base.deadline_ns;
    if (s->hold)
        s->held = req;
    else
        shop_list_now(s, req);
}

static void shop_release(struct shop *s)
{
    s->hold = false;
    shop_list_now(s, zc_steal_ptr(&s->held));
}

static void shop_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct shop *s = shop_of(be);
    struct zc_attr *a = *req->path ? shop_find(s, req->path) : &s->root;
    *(*req->path ? &s->stats : &s->root_stats) += 1;
    s->deadline_ns = req->base.deadline_ns;
    int err = s->down ? s->down : a ? 0 : -ENOENT;
    req->done(req, err, err ? NULL : a);
}

static void shop_get(struct zc_backend *be, struct zc_get_req *req)
{
    req->done(req, -EIO);
}

static int shop_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void shop_free(struct zc_backend *be)
{
    struct shop *s = shop_of(be);
    for (unsigned i = 0; i < s->n; i++)
        free((char *)s->entries[i].name);
    free(s->entries);
}

static const struct zc_backend_ops shop_ops = {.name = "shop",
                                               .probe = shop_probe,
                                               .list = shop_list,
                                               .stat = shop_stat,
                                               .get = shop_get,
                                               .free = shop_free};

/* ------------------------------------------------------------------ a file system of it */

struct names {
    struct vt_world w;
    struct shop shop;
    struct zc_vfs_source *source;
};

static const struct zc_vfs_source_config believed = {
    .at = "",
    .ttl_ns = 60 * ZC_NS_PER_S,
    .negative_ttl_ns = -1,
    .uid = ZC_ID_UNSET,
    .gid = ZC_ID_UNSET,
    .file_mode = ZC_ID_UNSET,
    .dir_mode = ZC_ID_UNSET,
};

static void names_new(struct names *t, struct zc_vfs_source_config cfg)
{
    *t = (struct names){.shop.be = {.ops = &shop_ops, .url = "shop:"},
                        .shop.root = {.kind = ZC_KIND_DIR,
                                      .version = "",
                                      .mode = 0700,
                                      .uid = 21,
                                      .gid = 22,
                                      .mtime_ns = 77}};
    t->shop.be.stats = &t->shop.counters;
    vt_new(&t->w);
    cfg.be = &t->shop.be;
    if (!cfg.identity)
        cfg.identity = t->shop.be.url;
    assert_int_equal(zc_vfs_source_add(t->w.v, &cfg, &t->source, NULL), 0);
}

static void names_free(struct names *t)
{
    vt_free(&t->w);
    zc_backend_free(&t->shop.be);
}

static void later(struct names *t, unsigned seconds)
{
    t->w.v->start_ns -= seconds * ZC_NS_PER_S;
}

static int look(struct names *t, const char *path, struct zc_node *out)
{
    return vt_walk(&t->w, path, out);
}

static struct zc_dirh *opened(struct names *t)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_opendir(t->w.v, ZC_NODE_ROOT, vt_on_opendir, &a);
    assert_int_equal(vt_answer_get(&a), 0);
    return a.dh;
}

static void listed(struct names *t)
{
    zc_vfs_closedir(opened(t));
}

/* ------------------------------------------------------------------ tests */

static void bits_follow_the_store(void **state)
{
    struct names t;
    struct zc_node node;
    names_new(&t, believed);
    shop_put(&t.shop, "dir", NULL);
    shop_put(&t.shop, "file", "v");
    listed(&t);
    assert_int_equal(look(&t, "dir", &node), 0);
    assert_int_equal(node.mode, 0755);
    uint64_t dir = node.id;
    assert_int_equal(look(&t, "file", &node), 0);
    uint64_t file = node.id;

    /* A version says nothing of owners and bits, and directories have none. */
    for (unsigned i = 0; i < 2; i++) {
        struct zc_attr *d = shop_find(&t.shop, "dir"), *f = shop_find(&t.shop, "file");
        d->mode = 0700 + i;
        d->uid = 31 + i;
        f->mode = 0600 + i;
        f->gid = 41 + i;
        later(&t, 61);
        if (i == 0)
            listed(&t); /* and once for each name alone */
        else
            t.w.v->root->state = VFS_UNLISTED;
        assert_int_equal(look(&t, "dir", &node), 0);
        assert_int_equal(node.id, dir);
        assert_int_equal(node.mode, 0700 + i);
        assert_int_equal(node.uid, 31 + i);
        assert_int_equal(look(&t, "file", &node), 0);
        assert_int_equal(node.id, file);
        assert_int_equal(node.mode, 0600 + i);
        assert_int_equal(node.gid, 41 + i);
    }
    names_free(&t);
}

static void the_root_is_the_store_s(void **state)
{
    struct names t;
    struct zc_node node;
    names_new(&t, believed);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.uid, 21);
    assert_int_equal(node.gid, 22);
    assert_int_equal(node.mtime_ns, 77);
    assert_true(node.valid_ns > 58 * ZC_NS_PER_S && node.valid_ns <= 60 * ZC_NS_PER_S);

    t.shop.root.mode = 0711;
    later(&t, 50);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(t.shop.root_stats, 1);
    later(&t, 11);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0711);
    assert_int_equal(t.shop.root_stats, 2);
    assert_true(t.shop.deadline_ns - zc_now_ns() < 6 * ZC_NS_PER_S);

    /* A store that is away: what was known, and not asked with each look. */
    t.shop.down = -ETIMEDOUT;
    t.shop.root.mode = 0755;
    later(&t, 61);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
        assert_int_equal(node.mode, 0711);
    }
    assert_int_equal(t.shop.root_stats, 3);
    t.shop.down = 0;
    later(&t, 11);
    assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0755);
    names_free(&t);
}

static void so_is_one_beside_others(void **state)
{
    struct names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = believed;
    cfg.at = "d/s";
    cfg.uid = 5;
    names_new(&t, cfg);
    assert_int_equal(look(&t, "d", &node), 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0555);
    assert_int_equal(t.shop.root_stats, 0);
    /* A look-up asks nobody, but leaves the kernel to ask for the attributes. */
    assert_int_equal(look(&t, "d/s", &node), 0);
    assert_int_equal(node.valid_ns, 0);
    assert_int_equal(t.shop.root_stats, 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.uid, 5);
    assert_int_equal(node.gid, 22);
    assert_int_equal(look(&t, "d/s", &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.valid_ns, VFS_SYNTHETIC_NS);
    t.shop.root.mode = 0750;
    later(&t, 61);
    assert_int_equal(look(&t, "d/s", &node), 0);
    assert_int_equal(node.valid_ns, 0);
    assert_int_equal(vt_attr(&t.w, node.id, &node), 0);
    assert_int_equal(node.mode, 0750);
    assert_int_equal(t.shop.root_stats, 2);
    names_free(&t);
}

static void a_frozen_root_is_asked_once(void **state)
{
    struct names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = believed;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    cfg.dir_mode = 0751;
    names_new(&t, cfg);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(vt_attr(&t.w, ZC_NODE_ROOT, &node), 0);
        assert_int_equal(node.mode, 0751);
        assert_true(node.valid_ns == ZC_TTL_INDEFINITE);
        later(&t, 1000);
    }
    assert_int_equal(t.shop.root_stats, 1);
    names_free(&t);
}

/* ENOENT, which may be believed for a time from `from` to `to` seconds. */
static void missing(struct names *t, const char *name, int64_t from, int64_t to)
{
    struct zc_node node;
    assert_int_equal(look(t, name, &node), -ENOENT);
    assert_in_range(node.valid_ns / ZC_NS_PER_S, from, to);
}

static void a_missing_name_has_its_own_time(void **state)
{
    struct names t;
    struct zc_node node;
    struct zc_vfs_source_config cfg = believed;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    cfg.negative_ttl_ns = 5 * ZC_NS_PER_S;
    names_new(&t, cfg);
    shop_put(&t.shop, "there", "v");
    listed(&t);
    later(&t, 2);
    missing(&t, "new", 2, 3);
    assert_int_equal(t.shop.lists + t.shop.stats, 1);

    shop_put(&t.shop, "new", "v");
    later(&t, 4);
    assert_int_equal(look(&t, "there", &node), 0);
    assert_int_equal(t.shop.lists + t.shop.stats, 1);
    assert_int_equal(look(&t, "new", &node), 0); /* alone */
    assert_int_equal(t.shop.stats, 1);
    assert_int_equal(t.shop.lists, 1);
    assert_true(node.valid_ns == ZC_TTL_INDEFINITE);

    /* The next one pays for a listing, which then stands for all. */
    missing(&t, "other", 4, 5);
    for (char name[] = "a"; *name < 'k'; ++*name)
        missing(&t, name, 4, 5);
    assert_int_equal(t.shop.stats, 1);
    assert_int_equal(t.shop.lists, 2);

    /* Away: the listing is still believed, and not for longer than before. */
    t.shop.down = -ETIMEDOUT;
    later(&t, 6);
    missing(&t, "other", 1, 1);
    assert_true(t.shop.deadline_ns - zc_now_ns() < 16 * ZC_NS_PER_S);
    assert_int_equal(look(&t, "there", &node), 0);
    t.shop.down = 0;
    shop_put(&t.shop, "other", "v");
    assert_int_equal(look(&t, "other", &node), 0);
    names_free(&t);
}

static void frozen_data_are_not_asked_for(void **state)
{
    struct names t;
    struct zc_vfs_source_config cfg = believed;
    struct zc_node node;
    cfg.ttl_ns = ZC_TTL_INDEFINITE;
    names_new(&t, cfg);
    shop_put(&t.shop, "there", "v");
    listed(&t);
    for (unsigned i = 0; i < 10; i++) {
        later(&t, 100000);
        assert_int_equal(look(&t, "new", &node), -ENOENT);
        assert_true(node.valid_ns == ZC_TTL_INDEFINITE);
        assert_int_equal(look(&t, "there", &node), 0);
    }
    assert_int_equal(t.shop.lists, 1);
    assert_int_equal(t.shop.stats, 0);
    names_free(&t);
}

#define MANY 50000u

static void many(struct shop *s)
{
    char name[20];
    s->entries = realloc(s->entries, MANY * sizeof(*s->entries));
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        s->entries[i] = (struct zc_entry){
            .name = strdup(name),
            .attr = {.kind = ZC_KIND_FILE, .size = 1, .mode = 0644, .version = "v"}};
    }
    s->n = MANY;
}

static void a_big_directory_is_listed_again(void **state)
{
    struct names t;
    struct zc_node node;
    char name[20];
    names_new(&t, believed);
    many(&t.shop);
    listed(&t);
    assert_int_equal(t.shop.pages, MANY / PAGE);
    unsigned first = t.shop.pages;
    later(&t, 61);
    /* Alone, as often as a listing costs; then once more while that is made. */
    t.shop.hold = true;
    for (unsigned i = 0; i < MANY / VFS_NAMES_A_SINGLE + 1; i++) {
        snprintf(name, sizeof(name), "f%u", i * 7);
        assert_int_equal(look(&t, name, &node), 0);
        assert_null(t.shop.held);
    }
    unsigned alone = t.shop.stats;
    assert_int_equal(alone, MANY / VFS_NAMES_A_SINGLE + 1);
    assert_int_equal(look(&t, "f40000", &node), 0);
    assert_non_null(t.shop.held);
    assert_int_equal(look(&t, "f40001", &node), 0); /* nobody waits */
    assert_int_equal(t.shop.stats, alone + 2);
    assert_int_equal(t.shop.lists, 2);
    t.shop.held->base.deadline_ns -= 10 * ZC_NS_PER_S; /* so long did the first page take */
    shop_release(&t.shop);
    assert_int_equal(t.shop.pages, 2 * first);
    /* Each page has its own time. */
    assert_true(t.shop.deadline_ns - zc_now_ns() > 10 * ZC_NS_PER_S);
    /* From now on nothing is asked, until it is too old again. */
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(name, sizeof(name), "f%u", i * 49);
        assert_int_equal(look(&t, name, &node), 0);
    }
    assert_int_equal(t.shop.stats, alone + 2);
    assert_int_equal(t.shop.pages, 2 * first);
    names_free(&t);
}

static void rewound(struct names *t, struct zc_dirh *dh)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_rewinddir(dh, vt_on_opendir, &a);
    assert_int_equal(vt_answer_get(&a), 0);
    assert_ptr_equal(a.dh, dh);
}

/* A store that pages in a circle fails the listing; it does not hold it up for ever. */
static void a_page_that_comes_again_ends_it(void **state)
{
    struct names t;
    char name[20], *out = malloc(1 << 20);
    names_new(&t, believed);
    for (unsigned i = 0; i < 3 * PAGE; i++) {
        snprintf(name, sizeof(name), "%05u", i);
        shop_put(&t.shop, name, "v");
    }
    t.shop.circles = true;
    assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, out), -EBADMSG);
    assert_int_equal(t.shop.pages, 2);
    t.shop.circles = false;
    assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, out), 0);
    assert_int_equal(t.shop.pages, 5);
    names_free(&t);
    free(out);
}

static void an_open_directory_shows_each_name_once(void **state)
{
    struct names t;
    struct zc_node node;
    const char *name;
    char text[100];
    names_new(&t, believed);
    shop_put(&t.shop, "a", "1");
    shop_put(&t.shop, "b", "1");
    shop_put(&t.shop, "c", "1");
    struct zc_dirh *first = opened(&t);
    assert_int_equal(zc_vfs_readdir(first, 1, false, &name, &node), 1);
    uint64_t old = node.id;
    for (unsigned round = 0; round < 3; round++) {
        shop_put(&t.shop, "b", round & 1 ? "1" : "2");
        later(&t, 61);
        listed(&t);
        vt_names(first, text);
        assert_string_equal(text, "a b c ");
        assert_int_equal(zc_vfs_readdir(first, 1, true, &name, &node), 1);
        assert_string_equal(name, "b");
        assert_true(node.id != old);
        old = node.id;
        zc_vfs_forget(t.w.v, node.id, 1);
    }
    /* One that is opened now does not see what was there before as well. */
    struct zc_dirh *second = opened(&t);
    vt_names(second, text);
    assert_string_equal(text, "a c b ");

    shop_put(&t.shop, "b", NULL); /* a directory now */
    shop_drop(&t.shop, "c");
    shop_put(&t.shop, "d", "1");
    later(&t, 61);
    listed(&t);
    vt_names(first, text);
    assert_string_equal(text, "a b ");
    vt_names(second, text);
    assert_string_equal(text, "a b ");
    shop_put(&t.shop, "c", "2"); /* back again: neither is it new to them, nor is it there twice */
    later(&t, 61);
    listed(&t);
    vt_names(first, text);
    assert_string_equal(text, "a b c ");
    rewound(&t, first);
    vt_names(first, text);
    assert_string_equal(text, "a b d c ");
    zc_vfs_closedir(first);
    zc_vfs_closedir(second);
    names_free(&t);
}

static void rewinding_lists_again_when_it_is_time(void **state)
{
    struct names t;
    char text[100];
    names_new(&t, believed);
    shop_put(&t.shop, "a", "1");
    struct zc_dirh *dh = opened(&t);
    shop_put(&t.shop, "b", "1");
    rewound(&t, dh);
    vt_names(dh, text);
    assert_string_equal(text, "a ");
    later(&t, 61);
    rewound(&t, dh);
    vt_names(dh, text);
    assert_string_equal(text, "a b ");
    assert_int_equal(t.shop.lists, 2);

    /* Closed while it waits. */
    struct vt_answer a = VT_ANSWER;
    later(&t, 61);
    t.shop.hold = true;
    zc_vfs_rewinddir(dh, vt_on_opendir, &a);
    zc_vfs_closedir(dh);
    assert_false(a.done);
    shop_release(&t.shop);
    assert_int_equal(vt_answer_get(&a), 0);
    names_free(&t);
}

/* ------------------------------------------------------------------ kept listings */

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

static void kept_new(struct names *t)
{
    struct zc_vfs_source_config cfg = believed;
    cfg.identity = KEPT_SOURCE;
    names_new(t, cfg);
    t->w.v->cfg.keep_listings = true;
}

struct kept {
    unsigned pages, last; /* last: those that say so */
    uint8_t first[4096];
    size_t first_n;
};

static int on_kept(void *user, const void *p, size_t n)
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
static void kept_wait(struct names *t, const char *key, struct kept *k, unsigned pages)
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
    struct names t;
    struct kept k;
    kept_new(&t);
    *shop_put(&t.shop, "a.jpg", "x") = (struct zc_attr){
        .kind = ZC_KIND_FILE,
        .size = 109384,
        .mtime_ns = 1700000000123456789,
        .mode = ZC_ID_UNSET,
        .uid = ZC_ID_UNSET,
        .gid = ZC_ID_UNSET,
        .version = "\"etag\"",
    };
    *shop_put(&t.shop, "n01", NULL) = (struct zc_attr){
        .kind = ZC_KIND_DIR, .mtime_ns = -1, .mode = 0750, .uid = 1000, .gid = 100, .version = ""};
    int64_t before = zc_wall_ns();
    listed(&t);
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
    names_free(&t);
}

static void kept_put(struct names *t, const char *magic, int64_t wall_ns)
{
    uint8_t page[4096];
    struct kept k;
    memcpy(page, magic, 4);
    for (unsigned i = 0; i < 8; i++)
        page[4 + i] = (uint8_t)(wall_ns >> 8 * i);
    size_t n = 12 + hex_bytes(KEPT_FILE KEPT_DIR, page + 12, sizeof(page) - 12);
    assert_int_equal(zc_cache_put_listing(t->w.cache, kept_key(KEPT_ROOT_KEY), 0, page, n), 0);
    kept_wait(t, KEPT_ROOT_KEY, &k, 1);
}

static void these_bytes_are_a_listing(void **state)
{
    struct names t;
    struct zc_node node;
    char text[100];
    for (unsigned way = 0; way < 2; way++) { /* a name first, or the folder */
        kept_new(&t);
        kept_put(&t, "ZLE", zc_wall_ns() - 30 * ZC_NS_PER_S);
        if (way == 1) {
            assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, text), 0);
            assert_string_equal(text, "a.jpg n01 ");
        }
        assert_int_equal(look(&t, "a.jpg", &node), 0);
        assert_int_equal(node.size, 109384);
        assert_int_equal(node.mtime_ns, 1700000000123456789);
        assert_int_equal(node.mode, 0444);
        assert_in_range(node.valid_ns / ZC_NS_PER_S, 25, 30);
        assert_int_equal(look(&t, "n01", &node), 0);
        assert_int_equal(node.kind, ZC_KIND_DIR);
        assert_int_equal(node.mode, 0750);
        assert_int_equal(node.uid, 1000);
        assert_int_equal(look(&t, "none", &node), -ENOENT);
        assert_int_equal(t.shop.lists + t.shop.stats, 0);
        names_free(&t);
    }
    /* One that is too old, and one without its last page. */
    for (unsigned way = 0; way < 2; way++) {
        kept_new(&t);
        kept_put(&t, way ? "ZL1" : "ZLE", zc_wall_ns() - (way ? 1 : 61) * ZC_NS_PER_S);
        assert_int_equal(vt_list(&t.w, ZC_NODE_ROOT, text), 0);
        assert_string_equal(text, "");
        assert_int_equal(t.shop.lists, 1);
        names_free(&t);
    }
}

static void a_long_one_has_several_pages(void **state)
{
    struct names t;
    struct kept k;
    kept_new(&t);
    many(&t.shop);
    listed(&t);
    unsigned pages = 0; /* of 60 KiB and a little */
    for (size_t i = 0, bytes = 12; i < MANY; i++) {
        bytes += 33 + strlen(t.shop.entries[i].name) + 1;
        if (bytes >= 60 * ZC_KIB || i + 1 == MANY) {
            pages++;
            bytes = 12;
        }
    }
    kept_wait(&t, KEPT_ROOT_KEY, &k, pages);
    assert_int_equal(k.pages, pages);
    assert_int_equal(k.last, 1);
    names_free(&t);
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
        cmocka_unit_test(a_kept_listing_has_these_bytes),
        cmocka_unit_test(these_bytes_are_a_listing),
        cmocka_unit_test(a_long_one_has_several_pages),
    };
    return cmocka_run_group_tests_name("vfs_names", tests, NULL, NULL);
}
