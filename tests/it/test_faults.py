# SPDX-License-Identifier: Apache-2.0
"""What networks and servers do to those who read: readers wait, or get an error in time, and never a
wrong byte."""

import concurrent.futures
import errno
import os
import re
import threading
import time

import pytest
from conftest import STORES, make_bytes, sha256_of
from servers import s3

MIB = 1 << 20


@pytest.fixture(params=["versitygw"])
def through(request, zc, stores, tree):
    """A mount of the tree through a fault proxy before a server -> (mount, proxy)."""
    server = stores.get(request.param)
    bucket = stores.bucket(server, "tree", tree[0])
    with s3.FaultProxy(server) as p:
        def mount(*options, **env):
            env = {**server.env(), "AWS_ENDPOINT_URL": p.url, **env}
            return zc.mount(f"s3://{bucket}", *options, env=env), p
        yield mount
        zc.finish()  # while the proxy is there


both = pytest.mark.parametrize("through", STORES, indirect=True)


def fails_with(codes, what):
    with pytest.raises(OSError) as e:
        what()
    assert e.value.errno in codes, e.value
    return e.value


@both
@pytest.mark.sanitized
@pytest.mark.parametrize("kind", ["cut", "reset", "drop", "short", "slowdown", "error", "garbage"])
def test_one_request_in_three_fails(through, tree, kind):
    folder, _ = tree
    m, p = through()
    p.fault(kind, 3)
    for path in ("large/ten", "chunk+1", "small/a", "many/1/f0001.bin", "one"):
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(folder, path)), path
    assert p.stats()["faults"] > 0


@both
@pytest.mark.sanitized
def test_a_storm_of_503(through, tree):
    """Nothing but SlowDown for two seconds, then all is well."""
    folder, _ = tree
    m, p = through()
    p.fault("slowdown")
    threading.Timer(2, p.clear).start()
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))
    assert m.status()["backend"]["retries"] > 0


def test_a_long_storm_of_503(through, tree):
    """As long as the time that a read may take is not over, SlowDown is waited out; and not by knocking
    all the time."""
    folder, _ = tree
    m, p = through("--metadata-ttl", "indefinite")
    paths = ["large/ten", "chunk+1", "small/a", "one"]
    for path in paths:
        os.stat(m.join(path))
    p.reset()
    p.fault("slowdown")
    threading.Timer(17, p.clear).start()
    with concurrent.futures.ThreadPoolExecutor(len(paths)) as pool:
        sums = list(pool.map(lambda path: sha256_of(m.join(path)), paths))
    assert sums == [sha256_of(os.path.join(folder, path)) for path in paths]
    assert p.stats()["faults"] < 40 * len(paths)
    assert m.status()["backend"]["errors"] == 0


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


def test_attempts_that_a_person_set(through):
    m, p = through("--metadata-ttl", "indefinite", AWS_MAX_ATTEMPTS="3")
    os.stat(m.join("small/a"))
    p.reset()
    p.fault("slowdown")
    fails_with([errno.EIO], lambda: m.read("small/a"))
    assert p.stats()["requests"] == 3


WORDS = {
    "short": ["ended early|is for another range"],
    "cut": ["127.0.0.1:[0-9]+: .*(bytes|transfer closed)"],
    "slowdown": ["http://127.0.0.1:[0-9]+ answers HTTP 503 SlowDown"],
    "silent": ["no answer from 127.0.0.1:[0-9]+", "no byte came for [23][.][0-9] s"],
    "stall": ["no answer from 127.0.0.1:[0-9]+", "no byte came for [23][.][0-9] s"],
}


