"""Many leases and many watches at once on three members, each a process, through the loss of their leader.

    PYTHONPATH=. python benchmarks/scale.py [--leases 100000] [--watches 10000] [--connections 1,100] [--ttl 60]
        [--hold 70]

One client keeps the leases alive, as `kv.lease` does; as many watches as are asked for see one key, first on one
connection and then on a hundred, in the same process. Then, for each number of connections:

    an event to all          how long until the last watch has read it: the median of some
    quiet                    nothing happens but keeping alive, for half of `--hold`: processor time
    the leader is killed     with -9, while a key is written again and again: until all watches have read what was
                             written after that; each must see each value, in order and once
    hold                     for `--hold` seconds after that, which is longer than the leases would last by themselves:
                             every one must be there, by the client's clock and by the leader's

It ends with 1 when something of that does not hold. Memory is what is resident (RSS): of a member that leads, of the
one that follows and has most, and of the client; processor time is of one core.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from aspen.bench.kv import NAME, cluster
from aspen.errors import AspenError
from aspen.io import new_event_loop
from aspen.io.children import kill_process
from aspen.io.nodes import find_node
from aspen.io.process import spare_collections
from aspen.kv import Kv, Lease
from aspen.kv.connecting import connect
from aspen.kv.watch import Watch

MEMBERS = 3
KEY = b"scale/watched"
AT_A_TIME = 512
EVENTS = 10
TRIES = 40
WRITE_EVERY_S = 0.05
PATIENCE_S = 120
PAGE = os.sysconf("SC_PAGE_SIZE")
TICKS = os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """What was to hold does not."""


def resident_mb(pid: int) -> float:
    """Of a process, now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE / 1e6


