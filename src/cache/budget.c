/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Room. Every byte is charged before it is written, against the configured size and against what
 * the file system has free above the floor. When it does not fit, the policy's victims are
 * unlinked, outside of the lock, and are charged until that is done: the disk never holds more than
 * `used` says.
 *
 * The file system is asked at most every ROOM_NS or ROOM_BYTES; in between its answer is carried
 * forward with what is charged and given back here. What others write in between is noticed at the
 * next question.
 */
#include "cache/cache_priv.h"

#include "base/log.h"

#include <errno.h>
#include <string.h>

#define ROOM_NS (100 * ZC_NS_PER_MS)
#define ROOM_BYTES (64 * ZC_MIB)
#define BUDGET_VICTIMS 32 /* unlinked in one go */
#define AHEAD_SHARE 64    /* of the capacity, kept free under pressure */
#define AHEAD_MAX (256 * ZC_MIB)
#define AHEAD_NS (2 * ZC_NS_PER_S) /* pressure is over when nobody ran short for so long */

static void budget_ask(struct zc_cache *c)
{
    uint64_t avail, total;
    pthread_mutex_unlock(&c->lock);
    int r = store_space(c->store, &avail, &total);
    pthread_mutex_lock(&c->lock);
    if (r < 0)
        return; /* an estimate remains; a broken disk shows itself elsewhere */
    c->room = (int64_t)avail - (int64_t)c->floor - (int64_t)c->unwritten;
    c->room_checked_ns = zc_now_ns();
    c->room_since = 0;
}

static bool budget_may_evict(void *user, uint32_t slot)
{
    struct zc_cache *c = user;
    return (table_slot(&c->table, slot)->flags & (SLOT_HELD | SLOT_USED | SLOT_BUSY)) == 0;
}

/* Bytes that must go before `bytes` fit. */
static uint64_t budget_short(struct zc_cache *c, uint64_t bytes)
{
    uint64_t over = c->used + bytes > c->capacity ? c->used + bytes - c->capacity : 0;
    int64_t below = (int64_t)bytes - c->room;
    return ZC_MAX(over, below > 0 ? (uint64_t)below : 0);
}

static void budget_mark(struct zc_cache *c, uint32_t slot, struct victim *v)
{
    cache_doom(c, slot);
    c->evicting += table_slot(&c->table, slot)->bytes;
    *v = cache_victim(c, slot);
}

/* After its file was unlinked. */
static uint64_t budget_bury(struct zc_cache *c, const struct victim *v)
{
    uint64_t bytes = table_slot(&c->table, v->slot)->bytes;
    c->evicting -= bytes;
    c->evictions++;
    c->evicted_bytes += bytes;
    budget_give(c, bytes);
    cache_forget(c, v->slot, true);
    return bytes;
}

struct victim cache_victim(struct zc_cache *c, uint32_t slot)
{
    struct slot *s = table_slot(&c->table, slot);
    struct victim v = {.slot = slot, .id = s->id};
    if (s->flags & SLOT_LENT) {
        v.lent = true;
        v.borrower = s->flags & SLOT_HELD ? s->u.obj->borrower : s->u.borrower;
    }
    return v;
}

