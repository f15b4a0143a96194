/* SPDX-License-Identifier: Apache-2.0 */
/* What a folder is when it is opened again: of several mounts, after an unclean end, refused. */
#include "cache/cache.h"

#include "base/log.h"
#include "cachetest.h"
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ------------------------------------------------------------------ folders */

static void test_without_keep_nothing_is_left(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    cfg.keep = false;
    struct zc_cache *c = ct_open(&cfg);
    ct_put_all(c, 1, 3 * CT_CHUNK);
    assert_true(ct_count(*state) > 0);
    zc_cache_close(c);
    assert_int_equal(ct_count(*state), 0);
}

static void test_two_mounts_of_one_source(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c[9], *more;
    struct zc_error err = {0};
    for (unsigned i = 0; i < 9; i++) {
        c[i] = ct_open(&cfg);
        ct_put_all(c[i], i, 100);
        assert_int_equal(ct_stats(c[i]).objects, 1);
    }
    assert_int_equal(zc_cache_open(&cfg, &more, &err), -EBUSY);
    assert_non_null(strstr(err.text, "--cache-dir"));
    for (unsigned i = 0; i < 9; i++)
        zc_cache_close(c[i]);
    for (unsigned i = 0; i < 9; i++) { /* and each is found again */
        c[i] = ct_open(&cfg);
        assert_int_equal(ct_check(c[i], i, 100), 1);
    }
    for (unsigned i = 0; i < 9; i++)
        zc_cache_close(c[i]);
}

static void crash_with(const struct zc_cache_config *cfg, unsigned from, unsigned n, uint64_t size)
{
    pid_t pid = fork();
    if (pid == 0) {
        struct zc_cache *c = ct_open(cfg);
        for (unsigned i = from; i < from + n; i++)
            ct_put_all(c, i, size);
        usleep(200000); /* the index's writer is done with it */
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
}

static void test_sweeps_what_crashes_left(void **state)
{
    struct zc_cache_config one = ct_config(*state), two = ct_config(*state),
                           kept = ct_config(*state);
    one.keep = two.keep = false;
    one.identity = "s3://one";
    two.identity = "s3://two";
    kept.identity = "s3://kept";
    crash_with(&one, 0, 10, 100);
    crash_with(&two, 0, 10, 100);
    crash_with(&kept, 0, 10, 100);
    struct zc_cache *c = ct_open(&one); /* its own, and the other that was not to be kept */
    assert_int_equal(ct_stats(c).objects, 0);
    zc_cache_close(c);
    assert_true(ct_count(*state) > 0);
    c = ct_open(&kept);
    assert_int_equal(ct_stats(c).objects, 10);
    kept.keep = false;
    zc_cache_close(c);
    c = ct_open(&kept); /* opened without keep: emptied */
    assert_int_equal(ct_stats(c).objects, 0);
    zc_cache_close(c);
    assert_int_equal(ct_count(*state), 0);
}

static void expect_words(const struct zc_cache_config *cfg, int code, const char *words)
{
    struct zc_cache *c = NULL;
    struct zc_error err = {0};
    assert_int_equal(zc_cache_open(cfg, &c, &err), code);
    assert_null(c);
    if (!strstr(err.text, words))
        fail_msg("\"%s\" does not say \"%s\"", err.text, words);
}

static void test_refusals(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400];
    cfg.chunk_size = 100000;
    expect_words(&cfg, -EINVAL, "power of two");
    cfg.chunk_size = 32 * ZC_KIB;
    expect_words(&cfg, -EINVAL, "64KiB");
    cfg.chunk_size = CT_CHUNK;
    snprintf(path, sizeof(path), "%s/file", (char *)*state);
    close(open(path, O_WRONLY | O_CREAT, 0600));
    cfg.dir = path;
    expect_words(&cfg, -ENOTDIR, "--cache-dir");
    snprintf(path, sizeof(path), "%s/file/below", (char *)*state);
    expect_words(&cfg, -ENOTDIR, "--cache-dir");
    cfg.dir = "/dev/shm/zcache-test-refused";
    cfg.allow_tmpfs = false;
    expect_words(&cfg, -EINVAL, "--allow-tmpfs");
    rmdir(cfg.dir);
}

