# SPDX-License-Identifier: Apache-2.0
"""Keys that no path can show. Neither server stores such keys, so that the proxy puts them into the
listings that it passes on; docs/SEMANTICS.md has the rule: they are hidden and counted, and whatever
they stand beside stays readable."""

import os
import socket
import subprocess

import pytest

CONTENT = ("<Contents><Key>{}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified>"
           "<ETag>&quot;0123456789abcdef0123456789abcdef&quot;</ETag><Size>3</Size>"
           "<StorageClass>STANDARD</StorageClass></Contents>")
PREFIX = "<CommonPrefixes><Prefix>{}</Prefix></CommonPrefixes>"


def mount_with(zc, proxy, new_bucket, injected):
    p, server = proxy
    bucket = new_bucket(server, {"good": b"good", "folder/inside": b"inside"})
    # Only the root's listing has no prefix between these.
    p.swap("</Name><KeyCount>", f"</Name>{injected}<KeyCount>")
    return zc.mount(f"s3://{bucket}", env={**server.env(), "AWS_ENDPOINT_URL": p.url})


def hidden(mount):
    return mount.status()["vfs"]["hidden"]


@pytest.mark.sanitized
@pytest.mark.parametrize("injected", [
    CONTENT.format(".."),
    CONTENT.format("."),
    CONTENT.format("/"),
    CONTENT.format("/leading"),
    PREFIX.format("/"),
    PREFIX.format("../"),
    PREFIX.format("./"),
    PREFIX.format("a//"),
    CONTENT.format("n" * 256),
    CONTENT.format("n" * 1024),
    PREFIX.format("n" * 300 + "/"),
    CONTENT.format(""),
    PREFIX.format(""),
], ids=range(13))
def test_unshowable_keys_are_hidden(zc, proxy, new_bucket, injected):
    m = mount_with(zc, proxy, new_bucket, injected)
    names = os.listdir(m.path)
    assert {"good", "folder"} <= set(names)
    assert not {".", "..", ""} & set(names)
    assert all(len(n.encode()) <= 255 and "/" not in n for n in names)
    assert m.read("good") == b"good"
    assert m.read("folder/inside") == b"inside"
    # (A key without a name is the placeholder of the root, which is shown.)
    assert hidden(m) == (injected != CONTENT.format(""))
    listed = subprocess.run(["ls", "-la", m.path], capture_output=True, text=True, check=True).stdout
    assert "?" not in listed, listed


@pytest.mark.sanitized
def test_a_key_that_is_file_and_folder(zc, proxy, new_bucket):
    """"folder" beside "folder/inside": one name, of one kind, and never a crash."""
    m = mount_with(zc, proxy, new_bucket, CONTENT.format("folder"))
    names = os.listdir(m.path)
    assert names.count("folder") == 1
    assert os.path.isdir(m.join("folder"))
    assert m.read("folder/inside") == b"inside"
    assert m.read("good") == b"good"
    assert hidden(m) == 1


@pytest.mark.sanitized
def test_the_same_name_twice(zc, proxy, new_bucket):
    m = mount_with(zc, proxy, new_bucket, CONTENT.format("twice") + CONTENT.format("twice") +
                   PREFIX.format("more/") + PREFIX.format("more/"))
    names = os.listdir(m.path)
    assert names.count("twice") == 1 and names.count("more") == 1


@pytest.mark.sanitized
def test_markers_of_folders(zc, proxy, new_bucket):
    """Consoles make "folder/" as an object of no bytes: the folder itself."""
    p, server = proxy
    bucket = new_bucket(server, {"marked/": b"", "marked/file": b"file", "empty/": b""})
    m = zc.mount(f"s3://{bucket}", server=server)
    assert sorted(os.listdir(m.path)) == ["empty", "marked"]
    assert os.listdir(m.join("marked")) == ["file"]
    assert os.listdir(m.join("empty")) == []
    assert m.read("marked/file") == b"file"


@pytest.mark.sanitized
def test_bytes_that_are_no_utf8_in_file_sources(zc, work):
    folder = os.path.join(work, "data")
    os.makedirs(folder)
    raw = os.path.join(os.fsencode(folder), b"latin-\xe9")
    with open(raw, "wb") as f:
        f.write(b"raw")
    with open(os.path.join(folder, "plain"), "wb") as f:
        f.write(b"plain")
    m = zc.mount(f"file://{folder}")
    assert m.read("plain") == b"plain"
    for name in os.listdir(os.fsencode(m.path)):
        with open(os.path.join(os.fsencode(m.path), name), "rb") as f:
            assert f.read() in (b"raw", b"plain")


@pytest.mark.sanitized
def test_what_a_file_source_hides_is_counted(zc, work):
    folder = os.path.join(work, "data")
    os.makedirs(os.path.join(folder, "d"))
    with open(os.path.join(folder, "d/plain"), "wb") as f:
        f.write(b"plain")
    os.symlink("d/plain", os.path.join(folder, "shown"))
    for name, target in (("out", "/etc/passwd"), ("up", "../.."), ("nowhere", "no/such"), ("round", "round"),
                         ("d/above", "..")):
        os.symlink(target, os.path.join(folder, name))
    os.mkfifo(os.path.join(folder, "pipe"))
    with socket.socket(socket.AF_UNIX) as s:
        here = os.getcwd()
        os.chdir(folder)  # such a path must be short
        s.bind("socket")
        os.chdir(here)
    m = zc.mount(f"file://{folder}")
    assert hidden(m) == 0
    assert sorted(os.listdir(m)) == ["d", "shown"]
    assert hidden(m) == 6
    assert os.listdir(m.join("d")) == ["plain"]
    assert hidden(m) == 7
    for name in ("out", "pipe", "socket", "d/above"):
        assert not os.path.lexists(m.join(name))
    assert m.read("shown") == b"plain"
