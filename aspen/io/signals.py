"""Signals that ask the process to end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from types import TracebackType
from typing import Final, Self

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

EXIT_IMPATIENT: Final = 130
"""The exit code when the user asked twice."""


class StopSignals:
    """Calls `on_stop(signal_name)` at the first Ctrl-C, SIGTERM or hang-up; the third ends the process at once.

    A signal that the process was started to ignore stays ignored: `nohup` outlives its terminal.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, on_stop: Callable[[str], object]) -> None:
        self._loop = loop
        self._on_stop = on_stop
        self._count = 0
        self._handled = [number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    def __enter__(self) -> Self:
        for number in self._handled:
            self._loop.add_signal_handler(number, self._received, number)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for number in self._handled:
            self._loop.remove_signal_handler(number)

    def _received(self, number: signal.Signals) -> None:
        self._count += 1
        if self._count == 1:
            self._on_stop(number.name)
        elif self._count > 2:
            os._exit(EXIT_IMPATIENT)
