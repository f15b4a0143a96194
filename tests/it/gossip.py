# SPDX-License-Identifier: Apache-2.0
"""Clusters of members on loopback: zcache's (tests/helpers/member_node.c) and hashicorp/memberlist's
(tests/memberlist), each a process with an address of its own in a random 127.x.y.0/24, all on one port.

    with Cluster(work, helper) as c:
        a = c.ours()
        b = c.theirs(join=[a])
        c.until(lambda: c.all_see(2))

And what an attacker uses: memberlist's packets (the format is described in src/member/wire.h), sealed
with any key, and a tap that records what passes."""

import collections
import json
import os
import random
import select
import socket
import struct
import subprocess
import threading
import time
import zlib

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from servers import s3

PORT = 7946
THEIRS = os.path.join(s3.BIN, "memberlist-node")

Seen = collections.namedtuple("Seen", "name addr state meta incarnation")
Change = collections.namedtuple("Change", "time name state")


class Node:
    """One process. `seen` is what it sees now: {name: Seen}; `changes` what changed, in order, where a state
    is alive, suspect, dead, left, or gone (memberlist's events do not tell dead from left)."""

    def __init__(self, cluster, name, addr, join):
        self.cluster, self.base, self.addr = cluster, name, addr
        self.join = [n if isinstance(n, str) else n.addr for n in join]
        self.seen, self.changes, self.answers = {}, [], collections.deque()
        self.name = self.process = None
        self.names = set()  # that it has had
        self.messages = []

    def start(self):
        self.seen, self.name, self.born = {}, None, time.monotonic()
        log = open(os.path.join(self.cluster.work, self.base + ".log"), "ab")
        self.process = subprocess.Popen(self.command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=log)
        log.close()
        threading.Thread(target=self.listen, args=(self.process,), daemon=True).start()
        self.cluster.until(lambda: self.name or self.process.poll() is not None, 30)
        assert self.name, f"{self.base} did not start: see {self.base}.log"
        return self

    def listen(self, process):
        for line in process.stdout:
            now, what = time.monotonic(), json.loads(line)
            with self.cluster.news:
                if process is self.process:
                    self.take(now, what)
                self.cluster.news.notify_all()
        with self.cluster.news:
            self.cluster.news.notify_all()

    def note(self, now, name, state):
        self.changes.append(Change(now, name, state))

    def take(self, now, what):
        event = what.get("event")
        if event == "ready":
            self.name = what["name"]
            self.names.add(self.name)
        elif event == "message":
            self.messages.append(what["hex"])
        elif event in ("members", "stats") or "did" in what:
            self.answers.append(what)
        else:
            self.look(now, event, what)

    @property
    def up(self):
        return self.process is not None and self.process.poll() is None

    def tell(self, command):
        self.process.stdin.write(command.encode() + b"\n")
        self.process.stdin.flush()

    def do(self, command, patience=30):
        """Has it done, -> the answer."""
        self.answers.clear()
        self.tell(command)
        self.cluster.until(lambda: self.answers, patience, f"{self.base} has done {command}")
        answer = self.answers.popleft()
        assert not answer.get("error"), f"{self.base}: {command}: {answer['error']}"
        return answer

    def kill(self):
        """-> the time of its death."""
        now = time.monotonic()
        self.process.kill()
        self.process.wait()
        return now

    def finish(self):
        if self.up:
            try:
                self.tell("quit")
                self.process.wait(20)
            except (OSError, subprocess.TimeoutExpired):
                self.process.kill()
        self.process.wait()
        return self.process.returncode

    def alive(self):
        """{name: Seen} of the members that it takes to be there."""
        return {n: s for n, s in self.seen.items() if s.state in ("alive", "suspect")}


class Ours(Node):
    def command(self):
        c = self.cluster
        command = [c.helper, "--name", self.base, "--bind", f"{self.addr}:{PORT}", "--label", c.label]
        if self.join:
            command += ["--join", ",".join(self.join)]
        if c.keys:
            self.key_file = os.path.join(c.work, self.base + ".keys")
            self.write_keys(c.keys)
            command += ["--key-file", self.key_file]
        return command + ["--compress"] * c.compress + ["--lan"] * (c.timing == "lan")

    def write_keys(self, keys):
        with open(self.key_file + ".new", "w", encoding="ascii") as f:
            f.writelines(k.hex() + "\n" for k in keys)
        os.rename(self.key_file + ".new", self.key_file)

    def look(self, now, event, what):
        assert event == "view", what
        seen = {m["name"]: Seen(m["name"], m["addr"], m["state"], bytes.fromhex(m["meta"])[3:]
                                if m["meta"].startswith("7a63") else bytes.fromhex(m["meta"]),
                                m["incarnation"]) for m in what["members"]}
        for name in seen.keys() | self.seen.keys():
            was, is_ = self.seen.get(name), seen.get(name)
            if (was and was.state) != (is_ and is_.state):
                # The dead and those that left are forgotten after a while: that is no news.
                if is_:
                    self.note(now, name, is_.state)
                elif was.state in ("alive", "suspect"):
                    self.note(now, name, "gone")
        self.seen = seen
        self.name = next(m["name"] for m in what["members"] if m["self"])
        self.names.add(self.name)

    def update(self, text):
        self.do("update " + text)


