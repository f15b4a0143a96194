# SPDX-License-Identifier: Apache-2.0
"""Seeds that are names: with several addresses, with others after a while, and beside names that nobody knows.
The names are in a file of hosts that only the node in question sees (a namespace of mounts)."""

import os
import time

from gossip import Cluster, Ours
from test_member_interop import helper  # noqa: F401

SEES = 'mount --bind "$0" /etc/hosts && mount --bind "$1" /etc/nsswitch.conf && shift && exec "$@"'


class Named(Ours):
    """Looks names up in cluster.work/hosts, and nowhere else."""

    def command(self):
        work = self.cluster.work
        with open(os.path.join(work, "nsswitch"), "w", encoding="ascii") as f:
            f.write("hosts: files\n")
        return ["unshare", "--mount", "sh", "-c", SEES, os.path.join(work, "hosts"),
                os.path.join(work, "nsswitch")] + super().command()


def say(c, **names):
    # In place: it is this file that is mounted.
    with open(os.path.join(c.work, "hosts"), "w", encoding="ascii") as f:
        f.writelines(f"{addr} {name}.test\n" for name, addrs in names.items() for addr in addrs)


def test_a_name_of_several(work, helper):  # noqa: F811
    """Nobody listens at the first addresses of a name; the last one is a member's."""
    with Cluster(work, helper) as c:
        first = c.ours()
        say(c, many=[c.net + "251", c.net + "252", c.net + "253", first.addr])
        c.add(Named, ["many.test"], "zc")
        c.agree()


def test_a_name_beside_one_that_is_not_known(work, helper):  # noqa: F811
    """A name comes to have a member's address while another name cannot be looked up at all."""
    with Cluster(work, helper) as c:
        first = c.ours()
        say(c, late=[c.net + "251"])
        c.add(Named, ["late.test", "nobody.test"], "zc")
        time.sleep(1)
        assert not c.agreed()
        say(c, late=[c.net + "251", first.addr])
        c.agree(30)
