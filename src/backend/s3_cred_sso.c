/* SPDX-License-Identifier: Apache-2.0 */
/*
 * IAM Identity Center: `aws sso login` leaves a token in ~/.aws/sso/cache, under the SHA-1 of the
 * sso-session's name (or, for profiles without one, of the start URL). The portal gives a role's
 * keys for it. A token that ends soon is renewed where the login has left what that takes (a
 * registered client and a refresh token; only with an sso-session), and written back as the command
 * would, since a refresh token is good for one use. Others renew the same login (another source or
 * mount, the command itself): who is refused because they were first takes theirs from the file,
 * which may come a moment later than the refusal.
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-sso-credentials.html
 */
#include "backend/s3_cred_priv.h"
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <stdio.h>
#include <string.h>

#define SSO_TIMEOUT_NS (10 * ZC_NS_PER_S)
#define SSO_ATTEMPTS 3
#define SSO_EARLY_NS (300 * ZC_NS_PER_S)
#define SSO_RIVAL_LOOKS 20
#define SSO_RIVAL_NS (100 * ZC_NS_PER_MS)
#define SSO_FILE_MAX ((size_t)256 << 10)

struct sso {
    struct s3_ctx *x;
    const struct s3_profile *p;
    const char *profile;
    char *path; /* of the cached token */
    struct s3_sso_token token;
};

/* ---- the cached token ---- */

static char *sso_path(const char *key)
{
    static const char digits[] = "0123456789abcdef";
    uint8_t hash[SHA_DIGEST_LENGTH];
    char hex[2 * SHA_DIGEST_LENGTH + 1], name[80];
    SHA1((const unsigned char *)key, strlen(key), hash);
    for (size_t i = 0; i < sizeof(hash); i++) {
        hex[2 * i] = digits[hash[i] >> 4];
        hex[2 * i + 1] = digits[hash[i] & 15];
    }
    hex[2 * sizeof(hash)] = '\0';
    snprintf(name, sizeof(name), "/.aws/sso/cache/%s.json", hex);
    return s3_profile_home_path(name);
}

static int sso_login_words(const struct sso *s, const char *what, struct zc_error *why)
{
    return zc_error_set(why, -EACCES, "%s: aws sso login --profile %.100s", what, s->profile);
}

