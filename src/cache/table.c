/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linear probing with backward-shift deletion: no tombstones, so that a cache which evicts for
 * weeks probes as few places as a fresh one. Objids are digests already; their low half is the
 * hash.
 */
#include "cache/table.h"

#include <errno.h>

#define TABLE_FIRST 1024

int table_init(struct table *t)
{
    *t = (struct table){.free = SLOT_NONE, .mask = TABLE_FIRST - 1};
    t->hash = calloc(TABLE_FIRST, sizeof(*t->hash));
    return t->hash ? 0 : -ENOMEM;
}

void table_free(struct table *t)
{
    for (uint32_t i = 0; i < t->npages; i++)
        free(t->pages[i]);
    free(t->pages);
    free(t->hash);
    *t = (struct table){0};
}

uint32_t table_find(const struct table *t, struct zc_objid id)
{
    for (uint32_t h = (uint32_t)id.id.lo & t->mask; t->hash[h]; h = (h + 1) & t->mask) {
        if (zc_digest_eq(table_slot(t, t->hash[h] - 1)->id.id, id.id))
            return t->hash[h] - 1;
    }
    return SLOT_NONE;
}

static void table_place(const struct table *t, uint32_t *hash, uint32_t mask, uint32_t slot)
{
    uint32_t h = (uint32_t)table_slot(t, slot)->id.id.lo & mask;
    while (hash[h])
        h = (h + 1) & mask;
    hash[h] = slot + 1;
}

static int table_grow(struct table *t)
{
    uint32_t mask = t->mask * 2 + 1;
    uint32_t *hash = calloc((size_t)mask + 1, sizeof(*hash));
    if (!hash)
        return -ENOMEM;
    for (uint32_t i = 0; i <= t->mask; i++) {
        if (t->hash[i])
            table_place(t, hash, mask, t->hash[i] - 1);
    }
    free(t->hash);
    t->hash = hash;
    t->mask = mask;
    return 0;
}

static int table_add_page(struct table *t)
{
    struct slot **pages = realloc(t->pages, (t->npages + 1) * sizeof(struct slot *));
    if (!pages)
        return -ENOMEM;
    t->pages = pages;
    t->pages[t->npages] = calloc(TABLE_PAGE, sizeof(struct slot));
    if (!t->pages[t->npages])
        return -ENOMEM;
    t->npages++;
    return 0;
}

int table_add(struct table *t, struct zc_objid id, uint32_t *slot)
{
    uint32_t n = t->free;
    if (t->count >= UINT32_MAX / 2)
        return -ENOSPC;
    if (t->count >= t->mask / 4 * 3 && table_grow(t) < 0)
        return -ENOMEM;
    if (n != SLOT_NONE) {
        t->free = table_slot(t, n)->u.next;
    } else {
        if (t->top == t->npages * TABLE_PAGE && table_add_page(t) < 0)
            return -ENOMEM;
        n = t->top++;
    }
    *table_slot(t, n) = (struct slot){.id = id, .used = 1};
    table_place(t, t->hash, t->mask, n);
    t->count++;
    *slot = n;
    return 0;
}

void table_remove(struct table *t, uint32_t slot)
{
    struct slot *s = table_slot(t, slot);
    uint32_t h = (uint32_t)s->id.id.lo & t->mask;
    while (t->hash[h] != slot + 1)
        h = (h + 1) & t->mask;
    /* close the gap: move up whoever may stand nearer to its own place */
    for (uint32_t i = (h + 1) & t->mask; t->hash[i]; i = (i + 1) & t->mask) {
        uint32_t home = (uint32_t)table_slot(t, t->hash[i] - 1)->id.id.lo & t->mask;
        if (((i - home) & t->mask) >= ((i - h) & t->mask)) {
            t->hash[h] = t->hash[i];
            h = i;
        }
    }
    t->hash[h] = 0;
    *s = (struct slot){.u.next = t->free};
    t->free = slot;
    t->count--;
}
