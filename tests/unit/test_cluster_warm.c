/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Warming on all nodes: three of them in one process, with caches of their own and one source, ask
 * each other by function calls. Each piece lands on the node that owns it, and nowhere else.
 */
#include "unit.h"

#include "backend/dir.h"
#include "cachetest.h"
#include "cli/cluster_warm.h"
#include "vfs/vfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define NODES 3
#define FILES 60
#define SMALL 10000
#define BIG (5 * ZC_CLUSTER_GROUP / 2) /* three pieces */

struct node {
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_vfs *v;
    struct zc_backend *be;
    struct zc_cluster *cluster;
    struct zc_warm_jobs *jobs;
    bool dead;
    int misses; /* polls that it does not answer */ /* does not answer */
};

struct world {
    char *dir;
    struct node nodes[NODES];
    unsigned asked;
};

static void source_make(const char *dir)
{
    char path[300];
    snprintf(path, sizeof(path), "%s/src", dir);
    mkdir(path, 0755);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(path, sizeof(path), "%s/src/f%u", dir, i);
        FILE *f = fopen(path, "w");
        assert_non_null(f);
        fprintf(f, "%0*u", SMALL, i);
        fclose(f);
    }
    snprintf(path, sizeof(path), "%s/src/big", dir);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    assert_true(fd >= 0 && ftruncate(fd, (off_t)BIG) == 0);
    close(fd);
}

static void node_new(struct world *w, unsigned i)
{
    struct node *n = &w->nodes[i];
    char path[300];
    snprintf(path, sizeof(path), "%s/cache%u", w->dir, i);
    struct zc_cache_config cc = ct_config(path);
    cc.size = ZC_GIB;
    n->cache = ct_open(&cc);
    struct zc_fetch_config fc = {.chunk_size = CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&fc, n->cache, &n->fetch), 0);
    struct zc_vfs_config vc = {.dir_mode = ZC_ID_UNSET};
    assert_int_equal(zc_vfs_new(&vc, n->cache, n->fetch, &n->v), 0);
    snprintf(path, sizeof(path), "%s/src", w->dir);
    struct zc_dir_config dc = {.path = path};
    assert_int_equal(zc_dirsrc_new(&dc, &n->be, NULL), 0);
    struct zc_vfs_source *s;
    struct zc_vfs_source_config sc = {.at = "",
                                      .be = n->be,
                                      .identity = "one",
                                      .ttl_ns = 60 * ZC_NS_PER_S,
                                      .negative_ttl_ns = -1,
                                      .uid = 1,
                                      .gid = 1,
                                      .file_mode = ZC_ID_UNSET,
                                      .dir_mode = ZC_ID_UNSET};
    assert_int_equal(zc_vfs_source_add(n->v, &sc, &s, NULL), 0);
    struct zc_cluster_node nodes[NODES] = {0};
    for (unsigned k = 0; k < NODES; k++) {
        memset(nodes[k].id, (int)(k * 17 + 1), ZC_NODE_ID);
        snprintf(nodes[k].name, ZC_NODE_NAME, "n%u", k);
        nodes[k].weight = nodes[k].nominal = 40;
        nodes[k].is_self = k == i;
    }
    assert_int_equal(zc_cluster_new_static(nodes, NODES, &n->cluster), 0);
    n->jobs = zc_warm_jobs_new();
    assert_non_null(n->jobs);
}

static void node_free(struct node *n)
{
    zc_warm_jobs_free(n->jobs);
    zc_vfs_shutdown(n->v);
    zc_vfs_free(n->v);
    zc_fetch_free(n->fetch);
    zc_backend_free(n->be);
    zc_cache_close(n->cache);
    zc_cluster_free(n->cluster);
}

static bool mine(void *user, struct zc_objid id, uint64_t off)
{
    struct node *n = user;
    struct zc_cluster_node first;
    assert_int_equal(zc_cluster_rank(n->cluster, zc_cluster_key(id.id, off), &first, 1), 1);
    return first.is_self;
}

static struct zc_warm *warm_part(struct node *n)
{
    static const char *const all[] = {""};
    struct zc_warm_part part = {.mine = mine, .user = n, .piece = ZC_CLUSTER_GROUP};
    struct zc_warm *w;
    assert_int_equal(zc_warm_start(n->v, all, 1, 8, &part, 0, &w), 0);
    return w;
}

static int ask(void *user, const struct zc_cluster_node *to, const char *op, const char *body,
               size_t n, int timeout_ms, struct zc_buf *reply, struct zc_error *err)
{
    struct world *w = user;
    struct node *node = &w->nodes[to->index];
    json_t *req = json_loadb(body, n, 0, NULL), *v = NULL;
    bool misses = node->misses > 0 && strcmp(op, "warm-poll") == 0;
    node->misses -= misses;
    if (node->dead || misses) {
        json_decref(req);
        return zc_error_set(err, -ETIMEDOUT, "no answer");
    }
    if (strcmp(op, "warm-start") == 0)
        v = zc_warm_jobs_add(node->jobs, warm_part(node));
    else if (strcmp(op, "warm-poll") == 0)
        v = zc_warm_jobs_poll(node->jobs, req, err);
    else if (strcmp(op, "warm-end") == 0)
        v = zc_warm_jobs_end(node->jobs, req, err);
    json_decref(req);
    if (!v)
        v = json_pack("{s:s}", "error", err->text);
    err->text[0] = 0;
    zc_autofree char *text = json_dumps(v, 0);
    json_decref(v);
    return zc_buf_adds(reply, text);
}

