"""The encrypted port of a node, over ZeroMQ with CURVE. `ControlClient` is its other end.

The node binds a ROUTER. Who connects proves in the handshake that it holds a CURVE key, and the gate (`zmq_gate`)
says whether we trust it. Each frame then carries the key that sent it, and is checked once more on arrival, since
ZeroMQ asks only at handshakes and trust may be withdrawn later.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

import zmq

from aspen.errors import NotReachable
from aspen.io.zmq_client import ControlClient
from aspen.io.zmq_gate import Gate, Refusal, Refusals
from aspen.io.zmq_socket import NOBLOCK, NOBLOCK_MORE, Reader, bind, check_size, configure, curve_key, sender_of
from aspen.limits import FRAME_BYTES_MAX
from aspen.traits import FrameHandler

__all__ = ["ControlClient", "Refusal", "ZmqControlPort", "ZmqTransport"]

BACKLOG_CONNECTIONS_MAX: Final = 64

_USER_ID: Final = "User-Id"


class ZmqTransport:
    """Binds ports for one node. Implements `aspen.traits.Transport`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop | None = None,
        on_refused: Callable[[Refusal], None] | None = None,
    ) -> None:
        """`on_refused` is told of each refused handshake; whatever it does, it does at the peer's rate."""
        self._loop = loop
        self._on_refused = on_refused
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._gate: Gate | None = None
        self._ports: list[ZmqControlPort] = []
        self._bound = 0

    def bind_control(
        self,
        address: str,
        secret_key_z85: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
    ) -> ZmqControlPort:
        """Binds `address` (`tcp://host:port`, port 0 for any free one). From the loop's thread only.

        `authorize` is asked at every handshake and for every frame.

        Raises:
            ConfigError: the address cannot be bound, or the key is none; says why.
        """
        loop = self._loop or asyncio.get_running_loop()
        if self._context is None or self._gate is None:
            self._context = zmq.Context()
            self._gate = Gate(loop, self._context)
        self._bound += 1
        domain = b"aspen-%d" % self._bound
        port = ZmqControlPort(
            loop,
            self._context,
            self._gate,
            domain,
            address,
            secret_key_z85,
            authorize,
            on_frame,
            self._on_refused,
        )
        self._ports = [known for known in self._ports if not known.closed]
        self._ports.append(port)
        return port

    def close(self) -> None:
        """Closes every port that it bound. Idempotent."""
        for port in self._ports:
            port.close()
        self._ports.clear()
        if self._gate is not None and self._context is not None:
            self._gate.close()
            self._context.term()
            self._gate = self._context = None


class ZmqControlPort:
    """A bound port. Implements `aspen.traits.ControlPort`; made by `ZmqTransport.bind_control`.

    Frames come in order for each client. A client is a connection: one that comes back has another id.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        context: zmq.Context[zmq.Socket[bytes]],
        gate: Gate,
        domain: bytes,
        address: str,
        secret_key_z85: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
        on_refused: Callable[[Refusal], None] | None,
    ) -> None:
        self._authorize, self._on_frame = authorize, on_frame
        self._gate, self._domain = gate, domain
        self.refusals = Refusals(on_refused)
        self.dropped_count = 0
        """Frames dropped: malformed, too large, or of a key that is no longer trusted."""
        self.closed = False
        self._socket = context.socket(zmq.ROUTER)
        try:
            configure(self._socket, address)
            self._socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
            self._socket.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS_MAX)
            self._socket.setsockopt(zmq.CURVE_SERVER, 1)
            self._socket.setsockopt(zmq.CURVE_SECRETKEY, curve_key(secret_key_z85, "the node's secret key"))
            self._socket.setsockopt(zmq.ZAP_DOMAIN, domain)
            self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            gate.add(domain, self._admits)
            self._address = bind(self._socket, address)
        except BaseException:
            gate.remove(domain)
            self._socket.close(0)
            raise
        self._send = sender_of(self._socket)
        self._reader = Reader(loop, self._socket, self._take)

    @property
    def address(self) -> str:
        """Where it is bound, as `tcp://127.0.0.1:4571`."""
        return self._address

    def send(self, client: bytes, frame: bytes) -> bool:
        """Queues a frame; False when the client is too slow, and the frame is dropped.

        Raises:
            NotReachable: the client is gone; one that comes back has another id.
            UsageError: the frame is larger than FRAME_BYTES_MAX.
        """
        check_size(frame)
        if self.closed:
            return False
        try:
            # The mark is looked at before the first part only, so the second one is never refused.
            self._send(client, NOBLOCK_MORE)
            self._send(frame, NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno == zmq.EAGAIN:
                return False
            if error.errno == zmq.EHOSTUNREACH:
                raise NotReachable(f"this client of {self._address} is gone") from None
            raise
        finally:
            self._reader.poke()
        return True

    def close(self) -> None:
        """Unbinds. Idempotent. Frames that are queued still are dropped."""
        if not self.closed:
            self.closed = True
            self._gate.remove(self._domain)
            self._reader.close()

    @property
    def refused(self) -> deque[Refusal]:
        """The latest refused handshakes, for a person to look at."""
        return self.refusals.latest

    @property
    def refused_count(self) -> int:
        """How many there were."""
        return self.refusals.count

    def _admits(self, key: str, peer: str) -> bool:
        """Whether a connection with this key may be made; remembers it when not."""
        if self._authorize(key):
            return True
        self.refusals.add(key, peer, self._address)
        return False

    def _take(self, parts: list[zmq.Frame]) -> None:
        client = parts[0].bytes
        chosen_by_peer = client[:1] != b"\0"  # Else it could take the id of a client that has just left.
        if len(parts) != 2 or chosen_by_peer or len(parts[1]) > FRAME_BYTES_MAX:
            self.dropped_count += 1
            return
        key = str(parts[1].get(_USER_ID))
        if not self._authorize(key):
            self.dropped_count += 1
            return
        self._on_frame(client, key, parts[1].bytes)
