/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Label, encryption, CRC and compression around packets and streams: what real nodes sent is
 * opened, what we seal opens again, and nothing else does. Key files.
 */
#include "member/frame.h"
#include "golden_frames.h"
#include "hexbytes.h"

#include <errno.h>

static struct zc_keyring *ring(int n)
{
    uint8_t key[32];
    for (int i = 0; i < 32; i++)
        key[i] = (uint8_t)i;
    struct zc_keyring *k = n ? zc_keyring_new(key, (size_t)n) : NULL;
    assert_true(!n == !k);
    return k;
}

static char *user_text(void)
{
    static char text[256];
    text[0] = '\0';
    for (int i = 0; i < 12; i++)
        strcat(text, "alpha beta gamma ");
    return text;
}

/* A message within, perhaps compressed still. */
static void assert_user(const struct zc_buf *b)
{
    zc_autobuf struct zc_buf plain = {0};
    const uint8_t *p = (const uint8_t *)b->p;
    size_t n = b->len, len = strlen(user_text());
    if (p[0] == ZC_WIRE_COMPRESS) {
        assert_int_equal(zc_wire_decompress(p + 1, n - 1, &plain), 0);
        p = (const uint8_t *)plain.p;
        n = plain.len;
    }
    assert_int_equal(p[0], ZC_WIRE_USER);
    assert_true(n >= len + 1);
    assert_memory_equal(p + n - len, user_text(), len);
}

static void test_golden_packets(void **state)
{
    (void)state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(golden_frames); i++) {
        const struct golden_frame *g = &golden_frames[i];
        struct zc_keyring *k = ring(g->key), *other = ring(g->key == 16 ? 24 : 16);
        struct zc_frame f;
        zc_autobuf struct zc_buf b = {0};
        uint8_t p[1024];
        size_t n = hex_bytes(g->udp, p, sizeof(p));
        assert_int_equal(zc_frame_init(&f, g->label, k, false), 0);
        assert_int_equal(zc_frame_open_packet(&f, p, n, &b), 0);
        assert_user(&b);
        /* Any bit turned, another key, another label, no key, no label: nothing opens. */
        for (size_t at = 0; at < n; at++) {
            if (!k && p[at] == ZC_WIRE_CRC)
                continue; /* then it is no message of the kind that has a CRC */
            p[at] ^= 0x10;
            zc_buf_reset(&b);
            assert_int_equal(zc_frame_open_packet(&f, p, n, &b), -EBADMSG);
            assert_int_equal(b.len, 0);
            p[at] ^= 0x10;
        }
        f.keys = other;
        assert_int_equal(zc_frame_open_packet(&f, p, n, &b), -EBADMSG);
        f.keys = NULL;
        if (k) { /* garbage then, which no message starts with, or a wrong CRC */
            zc_buf_reset(&b);
            int r = zc_frame_open_packet(&f, p, n, &b);
            assert_true(r == -EBADMSG || b.p[0] == 0 || b.p[0] == 1);
        }
        f.keys = k;
        zc_frame_init(&f, g->label ? "zc-test" : "zc-prod", k, false);
        zc_buf_reset(&b);
        assert_int_equal(zc_frame_open_packet(&f, p, n, &b), -EBADMSG);
        zc_frame_free(&f);
        zc_keyring_free(k);
        zc_keyring_free(other);
    }
}

static void test_golden_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < ZC_ARRAY_SIZE(golden_frames); i++) {
        const struct golden_frame *g = &golden_frames[i];
        struct zc_keyring *k = ring(g->key);
        struct zc_frame f;
        uint8_t p[1024];
        size_t n = hex_bytes(g->tcp, p, sizeof(p));
        zc_frame_init(&f, g->label, k, false);
        struct zc_frame_stream s = {0};
        for (size_t at = 0; at < n; at++) { /* byte by byte */
            int r = zc_frame_open_stream(&f, &s, true);
            assert_int_equal(r, 0);
            zc_buf_add(&s.in, p + at, 1);
        }
        assert_int_equal(zc_frame_open_stream(&f, &s, true), 1);
        assert_user(&s.out);
        zc_frame_stream_free(&s);
        for (size_t at = 0; g->key && at < n; at++) {
            struct zc_frame_stream t = {0};
            p[at] ^= 0x10;
            zc_buf_add(&t.in, p, n);
            assert_true(zc_frame_open_stream(&f, &t, true) <= 0);
            assert_int_equal(t.out.len, 0);
            p[at] ^= 0x10;
            zc_frame_stream_free(&t);
        }
        zc_frame_free(&f);
        zc_keyring_free(k);
    }
}

