"""`aspen bench actors`: the kernel's speed on one event loop, full semantics on, strict messages off.

Each figure is the best of a few rounds, each on a new node: the machine is noisy and noise only slows down.
`benchmarks/` has the same work done by Erlang, Thespian, Pykka, xoscar and plain asyncio.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aspen.actor import System
from aspen.errors import UsageError
from aspen.io import new_event_loop, real_ports
from aspen.io.process import resident_bytes, spare_collections
from aspen.otp import Actor, Ref, Supervisor, call, cast, child, exit_reason, spawn, start, stop

ROUNDS_DEFAULT: Final = 3


def measure(only: str | None = None, rounds: int = ROUNDS_DEFAULT) -> dict[str, float]:
    """Runs the benchmarks, or the one named `only`; one flat object of figures.

    Keys: `pingpong_per_s` (messages), `calls_per_s` (awaited, actor to actor), `fan_in_per_s` (casts of 100 senders),
    `ring_per_s` (hops round 1,000 actors), `spawn_per_s` (started and stopped), `bytes_per_actor` (idle),
    `skynet_s` (a million leaves), `restarts_per_s` (crash and restart under a supervisor).

    Raises:
        UsageError: there is no benchmark of that name; says which there are.
    """
    if only is not None and only not in BENCHMARKS:
        raise UsageError(f"no benchmark {only!r}; there are: {', '.join(BENCHMARKS)}")
    results: dict[str, float] = {}
    for name, (fn, lower_is_better) in BENCHMARKS.items():
        if only in (None, name):
            figures = [_on_new_node(fn) for _ in range(1 if name == "bytes_per_actor" else rounds)]
            results[name] = round(min(figures) if lower_is_better else max(figures), 3)
    return results


def _on_new_node(fn: Callable[[System], Awaitable[float]]) -> float:
    spare_collections()
    loop = new_event_loop()
    try:
        ports = real_ports(loop)
        system = System("bench", ports)

        async def run() -> float:
            gc.collect()
            return await fn(system)

        return loop.run_until_complete(run())
    finally:
        system.close()
        loop.close()


class Timer:
    """Seconds since it was made, on the node's clock."""

    def __init__(self, system: System) -> None:
        self._now = system.ports.clock.mono_ns
        self._start = self._now()

    def per_s(self, count: int) -> float:
        """`count` in the time since the start, a second."""
        return count / self.seconds()

    def seconds(self) -> float:
        """Since the start."""
        return (self._now() - self._start) / 1e9


# -- messages ---------------------------------------------------------------------------------------------


class Player(Actor):
    """Answers a ball with a ball until the count is down."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done
        self._ref = self.ctx.ref

    @cast
    def ball(self, left: int, other: Ref[Any]) -> None:
        """Plays it back."""
        if left:
            other.ball(left - 1, self._ref)
        else:
            self._done.set_result(None)


async def pingpong(system: System) -> float:
    """Two actors exchange a counter; messages a second."""
    count = 600_000
    done = asyncio.get_running_loop().create_future()
    ping, pong = await start(Player, done), await start(Player, done)
    timer = Timer(system)
    ping.ball(count, pong)
    await done
    return timer.per_s(count)


class Counter(Actor):
    """Counts."""

    def __init__(self) -> None:
        self._n = 0

    @call
    def add(self, by: int) -> int:
        """Adds and answers."""
        self._n += by
        return self._n


class Caller(Actor):
    """Calls another actor again and again."""

    @call(timeout=None)
    async def run(self, counter: Ref[Counter], count: int) -> int:
        """Makes `count` calls, one after the other."""
        result = 0
        for _ in range(count):
            result = await counter.add(1)
        return result


async def calls(system: System) -> float:
    """An actor awaits calls to another, one after the other; requests a second."""
    count = 200_000
    counter, caller = await start(Counter), await start(Caller)
    timer = Timer(system)
    if await caller.run(counter, count) != count:
        raise UsageError("the counter lost a call")
    return timer.per_s(count)


class Sender(Actor):
    """Casts to one receiver, as many as it is told to."""

    def __init__(self, to: Ref[Collector], each: int) -> None:
        self._to = to
        self._each = each

    @cast
    def go(self) -> None:
        """Casts."""
        put = self._to.put
        for _ in range(self._each):
            put(1)


class Collector(Actor):
    """Has its senders send in rounds, so that a round fits its mailbox."""

    def __init__(self, senders: int, each: int, rounds: int, done: asyncio.Future[None]) -> None:
        self._each_round = senders * each
        self._left = self._each_round
        self._rounds = rounds
        self._done = done
        self._senders: list[Ref[Sender]] = []

    @cast
    def begin(self, senders: list[Ref[Sender]]) -> None:
        """Starts the first round."""
        self._senders = senders
        for sender in senders:
            sender.go()

    @cast
    def put(self, by: int) -> None:
        """Counts; after a round's last message starts the next."""
        self._left -= by
        if not self._left:
            self._rounds -= 1
            self._left = self._each_round
            if self._rounds:
                for sender in self._senders:
                    sender.go()
            else:
                self._done.set_result(None)


