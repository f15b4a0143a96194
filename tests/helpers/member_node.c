/* SPDX-License-Identifier: Apache-2.0 */
/*
 * member_node --name NAME --bind IP:PORT [--join HOST[:PORT],...] [--key-file FILE] [--label TEXT]
 *             [--compress] [--lan]
 *
 * One node of zcache's membership without all the rest, for tests: told what to do by lines on
 * standard input, telling what it sees in lines of JSON on standard output. tests/memberlist is the
 * same with hashicorp/memberlist.
 *
 *     update TEXT   says TEXT of itself (after the bytes that all zcache nodes begin with)
 *     reload        reads the key file again
 *     stats         one line of counters
 *     leave         tells the others that it goes
 *     quit          ends, without a word
 *
 * Each is answered by {"did": COMMAND, "error": ""}; whenever the view changes comes
 * {"event": "view", "members": [...]}. The end of standard input ends it, too.
 */
#include "member/member.h"

#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>

static void put_text(const char *s, size_t n)
{
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        if (c < ' ' || c >= 0x7f || c == '"' || c == '\\')
            printf("\\u%04x", c);
        else
            putchar(c);
    }
    putchar('"');
}

static void put_addr(const struct zc_swim_addr *a)
{
    char text[INET6_ADDRSTRLEN] = "";
    inet_ntop(a->len == 4 ? AF_INET : AF_INET6, a->ip, text, sizeof(text));
    printf("\"addr\": \"%s\", \"port\": %u", text, a->port);
}

static void put_view(struct zc_member *m)
{
    static const char *const states[] = {"alive", "suspect", "dead", "left", "pending"};
    struct zc_member_view *v = zc_member_view(m);
    printf("{\"event\": \"view\", \"members\": [");
    for (unsigned i = 0; i < v->n; i++) {
        const struct zc_swim_view *x = &v->members[i];
        printf("%s{\"name\": ", i ? ", " : "");
        put_text(x->node->name, x->node->name_len);
        printf(", ");
        put_addr(&x->node->addr);
        printf(", \"state\": \"%s\", \"incarnation\": %u, \"self\": %s, \"meta\": \"",
               states[x->state], x->incarnation, x->self ? "true" : "false");
        for (unsigned k = 0; k < x->node->meta_len; k++)
            printf("%02x", x->node->meta[k]);
        printf("\"}");
    }
    printf("]}\n");
    fflush(stdout);
    zc_member_view_unref(v);
}

static void put_stats(struct zc_member *m)
{
    struct zc_member_stats s;
    zc_member_stats(m, &s);
#define U(x) ((unsigned long long)(x))
    printf("{\"event\": \"stats\", \"packets_refused\": %llu, \"streams_refused\": %llu, "
           "\"keys_loaded\": %llu, \"bad\": %llu, \"clamped\": %llu, \"refuted\": %llu, "
           "\"challenges\": %llu, \"claims_disproved\": %llu, \"packets_in\": %llu, "
           "\"packets_out\": %llu, \"bytes_out\": %llu, \"user_messages\": %llu, \"pending\": %u, "
           "\"known\": %u}\n",
           U(s.packets_refused), U(s.streams_refused), U(s.keys_loaded), U(s.swim.bad),
           U(s.swim.clamped), U(s.swim.refuted), U(s.swim.challenges), U(s.swim.claims_disproved),
           U(s.swim.packets_in), U(s.swim.packets_out), U(s.swim.bytes_out),
           U(s.swim.user_messages), s.swim.pending, s.swim.known);
#undef U
    fflush(stdout);
}

static void put_done(const char *what, const char *error)
{
    printf("{\"did\": \"%s\", \"error\": \"%s\"}\n", what, error);
    fflush(stdout);
}

