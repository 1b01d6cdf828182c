"""A command that is run on somebody's behalf: it has our input and output, and a session of its own, so that what it
starts ends with it."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress

from aspen.errors import UsageError


class Command:
    """A command that runs: `start` it, `wait` for it, or `end` it with all that it has started."""

    def __init__(self, words: Sequence[str], environ: Mapping[str, str]) -> None:
        """`environ` is added to ours."""
        self._words, self._environ = words, environ
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Raises UsageError: there is no such command."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._words, env={**os.environ, **self._environ}, start_new_session=True
            )
        except OSError as error:
            raise UsageError(f"{self._words[0]!r} cannot be run: {error.strerror or error}") from None

    async def wait(self) -> int:
        """Its exit code; of one that a signal has ended 128 and its number, as shells have it."""
        if self._process is None:
            return 0
        code = await self._process.wait()
        return 128 - code if code < 0 else code

    def pass_on(self, name: str) -> None:
        """Passes a signal on, given by its name, to it and what it has started."""
        self._signal(signal.Signals[name])

    async def end(self, grace_s: float) -> None:
        """Ends it: asks it to, and when the time is over makes it."""
        if self._process is None:
            return
        self._signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                await self._process.wait()
        self._signal(signal.SIGKILL)  # Also what it has left behind.
        await self._process.wait()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)
