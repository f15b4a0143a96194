/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One request on one curl handle.
 *
 * Handles are pooled: what no request changes is set once (net_easy_new), and what most requests
 * have in common is set only when it differs from the request before.
 *
 * Body bytes go from curl's buffer straight to data(). libcurl cuts what it has received into
 * pieces of 16 KiB, each of which would become a write of its own at the other end. For big bodies
 * we therefore have it announce the whole block first, which is what its debug callback does
 * (CURLINFO_DATA_IN comes with the block as it was received, before it is cut): when the first
 * piece arrives, data() gets the block, and the pieces that follow are only checked off. Without
 * the announcement, or when it does not fit, pieces are passed on as they come. Formatting the
 * words that nobody reads costs some microseconds a request, so that small bodies go without.
 */
#include "net/net_priv.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TRANSFER_ANNOUNCED ((uint64_t)32 << 10) /* from here on blocks are announced */
#define TRANSFER_BIG ((uint64_t)128 << 10)
#define TRANSFER_BUFFER_BIG (256L << 10) /* more leaves the processor's second cache */
#define TRANSFER_BUFFER_SMALL (128L << 10)
#define TRANSFER_BUFFER_ANSWER (32L << 10) /* no body, or one of unknown length */
#define TRANSFER_CONNECT_MS 10000L

static void transfer_moved(struct zc_http_priv *p)
{
    p->progress_ns = p->loop->moved_ns = p->loop->now_ns;
}

/* ---- headers ---- */

static bool transfer_header_is(const char *line, size_t n, const char *name, const char **value,
                               size_t *len)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0)
        return false;
    const char *v = line + k + 1, *end = line + n;
    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    *value = v;
    *len = (size_t)(end - v);
    return true;
}

static void transfer_status_line(struct zc_http_priv *p, const char *line, size_t n)
{
    const char *sp = memchr(line, ' ', n);
    size_t left = sp ? (size_t)(line + n - sp) : 0;
    int status = 0;
    for (size_t i = 1; i <= 3 && i < left && sp[i] >= '0' && sp[i] <= '9'; i++)
        status = status * 10 + (sp[i] - '0');
    p->req->status = status;
    p->req->content_length = -1;
    p->plain = false;
    p->received = 0;
}

static void transfer_content_length(struct zc_http_priv *p, const char *v, size_t n)
{
    int64_t len = 0;
    if (n == 0 || n > 18)
        return;
    for (size_t i = 0; i < n; i++) {
        if (v[i] < '0' || v[i] > '9')
            return;
        len = len * 10 + (v[i] - '0');
    }
    p->req->content_length = len;
    p->plain = true;
}

static size_t transfer_on_header(char *line, size_t size, size_t n, void *arg)
{
    struct zc_http_priv *p = ((struct net_easy *)arg)->p;
    const char *v;
    size_t len, all = size * n;
    n = all;
    while (n > 0 && (line[n - 1] == '\r' || line[n - 1] == '\n'))
        n--;
    transfer_moved(p);
    if (n == 0)
        return all;
    if (n >= 5 && memcmp(line, "HTTP/", 5) == 0)
        transfer_status_line(p, line, n);
    else if (transfer_header_is(line, n, "Content-Length", &v, &len))
        transfer_content_length(p, v, len);
    else if (transfer_header_is(line, n, "Transfer-Encoding", &v, &len)) {
        p->req->content_length = -1;
        p->plain = false;
    }
    if (p->req->header)
        p->req->header(p->req, line, n);
    return all;
}

/* ---- body ---- */

static int transfer_on_debug(CURL *curl, curl_infotype type, char *ptr, size_t n, void *arg)
{
    struct zc_http_priv *p = ((struct net_easy *)arg)->p;
    if (type == CURLINFO_DATA_IN && p) {
        p->block = p->plain ? ptr : NULL;
        p->block_len = n;
    }
    return 0;
}

static int transfer_deliver(struct zc_http_priv *p, const char *ptr, size_t n)
{
    p->received += n;
    if (p->req->data)
        p->err = p->req->data(p->req, ptr, n);
    return p->err;
}

static size_t transfer_on_data(char *ptr, size_t size, size_t n, void *arg)
{
    struct zc_http_priv *p = ((struct net_easy *)arg)->p;
    n *= size;
    transfer_moved(p);
    if (p->err < 0)
        return 0;
    if (p->ahead_len > 0) {
        if (ptr != p->ahead || n > p->ahead_len) {
            p->err = -EBADMSG; /* curl does not do what it announced */
            return 0;
        }
        p->ahead += n;
        p->ahead_len -= n;
        return n;
    }
    size_t whole = n;
    if (ptr == p->block) {
        /* Never more than the body has, whatever else was in the block. */
        uint64_t left = (uint64_t)p->req->content_length -
                        ZC_MIN(p->received, (uint64_t)p->req->content_length);
        size_t most = (size_t)ZC_MIN((uint64_t)p->block_len, left);
        whole = ZC_MAX(most, n);
        p->ahead = ptr + n;
        p->ahead_len = whole - n;
    }
    p->block = NULL;
    return transfer_deliver(p, ptr, whole) < 0 ? 0 : n;
}

