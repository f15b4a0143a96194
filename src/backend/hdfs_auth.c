/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who we are: a name that is believed (simple), or a delegation token.
 *
 * A NameNode makes a token, and writes it to its log, for each request that comes with a Kerberos
 * login, and DataNodes take nothing but tokens. So one token is obtained, by one login, and goes
 * with every request; it is renewed while it is in use, and replaced when renewing does not help or
 * a server does not take it any more. A source that was told neither of Kerberos nor of a
 * name learns of it by a 401 that offers a login.
 *
 * Logins block on the KDC and run on a worker of their own, so that listings go on with a token
 * that is still good. The struct is shared with that job, since the KDC may keep it longer than the
 * source lives. Who waits for a login waits as long as his own time lasts: a tick of the network's
 * clock, which goes while anybody waits, sends off those whose time is over.
 */
#include "backend/hdfs_priv.h"
#include "backend/hdfs_token.h"
#include "backend/wrap.h"

#include "base/log.h"

#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>

#define AUTH_HTTP_NS (15 * ZC_NS_PER_S)
#define AUTH_END_NS (2 * ZC_NS_PER_S)   /* for giving back a token */
#define AUTH_AGAIN_NS (1 * ZC_NS_PER_S) /* a login that failed is not tried again for so long */
#define AUTH_RENEW_NS                                                                              \
    (3600 * ZC_NS_PER_S)                 /* when the server does not say how long a token lives    \
                                          */
#define AUTH_LATER_NS (10 * ZC_NS_PER_S) /* after a renewal that failed */
#define AUTH_TICK_NS (ZC_NS_PER_S / 4)

struct hdfs_auth {
    struct hdfs *h; /* not to be touched once dead */
    struct hdfs_worker *worker;
    char *user_query; /* "&user.name=..." */
    char *keytab, *principal, *cache;
    struct hdfs_token_file *token_file; /* or NULL */

    pthread_mutex_t lock; /* all below */
    pthread_cond_t cond;
    unsigned refs;
    bool kerberos, busy, dead;
    bool named;   /* told who to be by name, and so not by Kerberos */
    bool learned; /* kerberos is the word of a server */
    char *token;
    uint64_t gen;        /* of the token; the first is 1 */
    int64_t renew_at_ns; /* the token is renewed from here on */
    int64_t life_ns;     /* that it had when it was new */
    struct zc_list waiters;
    bool ticks;        /* there is a timer for them, which has a reference */
    char asked[256];   /* by the job, for words */
    int64_t failed_ns; /* when a login failed last; 0: none did */
    struct zc_error why;
    struct hdfs_job job;
    struct zc_http *http; /* of the job */
};

static void auth_unref(struct hdfs_auth *a)
{
    pthread_mutex_lock(&a->lock);
    bool last = --a->refs == 0;
    pthread_mutex_unlock(&a->lock);
    if (!last)
        return;
    if (a->keytab && a->cache)
        hdfs_gss_forget(a->cache);
    free(a->user_query);
    free(a->keytab);
    free(a->principal);
    free(a->cache);
    hdfs_token_file_free(a->token_file);
    free(a->token);
    pthread_cond_destroy(&a->cond);
    pthread_mutex_destroy(&a->lock);
    free(a);
}

/* ---- HTTP, waited for ---- */

struct auth_http {
    struct zc_http http;
    struct hdfs_auth *a;
    struct zc_buf body;
    int err;
};

static int auth_http_data(struct zc_http *http, const void *p, size_t n)
{
    struct auth_http *x = zc_container_of(http, struct auth_http, http);
    return zc_buf_add(&x->body, p, n) < 0 ? -EBADMSG : 0;
}

static void auth_http_done(struct zc_http *http, int err)
{
    struct auth_http *x = zc_container_of(http, struct auth_http, http);
    pthread_mutex_lock(&x->a->lock);
    x->err = err;
    x->a->http = NULL;
    pthread_cond_broadcast(&x->a->cond);
    pthread_mutex_unlock(&x->a->lock);
}

