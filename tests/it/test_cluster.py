# SPDX-License-Identifier: Apache-2.0
"""Nodes in network namespaces of their own, one S3 server: what the store is asked for, and what happens
when nodes come, go, freeze and lose sight of each other."""

import base64
import json
import os
import random
import signal
import subprocess
import sys
import time
import zlib

import pytest

from cluster import Cluster, Data, Net, Reader, finish, read_all
from zcache import wait_for


@pytest.fixture(scope="module")
def data(base):
    return Data(os.path.join(base, "cluster-data"))


@pytest.fixture
def make(zc, work, data):
    """make(nodes, ...) -> a cluster whose nodes are not started yet, over a store with `data`."""
    made = []

    def build(n, rate=None, wide=False, **kw):
        net = Net(n, rate, wide)
        made.append(net)
        net.__enter__()
        store = net.store(os.path.join(work, "store"))
        made.append(store)
        net.upload(store, "data", data.folder)
        return Cluster(zc, net, store, "data", **kw)

    yield build
    try:
        zc.finish()  # before the store and the wires go
    finally:
        for m in reversed(made):
            m.stop() if hasattr(m, "stop") else m.down()


def is_slow(cluster):
    """Under a sanitizer nodes are late for each other all the time: what is read twice then says nothing."""
    return cluster.zc.sanitizer_library() is not None


# What a node that was kept waiting asked once more.
TWICE = ("hedges", "direct", "late")


class Store:
    """What the store gave since this was made."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.gets0, self.bytes0 = cluster.gets(), cluster.net.sent("store")
        self.twice0 = all_peers(cluster, *TWICE)

    @property
    def gets(self):
        return self.cluster.gets() - self.gets0

    @property
    def bytes(self):
        return self.cluster.net.sent("store") - self.bytes0


def all_peers(cluster, *names):
    return sum(cluster.peers(i)[name] for i in cluster.nodes for name in names)


def nothing_from(store):
    """All of it came from the nodes. What was asked twice, because a machine that is busy kept a node waiting, may
    have come from the store, but cannot be more than the budget for that."""
    if is_slow(store.cluster):
        return
    twice = all_peers(store.cluster, *TWICE) - store.twice0
    assert store.gets <= twice, (store.gets, twice)


@pytest.mark.parametrize("n", [3, 7])
def test_each_byte_is_read_from_the_store_once(make, data, n):
    """All nodes read all files at once, each in an order of its own."""
    cluster = make(n)
    nodes = cluster.start_all()
    store = Store(cluster)
    read_all(nodes, data)
    assert data.bytes <= store.bytes <= 1.05 * data.bytes, (store.bytes, data.bytes)
    assert store.gets <= 1.05 * data.chunks, (store.gets, data.chunks)
    assert all_peers(cluster, "bytes_in") > 0.9 * (n - 1) * data.bytes
    assert all_peers(cluster, "bad_sums") == 0
    before = Store(cluster)
    read_all(nodes, data)
    assert before.gets == 0  # each has its own copy


def test_all_want_the_same_cold_file(make, data):
    """One GET a chunk; done no later than without peers, on links of equal width."""
    cluster = make(7, rate="400mbit")
    nodes = cluster.start_all()
    store = Store(cluster)
    began = time.monotonic()
    read_all(nodes, data, paths=["large/0"])
    with_peers = time.monotonic() - began
    chunks = data.sizes["large/0"] / (4 << 20)
    assert store.gets <= chunks, (store.gets, chunks)
    # What was asked twice, since a machine that is busy kept a node waiting, is a part of two chunks at most.
    twice = all_peers(cluster, "hedges", "direct", "late")
    assert store.bytes <= 1.05 * data.sizes["large/0"] + twice * (8 << 20), (store.bytes, twice)
    alone = [cluster.zc.mount("s3://data", "--endpoint-url", cluster.store.url, "--force-path-style",
                              server=cluster.store, prefix=cluster.net.prefix(i)) for i in range(7)]
    began = time.monotonic()
    read_all(alone, data, paths=["large/0"])
    without = time.monotonic() - began
    print(f"with peers {with_peers:.2f} s, without {without:.2f} s")
    assert with_peers <= without, (with_peers, without)


@pytest.mark.sanitized
def test_a_node_is_killed_while_all_read(make, data):
    cluster = make(4)
    nodes = cluster.start_all()
    read_all(nodes[3:], data)  # everything lies with its owner now, and with the one that dies
    store = Store(cluster)
    readers = [Reader(m, data, i, epochs=2) for i, m in enumerate(nodes[:3])]
    for r in readers:
        r.start()
    wait_for(lambda: min(r.done for r in readers) > 20, 60)
    cluster.kill(3)
    finish(readers)
    slow = is_slow(cluster)
    assert max(r.longest for r in readers) < (20.0 if slow else 2.0), [r.longest for r in readers]
    # What the dead one owned was with it alone, but for what had been read of it by then.
    assert 0 < store.bytes, "nothing was lost with it"
    assert slow or store.bytes <= 1.3 * data.bytes / 4 + 64 * 2**20, (store.bytes, data.bytes)
    cluster.meet([0, 1, 2])


def test_a_frozen_node_costs_time_only(make, data):
    cluster = make(3)
    nodes = cluster.start_all()
    readers = [Reader(m, data, i) for i, m in enumerate(nodes[:2])]
    for r in readers:
        r.start()
    wait_for(lambda: min(r.done for r in readers) > 10, 60)
    os.kill(nodes[2].pid, signal.SIGSTOP)
    try:
        finish(readers, 120)
        assert max(r.longest for r in readers) < 5.0, [r.longest for r in readers]
    finally:
        os.kill(nodes[2].pid, signal.SIGCONT)
    cluster.meet(seconds=90)
    read_all(nodes, data)


def backing_files(mount):
    """Paths of the objects on the mount's disk, by size."""
    found = {}
    for top, _, names in os.walk(mount.cache):
        for name in names:
            path = os.path.join(top, name)
            if "/objects/" in path and os.path.getsize(path) > 0:
                found.setdefault(os.path.getsize(path), []).append(path)
    return found


