/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See lzw.h. The reader keeps for each code its prefix code and last byte, and writes a string from
 * its end to its beginning. The writer finds (prefix, byte) in a hash table of twice the number of
 * codes. Both tables lie on the stack (12 and 32 KiB). After Welch, "A Technique for
 * High-Performance Data Compression" (1984).
 */
#include "member/lzw.h"

#include <errno.h>
#include <string.h>

#define CLEAR 256u
#define END 257u
#define WIDTH_MIN 9u
#define WIDTH_MAX 12u
#define CODES (1u << WIDTH_MAX)
#define NONE UINT32_MAX

/* ---- reading ---- */

struct reader {
    uint16_t prefix[CODES];
    uint8_t suffix[CODES];
    uint32_t last;  /* the code before; NONE after a clear, and when the table is full */
    uint32_t next;  /* the highest code in use: the one that this code will define */
    uint32_t width; /* bits */
};

/* Appends the string of `code`; its first byte becomes the end of the string that is defined now.
 */
static int read_code(struct reader *t, struct zc_buf *b, uint32_t code)
{
    uint8_t out[CODES];
    size_t at = CODES;
    uint32_t c = code;
    bool own = code == t->next && t->last != NONE;       /* a string that is defined by itself */
    bool full = t->last == NONE && t->next == CODES - 1; /* then the last code is defined, too */
    if (code >= CLEAR && !own && (code <= END || code >= t->next + full))
        return -EBADMSG;
    if (own) {
        c = t->last;
        at--; /* its last byte is its first, known below */
    }
    while (c >= CLEAR) {
        out[--at] = t->suffix[c];
        c = t->prefix[c];
    }
    out[--at] = (uint8_t)c;
    if (own)
        out[CODES - 1] = (uint8_t)c;
    if (t->last != NONE) {
        t->suffix[t->next] = (uint8_t)c;
        t->prefix[t->next] = (uint16_t)t->last;
    }
    return zc_buf_add(b, out + at, CODES - at);
}

int zc_lzw_read(struct zc_buf *b, const uint8_t *in, size_t n)
{
    struct reader t;
    t.last = NONE;
    t.next = END;
    t.width = WIDTH_MIN;
    uint32_t bits = 0, have = 0;
    size_t at = 0;
    for (;;) {
        while (have < t.width) {
            if (at == n)
                return -EBADMSG;
            bits |= (uint32_t)in[at++] << have;
            have += 8;
        }
        uint32_t code = bits & ((1u << t.width) - 1);
        bits >>= t.width;
        have -= t.width;
        if (code == END)
            return 0;
        if (code == CLEAR) {
            t.last = NONE;
            t.next = END;
            t.width = WIDTH_MIN;
            continue;
        }
        int r = read_code(&t, b, code);
        if (r < 0)
            return r;
        t.last = code;
        t.next++;
        if (t.next >= 1u << t.width) {
            if (t.width < WIDTH_MAX) {
                t.width++;
            } else { /* full: nothing is defined until the table is cleared */
                t.last = NONE;
                t.next--;
            }
        }
    }
}

/* ---- writing ---- */

#define SLOTS (2 * CODES)
#define EMPTY 0u

struct writer {
    struct zc_buf *b;
    uint32_t bits, have;
    uint32_t next, width;
    uint32_t slots[SLOTS]; /* (prefix << 8 | byte) << 12 | code; no code is 0 */
};

static void put_code(struct writer *w, uint32_t code)
{
    w->bits |= code << w->have;
    w->have += w->width;
    while (w->have >= 8) {
        zc_buf_addc(w->b, (char)w->bits);
        w->bits >>= 8;
        w->have -= 8;
    }
}

static void start_table(struct writer *w)
{
    memset(w->slots, 0, sizeof(w->slots));
    w->next = END;
    w->width = WIDTH_MIN;
}

/* The slot of a string: its own, or the free one where it goes. */
static uint32_t *find(struct writer *w, uint32_t key)
{
    uint32_t i = key * 2654435761u >> 19 & (SLOTS - 1);
    while (w->slots[i] != EMPTY && w->slots[i] >> WIDTH_MAX != key)
        i = (i + 1) & (SLOTS - 1);
    return &w->slots[i];
}

/* Counts the code that the reader defines with the one just written. False: the table was cleared.
 */
static bool next_code(struct writer *w)
{
    w->next++;
    if (w->next == 1u << w->width && w->width < WIDTH_MAX)
        w->width++;
    if (w->next < CODES - 1)
        return true;
    put_code(w, CLEAR);
    start_table(w);
    return false;
}

int zc_lzw_write(struct zc_buf *b, const uint8_t *in, size_t n)
{
    struct writer w = {.b = b};
    start_table(&w);
    put_code(&w, CLEAR);
    if (n > 0) {
        uint32_t prefix = in[0];
        for (size_t i = 1; i < n; i++) {
            uint32_t key = prefix << 8 | in[i];
            uint32_t *slot = find(&w, key);
            if (*slot != EMPTY) {
                prefix = *slot & (CODES - 1);
                continue;
            }
            put_code(&w, prefix);
            prefix = in[i];
            if (next_code(&w))
                *slot = key << WIDTH_MAX | w.next;
        }
        put_code(&w, prefix);
        next_code(&w);
    }
    put_code(&w, END);
    if (w.have > 0)
        zc_buf_addc(b, (char)w.bits);
    return b->failed ? -EMSGSIZE : 0;
}