async def fan_in(system: System) -> float:
    """100 actors cast to one; messages a second until the last is handled."""
    senders, each, rounds = 100, 600, 10
    done = asyncio.get_running_loop().create_future()
    collector = await start(Collector, senders, each, rounds, done)
    sending = [await start(Sender, collector, each) for _ in range(senders)]
    timer = Timer(system)
    collector.begin(sending)
    await done
    return timer.per_s(senders * each * rounds)


class Link(Actor):
    """Passes a token to its neighbour."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    @cast
    def join(self, neighbour: Ref[Any]) -> None:
        """Takes its neighbour."""
        self._next = neighbour

    @cast
    def token(self, left: int) -> None:
        """Passes it on, or ends."""
        if left:
            self._next.token(left - 1)
        else:
            self._done.set_result(None)


async def ring(system: System) -> float:
    """A token goes round 1,000 actors; hops a second."""
    size, hops = 1_000, 500_000
    done = asyncio.get_running_loop().create_future()
    links = [await start(Link, done) for _ in range(size)]
    for one, other in zip(links, links[1:] + links[:1], strict=True):
        one.join(other)
    timer = Timer(system)
    links[0].token(hops)
    await done
    return timer.per_s(hops)


# -- lives ------------------------------------------------------------------------------------------------


class Spawner(Actor):
    """Starts and stops actors."""

    @call(timeout=None)
    async def run(self, count: int) -> None:
        """One after the other, each ready before it is stopped, and gone before the next."""
        for _ in range(count):
            await stop(await start(Counter))


async def spawning(system: System) -> float:
    """Actors started and stopped one after the other; a second."""
    count = 100_000
    spawner = await start(Spawner)
    timer = Timer(system)
    await spawner.run(count)
    return timer.per_s(count)


async def bytes_per_actor(system: System) -> float:
    """Resident memory of an idle actor, its ref included; bytes."""
    count = 100_000
    # As many again go first, into the holes that earlier work has left in the heap.
    refs: list[object] = [None] * (2 * count)
    for index in range(count):
        refs[index] = await start(Counter)
    gc.collect()
    before = resident_bytes()
    for index in range(count, 2 * count):
        refs[index] = await start(Counter)
    return (resident_bytes() - before) / count


class Skynet(Actor):
    """A node of a tree of actors, ten below each, that adds up its leaves' numbers."""

    def __init__(self, parent: Any, number: int, size: int) -> None:
        self._parent = parent
        self._sum = 0
        self._left = 10
        if size == 1:
            parent.total(number)
            self.ctx.stop()
        ref, size = self.ctx.ref, size // 10
        for index in range(10):
            spawn(Skynet, ref, number + index * size, size)

    @cast
    def total(self, number: int) -> None:
        """Takes a child's sum; the tenth completes it."""
        self._sum += number
        self._left -= 1
        if not self._left:
            self._parent.total(self._sum)
            self.ctx.stop()


class SkynetRoot(Actor):
    """Starts the tree and keeps its sum."""

    def __init__(self, done: asyncio.Future[int], size: int) -> None:
        self._done = done
        spawn(Skynet, self.ctx.ref, 0, size)

    @cast
    def total(self, number: int) -> None:
        """The whole sum."""
        self._done.set_result(number)


async def skynet(system: System) -> float:
    """A tree of actors with a million leaves whose numbers are added up; seconds."""
    size = 1_000_000
    done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    timer = Timer(system)
    await start(SkynetRoot, done, size)
    if await done != size * (size - 1) // 2:
        raise UsageError("skynet lost a leaf")
    return timer.seconds()


class Crasher(Actor):
    """Crashes on demand."""

    @cast
    def crash(self) -> None:
        """Raises."""
        raise RuntimeError("crash")


class CrasherSupervisor(Supervisor):
    """Restarts a crasher, whatever happens."""

    intensity = (1_000_000, 1.0)

    def children(self) -> Any:
        """One crasher."""
        yield child(Crasher).opts(name="crasher")


async def restarts(system: System) -> float:
    """A child crashes and is restarted, one after the other, crash report included; a second."""
    count = 5_000
    supervisor = await start(CrasherSupervisor)
    timer = Timer(system)
    for _ in range(count):
        (info,) = await supervisor.which_children()
        gone = exit_reason(info.ref)
        info.ref.crash()
        await gone
    (info,) = await supervisor.which_children()
    if info.restarts != count:
        raise UsageError(f"{info.restarts} restarts of {count}")
    return timer.per_s(count)


BENCHMARKS: Final[dict[str, tuple[Callable[[System], Awaitable[float]], bool]]] = {
    "pingpong_per_s": (pingpong, False),
    "calls_per_s": (calls, False),
    "fan_in_per_s": (fan_in, False),
    "ring_per_s": (ring, False),
    "spawn_per_s": (spawning, False),
    "bytes_per_actor": (bytes_per_actor, True),
    "skynet_s": (skynet, True),
    "restarts_per_s": (restarts, False),
}
