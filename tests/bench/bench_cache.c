/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the cache's own book-keeping costs: each line beside the bare system calls for the same
 * files, measured in the same run. Usage: bench_cache DIRECTORY [OBJECTS]. Nothing is asserted.
 */
#include "cache/cache.h"

#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define SIZE 5000
#define CHUNK (4 * ZC_MIB)
#define SEED 7

static unsigned objects = 20000;
static unsigned generation; /* in the names, so that each fill is of new objects */

static struct zc_objid object_id(unsigned n, char path[40])
{
    snprintf(path, 40, "%u/n%04u/%u.jpg", generation, n % 1000, n);
    return zc_objid_of("s3://bench", path, "v", SIZE);
}

static void say(const char *what, int64_t ns, int64_t native_ns)
{
    printf("%-34s %9.0f ns each", what, (double)ns / objects);
    if (native_ns)
        printf("   %5.2f of the bare calls", (double)ns / (double)native_ns);
    printf("\n");
}

static void die(const char *what)
{
    fprintf(stderr, "%s: %s\n", what, strerror(errno));
    exit(1);
}

static struct zc_cache *bench_open(const char *dir, uint64_t size)
{
    struct zc_cache_config cfg = {.dir = dir,
                                  .identity = "s3://bench",
                                  .size = size,
                                  .chunk_size = CHUNK,
                                  .seed = SEED,
                                  .keep = true,
                                  .allow_tmpfs = true};
    struct zc_cache *c;
    struct zc_error err = {0};
    int64_t t = zc_now_ns();
    if (zc_cache_open(&cfg, &c, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        exit(1);
    }
    struct zc_cache_stats st;
    zc_cache_get_stats(c, &st);
    printf("open with %7llu objects            %9.1f ms\n", (unsigned long long)st.objects,
           (double)(zc_now_ns() - t) / 1e6);
    return c;
}

/* The same files by bare calls, in 256 folders as well. */
static int64_t native_write(int root)
{
    char path[40], bytes[SIZE];
    for (unsigned i = 0; i < 256; i++) {
        snprintf(path, sizeof(path), "%02x", i);
        if (mkdirat(root, path, 0700) < 0)
            die(path);
    }
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++) {
        snprintf(path, sizeof(path), "%02x/%u", n % 256, n);
        memset(bytes, (int)n, sizeof(bytes));
        int fd = openat(root, path, O_RDWR | O_CREAT | O_EXCL, 0600);
        if (fd < 0 || ftruncate(fd, SIZE) < 0 || pwrite(fd, bytes, SIZE, 0) != SIZE)
            die(path);
        zc_digest_of(SEED, bytes, SIZE);
        close(fd);
    }
    return zc_now_ns() - t;
}

static int64_t native_open(int root)
{
    char path[40];
    struct stat st;
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++) {
        snprintf(path, sizeof(path), "%02x/%u", n % 256, n);
        int fd = openat(root, path, O_RDONLY);
        if (fd < 0 || fstat(fd, &st) < 0)
            die(path);
        close(fd);
    }
    return zc_now_ns() - t;
}

static int64_t native_unlink(int root)
{
    char path[40];
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++) {
        snprintf(path, sizeof(path), "%02x/%u", n % 256, n);
        unlinkat(root, path, 0);
    }
    t = zc_now_ns() - t;
    for (unsigned i = 0; i < 256; i++) {
        snprintf(path, sizeof(path), "%02x", i);
        unlinkat(root, path, AT_REMOVEDIR);
    }
    return t;
}

static int64_t cache_write(struct zc_cache *c)
{
    char path[40], bytes[SIZE];
    struct zc_cobj *o;
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++) {
        struct zc_objid id = object_id(n, path);
        memset(bytes, (int)n, sizeof(bytes));
        if (zc_cache_hold(c, id, "s3://bench", path, SIZE, &o) < 0 ||
            zc_cobj_reserve(c, o, SIZE) < 0 || pwrite(zc_cobj_fd(o), bytes, SIZE, 0) != SIZE ||
            zc_cobj_commit(c, o, 0, zc_digest_of(SEED, bytes, SIZE)) != 1)
            die(path);
        zc_cobj_release(c, o);
    }
    return zc_now_ns() - t;
}

static int64_t cache_hold(struct zc_cache *c)
{
    char path[40];
    struct zc_cobj *o;
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++) {
        struct zc_objid id = object_id(n, path);
        if (zc_cache_hold_complete(c, id, &o) != 1)
            die(path);
        zc_cobj_release(c, o);
    }
    return zc_now_ns() - t;
}

static int64_t cache_has(struct zc_cache *c)
{
    char path[40];
    struct zc_objid *ids = calloc(objects, sizeof(*ids));
    if (!ids)
        die("calloc");
    for (unsigned n = 0; n < objects; n++)
        ids[n] = object_id(n, path);
    unsigned found = 0;
    int64_t t = zc_now_ns();
    for (unsigned n = 0; n < objects; n++)
        found += zc_cache_has(c, ids[n]);
    t = zc_now_ns() - t;
    free(ids);
    if (found != objects)
        die("zc_cache_has");
    return t;
}

int main(int argc, char **argv)
{
    char native[4096];
    if (argc < 2) {
        fprintf(stderr, "usage: bench_cache DIRECTORY [OBJECTS]\n");
        return 2;
    }
    if (argc > 2)
        objects = (unsigned)strtoul(argv[2], NULL, 10);
    snprintf(native, sizeof(native), "%s/native", argv[1]);
    mkdir(argv[1], 0700);
    if (mkdir(native, 0700) < 0)
        die(native);
    int root = open(native, O_RDONLY | O_DIRECTORY);
    int64_t nw = native_write(root), no = native_open(root), nu = native_unlink(root);
    close(root);
    rmdir(native);

    struct zc_cache *c = bench_open(argv[1], ZC_GIB * 100);
    say("hold, write, commit, release", cache_write(c), nw);
    say("hold_complete, release", cache_hold(c), no);
    say("has", cache_has(c), 0);
    zc_cache_close(c);
    c = bench_open(argv[1], ZC_GIB * 100);
    say("hold_complete, release", cache_hold(c), no);
    zc_cache_close(c);
    generation++;
    c = bench_open(argv[1], (uint64_t)objects / 4 * 8192);
    say("the same with evictions", cache_write(c), nw);
    zc_cache_close(c);
    generation++;
    c = bench_open(argv[1], (uint64_t)objects * 8192);
    cache_write(c);
    zc_cache_close(c);

    struct zc_cache_config cfg = {.dir = argv[1],
                                  .identity = "s3://bench",
                                  .size = ZC_GIB,
                                  .chunk_size = CHUNK,
                                  .seed = SEED,
                                  .allow_tmpfs = true};
    int64_t t = zc_now_ns();
    if (zc_cache_open(&cfg, &c, NULL) < 0)
        die("zc_cache_open");
    zc_cache_close(c);
    say("remove", zc_now_ns() - t, nu);
    return 0;
}
