/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a failure means: an errno for the program, and for the person a sentence that says what to
 * do. The error codes are S3's (API reference, "Error responses"), with those that other stores
 * add.
 */
#include "backend/s3_priv.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum words_kind {
    W_PLAIN,    /* the store's own words are enough */
    W_BUCKET,   /* no such bucket */
    W_DENIED,   /* not allowed */
    W_KEY_ID,   /* unknown access key */
    W_SECRET,   /* wrong secret */
    W_EXPIRED,  /* session over */
    W_CLOCK,    /* clocks differ */
    W_REGION,   /* wrong region or endpoint */
    W_ARCHIVED, /* must be restored first */
};

static const struct words_code {
    const char *code;
    int err;
    enum words_kind kind;
} words_codes[] = {
    {"NoSuchKey", -ENOENT, W_PLAIN},
    {"NotFound", -ENOENT, W_PLAIN},
    {"NoSuchVersion", -ENOENT, W_PLAIN},
    {"NoSuchBucket", -ENOENT, W_BUCKET},
    {"AccessDenied", -EACCES, W_DENIED},
    {"AllAccessDisabled", -EACCES, W_DENIED},
    {"AccountProblem", -EACCES, W_PLAIN},
    {"NotSignedUp", -EACCES, W_PLAIN},
    {"InvalidAccessKeyId", -EACCES, W_KEY_ID},
    {"SignatureDoesNotMatch", -EACCES, W_SECRET},
    {"ExpiredToken", -EACCES, W_EXPIRED},
    {"TokenRefreshRequired", -EACCES, W_EXPIRED},
    {"InvalidToken", -EACCES, W_EXPIRED},
    {"InvalidTokenId", -EACCES, W_EXPIRED},
    {"InvalidClientTokenId", -EACCES, W_KEY_ID},
    {"XAdminUserNotFound", -EACCES, W_KEY_ID},
    {"RequestTimeTooSkewed", -EACCES, W_CLOCK},
    {"RequestExpired", -EACCES, W_CLOCK},
    {"PermanentRedirect", -EIO, W_REGION},
    {"AuthorizationHeaderMalformed", -EIO, W_REGION},
    {"IllegalLocationConstraintException", -EIO, W_REGION},
    {"TemporaryRedirect", -EIO, W_REGION},
    {"InvalidObjectState", -EACCES, W_ARCHIVED},
    {"PreconditionFailed", -ESTALE, W_PLAIN},
    {"InvalidRange", -ESTALE, W_PLAIN},
    {"SlowDown", -EAGAIN, W_PLAIN},
    {"SlowDownRead", -EAGAIN, W_PLAIN},
    {"Busy", -EAGAIN, W_PLAIN},
    {"ServerBusy", -EAGAIN, W_PLAIN},
    {"TooManyRequests", -EAGAIN, W_PLAIN},
    {"Throttling", -EAGAIN, W_PLAIN},
    {"ThrottlingException", -EAGAIN, W_PLAIN},
    {"RequestLimitExceeded", -EAGAIN, W_PLAIN},
    {"BandwidthLimitExceeded", -EAGAIN, W_PLAIN},
    {"InternalError", -EAGAIN, W_PLAIN},
    {"ServiceUnavailable", -EAGAIN, W_PLAIN},
    {"RequestTimeout", -EAGAIN, W_PLAIN},
    {"XMinioServerNotInitialized", -EAGAIN, W_PLAIN},
};

/* What a status says when no body does. */
static const struct {
    int status;
    const char *code;
    int err;
} words_statuses[] = {
    {301, "301", -EIO},
    {302, "302", -EIO},
    {307, "307", -EIO},
    {308, "308", -EIO},
    {400, "400", -EIO},
    {401, "AccessDenied", -EACCES},
    {403, "AccessDenied", -EACCES},
    {404, "NoSuchKey", -ENOENT},
    {408, "RequestTimeout", -EAGAIN},
    {412, "PreconditionFailed", -ESTALE},
    {416, "InvalidRange", -ESTALE},
    {429, "TooManyRequests", -EAGAIN},
    {500, "InternalError", -EAGAIN},
    {502, "502", -EAGAIN},
    {503, "ServiceUnavailable", -EAGAIN},
    {504, "504", -EAGAIN},
};

