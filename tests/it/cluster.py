# SPDX-License-Identifier: Apache-2.0
"""Nodes that share a cache: each daemon in a network namespace of its own, all wired to a router that has a
namespace, too, with a real S3 server beside them.

    with Net(5) as net:                     # addresses 10.202.0.11 and on; the store has 10.202.0.2
        store = net.store(folder)
        net.upload(store, "data", folder)
        cluster = Cluster(zc, net, store, "data")
        a, b = cluster.start(0), cluster.start(1)
"""

import json
import os
import random
import subprocess
import sys
import threading
import time
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))

from servers import s3  # noqa: E402
from zcache import wait_for  # noqa: E402

STORE = "10.202.0.2"
PORT = 9000


def sh(*words, **kw):
    r = subprocess.run(words, check=False, capture_output=True, text=True, **kw)
    if r.returncode != 0:
        raise RuntimeError(f"{' '.join(words)}: {r.stderr}")
    return r.stdout


class Net:
    """`n` namespaces for nodes and one for the store, each with a wire to a router."""

    def __init__(self, n, rate=None, keep_store_wide=False):
        self.n, self.rate, self.wide = n, rate, keep_store_wide
        self.name = f"zc{os.getpid() % 100000}"
        self.router = f"{self.name}-router"
        self.made = []

    def ns(self, i):
        """Of node i, or of the store."""
        return f"{self.name}-{i}"

    def address(self, i):
        return STORE if i == "store" else f"10.202.0.{11 + i}"

    def prefix(self, i):
        return ["nsenter", f"--net=/run/netns/{self.ns(i)}"]

    def __enter__(self):
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def up(self):
        self.add(self.router)
        sh("ip", "netns", "exec", self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for i in ["store", *range(self.n)]:
            ns, address = self.ns(i), f"{self.address(i)}/32"
            self.add(ns)
            sh("ip", "-n", ns, "link", "add", "name", "wire", "type", "veth", "peer", "name", f"p{i}",
               "netns", self.router)
            sh("ip", "-n", ns, "addr", "add", address, "dev", "wire")
            sh("ip", "-n", ns, "link", "set", "wire", "up")
            sh("ip", "-n", self.router, "addr", "add", "10.202.0.1/32", "dev", f"p{i}")
            sh("ip", "-n", self.router, "link", "set", f"p{i}", "up")
            sh("ip", "-n", self.router, "route", "add", address, "dev", f"p{i}")
            sh("ip", "-n", ns, "route", "add", "10.202.0.1/32", "dev", "wire")
            sh("ip", "-n", ns, "route", "add", "default", "via", "10.202.0.1")
            if self.rate and not (i == "store" and self.wide):
                self.shape(ns, "wire")
                self.shape(self.router, f"p{i}")

    def slow(self, i, rate):
        """What node i sends goes out at this rate from now on; of a net without a rate."""
        sh("tc", "-n", self.ns(i), "qdisc", "replace", "dev", "wire", "root", "tbf", "rate", rate, "burst", "16k",
           "latency", "300ms")

    def unslow(self, i):
        sh("tc", "-n", self.ns(i), "qdisc", "del", "dev", "wire", "root")

    def shape(self, ns, dev):
        sh("tc", "-n", ns, "qdisc", "add", "dev", dev, "root", "handle", "1:", "htb", "default", "10")
        sh("tc", "-n", ns, "class", "add", "dev", dev, "parent", "1:", "classid", "1:10", "htb", "rate",
           self.rate, "burst", "512k", "cburst", "512k", "quantum", "200000")

    def add(self, ns):
        subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)
        sh("ip", "netns", "add", ns)
        self.made.append(ns)
        sh("ip", "-n", ns, "link", "set", "lo", "up")

    def down(self):
        for ns in self.made:
            subprocess.run(["ip", "netns", "del", ns], capture_output=True, check=False)
        self.made = []

    def __exit__(self, *_):
        self.down()

    def sent(self, i):
        """Bytes that this one's wire has carried away from it."""
        stats = json.loads(sh("ip", "-n", self.ns(i), "-s", "-j", "link", "show", "dev", "wire"))
        return stats[0]["stats64"]["tx"]["bytes"]

    def cut(self, one, other):
        """The two sides do not hear each other any more."""
        for a, b in [(one, other), (other, one)]:
            for i in a:
                for j in b:
                    sh("ip", "-n", self.ns(i), "route", "add", "blackhole", f"{self.address(j)}/32")

    def heal(self, one, other):
        for a, b in [(one, other), (other, one)]:
            for i in a:
                for j in b:
                    sh("ip", "-n", self.ns(i), "route", "del", "blackhole", f"{self.address(j)}/32")

    def refuse(self, how, i, j, port=7947):
        """From now on TCP of node i to this port of node j ends: by node i's own kernel, with EACCES ("prohibit") or
        EHOSTUNREACH ("unreachable"), or without a word, at the router ("blackhole"). All else goes its way."""
        ns = self.router if how == "blackhole" else self.ns(i)
        rule = ["pref", "100", "from", self.address(i), "to", self.address(j), "ipproto", "tcp", "dport", str(port)]
        if how != "blackhole":
            rule[2:4] = []  # a socket has no address of its own yet when its way is looked for
        sh("ip", "-n", ns, "rule", "add", *rule, how)
        return lambda: sh("ip", "-n", ns, "rule", "del", *rule, how)

    def store(self, folder, kind="versitygw"):
        return s3.KINDS[kind](folder, port=PORT, host=STORE, prefix=self.prefix("store")).start()

    def upload(self, store, bucket, folder):
        """From within the store's namespace, where alone it can be reached."""
        sh(*self.prefix("store"), "/usr/bin/python3", os.path.abspath(__file__), "upload", store.url, bucket,
           folder)


