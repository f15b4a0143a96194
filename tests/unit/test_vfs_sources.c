/* SPDX-License-Identifier: Apache-2.0 */
/* Several sources in one file system: who is asked, what is in the way, and how one goes. */
#include "unit.h"

#include "backend/dir.h"
#include "cachetest.h"
#include "membackend.h"
#include "vfstest.h"

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* A directory as a source, with one file "f" that says `text`. */
static struct zc_backend *files(struct vt_world *w, const char *name, const char *text)
{
    char path[300];
    struct zc_backend *be;
    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    mkdir(path, 0755);
    struct zc_dir_config cfg = {.path = path};
    assert_int_equal(zc_dirsrc_new(&cfg, &be, NULL), 0);
    strcat(path, "/f");
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    return be;
}

static int add(struct vt_world *w, const char *at, struct zc_backend *be,
               struct zc_vfs_source **out, struct zc_error *err)
{
    struct zc_vfs_source_config cfg = {
        .at = at,
        .be = be,
        .identity = be->url,
        .ttl_ns = 60 * ZC_NS_PER_S,
        .negative_ttl_ns = -1,
        .uid = 1,
        .gid = ZC_ID_UNSET,
        .file_mode = ZC_ID_UNSET,
        .dir_mode = 0700,
    };
    return zc_vfs_source_add(w->v, &cfg, out, err);
}

struct want {
    struct zc_waiter w;
    struct vt_answer a;
};

static void on_bytes(struct zc_waiter *w, int err)
{
    vt_answer_set(&zc_container_of(w, struct want, w)->a, err, NULL, NULL);
}

/* The file's bytes, or an error. */
static int slurp(struct vt_world *w, const char *path, char *out, size_t n)
{
    struct zc_node node;
    struct zc_object *o;
    struct want want = {.a = VT_ANSWER};
    int r = vt_walk(w, path, &node);
    if (r == 0)
        r = zc_vfs_open(w->v, node.id, &o);
    if (r < 0)
        return r;
    want.w.done = on_bytes;
    r = zc_object_want(o, 0, n, false, ZC_PRIO_DEMAND, &want.w);
    r = r == 0 ? vt_answer_get(&want.a) : r == 1 ? 0 : r;
    ssize_t got = r == 0 ? zc_object_read(o, out, 0, n - 1) : r;
    zc_object_close(o);
    out[got > 0 ? got : 0] = 0;
    return got < 0 ? (int)got : 0;
}

/* ------------------------------------------------------------------ tests */

static uint64_t requests(const struct zc_backend *be)
{
    const struct zc_backend_stats *s = be->stats;
    return s->gets + s->lists + s->heads + s->others;
}

