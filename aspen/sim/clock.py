"""Virtual time, and randomness that follows from a seed and a purpose."""

from __future__ import annotations

import hashlib
import random
from typing import Final

from aspen.traits import RandomStream

EPOCH_NS: Final = 1_700_000_000_000_000_000
"""The wall clock of a new world, in nanoseconds since 1970."""


class VirtualClock:
    """`aspen.traits.Clock` that stands still until it is advanced."""

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        self.now_ns = 0

    def mono_ns(self) -> int:
        """Virtual time since the world began."""
        return self.now_ns

    def wall_ns(self) -> int:
        """Virtual time of day."""
        return EPOCH_NS + self.now_ns

    def advance_to(self, mono_ns: int) -> None:
        """Moves on to `mono_ns`; never backwards."""
        self.now_ns = max(self.now_ns, mono_ns)


class VirtualRandom:
    """`aspen.traits.Random`: each name has its own stream, so that one more draw here changes nothing there."""

    def __init__(self, seed: int, scope: str = "") -> None:
        self._seed = seed
        self._scope = scope
        self._streams: dict[str, random.Random] = {}

    def rng(self, name: str) -> RandomStream:
        """The stream of that name; the same object each time."""
        stream = self._streams.get(name)
        if stream is None:
            key = hashlib.blake2b(f"{self._seed}/{self._scope}/{name}".encode(), digest_size=16).digest()
            stream = self._streams[name] = random.Random(int.from_bytes(key, "big"))  # noqa: S311 -- not for secrets
        return stream
