"""The ways of a courier to the store: one that is of no use is let go of."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from aspen.errors import AccessDenied, AspenError, NotReachable, Overloaded, Unknown, WrongKey
from aspen.kv.codec import decode_batch, encode_batch
from aspen.kv.courier import Courier, Done
from aspen.kv.door import ADMIN, READ, WRITE
from aspen.limits import KV_CLIENT_SILENCE_S
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
            asyncio.get_running_loop().call_soon(done, encode_batch([b"answer"]) if kind == WRITE else b"answer", None)

    def close(self) -> None:
        self.closed = True

    async def wait_closed(self) -> None:
        return


class Silent(Way):
    """Takes everything and answers when it is told to."""

    def __init__(self) -> None:
        super().__init__(cut=False)
        self.asked: list[tuple[int, bytes, Done]] = []
        self.both = asyncio.Event()

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        self.asked.append((kind, body, done))
        if len(self.asked) == 2:
            self.both.set()


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


def test_a_silent_way_is_left_in_the_time_of_an_election(world: World) -> None:
    """A process that stands still looks like a sound connection. What is harmless to repeat is asked elsewhere."""
    silent, sound = Silent(), Silent()

    class Two:
        async def find(self, failed: int) -> Way:
            return sound if failed else silent

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        courier = Courier(Two(), loop, lambda: 0.5)
        end_s = loop.time() + 60.0
        began_s = loop.time()
        once = courier.submit(WRITE, b"once", end_s, repeatable=False)
        again = courier.submit(WRITE, b"again", end_s, repeatable=True)
        read = courier.submit(READ, b"read", end_s, repeatable=True)
        await sound.both.wait()
        took_s = loop.time() - began_s
        assert KV_CLIENT_SILENCE_S <= took_s < KV_CLIENT_SILENCE_S + 0.5
        assert [(kind, decode_batch(body)) for kind, body, _ in sound.asked] == [(WRITE, [b"again"]), (READ, [b"read"])]
        for _, body, done in sound.asked:
            done(encode_batch([b"new " + command for command in decode_batch(body)]), None)
        assert (await again, await read) == (b"new again", b"new read")
        assert not once.done()
        assert not silent.closed
        # It goes on after all: who could not ask again has the answer, and nobody has a second one.
        for _, body, done in silent.asked:
            done(encode_batch([b"old " + command for command in decode_batch(body)]), None)
        assert await once == b"old once"
        assert again.result() == b"new again"
        assert courier._held == 0
        await courier.aclose()

    world.run(ask())


def test_a_way_that_answers_slowly_is_not_left(world: World) -> None:
    slow = Silent()
    found = 0

    class One:
        async def find(self, failed: int) -> Way:
            nonlocal found
            found += 1
            return slow

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        courier = Courier(One(), loop, lambda: 0.5)
        waiting = [courier.submit(READ, b"%d" % n, loop.time() + 60.0, repeatable=True) for n in range(2)]
        waiting.append(courier.submit(WRITE, b"w", loop.time() + 60.0, repeatable=True))
        await asyncio.sleep(KV_CLIENT_SILENCE_S * 0.8)
        for kind, body, done in slow.asked:
            if kind == WRITE:
                done(encode_batch(decode_batch(body)), None)
        await asyncio.sleep(KV_CLIENT_SILENCE_S * 0.8)
        for kind, body, done in slow.asked:
            if kind == READ:
                done(encode_batch(decode_batch(body)), None)
        assert await asyncio.gather(*waiting) == [b"0", b"1", b"w"]
        assert found == 1
        await courier.aclose()

    world.run(ask())


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


class Lasting(Way):
    """Runs until it is closed, as one whose node answers does; tells whether its own leads."""

    def __init__(self, *, leads: bool) -> None:
        super().__init__(cut=False)
        self.leads = leads
        self.ended = asyncio.Event()

    def begin(self, kind: int, body: bytes, done: Done) -> None:
        asyncio.get_running_loop().call_soon(done, body, None)

    def close(self) -> None:
        super().close()
        self.ended.set()

    async def wait_closed(self) -> None:
        await self.ended.wait()


def test_a_client_that_ends_ends_the_ways_that_it_is_about_to_leave(world: World) -> None:
    """One that has moved to the leader keeps the way before for a while; its end waits for all ways that it has had."""
    follower, leader = Lasting(leads=False), Lasting(leads=True)

    class Two:
        async def find(self, failed: int) -> Way:
            return leader if courier.is_connected else follower

    async def ask() -> None:
        nonlocal courier
        loop = asyncio.get_running_loop()
        courier = Courier(Two(), loop, lambda: 0.5)
        while courier._channel is not leader:
            await courier.submit(WRITE, b"w", loop.time() + 5.0, repeatable=True)
        assert not follower.closed
        await courier.aclose()
        assert follower.closed
        assert leader.closed

    courier = cast(Courier, None)
    world.run(ask())


def test_a_client_that_ends_ends_a_silent_way_that_it_has_left(world: World) -> None:
    silent, sound = Silent(), Silent()

    class Two:
        async def find(self, failed: int) -> Way:
            return sound if failed else silent

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        courier = Courier(Two(), loop, lambda: 0.5)
        once = courier.submit(WRITE, b"once", loop.time() + 60.0, repeatable=False)
        await asyncio.sleep(KV_CLIENT_SILENCE_S * 1.5)
        assert courier._channel is None
        assert not silent.closed
        await courier.aclose()
        assert silent.closed
        with pytest.raises(Unknown):
            await once

    world.run(ask())


@pytest.mark.parametrize("repeatable", [True, False])
def test_what_a_client_has_sent_when_it_ends_is_in_doubt(world: World, repeatable: bool) -> None:
    """It said that such a write was not executed, and it had been."""
    way = Silent()

    class One:
        async def find(self, failed: int) -> Way:
            return way

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        courier = Courier(One(), loop, lambda: 0.5)
        sent = courier.submit(WRITE, b"sent", loop.time() + 60.0, repeatable=repeatable)
        read = courier.submit(READ, b"read", loop.time() + 60.0, repeatable=True)
        await way.both.wait()
        waits = courier.submit(WRITE, b"waits", loop.time() + 60.0, repeatable=repeatable)
        await courier.aclose()
        with pytest.raises(Unknown, match="closed"):
            await sent
        for other in (read, waits):
            with pytest.raises(NotReachable, match="closed"):
                await other

    world.run(ask())


def test_a_leader_that_only_others_reach_is_not_looked_for_at_each_answer(world: World) -> None:
    class Handing(Way):
        leads = False

    class Far:
        def __init__(self) -> None:
            self.found = 0

        async def find(self, failed: int) -> Way:
            self.found += 1
            return Handing(cut=False)

    async def ask() -> int:
        far, loop = Far(), asyncio.get_running_loop()
        courier = Courier(far, loop, lambda: 0.5)
        for _ in range(600):
            await courier.submit(WRITE, b"put", loop.time() + 5.0, repeatable=True)
            await asyncio.sleep(0.1)
        await courier.aclose()
        return far.found

    # At 0, 1, 3, 7, 15, 31 and 61 seconds, about; the first time when it connects.
    assert 5 <= world.run(ask()) <= 8


def test_a_node_that_ends_in_the_handshake_refuses_nobody_for_good(world: World) -> None:
    """Killed at that moment it looks as if another node answered at its address."""

    class Ending:
        def __init__(self, error: AspenError) -> None:
            self.error, self.found = error, 0

        async def find(self, failed: int) -> Way:
            self.found += 1
            if self.found < 4:
                raise self.error
            return Way(cut=False)

    async def ask(error: AspenError) -> bytes:
        loop = asyncio.get_running_loop()
        courier = Courier(Ending(error), loop, lambda: 0.5)
        try:
            return await courier.submit(WRITE, b"put", loop.time() + 5.0, repeatable=True)
        finally:
            await courier.aclose()

    assert world.run(ask(WrongKey("broke off"))) == b"answer"
    with pytest.raises(AccessDenied):
        world.run(ask(AccessDenied("not trusted")))
