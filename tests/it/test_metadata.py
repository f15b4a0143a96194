# SPDX-License-Identifier: Apache-2.0
"""Attributes and names as time goes by: what docs/SEMANTICS.md says of when changes are seen, and of what
the store is asked for them."""

import os
import stat

import pytest
from zcache import wait_for


@pytest.fixture
def folder(work):
    path = os.path.join(work, "data")
    os.makedirs(os.path.join(path, "dir"))
    with open(os.path.join(path, "dir/file"), "wb") as f:
        f.write(b"file")
    return path


def bits(path):
    s = os.stat(path)
    return stat.S_IMODE(s.st_mode), s.st_uid, s.st_gid


@pytest.mark.sanitized
def test_owner_and_mode_follow_the_store(zc, folder):
    m = zc.mount(f"file://{folder}", "--metadata-ttl", "1")
    for path in ("dir", "dir/file"):
        real = os.path.join(folder, path)
        before = bits(real)
        assert bits(m.join(path)) == before
        os.chmod(real, 0o710)
        os.chown(real, 4711, 4712)
        wait_for(lambda p=path: bits(m.join(p)) == (0o710, 4711, 4712), 10, message=f"{path} has its old bits")
    assert m.read("dir/file") == b"file"
