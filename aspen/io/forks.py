"""`Forks`: runs functions in forked processes, a bounded number at a time, each with a bound on its time.

A forked process begins with all that this one has loaded, does one thing, sends its result through a pipe, and ends by
`os._exit`: nothing of what it holds is cleaned up. That is right for simulations, whose dead nodes must not run.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import time
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from aspen.errors import UsageError

A = TypeVar("A")
R = TypeVar("R")

CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Forked(Generic[A, R]):
    """What came of one process."""

    argument: A
    result: R | None
    failure: str = ""
    """Why there is no result: the traceback of an error, or how the process ended."""
    cpu_s: float = 0.0
    """Processor seconds that the function used."""


class _Running(Generic[A]):
    def __init__(self, argument: A, process_id: int, pipe: int, deadline: float) -> None:
        self.argument = argument
        self.process_id = process_id
        self.pipe = pipe
        self.deadline = deadline
        self.data = bytearray()
        self.killed = False


def forked(
    fn: Callable[[A], R], arguments: Iterable[A], *, jobs: int = 1, wall_s: float, quiet: bool = True
) -> Iterator[Forked[A, R]]:
    """Yields `fn(argument)` for each argument as the results come. One that takes longer than `wall_s` is killed.

    With `quiet`, what the processes print and log goes nowhere. Closing the iterator kills those that run.
    """
    if jobs < 1:
        raise UsageError(f"jobs={jobs}: use at least 1")
    waiting = iter(arguments)
    running: dict[int, _Running[A]] = {}
    more = True
    try:
        while True:
            while more and len(running) < jobs:
                try:
                    argument = next(waiting)
                except StopIteration:
                    more = False
                    break
                one = _start(fn, argument, wall_s, quiet)
                running[one.pipe] = one
            if not running:
                return
            now = time.monotonic()
            soonest = min(one.deadline for one in running.values())
            ready, _, _ = select.select(list(running), [], [], max(0.0, soonest - now))
            for pipe in ready:
                one = running[pipe]
                chunk = os.read(pipe, CHUNK_BYTES)
                one.data += chunk
                if not chunk:
                    del running[pipe]
                    yield _collect(one, wall_s)
            now = time.monotonic()
            for one in running.values():
                if now >= one.deadline and not one.killed:
                    one.killed = True
                    one.deadline = now + 60.0
                    os.kill(one.process_id, signal.SIGKILL)
    finally:
        for one in running.values():
            os.kill(one.process_id, signal.SIGKILL)
            os.close(one.pipe)
            os.waitpid(one.process_id, 0)


def _start(fn: Callable[[A], R], argument: A, wall_s: float, quiet: bool) -> _Running[A]:
    read_end, write_end = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # other threads are not needed in the child
        process_id = os.fork()
    if process_id == 0:
        os.close(read_end)
        _work(fn, argument, write_end, quiet)
    os.close(write_end)
    return _Running(argument, process_id, read_end, time.monotonic() + wall_s)


def _work(fn: Callable[[A], R], argument: A, pipe: int, quiet: bool) -> None:
    """In the child: never returns."""
    try:
        if quiet:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, 1)
            os.dup2(nowhere, 2)
            logging.disable(logging.CRITICAL)
        began = time.process_time()
        try:
            result: tuple[R | None, str] = (fn(argument), "")
        except BaseException:
            result = (None, traceback.format_exc())
        data = pickle.dumps((*result, time.process_time() - began))
        while data:
            data = data[os.write(pipe, data) :]
    finally:
        os._exit(0)


def _collect(one: _Running[A], wall_s: float) -> Forked[A, R]:
    os.close(one.pipe)
    _, status = os.waitpid(one.process_id, 0)
    if one.killed:
        return Forked(one.argument, None, f"it took more than {wall_s:g} s of real time and was killed")
    try:
        result, failure, cpu_s = pickle.loads(one.data)  # noqa: S301 -- written by our own child
    except Exception:
        return Forked(one.argument, None, f"its process ended with status {status} and sent no result")
    return Forked(one.argument, result, failure, cpu_s)
