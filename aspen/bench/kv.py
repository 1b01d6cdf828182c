"""`aspen bench kv`: the replicated store, from one client process, against a cluster of real processes.

The cluster is started here, a node in a process of its own each (`aspen up`), with keys and data in a folder that is
removed at the end; or it is one that runs already (`--connect`). The client's cost is in every figure: client and
members share the machine. Values have 256 bytes. A caller waits for its answer before it asks again.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

from aspen.errors import NotReachable, UsageError
from aspen.io import RealClock, new_event_loop
from aspen.io.children import Detached, kill_process, terminate_process
from aspen.io.files import temporary_folder
from aspen.io.nodes import find_node
from aspen.io.process import suit_nodes
from aspen.kv import Kv
from aspen.kv.connecting import connect
from aspen.limits import HEART_PERIOD_S, HEART_RESTARTS
from aspen.otp import Application, Child, Supervisor, child

VALUE_BYTES: Final = 256
SECONDS_DEFAULT: Final = 3.0
START_TIMEOUT_S: Final = 60.0
KILLS_DEFAULT: Final = 3
RANGE_KEYS: Final = 100
NAME: Final = "bench"

PUTTERS: Final = (1, 10, 100, 1_000)
KEYS: Final = (
    *(f"put_{callers}_per_s" for callers in PUTTERS),
    "get_linearizable_100_per_s",
    "get_serializable_100_per_s",
    "range_100_per_s",
    "failover_s",
)
"""With each rate come how long one took, `put_1_p50_ms` and `put_1_p99_ms` with `put_1_per_s`. `failover_s` is the
median over some kills of the leader; `failover_p95_s` and `failover_max_s` come with it."""


class _Nothing(Supervisor):
    """Supervises nothing."""

    def children(self) -> list[Child[Any]]:
        """None."""
        return []


class Idle(Application):
    """What the nodes of the cluster run beside the store."""

    name = "idle"

    def start(self, env: Any) -> Child[Any]:
        """A tree without actors."""
        return child(_Nothing)


def measure(
    members: int = 3,
    only: str | None = None,
    seconds: float = SECONDS_DEFAULT,
    where: str | None = None,
    kills: int = KILLS_DEFAULT,
) -> dict[str, float]:
    """Runs the benchmarks, or the one named `only`; one flat object of the figures in `KEYS`.

    `where` is a cluster that runs, as `aspen.kv.connect` takes it; then there is no failover.

    Raises:
        UsageError: there is no benchmark of that name; says which there are.
        NotReachable: the cluster did not start, or is not there.
    """
    if only is not None and only not in KEYS:
        raise UsageError(f"no benchmark {only!r}; there are: {', '.join(KEYS)}")
    suit_nodes()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_measure(members, only, seconds, where, kills))


async def _measure(members: int, only: str | None, seconds: float, where: str | None, kills: int) -> dict[str, float]:
    wanted = [only] if only else list(KEYS)
    if where is not None:
        kv = await connect(where)
        try:
            return await _figures(kv, wanted, seconds)
        finally:
            await kv.close()
    with temporary_folder("aspen-bench-kv-") as folder:
        async with cluster(folder, members):
            kv = await connect(NAME, config_dir=folder, timeout=30.0)
            try:
                found = await _figures(kv, wanted, seconds)
                if "failover_s" in wanted and members > 1:
                    found |= await _failover(kv, folder, kills)
                return found
            finally:
                await kv.close()


@asynccontextmanager
async def cluster(folder: Path, members: int) -> AsyncIterator[None]:
    """`aspen up`, until the context is left."""
    command = [
        *(sys.executable, "-m", "aspen", "--config-dir", str(folder), "up", "aspen.bench.kv:Idle"),
        *("--nodes", str(members), "--name", NAME, "--log-level", "warning", "--log-dir", str(folder / "logs")),
    ]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = Detached.start(command, environ, folder / "up.log")
    try:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not all(find_node(folder, f"{NAME}-{n}") for n in range(1, members + 1)):
                if process.exit_code is not None:
                    raise NotReachable(f"the cluster did not start: {process.last_words()}")
                await asyncio.sleep(0.1)
        yield
    finally:
        terminate_process(process.process_id)
        await _ended(process)


async def _ended(process: Detached) -> None:
    """Waits until a process has ended."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            if process.exit_code is not None:
                return
            await asyncio.sleep(0.1)


