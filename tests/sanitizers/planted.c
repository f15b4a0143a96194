/* SPDX-License-Identifier: Apache-2.0 */
/* Bugs on purpose, one for each sanitizer: planted NAME. See meson.build. */
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int shared;
static void *volatile kept;

static void *racer(void *arg)
{
    for (int i = 0; i < 100000; i++)
        shared++;
    return arg;
}

static int data_race(void)
{
    pthread_t a, b;
    if (pthread_create(&a, NULL, racer, NULL) != 0 || pthread_create(&b, NULL, racer, NULL) != 0)
        return 1;
    pthread_join(a, NULL);
    pthread_join(b, NULL);
    return 0;
}

static int use_after_free(void)
{
    volatile char *volatile p = malloc(16);
    free((void *)p);
    char seen = p[3];
    return seen ? 0 : 0;
}

static int leak(void)
{
    kept = malloc(16);
    kept = NULL;
    return 0;
}

static int overflow(int n)
{
    volatile int v = INT_MAX;
    v += n;
    return v == 0;
}

int main(int argc, char **argv)
{
    const char *bug = argc > 1 ? argv[1] : "";
    if (strcmp(bug, "data-race") == 0)
        return data_race();
    if (strcmp(bug, "heap-use-after-free") == 0)
        return use_after_free();
    if (strcmp(bug, "leak") == 0)
        return leak();
    if (strcmp(bug, "signed-overflow") == 0)
        return overflow(argc);
    fprintf(stderr, "unknown bug: %s\n", bug);
    return 0;
}
