"""Where the prints of an evaluation go: to its client, and nobody else's prints with them.

`sys.stdout` and `sys.stderr` are routers while evaluations run. A router looks at a context variable, which
an evaluation sets for itself and the asyncio tasks that it makes, and at the scheduler: while another actor has its
slot, what is written is that actor's. Everything else goes where it went before.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from aspen.actor import Process
from aspen.limits import CONTROL_CHUNK_CHARS_MAX, CONTROL_OUTPUT_BYTES_MAX
from aspen.shell.operations import Job
from aspen.shell.protocol import Event


class Output:
    """What one evaluation prints: sent in pieces as it comes, and bounded."""

    def __init__(self, job: Job, process: Process) -> None:
        self.process = process
        self.closed = False
        self._job = job
        self._text: list[str] = []
        self._chars = 0
        self._left_bytes = CONTROL_OUTPUT_BYTES_MAX
        self._dropped = 0
        self._flush_due = False

    def write(self, text: str) -> None:
        """Takes a piece of text; what is beyond the bound is counted and dropped."""
        size = len(text.encode("utf-8", "replace"))
        if size > self._left_bytes:
            kept = text[: self._left_bytes // 4]
            self._dropped += len(text) - len(kept)
            text, size = kept, self._left_bytes  # The bound is reached: nothing after the cut is shown.
        self._left_bytes -= size
        if not text:
            return
        self._text.append(text)
        self._chars += len(text)
        if self._chars >= CONTROL_CHUNK_CHARS_MAX:
            self.flush()
        elif not self._flush_due:
            self._flush_due = True
            self.process.sched.loop.call_soon(self._flush_soon)

    def _flush_soon(self) -> None:
        self._flush_due = False
        self.flush()

    def flush(self) -> None:
        """Sends what there is."""
        text = "".join(self._text).encode("utf-8", "replace").decode()
        self._text.clear()
        self._chars = 0
        for start in range(0, len(text), CONTROL_CHUNK_CHARS_MAX):
            piece = text[start : start + CONTROL_CHUNK_CHARS_MAX]
            if self.closed or not self._job.event("output", piece):
                self._dropped += len(piece)

    async def close(self) -> None:
        """Sends the rest, and how much was dropped. What is written later goes elsewhere."""
        self.flush()
        self.closed = True
        if self._dropped:
            await self._job.line.deliver(Event(self._job.request.id, "dropped", self._dropped))


_output: ContextVar[Output | None] = ContextVar("aspen_shell_output", default=None)
_users = 0


class Router(io.TextIOBase):
    """Stands in the place of `sys.stdout` or `sys.stderr`."""

    def __init__(self, stream: Any) -> None:
        super().__init__()
        self.stream = stream

    def _target(self) -> Any:
        output = _output.get()
        if output is None or output.closed:
            return self.stream
        current = output.process.sched.current
        return output if current is None or current is output.process else self.stream

    def write(self, text: str) -> int:
        """Writes to the client of the evaluation that runs, or to the stream."""
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        self._target().write(text)
        return len(text)

    def flush(self) -> None:
        """Flushes the stream; output to a client flows by itself."""
        target = self._target()
        if target is self.stream and target is not None:
            target.flush()

    def isatty(self) -> bool:
        """False for an evaluation."""
        target = self._target()
        return target is self.stream and bool(target.isatty())

    def writable(self) -> bool:
        """True."""
        return True

    def close(self) -> None:
        """Has no effect: the stream belongs to the node."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def routed(output: Output) -> Iterator[None]:
    """Sends what the current context prints to `output`."""
    global _users  # noqa: PLW0603 -- sys.stdout is global
    _users += 1
    if not isinstance(sys.stdout, Router):
        sys.stdout = Router(sys.stdout)
    if not isinstance(sys.stderr, Router):
        sys.stderr = Router(sys.stderr)
    token = _output.set(output)
    try:
        yield
    finally:
        _output.reset(token)
        _users -= 1
        if not _users:
            if isinstance(sys.stdout, Router):
                sys.stdout = sys.stdout.stream
            if isinstance(sys.stderr, Router):
                sys.stderr = sys.stderr.stream
