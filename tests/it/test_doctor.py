# SPDX-License-Identifier: Apache-2.0
"""zcache doctor: each finding is made true, by real servers, certificates, clocks and permissions."""

import json
import os
import socket
import subprocess
import time

import pytest

from conftest import make_bytes
from servers import aws, hdfs, s3
from test_errors import faketime_library


class Found:
    """What one run said."""

    def __init__(self, status, doc):
        self.status, self.doc = status, doc
        self.steps = doc["steps"]

    def of(self, step, result=None):
        found = [s for s in self.steps if s["step"] == step and result in (None, s["result"])]
        assert found, f"no {step!r} ({result}) in {json.dumps(self.steps, indent=1)}"
        return found[-1]

    def failed(self):
        return [s["step"] for s in self.steps if s["result"] == "failed"]

    def only_failure(self, step, *words, fix=()):
        """This step failed, no other did, and its words and its remedy say this."""
        assert self.failed() == [step], json.dumps(self.steps, indent=1)
        assert self.status == 1 and self.doc["ok"] is False and self.doc["failed"] == 1
        said = self.of(step, "failed")
        for word in words:
            assert word.lower() in said["text"].lower(), said
        for word in [fix] if isinstance(fix, str) else fix:
            assert word in said.get("fix", ""), said
        return said

    def warned(self, step, *words, fix=()):
        said = self.of(step, "warning")
        for word in words:
            assert word.lower() in said["text"].lower(), said
        for word in [fix] if isinstance(fix, str) else fix:
            assert word in said.get("fix", ""), said
        return said


@pytest.fixture
def doctor(zc):
    def run(source, *options, env=None, server=None, **kw):
        env = {**(server.env() if server else {}), **(env or {})}
        env = {k: v for k, v in env.items() if v is not None}
        cache = [] if "--cache-dir" in options else ["--cache-dir", os.path.join(zc.work, "cache")]
        r = zc.run("doctor", "--json", *cache, *options, source, env=env, **kw)
        assert r.stderr == "", r.stderr
        for secret in (s3.SECRET_KEY, "not-the-secret"):
            assert secret not in r.stdout
        return Found(r.returncode, json.loads(r.stdout))
    return run


@pytest.fixture
def bucket(stores, tree):
    def get(kind, tls=False):
        server = stores.get(kind, tls)
        return server, "s3://" + stores.bucket(server, "tree", tree[0])
    return get


# ------------------------------------------------------------ all is well


@pytest.mark.sanitized
@pytest.mark.parametrize("kind", ["versitygw", "minio"])
@pytest.mark.parametrize("tls", [False, True])
def test_a_source_that_is_well(doctor, bucket, kind, tls):
    server, source = bucket(kind, tls)
    f = doctor(source + "/large", server=server)
    assert f.status == 0 and f.doc["ok"] and f.failed() == []
    for step in ["kernel", "/dev/fuse", "cache", "free space", "name", "connection", "HTTP", "clock",
                 "environment", "key", "authentication", "list", "stat", "read"] + ["TLS"] * tls:
        assert f.of(step)["result"] == "ok", f.of(step)
    for step in ["name", "connection", "HTTP", "authentication", "list", "stat", "read"]:
        assert 0 <= f.of(step)["ms"] < 60000
    assert "1.0 MiB of" in f.of("read")["text"]
    if tls:
        assert "zcache test authority" in f.of("TLS")["text"]


def test_for_a_person(zc, bucket):
    server, source = bucket("versitygw")
    r = zc.ok("doctor", "--cache-dir", zc.work, source, env=server.env())
    lines = r.stdout.splitlines()
    assert lines[0].startswith("zcache ") and "this machine" in lines and "network" in lines
    assert any(line.startswith("  ok       read") for line in lines), r.stdout
    assert lines[-1].startswith(("all is well", "it would mount"))
    r = zc.run("doctor", "--endpoint-url", f"http://127.0.0.1:{s3.free_port()}", source, env=server.env())
    assert r.returncode == 1
    assert "  FAILED   connection" in r.stdout and "-> check --endpoint-url" in r.stdout
    assert r.stdout.splitlines()[-1].startswith("1 failed")


