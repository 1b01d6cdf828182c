"""The client's end of a node's encrypted port."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from typing import Final, Self

import zmq
from zmq.utils.monitor import parse_monitor_message

from aspen.errors import AccessDenied, AspenError, ConfigError, NotReachable, Overloaded, WrongKey
from aspen.io.zmq_socket import (
    NOBLOCK,
    QUEUE_FRAMES_MAX,
    Reader,
    check_size,
    configure,
    curve_key,
    sender_of,
    split_address,
)
from aspen.limits import FRAME_BYTES_MAX

CONNECT_TIMEOUT_S: Final = 5.0
CLOSE_LINGER_MS: Final = 100
"""How long the last frames of a client that leaves may take. A node that is there takes them at once."""

SOCKETS_MAX: Final = 16_384
"""Of one process: a DEALER, and two for its monitor, per connection."""

_REFUSED: Final = 400
"""The ZAP status for a key that is not trusted."""
_CRYPTOGRAPHIC: Final = 0x11000001
"""ZMQ_PROTOCOL_ERROR_ZMTP_CRYPTOGRAPHIC: the peer's key is not the one that we expect."""
_TIMED_OUT: Final = frozenset({zmq.EAGAIN, zmq.ETIMEDOUT})


class _Shared:
    """The context of all connections of this process. One has a thread of its own: a hundred would have as many."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._context: zmq.Context[zmq.Socket[bytes]] | None = None
        self._users = 0

    def take(self) -> zmq.Context[zmq.Socket[bytes]]:
        """The context, until it is given back."""
        with self._lock:
            if self._context is None:
                self._context = zmq.Context()
                self._context.set(zmq.MAX_SOCKETS, SOCKETS_MAX)
            self._users += 1
            return self._context

    def give_back(self) -> None:
        """Ends it with its last user, whose sockets are closed; what they have just sent has its time to leave."""
        with self._lock:
            self._users -= 1
            context = None
            if not self._users:
                context, self._context = self._context, None
        if context is not None:
            context.term()


_shared: Final = _Shared()


class ControlClient:
    """One connection to a node. When it is lost it stays lost: make another.

    Frames arrive in order. What was sent just before a loss may have been received or not.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        address: str,
        server_public_z85: str,
        secret_key_z85: str,
    ) -> None:
        """Use `connect`."""
        self._loop, self._address, self._server_key = loop, address, server_public_z85
        self._frames: deque[bytes] = deque()
        self._waiters: set[asyncio.Future[None]] = set()
        self._failure: AspenError | None = None
        self._is_connected = False
        self._closed = False
        context = _shared.take()
        try:
            socket = self._open(context, secret_key_z85)
        except BaseException:
            _shared.give_back()
            raise
        self._socket = socket
        self._send = sender_of(socket)
        self._reader = Reader(loop, socket, self._take, lambda: len(self._frames) < QUEUE_FRAMES_MAX)

    @classmethod
    async def connect(
        cls,
        address: str,
        server_public_z85: str,
        secret_key_z85: str,
        timeout_s: float = CONNECT_TIMEOUT_S,
    ) -> ControlClient:
        """Connects to the node that holds the key `server_public_z85`, as who holds `secret_key_z85`.

        Raises:
            NotReachable: nothing answers at the address, or no Aspen node does.
            AccessDenied: the node there does not trust this key.
            WrongKey: what is there is another one than was asked for, or it is ending.
            ConfigError: the address or a key is malformed.
        """
        client = cls(asyncio.get_running_loop(), address, server_public_z85, secret_key_z85)
        try:
            async with asyncio.timeout(timeout_s):
                while not client._is_connected:
                    client._raise_failure()
                    await client._changed()
        except TimeoutError:
            client.close()
            raise NotReachable(f"{address} does not answer within {timeout_s:g} s; is the node running?") from None
        except BaseException:
            client.close()
            raise
        return client

    @property
    def tells_close(self) -> bool:
        """No: the node sees a lost connection only when it sends."""
        return False

    @property
    def address(self) -> str:
        """Where the node is."""
        return self._address

    def send(self, frame: bytes) -> None:
        """Queues a frame.

        Raises:
            NotReachable: the connection is lost. Make another.
            Overloaded: the node takes no more at the moment. Not sent.
            UsageError: the frame is larger than FRAME_BYTES_MAX.
        """
        check_size(frame)
        self._raise_failure()
        try:
            self._send(frame, NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno != zmq.EAGAIN:
                raise
            raise Overloaded(f"{self._address} takes no more than {QUEUE_FRAMES_MAX} frames; wait") from None
        finally:
            self._reader.poke()

    async def recv(self) -> bytes:
        """The next frame. Frames that came before a loss are given first. Cancelling it loses none.

        Raises:
            NotReachable: the connection is lost. Make another.
        """
        while not self._frames:
            if self._failure is None:
                await self._changed()
                continue
            self._reader.drain()
            if not self._frames:
                self._raise_failure()
        frame = self._frames.popleft()
        self._reader.poke()
        return frame

    def close(self) -> None:
        """Disconnects; `recv` then raises NotReachable. Idempotent. What was just sent has CLOSE_LINGER_MS to leave."""
        if self._closed:
            return
        self._closed = True
        linger_ms = CLOSE_LINGER_MS if self._is_connected and self._failure is None else 0
        self._fail(NotReachable(f"the connection to {self._address} was closed here"))
        self._socket.disable_monitor()
        self._monitor.close()
        self._reader.close(linger_ms)
        _shared.give_back()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def _open(self, context: zmq.Context[zmq.Socket[bytes]], secret_key_z85: str) -> zmq.Socket[bytes]:
        split_address(self._address)
        secret = curve_key(secret_key_z85, "the secret key")
        socket = context.socket(zmq.DEALER)
        try:
            configure(socket, self._address)
            socket.setsockopt(zmq.CURVE_SERVERKEY, curve_key(self._server_key, "the node's public key"))
            socket.setsockopt(zmq.CURVE_PUBLICKEY, zmq.curve_public(secret))
            socket.setsockopt(zmq.CURVE_SECRETKEY, secret)
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
        except BaseException:
            socket.close(0)
            raise
        monitor = socket.get_monitor_socket()
        self._monitor = Reader(self._loop, monitor, self._observe)
        try:
            socket.connect(self._address)
        except zmq.ZMQError as error:
            socket.disable_monitor()
            self._monitor.close()
            socket.close(0)
            raise ConfigError(f"{self._address} is no address to connect to: {error.strerror}") from None
        return socket

    def _take(self, parts: list[zmq.Frame]) -> None:
        if len(parts) == 1 and len(parts[0]) <= FRAME_BYTES_MAX:
            self._frames.append(parts[0].bytes)
            self._wake()

    def _observe(self, parts: list[zmq.Frame]) -> None:
        event = parse_monitor_message([part.bytes for part in parts])
        kind, value = event["event"], int(event["value"])
        if kind == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._is_connected = True
            self._wake()
            return
        failure = _judge(kind, value, self._is_connected, self._address, self._server_key)
        if failure is not None:
            self._fail(failure)

    def _fail(self, failure: AspenError) -> None:
        if self._failure is None:
            self._failure = failure
        self._wake()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise type(self._failure)(str(self._failure))

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _changed(self) -> None:
        waiter = self._loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)


def _judge(kind: int, value: int, is_connected: bool, where: str, server_key: str) -> AspenError | None:
    """What an event of the connection's life means for who asked for it; None: nothing."""
    match kind:
        case zmq.EVENT_CLOSED:
            return NotReachable(f"nothing listens at {where}; is the node running?")
        case zmq.EVENT_DISCONNECTED if is_connected:
            return NotReachable(f"the connection to {where} is lost; the node stopped or cannot be reached")
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH if value == _REFUSED:
            return AccessDenied(f"the node at {where} does not trust this key; add it there: aspen keys trust")
        case zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return NotReachable(f"the node at {where} cannot check keys now (status {value}); try again")
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL if value == _CRYPTOGRAPHIC:
            return WrongKey(f"{where} is not the node with the key {server_key}; check address and key")
        case zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL if value not in _TIMED_OUT:
            # What a node does when the key is not its own. One that is just stopping looks the same.
            return WrongKey(
                f"{where} broke off the handshake: it is not the node with the key {server_key}, or it is "
                "stopping; compare with `aspen keys show` there"
            )
        case zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_DISCONNECTED:
            return NotReachable(f"what answers at {where} is no Aspen node; check the port")
        case _:
            return None
