/* SPDX-License-Identifier: Apache-2.0 */
/* Keys from the shared credentials and config files. Tools that hand out sessions rewrite these
   files: when the store says that the keys have expired, they are read again if they have changed
   since. */
#include "backend/s3_cred.h"
#include "backend/s3_profile.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct cred_files {
    struct s3_provider p;
    char *profile;
    bool explicit;
    char *path[2];        /* credentials, config */
    pthread_mutex_t lock; /* of seen: a renewal loads while others ask whether something changed */
    struct stat seen[2];
};

static void files_stat(const struct cred_files *f, struct stat st[2])
{
    for (int i = 0; i < 2; i++)
        if (stat(f->path[i], &st[i]) < 0)
            memset(&st[i], 0, sizeof(st[i]));
}

static bool files_changed(struct s3_provider *p)
{
    struct cred_files *f = zc_container_of(p, struct cred_files, p);
    struct stat now[2];
    bool changed = false;
    files_stat(f, now);
    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < 2; i++)
        changed = changed || now[i].st_ino != f->seen[i].st_ino ||
                  now[i].st_size != f->seen[i].st_size ||
                  now[i].st_mtim.tv_sec != f->seen[i].st_mtim.tv_sec ||
                  now[i].st_mtim.tv_nsec != f->seen[i].st_mtim.tv_nsec;
    pthread_mutex_unlock(&f->lock);
    return changed;
}

static int files_missing(const struct cred_files *f, const struct s3_profile *p,
                         struct zc_error *why)
{
    static const struct {
        enum s3_setting setting;
        const char *name;
    } others[] = {
        {S3_SET_ROLE_ARN, "role_arn"},
        {S3_SET_CREDENTIAL_PROCESS, "credential_process"},
        {S3_SET_SSO, "sso_session or sso_start_url"},
    };
    int err = f->explicit ? -EACCES : -ENOENT;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(others); i++)
        if (p->v[others[i].setting])
            return zc_error_set(
                why, err,
                "profile '%s' gets its keys by %s, which zcache does not know how to use: put "
                "aws_access_key_id and aws_secret_access_key of a session into %s (aws configure "
                "export-credentials prints them)",
                f->profile, others[i].name, f->path[0]);
    if (!p->found)
        return zc_error_set(why, err, "there is no profile '%s' in %s or %s", f->profile,
                            f->path[0], f->path[1]);
    if (p->v[S3_SET_KEY_ID])
        return zc_error_set(why, -EACCES,
                            "profile '%s' has aws_access_key_id but no aws_secret_access_key",
                            f->profile);
    return zc_error_set(why, err, "profile '%s' has no aws_access_key_id in %s or %s", f->profile,
                        f->path[0], f->path[1]);
}

static int files_load(struct s3_provider *provider, struct s3_keys **out, struct zc_error *why)
{
    struct cred_files *f = zc_container_of(provider, struct cred_files, p);
    struct s3_profile p = {0};
    struct stat seen[2];
    char source[512];
    files_stat(f, seen); /* before reading: what is written meanwhile counts as a change */
    pthread_mutex_lock(&f->lock);
    memcpy(f->seen, seen, sizeof(seen));
    pthread_mutex_unlock(&f->lock);

    int r = s3_profile_read(f->path[0], false, f->profile, &p, why);
    int from = p.v[S3_SET_KEY_ID] && p.v[S3_SET_SECRET] ? 0 : 1;
    if (r == 0)
        r = s3_profile_read(f->path[1], true, f->profile, &p, why);
    if (r == 0 && (!p.v[S3_SET_KEY_ID] || !p.v[S3_SET_SECRET]))
        r = files_missing(f, &p, why);
    if (r == 0) {
        snprintf(source, sizeof(source), "profile '%s' in %s", f->profile, f->path[from]);
        *out = s3_keys_new(p.v[S3_SET_KEY_ID], p.v[S3_SET_SECRET], p.v[S3_SET_TOKEN], 0, source);
        if (!*out)
            r = zc_error_set(why, -ENOMEM, "out of memory");
    }
    s3_profile_free(&p);
    return r;
}

static void files_free(struct s3_provider *p)
{
    struct cred_files *f = zc_container_of(p, struct cred_files, p);
    free(f->profile);
    free(f->path[0]);
    free(f->path[1]);
    pthread_mutex_destroy(&f->lock);
    free(f);
}

struct s3_provider *s3_provider_files(const char *profile, bool explicit)
{
    struct cred_files *f = calloc(1, sizeof(*f));
    if (!f)
        return NULL;
    f->p = (struct s3_provider){
        .name = "profiles", .load = files_load, .changed = files_changed, .free = files_free};
    pthread_mutex_init(&f->lock, NULL);
    f->explicit = explicit;
    f->profile = strdup(profile);
    f->path[0] = s3_profile_credentials_path();
    f->path[1] = s3_profile_config_path();
    if (!f->profile || !f->path[0] || !f->path[1]) {
        files_free(&f->p);
        return NULL;
    }
    return &f->p;
}
