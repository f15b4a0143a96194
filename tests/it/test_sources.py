# SPDX-License-Identifier: Apache-2.0
"""Several sources in one mount: how they are named, who gets which option, what one in trouble does to the
others, and how they come and go.  What a mount of two must do as any other is in test_contract.py."""

import errno
import json
import os
import signal
import socket
import stat
import threading
import time

import pytest
from conftest import MIB, make_bytes
from servers import aws
from servers.s3 import REGION
from sources import FileStore, S3Store
from zcache import wait_for


@pytest.fixture(scope="module")
def folder(base):
    """Three folders with a file each, which says where it is."""
    s = FileStore(os.path.join(base, "sources"))
    s.put_many({f"{n}/f": f"in {n}".encode() for n in "abc"} | {"a/sub/g": b"below", "a/big": make_bytes(9 * MIB, "a"),
                                                                   "h/huge": make_bytes(40 * MIB, "h")})
    return s


@pytest.fixture
def config(work):
    """config(text) -> path of a file with it."""
    def write(text):
        path = os.path.join(work, "mount.conf")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        return path
    return write


def sources_of(mount):
    return {s["path"]: s for s in mount.status()["sources"]}


# ---------------------------------------------------------------- naming them


@pytest.mark.sanitized
def test_paths_may_be_deep_and_share_their_beginnings(zc, folder):
    m = zc.mount([f"/x/one={folder.url('a')}", f"/x/y/two={folder.url('b')}", f"/z={folder.url('c')}"],
                 "--dir-mode", "0711")
    assert sorted(os.listdir(m)) == ["x", "z"]
    assert sorted(os.listdir(m.join("x"))) == ["one", "y"]
    assert os.listdir(m.join("x/y")) == ["two"]
    assert m.read("x/one/f") == b"in a"
    assert m.read("x/y/two/f") == b"in b"
    assert m.read("z/f") == b"in c"
    assert stat.S_IMODE(os.stat(m.join("x")).st_mode) == 0o711
    assert len({os.stat(m.join(p)).st_ino for p in ("x/one/f", "x/y/two/f", "z/f", "x", "x/y", "z")}) == 6
    for path in ("w", "x/w", "x/y/w", "x/one/w"):
        with pytest.raises(FileNotFoundError):
            os.stat(m.join(path))
    with pytest.raises(OSError) as e:
        os.mkdir(m.join("x/new"))
    assert e.value.errno == errno.EROFS
    assert list(sources_of(m)) == ["/x/one", "/x/y/two", "/z"]


@pytest.mark.sanitized
def test_what_is_above_the_sources_asks_nobody(zc, folder):
    m = zc.mount([f"/x/one={folder.url('a')}", f"/x/two={folder.url('b')}"], "--metadata-ttl", "minimal")
    asked = m.requests()
    for _ in range(5):
        os.listdir(m)
        os.listdir(m.join("x"))
        os.stat(m.join("x"))
        time.sleep(0.3)
    assert not os.path.exists(m.join("x/three"))
    assert m.requests() == asked
    # The root of a source is the source's own; the other one is not asked.
    os.stat(m.join("x/one"))
    after = sources_of(m)
    assert after["/x/one"]["backend"]["heads"] > 0 and after["/x/two"]["backend"]["heads"] == 0
    os.listdir(m.join("x/one"))
    after = sources_of(m)
    assert after["/x/one"]["backend"]["lists"] == after["/x/two"]["backend"]["lists"] + 1


@pytest.mark.sanitized
def test_wrong_names_are_refused(zc, folder):
    a, b = folder.url("a"), folder.url("b")
    point, cache = zc.place()
    for words, said in (
            (["a=" + a], "write /a="),
            (["/a=" + a, "/a=" + b], "'/a' is taken"),
            (["/a=" + a, "/a/b=" + b], "overlap"),
            (["/a/b=" + a, "/a=" + b], "overlap"),
            ([a, b], "taken"),
            ([a, "/b=" + b], "overlap"),
            (["/a/../b=" + a], r"'\.\.'"),
            (["/a//b=" + a], "empty"),
            (["/a=nonsense"], "no scheme"),
            (["/" + "n" * 256 + "=" + a], "255"),
            (["/a=" + a, "/b=" + b, "--region", "x"], "--region has no effect on any"),
    ):
        zc.fails("mount", "--cache-dir", cache, *words, point, words=said, status=2)
    zc.fails("mount", "--cache-dir", cache, "/a=" + a, "/b=file:///no/such/folder", point, status=1,
             words=["/b", "no/such/folder"])
    assert os.listdir(cache) == []


