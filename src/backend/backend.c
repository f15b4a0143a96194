/* SPDX-License-Identifier: Apache-2.0 */
/* The doorways: what every backend may take for granted is checked here once. */
#include "backend/backend.h"

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

/* -ECANCELED or -ETIMEDOUT for a request that need not be tried any more. */
static int backend_check(const struct zc_backend *be, struct zc_req *req)
{
    assert(req->prio < ZC_PRIO_N);
    assert(!req->priv[be->layer]);
    if (atomic_load(&req->cancelled))
        return zc_error_set(&req->err, -ECANCELED, "cancelled");
    if (req->deadline_ns && zc_now_ns() >= req->deadline_ns)
        return zc_error_set(&req->err, -ETIMEDOUT, "%s: the deadline has passed", be->url);
    return 0;
}

/* Relative, without a slash at either end. */
static bool backend_path_ok(const char *path)
{
    size_t n = strlen(path);
    return n == 0 || (path[0] != '/' && path[n - 1] != '/');
}

int zc_backend_probe(struct zc_backend *be, struct zc_error *err)
{
    return be->ops->probe(be, err);
}

void zc_backend_list(struct zc_backend *be, struct zc_list_req *req)
{
    assert(req->done && backend_path_ok(req->path));
    int r = backend_check(be, &req->base);
    if (r < 0)
        req->done(req, r, NULL, 0, NULL, 0);
    else
        be->ops->list(be, req);
}

void zc_backend_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    assert(req->done && backend_path_ok(req->path));
    int r = backend_check(be, &req->base);
    if (r < 0)
        req->done(req, r, NULL);
    else
        be->ops->stat(be, req);
}

void zc_backend_get(struct zc_backend *be, struct zc_get_req *req)
{
    assert(req->done && req->data && backend_path_ok(req->path));
    assert(req->len > 0 && req->off <= UINT64_MAX - req->len);
    assert(req->version && strlen(req->version) <= ZC_VERSION_MAX);
    int r = backend_check(be, &req->base);
    if (r < 0)
        req->done(req, r);
    else
        be->ops->get(be, req);
}

void zc_backend_cancel(struct zc_backend *be, struct zc_req *req)
{
    atomic_store(&req->cancelled, true);
    if (be->ops->cancel)
        be->ops->cancel(be, req);
}

void zc_backend_free(struct zc_backend *be)
{
    if (be)
        be->ops->free(be);
}
