/* SPDX-License-Identifier: Apache-2.0 */
#include "httptest.h"

#include "base/list.h"

#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

struct ht_server {
    ht_fn *fn;
    void *user;
    int fd;
    unsigned port;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t idle;
    struct zc_list connections;
    unsigned open, most_open, connected, requests;
    bool stop;
};

struct ht_connection {
    struct zc_list link;
    struct ht_server *s;
    int fd;
    unsigned n;
    struct ht_request req;
};

bool ht_write(int fd, const void *p, size_t n)
{
    while (n > 0) {
        ssize_t w = send(fd, p, n, MSG_NOSIGNAL);
        if (w <= 0)
            return false;
        p = (const char *)p + w;
        n -= (size_t)w;
    }
    return true;
}

bool ht_reply(int fd, int status, const char *headers, const void *body, size_t n)
{
    char head[4096];
    int len = snprintf(head, sizeof(head), "HTTP/1.1 %d Status\r\nContent-Length: %zu\r\n%s\r\n",
                       status, n, headers ? headers : "");
    return ht_write(fd, head, (size_t)len) && (!body || ht_write(fd, body, n));
}

const char *ht_header(const struct ht_request *req, const char *name, char out[1024])
{
    size_t k = strlen(name);
    for (const char *l = strstr(req->head, "\r\n"); l; l = strstr(l, "\r\n")) {
        l += 2;
        if (strncasecmp(l, name, k) != 0 || l[k] != ':')
            continue;
        l += k + 1;
        while (*l == ' ')
            l++;
        snprintf(out, 1024, "%.*s", (int)strcspn(l, "\r\n"), l);
        return out;
    }
    return NULL;
}

void ht_fill(unsigned char *p, uint64_t off, size_t n)
{
    for (size_t i = 0; i < n; i++)
        p[i] = ht_byte(off + i);
}

static bool ht_read_request(int fd, struct ht_request *r)
{
    size_t len = 0;
    char *end = NULL, value[1024];
    while (!end) {
        if (len + 1 >= sizeof(r->head) || recv(fd, r->head + len, 1, 0) != 1)
            return false;
        r->head[++len] = '\0';
        end = len >= 4 && memcmp(r->head + len - 4, "\r\n\r\n", 4) == 0 ? r->head : NULL;
    }
    if (sscanf(r->head, "%15s %4095s", r->method, r->target) != 2)
        return false;
    r->body_len = ht_header(r, "Content-Length", value) ? strtoul(value, NULL, 10) : 0;
    r->body = malloc(r->body_len + 1);
    if (r->body_len && ht_header(r, "Expect", value) &&
        !ht_write(fd, "HTTP/1.1 100 Continue\r\n\r\n", 25))
        return false;
    return r->body_len == 0 || recv(fd, r->body, r->body_len, MSG_WAITALL) == (ssize_t)r->body_len;
}

static void *ht_serve(void *arg)
{
    struct ht_connection *c = arg;
    struct ht_server *s = c->s;
    bool more = true;
    while (more && ht_read_request(c->fd, &c->req)) {
        pthread_mutex_lock(&s->lock);
        c->req.n = s->requests++;
        pthread_mutex_unlock(&s->lock);
        c->req.connection = c->n;
        more = s->fn(s->user, c->fd, &c->req);
        free(zc_steal_ptr(&c->req.body));
    }
    pthread_mutex_lock(&s->lock);
    zc_list_del(&c->link);
    close(c->fd);
    if (--s->open == 0)
        pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    free(c->req.body);
    free(c);
    return NULL;
}

static void *ht_accept(void *arg)
{
    struct ht_server *s = arg;
    int fd;
    while ((fd = accept(s->fd, NULL, NULL)) >= 0) {
        struct ht_connection *c = calloc(1, sizeof(*c));
        pthread_t t;
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one,
                   sizeof(one)); /* head and body are two writes */
        pthread_mutex_lock(&s->lock);
        c->s = s;
        c->fd = fd;
        c->n = s->connected++;
        zc_list_push_back(&s->connections, &c->link);
        s->open++;
        s->most_open = ZC_MAX(s->most_open, s->open);
        bool stop = s->stop;
        pthread_mutex_unlock(&s->lock);
        if (stop)
            shutdown(fd, SHUT_RDWR);
        pthread_create(&t, NULL, ht_serve, c);
        pthread_detach(t);
    }
    return NULL;
}

struct ht_server *ht_start(ht_fn *fn, void *user)
{
    struct ht_server *s = calloc(1, sizeof(*s));
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);
    s->fn = fn;
    s->user = user;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    zc_list_init(&s->connections);
    s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s->fd < 0 || bind(s->fd, (struct sockaddr *)&a, n) < 0 || listen(s->fd, 512) < 0 ||
        getsockname(s->fd, (struct sockaddr *)&a, &n) < 0)
        abort();
    s->port = ntohs(a.sin_port);
    pthread_create(&s->thread, NULL, ht_accept, s);
    return s;
}

void ht_stop(struct ht_server *s)
{
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    shutdown(s->fd, SHUT_RDWR);
    zc_list_for_each (it, &s->connections)
        shutdown(zc_list_entry(it, struct ht_connection, link)->fd, SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    pthread_mutex_lock(&s->lock);
    while (s->open)
        pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
    close(s->fd);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

unsigned ht_port(const struct ht_server *s)
{
    return s->port;
}

static unsigned ht_count(struct ht_server *s, const unsigned *n)
{
    pthread_mutex_lock(&s->lock);
    unsigned v = *n;
    pthread_mutex_unlock(&s->lock);
    return v;
}

unsigned ht_requests(struct ht_server *s)
{
    return ht_count(s, &s->requests);
}

unsigned ht_connections(struct ht_server *s)
{
    return ht_count(s, &s->connected);
}

unsigned ht_most_open(struct ht_server *s)
{
    return ht_count(s, &s->most_open);
}
