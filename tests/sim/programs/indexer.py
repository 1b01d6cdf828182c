"""The indexer example, unchanged, on a simulated node that crashes: whatever dies, the index is the reference's."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import aspen.sim
from aspen import AspenError, whereis
from aspen.sim import Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from examples.indexer import Indexer
from examples.indexer.coordinator import Coordinator, Progress
from examples.indexer.index import IndexStore
from examples.indexer.names import COORDINATOR, INDEX
from examples.indexer.text import sequential

WORDS = [a + b + c for a in "bdk" for b in "aeiou" for c in "nrs"]


@cache
def files() -> str:
    """A folder of sixty small files, the same each time; made before any run, in the real world.

    It is made once, under another name first: other processes may be reading it.
    """
    ready = Path(tempfile.gettempdir()) / f"aspen-indexer-files-{os.getuid()}"
    if ready.exists():
        return str(ready)
    folder = Path(tempfile.mkdtemp())
    rng = random.Random(7)
    for n in range(60):
        part = folder / f"part{n % 5}"
        part.mkdir(parents=True, exist_ok=True)
        (part / f"file{n}.txt").write_text(" ".join(rng.choices(WORDS, k=rng.randrange(200))))
    (folder / "binary").write_bytes(b"\0")
    try:
        folder.rename(ready)
    except OSError:
        shutil.rmtree(folder)  # another process was quicker
    return str(ready)


FOLDER = files()
REFERENCE, SKIPPED = sequential(FOLDER)


async def progress() -> Progress:
    return await whereis(Coordinator, COORDINATOR).progress()


async def indexed() -> dict[str, dict[str, int]]:
    """The whole index, through its pages."""
    store = whereis(IndexStore, INDEX)
    result: dict[str, dict[str, int]] = {}
    place: tuple[int, int] | None = (0, 0)
    while place is not None:
        page = await store.page(*place)
        for word, file, count in page.postings:
            result.setdefault(word, {})[file] = count
        place = page.next
    return result


@aspen.sim.test(
    nodes=1,
    seeds=5,
    faults=tuple(name for name in FAULT_CLASSES if name not in {"partition", "link", "swizzle", "network"}),
    # A slow disk may stall a sync for eight seconds, and there are sixty files.
    phases=Phases(500_000_000, 2_000_000_000, 120_000_000_000),
    workload=Workload(0, 0, 1),
    options={"broken": ""},
)
async def indexer_survives_crashes(sim: Simulation) -> None:
    """With the option `broken=yes` the check is wrong on purpose: it takes a crash of the node for impossible."""
    (node,) = sim.nodes
    await sim.start(Indexer, path=FOLDER, chaos_s=0.003, workers=1 + sim.seed % 6)
    while True:
        try:
            seen = await sim.call(node, progress)
            if seen.done:
                boot = sim.node(node).boot
                sim.check(sim.options["broken"] != "yes" or boot == 1, "never_restarted", f"{node} is in boot {boot}")
                sim.check(await sim.call(node, indexed) == REFERENCE, "index", "it is not the sequential reference")
                sim.check(seen.settled == seen.found == 61, "settled", f"{seen.settled} of {seen.found} files")
                return
        except AspenError:
            sim.branch("node_was_down")
        await sim.sleep(0.02)
