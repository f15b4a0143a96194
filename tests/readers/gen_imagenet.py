#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""gen_imagenet.py OUT N [--classes 1000] [--mean-kb 110] [--seed 1] [--manifest FILE]

A tree like ImageNet's: OUT/nXXXXXXXX/nXXXXXXXX_I.JPEG, valid JPEG files whose sizes are log-normal and
whose bytes are all different, the same for the same seed.  The pictures are crops of those that
scikit-image and scikit-learn bring along; comment segments of random bytes bring each file to the size
that was drawn for it.  The manifest (path, size, crc32, tab-separated) is written beside OUT."""

import argparse
import glob
import io
import json
import os
import struct
import time
import zlib

import numpy as np
import skimage.data
import sklearn.datasets
from PIL import Image

SHAPES = [(500, 375), (375, 500), (500, 333), (500, 500), (640, 480), (1024, 768)]
SHARES = [0.45, 0.15, 0.15, 0.10, 0.10, 0.05]
NOISE = 1 << 22
SEGMENT = 65000  # bytes of a comment at the most; JPEG allows 65,533
SPREAD = 0.55    # sigma of the log-normal sizes


def photos():
    folder = os.path.dirname(skimage.data.__file__)
    paths = glob.glob(folder + "/*.png") + glob.glob(folder + "/*.jpg")
    paths += glob.glob(os.path.dirname(sklearn.datasets.__file__) + "/images/*.jpg")
    found = []
    for path in sorted(paths):
        try:
            image = Image.open(path).convert("RGB")
        except OSError:
            continue
        if min(image.size) >= 200:
            found.append(image)
    if not found:
        raise SystemExit("gen_imagenet: scikit-image and scikit-learn bring no pictures")
    return found


def crops(rng, count):
    """JPEG files of random crops, smallest first."""
    images, made = photos(), []
    for i in range(count):
        image = images[i % len(images)]
        scale = rng.uniform(0.5, 1)
        w, h = int(image.width * scale), int(image.height * scale)
        x, y = int(rng.integers(0, image.width - w + 1)), int(rng.integers(0, image.height - h + 1))
        shape = SHAPES[int(rng.choice(len(SHAPES), p=SHARES))]
        pixels = np.asarray(image.crop((x, y, x + w, y + h)).resize(shape), dtype=np.int16)
        pixels = pixels + rng.normal(0, rng.uniform(2, 8), pixels.shape)
        out = io.BytesIO()
        Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).save(
            out, "JPEG", quality=int(rng.integers(60, 88)))
        made.append(out.getvalue())
    return sorted(made, key=len)


def padded(jpeg, size, noise, index, seed):
    """The JPEG with comments after its first marker, so that it has about `size` bytes."""
    mark = struct.pack(">QQ", index, seed) + b"zcache-imagenet-like"
    need, parts, number = max(64, size - len(jpeg)), [jpeg[:2]], 0
    while need > 0:
        length = min(need, SEGMENT)
        body = (mark + struct.pack(">I", number) + noise[:length])[:max(length, 40)]
        parts.append(b"\xff\xfe" + struct.pack(">H", len(body) + 2) + body)
        need -= length + 4
        number += 1
    return b"".join(parts) + jpeg[2:]


def generate(out, n, classes=1000, mean_kb=110.0, seed=1, manifest=None, pool=96):
    began = time.monotonic()
    rng = np.random.default_rng(seed)
    jpegs = crops(rng, pool)
    lengths = np.array([len(j) for j in jpegs])
    noise = rng.bytes(NOISE)
    sizes = np.exp(rng.normal(np.log(mean_kb * 1024) - SPREAD * SPREAD / 2, SPREAD, n))
    bases = rng.integers(0, pool, n)
    offsets = rng.integers(0, NOISE - SEGMENT, n)
    names = ["n%08d" % (1440764 + c * 9973) for c in range(min(classes, n))]
    for name in names:
        os.makedirs(f"{out}/{name}", exist_ok=True)
    total = 0
    with open(manifest or out.rstrip("/") + ".manifest.tsv", "w", encoding="ascii") as listing:
        for i in range(n):
            size, name = int(sizes[i]), names[i % len(names)]
            fitting = max(1, int(np.searchsorted(lengths, size)))
            start = int(offsets[i])
            data = padded(jpegs[int(bases[i]) % fitting], size, noise[start:start + SEGMENT], i, seed)
            path = f"{name}/{name}_{i}.JPEG"
            with open(f"{out}/{path}", "wb") as f:
                f.write(data)
            listing.write(f"{path}\t{len(data)}\t{zlib.crc32(data):08x}\n")
            total += len(data)
    return {"files": n, "bytes": total, "mean_kb": round(total / n / 1024, 1), "classes": len(names),
            "seconds": round(time.monotonic() - began, 1)}


def main():
    p = argparse.ArgumentParser(description="Generates a tree like ImageNet's.")
    p.add_argument("out")
    p.add_argument("n", type=int)
    p.add_argument("--classes", type=int, default=1000)
    p.add_argument("--mean-kb", type=float, default=110)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--manifest")
    a = p.parse_args()
    print(json.dumps(generate(a.out, a.n, a.classes, a.mean_kb, a.seed, a.manifest)))


if __name__ == "__main__":
    main()
