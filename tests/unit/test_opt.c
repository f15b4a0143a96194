/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "cli/clusteropts.h"
#include "cli/mountopts.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

struct parsed {
    struct zc_mount_opts o;
    struct zc_opt_args args;
    struct zc_error err;
    int r;
};

static void parse(struct parsed *p, const char *const *words)
{
    char *argv[32] = {"mount"};
    int argc = 1;
    memset(p, 0, sizeof(*p));
    zc_mount_opts_init(&p->o);
    for (; words[argc - 1]; argc++)
        argv[argc] = (char *)words[argc - 1];
    p->r = zc_opt_parse(zc_mount_table, true, argc, argv, &p->o, &p->args, &p->err);
}

#define PARSE(p, ...) parse(p, (const char *const[]){__VA_ARGS__, NULL})

/* Parses, expects a refusal with these words in it. */
#define REFUSED(want, ...)                                                                         \
    do {                                                                                           \
        struct parsed p_;                                                                          \
        PARSE(&p_, __VA_ARGS__);                                                                   \
        assert_int_equal(p_.r, -EINVAL);                                                           \
        if (!strstr(p_.err.text, want))                                                            \
            fail_msg("'%s' has no '%s'", p_.err.text, want);                                       \
        zc_opt_args_free(&p_.args);                                                                \
    } while (0)

static void values_of_every_type(void **state)
{
    struct parsed p;
    PARSE(&p, "--region", "eu-west-1", "--endpoint-url=http://127.0.0.1:9000", "-f", "--cache-size",
          "1.5GiB", "--read-timeout=5m", "--metadata-ttl", "10", "--free-space-ratio", "5%",
          "--uid", "0", "--file-mode", "0640", "--passthrough", "off", "--max-threads", "4",
          "s3://b", "/mnt");
    assert_int_equal(p.r, 0);
    assert_string_equal(p.o.region, "eu-west-1");
    assert_string_equal(p.o.endpoint_url, "http://127.0.0.1:9000");
    assert_true(p.o.foreground);
    assert_int_equal(p.o.cache_size, 3 * ZC_GIB / 2);
    assert_int_equal(p.o.read_timeout, 300 * ZC_NS_PER_S);
    assert_int_equal(p.o.metadata_ttl, 10 * ZC_NS_PER_S);
    assert_true(p.o.free_space_ratio > 0.049 && p.o.free_space_ratio < 0.051);
    assert_int_equal(p.o.uid, 0);
    assert_int_equal(p.o.gid, ZC_ID_UNSET);
    assert_int_equal(p.o.file_mode, 0640);
    assert_int_equal(p.o.passthrough, 1);
    assert_int_equal(p.o.max_threads, 4);
    assert_int_equal(p.args.n_pos, 2);
    assert_string_equal(p.args.pos[0], "s3://b");
    assert_true(zc_opt_given(zc_mount_table, &p.args, "uid"));
    assert_false(zc_opt_given(zc_mount_table, &p.args, "gid"));
    zc_opt_args_free(&p.args);
}

static void ttl_words(void **state)
{
    static const struct {
        const char *word;
        int64_t ns;
    } cases[] = {{"indefinite", INT64_MAX},
                 {"minimal", 0},
                 {"0", 0},
                 {"60", 60 * ZC_NS_PER_S},
                 {"250ms", 250 * ZC_NS_PER_MS}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct parsed p;
        PARSE(&p, "--metadata-ttl", cases[i].word);
        assert_int_equal(p.r, 0);
        assert_true(p.o.metadata_ttl == cases[i].ns);
        zc_opt_args_free(&p.args);
    }
    REFUSED("seconds", "--metadata-ttl", "soon");
    REFUSED("out of range", "--metadata-ttl", "99999999999999");
}

static void two_dashes_end_the_options(void **state)
{
    struct parsed p;
    PARSE(&p, "--", "--region", "-f");
    assert_int_equal(p.r, 0);
    assert_int_equal(p.args.n_pos, 2);
    assert_false(p.o.foreground);
    zc_opt_args_free(&p.args);
}

