# SPDX-License-Identifier: Apache-2.0
"""What is measured. Each group sets up what its lines need and goes round by round.

Warm: zcache has it all, the page cache is dropped before each run, of both sides. Hot: the page cache
has it. Cold: zcache has nothing, the server has it in its page cache, so that the store is as fast
as this machine lets it be. Dirty pages of one run are written before the next begins, and files are
removed outside the measured time.
"""

import functools
import os
import random
import shutil
import subprocess
import time

from .data import copy_tree, keys_of, read_all
from .machine import (
    SERVER_HOST, ShapedLink, available_memory, drop_caches, drop_pages, s3, touch_memory, wait_in_namespace)
from .measure import Line

MIB, GIB = 1 << 20, 1 << 30
LINK = "2gbit"
SETTLED = 3 * GIB  # more than a cold round fills

LINES = [
    Line("warm-large-1", "warm 1 GiB, 1 reader, of native", "MiB/s", ">=", 0.95),
    Line("warm-large-4", "warm 1 GiB, 4 readers, of native", "MiB/s", ">=", 0.95),
    Line("warm-large-mmap", "warm 1 GiB through mmap, of native", "MiB/s"),
    Line("hot-large-1", "hot 1 GiB, 1 reader, of native", "MiB/s", ">=", 0.95),
    Line("hot-large-4", "hot 1 GiB, 4 readers, of native", "MiB/s", ">=", 0.95),
    Line("warm-random", "warm random 4 KiB, p50, of native", "us", "<=", 1.15),
    Line("warm-cpu", "daemon CPU for a warm GiB", "s", "<=", 0.02, ratio=False),
    Line("warm-small", "warm small files, shuffled, 4 threads, of native", "files/s", ">=", 0.85),
    Line("warm-small-names", "the same, names and inodes dropped as well", "files/s"),
    Line("hot-small", "hot small files, shuffled, 4 threads, of native", "files/s", ">=", 0.4),
    Line("cold-large-2gbit", "cold 1 GiB over 2 Gbit/s, of parallel GETs", "MiB/s", ">=", 0.95),
    Line("cold-large", "cold 1 GiB on loopback, of download to the disk", "MiB/s", ">=", 0.9),
    Line("cold-large-cpu", "daemon CPU for a cold GiB", "s", ratio=False),
    Line("cold-large-uring", "the same over io_uring, of download to the disk", "MiB/s"),
    Line("cold-large-uring-cpu", "daemon CPU for a cold GiB over io_uring", "s", ratio=False),
    Line("cold-small", "cold small files, 4 readers, of download with 4", "files/s", ">=", 0.7),
    Line("cold-small-cpu", "daemon CPU for a cold small file", "ms", ratio=False),
    Line("warm-command", "zcache warm of small files, of download with 32", "files/s", ">=", 0.9),
    Line("latency", "small files, 20 ms to the store, of 0 ms, after warm", "files/s", ">=", 0.95),
    Line("latency-requests", "requests to the store in these reads", "requests", "<=", 0,
         ratio=False),
    Line("rss", "daemon's peak RSS in all of the above", "MiB", "<=", 256, ratio=False),
    Line("million-mount", "mount of a bucket with 1,000,000 keys", "s", "<=", 1, ratio=False),
    Line("million-walk", "walk of its 1,000 folders, with lstat", "s", ratio=False),
    Line("million-rss", "daemon's peak RSS in that walk", "MiB", "<=", 300, ratio=False),
    Line("folder", "ls -l of 100,000 keys, of the raw listing's time", "s", "<=", 1.3),
]

GROUPS = {}


def group(*names):
    def note(function):
        GROUPS[function] = names
        return function
    return note


def native_copy(bench, bucket):
    """The bucket's files on the disk of the cache, in the same folders."""
    path = os.path.join(bench.scratch, "native-" + bucket)
    if not os.path.exists(path):
        copy_tree(bench.data.folder(bucket), path)
        os.sync()
    return path


def keep_hot(bench, bucket):
    """The store's side of a cold run comes from its page cache."""
    read_all(bench.data.folder(bucket))


