"""What a large store takes: memory, restart, and snapshot, of one member's state machine on LMDB.

    python benchmarks/kv_large.py [--keys 1000000] [--small 100000] [--value 256] [--folder DIR] [--json]

Keys come in a random order, in entries of 100, flushed every 4,000. Then the store is opened by a process that has done
nothing else, which reads some of it; a snapshot is taken, and restored into another store. The figures of the smaller
store are there to show what grows faster than the store does. Times are the wall's, with the processor's beside.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from aspen.io.lmdb_storage import LmdbStorage
from aspen.kv.codec import encode_batch, encode_command, encode_put
from aspen.kv.machine import TABLES, Machine
from aspen.kv.snapshot import Restore, SnapshotReader
from aspen.kv.types import RangeRequest, SessionOpen

BATCH = 100
FLUSH_EVERY = 40
MAP_BYTES = 1 << 36
Figures = dict[str, float]


def memory_mb(kind: str) -> float:
    """Of this process: `RssAnon` is its own, `VmRSS` with pages of files, LMDB's map among them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(kind))
    return int(line.split()[1]) / 1024


class Timed:
    """Seconds of the wall and of the processor."""

    def __init__(self, figures: Figures, name: str) -> None:
        self._figures, self._name = figures, name

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *exc_info: object) -> None:
        self._figures[f"{self._name}_s"] = time.perf_counter() - self._began[0]
        self._figures[f"{self._name}_cpu_s"] = time.process_time() - self._began[1]


def fill(folder: Path, count: int, value_bytes: int) -> Figures:
    """Puts the keys, and closes the store in order."""
    figures: Figures = {}
    machine = Machine(LmdbStorage(folder / "kv", TABLES, map_bytes=MAP_BYTES))
    machine.apply(1, 1, encode_batch([encode_command(SessionOpen())]))
    order = list(range(count))
    random.Random(1).shuffle(order)
    value = random.Random(2).randbytes(value_bytes)
    before = memory_mb("RssAnon")
    with Timed(figures, "fill"):
        for number, at in enumerate(range(0, count, BATCH), 1):
            payload = encode_batch(
                [
                    encode_put(b"/large/%016d" % n, value, 0, 1, at + i, max(1, at - BATCH))
                    for i, n in enumerate(order[at : at + BATCH], 1)
                ]
            )
            machine.apply(machine.applied[0] + 1, 1, payload)
            if number % FLUSH_EVERY == 0 or at + BATCH >= count:
                flush = machine.freeze()
                assert flush is not None
                flush.write(sync=at + BATCH >= count)
                machine.flushed(flush)
    figures["fill_anonymous_mb"] = memory_mb("RssAnon") - before
    machine.close()
    figures["file_mb"] = (folder / "kv" / "data.mdb").stat().st_blocks * 512 / 1e6
    return figures


def look(folder: Path, count: int) -> Figures:
    """Opens the store, reads some of it, and takes and restores a snapshot."""
    figures: Figures = {}
    before = memory_mb("RssAnon")
    with Timed(figures, "open"):
        storage = LmdbStorage(folder / "kv", TABLES, map_bytes=MAP_BYTES)
        machine = Machine(storage)
    figures["open_anonymous_mb"] = memory_mb("RssAnon") - before
    sample = random.Random(3).sample(range(count), min(count, 20_000))
    commands = [encode_command(RangeRequest(b"/large/%016d" % n)) for n in sample]
    with Timed(figures, "gets"):
        for command in commands:
            machine.read(command)
    figures["get_us"] = figures.pop("gets_s") / len(commands) * 1e6
    figures["get_cpu_us"] = figures.pop("gets_cpu_s") / len(commands) * 1e6
    with Timed(figures, "count_all"):
        machine.read(encode_command(RangeRequest(b"\0", b"\0", count_only=True)))
    figures["read_anonymous_mb"] = memory_mb("RssAnon") - before
    figures["rss_mb"] = memory_mb("VmRSS")
    chunks = folder / "chunks"
    chunks.mkdir()
    reader, number, size = SnapshotReader(storage), 0, 0
    with Timed(figures, "snapshot"):
        while (chunk := reader.chunk(number)) is not None:
            (chunks / str(number)).write_bytes(chunk)
            number, size = number + 1, size + len(chunk)
    reader.close()
    figures["snapshot_mb"] = size / 1e6
    figures["snapshot_anonymous_mb"] = memory_mb("RssAnon") - before
    with Timed(figures, "restore"):
        restore = Restore(LmdbStorage(folder / "other", TABLES, map_bytes=MAP_BYTES))
        for each in range(number):
            restore.add(each, (chunks / str(each)).read_bytes())
        restore.finish()
    machine.close()
    return figures


def measured(what: str, folder: Path, count: int, value_bytes: int) -> Figures:
    """One of the two, in a process of its own."""
    command = [sys.executable, __file__, "--keys", str(count), "--value", str(value_bytes)]
    command += ["--folder", str(folder), "--only", what]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    """Parses the command line and runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--small", type=int, default=100_000, help="keys of the store to compare with")
    parser.add_argument("--value", type=int, default=256, help="bytes of a value")
    parser.add_argument("--folder", type=Path, default=None, help="on the disk that is meant")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=["fill", "look"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only == "fill":
        print(json.dumps(fill(options.folder, options.keys, options.value)))
        return
    if options.only == "look":
        print(json.dumps(look(options.folder, options.keys)))
        return
    results: dict[int, Figures] = {}
    for count in (options.small // BATCH * BATCH, options.keys // BATCH * BATCH):
        with tempfile.TemporaryDirectory(dir=options.folder) as name:
            folder = Path(name)
            results[count] = {}
            for what in ("fill", "look"):
                found = measured(what, folder, count, options.value)
                results[count] |= found
                print(count, what, json.dumps(found), file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps(results))
        return
    small, large = results
    print(f"{'':24}{small:>14,}{large:>14,}")
    for key in results[large]:
        print(f"{key:24}{results[small][key]:14,.2f}{results[large][key]:14,.2f}")


if __name__ == "__main__":
    main()
