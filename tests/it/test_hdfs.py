# SPDX-License-Identifier: Apache-2.0
"""What HDFS has of its own, against real daemons: plain, over TLS, with two NameNodes, with Kerberos. What all
sources must do is in test_contract.py.

HDFS_ENTRIES=100000   entries of the large directory (5,000)
HDFS_KILLS=20         DataNodes killed in mid-read (3)
HDFS_VERSION=3.3.6    release of the daemons (3.5.0)
"""

import errno
import hashlib
import http.client
import http.server
import os
import random
import re
import signal
import socket
import stat
import threading
import time
import urllib.parse

import pytest

from conftest import MIB, make_bytes
from servers import hdfs
from zcache import wait_for

ENTRIES = int(os.environ.get("HDFS_ENTRIES") or 5000)
KILLS = int(os.environ.get("HDFS_KILLS") or 3)


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="class")
def simple(hdfs_cluster):
    return hdfs_cluster


def make_dirs(cluster, parent, names):
    """Directories are the cheapest entries there are: one request each, on one connection."""
    c = http.client.HTTPConnection(*cluster.namenode(), timeout=60)
    for name in names:
        c.request("PUT", "/webhdfs/v1" + urllib.parse.quote(f"{parent}/{name}") + "?op=MKDIRS&user.name=root")
        r = c.getresponse()
        assert r.status == 200, r.read()
        r.read()
    c.close()


class Tap:
    """Passes connections on to a port of localhost, and keeps what goes through."""

    def __init__(self, port):
        self.to, self.bytes, self.lock = port, bytearray(), threading.Lock()
        self.listener = socket.create_server(("localhost", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("localhost", self.to))
            except OSError:
                near.close()
                continue
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self.pump, args=(a, b), daemon=True).start()

    def pump(self, a, b):
        try:
            while data := a.recv(65536):
                with self.lock:
                    self.bytes += data
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            a.close()
            b.close()

    def found(self, pattern):
        with self.lock:
            return {m.decode() for m in re.findall(pattern, bytes(self.bytes))}


class Reading(threading.Thread):
    """Reads a file from end to end, in pieces; .at says how far it is."""

    def __init__(self, path, step=256 * 1024):
        super().__init__()
        self.path, self.step, self.at, self.error, self.sum = path, step, 0, None, hashlib.sha256()

    def run(self):
        try:
            with open(self.path, "rb", buffering=0) as f:
                while data := f.read(self.step):
                    self.sum.update(data)
                    self.at += len(data)
        except OSError as e:
            self.error = e

    def reach(self, n):
        while self.at < n and self.is_alive():
            time.sleep(0.001)

    def result(self, seconds=50):
        self.join(seconds)
        assert not self.is_alive(), f"{self.path} hangs at {self.at}"
        if self.error:
            raise self.error
        return self.sum.hexdigest()