/* -ECANCELED once the source goes away, unless this belongs to its end. */
static int auth_http_run(struct auth_http *x, bool end)
{
    struct hdfs_auth *a = x->a;
    pthread_mutex_lock(&a->lock);
    if (a->dead && !end) {
        pthread_mutex_unlock(&a->lock);
        return -ECANCELED;
    }
    atomic_fetch_add(&a->h->stats.others, 1);
    a->http = &x->http;
    int r = zc_net_start(a->h->net, &x->http);
    if (r < 0)
        a->http = NULL;
    while (a->http)
        pthread_cond_wait(&a->cond, &a->lock);
    pthread_mutex_unlock(&a->lock);
    return r < 0 ? r : x->err;
}

/* What a request that waits for a token is told: what may pass keeps its code, so that it is tried
   again. All else is a matter of access, whatever the server calls it: that it has no such address
   must not become a file that is not there. */
static int auth_code(int err)
{
    bool ours = err == -ECANCELED || err == -ENOMEM || err == -EPROTO || err == -ESHUTDOWN;
    return ours || zc_retry_useful(err) ? err : -EACCES;
}

/* One request with a Kerberos login; the body of a success. */
static int auth_ask(struct hdfs_auth *a, size_t nn, const char *method, const char *query,
                    struct zc_buf *body, struct zc_error *err)
{
    zc_autofree char *header = NULL, *host = NULL, *url = NULL, *name = NULL;
    int64_t connect_ns = 0, most_ns = AUTH_HTTP_NS;
    struct hdfs_login login = {.keytab = a->keytab, .principal = a->principal, .cache = a->cache};
    pthread_mutex_lock(&a->lock);
    bool dead = a->dead;
    if (!dead) {
        snprintf(a->asked, sizeof(a->asked), "a KDC, asked for HTTP/%.200s,",
                 a->h->target.nn[nn].host);
        host = strdup(a->h->target.nn[nn].host);
        name = strdup(a->h->target.nn[nn].name);
        if (a->h->target.n > 1) { /* its share of the time that a mount has */
            connect_ns = HDFS_CONNECT_NS;
            most_ns = ZC_MIN(HDFS_STALL_NS, a->h->probe_ns / (int64_t)a->h->target.n);
        }
        if (asprintf(&url, "%s/webhdfs/v1/?%s", a->h->target.nn[nn].url, query) < 0)
            url = NULL;
    }
    pthread_mutex_unlock(&a->lock);
    if (dead)
        return -ECANCELED;
    if (!host || !url || !name)
        return zc_error_set(err, -ENOMEM, "out of memory");
    int r = hdfs_gss_negotiate(&login, host, &header, err);
    if (r < 0)
        return r;
    const char *headers[] = {header, NULL};
    struct auth_http x = {
        .a = a,
        .body = {.max = 1 << 20},
        .http =
            {
                .method = method,
                .url = url,
                .headers = headers,
                .tls = &a->h->tls,
                .connect_timeout_ns = connect_ns,
                .deadline_ns = zc_now_ns() + most_ns,
                .data = auth_http_data,
                .done = auth_http_done,
            },
    };
    pthread_mutex_lock(&a->lock);
    snprintf(a->asked, sizeof(a->asked), "%.200s", name);
    pthread_mutex_unlock(&a->lock);
    r = auth_http_run(&x, false);
    if (r < 0) {
        zc_error_set(err, r, "%s: %s", name, x.http.why[0] ? x.http.why : strerror(-r));
    } else if (x.http.status != 200) {
        struct hdfs_fault f;
        hdfs_fault_of(x.http.status, x.body.p, x.body.len, &f);
        r = x.http.status == 401
                ? zc_error_set(err, -EACCES,
                               "%s does not take the Kerberos login (HTTP status 401)", name)
                : zc_error_set(err, f.err, "%s: %s", name, f.text);
    } else {
        *body = x.body;
        x.body = (struct zc_buf){0};
    }
    explicit_bzero(header, strlen(header));
    zc_buf_free(&x.body);
    return r;
}

