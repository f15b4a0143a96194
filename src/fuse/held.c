/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The handles that the kernel holds. It gives each back by RELEASE, but not when the mount ends under it: a
 * daemon that is told to end goes while files are open. What is left then is dropped here, since the rooms below
 * wait until nothing of theirs is open. Striped by address, so that opens do not queue at one lock.
 */
#include "fuse/internal.h"

static struct fuse_stripe *held_stripe(struct zc_fuse *f, const struct fuse_held *h)
{
    return &f->stripes[((uintptr_t)h >> 6) % FUSE_STRIPES];
}

void fuse_held_init(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_STRIPES; i++) {
        pthread_mutex_init(&f->stripes[i].lock, NULL);
        zc_list_init(&f->stripes[i].list);
    }
}

void fuse_held_add(struct zc_fuse *f, struct fuse_held *h, void (*drop)(struct fuse_held *))
{
    struct fuse_stripe *s = held_stripe(f, h);
    h->drop = drop;
    pthread_mutex_lock(&s->lock);
    zc_list_push_back(&s->list, &h->link);
    pthread_mutex_unlock(&s->lock);
}

void fuse_held_del(struct zc_fuse *f, struct fuse_held *h)
{
    struct fuse_stripe *s = held_stripe(f, h);
    pthread_mutex_lock(&s->lock);
    zc_list_del(&h->link);
    pthread_mutex_unlock(&s->lock);
}

void fuse_held_drop(struct zc_fuse *f)
{
    for (size_t i = 0; i < FUSE_STRIPES; i++) {
        struct zc_list *l;
        while ((l = zc_list_pop_front(&f->stripes[i].list)) != NULL) {
            struct fuse_held *h = zc_list_entry(l, struct fuse_held, link);
            h->drop(h);
        }
        pthread_mutex_destroy(&f->stripes[i].lock);
    }
}
