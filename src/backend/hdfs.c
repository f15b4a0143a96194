/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The op table of the HDFS source: listings and attributes. Reads are in hdfs_get.c.
 *
 * A directory comes in pages of LISTSTATUS_BATCH, the next of which is asked for by the name of the
 * last entry. A page must be in the NameNode's order and begin behind that name: Hadoop 3.5.0 knows
 * the parameter in lower case only and gives the first page for ever otherwise. A server that has
 * no pages, or other ones, is asked for the whole directory at once (LISTSTATUS), from its
 * beginning, since in what order it gave the pages before is anybody's guess; names may well come
 * twice.
 */
#include "backend/hdfs_priv.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define HDFS_PART ((uint64_t)64 << 20) /* every read is a connection of its own: long ones pay */
#define HDFS_PARTS 16
#define HDFS_PROBE_NS (30 * ZC_NS_PER_S)

/* ---- paths and versions ---- */

char *hdfs_path(const struct hdfs *h, const char *path)
{
    zc_autobuf struct zc_buf b = {0};
    if (*h->root || *path) {
        zc_buf_add_urlenc(&b, h->root, strlen(h->root), true);
        if (*path) {
            zc_buf_addc(&b, '/');
            zc_buf_add_urlenc(&b, path, strlen(path), true);
        }
    } else {
        zc_buf_addc(&b, '/');
    }
    return zc_buf_steal(&b);
}

char *hdfs_inode_path(uint64_t inode)
{
    char *s;
    return asprintf(&s, "/.reserved/.inodes/%" PRIu64, inode) < 0 ? NULL : s;
}

void hdfs_version(const struct hdfs_file *f, char out[HDFS_VERSION_BYTES])
{
    snprintf(out, HDFS_VERSION_BYTES, "%" PRIu64 ":%" PRId64 ":%" PRIu64, f->inode, f->mtime_ms,
             f->length);
}

int hdfs_version_parse(const char *s, struct hdfs_key *out)
{
    struct hdfs_key k;
    int n = 0;
    if (strlen(s) >= HDFS_VERSION_BYTES || *s < '0' || *s > '9' ||
        sscanf(s, "%" SCNu64 ":%" SCNd64 ":%" SCNu64 "%n", &k.inode, &k.mtime_ms, &k.length, &n) !=
            3 ||
        s[n])
        return -EINVAL;
    *out = k;
    return 0;
}

int hdfs_location(const char *location, bool tls, const char **authority, size_t *len,
                  const char **rpc, size_t *rpc_len)
{
    static const char key[] = "namenoderpcaddress=";
    const char *scheme = tls ? "https://" : "http://";
    size_t n = strlen(scheme);
    if (strncasecmp(location, scheme, n) != 0)
        return -EBADMSG;
    const char *a = location + n;
    n = strcspn(a, "/?#");
    zc_autofree char *host = NULL;
    unsigned port;
    if (hdfs_hostport(a, n, &host, &port) < 0 || port == 0)
        return -EBADMSG;
    const char *q = strchr(a + n, '?');
    *rpc = NULL;
    *rpc_len = 0;
    while (q) {
        q++;
        if (strncmp(q, key, sizeof(key) - 1) == 0) {
            *rpc = q + sizeof(key) - 1;
            *rpc_len = strcspn(*rpc, "&#");
            break;
        }
        q = strchr(q, '&');
    }
    *authority = a;
    *len = n;
    return 0;
}

/* Names that HDFS cannot be asked for are not there. */
static bool hdfs_path_is_text(const char *path)
{
    return hdfs_name_is_text(path, strlen(path));
}

static void hdfs_attr(const struct hdfs_file *f, struct hdfs_id id, const char *version,
                      struct zc_attr *out)
{
    const int64_t most = INT64_MAX / ZC_NS_PER_MS; /* the year 2262, and its like before 1970 */
    int64_t ms = ZC_MIN(ZC_MAX(f->mtime_ms, -most), most);
    *out = (struct zc_attr){
        .kind = f->type == HDFS_DIR ? ZC_KIND_DIR : ZC_KIND_FILE,
        .size = f->type == HDFS_DIR ? 0 : f->length,
        .mtime_ns = ms * ZC_NS_PER_MS,
        .mode = f->mode == (uint32_t)-1 ? ZC_ID_UNSET : f->mode,
        .uid = id.uid,
        .gid = id.gid,
        .version = f->type == HDFS_DIR ? "" : version,
    };
}

