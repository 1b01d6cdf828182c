"""The harness itself: a right store passes, every lie is caught, and etcd, which is right, passes with real kills."""

from __future__ import annotations

import asyncio
import random
import re
from pathlib import Path
from typing import cast

import pytest

from benchmarks.etcd.cluster import missing
from tests.sim.histories import MUTATIONS
from tests.torture.etcd import EtcdTarget
from tests.torture.fake import LIES, FakeStore
from tests.torture.rounds import PACE_S, PREFIX, Load, one_round, pause, stalled
from tests.torture.seam import Cluster
from tests.torture.verify import Verdict, check, judge

needs_etcd = pytest.mark.skipif(missing() is not None, reason=str(missing()))
ENOUGH = 90
LIMIT_S = 20.0


async def run_fake(lie: str | None) -> Verdict:
    store = FakeStore(lie)
    cluster = cast(Cluster, store)
    load = Load(cluster, seed=3)
    for label in ("one", "two"):
        await load.begin(label)
        enough = load.acknowledged + ENOUGH
        async with asyncio.timeout(LIMIT_S):
            while load.acknowledged < enough:
                await pause(PACE_S)
        store.crash()
        await load.end()
    await load.close()
    assert not load.unexpected
    return await judge(cluster, load.recorder)


def test_a_right_store_passes() -> None:
    verdict = asyncio.run(run_fake(None))
    assert not verdict.problems, str(verdict)
    assert verdict.unknown and verdict.executed_unknown and verdict.revisions > 20


@pytest.mark.parametrize("lie", LIES)
def test_a_lying_store_is_caught(lie: str) -> None:
    verdict = asyncio.run(run_fake(lie))
    assert re.search(LIES[lie], "\n".join(verdict.problems)), str(verdict)


# -- etcd ------------------------------------------------------------------------------------------------------


async def run_etcd(directory: Path, names: tuple[str, ...]) -> Verdict:
    async with EtcdTarget(directory) as cluster:
        load = Load(cluster, seed=1)
        for number, name in enumerate(names):
            await one_round(cluster, load, name, number)
        await load.close()
        assert not load.unexpected
        return await judge(cluster, load.recorder)


@pytest.fixture(scope="module")
def etcd_verdict(tmp_path_factory: pytest.TempPathFactory) -> Verdict:
    """Two rounds with etcd."""
    return asyncio.run(run_etcd(tmp_path_factory.mktemp("etcd"), ("kill_leader", "kill_all")))


@needs_etcd
@pytest.mark.slow
def test_etcd_passes_with_its_members_killed(etcd_verdict: Verdict) -> None:
    assert not etcd_verdict.problems, str(etcd_verdict)
    assert etcd_verdict.acknowledged > 200
    assert etcd_verdict.unknown > 0


@needs_etcd
@pytest.mark.slow
@pytest.mark.parametrize("name", MUTATIONS)
def test_the_same_history_with_one_lie_in_it_is_caught(etcd_verdict: Verdict, name: str) -> None:
    mutate, invariants = MUTATIONS[name]
    for seed in range(3):
        mutated = mutate(etcd_verdict.history, random.Random(seed))
        assert mutated is not None, "this history has no place for it"
        found = "\n".join(check(mutated).problems)
        assert any(f"revisions.{invariant}" in found for invariant in invariants), found


@needs_etcd
@pytest.mark.slow
def test_stale_reads_that_claim_to_be_linearizable_are_caught(tmp_path: Path) -> None:
    """Serializable reads of a follower that has just woken, recorded as what they are not."""

    async def run() -> Verdict:
        async with EtcdTarget(tmp_path) as cluster:
            leader = await cluster.wait_ready()
            asleep = next(name for name in cluster.names if name != leader)
            load = Load(cluster, seed=2)
            writer = await cluster.client(0, leader)
            reader = await cluster.client(1, asleep)
            key = (PREFIX + b"stale",)

            async def lie(number: int) -> None:
                token = load.recorder.invoke(f"r{number}", "get", key)
                answer = await reader.execute("get", key, None, serializable=True)
                load.recorder.ok(token, answer.result, answer.revision)

            for turn in range(10):
                assert await load.once("w", writer, "put", key, b"old%d" % turn)
                await lie(0)
                with stalled(cluster, asleep):
                    for number in range(20):
                        assert await load.once("w", writer, "put", key, b"new%d.%d" % (turn, number))
                    reads = [asyncio.create_task(lie(number)) for number in range(20)]
                    await pause(0.05)
                await asyncio.gather(*reads)
            return await judge(cluster, load.recorder)

    verdict = asyncio.run(run())
    found = "\n".join(verdict.problems)
    assert "revisions.stale_read" in found
    assert "linearizable.no_order" in found
