/* SPDX-License-Identifier: Apache-2.0 */
/* The room's doors: everything here only posts to a loop. */
#include "net/net_priv.h"

#include "base/buf.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sched.h>

#define NET_LOOPS_MAX 4
#define NET_CONNECTIONS 256
#define NET_WAIT_MAX ((size_t)64 << 20)

/* Cores that this process may use: a container's share, not the machine's. */
static unsigned net_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return (unsigned)ZC_MAX(CPU_COUNT(&set), 1);
}

static void net_destroy(struct zc_net *net)
{
    for (unsigned i = 0; i < net->n_loops; i++)
        net_loop_fini(&net->loops[i]);
    free(net);
    curl_global_cleanup();
}

static void net_join(struct zc_net *net, unsigned started)
{
    atomic_store(&net->closing, true);
    for (unsigned i = 0; i < started; i++)
        net_loop_wake(&net->loops[i]);
    for (unsigned i = 0; i < started; i++)
        pthread_join(net->loops[i].thread, NULL);
}

int zc_net_new(const struct zc_net_config *cfg, struct zc_net **out)
{
    unsigned n = cfg->loops ? cfg->loops : ZC_MIN(net_cores(), (unsigned)NET_LOOPS_MAX);
    unsigned connections = cfg->connections ? cfg->connections : NET_CONNECTIONS;
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return -ENOMEM;
    struct zc_net *net = calloc(1, sizeof(*net) + n * sizeof(net->loops[0]));
    if (!net) {
        curl_global_cleanup();
        return -ENOMEM;
    }
    net->n_loops = n;
    net->per_loop = ZC_MAX((connections + n - 1) / n, 1u);
    int r = 0;
    for (unsigned i = 0; i < n; i++)
        net->loops[i].epfd = net->loops[i].evfd = net->loops[i].schedfd = -1;
    for (unsigned i = 0; i < n && r == 0; i++)
        r = net_loop_init(&net->loops[i], net);
    unsigned started = 0;
    while (r == 0 && started < n) {
        r = net_loop_start(&net->loops[started]);
        started += r == 0;
    }
    if (r < 0) {
        net_join(net, started);
        net_destroy(net);
        return r;
    }
    *out = net;
    return 0;
}

void zc_net_stop(struct zc_net *net)
{
    atomic_store(&net->closing, true);
    for (unsigned i = 0; i < net->n_loops; i++)
        net_loop_wake(&net->loops[i]);
}

void zc_net_free(struct zc_net *net)
{
    if (!net)
        return;
    net_join(net, net->n_loops);
    net_destroy(net);
}

unsigned zc_net_loops(const struct zc_net *net)
{
    return net->n_loops;
}

int zc_net_start(struct zc_net *net, struct zc_http *req)
{
    assert(req->url && req->method && req->done);
    if (atomic_load(&net->closing))
        return -ESHUTDOWN;
    struct zc_http_priv *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    p->start.kind = NET_POST_START;
    p->cancel.kind = NET_POST_CANCEL;
    p->loop = &net->loops[req->loop % net->n_loops];
    p->req = req;
    atomic_store_explicit(&p->refs, 1, memory_order_relaxed);
    zc_list_init(&p->link);
    req->priv = p;
    req->status = 0;
    req->content_length = -1;
    req->why[0] = '\0';
    int r = net_loop_post(p->loop, &p->start);
    if (r < 0) {
        req->priv = NULL;
        free(p);
    }
    return r;
}

void zc_net_cancel(struct zc_net *net, struct zc_http *req)
{
    struct zc_http_priv *p = req->priv;
    if (!p || atomic_exchange(&p->cancel_posted, true))
        return;
    atomic_fetch_add(&p->refs, 1);
    if (net_loop_post(p->loop, &p->cancel) < 0)
        net_priv_unref(p);
}

int zc_net_timer(struct zc_net *net, unsigned loop, int64_t delay_ns, zc_net_fn *fn, void *arg)
{
    if (atomic_load(&net->closing))
        return -ESHUTDOWN;
    struct net_timer_post *t = calloc(1, sizeof(*t));
    if (!t)
        return -ENOMEM;
    t->post.kind = NET_POST_TIMER;
    t->timer = (struct net_timer){
        .at_ns = zc_now_ns() + ZC_MAX(delay_ns, (int64_t)0), .fn = fn, .arg = arg};
    int r = net_loop_post(&net->loops[loop % net->n_loops], &t->post);
    if (r < 0)
        free(t);
    return r;
}

int64_t zc_net_starved_ns(struct zc_net *net, unsigned loop)
{
    return net_loop_starved_ns(&net->loops[loop % net->n_loops]);
}

/* ---- a request that somebody stands and waits for ---- */

struct net_wait {
    struct zc_http http; /* what the loop works on: the caller's request with our callbacks */
    struct zc_http *orig;
    struct zc_buf body;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended;
    int err;
};

static void net_wait_copy(struct net_wait *w)
{
    w->orig->status = w->http.status;
    w->orig->content_length = w->http.content_length;
}

static void net_wait_header(struct zc_http *http, const char *line, size_t n)
{
    struct net_wait *w = zc_container_of(http, struct net_wait, http);
    net_wait_copy(w);
    if (w->orig->header)
        w->orig->header(w->orig, line, n);
}

static int net_wait_data(struct zc_http *http, const void *p, size_t n)
{
    struct net_wait *w = zc_container_of(http, struct net_wait, http);
    return zc_buf_add(&w->body, p, n);
}

static void net_wait_done(struct zc_http *http, int err)
{
    struct net_wait *w = zc_container_of(http, struct net_wait, http);
    pthread_mutex_lock(&w->lock);
    w->err = err;
    w->ended = true;
    pthread_cond_signal(&w->cond);
    pthread_mutex_unlock(&w->lock);
}

int zc_net_wait(struct zc_net *net, struct zc_http *req, size_t max, char **body, size_t *len)
{
    struct net_wait w = {
        .http = *req,
        .orig = req,
        .body = {.max = ZC_MIN(max ? max : NET_WAIT_MAX, NET_WAIT_MAX)},
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .cond = PTHREAD_COND_INITIALIZER,
    };
    w.http.header = net_wait_header;
    w.http.data = net_wait_data;
    w.http.done = net_wait_done;
    int r = net->n_loops ? zc_net_start(net, &w.http) : -ESHUTDOWN;
    if (r < 0)
        return r;
    pthread_mutex_lock(&w.lock);
    while (!w.ended)
        pthread_cond_wait(&w.cond, &w.lock);
    pthread_mutex_unlock(&w.lock);
    net_wait_copy(&w);
    memcpy(req->why, w.http.why, sizeof(req->why));
    r = w.err;
    size_t n = w.body.len;
    char *text = r == 0 ? zc_buf_steal(&w.body) : NULL;
    zc_buf_free(&w.body);
    pthread_cond_destroy(&w.cond);
    pthread_mutex_destroy(&w.lock);
    if (r < 0)
        return r;
    if (!text)
        return -ENOMEM;
    if (body)
        *body = text;
    else
        free(text);
    if (len)
        *len = n;
    return 0;
}
