/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The residents of a cache in memory: 48 bytes each, found by objid through an open-addressing
 * table of slot numbers (at most 11 bytes a resident). Slot numbers are dense and reused; the
 * policy knows residents by them. Not synchronised: the cache's lock covers it. A struct slot *
 * stays valid until table_free.
 */
#ifndef ZC_CACHE_TABLE_H
#define ZC_CACHE_TABLE_H

#include "cache/cache.h"

#define SLOT_NONE UINT32_MAX

enum slot_flag {
    SLOT_COMPLETE = 1, /* all chunks recorded */
    SLOT_DOUBTED = 2,  /* left by an unclean end: sums are checked before it is used */
    SLOT_HELD = 4,     /* u.obj is valid */
    SLOT_BUSY = 8,     /* a thread works on its file without the lock: wait for c->changed */
    SLOT_DYING = 16,   /* with BUSY: on its way out */
    SLOT_SEEN = 32,    /* the scan at start found its file */
    SLOT_WANTED = 64,  /* with BUSY: somebody waits for it */
    SLOT_LENT = 128,   /* out on loan: the borrower is told before the file goes */
    SLOT_USED = 256,   /* with LENT: the borrower uses it, so that it must stay */
};

struct slot {
    struct zc_objid id;
    uint64_t size;  /* of the object */
    uint64_t bytes; /* charged to the budget */
    union {
        struct zc_cobj *obj; /* HELD */
        uint64_t word;       /* else, of a partial one: its chunks, when there are 64 or fewer */
        uint64_t *words;     /* else: allocated */
        uint64_t borrower;   /* else, LENT (always a complete one) */
        uint32_t next;       /* of a free slot */
    } u;
    uint32_t flags; /* 0: free, or a partial one that nobody holds */
    uint16_t used;  /* 0: free */
    uint16_t mark;  /* 0: none */
};

struct table {
    struct slot **pages;
    uint32_t npages;
    uint32_t top;   /* slots ever used */
    uint32_t free;  /* list of free ones */
    uint32_t count; /* in use */
    uint32_t *hash; /* slot number + 1; 0 is empty */
    uint32_t mask;
};

/* 0 or -ENOMEM. */
int table_init(struct table *t);
void table_free(struct table *t);
uint32_t table_find(const struct table *t, struct zc_objid id);
/* Adds an id that is not there. -ENOMEM, or -ENOSPC past 2^31 residents. */
int table_add(struct table *t, struct zc_objid id, uint32_t *slot);
void table_remove(struct table *t, uint32_t slot);

#define TABLE_PAGE 4096
static inline struct slot *table_slot(const struct table *t, uint32_t n)
{
    return &t->pages[n / TABLE_PAGE][n % TABLE_PAGE];
}

#endif
