# SPDX-License-Identifier: Apache-2.0
"""The random walk of the contract in rough going: a cache too small, one that is freed, a store that stumbles.

The seed is printed; ZCACHE_MODEL_SEED runs one again, ZCACHE_MODEL_STEPS sets the length."""

import os

import pytest
from model import play

STEPS = int(os.environ.get("ZCACHE_MODEL_STEPS", "1500"))


@pytest.mark.sanitized
def test_cache_smaller_than_the_data(zc, stores, tree):
    """60 MiB of data in a cache of 16 MiB: what is evicted comes back right."""
    folder, sizes = tree
    server = stores.get("versitygw")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server, size="16MiB")

    def between(step, _):
        if step % 50 == 0:
            assert m.used() <= 17 * (1 << 20)
    play(m, folder, sizes, STEPS // 3, between)
    cache = m.status()["cache"]
    assert cache["used_bytes"] <= cache["capacity_bytes"] == 16 << 20


def test_while_the_cache_is_freed(zc, stores, tree):
    """`zcache free` of random folders between the operations changes no answer."""
    folder, sizes = tree
    server = stores.get("minio")
    m = zc.mount("s3://" + stores.bucket(server, "tree", folder), server=server)

    def between(step, rng):
        if step % 40 == 0:
            zc.ok("free", m.join(rng.choice(["", "large", "many", "many/3", "chunk"])))
    play(m, folder, sizes, STEPS // 2, between)


def test_store_that_stumbles(zc, proxy, stores, tree):
    """One request in twelve fails in one way or another; no reader notices."""
    folder, sizes = tree
    p, server = proxy
    bucket = stores.bucket(server, "tree", folder)
    m = zc.mount(f"s3://{bucket}", env={**server.env(), "AWS_ENDPOINT_URL": p.url}, size="32MiB")
    for kind in ("cut", "reset", "drop", "slowdown", "error", "short"):
        p.fault(kind, 12 * 6)
    play(m, folder, sizes, STEPS // 3)
    assert p.stats()["faults"] > 5
