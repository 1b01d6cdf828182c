"""The interactive prompt of `aspen attach`: lines of Python in, what they print and bring out.

Ctrl-C interrupts the evaluation that runs, or clears the line; Ctrl-D detaches; a lost connection ends it with one
sentence. When the input is no terminal, its lines are run as a script, without colours, up to the first
that fails.

This is the client's side: it runs in the process of the person at the keyboard, and not on a node.
"""

from __future__ import annotations

import asyncio
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final, TextIO

from aspen.errors import AccessDenied, AspenError, NotReachable, RemoteFailure
from aspen.limits import CONTROL_REQUEST_BYTES_MAX
from aspen.shell.client import Asked, NodeClient
from aspen.shell.evaluate import is_incomplete

OK: Final = 0
FAILED: Final = 1
UNREACHABLE: Final = 3
DENIED: Final = 4

_INTERRUPTS_MAX: Final = 3
"""After so many Ctrl-C the prompt comes back, whatever the evaluation does."""
_LEAVING: Final = frozenset({"exit", "exit()", "quit", "quit()"})
_CONTINUES: Final = re.compile(r"(else|elif|except|finally)\b")


InterruptedBy = Callable[[Callable[[], object]], AbstractContextManager[None]]
"""Has Ctrl-C call a function while its context is open: `aspen.io.terminal.interrupted_by`."""


def _uninterrupted(handler: Callable[[], object]) -> AbstractContextManager[None]:
    return nullcontext()


async def attach(
    client: NodeClient,
    node_name: str,
    *,
    history_path: str | None = None,
    interrupted_by: InterruptedBy = _uninterrupted,
    stdin: TextIO | None = None,
    stdout: TextIO | None = None,
) -> int:
    """Runs the prompt until the person leaves; returns the exit code for the command.

    Needs the role `admin`. `history_path` names a file that can be written to; None keeps no history. Without
    `interrupted_by` Ctrl-C does what it does to any program, but at the prompt of a terminal.
    """
    shell = _Shell(client, node_name, stdin or sys.stdin, stdout or sys.stdout, interrupted_by)
    try:
        # Tells at once whether this key may evaluate code at all.
        await client.request("complete", text="", cursor=0)
        if shell.is_terminal:
            return await shell.interact(history_path)
        return await shell.run_script()
    except AccessDenied as error:
        return shell.end(error, DENIED)
    except NotReachable as error:
        return shell.end(error, UNREACHABLE)


