/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The S3 source: where requests go, who signs them, and the first question.
 *
 * What is not given as an option is looked for where AWS's own tools look: environment, then the
 * profile. Requests go to the bucket's own host name where that works, else in path style: when
 * asked for, when the name does not fit into a host name, when the endpoint is an address or a bare
 * name; and when the first question shows that the bucket's host name leads nowhere.
 */
#include "backend/s3_priv.h"

#include "backend/s3_profile.h"
#include "base/log.h"
#include "base/units.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* Servers' work for a request shows below this; above it one reader has too few connections. */
#define S3_PART_SIZE (16 * ZC_MIB)
#define S3_PART_LIMIT 64
#define S3_PROBE_NS (30 * ZC_NS_PER_S)

char *s3_key(const struct s3 *s, const char *path)
{
    char *key;
    return asprintf(&key, "%s%s", s->prefix, path) < 0 ? NULL : key;
}

/* ---- places ---- */

static void place_free(struct s3_place *p)
{
    if (!p)
        return;
    free(p->region);
    free(p->base);
    free(p->path);
    free(p->host);
    free(p->service);
    free(p);
}

/* Splits scheme://host[:port][/path]; the port is left out where it is the scheme's own, as in a
 * Host header. */
static int place_split(const char *endpoint, char **scheme, char **host, char **path)
{
    const char *sep = strstr(endpoint, "://");
    if (!sep)
        return -EINVAL;
    const char *h = sep + 3, *end = h + strcspn(h, "/");
    size_t n = (size_t)(end - h);
    bool tls = strncasecmp(endpoint, "https:", 6) == 0;
    const char *port = tls ? ":443" : ":80";
    size_t k = strlen(port);
    if (n > k && strncmp(end - k, port, k) == 0)
        n -= k;
    size_t path_len = strlen(end);
    while (path_len && end[path_len - 1] == '/')
        path_len--;
    *scheme = strdup(tls ? "https" : "http");
    *host = strndup(h, n);
    *path = strndup(end, path_len);
    return *scheme && *host && *path ? 0 : -ENOMEM;
}

static int place_new(const struct s3 *s, const char *region, bool path_style, struct s3_place **out)
{
    zc_autofree char *scheme = NULL, *host = NULL, *path = NULL, *aws = NULL;
    struct s3_place *p = calloc(1, sizeof(*p));
    int r = -ENOMEM;
    if (!p)
        return -ENOMEM;
    if (!s->endpoint && asprintf(&aws, "https://s3.%s.amazonaws.com%s", region,
                                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "") < 0) {
        aws = NULL;
        goto fail;
    }
    r = place_split(s->endpoint ? s->endpoint : aws, &scheme, &host, &path);
    if (r < 0)
        goto fail;
    p->path_style = path_style;
    p->region = strdup(region);
    if (asprintf(&p->host, "%s%s%s", path_style ? "" : s->bucket, path_style ? "" : ".", host) < 0)
        p->host = NULL;
    if (asprintf(&p->path, "%s%s%s", path, path_style ? "/" : "", path_style ? s->bucket : "") < 0)
        p->path = NULL;
    if (asprintf(&p->service, "%s://%s%s", scheme, host, path) < 0)
        p->service = NULL;
    if (!p->service || !p->region || !p->host || !p->path ||
        asprintf(&p->base, "%s://%s%s", scheme, p->host, p->path) < 0) {
        p->base = NULL;
        r = -ENOMEM;
        goto fail;
    }
    *out = p;
    return 0;
fail:
    place_free(p);
    return r;
}

int s3_move(struct s3 *s, const char *region, bool path_style)
{
    struct s3_place *p;
    for (const char *c = region; *c; c++)
        if (!isalnum((unsigned char)*c) && *c != '-' && *c != '_')
            return -EINVAL;
    int r = place_new(s, region, path_style, &p);
    if (r < 0)
        return r;
    pthread_mutex_lock(&s->lock);
    struct s3_place *now = atomic_load(&s->place);
    bool same = now && strcmp(now->region, region) == 0 && now->path_style == path_style;
    if (!same) {
        p->older = now;
        atomic_store_explicit(&s->place, p, memory_order_release);
    }
    pthread_mutex_unlock(&s->lock);
    if (same)
        place_free(p);
    return 0;
}

