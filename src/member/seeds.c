/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The seeds' names. A lookup may block for as long as the resolver's timeouts add up to, so that it
 * has a thread that is detached and shares only this struct: whoever is the last to leave frees it.
 * Names are looked up again, since the nodes behind one change: often until there is an address,
 * then from time to time.
 */
#include "member/driver.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

#define AGAIN (30 * ZC_NS_PER_S)
#define AGAIN_SOON (2 * ZC_NS_PER_S)

struct seed {
    char *host;
    char port[8];
    struct zc_swim_addr *last; /* of the last lookup that did not fail */
    size_t last_n;
};

struct seeds {
    struct seed *names;
    size_t n;
    int wake;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned refs; /* under lock, as is all below */
    bool stop, fresh;
    struct zc_swim_addr *addrs;
    size_t addrs_n;
    uint64_t failed;
};

static void unref(struct seeds *s)
{
    pthread_mutex_lock(&s->lock);
    bool last = --s->refs == 0;
    pthread_mutex_unlock(&s->lock);
    if (!last)
        return;
    for (size_t i = 0; i < s->n; i++) {
        free(s->names[i].host);
        free(s->names[i].last);
    }
    free(s->names);
    free(s->addrs);
    close(s->wake);
    pthread_cond_destroy(&s->cond);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static void add(struct zc_swim_addr *list, size_t *n, const struct zc_swim_addr *addr)
{
    if (*n == ZC_SWIM_SEEDS_MAX)
        return;
    for (size_t i = 0; i < *n; i++)
        if (zc_swim_addr_eq(&list[i], addr))
            return;
    list[(*n)++] = *addr;
}

/* Takes what was found as the name's addresses. */
static void keep(struct seed *name, const struct addrinfo *found)
{
    size_t n = 0, most = 0;
    for (const struct addrinfo *a = found; a; a = a->ai_next)
        most++;
    struct zc_swim_addr *list = calloc(most ? most : 1, sizeof(*list));
    if (!list)
        return;
    for (const struct addrinfo *a = found; a; a = a->ai_next) {
        struct sockaddr_storage ss = {0};
        struct zc_swim_addr addr;
        memcpy(&ss, a->ai_addr, ZC_MIN((size_t)a->ai_addrlen, sizeof(ss)));
        if (addr_from_sockaddr(&ss, &addr))
            add(list, &n, &addr);
    }
    free(name->last);
    name->last = list;
    name->last_n = n;
}

/* Looks all up; how many failed. The addresses of a name whose lookup fails are those of before: a
   resolver that fails does not take seeds away, and one name no others'. */
static unsigned look_up(const struct seeds *s, struct zc_swim_addr *list, size_t *n)
{
    const struct addrinfo want = {.ai_socktype = SOCK_DGRAM, .ai_flags = AI_NUMERICSERV};
    unsigned failed = 0;
    for (size_t i = 0; i < s->n; i++) {
        struct addrinfo *found = NULL;
        int e = getaddrinfo(s->names[i].host, s->names[i].port, &want, &found);
        if (e != 0) {
            zc_info("cluster: %s: %s; it is looked up again", s->names[i].host, gai_strerror(e));
            failed++;
        } else {
            keep(&s->names[i], found);
            freeaddrinfo(found);
        }
        for (size_t k = 0; k < s->names[i].last_n; k++)
            add(list, n, &s->names[i].last[k]);
    }
    return failed;
}

static bool same(const struct seeds *s, const struct zc_swim_addr *list, size_t n)
{
    size_t found = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t k = 0; k < s->addrs_n; k++)
            found += zc_swim_addr_eq(&list[i], &s->addrs[k]);
    return n == s->addrs_n && found == n;
}

static void *seeds_main(void *arg)
{
    struct seeds *s = arg;
    bool stop = false;
    while (!stop) {
        size_t n = 0;
        struct zc_swim_addr *list = calloc(ZC_SWIM_SEEDS_MAX, sizeof(*list));
        unsigned failed = list ? look_up(s, list, &n) : 1;
        pthread_mutex_lock(&s->lock);
        s->failed += failed;
        if (n > 0 && !same(s, list, n)) {
            free(s->addrs);
            s->addrs = zc_steal_ptr(&list);
            s->addrs_n = n;
            s->fresh = true;
        }
        free(list);
        if (s->fresh && eventfd_write(s->wake, 1) < 0)
            zc_warn("cluster: eventfd: %s", strerror(errno));
        int64_t until = zc_now_ns() + (failed ? AGAIN_SOON : AGAIN);
        struct timespec ts = {until / ZC_NS_PER_S, until % ZC_NS_PER_S};
        while (!s->stop && zc_now_ns() < until)
            pthread_cond_timedwait(&s->cond, &s->lock, &ts);
        stop = s->stop;
        pthread_mutex_unlock(&s->lock);
    }
    unref(s);
    return NULL;
}

