/* SPDX-License-Identifier: Apache-2.0 */
/* What a node answers to those who ask for nonsense, for nothing, too often, or for what its disk
   has made something else of. */
#include "peertest.h"
#include "unit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial(struct pt_world *w)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
                            .sin_port = htons(zc_peer_port(w->peer))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval tv = {.tv_sec = 10};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv));
    assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    return fd;
}

/* The status of a raw request, 0 when the connection was closed without one. */
static int ask_raw(struct pt_world *w, const char *text, size_t n)
{
    char buf[512] = {0};
    int fd = dial(w), status = 0;
    ht_write(fd, text, n);
    ssize_t got = recv(fd, buf, sizeof(buf) - 1, 0);
    close(fd);
    if (got > 12)
        sscanf(buf, "HTTP/1.1 %d", &status);
    return status;
}

static int ask_target(struct pt_world *w, const char *target)
{
    char text[20000];
    int n = snprintf(text, sizeof(text), "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", target);
    return ask_raw(w, text, (size_t)n);
}

static void test_server_refuses(void **state)
{
    struct pt_world *w = *state;
    assert_int_equal(ask_target(w, "/v1/data"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=10&off=0&len=11"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=10&off=10&len=1"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=-1&off=0&len=1"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&path=c&version=v&size=9&off=0&len=1"),
                     400);
    assert_int_equal(ask_target(w, "/v1/data?source=a%00b&path=b&version=v&size=9&off=0&len=1"),
                     400);
    assert_int_equal(
        ask_target(w, "/v1/data?source=a&path=b&version=v&size=9&off=0&len=1&reach=all"), 400);
    assert_int_equal(ask_target(w, "/v1/data?source=a&path=b&version=v&size=9&off=0&len=1&node=12"),
                     400);
    assert_int_equal(ask_target(w, "/v1/data?source=none&path=b&version=v&size=9&off=0&len=1"),
                     404);
    assert_int_equal(ask_target(w, "/../../etc/passwd"), 404);
    assert_int_equal(ask_target(w, "/v1/ask/status"), 404);
    ask_raw(w, "\0\1\2\3\r\n\r\n", 8);
    assert_int_equal(pt_stats(w).served, 0);
}

/* Who is let in asks for what no listing has: refused, whatever a source would make of it. */
static void test_server_refuses_what_cannot_be(void **state)
{
    static const char *const paths[] = {"/etc/passwd", "o/n/10/", "o//n", "../n",
                                        "o/../n",      "o/n/..",  ".",    "o/./n"};
    static const char *const sizes[] = {"9223372036854775807", "4503599627370496",
                                        "281474976710657", "1152921504606846976"};
    struct pt_world *w = *state;
    struct zc_fetch_src *src;
    char target[1024], name[301] = {0};
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    memset(name, 'n', sizeof(name) - 1);
    for (unsigned i = 0; i <= ZC_ARRAY_SIZE(paths); i++) {
        snprintf(target, sizeof(target),
                 "/v1/data?source=mem%%3A//test&path=%s&version=v&size=10&off=0&len=10",
                 i < ZC_ARRAY_SIZE(paths) ? paths[i] : name);
        assert_int_equal(ask_target(w, target), 400);
    }
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(sizes); i++) {
        snprintf(target, sizeof(target),
                 "/v1/data?source=mem%%3A//test&path=o/n/%s&version=v&size=%s&off=%llu&len=1",
                 sizes[i], sizes[i], strtoull(sizes[i], NULL, 10) - 1);
        assert_int_equal(ask_target(w, target), 404);
    }
    assert_int_equal(mem_requests(w->mem), 0);
}

/* How many folders of backing files had a file come or go since the call that begins. */
static unsigned changed_folders(struct pt_world *w, bool begin)
{
    char line[600], n[32] = "";
    snprintf(line, sizeof(line),
             begin ? "sleep 0.05; touch '%s/began'; sleep 0.05; echo 0"
                   : "find '%s' -path '*objects*' -type d -newer '%s/began' | wc -l",
             w->dir, w->dir);
    FILE *p = popen(line, "r");
    assert_non_null(fgets(n, sizeof(n), p));
    pclose(p);
    return (unsigned)atoi(n);
}

