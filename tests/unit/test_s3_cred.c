/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles, credentials, and renewing them. */
#include "backend/s3_cred_priv.h"
#include "backend/s3_profile.h"

#include "unit.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct fixture {
    char dir[64], credentials[80], config[80];
};

static int setup(void **state)
{
    static const char *const vars[] = {
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_ROLE_ARN",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_ENDPOINT_URL",
        "AWS_ENDPOINT_URL_STS",
    };
    struct fixture *f = calloc(1, sizeof(*f));
    for (size_t i = 0; i < ZC_ARRAY_SIZE(vars); i++)
        unsetenv(vars[i]);
    strcpy(f->dir, "/tmp/zcache-cred-XXXXXX");
    if (!mkdtemp(f->dir))
        return -1;
    snprintf(f->credentials, sizeof(f->credentials), "%s/credentials", f->dir);
    snprintf(f->config, sizeof(f->config), "%s/config", f->dir);
    setenv("AWS_SHARED_CREDENTIALS_FILE", f->credentials, 1);
    setenv("AWS_CONFIG_FILE", f->config, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    unlink(f->credentials);
    unlink(f->config);
    rmdir(f->dir);
    free(f);
    return 0;
}

static void put(const char *path, const char *text)
{
    zc_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

/* ---- the format ---- */

static int collect(void *arg, const char *section, const char *key, const char *value)
{
    char *out = arg;
    size_t n = strlen(out);
    snprintf(out + n, 4000 - n, "%s|%s|%s\n", section, key ? key : "-", value ? value : "-");
    return 0;
}

static void format(void **state)
{
    static const char text[] = "stray = 1\n"
                               "# comment\n"
                               "[default]\r\n"
                               "Region = eu-west-1 # where\r\n"
                               "secret = a#b;c/+=x\n"
                               "s3 =\n"
                               "  addressing_style = path\n"
                               "\tmax_concurrent_requests=20 ; many\n"
                               "output = json\n"
                               "  nested = no\n"
                               "no equals sign\n"
                               "[ profile  two words ]\n"
                               "empty =\n"
                               "= novalue\n"
                               "[broken\n"
                               "ignored = 1\n"
                               "[last]\n"
                               "x=y";
    char out[4000] = "";
    assert_int_equal(s3_ini_parse(text, strlen(text), collect, out), 0);
    assert_string_equal(out, "default|-|-\n"
                             "default|region|eu-west-1\n"
                             "default|secret|a#b;c/+=x\n"
                             "default|s3|\n"
                             "default|s3.addressing_style|path\n"
                             "default|s3.max_concurrent_requests|20\n"
                             "default|output|json\n"
                             "profile  two words|-|-\n"
                             "profile  two words|empty|\n"
                             "last|-|-\n"
                             "last|x|y\n");
}

static void profiles(void **state)
{
    struct fixture *f = *state;
    struct s3_profile p = {0};
    put(f->config, "[default]\nregion = r0\n[profile a]\nregion = r1\nservices = "
                   "local\nendpoint_url = http://all\n"
                   "s3 =\n  addressing_style = virtual\nmax_attempts = 7\nca_bundle = /x\n"
                   "[a]\nregion = not this\n"
                   "[services local]\ns3 =\n  endpoint_url = http://s3.local\ndynamodb =\n  "
                   "endpoint_url = http://no\n"
                   "[services other]\ns3 =\n  endpoint_url = http://no\n");
    assert_int_equal(s3_profile_read(f->config, true, "a", &p, NULL), 0);
    assert_true(p.found);
    assert_string_equal(p.v[S3_SET_REGION], "r1");
    assert_string_equal(p.v[S3_SET_ENDPOINT_S3], "http://s3.local");
    assert_string_equal(p.v[S3_SET_ENDPOINT], "http://all");
    assert_string_equal(p.v[S3_SET_ADDRESSING_STYLE], "virtual");
    assert_string_equal(p.v[S3_SET_MAX_ATTEMPTS], "7");
    assert_string_equal(p.v[S3_SET_CA_BUNDLE], "/x");
    s3_profile_free(&p);
    assert_int_equal(s3_profile_read(f->config, true, "default", &p, NULL), 0);
    assert_string_equal(p.v[S3_SET_REGION], "r0");
    s3_profile_free(&p);
    assert_int_equal(s3_profile_read(f->config, true, "none", &p, NULL), 0);
    assert_false(p.found);
    assert_int_equal(s3_profile_read("/nonexistent/file", true, "a", &p, NULL), 0);
    assert_false(p.found);
    struct zc_error err = {0};
    assert_int_equal(s3_profile_read(f->dir, true, "a", &p, &err), -EISDIR);
    assert_non_null(strstr(err.text, f->dir));
}

/* ---- providers ---- */

static int load(const char *profile, bool explicit, struct s3_creds **out, struct zc_error *err)
{
    struct s3_chain_config cfg = {.profile = profile, .explicit = explicit};
    struct s3_provider *list[S3_CHAIN_MAX];
    int n = s3_chain_new(&cfg, list);
    assert_int_equal(n, explicit ? S3_CHAIN_MAX - 1 : S3_CHAIN_MAX);
    assert_int_equal(s3_creds_new(list, (size_t)n, out), 0);
    return s3_creds_load(*out, err);
}

static void environment_first(void **state)
{
    struct fixture *f = *state;
    struct s3_creds *c;
    put(f->credentials, "[default]\naws_access_key_id = FILE\naws_secret_access_key = s\n");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "s", 1);
    setenv("AWS_SESSION_TOKEN", "t", 1);
    assert_int_equal(load("default", false, &c, NULL), 0);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "ENV");
    assert_string_equal(k->token, "t");
    s3_keys_unref(k);
    s3_creds_free(c);
    /* Half of a pair is an error, not a reason to look elsewhere. */
    struct zc_error err = {0};
    unsetenv("AWS_SECRET_ACCESS_KEY");
    assert_int_equal(load("default", false, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "AWS_SECRET_ACCESS_KEY"));
    s3_creds_free(c);
}

