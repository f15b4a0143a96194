/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What STS, metadata services, processes and the SSO portal answer. Keys must be such that they fit
 * into a header line: an answer is not trusted to be what it says. Words about an answer that
 * cannot be used name what is missing and never quote it, since what stands there may be a secret.
 *
 * Formats: STS API reference (AssumeRole); the SDKs' reference guide (container and process
 * credentials); EC2 user guide (instance metadata); SSO portal API reference (GetRoleCredentials);
 * SSO OIDC API reference (CreateToken).
 */
#include "backend/s3_cred_priv.h"
#include "backend/s3_text.h"
#include "backend/s3_xml.h"

#include <errno.h>
#include <expat.h>
#include <jansson.h>
#include <openssl/crypto.h>
#include <stdio.h>
#include <string.h>

#define KEY_ID_MAX 256
#define KEY_SECRET_MAX 1024
#define KEY_TOKEN_MAX ((size_t)16 << 10)
#define STS_DEPTH_MAX 16

static void decode_wipe(char *s)
{
    if (s)
        OPENSSL_cleanse(s, strlen(s));
    free(s);
}

void s3_fields_free(struct s3_fields *f)
{
    free(f->id);
    decode_wipe(f->secret);
    decode_wipe(f->token);
    *f = (struct s3_fields){0};
}

int s3_fields_keys(struct s3_fields *f, int64_t skew_ns, const char *source, struct s3_keys **out,
                   struct zc_error *why)
{
    *out = s3_keys_new(f->id, f->secret, f->token, f->expires_ns ? f->expires_ns - skew_ns : 0,
                       source);
    s3_fields_free(f);
    return *out ? 0 : zc_error_set(why, -ENOMEM, "out of memory");
}

static int decode_check(struct s3_fields *f, const char *const names[3], struct zc_error *why)
{
    const char *bad = !f->id || !s3_token_ok(f->id, KEY_ID_MAX)               ? names[0]
                      : !f->secret || !s3_token_ok(f->secret, KEY_SECRET_MAX) ? names[1]
                      : f->token && !s3_token_ok(f->token, KEY_TOKEN_MAX)     ? names[2]
                                                                              : NULL;
    if (!bad)
        return 0;
    s3_fields_free(f);
    return zc_error_set(why, -EBADMSG, "the answer has no %s that could be one", bad);
}

/* ---- times ---- */

static int decode_digits(const char *s)
{
    return s[0] >= '0' && s[0] <= '9' && s[1] >= '0' && s[1] <= '9'
               ? (s[0] - '0') * 10 + (s[1] - '0')
               : -1;
}

int s3_decode_time(const char *s, int64_t *ns)
{
    char text[48];
    size_t n = strnlen(s, sizeof(text));
    int64_t off = 0;
    if (n < 20 || n >= sizeof(text) - 1)
        return -EINVAL;
    memcpy(text, s, n + 1);
    if (strcmp(text + n - 3, "UTC") == 0) {
        strcpy(text + n - 3, "Z");
    } else if (n > 6 && text[n - 3] == ':' && (text[n - 6] == '+' || text[n - 6] == '-')) {
        int h = decode_digits(text + n - 5), m = decode_digits(text + n - 2);
        if (h < 0 || h > 23 || m < 0 || m > 59)
            return -EINVAL;
        off = ((int64_t)h * 60 + m) * 60 * ZC_NS_PER_S * (text[n - 6] == '+' ? 1 : -1);
        strcpy(text + n - 6, "Z");
    }
    if (s3_text_date(text, strlen(text), ns) < 0)
        return -EINVAL;
    *ns -= off;
    return 0;
}

/* ---- JSON ---- */

static json_t *decode_object(const char *p, size_t n)
{
    json_t *o = json_loadb(p, n, JSON_REJECT_DUPLICATES, NULL);
    if (o && !json_is_object(o)) {
        json_decref(o);
        o = NULL;
    }
    return o;
}

/* A copy of a member that is text; NULL when it is not there, or memory is short. */
static char *decode_text(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? strdup(s) : NULL;
}

