/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A source of the daemon: store -> limit -> retry, on a network of its own; on a node of a cluster
 * -> peers, on theirs.
 *
 * Each source has its own event loops and connections, because those are what a store that has
 * frozen holds on to: the requests, connections and name look-ups of another one never queue behind
 * its. What all share is local: the cache, the file system, and the threads that serve the kernel,
 * none of which waits for a store.
 */
#include "cli/daemon_int.h"

#include "backend/dir.h"
#include "backend/s3.h"
#include "backend/wrap.h"
#include "base/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct zc_s3_config zc_daemon_s3(const struct zc_source *src, const struct zc_mount_opts *o)
{
    return (struct zc_s3_config){
        .bucket = src->bucket,
        .prefix = src->prefix,
        .endpoint_url = o->endpoint_url,
        .region = o->region,
        .profile = o->profile,
        .ca_bundle = o->ca_bundle,
        .expected_bucket_owner = o->expected_bucket_owner,
        .force_path_style = o->force_path_style,
        .no_sign_request = o->no_sign_request,
        .requester_pays = o->requester_pays,
        .no_verify_ssl = o->no_verify_ssl,
    };
}

int zc_daemon_store(struct zc_net *net, const struct zc_source *src, const struct zc_mount_opts *o,
                    struct zc_backend **out, struct zc_error *err)
{
    if (src->scheme == ZC_SCHEME_S3) {
        struct zc_s3_config s3 = zc_daemon_s3(src, o);
        s3.probe_ns = o->read_timeout;
        return zc_s3_new(net, &s3, out, err);
    }
    if (zc_scheme_is_hdfs(src->scheme))
        return zc_daemon_hdfs(net, src, o, out, err);
    struct zc_dir_config dir = {.path = src->path};
    return zc_dirsrc_new(&dir, out, err);
}

/* Wraps the store into what makes it bearable. */
static int source_wrap(struct zc_daemon_source *s, struct zc_error *err)
{
    const struct zc_mount_opts *o = &s->plan->o;
    enum zc_scheme scheme = s->plan->src.scheme;
    struct zc_backend *outer;
    unsigned attempts = scheme == ZC_SCHEME_S3 ? zc_s3_max_attempts(s->be) : 0;
    int r = zc_limit_new(s->be, s->net, (unsigned)o->max_connections, &outer);
    if (r == 0) {
        s->be = outer;
        struct zc_retry_config retry = {.attempts = attempts, .deadline_ns = o->read_timeout};
        r = zc_retry_new(s->be, s->net, &retry, &outer);
    }
    if (r < 0)
        return zc_error_set(err, r, "cannot set up the source: %s", strerror(-r));
    s->be = outer;
    return 0;
}

static int source_identity(struct zc_daemon_source *s, struct zc_error *err)
{
    const struct zc_mount_opts *o = &s->plan->o;
    const char *at = o->endpoint_url, *profile = o->profile;
    if (s->plan->src.scheme == ZC_SCHEME_S3) {
        /* Buckets of one name at two services are two sources; a profile may name a service. */
        at = at ? at : getenv("AWS_ENDPOINT_URL_S3");
        at = at ? at : getenv("AWS_ENDPOINT_URL");
        profile = profile ? profile : getenv("AWS_PROFILE");
    }
    if (asprintf(&s->identity, "%s%s%s%s%s", s->be->url, at ? " at " : "", at ? at : "",
                 !at && profile ? " of " : "", !at && profile ? profile : "") < 0) {
        s->identity = NULL;
        return zc_error_set(err, -ENOMEM, "no memory");
    }
    return 0;
}

/* From here until source_left its network may be stopped under it. */
static int source_enter(struct zc_daemon *d, struct zc_daemon_source *s, struct zc_error *err)
{
    pthread_mutex_lock(&d->sources_lock);
    bool late = d->stopping;
    if (!late)
        zc_list_push_back(&d->opening, &s->link);
    pthread_mutex_unlock(&d->sources_lock);
    return late ? zc_error_set(err, -ECANCELED, "the mount is ending") : 0;
}

