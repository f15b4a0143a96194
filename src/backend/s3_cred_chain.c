/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The order in which sources of keys are asked, which is that of AWS's command line (version 2) and
 * of boto3: the environment (not when a profile was asked for by an option), the profile's role,
 * web identity, SSO, keys in the credentials file, credential_process, keys in the config file, the
 * container, the instance.
 *
 * A profile with a role may name another profile as the source of its keys, and that one a third:
 * profiles that lead in a circle are refused. Files are read again at each load, so that what they
 * say now is what counts.
 */
#include "backend/s3_cred_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct link {
    struct s3_provider p;
    struct s3_ctx *x;
    int (*from)(struct link *l, struct s3_keys **out, struct zc_error *why);
    /* of keys in a file */
    char *path;
    bool config;
    pthread_mutex_t lock; /* of seen: a renewal loads while others ask whether something changed */
    struct stat seen;
};

/* ---- keys that stand in a place ---- */

static int keys_check(const char *id, const char *secret, const char *token, const char *where,
                      struct zc_error *why)
{
    const char *bad = !s3_token_ok(id, 256)                                ? "access key"
                      : !s3_token_ok(secret, 1024)                         ? "secret key"
                      : token && token[0] && !s3_token_ok(token, 16 << 10) ? "session token"
                                                                           : NULL;
    return bad ? zc_error_set(why, -EINVAL,
                              "the %s in %s has a blank or another character that cannot be in one",
                              bad, where)
               : 0;
}