static void decode_line(char *out, size_t n, const char *s)
{
    snprintf(out, n, "%s", s);
    for (char *c = out; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            *c = ' ';
}

static int decode_end(const json_t *value, enum s3_answer_kind kind, int64_t *out)
{
    *out = 0;
    if (!value || json_is_null(value))
        return kind == S3_ANSWER_PROCESS ? 0 : -EBADMSG;
    if (json_is_integer(value) && kind == S3_ANSWER_SSO) {
        json_int_t ms = json_integer_value(value);
        if (ms <= 0 || ms > INT64_MAX / ZC_NS_PER_MS)
            return -EBADMSG;
        *out = (int64_t)ms * ZC_NS_PER_MS;
        return 0;
    }
    const char *s = json_string_value(value);
    return s && s3_decode_time(s, out) == 0 ? 0 : -EBADMSG;
}

int s3_decode_json(enum s3_answer_kind kind, const char *p, size_t n, struct s3_fields *out,
                   struct zc_error *why)
{
    static const struct {
        const char *names[3], *end;
    } forms[] = {
        [S3_ANSWER_METADATA] = {{"AccessKeyId", "SecretAccessKey", "Token"}, "Expiration"},
        [S3_ANSWER_CONTAINER] = {{"AccessKeyId", "SecretAccessKey", "Token"}, "Expiration"},
        [S3_ANSWER_PROCESS] = {{"AccessKeyId", "SecretAccessKey", "SessionToken"}, "Expiration"},
        [S3_ANSWER_SSO] = {{"accessKeyId", "secretAccessKey", "sessionToken"}, "expiration"},
    };
    struct s3_fields f = {0};
    json_t *root = decode_object(p, n);
    const json_t *o = kind == S3_ANSWER_SSO ? json_object_get(root, "roleCredentials") : root;
    int r = 0;
    if (!json_is_object(o)) {
        r = zc_error_set(why, -EBADMSG, "the answer is not the JSON that was expected");
        goto out;
    }
    if (kind == S3_ANSWER_PROCESS && json_integer_value(json_object_get(o, "Version")) != 1) {
        r = zc_error_set(why, -EBADMSG, "the output does not say \"Version\": 1");
        goto out;
    }
    const char *code = json_string_value(json_object_get(o, "Code"));
    if (kind == S3_ANSWER_METADATA && code && strcmp(code, "Success") != 0) {
        char said[64];
        decode_line(said, sizeof(said), code);
        r = zc_error_set(why, -EBADMSG, "the answer's Code is %s", said);
        goto out;
    }
    f.id = decode_text(o, forms[kind].names[0]);
    f.secret = decode_text(o, forms[kind].names[1]);
    f.token = decode_text(o, forms[kind].names[2]);
    if (f.token && !f.token[0]) {
        free(f.token);
        f.token = NULL;
    }
    r = decode_check(&f, forms[kind].names, why);
    if (r == 0 && decode_end(json_object_get(o, forms[kind].end), kind, &f.expires_ns) < 0)
        r = zc_error_set(why, -EBADMSG, "the answer's %s is not a time", forms[kind].end);
out:
    json_decref(root);
    if (r < 0)
        s3_fields_free(&f);
    else
        *out = f;
    return r;
}

void s3_decode_refusal(const char *p, size_t n, char *out, size_t size)
{
    static const char *const codes[] = {"code", "Code", "__type", "error"};
    static const char *const texts[] = {"message", "Message", "error_description"};
    const char *code = NULL, *text = NULL;
    json_t *o = decode_object(p, n);
    for (size_t i = 0; i < ZC_ARRAY_SIZE(codes) && !code; i++)
        code = json_string_value(json_object_get(o, codes[i]));
    for (size_t i = 0; i < ZC_ARRAY_SIZE(texts) && !text; i++)
        text = json_string_value(json_object_get(o, texts[i]));
    char line[300];
    snprintf(line, sizeof(line), "%.80s%s%.200s", code ? code : "", code && text ? ": " : "",
             text ? text : "");
    decode_line(out, size, line);
    json_decref(o);
}

/* ---- the SSO cache ---- */

void s3_sso_token_free(struct s3_sso_token *t)
{
    decode_wipe(t->access);
    free(t->client_id);
    decode_wipe(t->client_secret);
    decode_wipe(t->refresh);
    *t = (struct s3_sso_token){0};
}

int s3_decode_sso_file(const char *p, size_t n, struct s3_sso_token *out, struct zc_error *why)
{
    struct s3_sso_token t = {0};
    json_t *o = decode_object(p, n);
    const char *end = json_string_value(json_object_get(o, "expiresAt"));
    const char *until = json_string_value(json_object_get(o, "registrationExpiresAt"));
    t.access = decode_text(o, "accessToken");
    t.client_id = decode_text(o, "clientId");
    t.client_secret = decode_text(o, "clientSecret");
    t.refresh = decode_text(o, "refreshToken");
    bool ok = t.access && s3_token_ok(t.access, KEY_TOKEN_MAX) && end &&
              s3_decode_time(end, &t.expires_ns) == 0;
    if (!until || s3_decode_time(until, &t.registration_ns) < 0)
        t.registration_ns = 0;
    json_decref(o);
    if (!ok) {
        s3_sso_token_free(&t);
        return zc_error_set(why, -EBADMSG, "it holds no accessToken with an expiresAt");
    }
    if (!t.client_id || !t.client_secret || !t.refresh) {
        free(zc_steal_ptr(&t.client_id));
        decode_wipe(zc_steal_ptr(&t.client_secret));
        decode_wipe(zc_steal_ptr(&t.refresh));
    }
    *out = t;
    return 0;
}

int s3_decode_sso_created(const char *p, size_t n, char **access, char **refresh, int64_t *life_s,
                          struct zc_error *why)
{
    json_t *o = decode_object(p, n);
    char *token = decode_text(o, "accessToken"), *again = decode_text(o, "refreshToken");
    json_int_t life = json_integer_value(json_object_get(o, "expiresIn"));
    json_decref(o);
    if (!token || !s3_token_ok(token, KEY_TOKEN_MAX) || life <= 0 || life > INT32_MAX) {
        decode_wipe(token);
        decode_wipe(again);
        return zc_error_set(why, -EBADMSG, "the answer has no accessToken with an expiresIn");
    }
    *access = token;
    *refresh = again;
    *life_s = (int64_t)life;
    return 0;
}

/* ---- STS ---- */

enum sts_leaf { STS_ID, STS_SECRET, STS_TOKEN, STS_END, STS_LEAVES };
static const char *const sts_names[] = {"AccessKeyId", "SecretAccessKey", "SessionToken",
                                        "Expiration"};

struct sts_parser {
    XML_Parser expat;
    int depth;
    bool result, credentials; /* inside of them */
    int leaf;                 /* being filled, or -1 */
    struct zc_buf text[STS_LEAVES];
    bool refused;
};

static void sts_refuse(struct sts_parser *p)
{
    p->refused = true;
    XML_StopParser(p->expat, XML_FALSE);
}

/* <AssumeRoleResponse> <AssumeRoleResult> <Credentials> <AccessKeyId> */
static void XMLCALL sts_start(void *arg, const XML_Char *name, const XML_Char **attrs)
{
    struct sts_parser *p = arg;
    size_t n = strlen(name);
    p->leaf = -1;
    if (++p->depth > STS_DEPTH_MAX) {
        sts_refuse(p);
        return;
    }
    if (p->depth == 2)
        p->result = n > 6 && strcmp(name + n - 6, "Result") == 0;
    else if (p->depth == 3)
        p->credentials = p->result && strcmp(name, "Credentials") == 0;
    for (int i = 0; p->depth == 4 && p->credentials && i < STS_LEAVES; i++) {
        if (strcmp(name, sts_names[i]) != 0)
            continue;
        if (p->text[i].len) /* twice: which one is meant? */
            sts_refuse(p);
        p->leaf = i;
    }
}

static void XMLCALL sts_chars(void *arg, const XML_Char *s, int n)
{
    struct sts_parser *p = arg;
    if (p->leaf >= 0 && zc_buf_add(&p->text[p->leaf], s, (size_t)n) < 0)
        sts_refuse(p);
}

static void XMLCALL sts_end(void *arg, const XML_Char *name)
{
    struct sts_parser *p = arg;
    p->leaf = -1;
    p->credentials = p->credentials && p->depth != 3;
    p->result = p->result && p->depth != 2;
    p->depth--;
}

static void XMLCALL sts_doctype(void *arg, const XML_Char *name, const XML_Char *sys,
                                const XML_Char *pub, int sub)
{
    sts_refuse(arg);
}

int s3_decode_sts(const char *body, size_t n, struct s3_fields *out, struct zc_error *why)
{
    struct sts_parser p = {.expat = XML_ParserCreate("UTF-8"), .leaf = -1};
    struct s3_fields f = {0};
    if (!p.expat)
        return zc_error_set(why, -ENOMEM, "out of memory");
    for (int i = 0; i < STS_LEAVES; i++)
        p.text[i].max = KEY_TOKEN_MAX;
    XML_SetUserData(p.expat, &p);
    XML_SetElementHandler(p.expat, sts_start, sts_end);
    XML_SetCharacterDataHandler(p.expat, sts_chars);
    XML_SetStartDoctypeDeclHandler(p.expat, sts_doctype);
    bool ok =
        XML_Parse(p.expat, body, (int)ZC_MIN(n, S3_ASK_MAX), 1) == XML_STATUS_OK && !p.refused;
    XML_ParserFree(p.expat);
    if (ok) {
        f.id = p.text[STS_ID].p ? zc_buf_steal(&p.text[STS_ID]) : NULL;
        f.secret = p.text[STS_SECRET].p ? zc_buf_steal(&p.text[STS_SECRET]) : NULL;
        f.token = p.text[STS_TOKEN].p ? zc_buf_steal(&p.text[STS_TOKEN]) : NULL;
    }
    int r = ok ? decode_check(&f, sts_names, why)
               : zc_error_set(why, -EBADMSG, "the answer is not STS's XML");
    if (r == 0 && (!p.text[STS_END].p || s3_decode_time(p.text[STS_END].p, &f.expires_ns) < 0))
        r = zc_error_set(why, -EBADMSG, "the answer's Expiration is not a time");
    for (int i = 0; i < STS_LEAVES; i++) {
        if (p.text[i].p)
            OPENSSL_cleanse(p.text[i].p, p.text[i].cap);
        zc_buf_free(&p.text[i]);
    }
    if (r < 0)
        s3_fields_free(&f);
    else
        *out = f;
    return r;
}
