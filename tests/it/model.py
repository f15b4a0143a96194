# SPDX-License-Identifier: Apache-2.0
"""Random operations on a mount and on the folder that it shows, side by side: the answers agree.

The seed is printed; ZCACHE_MODEL_SEED runs one again."""

import errno
import mmap
import os
import random
import time


class Pair:
    """The same operation on both sides; an error counts as an answer."""

    def __init__(self, mount, folder, paths, rng):
        self.roots, self.paths, self.rng = (mount.path, folder), paths, rng
        self.dirs = sorted({os.path.dirname(p) for p in paths} | {"", "many", "nothing/here"})
        self.open = []  # (path, fd in the mount, fd in the folder)
        self.done = {}

    def path(self):
        r = self.rng.random()
        if r < 0.85:
            return self.rng.choice(self.paths)
        if r < 0.93:
            return self.rng.choice(self.dirs)
        return self.rng.choice(self.paths) + self.rng.choice(["x", "/x", ".", "/.."])

    def both(self, what, path):
        answers = []
        for root in self.roots:
            try:
                answers.append(what(os.path.join(root, path) if path else root))
            except OSError as e:
                answers.append(errno.errorcode[e.errno])
        assert answers[0] == answers[1], (what.__name__, path, str(answers)[:500])
        self.done[what.__name__] = self.done.get(what.__name__, 0) + 1

    def stat(self):
        def stat(p):
            st = os.stat(p)
            kind = st.st_mode & 0o170000
            return kind, st.st_size if kind == 0o100000 else None
        self.both(stat, self.path())

    def readdir(self):
        def readdir(p):
            return sorted((e.name, e.is_dir(), e.is_file()) for e in os.scandir(p))
        self.both(readdir, self.rng.choice(self.dirs + [self.path()]))

    def slurp(self):
        def slurp(p):
            with open(p, "rb") as f:
                return f.read()
        self.both(slurp, self.path())

    def pieces(self):
        rng_state = self.rng.getstate()

        def pieces(p):
            self.rng.setstate(rng_state)
            out = []
            with open(p, "rb", buffering=0) as f:
                for _ in range(5):
                    f.seek(self.rng.randrange(12_000_000), os.SEEK_SET)
                    out.append(f.read(self.rng.choice([1, 511, 4096, 131072, 1048576])))
            return out
        self.both(pieces, self.path())

    def mapped(self):
        rng_state = self.rng.getstate()

        def mapped(p):
            self.rng.setstate(rng_state)
            with open(p, "rb") as f:
                size = os.fstat(f.fileno()).st_size
                if size == 0:
                    return b""
                with mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ) as mm:
                    at = self.rng.randrange(size)
                    return mm[at:at + 50_000], mm[-10:]
        self.both(mapped, self.path())

    def hold(self):
        """Opens a file and keeps it open for later reads."""
        path = self.rng.choice(self.paths)
        self.open.append((path, *(os.open(os.path.join(r, path), os.O_RDONLY) for r in self.roots)))
        self.done["hold"] = self.done.get("hold", 0) + 1

    def held(self):
        if not self.open:
            return self.hold()
        i = self.rng.randrange(len(self.open))
        path, a, b = self.open[i]
        if self.rng.random() < 0.3:
            os.close(a)
            os.close(b)
            del self.open[i]
            return None
        off, n = self.rng.randrange(12_000_000), self.rng.choice([1, 4096, 300_000])
        assert os.pread(a, n, off) == os.pread(b, n, off), (path, off, n)
        assert os.lseek(a, 0, os.SEEK_END) == os.lseek(b, 0, os.SEEK_END), path
        self.done["held"] = self.done.get("held", 0) + 1
        return None

    def access(self):
        def access(p):
            return os.access(p, os.R_OK), os.path.exists(p), os.path.isdir(p)
        self.both(access, self.path())

    def close(self):
        for _, a, b in self.open:
            os.close(a)
            os.close(b)


def play(mount, folder, sizes, steps, between=None):
    seed = int(os.environ.get("ZCACHE_MODEL_SEED") or time.time_ns() % 1_000_000)
    print(f"ZCACHE_MODEL_SEED={seed}")
    rng = random.Random(seed)
    pair = Pair(mount, folder, sorted(sizes), rng)
    moves = [pair.stat] * 4 + [pair.readdir] * 2 + [pair.slurp, pair.pieces, pair.mapped, pair.hold,
                                                    pair.held, pair.held, pair.access]
    try:
        for step in range(steps):
            rng.choice(moves)()
            if between:
                between(step, rng)
    finally:
        pair.close()
    assert len(pair.done) == 8, pair.done