/* ------------------------------------------------------------------ after an unclean end */

/* Of a cache that is not open. */
static void damage(const char *dir, unsigned n, uint64_t size)
{
    char path[400], hex[ZC_DIGEST_HEX + 1];
    struct zc_cache_config cfg = ct_config(dir);
    zc_digest_hex(hex, ct_id(n, size).id);
    snprintf(path, sizeof(path), "%s/%016llx/objects/%.2s/%s", dir,
             (unsigned long long)zc_hash64(0, cfg.identity, strlen(cfg.identity)), hex, hex);
    int fd = open(path, O_WRONLY);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, "?", 1, (off_t)size - 1), 1);
    close(fd);
}

static void test_checks_after_a_crash(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    uint64_t size = CT_CHUNK + 17;
    struct zc_cobj *o;
    crash_with(&cfg, 0, 20, size);
    damage(*state, 3, size);
    damage(*state, 4, size);
    struct zc_cache *c = ct_open(&cfg);
    assert_false(ct_stats(c).rebuilt);
    assert_int_equal(ct_check(c, 3, size), 0);
    assert_int_equal(ct_hold(c, 4, size, &o), 0); /* made anew */
    assert_false(zc_cobj_has_chunk(o, 0));
    zc_cobj_release(c, o);
    assert_int_equal(ct_check(c, 5, size), 1);
    assert_true(zc_cache_has(c, ct_id(5, size)));
    struct zc_cache_stats st = ct_stats(c);
    assert_int_equal(st.bad_chunks, 2);
    assert_int_equal(st.objects, 18);
    assert_int_equal(st.used, 18 * (CT_CHUNK + 4096));
    zc_cache_close(c);
}

/* So large that reading it back takes many seconds: it is held at once, whoever stops stops at
   once, and each chunk is checked before it is used. The bytes are zeros that take no room. */
static void test_a_large_one_is_checked_in_pieces(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    enum { CHUNKS = 1000 };
    struct zc_cobj *o;
    cfg.chunk_size = 64 * ZC_MIB;
    cfg.size = 1ULL << 40;
    cfg.free_ratio = 0;
    uint64_t size = CHUNKS * cfg.chunk_size;
    pid_t pid = fork();
    if (pid == 0) {
        struct zc_cache *c = ct_open(&cfg);
        uint8_t *zeros = calloc(1, cfg.chunk_size);
        struct zc_digest sum = zc_digest_of(CT_SEED, zeros, cfg.chunk_size);
        ct_hold(c, 1, size, &o);
        for (uint32_t i = 0; i < CHUNKS; i++)
            zc_cobj_commit(c, o, i, sum);
        while (zc_cobj_sum(c, o, CHUNKS - 1, &sum) !=
               1) /* until the index's writer is done with it */
            usleep(10000);
        kill(getpid(), SIGKILL);
    }
    waitpid(pid, NULL, 0);
    struct zc_cache *c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).complete, 1);
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o), 1);
    assert_true(zc_cobj_doubted(o));
    assert_true(ct_stats(c).checked_chunks < CHUNKS / 2);
    assert_int_equal(zc_cobj_check(c, o, 0), 1);
    struct zc_cloan loan;
    assert_false(zc_cobj_lend(c, o, 1, &loan));
    zc_cobj_release(c, o);
    assert_false(zc_cache_has(c, ct_id(1, size)));
    uint64_t before = ct_stats(c).checked_chunks;
    assert_true(before < CHUNKS / 2);
    zc_cache_close(c);
    c = ct_open(&cfg); /* not all was checked: it is doubted again */
    assert_int_equal(zc_cache_hold_complete(c, ct_id(1, size), &o), 1);
    assert_true(zc_cobj_doubted(o));
    zc_cobj_trust(c, o);
    zc_cobj_release(c, o);
    assert_true(zc_cache_has(c, ct_id(1, size)));
    zc_cache_close(c);
}

