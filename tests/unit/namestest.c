/* SPDX-License-Identifier: Apache-2.0 */
#include "namestest.h"

#include "unit.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static struct nt_shop *shop_of(struct zc_backend *be)
{
    return zc_container_of(be, struct nt_shop, be);
}

struct zc_attr *nt_find(struct nt_shop *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->entries[i].name, name) == 0)
            return &s->entries[i].attr;
    }
    return NULL;
}

struct zc_attr *nt_put(struct nt_shop *s, const char *name, const char *version)
{
    struct zc_attr *a = nt_find(s, name);
    if (!a) {
        s->entries = realloc(s->entries, (s->n + 1) * sizeof(*s->entries));
        s->entries[s->n].name = strdup(name);
        a = &s->entries[s->n++].attr;
    }
    *a = (struct zc_attr){.kind = version ? ZC_KIND_FILE : ZC_KIND_DIR,
                          .size = version ? 10 : 0,
                          .mtime_ns = 5,
                          .mode = 0755,
                          .uid = 11,
                          .gid = 12,
                          .version = version ? version : ""};
    return a;
}

void nt_drop(struct nt_shop *s, const char *name)
{
    for (unsigned i = 0; i < s->n; i++) {
        if (strcmp(s->entries[i].name, name) == 0) {
            free((char *)s->entries[i].name);
            memmove(&s->entries[i], &s->entries[i + 1], (s->n - i - 1) * sizeof(*s->entries));
            s->n--;
            return;
        }
    }
}

static void shop_list_now(struct nt_shop *s, struct zc_list_req *req)
{
    unsigned at = req->token ? (unsigned)strtoul(req->token, NULL, 10) : 0;
    char next[20];
    s->pages++;
    memset(req->base.priv, 0, sizeof(req->base.priv));
    if (s->down || *req->path || atomic_load(&req->base.cancelled)) {
        int err = s->down ? s->down : *req->path ? -ENOENT : -ECANCELED;
        req->done(req, err, NULL, 0, NULL, 0);
        return;
    }
    unsigned n = ZC_MIN(s->n - at, NT_PAGE);
    snprintf(next, sizeof(next), "%u", s->circles && at ? at : at + n);
    req->done(req, 0, n ? s->entries + at : NULL, n, at + n < s->n ? next : NULL, 0);
}

static void shop_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct nt_shop *s = shop_of(be);
    s->lists += !req->token;
    s->deadline_ns = req->base.deadline_ns;
    if (s->hold)
        s->held = req;
    else
        shop_list_now(s, req);
}

void nt_release(struct nt_shop *s)
{
    s->hold = false;
    shop_list_now(s, zc_steal_ptr(&s->held));
}

static void shop_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct nt_shop *s = shop_of(be);
    struct zc_attr *a = *req->path ? nt_find(s, req->path) : &s->root;
    *(*req->path ? &s->stats : &s->root_stats) += 1;
    s->deadline_ns = req->base.deadline_ns;
    int err = s->down ? s->down : a ? 0 : -ENOENT;
    req->done(req, err, err ? NULL : a);
}

static void shop_get(struct zc_backend *be, struct zc_get_req *req)
{
    req->done(req, -EIO);
}

static int shop_probe(struct zc_backend *be, struct zc_error *err)
{
    return 0;
}

static void shop_free(struct zc_backend *be)
{
    struct nt_shop *s = shop_of(be);
    for (unsigned i = 0; i < s->n; i++)
        free((char *)s->entries[i].name);
    free(s->entries);
}

static const struct zc_backend_ops shop_ops = {.name = "shop",
                                               .probe = shop_probe,
                                               .list = shop_list,
                                               .stat = shop_stat,
                                               .get = shop_get,
                                               .free = shop_free};

void nt_put_many(struct nt_shop *s)
{
    char name[20];
    s->entries = realloc(s->entries, NT_MANY * sizeof(*s->entries));
    for (unsigned i = 0; i < NT_MANY; i++) {
        snprintf(name, sizeof(name), "f%u", i);
        s->entries[i] = (struct zc_entry){
            .name = strdup(name),
            .attr = {.kind = ZC_KIND_FILE, .size = 1, .mode = 0644, .version = "v"}};
    }
    s->n = NT_MANY;
}

const struct zc_vfs_source_config nt_believed = {
    .at = "",
    .ttl_ns = 60 * ZC_NS_PER_S,
    .negative_ttl_ns = -1,
    .uid = ZC_ID_UNSET,
    .gid = ZC_ID_UNSET,
    .file_mode = ZC_ID_UNSET,
    .dir_mode = ZC_ID_UNSET,
};

void nt_new(struct nt_names *t, struct zc_vfs_source_config cfg)
{
    *t = (struct nt_names){.shop.be = {.ops = &shop_ops, .url = "shop:"},
                           .shop.root = {.kind = ZC_KIND_DIR,
                                         .version = "",
                                         .mode = 0700,
                                         .uid = 21,
                                         .gid = 22,
                                         .mtime_ns = 77}};
    t->shop.be.stats = &t->shop.counters;
    vt_new(&t->w);
    cfg.be = &t->shop.be;
    if (!cfg.identity)
        cfg.identity = t->shop.be.url;
    assert_int_equal(zc_vfs_source_add(t->w.v, &cfg, &t->source, NULL), 0);
}

void nt_free(struct nt_names *t)
{
    vt_free(&t->w);
    zc_backend_free(&t->shop.be);
}

void nt_later(struct nt_names *t, unsigned seconds)
{
    t->w.v->start_ns -= seconds * ZC_NS_PER_S;
}

int nt_look(struct nt_names *t, const char *path, struct zc_node *out)
{
    return vt_walk(&t->w, path, out);
}

struct zc_dirh *nt_opened(struct nt_names *t)
{
    struct vt_answer a = VT_ANSWER;
    zc_vfs_opendir(t->w.v, ZC_NODE_ROOT, vt_on_opendir, &a);
    assert_int_equal(vt_answer_get(&a), 0);
    return a.dh;
}

void nt_listed(struct nt_names *t)
{
    zc_vfs_closedir(nt_opened(t));
}
