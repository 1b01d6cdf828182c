"""`World`: one seed, one virtual clock, one loop, and the ports of any number of nodes in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

from aspen.sim.clock import VirtualRandom
from aspen.sim.engine import STEPS_MAX, Engine
from aspen.sim.loop import LoopPort, VirtualLoop
from aspen.sim.offload import VirtualOffload
from aspen.traits import Ports, Transport

R = TypeVar("R")


class World:
    """The virtual world of one run. Use it in a `with` block.

    with World(seed=7) as world:
        system = System("a", world.ports("a"), choose=world.choose, strict_messages=True)
        world.run(main())
    """

    def __init__(self, seed: int = 0, *, steps_max: int = STEPS_MAX) -> None:
        self.seed = seed
        self.engine = Engine(seed, steps_max=steps_max)
        self.clock = self.engine.clock
        self.loop = VirtualLoop(self.engine, "world")  # type: ignore[abstract]  # the rest raises EscapedSimulation
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