static void each_path_has_its_own(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *a, *b, *c;
    struct zc_node node, again;
    char text[100];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "first"), *two = files(&w, "two", "second"),
                      *three = files(&w, "three", "third");
    assert_int_equal(add(&w, "x", one, &a, NULL), 0);
    assert_int_equal(add(&w, "d/e/y", two, &b, NULL), 0);
    assert_int_equal(add(&w, "d/z", three, &c, NULL), 0);

    /* What is above the sources asks nobody. */
    assert_int_equal(vt_list(&w, ZC_NODE_ROOT, text), 0);
    assert_string_equal(text, "x d ");
    assert_int_equal(vt_walk(&w, "d", &node), 0);
    assert_int_equal(node.kind, ZC_KIND_DIR);
    assert_int_equal(node.mode, 0555);
    assert_int_equal(node.uid, 7);
    assert_int_equal(vt_list(&w, node.id, text), 0);
    assert_string_equal(text, "e z ");
    assert_int_equal(vt_walk(&w, "d/z", &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(node.uid, 1);
    assert_int_equal(vt_walk(&w, "d/nothing", &node), -ENOENT);
    assert_int_equal(requests(one) + requests(two) + requests(three), 0);

    assert_int_equal(slurp(&w, "x/f", text, sizeof(text)), 0);
    assert_string_equal(text, "first");
    assert_int_equal(slurp(&w, "d/e/y/f", text, sizeof(text)), 0);
    assert_string_equal(text, "second");
    assert_int_equal(requests(three), 0);
    assert_int_equal(slurp(&w, "d/z/f", text, sizeof(text)), 0);
    assert_string_equal(text, "third");
    assert_int_equal(vt_walk(&w, "d/z/g", &node), -ENOENT);

    /* Paths for people are those of the mount; two files of one name are two inodes. */
    assert_int_equal(vt_walk(&w, "d/e/y/f", &node), 0);
    assert_int_equal(vt_walk(&w, "d/z/f", &again), 0);
    assert_true(node.ino != again.ino);
    char *path = zc_vfs_path(w.v, node.id);
    assert_string_equal(path, "d/e/y/f");
    free(path);

    struct zc_vfs_source_stats st;
    zc_vfs_source_get_stats(b, &st);
    assert_int_equal(st.fetch.misses, 1);
    assert_int_equal(st.fetch.bytes_store, 6);
    assert_int_equal(st.fetch.open, 0);
    vt_free(&w);
    zc_backend_free(one);
    zc_backend_free(two);
    zc_backend_free(three);
}

static void what_is_in_the_way_is_named(void **state)
{
    static const struct {
        const char *at, *words;
        int err;
    } bad[] = {
        {"a/b", "taken by file://", -EEXIST}, {"a", "overlap", -EEXIST},
        {"a/b/c/d", "overlap", -EEXIST},      {"", "'/' ", -EEXIST},
        {"a//c", "empty", -EINVAL},           {"../c", "'..'", -EINVAL},
        {"c/", "ends with", -EINVAL},
    };
    struct vt_world w;
    struct zc_vfs_source *s;
    struct zc_error err;
    char text[100];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "1"), *two = files(&w, "two", "2");
    assert_int_equal(add(&w, "a/b", one, &s, NULL), 0);
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        memset(&err, 0, sizeof(err));
        assert_int_equal(add(&w, bad[i].at, two, &s, &err), bad[i].err);
        if (!strstr(err.text, bad[i].words))
            fail_msg("'%s' has no '%s'", err.text, bad[i].words);
        assert_int_equal(zc_vfs_source_fits(w.v, bad[i].at, NULL), bad[i].err);
    }
    assert_int_equal(vt_list(&w, ZC_NODE_ROOT, text), 0);
    assert_string_equal(text, "a ");
    /* A name may begin like another one. */
    assert_int_equal(add(&w, "a/bc", two, &s, NULL), 0);
    vt_free(&w);
    zc_backend_free(one);
    zc_backend_free(two);
}

static void one_source_is_the_whole(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *s, *t;
    struct zc_error err = {0};
    struct zc_node node;
    char text[100];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "1"), *two = files(&w, "two", "2");
    assert_int_equal(add(&w, "", one, &s, NULL), 0);
    assert_int_equal(vt_list(&w, ZC_NODE_ROOT, text), 0);
    assert_string_equal(text, "f ");
    assert_int_equal(vt_attr(&w, ZC_NODE_ROOT, &node), 0);
    assert_int_equal(node.mode, 0700);
    assert_int_equal(add(&w, "b", two, &t, &err), -EEXIST);
    assert_non_null(strstr(err.text, "as a whole"));
    assert_int_equal(zc_vfs_source_remove(w.v, s, true, &err), -EINVAL);
    assert_int_equal(slurp(&w, "f", text, sizeof(text)), 0);
    vt_free(&w);
    zc_backend_free(one);
    zc_backend_free(two);
}

