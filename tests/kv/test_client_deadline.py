"""A client whose store is not there says so in its own words."""

from __future__ import annotations

import asyncio

import pytest

from aspen.errors import CallTimeout, NotReachable
from aspen.kv import Kv
from aspen.kv.courier import Channel
from aspen.sim import World


class Nobody:
    """Finds no way."""

    async def find(self, failed: int) -> Channel:
        raise NotReachable("nobody is there")


@pytest.mark.parametrize("exactly_once", [True, False])
def test_a_put_that_finds_no_store_is_a_call_timeout_and_not_executed(world: World, exactly_once: bool) -> None:
    async def ask() -> None:
        kv = Kv(Nobody(), asyncio.get_running_loop(), lambda: 0.5, timeout=1.0, exactly_once=exactly_once)
        with pytest.raises(CallTimeout, match="not executed"):
            await kv.put(b"k", b"v")
        with pytest.raises(CallTimeout, match="not executed"):
            await kv.delete(b"k")
        await kv.close()

    world.run(ask())
