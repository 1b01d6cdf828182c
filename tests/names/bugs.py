"""Bugs planted in names, for the campaign to find. Each undoes one thing that a promise stands on."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from aspen.actor import System
from aspen.actor.scheduler import Scheduler
from aspen.kv.inside import kv_of
from aspen.kv.recipes.held import Held
from aspen.kv.recipes.keys import span_of
from aspen.kv.txn import create_revision, delete
from aspen.names.holding import Hold, Names
from aspen.names.naming import holder_of
from tests.kv.planting import planted_of

Plant = Callable[[Any, str, Any], None]


def no_dispatch_check(plant: Plant) -> None:
    """Nobody asks the holder's clock: it goes on."""
    plant(Hold, "lapsed", lambda self: None)


def not_asked_after_an_await(plant: Plant) -> None:
    """A handler that has begun goes on, whatever has happened to the name meanwhile."""
    lapsed = Scheduler._lapsed
    plant(Scheduler, "_lapsed", lambda self, process: process.task is None and lapsed(self, process))


def no_fence(plant: Plant) -> None:
    """What a holder writes has no condition."""
    plant(Hold, "kv", lambda self: kv_of(self.process.system))


def no_epoch(plant: Plant) -> None:
    """A message is handled by whoever has the name, whichever token it was for."""

    def holder_here(self: Any, name: str, token: int) -> Any:
        hold = self.held.get(name)
        return None if hold is None else hold.process

    plant(Names, "holder_here", holder_here)


def released_before_the_end(plant: Plant) -> None:
    """The name is given up when the holder is asked to end, and not when it has ended."""
    end = System.end

    def end_and_release(self: Any, process: Any, reason: object, *, terminate: bool) -> None:
        guard = process.extra.guard if process.extra is not None else None
        if isinstance(guard, Hold) and guard.held is not None:
            guard.ended()
        end(self, process, reason, terminate=terminate)

    plant(System, "end", end_and_release)


def the_living_are_buried(plant: Plant) -> None:
    """What a node takes for an earlier boot of itself may be any node."""

    async def bury(self: Any, kv: Any, space: bytes) -> None:
        for entry in (await kv.range(*span_of(space))).kvs:
            if holder_of(entry).pid.boot < self.system.boot:
                there = create_revision(entry.key) == entry.create_revision
                await kv.txn().when(there).then(delete(entry.key)).commit()

    plant(Names, "_bury", bury)


BUGS: dict[str, Callable[[Plant], None]] = {
    bug.__name__: bug
    for bug in (
        no_dispatch_check,
        not_asked_after_an_await,
        no_fence,
        no_epoch,
        released_before_the_end,
        the_living_are_buried,
    )
}


def heedless(plant: Plant) -> None:
    """No bug of names: holders that look at no clock, as one does that is suspended right after it has looked. They
    overlap, and what they do must not."""
    plant(Hold, "lapsed", lambda self: None)
    plant(Held, "verify", lambda self: None)


def planted(bug: str, heed: bool) -> AbstractContextManager[None]:
    """Has a bug planted, if one is named, among holders that pay heed or do not."""

    def both(plant: Plant) -> None:
        if not heed:
            heedless(plant)
        if bug:
            BUGS[bug](plant)

    return planted_of({"both": both}, "both")
