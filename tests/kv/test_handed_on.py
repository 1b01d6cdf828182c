"""Commands that a member has handed on to a leader that stands still."""

from __future__ import annotations

import asyncio

from aspen.kv import Kv
from tests.kv.stores import Stores, run

ELECTIONS_S = 4.0
"""A few elections; much less than it takes a link to be given up."""


def test_they_are_asked_again_as_soon_as_there_is_another_leader() -> None:
    async def scenario(stores: Stores) -> None:
        loop = asyncio.get_running_loop()

        async def put(kv: Kv) -> None:
            await kv.put(b"k", b"v")

        for name in stores.cluster.nodes:
            await stores.on(name, put)
        leader = stores.leader()
        assert leader is not None
        others = [name for name in stores.cluster.nodes if name != leader]
        began = loop.time()
        stores.cluster.pause(leader)
        await asyncio.gather(*(stores.on(name, put) for name in others))
        assert loop.time() - began < ELECTIONS_S
        stores.cluster.unpause(leader)

    run(scenario)
