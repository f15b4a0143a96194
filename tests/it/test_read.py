# SPDX-License-Identifier: Apache-2.0
"""Right bytes, from every source, by the tools that people use; and nothing asked twice."""

import errno
import fcntl
import mmap
import os
import stat
import subprocess
import threading

import pytest
from conftest import files_below, sha256_of

MIB = 1 << 20


def same_tree(mount, folder, sizes):
    """Every name, size, kind and byte of the folder is in the mount, and nothing else."""
    assert sorted(files_below(mount.path)) == sorted(sizes)
    for path, size in sizes.items():
        st = os.stat(mount.join(path))
        assert stat.S_ISREG(st.st_mode) and st.st_size == size, path
        assert sha256_of(mount.join(path)) == sha256_of(os.path.join(folder, path)), path


def copy_and_check(mount, folder, work):
    """cp -r of the whole mount, then sha256sum -c of the copy and of the mount itself."""
    sums = os.path.join(work, "sums")
    with open(sums, "wb") as f:
        subprocess.run("find . -type f -print0 | sort -z | xargs -0 sha256sum", shell=True, cwd=folder,
                       stdout=f, check=True)
    subprocess.run(["cp", "-r", mount.path, os.path.join(work, "copy")], check=True)
    for where in (os.path.join(work, "copy"), mount.path):
        subprocess.run(["sha256sum", "--check", "--quiet", "--strict", sums], cwd=where, check=True)


@pytest.mark.sanitized
def test_every_byte_from_any_store(zc, stores, any_server, tree, work):
    folder, sizes = tree
    bucket = stores.bucket(any_server, "tree", folder)
    m = zc.mount(f"s3://{bucket}", server=any_server)
    same_tree(m, folder, sizes)
    copy_and_check(m, folder, work)


def fails_with(number, call, *args):
    with pytest.raises(OSError) as e:
        call(*args)
    assert e.value.errno == number, e.value


@pytest.mark.parametrize("options", [[], ["--passthrough", "off", "--io-uring", "off"]], ids=["kernel", "daemon"])
def test_calls_that_are_not_reads(zc, tree, options):
    """Of docs/SEMANTICS.md what no other test asks for."""
    m = zc.mount(f"file://{tree[0]}", *options)
    path = m.join("page")
    fs = os.statvfs(m.path)
    assert fs.f_bavail == fs.f_bfree == fs.f_blocks // 2 > 1 << 30 and fs.f_namemax == 255
    fails_with(errno.ENOTSUP, os.listxattr, path)
    fails_with(errno.ENOTSUP, os.getxattr, path, "user.x")
    fails_with(errno.EROFS, os.setxattr, path, "user.x", b"y")
    fails_with(errno.EINVAL, os.readlink, path)
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC):
        fails_with(errno.EROFS, os.open, path, flags)
    fails_with(errno.EROFS, os.open, m.join("new"), os.O_RDONLY | os.O_CREAT)
    fails_with(errno.EISDIR, os.open, m.path, os.O_RDONLY | os.O_CREAT)
    assert not os.access(path, os.W_OK) and os.access(path, os.R_OK)
    fd = os.open(path, os.O_RDONLY | os.O_CREAT)
    try:
        os.fsync(fd)
        os.fdatasync(fd)
        fails_with(errno.ENOTTY, fcntl.ioctl, fd, 0x5401)
        assert os.lseek(fd, 5, os.SEEK_DATA) == 5 and os.lseek(fd, 5, os.SEEK_HOLE) == 4096
        fcntl.flock(fd, fcntl.LOCK_EX)
        with open(path, "rb") as other:
            fails_with(errno.EAGAIN, fcntl.flock, other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.close(fd)
    for call in (os.rmdir, os.mkdir, os.unlink):
        fails_with(errno.EROFS, call, m.join("many" if call is os.rmdir else "page" if call is os.unlink else "new"))
    fails_with(errno.EROFS, os.rename, path, m.join("other"))
    fails_with(errno.EROFS, os.chmod, path, 0o600)
    fails_with(errno.EROFS, os.utime, path)


@pytest.mark.sanitized
@pytest.mark.parametrize("options", [[], ["--open-cache-limit", "0"], ["--passthrough", "off"]],
                         ids=["lent", "passed", "daemon"])
def test_advice_to_read_ahead(zc, tree, options):
    """The kernel asks the daemon for pages then, of a file that it reads by itself, too."""
    m = zc.mount(f"file://{tree[0]}", *options)
    folder, paths = tree[0], ("page", "chunk+1", "large/ten")
    m.warm()
    for path in paths:
        with open(m.join(path), "rb") as f, open(os.path.join(folder, path), "rb") as want:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)
            with mmap.mmap(f.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ) as area:
                area.madvise(mmap.MADV_WILLNEED)
                assert f.read() == area[:] == want.read(), path
    assert m.status()["cache"]["disk_errors"] == 0


