/* SPDX-License-Identifier: Apache-2.0 */
/* `zcache status --cluster`: what the daemon found out from all nodes, laid out for a person. */
#include "cli/cmd_status.h"
#include "cli/progress.h"

#include "base/units.h"

#include <stdio.h>
#include <string.h>

static uint64_t num(const json_t *v, const char *room, const char *name)
{
    json_int_t i = json_integer_value(json_object_get(room ? json_object_get(v, room) : v, name));
    return i > 0 ? (uint64_t)i : 0;
}

static double real(const json_t *v, const char *name)
{
    return json_number_value(json_object_get(v, name));
}

static const char *text(const json_t *v, const char *name)
{
    const char *s = json_string_value(json_object_get(v, name));
    return s ? s : "";
}

static const char *size(const json_t *v, const char *room, const char *name, char buf[32])
{
    return zc_format_size(num(v, room, name), buf, 32);
}

static const char *ratio(const json_t *v, char buf[32])
{
    uint64_t hits = num(v, "opens", "hits"), all = hits + num(v, "opens", "misses");
    snprintf(buf, 32, all ? "%.1f%%" : "-", 100.0 * (double)hits / (double)(all ? all : 1));
    return buf;
}

#define ROW "  %-18s %-9s %7s  %-23s %7s  %10s %10s %10s\n"

static void figures(const char *name, const char *state, const char *share, const json_t *s)
{
    char a[32], b[32], c[80], d[32], e[32], f[32], g[32];
    snprintf(c, sizeof(c), "%s of %s", size(s, "cache", "used_bytes", a),
             size(s, "cache", "capacity_bytes", b));
    printf(ROW, name, state, share, c, ratio(s, d), size(s, "bytes", "disk", e),
           size(s, "bytes", "peer", f), size(s, "bytes", "store", g));
}

static void member(const json_t *m)
{
    const json_t *status = json_object_get(m, "status");
    const char *standing = text(m, "standing"), *name = text(m, "node");
    char share[32], shown[96];
    snprintf(share, sizeof(share), "%.1f%%", real(m, "share_percent"));
    snprintf(shown, sizeof(shown), "%s%s", *name ? name : text(m, "name"),
             json_is_true(json_object_get(m, "self")) ? " *" : "");
    if (status)
        figures(shown, text(m, "state"), share, status);
    else if (strcmp(standing, "in") == 0)
        printf("  %-18s %-9s %7s  %s\n", shown, text(m, "state"), share, text(m, "error"));
    else
        printf("  %-18s %-9s %7s  %s\n", shown, text(m, "state"), "-", standing);
}

void zc_status_cluster_print(const json_t *v)
{
    size_t i;
    const json_t *m;
    char a[32], b[32], c[32];
    printf("%u nodes, ring %s\n", (unsigned)num(v, NULL, "nodes"), text(v, "ring"));
    printf(ROW, "node", "state", "share", "cache", "hits", "disk", "peers", "store");
    json_array_foreach(json_object_get(v, "members"), i, m) member(m);
    figures("all", "", "", json_object_get(v, "total"));
    json_array_foreach(json_object_get(v, "sources"), i, m)
        printf("  %-18s %s: %s cached by owners, %s in copies\n", text(m, "path"),
               text(m, "source"), size(m, NULL, "kept_bytes", a), size(m, NULL, "copy_bytes", b));
    json_array_foreach(json_object_get(v, "paths"), i, m)
        printf("  %-18s %.1f%% cached: %s of %s in %s files\n", text(m, "path"),
               real(m, "cached_percent"), size(m, NULL, "kept_bytes", a), size(m, NULL, "bytes", b),
               zc_format_count(num(m, NULL, "files"), c, sizeof(c)));
}
