"""Commands that a member has handed on to a leader that stands still."""

from __future__ import annotations

import asyncio

import pytest

from aspen.errors import Unknown
from aspen.kv.codec import encode_batch, encode_command
from aspen.kv.door import WRITE
from aspen.kv.options import NAME
from aspen.kv.state_machine import KvStateMachine
from aspen.kv.types import PutRequest
from aspen.otp import whereis
from tests.kv.stores import Stores, run

ELECTIONS_S = 4.0
"""A few elections; less than it takes a link to be given up."""


def test_they_are_given_up_as_soon_as_there_is_another_leader() -> None:
    async def scenario(stores: Stores) -> None:
        await stores.on("n1", lambda kv: kv.put(b"k", b"v"))
        leader = stores.leader()
        assert leader is not None
        follower = next(name for name in stores.cluster.nodes if name != leader)

        async def put() -> None:
            body = encode_batch([encode_command(PutRequest(b"k", b"w"))])
            with pytest.raises(Unknown, match="does not lead any more"):
                await whereis(KvStateMachine, NAME).exchange(WRITE, body, 0)

        loop = asyncio.get_running_loop()
        began = loop.time()
        stores.cluster.pause(leader)
        await stores.cluster.node(follower).call(put)
        assert loop.time() - began < ELECTIONS_S
        stores.cluster.unpause(leader)

    run(scenario)
