/* SPDX-License-Identifier: Apache-2.0 */
/* Timers of a loop, and what it waits for a processor. */
#include "net/net.h"
#include "net/timers.h"

#include "unit.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

struct fired {
    pthread_mutex_t lock;
    unsigned n, order[8];
    bool cancelled[8];
    struct zc_net *net;
};

struct timer_arg {
    struct fired *f;
    unsigned id;
};

static void on_timer(void *arg, bool cancelled)
{
    struct timer_arg *a = arg;
    pthread_mutex_lock(&a->f->lock);
    a->f->cancelled[a->f->n] = cancelled;
    a->f->order[a->f->n++] = a->id;
    pthread_mutex_unlock(&a->f->lock);
    if (a->id == 5) /* in a timer nothing new is let in once the end has begun */
        assert_int_equal(zc_net_timer(a->f->net, 0, 0, on_timer, a), -ESHUTDOWN);
}

static void timers_fire_in_order(void **state)
{
    struct zc_net_config cfg = {.loops = 1};
    struct fired f = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct timer_arg a[6];
    assert_int_equal(zc_net_new(&cfg, &f.net), 0);
    for (unsigned i = 0; i < 6; i++)
        a[i] = (struct timer_arg){.f = &f, .id = i};
    int64_t t = zc_now_ns();
    zc_net_timer(f.net, 0, 60 * ZC_NS_PER_MS, on_timer, &a[3]);
    zc_net_timer(f.net, 0, 20 * ZC_NS_PER_MS, on_timer, &a[1]);
    zc_net_timer(f.net, 0, 40 * ZC_NS_PER_MS, on_timer, &a[2]);
    zc_net_timer(f.net, 0, 0, on_timer, &a[0]);
    zc_net_timer(f.net, 0, 100 * ZC_NS_PER_S, on_timer, &a[5]);
    for (unsigned n = 0; n < 4;) {
        usleep(1000);
        pthread_mutex_lock(&f.lock);
        n = f.n;
        pthread_mutex_unlock(&f.lock);
    }
    assert_true(zc_now_ns() - t >= 60 * ZC_NS_PER_MS);
    zc_net_free(f.net);
    assert_int_equal(f.n, 5);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(f.order[i], i);
        assert_false(f.cancelled[i]);
    }
    assert_int_equal(f.order[4], 5);
    assert_true(f.cancelled[4]);
}

struct starved {
    struct zc_net *net;
    int64_t first, last;
    atomic_int n;
};

/* Works for 100 ms of real time. */
static void starved_timer(void *arg, bool cancelled)
{
    struct starved *s = arg;
    int64_t now = zc_net_starved_ns(s->net, 0), until = zc_now_ns() + 100 * ZC_NS_PER_MS;
    while (zc_now_ns() < until)
        ;
    if (atomic_load(&s->n) == 0)
        s->first = now;
    s->last = zc_net_starved_ns(s->net, 0);
    atomic_fetch_add(&s->n, 1);
}

static void *spin(void *arg)
{
    struct starved *s = arg;
    while (atomic_load(&s->n) < 3)
        ;
    return NULL;
}

/* Two that want the one processor: each waits for it about half of the time. */
static void waiting_for_a_processor_is_counted(void **state)
{
    struct zc_net_config cfg = {.loops = 1};
    struct starved s = {0};
    cpu_set_t was, one;
    pthread_t other;
    assert_int_equal(sched_getaffinity(0, sizeof(was), &was), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE && !CPU_COUNT(&one); i++) {
        if (CPU_ISSET(i, &was))
            CPU_SET(i, &one);
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
    assert_int_equal(zc_net_new(&cfg, &s.net), 0);
    assert_int_equal(pthread_create(&other, NULL, spin, &s), 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(zc_net_timer(s.net, 0, 0, starved_timer, &s), 0);
    pthread_join(other, NULL);
    zc_net_free(s.net);
    assert_int_equal(sched_setaffinity(0, sizeof(was), &was), 0);
    assert_in_range(s.last - s.first, 30 * ZC_NS_PER_MS, INT64_MAX);
}

static void timer_nop(void *arg, bool cancelled)
{
}

static void heap_keeps_order(void **state)
{
    struct net_timers t = {0};
    struct net_timer out;
    for (uint64_t i = 0; i < 1000; i++)
        assert_int_equal(
            net_timers_add(&t, (int64_t)(i * 7919 % 101), timer_nop, (void *)(uintptr_t)i), 0);
    int64_t last = -1;
    uintptr_t last_arg = 0;
    assert_false(net_timers_take(&t, -1, &out));
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(net_timers_next(&t), ZC_MAX(net_timers_next(&t), last));
        assert_true(net_timers_take(&t, INT64_MAX, &out));
        assert_true(out.at_ns > last || (out.at_ns == last && (uintptr_t)out.arg > last_arg));
        last = out.at_ns;
        last_arg = (uintptr_t)out.arg;
    }
    assert_int_equal(net_timers_next(&t), INT64_MAX);
    net_timers_free(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(heap_keeps_order),
        cmocka_unit_test(timers_fire_in_order),
        cmocka_unit_test(waiting_for_a_processor_is_counted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
