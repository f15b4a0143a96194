/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the cache: a scratch directory, objects with bytes that say which they are. */
#ifndef ZC_TESTS_CACHETEST_H
#define ZC_TESTS_CACHETEST_H

#include "cache/cache.h"

#define CT_SEED 42
#define CT_CHUNK (64 * ZC_KIB)

/* A new directory below TMPDIR (or /tmp); freed with ct_rmdir, which removes what is in it. */
char *ct_mkdir(void);
void ct_rmdir(char *take_dir);
/* A test with such a directory as its state. */
int ct_setup(void **state);
int ct_teardown(void **state);
#define CT_TEST(f) cmocka_unit_test_setup_teardown(f, ct_setup, ct_teardown)
/* Number of entries of any kind below dir. */
unsigned ct_count(const char *dir);

/* Room to spare, 64 KiB chunks. */
struct zc_cache_config ct_config(const char *dir);
/* Opens, or ends the test. */
struct zc_cache *ct_open(const struct zc_cache_config *cfg);

struct zc_objid ct_id(unsigned n, uint64_t size);
/* Where the backing file of a complete object n is. */
void ct_object_path(struct zc_cache *c, unsigned n, uint64_t size, char out[400]);
/* The bytes [off, off + len) of object n. */
void ct_fill(unsigned n, uint64_t off, uint8_t *buf, size_t len);
/* Holds object n, or negative errno. */
int ct_hold(struct zc_cache *c, unsigned n, uint64_t size, struct zc_cobj **out);
/* Reserves, writes and commits a chunk of object n. As zc_cobj_commit, or negative errno. */
int ct_put(struct zc_cache *c, struct zc_cobj *o, unsigned n, uint32_t chunk);
/* Holds, writes all chunks, releases: 0 or negative errno. */
int ct_put_all(struct zc_cache *c, unsigned n, uint64_t size);
/* Are the bytes of chunk right? */
bool ct_good(struct zc_cobj *o, unsigned n, uint32_t chunk);
/* Checks a chunk that an unclean end has left, if it is doubted. 1: good; 0: it was not what was
   written, and the object was dropped; negative errno. */
int ct_checked(struct zc_cache *c, struct zc_cobj *o, uint32_t chunk);
/* Holds object n if it is complete: 1 and all bytes right, 0 when it is not there or was found bad,
   -EILSEQ when a byte is wrong. */
int ct_check(struct zc_cache *c, unsigned n, uint64_t size);
struct zc_cache_stats ct_stats(struct zc_cache *c);

#endif
