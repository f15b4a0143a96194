/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See live.h. Gossip's own thread only says that something changed; views are made here, because
 * one of a thousand nodes takes a millisecond, and that thread answers probes. What this node
 * announces is looked at once a second: its weight (pace.h) and what it holds. The latter is
 * announced anew only when it has grown or shrunk by half, so that a filling cache is some ten
 * messages.
 *
 * When another member turns out to have this node's id and to have started later, a disk was
 * copied: after a while, in which an old life of this node would have been found dead, this one
 * draws a new id.
 */
#include "cluster/live.h"
#include "cluster/id.h"
#include "member/member.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define LIVE_TICK_NS ZC_NS_PER_S
#define LIVE_JOIN_NS (2 * ZC_NS_PER_S)
#define LIVE_COPY_NS (30 * ZC_NS_PER_S)
#define LIVE_USED_STEPS 2                 /* of a weight: 2^(1/2) */
#define LIVE_READ_NS (200 * ZC_NS_PER_MS) /* between two views */
#define LIVE_TELL_NS ZC_NS_PER_S          /* between two calls of `changed` */
/* So long a ring must have stood until who owns by it is taken to have what it owns: a ramp, and
   some time to be read in. */
#define LIVE_SETTLE_NS (600 * ZC_NS_PER_S)
#define LIVE_FORMS_NS (10 * ZC_NS_PER_S)  /* after the start: the ring that was before */
#define LIVE_NOTHING (4 * ZC_MIB)         /* a cache with no more has nothing to lose */
#define LIVE_LONELY_NS (10 * ZC_NS_PER_S) /* without a node of --join in sight: said */

struct cluster_live {
    struct zc_cluster *c;
    struct zc_cluster_config cfg; /* strings are owned */
    struct zc_member *member;     /* NULL before it gossips */
    struct cluster_indices indices;
    struct cluster_desc said; /* what this node announces */
    struct cluster_pace pace;
    bool alone;  /* there are no seeds */
    bool lonely; /* that there are seeds and nobody else was said, or need not be */
    int64_t started_ns;
    int64_t read_ns, told_ns; /* when that was last */
    int64_t ring_ns;          /* since when the ring is as it is */
    bool news;                /* `changed` is to be called */
    int64_t copied_since_ns;  /* 0: not seen */

    pthread_t thread;
    bool runs;
    pthread_mutex_t lock;
    pthread_cond_t cond;       /* of CLOCK_MONOTONIC */
    bool changed, stop, drain; /* under lock */
    bool decided;              /* under lock: the weight is announced */
};

/* ------------------------------------------------------------------ what others say */

/* The nodes among the members, without this one: what there is to take over. */
static void live_others(struct cluster_live *l, struct cluster_pace_others *out)
{
    struct zc_cluster *c = l->c;
    bool heard = false;
    *out = (struct cluster_pace_others){0};
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n_members; i++) {
        const struct zc_cluster_member *m = &c->members[i];
        if (m->standing != ZC_CLUSTER_IN || m->node.is_self)
            continue;
        heard = true;
        out->used += m->used_bytes;
        out->capacity += (double)zc_ring_weight_bytes(m->node.weight);
    }
    pthread_mutex_unlock(&c->lock);
    out->heard = heard || l->alone;
    out->known = out->heard || zc_now_ns() - l->started_ns > LIVE_JOIN_NS;
}

/* Makes a view of what gossip has now. */
static void live_read(struct cluster_live *l)
{
    struct zc_member_view *v = zc_member_view(l->member);
    zc_autofree struct cluster_seen *seen = v ? calloc(v->n + 1, sizeof(*seen)) : NULL;
    struct cluster_reading r;
    int e = seen ? 0 : -ENOMEM;
    for (unsigned i = 0; e == 0 && i < v->n; i++) {
        const struct zc_swim_view *m = &v->members[i];
        seen[i] = (struct cluster_seen){.name = m->node->name,
                                        .ip_len = m->node->addr.len,
                                        .port = m->node->addr.port,
                                        .state = (enum zc_cluster_state)m->state,
                                        .self = m->self,
                                        .since_ns = m->since,
                                        .meta = m->node->meta,
                                        .meta_len = m->node->meta_len};
        memcpy(seen[i].ip, m->node->addr.ip, sizeof(seen[i].ip));
    }
    if (e == 0)
        e = cluster_read(&l->indices, seen, v->n, l->cfg.peer_protocol, &r);
    zc_member_view_unref(v);
    if (e < 0) {
        zc_warn("cluster: the members cannot be read: %s; the former ones stay", strerror(-e));
        return;
    }
    if (!r.copied)
        l->copied_since_ns = 0;
    else if (!l->copied_since_ns)
        l->copied_since_ns = zc_now_ns();
    uint64_t before = zc_cluster_digest(l->c);
    cluster_publish(l->c, &r, l->indices.n);
    if (zc_cluster_digest(l->c) != before) {
        l->ring_ns = zc_now_ns();
        l->news = true;
    }
}

/* Does who owns have what it owns? Not when it has only just begun to, and what this node drains
   nobody else may have. */
