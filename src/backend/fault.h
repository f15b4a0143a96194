/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A wrapper that makes a source misbehave, for tests: errors, data that stops half way, answers
 * that take their time. What happens to a request is decided by a plan that the test gives; a plan
 * that depends on its arguments alone happens again in the next run.
 */
#ifndef ZC_BACKEND_FAULT_H
#define ZC_BACKEND_FAULT_H

#include "backend/backend.h"

struct zc_net;

enum zc_fault_op { ZC_FAULT_LIST, ZC_FAULT_STAT, ZC_FAULT_GET };

struct zc_fault {
    int err;          /* negative errno that the request ends with; 0: it goes through */
    uint64_t after;   /* with err, for gets: so many bytes come first. When the get has fewer, it
                         succeeds */
    int64_t delay_ns; /* before anything happens */
};

/* n: how many requests came before this one. Called on the submitting thread, one call at a time.
 */
typedef struct zc_fault zc_fault_plan(void *user, uint64_t n, enum zc_fault_op op,
                                      const char *path);

/* net is for delays; without one they are left out. */
int zc_fault_new(struct zc_backend *inner, struct zc_net *net, zc_fault_plan *plan, void *user,
                 struct zc_backend **out);

/* A plan by chance: `user` is one of these. The same seed gives the same faults for the same n. */
struct zc_fault_chance {
    uint64_t seed;
    unsigned per_mille; /* requests that fail */
    const int *errors;  /* one of these */
    unsigned n_errors;
    uint64_t after_max;   /* gets fail after 0 to so many bytes */
    int64_t delay_max_ns; /* every request waits for up to so long */
};
struct zc_fault zc_fault_by_chance(void *user, uint64_t n, enum zc_fault_op op, const char *path);

#endif