/* HOST, HOST:PORT, [IPV6], [IPV6]:PORT, or a bare IPv6 address. */
static int parse_one(const char *p, size_t n, uint16_t port, struct seed *out, struct zc_error *err)
{
    const char *host = p, *end = p + n, *colon = NULL;
    size_t host_n = n;
    if (n > 0 && *p == '[') {
        const char *close = memchr(p, ']', n);
        if (!close || (close + 1 < end && close[1] != ':'))
            return zc_error_set(err, -EINVAL, "not an address: %.*s", (int)n, p);
        host = p + 1;
        host_n = (size_t)(close - host);
        colon = close + 1 < end ? close + 1 : NULL;
    } else {
        colon = memchr(p, ':', n);
        if (colon && memchr(colon + 1, ':', (size_t)(end - colon - 1)))
            colon = NULL;
        if (colon)
            host_n = (size_t)(colon - host);
    }
    unsigned long value = port;
    if (colon) {
        value = 0;
        for (const char *d = colon + 1; d < end && value < 65536; d++)
            value = *d >= '0' && *d <= '9' ? value * 10 + (unsigned)(*d - '0') : 65536;
    }
    if (host_n == 0 || value == 0 || value > 65535)
        return zc_error_set(err, -EINVAL, "not HOST[:PORT]: %.*s", (int)n, p);
    snprintf(out->port, sizeof(out->port), "%lu", value);
    out->last = NULL;
    out->last_n = 0;
    out->host = strndup(host, host_n);
    return out->host ? 0 : zc_error_set(err, -ENOMEM, "no memory");
}

static int parse(struct seeds *s, const char *text, uint16_t port, struct zc_error *err)
{
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ", ");
        if (n > 0) {
            struct seed *names = realloc(s->names, (s->n + 1) * sizeof(*names));
            if (!names)
                return zc_error_set(err, -ENOMEM, "no memory");
            s->names = names;
            int r = parse_one(p, n, port, &s->names[s->n], err);
            if (r < 0)
                return r;
            s->n++;
        }
        p += n + (p[n] != '\0');
    }
    return 0;
}

int seeds_start(const char *text, uint16_t port, int wake, struct seeds **out, struct zc_error *err)
{
    struct seeds *s = calloc(1, sizeof(*s));
    if (!s)
        return zc_error_set(err, -ENOMEM, "no memory");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->cond, &attr);
    pthread_condattr_destroy(&attr);
    pthread_mutex_init(&s->lock, NULL);
    s->refs = 1;
    s->wake = fcntl(wake, F_DUPFD_CLOEXEC, 0);
    int r = s->wake < 0 ? zc_error_set(err, -errno, "no descriptor") : parse(s, text, port, err);
    pthread_t thread;
    if (r == 0 && s->n > 0) {
        s->refs = 2;
        r = pthread_create(&thread, NULL, seeds_main, s);
        if (r == 0) {
            pthread_detach(thread);
        } else {
            s->refs = 1;
            r = zc_error_set(err, -r, "cannot start a thread: %s", strerror(r));
        }
    }
    if (r < 0) {
        unref(s);
        return r;
    }
    *out = s;
    return 0;
}

void seeds_stop(struct seeds *s)
{
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->cond);
    pthread_mutex_unlock(&s->lock);
    unref(s);
}

int seeds_take(struct seeds *s, struct zc_swim_addr **out, uint64_t *failed)
{
    int n = -1;
    pthread_mutex_lock(&s->lock);
    *failed = s->failed;
    if (s->fresh) {
        struct zc_swim_addr *copy = malloc(s->addrs_n * sizeof(*copy));
        if (copy) {
            memcpy(copy, s->addrs, s->addrs_n * sizeof(*copy));
            *out = copy;
            n = (int)s->addrs_n;
            s->fresh = false;
        }
    }
    pthread_mutex_unlock(&s->lock);
    return n;
}
