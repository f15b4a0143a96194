/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The server half on libmicrohttpd: a few threads, each with an epoll of its own. What is on disk
 * for good goes out by sendfile from the backing file, which stays what it is as long as the answer
 * has it open, whatever becomes of the object meanwhile. What is still arriving is stream.c's.
 *
 * With TLS, who shows no certificate of this cluster is sent away before a byte is read. Bytes that
 * were recorded are worth nothing when they are sent again: each handshake has new keys, since this
 * side of GnuTLS gives no session tickets (they would have to be switched on), and without a ticket
 * there is neither a session to go on with nor early data (RFC 8446, 8), which alone could be
 * replayed.
 */
#include "peer/peer_priv.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <gnutls/gnutls.h>
#include <gnutls/x509.h>
#include <microhttpd.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVER_THREADS 2
#define SERVER_CONNECTIONS 4096
#define SERVER_MEMORY (64U << 10) /* of a connection: a target may be long */
#define SERVER_IDLE_S 60
#define SERVER_STRANGER_S 10            /* of one that has not shown yet who it is */
#define SERVER_EACH 1024                /* connections from one address */
#define SERVER_BODIES_MAX (64 * ZC_MIB) /* of all questions that are coming in */
#define SERVER_ASKING 16
#define SERVER_ASK "/v1/ask/"
#define SERVER_BODY_MAX (16 * ZC_MIB)
#define SERVER_CHUNKS_MAX (1U << 20) /* of an object: who asks decides how much is kept of it */

/* One request while it is looked at. */
struct server_req {
    struct zc_buf body;
    bool asks;  /* the daemon: the body counts */
    bool asked; /* an ask thread has its answer */
    char *op;
    struct zc_buf reply;
    int r;
    struct peer_server *s;
    struct MHD_Connection *conn;
    struct peer_child *child; /* receives bytes that are here */
};

/* A connection, over its requests. */
struct server_conn {
    struct peer_server *s;
    bool let_in;
    const struct peer_trust *trusted; /* let in by the certificates of that time */
};

static enum MHD_Result server_reply(struct MHD_Connection *conn, unsigned status,
                                    struct MHD_Response *r)
{
    if (!r)
        return MHD_NO;
    enum MHD_Result ok = MHD_queue_response(conn, status, r);
    MHD_destroy_response(r);
    return ok;
}

static enum MHD_Result server_words(struct MHD_Connection *conn, unsigned status, const char *words)
{
    return server_reply(
        conn, status,
        MHD_create_response_from_buffer(strlen(words), (void *)words, MHD_RESPMEM_PERSISTENT));
}

/* ------------------------------------------------------------------ who asks */

/* What this node shows. The callback of GnuTLS, while a handshake goes on; what it gives stays. */
static int server_certificate(gnutls_session_t session, const gnutls_datum_t *authorities, int n,
                              const gnutls_pk_algorithm_t *algorithms, int n_algorithms,
                              gnutls_pcert_st **chain, unsigned *n_chain, gnutls_privkey_t *key)
{
    struct MHD_Connection *conn = gnutls_session_get_ptr(session);
    const union MHD_ConnectionInfo *info =
        conn ? MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT) : NULL;
    struct server_conn *known = info ? info->socket_context : NULL;
    return known ? peer_trust_show(atomic_load(&known->s->p->trust), session, chain, n_chain, key)
                 : -1;
}

/* Has this connection shown a certificate of the cluster? Once a connection, and again when the
   cluster's keys were changed. */