static void files_then(void **state)
{
    struct fixture *f = *state;
    struct s3_creds *c;
    zc_autofree char *token = malloc(3000), *text = NULL;
    memset(token, 'T', 2999);
    token[2999] = '\0';
    assert_true(
        asprintf(
            &text,
            "[p]\naws_access_key_id = FILE\naws_secret_access_key = s\naws_session_token = %s\n",
            token) > 0);
    put(f->credentials, text);
    assert_int_equal(load("p", true, &c, NULL), 0);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "FILE");
    assert_string_equal(k->token, token); /* longer than the lines of most INI readers */
    assert_non_null(strstr(k->source, "profile 'p'"));
    s3_keys_unref(k);
    s3_creds_free(c);
    /* Keys in the config file count too. */
    unlink(f->credentials);
    put(f->config, "[profile p]\naws_access_key_id = CONFIG\naws_secret_access_key = s\n");
    assert_int_equal(load("p", true, &c, NULL), 0);
    k = s3_creds_get(c);
    assert_string_equal(k->id, "CONFIG");
    s3_keys_unref(k);
    s3_creds_free(c);
}

static void words_for_what_is_missing(void **state)
{
    struct fixture *f = *state;
    struct s3_creds *c;
    struct zc_error err = {0};
    assert_int_equal(load("default", false, &c, &err), -EACCES);
    assert_non_null(strstr(err.text, "AWS_ACCESS_KEY_ID is not set"));
    assert_non_null(strstr(err.text, f->credentials));
    assert_non_null(strstr(err.text, "--no-sign-request"));
    s3_creds_free(c);
    assert_int_equal(load("prod", true, &c, &err), -EACCES);
    assert_non_null(strstr(err.text, "no profile 'prod'"));
    s3_creds_free(c);
    put(f->config, "[profile prod]\nrole_arn = arn:aws:iam::1:role/x\n");
    assert_int_equal(load("prod", true, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "neither source_profile nor credential_source"));
    s3_creds_free(c);
    put(f->credentials, "[prod]\naws_access_key_id = A\n");
    put(f->config, "");
    assert_int_equal(load("prod", true, &c, &err), -EACCES);
    assert_non_null(strstr(err.text, "no aws_secret_access_key"));
    s3_creds_free(c);
}

/* ---- renewing ---- */

struct renewed {
    _Atomic int calls, newer;
};

static void on_renewed(void *arg, bool newer)
{
    struct renewed *r = arg;
    r->newer = newer;
    r->calls++;
}

static void wait_for(const _Atomic int *n)
{
    while (!*n)
        usleep(1000);
}