static int sso_file(const char *path, struct zc_buf *text)
{
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    text->max = SSO_FILE_MAX;
    for (;;) {
        if (zc_buf_reserve(text, 4096) < 0)
            return -EFBIG;
        ssize_t n = read(fd, text->p + text->len, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : 0;
        text->len += (size_t)n;
    }
}

static int sso_read(struct sso *s, struct zc_error *why)
{
    char what[600];
    struct zc_buf text = {0};
    int r = sso_file(s->path, &text);
    if (r == -ENOENT)
        r = sso_login_words(s, "nobody has logged in yet", why);
    else if (r < 0)
        r = zc_error_set(why, -EACCES, "the login in %.300s cannot be read: %s", s->path,
                         strerror(-r));
    else if (s3_decode_sso_file(text.p, text.len, &s->token, why) < 0) {
        snprintf(what, sizeof(what), "the login in %.300s is of no use (%.100s); log in again",
                 s->path, why ? why->text : "");
        r = sso_login_words(s, what, why);
    }
    if (text.p)
        OPENSSL_cleanse(text.p, text.cap);
    zc_buf_free(&text);
    return r;
}

/* Replaces the file as a whole, keeping what else it holds. */
static void sso_write(const struct sso *s)
{
    zc_autobuf struct zc_buf text = {0};
    zc_autofree char *tmp = NULL;
    char end[40], date[17];
    if (sso_file(s->path, &text) < 0)
        return;
    json_t *o = json_loadb(text.p, text.len, 0, NULL);
    s3_sign_date(s->token.expires_ns / ZC_NS_PER_S, date); /* 20130524T000000Z */
    snprintf(end, sizeof(end), "%.4s-%.2s-%.2sT%.2s:%.2s:%.2sZ", date, date + 4, date + 6, date + 9,
             date + 11, date + 13);
    bool ok = o && json_object_set_new(o, "accessToken", json_string(s->token.access)) == 0 &&
              json_object_set_new(o, "expiresAt", json_string(end)) == 0 &&
              (!s->token.refresh ||
               json_object_set_new(o, "refreshToken", json_string(s->token.refresh)) == 0);
    char *out = ok ? json_dumps(o, JSON_INDENT(2)) : NULL;
    json_decref(o);
    ok = out && asprintf(&tmp, "%s.XXXXXX", s->path) > 0;
    int fd = ok ? mkostemp(tmp, O_CLOEXEC) : -1; /* mode 0600 */
    if (fd >= 0) {
        size_t n = strlen(out);
        ok = write(fd, out, n) == (ssize_t)n && fsync(fd) == 0;
        ok = close(fd) == 0 && ok && rename(tmp, s->path) == 0;
        if (!ok)
            unlink(tmp);
    }
    if (fd < 0 || !ok)
        zc_warn("the renewed login cannot be written to %s: %s", s->path, strerror(errno));
    if (out)
        OPENSSL_cleanse(out, strlen(out));
    free(out);
    OPENSSL_cleanse(text.p, text.cap);
}

/* ---- renewing it ---- */

static int sso_url(const struct sso *s, const char *env, enum s3_setting setting, const char *name,
                   const char *path, char **out, struct zc_error *why)
{
    const char *region = s->p->v[S3_SET_SSO_REGION];
    zc_autofree char *fallback = NULL, *base = NULL;
    bool tls;
    char host[256];
    if (asprintf(&fallback, "https://%s.%s.amazonaws.com%s", name, region,
                 strncmp(region, "cn-", 3) == 0 ? ".cn" : "") < 0)
        fallback = NULL;
    base = fallback ? s3_service_url(s->p, env, setting, fallback) : NULL;
    if (base && s3_url_parts(base, &tls, host, sizeof(host)) < 0)
        return zc_error_set(why, -EINVAL, "%s, '%.200s', is not a URL", env, base);
    *out = base ? s3_url_join(base, path) : NULL;
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

static char *sso_renew_body(const struct s3_sso_token *t)
{
    json_t *o = json_pack("{ssssssss}", "grantType", "refresh_token", "clientId", t->client_id,
                          "clientSecret", t->client_secret, "refreshToken", t->refresh);
    char *body = o ? json_dumps(o, JSON_COMPACT) : NULL;
    json_decref(o);
    return body;
}

static int sso_renew(struct sso *s, struct zc_error *why)
{
    static const char *const headers[] = {"Content-Type: application/json",
                                          "User-Agent: zcache/" ZC_VERSION, NULL};
    zc_autofree char *url = NULL, *body = NULL;
    char *access, *refresh, said[300];
    int64_t life;
    int r =
        sso_url(s, "AWS_ENDPOINT_URL_SSO_OIDC", S3_SET_ENDPOINT_OIDC, "oidc", "/token", &url, why);
    if (r < 0)
        return r;
    body = sso_renew_body(&s->token);
    if (!body)
        return zc_error_set(why, -ENOMEM, "out of memory");
    zc_autoask struct s3_ask a = {.method = "POST",
                                  .url = url,
                                  .headers = headers,
                                  .body = body,
                                  .timeout_ns = SSO_TIMEOUT_NS,
                                  .attempts = 1}; /* a refresh token is good for one use */
    r = s3_ask(s->x, &a);
    OPENSSL_cleanse(body, strlen(body));
    if (r < 0)
        return s3_ask_words(&a, r, "the login service", why);
    if (a.status != 200) {
        s3_decode_refusal(a.text, a.len, said, sizeof(said));
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -EACCES,
                            "the login service at %.200s answers HTTP %d%s%s", url, a.status,
                            said[0] ? ", " : "", said);
    }
    r = s3_decode_sso_created(a.text, a.len, &access, &refresh, &life, why);
    if (r < 0) {
        zc_error_prefix(why, "the login service at %.200s", url);
        return -EACCES;
    }
    free(s->token.access);
    s->token.access = access;
    s->token.expires_ns = zc_wall_ns() + life * ZC_NS_PER_S;
    if (refresh) {
        free(s->token.refresh);
        s->token.refresh = refresh;
    }
    sso_write(s);
    return 0;
}

/* The login that somebody else has renewed meanwhile. */
static bool sso_renewed_by_others(struct sso *s)
{
    struct s3_sso_token old = s->token;
    bool renewed = false;
    s->token = (struct s3_sso_token){0};
    for (int i = 0; !renewed && i < SSO_RIVAL_LOOKS; i++) {
        if (i && !s3_pause(s->x, SSO_RIVAL_NS))
            break;
        s3_sso_token_free(&s->token);
        renewed = sso_read(s, NULL) == 0 && strcmp(s->token.access, old.access) != 0 &&
                  s->token.expires_ns > zc_wall_ns();
    }
    s3_sso_token_free(&old);
    return renewed;
}

static int sso_token(struct sso *s, struct zc_error *why)
{
    struct zc_error renewal = {0};
    char what[700];
    int r = sso_read(s, why);
    if (r < 0)
        return r;
    int64_t now = zc_wall_ns();
    if (s->token.expires_ns - now > SSO_EARLY_NS)
        return 0;
    bool can = s->p->v[S3_SET_SSO_SESSION] && s->token.refresh && s->token.registration_ns > now;
    if (can && sso_renew(s, &renewal) == 0)
        return 0;
    if (s->token.expires_ns > now)
        return 0; /* it still serves */
    if (can && renewal.code == -EACCES && sso_renewed_by_others(s))
        return 0;
    if (can && renewal.code == -EAGAIN)
        return zc_error_set(why, -EAGAIN, "%s", renewal.text);
    snprintf(what, sizeof(what), "the login has expired%s%.400s%s", can ? " (" : "",
             can ? renewal.text : "", can ? ")" : "");
    return sso_login_words(s, what, why);
}

/* ---- the keys ---- */

static int sso_keys(struct sso *s, struct s3_keys **out, struct zc_error *why)
{
    const char *account = s->p->v[S3_SET_SSO_ACCOUNT], *role = s->p->v[S3_SET_SSO_ROLE];
    zc_autobuf struct zc_buf path = {0};
    zc_autofree char *url = NULL, *header = NULL;
    struct s3_fields f = {0};
    char said[300], source[400];
    zc_buf_adds(&path, "/federation/credentials?role_name=");
    zc_buf_add_urlenc(&path, role, strlen(role), false);
    zc_buf_adds(&path, "&account_id=");
    zc_buf_add_urlenc(&path, account, strlen(account), false);
    if (path.failed || asprintf(&header, "x-amz-sso_bearer_token: %s", s->token.access) < 0)
        return zc_error_set(why, -ENOMEM, "out of memory");
    int r =
        sso_url(s, "AWS_ENDPOINT_URL_SSO", S3_SET_ENDPOINT_SSO, "portal.sso", path.p, &url, why);
    if (r < 0)
        return r;
    const char *const headers[] = {header, "User-Agent: zcache/" ZC_VERSION, NULL};
    zc_autoask struct s3_ask a = {.method = "GET",
                                  .url = url,
                                  .headers = headers,
                                  .timeout_ns = SSO_TIMEOUT_NS,
                                  .attempts = SSO_ATTEMPTS};
    r = s3_ask(s->x, &a);
    OPENSSL_cleanse(header, strlen(header));
    if (r < 0)
        return s3_ask_words(&a, r, "the SSO portal", why);
    if (a.status == 401)
        return sso_login_words(s, "the SSO portal does not take the login any more", why);
    if (a.status != 200) {
        s3_decode_refusal(a.text, a.len, said, sizeof(said));
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -EACCES,
                            "the SSO portal answers HTTP %d%s%s to account %.50s, role %.100s",
                            a.status, said[0] ? ", " : "", said, account, role);
    }
    r = s3_decode_json(S3_ANSWER_SSO, a.text, a.len, &f, why);
    if (r < 0) {
        zc_error_prefix(why, "the SSO portal");
        return -EACCES;
    }
    snprintf(source, sizeof(source),
             "the SSO login of profile '%.100s' (account %.50s, role %.100s)", s->profile, account,
             role);
    return s3_fields_keys(&f, a.skew_ns, source, out, why);
}

