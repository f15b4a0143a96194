/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Readers at native speed, the same for a local file and for one on the mount.
 *
 *     readers seq [-t N] [-r N] [-c] FILE       1 MiB reads; each of N threads reads its own share
 *     readers mmap [-t N] [-r N] [-c] FILE      the same through mmap
 *     readers rand [-t N] [-n N] [-s SEED] FILE N reads of 4 KiB at random places: p50 and p99
 *     readers small [-t N] [-r N] [-s SEED] [-c] DIR LIST
 *                                               the files of LIST below DIR in shuffled order:
 * open, read to the end into one buffer, close readers walk DIR                          readdir
 * and lstat of everything below -t N     threads (1) -r N     times over (1) -c       sum up
 * XXH3-64 of all files (small) or MiBs (seq, mmap), to compare two trees
 *
 * It prints one object of JSON.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <xxhash.h>

#define UNIT ((size_t)1 << 20)
#define SMALL ((size_t)4096)

struct job {
    const char *path;
    char **list;
    size_t count; /* files of list, or random reads */
    uint64_t size;
    int threads, repeat, dir;
    bool check;
    uint64_t seed;
    _Atomic size_t next;
    _Atomic uint64_t bytes, sum, files;
    double *latency;
};

struct thread {
    struct job *job;
    int index;
    pthread_t id;
};