def read_pieces(mount, data, path, pieces):
    with open(os.path.join(data.folder, path), "rb") as want, open(mount.join(path), "rb", buffering=0) as got:
        for off, n in pieces:
            want.seek(off)
            assert os.pread(got.fileno(), n, off) == want.read(n), (path, off, n)


@pytest.mark.sanitized
def test_disks_that_flip_bits_and_mix_up_files(make, data):
    """Whatever a node's disk makes of what it has, readers on other nodes get the right bytes, and the node drops
    what is wrong."""
    cluster = make(3)
    nodes = cluster.start_all()
    read_all(nodes[:2], data)
    cluster.zc.ok("free", nodes[2].path)
    for m in nodes[:2]:
        files = backing_files(m)
        for path in [p for of in files.values() for p in of]:
            with open(path, "r+b") as f:
                for at in range(1000, os.path.getsize(path), 4 << 20):
                    if f.seek(at) and (byte := f.read(1)):
                        f.seek(at)
                        f.write(bytes([byte[0] ^ 8]))
        one, other = max(files.items())[1][:2]  # large/0 and large/1: each has the other's bytes, but for the bits
        os.rename(one, one + ".x")
        os.rename(other, one)
        os.rename(one + ".x", other)
    rng = random.Random(3)
    for path in ("large/0", "large/1"):
        size = data.sizes[path]
        offs = [rng.randrange(size - 300_000) for _ in range(12)]
        read_pieces(nodes[2], data, path, [(o, rng.randrange(1, 300_000)) for o in offs] + [(996, 8), (0, 4 << 20)])
    read_all(nodes[2:], data)
    assert sum(m.status()["cache"]["bad_chunks"] for m in nodes[:2]) > 0