static void hdfs_ended(struct hdfs *h, int err)
{
    if (err < 0 && err != -ENOENT && err != -ECANCELED)
        atomic_fetch_add(&h->stats.errors, 1);
    atomic_fetch_sub(&h->stats.in_flight, 1);
}

/* Whether it is the credentials that a server does not take. */
static void hdfs_note_refusal(struct hdfs_op *op, int err)
{
    atomic_store_explicit(&op->h->refused, err < 0 && op->call.fault.auth, memory_order_relaxed);
}

/* ---- stat ---- */

struct hdfs_stat {
    struct hdfs_op op;
    struct zc_stat_req *req;
    struct hdfs_job job;
    json_t *doc;
    struct hdfs_file file;
};

static void stat_finish(struct hdfs_stat *s, int err, struct hdfs_id id)
{
    struct zc_stat_req *req = s->req;
    struct hdfs *h = s->op.h;
    struct zc_attr attr;
    char version[HDFS_VERSION_BYTES];
    if (err == 0) {
        hdfs_version(&s->file, version);
        hdfs_attr(&s->file, id, version, &attr);
    }
    hdfs_op_leave(&s->op);
    json_decref(s->doc);
    hdfs_op_fini(&s->op);
    free(s);
    hdfs_ended(h, err);
    req->done(req, err, err == 0 ? &attr : NULL);
}

static void stat_find_ids(struct hdfs_job *job)
{
    struct hdfs_stat *s = zc_container_of(job, struct hdfs_stat, job);
    stat_finish(s, 0, hdfs_ids_find(s->op.h->ids, s->file.owner, s->file.group));
}

static void stat_done(struct hdfs_op *op, int err)
{
    struct hdfs_stat *s = zc_container_of(op, struct hdfs_stat, op);
    struct hdfs_id id = {ZC_ID_UNSET, ZC_ID_UNSET};
    hdfs_note_refusal(op, err);
    if (err == 0) {
        err = hdfs_json_status(op->call.body.p, op->call.body.len, &s->doc, &s->file);
        hdfs_op_fail(op, err, "an answer that cannot be understood");
    }
    if (err == 0 && s->file.type == HDFS_OTHER)
        err = hdfs_op_fail(op, -ENOENT, "a symbolic link, which is not shown");
    if (err == 0 && !hdfs_ids_known(op->h->ids, s->file.owner, s->file.group, &id)) {
        s->job.run = stat_find_ids;
        if (hdfs_worker_post(op->h->worker, &s->job) == 0)
            return;
    }
    stat_finish(s, err, id);
}

static void hdfs_op_stat(struct zc_backend *be, struct zc_stat_req *req)
{
    struct hdfs *h = zc_container_of(be, struct hdfs, be);
    struct hdfs_stat *s = hdfs_path_is_text(req->path) ? calloc(1, sizeof(*s)) : NULL;
    if (!s) {
        int r = hdfs_path_is_text(req->path) ? -ENOMEM : -ENOENT;
        req->done(req,
                  zc_error_set(&req->base.err, r, "%s/%s: %s", be->url, req->path, strerror(-r)),
                  NULL);
        return;
    }
    s->req = req;
    hdfs_op_init(&s->op, h, &req->base, req->path, atomic_fetch_add(&h->turn, 1));
    hdfs_call_start(&s->op, "GETFILESTATUS", hdfs_path(h, req->path), NULL, HDFS_SMALL_MAX,
                    &h->stats.heads, stat_done);
}

/* ---- list ---- */

struct hdfs_list {
    struct hdfs_op op;
    struct zc_list_req *req;
    char *after; /* the page before, of the same kind, ended with this name; NULL on the first */
    bool batch;
    struct hdfs_job job;
};

static void list_start(struct hdfs_list *l);

