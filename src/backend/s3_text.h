/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in S3's headers and answers: dates, ranges, ETags, names. Pure decoders of foreign
 * bytes. */
#ifndef ZC_BACKEND_S3_TEXT_H
#define ZC_BACKEND_S3_TEXT_H

#include "backend/backend.h"

/* "Sun, 06 Nov 1994 08:49:37 GMT" (RFC 9110's preferred form) or "1994-11-06T08:49:37.123Z" ->
   nanoseconds since the epoch. -EINVAL. */
int s3_text_date(const char *s, size_t n, int64_t *ns);

/* "bytes 0-99/1234" -> first, last, total (UINT64_MAX for '*'). -EINVAL. */
int s3_text_content_range(const char *s, size_t n, uint64_t *first, uint64_t *last,
                          uint64_t *total);

/* Version token of an object: by its ETag, or by its time (whole seconds) and size when it has none
   (etag_len 0).
   "" when there is neither. The same for listings (quotes may be missing), HEAD and GET. */
void s3_text_version(const char *etag, size_t etag_len, int64_t mtime_ns, uint64_t size,
                     char out[ZC_VERSION_MAX + 1]);
/* The other way round: the ETag that proves it (with quotes), or NULL and the time and size.
 * -EINVAL. */
int s3_text_version_parse(const char *version, const char **etag, int64_t *mtime_s, uint64_t *size);
/* "Sun, 06 Nov 1994 08:49:37 GMT" */
void s3_text_http_date(int64_t unix_s, char out[30]);

/* Decodes %XX and '+' in place; returns the new length. Broken escapes stay as they are. */
size_t s3_text_urldecode(char *s, size_t n);

/* May it be one component of a path: 1 to 255 bytes of UTF-8 without '/' or NUL, not "." or ".."?
 */
bool s3_text_name_ok(const char *s, size_t n);
/* Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms)? */
bool s3_text_utf8(const char *s, size_t n);

#endif
