/* SPDX-License-Identifier: Apache-2.0 */
#include "cache/index.h"

#include "base/log.h"
#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

static const struct rec_meta meta = {.seed = CT_SEED, .chunk_size = CT_CHUNK};

static struct zc_index *open_with(const char *dir, uint64_t map_size, const struct rec_meta *m,
                                  enum index_found *found)
{
    struct index_config cfg = {.dir = dir, .meta = *m, .map_size = map_size};
    struct zc_index *x = NULL;
    struct zc_error err = {0};
    assert_int_equal(index_open(&cfg, &x, found, &err), 0);
    return x;
}

static struct zc_index *open_index(const char *dir, enum index_found *found)
{
    return open_with(dir, 0, &meta, found);
}

static struct rec_obj object(uint64_t size, bool complete)
{
    return (struct rec_obj){.size = size,
                            .chunk_size = CT_CHUNK,
                            .complete = complete,
                            .source = "src",
                            .path = "a/path",
                            .source_len = 3,
                            .path_len = 6};
}

static struct zc_digest sum_of(unsigned n)
{
    return zc_digest_of(9, &n, sizeof(n));
}

/* n objects of one chunk. */
static void fill(struct zc_index *x, unsigned from, unsigned n)
{
    for (unsigned i = from; i < from + n; i++) {
        struct rec_obj o = object(100, true);
        assert_int_equal(index_put_chunk(x, ct_id(i, 100), 0, 100, sum_of(i), &o), 0);
    }
}

struct seen {
    unsigned objects, complete, chunks;
    uint64_t bits0;
};

static int count(void *user, const struct index_object *o)
{
    struct seen *s = user;
    s->objects++;
    s->complete += o->complete;
    s->chunks += o->present;
    if (o->bits)
        s->bits0 = o->bits[0];
    return 0;
}

static struct seen load(struct zc_index *x)
{
    struct seen s = {0};
    assert_int_equal(index_load(x, count, &s), 0);
    return s;
}

static int count_place(void *user, const struct rec_place *p)
{
    (*(unsigned *)user)++;
    return 0;
}

static unsigned places(struct zc_index *x, struct zc_digest sum)
{
    unsigned n = 0;
    assert_int_equal(index_get_places(x, sum, count_place, &n), 0);
    return n;
}

static void test_keeps_objects_over_a_close(void **state)
{
    enum index_found found;
    struct zc_digest sum;
    struct zc_index *x = open_index(*state, &found);
    assert_int_equal(found, INDEX_NEW);
    fill(x, 0, 1000);
    struct rec_obj part = object(10 * CT_CHUNK, false);
    index_put_chunk(x, ct_id(5000, 1), 3, CT_CHUNK, sum_of(5000), &part);
    index_put_chunk(x, ct_id(5000, 1), 7, CT_CHUNK, sum_of(5001), NULL);
    index_close(x, true, true);

    x = open_index(*state, &found);
    assert_int_equal(found, INDEX_TRUSTED);
    struct seen s = load(x);
    assert_int_equal(s.objects, 1001);
    assert_int_equal(s.complete, 1000);
    assert_int_equal(s.chunks, 1002);
    assert_int_equal(s.bits0, 1 << 3 | 1 << 7);
    assert_int_equal(index_get_sum(x, ct_id(5000, 1), 7, &sum), 1);
    assert_true(zc_digest_eq(sum, sum_of(5001)));
    assert_int_equal(index_get_sum(x, ct_id(5000, 1), 8, &sum), 0);
    index_close(x, true, false);

    x = open_index(*state, &found);
    assert_int_equal(found, INDEX_DOUBTED); /* closed while not all had been checked */
    assert_int_equal(load(x).objects, 1001);
    index_close(x, false, false);
}

static void test_delete_takes_all_of_an_object(void **state)
{
    enum index_found found;
    struct zc_digest sum;
    struct zc_index *x = open_index(*state, &found);
    struct rec_obj o = object(1000 * CT_CHUNK, false);
    for (unsigned i = 0; i < 1000; i++)
        index_put_chunk(x, ct_id(1, 1), i, CT_CHUNK, sum_of(i), &o);
    index_put_chunk(x, ct_id(2, 1), 0, CT_CHUNK, sum_of(7), &o);
    index_flush(x);
    assert_int_equal(index_duplicates(x), 1);
    assert_int_equal(places(x, sum_of(7)), 2);
    index_del_obj(x, ct_id(1, 1));
    index_flush(x);
    assert_int_equal(places(x, sum_of(7)), 1);
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(index_get_sum(x, ct_id(1, 1), i, &sum), 0);
        assert_int_equal(places(x, sum_of(i)), i == 7);
    }
    assert_int_equal(index_get_sum(x, ct_id(2, 1), 0, &sum), 1);
    index_close(x, false, false);
}

