# SPDX-License-Identifier: Apache-2.0
"""What a person gets wrong is an error of the command, in words, and leaves nothing behind."""

import os
import socket
import subprocess

import pytest
from servers import s3
from zcache import mounts_below

pytestmark = pytest.mark.sanitized


@pytest.fixture
def refused(zc):
    """mount ... that must fail: a message with the words, no mount, an empty cache."""
    def run(*args, words, point=None, cache=None, env=None, status=None, **kw):
        made, made_cache = zc.place()
        cache = made_cache if cache is None else cache
        options = ["--cache-dir", cache, "--cache-size", "64MiB"]
        r = zc.fails("mount", *options, *args, made if point is None else point, words=words, env=env,
                     status=status, **kw)
        assert mounts_below(zc.work) == []
        if cache == made_cache:
            assert os.listdir(made_cache) == []
        assert "Sanitizer" not in r.stderr
        return r
    return run


# ------------------------------------------------------------ the command line


def test_unknown_option(refused, tree):
    refused("--no-such-option", f"file://{tree[0]}", words="no-such-option", status=2)


def test_unknown_command(zc):
    zc.fails("frobnicate", words="frobnicate", status=2)


def test_no_arguments(zc):
    zc.fails("mount", words="SOURCE", status=2)
    zc.fails("mount", "file:///", words="MOUNTPOINT", status=2)


@pytest.mark.parametrize("size", ["100", "1gb", "10 GiB", "-5GiB", "lots", ""])
def test_size_without_unit(refused, tree, size):
    refused(f"--cache-size={size}", f"file://{tree[0]}", words=["cache-size"], status=2)


@pytest.mark.parametrize("option", ["--metadata-ttl=soon", "--passthrough=maybe", "--io-uring=yes",
                                    "--max-threads=0", "--chunk-size=3MiB", "--file-mode=999",
                                    "--free-space-ratio=2"])
def test_values_that_mean_nothing(refused, tree, option):
    refused(option, f"file://{tree[0]}", words=option.split("=")[0].strip("-"), status=2)


@pytest.mark.parametrize("source", ["gopher://host/path", "data", "/data", "s3:bucket", "s3://", "http://x/y"])
def test_unknown_scheme(refused, source):
    refused(source, words=["s3"] if ":" in source else ["file://"], status=2)


def test_words_in_the_wrong_order(zc, tree):
    """mount takes the mount point last, source add takes it first."""
    point, source = zc.place()[0], "file://" + tree[0]
    zc.fails("mount", point, source, words=["MOUNTPOINT comes last"], status=2)
    zc.fails("source", "add", "/a=" + source, point, words=["MOUNTPOINT comes first"], status=2)


def test_option_of_the_mount_for_a_source(zc, tree):
    zc.fails("source", "add", "--cache-size=1GiB", zc.place()[0], "/a=file://" + tree[0],
             words=["--cache-size is an option of the whole mount"], status=2)
    zc.fails("source", "add", "--regio=x", zc.place()[0], "/a=file://" + tree[0],
             words=["unknown option", "--region"], status=2)


def test_options_that_would_do_nothing(refused, tree):
    refused("--region", "us-east-1", f"file://{tree[0]}", words="region", status=2)


# ------------------------------------------------------------ places


def test_mount_point_missing(refused, zc, tree):
    refused(f"file://{tree[0]}", point=os.path.join(zc.work, "nowhere"), words=["nowhere"])


def test_mount_point_is_a_file(refused, zc, tree):
    path = os.path.join(zc.work, "file")
    open(path, "w", encoding="ascii").close()
    refused(f"file://{tree[0]}", point=path, words=["director"])


def test_mount_point_busy(zc, tree):
    m = zc.mount(f"file://{tree[0]}")
    other = zc.place()[1]
    zc.fails("mount", "--cache-dir", other, f"file://{tree[0]}", m.path, words=["already|mounted"])
    assert m.read("one") == open(os.path.join(tree[0], "one"), "rb").read()


def test_source_folder_missing(refused, zc):
    refused(f"file://{zc.work}/nowhere", words=["nowhere"])


def test_source_is_a_file(refused, tree):
    refused(f"file://{tree[0]}/one", words=["director"])


