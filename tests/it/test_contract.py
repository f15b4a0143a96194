# SPDX-License-Identifier: Apache-2.0
"""What every source must do, in one place, run with each of them: a folder, S3 on two servers, HDFS, HDFS
behind its gateway, and a mount of two of these.

CONTRACT_OVERWRITES=30   overwrites under readers
CONTRACT_STEPS=400       length of the random walk (ZCACHE_MODEL_SEED runs one again)
"""

import errno
import mmap
import os
import random
import stat
import subprocess
import threading
import time
import unicodedata

import pytest
from conftest import MIB, SIZES, make_bytes
from model import play
from sources import KINDS, Source

OVERWRITES = int(os.environ.get("CONTRACT_OVERWRITES") or 30)
STEPS = int(os.environ.get("CONTRACT_STEPS") or 400)
NFC = unicodedata.normalize("NFC", "é/ö 한글.txt")
NFD = unicodedata.normalize("NFD", NFC)
ODD = ["a b%+&?#;", "100%", "+", "😀", "~{}[]|^`", "a;b=c", "*<>,@$"]
SANITIZED = {"file", "versitygw", "two"}


@pytest.fixture(scope="module")
def sources(base, request):
    made = {}

    def get(kind):
        if kind not in made:
            made[kind] = Source(kind, os.path.join(base, "contract-" + kind),
                                lambda: request.getfixturevalue("hdfs_cluster"))
        return made[kind]
    yield get
    for s in made.values():
        s.stop()


def params(kinds):
    return [pytest.param(k, marks=[pytest.mark.sanitized] if k in SANITIZED else []) for k in kinds]


@pytest.fixture(scope="module", params=params(KINDS))
def source(request, sources):
    return sources(request.param)


@pytest.fixture
def place(source):
    """A folder of this test's own in the source."""
    return source.place()


@pytest.fixture(scope="module")
def tree(source, base):
    """A tree in the source, and the same in a local folder -> (place, folder, {path: bytes})."""
    place = source.place("tree")

    def make(prefix):
        files = {p: make_bytes(n, prefix + p) for p, n in SIZES.items() if n < 11 * MIB}
        files |= {f"many/{i % 4}/f{i:03d}": make_bytes(500 + i * 37, f"{prefix}{i}") for i in range(80)}
        files |= {f"forms/{NFC}": b"composed", f"forms/{NFD}": b"decomposed, and longer"}
        files |= {f"odd/more/{name}": name.encode() for name in ODD}
        return files
    files = place.fill(make)
    folder = os.path.join(base, "contract-truth-" + source.kind)
    for path, data in files.items():
        full = os.path.join(folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)
    return place, folder, files


def read_all(mount):
    found = {}
    for top, _, names in os.walk(mount.path):
        for name in names:
            path = os.path.relpath(os.path.join(top, name), mount.path)
            found[path] = mount.read(path)
    return found


def same(found, files):
    assert sorted(found) == sorted(files)
    wrong = [p for p in files if found[p] != files[p]]
    assert not wrong, wrong[:10]


def above(path):
    """A path of the mount one level up."""
    return os.path.dirname(path.rstrip("/"))


# ---------------------------------------------------------------- names and bytes


def test_every_name_and_byte(zc, tree):
    place, _, files = tree
    m = place.mount(zc, "--metadata-ttl", "indefinite")
    same(read_all(m), files)
    for path, data in files.items():
        st = os.stat(m.join(path))
        assert stat.S_ISREG(st.st_mode) and st.st_size == len(data), path
    asked = m.requests(), place.requests()
    same(read_all(m), files)
    assert (m.requests(), place.requests()) == asked, "a second pass asked the store"
    b = m.status()["backend"]
    assert b["errors"] == 0
    assert b["bytes"] <= sum(map(len, files.values())) * 1.02, "bytes were fetched twice"


def test_names(zc, tree):
    """After a listing no name of the folder is asked for, be it there or not."""
    place, _, files = tree
    m = place.mount(zc, "--metadata-ttl", "indefinite")
    for prefix in place.prefixes:
        names = os.listdir(m.join(prefix, "many/1"))
        os.listdir(m.join(prefix))
        os.listdir(m.join(prefix, "odd"))
        asked = m.requests()
        for name in names:
            assert os.stat(m.join(prefix, "many/1", name)).st_size == len(files[f"{prefix}many/1/{name}"])
        for path in ("nothing", "many/1/nothing", "many/1/f001x", "many/1/f00", "one/below-a-file", "odd/%2f"):
            with pytest.raises((FileNotFoundError, NotADirectoryError)):
                os.stat(m.join(prefix, path))
        assert m.requests() == asked
        with pytest.raises((FileNotFoundError, NotADirectoryError)):
            os.listdir(m.join(prefix, "nothing"))
        with pytest.raises(NotADirectoryError):
            os.listdir(m.join(prefix, "one"))
        with pytest.raises(OSError):
            os.stat(m.join(prefix, "n" * 256))
        with pytest.raises(OSError) as e:
            with open(m.join(prefix, "new"), "wb"):
                pass
        assert e.value.errno == errno.EROFS


