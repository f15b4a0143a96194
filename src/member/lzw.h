/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LZW as Go's compress/lzw has it with LSB first and 8-bit literals, which is how memberlist
 * compresses (the format of GIF): codes start with 9 bits, 256 clears the table, 257 ends, the
 * first free code is 258, codes grow to 12 bits. No state, any thread.
 */
#ifndef ZC_MEMBER_LZW_H
#define ZC_MEMBER_LZW_H

#include "base/base.h"
#include "base/buf.h"

/* Appends what in[0..n) holds compressed. -EBADMSG when it is no such stream or has no end;
   -EMSGSIZE or -ENOMEM from the buffer, whose ceiling bounds what a small input may become. */
int zc_lzw_read(struct zc_buf *b, const uint8_t *in, size_t n);
/* Appends in[0..n), compressed. 0 or the buffer's error. */
int zc_lzw_write(struct zc_buf *b, const uint8_t *in, size_t n);

#endif
