"""`Heart`: keeps one node's OS process alive from outside, as Erlang's `heart` does. Sans-IO.

    DOWN ──spawn──> STARTING ──first beat──> UP ──silence──> (killed) ──exit──> DOWN
                        │ exit, silence         │ exit
                        └──────────────> DOWN, spawned anew after a pause
    exit code 0, a farewell, or an order to stop ──> ENDED      too many exits, bad usage, a bad disk ──> GAVE_UP

The parent tells what happens (`started`, `beat`, `farewell`, `exited`, `tick`) with the time in nanoseconds, and
performs the effects that come back. A node beats from its event loop, so one whose loop is held, or whose process is
stopped, is silent. It is killed then, and not asked: it could not hear.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aspen import limits
from aspen.otp.restarting import Intensity, backoff_s

DOWN: Final = "down"
STARTING: Final = "starting"
UP: Final = "up"
STOPPING: Final = "stopping"
ENDED: Final = "ended"
GAVE_UP: Final = "gave_up"

EXIT_USAGE: Final = 2
"""The exit code of a node that will never start like this."""

EXIT_STORAGE: Final = 5
"""The exit code of a node whose disk failed or lost what was on it: to start it again would be to believe that disk."""


@dataclass(frozen=True, slots=True)
class Spawn:
    """Start the process."""


@dataclass(frozen=True, slots=True)
class Kill:
    """Kill the process: SIGKILL."""

    why: str


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the process to stop in order: SIGTERM."""


Effect = Spawn | Kill | Terminate


class Heart:
    """The heart of one node."""

    def __init__(self, *, silence_s: float = limits.HEART_SILENCE_S, jitter: float = 0.5) -> None:
        self.state = DOWN
        self.exit_code: int | None = None
        """Of the latest process; negative is a signal's number."""
        self.restarts = 0
        self.why = ""
        """Why it gave up."""
        self._silence_ns = int(silence_s * 1e9)
        self._jitter = jitter
        self._intensity = Intensity(limits.HEART_RESTARTS, limits.HEART_PERIOD_S)
        self._failures = 0
        self._at_ns = 0
        """When the next thing is due: a spawn while down, patience with its silence otherwise."""
        self._up_ns = 0
        self._killed = False
        self._farewell = False

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in (ENDED, GAVE_UP)

    def started(self, now_ns: int) -> None:
        """The process has been started."""
        if self.state == DOWN:
            self.state = STARTING
        self._at_ns = now_ns + int(limits.HEART_START_S * 1e9)

    def beat(self, now_ns: int) -> None:
        """The node says that it lives."""
        if self.state == STARTING:
            self.state, self._up_ns = UP, now_ns
        if self.state == UP:
            self._at_ns = now_ns + self._silence_ns

    def farewell(self) -> None:
        """The node says that it ends in order, whatever its exit code."""
        self._farewell = True

    def exited(self, now_ns: int, code: int) -> None:
        """The process has ended with this code; a negative one is a signal's number."""
        self.exit_code = code
        self._killed = False
        if self.state == STOPPING or self._farewell or code == 0:
            self.state = ENDED
        elif code == EXIT_USAGE:
            self._give_up("it cannot start like this; its last words say why")
        elif code == EXIT_STORAGE:
            self._give_up("its disk failed, or what is on it cannot be trusted; its last words say what to do")
        elif self._intensity.exceeded_by_one_at(now_ns):
            self._give_up(f"more than {limits.HEART_RESTARTS} ends in {limits.HEART_PERIOD_S:g} s")
        else:
            lived_ns = now_ns - self._up_ns if self.state == UP else 0
            self._failures = 1 if lived_ns > limits.HEART_PERIOD_S * 1e9 else self._failures + 1
            pause_s = backoff_s((limits.HEART_PAUSE_S, limits.HEART_PAUSE_S_MAX), self._failures, self._jitter)
            self.state = DOWN
            self._at_ns = now_ns + int(pause_s * 1e9)

    def stop(self, now_ns: int) -> list[Effect]:
        """Stops it in order; killed when that takes too long."""
        if self.over:
            return []
        if self.state == DOWN:
            self.state = ENDED
            return []
        if self.state != STOPPING:
            self.state = STOPPING
            self._at_ns = now_ns + int(limits.HEART_STOP_S * 1e9)
            return [Terminate()]
        return []

    def tick(self, now_ns: int) -> list[Effect]:
        """What is due now."""
        if self.over or now_ns < self._at_ns or self._killed:
            return []
        if self.state == DOWN:
            if self.exit_code is not None:
                self.restarts += 1
            self._at_ns = now_ns + int(limits.HEART_START_S * 1e9)
            return [Spawn()]
        self._killed = True
        why = {
            STARTING: f"it was not up within {limits.HEART_START_S:g} s",
            UP: f"it was silent for {self._silence_ns / 1e9:g} s",
            STOPPING: f"it did not stop within {limits.HEART_STOP_S:g} s",
        }[self.state]
        return [Kill(why)]

    def _give_up(self, why: str) -> None:
        self.state, self.why = GAVE_UP, why
