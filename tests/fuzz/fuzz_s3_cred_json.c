/* SPDX-License-Identifier: Apache-2.0 */
/* What metadata services, processes, the SSO portal and the SSO cache say: each decoder sees the
 * same bytes. */
#include "backend/s3_cred_priv.h"

#include <errno.h>
#include <string.h>

/* It may end up in a header line. */
static void header_safe(const char *s)
{
    if (!s || !s[0] || strpbrk(s, "\r\n \t"))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *p = (const char *)data;
    struct zc_error why = {0};
    for (int kind = S3_ANSWER_METADATA; kind <= S3_ANSWER_SSO; kind++) {
        struct s3_fields f = {0};
        if (s3_decode_json((enum s3_answer_kind)kind, p, size, &f, &why) == 0) {
            header_safe(f.id);
            header_safe(f.secret);
            if (f.token)
                header_safe(f.token);
            if (!f.expires_ns && kind != S3_ANSWER_PROCESS)
                __builtin_trap();
            s3_fields_free(&f);
        } else if (f.id || f.secret || f.token || why.code != -EBADMSG) {
            __builtin_trap();
        }
    }
    char said[64];
    s3_decode_refusal(p, size, said, sizeof(said));
    if (!memchr(said, 0, sizeof(said)) || strpbrk(said, "\r\n"))
        __builtin_trap();

    struct s3_sso_token t = {0};
    if (s3_decode_sso_file(p, size, &t, &why) == 0) {
        header_safe(t.access);
        if (!t.client_id != !t.refresh || !t.client_id != !t.client_secret)
            __builtin_trap();
    }
    s3_sso_token_free(&t);
    char *access = NULL, *refresh = NULL;
    int64_t life = 0;
    if (s3_decode_sso_created(p, size, &access, &refresh, &life, &why) == 0) {
        header_safe(access);
        if (life <= 0)
            __builtin_trap();
    }
    free(access);
    free(refresh);
    return 0;
}
