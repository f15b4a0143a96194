# SPDX-License-Identifier: Apache-2.0
"""Users other than root: those whom a mount lets in, and those who mount; and mount(8) and fstab."""

import os
import shutil
import signal
import stat
import subprocess
import tempfile

import pytest
from conftest import make_bytes
from zcache import Mount, Zcache, alive, mounts_below, wait_for

USER = 65534
AS_USER = ["/usr/bin/setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]
FILES = {"large": (9 << 20) + 1, "empty": 0, "sub/one": 1, "sub/small": 70_000}
HELPER = "/sbin/mount.zcache"


def cat(path, prefix=()):
    return subprocess.run([*prefix, "cat", path], capture_output=True, check=False)


@pytest.fixture
def open_place(zc):
    """A Zcache whose folder and binary any user can get at; its source is in .source."""
    work = tempfile.mkdtemp(prefix="zcache-it-", dir="/var/tmp")
    os.chmod(work, 0o755)
    binary = os.path.join(work, "zcache")
    shutil.copy(zc.binary, binary)
    z = Zcache(binary, work)
    z.source = os.path.join(work, "source")
    for name, size in FILES.items():
        path = os.path.join(z.source, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as f:
            f.write(make_bytes(size, name))
    yield z
    try:
        z.finish()
    finally:
        shutil.rmtree(work, ignore_errors=True)


def test_allow_other(open_place):
    """Without it nobody else is let in, whatever the modes say; with it they count."""
    z = open_place
    m = z.mount(f"file://{z.source}")
    r = cat(m.join("sub/small"), AS_USER)
    assert r.returncode != 0 and b"Permission denied" in r.stderr, r.stderr
    assert m.umount().returncode == 0

    os.chmod(os.path.join(z.source, "sub/one"), 0o600)
    m = z.mount(f"file://{z.source}", "--allow-other", point=m.path, cache=m.cache)
    for _ in range(2):
        for name in ("large", "sub/small"):
            assert cat(m.join(name), AS_USER).stdout == make_bytes(FILES[name], name)
    r = cat(m.join("sub/one"), AS_USER)
    assert r.returncode != 0 and b"Permission denied" in r.stderr, r.stderr
    assert m.read("sub/one") == make_bytes(1, "sub/one")


# ------------------------------------------------------------ who mounts without root


@pytest.fixture
def user_place(open_place):
    """The same, belonging to a user, who may use the device as distributions let them."""
    z = open_place
    mode = stat.S_IMODE(os.stat("/dev/fuse").st_mode)
    os.chmod("/dev/fuse", 0o666)
    subprocess.run(["chown", "-R", f"{USER}:{USER}", z.work], check=True)

    def mount(*options, **kw):
        point, cache = z.place()
        for path in (point, cache):
            os.chown(path, USER, USER)
        return z.mount(f"file://{z.source}", *options, point=point, cache=cache, prefix=AS_USER,
                       env={"HOME": z.work}, **kw)
    z.mount_as_user = mount
    yield z
    os.chmod("/dev/fuse", mode)


@pytest.mark.parametrize("uring", ["auto", "off"])
def test_a_user_mounts(user_place, uring):
    """By fusermount3, without passthrough: the daemon serves what it has, and status says why."""
    z = user_place
    m = z.mount_as_user("--io-uring", uring)
    assert os.stat(f"/proc/{m.pid}").st_uid == USER
    for _ in range(2):
        for name, size in FILES.items():
            r = cat(m.join(name), AS_USER)
            assert r.returncode == 0 and r.stdout == make_bytes(size, name), (name, r.stderr)
    s = m.status()
    assert s["passthrough"].startswith("off: ") and "root" in s["passthrough"]
    assert s["fuse"]["opens_passthrough"] == 0 and s["fuse"]["read_bytes"] >= FILES["large"]
    assert z.run("umount", m.path, prefix=AS_USER, env={"HOME": z.work}).returncode == 0
    m.ended()


def test_why_a_user_cannot_mount(user_place):
    """A folder of somebody else's, and a device that the user may not open."""
    z = user_place
    point, cache = z.place()
    os.chown(cache, USER, USER)
    os.chmod(point, 0o755)
    options = ["mount", "--cache-dir", cache, f"file://{z.source}", point]
    z.fails(*options, prefix=AS_USER, env={"HOME": z.work}, words=["where they may write"])
    os.chown(point, USER, USER)
    os.chmod("/dev/fuse", 0o600)
    z.fails(*options, prefix=AS_USER, env={"HOME": z.work}, words=["may not open /dev/fuse"])
    assert os.listdir(cache) == []


def test_another_user_cannot_unmount(user_place):
    m = user_place.mount_as_user()
    z, other = user_place, ["/usr/bin/setpriv", "--reuid", "65533", "--regid", "65533", "--clear-groups"]
    z.fails("umount", m.path, prefix=other, words=["mounted by user 65534", "may unmount"])
    z.fails("mount", "--allow-other", "--cache-dir", m.cache, f"file://{z.source}", z.place()[0],
            prefix=["/usr/bin/unshare", "-m", "/bin/sh", "-c",
                    'mount --bind /dev/null /etc/fuse.conf && exec "$@"', "sh", *AS_USER],
            words=["--allow-other", "user_allow_other"])


@pytest.mark.parametrize("how", ["force", "lazy", "SIGTERM"])
def test_the_end_of_a_users_mount(user_place, how):
    """With a reader, on a mount point that is a mount itself: only this mount goes."""
    z = user_place
    point, _ = z.place()
    below = os.path.join(z.work, "below")
    os.makedirs(below)
    for path in (below, point):
        os.chown(path, USER, USER)
    subprocess.run(["mount", "--bind", below, point], check=True)
    try:
        _, cache = z.place()
        os.chown(cache, USER, USER)
        m = z.mount(f"file://{z.source}", point=point, cache=cache, prefix=AS_USER, env={"HOME": z.work})
        reader = subprocess.Popen([*AS_USER, "sh", "-c", f"exec 3<{m.join('large')}; echo open; read x"],
                                  stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert reader.stdout.readline() == b"open\n"
        if how == "SIGTERM":
            os.kill(m.pid, signal.SIGTERM)
        else:
            assert z.run("umount", "--" + how, point, prefix=AS_USER, env={"HOME": z.work}).returncode == 0
        if how == "lazy":
            assert alive(m.pid) and mounts_below(point) == [point]
            reader.communicate()
        wait_for(lambda: not alive(m.pid), 40, message="the daemon did not end")
        m.over = True
        reader.communicate()
        assert mounts_below(point) == [point]
    finally:
        for _ in mounts_below(point):
            subprocess.run(["umount", "-l", point], check=True)


# ------------------------------------------------------------ mount(8)


@pytest.fixture
def helper(zc):
    """mount.zcache where mount(8) looks for it."""
    kept = HELPER + ".before-test"
    if os.path.lexists(HELPER):
        os.rename(HELPER, kept)
    os.symlink(os.path.abspath(zc.binary), HELPER)
    yield
    os.unlink(HELPER)
    if os.path.lexists(kept):
        os.rename(kept, HELPER)


@pytest.mark.sanitized
def test_a_line_of_fstab(zc, work, helper):
    """mount(8) finds the line and the helper; umount(8) ends the daemon."""
    source = os.path.join(work, "a source")
    os.makedirs(source)
    with open(os.path.join(source, "file"), "wb") as f:
        f.write(b"by fstab")
    point, cache = zc.place()
    options = (f"ro,_netdev,noauto,nofail,x-systemd.device-timeout=10,allow_other,cache_dir={cache},"
               f"cache_size=64MiB,metadata_ttl=5m,log_directory={zc.logs}")
    fstab = os.path.join(work, "fstab")
    line = ("file://" + source).replace(" ", "\\040") + f" {point} zcache {options} 0 0\n"
    with open(fstab, "w", encoding="ascii") as f:
        f.write(line)
    env = {**zc.env, "PATH": os.environ["PATH"]}
    subprocess.run(["mount", "-T", fstab, point], check=True, env=env, timeout=60)
    m = Mount(zc, "file://" + source, point, cache, False)
    zc.mounts.append(m)
    assert m.read("file") == b"by fstab"
    options = m.status()["options"]
    assert (options["metadata-ttl"], options["allow-other"], options["cache-size"]) == (300.0, True, 64 << 20)
    subprocess.run(["umount", point], check=True, timeout=60)
    m.ended()


@pytest.mark.parametrize("words,runs", [("users", False), ("user,exec", True)])
def test_words_of_fstab_that_mean_others(zc, work, helper, words, runs):
    """mount(8) makes noexec, nosuid and nodev of user and users, unless told otherwise."""
    source = os.path.join(work, "source")
    os.makedirs(source)
    script = os.path.join(source, "script")
    with open(script, "w", encoding="ascii") as f:
        f.write("#!/bin/sh\nexit 7\n")
    os.chmod(script, 0o755)
    point, cache = zc.place()
    fstab = os.path.join(work, "fstab")
    with open(fstab, "w", encoding="ascii") as f:
        f.write(f"file://{source} {point} zcache {words},ro,noauto,cache_dir={cache},cache_size=64MiB 0 0\n")
    subprocess.run(["mount", "-T", fstab, point], check=True, env={**zc.env, "PATH": os.environ["PATH"]}, timeout=60)
    m = Mount(zc, "file://" + source, point, cache, False)
    zc.mounts.append(m)
    if runs:
        assert subprocess.run([m.join("script")], check=False).returncode == 7
    else:
        with pytest.raises(PermissionError):
            subprocess.run([m.join("script")], check=False)


@pytest.mark.sanitized
def test_mount_by_type(zc, tree, helper):
    """Words of the helper come through mount(8), and so does its failure."""
    point, cache = zc.place()
    command = ["mount", "-t", "zcache", "-o", f"cache_dir={cache},cache_size=64MiB,log_directory={zc.logs}"]
    r = subprocess.run([*command, f"file://{zc.work}/nowhere", point], capture_output=True, text=True,
                       env=zc.env, check=False, timeout=60)
    assert r.returncode != 0 and "nowhere" in r.stderr, r.stderr
    subprocess.run([*command, f"file://{tree[0]}", point], check=True, env=zc.env, timeout=60)
    m = Mount(zc, f"file://{tree[0]}", point, cache, False)
    zc.mounts.append(m)
    assert len(m.read("page")) == 4096
    assert m.umount().returncode == 0
