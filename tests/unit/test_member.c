/* SPDX-License-Identifier: Apache-2.0 */
/* Membership with sockets: nodes on loopback, each with its threads. */
#include "unit.h"

#include "member/member.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PATIENCE (60 * ZC_NS_PER_S)

static const uint8_t key_a[16] = "0123456789abcdef", key_b[16] = "fedcba9876543210";

struct opts {
    const char *name, *label, *key_file;
    const uint8_t *key;
    uint16_t seed;
    bool compress;
    atomic_uint *changes;
};

struct at {
    struct zc_member *m;
    struct zc_keyring *keys;
    uint16_t port;
};

static void note(void *user)
{
    atomic_fetch_add((atomic_uint *)user, 1);
}

static struct at start(const struct opts *o)
{
    struct sockaddr_in bind = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char seeds[64] = "";
    struct zc_error err = {0};
    struct at a = {.keys = o->key ? zc_keyring_new(o->key, 16) : NULL};
    if (o->seed)
        snprintf(seeds, sizeof(seeds), "127.0.0.1:%u", o->seed);
    struct zc_member_config c = {
        .name = o->name,
        .meta = (const uint8_t *)"zc\x01first",
        .meta_len = 8,
        .bind = (struct sockaddr *)&bind,
        .seeds = seeds,
        .keys = a.keys,
        .key_file = o->key_file,
        .label = o->label,
        .compress = o->compress,
        .changed = o->changes ? note : NULL,
        .user = o->changes,
    };
    int r = zc_member_start(&c, &a.m, &err);
    if (r < 0)
        fail_msg("%s", err.text);
    struct zc_swim_addr addr;
    zc_member_addr(a.m, &addr);
    a.port = addr.port;
    return a;
}

static void stop(struct at *a)
{
    zc_member_stop(a->m);
    zc_keyring_free(a->keys);
}

/* Members in that state whose name begins so. */
static unsigned count(const struct at *a, const char *name, enum zc_swim_state state)
{
    unsigned n = 0;
    struct zc_member_view *v = zc_member_view(a->m);
    for (unsigned i = 0; i < v->n; i++)
        n += v->members[i].state == state &&
             strncmp(v->members[i].node->name, name, strlen(name)) == 0;
    zc_member_view_unref(v);
    return n;
}

static void expect(const struct at *a, const char *name, enum zc_swim_state state, unsigned n)
{
    int64_t until = zc_now_ns() + PATIENCE;
    while (count(a, name, state) != n) {
        if (zc_now_ns() > until)
            fail_msg("%u of %s in state %d, not %u", count(a, name, state), name, state, n);
        usleep(5000);
    }
}

/* Three nodes: they meet, tell, leave and die. */
static void lives(const struct opts *how)
{
    struct opts o = *how;
    atomic_uint changes = 0;
    struct at n[3];
    o.name = "one";
    o.changes = &changes;
    n[0] = start(&o);
    assert_int_equal(count(&n[0], "one", ZC_SWIM_ALIVE), 1);
    o.changes = NULL;
    o.seed = n[0].port;
    o.name = "two";
    n[1] = start(&o);
    o.name = "three";
    n[2] = start(&o);
    for (int i = 0; i < 3; i++)
        expect(&n[i], "", ZC_SWIM_ALIVE, 3);
    assert_true(atomic_load(&changes) > 0);

    uint8_t meta[ZC_WIRE_META_MAX + 1] = "zc\x01";
    memset(meta + 3, 'm', sizeof(meta) - 3);
    assert_int_equal(zc_member_set_meta(n[1].m, meta, sizeof(meta)), -EMSGSIZE);
    assert_int_equal(zc_member_set_meta(n[1].m, meta, ZC_WIRE_META_MAX), 0);
    int64_t until = zc_now_ns() + PATIENCE;
    for (bool seen = false; !seen;) {
        struct zc_member_view *v = zc_member_view(n[2].m);
        for (unsigned i = 0; i < v->n; i++)
            seen |= v->members[i].node->meta_len == ZC_WIRE_META_MAX &&
                    memcmp(v->members[i].node->meta, meta, ZC_WIRE_META_MAX) == 0 &&
                    strncmp(v->members[i].node->name, "two", 3) == 0;
        zc_member_view_unref(v);
        assert_true(zc_now_ns() < until);
        usleep(5000);
    }

    zc_member_leave(n[1].m);
    expect(&n[0], "two", ZC_SWIM_LEFT, 1);
    expect(&n[2], "two", ZC_SWIM_LEFT, 1);
    stop(&n[1]);
    stop(&n[2]);
    expect(&n[0], "three", ZC_SWIM_DEAD, 1);
    assert_int_equal(count(&n[0], "", ZC_SWIM_ALIVE), 1);
    stop(&n[0]);
}

