/* SPDX-License-Identifier: Apache-2.0 */
/* Profiles, credentials, and renewing them. */
#include "backend/s3_cred.h"
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
    s3_creds_renew(c, old, on_renewed, &r);
    wait_for(&r.calls);
    assert_false(r.newer); /* nothing has changed */
    put(f->credentials, "[default]\naws_access_key_id = NEWER\naws_secret_access_key = s\n");
    r.calls = 0;
    s3_creds_renew(c, old, on_renewed, &r);
    wait_for(&r.calls);
    assert_true(r.newer);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "NEWER");
    assert_string_equal(old->id, "OLD"); /* still whole for who signs with it */
    s3_keys_unref(k);
    /* Somebody else has renewed them since: no need to look at the files. */
    r.calls = r.newer = 0;
    s3_creds_renew(c, old, on_renewed, &r);
    assert_true(r.calls == 1 && r.newer);
    s3_keys_unref(old);
    s3_creds_free(c);
}

/* A provider whose keys expire. */
struct short_lived {
    struct s3_provider p;
    _Atomic int loads;
    _Atomic int64_t life_ns;
    _Atomic bool fail;
};

static int short_load(struct s3_provider *p, struct s3_keys **out, struct zc_error *why)
{
    struct short_lived *s = zc_container_of(p, struct short_lived, p);
    char id[20];
    usleep(20000);
    if (s->fail)
        return zc_error_set(why, -EACCES, "no more");
    snprintf(id, sizeof(id), "ID%d", (int)s->loads++);
    *out = s3_keys_new(id, "s", "t", zc_wall_ns() + s->life_ns, "test");
    return 0;
}

static void short_free(struct s3_provider *p)
{
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
        s3_creds_renew(c, old, on_renewed, &r[i]);
    for (int i = 0; i < 5; i++) {
        wait_for(&r[i].calls);
        assert_true(r[i].newer);
    }
    assert_int_equal(s.loads, 2);
    struct s3_keys *k = s3_creds_get(c);
    assert_string_equal(k->id, "ID1");
    s.fail = true;
    r[0].calls = 0;
    s3_creds_renew(c, k, on_renewed, &r[0]);
    wait_for(&r[0].calls);
    assert_false(r[0].newer);
    s3_keys_unref(old);
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
        cmocka_unit_test(keys_that_end_soon_are_renewed_ahead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
