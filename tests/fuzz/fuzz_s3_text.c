/* SPDX-License-Identifier: Apache-2.0 */
/* Header values: dates, ranges, ETags; escaped keys; names; version tokens from the index. */
#include "backend/s3_text.h"

#include <stdlib.h>
#include <string.h>

static void versions(const char *s, size_t n)
{
    char v[ZC_VERSION_MAX + 1];
    const char *etag;
    int64_t t;
    uint64_t size;
    s3_text_version(s, n, 5 * ZC_NS_PER_S, n, v);
    if (s3_text_version_parse(v, &etag, &t, &size) < 0)
        abort(); /* what is made can be taken back */
    if (etag && strpbrk(etag, "\r\n "))
        abort(); /* and sent as a header */
    if (!etag && (t != 5 || size != n))
        abort();
    if (n <= ZC_VERSION_MAX && !memchr(s, '\0', n)) {
        memcpy(v, s, n);
        v[n] = '\0';
        s3_text_version_parse(v, &etag, &t, &size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int64_t ns;
    uint64_t a, b, total;
    zc_autofree char *s = malloc(size + 1); /* exact: a byte too far is seen */
    if (!s)
        return 0;
    memcpy(s, data, size);
    if (s3_text_date(s, size, &ns) == 0) {
        char out[30];
        s3_text_http_date(ns / ZC_NS_PER_S, out);
        if (ns < 0 || strlen(out) != 29)
            abort();
    }
    if (s3_text_content_range(s, size, &a, &b, &total) == 0 && (a > b || b >= total))
        abort();
    versions(s, size);
    bool ok = s3_text_name_ok(s, size);
    if (ok && (size == 0 || size > 255 || memchr(s, '/', size) || !s3_text_utf8(s, size)))
        abort();
    if (s3_text_urldecode(s, size) > size)
        abort();
    return 0;
}