def test_random_reads_and_maps(zc, tree):
    place, _, files = tree
    m = place.mount(zc)
    rng = random.Random(1)
    for prefix in place.prefixes:
        path = prefix + "large/ten"
        want = files[path]
        fd = os.open(m.join(path), os.O_RDONLY)
        try:
            for _ in range(120):
                off, n = rng.randrange(len(want) + 100), rng.choice([1, 4096, 100_000, 3 * MIB])
                assert os.pread(fd, n, off) == want[off:off + n], (off, n)
            assert os.pread(fd, 10, len(want)) == b""
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as mapped:
                for _ in range(40):
                    off = rng.randrange(len(want))
                    assert mapped[off:off + 70_000] == want[off:off + 70_000]
        finally:
            os.close(fd)
        assert m.read(path) == want


def test_model(zc, tree):
    """Random operations on the mount and on a folder with the same content."""
    place, folder, files = tree
    play(place.mount(zc), folder, files, STEPS)


def test_warm(zc, tree):
    """Warmed, nothing is fetched any more; freed, it is; and a second warming fetches what is missing."""
    place, _, files = tree
    m = place.mount(zc, "--metadata-ttl", "indefinite")
    m.warm()
    total = sum(map(len, files.values()))
    b = m.status()["backend"]
    assert total <= b["bytes"] <= total * 1.02
    same(read_all(m), files)
    assert m.status()["backend"]["gets"] == b["gets"]
    last = place.prefixes[-1]
    zc.ok("free", m.join(last, "many"), m.join(last, "chunk+1"))
    m.warm(*(m.join(p) for p in place.prefixes))
    again = sum(len(d) for p, d in files.items() if p.startswith((last + "many/", last + "chunk+1")))
    assert m.status()["backend"]["bytes"] == b["bytes"] + again
    same(read_all(m), files)
    assert m.status()["backend"]["bytes"] == b["bytes"] + again


# ---------------------------------------------------------------- versions


def test_changes_are_seen(zc, place):
    """At once with a TTL of nothing, else after it: another size, the same size, gone, back as a folder."""
    files = place.fill(lambda prefix: {"x": b"first version", "other": b"other"})
    at_once = place.mount(zc, "--metadata-ttl", "minimal")
    later = place.mount(zc, "--metadata-ttl", "1")
    for path in (p for p in files if p.endswith("x")):
        for data in (b"second one, longer than before", b"3rd", b"4th", make_bytes(5 * MIB, 7)):
            assert later.read(path)
            place.put(path, data)
            assert at_once.read(path) == data
            assert os.stat(at_once.join(path)).st_size == len(data)
        time.sleep(1.2)
        assert later.read(path) == data
        place.delete(path)
        assert not os.path.exists(at_once.join(path))
        place.put(path + "/y", b"below")
        assert at_once.read(path + "/y") == b"below"
        time.sleep(1.2)
        assert later.read(path + "/y") == b"below"
        assert sorted(os.listdir(later.join(above(path)))) == ["other", "x"]


def test_replaced_mid_read(zc, place):
    """The open handle ends in ESTALE; the next open has the new bytes; never a mix."""
    old, new = make_bytes(48 * MIB, 4), make_bytes(48 * MIB, 5)
    files = place.fill(lambda prefix: {"big": old})
    m = place.mount(zc, "--metadata-ttl", "minimal")
    for path in files:
        fd = os.open(m.join(path), os.O_RDONLY)
        try:
            got = os.read(fd, 65536)
            assert got == old[:len(got)]
            place.put(path, new)
            with pytest.raises(OSError) as e:
                for at in range(len(old) - 65536, 0, -3 * MIB):  # where read-ahead has not been
                    piece = os.pread(fd, 65536, at)
                    assert piece == old[at:at + len(piece)], "bytes that the open version never had"
            assert e.value.errno == errno.ESTALE
        finally:
            os.close(fd)
        assert m.read(path) == new
        assert m.read(path) == new


