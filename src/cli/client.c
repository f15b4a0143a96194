/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/client.h"

#include "base/buf.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#define CLIENT_LINE_MAX (4 * ZC_MIB)
#define CLIENT_TICK_MS 200

struct client_priv {
    CURL *easy;
    struct curl_slist *headers;
    struct zc_buf in; /* an answer's unfinished line, or all of a failure */
    long status;
    bool done;
};

static void client_lines(struct zc_call *c, bool end)
{
    struct client_priv *p = c->priv;
    char *s = p->in.p, *nl;
    size_t left = p->in.len;
    while (left && (nl = memchr(s, '\n', left))) {
        *nl = 0;
        if (c->line)
            c->line(c, s, (size_t)(nl - s));
        left -= (size_t)(nl - s) + 1;
        s = nl + 1;
    }
    if (end && left && c->line)
        c->line(c, s, left);
    if (p->in.p)
        memmove(p->in.p, s, left);
    p->in.len = left;
}

static size_t client_body(char *data, size_t size, size_t n, void *user)
{
    struct zc_call *c = user;
    struct client_priv *p = c->priv;
    if (!p->status)
        curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &p->status);
    if (zc_buf_add(&p->in, data, size * n) < 0)
        return 0;
    if (p->status == 200)
        client_lines(c, false);
    return size * n;
}

static int client_start(CURLM *multi, struct zc_call *c)
{
    struct client_priv *p = calloc(1, sizeof(*p));
    if (!p)
        return -ENOMEM;
    c->priv = p;
    p->in.max = CLIENT_LINE_MAX;
    p->easy = curl_easy_init();
    p->headers = curl_slist_append(NULL, "Expect:");
    char url[256];
    if (!p->easy || !p->headers)
        return -ENOMEM;
    snprintf(url, sizeof(url), "http://zcache%s", c->path);
    curl_easy_setopt(p->easy, CURLOPT_URL, url);
    curl_easy_setopt(p->easy, CURLOPT_UNIX_SOCKET_PATH, c->socket);
    curl_easy_setopt(p->easy, CURLOPT_PROXY, "");
    curl_easy_setopt(p->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(p->easy, CURLOPT_CONNECTTIMEOUT_MS, 10000L);
    curl_easy_setopt(p->easy, CURLOPT_HTTPHEADER, p->headers);
    curl_easy_setopt(p->easy, CURLOPT_WRITEFUNCTION, client_body);
    curl_easy_setopt(p->easy, CURLOPT_WRITEDATA, c);
    curl_easy_setopt(p->easy, CURLOPT_PRIVATE, c);
    if (c->body) {
        curl_easy_setopt(p->easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)strlen(c->body));
        curl_easy_setopt(p->easy, CURLOPT_POSTFIELDS, c->body);
    }
    return curl_multi_add_handle(multi, p->easy) == CURLM_OK ? 0 : -ENOMEM;
}

static void client_finish(struct zc_call *c, CURLcode code)
{
    struct client_priv *p = c->priv;
    p->done = true;
    if (!p->status)
        curl_easy_getinfo(p->easy, CURLINFO_RESPONSE_CODE, &p->status);
    if (p->status != 0 && p->status != 200 && code == CURLE_OK) {
        json_t *v = p->in.p ? json_loadb(p->in.p, p->in.len, 0, NULL) : NULL;
        const char *words = json_string_value(json_object_get(v, "error"));
        c->result = zc_error_set(&c->err, -EIO, "%s",
                                 words ? words : "the daemon refused without a reason");
        json_decref(v);
        return;
    }
    if (code == CURLE_OK) {
        client_lines(c, true);
        return;
    }
    if (code == CURLE_COULDNT_CONNECT) {
        c->result =
            zc_error_set(&c->err, -ENOTCONN,
                         "the daemon is gone (nobody listens on '%s'); 'zcache umount' or a new "
                         "mount cleans up",
                         c->socket);
    } else if (code == CURLE_GOT_NOTHING || code == CURLE_PARTIAL_FILE ||
               code == CURLE_RECV_ERROR) {
        c->result = zc_error_set(&c->err, -ECONNRESET, "the daemon ended before it had answered");
    } else {
        c->result = zc_error_set(&c->err, -EIO, "the daemon's answer cannot be read: %s",
                                 curl_easy_strerror(code));
    }
}

static void client_drop(CURLM *multi, struct zc_call *c)
{
    struct client_priv *p = c->priv;
    if (!p)
        return;
    if (p->easy) {
        curl_multi_remove_handle(multi, p->easy);
        curl_easy_cleanup(p->easy);
    }
    curl_slist_free_all(p->headers);
    zc_buf_free(&p->in);
    free(p);
    c->priv = NULL;
}

static void client_collect(CURLM *multi)
{
    CURLMsg *m;
    int queued;
    while ((m = curl_multi_info_read(multi, &queued))) {
        struct zc_call *c = NULL;
        if (m->msg != CURLMSG_DONE)
            continue;
        curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&c);
        client_finish(c, m->data.result);
    }
}

void zc_client_run(struct zc_call *calls, size_t n, bool (*tick)(void *user), void *user)
{
    CURLM *multi = curl_multi_init();
    bool stop = false;
    for (size_t i = 0; i < n; i++) {
        calls[i].result = 0;
        int r = multi ? client_start(multi, &calls[i]) : -ENOMEM;
        if (r < 0) {
            calls[i].result = zc_error_set(&calls[i].err, r, "no memory");
            client_drop(multi, &calls[i]);
        }
    }
    for (int running = 1; running && multi && !stop;) {
        if (curl_multi_perform(multi, &running) != CURLM_OK)
            break;
        client_collect(multi);
        stop = tick && tick(user);
        if (running && !stop)
            curl_multi_poll(multi, NULL, 0, CLIENT_TICK_MS, NULL);
    }
    for (size_t i = 0; i < n; i++) {
        struct client_priv *p = calls[i].priv;
        if (p && !p->done)
            calls[i].result = zc_error_set(&calls[i].err, -ECANCELED, "cancelled");
        client_drop(multi, &calls[i]);
    }
    curl_multi_cleanup(multi);
}

static void client_gather(struct zc_call *c, const char *line, size_t n)
{
    struct zc_buf *b = c->user;
    zc_buf_add(b, line, n);
    zc_buf_addc(b, '\n');
}

json_t *zc_client_json(const char *socket, const char *path, const char *body, struct zc_error *err)
{
    zc_autobuf struct zc_buf b = {0};
    struct zc_call c = {
        .socket = socket, .path = path, .body = body, .line = client_gather, .user = &b};
    zc_client_run(&c, 1, NULL, NULL);
    if (c.result < 0) {
        *err = c.err;
        return NULL;
    }
    json_t *v = b.p ? json_loadb(b.p, b.len, 0, NULL) : NULL;
    if (!json_is_object(v)) {
        json_decref(v);
        zc_error_set(err, -EBADMSG, "the daemon's answer is not a JSON object");
        return NULL;
    }
    return v;
}

pid_t zc_client_pid(const char *path)
{
    struct sockaddr_un sa = {.sun_family = AF_UNIX};
    struct ucred cred = {0};
    socklen_t len = sizeof(cred);
    if (strlen(path) >= sizeof(sa.sun_path))
        return 0;
    strcpy(sa.sun_path, path);
    zc_autoclose int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0)
        return 0;
    return cred.pid;
}
