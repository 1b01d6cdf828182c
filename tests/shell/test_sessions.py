"""What clients can do to the node, by mistake or on purpose: nothing but to themselves."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from conftest import ADA, ADDRESS, OLE

from aspen.errors import AspenError, NotReachable, Overloaded, RemoteFailure
from aspen.limits import (
    CONTROL_CLIENTS_MAX,
    CONTROL_FRAMES_WAITING_MAX,
    CONTROL_IDLE_S,
    CONTROL_LOST_S,
    CONTROL_PING_S,
    CONTROL_REQUEST_BYTES_MAX,
    CONTROL_SWEEP_S,
    FRAME_BYTES_MAX,
)
from aspen.otp import kill, whereis
from aspen.otp.tree import resolve
from aspen.shell import ControlServer, NodeClient
from aspen.shell.protocol import Event, Failure, Request, Response
from aspen.shell.session import ClientSession, RequestWorker
from aspen.sim.transport import VirtualChannel
from aspen.wire import decode, encode
from supervisors.shell import SERVER

INFO = encode(Request(7, "info", {}))


async def answer(channel: VirtualChannel) -> Any:
    """The next thing that is no ping."""
    while True:
        message = decode(await channel.recv())
        if not (isinstance(message, Event) and message.kind == "ping"):
            return message


async def works(channel: VirtualChannel) -> None:
    channel.send(INFO)
    message = await answer(channel)
    assert isinstance(message, Response) and message.id == 7


def sessions(shop: Any) -> list[Any]:
    return [p for p in shop.system.table.values() if p.blueprint.cls is ClientSession]


def workers(shop: Any) -> list[Any]:
    return [p for p in shop.system.table.values() if p.blueprint.cls is RequestWorker]


def test_garbage_is_answered_and_the_session_goes_on(shop: Any) -> None:
    rng = random.Random(7)
    good = encode(Request(3, "eval", {"code": "1 + 1"}))

    async def main() -> None:
        channel = shop.channel()
        for length in (0, 1, 2, 100, 10_000):
            channel.send(rng.randbytes(length))
            message = await answer(channel)
            assert isinstance(message, Failure) and (message.id, message.kind) == (0, "usage")
            assert "a frame was no message" in message.error
        for _ in range(300):
            frame = bytearray(good)
            frame[rng.randrange(len(frame))] ^= 1 << rng.randrange(8)
            channel.send(bytes(frame))
            await answer(channel)
        await works(channel)
        assert not shop.system.crashes

    shop.run(main)


def test_oversized_frames_are_answered_and_dropped(shop: Any) -> None:
    async def main() -> None:
        channel = shop.channel()
        for size in (CONTROL_REQUEST_BYTES_MAX + 1, FRAME_BYTES_MAX):
            channel.send(bytes(size))
            message = await answer(channel)
            assert message.kind == "usage" and f"{size} bytes was dropped" in message.error
        await works(channel)
        async with shop.client() as client:
            with pytest.raises(AspenError, match="send it in pieces"):
                await client.request("eval", code="x" * CONTROL_REQUEST_BYTES_MAX)
            assert await client.request("info")

    shop.run(main)


def test_a_flood_of_one_client_is_dropped_and_told_and_others_are_served(shop: Any) -> None:
    async def main() -> None:
        flooder = shop.channel()
        async with shop.client(OLE) as other:
            await works(flooder)
            resolve(shop.system, sessions(shop)[0].path)
            for _ in range(200):
                flooder.send(INFO)
            answers: list[Any] = []
            reading = asyncio.ensure_future(_collect(flooder, answers))
            assert (await other.request("info"))["name"]
            await asyncio.sleep(1)
            reading.cancel()
            assert 1 <= len(answers) <= 201
            assert all(isinstance(a, (Response, Failure)) for a in answers)
            await works(flooder)

    shop.run(main)


async def _collect(channel: VirtualChannel, answers: list[Any]) -> None:
    while True:
        answers.append(await answer(channel))


def test_frames_that_wait_are_bounded(shop: Any) -> None:
    async def main() -> None:
        channel = shop.channel()
        await works(channel)
        (session,) = sessions(shop)
        from aspen.otp import sys

        await sys.suspend(session)
        for id in range(100, 100 + CONTROL_FRAMES_WAITING_MAX + 50):
            channel.send(encode(Request(id, "info", {})))
        await asyncio.sleep(1)
        assert len(session.mailbox) == CONTROL_FRAMES_WAITING_MAX
        message = await answer(channel)
        assert (message.id, message.kind) == (0, "overloaded"), "told once"
        await sys.resume(session)
        answered = {(await answer(channel)).id for _ in range(CONTROL_FRAMES_WAITING_MAX)}
        assert answered == set(range(100, 100 + CONTROL_FRAMES_WAITING_MAX))
        await works(channel)

    shop.run(main)


def test_more_clients_than_there_are_seats(shop: Any) -> None:
    async def main() -> None:
        channels = [shop.channel() for _ in range(CONTROL_CLIENTS_MAX)]
        for channel in channels:
            await works(channel)
        assert len(sessions(shop)) == CONTROL_CLIENTS_MAX
        late = shop.channel()
        late.send(INFO)
        message = await answer(late)
        assert (message.id, message.kind) == (0, "overloaded")
        assert f"{CONTROL_CLIENTS_MAX} clients are attached" in message.error
        client = NodeClient(late)
        with pytest.raises(Overloaded):
            await client.request("info")
        channels[0].close()
        await asyncio.sleep(CONTROL_PING_S + 0.1)
        assert (await client.request("info"))["name"]
        client.close()

    shop.run(main)


def test_a_client_that_says_goodbye_has_no_seat_any_more(shop: Any) -> None:
    async def main() -> None:
        for _ in range(5 * CONTROL_CLIENTS_MAX):
            async with shop.client() as client:
                assert await client.request("info")
        await asyncio.sleep(0.1)
        assert await whereis(ControlServer, SERVER).clients() == 0
        assert sessions(shop) == []
        client = shop.client()
        hanging = client.begin("eval", code="try: await asyncio.sleep(999)\nfinally: node._control.stops.append(1)")
        await asyncio.sleep(0.1)
        client.close()
        await asyncio.sleep(0.1)
        assert shop.control.stops == [1], "what it had in progress is cancelled"
        with pytest.raises(NotReachable):
            await hanging.wait()

    shop.run(main)


def test_clients_that_go_without_a_word_make_room_when_it_is_needed(shop: Any) -> None:
    async def main() -> None:
        for _ in range(3):
            channels = [shop.channel() for _ in range(CONTROL_CLIENTS_MAX)]
            for channel in channels:
                await works(channel)
            for channel in channels:
                channel.lose("killed")
            await asyncio.sleep(CONTROL_SWEEP_S)  # the latest look, when there was room for nobody
        assert await whereis(ControlServer, SERVER).clients() == CONTROL_CLIENTS_MAX
        await asyncio.sleep(CONTROL_PING_S + 0.1)
        assert await whereis(ControlServer, SERVER).clients() == 0, "found out without need, too"
        assert sessions(shop) == []
        assert not shop.system.crashes

    shop.run(main)


def test_clients_that_are_there_keep_their_seats_however_many_ask(shop: Any) -> None:
    async def main() -> None:
        channels = [shop.channel() for _ in range(CONTROL_CLIENTS_MAX)]
        for channel in channels:
            await works(channel)
        for _ in range(20):
            late = shop.channel()
            late.send(INFO)
            assert (await answer(late)).kind == "overloaded"
        for channel in channels:
            await works(channel)

    shop.run(main)


def test_a_lost_client_ends_its_own_evaluations_and_nothing_else(shop: Any) -> None:
    async def main() -> None:
        async with shop.client(OLE) as other:
            await other.request("info")
            channel = shop.channel()
            code = "try: await asyncio.sleep(999)\nfinally: node._control.stops.append(1)"
            channel.send(encode(Request(1, "eval", {"code": code})))
            channel.send(encode(Request(2, "trace", {"path": "/bank/ana", "seconds": 3000})))
            await asyncio.sleep(0.1)
            assert len(workers(shop)) == 2
            alive = set(shop.system.table)
            channel.lose("pulled cable")
            await asyncio.sleep(CONTROL_PING_S + 0.1)
            assert shop.control.stops == [1]
            assert workers(shop) == [] and len(sessions(shop)) == 1
            assert len(alive - set(shop.system.table)) == 3
            assert resolve(shop.system, "/bank/ana").debug is None
            assert await whereis(ControlServer, SERVER).clients() == 1
            assert await other.request("tree")
            assert not shop.system.crashes

    shop.run(main)


def test_a_slow_reader_costs_its_own_output_only_and_gets_its_answer(shop: Any) -> None:
    async def main() -> None:
        slow = shop.channel()
        slow.send(encode(Request(1, "eval", {"code": "for i in range(600):\n    print(i); await asyncio.sleep(0)\n"})))
        async with shop.client(OLE) as other:
            await asyncio.sleep(3)
            assert await other.request("info")
        seen: list[str] = []
        dropped = 0
        while True:
            message = await answer(slow)
            if isinstance(message, Response):
                break
            if message.kind == "dropped":
                dropped += message.data
            else:
                seen.append(message.data)
        total = sum(len(f"{i}\n") for i in range(600))
        assert dropped and len("".join(seen)) + dropped == total
        await works(slow)

    shop.run(main)


def test_a_reader_that_never_reads_is_lost(shop: Any) -> None:
    async def main() -> None:
        slow = shop.channel()
        code = "while True:\n    print('x'); await asyncio.sleep(0.001)\n"
        slow.send(encode(Request(1, "eval", {"code": code})))
        await asyncio.sleep(CONTROL_LOST_S * 2)
        assert sessions(shop) == [] and workers(shop) == []

    shop.run(main)


def test_an_idle_session_ends_and_the_client_gets_a_new_one(shop: Any) -> None:
    async def main() -> None:
        notices: list[str] = []
        async with shop.client(on_notice=notices.append) as client:
            await shop.evaluate(client, "x = 1")
            await asyncio.sleep(CONTROL_IDLE_S - 60)
            assert (await shop.evaluate(client, "x"))[1] == "1"
            long = client.begin("eval", code=f"await asyncio.sleep({CONTROL_IDLE_S * 2})")
            await long.wait()
            assert notices == [], "not idle while something is in progress"
            await asyncio.sleep(CONTROL_IDLE_S + 60)
            assert len(notices) == 1 and "your variables are forgotten" in notices[0]
            assert sessions(shop) == []
            with pytest.raises(RemoteFailure, match="'x' is not defined"):
                await shop.evaluate(client, "x")

    shop.run(main)


def test_a_crashed_session_is_told_to_its_client_and_harms_no_other(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client, shop.client(OLE) as other:
            await other.request("info")
            evaluating = client.begin("eval", code="await asyncio.sleep(99)")
            tracing = other.begin("trace", None, path="/bank/ana", seconds=2)
            await asyncio.sleep(0.1)
            (mine,) = {p.parent for p in workers(shop) if p.label.startswith("eval")}
            kill(mine)
            with pytest.raises(RemoteFailure, match=r"your session on the node crashed \(killed\)"):
                await evaluating.wait()
            assert await tracing.wait() == 0
            assert (await shop.evaluate(client, "1"))[1] == "1", "a new session"
            assert shop.system.root.alive and await whereis(ControlServer, SERVER).clients() == 2

    shop.run(main)


def test_a_server_that_is_killed_is_started_again_on_the_same_address(shop: Any) -> None:
    async def main() -> None:
        for _ in range(2):
            async with shop.client() as client:
                evaluating = client.begin("eval", code="await asyncio.sleep(99)")
                await asyncio.sleep(0.1)
                kill(whereis(ControlServer, SERVER))
                with pytest.raises(NotReachable, match="is lost"):
                    await evaluating.wait()
                with pytest.raises(NotReachable, match="is lost"):
                    await client.request("info")
            await asyncio.sleep(6)
            assert workers(shop) == [] and sessions(shop) == []
            assert await whereis(ControlServer, SERVER).address() == ADDRESS
        async with shop.client() as client:
            assert (await client.request("tree", path="/shell"))["children"][1]["status"] == "running"

    shop.run(main)


def test_a_client_can_restart_the_shell_that_serves_it(shop: Any) -> None:
    async def main() -> None:
        async with shop.client() as client:
            with pytest.raises(NotReachable):
                await client.request("restart", path="/shell")
        await asyncio.sleep(6)
        async with shop.client() as client:
            assert (await client.request("tree", path="/shell"))["restarts"] == 1

    shop.run(main)


def test_sessions_that_cannot_start_are_refused(shop: Any) -> None:
    async def main() -> None:
        from aspen.otp import sys

        supervisor = resolve(shop.system, "/shell/sessions")
        await sys.suspend(supervisor)
        async with shop.client() as client:
            with pytest.raises(Overloaded, match="no session could be started"):
                await client.request("info")
            await sys.resume(supervisor)
            await asyncio.sleep(1)
            assert sessions(shop) == [], "the one that came too late did not stay"
            assert (await client.request("info"))["name"]

    shop.run(main)


def test_the_key_of_the_node_is_in_no_state(shop: Any) -> None:
    from conftest import SERVER as NODE_KEY

    async def main() -> None:
        async with shop.client() as client:
            for path in ("/shell", "/shell/server", "/shell/sessions", "/shell/sessions/client-1", "/"):
                assert NODE_KEY.curve_secret_z85 not in repr(await client.request("state", path=path))
            crash = RuntimeError("on purpose")
            shop.system.exit(None, resolve(shop.system, "/shell"), crash)
            assert ADA.curve_secret_z85 not in repr(shop.system.crashes)

    shop.run(main)
