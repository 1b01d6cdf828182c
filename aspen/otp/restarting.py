"""What supervisors decide: who is restarted, how often, how soon, and how long a child may take to end."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

from aspen.errors import UsageError
from aspen.limits import SHUTDOWN_S
from aspen.otp.starting import INFINITY, Child
from aspen.types import is_benign


class Intensity:
    """Counts restarts in a sliding window: more than `count` within `period_s` is too many.

    The window is closed at both ends, as OTP's: restarts that are exactly `period_s` apart are within it.
    """

    def __init__(self, count: int, period_s: float) -> None:
        if not isinstance(count, int) or count < 0 or not 0 < period_s < math.inf:
            raise UsageError(f"intensity ({count}, {period_s}): use (restarts >= 0, seconds > 0)")
        self.count = count
        self.period_ns = int(period_s * 1e9)
        self._at_ns: deque[int] = deque(maxlen=count + 1)

    def exceeded_by_one_at(self, now_ns: int) -> bool:
        """Counts one restart; True when it is one too many."""
        self._at_ns.append(now_ns)
        while self._at_ns and self._at_ns[0] < now_ns - self.period_ns:
            self._at_ns.popleft()
        return len(self._at_ns) > self.count

    def changed(self, count: int, period_s: float) -> Intensity:
        """Other bounds, with the restarts counted so far."""
        intensity = Intensity(count, period_s)
        intensity._at_ns.extend(self._at_ns)
        return intensity


def restarts_after(spec: Child[Any], reason: object) -> bool:
    """Whether a child that ended for this reason by itself is started again."""
    if spec.restart == "permanent":
        return True
    return spec.restart == "transient" and not is_benign(reason)


def backoff_s(backoff: tuple[float, float], failures: int, jitter: float) -> float:
    """The pause before restart number `failures` (from 1) in a row: doubled each time up to the bound, and
    spread over its upper half by `jitter` in [0, 1)."""
    low, high = backoff
    pause = min(high, low * 2.0 ** min(failures - 1, 64))
    return pause * (0.5 + 0.5 * jitter)


def shutdown_of(spec: Child[Any]) -> float | str:
    """How long to wait for this child: seconds, `brutal_kill` or `infinity`."""
    if spec.shutdown is not None:
        return spec.shutdown
    return INFINITY if is_supervisor(spec.cls) else SHUTDOWN_S


def is_supervisor(cls: type) -> bool:
    """Whether actors of this class supervise others."""
    return bool(getattr(cls, "supervises", False))