class _Shell:
    def __init__(
        self, client: NodeClient, node_name: str, stdin: TextIO, stdout: TextIO, interrupted_by: InterruptedBy
    ) -> None:
        self._interrupted_by = interrupted_by
        self._client = client
        self._node_name = node_name
        self._stdin, self._stdout = stdin, stdout
        self.is_terminal = stdin.isatty() and stdout.isatty()
        self._running: Asked | None = None
        self._interrupts = 0
        self._gave_up = asyncio.Event()
        self._notices: list[str] = []
        self._at_line_start = True
        client.on_notice = self._notices.append

    def end(self, error: AspenError, code: int) -> int:
        """Says why it ends, in one sentence."""
        self._fresh_line()
        print(f"{self._node_name}: {error}", file=sys.stderr)  # noqa: T201 -- a prompt's business
        return code

    # -- one evaluation --------------------------------------------------------------------------------

    async def evaluate(self, code: str) -> str:
        """Runs `code` and shows what comes: `ok`, `failed` or `incomplete`. Raises when the connection is of no use."""
        self._interrupts = 0
        self._gave_up.clear()
        try:
            self._running = self._client.begin("eval", self._show_event, code=code)
            result = await self._wait(self._running)
        except RemoteFailure as failure:
            self._fresh_line()
            self._show_failure(failure)
            return "failed"
        except (AccessDenied, NotReachable):
            raise
        except AspenError as error:
            self._fresh_line()
            if self._client.lost is not None:
                raise
            self._write(f"{error}\n")
            return "failed"
        finally:
            self._running = None
            self._show_notices()
        if result is None:
            self._fresh_line()
            self._write("not interrupted yet; it goes on there until it notices\n")
            return "failed"
        if result["repr"]:
            self._fresh_line()
            self._write(f"{result['repr']}\n")
        self._fresh_line()
        return str(result["status"])

    async def _wait(self, asked: Asked) -> Any:
        """The result; None when the person would not wait any longer."""
        answer = asyncio.ensure_future(asked.wait())
        given_up = asyncio.ensure_future(self._gave_up.wait())
        try:
            await asyncio.wait({answer, given_up}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            given_up.cancel()
            if not answer.done():
                answer.cancel()
        return answer.result() if answer.done() else None

    def interrupt(self) -> None:
        """What Ctrl-C does while an evaluation runs."""
        if self._running is not None:
            self._interrupts += 1
            self._at_line_start = not self.is_terminal  # The terminal shows ^C.
            if self._interrupts >= _INTERRUPTS_MAX:
                self._gave_up.set()
            else:
                self._running.cancel()

    def _show_event(self, kind: str, data: Any) -> None:
        if kind == "output":
            self._write(str(data))
        elif kind == "dropped":
            self._fresh_line()
            self._write(f"... {data} characters of output are left out\n")

    def _show_failure(self, failure: RemoteFailure) -> None:
        if failure.kind == "cancelled":
            self._write("interrupted\n")
        elif failure.detail:
            self._write(self._coloured(failure.detail))
            self._fresh_line()
        else:
            self._write(f"{failure}\n")

    def _coloured(self, traceback: str) -> str:
        if not self.is_terminal:
            return traceback
        from pygments import highlight  # Imported where it is needed: it takes a while.
        from pygments.formatters import TerminalFormatter
        from pygments.lexers import PythonTracebackLexer

        return str(highlight(traceback, PythonTracebackLexer(), TerminalFormatter()))

    def _show_notices(self) -> None:
        for notice in self._notices:
            self._fresh_line()
            self._write(f"{notice}\n")
        self._notices.clear()

    def _write(self, text: str) -> None:
        if text:
            encoding = self._stdout.encoding or "utf-8"
            self._stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
            self._stdout.flush()
            self._at_line_start = text.endswith("\n")

    def _fresh_line(self) -> None:
        if not self._at_line_start:
            self._write("\n")

    # -- a script --------------------------------------------------------------------------------------

    async def run_script(self) -> int:
        """Runs the lines of the input. A block ends where the next line outside of it begins."""
        with self._interrupted_by(self.interrupt):
            held = ""
            async for line in self._lines():
                starts_anew = bool(line.strip()) and line[:1] not in (" ", "\t", "#") and not _continues(line)
                if held and starts_anew and not is_incomplete(held):
                    if await self.evaluate(held) != "ok":
                        return FAILED
                    held = ""
                held += line
                if len(held) > CONTROL_REQUEST_BYTES_MAX:
                    self._write("a statement is too long; is a quote or a bracket left open?\n")
                    return FAILED
                if _is_simple(held) and not is_incomplete(held):
                    if held.strip() and await self.evaluate(held) != "ok":
                        return FAILED
                    held = ""
            if held.strip():
                status = await self.evaluate(f"{held}\n")
                if status == "incomplete":
                    self._write("the input ends in the middle of a statement\n")
                return OK if status == "ok" else FAILED
        return OK

    async def _lines(self) -> AsyncIterator[str]:
        """The lines of the input. Only pipes are waited for; files are there."""
        if not _is_pipe(self._stdin):
            for line in self._stdin:
                yield line
            return
        reader = asyncio.StreamReader(limit=CONTROL_REQUEST_BYTES_MAX)
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), self._stdin
        )
        lost = asyncio.ensure_future(self._client.wait_lost())
        try:
            while True:
                reading = asyncio.ensure_future(reader.readline())
                await asyncio.wait({reading, lost}, return_when=asyncio.FIRST_COMPLETED)
                if not reading.done():
                    reading.cancel()
                    raise lost.result()
                try:
                    data = reading.result()
                except ValueError:
                    raise RemoteFailure(f"a line is longer than {CONTROL_REQUEST_BYTES_MAX} bytes") from None
                if not data:
                    return
                yield data.decode("utf-8", "replace")
        finally:
            lost.cancel()
            transport.close()

    # -- a terminal ------------------------------------------------------------------------------------

    async def interact(self, history_path: str | None) -> int:
        """Prompts until the person leaves."""
        from aspen.shell.editor import Cleared, make_session  # prompt_toolkit is for terminals only, and takes a while.

        session = make_session(self._client, f"{self._node_name}> ", history_path)
        self._write("Code is evaluated on the node. help() says what there is; Ctrl-D detaches.\n")
        text = ""
        with self._interrupted_by(self.interrupt):
            while True:
                try:
                    text = await self._prompt(session, text)
                except Cleared:
                    text = ""
                    continue
                except EOFError:
                    return OK
                if text.strip() in _LEAVING:
                    return OK
                self._at_line_start = True
                if text.strip() and await self.evaluate(text) == "incomplete":
                    text += "\n"
                else:
                    text = ""

    async def _prompt(self, session: Any, default: str) -> str:
        prompting = asyncio.ensure_future(session.prompt_async(default=default, handle_sigint=False))
        lost = asyncio.ensure_future(self._client.wait_lost())
        try:
            await asyncio.wait({prompting, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not prompting.done():
                prompting.cancel()
                await asyncio.wait({prompting})
                raise lost.result()
            return str(prompting.result())
        finally:
            lost.cancel()


def _is_pipe(stream: TextIO) -> bool:
    """Whether its lines may be a while in coming."""
    try:
        mode = os.fstat(stream.fileno()).st_mode
    except (OSError, ValueError):  # It is text in memory.
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)


def _continues(line: str) -> bool:
    """Whether a line without indentation belongs to the block before it all the same."""
    return _CONTINUES.match(line) is not None


def _is_simple(code: str) -> bool:
    """Whether the text is over at its end: it has no block that might go on."""
    lines = code.rstrip("\n").split("\n")
    return lines[-1][:1] not in (" ", "\t")