def processor_s(pid: int) -> float:
    """Of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


class Scene:
    """The cluster, and what is noted of it."""

    def __init__(self, folder: Path, kv: Kv) -> None:
        self.folder, self.kv = folder, kv
        self.found: dict[str, float] = {}

    def pids(self) -> dict[str, int]:
        """Of the members that run, by name."""
        records = [find_node(self.folder, f"{NAME}-{number}") for number in range(1, MEMBERS + 1)]
        return {record.name: record.process_id for record in records if record is not None}

    async def leader(self) -> str:
        """Its name."""
        for _ in range(TRIES):
            with contextlib.suppress(AspenError):  # Elections take a moment.
                leader = (await self.kv.status())["leader"]
                names = {str(one["node"]): str(one["name"]) for one in await self.kv.members()}
                if leader in names:
                    return names[leader]
            await asyncio.sleep(0.5)
        raise Broken("nobody leads")

    async def note_memory(self, when: str) -> None:
        """Of members and client."""
        gc.collect()
        pids, leader = self.pids(), await self.leader()
        self.note(f"{when}: RSS of the leader, MB", resident_mb(pids.pop(leader)))
        self.note(f"{when}: RSS of a follower, MB", max(map(resident_mb, pids.values())))
        self.note(f"{when}: RSS of the client, MB", resident_mb(os.getpid()))

    async def note_processor(self, when: str, seconds: float) -> None:
        """For a while, in which nothing else is done."""
        pids, leader = self.pids(), await self.leader()
        pids[""] = os.getpid()
        before = {name: processor_s(pid) for name, pid in pids.items()}
        began = time.monotonic()
        await asyncio.sleep(seconds)
        took = time.monotonic() - began
        spent = {name: (processor_s(pid) - before[name]) / took * 100 for name, pid in pids.items()}
        self.note(f"{when}: processor of the client, %", spent.pop(""))
        self.note(f"{when}: processor of the leader, %", spent.pop(leader))
        self.note(f"{when}: processor of a follower, %", max(spent.values()))

    def note(self, what: str, value: float) -> None:
        """A figure."""
        self.found[what] = value
        print(f"{what:56}{value:12,.1f}", flush=True)


class Readers:
    """Watches that are read, and what they have seen."""

    def __init__(self, watches: list[Watch], first: int) -> None:
        self._seen = [first - 1] * len(watches)
        self.tasks = [asyncio.ensure_future(self._read(number, watch)) for number, watch in enumerate(watches)]

    async def _read(self, number: int, watch: Watch) -> None:
        seen = self._seen
        async for event in watch:
            value = int(event.kv.value)
            if value != seen[number] + 1:
                raise Broken(f"watch {number} has seen {value} after {seen[number]}")
            seen[number] = value

    async def until(self, value: int) -> None:
        """Returns when all have seen it."""
        async with asyncio.timeout(PATIENCE_S):
            while min(self._seen) < value:
                self.check()
                await asyncio.sleep(0.002)

    def check(self) -> None:
        """Raises what went wrong with one of them."""
        for task in self.tasks:
            if task.done():
                task.result()


async def granted(kv: Kv, count: int, ttl: int) -> list[Lease]:
    """So many leases, kept alive."""
    leases: list[Lease] = []
    while len(leases) < count:
        some = range(min(AT_A_TIME, count - len(leases)))
        leases += await asyncio.gather(*(kv.lease(ttl, timeout=30.0) for _ in some))
    return leases


async def check_leases(kv: Kv, leases: list[Lease]) -> None:
    """Raises Broken unless all are there."""
    if lost := sum(not lease.is_valid for lease in leases):
        raise Broken(f"{lost} of {len(leases)} leases are lost to their client")
    if missing := {lease.id for lease in leases}.difference(await kv.leases()):
        raise Broken(f"{len(missing)} of {len(leases)} leases are not there any more")


async def watched(scene: Scene, leases: list[Lease], options: argparse.Namespace, count: int, value: int) -> int:
    """One number of connections; `value` is the last that was written, and what is written is returned."""
    kv, where = scene.kv, f"{options.watches} watches, {count} connection{'s' * (count > 1)}"
    async with contextlib.AsyncExitStack() as stack:
        kvs: list[Kv] = []
        while len(kvs) < count:
            some = await connect(NAME, config_dir=scene.folder, timeout=60.0)
            kvs.append(await stack.enter_async_context(some))
        began = time.monotonic()
        watches = [kvs[number % count].watch(KEY, timeout=60.0) for number in range(options.watches)]
        for start in range(0, len(watches), AT_A_TIME):
            await asyncio.gather(*(stack.enter_async_context(one) for one in watches[start : start + AT_A_TIME]))
        scene.note(f"{where}: begun in, s", time.monotonic() - began)
        readers = Readers(watches, value + 1)
        stack.push_async_callback(ended, readers)
        took = []
        for _ in range(EVENTS):
            began, value = time.monotonic(), value + 1
            await kv.put(KEY, b"%d" % value)
            await readers.until(value)
            took.append((time.monotonic() - began) * 1e3)
        scene.note(f"{where}: an event to all, ms", statistics.median(took))
        await scene.note_memory(where)
        await scene.note_processor(f"{where}, quiet", options.hold / 2)
        readers.check()

        leader = await scene.leader()
        pid = scene.pids()[leader]
        began = time.monotonic()
        kill_process(pid)
        value += 1
        await kv.put(KEY, b"%d" % value, timeout=30.0)
        scene.note(f"{where}: leader killed, until a write, s", time.monotonic() - began)
        while time.monotonic() - began < 5:
            value += 1
            await kv.put(KEY, b"%d" % value, timeout=30.0)
            await asyncio.sleep(WRITE_EVERY_S)
        await readers.until(value)
        scene.note(f"{where}: until all had read 5 s of writes, s", time.monotonic() - began)
        held = options.hold - (time.monotonic() - began)
        await scene.note_processor(f"{where}, after that", max(held, 1.0))
        value += 1
        await kv.put(KEY, b"%d" % value)
        await readers.until(value)
        await check_leases(kv, leases)
        await scene.note_memory(f"{where}, after that")
    return value


async def ended(readers: Readers) -> None:
    """Ends the tasks."""
    for task in readers.tasks:
        task.cancel()
    await asyncio.wait(readers.tasks)


async def run(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    """All of it."""
    async with cluster(folder, MEMBERS), await connect(NAME, config_dir=folder, timeout=30.0) as kv:
        scene = Scene(folder, kv)
        await kv.put(KEY, b"0")
        await scene.note_memory("nothing")
        began = time.monotonic()
        leases = await granted(kv, options.leases, options.ttl)
        scene.note(f"{options.leases} leases: granted in, s", time.monotonic() - began)
        await scene.note_memory(f"{options.leases} leases")
        value = 0
        for count in map(int, options.connections.split(",")):
            value = await watched(scene, leases, options, count, value)
        return scene.found


def main() -> int:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--watches", type=int, default=10_000)
    parser.add_argument("--connections", default="1,100")
    parser.add_argument("--ttl", type=int, default=60, help="of the leases, in seconds")
    parser.add_argument("--hold", type=float, default=70.0, help="seconds after the loss of the leader")
    parser.add_argument("--json", type=Path, help="where the figures go")
    options = parser.parse_args()
    spare_collections()
    loads = [os.getloadavg()[0]]
    try:
        with (
            tempfile.TemporaryDirectory(dir=os.getcwd()) as folder,
            asyncio.Runner(loop_factory=new_event_loop) as runner,
        ):
            found = runner.run(run(options, Path(folder)))
    except Broken as broken:
        print(f"broken: {broken}", file=sys.stderr)
        return 1
    loads.append(os.getloadavg()[0])
    print(f"load {loads[0]:.1f} before, {loads[1]:.1f} after")
    if options.json is not None:
        options.json.write_text(json.dumps({"load": loads, "found": found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
