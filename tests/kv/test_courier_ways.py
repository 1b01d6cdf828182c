"""The ways of a courier to the store: one that is of no use is let go of."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aspen.errors import NotReachable, Overloaded
from aspen.kv.codec import encode_batch
from aspen.kv.courier import Courier, Done
from aspen.kv.door import ADMIN, WRITE
from aspen.sim import World


class Way:
    """Answers, or is cut."""

    leads = True

    def __init__(self, *, cut: bool) -> None:
        self.cut, self.closed = cut, False

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        if self.cut:
            asyncio.get_running_loop().call_soon(done, None, NotReachable("the node is gone"))
        else:
            asyncio.get_running_loop().call_soon(done, b"answer", None)

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        return


class Ways:
    """A node that dies once, and is found again afterwards."""

    def __init__(self) -> None:
        self.ways = [Way(cut=True), Way(cut=False)]
        self.found = 0

    async def find(self, failed: int) -> Way:
        self.found += 1
        return self.ways[self.found - 1]


def test_an_exchange_by_itself_lets_go_of_a_way_that_is_cut(world: World) -> None:
    """A client that asks for nothing but operations must come back after its node has been started anew."""
    ways = Ways()

    async def ask() -> bytes:
        loop = asyncio.get_running_loop()
        courier = Courier(ways, loop, lambda: 0.5)
        with pytest.raises(NotReachable, match="the node is gone"):
            await courier.exchange(ADMIN, b"?", loop.time() + 5.0)
        answer = await courier.exchange(ADMIN, b"?", loop.time() + 5.0)
        await courier.aclose()
        return answer

    assert world.run(ask()) == b"answer"
    assert ways.ways[0].closed


class Busy(Way):
    """Refuses once, and then answers."""

    refused = False

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        loop = asyncio.get_running_loop()
        if self.refused:
            loop.call_soon(done, encode_batch([b"answer"]), None)
        else:
            self.refused = True
            loop.call_soon(done, None, Overloaded("not now"))


def test_a_pause_ends_also_when_the_loop_calls_a_little_before_its_time(world: World) -> None:
    """Loops call timers early by what their clock can tell apart; nobody else comes to send what waits."""
    ways = Ways()
    ways.ways = [Busy(cut=False)]

    async def ask() -> bytes:
        loop = asyncio.get_running_loop()
        early: list[float] = []

        def call_at(when: float, callback: Any, *args: Any) -> Any:
            early.append(when)
            return loop.call_later(0, callback, *args)

        class Early:
            time, create_future, create_task = loop.time, loop.create_future, loop.create_task
            call_soon, call_later = loop.call_soon, loop.call_later

        Early.call_at = staticmethod(call_at)  # type: ignore[attr-defined]
        courier = Courier(ways, cast("asyncio.AbstractEventLoop", Early), lambda: 0.5)
        answer = await courier.submit(WRITE, b"?", loop.time() + 5.0, repeatable=True)
        assert early
        await courier.aclose()
        return answer

    assert world.run(ask()) == b"answer"
