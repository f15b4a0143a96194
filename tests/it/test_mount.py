# SPDX-License-Identifier: Apache-2.0
"""Where a mount goes, what lies below it and above it, and how it ends."""

import concurrent.futures
import errno
import os
import signal
import subprocess

import pytest
from conftest import sha256_of
from zcache import alive, mounts_below, wait_for


@pytest.fixture
def volume(zc):
    """A mount point that is a mount itself, as data disks and volumes of containers are."""
    point, _ = zc.place("volume")
    disk = os.path.join(zc.work, "disk")
    os.makedirs(disk)
    with open(os.path.join(disk, "mine"), "w", encoding="ascii") as f:
        f.write("of the volume")
    subprocess.run(["mount", "--bind", disk, point], check=True)
    yield point
    for _ in mounts_below(point):
        subprocess.run(["umount", "-l", point], check=True)


def still_there(point):
    return mounts_below(point) == [point] and os.listdir(point) == ["mine"]


@pytest.mark.sanitized
@pytest.mark.parametrize("uring", ["on", "off"])
@pytest.mark.parametrize("how", ["plain", "force", "lazy", "lazy, then SIGTERM", "SIGTERM"])
def test_the_end_leaves_what_is_below(zc, tree, volume, switched_off, how, uring):
    """A forced end, and one that a reader delays, take away this mount and not the one under it."""
    uring = uring if switched_off else "off"
    m = zc.mount(f"file://{tree[0]}", "--io-uring", uring, point=volume, cache=zc.place()[1], foreground=True)
    assert mounts_below(volume) == [volume, volume]
    fd = os.open(m.join("large/ten"), os.O_RDONLY)
    try:
        start = os.read(fd, 100)
        if how == "plain":
            os.close(fd)
            fd = -1
        if how == "SIGTERM":
            os.kill(m.pid, signal.SIGTERM)
        else:
            zc.ok("umount", *(["--" + how.split(",")[0]] if how != "plain" else []), m.path)
        if how.startswith("lazy"):
            assert still_there(volume)
            assert alive(m.pid), "it did not wait for the reader"
            with open(os.path.join(tree[0], "large/ten"), "rb") as f:
                assert start + os.pread(fd, 11 << 20, 100) == f.read()
        if how == "lazy, then SIGTERM":
            os.kill(m.pid, signal.SIGTERM)
        if how == "lazy":
            os.close(fd)
            fd = -1
        wait_for(lambda: not alive(m.pid), 40, message="the daemon did not end")
    finally:
        if fd >= 0:
            os.close(fd)
    m.over = True
    assert m.process.wait(20) == 0
    assert still_there(volume)
    assert os.listdir(m.cache) == []


@pytest.mark.sanitized
def test_the_end_leaves_what_is_above(zc, tree):
    """Something was mounted over the mount: a signal ends the daemon, and takes away nothing of that."""
    m = zc.mount(f"file://{tree[0]}")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", m.path], check=True)
    os.kill(m.pid, signal.SIGTERM)
    wait_for(lambda: not alive(m.pid), 40, message="the daemon did not end")
    m.over = True
    above = os.statvfs(m.path)
    assert above.f_blocks * above.f_frsize == 1 << 20, "what was mounted over it is gone"
    subprocess.run(["umount", m.path], check=True)
    zc.ok("umount", m.path)
    assert mounts_below(m.path) == []


