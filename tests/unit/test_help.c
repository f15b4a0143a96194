/* SPDX-License-Identifier: Apache-2.0 */
/* The tables of options are the truth: --help and the man pages must name every option in them, and
 * no other. */
#include "unit.h"

#include "cli/cli.h"
#include "cli/mountopts.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

/* A man page with its markup taken out: "\-" becomes "-", "\fB" and the like go. */
static char *page(const char *name)
{
    char path[512];
    snprintf(path, sizeof(path), ZC_MAN_DIR "/%s", name);
    FILE *f = fopen(path, "r");
    if (!f)
        fail_msg("%s is missing", path);
    char *raw = calloc(1, 1 << 20), *out = calloc(1, 1 << 20), *w = out;
    size_t n = fread(raw, 1, (1 << 20) - 1, f);
    fclose(f);
    for (size_t i = 0; i < n; i++) {
        if (raw[i] == '\\' && raw[i + 1] == 'f') {
            i += 2;
        } else if (raw[i] != '\\') {
            *w++ = raw[i];
        }
    }
    free(raw);
    return out;
}

/* Is the word there, not as a part of a longer one? */
static bool has_word(const char *text, const char *word)
{
    size_t n = strlen(word);
    for (const char *s = text; (s = strstr(s, word)); s += n) {
        if ((s == text || (s[-1] != '-' && !isalnum((unsigned char)s[-1]))) && s[n] != '-' &&
            !isalnum((unsigned char)s[n]))
            return true;
    }
    return false;
}

static bool in_table(const struct zc_opt_table *t, const char *name, size_t n)
{
    if (n == 4 && memcmp(name, "help", 4) == 0)
        return true;
    for (size_t i = 0; i < t->n; i++) {
        if (strlen(t->opts[i].name) == n && memcmp(t->opts[i].name, name, n) == 0)
            return true;
    }
    return false;
}

/* Every "--word" that begins a line of options is in the table. `all` looks at each one in the
 * text. */
static void no_other(const char *where, const char *text, const struct zc_opt_table *t)
{
    for (const char *s = text; (s = strstr(s, "--")); s += 2) {
        size_t n = strspn(s + 2, "abcdefghijklmnopqrstuvwxyz-");
        if (n && (s == text || s[-1] != '-') && !in_table(t, s + 2, n))
            fail_msg("%s names --%.*s, which there is not", where, (int)n, s + 2);
    }
}

static void check(const struct zc_command *c)
{
    char name[64], word[80];
    zc_autobuf struct zc_buf help = {0};
    zc_cli_help_text(c, &help);
    snprintf(name, sizeof(name), "zcache-%s.1", c->name);
    zc_autofree char *man = page(name);
    for (size_t i = 0; i < c->table->n; i++) {
        const struct zc_opt *o = &c->table->opts[i];
        snprintf(word, sizeof(word), "--%s", o->name);
        if (!has_word(help.p, word))
            fail_msg("'zcache %s --help' does not name %s", c->name, word);
        if (!has_word(man, word))
            fail_msg("%s does not name %s", name, word);
        if (o->letter) {
            snprintf(word, sizeof(word), "-%c", o->letter);
            if (!has_word(help.p, word) || !has_word(man, word))
                fail_msg("%s or its help does not name %s", name, word);
        }
    }
    /* Only the lists: umount's text speaks of an option of mount. */
    char *list = strstr(help.p, "\nOptions:");
    assert_non_null(list);
    no_other("--help", list, c->table);
    char *options = strstr(man, ".SH OPTIONS");
    assert_non_null(options);
    char *end = strstr(options + 4, "\n.SH ");
    if (end)
        *end = 0;
    no_other(name, options, c->table);
}

static void every_option_is_described(void **state)
{
    for (const struct zc_command *c = zc_commands; c->name; c++)
        check(c);
}

/* "Default: 60s." of a text -> "60s". */
static bool default_word(const char *text, char word[64])
{
    const char *s = strstr(text, "Default: ");
    size_t n = s ? strcspn(s + 9, " ,;\n") : 0;
    if (n && s[9 + n - 1] == '.')
        n--;
    if (!n || n >= 64)
        return false;
    memcpy(word, s + 9, n);
    word[n] = 0;
    return true;
}

/* The default that --help names is the one that an option has when it is not given, and the man
 * page has the same. Those that are words (the profile's, who mounts) or depend on the machine are
 * for the eye. */
static void defaults_are_true(void **state)
{
    zc_autofree char *man = page("zcache-mount.1");
    unsigned looked = 0;
    for (size_t i = 0; i < zc_mount_table.n; i++) {
        const struct zc_opt *o = &zc_mount_table.opts[i];
        struct zc_mount_opts plain, set;
        struct zc_opt_args args = {0};
        struct zc_error err;
        char word[64], head[80];
        bool number = o->type == ZC_OPT_SIZE || o->type == ZC_OPT_DURATION ||
                      o->type == ZC_OPT_UINT || o->type == ZC_OPT_TTL || o->type == ZC_OPT_RATIO ||
                      o->type == ZC_OPT_CHOICE;
        zc_mount_opts_init(&plain);
        zc_mount_opts_init(&set);
        if (!number || !default_word(o->help, word) ||
            zc_opt_set(zc_mount_table, o->name, word, &set, &args, &err) < 0 ||
            strcmp(o->name, "memory-target") == 0) {
            zc_opt_args_free(&args);
            continue;
        }
        if (memcmp(&set, &plain, sizeof(set)) != 0)
            fail_msg("--%s is not %s unless it is given", o->name, word);
        zc_opt_args_free(&args);
        snprintf(head, sizeof(head), ".BI --%s ", o->name);
        char *at = strstr(man, head), *end = at ? strstr(at, "\n.TP") : NULL, said[64];
        assert_non_null(end);
        *end = 0;
        if (!default_word(at, said) || strcmp(said, word) != 0)
            fail_msg("zcache-mount.1 has another default of --%s than %s", o->name, word);
        *end = '\n';
        looked++;
    }
    assert_int_equal(looked, 12);
}

