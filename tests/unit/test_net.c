/* SPDX-License-Identifier: Apache-2.0 */
/* The network room against a server in the same process. */
#include "net/net.h"

#include "httptest.h"
#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

struct fixture {
    struct ht_server *server;
    struct zc_net *net;
    unsigned loops, connections;
};

/* ---- the server ---- */

static bool serve_chunked(int fd, size_t n)
{
    unsigned char buf[3000];
    char head[32];
    if (!ht_write(fd, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", 47))
        return false;
    for (size_t at = 0; at < n;) {
        size_t k = ZC_MIN(n - at, sizeof(buf));
        ht_fill(buf, at, k);
        int h = snprintf(head, sizeof(head), "%zx\r\n", k);
        if (!ht_write(fd, head, (size_t)h) || !ht_write(fd, buf, k) || !ht_write(fd, "\r\n", 2))
            return false;
        at += k;
    }
    return ht_write(fd, "0\r\n\r\n", 5);
}

static void serve_stall(int fd)
{
    char c;
    while (read(fd, &c, 1) > 0)
        ;
}

static bool serve(void *user, int fd, const struct ht_request *req)
{
    const char *t = req->target;
    size_t n = strtoul(strrchr(t, '/') + 1, NULL, 10);
    zc_autofree unsigned char *body = malloc(n + 64);
    ht_fill(body, 0, n + 64);
    if (strncmp(t, "/body/", 6) == 0)
        return ht_reply(fd, 200, NULL, strcmp(req->method, "HEAD") == 0 ? NULL : body, n);
    if (strncmp(t, "/chunked/", 9) == 0)
        return serve_chunked(fd, n);
    if (strncmp(t, "/short/", 7) == 0) {
        char head[100];
        int h =
            snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n", n + 1);
        return ht_write(fd, head, (size_t)h) && ht_write(fd, body, n) && false;
    }
    if (strncmp(t, "/excess/", 8) == 0) {
        char head[100];
        int h = snprintf(head, sizeof(head),
                         "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n", n);
        return ht_write(fd, head, (size_t)h) && ht_write(fd, body, n + 64) && false;
    }
    if (strncmp(t, "/stall/", 7) == 0) { /* n bytes of a longer body, then nothing */
        char head[100];
        int h = snprintf(head, sizeof(head), "HTTP/1.1 200 OK\r\nContent-Length: %zu\r\n\r\n",
                         n + 1000);
        if (ht_write(fd, head, (size_t)h) && ht_write(fd, body, n))
            serve_stall(fd);
        return false;
    }
    if (strncmp(t, "/silent/", 8) == 0) {
        serve_stall(fd);
        return false;
    }
    if (strncmp(t, "/garbage/", 9) == 0)
        return ht_write(fd, "220 mail.example ESMTP\r\n\r\n", 26) && false;
    if (strncmp(t, "/once/", 6) == 0) /* closes without having said so */
        return ht_reply(fd, 200, NULL, body, n) && false;
    if (strncmp(t, "/echo/", 6) == 0)
        return ht_reply(fd, 200, "X-Method: echo\r\n", req->body, req->body_len);
    if (strncmp(t, "/status/", 8) == 0)
        return ht_reply(fd, (int)n, NULL, "no", n == 204 ? 0 : 2);
    return ht_reply(fd, 404, NULL, "", 0);
}

static int setup(void **state, unsigned loops, unsigned connections)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct zc_net_config cfg = {.loops = loops, .connections = connections};
    f->server = ht_start(serve, f);
    *state = f;
    return zc_net_new(&cfg, &f->net);
}

static int setup_one(void **state)
{
    return setup(state, 1, 0);
}

static int setup_two(void **state)
{
    return setup(state, 2, 0);
}

static int setup_narrow(void **state)
{
    return setup(state, 1, 3);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    zc_net_free(f->net);
    ht_stop(f->server);
    free(f);
    return 0;
}

/* ---- a request that the test waits for ---- */

struct call {
    struct zc_http http;
    char url[200];
    const char *headers[3];
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned ended;
    int err;
    uint64_t got, wrong;
    unsigned pieces;
    int stop_with; /* what data() returns once it had stop_at bytes */
    uint64_t stop_at;
    char first_line[100];
    int64_t started_ns;
};

static void on_header(struct zc_http *http, const char *line, size_t n)
{
    struct call *c = zc_container_of(http, struct call, http);
    if (!c->first_line[0])
        snprintf(c->first_line, sizeof(c->first_line), "%.*s", (int)n, line);
}

static int on_data(struct zc_http *http, const void *p, size_t n)
{
    struct call *c = zc_container_of(http, struct call, http);
    for (size_t i = 0; i < n; i++)
        c->wrong += ((const unsigned char *)p)[i] != ht_byte(c->got + i);
    pthread_mutex_lock(&c->lock);
    c->got += n;
    c->pieces++;
    pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->lock);
    return c->stop_with && c->got >= c->stop_at ? c->stop_with : 0;
}

