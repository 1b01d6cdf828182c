"""`Pauses` between the tries of what needs the store and does not reach it: longer each time, and never in step."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aspen.limits import NAME_RETRY_MAX_S, NAME_RETRY_MIN_S


class Pauses:
    """See the module."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """`draw` gives random numbers in [0, 1)."""
        self._draw = draw
        self._next_s = NAME_RETRY_MIN_S

    def reset(self) -> None:
        """It was reached."""
        self._next_s = NAME_RETRY_MIN_S

    async def pause(self) -> None:
        """Returns when it is time for another try."""
        pause_s, self._next_s = self._next_s, min(2 * self._next_s, NAME_RETRY_MAX_S)
        await asyncio.sleep(pause_s * (0.5 + self._draw() / 2))