# ---------------------------------------------------------------- the file


@pytest.mark.sanitized
def test_a_configuration_file(zc, folder, config):
    path = config(f"""
[mount]   # of the whole
uid = 5
metadata-ttl = 7m
keep-cache = no
[/one/a]
source = {folder.url('a')}
file-mode = 0400
[/one/b]
source = "{folder.url('b')}"
metadata_ttl = indefinite
uid = 6
""")
    m = zc.mount([], "--config", path, "--gid", "9")
    assert m.read("one/a/f") == b"in a"
    s = os.stat(m.join("one/a/f"))
    assert (s.st_uid, s.st_gid, stat.S_IMODE(s.st_mode)) == (5, 9, 0o400)
    s = os.stat(m.join("one/b/f"))
    assert (s.st_uid, s.st_gid) == (6, 9)
    assert os.stat(m.join("one")).st_uid == 5
    options = {p: s["options"] for p, s in sources_of(m).items()}
    assert options["/one/a"]["metadata-ttl"] == 420
    assert options["/one/b"]["metadata-ttl"] == "indefinite"
    m.umount()
    # On the command line more of them, and other values; by fstab's helper too.
    m = zc.mount([f"/two={folder.url('c')}"], "--config", path, "--metadata-ttl", "3")
    assert m.read("two/f") == b"in c"
    assert {p: s["options"]["metadata-ttl"] for p, s in sources_of(m).items()} == {
        "/two": 3, "/one/a": 3, "/one/b": "indefinite"}


def test_fstab_s_helper_takes_it(zc, folder, config, work):
    path = config(f"[/a]\nsource = {folder.url('a')}\n")
    helper = os.path.join(work, "mount.zcache")
    os.symlink(zc.binary, helper)
    zc.binary, binary = helper, zc.binary
    point, cache = zc.place()
    zc.fails("s3://bucket", point, "-o", f"config={path}", words="none")
    zc.fails("none", point, "-o", "ro", words="scheme")
    zc.ok("none", point, "-o", f"ro,_netdev,config={path},cache_dir={cache}")
    zc.binary = binary
    with open(os.path.join(point, "a/f"), "rb") as f:
        assert f.read() == b"in a"
    zc.ok("umount", point)


@pytest.mark.sanitized
def test_mistakes_in_it_have_their_line(zc, folder, config):
    point, cache = zc.place()
    a = f"[/a]\nsource = {folder.url('a')}\n"
    for text, said in (
            (a + "cache-size = 1GiB\n", r":3: cache-size .* \[mount\]"),
            (a + "regio = x\n", r":3: unknown option 'regio'; did you mean 'region'"),
            (a + "region = x\n", r":3: --region has no effect on a file:// source"),
            (a + "[/a/b]\n", r":3: .* overlap"),
            (a + a, r":3: '/a' is taken already, in line 1"),
            ("[mount]\ncache-size = 5\n" + a, r":2: cache-size '5' is not a size"),
            ("[data]\n", r":1: \[data\] is no section"),
            ("[/a]\nregion = x\n", r":1: .* no 'source"),
            ("source = x\n", r":1: .* before the first section"),
    ):
        zc.fails("mount", "--cache-dir", cache, "--config", config(text), point, words=["mount.conf" + said], status=2)
    for text, said in (  # what shows only when the store is asked
            (a + "[/b]\nsource = webhdfs://no-such-host.invalid:9870/x\n", r":3: /b .* resolve"),
            (a + "[/b]\nsource = hdfs://nowhere/x\nhadoop-conf = /no/such\n", r":3: .*/no/such"),
            (a + "[/b]\nsource = file:///no/such/folder\n", r":3: .*/no/such/folder"),
    ):
        zc.fails("mount", "--cache-dir", cache, "--config", config(text), point, words=["mount.conf" + said], status=1)
    zc.fails("mount", "--cache-dir", cache, "--config", "/no/such.conf", point, words="/no/such.conf", status=2)
    zc.fails("mount", "--config", config(a), words="MOUNTPOINT", status=2)


