"""What both kinds of supervisor decide and do alike: how often, how soon, and how a child is ended."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any

from aspen.actor import Process, Reply
from aspen.errors import CallTimeout, UsageError
from aspen.limits import SHUTDOWN_S
from aspen.otp.starting import BRUTAL_KILL, INFINITY, Child
from aspen.types import KILL, SHUTDOWN, is_benign


class Intensity:
    """Counts restarts in a sliding window: more than `count` within `period_s` is too many."""

    def __init__(self, count: int, period_s: float) -> None:
        if count < 0 or not period_s > 0:
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


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One child, as `which_children` tells."""

    id: str
    ref: Any
    """None while it does not run."""
    kind: str
    """`module:QualName` of its class."""
    type: str
    """`worker` or `supervisor`."""
    status: str
    """`running`, `restarting`, `stopped` or `ignored`."""
    restarts: int


def shutdown_of(spec: Child[Any]) -> float | str:
    """How long to wait for this child: seconds, `brutal_kill` or `infinity`."""
    if spec.shutdown is not None:
        return spec.shutdown
    return INFINITY if is_supervisor(spec.cls) else SHUTDOWN_S


def is_supervisor(cls: type) -> bool:
    """Whether actors of this class supervise others."""
    return bool(getattr(cls, "supervises", False))


def signal_end(process: Process, spec: Child[Any], supervisor: Process) -> Reply[object]:
    """Asks a child to end; the reply brings its exit reason, or `CallTimeout` when it is to be killed."""
    system = process.system
    ended = system.exit_reason(process)
    shutdown = shutdown_of(spec)
    system.exit(supervisor, process, KILL if shutdown == BRUTAL_KILL else SHUTDOWN)
    if isinstance(shutdown, int | float):
        ended.deadline = process.sched.mono_ns() + int(shutdown * 1e9)
    return ended


async def wait_ended(process: Process, ended: Reply[object]) -> None:
    """Waits for a child that was asked to end, and kills it when its time is over."""
    try:
        await ended
    except CallTimeout:
        killed = process.system.exit_reason(process)
        process.system.exit(None, process, KILL)
        await killed