FLOOD = """
import os, socket, sys, time
end, held = time.monotonic() + float(sys.argv[2]), []
while time.monotonic() < end:
    try:
        s = socket.create_connection((sys.argv[1], 7947), 1)
        s.sendall(os.urandom(2000) if len(held) % 2 else b"POST /v1/ask/status HTTP/1.1\\r\\n\\r\\n")
        held.append(s)
    except OSError:
        time.sleep(0.01)
    if len(held) > 400:
        held.pop(0).close()
"""


def test_a_slow_node_and_a_flooded_one(make, data):
    cluster = make(4)
    nodes = cluster.start_all()[:3]
    large = ["large/0", "large/1"]
    read_all(nodes[:1], data, paths=large)
    slow = max((1, 2), key=lambda i: nodes[i].used())
    reader = 3 - slow
    assert nodes[slow].used() > 1 << 20 or nodes[reader].used() <= 1 << 20
    cluster.net.slow(slow, "1mbit")
    try:
        longest = read_all([nodes[reader]], data, paths=large)
        assert longest < (30 if is_slow(cluster) else 8), longest
    finally:
        cluster.net.unslow(slow)
    cluster.meet()
    store = Store(cluster)
    flood = subprocess.Popen([*cluster.net.prefix(3), sys.executable, "-c", FLOOD, cluster.net.address(0), "30"])
    try:
        time.sleep(1)
        longest = read_all([nodes[1]], data)
        assert longest < 20, longest
        assert flood.poll() is None
    finally:
        flood.kill()
        flood.wait()
    assert store.bytes < 1.2 * data.bytes


def forget(cluster, i, paths):
    """Node i has none of these files any more, and neither has the kernel for it."""
    mount = cluster.nodes[i]
    for path in paths:
        with open(mount.join(path), "rb") as f:
            os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    cluster.zc.ok("free", mount.path)


def test_a_node_that_gossips_but_cannot_be_asked(make, data):
    """A filter on the way lets gossip pass, but not what peers ask: at once, or without a word. Connections that
    are there fall silent then, and new ones are refused."""
    cluster = make(3)
    nodes = cluster.start_all()
    paths = sorted(p for p in data.sums if p.startswith(("small/3/", "small/5/", "large/0")))
    read_all(nodes[:2], data, paths=paths)  # the third has what it owns

    def given():
        """By the third, for all that the first reads again: how much that is, the ring and chance decide."""
        forget(cluster, 0, paths)
        before = cluster.peers(2)["bytes_out"]
        read_all(nodes[:1], data, paths=paths)
        return cluster.peers(2)["bytes_out"] - before

    usual = given()
    assert usual > 0
    for how in ("prohibit", "unreachable", "blackhole"):
        forget(cluster, 0, paths)
        before = cluster.peers(0)
        admit = cluster.net.refuse(how, 0, 2)
        try:
            reader = Reader(nodes[0], data, how, paths=paths)
            reader.start()
            aside = 0
            while reader.is_alive():
                aside = max(aside, cluster.peers(0)["aside"])
                time.sleep(0.02)
            finish([reader])
            after = cluster.peers(0)
            assert reader.longest < (20.0 if is_slow(cluster) else 5.0), (how, reader.longest)
            assert max(aside, after["aside"]) == 1, how
            # Those before the breaker opened, and its trials; not each that would have gone to it.
            failed = sum(after[name] - before[name] for name in ("failed", "late"))
            assert 0 < failed < 40, (how, before, after)
            assert [m["state"] for m in cluster.ring(0)["members"] if m["node"] == "node2"] == ["alive"], how
        finally:
            admit()

        wait_for(lambda: given() > 0.3 * usual, 60, 0.5, f"after {how} nothing comes from it any more")


