/* SPDX-License-Identifier: Apache-2.0 */
/* What stands in variables and profiles: times, command lines, addresses of credentials services.
 */
#include "backend/s3_cred_priv.h"
#include "net/check.h"

#include <string.h>
#include <strings.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    zc_autofree char *text = malloc(size + 1);
    char host[256], proxy[300], **argv;
    const char *variable = "";
    bool tls;
    int64_t ns;
    if (!text)
        return 0;
    memcpy(text, data, size);
    text[size] = '\0';
    s3_decode_time(text, &ns);
    if (s3_process_split(text, &argv) == 0) {
        if (!argv[0] || !argv[0][0])
            __builtin_trap();
        size_t all = 0;
        for (char **a = argv; *a; a++)
            all += strlen(*a);
        if (all > strlen(text)) /* words come from the text alone: nothing is expanded */
            __builtin_trap();
        s3_process_split_free(argv);
    }
    if (s3_url_parts(text, &tls, host, sizeof(host)) == 0 &&
        (!host[0] || strpbrk(host, "/?#@ \r\n")))
        __builtin_trap();
    if (s3_container_url_ok(text) && strncasecmp(text, "http", 4) != 0)
        __builtin_trap();
    struct zc_check_target t;
    if (zc_check_target(text, &t) == 0) {
        if (!t.host[0] || !t.port || t.port > 65535)
            __builtin_trap();
        zc_check_proxy(&t, proxy, sizeof(proxy), &variable);
    }
    return 0;
}