static void changed_files_are_read_again(void **state)
{
    struct fixture *f = *state;
    struct s3_creds *c;
    struct renewed r = {0};
    put(f->credentials, "[default]\naws_access_key_id = OLD\naws_secret_access_key = s\n");
    assert_int_equal(load("default", false, &c, NULL), 0);
    struct s3_keys *old = s3_creds_get(c);
    s3_creds_renew(c, old, INT64_MAX, on_renewed, &r);
    wait_for(&r.calls);
    assert_false(r.newer); /* nothing has changed */
    put(f->credentials, "[default]\naws_access_key_id = NEWER\naws_secret_access_key = s\n");
    r.calls = 0;
    s3_creds_renew(c, old, INT64_MAX, on_renewed, &r);
    wait_for(&r.calls);
    assert_true(r.newer);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "NEWER");
    assert_string_equal(old->id, "OLD"); /* still whole for who signs with it */
    s3_keys_unref(k);
    /* Somebody else has renewed them since: no need to look at the files. */
    r.calls = r.newer = 0;
    s3_creds_renew(c, old, INT64_MAX, on_renewed, &r);
    assert_true(r.calls == 1 && r.newer);
    s3_keys_unref(old);
    s3_creds_free(c);
}

/* A provider whose keys expire. */
struct short_lived {
    struct s3_provider p;
    _Atomic int loads;
    _Atomic int64_t life_ns;
    _Atomic bool fail, hold;
};

static int short_load(struct s3_provider *p, struct s3_keys **out, struct zc_error *why)
{
    struct short_lived *s = zc_container_of(p, struct short_lived, p);
    char id[20];
    do
        usleep(20000);
    while (s->hold);
    if (s->fail)
        return zc_error_set(why, -EACCES, "no more");
    snprintf(id, sizeof(id), "ID%d", (int)s->loads++);
    *out = s3_keys_new(id, "s", "t", zc_wall_ns() + s->life_ns, "test");
    return 0;
}

static void short_free(struct s3_provider *p)
{
}

static void who_waits_does_not_wait_for_ever(void **state)
{
    struct short_lived s = {.p = {.name = "short", .load = short_load, .free = short_free},
                            .life_ns = ZC_NS_PER_S};
    struct s3_provider *list[] = {&s.p};
    struct s3_creds *c;
    struct renewed r[3] = {0};
    assert_int_equal(s3_creds_new(list, 1, &c), 0);
    assert_int_equal(s3_creds_load(c, NULL), 0);
    s.hold = true;
    struct s3_keys *old = s3_creds_get(c);
    int64_t now = zc_now_ns();
    s3_creds_renew(c, old, INT64_MAX, on_renewed, &r[0]);
    s3_creds_renew(c, old, now + 60 * ZC_NS_PER_MS, on_renewed, &r[1]);
    s3_creds_renew(c, old, now + 30 * ZC_NS_PER_MS, on_renewed, &r[2]);
    for (int i = 1; i < 3; i++) {
        wait_for(&r[i].calls);
        assert_false(r[i].newer);
    }
    assert_true(zc_now_ns() >= now + 60 * ZC_NS_PER_MS);
    assert_int_equal(r[0].calls, 0);
    s.hold = false;
    wait_for(&r[0].calls);
    assert_true(r[0].newer);
    s3_keys_unref(old);
    s3_creds_free(c);
    assert_true(r[1].calls == 1 && r[2].calls == 1);
}

static void keys_that_end_soon_are_renewed_ahead(void **state)
{
    struct short_lived s = {.p = {.name = "short", .load = short_load, .free = short_free},
                            .life_ns = ZC_NS_PER_S};
    struct s3_provider *list[] = {&s.p};
    struct s3_creds *c;
    struct renewed r[5] = {0};
    assert_int_equal(s3_creds_new(list, 1, &c), 0);
    assert_int_equal(s3_creds_load(c, NULL), 0);
    s.life_ns = 3600 * ZC_NS_PER_S;
    struct s3_keys *old = s3_creds_get(c); /* ends in a second: starts the renewal */
    assert_string_equal(old->id, "ID0");
    for (int i = 0; i < 5; i++) /* all wait for the one that is under way */
        s3_creds_renew(c, old, INT64_MAX, on_renewed, &r[i]);
    for (int i = 0; i < 5; i++) {
        wait_for(&r[i].calls);
        assert_true(r[i].newer);
    }
    assert_int_equal(s.loads, 2);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "ID1");
    s.fail = true;
    r[0].calls = 0;
    s3_creds_renew(c, k, INT64_MAX, on_renewed, &r[0]);
    wait_for(&r[0].calls);
    assert_false(r[0].newer);
    s3_keys_unref(old);
    s3_keys_unref(k);
    s3_creds_free(c);
}