/* Nobody asks, and still all are checked, the partial ones too; then the cache is as good as any.
 */
static void test_checks_by_itself(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    uint64_t size = CT_CHUNK + 17;
    struct zc_cobj *o;
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 50; n < 53; n++) {
        ct_hold(c, n, 100 * CT_CHUNK, &o);
        ct_put(c, o, n, 70);
        zc_cobj_release(c, o);
    }
    zc_cache_close(c);
    crash_with(&cfg, 0, 20, size);
    damage(*state, 3, size);
    c = ct_open(&cfg);
    /* 20 objects of two chunks, three of one */
    for (int i = 0; i < 500 && ct_stats(c).checked_chunks < 43; i++)
        usleep(10000);
    usleep(50000);
    for (unsigned n = 0; n < 20; n++)
        assert_int_equal(zc_cache_has(c, ct_id(n, size)), n != 3);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).objects, 22);
    assert_int_equal(ct_check(c, 5, size), 1);
    assert_int_equal(ct_hold(c, 51, 100 * CT_CHUNK, &o), 0);
    assert_true(zc_cobj_has_chunk(o, 70) && ct_good(o, 51, 70));
    zc_cobj_release(c, o);
    assert_int_equal(ct_stats(c).checked_chunks, 0);
    zc_cache_close(c);
}

static void test_strays_after_a_crash(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400], stray[400];
    crash_with(&cfg, 0, 5, 100);
    struct zc_cache *c = ct_open(&cfg);
    ct_object_path(c, 77, 100, stray);
    ct_object_path(c, 1, 100, path);
    zc_cache_close(c); /* with objects not yet checked: doubted again */
    close(open(stray, O_WRONLY | O_CREAT, 0600));
    unlink(path);
    crash_with(&cfg, 5, 1, 100);
    c = ct_open(&cfg);
    assert_int_equal(ct_stats(c).objects, 5);
    assert_int_equal(ct_stats(c).used, 5 * 4096);
    assert_int_equal(access(stray, F_OK), -1);
    zc_cache_close(c);
}

static void test_clean_remount_checks_nothing(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned n = 0; n < 10; n++)
        ct_put_all(c, n, 100);
    zc_cache_close(c);
    c = ct_open(&cfg);
    for (unsigned n = 0; n < 10; n++) {
        assert_true(zc_cache_has(c, ct_id(n, 100)));
        assert_int_equal(ct_check(c, n, 100), 1);
    }
    assert_int_equal(ct_stats(c).checked_chunks, 0);
    zc_cache_close(c);
}

static void test_damaged_index_is_rebuilt(void **state)
{
    struct zc_cache_config cfg = ct_config(*state);
    char path[400];
    struct zc_cache *c = ct_open(&cfg);
    ct_put_all(c, 1, 100);
    snprintf(path, sizeof(path), "%s/index.mdb", ct_stats(c).dir);
    zc_cache_close(c);
    assert_int_equal(truncate(path, 5000), 0);
    c = ct_open(&cfg);
    struct zc_cache_stats st = ct_stats(c);
    assert_true(st.rebuilt);
    assert_int_equal(st.objects, 0);
    ct_object_path(c, 1, 100, path);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(ct_put_all(c, 1, 100), 0);
    zc_cache_close(c);
    c = ct_open(&cfg);
    assert_false(ct_stats(c).rebuilt);
    assert_int_equal(ct_check(c, 1, 100), 1);
    zc_cache_close(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_without_keep_nothing_is_left),
        CT_TEST(test_two_mounts_of_one_source),
        CT_TEST(test_sweeps_what_crashes_left),
        CT_TEST(test_refusals),
        CT_TEST(test_checks_after_a_crash),
        CT_TEST(test_a_large_one_is_checked_in_pieces),
        CT_TEST(test_checks_by_itself),
        CT_TEST(test_strays_after_a_crash),
        CT_TEST(test_clean_remount_checks_nothing),
        CT_TEST(test_damaged_index_is_rebuilt),
    };
    zc_log_set_level(ZC_LOG_ERR); /* damage is met on purpose */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