def test_pages_go_to_the_kernel_uncopied(zc, stores, work):
    """By splice, also for a daemon that may have no pipe of more than 1 MiB: what it read into its
    own memory is next to nothing, warm and while the file is still being fetched."""
    folder = os.path.join(work, "big")
    os.mkdir(folder)
    with open(os.path.join(folder, "file"), "wb") as f:
        f.write(os.urandom(64 * MIB))
    limited = ["setpriv", "--bounding-set", "-sys_resource"]
    options = ["--passthrough", "off", "--io-uring", "off"]

    def copied(m):
        with open(f"/proc/{m.pid}/io", encoding="ascii") as f:
            before = int(f.readline().split()[1])
        assert sha256_of(m.join("file")) == sha256_of(os.path.join(folder, "file"))
        with open(f"/proc/{m.pid}/io", encoding="ascii") as f:
            return int(f.readline().split()[1]) - before

    m = zc.mount(f"file://{folder}", *options, prefix=limited)
    m.warm()
    assert copied(m) < 4 * MIB
    # Sockets are read by other calls, which are not counted; what leaves the cache again would be.
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "uncopied", folder), *options, server=server, prefix=limited)
    assert copied(m) < 16 * MIB
    assert m.status()["fuse"]["read_bytes"] >= 64 * MIB


@pytest.mark.parametrize("options", [
    ["--passthrough", "off"],
    ["--passthrough", "off", "--io-uring", "off"],
    ["--io-uring", "off"],
    ["--metadata-ttl", "minimal"],
    ["--metadata-ttl", "indefinite"],
    ["--chunk-size", "64KiB"],
    ["--chunk-size", "64MiB"],
    ["--max-threads", "1", "--max-connections", "1"],
    ["--memory-target", "64MiB"],
], ids=lambda o: "".join(o).replace("--", "-"))
def test_every_byte_whatever_the_options(zc, stores, tree, work, options):
    folder, sizes = tree
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), *options, server=server)
    same_tree(m, folder, sizes)
    same_tree(m, folder, sizes)


def test_each_byte_is_fetched_once(zc, stores, server, tree):
    """Three readers of the same files at once make one request for each piece."""
    folder, sizes = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)
    errors = []

    def reader():
        try:
            same_tree(m, folder, sizes)
        except BaseException as e:  # pylint: disable=broad-except
            errors.append(e)

    threads = [threading.Thread(target=reader) for _ in range(3)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors, errors
    total = sum(sizes.values())
    fetched = m.status()["backend"]["bytes"]
    assert total <= fetched <= total * 1.02, (total, fetched)


def test_a_prefix_is_a_root(zc, stores, tree):
    folder, sizes = tree
    server = stores.get("minio")
    bucket = stores.bucket(server, "tree", folder)
    below = {p[len("many/3/"):]: s for p, s in sizes.items() if p.startswith("many/3/")}
    for spelling in (f"s3://{bucket}/many/3", f"s3://{bucket}/many/3/"):
        m = zc.mount(spelling, server=server)
        same_tree(m, os.path.join(folder, "many/3"), below)


@pytest.mark.sanitized
def test_files_without_etags(zc, work, stores, tree):
    """versitygw gives no ETag for files that were laid into its folder by hand."""
    folder, sizes = tree
    server = stores.get("versitygw")
    subprocess.run(["cp", "-r", folder, os.path.join(server.data, "byhand")], check=True)
    m = zc.mount("s3://byhand", server=server)
    same_tree(m, folder, sizes)


def test_random_reads_do_not_fetch_the_file(zc, stores, server, tree):
    """One 4 KiB read in a 40 MiB file must not cost 40 MiB."""
    folder, _ = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)
    fd = os.open(m.join("large/forty"), os.O_RDONLY)
    try:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
        os.pread(fd, 4096, 23 * MIB)
    finally:
        os.close(fd)
    assert m.status()["backend"]["bytes"] <= 9 * MIB