int s3_from_sso(struct s3_ctx *x, const struct s3_profile *p, const char *profile,
                struct s3_keys **out, struct zc_error *why)
{
    const char *session = p->v[S3_SET_SSO_SESSION], *start = p->v[S3_SET_SSO_START_URL];
    const char *missing = !p->v[S3_SET_SSO_ACCOUNT]  ? "sso_account_id"
                          : !p->v[S3_SET_SSO_ROLE]   ? "sso_role_name"
                          : !p->v[S3_SET_SSO_REGION] ? "sso_region"
                          : !start                   ? "sso_start_url"
                                                     : NULL;
    if (!p->v[S3_SET_SSO_ACCOUNT] && !p->v[S3_SET_SSO_ROLE])
        return zc_error_set(why, -ENOENT, "profile '%.100s' has no sso_account_id", profile);
    if (missing)
        return zc_error_set(why, -EACCES, "profile '%.100s'%s%.100s%s logs in by SSO but has no %s",
                            profile, session ? " (sso-session '" : "", session ? session : "",
                            session ? "')" : "", missing);
    struct sso s = {
        .x = x, .p = p, .profile = profile, .path = sso_path(session ? session : start)};
    int r = s.path ? sso_token(&s, why) : zc_error_set(why, -ENOMEM, "out of memory");
    if (r == 0)
        r = sso_keys(&s, out, why);
    s3_sso_token_free(&s.token);
    free(s.path);
    return r;
}