static bool server_trusts(struct peer_server *s, struct MHD_Connection *conn)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct server_conn *known = info ? info->socket_context : NULL;
    const struct peer_trust *trust = atomic_load(&s->p->trust);
    if (known && known->let_in && known->trusted == trust)
        return true;
    const union MHD_ConnectionInfo *tls =
        MHD_get_connection_info(conn, MHD_CONNECTION_INFO_GNUTLS_SESSION);
    unsigned n = 0;
    const gnutls_datum_t *certs =
        tls ? gnutls_certificate_get_peers((gnutls_session_t)tls->tls_session, &n) : NULL;
    if (trust &&
        (!certs || n == 0 || zc_peer_tls_trusts(&trust->tls, certs[0].data, certs[0].size) < 0))
        return false;
    if (known) {
        known->let_in = true;
        known->trusted = trust;
        MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT, (unsigned)SERVER_IDLE_S);
    }
    return true;
}

static void server_connection(void *cls, struct MHD_Connection *conn, void **context,
                              enum MHD_ConnectionNotificationCode what)
{
    if (what == MHD_CONNECTION_NOTIFY_STARTED) {
        struct server_conn *known = calloc(1, sizeof(*known));
        *context = known;
        if (known) {
            known->s = cls;
            MHD_set_connection_option(conn, MHD_CONNECTION_OPTION_TIMEOUT,
                                      (unsigned)SERVER_STRANGER_S);
        }
    } else {
        free(*context);
        *context = NULL;
    }
}

/* ------------------------------------------------------------------ bytes that are here */

void peer_answer_head(struct peer_server *s, struct MHD_Response *r, struct zc_object *o,
                      const char *state, uint64_t off, uint64_t len)
{
    char text[128], hex[ZC_DIGEST_HEX + 1];
    uint64_t key = zc_cluster_key(zc_object_id(o).id, off);
    unsigned replicas = peer_heat_add(&s->heat, key, len, zc_now_ns());
    if (replicas > 1) {
        snprintf(text, sizeof(text), "%u", replicas);
        MHD_add_response_header(r, "Zcache-Replicas", text);
        peer_count(&s->p->hot, 1);
    }
    zc_digest_hex(hex, zc_object_id(o).id);
    snprintf(text, sizeof(text), "bytes %llu-%llu/%llu", (unsigned long long)off,
             (unsigned long long)(off + len - 1), (unsigned long long)zc_object_size(o));
    MHD_add_response_header(r, "Content-Range", text);
    MHD_add_response_header(r, "Zcache-Object", hex);
    MHD_add_response_header(r, "Zcache-State", state);
}

/* The sum of [off, off + len), which lies in one chunk. */
static int server_sum(struct peer_server *s, struct zc_object *o, uint64_t off, uint64_t len,
                      struct zc_digest *out)
{
    uint64_t cs = zc_object_chunk_size(o), size = zc_object_size(o);
    uint32_t chunk = (uint32_t)(off / cs);
    uint64_t end = ZC_MIN((chunk + 1) * cs, size);
    if (off % cs == 0 && off + len == end && zc_object_sum(o, chunk, out) == 1)
        return 0;
    zc_autofree uint8_t *buf = malloc(len);
    if (!buf)
        return -ENOMEM;
    int r = peer_checked_read(&s->checked, o, s->p->cfg.seed, buf, off, len);
    if (r == 0)
        *out = zc_digest_of(s->p->cfg.seed, buf, len);
    return r;
}

/* NULL: the disk or memory fails. *len: shortened when there are too many pieces. */
static struct MHD_Response *server_hit(struct peer_server *s, struct zc_object *o, uint64_t off,
                                       uint64_t *len)
{
    uint64_t grid = zc_object_chunk_size(o);
    char sums[PEER_PIECES_MAX * (ZC_DIGEST_HEX + 1)], text[24], *at = sums;
    if (peer_pieces(grid, off, *len) > PEER_PIECES_MAX)
        *len = (off / grid + PEER_PIECES_MAX) * grid - off;
    for (uint64_t p = off; p < off + *len;) {
        uint64_t end = ZC_MIN((p / grid + 1) * grid, off + *len);
        struct zc_digest sum;
        if (server_sum(s, o, p, end - p, &sum) < 0)
            return NULL;
        if (at != sums)
            *at++ = ' ';
        zc_digest_hex(at, peer_hit_sum(sum, zc_object_id(o).id, p));
        at += ZC_DIGEST_HEX;
        p = end;
    }
    *at = 0;
    int fd = fcntl(zc_object_fd(o), F_DUPFD_CLOEXEC, 0);
    if (fd < 0)
        return NULL;
    struct MHD_Response *r = MHD_create_response_from_fd_at_offset64(*len, fd, off);
    if (!r) {
        close(fd);
        return NULL;
    }
    snprintf(text, sizeof(text), "%llu", (unsigned long long)grid);
    MHD_add_response_header(r, "Zcache-Grid", text);
    MHD_add_response_header(r, "Zcache-Sums", sums);
    return r;
}