static void test_a_new_sum_replaces_the_old(void **state)
{
    enum index_found found;
    struct zc_digest sum;
    struct zc_index *x = open_index(*state, &found);
    struct rec_obj o = object(100, true);
    index_put_chunk(x, ct_id(1, 1), 0, 100, sum_of(1), &o);
    index_put_chunk(x, ct_id(1, 1), 0, 100, sum_of(2), &o);
    index_flush(x);
    assert_int_equal(places(x, sum_of(1)), 0);
    assert_int_equal(places(x, sum_of(2)), 1);
    assert_int_equal(index_get_sum(x, ct_id(1, 1), 0, &sum), 1);
    assert_true(zc_digest_eq(sum, sum_of(2)));
    index_close(x, false, false);
}

static int join(void *user, uint32_t page, const void *p, size_t n)
{
    strncat(user, p, n);
    return 0;
}

static int stop_at_two(void *user, uint32_t page, const void *p, size_t n)
{
    return ++*(int *)user == 2 ? 77 : 0;
}

static void test_listings(void **state)
{
    enum index_found found;
    char text[64] = "";
    int calls = 0;
    struct zc_digest a = zc_digest_of(0, "a", 1), b = zc_digest_of(0, "b", 1);
    struct zc_index *x = open_index(*state, &found);
    index_put_listing(x, a, 256, "third ", 6); /* pages in numerical order */
    index_put_listing(x, a, 0, "first ", 6);
    index_put_listing(x, a, 1, "second ", 7);
    index_put_listing(x, b, 0, "other", 5);
    assert_int_equal(index_get_listing(x, a, join, text), 0); /* without a flush */
    assert_string_equal(text, "first second third ");
    assert_int_equal(index_get_listing(x, a, stop_at_two, &calls), 77);
    index_del_listing(x, a);
    text[0] = '\0';
    assert_int_equal(index_get_listing(x, a, join, text), 0);
    assert_string_equal(text, "");
    assert_int_equal(index_get_listing(x, b, join, text), 0);
    assert_string_equal(text, "other");
    index_close(x, true, true);
    x = open_index(*state, &found);
    text[0] = '\0';
    assert_int_equal(index_get_listing(x, b, join, text), 0);
    assert_string_equal(text, "other");
    index_close(x, false, false);
}

static void test_other_settings_start_anew(void **state)
{
    enum index_found found;
    struct rec_meta other = {.seed = CT_SEED + 1, .chunk_size = CT_CHUNK};
    struct zc_index *x = open_index(*state, &found);
    fill(x, 0, 10);
    index_close(x, true, true);
    x = open_with(*state, 0, &other, &found);
    assert_int_equal(found, INDEX_NEW);
    assert_int_equal(load(x).objects, 0);
    index_close(x, false, false);
}

static void test_grows_its_map(void **state)
{
    enum index_found found;
    struct zc_index *x = open_with(*state, 256 * ZC_KIB, &meta, &found);
    fill(x, 0, 20000);
    index_flush(x);
    assert_false(index_broken(x));
    assert_int_equal(load(x).objects, 20000);
    index_close(x, true, true);
    x = open_with(*state, 256 * ZC_KIB, &meta, &found); /* smaller than the file */
    assert_int_equal(found, INDEX_TRUSTED);
    fill(x, 20000, 1000);
    index_flush(x);
    assert_int_equal(load(x).objects, 21000);
    index_close(x, false, false);
}

