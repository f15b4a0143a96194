/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char log_path[] = "/tmp/zcache-test-log-XXXXXX";

static int setup(void **state)
{
    int fd = mkstemp(log_path);
    if (fd < 0)
        return -1;
    close(fd);
    return zc_log_open(log_path);
}

static int teardown(void **state)
{
    zc_log_set_level(ZC_LOG_WARN);
    return unlink(log_path);
}

/* What was written since the last call. */
static char *fresh(void)
{
    static off_t at;
    static char text[1 << 20];
    zc_autoclose int fd = open(log_path, O_RDONLY | O_CLOEXEC);
    ssize_t n = pread(fd, text, sizeof(text) - 1, at);
    assert_true(n >= 0);
    at += n;
    text[n] = '\0';
    return text;
}

static void test_levels(void **state)
{
    zc_err("one");
    zc_warn("two");
    zc_info("three");
    char *t = fresh();
    assert_non_null(strstr(t, " error one\n"));
    assert_non_null(strstr(t, " warn  two\n"));
    assert_null(strstr(t, "three"));
    zc_log_set_level(ZC_LOG_DEBUG);
    zc_debug("four %d", 4);
    assert_non_null(strstr(fresh(), " debug four 4\n"));
    zc_log_set_level(ZC_LOG_ERR);
    zc_warn("five");
    assert_string_equal(fresh(), "");
    zc_log_set_level(ZC_LOG_WARN);
}

static void test_level_words(void **state)
{
    enum zc_log_level l = ZC_LOG_INFO;
    assert_int_equal(zc_log_parse_level("loud", &l), -EINVAL);
    assert_int_equal(l, ZC_LOG_INFO);
    assert_int_equal(zc_log_parse_level("error", &l), 0);
    assert_int_equal(l, ZC_LOG_ERR);
    assert_int_equal(zc_log_parse_level("debug", &l), 0);
    assert_int_equal(l, ZC_LOG_DEBUG);
}

static void test_a_name_cannot_forge_a_line(void **state)
{
    zc_err("key %s", "a\n2026-01-01T00:00:00.000Z error forged\r\x1b[2J");
    char *t = fresh();
    assert_ptr_equal(strchr(t, '\n'), t + strlen(t) - 1);
    assert_null(strchr(t, '\x1b'));
    assert_null(strchr(t, '\r'));
}

static void test_long_lines_are_cut(void **state)
{
    char big[10000];
    memset(big, 'x', sizeof(big) - 1);
    big[sizeof(big) - 1] = '\0';
    zc_err("%s", big);
    char *t = fresh();
    size_t n = strlen(t);
    assert_in_range(n, 1000, 2048);
    assert_int_equal(t[n - 1], '\n');
}

static void *writer(void *arg)
{
    for (int i = 0; i < 500; i++)
        zc_err("thread %d line %d end", *(int *)arg, i);
    return NULL;
}

static void test_lines_of_threads_stay_whole(void **state)
{
    pthread_t threads[4];
    int ids[4];
    for (int i = 0; i < 4; i++) {
        ids[i] = i;
        assert_int_equal(pthread_create(&threads[i], NULL, writer, &ids[i]), 0);
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    int lines = 0;
    for (char *save, *l = strtok_r(fresh(), "\n", &save); l; l = strtok_r(NULL, "\n", &save)) {
        int id, line, used = 0;
        char *words = strstr(l, " error ");
        assert_non_null(words);
        assert_int_equal(sscanf(words, " error thread %d line %d end%n", &id, &line, &used), 2);
        assert_int_equal(used, (int)strlen(words));
        lines++;
    }
    assert_int_equal(lines, 2000);
}

static void test_open_failures(void **state)
{
    assert_int_equal(zc_log_open("/nonexistent/dir/log"), -ENOENT);
    zc_err("still here");
    assert_non_null(strstr(fresh(), "still here"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_level_words),
        cmocka_unit_test(test_a_name_cannot_forge_a_line),
        cmocka_unit_test(test_long_lines_are_cut),
        cmocka_unit_test(test_lines_of_threads_stay_whole),
        cmocka_unit_test(test_open_failures),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
