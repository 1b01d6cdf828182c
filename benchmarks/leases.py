"""What leases cost: the leader's clock, the machine, and the client that keeps them alive.

    python benchmarks/leases.py [--leases 100000] [--ttl 60] [--json]

Everything that the members and one client do for so many leases, without network and consensus: memory as the growth
of what is resident, times of the processor.

    granted_us           a grant applied by the machine, in entries of 100
    machine_bytes        of a lease in the machine; with one attached key: machine_keyed_bytes
    load_s               until a machine that starts anew has read them all, each with a key
    lead_ms              until the clock of a new leader has them all; lead_step_max_ms its longest step
    clock_bytes          of a lease there, as Python counts it
    tick_idle_us         a tick when nothing is due
    beat_us              a keep-alive of one lease in a request of many: bytes read, clock, answer
    tick_kept_us         a tick while all are kept alive, on the average; tick_kept_max_ms its longest step
    expire_us            the end of one lease: due, proposed, applied with its key
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import tracemalloc
from pathlib import Path

from aspen.io.lmdb_storage import LmdbStorage
from aspen.kv.codec import decode_command, decode_result, encode_batch, encode_command, encode_result
from aspen.kv.lessor import LeaseRecord, Lessor
from aspen.kv.machine import TABLES, Machine
from aspen.kv.types import ClusterVersionRequest, KeepResult, LeaseExpire, LeaseGrant, LeaseKeep, PutRequest
from aspen.limits import LEASE_KEEP_MAX, LEASE_LOOKED_AT_MAX, LEASE_TICK_S

BATCH = 100
SECOND_NS = 1_000_000_000
clock = time.process_time


def resident() -> int:
    """Bytes of this process in memory now."""
    with Path("/proc/self/statm").open() as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def flush(machine: Machine) -> None:
    change = machine.freeze()
    if change is not None:
        change.write(sync=True)
        machine.flushed(change)
    machine.release()


def measure(folder: Path, count: int, ttl_s: int) -> dict[str, float]:
    found: dict[str, float] = {"leases": count, "ttl_s": ttl_s}
    machine = Machine(LmdbStorage(folder / "kv", TABLES, map_bytes=1 << 34))
    index = 1
    machine.apply(index, 1, encode_batch([encode_command(ClusterVersionRequest(2))]))

    before, spent = resident(), 0.0
    for start in range(1, count + 1, BATCH):
        index += 1
        payload = encode_batch([encode_command(LeaseGrant(ttl_s, start + n)) for n in range(BATCH)])
        began = clock()
        machine.apply(index, 1, payload)
        spent += clock() - began
        if index % 40 == 0:
            flush(machine)
    flush(machine)
    found["granted_us"] = spent / count * 1e6
    found["machine_bytes"] = (resident() - before) / count

    for start in range(1, count + 1, BATCH):
        index += 1
        puts = [PutRequest(b"lease/%d" % (start + n), b"v", start + n) for n in range(BATCH)]
        machine.apply(index, 1, encode_batch([encode_command(put) for put in puts]))
        if index % 40 == 0:
            flush(machine)
    flush(machine)
    machine.close()
    before, began = resident(), clock()
    machine = Machine(LmdbStorage(folder / "kv", TABLES, map_bytes=1 << 34))
    found["load_s"] = clock() - began
    found["machine_keyed_bytes"] = (resident() - before) / count

    records = [
        LeaseRecord(id, lease.ttl_s, lease.remaining_s, lease.granted) for id, lease in machine.leases.all().items()
    ]
    tracemalloc.start()
    lessor = Lessor()
    lessor.lead(0, records)
    found["clock_bytes"] = tracemalloc.get_traced_memory()[0] / count
    tracemalloc.stop()
    lessor, longest = Lessor(), 0.0
    lessor.lead(0, ())
    started = clock()
    for start in range(0, count, LEASE_LOOKED_AT_MAX):
        began = clock()
        lessor.take_over(0, records[start : start + LEASE_LOOKED_AT_MAX])
        longest = max(longest, clock() - began)
    found["lead_ms"] = (clock() - started) * 1e3
    found["lead_step_max_ms"] = longest * 1e3
    del records
    tick_ns = round(LEASE_TICK_S * SECOND_NS)
    now_ns, began = 0, clock()
    for _ in range(100):
        now_ns += 1_000_000
        lessor.tick(now_ns)
    found["tick_idle_us"] = (clock() - began) / 100 * 1e6

    ids = list(lessor.ids())
    requests = [
        encode_command(LeaseKeep(tuple(ids[start : start + LEASE_KEEP_MAX])))
        for start in range(0, count, LEASE_KEEP_MAX)
    ]
    beating = ticking = longest = 0.0
    beats = ticks = 0
    beat_at_ns = 0
    while now_ns < ttl_s * SECOND_NS * 3:
        if now_ns >= beat_at_ns:
            beat_at_ns = now_ns + ttl_s * SECOND_NS // 3
            beats += 1
            began = clock()
            for request in requests:
                kept = decode_command(request).request
                assert isinstance(kept, LeaseKeep)
                for id in kept.leases:
                    lessor.keep_alive(id, now_ns)
                    lessor.must_clear(id)
                decode_result(encode_result(KeepResult(tuple(map(lessor.ttl_s, kept.leases)))))
            beating += clock() - began
        now_ns += tick_ns
        ticks += 1
        while True:
            began = clock()
            due = lessor.tick(now_ns)
            took = clock() - began
            assert not due.expire, "a lease that is kept alive has run out"
            ticking, longest = ticking + took, max(longest, took)
            if not due.more:
                break
    found["beat_us"] = beating / beats / count * 1e6
    found["tick_kept_us"] = ticking / ticks * 1e6
    found["tick_kept_max_ms"] = longest * 1e3

    ended, began = 0, clock()
    while ended < count:
        now_ns += tick_ns
        due = lessor.tick(now_ns)
        if due.expire:
            index += 1
            command = LeaseExpire(1, tuple((id, lessor.grant_index(id)) for id in due.expire))
            machine.apply(index, 1, encode_batch([encode_command(command)]))
            for id in due.expire:
                lessor.ended(id)
            ended += len(due.expire)
    found["expire_us"] = (clock() - began) / count * 1e6
    assert not machine.leases.all()
    machine.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--leases", type=int, default=100_000)
    parser.add_argument("--ttl", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), args.leases, args.ttl)
    if args.json:
        print(json.dumps(found))
        return
    for name, value in found.items():
        print(f"{name:20} {value:12,.2f}")


if __name__ == "__main__":
    main()