static void removed_and_put_back(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *a, *b;
    struct zc_node dir, file, node;
    struct zc_object *o;
    struct zc_error err = {0};
    char text[100];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "first"), *two = files(&w, "two", "second");
    assert_int_equal(add(&w, "p/q/a", one, &a, NULL), 0);
    assert_int_equal(add(&w, "p/b", two, &b, NULL), 0);
    assert_int_equal(slurp(&w, "p/q/a/f", text, sizeof(text)), 0);
    assert_int_equal(vt_walk(&w, "p/q/a", &dir), 0);
    assert_int_equal(vt_walk(&w, "p/q/a/f", &file), 0);

    assert_int_equal(zc_vfs_open(w.v, file.id, &o), 0);
    assert_int_equal(zc_vfs_source_remove(w.v, a, false, &err), -EBUSY);
    assert_non_null(strstr(err.text, "1 of its files"));
    zc_object_close(o);
    assert_int_equal(slurp(&w, "p/q/a/f", text, sizeof(text)), 0);

    assert_int_equal(zc_vfs_source_remove(w.v, a, false, NULL), 0);
    zc_backend_free(one);
    assert_int_equal(vt_walk(&w, "p/q", &node), -ENOENT); /* nothing else was there */
    assert_int_equal(slurp(&w, "p/b/f", text, sizeof(text)), 0);
    /* The kernel may still know its nodes. */
    assert_int_equal(zc_vfs_open(w.v, file.id, &o), -ESTALE);
    assert_int_equal(vt_attr(&w, file.id, &node), -ESTALE);
    assert_int_equal(vt_list(&w, dir.id, text), -ESTALE);
    struct vt_answer ans = VT_ANSWER;
    zc_vfs_lookup(w.v, dir.id, "f", vt_on_lookup, &ans);
    assert_int_equal(vt_answer_get(&ans), -ESTALE);

    one = files(&w, "other", "instead");
    assert_int_equal(add(&w, "p/q/a", one, &a, NULL), 0);
    assert_int_equal(slurp(&w, "p/q/a/f", text, sizeof(text)), 0);
    assert_string_equal(text, "instead");
    assert_int_equal(vt_walk(&w, "p/q/a", &node), 0);
    assert_true(node.id != dir.id);
    assert_int_equal(zc_vfs_open(w.v, file.id, &o), -ESTALE);
    vt_free(&w);
    zc_backend_free(one);
    zc_backend_free(two);
}

static void force_leaves_what_is_cached(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *a, *b;
    struct zc_node file;
    struct zc_object *whole, *part;
    struct want want = {.a = VT_ANSWER};
    char text[100], path[300];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "first"), *again;
    snprintf(path, sizeof(path), "%s/one/big", w.dir);
    FILE *f = fopen(path, "w");
    for (int i = 0; i < 100000; i++)
        fputs("bytes ", f);
    fclose(f);
    assert_int_equal(add(&w, "a", one, &a, NULL), 0);
    assert_int_equal(slurp(&w, "a/f", text, sizeof(text)), 0);
    assert_int_equal(vt_walk(&w, "a/f", &file), 0);
    assert_int_equal(zc_vfs_open(w.v, file.id, &whole), 0);
    assert_int_equal(vt_walk(&w, "a/big", &file), 0);
    assert_int_equal(zc_vfs_open(w.v, file.id, &part), 0);
    assert_int_equal(zc_vfs_source_remove(w.v, a, true, NULL), 0);
    zc_backend_free(one);

    assert_int_equal(zc_object_read(whole, text, 0, 5), 5);
    assert_memory_equal(text, "first", 5);
    want.w.done = on_bytes;
    int r = zc_object_want(part, 0, 100, true, ZC_PRIO_DEMAND, &want.w);
    assert_int_equal(r == 0 ? vt_answer_get(&want.a) : r, -ESTALE);

    /* The same source, shown anew elsewhere: the open handle of old reads on through it. */
    snprintf(path, sizeof(path), "%s/one", w.dir);
    struct zc_dir_config cfg = {.path = path};
    assert_int_equal(zc_dirsrc_new(&cfg, &again, NULL), 0);
    assert_int_equal(add(&w, "b/c", again, &b, NULL), 0);
    assert_int_equal(slurp(&w, "b/c/f", text, sizeof(text)), 0);
    assert_int_equal(again->stats->gets, 0); /* what was cached is found under another path */
    struct zc_object *o;
    assert_int_equal(vt_walk(&w, "b/c/big", &file), 0);
    assert_int_equal(zc_vfs_open(w.v, file.id, &o), 0);
    assert_ptr_equal(o, part);
    struct want w2 = {.a = VT_ANSWER, .w = {.done = on_bytes}};
    r = zc_object_want(part, 0, 100, true, ZC_PRIO_DEMAND, &w2.w);
    assert_int_equal(r == 0 ? vt_answer_get(&w2.a) : r == 1 ? 0 : r, 0);
    assert_int_equal(zc_object_read(part, text, 0, 5), 5);
    zc_object_close(o);
    zc_object_close(part);
    zc_object_close(whole);
    vt_free(&w);
    zc_backend_free(again);
}

static void *release_later(void *be)
{
    struct timespec ts = {.tv_nsec = 50 * ZC_NS_PER_MS};
    nanosleep(&ts, NULL);
    while (mem_release(be, 10))
        ;
    return NULL;
}