/* False: end. */
static bool obey(struct zc_member *m, char *line)
{
    if (strcmp(line, "quit") == 0)
        return false;
    if (strncmp(line, "update ", 7) == 0) {
        uint8_t meta[2 * ZC_WIRE_META_MAX] = "zc\x01";
        size_t n = ZC_MIN(strlen(line + 7), (size_t)ZC_WIRE_META_MAX);
        memcpy(meta + 3, line + 7, n);
        int r = zc_member_set_meta(m, meta, n + 3);
        put_done("update", r < 0 ? strerror(-r) : "");
    } else if (strcmp(line, "reload") == 0) {
        zc_member_reload(m);
        put_done("reload", "");
    } else if (strcmp(line, "stats") == 0) {
        put_stats(m);
    } else if (strcmp(line, "leave") == 0) {
        zc_member_leave(m);
        put_done("leave", "");
    } else {
        put_done("nothing", "not understood");
    }
    return true;
}

/* On the socket thread. */
static void changed(void *user)
{
    eventfd_write(*(int *)user, 1);
}

static int serve(struct zc_member *m, int event)
{
    struct pollfd fds[2] = {{.fd = STDIN_FILENO, .events = POLLIN},
                            {.fd = event, .events = POLLIN}};
    char in[4096];
    size_t have = 0;
    for (;;) {
        if (poll(fds, 2, -1) < 0 && errno != EINTR)
            return 1;
        if (fds[1].revents) {
            eventfd_t n;
            eventfd_read(event, &n);
            put_view(m);
        }
        if (!fds[0].revents)
            continue;
        ssize_t got = read(STDIN_FILENO, in + have, sizeof(in) - have);
        if (got <= 0)
            return 0;
        have += (size_t)got;
        for (char *end; (end = memchr(in, '\n', have));) {
            *end = '\0';
            if (!obey(m, in))
                return 0;
            have -= (size_t)(end + 1 - in);
            memmove(in, end + 1, have);
        }
        if (have == sizeof(in))
            return 1;
    }
}

static bool parse_addr(const char *text, struct sockaddr_in *out)
{
    char ip[INET_ADDRSTRLEN] = "";
    unsigned port = 0;
    *out = (struct sockaddr_in){.sin_family = AF_INET};
    if (sscanf(text, "%15[0-9.]:%u", ip, &port) != 2 || port > UINT16_MAX)
        return false;
    out->sin_port = htons((uint16_t)port);
    return inet_pton(AF_INET, ip, &out->sin_addr) == 1;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"name", required_argument, NULL, 'n'},
        {"bind", required_argument, NULL, 'b'},
        {"join", required_argument, NULL, 'j'},
        {"label", required_argument, NULL, 'l'},
        {"key-file", required_argument, NULL, 'k'},
        {"compress", no_argument, NULL, 'c'},
        {"lan", no_argument, NULL, 'L'},
        {NULL, 0, NULL, 0},
    };
    struct sockaddr_in bind_to = {0};
    struct zc_swim_config timing;
    struct zc_error err = {0};
    uint8_t meta[256] = "zc\x01";
    int event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    struct zc_member_config c = {
        .label = "", .bind = (struct sockaddr *)&bind_to, .changed = changed, .user = &event};
    zc_swim_defaults(&timing);
    for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        if (o == 'n')
            c.name = optarg;
        else if (o == 'b' && !parse_addr(optarg, &bind_to))
            o = '?';
        else if (o == 'j')
            c.seeds = optarg;
        else if (o == 'l')
            c.label = optarg;
        else if (o == 'k')
            c.key_file = optarg;
        else if (o == 'c')
            c.compress = true;
        else if (o == 'L')
            zc_swim_defaults_lan(&timing);
        if (o == '?') {
            fprintf(stderr, "see the head of tests/helpers/member_node.c\n");
            return 2;
        }
    }
    if (c.name)
        memcpy(meta + 3, c.name, ZC_MIN(strlen(c.name), sizeof(meta) - 3));
    c.meta = meta;
    c.meta_len = 3 + (c.name ? ZC_MIN(strlen(c.name), sizeof(meta) - 3) : 0);
    c.swim = &timing;
    struct zc_member *m;
    if (zc_member_start(&c, &m, &err) < 0) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    struct zc_member_view *v = zc_member_view(m);
    printf("{\"event\": \"ready\", \"name\": ");
    put_text(v->members[0].node->name, v->members[0].node->name_len);
    printf(", ");
    put_addr(&v->members[0].node->addr);
    printf("}\n");
    zc_member_view_unref(v);
    put_view(m);
    int r = serve(m, event);
    zc_member_stop(m);
    close(event);
    return r;
}
