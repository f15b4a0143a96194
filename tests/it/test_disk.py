# SPDX-License-Identifier: Apache-2.0
"""The cache disk: its limit, its being full, its failing, and what `free` gives back."""

import os
import re
import subprocess
import tempfile
import threading
import time

import pytest
from conftest import sha256_of
from zcache import wait_for

MIB = 1 << 20


@pytest.fixture
def small_disk(base):
    """A file system of 64 MiB of its own -> its mount point. Asked for before `zc`, it goes after it."""
    place = tempfile.mkdtemp(prefix="disk-", dir=base)
    image, point = os.path.join(place, "disk.img"), os.path.join(place, "disk")
    os.makedirs(point)
    with open(image, "wb") as f:
        f.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, point], check=True)
    yield point
    subprocess.run(["umount", "-l", point], check=True)
    os.unlink(image)


def available(path):
    st = os.statvfs(path)
    return st.f_bavail * st.f_frsize


def all_right(mount, tree, below=""):
    folder, sizes = tree
    for path in sizes:
        if not path.startswith(below):
            continue
        assert sha256_of(mount.join(path)) == sha256_of(os.path.join(folder, path)), path


@pytest.mark.sanitized
def test_the_limit_holds(zc, stores, server, tree):
    """A cache of 12 MiB while 60 MiB are read by four readers: never past the limit."""
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), server=server, size="12MiB")
    done, most = threading.Event(), [0]

    def watch():
        while not done.wait(0.01):
            most[0] = max(most[0], m.used())

    watcher = threading.Thread(target=watch)
    watcher.start()
    readers = [threading.Thread(target=all_right, args=(m, tree)) for _ in range(4)]
    for r in readers:
        r.start()
    for r in readers:
        r.join()
    done.set()
    watcher.join()
    all_right(m, tree)
    cache = m.status()["cache"]
    assert cache["used_bytes"] <= cache["capacity_bytes"] == 12 * MIB
    assert most[0] <= 12 * MIB + 2 * MIB, most[0]  # the index comes on top


@pytest.mark.sanitized
def test_a_cache_smaller_than_a_file(zc, stores, tree):
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), server=server, size="4MiB")
    all_right(m, tree)
    assert m.used() <= 6 * MIB


@pytest.mark.sanitized
def test_the_floor_holds(small_disk, zc, stores, tree):
    """A cache-size larger than the disk: a tenth of the disk stays free."""
    server = stores.get("minio")
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), "--free-space-ratio", "10%",
                 server=server, point=zc.place()[0], cache=os.path.join(small_disk, "cache"))
    all_right(m, tree)
    assert available(small_disk) >= 0.09 * 64 * MIB
    assert m.umount().returncode == 0


@pytest.mark.sanitized
def test_disk_full_from_outside(small_disk, zc, stores, tree):
    """Somebody else fills the cache's disk: reads go on from the store, and back through the cache
    when there is room again."""
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), "--free-space-ratio", "0", server=server,
                 point=zc.place()[0], cache=os.path.join(small_disk, "cache"), size="1GiB")
    assert sha256_of(m.join("chunk")) == sha256_of(os.path.join(tree[0], "chunk"))
    hog = os.path.join(small_disk, "hog")
    with open(hog, "wb") as f:
        try:
            while True:
                f.write(b"x" * MIB)
                f.flush()
        except OSError:
            pass
    sizes = [size for path, size in tree[1].items() if path.startswith("many/")]
    many = len(sizes)
    used = m.status()["cache"]["used_bytes"]
    for least in (sum(tree[1].values()) // 2, sum(sizes)):  # of large files the kernel keeps pages
        own, stored = m.requests()["gets"], m.status()["fetch"]["store_bytes"]
        all_right(m, tree)
        after = m.status()
        assert after["backend"]["gets"] >= own + many, "a full disk has cached something"
        assert after["fetch"]["store_bytes"] >= stored + least
        assert after["fetch"]["peak_memory_bytes"] > 0
        assert after["cache"]["used_bytes"] <= used + MIB
    os.unlink(hog)

    def cached_again():
        all_right(m, tree, "many/")
        return m.status()["cache"]["complete"] >= many

    wait_for(cached_again, 30, message="nothing is cached although there is room again")
    own = m.requests()["gets"]
    all_right(m, tree, "many/")
    assert m.requests()["gets"] == own, "what was cached again is fetched again"
    all_right(m, tree)
    wait_for(lambda: zc.run("free", m.path).returncode == 0, 30)
    assert m.umount().returncode == 0


def filling(zc, stores, tree, small_disk):
    server = stores.get("versitygw")
    return zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), "--free-space-ratio", "0", server=server,
                    point=zc.place()[0], cache=os.path.join(small_disk, "cache"), size="1GiB")


