/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of the HDFS source that need no cluster: configuration, addresses, answers, tokens,
 * versions. */
#include "unit.h"

#include "backend/hdfs_priv.h"
#include "backend/hdfs_token.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct hdfs_conf *conf(const char *properties)
{
    zc_autofree char *xml = NULL;
    struct zc_error err = {0};
    struct hdfs_conf *c = hdfs_conf_new();
    assert_true(asprintf(&xml, "<?xml version=\"1.0\"?>\n<configuration>%s</configuration>",
                         properties) > 0);
    if (hdfs_conf_parse(c, xml, strlen(xml), "test.xml", &err) < 0)
        fail_msg("%s", err.text);
    return c;
}

#define P(name, value) "<property><name>" name "</name><value>" value "</value></property>"

/* ---- configuration ---- */

static void properties_are_read(void **state)
{
    setenv("ZC_TEST_HOST", "envhost", 1);
    unsetenv("ZC_TEST_NONE");
    struct hdfs_conf *c =
        conf("<property>\n <name> a </name><value>\n one \n</value><final>true</final></property>"
             "<!-- no --><property><name>b</name><value>x-${a}-${c}</value></property>" P(
                 "c", "${env.ZC_TEST_HOST}:${env.ZC_TEST_NONE:-80}") P("d", "${unknown}")
                 P("loop", "${loop}") P("empty", "") P("amp", "&lt;&amp;"));
    static const struct {
        const char *name, *value;
    } want[] = {{"a", "one"},        {"b", "x-one-envhost:80"},
                {"c", "envhost:80"}, {"d", "${unknown}"},
                {"loop", NULL},      {"empty", ""},
                {"amp", "<&"},       {"nothing", NULL}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(want); i++) {
        zc_autofree char *v = hdfs_conf_get(c, want[i].name);
        if (want[i].value)
            assert_string_equal(v, want[i].value);
        else
            assert_null(v);
    }
    /* A later file wins, but not over what is final. */
    const char *more = "<configuration>" P("a", "two") P("d", "four") "</configuration>";
    assert_int_equal(hdfs_conf_parse(c, more, strlen(more), "more.xml", NULL), 0);
    zc_autofree char *a = hdfs_conf_get(c, "a"), *d = hdfs_conf_get(c, "d");
    assert_string_equal(a, "one");
    assert_string_equal(d, "four");
    hdfs_conf_free(c);
}

