# SPDX-License-Identifier: Apache-2.0
"""Training reads: PyTorch's DataLoader over a mount, two epochs, the second without the store."""

import concurrent.futures
import hashlib
import json
import os
import random
import subprocess
import zlib

from conftest import ROOT, crc_of, files_below


class Epochs:
    """epoch_torch.py as a process that waits between epochs."""

    def __init__(self, mount, manifest, *options):
        self.process = subprocess.Popen(
            ["/usr/bin/python3", os.path.join(ROOT, "tests/readers/epoch_torch.py"), mount.path, "--pause",
             "--workers", "4", "--manifest", manifest, *options],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def next(self, go_on=False):
        if go_on:
            self.process.stdin.write("\n")
            self.process.stdin.flush()
        said = json.loads(self.process.stdout.readline())
        assert said["errors"] == 0 and said["files"] == 2000, said
        return said

    def end(self):
        self.process.stdin.close()
        status = self.process.wait(60)
        self.process.stdout.close()
        assert status == 0


def test_two_epochs(zc, stores, any_server, images):
    folder, manifest = images
    bucket = stores.bucket(any_server, "images", folder)
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "indefinite", server=any_server)
    epochs = Epochs(m, manifest, "--epochs", "2")
    epochs.next()
    before, own = any_server.requests(), m.requests()
    epochs.next(go_on=True)
    assert any_server.requests() == before, "the second epoch asked the store"
    assert m.requests() == own
    epochs.end()


def test_an_epoch_after_warm_asks_nothing(zc, stores, server, images):
    folder, manifest = images
    m = zc.mount("s3://" + stores.bucket(server, "images", folder), "--metadata-ttl", "indefinite",
                 server=server)
    m.warm("", timeout=300)
    before = server.requests()
    epochs = Epochs(m, manifest, "--epochs", "1")
    epochs.next()
    epochs.end()
    assert server.requests() == before, "an epoch after warm asked the store"


def test_twenty_thousand_files_after_warm(zc, new_bucket, stores):
    """As many files as a data set has, small ones: warmed, then all read without one request to the store."""
    server = stores.get("versitygw")
    bucket = new_bucket(server)
    rng = random.Random(20)
    crcs = {}
    for folder in range(100):  # where the server keeps its objects: 20,000 uploads would take a minute
        top = os.path.join(server.data, bucket, f"class{folder:03}")
        os.makedirs(top)
        for i in range(200):
            data = rng.randbytes(rng.randrange(1000, 2000))
            path = os.path.join(top, f"{i:04}.bin")
            with open(path, "wb") as f:
                f.write(data)
            os.setxattr(path, "user.etag", hashlib.md5(data).hexdigest().encode())
            crcs[f"class{folder:03}/{i:04}.bin"] = zlib.crc32(data)
    m = zc.mount(f"s3://{bucket}", "--metadata-ttl", "indefinite", server=server)
    said = m.warm("", timeout=300).stdout
    assert said.startswith("warmed 20,000 files, "), said
    own = m.requests()
    assert own["gets"] == 20000
    before = server.requests()
    while (now := server.requests()) != before:  # so many lines reach the server's log late
        before = now
    assert before["get"] > 19000
    assert sorted(files_below(m.path)) == sorted(crcs)
    order = list(crcs)
    rng.shuffle(order)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        wrong = [p for p, crc in zip(order, pool.map(lambda p: crc_of(m.join(p)), order)) if crc != crcs[p]]
    assert not wrong, wrong[:5]
    assert m.requests() == own and server.requests() == before, "an epoch after warm asked the store"


def test_decoding_with_a_folder_as_source(zc, images):
    folder, manifest = images
    m = zc.mount(f"file://{folder}")
    out = subprocess.run(
        ["/usr/bin/python3", os.path.join(ROOT, "tests/readers/epoch_torch.py"), m.path, "--mode", "decode",
         "--limit", "300", "--epochs", "2"], check=True, capture_output=True, text=True).stdout
    assert [json.loads(line)["errors"] for line in out.splitlines()] == [0, 0]