def read_ahead(mount):
    device = os.stat(mount.path).st_dev
    with open(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb", encoding="ascii") as f:
        return int(f.read())


@pytest.mark.sanitized
def test_read_ahead_is_raised_on_its_own_mount(zc, tree):
    """Not on another one whose path begins with the same letters."""
    mounts = []
    for name in ("data", "data2"):
        point, cache = zc.place(name)
        mounts.append(zc.mount(f"file://{tree[0]}", point=point, cache=cache))
    before = read_ahead(mounts[1])
    with open(mounts[0].join("large/ten"), "rb") as f:
        f.read(1)
    assert read_ahead(mounts[0]) > before
    assert read_ahead(mounts[1]) == before


@pytest.fixture
def refuse(zc):
    """refuse(errno, times): what to mount with, for the kernel to seem to refuse backing files."""
    build = os.path.dirname(os.path.abspath(zc.binary))
    library = os.path.join(build, "tests", "helpers", "librefuse_backing.so")
    assert os.path.exists(library)
    preload = " ".join(filter(None, [zc.sanitizer_library(), library]))

    def prefix(number, times):
        return ["env", f"LD_PRELOAD={preload}", f"ZC_REFUSE_ERRNO={number}", f"ZC_REFUSE_TIMES={times}"]
    return prefix


@pytest.mark.sanitized
@pytest.mark.parametrize("number", [errno.ENOMEM, errno.EMFILE], ids=errno.errorcode.get)
def test_passthrough_survives_a_shortage(zc, tree, refuse, number):
    """A file whose registration fails is served by the daemon; the next ones are passed through."""
    m = zc.mount(f"file://{tree[0]}", prefix=refuse(number, 2))
    names = [f"many/0/f{i:04d}.bin" for i in range(0, 50, 10)]
    for name in names:
        assert sha256_of(m.join(name)) == sha256_of(os.path.join(tree[0], name))
    s = m.status()
    assert s["passthrough"] == "on"
    assert (s["fuse"]["opens"], s["fuse"]["opens_passthrough"]) == (len(names), len(names) - 2)


@pytest.mark.sanitized
@pytest.mark.parametrize("number", [errno.EPERM, errno.ELOOP], ids=errno.errorcode.get)
def test_passthrough_is_given_up_when_refused(zc, tree, refuse, number):
    """By a refusal that will not pass; many at once (which status looks on at) tell one reason."""
    m = zc.mount(f"file://{tree[0]}", prefix=refuse(number, 1))

    def read(i):
        name = f"many/{i % 10}/f{i:04d}.bin"
        m.status()
        assert sha256_of(m.join(name)) == sha256_of(os.path.join(tree[0], name))

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(read, range(40)))
    s = m.status()
    assert s["passthrough"].startswith("off: ") and os.strerror(number) in s["passthrough"]
    before = s["fuse"]["opens_passthrough"]
    read(50)
    assert m.status()["fuse"]["opens_passthrough"] == before


@pytest.mark.sanitized
def test_a_mount_that_is_out_of_sight(zc, tree, volume):
    """Unmounted lazily, or hidden: while it is in use there is no second one, and the words say why."""
    m = zc.mount(f"file://{tree[0]}", point=volume, cache=zc.place()[1])
    again = ["mount", "--cache-dir", zc.place()[1], "--cache-size", "64MiB", f"file://{tree[0]}", volume]
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", volume], check=True)
    zc.fails(*again, words=["in use", f"process {m.pid}", "lazily or hidden"])
    subprocess.run(["umount", volume], check=True)
    with open(m.join("one"), "rb"):
        zc.ok("umount", "--lazy", volume)
        zc.fails(*again, words=["in use", f"process {m.pid}", "lazily or hidden"])
        assert still_there(volume)
    m.over = True
    # It ends now: no need to wait before the next one.
    second = zc.mount(f"file://{tree[0]}", point=volume, cache=m.cache)
    assert second.read("one") == open(os.path.join(tree[0], "one"), "rb").read()
    zc.ok("umount", volume)
    second.over = True
    wait_for(lambda: not alive(m.pid), 40, message="the first daemon did not end")
    assert still_there(volume)


@pytest.mark.sanitized
def test_an_older_mount_that_was_moved_on_top(zc, tree):
    """The kernel lists it before ours, which it covers: it is not what is unmounted."""
    top = os.path.join(zc.work, "private")
    older, point = os.path.join(top, "older"), os.path.join(top, "point")
    os.makedirs(top)
    subprocess.run(["mount", "-t", "tmpfs", "none", top], check=True)
    try:
        subprocess.run(["mount", "--make-private", top], check=True)  # or the kernel moves nothing in it
        os.makedirs(older)
        os.makedirs(point)
        subprocess.run(["mount", "-t", "tmpfs", "none", older], check=True)
        m = zc.mount(f"file://{tree[0]}", point=point, cache=zc.place()[1])
        open(os.path.join(older, "on top"), "w", encoding="ascii").close()
        subprocess.run(["mount", "--move", older, point], check=True)
        zc.fails("umount", point, words=["not a mount of zcache"])
        zc.fails("umount", "--force", point, words=["not a mount of zcache"])
        assert os.listdir(point) == ["on top"]
        subprocess.run(["umount", point], check=True)
        assert m.umount().returncode == 0
    finally:
        for path in mounts_below(top):
            subprocess.run(["umount", "-l", path], check=True)
