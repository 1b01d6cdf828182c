"""The stall watchdog: a thread that names the handler which holds the loop, with its stack."""

from __future__ import annotations

import ctypes
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Protocol

from aspen import limits


class Watched(Protocol):
    """What the watchdog reads of a scheduler, from its own thread."""

    @property
    def turn(self) -> int:
        """Counts the scheduler's turns."""
        ...

    @property
    def current(self) -> object:
        """The process that runs, or None."""
        ...


@dataclass(frozen=True, slots=True)
class Stall:
    """A handler that has held the loop for a while."""

    actor: object
    """The process that runs, or None when it is an asyncio callback."""
    handler: str
    held_ms: int
    stack: str


class Watchdog:
    """Samples the loop's thread, and reports a frame that stays in place for `STALL_MS`, once.

    `on_stall` is called in the watchdog's thread. It may return an exception class, which is then raised
    in the loop's thread: that is how a shell evaluation that blocks is interrupted.
    """

    def __init__(
        self,
        scheduler: Watched,
        on_stall: Callable[[Stall], type[BaseException] | None],
        beat: Callable[[], int],
        thread_id: int | None = None,
    ) -> None:
        self._scheduler = scheduler
        self._on_stall = on_stall
        self._beat = beat
        self._thread_id = threading.get_ident() if thread_id is None else thread_id
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="aspen-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stops watching."""
        self._stop.set()
        self._thread.join(1)

    def _run(self) -> None:
        key: tuple[int, FrameType, int] | None = None
        since = time.monotonic_ns()
        reported_ms = 0
        while not self._stop.wait(limits.STALL_SAMPLE_MS / 1000):
            frame = sys._current_frames().get(self._thread_id)
            handler = _handler_frame(frame)
            now = time.monotonic_ns()
            seen = (self._scheduler.turn, handler, self._beat()) if handler is not None else None
            if seen is None or seen != key:
                key, since, reported_ms = seen, now, 0
                continue
            held_ms = (now - since) // 1_000_000
            due_ms = limits.STALL_MS if reported_ms == 0 else max(limits.SHELL_BLOCK_MS, reported_ms * 2)
            if held_ms >= due_ms and frame is not None and handler is not None:
                reported_ms = held_ms
                error = self._on_stall(
                    Stall(
                        self._scheduler.current,
                        handler.f_code.co_qualname,
                        held_ms,
                        "".join(traceback.format_stack(frame, limit=_frames_to(handler, frame))),
                    )
                )
                if error is not None and self._scheduler.turn == key[0]:
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread_id), ctypes.py_object(error))
            del frame, handler


def _frames_to(handler: FrameType, frame: FrameType) -> int:
    """How many frames the stack shows: from the handler to the innermost, and of a deep one the innermost."""
    count = 1
    while frame is not handler and frame.f_back is not None and count < _FRAMES_MAX:
        frame = frame.f_back
        count += 1
    return count


def _handler_frame(frame: FrameType | None) -> FrameType | None:
    """The outermost frame that is neither the kernel's nor asyncio's: the handler. None when the loop idles."""
    found: FrameType | None = None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name in _ENDS or name.startswith("asyncio."):
            if found is not None or name in _IDLE:
                return found
        elif not name.startswith(("aspen.actor.", "selectors", "contextlib", "contextvars")):
            found = frame
        frame = frame.f_back
    return found if found is not None and found.f_back is not None else None


_FRAMES_MAX = 20
_ENDS = frozenset({"aspen.actor.scheduler", "asyncio.events", "asyncio.base_events", "asyncio.runners"})
_IDLE = frozenset({"selectors"})
