/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control socket on libmicrohttpd: one thread a connection, since each of the operations
 * may wait for the store, and there are never more than a few clients. The socket is made here and
 * not by the library, so that its mode is right from its first moment (a socket's file takes the
 * mode of its inode at bind).
 *
 * A warm job is the body of its response: the library asks for more, the reader waits for the next
 * step and gives a line of JSON. A client that hangs up is noticed when its next line cannot be
 * sent, half a second later at the most; the library then frees the response, and with it the job.
 */
#include "http/ctl.h"
#include "http/ctl_body.h"

#include "base/buf.h"
#include "base/digest.h"
#include "base/log.h"
#include <zcache/control.h>

#include <errno.h>
#include <fcntl.h>
#include <microhttpd.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define CTL_BODY_MAX (16 * ZC_MIB)
#define CTL_CONNECTIONS 32
#define CTL_IDLE_S 60 /* a connection on which nothing moves is closed */
#define CTL_POLL_MS 500

struct zc_ctl {
    const struct zc_ctl_ops *ops;
    void *user;
    struct MHD_Daemon *mhd;
    _Atomic bool stopping;
    char *path;
    dev_t dev; /* of the socket's file, so that a later daemon's is not removed */
    ino_t ino;
};

/* One request while its body arrives. */
struct ctl_req {
    struct zc_buf body;
};

/* One warm job while its response is sent. */
struct ctl_job {
    struct zc_ctl *c;
    void *job;
    char *line; /* what is being sent; NULL when the next step is due */
    size_t len, sent;
    bool last;
};

