"""An application with actors in every bad way that an operator meets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aspen import Actor, Application, Child, Supervisor, call, cast, child, offload
from aspen.errors import UsageError


class Counter(Actor):
    """Counts what it is given."""

    def __init__(self) -> None:
        self._n = 0
        self._secret = "hunter2"

    @call
    def add(self, by: int) -> int:
        """Adds and answers."""
        self._n += by
        return self._n

    @cast
    def crash(self) -> None:
        """Raises."""
        raise RuntimeError("asked to crash")

    def format_status(self) -> object:
        return {"n": self._n, "secret": "***"}


class Flooded(Actor):
    """Has far more mail than it can handle."""

    def __init__(self) -> None:
        self._handled = 0
        self._ref = self.ctx.ref
        for _ in range(20_000):
            self._ref.work()

    @cast
    def work(self) -> None:
        """Makes more work."""
        self._handled += 1
        self._ref.work()


class Stuck(Actor):
    """Awaits what never comes."""

    def __init__(self) -> None:
        self.ctx.ref.wait()

    @cast
    async def wait(self) -> None:
        """For ever."""
        await asyncio.Event().wait()


class Blocker(Actor):
    """Holds the event loop when asked to."""

    @cast
    def block(self, seconds: float) -> None:
        """Blocks."""
        time.sleep(seconds)


class Tree(Supervisor):
    """Everything side by side."""

    intensity = (100, 1.0)

    def children(self) -> Iterable[Child[Any]]:
        yield child(Counter).opts(name="counter")
        yield child(Flooded).opts(id="flooded")
        yield child(Stuck).opts(id="stuck", shutdown=0.2)
        yield child(Blocker).opts(name="blocker")


class Sick(Application):
    """For tests of the command line."""

    name = "sick"
    env: Mapping[str, Any] = {"size": 1}

    @classmethod
    def arguments(cls, argv: Sequence[str]) -> Mapping[str, Any]:
        if len(argv) > 1 or (argv and not argv[0].isdigit()):
            raise UsageError("sick takes one number")
        return {"size": int(argv[0])} if argv else {}

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Tree)


class Dies(Supervisor):
    """Ends by itself."""

    intensity = (0, 1.0)

    def children(self) -> Iterable[Child[Any]]:
        yield child(Dying)


class Dying(Actor):
    """Crashes soon after its start."""

    def __init__(self) -> None:
        self.ctx.ref.crash()

    @cast
    def crash(self) -> None:
        """Raises."""
        raise RuntimeError("dying")


class DyingApp(Application):
    """A permanent application that dies."""

    name = "dying"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Dies)


class NoStart(Actor):
    """Fails to start."""

    def __init__(self) -> None:
        raise OSError("the disk is full of eels")


class NoStartTree(Supervisor):
    """Has a child that fails to start."""

    def children(self) -> Iterable[Child[Any]]:
        yield child(NoStart)


class NoStartApp(Application):
    """Does not start."""

    name = "nostart"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(NoStartTree)


class Foreground(Application):
    """Ends with its foreground part."""

    name = "foreground"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Counters)

    async def main(self, env: Mapping[str, Any]) -> int:
        """Says so and ends."""
        print("in the foreground")
        return 7


class Counters(Supervisor):
    """One counter."""

    def children(self) -> Iterable[Child[Any]]:
        yield child(Counter)


class CalmApp(Application):
    """Does nothing, and has no foreground part."""

    name = "calm"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Counters)


class BadForeground(Foreground):
    """Its foreground part raises."""

    name = "badforeground"

    async def main(self, env: Mapping[str, Any]) -> int:
        """Raises."""
        raise ValueError("no foreground today")


class Sleeper(Actor):
    """Blocks a thread for longer than anyone would wait."""

    async def init(self) -> None:
        """Begins at once."""
        self._sleeping = asyncio.ensure_future(offload(time.sleep, 3_600.0))


class LeavesThread(Foreground):
    """Leaves a thread behind that blocks."""

    name = "leavesthread"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Sleepers)


class Sleepers(Supervisor):
    """One that sleeps."""

    def children(self) -> Iterable[Child[Any]]:
        yield child(Sleeper)


class LeavesTask(Foreground):
    """Leaves an asyncio task behind that does not take its cancelling."""

    name = "leavestask"

    async def main(self, env: Mapping[str, Any]) -> int:
        """Begins the task and ends."""
        self._stubborn = asyncio.ensure_future(_stubborn())
        await asyncio.sleep(0)
        return 7


async def _stubborn() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3_600.0)


class HoldsLoop(Actor):
    """Never lets go of the loop."""

    def __init__(self) -> None:
        time.sleep(3_600.0)


class Holders(Supervisor):
    """One that holds the loop."""

    def children(self) -> Iterable[Child[Any]]:
        yield child(HoldsLoop)


class HoldsLoopApp(Application):
    """Holds the loop as it starts."""

    name = "holdsloop"

    def start(self, env: Mapping[str, Any]) -> Child[Any]:
        return child(Holders)
