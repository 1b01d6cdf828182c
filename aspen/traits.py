"""The seams between Aspen and the world: protocols that `aspen.io` and `aspen.sim` both implement.

    Clock, Timer, Loop, Random              time, order and chance
    Offload, Lane                           slow work
    Transport, ControlPort                  the port for clients
    PeerTransport, PeerHandler              frames between nodes
    Files, LogFile                          plain files, for a write-ahead log
    Storage, StorageTransaction             ordered key-value transactions
    Ports                                   all of them together: what one incarnation of a node may touch

Everything above this module reaches time, randomness, threads and sockets through a `Ports` bundle,
one for each incarnation of a node, handed down and never global. That is what lets the same code
run in production and under a seed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

R = TypeVar("R")


class Clock(Protocol):
    """Time in integer nanoseconds."""

    def mono_ns(self) -> int:
        """Never goes backwards; its zero means nothing."""
        ...

    def boot_ns(self) -> int:
        """As `mono_ns`, with a zero of its own, and it counts the time in which the machine was suspended, too."""
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


class Lane(Protocol):
    """A thread of its own for work that blocks and must not be overtaken: the writes of a log."""

    def run(self, fn: Callable[..., R], /, *args: Any) -> Awaitable[R]:
        """Begins when what was given before has ended. Not interrupted when the awaiter is cancelled.

        Nothing needs to await it: the work is done all the same. Raises Overloaded when too much waits.
        """
        ...

    def close(self) -> None:
        """Takes no more work; what was given is still done. Idempotent."""
        ...


class Offload(Protocol):
    """Runs work that would block the loop somewhere else."""

    def lane(self, name: str, /) -> Lane:
        """A new thread that does one thing after the other."""
        ...

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
        """Queues a frame; False when the client is too slow, and the frame is dropped.

        Raises:
            NotReachable: the client is gone; one that comes back has another id.
        """
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


class PeerHandler(Protocol):
    """Who is told what a `PeerTransport` sees. All on the loop."""

    def on_frame(self, peer: str, lane: int, connection: int, frame: bytes | memoryview, /) -> None:
        """A frame came. `connection` names the peer's connection it came on, and is never used again.

        A large one may come as a view of bytes that nobody changes.

        Frames of one connection come in the order sent. When the peer connects anew, frames of its old connection
        may still come after the first ones of the new.
        """
        ...

    def on_peer_up(self, peer: str, /) -> None:
        """A connection to `peer` stands. Frames that were queued go out now."""
        ...

    def on_peer_down(self, peer: str, /) -> None:
        """The connection to `peer` is lost, and with it an unknown suffix of the frames sent. It is tried again."""
        ...


class PeerTransport(Protocol):
    """Frames between nodes, each way on connections of its own: what ZeroMQ gives, and no more.

    - Frames to one peer on one lane arrive in the order sent, each at most once; nothing is promised across lanes.
    - A frame may be lost without a word: when a connection breaks, and when a queue is full.
    - Frames sent while there is no connection wait for one, up to the high-water mark.
    """

    @property
    def address(self) -> str:
        """Where peers reach this node."""
        ...

    def listen(self, handler: PeerHandler, /) -> None:
        """Says who is told. Once, before anything else."""
        ...

    def connect(self, peer: str, address: str, /) -> None:
        """Connects to a peer, and again whenever the connection is lost. Harmless when it is connected."""
        ...

    def disconnect(self, peer: str, /) -> None:
        """Ends the connection to a peer and drops what waits for it. No `on_peer_down` follows."""
        ...

    def send(self, peer: str, lane: int, frame: bytes, /) -> bool:
        """Queues a frame. False: certainly dropped, as there is no such peer or its queue is full.

        True promises nothing: see above. `lane` is from 0 to `LANES_MAX` - 1.
        """
        ...

    def close(self) -> None:
        """Ends all connections. Idempotent."""
        ...


class LogFile(Protocol):
    """A plain file. What is written is read back at once; what survives a loss of power is what was synced.

    Of the writes since the last `sync`, a loss of power keeps any of their sectors and drops the others, in no order:
    records need checksums. After a `sync` that raised, nothing that was written before it can be trusted to be on
    the device, not even after a later `sync` returns: end the node.

    Every method raises StorageFailed when the device fails, and DiskFull when what would make it larger finds no room.
    """

    def size(self) -> int:
        """Bytes in it."""
        ...

    def read(self, offset: int, length: int, /) -> bytes:
        """At most `length` bytes from `offset`; fewer at the end."""
        ...

    def write(self, offset: int, data: bytes, /) -> None:
        """Writes at `offset`; a gap before it reads as zeros."""
        ...

    def write_synced(self, offset: int, data: bytes, /) -> None:
        """Writes at `offset`; returns when these bytes are on the device, as do earlier ones of the file or not.

        When it raises, it is as if a `sync` had.
        """
        ...

    def append(self, data: bytes, /) -> int:
        """Writes at the end; returns the offset."""
        ...

    def reserve(self, size: int, /) -> None:
        """Extends it to `size` bytes with zeros, and has the room for them. Raises DiskFull: there is none.

        Nothing when it is as large already.
        """
        ...

    def truncate(self, size: int, /) -> None:
        """Cuts it, or extends it with zeros, to `size` bytes."""
        ...

    def sync(self) -> None:
        """Returns when everything written is on the device: `fdatasync`."""
        ...

    def close(self) -> None:
        """Ends its use; does not sync. Idempotent."""
        ...


class Files(Protocol):
    """The files of one directory. Names are made, moved and removed durably only by `sync`.

    Every method raises StorageFailed when the device fails.
    """

    def open(self, name: str, /) -> LogFile:
        """The file of that name, made if it is not there."""
        ...

    def names(self) -> Sequence[str]:
        """What is there, sorted."""
        ...

    def rename(self, old: str, new: str, /) -> None:
        """Moves a file; `new` is replaced at one stroke. Raises FileNotFoundError."""
        ...

    def remove(self, name: str, /) -> None:
        """Removes a file. Raises FileNotFoundError."""
        ...

    def sync(self) -> None:
        """Returns when names are on the device. A loss of power undoes changes since, the newest first."""
        ...


class StorageTransaction(AbstractContextManager["StorageTransaction"], Protocol):
    """A view of one moment; a writing one sees its own changes. Leaving a `with` block without `commit` aborts it."""

    def get(self, table: str, key: bytes, /) -> bytes | None:
        """The value, or None."""
        ...

    def put(self, table: str, key: bytes, value: bytes, /) -> None:
        """Sets the value. Raises MapFull: there is no room; abort. Raises UsageError: a key has 1 to 511 bytes."""
        ...

    def delete(self, table: str, key: bytes, /) -> bool:
        """Removes the key; False when it was not there."""
        ...

    def scan(
        self, table: str, start: bytes = b"", stop: bytes | None = None, /, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of `[start, stop)` in order of bytes; `stop` None is the end; `reverse` from the end.

        Change nothing of the table between its steps.
        """
        ...

    def commit(self) -> None:
        """Makes its changes visible to transactions that begin later. A reading one just ends.

        A loss of power undoes at most the last commit, wholly, until `sync` has returned.
        Raises StorageFailed or MapFull: nothing was changed.
        """
        ...

    def abort(self) -> None:
        """Ends it without a trace. Idempotent."""
        ...


