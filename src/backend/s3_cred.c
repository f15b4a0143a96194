/* SPDX-License-Identifier: Apache-2.0 */
/* The list of providers, the keys of the moment, and renewing them. */
#include "backend/s3_cred.h"

#include "backend/s3_cred_priv.h"
#include "base/list.h"
#include "base/log.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#define CRED_EARLY_NS (300 * ZC_NS_PER_S)    /* keys are renewed so long before their end */
#define CRED_AGAIN_MAX_NS (10 * ZC_NS_PER_S) /* a renewal that failed is not tried again sooner */
#define CRED_AGAIN_MIN_NS (100 * ZC_NS_PER_MS)

struct cred_waiter {
    struct zc_list link;
    s3_creds_fn *fn;
    void *arg;
    int64_t until_ns; /* no longer than that */
};

struct s3_creds {
    struct s3_provider **providers;
    size_t n;
    pthread_mutex_t lock; /* all below; not held while a provider loads or a waiter is called */
    struct s3_keys *keys;
    struct s3_provider *from; /* gave them */
    struct zc_list waiters;
    bool renewing;
    bool watched;        /* a thread sends off waiters whose time is over */
    pthread_cond_t turn; /* for it: a new waiter, or the renewal has ended */
    unsigned threads;    /* that renew, watch, or still call waiters */
    pthread_cond_t idle;
    int64_t tried_ns;    /* when the last renewal began */
    struct zc_error why; /* it failed */
};

/* ---- keys ---- */

struct s3_keys *s3_keys_new(const char *id, const char *secret, const char *token,
                            int64_t expires_ns, const char *source)
{
    struct s3_keys *k = calloc(1, sizeof(*k));
    if (!k)
        return NULL;
    atomic_store(&k->refs, 1);
    pthread_mutex_init(&k->lock, NULL);
    k->id = strdup(id);
    k->secret = strdup(secret);
    k->token = token && token[0] ? strdup(token) : NULL;
    k->source = strdup(source);
    k->expires_ns = expires_ns;
    k->born_ns = zc_wall_ns();
    if (expires_ns) {
        int64_t life = ZC_MAX(expires_ns - k->born_ns, (int64_t)0);
        k->early_ns = ZC_MIN(CRED_EARLY_NS, life / 3);
        k->early_ns += s3_jitter(k->early_ns / 5 + 1);
    }
    if (!k->id || !k->secret || !k->source || (token && token[0] && !k->token)) {
        s3_keys_unref(k);
        return NULL;
    }
    return k;
}

void s3_keys_unref(struct s3_keys *k)
{
    if (!k || atomic_fetch_sub(&k->refs, 1) != 1)
        return;
    if (k->secret)
        OPENSSL_cleanse(k->secret, strlen(k->secret));
    if (k->token)
        OPENSSL_cleanse(k->token, strlen(k->token));
    OPENSSL_cleanse(k->signing, sizeof(k->signing));
    free(k->id);
    free(k->secret);
    free(k->token);
    free(k->source);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

bool s3_keys_expired(const struct s3_keys *k)
{
    return k->expires_ns && zc_wall_ns() >= k->expires_ns;
}

static bool keys_same(const struct s3_keys *a, const struct s3_keys *b)
{
    return strcmp(a->id, b->id) == 0 && strcmp(a->secret, b->secret) == 0 &&
           strcmp(a->token ? a->token : "", b->token ? b->token : "") == 0 &&
           a->expires_ns == b->expires_ns;
}

int s3_keys_signing(struct s3_keys *k, const char *date, const char *region,
                    uint8_t out[S3_SHA256_BYTES])
{
    char scope[sizeof(k->scope)];
    int n = snprintf(scope, sizeof(scope), "%.8s/%s", date, region);
    if (n < 0 || (size_t)n >= sizeof(scope))
        return -EINVAL;
    pthread_mutex_lock(&k->lock);
    bool hit = strcmp(k->scope, scope) == 0;
    if (hit)
        memcpy(out, k->signing, S3_SHA256_BYTES);
    pthread_mutex_unlock(&k->lock);
    if (hit)
        return 0;
    int r = s3_sign_key(k->secret, date, region, "s3", out);
    if (r == 0) {
        pthread_mutex_lock(&k->lock);
        memcpy(k->signing, out, S3_SHA256_BYTES);
        memcpy(k->scope, scope, sizeof(scope));
        pthread_mutex_unlock(&k->lock);
    }
    return r;
}

/* ---- the list ---- */

int s3_creds_new(struct s3_provider **providers, size_t n, struct s3_creds **out)
{
    struct s3_creds *c = calloc(1, sizeof(*c));
    struct s3_provider **list = calloc(n + 1, sizeof(*list));
    if (!c || !list) {
        free(c);
        free(list);
        return -ENOMEM;
    }
    memcpy(list, providers, n * sizeof(*list));
    c->providers = list;
    c->n = n;
    zc_list_init(&c->waiters);
    pthread_mutex_init(&c->lock, NULL);
    pthread_cond_init(&c->idle, NULL);
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC); /* as zc_now_ns */
    pthread_cond_init(&c->turn, &attr);
    pthread_condattr_destroy(&attr);
    *out = c;
    return 0;
}

