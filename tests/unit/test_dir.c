/* SPDX-License-Identifier: Apache-2.0 */
/* The directory source against a real directory in $TMPDIR. */
#include "backend/dir.h"

#include <stdarg.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

struct fixture {
    char root[PATH_MAX];
    struct zc_backend *be;
};

/* ---- a tree to show ---- */

static void path_of(const struct fixture *f, const char *name, char out[PATH_MAX])
{
    assert_true(snprintf(out, PATH_MAX, "%s/%s", f->root, name) < PATH_MAX);
}

static void put_file(const struct fixture *f, const char *name, const void *p, size_t n)
{
    char path[PATH_MAX];
    path_of(f, name, path);
    zc_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, n), n);
}

static void put_dir(const struct fixture *f, const char *name)
{
    char path[PATH_MAX];
    path_of(f, name, path);
    assert_int_equal(mkdir(path, 0755), 0);
}

static void put_link(const struct fixture *f, const char *target, const char *name)
{
    char path[PATH_MAX];
    path_of(f, name, path);
    assert_int_equal(symlink(target, path), 0);
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    return remove(path);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    char base[PATH_MAX - 16], tmpl[PATH_MAX];
    const char *tmp = getenv("TMPDIR");
    snprintf(base, sizeof(base), "%s", tmp ? tmp : "/tmp");
    snprintf(tmpl, sizeof(tmpl), "%s/zc-dir-XXXXXX", base);
    assert_non_null(mkdtemp(tmpl));
    snprintf(f->root, sizeof(f->root), "%s", tmpl);
    struct zc_dir_config cfg = {.path = f->root, .threads = 4};
    assert_int_equal(zc_dirsrc_new(&cfg, &f->be, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(f->be->stats->in_flight, 0);
    zc_backend_free(f->be);
    nftw(f->root, remove_one, 32, FTW_DEPTH | FTW_PHYS);
    free(f);
    return 0;
}

/* ---- requests, waited for ---- */

struct answer {
    sem_t sem;
    int err;
    struct zc_attr attr;
    char version[ZC_VERSION_MAX + 1];
    char *bytes;
    size_t n, calls;
    int stop_with;
    void (*on_data)(void *);
    void *on_data_arg;
    /* lists */
    struct zc_entry *entries;
    size_t n_entries;
    unsigned skipped;
    char token[64];
    bool more;
};

static void stat_done(struct zc_stat_req *r, int err, const struct zc_attr *attr)
{
    struct answer *a = r->base.user;
    a->err = err;
    if (attr) {
        a->attr = *attr;
        snprintf(a->version, sizeof(a->version), "%s", attr->version);
    }
    sem_post(&a->sem);
}

static int do_stat(struct fixture *f, const char *path, struct answer *a)
{
    struct zc_stat_req r = {.base.user = a, .path = path, .done = stat_done};
    memset(a, 0, sizeof(*a));
    sem_init(&a->sem, 0, 0);
    zc_backend_stat(f->be, &r);
    sem_wait(&a->sem);
    if (a->err < 0)
        assert_true(r.base.err.text[0] != '\0');
    return a->err;
}

static int get_data(struct zc_get_req *r, const void *p, size_t n)
{
    struct answer *a = r->base.user;
    assert_true(n > 0 && a->n + n <= r->len);
    memcpy(a->bytes + a->n, p, n);
    a->n += n;
    a->calls++;
    if (a->on_data)
        a->on_data(a->on_data_arg);
    return a->stop_with;
}

static void get_done(struct zc_get_req *r, int err)
{
    struct answer *a = r->base.user;
    a->err = err;
    sem_post(&a->sem);
}

static int do_get(struct fixture *f, const char *path, const char *version, uint64_t off,
                  uint64_t len, struct answer *a)
{
    struct zc_get_req r = {.base.user = a,
                           .path = path,
                           .version = version,
                           .off = off,
                           .len = len,
                           .data = get_data,
                           .done = get_done};
    a->n = a->calls = 0;
    a->bytes = realloc(a->bytes, len);
    sem_init(&a->sem, 0, 0);
    zc_backend_get(f->be, &r);
    sem_wait(&a->sem);
    return a->err;
}

static void list_done(struct zc_list_req *r, int err, const struct zc_entry *e, size_t n,
                      const char *next, unsigned skipped)
{
    struct answer *a = r->base.user;
    a->err = err;
    a->skipped += skipped;
    a->more = next != NULL;
    snprintf(a->token, sizeof(a->token), "%s", next ? next : "");
    a->entries = realloc(a->entries, (a->n_entries + n + 1) * sizeof(*e));
    for (size_t i = 0; i < n; i++) {
        struct zc_entry *to = &a->entries[a->n_entries++];
        *to = e[i];
        to->name = strdup(e[i].name);
        to->attr.version = strdup(e[i].attr.version);
    }
    sem_post(&a->sem);
}

static int do_page(struct fixture *f, const char *path, const char *token, unsigned max,
                   struct answer *a)
{
    struct zc_list_req r = {
        .base.user = a, .path = path, .token = token, .max = max, .done = list_done};
    zc_backend_list(f->be, &r);
    sem_wait(&a->sem);
    return a->err;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct zc_entry *)a)->name, ((const struct zc_entry *)b)->name);
}

