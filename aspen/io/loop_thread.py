"""`LoopThread`: an event loop in a thread of its own, for code that has none."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

from aspen.errors import NotReachable, UsageError
from aspen.io.loop import new_event_loop

R = TypeVar("R")

_JOIN_S: Final = 5.0
_TIDY_S: Final = 2.0


class LoopThread:
    """Runs coroutines for other threads. Close it in the end."""

    def __init__(self, name: str) -> None:
        self._loop = new_event_loop()
        # A daemon: a program that forgets to close it ends all the same.
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()
        self.closed = False

    def run(self, work: Coroutine[Any, Any, R]) -> R:
        """Runs a coroutine on the loop and returns its result. An interrupt of the caller cancels it.

        Raises:
            UsageError: it is closed, or the caller is the loop itself.
            NotReachable: it was closed meanwhile.
        """
        if self.closed or threading.current_thread() is self._thread:
            work.close()
            raise UsageError("this client is closed, or it is used on its own event loop; make another")
        future: concurrent.futures.Future[R] = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except concurrent.futures.CancelledError:
            if self.closed:
                raise NotReachable("this client was closed while something of it was waited for") from None
            raise
        except BaseException:
            future.cancel()
            raise

    def close(self) -> None:
        """Ends the thread, and whatever runs there: those who wait for it are told. Idempotent."""
        if not self.closed:
            self.closed = True
            asyncio.run_coroutine_threadsafe(self._end(), self._loop)
            self._thread.join(_JOIN_S)
            if not self._thread.is_alive():
                self._loop.close()

    async def _end(self) -> None:
        """Cancels what runs, and gives it a moment to tidy up."""
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            await asyncio.wait(others, timeout=_TIDY_S)
        self._loop.call_soon(self._loop.stop)
