"""Virtual time: the true time of the world, and the clock that each node reads, which may be wrong."""

from __future__ import annotations

import hashlib
import random
from typing import Final

from aspen.errors import UsageError
from aspen.traits import RandomStream

EPOCH_NS: Final = 1_700_000_000_000_000_000
"""The wall clock of a new world, in nanoseconds since 1970."""

PPB: Final = 1_000_000_000
"""Parts per billion: the rate of a clock that is right."""

RATE_ERROR_PPB_MAX: Final = 500_000_000
"""How wrong the rate of a clock may be: from half to one and a half times as fast."""


class VirtualClock:
    """`aspen.traits.Clock` that stands still until it is advanced: the true time."""

    __slots__ = ("now_ns",)

    def __init__(self) -> None:
        self.now_ns = 0

    def mono_ns(self) -> int:
        """Virtual time since the world began."""
        return self.now_ns

    def boot_ns(self) -> int:
        """The same: the true time is never suspended."""
        return self.now_ns

    def wall_ns(self) -> int:
        """Virtual time of day."""
        return EPOCH_NS + self.now_ns

    def advance_to(self, mono_ns: int) -> None:
        """Moves on to `mono_ns`; never backwards."""
        self.now_ns = max(self.now_ns, mono_ns)

    def true_at(self, mono_ns: int) -> int:
        """The true time at which this clock shows `mono_ns`: the same."""
        return mono_ns


class NodeClock:
    """`aspen.traits.Clock` of one node incarnation: at its own rate, with its own zero, and a wall clock that jumps.

    `mono_ns` never goes backwards, whatever the rate does. Whoever changes the rate must file the timers of the
    node's loop again: `VirtualLoop.refile`.
    """

    __slots__ = ("_mono_0", "_rate_ppb", "_suspended_ns", "_true", "_true_0", "_wall_offset_ns")

    def __init__(
        self, true: VirtualClock, *, zero_ns: int = 0, rate_error_ppb: int = 0, wall_offset_ns: int = 0
    ) -> None:
        """`zero_ns` is what it shows now; `wall_offset_ns` how far its wall clock is ahead of the true one."""
        self._true = true
        self._true_0 = true.now_ns
        self._mono_0 = zero_ns
        self._rate_ppb = PPB
        self._wall_offset_ns = EPOCH_NS + true.now_ns - zero_ns + wall_offset_ns
        self._suspended_ns = 0
        self.set_rate(rate_error_ppb)

    def mono_ns(self) -> int:
        """Never goes backwards; its zero means nothing."""
        elapsed = self._true.now_ns - self._true_0
        if self._rate_ppb != PPB:
            elapsed = elapsed * self._rate_ppb // PPB
        return self._mono_0 + elapsed

    def boot_ns(self) -> int:
        """As `mono_ns`, and the time in which the node was suspended."""
        return self.mono_ns() + self._suspended_ns

    def suspended(self, ns: int) -> None:
        """The machine slept for so long: what `mono_ns` does not show, and `boot_ns` does."""
        self._suspended_ns += ns

    def wall_ns(self) -> int:
        """What the node takes for the time of day."""
        return self.mono_ns() + self._wall_offset_ns

    def true_at(self, mono_ns: int) -> int:
        """The first true time at which it will show `mono_ns`, if its rate stays; now when that is past."""
        elapsed = mono_ns - self._mono_0
        if self._rate_ppb != PPB:
            elapsed = -(-elapsed * PPB // self._rate_ppb)
        return max(self._true_0 + elapsed, self._true.now_ns)

    def set_rate(self, error_ppb: int) -> None:
        """Runs too fast by so many parts per billion from now on; too slow when negative.

        Raises:
            UsageError: no clock is that wrong; the bound is RATE_ERROR_PPB_MAX.
        """
        if abs(error_ppb) > RATE_ERROR_PPB_MAX:
            raise UsageError(f"a rate error of {error_ppb} ppb; use at most {RATE_ERROR_PPB_MAX} either way")
        self._mono_0 = self.mono_ns()
        self._true_0 = self._true.now_ns
        self._rate_ppb = PPB + error_ppb

    @property
    def rate_error_ppb(self) -> int:
        """How far its rate is off."""
        return self._rate_ppb - PPB

    @property
    def wall_error_ns(self) -> int:
        """How far its wall clock is ahead of the true one."""
        return self.wall_ns() - self._true.wall_ns()

    def step_wall(self, by_ns: int) -> None:
        """Makes the wall clock jump; the monotonic one does not."""
        self._wall_offset_ns += by_ns


class VirtualRandom:
    """`aspen.traits.Random`: each name has its own stream, so that one more draw here changes nothing there.

    `scope` keeps entities apart: a stream follows from (seed, scope, name) and from nothing else.
    """

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

    def scoped(self, scope: str) -> VirtualRandom:
        """The streams of an entity within this scope."""
        return VirtualRandom(self._seed, f"{self._scope}/{scope}" if self._scope else scope)