static void bad_xml_is_named(void **state)
{
    static const struct {
        const char *xml, *words;
    } cases[] = {
        {"", "bad.xml, line 1"},
        {"<configuration>\n<property>\n</configuration>", "line 3"},
        {"<other/>", "<configuration>"},
        {"<!DOCTYPE configuration [<!ENTITY a \"aa\">]><configuration>&a;</configuration>",
         "entities"},
        {"<configuration xmlns:xi=\"http://www.w3.org/2001/XInclude\"><xi:include "
         "href=\"x\"/></configuration>",
         "xi:include"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct zc_error err = {0};
        struct hdfs_conf *c = hdfs_conf_new();
        assert_true(hdfs_conf_parse(c, cases[i].xml, strlen(cases[i].xml), "bad.xml", &err) < 0);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' has no '%s'", err.text, cases[i].words);
        hdfs_conf_free(c);
    }
}

/* ---- addresses ---- */

#define HA                                                                                         \
    P("dfs.nameservices", "other, zc")                                                             \
    P("dfs.ha.namenodes.zc", "nn1,nn2")                                                            \
    P("dfs.namenode.http-address.zc.nn1", "h1:1001")                                               \
    P("dfs.namenode.https-address.zc.nn1", "h1:2001")                                              \
    P("dfs.namenode.rpc-address.zc.nn2", "h2:8020")                                                \
    P("dfs.namenode.http-address.zc.nn2", "0.0.0.0:1002")                                          \
    P("dfs.namenode.http-address.other", "o:1003")                                                 \
    P("fs.defaultFS", "hdfs://zc")

static void sources_resolve(void **state)
{
    static const struct {
        const char *conf;
        enum zc_hdfs_scheme scheme;
        const char *authority, *name, *urls;
    } cases[] = {
        {"", ZC_HDFS_WEBHDFS, "nn:9870", "nn:9870", "http://nn:9870"},
        {"", ZC_HDFS_WEBHDFS, "nn", "nn:9870", "http://nn:9870"},
        {"", ZC_HDFS_SWEBHDFS, "nn", "nn:9871", "https://nn:9871"},
        {"", ZC_HDFS_WEBHDFS, "a:1,b:2", "a:1,b:2", "http://a:1 http://b:2"},
        {"", ZC_HDFS_WEBHDFS, "[::1]:9870", "[::1]:9870", "http://[::1]:9870"},
        {"", ZC_HDFS_HDFS, "nn:8020", "nn:8020", "http://nn:9870"},
        {"", ZC_HDFS_HDFS, "prod", "prod", "http://prod:9870"},
        {P("fs.defaultFS", "hdfs://nn:8020/") P("dfs.namenode.http-address", "web:50070"),
         ZC_HDFS_HDFS, "", "nn:8020", "http://web:50070"},
        {P("dfs.namenode.rpc-address", "nn:8020") P("dfs.namenode.http-address", "0.0.0.0:1"),
         ZC_HDFS_HDFS, "nn:8020", "nn:8020", "http://nn:1"},
        {HA, ZC_HDFS_HDFS, "zc", "zc", "http://h1:1001 http://h2:1002"},
        {HA, ZC_HDFS_HDFS, "", "zc", "http://h1:1001 http://h2:1002"},
        {HA, ZC_HDFS_WEBHDFS, "zc", "zc", "http://h1:1001 http://h2:1002"},
        {HA, ZC_HDFS_HDFS, "other", "other", "http://o:1003"},
        {HA P("dfs.http.policy", "HTTPS_ONLY"), ZC_HDFS_HDFS, "zc", "zc",
         "https://h1:2001 https://h2:9871"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct hdfs_conf *c = conf(cases[i].conf);
        struct hdfs_target t;
        struct zc_error err = {0};
        zc_autobuf struct zc_buf urls = {0};
        if (hdfs_resolve(c, cases[i].scheme, cases[i].authority, &t, &err) < 0)
            fail_msg("case %zu: %s", i, err.text);
        for (size_t k = 0; k < t.n; k++)
            zc_buf_addf(&urls, "%s%s", k ? " " : "", t.nn[k].url);
        assert_string_equal(t.name, cases[i].name);
        assert_string_equal(urls.p, cases[i].urls);
        assert_int_equal(t.guessed, strcmp(cases[i].authority, "prod") == 0);
        hdfs_target_free(&t);
        hdfs_conf_free(c);
    }
}

static void wrong_sources_are_refused(void **state)
{
    static const struct {
        const char *conf;
        enum zc_hdfs_scheme scheme;
        const char *authority, *words;
    } cases[] = {
        {"", ZC_HDFS_HDFS, "", "fs.defaultFS"},
        {"", ZC_HDFS_WEBHDFS, "", "names no host"},
        {"", ZC_HDFS_WEBHDFS, "a:b", "host:port"},
        {"", ZC_HDFS_WEBHDFS, "a:1,", "host:port"},
        {"", ZC_HDFS_WEBHDFS, "a:99999", "host:port"},
        {"", ZC_HDFS_WEBHDFS, "user@host", "host:port"},
        {"", ZC_HDFS_HDFS, "no such", "nameservice"},
        {P("dfs.ha.namenodes.zc", "nn1"), ZC_HDFS_HDFS, "zc", "dfs.namenode.http-address.zc.nn1"},
        {P("dfs.nameservices", "zc"), ZC_HDFS_HDFS, "zc", "dfs.namenode.http-address"},
        {P("fs.defaultFS", "s3a://b"), ZC_HDFS_HDFS, "", "no hdfs://"},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct hdfs_conf *c = conf(cases[i].conf);
        struct hdfs_target t;
        struct zc_error err = {0};
        assert_int_equal(hdfs_resolve(c, cases[i].scheme, cases[i].authority, &t, &err), -EINVAL);
        if (!strstr(err.text, cases[i].words))
            fail_msg("'%s' has no '%s'", err.text, cases[i].words);
        hdfs_conf_free(c);
    }
}

static void redirects_give_their_authority(void **state)
{
    const char *a, *rpc;
    size_t n, rpc_n;
    assert_int_equal(
        hdfs_location("http://dn:9864/webhdfs/v1/x%20y?op=OPEN&namenoderpcaddress=nn:8020&offset=0",
                      false, &a, &n, &rpc, &rpc_n),
        0);
    assert_memory_equal(a, "dn:9864", n);
    assert_int_equal(rpc_n, 7);
    assert_memory_equal(rpc, "nn:8020", 7);
    assert_int_equal(
        hdfs_location("http://dn:9864/?namenoderpcaddress=ns", false, &a, &n, &rpc, &rpc_n), 0);
    assert_int_equal(rpc_n, 2);
    assert_int_equal(hdfs_location("http://dn:9864", false, &a, &n, &rpc, &rpc_n), 0);
    assert_null(rpc);
    assert_int_equal(hdfs_location("http://dn:9864/", true, &a, &n, &rpc, &rpc_n), -EBADMSG);
    assert_int_equal(hdfs_location("https://dn/", true, &a, &n, &rpc, &rpc_n), -EBADMSG);
    assert_int_equal(hdfs_location("/webhdfs/v1", false, &a, &n, &rpc, &rpc_n), -EBADMSG);
    assert_int_equal(hdfs_location("http://a b:1/", false, &a, &n, &rpc, &rpc_n), -EBADMSG);
}

/* ---- answers ---- */

static void exceptions_decide(void **state)
{
    static const struct {
        int status;
        const char *exception, *message;
        int err;
        bool other, auth;
    } cases[] = {
        {404, "FileNotFoundException", "File does not exist: /x", -ENOENT, false, false},
        {403, "AccessControlException", "Permission denied: user=bob", -EACCES, false, false},
        {403, "StandbyException", "Operation category READ is not supported in state standby",
         -EAGAIN, true, false},
        {403, "RetriableException", "NameNode still not started", -EAGAIN, true, false},
        {403, "SafeModeException", "Zero blocklocations", -EAGAIN, true, false},
        {403, "InvalidToken", "token can't be found in cache", -EACCES, false, true},
        {403, "SecurityException", "Failed to obtain user group information: ...InvalidToken",
         -EACCES, false, true},
        {403, "SecurityException", "Failed ...: StandbyException", -EAGAIN, true, false},
        {403, "SecurityException",
         "Failed to obtain user group information: org.apache.hadoop.ipc.RetriableException: "
         "Namenode is in startup mode",
         -EAGAIN, true, false},
        {403, "SecurityException", "Failed ...: SafeModeException: Cannot issue", -EAGAIN, true,
         false},
        {403, "ParentNotDirectoryException", "/a/f (is not a directory)", -ENOTDIR, false, false},
        {403, "IOException", "No active and not excluded nodes left", -EAGAIN, false, false},
        {403, "IOException", "Offset=9 out of the range [0, 5); OPEN, path=/x", -ERANGE, false,
         false},
        {403, "IOException", "something", -EIO, false, false},
        {500, "RemoteException", "something", -EAGAIN, false, false},
        {500, "RemoteException", "User: root is not allowed to impersonate root", -EACCES, false,
         false},
        {400, "IllegalArgumentException",
         "Invalid value for webhdfs parameter \"op\": No enum constant", -ENOTSUP, false, false},
        {400, "InvalidPathException", "Invalid path name /a:b", -ENOENT, false, false},
        {401, "AuthenticationException", "Authentication required", -EACCES, false, true},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct hdfs_fault f;
        json_t *j =
            json_pack("{s:{s:s,s:s,s:s}}", "RemoteException", "exception", cases[i].exception,
                      "javaClassName", "x", "message", cases[i].message);
        zc_autofree char *text = json_dumps(j, 0);
        json_decref(j);
        hdfs_fault_of(cases[i].status, text, strlen(text), &f);
        if (f.err != cases[i].err || f.other_node != cases[i].other || f.auth != cases[i].auth)
            fail_msg("%s: %s: %d %d %d", cases[i].exception, cases[i].message, f.err, f.other_node,
                     f.auth);
        assert_string_equal(f.text, cases[i].message);
    }
}

static void answers_that_are_no_json(void **state)
{
    static const struct {
        int status, err;
        bool auth;
    } cases[] = {{401, -EACCES, true}, {404, -ENOENT, false}, {503, -EAGAIN, false},
                 {400, -EIO, false},   {403, -EIO, false},    {429, -EAGAIN, false}};
    const char *html = "<html><body><h2>HTTP ERROR</h2></body></html>";
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct hdfs_fault f;
        hdfs_fault_of(cases[i].status, html, strlen(html), &f);
        assert_int_equal(f.err, cases[i].err);
        assert_int_equal(f.auth, cases[i].auth);
        assert_non_null(strstr(f.text, "HTTP status"));
        hdfs_fault_of(cases[i].status, NULL, 0, &f);
        assert_int_equal(f.err, cases[i].err);
    }
    /* The first line of a message is enough. */
    struct hdfs_fault f;
    const char *trace =
        "{\"RemoteException\":{\"exception\":\"IOException\",\"message\":\"why\\n\\tat a.b.C\"}}";
    hdfs_fault_of(403, trace, strlen(trace), &f);
    assert_string_equal(f.text, "why");
}

#define FILE_JSON(name, type, more)                                                                \
    "{\"accessTime\":1,\"blockSize\":134217728,\"fileId\":16387,\"group\":\"g\",\"length\":"       \
    "300000,"                                                                                      \
    "\"modificationTime\":1795417709026,\"owner\":\"o\",\"pathSuffix\":\"" name                    \
    "\",\"permission\":\"644\",\"replication\":2,\"type\":\"" type "\"" more "}"

static void statuses_are_read(void **state)
{
    const char *s = "{\"FileStatus\":" FILE_JSON("", "FILE", "") "}";
    struct hdfs_file f;
    json_t *doc;
    char version[HDFS_VERSION_BYTES];
    assert_int_equal(hdfs_json_status(s, strlen(s), &doc, &f), 0);
    assert_int_equal(f.type, HDFS_FILE);
    assert_int_equal(f.mode, 0644);
    assert_string_equal(f.owner, "o");
    assert_string_equal(f.group, "g");
    hdfs_version(&f, version);
    assert_string_equal(version, "16387:1795417709026:300000");
    json_decref(doc);

    static const char *const bad[] = {
        "",
        "[]",
        "{",
        "{}",
        "{\"FileStatus\":{}}",
        "{\"FileStatus\":[]}",
        "{\"FileStatus\":{\"type\":\"FILE\",\"length\":-1,\"modificationTime\":1}}",
        "{\"FileStatus\":{\"type\":\"FILE\",\"length\":\"1\",\"modificationTime\":1}}",
        "{\"FileStatus\":{\"type\":\"FILE\",\"length\":1,\"modificationTime\":\"1\"}}",
        "{\"FileStatus\":{\"type\":\"FILE\",\"length\":1}}",
        "{\"FileStatus\":{\"type\":\"FILE\",\"modificationTime\":1}}",
        "{\"FileStatus\":{\"type\":\"DIRECTORY\",\"length\":9223372036854775808}}",
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(hdfs_json_status(bad[i], strlen(bad[i]), &doc, &f), -EBADMSG);
}

/* Whoever owns a file may set its time to anything, which hides neither it nor its neighbours. */
static void any_time_is_a_time(void **state)
{
    static const char *const times[] = {"9223372036854775807", "-9223372036854775808", "-1500",
                                        "0"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(times); i++) {
        struct hdfs_file f;
        struct hdfs_key k;
        json_t *doc;
        char s[200], version[HDFS_VERSION_BYTES], want[HDFS_VERSION_BYTES];
        snprintf(s, sizeof(s),
                 "{\"FileStatus\":{\"type\":\"FILE\",\"length\":18,\"fileId\":16387,"
                 "\"modificationTime\":%s}}",
                 times[i]);
        assert_int_equal(hdfs_json_status(s, strlen(s), &doc, &f), 0);
        snprintf(want, sizeof(want), "16387:%s:18", times[i]);
        hdfs_version(&f, version);
        assert_string_equal(version, want);
        assert_int_equal(hdfs_version_parse(version, &k), 0);
        assert_true(k.mtime_ms == f.mtime_ms);
        json_decref(doc);
    }
}

static void listings_are_read(void **state)
{
    const char *page =
        "{\"DirectoryListing\":{\"partialListing\":{\"FileStatuses\":{\"FileStatus\":"
        "[" FILE_JSON("a", "FILE", "") "," FILE_JSON("b\\ufffd", "FILE", "") "," FILE_JSON("..", "DIRECTORY", "") "," FILE_JSON(
            "n\\u0000ul", "FILE",
            "") "," FILE_JSON("d/e", "FILE",
                              "") "," FILE_JSON("l", "SYMLINK",
                                                ",\"symlink\":\"/x\"") "," FILE_JSON("\\ud83d\\"
                                                                                     "ude00",
                                                                                     "DIRECTOR"
                                                                                     "Y",
                                                                                     "") "]}},"
                                                                                         "\"rem"
                                                                                         "ainin"
                                                                                         "gEntr"
                                                                                         "ies\""
                                                                                         ":7}}";
    struct hdfs_file *f;
    json_t *doc;
    size_t n;
    uint64_t left;
    assert_int_equal(hdfs_json_list(page, strlen(page), &doc, &f, &n, &left), 0);
    assert_int_equal(n, 7);
    assert_int_equal(left, 7);
    static const bool hidden[] = {false, true, true, true, true, false, false};
    for (size_t i = 0; i < n; i++)
        assert_int_equal(f[i].hidden, hidden[i]);
    assert_int_equal(f[5].type, HDFS_OTHER);
    assert_int_equal(f[6].type, HDFS_DIR);
    assert_string_equal(f[6].name, "\xf0\x9f\x98\x80");
    free(f);
    json_decref(doc);

    const char *whole = "{\"FileStatuses\":{\"FileStatus\":[]}}";
    assert_int_equal(hdfs_json_list(whole, strlen(whole), &doc, &f, &n, &left), 0);
    assert_int_equal(n, 0);
    assert_int_equal(left, 0);
    free(f);
    json_decref(doc);
    const char *bad =
        "{\"DirectoryListing\":{\"partialListing\":{\"FileStatuses\":{\"FileStatus\":[]}}}}";
    assert_int_equal(hdfs_json_list(bad, strlen(bad), &doc, &f, &n, &left), -EBADMSG);
}

/* Signed bytes, as Hadoop compares them. */
static void names_have_an_order(void **state)
{
    static const char *const sorted[] = {
        "\xc3\xa9", "\xf0\x9f\x98\x80", "a", "a\xc3\xa9", "aa", "ab", "b"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(sorted); i++) {
        for (size_t k = 0; k < ZC_ARRAY_SIZE(sorted); k++) {
            int r = hdfs_name_order(sorted[i], sorted[k]);
            assert_int_equal((r > 0) - (r < 0), (i > k) - (i < k));
        }
    }
}

/* Whatever a server gives, listing it comes to an end. */
static void pages_go_forward(void **state)
{
    static const struct {
        const char *after, *names[3];
        uint64_t remaining;
        bool hidden, good; /* hidden: the last one */
    } cases[] = {
        {NULL, {"a", "b", "c"}, 7, false, true},
        {"B", {"a", "b", "c"}, 7, false, true},
        {"\xc3\xa9", {"a", "b"}, 7, false, true},
        {"a", {NULL}, 0, false, true},
        {NULL, {""}, 0, true, true},              /* of a file */
        {"a", {"a", "b", "c"}, 7, false, false},  /* it begins where the other one ended */
        {"d", {"a", "b", "c"}, 7, false, false},  /* the first page again */
        {NULL, {"b", "c", "a"}, 7, false, false}, /* would lead back */
        {"b", {"c", "a"}, 7, false, false},
        {NULL, {"a", "a"}, 7, false, false},
        {NULL, {NULL}, 7, false, false},  /* nothing, and yet there is more */
        {"b", {"c", ""}, 7, true, false}, /* behind a name that cannot be asked for */
        {NULL, {""}, 7, true, false},
        {NULL, {"b\xef\xbf\xbd"}, 7, true, false},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        struct hdfs_file f[3] = {0};
        size_t n = 0;
        for (; n < 3 && cases[i].names[n]; n++)
            f[n].name = cases[i].names[n];
        if (n)
            f[n - 1].hidden = cases[i].hidden;
        if (hdfs_page_is_good(f, n, cases[i].remaining, cases[i].after) != cases[i].good)
            fail_msg("case %zu", i);
    }
}

static void texts_are_told(void **state)
{
    static const struct {
        const char *s;
        bool text;
    } cases[] = {{"", true},
                 {"plain", true},
                 {"\xc3\xa9", true},
                 {"e\xcc\x81", true},
                 {"\xf0\x9f\x98\x80", true},
                 {"\xef\xbf\xbd", false},
                 {"\xff", false},
                 {"\xc3", false},
                 {"\xc0\xaf", false},
                 {"\xe0\x80\xaf", false},
                 {"\xed\xa0\x80", false},
                 {"\xf4\x90\x80\x80", false},
                 {"\xf0\x9f\x98", false},
                 {"\x80", false}};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++)
        assert_int_equal(hdfs_name_is_text(cases[i].s, strlen(cases[i].s)), cases[i].text);
}

static void versions_are_read_back(void **state)
{
    struct hdfs_key k;
    assert_int_equal(hdfs_version_parse("16387:1795417709026:300000", &k), 0);
    assert_int_equal(k.inode, 16387);
    assert_int_equal(k.mtime_ms, 1795417709026);
    assert_int_equal(k.length, 300000);
    static const char *const bad[] = {"",       "1",     "1:2",    "1:2:3:4",
                                      "1:2:3 ", "x:2:3", " 1:2:3", "-1:2:3"};
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(hdfs_version_parse(bad[i], &k), -EINVAL);
}

/* ---- blocks and nodes ---- */

#define DN(host, port) "{\"hostName\":\"" host "\",\"infoPort\":" port ",\"infoSecurePort\":0}"
#define BLOCK(off, len, dns)                                                                       \
    "{\"startOffset\":" off ",\"block\":{\"numBytes\":" len "},\"locations\":[" dns "]}"

static void blocks_are_found(void **state)
{
    struct hdfs_nodes *n = hdfs_nodes_new();
    struct hdfs_key key = {.inode = 7, .length = 250, .mtime_ms = 1};
    const char *json = "{\"LocatedBlocks\":{\"fileLength\":250,\"locatedBlocks\":[" BLOCK(
        "0", "100", DN("a", "1") "," DN("b", "2")) "," BLOCK("100", "100",
                                                             DN("b", "2") "," DN(
                                                                 "c", "3")) "," BLOCK("200", "50",
                                                                                      "") "]}}";
    bool known;
    assert_null(hdfs_blocks_pick(n, &key, 0, 0, NULL, 0, &known));
    assert_false(known);
    assert_int_equal(hdfs_blocks_put(n, &key, 0, false, json, strlen(json)), 0);
    struct hdfs_dn *a = hdfs_blocks_pick(n, &key, 0, 0, NULL, 0, &known);
    struct hdfs_dn *b = hdfs_blocks_pick(n, &key, 99, 1, NULL, 0, &known);
    assert_true(known);
    assert_string_equal(a->authority, "a:1");
    assert_string_equal(b->authority, "b:2");
    assert_ptr_equal(hdfs_blocks_pick(n, &key, 100, 0, NULL, 0, &known), b);
    /* The bad one last, the avoided one never. */
    hdfs_node_bad(b);
    assert_string_equal(hdfs_blocks_pick(n, &key, 100, 0, NULL, 0, &known)->authority, "c:3");
    struct hdfs_dn *avoid[] = {a};
    assert_ptr_equal(hdfs_blocks_pick(n, &key, 5, 0, avoid, 1, &known), b);
    struct hdfs_dn *both[] = {a, b};
    assert_null(hdfs_blocks_pick(n, &key, 5, 0, both, 2, &known));
    assert_true(known);
    hdfs_node_good(b);
    assert_false(hdfs_node_is_bad(b));
    assert_null(hdfs_blocks_pick(n, &key, 200, 0, NULL, 0, &known));
    /* Another version has blocks of its own; an answer about another length is none. */
    struct hdfs_key other = {.inode = 7, .length = 251, .mtime_ms = 1};
    assert_null(hdfs_blocks_pick(n, &other, 0, 0, NULL, 0, &known));
    assert_int_equal(hdfs_blocks_put(n, &other, 0, false, json, strlen(json)), -ESTALE);
    hdfs_blocks_drop(n, &key, 0);
    assert_null(hdfs_blocks_pick(n, &key, 0, 0, NULL, 0, &known));
    assert_false(known);
    /* Enough of them to make all tables turn over. */
    for (uint64_t i = 0; i < 6000; i++) {
        key.inode = 100 + i;
        assert_int_equal(hdfs_blocks_put(n, &key, 0, false, json, strlen(json)), 0);
    }
    for (unsigned i = 0; i < 500; i++) {
        char name[32];
        int len = snprintf(name, sizeof(name), "h%u:9864", i);
        assert_string_equal(hdfs_node(n, name, (size_t)len)->authority, name);
    }
    assert_ptr_equal(hdfs_node(n, "a:1xxx", 3), a);
    hdfs_nodes_free(n);

    static const char *const bad[] = {
        "{}",
        "{\"LocatedBlocks\":{\"fileLength\":1,\"locatedBlocks\":[{}]}}",
        "{\"LocatedBlocks\":{\"fileLength\":1,\"locatedBlocks\":[" BLOCK("0", "-1", "") "]}}",
        "{\"LocatedBlocks\":{\"fileLength\":1,\"locatedBlocks\":[" BLOCK("9223372036854775807", "1",
                                                                         "") "]}}",
        "{\"LocatedBlocks\":{\"fileLength\":1,\"locatedBlocks\":[" BLOCK("0", "1",
                                                                         DN("a/b", "1")) "]}}",
        "{\"LocatedBlocks\":{\"fileLength\":1,\"locatedBlocks\":[" BLOCK("0", "1",
                                                                         DN("a", "70000")) "]}}",
    };
    n = hdfs_nodes_new();
    for (size_t i = 0; i < ZC_ARRAY_SIZE(bad); i++)
        assert_int_equal(hdfs_blocks_put(n, &key, 0, false, bad[i], strlen(bad[i])), -EBADMSG);
    hdfs_nodes_free(n);
}

/* ---- tokens and owners ---- */

static const char *const token_hosts[] = {"nn", "10.0.0.1", "::1"};
static const unsigned token_ports[] = {8020, 9870};
static const struct hdfs_token_for token_for = {"nn:8020", token_hosts, 3, token_ports, 2};

static int token_of(const void *p, size_t n, char **out)
{
    struct zc_error err;
    return hdfs_token_parse(p, n, &token_for, out, &err);
}

static void tokens_are_read(void **state)
{
    char *t;
    /* One for something else, then one for HDFS: identifier "id", password "pw", kind, service "s".
     */
    const char file[] = "HDTS\0\2\1a\1i\1p\5OTHER\1s"
                        "\3nnn\2id\2pw\25HDFS_DELEGATION_TOKEN\1s";
    assert_int_equal(token_of(file, sizeof(file) - 1, &t), 0);
    assert_string_equal(t, "AmlkAnB3FUhERlNfREVMRUdBVElPTl9UT0tFTgFz");
    free(t);
    for (size_t n = 0; n < sizeof(file) - 1; n++) {
        int r = token_of(file, n, &t);
        assert_true(r == -EBADMSG || r == -ENOENT);
    }
    assert_int_equal(token_of("HDTS\0\0", 6, &t), -ENOENT);
    assert_int_equal(token_of("HDTS\1\0", 6, &t), -EBADMSG);
    assert_int_equal(token_of("AAAAbbbbCCCCdddd-_\n", 19, &t), 0);
    assert_string_equal(t, "AAAAbbbbCCCCdddd-_");
    free(t);
    assert_int_equal(token_of("AAAAbbbbCCCC dddd", 17, &t), -EBADMSG);
    assert_int_equal(token_of("short", 5, &t), -EBADMSG);

    const char *json = "{\"Token\":{\"urlString\":\"AAA-_b\"}}";
    assert_int_equal(hdfs_json_token(json, strlen(json), &t), 0);
    assert_string_equal(t, "AAA-_b");
    free(t);
    const char *evil = "{\"Token\":{\"urlString\":\"A&op=DELETE\"}}";
    assert_int_equal(hdfs_json_token(evil, strlen(evil), &t), -EBADMSG);
}

/* A file with tokens of several clusters: the one for this source, or none by mistake. */
static void the_right_token_is_taken(void **state)
{
    static const char *const zc_hosts[] = {"h1", "h2"};
    static const unsigned zc_ports[] = {9870};
    static const struct hdfs_token_for zc = {"zc", zc_hosts, 2, zc_ports, 1};
    static const struct {
        const struct hdfs_token_for *who;
        const char *services[4]; /* NULL: no more; "=..." has the secret of the one before it */
        int want;                /* which; -1: -ENOTUNIQ */
    } cases[] = {
        {&token_for, {"other:8020", "nn:8020"}, 1},
        {&token_for, {"other:8020", "10.0.0.1:8020"}, 1},
        {&token_for, {"other:8020", "[::1]:9870", "nn2:8020"}, 1},
        {&token_for, {"nn:8021", "NN:8020"}, 1},
        {&token_for, {"other:8020", "nn:8021"}, 1},
        {&token_for, {"nn:8021", "nn:8022"}, -1},
        {&token_for, {"nn:8021", "=10.0.0.1:8021"}, 0},
        {&token_for, {"other:8020"}, 0},
        {&token_for, {"other:8020", "=another:8020"}, 0},
        {&token_for, {"other:8020", "another:8020"}, -1},
        {&token_for, {"ha-hdfs:nn", "nnn:8020", "ha-hdfs:zc"}, -1},
        {&zc, {"ha-hdfs:other", "ha-hdfs:zc"}, 1},
        {&zc, {"ha-hdfs:zcc", "ha-webhdfs:zc"}, 1},
        {&zc, {"ha-hdfs:other", "h2:8020", "=h1:8020"}, 1},
        {&zc, {"ha-hdfs:other", "ha-hdfs:another"}, -1},
        {&zc, {"", ":", "8020"}, -1},
    };
    for (size_t i = 0; i < ZC_ARRAY_SIZE(cases); i++) {
        char file[600] = "HDTS\0", *got = NULL, *want = NULL;
        size_t n = 6;
        char secret = '0';
        for (size_t k = 0; k < 4 && cases[i].services[k]; k++) {
            const char *s = cases[i].services[k];
            file[5] = (char)(k + 1);
            if (*s == '=')
                s++;
            else
                secret++;
            /* Each is made by itself, as a file of one, for what it should look like. */
            char one[200] = "HDTS\0\1";
            size_t len = (size_t)snprintf(one + 6, 150, "%c%c%c%c%c%c%s%c%s", 1, 'a', 1, secret, 1,
                                          'p', "\25HDFS_DELEGATION_TOKEN", (int)strlen(s), s);
            memcpy(file + n, one + 6, len);
            n += len;
            if ((int)k == cases[i].want)
                assert_int_equal(token_of(one, len + 6, &want), 0);
        }
        struct zc_error err = {0};
        int r = hdfs_token_parse(file, n, cases[i].who, &got, &err);
        if (r != (want ? 0 : -ENOTUNIQ) || (want && strcmp(got, want) != 0))
            fail_msg("case %zu: %d %s, not %s", i, r, got, want);
        if (r < 0 && *cases[i].services[0])
            assert_non_null(strstr(err.text, cases[i].services[0]));
        free(got);
        free(want);
    }
}

static void owners_are_numbers(void **state)
{
    struct hdfs_ids *ids = hdfs_ids_new();
    struct hdfs_id id;
    assert_false(hdfs_ids_known(ids, "root", "root", &id));
    id = hdfs_ids_find(ids, "root", "no-such-group-here");
    assert_int_equal(id.uid, 0);
    assert_int_equal(id.gid, ZC_ID_UNSET);
    assert_true(hdfs_ids_known(ids, "root", "no-such-group-here", &id));
    assert_int_equal(id.uid, 0);
    assert_true(hdfs_ids_known(ids, NULL, "", &id));
    assert_int_equal(id.uid, ZC_ID_UNSET);
    hdfs_ids_free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(properties_are_read),
        cmocka_unit_test(bad_xml_is_named),
        cmocka_unit_test(sources_resolve),
        cmocka_unit_test(wrong_sources_are_refused),
        cmocka_unit_test(redirects_give_their_authority),
        cmocka_unit_test(exceptions_decide),
        cmocka_unit_test(answers_that_are_no_json),
        cmocka_unit_test(statuses_are_read),
        cmocka_unit_test(any_time_is_a_time),
        cmocka_unit_test(listings_are_read),
        cmocka_unit_test(names_have_an_order),
        cmocka_unit_test(pages_go_forward),
        cmocka_unit_test(texts_are_told),
        cmocka_unit_test(versions_are_read_back),
        cmocka_unit_test(blocks_are_found),
        cmocka_unit_test(tokens_are_read),
        cmocka_unit_test(the_right_token_is_taken),
        cmocka_unit_test(owners_are_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