const char *s3_words_code(const struct s3_call *c)
{
    if (c->xml.code[0])
        return c->xml.code;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(words_statuses); i++)
        if (words_statuses[i].status == c->http.status)
            return words_statuses[i].code;
    return "";
}

static const struct words_code *words_find(const char *code)
{
    for (size_t i = 0; i < ZC_ARRAY_SIZE(words_codes); i++)
        if (strcmp(words_codes[i].code, code) == 0)
            return &words_codes[i];
    return NULL;
}

/* "s3://bucket/a/b" as far as it fits, and where that is. */
static void words_what(const struct s3_call *c, char *out, size_t n)
{
    if (c->key)
        snprintf(out, n, "s3://%s/%.300s", c->s3->bucket, c->key);
    else
        snprintf(out, n, "s3://%s", c->s3->bucket);
}

static const char *words_endpoint(const struct s3_call *c)
{
    return c->place->service;
}

static int words_denied(struct s3_call *c, const char *what)
{
    const char *m = c->xml.message[0] ? c->xml.message : "access denied";
    if (c->s3->anonymous)
        return zc_error_set(&c->words, -EACCES,
                            "%s: the store refuses requests without credentials (%s). The bucket "
                            "is not public: leave "
                            "--no-sign-request out and give credentials",
                            what, m);
    return zc_error_set(
        &c->words, -EACCES,
        "%s: the store refuses access key %s, which came from %s (%s). It needs s3:ListBucket on "
        "the "
        "bucket and s3:GetObject on its objects; other keys: --profile NAME, or AWS_ACCESS_KEY_ID",
        what, c->keys ? c->keys->id : "(none)", c->keys ? c->keys->source : "nowhere", m);
}

static int words_region(struct s3_call *c, const char *what)
{
    const char *region = c->xml.region[0] ? c->xml.region : c->answer.region;
    if (region[0])
        return zc_error_set(&c->words, -EIO,
                            "%s: the bucket is in region %s, but was asked for at %s for region "
                            "%s: pass --region %s%s",
                            what, region, words_endpoint(c), c->place->region, region,
                            c->s3->endpoint ? ", and check --endpoint-url" : "");
    if (c->xml.endpoint[0])
        return zc_error_set(
            &c->words, -EIO,
            "%s: the bucket must be asked for at %s: pass its --region, or that as --endpoint-url",
            what, c->xml.endpoint);
    return zc_error_set(
        &c->words, -EIO, "%s: %s points elsewhere (HTTP %d %s): check --region and --endpoint-url",
        what, words_endpoint(c), c->http.status, c->xml.message[0] ? c->xml.message : "redirect");
}

static int words_clock(struct s3_call *c, const char *what)
{
    double off = c->answer.date_ns ? (double)(c->answer.date_ns - zc_wall_ns()) / 1e9 : 0;
    return zc_error_set(&c->words, -EACCES,
                        "%s: this machine's clock is %.0f s %s the store's, which therefore "
                        "refuses its signatures: "
                        "set the clock (timedatectl set-ntp true)",
                        what, off < 0 ? -off : off, off > 0 ? "behind" : "ahead of");
}

static int words_keys(struct s3_call *c, const char *what, enum words_kind kind)
{
    const char *id = c->keys ? c->keys->id : "(none)",
               *from = c->keys ? c->keys->source : "nowhere";
    const char *text = c->xml.message[0] ? c->xml.message : c->xml.code;
    if (kind == W_KEY_ID)
        return zc_error_set(
            &c->words, -EACCES,
            "%s: the store at %s does not know access key %s, which came from %s: check "
            "AWS_ACCESS_KEY_ID, --profile and --endpoint-url",
            what, words_endpoint(c), id, from);
    if (kind == W_SECRET)
        return zc_error_set(
            &c->words, -EACCES,
            "%s: the secret key that came with access key %s from %s is not the right one: check "
            "AWS_SECRET_ACCESS_KEY or the credentials file (%s)",
            what, id, from, text);
    return zc_error_set(
        &c->words, -EACCES,
        "%s: the session of access key %s, from %s, has expired or is not valid (%s): get new "
        "credentials; those in files are read again by themselves, those in the environment need a "
        "new mount; zcache doctor shows each source of them",
        what, id, from, text);
}