static size_t transfer_on_read(char *ptr, size_t size, size_t n, void *arg)
{
    struct zc_http_priv *p = ((struct net_easy *)arg)->p;
    n = ZC_MIN(n * size, p->req->body_len - p->sent);
    if (n)
        memcpy(ptr, (const char *)p->req->body + p->sent, n);
    p->sent += n;
    transfer_moved(p);
    return n;
}

/* A connection that turned out dead: curl sends the body again. */
static int transfer_on_seek(void *arg, curl_off_t off, int origin)
{
    struct zc_http_priv *p = ((struct net_easy *)arg)->p;
    if (origin != SEEK_SET || off < 0 || (uint64_t)off > p->req->body_len)
        return CURL_SEEKFUNC_FAIL;
    p->sent = (size_t)off;
    return CURL_SEEKFUNC_OK;
}

/* ---- handles ---- */

struct net_easy *net_easy_new(struct net_loop *l)
{
    struct net_easy *e = calloc(1, sizeof(*e));
    CURL *c = e ? curl_easy_init() : NULL;
    if (!c) {
        free(e);
        return NULL;
    }
    e->curl = c;
    e->method = "GET";
    zc_list_init(&e->link);
    curl_easy_getinfo(c, CURLINFO_CAINFO, &e->ca_default);
    curl_easy_getinfo(c, CURLINFO_CAPATH, &e->ca_path_default);
    curl_easy_setopt(c, CURLOPT_PRIVATE, e);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, e->err);
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_PATH_AS_IS, 1L); /* a key is not a path */
    curl_easy_setopt(c, CURLOPT_HTTP_CONTENT_DECODING, 0L);
    curl_easy_setopt(c, CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    curl_easy_setopt(c, CURLOPT_TCP_NODELAY, 1L);
    curl_easy_setopt(c, CURLOPT_TCP_KEEPALIVE, 1L);
    curl_easy_setopt(c, CURLOPT_DNS_SHUFFLE_ADDRESSES, 1L);
    curl_easy_setopt(c, CURLOPT_QUICK_EXIT, 1L); /* do not wait for a name server when all ends */
    curl_easy_setopt(c, CURLOPT_SHARE, l->share);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, transfer_on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, e);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, transfer_on_data);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, e);
    curl_easy_setopt(c, CURLOPT_READFUNCTION, transfer_on_read);
    curl_easy_setopt(c, CURLOPT_READDATA, e);
    curl_easy_setopt(c, CURLOPT_SEEKFUNCTION, transfer_on_seek);
    curl_easy_setopt(c, CURLOPT_SEEKDATA, e);
    curl_easy_setopt(c, CURLOPT_DEBUGFUNCTION, transfer_on_debug);
    curl_easy_setopt(c, CURLOPT_DEBUGDATA, e);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETFUNCTION, net_loop_open_socket);
    curl_easy_setopt(c, CURLOPT_OPENSOCKETDATA, l);
    curl_easy_setopt(c, CURLOPT_CLOSESOCKETFUNCTION, net_loop_close_socket);
    curl_easy_setopt(c, CURLOPT_CLOSESOCKETDATA, l);
    return e;
}

void net_easy_free(struct net_easy *e)
{
    curl_easy_cleanup(e->curl);
    free(e);
}

void net_priv_unref(struct zc_http_priv *p)
{
    if (atomic_fetch_sub(&p->refs, 1) == 1)
        free(p);
}

/* ---- setting up ---- */

static void transfer_method(struct net_easy *e, const struct zc_http *req)
{
    CURL *c = e->curl;
    const char *m = req->method;
    const char *same = strcmp(m, "GET") == 0 ? "GET" : strcmp(m, "HEAD") == 0 ? "HEAD" : "";
    bool body = req->body || strcmp(m, "PUT") == 0 || strcmp(m, "POST") == 0;
    if (same[0] && !body && strcmp(e->method, same) == 0)
        return;
    curl_easy_setopt(c, CURLOPT_HTTPGET, 1L);
    curl_easy_setopt(c, CURLOPT_CUSTOMREQUEST, same[0] && !body ? NULL : m);
    if (body) {
        curl_easy_setopt(c, CURLOPT_UPLOAD, 1L);
        curl_easy_setopt(c, CURLOPT_INFILESIZE_LARGE, (curl_off_t)req->body_len);
    } else if (same[0] == 'H') {
        curl_easy_setopt(c, CURLOPT_NOBODY, 1L);
    }
    e->method = body ? "" : same;
}