@pytest.mark.parametrize("args,words", [([], "one SOURCE"), (["s3://a/b", "s3://c/d"], "one SOURCE"),
                                        (["data"], "scheme"), (["--region", "x", "file:///etc"], "region"),
                                        (["--bogus", "s3://abc"], "bogus")])
def test_wrong_calls(zc, args, words):
    zc.fails("doctor", *args, status=2, words=words)


def test_sources_of_a_configuration_file(zc, tree, work):
    path = os.path.join(work, "mount.conf")
    with open(path, "w", encoding="utf-8") as f:
        f.write(f"[mount]\ncache-dir = {work}\n[/good]\nsource = file://{tree[0]}\n[/bad/one]\n"
                "source = webhdfs://no-such-host.invalid:1/x\n")
    r = zc.run("doctor", "--config", path)
    assert r.returncode == 1
    good, bad = r.stdout.split("looks at /bad/one=webhdfs://")
    assert "looks at /good=file://" in good and ("all is well" in good or "it would mount" in good) and work in good
    assert "FAILED" not in good and "FAILED" in bad
    assert zc.ok("doctor", "--config", path, "/good").stdout.count("looks at") == 1
    assert json.loads(zc.ok("doctor", "--json", "--config", path, "/good").stdout)["ok"]
    for args, words in ((["/none"], r"no section \[/none\]"), (["good"], r"no section"),
                        (["--region", "x"], "--region: with --config")):
        zc.fails("doctor", "--config", path, *args, status=2, words=words)
    with open(path, "a", encoding="utf-8") as f:
        f.write("region = x\n")
    zc.fails("doctor", "--config", path, status=2, words=r"mount.conf:7: --region has no effect")


def test_what_it_looks_at_stays_as_it_is(doctor, bucket, zc):
    server, source = bucket("versitygw")
    cache = os.path.join(zc.work, "not", "there")
    assert doctor(source, "--cache-dir", cache, server=server).status == 0
    assert not os.path.exists(os.path.dirname(cache))


# ------------------------------------------------------------ network


def test_unknown_host(doctor):
    f = doctor("s3://bucket", "--endpoint-url", "http://no-such-host.invalid:9000", "--no-sign-request")
    f.only_failure("name", "no-such-host.invalid", "not known", fix="--endpoint-url")


def test_closed_port(doctor):
    f = doctor("s3://bucket", "--endpoint-url", f"http://127.0.0.1:{s3.free_port()}", "--no-sign-request")
    f.only_failure("connection", "127.0.0.1", "refused", fix="--endpoint-url")