/* All pages, sorted by name. */
static int do_list(struct fixture *f, const char *path, unsigned max, struct answer *a)
{
    memset(a, 0, sizeof(*a));
    sem_init(&a->sem, 0, 0);
    char token[64];
    const char *t = NULL;
    do {
        size_t before = a->n_entries;
        if (do_page(f, path, t, max, a) < 0)
            return a->err;
        if (max)
            assert_true(a->n_entries - before <= max);
        strcpy(token, a->token);
        t = token;
    } while (a->more);
    qsort(a->entries, a->n_entries, sizeof(*a->entries), by_name);
    return 0;
}

static void list_free(struct answer *a)
{
    for (size_t i = 0; i < a->n_entries; i++) {
        free((char *)a->entries[i].name);
        free((char *)a->entries[i].attr.version);
    }
    free(a->entries);
    a->entries = NULL;
}

/* ---- tests ---- */

static void test_stat_tells_kind_size_and_mode(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    put_dir(f, "d");
    put_file(f, "d/x", "hello", 5);
    assert_int_equal(do_stat(f, "d/x", &a), 0);
    assert_int_equal(a.attr.kind, ZC_KIND_FILE);
    assert_int_equal(a.attr.size, 5);
    assert_int_equal(a.attr.mode, 0640);
    assert_int_equal(a.attr.uid, geteuid());
    assert_true(a.attr.mtime_ns > 0);
    assert_true(a.version[0] != '\0');
    assert_int_equal(do_stat(f, "d", &a), 0);
    assert_int_equal(a.attr.kind, ZC_KIND_DIR);
    assert_string_equal(a.version, "");
    assert_int_equal(do_stat(f, "", &a), 0);
    assert_int_equal(a.attr.kind, ZC_KIND_DIR);
    assert_int_equal(do_stat(f, "none", &a), -ENOENT);
    assert_int_equal(do_stat(f, "d/x/y", &a), -ENOTDIR);
    assert_int_equal(do_stat(f, "../etc", &a), -ENOENT);
    assert_int_equal(f->be->stats->errors, 0); /* these are answers */
}

static void test_get_gives_ranges_of_the_version(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    size_t n = 3 * ZC_MIB + 17;
    zc_autofree char *data = malloc(n);
    for (size_t i = 0; i < n; i++)
        data[i] = (char)(i * 2654435761u >> 13);
    put_file(f, "x", data, n);
    assert_int_equal(do_stat(f, "x", &a), 0);
    assert_int_equal(do_get(f, "x", a.version, 0, n, &a), 0);
    assert_int_equal(a.n, n);
    assert_memory_equal(a.bytes, data, n);
    assert_true(a.calls >= 4);
    assert_int_equal(do_get(f, "x", a.version, n - 1, 1, &a), 0);
    assert_memory_equal(a.bytes, data + n - 1, 1);
    assert_int_equal(do_get(f, "x", a.version, 12345, 2 * ZC_MIB, &a), 0);
    assert_memory_equal(a.bytes, data + 12345, 2 * ZC_MIB);
    assert_int_equal(f->be->stats->gets, 3);
    assert_int_equal(f->be->stats->bytes, n + 1 + 2 * ZC_MIB);
    a.stop_with = -ENOSPC;
    assert_int_equal(do_get(f, "x", a.version, 0, n, &a), -ENOSPC);
    assert_int_equal(a.calls, 1);
    assert_int_equal(do_get(f, "gone", a.version, 0, 1, &a), -ESTALE);
    free(a.bytes);
}

