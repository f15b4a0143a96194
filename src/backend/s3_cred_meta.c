/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys from the machine or the container that this runs in.
 *
 * Instance metadata is asked in its second version only (a session token, then the role): AWS's
 * SDKs fall back to the first one when the token is refused, unless they are told not to, and the
 * newer of them do not at all. A service that knows the first version only is rare today, and
 * silently taking keys from it is what the second version was made against; the words say what is
 * missing.
 * https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/configuring-instance-metadata-service.html
 * https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
 */
#include "backend/s3_cred_priv.h"
#include "base/units.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define IMDS_TIMEOUT_S 1
#define IMDS_ATTEMPTS 1       /* before it has ever answered: most machines are not in EC2 */
#define IMDS_ATTEMPTS_KNOWN 3 /* afterwards */
#define IMDS_STALE_NS (600 * ZC_NS_PER_S)
#define IMDS_ROLES "/latest/meta-data/iam/security-credentials/"
#define CONTAINER_TIMEOUT_NS (2 * ZC_NS_PER_S)
#define CONTAINER_ATTEMPTS 3

/* ---- instance metadata ---- */

struct imds {
    struct s3_ctx *x;
    char *base;
    char header[1200]; /* the token */
    int64_t timeout_ns;
    unsigned attempts;
};

static int imds_number(const char *env, const char *profile, uint64_t max, uint64_t *out,
                       struct zc_error *why)
{
    const char *text = getenv(env);
    if (!text || !text[0])
        text = profile;
    if (text && zc_parse_uint(text, 1, max, out) < 0)
        return zc_error_set(why, -EINVAL,
                            "%s (or the profile's) is '%.30s', not a number from 1 "
                            "to %u",
                            env, text, (unsigned)max);
    return 0;
}

static int imds_setup(struct imds *m, const struct s3_profile *p, struct zc_error *why)
{
    const char *url = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    const char *mode = getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE");
    uint64_t seconds = IMDS_TIMEOUT_S,
             attempts = m->x->imds_worked ? IMDS_ATTEMPTS_KNOWN : IMDS_ATTEMPTS;
    bool tls;
    char host[256];
    if (!url || !url[0])
        url = p->v[S3_SET_IMDS_ENDPOINT];
    if (!mode || !mode[0])
        mode = p->v[S3_SET_IMDS_MODE];
    if (mode && strcasecmp(mode, "IPv4") != 0 && strcasecmp(mode, "IPv6") != 0)
        return zc_error_set(why, -EINVAL,
                            "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE is '%.30s'; it can be IPv4 or "
                            "IPv6",
                            mode);
    if (!url)
        url = mode && strcasecmp(mode, "IPv6") == 0 ? "http://[fd00:ec2::254]"
                                                    : "http://169.254.169.254";
    if (s3_url_parts(url, &tls, host, sizeof(host)) < 0)
        return zc_error_set(why, -EINVAL,
                            "AWS_EC2_METADATA_SERVICE_ENDPOINT is '%.200s', not a URL", url);
    int r =
        imds_number("AWS_METADATA_SERVICE_TIMEOUT", p->v[S3_SET_IMDS_TIMEOUT], 60, &seconds, why);
    if (r == 0)
        r = imds_number("AWS_METADATA_SERVICE_NUM_ATTEMPTS", p->v[S3_SET_IMDS_ATTEMPTS], 20,
                        &attempts, why);
    m->timeout_ns = (int64_t)seconds * ZC_NS_PER_S;
    m->attempts = (unsigned)attempts;
    m->base = strdup(url);
    return r < 0 ? r : m->base ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

static int imds_silent(const struct imds *m, const struct s3_ask *a, int r, struct zc_error *why)
{
    if (r == -ECANCELED || r == -ESHUTDOWN)
        return zc_error_set(why, -ECANCELED, "cancelled");
    const char *hop = r == -ETIMEDOUT
                          ? "; in a container on EC2 the instance's hop limit must be 2: aws ec2 "
                            "modify-instance-metadata-options --http-put-response-hop-limit 2"
                          : "";
    return zc_error_set(why, m->x->imds_worked ? -EAGAIN : -ENOENT, "no answer from %.100s (%s)%s",
                        m->base, a->why, m->x->imds_worked || r == -ETIMEDOUT ? hop : "");
}

static int imds_token(struct imds *m, struct zc_error *why)
{
    const char *const headers[] = {"X-aws-ec2-metadata-token-ttl-seconds: 21600", NULL};
    zc_autofree char *url = s3_url_join(m->base, "/latest/api/token");
    zc_autoask struct s3_ask a = {.method = "PUT",
                                  .url = url,
                                  .headers = headers,
                                  .timeout_ns = m->timeout_ns,
                                  .attempts = m->attempts,
                                  .direct = true};
    if (!url)
        return zc_error_set(why, -ENOMEM, "out of memory");
    int r = s3_ask(m->x, &a);
    if (r < 0)
        return imds_silent(m, &a, r, why);
    if (a.status == 403)
        return zc_error_set(why, -ENOENT,
                            "%.100s is switched off for this instance (HTTP 403): aws ec2 "
                            "modify-instance-metadata-options --http-endpoint enabled",
                            m->base);
    if (a.status != 200)
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -ENOENT,
                            "%.100s gives no session token (HTTP %d): it does not speak IMDSv2, "
                            "and version 1 is not used",
                            m->base, a.status);
    if (!s3_token_ok(a.text, 1000))
        return zc_error_set(why, -EACCES, "%.100s gives a session token that is none", m->base);
    snprintf(m->header, sizeof(m->header), "X-aws-ec2-metadata-token: %s", a.text);
    return 0;
}

