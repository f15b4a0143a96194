/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See member.h. The socket thread is the only one that touches the core, so that no lock is held
 * while anything is sent: other threads leave what they want under the lock and wake it, and it
 * leaves views and counters there.
 */
#include "member/driver.h"
#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/stat.h>

#define VIEW_EVERY (20 * ZC_NS_PER_MS)
#define KEY_CHECK ZC_NS_PER_S
#define KEY_FILE_MAX ((size_t)64 << 10)
#define DATAGRAMS_AT_ONCE 64
#define BIND_TRIES 20
#define UDP_BUFFER (4 << 20)
#define LEAVE_MAX (3 * ZC_NS_PER_S)

/* ---- what the core asks for ---- */

static uint64_t op_random(void *arg)
{
    struct zc_member *m = arg;
    if (m->random_left == 0) {
        /* So few bytes come whole, and do not fail once the kernel has its entropy. */
        if (getrandom(m->random, sizeof(m->random), 0) != (ssize_t)sizeof(m->random))
            abort();
        m->random_left = ZC_ARRAY_SIZE(m->random);
    }
    return m->random[--m->random_left];
}

static void op_packet(void *arg, const struct zc_swim_addr *to, const uint8_t *p, size_t n,
                      bool crc)
{
    struct zc_member *m = arg;
    struct sockaddr_storage ss;
    socklen_t len = addr_to_sockaddr(to, m->ipv6, &ss);
    zc_buf_reset(&m->packet);
    if (len == 0 || zc_frame_seal_packet(&m->frame, p, n, crc, &m->packet) < 0 ||
        sendto(m->udp, m->packet.p, m->packet.len, MSG_DONTWAIT | MSG_NOSIGNAL,
               (struct sockaddr *)&ss, len) < 0)
        m->counters.packets_unsent++;
}

static void op_stream(void *arg, uint32_t id, const struct zc_swim_addr *to, const uint8_t *p,
                      size_t n, int64_t deadline)
{
    conn_open(arg, id, to, p, n, deadline);
}

static void op_event(void *arg, const struct zc_swim_event *e)
{
    struct zc_member *m = arg;
    if (e->kind == ZC_SWIM_RETIRED) {
        pthread_mutex_lock(&m->lock);
        m->retired = true;
        pthread_cond_broadcast(&m->cond);
        pthread_mutex_unlock(&m->lock);
    } else if (e->kind == ZC_SWIM_CONFLICT) {
        zc_warn("cluster: two nodes are called %s", e->who.node->name);
    } else if (e->kind == ZC_SWIM_RENAMED) {
        zc_warn("cluster: a member made this node's name unusable; it is %s now",
                e->who.node->name);
    }
    m->dirty = true;
}

static const struct zc_swim_ops ops = {op_random, op_packet, op_stream, op_event};

/* ---- keys ---- */

static int key_read(const char *file, struct stat *st, struct zc_keyring **out,
                    struct zc_error *err)
{
    zc_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, st) < 0)
        return zc_error_set(err, -errno, "%s: %s", file, strerror(errno));
    zc_autobuf struct zc_buf b = {.max = 2 * KEY_FILE_MAX};
    int r = zc_buf_reserve(&b, KEY_FILE_MAX);
    if (r < 0)
        return zc_error_set(err, r, "no memory");
    for (;;) {
        ssize_t n = read(fd, b.p + b.len, KEY_FILE_MAX - b.len);
        if (n < 0)
            return zc_error_set(err, -errno, "%s: %s", file, strerror(errno));
        b.len += (size_t)n;
        if (b.len == KEY_FILE_MAX)
            return zc_error_set(err, -EFBIG, "%s: too large for keys", file);
        if (n == 0)
            break;
    }
    r = zc_keyring_parse(b.p, b.len, out, err);
    explicit_bzero(b.p, b.len);
    if (r < 0)
        zc_error_prefix(err, "%s", file);
    return r;
}

int zc_member_keys_load(const char *file, struct zc_keyring **out, struct zc_error *err)
{
    struct stat st;
    return key_read(file, &st, out, err);
}

static int key_load(struct zc_member *m, struct zc_keyring **out, struct zc_error *err)
{
    struct stat st;
    int r = key_read(m->key_file, &st, out, err);
    if (r < 0)
        return r;
    m->key_mtime = st.st_mtim;
    m->key_size = st.st_size;
    m->key_ino = st.st_ino;
    if (m->keys_taken)
        m->keys_taken(m->keys_user, *out);
    return 0;
}

