/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A loop: one thread, one epoll set, one curl multi handle, one heap of timers.
 *
 * Posts come in over a lock-free stack; the eventfd is written only by the post that finds it
 * empty, and never by the loop's own callbacks, which may start the next request as one ends.
 * Before it sleeps the loop looks at the stack once more.
 *
 * curl asks to stop watching a socket whenever a request ends, and to watch it again when the next
 * one begins. A keep-alive connection is left in the epoll set instead and dropped only if
 * something happens on it meanwhile: that saves two system calls a request. It is done for sockets
 * that our own callbacks open and close, because a descriptor that was closed behind our back
 * leaves the set without a word.
 *
 * Stalls and deadlines are looked for by a sweep over what is active: curl's own timers would cost
 * a tree operation for each request, and its idea of "too slow" is an average.
 */
#include "net/net_priv.h"

#include "base/log.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#define LOOP_EVENTS 128

/* The stack of a loop that has ended; never written. */
static struct net_post net_sealed;

/* ---- posts ---- */

void net_loop_wake(struct net_loop *l)
{
    uint64_t one = 1;
    ssize_t n = write(l->evfd, &one, sizeof(one));
    (void)n; /* EAGAIN: it is awake */
}

int net_loop_post(struct net_loop *l, struct net_post *post)
{
    struct net_post *head = atomic_load(&l->posts);
    do {
        if (head == &net_sealed)
            return -ESHUTDOWN;
        post->next = head;
    } while (!atomic_compare_exchange_weak(&l->posts, &head, post));
    if (!head && !pthread_equal(pthread_self(), l->thread))
        net_loop_wake(l);
    return 0;
}

static void loop_finish(struct net_loop *l, struct zc_http_priv *p, int err)
{
    struct zc_http *req = p->req;
    zc_list_del(&p->link);
    p->req = NULL;
    req->done(req, err);
    net_priv_unref(p);
}

/* Ends an active request. */
static void loop_end(struct net_loop *l, struct zc_http_priv *p, CURLcode result)
{
    int err = net_transfer_end(l, p, result);
    l->n_active--;
    loop_finish(l, p, err);
}

static int64_t loop_stall_ns(const struct zc_http *req)
{
    return req->stall_ns ? req->stall_ns : 15 * ZC_NS_PER_S;
}

/* Since when nothing came of it, or of those that it waits for. */
static int64_t loop_still_ns(const struct zc_http_priv *p)
{
    return p->easy ? p->progress_ns : ZC_MAX(p->progress_ns, p->loop->moved_ns);
}

/* Starts what waits for one of the loop's connections. */
static void loop_admit(struct net_loop *l)
{
    while (l->n_active < l->net->per_loop) {
        struct zc_list *it = zc_list_pop_front(&l->waiting);
        if (!it)
            return;
        struct zc_http_priv *p = zc_list_entry(it, struct zc_http_priv, link);
        p->progress_ns = loop_still_ns(p);
        int r = net_transfer_start(l, p);
        if (r < 0) {
            loop_finish(l, p, r);
            continue;
        }
        zc_list_push_back(&l->active, &p->link);
        if (l->n_active++ == 0)
            l->sweep_ns = l->now_ns + NET_SWEEP_NS;
    }
}

static void loop_cancel(struct net_loop *l, struct zc_http_priv *p)
{
    if (p->req) {
        p->cancelled = true;
        if (p->easy)
            loop_end(l, p, CURLE_ABORTED_BY_CALLBACK);
        else
            loop_finish(l, p, -ECANCELED);
    }
    net_priv_unref(p);
}

static void loop_take(struct net_loop *l, struct net_post *post)
{
    switch (post->kind) {
    case NET_POST_START: {
        struct zc_http_priv *p = zc_container_of(post, struct zc_http_priv, start);
        p->progress_ns = l->now_ns;
        zc_list_push_back(&l->waiting, &p->link);
        break;
    }
    case NET_POST_CANCEL:
        loop_cancel(l, zc_container_of(post, struct zc_http_priv, cancel));
        break;
    case NET_POST_TIMER: {
        struct net_timer_post *t = zc_container_of(post, struct net_timer_post, post);
        struct net_timer timer = t->timer;
        free(t);
        if (net_timers_add(&l->timers, timer.at_ns, timer.fn, timer.arg) < 0)
            timer.fn(timer.arg, true);
        break;
    }
    }
}

