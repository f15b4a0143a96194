/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What every room uses: scope cleanup, small macros, the monotonic clock.
 */
#ifndef ZC_BASE_H
#define ZC_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define ZC_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
/* The smaller or larger of two; each argument is evaluated once. The names inside are numbered, so
   that these nest without one shadowing the other's. */
#define ZC_MIN(a, b) ZC_PICK_(a, <, b, ZC_GLUE_(zc_a_, __COUNTER__), ZC_GLUE_(zc_b_, __COUNTER__))
#define ZC_MAX(a, b) ZC_PICK_(a, >, b, ZC_GLUE_(zc_a_, __COUNTER__), ZC_GLUE_(zc_b_, __COUNTER__))
#define ZC_GLUE_(a, b) ZC_GLUE2_(a, b)
#define ZC_GLUE2_(a, b) a##b
#define ZC_PICK_(a, op, b, a_, b_)                                                                 \
    ({                                                                                             \
        __auto_type a_ = (a);                                                                      \
        __auto_type b_ = (b);                                                                      \
        a_ op b_ ? a_ : b_;                                                                        \
    })
#define zc_container_of(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))
#define ZC_PRINTF(f, a) __attribute__((format(printf, f, a)))

#define ZC_KIB ((uint64_t)1 << 10)
#define ZC_MIB ((uint64_t)1 << 20)
#define ZC_GIB ((uint64_t)1 << 30)

#define ZC_NS_PER_MS ((int64_t)1000000)
#define ZC_NS_PER_S ((int64_t)1000000000)

/* Frees the pointer variable (of any pointer type) when it goes out of scope. */
#define zc_autofree __attribute__((cleanup(zc_cleanup_free)))
static inline void zc_cleanup_free(void *p)
{
    free(*(void **)p);
}

/* Closes the descriptor variable when it goes out of scope, unless it is negative. */
#define zc_autoclose __attribute__((cleanup(zc_cleanup_close)))
static inline void zc_cleanup_close(const int *fd)
{
    if (*fd >= 0)
        close(*fd);
}

/* Moves a pointer or a descriptor out of a variable that cleans itself up. */
#define zc_steal_ptr(pp)                                                                           \
    ({                                                                                             \
        __auto_type v_ = *(pp);                                                                    \
        *(pp) = NULL;                                                                              \
        v_;                                                                                        \
    })
static inline int zc_steal_fd(int *fd)
{
    int v = *fd;
    *fd = -1;
    return v;
}

/* Nanoseconds of CLOCK_MONOTONIC. */
static inline int64_t zc_now_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t)ts.tv_sec * ZC_NS_PER_S + ts.tv_nsec;
}

/* Nanoseconds since the epoch, for what is shown or kept across restarts. */
static inline int64_t zc_wall_ns(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * ZC_NS_PER_S + ts.tv_nsec;
}

#endif