/* That one is asked first from now on. */
static void auth_answered(struct hdfs_auth *a, size_t nn)
{
    pthread_mutex_lock(&a->lock);
    if (!a->dead)
        atomic_store(&a->h->active, (unsigned)nn);
    pthread_mutex_unlock(&a->lock);
}

/* Each NameNode once, beginning with the one that answered last. */
static int auth_ask_any(struct hdfs_auth *a, const char *method, const char *query,
                        struct zc_buf *body, struct zc_error *err)
{
    int worst = -EAGAIN;
    size_t n, first;
    struct zc_error one, said = {0};
    pthread_mutex_lock(&a->lock);
    bool dead = a->dead;
    n = dead ? 0 : a->h->target.n;
    first = dead ? 0 : atomic_load(&a->h->active);
    pthread_mutex_unlock(&a->lock);
    if (dead)
        return -ECANCELED;
    for (size_t i = 0; i < n; i++) {
        int r = auth_ask(a, (first + i) % n, method, query, body, &one);
        if (r == 0)
            auth_answered(a, (first + i) % n);
        if (r == 0 || r == -ECANCELED)
            return r;
        r = auth_code(r);
        /* As with other questions: several that are of no use now change hands, and a cause that
         * names itself outweighs "try again". */
        if (n == 1 || !zc_retry_useful(r))
            worst = r;
        if (!said.text[0])
            said = one;
        else if (strlen(said.text) + strlen(one.text) + 3 < sizeof(said.text))
            strcat(strcat(said.text, "; "), one.text);
    }
    if (err) {
        *err = said;
        err->code = worst;
    }
    return worst;
}

/* ---- tokens ---- */

/* How long the token lives, from the server's word for when it ends. */
static int64_t auth_lifetime(const struct zc_buf *body)
{
    int64_t ms;
    if (hdfs_json_long(body->p, body->len, &ms) < 0)
        return 0;
    return ms * ZC_NS_PER_MS - zc_wall_ns();
}

static int auth_renew(struct hdfs_auth *a, const char *token, int64_t *life_ns,
                      struct zc_error *err)
{
    zc_autobuf struct zc_buf query = {0}, body = {0};
    zc_buf_adds(&query, "op=RENEWDELEGATIONTOKEN&token=");
    if (zc_buf_adds(&query, token) < 0)
        return -ENOMEM;
    int r = auth_ask_any(a, "PUT", query.p, &body, err);
    if (r == 0)
        *life_ns = auth_lifetime(&body);
    return r;
}

static int auth_obtain(struct hdfs_auth *a, char **token, int64_t *life_ns, struct zc_error *err)
{
    zc_autobuf struct zc_buf body = {0};
    int r = auth_ask_any(a, "GET", "op=GETDELEGATIONTOKEN", &body, err);
    if (r < 0)
        return r;
    r = hdfs_json_token(body.p, body.len, token);
    if (r < 0)
        return zc_error_set(err, r, "the NameNode gave no delegation token");
    /* Renewing at once is how one learns how long it lives. A gateway may refuse: then it is
     * guessed. */
    if (auth_renew(a, *token, life_ns, NULL) < 0)
        *life_ns = 0;
    return 0;
}

/* ---- the job ---- */

/* Locked. */
static void auth_take_token(struct hdfs_auth *a, char *token, int64_t life_ns)
{
    if (a->token) {
        explicit_bzero(a->token, strlen(a->token));
        free(a->token);
    }
    a->token = token;
    a->gen++;
    a->life_ns = life_ns;
    a->renew_at_ns = zc_now_ns() + (life_ns > 0 ? life_ns / 4 * 3 : AUTH_RENEW_NS);
    a->failed_ns = 0;
}