/* ------------------------------------------------------------------ referrals */

/* Either the asker becomes a receiver (*child, which the answer owns), or it is sent to those that
   are: *refer. */
static void server_place(struct peer_server *s, const struct peer_request *r,
                         struct zc_digest object, struct peer_child **child, char *refer)
{
    uint8_t ids[PEER_REFERS][ZC_NODE_ID];
    *refer = 0;
    *child = NULL;
    if (!r->has_node)
        return;
    pthread_mutex_lock(&s->lock);
    unsigned n = peer_referral_place(&s->children, r, object, child, ids);
    pthread_mutex_unlock(&s->lock);
    for (unsigned i = 0; i < n; i++) {
        if (i)
            *refer++ = ' ';
        zc_digest_hex(refer, zc_digest_load(ids[i]));
        refer += ZC_DIGEST_HEX;
    }
}

void peer_child_free(struct peer_server *s, struct peer_child *c)
{
    if (!c)
        return;
    pthread_mutex_lock(&s->lock);
    zc_list_del(&c->link);
    pthread_mutex_unlock(&s->lock);
    free(c);
}

static enum MHD_Result server_refer(struct peer_server *s, struct MHD_Connection *conn,
                                    const char *refer)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(0, NULL, MHD_RESPMEM_PERSISTENT);
    if (r)
        MHD_add_response_header(r, "Zcache-Refer", refer);
    peer_count(&s->p->referred, 1);
    return server_reply(conn, MHD_HTTP_TEMPORARY_REDIRECT, r);
}

/* ------------------------------------------------------------------ data */

/* Somebody got bytes of this chunk whose sum did not fit. */
static enum MHD_Result server_doubted(struct peer_server *s, struct MHD_Connection *conn,
                                      struct zc_object *o, const struct peer_request *r)
{
    uint8_t byte;
    int e = zc_object_settled(o, r->off, 1) ? 0 : -ENOENT;
    if (e == 0) {
        peer_checked_forget(&s->checked, o, r->off);
        e = peer_checked_read(&s->checked, o, s->p->cfg.seed, &byte, r->off, 1);
    }
    zc_object_close_for_node(o);
    return server_words(conn, e < 0 ? MHD_HTTP_NOT_FOUND : MHD_HTTP_OK,
                        e < 0 ? "not here\n" : "it is what was recorded\n");
}

static enum MHD_Result server_object(struct peer_server *s, struct MHD_Connection *conn,
                                     struct zc_object *o, const struct peer_request *r,
                                     struct server_req *q)
{
    uint64_t here = zc_object_settled(o, r->off, r->len);
    bool held = r->reach == ZC_REACH_HELD;
    struct peer_child *child = NULL;
    char refer[PEER_REFERS * (ZC_DIGEST_HEX + 1)] = "";
    struct MHD_Response *resp;
    if (held && here == 0) {
        zc_object_close_for_node(o);
        return server_words(conn, MHD_HTTP_NOT_FOUND, "not here\n");
    }
    /* What many want at the same moment goes from one to the other, whether it is here or still
       arriving: this node's link would else be what all of them wait for. */
    if (!held)
        server_place(s, r, zc_object_id(o).id, &child, refer);
    if (*refer) {
        zc_object_close_for_node(o);
        return server_refer(s, conn, refer);
    }
    /* What is here goes out as it is; the rest is another question. */
    if (here == r->len || here >= PEER_FRAME_MAX || held) {
        resp = server_hit(s, o, r->off, &here);
        if (resp) {
            peer_answer_head(s, resp, o, "hit", r->off, here);
            peer_count(&s->p->served, 1);
            peer_count(&s->p->bytes_out, here);
        }
        zc_object_close_for_node(o);
        q->child = child;
        return resp ? server_reply(conn, MHD_HTTP_PARTIAL_CONTENT, resp)
                    : server_words(conn, MHD_HTTP_INTERNAL_SERVER_ERROR, "the disk fails\n");
    }
    return peer_stream_answer(s, conn, o, r, child);
}