/* What failed because of a stop says so. */
static int source_left(struct zc_daemon *d, struct zc_daemon_source *s, int r, struct zc_error *err)
{
    pthread_mutex_lock(&d->sources_lock);
    zc_list_del(&s->link);
    bool late = d->stopping;
    pthread_mutex_unlock(&d->sources_lock);
    return late && r < 0 ? zc_error_set(err, -ECANCELED, "the mount is ending") : r;
}

void zc_daemon_sources_stop(struct zc_daemon *d)
{
    pthread_mutex_lock(&d->sources_lock);
    d->stopping = true;
    zc_list_for_each (it, &d->opening)
        zc_net_stop(zc_list_entry(it, struct zc_daemon_source, link)->net);
    pthread_mutex_unlock(&d->sources_lock);
}

static int source_reach(struct zc_daemon_source *s, struct zc_error *err)
{
    int r = zc_daemon_store(s->net, &s->plan->src, &s->plan->o, &s->be, err);
    if (r == 0)
        r = source_wrap(s, err);
    if (r == 0)
        r = zc_backend_probe(s->be, err);
    return r == 0 ? source_identity(s, err) : r;
}

static int source_open(struct zc_daemon *d, struct zc_daemon_source *s, struct zc_error *err)
{
    struct zc_net_config net = {.connections = (unsigned)s->plan->o.max_connections};
    int r = zc_net_new(&net, &s->net);
    if (r < 0)
        return zc_error_set(err, r, "cannot start the network: %s", strerror(-r));
    r = source_enter(d, s, err);
    return r == 0 ? source_left(d, s, source_reach(s, err), err) : r;
}

int zc_daemon_source_open(struct zc_daemon *d, struct zc_plan_source *plan,
                          struct zc_daemon_source **out, struct zc_error *err)
{
    struct zc_daemon_source *s = calloc(1, sizeof(*s));
    if (!s)
        return zc_error_set(err, -ENOMEM, "no memory");
    s->plan = plan;
    s->since_ns = zc_now_ns();
    int r = source_open(d, s, err);
    if (r < 0) {
        zc_daemon_source_close(s);
        if (*plan->at)
            zc_error_prefix(err, "/%.300s (%.300s)", plan->at, plan->text);
        if (plan->line)
            zc_error_prefix(err, "%.300s:%u", d->cfg->plan->file, plan->line);
        return r;
    }
    *out = s;
    return 0;
}

void zc_daemon_source_close(struct zc_daemon_source *s)
{
    if (!s)
        return;
    if (s->top || s->be)
        zc_backend_free(s->top ? s->top : s->be);
    if (s->net)
        zc_net_free(s->net);
    free(s->identity);
    zc_plan_source_free(s->own_plan);
    free(s);
}

bool zc_daemon_source_doubt(const struct zc_daemon_source *s, struct zc_error *words)
{
    if (s->be->empty)
        snprintf(words->text, sizeof(words->text), "nothing is there yet in %.300s%s", s->be->url,
                 s->plan->src.prefix && *s->plan->src.prefix
                     ? "; if that is not meant, check the prefix"
                     : "");
    return s->be->empty;
}

int zc_daemon_source_show(struct zc_daemon *d, struct zc_daemon_source *s, struct zc_error *err)
{
    const struct zc_mount_opts *o = &s->plan->o;
    if (d->peer && zc_peer_share(d->peer, s->be, s->identity, &s->top) < 0)
        return zc_error_set(err, -ENOMEM, "no memory");
    struct zc_vfs_source_config cfg = {
        .at = s->plan->at,
        .be = s->top ? s->top : s->be,
        .identity = s->identity,
        .ttl_ns = o->metadata_ttl,
        .negative_ttl_ns = o->negative_metadata_ttl,
        .uid = o->uid,
        .gid = o->gid,
        .file_mode = o->file_mode,
        .dir_mode = o->dir_mode,
    };
    int r = zc_vfs_source_add(d->vfs, &cfg, &s->vfs, err);
    if (r < 0)
        return r;
    pthread_mutex_lock(&d->sources_lock);
    zc_list_push_back(&d->sources, &s->link);
    /* Under the lock: once it is in the list somebody may remove it. */
    zc_info("%s is shown at %s/%s", s->be->url, d->cfg->mountpoint, s->plan->at);
    pthread_mutex_unlock(&d->sources_lock);
    return 0;
}

