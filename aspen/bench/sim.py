"""`aspen bench sim`: how fast simulated clusters run, on one core, with trace, tripwires and all checks on.

Figures are of processor time, each the best of some rounds; the machine's other work then counts little.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from aspen.bench import sim_store
from aspen.campaign import sweep
from aspen.errors import UsageError
from aspen.io.forks import forked
from aspen.sim import SimTest, Trace

KEYS = (
    "idle_cluster_s_per_cpu_s",
    "loaded_cluster_s_per_cpu_s",
    "seeds_per_min_lite",
    "seeds_per_min_full",
    "checks_overhead",
)
LITE_SEEDS = 40
FULL_SEEDS = 10


def measure(only: str | None = None, rounds: int = 3) -> dict[str, float]:
    """The figures, or the one named `only`.

    Keys: `idle_cluster_s_per_cpu_s` (five nodes, heartbeats ten times a second), `loaded_cluster_s_per_cpu_s` (five
    nodes, a hundred operations a second, each copied to all), `seeds_per_min_lite` (ten seconds of faults, twenty to
    heal, three nodes, 300 operations), `seeds_per_min_full` (forty and twenty, five nodes, 2,000 operations), both for
    one core, processes and plans included; `checks_overhead` (what the trace, the event record and the checkers add to
    the processor time of the loaded run, 0.25 is a quarter).

    Raises:
        UsageError: there is no figure of that name; says which there are.
    """
    if only is not None and only not in KEYS:
        raise UsageError(f"no benchmark {only!r}; there are: {', '.join(KEYS)}")
    figures: dict[str, Callable[[], float]] = {
        "idle_cluster_s_per_cpu_s": lambda: max(_pace(sim_store.idle) for _ in range(rounds)),
        "loaded_cluster_s_per_cpu_s": lambda: max(_pace(sim_store.loaded) for _ in range(rounds)),
        "seeds_per_min_lite": lambda: max(_seeds_per_min(sim_store.lite, LITE_SEEDS) for _ in range(rounds)),
        "seeds_per_min_full": lambda: max(_seeds_per_min(sim_store.full, FULL_SEEDS) for _ in range(rounds)),
        "checks_overhead": lambda: _overhead(rounds),
    }
    return {name: round(figure(), 3) for name, figure in figures.items() if only in (None, name)}


def _cpu_s(test: SimTest, **how: Any) -> tuple[float, float]:
    """Simulated seconds, and processor seconds, of one run in a process of its own."""

    def run(_: int) -> tuple[float, float]:
        plan = test.plan(1)
        began = time.process_time()
        result = test.run(plan, **how)
        if not result.passed:
            raise UsageError(f"the benchmark's run failed: {result.signature}\n{result.message}")
        return result.end_ns / 1e9, time.process_time() - began

    for one in forked(run, [0], wall_s=600.0):
        if one.result is None:
            raise UsageError(f"the benchmark's run failed: {one.failure}")
        return one.result
    raise AssertionError("one argument, one result")


def _pace(test: SimTest) -> float:
    virtual_s, cpu_s = _cpu_s(test)
    return virtual_s / cpu_s


def _seeds_per_min(test: SimTest, seeds: int) -> float:
    found = sweep(test, range(seeds))
    if found.failures:
        raise UsageError(f"seed {found.failures[0].plan.seed} of the benchmark failed: {found.failures[0].message}")
    return 60.0 * seeds / found.cpu_s


class Silent(Trace):
    """A trace of nothing."""

    def add(self, t_ns: int, node: str, actor: int, kind: str, name: str, payload: Any) -> None:
        """Forgets the event."""


def _overhead(rounds: int) -> float:
    with_checks, without = [], []
    for _ in range(rounds):
        with_checks.append(_cpu_s(sim_store.loaded)[1])
        without.append(_cpu_s(sim_store.loaded, checks=False, trace=Silent())[1])
    return min(with_checks) / min(without) - 1.0