def test_two_halves_and_one_again(make, data):
    cluster = make(4)
    nodes = cluster.start_all()
    readers = [Reader(m, data, i) for i, m in enumerate(nodes)]
    for r in readers:
        r.start()
    wait_for(lambda: min(r.done for r in readers) > 10, 60)
    cluster.net.cut([0, 1], [2, 3])
    try:
        finish(readers, 120)
        assert max(r.longest for r in readers) < 5.0, [r.longest for r in readers]
        cluster.meet([0, 1])
        cluster.meet([2, 3])
        read_all(nodes, data)
    finally:
        cluster.net.heal([0, 1], [2, 3])
    cluster.meet(seconds=120)
    store = Store(cluster)
    read_all(nodes, data)
    nothing_from(store)


@pytest.mark.parametrize("replicate", ["local", "owner-only"])
def test_an_empty_node_joins(make, data, replicate):
    """What it owns from now on it gets from those that had it; those that keep few copies keep these until then."""
    cluster = make(4, options=["--replicate", replicate])
    for i in range(3):
        cluster.start(i, size="256MiB")
    cluster.meet()
    began = time.monotonic()
    read_all([cluster.nodes[i] for i in range(3)], data)
    # Ten seconds after its start a node is one of a cluster that stands.
    time.sleep(max(0, began + 11 - time.monotonic()))
    store = Store(cluster)
    new = cluster.start(3, size="256MiB")
    cluster.meet()
    time.sleep(2)  # the others know what they own now, and what they do not
    read_all([new], data)
    twice = all_peers(cluster, *TWICE) - store.twice0  # a machine that is busy
    assert store.gets <= 0.01 * data.chunks + twice, (store.gets, data.chunks, twice)
    cluster.meet(seconds=600)


def test_a_node_comes_back_to_what_it_owned(make, data):
    cluster = make(3)
    nodes = cluster.start_all()
    before = {m["node"]: m["id"] for m in cluster.ring(0)["members"]}
    cluster.kill(2)
    read_all(nodes[:2], data)
    back = cluster.start(2, cache=nodes[2].cache, point=nodes[2].path)
    store = Store(cluster)
    read_all([back], data)
    assert store.gets <= 0.01 * data.chunks
    assert {m["node"]: m["id"] for m in cluster.ring(0)["members"] if m["standing"] == "in"} == before


def test_a_node_drains_while_others_read(make, data):
    """SIGTERM: what it owned the others get from it before it is gone, and no reader notices."""
    cluster = make(3, options=["--drain-time", "60s"])
    nodes = cluster.start_all()
    read_all(nodes[2:], data)
    store = Store(cluster)
    twice = sum(cluster.peers(i)[name] for i in (0, 1) for name in TWICE)
    readers = [Reader(m, data, i) for i, m in enumerate(nodes[:2])]
    for r in readers:
        r.start()
    wait_for(lambda: min(r.done for r in readers) > 10, 60)
    leaver = cluster.nodes.pop(2)
    os.kill(leaver.pid, signal.SIGTERM)
    finish(readers)
    # One that is late since the machine is busy costs what was asked of it.
    late = all_peers(cluster, *TWICE) - twice
    assert is_slow(cluster) or store.bytes <= 0.1 * data.bytes + late * (32 << 20), (
        store.bytes, data.bytes, late, all_peers(cluster, "former", "failed", "bad_sums"))
    os.kill(leaver.pid, signal.SIGTERM)  # the second one ends the drain
    leaver.ended(60)
    cluster.meet([0, 1])


