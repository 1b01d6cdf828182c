"""`SpinGuard`: ends a run in which one step never ends, and names the line.

The engine counts steps, and a handler that loops for ever is a single one. So a timer of the operating system, which
counts the processor time of this process, looks whether steps go on; if none has for too long, it raises in the code
that spins. It changes nothing in a run that goes on, and works only in the main thread.
"""

from __future__ import annotations

import signal
import threading
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Any, Final

from aspen.sim.engine import Engine
from aspen.sim.tripwire import culprit

STEP_CPU_S_MAX: Final = 20.0
"""Processor seconds that one step may take."""


class SpinGuard(AbstractContextManager[None]):
    """Watches the steps of an engine while it is entered."""

    def __init__(self, engine: Engine, step_cpu_s_max: float = STEP_CPU_S_MAX) -> None:
        self._engine = engine
        self._limit_s = step_cpu_s_max
        self._steps = -1
        self._before: Any = None
        self._armed = False

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGVTALRM) in (
            signal.SIG_DFL,
            None,
        ):
            self._before = signal.signal(signal.SIGVTALRM, self._look)
            signal.setitimer(signal.ITIMER_VIRTUAL, self._limit_s, self._limit_s)
            self._armed = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self._armed:
            self._armed = False
            signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
            signal.signal(signal.SIGVTALRM, self._before)

    def _look(self, number: int, frame: FrameType | None) -> None:
        steps, self._steps = self._steps, self._engine.steps
        if steps != self._engine.steps or self._engine.running is None:
            return
        who = culprit(frame)
        if who is None:
            return
        actor = getattr(self._engine.running.last_slot, "path", "an asyncio callback")
        raise self._engine.escape(
            f"{who.f_code.co_filename}:{who.f_lineno} in {who.f_code.co_qualname}: a single step of "
            f"{self._engine.running.name}, {actor}, has used more than {self._limit_s:g} s of processor time and "
            f"does not end; does it spin? Use await ctx.offload(...) for long work"
        )
