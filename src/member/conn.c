/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of gossip: one question and one answer a connection, never more. Nothing here waits;
 * every connection has a deadline. What strangers may hold is bounded in number and in bytes, and
 * what they send counts when it is whole and, with a key, authentic. Until then it has to go on
 * coming, and when all places are taken, somebody silent makes room, or anybody for a member.
 */
#include "member/driver.h"

#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#define READ_BYTES ((size_t)64 << 10)
#define READS_AT_ONCE 16
#define QUESTION (10 * ZC_NS_PER_S) /* until it is whole */
#define SILENT (2 * ZC_NS_PER_S)    /* in the midst of it */
#define PATIENCE (ZC_NS_PER_S / 2)  /* the same, when others wait for the place */

static void conn_close(struct zc_member *m, struct conn *c)
{
    if (!c->out)
        m->conn_bytes -= c->in.in.len;
    if (c->fd >= 0)
        close(c->fd); /* which takes it out of epoll */
    zc_frame_stream_free(&c->in);
    zc_buf_free(&c->send);
    memset(c, 0, sizeof(*c));
}

static struct conn *conn_slot(struct zc_member *m, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++)
        if (!m->conns[i].used) {
            m->conns[i] = (struct conn){.used = true, .fd = -1};
            return &m->conns[i];
        }
    return NULL;
}

static int conn_watch(const struct zc_member *m, struct conn *c, uint32_t events, int op)
{
    struct epoll_event e = {.events = events, .data.ptr = c};
    return epoll_ctl(m->epoll, op, c->fd, &e) < 0 ? -errno : 0;
}

/* Called from within the core, which must not be called back: a failure is only marked. */
void conn_open(struct zc_member *m, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
               size_t n, int64_t deadline)
{
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(to, m->ipv6, &ss);
    struct conn *c = conn_slot(m, 0, CONNS_OUT);
    if (!c)
        return; /* the core opens no more than there are */
    c->out = true;
    c->id = id;
    c->deadline = deadline;
    c->failed = true;
    c->send.max = c->in.in.max = ZC_WIRE_STREAM_MAX + ZC_MIB;
    if (len == 0 || zc_frame_seal_stream(&m->frame, p, n, true, &c->send) < 0)
        return;
    c->fd = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || (connect(c->fd, (struct sockaddr *)&ss, len) < 0 && errno != EINPROGRESS))
        return;
    c->connecting = c->writing = true;
    c->failed = conn_watch(m, c, EPOLLOUT, EPOLL_CTL_ADD) < 0;
}

struct asked {
    const struct zc_swim_addr *addr;
    bool member;
};

static void compare(void *arg, const struct zc_swim_view *v)
{
    struct asked *a = arg;
    const struct zc_swim_addr *n = &v->node->addr;
    a->member |= !v->self && n->len == a->addr->len && memcmp(n->ip, a->addr->ip, n->len) == 0;
}

/* Whether the host is a member's; the port is any. */
static bool is_members(const struct zc_member *m, const struct zc_swim_addr *addr)
{
    struct asked a = {.addr = addr};
    zc_swim_each(m->core, compare, &a);
    return a.member;
}

/* The same, looked up once. */
static bool conn_is_members(const struct zc_member *m, struct conn *c)
{
    if (!c->looked)
        c->member = is_members(m, &c->from);
    c->looked = true;
    return c->member;
}

/* A place for one from there: whose question is not whole and who was silent for the longest time
   has to go. Members are not thrown out. */
static struct conn *conn_evict(struct zc_member *m, const struct zc_swim_addr *from, int64_t now)
{
    bool member = is_members(m, from);
    struct conn *out = NULL;
    for (size_t i = CONNS_OUT; i < CONNS_OUT + CONNS_IN; i++) {
        struct conn *c = &m->conns[i];
        if (!c->writing && (member || now - c->heard >= PATIENCE) &&
            (!out || c->heard < out->heard) && !conn_is_members(m, c))
            out = c;
    }
    if (!out)
        return NULL;
    m->counters.streams_refused++;
    conn_close(m, out);
    return conn_slot(m, CONNS_OUT, CONNS_IN);
}

void conn_accept(struct zc_member *m, int64_t now)
{
    for (int i = 0; i < READS_AT_ONCE; i++) {
        struct sockaddr_storage ss = {0};
        socklen_t len = sizeof(ss);
        int fd = accept4(m->tcp, (struct sockaddr *)&ss, &len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0)
            return;
        struct zc_swim_addr from = {0};
        addr_from_sockaddr(&ss, &from);
        struct conn *c = conn_slot(m, CONNS_OUT, CONNS_IN);
        if (!c)
            c = conn_evict(m, &from, now);
        if (!c) {
            m->counters.streams_refused++;
            close(fd);
            continue;
        }
        c->fd = fd;
        c->from = from;
        c->heard = now;
        c->until = now + QUESTION;
        c->deadline = now + SILENT;
        c->in.in.max = ZC_WIRE_STREAM_MAX + ZC_MIB;
        c->failed = conn_watch(m, c, EPOLLIN, EPOLL_CTL_ADD) < 0;
    }
}

