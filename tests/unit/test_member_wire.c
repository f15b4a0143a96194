/* SPDX-License-Identifier: Apache-2.0 */
/*
 * memberlist's messages: the bytes that real nodes send (v0.7.0, captured), read and written; what
 * a Go node accepts beyond them; what must be refused; compound, compress, CRC; where streams end.
 */
#include "member/lzw.h"
#include "member/wire.h"
#include "hexbytes.h"

#include <errno.h>

static const uint8_t addr_alpha[] = {127, 0, 7, 1}, addr_beta[] = {127, 0, 7, 2};
static const uint8_t vsn[] = {1, 5, 2, 0, 0, 0};

static struct zc_bytes str(const char *s)
{
    return (struct zc_bytes){(const uint8_t *)s, strlen(s)};
}

static struct zc_bytes bytes(const void *p, size_t n)
{
    return (struct zc_bytes){p, n};
}

static void assert_str(struct zc_bytes b, const char *s)
{
    assert_int_equal(b.len, strlen(s));
    assert_memory_equal(b.p, s, b.len);
}

#define PING                                                                                       \
    "0085a44e6f6465a567616d6d61a55365714e6f01aa536f7572636541646472a47f000701aa536f757263654e6f"   \
    "6465a5616c706861aa536f75726365506f7274cd1f0a"
#define INDIRECT                                                                                   \
    "0188a44e61636bc3a44e6f6465a462657461a4506f7274cd1f0aa55365714e6f04aa536f7572636541646472a4"   \
    "7f000701aa536f757263654e6f6465a5616c706861aa536f75726365506f7274cd1f0aa6546172676574a47f00"   \
    "0702"
#define SUSPECT "0383a446726f6da5616c706861ab496e6361726e6174696f6e02a44e6f6465a462657461"
#define DEAD "0583a446726f6da5616c706861ab496e6361726e6174696f6e03a44e6f6465a462657461"
#define ALIVE                                                                                      \
    "0486a441646472a47f000702ab496e6361726e6174696f6e02a44d657461ac7261636b3d322c7570643d31a44e"   \
    "6f6465a462657461a4506f7274cd1f0aa356736ea6010502000000"
#define PUSH_PULL                                                                                  \
    "0683a44a6f696ec3a54e6f64657301ac5573657253746174654c656e0b87a441646472a47f000702ab496e6361"   \
    "726e6174696f6e01a44d657461a67261636b3d32a44e616d65a462657461a4506f7274cd1f0aa5537461746500"   \
    "a356736ea60105020000007573746174652d62657461"

static void test_ping(void **state)
{
    (void)state;
    zc_autobuf struct zc_buf b = {0};
    struct zc_wire_ping m = {
        .node = str("gamma"),
        .seq = 1,
        .source_addr = bytes(addr_alpha, 4),
        .source_node = str("alpha"),
        .source_port = 7946,
    };
    assert_int_equal(zc_wire_write_ping(&b, &m), 0);
    assert_hex(b.p, b.len, PING);
    struct zc_wire_ping r;
    assert_int_equal(zc_wire_read_ping((uint8_t *)b.p + 1, b.len - 1, &r), 0);
    assert_str(r.node, "gamma");
    assert_str(r.source_node, "alpha");
    assert_int_equal(r.seq, 1);
    assert_int_equal(r.source_port, 7946);
    /* What may be left out is left out. */
    zc_buf_reset(&b);
    struct zc_wire_ping bare = {.node = str("x"), .seq = 300};
    zc_wire_write_ping(&b, &bare);
    assert_hex(b.p, b.len, "0082a44e6f6465a178a55365714e6fcd012c");
}

