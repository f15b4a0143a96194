/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attributes of a node: from memory, but for the roots of sources. No listing has those, and the
 * kernel decides by them who gets into the source at all; so the store is asked for them, at the
 * first look and whenever the time of the source's attributes is over. One look at a time waits for
 * that, for a short while; others, and those that a store that is away leaves without an answer,
 * get what is known.
 */
#include "vfs/internal.h"

#include <errno.h>
#include <unistd.h>

#define ROOT_DEADLINE (5 * ZC_NS_PER_S)
#define ROOT_RETRY_S 10 /* after a failure */

struct look {
    struct vfs_op op;
    struct zc_stat_req stat;
    struct zc_vfs *v;
    struct vfs_dir *d; /* pinned; where the root is an entry, NULL when it is the mount's root */
    uint32_t index;
    zc_vfs_lookup_fn *fn;
    void *user;
};

struct zc_attr vfs_root_attr(struct zc_vfs *v, const struct zc_vfs_source *s,
                             const struct zc_attr *known)
{
    uint32_t mode = s ? s->cfg.dir_mode : v->cfg.dir_mode;
    uint32_t uid = s ? s->cfg.uid : v->cfg.uid, gid = s ? s->cfg.gid : v->cfg.gid;
    struct zc_attr a = {.mode = ZC_ID_UNSET, .uid = ZC_ID_UNSET, .gid = ZC_ID_UNSET};
    if (known)
        a = *known;
    return (struct zc_attr){
        .kind = ZC_KIND_DIR,
        .mtime_ns = a.mtime_ns,
        .mode = mode != ZC_ID_UNSET     ? mode
                : a.mode != ZC_ID_UNSET ? a.mode & 07777
                                        : 0555,
        .uid = uid != ZC_ID_UNSET     ? uid
               : a.uid != ZC_ID_UNSET ? a.uid
                                      : (uint32_t)geteuid(),
        .gid = gid != ZC_ID_UNSET     ? gid
               : a.gid != ZC_ID_UNSET ? a.gid
                                      : (uint32_t)getegid(),
        .version = "",
    };
}

int64_t vfs_root_valid_ns(struct zc_vfs *v, struct zc_vfs_source *s)
{
    uint32_t checked = atomic_load(&s->root_checked_s), retry = atomic_load(&s->root_retry_s);
    uint32_t now = vfs_now_s(v);
    int64_t valid = 0;
    if (checked && s->cfg.ttl_ns == ZC_TTL_INDEFINITE)
        return ZC_TTL_INDEFINITE;
    if (checked)
        valid = s->cfg.ttl_ns - (int64_t)(now - checked) * ZC_NS_PER_S;
    if (retry > now)
        valid = ZC_MAX(valid, (int64_t)(retry - now) * ZC_NS_PER_S);
    return ZC_MAX(valid, (int64_t)0);
}

struct zc_vfs_source *vfs_source_at(struct zc_vfs *v, struct vfs_dir *d, uint32_t index)
{
    struct zc_vfs_source *s = NULL;
    if (d->src)
        return NULL;
    pthread_rwlock_rdlock(&v->lock);
    pthread_mutex_lock(&d->lock);
    if (index < d->n && !(d->entries[index].flags & VFS_GONE) && d->entries[index].child)
        s = v->dirs[d->entries[index].child]->src; /* a synthetic directory's children are pinned */
    pthread_mutex_unlock(&d->lock);
    pthread_rwlock_unlock(&v->lock);
    return s;
}

static void root_node(struct zc_vfs *v, struct zc_node *out)
{
    struct zc_vfs_source *s = v->root->src;
    pthread_mutex_lock(&v->root->lock);
    struct zc_attr a = vfs_root_attr(v, s, s ? &s->root_attr : NULL);
    pthread_mutex_unlock(&v->root->lock);
    *out = (struct zc_node){
        .id = ZC_NODE_ROOT,
        .ino = ZC_NODE_ROOT,
        .kind = ZC_KIND_DIR,
        .mtime_ns = a.mtime_ns,
        .mode = a.mode,
        .uid = a.uid,
        .gid = a.gid,
        .valid_ns = s ? vfs_root_valid_ns(v, s) : VFS_SYNTHETIC_NS,
    };
}

