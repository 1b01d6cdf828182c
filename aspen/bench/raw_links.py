"""Two ends of a link for `aspen bench links`, without actors: an echo that also counts bytes, and a caller."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from aspen.distributed import DATA, Links, Me
from aspen.io import real_ports
from aspen.io.keys import Identity
from aspen.io.zmq_peers import ZmqPeers
from aspen.traits import Clock
from aspen.wire import Pieces

_CALL, _CAST, _DONE = b"c", b"s", b"d"
_ACKNOWLEDGED_EVERY_BYTES: Final = 1024 * 1024
"""The other end says so after as many bytes of casts."""
_OUTSTANDING_BYTES_MAX: Final = 6 * _ACKNOWLEDGED_EVERY_BYTES


class _Node:
    """One of the two nodes."""

    def __init__(self, name: str, other: str, other_address: str | None = None) -> None:
        loop = asyncio.get_running_loop()
        me, peer = identity_of(name), identity_of(other)
        keys = {peer.curve_public_z85: peer.node_id}
        self.peers = ZmqPeers(loop, "tcp://127.0.0.1:0", me.curve_secret_z85, keys.get)
        ports = replace(real_ports(loop), peers=self.peers)
        self.clock: Clock = ports.clock
        self.peer = peer.node_id
        self.links = Links(
            ports, Me(me.node_id, ports.clock.wall_ns(), self.peers.address), self, lambda peer: other_address
        )

    def on_session_up(self, peer: str, incarnation: int) -> None:
        """Nothing to do."""

    def on_session_down(self, peer: str, incarnation: int, reason: str) -> None:
        """Nothing to do."""

    def on_messages(self, peer: str, lane: int, messages: Sequence[bytes | Pieces]) -> None:
        """Messages came."""
        for message in messages:
            self.on_message(peer, message)

    def on_message(self, peer: str, message: bytes | Pieces) -> None:
        """One of them."""
        raise NotImplementedError


class Echo(_Node):
    """Echoes calls; counts the bytes of casts."""

    def __init__(self) -> None:
        super().__init__("echo", "caller")
        self._bytes = 0

    def on_message(self, peer: str, message: bytes | Pieces) -> None:
        """One of them."""
        if message[:1] == _CALL:
            self.links.send(peer, DATA, message)
            return
        self._bytes += len(message)
        if self._bytes >= _ACKNOWLEDGED_EVERY_BYTES:
            self._bytes -= _ACKNOWLEDGED_EVERY_BYTES
            self.links.send(peer, DATA, _DONE)


class Caller(_Node):
    """Calls and casts."""

    def __init__(self, address: str) -> None:
        super().__init__("caller", "echo", address)
        self._calls: dict[bytes, asyncio.Future[bytes]] = {}
        self._outstanding_bytes = 0
        self._room = asyncio.Event()

    def on_message(self, peer: str, message: bytes | Pieces) -> None:
        """An answer came."""
        message = bytes(message)
        if message == _DONE:
            self._outstanding_bytes -= _ACKNOWLEDGED_EVERY_BYTES
            self._room.set()
        else:
            self._calls.pop(message).set_result(message)

    async def warm_up(self) -> None:
        """Calls once, so that a session stands."""
        await self.call(_CALL)

    async def call(self, message: bytes) -> bytes:
        """Sends it and waits for its echo."""
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._calls[message] = future
        self.links.send(self.peer, DATA, message)
        echo: bytes = await future
        return echo

    async def calls(self, callers: int, count: int) -> float:
        """Calls a second of so many callers, who each wait for an answer before they call again."""

        async def caller(number: int) -> None:
            for n in range(count // callers):
                await self.call(b"%b%d,%d:%b" % (_CALL, number, n, b"." * 20))

        start_ns = self.clock.mono_ns()
        await asyncio.gather(*map(caller, range(callers)))
        return count * 1e9 / (self.clock.mono_ns() - start_ns)

    async def casts(self, size: int, count: int) -> float:
        """Messages a second of this size, up to the last one's arrival."""
        message = _CAST * size
        count -= count * size % _ACKNOWLEDGED_EVERY_BYTES // size
        start_ns = self.clock.mono_ns()
        for n in range(count):
            while not self._outstanding_bytes + size <= _OUTSTANDING_BYTES_MAX:
                self._room.clear()
                await self._room.wait()
            self._outstanding_bytes += size
            self.links.send(self.peer, DATA, message)
            if n % 128 == 127:
                await asyncio.sleep(0)
        while self._outstanding_bytes >= _ACKNOWLEDGED_EVERY_BYTES:
            self._room.clear()
            await self._room.wait()
        return count * 1e9 / (self.clock.mono_ns() - start_ns)


def identity_of(name: str) -> Identity:
    """A key that is made up for the benchmark, so that the two processes need no files."""
    return Identity.from_seed(hashlib.sha256(b"aspen bench links " + name.encode()).digest())
