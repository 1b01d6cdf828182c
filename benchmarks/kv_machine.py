"""What one command costs the store's state machine, and LMDB alone beside it.

    python benchmarks/kv_machine.py [--puts 100000] [--wall] [--json]

Puts come in entries of 100, each in a session and acknowledged two entries later, as a client of 200 in flight would.
They are flushed to a real LMDB every 4,000: `put_..._us` is what the loop is held for, `..._flush_us` what the writer
thread does beside it.

Times are the processor's, not the wall's, unless --wall is given: what others do on the machine hardly shows, nor what
the disk takes.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import tempfile
import time
from pathlib import Path

from aspen.io.lmdb_storage import LmdbStorage
from aspen.kv.codec import encode_batch, encode_command, encode_put
from aspen.kv.integrity import hash_at
from aspen.kv.machine import TABLES, Machine
from aspen.kv.snapshot import Restore, SnapshotReader
from aspen.kv.types import CompactRequest, RangeRequest, SessionOpen

BATCH = 100
FLUSH_EVERY = 40
VALUE = bytes(range(256))
MAP_BYTES = 1 << 34


clock = time.process_time


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = LmdbStorage(folder / "kv", TABLES, map_bytes=MAP_BYTES)
        self.machine = Machine(self.storage)
        self.machine.apply(1, 1, encode_batch([encode_command(SessionOpen())]))
        self.sequence = 0
        self.apply_s = self.flush_s = self.freeze_s = 0.0

    def puts(self, keys: list[bytes]) -> tuple[float, float, float]:
        """Microseconds a put: applied, frozen (on the loop as well), flushed (in the thread)."""
        apply_s = freeze_s = flush_s = 0.0
        machine = self.machine
        count = -(-len(keys) // BATCH)
        for number in range(1, count + 1):
            batch = keys[(number - 1) * BATCH : number * BATCH]
            first = self.sequence + 1
            acked = max(1, first - 2 * BATCH)
            payload = encode_batch([encode_put(key, VALUE, 0, 1, first + n, acked) for n, key in enumerate(batch)])
            self.sequence += len(batch)
            began = clock()
            machine.apply(machine.applied[0] + 1, 1, payload)
            apply_s += clock() - began
            if number % FLUSH_EVERY == 0 or number == count:
                began = clock()
                flush = machine.freeze()
                freeze_s += clock() - began
                assert flush is not None
                began = clock()
                flush.write()
                flush_s += clock() - began
                machine.flushed(flush)
        return tuple(seconds / len(keys) * 1e6 for seconds in (apply_s, freeze_s, flush_s))  # type: ignore[return-value]

    def reads(self, commands: list[bytes]) -> float:
        began = clock()
        for command in commands:
            self.machine.read(command)
        return (clock() - began) / len(commands) * 1e6


def anonymous_mb() -> float:
    """Memory of the process, the bench's own keys included, without the pages of files: LMDB's map is such."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return int(line.split()[1]) / 1024


def lmdb_alone(folder: Path, count: int) -> float:
    """Microseconds a put of LMDB alone, in transactions of the same size."""
    storage = LmdbStorage(folder / "alone", ("t",), map_bytes=MAP_BYTES)
    keys = [b"/bench/%016d" % n for n in range(count)]
    random.Random(1).shuffle(keys)
    began = clock()
    for at in range(0, count, BATCH * FLUSH_EVERY):
        with storage.begin(write=True) as writer:
            writer.put_many("t", sorted((key, VALUE) for key in keys[at : at + BATCH * FLUSH_EVERY]))
            writer.commit()
    elapsed = clock() - began
    storage.close()
    return elapsed / count * 1e6


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--puts", type=int, default=100_000)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--folder", default=None)
    parser.add_argument("--wall", action="store_true")
    options = parser.parse_args()
    if options.wall:
        globals()["clock"] = time.perf_counter
    count = options.puts // BATCH * BATCH
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        bench = Bench(folder)
        rng = random.Random(1)
        keys = [b"/bench/%016d" % n for n in range(count)]
        rng.shuffle(keys)
        figures["put_new_us"], figures["put_new_freeze_us"], figures["put_new_flush_us"] = bench.puts(keys)
        rng.shuffle(keys)
        figures["put_existing_us"], figures["put_existing_freeze_us"], figures["put_existing_flush_us"] = bench.puts(
            keys
        )
        hot = [keys[rng.randrange(1000)] for _ in range(count)]
        figures["put_hot_us"], _, figures["put_hot_flush_us"] = bench.puts(hot)
        sample = rng.sample(keys, min(count, 20_000))
        figures["get_us"] = bench.reads([encode_command(RangeRequest(key)) for key in sample])
        figures["get_again_us"] = bench.reads([encode_command(RangeRequest(key)) for key in sample])
        figures["get_missing_us"] = bench.reads([encode_command(RangeRequest(key + b"x")) for key in sample])
        starts = sample[:500]
        figures["range_100_us"] = bench.reads(
            [encode_command(RangeRequest(key, b"\0", limit=100, uncounted=True)) for key in starts]
        )
        machine = bench.machine
        figures["anonymous_mb"] = anonymous_mb()
        began = clock()
        hash_at(machine, 1)
        figures["hash_us_per_key"] = (clock() - began) / count * 1e6
        revision = machine.status().keyspaces[1].revision
        machine.apply(machine.applied[0] + 1, 1, encode_batch([encode_command(CompactRequest(revision))]))
        longest = total = 0.0
        steps = 0
        more = True
        while more:
            began = clock()
            more = machine.compact_step()
            took = clock() - began
            longest, total = max(longest, took), total + took
            steps += 1
            if steps % 20 == 0 or not more:
                flush = machine.freeze()
                if flush is not None:
                    flush.write()
                    machine.flushed(flush)
        figures["compact_us_per_revision"] = total / revision * 1e6
        figures["compact_step_ms_max"] = longest * 1e3
        reader = SnapshotReader(bench.storage)
        restore = Restore(LmdbStorage(folder / "other", TABLES, map_bytes=MAP_BYTES))
        began, number, size = clock(), 0, 0
        taking = 0.0
        while True:
            at = clock()
            chunk = reader.chunk(number)
            taking += clock() - at
            if chunk is None:
                break
            restore.add(number, chunk)
            number, size = number + 1, size + len(chunk)
        restore.finish()
        figures["snapshot_take_us_per_key"] = taking / count * 1e6
        figures["snapshot_restore_us_per_key"] = (clock() - began - taking) / count * 1e6
        figures["snapshot_mb"] = size / 1e6
        reader.close()
        machine.close()
        began = clock()
        Machine(LmdbStorage(folder / "kv", TABLES, map_bytes=MAP_BYTES)).close()
        figures["open_ms"] = (clock() - began) * 1e3
        figures["lmdb_alone_us_per_put"] = lmdb_alone(folder, count)
        figures["rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if options.json:
        print(json.dumps({name: round(value, 2) for name, value in figures.items()}))
    else:
        for name, value in figures.items():
            print(f"{name:32} {value:10.2f}")


if __name__ == "__main__":
    main()
