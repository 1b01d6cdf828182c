"""The whole store under drawn faults: a few seeds, plans that failed once, and planted bugs. Long ones are soaks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aspen.campaign import Sweep, sweep, verify_determinism
from aspen.campaign.sweep import run_forked
from aspen.sim import SimTest
from aspen.sim.plans import read_plan
from tests.kv import campaign

SOAK = os.environ.get("ASPEN_SOAK") == "1"
soak = pytest.mark.skipif(not SOAK, reason="a long campaign: make soak, or ASPEN_SOAK=1")
REGRESSIONS = sorted((Path(__file__).parent.parent / "regressions").glob("*.json"))

QUICK = [
    ("ack_before_sync", "check test.raft"),
    ("compaction_eats", "check "),
    ("journal_drops_last", "check test.raft"),
    ("sessions_forgotten", "check test.replicas_alike"),
    ("snapshot_no_sessions", "check test.raft"),
    ("vote_before_sync", "check test.raft"),
]
"""Bugs that a few seeds find."""


def told(found: Sweep) -> str:
    return "\n".join(f"seed {one.plan.seed}: {one.signature}\n{one.message}" for one in found.failures)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "seeds"), [(campaign.store_lite, 8), (campaign.store_lite_5, 3)])
def test_the_store_survives_what_it_must(target: SimTest, seeds: int) -> None:
    found = sweep(target, range(seeds))
    assert found.passed, told(found)
    assert not found.unknown_checks
    assert found.coverage.branches["stage.running"] == seeds


@pytest.mark.slow
@pytest.mark.parametrize("path", REGRESSIONS, ids=lambda path: path.stem)
def test_what_failed_once_passes(path: Path) -> None:
    target: SimTest = getattr(campaign, path.stem.rpartition("-")[0])
    result, _ = run_forked(target, read_plan(path.read_text()))
    assert result.passed, f"{result.signature}\n{result.message}"


@pytest.mark.slow
def test_a_second_run_in_an_unlike_process_has_the_same_trace() -> None:
    assert verify_determinism(campaign.store_lite, [1]) == {}


@pytest.mark.slow
@pytest.mark.parametrize(("bug", "signature"), QUICK)
def test_a_planted_bug_is_found(bug: str, signature: str) -> None:
    found = sweep(campaign.store_lite.with_options(bug=bug), range(20), failures_max=1)
    assert found.failures, f"{bug} hides from {found.seeds} seeds"
    assert str(found.failures[0].signature).startswith(signature)


@soak
@pytest.mark.parametrize(
    ("target", "seeds"),
    [
        (campaign.store_lite, 1_000),
        (campaign.store_lite_5, 1_000),
        (campaign.store_full, 50),
        (campaign.store_full_3, 50),
    ],
)
def test_the_store_survives_a_long_campaign(target: SimTest, seeds: int) -> None:
    found = sweep(target, range(seeds))
    assert found.passed, told(found)
    assert not found.unknown_checks
    # Fewer seeds need not have met every fault.
    assert seeds < 1_000 or not found.coverage.missing(sites=())


@soak
@pytest.mark.parametrize("bug", campaign.BUGS)
def test_every_planted_bug_is_found(bug: str) -> None:
    found = sweep(campaign.store_lite.with_options(bug=bug), range(1_000), failures_max=1)
    assert found.failures, f"{bug} hides from {found.seeds} seeds"