/* The borrower's open file would keep the space. */
static void budget_recall(struct zc_cache *c, uint64_t borrower)
{
    pthread_mutex_lock(&c->lock);
    void (*recall)(void *, uint64_t) = c->recall;
    void *user = c->recall_user;
    c->recalling += recall != NULL;
    pthread_mutex_unlock(&c->lock);
    if (!recall)
        return;
    recall(user, borrower);
    pthread_mutex_lock(&c->lock);
    c->recalling--;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

void cache_unlink(struct zc_cache *c, const struct victim *v)
{
    if (v->lent)
        budget_recall(c, v->borrower);
    int r = store_file_unlink(c->store, v->id);
    if (r < 0) {
        char name[STORE_NAME_MAX];
        zc_warn("%s/%s: cannot be removed: %s", c->store->path, store_file_name(v->id, name),
                strerror(-r));
        c->untidy = true;
        zc_cache_disk_error(c, r);
    }
}

uint64_t budget_evict(struct zc_cache *c, uint32_t slot)
{
    struct victim v;
    budget_mark(c, slot, &v);
    pthread_mutex_unlock(&c->lock);
    cache_unlink(c, &v);
    pthread_mutex_lock(&c->lock);
    uint64_t bytes = budget_bury(c, &v);
    pthread_cond_broadcast(&c->changed);
    return bytes;
}

/* Those that are marked go: their files without the lock. */
static void budget_bury_all(struct zc_cache *c, const struct victim *v, unsigned n)
{
    pthread_mutex_unlock(&c->lock);
    for (unsigned i = 0; i < n; i++)
        cache_unlink(c, &v[i]);
    pthread_mutex_lock(&c->lock);
    for (unsigned i = 0; i < n; i++)
        budget_bury(c, &v[i]);
    pthread_cond_broadcast(&c->changed);
}

/* Makes room for `need` bytes. False when there is nobody left to evict and nobody on the way out.
 */
static bool budget_evict_some(struct zc_cache *c, uint64_t need)
{
    struct victim v[BUDGET_VICTIMS];
    unsigned n = 0;
    while (n < BUDGET_VICTIMS && c->evicting < need) {
        uint32_t slot = zc_policy_victim(c->policy, budget_may_evict, c);
        if (slot == UINT32_MAX)
            break;
        budget_mark(c, slot, &v[n++]);
    }
    if (n == 0) {
        if (c->evicting == 0)
            return false;
        pthread_cond_wait(&c->changed, &c->lock);
        return true;
    }
    budget_bury_all(c, v, n);
    return true;
}

void budget_trim(struct zc_cache *c)
{
    struct victim v[BUDGET_VICTIMS];
    unsigned n = 0;
    while (n < BUDGET_VICTIMS && c->spare_most && zc_policy_copy_bytes(c->policy) > c->spare_most) {
        uint32_t slot = zc_policy_copy_victim(c->policy, budget_may_evict, c);
        if (slot == UINT32_MAX)
            break;
        budget_mark(c, slot, &v[n++]);
    }
    if (n)
        budget_bury_all(c, v, n);
}

int budget_take(struct zc_cache *c, uint64_t bytes)
{
    pthread_mutex_lock(&c->lock);
    bool asked = false;
    for (;;) {
        int64_t now = zc_now_ns();
        if (bytes > c->capacity || now < c->full_until_ns)
            break;
        if (now - c->room_checked_ns > ROOM_NS || c->room_since + bytes > ROOM_BYTES ||
            (!asked && c->room < (int64_t)bytes)) {
            budget_ask(c);
            asked = true;
        }
        uint64_t need = budget_short(c, bytes);
        if (need == 0) {
            c->used += bytes;
            c->unwritten += bytes;
            c->room -= (int64_t)bytes;
            c->room_since += bytes;
            if (c->ahead && now - c->pressed_ns < AHEAD_NS && budget_short(c, c->ahead / 2) > 0) {
                c->pressed_ns = now;
                pthread_cond_signal(&c->work);
            }
            return 0;
        }
        c->pressed_ns = now;
        pthread_cond_signal(&c->work);
        if (!budget_evict_some(c, need))
            break;
    }
    pthread_mutex_unlock(&c->lock);
    return -ENOSPC;
}

void budget_give(struct zc_cache *c, uint64_t bytes)
{
    c->used -= bytes;
    c->room += (int64_t)bytes;
}

static void *budget_main(void *arg)
{
    struct zc_cache *c = arg;
    pthread_mutex_lock(&c->lock);
    while (!c->stop) {
        uint64_t need = zc_now_ns() - c->pressed_ns < AHEAD_NS ? budget_short(c, c->ahead) : 0;
        if (need <= c->evicting || !budget_evict_some(c, need))
            pthread_cond_wait(&c->work, &c->lock);
    }
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

int budget_start(struct zc_cache *c)
{
    uint64_t ahead = ZC_MIN(c->capacity / AHEAD_SHARE, AHEAD_MAX);
    if (ahead <
        c->chunk_size) /* a cache so small gains nothing, and could lose an object too many */
        return 0;
    c->ahead = ahead;
    int rc = pthread_create(&c->evictor, NULL, budget_main, c);
    c->evictor_runs = rc == 0;
    if (rc)
        c->ahead = 0;
    return -rc;
}
