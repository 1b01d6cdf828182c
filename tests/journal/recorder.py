"""`Files` that remember what was done, and every directory that a loss of power could have left at any moment of it.

Independent of the simulated disk: it enumerates where that draws.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.journal.rig import Image

SECTOR = 512
EXHAUSTIVE_MAX = 7
"""Up to so many pieces in doubt, every subset of them is tried."""


class Recorder:
    """`aspen.traits.Files` in memory."""

    def __init__(self) -> None:
        self.ops: list[tuple[Any, ...]] = []
        self.there: dict[str, int] = {}
        self.contents: list[bytearray] = []

    def open(self, name: str) -> RecordedFile:
        if name not in self.there:
            self.contents.append(bytearray())
            self.there[name] = len(self.contents) - 1
            self._named()
        return RecordedFile(self, self.there[name])

    def names(self) -> Sequence[str]:
        return sorted(self.there)

    def rename(self, old: str, new: str) -> None:
        self.there[new] = self.there.pop(old)
        self._named()

    def remove(self, name: str) -> None:
        del self.there[name]
        self._named()

    def sync(self) -> None:
        self.ops.append(("sync names",))

    def _named(self) -> None:
        self.ops.append(("names", dict(self.there)))


class RecordedFile:
    """`aspen.traits.LogFile` in memory."""

    def __init__(self, recorder: Recorder, number: int) -> None:
        self.recorder = recorder
        self.number = number
        self.data = recorder.contents[number]

    def size(self) -> int:
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        return bytes(self.data[offset : offset + length])

    def write(self, offset: int, data: bytes) -> None:
        put(self.data, offset, data)
        self.recorder.ops.append(("write", self.number, offset, bytes(data)))

    def write_synced(self, offset: int, data: bytes) -> None:
        self.write(offset, data)
        self.sync()

    def append(self, data: bytes) -> int:
        offset = len(self.data)
        self.write(offset, data)
        return offset

    def truncate(self, size: int) -> None:
        resize(self.data, size)
        self.recorder.ops.append(("size", self.number, size))

    def reserve(self, size: int) -> None:
        if size > len(self.data):
            self.truncate(size)

    def sync(self) -> None:
        self.recorder.ops.append(("sync", self.number))

    def close(self) -> None:
        return


def put(data: bytearray, offset: int, piece: bytes) -> None:
    if offset > len(data):
        data.extend(bytes(offset - len(data)))
    data[offset : offset + len(piece)] = piece


def resize(data: bytearray, size: int) -> None:
    if size < len(data):
        del data[size:]
    else:
        data.extend(bytes(size - len(data)))


@dataclass
class _Device:
    """What is surely there, and what is in doubt, after some of the operations."""

    safe: dict[int, bytearray] = field(default_factory=dict)
    pending: dict[int, list[tuple[int, bytes | None]]] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)
    names_pending: list[dict[str, int]] = field(default_factory=list)

    def do(self, op: tuple[Any, ...]) -> None:
        match op:
            case ("write", number, offset, data):
                self.pending.setdefault(number, []).extend(pieces(offset, data))
            case ("size", number, size):
                self.pending.setdefault(number, []).append((size, None))
            case ("sync", number):
                apply(self.safe.setdefault(number, bytearray()), self.pending.pop(number, []))
            case ("names", names):
                self.names_pending.append(names)
            case ("sync names",):
                if self.names_pending:
                    self.names = self.names_pending[-1]
                    self.names_pending = []

    def images(self, rng: random.Random, samples: int) -> Iterator[Image]:
        """Directories that a loss of power now could leave."""
        doubtful = [(number, n) for number, pending in self.pending.items() for n in range(len(pending))]
        for kept in subsets(doubtful, rng, samples):
            for names in (self.names, *self.names_pending):
                image = {}
                for name, number in names.items():
                    data = bytearray(self.safe.get(number, b""))
                    apply(data, [p for n, p in enumerate(self.pending.get(number, [])) if (number, n) in kept])
                    image[name] = bytes(data)
                yield image


def pieces(offset: int, data: bytes) -> Iterator[tuple[int, bytes]]:
    start = 0
    while start < len(data):
        end = start + SECTOR - (offset + start) % SECTOR
        yield offset + start, data[start:end]
        start = end


def apply(data: bytearray, changes: Sequence[tuple[int, bytes | None]]) -> None:
    for at, piece in changes:
        if piece is None:
            resize(data, at)
        else:
            put(data, at, piece)


def subsets(doubtful: list[Any], rng: random.Random, samples: int) -> Iterator[set[Any]]:
    """All of them when there are few; else none, all, all but one, one alone, and some drawn."""
    if len(doubtful) <= EXHAUSTIVE_MAX:
        for bits in range(1 << len(doubtful)):
            yield {one for n, one in enumerate(doubtful) if bits >> n & 1}
        return
    yield set()
    yield set(doubtful)
    for one in doubtful:
        yield {one}
        yield set(doubtful) - {one}
    for _ in range(samples):
        yield {one for one in doubtful if rng.random() < 0.5}


def moments(ops: list[tuple[Any, ...]]) -> Iterator[tuple[int, _Device]]:
    """The device after each operation, and before the first."""
    device = _Device()
    yield 0, device
    for n, op in enumerate(ops, 1):
        device.do(op)
        yield n, device