/* The text is not copied here; a connection makes a copy of its own, by which it is compared. */
static void transfer_blob(CURL *c, CURLoption option, const char *pem)
{
    struct curl_blob b = {
        .data = (void *)pem, .len = pem ? strlen(pem) : 0, .flags = CURL_BLOB_NOCOPY};
    curl_easy_setopt(c, option, pem ? &b : NULL);
}

/* curl also trusts a folder of authorities, whatever else it is given. */
static void transfer_tls_more(struct net_easy *e, const struct zc_net_tls *t)
{
    CURL *c = e->curl;
    transfer_blob(c, CURLOPT_SSLCERT_BLOB, t->cert_pem);
    transfer_blob(c, CURLOPT_SSLKEY_BLOB, t->key_pem);
    transfer_blob(c, CURLOPT_CAINFO_BLOB, t->ca_pem);
    curl_easy_setopt(c, CURLOPT_CAPATH, t->ca_pem ? NULL : e->ca_path_default);
    curl_easy_setopt(c, CURLOPT_PINNEDPUBLICKEY, t->pinned);
    curl_easy_setopt(c, CURLOPT_SSLVERSION,
                     t->tls13 ? (long)CURL_SSLVERSION_TLSv1_3 : (long)CURL_SSLVERSION_DEFAULT);
}

static bool transfer_tls_has_more(const struct zc_net_tls *t)
{
    return t->ca_pem || t->cert_pem || t->key_pem || t->pinned || t->tls13;
}

static void transfer_tls(struct net_easy *e, const struct zc_http *req)
{
    static const struct zc_net_tls none;
    const struct zc_net_tls *t = req->tls ? req->tls : &none;
    CURL *c = e->curl;
    if (strncasecmp(req->url, "https:", 6) != 0)
        return;
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, t->no_verify ? 0L : 1L);
    curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, t->no_verify || t->no_name ? 0L : 2L);
    curl_easy_setopt(c, CURLOPT_SSLCERT, t->client_cert);
    curl_easy_setopt(c, CURLOPT_SSLKEY, t->client_key);
    if (t->ca_bundle)
        curl_easy_setopt(c, CURLOPT_CAINFO, t->ca_bundle);
    else if (e->ca_changed)
        curl_easy_setopt(c, CURLOPT_CAINFO, e->ca_default);
    e->ca_changed = t->ca_bundle != NULL;
    if (transfer_tls_has_more(t)) {
        transfer_tls_more(e, t);
        e->tls_changed = true;
    }
}

static void transfer_sizes(struct net_easy *e, const struct zc_http *req)
{
    long buffer = req->expect >= TRANSFER_BIG ? TRANSFER_BUFFER_BIG
                  : req->expect               ? TRANSFER_BUFFER_SMALL
                                              : TRANSFER_BUFFER_ANSWER;
    bool verbose = req->expect >= TRANSFER_ANNOUNCED;
    long ms = req->connect_timeout_ns ? (long)(req->connect_timeout_ns / ZC_NS_PER_MS)
                                      : TRANSFER_CONNECT_MS;
    ms = ZC_MAX(ms, 1L);
    if (e->buffer != buffer)
        curl_easy_setopt(e->curl, CURLOPT_BUFFERSIZE, buffer);
    if (e->verbose != verbose)
        curl_easy_setopt(e->curl, CURLOPT_VERBOSE, verbose ? 1L : 0L);
    if (e->connect_ms != ms)
        curl_easy_setopt(e->curl, CURLOPT_CONNECTTIMEOUT_MS, ms);
    if (e->direct != req->direct)
        curl_easy_setopt(e->curl, CURLOPT_NOPROXY, req->direct ? "*" : NULL);
    e->direct = req->direct;
    e->buffer = buffer;
    e->verbose = verbose;
    e->connect_ms = ms;
}

/* curl only reads the list; its nodes are ours and its strings the caller's. */
static int transfer_headers(struct zc_http_priv *p)
{
    size_t n = 0;
    struct curl_slist *nodes = p->headers;
    while (p->req->headers && p->req->headers[n])
        n++;
    if (n > NET_HEADERS) {
        nodes = p->more = calloc(n, sizeof(*nodes));
        if (!nodes)
            return -ENOMEM;
    }
    for (size_t i = 0; i < n; i++) {
        nodes[i].data = (char *)p->req->headers[i];
        nodes[i].next = i + 1 < n ? &nodes[i + 1] : NULL;
    }
    curl_easy_setopt(p->easy->curl, CURLOPT_HTTPHEADER, n ? nodes : NULL);
    return 0;
}

