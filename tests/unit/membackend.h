/* SPDX-License-Identifier: Apache-2.0 */
/* A source in memory: the path "o/NAME/SIZE" is an object of the test's pattern, version "v".
   Answers at once, or, while it holds, when it is told to. */
#ifndef ZC_TESTS_MEMBACKEND_H
#define ZC_TESTS_MEMBACKEND_H

#include "backend/backend.h"

struct zc_backend *mem_new(void);
/* Requests wait from now on. */
void mem_hold(struct zc_backend *be, bool hold);
/* Lets n of those that wait go on, in the order in which they came; how many did. */
unsigned mem_release(struct zc_backend *be, unsigned n);
unsigned mem_held(struct zc_backend *be);
/* Requests so far, and the most that were held at a time. */
unsigned mem_requests(struct zc_backend *be);
unsigned mem_most_held(struct zc_backend *be);
/* The path of the i-th request that was let go. */
const char *mem_order(struct zc_backend *be, unsigned i);

#endif
