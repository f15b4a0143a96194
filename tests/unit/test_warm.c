/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A warm job of more files than it looks ahead. The source answers listings at once, and GETs, with
 * a refusal, when it is told to.
 */
#include "unit.h"

#include "cachetest.h"
#include "vfs/vfs.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define DIRS 12
#define FILES 1000 /* in each */
#define PARALLEL 4
#define AHEAD (1024 * PARALLEL)

struct many {
    struct zc_backend be;
    struct zc_backend_stats stats;
    pthread_mutex_t lock;
    struct zc_get_req *held[PARALLEL + 1];
    unsigned n;
    bool refuse; /* at once */
    _Atomic unsigned lists;
};

static struct many *many_of(struct zc_backend *be)
{
    return zc_container_of(be, struct many, be);
}

static int many_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void many_list(struct zc_backend *be, struct zc_list_req *req)
{
    char(*names)[8] = calloc(FILES, sizeof(*names));
    struct zc_entry *e = calloc(FILES, sizeof(*e));
    bool top = req->path[0] == 0;
    size_t n = top ? DIRS : FILES;
    for (size_t i = 0; i < n; i++) {
        snprintf(names[i], sizeof(names[i]), "%zu", i);
        e[i] = (struct zc_entry){.name = names[i],
                                 .attr = {.kind = top ? ZC_KIND_DIR : ZC_KIND_FILE,
                                          .size = top ? 0 : 100,
                                          .version = top ? "" : "v"}};
    }
    many_of(be)->lists++;
    req->done(req, 0, e, n, NULL, 0);
    free(e);
    free(names);
}

static void many_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    req->done(req, -ENOENT, NULL);
}

static void many_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct many *m = many_of(be);
    pthread_mutex_lock(&m->lock);
    bool refuse = m->refuse;
    if (!refuse) {
        assert_true(m->n < ZC_ARRAY_SIZE(m->held));
        m->held[m->n++] = req;
    }
    pthread_mutex_unlock(&m->lock);
    if (refuse)
        req->done(req, -EACCES);
}

static void many_free(struct zc_backend *be)
{
    struct many *m = many_of(be);
    pthread_mutex_destroy(&m->lock);
    free(be->url);
    free(m);
}

static const struct zc_backend_ops many_ops = {.name = "many",
                                               .probe = many_probe,
                                               .list = many_list,
                                               .stat = many_stat,
                                               .get = many_get,
                                               .free = many_free};

struct world {
    char *dir;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_vfs *v;
    struct many *m;
};

static void world_open(struct world *w)
{
    *w = (struct world){.dir = ct_mkdir(), .m = calloc(1, sizeof(*w->m))};
    w->m->be = (struct zc_backend){
        .ops = &many_ops, .url = strdup("many:"), .stats = &w->m->stats, .part_limit = 64};
    pthread_mutex_init(&w->m->lock, NULL);
    struct zc_cache_config cc = ct_config(w->dir);
    w->cache = ct_open(&cc);
    struct zc_fetch_config fc = {.chunk_size = CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&fc, w->cache, &w->fetch), 0);
    struct zc_vfs_config vc = {.dir_mode = ZC_ID_UNSET};
    assert_int_equal(zc_vfs_new(&vc, w->cache, w->fetch, &w->v), 0);
    struct zc_vfs_source *s;
    struct zc_vfs_source_config sc = {.at = "",
                                      .be = &w->m->be,
                                      .identity = "many",
                                      .ttl_ns = 600 * ZC_NS_PER_S,
                                      .negative_ttl_ns = -1,
                                      .uid = 1,
                                      .gid = 1,
                                      .file_mode = ZC_ID_UNSET,
                                      .dir_mode = ZC_ID_UNSET};
    assert_int_equal(zc_vfs_source_add(w->v, &sc, &s, NULL), 0);
}

static void world_close(struct world *w)
{
    zc_vfs_shutdown(w->v);
    zc_vfs_free(w->v);
    zc_fetch_free(w->fetch);
    zc_backend_free(&w->m->be);
    zc_cache_close(w->cache);
    ct_rmdir(w->dir);
}

static struct zc_warm *warm(struct world *w)
{
    static const char *const all[] = {""};
    struct zc_warm *job;
    assert_int_equal(zc_warm_start(w->v, all, 1, PARALLEL, NULL, 0, &job), 0);
    return job;
}

/* Until the walker waits, and for a moment more. */
static struct zc_warm_stats looked_ahead(struct zc_warm *job)
{
    struct zc_warm_stats s;
    do {
        zc_warm_poll(job, 1, &s);
    } while (s.files_found < AHEAD && !s.listed);
    usleep(200000);
    zc_warm_poll(job, 1, &s);
    return s;
}

static void refuse_all(struct many *m)
{
    pthread_mutex_lock(&m->lock);
    m->refuse = true;
    while (m->n) {
        struct zc_get_req *req = m->held[--m->n];
        pthread_mutex_unlock(&m->lock);
        req->done(req, -EACCES);
        pthread_mutex_lock(&m->lock);
    }
    pthread_mutex_unlock(&m->lock);
}

static void test_the_walker_waits(void **state)
{
    struct world w;
    world_open(&w);
    struct zc_warm *job = warm(&w);
    struct zc_warm_stats s = looked_ahead(job);
    assert_false(s.listed);
    assert_true(s.files_found <= AHEAD + PARALLEL);
    refuse_all(w.m);
    do {
        zc_warm_poll(job, 1000, &s);
    } while (!s.finished);
    assert_true(s.listed);
    assert_int_equal(s.files_found, DIRS * FILES);
    assert_int_equal(s.failed, DIRS * FILES);
    assert_int_equal(w.m->lists, DIRS + 1);
    zc_warm_end(job);
    world_close(&w);
}

static void *refuse_main(void *arg)
{
    usleep(50000);
    refuse_all(arg);
    return NULL;
}

static void test_ended_while_it_waits(void **state)
{
    struct world w;
    pthread_t t;
    world_open(&w);
    struct zc_warm *job = warm(&w);
    assert_false(looked_ahead(job).listed);
    pthread_create(&t, NULL, refuse_main, w.m);
    zc_warm_end(job);
    pthread_join(t, NULL);
    world_close(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_walker_waits),
        cmocka_unit_test(test_ended_while_it_waits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
