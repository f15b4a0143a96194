/* SPDX-License-Identifier: Apache-2.0 */
/*
 * See crypt.h. Each key keeps one context for either direction, whose key schedule is made once; a
 * packet then costs a nonce and the cipher itself. Trying another key on a packet costs as much as
 * decrypting it, so a ring has 16 keys at the most.
 */
#include "member/crypt.h"

#include <errno.h>
#include <string.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

struct key {
    uint8_t bytes[32];
    size_t len;
    EVP_CIPHER_CTX *seal, *open;
};

struct zc_keyring {
    struct key keys[ZC_KEYRING_MAX];
    size_t n;
};

static int ring_add(struct zc_keyring *k, const uint8_t *key, size_t n)
{
    const EVP_CIPHER *c = n == 16   ? EVP_aes_128_gcm()
                          : n == 24 ? EVP_aes_192_gcm()
                          : n == 32 ? EVP_aes_256_gcm()
                                    : NULL;
    if (!c || k->n == ZC_KEYRING_MAX)
        return -EINVAL;
    struct key *new = &k->keys[k->n++];
    memcpy(new->bytes, key, n);
    new->len = n;
    new->seal = EVP_CIPHER_CTX_new();
    new->open = EVP_CIPHER_CTX_new();
    if (!new->seal || !new->open || !EVP_EncryptInit_ex(new->seal, c, NULL, new->bytes, NULL) ||
        !EVP_DecryptInit_ex(new->open, c, NULL, new->bytes, NULL))
        return -ENOMEM;
    return 0;
}

struct zc_keyring *zc_keyring_new(const uint8_t *key, size_t n)
{
    struct zc_keyring *k = calloc(1, sizeof(*k));
    if (k && ring_add(k, key, n) < 0) {
        zc_keyring_free(k);
        k = NULL;
    }
    return k;
}

void zc_keyring_free(struct zc_keyring *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->n; i++) {
        EVP_CIPHER_CTX_free(k->keys[i].seal);
        EVP_CIPHER_CTX_free(k->keys[i].open);
    }
    OPENSSL_cleanse(k, sizeof(*k));
    free(k);
}

size_t zc_keyring_count(const struct zc_keyring *k)
{
    return k->n;
}

const uint8_t *zc_keyring_primary(const struct zc_keyring *k, size_t *n)
{
    *n = k->keys[0].len;
    return k->keys[0].bytes;
}

const uint8_t *zc_keyring_key(const struct zc_keyring *k, size_t i, size_t *n)
{
    *n = k->keys[i].len;
    return k->keys[i].bytes;
}

/* ---- key files ---- */

static int hex_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

static int base64_value(char c)
{
    return c >= 'A' && c <= 'Z'   ? c - 'A'
           : c >= 'a' && c <= 'z' ? c - 'a' + 26
           : c >= '0' && c <= '9' ? c - '0' + 52
           : c == '+' || c == '-' ? 62
           : c == '/' || c == '_' ? 63
                                  : -1;
}

/* The bytes of one line; 0 when it is neither hex nor base64 of a key. */
static size_t key_decode(const char *s, size_t n, uint8_t out[32])
{
    if (n == 32 || n == 48 || n == 64) {
        size_t i = 0;
        while (i < n && hex_value(s[i]) >= 0)
            i++;
        if (i == n) {
            for (i = 0; i < n / 2; i++)
                out[i] = (uint8_t)(hex_value(s[2 * i]) << 4 | hex_value(s[2 * i + 1]));
            return n / 2;
        }
    }
    while (n > 0 && s[n - 1] == '=')
        n--;
    size_t len = n * 6 / 8;
    if (len != 16 && len != 24 && len != 32)
        return 0;
    uint32_t bits = 0, have = 0;
    size_t at = 0;
    for (size_t i = 0; i < n; i++) {
        int v = base64_value(s[i]);
        if (v < 0)
            return 0;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8) {
            have -= 8;
            if (at < len)
                out[at++] = (uint8_t)(bits >> have);
        }
    }
    return (bits & ((1u << have) - 1)) == 0 ? len : 0;
}