static void rewrite_first_byte(void *arg)
{
    put_file(arg, "x", "B", 1);
    char path[PATH_MAX];
    path_of(arg, "x", path);
    assert_int_equal(truncate(path, 2 * ZC_MIB), 0);
}

static void test_changed_file_is_stale(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    zc_autofree char *data = calloc(1, 2 * ZC_MIB);
    put_file(f, "x", data, 2 * ZC_MIB);
    assert_int_equal(do_stat(f, "x", &a), 0);
    /* between two data() calls, at the same size */
    a.on_data = rewrite_first_byte;
    a.on_data_arg = f;
    assert_int_equal(do_get(f, "x", a.version, 0, 2 * ZC_MIB, &a), -ESTALE);
    assert_int_equal(a.calls, 1); /* what was handed on is of the version, as far as it went */
    a.on_data = NULL;
    /* before the first byte */
    assert_int_equal(do_get(f, "x", a.version, 0, 1, &a), -ESTALE);
    assert_int_equal(a.n, 0);
    free(a.bytes);
    /* another file under the name */
    assert_int_equal(do_stat(f, "x", &a), 0);
    put_file(f, "y", data, 2 * ZC_MIB);
    char x[PATH_MAX], y[PATH_MAX];
    path_of(f, "x", x);
    path_of(f, "y", y);
    assert_int_equal(rename(y, x), 0);
    assert_int_equal(do_get(f, "x", a.version, 0, 1, &a), -ESTALE);
    free(a.bytes);
}

/* Two writes of equal length inside one tick of the file system's clock leave equal time stamps on
   kernels with coarse stamps: whoever reads under one version must get the last of them. */
static void test_equal_versions_mean_equal_bytes(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    for (int i = 0; i < 20; i++) {
        char first[16], second[16];
        snprintf(first, sizeof(first), "a%06d", i);
        snprintf(second, sizeof(second), "b%06d", i);
        char path[PATH_MAX];
        path_of(f, "x", path);
        put_file(f, "x", first, 7);
        assert_int_equal(do_stat(f, "x", &a), 0);
        zc_autoclose int fd = open(path, O_WRONLY);
        int got = do_get(f, "x", a.version, 0, 7, &a);
        char early[8];
        memcpy(early, a.bytes, 7);
        assert_int_equal(pwrite(fd, second, 7, 0), 7);
        int again = do_get(f, "x", a.version, 0, 7, &a);
        if (got == 0 && again == 0)
            assert_memory_equal(early, a.bytes, 7);
        free(a.bytes);
    }
}

