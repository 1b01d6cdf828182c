"""The store in real processes: killed, stalled, with rotten, lost, foreign, full and failing disks.

A few rounds run with the other tests; `make soak` has the 200 rounds, the 50 failovers and every scenario.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest

from aspen.limits import CONTROL_SILENCE_S
from aspen.node.heart import EXIT_STORAGE
from tests.torture import scenarios
from tests.torture.aspen_store import AspenTarget
from tests.torture.disk import FaultyDisk, compiler_missing, rot
from tests.torture.rounds import DURING_S, NEMESES, Load, one_round, pause
from tests.torture.scenarios import Fate
from tests.torture.seam import Cluster
from tests.torture.soaking import soak
from tests.torture.verify import Verdict, judge

pytestmark = pytest.mark.slow
needs_gcc = pytest.mark.skipif(compiler_missing() is not None, reason=str(compiler_missing()))
T = TypeVar("T")

SHORT = ("kill_leader", "kill_all", "stall_leader")
ROUNDS_OF_A_CLUSTER = 10
CLUSTERS = 20
KILLS = 50


async def judged(cluster: AspenTarget, load: Load, directory: Path) -> Verdict:
    """The verdict, which must be good; the history of one that is not is kept beside the logs."""
    await load.close()
    assert not load.unexpected, load.unexpected[:5]
    verdict = await judge(cluster, load.recorder, (directory / "history.jsonl").write_text)
    print(verdict)
    assert not verdict.problems, f"the history is in {directory}: {verdict}"
    return verdict


async def run_rounds(directory: Path, names: Sequence[str], seed: int) -> Verdict:
    async with AspenTarget(directory) as cluster:
        load = Load(cluster, seed)
        for number, name in enumerate(names):
            await one_round(cluster, load, name, number)
        return await judged(cluster, load, directory)


def test_killed_and_stalled_members_lose_nothing(tmp_path: Path) -> None:
    verdict = asyncio.run(run_rounds(tmp_path, SHORT, seed=1))
    assert verdict.acknowledged > 100 * len(SHORT)


@soak
@pytest.mark.parametrize("seed", range(CLUSTERS))
def test_two_hundred_rounds(tmp_path: Path, seed: int) -> None:
    names = random.Random(seed).choices(list(NEMESES), k=ROUNDS_OF_A_CLUSTER)
    asyncio.run(run_rounds(tmp_path, names, seed))


# -- scenarios -------------------------------------------------------------------------------------------------


def on_aspen(
    directory: Path,
    scenario: Callable[[AspenTarget, Load], Awaitable[T]],
    *,
    patient: bool = False,
    without: Callable[[T], str | None] = lambda found: None,
) -> T:
    """Runs a scenario and judges what is left: all members, or all but the one that the scenario has cost."""

    async def run() -> T:
        async with AspenTarget(directory, patient=patient) as cluster:
            load = Load(cluster, seed=5)
            found = await scenario(cluster, load)
            lost = without(found)
            cluster.names = [name for name in cluster.names if name != lost]
            await judged(cluster, load, directory)
            return found

    return asyncio.run(run())


def log_files(cluster: Cluster, name: str) -> list[Path]:
    """The segments of the log that hold records, without what says whose they are."""
    return sorted(path for path in (cluster.data(name) / "raft").iterdir() if path.stat().st_size > 4096)


def state_files(cluster: Cluster, name: str) -> list[Path]:
    """LMDB's file."""
    return [cluster.data(name) / "kv" / "data.mdb"]


@soak
def test_a_corrupted_log_record_is_refilled_or_refused(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, load: Load) -> Fate:
        return await scenarios.rotten(cluster, load, log_files, "rotten-log")

    found = on_aspen(tmp_path, scenario, without=lambda fate: None if fate.answers else fate.member)
    assert found.answers or found.exit_code, found


@soak
def test_a_corrupted_page_of_the_state_is_seen_and_rebuilt(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, load: Load) -> Fate:
        return await scenarios.rotten(cluster, load, state_files, "rotten-page", pages=4)

    found = on_aspen(tmp_path, scenario)
    assert found.answers, found
    kept = AspenTarget(tmp_path).data(found.member) / "kv.corrupt-1" / "data.mdb"
    assert kept.stat().st_size > 0, "what was found corrupt is kept"


@soak
def test_a_sole_member_sets_its_corrupt_state_aside(tmp_path: Path) -> None:
    """And has it anew from its log, which goes back to the beginning here."""

    async def run() -> None:
        async with AspenTarget(tmp_path, members=1, patient=True) as cluster:
            load, (name,) = Load(cluster, seed=5), cluster.names
            await load.begin("sole")
            await pause(DURING_S)
            await load.end()
            cluster.signal(name, signal.SIGKILL)
            (state,) = state_files(cluster, name)
            assert rot(state, load.rng, pages=4)
            since = len(cluster.said(name))
            await cluster.start(name)
            found = await scenarios.fate(cluster, name, since)
            assert found.answers, found
            assert "kept as kv.corrupt-1" in found.said
            assert (cluster.data(name) / "kv.corrupt-1" / "data.mdb").stat().st_size > 0
            await judged(cluster, load, tmp_path)

    asyncio.run(run())


@soak
def test_a_member_that_lost_its_disk_does_not_vote(tmp_path: Path) -> None:
    found = on_aspen(tmp_path, scenarios.lost_disk, without=lambda fate: fate.member)
    assert "it was lost. Remove the member" in found.said, found


