# SPDX-License-Identifier: Apache-2.0
"""What networks and servers do to those who read: readers wait, or get an error in time, and never a
wrong byte."""

import errno
import os
import threading
import time

import pytest
from conftest import make_bytes, sha256_of
from zcache import wait_for

MIB = 1 << 20


@pytest.fixture
def through(zc, proxy, stores, tree):
    """A mount of the tree through the fault proxy -> (mount, proxy)."""
    p, server = proxy
    bucket = stores.bucket(server, "tree", tree[0])

    def mount(*options, **kw):
        return zc.mount(f"s3://{bucket}", *options, env={**server.env(), "AWS_ENDPOINT_URL": p.url}, **kw), p
    return mount


def fails_with(codes, what):
    with pytest.raises(OSError) as e:
        what()
    assert e.value.errno in codes, e.value
    return e.value


@pytest.mark.sanitized
@pytest.mark.parametrize("kind", ["cut", "reset", "drop", "short", "slowdown", "error", "garbage"])
def test_one_request_in_three_fails(through, tree, kind):
    folder, _ = tree
    m, p = through()
    p.fault(kind, 3)
    for path in ("large/ten", "chunk+1", "small/a", "many/1/f0001.bin", "one"):
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(folder, path)), path
    assert p.stats()["faults"] > 0


@pytest.mark.sanitized
def test_a_storm_of_503(through, tree):
    """Nothing but SlowDown for two seconds, then all is well."""
    folder, _ = tree
    m, p = through()
    p.fault("slowdown")
    threading.Timer(2, p.clear).start()
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))
    assert m.status()["backend"]["retries"] > 0


@pytest.mark.sanitized
def test_a_storm_does_not_become_a_flood(through):
    """Backing off: a store that says SlowDown is not asked hundreds of times a second."""
    m, p = through("--read-timeout", "4s")
    p.fault("slowdown")
    p.reset()
    began = time.monotonic()
    fails_with([errno.EIO], lambda: m.read("small/a"))
    assert 1 < time.monotonic() - began < 12
    assert p.stats()["requests"] <= 60


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["stall", "silent"])
def test_a_response_that_stops(through, tree, kind):
    """Half a body, then silence, twice: the bytes come by another request."""
    folder, _ = tree
    m, p = through()
    p.fault(kind, 1, 2, "GET ")
    began = time.monotonic()
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))
    assert time.monotonic() - began < 60


@pytest.mark.sanitized
def test_a_listing_cut_short(through, tree):
    m, p = through()
    p.fault("cut", 2, 0, "list-type=2")
    assert len(os.listdir(m.join("many/7"))) == 30
    p.clear()
    p.fault("garbage", 1, 1, "list-type=2")
    assert len(os.listdir(m.join("many/8"))) == 30


@pytest.mark.sanitized
def test_a_listing_that_is_no_xml(through):
    m, p = through("--read-timeout", "5s")
    p.swap("<IsTruncated>", "<IsTruncated><<&&")
    fails_with([errno.EIO], lambda: os.listdir(m.join("many/7")))
    p.clear()
    assert len(os.listdir(m.join("many/7"))) == 30


@pytest.mark.sanitized
def test_range_ignored(through, tree):
    """A store that answers 200 with the whole object where a range was asked."""
    folder, _ = tree
    m, p = through("--read-timeout", "5s")
    p.fault("ignore-range")
    want = open(os.path.join(folder, "large/ten"), "rb").read()
    fd = os.open(m.join("large/ten"), os.O_RDONLY)
    try:
        for off in (0, 5 * MIB, 9 * MIB):
            try:
                assert os.pread(fd, 4096, off) == want[off:off + 4096]
            except OSError as e:
                assert e.errno == errno.EIO
    finally:
        os.close(fd)


@pytest.mark.sanitized
def test_server_killed_mid_read_and_back(zc, own_server):
    data = make_bytes(64 * MIB, 1)
    own_server.client().create_bucket(Bucket="data")
    own_server.client().put_object(Bucket="data", Key="big", Body=data)
    m = zc.mount("s3://data", server=own_server)
    with open(m.join("big"), "rb") as f:
        assert f.read(MIB) == data[:MIB]
        own_server.kill()
        threading.Timer(3, own_server.start).start()
        got = data[:MIB] + f.read()
    assert got == data
    wait_for(lambda: own_server.process, 30)


@pytest.mark.sanitized
def test_server_gone(zc, own_server):
    """EIO within the deadline for what is not cached; what is cached is read as if nothing was."""
    own_server.client().create_bucket(Bucket="data")
    objects = {"cached": make_bytes(5 * MIB, 2), "cold": make_bytes(5 * MIB, 3)}
    for key, data in objects.items():
        own_server.client().put_object(Bucket="data", Key=key, Body=data)
    m = zc.mount("s3://data", "--read-timeout", "5s", "--metadata-ttl", "indefinite", server=own_server)
    os.listdir(m.path)
    assert m.read("cached") == objects["cached"]
    own_server.kill()
    began = time.monotonic()
    fails_with([errno.EIO, errno.ETIMEDOUT], lambda: m.read("cold"))
    assert time.monotonic() - began < 15
    assert m.read("cached") == objects["cached"]
    began = time.monotonic()
    assert m.umount().returncode == 0, "unmounting hangs on a dead server"
    assert time.monotonic() - began < 15


@pytest.mark.sanitized
def test_unmount_while_the_server_is_silent(through):
    m, p = through()
    p.fault("silent")
    t = threading.Thread(target=lambda: fails_quietly(lambda: m.read("large/ten")))
    t.start()
    time.sleep(0.5)
    began = time.monotonic()
    assert m.umount("--force").returncode == 0
    assert time.monotonic() - began < 20
    t.join(20)
    assert not t.is_alive()