/* Does the bucket's name make a label of a host name (and with TLS one that a wildcard certificate
 * covers)? */
static bool place_bucket_fits(const char *bucket, bool tls)
{
    size_t n = strlen(bucket);
    if (n < 3 || n > 63)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = bucket[i];
        bool edge = i == 0 || i == n - 1;
        if (!(c >= 'a' && c <= 'z') && !(c >= '0' && c <= '9') && (edge || (c != '-' && c != '.')))
            return false;
        if (c == '.' && (tls || bucket[i + 1] == '.'))
            return false;
    }
    return true;
}

/* An address, or a name without a dot ("localhost", a container's): buckets have no names below it.
 */
static bool place_host_bare(const char *endpoint)
{
    char host[256];
    unsigned char addr[16];
    const char *h = strstr(endpoint, "://");
    h = h ? h + 3 : endpoint;
    if (h[0] == '[')
        return true;
    size_t n = strcspn(h, ":/");
    if (n >= sizeof(host))
        return true;
    memcpy(host, h, n);
    host[n] = '\0';
    return !strchr(host, '.') || inet_pton(AF_INET, host, addr) == 1;
}

/* ---- the operations' book-keeping ---- */

void s3_op_begin(struct s3 *s, struct zc_req *req, struct s3_op *op)
{
    atomic_fetch_add_explicit(&s->stats.in_flight, 1, memory_order_relaxed);
    pthread_mutex_lock(&s->lock);
    req->priv[0] = op;
    pthread_mutex_unlock(&s->lock);
}

void s3_op_end(struct s3 *s, struct zc_req *req, int err)
{
    pthread_mutex_lock(&s->lock);
    req->priv[0] = NULL;
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_sub_explicit(&s->stats.in_flight, 1, memory_order_relaxed);
    /* What may be tried again is counted by who gives up. */
    if (err == -EACCES || err == -EIO || err == -EPROTO)
        atomic_fetch_add_explicit(&s->stats.errors, 1, memory_order_relaxed);
}

static void s3_op_cancel(struct zc_backend *be, struct zc_req *req)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    pthread_mutex_lock(&s->lock);
    struct s3_op *op = req->priv[0];
    for (unsigned i = 0; op && i < op->n; i++)
        s3_call_cancel(op->calls[i]);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the first question ---- */

struct s3_probe {
    struct zc_list_req req;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended, empty;
    int err;
};

static void probe_done(struct zc_list_req *req, int err, const struct zc_entry *entries, size_t n,
                       const char *next_token, unsigned skipped)
{
    struct s3_probe *p = zc_container_of(req, struct s3_probe, req);
    pthread_mutex_lock(&p->lock);
    p->err = err;
    p->empty = n == 0 && !next_token && !skipped;
    p->ended = true;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
}

static int probe_once(struct s3 *s, struct zc_error *err)
{
    struct s3_probe p = {
        .req = {.base = {.deadline_ns = zc_now_ns() + s->probe_ns},
                .path = "",
                .max = 1,
                .done = probe_done},
        .lock = PTHREAD_MUTEX_INITIALIZER,
        .cond = PTHREAD_COND_INITIALIZER,
    };
    zc_backend_list(&s->be, &p.req);
    pthread_mutex_lock(&p.lock);
    while (!p.ended)
        pthread_cond_wait(&p.cond, &p.lock);
    pthread_mutex_unlock(&p.lock);
    pthread_cond_destroy(&p.cond);
    pthread_mutex_destroy(&p.lock);
    if (p.err < 0)
        return zc_error_set(err, p.err, "%s", p.req.base.err.text);
    s->be.empty = p.empty;
    return 0;
}

