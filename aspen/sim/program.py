"""`test`: makes a simulated test of an async function, and `run_plan` runs one plan on it.

    @aspen.sim.test(nodes=3, seeds=50)
    async def test_transfer_survives_partition(sim): ...

A run is a function of the test, its options and the plan, and happens in this process. Running many, each in a
process of its own, is `aspen.campaign`'s work.
"""

from __future__ import annotations

import asyncio
import re
import traceback
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Final

from aspen import limits
from aspen.errors import EscapedSimulation, UsageError
from aspen.sim.applying import Faults
from aspen.sim.checks.supervision import GRACE_NS, SupervisionChecker
from aspen.sim.checks.violation import Signature, Violation, exception_signature, normalized
from aspen.sim.cluster import Cluster
from aspen.sim.drawing import LITE, Draw, draw_plan
from aspen.sim.engine import GC_EVERY_STEPS
from aspen.sim.events import Event
from aspen.sim.faults import FAULT_CLASSES
from aspen.sim.plans import Fired, Phases, Plan, Site, Workload
from aspen.sim.recording import FrameText, Recording
from aspen.sim.simulation import CheckFailed, Simulation
from aspen.sim.trace import Trace, TraceData

Body = Callable[[Simulation], Coroutine[Any, Any, None]]

SEEDS_DEFAULT: Final = 50


@dataclass(slots=True)
class RunResult:
    """What became of one run. Plain data: it travels between processes."""

    plan: Plan
    signature: Signature | None = None
    """None when it passed."""
    message: str = ""
    """What was wrong, for people."""
    at_ns: int | None = None
    """When the failure showed, if that is known."""
    end_ns: int = 0
    """True time at the end of the run."""
    steps: int = 0
    digest: str = ""
    """The hash of the trace."""
    fired: tuple[Fired, ...] = ()
    sites: tuple[Site, ...] = ()
    site_hits: Counter[str] = field(default_factory=Counter)
    site_fired: Counter[str] = field(default_factory=Counter)
    branches: tuple[Event, ...] = ()
    """Faults that began and branches that were taken."""
    unknown_checks: tuple[str, ...] = ()
    events: tuple[Event, ...] = ()
    """The record, if it was asked for."""
    trace: TraceData | None = None

    @property
    def passed(self) -> bool:
        """Whether nothing was wrong."""
        return self.signature is None


@dataclass(frozen=True)
class SimTest:
    """A simulated test. Made by `test`; run it with `aspen sim run MODULE:NAME`, with pytest, or `run`."""

    body: Body
    seeds: int
    draw: Draw
    options: Mapping[str, str]
    steps_max: int
    module_state: bool
    frame_text: FrameText | None

    @property
    def __name__(self) -> str:
        return self.body.__name__

    @property
    def target(self) -> str:
        """What the command line calls it."""
        asked = "&".join(f"{key}={value}" for key, value in self.options.items() if value)
        return f"{self.body.__module__}:{self.__name__}" + (f"?{asked}" if asked else "")

    def with_options(self, **options: str) -> SimTest:
        """The same test with other options. Raises UsageError for one it has not; names those it has."""
        for name in options:
            if name not in self.options:
                known = ", ".join(self.options) or "none"
                raise UsageError(f"{self.__name__} has no option {name!r}; it has: {known}")
        return replace(self, options={**self.options, **options})

    def plan(self, seed: int) -> Plan:
        """The plan that a seed draws for it."""
        return draw_plan(seed, self.draw)

    def run(self, plan: Plan | int, **how: Any) -> RunResult:
        """Runs a plan, or that of a seed, in this process; see `run_plan`."""
        return run_plan(self, self.plan(plan) if isinstance(plan, int) else plan, **how)

    def __call__(self, seed: int = 0) -> None:
        """Runs one seed in this process. Raises AssertionError when it fails."""
        result = self.run(seed)
        if result.signature is not None:
            raise AssertionError(f"seed {seed}: {result.signature}\n{result.message}")


def test(
    *,
    nodes: int | None = 3,
    seeds: int = SEEDS_DEFAULT,
    faults: tuple[str, ...] = FAULT_CLASSES,
    phases: Phases = LITE.phases,
    workload: Workload = LITE.workload,
    amounts: Mapping[str, int] | None = None,
    options: Mapping[str, str] | None = None,
    steps_max: int = limits.SIM_RUN_STEPS_MAX,
    module_state: bool = True,
    frame_text: FrameText | None = None,
) -> Callable[[Body], SimTest]:
    """Makes a simulated test of `async def test_name(sim)`.

    `nodes` None draws 1, 3, 5 or 7. `seeds` is how many pytest runs. `faults` are the classes that plans may draw;
    leave out what the program does not claim to survive. `amounts` bounds a fault's strength by its name, as
    `{"clock.drift": 10_000_000}`. `options` are the test's own, with their defaults: `sim.options`, and
    `module:test_name?option=value` on the command line. `frame_text` says what a frame is, for timelines.

    Raises:
        UsageError: a value has no meaning.
    """
    if seeds < 1 or steps_max < 1:
        raise UsageError(f"seeds={seeds}, steps_max={steps_max}: use at least 1")
    unknown = [name for name in faults if name not in FAULT_CLASSES]
    if unknown:
        raise UsageError(f"there is no fault class {unknown[0]!r}; there are: {', '.join(FAULT_CLASSES)}")
    draw = Draw(nodes, phases, workload, faults, amounts=tuple((amounts or {}).items()))

    def decorate(body: Body) -> SimTest:
        if not asyncio.iscoroutinefunction(body):
            raise UsageError(f"{body!r} is no async function; a simulated test is `async def test_name(sim)`")
        return SimTest(body, seeds, draw, dict(options or {}), steps_max, module_state, frame_text)

    return decorate


