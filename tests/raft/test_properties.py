"""Hypothesis against a network that loses, repeats and reorders, disks that forget, and members that come and go.

The judge of `tests.raft.network` looks at every step. What it can see is shown in `test_planted.py`.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.raft.chaos import chaos

EXAMPLES = int(os.environ.get("ASPEN_RAFT_EXAMPLES", "40"))
STEPS = int(os.environ.get("ASPEN_RAFT_STEPS", "80"))


def run(**kind: object) -> None:
    run_state_machine_as_test(
        chaos(**kind),
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            print_blob=True,
        ),
    )


def test_three_members() -> None:
    run(size=3)


def test_five_members_with_small_windows() -> None:
    run(size=5, append_bytes_max=8, inflight_messages_max=2, inflight_bytes_max=16, apply_bytes_max=8)


def test_changes_of_the_members() -> None:
    run(size=3, changes=True)


def test_damaged_logs() -> None:
    run(size=3, damage=True)


def test_lease_reads() -> None:
    run(size=3, lease_reads=True)