/* Asks all in turn. */
static int cred_ask(struct s3_creds *c, struct s3_keys **keys, struct s3_provider **from,
                    struct zc_error *err)
{
    char words[780] = "";
    size_t used = 0;
    for (size_t i = 0; i < c->n; i++) {
        struct zc_error why = {0};
        int r = c->providers[i]->load(c->providers[i], keys, &why);
        if (r == 0) {
            *from = c->providers[i];
            return 0;
        }
        if (r != -ENOENT)
            return zc_error_set(err, r, "%s", why.text);
        if (used < sizeof(words)) {
            int n = snprintf(words + used, sizeof(words) - used, "%s%s: %.160s", used ? "; " : "",
                             c->providers[i]->name, why.text);
            used += n > 0 ? (size_t)n : 0;
        }
    }
    return zc_error_set(
        err, -EACCES,
        "no AWS credentials found (%s). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a "
        "profile with --profile, or pass --no-sign-request for a public bucket",
        words);
}

int s3_creds_load(struct s3_creds *c, struct zc_error *err)
{
    struct s3_keys *keys = NULL;
    struct s3_provider *from = NULL;
    int r = c->n ? cred_ask(c, &keys, &from, err) : 0;
    if (r < 0)
        return r;
    pthread_mutex_lock(&c->lock);
    struct s3_keys *old = c->keys;
    c->keys = keys;
    c->from = from;
    pthread_mutex_unlock(&c->lock);
    s3_keys_unref(old);
    return 0;
}

/* Asks who gave the last keys, and the others only when it has none any more. 1: there are newer
 * keys; 0: the same still. */
static int cred_again(struct s3_creds *c, struct zc_error *err)
{
    struct s3_keys *keys = NULL, *old;
    struct s3_provider *from = c->from; /* changed by the one renewal alone */
    int r = from->load(from, &keys, err);
    if (r == -ENOENT)
        r = cred_ask(c, &keys, &from, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&c->lock);
    old = c->keys;
    bool newer = !old || !keys_same(old, keys);
    if (newer) {
        c->keys = keys;
        c->from = from;
    } else {
        old = keys;
    }
    pthread_mutex_unlock(&c->lock);
    s3_keys_unref(old);
    return newer;
}

void s3_creds_why(struct s3_creds *c, struct zc_error *out)
{
    pthread_mutex_lock(&c->lock);
    *out = c->why;
    pthread_mutex_unlock(&c->lock);
}

/* ---- renewing ---- */

static void cred_wake(struct zc_list *waiters, bool newer)
{
    for (struct zc_list *it; (it = zc_list_pop_front(waiters));) {
        struct cred_waiter *w = zc_list_entry(it, struct cred_waiter, link);
        w->fn(w->arg, newer);
        free(w);
    }
}