@soak
def test_a_lost_disk_comes_back_as_a_new_member(tmp_path: Path) -> None:
    """By the commands that the guide names, amid load; with the state of a log that is lost, so by a snapshot."""

    async def scenario(cluster: AspenTarget, load: Load) -> Fate:
        async def rejoin(name: str, leader: str) -> None:
            assert name in await cluster.command("member", "remove", name, "--node", leader)
            added = await cluster.command("member", "add", name, "--node", leader, "--timeout", "30")
            assert "a voter" in added, added
            listed = json.loads(await cluster.command("member", "list", "--node", leader, "--json"))
            assert sorted(one["role"] for one in listed) == ["voter"] * 3, listed

        found = await scenarios.lost_log(cluster, load, rejoin)
        assert "a snapshot is needed" in cluster.said(found.member)
        return found

    found = on_aspen(tmp_path, scenario)
    assert found.answers, found


@soak
def test_clients_of_a_leader_that_stands_still_turn_to_another(tmp_path: Path) -> None:
    """Nothing tells them: its connections stay open. How long it takes is printed (`pytest -s`)."""
    took = on_aspen(tmp_path, scenarios.stalled_leader, patient=True)
    print(f"writes accepted {took:.3f} s after the leader stood still")
    assert took < CONTROL_SILENCE_S / 2, "they waited for the silence of the control port"


@soak
@pytest.mark.parametrize("lives", [1, 2])
def test_a_disk_of_the_past_is_refused(tmp_path: Path, lives: int) -> None:
    async def scenario(cluster: Cluster, load: Load) -> Fate:
        return await scenarios.old_disk(cluster, load, lives=lives)

    found = on_aspen(tmp_path, scenario, without=lambda fate: fate.member)
    assert "takes no part" in found.said, found
    assert "Remove the member" in found.said, found
    assert "InvariantBroken" not in found.said, found
    assert found.exit_code is None, found


@soak
def test_the_directory_of_another_node_is_refused(tmp_path: Path) -> None:
    found = on_aspen(tmp_path, scenarios.foreign_directory)
    assert found.exit_code, found
    assert "this data directory belongs to the node with key" in found.said, found


@soak
def test_members_restart_in_turn_and_no_operation_fails(tmp_path: Path) -> None:
    codes, failed = on_aspen(tmp_path, scenarios.rolling_restart, patient=True)
    assert codes == [0, 0, 0]
    assert failed == 0


@soak
def test_failover(tmp_path: Path) -> None:
    """Nothing is lost in 50 of them; how long they take is printed, for a quiet machine to say (`pytest -s`)."""

    async def scenario(cluster: Cluster, load: Load) -> list[float]:
        return await scenarios.failover(cluster, load, KILLS)

    took = on_aspen(tmp_path, scenario, patient=True)
    p95 = scenarios.percentile(took, 0.95)
    assert len(took) == KILLS
    print(f"failover of {KILLS}: p50 {scenarios.percentile(took, 0.5):.3f} s, p95 {p95:.3f} s, max {max(took):.3f} s")


# -- disks that fail under a running member ----------------------------------------------------------------------


def on_faulty_disk(
    directory: Path,
    scenario: Callable[[AspenTarget, Load, str, FaultyDisk], Awaitable[T]],
    *,
    leads: bool,
    without: Callable[[T], str | None] = lambda found: None,
) -> T:
    """Runs a scenario with a faulty disk under one member."""

    async def run(cluster: AspenTarget, load: Load) -> T:
        leader = await cluster.wait_ready()
        name = leader if leads else next(name for name in cluster.names if name != leader)
        disk = FaultyDisk(cluster.data(name), directory / "faulty")
        await cluster.stop(name)
        await cluster.start(name, disk.environ)
        await cluster.wait_ready()
        if leads:
            await cluster.transfer(name)
        return await scenario(cluster, load, name, disk)

    return on_aspen(directory, run, without=without)


@soak
@needs_gcc
@pytest.mark.parametrize("leads", [True, False])
def test_a_failed_sync_ends_the_node_for_good(tmp_path: Path, leads: bool) -> None:
    found = on_faulty_disk(tmp_path, scenarios.failed_sync, leads=leads, without=lambda fate: fate.member)
    assert found.exit_code == EXIT_STORAGE, found

    async def again() -> Fate:
        cluster = AspenTarget(tmp_path)
        try:
            await cluster.start(found.member)
            return await scenarios.fate(cluster, found.member, len(cluster.said(found.member)))
        finally:
            with suppress(ProcessLookupError):
                await cluster.close()

    refused = asyncio.run(again())
    assert refused.exit_code, refused
    assert "suspect" in refused.said, refused


@soak
@needs_gcc
@pytest.mark.parametrize("leads", [True, False])
def test_a_full_disk_costs_nothing_that_was_acknowledged(tmp_path: Path, leads: bool) -> None:
    found = on_faulty_disk(tmp_path, scenarios.full_disk, leads=leads)
    assert found.answers, found


@soak
@needs_gcc
def test_a_leader_with_a_stalled_disk_hands_over(tmp_path: Path) -> None:
    took = on_faulty_disk(tmp_path, scenarios.stalled_disk, leads=True)
    assert took < scenarios.FAILOVER_LIMIT_S
