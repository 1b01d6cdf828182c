"""xoscar: an actor of the main process of a pool, and one in a sub-process; the work of aspen/bench/links.py.

`python peers/xoscar_links.py BENCHMARK COUNT`. Calls are awaited; casts use `tell`, and a call at their end knows that
all have come.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

import xoscar

CALLERS = 100


class Echo(xoscar.Actor):
    def __init__(self) -> None:
        self.count = 0

    def echo(self, number: int, data: bytes) -> tuple[int, bytes]:
        return number, data

    def put(self, data: bytes) -> None:
        self.count += 1

    def counted(self) -> int:
        return self.count


class Caller(xoscar.Actor):
    async def calls(self, echo: Any, count: int) -> None:
        data = b"." * 20
        for n in range(count):
            await echo.echo(n, data)

    async def casts(self, echo: Any, size: int, count: int) -> int:
        data = b"s" * size
        for _ in range(count):
            await echo.put.tell(data)
        while (counted := await echo.counted()) < count:  # noqa: ASYNC110 -- nobody says when the last one came
            await asyncio.sleep(0)
        return counted


async def measure(name: str, count: int) -> float:
    pool = await xoscar.create_actor_pool("127.0.0.1", n_process=1)
    async with pool:
        here, there = pool.external_address, next(iter(pool.sub_processes))
        echo = await xoscar.create_actor(Echo, address=there)
        callers = [await xoscar.create_actor(Caller, address=here) for _ in range(CALLERS if "100_" in name else 1)]
        await callers[0].calls(echo, 10)
        started = time.perf_counter()
        if name.startswith("calls"):
            await asyncio.gather(*[caller.calls(echo, count // len(callers)) for caller in callers])
        else:
            await callers[0].casts(echo, 100 if "100b" in name else 1024 * 1024, count)
        return count / (time.perf_counter() - started)


if __name__ == "__main__":
    print(asyncio.run(measure(sys.argv[1], int(sys.argv[2]))), flush=True)
