"""`aspen bench links`: two nodes on loopback, in OS processes started here, encrypted. The best of a few rounds.

The figures are what a program has: actors of one node that call and cast to an actor of the other, through membership,
references, the wire format and the links. Those that begin with `link_` are of the link protocol alone, with bytes
instead of messages, to tell how much of it is whose.

`benchmarks/links.py` has the same work done by Erlang's distribution, by xoscar, and by bare pyzmq.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Final

from aspen.bench import far, raw_links
from aspen.errors import NotReachable, UsageError
from aspen.io import new_event_loop
from aspen.io.process import suit_nodes

ROUNDS_DEFAULT: Final = 3
START_TIMEOUT_S: Final = 30.0

_FAR: Final[dict[str, Callable[[far.FarNode], Awaitable[float]]]] = {
    "calls_1_per_s": lambda caller: caller.calls(1, 5_000),
    "calls_100_per_s": lambda caller: caller.calls(100, 40_000),
    "casts_100b_per_s": lambda caller: caller.casts(100, 300_000, 2_048),
    "mib_per_s_1mib": lambda caller: caller.casts(1024 * 1024, 600, 2),
}
_RAW: Final[dict[str, Callable[[raw_links.Caller], Awaitable[float]]]] = {
    "link_calls_1_per_s": lambda caller: caller.calls(1, 5_000),
    "link_calls_100_per_s": lambda caller: caller.calls(100, 40_000),
    "link_casts_100b_per_s": lambda caller: caller.casts(100, 600_000),
    "link_mib_per_s_1mib": lambda caller: caller.casts(1024 * 1024, 1_000),
}
KEYS: Final = (*_FAR, *_RAW)


def measure(only: str | None = None, rounds: int = ROUNDS_DEFAULT) -> dict[str, float]:
    """Runs the benchmarks, or the one named `only`; one flat object of figures.

    Keys: `calls_1_per_s` (one caller), `calls_100_per_s` (a hundred), `casts_100b_per_s` (of 100 bytes),
    `mib_per_s_1mib` (in messages of 1 MiB); and the same with `link_` in front, without actors.

    Raises:
        UsageError: there is no benchmark of that name; says which there are.
        NotReachable: the other process did not start.
    """
    if only is not None and only not in KEYS:
        raise UsageError(f"no benchmark {only!r}; there are: {', '.join(KEYS)}")
    suit_nodes()
    results = {}
    for key in [only] if only else KEYS:
        # An event loop for each: a node is one loop's.
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            results[key] = round(runner.run(_measure(key, rounds)), 1)
    return results


async def _measure(key: str, rounds: int) -> float:
    async with _other("far" if key in _FAR else "raw") as address:
        if key in _FAR:
            node = await far.caller_node(address)
            try:
                return max([await _FAR[key](node) for _ in range(rounds)])
            finally:
                await node.close()
        caller = raw_links.Caller(address)
        try:
            await caller.warm_up()
            return max([await _RAW[key](caller) for _ in range(rounds)])
        finally:
            caller.links.close()


@asynccontextmanager
async def _other(kind: str) -> AsyncIterator[str]:
    """The other process; the address of its links."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "aspen.bench.links", kind, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    try:
        if process.stdout is None:
            raise NotReachable("the other process has no output")
        async with asyncio.timeout(START_TIMEOUT_S):
            address = (await process.stdout.readline()).decode().strip()
        if not address:
            raise NotReachable("the other process did not start; what it wrote is above")
        yield address
    finally:
        process.kill()
        await process.wait()


async def _serve(kind: str) -> None:
    """The other process: lives until its input ends."""
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, ended.set)
    if kind == "raw":
        echo = raw_links.Echo()
        address, close = echo.peers.address, echo.links.close
    else:
        node = await far.echo_node()
        address, close = node.address, node.drop
    sys.stdout.write(address + "\n")
    sys.stdout.flush()
    await ended.wait()
    close()


if __name__ == "__main__":
    suit_nodes()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(_serve(sys.argv[1]))