static void what_is_under_way_ends(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *s, *t;
    struct zc_node node;
    char text[100];
    pthread_t thread;
    vt_new(&w);
    struct zc_backend *slow = mem_new(), *two = files(&w, "two", "2");
    assert_int_equal(add(&w, "slow", slow, &s, NULL), 0);
    assert_int_equal(add(&w, "two", two, &t, NULL), 0);
    mem_hold(slow, true);
    assert_int_equal(vt_walk(&w, "slow", &node), 0);
    struct vt_answer looked = VT_ANSWER, listed = VT_ANSWER;
    zc_vfs_lookup(w.v, node.id, "x", vt_on_lookup, &looked);
    zc_vfs_opendir(w.v, node.id, vt_on_opendir, &listed);
    assert_int_equal(mem_held(slow), 2);
    assert_false(looked.done || listed.done);
    /* It hangs; the other one does not, and neither does the directory above. */
    assert_int_equal(slurp(&w, "two/f", text, sizeof(text)), 0);
    assert_int_equal(vt_list(&w, ZC_NODE_ROOT, text), 0);

    pthread_create(&thread, NULL, release_later, slow);
    assert_int_equal(zc_vfs_source_remove(w.v, s, false, NULL), 0);
    pthread_join(thread, NULL);
    assert_int_equal(vt_answer_get(&looked), -ESTALE);
    assert_int_equal(vt_answer_get(&listed), -ESTALE);
    zc_backend_free(slow);
    assert_int_equal(slurp(&w, "two/f", text, sizeof(text)), 0);
    vt_free(&w);
    zc_backend_free(two);
}

struct churn {
    struct vt_world *w;
    _Atomic bool over;
    unsigned reads, gone;
};

static void *churn_reader(void *arg)
{
    struct churn *c = arg;
    char text[100];
    while (!c->over) {
        int r = slurp(c->w, "d/a/f", text, sizeof(text));
        if (r == 0 && strcmp(text, "first") == 0)
            c->reads++;
        else if (r == -ENOENT || r == -ESTALE)
            c->gone++;
        else
            return "a wrong answer";
        struct zc_node node; /* of the root, for which the source is asked */
        if (vt_walk(c->w, "d/a", &node) == 0 && vt_attr(c->w, node.id, &node) == 0 &&
            (node.kind != ZC_KIND_DIR || node.mode != 0700))
            return "a wrong root";
        if (slurp(c->w, "d/b/f", text, sizeof(text)) != 0 || strcmp(text, "second") != 0)
            return "the other source was touched";
    }
    return NULL;
}

static void added_and_removed_under_readers(void **state)
{
    struct vt_world w;
    struct zc_vfs_source *s;
    struct churn c[3];
    pthread_t threads[3];
    vt_new(&w);
    struct zc_backend *one = files(&w, "one", "first"), *two = files(&w, "two", "second");
    assert_int_equal(add(&w, "d/b", two, &s, NULL), 0);
    for (int i = 0; i < 3; i++) {
        c[i] = (struct churn){.w = &w};
        pthread_create(&threads[i], NULL, churn_reader, &c[i]);
    }
    for (int i = 0; i < 200; i++) {
        struct timespec ts = {.tv_nsec = ZC_NS_PER_MS};
        assert_int_equal(add(&w, "d/a", one, &s, NULL), 0);
        nanosleep(&ts, NULL);
        int r;
        while ((r = zc_vfs_source_remove(w.v, s, i & 1, NULL)) == -EBUSY)
            ;
        assert_int_equal(r, 0);
    }
    unsigned reads = 0, gone = 0;
    for (int i = 0; i < 3; i++) {
        void *why;
        c[i].over = true;
        pthread_join(threads[i], &why);
        if (why)
            fail_msg("%s", (char *)why);
        reads += c[i].reads;
        gone += c[i].gone;
    }
    assert_true(reads > 0 && gone > 0);
    vt_free(&w);
    zc_backend_free(one);
    zc_backend_free(two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_path_has_its_own),
        cmocka_unit_test(what_is_in_the_way_is_named),
        cmocka_unit_test(one_source_is_the_whole),
        cmocka_unit_test(removed_and_put_back),
        cmocka_unit_test(force_leaves_what_is_cached),
        cmocka_unit_test(what_is_under_way_ends),
        cmocka_unit_test(added_and_removed_under_readers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
