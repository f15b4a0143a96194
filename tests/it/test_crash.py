# SPDX-License-Identifier: Apache-2.0
"""A daemon that was killed, and a cache that was damaged: the next mount is right all the same.

KILLS (default 50, about a minute) is the number of rounds of the kill test."""

import concurrent.futures
import errno
import glob
import os
import random
import signal
import subprocess
import threading
import time

import pytest
from conftest import crc_of, files_below, sha256_of
from zcache import alive, mounts_below, wait_for

KILLS = int(os.environ.get("KILLS", "50"))


def check_all(mount, manifest, below=("",)):
    """Every file of the manifest (below these folders), size and checksum -> how many there are."""
    def wrong(line):
        path, size, crc = line.rstrip("\n").split("\t")
        full = mount.join(path)
        return os.path.getsize(full) != int(size) or f"{crc_of(full):08x}" != crc

    with open(manifest, encoding="ascii") as f:
        lines = [line for line in f if line.startswith(tuple(below))]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        bad = [line for line, is_bad in zip(lines, pool.map(wrong, lines)) if is_bad]
    assert not bad, f"{len(bad)} files are wrong: {bad[:5]}"
    return len(lines)


def test_kill_while_warming(zc, proxy, stores, images):
    """kill -9 at random points of warming, again and again over the same cache. Each round begins with an
    empty one and warms other folders, from a store so slow that it goes on for longer than the daemon lives."""
    folder, manifest = images
    slow, server = proxy
    source = "s3://" + stores.bucket(server, "images", folder)
    point, cache = zc.place()
    rng = random.Random(3)
    with open(manifest, encoding="ascii") as f:
        classes = sorted({os.path.dirname(line.split("\t")[0]) + "/" for line in f})
    options = {"env": {"AWS_ENDPOINT_URL": slow.url}, "server": server, "point": point, "cache": cache, "keep": True}
    cut = kept = 0
    m = zc.mount(source, **options)
    for _ in range(KILLS):
        some = rng.sample(classes, 4)
        slow.delay(40)
        warm = subprocess.Popen([zc.binary, "warm", "-p", "16", *map(m.join, some)], env=zc.env,
                                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: m.requests()["gets"] > 0 or warm.poll() is not None, message="warm does not begin")
        time.sleep(rng.uniform(0, 0.7))
        m.kill()
        finished = warm.wait(30) == 0
        slow.clear()
        m = zc.mount(source, **options)
        left = m.status()["cache"]["objects"]
        files = check_all(m, manifest, some)  # what is left must be right, not just what is fetched again
        assert not finished or left == files, f"warm says that it finished, and {left} of {files} files are there"
        cut += not finished and left < files
        kept += 0 < left < files

        def empty():  # the kernel tells of a close after it
            zc.ok("free", m.path)
            return m.status()["cache"]["objects"] == 0

        wait_for(empty, message="what was freed is still there")
    print(f"{cut} of {KILLS} kills cut a warm, and {kept} of them left a part of its files")
    assert cut >= KILLS * 0.8 and kept >= KILLS * 0.4, f"{cut} of {KILLS} kills cut a warm, {kept} left files"
    m.warm("")
    assert m.umount().returncode == 0

    m = zc.mount(source, "--metadata-ttl", "indefinite", **options)
    before = server.requests()["get"]
    check_all(m, manifest)
    assert server.requests()["get"] == before, "a kept cache was fetched again"


@pytest.mark.sanitized
def test_kill_while_reading(zc, stores, tree):
    folder, sizes = tree
    server = stores.get("minio")
    source = "s3://" + stores.bucket(server, "tree", folder)
    point, cache = zc.place()
    rng = random.Random(5)
    for _ in range(3):
        m = zc.mount(source, server=server, point=point, cache=cache, keep=True)

        def reader(top=m.path):
            for path in sizes:
                try:
                    sha256_of(os.path.join(top, path))
                except OSError:
                    return

        threads = [threading.Thread(target=reader) for _ in range(3)]
        for t in threads:
            t.start()
        time.sleep(rng.uniform(0.05, 0.5))
        m.kill()
        for t in threads:
            t.join(30)
            assert not t.is_alive(), "a reader hangs on a dead daemon"
    m = zc.mount(source, server=server, point=point, cache=cache, keep=True)
    for path in sizes:
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(folder, path)), path


@pytest.mark.sanitized
def test_a_dead_mount_is_replaced(zc, tree):
    """mount on top of what a killed daemon left; its cache is removed, for it was not to be kept."""
    source = f"file://{tree[0]}"
    first = zc.mount(source)
    first.read("chunk")
    first.kill()
    assert first.path in mounts_below(first.path)
    with pytest.raises(OSError):
        os.listdir(first.path)
    assert first.left() != [first.cache + "/"]
    zc.fails("status", words=[f"{first.path}: the daemon is gone"])  # which of all mounts it is
    second = zc.mount(source, point=first.path, cache=first.cache)
    assert mounts_below(first.path) == [first.path]
    assert second.read("one") == open(os.path.join(tree[0], "one"), "rb").read()
    assert second.status()["cache"]["used_bytes"] < 4 << 20, "the dead daemon's cache was taken over"
    assert second.umount().returncode == 0