/* Takes all posts, in the order in which they came. Leaves `with` behind (NULL or the seal). */
static bool loop_take_posts(struct net_loop *l, struct net_post *with)
{
    struct net_post *post = atomic_exchange(&l->posts, with), *first = NULL;
    if (!post)
        return false;
    while (post) {
        struct net_post *next = post->next;
        post->next = first;
        first = post;
        post = next;
    }
    while (first) {
        struct net_post *next = first->next;
        loop_take(l, first);
        first = next;
    }
    return true;
}

/* ---- curl's sockets and timer ---- */

static struct net_sock *loop_sock(struct net_loop *l, int fd)
{
    if ((size_t)fd >= l->n_socks) {
        size_t n = ZC_MAX(l->n_socks * 2, (size_t)fd + 64);
        struct net_sock *socks = reallocarray(l->socks, n, sizeof(*socks));
        if (!socks)
            return NULL;
        memset(socks + l->n_socks, 0, (n - l->n_socks) * sizeof(*socks));
        l->socks = socks;
        l->n_socks = n;
    }
    return &l->socks[fd];
}

curl_socket_t net_loop_open_socket(void *loop, curlsocktype purpose, struct curl_sockaddr *addr)
{
    struct net_loop *l = loop;
    int fd = socket(addr->family, addr->socktype | SOCK_CLOEXEC, addr->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    struct net_sock *s = loop_sock(l, fd);
    if (s)
        *s = (struct net_sock){.ours = true};
    return fd;
}

int net_loop_close_socket(void *loop, curl_socket_t fd)
{
    struct net_loop *l = loop;
    if ((size_t)fd < l->n_socks)
        l->socks[fd] = (struct net_sock){0};
    return close(fd);
}

static int loop_watch(struct net_loop *l, int fd, struct net_sock *s, unsigned char events)
{
    struct epoll_event ev = {.events = events, .data.fd = fd};
    int op = !events ? EPOLL_CTL_DEL : s->in_epoll ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(l->epfd, op, fd, &ev) < 0) {
        if (op != EPOLL_CTL_DEL) {
            zc_err("epoll_ctl on a connection: %s", strerror(errno));
            return -1;
        }
    }
    s->in_epoll = events;
    return 0;
}

static int loop_on_socket(CURL *curl, curl_socket_t fd, int what, void *loop, void *unused)
{
    struct net_loop *l = loop;
    struct net_sock *s = loop_sock(l, fd);
    if (!s)
        return -1;
    unsigned char events = 0;
    if (what == CURL_POLL_IN || what == CURL_POLL_INOUT)
        events |= EPOLLIN;
    if (what == CURL_POLL_OUT || what == CURL_POLL_INOUT)
        events |= EPOLLOUT;
    s->wanted = events;
    if (events == s->in_epoll || (!events && s->ours && s->in_epoll == EPOLLIN))
        return 0;
    return loop_watch(l, fd, s, events);
}

static int loop_on_timer(CURLM *multi, long ms, void *loop)
{
    struct net_loop *l = loop;
    l->curl_at_ns = ms < 0 ? INT64_MAX : l->now_ns + ms * ZC_NS_PER_MS;
    return 0;
}