static void die(const char *what)
{
    fprintf(stderr, "readers: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static uint64_t rng_next(uint64_t *s)
{
    uint64_t z = (*s += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static void *aligned(size_t n)
{
    void *p = aligned_alloc(4096, n);
    if (!p)
        die("memory");
    memset(p, 1, n);
    return p;
}

/* ---- one large file ---- */

static void *run_seq(void *arg)
{
    struct thread *t = arg;
    struct job *j = t->job;
    uint64_t units = (j->size + UNIT - 1) / UNIT, n = (uint64_t)j->threads;
    uint64_t from = units * (uint64_t)t->index / n * UNIT;
    uint64_t to = units * (uint64_t)(t->index + 1) / n * UNIT;
    char *buf = aligned(UNIT);
    if (to > j->size)
        to = j->size;
    int fd = open(j->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(j->path);
    uint64_t sum = 0, bytes = 0;
    for (int r = 0; r < j->repeat; r++) {
        for (uint64_t at = from; at < to;) {
            size_t want = to - at < UNIT ? (size_t)(to - at) : UNIT, got = 0;
            while (got < want) {
                ssize_t k = pread(fd, buf + got, want - got, (off_t)(at + got));
                if (k <= 0)
                    die(j->path);
                got += (size_t)k;
            }
            if (j->check)
                sum += XXH3_64bits(buf, want);
            at += want;
            bytes += want;
        }
    }
    atomic_fetch_add(&j->sum, sum);
    atomic_fetch_add(&j->bytes, bytes);
    close(fd);
    free(buf);
    return NULL;
}

static void *run_mmap(void *arg)
{
    struct thread *t = arg;
    struct job *j = t->job;
    uint64_t units = (j->size + UNIT - 1) / UNIT, n = (uint64_t)j->threads;
    uint64_t from = units * (uint64_t)t->index / n * UNIT;
    uint64_t to = units * (uint64_t)(t->index + 1) / n * UNIT;
    if (to > j->size)
        to = j->size;
    int fd = open(j->path, O_RDONLY | O_CLOEXEC);
    const char *p = fd < 0 ? MAP_FAILED : mmap(NULL, j->size, PROT_READ, MAP_SHARED, fd, 0);
    if (p == MAP_FAILED)
        die(j->path);
    uint64_t sum = 0;
    for (int r = 0; r < j->repeat; r++) {
        for (uint64_t at = from; at < to; at += UNIT) {
            size_t want = to - at < UNIT ? (size_t)(to - at) : UNIT;
            if (j->check) {
                sum += XXH3_64bits(p + at, want);
            } else {
                for (size_t i = 0; i < want; i += 4096)
                    sum += (unsigned char)p[at + i];
            }
            atomic_fetch_add(&j->bytes, want);
        }
    }
    atomic_fetch_add(&j->sum, sum);
    munmap((void *)p, j->size);
    close(fd);
    return NULL;
}

static void *run_rand(void *arg)
{
    struct thread *t = arg;
    struct job *j = t->job;
    uint64_t s = j->seed * 1000 + (uint64_t)t->index;
    char *buf = aligned(SMALL);
    int fd = open(j->path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die(j->path);
    for (size_t i; (i = atomic_fetch_add(&j->next, 1)) < j->count;) {
        off_t at = (off_t)(rng_next(&s) % (j->size / SMALL) * SMALL);
        double began = seconds();
        if (pread(fd, buf, SMALL, at) != (ssize_t)SMALL)
            die(j->path);
        j->latency[i] = seconds() - began;
        atomic_fetch_add(&j->bytes, SMALL);
    }
    close(fd);
    free(buf);
    return NULL;
}

/* ---- many small files ---- */

static void *run_small(void *arg)
{
    struct thread *t = arg;
    struct job *j = t->job;
    char *buf = aligned(UNIT);
    uint64_t bytes = 0, sum = 0, files = 0;
    for (size_t i; (i = atomic_fetch_add(&j->next, 1)) < j->count * (size_t)j->repeat;) {
        const char *name = j->list[i % j->count];
        int fd = openat(j->dir, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            die(name);
        size_t got = 0;
        ssize_t k;
        while ((k = read(fd, buf + got, UNIT - got)) > 0)
            got += (size_t)k;
        if (k < 0)
            die(name);
        close(fd);
        if (j->check)
            sum += XXH3_64bits_withSeed(buf, got, XXH3_64bits(name, strlen(name)));
        bytes += got;
        files++;
    }
    atomic_fetch_add(&j->sum, sum);
    atomic_fetch_add(&j->bytes, bytes);
    atomic_fetch_add(&j->files, files);
    free(buf);
    return NULL;
}

static void read_list(struct job *j, const char *file)
{
    FILE *f = fopen(file, "re");
    char *line = NULL;
    size_t cap = 0, room = 0;
    ssize_t n;
    if (!f)
        die(file);
    while ((n = getline(&line, &cap, f)) > 0) {
        if (line[n - 1] == '\n')
            line[n - 1] = '\0';
        if (j->count == room) {
            room = room ? room * 2 : 1024;
            j->list = realloc(j->list, room * sizeof(*j->list));
        }
        if (!j->list || !(j->list[j->count++] = strdup(line)))
            die("memory");
    }
    free(line);
    fclose(f);
    uint64_t s = j->seed;
    for (size_t i = j->count; j->seed && i > 1; i--) {
        size_t k = (size_t)(rng_next(&s) % i);
        char *x = j->list[i - 1];
        j->list[i - 1] = j->list[k];
        j->list[k] = x;
    }
}

/* ---- a walk ---- */

static void walk(struct job *j, int dir_fd)
{
    DIR *d = fdopendir(dir_fd);
    struct dirent *e;
    struct stat st;
    if (!d)
        die("opendir");
    while ((e = readdir(d))) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            die(e->d_name);
        j->files++;
        j->bytes += (uint64_t)st.st_size;
        if (S_ISDIR(st.st_mode)) {
            int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
            if (fd < 0)
                die(e->d_name);
            walk(j, fd);
        }
    }
    closedir(d);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv)
{
    struct job j = {.threads = 1, .repeat = 1, .seed = 1, .count = 0};
    size_t reads = 10000;
    const char *what = argc > 1 ? argv[1] : "";
    int opt;
    optind = 2;
    while ((opt = getopt(argc, argv, "t:r:n:s:c")) != -1) {
        switch (opt) {
        case 't':
            j.threads = atoi(optarg);
            break;
        case 'r':
            j.repeat = atoi(optarg);
            break;
        case 'n':
            reads = strtoull(optarg, NULL, 10);
            break;
        case 's':
            j.seed = strtoull(optarg, NULL, 10);
            break;
        case 'c':
            j.check = true;
            break;
        default:
            return 2;
        }
    }
    if (optind >= argc || j.threads < 1) {
        fprintf(stderr, "usage: readers seq|mmap|rand|small|walk [OPTION...] PATH [LIST]\n");
        return 2;
    }
    j.path = argv[optind];
    void *(*run)(void *) = NULL;
    if (strcmp(what, "seq") == 0)
        run = run_seq;
    else if (strcmp(what, "mmap") == 0)
        run = run_mmap;
    else if (strcmp(what, "rand") == 0)
        run = run_rand;
    else if (strcmp(what, "small") == 0 && optind + 1 < argc)
        run = run_small;
    if (run == run_small)
        read_list(&j, argv[optind + 1]);
    if (run == run_rand) {
        j.count = reads;
        j.latency = calloc(reads, sizeof(*j.latency));
    }

    struct thread *t = calloc((size_t)j.threads, sizeof(*t));
    double began = seconds();
    if (run == run_small || !run) {
        j.dir = open(j.path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (j.dir < 0)
            die(j.path);
    } else {
        struct stat st;
        if (stat(j.path, &st) < 0)
            die(j.path);
        j.size = (uint64_t)st.st_size;
    }
    if (!run)
        walk(&j, j.dir);
    for (int i = 0; run && i < j.threads; i++) {
        t[i] = (struct thread){.job = &j, .index = i};
        if (pthread_create(&t[i].id, NULL, run, &t[i]) != 0)
            die("thread");
    }
    for (int i = 0; run && i < j.threads; i++)
        pthread_join(t[i].id, NULL);
    double took = seconds() - began;
    printf("{\"seconds\": %.6f, \"bytes\": %llu, \"files\": %llu, \"sum\": \"%016llx\"", took,
           (unsigned long long)j.bytes, (unsigned long long)j.files, (unsigned long long)j.sum);
    if (j.latency) {
        qsort(j.latency, j.count, sizeof(*j.latency), by_value);
        printf(", \"p50_us\": %.2f, \"p99_us\": %.2f", j.latency[j.count / 2] * 1e6,
               j.latency[j.count * 99 / 100] * 1e6);
    }
    printf("}\n");
    return 0;
}
