"""`Engine`: the one scheduler of a world. It owns time and decides what runs next, on all loops, by the seed.

A *step* is one callback of one loop: a slot of an actor, a timer, a frame that arrives, a piece of an asyncio task.
While any loop has something ready, the engine takes one of these loops by the seed and runs its oldest callback.
When none has, time jumps to the next timer; the timers of one time become ready in the order made, `(t_ns, seq)`.

So the order within a loop is asyncio's, and the order between loops is the seed's.
"""

from __future__ import annotations

import gc
import heapq
from asyncio import events
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NoReturn

from aspen.errors import EscapedSimulation
from aspen.sim.clock import VirtualClock, VirtualRandom

if TYPE_CHECKING:
    from aspen.sim.loop import VirtualLoop

NEVER_NS: Final = (1 << 63) - 1

STEPS_MAX: Final = 50_000_000
"""Steps of one run: a program that never ends is an error here, not a hang."""

STEPS_PER_INSTANT_MAX: Final = 5_000_000
"""Steps in a row without time going on: something spins."""

GC_EVERY_STEPS: Final = 20_000
"""Garbage is collected at fixed steps, so that weakref callbacks and `__del__` run where the seed says."""

_CULPRIT_STEPS: Final = 1_000
_TIMERS_KEPT_MIN: Final = 1_024