/* ------------------------------------------------------------------ on a running mount */

int zc_daemon_source_add(struct zc_daemon *d, struct zc_plan_source *take, struct zc_error *err)
{
    struct zc_daemon_source *s;
    int r = zc_vfs_source_fits(d->vfs, take->at, err);
    if (r == 0)
        r = zc_plan_source_finish(d->cfg->plan, take, err);
    if (r == 0)
        r = zc_plan_source_resolve(take, err);
    if (r == 0 && take->src.scheme == ZC_SCHEME_FILE)
        r = zc_place_overlap(d->cfg->mountpoint, d->cfg->cache_dir, take->src.path, NULL, err);
    if (r == 0)
        r = zc_daemon_source_open(d, take, &s, err);
    if (r < 0) {
        zc_plan_source_free(take);
        return r;
    }
    s->own_plan = take;
    struct zc_error words = {0};
    bool doubt = zc_daemon_source_doubt(s, &words);
    r = zc_daemon_source_show(d, s, err);
    if (r < 0) {
        zc_daemon_source_close(s);
        return r;
    }
    if (doubt) {
        zc_warn("%s", words.text);
        *err = words;
    }
    return 0;
}

/* Finds a source and claims it for the caller, who removes it. */
static struct zc_daemon_source *source_claim(struct zc_daemon *d, const char *at,
                                             struct zc_error *err)
{
    struct zc_daemon_source *found = NULL;
    pthread_mutex_lock(&d->sources_lock);
    zc_list_for_each (it, &d->sources) {
        struct zc_daemon_source *s = zc_list_entry(it, struct zc_daemon_source, link);
        if (strcmp(s->plan->at, at) == 0)
            found = s;
    }
    if (!found)
        zc_error_set(err, -ENOENT, "there is no source at '/%s'", at);
    else if (found->leaving)
        zc_error_set(err, -EALREADY, "'/%s' is being removed already", at);
    bool mine = found && !found->leaving;
    if (mine)
        found->leaving = true;
    pthread_mutex_unlock(&d->sources_lock);
    return mine ? found : NULL;
}

/* A ring's place that was refilled by a thread of this source, when that answered a request, is
   cancelled by the kernel when the thread ends. So with io_uring its threads live on, idle. */
static void source_retire(struct zc_daemon *d, struct zc_daemon_source *s)
{
    struct zc_fuse_stats fuse;
    zc_fuse_get_stats(d->fuse, &fuse);
    if (strcmp(fuse.io_uring, "on") != 0) {
        zc_daemon_source_close(s);
        return;
    }
    pthread_mutex_lock(&d->sources_lock);
    zc_list_push_back(&d->retired, &s->link);
    pthread_mutex_unlock(&d->sources_lock);
}

int zc_daemon_source_remove(struct zc_daemon *d, const char *at, bool force, struct zc_error *err)
{
    struct zc_daemon_source *s = source_claim(d, at, err);
    if (!s)
        return err->code;
    int r = zc_vfs_source_remove(d->vfs, s->vfs, force, err);
    pthread_mutex_lock(&d->sources_lock);
    s->leaving = false;
    if (r == 0)
        zc_list_del(&s->link);
    pthread_mutex_unlock(&d->sources_lock);
    if (r < 0) {
        zc_error_prefix(err, "/%.300s", at);
        return r;
    }
    zc_info("%s is not shown at %s/%s any more", s->be->url, d->cfg->mountpoint, at);
    source_retire(d, s);
    return 0;
}
