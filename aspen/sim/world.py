"""`World`: one seed, one virtual clock, one loop, and the ports of any number of nodes in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aspen.sim.clock import VirtualClock, VirtualRandom
from aspen.sim.loop import STEPS_MAX, LoopPort, VirtualLoop
from aspen.traits import Ports, Transport

R = TypeVar("R")

OFFLOAD_S_MAX: Final = 0.01
"""Virtual seconds that offloaded work takes at most, drawn from the seed."""


class VirtualOffload:
    """`aspen.traits.Offload`: the work runs in place, and its result comes after a while."""

    def __init__(self, loop: VirtualLoop, random: VirtualRandom) -> None:
        self._loop = loop
        self._rng = random.rng("sim.offload")

    def thread(self, fn: Callable[..., R], args: tuple[Any, ...]) -> Awaitable[R]:
        """Runs `fn(*args)` when its virtual time is over."""
        future: Awaitable[R] = self._loop.create_future()
        self._loop.call_later(self._rng.uniform(0.0, OFFLOAD_S_MAX), self._finish, future, fn, args)
        return future

    process = thread

    def close(self) -> None:
        """Nothing to do."""

    @staticmethod
    def _finish(future: Any, fn: Callable[..., R], args: tuple[Any, ...]) -> None:
        if future.done():
            return
        try:
            result = fn(*args)
        except Exception as error:
            future.set_exception(error)
        else:
            future.set_result(result)


class World:
    """The virtual world of one run. Use it in a `with` block.

    with World(seed=7) as world:
        system = System("a", world.ports("a"), choose=world.choose, strict_messages=True)
        world.run(main())
    """

    def __init__(self, seed: int = 0, *, steps_max: int = STEPS_MAX) -> None:
        self.seed = seed
        self.clock = VirtualClock()
        self.loop = VirtualLoop(self.clock, steps_max)  # type: ignore[abstract]  # the rest raises EscapedSimulation
        self._loop_port = LoopPort(self.loop)
        self._order = VirtualRandom(seed, "scheduler").rng("order")

    def ports(self, node: str, transport: Transport | None = None) -> Ports:
        """What the node of that name may touch; its streams of random numbers are its own."""
        random = VirtualRandom(self.seed, node)
        return Ports(self.clock, self._loop_port, random, VirtualOffload(self.loop, random), transport)

    def choose(self, queue: deque[Any]) -> None:
        """Brings one of the runnable actors to the front, by the seed: for `System(choose=...)`."""
        if len(queue) > 1:
            queue.rotate(-self._order.randrange(len(queue)))

    def run(self, main: Coroutine[Any, Any, R]) -> R:
        """Runs `main` to its end in virtual time, and returns its result."""
        result: R = self.loop.run_until_complete(main)
        return result

    def run_for(self, seconds: float) -> None:
        """Lets so many virtual seconds pass."""
        self.loop.run_for(seconds)

    def close(self) -> None:
        """Ends the world."""
        self.loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()
