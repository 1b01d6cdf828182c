"""`HandlerTask`: an `async def` handler, driven by the kernel as an asyncio task of its own kind.

asyncio documents how a third party may drive a coroutine as a task ("Extending asyncio"). Doing so makes
`asyncio.timeout`, `TaskGroup`, anyio and every library built on them work inside a handler, while awaiting
a `Reply` costs no loop turn. One task is one invocation of one handler.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import TYPE_CHECKING, Any

from aspen import limits
from aspen.actor.reply import Reply

if TYPE_CHECKING:
    from aspen.actor.process import Message, Process


class HandlerTask:
    """The running invocation of one handler; what `asyncio.current_task()` returns inside it."""

    __slots__ = (
        "__weakref__",
        "_asyncio_future_blocking",
        "_cancels",
        "_done_callbacks",
        "_message",
        "_must_cancel",
        "context",
        "coro",
        "finished",
        "message",
        "pending",
        "process",
        "reply",
        "throw",
    )

    def __init__(self, process: Process, coro: Coroutine[Any, Any, Any], message: Message, context: Context) -> None:
        self.process = process
        self.coro = coro
        self.message = message
        self.reply = message[2]
        self.context = context
        self.finished = False
        self.throw: BaseException | None = None
        self.pending: dict[Reply[Any], None] | None = None
        """Calls that it awaits by asyncio's means: `gather`, tasks that it started."""
        self._cancels = 0
        self._message: object = None
        self._must_cancel = False
        self._asyncio_future_blocking = False

    # -- what the kernel does with it ------------------------------------------------------------

    def wait_for(self, future: Any) -> None:
        """Parks the process until a foreign future is done."""
        process = self.process
        process.waiting_on = future
        future._asyncio_future_blocking = False
        future.add_done_callback(self._wakeup, context=self.context)
        if self._must_cancel and future.cancel(self._message):
            self._must_cancel = False

    def _wakeup(self, future: Any) -> None:
        process = self.process
        if process.waiting_on is not future or process.task is not self:
            return
        process.waiting_on = None
        process.sched.resume(process)

    def take_throw(self) -> BaseException | None:
        """The exception to throw at the next step, if any."""
        error, self.throw = self.throw, None
        if self._must_cancel:
            self._must_cancel = False
            if not isinstance(error, asyncio.CancelledError):
                error = self._cancelled_error()
        return error

    def _cancelled_error(self) -> asyncio.CancelledError:
        message = self._message
        return asyncio.CancelledError() if message is None else asyncio.CancelledError(message)

    # -- what asyncio knows a task by ---------------------------------------------------------------

    @property
    def _fut_waiter(self) -> object:
        """anyio looks at it by this name."""
        waiting_on = self.process.waiting_on if self.process.task is self else None
        return None if waiting_on is self else waiting_on

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """The node's event loop."""
        return self.process.sched.loop.asyncio

    def get_coro(self) -> Coroutine[Any, Any, Any]:
        """The handler's coroutine."""
        return self.coro

    def get_context(self) -> Context:
        """The context in which it runs."""
        return self.context

    def get_name(self) -> str:
        """The actor and the handler."""
        return f"{self.process.path}.{self.message[0]}"

    def set_name(self, value: object) -> None:
        """Ignored: the name is the actor's and the handler's."""

    def done(self) -> bool:
        """Whether the handler has ended."""
        return self.finished

    def cancelled(self) -> bool:
        """False: a handler that is cancelled ends by an exception."""
        return False

    def result(self) -> object:
        """None: a handler's result goes to its caller."""
        if not self.finished:
            raise asyncio.InvalidStateError("the handler is still running")
        return None

    exception = result

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        """Runs `callback(self)`, in the context of who adds it, in a later loop turn after the handler has ended."""
        if context is None:
            context = copy_context()
        if self.finished:
            self.get_loop().call_soon(callback, self, context=context)
            return
        try:
            self._done_callbacks.append((callback, context))
        except AttributeError:
            self._done_callbacks: list[tuple[Callable[[Any], object], Context]] = [(callback, context)]

    def remove_done_callback(self, callback: Callable[[Any], object]) -> int:
        """Takes `callback` out; returns how often it was in."""
        callbacks = getattr(self, "_done_callbacks", [])
        kept = [entry for entry in callbacks if entry[0] != callback]
        removed = len(callbacks) - len(kept)
        callbacks[:] = kept
        return removed

    def finish(self) -> None:
        """Marks it done and tells those who asked."""
        self.finished = True
        for callback, context in getattr(self, "_done_callbacks", ()):
            self.get_loop().call_soon(callback, self, context=context)

    def close(self) -> None:
        """Ends the coroutine where it stands: it is cancelled, and left at the first thing that it awaits then.

        Cancelled first and not only closed, because an asyncio task group cancels its tasks on that alone.
        """
        loop = self.get_loop()
        enter, first = asyncio.current_task(loop) is None, True
        for _ in range(limits.CLOSE_TRIES_MAX):
            if enter:
                asyncio._enter_task(loop, self)  # type: ignore[arg-type]  # a task by duck type
            try:
                if first:
                    first = False
                    self.context.run(self.coro.throw, self._cancelled_error())
                else:
                    self.context.run(self.coro.close)
                    return
            except (StopIteration, asyncio.CancelledError):
                return
            except RuntimeError as error:
                if "ignored GeneratorExit" not in str(error):
                    raise
            finally:
                if enter:
                    asyncio._leave_task(loop, self)  # type: ignore[arg-type]  # a task by duck type

    def cancel(self, msg: object = None) -> bool:
        """Throws `CancelledError` into the handler at its next step, as `asyncio.Task.cancel` does."""
        if self.finished:
            return False
        self._cancels += 1
        self._message = msg
        process = self.process
        waiting_on = process.waiting_on
        if process.task is self and waiting_on is not None:
            if isinstance(waiting_on, Reply):
                # Only this wait is given up: the call's answer may still be awaited, here or by another.
                if waiting_on.waiter is process:
                    waiting_on.waiter = None
                process.waiting_on = None
                self._must_cancel = True
                process.sched.resume(process)
                return True
            # Its own stands for the next turn of the loop, as in `asyncio.sleep(0)`, which comes anyway.
            if waiting_on is not self and waiting_on.cancel(msg):  # type: ignore[attr-defined]  # a foreign future
                return True
        self._must_cancel = True
        return True

    def cancelling(self) -> int:
        """Requests to cancel that were not taken back."""
        return self._cancels

    def uncancel(self) -> int:
        """Takes one request back; returns how many are left."""
        if self._cancels:
            self._cancels -= 1
            if not self._cancels:
                self._must_cancel = False
        return self._cancels

    def __repr__(self) -> str:
        return f"<HandlerTask {self.get_name()}>"
