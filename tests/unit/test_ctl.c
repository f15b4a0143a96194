/* SPDX-License-Identifier: Apache-2.0 */
/* The control socket with a file system that is only pretended, asked by the real client. */
#include "unit.h"

#include "base/buf.h"
#include "cli/client.h"
#include "http/ctl.h"
#include "http/ctl_body.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct fake {
    struct zc_ctl *ctl;
    char dir[64], sock[128];
    _Atomic int started, ended, polls;
    int steps; /* a job finishes after so many; -1: never */
    char last[256];
};

static json_t *fake_status(void *user)
{
    return json_pack("{s:i}", "answer", 42);
}

static int fake_warm_start(void *user, const struct zc_ctl_body *req, void **job,
                           struct zc_error *err)
{
    struct fake *f = user;
    if (strcmp(req->paths[0], "nothere") == 0)
        return zc_error_set(err, -ENOENT, "'nothere' \xff is not there");
    snprintf(f->last, sizeof(f->last), "%s %zu %u%s", req->paths[req->n - 1], req->n, req->parallel,
             req->cluster ? " all" : "");
    f->started++;
    f->polls = 0;
    *job = f;
    return 0;
}

static json_t *fake_warm_poll(void *user, void *job, int timeout_ms)
{
    struct fake *f = user;
    usleep(5000);
    int i = ++f->polls;
    return json_pack("{s:i s:b}", "files_done", i, "finished", i == f->steps);
}

static void fake_warm_end(void *user, void *job)
{
    struct fake *f = user;
    f->ended++;
}

static json_t *fake_free(void *user, const struct zc_ctl_body *req, struct zc_error *err)
{
    return json_pack("{s:i}", "files", (int)req->n);
}

static json_t *fake_cluster(void *user, const struct zc_ctl_body *req, struct zc_error *err)
{
    if (req && strcmp(req->paths[0], "nothere") == 0) {
        zc_error_set(err, -EINVAL, "no such path");
        return NULL;
    }
    return json_pack("{s:i}", "paths", req ? (int)req->n : -1);
}

static const struct zc_ctl_ops fake_ops = {fake_status,   fake_warm_start, fake_warm_poll,
                                           fake_warm_end, fake_free,       fake_cluster};

