/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An S3 bucket: configuration, the way to the store, credentials, and what they are allowed. The
 * source is made without credentials first, which reads the configuration and tells where requests
 * would go; then with them, and asked as a mount asks it.
 */
#include "cli/doctor.h"

#include "backend/s3.h"
#include "cli/daemon_int.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* ------------------------------------------------------------------ credentials */

static void s3_provider_step(void *arg, const char *name, int err, const char *words)
{
    struct zc_doctor *d = arg;
    if (err == -ENOENT) /* not set up, which is no fault */
        zc_doc_step(d, name, ZC_DOC_NOTE, -1, NULL, "%s", words);
    else if (err < 0)
        zc_doc_step(d, name, ZC_DOC_FAILED, -1,
                    err == -EAGAIN ? "it is set up but does not answer: is it running, and is the "
                                     "address right?"
                                   : "mend it, or take its setting away so that the next is asked",
                    "%s", words);
    else
        zc_doc_step(d, name, ZC_DOC_OK, -1, NULL, "keys from %s", words);
}

/* Which keys, and for how long. */
static void s3_key_step(struct zc_doctor *d, const struct zc_s3_view *v)
{
    double left = (double)(v->key_expires_ns - zc_wall_ns()) / 60e9;
    if (!v->key_expires_ns)
        zc_doc_step(d, "key", ZC_DOC_OK, -1, NULL, "%s, without an end", v->key);
    else if (left < 1)
        zc_doc_step(d, "key", ZC_DOC_WARNING, -1, "has its source newer ones?",
                    "%s, which ends within a minute", v->key);
    else
        zc_doc_step(d, "key", ZC_DOC_OK, -1, NULL, "%s, for %.0f minutes", v->key, left);
}

static bool s3_credentials(struct zc_doctor *d, const struct zc_s3_config *cfg)
{
    zc_doc_group(d, "credentials");
    if (cfg->no_sign_request) {
        zc_doc_step(d, "none", ZC_DOC_NOTE, -1, NULL, "--no-sign-request: requests are not signed");
        return true;
    }
    int r = zc_s3_walk(d->net, cfg, s3_provider_step, d);
    if (r == -ENOENT)
        zc_doc_step(d, "credentials", ZC_DOC_FAILED, -1,
                    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or pass --profile NAME, or "
                    "--no-sign-request for a public bucket",
                    "no source has any");
    return r == 0;
}

/* ------------------------------------------------------------------ the bucket */

