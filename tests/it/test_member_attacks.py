# SPDX-License-Identifier: Apache-2.0
"""Gossip under attack, over real sockets: what a stranger sends, what was recorded and is sent again, and what
one says that has the key. In memberlist itself the latter two succeed; where that is so, a cluster of its nodes
is attacked in the same way, which shows that the attack is one."""

import os
import re
import select
import socket
import time

import pytest

import gossip
from gossip import Cluster, Ours, Theirs, alive, compound, dead, ping, push_pull, seal_packet, seal_stream, \
    send_stream, suspect, with_crc
from test_member_interop import helper  # noqa: F401

KEY, WRONG_KEY, LABEL = bytes(range(32)), bytes(range(1, 33)), "label"
GHOST = "ghost-0123456789ab"
FAR = [1, 1 << 20, (1 << 20) + 1, (1 << 31) - 2, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]


class Attacker:
    """Sends from an address of its own."""

    def __init__(self, cluster, host="200", port=gossip.PORT):
        self.cluster, self.addr = cluster, cluster.net + host
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind((self.addr, port))
        self.sent = 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.udp.close()

    def send(self, packet, to=None):
        for n in [to] if to else [x.addr for x in self.cluster.up()]:
            self.udp.sendto(packet, (n, gossip.PORT))
            self.sent += 1
            if self.sent % 40 == 0:
                time.sleep(0.01)  # so that no socket's buffer overflows

    def heard(self, patience):
        return self.udp.recv(65536) if select.select([self.udp], [], [], patience)[0] else None


def of_all(c, counter):
    return [n.do("stats")[counter] for n in c.up()]


def wait_for_growth(c, counter, before, by):
    c.until(lambda: all(now - was >= by for was, now in zip(before, of_all(c, counter))), 30,
            f"{counter} of all has grown by {by}")


def states(c):
    return {n.base: {s.name: (s.addr, s.state, s.meta, s.incarnation) for s in n.seen.values()} for n in c.up()}


def cluster_of_four(c, kind):
    make = c.ours if kind is Ours else c.theirs
    first = make()
    for _ in range(3):
        make(join=[first])
    c.agree()
    # The rumours of the joins, and the exchanges after them, are over.
    time.sleep(4)


def lies_about(c, incarnation, attacker):
    """All that can be said to change who is there."""
    for victim in [n.name for n in c.up()]:
        other = next(n.name for n in c.up() if n.name != victim)
        addr = next(n.addr for n in c.up() if n.name == victim)
        yield dead(victim, incarnation, victim)
        yield dead(victim, incarnation, other)
        yield dead(victim, incarnation, "nobody")
        yield suspect(victim, incarnation, other)
        yield suspect(victim, incarnation, "nobody")
        yield alive(victim, attacker, incarnation)
        yield alive(victim, addr, incarnation, meta=b"zc\x01lie")
    yield alive(GHOST, attacker, incarnation)


@pytest.mark.sanitized
def test_without_the_key(work, helper):  # noqa: F811
    """Nothing that is not encrypted with the key and bound to the label is looked at, or answered."""
    with Cluster(work, helper, timing="lan", keys=[KEY], label=LABEL, compress=True) as c, \
            gossip.Tap(c.net) as tap, Attacker(c) as attacker:
        cluster_of_four(c, Ours)
        before, refused = states(c), of_all(c, "packets_refused")
        sent = 0
        seen = [p for _, _, p in tap.packets[:30]]
        assert len(seen) == 30
        packets = [b"", b"\xf4", b"\xf4\x05label", b"\xf4\xff" + b"x" * 20, os.urandom(65507), bytes(65507)]
        for lie in lies_about(c, 2, attacker.addr):
            packets += [lie, with_crc(lie), compound(lie, lie), gossip.labelled(LABEL) + lie,
                        seal_packet(lie, WRONG_KEY, LABEL), seal_packet(lie, KEY, "other"),
                        seal_packet(lie, KEY, ""),
                        gossip.labelled(LABEL) + seal_packet(lie, KEY, "")]
        for p in seen:
            middle = len(p) // 2
            packets += [p[:middle], p[:-1], p[:middle] + bytes([p[middle] ^ 1]) + p[middle + 1:], p + b"\x00",
                        p[len(LABEL) + 2:]]
        for p in packets:
            attacker.send(p)
            sent += 1
        wait_for_growth(c, "packets_refused", refused, sent)
        assert attacker.heard(0.5) is None, "a stranger was answered"

        refused = of_all(c, "streams_refused")
        state = push_pull([(GHOST, attacker.addr, 1, "alive")] +
                          [(n.name, n.addr, 9, "left") for n in c.up()])
        streams = [state, gossip.labelled(LABEL) + state, seal_stream(state, WRONG_KEY, LABEL),
                   seal_stream(state, KEY, "other"), seal_stream(state, KEY, ""),
                   gossip.labelled(LABEL) + seal_stream(state, KEY, ""),
                   seal_stream(state, KEY, LABEL)[:-1],
                   gossip.labelled(LABEL) + b"\x0a\xff\xff\xff\xff" + bytes(100),
                   gossip.labelled(LABEL) + b"\x0a\x01\x40\x00\x01" + bytes(100),
                   ping("", 1, attacker.addr, "x"), b"\xf4", os.urandom(100_000)]
        for n in c.up():
            for s in streams:
                assert send_stream(n.addr, s) == b"", "a stranger was answered"
        wait_for_growth(c, "streams_refused", refused, len(streams))
        time.sleep(2)
        assert states(c) == before


