/* SPDX-License-Identifier: Apache-2.0 */
/* Intrusive doubly linked list with a sentinel head. Not synchronised: the owner locks. */
#ifndef ZC_LIST_H
#define ZC_LIST_H

#include "base/base.h"

struct zc_list {
    struct zc_list *next, *prev;
};

#define ZC_LIST_INIT(name)                                                                         \
    {                                                                                              \
        &(name), &(name)                                                                           \
    }

static inline void zc_list_init(struct zc_list *l)
{
    l->next = l->prev = l;
}

static inline bool zc_list_empty(const struct zc_list *l)
{
    return l->next == l;
}

static inline void zc_list_insert(struct zc_list *prev, struct zc_list *n)
{
    n->prev = prev;
    n->next = prev->next;
    prev->next->prev = n;
    prev->next = n;
}

static inline void zc_list_push_back(struct zc_list *head, struct zc_list *n)
{
    zc_list_insert(head->prev, n);
}

static inline void zc_list_push_front(struct zc_list *head, struct zc_list *n)
{
    zc_list_insert(head, n);
}

/* Unlinks n and leaves it as an empty list, so that a second call does no harm. */
static inline void zc_list_del(struct zc_list *n)
{
    n->prev->next = n->next;
    n->next->prev = n->prev;
    zc_list_init(n);
}

static inline struct zc_list *zc_list_pop_front(struct zc_list *head)
{
    struct zc_list *n = head->next;
    if (n == head)
        return NULL;
    zc_list_del(n);
    return n;
}

/* Moves all of `from` to the end of `to`. */
static inline void zc_list_splice(struct zc_list *to, struct zc_list *from)
{
    if (zc_list_empty(from))
        return;
    from->next->prev = to->prev;
    to->prev->next = from->next;
    from->prev->next = to;
    to->prev = from->prev;
    zc_list_init(from);
}

#define zc_list_entry(ptr, type, member) zc_container_of(ptr, type, member)
#define zc_list_for_each(it, head)                                                                 \
    for (struct zc_list *it = (head)->next; it != (head); it = it->next)
#define zc_list_for_each_safe(it, tmp, head)                                                       \
    for (struct zc_list *it = (head)->next, *tmp = it->next; it != (head); it = tmp, tmp = it->next)

#endif
