/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Read by a parser of our own: the files have one level of nesting, and session tokens are longer
 * than the lines that common INI libraries take.
 */
#include "backend/s3_profile.h"

#include "base/buf.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define PROFILE_FILE_MAX ((size_t)4 << 20)
#define PROFILE_NAME_MAX 256
#define PROFILE_VALUE_MAX ((size_t)16 << 10)

/* ---- the format ---- */

static bool ini_blank(char c)
{
    return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v';
}

static void ini_trim(const char **s, size_t *n)
{
    while (*n && ini_blank(**s)) {
        (*s)++;
        (*n)--;
    }
    while (*n && ini_blank((*s)[*n - 1]))
        (*n)--;
}

/* Cuts a comment off: '#' or ';' after a blank. */
static size_t ini_uncomment(const char *s, size_t n)
{
    for (size_t i = 1; i < n; i++)
        if ((s[i] == '#' || s[i] == ';') && ini_blank(s[i - 1]))
            return i;
    return n;
}

struct ini_state {
    char section[PROFILE_NAME_MAX];
    char parent[PROFILE_NAME_MAX]; /* "s3" after "s3 =", else "" */
    bool in_section;
};

static int ini_section(struct ini_state *st, const char *s, size_t n, s3_ini_fn *fn, void *arg)
{
    const char *close = memchr(s, ']', n);
    st->in_section = false;
    st->parent[0] = '\0';
    if (!close)
        return 0;
    n = (size_t)(close - s);
    ini_trim(&s, &n);
    if (n >= sizeof(st->section) || memchr(s, '\0', n))
        return 0;
    memcpy(st->section, s, n);
    st->section[n] = '\0';
    st->in_section = true;
    return fn(arg, st->section, NULL, NULL);
}

static int ini_setting(struct ini_state *st, const char *s, size_t n, bool nested, s3_ini_fn *fn,
                       void *arg)
{
    const char *eq = memchr(s, '=', n);
    char key[2 * PROFILE_NAME_MAX];
    if (!eq || !st->in_section || (nested && !st->parent[0]))
        return 0;
    size_t key_len = (size_t)(eq - s), len = n - key_len - 1;
    const char *value = eq + 1;
    ini_trim(&s, &key_len);
    len = ini_uncomment(value, len);
    ini_trim(&value, &len);
    if (key_len == 0 || key_len >= PROFILE_NAME_MAX || len > PROFILE_VALUE_MAX ||
        memchr(s, '\0', key_len) || memchr(value, '\0', len))
        return 0;
    int k = nested ? snprintf(key, sizeof(key), "%s.", st->parent) : 0;
    for (size_t i = 0; i < key_len; i++)
        key[(size_t)k + i] = (char)tolower((unsigned char)s[i]);
    key[(size_t)k + key_len] = '\0';
    if (!nested)
        memcpy(st->parent, len == 0 ? key : "", len == 0 ? key_len + 1 : 1);
    zc_autofree char *copy = strndup(value, len);
    return copy ? fn(arg, st->section, key, copy) : -ENOMEM;
}

int s3_ini_parse(const char *text, size_t n, s3_ini_fn *fn, void *arg)
{
    struct ini_state st = {0};
    const char *end = text + n;
    int r = 0;
    while (r == 0 && text < end) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        const char *line = text;
        size_t len = (size_t)((nl ? nl : end) - text);
        text = nl ? nl + 1 : end;
        bool nested = len && ini_blank(line[0]);
        ini_trim(&line, &len);
        if (len == 0 || line[0] == '#' || line[0] == ';')
            continue;
        if (line[0] == '[')
            r = ini_section(&st, line + 1, len - 1, fn, arg);
        else
            r = ini_setting(&st, line, len, nested, fn, arg);
    }
    return r;
}

/* ---- paths ---- */

static char *profile_path(const char *env, const char *below_home)
{
    const char *set = env ? getenv(env) : NULL, *home = getenv("HOME");
    char *path = NULL;
    if (set && set[0] && set[0] != '~')
        return strdup(set);
    char buf[1024];
    struct passwd pw, *found = NULL;
    if ((!home || !home[0]) && getpwuid_r(geteuid(), &pw, buf, sizeof(buf), &found) == 0 && found)
        home = pw.pw_dir;
    const char *rest = set && set[0] == '~' && set[1] == '/' ? set + 1 : below_home;
    return asprintf(&path, "%s%s", home ? home : "", rest) < 0 ? NULL : path;
}

