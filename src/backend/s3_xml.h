/* SPDX-License-Identifier: Apache-2.0 */
/* S3's XML answers. Streaming, bounded; a document type (and with it every entity but XML's own
 * five) is refused. */
#ifndef ZC_BACKEND_S3_XML_H
#define ZC_BACKEND_S3_XML_H

#include "base/base.h"
#include "base/buf.h"

#define S3_XML_KEYS_MAX 100000 /* of a page; AWS sends 1,000 */

struct s3_xml_span {
    size_t at, len; /* in text.p */
};

struct s3_xml_object {
    struct s3_xml_span key, etag;
    uint64_t size;
    int64_t mtime_ns; /* 0: none */
};

/* One page of ListObjectsV2. Keys are decoded once s3_xml_list_end has succeeded. */
struct s3_xml_list {
    struct zc_buf text;
    struct s3_xml_object *objects;
    size_t n_objects, objects_cap;
    struct s3_xml_span *prefixes;
    size_t n_prefixes, prefixes_cap;
    bool truncated;
    struct s3_xml_span token; /* NextContinuationToken; len 0: none */
    struct s3_xml_parser *parser;
};

/* 0 or -ENOMEM. */
int s3_xml_list_init(struct s3_xml_list *l);
/* Takes the next bytes of the document. 0, -EBADMSG or -ENOMEM. */
int s3_xml_list_feed(struct s3_xml_list *l, const void *p, size_t n);
/* The document ends here. 0, -EBADMSG or -ENOMEM. */
int s3_xml_list_end(struct s3_xml_list *l);
void s3_xml_list_free(struct s3_xml_list *l);

/* What an <Error> says; "" for what it does not. One line each. */
struct s3_xml_error {
    char code[64];
    char message[300];
    char region[64];
    char endpoint[200];
};

/* 0, or -EBADMSG when there is no error code in it. *out is set in any case. */
int s3_xml_error_parse(const void *p, size_t n, struct s3_xml_error *out);

#endif