@pytest.mark.sanitized
def test_umount_of_a_dead_mount(zc, tree):
    m = zc.mount(f"file://{tree[0]}")
    m.kill()
    zc.ok("umount", m.path)
    assert mounts_below(m.path) == []


@pytest.mark.sanitized
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT], ids=lambda s: s.name)
@pytest.mark.parametrize("foreground", [True, False], ids=["foreground", "daemon"])
def test_signals_unmount(zc, tree, how, foreground):
    m = zc.mount(f"file://{tree[0]}", foreground=foreground)
    m.read("chunk")
    os.kill(m.pid, how)
    m.ended()
    assert not m.process or m.process.returncode == 0


@pytest.mark.sanitized
def signal_while_reading(zc, stores, server, tree, *options):
    """SIGTERM with readers at work: the readers end, with their bytes or an error, and so does the daemon,
    wherever in a request it was."""
    folder, sizes = tree
    source = "s3://" + stores.bucket(server, "tree", folder)
    sums = {path: sha256_of(os.path.join(folder, path)) for path in sizes}
    wrong = []

    def reader(m):
        for path in sizes:
            try:
                if sha256_of(m.join(path)) != sums[path]:
                    wrong.append(path)
            except OSError:
                return

    for wait in (0.03, 0.1, 0.2, 0.4):
        m = zc.mount(source, *options, server=server)
        threads = [threading.Thread(target=reader, args=(m,)) for _ in range(4)]
        for t in threads:
            t.start()
        time.sleep(wait)
        os.kill(m.pid, signal.SIGTERM)
        wait_for(lambda pid=m.pid: not alive(pid), 40, message="SIGTERM did not end the daemon")
        for t in threads:
            t.join(30)
            assert not t.is_alive()
        m.ended()
    assert not wrong


def test_signal_while_reading(zc, stores, server, tree):
    signal_while_reading(zc, stores, server, tree, "--io-uring", "off")


@pytest.mark.sanitized
def test_the_connection_is_aborted(zc, tree):
    """From outside, while names are looked up: an end like others, that leaves nothing behind."""
    control = "/sys/fs/fuse/connections"
    if not os.path.ismount(control):
        subprocess.run(["mount", "-t", "fusectl", "fusectl", control], check=True)
    for _ in range(5):
        m = zc.mount(f"file://{tree[0]}", "--metadata-ttl", "minimal", "--io-uring", "off")
        device = os.stat(m.path).st_dev
        over = threading.Event()

        def look(m=m, over=over):
            while not over.is_set():
                for path in tree[1]:
                    try:
                        os.stat(m.join(path))
                    except OSError as e:
                        if e.errno == errno.ENOTCONN:
                            return

        threads = [threading.Thread(target=look) for _ in range(6)]
        for t in threads:
            t.start()
        time.sleep(0.2)
        with open(f"{control}/{os.minor(device)}/abort", "w", encoding="ascii") as f:
            f.write("1")
        wait_for(lambda pid=m.pid: not alive(pid), 40, message="the daemon did not end")
        over.set()
        for t in threads:
            t.join(30)
        if tuple(map(int, os.uname().release.split(".")[:2])) < (6, 8):  # it cannot tell the mount from another
            subprocess.run(["umount", m.path], check=True)
        m.ended()


def test_umount_in_use(zc, tree):
    m = zc.mount(f"file://{tree[0]}")
    with open(m.join("one"), "rb") as f:
        r = m.umount()
        assert r.returncode != 0 and "in use" in r.stderr, r.stderr
        assert f.read() == open(os.path.join(tree[0], "one"), "rb").read()
    assert m.umount().returncode == 0


def test_the_cache_is_kept_only_when_asked(zc, tree):
    m = zc.mount(f"file://{tree[0]}", keep=True)
    m.warm("")
    used = m.used()
    assert used >= 60 << 20
    m.umount()
    assert m.used() >= 60 << 20
    again = zc.mount(f"file://{tree[0]}", point=m.path, cache=m.cache, keep=True)
    assert again.status()["cache"]["used_bytes"] >= 60 << 20
    own = again.requests()["gets"]
    for path in tree[1]:
        assert sha256_of(again.join(path)) == sha256_of(os.path.join(tree[0], path))
    assert again.requests()["gets"] == own
    again.umount()
    third = zc.mount(f"file://{tree[0]}", point=m.path, cache=m.cache)
    assert third.status()["cache"]["used_bytes"] < 1 << 20
    third.umount()


# ------------------------------------------------------------ damage on the disk


