"""The indexer example, unchanged, on three simulated nodes with a store: whatever dies, the index is right."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Coroutine
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import aspen.sim
from aspen import AspenError
from aspen.limits import LEASE_DRIFT
from aspen.sim import Phases, Simulation, Workload
from aspen.sim.faults import FAULT_CLASSES
from examples.indexer.text import Index, sequential
from tests.examples.indexing import indexed, main_of, order, progress, write_files


@cache
def files() -> str:
    """A folder of sixty small files, the same each time; made before any run, in the real world.

    It is made once, under another name first: other processes may be reading it.
    """
    ready = Path(tempfile.gettempdir()) / f"aspen-indexer-files-{os.getuid()}"
    if ready.exists():
        return str(ready)
    folder = Path(tempfile.mkdtemp())
    write_files(folder, 60)
    (folder / "binary").write_bytes(b"\0")
    try:
        folder.rename(ready)
    except OSError:
        shutil.rmtree(folder)  # another process was quicker
    return str(ready)


FOLDER = files()
PART = str(Path(FOLDER) / "part1")
REFERENCES = {FOLDER: (*sequential(FOLDER), 61), PART: (*sequential(PART), 12)}
ORDERS = 3
"""One after the other, as fast as they are done."""
T = TypeVar("T")


@aspen.sim.test(
    nodes=3,
    seeds=5,
    # As for the store: nobody is there to put in members for those whose disks are lost, and clocks drift as permitted.
    faults=tuple(name for name in FAULT_CLASSES if name not in ("disk", "clocks")),
    amounts={"clock.drift": round(LEASE_DRIFT * 1e9)},
    # A slow disk may stall a sync for eight seconds.
    phases=Phases(12_000_000_000, 8_000_000_000, 180_000_000_000),
    workload=Workload(0, 0, 1),
    options={"broken": ""},
    steps_max=4_000_000,
)
async def indexer_survives_crashes(sim: Simulation) -> None:
    """With the option `broken=yes` the check is wrong on purpose: it takes a crash of a node for impossible."""
    names = list(sim.nodes)
    await sim.start(main_of(names, {"path": FOLDER, "chaos_s": 0.1, "workers": 1 + sim.seed % 3}))
    rng = sim.rng("orders")
    for number in range(ORDERS):
        folder = (FOLDER, PART)[number % 2]
        await persist(sim, rng.choice(names), order(folder))
        for name in names:
            await check(sim, name, *REFERENCES[folder])
        await sim.sleep(rng.random() * 2)
    boots = [sim.node(name).boot for name in names]
    sim.check(sim.options["broken"] != "yes" or set(boots) == {1}, "never_restarted", f"boots {boots}")


async def persist(sim: Simulation, name: str, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Does it on a node, again and again until that is up and the store answers it."""
    while True:
        try:
            return await sim.call(name, work)
        except (AspenError, TimeoutError):
            sim.branch("node_was_down")
        await sim.sleep(0.05)


async def check(sim: Simulation, name: str, reference: Index, skipped: dict[str, int], found: int) -> None:
    """Returns when a node has the whole index."""
    while True:
        seen = await persist(sim, name, progress)
        if seen.done and seen.found == found:
            got = await persist(sim, name, indexed)
            if got != reference and (await persist(sim, name, progress)) != seen:
                continue  # Its index was restarted meanwhile.
            sim.check(got == reference, "index", f"{name} has another index")
            sim.check(seen.skipped == skipped, "skipped", f"{seen.skipped}, not {skipped}")
            sim.check(seen.settled == found, "settled", f"{seen.settled} of {found} files")
            if len(seen.coordinators) > 1:
                sim.branch("another_took_over")
            if seen.again:
                sim.branch("claimed_again")
            return
        await sim.sleep(0.05)
