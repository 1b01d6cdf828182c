"""`RelayedChannel`: a client's connection to one node, through another that it is connected to.

    channel = await RelayedChannel.open(client_of_relay, origin, target)
    async with NodeClient(channel) as client: ...

It does for the client what `aspen.distributed.relay` says: signs and seals what goes out, opens what comes in, and
ends when anything does not fit. This is the client's side: it runs in the process of the person at the keyboard.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from aspen import wire
from aspen.distributed.envelope import new_contents, seal
from aspen.distributed.relay import OPERATION, SESSION_BYTES, TO_CLIENT, TO_TARGET, Seal, pack
from aspen.errors import AccessDenied, AspenError, NotReachable, Overloaded, UsageError
from aspen.limits import CONTROL_REQUEST_BYTES_MAX, RELAY_ANSWERS_MAX, RELAY_OPEN_S, RELAY_OVERHEAD_BYTES_MAX
from aspen.shell.client import Asked, NodeClient


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks: a key, and what signing takes. Its repr shows nothing secret."""

    node_id: str
    seed: bytes = field(repr=False)
    curve_secret_z85: str = field(repr=False)
    wall_ns: Callable[[], int]
    random_bits: Callable[[int], int]
    """Gives as many random bits, unpredictable."""


@dataclass(frozen=True, slots=True)
class Target:
    """The node that is meant."""

    name: str
    node_id: str
    boot: int


class RelayedChannel:
    """`aspen.traits.ControlChannel`, through a relay. Closing it leaves the relay's own client open."""

    def __init__(self, relay: NodeClient, origin: Origin, target: Target) -> None:
        """Use `open`."""
        try:
            self._seal = Seal(origin.curve_secret_z85, target.node_id)
        except ValueError as error:
            raise UsageError(f"{target.node_id}: {error}") from None
        self._relay = relay
        self._origin = origin
        self._target = target
        self._session = origin.random_bits(8 * SESSION_BYTES).to_bytes(SESSION_BYTES, "big")
        self._sent = self._received = 0
        self._frames: deque[bytes] = deque()
        self._lost: AspenError | None = None
        self._waiters: set[asyncio.Future[None]] = set()
        self._is_open = False
        self._asked: Asked = relay.begin("relay", self._on_event, node=target.node_id)
        self._watching = asyncio.ensure_future(self._watch())

    @classmethod
    async def open(cls, relay: NodeClient, origin: Origin, target: Target) -> RelayedChannel:
        """Opens a way to `target`. `relay` is a client of the node that shall relay.

        Raises:
            AccessDenied: the relay does not relay for this key. Whether the target takes it shows when it is asked.
            NotReachable: the relay or the target cannot be reached.
            Overloaded: too many clients are relayed.
        """
        channel = cls(relay, origin, target)
        try:
            async with asyncio.timeout(RELAY_OPEN_S):
                while not channel._is_open:
                    channel._raise_lost()
                    await channel._changed()
        except TimeoutError:
            channel.close()
            raise NotReachable(f"the relay does not open a way to {target.name} within {RELAY_OPEN_S:g} s") from None
        except BaseException:
            channel.close()
            raise
        return channel

    @property
    def tells_close(self) -> bool:
        """Yes: the relay says so."""
        return True

    def send(self, frame: bytes) -> None:
        """Signs, seals and queues a frame."""
        frame_max = CONTROL_REQUEST_BYTES_MAX - RELAY_OVERHEAD_BYTES_MAX
        if len(frame) > frame_max:
            raise UsageError(f"a request of {len(frame)} bytes; at most {frame_max} through a relay: send it in pieces")
        self._raise_lost()
        origin, target = self._origin, self._target
        contents = new_contents(
            origin.node_id,
            target.node_id,
            target.boot,
            OPERATION,
            pack(self._session, self._sent, self._seal.close(self._session, self._sent, TO_TARGET, frame)),
            now_ns=origin.wall_ns(),
            random_bits=origin.random_bits,
        )
        # Counted first: a number is never used for two frames. When this one is not sent, the session is over.
        self._sent += 1
        try:
            self._asked.forward(wire.encode(seal(origin.seed, contents)))
        except AspenError as error:
            self._fail(error)
            raise

    async def recv(self) -> bytes:
        """The next frame."""
        while not self._frames:
            self._raise_lost()
            await self._changed()
        return self._frames.popleft()

    def close(self) -> None:
        """Ends it; the target cancels what it was doing for this client. Idempotent."""
        self._fail(NotReachable(f"the connection to {self._target.name} was closed here"))
        with contextlib.suppress(AspenError):  # Without a connection the relay ends it all the same.
            self._asked.cancel()

    async def wait_closed(self) -> None:
        """Returns when the relay has ended it, or after RELAY_OPEN_S. Close it first."""
        await asyncio.wait({self._watching}, timeout=RELAY_OPEN_S)

    def _on_event(self, kind: str, data: Any) -> None:
        if kind == "open":
            self._is_open = True
        elif kind == "frame" and self._lost is None:
            try:
                if type(data) is not bytes:
                    raise AccessDenied("a relayed frame is bytes")
                self._frames.append(self._seal.open(self._session, self._received, TO_CLIENT, data))
            except AccessDenied as error:
                self._fail(
                    AccessDenied(f"what the relay says is not from {self._target.name}; do not use it ({error})")
                )
                self._asked.cancel()
            self._received += 1
            if len(self._frames) > RELAY_ANSWERS_MAX:
                self._fail(Overloaded("answers come faster than they are read"))
        self._wake()

    async def _watch(self) -> None:
        try:
            await self._asked.wait()
            self._fail(NotReachable(f"the relay has ended the connection to {self._target.name}"))
        except AspenError as error:
            self._fail(error)

    def _fail(self, error: AspenError) -> None:
        if self._lost is None:
            self._lost = error
        self._wake()

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise type(self._lost)(str(self._lost))

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _changed(self) -> None:
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)
