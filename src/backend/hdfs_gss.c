/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SPNEGO by GSSAPI itself and not by libcurl: it takes keytab, principal and ticket cache from a
 * source's own options and not from the environment of the process, and when a login fails it can
 * say whose fault it is: the realm, the principal, the keytab, the ticket cache.
 */
#include "backend/hdfs_priv.h"

#include <errno.h>
#include <gssapi/gssapi.h>
#include <gssapi/gssapi_ext.h>
#include <gssapi/gssapi_krb5.h>
#include <krb5.h>
#include <string.h>

#define GSS_HEADER "Authorization: Negotiate "

static gss_OID_desc gss_spnego = {6, "\x2b\x06\x01\x05\x05\x02"};

/* The library's own words: first the kind, then the reason, where there is one. */
static void gss_words(OM_uint32 major, OM_uint32 minor, gss_OID mech, char *out, size_t n)
{
    OM_uint32 more = 0, m;
    gss_buffer_desc text;
    out[0] = 0;
    if (minor &&
        gss_display_status(&m, minor, GSS_C_MECH_CODE, mech, &more, &text) == GSS_S_COMPLETE) {
        snprintf(out, n, "%.*s", (int)text.length, (char *)text.value);
        gss_release_buffer(&m, &text);
    }
    more = 0;
    if ((!out[0] || strcmp(out, "Unknown error") == 0 || strcmp(out, "Success") == 0) &&
        gss_display_status(&m, major, GSS_C_GSS_CODE, GSS_C_NO_OID, &more, &text) ==
            GSS_S_COMPLETE) {
        snprintf(out, n, "%.*s", (int)text.length, (char *)text.value);
        gss_release_buffer(&m, &text);
    }
}

/* Its name, "FILE:/tmp/krb5cc_0": what KRB5CCNAME or the configuration says. */
static char *gss_default_cache(void)
{
    krb5_context c;
    if (krb5_init_context(&c) != 0)
        return NULL;
    const char *name = krb5_cc_default_name(c);
    char *copy = name ? strdup(name) : NULL;
    krb5_free_context(c);
    return copy;
}

void hdfs_gss_forget(const char *cache)
{
    krb5_context c;
    krb5_ccache cc;
    if (krb5_init_context(&c) != 0)
        return;
    if (krb5_cc_resolve(c, cache, &cc) == 0)
        krb5_cc_destroy(c, cc);
    krb5_free_context(c);
}

/* The library says that there are no tickets when a keytab has no key for the principal. */
static bool gss_keytab_lacks(const struct hdfs_login *l)
{
    krb5_context c;
    krb5_keytab kt = NULL;
    krb5_principal who = NULL;
    krb5_keytab_entry entry;
    bool lacks = false;
    if (!l->keytab || !l->principal || krb5_init_context(&c) != 0)
        return false;
    if (krb5_kt_resolve(c, l->keytab, &kt) == 0 && krb5_parse_name(c, l->principal, &who) == 0) {
        krb5_error_code r = krb5_kt_get_entry(c, kt, who, 0, 0, &entry);
        if (r == 0)
            krb5_free_keytab_entry_contents(c, &entry);
        lacks = r == KRB5_KT_NOTFOUND;
    }
    krb5_free_principal(c, who);
    if (kt)
        krb5_kt_close(c, kt);
    krb5_free_context(c);
    return lacks;
}

static int gss_fail(struct zc_error *err, const struct hdfs_login *l, const char *host,
                    OM_uint32 major, OM_uint32 minor)
{
    char why[400], who[400];
    if (gss_keytab_lacks(l))
        return zc_error_set(err, -EACCES, "the keytab %.300s has no key for %.200s", l->keytab,
                            l->principal);
    gss_words(major, minor, (gss_OID)gss_mech_krb5, why, sizeof(why));
    const char *of = l->principal ? ", principal " : "", *principal = l->principal;
    if (l->keytab) {
        snprintf(who, sizeof(who), "keytab %.200s%s%.150s", l->keytab, of,
                 principal ? principal : "");
    } else {
        zc_autofree char *cache = gss_default_cache();
        snprintf(who, sizeof(who), "ticket cache %.200s%s%.150s", cache ? cache : "(none)", of,
                 principal ? principal : "");
    }
    return zc_error_set(err, minor == (OM_uint32)KRB5_KDC_UNREACH ? -EAGAIN : -EACCES,
                        "Kerberos login for HTTP/%.100s failed (%s): %s", host, who, why);
}

