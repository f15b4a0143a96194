/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pages of listings, as the index keeps them. What decodes holds names that a directory can show,
 * and encodes to the same bytes again.
 */
#include "vfs/internal.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

struct again {
    const uint8_t *p; /* what the next entry must be */
    const uint8_t *end;
};

static void check(bool good)
{
    if (!good)
        abort();
}

static void same(struct again *a, uint64_t value, size_t bytes)
{
    uint64_t le = htole64(value);
    check((size_t)(a->end - a->p) >= bytes && memcmp(a->p, &le, bytes) == 0);
    a->p += bytes;
}

static int entry(void *user, const char *name, const struct zc_attr *at)
{
    struct again *a = user;
    size_t nlen = strlen(name), vlen = strlen(at->version);
    check(nlen > 0 && nlen <= 255 && vlen <= ZC_VERSION_MAX && !strchr(name, '/'));
    check(strcmp(name, ".") != 0 && strcmp(name, "..") != 0);
    same(a, at->kind == ZC_KIND_DIR, 1);
    same(a, nlen, 2);
    same(a, vlen, 2);
    same(a, at->size, 8);
    same(a, (uint64_t)at->mtime_ns, 8);
    same(a, at->mode, 4);
    same(a, at->uid, 4);
    same(a, at->gid, 4);
    check((size_t)(a->end - a->p) >= nlen + vlen && memcmp(a->p, name, nlen) == 0 &&
          memcmp(a->p + nlen, at->version, vlen) == 0);
    a->p += nlen + vlen;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t wall;
    struct again a = {.p = size < 12 ? data + size : data + 12, .end = data + size};
    if (vfs_page_decode(data, size, &wall, entry, &a) == 0)
        check(a.p == a.end);
    return 0;
}
