/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One signed request. All its text (URL, header lines) lies in one buffer; only Host and the x-amz-
 * headers are signed, which is what the store asks for.
 *
 * Three kinds of refusal are mended here, once each, because no layer above can: a clock that is
 * off (the answer's Date tells by how much), a bucket in another region (the answer names it), keys
 * that have expired (when there are newer ones). Everything else goes up as it is.
 */
#include "backend/s3_priv.h"

#include "base/log.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define CALL_SKEW_NS                                                                               \
    (300 * ZC_NS_PER_S) /* a difference of clocks that a store may mind; AWS allows 15 minutes */

#define CALL_NEW_KEYS_NS (30 * ZC_NS_PER_S)
#define CALL_STALL_NS (15 * ZC_NS_PER_S)      /* then another connection may do better */
#define CALL_LIST_STALL_NS (20 * ZC_NS_PER_S) /* a store may think about a list for long */

/* ---- the answer ---- */

static bool call_header_is(const char *line, size_t n, const char *name, const char **v,
                           size_t *len)
{
    size_t k = strlen(name);
    if (n <= k || line[k] != ':' || strncasecmp(line, name, k) != 0)
        return false;
    const char *p = line + k + 1, *end = line + n;
    while (p < end && (*p == ' ' || *p == '\t'))
        p++;
    while (end > p && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    *v = p;
    *len = (size_t)(end - p);
    return true;
}

/* Too long is as good as absent. */
static void call_copy(char *out, size_t size, const char *v, size_t n)
{
    if (n >= size)
        n = 0;
    memcpy(out, v, n);
    out[n] = '\0';
}

static void call_on_header(struct zc_http *http, const char *line, size_t n)
{
    struct s3_call *c = zc_container_of(http, struct s3_call, http);
    struct s3_answer *a = &c->answer;
    const char *v;
    size_t len;
    switch (line[0] | 0x20) {
    case 'h': /* a status line: what was said before does not count */
        if (n >= 5 && memcmp(line, "HTTP/", 5) == 0)
            *a = (struct s3_answer){0};
        break;
    case 'e':
        if (call_header_is(line, n, "ETag", &v, &len))
            call_copy(a->etag, sizeof(a->etag), v, len);
        break;
    case 'l':
        if (call_header_is(line, n, "Last-Modified", &v, &len) &&
            s3_text_date(v, len, &a->modified_ns) < 0)
            a->modified_ns = 0;
        break;
    case 'c':
        if (call_header_is(line, n, "Content-Range", &v, &len))
            call_copy(a->content_range, sizeof(a->content_range), v, len);
        break;
    case 'd':
        if (call_header_is(line, n, "Date", &v, &len) && s3_text_date(v, len, &a->date_ns) < 0)
            a->date_ns = 0;
        break;
    case 'x':
        if (call_header_is(line, n, "x-amz-bucket-region", &v, &len))
            call_copy(a->region, sizeof(a->region), v, len);
        break;
    }
}

static int call_on_data(struct zc_http *http, const void *p, size_t n)
{
    struct s3_call *c = zc_container_of(http, struct s3_call, http);
    if (s3_ok(http->status)) {
        c->stopped = c->data ? c->data(c, p, n) : 0;
        return c->stopped;
    }
    size_t room = S3_ERROR_BODY - ZC_MIN(c->body.len, S3_ERROR_BODY);
    zc_buf_add(&c->body, p, ZC_MIN(n, room));
    return 0;
}

/* ---- the request ---- */

/* A header line's start; its end is a NUL. */
static void call_line(struct s3_call *c, size_t at[], size_t *n)
{
    at[(*n)++] = c->text.len;
}

static int call_sign(struct s3_call *c, const char *date, const char *path, struct zc_buf *out)
{
    struct s3 *s = c->s3;
    uint8_t key[S3_SHA256_BYTES];
    struct s3_sign_header h[6];
    size_t n = 0;
    h[n++] = (struct s3_sign_header){"host", c->place->host};
    h[n++] = (struct s3_sign_header){"x-amz-content-sha256", s3_empty_hash};
    h[n++] = (struct s3_sign_header){"x-amz-date", date};
    if (s->owner)
        h[n++] = (struct s3_sign_header){"x-amz-expected-bucket-owner", s->owner};
    if (s->requester_pays)
        h[n++] = (struct s3_sign_header){"x-amz-request-payer", "requester"};
    if (c->keys->token)
        h[n++] = (struct s3_sign_header){"x-amz-security-token", c->keys->token};
    struct s3_sign_request req = {
        .method = c->method,
        .path = path,
        .query = c->query ? c->query : "",
        .headers = h,
        .n_headers = n,
        .payload = s3_empty_hash,
    };
    int r = s3_keys_signing(c->keys, date, c->place->region, key);
    if (r == 0)
        r = s3_sign_authorization(&req, date, c->place->region, "s3", c->keys->id, key, out);
    return r;
}

static int call_build(struct s3_call *c)
{
    struct s3 *s = c->s3;
    struct zc_buf *t = &c->text;
    size_t at[S3_HEADERS], n = 0;
    char date[17], http_date[30];
    int r = 0;

    c->place = atomic_load_explicit(&s->place, memory_order_acquire);
    s3_keys_unref(c->keys);
    c->keys = s->anonymous ? NULL : s3_creds_get(s->creds);
    zc_buf_reset(t);
    zc_buf_reserve(t, 1024);
    zc_buf_adds(t, c->place->base);
    if (c->key || !c->place->path_style)
        zc_buf_addc(t, '/');
    if (c->key)
        zc_buf_add_urlenc(t, c->key, strlen(c->key), true);
    size_t url_len = t->len;
    if (c->query) {
        zc_buf_addc(t, '?');
        zc_buf_adds(t, c->query);
    }
    zc_buf_addc(t, '\0');
    if (s->owner) {
        call_line(c, at, &n);
        zc_buf_addf(t, "x-amz-expected-bucket-owner: %s%c", s->owner, 0);
    }
    if (s->requester_pays) {
        call_line(c, at, &n);
        zc_buf_add(t, "x-amz-request-payer: requester", sizeof("x-amz-request-payer: requester"));
    }
    if (c->len) {
        call_line(c, at, &n);
        zc_buf_addf(t, "Range: bytes=%" PRIu64 "-%" PRIu64 "%c", c->off, c->off + c->len - 1, 0);
    }
    if (c->if_match) {
        call_line(c, at, &n);
        zc_buf_addf(t, "If-Match: %s%c", c->if_match, 0);
    }
    if (c->unmodified_s) {
        /* Stores with finer clocks compare with the fraction that headers do not tell. */
        s3_text_http_date(c->unmodified_s + 1, http_date);
        call_line(c, at, &n);
        zc_buf_addf(t, "If-Unmodified-Since: %s%c", http_date, 0);
    }
    call_line(c, at, &n);
    zc_buf_add(t, "User-Agent: zcache/" ZC_VERSION, sizeof("User-Agent: zcache/" ZC_VERSION));
    if (c->keys) {
        c->skew_ns = atomic_load(&s->skew_ns);
        s3_sign_date((zc_wall_ns() + c->skew_ns) / ZC_NS_PER_S, date);
        call_line(c, at, &n);
        zc_buf_addf(t, "x-amz-date: %s%c", date, 0);
        call_line(c, at, &n);
        zc_buf_addf(t, "x-amz-content-sha256: %s%c", s3_empty_hash, 0);
        if (c->keys->token) {
            call_line(c, at, &n);
            zc_buf_addf(t, "x-amz-security-token: %s%c", c->keys->token, 0);
        }
        if (t->failed)
            return -ENOMEM;
        zc_autofree char *path = strndup(t->p + strlen(c->place->base) - strlen(c->place->path),
                                         url_len - strlen(c->place->base) + strlen(c->place->path));
        if (!path)
            return -ENOMEM;
        call_line(c, at, &n);
        zc_buf_adds(t, "Authorization: ");
        r = call_sign(c, date, path, t);
        zc_buf_addc(t, '\0');
    }
    if (t->failed)
        return -ENOMEM;
    for (size_t i = 0; i < n; i++)
        c->headers[i] = t->p + at[i];
    c->headers[n] = NULL;
    return r;
}

static void call_on_done(struct zc_http *http, int err);

static void call_end(struct s3_call *c, int err)
{
    s3_keys_unref(zc_steal_ptr(&c->keys));
    c->done(c, err);
}

static void call_count(struct s3_call *c)
{
    struct zc_backend_stats *st = &c->s3->stats;
    _Atomic uint64_t *n = !c->key ? &st->lists : c->len ? &st->gets : &st->heads;
    atomic_fetch_add_explicit(n, 1, memory_order_relaxed);
}

static int64_t call_stall_ns(const struct s3_call *c)
{
    int64_t most = c->key ? CALL_STALL_NS : CALL_LIST_STALL_NS;
    return c->req->stall_ns ? ZC_MIN(most, c->req->stall_ns) : most;
}

/* ---- newer keys ---- */

static void call_unwait(struct s3_call *c)
{
    pthread_mutex_lock(&c->s3->lock);
    c->waiting = false;
    pthread_mutex_unlock(&c->s3->lock);
}

/* Waits for keys other than those of the last try; fn comes, perhaps at once. */
static void call_renew(struct s3_call *c, s3_creds_fn *fn)
{
    struct s3 *s = c->s3;
    struct s3_keys *old = c->keys;
    atomic_fetch_add(&old->refs, 1); /* fn may begin anew before this returns */
    pthread_mutex_lock(&s->lock);
    c->waiting = true;
    pthread_mutex_unlock(&s->lock);
    c->until_ns = c->req->deadline_ns ? c->req->deadline_ns
                  : c->req->stall_ns  ? zc_now_ns() + c->req->stall_ns
                                      : zc_now_ns() + s->probe_ns;
    s3_creds_renew(s->creds, old, c->until_ns, fn, c);
    s3_keys_unref(old);
}

/* What follows may end in a reply to the kernel, and over io_uring the kernel holds on to the
 * thread that replies: it must not be the one that loads keys, which ends. So it goes on on a loop.
 */
static void call_on_loop(struct s3_call *c, zc_net_fn *fn)
{
    call_unwait(c);
    if (zc_net_timer(c->s3->net, c->lane, 0, fn, c) < 0)
        fn(c, true);
}

/* With other keys or without: stores have the last word on when keys end. */
static void call_go_on(void *arg, bool ends)
{
    s3_call_start(arg);
}

static void call_late(void *arg, bool ends)
{
    struct s3_call *c = arg;
    int r = atomic_load(&c->req->cancelled) ? -ECANCELED : -ETIMEDOUT;
    call_end(c, zc_error_set(&c->words, r,
                             "%s: the credentials have expired, and who gives them did not answer "
                             "in the request's time",
                             c->s3->be.url));
}

static void call_renewed_ahead(void *arg, bool newer)
{
    struct s3_call *c = arg;
    call_on_loop(c, !newer && zc_now_ns() >= c->until_ns ? call_late : call_go_on);
}

void s3_call_start(struct s3_call *c)
{
    struct s3 *s = c->s3;
    int r = call_build(c);
    if (r == 0 && c->keys && !(c->fixes & S3_FIX_AHEAD) && s3_keys_expired(c->keys)) {
        c->fixes |= S3_FIX_AHEAD;
        call_renew(c, call_renewed_ahead);
        return;
    }
    if (r < 0) {
        call_end(c, zc_error_set(&c->words, r, "%s: a request could not be built: %s", s->be.url,
                                 strerror(-r)));
        return;
    }
    zc_buf_reset(&c->body);
    c->answer = (struct s3_answer){0};
    c->http = (struct zc_http){
        .method = c->method,
        .url = c->text.p,
        .headers = c->headers,
        .tls = &s->tls,
        .expect = c->expect,
        .stall_ns = call_stall_ns(c),
        .deadline_ns = c->req->deadline_ns,
        .loop = c->lane,
        .header = call_on_header,
        .data = call_on_data,
        .done = call_on_done,
    };
    /* Under the lock, so that a cancel finds the request either not started or started whole. */
    pthread_mutex_lock(&s->lock);
    r = atomic_load(&c->req->cancelled) ? -ECANCELED : zc_net_start(s->net, &c->http);
    c->active = r == 0;
    if (r == 0)
        call_count(c);
    pthread_mutex_unlock(&s->lock);
    if (r < 0)
        call_end(c, zc_error_set(&c->words, r == -ESHUTDOWN ? -ECANCELED : r, "%s: %s", s->be.url,
                                 strerror(-r)));
}

void s3_call_cancel(struct s3_call *c)
{
    if (c->active)
        zc_net_cancel(c->s3->net, &c->http);
    else if (c->waiting)
        s3_creds_cancel(c->s3->creds, c->s3->net, c->lane, c);
}

void s3_call_free(struct s3_call *c)
{
    s3_keys_unref(c->keys);
    zc_buf_free(&c->text);
    zc_buf_free(&c->body);
}

/* ---- mending ---- */

static void call_no_newer(void *arg, bool ends)
{
    struct s3_call *c = arg;
    struct zc_error why = {0};
    int r = s3_words(c, 0);
    if (atomic_load(&c->req->cancelled))
        r = -ECANCELED;
    s3_creds_why(c->s3->creds, &why);
    if (why.code && r != -ECANCELED) {
        zc_error_prefix(&c->words, "credentials could not be renewed (%.400s)", why.text);
        /* Who gives them may be back before the request's time is over. */
        if (why.code == -EAGAIN)
            r = c->words.code = -EAGAIN;
    }
    call_end(c, r);
}

static void call_renewed(void *arg, bool newer)
{
    call_on_loop(arg, newer ? call_go_on : call_no_newer);
}

static bool call_fix_clock(struct s3_call *c, const char *code)
{
    struct s3 *s = c->s3;
    if (c->fixes & S3_FIX_CLOCK || !c->answer.date_ns || !c->keys)
        return false;
    int64_t skew = c->answer.date_ns - zc_wall_ns();
    int64_t off = skew > c->skew_ns ? skew - c->skew_ns : c->skew_ns - skew;
    bool said = strcmp(code, "RequestTimeTooSkewed") == 0 || strcmp(code, "RequestExpired") == 0;
    if (!said && (c->xml.code[0] || off < CALL_SKEW_NS)) /* a HEAD is refused without words */
        return false;
    c->fixes |= S3_FIX_CLOCK;
    if (atomic_exchange(&s->skew_ns, skew) != c->skew_ns)
        return true; /* another request has found out meanwhile */
    zc_warn("%s: this machine's clock is %.0f s %s the store's; requests are dated by the store's",
            s->be.url, (double)(skew < 0 ? -skew : skew) / 1e9, skew > 0 ? "behind" : "ahead of");
    return true;
}

static bool call_fix_region(struct s3_call *c)
{
    struct s3 *s = c->s3;
    const char *region = c->xml.region[0] ? c->xml.region : c->answer.region;
    if (c->fixes & S3_FIX_REGION || !region[0])
        return false;
    if (strcmp(region, c->place->region) == 0) {
        /* Another request has found out meanwhile. */
        if (atomic_load(&s->place) == c->place)
            return false;
    } else if (s3_move(s, region, c->place->path_style) < 0) {
        return false;
    }
    c->fixes |= S3_FIX_REGION;
    zc_info("%s: the bucket is in region %s", s->be.url, region);
    return true;
}

static bool call_one_of(const char *code, const char *const *codes)
{
    for (; *codes; codes++)
        if (strcmp(code, *codes) == 0)
            return true;
    return false;
}

/* The answer to a HEAD has no body to say why. Keys that can expire are suspected, unless they are
 * new: then it is the object that is refused. */
static bool call_keys_suspect(const struct s3_call *c)
{
    int status = c->http.status;
    if (c->xml.code[0] || (status != 400 && status != 401 && status != 403))
        return false;
    return c->keys->expires_ns &&
           (s3_keys_expired(c->keys) || zc_wall_ns() - c->keys->born_ns > CALL_NEW_KEYS_NS);
}

/* Was the call sent again (or will be)? */
static bool call_mend(struct s3_call *c)
{
    static const char *const region_codes[] = {"PermanentRedirect",
                                               "AuthorizationHeaderMalformed",
                                               "IllegalLocationConstraintException",
                                               "301",
                                               "400",
                                               NULL};
    static const char *const key_codes[] = {"ExpiredToken",       "TokenRefreshRequired",
                                            "InvalidToken",       "InvalidTokenId",
                                            "InvalidAccessKeyId", NULL};
    const char *code = s3_words_code(c);
    if (c->http.status == 403 && call_fix_clock(c, code)) {
        s3_call_start(c);
        return true;
    }
    if (call_one_of(code, region_codes) && call_fix_region(c)) {
        s3_call_start(c);
        return true;
    }
    if (c->keys && !(c->fixes & S3_FIX_KEYS) &&
        (call_one_of(code, key_codes) || call_keys_suspect(c))) {
        c->fixes |= S3_FIX_KEYS;
        call_renew(c, call_renewed);
        return true;
    }
    return false;
}

static void call_on_done(struct zc_http *http, int err)
{
    struct s3_call *c = zc_container_of(http, struct s3_call, http);
    struct s3 *s = c->s3;
    pthread_mutex_lock(&s->lock);
    c->active = false;
    pthread_mutex_unlock(&s->lock);
    if (c->stopped < 0 || (err == 0 && s3_ok(http->status))) {
        call_end(c, c->stopped < 0 ? c->stopped : 0);
        return;
    }
    c->xml = (struct s3_xml_error){0};
    if (err == 0) {
        s3_xml_error_parse(c->body.p ? c->body.p : "", c->body.len, &c->xml);
        pthread_mutex_lock(&s->lock);
        snprintf(s->refused, sizeof(s->refused), "%s", s3_words_code(c));
        pthread_mutex_unlock(&s->lock);
        if (call_mend(c))
            return;
    }
    call_end(c, s3_words(c, err));
}