def fails_quietly(what):
    try:
        what()
    except OSError:
        pass


# ------------------------------------------------------------ changed objects


@pytest.mark.sanitized
def test_overwritten_mid_read(zc, server, new_bucket):
    """The open handle ends in ESTALE; the next open has the new bytes; never a mix."""
    old, new = make_bytes(48 * MIB, 4), make_bytes(48 * MIB, 5)
    bucket = new_bucket(server, {"big": old})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "1", server=server)
    fd = os.open(m.join("big"), os.O_RDONLY)
    try:
        got = os.read(fd, 65536)
        assert got == old[:len(got)]
        server.client().put_object(Bucket=bucket, Key="big", Body=new)
        stale, at = False, len(old) - 65536
        while at > 0:  # backwards, so that read-ahead has not been there
            try:
                piece = os.pread(fd, 65536, at)
            except OSError as e:
                assert e.errno == errno.ESTALE, e
                stale = True
                break
            assert piece == old[at:at + len(piece)], "bytes that the open version never had"
            at -= 3 * MIB
        assert stale, "the old version was served to its end although most of it was gone"
    finally:
        os.close(fd)
    time.sleep(1.2)
    assert m.read("big") == new
    assert m.read("big") == new


@pytest.mark.sanitized
def test_deleted_mid_read(zc, server, new_bucket):
    old = make_bytes(48 * MIB, 6)
    bucket = new_bucket(server, {"big": old, "other": b"other"})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "1", server=server)
    fd = os.open(m.join("big"), os.O_RDONLY)
    try:
        assert os.read(fd, 4096) == old[:4096]
        server.client().delete_object(Bucket=bucket, Key="big")
        with pytest.raises(OSError) as e:
            for at in range(len(old) - 65536, 0, -3 * MIB):
                assert os.pread(fd, 65536, at) == old[at:at + 65536]
        assert e.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    time.sleep(1.2)
    with pytest.raises(FileNotFoundError):
        os.stat(m.join("big"))
    assert m.read("other") == b"other"
    assert sorted(os.listdir(m.path)) == ["other"]


@pytest.mark.sanitized
def test_changed_between_opens(zc, server, new_bucket):
    """After the TTL a new version is seen: other size, same size, gone, come back as a folder."""
    bucket = new_bucket(server, {"x": b"first version"})
    client = server.client()
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "1", server=server)
    assert m.read("x") == b"first version"
    for data in (b"second one, longer than before", b"third", b"4hird", make_bytes(5 * MIB, 7),
                 make_bytes(5 * MIB, 8)):
        client.put_object(Bucket=bucket, Key="x", Body=data)
        time.sleep(1.3)
        assert m.read("x") == data
        assert os.stat(m.join("x")).st_size == len(data)
    client.delete_object(Bucket=bucket, Key="x")
    time.sleep(1.3)
    assert not os.path.exists(m.join("x"))
    client.put_object(Bucket=bucket, Key="x/y", Body=b"below")
    time.sleep(1.3)
    assert m.read("x/y") == b"below"


@pytest.mark.sanitized
def test_changed_and_ttl_minimal(zc, server, new_bucket):
    """Each open asks the store: a change is seen at once."""
    bucket = new_bucket(server, {"x": b"one"})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "minimal", server=server)
    for i in range(5):
        data = b"version %d" % i * (i + 1)
        server.client().put_object(Bucket=bucket, Key="x", Body=data)
        assert m.read("x") == data


@pytest.mark.sanitized
def test_changed_in_a_folder_source(zc, work):
    folder = os.path.join(work, "data")
    os.makedirs(folder)
    old, new = make_bytes(32 * MIB, 9), make_bytes(32 * MIB, 10)
    with open(os.path.join(folder, "big"), "wb") as f:
        f.write(old)
    m = zc.mount(f"file://{folder}", "--metadata-ttl", "1")
    fd = os.open(m.join("big"), os.O_RDONLY)
    try:
        assert os.read(fd, 4096) == old[:4096]
        with open(os.path.join(folder, "new"), "wb") as f:
            f.write(new)
        os.rename(os.path.join(folder, "new"), os.path.join(folder, "big"))
        with pytest.raises(OSError) as e:
            for at in range(len(old) - 65536, 0, -3 * MIB):
                assert os.pread(fd, 65536, at) == old[at:at + 65536]
        assert e.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    time.sleep(1.3)
    assert m.read("big") == new


@pytest.mark.sanitized
def test_readers_of_both_versions_never_see_a_mix(zc, server, new_bucket):
    """Eight readers while the object is overwritten ten times: each read of it is one whole version,
    or an error that says that it changed."""
    versions = [make_bytes(9 * MIB, 100 + i) for i in range(11)]
    sums = {hash(v) for v in versions}
    bucket = new_bucket(server, {"x": versions[0]})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "minimal", server=server)
    done, wrong, whole, stale = threading.Event(), [], [0], [0]

    def reader():
        while not done.is_set():
            try:
                with open(m.join("x"), "rb") as f:
                    data = f.read()
            except OSError as e:
                if e.errno != errno.ESTALE:
                    wrong.append(e)
                stale[0] += 1
                continue
            if hash(data) not in sums:
                wrong.append(len(data))
            whole[0] += 1

    threads = [threading.Thread(target=reader) for _ in range(8)]
    for t in threads:
        t.start()
    for v in versions[1:]:
        server.client().put_object(Bucket=bucket, Key="x", Body=v)
        time.sleep(0.3)
    done.set()
    for t in threads:
        t.join(60)
    assert not wrong, wrong[:5]
    assert whole[0] > 0
    assert m.read("x") == versions[-1]