# ---------------------------------------------------------------- one in trouble


def test_one_that_is_down_at_the_start_is_named(zc, folder, stores):
    server = stores.get("versitygw")
    with socket.create_server(("127.0.0.1", 0)) as s:
        port = s.getsockname()[1]
    point, cache = zc.place()
    zc.fails("mount", "--cache-dir", cache, "--endpoint-url", f"http://127.0.0.1:{port}", f"/good={folder.url('a')}",
             "/bad=s3://bucket/x", point, env=server.env(), status=1, words=[r"/bad \(s3://bucket/x\)", str(port)])
    assert os.listdir(cache) == [] and os.listdir(point) == []


def measure(what):
    began = time.monotonic()
    what()
    return time.monotonic() - began


@pytest.mark.sanitized
def test_each_has_its_own_account_connections_and_time(zc, work, config):
    """Two stores with an account each, which only profiles know, and limits in the sections of a file."""
    names = ["one", "two"]
    with aws.Accounts(os.path.join(work, "s1")) as s1, aws.Accounts(os.path.join(work, "s2")) as s2:
        servers, profiles, keys = dict(zip(names, (s1, s2))), "", {}
        for name, server in servers.items():
            server.client().create_bucket(Bucket="data")
            for i in range(30):
                server.client().put_object(Bucket="data", Key=f"{i:02d}", Body=f"{name} {i}".encode() * 1000)
            keys[name] = server.make()
            profiles += (f"[profile {name}]\nregion = {REGION}\nendpoint_url = {server.url}\n"
                         f"aws_access_key_id = {keys[name][0]}\naws_secret_access_key = {keys[name][1]}\n")
        os.makedirs(os.path.join(work, ".aws"))
        with open(os.path.join(work, ".aws/config"), "w", encoding="ascii") as f:
            f.write(profiles)
        m = zc.mount([], "--config", config("""
            [mount]
            metadata-ttl = indefinite
            max-connections = 7
            [/one]
            source = s3://data
            profile = one
            max-connections = 3
            read-timeout = 3s
            [/two]
            source = s3://data
            profile = two
            read-timeout = 8s
            """))
        for name in names:
            assert m.read(f"{name}/00") == f"{name} 0".encode() * 1000
            assert len(os.listdir(m.join(name))) == 30
        options = {p: s["options"] for p, s in sources_of(m).items()}
        assert [options[f"/{n}"][o] for n in names for o in ("profile", "max-connections", "read-timeout")] == [
            "one", 3, 3, "two", 7, 8]

        took = {n: [] for n in names}

        def reader(name, i):
            began = time.monotonic()
            with pytest.raises(OSError):
                m.read(f"{name}/{i:02d}")
            took[name].append(time.monotonic() - began)

        threads = [threading.Thread(target=reader, args=(n, i)) for n in names for i in range(1, 21)]
        for server in servers.values():
            server.freeze()
        try:
            for t in threads:
                t.start()
            wait_for(lambda: [sources_of(m)[f"/{n}"]["backend"]["in_flight"] for n in names] == [3, 7])
            for t in threads:
                t.join(60)
        finally:
            for server in servers.values():
                server.thaw()
        assert [len(took[n]) for n in names] == [20, 20]
        assert 2.9 < min(took["one"]) and max(took["one"]) < 7.5 < min(took["two"]) and max(took["two"]) < 20, took

        s1.delete(keys["one"][0])
        with pytest.raises(PermissionError):
            m.read("one/29")
        assert m.read("two/29") == b"two 29" * 1000


