/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys of the gossip and their use: AES-GCM by OpenSSL, in memberlist's form
 *
 *     version(1) nonce(12) ciphertext tag(16)        version 1: as is; 0: padded to 16 (PKCS#7)
 *
 * Version 1 is written, both are read. A key ring is an ordered list: the first key encrypts, all
 * decrypt. So a key is exchanged in three steps: add the new one behind the old one everywhere,
 * move it to the front everywhere, take the old one away everywhere.
 *
 * A ring is used by one thread at a time (OpenSSL's contexts are kept in it).
 */
#ifndef ZC_MEMBER_CRYPT_H
#define ZC_MEMBER_CRYPT_H

#include "base/base.h"
#include "base/buf.h"
#include "base/error.h"

#define ZC_KEYRING_MAX 16
#define ZC_CRYPT_NONCE 12
#define ZC_CRYPT_TAG 16
#define ZC_CRYPT_OVERHEAD (1 + ZC_CRYPT_NONCE + ZC_CRYPT_TAG) /* of version 1 */

struct zc_keyring;

/* From the text of a key file: one key a line, 16, 24 or 32 bytes in base64 (what memberlist's
   users have) or hex; empty lines and lines that start with # do not count; the first key encrypts.
   Returns 0 and *out, which the caller frees; -EINVAL with words, which name the line but not the
   key. */
int zc_keyring_parse(const char *text, size_t n, struct zc_keyring **out, struct zc_error *e);
/* A ring of one key. NULL when memory is short or the length is not 16, 24 or 32. */
struct zc_keyring *zc_keyring_new(const uint8_t *key, size_t n);
/* Wipes the keys. NULL is allowed. */
void zc_keyring_free(struct zc_keyring *k);
size_t zc_keyring_count(const struct zc_keyring *k);
/* The first key, for deriving others; *n is its length. */
const uint8_t *zc_keyring_primary(const struct zc_keyring *k, size_t *n);
/* The i-th of zc_keyring_count. */
const uint8_t *zc_keyring_key(const struct zc_keyring *k, size_t i, size_t *n);

/* Appends in[0..n) encrypted and bound to aad. The nonce is drawn from OpenSSL's generator.
   0, -EIO (OpenSSL), or the buffer's error. */
int zc_crypt_seal(struct zc_keyring *k, const uint8_t *aad, size_t aad_len, const uint8_t *in,
                  size_t n, struct zc_buf *b);
/* Appends what in[0..n) holds. -EBADMSG when no key fits. */
int zc_crypt_open(struct zc_keyring *k, const uint8_t *aad, size_t aad_len, const uint8_t *in,
                  size_t n, struct zc_buf *b);

#endif
