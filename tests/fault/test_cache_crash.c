/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process that uses the cache is killed at a random moment, again and again, in one folder. After
 * each kill the cache is opened anew and every chunk that it believes in is compared. Before some
 * of the opens somebody writes into the index or into a backing file.
 */
#include "cache/cache.h"

#include "../unit/cachetest.h"
#include "../unit/unit.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define OBJECTS 300u

static uint64_t object_size(unsigned n)
{
    switch (n % 10) {
    case 0:
        return 0;
    case 1:
        return 70 * CT_CHUNK + 1; /* more chunks than a word has bits */
    case 2:
    case 3:
        return 5 * CT_CHUNK + n;
    default:
        return 1000 + 37 * n;
    }
}

static struct zc_cache_config config(const char *dir)
{
    struct zc_cache_config cfg = ct_config(dir);
    cfg.size = 24 * ZC_MIB; /* about half of all: things are evicted */
    return cfg;
}

struct worker {
    struct zc_cache *c;
    unsigned seed;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    for (;;) {
        unsigned n = (unsigned)rand_r(&w->seed) % OBJECTS;
        struct zc_cobj *o;
        if (ct_hold(w->c, n, object_size(n), &o) < 0)
            continue;
        for (uint32_t i = 0; i < zc_cobj_chunks(o); i++) {
            if (!zc_cobj_has_chunk(o, i) && rand_r(&w->seed) % 4)
                ct_put(w->c, o, n, i);
        }
        if (rand_r(&w->seed) % 20 == 0)
            zc_cobj_drop(w->c, o);
        zc_cobj_release(w->c, o);
    }
    return NULL;
}

/* Lives until it is killed. Returns when the cache is open: what is damaged after an orderly end is
   not promised to be found. */
static pid_t start(const char *dir, unsigned seed)
{
    int ready[2];
    char byte = 0;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid != 0) {
        close(ready[1]);
        assert_int_equal(read(ready[0], &byte, 1), 1);
        close(ready[0]);
        return pid;
    }
    close(ready[0]);
    struct zc_cache_config cfg = config(dir);
    struct worker w[3];
    pthread_t t[3];
    struct zc_cache *c = ct_open(&cfg);
    for (unsigned i = 0; i < 3; i++) {
        w[i] = (struct worker){.c = c, .seed = seed * 3 + i};
        pthread_create(&t[i], NULL, work, &w[i]);
    }
    if (write(ready[1], &byte, 1) != 1)
        _exit(1);
    pause();
    _exit(0);
}

static void stop(pid_t pid)
{
    kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* The one folder under dir. */
static void folder(const char *dir, char out[300])
{
    struct zc_cache_config cfg = config(dir);
    snprintf(out, 300, "%s/%016llx", dir,
             (unsigned long long)zc_hash64(0, cfg.identity, strlen(cfg.identity)));
}

static __thread char victim[400];
static __thread unsigned victim_seed;

static int pick(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (type == FTW_F && strstr(path, "/objects/") && st->st_size > 0 &&
        rand_r(&victim_seed) % 20 == 0) {
        snprintf(victim, sizeof(victim), "%s", path);
        return 1;
    }
    return 0;
}

static void scribble(const char *path, unsigned *seed)
{
    struct stat st;
    uint8_t junk[64];
    int fd = open(path, O_RDWR);
    if (fd < 0)
        return;
    assert_int_equal(fstat(fd, &st), 0);
    off_t off = st.st_size ? rand_r(seed) % st.st_size : 0;
    size_t n = 1 + (size_t)rand_r(seed) % sizeof(junk);
    for (size_t i = 0; i < n; i++)
        junk[i] = (uint8_t)rand_r(seed);
    if (rand_r(seed) % 8 == 0)
        assert_int_equal(ftruncate(fd, off), 0);
    else
        assert_int_equal(pwrite(fd, junk, n, off), n);
    close(fd);
}

static uint64_t blocks;

static int add_blocks(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    if (type == FTW_F && strstr(path, "/objects/"))
        blocks += (uint64_t)st->st_blocks * 512;
    return 0;
}

struct result {
    unsigned complete, chunks, rebuilt, bad;
};

/* Everything that the cache says it has must be right, and be all that is on the disk. */
static void examine(const char *dir, struct result *r)
{
    struct zc_cache_config cfg = config(dir);
    char path[300];
    struct zc_cache *c = ct_open(&cfg);
    r->rebuilt += ct_stats(c).rebuilt;
    for (unsigned n = 0; n < OBJECTS; n++) {
        struct zc_cobj *o;
        int got = ct_check(c, n, object_size(n));
        assert_true(got >= 0);
        r->complete += got == 1;
        if (got == 1)
            continue;
        assert_int_equal(ct_hold(c, n, object_size(n), &o), 0);
        for (uint32_t i = 0; i < zc_cobj_chunks(o); i++) {
            if (!zc_cobj_has_chunk(o, i))
                continue;
            int checked = ct_checked(c, o, i);
            assert_true(checked >= 0);
            if (checked == 0)
                break;
            assert_true(ct_good(o, n, i));
            r->chunks++;
        }
        zc_cobj_release(c, o);
    }
    struct zc_cache_stats st = ct_stats(c);
    r->bad += (unsigned)st.bad_chunks;
    assert_true(st.used <= cfg.size);
    blocks = 0;
    folder(dir, path);
    nftw(path, add_blocks, 32, FTW_PHYS);
    assert_true(blocks <= st.used + OBJECTS * 8192); /* what a file system needs to map extents */
    zc_cache_close(c);
}

static void run(const char *dir, unsigned rounds, bool index, bool files)
{
    struct result r = {0};
    char path[400];
    unsigned seed = 1;
    for (unsigned i = 0; i < rounds; i++) {
        pid_t pid = start(dir, i);
        usleep(20000 + (useconds_t)rand_r(&seed) % 150000);
        stop(pid);
        folder(dir, path);
        if (files) {
            victim[0] = '\0';
            victim_seed = i;
            nftw(path, pick, 32, FTW_PHYS);
            if (victim[0])
                scribble(victim, &seed);
        }
        if (index) {
            strcat(path, "/index.mdb");
            scribble(path, &seed);
        }
        examine(dir, &r);
    }
    print_message(
        "%u kills: %u complete objects and %u chunks of others were right; index dropped %u times, "
        "bad chunks found %u\n",
        rounds, r.complete, r.chunks, r.rebuilt, r.bad);
    assert_true(r.complete + r.chunks > 0);
    if (!index)
        assert_int_equal(r.rebuilt, 0); /* a kill alone never costs the cache */
    /* Bad ones are found after a kill alone, too: an object was evicted and made anew, and the
       record of that was lost. With damage there must be some. */
    if (files && !index)
        assert_true(r.bad > 0);
}

static void test_killed(void **state)
{
    run(*state, 50, false, false);
}

static void test_killed_and_files_damaged(void **state)
{
    run(*state, 30, false, true);
}

static void test_killed_and_index_damaged(void **state)
{
    run(*state, 60, true, false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CT_TEST(test_killed),
        CT_TEST(test_killed_and_files_damaged),
        CT_TEST(test_killed_and_index_damaged),
    };
    zc_log_set_level(ZC_LOG_ERR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