static void test_links_stay_inside(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    char path[PATH_MAX];
    put_dir(f, "d");
    put_dir(f, "d/e");
    put_file(f, "d/x", "data", 4);
    put_link(f, "d/x", "to_file");
    put_link(f, "d", "to_dir");
    put_link(f, "../d/x", "d/up");     /* inside */
    put_link(f, "/etc/passwd", "abs"); /* out */
    put_link(f, "../../etc", "out");   /* out */
    put_link(f, "nowhere", "dangling");
    put_link(f, "self", "self");
    put_link(f, "..", "d/e/loop"); /* a walk would go round */
    put_link(f, ".", "here");
    path_of(f, "fifo", path);
    assert_int_equal(mkfifo(path, 0600), 0);
    path_of(f, "sock", path);
    int s = socket(AF_UNIX, SOCK_STREAM, 0);
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    if (strlen(path) < sizeof(un.sun_path)) {
        memcpy(un.sun_path, path, strlen(path) + 1);
        assert_int_equal(bind(s, (struct sockaddr *)&un, sizeof(un)), 0);
    } else {
        assert_int_equal(mkfifo(path, 0600), 0);
    }
    close(s);

    assert_int_equal(do_list(f, "", 0, &a), 0);
    assert_int_equal(a.n_entries, 3);
    assert_string_equal(a.entries[0].name, "d");
    assert_string_equal(a.entries[1].name, "to_dir");
    assert_int_equal(a.entries[1].attr.kind, ZC_KIND_DIR);
    assert_string_equal(a.entries[2].name, "to_file");
    assert_int_equal(a.entries[2].attr.kind, ZC_KIND_FILE);
    assert_int_equal(a.entries[2].attr.size, 4);
    assert_int_equal(a.skipped, 7); /* abs out dangling self here fifo sock */
    list_free(&a);
    assert_int_equal(do_list(f, "to_dir/e", 0, &a), 0);
    assert_int_equal(a.n_entries, 0);
    assert_int_equal(a.skipped, 1);
    list_free(&a);
    assert_int_equal(do_list(f, "d", 0, &a), 0);
    assert_int_equal(a.n_entries, 3); /* e up x */
    list_free(&a);

    static const char *hidden[] = {"abs",      "out",  "out/passwd", "dangling", "self",
                                   "d/e/loop", "here", "fifo",       "sock"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(hidden); i++)
        assert_int_equal(do_stat(f, hidden[i], &a), -ENOENT);
    assert_int_equal(do_stat(f, "to_dir/up", &a), 0);
    assert_int_equal(do_get(f, "to_dir/up", a.version, 0, 4, &a), 0);
    assert_memory_equal(a.bytes, "data", 4);
    free(a.bytes);
    struct answer b = {0};
    assert_int_equal(do_get(f, "abs", "1:2:3:4", 0, 1, &b), -ESTALE);
    free(b.bytes);
}

static void test_list_pages_and_tokens(void **state)
{
    struct fixture *f = *state;
    struct answer a, b;
    char name[32];
    put_dir(f, "d");
    for (int i = 0; i < 3000; i++) {
        snprintf(name, sizeof(name), "d/f%05d", i);
        put_file(f, name, "x", (size_t)(i & 1));
    }
    static const unsigned sizes[] = {0, 1, 7, 1000, 3000, 100000};
    for (size_t s = 0; s < ZC_ARRAY_SIZE(sizes); s++) {
        assert_int_equal(do_list(f, "d", sizes[s], &a), 0);
        assert_int_equal(a.n_entries, 3000);
        for (int i = 0; i < 3000; i++) {
            snprintf(name, sizeof(name), "f%05d", i);
            assert_string_equal(a.entries[i].name, name);
            assert_int_equal(a.entries[i].attr.size, i & 1);
        }
        list_free(&a);
    }
    /* The version of a listing is the version of a stat. */
    assert_int_equal(do_list(f, "d", 0, &a), 0);
    assert_int_equal(do_stat(f, "d/f00000", &b), 0);
    assert_string_equal(a.entries[0].attr.version, b.version);
    list_free(&a);
    /* A token works again, as after a retry, and when its stream was pushed out. */
    memset(&a, 0, sizeof(a));
    memset(&b, 0, sizeof(b));
    sem_init(&a.sem, 0, 0);
    sem_init(&b.sem, 0, 0);
    assert_int_equal(do_page(f, "d", NULL, 100, &a), 0);
    char token[64];
    strcpy(token, a.token);
    list_free(&a);
    a.n_entries = 0;
    assert_int_equal(do_page(f, "d", token, 100, &a), 0);
    for (int i = 0; i < 100; i++) {
        struct answer c = {0};
        sem_init(&c.sem, 0, 0);
        assert_int_equal(do_page(f, "d", NULL, 1 + (unsigned)i, &c), 0);
        list_free(&c);
    }
    assert_int_equal(do_page(f, "d", token, 100, &b), 0);
    assert_int_equal(b.n_entries, 100);
    for (int i = 0; i < 100; i++)
        assert_string_equal(a.entries[i].name, b.entries[i].name);
    list_free(&a);
    list_free(&b);
    a.n_entries = b.n_entries = 0;
    assert_int_equal(do_page(f, "d", "rubbish", 0, &a), -EIO);
    assert_int_equal(do_page(f, "none", NULL, 0, &a), -ENOENT);
    assert_int_equal(do_page(f, "d/f00000", NULL, 0, &a), -ENOTDIR);
    list_free(&a);
}

