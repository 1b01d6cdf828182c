"""Members of the store that come and go; the state reaches new ones by a snapshot."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from aspen import Child, child
from aspen.errors import MemberBehind, QuorumLoss, UsageError
from aspen.kv import Kv
from aspen.kv.options import PEER, StoreOptions
from aspen.replication.options import PeerOptions
from aspen.sim import Cluster, SimNode
from tests.kv.stores import Root, Stores

SMALL = {"compact_entries": 20, "keep_entries": 5}
"""The log is compacted early, so that a new member needs a snapshot."""


class SmallLogs(Stores):
    def main(self, node: SimNode) -> Child[Any]:
        spec = super().main(node)
        joining, options = spec.args
        assert isinstance(options, StoreOptions)
        waits = node.name not in self._voters
        peer = PeerOptions(voters=self._voters, name=PEER, waits=waits, **SMALL)  # type: ignore[arg-type]
        return child(Root, joining, replace(options, peer=peer))


async def fill(kv: Kv) -> None:
    for n in range(60):
        await kv.put(b"key%d" % (n % 20), b"%d" % n)


@pytest.mark.parametrize("seed", range(3))
def test_a_new_member_gets_the_state_by_a_snapshot_and_takes_the_place_of_another(seed: int) -> None:
    with Cluster(seed, 4) as cluster:
        stores = SmallLogs(cluster, voters=("n1", "n2", "n3"))

        async def scenario() -> None:
            await stores.boot()
            await stores.on("n1", fill)
            await asyncio.sleep(3)
            with pytest.raises(UsageError, match="no node that is up is called 'nobody'"):
                await stores.on("n1", lambda kv: kv.member_add("nobody"))
            added = await stores.on("n1", lambda kv: kv.member_add("n4"))

            async def promote(kv: Kv) -> None:
                while True:
                    try:
                        return await kv.member_promote(str(added))
                    except MemberBehind:
                        await asyncio.sleep(0.2)

            await stores.on("n1", promote)
            await stores.on("n1", lambda kv: kv.member_remove("n2"))
            members = await stores.on("n1", lambda kv: kv.members())
            assert sorted((one["node"], one["role"]) for one in members) == [
                ("n1", "voter"),
                ("n3", "voter"),
                ("n4", "voter"),
            ]
            cluster.crash("n3")  # n1 and n4 are a majority now
            await stores.on("n1", lambda kv: kv.put(b"after", b"1", timeout=30.0))
            found = await stores.on("n4", lambda kv: kv.range(prefix=b"key", timeout=30.0))
            assert [item.value for item in found.kvs] == [
                b"%d" % n for n in sorted(range(40, 60), key=lambda n: b"key%d" % (n % 20))
            ]
            hashes = [await stores.on(name, lambda kv: kv.hash(found.revision)) for name in ("n1", "n4")]
            assert len({one["hash"] for one in hashes}) == 1

        cluster.run(scenario())


def test_a_member_without_which_nothing_is_decided_is_not_removed() -> None:
    with Cluster(0, 3) as cluster:
        stores = Stores(cluster)

        async def scenario() -> None:
            await stores.boot()
            await stores.on("n1", lambda kv: kv.put(b"a", b"1"))
            leader = stores.leader()
            assert leader is not None
            lost, other = (name for name in cluster.nodes if name != leader)
            cluster.crash(lost)
            await asyncio.sleep(5)
            with pytest.raises(QuorumLoss):
                await stores.on(leader, lambda kv: kv.member_remove(other))
            await stores.on(leader, lambda kv: kv.member_remove(lost))

        cluster.run(scenario())


def test_a_store_that_stops_in_order_loses_no_request() -> None:
    with Cluster(1, 3) as cluster:
        stores = Stores(cluster)

        async def scenario() -> None:
            await stores.boot()
            done: list[int] = []

            async def write(kv: Kv) -> None:
                for n in range(200):
                    done.append((await kv.put(b"k", b"%d" % n, timeout=20.0)).revision)
                    await asyncio.sleep(0.05)

            writing = asyncio.ensure_future(stores.on("n3", write))
            for name in ("n1", "n2"):
                await asyncio.sleep(2)
                await cluster.stop(name)
                await asyncio.sleep(1)
                cluster.restart(name)
                await cluster.node(name).ready()
            await writing
            assert done == list(range(2, 202))

        cluster.run(scenario())