static int setup(void **state)
{
    struct fake *f = calloc(1, sizeof(*f));
    struct zc_error err = {0};
    strcpy(f->dir, "/tmp/zc-ctl-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->sock, sizeof(f->sock), "%s/run/x.sock", f->dir);
    f->steps = 3;
    *state = f;
    return zc_ctl_new(f->sock, &fake_ops, f, &f->ctl, &err);
}

static int teardown(void **state)
{
    struct fake *f = *state;
    char run[128];
    zc_ctl_free(f->ctl);
    assert_int_equal(access(f->sock, F_OK), -1);
    snprintf(run, sizeof(run), "%s/run", f->dir);
    rmdir(run);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void only_the_owner_may_connect(void **state)
{
    struct fake *f = *state;
    struct stat st;
    char run[128];
    assert_int_equal(stat(f->sock, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    snprintf(run, sizeof(run), "%s/run", f->dir);
    assert_int_equal(stat(run, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    assert_int_equal(zc_client_pid(f->sock), getpid());
}

static void status_and_free(void **state)
{
    struct fake *f = *state;
    struct zc_error err = {0};
    json_t *v = zc_client_json(f->sock, "/v1/status", NULL, &err);
    assert_int_equal(json_integer_value(json_object_get(v, "answer")), 42);
    json_decref(v);
    v = zc_client_json(f->sock, "/v1/free", "{\"paths\":[\"a\",\"b/c/\"]}", &err);
    assert_int_equal(json_integer_value(json_object_get(v, "files")), 2);
    json_decref(v);
    v = zc_client_json(f->sock, "/v1/cluster", NULL, &err);
    assert_int_equal(json_integer_value(json_object_get(v, "paths")), -1);
    json_decref(v);
    v = zc_client_json(f->sock, "/v1/cluster", "{\"paths\":[\"a\"]}", &err);
    assert_int_equal(json_integer_value(json_object_get(v, "paths")), 1);
    json_decref(v);
}

static void refusals_have_words(void **state)
{
    static const struct {
        const char *path, *body, *words;
    } cases[] = {
        {"/v1/nothing", NULL, "no such operation"},
        {"/v1/warm", NULL, "wrong method"},
        {"/v1/status", "{}", "wrong method"},
        {"/v1/free", "", "not JSON"},
        {"/v1/free", "[]", "must be a JSON object"},
        {"/v1/free", "{}", "names no paths"},
        {"/v1/free", "{\"paths\":[]}", "one path or more"},
        {"/v1/free", "{\"paths\":[1]}", "strings only"},
        {"/v1/free", "{\"paths\":[\"a/../b\"]}", "component"},
        {"/v1/free", "{\"paths\":[\"a\"],\"color\":1}", "'color'"},
        {"/v1/warm", "{\"paths\":[\"a\"],\"parallel\":-1}", "from 0 to 1024"},
        {"/v1/warm", "{\"paths\":[\"a\"],\"mark\":65536}", "from 0 to 65535"},
        {"/v1/warm", "{\"paths\":[\"a\"],\"cluster\":1}", "true or false"},
        {"/v1/cluster", "{\"paths\":[\"nothere\"]}", "no such path"},
        {"/v1/cluster", "{}", "names no paths"},
        {"/v1/warm", "{\"paths\":[\"nothere\"]}", "'nothere' ? is not there"},
    };
    struct fake *f = *state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_error err = {0};
        assert_null(zc_client_json(f->sock, cases[i].path, cases[i].body, &err));
        if (!strstr(err.text, cases[i].words))
            fail_msg("%s %s: '%s'", cases[i].path, cases[i].body, err.text);
    }
    assert_int_equal(f->started, 0);
}

static void too_large_a_request(void **state)
{
    struct fake *f = *state;
    struct zc_error err = {0};
    char *body = malloc(17 << 20);
    memset(body, ' ', 17 << 20);
    body[(17 << 20) - 1] = 0;
    assert_null(zc_client_json(f->sock, "/v1/free", body, &err));
    assert_non_null(strstr(err.text, "16 MiB"));
    free(body);
}

struct lines {
    int n;
    bool finished;
};

static void one_line(struct zc_call *c, const char *line, size_t n)
{
    struct lines *l = c->user;
    json_t *v = json_loadb(line, n, 0, NULL);
    assert_non_null(v);
    l->n++;
    l->finished = json_is_true(json_object_get(v, "finished"));
    json_decref(v);
}

static void warm_tells_each_step(void **state)
{
    struct fake *f = *state;
    struct lines l = {0};
    struct zc_call c = {.socket = f->sock,
                        .path = "/v1/warm",
                        .body = "{\"paths\":[\"/a/b/\"],\"parallel\":7}",
                        .line = one_line,
                        .user = &l};
    zc_client_run(&c, 1, NULL, NULL);
    assert_int_equal(c.result, 0);
    assert_int_equal(l.n, 3);
    assert_true(l.finished);
    assert_string_equal(f->last, "a/b 1 7");
    for (int i = 0; i < 100 && !f->ended; i++)
        usleep(10000);
    assert_int_equal(f->ended, 1);
}

static bool hang_up(void *user)
{
    struct fake *f = user;
    return f->polls > 3;
}

static void hanging_up_cancels(void **state)
{
    struct fake *f = *state;
    struct zc_call c = {.socket = f->sock, .path = "/v1/warm", .body = "{\"paths\":[\"\"]}"};
    f->steps = -1;
    zc_client_run(&c, 1, hang_up, f);
    assert_int_equal(c.result, -ECANCELED);
    for (int i = 0; i < 300 && !f->ended; i++)
        usleep(10000);
    assert_int_equal(f->ended, 1);
}

static void *run_forever(void *arg)
{
    struct fake *f = arg;
    struct zc_call c = {.socket = f->sock, .path = "/v1/warm", .body = "{\"paths\":[\"\"]}"};
    zc_client_run(&c, 1, NULL, NULL);
    return (void *)(intptr_t)c.result;
}

static void closing_ends_running_jobs(void **state)
{
    struct fake *f = *state;
    pthread_t t;
    void *result;
    f->steps = -1;
    assert_int_equal(pthread_create(&t, NULL, run_forever, f), 0);
    while (f->polls < 3)
        usleep(1000);
    zc_ctl_free(f->ctl);
    f->ctl = NULL;
    assert_int_equal(f->ended, 1);
    pthread_join(t, &result);
    assert_true((intptr_t)result < 0);
}

static void a_live_socket_is_not_taken_over(void **state)
{
    struct fake *f = *state;
    struct zc_ctl *other = NULL;
    struct zc_error err = {0};
    assert_int_equal(zc_ctl_new(f->sock, &fake_ops, f, &other, &err), -EADDRINUSE);
    assert_int_equal(zc_client_pid(f->sock), getpid());
}

static void a_dead_socket_is(void **state)
{
    struct fake *f = *state;
    struct zc_error err = {0};
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    zc_ctl_free(f->ctl);
    f->ctl = NULL;
    strcpy(sa.sun_path, f->sock);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
    close(fd);
    assert_null(zc_client_json(f->sock, "/v1/status", NULL, &err));
    assert_non_null(strstr(err.text, "daemon is gone"));
    assert_int_equal(zc_ctl_new(f->sock, &fake_ops, f, &f->ctl, &err), 0);
    assert_int_equal(zc_client_pid(f->sock), getpid());
}

static void others_folders_are_not_trusted(void **state)
{
    struct zc_ctl *c = NULL;
    struct zc_error err = {0};
    char dir[] = "/tmp/zc-open-XXXXXX", sock[64];
    assert_non_null(mkdtemp(dir));
    chmod(dir, 0777);
    snprintf(sock, sizeof(sock), "%s/x.sock", dir);
    assert_int_equal(zc_ctl_new(sock, &fake_ops, NULL, &c, &err), -EPERM);
    rmdir(dir);
}

static void sockets_have_one_name_a_mount(void **state)
{
    char *a = zc_ctl_path("/mnt/a"), *b = zc_ctl_path("/mnt/b"), *again = zc_ctl_path("/mnt/a");
    assert_string_equal(a, again);
    assert_string_not_equal(a, b);
    assert_true(strlen(a) < sizeof(((struct sockaddr_un *)0)->sun_path));
    free(a);
    free(b);
    free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(only_the_owner_may_connect, setup, teardown),
        cmocka_unit_test_setup_teardown(status_and_free, setup, teardown),
        cmocka_unit_test_setup_teardown(refusals_have_words, setup, teardown),
        cmocka_unit_test_setup_teardown(too_large_a_request, setup, teardown),
        cmocka_unit_test_setup_teardown(warm_tells_each_step, setup, teardown),
        cmocka_unit_test_setup_teardown(hanging_up_cancels, setup, teardown),
        cmocka_unit_test_setup_teardown(closing_ends_running_jobs, setup, teardown),
        cmocka_unit_test_setup_teardown(a_live_socket_is_not_taken_over, setup, teardown),
        cmocka_unit_test_setup_teardown(a_dead_socket_is, setup, teardown),
        cmocka_unit_test(others_folders_are_not_trusted),
        cmocka_unit_test(sockets_have_one_name_a_mount),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
