"""The scenarios themselves, on etcd: what it does in each is known, so this shows that the trouble comes about."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from benchmarks.etcd.cluster import missing
from tests.torture import scenarios
from tests.torture.etcd import EtcdTarget
from tests.torture.rounds import Load
from tests.torture.scenarios import Fate
from tests.torture.seam import Cluster
from tests.torture.soaking import soak
from tests.torture.verify import judge

pytestmark = [pytest.mark.slow, pytest.mark.skipif(missing() is not None, reason=str(missing()))]
T = TypeVar("T")


def on_etcd(directory: Path, scenario: Callable[[Cluster, Load], Awaitable[T]], *, whole: bool) -> T:
    """Runs a scenario, brings a member that is down back as it was, and judges."""

    async def run() -> T:
        async with EtcdTarget(directory) as cluster:
            load = Load(cluster, seed=4)
            found = await scenario(cluster, load)
            await load.close()
            assert not load.unexpected
            if not whole:
                cluster.names = [name for name in cluster.names if cluster.exit_code(name) is None]
            verdict = await judge(cluster, load.recorder)
            assert not verdict.problems, str(verdict)
            assert verdict.acknowledged >= 2
            return found

    return asyncio.run(run())


def test_a_rotten_log_keeps_etcd_from_starting(tmp_path: Path) -> None:
    def logs(cluster: Cluster, name: str) -> list[Path]:
        return sorted((cluster.data(name) / "member/wal").glob("*.wal"))

    async def scenario(cluster: Cluster, load: Load) -> Fate:
        return await scenarios.rotten(cluster, load, logs, "rotten-log")

    found = on_etcd(tmp_path, scenario, whole=False)
    assert found.exit_code, found
    # By where the rot is: the checksum, the decoder, or the raft core, whose log is too short.
    assert any(word in found.said for word in ("walpb: crc mismatch", "proto", "raft.RestartNode")), found.said


@soak
def test_a_lost_disk_keeps_etcd_from_starting(tmp_path: Path) -> None:
    found = on_etcd(tmp_path, scenarios.lost_disk, whole=False)
    assert found.exit_code, found
    assert "has already been bootstrapped" in found.said


@soak
def test_etcd_ends_when_its_disk_is_of_the_past(tmp_path: Path) -> None:
    found = on_etcd(tmp_path, scenarios.old_disk, whole=False)
    assert found.exit_code, found
    assert "Was the raft log corrupted, truncated, or lost?" in found.said


@soak
def test_members_restart_in_turn(tmp_path: Path) -> None:
    codes, _ = on_etcd(tmp_path, scenarios.rolling_restart, whole=True)
    assert len(codes) == 3


@soak
def test_a_foreign_directory_is_put_away_again(tmp_path: Path) -> None:
    on_etcd(tmp_path, scenarios.foreign_directory, whole=True)


@soak
def test_a_failover_is_measured(tmp_path: Path) -> None:
    async def scenario(cluster: Cluster, load: Load) -> list[float]:
        return await scenarios.failover(cluster, load, 2)

    found = on_etcd(tmp_path, scenario, whole=True)
    assert all(0.05 < one < scenarios.FAILOVER_LIMIT_S for one in found)


def test_a_percentile_is_one_of_the_values() -> None:
    assert scenarios.percentile(range(1, 51), 0.95) == 48
    assert scenarios.percentile([3.0], 0.95) == 3.0
    assert scenarios.percentile(range(1, 101), 0.99) == 99