def test_keys_are_exchanged(make, data):
    """In the steps that zcache(1) tells, node by node, while they run: at no moment do they refuse each other's
    bytes; who is more than one step behind is refused."""
    cluster = make(2)
    paths = sorted(p for p in data.sums if p.startswith("small/3/"))
    with open(cluster.key, encoding="ascii") as f:
        old = f.read().strip()
    new = base64.b64encode(os.urandom(32)).decode()
    files = [f"{cluster.key}.{i}" for i in range(2)]

    def keys(i, *lines):
        with open(files[i] + ".new", "w", encoding="ascii", opener=lambda p, m: os.open(p, m, 0o600)) as f:
            f.write("\n".join(lines) + "\n")
        os.rename(files[i] + ".new", files[i])

    for i in range(2):
        keys(i, old)
        cluster.key = files[i]
        cluster.start(i)
    cluster.meet()
    nodes = cluster.nodes
    read_all(list(nodes.values()), data, paths=paths)

    def check(step):
        for i in nodes:
            before = {j: cluster.peers(j) for j in nodes}
            forget(cluster, i, paths)
            read_all([nodes[i]], data, paths=paths)
            grown = {name: sum(cluster.peers(j)[name] - before[j][name] for j in nodes)
                     for name in ("bytes_in", "refused", "failed", *TWICE)}
            assert grown["bytes_in"] > 0 and grown["refused"] == 0, (step, i, grown)
            # What breaks because the machine is busy was late before.
            assert grown["failed"] <= sum(grown[name] for name in TWICE), (step, i, grown)

    for step in ([old, new], [new, old]):
        for i in nodes:
            keys(i, *step)
            time.sleep(2.5)  # the file is looked at every second
            check(step)
    keys(0, new)
    time.sleep(2.5)
    check([new])
    # One that skips a step: it trusts the other one, but is not trusted. Gossip takes longer to lose it.
    before, few = cluster.peers(0)["refused"], paths[:8]
    keys(1, old, new)

    def is_refused():
        forget(cluster, 1, few)
        read_all([nodes[1]], data, paths=few)
        return cluster.peers(0)["refused"] > before

    wait_for(is_refused, 20, 0.1, "it is still let in")
    keys(1, new)
    time.sleep(2.5)
    cluster.meet()
    wait_for(lambda: cluster.peers(1)["aside"] == 0, 20)
    check([new])


def test_addresses_that_are_told(make, data):
    """--advertise and --peer-port are where others look."""
    cluster = make(2)
    told = cluster.net.address(0)
    nodes = [cluster.start(0, "--advertise", told, "--peer-port", "9999", bind="0.0.0.0"), cluster.start(1)]
    cluster.meet()
    assert [m["address"] for m in cluster.ring(1)["members"] if m["node"] == "node0"] == [f"{told}:9999"]
    paths = sorted(p for p in data.sums if p.startswith("small/3/"))
    read_all(nodes[:1], data, paths=paths)
    store = Store(cluster)
    read_all(nodes[1:], data, paths=paths)
    nothing_from(store)
    assert cluster.peers(1)["bytes_in"] > 0


def test_without_the_key_there_is_nothing(make, data, work):
    """Neither a byte nor a word: no certificate, one of another authority, and an older TLS."""
    cluster = make(2)
    cluster.start_all()
    url = f"https://{cluster.net.address(0)}:7947/v1/data?source=x&path=a&version=v&size=1&off=0&len=1"
    other = os.path.join(work, "other")
    os.makedirs(other)
    from servers import s3
    _, cert, key = s3.make_authority(other)

    def ask(*options):
        r = subprocess.run([*cluster.net.prefix(1), "curl", "-sk", "-o", "/dev/null", "-w", "%{http_code}",
                            "--max-time", "10", *options, url], capture_output=True, text=True, check=False)
        return r.returncode, r.stdout

    for options in ([], ["--cert", cert, "--key", key], ["--tls-max", "1.2"]):
        rc, status = ask(*options)
        assert rc != 0 or status == "403", (options, rc, status)
    assert all(cluster.peers(i)["served"] == 0 for i in (0, 1))
    stranger = Cluster(cluster.zc, cluster.net, cluster.store, "data")
    stranger.key = os.path.join(work, "stranger.key")
    with open(stranger.key, "w", encoding="ascii") as f:
        f.write("A" * 43 + "=\n")
    cluster.nodes.pop(1).umount()
    stranger.start(1)
    wait_for(lambda: "no node of --join has answered" in cluster.zc.log_tail(), 30, 0.2, "nobody was told")
    assert stranger.ring(1)["nodes"] == 1
    assert "no other one is in sight" in cluster.zc.ok("status", stranger.nodes[1]).stdout
    assert [m for m in cluster.ring(0)["members"] if m["state"] == "alive" and not m["self"]] == []