char *s3_profile_credentials_path(void)
{
    return profile_path("AWS_SHARED_CREDENTIALS_FILE", "/.aws/credentials");
}

char *s3_profile_config_path(void)
{
    return profile_path("AWS_CONFIG_FILE", "/.aws/config");
}

char *s3_profile_home_path(const char *below)
{
    return profile_path(NULL, below);
}

/* ---- a profile ---- */

struct profile_key {
    const char *key;
    enum s3_setting setting;
};

static const struct profile_key profile_keys[] = {
    {"aws_access_key_id", S3_SET_KEY_ID},
    {"aws_secret_access_key", S3_SET_SECRET},
    {"aws_session_token", S3_SET_TOKEN},
    {"aws_security_token", S3_SET_TOKEN},
    {"region", S3_SET_REGION},
    {"endpoint_url", S3_SET_ENDPOINT},
    {"ca_bundle", S3_SET_CA_BUNDLE},
    {"max_attempts", S3_SET_MAX_ATTEMPTS},
    {"s3.addressing_style", S3_SET_ADDRESSING_STYLE},
    {"services", S3_SET_SERVICES},
    {"role_arn", S3_SET_ROLE_ARN},
    {"source_profile", S3_SET_SOURCE_PROFILE},
    {"credential_source", S3_SET_CREDENTIAL_SOURCE},
    {"external_id", S3_SET_EXTERNAL_ID},
    {"duration_seconds", S3_SET_DURATION},
    {"role_session_name", S3_SET_SESSION_NAME},
    {"mfa_serial", S3_SET_MFA_SERIAL},
    {"web_identity_token_file", S3_SET_WEB_TOKEN_FILE},
    {"sts_regional_endpoints", S3_SET_STS_REGIONAL},
    {"credential_process", S3_SET_CREDENTIAL_PROCESS},
    {"sso_session", S3_SET_SSO_SESSION},
    {"sso_start_url", S3_SET_SSO_START_URL},
    {"sso_region", S3_SET_SSO_REGION},
    {"sso_account_id", S3_SET_SSO_ACCOUNT},
    {"sso_role_name", S3_SET_SSO_ROLE},
    {"ec2_metadata_service_endpoint", S3_SET_IMDS_ENDPOINT},
    {"ec2_metadata_service_endpoint_mode", S3_SET_IMDS_MODE},
    {"metadata_service_timeout", S3_SET_IMDS_TIMEOUT},
    {"metadata_service_num_attempts", S3_SET_IMDS_ATTEMPTS},
};

/* In a [services NAME] section. */
static const struct profile_key profile_service_keys[] = {
    {"s3.endpoint_url", S3_SET_ENDPOINT_S3},
    {"sts.endpoint_url", S3_SET_ENDPOINT_STS},
    {"sso.endpoint_url", S3_SET_ENDPOINT_SSO},
    {"sso_oidc.endpoint_url", S3_SET_ENDPOINT_OIDC},
};

/* In a [sso-session NAME] section. */
static const struct profile_key profile_sso_keys[] = {
    {"sso_start_url", S3_SET_SSO_START_URL},
    {"sso_region", S3_SET_SSO_REGION},
};

struct profile_reader {
    const char *name;
    bool config;
    struct s3_profile *p;
};

/* "profile NAME" -> "NAME" */
static const char *profile_after(const char *section, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(section, word, n) != 0 || !ini_blank(section[n]))
        return NULL;
    section += n;
    while (ini_blank(*section))
        section++;
    return section;
}

static bool profile_is(const struct profile_reader *r, const char *section)
{
    const char *after = r->config ? profile_after(section, "profile") : NULL;
    if (after)
        return strcmp(after, r->name) == 0;
    return strcmp(section, r->name) == 0 && (!r->config || strcmp(section, "default") == 0);
}