static void test_names_are_bytes(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    char longest[256];
    memset(longest, 'n', 255);
    longest[255] = '\0';
    put_file(f, "bad\xff\xfeutf8", "1", 1);
    put_file(f, "new\nline", "22", 2);
    put_file(f, longest, "333", 3);
    assert_int_equal(do_list(f, "", 0, &a), 0);
    assert_int_equal(a.n_entries, 3);
    assert_string_equal(a.entries[0].name, "bad\xff\xfeutf8");
    assert_string_equal(a.entries[1].name, "new\nline");
    assert_string_equal(a.entries[2].name, longest);
    list_free(&a);
    assert_int_equal(do_stat(f, "bad\xff\xfeutf8", &a), 0);
}

static void test_probe_says_what_is_wrong(void **state)
{
    struct fixture *f = *state;
    struct zc_error e = {0};
    struct zc_backend *be;
    char path[PATH_MAX];
    assert_int_equal(zc_backend_probe(f->be, &e), 0);
    assert_true(strncmp(f->be->url, "file:///", 8) == 0);

    path_of(f, "missing", path);
    struct zc_dir_config cfg = {.path = path};
    assert_int_equal(zc_dirsrc_new(&cfg, &be, &e), 0);
    assert_int_equal(zc_backend_probe(be, &e), -ENOENT);
    assert_non_null(strstr(e.text, "does not exist"));
    zc_backend_free(be);

    put_file(f, "file", "x", 1);
    path_of(f, "file", path);
    assert_int_equal(zc_dirsrc_new(&cfg, &be, &e), 0);
    assert_int_equal(zc_backend_probe(be, &e), -ENOTDIR);
    assert_non_null(strstr(e.text, "not a directory"));
    zc_backend_free(be);

    put_dir(f, "closed");
    path_of(f, "closed", path);
    assert_int_equal(chmod(path, 0), 0);
    assert_int_equal(chmod(f->root, 0755), 0);
    bool root = geteuid() == 0;
    if (root)
        assert_int_equal(seteuid(65534), 0);
    assert_int_equal(zc_dirsrc_new(&cfg, &be, &e), 0);
    int r = zc_backend_probe(be, &e);
    if (root) {
        assert_int_equal(seteuid(0), 0);
        prctl(PR_SET_DUMPABLE,
              1); /* a change of user takes it away, and the leak checker wants it */
    }
    zc_backend_free(be);
    assert_int_equal(chmod(path, 0755), 0);
    assert_int_equal(r, -EACCES);

    cfg.path = "relative/path";
    assert_int_equal(zc_dirsrc_new(&cfg, &be, &e), -EINVAL);
    assert_non_null(strstr(e.text, "absolute"));
}

/* One thread, held in a data() call: what waits is then taken by priority. */
struct order {
    sem_t inside, go, all;
    _Atomic int next;
    int place[3];
};

static int order_block(struct zc_get_req *r, const void *p, size_t n)
{
    struct order *o = r->base.user;
    sem_post(&o->inside);
    sem_wait(&o->go);
    return 0;
}

static void order_get_done(struct zc_get_req *r, int err)
{
    struct order *o = r->base.user;
    sem_post(&o->all);
}

static void order_stat_done(struct zc_stat_req *r, int err, const struct zc_attr *attr)
{
    struct order *o = r->base.user;
    o->place[r->base.prio] = o->next++;
    sem_post(&o->all);
}

