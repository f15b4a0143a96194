#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""epoch_torch.py DIR [--workers 4] [--batch 64] [--mode raw|decode|torchio] [--epochs 1] [--limit N]
                     [--manifest FILE] [--seed 0] [--pause]

Epochs over DIR as training does them: torchvision's ImageFolder, a shuffling DataLoader with worker
processes.  raw reads a file whole and checks size and crc32 against the manifest; decode makes the
usual augmented tensor of it; torchio reads by torchvision.io.  Prints a JSON line for each epoch; with
--pause it then waits for a line on standard input before it goes on.  Exits 0 when every sample of
every epoch was right."""

import argparse
import json
import os
import sys
import time
import warnings
import zlib

import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader, Subset


def load_manifest(path):
    found = {}
    with open(path, encoding="ascii") as f:
        for line in f:
            name, size, crc = line.rstrip("\n").split("\t")
            found[name] = (int(size), crc)
    return found


class Raw:
    """Bytes as they are -> (size, 1 when right)."""

    def __init__(self, root, manifest):
        self.root, self.manifest = root, manifest

    def __call__(self, path):
        with open(path, "rb") as f:
            data = f.read()
        right = True
        if self.manifest is not None:
            want = self.manifest.get(os.path.relpath(path, self.root))
            right = want == (len(data), f"{zlib.crc32(data):08x}")
        return len(data), int(right)


class TorchIo:
    """torchvision's own reader; right when it begins as a JPEG does."""

    def __call__(self, path):
        data = torchvision.io.read_file(path)
        return data.numel(), int(data[0] == 255 and data[1] == 216)


class Decode:
    """The usual input of an image network."""

    def __init__(self):
        t = torchvision.transforms
        self.transform = t.Compose([t.RandomResizedCrop(224), t.RandomHorizontalFlip(), t.ToTensor()])

    def __call__(self, path):
        with open(path, "rb") as f:
            tensor = self.transform(Image.open(f).convert("RGB"))
        return os.path.getsize(path), int(tensor.shape[-1] == 224)


def epoch(data, number, a):
    order = torch.Generator().manual_seed(a.seed + number)
    began, first, files, size, right = time.monotonic(), None, 0, 0, 0
    for (sizes, oks), _ in DataLoader(data, batch_size=a.batch, shuffle=True, num_workers=a.workers,
                                      generator=order):
        first = first or time.monotonic() - began
        files += len(sizes)
        size += int(sizes.sum())
        right += int(oks.sum())
    seconds = max(time.monotonic() - began, 1e-9)
    return {"epoch": number, "mode": a.mode, "workers": a.workers, "files": files, "bytes": size,
            "errors": files - right, "seconds": round(seconds, 3), "first_batch_s": round(first or 0, 3),
            "files_per_s": round(files / seconds, 1), "MB_per_s": round(size / seconds / 1e6, 1)}


def main():
    p = argparse.ArgumentParser(description="Epochs over a folder of pictures.")
    p.add_argument("dir")
    p.add_argument("--workers", type=int, default=4)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--mode", default="raw", choices=["raw", "decode", "torchio"])
    p.add_argument("--epochs", type=int, default=1)
    p.add_argument("--limit", type=int)
    p.add_argument("--manifest")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--pause", action="store_true")
    a = p.parse_args()

    warnings.filterwarnings("ignore", message="This DataLoader will create")
    torch.set_num_threads(1)
    manifest = load_manifest(a.manifest) if a.manifest else None
    began = time.monotonic()
    data = torchvision.datasets.ImageFolder(
        a.dir, loader={"raw": Raw(a.dir, manifest), "torchio": TorchIo(), "decode": Decode()}[a.mode])
    scan = time.monotonic() - began
    if a.limit:
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(a.seed))
        data = Subset(data, order[:a.limit].tolist())
    good = len(data) > 0
    for number in range(a.epochs):
        said = epoch(data, number, a)
        good = good and said["errors"] == 0 and said["files"] == len(data)
        print(json.dumps({**said, "scan_s": round(scan, 3)}), flush=True)
        if a.pause and number + 1 < a.epochs and not sys.stdin.readline():
            break
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