static bool s3_one_of(const char *code, const char *const *codes)
{
    for (; *codes; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

/* A list that was refused: is it who asks, what is asked for, or neither? */
static void s3_refused(struct zc_doctor *d, const struct zc_s3_view *v, double ms,
                       const struct zc_error *err)
{
    static const char *const who[] = {"InvalidAccessKeyId",
                                      "SignatureDoesNotMatch",
                                      "ExpiredToken",
                                      "InvalidToken",
                                      "InvalidTokenId",
                                      "InvalidClientTokenId",
                                      "XAdminUserNotFound",
                                      "TokenRefreshRequired",
                                      "RequestExpired",
                                      "RequestTimeTooSkewed",
                                      "NotSignedUp",
                                      "AccountProblem",
                                      NULL};
    static const char *const where[] = {"PermanentRedirect", "AuthorizationHeaderMalformed",
                                        "IllegalLocationConstraintException", "TemporaryRedirect",
                                        NULL};
    const char *fix;
    if (s3_one_of(v->refused, who)) {
        fix = strcmp(v->refused, "SignatureDoesNotMatch") == 0
                  ? "the secret key is not the one of this access key: copy both again"
              : strstr(v->refused, "Request") ? "set the clock: timedatectl set-ntp true"
                                              : "other keys: --profile NAME or AWS_ACCESS_KEY_ID; "
                                                "is --endpoint-url the store that they are for?";
        zc_doc_step(d, "authentication", ZC_DOC_FAILED, ms, fix, "%s", err->text);
        return;
    }
    if (s3_one_of(v->refused, where)) {
        zc_doc_step(d, "region", ZC_DOC_FAILED, ms, "pass the bucket's --region", "%s", err->text);
        return;
    }
    if (strcmp(v->refused, "NoSuchBucket") == 0) {
        zc_doc_step(d, "bucket", ZC_DOC_FAILED, ms,
                    "check the bucket's name; names of one store mean nothing at another "
                    "(--endpoint-url)",
                    "%s", err->text);
        return;
    }
    if (strcmp(v->refused, "AccessDenied") == 0 && v->signed_requests)
        zc_doc_step(d, "authentication", ZC_DOC_OK, -1, NULL, "the store knows access key %s",
                    v->key);
    zc_doc_step(d, "list", ZC_DOC_FAILED, ms,
                err->code != -EACCES ? NULL
                : v->signed_requests
                    ? "its policy must allow s3:ListBucket on the bucket (and s3:GetObject on "
                      "bucket/*)"
                    : "leave --no-sign-request out and give credentials",
                "%s", err->text);
}

/* What a mount found out by itself, and could be told beforehand. */
static void s3_moved(struct zc_doctor *d, const struct zc_s3_view *before,
                     const struct zc_s3_view *now)
{
    char fix[128];
    if (strcmp(before->region, now->region) != 0) {
        snprintf(fix, sizeof(fix), "pass --region %s: it saves a question at each mount",
                 now->region);
        zc_doc_step(d, "region", ZC_DOC_WARNING, -1, fix,
                    "the bucket is in %s and was asked for in %s", now->region, before->region);
    }
    if (before->path_style != now->path_style)
        zc_doc_step(d, "path style", ZC_DOC_WARNING, -1,
                    "pass --force-path-style: it saves a question at each mount",
                    "the store has no host names for buckets");
}

static void s3_bucket(struct zc_doctor *d, const struct zc_s3_config *cfg,
                      const struct zc_s3_view *before)
{
    struct zc_backend *be = NULL;
    struct zc_error err = {0};
    struct zc_s3_view v;
    struct zc_doc_found found = {0};
    int r = zc_s3_new(d->net, cfg, &be, &err);
    if (r < 0) {
        zc_doc_step(d, "credentials", ZC_DOC_FAILED, -1, NULL, "%s", err.text);
        return;
    }
    zc_s3_look(be, &v);
    if (v.key[0])
        s3_key_step(d, &v);
    zc_doc_group(d, "bucket");
    int64_t start = zc_now_ns();
    r = zc_backend_probe(be, &err);
    double ms = zc_doc_ms(start);
    zc_s3_look(be, &v);
    if (r == 0) {
        zc_doc_step(d, "authentication", v.signed_requests ? ZC_DOC_OK : ZC_DOC_NOTE, ms, NULL,
                    v.signed_requests ? "the store takes the keys" : "the bucket is public");
        s3_moved(d, before, &v);
        if (!zc_doc_list(d, be, &found, &err))
            s3_refused(d, &v, -1, &err);
        else if (found.path)
            zc_doc_read(d, be, &found,
                        "the key's policy must allow s3:GetObject on the bucket's objects");
    } else {
        s3_refused(d, &v, ms, &err);
    }
    free(found.path);
    zc_backend_free(be);
}

void zc_doc_s3(struct zc_doctor *d)
{
    struct zc_s3_config cfg = zc_daemon_s3(d->src, d->o), bare = cfg;
    struct zc_backend *be = NULL;
    struct zc_error err = {0};
    struct zc_s3_view v;
    char ca[4096];
    int64_t skew_ns = INT64_MIN;
    bare.no_sign_request = true;
    bare.requester_pays = false;
    zc_doc_group(d, "network");
    if (zc_s3_new(d->net, &bare, &be, &err) < 0) {
        zc_doc_step(d, "configuration", ZC_DOC_FAILED, -1, NULL, "%s", err.text);
        return;
    }
    zc_s3_look(be, &v);
    snprintf(ca, sizeof(ca), "%s", v.ca_bundle ? v.ca_bundle : "");
    zc_backend_free(be);
    v.ca_bundle = ca[0] ? ca : NULL;
    cfg.ca_bundle = v.ca_bundle;
    const struct zc_net_tls tls = {.ca_bundle = v.ca_bundle, .no_verify = cfg.no_verify_ssl};
    zc_doc_step(d, "address", ZC_DOC_NOTE, -1, NULL, "%s, region %s", v.url, v.region);
    bool there = zc_doc_url(d, "the store", v.url, &tls,
                            "check --endpoint-url and --region (AWS_ENDPOINT_URL, AWS_REGION)",
                            v.path_style ? "check --endpoint-url: is it the name that the "
                                           "certificate is for?"
                                         : "check --endpoint-url, or pass --force-path-style");
    if (there)
        there = zc_doc_get(d, "the store", v.url, &tls, &skew_ns, NULL) >= 0;
    if (there)
        zc_doc_clock(d, skew_ns, "requests are dated by the server's");
    if (s3_credentials(d, &cfg) && there)
        s3_bucket(d, &cfg, &v);
}