static void wrong_words_are_refused(void **state)
{
    REFUSED("unknown option '--cachedir'; did you mean '--cache-dir'?", "--cachedir", "/x");
    REFUSED("unknown option '--xyzzy'", "--xyzzy");
    REFUSED("unknown option '-z'", "-z");
    REFUSED("--cache-siz'", "--cache-siz", "1GiB"); /* no abbreviations */
    REFUSED("needs a value", "--region");
    REFUSED("takes no value", "--foreground=yes");
    REFUSED("not empty", "--region", "");
    REFUSED("size with a unit", "--cache-size", "100");
    REFUSED("size with a unit", "--cache-size", "-1GiB");
    REFUSED("too small", "--memory-target", "1MiB");
    REFUSED("too large", "--chunk-size", "1GiB");
    REFUSED("time with a unit", "--read-timeout", "60");
    REFUSED("whole number", "--max-threads", "four");
    REFUSED("too small", "--max-threads", "0");
    REFUSED("octal", "--file-mode", "rw-r--r--");
    REFUSED("octal", "--file-mode", "0888");
    REFUSED("out of range", "--file-mode", "1777");
    REFUSED("number of a user", "--uid", "root");
    REFUSED("one of auto|off", "--passthrough", "on");
    REFUSED("share", "--free-space-ratio", "a lot");
}

static void mount_strings(void **state)
{
    struct parsed p;
    PARSE(
        &p, "-o",
        "ro,_netdev,noauto,nofail,defaults,x-systemd.requires=a,allow_other,cache_size=2GiB,uid=7,"
        "profile=a\\,b\\\\c,,region=r",
        "-oforce-path-style");
    assert_int_equal(p.r, 0);
    assert_true(p.o.allow_other);
    assert_true(p.o.force_path_style);
    assert_int_equal(p.o.cache_size, 2 * ZC_GIB);
    assert_int_equal(p.o.uid, 7);
    assert_string_equal(p.o.profile, "a,b\\c");
    assert_string_equal(p.o.region, "r");
    assert_false(p.args.rw);
    zc_opt_args_free(&p.args);

    PARSE(&p, "-o", "rw");
    assert_int_equal(p.r, 0);
    assert_true(p.args.rw);
    zc_opt_args_free(&p.args);

    PARSE(&p, "-o", "noexec");
    assert_true(p.r == 0 && p.args.noexec);
    zc_opt_args_free(&p.args);
    PARSE(&p, "-o", "noexec,nosuid,nodev,exec");
    assert_true(p.r == 0 && !p.args.noexec);
    zc_opt_args_free(&p.args);

    REFUSED("unknown option '-o bogus'", "-o", "ro,bogus=1");
    REFUSED("-o cache-sise'; did you mean '-o cache-size'?", "-o", "cache-sise=1");
    REFUSED("needs a value", "-o", "cache-size");
    REFUSED("takes no value", "-o", "allow-other=1");
    REFUSED("cannot be given with -o", "-o", "foreground");
    REFUSED("device files", "-o", "dev");
    REFUSED("while it is mounted", "-o", "remount");
    REFUSED("-o needs a value", "-o");
}

static void sloppy_passes_over_what_is_not_known(void **state)
{
    struct zc_mount_opts o;
    struct zc_opt_args args = {0};
    struct zc_error err = {0};
    zc_mount_opts_init(&o);
    assert_int_equal(zc_opt_parse_o(zc_mount_table, "bogus,suid,keep-cache", true, &o, &args, &err),
                     0);
    assert_true(o.keep_cache);
    assert_int_equal(zc_opt_parse_o(zc_mount_table, "cache-size=much", true, &o, &args, &err),
                     -EINVAL);
    zc_opt_args_free(&args);
}

static int finish(const char *source, uid_t euid, struct parsed *p)
{
    struct zc_source src = {0};
    assert_int_equal(p->r, 0);
    assert_int_equal(zc_source_parse(source, &src, &p->err), 0);
    int r = zc_source_opts_finish(&p->o, p->args.given, &src, &p->err);
    if (r == 0)
        r = zc_mount_opts_finish(&p->o, p->args.given, euid, &p->err);
    zc_source_free(&src);
    zc_opt_args_free(&p->args);
    return r;
}