static void list_finish(struct hdfs_list *l, int err, const struct zc_entry *e, size_t n,
                        const char *token, unsigned skipped)
{
    struct zc_list_req *req = l->req;
    struct hdfs *h = l->op.h;
    hdfs_op_leave(&l->op);
    hdfs_op_fini(&l->op);
    free(l->after);
    free(l);
    hdfs_ended(h, err);
    req->done(req, err, e, n, token, skipped);
}

static int list_by_name(const void *a, const void *b)
{
    return hdfs_name_order(((const struct hdfs_file *)a)->name,
                           ((const struct hdfs_file *)b)->name);
}

/* Of a token: what asked for the page before. */
static char list_kind(const struct hdfs_list *l)
{
    return l->batch ? 'b' : 'w';
}

/* Entries behind the last page's end, as many as were asked for. */
static void list_deliver(struct hdfs_list *l, struct hdfs_file *f, size_t n, uint64_t remaining)
{
    struct hdfs *h = l->op.h;
    size_t most = l->req->max ? l->req->max : SIZE_MAX, used = 0, out = 0;
    zc_autofree struct zc_entry *e = calloc(n ? n : 1, sizeof(*e));
    zc_autofree char(*versions)[HDFS_VERSION_BYTES] = calloc(n ? n : 1, sizeof(*versions));
    zc_autofree char *token = NULL;
    unsigned skipped = 0;
    int r = e && versions ? 0 : -ENOMEM;

    if (r == 0 && !l->batch)
        qsort(f, n, sizeof(*f), list_by_name);
    for (; r == 0 && used < n && out < most; used++) {
        if (l->after && hdfs_name_order(f[used].name, l->after) <= 0)
            continue;
        if (f[used].hidden || f[used].type == HDFS_OTHER) {
            skipped++;
            continue;
        }
        hdfs_version(&f[used], versions[out]);
        e[out].name = f[used].name;
        hdfs_attr(&f[used], hdfs_ids_find(h->ids, f[used].owner, f[used].group), versions[out],
                  &e[out].attr);
        out++;
    }
    if (r == 0 && (used < n || remaining)) {
        if (asprintf(&token, "%c%s", list_kind(l), f[used - 1].name) < 0) {
            token = NULL;
            r = -ENOMEM;
        }
    }
    list_finish(l, hdfs_op_fail(&l->op, r, NULL), e, r == 0 ? out : 0, r == 0 ? token : NULL,
                skipped);
}

/* On the worker: a page of strangers asks the name services for each. */
static void list_decode(struct hdfs_job *job)
{
    struct hdfs_list *l = zc_container_of(job, struct hdfs_list, job);
    struct hdfs_op *op = &l->op;
    struct hdfs_file *f;
    json_t *doc;
    size_t n;
    uint64_t remaining;
    int r = hdfs_json_list(op->call.body.p, op->call.body.len, &doc, &f, &n, &remaining);
    if (r < 0) {
        list_finish(l, hdfs_op_fail(op, r, "a listing that cannot be understood"), NULL, 0, NULL,
                    0);
        return;
    }
    /* A listing of a file is the file, without a name. */
    if (n == 1 && !*f[0].name && f[0].type != HDFS_DIR) {
        r = hdfs_op_fail(op, -ENOTDIR, strerror(ENOTDIR));
    } else if (!l->batch && remaining) {
        r = hdfs_op_fail(op, -EBADMSG, "a whole listing that is none");
    } else if (l->batch && !hdfs_page_is_good(f, n, remaining, l->after)) {
        if (!atomic_exchange(&op->h->no_batch, true))
            zc_info("%s: the server does not page listings as it should; directories come whole",
                    op->h->be.url);
        r = -ENOTSUP;
    }
    if (r == 0)
        list_deliver(l, f, n, remaining);
    free(f);
    json_decref(doc);
    if (r == -ENOTSUP)
        list_start(l);
    else if (r < 0)
        list_finish(l, r, NULL, 0, NULL, 0);
}

