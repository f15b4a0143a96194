/* SPDX-License-Identifier: Apache-2.0 */
/*
 * For tests of fetching, step by step: a backend that does nothing by itself holds each GET until
 * the test feeds it bytes and ends it.
 */
#ifndef ZC_TESTS_FETCHTEST_H
#define ZC_TESTS_FETCHTEST_H

#include "cachetest.h"
#include "fetch/fetch.h"

#include <pthread.h>

#define FT_SIZE (3 * CT_CHUNK + 5000)
#define FT_GETS 64

struct ft_script {
    struct zc_backend be;
    struct zc_backend_stats stats;
    pthread_mutex_t lock;
    struct zc_get_req *get[FT_GETS]; /* NULL once it has ended */
    uint64_t fed[FT_GETS];
    unsigned n, cancels;
};

struct ft_world {
    char *dir;
    struct zc_cache *cache;
    struct zc_fetch *fetch;
    struct zc_fetch_src *src;
    struct ft_script *s;
};

/* cache_size 0: room to spare. */
void ft_open(struct ft_world *w, uint64_t cache_size);
/* Takes a folder that a cache has been in before. */
void ft_open_at(struct ft_world *w, char *take_dir, uint64_t cache_size);
void ft_close(struct ft_world *w);
/* Opens object "a", of FT_SIZE bytes. */
struct zc_object *ft_object(struct ft_world *w, const char *version);
/* The next n bytes of GET number i, of the pattern of object 1. */
int ft_feed(struct ft_world *w, unsigned i, uint64_t n);
void ft_end(struct ft_world *w, unsigned i, int err);
/* The rest of its bytes, and its end. */
void ft_serve(struct ft_world *w, unsigned i);
/* All that is pending, and what that brings about. */
void ft_serve_all(struct ft_world *w);

struct ft_want {
    struct zc_waiter w;
    unsigned done;
    int err;
};

/* As zc_object_want; x is told of the end. */
int ft_want(struct zc_object *o, struct ft_want *x, uint64_t off, uint64_t len, bool exact);
/* Are these bytes here, and right? */
bool ft_good(struct zc_object *o, uint64_t off, size_t len);

#endif