static OM_uint32 gss_name(gss_OID type, const char *fmt, const char *arg, gss_name_t *out,
                          OM_uint32 *minor)
{
    zc_autofree char *text = NULL;
    *out = GSS_C_NO_NAME;
    if (asprintf(&text, fmt, arg) < 0) {
        text = NULL;
        *minor = ENOMEM;
        return GSS_S_FAILURE;
    }
    gss_buffer_desc b = {strlen(text), text};
    return gss_import_name(minor, &b, type, out);
}

static OM_uint32 gss_creds(const struct hdfs_login *l, gss_cred_id_t *out, OM_uint32 *minor)
{
    gss_name_t self = GSS_C_NO_NAME;
    OM_uint32 major = GSS_S_COMPLETE, m;
    gss_OID_desc mechs[] = {*gss_mech_krb5, gss_spnego};
    gss_OID_set_desc set = {2, mechs};
    gss_key_value_element_desc store_el[] = {{"client_keytab", l->keytab}, {"ccache", l->cache}};
    gss_key_value_set_desc store = {2, store_el};
    if (l->principal)
        major = gss_name(GSS_C_NT_USER_NAME, "%s", l->principal, &self, minor);
    if (!GSS_ERROR(major))
        major = gss_acquire_cred_from(minor, self, GSS_C_INDEFINITE, &set, GSS_C_INITIATE,
                                      l->keytab ? &store : GSS_C_NO_CRED_STORE, out, NULL, NULL);
    if (self != GSS_C_NO_NAME)
        gss_release_name(&m, &self);
    return major;
}

static OM_uint32 gss_token(gss_cred_id_t cred, gss_name_t peer, gss_OID mech, gss_buffer_t out,
                           OM_uint32 *minor)
{
    gss_ctx_id_t ctx = GSS_C_NO_CONTEXT;
    OM_uint32 m, major = gss_init_sec_context(minor, cred, &ctx, peer, mech, GSS_C_MUTUAL_FLAG, 0,
                                              GSS_C_NO_CHANNEL_BINDINGS, GSS_C_NO_BUFFER, NULL, out,
                                              NULL, NULL);
    if (ctx != GSS_C_NO_CONTEXT)
        gss_delete_sec_context(&m, &ctx, GSS_C_NO_BUFFER);
    return major;
}

static char *gss_header(const gss_buffer_desc *token)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const unsigned char *p = token->value;
    size_t n = token->length;
    char *s = malloc(sizeof(GSS_HEADER) + (n + 2) / 3 * 4);
    if (!s)
        return NULL;
    memcpy(s, GSS_HEADER, sizeof(GSS_HEADER));
    char *o = s + sizeof(GSS_HEADER) - 1;
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)p[i] << 16 | (i + 1 < n ? (unsigned)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *o++ = digits[v >> 18];
        *o++ = digits[v >> 12 & 63];
        *o++ = i + 1 < n ? digits[v >> 6 & 63] : '=';
        *o++ = i + 2 < n ? digits[v & 63] : '=';
    }
    *o = 0;
    return s;
}

int hdfs_gss_negotiate(const struct hdfs_login *l, const char *host, char **header,
                       struct zc_error *err)
{
    gss_name_t peer = GSS_C_NO_NAME;
    gss_cred_id_t cred = GSS_C_NO_CREDENTIAL;
    gss_buffer_desc token = GSS_C_EMPTY_BUFFER;
    OM_uint32 minor = 0, m;
    int r = 0;

    if (l->keytab && access(l->keytab, R_OK) < 0)
        return zc_error_set(err, -EACCES, "the keytab %.300s cannot be read: %s", l->keytab,
                            strerror(errno));
    OM_uint32 major = gss_name(GSS_C_NT_HOSTBASED_SERVICE, "HTTP@%s", host, &peer, &minor);
    if (!GSS_ERROR(major))
        major = gss_creds(l, &cred, &minor);
    if (!GSS_ERROR(major)) {
        major = gss_token(cred, peer, &gss_spnego, &token, &minor);
        /* SPNEGO says little of what Kerberos said: it is asked itself. */
        if (GSS_ERROR(major)) {
            OM_uint32 major2 = gss_token(cred, peer, (gss_OID)gss_mech_krb5, &token, &m);
            if (GSS_ERROR(major2)) {
                major = major2;
                minor = m;
            }
        }
    }
    if (GSS_ERROR(major)) {
        r = gss_fail(err, l, host, major, minor);
    } else {
        char *h = gss_header(&token);
        if (h)
            *header = h;
        else
            r = zc_error_set(err, -ENOMEM, "out of memory");
    }
    if (token.value)
        gss_release_buffer(&m, &token);
    if (cred != GSS_C_NO_CREDENTIAL)
        gss_release_cred(&m, &cred);
    if (peer != GSS_C_NO_NAME)
        gss_release_name(&m, &peer);
    return r;
}