@pytest.mark.sanitized
def test_disk_filled_while_reading(small_disk, zc, stores, tree):
    m = filling(zc, stores, tree, small_disk)
    stop = threading.Event()

    def hog():
        path = os.path.join(small_disk, "hog")
        while not stop.is_set():
            with open(path, "wb") as f:
                try:
                    for _ in range(80):
                        f.write(b"x" * MIB)
                        f.flush()
                except OSError:
                    pass
            time.sleep(0.05)
            os.unlink(path)

    t = threading.Thread(target=hog)
    t.start()
    try:
        for _ in range(3):
            all_right(m, tree)
            zc.run("free", m.path)
    finally:
        stop.set()
        t.join()


def make_read_only(disk):
    """As the kernel does with a disk that fails."""
    r = subprocess.run(["mount", "-o", "remount,ro,abort", disk], check=False, capture_output=True)
    if r.returncode != 0:
        with open("/proc/self/mountinfo", encoding="ascii", errors="replace") as f:
            device = next(re.search(r" - ext4 (\S+)", line).group(1) for line in f if disk + " " in line)
        subprocess.run(["sh", "-c", f"echo 1 > /sys/fs/ext4/{os.path.basename(device)}/trigger_fs_error"],
                       check=True)


@pytest.fixture
def failing_disk(base):
    """As small_disk -> its mount point, and what makes the second half of a file on it unreadable: the
    device ends there, so that the kernel gets I/O errors. It is read-only from then on: a write would make
    the device longer again, with zeros in it."""
    place = tempfile.mkdtemp(prefix="disk-", dir=base)
    image, point = os.path.join(place, "disk.img"), os.path.join(place, "disk")
    os.makedirs(point)
    with open(image, "wb") as f:
        f.truncate(64 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", "-b", "4096", image], check=True)
    device = subprocess.run(["losetup", "-f", "--show", "--direct-io=on", image], check=True, text=True,
                            capture_output=True).stdout.strip()
    subprocess.run(["mount", device, point], check=True)

    def fail(path):
        subprocess.run(["sync", "-f", point], check=True)
        listed = subprocess.run(["filefrag", "-v", "-b4096", path], check=True, text=True, capture_output=True)
        extents = re.findall(r"^ *\d+: +(\d+)\.\. +(\d+): +(\d+)\.\. +\d+:", listed.stdout, re.M)
        middle = int(extents[-1][1]) // 2
        ends = min(int(there) + max(0, middle - int(first)) for first, last, there in extents
                   if int(last) > middle)
        make_read_only(point)
        os.truncate(image, ends * 4096)
        with open(path, "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            with pytest.raises(OSError):
                while f.read(MIB):
                    pass
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    yield point, fail
    subprocess.run(["umount", "-l", point], check=True)
    subprocess.run(["losetup", "-d", device], check=True)
    os.unlink(image)


def backing_file(cache, size):
    found = [os.path.join(top, name) for top, _, names in os.walk(cache) for name in names if "/objects" in top]
    return next(path for path in found if os.path.getsize(path) == size)


@pytest.mark.sanitized
@pytest.mark.parametrize("path", ["large/forty", "chunk-1"])
def test_disk_that_cannot_be_read(failing_disk, zc, stores, tree, path):
    """I/O errors when a cached file is read back, by the daemon: its bytes come from the store again."""
    disk, fail = failing_disk
    folder, sizes = tree
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--free-space-ratio", "0", "--passthrough",
                 "off", server=server, point=zc.place()[0], cache=os.path.join(disk, "cache"), size="1GiB")
    m.warm("large/ten", path)
    fail(backing_file(m.cache, sizes[path]))
    own = m.requests()["gets"]
    with open(m.join(path), "rb") as f, open(os.path.join(folder, path), "rb") as want:
        right = want.read()
        # What a read that goes wrong in its middle gets must not look like the end of the file.
        middle = len(right) // 2
        assert os.pread(f.fileno(), MIB, middle - MIB // 2) == right[middle - MIB // 2:middle + MIB // 2]
        assert f.read() == right
        assert os.fstat(f.fileno()).st_size == sizes[path]
    assert m.requests()["gets"] > own and m.status()["cache"]["disk_errors"] > 0
    for _ in range(2):
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(folder, path))
    all_right(m, tree)
    assert m.umount().returncode == 0


def test_passthrough_of_what_cannot_be_read(failing_disk, zc, stores, tree):
    """The kernel reads a cached file without the daemon, and its reader gets the disk's error. `free` ends
    that, even on a disk that has become read-only."""
    disk, fail = failing_disk
    folder, sizes = tree
    path = "large/forty"
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--free-space-ratio", "0", server=server,
                 point=zc.place()[0], cache=os.path.join(disk, "cache"), size="1GiB")
    m.warm(path)
    fail(backing_file(m.cache, sizes[path]))
    with pytest.raises(OSError):
        m.read(path)
    zc.ok("free", m.join(path))
    for _ in range(2):
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(folder, path))
    all_right(m, tree)
    assert m.umount().returncode == 0