static void conn_write(struct zc_member *m, struct conn *c)
{
    while (c->sent < c->send.len) {
        ssize_t n = send(c->fd, c->send.p + c->sent, c->send.len - c->sent, MSG_NOSIGNAL);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n < 0) {
            c->failed = true;
            return;
        }
        c->sent += (size_t)n;
    }
    c->writing = false;
    if (!c->out)
        conn_close(m, c); /* the answer is on its way, and the last thing */
    else if (conn_watch(m, c, EPOLLIN, EPOLL_CTL_MOD) < 0)
        c->failed = true;
}

/* The message is whole. */
static void conn_message(struct zc_member *m, struct conn *c, int64_t now)
{
    const uint8_t *p = (const uint8_t *)c->in.out.p;
    size_t n = c->in.out.len;
    if (c->out) {
        struct conn was = *c;
        memset(&c->in, 0, sizeof(c->in)); /* the core may open another one in this place */
        conn_close(m, c);
        zc_swim_stream_reply(m->core, now, was.id, p, n);
        zc_frame_stream_free(&was.in);
        return;
    }
    zc_autobuf struct zc_buf reply = {.max = ZC_WIRE_STREAM_MAX};
    c->send.max = ZC_WIRE_STREAM_MAX + ZC_MIB;
    c->deadline = now + QUESTION;
    int r = zc_swim_serve(m->core, now, p, n, &reply);
    if (r == 0 && reply.len > 0)
        r = zc_frame_seal_stream(&m->frame, (uint8_t *)reply.p, reply.len, false, &c->send);
    if (r < 0 || c->send.len == 0) {
        conn_close(m, c);
        return;
    }
    c->writing = true;
    if (conn_watch(m, c, EPOLLOUT, EPOLL_CTL_MOD) < 0)
        c->failed = true;
    else
        conn_write(m, c);
}

static void conn_read(struct zc_member *m, struct conn *c, int64_t now)
{
    for (int i = 0; i < READS_AT_ONCE; i++) {
        if (zc_buf_reserve(&c->in.in, READ_BYTES) < 0 ||
            (!c->out && m->conn_bytes > CONN_BYTES_MAX)) {
            c->failed = true;
            return;
        }
        ssize_t n = read(c->fd, c->in.in.p + c->in.in.len, READ_BYTES);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (n <= 0) {
            c->failed = true;
            return;
        }
        c->in.in.len += (size_t)n;
        if (!c->out) {
            m->conn_bytes += (size_t)n;
            c->heard = now;
            c->deadline = ZC_MIN(now + SILENT, c->until);
        }
        int r = zc_frame_open_stream(&m->frame, &c->in, !c->out);
        if (r < 0)
            c->failed = true;
        else if (r > 0)
            conn_message(m, c, now);
        if (r != 0)
            return;
    }
}

void conn_ready(struct zc_member *m, struct conn *c, int64_t now)
{
    if (!c->used || c->failed)
        return;
    if (c->connecting) {
        int e = 0;
        socklen_t len = sizeof(e);
        c->connecting = false;
        if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &e, &len) < 0 || e != 0) {
            c->failed = true;
            return;
        }
    }
    if (c->writing)
        conn_write(m, c);
    else
        conn_read(m, c, now);
}

int64_t conn_sweep(struct zc_member *m, int64_t now)
{
    int64_t next = INT64_MAX;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(m->conns); i++) {
        struct conn *c = &m->conns[i];
        if (!c->used)
            continue;
        if (!c->failed && c->deadline > now) {
            next = ZC_MIN(next, c->deadline);
            continue;
        }
        bool out = c->out;
        uint32_t id = c->id;
        conn_close(m, c);
        if (out)
            zc_swim_stream_failed(m->core, now, id);
        else
            m->counters.streams_refused++;
    }
    /* What the core opened meanwhile may have failed at once. */
    for (size_t i = 0; i < CONNS_OUT; i++)
        if (m->conns[i].used && m->conns[i].failed)
            next = now;
    return next;
}

void conn_close_all(struct zc_member *m)
{
    for (size_t i = 0; i < ZC_ARRAY_SIZE(m->conns); i++)
        if (m->conns[i].used)
            conn_close(m, &m->conns[i]);
}