class Cluster:
    """Daemons of one cluster, by node number."""

    def __init__(self, zc, net, store, bucket, key=True, options=(), sources=None):
        self.zc, self.net, self.store, self.bucket = zc, net, store, bucket
        self.options = list(options)
        self.sources = sources or f"s3://{bucket}"
        self.nodes = {}
        self.key = os.path.join(zc.work, "cluster.key") if key else None
        if key and not os.path.exists(self.key):
            with open(self.key, "w", encoding="ascii") as f:
                f.write(sh("openssl", "rand", "-base64", "32"))
            os.chmod(self.key, 0o600)

    def start(self, i, *options, join=None, bind=None, **kw):
        """Node i, with all others as seeds, so that any may be the first."""
        join = [j for j in range(self.net.n) if j != i][:3] if join is None else join
        words = ["--bind", bind or self.net.address(i), "--node-name", f"node{i}", *self.options, *options]
        if join:
            words += ["--join", ",".join(self.net.address(j) for j in join)]
        if self.key:
            words += ["--cluster-key", self.key]
        self.nodes[i] = self.zc.mount(self.sources, "--endpoint-url", self.store.url,
                                      "--force-path-style", *words, server=self.store,
                                      prefix=self.net.prefix(i), **kw)
        return self.nodes[i]

    def start_all(self, *options, **kw):
        for i in range(self.net.n):
            self.start(i, *options, **kw)
        self.meet()
        return [self.nodes[i] for i in range(self.net.n)]

    def ring(self, i):
        return self.nodes[i].status()["cluster"]

    def meet(self, among=None, seconds=60):
        """Waits until these nodes see each other and nobody else, with the weights they will have."""
        among = sorted(self.nodes) if among is None else among

        def met():
            seen = [self.ring(i) for i in among]
            full = all(m["weight_bytes"] == m["nominal_bytes"] for s in seen for m in s["members"]
                       if m["standing"] == "in")
            return full and all(s["nodes"] == len(among) for s in seen) and \
                len({s["ring"] for s in seen}) == 1

        wait_for(met, seconds, 0.1, f"nodes {among} do not agree: "
                 f"{[(self.ring(i)['nodes'], self.ring(i)['ring']) for i in among]}")

    def peers(self, i):
        return self.ring(i)["peer"]

    def kill(self, i):
        self.nodes.pop(i).kill()

    def gets(self):
        return self.store.requests()["get"]


class Data:
    """Files with known sums: small ones, and some of several chunks."""

    def __init__(self, folder, small=300, large=2, large_mib=48):
        self.folder, self.sums, self.sizes = folder, {}, {}
        rng = random.Random(5)
        for i in range(small):
            self.add(f"small/{i % 10}/{i:04d}", rng.randbytes(rng.randrange(60_000, 150_000)))
        for i in range(large):
            self.add(f"large/{i}", rng.randbytes(large_mib << 20))

    def add(self, path, data):
        full = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "wb") as f:
            f.write(data)
        self.sums[path], self.sizes[path] = zlib.crc32(data), len(data)

    @property
    def bytes(self):
        return sum(self.sizes.values())

    @property
    def chunks(self):
        return sum(-(-s // (4 << 20)) for s in self.sizes.values())


class Reader(threading.Thread):
    """Reads all files of a mount in an order of its own, `epochs` times; errors, wrong bytes and the longest
    read or open are remembered."""

    def __init__(self, mount, data, seed, epochs=1, paths=None):
        super().__init__(daemon=True)
        self.mount, self.data, self.rng, self.epochs = mount, data, random.Random(seed), epochs
        self.paths = sorted(paths or data.sums)
        self.errors, self.longest, self.done, self.stop = [], 0.0, 0, False

    def run(self):
        for _ in range(self.epochs):
            self.rng.shuffle(self.paths)
            for path in self.paths:
                if self.stop:
                    return
                try:
                    self.read(path)
                except OSError as e:
                    self.errors.append(f"{path}: {e}")
                self.done += 1

    def read(self, path):
        crc, began = 0, time.monotonic()
        fd = os.open(os.path.join(self.mount.path, path), os.O_RDONLY)  # where a small file is waited for
        self.longest = max(self.longest, time.monotonic() - began)
        try:
            while True:
                began = time.monotonic()
                block = os.read(fd, 1 << 20)
                self.longest = max(self.longest, time.monotonic() - began)
                if not block:
                    break
                crc = zlib.crc32(block, crc)
        finally:
            os.close(fd)
        if crc != self.data.sums[path]:
            self.errors.append(f"{path}: wrong bytes")


def read_all(mounts, data, seconds=300, **kw):
    """All mounts read all files at once. -> the longest single read"""
    readers = [Reader(m, data, i, **kw) for i, m in enumerate(mounts)]
    for r in readers:
        r.start()
    finish(readers, seconds)
    return max(r.longest for r in readers)


def finish(readers, seconds=300):
    end = time.monotonic() + seconds
    for r in readers:
        r.join(max(0.1, end - time.monotonic()))
        assert not r.is_alive(), f"a reader of {r.mount} hangs after {r.done} files"
    bad = [e for r in readers for e in r.errors]
    assert not bad, bad[:10]


def main():
    _, what, url, bucket, folder = sys.argv
    assert what == "upload"
    import conftest
    server = s3.Versitygw(os.path.join(folder, "..", "client-only"), port=PORT, host=STORE)
    assert server.url == url
    s3.wait_for_port(PORT, host=STORE)
    conftest.upload(server.client(), bucket, folder)


if __name__ == "__main__":
    main()
