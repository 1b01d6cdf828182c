"""The encrypted port of a node, over ZeroMQ with CURVE. `ControlClient` is its other end.

The node binds a ROUTER. Who connects proves in the handshake that it holds a CURVE key; ZeroMQ asks us by
its authentication protocol (ZAP, RFC 27) whether we trust that key, before a byte of a message is
read. Without an answer nobody gets in. Each frame then carries the key that sent it, and is checked
once more on arrival, since ZeroMQ asks only at handshakes and trust may be withdrawn later.
"""

from __future__ import annotations

import asyncio
import errno
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq
import zmq.utils.z85

from aspen.errors import ConfigError
from aspen.io.zmq_client import ControlClient
from aspen.io.zmq_socket import Reader, check_size, configure, curve_key, log, split_address
from aspen.limits import FRAME_BYTES_MAX
from aspen.traits import FrameHandler

__all__ = ["ControlClient", "Refusal", "ZmqControlPort", "ZmqTransport"]

BACKLOG_CONNECTIONS_MAX: Final = 64
REFUSALS_KEPT_MAX: Final = 100
REFUSAL_LOG_EVERY_S: Final = 1.0

_USER_ID: Final = "User-Id"


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was refused because its key is not trusted."""

    public_key_z85: str
    peer: str
    """IP address it came from."""
    at_mono_ns: int


class _Gate:
    """The ZAP handler of a context: one for all of its ports, which are told apart by domain."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._ports: dict[bytes, ZmqControlPort] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.bind("inproc://zeromq.zap.01")
        self._reader = Reader(loop, self._socket, self._answer)

    def add(self, domain: bytes, port: ZmqControlPort) -> None:
        self._ports[domain] = port

    def remove(self, domain: bytes) -> None:
        self._ports.pop(domain, None)

    def close(self) -> None:
        self._reader.close()

    def _answer(self, parts: list[zmq.Frame]) -> None:
        version, request, domain, peer, _identity, mechanism, *credentials = (part.bytes for part in parts)
        key = ""
        status, text = b"500", b"the node cannot check keys now"
        try:
            if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
                key = zmq.utils.z85.encode(credentials[0]).decode()
                port = self._ports.get(domain)
                if port is not None:
                    trusted = port.admits(key, peer.decode("ascii", "replace"))
                    status, text = (b"200", b"OK") if trusted else (b"400", b"this key is not trusted here")
        finally:
            self._socket.send_multipart([b"1.0", request, status, text, key.encode(), b""])
            self._reader.poke()


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
        self._gate: _Gate | None = None
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
            self._gate = _Gate(loop, self._context)
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
        gate: _Gate,
        domain: bytes,
        address: str,
        secret_key_z85: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
        on_refused: Callable[[Refusal], None] | None,
    ) -> None:
        self._authorize, self._on_frame, self._on_refused = authorize, on_frame, on_refused
        self._gate, self._domain = gate, domain
        self.refused: deque[Refusal] = deque(maxlen=REFUSALS_KEPT_MAX)
        """The latest refused handshakes, for a person to look at."""
        self.refused_count = 0
        self.dropped_count = 0
        """Frames dropped: malformed, too large, or of a key that is no longer trusted."""
        self._refusal_logged_ns: int | None = None
        self._refusals_unlogged = 0
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
            gate.add(domain, self)
            self._address = _bind(self._socket, address)
        except BaseException:
            gate.remove(domain)
            self._socket.close(0)
            raise
        self._reader = Reader(loop, self._socket, self._take)

    @property
    def address(self) -> str:
        """Where it is bound, as `tcp://127.0.0.1:4571`."""
        return self._address

    def send(self, client: bytes, frame: bytes) -> bool:
        """Queues a frame; False when the client is gone or too slow, and the frame is dropped.

        Raises:
            UsageError: the frame is larger than FRAME_BYTES_MAX.
        """
        check_size(frame)
        if self.closed:
            return False
        try:
            self._socket.send_multipart([client, frame], zmq.NOBLOCK)
        except zmq.ZMQError as error:
            if error.errno in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                return False
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

    def admits(self, key: str, peer: str) -> bool:
        """Whether a connection with this key may be made; remembers it when not."""
        if self._authorize(key):
            return True
        refusal = Refusal(key, peer, time.monotonic_ns())
        self.refused_count += 1
        self.refused.append(refusal)
        self._log_refusal(refusal)
        if self._on_refused is not None:
            try:
                self._on_refused(refusal)
            except Exception:
                log.exception("on_refused failed")
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

    def _log_refusal(self, refusal: Refusal) -> None:
        logged_ns = self._refusal_logged_ns
        if logged_ns is not None and refusal.at_mono_ns - logged_ns < REFUSAL_LOG_EVERY_S * 1e9:
            self._refusals_unlogged += 1
            return
        more = f" ({self._refusals_unlogged} more since the last such line)" if self._refusals_unlogged else ""
        log.warning(
            "%s refused a connection from %s: its key %s is not trusted%s",
            self._address,
            refusal.peer,
            refusal.public_key_z85,
            more,
        )
        self._refusal_logged_ns, self._refusals_unlogged = refusal.at_mono_ns, 0


def _bind(socket: zmq.Socket[bytes], address: str) -> str:
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