/* A process that dies while it writes; its last transactions may be lost, no more. */
static void test_salvages_after_a_kill(void **state)
{
    enum index_found found;
    pid_t pid = fork();
    if (pid == 0) {
        struct index_config cfg = {.dir = *state, .meta = meta};
        struct zc_index *x = NULL;
        if (index_open(&cfg, &x, &found, NULL) < 0)
            _exit(1);
        for (unsigned i = 0; i < 3000; i++) {
            struct rec_obj o = object(100, true);
            index_put_chunk(x, ct_id(i, 100), 0, 100, sum_of(i), &o);
        }
        /* says complete, and is not */
        struct rec_obj o = object(3 * CT_CHUNK, true);
        index_put_chunk(x, ct_id(9999, 1), 1, CT_CHUNK, sum_of(1), &o);
        index_flush(x);
        kill(getpid(), SIGKILL);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_true(WIFSIGNALED(status));
    struct zc_index *x = open_index(*state, &found);
    assert_int_equal(found, INDEX_DOUBTED);
    struct seen s = load(x);
    assert_int_equal(s.objects, 3001);
    assert_int_equal(s.complete, 3000);
    assert_int_equal(s.bits0, 2);
    assert_int_equal(places(x, sum_of(5)), 1);
    assert_int_equal(places(x, sum_of(1)), 2);
    index_close(x, false, false);
}

static void scribble(const char *path, unsigned seed)
{
    struct stat st;
    uint8_t junk[600];
    srandom(seed);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    size_t n = 1 + (size_t)random() % (seed % 3 ? 16 : sizeof(junk));
    /* half of them into the first pages, where the trees begin */
    off_t off = random() % (seed % 2 ? st.st_size : ZC_MIN(st.st_size, (off_t)65536));
    for (size_t i = 0; i < n; i++)
        junk[i] = (uint8_t)random();
    if (seed % 10 == 0)
        assert_int_equal(ftruncate(fd, off), 0);
    else
        assert_int_equal(pwrite(fd, junk, n, off), n);
    close(fd);
}

static void copy(const char *from, const char *to)
{
    char cmd[1000];
    snprintf(cmd, sizeof(cmd), "cp %s %s", from, to);
    assert_int_equal(system(cmd), 0);
}

static void test_scribbled_files(void **state)
{
    enum index_found found;
    char path[300], seal[300], good[300], goodseal[300];
    snprintf(path, sizeof(path), "%s/index.mdb", (char *)*state);
    snprintf(seal, sizeof(seal), "%s/index.sum", (char *)*state);
    snprintf(good, sizeof(good), "%s/good", (char *)*state);
    snprintf(goodseal, sizeof(goodseal), "%s/goodseal", (char *)*state);
    struct zc_index *x = open_index(*state, &found);
    fill(x, 0, 3000);
    index_put_listing(x, sum_of(1), 0, path, sizeof(path));
    index_flush(x);
    for (unsigned i = 0; i < 1000; i++)
        index_del_obj(x, ct_id(3 * i, 100));
    index_close(x, true, true);
    copy(path, good);
    copy(seal, goodseal);

    unsigned damaged = 0, readable = 0;
    for (unsigned i = 0; i < 200; i++) {
        bool sealed = i % 4 == 1;
        copy(good, path);
        unlink(seal);
        if (sealed)
            copy(goodseal, seal);
        scribble(path, i);
        x = open_index(*state, &found);
        if (sealed)
            assert_int_equal(found, INDEX_DAMAGED);
        if (found == INDEX_DOUBTED) {
            load(x);
            for (unsigned n = 0; n < 3000; n++) {
                struct zc_digest sum;
                int r = index_get_sum(x, ct_id(n, 100), 0, &sum);
                assert_true(r == 0 || r == 1);
                if (r == 1)
                    assert_true(zc_digest_eq(sum, sum_of(n)));
            }
            readable++;
        } else {
            damaged++;
            assert_int_equal(load(x).objects, 0);
        }
        fill(x, 10000, 500); /* and it can be written */
        index_flush(x);
        assert_false(index_broken(x));
        index_close(x, false, false);
    }
    print_message("200 scribbles: %u found damaged, %u hit nothing in use\n", damaged, readable);
    assert_true(damaged > 60);
}

static void test_damaged_seal(void **state)
{
    enum index_found found;
    char seal[300];
    snprintf(seal, sizeof(seal), "%s/index.sum", (char *)*state);
    struct zc_index *x = open_index(*state, &found);
    fill(x, 0, 10);
    index_close(x, true, true);
    scribble(seal, 1);
    x = open_index(*state, &found);
    assert_int_equal(found, INDEX_DAMAGED);
    index_close(x, true, true);
    x = open_index(*state, &found); /* and the one made anew is good */
    assert_int_equal(found, INDEX_TRUSTED);
    index_close(x, false, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_keeps_objects_over_a_close),
        CT_TEST(test_delete_takes_all_of_an_object),
        CT_TEST(test_a_new_sum_replaces_the_old),
        CT_TEST(test_listings),
        CT_TEST(test_other_settings_start_anew),
        CT_TEST(test_grows_its_map),
        CT_TEST(test_salvages_after_a_kill),
        CT_TEST(test_scribbled_files),
        CT_TEST(test_damaged_seal),
    };
    zc_log_set_level(ZC_LOG_ERR); /* damage is met on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
