"""`aspen bench watch`: watches of the replicated store, against a cluster of real processes.

One writer puts 256 bytes again and again to one key that 1,000 watches see, on one connection and on 100; so many of
its puts are under way at a time. All of it is in one client process, which shares the machine with the members: what
readers cost is in the figures. An event counts for each watch that reads it; its delay is from before the put to where
it is read.
"""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Final

from aspen.bench.kv import NAME, VALUE_BYTES, cluster
from aspen.errors import UsageError
from aspen.io import RealClock, new_event_loop
from aspen.io.files import temporary_folder
from aspen.io.process import suit_nodes
from aspen.kv import Kv
from aspen.kv.connecting import connect
from aspen.kv.watch import Watch

WATCHES: Final = 1_000
CONNECTIONS: Final = (1, 100)
SECONDS_DEFAULT: Final = 5.0
WINDOW: Final = 8

KEYS: Final = tuple(
    f"watch_{connections}_connections_{figure}"
    for connections in CONNECTIONS
    for figure in ("events", "events_per_s", "puts_per_s", "p50_ms", "p99_ms")
)


def measure(
    members: int = 3,
    connections: int | None = None,
    seconds: float = SECONDS_DEFAULT,
    where: str | None = None,
    watches: int = WATCHES,
    window: int = WINDOW,
    config_dir: Path | None = None,
) -> dict[str, float]:
    """Measures with so many connections, or with each of CONNECTIONS; one flat object of figures as in `KEYS`.

    Raises:
        UsageError: there are more connections than watches.
        NotReachable: the cluster did not start, or is not there.
    """
    if connections is not None and not 1 <= connections <= watches:
        raise UsageError(f"{connections} connections for {watches} watches: use at least 1, and a watch for each")
    suit_nodes()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(
            _measure(
                members, (connections,) if connections else CONNECTIONS, seconds, where, watches, window, config_dir
            )
        )


async def _measure(
    members: int,
    connections: tuple[int, ...],
    seconds: float,
    where: str | None,
    watches: int,
    window: int,
    folder: Path | None,
) -> dict[str, float]:
    found: dict[str, float] = {}
    async with contextlib.AsyncExitStack() as stack:
        if where is None:
            folder = stack.enter_context(temporary_folder("aspen-bench-watch-"))
            await stack.enter_async_context(cluster(folder, members))
        for count in connections:
            async with contextlib.AsyncExitStack() as clients:
                kvs = []
                for _ in range(count):
                    kv = await connect(where or NAME, config_dir=folder, timeout=30.0)
                    clients.push_async_callback(kv.close)
                    kvs.append(kv)
                figures = await _fan_out(kvs, watches, seconds, window)
                found |= {f"watch_{count}_connections_{name}": value for name, value in figures.items()}
    return found


async def _fan_out(kvs: list[Kv], watches: int, seconds: float, window: int) -> dict[str, float]:
    now_ns = RealClock.mono_ns
    delays_ns: list[int] = []
    key = b"bench/watched"
    puts = due = 0
    all_read = asyncio.Event()

    async def write() -> None:
        nonlocal puts
        while now_ns() < end_ns:
            await kvs[0].put(key, now_ns().to_bytes(8, "big") + bytes(VALUE_BYTES - 8))
            puts += 1

    async def read(watch: Watch) -> None:
        async for event in watch:
            put_ns = int.from_bytes(event.kv.value[:8], "big")
            delays_ns.append(now_ns() - put_ns)
            if len(delays_ns) == due:
                all_read.set()

    async with contextlib.AsyncExitStack() as stack:
        made = [kvs[number % len(kvs)].watch(key, timeout=60.0) for number in range(watches)]
        await asyncio.gather(*(stack.enter_async_context(watch) for watch in made))
        readers = [asyncio.ensure_future(read(watch)) for watch in made]
        began_ns = now_ns()
        end_ns = began_ns + round(seconds * 1e9)
        await asyncio.gather(*(write() for _ in range(window)))
        due = puts * watches
        async with asyncio.timeout(60):
            if len(delays_ns) < due:
                await all_read.wait()
        took_s = (now_ns() - began_ns) / 1e9
        for reader in readers:
            reader.cancel()
        await asyncio.wait(readers)
    delays_ns.sort()
    return {
        "events": due,
        "events_per_s": due / took_s,
        "puts_per_s": puts / took_s,
        "p50_ms": delays_ns[len(delays_ns) // 2] / 1e6,
        "p99_ms": delays_ns[len(delays_ns) * 99 // 100] / 1e6,
    }