static void key_look(struct zc_member *m, bool force)
{
    struct stat st;
    struct zc_error err = {0};
    struct zc_keyring *keys = NULL;
    if (!force &&
        (stat(m->key_file, &st) < 0 ||
         (st.st_mtim.tv_sec == m->key_mtime.tv_sec && st.st_mtim.tv_nsec == m->key_mtime.tv_nsec &&
          st.st_size == m->key_size && st.st_ino == m->key_ino)))
        return;
    if (key_load(m, &keys, &err) < 0) {
        zc_warn("cluster: %s; the former keys stay", err.text);
        if (!force) { /* say it once */
            m->key_mtime = st.st_mtim;
            m->key_size = st.st_size;
            m->key_ino = st.st_ino;
        }
        return;
    }
    zc_info("cluster: %zu keys from %s", zc_keyring_count(keys), m->key_file);
    zc_keyring_free(m->file_keys);
    m->file_keys = m->frame.keys = keys;
    m->counters.keys_loaded++;
}

/* ---- the loop ---- */

static void read_packets(struct zc_member *m, int64_t now)
{
    for (int i = 0; i < DATAGRAMS_AT_ONCE; i++) {
        struct sockaddr_storage ss;
        socklen_t len = sizeof(ss);
        struct zc_swim_addr from;
        zc_autobuf struct zc_buf plain = {.max = ZC_WIRE_DATAGRAM_MAX};
        ssize_t n = recvfrom(m->udp, m->datagram, ZC_WIRE_DATAGRAM_MAX, MSG_DONTWAIT,
                             (struct sockaddr *)&ss, &len);
        if (n < 0)
            return;
        if (!addr_from_sockaddr(&ss, &from) ||
            zc_frame_open_packet(&m->frame, m->datagram, (size_t)n, &plain) < 0) {
            m->counters.packets_refused++;
            continue;
        }
        zc_swim_packet(m->core, now, &from, (uint8_t *)plain.p, plain.len);
    }
}

/* What other threads left; false: stop. */
static bool obey(struct zc_member *m, int64_t now)
{
    uint8_t meta[ZC_WIRE_META_MAX];
    struct zc_swim_addr *seeds = NULL;
    eventfd_t ignored;
    eventfd_read(m->wake, &ignored);
    pthread_mutex_lock(&m->lock);
    bool stop = m->stop, leave = m->leave, meta_new = m->meta_new;
    size_t n = m->meta_len;
    memcpy(meta, m->meta, n);
    m->meta_new = false;
    pthread_mutex_unlock(&m->lock);
    if (meta_new && zc_swim_set_meta(m->core, now, meta, n) == 0)
        m->dirty = true;
    if (leave)
        zc_swim_leave(m->core, now);
    int found = seeds_take(m->seeds, &seeds, &m->counters.lookups_failed);
    if (found >= 0)
        zc_swim_join(m->core, now, seeds, (size_t)found);
    free(seeds);
    if (m->key_file && atomic_exchange(&m->reload, false))
        key_look(m, true);
    return !stop;
}

static void publish(struct zc_member *m, int64_t now)
{
    struct zc_member_view *v = NULL;
    if (m->dirty && now >= m->view_at) {
        v = view_make(m->core);
        m->view_at = now + VIEW_EVERY;
        m->dirty = v == NULL;
    }
    zc_swim_stats(m->core, &m->counters.swim);
    pthread_mutex_lock(&m->lock);
    m->stats = m->counters;
    struct zc_member_view *old = v ? m->view : NULL;
    if (v)
        m->view = v;
    pthread_mutex_unlock(&m->lock);
    zc_member_view_unref(old);
    if (v && m->changed)
        m->changed(m->user);
}

static int pause_ms(const struct zc_member *m, int64_t now, int64_t conns)
{
    int64_t next = ZC_MIN(zc_swim_next(m->core), conns);
    if (m->dirty)
        next = ZC_MIN(next, m->view_at);
    if (m->key_file)
        next = ZC_MIN(next, m->key_check);
    if (next <= now)
        return 0;
    return (int)ZC_MIN((next - now + ZC_NS_PER_MS - 1) / ZC_NS_PER_MS, (int64_t)60000);
}