RECORD = """
import json, select, socket, sys
tap = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
tap.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
tap.bind(("lo", 0x0800))
print("ready", flush=True)
to, port, flows = socket.inet_aton(sys.argv[1]), int(sys.argv[2]), {}
while tap in select.select([tap, sys.stdin], [], [])[0]:  # then none is left, and stdin says that it is over
    p = tap.recv(1 << 17)
    tcp = p[(p[0] & 15) * 4 : int.from_bytes(p[2:4], "big")]
    if p[9] != 6 or p[16:20] != to or int.from_bytes(tcp[2:4], "big") != port:
        continue
    flow, seq = flows.setdefault(tcp[:2], {}), int.from_bytes(tcp[4:8], "big")
    if tcp[13] & 2:
        flow["first"] = seq + 1
    elif "first" in flow:
        flow[(seq - flow["first"]) % 2**32] = tcp[(tcp[12] >> 4) * 4 :]
for flow in flows.values():
    said = b""
    if flow.pop("first", None) is not None:
        for at in sorted(flow):
            assert at <= len(said), "packets were lost"
            said += flow[at][len(said) - at :] if at + len(flow[at]) > len(said) else b""
    if said:
        print(said.hex())
"""

REPLAY = """
import socket, sys, time
flows = []
for line in sys.stdin:
    flows.append(socket.create_connection((sys.argv[1], int(sys.argv[2])), 10))
    flows[-1].sendall(bytes.fromhex(line))
until = time.monotonic() + 6
for s in flows:
    got, end = 0, "closed"
    try:
        while s.settimeout(max(0.1, until - time.monotonic())) or (n := len(s.recv(1 << 16))):
            got += n
    except ConnectionError:
        pass
    except TimeoutError:
        end = "open"
    print(got, end)
"""


@pytest.mark.parametrize("keyed", [True, False], ids=["key", "no-key"])
def test_what_peers_asked_is_sent_again(make, data, keyed):
    """Every byte of a node's connections to another one, recorded and sent again: with a cluster's key it is no
    question at all. Without one, which is for loopback alone, the same bytes give a file away and free others:
    so what is recorded would do it."""
    cluster = make(1, key=keyed)
    shell, asked = cluster.net.prefix(0), ("127.0.0.2", "7947")
    words = ["--cluster-key", cluster.key] if keyed else []
    paths = sorted(p for p in data.sums if p.startswith("small/3/"))
    tap = subprocess.Popen([*shell, sys.executable, "-c", RECORD, *asked], stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, text=True)
    try:
        assert tap.stdout.readline() == "ready\n"
        for i in range(2):
            cluster.nodes[i] = cluster.zc.mount(
                "s3://data", "--endpoint-url", cluster.store.url, "--force-path-style", "--bind", f"127.0.0.{1 + i}",
                "--join", "127.0.0.1,127.0.0.2", "--node-name", f"node{i}", *words, server=cluster.store, prefix=shell)
        cluster.meet()
        for i in (1, 0):
            read_all([cluster.nodes[i]], data, paths=paths)
        cluster.zc.ok("free", "--cluster", cluster.nodes[0].path)
        streams = tap.communicate("\n", timeout=30)[0]
    finally:
        tap.kill()
        tap.wait()
    assert tap.returncode == 0 and streams
    assert cluster.peers(1)["served"] > 0 and cluster.nodes[1].status()["cache"]["used_bytes"] == 0
    for request in (b"GET /v1/data", b"POST /v1/ask/free"):
        assert any(request in bytes.fromhex(said) for said in streams.split()) == (not keyed), request

    def state():
        s = cluster.nodes[1].status()
        return [s["cluster"]["peer"][name] for name in ("served", "bytes_out", "referred")], s["backend"]["gets"], \
            s["cache"]["used_bytes"]

    read_all([cluster.nodes[1]], data, paths=paths)
    before = None
    while before != (before := state()):  # what was read is on the disk
        time.sleep(0.5)
    r = subprocess.run([*shell, sys.executable, "-c", REPLAY, *asked], input=streams, capture_output=True, text=True,
                       check=True, timeout=120)
    answers = [(int(n), end) for n, end in map(str.split, r.stdout.splitlines())]
    assert len(answers) == len(streams.split())
    if not keyed:
        after = state()
        assert after[0] > before[0] and after[2] < before[2], (before, after, answers)
        return
    # The beginning of a handshake, which goes no further: the keys are others each time.
    assert all(n < 8192 and end == "closed" for n, end in answers), answers
    assert state() == before
    read_all([cluster.nodes[0]], data, paths=paths)
    assert state()[0] > before[0]  # who has the key is answered as before


