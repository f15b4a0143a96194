/* SPDX-License-Identifier: Apache-2.0 */
/* A list may have millions of lines and a request has a limit: a group's paths become several
   requests, sent one after the other. */
#include "cli/paths.h"

#include "cli/target.h"
#include "http/ctl_body.h"

#include <errno.h>
#include <string.h>

int zc_paths_init(struct zc_paths *p, unsigned parallel, bool cluster, struct zc_error *err)
{
    memset(p, 0, sizeof(*p));
    p->parallel = parallel;
    p->cluster = cluster;
    return zc_mnts_read(&p->mnts, err);
}

static int paths_close_body(struct zc_paths *p, struct zc_path_group *g)
{
    if (!g->open_n)
        return 0;
    zc_buf_adds(&g->open, "]");
    if (p->parallel)
        zc_buf_addf(&g->open, ",\"parallel\":%u", p->parallel);
    zc_buf_adds(&g->open, p->cluster ? ",\"cluster\":true}" : "}");
    char *body = zc_buf_steal(&g->open);
    char **all = body ? realloc(g->bodies, (g->n_bodies + 1) * sizeof(*all)) : NULL;
    if (!all) {
        free(body);
        return -ENOMEM;
    }
    g->bodies = all;
    g->bodies[g->n_bodies++] = body;
    g->open_n = 0;
    return 0;
}

static struct zc_path_group *paths_group(struct zc_paths *p, const struct zc_mnt *m,
                                         struct zc_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        if (p->groups[i].mnt == m)
            return &p->groups[i];
    }
    char *socket = zc_target_socket(&p->mnts, m, err);
    if (!socket)
        return NULL;
    struct zc_path_group *g = realloc(p->groups, (p->n + 1) * sizeof(*g));
    if (!g) {
        free(socket);
        zc_error_set(err, -ENOMEM, "no memory");
        return NULL;
    }
    p->groups = g;
    g = &p->groups[p->n++];
    *g = (struct zc_path_group){.mnt = m, .socket = socket};
    return g;
}

int zc_paths_add(struct zc_paths *p, const char *path, struct zc_error *err)
{
    struct zc_target t;
    int r = zc_target_find(&p->mnts, path, &t, err);
    if (r < 0)
        return r;
    zc_autofree char *rel = t.rel;
    if (strlen(rel) > ZC_CTL_PATH_MAX)
        return zc_error_set(err, -ENAMETOOLONG, "'%.200s...' is too long", path);
    struct zc_path_group *g = paths_group(p, t.mnt, err);
    if (!g)
        return -ENOTCONN;
    json_t *v = json_string(rel);
    zc_autofree char *text = v ? json_dumps(v, JSON_ENCODE_ANY) : NULL;
    json_decref(v);
    if (!text)
        return zc_error_set(err, -EILSEQ, "'%.200s' is not UTF-8", path);
    if (g->open.len + strlen(text) > ZC_PATHS_BODY - 64 && paths_close_body(p, g) < 0)
        return zc_error_set(err, -ENOMEM, "no memory");
    zc_buf_adds(&g->open, g->open_n++ ? "," : "{\"paths\":[");
    zc_buf_adds(&g->open, text);
    return g->open.failed ? zc_error_set(err, -ENOMEM, "no memory") : 0;
}

int zc_paths_add_list(struct zc_paths *p, FILE *f, const char *name, struct zc_error *err)
{
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;
    int r = 0;
    for (size_t no = 1; r == 0 && (n = getline(&line, &cap, f)) >= 0; no++) {
        if (n && line[n - 1] == '\n')
            line[--n] = 0;
        if (n == 0)
            continue;
        r = memchr(line, 0, (size_t)n) ? zc_error_set(err, -EINVAL, "it has a NUL byte")
                                       : zc_paths_add(p, line, err);
        if (r < 0)
            zc_error_prefix(err, "%s, line %zu", name, no);
    }
    if (r == 0 && ferror(f))
        r = zc_error_set(err, -EIO, "cannot read '%s'", name);
    free(line);
    return r;
}

int zc_paths_finish(struct zc_paths *p, struct zc_error *err)
{
    for (size_t i = 0; i < p->n; i++) {
        int r = paths_close_body(p, &p->groups[i]);
        if (r < 0)
            return zc_error_set(err, r, "no memory");
    }
    return 0;
}

void zc_paths_free(struct zc_paths *p)
{
    for (size_t i = 0; i < p->n; i++) {
        struct zc_path_group *g = &p->groups[i];
        for (size_t k = 0; k < g->n_bodies; k++)
            free(g->bodies[k]);
        free(g->bodies);
        free(g->socket);
        zc_buf_free(&g->open);
    }
    free(p->groups);
    zc_mnts_free(&p->mnts);
    memset(p, 0, sizeof(*p));
}