static void auth_run(struct hdfs_job *job)
{
    struct hdfs_auth *a = zc_container_of(job, struct hdfs_auth, job);
    struct zc_error err = {0};
    zc_autofree char *old = NULL;
    char *token = NULL;
    int64_t life_ns = 0;
    uint64_t gen;
    int64_t life_new;
    bool kept = false;
    int r;

    pthread_mutex_lock(&a->lock);
    old = a->token ? strdup(a->token) : NULL;
    gen = a->gen;
    life_new = a->life_ns;
    if (a->token_file)
        snprintf(a->asked, sizeof(a->asked), "a name service");
    pthread_mutex_unlock(&a->lock);

    if (a->token_file) {
        /* It may be replaced in its file by who put it there: looked at now and then. */
        r = hdfs_token_file_read(a->token_file, &token, &err);
    } else {
        /* A renewal that gains little means that the token comes to its end. */
        if (old && auth_renew(a, old, &life_ns, NULL) == 0 && life_ns > life_new / 2) {
            r = 0;
            kept = true;
        } else {
            r = auth_obtain(a, &token, &life_ns, &err);
        }
    }
    struct zc_list waiters = ZC_LIST_INIT(waiters);
    pthread_mutex_lock(&a->lock);
    if (r == 0 && kept && a->gen == gen && a->token) {
        a->renew_at_ns = zc_now_ns() + life_ns / 4 * 3;
        a->failed_ns = 0;
    } else if (r == 0 && token) {
        auth_take_token(a, zc_steal_ptr(&token), life_ns);
    } else if (a->token) {
        a->renew_at_ns = zc_now_ns() + AUTH_LATER_NS;
    }
    if (r < 0) {
        a->why = err;
        a->why.code = r;
        a->failed_ns = zc_now_ns();
        /* Who cannot log in is asked for it again, if it must be. */
        if (r == -EACCES && a->learned && !a->token)
            a->kerberos = a->learned = false;
    }
    bool quiet = a->dead;
    a->busy = false;
    zc_list_splice(&waiters, &a->waiters);
    zc_list_for_each (it, &waiters)
        zc_list_entry(it, struct hdfs_wait, link)->queued = false;
    pthread_mutex_unlock(&a->lock);
    if (r < 0 && !quiet)
        zc_warn("%s", err.text);
    for (struct zc_list *it; (it = zc_list_pop_front(&waiters));) {
        struct hdfs_wait *w = zc_list_entry(it, struct hdfs_wait, link);
        w->done(w, r);
    }
    if (token) {
        explicit_bzero(token, strlen(token));
        free(token);
    }
    if (old)
        explicit_bzero(old, strlen(old));
    auth_unref(a);
}

/* Locked. */
static int auth_start(struct hdfs_auth *a)
{
    if (a->busy)
        return 0;
    a->job.run = auth_run;
    a->refs++;
    a->busy = true;
    int r = hdfs_worker_post(a->worker, &a->job);
    if (r < 0) {
        a->refs--;
        a->busy = false;
    }
    return r;
}

/* ---- for requests ---- */

static void auth_tick(void *arg, bool net_ends);

/* Locked. */
static int auth_tick_start(struct hdfs_auth *a)
{
    if (a->ticks)
        return 0;
    int r = zc_net_timer(a->h->net, 0, AUTH_TICK_NS, auth_tick, a);
    if (r == 0) {
        a->ticks = true;
        a->refs++;
    }
    return r;
}

/* Takes those out whose time is over, or all. Locked. */
static void auth_send_off(struct hdfs_auth *a, int64_t now, bool all, struct zc_list *out)
{
    zc_list_for_each_safe (it, tmp, &a->waiters) {
        struct hdfs_wait *w = zc_list_entry(it, struct hdfs_wait, link);
        if (!all && now < w->until_ns)
            continue;
        zc_list_del(it);
        w->queued = false;
        w->late = !all;
        zc_list_push_back(out, it);
    }
}

