"""The long ways of a send: the first mail, a full or dead mailbox, strict messages, callers that are no actor."""

from __future__ import annotations

from collections import deque
from typing import Any

from aspen import wire
from aspen.actor.behaviour import STOP
from aspen.actor.process import DEAD, F_STOPPING, F_URGENT, NO_MAIL, PARKED, QUEUED, Message, Process
from aspen.actor.remote import RemoteProcess
from aspen.actor.reply import Reply
from aspen.actor.waiting import blocked_by, current_process, waits_for
from aspen.errors import CallCycle, NoProc, Overloaded


def caller_of(process: Process) -> Process | None:
    """The actor that is sending, to a process of the same node: the one in its slot, else the one
    whose child asyncio task runs."""
    return process.sched.current or current_process.get()


def _admit(process: Process, args: tuple[Any, ...]) -> tuple[str | None, tuple[Any, ...]]:
    """Why the process cannot take a message now, or None; and the arguments as they will arrive."""
    if process.wake == DEAD:
        return "noproc", args
    if process.mailbox is NO_MAIL:
        process.mailbox = deque()
        process.limit = -1 if process.system.strict_messages else process.blueprint.mailbox_max
    if process.system.strict_messages:
        args = wire.copy(args)
        if len(process.mailbox) >= process.blueprint.mailbox_max:
            return "overloaded", args
    elif len(process.mailbox) >= process.limit:
        return "overloaded", args
    return None, args


def _enqueue(process: Process, name: str, args: tuple[Any, ...], reply: Reply[Any] | None) -> None:
    process.mailbox.append((name, args, reply))
    if not process.wake:
        process.sched.enqueue(process)


def deliver(process: Process, message: Message) -> bool:
    """Puts a message into the mail, as the methods of refs do; False when something is special: take the long way."""
    mailbox = process.mailbox
    if len(mailbox) >= process.limit:
        return False
    mailbox.append(message)
    if not process.wake:
        process.sched.enqueue(process)
    return True


def send_slow(process: Process, name: str, args: tuple[Any, ...]) -> None:
    """Sends a cast; what cannot be delivered becomes a dead letter."""
    if isinstance(process, RemoteProcess):
        process.far.cast(process, name, args)
        return
    refused, args = _admit(process, args)
    if refused is None:
        _enqueue(process, name, args, None)
    else:
        process.system.dead_letter(process, refused, (name, *args))


def send_unbounded(process: Process, name: str, args: tuple[Any, ...]) -> None:
    """Sends a cast that is not refused by a full mailbox: for timers that have one message in it at most."""
    if isinstance(process, RemoteProcess):
        process.far.cast(process, name, args)
        return
    if _admit(process, ())[0] != "noproc":
        _enqueue(process, name, args, None)


def call_slow(process: Process, name: str, args: tuple[Any, ...], timeout_ns: int) -> Reply[Any]:
    """Sends a call; a refusal is an error in the reply that it returns."""
    caller = blocked_by(process.sched)
    reply = _new_reply(process, timeout_ns, caller)
    if isinstance(process, RemoteProcess):
        process.far.call(process, name, args, reply, False)
        return reply
    if caller is not None and waits_for(process, caller):
        reply.fail(
            CallCycle(
                f"{caller.path} called {process.path}.{name}, which waits for {caller.path}; "
                f"use a cast, answer later with defer(), or move the shared state to a third actor"
            )
        )
    else:
        deliver_call(process, name, args, reply)
    return reply


def deliver_call(process: Process, name: str, args: tuple[Any, ...], reply: Reply[Any]) -> None:
    """Puts a call into the mail of an actor of this node; a refusal is an error in `reply`."""
    refused, args = _admit(process, args)
    if refused is None:
        _enqueue(process, name, args, reply)
    elif refused == "noproc":
        reply.fail(no_proc(process, name))
    else:
        reply.fail(
            Overloaded(
                f"{process.path} has {len(process.mailbox)} messages waiting, its bound; {name} was not executed"
            )
        )


def call_urgent(process: Process, name: str, args: tuple[Any, ...], timeout_ns: int) -> Reply[Any]:
    """Sends a call that goes before the mail and is not bounded by it."""
    caller = blocked_by(process.sched)
    reply = _new_reply(process, timeout_ns, caller)
    if isinstance(process, RemoteProcess):
        process.far.call(process, name, args, reply, True)
    elif process.wake == DEAD:
        reply.fail(no_proc(process, name))
    elif caller is not None and waits_for(process, caller):
        reply.fail(CallCycle(f"{caller.path} called {process.path}.{name}, which waits for {caller.path}"))
    else:
        put_urgent(process, name, args, reply)
    return reply


def put_urgent(process: Process, name: str, args: tuple[Any, ...], reply: Reply[Any] | None = None) -> None:
    """Queues a message before the mail of a live process; nothing happens to a dead one."""
    if process.wake == DEAD:
        return
    if process.urgent is None:
        process.urgent = deque()
    process.urgent.append((name, args, reply))
    process.flags |= F_URGENT
    if process.wake != QUEUED and (process.wake != PARKED or process.task is None):
        process.sched.enqueue(process)


def put_stop(process: Process, reason: object) -> None:
    """Queues an order to end, `terminate` included, before the mail of a live process, suspended or not."""
    if isinstance(process, RemoteProcess):
        process.far.stop(process, reason)
        return
    process.flags |= F_STOPPING
    put_urgent(process, STOP, (reason,))


def no_proc(process: Process, name: str) -> NoProc:
    """The error for a message to an actor that is not there."""
    return NoProc(f"{process.path} is not running; {name} was not executed")


def _new_reply(process: Process, timeout_ns: int, caller: Process | None) -> Reply[Any]:
    deadline = process.sched.mono_ns() + timeout_ns
    if caller is not None and caller.answering is not None and caller.answering.deadline < deadline:
        deadline = caller.answering.deadline
    return Reply(process, deadline)