static int setup(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    w->dir = ct_mkdir();
    source_make(w->dir);
    for (unsigned i = 0; i < NODES; i++)
        node_new(w, i);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;
    for (unsigned i = 0; i < NODES; i++)
        node_free(&w->nodes[i]);
    ct_rmdir(w->dir);
    free(w);
    return 0;
}

static struct zc_warm_stats run(struct world *w)
{
    struct zc_calls calls = {.cluster = w->nodes[0].cluster, .ask = ask, .user = w};
    struct zc_cluster_warm *job;
    struct zc_warm_stats s;
    static const char *const all[] = {""};
    assert_int_equal(zc_cluster_warm_start(&calls, warm_part(&w->nodes[0]), all, 1, 8, &job), 0);
    do
        zc_cluster_warm_poll(job, 500, &s);
    while (!s.finished);
    zc_cluster_warm_end(job);
    return s;
}

struct sum {
    struct node *n;
    uint64_t bytes, objects;
};

static int sum_resident(void *user, const struct zc_cache_resident *r)
{
    struct sum *s = user;
    uint64_t own = 0;
    for (uint64_t at = 0; at < r->size; at += ZC_CLUSTER_GROUP)
        own += mine(s->n, r->id, at) ? ZC_MIN(ZC_CLUSTER_GROUP, r->size - at) : 0;
    assert_int_equal(r->bytes, own); /* just what this node owns */
    s->bytes += r->bytes;
    s->objects++;
    return 0;
}

static void test_each_warms_its_own(void **state)
{
    struct world *w = *state;
    const uint64_t all = FILES * SMALL + BIG;
    struct zc_warm_stats s = run(w);
    assert_string_equal(s.error, "");
    assert_int_equal(s.failed, 0);
    assert_true(s.listed);
    assert_int_equal(s.files_found, FILES + 1);
    assert_int_equal(s.files_done, FILES + 1);
    assert_int_equal(s.bytes_found, all);
    assert_int_equal(s.bytes_done, all);
    assert_int_equal(s.bytes_hit, 0);
    uint64_t bytes = 0;
    for (unsigned i = 0; i < NODES; i++) {
        struct sum sum = {.n = &w->nodes[i]};
        assert_int_equal(zc_cache_census(w->nodes[i].cache, sum_resident, &sum), 0);
        assert_true(sum.objects > FILES / NODES / 3);
        bytes += sum.bytes;
    }
    assert_int_equal(bytes, all);
    /* Again: the small ones are found there. */
    s = run(w);
    assert_int_equal(s.failed, 0);
    assert_int_equal(s.bytes_done, all);
    assert_true(s.files_hit >= FILES);
}

static void test_a_node_that_does_not_answer(void **state)
{
    struct world *w = *state;
    w->nodes[1].dead = true;
    struct zc_warm_stats s = run(w);
    assert_int_equal(s.failed, 1);
    assert_non_null(strstr(s.error, "node n1: no answer"));
    assert_true(s.bytes_done < FILES * SMALL + BIG);
    assert_true(s.files_done > FILES / 3);
}

/* It goes on with its part, and is asked again. */
static void test_a_node_that_misses_questions(void **state)
{
    struct world *w = *state;
    w->nodes[1].misses = 2;
    struct zc_warm_stats s = run(w);
    assert_string_equal(s.error, "");
    assert_int_equal(s.failed, 0);
    assert_int_equal(s.bytes_done, FILES * SMALL + BIG);
    assert_int_equal(w->nodes[1].misses, 0);
}

static void test_jobs(void **state)
{
    struct world *w = *state;
    struct node *n = &w->nodes[2];
    struct zc_error err = {0};
    json_t *job = zc_warm_jobs_add(n->jobs, warm_part(n));
    assert_non_null(job);
    json_t *v = zc_warm_jobs_poll(n->jobs, job, &err);
    assert_true(json_is_integer(json_object_get(v, "files_done")));
    json_decref(v);
    v = zc_warm_jobs_end(n->jobs, job, &err);
    assert_non_null(v);
    json_decref(v);
    assert_null(zc_warm_jobs_poll(n->jobs, job, &err));
    assert_non_null(strstr(err.text, "no such job"));
    assert_null(zc_warm_jobs_end(n->jobs, job, &err));
    json_decref(job);
    v = json_object();
    assert_null(zc_warm_jobs_poll(n->jobs, v, &err));
    json_decref(v);
    json_decref(zc_warm_jobs_add(n->jobs, warm_part(n))); /* ended by teardown */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_each_warms_its_own, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_node_that_does_not_answer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_node_that_misses_questions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_jobs, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