@pytest.mark.sanitized
def test_one_that_freezes_leaves_the_others_their_speed(zc, work, folder, hdfs_cluster):
    """S3 stands still with as many requests as it may have; the folder and HDFS are read as before."""
    s3 = S3Store("versitygw", os.path.join(work, "server"))
    try:
        stuck = {f"n/{i}": make_bytes(300_000, i) for i in range(120)}
        s3.put_many({"data/" + p: d for p, d in stuck.items()})
        files = {f"f{i}": make_bytes(3 * MIB, f"free{i}") for i in range(40)}
        hdfs_cluster.put_many({"/freeze/" + p: d for p, d in files.items()})
        m = zc.mount([f"/s3={s3.url('data')}", f"/hdfs={hdfs_cluster.url}/freeze", f"/dir={folder.url('a')}"],
                     "--max-connections", "32", "--read-timeout", "45s", env={**s3.env, **hdfs_cluster.env()})
        for p in ("s3/n", "hdfs", "dir"):
            os.listdir(m.join(p))

        def read(names):
            for n in names:
                assert m.read("hdfs/" + n) == files[n]

        names = sorted(files)
        before = measure(lambda: read(names[:20]))
        s3.freeze()
        errors, got = [], []

        def reader(name):
            try:
                got.append(m.read("s3/n/" + name) == stuck["n/" + name])
            except OSError as e:
                errors.append(e)

        threads = [threading.Thread(target=reader, args=(str(i),)) for i in range(100)]
        for t in threads:
            t.start()
        wait_for(lambda: sources_of(m)["/s3"]["backend"]["in_flight"] >= 32)
        frozen = measure(lambda: read(names[20:]))
        assert m.read("dir/big") == make_bytes(9 * MIB, "a")
        print(f"20 files of 3 MiB from HDFS: {before:.2f} s, {frozen:.2f} s beside a frozen S3")
        assert not got and not errors, "S3 was not frozen"
        s3.thaw()
        for t in threads:
            t.join(60)
        assert not errors and got == [True] * 100
        assert frozen < 3 * before + 0.5, (before, frozen)
        assert {p: s["backend"]["errors"] for p, s in sources_of(m).items()} == {"/s3": 0, "/hdfs": 0, "/dir": 0}
    finally:
        s3.thaw()
        s3.stop()


def test_health_of_the_only_source(zc, work):
    """A look at the mount point, which S3 need not be asked for, says nothing of whether the store answers."""
    s3 = S3Store("minio", os.path.join(work, "server"))
    try:
        s3.put_many({"data/a/file": b"1"})
        m = zc.mount(s3.url("data"), "--read-timeout", "2s", "--metadata-ttl", "minimal", env=s3.env)
        assert m.read("a/file") == b"1"
        s3.kill()
        for _ in range(2):
            with pytest.raises(OSError):
                os.stat(m.join("a", "other"))
            os.stat(m.path)
        health = m.status()["sources"][0]["health"]
        assert not health["ok"] and health["failures"] >= 2, health
        assert "not answering" in zc.ok("status", m).stdout
        s3.start()
        assert m.read("a/file") == b"1"
        assert m.status()["sources"][0]["health"]["ok"]
        assert m.umount().returncode == 0
    finally:
        s3.stop()


@pytest.mark.sanitized
def test_one_that_is_killed_leaves_warm_and_umount(zc, work, folder):
    s3 = S3Store("minio", os.path.join(work, "server"))
    try:
        s3.put_many({f"data/{i}": make_bytes(50_000, i) for i in range(10)})
        m = zc.mount([f"/s3={s3.url('data')}", f"/dir={folder.url('a')}"], "--read-timeout", "3s",
                     "--metadata-ttl", "indefinite", env=s3.env)
        os.listdir(m.join("s3"))
        s3.kill()
        r = zc.run("warm", m)
        assert r.returncode == 1 and "s3/" in r.stderr
        fetch = sources_of(m)["/dir"]["fetch"]
        assert fetch["store_bytes"] == len("in a") + len("below") + 9 * MIB
        health = sources_of(m)["/s3"]["health"]
        assert not health["ok"] and health["failures"] and "127.0.0.1" in health["error"]
        assert "not answering" in zc.ok("status", m).stdout
        began = time.monotonic()
        assert m.umount().returncode == 0
        assert time.monotonic() - began < 15
    finally:
        s3.stop()