static enum MHD_Result server_param(void *cls, enum MHD_ValueKind kind, const char *key,
                                    size_t key_size, const char *value, size_t value_size)
{
    struct peer_request *r = cls;
    if (strlen(key) != key_size || !value || peer_request_set(r, key, value, value_size) < 0) {
        r->seen = 0;
        r->len = 0;
        return MHD_NO;
    }
    return MHD_YES;
}

static enum MHD_Result server_data(struct peer_server *s, struct MHD_Connection *conn,
                                   struct server_req *q)
{
    zc_autofree struct peer_request *r = calloc(1, sizeof(*r));
    struct zc_object *o;
    if (!r)
        return MHD_NO;
    r->reach = ZC_REACH_STORE;
    MHD_get_connection_values_n(conn, MHD_GET_ARGUMENT_KIND, server_param, r);
    if (peer_request_check(r) < 0)
        return server_words(conn, MHD_HTTP_BAD_REQUEST, "the question makes no sense\n");
    struct zc_fetch_src *src = zc_fetch_src_find(s->p->cfg.fetch, r->source);
    if (!src)
        return server_words(conn, MHD_HTTP_NOT_FOUND, "no such source\n");
    if (r->size / zc_fetch_chunk_size(s->p->cfg.fetch) >= SERVER_CHUNKS_MAX)
        return server_words(conn, MHD_HTTP_NOT_FOUND, "too large to be shared\n");
    /* Who asks only for what is here, or comes, does not make an object of it. */
    if ((r->doubt || r->reach == ZC_REACH_HELD || r->reach == ZC_REACH_COMING) &&
        !zc_object_is_known(s->p->cfg.fetch, src, r->path, r->version, r->size))
        return server_words(conn, MHD_HTTP_NOT_FOUND, "not here\n");
    if (zc_object_open_for_node(s->p->cfg.fetch, src, r->path, r->version, r->size, &o) < 0)
        return server_words(conn, MHD_HTTP_NOT_FOUND, "not here\n");
    return r->doubt ? server_doubted(s, conn, o, r) : server_object(s, conn, o, r, q);
}

/* ------------------------------------------------------------------ questions to the daemon */

