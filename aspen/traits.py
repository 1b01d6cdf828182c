"""The seams between Aspen and the world: protocols that `aspen.io` and `aspen.sim` both implement.

Everything above this module reaches time, randomness, threads and sockets through a `Ports` bundle,
one for each incarnation of a node, handed down and never global. That is what lets the same code
run in production and under a seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Clock(Protocol):
    """Time in integer nanoseconds."""

    def mono_ns(self) -> int:
        """Never goes backwards; its zero means nothing."""
        ...

    def wall_ns(self) -> int:
        """Since the Unix epoch, UTC; may jump."""
        ...


class Timer(Protocol):
    """A pending callback."""

    def cancel(self) -> None:
        """Makes sure it does not run; harmless when it has."""
        ...


class Loop(Protocol):
    """What the scheduler needs of the event loop of its node."""

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """The loop on which handlers await ordinary asyncio libraries."""
        ...

    def call_soon(self, callback: Callable[[], object], /) -> object:
        """Runs `callback` in the loop's next turn. From the loop's own thread only."""
        ...

    def call_at(self, mono_ns: int, callback: Callable[[], object], /) -> Timer:
        """Runs `callback` at the clock's time `mono_ns`, or soon when that is past."""
        ...


class RandomStream(Protocol):
    """One stream of random numbers."""

    def random(self) -> float:
        """In [0, 1)."""
        ...

    def randrange(self, stop: int, /) -> int:
        """In [0, stop)."""
        ...

    def uniform(self, a: float, b: float, /) -> float:
        """Between `a` and `b`."""
        ...

    def choice(self, options: Sequence[R], /) -> R:
        """One of `options`, which is not empty."""
        ...

    def shuffle(self, items: list[Any], /) -> None:
        """Puts `items` in a random order, in place."""
        ...

    def getrandbits(self, bits: int, /) -> int:
        """In [0, 2**bits)."""
        ...


class Random(Protocol):
    """Randomness by purpose: each name has a stream of its own, so that one more draw for one
    purpose changes no other."""

    def rng(self, name: str) -> RandomStream:
        """The stream of that name; the same object each time."""
        ...


class Offload(Protocol):
    """Runs work that would block the loop somewhere else."""

    def thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """In a thread; cannot be interrupted. Raises Overloaded when too many wait."""
        ...

    def process(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """In a process of its own, killed when the awaiter is cancelled. `fn` is importable."""
        ...

    def close(self) -> None:
        """Takes no more work. Idempotent."""
        ...


class ControlPort(Protocol):
    """The bound port on which trusted clients reach the node: encrypted, authenticated frames.

    Ordered per client. Frames of keys that are not trusted never arrive here.
    """

    @property
    def address(self) -> str:
        """Where it is bound, as `tcp://127.0.0.1:4571`."""
        ...

    def send(self, client: bytes, frame: bytes) -> bool:
        """Queues a frame; False when the client is gone or too slow, and the frame is dropped."""
        ...

    def close(self) -> None:
        """Unbinds. Idempotent."""
        ...


FrameHandler = Callable[[bytes, str, bytes], None]
"""`(client, public_key_z85, frame)`: what a `ControlPort` calls for each frame, on the loop."""


class Transport(Protocol):
    """Binds ports. Links between nodes will live here too."""

    def bind_control(
        self,
        address: str,
        secret_key_z85: str,
        authorize: Callable[[str], bool],
        on_frame: FrameHandler,
    ) -> ControlPort:
        """Binds `address` (`tcp://host:port`, port 0 for any free one).

        `authorize` gets a client's public CURVE key in z85 and is pure; it is asked at every handshake.

        Raises:
            ConfigError: the address cannot be bound; the message says why.
        """
        ...


class ControlChannel(Protocol):
    """A client's connection to the control port of a node. When it is lost it stays lost: make another."""

    def send(self, frame: bytes) -> None:
        """Queues a frame.

        Raises:
            NotReachable: the connection is lost.
            Overloaded: the node takes no more at the moment. Not sent.
            UsageError: the frame is too large.
        """
        ...

    async def recv(self) -> bytes:
        """The next frame, in order; those that came before a loss are given first. Cancelling it loses none.

        Raises:
            NotReachable: the connection is lost.
        """
        ...

    def close(self) -> None:
        """Disconnects. Idempotent."""
        ...


class StallWatch(Protocol):
    """Watches for handlers that hold the loop. Off in simulation."""

    def close(self) -> None:
        """Stops watching. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Ports:
    """What one incarnation of a node may touch of the world."""

    clock: Clock
    loop: Loop
    random: Random
    offload: Offload
    transport: Transport | None = None
    buggify: Callable[[str], bool] = field(default=lambda site: False)
    """`buggify("site")` is always False in production; simulation makes it True now and then."""
