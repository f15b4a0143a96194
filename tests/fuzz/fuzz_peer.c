/* SPDX-License-Identifier: Apache-2.0 */
/* What nodes say to each other: 'q' a question (a line for each parameter, "key=value"), 'a' the
   header lines of an answer, a blank line and its body, which comes in pieces of the size that the
   second byte tells. */
#include "peer/body.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static void fuzz_question(const char *p, size_t n)
{
    struct peer_request *r = calloc(1, sizeof(*r));
    const char *end = p + n;
    bool ok = true;
    while (p < end && ok) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        const char *stop = nl ? nl : end, *eq = memchr(p, '=', (size_t)(stop - p));
        char key[32] = "";
        if (eq && eq - p < (ptrdiff_t)sizeof(key)) {
            memcpy(key, p, (size_t)(eq - p));
            ok = peer_request_set(r, key, eq + 1, (size_t)(stop - eq - 1)) == 0;
        }
        p = nl ? nl + 1 : end;
    }
    if (ok && peer_request_check(r) == 0) {
        struct zc_buf b = {0};
        if (r->len == 0 || r->off + r->len > r->size || !r->source[0] || !r->path[0])
            __builtin_trap();
        peer_request_target(r, &b);
        if (b.failed || strncmp(b.p, PEER_TARGET "?", sizeof(PEER_TARGET)) != 0)
            __builtin_trap();
        zc_buf_free(&b);
    }
    free(r);
}

struct delivered {
    const struct peer_answer *a;
    uint64_t n;
};

static int fuzz_deliver(void *user, const void *p, size_t n)
{
    struct delivered *d = user;
    d->n += n;
    if (n == 0 || d->n > d->a->len)
        __builtin_trap();
    return 0;
}

static void fuzz_body(const struct peer_answer *a, const uint8_t *p, size_t n, size_t step)
{
    struct peer_body b;
    struct delivered d = {.a = a};
    int r = 0;
    peer_body_init(&b, a, 0, fuzz_deliver, &d);
    while (n && r == 0) {
        /* In memory of its own, so that a read past its end is seen. */
        size_t take = ZC_MIN(n, step);
        uint8_t *piece = malloc(take);
        memcpy(piece, p, take);
        r = peer_body_data(&b, piece, take);
        free(piece);
        p += take;
        n -= take;
    }
    if (b.pos != d.n || (r == -EBADMSG) != b.bad)
        __builtin_trap();
    if (r == 0 && a->state == PEER_STATE_HIT && peer_body_whole(&b) && d.n != a->len)
        __builtin_trap();
    peer_body_free(&b);
}

static void fuzz_answer(const uint8_t *p, size_t n, size_t step)
{
    struct peer_answer *a = calloc(1, sizeof(*a));
    const uint8_t *end = p + n;
    bool ok = true;
    while (p < end && *p != '\n' && ok) {
        const uint8_t *nl = memchr(p, '\n', (size_t)(end - p));
        const uint8_t *stop = nl ? nl : end;
        ok = peer_answer_line(a, (const char *)p, (size_t)(stop - p)) == 0;
        p = nl ? nl + 1 : end;
    }
    if (a->n_sums > PEER_PIECES_MAX || a->n_refers > PEER_REFERS)
        __builtin_trap();
    if (ok && p < end && peer_answer_check(a, a->object, a->off, a->len) == 0)
        fuzz_body(a, p + 1, (size_t)(end - p - 1), step);
    free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2)
        return 0;
    if (data[0] == 'q')
        fuzz_question((const char *)data + 2, size - 2);
    else
        fuzz_answer(data + 2, size - 2, 1 + data[1] * 8U);
    return 0;
}
