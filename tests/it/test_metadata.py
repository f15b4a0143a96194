# SPDX-License-Identifier: Apache-2.0
"""Attributes and names as time goes by: what docs/SEMANTICS.md says of when changes are seen, and of what
the store is asked for them."""

import ctypes
import os
import stat
import subprocess
import sys
import time

import pytest
from zcache import wait_for


@pytest.fixture
def folder(work):
    path = os.path.join(work, "data")
    os.makedirs(os.path.join(path, "dir"))
    with open(os.path.join(path, "dir/file"), "wb") as f:
        f.write(b"file")
    return path


def bits(path):
    s = os.stat(path)
    return stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid


@pytest.mark.sanitized
def test_owner_and_mode_follow_the_store(zc, folder):
    m = zc.mount(f"file://{folder}", "--metadata-ttl", "1")
    for path in ("dir", "dir/file"):
        real = os.path.join(folder, path)
        before = bits(real)
        assert bits(m.join(path)) == before
        os.chmod(real, 0o710)
        os.chown(real, 4711, 4712)
        wait_for(lambda p=path: bits(m.join(p)) == (0o710, 4711, 4712), 10, message=f"{path} has its old bits")
    assert m.read("dir/file") == b"file"


@pytest.mark.sanitized
@pytest.mark.parametrize("at", ["", "in/it"])
def test_the_root_is_the_source_s(zc, folder, at):
    os.chmod(folder, 0o700)
    os.chown(folder, 4711, 4712)
    m = zc.mount([(f"/{at}=" if at else "") + f"file://{folder}"], "--metadata-ttl", "2", "--allow-other")
    assert bits(m.join(at)) == (0o700, 4711, 4712)
    assert os.stat(m.join(at)).st_mtime_ns == os.stat(folder).st_mtime_ns

    def may(user):
        """Can this user get at what is in the root? (From the root itself: the folders above are the test's.)"""
        return subprocess.run(["ls", "dir/file"], cwd=m.join(at), user=user, group=user, extra_groups=[],
                              capture_output=True, check=False).returncode == 0
    assert may(4711) and not may(65534)
    os.chmod(folder, 0o755)
    wait_for(lambda: may(65534), 10, message="the root has its old bits")
    os.chmod(folder, 0o700)
    wait_for(lambda: not may(65534), 10, message="the root has its old bits")
    assert may(4711)
    m.umount()
    m = zc.mount([(f"/{at}=" if at else "") + f"file://{folder}"], "--dir-mode", "0751", "--uid", "5")
    assert bits(m.join(at)) == (0o751, 5, 4712)


# ---------------------------------------------------------------- names that are not there


def there(mount, name):
    return os.path.exists(mount.join(name))


@pytest.mark.sanitized
def test_a_new_name_in_a_listed_folder(zc, server, new_bucket):
    """Frozen but for new objects: what is there is never asked for again, what is not there after its own time."""
    bucket = new_bucket(server, {f"d/{i}": b"x" for i in range(20)})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "indefinite", "--negative-metadata-ttl", "2s", server=server)
    assert len(os.listdir(m.join("d"))) == 20
    assert not there(m, "d/new")
    server.client().put_object(Bucket=bucket, Key="d/new", Body=b"new")
    wait_for(lambda: there(m, "d/new"), 10, message="the new object is never seen")
    assert m.read("d/new") == b"new"
    time.sleep(2.5)
    asked = m.requests()
    for i in range(20):
        assert there(m, f"d/{i}")
    assert m.requests() == asked
    for _ in range(5):
        assert not there(m, "d/none")
    after = m.requests()
    assert sum(after.values()) - sum(asked.values()) <= 3, "an answer was not remembered"


@pytest.mark.sanitized
def test_a_frozen_folder_asks_for_no_name(zc, server, new_bucket):
    bucket = new_bucket(server, {"d/there": b"x"})
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "indefinite", server=server)
    assert os.listdir(m.join("d")) == ["there"]
    asked = m.requests(), server.requests()
    for i in range(20):
        assert not there(m, f"d/{i}")
    assert (m.requests(), server.requests()) == asked


