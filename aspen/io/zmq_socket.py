"""What both ends of an encrypted ZeroMQ connection share: reading on the event loop, options, keys.

ZeroMQ's file descriptor tells only that something happened since it was last looked at, and any look
(send, receive, EVENTS) may use that up. Hence `Reader`: drain until there is nothing, in bounded batches;
look again after each send; and look now and then regardless.

A context, its sockets and all callbacks belong to one thread, that of the event loop.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final, Generic, TypeVar

import zmq
import zmq.backend
import zmq.utils.z85

from aspen.errors import ConfigError, UsageError
from aspen.limits import FRAME_BYTES_MAX

log = logging.getLogger("aspen.io")

QUEUE_FRAMES_MAX: Final = 256
"""Frames that wait in ZeroMQ for one peer, each way."""
BATCH_FRAMES_MAX: Final = 64
"""Frames taken before the event loop has its turn again."""
POLL_S: Final = 0.25
"""How often a socket is looked at though nothing was signalled."""
HANDSHAKE_S: Final = 5.0
"""A connection that has not proved its key by then is closed."""
HEARTBEAT_S: Final = 2.0
HEARTBEAT_TIMEOUT_S: Final = 6.0
"""A peer that is silent for longer is gone."""

_CURVE_OVERHEAD_BYTES: Final = 64
"""What encryption may add to a frame, as ZeroMQ counts it against MAXMSGSIZE."""
_ADDRESS = re.compile(r"tcp://(\[[0-9A-Fa-f:.%\w]+\]|[^\s:/\[\]]+):(\d{1,5})")


T = TypeVar("T")

# As plain integers: an operation on zmq's enumerations costs as much as a system call.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)
_EAGAIN: Final = int(zmq.EAGAIN)
NOBLOCK: Final = int(zmq.NOBLOCK)
NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

_recv: Final[Any] = zmq.backend.Socket.recv


def _receive(socket: zmq.Socket[bytes]) -> Any:
    """All parts of a message, as frames: `take` of a `Reader` that has no `receive` gets them. As `recv_multipart`,
    without its detours."""
    part = _recv(socket, NOBLOCK, False)
    parts = [part]
    while part.more:
        part = _recv(socket, NOBLOCK, False)
        parts.append(part)
    return parts


def sender_of(socket: zmq.Socket[bytes]) -> Callable[..., Any]:
    """`socket.send`, past the layer of pyzmq that costs as much as the sending."""
    return partial(zmq.backend.Socket.send, socket)


def option_of(socket: zmq.Socket[bytes]) -> Callable[[int], Any]:
    """Reads integer options of a socket, past the layer of pyzmq that looks up their types each time."""
    return partial(zmq.backend.Socket.get, socket)


class Reader(Generic[T]):
    """Hands each message of a socket to `take`, in order, on the loop.

    While `wanted` is False messages stay in the socket; `poke` after it has become True again.
    What `take` raises is logged and harms no later message. `receive` takes one message out of the socket, at once or
    not at all, and raises what ZeroMQ does.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        socket: zmq.Socket[bytes],
        take: Callable[[T], None],
        wanted: Callable[[], bool] = lambda: True,
        receive: Callable[[zmq.Socket[bytes]], T] = _receive,
    ) -> None:
        self._loop, self._socket, self._take, self._wanted = loop, socket, take, wanted
        self._receive = receive
        self._option = option_of(socket)
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._soon: asyncio.Handle | None = None
        self._closed = False
        loop.add_reader(self._descriptor, self.drain)
        self._poll_timer = loop.call_later(POLL_S, self._poll)
        self._schedule()

    def poke(self) -> None:
        """Looks again: to be called after every send on the socket."""
        if self._soon is None and not self._closed and self._option(_EVENTS) & _POLLIN:
            self._schedule()

    def drain(self) -> None:
        """Takes messages until there are none, or a batch is full."""
        for _ in range(BATCH_FRAMES_MAX):
            if self._closed or not self._wanted():
                return
            try:
                message = self._receive(self._socket)
            except zmq.ZMQError as error:
                if error.errno == _EAGAIN:
                    return
                if error.errno == errno.EINTR:
                    continue
                raise
            try:
                self._take(message)
            except Exception:
                log.exception("a frame was dropped because its handler failed")
            # As good as one more attempt that finds nothing, and cheaper than its exception.
            if not self._closed and not self._option(_EVENTS) & _POLLIN:
                return
        self._schedule()

    def close(self, linger_ms: int = 0) -> None:
        """Stops reading and closes the socket; what was just sent has `linger_ms` to leave. Idempotent."""
        if self._closed:
            return
        self._closed = True
        self._poll_timer.cancel()
        if self._soon is not None:
            self._soon.cancel()
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger_ms)

    def _schedule(self) -> None:
        if self._soon is None and not self._closed:
            self._soon = self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._soon = None
        self.drain()

    def _poll(self) -> None:
        self._poll_timer = self._loop.call_later(POLL_S, self._poll)
        self.drain()