static void auth_tick(void *arg, bool net_ends)
{
    struct hdfs_auth *a = arg;
    struct zc_list out = ZC_LIST_INIT(out);
    pthread_mutex_lock(&a->lock);
    a->ticks = false;
    auth_send_off(a, zc_now_ns(), net_ends, &out);
    /* The network may be ending just now, and take no timer any more. */
    if (!a->dead && !zc_list_empty(&a->waiters) && auth_tick_start(a) < 0)
        auth_send_off(a, 0, true, &out);
    pthread_mutex_unlock(&a->lock);
    for (struct zc_list *it; (it = zc_list_pop_front(&out));) {
        struct hdfs_wait *w = zc_list_entry(it, struct hdfs_wait, link);
        w->done(w, w->late ? -ETIMEDOUT : -ECANCELED);
    }
    auth_unref(a);
}

/* Locked. */
static int auth_wait(struct hdfs_auth *a, struct hdfs_wait *w)
{
    int r = auth_tick_start(a);
    if (r == 0)
        r = auth_start(a);
    if (r == 0) {
        w->late = false;
        w->queued = true;
        zc_list_push_back(&a->waiters, &w->link);
    }
    return r;
}

int hdfs_auth_query(struct hdfs_auth *a, struct zc_buf *url, struct hdfs_wait *w, uint64_t *gen)
{
    int r = 1;
    pthread_mutex_lock(&a->lock);
    if (!a->kerberos && !a->token_file) {
        *gen = 0;
        if (zc_buf_adds(url, a->user_query) < 0)
            r = -ENOMEM;
    } else if (a->token) {
        if (zc_now_ns() >= a->renew_at_ns)
            auth_start(a);
        *gen = a->gen;
        if (zc_buf_adds(url, "&delegation=") < 0 || zc_buf_adds(url, a->token) < 0)
            r = -ENOMEM;
    } else if (a->failed_ns && zc_now_ns() - a->failed_ns < AUTH_AGAIN_NS) {
        r = a->why.code;
    } else {
        r = auth_wait(a, w);
    }
    pthread_mutex_unlock(&a->lock);
    return r;
}

bool hdfs_auth_refused(struct hdfs_auth *a, uint64_t gen, bool negotiate)
{
    pthread_mutex_lock(&a->lock);
    bool again = gen != 0 || a->kerberos;
    if (!again && negotiate && !a->named) {
        a->kerberos = a->learned = again = true;
    } else if (gen && gen == a->gen && a->token) {
        zc_info("%s: a delegation token is not taken any more; another one is obtained",
                a->h->be.url);
        explicit_bzero(a->token, strlen(a->token));
        free(a->token);
        a->token = NULL;
    }
    pthread_mutex_unlock(&a->lock);
    return again;
}

static void auth_cancelled(void *arg, bool net_ends)
{
    struct hdfs_wait *w = arg;
    w->done(w, -ECANCELED);
}

void hdfs_auth_cancel(struct hdfs_auth *a, struct hdfs_wait *w, unsigned lane)
{
    pthread_mutex_lock(&a->lock);
    if (w->queued) {
        zc_list_del(&w->link);
        w->queued = zc_net_timer(a->h->net, lane, 0, auth_cancelled, w) < 0;
        if (w->queued)
            zc_list_push_back(&a->waiters, &w->link);
    }
    pthread_mutex_unlock(&a->lock);
}

void hdfs_auth_why(struct hdfs_auth *a, const struct hdfs_wait *w, struct zc_error *out)
{
    pthread_mutex_lock(&a->lock);
    if (w && w->late)
        zc_error_set(out, -ETIMEDOUT, "the login takes too long: %s has not answered yet",
                     a->asked);
    else if (a->failed_ns)
        *out = a->why;
    pthread_mutex_unlock(&a->lock);
}

/* ---- life ---- */

/* A token would live on for a day and more. Whoever has it may cancel it: that takes no login, and
   so no KDC. */