static void test_others(void **state)
{
    (void)state;
    zc_autobuf struct zc_buf b = {0};
    struct zc_wire_indirect ind = {
        .node = str("beta"),
        .target = bytes(addr_beta, 4),
        .port = 7946,
        .seq = 4,
        .nack = true,
        .source_addr = bytes(addr_alpha, 4),
        .source_node = str("alpha"),
        .source_port = 7946,
    };
    zc_wire_write_indirect(&b, &ind);
    assert_hex(b.p, b.len, INDIRECT);
    struct zc_wire_indirect ind2;
    assert_int_equal(zc_wire_read_indirect((uint8_t *)b.p + 1, b.len - 1, &ind2), 0);
    assert_true(ind2.nack);
    assert_memory_equal(ind2.target.p, addr_beta, 4);
    zc_buf_reset(&b);
    struct zc_wire_ack ack = {.seq = 1};
    zc_wire_write_ack(&b, &ack);
    assert_hex(b.p, b.len, "0282a75061796c6f6164c0a55365714e6f01");
    zc_buf_reset(&b);
    struct zc_wire_nack nack = {.seq = 7};
    zc_wire_write_nack(&b, &nack);
    assert_hex(b.p, b.len, "0b81a55365714e6f07");
    zc_buf_reset(&b);
    struct zc_wire_accuse a = {.node = str("beta"), .from = str("alpha"), .incarnation = 2};
    zc_wire_write_suspect(&b, &a);
    assert_hex(b.p, b.len, SUSPECT);
    zc_buf_reset(&b);
    a.incarnation = 3;
    zc_wire_write_dead(&b, &a);
    assert_hex(b.p, b.len, DEAD);
    struct zc_wire_accuse a2;
    assert_int_equal(zc_wire_read_accuse((uint8_t *)b.p + 1, b.len - 1, &a2), 0);
    assert_int_equal(a2.incarnation, 3);
    assert_str(a2.from, "alpha");
    zc_buf_reset(&b);
    zc_wire_write_error(&b, "no");
    assert_hex(b.p, b.len, "0d81a54572726f72a26e6f");
}

static void test_alive(void **state)
{
    (void)state;
    zc_autobuf struct zc_buf b = {0};
    struct zc_wire_alive m = {
        .node = str("beta"),
        .addr = bytes(addr_beta, 4),
        .meta = str("rack=2,upd=1"),
        .vsn = bytes(vsn, 6),
        .incarnation = 2,
        .port = 7946,
    };
    zc_wire_write_alive(&b, &m);
    assert_hex(b.p, b.len, ALIVE);
    struct zc_wire_alive r;
    assert_int_equal(zc_wire_read_alive((uint8_t *)b.p + 1, b.len - 1, &r), 0);
    assert_str(r.meta, "rack=2,upd=1");
    assert_int_equal(r.port, 7946);
    /* The captured packet, CRC and all; then with a bit turned. */
    uint8_t packet[256];
    size_t n = hex_bytes("0c05b5193f" ALIVE, packet, sizeof(packet));
    const uint8_t *p = packet;
    size_t k = n;
    assert_int_equal(zc_wire_check_crc(&p, &k), 0);
    assert_ptr_equal(p, packet + 5);
    packet[n - 1] ^= 1;
    p = packet;
    k = n;
    assert_int_equal(zc_wire_check_crc(&p, &k), -EBADMSG);
    /* Empty bytes are nil; a name of 40 bytes has a long head. */
    zc_buf_reset(&b);
    m.meta.len = 0;
    m.node = str("0123456789012345678901234567890123456789");
    zc_wire_write_alive(&b, &m);
    assert_non_null(memmem(b.p, b.len, "\xa4Meta\xc0", 6));
    assert_non_null(memmem(b.p, b.len,
                           "\xa4Node\xda\x00\x28"
                           "0123",
                           12));
}

static void test_push_pull(void **state)
{
    (void)state;
    zc_autobuf struct zc_buf b = {0};
    struct zc_wire_push_pull head = {.nodes = 1, .user_len = 11, .join = true};
    struct zc_wire_alive e = {
        .node = str("beta"),
        .addr = bytes(addr_beta, 4),
        .meta = str("rack=2"),
        .vsn = bytes(vsn, 6),
        .incarnation = 1,
        .port = 7946,
    };
    zc_wire_write_push_pull(&b, &head);
    zc_wire_write_entry(&b, &e);
    zc_buf_adds(&b, "ustate-beta");
    assert_hex(b.p, b.len, PUSH_PULL);
    const uint8_t *p = (const uint8_t *)b.p;
    /* Its end is found wherever it is cut, and by one byte after the other. */
    struct zc_wire_scan inc = {0};
    for (size_t n = 0; n <= b.len; n++) {
        struct zc_wire_scan s = {0};
        int64_t want = n == b.len ? (int64_t)b.len : 0;
        assert_int_equal(zc_wire_scan(&s, p, n), want);
        assert_int_equal(zc_wire_scan(&inc, p, n), want);
    }
    struct zc_mp_reader r = {p + 1, p + b.len, false, false};
    assert_int_equal(zc_wire_next_push_pull(&r, &head), 0);
    assert_int_equal(head.user_len, 11);
    assert_int_equal(zc_wire_next_entry(&r, &e), 0);
    assert_int_equal(e.state, 0);
    assert_int_equal(r.end - r.p, 11);
    /* A Go int above 127 is signed. */
    zc_buf_reset(&b);
    head.user_len = 3000;
    zc_wire_write_push_pull(&b, &head);
    assert_non_null(memmem(b.p, b.len, "Len\xd1\x0b\xb8", 6));
}

