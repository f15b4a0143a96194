# SPDX-License-Identifier: Apache-2.0
"""Requests over io_uring, whatever the machine's switch says: `auto` would follow it."""

import concurrent.futures
import os
import random

import pytest
from conftest import SWITCH, make_bytes
from test_crash import signal_while_reading
from test_read import same_tree

MIB = 1 << 20


def switch():
    with open(SWITCH, encoding="ascii") as f:
        return f.read().strip()


def refused(zc, tree):
    """Where the kernel cannot, the command says what it would take and what else can be done."""
    point, cache = zc.place()
    zc.fails("mount", "--io-uring", "on", "--cache-dir", cache, f"file://{tree[0]}", point,
             words=["kernel", r"6\.14", "--io-uring auto"])
    m = zc.mount(f"file://{tree[0]}")
    assert m.status()["io_uring"].startswith("off: ")


@pytest.mark.sanitized
def test_reads_over_io_uring(zc, stores, tree, switched_off):
    folder, sizes = tree
    if not switched_off:
        refused(zc, tree)
        return
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), "--io-uring", "on", server=server)
    assert m.status()["io_uring"] == "on" and switch() == "Y"

    # A large file, cold, from several threads at once, and pieces of it in no order.
    big = make_bytes(sizes["large/forty"], "large/forty")
    fd = os.open(m.join("large/forty"), os.O_RDONLY)

    def piece(i):
        r = random.Random(i)
        at, size = r.randrange(len(big)), r.choice([1, 4096, 65536, 3 * MIB])
        assert os.pread(fd, size, at) == big[at:at + size], (at, size)

    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            list(pool.map(piece, range(100)))
            whole = [pool.submit(m.read, "large/forty") for _ in range(4)]
            assert all(w.result() == big for w in whole)
    finally:
        os.close(fd)

    # Many small ones, cold; then all of the tree, warm and cold.
    small = [name for name in sizes if name.startswith("many/")]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda name: len(m.read(name)), small)) == [sizes[name] for name in small]
    same_tree(m, folder, sizes)
    assert m.umount().returncode == 0


@pytest.mark.sanitized
def test_served_by_the_daemon_over_io_uring(zc, tree, switched_off):
    """Without passthrough every read of what is cached comes to the rings."""
    if not switched_off:
        return  # refused, which the test above looks at
    folder, sizes = tree
    m = zc.mount(f"file://{folder}", "--io-uring", "on", "--passthrough", "off")
    for _ in range(2):
        same_tree(m, folder, sizes)
    s = m.status()
    assert s["io_uring"] == "on" and s["fuse"]["opens_passthrough"] == 0
    assert s["fuse"]["read_bytes"] >= sum(sizes.values())


@pytest.mark.sanitized
def test_auto_follows_the_switch(zc, stores, tree, switched_off):
    server = stores.get("versitygw")
    source = "s3://" + stores.bucket(server, "tree", tree[0])
    m = zc.mount(source, server=server)
    words = m.status()["io_uring"]
    assert words.startswith("off: ") and ("--io-uring on" in words or not switched_off), words
    if not switched_off:
        return
    with open(SWITCH, "w", encoding="ascii") as f:
        f.write("Y")
    assert zc.mount(source, server=server).status()["io_uring"] == "on"
    # Threads that read a directory may stand still in the kernel.
    assert "stands still" in zc.mount(f"file://{tree[0]}").status()["io_uring"]


@pytest.mark.sanitized
def test_signal_while_reading(zc, stores, tree, switched_off):
    """The threads of the rings end between two requests, not inside one."""
    if switched_off:
        signal_while_reading(zc, stores, stores.get("versitygw"), tree, "--io-uring", "on")
    else:
        refused(zc, tree)