class Theirs(Node):
    def command(self):
        c = self.cluster
        command = [THEIRS, "-name", self.base, "-bind", self.addr, "-port", str(PORT), "-label", c.label,
                   "-timing", c.timing]
        if c.keys:
            command += ["-keys", ",".join(k.hex() for k in c.keys)]
        return command + ["-compress"] * c.compress

    def start(self):
        super().start()
        if self.join:
            self.do("join " + " ".join(f"{a}:{PORT}" for a in self.join))
        return self

    def look(self, now, event, what):
        name = what["name"]
        state = {"join": "alive", "update": "alive", "gone": "gone"}.get(event)
        if state is None:
            return
        self.seen[name] = Seen(name, what["addr"], state, bytes.fromhex(what["meta"]), None)
        if event != "update":
            self.note(now, name, state)

    def update(self, text):
        self.do("update " + text)


class Cluster:
    def __init__(self, work, helper, timing="fast", keys=(), label="", compress=False, seed=None):
        assert os.path.exists(THEIRS), f"{THEIRS} is missing: run tests/servers/install"
        assert os.path.exists(helper), f"{helper} is missing: build with -Dtests=true"
        self.work, self.helper, self.timing = work, helper, timing
        self.keys, self.label, self.compress = list(keys), label, compress
        self.news = threading.Condition()
        # Addresses of other runs' clusters on the same machine are others, as good as always.
        dice = random.SystemRandom()
        self.net = f"127.{dice.randrange(64, 250)}.{dice.randrange(1, 250)}."
        self.seed = seed if seed is not None else dice.randrange(1 << 30)
        self.random = random.Random(self.seed)
        self.nodes = []

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        codes = [(n.base, n.finish()) for n in self.nodes if n.process]
        if kind is None:
            # Killed, or ended as told: a sanitizer's report is neither.
            assert all(code in (0, -9) for _, code in codes), codes

    def add(self, kind, join, prefix):
        i = len(self.nodes) + 1
        node = kind(self, f"{prefix}{i}", f"{self.net}{i}", join)
        self.nodes.append(node)
        return node.start()

    def ours(self, join=()):
        return self.add(Ours, join, "zc")

    def theirs(self, join=()):
        return self.add(Theirs, join, "ml")

    def up(self):
        return [n for n in self.nodes if n.up]

    def until(self, happened, patience=60, what="it happens"):
        end = time.monotonic() + patience
        with self.news:
            while not (result := happened()):
                left = end - time.monotonic()
                if left <= 0:
                    raise AssertionError(f"waited {patience} s until {what}; seed {self.seed}; seen:\n" +
                                         self.describe())
                self.news.wait(min(left, 0.2))
            return result

    def describe(self):
        return "\n".join(f"  {n.name}: " + ", ".join(f"{s.name} {s.state}" for s in n.seen.values())
                         for n in self.nodes if n.up)

    def agreed(self):
        """All that are up see exactly all that are up."""
        names = {n.name for n in self.up()}
        return all(n.alive().keys() == names for n in self.up())

    def agree(self, patience=60):
        """Waits until then."""
        self.until(self.agreed, patience, "all see all")

    def spread(self, name, present, begin):
        """When the last of those that are up came to see `name` (or to see it gone), counted from `begin`."""
        last = begin
        for n in self.up():
            if n.name == name:
                continue
            times = [c.time for c in n.changes if c.name == name and c.time >= begin and
                     (c.state in ("alive", "suspect")) == present]
            assert times, f"{n.name} has no news of {name}"
            last = max(last, times[0])
        return last - begin


# ---------------------------------------------------------------- what an attacker uses


def pack(value):
    """msgpack as memberlist has it (old specification; a map's keys sorted)."""
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        for top, code, form in ((0x80, b"", "B"), (1 << 8, b"\xcc", "B"), (1 << 16, b"\xcd", ">H"),
                                (1 << 32, b"\xce", ">I")):
            if value < top:
                return code + struct.pack(form, value)
    if isinstance(value, str):
        value = value.encode()
    if isinstance(value, bytes):
        n = len(value)
        return (bytes([0xa0 | n]) if n < 32 else b"\xda" + struct.pack(">H", n)) + value
    return bytes([0x80 | len(value)]) + b"".join(pack(k) + pack(value[k]) for k in sorted(value))