def test_the_mount_is_read_only(zc, tree):
    m = zc.mount(f"file://{tree[0]}")
    for attempt in (
        lambda: open(m.join("new"), "wb"),
        lambda: open(m.join("one"), "r+b"),
        lambda: os.mkdir(m.join("dir")),
        lambda: os.unlink(m.join("one")),
        lambda: os.rename(m.join("one"), m.join("two")),
        lambda: os.truncate(m.join("page"), 0),
        lambda: os.chmod(m.join("one"), 0o600),
        lambda: os.symlink("x", m.join("y")),
        lambda: os.utime(m.join("one")),
    ):
        with pytest.raises(OSError) as e:
            attempt()
        assert e.value.errno == 30, e.value  # EROFS
    assert m.read("one") == open(os.path.join(tree[0], "one"), "rb").read()


def test_parallel_readers_of_one_cold_file(zc, stores, server, tree):
    folder, _ = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)
    want = sha256_of(os.path.join(folder, "large/forty"))
    readers = [subprocess.Popen(["sha256sum", m.join("large/forty")], stdout=subprocess.PIPE, text=True)
               for _ in range(6)]
    for r in readers:
        assert r.communicate(timeout=120)[0].split()[0] == want
    assert m.status()["backend"]["bytes"] <= 41 * MIB


def test_memory_stays_within_its_target(zc, stores, server, tree):
    folder, sizes = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--memory-target", "64MiB", server=server)
    same_tree(m, folder, sizes)
    memory = m.status()["memory"]
    assert memory["target_bytes"] == 64 * MIB
    assert m.status()["fetch"]["peak_memory_bytes"] <= 64 * MIB
    if not zc.sanitizer_library():
        assert memory["peak_rss_bytes"] < 128 * MIB, memory


def test_cold_files_are_in_memory_once(zc, work):
    """Reads of what is still being fetched come as they are, not through pages of the mount; maps
    have pages, which are asked for in large pieces; and the next open needs no daemon."""
    folder = os.path.join(work, "source")
    os.makedirs(folder)
    data = os.urandom(MIB) * 64
    for name in ("read", "shared", "private"):
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)
    m = zc.mount(f"file://{folder}")

    def reads():
        return m.status()["fuse"]["reads"]

    buffer = mmap.mmap(-1, MIB)  # whole pages: a read of 1 MiB is two requests
    with open(m.join("read"), "rb", buffering=0) as f:
        for at in range(64):
            assert f.readinto(buffer) == MIB and buffer[:] == data[at * MIB:(at + 1) * MIB]
        assert reads() == 128
        assert os.pread(f.fileno(), 4096, 12345) == data[12345:12345 + 4096]
        assert reads() == 129
        with open(m.join("read"), "rb") as again:  # the inode has one mode while it is open
            assert again.read() == data
    for name, flags in (("shared", mmap.MAP_SHARED), ("private", mmap.MAP_PRIVATE)):
        before = reads()
        with open(m.join(name), "rb") as f:
            with mmap.mmap(f.fileno(), 0, flags=flags, prot=mmap.PROT_READ) as mapped:
                assert mapped[:] == data
                assert os.pread(f.fileno(), MIB, 5 * MIB) == data[5 * MIB:6 * MIB]
        assert 0 < reads() - before < 64 * MIB // (256 << 10)
    for name in ("read", "shared", "private"):
        before = reads()
        assert m.read(name) == data
        assert reads() == before, name
