"""The pytest plugin: a test decorated with `aspen.sim.test` is run under its seeds, each in a process of its own.

    pytest --aspen-seed 7          that seed alone
    pytest --aspen-seeds 1000      more seeds than the tests ask for
    pytest --aspen-jobs 2          processes at a time

It is loaded by the entry point `pytest11`. A failure is shrunk, written to `sim-failures/`, and reported with the
command that replays it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aspen.campaign.failing import investigate
from aspen.campaign.sweep import sweep
from aspen.sim.program import SimTest

SHRINK_RUNS = 150
"""Runs that shrinking a failure may take within a test run; `aspen sim shrink` goes on."""


class SimulationFailed(Exception):
    """A seed failed; the message is the report."""


class SimItem(pytest.Item):
    """One simulated test."""

    def __init__(self, *, test: SimTest, **options: Any) -> None:
        super().__init__(**options)
        self.test = test
        self.own_markers.extend(getattr(test.body, "pytestmark", ()))

    def runtest(self) -> None:
        """Runs the seeds; fails at the first that does."""
        config = self.config
        one, many = config.getoption("aspen_seed"), config.getoption("aspen_seeds")
        seeds = [one] if one is not None else range(many or self.test.seeds)
        found = sweep(self.test, seeds, jobs=config.getoption("aspen_jobs"), failures_max=1)
        if found.failures:
            failed = found.failures[0]
            name = re.sub(r"[^A-Za-z0-9._]+", "-", self.test.target)
            path = Path(config.getoption("aspen_failures")) / f"{name}-{failed.plan.seed}.json"
            failure, _ = investigate(self.test, failed, path, runs_max=config.getoption("aspen_shrink_runs"))
            raise SimulationFailed(failure.report())
        self.add_report_section("call", "simulation", "\n".join(found.coverage.summary()))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The failure's own report; a traceback of the runner would say nothing."""
        if isinstance(excinfo.value, SimulationFailed):
            return str(excinfo.value)
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int | None, str]:
        """Where it is."""
        code = self.test.body.__code__
        return self.path, code.co_firstlineno - 1, self.name


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options."""
    group = parser.getgroup("aspen", "Aspen's simulated tests")
    group.addoption("--aspen-seed", type=int, dest="aspen_seed", help="run this seed alone")
    group.addoption("--aspen-seeds", type=int, dest="aspen_seeds", help="run seeds 0 to N-1, whatever the test says")
    group.addoption("--aspen-jobs", type=int, default=1, dest="aspen_jobs", help="processes at a time")
    group.addoption(
        "--aspen-shrink-runs",
        type=int,
        default=SHRINK_RUNS,
        dest="aspen_shrink_runs",
        help="runs to shrink a failure; 0: none",
    )
    group.addoption("--aspen-failures", default="sim-failures", dest="aspen_failures", help="where failure files go")


def pytest_pycollect_makeitem(collector: Any, name: str, obj: object) -> SimItem | None:
    """Collects simulated tests whose names are those of tests, in the modules that define them."""
    if not isinstance(obj, SimTest) or not collector.funcnamefilter(name):
        return None
    return SimItem.from_parent(collector, name=name, test=obj)
