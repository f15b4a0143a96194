/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The insides of member.h, shared by its files:
 *
 *   member.c   start and stop, what other threads call, the loop
 *   conn.c     TCP connections, both ways
 *   seeds.c    looking up the names of seeds
 *   view.c     views, addresses
 */
#ifndef ZC_MEMBER_DRIVER_H
#define ZC_MEMBER_DRIVER_H

#include "member/frame.h"
#include "member/member.h"

#include <netinet/in.h>
#include <pthread.h>

#define CONNS_OUT 16 /* as many as the core opens */
#define CONNS_IN 128
#define CONN_BYTES_MAX (64 * ZC_MIB) /* that all unfinished questions together may hold */

struct conn {
    int fd;
    bool used, out, connecting, failed, writing;
    uint32_t id; /* out: the core's */
    int64_t deadline;
    int64_t until, heard; /* in, while the question is not whole: the last moment; its last byte */
    struct zc_swim_addr from; /* in */
    bool looked, member;      /* in: whether it was looked up, and is a member's host */
    struct zc_frame_stream in;
    struct zc_buf send;
    size_t sent;
};

struct seeds;

struct zc_member {
    /* of the socket thread */
    struct zc_swim *core;
    struct zc_frame frame;
    struct zc_keyring *file_keys; /* from key_file */
    char *key_file;
    void (*keys_taken)(void *user, const struct zc_keyring *keys);
    void *keys_user;
    int64_t key_check; /* when to look at the file again */
    struct timespec key_mtime;
    off_t key_size;
    ino_t key_ino;
    struct zc_buf packet; /* one that is made or read */
    uint8_t *datagram;
    struct conn conns[CONNS_OUT + CONNS_IN];
    size_t conn_bytes;
    uint64_t random[32];
    unsigned random_left;
    bool dirty;
    int64_t view_at; /* when the next view may be made */
    struct zc_member_stats counters;

    /* constant */
    int epoll, udp, tcp, wake;
    bool ipv6;
    struct zc_swim_addr listen;
    struct seeds *seeds;
    void (*changed)(void *user);
    void *user;
    pthread_t thread;
    atomic_bool reload;

    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct zc_member_view *view; /* under lock, as is all below */
    struct zc_member_stats stats;
    uint8_t meta[ZC_WIRE_META_MAX];
    size_t meta_len;
    bool meta_new, leave, retired, stop;
};

/* conn.c */
void conn_open(struct zc_member *m, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
               size_t n, int64_t deadline);
void conn_accept(struct zc_member *m, int64_t now);
void conn_ready(struct zc_member *m, struct conn *c, int64_t now);
/* Ends those that failed or took too long; when to look again. */
int64_t conn_sweep(struct zc_member *m, int64_t now);
void conn_close_all(struct zc_member *m);

/* seeds.c: the names, on a thread of its own that nobody waits for. `wake` is an eventfd, which is
   duplicated. */
int seeds_start(const char *text, uint16_t port, int wake, struct seeds **out,
                struct zc_error *err);
void seeds_stop(struct seeds *s);
/* The addresses when they are others than at the last call: *out is the caller's. How many; -1:
   nothing new. */
int seeds_take(struct seeds *s, struct zc_swim_addr **out, uint64_t *failed);

/* view.c */
struct zc_member_view *view_make(const struct zc_swim *core);
bool addr_from_sockaddr(const struct sockaddr_storage *ss, struct zc_swim_addr *out);
/* For a socket of IPv4 or of IPv6, which reaches IPv4, too. 0 when it cannot reach it. */
socklen_t addr_to_sockaddr(const struct zc_swim_addr *a, bool ipv6, struct sockaddr_storage *out);

#endif
