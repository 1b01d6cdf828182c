"""The scheduler's hold on a real asyncio event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

from aspen.io.clock import RealClock
from aspen.traits import Timer

_MS_NS: Final = 1_000_000


class RealLoop:
    """`aspen.traits.Loop` on an asyncio loop, uvloop's included."""

    __slots__ = ("_clock", "_loop")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: RealClock) -> None:
        self._loop = loop
        self._clock = clock

    @property
    def asyncio(self) -> asyncio.AbstractEventLoop:
        """The loop itself."""
        return self._loop

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Runs `callback` in the loop's next turn."""
        self._loop.call_soon(callback)

    def call_at(self, mono_ns: int, callback: Callable[[], object]) -> Timer:
        """Runs `callback` at `mono_ns`, or less than a millisecond later, never before.

        libuv counts whole milliseconds, from a clock without its fractions: given anything else it rings up to one
        too early, and who then asks for the rest of it is called again at once, until the time has come.
        """
        delay_ms = -(-mono_ns // _MS_NS) - self._clock.mono_ns() // _MS_NS
        return self._loop.call_later(max(0, delay_ms) / 1_000, callback)


def new_event_loop() -> asyncio.AbstractEventLoop:
    """A new event loop: uvloop's when it is installed, asyncio's otherwise."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