static void list_done(struct hdfs_op *op, int err)
{
    struct hdfs_list *l = zc_container_of(op, struct hdfs_list, op);
    hdfs_note_refusal(op, err);
    if (err == -ENOTSUP && l->batch) {
        atomic_store(&op->h->no_batch, true);
        list_start(l);
        return;
    }
    if (err == 0) {
        l->job.run = list_decode;
        err = hdfs_worker_post(op->h->worker, &l->job);
        if (err == 0)
            return;
        hdfs_op_fail(op, err, NULL);
    }
    list_finish(l, err, NULL, 0, NULL, 0);
}

static void list_start(struct hdfs_list *l)
{
    struct hdfs *h = l->op.h;
    char *args = NULL;
    l->batch = !atomic_load(&h->no_batch);
    free(zc_steal_ptr(&l->after));
    if (l->req->token && *l->req->token == list_kind(l)) {
        l->after = strdup(l->req->token + 1);
        if (!l->after) {
            list_finish(l, -ENOMEM, NULL, 0, NULL, 0);
            return;
        }
    }
    if (l->batch && l->after) {
        zc_autobuf struct zc_buf b = {0};
        zc_buf_adds(&b, "&startafter=");
        zc_buf_add_urlenc(&b, l->after, strlen(l->after), false);
        args = zc_buf_steal(&b);
        if (!args) {
            list_finish(l, -ENOMEM, NULL, 0, NULL, 0);
            return;
        }
    }
    hdfs_call_start(&l->op, l->batch ? "LISTSTATUS_BATCH" : "LISTSTATUS",
                    hdfs_path(h, l->req->path), args, HDFS_ANSWER_MAX, &h->stats.lists, list_done);
}

static void hdfs_op_list(struct zc_backend *be, struct zc_list_req *req)
{
    struct hdfs *h = zc_container_of(be, struct hdfs, be);
    bool text = hdfs_path_is_text(req->path);
    struct hdfs_list *l = text ? calloc(1, sizeof(*l)) : NULL;
    if (!l) {
        int r = text ? -ENOMEM : -ENOENT;
        req->done(req,
                  zc_error_set(&req->base.err, r, "%s/%s: %s", be->url, req->path, strerror(-r)),
                  NULL, 0, NULL, 0);
        return;
    }
    l->req = req;
    hdfs_op_init(&l->op, h, &req->base, req->path, atomic_fetch_add(&h->turn, 1));
    list_start(l);
}

/* ---- probe ---- */

struct hdfs_probe {
    union {
        struct zc_list_req list;
        struct zc_stat_req stat;
    } u;
    pthread_mutex_t lock;
    pthread_cond_t cond;
    bool ended;
    int err;
    enum zc_kind kind;
    bool gateway;
};

static void probe_end(struct hdfs_probe *p, int err)
{
    pthread_mutex_lock(&p->lock);
    p->err = err;
    p->ended = true;
    pthread_cond_signal(&p->cond);
    pthread_mutex_unlock(&p->lock);
}

static void probe_stat_done(struct zc_stat_req *req, int err, const struct zc_attr *attr)
{
    struct hdfs_probe *p = req->base.user;
    if (err == 0)
        p->kind = attr->kind;
    probe_end(p, err);
}

static void probe_list_done(struct zc_list_req *req, int err, const struct zc_entry *e, size_t n,
                            const char *token, unsigned skipped)
{
    struct hdfs_probe *p = req->base.user;
    for (size_t i = 0; i < n; i++)
        p->gateway = p->gateway || strncmp(e[i].attr.version, "0:", 2) == 0;
    probe_end(p, err);
}

static int probe_wait(struct hdfs_probe *p)
{
    pthread_mutex_lock(&p->lock);
    while (!p->ended)
        pthread_cond_wait(&p->cond, &p->lock);
    p->ended = false;
    pthread_mutex_unlock(&p->lock);
    return p->err;
}

/* Nobody is there: most often the name is one of a configuration that was not given, or the port is
 * that of Hadoop's own protocol. */
