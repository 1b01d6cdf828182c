"""Evaluation of a client's code on the node: top-level `await`, the last expression's value, `_`.

An evaluation runs in the handler of its own `RequestWorker`, so it is an actor as any other: it may call, monitor and
await, an exit signal cancels it, and while it holds the loop nothing else runs. For that last case there is
`interrupts`: the node's watchdog asks it whether to raise an exception in the middle of the code.
"""

from __future__ import annotations
import __future__

import ast
import asyncio
import codeop
import inspect
import linecache
import pprint
import traceback
import warnings
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Final

import aspen
from aspen.actor import Process, Reply
from aspen.actor.process import F_DEAD, F_EXITING
from aspen.errors import RemoteFailure
from aspen.limits import SHELL_BLOCK_MS, SHELL_REPR_CHARS_MAX, SHELL_SOURCES_KEPT_MAX, SHELL_TRACEBACK_CHARS_MAX
from aspen.shell.control import NodeControl
from aspen.shell.namespace import make_namespace
from aspen.shell.operations import Job
from aspen.shell.output import Output, routed
from aspen.shell.views import Action
from aspen.types import describe_reason

_FLAGS: Final = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
_OWN_CODE: Final = tuple(str(Path(aspen.__file__).parent / part) for part in ("actor", "shell"))
_PRETTY_CHARS_MIN: Final = 100
_PRETTY_CHARS_MAX: Final = 20_000


class Blocked(BaseException):
    """Raised in the middle of an evaluation that holds the loop.

    A `BaseException`, so that an `except Exception` in a loop does not swallow it.
    """

    def __init__(self) -> None:
        super().__init__(
            f"the evaluation held the node's loop for {SHELL_BLOCK_MS} ms; await something now and then, "
            "or use `await offload(fn, ...)`"
        )


def interrupts(process: object, held_ms: int = SHELL_BLOCK_MS) -> type[BaseException] | None:
    """What the watchdog shall raise when this process has held the loop for so long: None but for requests
    of a shell. Called in the watchdog's thread."""
    from aspen.shell.session import RequestWorker  # The worker runs the evaluator, which is defined here.

    if held_ms < SHELL_BLOCK_MS or not isinstance(process, Process):
        return None
    if process.blueprint.cls is RequestWorker and process.task is not None:
        return Blocked
    return None


def is_ending(process: Process, error: BaseException) -> bool:
    """Whether an exception in the handler of `process` comes from its end, and not from the code that it runs.

    That code may raise `CancelledError` of its own accord, as awaiting a task does that somebody cancelled.
    """
    if process.flags & F_DEAD or isinstance(error, GeneratorExit):
        return True
    return bool(process.flags & F_EXITING) and isinstance(error, asyncio.CancelledError)


class Evaluator:
    """Evaluates the code of one client, in a namespace of its own."""

    _sessions = 0

    def __init__(self, control: NodeControl) -> None:
        Evaluator._sessions += 1
        self._session = Evaluator._sessions
        self._count = 0
        self._sources: deque[str] = deque()
        self.namespace: dict[str, Any] = make_namespace(control)
        self._features = 0
        """Flags of `from __future__ import ...` that were evaluated."""

    async def evaluate(self, code: str, job: Job) -> dict[str, str]:
        """Runs `code`; brings the repr of its last expression, or that more lines are to come.

        Raises:
            RemoteFailure: the code raised; `detail` is the traceback, without frames that are not the user's.
        """
        process = self._process_now(job)
        output = Output(job, process)
        try:
            with routed(output):
                try:
                    return await self._run(code)
                except BaseException as error:
                    if is_ending(process, error):
                        raise
                    raise _failure(error) from None
        finally:
            if not process.flags & (F_EXITING | F_DEAD):
                await output.close()
            else:
                output.flush()
                output.closed = True

    @staticmethod
    def _process_now(job: Job) -> Process:
        current: Process | None = job.control.system.scheduler.current
        if current is None:
            raise RemoteFailure("an evaluation runs in an actor")
        return current

    async def _run(self, code: str) -> dict[str, str]:
        if is_incomplete(code):
            return {"status": "incomplete", "repr": ""}
        filename = self._remember(code)
        value: object = None
        for part in self._compile(code, filename):
            value = eval(part, self.namespace)  # noqa: S307 -- what the shell is for; its clients are admins
            if part.co_flags & inspect.CO_COROUTINE:
                value = await value  # type: ignore[misc]  # a coroutine, by the flag
        if isinstance(value, Action):
            value = await value
        if value is None:
            return {"status": "ok", "repr": ""}
        self.namespace["_"] = value
        return {"status": "ok", "repr": show(value)}

    def _compile(self, code: str, filename: str) -> Iterator[CodeType]:
        """The statements, and the last one's value when it is an expression."""
        flags = _FLAGS | self._features
        with warnings.catch_warnings():
            warnings.simplefilter("default")
            tree = compile(code, filename, "exec", flags | ast.PyCF_ONLY_AST, dont_inherit=True)
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            body = compile(tree, filename, "exec", flags, dont_inherit=True)
            for name in __future__.all_feature_names:
                feature = getattr(__future__, name).compiler_flag
                if body.co_flags & feature:
                    self._features |= feature
            result = None
            if isinstance(last, ast.Expr):
                result = compile(ast.Expression(last.value), filename, "eval", flags, dont_inherit=True)
        yield body
        # Always a second part, so that the value of statements is None.
        yield result if result is not None else compile("None", filename, "eval", dont_inherit=True)

    def _remember(self, code: str) -> str:
        """Keeps the text for tracebacks; returns its file name."""
        self._count += 1
        filename = f"<shell {self._session}.{self._count}>"
        linecache.cache[filename] = (len(code), None, code.splitlines(keepends=True), filename)
        self._sources.append(filename)
        if len(self._sources) > SHELL_SOURCES_KEPT_MAX:
            linecache.cache.pop(self._sources.popleft(), None)
        return filename

    def close(self) -> None:
        """Forgets the texts."""
        for filename in self._sources:
            linecache.cache.pop(filename, None)
        self._sources.clear()