static int s3_op_probe(struct zc_backend *be, struct zc_error *err)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    int r = probe_once(s, err);
    const struct s3_place *place = atomic_load(&s->place);
    bool nowhere = r == -EHOSTUNREACH || r == -EPROTO || r == -ENOENT || r == -EBADMSG;
    if (!nowhere || !s->endpoint || place->path_style)
        return r;
    /* A store of one's own that knows no host names of buckets. */
    struct zc_error again = {0};
    if (s3_move(s, place->region, true) < 0)
        return r;
    if (probe_once(s, &again) == 0) {
        if (err)
            *err = (struct zc_error){0};
        zc_info("%s: the store wants path style", s->be.url);
        return 0;
    }
    s3_move(s, place->region, false);
    return r;
}

/* ---- life ---- */

static void s3_op_free(struct zc_backend *be)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    for (struct s3_place *p = atomic_load(&s->place), *older; p; p = older) {
        older = p->older;
        place_free(p);
    }
    s3_creds_free(s->creds);
    free(s->bucket);
    free(s->prefix);
    free(s->endpoint);
    free(s->owner);
    free(s->ca_bundle);
    free(s->be.url);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

static const struct zc_backend_ops s3_ops = {
    .name = "s3",
    .probe = s3_op_probe,
    .list = s3_op_list,
    .stat = s3_op_stat,
    .get = s3_op_get,
    .cancel = s3_op_cancel,
    .free = s3_op_free,
};

/* ---- configuration ---- */

/* The first of these that says something. */
static const char *config_first(const char *option, const char *env1, const char *env2,
                                const char *profile)
{
    const char *v = option;
    if (!v && env1)
        v = getenv(env1);
    if ((!v || !v[0]) && env2)
        v = getenv(env2);
    if (!v || !v[0])
        v = profile;
    return v && v[0] ? v : NULL;
}

static const char *config_endpoint_url(const struct zc_s3_config *cfg, const struct s3_profile *p)
{
    const char *ignore = getenv("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS");
    if (ignore && strcasecmp(ignore, "true") == 0)
        return config_first(cfg->endpoint_url, NULL, NULL, NULL);
    return config_first(cfg->endpoint_url, "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL",
                        p->v[S3_SET_ENDPOINT_S3] ? p->v[S3_SET_ENDPOINT_S3]
                                                 : p->v[S3_SET_ENDPOINT]);
}

static int config_endpoint(struct s3 *s, const char *url, struct zc_error *err)
{
    if (!url)
        return 0;
    const char *h = strncasecmp(url, "http://", 7) == 0    ? url + 7
                    : strncasecmp(url, "https://", 8) == 0 ? url + 8
                                                           : NULL;
    if (!h || !*h || *h == '/' || *h == ':')
        return zc_error_set(
            err, -EINVAL,
            "the endpoint '%.200s' is not a URL like https://host or http://host:port", url);
    if (strpbrk(h, "?#@ "))
        return zc_error_set(err, -EINVAL,
                            "the endpoint '%.200s' must be scheme, host and port alone", url);
    s->endpoint = strdup(url);
    return s->endpoint ? 0 : zc_error_set(err, -ENOMEM, "out of memory");
}

static int config_attempts(struct s3 *s, const char *text, struct zc_error *err)
{
    uint64_t n;
    if (!text)
        return 0;
    if (zc_parse_uint(text, 1, 1000, &n) < 0)
        return zc_error_set(
            err, -EINVAL,
            "AWS_MAX_ATTEMPTS (or max_attempts of the profile) is '%.50s', not a number "
            "from 1 to 1000",
            text);
    s->max_attempts = (unsigned)n;
    return 0;
}