static void live_settle(struct cluster_live *l, bool drain)
{
    int64_t now = zc_now_ns();
    if (drain || zc_cluster_digest(l->c) == cluster_settled(l->c))
        return;
    if (now - l->ring_ns > LIVE_SETTLE_NS || now - l->started_ns < LIVE_FORMS_NS ||
        l->cfg.used(l->cfg.user) < LIVE_NOTHING) {
        cluster_settle(l->c);
        l->news = true;
    }
}

static void live_tell(struct cluster_live *l)
{
    int64_t now = zc_now_ns();
    if (!l->news || now - l->told_ns < LIVE_TELL_NS)
        return;
    l->news = false;
    l->told_ns = now;
    if (l->cfg.changed)
        l->cfg.changed(l->cfg.user);
}

/* A node that finds nobody serves all the same and owns everything: without a word a wrong key or a
   closed port would show in the store's bill only. The first one of a cluster says it as well. */
static void live_lonely(struct cluster_live *l)
{
    if (l->lonely || zc_now_ns() - l->started_ns < LIVE_LONELY_NS)
        return;
    l->lonely = true;
    if (!l->alone && zc_cluster_count(l->c) <= 1)
        zc_warn("cluster: no node of --join has answered yet, so this one owns everything; it goes "
                "on trying. Others must be up, have the same --cluster-key, and be reached over "
                "UDP and TCP");
}

/* ------------------------------------------------------------------ what this node says */

static void live_announce(struct cluster_live *l)
{
    uint8_t meta[ZC_DESC_MAX];
    size_t n = cluster_desc_encode(meta, &l->said);
    int r = zc_member_set_meta(l->member, meta, n);
    if (r < 0)
        zc_warn("cluster: what this node says of itself cannot be changed: %s", strerror(-r));
}

static void live_pace(struct cluster_live *l, bool drain)
{
    struct cluster_pace_others others;
    struct cluster_desc d = l->said;
    uint64_t used = l->cfg.used(l->cfg.user);
    uint8_t held = zc_ring_weight(used);
    live_others(l, &others);
    l->pace.draining = drain;
    d.weight = cluster_pace_weight(&l->pace, &others, used, zc_now_ns());
    d.nominal = cluster_pace_nominal(&l->pace);
    if (ZC_MAX(held, d.used) - ZC_MIN(held, d.used) >= LIVE_USED_STEPS)
        d.used = held;
    if (l->copied_since_ns && zc_now_ns() - l->copied_since_ns > LIVE_COPY_NS) {
        struct zc_error err = {0};
        l->copied_since_ns = 0;
        if (cluster_id_renew(l->cfg.id_file, d.id, &err) < 0)
            zc_warn("cluster: another node has this node's id, too: %s", err.text);
        else
            zc_warn("cluster: another node has this node's id (a copied disk?): took a new one");
    }
    bool decided = drain || l->pace.step > 0;
    if (memcmp(&d, &l->said, sizeof(d)) != 0) {
        l->said = d;
        live_announce(l);
        live_read(l);
    }
    pthread_mutex_lock(&l->lock);
    if (decided && !l->decided) {
        l->decided = true;
        pthread_cond_broadcast(&l->cond);
    }
    pthread_mutex_unlock(&l->lock);
}

/* ------------------------------------------------------------------ the thread */

static void live_wait(struct cluster_live *l, int64_t until_ns)
{
    struct timespec ts = {.tv_sec = until_ns / ZC_NS_PER_S, .tv_nsec = until_ns % ZC_NS_PER_S};
    pthread_cond_timedwait(&l->cond, &l->lock, &ts);
}