static void probe_hint(const struct hdfs *h, int r, struct zc_error *err)
{
    struct zc_error was = *err;
    if (r != -EHOSTUNREACH && r != -ECONNREFUSED)
        return;
    if (h->target.guessed)
        zc_error_set(err, r,
                     "%.600s; no Hadoop configuration (--hadoop-conf, HADOOP_CONF_DIR) has a "
                     "nameservice '%.100s', so that it was taken for a host",
                     was.text, h->target.name);
    else
        zc_error_set(err, r, "%.600s; is the NameNode up, and is that its HTTP address?", was.text);
}

/* What is there, and may it be listed? */
static int hdfs_op_probe(struct zc_backend *be, struct zc_error *err)
{
    struct hdfs *h = zc_container_of(be, struct hdfs, be);
    struct hdfs_probe p = {.lock = PTHREAD_MUTEX_INITIALIZER, .cond = PTHREAD_COND_INITIALIZER};
    int64_t deadline = zc_now_ns() + h->probe_ns;

    p.u.stat = (struct zc_stat_req){
        .base = {.user = &p, .deadline_ns = deadline}, .path = "", .done = probe_stat_done};
    hdfs_op_stat(be, &p.u.stat);
    int r = probe_wait(&p);
    if (r < 0) {
        if (err)
            *err = p.u.stat.base.err;
        if (r == -ENOENT)
            r = zc_error_set(err, r, "%s does not exist", be->url);
    } else if (p.kind != ZC_KIND_DIR) {
        r = zc_error_set(err, -ENOTDIR, "%s is not a directory", be->url);
    } else {
        p.u.list = (struct zc_list_req){
            .base = {.user = &p, .deadline_ns = deadline}, .path = "", .done = probe_list_done};
        hdfs_op_list(be, &p.u.list);
        r = probe_wait(&p);
        if (r < 0 && err)
            *err = p.u.list.base.err;
    }
    if (r < 0 && err)
        probe_hint(h, r, err);
    if (r == 0 && p.gateway) {
        atomic_store(&h->gateway, true);
        be->part_size = HDFS_SMALL_MAX;
    }
    pthread_cond_destroy(&p.cond);
    pthread_mutex_destroy(&p.lock);
    return r;
}

/* ---- life ---- */

static void hdfs_op_get(struct zc_backend *be, struct zc_get_req *req)
{
    hdfs_get(zc_container_of(be, struct hdfs, be), req);
}

static void hdfs_op_cancel_req(struct zc_backend *be, struct zc_req *req)
{
    hdfs_op_cancel(zc_container_of(be, struct hdfs, be), req);
}

static void hdfs_op_free(struct zc_backend *be)
{
    struct hdfs *h = zc_container_of(be, struct hdfs, be);
    hdfs_auth_free(h->auth);
    hdfs_worker_free(h->worker);
    hdfs_ids_free(h->ids);
    hdfs_nodes_free(h->nodes);
    hdfs_target_free(&h->target);
    pthread_mutex_destroy(&h->lock);
    pthread_mutex_destroy(&h->rpc_lock);
    free(h->ca_bundle);
    free(h->root);
    free(h->rpc);
    free(be->url);
    free(h);
}

static const struct zc_backend_ops hdfs_ops = {
    .name = "hdfs",
    .probe = hdfs_op_probe,
    .list = hdfs_op_list,
    .stat = hdfs_op_stat,
    .get = hdfs_op_get,
    .cancel = hdfs_op_cancel_req,
    .free = hdfs_op_free,
};

/* What resolved to plain HTTP has no certificate to check. */
static int hdfs_check_tls(const struct hdfs *h, const struct zc_hdfs_config *cfg,
                          struct zc_error *err)
{
    if (h->target.tls || cfg->tls_if_any || !(cfg->ca_bundle || cfg->no_verify_ssl))
        return 0;
    return zc_error_set(err, -EINVAL,
                        "--%s has no effect: the NameNodes of '%s' are asked without TLS%s",
                        cfg->ca_bundle ? "ca-bundle" : "no-verify-ssl", h->target.name,
                        cfg->scheme == ZC_HDFS_HDFS ? " (dfs.http.policy is not HTTPS_ONLY)" : "");
}

