/* SPDX-License-Identifier: Apache-2.0 */
#include "fetchtest.h"

#include "unit.h"

#include <errno.h>
#include <string.h>

static struct ft_script *script_of(struct zc_backend *be)
{
    return zc_container_of(be, struct ft_script, be);
}

static int script_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void script_list(struct zc_backend *be, struct zc_list_req *req)
{
    req->done(req, -ENOSYS, NULL, 0, NULL, 0);
}

static void script_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    req->done(req, -ENOSYS, NULL);
}

static void script_get(struct zc_backend *be, struct zc_get_req *req)
{
    struct ft_script *s = script_of(be);
    pthread_mutex_lock(&s->lock);
    s->get[s->n++] = req;
    pthread_mutex_unlock(&s->lock);
}

static void script_cancel(struct zc_backend *be, struct zc_req *req)
{
    script_of(be)->cancels++;
}

static void script_free(struct zc_backend *be)
{
    struct ft_script *s = script_of(be);
    pthread_mutex_destroy(&s->lock);
    free(be->url);
    free(s);
}

static const struct zc_backend_ops script_ops = {.name = "script",
                                                 .probe = script_probe,
                                                 .list = script_list,
                                                 .stat = script_stat,
                                                 .get = script_get,
                                                 .cancel = script_cancel,
                                                 .free = script_free};

void ft_open_at(struct ft_world *w, char *take_dir, uint64_t cache_size)
{
    struct zc_cache_config cfg;
    *w = (struct ft_world){.dir = take_dir, .s = calloc(1, sizeof(*w->s))};
    cfg = ct_config(w->dir);
    if (cache_size)
        cfg.size = cache_size;
    w->cache = ct_open(&cfg);
    struct zc_fetch_config f = {.chunk_size = CT_CHUNK, .memory = 4 * CT_CHUNK, .seed = CT_SEED};
    assert_int_equal(zc_fetch_new(&f, w->cache, &w->fetch), 0);
    w->s->be =
        (struct zc_backend){.ops = &script_ops, .url = strdup("script:"), .stats = &w->s->stats};
    pthread_mutex_init(&w->s->lock, NULL);
    assert_int_equal(zc_fetch_src_new(w->fetch, &w->s->be, "script:", &w->src), 0);
}

void ft_open(struct ft_world *w, uint64_t cache_size)
{
    ft_open_at(w, ct_mkdir(), cache_size);
}

void ft_close(struct ft_world *w)
{
    zc_fetch_free(w->fetch);
    zc_cache_close(w->cache);
    zc_backend_free(&w->s->be);
    ct_rmdir(w->dir);
}

struct zc_object *ft_object(struct ft_world *w, const char *version)
{
    struct zc_object *o;
    assert_int_equal(zc_object_open(w->fetch, w->src, "a", version, FT_SIZE, &o), 0);
    return o;
}

int ft_feed(struct ft_world *w, unsigned i, uint64_t n)
{
    struct zc_get_req *req = w->s->get[i];
    uint8_t *p = malloc(n);
    ct_fill(1, req->off + w->s->fed[i], p, n);
    int r = req->data(req, p, n);
    free(p);
    if (r == 0)
        w->s->fed[i] += n;
    return r;
}

void ft_end(struct ft_world *w, unsigned i, int err)
{
    struct zc_get_req *req = w->s->get[i];
    w->s->get[i] = NULL;
    req->done(req, err);
}

void ft_serve(struct ft_world *w, unsigned i)
{
    assert_int_equal(ft_feed(w, i, w->s->get[i]->len - w->s->fed[i]), 0);
    ft_end(w, i, 0);
}

void ft_serve_all(struct ft_world *w)
{
    for (unsigned i = 0; i < w->s->n; i++) {
        if (w->s->get[i])
            ft_serve(w, i);
    }
}

static void want_done(struct zc_waiter *w, int err)
{
    struct ft_want *x = zc_container_of(w, struct ft_want, w);
    x->done++;
    x->err = err;
}

int ft_want(struct zc_object *o, struct ft_want *x, uint64_t off, uint64_t len, bool exact)
{
    *x = (struct ft_want){.w.done = want_done};
    return zc_object_want(o, off, len, exact, ZC_PRIO_DEMAND, &x->w);
}

bool ft_good(struct zc_object *o, uint64_t off, size_t len)
{
    uint8_t *got = malloc(len), *right = malloc(len);
    ct_fill(1, off, right, len);
    bool same = zc_object_read(o, got, off, len) == (ssize_t)len && memcmp(got, right, len) == 0;
    free(got);
    free(right);
    return same;
}
