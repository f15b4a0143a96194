# SPDX-License-Identifier: Apache-2.0
"""The parts of the machine that the bench handles: its tools, the page cache, servers and mounts."""

import json
import mmap
import os
import shutil
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TESTS = os.path.dirname(HERE)
sys.path.insert(0, TESTS)

from servers import s3  # noqa: E402  pylint: disable=wrong-import-position

SERVER_HOST = "10.201.0.2"  # of the shaped link


class BenchError(Exception):
    """Something that ends the bench, in words."""


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False, **options)
    if done.returncode:
        said = (done.stderr or done.stdout).strip() or f"status {done.returncode}"
        raise BenchError(f"{' '.join(map(str, command[:4]))} ...: {said[-2000:]}")
    return done.stdout


class Tools:
    """The C programs of the bench, compiled for this run."""

    def __init__(self, folder):
        cc = os.environ.get("CC") or "cc"
        flags = ["-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter",
                 "-pthread"]
        self.rawget_exe = os.path.join(folder, "rawget")
        self.readers_exe = os.path.join(folder, "readers")
        run([cc, *flags, "-o", self.rawget_exe, os.path.join(HERE, "rawget.c"),
             os.path.join(HERE, "sign.c"), "-lcurl", "-lcrypto", "-lxxhash"])
        run([cc, *flags, "-o", self.readers_exe, os.path.join(HERE, "readers.c"), "-lxxhash"])

    def readers(self, *arguments):
        return json.loads(run([self.readers_exe, *map(str, arguments)]))

    def rawget(self, server, *arguments, prefix=()):
        return json.loads(run([*prefix, self.rawget_exe, *map(str, arguments)],
                              env={**os.environ, **server.env()}))


def drop_pages():
    """The page cache goes; names and inodes stay, as they do where memory is short of pages only."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("1\n")


def drop_caches():
    """The page cache, and all names and inodes that nobody holds."""
    os.sync()
    with open("/proc/sys/vm/drop_caches", "w", encoding="ascii") as f:
        f.write("3\n")


def available_memory():
    with open("/proc/meminfo", encoding="ascii") as f:
        fields = dict(line.split(":") for line in f)
    return int(fields["MemAvailable"].split()[0]) * 1024


def touch_memory(size):
    """Takes that much memory and gives it back to the kernel. A virtual machine may have returned
    what is free to its host two seconds later, and who needs it next waits for every page of it."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE):
        pass


class Gateway(s3.Versitygw):
    """versitygw on the bench's data, without a log line for each request."""

    def __init__(self, folder, data, **options):
        super().__init__(folder, **options)
        self.data = data

    def command(self, binary):
        command, env = super().command(binary)
        return [command[0], "--quiet", *command[1:]], env


class ShapedLink:
    """A link of its own, shaped to a rate: tests/servers/shaped-link."""

    script = os.path.join(TESTS, "servers", "shaped-link")

    def __init__(self, rate):
        self.rate = rate
        self.env = {**os.environ, "ZC_LINK": f"zcb{os.getpid() % 10000}"}

    def namespace(self, side):
        return ["nsenter", f"--net=/run/netns/{self.env['ZC_LINK']}-{side}"]

    def __enter__(self):
        try:
            run([self.script, "up", self.rate], env=self.env)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        subprocess.run([self.script, "down"], env=self.env, check=False)


def wait_in_namespace(prefix, host, port):
    probe = f"import socket; socket.create_connection(({host!r}, {port}), 1)"
    for _ in range(200):
        if subprocess.run([*prefix, sys.executable, "-c", probe], check=False,
                          stderr=subprocess.DEVNULL).returncode == 0:
            return
        time.sleep(0.05)
    raise BenchError(f"nothing listens on {host}:{port}")


class Mount:
    """One mount of a bucket, with a cache of its own that starts empty."""

    seen = 0

    def __init__(self, bench, server, bucket, url=None, prefix=(), uring="on"):
        Mount.seen += 1
        self.bench, self.server, self.bucket, self.prefix = bench, server, bucket, prefix
        self.url, self.uring = url or server.url, uring
        self.folder = os.path.join(bench.scratch, f"mount{Mount.seen}")
        self.path = os.path.join(self.folder, "mnt")
        self.pid = None
        self.rss = 0
        self.mount_seconds = 0

    def zcache(self, *arguments, prefix=()):
        return run([*prefix, self.bench.zcache, *arguments],
                   env={**os.environ, **self.server.env(), "AWS_ENDPOINT_URL": self.url})

    def __enter__(self):
        os.makedirs(self.path)
        began = time.monotonic()
        try:
            self.zcache("mount", "--cache-dir", os.path.join(self.folder, "cache"),
                        "--io-uring", self.uring, "--metadata-ttl", "indefinite",
                        "--endpoint-url", self.url, "--force-path-style", *self.bench.mount_options,
                        f"s3://{self.bucket}", self.path, prefix=self.prefix)
            self.mount_seconds = time.monotonic() - began
            self.pid = self.status()["pid"]
        except BaseException:
            self.__exit__()
            raise
        return self

    def status(self):
        return json.loads(self.zcache("status", "--json", self.path))

    def warm(self, *options):
        """Seconds that it took."""
        began = time.monotonic()
        self.zcache("warm", *options, self.path)
        return time.monotonic() - began

    def cpu(self):
        """CPU seconds of the daemon so far. Each thread's own account is finer than clock ticks."""
        total = 0
        try:
            for task in os.listdir(f"/proc/{self.pid}/task"):
                with open(f"/proc/{self.pid}/task/{task}/schedstat", encoding="ascii") as f:
                    total += int(f.read().split()[0])
            return total / 1e9
        except FileNotFoundError:
            with open(f"/proc/{self.pid}/stat", encoding="ascii") as f:
                fields = f.read().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def note_rss(self):
        """Peak RSS so far, in bytes."""
        with open(f"/proc/{self.pid}/status", encoding="ascii") as f:
            for line in f:
                if line.startswith("VmHWM:"):
                    self.rss = int(line.split()[1]) * 1024
        return self.rss

    def __exit__(self, *_):
        try:
            if self.pid:
                self.note_rss()
            if os.path.ismount(self.path):
                self.zcache("umount", self.path)
        except (BenchError, OSError) as e:
            self.bench.say(f"unmounting: {e}")
            subprocess.run(["umount", "-l", self.path], check=False, stderr=subprocess.DEVNULL)
        wait_gone(self.pid)
        if not os.path.ismount(self.path):
            shutil.rmtree(self.folder, ignore_errors=True)


def wait_gone(pid, seconds=20):
    end = time.monotonic() + seconds
    while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < end:
        time.sleep(0.02)
