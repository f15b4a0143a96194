# SPDX-License-Identifier: Apache-2.0
"""Training reads: PyTorch's DataLoader over a mount, two epochs, the second without the store."""

import json
import os
import subprocess

from conftest import ROOT


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


def test_decoding_with_a_folder_as_source(zc, images):
    folder, manifest = images
    m = zc.mount(f"file://{folder}")
    out = subprocess.run(
        ["/usr/bin/python3", os.path.join(ROOT, "tests/readers/epoch_torch.py"), m.path, "--mode", "decode",
         "--limit", "300", "--epochs", "2"], check=True, capture_output=True, text=True).stdout
    assert [json.loads(line)["errors"] for line in out.splitlines()] == [0, 0]
