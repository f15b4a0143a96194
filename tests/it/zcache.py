# SPDX-License-Identifier: Apache-2.0
"""The zcache command and its mounts, as tests use them."""

import errno
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time


def mounts_below(folder):
    """Mount points below a folder, deepest first."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as f:
        for line in f:
            point = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m.group(1), 8)), line.split(" ")[4])
            if point == folder or point.startswith(folder + "/"):
                found.append(point)
    return sorted(found, key=len, reverse=True)


def wait_for(what, seconds=20, step=0.02, message="it did not happen"):
    end = time.monotonic() + seconds
    while True:
        value = what()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{message} within {seconds} s")
        time.sleep(step)


def alive(pid):
    """Is a thread of it left? A killed process's first thread can be a zombie while others still end."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    for thread in threads:
        try:
            with open(f"/proc/{pid}/task/{thread}/stat", encoding="ascii", errors="replace") as f:
                if f.read().rsplit(")", 1)[1].split()[0] not in "ZX":
                    return True
        except OSError:
            pass  # this one is gone
    return False


class Failed(AssertionError):
    """A command that was to succeed did not."""


class Mount:
    """One mount. Its daemon's pid is known, so that a test can kill it."""

    def __init__(self, zc, source, path, cache, keep, process=None):
        self.zc, self.source, self.path, self.cache, self.keep = zc, source, path, cache, keep
        self.process = process  # with --foreground
        self.pid = self.status()["pid"]
        self.over = False

    def __fspath__(self):
        return self.path

    __str__ = __fspath__

    def join(self, *parts):
        return os.path.join(self.path, *parts)

    def read(self, path):
        with open(self.join(path), "rb") as f:
            return f.read()

    def read_frozen(self, store, paths):
        """Reads all of them at once while the store stands still -> {path: (error's name or None, seconds)}."""
        ended = {}

        def read(path):
            began, error = time.monotonic(), None
            try:
                self.read(path)
            except OSError as e:
                error = errno.errorcode[e.errno]
            ended[path] = error, time.monotonic() - began

        threads = [threading.Thread(target=read, args=(p,)) for p in paths]
        store.freeze()
        try:
            for t in threads:
                t.start()
            for t in threads:
                t.join(60)
        finally:
            store.thaw()
        return ended

    def status(self):
        return json.loads(self.zc.ok("status", "--json", self.path).stdout)

    def requests(self):
        """What the daemon sent to its store so far, retries included."""
        b = self.status()["backend"]
        return {k: b[k] for k in ("gets", "lists", "heads", "others")}

    def warm(self, *paths, **kw):
        return self.zc.ok("warm", *(self.join(p) for p in paths or [""]), **kw)

    def umount(self, *options):
        result = self.zc.run("umount", *options, self.path)
        if result.returncode == 0:
            self.ended()
        return result

    def ended(self, seconds=30):
        """The daemon is gone, and with it the mount, its process and (unless kept) its cache."""
        wait_for(lambda: not alive(self.pid), seconds, message=f"daemon {self.pid} did not end")
        if self.process:
            self.process.wait(seconds)
        assert self.path not in mounts_below(self.path), "the mount is still there"
        if not self.keep:
            # Who a node of a cluster is outlives its cache.
            left = [n for n in os.listdir(self.cache) if not n.endswith(".node")]
            assert left == [], f"left in the cache: {self.left()}"
        self.over = True

    def left(self):
        return sorted(glob.glob(self.cache + "/**", recursive=True))[:20]

    def kill(self):
        """kill -9: no clean-up of any kind. The dead mount stays."""
        os.kill(self.pid, signal.SIGKILL)
        if self.process:
            self.process.wait(20)
        wait_for(lambda: not alive(self.pid), message="a killed daemon lives")
        self.over = True

    def used(self):
        """Bytes that the cache's files take on the disk."""
        total = 0
        for top, _, names in os.walk(self.cache):
            for name in names:
                try:
                    total += os.lstat(os.path.join(top, name)).st_blocks * 512
                except FileNotFoundError:
                    pass
        return total