static void loop_collect(struct net_loop *l)
{
    CURLMsg *msg;
    int left;
    while ((msg = curl_multi_info_read(l->multi, &left))) {
        char *easy = NULL;
        CURLcode result = msg->data.result;
        if (msg->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(msg->easy_handle, CURLINFO_PRIVATE, &easy);
        loop_end(l, ((struct net_easy *)(void *)easy)->p, result);
    }
}

static void loop_event(struct net_loop *l, const struct epoll_event *ev)
{
    int fd = ev->data.fd, running;
    if (fd == l->evfd)
        return; /* edge-triggered: the count need not be read */
    struct net_sock *s = &l->socks[fd];
    if (!s->in_epoll)
        return; /* closed by an event before this one */
    if (!s->wanted) {
        loop_watch(l, fd, s, 0);
        return;
    }
    int mask = (ev->events & EPOLLIN ? CURL_CSELECT_IN : 0) |
               (ev->events & EPOLLOUT ? CURL_CSELECT_OUT : 0) |
               (ev->events & (EPOLLERR | EPOLLHUP) ? CURL_CSELECT_ERR : 0);
    curl_multi_socket_action(l->multi, fd, mask, &running);
}

/* ---- time ---- */

/* Moves what is too late from `list` to `late`, with words. */
static void loop_find_late(struct net_loop *l, struct zc_list *list, struct zc_list *late)
{
    zc_list_for_each_safe (it, tmp, list) {
        struct zc_http_priv *p = zc_list_entry(it, struct zc_http_priv, link);
        int64_t still = l->now_ns - loop_still_ns(p);
        bool stalled = still > loop_stall_ns(p->req);
        if (!stalled && !(p->req->deadline_ns && l->now_ns >= p->req->deadline_ns))
            continue;
        p->err = -ETIMEDOUT;
        snprintf(p->easy ? p->easy->err : p->req->why,
                 p->easy ? sizeof(p->easy->err) : sizeof(p->req->why),
                 stalled ? "no byte came for %.1f s" : "the deadline has passed",
                 (double)still / (double)ZC_NS_PER_S);
        zc_list_del(it);
        zc_list_push_back(late, it);
    }
}

static void loop_sweep(struct net_loop *l)
{
    struct zc_list late = ZC_LIST_INIT(late);
    loop_find_late(l, &l->active, &late);
    loop_find_late(l, &l->waiting, &late);
    /* Callbacks run now that no list is being walked. */
    for (struct zc_list *it; (it = zc_list_pop_front(&late));) {
        struct zc_http_priv *p = zc_list_entry(it, struct zc_http_priv, link);
        if (p->easy)
            loop_end(l, p, CURLE_OPERATION_TIMEDOUT);
        else
            loop_finish(l, p, -ETIMEDOUT);
    }
}

static void loop_run_due(struct net_loop *l)
{
    struct net_timer t;
    int running;
    /* Those that are due now; what they add is due later, or the next time round. */
    for (size_t n = l->timers.n; n > 0 && net_timers_take(&l->timers, l->now_ns, &t); n--)
        t.fn(t.arg, false);
    if (l->curl_at_ns <= l->now_ns) {
        l->curl_at_ns = INT64_MAX;
        curl_multi_socket_action(l->multi, CURL_SOCKET_TIMEOUT, 0, &running);
        loop_collect(l);
    }
    if (l->n_active && l->sweep_ns <= l->now_ns) {
        loop_sweep(l);
        l->sweep_ns = l->now_ns + NET_SWEEP_NS;
    }
}

/* Milliseconds to sleep, -1 for as long as it takes. */
static int loop_sleep_ms(struct net_loop *l)
{
    if (atomic_load(&l->posts) || atomic_load(&l->net->closing))
        return 0;
    if (!zc_list_empty(&l->waiting) && l->n_active < l->net->per_loop)
        return 0;
    int64_t at = ZC_MIN(l->curl_at_ns, net_timers_next(&l->timers));
    if (l->n_active)
        at = ZC_MIN(at, l->sweep_ns);
    if (at == INT64_MAX)
        return -1;
    int64_t ms = (at - zc_now_ns() + ZC_NS_PER_MS - 1) / ZC_NS_PER_MS;
    return (int)ZC_MIN(ZC_MAX(ms, (int64_t)0), (int64_t)60000);
}

/* ---- life ---- */

/* Tells everybody who is here of the end. */
static void loop_drain(struct net_loop *l)
{
    struct net_timer t;
    for (struct zc_list *it; (it = zc_list_pop_front(&l->active));) {
        struct zc_http_priv *p = zc_list_entry(it, struct zc_http_priv, link);
        p->cancelled = true;
        loop_end(l, p, CURLE_ABORTED_BY_CALLBACK);
    }
    for (struct zc_list *it; (it = zc_list_pop_front(&l->waiting));)
        loop_finish(l, zc_list_entry(it, struct zc_http_priv, link), -ECANCELED);
    while (net_timers_take(&l->timers, INT64_MAX, &t))
        t.fn(t.arg, true);
}

int64_t net_loop_starved_ns(struct net_loop *l)
{
    char text[80], *at; /* "nanoseconds on a processor, nanoseconds waited for one, times" */
    assert(pthread_equal(pthread_self(), l->thread));
    ssize_t n = l->schedfd < 0 ? -1 : pread(l->schedfd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return 0;
    text[n] = '\0';
    strtoull(text, &at, 10);
    return (int64_t)strtoull(at, NULL, 10);
}

static void *loop_thread(void *arg)
{
    struct net_loop *l = arg;
    struct epoll_event ev[LOOP_EVENTS];
    l->schedfd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    pthread_setname_np(pthread_self(), "zc-net");
    while (!atomic_load(&l->net->closing)) {
        int n = epoll_wait(l->epfd, ev, LOOP_EVENTS, loop_sleep_ms(l));
        l->now_ns = zc_now_ns();
        for (int i = 0; i < n; i++)
            loop_event(l, &ev[i]);
        loop_collect(l);
        loop_take_posts(l, NULL);
        loop_admit(l);
        loop_run_due(l);
    }
    /* Nothing new is let in by now; what was on its way is told too, and then the door is shut. */
    do
        loop_drain(l);
    while (loop_take_posts(l, NULL));
    loop_take_posts(l, &net_sealed);
    loop_drain(l);
    return NULL;
}

int net_loop_init(struct net_loop *l, struct zc_net *net)
{
    l->net = net;
    l->curl_at_ns = INT64_MAX;
    l->now_ns = zc_now_ns();
    zc_list_init(&l->active);
    zc_list_init(&l->waiting);
    zc_list_init(&l->idle);
    l->epfd = epoll_create1(EPOLL_CLOEXEC);
    l->evfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->epfd < 0 || l->evfd < 0)
        return -errno;
    struct epoll_event ev = {.events = EPOLLIN | EPOLLET, .data.fd = l->evfd};
    if (epoll_ctl(l->epfd, EPOLL_CTL_ADD, l->evfd, &ev) < 0)
        return -errno;
    l->multi = curl_multi_init();
    l->share = curl_share_init();
    if (!l->multi || !l->share)
        return -ENOMEM;
    /* TLS sessions are kept with a handle otherwise, and handles change. One thread: no locks. */
    curl_share_setopt(l->share, CURLSHOPT_SHARE, CURL_LOCK_DATA_SSL_SESSION);
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETFUNCTION, loop_on_socket);
    curl_multi_setopt(l->multi, CURLMOPT_SOCKETDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERFUNCTION, loop_on_timer);
    curl_multi_setopt(l->multi, CURLMOPT_TIMERDATA, l);
    curl_multi_setopt(l->multi, CURLMOPT_PIPELINING, (long)CURLPIPE_NOTHING);
    curl_multi_setopt(l->multi, CURLMOPT_MAXCONNECTS, (long)net->per_loop);
    return 0;
}

int net_loop_start(struct net_loop *l)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&l->thread, NULL, loop_thread, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return -r;
}

void net_loop_fini(struct net_loop *l)
{
    for (struct zc_list *it; l->idle.next && (it = zc_list_pop_front(&l->idle));)
        net_easy_free(zc_list_entry(it, struct net_easy, link));
    if (l->multi)
        curl_multi_cleanup(l->multi);
    if (l->share)
        curl_share_cleanup(l->share);
    net_timers_free(&l->timers);
    free(l->socks);
    if (l->epfd >= 0)
        close(l->epfd);
    if (l->evfd >= 0)
        close(l->evfd);
    if (l->schedfd >= 0)
        close(l->schedfd);
}
