/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes ask and tell each other about warm jobs: any JSON is a question, and an answer. */
#include "cli/cluster_warm.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct zc_warm_jobs *jobs = zc_warm_jobs_new();
    json_t *v = json_loadb((const char *)data, size, JSON_DECODE_ANY, NULL);
    struct zc_warm_stats s, again;
    struct zc_error err = {0};

    if (!jobs)
        return 0;
    zc_warm_unjson(v, &s);
    if (!memchr(s.error, 0, sizeof(s.error)))
        __builtin_trap();
    /* What was understood is told in the same way; numbers stay in the range of JSON's. */
    json_t *told = zc_warm_json(&s);
    if (!told)
        __builtin_trap();
    zc_warm_unjson(told, &again);
    if (again.files_done != s.files_done || again.bytes_done != s.bytes_done ||
        again.failed != s.failed || again.finished != s.finished)
        __builtin_trap();
    json_decref(told);
    /* There are no jobs. */
    if (zc_warm_jobs_poll(jobs, v, &err) || zc_warm_jobs_end(jobs, v, &err) || !err.text[0])
        __builtin_trap();
    json_decref(v);
    zc_warm_jobs_free(jobs);
    return 0;
}