def test_port_that_is_silent(doctor):
    """Accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        f = doctor("s3://bucket", "--endpoint-url", f"http://127.0.0.1:{silent.getsockname()[1]}",
                   "--no-sign-request")
        f.only_failure("HTTP", "does not answer", fix="silent")


def test_certificate_of_an_unknown_authority(doctor, bucket):
    server, source = bucket("minio", True)
    f = doctor(source, server=server, env={"AWS_CA_BUNDLE": None})
    f.only_failure("TLS", "zcache test authority", "not trusted", fix="--ca-bundle")
    f = doctor(source, "--no-verify-ssl", server=server, env={"AWS_CA_BUNDLE": None})
    assert f.status == 0
    f.warned("TLS", "not trusted")
    assert f.of("read")["result"] == "ok"


def make_certificate(folder, *options, at=()):
    """A self-signed one; at: made at another time (faketime)."""
    key, cert = os.path.join(folder, "k.pem"), os.path.join(folder, "c.pem")
    subprocess.run([*at, "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                    "-keyout", key, "-out", cert, "-subj", "/CN=self made", *options],
                   check=True, capture_output=True)
    return cert, key


@pytest.fixture
def tls_server(work):
    """openssl s_server with a certificate of the test's -> its URL."""
    started = []

    def start(cert, key, host="127.0.0.1"):
        port = s3.free_port()
        started.append(subprocess.Popen(
            ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", cert, "-key", key, "-www",
             "-quiet"], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        s3.wait_for_port(port, started[-1])
        return f"https://{host}:{port}"
    yield start
    for p in started:
        p.kill()
        p.wait()


def test_self_signed_certificate(doctor, tls_server, work):
    cert, key = make_certificate(work, "-days", "30", "-addext", "subjectAltName=IP:127.0.0.1")
    url = tls_server(cert, key)
    f = doctor("s3://bucket", "--endpoint-url", url, "--no-sign-request")
    f.only_failure("TLS", "self made", "self", fix="--ca-bundle")
    f = doctor("s3://bucket", "--endpoint-url", url, "--no-sign-request", "--ca-bundle", cert)
    assert f.of("TLS")["result"] == "ok"


def test_expired_certificate(doctor, tls_server, work):
    cert, key = make_certificate(work, "-days", "3", "-addext", "subjectAltName=IP:127.0.0.1",
                                 at=["faketime", "-f", "-10d"])
    f = doctor("s3://bucket", "--endpoint-url", tls_server(cert, key), "--no-sign-request", "--ca-bundle", cert)
    f.only_failure("TLS", "self made", "has expired on 20", fix="renewed")


def test_certificate_that_ends_soon(doctor, tls_server, work):
    cert, key = make_certificate(work, "-days", "3", "-addext", "subjectAltName=IP:127.0.0.1")
    f = doctor("s3://bucket", "--endpoint-url", tls_server(cert, key), "--no-sign-request", "--ca-bundle", cert)
    f.warned("TLS", "ends soon", fix="renewed")


def test_certificate_that_is_not_valid_yet(doctor, tls_server, work, zc):
    """By this machine's clock, which is a year behind."""
    cert, key = make_certificate(work, "-days", "30", "-addext", "subjectAltName=IP:127.0.0.1")
    f = doctor("s3://bucket", "--endpoint-url", tls_server(cert, key), "--no-sign-request", "--ca-bundle", cert,
               **faked(zc, "-365d"))
    f.only_failure("TLS", "valid only from", fix="clock")


def test_certificate_for_another_name(doctor, bucket):
    server, source = bucket("minio", True)
    f = doctor(source, server=server, env={"AWS_ENDPOINT_URL": f"https://localhost:{server.port}"})
    f.only_failure("TLS", "localhost", "other names", "127.0.0.1", fix="--endpoint-url")


def test_tls_asked_of_a_port_without(doctor, bucket):
    server, source = bucket("minio")
    f = doctor(source, server=server, env={"AWS_ENDPOINT_URL": f"https://127.0.0.1:{server.port}"})
    f.only_failure("TLS", "does not speak TLS", fix="http://")


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_plain_asked_of_a_port_with_tls(doctor, bucket, kind):
    server, source = bucket(kind, True)
    f = doctor(source, server=server, env={"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}"})
    said = f.only_failure("HTTP")
    assert "https" in said["fix"], said


def test_authorities_that_cannot_be_read(doctor, bucket, zc):
    server, source = bucket("minio", True)
    path = os.path.join(zc.work, "not-a-bundle")
    with open(path, "w", encoding="ascii") as f:
        f.write("hello\n")
    doctor(source, "--ca-bundle", path, server=server).only_failure("TLS", path, fix="PEM")
    f = doctor(source, "--ca-bundle", "/nonexistent.pem", server=server)
    f.only_failure("configuration", "/nonexistent.pem")


def test_proxy_is_told(doctor, bucket):
    server, source = bucket("minio")
    port = s3.free_port()
    f = doctor(source, server=server, env={"http_proxy": f"http://127.0.0.1:{port}"})
    assert f.of("proxy")["result"] == "note" and "http_proxy" in f.of("proxy")["text"]
    f.only_failure("connection", str(port), fix="proxy")
    assert doctor(source, server=server, env={"http_proxy": f"http://127.0.0.1:{port}",
                                              "no_proxy": "127.0.0.1"}).status == 0


def faked(zc, shift):
    """A clock that is off, for the whole command."""
    preload = zc.sanitizer_library()
    if preload:
        return {"prefix": ["env", f"LD_PRELOAD={preload} {faketime_library()}", f"FAKETIME={shift}"]}
    return {"prefix": ["faketime", "-f", shift]}


@pytest.mark.parametrize("shift,word", [("-2h", "behind"), ("+2h", "ahead")])
def test_clock_that_is_off(doctor, bucket, zc, shift, word):
    server, source = bucket("minio")
    f = doctor(source, server=server, **faked(zc, shift))
    assert f.status == 0, f.steps
    said = f.warned("clock", word, "dated by the server's", fix="timedatectl")
    assert "7200 s" in said["text"] or "7199 s" in said["text"] or "7201 s" in said["text"], said


# ------------------------------------------------------------ who asks, and for what


def test_no_credentials(doctor, bucket):
    server, source = bucket("minio")
    f = doctor(source, server=server, env={"AWS_ACCESS_KEY_ID": None, "AWS_SECRET_ACCESS_KEY": None})
    f.only_failure("credentials", fix="AWS_ACCESS_KEY_ID")
    tried = [s["step"] for s in f.steps if s["group"] == "credentials" and s["result"] == "note"]
    assert tried == ["environment", "role of the profile", "web identity", "SSO login", "credentials file",
                     "credential_process", "config file", "container", "instance metadata"]


def test_credentials_that_do_not_work(doctor, bucket):
    server, source = bucket("minio")
    env = {"AWS_ACCESS_KEY_ID": None, "AWS_WEB_IDENTITY_TOKEN_FILE": "/nonexistent/token",
           "AWS_ROLE_ARN": aws.ROLE}
    f = doctor(source, server=server, env=env)
    f.only_failure("web identity", "/nonexistent/token", fix="mend it")
    port = s3.free_port()
    env = {"AWS_ACCESS_KEY_ID": None, "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"http://127.0.0.1:{port}/x"}
    doctor(source, server=server, env=env).only_failure("container", str(port), fix="does not answer")


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_wrong_keys(doctor, bucket, kind):
    server, source = bucket(kind)
    f = doctor(source, server=server, env={"AWS_ACCESS_KEY_ID": "AKIANOTHERE"})
    f.only_failure("authentication", "AKIANOTHERE", "environment", fix="--profile")
    f = doctor(source, server=server, env={"AWS_SECRET_ACCESS_KEY": "not-the-secret"})
    f.only_failure("authentication", "secret", fix="copy both again")


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_private_bucket_without_keys(doctor, bucket, kind):
    server, source = bucket(kind)
    f = doctor(source, "--no-sign-request", server=server)
    f.only_failure("list", fix="leave --no-sign-request out")


@pytest.mark.parametrize("kind", ["minio", "versitygw"])
def test_missing_bucket(doctor, stores, kind):
    doctor("s3://no-such-bucket-here", server=stores.get(kind)).only_failure(
        "bucket", "no-such-bucket-here", fix="name")


def test_wrong_region(doctor, zc):
    """A store that minds, and tells the right one."""
    with s3.Versitygw(os.path.join(zc.work, "server")) as server:
        client = server.client()
        client.create_bucket(Bucket="here")
        client.put_object(Bucket="here", Key="x", Body=b"1")
        f = doctor("s3://here", "--region", "eu-west-9", server=server)
        if f.status == 0:
            f.warned("region", "us-east-1", "eu-west-9", fix="--region us-east-1")
        else:
            f.only_failure("region", "region", fix="--region")


def test_empty_prefix_and_empty_bucket(doctor, bucket, new_bucket):
    server, source = bucket("minio")
    f = doctor(source + "/no/such/prefix", server=server)
    assert f.status == 0
    f.warned("list", "nothing is there", fix="prefix")
    f = doctor("s3://" + new_bucket(server), server=server)
    f.warned("list", "nothing is there")
    f = doctor("s3://" + new_bucket(server, {"empty": b""}), server=server)
    assert f.of("read")["result"] == "note"


def set_policy(server, bucket, key, *actions):
    server.client().put_bucket_policy(Bucket=bucket, Policy=json.dumps({
        "Version": "2012-10-17", "Statement": [{
            "Effect": "Allow", "Principal": {"AWS": [key]}, "Action": list(actions),
            "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"]}]}))


def test_denied_list_and_denied_read(doctor, zc):
    """An account that may do only one of them."""
    with aws.Accounts(os.path.join(zc.work, "server")) as server:
        client = server.client()
        client.create_bucket(Bucket="guarded")
        client.put_object(Bucket="guarded", Key="x", Body=b"1234")
        server.admin("create-user", "--access", "reader", "--secret", "readersecret", "--role", "user")
        env = {"AWS_ACCESS_KEY_ID": "reader", "AWS_SECRET_ACCESS_KEY": "readersecret"}
        f = doctor("s3://guarded", server=server, env=env)
        f.only_failure("list", "reader", fix="s3:ListBucket")
        assert f.of("authentication")["result"] == "ok", "the store knows who it is"
        set_policy(server, "guarded", "reader", "s3:ListBucket")
        f = doctor("s3://guarded", server=server, env=env)
        assert f.of("list")["result"] == "ok"
        assert f.failed() in (["stat"], ["read"]) and "s3:GetObject" in f.of(f.failed()[0])["fix"]
        set_policy(server, "guarded", "reader", "s3:ListBucket", "s3:GetObject")
        assert doctor("s3://guarded", server=server, env=env).status == 0


def test_keys_that_end_soon(doctor, zc):
    with aws.Accounts(os.path.join(zc.work, "server")) as server:
        server.client().create_bucket(Bucket="short")
        issuer = aws.Issuer(server, 30)
        with aws.Container(issuer) as c:
            f = doctor("s3://short", env={"AWS_ENDPOINT_URL_S3": server.url, "AWS_REGION": s3.REGION,
                                          "AWS_CONTAINER_CREDENTIALS_FULL_URI": c.url + c.path})
        assert f.status == 0
        f.warned("key", "within a minute")
        issuer.stop()


# ------------------------------------------------------------ this machine


def test_cache_folder(doctor, bucket, zc):
    server, source = bucket("versitygw")
    tmpfs = os.path.join(zc.work, "tmpfs")
    os.makedirs(tmpfs)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", tmpfs], check=True)
    try:
        doctor(source, "--cache-dir", tmpfs + "/c", server=server).only_failure(
            "cache", "tmpfs", fix="--cache-dir")
        f = doctor(source, "--cache-dir", tmpfs, "--allow-tmpfs", server=server)
        f.warned("free space", "for the cache")
        with open(os.path.join(tmpfs, "fill"), "wb") as big:
            big.write(make_bytes(6 << 20, "fill"))
        doctor(source, "--cache-dir", tmpfs, "--allow-tmpfs", server=server).only_failure(
            "free space", fix="--free-space-ratio")
        subprocess.run(["mount", "-o", "remount,ro", tmpfs], check=True)
        doctor(source, "--cache-dir", tmpfs, server=server).only_failure("cache", "Read-only", fix="write")
    finally:
        subprocess.run(["umount", tmpfs], check=True)
    path = os.path.join(zc.work, "file")
    open(path, "w", encoding="ascii").close()
    doctor(source, "--cache-dir", path, server=server).only_failure("cache", "Not a directory")


def test_what_a_user_cannot_do(doctor, bucket, zc):
    """Without root, without fusermount3, with little memory to lock, and with no device."""
    server, source = bucket("versitygw")
    os.chmod(zc.work, 0o777)
    # With a device that all may open, as distributions have it.
    device = os.path.join(zc.work, "fuse")
    subprocess.run(["mknod", "-m", "666", device, "c", "10", "229"], check=True)
    mine = ["/usr/bin/unshare", "-m", "/bin/sh", "-c", f'/bin/mount --bind {device} /dev/fuse && exec "$@"', "sh"]
    user = [*mine, "/usr/bin/setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    # A user's own name for the binary: the folder it lies in may not be theirs to enter.
    binary = os.path.join("/tmp", f"zcache-doctor-{os.getpid()}")
    subprocess.run(["cp", zc.binary, binary], check=True)
    cache = f"/var/tmp/zcache-doctor-{os.getpid()}"
    os.makedirs(cache)
    os.chown(cache, 65534, 65534)
    kept, zc.binary = zc.binary, binary
    home = {"HOME": cache}
    try:
        f = doctor(source, "--cache-dir", cache, server=server, env=home, prefix=user)
        assert f.status == 0, f.steps
        f.warned("passthrough", "root")
        f = doctor(source, "--cache-dir", cache, server=server, env={"PATH": "/nonexistent", "HOME": cache},
                   prefix=user)
        f.only_failure("fusermount3", "not in PATH", fix="fuse3")
        f = doctor(source, "--cache-dir", cache, server=server, env=home,
                   prefix=["prlimit", "--memlock=65536", "--nofile=500", *user])
        f.warned("locked memory", "64.0 KiB", fix="ulimit")
        f.warned("open files", "500")
        f = doctor(source, "--cache-dir", cache, server=server, env=home,
                   prefix=[*user[:5], "sh", "/bin/sh", "-c", f'/bin/chmod 600 {device} && exec "$@"', "sh",
                           *user[len(mine):]])
        f.only_failure("/dev/fuse", "cannot be opened", fix="chmod")
        f = doctor(source, "--cache-dir", cache, server=server, env=home, prefix=[
            "unshare", "-m", "sh", "-c", 'mount -t tmpfs none /dev && exec "$@"', "sh"])
        f.only_failure("/dev/fuse", "is not there", fix="modprobe")
    finally:
        zc.binary = kept
        os.remove(binary)
        os.rmdir(cache)


def test_directory(doctor, tree, zc):
    f = doctor("file://" + tree[0])
    assert f.status == 0
    assert f.of("directory")["result"] == f.of("list")["result"] == "ok"
    doctor(f"file://{zc.work}/nowhere").only_failure("directory", "No such file", fix="path")
    doctor(f"file://{tree[0]}/one").only_failure("directory", "Not a directory")


# ------------------------------------------------------------ HDFS


@pytest.mark.slow
class TestHdfs:
    @pytest.fixture(scope="class")
    def pair(self, base):
        with hdfs.HACluster(os.path.join(base, "doctor-ha")) as c:
            c.put("/data/x", make_bytes(300_000, "x"))
            c.must("PUT", "/data/mine", "MKDIRS")
            c.must("PUT", "/data/mine", "SETPERMISSION", permission="700")
            yield c

    def test_pair(self, doctor, pair):
        """One active, one standby; then none is."""
        options = ["--hadoop-conf", pair.conf]
        f = doctor(pair.url + "/data", *options)
        assert f.status == 0, f.steps
        states = sorted(s["text"].split()[-1] for s in f.steps if s["step"] == "state")
        assert states == ["active", "standby"]
        for step in ("path", "list", "stat", "read", "DataNode", "clock"):
            assert f.of(step)["result"] == "ok", f.of(step)

    def test_path_and_permission(self, doctor, pair):
        options = ["--hadoop-conf", pair.conf]
        doctor(pair.url + "/nowhere", *options).only_failure("path", "/nowhere", fix="path")
        # The path's own words are none of a login's.
        doctor(pair.url + "/data/tokenized-tickets", *options).only_failure("path", "tokenized", fix="path")
        doctor(pair.url + "/data/mine", *options, "--hdfs-user", "stranger").only_failure(
            "path", "denied", "stranger", fix="--hdfs-user")

    def test_safe_mode(self, doctor, pair):
        pair.tool("org.apache.hadoop.hdfs.tools.DFSAdmin", "-safemode", "enter")
        try:
            f = doctor(pair.url + "/data", "--hadoop-conf", pair.conf)
            assert f.status == 0
            f.warned("safe mode", "safe mode is on", fix="-safemode leave")
        finally:
            pair.tool("org.apache.hadoop.hdfs.tools.DFSAdmin", "-safemode", "leave")

    def test_configuration(self, doctor, pair, work):
        f = doctor("hdfs://zc/data", "--hadoop-conf", work)  # a folder without the files
        f.only_failure("configuration", "core-site.xml", fix="--hadoop-conf")

    def test_no_name_node_is_active(self, doctor, pair):
        port = pair.ports[3 - pair.active][1]
        f = doctor(f"webhdfs://127.0.0.1:{port}/data")
        f.only_failure("path", "standby")
        assert f.of("state")["text"].endswith("standby")

    def test_none_of_two_is_active(self, doctor, pair):
        pair.tool(hdfs.HAADMIN, "-transitionToStandby", f"nn{pair.active}")
        try:
            f = doctor(pair.url + "/data", "--hadoop-conf", pair.conf)
            assert f.failed() == ["active", "path"], f.steps
            assert "-transitionToActive" in f.of("active")["fix"] and "standby" in f.of("path")["text"]
        finally:
            pair.activate(pair.active)

    def test_certificates(self, doctor, hdfs_cluster):
        c = hdfs_cluster
        c.put("/doctor/f", make_bytes(200_000, "tls"))
        source = f"swebhdfs://{c.host}:{c.https}/doctor"
        f = doctor(source, "--ca-bundle", c.ca)
        assert f.status == 0 and f.of("TLS")["result"] == f.of("read")["result"] == "ok", f.steps
        doctor(source).only_failure("TLS", "not trusted", fix="--ca-bundle")
        f = doctor(source.replace("127.0.0.1", "localhost").replace(str(c.https), str(c.http)), "--ca-bundle", c.ca)
        f.only_failure("TLS", "does not speak TLS")

    def test_clock_that_is_off(self, doctor, hdfs_cluster, zc):
        """No mount fails because of it: nothing is dated by us, and Kerberos puts up with what its own server says."""
        hdfs_cluster.put("/doctor/f", make_bytes(200_000, "tls"))
        f = doctor(hdfs_cluster.url + "/doctor", **faked(zc, "-2h"))
        assert f.status == 0 and f.of("read")["result"] == "ok", f.steps
        f.warned("clock", "behind", fix="timedatectl")

    def test_name_node_that_is_down(self, doctor, pair):
        """The other answers, so that a mount works; but who looks is told."""
        dead = pair.kill_active()
        try:
            f = doctor(pair.url + "/data", "--hadoop-conf", pair.conf)
            f.only_failure("connection", "refused", fix="NameNode up")
            assert f.of("read")["result"] == f.of("clock")["result"] == "ok"
        finally:
            pair.restart_namenode(dead)

    def test_data_node_that_is_down(self, doctor, pair):
        """One of two: the file is read from the other, and who did not answer is named when it was
        asked."""
        for name in ("dn1", "dn2"):
            pair.daemons[name].kill()
        f = doctor(pair.url + "/data", "--hadoop-conf", pair.conf)
        assert f.failed() == ["read"], f.steps
        assert "DataNode" in f.of("read")["fix"]
        f.warned("DataNode", "did not answer", fix="dfs.datanode")

    def test_port_that_is_no_web_hdfs(self, doctor, stores):
        server = stores.get("versitygw")
        f = doctor(f"webhdfs://127.0.0.1:{server.port}/data")
        assert f.status == 1 and f.failed()[0] in ("WebHDFS", "path")


@pytest.mark.slow
class TestKerberos:
    @pytest.fixture(scope="class")
    def secure(self, base):
        with hdfs.KerberosCluster(os.path.join(base, "doctor-krb")) as c:
            c.put("/data/f", make_bytes(200_000, "krb"))
            yield c

    def test_tickets(self, doctor, secure, work):
        """A good one, none, and one that has expired."""
        f = doctor(secure.url + "/data", "--hdfs-keytab", secure.keytab("alice"), env=secure.krb_env())
        assert f.status == 0, f.steps
        cache = os.path.join(work, "tickets")
        secure.kinit("alice", cache, "-l", "2s")
        assert doctor(secure.url + "/data", env=secure.krb_env(cache)).status == 0
        time.sleep(8)  # its life and the difference of clocks that is borne
        doctor(secure.url + "/data", env=secure.krb_env(cache)).only_failure("login", "expired", fix="kinit")
        doctor(secure.url + "/data", env=secure.krb_env()).only_failure("login", "Kerberos", fix="kinit")

    def test_key_server_that_is_down(self, doctor, secure):
        secure.stop_kdc()
        try:
            doctor(secure.url + "/data", "--hdfs-keytab", secure.keytab("alice"),
                   env=secure.krb_env()).only_failure("login", "Kerberos", fix="--hdfs-keytab")
        finally:
            secure.start_kdc()