class TestSimple:
    """A NameNode and two DataNodes."""

    def test_a_large_directory_comes_in_pages(self, zc, simple):
        # Hadoop's order has what is no ASCII first, so that a page begins with it and goes on with the rest.
        names = [f"d{i:06d}" for i in range(ENTRIES // 2)] + [f"é{i:06d}" for i in range(ENTRIES // 2)]
        simple.mkdir("/large")
        make_dirs(simple, "/large", names)
        simple.put("/large/file", b"x" * 1000)
        m = zc.mount(simple.url + "/large", server=simple)
        assert sorted(os.listdir(m)) == sorted(names + ["file"])
        assert ENTRIES / 1000 <= m.requests()["lists"] <= ENTRIES / 1000 + 2  # one of them is the probe's
        assert os.stat(m.join("file")).st_size == 1000
        assert os.stat(m.join(names[ENTRIES // 4])).st_mode & stat.S_IFDIR
        with pytest.raises(FileNotFoundError):
            os.stat(m.join("d"))

    @pytest.mark.sanitized
    def test_a_file_of_many_blocks(self, zc, simple):
        files = {"blocks": make_bytes(9 * MIB + 5, "blocks"), "large": make_bytes(40 * MIB, "large")}
        simple.put("/blocks/blocks", files["blocks"], blocksize=MIB)
        simple.put("/blocks/large", files["large"], blocksize=16 * MIB)
        m = zc.mount(simple.url + "/blocks", server=simple)
        for p, d in files.items():
            assert m.read(p) == d
        # HDFS cannot be asked for what is no UTF-8: it is not there.
        with pytest.raises(FileNotFoundError):
            os.stat(os.fsencode(m.path) + b"/\xff\xfe")

    def test_links_are_not_shown_and_counted(self, zc, simple):
        """Symbolic links are switched off in HDFS; a name that was not UTF-8 is shown as one with U+FFFD."""
        simple.put("/hidden/a", b"a")
        simple.put("/hidden/b\ufffd", b"b")
        m = zc.mount(simple.url + "/hidden", server=simple)
        assert os.listdir(m) == ["a"]
        assert m.status()["vfs"]["hidden"] == 1
        with pytest.raises(FileNotFoundError):
            os.stat(m.join("b\ufffd"))

    def test_owner_mode_and_times(self, zc, simple):
        simple.put("/attr/ours", b"1")
        simple.put("/attr/theirs", b"1")
        simple.must("PUT", "/attr/ours", "SETOWNER", owner="daemon", group="mail")
        simple.must("PUT", "/attr/theirs", "SETOWNER", owner="stranger", group="strangers")
        simple.must("PUT", "/attr/ours", "SETPERMISSION", permission="640")
        simple.must("PUT", "/attr/ours", "SETTIMES", modificationtime=1500000000123, accesstime=1)
        m = zc.mount(simple.url + "/attr", server=simple)
        s = os.stat(m.join("ours"))
        assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (1, 8, 0o640)
        assert s.st_mtime_ns == 1500000000123000000
        s = os.stat(m.join("theirs"))
        assert (s.st_uid, s.st_gid) == (os.getuid(), os.getgid())
        m.umount()
        # Neither is part of a file's version.
        simple.must("PUT", "/attr", "SETPERMISSION", permission="751")
        m = zc.mount(simple.url + "/attr", "--metadata-ttl", "1", server=simple)
        assert stat.S_IMODE(os.stat(m.join("ours")).st_mode) == 0o640
        assert stat.S_IMODE(os.stat(m).st_mode) == 0o751
        simple.must("PUT", "/attr/ours", "SETPERMISSION", permission="604")
        simple.must("PUT", "/attr", "SETPERMISSION", permission="755")
        wait_for(lambda: stat.S_IMODE(os.stat(m.join("ours")).st_mode) == 0o604, 10)
        wait_for(lambda: stat.S_IMODE(os.stat(m).st_mode) == 0o755, 10)
        m.umount()
        simple.mkdir("/attr/folder")
        simple.must("PUT", "/attr/folder", "SETPERMISSION", permission="1750")
        simple.must("PUT", "/attr/folder", "SETOWNER", owner="daemon", group="mail")
        m = zc.mount(simple.url + "/attr", server=simple)
        s = os.stat(m.join("folder"))
        assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (1, 8, 0o1750)
        m.umount()
        m = zc.mount(simple.url + "/attr", "--uid", "12", "--gid", "13", "--file-mode", "0400", "--dir-mode", "0510",
                     server=simple)
        for name, mode in (("ours", 0o400), ("theirs", 0o400), ("folder", 0o510), ("", 0o510)):
            s = os.stat(m.join(name))
            assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (12, 13, mode), name

    def test_times_that_nothing_can_show(self, zc, simple):
        """Who owns a file may set its time to anything: it and its neighbours are read all the same, and the time
        still tells one version from another."""
        most = 2**63 - 1
        simple.put("/times/far", b"far")
        simple.put("/times/near", b"near")
        simple.must("PUT", "/times/far", "SETTIMES", modificationtime=most, accesstime=1)
        m = zc.mount(simple.url + "/times", "--metadata-ttl", "minimal", server=simple)
        assert sorted(os.listdir(m)) == ["far", "near"]
        assert (m.read("far"), m.read("near")) == (b"far", b"near")
        assert time.gmtime(os.stat(m.join("far")).st_mtime).tm_year == 2262
        gets = m.requests()["gets"]
        simple.must("PUT", "/times/far", "SETTIMES", modificationtime=most - 1, accesstime=1)
        assert m.read("far") == b"far"
        assert m.requests()["gets"] == gets + 1

    def test_permission_is_hdfs_s(self, zc, simple):
        simple.put("/private/f", b"secret")
        simple.must("PUT", "/private/f", "SETPERMISSION", permission="600")
        m = zc.mount(simple.url + "/private", "--hdfs-user", "nobody", server=simple)
        with pytest.raises(PermissionError):
            m.read("f")
        simple.must("PUT", "/private", "SETPERMISSION", permission="700")
        zc.fails("mount", "--cache-dir", zc.place()[1], "--hdfs-user", "nobody", simple.url + "/private",
                 zc.place()[0], words=["permission denied", "nobody"])

    def test_two_users_in_one_mount(self, zc, simple, work):
        simple.put("/users/f", b"for root alone")
        simple.must("PUT", "/users/f", "SETPERMISSION", permission="600")
        conf = os.path.join(work, "mount.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write("".join(f"[/{who}]\nsource = {simple.url}/users\nhdfs-user = {who}\n"
                            for who in ("root", "nobody")))
        m = zc.mount([], "--config", conf)
        with pytest.raises(PermissionError):
            m.read("nobody/f")
        assert m.read("root/f") == b"for root alone"

    def test_a_namenode_that_is_silent(self, zc, simple):
        """A mount waits for it as long as --read-timeout says, and no longer."""
        point, cache = zc.place()
        simple.daemons["nn"].freeze()
        try:
            began = time.monotonic()
            zc.fails("mount", "--cache-dir", cache, "--read-timeout", "2s", simple.url + "/x", point,
                     words=[f"127.0.0.1:{simple.http}: no byte came for [2-9][.][0-9] s",
                            r"given up after [2-9][.][0-9] s \(--read-timeout\)"])
            took = time.monotonic() - began
        finally:
            simple.daemons["nn"].thaw()
        # Without the limit it is the 15 seconds that one NameNode may be silent.
        assert 2 <= took < 12, took

    def test_append_and_truncate_are_seen(self, zc, simple):
        one = make_bytes(5 * MIB, "one")
        simple.put("/grow/f", one)
        m = zc.mount(simple.url + "/grow", "--metadata-ttl", "minimal", server=simple)
        f = os.open(m.join("f"), os.O_RDONLY)
        assert os.pread(f, 4096, 0) == one[:4096]
        simple.append("/grow/f", b"more")
        try:
            assert os.pread(f, MIB, 4 * MIB) == one[4 * MIB:]
        except OSError as e:
            assert e.errno == errno.ESTALE
        os.close(f)
        assert m.read("f") == one + b"more"
        simple.must("POST", "/grow/f", "TRUNCATE", newlength=MIB)
        for _ in range(100):  # the last block is being recovered
            if simple.stat("/grow/f")["length"] == MIB and "true" not in str(simple.ask(
                    "GET", "/grow/f", "GET_BLOCK_LOCATIONS")[2]).split("isUnderConstruction")[1][:8]:
                break
            time.sleep(0.1)
        assert m.read("f") == one[:MIB]

    @pytest.mark.sanitized
    def test_datanodes_killed_and_frozen(self, zc, simple):
        data = make_bytes(128 * MIB, "kill")
        want = sha(data)
        simple.put("/kill/f", data, blocksize=32 * MIB)
        rnd = random.Random(4)
        retries = 0
        for i in range(KILLS + 1):
            victim = simple.daemons[f"dn{i % 2 + 1}"]
            m = zc.mount(simple.url + "/kill", server=simple)
            r = Reading(m.join("f"))
            r.start()
            r.reach(MIB)
            time.sleep(rnd.random() / 4)
            freeze = i == KILLS
            victim.freeze() if freeze else victim.kill()
            try:
                assert r.result() == want, f"round {i}"
            finally:
                victim.thaw() if freeze else simple.restart(f"dn{i % 2 + 1}")
            retries += m.status()["backend"]["retries"]
            m.umount()
        assert retries > 0, "no kill came in mid-read"

    def test_a_datanode_dead_before_the_read(self, zc, simple):
        """The NameNode goes on offering it for ten minutes."""
        files = {f"/dead/f{i}": make_bytes(20000, f"dead{i}") for i in range(20)}
        simple.put_many(files)
        simple.daemons["dn1"].kill()
        try:
            m = zc.mount(simple.url + "/dead", server=simple)
            began = time.monotonic()
            for p, d in files.items():
                assert m.read(p.rsplit("/", 1)[1]) == d
            assert time.monotonic() - began < 15
        finally:
            simple.restart("dn1")

    def test_tls(self, zc, simple):
        data = make_bytes(5 * MIB, "tls")
        simple.put("/tls/f", data)
        source = f"swebhdfs://{simple.host}:{simple.https}/tls"
        m = zc.mount(source, "--ca-bundle", simple.ca, server=simple)
        assert m.read("f") == data
        point, cache = zc.place()
        zc.fails("mount", "--cache-dir", cache, source, point, words="certificate")
        m2 = zc.mount(source, "--no-verify-ssl", server=simple)
        assert m2.read("f") == data

    def test_the_configuration_finds_it(self, zc, simple):
        simple.put("/conf/f", b"found")
        for source in ("hdfs:///conf", f"hdfs://{simple.host}:{simple.rpc}/conf"):
            m = zc.mount(source, "--hadoop-conf", simple.conf, server=simple)
            assert m.read("f") == b"found"
            m.umount()
        m = zc.mount("hdfs:///conf", env={"HADOOP_CONF_DIR": simple.conf}, server=simple)
        assert m.read("f") == b"found"

    def test_a_configuration_with_tls_only(self, zc, simple, work):
        """hdfs:// goes over TLS then, to the NameNode and to the DataNodes, and the options for it mean something."""
        data = make_bytes(9 * MIB + 5, "only")
        simple.put("/only/f", data, blocksize=MIB)
        with open(os.path.join(work, "hdfs-site.xml"), "w", encoding="ascii") as f:
            f.write(hdfs.site({"fs.defaultFS": f"hdfs://{simple.host}:{simple.rpc}", "dfs.http.policy": "HTTPS_ONLY",
                               "dfs.namenode.https-address": f"{simple.host}:{simple.https}"}))
        m = zc.mount("hdfs:///only", "--hadoop-conf", work, "--ca-bundle", simple.ca)
        assert m.read("f") == data
        point, cache = zc.place()
        zc.fails("mount", "--cache-dir", cache, "--hadoop-conf", work, "hdfs:///only", point, words="certificate")
        # Without TLS they mean nothing, unless they are said for other sources too.
        for option in (("--ca-bundle", simple.ca), ("--no-verify-ssl",)):
            zc.fails("mount", "--cache-dir", cache, "--hadoop-conf", simple.conf, *option, "hdfs:///only", point,
                     words=[option[0] + " has no effect", "HTTPS_ONLY"])
        conf = os.path.join(work, "mount.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write(f"[mount]\nca-bundle = {simple.ca}\n"
                    f"[/tls]\nsource = hdfs:///only\nhadoop-conf = {work}\n"
                    f"[/plain]\nsource = hdfs:///only\nhadoop-conf = {simple.conf}\n")
        m = zc.mount([], "--config", conf)
        assert m.read("tls/f") == m.read("plain/f") == data

    def test_bad_sources_are_refused_in_words(self, zc, simple):
        simple.put("/words/f", b"x")
        point, cache = zc.place()
        free = hdfs.free_port()
        for source, words, options in (
                (f"webhdfs://127.0.0.1:{free}/x", ["connect", str(free)], ()),
                ("webhdfs://no-such-host.invalid:9870/x", "resolve", ()),
                (simple.url + "/missing", "does not exist", ()),
                (simple.url + "/words/f", "not a directory", ()),
                (f"webhdfs://127.0.0.1:{simple.dn_ports[0]}/x", "Invalid operation GETFILESTATUS", ()),
                ("webhdfs://host:port/x", "host:port", ()),
                ("webhdfs:///x", "no host", ()),
                ("hdfs://wrong!name/x", "nameservice", ()),
                ("hdfs:///x", "fs.defaultFS", ()),
                (simple.url + "/x/../y", r"'\.\.'", ()),
                (simple.url + "/words", "no effect", ("--region", "x")),
                (simple.url + "/words", "TLS", ("--no-verify-ssl",)),
                ("file:///tmp", "no effect", ("--hdfs-user", "x")),
                (simple.url + "/words", "no-such-folder", ("--hadoop-conf", "/no-such-folder")),
                (simple.url + "/words", "core-site.xml", ("--hadoop-conf", cache)),
        ):
            zc.fails("mount", "--cache-dir", cache, *options, source, point, words=words)

    def test_a_server_that_gives_the_first_page_for_ever(self, zc, simple):
        """As one that takes the parameter for another: the directory then comes whole, and once."""
        class Forgetful(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                path, _, query = self.path.partition("?")
                args = [a for a in query.split("&") if not a.startswith("startafter=")]
                c = http.client.HTTPConnection(*simple.namenode(), timeout=60)
                c.request("GET", path + "?" + "&".join(args))
                r = c.getresponse()
                body = r.read()
                c.close()
                self.send_response(r.status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        names = [f"d{i:04d}" for i in range(1200)]
        make_dirs(simple, "/forgetful", names)
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                m = zc.mount(f"webhdfs://127.0.0.1:{server.server_port}/forgetful", server=simple)
                assert sorted(os.listdir(m)) == names
                assert m.requests()["lists"] <= 5
                m.umount()
            finally:
                server.shutdown()

    def test_a_login_that_is_asked_for_once(self, zc, simple):
        """By something between us and the NameNode: who has a name keeps it, and who cannot log in is asked again."""
        class Doorman(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            refuse, tokens = None, 0

            def do_GET(self):
                # The kernel may look at the root whenever it likes, and a root that is refused stays as it was.
                kind = None
                if not self.path.startswith("/webhdfs/v1/door?op=GETFILESTATUS&"):
                    kind, Doorman.refuse = Doorman.refuse, None
                Doorman.tokens += "GETDELEGATIONTOKEN" in self.path
                if kind:
                    body = b'{"RemoteException":{"exception":"SecurityException","message":"no"}}'
                    self.send_response(403 if kind == "words" else 401)
                    if kind == "login":
                        self.send_header("WWW-Authenticate", "Negotiate")
                    body = body if kind == "words" else b""
                else:
                    c = http.client.HTTPConnection(*simple.namenode(), timeout=60)
                    c.request("GET", self.path)
                    r = c.getresponse()
                    body = r.read()
                    c.close()
                    self.send_response(r.status)
                    if r.headers["Location"]:
                        self.send_header("Location", r.headers["Location"])
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_):
                pass

        kinds = "words", "bare", "login"
        for kind in kinds:
            simple.put("/door/" + kind, b"in")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Doorman) as server:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
            try:
                for who in ((), ("--hdfs-user", "root")):
                    m = zc.mount(f"webhdfs://127.0.0.1:{server.server_port}/door", "--metadata-ttl", "minimal", *who,
                                 env={"KRB5CCNAME": "FILE:/no/such/cache"}, server=simple)
                    for kind in kinds:
                        Doorman.refuse = kind
                        with pytest.raises(PermissionError):
                            os.stat(m.join(kind))
                        assert Doorman.refuse is None
                        assert m.read(kind) == b"in", who
                    assert Doorman.tokens == 0
                    m.umount()
            finally:
                server.shutdown()

    def test_a_gateway(self, zc, simple):
        """Its listings are not paged; the rest of what it must do is in the contract."""
        make_dirs(simple, "/gate/dirs", [f"d{i:04d}" for i in range(2100)])
        m = zc.mount(f"webhdfs://127.0.0.1:{simple.gateway()}/gate", server=simple)
        assert len(os.listdir(m.join("dirs"))) == 2100


class TestOlder:
    """A short look at another release."""

    def test_reads_and_listings(self, base, zc):
        version = "3.3.6" if hdfs.VERSION != "3.3.6" else "3.5.0"
        with hdfs.Cluster(os.path.join(base, "hdfs-" + version), datanodes=1, version=version) as c:
            data = make_bytes(20 * MIB + 1, "older")
            c.put("/a/large", data)
            c.put("/a/ü %", b"small")
            make_dirs(c, "/a/dirs", [f"d{i}" for i in range(1500)])
            m = zc.mount(c.url + "/a", server=c)
            assert m.read("large") == data
            assert m.read("ü %") == b"small"
            assert len(os.listdir(m.join("dirs"))) == 1500
            m.umount()


@pytest.fixture(scope="class")
def pair(base):
    with hdfs.HACluster(os.path.join(base, "hdfs-ha")) as c:
        yield c


class TestPair:
    """Two NameNodes, one of which is active."""

    @pytest.mark.sanitized
    def test_failover_under_load(self, zc, pair):
        files = {f"f{i}": make_bytes(30000 + i, f"ha{i}") for i in range(40)}
        files["large"] = make_bytes(40 * MIB, "ha")
        pair.put_many({"/ha/" + p: d for p, d in files.items()})
        m = zc.mount("hdfs://zc/ha", "--hadoop-conf", pair.conf, "--metadata-ttl", "minimal", "--cache-size", "32MiB",
                     server=pair)
        bad, over, reads = [], threading.Event(), [0]

        def reader(seed):
            rnd = random.Random(seed)
            while not over.is_set():
                p = rnd.choice(list(files))
                try:
                    with open(m.join(p), "rb") as f:
                        if p == "large":
                            at = rnd.randrange(36 * MIB)
                            ok = os.pread(f.fileno(), MIB, at) == files[p][at:at + MIB]
                        else:
                            ok = f.read() == files[p]
                    if not ok:
                        bad.append(f"{p}: wrong bytes")
                    reads[0] += 1
                except OSError as e:
                    bad.append(f"{p}: {e!r}")

        threads = [threading.Thread(target=reader, args=(i,)) for i in range(3)]
        for t in threads:
            t.start()
        try:
            time.sleep(0.5)
            pair.failover()
            time.sleep(0.5)
            dead = pair.kill_active()
            time.sleep(1)
            before = reads[0]
            pair.restart_namenode(dead)
            pair.failover()
            time.sleep(1)
        finally:  # whatever failed: a reader that goes on keeps the mount busy and the run from its end
            over.set()
            for t in threads:
                t.join(60)
        assert not bad, bad[:5]
        assert reads[0] > before > 0

    def test_addresses_instead_of_a_configuration(self, zc, pair):
        pair.put("/plain/f", b"either")
        hosts = ",".join(f"127.0.0.1:{web}" for _, web in pair.ports.values())
        m = zc.mount(f"webhdfs://{hosts}/plain", server=pair)
        assert m.read("f") == b"either"

    def test_a_silent_one_does_not_use_up_the_time(self, zc, pair):
        """That --read-timeout gives: the other one is asked as long as there is some left."""
        pair.mkdir("/silent/f")
        standby = 3 - pair.active
        hosts = ",".join(f"127.0.0.1:{pair.ports[i][1]}" for i in (standby, pair.active))
        pair.daemons[f"nn{standby}"].freeze()
        try:
            m = zc.mount(f"webhdfs://{hosts}/silent", "--read-timeout", "8s", server=pair)
            assert os.listdir(m) == ["f"]
        finally:
            pair.daemons[f"nn{standby}"].thaw()

    def test_no_active_namenode(self, zc, pair):
        port = pair.ports[3 - pair.active][1]
        point, cache = zc.place()
        zc.fails("mount", "--cache-dir", cache, f"webhdfs://127.0.0.1:{port}/x", point, words="standby")


LIFE = 6  # seconds that a token lives between renewals; twice that at the most


@pytest.fixture(scope="class")
def secure(base):
    extra = {"dfs.namenode.delegation.token.renew-interval": LIFE * 1000,
             "dfs.namenode.delegation.token.max-lifetime": LIFE * 2000}
    with hdfs.KerberosCluster(os.path.join(base, "hdfs-krb"), extra=extra) as c:
        c.put("/data/f", make_bytes(20 * MIB, "krb"))
        c.put("/home/alice/mine", b"alice's")
        c.must("PUT", "/home/alice/mine", "SETOWNER", owner="alice")
        c.must("PUT", "/home/alice/mine", "SETPERMISSION", permission="600")
        yield c


def cancelled(cluster):
    """Whose tokens were cancelled, one after the other."""
    with open(cluster.daemons["nn"].log, encoding="utf-8", errors="replace") as f:
        return re.findall(r"ugi=(\w+).*cmd=cancelDelegationToken", f.read())


class TestKerberos:
    """Logins, tokens, and what is said when they fail."""

    def test_keytab(self, zc, secure):
        m = zc.mount(secure.url + "/", "--hdfs-keytab", secure.keytab("alice"), env=secure.krb_env())
        assert sha(m.read("data/f")) == sha(make_bytes(20 * MIB, "krb"))
        assert m.read("home/alice/mine") == b"alice's"
        before = cancelled(secure)
        m.umount()
        assert cancelled(secure) == before + ["alice"], "its token lives on"

    def test_two_principals_in_one_mount(self, zc, secure, work):
        conf = os.path.join(work, "mount.conf")
        with open(conf, "w", encoding="utf-8") as f:
            f.write("".join(f"[/{who}]\nsource = {secure.url}/home\nhdfs-keytab = {secure.keytab(who)}\n"
                            for who in ("alice", "bob")))
        m = zc.mount([], "--config", conf, env=secure.krb_env())
        with pytest.raises(PermissionError):
            m.read("bob/alice/mine")
        assert m.read("alice/alice/mine") == b"alice's"

    def test_ticket_cache(self, zc, secure, work):
        cache = os.path.join(work, "cc")
        secure.kinit("bob", cache)
        m = zc.mount(secure.url + "/", env=secure.krb_env(cache))
        assert sha(m.read("data/f")) == sha(make_bytes(20 * MIB, "krb"))
        with pytest.raises(PermissionError):
            m.read("home/alice/mine")

    @pytest.mark.sanitized
    def test_tokens_end_during_reads(self, zc, secure):
        c = secure
        files = {f"/token/f{i}": make_bytes(5000 + i, f"t{i}") for i in range(60)}
        c.put_many(files)
        c.put("/token/late", b"late")
        tap = Tap(c.http)
        m = zc.mount(f"webhdfs://localhost:{tap.port}/token", "--log-level", "debug", "--metadata-ttl", "minimal",
                     "--hdfs-principal", f"alice@{c.realm}", "--hdfs-keytab", c.keytab("alice"), env=c.krb_env())
        began = time.monotonic()
        for p, d in files.items():  # renewed and replaced on the way
            assert m.read(p.rsplit("/", 1)[1]) == d
            time.sleep(max(0.0, (LIFE * 2.5 - (time.monotonic() - began)) / len(files)))
        time.sleep(LIFE * 2 + 1)  # nobody asks, nobody renews: it is found expired
        assert m.read("late") == b"late"
        m.umount()
        tap.listener.close()
        tokens = tap.found(rb"[?&](?:delegation|token)=([\w-]+)") | tap.found(rb'"urlString":"([\w-]+)"')
        logins = tap.found(rb"(?i)Authorization: Negotiate ([\w+/=]+)")
        assert len(tokens) >= 3 and logins, "they did not come this way"
        logs = ""
        for top, _, names in os.walk(zc.logs):
            for name in names:
                with open(os.path.join(top, name), encoding="utf-8", errors="replace") as f:
                    logs += f.read()
        assert "another one is obtained" in logs
        for secret in (*tokens, *logins, "delegation=", "token=", "urlString", "Negotiate "):
            assert secret not in logs, f"{secret[:16]} stands in a log"

    def test_the_namenode_restarts(self, zc, secure):
        """While it is away, starts and is in safe mode there is neither an answer nor a token: readers wait."""
        c = secure
        files = {f"f{i}": make_bytes(3000 + i, f"nn{i}") for i in range(40)}
        c.put_many({"/restart/" + p: d for p, d in files.items()})
        m = zc.mount(c.url + "/restart", "--metadata-ttl", "minimal", "--cache-size", "32MiB", "--hdfs-keytab",
                     c.keytab("alice"), env=c.krb_env())
        bad = []

        def reader(p):
            try:
                if m.read(p) != files[p]:
                    bad.append(f"{p}: wrong bytes")
            except OSError as e:
                bad.append(f"{p}: {e!r}")

        assert m.read("f0") == files["f0"]
        c.daemons["nn"].kill()
        c.token = None
        time.sleep(LIFE / 3)  # until it is back no token of before is good
        c.daemons["nn"].start()
        threads, ready = [], threading.Event()
        waiter = threading.Thread(target=lambda: (c.wait_ready(), ready.set()), daemon=True)
        waiter.start()
        # Those who come now, and not those who wait already, meet each of its states.
        while len(threads) < 600 and not ready.wait(0.05):
            threads.append(threading.Thread(target=reader, args=(f"f{len(threads) % len(files)}",), daemon=True))
            threads[-1].start()
        for t in (*threads, waiter):
            t.join(60)
        assert ready.is_set() and not any(t.is_alive() for t in threads)
        assert not bad, bad[:5]
        assert {p: m.read(p) for p in files} == files

    def test_a_frozen_kdc(self, zc, secure, work):
        """During a renewal: the token is still good, listings go on, and so does an unmount."""
        c = secure
        c.put("/frozen/d/f", b"x")
        conf = os.path.join(work, "krb5.conf")
        with open(os.path.join(c.krb, "krb5.conf"), encoding="ascii") as f:
            text = f.read()
        with open(conf, "w", encoding="ascii") as f:  # a renewal needs a new ticket
            f.write(text.replace("ticket_lifetime = 10h", "ticket_lifetime = 3s"))

        def stuck():
            with open("/proc/net/tcp", encoding="ascii") as f:
                return any(line.split()[2].endswith(f":{c.kdc_port:04X}") and line.split()[3] == "01"
                           for line in list(f)[1:])

        def lister(path):
            try:
                os.listdir(path)
            except OSError:  # it was cut off by the unmount
                pass

        listed = False
        for _ in range(3):  # a machine that is slow may find the token at its end
            m = zc.mount(c.url + "/frozen", "--metadata-ttl", "minimal", "--hdfs-keytab", c.keytab("alice"),
                         env={**c.krb_env(), "KRB5_CONFIG": conf})
            time.sleep(LIFE / 4 * 3 + 0.1)
            c.kdc.send_signal(signal.SIGSTOP)
            try:
                lists = [threading.Thread(target=lister, args=(m.join(p),), daemon=True) for p in ("", "d")]
                for t in lists:
                    t.start()
                for t in lists:
                    t.join(2)
                hangs = any(t.is_alive() for t in lists)
                waits = stuck()
                began = time.monotonic()
                m.umount("--force")
                took = time.monotonic() - began
            finally:
                c.kdc.send_signal(signal.SIGCONT)
            assert took < 10, "the unmount waited for the KDC"
            for t in lists:
                t.join(60)
            listed = waits and not hangs
            if listed:
                break
        assert listed, "the listings waited for the KDC" if waits else "no renewal was tried"

    @pytest.mark.parametrize("silent", ["KDC", "NameNode"])
    def test_a_login_that_takes_too_long(self, zc, secure, silent):
        """Who waits for one waits as long as --read-timeout says, and no longer."""
        c = secure
        point, cache = zc.place()
        process = c.kdc if silent == "KDC" else c.daemons["nn"].process
        process.send_signal(signal.SIGSTOP)
        try:
            began = time.monotonic()
            zc.fails("mount", "--cache-dir", cache, "--read-timeout", "2s", "--hdfs-keytab", c.keytab("alice"),
                     c.url + "/data", point, env=c.krb_env(),
                     words=["login", r"given up after [2-9][.][0-9] s \(--read-timeout\)"])
            took = time.monotonic() - began
        finally:
            process.send_signal(signal.SIGCONT)
        assert 2 <= took < 13, took  # an end does not wait for the login either

    def test_a_login_under_way_leaves_umount(self, zc, secure, work):
        """Of a mount that a source is just added to."""
        c = secure
        os.mkdir(os.path.join(work, "plain"))
        m = zc.mount([f"/plain=file://{work}/plain"], env=c.krb_env())
        adding = threading.Thread(target=lambda: zc.run(
            "source", "add", "--hdfs-keytab", c.keytab("alice"), m, f"/home={c.url}/home"))
        c.kdc.send_signal(signal.SIGSTOP)
        try:
            adding.start()
            time.sleep(1)
            began = time.monotonic()
            m.umount()
            took = time.monotonic() - began
        finally:
            c.kdc.send_signal(signal.SIGCONT)
        adding.join(60)
        assert took < 12, took

    def test_a_source_has_its_own_tickets(self, zc, secure, work):
        """And not those of one that was there before it, which may have had the same place in memory."""
        c = secure
        for i in range(8):
            c.put(f"/home/alice/own{i}", b"alice's")
            c.must("PUT", f"/home/alice/own{i}", "SETOWNER", owner="alice")
            c.must("PUT", f"/home/alice/own{i}", "SETPERMISSION", permission="600")
        os.mkdir(os.path.join(work, "plain"))
        m = zc.mount([f"/plain=file://{work}/plain"], env=c.krb_env())
        for i in range(8):
            who = ("alice", "bob")[i % 2]
            zc.ok("source", "add", "--hdfs-keytab", c.keytab(who), m, f"/home={c.url}/home/alice")
            if who == "alice":
                assert m.read(f"home/own{i}") == b"alice's"
            else:
                with pytest.raises(PermissionError):
                    m.read(f"home/own{i}")
            zc.ok("source", "remove", m, "/home")

    def test_a_token_that_is_given(self, zc, secure, work):
        path = os.path.join(work, "token")
        with open(path, "w", encoding="ascii") as f:
            f.write(secure.new_token("bob") + "\n")
        m = zc.mount(secure.url + "/data", "--hdfs-token", path, env=secure.krb_env())
        assert sha(m.read("f")) == sha(make_bytes(20 * MIB, "krb"))
        before = cancelled(secure)
        m.umount()
        assert cancelled(secure) == before, "it was not ours to cancel"
        # As Hadoop itself writes one for a job.
        cache, path = os.path.join(work, "cc"), os.path.join(work, "hadoop-token")
        secure.kinit("bob", cache)
        secure.tool("org.apache.hadoop.hdfs.tools.DelegationTokenFetcher", path, env=secure.krb_env(cache))
        m = zc.mount(secure.url + "/data", env={**secure.krb_env(), "HADOOP_TOKEN_FILE_LOCATION": path})
        assert sha(m.read("f")) == sha(make_bytes(20 * MIB, "krb"))

    def test_failures_name_their_cause(self, zc, secure, work):
        c = secure
        point, cache = zc.place()
        expired = os.path.join(work, "expired")
        c.kinit("bob", expired, "-l", "1s")
        ends = time.monotonic() + 1 + 5 + 2  # the clocks may differ by five seconds
        broken = os.path.join(work, "krb5.conf")
        with open(os.path.join(c.krb, "krb5.conf"), encoding="ascii") as f:
            text = f.read()
        with open(broken, "w", encoding="ascii") as f:
            f.write(text.replace(f"kdc = 127.0.0.1:{c.kdc_port}", f"kdc = 127.0.0.1:{hdfs.free_port()}"))
        rubbish = os.path.join(work, "rubbish")
        with open(rubbish, "wb") as f:
            f.write(b"HDTS\x00\x01\xff")
        alice = ("--hdfs-keytab", c.keytab("alice"))
        for options, env, words in (
                ((), c.krb_env(), [f"ticket cache FILE:{c.krb}/none", "credentials"]),
                ((*alice, "--hdfs-principal", "alice@NOWHERE.TEST"), c.krb_env(), ["no key for alice@NOWHERE.TEST"]),
                ((*alice, "--hdfs-principal", f"carol@{c.realm}"), c.krb_env(),
                 [f"keytab.*no key for carol@{c.realm}"]),
                (("--hdfs-keytab", rubbish), c.krb_env(), ["rubbish"]),
                (("--hdfs-keytab", "/no/keytab"), c.krb_env(), ["/no/keytab"]),
                (alice, {**c.krb_env(), "KRB5_CONFIG": broken}, ["KDC", c.realm]),
                (("--hdfs-token", rubbish), c.krb_env(), ["rubbish"]),
                ((*alice, "--hdfs-user", "x"), c.krb_env(), ["--hdfs-user"]),
                ((), c.krb_env(expired), [f"ticket cache FILE:{expired}", "expired"]),
        ):
            if "expired" in words:
                time.sleep(max(0.0, ends - time.monotonic()))
            zc.fails("mount", "--cache-dir", cache, *options, c.url + "/", point, env=env, words=words)
        # The principal is HTTP/localhost, and 127.0.0.1 is another name.
        zc.fails("mount", "--cache-dir", cache, *alice, f"webhdfs://127.0.0.1:{c.http}/", point, env=c.krb_env(),
                 words="HTTP/127.0.0.1")


@pytest.fixture(scope="class")
def secure_pair(base):
    with hdfs.KerberosPair(os.path.join(base, "hdfs-krb-ha"), datanodes=1) as c:
        yield c


def audited(cluster, i, pattern):
    """What NameNode i did for whom, as it wrote it down."""
    with open(cluster.daemons[f"nn{i}"].log, encoding="utf-8", errors="replace") as f:
        return [line for line in f if re.search(pattern, line)]


class TestSecurePair:
    """Two NameNodes, and Kerberos."""

    def test_a_login_where_one_is_silent(self, zc, secure_pair):
        """The other one gives a token as long as there is time for it, and is asked first from then on."""
        c = secure_pair
        c.mkdir("/silent/f")
        standby = 3 - c.active
        hosts = ",".join(f"localhost:{c.ports[i][1]}" for i in (standby, c.active))
        c.daemons[f"nn{standby}"].freeze()
        try:
            m = zc.mount(f"webhdfs://{hosts}/silent", "--read-timeout", "10s", "--hdfs-keytab", c.keytab("alice"),
                         env=c.krb_env())
            assert os.listdir(m) == ["f"]
            m.umount()
        finally:
            c.daemons[f"nn{standby}"].thaw()
        assert audited(c, c.active, r"ugi=alice.*cmd=cancelDelegationToken"), "its token lives on"

    def test_failover_with_a_token(self, zc, secure_pair):
        """The token that one NameNode gave is good at the other, for its questions and for the DataNodes'."""
        c = secure_pair
        files = {f"f{i}": make_bytes(30000 + i, f"kha{i}") for i in range(20)}
        files["large"] = make_bytes(24 * MIB, "kha")
        files |= {f"new{i}": make_bytes(5 * MIB + i, f"khan{i}") for i in range(3)}
        c.put_many({"/ha/" + p: d for p, d in files.items()})
        before = audited(c, c.active, r"allowed=true\s+ugi=alice.*cmd=getDelegationToken")
        m = zc.mount("hdfs://zc/ha", "--hadoop-conf", c.conf, "--metadata-ttl", "minimal", "--cache-size", "16MiB",
                     "--hdfs-keytab", c.keytab("alice"), env=c.krb_env())
        bad, over, reads = [], threading.Event(), [0]

        def reader(seed):
            rnd = random.Random(seed)
            while not over.is_set():
                p = rnd.choice([p for p in files if not p.startswith("new")])
                try:
                    if m.read(p) != files[p]:
                        bad.append(f"{p}: wrong bytes")
                    reads[0] += 1
                except OSError as e:
                    bad.append(f"{p}: {e!r}")

        def go_on(new):
            """The readers do, and what is not in the cache comes from a DataNode."""
            n = reads[0]
            assert m.read(new) == files[new]
            wait_for(lambda: reads[0] >= n + 6 or bad, 60, message=f"no reads after {n}")

        threads = [threading.Thread(target=reader, args=(i,)) for i in range(2)]
        for t in threads:
            t.start()
        try:
            go_on("new0")
            first = c.failover()
            go_on("new1")
            # A login while the first that is asked for a token has none to give.
            m2 = zc.mount("hdfs://zc/ha", "--hadoop-conf", c.conf, "--hdfs-keytab", c.keytab("bob"), env=c.krb_env())
            assert m2.read("f0") == files["f0"]
            c.kill_active()
            go_on("new2")
            assert m2.read("large") == files["large"]
        finally:
            over.set()
            for t in threads:
                t.join(60)
        assert not bad, bad[:5]
        given = [audited(c, i, r"allowed=true\s+ugi=alice.*cmd=getDelegationToken") for i in (first, 3 - first)]
        assert [len(g) for g in given] == [len(before) + 1, 0], given
        assert audited(c, 3 - first, r"allowed=true\s+ugi=alice.*auth:TOKEN.*cmd=getfileinfo")
        ended = audited(c, first, r"ugi=alice.*cmd=cancelDelegationToken")
        m.umount()
        assert len(audited(c, first, r"ugi=alice.*cmd=cancelDelegationToken")) == len(ended) + 1, "its token lives on"