/* d NULL: the root. */
static int attr_now(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, struct zc_node *out)
{
    int r = -ESTALE;
    if (!d) {
        root_node(v, out);
        return 0;
    }
    pthread_mutex_lock(&d->lock);
    if (index < d->n && !vfs_dir_removed(d)) {
        vfs_entry_node(v, d, index, out);
        r = 0;
    }
    pthread_mutex_unlock(&d->lock);
    struct zc_vfs_source *s = vfs_source_at(v, d, index);
    if (r == 0 && s)
        out->valid_ns = ZC_MIN(out->valid_ns, vfs_root_valid_ns(v, s));
    return r;
}

static void attr_reply(struct zc_vfs *v, struct vfs_dir *d, uint32_t index, zc_vfs_lookup_fn *fn,
                       void *user)
{
    struct zc_node node = {0};
    int r = attr_now(v, d, index, &node);
    if (d)
        vfs_dir_unpin(v, d);
    fn(user, r, &node);
}

/* Under the lock of the directory that shows it. */
static void root_learn(struct look *l, struct zc_vfs_source *s, const struct zc_attr *a)
{
    if (!l->d) {
        s->root_attr = *a;
        s->root_attr.version = "";
        return;
    }
    const struct vfs_entry *e = &l->d->entries[l->index];
    struct zc_attr shown = vfs_root_attr(l->v, s, a);
    uint32_t index;
    if (!shown.mtime_ns) /* a store without such times: it remains when it was made */
        shown.mtime_ns = e->mtime_ns;
    if (!(e->flags & VFS_GONE))
        vfs_dir_merge(l->v, l->d, e->name, &shown, &index);
}

static void look_done(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct look *l = zc_container_of(req, struct look, stat);
    struct zc_vfs_source *s = l->op.src;
    struct vfs_dir *shows = l->d ? l->d : l->v->root;
    if (err == 0) {
        pthread_mutex_lock(&shows->lock);
        root_learn(l, s, attr);
        pthread_mutex_unlock(&shows->lock);
        atomic_store(&s->root_retry_s, 0);
        atomic_store(&s->root_checked_s, vfs_now_s(l->v));
    } else {
        atomic_store(&s->root_retry_s, vfs_now_s(l->v) + ROOT_RETRY_S);
    }
    atomic_store(&s->root_asking, false);
    attr_reply(l->v, l->d, l->index, l->fn, l->user);
    vfs_op_end(l->v, &l->op);
    free(l);
}

/* True: look_done will reply, and gives up the pin of d. */
static bool look_begin(struct zc_vfs *v, struct zc_vfs_source *s, struct vfs_dir *d, uint32_t index,
                       zc_vfs_lookup_fn *fn, void *user)
{
    if (vfs_root_valid_ns(v, s) > 0 || atomic_exchange(&s->root_asking, true))
        return false;
    struct look *l = calloc(1, sizeof(*l));
    if (l) /* before a cancel can come */
        l->stat = (struct zc_stat_req){
            .base = {.prio = ZC_PRIO_DEMAND, .deadline_ns = zc_now_ns() + ROOT_DEADLINE},
            .path = "",
            .done = look_done,
        };
    if (!l || vfs_op_begin(v, &l->op, s, &l->stat.base) < 0) {
        free(l);
        atomic_store(&s->root_asking, false);
        return false;
    }
    l->v = v;
    l->d = d;
    l->index = index;
    l->fn = fn;
    l->user = user;
    zc_backend_stat(s->cfg.be, &l->stat);
    return true;
}

void zc_vfs_getattr(struct zc_vfs *v, uint64_t node, zc_vfs_lookup_fn *fn, void *user)
{
    struct vfs_dir *d = NULL;
    uint32_t index = 0;
    struct zc_node none = {0};
    if (node != ZC_NODE_ROOT && !(d = vfs_dir_holding(v, node, &index))) {
        fn(user, -ESTALE, &none);
        return;
    }
    struct zc_vfs_source *s = d ? vfs_source_at(v, d, index) : v->root->src;
    if (!s || !look_begin(v, s, d, index, fn, user))
        attr_reply(v, d, index, fn, user);
}