/* What a live Go node was seen to take. */
static void test_liberal(void **state)
{
    (void)state;
    static const char *const pings[] = {
        /* other order; str8 keys and values; wide integers, signed; map16 */
        "82a55365714e6f05a44e6f6465a16e",
        "82d9044e6f6465d9016ed9055365714e6f05",
        "82a44e6f6465c4016ea55365714e6f05",
        "82a44e6f6465a16ea55365714e6fcf0000000000000005",
        "82a44e6f6465a16ea55365714e6fd300000000000000"
        "05",
        "de0002a44e6f6465a16ea55365714e6f05",
        /* an unknown key with nested content; an array in the order of declaration */
        "83a17882a16193010203a162cb3ff0000000000000a44e6f6465a16ea55365714e6f05",
        "9205a16e",
        /* bytes after the end */
        "82a44e6f6465a16ea55365714e6f05ffff",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(pings); i++) {
        uint8_t p[64];
        size_t n = hex_bytes(pings[i], p, sizeof(p));
        struct zc_wire_ping m;
        assert_int_equal(zc_wire_read_ping(p, n, &m), 0);
        assert_int_equal(m.seq, 5);
        assert_str(m.node, "n");
    }
    static const char *const bad[] = {
        "",                                               /* nothing */
        "82a44e6f6465a16ea55365714e6fcf0000000100000000", /* too large for its field */
        "82a44e6f6465a16ea55365714e6fff",                 /* negative */
        "82a44e6f646505a55365714e6f05",                   /* a number for a name */
        "82a44e6f6465dbffffffff",                         /* longer than all there is */
        "df00ffffff",                                     /* a million keys */
        "c0",
        "a16e",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        uint8_t p[64];
        size_t n = hex_bytes(bad[i], p, sizeof(p));
        struct zc_wire_ping m;
        assert_int_equal(zc_wire_read_ping(p, n, &m), -EBADMSG);
        assert_int_equal(m.seq, 0);
    }
    /* Absent and misspelt keys are zero, as with Go. */
    uint8_t p[64];
    size_t n = hex_bytes("82a44e6f6465a16ea573"
                         "65716e6f05",
                         p, sizeof(p));
    struct zc_wire_ping m;
    assert_int_equal(zc_wire_read_ping(p, n, &m), 0);
    assert_int_equal(m.seq, 0);
}

static void test_compound(void **state)
{
    (void)state;
    zc_autobuf struct zc_buf b = {0};
    uint16_t lens[] = {3, 0, 300};
    uint8_t big[300] = {9};
    zc_wire_write_compound(&b, lens, 3);
    zc_buf_adds(&b, "abc");
    zc_buf_add(&b, big, sizeof(big));
    assert_hex(b.p, 8, "070300030000012c");
    size_t at = 0, parts = 0;
    struct zc_bytes part;
    while (zc_wire_next_part((uint8_t *)b.p + 1, b.len - 1, &at, &part))
        assert_int_equal(part.len, lens[parts++]);
    assert_int_equal(parts, 3);
    /* Cut off: the parts before count. */
    at = parts = 0;
    while (zc_wire_next_part((uint8_t *)b.p + 1, b.len - 2, &at, &part))
        parts++;
    assert_int_equal(parts, 2);
    at = 0;
    assert_false(zc_wire_next_part((uint8_t *)b.p + 1, 6, &at, &part));
    assert_int_equal(zc_wire_write_compound(&b, lens, 256), -EINVAL);
}

