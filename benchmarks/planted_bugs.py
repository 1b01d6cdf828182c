"""How soon the simulator finds planted bugs, and how small it makes the plans that show them.

    python -m benchmarks.planted_bugs [--json] [BUG...]

For each bug: seeds until the first failure (of 1,000), then the size of the shrunk plan, and
the time that took.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from aspen.campaign import investigate, sweep
from aspen.sim import SimTest
from tests.kv import campaign
from tests.sim.programs import consensus, register, trees

SEEDS = 1_000
RUNS = int(os.environ.get("ASPEN_SHRINK_RUNS", "250"))
"""Runs that shrinking one bug may take."""
PROGRAMS: list[tuple[SimTest, tuple[str, ...]]] = [
    (consensus.consensus, consensus.BUGS),
    (register.register, register.BUGS),
    (trees.trees, trees.BUGS),
    (campaign.store_lite, campaign.BUGS),
]


def measure(test: SimTest, bug: str) -> dict[str, Any]:
    """Finds and shrinks one bug."""
    planted = test.with_options(bug=bug)
    began = time.monotonic()
    found = sweep(planted, range(SEEDS), jobs=1, failures_max=1)
    found_s = time.monotonic() - began
    row: dict[str, Any] = {"bug": bug, "seeds": found.seeds, "found_s": round(found_s, 1)}
    if not found.failures:
        return {**row, "found": False}
    failed = found.failures[0]
    began = time.monotonic()
    failure, shrunk = investigate(planted, failed, Path("/tmp/planted") / f"{bug}.json", runs_max=RUNS)
    assert shrunk is not None
    plan = failure.plan
    return {
        **row,
        "found": True,
        "signature": str(failure.signature),
        "episodes_before": len(failed.plan.episodes),
        "episodes": len(plan.episodes),
        "nodes": plan.environment.nodes,
        "operations": len(plan.workload.numbers()),
        "runs": shrunk.runs,
        "shrink_s": round(time.monotonic() - began, 1),
        "faults": [episode.name for episode in plan.episodes],
    }


if __name__ == "__main__":
    chosen = [word for word in sys.argv[1:] if not word.startswith("--")]
    for test, bugs in PROGRAMS:
        for bug in bugs:
            if not chosen or bug in chosen:
                print(json.dumps(measure(test, bug)), flush=True)
