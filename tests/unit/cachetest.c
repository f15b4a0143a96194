/* SPDX-License-Identifier: Apache-2.0 */
#include "cachetest.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define DIE_IF(cond)                                                                               \
    do {                                                                                           \
        if (cond) {                                                                                \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #cond, strerror(errno));        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

char *ct_mkdir(void)
{
    const char *base = getenv("TMPDIR");
    char *dir;
    DIE_IF(asprintf(&dir, "%s/zcache-test-XXXXXX", base && *base ? base : "/tmp") < 0);
    DIE_IF(!mkdtemp(dir));
    return dir;
}

static int ct_remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

void ct_rmdir(char *take_dir)
{
    nftw(take_dir, ct_remove_one, 32, FTW_DEPTH | FTW_PHYS);
    free(take_dir);
}

int ct_setup(void **state)
{
    *state = ct_mkdir();
    return 0;
}

int ct_teardown(void **state)
{
    ct_rmdir(*state);
    return 0;
}

static __thread unsigned ct_counted;

static int ct_count_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    ct_counted += ftw->level > 0;
    return 0;
}

unsigned ct_count(const char *dir)
{
    ct_counted = 0;
    nftw(dir, ct_count_one, 32, FTW_PHYS);
    return ct_counted;
}

struct zc_cache_config ct_config(const char *dir)
{
    return (struct zc_cache_config){
        .dir = dir,
        .identity = "s3://test/data",
        .size = 64 * ZC_MIB,
        .chunk_size = CT_CHUNK,
        .seed = CT_SEED,
        .keep = true,
        .allow_tmpfs = true,
    };
}

struct zc_cache *ct_open(const struct zc_cache_config *cfg)
{
    struct zc_cache *c = NULL;
    struct zc_error err = {0};
    if (zc_cache_open(cfg, &c, &err) < 0) {
        fprintf(stderr, "zc_cache_open: %s\n", err.text);
        abort();
    }
    return c;
}

static void ct_path(unsigned n, char out[32])
{
    snprintf(out, 32, "dir%u/file%u", n % 10, n);
}

struct zc_objid ct_id(unsigned n, uint64_t size)
{
    char path[32];
    ct_path(n, path);
    return zc_objid_of("s3://test/data", path, "v1", size);
}

void ct_object_path(struct zc_cache *c, unsigned n, uint64_t size, char out[400])
{
    char hex[ZC_DIGEST_HEX + 1];
    zc_digest_hex(hex, ct_id(n, size).id);
    snprintf(out, 400, "%s/objects/%.2s/%s", ct_stats(c).dir, hex, hex);
}

void ct_fill(unsigned n, uint64_t off, uint8_t *buf, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        uint64_t word =
            ((off + i) / 8 + 1) * 0x9e3779b97f4a7c15u + (uint64_t)(n + 1) * 0xc2b2ae3d27d4eb4fu;
        buf[i] = (uint8_t)(word >> 8 * ((off + i) % 8));
    }
}

int ct_hold(struct zc_cache *c, unsigned n, uint64_t size, struct zc_cobj **out)
{
    char path[32];
    ct_path(n, path);
    return zc_cache_hold(c, ct_id(n, size), "s3://test/data", path, size, out);
}

int ct_put(struct zc_cache *c, struct zc_cobj *o, unsigned n, uint32_t chunk)
{
    static __thread uint8_t buf[CT_CHUNK]; /* tests make malloc fail */
    size_t len = zc_cobj_chunk_len(o, chunk);
    int r = zc_cobj_reserve(c, o, len);
    if (r < 0)
        return r;
    ct_fill(n, chunk * CT_CHUNK, buf, len);
    DIE_IF(pwrite(zc_cobj_fd(o), buf, len, (off_t)(chunk * CT_CHUNK)) != (ssize_t)len);
    return zc_cobj_commit(c, o, chunk, zc_digest_of(CT_SEED, buf, len));
}

int ct_put_all(struct zc_cache *c, unsigned n, uint64_t size)
{
    struct zc_cobj *o;
    int r = ct_hold(c, n, size, &o);
    if (r < 0)
        return r;
    for (uint32_t i = 0; i < zc_cobj_chunks(o) && r >= 0; i++) {
        if (!zc_cobj_has_chunk(o, i))
            r = ct_put(c, o, n, i);
    }
    zc_cobj_release(c, o);
    return r < 0 ? r : 0;
}

bool ct_good(struct zc_cobj *o, unsigned n, uint32_t chunk)
{
    static __thread uint8_t want[CT_CHUNK], is[CT_CHUNK];
    size_t len = zc_cobj_chunk_len(o, chunk);
    ct_fill(n, chunk * CT_CHUNK, want, len);
    /* pread, by a name that a test which makes pread fail leaves alone */
    long got = syscall(SYS_pread64, zc_cobj_fd(o), is, len, (off_t)(chunk * CT_CHUNK));
    return got == (long)len && memcmp(want, is, len) == 0;
}

int ct_checked(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk)
{
    int r = zc_cobj_doubted(o) ? zc_cobj_check(c, o, chunk) : 1;
    if (r == 0)
        zc_cobj_drop(c, o);
    return r;
}

int ct_check(struct zc_cache *c, unsigned n, uint64_t size)
{
    struct zc_cobj *o;
    int r = zc_cache_hold_complete(c, ct_id(n, size), &o);
    if (r != 1)
        return r;
    for (uint32_t i = 0; i < zc_cobj_chunks(o) && r == 1; i++) {
        r = ct_checked(c, o, i);
        if (r == 1)
            r = ct_good(o, n, i) ? 1 : -EILSEQ;
    }
    zc_cobj_release(c, o);
    return r;
}

struct zc_cache_stats ct_stats(struct zc_cache *c)
{
    struct zc_cache_stats st;
    zc_cache_get_stats(c, &st);
    return st;
}