static void *live_main(void *arg)
{
    struct cluster_live *l = arg;
    pthread_mutex_lock(&l->lock);
    while (!l->stop) {
        bool drain = l->drain;
        int64_t again = l->read_ns + LIVE_READ_NS;
        bool read = l->changed && zc_now_ns() >= again;
        if (read)
            l->changed = false;
        pthread_mutex_unlock(&l->lock);
        if (read) {
            live_read(l);
            l->read_ns = zc_now_ns();
            again = l->read_ns + LIVE_READ_NS;
        }
        live_pace(l, drain);
        live_settle(l, drain);
        live_tell(l);
        live_lonely(l);
        int64_t until = zc_now_ns() + (l->decided ? LIVE_TICK_NS : LIVE_TICK_NS / 20);
        pthread_mutex_lock(&l->lock);
        while (!l->stop && l->drain == drain && zc_now_ns() < until &&
               !(l->changed && zc_now_ns() >= again))
            live_wait(l, l->changed ? ZC_MIN(until, again) : until);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* On gossip's thread. */
static void live_changed(void *user)
{
    struct cluster_live *l = user;
    pthread_mutex_lock(&l->lock);
    l->changed = true;
    pthread_cond_broadcast(&l->cond);
    pthread_mutex_unlock(&l->lock);
}

/* ------------------------------------------------------------------ beginning and end */

/* The view before anybody is known. */
static int live_alone(struct cluster_live *l)
{
    struct cluster_reading r = {0};
    struct zc_cluster_node self = {.weight = cluster_pace_nominal(&l->pace),
                                   .nominal = cluster_pace_nominal(&l->pace),
                                   .is_self = true};
    memcpy(self.id, l->said.id, sizeof(self.id));
    memcpy(self.name, l->said.name, sizeof(self.name));
    int e = cluster_indices_of(&l->indices, self.id, &self.index);
    if (e == 0)
        e = cluster_view_new(&self, 1, &r.view);
    if (e == 0)
        cluster_publish(l->c, &r, l->indices.n);
    return e;
}

static int live_new(struct zc_cluster *c, const struct zc_cluster_config *cfg, struct zc_error *err)
{
    struct cluster_live *l = c->live = calloc(1, sizeof(*l));
    pthread_condattr_t attr;
    if (!l)
        return zc_error_set(err, -ENOMEM, "no memory");
    l->c = c;
    l->cfg = *cfg;
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->cond, &attr);
    pthread_condattr_destroy(&attr);
    l->cfg.name = NULL;
    l->cfg.id_file = strdup(cfg->id_file);
    l->pace.capacity = cfg->capacity;
    /* Compared as bytes: padding, should there be any, is zero. */
    memset(&l->said, 0, sizeof(l->said));
    l->said.ring_protocol = ZC_RING_PROTOCOL;
    l->said.peer_protocol = cfg->peer_protocol;
    l->said.started_ms = (uint64_t)(zc_wall_ns() / ZC_NS_PER_MS);
    if (!l->cfg.id_file)
        return zc_error_set(err, -ENOMEM, "no memory");
    if (!cluster_name_ok(cfg->name))
        return zc_error_set(err, -EINVAL, "'%.100s' cannot be a node's name", cfg->name);
    strcpy(l->said.name, cfg->name);
    int r = cluster_id_load(cfg->id_file, l->said.id, err);
    if (r < 0)
        return r;
    r = live_alone(l);
    return r < 0 ? zc_error_set(err, r, "cannot make a ring: %s", strerror(-r)) : 0;
}

int zc_cluster_new(const struct zc_cluster_config *cfg, struct zc_cluster **out,
                   struct zc_error *err)
{
    struct zc_cluster *c = cluster_new();
    if (!c)
        return zc_error_set(err, -ENOMEM, "no memory");
    int r = live_new(c, cfg, err);
    if (r < 0) {
        zc_cluster_free(c);
        return r;
    }
    *out = c;
    return 0;
}

int zc_cluster_start(struct zc_cluster *c, const struct zc_cluster_gossip *g, struct zc_error *err)
{
    struct cluster_live *l = c->live;
    uint8_t meta[ZC_DESC_MAX];
    struct zc_member_config member = *g->member;
    l->said.port = g->peer_port;
    l->said.has_spki = g->spki != NULL;
    if (g->spki)
        memcpy(l->said.spki, g->spki, ZC_NODE_SPKI);
    l->said.nominal = cluster_pace_nominal(&l->pace);
    l->alone = !member.seeds || !*member.seeds;
    l->started_ns = zc_now_ns();
    member.name = l->said.name;
    member.meta = meta;
    member.meta_len = cluster_desc_encode(meta, &l->said);
    member.changed = live_changed;
    member.user = l;
    int r = zc_member_start(&member, &l->member, err);
    if (r < 0)
        return r;
    live_changed(l); /* the thread begins by reading */
    r = pthread_create(&l->thread, NULL, live_main, l);
    if (r != 0)
        return zc_error_set(err, -r, "cannot start a thread: %s", strerror(r));
    l->runs = true;
    pthread_mutex_lock(&l->lock);
    int64_t until = l->started_ns + LIVE_JOIN_NS + ZC_NS_PER_S;
    while (!l->decided && zc_now_ns() < until)
        live_wait(l, until);
    pthread_mutex_unlock(&l->lock);
    return 0;
}

bool zc_cluster_drain(struct zc_cluster *c)
{
    struct cluster_live *l = c->live;
    unsigned others = 0;
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < c->n_members; i++)
        others += c->members[i].standing == ZC_CLUSTER_IN && !c->members[i].node.is_self &&
                  c->members[i].node.weight > 0;
    pthread_mutex_unlock(&c->lock);
    if (!l || !l->runs)
        return false;
    pthread_mutex_lock(&l->lock);
    l->drain = true;
    pthread_cond_broadcast(&l->cond);
    pthread_mutex_unlock(&l->lock);
    return others > 0;
}

void cluster_live_end(struct cluster_live *l)
{
    if (!l)
        return;
    if (l->runs) {
        pthread_mutex_lock(&l->lock);
        l->stop = true;
        pthread_cond_broadcast(&l->cond);
        pthread_mutex_unlock(&l->lock);
        pthread_join(l->thread, NULL);
    }
    if (l->member) {
        zc_member_leave(l->member);
        zc_member_stop(l->member);
    }
    cluster_indices_free(&l->indices);
    free((char *)l->cfg.id_file);
    pthread_cond_destroy(&l->cond);
    pthread_mutex_destroy(&l->lock);
    free(l);
}