def test_certificates_of_ones_own(make, data, work):
    def issue(name, ca=None):
        folder = os.path.join(work, name)
        os.makedirs(folder)
        from servers import s3
        return s3.make_authority(folder) if ca is None else None

    ca, cert, key = issue("one")
    cluster = make(2)
    cluster.options = ["--tls-ca", ca, "--tls-cert", cert, "--tls-key", key]
    nodes = cluster.start_all()
    read_all(nodes, data, paths=["large/0"])
    assert all_peers(cluster, "bytes_in") >= data.sizes["large/0"]

    def ask(*options):
        return subprocess.run([*cluster.net.prefix(1), "curl", "-sk", "--max-time", "10", "-X", "POST", *options,
                               f"https://{cluster.net.address(0)}:7947/v1/ask/status"], capture_output=True,
                              text=True, check=False).stdout

    assert "{" in ask("--cert", cert, "--key", key)  # an answer of the daemon, whatever it thinks of the question
    assert "{" not in ask()
    # It gives no ticket, so that there is no session to go on with, and no bytes ahead of a handshake.
    ticket = os.path.join(work, "ticket")
    said = subprocess.run([*cluster.net.prefix(1), "openssl", "s_client", "-connect", f"{cluster.net.address(0)}:7947",
                           "-cert", cert, "-key", key, "-sess_out", ticket, "-ign_eof"], capture_output=True,
                          text=True, check=False, timeout=60,
                          input="GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").stdout
    assert "TLSv1.3" in said and "HTTP/1.1 404" in said and not os.path.exists(ticket), said
    # A node with a certificate of another authority gossips, but gives and gets no bytes.
    cluster.nodes.pop(1).umount()
    ca2, cert2, key2 = issue("two")
    cluster.options = ["--tls-ca", ca2, "--tls-cert", cert2, "--tls-key", key2]
    other = cluster.start(1)
    served = cluster.peers(0)["served"]
    read_all([other], data, paths=["large/1"])
    assert cluster.peers(0)["served"] == served


def test_several_sources(make, data):
    """Nodes that show two sources share both, and how much is cached is told of each."""
    cluster = make(2, sources=["/photos=s3://data/small", "/shards=s3://data/large"])
    nodes = cluster.start_all()
    zc = cluster.zc
    zc.ok("warm", "--cluster", nodes[0].join("photos"))
    status = json.loads(zc.ok("status", "--cluster", "--cached", "--json", nodes[1].path).stdout)
    percent = {row["path"]: row["cached_percent"] for row in status["paths"]}
    assert set(percent) == {"/", "/photos", "/shards"}
    assert percent["/photos"] == 100 and percent["/shards"] == 0 and 0 < percent["/"] < 100
    text = zc.ok("status", "--cluster", "--cached", nodes[1].join("shards")).stdout
    assert "/shards" in text and "0.0% cached" in text
    store = Store(cluster)
    for path, crc in data.sums.items():
        if path.startswith("small/"):
            assert zlib.crc32(nodes[1].read("photos" + path[5:])) == crc, path
    assert store.gets == 0


