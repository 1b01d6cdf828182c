"""`first_open`: several ways to the store, tried beside each other when one takes its time.

A node that has just been started again takes connections before it answers: who waited for it alone, with another at
hand that is well, would wait for its whole start.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, TypeVar

from aspen.errors import AspenError, InvariantBroken, is_refusal


class Closable(Protocol):
    """What a way opens to."""

    def close(self) -> None:
        """Ends it."""


W = TypeVar("W")
C = TypeVar("C", bound=Closable)


async def first_open(
    ways: Sequence[W],
    open_way: Callable[[W], Coroutine[Any, Any, C]],
    after_s: float,
    running: set[asyncio.Task[None]],
) -> C:
    """What the first way that opens leads to. The next one is tried when those before it have failed, or have not
    opened within `after_s`. Those that are not needed any more are given up, and end in their own time: see `running`.

    Raises:
        AccessDenied, UsageError: so one of them ended, and none opened.
        AspenError: what the first way raised; none opened.
    """
    waiting = deque(enumerate(ways))
    attempts: dict[asyncio.Task[C], int] = {}
    errors: dict[int, AspenError] = {}
    try:
        while waiting or attempts:
            if waiting:
                number, way = waiting.popleft()
                attempts[asyncio.ensure_future(open_way(way))] = number
            await asyncio.wait(attempts, timeout=after_s if waiting else None, return_when=asyncio.FIRST_COMPLETED)
            for task in [task for task in attempts if task.done()]:
                error = task.exception()
                if error is None:
                    del attempts[task]
                    return task.result()
                if not isinstance(error, AspenError):
                    raise error
                errors[attempts.pop(task)] = error
    finally:
        for task in attempts:
            _give_up(task, running)
    if not errors:
        raise InvariantBroken("there is no way to try")
    told = [error for _, error in sorted(errors.items())]
    raise next(filter(is_refusal, told), told[0])


def _give_up(task: asyncio.Task[C], running: set[asyncio.Task[None]]) -> None:
    """Cancels an attempt; what it opens all the same is closed."""

    async def end() -> None:
        await asyncio.wait({task})
        if not task.cancelled() and task.exception() is None:
            task.result().close()

    task.cancel()
    ending = asyncio.ensure_future(end())
    running.add(ending)
    ending.add_done_callback(running.discard)
