"""`Reply`: the caller's end of a call, a one-shot alias that a late answer cannot get past.

A reply is future-like. Awaited inside an actor it parks the actor and is resumed from the run queue,
at no cost in loop turns; awaited by an asyncio task, `gather`, `TaskGroup` or `wait_for` it behaves as an
`asyncio.Future` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from aspen.errors import CallTimeout, UsageError

if TYPE_CHECKING:
    from aspen.actor.process import Process
    from aspen.actor.scheduler import TimerEntry
    from aspen.actor.task import HandlerTask

R_co = TypeVar("R_co", covariant=True)

NEVER_NS: Final = (1 << 63) - 1
"""A deadline that does not come."""

FOREVER_NS: Final = NEVER_NS // 2
"""The timeout of a call without one. Deadlines from here on have no timer."""


class Reply(Generic[R_co]):
    """The result of a call, to be awaited once or more; the message was sent when it was made.

    A call that is never awaited was still sent. Once done, it stays as it is: a late answer is dropped.
    """

    __slots__ = (
        "__weakref__",
        "callbacks",
        "callee",
        "deadline",
        "done_",
        "error",
        "owner",
        "timer",
        "value",
        "waiter",
    )

    def __init__(self, callee: Process, deadline: int) -> None:
        self.callee = callee
        self.deadline = deadline
        self.done_ = False
        self.value: R_co
        self.waiter: Process | None = None
        self.error: BaseException | None = None
        self.callbacks: list[tuple[Callable[[Any], object], Context]] | None = None

    # -- the callee's side --------------------------------------------------------------------

    def resolve(self, value: Any) -> None:
        """Answers; does nothing when it is already done."""
        if not self.done_:
            self.value = value
            self._finish()

    def fail(self, error: BaseException) -> None:
        """Answers with an exception, raised where the reply is awaited."""
        if not self.done_:
            self.error = error
            self._finish()

    def _finish(self) -> None:
        self.done_ = True
        waiter = self.waiter
        if waiter is not None:
            self.waiter = None
            if waiter.waiting_on is self:
                waiter.waiting_on = None
                if waiter.wake == 2:
                    waiter.wake = 1
                    scheduler = waiter.sched
                    scheduler.queue.append(waiter)
                    if not scheduler.armed:
                        scheduler.arm()
        if self.callbacks is not None:
            callbacks, self.callbacks = self.callbacks, None
            timer: TimerEntry | None = self.timer
            if timer is not None:
                timer.cancel()
            owner: HandlerTask | None = self.owner
            if owner is not None and owner.pending is not None:
                owner.pending.pop(self, None)
            loop = self.get_loop()
            for callback, context in callbacks:
                loop.call_soon(callback, self, context=context)

    def expire(self) -> None:
        """Fails it with `CallTimeout`, unless it is done."""
        if not self.done_:
            callee = self.callee
            self.fail(CallTimeout(f"no answer from {callee.path} in time; the call may still be executed"))

    # -- the caller's side: what asyncio knows a future by --------------------------------------

    def __await__(self) -> Generator[Any, Any, R_co]:
        if not self.done_:
            yield self
        if self.error is not None:
            raise self.error
        return self.value

    __iter__ = __await__

    @property
    def _asyncio_future_blocking(self) -> bool:
        """asyncio knows a future by it. A reply is only ever yielded by its own `__await__`, so it is always True."""
        return True

    @_asyncio_future_blocking.setter
    def _asyncio_future_blocking(self, value: bool) -> None:
        """asyncio puts it back to False when it has taken the future."""

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The node's event loop."""
        return self.callee.sched.loop.asyncio

    def done(self) -> bool:
        """Whether there is a result or an error."""
        return self.done_

    def cancelled(self) -> bool:
        """Whether the caller gave it up."""
        return self.done_ and isinstance(self.error, asyncio.CancelledError)

    def cancel(self, msg: object = None) -> bool:
        """Gives it up: its awaiter gets `CancelledError`, an answer is dropped. False when done."""
        if self.done_:
            return False
        self.fail(asyncio.CancelledError(msg) if msg is not None else asyncio.CancelledError())
        return True

    def result(self) -> R_co:
        """The value; raises the error. `InvalidStateError` when it is not done."""
        if not self.done_:
            raise asyncio.InvalidStateError("the call has no result yet; await it")
        if self.error is not None:
            raise self.error
        return self.value

    def exception(self) -> BaseException | None:
        """The error, or None when there is a value."""
        if not self.done_:
            raise asyncio.InvalidStateError("the call has no result yet; await it")
        if isinstance(self.error, asyncio.CancelledError):
            raise self.error
        return self.error

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Runs `callback(self)` in a later loop turn once it is done. The deadline then has its own timer.

        It runs in the context of who adds it, as an `asyncio.Future` has it: not for the actor that answers.
        """
        if context is None:
            context = copy_context()
        if self.done_:
            self.get_loop().call_soon(callback, self, context=context)
            return
        # Imported here: it is above this module, and only asyncio's own ways of waiting come by.
        from aspen.actor.waiting import break_cycle, handler_in_progress

        scheduler = self.callee.sched
        if self.callbacks is None:
            self.callbacks = []
            self.owner: HandlerTask | None = None
            self.timer = scheduler.timer_at(self.deadline, self.expire) if self.deadline < FOREVER_NS else None
        self.callbacks.append((callback, context))
        owner = handler_in_progress(scheduler)
        if owner is not None and len(self.callbacks) == 1:
            self.owner = owner
            if owner.pending is None:
                owner.pending = {}
            owner.pending[self] = None
            break_cycle(self, owner.process)

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Takes `callback` out; returns how often it was in."""
        if self.callbacks is None:
            return 0
        kept = [entry for entry in self.callbacks if entry[0] != callback]
        removed = len(self.callbacks) - len(kept)
        self.callbacks[:] = kept
        if not kept and self.owner is not None and self.owner.pending is not None:
            self.owner.pending.pop(self, None)
        return removed

    def set_result(self, result: object) -> None:
        """Not for callers; answers come from the callee."""
        raise UsageError("a Reply is answered by the actor that was called")

    set_exception = set_result


class Answer(Reply[R_co]):
    """The reply that a generated ref method makes, and fills in itself: a Python `__init__` costs as much as
    the rest of the send. The method sets what `Reply.__init__` does, all of it."""

    __slots__ = ()
    __init__ = object.__init__  # takes no arguments, and runs no bytecode


class Notice(Reply[R_co]):
    """What the kernel itself tells of an actor: its exit reason, or what `sys` asked for.

    It comes whatever the actor waits for, so awaiting it closes no call cycle.
    """

    __slots__ = ()


UNAWAITED: Final[Reply[Any]] = Reply(cast(Any, None), NEVER_NS)
"""Stands for the reply of a start that nobody awaits. Done already, so that an answer changes nothing."""
UNAWAITED.resolve(None)