static int config_place(struct s3 *s, const struct zc_s3_config *cfg, const struct s3_profile *p,
                        struct zc_error *err)
{
    const char *region =
        config_first(cfg->region, "AWS_REGION", "AWS_DEFAULT_REGION", p->v[S3_SET_REGION]);
    const char *style = p->v[S3_SET_ADDRESSING_STYLE];
    bool tls = !s->endpoint || strncasecmp(s->endpoint, "https:", 6) == 0;
    bool path_style = cfg->force_path_style || (style && strcmp(style, "path") == 0) ||
                      !place_bucket_fits(s->bucket, tls) ||
                      (s->endpoint && place_host_bare(s->endpoint));
    int r = s3_move(s, region ? region : "us-east-1", path_style);
    if (r == -EINVAL)
        return zc_error_set(err, r, "'%.50s' is not the name of a region", region);
    return r < 0 ? zc_error_set(err, r, "out of memory") : 0;
}

/* Providers in their order; how many, or -ENOMEM with words. */
static int config_chain(struct zc_net *net, const struct zc_s3_config *cfg, const char *profile,
                        const char *ca_bundle, struct s3_provider *list[S3_CHAIN_MAX],
                        struct zc_error *err)
{
    const char *named = getenv("AWS_PROFILE");
    struct s3_chain_config chain = {
        .net = net,
        .profile = profile,
        .named = named && named[0],
        .explicit = cfg->profile != NULL,
        .region = config_first(cfg->region, "AWS_REGION", "AWS_DEFAULT_REGION", NULL),
        .ca_bundle = ca_bundle,
    };
    int n = s3_chain_new(&chain, list);
    return n < 0 ? zc_error_set(err, n, "out of memory") : n;
}

static int config_creds(struct s3 *s, const struct zc_s3_config *cfg, const char *profile,
                        struct zc_error *err)
{
    struct s3_provider *list[S3_CHAIN_MAX];
    if (s->anonymous)
        return 0;
    int n = config_chain(s->net, cfg, profile, s->ca_bundle, list, err);
    if (n < 0)
        return n;
    if (s3_creds_new(list, (size_t)n, &s->creds) < 0) {
        for (int i = 0; i < n; i++)
            list[i]->free(list[i]);
        return zc_error_set(err, -ENOMEM, "out of memory");
    }
    return s3_creds_load(s->creds, err);
}

static const char *config_profile(const struct zc_s3_config *cfg)
{
    const char *env = getenv("AWS_PROFILE");
    return cfg->profile ? cfg->profile : env && env[0] ? env : "default";
}

static int config_all(struct s3 *s, const struct zc_s3_config *cfg, struct s3_profile *p,
                      struct zc_error *err)
{
    const char *name = config_profile(cfg);
    zc_autofree char *path = s3_profile_config_path();
    size_t n = strlen(cfg->prefix);
    if (!path)
        return zc_error_set(err, -ENOMEM, "out of memory");
    int r = s3_profile_read(path, true, name, p, err);
    if (r < 0)
        return r;
    s->bucket = strdup(cfg->bucket);
    if (asprintf(&s->prefix, "%s%s", cfg->prefix, n ? "/" : "") < 0)
        s->prefix = NULL;
    if (asprintf(&s->be.url, "s3://%s%s%s", cfg->bucket, n ? "/" : "", cfg->prefix) < 0)
        s->be.url = NULL;
    const char *ca = config_first(cfg->ca_bundle, "AWS_CA_BUNDLE", NULL, p->v[S3_SET_CA_BUNDLE]);
    s->ca_bundle = ca ? strdup(ca) : NULL;
    s->owner = cfg->expected_bucket_owner ? strdup(cfg->expected_bucket_owner) : NULL;
    if (!s->bucket || !s->prefix || !s->be.url || (ca && !s->ca_bundle) ||
        (cfg->expected_bucket_owner && !s->owner))
        return zc_error_set(err, -ENOMEM, "out of memory");
    if (ca && access(ca, R_OK) < 0)
        return zc_error_set(err, -errno, "the CA bundle %s cannot be read: %s", ca,
                            strerror(errno));
    s->tls = (struct zc_net_tls){.ca_bundle = s->ca_bundle, .no_verify = cfg->no_verify_ssl};
    s->anonymous = cfg->no_sign_request;
    s->requester_pays = cfg->requester_pays;
    s->probe_ns = cfg->probe_ns ? ZC_MIN(cfg->probe_ns, S3_PROBE_NS) : S3_PROBE_NS;
    r = config_attempts(s, config_first(NULL, "AWS_MAX_ATTEMPTS", NULL, p->v[S3_SET_MAX_ATTEMPTS]),
                        err);
    if (r == 0)
        r = config_endpoint(s, config_endpoint_url(cfg, p), err);
    if (r == 0)
        r = config_place(s, cfg, p, err);
    if (r == 0)
        r = config_creds(s, cfg, name, err);
    return r;
}

