/* SPDX-License-Identifier: Apache-2.0 */
#include "unit.h"

#include "cli/mntinfo.h"

#include <string.h>

static const char text[] = "22 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
                           "30 22 0:25 / /mnt/da\\040ta ro,nosuid shared:5 master:1 - fuse.zcache "
                           "s3://b/x\\054y ro,user_id=1000,group_id=0\n"
                           "31 22 0:26 / /mnt/twice ro - fuse.zcache first ro,user_id=0\n"
                           "32 22 0:27 / /mnt/twice rw - tmpfs second rw\n"
                           "33 22 0:25 /sub /srv/bound ro - fuse.zcache s3://b/x ro,user_id=1000\n"
                           "34 22 0:28 / /mnt/twiceover rw - tmpfs t rw\n"
                           "not a line\n"
                           "35 22 bad / /x rw - t s rw\n"
                           "36 22 0:1 / /nodash rw\n"
                           "37 22 0:1 / relative rw - t s rw\n"
                           "38 22 0:9 / /short rw - t";

static void fields_and_escapes(void **state)
{
    struct zc_mnts m;
    assert_int_equal(zc_mnts_parse(text, &m), 0);
    assert_int_equal(m.n, 7);
    const struct zc_mnt *d = zc_mnts_at(&m, "/mnt/da ta");
    assert_non_null(d);
    assert_true(zc_mnt_is_ours(d));
    assert_string_equal(d->source, "s3://b/x,y");
    assert_int_equal(d->uid, 1000);
    assert_int_equal(d->minor, 25);
    assert_int_equal(d->id, 30);
    const struct zc_mnt *s = zc_mnts_at(&m, "/short");
    assert_non_null(s);
    assert_string_equal(s->source, "");
    zc_mnts_free(&m);
}

static void the_later_mount_is_seen(void **state)
{
    struct zc_mnts m;
    assert_int_equal(zc_mnts_parse(text, &m), 0);
    assert_string_equal(zc_mnts_at(&m, "/mnt/twice")->source, "second");
    assert_string_equal(zc_mnts_of(&m, "/mnt/twice/a")->source, "second");
    assert_null(zc_mnts_at(&m, "/mnt"));
    zc_mnts_free(&m);
}

/* As after "mount --move" of an older one: the kernel's order is that of their making. */
static void what_lies_on_top_is_seen(void **state)
{
    static const char moved[] = "22 1 254:0 / / rw - ext4 /dev/vda rw\n"
                                "30 32 0:40 / /x rw - tmpfs top rw\n"
                                "31 22 0:41 / /x ro - fuse.zcache bottom ro,user_id=0\n"
                                "32 31 0:42 / /x rw - tmpfs middle rw\n"
                                "33 30 0:43 / /x/y rw - tmpfs below rw\n"
                                "34 34 0:44 / /self rw - tmpfs self rw";
    struct zc_mnts m;
    assert_int_equal(zc_mnts_parse(moved, &m), 0);
    assert_string_equal(zc_mnts_at(&m, "/x")->source, "top");
    assert_string_equal(zc_mnts_of(&m, "/x/a")->source, "top");
    assert_string_equal(zc_mnts_of(&m, "/x/y/a")->source, "below");
    assert_string_equal(zc_mnts_at(&m, "/self")->source, "self");
    zc_mnts_free(&m);
}

static void paths_lie_in_the_deepest_mount(void **state)
{
    struct zc_mnts m;
    assert_int_equal(zc_mnts_parse(text, &m), 0);
    assert_string_equal(zc_mnts_of(&m, "/mnt/da ta/a/b")->point, "/mnt/da ta");
    assert_string_equal(zc_mnts_of(&m, "/mnt/da tax")->point, "/");
    assert_string_equal(zc_mnts_of(&m, "/srv/bound/f")->root, "/sub");
    assert_string_equal(zc_mnts_of(&m, "/")->point, "/");
    zc_mnts_free(&m);
}

static void below(void **state)
{
    assert_true(zc_path_below("/a/b", "/a"));
    assert_true(zc_path_below("/a", "/a"));
    assert_true(zc_path_below("/a", "/"));
    assert_false(zc_path_below("/ab", "/a"));
    assert_false(zc_path_below("/", "/a"));
}

static void our_own_process(void **state)
{
    struct zc_mnts m;
    assert_int_equal(zc_mnts_read(&m, NULL), 0);
    assert_non_null(zc_mnts_of(&m, "/"));
    zc_mnts_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_and_escapes),
        cmocka_unit_test(the_later_mount_is_seen),
        cmocka_unit_test(what_lies_on_top_is_seen),
        cmocka_unit_test(paths_lie_in_the_deepest_mount),
        cmocka_unit_test(below),
        cmocka_unit_test(our_own_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
