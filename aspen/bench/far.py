"""Two nodes with actors for `aspen bench links`: one calls and casts, the other echoes and counts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Final

from aspen.actor import System
from aspen.bench.raw_links import identity_of
from aspen.distributed import Distribution, Joining, NodeUp, Seed, monitor_nodes, nodes, whereis_on
from aspen.errors import NotReachable
from aspen.io import real_ports
from aspen.io.zmq_peers import ZmqPeers
from aspen.otp import Actor, call, cast, child, info, start, start_child, stop

JOIN_TIMEOUT_S: Final = 30.0
BATCHES_AHEAD: Final = 4
"""Batches of casts that may be under way: an actor that sends without end is refused, as a full mailbox is."""


class Echo(Actor):
    """Gives calls back, and counts casts."""

    def __init__(self) -> None:
        self._count = self._bytes = 0

    @call(timeout=None)
    def echo(self, number: int, data: bytes) -> tuple[int, bytes]:
        """Gives it back."""
        return number, data

    @cast
    def put(self, data: bytes) -> None:
        """Counts."""
        self._count += 1
        self._bytes += len(data)

    @call(timeout=None)
    def counted(self) -> tuple[int, int]:
        """How many casts, and bytes in them, came so far."""
        return self._count, self._bytes


class Caller(Actor):
    """Calls an echo of another node."""

    def __init__(self, other: str) -> None:
        self._echo = whereis_on(other, Echo, "echo")

    @call(timeout=None)
    async def calls(self, count: int) -> None:
        """Calls so often, one after the other."""
        echo, data = self._echo, b"." * 20
        for n in range(count):
            await echo.echo(n, data)


class Caster(Actor):
    """Casts to an echo of another node."""

    def __init__(self, other: str) -> None:
        self._echo = whereis_on(other, Echo, "echo")

    @call(timeout=None)
    async def casts(self, size: int, count: int, batch: int) -> tuple[int, int]:
        """Casts so many messages of that size, in batches, each followed by a question; what came is the answer."""
        echo, data = self._echo, b"s" * size
        under_way: list[Awaitable[tuple[int, int]]] = []
        for _ in range(count // batch):
            for _ in range(batch):
                echo.put(data)
            under_way.append(echo.counted())
            if len(under_way) == BATCHES_AHEAD:
                await under_way.pop(0)
            await asyncio.sleep(0)
        for each in under_way:
            await each
        return await echo.counted()


class Joiner(Actor):
    """Notices when a node is a member."""

    def __init__(self, name: str, joined: asyncio.Future[None]) -> None:
        self._name, self._joined = name, joined

    async def init(self) -> None:
        """Begins to watch."""
        monitor_nodes()
        self._look()

    @info(NodeUp)
    def up(self, event: NodeUp) -> None:
        """One came."""
        self._look()

    def _look(self) -> None:
        if not self._joined.done() and self._name in [node.name for node in nodes()]:
            self._joined.set_result(None)


class FarNode:
    """A node of the two, with its part in the cluster."""

    def __init__(self, name: str, other: str, other_address: str = "") -> None:
        self._loop = asyncio.get_running_loop()
        me, peer = identity_of(name), identity_of(other)
        keys = {peer.curve_public_z85: peer.node_id}
        ports = real_ports(self._loop)
        self._clock = ports.clock
        self._system = System(name, ports, boot=ports.clock.wall_ns(), node=me.node_id)
        self.address = ""
        self._other = other
        self._joining = Joining(
            me.node_id,
            lambda: ZmqPeers(self._loop, "tcp://127.0.0.1:0", me.curve_secret_z85, keys.get),
            lambda: [Seed(peer.node_id, other_address)] if other_address else [],
            on_bound=self._bound,
        )
        self._distribution: Distribution | None = None

    def _bound(self, address: str) -> None:
        self.address = address

    async def begin(self) -> None:
        """Starts what takes part in the cluster."""
        self._distribution = await start_child(child(Distribution, self._joining))

    async def join(self) -> None:
        """Waits until the other node is a member."""
        try:
            async with asyncio.timeout(JOIN_TIMEOUT_S):
                joined: asyncio.Future[None] = self._loop.create_future()
                await start(Joiner, self._other, joined)
                await joined
        except TimeoutError:
            raise NotReachable(f"node {self._other} did not come within {JOIN_TIMEOUT_S:g} s") from None

    async def calls(self, callers: int, count: int) -> float:
        """Calls a second of so many actors, who each wait for an answer before they call again."""
        refs = [await start(Caller, self._other) for _ in range(callers)]
        await refs[0].calls(10)
        began_ns = self._clock.mono_ns()
        await asyncio.gather(*[_awaited(ref.calls(count // callers)) for ref in refs])
        return count // callers * callers * 1e9 / (self._clock.mono_ns() - began_ns)

    async def casts(self, size: int, count: int, batch: int) -> float:
        """Casts a second of one actor, up to the arrival of the last one."""
        caster = await start(Caster, self._other)
        before, _ = await caster.casts(size, batch, batch)
        began_ns = self._clock.mono_ns()
        after, _ = await caster.casts(size, count, batch)
        took_ns = self._clock.mono_ns() - began_ns
        if after - before != count // batch * batch:
            raise NotReachable(f"{after - before} of {count} casts arrived; this is a defect")
        return (after - before) * 1e9 / took_ns

    async def close(self) -> None:
        """Leaves in order."""
        if self._distribution is not None:
            await stop(self._distribution, timeout=5)
        self.drop()

    def drop(self) -> None:
        """Is no more."""
        self._system.close()


async def _awaited(reply: Awaitable[None]) -> None:
    await reply


async def echo_node() -> FarNode:
    """The node that answers."""
    node = FarNode("echo", "caller")
    await node.begin()
    await start_child(child(Echo).opts(name="echo"))
    return node


async def caller_node(address: str) -> FarNode:
    """The node that calls the one there."""
    node = FarNode("caller", "echo", address)
    await node.begin()
    await node.join()
    return node
