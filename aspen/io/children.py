"""OS processes of our own: their start, their beats, their output, their end."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from aspen.errors import ConfigError
from aspen.limits import HEART_BEAT_S

BEAT_VARIABLE: Final = "ASPEN_HEART_FD"
"""Names the descriptor on which a node beats for the process that started it."""
_BEAT: Final = b"."
_FAREWELL: Final = b"!"
LINE_BYTES_MAX: Final = 64 * 1024
"""Of a child's output; a longer line comes in pieces."""

OnLine = Callable[[str], object]


class ChildProcess:
    """One process. Its callbacks run on the loop; none comes after `on_exit`."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        environ: Mapping[str, str],
        on_beat: Callable[[], object],
        on_farewell: Callable[[], object],
        on_exit: Callable[[int], object],
        on_line: OnLine | None = None,
    ) -> None:
        """`on_line` gets what it prints, on standard output and standard error; without, it prints where we do, and
        reads what we would."""
        self._command, self._environ = command, environ
        self._on_beat, self._on_farewell = on_beat, on_farewell
        self._on_exit, self._on_line = on_exit, on_line
        self._process: asyncio.subprocess.Process | None = None
        self._waiting: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Starts it; returns its number. Raises OSError when it cannot be started."""
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        piped = asyncio.subprocess.PIPE if self._on_line is not None else None
        options: dict[str, Any] = {"stdout": piped, "stderr": asyncio.subprocess.STDOUT if piped else None}
        if piped is not None:
            options["stdin"] = asyncio.subprocess.DEVNULL
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env={**self._environ, BEAT_VARIABLE: str(theirs)},
                pass_fds=(theirs,),
                # A Ctrl-C on the terminal goes to all in its group: the parent decides who stops when.
                process_group=0 if piped is not None else None,
                limit=LINE_BYTES_MAX,
                **options,
            )
        except BaseException:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        self._waiting = asyncio.create_task(self._follow(self._process, ours))
        return self._process.pid

    async def _follow(self, process: asyncio.subprocess.Process, beats: int) -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(beats, self._read_beats, beats)
        try:
            if process.stdout is not None and self._on_line is not None:
                await self._read_lines(process.stdout, self._on_line)
            code = await process.wait()
        finally:
            loop.remove_reader(beats)
            self._read_beats(beats)
            os.close(beats)
        self._on_exit(code)

    def _read_beats(self, beats: int) -> None:
        with suppress(BlockingIOError):
            data = os.read(beats, 4096)
            if _FAREWELL in data:
                self._on_farewell()
            if data:
                self._on_beat()
                return
            asyncio.get_running_loop().remove_reader(beats)  # the other end is closed

    @staticmethod
    async def _read_lines(stream: asyncio.StreamReader, on_line: OnLine) -> None:
        while True:
            try:
                line = await stream.readuntil(b"\n")
            except asyncio.IncompleteReadError as end:
                if end.partial:
                    on_line(end.partial.decode(errors="replace"))
                return
            except asyncio.LimitOverrunError:
                line = await stream.read(LINE_BYTES_MAX)
            on_line(line.decode(errors="replace").rstrip("\n"))

    def terminate(self) -> None:
        """Asks it to stop. Harmless when it has ended."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kills it, stopped or not. Harmless when it has ended."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.send_signal(number)


def kill_process(process_id: int) -> None:
    """Kills a process, as a failing machine would. Harmless when it has ended."""
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGKILL)


def terminate_process(process_id: int) -> None:
    """Asks a process to stop. Harmless when it has ended."""
    with suppress(ProcessLookupError):
        os.kill(process_id, signal.SIGTERM)


class Detached:
    """A process that outlives us: in a session of its own, without a terminal, its output at the end of a file."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self._process, self.log = process, log
        self.process_id = process.pid

    @classmethod
    def start(cls, command: Sequence[str], environ: Mapping[str, str], log: Path) -> Detached:
        """Starts it.

        Raises:
            ConfigError: the file cannot be written, or the process not be started.
        """
        try:
            log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                process = subprocess.Popen(  # noqa: S603 -- our own command line
                    command,
                    env=dict(environ),
                    stdin=subprocess.DEVNULL,
                    stdout=descriptor,
                    stderr=descriptor,
                    start_new_session=True,
                )
            finally:
                os.close(descriptor)
        except OSError as error:
            raise ConfigError(f"{error.filename or command[0]} cannot be used: {error.strerror}") from None
        return cls(process, log)

    @property
    def exit_code(self) -> int | None:
        """Its exit code, once it has ended."""
        return self._process.poll()

    def last_words(self) -> str:
        """The last line of its output."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - LINE_BYTES_MAX))
            lines = file.read(LINE_BYTES_MAX).decode(errors="replace").splitlines()
        return lines[-1] if lines else "it said nothing"

    def leave(self) -> None:
        """Lets it go: it is the system's child from our end on."""
        if self._process.poll() is None:
            self._process.returncode = 0  # or Popen complains that it still runs


class Beats:
    """The other side: what a node has of the process that watches over it, if there is one."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        text = environ.get(BEAT_VARIABLE, "")
        self._descriptor = int(text) if text.isdigit() else -1
        if self._descriptor >= 0:
            os.set_blocking(self._descriptor, False)
            os.set_inheritable(self._descriptor, False)
        self._timer: asyncio.TimerHandle | None = None

    @property
    def watched(self) -> bool:
        """Whether somebody listens."""
        return self._descriptor >= 0

    def keep_on(self, loop: asyncio.AbstractEventLoop, on_unheard: Callable[[], object]) -> None:
        """Beats from `loop` from now on, so that a loop that is held falls silent. Calls `on_unheard` when nobody
        listens any more: the parent has died."""
        if not self.watched:
            return
        if self._write(_BEAT):
            self._timer = loop.call_later(HEART_BEAT_S, self.keep_on, loop, on_unheard)
        else:
            on_unheard()

    def close(self) -> None:
        """Beats no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()

    def farewell(self) -> None:
        """Says that this process ends in order, whatever its exit code: it is not to be started anew."""
        if self.watched:
            self._write(_FAREWELL)

    def _write(self, data: bytes) -> bool:
        try:
            os.write(self._descriptor, data)
        except BlockingIOError:
            return True  # The reader is slow: it sees the earlier ones.
        except OSError:
            self._descriptor = -1
            return False
        return True