def configure(socket: zmq.Socket[bytes], address: str) -> None:
    """What both ends have in common."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, FRAME_BYTES_MAX + _CURVE_OVERHEAD_BYTES)
    socket.setsockopt(zmq.SNDHWM, QUEUE_FRAMES_MAX)
    socket.setsockopt(zmq.RCVHWM, QUEUE_FRAMES_MAX)
    socket.setsockopt(zmq.HANDSHAKE_IVL, int(HANDSHAKE_S * 1000))
    socket.setsockopt(zmq.HEARTBEAT_IVL, int(HEARTBEAT_S * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(HEARTBEAT_TIMEOUT_S * 1000))
    socket.setsockopt(zmq.HEARTBEAT_TTL, int(HEARTBEAT_TIMEOUT_S * 1000))
    socket.setsockopt(zmq.IPV6, 1 if "[" in address else 0)


def bind(socket: zmq.Socket[bytes], address: str) -> str:
    """Binds a socket; returns the address. ConfigError when it cannot be bound; says why."""
    host, port = split_address(address)
    numeric = "127.0.0.1" if host == "localhost" else host
    try:
        socket.bind(f"tcp://{numeric}:{port or '*'}")
    except zmq.ZMQError as error:
        reason = {
            zmq.EADDRINUSE: "the port is in use; stop what uses it, or choose another (0 takes a free one)",
            zmq.EADDRNOTAVAIL: "this machine has no such address; use one of its own, or 0.0.0.0 for all",
            errno.ENODEV: "not an address of this machine; use one of its own, or 0.0.0.0 for all",
            errno.EACCES: "not allowed; ports below 1024 need privileges, choose a higher one",
        }.get(error.errno or 0, f"{error.strerror}; write it as tcp://127.0.0.1:4571")
        raise ConfigError(f"cannot bind {address}: {reason}") from None
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]  # bytes, for this option


def split_address(address: str) -> tuple[str, int]:
    """Host and port of a `tcp://host:port`; ConfigError when it is none."""
    match = _ADDRESS.fullmatch(address)
    if match is None or int(match[2]) > 65_535:
        raise ConfigError(f"{address!r:.100} is no address; write it as tcp://127.0.0.1:4571")
    return match[1], int(match[2])


def curve_key(text: str, what: str) -> bytes:
    """The bytes of a key in z85 as ZeroMQ takes them; ConfigError when it is none."""
    try:
        if len(text) == 40 and len(zmq.utils.z85.decode(text)) == 32:
            return text.encode()
    except Exception:  # noqa: S110 -- z85.decode has no error of its own: struct.error, KeyError, ...
        pass
    raise ConfigError(f"{what} is no CURVE key: 40 characters of z85")


def check_size(frame: bytes) -> None:
    """Raises UsageError for a frame that a peer would refuse."""
    if len(frame) > FRAME_BYTES_MAX:
        raise UsageError(f"a frame of {len(frame)} bytes; at most {FRAME_BYTES_MAX}: send it in pieces")