static void lzw_round(const uint8_t *in, size_t n)
{
    zc_autobuf struct zc_buf c = {0}, d = {0};
    assert_int_equal(zc_lzw_write(&c, in, n), 0);
    assert_int_equal(zc_lzw_read(&d, (uint8_t *)c.p, c.len), 0);
    assert_int_equal(d.len, n);
    if (n)
        assert_memory_equal(d.p, in, n);
    for (size_t cut = 0; cut < c.len && cut < 300; cut++) {
        zc_buf_reset(&d);
        assert_int_equal(zc_lzw_read(&d, (uint8_t *)c.p, cut), -EBADMSG);
    }
}

static void test_lzw(void **state)
{
    (void)state;
    enum { N = 200000 };
    zc_autofree uint8_t *p = malloc(N);
    assert_non_null(p);
    uint64_t x = 1;
    lzw_round(p, 0);
    memset(p, 'a', N); /* every code defines itself */
    lzw_round(p, N);
    lzw_round(p, 1);
    for (size_t i = 0; i < N; i++) { /* the table fills up again and again */
        x = x * 6364136223846793005u + 1442695040888963407u;
        p[i] = (uint8_t)(x >> 56);
    }
    lzw_round(p, N);
    for (size_t i = 0; i < N; i++)
        p[i] = "abcd"[p[i] & 3];
    lzw_round(p, N);
    for (size_t n = 3800; n < 4400; n++) /* an end at each place near the table's end */
        lzw_round(p, n);
    /* A small input must not become a large one: 4 KiB of codes that grow. */
    zc_autobuf struct zc_buf c = {0}, d = {.max = 1000};
    memset(p, 0, N);
    zc_lzw_write(&c, p, N);
    assert_true(c.len < 3000);
    assert_int_equal(zc_lzw_read(&d, (uint8_t *)c.p, c.len), -EMSGSIZE);
    /* A code that nobody has defined. */
    static const uint8_t undefined[] = {0x00, 0x05, 0x06}; /* clear, 258 */
    zc_buf_reset(&c);
    assert_int_equal(zc_lzw_read(&c, undefined, sizeof(undefined)), -EBADMSG);
}

static void test_compress(void **state)
{
    (void)state;
    /* The head of a packet that a Go node compressed, whole in test_member_frame.c. */
    zc_autobuf struct zc_buf b = {0}, d = {0};
    uint8_t text[400];
    memset(text, 'x', sizeof(text));
    assert_int_equal(zc_wire_write_compress(&b, text, sizeof(text), false), 1);
    assert_hex(b.p, 14, "0982a4416c676f00a3427566da00");
    assert_int_equal(zc_wire_decompress((uint8_t *)b.p + 1, b.len - 1, &d), 0);
    assert_int_equal(d.len, sizeof(text));
    /* What does not get shorter stays as it is, unless it must be compressed. */
    zc_buf_reset(&b);
    assert_int_equal(zc_wire_write_compress(&b, (uint8_t *)"abc", 3, false), 0);
    assert_int_equal(b.len, 0);
    assert_int_equal(zc_wire_write_compress(&b, (uint8_t *)"abc", 3, true), 1);
    /* Another algorithm than LZW. */
    uint8_t p[64];
    size_t n = hex_bytes("82a4416c676f01a3427566a100", p, sizeof(p));
    assert_int_equal(zc_wire_decompress(p, n, &d), -EBADMSG);
}

static void test_scan_bounds(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "06ff",       "05", "0683a44a6f696ec3a54e6f646573ffac5573657253746174654c656e00",
        "0a0000000a", /* encrypted, and we have no key */
        "f4",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++) {
        uint8_t p[64];
        size_t n = hex_bytes(bad[i], p, sizeof(p));
        struct zc_wire_scan s = {0};
        assert_int_equal(zc_wire_scan(&s, p, n), -EBADMSG);
    }
    uint8_t p[64];
    size_t n =
        hex_bytes("0683a44a6f696ec3a54e6f64657300ac5573657253746174654c656ed27fffffff", p, 64);
    struct zc_wire_scan s = {0};
    assert_int_equal(zc_wire_scan(&s, p, n), -EMSGSIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ping),        cmocka_unit_test(test_others),
        cmocka_unit_test(test_alive),       cmocka_unit_test(test_push_pull),
        cmocka_unit_test(test_liberal),     cmocka_unit_test(test_compound),
        cmocka_unit_test(test_lzw),         cmocka_unit_test(test_compress),
        cmocka_unit_test(test_scan_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
