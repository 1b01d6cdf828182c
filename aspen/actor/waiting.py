"""Who waits for whom: the handler on whose behalf code runs, and the call cycles that waiting can close.

A cycle is broken at the call whose message is still queued, so that `CallCycle` always means "not executed". When
every message of the cycle has been taken (its answer was deferred, say) nothing is broken: somebody else
may answer, and the deadlines bound the wait.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from aspen import limits
from aspen.actor.process import F_EXITING, Message, Process
from aspen.actor.reply import Notice, Reply
from aspen.errors import CallCycle

if TYPE_CHECKING:
    from collections import deque

    from aspen.actor.scheduler import Scheduler
    from aspen.actor.task import HandlerTask

current_process: ContextVar[Process | None] = ContextVar("aspen_process", default=None)
"""The actor on whose behalf asyncio code runs that the kernel does not step itself."""

current_handler: ContextVar[HandlerTask | None] = ContextVar("aspen_handler", default=None)
"""The handler that started this asyncio code. Once it has ended, the code runs in the background of its actor."""


def handler_in_progress(scheduler: Scheduler) -> HandlerTask | None:
    """The async handler that is kept by what runs now: its own step, or an asyncio task that it started."""
    current = scheduler.current
    task = current.task if current is not None else current_handler.get()
    return task if task is not None and not task.finished else None


def blocked_by(scheduler: Scheduler) -> Process | None:
    """The actor that handles nothing else while what runs now goes on; None in the background of an actor."""
    if scheduler.current is not None:
        return scheduler.current
    task = handler_in_progress(scheduler)
    return task.process if task is not None else None


def waits_for(process: Process, target: Process) -> bool:
    """Whether `process` is `target`, or awaits an answer of `target`, perhaps through others."""
    return process is target or _wait_for(process, target) is not None


def break_cycle(reply: Reply[Any], caller: Process) -> None:
    """Breaks the cycles that close when `caller` begins to wait for `reply`."""
    callee = reply.callee
    for _ in range(limits.CALL_CHAIN_MAX):
        closing = _wait_for(callee, caller)
        if closing is None and callee is not caller:
            return
        if _withdraw(reply):
            reply.fail(CallCycle(f"{caller.path} and {callee.path} wait for each other; {_REMEDY}"))
            return
        if closing is None or not _withdraw(closing):
            return
        closing.fail(CallCycle(f"{caller.path} waits for an answer that waits for this call; {_REMEDY}"))


_REMEDY = "use a cast, answer later with defer(), or move the shared state to a third actor"


def _wait_for(process: Process, target: Process) -> Reply[Any] | None:
    """The answer of `target` that `process` waits for, perhaps through others."""
    stack, seen = [process], set[Process]()
    while stack and len(seen) < limits.CALL_CHAIN_MAX:
        process = stack.pop()
        if process in seen:
            continue
        seen.add(process)
        for reply in _waits(process):
            if reply.callee is target:
                return reply
            stack.append(reply.callee)
    return None


def _waits(process: Process) -> Iterator[Reply[Any]]:
    """What the handler of `process` waits for, itself or by asyncio tasks that it started."""
    waiting_on, task = process.waiting_on, process.task
    if waiting_on is None:
        return
    # Who waits for an end waits for a handler only once that one cleans up: until then the exit
    # signal is on its way and cancels the handler.
    if isinstance(waiting_on, Reply) and (not isinstance(waiting_on, Notice) or waiting_on.callee.flags & F_EXITING):
        yield waiting_on
    if task is not None and task.pending is not None:
        yield from task.pending


def _withdraw(reply: Reply[Any]) -> bool:
    """Takes the message of a call out of its callee's mail; False when it has been taken already."""
    callee = reply.callee
    lanes: tuple[deque[Message] | None, ...] = (callee.urgent, callee.mailbox)
    for lane in lanes:
        for index, message in enumerate(lane or ()):
            if message[2] is reply and lane is not None:
                del lane[index]
                return True
    return False