static void on_done(struct zc_http *http, int err)
{
    struct call *c = zc_container_of(http, struct call, http);
    pthread_mutex_lock(&c->lock);
    c->ended++;
    c->err = err;
    pthread_cond_broadcast(&c->cond);
    pthread_mutex_unlock(&c->lock);
}

static struct call *call_new(struct fixture *f, const char *method, const char *target)
{
    struct call *c = calloc(1, sizeof(*c));
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->cond, NULL);
    snprintf(c->url, sizeof(c->url), "http://127.0.0.1:%u%s", ht_port(f->server), target);
    c->http = (struct zc_http){
        .method = method, .url = c->url, .header = on_header, .data = on_data, .done = on_done};
    return c;
}

static void call_start(struct fixture *f, struct call *c)
{
    c->started_ns = zc_now_ns();
    assert_int_equal(zc_net_start(f->net, &c->http), 0);
}

static int call_wait(struct call *c)
{
    pthread_mutex_lock(&c->lock);
    while (!c->ended)
        pthread_cond_wait(&c->cond, &c->lock);
    int err = c->err;
    assert_int_equal(c->ended, 1);
    pthread_mutex_unlock(&c->lock);
    return err;
}

static void call_wait_bytes(struct call *c, uint64_t n)
{
    pthread_mutex_lock(&c->lock);
    while (c->got < n)
        pthread_cond_wait(&c->cond, &c->lock);
    pthread_mutex_unlock(&c->lock);
}

static void call_free(struct call *c)
{
    pthread_cond_destroy(&c->cond);
    pthread_mutex_destroy(&c->lock);
    free(c);
}

static double call_seconds(const struct call *c)
{
    return (double)(zc_now_ns() - c->started_ns) / 1e9;
}

/* ---- bodies ---- */

/* How it ended; what came of a good one is checked. */
static int body_try(struct fixture *f, const char *kind, size_t n, uint64_t expect)
{
    char target[100];
    snprintf(target, sizeof(target), "/%s/%zu", kind, n);
    struct call *c = call_new(f, "GET", target);
    c->http.expect = expect;
    call_start(f, c);
    int r = call_wait(c);
    if (r == 0) {
        assert_int_equal(c->http.status, 200);
        assert_int_equal(c->got, n);
        assert_int_equal(c->wrong, 0);
        assert_int_equal(strncmp(c->first_line, "HTTP/1.1 200 ", 13), 0);
    }
    call_free(c);
    return r;
}

static void body_of(struct fixture *f, const char *kind, size_t n, uint64_t expect)
{
    assert_int_equal(body_try(f, kind, n, expect), 0);
}

static void bodies_arrive_whole(void **state)
{
    static const size_t sizes[] = {0,      1,      16383,  16384,   16385,  32768,
                                   100000, 131072, 262144, 1048576, 5000001};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(sizes); i++) {
        body_of(*state, "body", sizes[i], 0);
        body_of(*state, "body", sizes[i], sizes[i]);
        body_of(*state, "body", sizes[i], 10000000);
        body_of(*state, "chunked", sizes[i], sizes[i]);
        body_of(*state, "chunked", sizes[i], 10000000);
        body_of(*state, "excess", sizes[i], 10000000);
    }
}

static void big_bodies_come_in_blocks(void **state)
{
    struct fixture *f = *state;
    size_t n = 8 << 20;
    struct call *c = call_new(f, "GET", "/body/8388608");
    c->http.expect = n;
    call_start(f, c);
    assert_int_equal(call_wait(c), 0);
    assert_int_equal(c->got, n);
    assert_int_equal(c->wrong, 0);
    /* How much a block holds is the kernel's to say; curl's pieces would be 512. */
    assert_true(c->pieces < 400);
    call_free(c);
}

