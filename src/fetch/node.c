/* SPDX-License-Identifier: Apache-2.0 */
/* What other nodes may have of an object: see fetch.h. */
#include "base/log.h"
#include "fetch/internal.h"

#include <errno.h>
#include <string.h>

struct zc_fetch_src *zc_fetch_src_find(struct zc_fetch *f, const char *identity)
{
    struct zc_fetch_src *found = NULL;
    pthread_mutex_lock(&f->lock);
    zc_list_for_each (it, &f->srcs) {
        struct zc_fetch_src *s = zc_list_entry(it, struct zc_fetch_src, link);
        if (!found && !s->closed && strcmp(s->identity, identity) == 0)
            found = s;
    }
    pthread_mutex_unlock(&f->lock);
    return found;
}

struct zc_objid zc_object_id(const struct zc_object *o)
{
    return o->id;
}

/* An owner waits for nobody, one that stands in for it waits for the owner alone, and whoever was
   named in a referral for all: so no two wait for each other. Under o->lock. */
static bool node_abroad(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach)
{
    unsigned most = reach == ZC_REACH_STORE   ? ZC_ABROAD_NO
                    : reach == ZC_REACH_OWNER ? ZC_ABROAD_OWNER
                                              : ZC_ABROAD_OTHER;
    zc_list_for_each (it, &o->flights) {
        struct fetch_flight *fl = zc_list_entry(it, struct fetch_flight, link);
        if (fl->off + fl->announced < off + len && fl->off + fl->len > off &&
            atomic_load(&fl->req.abroad) > most)
            return true;
    }
    return false;
}

bool zc_object_abroad(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach)
{
    pthread_mutex_lock(&o->lock);
    bool abroad = node_abroad(o, off, len, reach);
    pthread_mutex_unlock(&o->lock);
    return abroad;
}

/* Is every block there or on its way? Under o->lock. */
static bool node_coming(struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size;
    for (uint32_t c = (uint32_t)(off / cs); c < o->nchunks && (uint64_t)c * cs < off + len; c++) {
        uint64_t m = fetch_mask(o, c, off, len);
        if (((o->chunks[c].present | o->chunks[c].inflight) & m) != m)
            return false;
    }
    return true;
}

int zc_object_want_for_node(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach,
                            enum zc_prio prio, struct zc_waiter *w)
{
    int r = 0;
    if (off >= o->size || len == 0 || zc_object_complete(o))
        return 1;
    len = ZC_MIN(len, o->size - off);
    r = fetch_check(o, off, len);
    if (r < 0)
        return r;
    fetch_object_ref(o); /* as in zc_object_want */
    pthread_mutex_lock(&o->lock);
    if (fetch_present(o, off, len))
        r = 1;
    else if (atomic_load(&o->stale))
        r = -ESTALE;
    else if (reach == ZC_REACH_HELD || (reach == ZC_REACH_COMING && !node_coming(o, off, len)))
        r = -ENOENT;
    else if (node_abroad(o, off, len, reach))
        r = -EBUSY;
    if (r == 0) {
        w->off = off;
        w->len = len;
        zc_list_push_back(&o->waiters, &w->link);
    }
    pthread_mutex_unlock(&o->lock);
    if (r == 0 && reach != ZC_REACH_COMING)
        fetch_start(o, off, len, prio, reach == ZC_REACH_STORE ? FETCH_OWNER : FETCH_REPLICA);
    fetch_object_unref(o);
    return r;
}

void zc_object_fetch_for_node(struct zc_object *o, uint64_t off, uint64_t len, enum zc_reach reach,
                              enum zc_prio prio, bool exact)
{
    uint64_t cs = o->fetch->cfg.chunk_size, end = off + ZC_MIN(len, o->size - off);
    if (off >= o->size || len == 0 || zc_object_complete(o) || atomic_load(&o->stale))
        return;
    if (!exact) {
        off -= off % cs;
        end = ZC_MIN((end + cs - 1) / cs * cs, o->size);
    }
    fetch_start(o, off, end - off, prio,
                (reach == ZC_REACH_STORE ? FETCH_OWNER : FETCH_REPLICA) |
                    (exact ? FETCH_EXACT : 0));
}

uint64_t zc_object_settled(struct zc_object *o, uint64_t off, uint64_t len)
{
    uint64_t cs = o->fetch->cfg.chunk_size, end = off;
    if (off >= o->size || zc_object_fd(o) < 0)
        return 0;
    len = ZC_MIN(len, o->size - off);
    if (zc_object_complete(o))
        return len;
    pthread_mutex_lock(&o->lock);
    while (end < off + len) {
        uint32_t c = (uint32_t)(end / cs);
        if (!o->chunks[c].recorded || o->chunks[c].mem || o->chunks[c].doubted)
            break;
        end = (uint64_t)c * cs + fetch_chunk_len(o, c);
    }
    pthread_mutex_unlock(&o->lock);
    return ZC_MIN(end, off + len) - off;
}

int zc_object_sum(struct zc_object *o, uint32_t chunk, struct zc_digest *sum)
{
    if (atomic_load(&o->bad))
        return -EBADMSG;
    return o->cobj ? zc_cobj_sum(o->fetch->cache, o->cobj, chunk, sum) : 0;
}

void zc_object_bad(struct zc_object *o, uint32_t chunk)
{
    if (!o->cobj)
        return;
    if (!atomic_exchange(&o->bad, true))
        zc_cobj_bad(o->fetch->cache, o->cobj, chunk);
    if (fetch_lose(o, chunk) < 0)
        zc_warn("%s: no memory to fetch a damaged chunk again", o->path);
}
