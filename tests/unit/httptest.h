/* SPDX-License-Identifier: Apache-2.0 */
/* A small HTTP server inside the test: a thread a connection, answers written by the test's own
 * function. */
#ifndef ZC_TESTS_HTTPTEST_H
#define ZC_TESTS_HTTPTEST_H

#include "base/base.h"

struct ht_request {
    char method[16];
    char target[4096];
    char head[16384]; /* request line and header lines as they came */
    char *body;
    size_t body_len;
    unsigned n;          /* requests before this one, over all connections */
    unsigned connection; /* connections before this one's */
};

/* Answers on fd. false: the connection is closed. */
typedef bool ht_fn(void *user, int fd, const struct ht_request *req);

struct ht_server;
struct ht_server *ht_start(ht_fn *fn, void *user);
/* Cuts all connections and waits for the threads. */
void ht_stop(struct ht_server *s);
unsigned ht_port(const struct ht_server *s);
unsigned ht_requests(struct ht_server *s);
unsigned ht_connections(struct ht_server *s);
/* The most connections that were open at a time. */
unsigned ht_most_open(struct ht_server *s);

/* false when the other end is gone. */
bool ht_write(int fd, const void *p, size_t n);
/* Status line, Content-Length, extra header lines (each with CR LF; or NULL), body. */
bool ht_reply(int fd, int status, const char *headers, const void *body, size_t n);
/* A request header's value, or NULL. */
const char *ht_header(const struct ht_request *req, const char *name, char out[1024]);
/* Byte i of the test's pattern: no two offsets close by look alike. */
static inline unsigned char ht_byte(uint64_t i)
{
    return (unsigned char)((i * 2654435761u + (i >> 12)) >> 7);
}
void ht_fill(unsigned char *p, uint64_t off, size_t n);

#endif