@pytest.mark.parametrize("kind", [Ours, Theirs], ids=["zcache", "memberlist"])
def test_replay(work, helper, kind):  # noqa: F811
    """Packets that were recorded when members came, changed and left are sent again when all were restarted.
    They are authentic; they change nothing, as they are about nodes that are no more."""
    with Cluster(work, helper, keys=[KEY], label=LABEL) as c, Attacker(c) as attacker:
        with gossip.Tap(c.net) as tap:
            cluster_of_four(c, kind)
            c.nodes[1].update("something else")
            c.nodes[2].do("leave")
            c.until(lambda: c.nodes[2].name not in c.nodes[0].alive(), 30, "it left")
            time.sleep(1)
            leaving = len(tap.packets)
            c.nodes[2].kill()
            c.nodes[2].start()
            c.agree()
            c.nodes[3].kill()
            time.sleep(1)
        for n in c.up():
            n.kill()
        for n in c.nodes:
            n.changes.clear()
            n.join = [x.addr for x in c.nodes if x is not n and x.up]
            n.start()
        c.agree()
        time.sleep(4)
        before, marks = states(c), {n: len(n.changes) for n in c.up()}
        taken = of_all(c, "packets_in") if kind is Ours else None
        # memberlist's nodes come back with a higher incarnation after a leave: what they say then outweighs it.
        packets = sorted({p for _, _, p in tap.packets[:None if kind is Ours else leaving]})
        for packet in packets:
            attacker.send(packet)
        if kind is Ours:
            wait_for_growth(c, "packets_in", taken, len(packets))
        time.sleep(5)
        changed = [x for n, mark in marks.items() for x in n.changes[mark:]]
        if kind is Ours:
            assert not changed and states(c) == before
        else:
            assert [x for x in changed if x.state == "gone"], "memberlist's own nodes are not fooled?"


@pytest.mark.parametrize("kind", [Ours, Theirs], ids=["zcache", "memberlist"])
def test_replay_of_a_user_message(work, helper, kind):  # noqa: F811
    """A message that a program sent through memberlist comes again. memberlist delivers it each time; here it is
    counted and nothing else, so that there is nothing to be had by sending it again."""
    with Cluster(work, helper, keys=[KEY], label=LABEL) as c, Attacker(c) as attacker:
        cluster_of_four(c, kind)
        before, marks = states(c), {n: len(n.changes) for n in c.up()}
        recorded = seal_packet(b"\x08once only", KEY, LABEL)
        for _ in range(5):
            attacker.send(recorded)
        if kind is Theirs:
            c.until(lambda: all(n.messages == [b"once only".hex()] * 5 for n in c.up()), 30, "it is delivered")
            return
        c.until(lambda: of_all(c, "user_messages") == [5] * 4, 30, "all were counted")
        assert attacker.heard(0.5) is None
        assert states(c) == before and not [x for n, mark in marks.items() for x in n.changes[mark:]]


@pytest.mark.parametrize("kind", [Ours, Theirs], ids=["zcache", "memberlist"])
def test_lies_of_a_member(work, helper, kind):  # noqa: F811
    """Who has the key can say that others are gone, in others' names and with any incarnation. A node that is
    there stays a member; one whose name was made unusable goes on with another name."""
    with Cluster(work, helper, keys=[KEY], label=LABEL) as c, Attacker(c) as attacker:
        cluster_of_four(c, kind)
        marks = {n: len(n.changes) for n in c.up()}
        for incarnation in FAR:
            for lie in lies_about(c, incarnation, attacker.addr):
                attacker.send(seal_packet(with_crc(lie) if incarnation & 1 else lie, KEY, LABEL))
            state = push_pull([(GHOST, attacker.addr, incarnation, "alive")] +
                              [(n.name, n.addr, incarnation, s) for n in c.up() for s in ("left", "dead")])
            for n in c.up():
                send_stream(n.addr, seal_stream(state, KEY, LABEL))
            time.sleep(1)
        gone = {x.name for n, mark in marks.items() for x in n.changes[mark:]
                if x.state in ("dead", "left", "gone")}
        if kind is Theirs:
            assert gone, "memberlist's own nodes are not fooled?"
            return
        c.agree(90)
        now, ever = {n.name for n in c.up()}, set().union(*(n.names for n in c.up()))
        assert gone <= ever - now, f"{gone} were declared gone; of {ever}, {now} are there"
        assert not any(GHOST in n.seen for n in c.up()), c.describe()
        assert {n.addr for n in c.up()} == {s.addr for n in c.up() for s in n.alive().values()}
        # All of it is over: nobody goes any more.
        marks = {n: len(n.changes) for n in c.up()}
        time.sleep(5)
        assert not [x for n, mark in marks.items() for x in n.changes[mark:]
                    if x.state in ("dead", "left") and x.name in now]