static void *member_main(void *arg)
{
    struct zc_member *m = arg;
    for (bool run = true; run;) {
        int64_t now = zc_now_ns();
        zc_swim_tick(m->core, now);
        int64_t conns = conn_sweep(m, now);
        if (m->key_file && now >= m->key_check) {
            m->key_check = now + KEY_CHECK;
            key_look(m, false);
        }
        publish(m, now);
        struct epoll_event ready[64];
        int n = epoll_wait(m->epoll, ready, ZC_ARRAY_SIZE(ready), pause_ms(m, now, conns));
        now = zc_now_ns();
        for (int i = 0; i < n; i++) {
            void *what = ready[i].data.ptr;
            if (what == &m->udp)
                read_packets(m, now);
            else if (what == &m->tcp)
                conn_accept(m, now);
            else if (what == &m->wake)
                run = obey(m, now);
            else
                conn_ready(m, what, now);
        }
    }
    return NULL;
}

/* ---- start and stop ---- */

static int listen_on(struct zc_member *m, const struct sockaddr *bind_to, struct zc_error *err)
{
    struct sockaddr_storage ss = {0};
    socklen_t len =
        bind_to->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    memcpy(&ss, bind_to, len);
    in_port_t *port = ss.ss_family == AF_INET6 ? &((struct sockaddr_in6 *)&ss)->sin6_port
                                               : &((struct sockaddr_in *)&ss)->sin_port;
    bool any = *port == 0;
    int one = 1, e = 0;
    m->ipv6 = ss.ss_family == AF_INET6;
    /* A free port is one for both: TCP's may be taken where UDP's was free. */
    for (int i = 0; i < (any ? BIND_TRIES : 1); i++) {
        if (any)
            *port = 0;
        m->udp = socket(ss.ss_family, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        m->tcp = socket(ss.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        socklen_t got = sizeof(ss);
        if (m->udp >= 0 && m->tcp >= 0 &&
            setsockopt(m->tcp, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
            bind(m->udp, (struct sockaddr *)&ss, len) == 0 &&
            getsockname(m->udp, (struct sockaddr *)&ss, &got) == 0 &&
            bind(m->tcp, (struct sockaddr *)&ss, len) == 0 && listen(m->tcp, 128) == 0) {
            /* All members ping a newcomer at once. What the system allows has to do. */
            setsockopt(m->udp, SOL_SOCKET, SO_RCVBUF, &(int){UDP_BUFFER}, sizeof(int));
            addr_from_sockaddr(&ss, &m->listen);
            return 0;
        }
        e = errno;
        if (m->udp >= 0)
            close(m->udp);
        if (m->tcp >= 0)
            close(m->tcp);
        m->udp = m->tcp = -1;
    }
    return zc_error_set(err, -e, "cannot listen for the cluster on port %u: %s", ntohs(*port),
                        strerror(e));
}

static int watch(struct zc_member *m, int *fd)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = fd};
    return epoll_ctl(m->epoll, EPOLL_CTL_ADD, *fd, &e) < 0 ? -errno : 0;
}

static int make_core(struct zc_member *m, const struct zc_member_config *c, struct zc_error *err)
{
    struct zc_swim_config s;
    if (c->swim)
        s = *c->swim;
    else
        zc_swim_defaults(&s);
    struct sockaddr_storage ss = {0};
    s.addr = m->listen;
    if (c->advertise) {
        memcpy(&ss, c->advertise,
               c->advertise->sa_family == AF_INET6 ? sizeof(struct sockaddr_in6)
                                                   : sizeof(struct sockaddr_in));
        if (!addr_from_sockaddr(&ss, &s.addr))
            return zc_error_set(err, -EINVAL, "what is advertised is not an address");
        if (s.addr.port == 0)
            s.addr.port = m->listen.port;
    }
    s.name = c->name;
    s.meta = c->meta;
    s.meta_len = c->meta_len;
    s.packet_max = ZC_WIRE_PACKET_MAX - zc_frame_overhead(&m->frame);
    s.pool = NULL;
    m->core = zc_swim_new(&s, &ops, m, zc_now_ns());
    m->view = m->core ? view_make(m->core) : NULL;
    return m->view ? 0
                   : zc_error_set(err, -EINVAL, "a node of this name cannot be made: %s",
                                  c->name ? c->name : "none");
}

static int make(struct zc_member *m, const struct zc_member_config *c, struct zc_error *err)
{
    struct zc_keyring *keys = c->keys;
    m->datagram = malloc(ZC_WIRE_DATAGRAM_MAX);
    m->epoll = epoll_create1(EPOLL_CLOEXEC);
    m->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    m->changed = c->changed;
    m->user = c->user;
    if (!m->datagram || m->epoll < 0 || m->wake < 0)
        return zc_error_set(err, -ENOMEM, "no memory or descriptors for the cluster");
    m->keys_taken = c->keys_taken;
    m->keys_user = c->keys_user;
    if (c->key_file) {
        m->key_file = strdup(c->key_file);
        if (!m->key_file)
            return zc_error_set(err, -ENOMEM, "no memory");
        int r = key_load(m, &m->file_keys, err);
        if (r < 0)
            return r;
        keys = m->file_keys;
    }
    if (zc_frame_init(&m->frame, c->label ? c->label : "zcache", keys, c->compress) < 0)
        return zc_error_set(err, -EINVAL, "the cluster's label is too long");
    int r = listen_on(m, c->bind, err);
    if (r == 0)
        r = make_core(m, c, err);
    if (r < 0)
        return r;
    if (watch(m, &m->udp) < 0 || watch(m, &m->tcp) < 0 || watch(m, &m->wake) < 0)
        return zc_error_set(err, -errno, "epoll: %s", strerror(errno));
    return seeds_start(c->seeds ? c->seeds : "", ZC_MEMBER_PORT, m->wake, &m->seeds, err);
}

static void member_free(struct zc_member *m)
{
    seeds_stop(m->seeds);
    conn_close_all(m);
    int fds[] = {m->epoll, m->udp, m->tcp, m->wake};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(fds); i++)
        if (fds[i] >= 0)
            close(fds[i]);
    zc_swim_free(m->core);
    zc_frame_free(&m->frame);
    zc_keyring_free(m->file_keys);
    zc_member_view_unref(m->view);
    zc_buf_free(&m->packet);
    free(m->datagram);
    free(m->key_file);
    pthread_cond_destroy(&m->cond);
    pthread_mutex_destroy(&m->lock);
    free(m);
}