int s3_from_env(struct s3_keys **out, struct zc_error *why)
{
    const char *id = getenv("AWS_ACCESS_KEY_ID"), *secret = getenv("AWS_SECRET_ACCESS_KEY");
    const char *token = getenv("AWS_SESSION_TOKEN");
    if (!id || !id[0])
        return zc_error_set(why, -ENOENT, "AWS_ACCESS_KEY_ID is not set");
    if (!secret || !secret[0])
        return zc_error_set(
            why, -EINVAL,
            "AWS_ACCESS_KEY_ID is set in the environment but AWS_SECRET_ACCESS_KEY is not");
    int r = keys_check(id, secret, token, "the environment", why);
    if (r < 0)
        return r;
    *out = s3_keys_new(id, secret, token, 0, "the environment (AWS_ACCESS_KEY_ID)");
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

int s3_from_static(const struct s3_profile *p, const char *profile, const char *where,
                   struct s3_keys **out, struct zc_error *why)
{
    char source[512];
    const char *id = p->v[S3_SET_KEY_ID], *secret = p->v[S3_SET_SECRET];
    if (!id)
        return zc_error_set(why, -ENOENT, "no keys of profile '%.50s' in %.250s", profile, where);
    if (!secret)
        return zc_error_set(
            why, -EACCES,
            "profile '%.100s' has aws_access_key_id but no aws_secret_access_key in "
            "%.250s",
            profile, where);
    snprintf(source, sizeof(source), "profile '%.150s' in %.250s", profile, where);
    int r = keys_check(id, secret, p->v[S3_SET_TOKEN], source, why);
    if (r < 0)
        return r;
    *out = s3_keys_new(id, secret, p->v[S3_SET_TOKEN], 0, source);
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

static int keys_in_file(const char *path, bool config, const char *profile, struct s3_keys **out,
                        struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read(path, config, profile, &p, why);
    return r < 0 ? r : s3_from_static(&p, profile, path, out, why);
}

/* ---- profiles that lead to others ---- */

struct visit {
    const char *profile;
    const struct visit *up;
};

static int chain_role(struct s3_ctx *x, const char *name, const struct s3_profile *p,
                      const struct visit *up, struct s3_keys **out, struct zc_error *why);

static bool chain_has_role(const struct s3_profile *p)
{
    return p->v[S3_SET_ROLE_ARN] && !p->v[S3_SET_WEB_TOKEN_FILE];
}

static int chain_web(struct s3_ctx *x, bool env, const char *name, const struct s3_profile *p,
                     struct s3_keys **out, struct zc_error *why)
{
    const char *file = env ? getenv("AWS_WEB_IDENTITY_TOKEN_FILE") : NULL;
    const char *role = env ? getenv("AWS_ROLE_ARN") : NULL;
    const char *session = env ? getenv("AWS_ROLE_SESSION_NAME") : NULL;
    if (!file || !file[0])
        file = p->v[S3_SET_WEB_TOKEN_FILE];
    if (!role || !role[0])
        role = p->v[S3_SET_ROLE_ARN];
    if (!session || !session[0])
        session = p->v[S3_SET_SESSION_NAME];
    if (!file)
        return zc_error_set(why, -ENOENT, "AWS_WEB_IDENTITY_TOKEN_FILE is not set");
    if (!role)
        return zc_error_set(why, -EINVAL,
                            "there is a web identity token (%.200s) but no role for it: set "
                            "AWS_ROLE_ARN, or role_arn in profile '%.100s'",
                            file, name);
    return s3_from_web_identity(x, p, role, file, session, out, why);
}

/* What a profile has besides a role. */
static int chain_profile(struct s3_ctx *x, const char *name, const struct s3_profile *p,
                         struct s3_keys **out, struct zc_error *why)
{
    zc_autofree char *credentials = s3_profile_credentials_path(),
                     *config = s3_profile_config_path();
    if (!credentials || !config)
        return zc_error_set(why, -ENOMEM, "out of memory");
    int r = chain_web(x, false, name, p, out, why);
    if (r == -ENOENT)
        r = s3_from_sso(x, p, name, out, why);
    if (r == -ENOENT)
        r = keys_in_file(credentials, false, name, out, why);
    if (r == -ENOENT && p->v[S3_SET_CREDENTIAL_PROCESS])
        r = s3_from_process(x, p->v[S3_SET_CREDENTIAL_PROCESS], name, out, why);
    if (r == -ENOENT)
        r = keys_in_file(config, true, name, out, why);
    return r == -ENOENT
               ? zc_error_set(why, -EACCES, "profile '%.100s' has no keys of any kind", name)
               : r;
}

static int chain_circle(const struct visit *last, const char *name, struct zc_error *why)
{
    char way[300] = "";
    size_t n = 0;
    for (const struct visit *v = last; v && n < sizeof(way); v = v->up) {
        int k = snprintf(way + n, sizeof(way) - n, " <- %s", v->profile);
        n += k > 0 ? (size_t)k : 0;
    }
    return zc_error_set(why, -EINVAL,
                        "the profiles' source_profile lead in a circle: %.100s%s: one of them must "
                        "have keys of its own",
                        name, way);
}

static int chain_source_profile(struct s3_ctx *x, const char *name, const struct visit *here,
                                struct s3_keys **out, struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(name, &p, why);
    if (r < 0)
        return r;
    if (!p.found)
        return zc_error_set(why, -EACCES, "there is no profile '%.100s'", name);
    if (p.v[S3_SET_KEY_ID] || !chain_has_role(&p)) /* keys of its own go before its role */
        return chain_profile(x, name, &p, out, why);
    for (const struct visit *v = here; v; v = v->up)
        if (strcmp(v->profile, name) == 0)
            return chain_circle(here, name, why);
    return chain_role(x, name, &p, here, out, why);
}

static int chain_source(struct s3_ctx *x, const struct s3_profile *p, const struct visit *here,
                        struct s3_keys **out, struct zc_error *why)
{
    const char *source = p->v[S3_SET_CREDENTIAL_SOURCE];
    int r;
    if (p->v[S3_SET_SOURCE_PROFILE])
        return chain_source_profile(x, p->v[S3_SET_SOURCE_PROFILE], here, out, why);
    if (strcmp(source, "Environment") == 0)
        r = s3_from_env(out, why);
    else if (strcmp(source, "Ec2InstanceMetadata") == 0)
        r = s3_from_imds(x, p, out, why);
    else if (strcmp(source, "EcsContainer") == 0)
        r = s3_from_container(x, out, why);
    else
        r = zc_error_set(why, -EINVAL,
                         "its credential_source is '%.50s'; it can be Environment, "
                         "Ec2InstanceMetadata or EcsContainer",
                         source);
    return r == -ENOENT ? -EACCES : r;
}

static int chain_role(struct s3_ctx *x, const char *name, const struct s3_profile *p,
                      const struct visit *up, struct s3_keys **out, struct zc_error *why)
{
    const struct visit here = {.profile = name, .up = up};
    const char *profile = p->v[S3_SET_SOURCE_PROFILE], *source = p->v[S3_SET_CREDENTIAL_SOURCE];
    struct s3_keys *keys = NULL;
    if (!chain_has_role(p))
        return zc_error_set(why, -ENOENT, "profile '%.50s' has no role_arn", name);
    if (p->v[S3_SET_MFA_SERIAL])
        return zc_error_set(why, -EACCES,
                            "profile '%.100s' needs a code of a device (mfa_serial), which a mount "
                            "cannot ask for: assume the role elsewhere and hand its keys over (aws "
                            "configure export-credentials --format process as a "
                            "credential_process, or --format env)",
                            name);
    if (!profile == !source)
        return zc_error_set(why, -EINVAL,
                            "profile '%.100s' has role_arn and %s source_profile %s "
                            "credential_source: it must have one of them",
                            name, profile ? "both" : "neither", profile ? "and" : "nor");
    int r = chain_source(x, p, &here, &keys, why);
    if (r < 0) {
        zc_error_prefix(why, "profile '%.100s' assumes a role with the keys of %s%.100s", name,
                        profile ? "profile " : "", profile ? profile : source);
        return r;
    }
    r = s3_from_role(x, p, keys, out, why);
    if (r < 0)
        zc_error_prefix(why, "profile '%.100s'", name);
    s3_keys_unref(keys);
    return r;
}

/* ---- the links ---- */

static int link_env(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    return s3_from_env(out, why);
}

/* The first that looks at the profile, and so the one that misses it. */
static int link_role(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    zc_autofree char *credentials = s3_profile_credentials_path(),
                     *config = s3_profile_config_path();
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(l->x->profile, &p, why);
    if (r < 0)
        return r;
    if (!p.found && l->x->named)
        return zc_error_set(why, -EACCES, "there is no profile '%.100s' in %.300s or %.300s",
                            l->x->profile, credentials ? credentials : "?", config ? config : "?");
    if (!p.found)
        return zc_error_set(why, -ENOENT, "there is no profile '%.50s'", l->x->profile);
    return chain_role(l->x, l->x->profile, &p, NULL, out, why);
}

static int link_web(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(l->x->profile, &p, why);
    return r < 0 ? r : chain_web(l->x, !l->x->explicit, l->x->profile, &p, out, why);
}

static int link_sso(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(l->x->profile, &p, why);
    return r < 0 ? r : s3_from_sso(l->x, &p, l->x->profile, out, why);
}

static int link_process(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(l->x->profile, &p, why);
    if (r < 0)
        return r;
    if (!p.v[S3_SET_CREDENTIAL_PROCESS])
        return zc_error_set(why, -ENOENT, "profile '%.50s' has none", l->x->profile);
    return s3_from_process(l->x, p.v[S3_SET_CREDENTIAL_PROCESS], l->x->profile, out, why);
}

static int link_container(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    return s3_from_container(l->x, out, why);
}

static int link_imds(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    zc_autoprofile struct s3_profile p = {0};
    int r = s3_profile_read_both(l->x->profile, &p, why);
    return r < 0 ? r : s3_from_imds(l->x, &p, out, why);
}

static void link_stat(const struct link *l, struct stat *st)
{
    if (stat(l->path, st) < 0)
        memset(st, 0, sizeof(*st));
}

static int link_file(struct link *l, struct s3_keys **out, struct zc_error *why)
{
    struct stat seen;
    link_stat(l, &seen); /* before reading: what is written meanwhile counts as a change */
    pthread_mutex_lock(&l->lock);
    l->seen = seen;
    pthread_mutex_unlock(&l->lock);
    return keys_in_file(l->path, l->config, l->x->profile, out, why);
}

static bool link_file_changed(struct s3_provider *p)
{
    struct link *l = zc_container_of(p, struct link, p);
    struct stat now;
    link_stat(l, &now);
    pthread_mutex_lock(&l->lock);
    bool changed = now.st_ino != l->seen.st_ino || now.st_size != l->seen.st_size ||
                   now.st_mtim.tv_sec != l->seen.st_mtim.tv_sec ||
                   now.st_mtim.tv_nsec != l->seen.st_mtim.tv_nsec;
    pthread_mutex_unlock(&l->lock);
    return changed;
}

static int link_load(struct s3_provider *p, struct s3_keys **out, struct zc_error *why)
{
    struct link *l = zc_container_of(p, struct link, p);
    return l->from(l, out, why);
}

static void link_stop(struct s3_provider *p)
{
    s3_ctx_stop(zc_container_of(p, struct link, p)->x);
}

static void link_free(struct s3_provider *p)
{
    struct link *l = zc_container_of(p, struct link, p);
    s3_ctx_unref(l->x);
    pthread_mutex_destroy(&l->lock);
    free(l->path);
    free(l);
}

static const struct link_kind {
    const char *name;
    int (*from)(struct link *l, struct s3_keys **out, struct zc_error *why);
    bool file, config; /* keys in a file: which */
    bool dynamic;
} link_kinds[S3_CHAIN_MAX] = {
    {"environment", link_env, .dynamic = false},
    {"role of the profile", link_role, .dynamic = true},
    {"web identity", link_web, .dynamic = true},
    {"SSO login", link_sso, .dynamic = true},
    {"credentials file", link_file, .file = true},
    {"credential_process", link_process, .dynamic = true},
    {"config file", link_file, .file = true, .config = true},
    {"container", link_container, .dynamic = true},
    {"instance metadata", link_imds, .dynamic = true},
};

static struct s3_provider *link_new(struct s3_ctx *x, const struct link_kind *k)
{
    struct link *l = calloc(1, sizeof(*l));
    if (!l)
        return NULL;
    l->p = (struct s3_provider){.name = k->name,
                                .load = link_load,
                                .changed = k->file ? link_file_changed : NULL,
                                .dynamic = k->dynamic,
                                .stop = link_stop,
                                .free = link_free};
    l->from = k->from;
    l->config = k->config;
    l->x = x;
    atomic_fetch_add(&x->refs, 1);
    pthread_mutex_init(&l->lock, NULL);
    if (k->file)
        l->path = k->config ? s3_profile_config_path() : s3_profile_credentials_path();
    if (k->file && !l->path) {
        link_free(&l->p);
        return NULL;
    }
    return &l->p;
}

int s3_chain_new(const struct s3_chain_config *cfg, struct s3_provider *list[S3_CHAIN_MAX])
{
    struct s3_ctx *x = s3_ctx_new(cfg);
    int n = 0;
    if (!x)
        return -ENOMEM;
    for (size_t i = cfg->explicit ? 1 : 0; i < ZC_ARRAY_SIZE(link_kinds) && n >= 0; i++) {
        list[n] = link_new(x, &link_kinds[i]);
        if (list[n]) {
            n++;
            continue;
        }
        while (n > 0)
            link_free(list[--n]);
        n = -ENOMEM;
    }
    s3_ctx_unref(x);
    return n;
}