def settle():
    """Both sides of a cold round begin alike: nothing left to write, and free memory that is there."""
    os.sync()
    touch_memory(min(SETTLED, available_memory() // 2))


class FilesRead:
    """files/s of readers over a shuffled list, the same order for both sides of a round."""

    def __init__(self, bench, keys):
        self.bench, self.keys = bench, keys
        self.list = os.path.join(bench.scratch, "keys")
        self.shuffle(0)

    def shuffle(self, seed):
        order = list(self.keys)
        random.Random(seed).shuffle(order)
        with open(self.list, "w", encoding="ascii") as f:
            f.writelines(k + "\n" for k in order)

    def read(self, folder, *options, threads=4):
        r = self.bench.tools.readers("small", "-t", threads, "-s", 0, *options, folder, self.list)
        return r["files"] / r["seconds"]

    def sum(self, folder):
        return self.bench.tools.readers("small", "-t", 2, "-c", folder, self.list)["sum"]


def rate(result):
    return result["bytes"] / result["seconds"] / MIB


# ---- warm and hot ----

@group("warm-large-1", "warm-large-4", "warm-large-mmap", "hot-large-1", "hot-large-4",
       "warm-random", "warm-cpu")
def warm_large(bench, lines):
    native = os.path.join(native_copy(bench, "large"), "large.bin")
    readers = bench.tools.readers
    with bench.server() as server, bench.mount(server, "large") as m:
        m.warm()
        ours = os.path.join(m.path, "large.bin")
        bench.check(readers("seq", "-c", native)["sum"], readers("seq", "-c", ours)["sum"])

        def cpu_of(path, *options):
            before = m.cpu()
            r = readers(*options, path)
            if "seq" in options:
                lines.add("warm-cpu", (m.cpu() - before) / (r["bytes"] / GIB))
            return r

        for n in bench.rounds():
            for name, options in (("warm-large-1", ("seq",)), ("warm-large-4", ("seq", "-t", 4)),
                                  ("warm-large-mmap", ("mmap",))):
                lines.pair(name, lambda o=options: rate(readers(*o, native)),
                           lambda o=options: rate(cpu_of(ours, *o)), drop_caches,
                           rehearse=True)
            options = ("rand", "-s", n + 1, "-n", bench.data.sizes.random_reads)
            lines.pair("warm-random", lambda o=options: readers(*o, native)["p50_us"],
                       lambda o=options: readers(*o, ours)["p50_us"], drop_caches)
        drop_caches()
        readers("seq", native)
        readers("seq", ours)
        for n in bench.rounds():
            for name, options in (("hot-large-1", ("seq", "-r", 16)),
                                  ("hot-large-4", ("seq", "-r", 32, "-t", 4))):
                lines.pair(name, lambda o=options: rate(readers(*o, native)),
                           lambda o=options: rate(readers(*o, ours)))


@group("hot-small")
def hot_small(bench, lines):
    native = native_copy(bench, "small")
    files = FilesRead(bench, keys_of(native))
    with bench.server() as server, bench.mount(server, "small") as m:
        m.warm()
        bench.check(files.sum(native), files.sum(m.path))
        files.read(native)
        files.read(m.path)
        for n in bench.rounds():
            files.shuffle(n)
            lines.pair("hot-small", lambda: files.read(native, "-r", 3),
                       lambda: files.read(m.path, "-r", 3))


@group("warm-small", "warm-small-names")
def warm_small(bench, lines):
    native = native_copy(bench, "small")
    files = FilesRead(bench, keys_of(native))
    with bench.server() as server, bench.mount(server, "small") as m:
        m.warm()
        bench.check(files.sum(native), files.sum(m.path))
        for n in bench.rounds():
            files.shuffle(n)
            lines.pair("warm-small", lambda: files.read(native), lambda: files.read(m.path),
                       drop_pages, rehearse=True)
            lines.pair("warm-small-names", lambda: files.read(native), lambda: files.read(m.path),
                       drop_caches, rehearse=True)


@group("latency", "latency-requests")
def latency(bench, lines):
    files = FilesRead(bench, keys_of(bench.data.folder("small")))
    with bench.server() as server:
        with s3.FaultProxy(server) as proxy, bench.mount(server, "small") as near, \
                bench.mount(server, "small", url=proxy.url) as far:
            near.warm()
            proxy.delay(20)
            far.warm("-p", "256")
            requests = proxy.stats()["requests"]
            for n in bench.rounds():
                files.shuffle(n)
                lines.pair("latency", lambda: files.read(near.path), lambda: files.read(far.path),
                           drop_caches, rehearse=True)
            lines.add("latency-requests", proxy.stats()["requests"] - requests)


# ---- cold ----

def cold_read(bench, server, note_cpu, **options):
    """MiB/s of one reader over a file that the cache does not have."""
    with bench.mount(server, "large", **options) as m:
        path = os.path.join(m.path, "large.bin")
        before = m.cpu()
        r = bench.tools.readers("seq", path)
        if note_cpu:
            time.sleep(0.2)  # what the daemon still has to do counts
            note_cpu((m.cpu() - before) / (r["bytes"] / GIB))
        if bench.first("large"):
            source = os.path.join(bench.data.folder("large"), "large.bin")
            bench.check(bench.tools.readers("seq", "-c", source)["sum"],
                        bench.tools.readers("seq", "-c", path)["sum"])
        return rate(r)


@group("cold-large", "cold-large-cpu", "cold-large-uring", "cold-large-uring-cpu")
def cold_large(bench, lines):
    bucket = bench.data.bucket("large")
    out = os.path.join(bench.scratch, "download.bin")
    with bench.server() as server:
        keep_hot(bench, "large")

        def download():
            r = bench.tools.rawget(server, "range", "-k", 8, "-t", 2, "-w", 256,
                                   f"{server.url}/{bucket}/large.bin", out)
            return rate(r)

        # Over the device, as a mount does unless the kernel's switch is on, and over the rings.
        for _ in bench.rounds():
            for name, uring in (("cold-large", "off"), ("cold-large-uring", "on")):
                def ours(name=name, uring=uring):
                    return cold_read(bench, server, functools.partial(lines.add, name + "-cpu"),
                                     uring=uring)

                lines.pair(name, download, ours, settle, lambda: remove(out))


@group("cold-large-2gbit")
def cold_shaped(bench, lines):
    bucket = bench.data.bucket("large")
    with ShapedLink(LINK) as link:
        client = link.namespace("client")
        with bench.server(host=SERVER_HOST, prefix=link.namespace("server")) as server:
            wait_in_namespace(client, server.host, server.port)
            keep_hot(bench, "large")

            def download():
                r = bench.tools.rawget(server, "range", "-H", "-k", 8,
                                       f"{server.url}/{bucket}/large.bin", prefix=client)
                return rate(r)

            for _ in bench.rounds():
                lines.pair("cold-large-2gbit", download,
                           lambda: cold_read(bench, server, None, prefix=client), os.sync)


def download_list(bench, server, files, connections):
    """files/s of the reference client, each object into a file of its own."""
    out = os.path.join(bench.scratch, "download")
    os.makedirs(out)
    r = bench.tools.rawget(server, "list", "-k", connections, "-t", 2,
                           f"{server.url}/{bench.data.bucket('small')}", files.list, out)
    return r["objects"] / r["seconds"]


@group("cold-small", "cold-small-cpu")
def cold_small(bench, lines):
    files = FilesRead(bench, keys_of(bench.data.folder("small")))
    out = os.path.join(bench.scratch, "download")
    with bench.server() as server:
        keep_hot(bench, "small")

        def ours():
            with bench.mount(server, "small") as m:
                before = m.cpu()
                speed = files.read(m.path)
                time.sleep(0.2)
                lines.add("cold-small-cpu", (m.cpu() - before) * 1000 / len(files.keys))
                if bench.first("small"):
                    bench.check(files.sum(bench.data.folder("small")), files.sum(m.path))
                return speed

        for n in bench.rounds():
            files.shuffle(n)
            lines.pair("cold-small", lambda: download_list(bench, server, files, 4), ours,
                       settle, lambda: remove(out))


@group("warm-command")
def warm_command(bench, lines):
    files = FilesRead(bench, keys_of(bench.data.folder("small")))
    out = os.path.join(bench.scratch, "download")
    with bench.server() as server:
        keep_hot(bench, "small")

        def ours():
            with bench.mount(server, "small") as m:
                return len(files.keys) / m.warm()

        for n in bench.rounds():
            files.shuffle(n)
            lines.pair("warm-command", lambda: download_list(bench, server, files, 32), ours,
                       settle, lambda: remove(out))


# ---- metadata ----

@group("million-mount", "million-walk", "million-rss")
def million(bench, lines):
    with bench.server() as server:
        for _ in bench.rounds():
            with bench.mount(server, "million") as m:
                lines.add("million-mount", m.mount_seconds)
        with bench.mount(server, "million", counts=False) as m:
            r = bench.tools.readers("walk", m.path)
            want = bench.data.sizes.million + bench.data.sizes.million_dirs
            bench.check(want, r["files"])
            lines.add("million-walk", r["seconds"])
            lines.add("million-rss", m.note_rss() / MIB)


@group("folder")
def folder(bench, lines):
    bucket = bench.data.bucket("folder")
    with bench.server() as server:

        def raw():
            r = bench.tools.rawget(server, "ls", f"{server.url}/{bucket}", "all/")
            bench.check(bench.data.sizes.folder, r["objects"])
            return r["seconds"]

        def ours():
            with bench.mount(server, "folder", counts=False) as m:
                began = time.monotonic()
                out = subprocess.run(["ls", "-l", os.path.join(m.path, "all")], check=True,
                                     stdout=subprocess.PIPE, env={**os.environ, "LC_ALL": "C"})
                took = time.monotonic() - began
                bench.check(bench.data.sizes.folder + 1, out.stdout.count(b"\n"))
                return took

        for _ in bench.rounds():
            lines.pair("folder", raw, ours)


def remove(path):
    if os.path.isdir(path):
        shutil.rmtree(path)
    elif os.path.exists(path):
        os.unlink(path)