static int words_refusal(struct s3_call *c)
{
    char what[400];
    const char *code = s3_words_code(c);
    const struct words_code *w = words_find(code);
    int err = w ? w->err : -EIO;
    words_what(c, what, sizeof(what));
    if (!w) {
        for (size_t i = 0; i < ZC_ARRAY_SIZE(words_statuses); i++)
            if (words_statuses[i].status == c->http.status)
                err = words_statuses[i].err;
        /* A code that nobody knows, with a status of "try again". */
        if (c->http.status >= 300 && c->http.status < 400)
            return words_region(c, what);
    }
    switch (w ? w->kind : W_PLAIN) {
    case W_BUCKET:
        return zc_error_set(
            &c->words, err,
            "bucket %s does not exist at %s: check its name, --region and --endpoint-url",
            c->s3->bucket, words_endpoint(c));
    case W_DENIED:
        return words_denied(c, what);
    case W_KEY_ID:
    case W_SECRET:
    case W_EXPIRED:
        return words_keys(c, what, w->kind);
    case W_CLOCK:
        return words_clock(c, what);
    case W_REGION:
        return words_region(c, what);
    case W_ARCHIVED:
        return zc_error_set(&c->words, err,
                            "%s is archived (Glacier or the like) and must be restored before it "
                            "can be read: aws s3api "
                            "restore-object",
                            what);
    case W_PLAIN:
        break;
    }
    if (!c->xml.code[0] && c->body.len && c->body.p[0] != '<')
        return zc_error_set(&c->words, err,
                            "%s: %s answers HTTP %d, and not as S3 does: is --endpoint-url right?",
                            what, words_endpoint(c), c->http.status);
    return zc_error_set(&c->words, err, "%s: %s answers HTTP %d%s%s%s%s", what, words_endpoint(c),
                        c->http.status, code[0] ? " " : "", code, c->xml.message[0] ? ": " : "",
                        c->xml.message);
}

static int words_network(struct s3_call *c, int err)
{
    char what[400];
    const char *why = c->http.why;
    words_what(c, what, sizeof(what));
    switch (err) {
    case -ECONNREFUSED:
        return zc_error_set(&c->words, err, "%s: nothing answers at %s (%s): check --endpoint-url",
                            what, words_endpoint(c), why);
    case -EHOSTUNREACH:
        return zc_error_set(&c->words, err,
                            "%s: %s cannot be reached (%s): check --endpoint-url, --region and the "
                            "name server%s",
                            what, c->place->host, why,
                            c->place->path_style ? "" : ", or pass --force-path-style");
    case -EPROTO:
        if (strstr(why, "subject name"))
            return zc_error_set(
                &c->words, err,
                "%s: the certificate of %s is for another name (%s): check --endpoint-url%s", what,
                c->place->host, why, c->place->path_style ? "" : ", or pass --force-path-style");
        if (strstr(why, "wrong version number"))
            return zc_error_set(&c->words, err,
                                "%s: %s does not speak TLS: write http:// in --endpoint-url", what,
                                c->place->host);
        return zc_error_set(&c->words, err,
                            "%s: no TLS connection with %s (%s): if its certificate is signed by "
                            "an authority of your "
                            "own, pass --ca-bundle FILE or set AWS_CA_BUNDLE",
                            what, c->place->host, why);
    case -ETIMEDOUT:
        return zc_error_set(&c->words, err, "%s: no answer from %s (%s)", what, c->place->host,
                            why);
    case -EBADMSG:
        return zc_error_set(&c->words, err,
                            "%s: %s does not answer in HTTP (%s): check --endpoint-url (http or "
                            "https?)",
                            what, c->place->host, why);
    default:
        return zc_error_set(&c->words, err, "%s: %s: %s", what, c->place->host,
                            why[0] ? why : strerror(-err));
    }
}

int s3_words(struct s3_call *c, int net_err)
{
    return net_err < 0 ? words_network(c, net_err) : words_refusal(c);
}