VSN = bytes([1, 5, 2, 0, 0, 0])


def alive(name, addr, incarnation, meta=b"zc\x01", port=PORT):
    return b"\x04" + pack({"Node": name, "Addr": socket.inet_aton(addr), "Port": port, "Meta": meta,
                           "Incarnation": incarnation, "Vsn": VSN})


def suspect(name, incarnation, accuser):
    return b"\x03" + pack({"Node": name, "Incarnation": incarnation, "From": accuser})


def dead(name, incarnation, accuser):
    return b"\x05" + pack({"Node": name, "Incarnation": incarnation, "From": accuser})


def ping(name, sequence, addr, source, port=PORT):
    return b"\x00" + pack({"Node": name, "SeqNo": sequence, "SourceAddr": socket.inet_aton(addr),
                           "SourcePort": port, "SourceNode": source})


def indirect_ping(name, sequence, target, addr, source, port=PORT):
    return b"\x01" + pack({"Node": name, "SeqNo": sequence, "Target": socket.inet_aton(target), "Port": port,
                           "Nack": True, "SourceAddr": socket.inet_aton(addr), "SourcePort": PORT,
                           "SourceNode": source})


def compound(*parts):
    return (b"\x07" + bytes([len(parts)]) + b"".join(struct.pack(">H", len(p)) for p in parts) +
            b"".join(parts))


def with_crc(message):
    return b"\x0c" + struct.pack(">I", zlib.crc32(message)) + message


STATES = {"alive": 0, "suspect": 1, "dead": 2, "left": 3}


def push_pull(entries, join=True, claimed=None):
    """entries: (name, addr, incarnation, state)"""
    return b"\x06" + pack({"Nodes": len(entries) if claimed is None else claimed, "UserStateLen": 0,
                           "Join": join}) + b"".join(
        pack({"Name": n, "Addr": socket.inet_aton(a), "Port": PORT, "Meta": b"zc\x01", "Incarnation": i,
              "State": STATES[s], "Vsn": VSN}) for n, a, i, s in entries)


def labelled(label):
    return b"\xf4" + bytes([len(label)]) + label.encode() if label else b""


def seal_packet(message, key, label):
    nonce = os.urandom(12)
    return labelled(label) + b"\x01" + nonce + AESGCM(key).encrypt(nonce, message, label.encode())


def seal_stream(message, key, label):
    nonce = os.urandom(12)
    head = b"\x0a" + struct.pack(">I", 1 + 12 + len(message) + 16)
    return (labelled(label) + head + b"\x01" + nonce +
            AESGCM(key).encrypt(nonce, message, head + label.encode()))


def send_stream(addr, data, patience=5):
    """-> what came back until the other side closed; it may close at any time."""
    with socket.create_connection((addr, PORT), timeout=patience) as s:
        try:
            s.sendall(data)
            s.shutdown(socket.SHUT_WR)
            back = b""
            while got := s.recv(65536):
                back += got
            return back
        except OSError:
            return b""


class Tap:
    """Records the gossip of a cluster that passes on loopback: packets as (from, to, bytes)."""

    def __init__(self, net):
        self.net, self.packets, self.ending = socket.inet_aton(net + "0")[:3], [], False
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.socket.bind(("lo", 0x0800))
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        while not self.ending:
            if not select.select([self.socket], [], [], 0.1)[0]:
                continue
            p, about = self.socket.recvfrom(65536)
            head = (p[0] & 15) * 4
            if about[2] != 4 and p[9] == 17 and p[16:19] == self.net:  # each passes out and in
                self.packets.append((socket.inet_ntoa(p[12:16]), socket.inet_ntoa(p[16:20]), p[head + 8:]))

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.socket.close()


def lzw_of_zeros(tables):
    """memberlist's compression of some 7.4 MB of zeros for each of so many tables, in 5 KB each."""
    bits = count = 0
    out = bytearray()

    def put(code, width):
        nonlocal bits, count
        bits |= code << count
        count += width
        while count >= 8:
            out.append(bits & 255)
            bits >>= 8
            count -= 8

    width = 9
    for _ in range(tables):
        put(256, width)
        width, high, code = 9, 257, 0
        while high < 4094:
            put(code, width)
            high += 1
            code = high
            if high >= 1 << width and width < 12:
                width += 1
    put(257, width)
    if count:
        out.append(bits)
    return b"\x09" + b"\x82" + pack("Algo") + b"\x00" + pack("Buf") + pack(bytes(out))
