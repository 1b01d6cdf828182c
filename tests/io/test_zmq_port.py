"""The port over real loopback sockets: who gets in, and what the others can do to it (nothing)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop
import zmq
import zmq.asyncio
from zmq.utils.monitor import parse_monitor_message

from aspen.errors import AccessDenied, ConfigError, NotReachable, Overloaded, UsageError
from aspen.io import zmq_socket
from aspen.io.keys import Identity
from aspen.io.zmq_port import ControlClient, Refusal, ZmqControlPort, ZmqTransport
from aspen.limits import FRAME_BYTES_MAX
from aspen.traits import ControlPort, Transport

SERVER, ANA, BEN, EVE = (Identity.from_seed(letter * 32) for letter in (b"s", b"a", b"b", b"e"))
ANYWHERE = "tcp://127.0.0.1:0"
LIMIT_S = 20.0

Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(params=[asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Run:
    def run_within_limit(main: Coroutine[Any, Any, None]) -> None:
        async def limited() -> None:
            async with asyncio.timeout(LIMIT_S):
                await main

        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(limited())

    return run_within_limit


class Node:
    """A port that keeps what it gets and answers each frame with `re:` and the frame."""

    def __init__(self, address: str = ANYWHERE) -> None:
        self.trusted = {ANA.curve_public_z85, BEN.curve_public_z85}
        self.frames: asyncio.Queue[tuple[bytes, str, bytes]] = asyncio.Queue()
        self.refusals: asyncio.Queue[Refusal] = asyncio.Queue()
        self.transport = ZmqTransport(on_refused=self.refusals.put_nowait)
        self.port = self.bind(address)

    def bind(self, address: str) -> ZmqControlPort:
        return self.transport.bind_control(
            address, SERVER.curve_secret_z85, lambda key: key in self.trusted, self.on_frame
        )

    def on_frame(self, client: bytes, key: str, frame: bytes) -> None:
        self.frames.put_nowait((client, key, frame))
        self.port.send(client, b"re:" + frame[:100])

    def connect(self, who: Identity = ANA, **changes: Any) -> Coroutine[Any, Any, ControlClient]:
        known = {"server_public_z85": SERVER.curve_public_z85, "secret_key_z85": who.curve_secret_z85}
        return ControlClient.connect(self.port.address, **{**known, **changes})

    async def check(self) -> None:
        """It serves a trusted client still, and nothing else has arrived."""
        assert self.frames.empty()
        async with await self.connect() as client:
            client.send(b"check")
            assert await client.recv() == b"re:check"
        _, key, frame = self.frames.get_nowait()
        assert (key, frame) == (ANA.curve_public_z85, b"check")
        assert self.frames.empty()


@asynccontextmanager
async def node(address: str = ANYWHERE) -> AsyncIterator[Node]:
    served = Node(address)
    try:
        yield served
    finally:
        served.transport.close()


def test_it_fits_the_traits() -> None:
    transport: Transport = ZmqTransport()
    assert transport and issubclass(ZmqControlPort, object)
    port_type: type[ControlPort] = ZmqControlPort
    assert port_type is ZmqControlPort


def test_trusted_clients_are_served_and_told_apart(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect(ANA) as ana, await served.connect(BEN) as ben:
            for n in range(500):
                ana.send(b"a%d" % n)
                ben.send(b"b%d" % n)
                if n % 50 == 49:
                    for m in range(n - 49, n + 1):
                        assert await ana.recv() == b"re:a%d" % m
                        assert await ben.recv() == b"re:b%d" % m
            senders: dict[bytes, set[tuple[str, bytes]]] = {}
            while not served.frames.empty():
                client, key, frame = served.frames.get_nowait()
                senders.setdefault(client, set()).add((key, frame[:1]))
            expected = [{(ANA.curve_public_z85, b"a")}, {(BEN.curve_public_z85, b"b")}]
            assert sorted(senders.values(), key=repr) == sorted(expected, key=repr)

    run(main())


def test_an_untrusted_key_is_refused_and_remembered(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with node() as served:
            for _ in range(3):
                with pytest.raises(AccessDenied, match="does not trust this key"):
                    await served.connect(EVE)
            for _ in range(3):
                refusal = await served.refusals.get()
                assert (refusal.public_key_z85, refusal.peer) == (EVE.curve_public_z85, "127.0.0.1")
            assert served.port.refused_count == len(served.port.refused) == 3
            await served.check()

    with caplog.at_level(logging.WARNING, "aspen.io"):
        run(main())
    lines = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    assert len(lines) == 1 and EVE.curve_public_z85 in lines[0]


def test_a_check_that_fails_lets_nobody_in(run: Run) -> None:
    async def main() -> None:
        def broken(key: str) -> bool:
            raise RuntimeError("no trust file")

        async with node() as served:
            port = served.transport.bind_control(ANYWHERE, SERVER.curve_secret_z85, broken, served.on_frame)
            with pytest.raises(NotReachable, match="cannot check keys"):
                await ControlClient.connect(port.address, SERVER.curve_public_z85, ANA.curve_secret_z85)
            await served.check()

    run(main())


def test_ports_of_one_node_have_their_own_trust(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            other = served.transport.bind_control(
                ANYWHERE, BEN.curve_secret_z85, lambda key: key == EVE.curve_public_z85, served.on_frame
            )
            (await ControlClient.connect(other.address, BEN.curve_public_z85, EVE.curve_secret_z85)).close()
            with pytest.raises(AccessDenied):
                await ControlClient.connect(other.address, BEN.curve_public_z85, ANA.curve_secret_z85)
            with pytest.raises(AccessDenied):
                await served.connect(EVE)
            await served.check()

    run(main())


def test_trust_withdrawn_counts_for_open_connections(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect(ANA) as ana, await served.connect(BEN) as ben:
            ana.send(b"before")
            assert await ana.recv() == b"re:before"
            served.trusted.discard(ANA.curve_public_z85)
            ana.send(b"after")
            while served.port.dropped_count == 0:
                ben.send(b"turn")
                await ben.recv()
            frames = [served.frames.get_nowait()[2] for _ in range(served.frames.qsize())]
            assert b"before" in frames and b"after" not in frames

    run(main())


def test_another_server_than_asked_for(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            with pytest.raises(AccessDenied, match="not the node with the key"):
                await served.connect(server_public_z85=EVE.curve_public_z85)
            await served.check()

    run(main())


def test_nothing_there(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            address = served.port.address
        with pytest.raises(NotReachable, match="nothing listens"):
            await ControlClient.connect(address, SERVER.curve_public_z85, ANA.curve_secret_z85)

    run(main())


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


@asynccontextmanager
async def listener(serve: Serve) -> AsyncIterator[str]:
    """A TCP server, and its address. At the end its connections are closed and their handlers have ended."""
    handlers: list[asyncio.Task[Any] | None] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handlers.append(asyncio.current_task())
        try:
            await serve(reader, writer)
        finally:
            await hang_up(writer)

    server = await asyncio.start_server(accepted, "127.0.0.1", 0)
    try:
        yield f"tcp://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        running = [task for task in handlers if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        await server.wait_closed()


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_something_else_there(run: Run, greeting: bytes) -> None:
    async def main() -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(10)
            writer.write(greeting)
            if not greeting:
                await reader.read()

        async with listener(answer) as address:
            reason = "no Aspen node" if greeting else "does not answer within 0.3 s"
            with pytest.raises(NotReachable, match=reason):
                await ControlClient.connect(
                    address, SERVER.curve_public_z85, ANA.curve_secret_z85, timeout_s=5.0 if greeting else 0.3
                )

    run(main())


@asynccontextmanager
async def raw_client(
    address: str, who: Identity | None, **options: Any
) -> AsyncIterator[tuple[zmq.asyncio.Socket, Callable[[int], Coroutine[Any, Any, None]]]]:
    """A DEALER without manners, and a way to await an event of it."""
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    socket.linger = 0
    socket.reconnect_ivl = -1
    for name, value in options.items():
        setattr(socket, name, value)
    if who is not None:
        socket.curve_serverkey = SERVER.curve_public_z85.encode()
        socket.curve_publickey = who.curve_public_z85.encode()
        socket.curve_secretkey = who.curve_secret_z85.encode()
    monitor = socket.get_monitor_socket()

    async def event(*kinds: int) -> None:
        while parse_monitor_message(await monitor.recv_multipart())["event"] not in kinds:
            pass

    socket.connect(address)
    try:
        yield socket, event
    finally:
        socket.disable_monitor()
        context.destroy(0)


def test_a_client_without_a_key(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            async with raw_client(served.port.address, None) as (socket, event):
                sending = asyncio.ensure_future(socket.send(b"let me in"))
                await event(zmq.EVENT_DISCONNECTED)
                sending.cancel()
            await served.check()

    run(main())


@pytest.mark.parametrize(
    "junk",
    [
        b"GET / HTTP/1.1\r\n\r\n" * 100,
        b"\x00" * 1000,
        b"\xff" * 1000,
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00NULL" + b"\0" * 48 + b"\x04\x19\x05READY" + b"\0" * 100,
        b"\xff\0\0\0\0\0\0\0\x01\x7f\x03\x00CURVE" + b"\0" * 47 + b"\x02" + b"\xff" * 8,
    ],
)
def test_junk_on_the_socket(run: Run, junk: bytes) -> None:
    async def main() -> None:
        async with node() as served:
            host, port = served.port.address.removeprefix("tcp://").split(":")
            reader, writer = await asyncio.open_connection(host, int(port))
            writer.write(junk)
            with contextlib.suppress(OSError):  # It may have hung up by now.
                writer.write_eof()
                await reader.read()
            await hang_up(writer)
            await served.check()

    run(main())


def test_a_frame_at_the_bound_passes_and_one_over_it_ends_the_connection(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            async with await served.connect() as client:
                client.send(bytes(FRAME_BYTES_MAX))
                assert await client.recv() == b"re:" + bytes(100)
                with pytest.raises(UsageError, match="at most"):
                    client.send(bytes(FRAME_BYTES_MAX + 1))
                frame_client, _, frame = await served.frames.get()
                assert len(frame) == FRAME_BYTES_MAX
                assert served.port.send(frame_client, bytes(FRAME_BYTES_MAX))
                assert len(await client.recv()) == FRAME_BYTES_MAX
                with pytest.raises(UsageError, match="at most"):
                    served.port.send(frame_client, bytes(FRAME_BYTES_MAX + 1))
            async with raw_client(served.port.address, ANA) as (socket, event):
                await event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                await socket.send(bytes(FRAME_BYTES_MAX + 10_000))
                await event(zmq.EVENT_DISCONNECTED)
            await served.check()

    run(main())


def test_malformed_messages_of_trusted_clients_are_dropped(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            async with raw_client(served.port.address, ANA) as (socket, _):
                await socket.send_multipart([b"two", b"parts"])
                await socket.send(b"fine")
                assert await socket.recv() == b"re:fine"
                assert served.port.dropped_count == 1
            async with raw_client(served.port.address, ANA, routing_id=b"me") as (socket, event):
                await event(zmq.EVENT_HANDSHAKE_SUCCEEDED)
                await socket.send(b"chosen id")
                async with await served.connect(BEN) as ben:
                    while served.port.dropped_count < 2:
                        ben.send(b"turn")
                        await ben.recv()
            frames = {served.frames.get_nowait()[2] for _ in range(served.frames.qsize())}
            assert frames <= {b"fine", b"turn"}
            await served.check()

    run(main())


def test_a_flood_arrives_in_order_and_others_are_served_meanwhile(run: Run) -> None:
    async def main() -> None:
        total = 5_000
        async with (
            node() as served,
            await served.connect(BEN) as ben,
            raw_client(served.port.address, ANA) as (socket, _),
        ):

            async def flood() -> None:
                for n in range(total):
                    await socket.send(b"%d" % n)

            flooding = asyncio.ensure_future(flood())
            answers = 0
            while not flooding.done():
                ben.send(b"between")
                await ben.recv()
                answers += 1
            got: list[bytes] = []
            while len(got) < total:
                _, key, frame = await served.frames.get()
                if key == ANA.curve_public_z85:
                    got.append(frame)
            assert got == [b"%d" % n for n in range(total)] and answers

    run(main())


def test_a_slow_client_is_told_of_and_a_gone_one_too(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            async with raw_client(served.port.address, ANA, rcvhwm=1, rcvbuf=4096) as (socket, _):
                await socket.send(b"hello")
                client = (await served.frames.get())[0]
                await socket.recv()
                sent = 0
                while served.port.send(client, bytes(100_000)):
                    sent += 1
                    assert sent < 2_000
            with pytest.raises(NotReachable, match="is gone"):
                served.port.send(b"\0nobody", b"x")
            await served.check()
            served.port.close()
            served.port.close()
            assert not served.port.send(client, b"x")

    run(main())


def test_a_client_is_told_when_the_node_takes_no_more(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as client:
            with pytest.raises(Overloaded):
                for _ in range(2_000):  # The loop has no turn in between, so nobody reads.
                    client.send(bytes(500_000))
            served.transport.close()

    run(main())


def test_a_failing_handler_costs_its_frame_only(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with node() as served:

            def fail_once(client: bytes, key: str, frame: bytes) -> None:
                if frame == b"bad":
                    raise RuntimeError("handler")
                served.port.send(client, frame)

            served.port.close()
            served.port = served.transport.bind_control(ANYWHERE, SERVER.curve_secret_z85, lambda key: True, fail_once)
            async with await served.connect() as client:
                client.send(b"bad")
                client.send(b"good")
                assert await client.recv() == b"good"

    run(main())
    assert "its handler failed" in caplog.text


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:80", "write it as tcp://"),
        ("tcp://127.0.0.1", "write it as tcp://"),
        ("tcp://127.0.0.1:99999", "write it as tcp://"),
        ("ipc:///tmp/x", "write it as tcp://"),
        ("tcp://192.0.2.1:0", "this machine"),
        ("tcp://no.such.interface:0", "this machine"),
    ],
)
def test_a_bad_address_is_refused_with_a_remedy(run: Run, address: str, reason: str) -> None:
    async def main() -> None:
        async with node() as served:
            with pytest.raises(ConfigError, match=reason):
                served.bind(address)
            await served.check()

    run(main())


def test_a_port_in_use_and_bad_keys_are_refused(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            with pytest.raises(ConfigError, match="the port is in use"):
                served.bind(served.port.address)
            with pytest.raises(ConfigError, match="40 characters of z85"):
                served.transport.bind_control(ANYWHERE, "short", lambda key: True, served.on_frame)
            with pytest.raises(ConfigError, match="public key is no CURVE key"):
                await served.connect(server_public_z85="~" * 40)
            with pytest.raises(ConfigError, match="write it as"):
                await ControlClient.connect("nowhere", SERVER.curve_public_z85, ANA.curve_secret_z85)
            await served.check()

    run(main())


def test_a_lost_node_is_noticed_after_what_came_before_and_a_new_connection_works(run: Run) -> None:
    async def main() -> None:
        async with node() as served:
            address = served.port.address
            client = await served.connect()
            waiting = asyncio.ensure_future(client.recv())
            client.send(b"one")
            client.send(b"two")
            assert await waiting == b"re:one"
            assert await client.recv() == b"re:two"
        with pytest.raises(NotReachable, match="is lost"):
            await client.recv()
        with pytest.raises(NotReachable, match="is lost"):
            client.send(b"three")
        client.close()
        async with node(address) as served:
            assert served.port.address == address
            await served.check()

    run(main())


def test_a_node_that_falls_silent_is_noticed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq_socket, "HEARTBEAT_S", 0.05)
    monkeypatch.setattr(zmq_socket, "HEARTBEAT_TIMEOUT_S", 0.2)

    async def main() -> None:
        cut = asyncio.Event()

        async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
            while data := await source.read(65_536):
                if not cut.is_set():  # The connection stays open and nothing passes: a pulled cable.
                    sink.write(data)

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            host, port = served.port.address.removeprefix("tcp://").split(":")
            upstream, upstream_writer = await asyncio.open_connection(host, int(port))
            try:
                await asyncio.gather(pump(reader, upstream_writer), pump(upstream, writer))
            finally:
                await hang_up(upstream_writer)

        async with node() as served, listener(relay) as address:
            async with await ControlClient.connect(address, SERVER.curve_public_z85, ANA.curve_secret_z85) as client:
                client.send(b"hello")
                assert await client.recv() == b"re:hello"
                cut.set()
                with pytest.raises(NotReachable, match="is lost"):
                    await client.recv()

    run(main())


def test_frames_before_a_loss_are_not_lost_with_it(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as client:
            client.send(b"hello")
            who = (await served.frames.get())[0]
            assert await client.recv() == b"re:hello"
            sent = 0
            while sent < 600 and served.port.send(who, b"%d" % sent):
                sent += 1
            first = await client.recv()
            served.port.close()
            got = [first]
            with pytest.raises(NotReachable):
                while True:
                    got.append(await client.recv())
            assert got == [b"%d" % n for n in range(len(got))]

    run(main())


def test_a_cancelled_recv_loses_no_frame(run: Run) -> None:
    async def main() -> None:
        async with node() as served, await served.connect() as client:
            waiting = asyncio.ensure_future(client.recv())
            client.send(b"one")
            await served.frames.get()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert await client.recv() == b"re:one"
            closing = asyncio.ensure_future(client.recv())
            asyncio.get_running_loop().call_soon(client.close)
            with pytest.raises(NotReachable, match="closed here"):
                await closing

    run(main())
