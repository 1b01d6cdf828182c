"""Signals that ask the process to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EXIT_IMPATIENT: Final = 130
"""The exit code when the user asked for the third time."""


class StopSignals:
    """Calls `on_stop(signal_name)` at the first Ctrl-C, SIGTERM or hang-up; the third ends the process at once.

    Counted by Python's own handlers and not by the loop, so that the third is heard when an actor holds the loop. A
    signal that the process was started to ignore stays ignored: `nohup` outlives its terminal. Main thread only.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stop: Callable[[str], object]) -> None:
        self._loop = loop
        self._on_stop = on_stop
        self._count = 0
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._before.clear()

    def _received(self, number: int, frame: object) -> None:
        self._count += 1
        if self._count == 1:
            self._loop.call_soon_threadsafe(self._on_stop, signal.Signals(number).name)
        elif self._count > 2:
            os._exit(EXIT_IMPATIENT)
