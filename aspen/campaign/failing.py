"""From a failing seed to a file that replays it: shrink, record, write; and back."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import aspen
from aspen import limits
from aspen.campaign.sweep import run_forked
from aspen.campaign.targets import code_hash, load_target
from aspen.errors import UsageError
from aspen.io.files import read_text
from aspen.sim.events import Event
from aspen.sim.failure import Failure, read_failure
from aspen.sim.plans import Plan
from aspen.sim.program import RunResult, SimTest
from aspen.sim.shrink import Outcome, Progress, Shrunk, shrink
from aspen.sim.timeline import render

ProgressHook = Callable[[Progress], object]


def investigate(
    test: SimTest,
    failed: RunResult,
    path: Path,
    *,
    runs_max: int = limits.SHRINK_RUNS_MAX,
    progress: ProgressHook | None = None,
    wall_s: float = limits.SIM_RUN_WALL_S,
) -> tuple[Failure, Shrunk | None]:
    """Shrinks a failed run's plan, runs the smallest once more with a record, and writes the failure file.

    With `runs_max` 0 the plan stays as it is.
    """
    shrunk = shrink_plan(test, failed.plan, runs_max=runs_max, progress=progress, wall_s=wall_s) if runs_max else None
    plan = shrunk.plan if shrunk is not None else failed.plan
    failure = describe(test, plan, failed.plan, path, wall_s=wall_s)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(failure.to_json())
    return failure, shrunk


def shrink_plan(
    test: SimTest,
    plan: Plan,
    *,
    runs_max: int = limits.SHRINK_RUNS_MAX,
    progress: ProgressHook | None = None,
    wall_s: float = limits.SIM_RUN_WALL_S,
) -> Shrunk:
    """The smallest plan that fails as this one does. Raises UsageError when it does not fail."""
    phases = plan.phases

    def run(candidate: Plan) -> Outcome:
        result, _ = run_forked(test, candidate, wall_s=wall_s)
        late = result.signature is not None and result.signature.kind == "liveness"
        if late and (candidate.phases.settle_ns, candidate.phases.liveness_ns) != (
            phases.settle_ns,
            phases.liveness_ns,
        ):
            return Outcome()  # in no time at all nothing is live
        return Outcome(result.signature, result.fired, result.sites, result.at_ns or result.end_ns)

    return shrink(plan, run, runs_max=runs_max, progress=progress)


def describe(
    test: SimTest, plan: Plan, original: Plan, path: Path, *, wall_s: float = limits.SIM_RUN_WALL_S
) -> Failure:
    """The failure that a plan leads to, with its timeline. Raises UsageError when it does not fail."""
    result, _ = run_forked(test, plan, record=True, wall_s=wall_s)
    if result.signature is None:
        raise UsageError(
            f"seed {plan.seed} failed and does not fail again: the run depends on something beside its plan; "
            f"see where with: aspen sim run '{test.target}' --first {plan.seed} --seeds 1 --verify-determinism"
        )
    return Failure(
        target=test.target,
        seed=plan.seed,
        plan=plan,
        original=original,
        signature=result.signature,
        message=result.message,
        aspen_version=aspen.__version__,
        python_version=platform.python_version(),
        code_hash=code_hash(test),
        command=f"aspen sim replay {path}",
        timeline=tuple(timeline_of(result)),
    )


QUIET = frozenset(
    {"monitor.made", "monitor.removed", "monitor.down", "name.held", "name.released", "supervisor.started"}
)
"""What only checks read."""
MARKS = frozenset({"fault.began", "fault.ended", "node.started", "node.crashed", "node.stopped"})
"""What is always shown, however long before the failure it was: the cause is among it."""


def timeline_of(result: RunResult, lines_max: int = limits.TIMELINE_LINES_MAX) -> list[str]:
    """The lines around a failure: the faults of the whole run, and the messages and frames that came last."""
    framed = any(event.kind == "frame.sent" for event in result.events)
    shown = [
        event
        for event in result.events
        if event.kind not in QUIET and not (framed and event.kind == "message" and event.text("what") == "$info")
    ]
    if result.at_ns is not None:
        shown = [event for event in shown if event.at_ns <= result.at_ns]
    room = max(1, lines_max - 6)
    late = shown[-room:]
    marks = [event for event in shown[:-room] if event.kind in MARKS][-(room // 2) :]
    if marks:
        late = late[len(marks) :]
        left_out = len(shown) - len(marks) - len(late)
        marks.append(Event(late[0].at_ns, "", "note", {"text": f"{left_out} events before this are left out"}))
    return render([*marks, *late], result.plan.nodes, lines_max=lines_max)


def load_failure(path: Path) -> Failure:
    """The failure in a file. Raises FailureFileError or ConfigError; the message names the field or the file."""
    return read_failure(read_text(path, limits.PLAN_CHARS_MAX))


@dataclass(frozen=True, slots=True)
class Replay:
    """What came of a replay."""

    result: RunResult
    timeline: list[str]
    same: bool
    """Whether it failed with the recorded signature."""
    differences: list[str]
    """What has changed since it was recorded."""


def replay(failure: Failure) -> Replay:
    """Runs a failure's plan again, exactly."""
    test = load_target(failure.target)
    result, _ = run_forked(test, failure.plan, record=True)
    differences = failure.differences(
        aspen_version=aspen.__version__, python_version=platform.python_version(), code_hash=code_hash(test)
    )
    return Replay(result, timeline_of(result), result.signature == failure.signature, differences)


def shrink_failure(
    failure: Failure, path: Path, *, runs_max: int = limits.SHRINK_RUNS_MAX, progress: ProgressHook | None = None
) -> tuple[Failure, Shrunk]:
    """Shrinks a failure further and writes the file anew."""
    test = load_target(failure.target)
    shrunk = shrink_plan(test, failure.plan, runs_max=runs_max, progress=progress)
    smaller = replace(describe(test, shrunk.plan, failure.original, path), command=failure.command)
    path.write_text(smaller.to_json())
    return smaller, shrunk