static void every_command_is_in_the_first_page(void **state)
{
    zc_autofree char *man = page("zcache.1");
    for (const struct zc_command *c = zc_commands; c->name; c++) {
        char word[80];
        snprintf(word, sizeof(word), "zcache-%s", c->name);
        assert_true(has_word(man, word));
    }
}

/* doctor reaches a source as mount does: what mount has for that, it must have too. */
static void doctor_takes_what_says_how_to_reach_a_source(void **state)
{
    for (size_t i = 0; i < zc_source_table.n; i++) {
        const struct zc_opt *m = &zc_source_table.opts[i], *found = NULL;
        for (size_t k = 0; k < zc_doctor_table.n; k++)
            if (strcmp(zc_doctor_table.opts[k].name, m->name) == 0)
                found = &zc_doctor_table.opts[k];
        if (!(m->flags & (ZC_OPT_S3 | ZC_OPT_HDFS)))
            continue;
        if (!found)
            fail_msg("zcache doctor does not take --%s", m->name);
        assert_int_equal(found->type, m->type);
        assert_int_equal(found->offset, m->offset); /* the options of mount stand first */
        assert_int_equal(found->flags, m->flags & (ZC_OPT_S3 | ZC_OPT_HDFS));
    }
}

static void names_and_letters_are_used_once(void **state)
{
    for (const struct zc_command *c = zc_commands; c->name; c++) {
        for (size_t i = 0; i < c->table->n; i++) {
            const struct zc_opt *a = &c->table->opts[i];
            assert_true(a->letter != 'h' && a->letter != 'o');
            assert_true((a->type == ZC_OPT_FLAG) == (a->arg == NULL));
            for (size_t k = 0; k < i; k++) {
                const struct zc_opt *b = &c->table->opts[k];
                assert_string_not_equal(a->name, b->name);
                assert_true(!a->letter || a->letter != b->letter);
            }
        }
    }
}

static int call(const char *const *words)
{
    char *argv[16];
    int argc = 0;
    for (; words[argc]; argc++)
        argv[argc] = (char *)words[argc];
    argv[argc] = NULL;
    return zc_cli_main(argc, argv);
}
#define CALL(...) call((const char *const[]){__VA_ARGS__, NULL})

static void exit_statuses(void **state)
{
    assert_int_equal(CALL("zcache"), ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "--version"), ZC_EXIT_OK);
    assert_int_equal(CALL("zcache", "--help"), ZC_EXIT_OK);
    assert_int_equal(CALL("zcache", "bogus"), ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "--bogus"), ZC_EXIT_USAGE);
    for (const struct zc_command *c = zc_commands; c->name; c++) {
        assert_int_equal(CALL("zcache", c->name, "--help"), ZC_EXIT_OK);
        assert_int_equal(CALL("zcache", c->name, "--bogus"), ZC_EXIT_USAGE);
    }
    assert_int_equal(CALL("zcache", "mount"), ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "mount", "ftp://x/y", "/nowhere/at/all"), ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "mount", "-o", "rw", "file:///etc", "/nowhere/at/all"),
                     ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "mount", "file:///etc", "/nowhere/at/all"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("zcache", "mount", "file:///etc", "/etc/passwd"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("zcache", "warm"), ZC_EXIT_USAGE);
    assert_int_equal(CALL("zcache", "warm", "/"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("zcache", "free", "/"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("zcache", "status", "/"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("zcache", "umount", "/"), ZC_EXIT_FAIL);
    assert_int_equal(CALL("/sbin/mount.zcache", "--help"), ZC_EXIT_OK);
    assert_int_equal(
        CALL("mount.zcache", "s3://bucket", "/mnt", "-f", "-o", "rw,_netdev,cache_size=1GiB"),
        ZC_EXIT_OK);
    assert_int_equal(CALL("mount.zcache", "s3://bucket", "/mnt", "-f", "-o", "bogus"),
                     ZC_EXIT_USAGE);
    assert_int_equal(CALL("mount.zcache", "s3://bucket", "/mnt", "-o", "bogus", "-sfnv"),
                     ZC_EXIT_OK);
    assert_int_equal(CALL("mount.zcache", "s3://bucket"), ZC_EXIT_USAGE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_is_described),
        cmocka_unit_test(defaults_are_true),
        cmocka_unit_test(every_command_is_in_the_first_page),
        cmocka_unit_test(doctor_takes_what_says_how_to_reach_a_source),
        cmocka_unit_test(names_and_letters_are_used_once),
        cmocka_unit_test(exit_statuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
