/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the wrappers: a get that the test waits for. */
#ifndef ZC_TESTS_WRAPTEST_H
#define ZC_TESTS_WRAPTEST_H

#include "backend/backend.h"

#include <pthread.h>

struct wt_get {
    struct zc_get_req req;
    char path[64];
    pthread_mutex_t lock;
    pthread_cond_t cond;
    unsigned ended;
    int err;
    uint64_t got, wrong;
    int stop_with;
};

/* Of an object of the source in memory, which may have any size; freed with wt_get_free. */
struct wt_get *wt_get_new(const char *name, uint64_t size, uint64_t off, uint64_t len,
                          enum zc_prio prio);
/* How it ended: once, with no wrong byte, and with nothing of the wrappers left in it. */
int wt_get_wait(struct wt_get *g);
bool wt_get_ended(struct wt_get *g);
void wt_get_free(struct wt_get *g);

#endif