static void head_tells_the_length(void **state)
{
    struct fixture *f = *state;
    struct call *c = call_new(f, "HEAD", "/body/12345");
    call_start(f, c);
    assert_int_equal(call_wait(c), 0);
    assert_int_equal(c->http.content_length, 12345);
    assert_int_equal(c->got, 0);
    call_free(c);
    body_of(f, "body", 10, 0); /* the handle was not left in HEAD's ways */
}

static void bodies_are_sent(void **state)
{
    static const char *const methods[] = {"PUT", "POST", "PATCH"};
    static const size_t sizes[] = {0, 5, 3000000};
    struct fixture *f = *state;
    for (size_t i = 0; i < 9; i++) {
        struct call *c = call_new(f, methods[i / 3], "/echo/0");
        size_t n = sizes[i % 3];
        zc_autofree unsigned char *body = malloc(n + 1);
        ht_fill(body, 0, n);
        c->http.body = body;
        c->http.body_len = n;
        call_start(f, c);
        assert_int_equal(call_wait(c), 0);
        assert_int_equal(c->got, n);
        assert_int_equal(c->wrong, 0);
        call_free(c);
        body_of(f, "body", 10, 0);
    }
    struct call *c = call_new(f, "DELETE", "/echo/0");
    call_start(f, c);
    assert_int_equal(call_wait(c), 0);
    call_free(c);
}

static void any_status_is_an_answer(void **state)
{
    static const int status[] = {204, 301, 403, 404, 412, 500, 503};
    struct fixture *f = *state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(status); i++) {
        char target[32];
        snprintf(target, sizeof(target), "/status/%d", status[i]);
        struct call *c = call_new(f, "GET", target);
        c->http.data = NULL;
        call_start(f, c);
        assert_int_equal(call_wait(c), 0);
        assert_int_equal(c->http.status, status[i]);
        call_free(c);
    }
}

/* ---- connections ---- */

static void connections_are_kept(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 50; i++)
        body_of(f, "body", 1000, i % 2 ? 1000 : 0);
    assert_int_equal(ht_connections(f->server), 1);
}

static void connection_that_was_closed_is_replaced(void **state)
{
    int reset = 0;
    for (int i = 0; i < 20; i++) {
        int r = body_try(*state, "once", 1000, 0);
        if (r == -ECONNRESET) { /* sent just when the server closed: who retries has a new one */
            reset++;
            body_of(*state, "body", 1000, 0);
        } else {
            assert_int_equal(r, 0);
        }
    }
    assert_true(reset < 20);
}

struct chain {
    struct fixture *f;
    struct call *c;
    _Atomic int left, ended;
};

static void chain_done(struct zc_http *http, int err)
{
    struct chain *ch = http->user;
    if (err == 0 && atomic_fetch_sub(&ch->left, 1) > 0 && zc_net_start(ch->f->net, http) == 0)
        return;
    atomic_store(&ch->ended, err < 0 ? err : 1);
}

static void a_request_can_start_the_next(void **state)
{
    struct fixture *f = *state;
    struct chain ch = {.f = f, .left = 500};
    struct call *c = call_new(f, "GET", "/body/100");
    c->http.data = NULL;
    c->http.done = chain_done;
    c->http.user = &ch;
    call_start(f, c);
    while (!atomic_load(&ch.ended))
        usleep(1000);
    assert_int_equal(ch.ended, 1);
    assert_int_equal(ht_requests(f->server), 501);
    assert_int_equal(ht_connections(f->server), 1);
    call_free(c);
}

static void connections_are_limited(void **state)
{
    struct fixture *f = *state;
    struct call *c[40];
    for (int i = 0; i < 40; i++) {
        c[i] = call_new(f, "GET", "/body/50000");
        call_start(f, c[i]);
    }
    for (int i = 0; i < 40; i++) {
        assert_int_equal(call_wait(c[i]), 0);
        assert_int_equal(c[i]->wrong, 0);
        call_free(c[i]);
    }
    assert_true(ht_most_open(f->server) <= 3);
}

static void many_at_once(void **state)
{
    struct fixture *f = *state;
    struct call *c[200];
    for (int i = 0; i < 200; i++) {
        c[i] = call_new(f, "GET", i % 3 ? "/body/70000" : "/chunked/70000");
        c[i]->http.loop = (unsigned)i;
        c[i]->http.expect = i % 2 ? 70000 : 0;
        call_start(f, c[i]);
    }
    for (int i = 0; i < 200; i++) {
        assert_int_equal(call_wait(c[i]), 0);
        assert_int_equal(c[i]->got, 70000);
        assert_int_equal(c[i]->wrong, 0);
        call_free(c[i]);
    }
}

