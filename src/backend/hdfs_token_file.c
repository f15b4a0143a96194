/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The token file of a source. Its tokens may call a NameNode by a number, so that names are looked
 * up each time it is read: the file is replaced by who put it there, and addresses change.
 */
#include "backend/hdfs_conf.h"
#include "backend/hdfs_token.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <string.h>

/* Where it is, and how a token may call the NameNodes. */
struct hdfs_token_file {
    char *path;
    char *name;
    char **hosts;
    size_t n, named; /* the first are names, the others what they stand for */
    unsigned ports[64];
    size_t n_ports;
};

static int names_add(struct hdfs_token_file *x, const char *host)
{
    char **more = reallocarray(x->hosts, x->n + 1, sizeof(*more));
    if (!more)
        return -ENOMEM;
    x->hosts = more;
    more[x->n] = strdup(host);
    if (!more[x->n])
        return -ENOMEM;
    x->n++;
    return 0;
}

/* Host and port of "host:port"; "zc" has none. */
static int names_add_address(struct hdfs_token_file *x, const char *address)
{
    zc_autofree char *host = NULL;
    unsigned port;
    if (hdfs_hostport(address, strlen(address), &host, &port) < 0 || port == 0)
        return 0;
    if (x->n_ports < ZC_ARRAY_SIZE(x->ports))
        x->ports[x->n_ports++] = port;
    return names_add(x, host);
}

void hdfs_token_file_free(struct hdfs_token_file *x)
{
    if (!x)
        return;
    for (size_t i = 0; i < x->n; i++)
        free(x->hosts[i]);
    free(x->hosts);
    free(x->name);
    free(x->path);
    free(x);
}

struct hdfs_token_file *hdfs_token_file_new(const char *path, const struct hdfs_target *t)
{
    struct hdfs_token_file *x = calloc(1, sizeof(*x));
    if (!x)
        return NULL;
    x->path = strdup(path);
    x->name = strdup(t->name);
    bool whole = x->path && x->name;
    whole = whole && names_add_address(x, t->name) == 0;
    for (size_t i = 0; whole && i < t->n; i++)
        whole = names_add_address(x, strstr(t->nn[i].url, "://") + 3) == 0;
    x->named = x->n;
    if (!whole) {
        hdfs_token_file_free(x);
        return NULL;
    }
    return x;
}

static void names_look_up(struct hdfs_token_file *x)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM};
    while (x->n > x->named)
        free(x->hosts[--x->n]);
    for (size_t i = 0; i < x->named; i++) {
        struct addrinfo *list = NULL;
        char text[64];
        if (getaddrinfo(x->hosts[i], NULL, &hints, &list) != 0)
            continue;
        for (struct addrinfo *it = list; it; it = it->ai_next) {
            if (getnameinfo(it->ai_addr, it->ai_addrlen, text, sizeof(text), NULL, 0,
                            NI_NUMERICHOST) == 0)
                names_add(x, text);
        }
        freeaddrinfo(list);
    }
}

int hdfs_token_file_read(struct hdfs_token_file *x, char **token, struct zc_error *err)
{
    char buf[65536];
    struct zc_error services = {0};
    zc_autoclose int fd = open(x->path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf));
    if (n < 0)
        return zc_error_set(err, -EACCES, "the token file %.300s cannot be read: %s", x->path,
                            strerror(errno));
    names_look_up(x);
    const struct hdfs_token_for who = {x->name, (const char *const *)x->hosts, x->n, x->ports,
                                       x->n_ports};
    int r = hdfs_token_parse(buf, (size_t)n, &who, token, &services);
    explicit_bzero(buf, (size_t)n);
    if (r == 0 || r == -ENOMEM)
        return r;
    if (r == -ENOENT)
        return zc_error_set(err, -EACCES, "the token file %.300s has no delegation token of HDFS",
                            x->path);
    if (r == -ENOTUNIQ)
        return zc_error_set(err, -EACCES,
                            "the token file %.200s has tokens of HDFS for several services, and "
                            "which is for %.200s is not clear: %.600s",
                            x->path, x->name, services.text);
    return zc_error_set(err, -EACCES,
                        "the token file %.300s is not one that can be read: neither Hadoop's "
                        "(version 0) nor the text of a token",
                        x->path);
}
