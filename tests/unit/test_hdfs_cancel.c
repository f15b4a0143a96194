/* SPDX-License-Identifier: Apache-2.0 */
/* Requests of the HDFS source that are cancelled at every moment. */
#include "unit.h"

#include "backend/hdfs.h"
#include "net/net.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct cancels {
    struct zc_backend *be;
    struct zc_stat_req req[8000];
    atomic_uint started, ended, cancelled;
    atomic_bool over;
};

static void cancels_done(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct cancels *c = req->base.user;
    assert_true(err < 0);
    atomic_fetch_add(&c->ended, 1);
}

/* Follows the requests as they are started, now sooner, now later. */
static void *cancels_thread(void *arg)
{
    struct cancels *c = arg;
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(c->req); i++) {
        while (atomic_load(&c->started) <= i) {
            if (atomic_load(&c->over))
                return NULL;
            sched_yield();
        }
        for (volatile unsigned k = 0; k < i % 97 * 4; k++)
            continue;
        zc_backend_cancel(c->be, &c->req[i].base);
        atomic_store(&c->cancelled, i + 1);
    }
    return NULL;
}

static void cancels_run(const char *token_file, bool wait)
{
    struct zc_net *net;
    struct zc_net_config net_cfg = {.loops = 1};
    struct zc_hdfs_config cfg = {.scheme = ZC_HDFS_WEBHDFS,
                                 .authority = "127.0.0.1:1",
                                 .path = "",
                                 .token_file = token_file};
    struct cancels *c = calloc(1, sizeof(*c));
    struct zc_error err;
    pthread_t t;
    assert_int_equal(zc_net_new(&net_cfg, &net), 0);
    assert_int_equal(zc_hdfs_new(net, &cfg, &c->be, &err), 0);
    assert_int_equal(pthread_create(&t, NULL, cancels_thread, c), 0);
    unsigned n = 0;
    int64_t enough = zc_now_ns() + 3 * ZC_NS_PER_S; /* on a machine with much else to do */
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(c->req) && zc_now_ns() < enough; i++, n++) {
        c->req[i] = (struct zc_stat_req){.base.user = c, .path = "", .done = cancels_done};
        atomic_store(&c->started, i + 1);
        zc_backend_stat(c->be, &c->req[i]);
        int64_t until = zc_now_ns() + 20 * ZC_NS_PER_S;
        while (wait && atomic_load(&c->ended) <= i) {
            if (zc_now_ns() > until)
                fail_msg("request %u waits on though it was cancelled", i);
            sched_yield();
        }
        while (atomic_load(&c->cancelled) <= i)
            sched_yield();
    }
    atomic_store(&c->over, true);
    pthread_join(t, NULL);
    if (token_file && wait)
        close(open(token_file, O_WRONLY | O_NONBLOCK));
    while (atomic_load(&c->ended) < n)
        usleep(1000);
    zc_backend_free(c->be);
    zc_net_free(net);
    free(c);
}

/* A login that takes its time: its end is not what a cancelled request waits for. */
static void cancels_come_before_the_wait_or_in_it(void **state)
{
    char dir[] = "/tmp/zc-hdfs-XXXXXX", path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof(path), "%s/fifo", dir);
    assert_int_equal(mkfifo(path, 0600), 0);
    cancels_run(path, true);
    unlink(path);
    rmdir(dir);
}

/* A request that does not wait at all, and is gone while it is cancelled. For the sanitizers. */
static void cancels_meet_ends(void **state)
{
    cancels_run("/no/such/file", false);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cancels_come_before_the_wait_or_in_it),
        cmocka_unit_test(cancels_meet_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