def test_cache_directory_not_writable(refused, zc, tree):
    """Root may write where the mode says no, but not on a read-only file system."""
    place = os.path.join(zc.work, "readonly")
    os.makedirs(place)
    subprocess.run(["mount", "--bind", place, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        made, _ = zc.place()
        zc.fails("mount", "--cache-dir", place, f"file://{tree[0]}", made, words=["readonly"])
        zc.fails("mount", "--cache-dir", place + "/below", f"file://{tree[0]}", made, words=["readonly"])
    finally:
        subprocess.run(["umount", place], check=True)


def test_cache_directory_is_a_file(zc, tree):
    path = os.path.join(zc.work, "file")
    open(path, "w", encoding="ascii").close()
    zc.fails("mount", "--cache-dir", path, f"file://{tree[0]}", zc.place()[0], words=["file"])


def test_cache_on_tmpfs(zc, tree):
    place = os.path.join(zc.work, "tmpfs")
    os.makedirs(place)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", place], check=True)
    try:
        zc.fails("mount", "--cache-dir", place, "--cache-size", "32MiB", f"file://{tree[0]}", zc.place()[0],
                 words=["tmpfs", "--allow-tmpfs"])
        m = zc.mount(f"file://{tree[0]}", "--allow-tmpfs", cache=place, point=zc.place()[0], size="32MiB")
        assert m.read("chunk") == open(os.path.join(tree[0], "chunk"), "rb").read()
        assert m.umount().returncode == 0
    finally:
        subprocess.run(["umount", place], check=True)


def test_cache_inside_the_mount_point(zc, tree):
    point, _ = zc.place()
    zc.fails("mount", "--cache-dir", point + "/cache", f"file://{tree[0]}", point, words=["cache"])


def test_commands_on_what_is_no_mount(zc):
    plain = zc.place()[0]
    for args in (["umount", plain], ["status", plain], ["warm", plain], ["free", plain]):
        zc.fails(*args, words=["mount"], status=1)


def test_warm_and_free_of_a_name_that_is_not_there(zc, tree):
    m = zc.mount(f"file://{tree[0]}")
    zc.fails("warm", m.join("nowhere"), words=["nowhere"])
    zc.fails("free", m.join("nowhere"), words=["nowhere"])


def test_help_and_version(zc):
    assert "mount" in zc.ok("--help").stdout
    assert zc.ok("--version").stdout.startswith("zcache ")
    for command in ("mount", "umount", "warm", "free", "status"):
        assert f"zcache {command}" in zc.ok(command, "--help").stdout


# ------------------------------------------------------------ the store says no


@pytest.fixture
def store_refuses(refused, stores, tree):
    def run(kind, *options, words, tls=False, **change):
        server = stores.get(kind, tls)
        bucket = change.pop("bucket", None) or stores.bucket(server, "tree", tree[0])
        env = {**server.env(), **change}
        env = {k: v for k, v in env.items() if v is not None}
        return refused(*options, f"s3://{bucket}", words=words, env=env)
    return run


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_access_key(store_refuses, kind):
    store_refuses(kind, AWS_ACCESS_KEY_ID="AKIANOTHERE", words=["access key|credentials"])


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_secret_key(store_refuses, kind):
    store_refuses(kind, AWS_SECRET_ACCESS_KEY="not-the-secret", words=["secret|signature"])


def test_no_credentials_at_all(store_refuses):
    store_refuses("versitygw", AWS_ACCESS_KEY_ID=None, AWS_SECRET_ACCESS_KEY=None, words=["credentials"])


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_no_sign_request_to_a_private_bucket(store_refuses, kind):
    store_refuses(kind, "--no-sign-request", words=["denied|refuse|access"])


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_bucket(store_refuses, kind):
    store_refuses(kind, bucket="no-such-bucket-here", words=["no-such-bucket-here", "bucket"])


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_prefix(zc, stores, tree, kind):
    """An empty directory is what there is, and that is said, of each source; of a right one nothing is."""
    server = stores.get(kind)
    source = "s3://" + stores.bucket(server, "tree", tree[0])
    point, cache = zc.place()
    r = zc.ok("mount", "--cache-dir", cache, "/a=" + source + "/many", "/b=" + source + "/manny", "/c=" + source
              + "/page", point, env=server.env())
    said = r.stderr.splitlines()
    assert len(said) == 2 and "/manny" in said[0] and "prefix" in said[0] and "/page" in said[1], r.stderr
    assert os.listdir(os.path.join(point, "b")) == []
    assert "/nope" in zc.ok("source", "add", point, "/d=" + source + "/nope").stderr
    assert zc.ok("source", "add", point, "/e=" + source + "/large").stderr == ""
    zc.ok("umount", point)


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_region(stores, zc, tree, kind):
    """Either the server does not care, or the message names the region."""
    server = stores.get(kind)
    bucket = stores.bucket(server, "tree", tree[0])
    point, cache = zc.place()
    r = zc.run("mount", "--cache-dir", cache, "--region", "mars-north-1", f"s3://{bucket}", point,
               env=server.env())
    if r.returncode == 0:
        zc.ok("umount", point)
    else:
        assert "region" in r.stderr.lower(), r.stderr


def test_nobody_listens(store_refuses):
    store_refuses("minio", AWS_ENDPOINT_URL=f"http://127.0.0.1:{s3.free_port()}", words=["refused|connect"])


def test_name_node_that_is_not_there(refused, zc):
    """A nameservice without its configuration, and a port at which nobody listens."""
    refused("hdfs://prod.invalid/data", words=["prod.invalid", "nameservice", "--hadoop-conf"])
    refused("hdfs://prod.invalid:8020/data", words=["prod.invalid", "HTTP address"])
    refused(f"webhdfs://127.0.0.1:{s3.free_port()}/data", words=["HTTP address"])
    assert "--hadoop-conf" in zc.run("doctor", "hdfs://prod.invalid/data").stdout


def test_host_that_does_not_exist(store_refuses):
    store_refuses("minio", AWS_ENDPOINT_URL="http://no-such-host.invalid:9000", words=["no-such-host.invalid"])


def test_endpoint_that_is_no_s3(store_refuses, zc):
    """A web server that answers everything with a page."""
    web = subprocess.Popen(
        ["/usr/bin/python3", "-c", """
import http.server, sys
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = b"<html><body>hello</body></html>"
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    do_HEAD = do_GET
    def log_message(self, *a): pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
""", str(port := s3.free_port())])
    try:
        s3.wait_for_port(port, web)
        store_refuses("minio", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", words=["S3|understood|answer"])
    finally:
        web.kill()
        web.wait()


@pytest.mark.slow
def test_endpoint_that_never_answers(zc, work):
    """Accepts and is silent: an error within the deadline, not a hang."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        point, cache = zc.place()
        r = zc.fails("mount", "--cache-dir", cache, "--read-timeout", "5s", "--endpoint-url",
                     f"http://127.0.0.1:{silent.getsockname()[1]}", "s3://bucket", point, timeout=60,
                     env={"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, words=["time|answer"])
        assert "127.0.0.1" in r.stderr


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
@pytest.mark.parametrize("shift", ["+3h", "-3h"])
def test_clock_skew(zc, stores, tree, kind, shift):
    """The daemon's clock is hours off: it goes by the server's, and the log says so."""
    prefix, preload = ["faketime", "-f", shift], zc.sanitizer_library()
    if preload:  # it wants to be loaded before any other library
        prefix = ["env", f"LD_PRELOAD={preload} {faketime_library()}", f"FAKETIME={shift}"]
    server = stores.get(kind)
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), server=server, prefix=prefix)
    assert m.read("chunk+1") == open(os.path.join(tree[0], "chunk+1"), "rb").read()
    assert len(os.listdir(m.join("many/5"))) == 30
    assert "clock" in zc.log_tail(), "nobody was told"


def faketime_library():
    out = subprocess.run(["faketime", "-f", "+0", "sh", "-c", "echo $LD_PRELOAD"], capture_output=True,
                         text=True, check=True).stdout
    return out.split()[-1]


@pytest.mark.parametrize("kind,words", [("expired", "token|expired"), ("skew", "clock|time")])
def test_expired_token_and_skew_by_their_codes(store_refuses, proxy, kind, words):
    """The codes that Amazon's service answers, from the proxy."""
    p, _ = proxy
    p.fault(kind)
    r = store_refuses("versitygw", AWS_ENDPOINT_URL=p.url, AWS_SESSION_TOKEN="old", words=[words])
    assert p.stats()["requests"] <= 4, "an error that no retry mends was tried again and again"
    assert len(r.stderr) < 1500


# ------------------------------------------------------------ TLS


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_unknown_authority(store_refuses, kind):
    store_refuses(kind, tls=True, AWS_CA_BUNDLE=None, words=["certificate|TLS|SSL"])


@pytest.mark.parametrize("kind", ["versitygw", "minio"])
def test_wrong_authority(store_refuses, kind, work):
    other, _, _ = s3.make_authority(os.path.join(work, "other"))
    store_refuses(kind, tls=True, AWS_CA_BUNDLE=other, words=["certificate|TLS|SSL"])


def test_authority_file_missing(store_refuses):
    store_refuses("minio", "--ca-bundle", "/nonexistent/ca.pem", tls=True, words=["/nonexistent/ca.pem"])


def test_certificate_for_another_name(refused, stores, tree, work):
    server = stores.get("minio", True)
    bucket = stores.bucket(server, "tree", tree[0])
    refused(f"s3://{bucket}", env={**server.env(), "AWS_ENDPOINT_URL": f"https://localhost:{server.port}"},
            words=["certificate|TLS|SSL|name"])


def test_authority_by_option_and_no_verify(zc, stores, tree):
    server = stores.get("versitygw", True)
    bucket = stores.bucket(server, "tree", tree[0])
    env = server.env()
    ca = env.pop("AWS_CA_BUNDLE")
    for options in (["--ca-bundle", ca], ["--no-verify-ssl"]):
        m = zc.mount(f"s3://{bucket}", *options, env=env)
        assert len(m.read("page")) == 4096


def test_plain_http_to_a_tls_port(store_refuses, stores):
    port = stores.get("versitygw", True).port
    store_refuses("versitygw", AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", words=["."])


def test_endpoint_that_says_nothing(refused):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(64)
        at = "127.0.0.1:%d" % s.getsockname()[1]
        refused("s3://bucket", "--endpoint-url", "http://" + at, "--no-sign-request",
                "--read-timeout", "3s", words=[at], timeout=20)


def test_mount_in_its_own_source(zc, refused):
    point, _ = zc.place()
    refused("file://" + os.path.dirname(point), words=["in its own source"], point=point)
    inner = os.path.join(point, "inner")
    os.mkdir(inner)
    refused("file://" + inner, words=["hide its own source"], point=point)
