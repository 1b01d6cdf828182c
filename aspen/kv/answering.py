"""`Answering`: reads at a member's applied state, none of which holds it for long. Called by `KvStateMachine`.

A batch of reads is done at once as far as it goes in one step; what is left of it, a huge range say, goes on beside
everything else, one step of one batch a turn of the loop. Each read shows one moment: that of its own first step.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from typing import Any, Final

from aspen.errors import KvError, NotLeader, Overloaded
from aspen.kv.codec import encode_batch, encode_error
from aspen.kv.machine import Machine
from aspen.kv.types import ErrorCode
from aspen.limits import (
    KV_ANSWER_BYTES_MAX,
    KV_LONG_READS_MAX,
    KV_READ_RANGES_STEP,
    KV_READ_STEP_KEYS,
    KV_READ_TRIES,
)

Steps = Generator[None, None, bytes]

_COMPACTED: Final = encode_error(ErrorCode.COMPACTED)[:3]
_TOO_LARGE: Final = encode_error(ErrorCode.RESULT_TOO_LARGE, KV_ANSWER_BYTES_MAX)


def results(machine: Machine, commands: list[bytes]) -> Steps:
    """The results of reads, as a batch; of the first ones only when all would be too much: the client asks for the
    others again."""
    found: list[bytes] = []
    size = ranges = 0
    for command in commands:
        result = machine.read_plain(command)
        if result is None:
            ranges += 1
            if ranges % KV_READ_RANGES_STEP == 0:
                yield
            result = yield from _read(machine, command)
            if len(result) > KV_ANSWER_BYTES_MAX:
                result = _TOO_LARGE
        size += len(result)
        if size > KV_ANSWER_BYTES_MAX and found:
            break
        found.append(result)
    return encode_batch(found)


def _read(machine: Machine, command: bytes) -> Steps:
    """A read that shows the present begins anew when its moment is compacted while it goes on; the last try is done in
    one step."""
    for _ in range(KV_READ_TRIES):
        steps = machine.read_steps(command, KV_READ_STEP_KEYS, KV_ANSWER_BYTES_MAX)
        is_whole = True
        while True:
            try:
                next(steps)
            except StopIteration as done:
                result: bytes = done.value
                break
            is_whole = False
            yield
        if is_whole or result[:3] != _COMPACTED:
            return result
    return machine.read(command)


class Answering:
    """See the module."""

    def __init__(self, loop: asyncio.AbstractEventLoop, machine: Callable[[], Machine]) -> None:
        self._loop, self._machine = loop, machine
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def answer(self, commands: list[bytes], handle: Any) -> None:
        """Does the reads; `handle` gets `(True, results)` now or later, or why not."""
        machine = self._machine()
        steps = results(machine, commands)
        try:
            next(steps)
        except StopIteration as done:
            handle.reply((True, done.value))
            return
        except KvError as error:
            handle.fail(error)
            return
        if len(self._tasks) >= KV_LONG_READS_MAX:
            handle.fail(Overloaded(f"{KV_LONG_READS_MAX} long reads are under way here, the most; try again later"))
            return
        task = self._loop.create_task(self._go_on(machine, steps, handle), name="aspen.kv.read")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _go_on(self, machine: Machine, steps: Steps, handle: Any) -> None:
        try:
            while True:
                # One step a turn, however many go on: whoever has had theirs stands behind the others.
                async with self._turn:
                    await _let_others_run()
                    if not handle.waiting:
                        return
                    if self._machine() is not machine:
                        handle.fail(NotLeader("the state of this member was replaced meanwhile; ask again"))
                        return
                    next(steps)
        except StopIteration as done:
            handle.reply((True, done.value))
        except KvError as error:
            handle.fail(error)

    def close(self) -> None:
        """Ends what is under way."""
        for task in tuple(self._tasks):
            task.cancel()


async def _let_others_run() -> None:
    await asyncio.sleep(0)