static enum MHD_Result ctl_reply(struct MHD_Connection *conn, unsigned status, json_t *take)
{
    char *text = take ? json_dumps(take, JSON_INDENT(2)) : NULL;
    json_decref(take);
    if (!text)
        return MHD_NO;
    struct MHD_Response *r =
        MHD_create_response_from_buffer(strlen(text), text, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        free(text);
        return MHD_NO;
    }
    MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, "application/json");
    enum MHD_Result ok = MHD_queue_response(conn, status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result ctl_fail(struct MHD_Connection *conn, unsigned status, const char *words)
{
    return ctl_reply(conn, status, json_pack("{s:o}", "error", zc_ctl_text(words)));
}

static enum MHD_Result ctl_fail_err(struct MHD_Connection *conn, const struct zc_error *err)
{
    return ctl_fail(conn,
                    err->code == -EINVAL ? MHD_HTTP_BAD_REQUEST : MHD_HTTP_INTERNAL_SERVER_ERROR,
                    err->text[0] ? err->text : strerror(-err->code));
}

static enum MHD_Result ctl_status(struct zc_ctl *c, struct MHD_Connection *conn)
{
    json_t *v = c->ops->status(c->user);
    if (!v)
        return ctl_fail(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    return ctl_reply(conn, MHD_HTTP_OK, v);
}

static enum MHD_Result ctl_free_paths(struct zc_ctl *c, struct MHD_Connection *conn,
                                      const struct zc_ctl_body *body)
{
    struct zc_error err = {.code = -ENOMEM};
    json_t *v = c->ops->free_paths(c->user, body, &err);
    if (!v)
        return ctl_fail_err(conn, &err);
    return ctl_reply(conn, MHD_HTTP_OK, v);
}

static enum MHD_Result ctl_cluster(struct zc_ctl *c, struct MHD_Connection *conn,
                                   const struct zc_ctl_body *body)
{
    struct zc_error err = {.code = -ENOMEM};
    json_t *v = c->ops->cluster(c->user, body, &err);
    if (!v)
        return ctl_fail_err(conn, &err);
    return ctl_reply(conn, MHD_HTTP_OK, v);
}

/* ------------------------------------------------------------------ warm */

static ssize_t ctl_warm_read(void *cls, uint64_t pos, char *buf, size_t max)
{
    struct ctl_job *j = cls;
    if (!j->line) {
        if (j->last)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (j->c->stopping)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        json_t *v = j->c->ops->warm_poll(j->c->user, j->job, CTL_POLL_MS);
        if (!v)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        j->last = json_is_true(json_object_get(v, "finished"));
        j->line = json_dumps(v, JSON_COMPACT);
        json_decref(v);
        if (!j->line)
            return MHD_CONTENT_READER_END_WITH_ERROR;
        j->len = strlen(j->line);
        j->line[j->len++] = '\n'; /* in place of the NUL: the length says where it ends */
        j->sent = 0;
    }
    size_t n = ZC_MIN(max, j->len - j->sent);
    memcpy(buf, j->line + j->sent, n);
    j->sent += n;
    if (j->sent == j->len) {
        free(j->line);
        j->line = NULL;
    }
    return (ssize_t)n;
}

static void ctl_warm_free(void *cls)
{
    struct ctl_job *j = cls;
    j->c->ops->warm_end(j->c->user, j->job);
    free(j->line);
    free(j);
}

static enum MHD_Result ctl_warm(struct zc_ctl *c, struct MHD_Connection *conn,
                                const struct zc_ctl_body *body)
{
    struct zc_error err = {0};
    struct ctl_job *j = calloc(1, sizeof(*j));
    if (!j)
        return MHD_NO;
    j->c = c;
    int r = c->ops->warm_start(c->user, body, &j->job, &err);
    if (r < 0) {
        free(j);
        err.code = r;
        return ctl_fail_err(conn, &err);
    }
    struct MHD_Response *resp =
        MHD_create_response_from_callback(MHD_SIZE_UNKNOWN, 4096, ctl_warm_read, j, ctl_warm_free);
    if (!resp) {
        ctl_warm_free(j);
        return MHD_NO;
    }
    MHD_add_response_header(resp, MHD_HTTP_HEADER_CONTENT_TYPE, "application/x-ndjson");
    enum MHD_Result ok = MHD_queue_response(conn, MHD_HTTP_OK, resp);
    MHD_destroy_response(resp);
    return ok;
}

/* ------------------------------------------------------------------ sources */

/* note: "", or words that go with it. */
static enum MHD_Result ctl_sources(struct zc_ctl *c, struct MHD_Connection *conn, const char *note)
{
    json_t *v = c->ops->source_list(c->user);
    if (!v)
        return ctl_fail(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, "no memory");
    if (*note)
        json_object_set_new(v, "note", zc_ctl_text(note));
    return ctl_reply(conn, MHD_HTTP_OK, v);
}

static enum MHD_Result ctl_source_change(struct zc_ctl *c, struct MHD_Connection *conn, bool add,
                                         const struct ctl_req *req)
{
    struct zc_ctl_source s = {0};
    struct zc_error err = {0};
    int r = zc_ctl_source_parse(req->body.p ? req->body.p : "", req->body.len, add, &s, &err);
    if (r == 0) {
        r = (add ? c->ops->source_add : c->ops->source_remove)(c->user, &s, &err);
        if (r < 0)
            err.code = r;
        zc_ctl_source_free(&s);
    }
    return r < 0 ? ctl_fail_err(conn, &err) : ctl_sources(c, conn, err.text);
}

/* ------------------------------------------------------------------ requests */

static enum MHD_Result ctl_dispatch(struct zc_ctl *c, struct MHD_Connection *conn, const char *url,
                                    const char *method, struct ctl_req *req)
{
    bool status = strcmp(url, ZCACHE_CONTROL_STATUS) == 0;
    bool warm = strcmp(url, ZCACHE_CONTROL_WARM) == 0;
    bool release = strcmp(url, ZCACHE_CONTROL_FREE) == 0;
    bool add = strcmp(url, ZCACHE_CONTROL_SOURCE_ADD) == 0;
    bool take = strcmp(url, ZCACHE_CONTROL_SOURCE_REMOVE) == 0;
    bool sources = strcmp(url, ZCACHE_CONTROL_SOURCES) == 0;
    bool cluster = strcmp(url, ZCACHE_CONTROL_CLUSTER) == 0;
    bool all = cluster && strcmp(method, "GET") == 0;
    if (!status && !warm && !release && !add && !take && !sources && !cluster)
        return ctl_fail(conn, MHD_HTTP_NOT_FOUND, "the daemon has no such operation");
    if (strcmp(method, status || sources || all ? "GET" : "POST") != 0)
        return ctl_fail(conn, MHD_HTTP_METHOD_NOT_ALLOWED, "wrong method");
    if (req->body.failed)
        return ctl_fail(conn, MHD_HTTP_CONTENT_TOO_LARGE, "the request is larger than 16 MiB");
    if (status)
        return ctl_status(c, conn);
    if (sources)
        return ctl_sources(c, conn, "");
    if (all)
        return ctl_cluster(c, conn, NULL);
    if (add || take)
        return ctl_source_change(c, conn, add, req);

    struct zc_ctl_body body = {0};
    struct zc_error err = {0};
    if (zc_ctl_body_parse(req->body.p ? req->body.p : "", req->body.len, &body, &err) < 0)
        return ctl_fail_err(conn, &err);
    enum MHD_Result ok = warm      ? ctl_warm(c, conn, &body)
                         : cluster ? ctl_cluster(c, conn, &body)
                                   : ctl_free_paths(c, conn, &body);
    zc_ctl_body_free(&body);
    return ok;
}

static enum MHD_Result ctl_request(void *cls, struct MHD_Connection *conn, const char *url,
                                   const char *method, const char *version, const char *upload,
                                   size_t *upload_size, void **con_cls)
{
    struct ctl_req *req = *con_cls;
    if (!req) {
        req = calloc(1, sizeof(*req));
        if (!req)
            return MHD_NO;
        req->body.max = CTL_BODY_MAX;
        *con_cls = req;
        return MHD_YES;
    }
    if (*upload_size) {
        /* Too much is read to its end and dropped, so that the client gets an answer and no broken
         * pipe. */
        zc_buf_add(&req->body, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    return ctl_dispatch(cls, conn, url, method, req);
}

static void ctl_completed(void *cls, struct MHD_Connection *conn, void **con_cls,
                          enum MHD_RequestTerminationCode why)
{
    struct ctl_req *req = *con_cls;
    if (!req)
        return;
    zc_buf_free(&req->body);
    free(req);
    *con_cls = NULL;
}

static void ctl_mhd_log(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof(line), fmt, ap);
    zc_debug("control socket: %s", line);
}

/* ------------------------------------------------------------------ the socket */

/* The folder must be ours: in /tmp anyone could have made it. Root's own is as good. */
static int ctl_mkdir(const char *dir, struct zc_error *err)
{
    struct stat st;
    if (mkdir(dir, 0700) < 0 && errno != EEXIST)
        return zc_error_set(err, -errno, "cannot make the folder '%s' of the control socket: %s",
                            dir, strerror(errno));
    if (lstat(dir, &st) < 0)
        return zc_error_set(err, -errno, "cannot look at '%s': %s", dir, strerror(errno));
    if (!S_ISDIR(st.st_mode) || (st.st_uid != geteuid() && st.st_uid != 0) ||
        ((st.st_mode & 022) && !(st.st_mode & S_ISVTX)))
        return zc_error_set(
            err, -EPERM,
            "the folder '%s' of the control socket belongs to someone else, or others may "
            "write to it",
            dir);
    return 0;
}

/* Makes the last two folders of the path: the run directory itself may be missing for a plain user.
 */
static int ctl_folders(const char *path, struct zc_error *err)
{
    zc_autofree char *dir = strdup(path);
    if (!dir)
        return zc_error_set(err, -ENOMEM, "no memory");
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return 0;
    *slash = 0;
    char *up = strrchr(dir, '/');
    if (up && up != dir) {
        *up = 0;
        struct stat st;
        if (stat(dir, &st) < 0 || strncmp(dir, "/tmp/", 5) == 0) {
            int r = ctl_mkdir(dir, err);
            if (r < 0)
                return r;
        }
        *up = '/';
    }
    return ctl_mkdir(dir, err);
}

static int ctl_listen(const char *path, struct zc_error *err)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(sa.sun_path))
        return zc_error_set(
            err, -ENAMETOOLONG,
            "the control socket's path '%s' is too long; XDG_RUNTIME_DIR is too deep", path);
    strcpy(sa.sun_path, path);

    zc_autoclose int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (probe >= 0 && connect(probe, (struct sockaddr *)&sa, sizeof(sa)) == 0)
        return zc_error_set(err, -EADDRINUSE, "another daemon listens on the control socket '%s'",
                            path);
    unlink(path);

    zc_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return zc_error_set(err, -errno, "cannot make a socket: %s", strerror(errno));
    fchmod(fd, 0600);
    if (bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 || chmod(path, 0600) < 0 ||
        listen(fd, CTL_CONNECTIONS) < 0)
        return zc_error_set(err, -errno, "cannot listen on the control socket '%s': %s", path,
                            strerror(errno));
    return zc_steal_fd(&fd);
}

int zc_ctl_new(const char *socket_path, const struct zc_ctl_ops *ops, void *user,
               struct zc_ctl **out, struct zc_error *err)
{
    int r = ctl_folders(socket_path, err);
    if (r < 0)
        return r;
    int fd = ctl_listen(socket_path, err);
    if (fd < 0)
        return fd;

    struct stat st = {0};
    struct zc_ctl *c = calloc(1, sizeof(*c));
    if (c)
        c->path = strdup(socket_path);
    if (!c || !c->path || lstat(socket_path, &st) < 0) {
        close(fd);
        r = zc_error_set(err, -ENOMEM, "no memory");
        goto fail;
    }
    c->ops = ops;
    c->user = user;
    c->dev = st.st_dev;
    c->ino = st.st_ino;
    c->mhd = MHD_start_daemon(
        MHD_USE_THREAD_PER_CONNECTION | MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL |
            MHD_USE_ITC | MHD_USE_ERROR_LOG,
        0, NULL, NULL, ctl_request, c, MHD_OPTION_EXTERNAL_LOGGER, ctl_mhd_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)CTL_CONNECTIONS,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CTL_IDLE_S, MHD_OPTION_THREAD_STACK_SIZE,
        (size_t)256 * 1024, MHD_OPTION_NOTIFY_COMPLETED, ctl_completed, NULL, MHD_OPTION_END);
    if (!c->mhd) {
        unlink(socket_path);
        r = zc_error_set(err, -EIO, "cannot start the server of the control socket '%s'",
                         socket_path);
        goto fail;
    }
    *out = c;
    return 0;
fail:
    if (c)
        free(c->path);
    free(c);
    return r;
}