def is_incomplete(code: str) -> bool:
    """Whether more lines are to come: the text breaks off, or ends in an indented line that no line end closes.

    An indented block is ended by an empty line, as at Python's own prompt.
    """
    lines = code.split("\n")
    if len(lines) > 1 and lines[-1][:1] in (" ", "\t") and lines[-1].strip():
        return True
    compiler = codeop.Compile()
    compiler.flags |= _FLAGS
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return codeop._maybe_compile(compiler, code, "<shell>", "exec") is None  # type: ignore[attr-defined]
    except (SyntaxError, ValueError, OverflowError, MemoryError, RecursionError):
        return False  # Complete, and wrong: evaluating it says how.


def show(value: object) -> str:
    """The repr of a result, laid out over lines when it is a long container; bounded."""
    if isinstance(value, Reply):
        answer = "it is answered" if value.done() else "it is not answered yet"
        return f"<a call to {value.callee.path}; {answer}: await it>"
    text = repr(value)
    if type(value) in (dict, list, tuple, set, frozenset) and _PRETTY_CHARS_MIN < len(text) < _PRETTY_CHARS_MAX:
        text = pprint.pformat(value, width=_PRETTY_CHARS_MIN, sort_dicts=False)
    if inspect.iscoroutine(value):
        text += "  # it has not run yet: await it"
    if len(text) > SHELL_REPR_CHARS_MAX:
        text = f"{text[:SHELL_REPR_CHARS_MAX]}... ({len(text)} characters)"
    return text.encode("utf-8", "backslashreplace").decode()


def _failure(error: BaseException) -> RemoteFailure:
    what = describe_reason(error)
    if isinstance(error, SystemExit):
        return RemoteFailure("SystemExit: it ends nothing here. Ctrl-D detaches; node.stop(confirm=...) stops the node")
    text = _safe_traceback(error)
    if len(text) > SHELL_TRACEBACK_CHARS_MAX:
        text = f"... ({len(text)} characters)\n{text[-SHELL_TRACEBACK_CHARS_MAX:]}"
    return RemoteFailure(what, "failed", text.encode("utf-8", "backslashreplace").decode())


def _safe_traceback(error: BaseException) -> str:
    try:
        told = traceback.TracebackException.from_exception(error, compact=True)
        for part in _parts(told):
            part.stack = traceback.StackSummary.from_list([frame for frame in part.stack if _is_users(frame.filename)])
        return "".join(told.format())
    except Exception as problem:  # A repr or a __str__ of the user's that raises.
        return f"{type(error).__name__}, whose traceback cannot be shown: {describe_reason(problem)}\n"


def _parts(told: traceback.TracebackException) -> Iterator[traceback.TracebackException]:
    stack, seen = [told], set[int]()
    while stack:
        part = stack.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield part
        stack += [p for p in (part.__cause__, part.__context__, *(part.exceptions or ())) if p is not None]


def _is_users(filename: str) -> bool:
    return not filename.startswith((*_OWN_CODE, "<aspen ref"))