static int hdfs_find(struct hdfs *h, const struct zc_hdfs_config *cfg, struct zc_error *err)
{
    struct hdfs_conf *c = hdfs_conf_new();
    const char *dir = cfg->conf_dir ? cfg->conf_dir : getenv("HADOOP_CONF_DIR");
    int r = c ? 0 : zc_error_set(err, -ENOMEM, "out of memory");
    if (r == 0 && dir && *dir)
        r = hdfs_conf_load(c, dir, err);
    if (r == 0)
        r = hdfs_resolve(c, cfg->scheme, cfg->authority, &h->target, err);
    if (r == 0)
        r = hdfs_check_tls(h, cfg, err);
    hdfs_conf_free(c);
    return r;
}

int zc_hdfs_new(struct zc_net *net, const struct zc_hdfs_config *cfg, struct zc_backend **out,
                struct zc_error *err)
{
    static const char *const schemes[] = {"hdfs", "webhdfs", "swebhdfs"};
    struct hdfs *h = calloc(1, sizeof(*h));
    if (!h)
        return zc_error_set(err, -ENOMEM, "out of memory");
    pthread_mutex_init(&h->lock, NULL);
    pthread_mutex_init(&h->rpc_lock, NULL);
    h->net = net;
    h->probe_ns = cfg->probe_ns ? ZC_MIN(cfg->probe_ns, HDFS_PROBE_NS) : HDFS_PROBE_NS;
    h->be = (struct zc_backend){
        .ops = &hdfs_ops, .part_size = HDFS_PART, .part_limit = HDFS_PARTS, .stats = &h->stats};
    int r = hdfs_path_is_text(cfg->path)
                ? hdfs_find(h, cfg, err)
                : zc_error_set(err, -EINVAL,
                               "the path of the source is not UTF-8, which HDFS's names are");
    if (r == 0) {
        if (cfg->ca_bundle)
            h->ca_bundle = strdup(cfg->ca_bundle);
        h->tls = (struct zc_net_tls){.ca_bundle = h->ca_bundle, .no_verify = cfg->no_verify_ssl};
        if (asprintf(&h->root, "%s%s", *cfg->path ? "/" : "", cfg->path) < 0)
            h->root = NULL;
        if (h->root &&
            asprintf(&h->be.url, "%s://%s%s", schemes[cfg->scheme], h->target.name, h->root) < 0)
            h->be.url = NULL;
        h->worker = hdfs_worker_new();
        h->ids = hdfs_ids_new();
        h->nodes = hdfs_nodes_new();
        if (!h->root || !h->be.url || !h->worker || !h->ids || !h->nodes ||
            (cfg->ca_bundle && !h->ca_bundle))
            r = zc_error_set(err, -ENOMEM, "out of memory");
    }
    if (r == 0)
        r = hdfs_auth_new(h, cfg, &h->auth, err);
    if (r < 0) {
        hdfs_op_free(&h->be);
        return r;
    }
    *out = &h->be;
    return 0;
}

/* ---- for who looks for faults ---- */

void zc_hdfs_look(struct zc_backend *be, struct zc_hdfs_view *out)
{
    const struct hdfs *h = zc_container_of(be, struct hdfs, be);
    struct zc_error why = {0};
    hdfs_auth_why(h->auth, NULL, &why);
    *out = (struct zc_hdfs_view){.n = h->target.n,
                                 .active = atomic_load(&h->active),
                                 .kerberos = h->target.kerberos,
                                 .guessed = h->target.guessed,
                                 .gateway = atomic_load(&h->gateway),
                                 .login_failed = why.code < 0 || atomic_load(&h->refused),
                                 .ca_bundle = h->ca_bundle,
                                 .root = h->root};
}

void zc_hdfs_look_namenode(struct zc_backend *be, size_t i, const char **url, const char **name)
{
    const struct hdfs *h = zc_container_of(be, struct hdfs, be);
    *url = h->target.nn[i].url;
    *name = h->target.nn[i].name;
}

void zc_hdfs_look_datanodes(struct zc_backend *be, zc_hdfs_node_fn *fn, void *arg)
{
    hdfs_nodes_each(zc_container_of(be, struct hdfs, be)->nodes, fn, arg);
}
