/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Roles: AssumeRole, signed with another source's keys, and AssumeRoleWithWebIdentity, which brings
 * a token that the platform (Kubernetes, for one) writes into a file and renews there.
 * https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRole.html
 *
 * STS is asked in the region of the source unless AWS_STS_REGIONAL_ENDPOINTS says legacy: then, for
 * the regions that were there before regional endpoints, at the one for all.
 */
#include "backend/s3_cred_priv.h"
#include "backend/s3_xml.h"
#include "base/log.h"
#include "base/units.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define STS_TIMEOUT_NS (10 * ZC_NS_PER_S)
#define STS_ATTEMPTS 3

struct sts_place {
    char *url, *region, *host, *path;
};

static void sts_place_free(struct sts_place *s)
{
    free(s->url);
    free(s->region);
    free(s->host);
    free(s->path);
}

static bool sts_legacy(const char *region)
{
    static const char *const global[] = {
        "ap-northeast-1", "ap-south-1",   "ap-southeast-1", "ap-southeast-2",
        "aws-global",     "ca-central-1", "eu-central-1",   "eu-north-1",
        "eu-west-1",      "eu-west-2",    "eu-west-3",      "sa-east-1",
        "us-east-1",      "us-east-2",    "us-west-1",      "us-west-2",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(global); i++)
        if (strcmp(region, global[i]) == 0)
            return true;
    return false;
}

/* The Host header and the path that are signed, as curl will send them. */
static int sts_split(struct sts_place *s)
{
    const char *h = strstr(s->url, "://");
    if (!h)
        return -EINVAL;
    bool tls = strncmp(s->url, "https:", 6) == 0;
    h += 3;
    size_t n = strcspn(h, "/?#"), k = tls ? 4 : 3;
    const char *path = h + n;
    if (n > k && strncmp(h + n - k, tls ? ":443" : ":80", k) == 0)
        n -= k;
    s->host = strndup(h, n);
    s->path = strdup(path);
    return s->host && s->path ? 0 : -ENOMEM;
}

static int sts_place(struct s3_ctx *x, const struct s3_profile *p, struct sts_place *out,
                     struct zc_error *why)
{
    const char *mode = getenv("AWS_STS_REGIONAL_ENDPOINTS");
    const char *region = x->region ? x->region : p->v[S3_SET_REGION];
    zc_autofree char *fallback = NULL, *url = NULL;
    struct sts_place s = {0};
    bool tls;
    char host[256];
    if (!mode || !mode[0])
        mode = p->v[S3_SET_STS_REGIONAL];
    if (mode && strcmp(mode, "legacy") != 0 && strcmp(mode, "regional") != 0)
        return zc_error_set(why, -EINVAL,
                            "AWS_STS_REGIONAL_ENDPOINTS (or sts_regional_endpoints of the profile) "
                            "is '%.30s'; it can be regional or legacy",
                            mode);
    bool one = !region || strcmp(region, "aws-global") == 0 ||
               (mode && strcmp(mode, "legacy") == 0 && sts_legacy(region));
    for (const char *c = region ? region : ""; *c; c++)
        if (!strchr("abcdefghijklmnopqrstuvwxyz0123456789-_", *c))
            return zc_error_set(why, -EINVAL, "'%.50s' is not the name of a region", region);
    if (asprintf(&fallback, "https://sts.%s%samazonaws.com%s/", one ? "" : region, one ? "" : ".",
                 region && strncmp(region, "cn-", 3) == 0 ? ".cn" : "") < 0)
        fallback = NULL;
    url =
        fallback ? s3_service_url(p, "AWS_ENDPOINT_URL_STS", S3_SET_ENDPOINT_STS, fallback) : NULL;
    if (!url)
        return zc_error_set(why, -ENOMEM, "out of memory");
    if (s3_url_parts(url, &tls, host, sizeof(host)) < 0 || strpbrk(url, "?#"))
        return zc_error_set(why, -EINVAL, "the endpoint of STS, '%.200s', is not a URL", url);
    s.url = s3_url_join(url, "/");
    s.region = strdup(one || !region ? "us-east-1" : region);
    int r = s.url && s.region ? sts_split(&s) : -ENOMEM;
    if (r < 0) {
        sts_place_free(&s);
        return zc_error_set(why, r, "out of memory");
    }
    *out = s;
    return 0;
}

