/* SPDX-License-Identifier: Apache-2.0 */
/* A few threads that open files the kernel has forgotten: several disk reads at a time, and the
 * rings go on. */
#include "fuse/internal.h"

#include <errno.h>

struct opener_job {
    struct zc_list link;
    fuse_req_t req;
    uint64_t node;
    struct fuse_file_info fi;
};

struct fuse_openers {
    pthread_mutex_t lock;
    pthread_cond_t cond;
    struct zc_list jobs;
    bool ending;
    unsigned n;
    pthread_t threads[];
};

static void *openers_run(void *arg)
{
    struct fuse_openers *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        struct zc_list *it = zc_list_pop_front(&p->jobs);
        if (!it) {
            if (p->ending)
                break;
            pthread_cond_wait(&p->cond, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        struct opener_job *j = zc_list_entry(it, struct opener_job, link);
        fuse_open_waiting(j->req, j->node, &j->fi);
        free(j);
        pthread_mutex_lock(&p->lock);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

int fuse_openers_new(unsigned threads, struct fuse_openers **out)
{
    struct fuse_openers *p = calloc(1, sizeof(*p) + threads * sizeof(p->threads[0]));
    if (!p)
        return -ENOMEM;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->cond, NULL);
    zc_list_init(&p->jobs);
    for (; p->n < threads; p->n++) {
        int r = pthread_create(&p->threads[p->n], NULL, openers_run, p);
        if (r != 0) {
            fuse_openers_end(p);
            fuse_openers_free(p);
            return -r;
        }
    }
    *out = p;
    return 0;
}

void fuse_openers_end(struct fuse_openers *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->lock);
    p->ending = true;
    pthread_cond_broadcast(&p->cond);
    pthread_mutex_unlock(&p->lock);
    for (unsigned i = 0; i < p->n; i++)
        pthread_join(p->threads[i], NULL);
    p->n = 0;
}

void fuse_openers_free(struct fuse_openers *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    pthread_cond_destroy(&p->cond);
    free(p);
}

int fuse_openers_add(struct fuse_openers *p, fuse_req_t req, uint64_t node,
                     const struct fuse_file_info *fi)
{
    struct opener_job *j = malloc(sizeof(*j));
    if (!j)
        return -ENOMEM;
    *j = (struct opener_job){.req = req, .node = node, .fi = *fi};
    pthread_mutex_lock(&p->lock);
    bool ending = p->ending;
    if (!ending) {
        zc_list_push_back(&p->jobs, &j->link);
        pthread_cond_signal(&p->cond);
    }
    pthread_mutex_unlock(&p->lock);
    if (ending)
        free(j);
    return ending ? -ESHUTDOWN : 0;
}