/* ---- failures ---- */

static void failing(struct fixture *f, const char *target, int err)
{
    struct call *c = call_new(f, "GET", target);
    c->http.expect = 100000;
    call_start(f, c);
    assert_int_equal(call_wait(c), err);
    assert_true(c->http.why[0]);
    call_free(c);
}

static void short_body_is_a_reset(void **state)
{
    failing(*state, "/short/0", -ECONNRESET);
    failing(*state, "/short/100000", -ECONNRESET);
}

static void other_protocols_are_no_answer(void **state)
{
    failing(*state, "/garbage/0", -EBADMSG);
}

static void nobody_listens(void **state)
{
    struct fixture *f = *state;
    struct ht_server *gone = ht_start(serve, NULL);
    struct call *c = call_new(f, "GET", "/");
    snprintf(c->url, sizeof(c->url), "http://127.0.0.1:%u/", ht_port(gone));
    ht_stop(gone);
    call_start(f, c);
    assert_int_equal(call_wait(c), -ECONNREFUSED);
    call_free(c);
}

static void stalls_end(void **state)
{
    static const char *const targets[] = {"/stall/0", "/stall/5000", "/silent/0"};
    struct fixture *f = *state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(targets); i++) {
        struct call *c = call_new(f, "GET", targets[i]);
        c->http.stall_ns = 300 * ZC_NS_PER_MS;
        call_start(f, c);
        assert_int_equal(call_wait(c), -ETIMEDOUT);
        assert_true(call_seconds(c) > 0.29 && call_seconds(c) < 5);
        assert_non_null(strstr(c->http.why, "no byte"));
        call_free(c);
    }
}

static void deadlines_end_what_waits_too(void **state)
{
    struct fixture *f = *state;
    struct call *c[6];
    for (int i = 0; i < 6; i++) { /* three connections: the rest waits */
        c[i] = call_new(f, "GET", "/silent/0");
        c[i]->http.deadline_ns = zc_now_ns() + 300 * ZC_NS_PER_MS;
        call_start(f, c[i]);
    }
    for (int i = 0; i < 6; i++) {
        assert_int_equal(call_wait(c[i]), -ETIMEDOUT);
        assert_true(call_seconds(c[i]) < 5);
        call_free(c[i]);
    }
}

/* What waits for a connection that others hold in vain is not given one to do the same. */
static void stalls_end_what_waits_too(void **state)
{
    enum { N = 30 };
    struct fixture *f = *state;
    struct call *c[N];
    for (int i = 0; i < N; i++) {
        c[i] = call_new(f, "GET", "/silent/0");
        c[i]->http.stall_ns = 500 * ZC_NS_PER_MS;
        call_start(f, c[i]);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(call_wait(c[i]), -ETIMEDOUT);
        assert_non_null(strstr(c[i]->http.why, "no byte came for"));
        call_free(c[i]);
    }
    assert_in_range(ht_connections(f->server), 3, N / 2);
}

static void data_can_stop_it(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 2; i++) {
        struct call *c = call_new(f, "GET", "/body/5000000");
        c->http.expect = i ? 5000000 : 0;
        c->stop_with = -ENOSPC;
        c->stop_at = 100000;
        call_start(f, c);
        assert_int_equal(call_wait(c), -ENOSPC);
        assert_int_equal(c->wrong, 0);
        call_free(c);
    }
    body_of(f, "body", 100, 0);
}

/* ---- cancel ---- */

static void cancel_ends_it(void **state)
{
    struct fixture *f = *state;
    struct call *c = call_new(f, "GET", "/stall/5000");
    call_start(f, c);
    call_wait_bytes(c, 5000);
    pthread_mutex_lock(
        &c->lock); /* done() waits for it: the request is there for the second cancel too */
    zc_net_cancel(f->net, &c->http);
    zc_net_cancel(f->net, &c->http);
    pthread_mutex_unlock(&c->lock);
    assert_int_equal(call_wait(c), -ECANCELED);
    assert_true(call_seconds(c) < 5);
    call_free(c);
}