static void test_demand_overtakes(void **state)
{
    struct fixture *f = *state;
    struct answer a;
    struct zc_backend *be;
    struct order o = {0};
    put_file(f, "x", "data", 4);
    assert_int_equal(do_stat(f, "x", &a), 0);
    struct zc_dir_config cfg = {.path = f->root, .threads = 1};
    assert_int_equal(zc_dirsrc_new(&cfg, &be, NULL), 0);
    sem_init(&o.inside, 0, 0);
    sem_init(&o.go, 0, 0);
    sem_init(&o.all, 0, 0);
    struct zc_get_req g = {.base.user = &o,
                           .path = "x",
                           .version = a.version,
                           .len = 4,
                           .data = order_block,
                           .done = order_get_done};
    zc_backend_get(be, &g);
    sem_wait(&o.inside);
    struct zc_stat_req s[3];
    for (int i = 0; i < 3; i++) {
        s[i] = (struct zc_stat_req){.base = {.user = &o, .prio = (enum zc_prio)(2 - i)},
                                    .path = "x",
                                    .done = order_stat_done};
        zc_backend_stat(be, &s[i]);
    }
    assert_int_equal(be->stats->in_flight, 4);
    sem_post(&o.go);
    for (int i = 0; i < 4; i++)
        sem_wait(&o.all);
    assert_int_equal(o.place[ZC_PRIO_DEMAND], 0);
    assert_int_equal(o.place[ZC_PRIO_AHEAD], 1);
    assert_int_equal(o.place[ZC_PRIO_WARM], 2);
    zc_backend_free(be);
}

static int cancel_data(struct zc_get_req *r, const void *p, size_t n)
{
    struct answer *a = r->base.user;
    a->n += n;
    zc_backend_cancel(a->on_data_arg, &r->base);
    return 0;
}

static void test_cancel_and_deadline(void **state)
{
    struct fixture *f = *state;
    struct answer a = {0};
    put_file(f, "x", "data", 4);
    sem_init(&a.sem, 0, 0);
    struct zc_stat_req r = {
        .base = {.user = &a, .cancelled = true}, .path = "x", .done = stat_done};
    zc_backend_stat(f->be, &r);
    sem_wait(&a.sem);
    assert_int_equal(a.err, -ECANCELED);
    r.base = (struct zc_req){.user = &a, .deadline_ns = zc_now_ns() - 1};
    zc_backend_stat(f->be, &r);
    sem_wait(&a.sem);
    assert_int_equal(a.err, -ETIMEDOUT);
    /* between two blocks */
    zc_autofree char *data = calloc(1, 2 * ZC_MIB);
    put_file(f, "x", data, 2 * ZC_MIB);
    assert_int_equal(do_stat(f, "x", &a), 0);
    a.on_data_arg = f->be;
    struct zc_get_req g = {.base.user = &a,
                           .path = "x",
                           .version = a.version,
                           .len = 2 * ZC_MIB,
                           .data = cancel_data,
                           .done = get_done};
    zc_backend_get(f->be, &g);
    sem_wait(&a.sem);
    assert_int_equal(a.err, -ECANCELED);
    assert_int_equal(a.n, ZC_MIB);
}

/* Many requests from several threads at once; for the thread sanitizer as well. */
static void *storm(void *arg)
{
    struct fixture *f = arg;
    struct answer a;
    for (int i = 0; i < 200; i++) {
        assert_int_equal(do_stat(f, "d/x", &a), 0);
        assert_int_equal(do_get(f, "d/x", a.version, 1, 3, &a), 0);
        assert_memory_equal(a.bytes, "ata", 3);
        free(a.bytes);
        assert_int_equal(do_list(f, "d", 2, &a), 0);
        assert_int_equal(a.n_entries, 5);
        list_free(&a);
    }
    return NULL;
}

static void test_many_threads(void **state)
{
    struct fixture *f = *state;
    pthread_t t[4];
    put_dir(f, "d");
    put_file(f, "d/x", "data", 4);
    for (int i = 0; i < 4; i++) {
        char name[16];
        snprintf(name, sizeof(name), "d/y%d", i);
        put_file(f, name, "y", 1);
    }
    for (size_t i = 0; i < ZC_ARRAY_SIZE(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, storm, f), 0);
    for (size_t i = 0; i < ZC_ARRAY_SIZE(t); i++)
        pthread_join(t[i], NULL);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_stat_tells_kind_size_and_mode),
        T(test_get_gives_ranges_of_the_version),
        T(test_changed_file_is_stale),
        T(test_equal_versions_mean_equal_bytes),
        T(test_links_stay_inside),
        T(test_list_pages_and_tokens),
        T(test_names_are_bytes),
        T(test_probe_says_what_is_wrong),
        T(test_demand_overtakes),
        T(test_cancel_and_deadline),
        T(test_many_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