int zc_member_start(const struct zc_member_config *c, struct zc_member **out, struct zc_error *err)
{
    struct zc_member *m = calloc(1, sizeof(*m));
    if (!m)
        return zc_error_set(err, -ENOMEM, "no memory");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&m->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&m->lock, NULL);
    m->epoll = m->udp = m->tcp = m->wake = -1;
    int r = make(m, c, err);
    if (r == 0) {
        sigset_t all, was;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &was);
        r = -pthread_create(&m->thread, NULL, member_main, m);
        pthread_sigmask(SIG_SETMASK, &was, NULL);
        if (r < 0)
            zc_error_set(err, r, "cannot start a thread: %s", strerror(-r));
    }
    if (r < 0) {
        member_free(m);
        return r;
    }
    *out = m;
    return 0;
}

static void wake(struct zc_member *m)
{
    uint64_t one = 1;
    /* It fails only when the counter is full, and then the thread is awake. */
    if (write(m->wake, &one, sizeof(one)) < 0)
        return;
}

void zc_member_leave(struct zc_member *m)
{
    int64_t until = zc_now_ns() + LEAVE_MAX;
    struct timespec ts = {until / ZC_NS_PER_S, until % ZC_NS_PER_S};
    pthread_mutex_lock(&m->lock);
    m->leave = true;
    wake(m);
    while (!m->retired && zc_now_ns() < until)
        pthread_cond_timedwait(&m->cond, &m->lock, &ts);
    pthread_mutex_unlock(&m->lock);
}

void zc_member_stop(struct zc_member *m)
{
    if (!m)
        return;
    pthread_mutex_lock(&m->lock);
    m->stop = true;
    pthread_mutex_unlock(&m->lock);
    wake(m);
    pthread_join(m->thread, NULL);
    member_free(m);
}

/* ---- what others see and say ---- */

struct zc_member_view *zc_member_view(struct zc_member *m)
{
    pthread_mutex_lock(&m->lock);
    struct zc_member_view *v = m->view;
    atomic_fetch_add_explicit(&v->refs, 1, memory_order_relaxed);
    pthread_mutex_unlock(&m->lock);
    return v;
}

int zc_member_set_meta(struct zc_member *m, const uint8_t *meta, size_t n)
{
    if (n > ZC_WIRE_META_MAX)
        return -EMSGSIZE;
    pthread_mutex_lock(&m->lock);
    if (n)
        memcpy(m->meta, meta, n);
    m->meta_len = n;
    m->meta_new = true;
    pthread_mutex_unlock(&m->lock);
    wake(m);
    return 0;
}

void zc_member_reload(struct zc_member *m)
{
    atomic_store(&m->reload, true);
    wake(m);
}

void zc_member_stats(struct zc_member *m, struct zc_member_stats *out)
{
    pthread_mutex_lock(&m->lock);
    *out = m->stats;
    pthread_mutex_unlock(&m->lock);
}

void zc_member_addr(struct zc_member *m, struct zc_swim_addr *out)
{
    *out = m->listen;
}