@pytest.mark.sanitized
def test_disk_gone_read_only(small_disk, zc, stores, tree):
    """The kernel remounts a broken disk read-only: reads go on."""
    m = filling(zc, stores, tree, small_disk)
    assert sha256_of(m.join("chunk")) == sha256_of(os.path.join(tree[0], "chunk"))
    make_read_only(small_disk)
    all_right(m, tree)
    r = m.zc.run("umount", m.path)
    assert r.returncode == 0, r.stderr
    wait_for(lambda: not os.path.exists(f"/proc/{m.pid}"), 20)
    m.over = True


@pytest.mark.sanitized
def test_free_gives_the_space_back(small_disk, zc, stores, server, tree):
    folder, sizes = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--free-space-ratio", "0", server=server,
                 point=zc.place()[0], cache=os.path.join(small_disk, "cache"), size="1GiB")
    empty = available(small_disk)
    m.warm("large/ten", "many", "chunk+1")
    full = available(small_disk)
    assert empty - full >= 14 * MIB
    zc.ok("free", m.join("large"))
    assert available(small_disk) - full >= 10 * MIB - MIB // 2, "the index may have grown meanwhile"
    zc.ok("free", m.path)
    assert empty - available(small_disk) <= MIB, "free left something on the disk"
    assert m.status()["cache"]["used_bytes"] == 0
    own = m.requests()["gets"]
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))
    assert m.requests()["gets"] > own


@pytest.mark.sanitized
def test_kept_files_make_room(small_disk, zc, stores, server, tree):
    """Closed files that the kernel keeps give their space back, whoever asks for it."""
    folder, _ = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--free-space-ratio", "0", server=server,
                 point=zc.place()[0], cache=os.path.join(small_disk, "cache"), size="1GiB")
    empty = available(small_disk)
    m.warm("large/ten", "chunk+1")
    for _ in range(2):
        m.read("large/ten")
        m.read("chunk+1")
    fuse = m.status()["fuse"]
    assert fuse["kept_files"] == 2 and fuse["opens_kept"] == 2
    zc.ok("free", m.path)
    assert m.status()["fuse"]["kept_files"] == 0
    assert empty - available(small_disk) <= MIB, "an open file kept its space"
    all_right(m, tree)
    assert m.status()["fuse"]["kept_files"] > 2
    assert m.umount().returncode == 0

    # The same readers with room for half of it, and with room for three kept files.
    for options in (["--cache-size", "20MiB"], ["--open-cache-limit", "3"], ["--open-cache-limit", "0"]):
        m = zc.mount("s3://" + stores.bucket(server, "tree", folder), *options, server=server)
        for _ in range(3):
            all_right(m, tree)
        st = m.status()
        assert st["cache"]["used_bytes"] <= st["cache"]["capacity_bytes"]
        if "--open-cache-limit" in options:
            assert st["fuse"]["kept_files"] == int(options[1])
        assert m.umount().returncode == 0


@pytest.mark.sanitized
def test_free_leaves_open_files_alone(zc, stores, server, tree):
    folder, _ = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)
    with open(m.join("large/ten"), "rb") as f, open(os.path.join(folder, "large/ten"), "rb") as want:
        assert f.read(MIB) == want.read(MIB)
        r = zc.ok("free", m.path)
        assert r.stdout == "freed 0 files, 0 B; 1 left, because they are open\n"
        assert f.read() == want.read()
    assert zc.ok("free", m.path).stdout.startswith("freed 1 files, 10.0 MiB\n")
    assert m.status()["cache"]["objects"] == 0
    assert sha256_of(m.join("large/ten")) == sha256_of(os.path.join(folder, "large/ten"))


