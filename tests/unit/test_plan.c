/* SPDX-License-Identifier: Apache-2.0 */
/* What is to be mounted: words of the command line, configuration files, and who gets which option.
 */
#include "unit.h"

#include "base/at.h"
#include "cli/config.h"
#include "cli/plan.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static char conf_path[] = "/tmp/zcache-test-plan-XXXXXX";

static void conf_write(const char *text)
{
    FILE *f = fopen(conf_path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

/* Reads and finishes a plan; text NULL: no file. 0, or -errno with words. */
static int plan(struct zc_plan *p, const char *const *argv, const char *text, struct zc_error *err)
{
    char *words[16] = {"mount"};
    int argc = 1;
    for (; argv[argc - 1]; argc++)
        words[argc] = (char *)argv[argc - 1];
    memset(err, 0, sizeof(*err));
    zc_plan_init(p);
    int r = zc_opt_parse(zc_mount_table, true, argc, words, &p->o, &p->args, err);
    for (size_t i = 0; i < p->args.n_pos && r == 0; i++)
        r = zc_plan_add_word(p, p->args.pos[i], err);
    if (r == 0 && text) {
        conf_write(text);
        r = zc_plan_read(p, conf_path, err);
    }
    return r == 0 ? zc_plan_finish(p, 0, err) : r;
}
#define PLAN(p_, text_, err_, ...) plan(p_, (const char *const[]){__VA_ARGS__, NULL}, text_, err_)

#define GOOD(p_, text_, ...)                                                                       \
    do {                                                                                           \
        struct zc_error words_ = {0};                                                              \
        if (PLAN(p_, text_, &words_, __VA_ARGS__) != 0)                                            \
            fail_msg("%s", words_.text);                                                           \
    } while (0)

/* A refusal with these words in it; line > 0: and this line of the file at the beginning. */
static void refused(int line, const char *want, const char *text, const char *const *argv)
{
    struct zc_plan p;
    struct zc_error err;
    char where[100];
    int r = plan(&p, argv, text, &err);
    zc_plan_free(&p);
    if (r == 0)
        fail_msg("not refused, but should be for '%s'", want);
    if (!strstr(err.text, want))
        fail_msg("'%s' has no '%s'", err.text, want);
    snprintf(where, sizeof(where), "%s:%d: ", conf_path, line);
    if (line && strncmp(err.text, where, strlen(where)) != 0)
        fail_msg("'%s' does not begin with '%s'", err.text, where);
}
#define REFUSED(line, want, text, ...)                                                             \
    refused(line, want, text, (const char *const[]){__VA_ARGS__, NULL})
#define FILE_REFUSED(line, want, text) refused(line, want, text, (const char *const[]){NULL})

static void words_of_the_command_line(void **state)
{
    struct zc_plan p;
    GOOD(&p, NULL, "s3://bucket/prefix", "--region", "x");
    assert_true(zc_plan_is_single(&p));
    assert_string_equal(p.s[0]->o.region, "x");
    zc_plan_free(&p);

    GOOD(&p, NULL, "/imagenet=s3://abc/b", "/x/y/=webhdfs://nn:1/c", "/date=2024=file:///d=e");
    assert_int_equal(p.n, 3);
    assert_false(zc_plan_is_single(&p));
    assert_string_equal(p.s[0]->at, "imagenet");
    assert_string_equal(p.s[0]->src.bucket, "abc");
    assert_string_equal(p.s[1]->at, "x/y");
    assert_string_equal(p.s[2]->at, "date=2024");
    assert_string_equal(p.s[2]->src.path, "/d=e");
    zc_plan_free(&p);

    GOOD(&p, NULL, "/=s3://abc/d=e");
    zc_plan_free(&p);
}

static void words_that_are_wrong(void **state)
{
    REFUSED(0, "write /imagenet=s3://a/b", NULL, "imagenet=s3://a/b");
    REFUSED(0, "taken already, in the command line", NULL, "/abc=s3://abc", "/abc=s3://def");
    REFUSED(0, "'/abc/d' and '/abc' in the command line overlap", NULL, "/abc=s3://abc",
            "/abc/d=s3://def");
    REFUSED(0, "overlap", NULL, "/a/b=s3://abc", "/a=s3://def");
    REFUSED(0, "overlap", NULL, "s3://abc", "/a=s3://def");
    REFUSED(0, "taken", NULL, "s3://abc", "s3://def");
    REFUSED(0, "empty, '.' or '..'", NULL, "/a//b=s3://abc");
    REFUSED(0, "empty, '.' or '..'", NULL, "/a/../b=s3://abc");
    REFUSED(0, "has no scheme", NULL, "/a=b");
    REFUSED(0, "unknown source scheme", NULL, "/a=ftp://b");
}

static void options_for_several(void **state)
{
    struct zc_plan p;
    /* What is said for all counts for those that it means something for. */
    GOOD(&p, NULL, "/a=s3://abc", "/b=webhdfs://nn:1/", "/c=file:///d", "--region", "x",
         "--hdfs-user", "me", "--metadata-ttl", "5", "--ca-bundle", "/ca");
    assert_string_equal(p.s[0]->o.region, "x");
    assert_null(p.s[0]->o.hdfs_user);
    assert_string_equal(p.s[0]->o.ca_bundle, "/ca");
    assert_null(p.s[1]->o.region);
    assert_string_equal(p.s[1]->o.hdfs_user, "me");
    assert_null(p.s[1]->o.ca_bundle); /* it has no TLS */
    assert_null(p.s[2]->o.region);
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(p.s[i]->o.metadata_ttl, 5 * ZC_NS_PER_S);
    zc_plan_free(&p);
    /* How to check certificates may be meant for another source, unless a source says it itself. */
    GOOD(&p,
         "[mount]\nca-bundle = /ca\n[/a]\nsource = hdfs:///\n"
         "[/b]\nsource = hdfs:///\nca-bundle = /own\n",
         "--uid", "5");
    assert_true(p.s[0]->o.tls_if_any);
    assert_false(p.s[1]->o.tls_if_any);
    zc_plan_free(&p);
    GOOD(&p, NULL, "hdfs:///", "--ca-bundle", "/ca");
    assert_false(p.s[0]->o.tls_if_any);
    zc_plan_free(&p);
    REFUSED(0, "--region has no effect on any of the sources", NULL, "/b=webhdfs://nn:1/",
            "/c=file:///d", "--region", "x");
    REFUSED(0, "--ca-bundle has no effect on any", NULL, "/b=webhdfs://nn:1/", "/c=file:///d",
            "--ca-bundle", "x");
    REFUSED(0, "--region has no effect on a file:// source", NULL, "file:///d", "--region", "x");
}

static const char whole[] = "\xef\xbb\xbf# of the whole mount\n"
                            "[mount]\n"
                            "cache-size = 1GiB ; a comment\n"
                            "  keep_cache=yes\n"
                            "metadata-ttl = indefinite\r\n"
                            "region = one\n"
                            "\n"
                            "[ /a/b ] # where\n"
                            "source = \"s3://abc/x#y\"\n"
                            "requester-pays = no\n"
                            "region = two\n"
                            "max-connections = 5\n"
                            "[/c#d]\n"
                            "source = s3://def/x#y # z\n"
                            "[/e]\n"
                            "source=hdfs:///x\n"
                            "hadoop-conf = /etc/hadoop/conf\n"
                            "metadata-ttl = 7";

static void a_file(void **state)
{
    struct zc_plan p;
    GOOD(&p, whole, "--cache-dir", "/x");
    assert_int_equal(p.n, 3);
    assert_int_equal(p.o.cache_size, ZC_GIB);
    assert_true(p.o.keep_cache);
    assert_string_equal(p.o.cache_dir, "/x");
    assert_string_equal(p.s[0]->at, "a/b");
    assert_string_equal(p.s[0]->src.prefix, "x#y");
    assert_string_equal(p.s[0]->o.region, "two");
    assert_int_equal(p.s[0]->o.max_connections, 5);
    assert_int_equal(p.s[0]->o.metadata_ttl, INT64_MAX);
    assert_string_equal(p.s[1]->at, "c#d");
    assert_string_equal(p.s[1]->src.prefix, "x#y");
    assert_string_equal(p.s[1]->o.region, "one");
    assert_int_equal(p.s[1]->o.max_connections, 64);
    assert_string_equal(p.s[2]->o.hadoop_conf, "/etc/hadoop/conf");
    assert_int_equal(p.s[2]->o.metadata_ttl, 7 * ZC_NS_PER_S);
    assert_null(p.s[2]->o.region);
    zc_plan_free(&p);

    /* The command line over [mount], a source's own section over both. */
    GOOD(&p, whole, "--region", "three", "--cache-size", "2GiB", "/f=file:///d");
    assert_int_equal(p.n, 4);
    assert_int_equal(p.o.cache_size, 2 * ZC_GIB);
    assert_string_equal(p.s[1]->o.region, "two");
    assert_string_equal(p.s[2]->o.region, "three");
    zc_plan_free(&p);

    GOOD(&p, "[/]\nsource = file:///d\n", "--uid", "5");
    assert_true(zc_plan_is_single(&p));
    assert_int_equal(p.s[0]->o.uid, 5);
    zc_plan_free(&p);
}

#define S "[/a]\nsource = s3://abc\n"

static void mistakes_have_their_line(void **state)
{
    FILE_REFUSED(3, "unknown option 'cache-siez'; did you mean 'cache-size'?",
                 "\n[mount]\ncache-siez = 1GiB\n");
    FILE_REFUSED(3, "it belongs into [mount]", S "cache-size = 1GiB\n");
    FILE_REFUSED(3, "unknown option 'regoin'; did you mean 'region'?", S "regoin = x\n");
    FILE_REFUSED(3, "--hdfs-user has no effect on a s3:// source", S "hdfs-user = x\n");
    FILE_REFUSED(2, "--region has no effect on a file:// source",
                 "[/a]\nregion = x\nsource = file:///d\n");
    FILE_REFUSED(4, "--region has no effect on any", "[/a]\nsource = file:///d\n[mount]\nregion=x");
    FILE_REFUSED(2, "source belongs into a section", "[mount]\nsource = s3://abc\n");
    FILE_REFUSED(3, "has a source already", S "source = s3://def\n");
    FILE_REFUSED(4, "region was given in line 3 already", S "region = x\nregion = y\n");
    FILE_REFUSED(3, "[mount] was in line 1 already", "[mount]\nuid = 5\n[mount]\n");
    FILE_REFUSED(3, "'/a' is taken already, in line 1", S "[/a/]\n");
    FILE_REFUSED(3, "'/a/b' and '/a' in line 1 overlap", S "[/a/b]\n");
    FILE_REFUSED(3, "[b] is no section", S "[b]\n");
    FILE_REFUSED(1, "empty, '.' or '..'", "[/a/./b]\n");
    FILE_REFUSED(1, "has no 'source", "[/a]\nregion = x\n");
    FILE_REFUSED(3, "[/a] before has no 'source", "[/a]\nregion = x\n[/b]\nsource = s3://abc\n");
    FILE_REFUSED(2, "unknown source scheme", "[/a]\nsource = ftp://x\n");
    FILE_REFUSED(2, "neither '[section]' nor", "[/a]\nsource\n");
    FILE_REFUSED(1, "before the first section", "source = x\n");
    FILE_REFUSED(1, "ends with ']'", "[/a\n");
    FILE_REFUSED(1, "has no name", "[]\n");
    FILE_REFUSED(1, "behind the section's ']'", "[/a] x\n");
    FILE_REFUSED(2, "no name before", "[/a]\n= x\n");
    FILE_REFUSED(2, "is missing at the end", "[/a]\nsource = \"s3://abc\n");
    FILE_REFUSED(2, "behind the value's closing", "[/a]\nsource = \"s3://abc\" x\n");
    FILE_REFUSED(3, "is neither yes nor no", S "requester-pays = maybe\n");
    FILE_REFUSED(3, "uid 'x' is not a number", S "uid = x\n");
    FILE_REFUSED(3, "must begin with '/'", S "ca-bundle = ca.pem\n");
    FILE_REFUSED(2, "command line only", "[mount]\nforeground = yes\n");
    FILE_REFUSED(3, "command line only", S "config = /x\n");
    FILE_REFUSED(3, "needs a value", S "region =\n");
    FILE_REFUSED(1, "power of two", "[mount]\nchunk-size = 3MiB\n" S);
    FILE_REFUSED(0, "names no source", "[mount]\nuid = 5\n");
    FILE_REFUSED(0, "names no source", "");
    FILE_REFUSED(3, "--no-sign-request uses none", S "profile = x\nno-sign-request = yes\n");
    /* The command line wins, but a wrong value in the file is wrong. */
    REFUSED(2, "cache-size 'x' is not a size", "[mount]\ncache-size = x\n" S, "--cache-size",
            "1GiB");
    REFUSED(3, "is taken already, in the command line", "[/b]\nsource = s3://abc\n[/a]\n",
            "/a=s3://abc");
}

static void files_that_are_none(void **state)
{
    struct zc_plan p;
    struct zc_error err = {0};
    zc_plan_init(&p);
    assert_int_equal(zc_plan_read(&p, "/no/such/file", &err), -ENOENT);
    assert_non_null(strstr(err.text, "/no/such/file"));
    zc_plan_free(&p);
    zc_plan_init(&p);
    assert_int_equal(zc_plan_read(&p, "/tmp", &err), -EISDIR);
    zc_plan_free(&p);

    char *big = calloc(1, ZC_CONFIG_MAX + 2);
    memset(big, '#', ZC_CONFIG_MAX + 1);
    FILE_REFUSED(0, "larger than 1 MiB", big);
    big[ZC_CONFIG_LINE_MAX] = 0;
    FILE_REFUSED(1, "longer than", big);
    big[ZC_CONFIG_LINE_MAX - 1] = 0;
    FILE_REFUSED(0, "names no source", big);
    free(big);

    struct zc_config_ops none = {0};
    assert_int_equal(zc_config_parse("f", "#\0", 2, &none, NULL, &err), -EINVAL);
    assert_non_null(strstr(err.text, "f:1: the line has a NUL"));
}

static void rows_of_sources_come_first(void **state)
{
    for (size_t i = 0; i < zc_mount_table.n; i++) {
        const struct zc_opt *o = &zc_mount_table.opts[i];
        assert_int_equal(!!(o->flags & ZC_OPT_SOURCE), i < zc_source_table.n);
        if (o->flags & (ZC_OPT_S3 | ZC_OPT_HDFS))
            assert_true(o->flags & ZC_OPT_SOURCE);
    }
}

static void one_by_itself(void **state)
{
    struct zc_plan p;
    struct zc_plan_source *s;
    struct zc_error err = {0};
    GOOD(&p, whole, "--uid", "9");
    assert_int_equal(zc_plan_source_new("/new/", "webhdfs://nn:1/x", &s, &err), 0);
    assert_string_equal(s->at, "new");
    assert_int_equal(zc_opt_set(zc_source_table, "read_timeout", "5s", &s->o, &s->args, &err), 0);
    assert_int_equal(zc_opt_set(zc_source_table, "cache-size", "5GiB", &s->o, &s->args, &err),
                     -EINVAL);
    assert_int_equal(zc_plan_source_finish(&p, s, &err), 0);
    assert_int_equal(s->o.read_timeout, 5 * ZC_NS_PER_S);
    assert_int_equal(s->o.metadata_ttl, INT64_MAX); /* the mount's default */
    assert_int_equal(s->o.uid, 9);
    assert_int_equal(zc_opt_set(zc_source_table, "region", "x", &s->o, &s->args, &err), 0);
    assert_int_equal(zc_plan_source_finish(&p, s, &err), -EINVAL);
    assert_string_equal(err.text, "/new: --region has no effect on a webhdfs:// source");
    zc_plan_source_free(s);
    zc_plan_free(&p);
}

static void overlaps(void **state)
{
    assert_true(zc_at_overlap("", "a"));
    assert_true(zc_at_overlap("a/b", "a"));
    assert_true(zc_at_overlap("a", "a/b"));
    assert_true(zc_at_overlap("a/b", "a/b"));
    assert_false(zc_at_overlap("a/b", "a/bc"));
    assert_false(zc_at_overlap("a/b", "a/c"));
}

static int make(void **state)
{
    int fd = mkstemp(conf_path);
    return fd < 0 ? -1 : close(fd);
}

static int clean(void **state)
{
    return unlink(conf_path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(words_of_the_command_line),
        cmocka_unit_test(words_that_are_wrong),
        cmocka_unit_test(options_for_several),
        cmocka_unit_test(a_file),
        cmocka_unit_test(mistakes_have_their_line),
        cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(rows_of_sources_come_first),
        cmocka_unit_test(one_by_itself),
        cmocka_unit_test(overlaps),
    };
    return cmocka_run_group_tests(tests, make, clean);
}