static void test_round(void **state)
{
    (void)state;
    static const int keys[] = {0, 16, 24, 32};
    for (size_t i = 0; i < 16; i++) {
        struct zc_keyring *k = ring(keys[i & 3]);
        struct zc_frame f;
        zc_frame_init(&f, i & 4 ? "a label" : NULL, k, i & 8);
        zc_autobuf struct zc_buf msg = {0}, b = {0}, out = {0};
        zc_buf_addc(&msg, ZC_WIRE_USER);
        zc_buf_adds(&msg, user_text());
        for (int crc = 0; crc < 2; crc++) {
            zc_buf_reset(&b);
            zc_buf_reset(&out);
            assert_int_equal(zc_frame_seal_packet(&f, (uint8_t *)msg.p, msg.len, crc, &b), 0);
            assert_true(b.len <= msg.len + zc_frame_overhead(&f));
            assert_int_equal(zc_frame_open_packet(&f, (uint8_t *)b.p, b.len, &out), 0);
            assert_user(&out);
        }
        /* The side that answers writes no label, but binds it. */
        zc_autobuf struct zc_buf pp = {0};
        struct zc_wire_push_pull head = {.nodes = 0, .user_len = 5};
        zc_wire_write_push_pull(&pp, &head);
        zc_buf_adds(&pp, "hello");
        for (int first = 0; first < 2; first++) {
            struct zc_frame_stream s = {0};
            assert_int_equal(zc_frame_seal_stream(&f, (uint8_t *)pp.p, pp.len, first, &s.in), 0);
            assert_int_equal(zc_frame_open_stream(&f, &s, first), 1);
            assert_int_equal(s.out.len, pp.len);
            assert_memory_equal(s.out.p, pp.p, pp.len);
            if (k && f.label_len) {
                struct zc_frame other = f;
                other.label[0] ^= 1;
                zc_buf_reset(&s.out);
                assert_int_equal(zc_frame_open_stream(&other, &s, first), -EBADMSG);
            }
            zc_frame_stream_free(&s);
        }
        zc_frame_free(&f);
        zc_keyring_free(k);
    }
}

static void test_bounds(void **state)
{
    (void)state;
    struct zc_keyring *k = ring(32);
    struct zc_frame f;
    zc_frame_init(&f, NULL, k, false);
    struct zc_frame_stream s = {0};
    zc_buf_add(&s.in, "\x0a\x01\x40\x00\x01", 5); /* 20 MiB and a byte */
    assert_int_equal(zc_frame_open_stream(&f, &s, true), -EMSGSIZE);
    zc_frame_stream_free(&s);
    zc_autobuf struct zc_buf b = {0};
    uint8_t short_packet[28] = {1};
    for (size_t n = 0; n <= sizeof(short_packet); n++)
        assert_int_equal(zc_frame_open_packet(&f, short_packet, n, &b), -EBADMSG);
    char label[300];
    memset(label, 'x', 256);
    label[256] = '\0';
    assert_int_equal(zc_frame_init(&f, label, k, false), -EINVAL);
    zc_keyring_free(k);
}

/* Old and new key in the three steps of an exchange. */
static void test_rotation(void **state)
{
    (void)state;
    static const char *const files[] = {
        "AAECAwQFBgcICQoLDA0ODw==\n",
        "AAECAwQFBgcICQoLDA0ODw==\n# next\n101112131415161718191a1b1c1d1e1f\n",
        "101112131415161718191a1b1c1d1e1f\nAAECAwQFBgcICQoLDA0ODw==\n",
        "\n  101112131415161718191a1b1c1d1e1f \r\n",
    };
    struct zc_keyring *k[4];
    for (int i = 0; i < 4; i++) {
        struct zc_error e = {0};
        assert_int_equal(zc_keyring_parse(files[i], strlen(files[i]), &k[i], &e), 0);
        assert_int_equal(zc_keyring_count(k[i]), i == 1 || i == 2 ? 2 : 1);
    }
    for (int a = 0; a < 4; a++)
        for (int c = 0; c < 4; c++) {
            zc_autobuf struct zc_buf sealed = {0}, out = {0};
            assert_int_equal(zc_crypt_seal(k[a], NULL, 0, (uint8_t *)"hi", 2, &sealed), 0);
            int r = zc_crypt_open(k[c], NULL, 0, (uint8_t *)sealed.p, sealed.len, &out);
            bool apart = (a < 2 && c == 3) || (a >= 2 && c == 0);
            assert_int_equal(r, apart ? -EBADMSG : 0);
        }
    for (int i = 0; i < 4; i++)
        zc_keyring_free(k[i]);
}

static void test_key_files(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "# nothing\n",
        "short\n",
        "AAECAwQFBgcICQoLDA0O\n",
        "AAECAwQFBgcICQoLDA0OD*==\n",
        "AAECAwQFBgcICQoLDA0ODx==\n", /* bits beyond the end */
        "101112131415161718191a1b1c1d1e1f101112131415161g\n",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        struct zc_keyring *k = NULL;
        struct zc_error e = {0};
        assert_int_equal(zc_keyring_parse(bad[i], strlen(bad[i]), &k, &e), -EINVAL);
        assert_null(k);
        assert_true(strlen(e.text) > 10);
        assert_null(strstr(e.text, "AAEC")); /* words never hold a key */
    }
    zc_autobuf struct zc_buf many = {0};
    for (int i = 0; i < 17; i++)
        zc_buf_adds(&many, "101112131415161718191a1b1c1d1e1f\n");
    struct zc_keyring *k;
    assert_int_equal(zc_keyring_parse(many.p, many.len, &k, NULL), -EINVAL);
    assert_int_equal(zc_keyring_parse(many.p, many.len - 33, &k, NULL), 0);
    size_t n;
    assert_hex(zc_keyring_primary(k, &n), 16, "101112131415161718191a1b1c1d1e1f");
    assert_int_equal(n, 16);
    zc_keyring_free(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden_packets), cmocka_unit_test(test_golden_streams),
        cmocka_unit_test(test_round),          cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_rotation),       cmocka_unit_test(test_key_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