async def _figures(kv: Kv, wanted: list[str], seconds: float) -> dict[str, float]:
    found: dict[str, float] = {}
    value = bytes(VALUE_BYTES)
    keys = [b"bench/%05d" % number for number in range(1_000)]
    ranged = [b"range/%05d" % number for number in range(RANGE_KEYS)]
    await asyncio.gather(*(kv.put(key, value) for key in (*keys, *ranged)))
    works: dict[str, tuple[int, Callable[[int], Awaitable[object]]]] = {
        **{f"put_{callers}": (callers, lambda n: kv.put(keys[n], value)) for callers in PUTTERS},
        "get_linearizable_100": (100, lambda n: kv.get(keys[n])),
        "get_serializable_100": (100, lambda n: kv.get(keys[n], consistency="serializable")),
        "range_100": (100, lambda n: kv.range(prefix=b"range/")),
    }
    for name, (callers, work) in works.items():
        if f"{name}_per_s" in wanted:
            found |= await _rate(name, callers, seconds, work)
    return found


async def _rate(name: str, callers: int, seconds: float, work: Callable[[int], Awaitable[object]]) -> dict[str, float]:
    """Operations a second of so many callers, and how long half and 99 of 100 of them took at most."""
    now_ns = RealClock.mono_ns
    began_ns = now_ns()
    end_ns = began_ns + round(seconds * 1e9)
    took_ns: list[int] = []

    async def caller(number: int) -> None:
        before_ns = now_ns()
        while before_ns < end_ns:
            await work(number)
            after_ns = now_ns()
            took_ns.append(after_ns - before_ns)
            before_ns = after_ns

    await asyncio.gather(*(caller(number) for number in range(callers)))
    elapsed_s = (now_ns() - began_ns) / 1e9
    took_ns.sort()
    percentiles = {f"{name}_p{part}_ms": took_ns[len(took_ns) * part // 100] / 1e6 for part in (50, 99)}
    return {f"{name}_per_s": len(took_ns) / elapsed_s} | percentiles


async def _failover(kv: Kv, folder: Path, kills: int) -> dict[str, float]:
    """Seconds from the kill of the leader to the next write that was accepted, so many times."""
    took: list[float] = []
    killed_ns: dict[str, deque[int]] = {}
    for _ in range(kills):
        leader = (await kv.status())["leader"]
        names = {member["node"]: member["name"] for member in await kv.members()}
        record = find_node(folder, names[leader])
        if record is None:
            raise NotReachable(f"the leader {names[leader]} is not there")
        # `aspen up` gives up a node that ends more often.
        ends_ns = killed_ns.setdefault(leader, deque(maxlen=HEART_RESTARTS))
        if len(ends_ns) == HEART_RESTARTS:
            await asyncio.sleep(max(0.0, HEART_PERIOD_S + 1.0 - (RealClock.mono_ns() - ends_ns[0]) / 1e9))
        began_ns = RealClock.mono_ns()
        ends_ns.append(began_ns)
        kill_process(record.process_id)
        await kv.put(b"bench/failover", b"", timeout=30.0)
        took.append((RealClock.mono_ns() - began_ns) / 1e9)
        await _all_back(kv)
    took.sort()
    # Of 50 the 48th: below it are 95 of 100.
    p95 = took[-(-len(took) * 95 // 100) - 1]
    return {"failover_s": took[len(took) // 2], "failover_p95_s": p95, "failover_max_s": took[-1]}


async def _all_back(kv: Kv) -> None:
    """Waits until every member is heard again."""
    async with asyncio.timeout(START_TIMEOUT_S):
        while True:
            if all(member["active"] and member["progress"] != "probe" for member in await kv.members()):
                return
            await asyncio.sleep(0.2)