class SimTimer:
    """A callback at a time on a loop. `mono_ns` is that time on the loop's own clock, if it was given so."""

    __slots__ = ("callback", "loop", "mono_ns")

    def __init__(self, loop: VirtualLoop, callback: Callable[[], object] | None, mono_ns: int | None) -> None:
        self.loop = loop
        self.callback = callback
        self.mono_ns = mono_ns

    def cancel(self) -> None:
        """Makes sure it does not run; harmless when it has."""
        self.callback = None

    def __call__(self) -> None:
        """Runs it, unless it was cancelled."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class Engine:
    """Time, timers, and what runs next."""

    __slots__ = (
        "_check_at",
        "_collect_garbage",
        "_draw",
        "_end_step",
        "_heap",
        "_instant_ns",
        "_instant_step",
        "_sequence",
        "_timers_kept",
        "between",
        "clock",
        "escapes",
        "escapes_end_it",
        "gc_every_steps",
        "ready",
        "running",
        "steps",
        "steps_max",
        "stopping",
    )

    def __init__(self, seed: int, *, steps_max: int = STEPS_MAX, collect_garbage: bool = False) -> None:
        self.clock = VirtualClock()
        self.steps = 0
        """Steps so far."""
        self.steps_max = steps_max
        self.gc_every_steps = GC_EVERY_STEPS
        self.ready: list[VirtualLoop] = []
        """Loops that have something to run."""
        self.running: VirtualLoop | None = None
        """The loop whose callback runs now."""
        self.stopping = False
        self.escapes: list[EscapedSimulation] = []
        """What reached for the real world, even if the program caught the error."""
        self.escapes_end_it = False
        """Whether the first escape ends the run."""
        self.between: Callable[[], object] | None = None
        """Called when nothing is left to run at an instant, before time goes on."""
        self._draw = VirtualRandom(seed, "scheduler").rng("loops").random
        self._heap: list[tuple[int, int, SimTimer]] = []
        self._sequence = 0
        self._timers_kept = _TIMERS_KEPT_MIN
        self._collect_garbage = collect_garbage
        self._check_at = 0
        self._end_step = 0
        self._instant_ns = -1
        self._instant_step = 0

    def escape(self, message: str) -> EscapedSimulation:
        """The error to raise in code that reaches for the real world."""
        error = EscapedSimulation(message)
        self.escapes.append(error)
        if self.escapes_end_it:
            self.stopping = True
        return error

    def raise_escapes(self) -> None:
        """Raises the first escape, if escapes end the run and there was one."""
        if self.escapes_end_it and self.escapes:
            raise EscapedSimulation(str(self.escapes[0])) from self.escapes[0]

    # -- timers ---------------------------------------------------------------------------------------

    def call_at(
        self, true_ns: int, loop: VirtualLoop, callback: Callable[[], object], mono_ns: int | None = None
    ) -> SimTimer:
        """Runs `callback` as a step of `loop` at the true time `true_ns`; one that is due already is ready at once."""
        timer = SimTimer(loop, callback, mono_ns)
        if true_ns <= self.clock.now_ns:
            loop.push(timer)
            return timer
        self._sequence += 1
        heapq.heappush(self._heap, (true_ns, self._sequence, timer))
        if len(self._heap) > self._timers_kept:
            self._forget_cancelled()
        return timer

    def _forget_cancelled(self) -> None:
        self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
        heapq.heapify(self._heap)
        self._timers_kept = max(_TIMERS_KEPT_MIN, 2 * len(self._heap))

    def refile(self, loop: VirtualLoop) -> None:
        """Files the timers of a loop again, whose clock goes at another rate now."""
        true_at = loop.clock.true_at
        self._heap[:] = [
            (true_at(timer.mono_ns), sequence, timer)
            if timer.loop is loop and timer.mono_ns is not None
            else (at_ns, sequence, timer)
            for at_ns, sequence, timer in self._heap
        ]
        heapq.heapify(self._heap)

    def take_timers(self, loop: VirtualLoop) -> list[SimTimer]:
        """Takes the timers of a loop away: they will not run."""
        taken = [timer for _, _, timer in self._heap if timer.loop is loop]
        if taken:
            self._heap[:] = [entry for entry in self._heap if entry[2].loop is not loop]
            heapq.heapify(self._heap)
        return taken

    def next_timer_ns(self) -> int:
        """When the next timer is due; NEVER_NS when there is none."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else NEVER_NS

    def _advance(self, end_ns: int) -> bool:
        """Moves time to the next timer, and makes ready all that are due then."""
        at_ns = self.next_timer_ns()
        if at_ns > end_ns or at_ns == NEVER_NS:
            return False
        if self.between is not None:
            self.between()
            if self.stopping:
                return True
        heap = self._heap
        clock = self.clock
        clock.now_ns = max(clock.now_ns, at_ns)
        while heap and heap[0][0] <= at_ns:
            timer = heapq.heappop(heap)[2]
            if timer.callback is not None:
                timer.loop.push(timer)
        return True

    # -- running ----------------------------------------------------------------------------------------

    def run(self, end_ns: int = NEVER_NS) -> None:
        """Runs until `stopping` is set, nothing is left to do, or time would pass `end_ns`.

        Raises:
            EscapedSimulation: more than `steps_max` steps ran, or time stands still; names who ran most.
        """
        if self.running is not None:
            raise RuntimeError("this world is running already")
        ready, draw = self.ready, self._draw
        self.stopping = False
        self._end_step = self.steps + self.steps_max
        self._check_at = min(self._end_step, self._next_gc())
        before = events._get_running_loop()
        try:
            while not self.stopping:
                count = len(ready)
                if not count:
                    if not self._advance(end_ns):
                        return
                    continue
                loop = ready[int(draw() * count)] if count > 1 else ready[0]
                if loop is not self.running:
                    self.running = loop
                    events._set_running_loop(loop)
                self.steps = steps = self.steps + 1
                queue = loop.queue
                queue.popleft()()
                if not queue:
                    loop.leave_ready()
                if steps >= self._check_at:
                    self._check()
        finally:
            stepped, self.running = self.running, None
            if stepped is not None and not stepped.queue:
                stepped.leave_ready()  # its step raised, KeyboardInterrupt say
            events._set_running_loop(before)

    def _next_gc(self) -> int:
        return (self.steps // self.gc_every_steps + 1) * self.gc_every_steps

    def _check(self) -> None:
        if self.steps >= self._end_step:
            self._spins(f"{self.steps_max} callbacks ran and it is not done")
        if self._collect_garbage:
            self.running = None  # what a collection calls back is on no node's behalf
            gc.collect()
        if self.clock.now_ns != self._instant_ns:
            self._instant_ns, self._instant_step = self.clock.now_ns, self.steps
        elif self.steps - self._instant_step > STEPS_PER_INSTANT_MAX:
            self._spins(f"{STEPS_PER_INSTANT_MAX} callbacks ran and time stands still")
        self._check_at = min(self._end_step, self._next_gc())

    def _spins(self, what: str) -> NoReturn:
        """Runs a little more to see who runs, and raises with the names."""
        seen = Counter[str]()
        for _ in range(_CULPRIT_STEPS):
            if not self.ready and not self._advance(NEVER_NS):
                break
            loop = self.ready[int(self._draw() * len(self.ready))]
            self.running = loop
            events._set_running_loop(loop)
            callback = loop.queue.popleft()
            loop.last_slot = None
            callback()
            seen[f"{loop.name}: {getattr(loop.last_slot, 'path', None) or describe_callback(callback)}"] += 1
            if not loop.queue:
                loop.leave_ready()
        most = "; ".join(f"{name} ({count} of the last {seen.total()})" for name, count in seen.most_common(3))
        raise EscapedSimulation(f"{what}; does something spin, or is steps_max too small? Who ran most: {most}")


def describe_callback(callback: Any) -> str:
    """Names a step for people: the task, the actor, or the function."""
    inner = getattr(callback, "_callback", None) or callback
    owner = getattr(inner, "__self__", None)
    get_coro = getattr(owner, "get_coro", None)
    if get_coro is not None:
        return f"task {getattr(get_coro(), '__qualname__', '?')}"
    return str(getattr(inner, "__qualname__", type(inner).__name__))
