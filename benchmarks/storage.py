"""How long a write takes to be durable, beside an idle event loop and beside a busy one.

    python benchmarks/storage.py --rounds 300 --directory /var/tmp/bench

A thread that returns from a system call waits for the GIL, which a busy loop gives up after `sys.getswitchinterval()`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

from aspen.io import new_event_loop
from aspen.io.lmdb_storage import LmdbStorage
from aspen.io.offload import RealOffload
from aspen.io.real_files import RealFiles
from aspen.journal import Batch, Identity, Journal
from aspen.raft import Configuration, Entry, EntryKind, HardState, SnapshotMeta
from aspen.traits import Lane, LogFile

VALUE = os.urandom(256)


class BusyLoop:
    """Callbacks of some 5 ms, one after the other, for as long as it is on: turns of a scheduler that has enough to do,
    which last up to `TURN_MS_MAX`. Between them the loop polls, and gives up the GIL."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.turns = 0
        self.on = False

    def start(self) -> None:
        self.on, self.turns = True, 0
        self.began = time.perf_counter()
        self.turn()

    def turn(self) -> None:
        if self.on:
            self.turns += 1
            for _ in range(250):
                sum(range(800))
            self.loop.call_soon(self.turn)

    def stop(self) -> float:
        self.on = False
        return self.turns / (time.perf_counter() - self.began)


async def measure(rounds: int, lane: Lane, work: Callable[[], object]) -> tuple[list[float], list[float]]:
    """Milliseconds that the work took in its thread, and those until the loop knew."""
    inside, outside = [], []

    def timed() -> float:
        began = time.perf_counter()
        work()
        return time.perf_counter() - began

    for _ in range(rounds):
        began = time.perf_counter()
        inside.append((await lane.run(timed)) * 1e3)
        outside.append((time.perf_counter() - began) * 1e3)
    return sorted(inside), sorted(outside)


def two_steps(file: LogFile, data: bytes) -> None:
    file.write(0, data)
    file.sync()


async def main(rounds: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    offload = RealOffload(loop)
    lane, spares = offload.lane("bench"), offload.lane("spares")
    files = RealFiles(directory / "raft")
    identity = Identity(1, 1, "key")
    Journal.create(files, identity, SnapshotMeta(0, 0, Configuration(frozenset({1}))))
    journal, _ = Journal.open(files, node_key="key")
    raw = files.open("raw")
    raw.reserve(1 << 20)
    raw.sync()
    store = LmdbStorage(directory / "kv", ("mvcc",), map_bytes=1 << 30)
    n = 0

    def write(bytes_: int) -> None:
        entry = Entry(journal.last_index + 1, 1, EntryKind.NORMAL, bytes(bytes_))
        journal.write(Batch(HardState(1, 1, entry.index), [entry]))
        if journal.wants_spare:
            loop.call_soon_threadsafe(spares.run, journal.prepare)

    def commit(many: bool) -> None:
        nonlocal n
        n += 1
        items = [(b"%d/%d" % (n * 7919 % 5000, k), VALUE) for k in range(100)]
        with store.begin(write=True) as writer:
            if many:
                writer.put_many("mvcc", items)
            else:
                for key, value in items:
                    writer.put("mvcc", key, value)
            writer.commit()

    data = bytes(300)
    cases: dict[str, Callable[[], object]] = {
        "nothing": int,
        "pwrite, fdatasync of 300 B": lambda: two_steps(raw, data),
        "pwritev(DSYNC) of 300 B": lambda: raw.write_synced(0, data),
        "journal, 1 entry of 300 B": lambda: write(300),
        "journal, 1 entry of 30 kB": lambda: write(30_000),
        "LMDB commit, 100 put": lambda: commit(False),
        "LMDB commit, put_many of 100": lambda: commit(True),
    }
    busy = BusyLoop(loop)
    busy.start()
    await asyncio.sleep(1)
    print(f"the busy loop alone: {busy.stop():,.0f} callbacks/s\n")
    print("milliseconds, in the thread and as the loop sees it; callbacks/s of the busy loop meanwhile")
    print(f"{'':29} {'loop':5} {'switch':>6} | {'p50':>7} {'p90':>7} {'p99':>7} | {'p50':>7} {'p90':>7} {'p99':>7} |")
    for name, work in cases.items():
        for is_busy, interval in ((False, 0.005), (True, 0.005), (True, 0.001), (True, 0.0005), (True, 0.0001)):
            sys.setswitchinterval(interval)
            await lane.run(work)
            if is_busy:
                busy.start()
            inside, outside = await measure(rounds, lane, work)
            rate = f"{busy.stop():,.0f}" if is_busy else ""
            figures = " | ".join(
                " ".join(f"{times[int(len(times) * part)]:7.2f}" for part in (0.5, 0.9, 0.99))
                for times in (inside, outside)
            )
            print(f"{name:29} {'busy' if is_busy else 'idle':5} {interval * 1e3:6.1f} | {figures} | {rate}", flush=True)
    sys.setswitchinterval(0.005)
    for prepared in (False, True):
        times, rotating = [], []
        while len(rotating) < 4:
            entry = Entry(journal.last_index + 1, 1, EntryKind.NORMAL, bytes(60_000))
            segments = journal.size_bytes
            if prepared and journal.wants_spare:
                await spares.run(journal.prepare)
            began = time.perf_counter()
            journal.write(Batch(HardState(1, 1, entry.index), [entry]))
            (rotating if journal.size_bytes > segments else times).append((time.perf_counter() - began) * 1e3)
        how = "prepared" if prepared else "made on the way"
        worst = ", ".join(f"{ms:.1f}" for ms in rotating)
        print(f"entries of 60 kB: p50 {sorted(times)[len(times) // 2]:.2f} ms; into a new segment, {how}: {worst} ms")
    began = time.perf_counter()
    size = journal.size_bytes
    journal.close()
    _, recovered = Journal.open(files, node_key="key")
    took = time.perf_counter() - began
    print(f"opening a journal of {size / 1e6:.0f} MB with {len(recovered.entries)} entries: {took:.2f} s")
    store.close()
    offload.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp/aspen-bench-storage"))
    options = parser.parse_args()
    shutil.rmtree(options.directory, ignore_errors=True)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            runner.run(main(options.rounds, options.directory))
    finally:
        shutil.rmtree(options.directory, ignore_errors=True)
