"""Who gets in: ZeroMQ's authentication protocol (ZAP, RFC 27), and the record of who did not.

ZeroMQ asks at every handshake whether we trust the key that was proved, before a byte of a message is read. Without an
answer nobody gets in.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import zmq
import zmq.utils.z85

from aspen.io.zmq_socket import Reader, log

REFUSALS_KEPT_MAX: Final = 100
REFUSAL_LOG_EVERY_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """A handshake that was refused because its key is not trusted."""

    public_key_z85: str
    peer: str
    """IP address it came from."""
    at_mono_ns: int


class Refusals:
    """The latest refused handshakes of one port, for a person to look at; logged at most once a second."""

    def __init__(self, on_refused: Callable[[Refusal], None] | None = None) -> None:
        """`on_refused` is told of each; whatever it does, it does at the peer's rate."""
        self._on_refused = on_refused
        self.latest: deque[Refusal] = deque(maxlen=REFUSALS_KEPT_MAX)
        self.count = 0
        self._logged_ns: int | None = None
        self._unlogged = 0

    def add(self, key: str, peer: str, port: str) -> None:
        """Remembers one; `port` is where it was refused."""
        refusal = Refusal(key, peer, time.monotonic_ns())
        self.count += 1
        self.latest.append(refusal)
        self._log(refusal, port)
        if self._on_refused is not None:
            try:
                self._on_refused(refusal)
            except Exception:
                log.exception("on_refused failed")

    def _log(self, refusal: Refusal, port: str) -> None:
        if self._logged_ns is not None and refusal.at_mono_ns - self._logged_ns < REFUSAL_LOG_EVERY_S * 1e9:
            self._unlogged += 1
            return
        more = f" ({self._unlogged} more since the last such line)" if self._unlogged else ""
        log.warning(
            "%s refused a connection from %s: its key %s is not trusted%s",
            port,
            refusal.peer,
            refusal.public_key_z85,
            more,
        )
        self._logged_ns, self._unlogged = refusal.at_mono_ns, 0


class Gate:
    """The ZAP handler of a context: one for all of its ports, which are told apart by domain."""

    def __init__(self, loop: asyncio.AbstractEventLoop, context: zmq.Context[zmq.Socket[bytes]]) -> None:
        self._admits: dict[bytes, Callable[[str, str], bool]] = {}
        self._socket = context.socket(zmq.REP)
        self._socket.bind("inproc://zeromq.zap.01")
        self._reader = Reader(loop, self._socket, self._answer)

    def add(self, domain: bytes, admits: Callable[[str, str], bool]) -> None:
        """Has `admits(key, ip_address)` asked for the connections of a port."""
        self._admits[domain] = admits

    def remove(self, domain: bytes) -> None:
        """Lets nobody in there any more."""
        self._admits.pop(domain, None)

    def close(self) -> None:
        """Lets nobody in anywhere. Idempotent."""
        self._reader.close()

    def _answer(self, parts: list[zmq.Frame]) -> None:
        version, request, domain, peer, _identity, mechanism, *credentials = (part.bytes for part in parts)
        key = ""
        status, text = b"500", b"the node cannot check keys now"
        try:
            if version == b"1.0" and mechanism == b"CURVE" and len(credentials) == 1 and len(credentials[0]) == 32:
                key = zmq.utils.z85.encode(credentials[0]).decode()
                admits = self._admits.get(domain)
                if admits is not None:
                    trusted = admits(key, peer.decode("ascii", "replace"))
                    status, text = (b"200", b"OK") if trusted else (b"400", b"this key is not trusted here")
        finally:
            self._socket.send_multipart([b"1.0", request, status, text, key.encode(), b""])
            self._reader.poke()