static int imds_get(struct imds *m, const char *path, struct s3_ask *a, struct zc_error *why)
{
    const char *const headers[] = {m->header, NULL};
    zc_autofree char *url = s3_url_join(m->base, path);
    if (!url)
        return zc_error_set(why, -ENOMEM, "out of memory");
    *a = (struct s3_ask){.method = "GET",
                         .url = url,
                         .headers = headers,
                         .timeout_ns = m->timeout_ns,
                         .attempts = IMDS_ATTEMPTS_KNOWN,
                         .direct = true};
    int r = s3_ask(m->x, a);
    a->url = NULL;
    a->headers = NULL;
    return r < 0 ? imds_silent(m, a, r, why) : 0;
}

/* The name of the instance's role: the first line of the list. */
static int imds_role(struct imds *m, char **out, struct zc_error *why)
{
    zc_autoask struct s3_ask a = {0};
    int r = imds_get(m, IMDS_ROLES, &a, why);
    if (r < 0)
        return r;
    if (a.status == 404)
        return zc_error_set(why, -ENOENT, "the instance has no role: attach an instance profile");
    if (a.status != 200)
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -EACCES,
                            "%.100s answers HTTP %d when asked for the instance's role", m->base,
                            a.status);
    a.text[strcspn(a.text, "\r\n")] = '\0';
    if (!s3_token_ok(a.text, 200) || strpbrk(a.text, "/?#%"))
        return zc_error_set(why, -ENOENT, "the instance has no role: attach an instance profile");
    *out = strdup(a.text);
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

static int imds_keys(struct imds *m, const char *role, struct s3_keys **out, struct zc_error *why)
{
    zc_autoask struct s3_ask a = {0};
    zc_autofree char *path = NULL;
    struct s3_fields f = {0};
    char source[400];
    if (asprintf(&path, "%s%s", IMDS_ROLES, role) < 0)
        return zc_error_set(why, -ENOMEM, "out of memory");
    int r = imds_get(m, path, &a, why);
    if (r < 0)
        return r;
    if (a.status != 200)
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -EACCES,
                            "%.100s answers HTTP %d when asked for the keys of role %s", m->base,
                            a.status, role);
    r = s3_decode_json(S3_ANSWER_METADATA, a.text, a.len, &f, why);
    if (r < 0) {
        zc_error_prefix(why, "role %s at %.100s", role, m->base);
        return -EACCES;
    }
    /* When the service behind it is down it goes on giving the last keys, which the stores then
       take for longer: use them, and ask again in a while. */
    int64_t now = zc_wall_ns() + a.skew_ns;
    if (f.expires_ns <= now)
        f.expires_ns = now + IMDS_STALE_NS / 2 + s3_jitter(IMDS_STALE_NS / 2);
    snprintf(source, sizeof(source), "instance role %s (%.100s)", role, m->base);
    return s3_fields_keys(&f, a.skew_ns, source, out, why);
}

