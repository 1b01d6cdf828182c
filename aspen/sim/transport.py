"""`VirtualTransport`: control ports in virtual time, for any number of nodes and clients.

Ordered, authorizing and bounded as the real one: who is not trusted gets no connection, and no frame through when
trust is withdrawn later; a client that does not read makes `send` refuse. A client can be dropped, as by a
pulled cable. There is no encryption; a client says which key it holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from aspen.errors import AccessDenied, AspenError, ConfigError, NotReachable, Overloaded, UsageError
from aspen.limits import FRAME_BYTES_MAX
from aspen.sim.loop import VirtualLoop
from aspen.traits import FrameHandler

QUEUE_FRAMES_MAX: Final = 256
"""Frames on their way and unread, each way."""
LATENCY_S: Final = 0.001


class VirtualTransport:
    """`aspen.traits.Transport`: all ports of one virtual world, by address."""

    def __init__(self, loop: VirtualLoop) -> None:
        self._loop = loop
        self._ports: dict[str, VirtualPort] = {}
        self._clients = 0
        self._next_port = 40_000

    def bind_control(
        self,
        address: str,
        secret_key_z85: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
    ) -> VirtualPort:
        """Binds `address`; port 0 takes a free one."""
        host, _, number = address.rpartition(":")
        if not host.startswith("tcp://") or not number.isdigit():
            raise ConfigError(f"{address!r:.100} is no address; write it as tcp://127.0.0.1:4571")
        if number == "0":
            self._next_port += 1
            address = f"{host}:{self._next_port}"
        if address in self._ports:
            raise ConfigError(f"cannot bind {address}: the port is in use; choose another (0 takes a free one)")
        port = self._ports[address] = VirtualPort(self, address, authorize, on_frame)
        return port

    def connect(self, address: str, public_key_z85: str) -> VirtualChannel:
        """Connects to a port as the holder of that key.

        Raises:
            NotReachable: no port is bound there.
            AccessDenied: the key is not trusted there.
        """
        port = self._ports.get(address)
        if port is None:
            raise NotReachable(f"nothing listens at {address}; is the node running?")
        if not port.authorize(public_key_z85):
            raise AccessDenied(f"the node at {address} does not trust this key; add it there: aspen keys trust")
        self._clients += 1
        channel = VirtualChannel(self._loop, port, b"\0%d" % self._clients, public_key_z85)
        port.channels[channel.client] = channel
        return channel

    def unbind(self, address: str) -> None:
        """Makes the address free again."""
        self._ports.pop(address, None)


class VirtualPort:
    """`aspen.traits.ControlPort`."""

    def __init__(
        self,
        transport: VirtualTransport,
        address: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
    ) -> None:
        self._transport = transport
        self._address = address
        self.authorize = authorize
        self.channels: dict[bytes, VirtualChannel] = {}
        self.closed = False
        self.dropped_count = 0
        """Frames of keys that are not trusted any more."""
        self._on_frame = on_frame

    @property
    def address(self) -> str:
        """Where it is bound."""
        return self._address

    def send(self, client: bytes, frame: bytes) -> bool:
        """Queues a frame; False when the client is too slow. Raises NotReachable: it is gone."""
        if len(frame) > FRAME_BYTES_MAX:
            raise UsageError(f"a frame of {len(frame)} bytes; at most {FRAME_BYTES_MAX}: send it in pieces")
        channel = self.channels.get(client)
        if channel is None or channel.is_lost:
            raise NotReachable(f"this client of {self._address} is gone")
        return channel.offer(frame)

    def take(self, channel: VirtualChannel, frame: bytes) -> None:
        """Takes a frame that has arrived from a client."""
        if self.closed or self.channels.get(channel.client) is not channel:
            return
        if not self.authorize(channel.key):
            self.dropped_count += 1
            return
        self._on_frame(channel.client, channel.key, frame)

    def close(self) -> None:
        """Unbinds; its clients notice."""
        if not self.closed:
            self.closed = True
            self._transport.unbind(self._address)
            for channel in tuple(self.channels.values()):
                channel.lose("the node stopped or cannot be reached")


class VirtualChannel:
    """`aspen.traits.ControlChannel`."""

    def __init__(self, loop: VirtualLoop, port: VirtualPort, client: bytes, key: str) -> None:
        self.client = client
        self.key = key
        self._loop = loop
        self._port = port
        self._unread: deque[bytes] = deque()
        self._to_client = 0
        self._to_node = 0
        self._lost: AspenError | None = None
        self._waiter: asyncio.Future[None] | None = None

    # -- the client's side -----------------------------------------------------------------------------

    @property
    def tells_close(self) -> bool:
        """No, as on a real connection."""
        return False

    def send(self, frame: bytes) -> None:
        """Queues a frame; it arrives after LATENCY_S."""
        if len(frame) > FRAME_BYTES_MAX:
            raise UsageError(f"a frame of {len(frame)} bytes; at most {FRAME_BYTES_MAX}: send it in pieces")
        self._raise_lost()
        if self._to_node >= QUEUE_FRAMES_MAX:
            raise Overloaded(f"{self._port.address} takes no more than {QUEUE_FRAMES_MAX} frames; wait")
        self._to_node += 1
        self._loop.call_later(LATENCY_S, self._arrive_there, frame)

    async def recv(self) -> bytes:
        """The next frame."""
        while not self._unread:
            self._raise_lost()
            self._waiter = self._loop.create_future()
            await self._waiter
        return self._unread.popleft()

    def close(self) -> None:
        """Disconnects. What was sent arrives still."""
        if self._lost is None:
            self._lost = NotReachable(f"the connection to {self._port.address} was closed here")
            self._leave()
            self._wake()

    def _leave(self) -> None:
        if not self._to_node:
            self._port.channels.pop(self.client, None)

    # -- the node's side -------------------------------------------------------------------------------

    @property
    def is_lost(self) -> bool:
        """Whether the client is gone."""
        return self._lost is not None

    def offer(self, frame: bytes) -> bool:
        """Takes a frame for the client, when there is room."""
        if self._lost is not None or self._to_client + len(self._unread) >= QUEUE_FRAMES_MAX:
            return False
        self._to_client += 1
        self._loop.call_later(LATENCY_S, self._arrive_here, frame)
        return True

    def lose(self, why: str) -> None:
        """Breaks the connection: the port's sends are refused, the client's `recv` raises. What has arrived can be
        read still."""
        if self._lost is None:
            self._lost = NotReachable(f"the connection to {self._port.address} is lost; {why}")
            self._port.channels.pop(self.client, None)
            self._wake()

    def _arrive_there(self, frame: bytes) -> None:
        self._to_node -= 1
        self._port.take(self, frame)
        if self._lost is not None:
            self._leave()

    def _arrive_here(self, frame: bytes) -> None:
        self._to_client -= 1
        if self._lost is None:
            self._unread.append(frame)
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise type(self._lost)(str(self._lost))
