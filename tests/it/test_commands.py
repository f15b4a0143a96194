# SPDX-License-Identifier: Apache-2.0
"""What a person sees of the commands: progress on a terminal and in a pipe, and what is installed."""

import fcntl
import glob
import json
import os
import pty
import re
import struct
import subprocess
import termios
import threading

from servers import s3

FRAME = re.compile(r"(\d+) of (?:at least )?(\d+) files, ")


def on_terminal(zc, columns, *args):
    """Runs the command with stderr on a terminal -> (what the terminal got, stdout)."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    p = subprocess.Popen([zc.binary, *args], env=zc.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=slave, text=True)
    os.close(slave)
    got = b""
    while True:
        try:
            block = os.read(master, 65536)
        except OSError:  # EIO: the command has ended
            break
        got += block
    os.close(master)
    out = p.stdout.read()
    assert p.wait(60) == 0, (got, out)
    return got.decode(), out


def counts(frames):
    """Files done and files found in each, neither of which ever goes back."""
    found = [tuple(map(int, FRAME.search(f).groups())) for f in frames]
    assert found == sorted(found) and all(done <= of for done, of in found), found
    assert found == sorted(found, key=lambda c: c[1]), found
    return found


def test_progress_of_warm(zc, proxy, stores, tree):
    """A bar on a terminal, as wide as that is; now and then a line in a pipe; a summary on stdout."""
    p, server = proxy
    bucket = stores.bucket(server, "tree", tree[0])
    m = zc.mount(f"s3://{bucket}", server=server, env={"AWS_ENDPOINT_URL": p.url})
    os.listdir(m.join("many"))
    p.delay(190)  # 30 files one after the other: longer than the five seconds between two lines
    results = {}

    def terminal(columns, *folders):
        results[columns] = on_terminal(zc, columns, "warm", "--parallel", "1", *map(m.join, folders))

    threads = [threading.Thread(target=terminal, args=(columns, folder))
               for columns, folder in ((120, "many/0"), (40, "many/1"))]
    for t in threads:
        t.start()
    piped = zc.ok("warm", "--parallel", "1", m.join("many/2"))
    for t in threads:
        t.join(60)

    for columns in (120, 40):
        screen, out = results[columns]
        assert screen.endswith("\r\033[K"), "the bar stays behind"
        assert "\n" not in screen
        frames = [f for f in re.findall(r"\r([^\r]*)\033\[K", screen) if f]
        assert len(frames) >= 2 and all(len(f) < columns for f in frames), frames
        assert counts(frames)[-1][0] > 0, frames
        assert re.match(r"warmed 30 files, .* fetched .*\n$", out), out
    assert re.search(r"\r\[[#.]{5,30}\] \d+ of ", results[120][0])
    assert "[#" not in results[40][0], "no room for a bar"

    assert "\r" not in piped.stderr and "\033" not in piped.stderr
    lines = piped.stderr.splitlines()
    assert lines, "nothing in more than five seconds"
    counts(lines)
    assert re.match(r"warmed 30 files, .*\n$", piped.stdout), piped.stdout


def names_in(value):
    """The names of all that is in a JSON value, but for options, which are in other pages."""
    found = set()
    for v in value if isinstance(value, list) else []:
        found |= names_in(v)
    for k, v in value.items() if isinstance(value, dict) else []:
        found |= {k} | (names_in(v) if k != "options" else set())
    return found


def test_json_is_described(zc, tree):
    """Each name that status prints is in its page, and the page has no others."""
    point, cache = zc.place()
    port = s3.free_port()
    m = zc.mount(f"file://{tree[0]}", "--bind", f"127.0.0.1:{port}", "--peer-port", str(s3.free_port()),
                 "--open-cache-limit", "0", point=point, cache=cache)
    printed = names_in(m.status())
    printed |= names_in(json.loads(zc.ok("status", "--cluster", "--cached", "--json", m.path).stdout))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with open(root + "/man/zcache-status.1", encoding="ascii") as f:
        text = f.read()
    page = text[text.index(".SH JSON"):text.index(".SH SEE ALSO")]
    lines = [line for line in page.splitlines() if re.match(r"\.(B|BR|RB|BI) ", line)]
    bold = {w for line in lines for w in re.findall(r"(?<![\\\w(-])[a-z]\w*(?![\w(]|\\-)", line[3:])}
    # Values, commands, joining words, and what there is only when something failed.
    other = {"on", "in", "alive", "suspect", "dead", "left", "zcache", "free", "warm", "and", "since_s", "error"}
    assert printed - bold == set(), "not in the page"
    assert bold - printed - other == set(), "not printed"
    assert m.status()["options"]["open-cache-limit"] == 0


def test_install(zc, work):
    """Program, helper, pages, licences and header are put in their places, and nothing of libfuse is."""
    build = os.path.dirname(os.path.abspath(zc.binary))
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    options = {o["name"]: o["value"] for o in json.loads(subprocess.run(
        ["meson", "introspect", build, "--buildoptions"], capture_output=True, text=True, check=True).stdout)}
    dest = os.path.join(work, "dest")
    subprocess.run(["meson", "install", "-C", build, "--no-rebuild", "--skip-subprojects", "--destdir", dest],
                   check=True, stdout=subprocess.DEVNULL, timeout=120)
    prefix = options["prefix"]
    names = {"bin": options["bindir"], "sbin": options["sbindir"], "man": options["mandir"],
             "doc": options["datadir"] + "/doc/zcache", "include": options["includedir"]}
    where = {k: os.path.join(prefix, v) for k, v in names.items()}
    expected = {where["bin"] + "/zcache", where["sbin"] + "/mount.zcache",
                where["include"] + "/zcache/control.h", where["doc"] + "/LICENSE"}
    for page in glob.glob(root + "/man/*.[1-9]"):
        name = os.path.basename(page)
        expected.add(f"{where['man']}/man{name[-1]}/{name}")
    for licence in os.listdir(root + "/LICENSES"):
        expected.add(f"{where['doc']}/LICENSES/{licence}")
    found = {os.path.join("/", os.path.relpath(os.path.join(top, n), dest))
             for top, _, files in os.walk(dest) for n in files}
    assert found == expected
    assert os.readlink(dest + where["sbin"] + "/mount.zcache") == where["bin"] + "/zcache"
    program = dest + where["bin"] + "/zcache"
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    assert said.startswith("zcache ")