/* ---- a call ---- */

struct sts_headers {
    struct zc_buf text;
    const char *lines[6];
};

static int sts_sign(const struct sts_place *s, const char *body, struct s3_keys *keys,
                    int64_t skew_ns, struct sts_headers *h)
{
    char date[17], hash[S3_SHA256_HEX + 1];
    uint8_t key[S3_SHA256_BYTES];
    size_t n = 0, at[6];
    struct zc_buf *t = &h->text;
    zc_buf_reset(t);
    at[n++] = t->len;
    zc_buf_addf(t, "Content-Type: application/x-www-form-urlencoded; charset=utf-8%c", 0);
    at[n++] = t->len;
    zc_buf_addf(t, "User-Agent: zcache/" ZC_VERSION "%c", 0);
    if (keys) {
        s3_sign_date((zc_wall_ns() + skew_ns) / ZC_NS_PER_S, date);
        s3_sign_hash(body, strlen(body), hash);
        struct s3_sign_header sh[4] = {
            {"content-type", "application/x-www-form-urlencoded; charset=utf-8"},
            {"host", s->host},
            {"x-amz-date", date},
            {"x-amz-security-token", keys->token},
        };
        struct s3_sign_request req = {.method = "POST",
                                      .path = s->path,
                                      .query = "",
                                      .headers = sh,
                                      .n_headers = keys->token ? 4 : 3,
                                      .payload = hash};
        at[n++] = t->len;
        zc_buf_addf(t, "X-Amz-Date: %s%c", date, 0);
        if (keys->token) {
            at[n++] = t->len;
            zc_buf_addf(t, "X-Amz-Security-Token: %s%c", keys->token, 0);
        }
        at[n++] = t->len;
        zc_buf_adds(t, "Authorization: ");
        int r = s3_sign_key(keys->secret, date, s->region, "sts", key);
        if (r == 0)
            r = s3_sign_authorization(&req, date, s->region, "sts", keys->id, key, t);
        OPENSSL_cleanse(key, sizeof(key));
        zc_buf_addc(t, '\0');
        if (r < 0)
            return r;
    }
    for (size_t i = 0; i < n; i++)
        h->lines[i] = t->p + at[i];
    h->lines[n] = NULL;
    return t->failed ? -ENOMEM : 0;
}

/* The clock is at fault: STS says so in one of three ways. */
static bool sts_clock(const struct s3_ask *a, const struct s3_xml_error *e)
{
    return a->skew_ns && (strcmp(e->code, "RequestExpired") == 0 ||
                          strcmp(e->code, "RequestTimeTooSkewed") == 0 ||
                          strstr(e->message, "Signature expired") ||
                          strstr(e->message, "Signature not yet current"));
}

static int sts_call(struct s3_ctx *x, const struct sts_place *s, const char *action,
                    const char *body, struct s3_keys *keys, struct s3_fields *out, int64_t *skew_ns,
                    struct zc_error *why)
{
    struct sts_headers h = {0};
    zc_autoask struct s3_ask a = {.method = "POST",
                                  .url = s->url,
                                  .headers = h.lines,
                                  .body = body,
                                  .timeout_ns = STS_TIMEOUT_NS,
                                  .attempts = STS_ATTEMPTS};
    struct s3_xml_error e = {0};
    int r = 0;
    for (int i = 0; i < 2; i++) {
        r = sts_sign(s, body, keys, x->skew_ns, &h);
        if (r == 0)
            r = s3_ask(x, &a);
        if (r < 0 || a.status == 200)
            break;
        s3_xml_error_parse(a.text, a.len, &e);
        if (!keys || !sts_clock(&a, &e))
            break;
        zc_warn("this machine's clock is %.0f s off STS's; requests are dated by it",
                (double)a.skew_ns / 1e9);
        x->skew_ns = a.skew_ns;
    }
    zc_buf_free(&h.text);
    if (r < 0)
        return s3_ask_words(&a, r, "STS", why);
    *skew_ns = a.skew_ns;
    if (a.status == 200) {
        r = s3_decode_sts(a.text, a.len, out, why);
        if (r < 0)
            zc_error_prefix(why, "%s at %.200s", action, s->url);
        return r;
    }
    bool later = s3_ask_later(&a) || strcmp(e.code, "IDPCommunicationError") == 0 ||
                 strcmp(e.code, "Throttling") == 0;
    return zc_error_set(why, later ? -EAGAIN : -EACCES, "%s at %.200s answers HTTP %d%s%s%s%.250s",
                        action, s->url, a.status, e.code[0] ? " " : "", e.code,
                        e.message[0] ? ": " : "", e.message);
}