static void *server_ask_main(void *arg)
{
    struct server_req *q = arg;
    struct peer_server *s = q->s;
    q->r =
        s->p->cfg.answer(s->p->cfg.user, q->op, q->body.p ? q->body.p : "", q->body.len, &q->reply);
    q->asked = true;
    MHD_resume_connection(q->conn);
    pthread_mutex_lock(&s->lock);
    if (--s->asking == 0)
        pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

static bool server_ask_enter(struct peer_server *s)
{
    pthread_mutex_lock(&s->lock);
    bool room = s->asking < SERVER_ASKING && !s->stopping;
    s->asking += room;
    pthread_mutex_unlock(&s->lock);
    return room;
}

static enum MHD_Result server_ask(struct peer_server *s, struct MHD_Connection *conn,
                                  const char *op, struct server_req *q)
{
    pthread_t thread;
    if (q->asked) {
        struct MHD_Response *r = MHD_create_response_from_buffer(
            q->reply.len, q->reply.p ? q->reply.p : (char *)"", MHD_RESPMEM_MUST_COPY);
        return server_reply(conn, q->r < 0 ? MHD_HTTP_INTERNAL_SERVER_ERROR : MHD_HTTP_OK, r);
    }
    if (q->body.failed)
        return server_words(conn, MHD_HTTP_CONTENT_TOO_LARGE, "the question is too long\n");
    if (!s->p->cfg.answer)
        return server_words(conn, MHD_HTTP_NOT_FOUND, "nobody answers here\n");
    q->s = s;
    q->conn = conn;
    q->op = strdup(op);
    if (!q->op || !server_ask_enter(s)) {
        peer_count(&s->p->refused, 1);
        return server_words(conn, MHD_HTTP_SERVICE_UNAVAILABLE, "too many questions\n");
    }
    MHD_suspend_connection(conn);
    if (pthread_create(&thread, NULL, server_ask_main, q) == 0) {
        pthread_detach(thread);
        return MHD_YES;
    }
    q->r = -EAGAIN;
    q->asked = true;
    MHD_resume_connection(conn);
    pthread_mutex_lock(&s->lock);
    if (--s->asking == 0)
        pthread_cond_broadcast(&s->idle);
    pthread_mutex_unlock(&s->lock);
    return MHD_YES;
}

/* ------------------------------------------------------------------ requests */

/* Bytes of a question's body; what nobody asked for is let fall. */
static void server_body(struct peer_server *s, struct server_req *q, const char *p, size_t n)
{
    if (!q->asks || q->body.failed)
        return;
    if (atomic_fetch_add(&s->bodies, n) + n > SERVER_BODIES_MAX || zc_buf_add(&q->body, p, n) < 0) {
        atomic_fetch_sub(&s->bodies, n);
        q->body.failed = true;
    }
}

static enum MHD_Result server_request(void *cls, struct MHD_Connection *conn, const char *url,
                                      const char *method, const char *version, const char *upload,
                                      size_t *upload_size, void **con_cls)
{
    struct peer_server *s = cls;
    struct server_req *q = *con_cls;
    if (!q) {
        q = calloc(1, sizeof(*q));
        if (!q)
            return MHD_NO;
        q->body.max = SERVER_BODY_MAX;
        q->asks =
            strncmp(url, SERVER_ASK, sizeof(SERVER_ASK) - 1) == 0 && strcmp(method, "POST") == 0;
        *con_cls = q;
        if (s->stopping || !server_trusts(s, conn)) {
            /* Not one more byte of it is read. */
            peer_count(&s->p->refused, 1);
            return server_words(conn, MHD_HTTP_FORBIDDEN, "no certificate of this cluster\n");
        }
        return MHD_YES;
    }
    if (*upload_size) {
        server_body(s, q, upload, *upload_size);
        *upload_size = 0;
        return MHD_YES;
    }
    if (q->asks)
        return server_ask(s, conn, url + sizeof(SERVER_ASK) - 1, q);
    if (strcmp(url, PEER_TARGET) == 0 && strcmp(method, "GET") == 0)
        return server_data(s, conn, q);
    return server_words(conn, MHD_HTTP_NOT_FOUND, "no such thing\n");
}

static void server_completed(void *cls, struct MHD_Connection *conn, void **con_cls,
                             enum MHD_RequestTerminationCode why)
{
    struct peer_server *s = cls;
    struct server_req *q = *con_cls;
    if (!q)
        return;
    atomic_fetch_sub(&s->bodies, q->body.len);
    zc_buf_free(&q->body);
    zc_buf_free(&q->reply);
    peer_child_free(s, q->child);
    free(q->op);
    free(q);
    *con_cls = NULL;
}

static void server_log(void *cls, const char *fmt, va_list ap)
{
    char line[512];
    vsnprintf(line, sizeof(line), fmt, ap);
    line[strcspn(line, "\n")] = 0;
    zc_debug("peer server: %s", line);
}

/* ------------------------------------------------------------------ beginning and end */

static int server_listen(const struct sockaddr *bind_to, uint16_t *port, struct zc_error *err)
{
    union {
        struct sockaddr sa;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } a = {0};
    bool six = bind_to->sa_family == AF_INET6;
    socklen_t n = six ? sizeof(a.in6) : sizeof(a.in);
    int one = 1;
    memcpy(&a, bind_to, n);
    unsigned asked = ntohs(six ? a.in6.sin6_port : a.in.sin_port);
    zc_autoclose int fd = socket(a.sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return zc_error_set(err, -errno, "cannot make a socket for peers: %s", strerror(errno));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    if (bind(fd, &a.sa, n) < 0 || listen(fd, 512) < 0)
        return zc_error_set(err, -errno, "cannot listen for peers on port %u: %s", asked,
                            strerror(errno));
    if (getsockname(fd, &a.sa, &n) < 0)
        return zc_error_set(err, -errno, "cannot name the socket for peers: %s", strerror(errno));
    *port = ntohs(six ? a.in6.sin6_port : a.in.sin_port);
    return zc_steal_fd(&fd);
}

static struct MHD_Daemon *server_mhd(struct peer_server *s, int fd)
{
    struct zc_peer *p = s->p;
    struct peer_trust *trust = atomic_load(&p->trust);
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_CERT_CALLBACK, 0, (void *)server_certificate},
        {MHD_OPTION_HTTPS_MEM_TRUST, 0, trust ? trust->tls.ca : NULL},
        {MHD_OPTION_HTTPS_PRIORITIES, 0, "NORMAL:-VERS-ALL:+VERS-TLS1.3"},
        {MHD_OPTION_END, 0, NULL},
    };
    struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
    unsigned flags = MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ITC |
                     MHD_USE_ERROR_LOG | (trust ? MHD_USE_TLS : 0);
    return MHD_start_daemon(
        flags, 0, NULL, NULL, server_request, s, MHD_OPTION_EXTERNAL_LOGGER, server_log, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_THREAD_POOL_SIZE, (unsigned)SERVER_THREADS,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)SERVER_CONNECTIONS,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)SERVER_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
        (unsigned)SERVER_IDLE_S, MHD_OPTION_NOTIFY_COMPLETED, server_completed, s,
        MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)SERVER_EACH, MHD_OPTION_NOTIFY_CONNECTION,
        server_connection, s, MHD_OPTION_ARRAY, trust ? tls : none, MHD_OPTION_END);
}