def test_deleted_mid_read(zc, place):
    old = make_bytes(48 * MIB, 6)
    files = place.fill(lambda prefix: {"big": old, "other": b"other"})
    m = place.mount(zc, "--metadata-ttl", "minimal")
    for path in (p for p in files if p.endswith("big")):
        fd = os.open(m.join(path), os.O_RDONLY)
        try:
            assert os.read(fd, 4096) == old[:4096]
            place.delete(path)
            with pytest.raises(OSError) as e:
                for at in range(len(old) - 65536, 0, -3 * MIB):
                    assert os.pread(fd, 65536, at) == old[at:at + 65536]
            assert e.value.errno == errno.ESTALE
        finally:
            os.close(fd)
        with pytest.raises(FileNotFoundError):
            os.stat(m.join(path))
        assert os.listdir(m.join(above(path))) == ["other"]


def test_overwrites_never_mix(zc, place):
    """Versions are filled with their own number, and every open sees one number only."""
    size = 5 * MIB
    files = place.fill(lambda prefix: {"x": bytes([1]) * size})
    m = place.mount(zc, "--metadata-ttl", "minimal")
    bad, seen, stale, over = [], set(), [0], threading.Event()

    def reader(seed):
        rng = random.Random(seed)
        while not over.is_set():
            numbers, path = set(), rng.choice(list(files))
            try:
                with open(m.join(path), "rb", buffering=0) as f:
                    if rng.random() < 0.3:
                        numbers |= set(f.read())
                    for _ in range(rng.randint(1, 10)):
                        numbers |= set(os.pread(f.fileno(), rng.choice([4096, 65536, MIB]), rng.randrange(size)))
            except OSError as e:
                if e.errno == errno.ESTALE:
                    stale[0] += 1
                else:
                    bad.append(repr(e))
            if len(numbers) > 1:
                bad.append(numbers)
            seen.update(numbers)

    threads = [threading.Thread(target=reader, args=(i,)) for i in range(4)]
    for t in threads:
        t.start()
    # As many as it takes until readers have come between: a fast source is overwritten faster than it is read.
    until, last = time.monotonic() + 60, 1
    while last <= OVERWRITES or (len(seen) <= OVERWRITES // 4 and time.monotonic() < until):
        last += 1
        for path in files:
            place.put(path, bytes([last % 255 + 1]) * size)
    over.set()
    for t in threads:
        t.join(60)
    assert not bad, bad[:5]
    assert len(seen) > OVERWRITES // 4, f"seen {len(seen)}, stale {stale[0]}"
    for path in files:
        assert set(m.read(path)) == {last % 255 + 1}


# ---------------------------------------------------------------- faults


@pytest.mark.parametrize("source", params([k for k in KINDS if k != "file"]), indirect=True)
def test_a_server_dies_and_comes_back(zc, place):
    """A read under way goes on when it is back. What is cached is read meanwhile, what is not fails in time;
    the other source of the mount, if there is one, notices nothing."""
    size = 40 * MIB
    files = place.fill(lambda prefix: {n: make_bytes(size, prefix + n) for n in ("big", "cold")} |
                       {"cached": make_bytes(5 * MIB, prefix)})
    victim, *others = place.prefixes
    patient = place.mount(zc, "--metadata-ttl", "indefinite")
    hasty = place.mount(zc, "--metadata-ttl", "indefinite", "--read-timeout", "4s")
    for m in (patient, hasty):
        os.listdir(m.join(victim))
    assert hasty.read(victim + "cached") == files[victim + "cached"]
    got = []
    store = place.source.stores[victim]
    with open(patient.join(victim, "big"), "rb") as f:
        got.append(f.read(MIB))
        store.kill()
        t = threading.Thread(target=lambda: got.append(f.read()))
        t.start()
        try:
            began = time.monotonic()
            with pytest.raises(OSError) as e:
                hasty.read(victim + "cold")
            assert e.value.errno in (errno.EIO, errno.ETIMEDOUT)
            assert time.monotonic() - began < 15
            assert hasty.read(victim + "cached") == files[victim + "cached"]
            for other in others:
                for m in (patient, hasty):
                    assert m.read(other + "cold") == files[other + "cold"]
            health = {s["path"]: s["health"] for s in hasty.status()["sources"]}
            assert [p.strip("/") for p, h in health.items() if not h["ok"]] == [victim.rstrip("/")], health
        finally:
            store.start()
        t.join(50)
        assert not t.is_alive(), "the read hangs"
    assert b"".join(got) == files[victim + "big"]
    assert hasty.read(victim + "cold") == files[victim + "cold"]
    assert all(s["health"]["ok"] for s in hasty.status()["sources"])


# S3's servers are frozen in test_faults.py, with more readers.
@pytest.mark.parametrize("source", params(["webhdfs", "httpfs"]), indirect=True)
def test_a_server_stands_still(zc, place):
    """A read of what is not cached fails when its time is over, and not the server's."""
    files = place.fill(lambda prefix: {f"cold{i}": make_bytes(5 * MIB, i) for i in range(3)})
    m = place.mount(zc, "--metadata-ttl", "indefinite", "--read-timeout", "4s")
    os.listdir(m.path)
    ended = m.read_frozen(place.source.stores[""], files)
    assert len(ended) == len(files) and all(error for error, _ in ended.values()), ended
    assert all(3.5 < took < 11 for _, took in ended.values()), ended
    for path, data in files.items():
        assert m.read(path) == data


# What a folder has instead of a server that dies: files that change under their names, folders that may
# not be read, and the file system below it that goes away.


@pytest.fixture
def folder_place(sources):
    return sources("file").place()


def real_path(place, path=""):
    return os.path.join(place.source.stores[""].folder, place.name, path)


@pytest.mark.sanitized
@pytest.mark.parametrize("how", ["shrinks", "is written over", "grows"])
def test_a_file_changes_in_place(zc, folder_place, how):
    """No new inode: the open handle has the old bytes or ESTALE, never others."""
    old = make_bytes(40 * MIB, how)
    folder_place.put("x", old)
    m = folder_place.mount(zc, "--metadata-ttl", "minimal")
    fd = os.open(m.join("x"), os.O_RDONLY)
    try:
        assert os.pread(fd, 65536, 0) == old[:65536]
        with open(real_path(folder_place, "x"), "r+b") as f:
            if how == "shrinks":
                f.truncate(MIB)
            elif how == "grows":
                f.seek(0, os.SEEK_END)
                f.write(b"more")
            else:
                f.write(bytes(len(old)))
        with pytest.raises(OSError) as e:
            for at in range(len(old) - 65536, 0, -3 * MIB):  # where read-ahead has not been
                assert os.pread(fd, 65536, at) == old[at:at + 65536]
        assert e.value.errno == errno.ESTALE
    finally:
        os.close(fd)
    with open(real_path(folder_place, "x"), "rb") as f:
        assert m.read("x") == f.read()


def test_a_folder_that_may_not_be_read(zc, folder_place):
    """For a daemon to which modes mean something; what it may read is read, and the rest when it may."""
    files = folder_place.fill(lambda prefix: {"open/f": b"open", "shut/f": b"shut", "open/g": b"no"})
    m = folder_place.mount(zc, "--metadata-ttl", "minimal",
                           prefix=["setpriv", "--bounding-set", "-dac_override,-dac_read_search"])
    os.chmod(real_path(folder_place, "shut"), 0)
    os.chmod(real_path(folder_place, "open/g"), 0)
    try:
        for what in (lambda: os.listdir(m.join("shut")), lambda: m.read("shut/f"), lambda: m.read("open/g")):
            with pytest.raises(PermissionError):
                what()
        assert m.read("open/f") == files["open/f"]
        assert sorted(os.listdir(m)) == ["open", "shut"]
    finally:
        os.chmod(real_path(folder_place, "shut"), 0o755)
        os.chmod(real_path(folder_place, "open/g"), 0o644)
    same(read_all(m), files)


@pytest.mark.sanitized
def test_the_file_system_below_a_folder_goes_away(zc, folder_place):
    """Killed, it fails at once what is not cached, and only that; and the mount can be undone."""
    files = folder_place.fill(lambda prefix: {n: make_bytes(size, n) for n, size in
                                           (("cached", 9 * MIB), ("cold", 9 * MIB), ("open", 48 * MIB))})
    below = folder_place.mount(zc)
    m = zc.mount(f"file://{below.path}", "--metadata-ttl", "indefinite")
    os.listdir(m.path)
    assert m.read("cached") == files["cached"]
    with open(m.join("open"), "rb", buffering=0) as f:
        assert f.read(4096) == files["open"][:4096]
        below.kill()
        began = time.monotonic()
        for what in (lambda: m.read("cold"), lambda: os.pread(f.fileno(), 4096, 47 * MIB)):
            with pytest.raises(OSError) as e:
                what()
            assert e.value.errno == errno.EIO
        assert time.monotonic() - began < 20
        assert m.read("cached") == files["cached"]
    assert f"{below.path}/cold" in zc.log_tail(), "nobody was told"
    began = time.monotonic()
    assert m.umount().returncode == 0
    assert time.monotonic() - began < 15
    subprocess.run(["umount", below.path], check=True)
