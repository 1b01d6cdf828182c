"""The indexer on three simulated nodes: whichever node dies and whenever, the index is the sequential reference's."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from aspen import start, wire
from aspen.actor import system_of_loop
from aspen.kv import Kv
from aspen.kv.inside import kv_of
from aspen.kv.recipes.keys import base, span_of
from aspen.sim import Cluster, World
from examples.indexer import Indexer, job
from examples.indexer.index import IndexStore
from examples.indexer.text import TOO_MANY
from tests.examples.indexing import check_against_reference, order, run, until, write_files

NAMES = ["demo-1", "demo-2", "demo-3"]
FILES = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_files(folder, FILES, 60)
    return folder


@pytest.fixture(autouse=True)
def small_parcels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.indexer.text.PARCEL_FILES", 3)
    monkeypatch.setattr("examples.indexer.coordinator.AT_ONCE", 20)


def coordinator(now: Any) -> str:
    return [*now.coordinators.values()][-1]


@pytest.mark.parametrize("seed", range(2))
def test_all_nodes_take_part_and_all_have_the_index(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        final = await check_against_reference(cluster, files)
        assert list(final.nodes) == NAMES
        assert len(final.coordinators) == 1
        assert (final.again, final.strikes, final.killed) == (0, 0, "")
        assert final.took_s > 0

    run(seed, NAMES, files, scenario, workers=2)


@pytest.mark.parametrize("seed", range(6))
def test_any_node_may_be_killed_that_which_coordinates_too(files: Path, seed: int) -> None:
    rng = random.Random(seed)
    at, pause_s, power = rng.randrange(0, FILES - 20), rng.choice((0.2, 2.0, 30.0)), bool(seed % 2)

    async def scenario(cluster: Cluster) -> None:
        now = await until(cluster, "demo-1", lambda now: now.settled >= at and bool(now.coordinators), 0.001)
        first = coordinator(now)
        victim = first if seed % 3 else rng.choice(NAMES)
        cluster.crash(victim, power=power)
        others = [name for name in NAMES if name != victim]
        if seed % 2:  # The others end it without that one.
            await check_against_reference(cluster, files, *others)
        await asyncio.sleep(pause_s)
        cluster.restart(victim)
        await cluster.node(victim).ready()
        final = await check_against_reference(cluster, files)
        if victim == first and at and seed % 2:
            assert coordinator(final) in others

    run(seed, NAMES, files, scenario, workers=2, chaos_s=0.05 if seed % 4 == 0 else 0.0)


@pytest.mark.parametrize("seed", range(2))
def test_when_all_are_killed_at_once_they_go_on_where_they_were(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await until(cluster, "demo-2", lambda now: now.settled >= 60, 0.001)
        for name in NAMES:
            cluster.crash(name, power=bool(seed))
        await asyncio.sleep(1)
        for name in NAMES:
            cluster.restart(name)
        for name in NAMES:
            await cluster.node(name).ready()
        now = await until(cluster, "demo-3", lambda now: bool(now.nodes))
        assert now.settled >= 60, "what was written down is there still"
        assert not await cluster.node("demo-1").call(order(str(files))), "the job is there still"
        await check_against_reference(cluster, files)

    run(seed, NAMES, files, scenario, workers=2)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_is_cut_off_does_no_harm_and_catches_up(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        now = await until(cluster, "demo-2", lambda now: now.settled >= 20 + 10 * seed, 0.001)
        alone = coordinator(now) if seed else "demo-3"
        others = [name for name in NAMES if name != alone]
        for other in others:
            cluster.network.block(alone, other)
            cluster.network.block(other, alone)
        await check_against_reference(cluster, files, *others)
        cluster.heal()
        await check_against_reference(cluster, files)

    run(seed, NAMES, files, scenario, workers=2)


def test_what_is_ordered_anew_is_done_anew_and_what_is_taken_back_leaves_nothing(files: Path, tmp_path: Path) -> None:
    write_files(tmp_path, 30)

    async def left() -> int:
        kv = kv_of(system_of_loop())
        everything: Any = (job.SPACE.whole(), span_of(base("queue", "indexer")))
        await job.forget(kv, kv, "demo-2")  # The job is another's: nothing happens.
        there = await count(kv, everything)
        await job.forget(kv, kv, "demo-1")
        assert await count(kv, everything) == 0
        return there

    async def count(kv: Kv, spans: Any) -> int:
        return sum([(await kv.range(*span, count_only=True)).count for span in spans])

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, "demo-2", lambda now: now.settled >= 20)
        assert await cluster.node("demo-1").call(order(str(tmp_path)))
        await until(cluster, "demo-3", lambda now: now.found == 30)
        await check_against_reference(cluster, tmp_path)
        assert await cluster.node("demo-3").call(left) > 30
        now = await until(cluster, "demo-2", lambda now: not now.settled)
        assert (now.coordinators, now.done) == ({}, False)
        assert await cluster.node("demo-1").call(order(str(files)))
        await check_against_reference(cluster, files)

    run(1, NAMES, files, scenario, workers=2)


def test_in_the_virtual_world_no_process_is_killed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASPEN_HEART_FD", raising=False)
    settings = {**Indexer.arguments([str(files), "--chaos", "--workers", "2"]), "chaos_s": 0.02}

    async def scenario(cluster: Cluster) -> None:
        final = await check_against_reference(cluster, files)
        assert final.strikes
        assert not final.killed

    settings.pop("path")
    run(1, NAMES, files, scenario, **settings)


@pytest.mark.parametrize("seed", range(3))
def test_the_node_that_coordinates_is_killed_once(files: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setenv("ASPEN_HEART_FD", "99")
    settings = Indexer.arguments([str(files), "--chaos", "--workers=2"])
    assert settings["fuse"] is True
    victims: list[str] = []

    async def scenario(cluster: Cluster) -> None:
        def die(self: Any) -> None:
            victims.append(self.ctx.system.name)
            cluster.loop.call_soon(fall, victims[-1])

        def fall(name: str) -> None:
            cluster.crash(name)
            cluster.loop.call_later(2.0, cluster.restart, name)

        monkeypatch.setattr("examples.indexer.chaos.Chaos._die", die)
        others = [name for name in NAMES if name not in victims]
        await until(cluster, others[0], lambda now: now.done or bool(victims), 0.05)
        await asyncio.sleep(10)
        final = await check_against_reference(cluster, files)
        assert victims == [final.killed] == [next(iter(final.coordinators.values()))]
        assert len(final.coordinators) > 1, "somebody has taken over"
        assert 2 * final.settled >= 2 * FILES // 2

    run(seed, NAMES, files, scenario, workers=2, fuse=True, chaos_s=0.02)


class Fed(IndexStore):
    """An index that is told by the test, and follows no store."""

    async def init(self) -> None:
        """Nothing."""


def test_an_index_that_is_read_again_is_not_done_before_all_of_it_is_there(world: World, system: Any) -> None:
    """The key that says so comes before the files in the order of keys, and a node that was killed reads in that."""

    async def main() -> None:
        index = await start(Fed)
        files = [
            (job.FILES.pack((name,)), wire.encode(job.Result("n", 1, skipped, {}))) for name, skipped in FILES_OF_TWO
        ]
        await index.take([(job.DONE, b"5"), files[0], (job.FOUND, wire.encode(job.Found(3, 1)))])
        assert not (await index.progress()).done
        await index.take([files[1]])
        final = await index.progress()
        assert (final.done, final.settled, final.skipped) == (True, 3, {"binary": 1, TOO_MANY: 1})

    world.run(main())


FILES_OF_TWO = (("a", None), ("b", "binary"))
