/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the S3 source: a scripted server, and calls that wait for their end. */
#ifndef ZC_TESTS_S3TEST_H
#define ZC_TESTS_S3TEST_H

#include "backend/s3.h"
#include "net/net.h"

#include "httptest.h"

#include <pthread.h>

struct s3t_fixture;
/* Answers a request, on a thread of the server's. */
typedef bool s3t_script(struct s3t_fixture *, int fd, const struct ht_request *);

struct s3t_fixture {
    struct ht_server *server;
    struct zc_net *net;
    struct zc_backend *be;
    s3t_script *script;
    char url[64], credentials[64];
    pthread_mutex_t lock;
    char last[20000]; /* head of the last request */
    _Atomic unsigned asked;
    int step;
};

/* ---- the server's side ---- */

/* An error as S3 words it; more: elements beside Code and Message. */
bool s3t_refuse(int fd, int status, const char *headers, const char *code, const char *more);
bool s3t_empty_list(int fd);
/* In the target. */
bool s3t_has(const struct ht_request *req, const char *text);
/* The range, out of an object of `total` bytes of the pattern. */
bool s3t_send_range(int fd, const struct ht_request *req, const char *headers, uint64_t total);

/* ---- our side ---- */

struct s3t_wait {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended;
    int err;
};

struct s3t_stat_call {
    struct zc_stat_req req;
    struct s3t_wait w;
    enum zc_kind kind;
    uint64_t size;
    int64_t mtime_ns;
    char version[ZC_VERSION_MAX + 1];
};

struct s3t_list_call {
    struct zc_list_req req;
    struct s3t_wait w;
    char text[2000]; /* a line an entry */
    char token[200];
    unsigned skipped;
};

void s3t_wait_init(struct s3t_wait *w);
int s3t_wait_for(struct s3t_wait *w);
/* How a get ends; each byte is checked. stop_with: what data() returns; words: room for 1,000
   bytes, or NULL; got: bytes that came, or NULL. */
int s3t_get_stopping(struct s3t_fixture *f, const char *path, const char *version, uint64_t off,
                     uint64_t len, int stop_with, char *words, uint64_t *got);
/* Of a/b. */
int s3t_get(struct s3t_fixture *f, const char *version, uint64_t off, uint64_t len, char *words);
void s3t_on_stat(struct zc_stat_req *req, int err, const struct zc_attr *a);
int s3t_stat(struct s3t_fixture *f, const char *path, struct s3t_stat_call *s);
int s3t_list(struct s3t_fixture *f, const char *path, const char *token, struct s3t_list_call *l);

/* ---- fixtures ---- */

/* What cfg leaves out is the bucket, no prefix, and the server. */
void s3t_connect(struct s3t_fixture *f, struct zc_s3_config cfg);
/* Without a source: a server, a network, and an environment with keys. */
int s3t_setup_bare(void **state);
/* With one of the prefix pre/fix. */
int s3t_setup(void **state);
int s3t_teardown(void **state);

#endif
