/* SPDX-License-Identifier: Apache-2.0 */
#include "wraptest.h"

#include "httptest.h"
#include "unit.h"

#include <stdio.h>

static int get_data(struct zc_get_req *req, const void *p, size_t n)
{
    struct wt_get *g = zc_container_of(req, struct wt_get, req);
    for (size_t i = 0; i < n; i++)
        g->wrong += ((const unsigned char *)p)[i] != ht_byte(req->off + g->got + i);
    g->got += n;
    return g->stop_with;
}

static void get_done(struct zc_get_req *req, int err)
{
    struct wt_get *g = zc_container_of(req, struct wt_get, req);
    pthread_mutex_lock(&g->lock);
    g->err = err;
    g->ended++;
    pthread_cond_signal(&g->cond);
    pthread_mutex_unlock(&g->lock);
}

struct wt_get *wt_get_new(const char *name, uint64_t size, uint64_t off, uint64_t len,
                          enum zc_prio prio)
{
    struct wt_get *g = calloc(1, sizeof(*g));
    snprintf(g->path, sizeof(g->path), "o/%s/%llu", name, (unsigned long long)size);
    pthread_mutex_init(&g->lock, NULL);
    pthread_cond_init(&g->cond, NULL);
    g->req = (struct zc_get_req){.base = {.prio = prio},
                                 .path = g->path,
                                 .version = "v",
                                 .off = off,
                                 .len = len,
                                 .data = get_data,
                                 .done = get_done};
    return g;
}

int wt_get_wait(struct wt_get *g)
{
    pthread_mutex_lock(&g->lock);
    while (!g->ended)
        pthread_cond_wait(&g->cond, &g->lock);
    assert_int_equal(g->ended, 1);
    pthread_mutex_unlock(&g->lock);
    assert_int_equal(g->wrong, 0);
    assert_null(g->req.base.priv[0]);
    assert_null(g->req.base.priv[1]);
    assert_null(g->req.base.priv[2]);
    return g->err;
}

bool wt_get_ended(struct wt_get *g)
{
    pthread_mutex_lock(&g->lock);
    bool ended = g->ended;
    pthread_mutex_unlock(&g->lock);
    return ended;
}

void wt_get_free(struct wt_get *g)
{
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->lock);
    free(g);
}