test.__test__ = False  # type: ignore[attr-defined]  # pytest would take it for a test where it is imported


def run_plan(
    program: SimTest,
    plan: Plan,
    *,
    record: bool = False,
    checks: bool = True,
    gc_every_steps: int = GC_EVERY_STEPS,
    trace: Trace | None = None,
) -> RunResult:
    """Runs one plan. With `record`, the result has all events and the trace for comparison; `checks` False leaves the
    checkers out, for measuring them."""
    trace = trace or Trace(record=record)
    with Cluster(
        plan.seed,
        list(plan.nodes),
        steps_max=program.steps_max,
        trace=trace,
        module_state=program.module_state,
        gc_every_steps=gc_every_steps,
    ) as cluster:
        recording = Recording(cluster, everything=record, frame_text=program.frame_text)
        if checks or record:
            cluster.tap = recording
        faults = Faults(plan, cluster, recording)
        simulation = Simulation(plan, cluster, faults, recording, program.options)
        if checks:
            simulation.watch(SupervisionChecker(grace_ns=grace_ns(plan)))
        result = RunResult(plan)
        _run(program, simulation, recording, result)
        result.end_ns = cluster.clock.now_ns
        result.steps = cluster.engine.steps
        result.digest = trace.digest()
        result.fired, result.sites = tuple(faults.dice.fired), faults.dice.sites_on()
        result.site_hits, result.site_fired = faults.dice.site_hits, faults.dice.site_fired
        result.branches = tuple(recording.branches)
        result.unknown_checks = tuple(simulation.unknown_checks)
        if record:
            result.events, result.trace = tuple(recording.events), trace.snapshot()
    return result


def grace_ns(plan: Plan) -> int:
    """How long a supervisor may take, in this plan, for what it has to do in the end."""
    return GRACE_NS + sum(episode.duration_ns for episode in plan.episodes if episode.kind in {"pause", "clock"})


def _run(program: SimTest, simulation: Simulation, recording: Recording, result: RunResult) -> None:
    cluster, plan = simulation.cluster, simulation.plan
    try:
        task = cluster.run_until(program.body(simulation), plan.phases.end_ns)
    except EscapedSimulation as error:
        kind = "budget" if "callbacks ran" in str(error) else "escaped"
        result.signature = Signature(kind, type(error).__name__, _escape_details(str(error)))
        result.message = str(error)
        return
    if recording.violations:
        _violated(result, recording.violations)
    elif not task.done():
        waits = "; ".join(_where(task) for task in [task])
        what = f"the test had not returned when the liveness phase was over, at {plan.phases.end_ns / 1e9:.3f} s"
        result.signature, result.message = Signature("liveness", "not_done", waits), f"{what}; it waits in {waits}"
    elif not task.cancelled() and (raised := task.exception()) is not None:
        _raised(result, program, raised)
    elif ghosts := cluster.ghosts:
        result.signature = Signature("harness", "ghosts", normalized(ghosts[0]))
        result.message = "code of a dead incarnation ran: " + "; ".join(ghosts[:5])
    elif cluster.loop.unhandled:
        context = cluster.loop.unhandled[0]
        lost: Any = context.get("exception")
        result.signature = exception_signature(lost) if lost is not None else Signature("harness", "unhandled")
        result.message = f"a task of the test ended and nobody looked: {context.get('message')} {lost!r}"
    else:
        found = [one for checker in simulation.checkers for one in checker.at_end(cluster.clock.now_ns)]
        if found:
            _violated(result, found)


def _violated(result: RunResult, found: list[Violation]) -> None:
    result.signature, result.at_ns = found[0].signature(), found[0].at_ns
    result.message = "\n".join(map(str, found[:5]))


def _raised(result: RunResult, program: SimTest, error: BaseException) -> None:
    if isinstance(error, BaseExceptionGroup):
        _raised(result, program, error.exceptions[0])
        return
    if isinstance(error, CheckFailed):
        _violated(result, list(error.violations))
        return
    result.message = "".join(traceback.format_exception(error)).rstrip()
    result.signature = exception_signature(error)
    if isinstance(error, AssertionError):
        # The values in its message differ from run to run; the line that asserts does not.
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "_pytest" not in frame.filename]
        last = frames[-1]
        result.signature = Signature("exception", "AssertionError", f"{last.name}: {normalized(last.line or '')}")


def _where(task: asyncio.Task[Any]) -> str:
    """The innermost line of the test itself at which it waits."""
    frames = task.get_stack()
    coroutine: Any = task.get_coro()
    while (inner := getattr(coroutine, "cr_await", None)) is not None and hasattr(inner, "cr_frame"):
        if "/aspen/" in inner.cr_code.co_filename:
            break
        coroutine = inner
    frame = getattr(coroutine, "cr_frame", None) or (frames[-1] if frames else None)
    if frame is None:
        return "code that is running"
    return f"{PurePath(frame.f_code.co_filename).name}, {frame.f_code.co_name}, line {frame.f_lineno}"


def _escape_details(text: str) -> str:
    text = text.partition("Who ran most:")[2].partition(" (")[0] or text
    return normalized(re.sub(r"\S+/(?=\w+\.py)", "", text))


__all__ = ["Body", "RunResult", "SimTest", "run_plan", "test"]