static void test_plain(void **state)
{
    (void)state;
    lives(&(struct opts){.label = ""});
}

static void test_encrypted(void **state)
{
    (void)state;
    lives(&(struct opts){.key = key_a, .compress = true});
}

/* Another key, another label, none: they stay apart, and it is counted. */
static void test_strangers(void **state)
{
    (void)state;
    struct at home = start(&(struct opts){.name = "home", .key = key_a});
    struct opts others[] = {
        {.name = "key", .key = key_b, .seed = home.port},
        {.name = "plain", .seed = home.port},
        {.name = "label", .label = "other", .key = key_a, .seed = home.port},
        {.name = "friend", .key = key_a, .seed = home.port},
    };
    struct at n[4];
    for (size_t i = 0; i < 4; i++)
        n[i] = start(&others[i]);
    expect(&home, "friend", ZC_SWIM_ALIVE, 1);
    struct zc_member_stats s;
    int64_t until = zc_now_ns() + PATIENCE;
    do {
        usleep(5000);
        zc_member_stats(home.m, &s);
        assert_true(zc_now_ns() < until);
    } while (s.streams_refused < 3);
    assert_int_equal(count(&home, "", ZC_SWIM_ALIVE), 2);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(count(&n[i], "", ZC_SWIM_ALIVE), 1);
    for (size_t i = 0; i < 4; i++)
        stop(&n[i]);
    stop(&home);
}

static void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void await_keys(const struct at *a, uint64_t n)
{
    struct zc_member_stats s;
    int64_t until = zc_now_ns() + PATIENCE;
    for (;;) {
        zc_member_stats(a->m, &s);
        if (s.keys_loaded >= n)
            return;
        assert_true(zc_now_ns() < until);
        usleep(5000);
    }
}

#define HEX_A "000102030405060708090a0b0c0d0e0f\n"
#define HEX_B "101112131415161718191a1b1c1d1e1f\n"

/* A key is exchanged while all stay members; who has only the old one is out. */
static void test_rotation(void **state)
{
    (void)state;
    char dir[] = "/tmp/zc-member-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/keys", dir);
    put(path, HEX_A);
    struct at one = start(&(struct opts){.name = "one", .key_file = path});
    struct at two = start(&(struct opts){.name = "two", .key_file = path, .seed = one.port});
    expect(&one, "", ZC_SWIM_ALIVE, 2);
    static const char *const steps[] = {HEX_A HEX_B, HEX_B HEX_A, HEX_B};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(steps); i++) {
        put(path, steps[i]);
        zc_member_reload(one.m);
        await_keys(&one, i + 1);
        await_keys(&two, i + 1); /* which sees for itself that the file is another one */
        assert_int_equal(count(&one, "", ZC_SWIM_DEAD), 0);
    }
    put(path, "nonsense\n");
    zc_member_reload(one.m); /* the former keys stay */
    zc_member_leave(two.m);
    expect(&one, "two", ZC_SWIM_LEFT, 1);
    stop(&two);
    stop(&one);
    unlink(path);
    rmdir(dir);
}

static void test_bad_start(void **state)
{
    (void)state;
    struct sockaddr_in bind = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static const char *const seeds[] = {"host:",  "host:0", "host:65536",
                                        "host:x", "[::1",   "[::1]x"};
    struct zc_member_config c = {.name = "n", .bind = (struct sockaddr *)&bind};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(seeds); i++) {
        struct zc_member *m = NULL;
        struct zc_error err = {0};
        c.seeds = seeds[i];
        assert_int_equal(zc_member_start(&c, &m, &err), -EINVAL);
        assert_true(err.text[0] != '\0');
    }
    c.seeds = NULL;
    struct zc_member *m = NULL;
    struct zc_error err = {0};
    c.key_file = "/nonexistent/keys";
    assert_int_equal(zc_member_start(&c, &m, &err), -ENOENT);
    c.key_file = NULL;
    c.name = "";
    assert_int_equal(zc_member_start(&c, &m, &err), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plain),     cmocka_unit_test(test_encrypted),
        cmocka_unit_test(test_strangers), cmocka_unit_test(test_rotation),
        cmocka_unit_test(test_bad_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
