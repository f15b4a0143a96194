# SPDX-License-Identifier: Apache-2.0
"""Integration tests: the real daemon, real S3 servers, real mounts.

ZCACHE names the binary (default build/zcache).  Everything lies below one folder on a real disk
(ZCACHE_IT_DIR, default in the user's cache), because a cache refuses tmpfs.  A test that needs
something that is not there fails; nothing is skipped."""

import concurrent.futures
import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zlib

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from servers import hdfs, s3  # noqa: E402
from zcache import Zcache  # noqa: E402

ROOT = os.path.dirname(os.path.dirname(HERE))
STORES = ["versitygw", "minio"]
SWITCH = "/sys/module/fuse/parameters/enable_uring"


def pytest_configure(config):
    if os.geteuid() != 0:
        pytest.exit("the integration tests need root: they mount, fill disks and make namespaces", 3)


@pytest.fixture(scope="session")
def base():
    """A folder on a real disk for all that the session makes."""
    parent = os.environ.get("ZCACHE_IT_DIR") or os.path.join(s3.CACHE, "it")
    os.makedirs(parent, exist_ok=True)
    path = tempfile.mkdtemp(prefix="run-", dir=parent)
    yield path
    if not os.environ.get("ZCACHE_IT_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def work(base, request):
    """A folder for one test."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[:60]
    path = tempfile.mkdtemp(prefix=name + "-", dir=base)
    yield path
    if not os.environ.get("ZCACHE_IT_KEEP"):
        shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def switched_off():
    """The kernel's switch for io_uring is off, and afterwards as it was. Whether the kernel has one."""
    if not os.path.exists(SWITCH):
        yield False
        return
    with open(SWITCH, encoding="ascii") as f:
        before = f.read()
    with open(SWITCH, "w", encoding="ascii") as f:
        f.write("N")
    yield True
    with open(SWITCH, "w", encoding="ascii") as f:
        f.write(before)


@pytest.fixture
def zc(work):
    """The command under test; what it mounted is unmounted and checked at the end."""
    binary = os.environ.get("ZCACHE") or os.path.join(ROOT, "build", "zcache")
    z = Zcache(binary, work)
    yield z
    z.finish()


# ---------------------------------------------------------------- data


def make_bytes(size, seed):
    return random.Random(seed).randbytes(size)


MIB = 1 << 20
SIZES = {
    "empty": 0,
    "one": 1,
    "page-1": 4095,
    "page": 4096,
    "page+1": 4097,
    "small/a": 100_000,
    "small/b": 131_072,
    "chunk-1": 4 * MIB - 1,
    "chunk": 4 * MIB,
    "chunk+1": 4 * MIB + 1,
    "large/ten": 10 * MIB + 12345,
    "large/forty": 40 * MIB,
    "deep/" + "/".join(f"d{i}" for i in range(12)) + "/leaf": 1000,
    "with space/and %20 percent/a+b": 777,
    "unicode/日本語/žluťoučký kůň.txt": 333,
    "odd/#hash?query&amp=1;semi'quote\"": 55,
    "odd/back\\slash": 56,
    "odd/tab\tand\nnewline": 57,
    "odd/%2F%2f": 58,
    "odd/" + "n" * 255: 59,
    "odd/~tilde*star!(paren)": 60,
    "odd/.hidden": 61,
    "odd/...": 62,
}


@pytest.fixture(scope="session")
def tree(base):
    """A small tree with the sizes and names that break things -> (folder, {path: bytes length})."""
    folder = os.path.join(base, "tree")
    sizes = dict(SIZES)
    for i in range(300):
        sizes[f"many/{i % 10}/f{i:04d}.bin"] = 500 + i * 37
    for path, size in sizes.items():
        full = os.path.join(folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(make_bytes(size, path))
    return folder, sizes


@pytest.fixture(scope="session")
def images(base):
    """2,000 pictures in 20 classes -> (folder, manifest)."""
    folder = os.path.join(base, "images")
    subprocess.run(
        ["/usr/bin/python3", "-W", "ignore", os.path.join(ROOT, "tests/readers/gen_imagenet.py"), folder,
         "2000", "--classes", "20", "--mean-kb", "60"], check=True, stdout=subprocess.DEVNULL)
    return folder, folder + ".manifest.tsv"


def files_below(folder):
    for top, _, names in os.walk(folder):
        for name in names:
            yield os.path.relpath(os.path.join(top, name), folder)


def upload(client, bucket, folder, prefix=""):
    client.create_bucket(Bucket=bucket)

    def put(path):
        with open(os.path.join(folder, path), "rb") as f:
            client.put_object(Bucket=bucket, Key=prefix + path, Body=f.read())

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(put, files_below(folder)))


def sha256_of(path):
    h = hashlib.sha256()
    with open(path, "rb") as f:
        while block := f.read(MIB):
            h.update(block)
    return h.hexdigest()


def crc_of(path):
    with open(path, "rb") as f:
        return zlib.crc32(f.read())


# ---------------------------------------------------------------- stores


class Stores:
    """Servers of the session, started when first asked for, and the buckets in them."""

    def __init__(self, base):
        self.base, self.servers, self.buckets = base, {}, set()

    def get(self, kind, tls=False):
        if (kind, tls) not in self.servers:
            folder = os.path.join(self.base, f"{kind}-{'https' if tls else 'http'}")
            self.servers[kind, tls] = s3.KINDS[kind](folder, tls=tls).start()
        return self.servers[kind, tls]

    def bucket(self, server, name, folder):
        """A bucket that holds a copy of the folder; shared, so not to be changed."""
        if (server, name) not in self.buckets:
            upload(server.client(), name, folder)
            self.buckets.add((server, name))
        return name

    def stop(self):
        for server in self.servers.values():
            server.kill()


@pytest.fixture(scope="session")
def stores(base):
    s = Stores(base)
    yield s
    s.stop()


@pytest.fixture(params=STORES)
def server(request, stores):
    """Each store in turn, over plain http."""
    return stores.get(request.param)


@pytest.fixture(params=[(k, t) for k in STORES for t in (False, True)],
                ids=[f"{k}-{t}" for k in STORES for t in ("http", "https")])
def any_server(request, stores):
    """Each store in turn, over http and https."""
    return stores.get(*request.param)


@pytest.fixture(params=STORES)
def own_server(request, work):
    """A server of this test's own, which it may kill."""
    with s3.KINDS[request.param](os.path.join(work, "server")) as s:
        yield s


@pytest.fixture(scope="session")
def hdfs_cluster(base):
    """A NameNode and two DataNodes, for all that do not need one of their own: a start takes long. Whoever
    stops a daemon of it starts it again."""
    with hdfs.Cluster(os.path.join(base, "hdfs"), tls=True) as c:
        yield c


def pytest_collection_modifyitems(items):
    """What needs HDFS comes last, so that its daemons do not run beside all the rest."""
    items.sort(key=lambda i: bool({"hdfs_cluster", "simple"} & set(i.fixturenames)) or
               any(k in i.name for k in ("[webhdfs", "[httpfs", "[two")))


@pytest.fixture
def proxy(stores):
    """A fault proxy before the shared versitygw -> (proxy, server)."""
    server = stores.get("versitygw")
    with s3.FaultProxy(server) as p:
        yield p, server


_counter = [0]


@pytest.fixture
def new_bucket():
    """new_bucket(server, {key: bytes}) -> name of a bucket of this test's own."""
    made = []

    def make(server, objects=None):
        _counter[0] += 1
        name = f"own-{os.getpid()}-{_counter[0]}"
        client = server.client()
        client.create_bucket(Bucket=name)
        made.append((client, name))
        for key, data in (objects or {}).items():
            client.put_object(Bucket=name, Key=key, Body=data)
        return name

    return make