int s3_from_imds(struct s3_ctx *x, const struct s3_profile *p, struct s3_keys **out,
                 struct zc_error *why)
{
    const char *off = getenv("AWS_EC2_METADATA_DISABLED");
    struct imds m = {.x = x};
    zc_autofree char *role = NULL;
    if (off && strcasecmp(off, "true") == 0)
        return zc_error_set(why, -ENOENT, "AWS_EC2_METADATA_DISABLED is set");
    int r = imds_setup(&m, p, why);
    if (r == 0)
        r = imds_token(&m, why);
    if (r == 0)
        r = imds_role(&m, &role, why);
    if (r == 0)
        r = imds_keys(&m, role, out, why);
    if (r == 0)
        x->imds_worked = true;
    OPENSSL_cleanse(m.header, sizeof(m.header));
    free(m.base);
    return r;
}

/* ---- containers ---- */

/* "Authorization: ..." or "". */
static int container_token(char **out, struct zc_error *why)
{
    const char *file = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN");
    char *read = NULL;
    if (file && file[0]) {
        int r = s3_token_file(file, "the container's authorization token", &read, why);
        if (r < 0)
            return r;
        token = read;
    }
    /* "Basic abc" has a blank: what must not be there is a second header. */
    if (token && strpbrk(token, "\r\n"))
        return zc_error_set(why, -EACCES,
                            "AWS_CONTAINER_AUTHORIZATION_TOKEN has more than one line");
    if (asprintf(out, "%s%s", token && token[0] ? "Authorization: " : "", token ? token : "") < 0)
        *out = NULL;
    if (read)
        OPENSSL_cleanse(read, strlen(read));
    free(read);
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

int s3_from_container(struct s3_ctx *x, struct s3_keys **out, struct zc_error *why)
{
    const char *relative = getenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    zc_autofree char *url = NULL, *token = NULL;
    struct s3_fields f = {0};
    char source[400], said[300];
    if (relative && relative[0])
        url = s3_url_join("http://169.254.170.2", relative);
    else if (full && full[0])
        url = strdup(full);
    else
        return zc_error_set(why, -ENOENT, "AWS_CONTAINER_CREDENTIALS_FULL_URI is not set");
    if (!url)
        return zc_error_set(why, -ENOMEM, "out of memory");
    if (!s3_container_url_ok(url))
        return zc_error_set(why, -EACCES,
                            "AWS_CONTAINER_CREDENTIALS_FULL_URI is '%.200s': without TLS the host "
                            "must be this machine (127.0.0.0/8, ::1, localhost) or one of "
                            "169.254.170.2, 169.254.170.23, [fd00:ec2::23]",
                            url);
    int r = container_token(&token, why);
    if (r < 0)
        return r;
    const char *const headers[] = {"Accept: application/json", token[0] ? token : NULL, NULL};
    zc_autoask struct s3_ask a = {.method = "GET",
                                  .url = url,
                                  .headers = headers,
                                  .timeout_ns = CONTAINER_TIMEOUT_NS,
                                  .attempts = CONTAINER_ATTEMPTS,
                                  .direct = strncasecmp(url, "http:", 5) == 0};
    r = s3_ask(x, &a);
    OPENSSL_cleanse(token, strlen(token));
    if (r < 0)
        return s3_ask_words(&a, r, "the container's credentials service", why);
    if (a.status != 200) {
        s3_decode_refusal(a.text, a.len, said, sizeof(said));
        return zc_error_set(why, s3_ask_later(&a) ? -EAGAIN : -EACCES,
                            "the container's credentials service at %.200s answers HTTP %d%s%s",
                            url, a.status, said[0] ? ", " : "", said);
    }
    r = s3_decode_json(S3_ANSWER_CONTAINER, a.text, a.len, &f, why);
    if (r < 0) {
        zc_error_prefix(why, "the container's credentials service at %.200s", url);
        return -EACCES;
    }
    snprintf(source, sizeof(source), "the container's credentials service (%.200s)", url);
    return s3_fields_keys(&f, a.skew_ns, source, out, why);
}
