"""`ZmqPeers`: frames between nodes over ZeroMQ with CURVE. Implements `aspen.traits.PeerTransport`.

A node binds one ROUTER, on which it only receives, and has one DEALER per peer, on which it only sends. So each
direction of a pair of nodes is a connection of its own, and a node that can be reached needs no route back through who
called it. All lanes of a peer share its connection: what is on one lane waits for what was sent before on another, and
the protocol above keeps that short.

    on the wire      lane (1 byte) + frame, in one part;
                     or, for a large frame, which its receiver then need not copy once more, in two

Who sent a frame is told by the CURVE key of its connection, checked at each handshake by ZAP, and at each frame against
what is trusted now. Which connection it came on is told by the routing id that the ROUTER gave it, a counter; an id
that the peer chose itself is refused, since with it one could pose as a connection that was there before.

ROUTER cannot end one connection: what comes from a key that is not trusted any more is dropped, and so is what is sent
to our DEALERs, which nobody reads.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import zmq
import zmq.backend
from zmq.utils.monitor import parse_monitor_message

from aspen.errors import ConfigError, UsageError
from aspen.io.zmq_gate import REFUSAL_LOG_EVERY_S, Gate, Refusal, Refusals
from aspen.io.zmq_socket import (
    NOBLOCK,
    NOBLOCK_MORE,
    Reader,
    bind,
    check_size,
    configure,
    curve_key,
    log,
    sender_of,
    split_address,
)
from aspen.limits import FRAME_BYTES_MAX, LANES_MAX, PEER_FRAMES_QUEUED_MAX
from aspen.traits import PeerHandler
from aspen.trust import curve_public_z85

RECONNECT_MIN_MS: Final = 50
RECONNECT_MAX_MS: Final = 1_000
"""Pauses between attempts to connect; they double."""
BACKLOG_CONNECTIONS_MAX: Final = 256
SOCKETS_MAX: Final = 16_384
"""Of one node: a DEALER, and two for its monitor, per peer."""
CLOSE_LINGER_MS: Final = 100
"""How long the last frames of a node that stops may take to leave."""
TWO_PARTS_BYTES_MIN: Final = 32 * 1024

_recv: Final[Any] = zmq.backend.Socket.recv
_DOMAIN: Final = b"aspen-peers"
_USER_ID: Final = "User-Id"
_LANES: Final = tuple(bytes((lane,)) for lane in range(LANES_MAX))
_REFUSED: Final = frozenset(
    {
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    }
)
_EVENTS: Final = zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | sum(_REFUSED)


def _receive(socket: zmq.Socket[bytes]) -> tuple[bytes, list[zmq.Frame]]:
    """One message: the routing id of its connection, and its parts. As `recv_multipart`, without its detours."""
    connection = _recv(socket, NOBLOCK)
    part = _recv(socket, NOBLOCK, False)
    parts = [part]
    while part.more:
        part = _recv(socket, NOBLOCK, False)
        parts.append(part)
    return connection, parts


class ZmqPeers:
    """The transport of one node incarnation. From the loop's thread only."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        secret_key_z85: str,
        identify: Callable[[str], str | None],
        key_of: Callable[[str], str] = curve_public_z85,
        on_refused: Callable[[Refusal], None] | None = None,
        advertised: Callable[[str], str] = lambda bound: bound,
    ) -> None:
        """Binds `address` (`tcp://host:port`, port 0 for any free one).

        `identify` gives the peer that holds a public CURVE key in z85, or None for one that is not trusted; it is pure,
        and asked at every handshake and for every frame. `key_of` gives the key of a peer: of a NodeId, unless told.
        `advertised` says where peers reach what is bound at an address.

        Raises:
            ConfigError: the address cannot be bound, or the key is none; says why.
        """
        self._loop, self._identify, self._key_of = loop, identify, key_of
        self._secret = curve_key(secret_key_z85, "the node's secret key")
        self._handler: PeerHandler | None = None
        self._out: dict[str, _Outgoing] = {}
        self._closed = False
        self.refusals = Refusals(on_refused)
        self.dropped_count = 0
        """Frames dropped: malformed, too large, or of a key that is not trusted any more."""
        self._drop_said = -REFUSAL_LOG_EVERY_S
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
        self._gate = Gate(loop, self._context)
        self._gate.add(_DOMAIN, self._admits)
        self._address = address
        socket = self._context.socket(zmq.ROUTER)
        try:
            configure(socket, address)
            socket.setsockopt(zmq.RCVHWM, PEER_FRAMES_QUEUED_MAX)
            socket.setsockopt(zmq.BACKLOG, BACKLOG_CONNECTIONS_MAX)
            socket.setsockopt(zmq.CURVE_SERVER, 1)
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
            socket.setsockopt(zmq.ZAP_DOMAIN, _DOMAIN)
            socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
            self._address = advertised(bind(socket, address))
        except BaseException:
            socket.close(0)
            self._gate.close()
            self._context.term()
            raise
        self._reader = Reader(loop, socket, self._take, receive=_receive)

    @property
    def address(self) -> str:
        """Where peers reach it, as `tcp://127.0.0.1:4571`."""
        return self._address

    def listen(self, handler: PeerHandler) -> None:
        """Says who is told. Once, before anything else."""
        if self._handler is not None:
            raise UsageError(f"somebody listens at {self._address} already")
        self._handler = handler

    def connect(self, peer: str, address: str) -> None:
        """Connects to a peer, and again whenever the connection is lost. Harmless when it is connected.

        Raises:
            ConfigError: the address is none, or the peer has no key.
        """
        if self._closed or peer in self._out:
            return
        split_address(address)
        key = curve_key(self._key_of(peer), f"the key of {peer}")
        socket = self._context.socket(zmq.DEALER)
        try:
            configure(socket, address)
            socket.setsockopt(zmq.SNDHWM, PEER_FRAMES_QUEUED_MAX)
            socket.setsockopt(zmq.RCVHWM, 1)
            socket.setsockopt(zmq.CURVE_SERVERKEY, key)
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(self._secret))
            socket.setsockopt(zmq.CURVE_SECRETKEY, self._secret)
            socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MIN_MS)
            socket.setsockopt(zmq.RECONNECT_IVL_MAX, RECONNECT_MAX_MS)
            self._out[peer] = _Outgoing(self, peer, address, socket)
        except BaseException:
            socket.close(0)
            raise

    def disconnect(self, peer: str) -> None:
        """Ends the connection to a peer and drops what waits for it. No `on_peer_down` follows."""
        outgoing = self._out.pop(peer, None)
        if outgoing is not None:
            outgoing.close(0)

    def send(self, peer: str, lane: int, frame: bytes) -> bool:
        """Queues a frame. False: certainly dropped, as there is no such peer or its queue is full.

        Raises:
            UsageError: no such lane, or the frame is larger than FRAME_BYTES_MAX.
        """
        if not 0 <= lane < LANES_MAX:
            raise UsageError(f"lane {lane}: there are lanes 0 to {LANES_MAX - 1}")
        outgoing = self._out.get(peer)
        if outgoing is None:
            return False
        send = outgoing.send
        try:
            if len(frame) < TWO_PARTS_BYTES_MIN:
                send(_LANES[lane] + frame, NOBLOCK)
            else:
                check_size(frame)
                # The mark is looked at before the first part of a message only, so the second one is never refused.
                send(_LANES[lane], NOBLOCK_MORE)
                # Copied: to have pyzmq keep it until ZeroMQ has done with it takes a thread, which costs more.
                send(frame, NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno == zmq.EAGAIN:
                return False
            raise
        return True

    def close(self) -> None:
        """Ends all connections. Idempotent. What was just sent has CLOSE_LINGER_MS to leave."""
        if self._closed:
            return
        self._closed = True
        for outgoing in self._out.values():
            outgoing.close(CLOSE_LINGER_MS if outgoing.up else 0)
        self._out.clear()
        self._reader.close()
        self._gate.close()
        self._context.term()

    def _admits(self, key: str, peer: str) -> bool:
        if self._identify(key) is not None:
            return True
        self.refusals.add(key, peer, self._address)
        return False

    def _take(self, message: tuple[bytes, list[zmq.Frame]]) -> None:
        connection, parts = message
        frame: bytes | memoryview
        if len(parts) == 1:
            whole = parts[0].bytes
            lane, frame = whole[:1], whole[1:]
        elif len(parts) == 2:
            lane, frame = parts[0].bytes, parts[1].buffer  # Large: not copied here.
        else:
            lane = frame = b""
        peer = self._identify(str(parts[0].get(_USER_ID)))
        chosen_by_peer = len(connection) != 5 or connection[0] != 0
        if len(lane) != 1 or lane[0] >= LANES_MAX or chosen_by_peer or peer is None or len(frame) > FRAME_BYTES_MAX:
            self._drop(peer, len(parts) + 1, len(frame), chosen_by_peer)
            return
        if self._handler is not None:
            self._handler.on_frame(peer, lane[0], int.from_bytes(connection, "big"), frame)

    def _drop(self, peer: str | None, parts: int, size_bytes: int, chosen_by_peer: bool) -> None:
        """Counts a frame that is refused, and says so, but not at the peer's rate."""
        self.dropped_count += 1
        now = self._loop.time()
        if now < self._drop_said + REFUSAL_LOG_EVERY_S:
            return
        self._drop_said = now
        if peer is None:
            why = "its key is trusted no longer"
        elif chosen_by_peer:
            why = "it chose its own routing id"
        else:
            why = f"{parts - 1} parts, {size_bytes} bytes: that is no frame of a link"
        log.warning(
            "%s dropped a frame of %s: %s (%d so far)", self._address, peer or "somebody", why, self.dropped_count
        )

    def _tell_up(self, peer: str) -> None:
        if self._handler is not None and not self._closed:
            self._handler.on_peer_up(peer)

    def _tell_down(self, peer: str) -> None:
        if self._handler is not None and not self._closed:
            self._handler.on_peer_down(peer)


class _Outgoing:
    """Our connection to one peer, and what its monitor saw of it."""

    def __init__(self, owner: ZmqPeers, peer: str, address: str, socket: zmq.Socket[bytes]) -> None:
        self.socket = socket
        self.send = sender_of(socket)
        self.up = False
        self._owner, self._peer, self._address = owner, peer, address
        self._refused = False
        self._closed = False
        self._monitor = Reader(owner._loop, socket.get_monitor_socket(_EVENTS), self._observe)
        try:
            socket.connect(address)
        except zmq.ZMQError as error:
            self._monitor.close()
            raise ConfigError(f"{address} is no address to connect to: {error.strerror}") from None

    def close(self, linger_ms: int) -> None:
        self._closed = True
        self.socket.disable_monitor()
        self._monitor.close()
        self.socket.close(linger_ms)

    def _observe(self, parts: list[zmq.Frame]) -> None:
        if self._closed:
            return
        kind = parse_monitor_message([part.bytes for part in parts])["event"]
        if self.up and kind in (zmq.EVENT_DISCONNECTED, zmq.EVENT_HANDSHAKE_SUCCEEDED):
            self.up = False
            self._owner._tell_down(self._peer)
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED and not self._closed:
            self.up, self._refused = True, False
            self._owner._tell_up(self._peer)
        elif kind in _REFUSED and not self._refused:
            self._refused = True
            log.warning(
                "%s refused the connection of this node, or does not hold the key of %s; compare `aspen keys` on both",
                self._address,
                self._peer,
            )