static int profile_set(struct s3_profile *p, enum s3_setting s, const char *value)
{
    if (p->v[s] || !value[0])
        return 0;
    p->v[s] = strdup(value);
    return p->v[s] ? 0 : -ENOMEM;
}

static int profile_setting(void *arg, const char *section, const char *key, const char *value)
{
    struct profile_reader *r = arg;
    if (!profile_is(r, section))
        return 0;
    r->p->found = true;
    for (size_t i = 0; key && i < ZC_ARRAY_SIZE(profile_keys); i++)
        if (strcmp(profile_keys[i].key, key) == 0)
            return profile_set(r->p, profile_keys[i].setting, value);
    return 0;
}

/* A section that the profile names. */
struct profile_other {
    const char *kind, *name; /* [KIND NAME] */
    const struct profile_key *keys;
    size_t n;
    struct s3_profile *p;
};

static int profile_other_setting(void *arg, const char *section, const char *key, const char *value)
{
    struct profile_other *o = arg;
    const char *name = profile_after(section, o->kind);
    if (!name || strcmp(name, o->name) != 0)
        return 0;
    for (size_t i = 0; key && i < o->n; i++)
        if (strcmp(o->keys[i].key, key) == 0)
            return profile_set(o->p, o->keys[i].setting, value);
    return 0;
}

static int profile_others(const struct zc_buf *text, struct s3_profile *p)
{
    struct profile_other o = {.kind = "services",
                              .name = p->v[S3_SET_SERVICES],
                              .keys = profile_service_keys,
                              .n = ZC_ARRAY_SIZE(profile_service_keys),
                              .p = p};
    int r = o.name ? s3_ini_parse(text->p, text->len, profile_other_setting, &o) : 0;
    o = (struct profile_other){.kind = "sso-session",
                               .name = p->v[S3_SET_SSO_SESSION],
                               .keys = profile_sso_keys,
                               .n = ZC_ARRAY_SIZE(profile_sso_keys),
                               .p = p};
    return r == 0 && o.name ? s3_ini_parse(text->p, text->len, profile_other_setting, &o) : r;
}

static int profile_load(const char *path, struct zc_buf *text, struct zc_error *err)
{
    zc_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (fd < 0)
        return zc_error_set(err, -errno, "%s cannot be read: %s", path, strerror(errno));
    text->max = PROFILE_FILE_MAX;
    for (;;) {
        if (zc_buf_reserve(text, 4096) < 0)
            return zc_error_set(err, -EFBIG, "%s is too long for a file of AWS profiles", path);
        ssize_t n = read(fd, text->p + text->len, 4096);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return zc_error_set(err, -errno, "%s cannot be read: %s", path, strerror(errno));
        if (n == 0)
            return 0;
        text->len += (size_t)n;
    }
}

int s3_profile_read(const char *path, bool config, const char *name, struct s3_profile *p,
                    struct zc_error *err)
{
    struct profile_reader r = {.name = name, .config = config, .p = p};
    zc_autobuf struct zc_buf text = {0};
    int e = profile_load(path, &text, err);
    if (e < 0 || text.len == 0)
        return e;
    e = s3_ini_parse(text.p, text.len, profile_setting, &r);
    if (e == 0 && config)
        e = profile_others(&text, p);
    return e < 0 ? zc_error_set(err, e, "%s: %s", path, strerror(-e)) : 0;
}

int s3_profile_read_both(const char *name, struct s3_profile *p, struct zc_error *err)
{
    zc_autofree char *credentials = s3_profile_credentials_path(),
                     *config = s3_profile_config_path();
    if (!credentials || !config)
        return zc_error_set(err, -ENOMEM, "out of memory");
    int r = s3_profile_read(credentials, false, name, p, err);
    return r < 0 ? r : s3_profile_read(config, true, name, p, err);
}

void s3_profile_free(struct s3_profile *p)
{
    for (int i = 0; i < S3_SETTINGS; i++) {
        if (p->v[i] && (i == S3_SET_SECRET || i == S3_SET_TOKEN))
            OPENSSL_cleanse(p->v[i], strlen(p->v[i]));
        free(p->v[i]);
    }
    *p = (struct s3_profile){0};
}