/* ---- roles ---- */

static void sts_arg(struct zc_buf *b, const char *name, const char *value)
{
    if (!value || !value[0])
        return;
    zc_buf_addc(b, '&');
    zc_buf_adds(b, name);
    zc_buf_addc(b, '=');
    zc_buf_add_urlenc(b, value, strlen(value), false);
}

static void sts_session(struct zc_buf *b, const char *name)
{
    char made[64];
    snprintf(made, sizeof(made), "zcache-%lld", (long long)(zc_wall_ns() / ZC_NS_PER_S));
    sts_arg(b, "RoleSessionName", name && name[0] ? name : made);
}

static int sts_ask(struct s3_ctx *x, const struct s3_profile *p, const char *action,
                   const struct zc_buf *args, struct s3_keys *keys, const char *source,
                   struct s3_keys **out, struct zc_error *why)
{
    struct sts_place s = {0};
    struct s3_fields f = {0};
    zc_autobuf struct zc_buf body = {0};
    int64_t skew_ns = 0;
    int r = sts_place(x, p, &s, why);
    if (r < 0)
        return r;
    zc_buf_addf(&body, "Action=%s&Version=2011-06-15", action);
    zc_buf_add(&body, args->p, args->len);
    if (body.failed || args->failed)
        r = zc_error_set(why, -ENOMEM, "out of memory");
    if (r == 0)
        r = sts_call(x, &s, action, body.p, keys, &f, &skew_ns, why);
    if (r == 0)
        r = s3_fields_keys(&f, skew_ns, source, out, why);
    if (body.p)
        OPENSSL_cleanse(body.p, body.cap);
    sts_place_free(&s);
    return r;
}

static int sts_duration(const struct s3_profile *p, struct zc_buf *args, struct zc_error *why)
{
    uint64_t n;
    const char *text = p->v[S3_SET_DURATION];
    if (text && zc_parse_uint(text, 900, 43200, &n) < 0)
        return zc_error_set(why, -EINVAL,
                            "duration_seconds is '%.30s', not a number from 900 to 43200", text);
    sts_arg(args, "DurationSeconds", text);
    return 0;
}

int s3_from_role(struct s3_ctx *x, const struct s3_profile *p, struct s3_keys *source,
                 struct s3_keys **out, struct zc_error *why)
{
    zc_autobuf struct zc_buf args = {0};
    char words[512];
    sts_arg(&args, "RoleArn", p->v[S3_SET_ROLE_ARN]);
    sts_session(&args, p->v[S3_SET_SESSION_NAME]);
    sts_arg(&args, "ExternalId", p->v[S3_SET_EXTERNAL_ID]);
    int r = sts_duration(p, &args, why);
    if (r < 0)
        return r;
    snprintf(words, sizeof(words), "role %.200s, assumed with the keys of %.250s",
             p->v[S3_SET_ROLE_ARN], source->source);
    return sts_ask(x, p, "AssumeRole", &args, source, words, out, why);
}

int s3_from_web_identity(struct s3_ctx *x, const struct s3_profile *p, const char *role,
                         const char *token_file, const char *session, struct s3_keys **out,
                         struct zc_error *why)
{
    zc_autobuf struct zc_buf args = {0};
    char words[512];
    char *token;
    int r = s3_token_file(token_file, "the web identity token", &token, why);
    if (r < 0)
        return r;
    sts_arg(&args, "RoleArn", role);
    sts_session(&args, session);
    sts_arg(&args, "WebIdentityToken", token);
    OPENSSL_cleanse(token, strlen(token));
    free(token);
    r = sts_duration(p, &args, why);
    if (r == 0) {
        snprintf(words, sizeof(words), "role %.200s by web identity (%.250s)", role, token_file);
        r = sts_ask(x, p, "AssumeRoleWithWebIdentity", &args, NULL, words, out, why);
    }
    if (args.p)
        OPENSSL_cleanse(args.p, args.cap);
    return r;
}