class Zcache:
    """Runs the binary; remembers what it mounted."""

    def __init__(self, binary, work):
        if not os.access(binary, os.X_OK):
            raise Failed(f"{binary} is missing: run scripts/build")
        self.binary, self.work, self.mounts, self.n = binary, work, [], 0
        self.logs = os.path.join(work, "logs")
        os.makedirs(self.logs, exist_ok=True)
        reports = os.path.join(self.logs, "sanitizer")
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("AWS_")}
        self.env["AWS_EC2_METADATA_DISABLED"] = "true"
        self.env["HOME"] = work  # no configuration of the person who runs the tests
        for name in ("ASAN_OPTIONS", "TSAN_OPTIONS", "UBSAN_OPTIONS"):
            self.env[name] = ":".join(filter(None, [os.environ.get(name), f"log_path={reports}"]))

    def run(self, *args, env=None, timeout=120, prefix=(), **kw):
        return subprocess.run([*prefix, self.binary, *map(str, args)], env={**self.env, **(env or {})},
                              stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout,
                              check=False, errors="replace", **kw)

    def sanitizer_library(self):
        """The sanitizer's run time that the binary links, or None."""
        out = subprocess.run(["ldd", self.binary], capture_output=True, text=True, check=True).stdout
        found = re.search(r"lib[at]san\.so\S* => (\S+)", out)
        return found.group(1) if found else None

    def ok(self, *args, **kw):
        r = self.run(*args, **kw)
        if r.returncode != 0:
            raise Failed(f"zcache {' '.join(map(str, args))}: status {r.returncode}\n{r.stdout}{r.stderr}"
                         f"{self.log_tail()}")
        return r

    def fails(self, *args, words=(), status=None, **kw):
        """The command fails, with a message on one or more lines that has each of the words."""
        r = self.run(*args, **kw)
        said = f"zcache {' '.join(map(str, args))}: status {r.returncode}\n{r.stdout}{r.stderr}"
        assert r.returncode not in (0, None), "it succeeded: " + said
        assert r.returncode > 0, "it crashed: " + said
        if status is not None:
            assert r.returncode == status, said
        assert r.stderr.strip(), "no message: " + said
        for word in [words] if isinstance(words, str) else words:
            assert re.search(word, r.stderr, re.I), f"no {word!r} in: {said}"
        return r

    def place(self, name=None):
        """A fresh mount point and cache folder."""
        self.n += 1
        name = name or f"m{self.n}"
        point, cache = os.path.join(self.work, name), os.path.join(self.work, name + ".cache")
        for d in (point, cache):
            os.makedirs(d, exist_ok=True)
        return point, cache

    def mount(self, source, *options, env=None, server=None, point=None, cache=None, keep=False,
              foreground=False, size="2GiB", prefix=()):
        """source: a source, or a list of words that name several."""
        if point is None:
            point, made = self.place()
            cache = cache or made
        words = [source] if isinstance(source, str) else list(source)
        options = ["--cache-dir", cache, "--cache-size", size, "--log-directory", self.logs, *options]
        if keep:
            options.append("--keep-cache")
        env = {**(server.env() if server else {}), **(env or {})}
        process = None
        if foreground:
            process = subprocess.Popen(
                [*prefix, self.binary, "mount", "--foreground", *options, *words, point],
                env={**self.env, **env}, stdin=subprocess.DEVNULL,
                stderr=open(os.path.join(self.logs, "foreground"), "ab"))
            wait_for(lambda: point in mounts_below(point) or process.poll() is not None, 60)
            assert process.poll() is None, f"the daemon ended with {process.returncode}{self.log_tail()}"
            wait_for(lambda: self.run("status", point).returncode == 0, 20,
                     message="status does not answer")
        else:
            self.ok("mount", *options, *words, point, env=env, prefix=prefix)
        m = Mount(self, source, point, cache, keep, process)
        self.mounts.append(m)
        return m

    def log_tail(self):
        out = []
        for path in sorted(glob.glob(self.logs + "/*")):
            with open(path, encoding="utf-8", errors="replace") as f:
                text = f.read()
            if text:
                out.append(f"\n--- {os.path.basename(path)}\n{text[-6000:]}")
        return "".join(out)

    def finish(self):
        """Unmounts what is left, and fails when a mount, a daemon, a cache or a report stays behind."""
        complaints = []
        for m in self.mounts:
            if not m.over:
                try:
                    r = m.umount()
                    if r.returncode != 0:
                        complaints.append(f"umount {m.path}: status {r.returncode}: {r.stderr}")
                except (AssertionError, subprocess.TimeoutExpired) as e:
                    complaints.append(f"umount {m.path}: {e}")
        for point in mounts_below(self.work):
            if not any(m.over and m.path == point for m in self.mounts):
                complaints.append(f"still mounted: {point}")
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)
        for m in self.mounts:
            if alive(m.pid):
                complaints.append(f"daemon {m.pid} of {m.path} lives on")
                os.kill(m.pid, signal.SIGKILL)
                wait_for(lambda pid=m.pid: not alive(pid))
            if m.keep:
                shutil.rmtree(m.cache, ignore_errors=True)
        reports = glob.glob(os.path.join(self.logs, "sanitizer*"))
        if reports:
            complaints.append("a sanitizer reported")
        if complaints:
            raise Failed("\n".join(complaints) + self.log_tail())