/* Asks the real server for an object of the source in memory, as one that takes it for the owner.
 */
static void test_server_gives(void **state)
{
    struct pt_world *w = *state;
    struct zc_fetch_src *src;
    char target[512];
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    pt_object(w, 1, 2); /* it is not; it fetches all the same */
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=0&len=%llu&reach=held",
             w->path, (unsigned long long)PT_SIZE, (unsigned long long)PT_SIZE);
    assert_int_equal(changed_folders(w, true), 0);
    assert_int_equal(ask_target(w, target), 404);
    assert_int_equal(changed_folders(w, false), 0); /* nothing was made, and removed again */
    strrchr(target, '&')[0] = 0;
    assert_int_equal(ask_target(w, target), 206);
    unsigned before =
        (PT_SIZE + CT_CHUNK - 1) / CT_CHUNK; /* it goes on when the asker has hung up */
    for (int i = 0; i < 1000 && mem_requests(w->mem) < before; i++)
        usleep(10000);
    usleep(300000);
    snprintf(target + strlen(target), sizeof(target) - strlen(target), "&reach=held");
    assert_int_equal(ask_target(w, target), 206); /* now it is here */
    assert_int_equal(mem_requests(w->mem), before);
}

/* Flips a bit at `at` in the backing file of the only object. */
static void flip(struct pt_world *w, off_t at)
{
    char path[512], line[600];
    uint8_t byte;
    snprintf(line, sizeof(line), "find '%s' -type f -size +200k -path '*objects*'", w->dir);
    FILE *p = popen(line, "r");
    assert_non_null(fgets(path, sizeof(path), p));
    pclose(p);
    path[strcspn(path, "\n")] = 0;
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, &byte, 1, at), 1);
    byte ^= 16;
    assert_int_equal(pwrite(fd, &byte, 1, at), 1);
    close(fd);
}

static int ask_part(struct pt_world *w, uint64_t off, uint64_t len, const char *more)
{
    char target[512];
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=%llu&len=%llu%s",
             w->path, (unsigned long long)PT_SIZE, (unsigned long long)off, (unsigned long long)len,
             more);
    return ask_target(w, target);
}

/* What the disk has made of a chunk gets no sum that fits it, whatever part of it is asked for, and
   does not stay. */
static void test_server_finds_flipped_bits(void **state)
{
    struct pt_world *w = *state;
    struct zc_fetch_src *src;
    struct zc_cache_stats cache;
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    for (int round = 0; round < 3; round++) {
        pt_object(w, 0, 1);
        assert_int_equal(ask_part(w, 0, PT_SIZE, ""), 206);
        for (int i = 0; i < 1000 && ask_part(w, 0, PT_SIZE, "&reach=held") != 206; i++)
            usleep(10000);
        usleep(300000); /* the last one is on record, too */
        if (round == 1) /* a part that was looked at before it was flipped */
            assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 206);
        if (round == 2) {
            assert_int_equal(ask_part(w, 0, 1, "&doubt=1"), 200);
            flip(w, 30000);
            assert_int_equal(ask_part(w, 0, 1, "&doubt=1"), 404);
        } else {
            flip(w, 1010);
            assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 500);
        }
        zc_cache_get_stats(w->cache, &cache);
        assert_int_equal(cache.bad_chunks, round + 1);
        assert_int_equal(ask_part(w, 1000, 50, "&reach=held"), 404); /* it is gone */
        assert_int_equal(ask_part(w, 1000, 50, ""), 206);            /* and fetched anew */
        usleep(300000);
        zc_cache_evict(w->cache, zc_objid_of(PT_IDENTITY, w->path, "v", PT_SIZE));
    }
}