int zc_s3_new(struct zc_net *net, const struct zc_s3_config *cfg, struct zc_backend **out,
              struct zc_error *err)
{
    struct s3_profile p = {0};
    struct s3 *s = calloc(1, sizeof(*s));
    if (!s)
        return zc_error_set(err, -ENOMEM, "out of memory");
    s->net = net;
    s->be.ops = &s3_ops;
    s->be.stats = &s->stats;
    s->be.part_size = S3_PART_SIZE;
    s->be.part_limit = S3_PART_LIMIT;
    pthread_mutex_init(&s->lock, NULL);
    int r = config_all(s, cfg, &p, err);
    s3_profile_free(&p);
    if (r < 0) {
        s3_op_free(&s->be);
        return r;
    }
    *out = &s->be;
    return 0;
}

unsigned zc_s3_max_attempts(const struct zc_backend *be)
{
    return be->ops == &s3_ops ? zc_container_of(be, struct s3, be)->max_attempts : 0;
}

/* ---- for who looks for faults ---- */

void zc_s3_look(struct zc_backend *be, struct zc_s3_view *out)
{
    struct s3 *s = zc_container_of(be, struct s3, be);
    const struct s3_place *p = atomic_load_explicit(&s->place, memory_order_acquire);
    struct s3_keys *k = s->anonymous ? NULL : s3_creds_get(s->creds);
    *out = (struct zc_s3_view){.path_style = p->path_style,
                               .signed_requests = !s->anonymous,
                               .ca_bundle = s->ca_bundle,
                               .skew_ns = atomic_load(&s->skew_ns)};
    snprintf(out->url, sizeof(out->url), "%s", p->base);
    snprintf(out->region, sizeof(out->region), "%s", p->region);
    pthread_mutex_lock(&s->lock);
    memcpy(out->refused, s->refused, sizeof(out->refused));
    pthread_mutex_unlock(&s->lock);
    if (k) {
        snprintf(out->key, sizeof(out->key), "%s", k->id);
        snprintf(out->key_from, sizeof(out->key_from), "%s", k->source);
        out->key_expires_ns = k->expires_ns;
        s3_keys_unref(k);
    }
}

int zc_s3_walk(struct zc_net *net, const struct zc_s3_config *cfg, zc_s3_walk_fn *fn, void *arg)
{
    const char *ca = config_first(cfg->ca_bundle, "AWS_CA_BUNDLE", NULL, NULL);
    struct s3_provider *list[S3_CHAIN_MAX];
    struct s3_keys *keys = NULL;
    int r = -ENOENT, n = config_chain(net, cfg, config_profile(cfg), ca, list, NULL);
    for (int i = 0; i < n && r == -ENOENT; i++) {
        struct zc_error why = {0};
        r = list[i]->load(list[i], &keys, &why);
        fn(arg, list[i]->name, r, r == 0 ? keys->source : why.text);
    }
    s3_keys_unref(keys);
    for (int i = 0; i < n; i++)
        list[i]->free(list[i]);
    return n < 0 ? n : r;
}