/* ---- decoders ---- */

static void json(enum s3_answer_kind kind, const char *text, const char *id, const char *token,
                 int64_t end_s, const char *words)
{
    struct s3_fields f = {0};
    struct zc_error why = {0};
    int r = s3_decode_json(kind, text, strlen(text), &f, &why);
    assert_int_equal(r, id ? 0 : -EBADMSG);
    if (!id) {
        assert_non_null(strstr(why.text, words));
        return;
    }
    assert_string_equal(f.id, id);
    assert_string_equal(f.token ? f.token : "none", token);
    assert_int_equal(f.expires_ns / ZC_NS_PER_S, end_s);
    s3_fields_free(&f);
}

static void json_answers(void **state)
{
    const int64_t end = 1795449600; /* 2026-11-23T16:00:00Z */
#define KEYS "\"AccessKeyId\":\"A\",\"SecretAccessKey\":\"s\""
#define END "\"Expiration\":\"2026-11-23T16:00:00Z\""
    json(S3_ANSWER_METADATA, "{\"Code\":\"Success\"," KEYS ",\"Token\":\"t\"," END "}", "A", "t",
         end, NULL);
    json(S3_ANSWER_METADATA, "{\"Code\":\"Failed\"," KEYS "}", NULL, NULL, 0, "Code is Failed");
    json(S3_ANSWER_METADATA, "{" KEYS ",\"Token\":\"t\"}", NULL, NULL, 0, "Expiration");
    json(S3_ANSWER_CONTAINER, "{" KEYS ",\"Token\":\"\"," END "}", "A", "none", end, NULL);
    json(S3_ANSWER_CONTAINER, "{\"AccessKeyId\":\"A\"," END "}", NULL, NULL, 0, "SecretAccessKey");
    json(S3_ANSWER_CONTAINER, "{\"AccessKeyId\":\"A b\",\"SecretAccessKey\":\"s\"," END "}", NULL,
         NULL, 0, "AccessKeyId");
    json(S3_ANSWER_CONTAINER, "{" KEYS ",\"Token\":\"a\\r\\nb\"," END "}", NULL, NULL, 0, "Token");
    json(S3_ANSWER_CONTAINER, "{\"AccessKeyId\":7," END "}", NULL, NULL, 0, "AccessKeyId");
    json(S3_ANSWER_CONTAINER, "[" KEYS "]", NULL, NULL, 0, "JSON");
    json(S3_ANSWER_CONTAINER, "", NULL, NULL, 0, "JSON");
    json(S3_ANSWER_PROCESS, "{\"Version\":1," KEYS "}", "A", "none", 0, NULL);
    json(S3_ANSWER_PROCESS, "{\"Version\":1," KEYS ",\"Expiration\":null}", "A", "none", 0, NULL);
    json(S3_ANSWER_PROCESS, "{\"Version\":1," KEYS ",\"Expiration\":\"2026-11-23T17:00:00+01:00\"}",
         "A", "none", end, NULL);
    json(S3_ANSWER_PROCESS, "{\"Version\":\"1\"," KEYS "}", NULL, NULL, 0, "Version");
    json(S3_ANSWER_PROCESS, "{" KEYS "}", NULL, NULL, 0, "Version");
    json(S3_ANSWER_PROCESS, "{\"Version\":1," KEYS ",\"Expiration\":\"soon\"}", NULL, NULL, 0,
         "not a time");
    json(S3_ANSWER_SSO,
         "{\"roleCredentials\":{\"accessKeyId\":\"A\",\"secretAccessKey\":\"s\",\"sessionToken\":"
         "\"t\",\"expiration\":1795449600000}}",
         "A", "t", end, NULL);
    json(S3_ANSWER_SSO, "{\"accessKeyId\":\"A\"}", NULL, NULL, 0, "JSON");
}

static void times(void **state)
{
    static const struct {
        const char *text;
        int64_t s; /* 0: none */
    } cases[] = {
        {"2026-11-23T16:00:00Z", 1795449600},
        {"2026-11-23T16:00:00UTC", 1795449600},
        {"2026-11-23T16:00:00.987654Z", 1795449600},
        {"2026-11-23T16:00:00+00:00", 1795449600},
        {"2026-11-23T10:30:00-05:30", 1795449600},
        {"2026-11-23T16:00:00", 0},
        {"2026-11-23 16:00:00Z", 0},
        {"2026-11-23T16:00:00+99:00", 0},
        {"", 0},
        {"2026-11-23T16:00:00Z and more that makes it too long to be a time of any kind", 0},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        int64_t ns = 0;
        assert_int_equal(s3_decode_time(cases[i].text, &ns), cases[i].s ? 0 : -EINVAL);
        assert_int_equal(ns / ZC_NS_PER_S, cases[i].s);
    }
}

