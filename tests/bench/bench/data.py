# SPDX-License-Identifier: Apache-2.0
"""The data that the bench reads: made once, from fixed seeds, and kept.

Each bucket is a folder in the data directory of versitygw. Files carry an ETag as an extended
attribute where versitygw looks for it, since objects without one are not the common case.
"""

import hashlib
import math
import os
import random
import shutil
import stat

MIB = 1 << 20


class Sizes:
    """How much of everything; `quick` proves that the bench works and measures nothing."""

    def __init__(self, quick):
        self.tag = "quick-" if quick else ""
        self.large_bytes = 64 * MIB if quick else 1024 * MIB
        self.small_files = 500 if quick else 20_000
        self.small_dirs = 25 if quick else 1_000
        self.million = 5_000 if quick else 1_000_000
        self.million_dirs = 10 if quick else 1_000
        self.folder = 2_000 if quick else 100_000
        self.random_reads = 1_000 if quick else 10_000


def put(path, data):
    with open(path, "wb") as f:
        f.write(data)
    os.setxattr(path, "user.etag", hashlib.md5(data).hexdigest().encode())


def make_large(root, sizes):
    rng = random.Random(1)
    md5 = hashlib.md5()
    path = os.path.join(root, "large.bin")
    with open(path, "wb") as f:
        for _ in range(sizes.large_bytes // (16 * MIB)):
            piece = rng.randbytes(16 * MIB)
            md5.update(piece)
            f.write(piece)
    os.setxattr(path, "user.etag", md5.hexdigest().encode())


def make_small(root, sizes):
    """Sizes are log-normal around 105 KB, as photographs are: most smaller, some several times it."""
    rng = random.Random(2)
    sigma, mean = 0.5, 105_000
    mu = math.log(mean) - sigma * sigma / 2
    per_dir = sizes.small_files // sizes.small_dirs
    for d in range(sizes.small_dirs):
        folder = os.path.join(root, f"n{d:05d}")
        os.mkdir(folder)
        for i in range(per_dir):
            size = min(max(int(rng.lognormvariate(mu, sigma)), 2_000), 900_000)
            put(os.path.join(folder, f"n{d:05d}_{i:04d}.jpg"), rng.randbytes(size))


def make_million(root, sizes):
    per_dir = sizes.million // sizes.million_dirs
    etag = hashlib.md5(b"").hexdigest().encode()
    for d in range(sizes.million_dirs):
        folder = os.path.join(root, f"d{d:04d}")
        os.mkdir(folder)
        for i in range(per_dir):
            fd = os.open(os.path.join(folder, f"key-{i:06d}"), os.O_CREAT | os.O_WRONLY, 0o644)
            os.setxattr(fd, "user.etag", etag)
            os.close(fd)


def make_folder(root, sizes):
    etag = hashlib.md5(b"").hexdigest().encode()
    folder = os.path.join(root, "all")
    os.mkdir(folder)
    for i in range(sizes.folder):
        fd = os.open(os.path.join(folder, f"key-{i:08d}"), os.O_CREAT | os.O_WRONLY, 0o644)
        os.setxattr(fd, "user.etag", etag)
        os.close(fd)


MAKERS = {"large": make_large, "small": make_small, "million": make_million, "folder": make_folder}


class Data:
    """The buckets below `home`; bucket(name) makes one that is missing."""

    def __init__(self, home, sizes, say):
        self.home = home
        self.sizes = sizes
        self.say = say
        os.makedirs(self.home, exist_ok=True)

    def bucket(self, name):
        """The name of the bucket, which exists from now on."""
        full = self.sizes.tag + name
        path = os.path.join(self.home, full)
        if not os.path.exists(path):
            self.say(f"making the data of {full}, once")
            new = os.path.join(os.path.dirname(self.home), f".{full}.new")
            shutil.rmtree(new, ignore_errors=True)
            os.mkdir(new)
            MAKERS[name](new, self.sizes)
            os.sync()
            os.rename(new, path)
        return full

    def folder(self, name):
        return os.path.join(self.home, self.bucket(name))


def keys_of(folder):
    """Paths of all files below, relative to it, sorted."""
    found = []
    for at, dirs, files in os.walk(folder):
        dirs.sort()
        rel = os.path.relpath(at, folder)
        found += [os.path.normpath(os.path.join(rel, f)) for f in sorted(files)]
    return found


def copy_tree(source, target):
    """A plain copy without extended attributes, as a download would leave it."""
    for at, dirs, files in os.walk(source):
        dirs.sort()
        to = os.path.join(target, os.path.relpath(at, source))
        os.makedirs(to, exist_ok=True)
        for name in sorted(files):
            shutil.copyfile(os.path.join(at, name), os.path.join(to, name))


def read_all(folder):
    """Brings a tree into the page cache."""
    buffer = bytearray(4 * MIB)
    for key in keys_of(folder):
        path = os.path.join(folder, key)
        if stat.S_ISREG(os.lstat(path).st_mode):
            with open(path, "rb", buffering=0) as f:
                while f.readinto(buffer):
                    pass