def index_of(cache):
    found = glob.glob(cache + "/**/index*", recursive=True)
    assert found, f"no index below {cache}"
    return max((f for f in found if os.path.isfile(f)), key=os.path.getsize)


def truncate_half(path):
    os.truncate(path, os.path.getsize(path) // 2)


def truncate_all(path):
    os.truncate(path, 0)


def scribble_head(path):
    with open(path, "r+b") as f:
        f.write(os.urandom(16384))


def scribble_all(path):
    rng = random.Random(8)
    with open(path, "r+b") as f:
        for at in range(0, os.path.getsize(path), 4096):
            f.seek(at + rng.randrange(4000))
            f.write(rng.randbytes(64))


def scribble_some(path):
    rng = random.Random(9)
    with open(path, "r+b") as f:
        for at in range(8192, os.path.getsize(path), 4096):
            if rng.random() < 0.3:
                f.seek(at + rng.randrange(4000))
                f.write(rng.randbytes(64))


def text(path):
    with open(path, "wb") as f:
        f.write(b"this was an index once\n" * 1000)


def remove(path):
    os.unlink(path)


@pytest.mark.sanitized
@pytest.mark.parametrize("damage", [truncate_half, truncate_all, scribble_head, scribble_all, scribble_some,
                                    text, remove], ids=lambda f: f.__name__)
def test_damaged_index(zc, stores, tree, damage):
    """Detected, dropped, rebuilt; every byte right; and the cache still within its size."""
    folder, sizes = tree
    server = stores.get("versitygw")
    source = "s3://" + stores.bucket(server, "tree", folder)
    m = zc.mount(source, server=server, keep=True)
    m.warm("")
    m.umount()
    damage(index_of(m.cache))
    again = zc.mount(source, server=server, point=m.path, cache=m.cache, keep=True)
    if damage is not remove:
        assert again.status()["cache"]["rebuilt"], "the damage was not noticed"
        assert "was damaged at start" in zc.ok("status", again.path).stdout
    assert sorted(files_below(again.path)) == sorted(sizes)
    for path in sizes:
        assert sha256_of(again.join(path)) == sha256_of(os.path.join(folder, path)), path
    again.warm("")
    assert again.used() < 140 << 20, "files that no index knows stay on the disk"
    again.umount()
    third = zc.mount(source, server=server, point=m.path, cache=m.cache, keep=True)
    own = third.requests()["gets"]
    for path in sizes:
        assert sha256_of(third.join(path)) == sha256_of(os.path.join(folder, path)), path
    assert third.requests()["gets"] == own, "the rebuilt cache was not kept"


@pytest.mark.sanitized
@pytest.mark.parametrize("how", ["truncated", "scribbled", "scribbled-in-small-chunks", "grown", "gone"])
def test_damaged_files_after_a_kill(zc, stores, tree, how):
    """After an unclean stop chunks are checked before they are served: at the open, or in a file of many
    chunks when they are read."""
    how, _, small = how.partition("-")
    chunks = ["--chunk-size", "64KiB"] if small else []
    folder, sizes = tree
    server = stores.get("minio")
    source = "s3://" + stores.bucket(server, "tree", folder)
    m = zc.mount(source, *chunks, server=server, keep=True)
    m.warm("")
    time.sleep(0.5)
    m.kill()
    rng = random.Random(11)
    hurt = 0
    for path in glob.glob(m.cache + "/**", recursive=True):
        if not os.path.isfile(path) or "/objects/" not in path or rng.random() < 0.5:
            continue
        size = os.path.getsize(path)
        hurt += 1
        if how == "truncated":
            os.truncate(path, size // 2)
        elif how == "grown":
            os.truncate(path, size + 4096)
        elif how == "gone":
            os.unlink(path)
        elif size:
            with open(path, "r+b") as f:
                f.seek(rng.randrange(size))
                old = f.read(1)
                f.seek(-1, os.SEEK_CUR)
                f.write(bytes([old[0] ^ 0x10]))
    assert hurt > 50
    again = zc.mount(source, *chunks, server=server, point=m.path, cache=m.cache, keep=True)
    for path in sizes:
        assert sha256_of(again.join(path)) == sha256_of(os.path.join(folder, path)), path


def test_two_daemons_do_not_share_a_cache(zc, tree):
    """The same source and the same cache folder, mounted twice: refused, or kept apart; both right."""
    folder, sizes = tree
    a = zc.mount(f"file://{folder}")
    point, _ = zc.place()
    r = zc.run("mount", "--cache-dir", a.cache, "--cache-size", "1GiB", f"file://{folder}", point)
    if r.returncode == 0:
        for path in sizes:
            assert sha256_of(os.path.join(point, path)) == sha256_of(a.join(path))
        zc.ok("umount", point)
    else:
        assert "use" in r.stderr, r.stderr
        assert mounts_below(point) == []
    for path in sizes:
        assert sha256_of(a.join(path)) == sha256_of(os.path.join(folder, path))