@pytest.mark.sanitized
def test_warm_twice_fetches_once(zc, stores, server, tree):
    folder, sizes = tree
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)
    m.warm("")
    assert m.status()["backend"]["bytes"] == pytest.approx(sum(sizes.values()), rel=0.01)
    own = m.requests()["gets"]
    m.warm("")
    assert m.requests()["gets"] == own
    all_right(m, tree)
    assert m.requests()["gets"] == own


@pytest.mark.sanitized
def test_warm_of_a_list(zc, tree, work):
    m = zc.mount(f"file://{tree[0]}")
    listing = os.path.join(work, "list")
    with open(listing, "w", encoding="utf-8") as f:
        f.write("".join(m.join(p) + "\n" for p in ("chunk", "many/2", "with space/and %20 percent/a+b")))
    zc.ok("warm", "-p", "4", "-f", listing)
    own = m.requests()["gets"]
    for path in ("chunk", "many/2/f0002.bin", "with space/and %20 percent/a+b"):
        assert sha256_of(m.join(path)) == sha256_of(os.path.join(tree[0], path))
    assert m.requests()["gets"] == own


@pytest.mark.sanitized
def test_warm_of_more_than_fits(zc, stores, tree):
    """A data set larger than the cache: warm ends, with a word about it, and the cache keeps its size."""
    server = stores.get("minio")
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), server=server, size="12MiB")
    some = ["large/ten", "chunk", "chunk-1", "chunk+1"]  # each fits, all do not
    r = zc.fails("warm", "-p", "1", *map(m.join, some), words="files left the cache again.*--cache-size", status=1)
    assert "left the cache again" in r.stdout
    r = zc.fails("warm", m.path, words="--cache-size", status=1)
    assert m.used() <= 14 * MIB
    all_right(m, tree)
    zc.ok("free", m.path)
    r = m.warm("chunk", "many")
    assert "left" not in r.stdout + r.stderr
    m.warm("chunk-1")  # what others push out is not this one's
    m.warm("chunk+1")


@pytest.mark.sanitized
def test_warm_of_a_long_list_that_does_not_fit(zc, tree, work):
    """A list that goes to the daemon in several requests: the later ones push the first ones' files out."""
    m = zc.mount(f"file://{tree[0]}", size="7MiB")
    listing = os.path.join(work, "list")
    long = m.join("odd/" + "n" * 255)  # 8 MiB of them
    with open(listing, "w", encoding="utf-8") as f:
        f.write("\n".join([m.join("chunk"), *[long] * 34000, m.join("chunk-1"), ""]))
    zc.fails("warm", "-p", "1", "-f", listing, words=": 1 files left the cache again", status=1)


@pytest.mark.sanitized
def test_warm_is_cancelled(zc, proxy, stores, tree):
    """Interrupting warm ends the job in the daemon as well. The store is so slow that it goes on for long."""
    slow, server = proxy
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), "--max-connections", "2",
                 env={"AWS_ENDPOINT_URL": slow.url}, server=server)
    slow.delay(200)
    warm = subprocess.Popen([zc.binary, "warm", "-p", "4", m.join("many")], env=zc.env, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    wait_for(lambda: m.requests()["gets"] > 3, 60, message="warm does not begin")
    assert warm.poll() is None
    warm.send_signal(2)
    said, _ = warm.communicate(timeout=20)
    assert warm.returncode == 130 and said.startswith("cancelled after "), said
    wait_for(lambda: m.status()["backend"]["in_flight"] == 0, 20, message="the job goes on")
    own = m.requests()["gets"]
    assert own < 300
    time.sleep(0.6)
    assert m.requests()["gets"] == own, "the job goes on"
    slow.clear()
    all_right(m, tree, "many/")


@pytest.mark.sanitized
def test_status_says_what_is(zc, stores, server, tree):
    m = zc.mount("s3://" + stores.bucket(server, "tree", tree[0]), server=server, size="1GiB")
    m.read("chunk")
    s = m.status()
    assert s["source"] == m.source and s["mountpoint"] == m.path
    assert s["cache"]["capacity_bytes"] == 1 << 30
    assert s["cache"]["used_bytes"] >= 4 * MIB
    assert s["backend"]["gets"] >= 1
    plain = zc.ok("status", m.path).stdout
    assert m.source in plain and "passthrough" in plain.lower()