# ---------------------------------------------------------------- folders that are open


LIBC = ctypes.CDLL(None, use_errno=True)


def next_names(fd):
    """The names that one small getdents64(2) gives; readdir(3) would take all at once."""
    buf = ctypes.create_string_buffer(4096)
    n = LIBC.getdents64(fd, buf, len(buf))
    assert n >= 0, os.strerror(ctypes.get_errno())
    names, at = [], 0
    while at < n:
        length = int.from_bytes(buf.raw[at + 16:at + 18], sys.byteorder)
        names.append(os.fsdecode(buf.raw[at + 19:at + length].split(b"\0")[0]))
        at += length
    return [n for n in names if n not in (".", "..")], n == 0


@pytest.mark.sanitized
def test_a_file_replaced_during_a_listing_is_in_it_once(zc, work):
    folder = os.path.join(work, "data")
    os.makedirs(folder)
    for i in range(1000):
        with open(os.path.join(folder, f"some-longer-name-{i}"), "wb") as f:
            f.write(b"old")
    m = zc.mount(f"file://{folder}", "--metadata-ttl", "1")
    order = os.listdir(m)
    fd = os.open(m, os.O_RDONLY | os.O_DIRECTORY)
    try:
        names, over = next_names(fd)
        assert 0 < len(names) < 500
        for name in (order[0], order[-1]):  # one that was read, one that will be
            with open(os.path.join(work, "new"), "wb") as f:
                f.write(b"a new one")
            os.rename(os.path.join(work, "new"), os.path.join(folder, name))
        wait_for(lambda: os.stat(m.join(order[-1])).st_size == 9, 10, message="the new file is not seen")
        while not over:
            more, over = next_names(fd)
            names += more
    finally:
        os.close(fd)
    assert names == order
    assert m.read(order[-1]) == b"a new one"


@pytest.mark.sanitized
def test_rewinding_is_opening_again(zc, folder):
    m = zc.mount(f"file://{folder}", "--metadata-ttl", "2")
    fd = os.open(m.join("dir"), os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert os.listdir(fd) == ["file"]  # which rewinds at its end
        with open(os.path.join(folder, "dir/more"), "wb") as f:
            f.write(b"more")
        wait_for(lambda: sorted(os.listdir(fd)) == ["file", "more"], 10, message="a rewound folder shows old names")
    finally:
        os.close(fd)


# ---------------------------------------------------------------- listings of an earlier mount


def names_of(mount):
    return {os.path.relpath(os.path.join(top, n), mount.path) for top, _, files in os.walk(mount.path) for n in files}


@pytest.mark.sanitized
def test_kept_listings_are_not_asked_for(zc, server, new_bucket):
    files = {f"{d}/{i}": f"{d} {i}".encode() for d in ("a", "a/b", "c") for i in range(5)}
    url = "s3://" + new_bucket(server, files)
    m = zc.mount(url, "--metadata-ttl", "1h", server=server, keep=True)
    assert names_of(m) == set(files)
    assert all(m.read(p) == data for p, data in files.items())
    assert m.umount().returncode == 0
    for first in ("names", "files"):
        m = zc.mount(url, "--metadata-ttl", "1h", server=server, keep=True, cache=m.cache)
        asked = server.requests(), m.requests()
        if first == "names":
            assert names_of(m) == set(files)
        for path, data in files.items():
            assert m.read(path) == data
        assert names_of(m) == set(files)
        assert not there(m, "a/none") and not there(m, "none")
        assert (server.requests(), m.requests()) == asked
        assert m.umount().returncode == 0
    server.client().put_object(Bucket=url[5:], Key="a/new", Body=b"new")
    m = zc.mount(url, "--metadata-ttl", "1", server=server, keep=True, cache=m.cache)
    assert m.read("a/new") == b"new", "a listing that is too old was used"
    assert names_of(m) == set(files) | {"a/new"}
