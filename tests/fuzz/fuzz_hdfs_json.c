/* SPDX-License-Identifier: Apache-2.0 */
/* Every decoder of a NameNode's and DataNode's answers sees the same bytes. */
#include "backend/hdfs_priv.h"
#include "backend/hdfs_token.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *body = (const char *)data;
    struct hdfs_fault fault;
    struct hdfs_file file, *files;
    struct hdfs_key key = {.inode = 1, .length = 250};
    json_t *doc;
    char *token;
    size_t n;
    uint64_t left;
    int64_t number;

    hdfs_fault_of(403, body, size, &fault);
    if (fault.err >= 0 || !memchr(fault.text, 0, sizeof(fault.text)))
        __builtin_trap();
    if (hdfs_json_status(body, size, &doc, &file) == 0) {
        char version[HDFS_VERSION_BYTES];
        struct hdfs_key back;
        hdfs_version(&file, version);
        if (hdfs_version_parse(version, &back) < 0 || back.length != file.length)
            __builtin_trap();
        json_decref(doc);
    }
    if (hdfs_json_list(body, size, &doc, &files, &n, &left) == 0) {
        for (size_t i = 0; i < n; i++) {
            if (!files[i].hidden &&
                (!*files[i].name || strlen(files[i].name) > 255 || strchr(files[i].name, '/')))
                __builtin_trap();
        }
        free(files);
        json_decref(doc);
    }
    if (hdfs_json_token(body, size, &token) == 0)
        free(token);
    static const char *const hosts[] = {"nn", "::1"};
    static const unsigned ports[] = {8020};
    const struct hdfs_token_for who = {"zc", hosts, 2, ports, 1};
    struct zc_error err;
    if (hdfs_token_parse(data, size, &who, &token, &err) == 0)
        free(token);
    hdfs_json_long(body, size, &number);

    struct hdfs_nodes *nodes = hdfs_nodes_new();
    if (nodes && hdfs_blocks_put(nodes, &key, 0, false, body, size) == 0) {
        bool known;
        for (uint64_t off = 0; off < key.length; off += 49)
            hdfs_blocks_pick(nodes, &key, off, (unsigned)off, NULL, 0, &known);
    }
    hdfs_nodes_free(nodes);
    return 0;
}
