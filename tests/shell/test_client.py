"""The client's end: what a node that misbehaves, or is gone, can do to it."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

import pytest

from aspen.errors import AccessDenied, CallTimeout, NoSuchChild, NotReachable, Overloaded, RemoteFailure, UsageError
from aspen.limits import CONTROL_REQUESTS_PER_CLIENT_MAX, CONTROL_SILENCE_S
from aspen.shell import NodeClient
from aspen.shell.protocol import Event, Failure, Request, Response
from aspen.sim import World
from aspen.wire import decode, encode


class Scripted:
    """A channel whose other end is the test."""

    tells_close = True

    def __init__(self) -> None:
        self.sent: list[Any] = []
        self.frames: deque[bytes] = deque()
        self.changed = asyncio.Event()
        self.lost: NotReachable | None = None
        self.closed = False

    def send(self, frame: bytes) -> None:
        if self.lost is not None:
            raise self.lost
        self.sent.append(decode(frame))

    async def recv(self) -> bytes:
        while not self.frames:
            if self.lost is not None:
                raise self.lost
            self.changed.clear()
            await self.changed.wait()
        return self.frames.popleft()

    def say(self, *messages: object) -> None:
        self.frames.extend(m if isinstance(m, bytes) else encode(m) for m in messages)
        self.changed.set()

    def lose(self) -> None:
        self.lost = NotReachable("the connection is lost")
        self.changed.set()

    def close(self) -> None:
        self.closed = True
        self.lose()


def run(world: World, main: Any) -> Any:
    async def with_client() -> Any:
        channel = Scripted()
        async with NodeClient(channel) as client:
            await main(client, channel)
        assert channel.closed

    return world.run(with_client())


def test_answers_go_to_their_requests_whatever_the_order(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        events: list[Any] = []
        one, two = client.begin("a", lambda *event: events.append(event)), client.begin("b", x=1)
        assert channel.sent == [Request(1, "a", {}), Request(2, "b", {"x": 1})]
        channel.say(
            Response(2, "two"), Event(1, "output", "o"), Event(9, "output", "?"), Response(9, 1), Response(1, 1)
        )
        assert (await two.wait(), await one.wait()) == ("two", 1)
        assert events == [("output", "o")]

    run(world, main)


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        ("usage", UsageError),
        ("not_found", NoSuchChild),
        ("denied", AccessDenied),
        ("timeout", CallTimeout),
        ("overloaded", Overloaded),
        ("cancelled", RemoteFailure),
        ("version", RemoteFailure),
        ("failed", RemoteFailure),
        ("something new", RemoteFailure),
    ],
)
def test_each_kind_of_failure_is_an_error_of_its_own(world: World, kind: str, error: type[Exception]) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        asked = client.begin("a")
        channel.say(Failure(1, kind, "the sentence", "the detail"))
        with pytest.raises(error, match="the sentence") as caught:
            await asked.wait()
        if isinstance(caught.value, RemoteFailure):
            assert (caught.value.kind, caught.value.detail) == (kind, "the detail")

    run(world, main)


def test_silence_is_noticed_and_pings_are_no_silence(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        asked = client.begin("a")

        async def ping() -> None:
            for _ in range(10):
                await asyncio.sleep(CONTROL_SILENCE_S / 2)
                channel.say(Event(0, "ping", None))

        pinging = asyncio.ensure_future(ping())
        begun = world.clock.mono_ns()
        with pytest.raises(NotReachable, match="has said nothing for 15 s"):
            await asked.wait()
        assert pinging.done() and world.clock.mono_ns() - begun > 6 * CONTROL_SILENCE_S * 1e9
        again = client.begin("b")
        channel.say(Response(2, "late but there"))
        assert await again.wait() == "late but there"

    run(world, main)


@pytest.mark.parametrize("frame", [b"junk", encode("text"), encode(Request(1, "info", {}))])
def test_a_node_that_talks_nonsense_is_left(world: World, frame: bytes) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        asked = client.begin("a")
        channel.say(frame)
        with pytest.raises(NotReachable, match="is it the same Aspen"):
            await asked.wait()
        assert channel.closed and client.lost

    run(world, main)


def test_a_lost_connection_fails_all_that_is_in_progress_and_what_comes_later(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        asked = [client.begin("a") for _ in range(3)]
        channel.lose()
        for request in asked:
            with pytest.raises(NotReachable):
                await request.wait()
        with pytest.raises(NotReachable):
            await client.request("b")
        assert isinstance(await client.wait_lost(), NotReachable)

    run(world, main)


def test_denied_in_general_is_the_end_and_other_failures_are_not(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        asked = client.begin("a")
        channel.say(Failure(0, "failed", "session crashed"))
        with pytest.raises(RemoteFailure, match="session crashed"):
            await asked.wait()
        assert client.lost is None
        asked = client.begin("b")
        channel.say(Failure(0, "denied", "no trust"))
        with pytest.raises(AccessDenied, match="no trust"):
            await asked.wait()
        with pytest.raises(AccessDenied, match="no trust"):
            await client.request("c")

    run(world, main)


def test_too_many_requests_are_refused_here(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        for _ in range(CONTROL_REQUESTS_PER_CLIENT_MAX):
            client.begin("a")
        with pytest.raises(Overloaded):
            client.begin("a")

    run(world, main)


def test_a_cancelled_wait_interrupts_the_request_there(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        waiting = asyncio.ensure_future(client.request("a"))
        await asyncio.sleep(0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert [type(message).__name__ for message in channel.sent] == ["Request", "Cancel"]
        channel.say(Failure(1, "cancelled", "a was interrupted"))
        await asyncio.sleep(0.1)

    run(world, main)


def test_what_on_event_raises_comes_out_of_the_request(world: World) -> None:
    async def main(client: NodeClient, channel: Scripted) -> None:
        def fail(kind: str, data: object) -> None:
            raise ValueError("on purpose")

        asked = client.begin("a", fail)
        channel.say(Event(1, "output", "x"), Response(1, 1))
        with pytest.raises(ValueError, match="on purpose"):
            await asked.wait()

    run(world, main)