static void *cred_thread(void *arg)
{
    struct s3_creds *c = arg;
    struct zc_list ready = ZC_LIST_INIT(ready);
    struct zc_error err = {0};
    pthread_setname_np(pthread_self(), "zc-credentials");
    int r = cred_again(c, &err);
    pthread_mutex_lock(&c->lock);
    bool first = r < 0 && c->why.code == 0, last = r >= 0 && c->why.code != 0;
    int64_t left = c->keys && c->keys->expires_ns ? c->keys->expires_ns - zc_wall_ns() : 0;
    if (r < 0)
        c->why = err;
    else
        c->why.code = 0;
    zc_list_splice(&ready, &c->waiters);
    c->renewing = false;
    pthread_cond_signal(&c->turn);
    pthread_mutex_unlock(&c->lock);
    if (first && r != -ECANCELED)
        zc_warn("credentials could not be renewed%s: %s",
                left > 0 ? ", those of before still serve" : "", err.text);
    if (last)
        zc_warn("credentials could be renewed again");
    cred_wake(&ready, r > 0);
    pthread_mutex_lock(&c->lock);
    if (--c->threads == 0)
        pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Locked. The waiter whose time is over first. */
static struct cred_waiter *cred_first(struct s3_creds *c)
{
    struct cred_waiter *first = NULL;
    zc_list_for_each (it, &c->waiters) {
        struct cred_waiter *w = zc_list_entry(it, struct cred_waiter, link);
        if (!first || w->until_ns < first->until_ns)
            first = w;
    }
    return first;
}

/* A provider may take as long as it likes; who waits for it may not. */
static void *cred_watch(void *arg)
{
    struct s3_creds *c = arg;
    struct cred_waiter *w;
    pthread_setname_np(pthread_self(), "zc-cred-watch");
    pthread_mutex_lock(&c->lock);
    while (c->renewing && (w = cred_first(c))) {
        if (w->until_ns > zc_now_ns()) {
            struct timespec ts = {.tv_sec = w->until_ns / ZC_NS_PER_S,
                                  .tv_nsec = w->until_ns % ZC_NS_PER_S};
            pthread_cond_timedwait(&c->turn, &c->lock, &ts);
            continue;
        }
        zc_list_del(&w->link);
        pthread_mutex_unlock(&c->lock);
        w->fn(w->arg, false);
        free(w);
        pthread_mutex_lock(&c->lock);
    }
    c->watched = false;
    if (--c->threads == 0)
        pthread_cond_broadcast(&c->idle);
    pthread_mutex_unlock(&c->lock);
    return NULL;
}

/* Locked. Starts a thread that nobody joins; s3_creds_free waits for its end. */
static int cred_spawn(struct s3_creds *c, void *(*run)(void *))
{
    pthread_t thread;
    pthread_attr_t attr;
    sigset_t all, old;
    pthread_attr_init(&attr);
    pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int r = pthread_create(&thread, &attr, run, c);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    pthread_attr_destroy(&attr);
    c->threads += r == 0;
    return -r;
}

/* Locked. Starts a renewal unless one is under way. */
static int cred_start(struct s3_creds *c)
{
    if (c->renewing)
        return 0;
    int r = cred_spawn(c, cred_thread);
    c->renewing = r == 0;
    c->tried_ns = zc_now_ns();
    return r;
}

/* Locked. Sees to it that the waiters are watched. */
static int cred_watched(struct s3_creds *c)
{
    if (c->watched)
        return pthread_cond_signal(&c->turn); /* always 0 */
    int r = cred_spawn(c, cred_watch);
    c->watched = r == 0;
    return r;
}

/* Locked. Is it too soon after the last try? */
static bool cred_too_soon(const struct s3_creds *c)
{
    int64_t early = c->keys && c->keys->expires_ns ? c->keys->early_ns : CRED_EARLY_NS;
    int64_t again = ZC_MIN(ZC_MAX(early / 8, CRED_AGAIN_MIN_NS), CRED_AGAIN_MAX_NS);
    return c->tried_ns && zc_now_ns() - c->tried_ns < again;
}

struct s3_keys *s3_creds_get(struct s3_creds *c)
{
    pthread_mutex_lock(&c->lock);
    struct s3_keys *k = c->keys;
    if (k) {
        atomic_fetch_add(&k->refs, 1);
        if (k->expires_ns && k->expires_ns - zc_wall_ns() < k->early_ns && c->from &&
            !cred_too_soon(c))
            cred_start(c);
    }
    pthread_mutex_unlock(&c->lock);
    return k;
}

void s3_creds_renew(struct s3_creds *c, const struct s3_keys *old, int64_t until_ns,
                    s3_creds_fn *fn, void *arg)
{
    struct cred_waiter *w = malloc(sizeof(*w));
    pthread_mutex_lock(&c->lock);
    bool newer = c->keys && c->keys != old;
    /* Keys that never expire by themselves are worth asking for again only when their place has
     * changed. */
    bool can = c->from && ((c->from->changed && c->from->changed(c->from)) ||
                           ((c->from->dynamic || (old && old->expires_ns)) && !cred_too_soon(c)));
    bool wait = !newer && w && (c->renewing || (can && cred_start(c) == 0)) && cred_watched(c) == 0;
    if (wait) {
        *w = (struct cred_waiter){.fn = fn, .arg = arg, .until_ns = until_ns};
        zc_list_push_back(&c->waiters, &w->link);
    }
    pthread_mutex_unlock(&c->lock);
    if (!wait) {
        free(w);
        fn(arg, newer);
    }
}

static void cred_cancelled(void *arg, bool cancelled)
{
    struct cred_waiter *w = arg;
    w->fn(w->arg, false);
    free(w);
}

void s3_creds_cancel(struct s3_creds *c, struct zc_net *net, unsigned lane, void *arg)
{
    pthread_mutex_lock(&c->lock);
    for (struct zc_list *it = c->waiters.next; it != &c->waiters; it = it->next) {
        struct cred_waiter *w = zc_list_entry(it, struct cred_waiter, link);
        if (w->arg != arg)
            continue;
        zc_list_del(&w->link);
        if (zc_net_timer(net, lane, 0, cred_cancelled, w) < 0)
            zc_list_push_back(&c->waiters, &w->link); /* it waits on */
        break;
    }
    pthread_mutex_unlock(&c->lock);
}

void s3_creds_free(struct s3_creds *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < c->n; i++)
        if (c->providers[i]->stop)
            c->providers[i]->stop(c->providers[i]);
    pthread_mutex_lock(&c->lock);
    while (c->threads)
        pthread_cond_wait(&c->idle, &c->lock);
    pthread_mutex_unlock(&c->lock);
    for (size_t i = 0; i < c->n; i++)
        c->providers[i]->free(c->providers[i]);
    free(c->providers);
    s3_keys_unref(c->keys);
    pthread_cond_destroy(&c->idle);
    pthread_cond_destroy(&c->turn);
    pthread_mutex_destroy(&c->lock);
    free(c);
}