static void sts_answers(void **state)
{
    struct s3_fields f = {0};
    struct zc_error why = {0};
    static const char good[] =
        "<?xml version=\"1.0\"?><AssumeRoleResponse xmlns=\"u\"><AssumeRoleResult>"
        "<AssumedRoleUser><AccessKeyId>not this</AccessKeyId></AssumedRoleUser><Credentials>"
        "<AccessKeyId>A</AccessKeyId><SecretAccessKey>s&#43;</SecretAccessKey>"
        "<SessionToken>t</SessionToken><Expiration>2026-11-23T16:00:00Z</Expiration>"
        "</Credentials></AssumeRoleResult><Credentials><AccessKeyId>nor this</AccessKeyId>"
        "</Credentials></AssumeRoleResponse>";
    assert_int_equal(s3_decode_sts(good, strlen(good), &f, &why), 0);
    assert_string_equal(f.id, "A");
    assert_string_equal(f.secret, "s+");
    assert_string_equal(f.token, "t");
    s3_fields_free(&f);
    for (size_t n = 0; n + 1 < sizeof(good); n++) /* cut short anywhere */
        assert_int_equal(s3_decode_sts(good, n, &f, &why), -EBADMSG);
    static const char *const bad[] = {
        "<a><bResult><Credentials><AccessKeyId>A</AccessKeyId><AccessKeyId>B</AccessKeyId>"
        "</Credentials></bResult></a>",
        "<!DOCTYPE a><a/>",
        "{}",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(s3_decode_sts(bad[i], strlen(bad[i]), &f, &why), -EBADMSG);
}

static void sso_cache(void **state)
{
    struct s3_sso_token t;
    struct zc_error why = {0};
    static const char whole[] =
        "{\"accessToken\":\"a\",\"expiresAt\":\"2026-11-23T16:00:00UTC\",\"clientId\":\"c\","
        "\"clientSecret\":\"s\",\"refreshToken\":\"r\",\"registrationExpiresAt\":"
        "\"2026-11-23T16:00:00Z\"}";
    static const char half[] = "{\"accessToken\":\"a\",\"expiresAt\":\"2026-11-23T16:00:00Z\","
                               "\"clientId\":\"c\",\"refreshToken\":\"r\"}";
    assert_int_equal(s3_decode_sso_file(whole, strlen(whole), &t, &why), 0);
    assert_string_equal(t.refresh, "r");
    assert_int_equal(t.registration_ns, t.expires_ns);
    s3_sso_token_free(&t);
    assert_int_equal(s3_decode_sso_file(half, strlen(half), &t, &why), 0);
    assert_null(t.refresh); /* without the secret it is of no use */
    s3_sso_token_free(&t);
    assert_int_equal(s3_decode_sso_file("{}", 2, &t, &why), -EBADMSG);
}

static void words_of_a_command(void **state)
{
    static const struct {
        const char *line, *words; /* joined by '|'; NULL: refused */
    } cases[] = {
        {"a b\tc\n", "a|b|c"},
        {"'two words' \"and \\\"more\\\"\" x\\ y", "two words|and \"more\"|x y"},
        {"a'b'\"c\"d", "abcd"},
        {"a '' b", "a||b"},
        {"p \"\\n$HOME\" `z` $(y) * ; &", "p|\\n$HOME|`z`|$(y)|*|;|&"},
        {"'open", NULL},
        {"\"open", NULL},
        {"end\\", NULL},
        {"", NULL},
        {"   ", NULL},
        {"''", NULL},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        char **argv = NULL, joined[200] = "";
        int r = s3_process_split(cases[i].line, &argv);
        assert_int_equal(r, cases[i].words ? 0 : -EINVAL);
        for (char **a = argv; r == 0 && *a; a++)
            snprintf(joined + strlen(joined), sizeof(joined) - strlen(joined), "%s%s",
                     a == argv ? "" : "|", *a);
        if (r == 0)
            assert_string_equal(joined, cases[i].words);
        s3_process_split_free(r == 0 ? argv : NULL);
    }
}

static void where_a_container_may_be_asked(void **state)
{
    static const struct {
        const char *url;
        bool ok;
    } cases[] = {
        {"http://127.0.0.1:80/x", true},
        {"http://127.9.8.7/x", true},
        {"http://localhost/x", true},
        {"http://[::1]:8080/x", true},
        {"http://169.254.170.2/x", true},
        {"http://169.254.170.23/v1", true},
        {"http://[fd00:ec2::23]/v1", true},
        {"http://[fd00:ec2:0::23]/v1", true},
        {"https://any.example/x", true},
        {"http://any.example/x", false},
        {"http://169.254.169.254/x", false},
        {"http://128.0.0.1/x", false},
        {"http://localhost.example", false},
        {"http://127.0.0.1@evil/x", false},
        {"http://evil\\@127.0.0.1/x", false},
        {"http://127.0.0.1 /x", false},
        {"ftp://127.0.0.1/", false},
        {"http://", false},
        {"http://[::1", false},
        {"http://[::1]x/", false},
        {"http://[::1/::1]/", false},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++)
        assert_int_equal(s3_container_url_ok(cases[i].url), cases[i].ok);
}

/* ---- roles that lead to others ---- */

static void circles_are_refused(void **state)
{
    struct fixture *f = *state;
    struct s3_creds *c;
    struct zc_error err = {0};
    put(f->config, "[profile a]\nrole_arn = r\nsource_profile = b\n"
                   "[profile b]\nrole_arn = r\nsource_profile = c\n"
                   "[profile c]\nrole_arn = r\nsource_profile = a\n");
    assert_int_equal(load("a", true, &c, &err), -EINVAL);
    assert_non_null(strstr(err.text, "circle: a <- c <- b <- a"));
    s3_creds_free(c);
}

/* ---- who waits ---- */

static void a_failure_is_told_and_not_repeated_at_once(void **state)
{
    struct short_lived s = {.p = {.name = "short", .load = short_load, .free = short_free},
                            .life_ns = ZC_NS_PER_S / 10};
    struct s3_provider *list[] = {&s.p};
    struct s3_creds *c;
    struct renewed r = {0};
    struct zc_error why = {0};
    assert_int_equal(s3_creds_new(list, 1, &c), 0);
    assert_int_equal(s3_creds_load(c, NULL), 0);
    struct s3_keys *k = s3_creds_get(c);
    usleep(120000);
    assert_true(s3_keys_expired(k));
    s.fail = true;
    s3_creds_renew(c, k, INT64_MAX, on_renewed, &r);
    wait_for(&r.calls);
    assert_false(r.newer);
    s3_creds_why(c, &why);
    assert_int_equal(why.code, -EACCES);
    assert_string_equal(why.text, "no more");
    r.calls = 0;
    s3_creds_renew(c, k, INT64_MAX, on_renewed, &r); /* too soon */
    assert_int_equal(r.calls, 1);
    assert_int_equal(s.loads, 1);
    s.fail = false;
    s.life_ns = 3600 * ZC_NS_PER_S;
    for (int i = 0; i < 100 && !r.newer; i++) {
        usleep(20000);
        r.calls = 0;
        s3_creds_renew(c, k, INT64_MAX, on_renewed, &r);
        wait_for(&r.calls);
    }
    assert_true(r.newer);
    s3_creds_why(c, &why);
    assert_int_equal(why.code, 0);
    s3_keys_unref(k);
    s3_creds_free(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format),
        cmocka_unit_test_setup_teardown(profiles, setup, teardown),
        cmocka_unit_test_setup_teardown(environment_first, setup, teardown),
        cmocka_unit_test_setup_teardown(files_then, setup, teardown),
        cmocka_unit_test_setup_teardown(words_for_what_is_missing, setup, teardown),
        cmocka_unit_test_setup_teardown(changed_files_are_read_again, setup, teardown),
        cmocka_unit_test(who_waits_does_not_wait_for_ever),
        cmocka_unit_test(keys_that_end_soon_are_renewed_ahead),
        cmocka_unit_test(json_answers),
        cmocka_unit_test(times),
        cmocka_unit_test(sts_answers),
        cmocka_unit_test(sso_cache),
        cmocka_unit_test(words_of_a_command),
        cmocka_unit_test(where_a_container_may_be_asked),
        cmocka_unit_test_setup_teardown(circles_are_refused, setup, teardown),
        cmocka_unit_test(a_failure_is_told_and_not_repeated_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