int zc_keyring_parse(const char *text, size_t n, struct zc_keyring **out, struct zc_error *e)
{
    struct zc_keyring *k = calloc(1, sizeof(*k));
    if (!k)
        return zc_error_set(e, -ENOMEM, "out of memory");
    int r = 0, line = 0;
    for (size_t at = 0; at < n && r == 0;) {
        const char *s = text + at, *nl = memchr(s, '\n', n - at);
        size_t len = nl ? (size_t)(nl - s) : n - at;
        at += len + 1;
        line++;
        while (len > 0 && strchr(" \t\r", s[len - 1]) && s[len - 1])
            len--;
        while (len > 0 && (*s == ' ' || *s == '\t')) {
            s++;
            len--;
        }
        if (len == 0 || *s == '#')
            continue;
        uint8_t key[32];
        size_t key_len = key_decode(s, len, key);
        if (key_len == 0)
            r = zc_error_set(e, -EINVAL,
                             "line %d is no key: 16, 24 or 32 bytes in base64 or hex are expected "
                             "(openssl rand -base64 32 makes one)",
                             line);
        else if (k->n == ZC_KEYRING_MAX)
            r = zc_error_set(e, -EINVAL, "more than %d keys", ZC_KEYRING_MAX);
        else if (ring_add(k, key, key_len) < 0)
            r = zc_error_set(e, -EINVAL, "OpenSSL refuses the key in line %d", line);
        OPENSSL_cleanse(key, sizeof(key));
    }
    if (r == 0 && k->n == 0)
        r = zc_error_set(e, -EINVAL, "there is no key in it");
    if (r < 0)
        zc_keyring_free(k);
    else
        *out = k;
    return r;
}

/* ---- packets ---- */

int zc_crypt_seal(struct zc_keyring *k, const uint8_t *aad, size_t aad_len, const uint8_t *in,
                  size_t n, struct zc_buf *b)
{
    if (n > INT32_MAX - 64 || aad_len > INT32_MAX)
        return -EMSGSIZE;
    int r = zc_buf_reserve(b, n + ZC_CRYPT_OVERHEAD);
    if (r < 0)
        return r;
    uint8_t *out = (uint8_t *)b->p + b->len, *nonce = out + 1, *text = nonce + ZC_CRYPT_NONCE;
    EVP_CIPHER_CTX *c = k->keys[0].seal;
    int len = 0, rest = 0;
    *out = 1;
    if (RAND_bytes(nonce, ZC_CRYPT_NONCE) != 1 || !EVP_EncryptInit_ex(c, NULL, NULL, NULL, nonce) ||
        (aad_len > 0 && !EVP_EncryptUpdate(c, NULL, &len, aad, (int)aad_len)) ||
        !EVP_EncryptUpdate(c, text, &len, in, (int)n) || !EVP_EncryptFinal_ex(c, text + n, &rest) ||
        !EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_GET_TAG, ZC_CRYPT_TAG, text + n))
        return -EIO;
    b->len += n + ZC_CRYPT_OVERHEAD;
    return 0;
}

static bool key_opens(struct key *k, const uint8_t *aad, size_t aad_len, const uint8_t *nonce,
                      const uint8_t *text, size_t n, uint8_t *out)
{
    EVP_CIPHER_CTX *c = k->open;
    uint8_t tag[ZC_CRYPT_TAG];
    int len = 0;
    memcpy(tag, text + n, sizeof(tag));
    return EVP_DecryptInit_ex(c, NULL, NULL, NULL, nonce) &&
           (aad_len == 0 || EVP_DecryptUpdate(c, NULL, &len, aad, (int)aad_len)) &&
           EVP_DecryptUpdate(c, out, &len, text, (int)n) &&
           EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_GCM_SET_TAG, ZC_CRYPT_TAG, tag) &&
           EVP_DecryptFinal_ex(c, out + n, &len) > 0;
}

int zc_crypt_open(struct zc_keyring *k, const uint8_t *aad, size_t aad_len, const uint8_t *in,
                  size_t n, struct zc_buf *b)
{
    if (n < ZC_CRYPT_OVERHEAD || n > INT32_MAX || aad_len > INT32_MAX || in[0] > 1)
        return -EBADMSG;
    const uint8_t *nonce = in + 1, *text = nonce + ZC_CRYPT_NONCE;
    size_t len = n - ZC_CRYPT_OVERHEAD;
    int r = zc_buf_reserve(b, len + 1);
    if (r < 0)
        return r;
    uint8_t *out = (uint8_t *)b->p + b->len;
    for (size_t i = 0; i < k->n; i++) {
        if (!key_opens(&k->keys[i], aad, aad_len, nonce, text, len, out))
            continue;
        if (in[0] == 0) { /* the tag has vouched for the padding; only its form is checked */
            if (len == 0 || out[len - 1] == 0 || out[len - 1] > 16 || out[len - 1] > len)
                return -EBADMSG;
            len -= out[len - 1];
        }
        b->len += len;
        return 0;
    }
    OPENSSL_cleanse(out, len);
    return -EBADMSG;
}