@both
@pytest.mark.parametrize("kind", WORDS)
def test_words(through, tree, zc, kind):
    """Which store, which object, what happened, and what was done about it; once, and not for each attempt."""
    m, p = through("--read-timeout", "2s", "--metadata-ttl", "indefinite")
    os.stat(m.join("large/ten"))
    p.fault(kind, 1, 0, "large/ten")
    fails_with([errno.EIO], lambda: m.read("large/ten"))
    log = zc.log_tail()
    said = [line for line in log.splitlines() if "s3://tree/large/ten" in line]
    tried = [line for line in said if "it is tried again" in line]
    ended = [line for line in said if "given up" in line]
    for word in WORDS[kind]:
        assert any(re.search(word, line) for line in ended), f"no {word!r} in:{log}"
    assert ended and all(re.search("nothing came for [0-9.]+ s", line) for line in ended), log
    if kind not in ("silent", "stall"):  # these take all the time there is
        assert len(tried) == 1 and re.search(WORDS[kind][0], tried[0]), log
    p.clear()
    with open(os.path.join(tree[0], "large/ten"), "rb") as f:
        assert m.read("large/ten") == f.read()
    assert len(tried) == 0 or "answers again, after" in zc.log_tail()


def test_words_of_a_listing(through, zc):
    m, p = through("--read-timeout", "2s", "--metadata-ttl", "indefinite")
    os.listdir(m.join("many"))
    p.fault("slowdown", 1, 0, "list-type=2")
    fails_with([errno.EIO], lambda: os.listdir(m.join("many/7")))
    said = [line for line in zc.log_tail().splitlines() if "many/7: no listing" in line]
    assert said and "answers HTTP 503 SlowDown" in said[0] and "given up" in said[0], zc.log_tail()


@pytest.mark.slow
@pytest.mark.parametrize("kind,times", [("stall", 2), ("silent", 1)])
def test_a_response_that_stops(through, tree, kind, times):
    """Half a body, then silence, or nothing at all: the bytes come by another request."""
    folder, _ = tree
    m, p = through()
    p.fault(kind, 1, times, "GET ")
    began = time.monotonic()
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))
    assert time.monotonic() - began < 60


@both
@pytest.mark.sanitized
def test_a_listing_cut_short(through, tree):
    m, p = through()
    p.fault("cut", 2, 0, "list-type=2")
    assert len(os.listdir(m.join("many/7"))) == 30
    p.clear()
    p.fault("garbage", 1, 1, "list-type=2")
    assert len(os.listdir(m.join("many/8"))) == 30


@both
@pytest.mark.sanitized
def test_a_listing_that_is_no_xml(through):
    m, p = through("--read-timeout", "2s")
    p.swap("<IsTruncated>", "<IsTruncated><<&&")
    fails_with([errno.EIO], lambda: os.listdir(m.join("many/7")))
    p.clear()
    assert len(os.listdir(m.join("many/7"))) == 30


@both
@pytest.mark.sanitized
def test_range_ignored(through, tree):
    """A store that answers 200 with the whole object where a range was asked."""
    folder, _ = tree
    m, p = through("--read-timeout", "2s")
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
def test_server_frozen(zc, own_server):
    """More readers than there are connections, of a server that says nothing any more: all of them have
    their error when the time that was set is over, and not one batch after the other. (Over io_uring
    the kernel holds back what does not fit into its rings, and the daemon cannot see how long.)"""
    objects = {f"small{i:03d}": make_bytes(100_000, i) for i in range(90)}
    objects |= {f"large{i}": make_bytes(12 * MIB, i) for i in range(4)}
    own_server.client().create_bucket(Bucket="data")
    for key, data in objects.items():
        own_server.client().put_object(Bucket="data", Key=key, Body=data)
    m = zc.mount("s3://data", "--read-timeout", "4s", "--metadata-ttl", "indefinite", "--io-uring", "off",
                 server=own_server)
    os.listdir(m.path)
    ended = m.read_frozen(own_server, objects)
    assert {e for e, _ in ended.values()} == {"EIO"} and len(ended) == len(objects), ended
    times = sorted(t for _, t in ended.values())
    assert times[0] > 3.5 and times[-1] < 11, times
    once = min(t for k, (_, t) in ended.items() if k.startswith("large"))
    assert once < 7.5, f"{once}: waited for again when the kernel asked once more"
    for key, data in objects.items():
        assert m.read(key) == data, key


@both
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
