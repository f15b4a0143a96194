/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration file, and what it makes of a source; and a redirect. */
#include "backend/hdfs_priv.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct hdfs_conf *c = hdfs_conf_new();
    struct hdfs_target t;
    zc_autofree char *text = strndup((const char *)data, size);
    const char *authority, *rpc;
    size_t n, rpc_n;

    if (c && hdfs_conf_parse(c, (const char *)data, size, "fuzz", NULL) == 0) {
        static const char *const who[] = {"", "zc", "nn:8020"};
        for (size_t i = 0; i < ZC_ARRAY_SIZE(who); i++) {
            if (hdfs_resolve(c, ZC_HDFS_HDFS, who[i], &t, NULL) == 0) {
                if (t.n == 0 || !t.name)
                    __builtin_trap();
                hdfs_target_free(&t);
            }
        }
    }
    hdfs_conf_free(c);
    if (text && hdfs_location(text, false, &authority, &n, &rpc, &rpc_n) == 0 && n == 0)
        __builtin_trap();
    return 0;
}