@pytest.fixture
def silent():
    """The port of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0), backlog=100) as s:
        yield s.getsockname()[1]


KEYS = {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "y"}


@pytest.mark.sanitized
def test_all_are_reached_for_at_the_same_time(zc, folder, silent):
    """Three that do not answer cost the time of one."""
    point, cache = zc.place()

    def mount(*paths):
        zc.fails("mount", "--cache-dir", cache, "--endpoint-url", f"http://127.0.0.1:{silent}", "--read-timeout", "3s",
                 f"/dir={folder.url('a')}", *(f"/{p}=s3://bucket/{p}" for p in paths), point, env=KEYS, status=1,
                 words=r"/one \(s3://bucket/one\)")

    one = measure(lambda: mount("one"))
    three = measure(lambda: mount("one", "two", "three"))
    assert three < 2 * one, (one, three)


@pytest.mark.sanitized
def test_one_that_cannot_be_added_leaves_umount(zc, folder, silent):
    m = zc.mount([f"/a={folder.url('a')}"], env=KEYS)
    ends = []
    add = threading.Thread(target=lambda: ends.append(zc.run(
        "source", "add", "--endpoint-url", f"http://127.0.0.1:{silent}", "--read-timeout", "300s", m,
        "/b=s3://bucket")))
    add.start()
    time.sleep(1)
    assert m.read("a/f") == b"in a"
    assert add.is_alive()
    assert measure(m.umount) < 15
    add.join(15)
    assert not add.is_alive() and ends[0].returncode != 0


# ---------------------------------------------------------------- coming and going


@pytest.mark.sanitized
def test_added_and_removed(zc, folder):
    m = zc.mount([f"/a={folder.url('a')}"])
    assert not os.path.exists(m.join("deep/er/b/f"))
    zc.ok("source", "add", m, f"/deep/er/b={folder.url('b')}", "--file-mode", "0400", "--metadata-ttl=9")
    assert m.read("deep/er/b/f") == b"in b"
    s = sources_of(m)["/deep/er/b"]
    assert (s["options"]["file-mode"], s["options"]["metadata-ttl"]) == ("0400", 9)
    assert "/deep/er/b" in zc.ok("source", "list", m).stdout
    listed = json.loads(zc.ok("source", "list", "--json", m).stdout)["sources"]
    assert [x["path"] for x in listed] == ["/a", "/deep/er/b"]

    with open(m.join("deep/er/b/f"), "rb") as f:
        zc.fails("source", "remove", m, "/deep/er/b", words=["/deep/er/b", "1 of its files"], status=1)
        assert f.read() == b"in b"
    zc.ok("source", "remove", m, "/deep/er/b/")
    assert os.listdir(m) == ["a"]
    for path in ("deep", "deep/er/b", "deep/er/b/f"):
        with pytest.raises(FileNotFoundError):
            os.stat(m.join(path))
    # Another one at the same place is another one.
    zc.ok("source", "add", m, f"/deep/er/b={folder.url('c')}")
    assert m.read("deep/er/b/f") == b"in c"
    zc.ok("source", "remove", m, "/a")
    zc.ok("source", "remove", m, "/deep/er/b")
    assert os.listdir(m) == []


@pytest.mark.sanitized
def test_forced_away_under_open_files(zc, folder):
    m = zc.mount([f"/a={folder.url('')}", f"/b={folder.url('b')}"])
    whole = os.open(m.join("a/a/f"), os.O_RDONLY)
    part = os.open(m.join("a/h/huge"), os.O_RDONLY)
    inside = os.open(m.join("a"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.posix_fadvise(part, 0, 0, os.POSIX_FADV_RANDOM)
        assert os.pread(part, 4096, 20 * MIB)
        zc.ok("source", "remove", "--force", m, "/a")
        assert os.pread(whole, 100, 0) == b"in a"
        with pytest.raises(OSError) as e:
            os.pread(part, 4096, 35 * MIB)
        assert e.value.errno == errno.ESTALE
        with pytest.raises(OSError) as e:
            os.stat("b", dir_fd=inside)
        assert e.value.errno in (errno.ESTALE, errno.ENOENT)
        assert m.read("b/f") == b"in b"
    finally:
        for fd in (whole, part, inside):
            os.close(fd)
    zc.ok("source", "add", m, f"/a={folder.url('a')}")
    assert m.read("a/sub/g") == b"below"


@pytest.mark.sanitized
def test_what_cannot_be_added_or_removed(zc, folder, stores):
    m = zc.mount([f"/a/b={folder.url('a')}"])
    c = folder.url("c")
    for words, said, status in (
            (["add", m, f"/a={c}"], "overlap", 1),
            (["add", m, f"/a/b={c}"], "taken", 1),
            (["add", m, f"/a/b/c={c}"], "overlap", 1),
            (["add", m, c], "/PATH=SOURCE", 2),
            (["add", m, f"d={c}"], "write /d=", 2),
            (["add", m, "/d=gopher://x"], "scheme", 2),
            (["add", m, f"/d={c}", "--region", "x"], "no effect", 2),
            (["add", m, f"/d={c}", "--cache-size", "1GiB"], "option of the whole mount", 2),
            (["add", m, "/d=file:///no/such"], "/no/such", 1),
            (["add", "--endpoint-url", stores.get("versitygw").url, m, "/d=s3://bucket"], "/d.*credentials", 1),
            (["add", m.join("a"), f"/d={c}"], "mount point", 1),
            (["add", "/tmp", f"/d={c}"], "not in a zcache mount", 1),
            (["remove", m, "/a"], "no source at '/a'", 1),
            (["remove", m, "a/b"], "/PATH", 2),
            (["remove", m], "/PATH", 2),
            (["frobnicate", m], "add, remove and list", 2),
            ([], "add, remove and list", 2),
    ):
        zc.fails("source", *words, words=said, status=status)
    assert os.listdir(m) == ["a"] and os.listdir(m.join("a")) == ["b"]
    single = zc.mount(folder.url("a"))
    zc.fails("source", "add", single, f"/d={c}", words="as a whole", status=1)
    zc.fails("source", "remove", single, "/", words="unmount it", status=1)


def test_sources_come_and_go_under_readers(zc, folder):
    m = zc.mount([f"/keep={folder.url('a')}"])
    over, bad, seen = threading.Event(), [], [0, 0]

    def reader():
        while not over.is_set():
            try:
                if m.read("x/come/f") != b"in b":
                    bad.append("wrong bytes")
                seen[0] += 1
            except OSError as e:
                if e.errno not in (errno.ENOENT, errno.ESTALE):
                    bad.append(e)
                seen[1] += 1
            if m.read("keep/f") != b"in a":
                bad.append("the other source")

    threads = [threading.Thread(target=reader) for _ in range(4)]
    for t in threads:
        t.start()
    for i in range(30):
        zc.ok("source", "add", m, f"/x/come={folder.url('b')}")
        time.sleep(0.05)
        zc.ok("source", "remove", "--force", m, "/x/come")
    over.set()
    for t in threads:
        t.join(30)
    assert not bad, bad[:5]
    assert min(seen) > 10, seen
    assert m.status()["pid"] == m.pid


def test_a_removed_one_may_be_frozen(zc, work, folder):
    """Listings and reads that hang in it end with it."""
    s3 = S3Store("versitygw", os.path.join(work, "server"))
    try:
        s3.put_many({"data/x": b"x" * 100_000, "data/y/z": b"z"})
        m = zc.mount([f"/s3={s3.url('data')}", f"/dir={folder.url('a')}"], env=s3.env)
        os.listdir(m.join("s3"))
        s3.freeze()
        ends = []

        def hang(what):
            try:
                what()
                ends.append(None)
            except OSError as e:
                ends.append(e.errno)

        threads = [threading.Thread(target=hang, args=(w,)) for w in (
            lambda: os.listdir(m.join("s3/y")), lambda: m.read("s3/x"))]
        for t in threads:
            t.start()
        wait_for(lambda: sources_of(m)["/s3"]["backend"]["in_flight"] >= 2)
        assert measure(lambda: zc.ok("source", "remove", "--force", m, "/s3")) < 10
        for t in threads:
            t.join(10)
            assert not t.is_alive()
        assert set(ends) <= {errno.ESTALE, errno.ENOENT} and len(ends) == 2, ends
        assert m.read("dir/f") == b"in a"
    finally:
        s3.thaw()
        s3.stop()


# ---------------------------------------------------------------- the cache


@pytest.mark.sanitized
def test_a_kept_cache_survives_other_paths(zc, folder):
    """Bytes are found by their source: at another path, beside others, twice in one mount."""
    a, b = folder.url("a"), folder.url("b")
    m = zc.mount([f"/one={a}", f"/two={b}"], keep=True)
    m.warm()
    m.umount()
    again = zc.mount([f"/other/path={a}", f"/new={folder.url('c')}", f"/same={a}"], keep=True, point=m.path,
                     cache=m.cache)
    for p in ("other/path", "same"):
        assert again.read(p + "/f") == b"in a"
        assert again.read(p + "/big") == make_bytes(9 * MIB, "a")
    s = sources_of(again)
    assert s["/other/path"]["fetch"]["store_bytes"] == s["/same"]["fetch"]["store_bytes"] == 0
    assert again.read("new/f") == b"in c"
    assert sources_of(again)["/new"]["fetch"]["store_bytes"] == 4
    again.umount()
    # Elsewhere it is found by its name.
    first = zc.mount([f"/x={a}"], "--cache-name", "mine", keep=True, cache=m.cache)
    first.warm()
    first.umount()
    second = zc.mount([f"/y={a}", f"/z={b}"], "--cache-name", "mine", keep=True, cache=m.cache)
    second.read("y/big")
    assert sources_of(second)["/y"]["fetch"]["store_bytes"] == 0


def test_warm_and_free_across_sources(zc, folder):
    m = zc.mount([f"/x/a={folder.url('a')}", f"/x/b={folder.url('b')}", f"/c={folder.url('c')}"])
    out = m.warm("x", "c/f").stdout
    assert "5 files" in out, out
    got = {p: s["fetch"]["store_bytes"] for p, s in sources_of(m).items()}
    assert got == {"/x/a": 9 * MIB + 9, "/x/b": 4, "/c": 4}
    assert "freed 4 files" in zc.ok("free", m.join("x")).stdout
    assert "freed 1 files" in zc.ok("free", m).stdout
    zc.fails("warm", m.join("x/nothing"), words="nothing")


def test_buckets_of_one_name_at_two_services(zc, stores, work):
    """They are two sources, in one cache, and never each other's bytes."""
    made = {}
    for kind in ("versitygw", "minio"):
        made[kind] = S3Store(kind, os.path.join(work, kind))
        made[kind].put("same/name", kind.encode())
        os.utime(work)
    try:
        m = zc.mount([f"/v={made['versitygw'].url('same')}"], "--endpoint-url", made["versitygw"].server.url,
                     env={k: v for k, v in made["versitygw"].env.items() if k != "AWS_ENDPOINT_URL"}, keep=True)
        zc.ok("source", "add", "--endpoint-url", made["minio"].server.url, "--force-path-style", m,
              f"/m={made['minio'].url('same')}")
        for _ in range(2):
            assert m.read("v/name") == b"versitygw"
            assert m.read("m/name") == b"minio"
    finally:
        for s in made.values():
            s.stop()


def test_signals_end_a_mount_of_several(zc, folder):
    m = zc.mount([f"/a={folder.url('a')}", f"/b={folder.url('b')}"])
    m.read("a/f")
    os.kill(m.pid, signal.SIGTERM)
    m.ended()
