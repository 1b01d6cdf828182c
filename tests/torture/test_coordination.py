"""Locks, leases and watches in use by real processes, amid kill -9 of members and programs.

A few rounds run with the other tests; `make soak` has 100.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.torture.aspen_store import AspenTarget
from tests.torture.coordination import HARMS, Found, Workers, judge, one_round
from tests.torture.rounds import NEMESES
from tests.torture.soaking import soak

pytestmark = pytest.mark.slow

SHORT = (("kill_leader", "kill_holder"), ("kill_all", "kill_watcher"))
ROUNDS_OF_A_CLUSTER = 10
CLUSTERS = 10


async def run_rounds(directory: Path, rounds: Sequence[tuple[str, str]], seed: int) -> Found:
    rng = random.Random(seed)
    async with AspenTarget(directory) as cluster, Workers(cluster, directory, directory / "config") as workers:
        for nemesis, harm in rounds:
            await one_round(workers, nemesis, harm, rng)
        found = await judge(workers)
    print(found)
    assert not found.problems, f"what was noted is in {directory}: {found}"
    return found


def test_locks_leases_and_watches_outlive_the_leader(tmp_path: Path) -> None:
    found = asyncio.run(run_rounds(tmp_path, SHORT, seed=1))
    assert found.granted > 10 and found.leases > 2 and found.changes > 10


@soak
@pytest.mark.parametrize("seed", range(CLUSTERS))
def test_a_hundred_rounds(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    rounds = [(rng.choice(list(NEMESES)), rng.choice(list(HARMS))) for _ in range(ROUNDS_OF_A_CLUSTER)]
    asyncio.run(run_rounds(tmp_path, rounds, seed))
