"""A sweep: the plans of many seeds, each run in a process of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from aspen import limits
from aspen.io.forks import Forked, forked
from aspen.sim.checks.violation import Signature, normalized
from aspen.sim.coverage import Coverage
from aspen.sim.plans import Plan
from aspen.sim.program import RunResult, SimTest, run_plan


@dataclass(slots=True)
class Sweep:
    """What a sweep found."""

    target: str
    seeds: int = 0
    """Run so far."""
    failures: list[RunResult] = field(default_factory=list)
    """By seed."""
    coverage: Coverage = field(default_factory=Coverage)
    unknown_checks: int = 0
    """Runs in which a check had no answer within its budget: neither passed nor failed there."""
    virtual_s: float = 0.0
    """Seconds simulated."""
    cpu_s: float = 0.0
    """Processor seconds used for them."""
    steps: int = 0

    @property
    def passed(self) -> bool:
        """Whether no run failed."""
        return not self.failures

    def add(self, result: RunResult, cpu_s: float) -> None:
        """Counts a run."""
        self.seeds += 1
        self.cpu_s += cpu_s
        self.virtual_s += result.end_ns / 1e9
        self.steps += result.steps
        self.unknown_checks += bool(result.unknown_checks)
        self.coverage.add_run(result.plan, result.branches, result.site_hits, result.site_fired)
        if not result.passed:
            self.failures.append(result)
            self.failures.sort(key=lambda one: one.plan.seed)

    def to_data(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return {
            "target": self.target,
            "seeds": self.seeds,
            "passed": self.passed,
            "failures": [{"seed": one.plan.seed, "signature": str(one.signature)} for one in self.failures],
            "unknown_checks": self.unknown_checks,
            "virtual_s": round(self.virtual_s, 3),
            "cpu_s": round(self.cpu_s, 3),
            "steps": self.steps,
            "coverage": self.coverage.to_data(),
        }


def sweep(
    test: SimTest,
    seeds: Iterable[int],
    *,
    jobs: int = 1,
    failures_max: int | None = None,
    wall_s: float = limits.SIM_RUN_WALL_S,
    progress: Callable[[Sweep, RunResult], object] | None = None,
) -> Sweep:
    """Runs the plans of these seeds; stops after `failures_max` failures, if that is given."""
    found = Sweep(test.target)
    runs = forked(lambda seed: _slim(test.run(seed)), seeds, jobs=jobs, wall_s=wall_s)
    try:
        for one in runs:
            result = result_of(one, test.plan(one.argument))
            found.add(result, one.cpu_s)
            if progress is not None:
                progress(found, result)
            if failures_max is not None and len(found.failures) >= failures_max:
                break
    finally:
        runs.close()  # type: ignore[attr-defined]  # it is a generator
    return found


def run_forked(
    test: SimTest, plan: Plan, *, record: bool = False, wall_s: float = limits.SIM_RUN_WALL_S
) -> tuple[RunResult, float]:
    """Runs one plan in a process of its own; the result, and the processor seconds it took."""
    for one in forked(lambda plan: run_plan(test, plan, record=record), [plan], wall_s=wall_s):
        return result_of(one, plan), one.cpu_s
    raise AssertionError("one argument, one result")


def result_of(one: Forked[Any, RunResult], plan: Plan) -> RunResult:
    """The result of a run; a failed one when its process brought none."""
    if one.result is not None:
        return one.result
    last = one.failure.rstrip().rpartition("\n")[2]
    signature = Signature("harness", "no_result", normalized(last))
    return RunResult(plan, signature, f"seed {plan.seed}: {one.failure}")


def _slim(result: RunResult) -> RunResult:
    """Without what only a failure needs: results go through pipes."""
    return result if not result.passed else replace(result, fired=(), sites=(), events=())