class Storage(Protocol):
    """Ordered tables of bytes with transactions: LMDB's contract, with `metasync` off."""

    def begin(self, *, write: bool = False) -> StorageTransaction:
        """Begins a transaction. One writes at a time; readers never wait, and see the moment they began."""
        ...

    def sync(self) -> None:
        """Returns when every commit is on the device. Raises StorageFailed."""
        ...

    def used_bytes(self) -> int:
        """How much of the map is taken, about."""
        ...

    def close(self) -> None:
        """Ends its use. Open transactions are aborted. Idempotent."""
        ...


class Disk(Protocol):
    """Where a node keeps things: directories of files, and stores, by name."""

    def files(self, directory: str, /) -> Files:
        """The files of a directory, which is made if it is not there."""
        ...

    def storage(self, name: str, tables: Sequence[str], /, *, map_bytes: int) -> Storage:
        """The store of that name with these tables, made if it is not there. Open it once at a time.

        Raises:
            StorageCorrupt: what is there cannot be trusted; rebuild it from elsewhere.
        """
        ...

    def verify(self, name: str, offload: Offload, /) -> Awaitable[None]:
        """Reads the whole store of that name, in another process: to be done after an unclean end and before it is
        opened, as a corrupt one may kill the process that reads it. A store that is not there is sound.

        Raises:
            StorageCorrupt: it cannot be trusted; remove it, and rebuild it from elsewhere.
        """
        ...

    def storages(self) -> list[str]:
        """The names of the stores that are there, in order."""
        ...

    def remove_storage(self, name: str, /) -> None:
        """Removes a store, durably. It must be closed. Nothing when it is not there."""
        ...

    def rename_storage(self, old: str, new: str, /) -> None:
        """Puts a store in the place of another, durably and at one stroke. Both must be closed.

        Raises FileNotFoundError: there is no store `old`.
        """
        ...


class ControlChannel(Protocol):
    """A client's connection to the control port of a node. When it is lost it stays lost: make another."""

    @property
    def tells_close(self) -> bool:
        """Whether the node hears of `close` by itself; else the client says goodbye first."""
        ...

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
class Steering:
    """How a simulator guides the kernel of a node. Production has none."""

    choose: Callable[[Any], bool | None]
    """Before each slot: brings a runnable process to the front of the queue; True ends the turn first."""
    observer: Callable[[Any, str, str, object], object] | None
    """Told of what processes do: `(process, event, name, payload)`."""
    strict_messages: bool = True


@dataclass(frozen=True, slots=True)
class Ports:
    """What one incarnation of a node may touch of the world."""

    clock: Clock
    loop: Loop
    random: Random
    offload: Offload
    transport: Transport | None = None
    peers: PeerTransport | None = None
    disk: Disk | None = None
    steering: Steering | None = None
    buggify: Callable[[str], bool] = field(default=lambda site: False)
    """`buggify("site")` is always False in production; simulation makes it True now and then."""
