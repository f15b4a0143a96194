/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One thread for library calls that may block for long: name services (LDAP), or Kerberos; a source
 * has one of each. It is started by the first job, since a process may probe first and fork
 * afterwards. It shares ownership of its queue with the source, so that a call that hangs while the
 * source goes away hangs alone.
 */
#include "backend/hdfs_priv.h"

#include <errno.h>
#include <signal.h>

#define WORKER_PATIENCE_S 3

struct hdfs_worker {
    pthread_mutex_t lock;
    pthread_cond_t wake, rest;
    struct zc_list jobs;
    pthread_t thread;
    unsigned refs;
    bool started, stop, busy;
};

struct hdfs_worker *hdfs_worker_new(void)
{
    struct hdfs_worker *w = calloc(1, sizeof(*w));
    if (!w)
        return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->rest, &attr);
    pthread_condattr_destroy(&attr);
    zc_list_init(&w->jobs);
    w->refs = 1;
    return w;
}

/* Locked; unlocks. */
static void worker_unref(struct hdfs_worker *w)
{
    bool last = --w->refs == 0;
    pthread_mutex_unlock(&w->lock);
    if (!last)
        return;
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->rest);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

static void *worker_thread(void *arg)
{
    struct hdfs_worker *w = arg;
    pthread_setname_np(pthread_self(), "zc-hdfs");
    pthread_mutex_lock(&w->lock);
    for (;;) {
        struct zc_list *l = zc_list_pop_front(&w->jobs);
        if (l) {
            struct hdfs_job *job = zc_list_entry(l, struct hdfs_job, link);
            w->busy = true;
            pthread_mutex_unlock(&w->lock);
            job->run(job);
            pthread_mutex_lock(&w->lock);
            continue;
        }
        w->busy = false;
        pthread_cond_broadcast(&w->rest);
        if (w->stop)
            break;
        pthread_cond_wait(&w->wake, &w->lock);
    }
    worker_unref(w);
    return NULL;
}

int hdfs_worker_post(struct hdfs_worker *w, struct hdfs_job *job)
{
    int r = 0;
    pthread_mutex_lock(&w->lock);
    if (!w->started) {
        sigset_t all, old;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &old);
        r = -pthread_create(&w->thread, NULL, worker_thread, w);
        pthread_sigmask(SIG_SETMASK, &old, NULL);
        if (r == 0) {
            w->started = true;
            w->refs++;
        }
    }
    if (r == 0) {
        w->busy = true;
        zc_list_push_back(&w->jobs, &job->link);
        pthread_cond_signal(&w->wake);
    }
    pthread_mutex_unlock(&w->lock);
    return r;
}

void hdfs_worker_free(struct hdfs_worker *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_broadcast(&w->wake);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKER_PATIENCE_S;
    while (w->started && w->busy) {
        if (pthread_cond_timedwait(&w->rest, &w->lock, &until) == ETIMEDOUT)
            break;
    }
    bool join = w->started && !w->busy, detach = w->started && w->busy;
    pthread_t thread = w->thread;
    pthread_mutex_unlock(&w->lock);
    if (join)
        pthread_join(thread, NULL);
    else if (detach)
        pthread_detach(thread);
    pthread_mutex_lock(&w->lock);
    worker_unref(w);
}