static void auth_give_back(struct hdfs_auth *a, const char *token)
{
    const struct hdfs_target *t = &a->h->target;
    size_t first = atomic_load(&a->h->active);
    int64_t deadline_ns = zc_now_ns() + AUTH_END_NS;
    for (size_t i = 0; i < t->n; i++) {
        const struct hdfs_addr *nn = &t->nn[(first + i) % t->n];
        zc_autobuf struct zc_buf url = {0};
        zc_buf_addf(&url, "%s/webhdfs/v1/?op=CANCELDELEGATIONTOKEN&token=%s&delegation=", nn->url,
                    token);
        if (zc_buf_adds(&url, token) < 0)
            return;
        struct auth_http x = {
            .a = a,
            .body = {.max = HDFS_SMALL_MAX},
            .http =
                {
                    .method = "PUT",
                    .url = url.p,
                    .tls = &a->h->tls,
                    .deadline_ns = deadline_ns,
                    .data = auth_http_data,
                    .done = auth_http_done,
                },
        };
        int r = auth_http_run(&x, true);
        zc_buf_free(&x.body);
        explicit_bzero(url.p, url.len);
        if (r == 0 && x.http.status == 200)
            return;
        zc_debug("%s: the delegation token is left to its end: %s", nn->name,
                 r < 0 ? strerror(-r) : "the NameNode does not cancel it");
    }
}

static char *auth_user(const struct zc_hdfs_config *cfg)
{
    struct passwd p, *found = NULL;
    char buf[4096], number[16];
    const char *user = cfg->user ? cfg->user : getenv("HADOOP_USER_NAME");
    if (!user || !*user) {
        if (getpwuid_r(geteuid(), &p, buf, sizeof(buf), &found) == 0 && found) {
            user = found->pw_name;
        } else {
            snprintf(number, sizeof(number), "%u", (unsigned)geteuid());
            user = number;
        }
    }
    zc_autobuf struct zc_buf b = {0};
    zc_buf_adds(&b, "&user.name=");
    zc_buf_add_urlenc(&b, user, strlen(user), false);
    return zc_buf_steal(&b);
}

int hdfs_auth_new(struct hdfs *h, const struct zc_hdfs_config *cfg, struct hdfs_auth **out,
                  struct zc_error *err)
{
    struct hdfs_auth *a = calloc(1, sizeof(*a));
    if (!a)
        return zc_error_set(err, -ENOMEM, "out of memory");
    const char *token_file = cfg->token_file;
    if (!token_file && !cfg->keytab && !cfg->principal && !cfg->user)
        token_file = getenv("HADOOP_TOKEN_FILE_LOCATION");
    a->h = h;
    a->refs = 1;
    a->worker = hdfs_worker_new();
    a->named = cfg->user != NULL;
    a->kerberos = cfg->keytab || cfg->principal || (h->target.kerberos && !cfg->user);
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->cond, NULL);
    zc_list_init(&a->waiters);
    a->user_query = auth_user(cfg);
    a->keytab = cfg->keytab ? strdup(cfg->keytab) : NULL;
    a->principal = cfg->principal ? strdup(cfg->principal) : NULL;
    if (token_file && *token_file)
        a->token_file = hdfs_token_file_new(token_file, &h->target);
    /* Never the name of a source that was before: its tickets would be another's. */
    static atomic_uint caches;
    if (asprintf(&a->cache, "MEMORY:zcache-%u", atomic_fetch_add(&caches, 1)) < 0)
        a->cache = NULL;
    if (!a->worker || !a->user_query || !a->cache || (cfg->keytab && !a->keytab) ||
        (cfg->principal && !a->principal) || (token_file && *token_file && !a->token_file)) {
        hdfs_auth_free(a);
        return zc_error_set(err, -ENOMEM, "out of memory");
    }
    *out = a;
    return 0;
}

void hdfs_auth_free(struct hdfs_auth *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->lock);
    a->dead = true;
    while (a->http) {
        zc_net_cancel(a->h->net, a->http);
        pthread_cond_wait(&a->cond, &a->lock);
    }
    pthread_mutex_unlock(&a->lock);
    hdfs_worker_free(a->worker);
    pthread_mutex_lock(&a->lock);
    char *token = zc_steal_ptr(&a->token);
    pthread_mutex_unlock(&a->lock);
    if (token) {
        if (!a->token_file)
            auth_give_back(a, token);
        explicit_bzero(token, strlen(token));
        free(token);
    }
    auth_unref(a);
}
