"""The run queue of one node: slots, turns, timers and the stepping of `async def` handlers.

A *turn* is one callback of the event loop; it drains the run queue for at most `TURN_MS_MAX`. A *slot* is one
process's share of a turn: its signals, then its urgent messages, then its mail, at most
`SLOT_MESSAGES_MAX` messages or about `SLOT_MS_MAX`. Sync handlers are called directly; an async handler's
coroutine is stepped here until it awaits something, and its process is parked.

Production takes processes in the order in which they became runnable. Simulation passes `choose`, which
rotates the queue by the seed; the choice is per process, never per message, so pairwise order holds. When `choose`
returns True the turn ends before that slot: so simulation runs one slot a turn, and other nodes in between.
"""

from __future__ import annotations

from asyncio import CancelledError
from asyncio import _enter_task as enter_task  # documented in "Extending asyncio"
from asyncio import _leave_task as leave_task
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from heapq import heapify, heappop, heappush
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final

from aspen import limits
from aspen.actor.behaviour import STOP
from aspen.actor.process import (
    DEAD,
    F_CONTROL,
    F_DEAD,
    F_DEBUG,
    F_EXITING,
    F_GUARDED,
    F_IDLE,
    F_OBSERVED,
    F_STOPPING,
    F_STRICT,
    F_SUSPENDED,
    F_UNBORN,
    F_URGENT,
    IDLE,
    PARKED,
    QUEUED,
    Message,
    Process,
)
from aspen.actor.reply import FOREVER_NS, NEVER_NS, Answer, Notice, Reply
from aspen.actor.sending import no_proc
from aspen.actor.task import HandlerTask
from aspen.actor.waiting import break_cycle, current_handler, current_process
from aspen.errors import NotEncodable

if TYPE_CHECKING:
    from aspen.actor.system import System
    from aspen.traits import Loop, Timer


class Deferred:
    """What a `@call` handler returns to answer later."""

    __slots__ = ()


DEFERRED: Final = Deferred()


class TimerEntry:
    """A callback at a time, which can be cancelled."""

    __slots__ = ("callback", "on_done")

    def __init__(self, callback: Callable[[], object] | None) -> None:
        self.callback = callback
        self.on_done: Callable[[TimerEntry], object] | None = None

    @property
    def pending(self) -> bool:
        """Whether it is still to run."""
        return self.callback is not None

    def cancel(self) -> None:
        """Makes sure that it does not run; harmless when it has."""
        if self.callback is not None:
            self.callback = None
            if self.on_done is not None:
                self.on_done(self)

    def fire(self) -> None:
        """Runs it, unless it was cancelled."""
        callback = self.callback
        if callback is not None:
            self.cancel()
            callback()


_TIMERS_KEPT_MIN: Final = 1_024
_TURN_NS: Final = limits.TURN_MS_MAX * 1_000_000
_SLOT_NS: Final = limits.SLOT_MS_MAX * 1_000_000
_CLOCK_MASK: Final = limits.SLOT_CLOCK_EVERY_MESSAGES - 1
_SLOT_MESSAGES: Final = limits.SLOT_MESSAGES_MAX