def test_floods_of_a_member(work, helper):  # noqa: F811
    """Messages that say they are huge, that inflate, and thousands of names that nobody has."""
    with Cluster(work, helper, keys=[KEY], label=LABEL) as c, Attacker(c) as attacker:
        cluster_of_four(c, Ours)
        before = {n.base: set(n.alive()) for n in c.up()}
        refused, bad = of_all(c, "streams_refused"), of_all(c, "bad")
        # What inflates to 7 MB is inflated and makes no sense then; what would to 51 MB is not.
        streams = [push_pull([], claimed=(1 << 31) - 1), push_pull([(GHOST, attacker.addr, 1, "alive")], claimed=99),
                   gossip.lzw_of_zeros(1), gossip.lzw_of_zeros(7),
                   b"\x08" + gossip.pack({"UserMsgLen": (1 << 31) - 1})]
        for n in c.up():
            for s in streams:
                assert send_stream(n.addr, seal_stream(s, KEY, LABEL)) == b""
        wait_for_growth(c, "streams_refused", refused, 1)
        wait_for_growth(c, "bad", bad, 3)
        bad = of_all(c, "bad")
        for p in (gossip.lzw_of_zeros(7), b"\x07\xff" + b"\xff" * 600, b"\x09\x81\xa3Buf", bytes([7, 1, 0, 1, 7]),
                  b"\x63", b"\x04\x81\xa4Node\xdb\xff\xff\xff\xff"):
            attacker.send(seal_packet(p, KEY, LABEL))
        wait_for_growth(c, "bad", bad, 4)
        for i in range(3000):
            attacker.send(seal_packet(alive(f"{i}-0123456789ab", f"{c.net}{i % 40 + 201}", 1 + i), KEY, LABEL))
        time.sleep(2)
        assert {n.base: set(n.alive()) for n in c.up()} == before
        for n in c.up():
            with open(f"/proc/{n.process.pid}/status", encoding="ascii") as f:
                peak = int(re.search(r"VmHWM:\s+(\d+)", f.read())[1])
            assert peak < 250_000, f"{n.base} took {peak} KiB"
        node = c.ours(join=[c.nodes[0]])
        c.agree()
        assert len(node.alive()) == 5


@pytest.mark.sanitized
def test_no_reflection(work, helper):  # noqa: F811
    """On loopback, where there need be no key: answers go where a question comes from, whatever it says."""
    with Cluster(work, helper) as c, Attacker(c) as attacker, Attacker(c, "201") as third:
        cluster_of_four(c, Ours)
        target = c.nodes[0]
        question = ping(target.name, 77, third.addr, c.nodes[1].name)
        attacker.send(question, target.addr)
        answer = attacker.heard(10)
        assert answer and answer[0] == 2 and len(answer) <= len(question), "an ack, and nothing else"
        for name in (c.nodes[1].name, GHOST, third.addr):
            attacker.send(gossip.indirect_ping(name, 78, third.addr, third.addr, c.nodes[1].name), target.addr)
        assert third.heard(3) is None, "a third party was hit"
        name = c.nodes[1].name
        attacker.send(gossip.indirect_ping(name, 79, c.nodes[1].addr, third.addr, "x"), target.addr)
        assert attacker.heard(10)[0] == 2, "a member is pinged for others"
        assert third.heard(0.5) is None


def test_places_taken_by_strangers(work, helper):  # noqa: F811
    """More connections than a node takes, which say nothing: a newcomer does not have to wait until they end,
    which would be ten seconds."""
    with Cluster(work, helper, keys=[KEY], label=LABEL) as c:
        first = c.ours()
        began, held = time.monotonic(), []
        try:
            for _ in range(200):
                s = socket.socket()
                held.append(s)
                s.settimeout(5)
                s.bind((c.net + "200", 0))
                s.connect((first.addr, gossip.PORT))
            time.sleep(0.7)
            c.ours(join=[first])
            c.agree()
            assert time.monotonic() - began < 9.5
        finally:
            for s in held:
                s.close()
