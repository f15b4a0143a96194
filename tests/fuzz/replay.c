/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A main() for fuzz targets where libFuzzer is not linked: gives each file in the folders named on
 * the command line to the target once, each also cut short at every length up to a bound, because
 * a decoder's classic fault is to believe that more bytes follow. A folder without files is an
 * error: a target without seeds was never tried.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REPLAY_CUTS 512

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* On a heap block of the exact size, so that a sanitizer sees a read past the end. */
static void replay_run(const uint8_t *data, size_t n)
{
    uint8_t *p = malloc(n ? n : 1);
    if (!p)
        abort();
    if (n)
        memcpy(p, data, n);
    LLVMFuzzerTestOneInput(p, n);
    free(p);
}

static int replay_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        return -1;
    }
    uint8_t *data = NULL;
    size_t n = 0, cap = 0;
    for (;;) {
        if (n == cap) {
            cap = cap ? cap * 2 : 4096;
            data = realloc(data, cap);
            if (!data)
                abort();
        }
        size_t got = fread(data + n, 1, cap - n, f);
        if (got == 0)
            break;
        n += got;
    }
    fclose(f);
    for (size_t cut = 0; cut < n && cut < REPLAY_CUTS; cut++)
        replay_run(data, cut);
    replay_run(data, n);
    free(data);
    return 0;
}

int main(int argc, char **argv)
{
    int files = 0, bad = 0;
    for (int i = 1; i < argc; i++) {
        DIR *d = opendir(argv[i]);
        if (!d) {
            perror(argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(d));) {
            if (e->d_name[0] == '.')
                continue;
            char path[4096];
            if (snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name) >= (int)sizeof(path))
                abort();
            files++;
            bad += replay_file(path) < 0;
        }
        closedir(d);
    }
    printf("%d seeds replayed\n", files);
    return files > 0 && bad == 0 ? 0 : 1;
}