class Scheduler:
    """Runs the processes of one system. Everything here happens on the loop's thread."""

    __slots__ = (
        "_context",
        "_heap",
        "_sequence",
        "_slots_max",
        "_timer",
        "_timer_ns",
        "_timers_kept",
        "aio",
        "armed",
        "choose",
        "current",
        "loop",
        "mono_ns",
        "now_ns",
        "queue",
        "stopped",
        "system",
        "turn",
    )

    def __init__(self, system: System, choose: Callable[[deque[Process]], bool | None] | None = None) -> None:
        self.system = system
        self.loop: Loop = system.ports.loop
        self.aio = self.loop.asyncio
        self.mono_ns = system.ports.clock.mono_ns
        self.now_ns = self.mono_ns()
        self.queue: deque[Process] = deque()
        self.armed = False
        self.stopped = False
        self.current: Process | None = None
        self.turn = 0
        self.choose = choose
        self._slots_max = limits.TURN_SLOTS_MAX if choose is None else limits.SIM_TURN_SLOTS_MAX
        # Turns and timers run in this context, not in that of whoever happened to ask for them first.
        self._context = copy_context()
        self._context.run(current_process.set, None)
        self._context.run(current_handler.set, None)
        self._heap: list[tuple[int, int, TimerEntry]] = []
        self._sequence = 0
        self._timers_kept = _TIMERS_KEPT_MIN
        self._timer: Timer | None = None
        self._timer_ns = NEVER_NS

    # -- the run queue ------------------------------------------------------------------------------

    def arm(self) -> None:
        """Asks the loop for a turn."""
        if not self.armed and not self.stopped:
            self.armed = True
            self._context.run(self.loop.call_soon, self._run_turn)

    def enqueue(self, process: Process) -> None:
        """Makes a process runnable that is neither queued nor dead."""
        if process.wake != QUEUED and process.wake != DEAD:
            process.wake = QUEUED
            self.queue.append(process)
            if not self.armed:
                self.arm()

    resume = enqueue

    def stop(self) -> None:
        """Runs nothing more. Used when the node has ended or is crashed in simulation."""
        self.stopped = True
        self.queue.clear()
        self._heap.clear()
        if self._timer is not None:
            self._timer.cancel()

    def _run_turn(self) -> None:
        try:
            self._drain()
        except BaseException as error:
            self._turn_raised(error)
            raise
        finally:
            self.current = None
            self.armed = False
            if self.queue:
                self.arm()

    def _turn_raised(self, error: BaseException) -> None:
        """Puts back the process whose slot did not end in order; a fault of the kernel's own ends that process, so
        that it is not met again at every turn."""
        process = self.current
        if process is None or process.wake != QUEUED or process in self.queue:
            return
        if isinstance(error, Exception):
            self.system.broken(process, error)
        else:
            self._end_slot(process)

    def _drain(self) -> None:
        queue = self.queue
        popleft = queue.popleft
        mono_ns = self.mono_ns
        choose = self.choose
        now = self.now_ns = mono_ns()
        turn_end = now + _TURN_NS
        self.turn += 1
        slots, slots_max = 0, self._slots_max
        coroutine = CoroutineType
        while queue:
            slots += 1
            if not slots & _CLOCK_MASK:
                now = self.now_ns = mono_ns()
                if now > turn_end or slots > slots_max:
                    break
            if choose is not None and choose(queue):
                break
            process = popleft()
            self.current = process
            if process.flags:
                if not self._special(process):
                    if self.now_ns > turn_end:
                        break
                    continue
            task = process.task
            if task is not None:
                if process.waiting_on is None:
                    self._step(process, task)
                if process.wake == QUEUED:
                    if process.waiting_on is not None and not process.flags:
                        process.wake = PARKED
                    else:
                        self._end_slot(process)
                continue
            mailbox = process.mailbox
            count = 0
            slot_end = 0
            message: Message | None = None
            try:
                handlers = process.handlers
                actor = process.actor
                pop = mailbox.popleft
                while mailbox:
                    name, args, reply = message = pop()
                    if reply is not None:
                        process.answering = reply
                    # A call with its arguments written out is inlined by the interpreter; one with `*args` is not.
                    arity = len(args)
                    if arity == 1:
                        (first,) = args
                        result = handlers[name](actor, first)
                    elif arity == 2:
                        first, second = args
                        result = handlers[name](actor, first, second)
                    elif arity == 0:
                        result = handlers[name](actor)
                    else:
                        result = handlers[name](actor, *args)
                    if reply is None:
                        if result is not None and type(result) is coroutine:
                            self._begin(process, result, message)
                            if process.task is not None:
                                break
                    else:
                        if type(result) is coroutine:
                            self._begin(process, result, message)
                            if process.task is not None:
                                break
                        elif result is DEFERRED:
                            process.more().defer(reply)
                        elif not reply.done_:
                            reply.value = result
                            reply._finish()
                        process.answering = None
                    if process.flags:
                        break
                    count += 1
                    if not count & _CLOCK_MASK:
                        now = self.now_ns = mono_ns()
                        if slot_end == 0:
                            slot_end = now + _SLOT_NS
                        if count >= _SLOT_MESSAGES or now > slot_end:
                            break
            except BaseException as error:
                if message is None:
                    raise
                self._handler_raised(process, error, message)
            if process.wake == QUEUED:
                if process.flags or process.task is not None:
                    self._end_slot(process)
                elif mailbox:
                    queue.append(process)
                else:
                    process.wake = IDLE
            if slot_end and now > turn_end:
                break

    def _end_slot(self, process: Process) -> None:
        if process.flags & (F_CONTROL | F_URGENT) and (process.task is None or process.flags & F_CONTROL):
            self.queue.append(process)
        elif process.task is not None:
            if process.waiting_on is None:
                self.queue.append(process)
            else:
                process.wake = PARKED
        elif process.flags & (F_SUSPENDED | F_EXITING):
            process.wake = PARKED
        elif process.mailbox:
            self.queue.append(process)
        else:
            process.wake = IDLE

    # -- the slow slot ----------------------------------------------------------------------------------

    def _special(self, process: Process) -> bool:
        """Does what the flags ask. True when the fast slot may go on with this process."""
        if process.flags & F_DEAD:
            return False
        system = self.system
        if process.flags & F_CONTROL:
            signals, process.control = process.control, None
            process.flags &= ~F_CONTROL
            for name, args in signals or ():
                if process.wake == DEAD:
                    if name == "run":
                        args[1].fail(no_proc(process, "sys"))
                    continue
                system.signals[name](process, *args)
        if process.flags & F_GUARDED:
            self._lapsed(process)
        if process.wake == DEAD:
            return False
        if process.task is not None:
            return True
        if process.flags & F_EXITING:
            process.wake = PARKED
            return False
        if process.flags & F_UNBORN:
            system.construct_itself(process)
            if process.wake == DEAD:
                return False
            if process.flags & F_CONTROL:
                self.queue.append(process)
                return False
        if process.flags & F_SUSPENDED and process.starting is None:
            if not process.flags & F_STOPPING:
                process.wake = PARKED
                return False
            self._stop_first(process)
        if process.flags & (F_URGENT | F_DEBUG | F_IDLE | F_STRICT | F_OBSERVED | F_GUARDED):
            self._slow_messages(process)
            if process.flags & F_IDLE and process.wake == QUEUED and process.task is None:
                system.arm_idle(process)
            if process.wake == QUEUED:
                self._end_slot(process)
            return False
        return True

    def _lapsed(self, process: Process) -> bool:
        """Ends a process whose guard says that it may act no more."""
        if process.flags & F_EXITING:
            return False
        guard = process.more().guard
        reason = guard.lapsed() if guard is not None else None
        if reason is None:
            return False
        self.system.end(process, reason, terminate=True)
        return True

    @staticmethod
    def _stop_first(process: Process) -> None:
        """Ends a suspension by the stop that is queued, before all that waited for a resume."""
        process.flags &= ~(F_SUSPENDED | F_STOPPING)
        urgent = process.urgent
        if urgent is not None:
            stop = next((message for message in urgent if message[0] == STOP), None)
            if stop is not None:
                urgent.remove(stop)
                urgent.appendleft(stop)

    def _slow_messages(self, process: Process) -> None:
        """A slot's worth of messages, one by one: urgent ones first, traced and counted."""
        slot_end = self.mono_ns() + _SLOT_NS
        for count in range(_SLOT_MESSAGES):
            if process.flags & F_GUARDED and self._lapsed(process):
                return
            urgent = process.urgent
            if urgent:
                message = urgent.popleft()
                if not urgent:
                    process.flags &= ~F_URGENT
            elif process.mailbox and process.starting is None:
                message = process.mailbox.popleft()
            else:
                process.flags &= ~F_URGENT
                return
            self._one(process, message)
            if process.task is not None or process.wake != QUEUED:
                return
            if process.flags & (F_CONTROL | F_SUSPENDED | F_EXITING):
                return
            if count & _CLOCK_MASK == _CLOCK_MASK:
                now = self.now_ns = self.mono_ns()
                if now > slot_end:
                    return

    def _one(self, process: Process, message: Message) -> None:
        """Handles one message with everything that may be switched on."""
        name, args, reply = message
        debug = process.debug
        observer = self.system.observer
        if observer is not None:
            observer(process, "receive", name, args)
        if debug is not None:
            self.system.observe(process, debug, "receive", message, None)
        elif name == STOP and reply is None:
            self.system.stopped(process, message)  # what raising `Stop` comes to, without the raise
            return
        try:
            if reply is not None:
                process.answering = reply
            result = process.handlers[name](process.actor, *args)
            if type(result) is CoroutineType:
                self._begin(process, result, message)
                if process.task is not None:
                    return
            elif reply is not None:
                if result is DEFERRED:
                    process.more().defer(reply)
                else:
                    if observer is not None:
                        observer(process, "reply", name, result)
                    if debug is not None:
                        self.system.observe(process, debug, "reply", message, result)
                    reply.resolve(self.system.checked(result) if process.flags & F_STRICT else result)
            process.answering = None
        except BaseException as error:
            self._handler_raised(process, error, message)

    def _handler_raised(self, process: Process, error: BaseException, message: Message) -> None:
        process.answering = None
        self.system.handler_raised(process, error, message)
        if isinstance(error, KeyboardInterrupt):
            raise error

    # -- async handlers ---------------------------------------------------------------------------------

    def _begin(self, process: Process, coro: Any, message: Message) -> None:
        context = process.context
        if context is None:
            context = process.context = copy_context()
            context.run(current_process.set, process)
        context = context.copy()
        task = process.task = HandlerTask(process, coro, message, context)
        context.run(current_handler.set, task)
        self._step(process, task)

    def _step(self, process: Process, task: HandlerTask) -> None:
        """Runs the handler until it awaits something that is not there yet, or ends."""
        loop = self.aio
        coro = task.coro
        run = task.context.run
        while True:
            error = task.take_throw() if (task.throw is not None or task._must_cancel) else None
            finished, ended = False, None
            enter_task(loop, task)  # type: ignore[arg-type]  # a task of our own kind; cast() would be a call
            try:
                awaited = run(coro.send, None) if error is None else run(coro.throw, error)
            except StopIteration as stop:
                finished, awaited = True, stop.value
            except BaseException as raised:
                ended = raised
            finally:
                leave_task(loop, task)  # type: ignore[arg-type]  # as above
            # Only now: what follows an end may step the next coroutine, `terminate`.
            if finished:
                self._finished(process, task, awaited)
                return
            if ended is not None:
                try:
                    self._ended_by(process, task, ended)
                finally:
                    del ended  # its traceback holds this frame
                return
            kind = type(awaited)
            if kind is Answer or kind is Notice or kind is Reply:
                if awaited.done_:
                    continue
                callee = awaited.callee
                if callee.waiting_on is not None and kind is not Notice:
                    break_cycle(awaited, process)
                if awaited.done_ or task._must_cancel:
                    continue
                if awaited.waiter is None:
                    awaited.waiter = process
                    process.waiting_on = awaited
                    if awaited.deadline < process.sweep_at:
                        self._sweep_at(process, awaited.deadline)
                else:
                    task.wait_for(awaited)
                return
            if awaited is None:
                process.waiting_on = task
                self.loop.call_soon(lambda: task._wakeup(task))
                return
            if getattr(awaited, "_asyncio_future_blocking", None):
                if awaited.get_loop() is loop:
                    task.wait_for(awaited)
                    return
                task.throw = RuntimeError(f"a handler awaited {awaited!r}, which belongs to another event loop")
                continue
            task.throw = RuntimeError(f"a handler awaited {awaited!r}, which asyncio cannot await")

    def _finished(self, process: Process, task: HandlerTask, value: object) -> None:
        task.finish()
        process.task = None
        process.answering = None
        reply = task.reply
        if reply is not None and value is DEFERRED:
            process.more().defer(reply)
        elif reply is not None:
            if self.system.observer is not None:
                self.system.observer(process, "reply", task.message[0], value)
            if process.debug is not None:
                self.system.observe(process, process.debug, "reply", task.message, value)
            try:
                reply.resolve(self.system.checked(value) if process.flags & F_STRICT else value)
            except NotEncodable as error:
                self.system.handler_ended(process, task, error)
                return
        self.system.handler_ended(process, task, None)

    def _ended_by(self, process: Process, task: HandlerTask, error: BaseException) -> None:
        task.finish()
        process.task = None
        process.answering = None
        if process.wake != DEAD:
            cancelled = process.flags & F_EXITING and isinstance(error, CancelledError)
            self.system.handler_ended(process, task, None if cancelled else error)
        if isinstance(error, KeyboardInterrupt):
            raise error

    # -- time --------------------------------------------------------------------------------------------

    def timer_at(self, at_ns: int, callback: Callable[[], object]) -> TimerEntry:
        """Runs `callback` on the loop at the clock's time `at_ns`. Timers of one time run in the order made."""
        entry = TimerEntry(callback)
        self._sequence += 1
        heappush(self._heap, (at_ns, self._sequence, entry))
        if len(self._heap) > self._timers_kept:
            self._forget_cancelled()
        if at_ns < self._timer_ns and not self.stopped:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ns = at_ns
            self._timer = self._context.run(self.loop.call_at, at_ns, self._run_timers)
        return entry

    def _forget_cancelled(self) -> None:
        """Keeps cancelled timers from piling up: at most as many as live ones stay in the heap."""
        self._heap[:] = [item for item in self._heap if item[2].pending]
        heapify(self._heap)
        self._timers_kept = max(_TIMERS_KEPT_MIN, 2 * len(self._heap))

    def _run_timers(self) -> None:
        heap = self._heap
        now = self.mono_ns()
        # Timers that are made by those that run now wait for the loop's next turn, however soon they are due.
        last = self._sequence
        self._timer, self._timer_ns = None, -1
        try:
            while heap and heap[0][0] <= now and heap[0][1] <= last and not self.stopped:
                heappop(heap)[2].fire()
        finally:
            while heap and not heap[0][2].pending:
                heappop(heap)
            self._timer_ns = NEVER_NS
            if heap and not self.stopped:
                self._timer_ns = heap[0][0]
                self._timer = self._context.run(self.loop.call_at, heap[0][0], self._run_timers)

    def _sweep_at(self, process: Process, at_ns: int) -> None:
        """Looks at the process's deadline at `at_ns`: one timer a process, not one a call."""
        if at_ns >= FOREVER_NS:
            return
        process.sweep_at = at_ns
        self.timer_at(at_ns, lambda: self._sweep(process, at_ns))

    def _sweep(self, process: Process, at_ns: int) -> None:
        if process.sweep_at != at_ns:
            return
        process.sweep_at = NEVER_NS
        reply = process.waiting_on
        if isinstance(reply, Reply) and not reply.done_:
            if reply.deadline <= self.mono_ns():
                reply.expire()
            else:
                self._sweep_at(process, reply.deadline)
