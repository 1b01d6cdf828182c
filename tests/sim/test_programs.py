"""The simulator judged by programs: right ones pass, and each planted bug is found. The long campaigns are soaks."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from aspen.campaign import Sweep, investigate, replay, sweep, verify_determinism
from aspen.sim import SimTest
from tests.sim.programs import consensus, indexer, register, trees

SOAK = os.environ.get("ASPEN_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="a long campaign: make soak, or ASPEN_SOAK=1")
SEEDS = 1_000

PROGRAMS = {
    "consensus": consensus.consensus,
    "register": register.register,
    "trees": trees.trees,
    "indexer": indexer.indexer_survives_crashes,
}
PLANTED = [
    pytest.param(program, bug, id=f"{name}-{bug}")
    for name, program, bugs in (
        ("consensus", consensus.consensus, consensus.BUGS),
        ("register", register.register, register.BUGS),
        ("trees", trees.trees, trees.BUGS),
    )
    for bug in bugs
]
QUICK = [
    (consensus.consensus, "vote_twice", "check test.raft"),
    (consensus.consensus, "no_log_check", "check test.raft"),
    (consensus.consensus, "stale_read", "check linearizable.no_order"),
    (register.register, "write_minority", "check linearizable.no_order"),
    (trees.trees, "wrong_group", "check supervision.restart_set"),
    (trees.trees, "no_intensity", "check supervision."),
]


def told(found: Sweep) -> str:
    return "\n".join(f"seed {one.plan.seed}: {one.signature}\n{one.message}" for one in found.failures)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_right_program_passes(name: str) -> None:
    found = sweep(PROGRAMS[name], range(6))
    assert found.passed, told(found)
    assert found.coverage.faults


@soak
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_right_program_passes_a_thousand_seeds(name: str) -> None:
    found = sweep(PROGRAMS[name], range(SEEDS), jobs=2)
    assert found.passed, told(found)
    assert not found.unknown_checks
    classes = PROGRAMS[name].draw.classes
    expected = [fault for fault in found.coverage.faults if fault.partition(".")[0] in classes]
    assert not found.coverage.missing(faults=expected)


@pytest.mark.parametrize(("program", "bug", "signature"), QUICK)
def test_a_planted_bug_is_found(program: SimTest, bug: str, signature: str) -> None:
    found = sweep(program.with_options(bug=bug), range(40), failures_max=1)
    assert found.failures, f"{bug} hides from {found.seeds} seeds"
    assert str(found.failures[0].signature).startswith(signature)


@soak
@pytest.mark.parametrize(("program", "bug"), PLANTED)
def test_every_planted_bug_is_found_and_shrunk(program: SimTest, bug: str, tmp_path: Path) -> None:
    planted = program.with_options(bug=bug)
    found = sweep(planted, range(SEEDS), jobs=2, failures_max=1)
    assert found.failures, f"{bug} hides from {found.seeds} seeds"
    failure, shrunk = investigate(planted, found.failures[0], tmp_path / "failure.json")
    assert shrunk is not None
    assert len(failure.plan.episodes) <= max(5, len(found.failures[0].plan.episodes) // 2)
    assert replay(failure).same


def test_a_failure_is_shrunk_and_replayed_exactly(tmp_path: Path) -> None:
    planted = consensus.consensus.with_options(bug="stale_read")
    found = sweep(planted, range(5, 6))
    failed = found.failures[0]
    failure, shrunk = investigate(planted, failed, tmp_path / "f.json", runs_max=60)
    assert shrunk is not None
    assert len(failure.plan.episodes) < len(failed.plan.episodes)
    assert any("began" in line for line in failure.timeline)
    assert failure.command == f"aspen sim replay {tmp_path / 'f.json'}"
    first, second = replay(failure), replay(failure)
    assert first.same
    assert not first.differences
    assert first.result.digest == second.result.digest
    assert first.timeline == list(failure.timeline)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_second_run_in_an_unlike_process_has_the_same_trace(name: str) -> None:
    assert verify_determinism(PROGRAMS[name], [0, 1, 2]) == {}


def test_results_are_plain_data() -> None:
    document = sweep(trees.trees, range(2)).to_data()
    assert json.loads(json.dumps(document)) == document