static void cancel_at_any_moment(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 300; i++) {
        struct call *c = call_new(f, "GET", "/body/300000");
        c->http.loop = (unsigned)i;
        c->http.expect = 300000;
        call_start(f, c);
        if (i % 3)
            usleep((useconds_t)(i * 7 % 900));
        pthread_mutex_lock(&c->lock); /* done() waits for it: the request is there */
        if (!c->ended)
            zc_net_cancel(f->net, &c->http);
        pthread_mutex_unlock(&c->lock);
        int r = call_wait(c);
        assert_true(r == 0 || r == -ECANCELED);
        assert_int_equal(c->wrong, 0);
        call_free(c);
    }
}

static void free_ends_everything(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct zc_net_config cfg = {.loops = 2, .connections = 20};
    struct call *c[60];
    f->server = ht_start(serve, f);
    assert_int_equal(zc_net_new(&cfg, &f->net), 0);
    for (int i = 0; i < 60; i++) {
        c[i] = call_new(f, "GET", i % 2 ? "/stall/5000" : "/silent/0");
        c[i]->http.loop = (unsigned)i;
        call_start(f, c[i]);
    }
    call_wait_bytes(c[1], 5000);
    int64_t t = zc_now_ns();
    zc_net_free(f->net);
    assert_true(zc_now_ns() - t < ZC_NS_PER_S);
    for (int i = 0; i < 60; i++) {
        assert_int_equal(c[i]->ended, 1);
        assert_int_equal(c[i]->err, -ECANCELED);
        call_free(c[i]);
    }
    ht_stop(f->server);
    free(f);
}

/* ---- waiting ---- */

static void wait_gives_the_body(void **state)
{
    struct fixture *f = *state;
    zc_autofree char *body = NULL;
    size_t len;
    char url[100];
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/body/5000", ht_port(f->server));
    struct zc_http req = {.method = "GET", .url = url};
    assert_int_equal(zc_net_wait(f->net, &req, 10000, &body, &len), 0);
    assert_int_equal(len, 5000);
    assert_int_equal(req.status, 200);
    for (size_t i = 0; i < len; i++)
        assert_int_equal((unsigned char)body[i], ht_byte(i));
    assert_int_equal(zc_net_wait(f->net, &req, 4999, NULL, NULL), -EMSGSIZE);
    snprintf(url, sizeof(url), "http://127.0.0.1:%u/short/10", ht_port(f->server));
    assert_int_equal(zc_net_wait(f->net, &req, 10000, NULL, NULL), -ECONNRESET);
    assert_true(req.why[0]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bodies_arrive_whole, setup_one, teardown),
        cmocka_unit_test_setup_teardown(big_bodies_come_in_blocks, setup_one, teardown),
        cmocka_unit_test_setup_teardown(head_tells_the_length, setup_one, teardown),
        cmocka_unit_test_setup_teardown(bodies_are_sent, setup_one, teardown),
        cmocka_unit_test_setup_teardown(any_status_is_an_answer, setup_one, teardown),
        cmocka_unit_test_setup_teardown(connections_are_kept, setup_one, teardown),
        cmocka_unit_test_setup_teardown(connection_that_was_closed_is_replaced, setup_one,
                                        teardown),
        cmocka_unit_test_setup_teardown(a_request_can_start_the_next, setup_one, teardown),
        cmocka_unit_test_setup_teardown(connections_are_limited, setup_narrow, teardown),
        cmocka_unit_test_setup_teardown(many_at_once, setup_two, teardown),
        cmocka_unit_test_setup_teardown(short_body_is_a_reset, setup_one, teardown),
        cmocka_unit_test_setup_teardown(other_protocols_are_no_answer, setup_one, teardown),
        cmocka_unit_test_setup_teardown(nobody_listens, setup_one, teardown),
        cmocka_unit_test_setup_teardown(stalls_end, setup_one, teardown),
        cmocka_unit_test_setup_teardown(deadlines_end_what_waits_too, setup_narrow, teardown),
        cmocka_unit_test_setup_teardown(stalls_end_what_waits_too, setup_narrow, teardown),
        cmocka_unit_test_setup_teardown(data_can_stop_it, setup_one, teardown),
        cmocka_unit_test_setup_teardown(cancel_ends_it, setup_two, teardown),
        cmocka_unit_test_setup_teardown(cancel_at_any_moment, setup_two, teardown),
        cmocka_unit_test(free_ends_everything),
        cmocka_unit_test_setup_teardown(wait_gives_the_body, setup_two, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
