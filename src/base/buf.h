/* SPDX-License-Identifier: Apache-2.0 */
/* Growable byte buffer with a hard ceiling; always NUL-terminated once it holds something. */
#ifndef ZC_BUF_H
#define ZC_BUF_H

#include "base/base.h"
#include <stdarg.h>

struct zc_buf {
    char *p;     /* NULL while nothing was added */
    size_t len;  /* bytes used, without the NUL */
    size_t cap;  /* bytes allocated */
    size_t max;  /* ceiling for len; 0 means 64 MiB */
    bool failed; /* an append failed (memory or ceiling): later ones fail too */
};

#define zc_autobuf __attribute__((cleanup(zc_buf_free)))

void zc_buf_free(struct zc_buf *b);
/* Empties without giving memory back. */
void zc_buf_reset(struct zc_buf *b);
/* 0, -ENOMEM, or -EMSGSIZE past the ceiling. */
int zc_buf_add(struct zc_buf *b, const void *p, size_t n);
int zc_buf_adds(struct zc_buf *b, const char *s);
int zc_buf_addc(struct zc_buf *b, char c);
int zc_buf_addf(struct zc_buf *b, const char *fmt, ...) ZC_PRINTF(2, 3);
/* Room for n more bytes at p + len; the caller adds to len what it wrote. */
int zc_buf_reserve(struct zc_buf *b, size_t n);
/* Percent-encodes all but RFC 3986's unreserved characters; '/' stays when keep_slash. */
int zc_buf_add_urlenc(struct zc_buf *b, const char *s, size_t n, bool keep_slash);
/* Moves the string out (never NULL on success; NULL if an append failed). Caller frees. */
char *zc_buf_steal(struct zc_buf *b);

#endif