int peer_server_new(struct zc_peer *p, struct peer_server **out, uint16_t *port,
                    struct zc_error *err)
{
    struct peer_server *s = calloc(1, sizeof(*s));
    if (!s)
        return zc_error_set(err, -ENOMEM, "no memory");
    s->p = p;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->idle, NULL);
    zc_list_init(&s->children);
    peer_heat_init(&s->heat);
    peer_checked_init(&s->checked);
    zc_list_init(&s->streams);
    int fd = server_listen(p->cfg.bind, port, err);
    if (fd >= 0) {
        s->mhd = server_mhd(s, fd); /* has the socket, and closes it when it fails */
        if (!s->mhd)
            fd = zc_error_set(err, -EIO, "cannot start the server for peers");
    }
    if (fd < 0) {
        peer_server_free(s);
        return fd;
    }
    *out = s;
    return 0;
}

void peer_server_free(struct peer_server *s)
{
    if (!s)
        return;
    s->stopping = true;
    peer_streams_end(s);
    pthread_mutex_lock(&s->lock);
    while (s->asking)
        pthread_cond_wait(&s->idle, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (s->mhd)
        MHD_stop_daemon(s->mhd);
    peer_heat_free(&s->heat);
    peer_checked_free(&s->checked);
    pthread_cond_destroy(&s->idle);
    pthread_mutex_destroy(&s->lock);
    free(s);
}