#define DEAD(source, want, ...)                                                                    \
    do {                                                                                           \
        struct parsed p_;                                                                          \
        PARSE(&p_, __VA_ARGS__);                                                                   \
        assert_int_equal(finish(source, 1000, &p_), -EINVAL);                                      \
        if (!strstr(p_.err.text, want))                                                            \
            fail_msg("'%s' has no '%s'", p_.err.text, want);                                       \
    } while (0)

static void dead_options_are_refused(void **state)
{
    DEAD("file:///d", "--region has no effect on a file:// source", "--region", "x");
    DEAD("file:///d", "--no-sign-request", "-o", "no_sign_request");
    DEAD("s3://bucket", "--profile", "--no-sign-request", "--profile", "p");
    DEAD("s3://bucket", "--requester-pays", "--no-sign-request", "--requester-pays");
    DEAD("s3://bucket", "--ca-bundle", "--no-verify-ssl", "--ca-bundle", "x");
    DEAD("s3://bucket", "does not use TLS", "--endpoint-url", "http://h", "--no-verify-ssl");
    DEAD("s3://bucket", "http:// or https://", "--endpoint-url", "h:9000");
    DEAD("s3://bucket", "--hdfs-user has no effect", "--hdfs-user", "me");
    DEAD("hdfs://ns/d", "--region has no effect", "--region", "x");
    DEAD("webhdfs://nn:9870", "does not use TLS", "--ca-bundle", "x");
    DEAD("hdfs://ns", "does not go with", "--hdfs-user", "me", "--hdfs-keytab", "k");
    DEAD("s3://bucket", "power of two", "--chunk-size", "3MiB");
    DEAD("s3://bucket", "smaller than one chunk", "--cache-size", "1MiB");
    DEAD("s3://bucket", "one folder only", "--cache-dir", "/a:/b");
    DEAD("s3://bucket", "only root", "--io-uring", "on");
    DEAD("s3://bucket", "--negative-metadata-ttl has no effect", "--metadata-ttl", "minimal",
         "--negative-metadata-ttl", "5");
    DEAD("s3://bucket", "no room", "--free-space-ratio", "1");
}

static void a_cluster_needs_a_key_and_addresses(void **state)
{
    struct parsed p;
#define NODE(want, ...) DEAD("file:///d", want, __VA_ARGS__)
    NODE("--node-name has no effect without --join", "--node-name", "a");
    NODE("--replicate has no effect without --join", "--replicate", "local");
    NODE("--drain-time has no effect without --join", "-o", "drain_time=5s");
    NODE("needs --cluster-key FILE", "--join", "a,b:7000");
    NODE("needs --cluster-key FILE", "--bind", "10.0.0.7");
    NODE("needs --cluster-key FILE", "--bind", "[::]:7946");
    NODE("--bind 'eth0' is not an address", "--bind", "eth0");
    NODE("--bind '127.0.0.1:0' is not", "--bind", "127.0.0.1:0");
    NODE("--bind '127.0.0.1:65536' is not", "--bind", "127.0.0.1:65536");
    NODE("--bind '[::1' is not", "--bind", "[::1");
    NODE("leaves no port", "--bind", "127.0.0.1:65535");
    NODE("is the port of --bind", "--bind", "127.0.0.1:7000", "--peer-port", "7000");
    NODE("--advertise 'me' is not an address", "--bind", "127.0.0.1", "--advertise", "me");
    NODE("nobody can reach", "--bind", "127.0.0.1", "--advertise", "0.0.0.0");
    NODE("--join 'b:x' is not HOST", "--bind", "127.0.0.1", "--join", "a,b:x,c");
    NODE("--join '' is not HOST", "--bind", "127.0.0.1", "--join", "a,");
    NODE("--join 'a b' is not HOST", "--bind", "127.0.0.1", "--join", "a b");
    NODE("--tls-key is missing", "--bind", "127.0.0.1", "--tls-cert", "c", "--tls-ca", "d");
    NODE("--tls-ca is missing", "--bind", "127.0.0.1", "--tls-cert", "c", "--tls-key", "d");
    NODE("--tls-cert is missing", "--bind", "127.0.0.1", "--tls-ca", "c");
    NODE("--node-name 'a b'", "--bind", "127.0.0.1", "--node-name", "a b");
#undef NODE
    PARSE(&p, "--join", "a,[fd00::1]:7000", "--cluster-key", "k", "--replicate", "owner-only");
    assert_int_equal(finish("file:///d", 0, &p), 0);
    assert_true(zc_cluster_wanted(&p.o));
    assert_int_equal(p.o.replicate, ZC_REPLICATE_OWNER_ONLY);
    assert_int_equal(p.o.drain_time, 10 * ZC_NS_PER_S);
    union zc_sockaddr a;
    char text[64];
    zc_cluster_bind(&p.o, &a);
    assert_string_equal(zc_sockaddr_text(&a, text, sizeof(text)), "0.0.0.0:7946");
    PARSE(&p, "--bind", "[::1]:7001");
    assert_int_equal(finish("file:///d", 0, &p), 0);
    zc_cluster_bind(&p.o, &a);
    assert_true(zc_sockaddr_is_loopback(&a) && !zc_sockaddr_is_any(&a));
    assert_string_equal(zc_sockaddr_text(&a, text, sizeof(text)), "[::1]:7001");
    PARSE(&p, "--region", "x");
    assert_false(zc_cluster_wanted(&p.o));
    zc_opt_args_free(&p.args);
}