/* What other nodes receive does not keep a source from being removed. */
static void test_server_keeps_no_source(void **state)
{
    struct pt_world *w = *state;
    struct zc_fetch_src *src;
    struct zc_fetch_src_stats s;
    struct zc_object *node, *reader, *again;
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    pt_object(w, 0, 1);
    assert_int_equal(zc_object_open_for_node(w->fetch, src, w->path, "v", PT_SIZE, &node), 0);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", PT_SIZE, &reader), 0);
    assert_int_equal(zc_fetch_src_close(src, false), -EBUSY);
    zc_object_close(reader);
    assert_int_equal(zc_fetch_src_close(src, false), 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", PT_SIZE, &reader), -ESTALE);
    /* The same source again: what is open goes on with it. */
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    assert_int_equal(zc_object_open(w->fetch, src, w->path, "v", PT_SIZE, &again), 0);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 1);
    zc_object_close_for_node(node);
    zc_object_close(again);
    zc_fetch_src_get_stats(src, &s);
    assert_int_equal(s.open, 0);
}

/* Hundreds who ask for nonsense or for nothing: one who asks for bytes gets them. */
static void test_server_flooded(void **state)
{
    struct pt_world *w = *state;
    struct zc_fetch_src *src;
    char target[512];
    int idle[300];
    assert_int_equal(zc_fetch_src_new(w->fetch, w->be, PT_IDENTITY, &src), 0);
    w->fakes[1].mode = w->fakes[2].mode = FAKE_ABSENT;
    pt_object(w, 0, 1);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++) {
        idle[i] = dial(w);
        if (i % 2)
            ht_write(idle[i], "GET /v1/data?source=aaaaaaaaaaaaaa", 33);
    }
    snprintf(target, sizeof(target),
             "/v1/data?source=mem%%3A//test&path=%s&version=v&size=%llu&off=0&len=%llu", w->path,
             (unsigned long long)PT_SIZE, (unsigned long long)PT_SIZE);
    for (int i = 0; i < 50; i++)
        assert_int_equal(ask_target(w, target), 206);
    /* The first word came before the bytes did. */
    unsigned once = (PT_SIZE + CT_CHUNK - 1) / CT_CHUNK;
    for (int i = 0; i < 1000 && mem_requests(w->mem) < once; i++)
        usleep(10000);
    usleep(100000);
    assert_int_equal(mem_requests(w->mem), once);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        close(idle[i]);
}

/* Is the connection closed by the server within so long? */
static bool hung_up(int fd, int seconds)
{
    struct pollfd p = {.fd = fd, .events = POLLIN | POLLRDHUP};
    return poll(&p, 1, seconds * 1000) == 1 && p.revents & (POLLRDHUP | POLLHUP | POLLERR);
}

/* Who connects and says nothing does not stay; who has asked something may. And no address has all
   connections. */
static void test_server_strangers(void **state)
{
    static int idle[1100];
    struct pt_world *w = *state;
    int known = dial(w), stranger = dial(w);
    char buf[512];
    const char *text = "GET /v1/none HTTP/1.1\r\nHost: x\r\n\r\n";
    ht_write(known, text, strlen(text));
    assert_true(recv(known, buf, sizeof(buf), 0) > 12);
    assert_true(hung_up(stranger, 40));
    assert_false(hung_up(known, 3));
    close(stranger);
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        idle[i] = dial(w);
    assert_true(hung_up(idle[ZC_ARRAY_SIZE(idle) - 1], 5));
    for (unsigned i = 0; i < ZC_ARRAY_SIZE(idle); i++)
        close(idle[i]);
    close(known);
}

/* Bodies that nobody asked for, and questions to the daemon that are too long. */
static void test_server_bodies(void **state)
{
    struct pt_world *w = *state;
    size_t n = (16 << 20) + 100000;
    char *text = malloc(n + 200);
    memset(text, 'x', n + 200);
    text[sprintf(text, "GET /v1/none HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n)] = 'x';
    assert_int_equal(ask_raw(w, text, n + 200), 404);
    text[sprintf(text, "POST /v1/ask/a HTTP/1.1\r\nHost: x\r\nContent-Length: %zu\r\n\r\n", n)] =
        'x';
    assert_int_equal(ask_raw(w, text, n + 200), 413);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        PT_TEST(test_server_refuses),         PT_TEST(test_server_refuses_what_cannot_be),
        PT_TEST(test_server_gives),           PT_TEST(test_server_finds_flipped_bits),
        PT_TEST(test_server_keeps_no_source), PT_TEST(test_server_flooded),
        PT_TEST(test_server_strangers),       PT_TEST(test_server_bodies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
