/* SPDX-License-Identifier: Apache-2.0 */
/* See desc.h. */
#include "cluster/desc.h"
#include "ring/ring.h"

#include <errno.h>
#include <string.h>

#define DESC_FORMAT 1
#define DESC_SPKI 1

static bool desc_printable(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i] < 0x21 || p[i] > 0x7e)
            return false;
    }
    return n > 0 && n < ZC_NODE_NAME;
}

bool cluster_name_ok(const char *name)
{
    return desc_printable((const uint8_t *)name, strlen(name));
}

static uint8_t *desc_put(uint8_t *p, uint64_t v, unsigned bytes)
{
    for (unsigned i = bytes; i-- > 0; v >>= 8)
        p[i] = (uint8_t)v;
    return p + bytes;
}

static uint64_t desc_get(const uint8_t *p, unsigned bytes)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < bytes; i++)
        v = v << 8 | p[i];
    return v;
}

size_t cluster_desc_encode(uint8_t out[ZC_DESC_MAX], const struct cluster_desc *d)
{
    const uint8_t head[] = {
        'z',       'c',        DESC_FORMAT, d->ring_protocol,           d->peer_protocol,
        d->weight, d->nominal, d->used,     d->has_spki ? DESC_SPKI : 0};
    size_t name = strlen(d->name);
    uint8_t *p = out;
    memcpy(p, head, sizeof(head));
    p = desc_put(p + sizeof(head), d->port, 2);
    p = desc_put(p, d->started_ms, 8);
    memcpy(p, d->id, ZC_NODE_ID);
    p += ZC_NODE_ID;
    *p++ = (uint8_t)name;
    memcpy(p, d->name, name);
    p += name;
    if (d->has_spki) {
        memcpy(p, d->spki, ZC_NODE_SPKI);
        p += ZC_NODE_SPKI;
    }
    return (size_t)(p - out);
}

int cluster_desc_decode(const uint8_t *p, size_t n, struct cluster_desc *out)
{
    if (n < ZC_DESC_HEAD || p[0] != 'z' || p[1] != 'c' || p[2] != DESC_FORMAT)
        return -EBADMSG;
    struct cluster_desc d = {
        .ring_protocol = p[3],
        .peer_protocol = p[4],
        .weight = p[5],
        .nominal = p[6],
        .used = p[7],
        .has_spki = p[8] & DESC_SPKI,
        .port = (uint16_t)desc_get(p + 9, 2),
        .started_ms = desc_get(p + 11, 8),
    };
    size_t name = p[35], rest = n - ZC_DESC_HEAD;
    if (ZC_MAX(ZC_MAX(d.weight, d.nominal), d.used) > ZC_RING_WEIGHT_MAX || d.port == 0)
        return -EBADMSG;
    if (rest < name || !desc_printable(p + ZC_DESC_HEAD, name) ||
        (d.has_spki && rest - name < ZC_NODE_SPKI))
        return -EBADMSG;
    memcpy(d.id, p + 19, ZC_NODE_ID);
    memcpy(d.name, p + ZC_DESC_HEAD, name);
    if (d.has_spki)
        memcpy(d.spki, p + ZC_DESC_HEAD + name, ZC_NODE_SPKI);
    *out = d;
    return 0;
}
