"""`aspen bench coordination`: leases and locks of the replicated store, against a cluster of real processes.

    keep_100      100 callers, each with a lease of its own that it keeps alive alone, one answer after the other
    beat          1,000 leases of one client, kept alive over and over as the client does it: all in one request, of
                  which two are under way
    lock          10 clients, each with a connection, and a lease that lasts, want one lock again and again. A hand-over
                  is from before it is given up to where the next one has it

All of it is in one client process, which shares the machine with the members.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from aspen.bench.kv import NAME, cluster
from aspen.errors import LeaseLost
from aspen.io import RealClock, new_event_loop
from aspen.io.files import temporary_folder
from aspen.io.process import suit_nodes
from aspen.kv import Kv
from aspen.kv.connecting import connect

CALLERS: Final = 100
LEASES: Final = 1_000
"""Fewer than LEASE_KEEP_MAX: all go into one request."""
REQUESTS: Final = 2
CONTENDERS: Final = 10
TTL_S: Final = 60
WARM_UP_S: Final = 1.0
SECONDS_DEFAULT: Final = 5.0
TIMEOUT_S: Final = 60.0

KEYS: Final = (
    "keep_100_per_s",
    "keep_100_p50_ms",
    "keep_100_p99_ms",
    "beat_per_s",
    "lock_per_s",
    "lock_p50_ms",
    "lock_p99_ms",
)


def measure(
    members: int = 3,
    only: str | None = None,
    seconds: float = SECONDS_DEFAULT,
    where: str | None = None,
    config_dir: Path | None = None,
) -> dict[str, float]:
    """Runs all, or one of `WORK`; one flat object of figures as in `KEYS`.

    Raises:
        NotReachable: the cluster did not start, or is not there.
    """
    suit_nodes()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(_measure(members, only, seconds, where, config_dir))


async def _measure(
    members: int, only: str | None, seconds: float, where: str | None, folder: Path | None
) -> dict[str, float]:
    found: dict[str, float] = {}
    async with contextlib.AsyncExitStack() as stack:
        if where is None:
            folder = stack.enter_context(temporary_folder("aspen-bench-coordination-"))
            await stack.enter_async_context(cluster(folder, members))
        for name, (connections, work) in WORK.items():
            if only not in (None, name):
                continue
            async with contextlib.AsyncExitStack() as clients:
                kvs = []
                for _ in range(connections):
                    kv = await connect(where or NAME, config_dir=folder, timeout=TIMEOUT_S)
                    clients.push_async_callback(kv.close)
                    kvs.append(kv)
                found |= {f"{name}_{figure}": value for figure, value in (await work(kvs, seconds)).items()}
    return found


class _Span:
    """What is measured, after some time that does not count."""

    def __init__(self, seconds: float) -> None:
        self.began_ns = RealClock.mono_ns() + round(WARM_UP_S * 1e9)
        self.end_ns = self.began_ns + round(seconds * 1e9)
        self.seconds = seconds

    @property
    def goes_on(self) -> bool:
        return RealClock.mono_ns() < self.end_ns

    def has(self, moment_ns: int) -> bool:
        return self.began_ns <= moment_ns < self.end_ns


def _figures(took_ns: list[int], seconds: float) -> dict[str, float]:
    took_ns.sort()
    count = len(took_ns)
    return {
        "per_s": count / seconds,
        "p50_ms": took_ns[count // 2] / 1e6 if count else 0.0,
        "p99_ms": took_ns[count * 99 // 100] / 1e6 if count else 0.0,
    }


async def _keep(kvs: list[Kv], seconds: float) -> dict[str, float]:
    now_ns = RealClock.mono_ns
    (kv,) = kvs
    ids = [granted.id for granted in await asyncio.gather(*(kv.grant(TTL_S) for _ in range(CALLERS)))]
    span, took_ns = _Span(seconds), list[int]()

    async def caller(id: int) -> None:
        while span.goes_on:
            asked_ns = now_ns()
            if not await kv.keep_alive(id):
                raise LeaseLost(f"lease {id} has ended while it was kept alive")
            answered_ns = now_ns()
            if span.has(answered_ns):
                took_ns.append(answered_ns - asked_ns)

    await asyncio.gather(*map(caller, ids))
    return _figures(took_ns, seconds)


async def _beat(kvs: list[Kv], seconds: float) -> dict[str, float]:
    (kv,) = kvs
    ids = [granted.id for granted in await asyncio.gather(*(kv.grant(TTL_S) for _ in range(LEASES)))]
    span, kept = _Span(seconds), 0

    async def beat() -> None:
        nonlocal kept
        while span.goes_on:
            ttls = await kv.keep_alive_all(ids)
            if not all(ttls):
                raise LeaseLost("a lease has ended while it was kept alive")
            if span.has(RealClock.mono_ns()):
                kept += len(ids)

    await asyncio.gather(*(beat() for _ in range(REQUESTS)))
    return {"per_s": kept / seconds}


async def _lock(kvs: list[Kv], seconds: float) -> dict[str, float]:
    now_ns = RealClock.mono_ns
    took_ns: list[int] = []
    given_up: tuple[int, Kv] | None = None
    leases = [await kv.lease(TTL_S) for kv in kvs]
    span = _Span(seconds)

    async def contender(number: int) -> None:
        nonlocal given_up
        kv, lease = kvs[number], leases[number]
        while span.goes_on:
            held = await kv.lock("bench", lease=lease, timeout=TIMEOUT_S).acquire()
            got_ns = now_ns()
            if given_up is not None and given_up[1] is not kv and span.has(got_ns):
                took_ns.append(got_ns - given_up[0])
            given_up = (now_ns(), kv)
            await held.release()

    await asyncio.gather(*map(contender, range(len(kvs))))
    return _figures(took_ns, seconds)


WORK: Final[dict[str, tuple[int, Callable[[list[Kv], float], Awaitable[dict[str, float]]]]]] = {
    "keep_100": (1, _keep),
    "beat": (1, _beat),
    "lock": (CONTENDERS, _lock),
}
"""By name: the connections that it wants, and what does it."""
