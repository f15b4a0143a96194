/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which cached object goes when room is needed: one interface, so that policies can be compared and
 * replaced. A policy orders entries that it does not own; it knows an entry by a slot number that
 * the caller gives out (dense, reused) and by its 64-bit key, and keeps its own arrays beside.
 *
 * Not synchronised: the cache calls it under its own lock. No call blocks or fails, but for add's
 * -ENOMEM.
 */
#ifndef ZC_CACHE_POLICY_H
#define ZC_CACHE_POLICY_H

#include "base/base.h"

struct zc_policy;

/* capacity: bytes that the cache may hold. */
int zc_policy_new(uint64_t capacity, struct zc_policy **out);
void zc_policy_free(struct zc_policy *p);
void zc_policy_set_capacity(struct zc_policy *p, uint64_t capacity);

/* A new resident. key: what the object is called over evictions (its history is kept under this
   name). 0 or -ENOMEM. */
int zc_policy_add(struct zc_policy *p, uint32_t slot, uint64_t key, uint64_t bytes);
/* The resident grew or shrank. */
void zc_policy_resize(struct zc_policy *p, uint32_t slot, uint64_t bytes);
/* One use (an open). Called once an open, also for a new resident right after add. */
void zc_policy_touch(struct zc_policy *p, uint32_t slot);
/* Is it one of the residents? */
bool zc_policy_knows(const struct zc_policy *p, uint32_t slot);
/* Is the resident a copy of what another node holds, too? A new one is not. */
void zc_policy_set_copy(struct zc_policy *p, uint32_t slot, bool copy);
bool zc_policy_is_copy(const struct zc_policy *p, uint32_t slot);
/* Bytes of those that are. */
uint64_t zc_policy_copy_bytes(const struct zc_policy *p);
/* Gone, for whatever reason. */
void zc_policy_remove(struct zc_policy *p, uint32_t slot);

/* The best resident to evict now, or UINT32_MAX. may_evict(user, slot) says no to what is open or
   in flight; such a one is passed over and keeps its place. UINT32_MAX means that every resident
   was asked and none may go; that takes about twice as many questions as there are residents, while
   a call that finds one mostly asks a few. The caller evicts it and calls zc_policy_remove. */
uint32_t zc_policy_victim(struct zc_policy *p, bool (*may_evict)(void *user, uint32_t slot),
                          void *user);
/* The same among copies alone, which zc_policy_victim prefers. */
uint32_t zc_policy_copy_victim(struct zc_policy *p, bool (*may_evict)(void *user, uint32_t slot),
                               void *user);

#endif
