/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What comes over gossip's sockets where there is a key (a fixed one) and a label: as it is, to try
 * what surrounds the encryption; and sealed first, when all of it has to come back.
 */
#include "member/frame.h"

#include <string.h>

static void packets(struct zc_frame *f, const uint8_t *data, size_t size)
{
    zc_autobuf struct zc_buf sealed = {.max = ZC_WIRE_DATAGRAM_MAX};
    zc_autobuf struct zc_buf plain = {.max = ZC_WIRE_DATAGRAM_MAX};
    zc_frame_open_packet(f, data, size, &plain);
    zc_buf_reset(&plain);
    /* A packet that begins with a CRC's byte is taken for one that has a CRC. */
    if (size == 0 || size > ZC_WIRE_PACKET_MAX || data[0] == ZC_WIRE_CRC)
        return;
    if (zc_frame_seal_packet(f, data, size, false, &sealed) < 0 ||
        zc_frame_open_packet(f, (uint8_t *)sealed.p, sealed.len, &plain) < 0 || plain.len != size ||
        memcmp(plain.p, data, size) != 0)
        abort();
}

static void streams(struct zc_frame *f, const uint8_t *data, size_t size)
{
    for (int first = 0; first < 2; first++) {
        struct zc_frame_stream whole = {0}, parts = {0};
        zc_buf_add(&whole.in, data, size);
        int r = zc_frame_open_stream(f, &whole, first), s = 0;
        for (size_t i = 0; i < size && s == 0; i++) {
            zc_buf_add(&parts.in, data + i, 1);
            s = zc_frame_open_stream(f, &parts, first);
        }
        /* It does not matter in which parts it comes. */
        if (size > 0 && r != s)
            abort();
        zc_frame_stream_free(&whole);
        zc_frame_stream_free(&parts);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t key[32] = {0, 1, 2, 3, 4, 5, 6, 7};
    struct zc_keyring *keys = zc_keyring_new(key, sizeof(key));
    struct zc_frame f;
    if (!keys || zc_frame_init(&f, "label", keys, false) < 0)
        abort();
    packets(&f, data, size);
    if (size <= 4096)
        streams(&f, data, size);
    zc_frame_free(&f);
    zc_keyring_free(keys);
    return 0;
}