static void transfer_release(struct net_loop *l, struct zc_http_priv *p, bool keep)
{
    static const struct zc_net_tls none;
    struct net_easy *e = zc_steal_ptr(&p->easy);
    if (e->tls_changed) /* nothing may point to the request's texts any more */
        transfer_tls_more(e, &none);
    e->tls_changed = false;
    curl_easy_setopt(e->curl, CURLOPT_HTTPHEADER, NULL);
    e->p = NULL;
    free(p->more);
    p->more = NULL;
    if (keep && l->n_idle < NET_IDLE_MAX) {
        zc_list_push_front(&l->idle, &e->link);
        l->n_idle++;
    } else {
        net_easy_free(e);
    }
}

int net_transfer_start(struct net_loop *l, struct zc_http_priv *p)
{
    struct zc_list *it = zc_list_pop_front(&l->idle);
    if (it)
        l->n_idle--;
    struct net_easy *e = it ? zc_list_entry(it, struct net_easy, link) : net_easy_new(l);
    if (!e)
        return -ENOMEM;
    e->p = p;
    e->err[0] = '\0';
    p->easy = e;
    transfer_method(e, p->req);
    transfer_tls(e, p->req);
    transfer_sizes(e, p->req);
    if (transfer_headers(p) < 0 ||
        curl_easy_setopt(e->curl, CURLOPT_URL, p->req->url) != CURLE_OK ||
        curl_multi_add_handle(l->multi, e->curl) != CURLM_OK) {
        transfer_release(l, p, false);
        return -ENOMEM;
    }
    return 0;
}

/* ---- the end ---- */

static int transfer_connect_errno(CURL *c)
{
    long os = 0;
    curl_easy_getinfo(c, CURLINFO_OS_ERRNO, &os);
    switch (os) {
    case ETIMEDOUT:
        return -ETIMEDOUT;
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EHOSTDOWN:
    case ENETDOWN:
        return -EHOSTUNREACH;
    case ECONNRESET:
        return -ECONNRESET;
    default:
        return -ECONNREFUSED;
    }
}

/* A handshake fails for good (certificates, protocol versions) or because the other end went away
 * in it. */
static int transfer_tls_errno(const struct net_easy *e)
{
    long os = 0;
    curl_easy_getinfo(e->curl, CURLINFO_OS_ERRNO, &os);
    if (os == ECONNRESET || os == EPIPE || strstr(e->err, "SSL_ERROR_SYSCALL") ||
        strstr(e->err, "unexpected eof"))
        return -ECONNRESET;
    return -EPROTO;
}

static int transfer_errno(const struct net_easy *e, CURLcode code)
{
    switch (code) {
    case CURLE_OK:
        return 0;
    case CURLE_OUT_OF_MEMORY:
        return -ENOMEM;
    case CURLE_COULDNT_RESOLVE_HOST:
    case CURLE_COULDNT_RESOLVE_PROXY:
        return -EHOSTUNREACH;
    case CURLE_COULDNT_CONNECT:
        return transfer_connect_errno(e->curl);
    case CURLE_OPERATION_TIMEDOUT:
        return -ETIMEDOUT;
    case CURLE_ABORTED_BY_CALLBACK:
        return -ECANCELED;
    case CURLE_PARTIAL_FILE:
    case CURLE_GOT_NOTHING:
    case CURLE_SEND_ERROR:
    case CURLE_RECV_ERROR:
    case CURLE_SEND_FAIL_REWIND:
        return -ECONNRESET;
    case CURLE_SSL_CONNECT_ERROR:
        return transfer_tls_errno(e);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL: /* an answer that is not HTTP/1.x */
    case CURLE_BAD_CONTENT_ENCODING:
    case CURLE_WRITE_ERROR: /* not data()'s: a body that curl could not decode */
        return -EBADMSG;
    default:
        return -EPROTO;
    }
}

int net_transfer_end(struct net_loop *l, struct zc_http_priv *p, CURLcode result)
{
    struct net_easy *e = p->easy;
    int err = p->cancelled ? -ECANCELED : p->err < 0 ? p->err : transfer_errno(e, result);
    if (err < 0)
        snprintf(p->req->why, sizeof(p->req->why), "%s",
                 p->cancelled ? "cancelled"
                 : e->err[0]  ? e->err
                              : curl_easy_strerror(result));
    curl_multi_remove_handle(l->multi, e->curl);
    transfer_release(l, p, true);
    return err;
}