static void a_list_of_hosts(void **state)
{
    static const struct {
        const char *host;
        uint16_t port;
    } want[] = {{"a", 7946}, {"10.0.0.1", 1}, {"fd00::1", 7946}, {"::1", 9}, {"", 7946}};
    const char *next = "a,10.0.0.1:1,fd00::1,[::1]:9,:7";
    for (size_t i = 0; i < ZC_ARRAY_SIZE(want); i++) {
        char host[256];
        uint16_t port;
        assert_non_null(next);
        next = zc_join_next(next, host, &port);
        assert_string_equal(host, want[i].host);
        assert_int_equal(port, want[i].port);
    }
    assert_null(next);
}

static void choices_become_toggles(void **state)
{
    struct parsed p;
    PARSE(&p, "--passthrough", "off", "--io-uring", "on");
    assert_int_equal(finish("s3://bucket", 0, &p), 0);
    assert_int_equal(p.o.passthrough, ZC_OFF);
    assert_int_equal(p.o.io_uring, ZC_ON);
    assert_true(p.o.memory_target >= 64 * ZC_MIB && p.o.memory_target <= 256 * ZC_MIB);
    PARSE(&p, "--io-uring", "off");
    assert_int_equal(finish("file:///d", 0, &p), 0);
    assert_int_equal(p.o.passthrough, ZC_AUTO);
    assert_int_equal(p.o.io_uring, ZC_OFF);
}

static void memory_follows_the_control_group(void **state)
{
    assert_int_equal(zc_memory_default(0), 256 * ZC_MIB);
    assert_int_equal(zc_memory_default(8 * ZC_GIB), 256 * ZC_MIB);
    assert_int_equal(zc_memory_default(300 * ZC_MIB), 150 * ZC_MIB);
    assert_int_equal(zc_memory_default(32 * ZC_MIB), 64 * ZC_MIB);
}

static void help_is_as_wide_as_a_terminal(void **state)
{
    zc_autobuf struct zc_buf b = {0};
    zc_opt_help(zc_mount_table, &b);
    for (const char *s = b.p; *s; s = strchr(s, '\n') + 1)
        assert_true(strcspn(s, "\n") <= 100);
    assert_non_null(strstr(b.p, "  -f, --foreground "));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_of_every_type),
        cmocka_unit_test(ttl_words),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(wrong_words_are_refused),
        cmocka_unit_test(mount_strings),
        cmocka_unit_test(sloppy_passes_over_what_is_not_known),
        cmocka_unit_test(dead_options_are_refused),
        cmocka_unit_test(a_cluster_needs_a_key_and_addresses),
        cmocka_unit_test(a_list_of_hosts),
        cmocka_unit_test(choices_become_toggles),
        cmocka_unit_test(memory_follows_the_control_group),
        cmocka_unit_test(help_is_as_wide_as_a_terminal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
