"""The indexer on three simulated nodes: whichever node dies and whenever, the index is the sequential reference's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from aspen import Applications, CallError, Supervisor, child, whereis
from aspen.actor import pid_of, system_of_loop
from aspen.distributed import Distribution, Joining, Seed, nodes, pg
from aspen.sim import Cluster, SimNode
from examples.indexer import Indexer
from examples.indexer.app import HelperSupervisor
from examples.indexer.chaos import Chaos
from examples.indexer.coordinator import Coordinator, Progress
from examples.indexer.crews import Crew
from examples.indexer.index import IndexStore
from examples.indexer.names import CHAOS, COORDINATOR, FUSES, INDEX, WORKERS
from examples.indexer.text import sequential

HOME, *HELPERS = NAMES = ["demo-1", "demo-2", "demo-3"]
CONVERGED_S = 20.0
FILES = 150


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    rng = random.Random(11)
    words = [a + b + c for a in "bdk" for b in "aeiou" for c in "nrs"]
    for n in range(FILES):
        (folder / f"file{n}.txt").write_text(" ".join(rng.choices(words, k=rng.randrange(60))))
    return folder


class Root(Supervisor):
    strategy = "one_for_one"

    def __init__(self, joining: Joining, settings: dict[str, Any] | None) -> None:
        self._joining = joining
        self._settings = settings

    def children(self) -> Any:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        plan = [] if self._settings is None else [(Indexer, "permanent", {"indexer": self._settings})]
        yield child(Applications, None, plan).opts(name="apps", id="apps", shutdown="infinity")


def main_of(settings: dict[str, Any] | None) -> Callable[[SimNode], Any]:
    def main(node: SimNode) -> Any:
        others = [name for name in NAMES if name != node.name]
        peers = node.ports.peers
        seeds = [Seed(other, f"sim://{other}") for other in others]
        return child(Root, Joining(node.name, lambda: peers, lambda: seeds), settings)

    return main


def run(seed: int, settings: dict[str, Any], scenario: Callable[[Cluster], Coroutine[Any, Any, None]]) -> None:
    """Runs `scenario` once the three nodes know each other, all workers wait, and the job has begun."""
    with Cluster(seed, NAMES, strict_messages=False) as cluster:
        cluster.boot(HOME, main_of(None))
        for name in HELPERS:
            cluster.boot(name, main_of(settings))

        async def begin() -> None:
            await whereis(Applications, "apps").start_application(Indexer, settings)

        async def all_of_it() -> None:
            for node in cluster.nodes.values():
                await node.ready()
            await asyncio.sleep(CONVERGED_S)
            await cluster.node(HOME).call(begin)
            await scenario(cluster)

        cluster.run(all_of_it())


async def progress() -> Progress | None:
    try:
        return await whereis(Coordinator, COORDINATOR).progress()
    except CallError:
        return None


async def until(cluster: Cluster, far: Callable[[Progress], bool], every_s: float = 0.001) -> Progress:
    for _ in range(40_000):
        now = await cluster.node(HOME).call(progress)
        if now is not None and far(now):
            return now
        await asyncio.sleep(every_s)
    raise AssertionError(f"it never is so far: {now}")


async def indexed() -> dict[str, dict[str, int]]:
    store = whereis(IndexStore, INDEX)
    result: dict[str, dict[str, int]] = {}
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        page = await store.page(*place)
        for word, file, count in page.postings:
            assert file not in result.setdefault(word, {})
            result[word][file] = count
        place = page.next
    return result


async def check_against_reference(cluster: Cluster, files: Path, final: Progress) -> None:
    reference, skipped = sequential(str(files))
    assert await cluster.node(HOME).call(indexed) == reference
    assert (final.skipped, final.indexed, final.found) == (skipped, FILES, FILES)
    assert sum(work.files for work in final.nodes) == FILES


@pytest.mark.parametrize("seed", range(3))
def test_all_nodes_take_part(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        final = await until(cluster, lambda now: now.done)
        await check_against_reference(cluster, files, final)
        assert [work.node for work in final.nodes] == NAMES
        assert all(work.files and work.workers == 2 and not work.restarts for work in final.nodes)
        assert (final.crashed, final.taken_back, final.workers, final.started) == (0, 0, 6, 6)

    run(seed, {"path": str(files), "workers": 2}, scenario)


@pytest.mark.parametrize("seed", range(8))
def test_a_node_that_dies_gives_its_files_back_and_joins_in_again(files: Path, seed: int) -> None:
    rng = random.Random(seed)
    victim, at, power = rng.choice(HELPERS), rng.randrange(5, FILES - 40), bool(seed % 2)

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, lambda now: now.settled >= at)
        cluster.crash(victim, power=power)
        await asyncio.sleep(rng.choice((0.2, 2.0, 30.0)))
        cluster.restart(victim)
        final = await until(cluster, lambda now: now.done, 0.05)
        await check_against_reference(cluster, files, final)
        final = await until(cluster, lambda now: now.workers == 6 and not any(work.lost for work in now.nodes), 0.05)
        assert {work.node: work.losses for work in final.nodes} == {name: int(name == victim) for name in NAMES}

    run(seed, {"path": str(files), "workers": 2, "chaos_s": 0.01 if seed % 3 == 0 else 0.0}, scenario)


@pytest.mark.parametrize("seed", range(4))
def test_when_the_home_dies_it_begins_anew(files: Path, seed: int) -> None:
    rng = random.Random(seed)
    settings = {"path": str(files), "workers": 2}

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, lambda now: now.settled >= rng.randrange(5, FILES - 40))
        cluster.crash(HOME, power=bool(seed % 2))
        await asyncio.sleep(rng.choice((0.2, 2.0, 30.0)))
        cluster.restart(HOME, main_of(settings))
        await cluster.node(HOME).ready()
        final = await until(cluster, lambda now: now.done and now.workers == 6, 0.05)
        await check_against_reference(cluster, files, final)
        assert final.crashed == 0

    run(seed, settings, scenario)


@pytest.mark.parametrize("seed", range(3))
def test_a_node_that_was_only_out_of_sight_goes_on(files: Path, seed: int) -> None:
    async def scenario(cluster: Cluster) -> None:
        await until(cluster, lambda now: now.settled >= 20 + 10 * seed)
        cluster.network.block("demo-3", HOME)
        cluster.network.block(HOME, "demo-3")
        await asyncio.sleep(40)
        cluster.heal()
        final = await until(cluster, lambda now: now.done, 0.05)
        await check_against_reference(cluster, files, final)
        final = await until(cluster, lambda now: now.workers == 6, 0.05)
        assert (final.crashed, [work.restarts for work in final.nodes]) == (0, [0, 0, 0])
        assert [work.node for work in final.nodes if work.losses] == ["demo-3"]

    run(seed, {"path": str(files), "workers": 2}, scenario)


def test_the_home_is_the_first_or_the_one_that_is_named(files: Path) -> None:
    async def parts() -> tuple[bool, int, int]:
        return system_of_loop().whereis(COORDINATOR) is not None, len(pg.local_members(WORKERS)), len(nodes())

    async def scenario(cluster: Cluster) -> None:
        assert [await cluster.node(name).call(parts) for name in NAMES] == [(False, 2, 3), (True, 2, 3), (False, 2, 3)]

    run(0, {"path": str(files), "workers": 2, "home": "demo-2"}, scenario)


def test_in_the_virtual_world_no_process_is_killed(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ASPEN_HEART_FD", raising=False)
    settings = {**Indexer.arguments([str(files), "--chaos", "--workers", "2"]), "chaos_s": 0.002}

    async def look() -> tuple[dict[str, int], list[Any]]:
        return await whereis(Chaos, CHAOS).strikes(), pg.members(FUSES)

    async def scenario(cluster: Cluster) -> None:
        final = await until(cluster, lambda now: now.done)
        await check_against_reference(cluster, files, final)
        strikes, fuses = await cluster.node(HOME).call(look)
        assert strikes["killed"] and strikes["raised"] and "nodes" not in strikes
        assert not fuses

    run(1, settings, scenario)


def test_the_fuse_of_one_other_node_burns_once(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASPEN_HEART_FD", "99")
    settings = Indexer.arguments([str(files), "--chaos", "--workers=2"])
    assert settings["fuse"] is True
    burnt: list[str] = []
    monkeypatch.setattr("examples.indexer.chaos.Fuse._die", lambda self: burnt.append(self.ctx.system.name))

    async def scenario(cluster: Cluster) -> None:
        await until(cluster, lambda now: now.done)
        await asyncio.sleep(1)
        assert len(burnt) == 1
        assert burnt[0] in HELPERS

    run(2, {**settings, "chaos_s": 0.002}, scenario)


def test_a_helper_alone_does_not_die(system: Any, world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("examples.indexer.chaos.Fuse._die", lambda self: pytest.fail("it died"))

    async def alone() -> None:
        from aspen import start
        from examples.indexer.chaos import Fuse

        await start(HelperSupervisor, 1, fuse=True)
        (fuse,) = pg.members(FUSES)
        fuse.blow()
        assert isinstance(await start(Fuse), object)
        await asyncio.sleep(0.01)
        assert pid_of(fuse) in {pid_of(one) for one in pg.members(FUSES)}

    world.run(alone())


def test_a_crew_counts_those_that_replace_others() -> None:
    crew = Crew("n", 1)
    assert [crew.joined(1) for _ in range(2)] == [True, True]
    crew.left(1, lost=False)
    assert crew.joined(1)
    assert (crew.work().restarts, crew.work().workers) == (1, 2)
    for _ in range(2):
        crew.left(1, lost=True)
    assert (crew.work().losses, crew.work().lost, crew.work().workers) == (1, True, 0)
    assert not crew.joined(1), "it was out of sight only"
    assert (crew.work().restarts, crew.work().lost) == (1, False)
    assert crew.joined(2)
    crew.left(1, lost=True)
    assert (crew.work().restarts, crew.work().losses, crew.work().workers) == (1, 1, 1)
