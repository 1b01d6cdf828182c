"""The indexer on simulated nodes, each with a member of the store, as `aspen up` has it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from aspen import Applications, CallError, Supervisor, child, whereis
from aspen.actor import system_of_loop
from aspen.distributed import Distribution, Joining, Seed
from aspen.kv.inside import kv_of
from aspen.sim import Cluster, SimNode
from examples.indexer import Indexer, job
from examples.indexer.index import IndexStore, Progress
from examples.indexer.names import INDEX
from examples.indexer.text import sequential

WORDS = [a + b + c for a in "bdk" for b in "aeiou" for c in "nrs"]


def write_files(folder: Path, count: int, words: int = 200) -> None:
    """Small files, the same each time."""
    rng = random.Random(7)
    for n in range(count):
        part = folder / f"part{n % 5}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"file{n}.txt").write_text(" ".join(rng.choices(WORDS, k=rng.randrange(words))))


class Root(Supervisor):
    strategy = "one_for_one"

    def __init__(self, joining: Joining, settings: dict[str, dict[str, Any]]) -> None:
        self._joining, self._settings = joining, settings

    def children(self) -> Any:
        yield child(Distribution, self._joining).opts(name="distribution", shutdown=10)
        plan = [(Indexer, "permanent", self._settings)]
        yield child(Applications, None, plan).opts(name="apps", id="apps", shutdown="infinity")


def main_of(names: list[str], settings: Mapping[str, Any]) -> Callable[[SimNode], Any]:
    """What a node of a cluster runs: the application, which brings its member of the store."""

    def main(node: SimNode) -> Any:
        peers = node.ports.peers
        seeds = [Seed(other, f"sim://{other}") for other in names if other != node.name]
        joining = Joining(node.name, lambda: peers, lambda: seeds)
        return child(Root, joining, {"indexer": dict(settings), "kv": {"voters": ",".join(names)}})

    return main


def run(
    seed: int,
    names: list[str],
    path: Path,
    scenario: Callable[[Cluster], Coroutine[Any, Any, None]],
    *,
    begin: bool = True,
    **settings: Any,
) -> Cluster:
    """Runs `scenario` once the nodes are up and, if it is to `begin`, the first has ordered the job."""
    with Cluster(seed, names, strict_messages=False) as cluster:
        main = main_of(names, {**settings, "path": str(path)})
        for name in names:
            cluster.boot(name, main)

        async def all_of_it() -> None:
            for name in names:
                await cluster.node(name).ready()
            if begin:
                assert await cluster.node(names[0]).call(order(str(path)))
            await scenario(cluster)

        cluster.run(all_of_it())
        return cluster


def order(root: str) -> Callable[[], Coroutine[Any, Any, bool]]:
    """Has a folder indexed for the node on which it is called."""

    async def ordering() -> bool:
        kv = kv_of(system_of_loop())
        return await job.submit(kv, kv, root, system_of_loop().name)

    return ordering


async def progress() -> Progress:
    return await whereis(IndexStore, INDEX).progress()


async def until(cluster: Cluster, node: str, far: Callable[[Progress], bool], every_s: float = 0.01) -> Progress:
    """Waits until the job is so far, as a node sees it."""
    now: Progress | None = None
    for _ in range(40_000):
        try:
            now = await cluster.node(node).call(progress)
            if far(now):
                return now
        except CallError:
            pass
        await asyncio.sleep(every_s)
    raise AssertionError(f"it never is so far: {now}")


async def indexed() -> dict[str, dict[str, int]]:
    """The whole index of a node, through its pages; no posting twice."""
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


async def check_against_reference(cluster: Cluster, path: Path, *nodes: str) -> Progress:
    """Waits until it is done; every node, or those named, has the very same, that of the sequential reference."""
    reference, skipped = sequential(str(path))
    for name in nodes or tuple(cluster.nodes):
        final = await until(cluster, name, lambda now: now.done, 0.05)
        assert await cluster.node(name).call(indexed) == reference
        assert final.skipped == skipped
        assert final.settled == final.found == sum(final.nodes.values())
    return final
