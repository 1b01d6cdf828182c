"""The machine's clocks and its randomness."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from aspen.traits import RandomStream

_BOOT: Final = getattr(time, "CLOCK_BOOTTIME", 0)
"""Of Linux; elsewhere there is none."""


class RealClock:
    """`aspen.traits.Clock` on the machine's clocks."""

    __slots__ = ()
    mono_ns: Callable[[], int] = staticmethod(time.monotonic_ns)
    boot_ns: Callable[[], int] = staticmethod(partial(time.clock_gettime_ns, _BOOT) if _BOOT else time.monotonic_ns)
    """Where the system has no such clock, the monotonic one, which there counts suspension."""
    wall_ns: Callable[[], int] = staticmethod(time.time_ns)


class RealRandom:
    """`aspen.traits.Random` seeded by the machine, or by `seed` for a repeatable run."""

    def __init__(self, seed: int | None = None) -> None:
        self._seed = random.SystemRandom().getrandbits(64) if seed is None else seed
        self._streams: dict[str, random.Random] = {}

    def rng(self, name: str) -> RandomStream:
        """The stream of that name."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = random.Random(f"{self._seed}/{name}")  # noqa: S311 -- not for secrets
        return stream