void zc_ctl_stop(struct zc_ctl *c)
{
    struct stat st;
    if (c->stopping)
        return;
    c->stopping = true;
    if (lstat(c->path, &st) == 0 && st.st_dev == c->dev && st.st_ino == c->ino)
        unlink(c->path);
}

void zc_ctl_free(struct zc_ctl *c)
{
    if (!c)
        return;
    zc_ctl_stop(c);
    MHD_stop_daemon(c->mhd); /* joins the connections' threads, closes the listening socket */
    free(c->path);
    free(c);
}

char *zc_ctl_path(const char *mountpoint)
{
    return zc_ctl_path_of(geteuid(), mountpoint);
}

char *zc_ctl_path_of(uid_t uid, const char *mountpoint)
{
    char hex[ZC_DIGEST_HEX + 1];
    char *path = NULL;
    const char *run = uid == geteuid() ? getenv("XDG_RUNTIME_DIR") : NULL;
    zc_digest_hex(hex, zc_digest_of(0, mountpoint, strlen(mountpoint)));
    int n;
    if (uid == 0)
        n = asprintf(&path, "/run/zcache/%s.sock", hex);
    else if (run && run[0] == '/')
        n = asprintf(&path, "%s/zcache/%s.sock", run, hex);
    else
        n = asprintf(&path, "/tmp/zcache-%u/zcache/%s.sock", (unsigned)uid, hex);
    return n < 0 ? NULL : path;
}