@pytest.mark.sanitized
def test_commands_for_all_nodes(make, data):
    cluster = make(3)
    nodes = cluster.start_all()
    zc = cluster.zc
    store = Store(cluster)
    zc.ok("warm", "--cluster", nodes[0].path)
    slow = is_slow(cluster)
    assert slow or store.gets <= 1.05 * data.chunks
    assert slow or data.bytes <= store.bytes <= 1.05 * data.bytes
    status = json.loads(zc.ok("status", "--cluster", "--cached", "--json", nodes[1].path).stdout)
    assert status["paths"][0]["cached_percent"] == 100
    assert status["total"]["bytes"]["store"] == pytest.approx(data.bytes, rel=0.5 if slow else 0.05)
    assert {m["status"]["version"] for m in status["members"]} != set()
    text = zc.ok("status", "--cluster", nodes[0].path).stdout
    assert "node0 *" in text and "node2" in text
    store = Store(cluster)
    read_all(nodes, data)
    nothing_from(store)
    zc.ok("free", "--cluster", nodes[2].path)
    wait_for(lambda: sum(m.used() for m in nodes) < 0.1 * data.bytes, 30,
             message="space did not come back")


def test_nothing_of_others_holds_an_unmount_up(make, data):
    """Neither a job that another node began here nor a question to one that does not answer."""
    cluster = make(3, rate="20mbit")
    nodes = cluster.start_all()

    def start(*words):
        return subprocess.Popen([cluster.zc.binary, *words, nodes[0].path], env=cluster.zc.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                                stderr=subprocess.DEVNULL)

    warm = start("warm", "--cluster")
    wait_for(lambda: min(m.used() for m in nodes) > 2 << 20, 60)
    assert nodes[1].umount().returncode == 0  # in the middle of its part
    del cluster.nodes[1]
    os.kill(nodes[2].pid, signal.SIGSTOP)
    try:
        free = start("free", "--cluster")
        time.sleep(1)
        assert free.poll() is None  # it waits for the frozen one
        began = time.monotonic()
        assert nodes[0].umount().returncode == 0
        assert time.monotonic() - began < 40  # the question has a minute
        del cluster.nodes[0]
        assert free.wait(30) != 0
        assert warm.wait(30) != 0
    finally:
        os.kill(nodes[2].pid, signal.SIGCONT)


def test_owner_only_keeps_few_copies(make, data):
    cluster = make(3, options=["--replicate", "owner-only"])
    nodes = cluster.start_all(size="256MiB")
    read_all(nodes, data)
    caches = [m.status()["cache"] for m in nodes]
    # A twentieth, and what was open at the end.
    assert max(c["spare_bytes"] for c in caches) <= 0.05 * (256 << 20) + data.sizes["large/0"], caches
    copies = 0.05 * (256 << 20) + data.sizes["large/0"]
    assert sum(c["used_bytes"] for c in caches) <= 1.02 * data.bytes + 3 * copies, caches


def test_what_is_hot_is_given_by_several(make, data):
    """One file that all want again and again, kept by its owner alone: its load is shared out."""
    cluster = make(5, options=["--replicate", "owner-only"])
    nodes = cluster.start_all(size="512MiB")
    path = "large/0"
    read_all(nodes[:1], data, paths=[path])  # one alone: the owners fetch, nobody is late
    store = Store(cluster)
    before = {i: cluster.peers(i)["bytes_out"] for i in cluster.nodes}
    owners = {i for i in cluster.nodes if nodes[i].status()["backend"]["bytes"] > 0}
    for _ in range(8):
        for i, m in enumerate(nodes):
            if i not in owners:
                cluster.zc.ok("free", m.join(path))
                with open(m.join(path), "rb") as f:  # the kernel has it, too
                    os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        read_all(nodes, data, paths=[path])
    nothing_from(store)
    given = {i: cluster.peers(i)["bytes_out"] - before[i] for i in cluster.nodes}
    assert all_peers(cluster, "hot") > 0 and all_peers(cluster, "replicas") > 0, given
    assert sum(n > 0 for i, n in given.items() if i not in owners) > 0, (given, owners)
