/* SPDX-License-Identifier: Apache-2.0 */
/* Pages of ListObjectsV2. The first byte says how many bytes the network delivers at a time. */
#include "backend/s3_text.h"
#include "backend/s3_xml.h"

#include <stdlib.h>
#include <string.h>

static void check(const struct s3_xml_list *l, struct s3_xml_span s)
{
    if (s.at > l->text.len || s.len > l->text.len - s.at)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct s3_xml_list l;
    if (size == 0 || s3_xml_list_init(&l) < 0)
        return 0;
    size_t step = (size_t)*data++ + 1;
    int r = 0;
    size--;
    for (size_t at = 0; r == 0 && at < size; at += step)
        r = s3_xml_list_feed(&l, data + at, ZC_MIN(step, size - at));
    if (r == 0 && s3_xml_list_end(&l) == 0) {
        for (size_t i = 0; i < l.n_objects; i++) {
            char version[ZC_VERSION_MAX + 1];
            const struct s3_xml_object *o = &l.objects[i];
            check(&l, o->key);
            check(&l, o->etag);
            s3_text_version(o->etag.len ? l.text.p + o->etag.at : "", o->etag.len, o->mtime_ns,
                            o->size, version);
            if (strlen(version) > ZC_VERSION_MAX)
                abort();
        }
        for (size_t i = 0; i < l.n_prefixes; i++)
            check(&l, l.prefixes[i]);
        if (l.truncated && l.token.len == 0)
            abort();
        check(&l, l.token);
    }
    s3_xml_list_free(&l);
    return 0;
}
